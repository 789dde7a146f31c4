//! The tools: what each asks for, and what it answers.
//!
//! Their definitions are plain JSON Schema, written here by hand: some hosts drop tools whose schemas hold more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "live")]
use std::sync::{Mutex, MutexGuard, PoisonError};

use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use schedtrace_core::analysis::{GroupBy, Options};
use schedtrace_core::system::Topology;
use schedtrace_core::trace::TraceReader;
use schedtrace_core::{Error, Source};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[cfg(feature = "live")]
use crate::collect::Collection;
use crate::traces::Allowed;
use crate::{Settings, analyze, topology, traces};

const DEFAULT_TOP: u32 = 3;
const MAX_TOP: u32 = 100;
/// Seconds of a collection.
const DEFAULT_DURATION: u64 = 60;
const MAX_DURATION: u64 = 600;

/// What the tools work on.
#[derive(Debug)]
pub(crate) struct Tools {
    allowed: Allowed,
    collect: bool,
    #[cfg(feature = "live")]
    collection: Mutex<Option<Collection>>,
}

/// One tool.
struct Spec {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    properties: fn() -> Value,
    /// Fields of every answer, besides its summary.
    told: &'static [&'static str],
    call: fn(&Tools, JsonObject) -> Result<Value, String>,
    /// It loads or unloads programs.
    collects: bool,
}

const TRACE: &str = "Which trace: a path, or a name that list_traces told. May be left out where there is only one, or \
    to ask for what is being collected.";

fn only_trace() -> Value {
    json!({ "trace": { "type": "string", "description": TRACE } })
}

const SPECS: [Spec; 7] = [
    Spec {
        name: "analyze",
        title: "Analyze a scheduler trace",
        description: "Why did tasks wait for a CPU, and who held it meanwhile? Reads a whole trace and reports, for its \
            window: run-queue latency with quantiles, causes and the worst waits; who held the CPU during these waits; \
            CPU time and utilisation; switches; wakeups and who woke whom; migrations by distance. Times end in `_ns`, \
            shares in `_ratio`. `groups_total` says how many rows there are beyond those shown. `completeness` says what \
            is known to be missing; waits cut off by an edge of the window or overlapping a loss are counted apart.",
        properties: || {
            json!({
                "trace": { "type": "string", "description": TRACE },
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
            })
        },
        told: &["window", "completeness", "run_queue", "holders", "cpu_time"],
        call: Tools::analyze,
        collects: false,
    },
    Spec {
        name: "get_scheduler_stats",
        title: "Scheduler statistics",
        description: "The totals of `analyze` without its rows: how long tasks waited for a CPU (quantiles, by cause), how \
            busy the CPUs were, switches, wakeups, migrations, events by kind, and what is known to be missing.",
        properties: only_trace,
        told: &["window", "completeness", "run_queue", "cpu_time"],
        call: Tools::stats,
        collects: false,
    },
    Spec {
        name: "get_topology",
        title: "CPU topology",
        description: "Which CPUs there are, and which of them share a last-level cache and a NUMA node: of the machine of a \
            trace or, without one, of the machine that this server runs on.",
        properties: || json!({ "trace": { "type": "string", "description": "Which trace: a path, or a name that list_traces told." } }),
        told: &["online", "llcs"],
        call: Tools::topology,
        collects: false,
    },
    Spec {
        name: "list_traces",
        title: "List traces",
        description: "The traces that can be read here, the newest first: host, start, length, events, and whether \
            anything is missing.",
        properties: || json!({}),
        told: &["traces", "total", "truncated"],
        call: |tools, arguments| parse::<NoArguments>("list_traces", arguments).map(|_| tools.allowed.list()),
        collects: false,
    },
    Spec {
        name: "open_trace",
        title: "Describe a trace",
        description: "What a trace holds, without reading it all: host, window, filters, rows per table, what was lost or \
            removed, and which events could not be recorded. Its `trace` is what the other tools take.",
        properties: only_trace,
        told: &["trace", "window", "completeness", "tables"],
        call: Tools::open,
        collects: false,
    },
    Spec {
        name: "enable_collection",
        title: "Start to collect",
        description: "Loads schedtrace's BPF programs and records the running machine, for a limited time and in limited \
            room, until disable_collection. Meanwhile and afterwards, the other tools without `trace` speak of it. It \
            costs each context switch of the machine some hundred nanoseconds.",
        properties: || {
            json!({
                "pids": {
                    "type": "array",
                    "items": { "type": "integer", "minimum": 1 },
                    "description": "Only these processes and those they start; without it, all."
                },
                "duration_s": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_DURATION,
                    "default": DEFAULT_DURATION,
                    "description": "After so many seconds it ends by itself."
                }
            })
        },
        told: &["trace", "duration_s"],
        call: Tools::enable,
        collects: true,
    },
    Spec {
        name: "disable_collection",
        title: "Stop collecting",
        description: "Ends the collection and unloads the BPF programs. What was collected can be read until the next \
            collection begins or this server ends.",
        properties: || json!({}),
        told: &["trace", "events"],
        call: Tools::disable,
        collects: true,
    },
];

impl Tools {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            allowed: Allowed::new(settings.traces),
            collect: settings.collect,
            #[cfg(feature = "live")]
            collection: Mutex::new(None),
        }
    }

    fn specs(&self) -> impl Iterator<Item = &'static Spec> {
        let collect = self.collect && cfg!(feature = "live");
        SPECS.iter().filter(move |spec| collect || !spec.collects)
    }

    /// How the tools present themselves to a client, in an order that never changes.
    pub(crate) fn definitions(&self) -> Vec<Tool> {
        self.specs().map(Spec::definition).collect()
    }

    /// Answers a call; none if there is no such tool. What goes wrong is part of the answer, as text that says what to do
    /// next: a protocol error would not reach the model.
    pub(crate) fn call(&self, name: &str, arguments: JsonObject) -> Option<CallToolResult> {
        let spec = self.specs().find(|spec| spec.name == name)?;
        Some((spec.call)(self, arguments).map_or_else(failed, CallToolResult::structured))
    }

    fn analyze(&self, arguments: JsonObject) -> Result<Value, String> {
        let arguments: Analyze = parse("analyze", arguments)?;
        let by = match &arguments.by {
            Some(name) => name.parse::<GroupBy>().map_err(|why| format!("by: {why}"))?,
            None => GroupBy::default(),
        };
        let top = arguments.top.unwrap_or(DEFAULT_TOP);
        if !(1..=MAX_TOP).contains(&top) {
            return Err(format!("top: {top} rows cannot be had: use 1 to {MAX_TOP}"));
        }
        let options = Options { by, top: top as usize, ..Options::default() };
        let trace = self.find(arguments.trace.as_deref())?;
        let (info, report) = analyze::study(&trace, options).map_err(unreadable)?;
        analyze::report(&info, report)
    }

    fn stats(&self, arguments: JsonObject) -> Result<Value, String> {
        let arguments: OfTrace = parse("get_scheduler_stats", arguments)?;
        let trace = self.find(arguments.trace.as_deref())?;
        let (info, report) = analyze::study(&trace, Options { top: 1, ..Options::default() }).map_err(unreadable)?;
        analyze::stats(&info, &report)
    }

    fn topology(&self, arguments: JsonObject) -> Result<Value, String> {
        let arguments: OfTrace = parse("get_topology", arguments)?;
        let Some(trace) = arguments.trace else {
            let topology = Topology::read(Path::new("/sys")).map_err(|why| why.to_string())?;
            return Ok(topology::describe(&topology, "This machine"));
        };
        let trace = TraceReader::open(self.find(Some(&trace))?).map_err(unreadable)?;
        let meta = trace.meta();
        Ok(topology::describe(&meta.topology, &meta.host.hostname))
    }

    fn open(&self, arguments: JsonObject) -> Result<Value, String> {
        let arguments: OfTrace = parse("open_trace", arguments)?;
        traces::describe(&self.find(arguments.trace.as_deref())?).map_err(advise)
    }

    /// The trace that was asked for. Without a name, what is or was collected comes first.
    fn find(&self, named: Option<&Path>) -> Result<PathBuf, String> {
        #[cfg(feature = "live")]
        if let Some(collection) = self.collection().as_ref() {
            match named {
                None => return Ok(collection.trace()),
                Some(path) if collection.owns(path) => return Ok(path.to_owned()),
                Some(_) => {}
            }
        }
        self.allowed.find(named)
    }
}

#[cfg(feature = "live")]
impl Tools {
    fn collection(&self) -> MutexGuard<'_, Option<Collection>> {
        // Whoever panicked while it held this left a collection or none.
        self.collection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enable(&self, arguments: JsonObject) -> Result<Value, String> {
        let arguments: Enable = parse("enable_collection", arguments)?;
        let seconds = arguments.duration_s.unwrap_or(DEFAULT_DURATION);
        if !(1..=MAX_DURATION).contains(&seconds) {
            return Err(format!("duration_s: {seconds} seconds cannot be had: use 1 to {MAX_DURATION}"));
        }
        let mut collection = self.collection();
        if let Some(left) = collection.as_mut().and_then(Collection::left) {
            return Err(format!(
                "it collects already, for {} more seconds: ask the other tools, or call disable_collection first",
                left.as_secs()
            ));
        }
        // What was collected before goes first: it may be large.
        *collection = None;
        let started = Collection::start(&arguments.pids, std::time::Duration::from_secs(seconds));
        let started = started.map_err(|why| why.to_string())?;
        let trace = started.trace();
        *collection = Some(started);
        let of = if arguments.pids.is_empty() { "all tasks" } else { "these processes and those they start" };
        Ok(json!({
            "summary": format!("The BPF programs are loaded and record {of}, for {seconds} seconds at most."),
            "trace": trace,
            "duration_s": seconds,
            "pids": arguments.pids,
            "next": "Wait for what you want to see, then ask `get_scheduler_stats` or `analyze` without `trace`; call `disable_collection` when you know enough.",
        }))
    }

    fn disable(&self, arguments: JsonObject) -> Result<Value, String> {
        let NoArguments {} = parse("disable_collection", arguments)?;
        let mut collection = self.collection();
        let Some(collection) = collection.as_mut() else {
            return Err("nothing was collected: call enable_collection first".into());
        };
        let was_on = collection.left().is_some();
        let events = collection.stop().map_err(|why| format!("the collection ended early: {why}"))?;
        let ended = if was_on { "The BPF programs are unloaded" } else { "The collection had ended by itself" };
        Ok(json!({
            "summary": format!("{ended}: {events} events were collected."),
            "trace": collection.trace(),
            "events": events,
            "next": "`analyze` without `trace` says why tasks waited.",
        }))
    }
}

#[cfg(not(feature = "live"))]
impl Tools {
    fn enable(&self, _: JsonObject) -> Result<Value, String> {
        Err("this server was built without the means to collect".into())
    }

    fn disable(&self, arguments: JsonObject) -> Result<Value, String> {
        self.enable(arguments)
    }
}

impl Spec {
    fn definition(&self) -> Tool {
        let input = json!({ "type": "object", "properties": (self.properties)(), "additionalProperties": false });
        let told = self.told.iter().copied().chain(["summary", "next"]);
        // What is in them differs from tool to tool, and would not fit.
        let properties: JsonObject = told.clone().map(|name| (name.to_owned(), json!({}))).collect();
        let output = json!({ "type": "object", "properties": properties, "required": told.collect::<Vec<_>>() });
        let object = |value: Value| Arc::new(value.as_object().cloned().unwrap_or_default());
        let annotations = ToolAnnotations::with_title(self.title)
            .read_only(!self.collects)
            .destructive(false)
            .idempotent(true)
            .open_world(false);
        let mut tool = Tool::new(self.name, self.description, object(input)).with_annotations(annotations);
        tool.title = Some(self.title.into());
        tool.output_schema = Some(object(output));
        tool
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Analyze {
    trace: Option<PathBuf>,
    by: Option<String>,
    top: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfTrace {
    trace: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(feature = "live"), allow(dead_code, reason = "its tool is not there"))]
struct Enable {
    #[serde(default)]
    pids: Vec<u32>,
    duration_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

fn parse<T: DeserializeOwned>(tool: &str, arguments: JsonObject) -> Result<T, String> {
    serde_json::from_value(Value::Object(arguments)).map_err(|why| {
        let properties = SPECS.iter().find(|spec| spec.name == tool).map(|spec| (spec.properties)());
        let properties = properties.as_ref().and_then(Value::as_object).into_iter().flatten();
        let takes: Vec<_> =
            properties.map(|(name, schema)| format!("{name} ({})", schema["type"].as_str().unwrap_or("any"))).collect();
        let takes = if takes.is_empty() { "none".into() } else { takes.join(", ") };
        format!("the arguments of `{tool}` are wrong: {why}; it takes {takes}")
    })
}

fn unreadable(why: Error) -> String {
    advise(why.to_string())
}

fn advise(why: String) -> String {
    format!("{why}; give what list_traces told, or the folder that `schedtrace record -o` wrote, in `trace`")
}

/// The answer that something failed.
pub(crate) fn failed(why: impl std::fmt::Display) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(why.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::write_trace;

    fn text(result: &CallToolResult) -> String {
        result.content.iter().filter_map(|block| Some(block.as_text()?.text.as_str())).collect()
    }

    fn tools(collect: bool) -> Tools {
        Tools::new(Settings { collect, ..Settings::default() })
    }

    fn ask(name: &str, arguments: Value) -> CallToolResult {
        tools(false).call(name, arguments.as_object().cloned().unwrap()).expect(name)
    }

    fn answer(name: &str, arguments: Value) -> Value {
        let result = ask(name, arguments);
        assert_eq!(result.is_error, Some(false), "{name}: {}", text(&result));
        let answer = result.structured_content.clone().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text(&result)).unwrap(), answer);
        let spec = SPECS.iter().find(|spec| spec.name == name).unwrap();
        for field in spec.told.iter().chain(&["summary", "next"]) {
            assert!(!answer[*field].is_null(), "{name} says {field}: {answer}");
        }
        answer
    }

    #[test]
    fn a_trace_is_answered_with_its_report() {
        let folder = tempfile::tempdir().unwrap();
        let trace = write_trace(folder.path());
        let report = answer("analyze", json!({ "trace": trace }));
        assert_eq!(report["run_queue"]["total"]["wait"]["max_ns"], 2_000_000);
        assert_eq!(report["run_queue"]["groups"][0]["group"]["comm"], "victim");
        assert_eq!(report["holders"]["groups"][0]["holders"][0]["group"]["comm"], "hog");
        assert_eq!(report["cpu_time"]["cpus"][0]["cpu"], 300);
        assert_eq!(report["cpu_time"]["cpus_total"], 1);
        assert_eq!(report["trace"]["state"], "finished");
        let summary = report["summary"].as_str().unwrap();
        assert!(summary.contains("1 times, 2.00ms in all"), "{summary}");

        let stats = answer("get_scheduler_stats", json!({ "trace": trace }));
        for same in ["window", "completeness", "events", "summary"] {
            assert_eq!(stats[same], report[same], "{same}");
        }
        assert_eq!(stats["run_queue"]["total"], report["run_queue"]["total"]);
        let opened = answer("open_trace", json!({ "trace": trace }));
        assert_eq!((&opened["state"], &opened["unaccounted"]), (&json!("finished"), &json!(0)));
        answer("get_topology", json!({ "trace": trace }));
        answer("get_topology", json!({}));
    }

    #[test]
    fn rows_are_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let trace = write_trace(folder.path());
        for by in GroupBy::ALL {
            let answer = answer("analyze", json!({"trace": trace, "by": by.name(), "top": 1}));
            assert_eq!(answer["by"], by.name());
            assert!(answer["cpu_time"]["groups"].as_array().unwrap().len() <= 1, "{answer}");
        }
    }

    #[test]
    fn errors_are_answers_that_say_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let trace = write_trace(folder.path());
        for (arguments, told) in [
            (json!({"trace": 7}), "trace"),
            (json!({"trace": trace, "by": "colour"}), "use one of task, process, cgroup, cpu, llc"),
            (json!({"trace": trace, "top": 0}), "use 1 to 100"),
            (json!({"trace": trace, "top": 101}), "use 1 to 100"),
            (json!({"trace": trace, "top": -1}), "top"),
            (json!({"trace": trace, "limit": 3}), "limit"),
            (json!({"trace": folder.path().join("none")}), "schedtrace record -o"),
            (json!({"trace": folder.path()}), "schedtrace record -o"),
        ] {
            let result = ask("analyze", arguments.clone());
            assert_eq!(result.is_error, Some(true), "{arguments}");
            assert!(text(&result).contains(told), "{arguments}: {}", text(&result));
            assert!(result.structured_content.is_none(), "hosts show the text of an error only");
        }
        for name in ["get_scheduler_stats", "get_topology", "open_trace"] {
            let told = text(&ask(name, json!({"trace": folder.path().join("none")})));
            assert!(told.contains("list_traces"), "{name}: {told}");
        }
    }

    #[test]
    fn collecting_is_a_power_of_its_own() {
        let names = |collect| tools(collect).definitions().into_iter().map(|tool| tool.name).collect::<Vec<_>>();
        let reading = ["analyze", "get_scheduler_stats", "get_topology", "list_traces", "open_trace"];
        assert_eq!(names(false), reading);
        let collects = if cfg!(feature = "live") { &["enable_collection", "disable_collection"][..] } else { &[] };
        assert_eq!(names(true), [&reading[..], collects].concat());
        assert!(tools(false).call("enable_collection", JsonObject::new()).is_none());
    }

    #[cfg(feature = "live")]
    #[test]
    fn limits_of_collecting_are_told() {
        let call = |name: &str, arguments: Value| {
            text(&tools(true).call(name, arguments.as_object().cloned().unwrap()).unwrap())
        };
        for seconds in [0, 601] {
            let told = call("enable_collection", json!({ "duration_s": seconds }));
            assert!(told.contains("use 1 to 600"), "{told}");
        }
        assert!(call("disable_collection", json!({})).contains("enable_collection first"));
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
    fn the_definitions_are_plain_and_small() {
        let all = tools(true).definitions();
        for tool in &all {
            let mut found = Vec::new();
            let schema = Value::Object((*tool.input_schema).clone());
            nodes("", &schema, &mut found);
            for (at, value) in found {
                assert!(!at.ends_with(".type") || value.is_string(), "{at}: {value}");
                assert!(!at.ends_with(".format") && !at.contains('$'), "{at}: {value}");
            }
            let reads = !tool.name.ends_with("_collection");
            assert!(tool.annotations.as_ref().is_some_and(|hints| hints.read_only_hint == Some(reads)));
            assert!(tool.description.as_ref().is_some_and(|text| text.len() < 2_000), "hosts cut longer ones");
        }
        assert!(crate::INSTRUCTIONS.len() < 2_000);
        let size = serde_json::to_string(&all).unwrap().len();
        assert!(size < 3 * 4_000, "{size} bytes do not fit 4,000 tokens");
    }
}
