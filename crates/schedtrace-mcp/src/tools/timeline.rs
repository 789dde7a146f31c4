//! What CPUs and tasks did, drawn.

use std::path::PathBuf;

use schedtrace_core::Nanos;
use schedtrace_core::analysis::{Lane, Lanes, Options, Subject, Timeline, TimelineOptions};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, rows, trace_argument};
use crate::answer::Answer;
use crate::call::Call;
use crate::part::{Part, arguments};

const DEFAULT_COLUMNS: usize = 60;
const MAX_COLUMNS: usize = 400;
const DEFAULT_LIMIT: usize = 12;
const MAX_LIMIT: usize = 200;
/// So many events are read where nobody says which.
const AT_ONCE: u64 = 4_000_000;
/// So many stretches of a CPU's lane are told with who had it.
const MAX_RUNS: usize = 24;

pub(super) const TIMELINE: Tool = Tool {
    name: "get_timeline",
    title: "Draw a timeline",
    description: "Draws what each CPU or task did, a letter for each column of time; of a CPU also who had it longest, as [first \
        column, columns, who].",
    takes: || {
        let mut takes = json!({
            "by": { "type": "string", "enum": ["cpu", "task"], "default": "cpu" },
            "pid": { "type": "integer", "minimum": 1 },
            "tid": { "type": "integer", "minimum": 1 },
            "columns": { "type": "integer", "minimum": 1, "maximum": MAX_COLUMNS, "default": DEFAULT_COLUMNS },
            "limit": { "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT },
            "trace": trace_argument(),
        });
        takes.as_object_mut().into_iter().for_each(|takes| takes.extend(arguments()));
        takes
    },
    required: &[],
    tells: &[("window", "object"), ("completeness", "object"), ("lanes", "array"), ("legend", "string")],
    collects: false,
    destructive: false,
    call: timeline,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    by: Option<By>,
    pid: Option<u32>,
    tid: Option<u32>,
    columns: Option<u64>,
    limit: Option<u64>,
    trace: Option<PathBuf>,
    from: Option<String>,
    until: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum By {
    Cpu,
    Task,
}

fn timeline(call: &Call<'_>) -> Result<Answer, String> {
    let asked: Asked = call.arguments()?;
    let columns = rows("columns", asked.columns, DEFAULT_COLUMNS, MAX_COLUMNS)?;
    let limit = rows("limit", asked.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let subject = match (asked.pid, asked.tid) {
        (Some(_), Some(_)) => return Err("pid and tid: give one of them".into()),
        (pid, tid) => tid.map(Subject::Thread).or(pid.map(Subject::Process)),
    };
    let lanes = match asked.by {
        // Who asks for a process wants to see its threads.
        None if subject.is_some() => Lanes::Tasks,
        Some(By::Cpu) if subject.is_some() => {
            return Err("by: the lanes of a pid or tid are tasks; leave out one".into());
        }
        None | Some(By::Cpu) => Lanes::Cpus,
        Some(By::Task) => Lanes::Tasks,
    };
    let mut part = Part::open(call, asked.trace.as_deref(), (asked.from.as_deref(), asked.until.as_deref()), AT_ONCE)?;
    let resolution = Nanos(part.window().duration_ns.0.div_ceil(columns as u64).max(1));
    let options = Options { top: limit, include_recorder: subject.is_some(), ..part.options() };
    let report = part.study(call, Timeline::study(TimelineOptions { lanes, resolution, subject }, options))?;
    let told = &report.answer;
    let mut all: Vec<&Lane> = told.lanes.iter().collect();
    if lanes == Lanes::Cpus && all.len() > limit {
        // Those on whose queues tasks waited longest, in the order of their numbers.
        let waited = |lane: &&Lane| std::cmp::Reverse(sum(&lane.waiting_ns).saturating_add(sum(&lane.running_ns)));
        all.sort_by_key(waited);
        all.truncate(limit);
        all.sort_by_key(|lane| lane.cpu);
    }
    let drawn: Vec<Value> = all.iter().map(|lane| draw(lane, told.columns, told.resolution_ns)).collect();
    let what = if lanes == Lanes::Cpus { "CPUs" } else { "tasks" };
    let summary = format!(
        "{} of {} {what} in {} columns of {}.",
        drawn.len(),
        told.lanes_total,
        told.columns,
        told.resolution_ns
    );
    let mut answer = Answer::new(summary)
        .with("window", &report.about.window)
        .with("completeness", &report.about.completeness)
        .with("resolution_ns", &told.resolution_ns)
        .with("first_column_ns", &told.from_ns)
        .with("columns", &told.columns)
        .with("legend", lanes.legend())
        .with("lanes_total", &told.lanes_total)
        .with("lanes", &drawn)
        .with("trace", &part.about());
    let waiting = told.lanes.iter().filter(|lane| lane.task.is_some()).max_by_key(|lane| sum(&lane.waiting_ns));
    let waiting = waiting.filter(|lane| sum(&lane.waiting_ns) > 0).and_then(|lane| lane.task.as_ref());
    answer = match waiting.filter(|who| who.pid > 0) {
        Some(who) => {
            let asked = part.of_window(json!({ "target_pid": who.pid }));
            answer.next("resolve_causal_chain", asked, format!("why {who} waited"))
        }
        None if lanes == Lanes::Cpus => {
            answer.next("get_timeline", part.of_window(json!({ "by": "task" })), "the same by task: who waited when")
        }
        None => answer,
    };
    Ok(if columns > DEFAULT_COLUMNS || limit > DEFAULT_LIMIT { answer.roomy() } else { answer })
}

fn sum(all: &[u64]) -> u64 {
    all.iter().copied().fold(0, u64::saturating_add)
}

fn draw(lane: &Lane, columns: usize, resolution: Nanos) -> Value {
    let drawn = lane.drawn(columns, resolution);
    let (ran, waited) = (sum(&lane.running_ns), sum(&lane.waiting_ns));
    match (&lane.cpu, &lane.task) {
        (Some(cpu), _) => {
            let (runs, more) = runs(lane);
            let mut told =
                json!({ "cpu": cpu, "drawn": drawn, "busy_ns": ran, "waited_for_ns": waited, "had_longest": runs });
            if more > 0 {
                told["had_longest_left_out"] = json!(more);
            }
            told
        }
        (None, task) => {
            let who = task.as_ref().map(|who| json!({ "pid": who.pid, "tid": who.tid, "comm": who.comm }));
            json!({ "task": who, "drawn": drawn, "ran_ns": ran, "waited_ns": waited, "io_ns": sum(&lane.io_ns) })
        }
    }
}

/// Who had a CPU longest in each column, those that follow one another as one: the longest stretches in the order of time,
/// and how many more there are.
fn runs(lane: &Lane) -> (Vec<Value>, usize) {
    let mut runs: Vec<(usize, usize, String)> = Vec::new();
    for (at, who) in lane.longest.iter().enumerate() {
        let Some(who) = who.as_ref().map(ToString::to_string) else { continue };
        match runs.last_mut() {
            Some((first, count, last)) if *last == who && *first + *count == at => *count += 1,
            _ => runs.push((at, 1, who)),
        }
    }
    let more = runs.len().saturating_sub(MAX_RUNS);
    runs.sort_by_key(|&(first, count, _)| (std::cmp::Reverse(count), first));
    runs.truncate(MAX_RUNS);
    runs.sort_by_key(|&(first, ..)| first);
    (runs.into_iter().map(|run| json!(run)).collect(), more)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{answer, refusal, state_of};
    use crate::tests::{fixture, write_trace};

    #[test]
    fn lanes_are_drawn_with_who_had_the_cpu() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        let told = answer(&state, "get_timeline", &json!({ "columns": 5 }));
        let lane = &told["lanes"][0];
        assert_eq!((&lane["cpu"], &lane["drawn"]), (&json!(300), &json!("#ww##")), "{lane}");
        assert_eq!(lane["had_longest"], json!([[0, 1, "victim[1]"], [1, 2, "hog[2]"], [3, 2, "victim[1]"]]));
        let told = answer(&state, "get_timeline", &json!({ "columns": 5, "pid": 1 }));
        assert_eq!(told["lanes"][0]["drawn"], "#ww##");
        assert_eq!(told["next"][0]["arguments"]["target_pid"], 1);
        assert!(refusal(&state, "get_timeline", &json!({ "pid": 1, "tid": 1 })).contains("one of them"));
        assert!(refusal(&state, "get_timeline", &json!({ "columns": 0 })).contains("use 1 to 400"));
    }

    #[test]
    fn a_recorded_load_is_drawn_within_the_budget() {
        let state = state_of(&fixture("hackbench"));
        for by in ["cpu", "task"] {
            let told = answer(&state, "get_timeline", &json!({ "by": by }));
            assert!(
                told.to_string().len() <= 15_000 && told.get("cut_to_fit").is_none(),
                "{by}: {}",
                told["cut_to_fit"]
            );
        }
    }
}
