//! Statements that must not do what they say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

fn small() -> Database {
    let db = Database::of_stream("stream", || Ok(Box::new(host().start()))).unwrap();
    db.with_limits(Limits {
        time: Duration::from_secs(2),
        memory_bytes: 32 << 20,
        spill_bytes: 64 << 20,
        ..Limits::default()
    })
}

#[test]
fn nothing_is_written_and_no_file_is_read() {
    let (db, folder) = (small(), tempfile::tempdir().unwrap());
    let file = folder.path().join("x.csv");
    std::fs::write(&file, "a\n1\n").unwrap();
    let file = file.display();
    for statement in [
        format!("copy (select 1) to '{file}'"),
        format!("create external table t stored as csv location '{file}'"),
        format!("create table t as select * from '{file}'"),
        format!("select * from '{file}'"),
        format!("select * from \"{file}\""),
        format!("select * from read_csv('{file}')"),
        format!("select * from csv('{file}')"),
        format!("explain copy (select 1) to '{file}'"),
        "explain analyze insert into cpu select * from cpu".into(),
        "create view v as select 1".into(),
        "drop table cpu".into(),
        "insert into cpu select * from cpu".into(),
        "delete from cpu".into(),
        "update cpu set cpu = 1".into(),
        "truncate table cpu".into(),
        "set datafusion.execution.target_partitions = 1000000".into(),
        "reset datafusion.execution.target_partitions".into(),
        "prepare p as select 1".into(),
        "execute p".into(),
        "begin".into(),
        "create function f() returns int return 1".into(),
        "select 1 into t".into(),
        "with t as (insert into cpu select * from cpu returning cpu) select * from t".into(),
    ] {
        let why = refused(&db, &statement);
        assert!(why.starts_with("cannot answer the query: "), "{statement}: {why}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("x.csv")).unwrap(), "a\n1\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(number(&db, "select 1"), 1);
}

#[test]
fn what_has_no_end_is_stopped() {
    let db = small();
    let endless = "with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t";
    assert!(refused(&db, endless).contains("it was stopped after 2s"), "endless recursion");
    let product =
        "select count(*) from generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) where x % 7 = y % 11";
    let why = refused(&db, product);
    assert!(why.contains("stopped after") || why.contains("memory"), "{why}");
    assert_eq!(number(&db, "select 1"), 1);
}

#[test]
fn what_is_too_large_goes_to_the_disk_or_is_refused() {
    let db = small();
    // More than the limit, and it can be spilled.
    let sorted = "select value from generate_series(1, 3000000) order by value % 1000003, value limit 1 offset 2999999";
    let told = db.query(sorted).and_then(|rows| rows.collect::<Result<Vec<_>>>());
    if let Err(why) = told {
        let why = why.to_string();
        assert!(why.contains("memory") || why.contains("stopped"), "{why}");
    }
    let kept = "select array_agg(value) from generate_series(1, 50000000)";
    let why = refused(&db, kept);
    assert!(why.contains("more memory than it may have") || why.contains("stopped"), "{why}");
    assert_eq!(number(&db, "select 1"), 1);
}

#[test]
fn statements_of_any_shape_end_in_an_answer_or_an_error() {
    let db = small();
    let nested =
        |open: &str, close: &str, count: usize| format!("select {}1{}", open.repeat(count), close.repeat(count));
    for statement in [
        format!("select '{}'", "x".repeat(1_000_000)),
        nested("(", ")", 20_000),
        nested("not ", "", 9_000),
        nested("-", "", 9_000),
        nested("- ", "", 900),
        nested("abs(", ")", 5_000),
        nested("case when true then ", " end", 3_000),
        format!("select 1{}", " + 1".repeat(15_000)),
        format!("select 1{}", " union all select 1".repeat(3_000)),
        format!("select * from cpu{}", ", cpu".repeat(10_000)),
        format!("select * from {}cpu{}", "(select * from ".repeat(2_000), ")".repeat(2_000)),
        String::new(),
        ";;;".into(),
        "select 1; select 2".into(),
        "select '".into(),
        "select \u{0}".into(),
        "\u{feff}select".into(),
        "select * from thread_state where".into(),
        "select 1 / 0".into(),
        "select cast('x' as int)".into(),
        "select 9223372036854775807 + 1".into(),
        "select nothing(1)".into(),
        "select * from generate_series(1, 10, 0)".into(),
        "select repeat('x', 9223372036854775807)".into(),
        "select comm ~ '((((a*)*)*)*)*' from task where comm ~ '(x{1000}){1000}'".into(),
    ] {
        let told = db.query(&*statement).and_then(|rows| rows.collect::<Result<Vec<_>>>());
        let start: String = statement.chars().take(60).collect();
        match told {
            Ok(_) => println!("answered: {start}"),
            Err(why) => println!("refused: {start}: {why}"),
        }
    }
    // As many as are allowed are answered, in whatever time that takes.
    let db = db.with_limits(Limits::default());
    assert_eq!(number(&db, &*format!("select 1{}", " + 1".repeat(990))), 991);
    let list: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    assert_eq!(number(&db, &*format!("select count(*) from cpu where cpu in ({})", list.join(","))), 4);
}

#[test]
fn texts_are_not_made_longer_than_there_is_room() {
    let db = small();
    let nested = |by: &str| {
        let steps: Vec<String> = (1..40).map(|n| format!("t{n} as (select {by} as t from t{})", n - 1)).collect();
        format!("with t0 as (select comm as t from task), {} select max(length(t)) from t39", steps.join(", "))
    };
    for statement in [
        nested("t || t"),
        nested("concat(t, t)"),
        nested("concat_ws(t, t, t)"),
        nested("replace(t, 'a', t || t)"),
        "select sum(length(repeat(comm, 10000000))) from task".into(),
        "select length(repeat('x', 1000000000))".into(),
        "select sum(length(lpad(comm, 10000000))) from task".into(),
        "select length(rpad('x', 2000000000))".into(),
        format!("select length(replace(repeat('x', 100000), 'x', '{}'))", "y".repeat(10_000)),
        "select length(regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g'))".into(),
        "select array_repeat(1, 1000000000)".into(),
        "select range(1, 1000000000)".into(),
        "select range(-1000000000, -5)".into(),
        "select range(5, -1000000000, -1)".into(),
        "select count(*) from (select unnest(range(tid, tid + 10000000)) from task)".into(),
        "select approx_percentile_cont(0.5, 1000000000000) within group (order by tid) from task".into(),
    ] {
        let why = refused(&db, &statement);
        assert!(
            ["memory", "function", "centroids", "brackets"].iter().any(|word| why.contains(word)),
            "{statement}: {why}"
        );
    }
    // What is of a common size is made.
    assert_eq!(number(&db, "select sum(n) from (select unnest(range(0, 1000, 100)) as n)"), 4_500);
    assert_eq!(
        rows(&db, "select 'a' || 7 || 'b', concat('a', 'b'), lpad('7', 3, '0'), repeat('ab', 2)"),
        [["a7b", "ab", "007", "abab"]]
    );
    assert_eq!(
        rows(&db, "select 'a' || null, regexp_replace('kworker/0:1', '[0-9]+', 'N', 'g'), replace('aXa', 'X', 'b')"),
        [["-", "kworker/N:N", "aba"]]
    );
}

#[test]
fn plans_do_not_double_without_end() {
    let db = small();
    let steps: Vec<String> =
        (1..25).map(|n| format!("t{n} as (select a.cpu from t{0} a join t{0} b using (cpu))", n - 1)).collect();
    let why = refused(&db, &format!("with t0 as (select cpu from cpu), {} select count(*) from t24", steps.join(", ")));
    assert!(why.contains("steps"), "{why}");
    let why = refused(&db, &format!("select {}1{}", "cast(".repeat(60), " as int)".repeat(60)));
    assert!(why.contains("brackets"), "{why}");
}

#[test]
fn joins_without_equality_do_not_spill() {
    // In DataFusion 55.2 they then give rows twice.
    let db = Database::of_stream("stream", || Ok(Box::new(host().start()))).unwrap();
    let query = "select count(*) from thread_state a left join wakeup b
                 on a.ts > b.ts - 30000 and a.ts < b.ts + 30000 and a.dur > b.dur";
    let whole = number(&db, query);
    for memory_bytes in [100 << 10, 300 << 10, 600 << 10, 2 << 20, 64 << 20] {
        let db = Database::of_stream("stream", || Ok(Box::new(host().start()))).unwrap();
        let db = db.with_limits(Limits { memory_bytes, ..Limits::default() });
        match db.query(query).and_then(|rows| rows.collect::<Result<Vec<_>>>()) {
            Ok(_) => assert_eq!(number(&db, query), whole, "{memory_bytes} bytes"),
            Err(why) => assert!(why.to_string().contains("memory"), "{why}"),
        }
    }
}

#[test]
fn names_that_are_nearly_right_are_told() {
    let db = small();
    for (statement, says) in [
        ("select commm from wakeup", "no column is called `commm`: do you mean `comm`?"),
        ("select w.duration from wakeup w", "no column is called `duration`"),
        ("select * from thread_states", "no table is called `thread_states`: do you mean `thread_state`?"),
        ("select * from irq_slice", "the table `irq_slice` is not in this trace: record with `--events irq`"),
        ("select * from futex_wait", "the table `futex_wait` is not in this trace: record with `--events futex_wait`"),
        ("select percentile(dur) from wakeup", "percentile"),
        ("selec 1", "selec"),
        ("drop table cpu", "traces are only read"),
        ("", "it is empty"),
    ] {
        let why = refused(&db, statement);
        assert!(why.contains(says), "{statement}: {why}");
    }
}

#[test]
fn whoever_leaves_ends_the_query() {
    let db = small();
    let mut rows = db.query("select * from generate_series(1, 1000000000000)").unwrap();
    assert!(rows.next().unwrap().is_ok());
    drop(rows);
    drop(db.query("select count(*) from generate_series(1, 1000000000000)"));
    drop(db);
}

#[test]
fn another_runtime_does_not_mind() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let db = small();
        assert_eq!(number(&db, "select 1"), 1);
    });
}

#[test]
fn a_damaged_trace_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("t.schedtrace");
    record(host(), &dir, true);
    let victim = dir.join("events/sched_switch/00000000.parquet");
    let bytes = std::fs::read(&victim).unwrap();
    for at in (4..bytes.len()).step_by(bytes.len() / 97 + 1) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(&victim, &bytes).unwrap();
        let db = Database::open([&dir]).unwrap();
        for query in
            ["select count(*), sum(prev_prio), min(ts_ns) from sched_switch", "select sum(dur) from sched_slice"]
        {
            let told = db.query(query).and_then(|rows| rows.collect::<Result<Vec<_>>>());
            if let Err(why) = told {
                let why = why.to_string();
                assert!(!why.contains('\n'), "{why}");
            }
        }
    }
    std::fs::write(&victim, &bytes[..bytes.len() / 2]).unwrap();
    let db = Database::open([&dir]).unwrap();
    let why = refused(&db, "select count(*) from sched_switch where cpu > 0");
    assert!(why.contains("00000000.parquet is damaged"), "{why}");
}

#[test]
fn a_query_that_was_cancelled_ends_although_rows_wait() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&cancelled);
    let endless = "select value from generate_series(1, 1000000000000)";
    let mut rows = small().query_unless(endless, move || asked.load(Ordering::Relaxed)).unwrap();
    assert!(rows.next().unwrap().is_ok());
    cancelled.store(true, Ordering::Relaxed);
    // By now the next rows are there to be taken.
    std::thread::sleep(Duration::from_millis(100));
    let told = rows.next().unwrap().unwrap_err().to_string();
    assert!(told.contains("it was cancelled"), "{told}");
    assert!(rows.next().is_none());
}
