use std::path::Path;

use serde_json::json;

use super::*;
use crate::Settings;
use crate::tests::write_trace;

/// A server that may read what lies in a folder.
pub(crate) fn state_of(folder: &Path) -> State {
    State::new(Settings { traces: vec![folder.to_owned()], ..Settings::default() })
}

fn text(result: &CallToolResult) -> String {
    result.content.iter().filter_map(|block| Some(block.as_text()?.text.as_str())).collect()
}

/// Calls a tool, whatever comes of it.
pub(crate) fn ask(state: &State, name: &str, arguments: &Value) -> CallToolResult {
    let tool = find(state, name).unwrap_or_else(|| panic!("there is a tool {name}"));
    let call = Call::of_tool(state, tool, arguments.as_object().cloned().unwrap());
    tool.answer(&call)
}

/// Calls a tool that is to succeed; what it answers has all that its schema says.
pub(crate) fn answer(state: &State, name: &str, arguments: &Value) -> Value {
    let result = ask(state, name, arguments);
    assert_eq!(result.is_error, Some(false), "{name} {arguments}: {}", text(&result));
    let answer = result.structured_content.clone().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text(&result)).unwrap(), answer);
    let tool = find(state, name).unwrap().definition();
    let schema = tool.output_schema.unwrap();
    for (field, ty) in schema["properties"].as_object().unwrap() {
        let is = match &answer[field] {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        assert_eq!(is, ty["type"], "{name}: {field}");
    }
    for next in answer["next"].as_array().unwrap() {
        let known = ALL.iter().find(|tool| tool.name == next["tool"]).unwrap_or_else(|| panic!("there is {next}"));
        let takes = (known.takes)();
        for argument in next["arguments"].as_object().unwrap().keys() {
            assert!(takes.get(argument).is_some(), "{name}: {next}");
        }
    }
    answer
}

/// Calls a tool that is to fail; what it says.
pub(crate) fn refusal(state: &State, name: &str, arguments: &Value) -> String {
    let result = ask(state, name, arguments);
    assert_eq!(result.is_error, Some(true), "{name} {arguments}: {}", text(&result));
    assert!(result.structured_content.is_none(), "hosts show the text of an error only");
    text(&result)
}

#[test]
fn a_trace_is_answered_with_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let trace = write_trace(folder.path());
    let state = state_of(folder.path());
    let report = answer(&state, "analyze", &json!({ "trace": trace }));
    assert_eq!(report["run_queue"]["total"]["wait"]["max_ns"], 2_000_000);
    assert_eq!(report["run_queue"]["groups"][0]["group"]["comm"], "victim");
    assert_eq!(report["holders"]["groups"][0]["holders"][0]["group"]["comm"], "hog");
    assert_eq!(report["cpu_time"]["cpus"][0]["cpu"], 300);
    assert_eq!(report["cpus_total"], 1);
    assert_eq!(report["trace"]["state"], "finished");
    let summary = report["summary"].as_str().unwrap();
    assert!(summary.contains("1 times, 2.00ms in all"), "{summary}");

    let stats = answer(&state, "get_scheduler_stats", &json!({}));
    for same in ["window", "completeness", "events", "summary"] {
        assert_eq!(stats[same], report[same], "{same}");
    }
    assert_eq!(stats["run_queue"]["total"], report["run_queue"]["total"]);
    let opened = answer(&state, "open_trace", &json!({ "trace": trace }));
    assert_eq!((&opened["state"], &opened["unaccounted"]), (&json!("finished"), &json!(0)));
    answer(&state, "get_topology", &json!({ "trace": trace }));
    answer(&state, "get_topology", &json!({}));
    answer(&state, "list_traces", &json!({}));
}

#[test]
fn rows_are_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let trace = write_trace(folder.path());
    for by in schedtrace_core::analysis::GroupBy::ALL {
        let asked = json!({"trace": trace, "by": by.name(), "top": 1});
        let answer = answer(&state_of(folder.path()), "analyze", &asked);
        assert_eq!(answer["by"], by.name());
        assert!(answer["cpu_time"]["groups"].as_array().unwrap().len() <= 1, "{answer}");
    }
}

#[test]
fn errors_are_answers_that_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let trace = write_trace(folder.path());
    let state = state_of(folder.path());
    for (arguments, told) in [
        (json!({"trace": 7}), "trace"),
        (json!({"trace": trace, "by": "colour"}), "use one of task, process, cgroup, cpu, llc"),
        (json!({"trace": trace, "top": 0}), "use 1 to 100"),
        (json!({"trace": trace, "top": 101}), "use 1 to 100"),
        (json!({"trace": trace, "top": -1}), "top"),
        (json!({"trace": trace, "limit": 3}), "limit"),
        (json!({"trace": folder.path().join("none")}), "list_traces"),
        (json!({"trace": folder.path()}), "schedtrace record -o"),
    ] {
        let why = refusal(&state, "analyze", &arguments);
        assert!(why.contains(told), "{arguments}: {why}");
    }
    for name in ["get_scheduler_stats", "get_topology", "open_trace"] {
        let told = refusal(&state, name, &json!({"trace": folder.path().join("none")}));
        assert!(told.contains("list_traces"), "{name}: {told}");
    }
}

#[test]
fn a_call_that_nobody_waits_for_ends() {
    let folder = tempfile::tempdir().unwrap();
    write_trace(folder.path());
    let state = state_of(folder.path());
    let tool = find(&state, "analyze").unwrap();
    let call = Call::of_tool(&state, tool, JsonObject::new());
    call.cancel();
    assert!(text(&tool.answer(&call)).contains("cancelled"));
}

#[test]
fn collecting_is_a_power_of_its_own() {
    let state = |collect| State::new(Settings { collect, ..Settings::default() });
    let reads = |state: &State| of(state).map(|tool| !tool.collects).collect::<Vec<_>>();
    assert!(reads(&state(false)).iter().all(|reads| *reads));
    assert_eq!(reads(&state(true)).iter().any(|reads| !*reads), cfg!(feature = "live"));
    assert!(find(&state(false), "enable_collection").is_none());
}

#[cfg(feature = "live")]
#[test]
fn what_may_delete_says_so() {
    let state = State::new(Settings { collect: true, ..Settings::default() });
    let hints = of(&state).map(|tool| (tool.name, tool.definition().annotations.unwrap()));
    let destructive = hints.filter(|(_, hints)| hints.destructive_hint == Some(true)).map(|(name, hints)| {
        assert_eq!(hints.read_only_hint, Some(false), "{name}");
        name
    });
    assert_eq!(destructive.collect::<Vec<_>>(), ["enable_collection", "record_trace"]);
}

#[cfg(feature = "live")]
#[test]
fn limits_of_collecting_are_told() {
    let state = State::new(Settings { collect: true, ..Settings::default() });
    for seconds in [0, 601] {
        let told = refusal(&state, "enable_collection", &json!({ "duration_s": seconds }));
        assert!(told.contains("use 1 to 600"), "{told}");
    }
    for (tool, near) in [("enable_collection", "sched_ext"), ("record_trace", "futex")] {
        let told = refusal(&state, tool, &json!({ "events": ["default", format!("{near}x")] }));
        assert!(told.contains(&format!("do you mean `{near}`?")) && told.contains("Groups: default, all, "), "{told}");
    }
    assert!(refusal(&state, "disable_collection", &json!({})).contains("enable_collection first"));
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
    for (collect, tokens) in [(false, 4_000), (true, 8_000)] {
        let state = State::new(Settings { collect, ..Settings::default() });
        let all: Vec<_> = of(&state).map(Tool::definition).collect();
        for tool in &all {
            let mut found = Vec::new();
            let schema = Value::Object((*tool.input_schema).clone());
            nodes("", &schema, &mut found);
            for (at, value) in found {
                assert!(!at.ends_with(".type") || value.is_string(), "{at}: {value}");
                assert!(!at.ends_with(".format") && !at.contains('$'), "{at}: {value}");
            }
            let required = schema["required"].as_array().into_iter().flatten();
            for name in required {
                assert!(schema["properties"].get(name.as_str().unwrap()).is_some(), "{}: {name}", tool.name);
            }
            assert!(tool.description.as_ref().is_some_and(|text| text.len() < 2_000), "hosts cut longer ones");
            let suits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            assert!(tool.name.len() <= 64 && tool.name.chars().all(suits), "{}", tool.name);
        }
        // Other models have other tokens; this one's are as large as any that can be counted here.
        let text = serde_json::to_string(&all).unwrap();
        let size = tiktoken_rs::o200k_base_singleton().encode_with_special_tokens(&text).len();
        assert!(size < tokens, "{} bytes, {size} tokens: more than {tokens}", text.len());
    }
    assert!(crate::INSTRUCTIONS.len() < 2_000);
}
