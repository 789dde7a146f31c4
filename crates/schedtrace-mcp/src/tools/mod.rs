//! The tools: what each asks for, and what it answers.
//!
//! A tool is a [`Tool`] in a module of its own, and a line in [`ALL`]. Its schemas are plain JSON Schema, written by hand: some
//! hosts drop tools whose schemas hold more. What goes wrong is an answer too, as text that says what to do next: a protocol
//! error would not reach the model.

mod analyze;
mod causal_chain;
#[cfg(feature = "live")]
mod collect;
mod compare;
#[cfg(feature = "live")]
mod ebpf_info;
#[cfg(feature = "live")]
mod ebpf_map_dump;
mod ebpf_trace_errors;
mod list_events;
mod off_cpu;
mod query_stats;
#[cfg(feature = "live")]
mod record;
mod said;
#[cfg(feature = "sql")]
mod sql;
mod timeline;
pub(crate) mod topology;
mod traces;

pub(crate) use analyze::{report, report_names, report_takes};

use std::sync::Arc;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject, ToolAnnotations};
use serde_json::{Value, json};

use crate::answer::{Answer, cleaned};
use crate::call::Call;
use crate::state::State;

/// One tool.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    /// The properties of its arguments, as JSON Schema.
    pub(crate) takes: fn() -> Value,
    /// Arguments that must be there.
    pub(crate) required: &'static [&'static str],
    /// Fields of every answer and their JSON types, besides `summary`, `units` and `next`.
    pub(crate) tells: &'static [(&'static str, &'static str)],
    /// It loads or unloads programs: it is there with `--collect` alone.
    pub(crate) collects: bool,
    /// It may remove what was recorded before.
    pub(crate) destructive: bool,
    pub(crate) call: fn(&Call<'_>) -> Result<Answer, String>,
}

/// All of them, in the order in which they are listed.
static ALL: &[&Tool] = &[
    &analyze::ANALYZE,
    &analyze::STATS,
    &query_stats::QUERY_STATS,
    &causal_chain::RESOLVE,
    &off_cpu::QUERY,
    &timeline::TIMELINE,
    &compare::COMPARE,
    #[cfg(feature = "sql")]
    &sql::QUERY,
    #[cfg(feature = "sql")]
    &sql::DESCRIBE,
    &topology::TOPOLOGY,
    &list_events::LIST_EVENTS,
    &traces::LIST,
    &traces::OPEN,
    #[cfg(feature = "live")]
    &ebpf_info::INFO,
    #[cfg(feature = "live")]
    &ebpf_map_dump::MAP_DUMP,
    &ebpf_trace_errors::TRACE_ERRORS,
    #[cfg(feature = "live")]
    &collect::ENABLE,
    #[cfg(feature = "live")]
    &collect::DISABLE,
    #[cfg(feature = "live")]
    &record::RECORD,
];

/// The names of all that there are, whatever this server may do.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|tool| tool.name)
}

/// The tools that this server has.
pub(crate) fn of(state: &State) -> impl Iterator<Item = &'static Tool> {
    let collects = state.collects();
    let chosen = state.settings.tools.as_deref();
    let is_chosen = move |tool: &Tool| chosen.is_none_or(|chosen| chosen.iter().any(|choice| choice.name == tool.name));
    ALL.iter().copied().filter(move |tool| (collects || !tool.collects) && is_chosen(tool))
}

/// Something to say that names a tool, if this server has that.
pub(crate) fn hint<'a>(state: &State, tool: &str, told: &'a str) -> &'a str {
    find(state, tool).map_or("", |_| told)
}

/// How a tool presents itself to a client: what the configuration says of it comes first.
pub(crate) fn definition(state: &State, tool: &Tool) -> rmcp::model::Tool {
    let mut definition = tool.definition();
    let choice = state.settings.tools.iter().flatten().find(|choice| choice.name == tool.name);
    if let Some(description) = choice.and_then(|choice| choice.description.as_deref()) {
        let ours = definition.description.unwrap_or_default();
        definition.description = Some(format!("{}. {ours}", cleaned(description, 500).trim_end_matches('.')).into());
    }
    definition
}

/// The tool of this name, if this server has it.
pub(crate) fn find(state: &State, name: &str) -> Option<&'static Tool> {
    of(state).find(|tool| tool.name == name)
}

impl Tool {
    /// How it presents itself to a client.
    pub(crate) fn definition(&self) -> rmcp::model::Tool {
        let mut input = json!({ "type": "object", "properties": (self.takes)(), "additionalProperties": false });
        if !self.required.is_empty() {
            input["required"] = self.required.into();
        }
        let always = [("summary", "string"), ("units", "string"), ("next", "array")];
        let told = self.tells.iter().copied().chain(always);
        // Every answer has all of them; to list their names again would cost a quarter of what all definitions may take.
        let properties: JsonObject = told.map(|(name, ty)| (name.to_owned(), json!({ "type": ty }))).collect();
        let output = json!({ "type": "object", "properties": properties });
        let object = |value: Value| Arc::new(value.as_object().cloned().unwrap_or_default());
        // The other two hints mean nothing of what only reads.
        let annotations = ToolAnnotations::new().read_only(!self.collects).open_world(false);
        let annotations =
            if self.collects { annotations.destructive(self.destructive).idempotent(false) } else { annotations };
        let mut tool = rmcp::model::Tool::new(self.name, self.description, object(input)).with_annotations(annotations);
        tool.title = Some(self.title.into());
        tool.output_schema = Some(object(output));
        tool
    }

    /// Answers a call.
    pub(crate) fn answer(&self, call: &Call<'_>) -> CallToolResult {
        let answer = (self.call)(call).and_then(Answer::finish).map(|answer| only_known(call.state, answer));
        answer.map_or_else(failed, CallToolResult::structured)
    }
}

/// An answer that names no call of a tool which this server does not have.
pub(crate) fn only_known(state: &State, mut answer: Value) -> Value {
    if let Some(next) = answer.get_mut("next").and_then(Value::as_array_mut) {
        next.retain(|next| next["tool"].as_str().is_some_and(|name| find(state, name).is_some()));
    }
    answer
}

/// The answer that something failed.
pub(crate) fn failed(why: impl std::fmt::Display) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(cleaned(&why.to_string(), 2_000))])
}

/// The argument with which most tools are told which trace.
pub(crate) fn trace_argument() -> Value {
    json!({ "type": "string", "description": "As list_traces told; left out: what is collected, or the only one." })
}

/// How these events are recorded beside the usual ones: by which call or, where this server may not, by which command.
pub(crate) fn to_record(state: &State, events: &str) -> String {
    let calls = ["record_trace", "enable_collection"].into_iter().filter(|name| find(state, name).is_some());
    let calls: Vec<_> = calls.collect();
    if calls.is_empty() {
        return format!("`schedtrace record --events default,{events} -o DIR` records them");
    }
    format!("call {} with {}", calls.join(" or "), recording(events))
}

/// Names the call that records these events beside the usual ones, where this server has one.
pub(crate) fn next_to_record(answer: Answer, state: &State, events: &str) -> Answer {
    match find(state, "record_trace") {
        Some(tool) => answer.next(tool.name, recording(events), "records these events beside the usual ones"),
        None => answer,
    }
}

fn recording(events: &str) -> Value {
    json!({ "events": ["default", events] })
}

/// The argument that says which events are recorded.
#[cfg(feature = "live")]
fn events_argument() -> Value {
    json!({
        "type": "array",
        "items": { "type": "string" },
        "description": "Kinds or groups: default, irq, futex, sched_ext, syscall_failed ...; a wrong name is answered with all."
    })
}

/// What to do about a trace that cannot be read.
pub(crate) fn unreadable(why: impl std::fmt::Display) -> String {
    format!("{why}; give a trace by its name, or the folder that `schedtrace record -o` wrote, in `trace`")
}

/// A number of rows that was asked for, if it can be had.
pub(crate) fn rows(name: &str, asked: Option<u64>, default: usize, most: usize) -> Result<usize, String> {
    match asked.map(usize::try_from) {
        None => Ok(default),
        Some(Ok(n)) if (1..=most).contains(&n) => Ok(n),
        Some(_) => Err(format!("{name}: {} rows cannot be had: use 1 to {most}", asked.unwrap_or_default())),
    }
}

#[cfg(test)]
pub(crate) mod tests;
