//! When a process was off the CPU, and whose doing that was.

use std::path::PathBuf;

use schedtrace_core::analysis::{
    Contender, Group, GroupBy, OffCpu, OffCpuPart, OffCpuReport, Options, Subject, Summary, WhoseDoing,
};
use schedtrace_core::{Nanos, Window};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, hint, rows, trace_argument};
use crate::answer::Answer;
use crate::call::Call;
use crate::part::{Part, moment};
use crate::state::State;

/// Shorter events are left out by default, in milliseconds.
const MIN_MS: f64 = 100.0;
/// The longest time that can be asked for: a year.
const MAX_MS: f64 = 366.0 * 86_400e3;
const DEFAULT_LIMIT: usize = 8;
const MAX_LIMIT: usize = 100;
/// So many contenders are named.
const CONTENDERS: usize = 3;
/// So many events are read where nobody says which.
const AT_ONCE: u64 = 4_000_000;

pub(super) const QUERY: Tool = Tool {
    name: "query_off_cpu_events",
    title: "Off-CPU events of a process",
    description: "When the threads of a process did not run: waits for a CPU, with who had it meanwhile, and sleeps, with who ended \
        them; how long in all, p50, p99, p99.9, and the longest.",
    takes: || {
        json!({
            "pid": { "type": "integer", "minimum": 1 },
            "start_ts": { "type": "string", "description": "2.5s (after the start), -30s (before the end), or ISO 8601." },
            "end_ts": { "type": "string" },
            "min_duration_ms": { "type": "number", "minimum": 0, "default": MIN_MS },
            "limit": { "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT },
            "trace": trace_argument(),
        })
    },
    required: &["pid"],
    tells: &[
        ("total_events", "integer"),
        ("cumulative_off_cpu_ms", "number"),
        ("top_contenders", "array"),
        ("window", "object"),
        ("completeness", "object"),
    ],
    collects: false,
    destructive: false,
    call: query,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    pid: u32,
    start_ts: Option<String>,
    end_ts: Option<String>,
    min_duration_ms: Option<f64>,
    limit: Option<u64>,
    trace: Option<PathBuf>,
}

fn query(call: &Call<'_>) -> Result<Answer, String> {
    let asked: Asked = call.arguments()?;
    let limit = rows("limit", asked.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let min_ms = asked.min_duration_ms.unwrap_or(MIN_MS);
    if !(0.0..=MAX_MS).contains(&min_ms) {
        return Err(format!("min_duration_ms: {min_ms} is no length of time: use 0 or more, such as 1 or 0.5"));
    }
    let times = [("start_ts", asked.start_ts.as_deref()), ("end_ts", asked.end_ts.as_deref())];
    let mut part = Part::named(call, asked.trace.as_deref(), times, AT_ONCE)?;
    // One more than are named: whoever is not known is not.
    let options = Options { by: GroupBy::Process, top: limit.max(CONTENDERS + 1), ..part.options() };
    let min = Nanos((min_ms * 1e6).round() as u64);
    let report = part.study(call, OffCpu::study(Some(Subject::Process(asked.pid)), min, options))?;
    let (about, told) = (&report.about, &report.answer);
    if !told.subject_seen {
        return Err(not_there(call.state, asked.pid));
    }
    let first = contenders(told);
    let answer = Answer::new(summary(&part, asked.pid, told, &first))
        .with("window", &about.window)
        .with("completeness", &about.completeness)
        .with("pid", &asked.pid)
        .with("min_duration_ms", &min_ms)
        .with("total_events", &told.events)
        .with("cumulative_off_cpu_ms", &ms(told.total_ns))
        .with("top_contenders", &first.iter().copied().map(named).collect::<Vec<_>>())
        .with("top_contenders_did", &first.iter().copied().map(did).collect::<Vec<_>>())
        .with("distribution", &short(&told.lasted))
        .with("waits_for_cpu", &of_part(&told.waits, limit))
        .with("sleeps", &of_part(&told.sleeps, limit))
        .with("trace", &part.about());
    let answer = next(answer, &part, asked.pid, min_ms, told);
    Ok(if limit > DEFAULT_LIMIT { answer.roomy() } else { answer })
}

/// The refusal for a process of which there is nothing.
pub(super) fn not_there(state: &State, pid: u32) -> String {
    let who = hint(state, "analyze", "call `analyze` with by: process for who was there, or ");
    format!("nothing of process {pid} was recorded in that window: {who}give another window")
}

pub(super) fn ms(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

/// The figures that are told of a distribution.
pub(super) fn short(of: &Summary) -> Value {
    json!({ "count": of.count, "p50_ns": of.p50_ns, "p99_ns": of.p99_ns, "p99_9_ns": of.p99_9_ns, "max_ns": of.max_ns })
}

/// Waits or sleeps: without the contenders, which stand above.
fn of_part(part: &OffCpuPart, limit: usize) -> Value {
    let tail: Vec<Value> = part.tail.iter().take(limit).map(sample).collect();
    json!({
        "events": part.events,
        "total_ns": part.total_ns,
        "lasted": short(&part.lasted),
        "reasons": part.reasons,
        "censored": part.censored,
        "in_loss": part.in_loss,
        "longest": tail,
    })
}

/// One of the longest.
pub(super) fn sample(of: &schedtrace_core::analysis::OffCpuSample) -> Value {
    let mut told = json!({
        "from_ns": of.from_ns,
        "duration_ns": of.duration_ns,
        "task": of.task.to_string(),
        "cpu": of.cpu,
        "reason": of.reason,
    });
    if of.censored {
        told["censored"] = json!(true);
    }
    // Who it was is told with the numbers by which it is found.
    let who = |who: &schedtrace_core::analysis::Who| json!({ "pid": who.pid, "tid": who.tid, "comm": who.comm });
    if let Some(by) = &of.by {
        told["by"] = who(by);
    }
    if let Some(interrupt) = of.by_interrupt {
        told["by_interrupt"] = json!(interrupt);
    }
    if !of.held_by.is_empty() {
        let held = of.held_by.iter().map(|held| {
            let mut one = held.who.as_ref().map_or_else(|| json!({ "comm": "not known" }), who);
            one["held_ns"] = json!(held.held_ns);
            one
        });
        told["held_by"] = held.collect();
    }
    told
}

/// The first few of those that are known, however many events are told.
fn contenders(report: &OffCpuReport) -> Vec<&Contender> {
    let known = report.contenders.iter().filter(|one| one.whose != WhoseDoing::Unknown);
    known.take(CONTENDERS).collect()
}

/// `pid:comm`
fn named(one: &Contender) -> String {
    match &one.whose {
        WhoseDoing::Tasks { group: Group::Process { pid, comm } } => format!("{pid}:{comm}"),
        WhoseDoing::Interrupt { context } => format!("interrupt:{}", context.name()),
        other => other.to_string(),
    }
}

/// How much of it was whose doing, and in which way.
fn did(one: &Contender) -> Value {
    json!({
        "contender": named(one),
        "ms": ms(one.total_ns),
        "had_cpu_meanwhile_ms": ms(one.held_ns),
        "ended_sleeps_ms": ms(one.slept_ns),
    })
}

fn summary(part: &Part, pid: u32, told: &OffCpuReport, contenders: &[&Contender]) -> String {
    let within = part.within();
    let least = match told.min_ns {
        Nanos::ZERO => String::new(),
        least => format!(" for {least} or longer"),
    };
    if told.events == 0 {
        return format!("{within} no thread of process {pid} was off the CPU{least}.");
    }
    let whose = contenders.first().map_or_else(String::new, |first| {
        let (who, held, slept) = (named(first), first.held_ns, first.slept_ns);
        let how = match (held, slept) {
            (_, 0) => "had the CPU while it waited".to_owned(),
            (0, _) => "ended its sleeps".to_owned(),
            _ => format!("had the CPU for {} while it waited, and ended sleeps of {}", Nanos(held), Nanos(slept)),
        };
        format!(" Most was the doing of {who}, {}: it {how}.", Nanos(first.total_ns))
    });
    format!(
        "{within} threads of process {pid} were off the CPU {} times{least}, {} in all: {} waiting for a CPU, {} \
         asleep.{whose}",
        told.events,
        Nanos(told.total_ns),
        Nanos(told.waits.total_ns),
        Nanos(told.sleeps.total_ns)
    )
}

fn next(answer: Answer, part: &Part, pid: u32, min_ms: f64, told: &OffCpuReport) -> Answer {
    let longest = told.waits.tail.first().or(told.sleeps.tail.first());
    let answer = match longest {
        None if min_ms > 1.0 => {
            let Window { from_ns, until_ns, .. } = part.window();
            let shorter = part.of_trace(json!({
                "pid": pid,
                "start_ts": moment(from_ns),
                "end_ts": moment(until_ns),
                "min_duration_ms": 1,
            }));
            answer.next("query_off_cpu_events", shorter, "the same with shorter events")
        }
        None => answer,
        Some(sample) => {
            let around = Window::new(sample.from_ns, sample.from_ns + Nanos(sample.duration_ns));
            let margin = Nanos(sample.duration_ns / 10 + 1);
            let window = json!({
                "from": moment(around.from_ns - margin),
                "until": moment(around.until_ns + margin),
                "pid": pid,
            });
            answer.next("get_timeline", part.of_trace(window), "draws the longest of them")
        }
    };
    answer.next("resolve_causal_chain", part.of_window(json!({ "target_pid": pid })), "says why, link by link")
}

#[cfg(test)]
mod tests {
    use schedtrace_core::{Context, Event, EventKind, Nanos, TaskId, TaskState, Waking};
    use serde_json::json;

    use super::super::tests::{answer, refusal, state_of};
    use crate::tests::{fixture, switch, write_events, write_trace};

    #[test]
    fn a_preempted_task_was_off_the_cpu_because_of_another() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        let told = answer(&state, "query_off_cpu_events", &json!({ "pid": 1, "min_duration_ms": 1 }));
        assert_eq!((&told["total_events"], &told["cumulative_off_cpu_ms"]), (&json!(1), &json!(2.0)));
        assert_eq!(told["top_contenders"], json!(["2:hog"]));
        let did = json!([{ "contender": "2:hog", "ms": 2.0, "had_cpu_meanwhile_ms": 2.0, "ended_sleeps_ms": 0.0 }]);
        assert_eq!(told["top_contenders_did"], did);
        let wait = &told["waits_for_cpu"]["longest"][0];
        assert_eq!(
            (&wait["cpu"], &wait["reason"], &wait["by"]["comm"]),
            (&json!(300), &json!("preempted"), &json!("hog"))
        );
        assert_eq!(told["next"][1]["arguments"]["target_pid"], 1);
        let none = answer(&state, "query_off_cpu_events", &json!({ "pid": 1 }));
        assert_eq!(none["total_events"], 0, "none is as long as the default");
        assert_eq!(none["next"][0]["arguments"]["min_duration_ms"], 1);
    }

    #[test]
    fn the_next_call_speaks_of_the_same_window() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        let asked = json!({ "pid": 1, "start_ts": "1ms", "end_ts": "4ms" });
        let none = answer(&state, "query_off_cpu_events", &asked);
        let again = &none["next"][0];
        assert_eq!(again["tool"], "query_off_cpu_events");
        let arguments = &again["arguments"];
        assert_eq!((&arguments["start_ts"], &arguments["end_ts"]), (&json!("1000001ns"), &json!("4000001ns")));
        assert_eq!(none["window"]["from_ns"], 1_000_001);
        assert_eq!(answer(&state, "query_off_cpu_events", arguments)["total_events"], 1);
    }

    #[test]
    fn who_was_not_there_is_not_told_as_one_that_always_ran() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        for asked in [json!({ "pid": 77 }), json!({ "pid": 77, "min_duration_ms": 0 }), json!({ "pid": 0 })] {
            let why = refusal(&state, "query_off_cpu_events", &asked);
            assert!(why.contains("was recorded in that window: call `analyze`"), "{why}");
        }
    }

    /// Others had the CPU for 1 ms while it waited; one ended a sleep of 2 ms.
    #[test]
    fn the_top_is_of_waits_and_sleeps_together_whatever_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, hog) = (TaskId(1), TaskId(2));
        let mut events = vec![
            switch(1, victim, hog, TaskState::RUNNING, true),
            switch(2, hog, victim, TaskState::RUNNING, true),
            switch(2, victim, hog, TaskState::INTERRUPTIBLE, false),
        ];
        let waking = |us: u64, context, task| {
            let waking = Waking { task, current: hog, context, prev_cpu: events[0].cpu, on_cpu: false, prio: 120 };
            Event { ts: Nanos(us * 1_000), kind: EventKind::Waking(waking), ..events[0] }
        };
        let woken = waking(4_000, Context::Hardirq, victim);
        events.push(woken);
        events.push(Event { ts: Nanos(4_000_001), ..switch(4, hog, victim, TaskState::RUNNING, true) });
        write_events(folder.path(), events);
        let state = state_of(folder.path());
        for limit in [1, 8] {
            let asked = json!({ "pid": 1, "min_duration_ms": 0, "limit": limit });
            let told = answer(&state, "query_off_cpu_events", &asked);
            assert_eq!(told["top_contenders"], json!(["interrupt:hardirq", "2:hog"]), "{limit}: {told}");
            assert_eq!(told["top_contenders_did"][0]["ended_sleeps_ms"], 2.0);
            let longest = told["waits_for_cpu"]["longest"].as_array().unwrap().len();
            assert_eq!(longest, limit.min(2));
        }
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        for (arguments, told) in [
            (json!({}), "pid"),
            (json!({ "pid": 1, "min_duration_ms": -1 }), "use 0 or more"),
            (json!({ "pid": 1, "limit": 0 }), "use 1 to 100"),
            (json!({ "pid": 1, "start_ts": "noon" }), "start_ts: `noon` is no time"),
        ] {
            let why = refusal(&state, "query_off_cpu_events", &arguments);
            assert!(why.contains(told), "{arguments}: {why}");
        }
    }

    #[test]
    fn a_recorded_load_is_told_within_the_budget() {
        let state = state_of(&fixture("hackbench"));
        let victim =
            answer(&state, "analyze", &json!({ "by": "process" }))["run_queue"]["groups"][0]["group"]["pid"].clone();
        let told = answer(&state, "query_off_cpu_events", &json!({ "pid": victim, "min_duration_ms": 0 }));
        assert!(told["total_events"].as_u64().unwrap() > 0 && told.to_string().len() <= 15_000, "{told}");
        assert!(told["distribution"]["p99_9_ns"].as_u64() >= told["distribution"]["p99_ns"].as_u64());
    }
}
