//! Why a process was slow: the chain of what it waited for, with the events that show it.

use std::path::PathBuf;
use std::time::Duration;

use schedtrace_core::Nanos;
use schedtrace_core::analysis::{
    Explain, Explanation, GroupBy, Mechanism, OffCpu, OffCpuReport, OffCpuSample, Options, ReportName, Severity, Step,
    Subject,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::off_cpu::{not_there, sample, short};
use super::{Tool, trace_argument};
use crate::answer::{Answer, quoted};
use crate::call::Call;
use crate::part::{Part, arguments, moment};

/// The longest window that is asked for in seconds.
const MAX_WINDOW_S: f64 = 300.0;
/// So many events are read where nobody says which.
const AT_ONCE: u64 = 2_000_000;
/// So many links are told on a level, so deep, and so many in all.
const PER_LEVEL: usize = 3;
const MAX_DEPTH: usize = 5;
const MAX_LINKS: usize = 20;
/// What took less of the window is no link.
const WORTH: f64 = 0.005;
/// What the summary tells took so much of it at least.
const WORTH_TELLING: f64 = 0.1;
/// So many tail samples are told.
const SAMPLES: usize = 5;
/// By which rule `severity` is said.
const RULE: &str = "by the share of the window lost to others: none below 1 %, low below 5 %, medium below 20 %, high below 50 %, \
    critical from there";

pub(super) const RESOLVE: Tool = Tool {
    name: "resolve_causal_chain",
    title: "Why a process was slow",
    description: "What a process waited for, and what that waited for: severity, mechanism, whose doing, what to do, and the `chain`, \
        whose links cite events (time, CPU, task); p99, p99.9 and the longest of its delays.",
    takes: || {
        let mut takes = json!({
            "target_pid": { "type": "integer", "minimum": 1 },
            "latency_window_s": {
                "type": "number", "minimum": 1, "maximum": MAX_WINDOW_S,
                "description": "The last so many seconds, instead of `from`."
            },
            "include_stacks": { "type": "boolean", "default": true },
            "percentile": {
                "type": "string", "enum": Percentile::NAMES, "default": "p99",
                "description": "Delays beyond it are told."
            },
            "trace": trace_argument(),
        });
        takes.as_object_mut().into_iter().for_each(|takes| takes.extend(arguments()));
        takes
    },
    required: &["target_pid"],
    tells: &[
        ("severity", "string"),
        ("blocking_mechanism", "string"),
        ("contention_source", "string"),
        ("stack_trace", "null"),
        ("recommended_action", "string"),
        ("chain", "array"),
        ("window", "object"),
        ("completeness", "object"),
    ],
    collects: false,
    destructive: false,
    call: resolve,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    target_pid: u32,
    latency_window_s: Option<f64>,
    from: Option<String>,
    until: Option<String>,
    include_stacks: Option<bool>,
    percentile: Option<Percentile>,
    trace: Option<PathBuf>,
}

/// Beyond which the longest delays lie.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Percentile {
    #[default]
    #[serde(rename = "p99")]
    P99,
    #[serde(rename = "p99_9")]
    P99_9,
    #[serde(rename = "max")]
    Max,
}

impl Percentile {
    const NAMES: [&'static str; 3] = ["p99", "p99_9", "max"];

    fn of(self, all: &schedtrace_core::analysis::Summary) -> u64 {
        match self {
            Self::P99 => all.p99_ns,
            Self::P99_9 => all.p99_9_ns,
            Self::Max => all.max_ns,
        }
    }
}

fn resolve(call: &Call<'_>) -> Result<Answer, String> {
    let asked: Asked = call.arguments()?;
    let (trace, pid) = (asked.trace.as_deref(), asked.target_pid);
    let times = (asked.from.as_deref(), asked.until.as_deref());
    let mut part = match asked.latency_window_s {
        None => Part::open(call, trace, times, AT_ONCE)?,
        Some(_) if times.0.is_some() => {
            return Err("latency_window_s and from: give one of them; latency_window_s ends at `until`".into());
        }
        Some(seconds) if (1.0..=MAX_WINDOW_S).contains(&seconds) => {
            Part::last(call, trace, Duration::from_secs_f64(seconds), times.1)?
        }
        Some(seconds) => return Err(format!("latency_window_s: {seconds} cannot be had: use 1 to {MAX_WINDOW_S}")),
    };
    let subject = Subject::Process(pid);
    let explain = Explain::study(subject, part.options());
    let delays =
        OffCpu::study(Some(subject), Nanos::ZERO, Options { by: GroupBy::Process, top: SAMPLES, ..part.options() });
    let (report, delays) = part.study(call, (explain, delays))?;
    let it = &report.answer;
    if it.subject.is_none() {
        return Err(not_there(call.state, pid));
    }
    let chain = links(&it.steps);
    let stacks = match asked.include_stacks.unwrap_or(true) {
        true => "no stacks are recorded: schedtrace does not take them yet",
        false => "not asked for",
    };
    let answer = Answer::new(summary(&part, it))
        .with("window", &report.about.window)
        .with("completeness", &report.about.completeness)
        .with("target", &it.subject)
        .with("threads", &it.threads)
        .with("severity", it.severity.name())
        .with("severity_rule", RULE)
        .with("blocking_mechanism", mechanism(it))
        .with("contention_source", &source(it))
        .with(
            "contention",
            &json!({ "source": it.contention_source, "total_ns": it.contended_ns, "ratio": it.contended_ratio }),
        )
        .with("recommended_action", &it.recommendation.action)
        .with("recommended_because", &it.recommendation.reason)
        .with("unexplained_ratio", &it.unexplained_ratio)
        .with("chain", &chain)
        .with("stack_trace", &Value::Null)
        .with("stack_trace_reason", stacks)
        .with("delays", &told(&delays.answer, asked.percentile.unwrap_or_default()))
        .with("trace", &part.about());
    Ok(next(answer, &part, pid, it))
}

/// How it was kept from running.
fn mechanism(it: &Explanation) -> &'static str {
    it.mechanism.filter(|_| it.severity > Severity::None).map_or("none", Mechanism::name)
}

/// The same, in a sentence.
fn source_named(it: &Explanation) -> String {
    let cgroup = it.contention_source.as_ref().filter(|source| source.task.is_none()).and_then(|it| it.cgroup.as_ref());
    match cgroup.filter(|_| it.severity > Severity::None) {
        Some(path) => quoted(path),
        None => source(it),
    }
}

/// Whose doing it was: `pid:comm`, or what else.
fn source(it: &Explanation) -> String {
    let Some(source) = it.contention_source.as_ref().filter(|_| it.severity > Severity::None) else {
        return "none".to_owned();
    };
    let task = source.task.as_ref().map(|who| format!("{}:{}", who.pid, who.comm));
    let named = task.or_else(|| source.cgroup.clone()).or_else(|| source.what.clone());
    named.unwrap_or_else(|| "not known".to_owned())
}

fn summary(part: &Part, it: &Explanation) -> String {
    let who = it.subject.as_ref().map(ToString::to_string).unwrap_or_default();
    let within = part.within();
    let mut besides = String::new();
    if let Some(step) = asleep(it) {
        besides = format!(
            " For {:.0} % of the time, {}: a delay if it had work to do, and then the chain says what that waited for.",
            step.share_ratio * 100.0,
            step.sentence
        );
    }
    if it.unexplained_ratio >= WORTH_TELLING {
        besides += &format!(" {:.0} % of the time is not explained.", it.unexplained_ratio * 100.0);
    }
    if it.severity == Severity::None {
        return format!(
            "{within} nothing that mattered kept {who} from running ({:.1} % of it was lost to others).{besides}",
            it.contended_ratio * 100.0
        );
    }
    format!(
        "{within} {who} lost {:.0} % to others ({}), most of it by {}: {}. {}.{besides}",
        it.contended_ratio * 100.0,
        it.severity.name(),
        mechanism(it),
        source_named(it),
        it.recommendation.reason
    )
}

/// The sleep that took longer than others kept it from running: whether that is a delay, events cannot tell.
fn asleep(it: &Explanation) -> Option<&Step> {
    let slept = |step: &&Step| matches!(step.mechanism, Mechanism::Blocked | Mechanism::Futex | Mechanism::Io);
    let longest = it.steps.iter().filter(slept).max_by_key(|step| step.total_ns);
    longest.filter(|step| step.total_ns > it.contended_ns && step.share_ratio >= WORTH_TELLING)
}

/// The links of the chain that took most, each before what it waited for.
fn links(steps: &[Step]) -> Vec<Value> {
    let mut links = Vec::new();
    below(steps, 0, &mut links);
    links
}

fn below(steps: &[Step], level: usize, links: &mut Vec<Value>) {
    if level >= MAX_DEPTH {
        return;
    }
    for step in steps.iter().filter(|step| step.share_ratio >= WORTH).take(PER_LEVEL) {
        if links.len() >= MAX_LINKS {
            return;
        }
        let evidence = step.evidence.first().map(|moment| {
            json!({
                "from_ns": moment.from_ns,
                "until_ns": moment.until_ns,
                "cpu": moment.cpu,
                "begun_by": moment.begun_by,
                "ended_by": moment.ended_by,
            })
        });
        links.push(json!({
            "level": level,
            "mechanism": step.mechanism,
            "task": step.who.as_ref().map(|who| json!({ "pid": who.pid, "tid": who.tid, "comm": who.comm })),
            "what": step.what,
            "total_ns": step.total_ns,
            "share_ratio": step.share_ratio,
            "longest_ns": step.longest_ns,
            "statement": step.sentence,
            "evidence": evidence,
        }));
        below(&step.steps, level + 1, links);
    }
}

/// The delays: how long they were, and the longest of them.
fn told(delays: &OffCpuReport, percentile: Percentile) -> Value {
    let beyond = |tail: &[OffCpuSample], least: u64| -> Vec<Value> {
        tail.iter().filter(|one| one.duration_ns >= least).map(sample).collect()
    };
    let (waits, sleeps) = (&delays.waits, &delays.sleeps);
    json!({
        "waits_for_cpu": short(&waits.lasted),
        "sleeps": short(&sleeps.lasted),
        "longest_waits": beyond(&waits.tail, percentile.of(&waits.lasted)),
        "longest_sleeps": beyond(&sleeps.tail, percentile.of(&sleeps.lasted)),
    })
}

/// What to look at for each mechanism: the chain of whoever did it, the report that says more of it, and the moment itself.
fn next(answer: Answer, part: &Part, pid: u32, it: &Explanation) -> Answer {
    let of = |name: ReportName| name.needs().is_none_or(|group| part.has(group));
    let report = it.mechanism.and_then(|mechanism| match mechanism {
        Mechanism::Preempted => {
            Some((ReportName::Preemptions, "process", "who takes whose CPU, and how long it is gone"))
        }
        Mechanism::RunQueue => Some((ReportName::Latency, "process", "from wakeup to CPU, on which queues")),
        Mechanism::Throttled => Some((ReportName::ThreadStates, "cgroup", "how long each cgroup was throttled")),
        Mechanism::KeptOff => Some((ReportName::Conservation, "process", "which CPUs were idle while tasks waited")),
        Mechanism::CpuWakeup => Some((ReportName::Power, "cpu", "how deep the CPUs slept")),
        Mechanism::Interrupted => Some((ReportName::Interrupts, "cpu", "which interrupts took the time")),
        Mechanism::Io => Some((ReportName::BlockIo, "process", "how long the disks took")),
        Mechanism::Futex => Some((ReportName::Futexes, "process", "who waits for whom at which lock")),
        Mechanism::Blocked | Mechanism::Stopped => {
            Some((ReportName::Wakers, "process", "who wakes whom, and how late"))
        }
        _ => None,
    });
    let matters = it.severity > Severity::None;
    let mut answer = answer;
    let source = it.contention_source.as_ref().filter(|_| matters).and_then(|source| source.task.as_ref());
    let slept_for = asleep(it).and_then(|step| step.who.as_ref());
    let mut others = source.into_iter().chain(slept_for).filter(|other| other.pid != pid && other.pid > 0);
    if let Some(other) = others.next() {
        let asked = part.of_window(json!({ "target_pid": other.pid }));
        answer = answer.next("resolve_causal_chain", asked, format!("what {other}, which it waited for, did itself"));
    }
    if let Some((name, by, why)) = report.filter(|(name, ..)| matters && of(*name)) {
        answer = answer.next("analyze", part.of_window(json!({ "report": name.name(), "by": by })), why);
    }
    let longest = it.steps.iter().filter(|step| step.mechanism != Mechanism::Running);
    let moments = longest.flat_map(|step| &step.evidence);
    if let Some(worst) = moments.max_by_key(|moment| moment.until_ns - moment.from_ns) {
        let margin = Nanos((worst.until_ns - worst.from_ns).0 / 10 + 1);
        let (from, until) = (moment(worst.from_ns - margin), moment(worst.until_ns + margin));
        let asked = part.of_trace(json!({ "from": from, "until": until, "by": "cpu" }));
        answer = answer.next("get_timeline", asked, "draws who had the CPUs around its longest hold-up");
    }
    answer
}

#[cfg(test)]
mod tests {
    use schedtrace_core::{Context, Event, EventKind, Nanos, TaskId, TaskState, Waking};
    use serde_json::json;

    use super::super::tests::{answer, refusal, state_of};
    use crate::tests::{fixture, switch, write_events, write_trace};

    #[test]
    fn a_chain_names_whose_doing_it_was_and_cites_events() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        let told = answer(&state, "resolve_causal_chain", &json!({ "target_pid": 1 }));
        assert_eq!((&told["severity"], &told["blocking_mechanism"]), (&json!("high"), &json!("preempted")));
        assert_eq!(told["contention_source"], "2:hog");
        let link = &told["chain"].as_array().unwrap().iter().find(|link| link["mechanism"] == "preempted").unwrap();
        assert_eq!(link["evidence"]["from_ns"], 1_000_000);
        assert_eq!(link["evidence"]["begun_by"], "sched_switch");
        assert!(told["stack_trace_reason"].as_str().unwrap().contains("no stacks"));
        assert_eq!(told["delays"]["longest_waits"][0]["duration_ns"], 2_000_000);
        assert_eq!(told["next"][0]["arguments"]["target_pid"], 2, "{}", told["next"]);
        assert_eq!(told["next"][1]["arguments"]["report"], "preemptions");
        for follow in told["next"].as_array().unwrap() {
            answer(&state, follow["tool"].as_str().unwrap(), &follow["arguments"]);
        }
    }

    /// Nobody kept it from running, and yet it was slow: it waited for one that slept.
    #[test]
    fn a_long_sleep_is_told_with_whoever_ended_it() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, hog) = (TaskId(1), TaskId(2));
        let begins = switch(1, hog, victim, TaskState::INTERRUPTIBLE, false);
        let idle = TaskId::idle(begins.cpu);
        let waking = |us: u64, current, context, task| {
            let waking = Waking { task, current, context, prev_cpu: begins.cpu, on_cpu: false, prio: 120 };
            Event { ts: Nanos(us * 1_000), kind: EventKind::Waking(waking), ..begins }
        };
        let events = vec![
            begins,
            switch(2, victim, idle, TaskState::INTERRUPTIBLE, false),
            waking(3_980, idle, Context::Hardirq, hog),
            Event { ts: Nanos(3_990_000), ..switch(0, idle, hog, TaskState::RUNNING, false) },
            waking(3_995, hog, Context::Task, victim),
            switch(4, hog, victim, TaskState::INTERRUPTIBLE, false),
        ];
        write_events(folder.path(), events);
        let told = answer(&state_of(folder.path()), "resolve_causal_chain", &json!({ "target_pid": 1 }));
        let summary = told["summary"].as_str().unwrap();
        assert_eq!(told["severity"], "none", "{told}");
        assert!(
            summary.contains(" For 40 % of the time, victim[1] slept 2.00ms (once) until hog[2] woke it"),
            "{summary}"
        );
        assert!(summary.contains(" 20 % of the time is not explained"), "its first millisecond: {summary}");
        assert_eq!(told["next"][0]["arguments"]["target_pid"], 2, "{}", told["next"]);
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        for (arguments, told) in [
            (json!({ "target_pid": 99 }), "by: process"),
            (json!({ "target_pid": 1, "latency_window_s": 301 }), "use 1 to 300"),
            (json!({ "target_pid": 1, "latency_window_s": 0.5 }), "use 1 to 300"),
            (json!({ "target_pid": 77, "latency_window_s": 1.5 }), "nothing of process 77"),
            (json!({ "target_pid": 1, "latency_window_s": 1, "from": "0s" }), "one of them"),
            (json!({ "target_pid": 1, "percentile": "p50" }), "p99_9"),
        ] {
            let why = refusal(&state, "resolve_causal_chain", &arguments);
            assert!(why.contains(told), "{arguments}: {why}");
        }
    }

    #[test]
    fn a_recorded_load_is_explained_within_the_budget() {
        let state = state_of(&fixture("hackbench"));
        let told = answer(&state, "analyze", &json!({}));
        let follow = &told["next"][0];
        assert_eq!(follow["tool"], "resolve_causal_chain", "{}", told["next"]);
        let told = answer(&state, "resolve_causal_chain", &follow["arguments"]);
        assert!(told.to_string().len() <= 15_000 && told.get("cut_to_fit").is_none(), "{}", told["cut_to_fit"]);
        assert_ne!(told["severity"], "none");
        for follow in told["next"].as_array().unwrap() {
            answer(&state, follow["tool"].as_str().unwrap(), &follow["arguments"]);
        }
    }
}
