//! Recordings with a handle, for servers that were started for it.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, events_argument};
use crate::answer::Answer;
use crate::call::Call;
use crate::collect::{Asked, Collection, End};

/// A call that waits is answered after so long at the latest: hosts give up on longer ones.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// How often a call that waits looks.
const LOOK: Duration = Duration::from_millis(100);

pub(super) const RECORD: Tool = Tool {
    name: "record_trace",
    title: "Record a trace",
    description: "Records the running machine into a trace of its own. `start` (the default) loads the BPF programs and \
        returns a handle at once, which is a `trace` for every other tool, during the recording and after it; `status` says \
        how far it is, `stop` ends it, `cancel` ends and removes it.",
    takes: || {
        json!({
            "action": { "type": "string", "enum": ["start", "status", "stop", "cancel"], "default": "start" },
            "handle": { "type": "string", "description": "For all but start: what start returned." },
            "duration_s": { "type": "integer", "minimum": 1, "default": 10 },
            "pids": {
                "type": "array",
                "items": { "type": "integer", "minimum": 1 },
                "description": "Only these processes and those they start."
            },
            "events": events_argument(),
            "max_bytes": { "type": "integer", "minimum": 1_048_576, "description": "The oldest part goes first." },
            "wait": { "type": "boolean", "description": "Answer when it has ended, or after 20 s." }
        })
    },
    required: &[],
    tells: &[
        ("handle", "string"),
        ("trace", "string"),
        ("state", "string"),
        ("events", "integer"),
        ("lost", "integer"),
    ],
    collects: true,
    // `cancel` removes a recording, also one that is kept.
    destructive: true,
    call: record,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    #[default]
    Start,
    Status,
    Stop,
    Cancel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default)]
    action: Action,
    handle: Option<String>,
    duration_s: Option<u64>,
    #[serde(default)]
    pids: Vec<u32>,
    #[serde(default)]
    events: Vec<String>,
    max_bytes: Option<u64>,
    #[serde(default)]
    wait: bool,
}

fn record(call: &Call<'_>) -> Result<Answer, String> {
    let Record { action, handle, duration_s, pids, events, max_bytes, wait } = call.arguments()?;
    let collections = &call.state.collections;
    let chooses = duration_s.is_some() || !pids.is_empty() || !events.is_empty() || max_bytes.is_some();
    match (action, handle) {
        (Action::Start, Some(_)) => Err("record_trace: start takes no `handle`, it returns one".into()),
        (Action::Start, None) => {
            let handle = collections.record(Asked { pids, events, duration_s, max_bytes }, call.client())?;
            if wait || call.is_cancelled() {
                await_end(call, &handle)?;
            }
            tell(call, &handle)
        }
        (_, _) if chooses => {
            Err("record_trace: duration_s, pids, events and max_bytes are chosen when it starts, and not later".into())
        }
        (_, None) => {
            let known = collections.look(None, |one| one.plan.id.clone());
            let known = known.map_or_else(|_| "start one first".to_owned(), |id| format!("the newest is `{id}`"));
            Err(format!("record_trace: which recording is meant? Give its `handle`; {known}"))
        }
        (Action::Status, Some(handle)) => {
            if wait {
                await_status(call, &handle)?;
            }
            tell(call, &handle)
        }
        (Action::Stop, Some(handle)) => {
            collections.look(Some(&handle), Collection::control)?.stop("stopped")?;
            tell(call, &handle)
        }
        (Action::Cancel, Some(handle)) => {
            let trace = collections.look(Some(&handle), |one| one.trace().to_owned())?;
            let end = collections.cancel(&handle)?;
            let told =
                format!("{handle} is cancelled: its programs are unloaded, and what it had recorded is removed.");
            let answer = Answer::new(told).with("handle", &handle).with("state", "cancelled").with("trace", &trace);
            Ok(counts(answer, &end).read_now().next("record_trace", json!({}), "records again"))
        }
    }
}

/// Waits for the end of a recording that this call began; it goes when nobody waits for it any more.
fn await_end(call: &Call<'_>, handle: &str) -> Result<(), String> {
    if await_status(call, handle)? {
        return Ok(());
    }
    call.state.collections.cancel(handle)?;
    Err(format!("`record_trace` was cancelled: {handle} is unloaded and removed"))
}

/// Waits until a recording has ended, for so long as a call may; false if nobody waits any more.
fn await_status(call: &Call<'_>, handle: &str) -> Result<bool, String> {
    let (control, whole) = call.state.collections.look(Some(handle), |one| (one.control(), one.plan.duration))?;
    let whole = whole.map_or(1.0, |whole| whole.as_secs_f64()).max(1.0);
    // Others are not to wait with it.
    call.yield_turn();
    let begun = Instant::now();
    while begun.elapsed() < MAX_WAIT {
        if call.is_cancelled() {
            return Ok(false);
        }
        if control.wait(LOOK).is_some() {
            break;
        }
        let (left, events) = call.state.collections.look(Some(handle), |one| (one.left(), one.stands().events))?;
        let part = 1.0 - left.map_or(0.0, |left| left.as_secs_f64()) / whole;
        call.tell(part.clamp(0.0, 1.0), format!("{handle}: {events} events"));
    }
    Ok(true)
}

fn counts(answer: Answer, end: &End) -> Answer {
    answer
        .with("events", &end.events)
        .with("lost", &end.lost)
        .with("bytes", &end.bytes)
        .with("recorded_s", &(end.duration.as_millis() as f64 / 1e3))
}

/// How a recording stands.
fn tell(call: &Call<'_>, handle: &str) -> Result<Answer, String> {
    let look = |one: &Collection| (one.is_on(), one.stands(), one.left(), one.trace().to_owned(), one.plan.clone());
    let (on, stands, left, trace, plan) = call.state.collections.look(Some(handle), look)?;
    if let Some(why) = &stands.failed {
        return Err(format!("{handle} ended early: {why}; what it has until then is in {}", trace.display()));
    }
    let left_s = left.filter(|_| on).map(|left| left.as_secs());
    let summary = match left_s {
        Some(left) => format!("{handle} records, for {left} more seconds: {} events so far.", stands.events),
        None => format!("{handle} has ended ({}): {} events, {} lost.", stands.why, stands.events, stands.lost),
    };
    let of = json!({ "trace": handle });
    let answer = Answer::new(summary)
        .with("handle", &handle)
        .with("state", if on { "recording" } else { "finished" })
        .with("trace", &trace);
    let answer = counts(answer, &stands).with("left_s", &left_s).with("pids", &plan.pids);
    let answer = answer.with("max_bytes", &plan.max_bytes).with("kept", &plan.keep.is_some()).read_now();
    Ok(if on {
        let wait: Value = json!({ "action": "status", "handle": handle, "wait": true });
        let stop = json!({ "action": "stop", "handle": handle });
        answer
            .next("record_trace", wait, "answers when it has ended")
            .next("record_trace", stop, "ends it, once what you want to see has happened")
            .next("analyze", of, "why tasks waited so far")
    } else {
        answer.next("analyze", of.clone(), "says why tasks waited").next("get_scheduler_stats", of, "the totals")
    })
}
