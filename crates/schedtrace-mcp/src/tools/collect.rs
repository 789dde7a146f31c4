//! Collecting from the running kernel, for servers that were started for it.

use serde::Deserialize;
use serde_json::json;

use super::{Tool, events_argument};
use crate::answer::Answer;
use crate::call::Call;
use crate::collect::Asked;

pub(super) const ENABLE: Tool = Tool {
    name: "enable_collection",
    title: "Start to collect",
    description: "Loads schedtrace's BPF programs and records the running machine, for a limited time and in limited \
        room, until disable_collection; what was collected before is deleted. Meanwhile and afterwards, the other tools without \
        `trace` speak of it. It costs each context switch of the machine some hundred nanoseconds.",
    takes: || {
        json!({
            "pids": {
                "type": "array",
                "items": { "type": "integer", "minimum": 1 },
                "description": "Only these processes and those they start; without it, all."
            },
            "events": events_argument(),
            "duration_s": {
                "type": "integer",
                "minimum": 1,
                "default": 60,
                "description": "After so many seconds it ends by itself."
            }
        })
    },
    required: &[],
    tells: &[("trace", "string"), ("duration_s", "integer")],
    collects: true,
    // What was collected before goes.
    destructive: true,
    call: enable,
};

pub(super) const DISABLE: Tool = Tool {
    name: "disable_collection",
    title: "Stop collecting",
    description: "Ends the collection and unloads the BPF programs. What was collected can be read until the next \
        collection begins or this server ends.",
    takes: || json!({}),
    required: &[],
    tells: &[("trace", "string"), ("events", "integer")],
    collects: true,
    destructive: false,
    call: disable,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Enable {
    #[serde(default)]
    pids: Vec<u32>,
    #[serde(default)]
    events: Vec<String>,
    duration_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn enable(call: &Call<'_>) -> Result<Answer, String> {
    let asked: Enable = call.arguments()?;
    let Enable { pids, events, duration_s } = asked.clone();
    let wanted = Asked { pids, events, duration_s, ..Asked::default() };
    let (trace, seconds) = call.state.collections.enable(wanted, call.client())?;
    let of = if asked.pids.is_empty() { "all tasks" } else { "these processes and those they start" };
    Ok(Answer::new(format!("The BPF programs are loaded and record {of}, for {seconds} seconds at most."))
        .with("trace", &trace)
        .with("duration_s", &seconds)
        .with("pids", &asked.pids)
        .next("get_scheduler_stats", json!({}), "the totals so far; wait for what you want to see first")
        .next("analyze", json!({}), "why tasks waited so far")
        .next("disable_collection", json!({}), "unloads the programs, once you know enough"))
}

fn disable(call: &Call<'_>) -> Result<Answer, String> {
    let Nothing {} = call.arguments()?;
    let (trace, was_on, end) = call.state.collections.disable()?;
    let events = end.events;
    let ended = if was_on { "The BPF programs are unloaded" } else { "The collection had ended by itself" };
    Ok(Answer::new(format!("{ended}: {events} events were collected."))
        .with("trace", &trace)
        .with("events", &events)
        .with("lost", &end.lost)
        .with("bytes", &end.bytes)
        .next("analyze", json!({}), "says why tasks waited"))
}
