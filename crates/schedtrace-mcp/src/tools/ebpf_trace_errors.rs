//! System calls that failed.

use std::path::PathBuf;

use schedtrace_core::Kind;
use schedtrace_core::analysis::{Answered, FailedCalls, FailedCallsOptions, FailedCallsReport, Options, Subject};
use schedtrace_core::system::{errno_number, errno_text, syscall_number};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, hint, rows, to_record, trace_argument};
use crate::answer::Answer;
use crate::call::Call;
use crate::part::{Part, arguments};
use crate::state::State;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 200;
/// So many events are read where nobody says which.
const AT_ONCE: u64 = 4_000_000;

pub(super) const TRACE_ERRORS: Tool = Tool {
    name: "ebpf_trace_errors",
    title: "Failing system calls",
    description: "Which system calls failed, of which task, with which error and how often: from a trace, or from what is being \
        collected, where `events` were default and syscall_failed.",
    takes: || {
        let mut takes = json!({
            "trace": trace_argument(),
            "pid": { "type": "integer", "minimum": 1, "description": "Only this process." },
            "tid": { "type": "integer", "minimum": 1, "description": "Only this thread." },
            "comm": { "type": "string", "description": "Only tasks of this name." },
            "errno": { "type": "string", "description": "Only this error: `EPERM` or its number; several with commas." },
            "syscall": { "type": "string", "description": "Only this call: `openat` or its number; several with commas." },
            "limit": { "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT }
        });
        takes.as_object_mut().into_iter().for_each(|takes| takes.extend(arguments()));
        takes
    },
    required: &[],
    tells: &[("window", "object"), ("completeness", "object"), ("failed", "integer"), ("rows", "array")],
    collects: false,
    destructive: false,
    call: errors,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    trace: Option<PathBuf>,
    pid: Option<u32>,
    tid: Option<u32>,
    comm: Option<String>,
    errno: Option<Words>,
    syscall: Option<Words>,
    limit: Option<u64>,
    from: Option<String>,
    until: Option<String>,
}

/// A number may come as one, too.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    Number(u32),
    Text(String),
}

impl Words {
    /// The numbers that are meant, by their names or as they are.
    fn numbers(&self, of: &str, named: impl Fn(&str) -> Option<u32>) -> Result<Vec<u32>, String> {
        let number = |word: &str| {
            let word = word.trim();
            let found = word.parse().ok().or_else(|| named(word));
            found.ok_or_else(|| {
                format!("{of}: nothing is called `{word}` on the recorded machine; give its name or its number")
            })
        };
        match self {
            Self::Number(n) => Ok(vec![*n]),
            Self::Text(text) => text.split(',').map(number).collect(),
        }
    }
}

fn errors(call: &Call<'_>) -> Result<Answer, String> {
    let asked: Asked = call.arguments()?;
    let top = rows("limit", asked.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let times = (asked.from.as_deref(), asked.until.as_deref());
    let mut part = Part::open(call, asked.trace.as_deref(), times, AT_ONCE)?;
    let wanted = wanted(&asked, &part.info.host.machine)?;
    let study = FailedCalls::study(wanted, Options { top, ..part.options() });
    let report = part.study(call, study)?;
    let answer = told(call.state, &part, &report)?;
    Ok(if top > DEFAULT_LIMIT { answer.roomy() } else { answer })
}

fn wanted(asked: &Asked, machine: &str) -> Result<FailedCallsOptions, String> {
    let subject = match (asked.pid, asked.tid) {
        (Some(_), Some(_)) => return Err("pid, tid: give one of them".into()),
        (Some(pid), None) => Some(Subject::Process(pid)),
        (None, tid) => tid.map(Subject::Thread),
    };
    let errnos = asked
        .errno
        .as_ref()
        .map_or(Ok(Vec::new()), |words| words.numbers("errno", |name| errno_number(&name.to_ascii_uppercase())))?;
    let calls = asked.syscall.as_ref();
    let calls = calls.map_or(Ok(Vec::new()), |words| words.numbers("syscall", |name| syscall_number(machine, name)))?;
    Ok(FailedCallsOptions { subject, comm: asked.comm.clone(), errnos, calls })
}

fn told(state: &State, part: &Part, report: &Answered<FailedCallsReport>) -> Result<Answer, String> {
    let Answered { about: of, answer } = report;
    if !answer.recorded {
        let other = hint(state, "analyze", "; `analyze` tells what this one has");
        return Err(format!(
            "this trace does not have the system calls that failed: {}, and ask again for that trace{other}",
            to_record(state, Kind::SyscallFailed.name())
        ));
    }
    let most = match answer.rows.first() {
        None => "none of those that were asked for".to_owned(),
        Some(row) => {
            let call = row.name.map_or_else(|| format!("call {}", row.number), Into::into);
            let error = row.error.map_or_else(|| format!("errno {}", row.errno), Into::into);
            let text = errno_text(row.errno).map(|text| format!(" ({text})")).unwrap_or_default();
            format!("most often {call} of {} with {error}{text}, {} times", row.task, row.count)
        }
    };
    let matching = if answer.matching == answer.failed {
        String::new()
    } else {
        format!(", {} of them as asked for", answer.matching)
    };
    let rows: Vec<Value> = answer.rows.iter().map(row).collect();
    let within = part.within();
    Ok(Answer::new(format!("{within} {} system calls failed{matching}: {most}.", answer.failed))
        .with("window", &of.window)
        .with("completeness", &of.completeness)
        .with("failed", &answer.failed)
        .with("matching", &answer.matching)
        .with("rows", &rows)
        .with("rows_total", &answer.rows_total)
        .with("others", &answer.others)
        .with("trace", &part.about())
        .next(
            "analyze",
            part.of_trace(json!({ "report": "syscalls" })),
            "by call and error over all tasks, and how long calls took",
        )
        .next("analyze", part.of_trace(json!({})), "whether the tasks that fail wait for a CPU as well"))
}

/// A row, with what its error means.
fn row(row: &schedtrace_core::analysis::FailedCall) -> Value {
    let mut told = json!(row);
    if let Some(text) = errno_text(row.errno) {
        told["means"] = text.into();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, refusal, state_of};
    use super::*;
    use crate::tests::write_trace;
    use schedtrace_core::system::Host;
    use schedtrace_core::trace::{TraceWriter, WriterOptions};
    use schedtrace_core::{Batch, Comm, Cpu, Event, EventKind, Meta, Nanos, Probe, Sink, SyscallFailed, Task, TaskId};
    use std::path::Path;

    /// `cat` fails to open a file twice, and `daemon` once to bind.
    fn write_failures(folder: &Path, machine: &str) -> PathBuf {
        let dir = folder.join(format!("{machine}.schedtrace"));
        let mut writer = TraceWriter::create(&dir, WriterOptions::default()).unwrap();
        let task = |id: u32, comm: &str| Task {
            id: TaskId(id),
            tid: 100 + id,
            tgid: 100 + id,
            comm: Comm::new(comm),
            ..Task::idle(Cpu(0))
        };
        let failed = |ms: u64, task: u32, number: u32, errno: u32| Event {
            ts: Nanos(ms * 1_000_000),
            cpu: Cpu(0),
            kind: EventKind::SyscallFailed(SyscallFailed { task: TaskId(task), number, errno }),
        };
        let events = vec![failed(1, 1, 257, 2), failed(2, 2, 49, 13), failed(3, 1, 257, 2)];
        let tasks = vec![task(1, "cat"), task(2, "daemon")];
        let batch = Batch { until: Nanos(10_000_000), events, tasks, ..Batch::default() };
        let probes = vec![Probe { kind: Kind::SyscallFailed, on: true, why: None }];
        let host = Host { machine: machine.into(), ..Host::default() };
        let meta = Meta { started: Nanos(1), ended: Some(Nanos(10_000_000)), probes, host, ..Meta::default() };
        writer.begin(&meta).unwrap();
        writer.batch(&batch).unwrap();
        writer.finish(&meta).unwrap();
        dir
    }

    fn rows(answer: &Value) -> Vec<(&str, &str, u64)> {
        answer["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                (row["task"]["comm"].as_str().unwrap(), row["error"].as_str().unwrap(), row["count"].as_u64().unwrap())
            })
            .collect()
    }

    #[test]
    fn failures_are_told_by_task_call_and_error() {
        let folder = tempfile::tempdir().unwrap();
        write_failures(folder.path(), "x86_64");
        let state = state_of(folder.path());
        let told = answer(&state, "ebpf_trace_errors", &json!({}));
        assert_eq!(rows(&told), [("cat", "ENOENT", 2), ("daemon", "EACCES", 1)]);
        assert_eq!((&told["rows"][0]["name"], &told["rows"][1]["name"]), (&json!("openat"), &json!("bind")));
        assert_eq!(told["rows"][1]["means"], "Permission denied");
        assert_eq!((&told["rows"][0]["first_ns"], &told["rows"][0]["last_ns"]), (&json!(1_000_000), &json!(3_000_000)));
        let summary = "In 10.0ms 3 system calls failed: most often openat of cat[101] with ENOENT (No such file or directory), 2 times.";
        assert_eq!(told["summary"], summary);
        for (wanted, of) in [(json!({"from": "1.5ms", "until": "2.5ms"}), "daemon"), (json!({"until": "1.5ms"}), "cat")]
        {
            let told = answer(&state, "ebpf_trace_errors", &wanted);
            assert_eq!(rows(&told).iter().map(|row| (row.0, row.2)).collect::<Vec<_>>(), [(of, 1)], "{wanted}");
        }
        for (wanted, of) in [
            (json!({"errno": "eacces"}), "daemon"),
            (json!({"errno": "13, EPERM"}), "daemon"),
            (json!({"errno": 13}), "daemon"),
            (json!({"syscall": "openat"}), "cat"),
            (json!({"syscall": "257,0"}), "cat"),
            (json!({"pid": 102}), "daemon"),
            (json!({"tid": 101}), "cat"),
            (json!({"comm": "cat"}), "cat"),
        ] {
            let told = answer(&state, "ebpf_trace_errors", &wanted);
            assert_eq!(rows(&told).iter().map(|row| row.0).collect::<Vec<_>>(), [of], "{wanted}");
            assert_eq!(told["failed"], 3);
            assert!(told["summary"].as_str().unwrap().contains("of them as asked for"), "{told}");
        }
        let none = answer(&state, "ebpf_trace_errors", &json!({"errno": "EPERM"}));
        assert!(none["summary"].as_str().unwrap().ends_with("none of those that were asked for."), "{none}");
    }

    #[test]
    fn names_are_those_of_the_recorded_machine() {
        let folder = tempfile::tempdir().unwrap();
        write_failures(folder.path(), "aarch64");
        let told = answer(&state_of(folder.path()), "ebpf_trace_errors", &json!({"syscall": "49"}));
        assert_eq!(told["rows"][0]["name"], "chdir");
    }

    #[test]
    fn what_cannot_be_meant_or_was_not_recorded_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let state = state_of(folder.path());
        write_trace(folder.path());
        let told = refusal(&state, "ebpf_trace_errors", &json!({}));
        assert!(told.contains("schedtrace record --events default,syscall_failed"), "{told}");
        #[cfg(feature = "live")]
        {
            let settings = crate::Settings { traces: vec![folder.path().into()], collect: true, ..Default::default() };
            let told = refusal(&State::new(settings), "ebpf_trace_errors", &json!({}));
            let call = r#"call record_trace or enable_collection with {"events":["default","syscall_failed"]}"#;
            assert!(told.contains(call), "{told}");
        }
        write_failures(folder.path(), "x86_64");
        for (arguments, why) in [
            (json!({"errno": "EPERN"}), "nothing is called `EPERN`"),
            (json!({"syscall": "opennat"}), "nothing is called `opennat`"),
            (json!({"pid": 1, "tid": 2}), "give one of them"),
            (json!({"limit": 0}), "use 1 to 200"),
            (json!({"colour": 1}), "colour"),
        ] {
            let mut arguments = arguments;
            arguments["trace"] = json!("x86_64.schedtrace");
            let told = refusal(&state, "ebpf_trace_errors", &arguments);
            assert!(told.contains(why), "{arguments}: {told}");
        }
    }
}
