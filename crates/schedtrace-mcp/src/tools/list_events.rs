//! What can be traced, by subsystem.

use std::path::Path;

use schedtrace_core::system::tracefs;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Tool;
use crate::answer::Answer;
use crate::call::Call;
use crate::machine::{of, root};
use crate::resources::events::{DEFAULT_ROWS, about, functions, page, page_takes, tracepoints};

const PERF: &str = "perf";
const KPROBE: &str = "kprobe";
const ALL: &str = "all";

pub(super) const LIST_EVENTS: Tool = Tool {
    name: "list_events",
    title: "List events",
    description: "What of the kernel can be traced, by subsystem: its tracepoints (perf), kernel functions whose name contains the \
        subsystem's (kprobe), or both. An unknown subsystem is answered with those that there are.",
    takes: || {
        let mut takes = json!({
            "subsystem": { "type": "string", "description": "Such as sched, irq, power, block or net." },
            "event_type": { "type": "string", "enum": [KPROBE, PERF, ALL], "default": PERF }
        });
        if let (Value::Object(takes), Value::Object(page)) = (&mut takes, page_takes()) {
            takes.extend(page);
        }
        takes
    },
    required: &["subsystem"],
    tells: &[("subsystem", "string"), ("event_type", "string"), ("count", "integer")],
    collects: false,
    destructive: false,
    call: |call| list(call, root()),
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    subsystem: Option<String>,
    event_type: Option<String>,
    filter: Option<String>,
    cursor: Option<u64>,
    limit: Option<u64>,
}

fn list(call: &Call<'_>, root: &Path) -> Result<Answer, String> {
    let asked: Asked = call.arguments()?;
    let kind = asked.event_type.as_deref().unwrap_or(PERF);
    if ![PERF, KPROBE, ALL].contains(&kind) {
        return Err(format!("event_type: there are three, use {PERF}, {KPROBE} or {ALL}"));
    }
    let Some(subsystem) = asked.subsystem.as_deref().filter(|name| !name.is_empty()) else {
        return Err(format!("subsystem: name one; {}", subsystems(root)));
    };
    let page = page(asked.cursor, asked.limit)?;
    let filter = asked.filter.as_deref();
    let mut told = Vec::new();
    let mut count = 0;
    let mut lists = Vec::new();
    let mut next = None;
    if kind != KPROBE {
        let found = tracepoints(root, Some(subsystem), filter, page)?;
        told.push(of(found.matching, "tracepoint"));
        count += found.matching;
        next = next.max(found.next);
        lists.push((PERF, json!({ "matching": found.matching, "events": found.events })));
    }
    if kind != PERF {
        let parts: Vec<&str> = std::iter::once(subsystem).chain(filter).collect();
        let found = tracefs::functions(root, &parts, page).map_err(|why| why.to_string())?;
        told.push(format!("{} ({})", of(found.matching, "function"), about(&found)));
        count += found.matching;
        next = next.max(found.next);
        lists.push((KPROBE, functions(&found)));
    }
    let mut answer = Answer::new(format!("{subsystem}: {}.", told.join(" and ")))
        .with("subsystem", subsystem)
        .with("event_type", kind)
        .with("count", &count)
        .with("next_cursor", &next);
    for (name, list) in lists {
        answer = answer.with(name, &list);
    }
    if let Some(cursor) = next {
        let arguments = json!({ "subsystem": subsystem, "event_type": kind, "filter": filter, "cursor": cursor });
        let Value::Object(mut arguments) = arguments else { return Ok(answer) };
        arguments.retain(|_, value| !value.is_null());
        answer = answer.next("list_events", arguments.into(), "the next page; a `filter` is shorter");
    } else if kind == PERF {
        let functions = json!({ "subsystem": subsystem, "event_type": KPROBE });
        answer = answer.next("list_events", functions, "functions of the kernel whose name contains the subsystem's");
    }
    let answer = if page.limit > DEFAULT_ROWS { answer.roomy() } else { answer };
    Ok(answer.read_now())
}

fn subsystems(root: &Path) -> String {
    match tracefs::subsystems(root) {
        Ok(all) => {
            let names: Vec<_> = all.into_iter().map(|subsystem| subsystem.name).collect();
            format!("there are {}", names.join(", "))
        }
        Err(why) => why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, refusal};
    use super::*;
    use crate::state::State;

    #[test]
    fn functions_are_found_by_the_name_of_a_subsystem() {
        let state = State::new(crate::Settings::default());
        let told = answer(&state, "list_events", &json!({ "subsystem": "sched", "event_type": "kprobe", "limit": 5 }));
        assert_eq!(told["kprobe"]["functions"].as_array().unwrap().len(), 5);
        assert_eq!(told["next"][0]["arguments"], json!({ "subsystem": "sched", "event_type": "kprobe", "cursor": 5 }));
        let narrow = json!({ "subsystem": "sched", "event_type": "kprobe", "filter": "sched_fork" });
        assert!(answer(&state, "list_events", &narrow)["count"].as_u64() < told["count"].as_u64());
        let both = json!({ "subsystem": "sched", "event_type": "kprobe", "filter": "fork" });
        let both = answer(&state, "list_events", &both);
        let names: Vec<_> =
            both["kprobe"]["functions"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(
            !names.is_empty() && names.iter().all(|name| name.contains("sched") && name.contains("fork")),
            "{both}"
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let state = State::new(crate::Settings::default());
        for (arguments, why) in [
            (json!({}), "subsystem: name one"),
            (json!({ "subsystem": "sched", "event_type": "colour" }), "use perf, kprobe or all"),
            (json!({ "subsystem": "sched", "limit": 0 }), "use 1 to 1000"),
            (json!({ "subsystem": 7 }), "subsystem (string)"),
        ] {
            let told = refusal(&state, "list_events", &arguments);
            assert!(told.contains(why), "{arguments}: {told}");
        }
    }

    /// tracefs belongs to root.
    #[test]
    fn live_tracepoints_are_listed_and_an_unknown_subsystem_says_which_there_are() {
        let state = State::new(crate::Settings::default());
        let told = answer(&state, "list_events", &json!({ "subsystem": "sched" }));
        assert!(told["perf"]["events"].as_array().unwrap().contains(&json!("sched:sched_switch")), "{told}");
        assert!(told["kprobe"].is_null());
        let both =
            answer(&state, "list_events", &json!({ "subsystem": "sched", "event_type": "all", "filter": "switch" }));
        assert!(both["kprobe"]["functions"].is_array() && both["perf"]["events"].is_array());
        for unknown in ["colour", "../sched"] {
            let why = refusal(&state, "list_events", &json!({ "subsystem": unknown }));
            assert!(why.contains("sched,") && why.contains("irq,"), "{why}");
        }
    }
}
