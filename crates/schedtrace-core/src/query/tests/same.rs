//! What queries tell is what reports tell, and what other queries tell, however it is read.

use super::*;
use crate::analysis::{self, CpuTimeReport, Options, Sched};
use crate::trace::TraceReader;

#[test]
fn a_machine_is_the_same_however_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let [finished, in_flight, stream] = three(folder.path());
    for table in ["sched_slice", "thread_state", "wakeup", "preemption", "sched_switch", "sched_waking", "cpu"] {
        let query = &*format!("select * from {table} order by all");
        let query = query.replace(
            "order by all",
            match table {
                "cpu" => "order by cpu",
                "thread_state" | "wakeup" | "preemption" => "order by ts, utid",
                "sched_slice" => "order by ts, cpu",
                _ => "order by ts_ns, cpu",
            },
        );
        let told = rows(&finished, &*query);
        assert!(!told.is_empty(), "{table}");
        assert_eq!(told, rows(&in_flight, &*query), "{table} in flight");
        assert_eq!(told, rows(&stream, &*query), "{table} of a stream");
    }
}

#[test]
fn times_are_those_of_reports() {
    let folder = tempfile::tempdir().unwrap();
    let [db, ..] = three(folder.path());
    let mut trace = TraceReader::open(folder.path().join("finished.schedtrace")).unwrap();
    let report = analysis::run(&mut trace, Sched::new(Options::default())).unwrap();
    let cpu: &CpuTimeReport = &report.cpu_time;
    let busy = number(&db, "select sum(dur) from sched_slice where utid <> 0");
    assert_eq!(busy as u64, cpu.cpus.iter().map(|row| row.used.busy_ns).sum::<u64>());
    let idle = number(&db, "select sum(dur) from sched_slice where utid = 0");
    assert_eq!(idle as u64, cpu.cpus.iter().map(|row| row.used.idle_ns).sum::<u64>());
    let waits = &report.run_queue.total.wait;
    let state = "from thread_state where state in ('R', 'R+') and whole";
    assert_eq!(number(&db, &*format!("select count(*) {state}")) as u64, waits.count);
    assert_eq!(number(&db, &*format!("select max(dur) {state}")) as u64, waits.max_ns);
    assert_eq!(
        number(&db, "select count(*) from wakeup where whole and not new") as u64,
        report.run_queue.causes[0].wait.count
    );
    // Each task is in one state at a time, without gaps.
    let gaps = "select count(*) from (select ts + dur <> lead(ts) over (partition by utid order by ts) as gap
                from thread_state where dur is not null) where gap";
    assert_eq!(number(&db, gaps), 0);
}

#[test]
fn what_is_passed_over_is_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    let [finished, in_flight, stream] = three(folder.path());
    let (from, until) =
        (number(&finished, "select start_ts from trace_bounds"), number(&finished, "select end_ts from trace_bounds"));
    let tables = [
        ("sched_slice", "ts", "utid"),
        ("thread_state", "ts", "utid"),
        ("wakeup", "ts", "utid"),
        ("preemption", "ts", "utid"),
        ("sched_switch", "ts_ns", "next_task"),
    ];
    for part in [0.0, 0.31, 0.99] {
        let begin = from + ((until - from) as f64 * part) as i64;
        for length in [20_000, (until - from) / 10, until] {
            for (table, ts, task) in tables {
                let order = if ts == "ts" { "order by ts, utid" } else { "order by ts_ns, cpu" };
                let end = begin.saturating_add(length);
                // The sum hides the column from whoever would pass rows over.
                let plain = format!("select * from {table} where {ts} + 0 between {begin} and {end} {order}");
                let quick = format!("select * from {table} where {ts} >= {begin} and {ts} <= {end} {order}");
                let told = rows(&finished, &*plain);
                for db in [&finished, &in_flight, &stream] {
                    assert_eq!(told, rows(db, &*quick), "{quick}");
                }
                let one = told
                    .get(told.len() / 2)
                    .map(|_| format!("select {task} from {table} where {ts} >= {begin} {order} limit 1"));
                if let Some(one) = one {
                    let one = number(&finished, &*one);
                    let plain = format!(
                        "select * from {table} where {ts} + 0 between {begin} and {end} and {task} + 0 = {one} {order}"
                    );
                    let quick = format!(
                        "select * from {table} where {ts} >= {begin} and {ts} <= {end} and {task} = {one} {order}"
                    );
                    assert_eq!(rows(&finished, &*plain), rows(&finished, &*quick), "{quick}");
                }
            }
        }
    }
}

#[test]
fn tasks_are_found_by_all_that_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let [db, ..] = three(folder.path());
    let tasks = rows(&db, "select utid, tid, pid, comm from task where not is_idle order by utid limit 3");
    for task in tasks {
        let by = |what: &str| rows(&db, &*format!("select ts, dur, state from thread_state where {what} order by ts"));
        let plain = by(&format!("utid + 0 = {}", task[0]));
        assert!(!plain.is_empty());
        assert_eq!(plain, by(&format!("utid = {}", task[0])));
        assert_eq!(plain, by(&format!("tid = {}", task[1])));
        assert_eq!(plain, by(&format!("pid in ({}, 0) and tid = {}", task[2], task[1])));
        assert_eq!(plain, by(&format!("comm = '{}' and utid = {}", task[3], task[0])));
        assert!(by(&format!("comm = 'nobody' and utid = {}", task[0])).is_empty());
    }
}

#[test]
fn many_traces_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let [finished, ..] = three(folder.path());
    let paths = find([folder.path().display().to_string()]).unwrap();
    assert_eq!(paths.len(), 2);
    let many = Database::open(&paths).unwrap();
    for table in ["sched_slice", "sched_switch", "task", "cpu", "loss", "thread", "process", "sched"] {
        let count = format!("select count(*) from {table}");
        // There is one idle task, whatever there is of traces.
        let idle = i64::from(table == "thread");
        assert_eq!(number(&many, &*count), 2 * number(&finished, &*count) - idle, "{table}");
        let by_trace = format!("select trace, host, count(*) from {table} group by trace, host order by trace");
        let told = rows(&many, &*by_trace);
        if !matches!(table, "loss" | "thread") {
            assert_eq!((told.len(), &*told[0][0]), (2, &*paths[0].display().to_string()), "{table}");
        }
    }
    let one = format!("select count(*) from sched_switch where trace = '{}'", paths[1].display());
    assert_eq!(number(&many, &*one), number(&finished, "select count(*) from sched_switch"));
    // Tasks of one trace are not those of another.
    assert_eq!(number(&many, "select count(*) from sched_slice where utid = 0 and comm <> 'swapper'"), 0);
    assert_eq!(number(&many, "select count(*) from sched_slice where utid <> 0 and comm = 'swapper'"), 0);
    let join = "select count(*) from sched_slice s join thread t using (utid) where s.trace <> t.trace";
    assert_eq!(number(&many, join), 0);
    let join = "select count(*) from sched_slice join thread using (utid)";
    assert_eq!(number(&many, join), number(&many, "select count(*) from sched_slice"));
}

#[test]
fn processes_have_threads() {
    let folder = tempfile::tempdir().unwrap();
    let [db, ..] = three(folder.path());
    assert_eq!(
        number(&db, "select count(*) from thread t left join process p using (upid) where p.upid is null"),
        1,
        "idle"
    );
    assert_eq!(number(&db, "select count(*) - count(distinct upid) from process"), 0);
    assert_eq!(number(&db, "select count(*) from thread where is_idle"), 1);
    // A condition that the idle task does not fulfil leaves nothing of it.
    assert_eq!(number(&db, "select count(*) from thread where name = 'nobody'"), 0);
    assert_eq!(
        number(&db, "select count(*) from sched_migrate_task where to_cpu - from_cpu > 4"),
        0,
        "differences have a sign"
    );
}

#[test]
fn every_column_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let [db, ..] = three(folder.path());
    for table in tables() {
        assert!(table.about.ends_with('.') && table.about.len() > 10, "{}", table.name);
        assert!(!table.source.is_empty(), "{}", table.name);
        for column in &table.columns {
            assert!(column.about.len() >= 4, "{}.{} says nothing", table.name, column.name);
        }
    }
    for table in db.tables() {
        let schema = db.query(&*format!("select * from {}", table.name)).unwrap().schema();
        let told: Vec<_> = table.columns.iter().map(|column| (column.name.clone(), column.data_type.clone())).collect();
        let found: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| (field.name().clone(), super::super::tables::sql_type(field.data_type()).to_owned()))
            .collect();
        assert_eq!(told, found, "{}", table.name);
        for (column, field) in table.columns.iter().zip(schema.fields()) {
            // Of a view, the engine does not know as much as we do.
            let told = column.nullable || table.kind == TableKind::View;
            assert!(told || !field.is_nullable(), "{}.{} can be NULL", table.name, column.name);
        }
    }
}

#[test]
fn parameters_are_values_and_nothing_else() {
    let db = Database::of_stream("stream", || Ok(Box::new(host().start()))).unwrap();
    let query = Query::new("select count(*) from wakeup where comm = $comm and dur > $ns")
        .with("comm", "x' or 1 = 1 --")
        .with("ns", 0);
    assert_eq!(number(&db, query), 0);
    assert_eq!(number(&db, Query::new("select $1 + $2").with("1", 40).with("2", 2)), 42);
    assert!(refused(&db, "select $1 + 1").contains("the parameter $1 has no value"));
}
