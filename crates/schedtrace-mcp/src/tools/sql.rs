//! Any other question, in SQL, of the traces that may be read and of nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schedtrace_core::Window;
use schedtrace_core::query::{self, Database, Limits, Query, Rows, TableDoc, TableKind};
use schedtrace_core::trace::{Completeness, TraceInfo, TraceReader};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Tool, hint, rows, trace_argument, unreadable};
use crate::answer::{Answer, BUDGET, ROOMY};
use crate::call::Call;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;
/// What one query may take.
const TIME: Duration = Duration::from_secs(20);
const MEMORY_BYTES: usize = 512 << 20;
const SPILL_BYTES: u64 = 1 << 30;
/// So many traces are asked at once.
const MAX_TRACES: usize = 16;
/// So many rows are passed over for a cursor at most.
const MAX_OFFSET: u64 = 1_000_000;

pub(super) const QUERY: Tool = Tool {
    name: "query_sql",
    title: "Query a trace in SQL",
    description: "Runs one SELECT over a trace, for 20 s at most: any figure that no report has. Tables: thread_state, sched_slice, \
        wakeup, preemption, task, the kernel's events; describe_tables has the columns. `ts`, `dur`: ns. Aggregate, or filter.",
    takes: || {
        json!({
            "sql": { "type": "string", "description": "DataFusion's dialect; parameters as $name." },
            "params": { "type": "object" },
            "trace": trace_argument(),
            "traces": {
                "type": "array", "items": { "type": "string" },
                "description": "Several; tables get the columns `host` and `trace`."
            },
            "limit": { "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT },
            "cursor": { "type": "string", "description": "`next_cursor` of the same statement; use ORDER BY." }
        })
    },
    required: &["sql"],
    tells: &[
        ("columns", "array"),
        ("rows", "array"),
        ("truncated", "boolean"),
        ("window", "object"),
        ("completeness", "object"),
    ],
    collects: false,
    destructive: false,
    call: ask,
};

pub(super) const DESCRIBE: Tool = Tool {
    name: "describe_tables",
    title: "Describe tables",
    description: "The tables that query_sql can ask, and with `table` what its columns are, with types and units.",
    takes: || json!({ "table": { "type": "string" }, "trace": trace_argument() }),
    required: &[],
    tells: &[("tables", "array")],
    collects: false,
    destructive: false,
    call: describe,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
    params: Option<Map<String, Value>>,
    trace: Option<PathBuf>,
    traces: Option<Vec<PathBuf>>,
    limit: Option<u64>,
    cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Describe {
    table: Option<String>,
    trace: Option<PathBuf>,
}

fn ask(call: &Call<'_>) -> Result<Answer, String> {
    let asked: Asked = call.arguments()?;
    let limit = rows("limit", asked.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let offset = match asked.cursor.as_deref().map(str::parse::<u64>) {
        None => 0,
        Some(Ok(offset @ 0..=MAX_OFFSET)) => offset,
        Some(_) => return Err("cursor: give what `next_cursor` of the same statement said, or leave it out".into()),
    };
    let paths = traces(call, &asked)?;
    let infos: Vec<TraceInfo> = paths
        .iter()
        .map(|path| TraceReader::open(path).and_then(|trace| trace.info()))
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    let limits = Limits {
        rows: Some(offset + limit as u64),
        time: TIME,
        memory_bytes: MEMORY_BYTES,
        spill_bytes: SPILL_BYTES,
        ..Limits::default()
    };
    let db = Database::open(&paths).map_err(unreadable)?.with_limits(limits);
    let cancelled = call.cancellation();
    let hint = hint(call.state, "describe_tables", "; describe_tables tells tables and columns");
    let explained = |why: schedtrace_core::Error| format!("{why}{hint}");
    let mut found = db.query_unless(query(&asked)?, move || cancelled.is_cancelled()).map_err(explained)?;
    let beside = Beside::new(columns(&found)?, &infos, again(&asked, &infos, limit), limit);
    let page = read(&mut found, offset, beside.room).map_err(explained)?;
    Ok(say(beside, page, limit, offset))
}

/// What is told beside the rows.
struct Beside {
    columns: Vec<String>,
    window: Option<Window>,
    completeness: Option<Completeness>,
    traces: Vec<Value>,
    /// The arguments that ask again, but for the cursor.
    again: Option<Value>,
    /// Bytes that are left for the rows.
    room: usize,
}

impl Beside {
    fn new(columns: Vec<String>, infos: &[TraceInfo], again: Value, limit: usize) -> Self {
        let whole = if limit > DEFAULT_LIMIT { ROOMY } else { BUDGET };
        let about = |info: &TraceInfo| {
            let complete = info.completeness.complete;
            json!({ "path": info.path, "state": info.state, "window": info.window, "complete": complete })
        };
        let traces: Vec<Value> = infos.iter().map(about).collect();
        let (window, completeness) = (window(infos), completeness(infos));
        // A statement that takes more than half of an answer is not told again: whoever asked has it.
        let again = Some(again).filter(|again| again.to_string().len() <= whole / 2);
        let taken = json!([columns, window, completeness, traces, again]).to_string().len();
        Self { columns, window, completeness, traces, again, room: whole.saturating_sub(OVERHEAD + taken) }
    }
}

/// What an answer takes in any case.
const OVERHEAD: usize = 2_000;

/// From the earliest begin to the latest end, as `ts` goes in rows; each trace's own stands in `traces`.
fn window(infos: &[TraceInfo]) -> Option<Window> {
    let from = infos.iter().map(|info| info.window.from_ns).min()?;
    let until = infos.iter().map(|info| info.window.until_ns).max()?;
    Some(Window::new(from, until))
}

/// What is missing of all of them together.
fn completeness(infos: &[TraceInfo]) -> Option<Completeness> {
    let (first, others) = infos.split_first()?;
    let mut all = first.completeness.clone();
    for Completeness { events, late, lost, removed, ends_at_last_commit, complete } in
        others.iter().map(|info| &info.completeness)
    {
        all.events = all.events.saturating_add(*events);
        all.late = all.late.saturating_add(*late);
        for loss in lost {
            match all.lost.iter_mut().find(|known| known.place == loss.place && known.kind == loss.kind) {
                Some(known) => known.count = known.count.saturating_add(loss.count),
                None => all.lost.push(loss.clone()),
            }
        }
        all.removed.segments = all.removed.segments.saturating_add(removed.segments);
        all.removed.rows = all.removed.rows.saturating_add(removed.rows);
        all.removed.until_ns = all.removed.until_ns.max(removed.until_ns);
        all.ends_at_last_commit |= ends_at_last_commit;
        all.complete &= complete;
    }
    Some(all)
}

/// The arguments that ask the same again, but for the cursor.
fn again(asked: &Asked, infos: &[TraceInfo], limit: usize) -> Value {
    let mut again = json!({ "sql": asked.sql, "limit": limit });
    if let Some(params) = &asked.params {
        again["params"] = json!(params);
    }
    match &asked.traces {
        Some(traces) => again["traces"] = json!(traces),
        None => again["trace"] = json!(infos.first().map(|info| &info.path)),
    }
    again
}

/// The answer to a query: its rows, and whether there are more.
fn say(beside: Beside, (cells, more): (Vec<Vec<Value>>, bool), limit: usize, offset: u64) -> Answer {
    let rows = match cells.len() {
        1 => "One row".to_owned(),
        n => format!("{n} rows"),
    };
    let summary = match more {
        true => format!(
            "{rows}, and there are more: aggregate, filter by `ts` or a task, or ask for the next with `next_cursor`."
        ),
        false => format!("{rows}."),
    };
    let mut answer =
        Answer::new(summary).with("columns", &beside.columns).with("rows", &cells).with("truncated", &more);
    let next = offset + cells.len() as u64;
    if more {
        answer = answer.with("next_cursor", &next.to_string());
    }
    let answer = answer.with("window", &beside.window).with("completeness", &beside.completeness);
    let answer = answer.with("traces", &beside.traces);
    let answer = if limit > DEFAULT_LIMIT { answer.roomy() } else { answer };
    match beside.again.filter(|_| more && next <= MAX_OFFSET) {
        Some(mut again) => {
            again["cursor"] = json!(next.to_string());
            answer.next("query_sql", again, "the rows that follow; narrow the statement instead if there are many")
        }
        None => answer,
    }
}

/// The folders of the traces that are asked.
fn traces(call: &Call<'_>, asked: &Asked) -> Result<Vec<PathBuf>, String> {
    match (&asked.trace, asked.traces.as_deref()) {
        (Some(_), Some(_)) => Err("trace and traces: give one of them".into()),
        (one, None) => call.state.find(one.as_deref()).map(|path| vec![path]),
        (None, Some(many)) if (1..=MAX_TRACES).contains(&many.len()) => {
            many.iter().map(|one| call.state.find(Some(one))).collect()
        }
        (None, Some(many)) => Err(format!("traces: {} cannot be asked at once: name 1 to {MAX_TRACES}", many.len())),
    }
}

fn query(asked: &Asked) -> Result<Query, String> {
    let mut query = Query::new(&asked.sql);
    for (name, value) in asked.params.iter().flatten() {
        let name = name.trim_start_matches('$');
        query = match value {
            Value::Null => query.with(name, query::Value::Null),
            Value::Bool(value) => query.with(name, query::Value::Bool(*value)),
            Value::String(text) => query.with(name, text.as_str()),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => query.with(name, whole),
                (None, Some(any)) => query.with(name, any),
                (None, None) => return Err(format!("params: ${name}: {number} is no number of 64 bits")),
            },
            Value::Array(_) | Value::Object(_) => {
                return Err(format!("params: ${name} is no number, text, boolean or null"));
            }
        };
    }
    Ok(query)
}

/// The names of the columns: each is told once, since rows are told apart by them.
fn columns(rows: &Rows) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in rows.columns() {
        if names.contains(&name) {
            return Err(format!("two columns are called `{name}`: give one of them another name with AS"));
        }
        names.push(name);
    }
    Ok(names)
}

/// The rows of a page, in which whole numbers are exact, and whether there are more. The page is what fits: what is cut off
/// from it would be missed by the next one. Nothing is kept of the rows before it, nor of those behind.
fn read(rows: &mut Rows, offset: u64, room: usize) -> Result<(Vec<Vec<Value>>, bool), schedtrace_core::Error> {
    let (mut cells, mut taken, mut before) = (Vec::new(), 0, offset);
    for batch in rows.by_ref() {
        let batch = batch?;
        let many = batch.num_rows();
        let passed = usize::try_from(before).map_or(many, |before| before.min(many));
        before -= passed as u64;
        for at in passed..many {
            // One at a time: a row may be large, and the others may never be told.
            let text = query::json(&batch.slice(at, 1))?;
            let row: [Map<String, Value>; 1] = serde_json::from_slice(&text).map_err(|why| {
                schedtrace_core::Error::Query(format!("its rows are no JSON, which is a mistake of ours: {why}"))
            })?;
            let [row] = row;
            let row: Vec<Value> = row.into_iter().map(|(_, cell)| cell).collect();
            taken += serde_json::to_string(&row).map_or(0, |text| text.len() + 1);
            if taken > room && !cells.is_empty() {
                return Ok((cells, true));
            }
            cells.push(row);
        }
    }
    Ok((cells, rows.is_cut()))
}

fn describe(call: &Call<'_>) -> Result<Answer, String> {
    let asked: Describe = call.arguments()?;
    // Without a trace, all that there can be.
    let (all, of) = match call.state.find(asked.trace.as_deref()) {
        Ok(path) => (Database::open([&path]).map_err(unreadable)?.tables(), Some(path)),
        Err(why) if asked.trace.is_some() => return Err(why),
        Err(_) => (query::tables(), None),
    };
    let answer = match &asked.table {
        None => list(&all, of.as_deref()),
        Some(name) => {
            let table = all.iter().find(|table| table.name == *name).ok_or_else(|| {
                let names: Vec<_> = all.iter().map(|table| table.name.as_str()).collect();
                format!("table: none is called `{name}`: use one of {}", names.join(", "))
            })?;
            Answer::new(format!("{}: {}", table.name, table.about)).with("tables", &[whole(table)])
        }
    };
    let example = asked.table.as_deref().unwrap_or("thread_state");
    let mut again = json!({ "sql": format!("select * from {example} limit 5") });
    if let Some(path) = &of {
        again["trace"] = json!(path);
    }
    Ok(answer.read_now().next("query_sql", again, "the first rows of it"))
}

fn whole(table: &TableDoc) -> Value {
    let columns = table.columns.iter().map(|column| {
        let unit = if column.unit.is_empty() { String::new() } else { format!(" ({})", column.unit) };
        json!({ "name": column.name, "type": column.data_type, "nullable": column.nullable, "about": format!("{}{unit}", column.about) })
    });
    json!({ "name": table.name, "kind": table.kind, "about": table.about, "columns": columns.collect::<Vec<_>>() })
}

/// What there is, with the columns of what most questions need.
fn list(all: &[TableDoc], of: Option<&Path>) -> Answer {
    let line = |table: &TableDoc| {
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let mut told = json!({ "name": table.name, "kind": table.kind, "about": first_sentence(&table.about) });
        if table.kind == TableKind::Derived {
            told["columns"] = json!(names.join(", "));
        }
        told
    };
    let tables: Vec<Value> = all.iter().map(line).collect();
    let whose = if of.is_some() { "this trace has" } else { "a trace can have" };
    Answer::new(format!("{} tables that {whose}; `table` tells the columns of one.", all.len())).with("tables", &tables)
}

fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

#[cfg(test)]
mod tests {
    use schedtrace_core::trace::{TraceWriter, WriterOptions};
    use schedtrace_core::{Batch, Loss, LossPlace, Meta, Nanos, Sink};
    use serde_json::{Value, json};

    use super::super::tests::{answer, ask, refusal, state_of};
    use super::*;
    use crate::tests::{fixture, write_trace};

    #[test]
    fn a_statement_is_answered_in_pages() {
        let state = state_of(&fixture("hackbench"));
        let all = "select ts, cpu from sched_slice order by ts, cpu";
        let told = answer(&state, "query_sql", &json!({ "sql": all, "limit": 7 }));
        assert_eq!((&told["columns"], &told["truncated"]), (&json!(["ts", "cpu"]), &json!(true)));
        let follow = told["next"][0]["arguments"].clone();
        let more = answer(&state, "query_sql", &follow);
        let whole = answer(&state, "query_sql", &json!({ "sql": all, "limit": 14 }));
        let rows = |told: &Value| told["rows"].as_array().unwrap().clone();
        assert_eq!([rows(&told), rows(&more)].concat(), rows(&whole));
        let one = json!({ "sql": "select count(*) as n from sched_slice where cpu = $cpu", "params": { "cpu": 0 } });
        assert_eq!(answer(&state, "query_sql", &one)["truncated"], false);
    }

    #[test]
    fn the_next_page_of_a_long_statement_is_asked_as_it_was_written() {
        let state = state_of(&fixture("hackbench"));
        let comment = format!("-- {}\n", "why \"this\" is asked ".repeat(20));
        let sql = format!("select ts, cpu,\n\tcpu * $share as part\n{comment}from sched_slice\norder by ts, cpu");
        let asked = json!({ "sql": sql, "params": { "share": 0.123_456_789_012 }, "limit": 5 });
        let told = answer(&state, "query_sql", &asked);
        let follow = &told["next"][0]["arguments"];
        assert_eq!((&follow["sql"], &follow["params"]), (&asked["sql"], &asked["params"]));
        let more = answer(&state, "query_sql", follow);
        let rows = |told: &Value| told["rows"].as_array().unwrap().clone();
        let whole = answer(&state, "query_sql", &json!({ "sql": sql, "params": asked["params"], "limit": 10 }));
        assert_eq!([rows(&told), rows(&more)].concat(), rows(&whole));
    }

    #[test]
    fn a_statement_leaves_room_for_its_rows() {
        let state = state_of(&fixture("hackbench"));
        for (bytes, limit, named) in [(7_000, 50, true), (20_000, 50, false), (20_000, 100, true), (60_000, 100, false)]
        {
            let sql = format!("select * -- {}\nfrom sched_slice order by ts, cpu", "\t".repeat(bytes / 2));
            let told = answer(&state, "query_sql", &json!({ "sql": sql, "limit": limit }));
            let most = if limit > DEFAULT_LIMIT { ROOMY } else { BUDGET };
            assert!(told.to_string().len() <= most && told.get("cut_to_fit").is_none(), "{bytes}: {told}");
            let rows = told["rows"].as_array().unwrap();
            assert_eq!(rows[0].as_array().unwrap().len(), told["columns"].as_array().unwrap().len());
            assert_eq!((&told["next_cursor"], rows.len() > 1), (&json!(rows.len().to_string()), true), "{bytes}");
            assert_eq!(told["next"].as_array().unwrap().len(), usize::from(named), "{bytes}");
        }
    }

    #[test]
    fn a_late_page_is_that_of_its_cursor() {
        let state = state_of(&fixture("hackbench"));
        let sql = "select row_number() over (order by a.ts, b.ts) as n, repeat('x', 100) as wide \
            from sched_slice a, sched_slice b where a.ts < $until order by n";
        let until = "select ts from sched_slice order by ts limit 1 offset 50";
        let until = answer(&state, "query_sql", &json!({ "sql": until }))["rows"][0][0].clone();
        let ask = |cursor: u64| {
            let asked = json!({ "sql": sql, "params": { "until": until }, "cursor": cursor.to_string(), "limit": 20 });
            answer(&state, "query_sql", &asked)
        };
        for cursor in [0, 1, 8_191, 8_192, 20_000] {
            let told = ask(cursor);
            let numbers = told["rows"].as_array().unwrap().iter().map(|row| row[0].as_u64().unwrap());
            assert_eq!(numbers.collect::<Vec<_>>(), (cursor + 1..=cursor + 20).collect::<Vec<_>>());
        }
        assert_eq!(ask(1_000_000)["rows"], json!([]), "there is nothing behind the end");
    }

    #[test]
    fn several_traces_are_told_together() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, until_ms: u64, lost: &[(LossPlace, u64)]| {
            let dir = folder.path().join(name);
            let mut writer = TraceWriter::create(&dir, WriterOptions::default()).unwrap();
            let until = Nanos(until_ms * 1_000_000);
            let lost =
                lost.iter().cloned().map(|(place, count)| Loss { place, kind: None, count, from: Nanos(1), until });
            let meta = Meta { started: Nanos(1), ended: Some(until), ..Meta::default() };
            writer.begin(&meta).unwrap();
            writer.batch(&Batch { until, lost: lost.collect(), ..Batch::default() }).unwrap();
            writer.finish(&meta).unwrap();
            dir
        };
        let whole = write("whole", 5, &[]);
        let some = write("some", 9, &[(LossPlace::Nested, 2)]);
        let more = write("more", 7, &[(LossPlace::Nested, 3), (LossPlace::RateLimit, 4)]);
        let state = state_of(folder.path());
        let told = answer(&state, "query_sql", &json!({ "sql": "select 1 as n", "traces": [whole, some, more] }));
        assert_eq!(told["window"], json!({ "from_ns": 1, "until_ns": 9_000_000, "duration_ns": 8_999_999 }));
        let lost: Vec<_> =
            told["completeness"]["lost"].as_array().unwrap().iter().map(|lost| lost["count"].clone()).collect();
        assert_eq!((lost, &told["completeness"]["complete"]), (vec![json!(5), json!(4)], &json!(false)));
        let complete: Vec<_> = told["traces"].as_array().unwrap().iter().map(|one| one["complete"].clone()).collect();
        assert_eq!(complete, [true, false, false]);
        let told = answer(&state, "query_sql", &json!({ "sql": "select 1 as n", "trace": whole }));
        assert_eq!((&told["window"]["until_ns"], &told["completeness"]["complete"]), (&json!(5_000_000), &json!(true)));
    }

    #[test]
    fn large_numbers_stay_exact_and_pages_fit() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        let sql = "select 9223372036854775807 as most, -9223372036854775808 as least, null as nothing";
        let told = answer(&state, "query_sql", &json!({ "sql": sql }));
        assert_eq!(told["rows"], json!([[i64::MAX, i64::MIN, null]]));
        let long = "select value, repeat('x', 199) as text from generate_series(1, 1000) order by value";
        let page = ask(&state, "query_sql", &json!({ "sql": long }));
        if page.is_error == Some(false) {
            let told = page.structured_content.unwrap();
            assert!(told.to_string().len() <= 15_000 && told.get("cut_to_fit").is_none(), "{told}");
        }
    }

    #[test]
    fn nothing_but_the_traces_can_be_read_and_nothing_written() {
        let folder = tempfile::tempdir().unwrap();
        let trace = write_trace(folder.path());
        let state = state_of(folder.path());
        let secret = folder.path().join("secret.csv");
        std::fs::write(&secret, "a\n1\n").unwrap();
        let path = secret.display();
        for sql in [
            format!("select * from read_csv('{path}')"),
            format!("select * from read_parquet('{}/events/sched_switch/00000000.parquet')", trace.display()),
            format!("select * from '{path}'"),
            format!("select * from \"{path}\""),
            format!("copy (select 1) to '{}/out.csv'", folder.path().display()),
            format!("create external table t stored as csv location '{path}'"),
            "create table t as select 1".to_owned(),
            "insert into task values (1)".to_owned(),
            "set datafusion.execution.batch_size = 1".to_owned(),
            "select 1; select 2".to_owned(),
            String::new(),
        ] {
            let why = refusal(&state, "query_sql", &json!({ "sql": sql }));
            assert!(why.contains("describe_tables"), "{sql}: {why}");
        }
        assert!(!folder.path().join("out.csv").exists());
        for (arguments, told) in [
            (json!({ "sql": "select 1", "trace": "/etc" }), "list_traces"),
            (json!({ "sql": "select 1", "traces": [] }), "name 1 to 16"),
            (json!({ "sql": "select 1", "trace": trace, "traces": [trace] }), "one of them"),
            (json!({ "sql": "select 1", "cursor": "x" }), "next_cursor"),
            (json!({ "sql": "select 1", "limit": 1001 }), "use 1 to 1000"),
            (json!({ "sql": "select $a", "params": { "a": [1] } }), "$a"),
            (json!({ "sql": "select commm from task" }), "comm"),
        ] {
            let why = refusal(&state, "query_sql", &arguments);
            assert!(why.contains(told), "{arguments}: {why}");
        }
    }

    #[test]
    fn a_query_that_nobody_waits_for_ends() {
        let state = state_of(&fixture("hackbench"));
        let sql = "select count(*) from sched_slice a, sched_slice b, sched_slice c where a.dur < b.dur + c.dur";
        let arguments = json!({ "sql": sql });
        let tool = super::super::find(&state, "query_sql").unwrap();
        let call = Call::of_tool(&state, tool, arguments.as_object().cloned().unwrap());
        call.cancel();
        let why = super::ask(&call).unwrap_err();
        assert!(why.contains("cancelled"), "{why}");
    }

    #[test]
    fn time_off_the_cpu_is_that_of_the_table_thread_state() {
        let state = state_of(&fixture("hackbench"));
        let sql = "select pid, count(*) as n, sum(dur) as ns from thread_state \
            where reason <> 'running' and dur is not null and pid > 0 group by pid order by ns desc limit 12";
        let told = answer(&state, "query_sql", &json!({ "sql": sql }));
        for row in told["rows"].as_array().unwrap() {
            let asked = json!({ "pid": row[0], "min_duration_ms": 0 });
            let off_cpu = answer(&state, "query_off_cpu_events", &asked);
            let total = |part: &str| off_cpu[part]["total_ns"].as_u64().unwrap();
            assert_eq!(off_cpu["total_events"], row[1], "pid {}", row[0]);
            assert_eq!(json!(total("waits_for_cpu") + total("sleeps")), row[2], "pid {}", row[0]);
        }
    }

    #[test]
    fn tables_are_described() {
        let state = state_of(&fixture("every-event"));
        let told = answer(&state, "describe_tables", &json!({}));
        assert!(told.to_string().len() <= 15_000 && told.get("cut_to_fit").is_none(), "{}", told["cut_to_fit"]);
        let told = answer(&state, "describe_tables", &json!({ "table": "thread_state" }));
        assert_eq!(told["tables"][0]["columns"][0]["name"], "ts");
        answer(&state, "query_sql", &told["next"][0]["arguments"]);
        assert!(refusal(&state, "describe_tables", &json!({ "table": "x" })).contains("use one of"));
        let nowhere = tempfile::tempdir().unwrap();
        answer(&state_of(nowhere.path()), "describe_tables", &json!({}));
    }
}
