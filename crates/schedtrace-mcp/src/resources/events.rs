//! What can be traced: tracepoints, and functions of the kernel, found by name and told page by page.

use std::path::Path;

use schedtrace_core::system::tracefs::{self, FunctionSource, Functions, Page, Tracepoints};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{JSON, Resource};
use crate::answer::Answer;
use crate::call::Call;
use crate::machine::{of, root};
use crate::paging::{numbered, of_place};
use crate::tools::rows;

pub(crate) const DEFAULT_ROWS: usize = 100;
pub(crate) const MAX_ROWS: usize = 1_000;

pub(super) const PERF: Resource = Resource {
    uri: "events://perf",
    name: "Tracepoints",
    description: "The kernel's tracepoints by subsystem; found by `subsystem` and by a part of their name, `filter`.",
    mime_type: JSON,
    takes: || {
        let mut takes = page_takes();
        takes["subsystem"] = json!({ "type": "string", "description": "Only those of this one, such as sched." });
        takes
    },
    collects: false,
    read: |call| perf(call, root()).map(Into::into),
};

pub(super) const KPROBE: Resource = Resource {
    uri: "events://kprobe",
    name: "Functions of the kernel",
    description: "The kernel's functions that a probe can be attached to, found by a part of their name, `filter`.",
    mime_type: JSON,
    takes: page_takes,
    collects: false,
    read: |call| kprobe(call, root()).map(Into::into),
};

/// What a long list takes.
pub(crate) fn page_takes() -> Value {
    let mut takes = numbered();
    takes["limit"] = json!({ "type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": DEFAULT_ROWS });
    takes
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Perf {
    subsystem: Option<String>,
    filter: Option<String>,
    cursor: Option<u64>,
    limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kprobe {
    filter: Option<String>,
    cursor: Option<u64>,
    limit: Option<u64>,
}

/// The part of a list that was asked for.
pub(crate) fn page(cursor: Option<u64>, limit: Option<u64>) -> Result<Page, String> {
    Ok(of_place(cursor, rows("limit", limit, DEFAULT_ROWS, MAX_ROWS)?))
}

/// The tracepoints that were asked for; what is wrong with a subsystem says which there are.
pub(crate) fn tracepoints(
    root: &Path,
    subsystem: Option<&str>,
    filter: Option<&str>,
    page: Page,
) -> Result<Tracepoints, String> {
    tracefs::tracepoints(root, subsystem, filter, page).map_err(|why| match tracefs::subsystems(root) {
        Ok(known) => {
            let known: Vec<_> = known.into_iter().map(|subsystem| subsystem.name).collect();
            format!("{why}; there are {}", known.join(", "))
        }
        Err(_) => why.to_string(),
    })
}

/// What can be said of functions as a whole.
pub(crate) fn about(functions: &Functions) -> String {
    let source = match functions.source {
        FunctionSource::AvailableFilterFunctions => "the kernel's list of functions that can be traced",
        FunctionSource::Kallsyms => "the symbols of the kernel, of which some may be refused",
    };
    let kprobes = if functions.kprobes_supported {
        ""
    } else {
        "; this kernel has no kprobes (CONFIG_KPROBE_EVENTS), but fentry programs can be attached to most"
    };
    format!("{source}{kprobes}")
}

fn perf(call: &Call<'_>, root: &Path) -> Result<Answer, String> {
    let asked: Perf = call.arguments()?;
    let page = page(asked.cursor, asked.limit)?;
    let found = tracepoints(root, asked.subsystem.as_deref(), asked.filter.as_deref(), page)?;
    let mut answer = Answer::new(format!(
        "{} match, {} of them are told here.",
        of(found.matching, "tracepoint"),
        found.events.len()
    ))
    .with("matching", &found.matching)
    .with("next_cursor", &found.next)
    .with("events", &found.events);
    if asked.subsystem.is_none() && asked.filter.is_none() {
        let all = tracefs::subsystems(root).map_err(|why| why.to_string())?;
        let counts: serde_json::Map<_, _> = all.into_iter().map(|one| (one.name, one.events.into())).collect();
        answer = answer.with("subsystems", &counts);
    }
    let answer = if page.limit > DEFAULT_ROWS { answer.roomy() } else { answer };
    Ok(answer.read_now().next(
        "list_events",
        json!({ "subsystem": "sched" }),
        "the same by subsystem, with functions if asked for",
    ))
}

fn kprobe(call: &Call<'_>, root: &Path) -> Result<Answer, String> {
    let asked: Kprobe = call.arguments()?;
    let page = page(asked.cursor, asked.limit)?;
    let found = tracefs::functions(root, asked.filter.as_deref().as_slice(), page).map_err(|why| why.to_string())?;
    let answer = Answer::new(format!(
        "{} of {} match, {} of them are told here: {}.",
        of(found.matching, "function"),
        found.total,
        found.functions.len(),
        about(&found)
    ));
    let answer = answer.with("next_cursor", &found.next).with_all(&functions(&found)).read_now();
    let answer = if page.limit > DEFAULT_ROWS { answer.roomy() } else { answer };
    let next = json!({ "subsystem": "sched", "event_type": "all" });
    Ok(answer.next("list_events", next, "tracepoints of a subsystem, and functions named after it"))
}

/// Functions as short as they can be told: a name, with its module where it has one.
pub(crate) fn functions(found: &Functions) -> Value {
    let name = |function: &tracefs::Function| match &function.module {
        Some(module) => format!("{} [{module}]", function.name),
        None => function.name.clone(),
    };
    // A name that several functions bear cannot be attached to by name.
    let ambiguous = found.functions.iter().filter(|function| function.copies > 1).map(name);
    json!({
        "source": found.source,
        "kprobes_supported": found.kprobes_supported,
        "blacklist_known": found.blacklist_known,
        "total": found.total,
        "matching": found.matching,
        "functions": found.functions.iter().map(name).collect::<Vec<_>>(),
        "ambiguous": ambiguous.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::answer;
    use super::*;

    fn folder() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for event in ["sched/sched_switch", "sched/sched_waking", "irq/softirq_entry"] {
            std::fs::create_dir_all(root.path().join("sys/kernel/tracing/events").join(event)).unwrap();
        }
        std::fs::create_dir_all(root.path().join("proc")).unwrap();
        std::fs::write(root.path().join("proc/kallsyms"), "0 T schedule\n0 t helper\n0 t helper\n0 t far [mod]\n")
            .unwrap();
        root
    }

    #[test]
    fn tracepoints_come_by_subsystem_and_page_by_page() {
        let root = folder();
        let state = crate::state::State::new(crate::Settings::default());
        let all = perf(&Call::quiet(&state), root.path()).unwrap().finish().unwrap();
        assert_eq!(all["subsystems"], json!({ "irq": 1, "sched": 2 }));
        assert_eq!((&all["matching"], &all["next_cursor"]), (&json!(3), &Value::Null));
        let one = tracepoints(root.path(), Some("sched"), None, page(Some(1), Some(1)).unwrap()).unwrap();
        assert_eq!((one.events, one.next), (vec!["sched:sched_waking".to_owned()], None));
        let told = tracepoints(root.path(), Some("colour"), None, page(None, None).unwrap()).unwrap_err();
        assert!(told.ends_with("there are irq, sched"), "{told}");
        assert!(page(None, Some(0)).unwrap_err().contains("use 1 to 1000"));
        assert_eq!(page(Some(u64::MAX), None).unwrap().of(vec![1]).0, Vec::<i32>::new());
    }

    #[test]
    fn functions_say_where_they_are_known_from() {
        let root = folder();
        let state = crate::state::State::new(crate::Settings::default());
        let told = kprobe(&Call::quiet(&state), root.path()).unwrap().finish().unwrap();
        assert_eq!(told["functions"], json!(["far [mod]", "helper", "schedule"]));
        assert_eq!((&told["ambiguous"], &told["source"]), (&json!(["helper"]), &json!("kallsyms")));
        assert!(told["summary"].as_str().unwrap().contains("no kprobes"), "{told}");
    }

    #[test]
    fn this_machine_is_told() {
        let told = answer("events://kprobe?filter=sched&limit=3");
        assert_eq!((told["functions"].as_array().unwrap().len(), &told["next_cursor"]), (3, &json!(3)), "{told}");
        let on = answer("events://kprobe?filter=sched&limit=3&cursor=3");
        assert_ne!(on["functions"], told["functions"]);
        answer(KPROBE.uri);
    }

    /// tracefs belongs to root.
    #[test]
    fn live_tracepoints_of_this_machine_are_told() {
        let told = answer("events://perf?subsystem=sched&filter=switch");
        assert!(told["events"].as_array().unwrap().contains(&json!("sched:sched_switch")), "{told}");
        assert!(answer(PERF.uri)["subsystems"]["sched"].as_u64() > Some(5));
    }
}
