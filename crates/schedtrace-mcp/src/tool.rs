//! The tool `analyze`: what it asks for, and how it answers.
//!
//! Its definition is plain JSON Schema, written here by hand: some hosts drop tools whose schemas hold more.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::sync::Arc;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use schedtrace_core::analysis::{self, GroupBy, Options, Report, Sched};
use schedtrace_core::trace::{TraceInfo, TraceReader};
use schedtrace_core::{Nanos, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// The tool's name.
pub const NAME: &str = "analyze";

const DESCRIPTION: &str = "Why did tasks wait for a CPU, and who held it meanwhile? Reads a whole schedtrace trace and \
    reports, for its window: run-queue latency with quantiles, causes and the worst waits; who held the CPU during these \
    waits; CPU time and utilisation; switches; wakeups and who woke whom; migrations by distance. Times end in `_ns`, \
    shares in `_ratio`. `groups_total` says how many rows there are beyond those shown. `completeness` says what is \
    known to be missing; waits cut off by an edge of the window or overlapping a loss are counted apart.";

const DEFAULT_TOP: u32 = 3;
const MAX_TOP: u32 = 100;
/// CPUs shown, busiest first: a machine has hundreds, an answer has a budget.
const MAX_CPUS: usize = 16;

/// The arguments of the tool.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    trace: PathBuf,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    top: Option<u32>,
}

/// How the tool presents itself to a client.
#[must_use]
pub fn definition() -> Tool {
    let schema = json!({
        "type": "object",
        "properties": {
            "trace": {
                "type": "string",
                "description": "Directory of the trace, as given to `schedtrace record -o`; an absolute path is best."
            },
            "by": {
                "type": "string",
                "enum": GroupBy::ALL.map(GroupBy::name),
                "default": GroupBy::default().name(),
                "description": "What a row is: a thread (task), a process, a cgroup, a CPU, or the CPUs under one last-level cache (llc)."
            },
            "top": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_TOP,
                "default": DEFAULT_TOP,
                "description": "How many rows, pairs and worst waits at most. Each costs tokens: ask for few first."
            }
        },
        "required": ["trace"],
        "additionalProperties": false
    });
    let schema: JsonObject = schema.as_object().cloned().unwrap_or_default();
    let annotations = ToolAnnotations::with_title("Analyze a scheduler trace")
        .read_only(true)
        .destructive(false)
        .idempotent(true)
        .open_world(false);
    Tool::new(NAME, DESCRIPTION, Arc::new(schema)).with_annotations(annotations)
}

/// Answers a call. What goes wrong is part of the answer, as text that says what to do next: a protocol error would
/// not reach the model.
#[must_use]
pub fn call(arguments: JsonObject) -> CallToolResult {
    answer(arguments).map_or_else(failed, CallToolResult::structured)
}

/// The answer that something failed.
pub(crate) fn failed(why: impl std::fmt::Display) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(why.to_string())])
}

fn answer(arguments: JsonObject) -> Result<Value, String> {
    let arguments: Arguments = serde_json::from_value(Value::Object(arguments)).map_err(|why| {
        format!(
            "the arguments of `{NAME}` are wrong: {why}; call it with trace (a directory), and if need be by and top"
        )
    })?;
    let by = match &arguments.by {
        Some(name) => name.parse::<GroupBy>().map_err(|why| format!("by: {why}"))?,
        None => GroupBy::default(),
    };
    let top = arguments.top.unwrap_or(DEFAULT_TOP);
    if !(1..=MAX_TOP).contains(&top) {
        return Err(format!("top: {top} rows cannot be had: use 1 to {MAX_TOP}"));
    }
    let options = Options { by, top: top as usize, ..Options::default() };
    let (info, report) = study(&arguments.trace, options).map_err(|why| {
        format!("{why}; give the directory that `schedtrace record -o` wrote, as an absolute path, in `trace`")
    })?;
    render(&info, report)
}

fn study(trace: &std::path::Path, options: Options) -> Result<(TraceInfo, Report)> {
    let mut trace = TraceReader::open(trace)?;
    let info = trace.info()?;
    Ok((info, analysis::run(&mut trace, Sched::new(options))?))
}

/// The report as JSON, with one sentence up front, and no more CPUs than an answer has room for.
fn render(info: &TraceInfo, mut report: Report) -> Result<Value, String> {
    let summary = summarize(&report);
    let cpus = report.cpu_time.cpus.len();
    report.cpu_time.cpus.sort_by_key(|row| Reverse(row.used.busy_ns));
    report.cpu_time.cpus.truncate(MAX_CPUS);
    report.switches.cpus.sort_by_key(|row| Reverse(row.counts.switches));
    report.switches.cpus.truncate(MAX_CPUS);

    let mut answer =
        serde_json::to_value(&report).map_err(|why| format!("the report cannot be told as JSON: {why}"))?;
    answer["summary"] = summary.into();
    answer["cpu_time"]["cpus_total"] = cpus.into();
    answer["switches"]["cpus_total"] = cpus.into();
    answer["trace"] = json!({
        "state": info.state,
        "host": info.host,
        "removed": info.completeness.removed,
        "ends_at_last_commit": info.completeness.ends_at_last_commit,
    });
    answer["next"] = "For more rows ask again with a larger `top`; to see whose tasks, with another `by`.".into();
    Ok(answer)
}

fn summarize(report: &Report) -> String {
    let wait = &report.run_queue.total.wait;
    let missing = match report.completeness.lost_total {
        0 => "No event is known to be missing.".to_owned(),
        lost => format!("{lost} events are known to be missing, so the counts are too low."),
    };
    format!(
        "In {} tasks waited for a CPU {} times, {} in all: half of the waits took up to {}, 99% up to {}, the longest {}. {missing}",
        Nanos(report.window.duration_ns),
        wait.count,
        Nanos(wait.total_ns),
        Nanos(wait.p50_ns),
        Nanos(wait.p99_ns),
        Nanos(wait.max_ns),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedtrace_core::trace::{TraceWriter, WriterOptions};
    use schedtrace_core::{Batch, Comm, Cpu, Event, EventKind, Meta, Sink, Switch, Task, TaskId, TaskState};

    /// On CPU 300, `hog` preempts `victim` at 1 ms and sleeps at 3 ms; the recording ends at 5 ms.
    fn trace(folder: &std::path::Path) -> PathBuf {
        let dir = folder.join("a.schedtrace");
        let mut writer = TraceWriter::create(&dir, WriterOptions::default()).unwrap();
        let (victim, hog) = (TaskId(1), TaskId(2));
        let task =
            |id: TaskId, comm: &str| Task { id, tid: id.0, tgid: id.0, comm: Comm::new(comm), ..Task::idle(Cpu(0)) };
        let switch = |ms: u64, prev, next, prev_state, preempted| Event {
            ts: Nanos(ms * 1_000_000),
            cpu: Cpu(300),
            kind: EventKind::Switch(Switch { prev, next, prev_state, preempted, prev_prio: 120, next_prio: 120 }),
        };
        let batch = Batch {
            until: Nanos(5_000_000),
            events: vec![
                switch(1, victim, hog, TaskState::RUNNING, true),
                switch(3, hog, victim, TaskState::INTERRUPTIBLE, false),
            ],
            tasks: vec![task(victim, "victim"), task(hog, "hog")],
            ..Batch::default()
        };
        let meta = Meta { started: Nanos(1), ended: Some(Nanos(5_000_000)), ..Meta::default() };
        writer.begin(&meta).unwrap();
        writer.batch(&batch).unwrap();
        writer.finish(&meta).unwrap();
        dir
    }

    fn ask(arguments: Value) -> CallToolResult {
        call(arguments.as_object().cloned().unwrap())
    }

    fn text(result: &CallToolResult) -> String {
        result.content.iter().filter_map(|block| Some(block.as_text()?.text.as_str())).collect()
    }

    #[test]
    fn a_trace_is_answered_with_its_report() {
        let folder = tempfile::tempdir().unwrap();
        let result = ask(json!({"trace": trace(folder.path())}));
        assert_eq!(result.is_error, Some(false), "{}", text(&result));
        let answer = result.structured_content.clone().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text(&result)).unwrap(), answer);
        assert_eq!(answer["run_queue"]["total"]["wait"]["max_ns"], 2_000_000);
        assert_eq!(answer["run_queue"]["groups"][0]["group"]["comm"], "victim");
        assert_eq!(answer["holders"]["groups"][0]["holders"][0]["group"]["comm"], "hog");
        assert_eq!(answer["cpu_time"]["cpus"][0]["cpu"], 300);
        assert_eq!(answer["cpu_time"]["cpus_total"], 1);
        assert_eq!(answer["trace"]["state"], "finished");
        let summary = answer["summary"].as_str().unwrap();
        assert!(summary.contains("1 times, 2.00ms in all"), "{summary}");
    }

    #[test]
    fn rows_are_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let trace = trace(folder.path());
        for by in GroupBy::ALL {
            let result = ask(json!({"trace": trace, "by": by.name(), "top": 1}));
            let answer = result.structured_content.unwrap();
            assert_eq!(answer["by"], by.name());
            assert!(answer["cpu_time"]["groups"].as_array().unwrap().len() <= 1, "{answer}");
        }
    }

    #[test]
    fn many_cpus_leave_room_for_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (info, mut report) = study(&trace(folder.path()), Options::default()).unwrap();
        let row = report.cpu_time.cpus[0];
        report.cpu_time.cpus = (0..400).map(|cpu| analysis::CpuRow { cpu: Cpu(cpu), ..row }).collect();
        report.cpu_time.cpus[399].used.busy_ns += 1;
        let answer = render(&info, report).unwrap();
        assert_eq!(answer["cpu_time"]["cpus"].as_array().unwrap().len(), MAX_CPUS);
        assert_eq!(
            (&answer["cpu_time"]["cpus_total"], &answer["cpu_time"]["cpus"][0]["cpu"]),
            (&json!(400), &json!(399))
        );
    }

    #[test]
    fn errors_are_answers_that_say_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let trace = trace(folder.path());
        for (arguments, told) in [
            (json!({}), "trace"),
            (json!({"trace": 7}), "trace"),
            (json!({"trace": trace, "by": "colour"}), "use one of task, process, cgroup, cpu, llc"),
            (json!({"trace": trace, "top": 0}), "use 1 to 100"),
            (json!({"trace": trace, "top": 101}), "use 1 to 100"),
            (json!({"trace": trace, "top": -1}), "top"),
            (json!({"trace": trace, "limit": 3}), "limit"),
            (json!({"trace": folder.path().join("none")}), "schedtrace record -o"),
            (json!({"trace": folder.path()}), "schedtrace record -o"),
        ] {
            let result = ask(arguments.clone());
            assert_eq!(result.is_error, Some(true), "{arguments}");
            assert!(text(&result).contains(told), "{arguments}: {}", text(&result));
            assert!(result.structured_content.is_none(), "hosts show the text of an error only");
        }
    }

    /// Everything in a schema, with the path to it.
    fn nodes<'a>(at: &str, value: &'a Value, out: &mut Vec<(String, &'a Value)>) {
        out.push((at.to_owned(), value));
        match value {
            Value::Object(map) => map.iter().for_each(|(key, below)| nodes(&format!("{at}.{key}"), below, out)),
            Value::Array(list) => list.iter().for_each(|below| nodes(at, below, out)),
            _ => {}
        }
    }

    #[test]
    fn the_definition_is_plain_and_small() {
        let tool = definition();
        let schema = Value::Object((*tool.input_schema).clone());
        let mut all = Vec::new();
        nodes("", &schema, &mut all);
        for (at, value) in all {
            assert!(!at.ends_with(".type") || value.is_string(), "{at}: {value}");
            assert!(!at.ends_with(".format") && !at.contains('$'), "{at}: {value}");
        }
        assert_eq!(schema["required"], json!(["trace"]));
        assert!(tool.annotations.is_some_and(|hints| hints.read_only_hint == Some(true)));
        assert!(DESCRIPTION.len() < 2_000 && crate::INSTRUCTIONS.len() < 2_000, "hosts cut longer ones");
        let size = serde_json::to_string(&definition()).unwrap().len();
        assert!(size < 4 * 4_000, "{size} bytes do not fit 4,000 tokens");
    }
}
