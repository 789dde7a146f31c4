//! The server as a process that was started with a configuration.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

fn server(config: &Path) -> Command {
    let mut server = Command::new(env!("CARGO_BIN_EXE_schedtrace-mcp"));
    server.arg("--config").arg(config);
    server
}

/// Sends requests one after the other; their answers, and what was said on standard error.
fn talk(config: &Path, requests: &[(&str, Value)]) -> (Vec<Value>, String) {
    let mut child =
        server(config).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let hello =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    let mut ask = |id: usize, method: &str, params: &Value| {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(stdin, "{message}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if method == "initialize" {
            writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).unwrap();
        }
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let mut answers = vec![ask(0, "initialize", &hello)];
    answers.extend(requests.iter().enumerate().map(|(at, (method, params))| ask(at + 1, method, params)));
    drop(stdin);
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(child.wait().unwrap().success());
    (answers, told)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn what_is_printed_is_read_again_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let print = |config: &Path| {
        let out = server(config).arg("--print-config").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let printed = print(&fixture("config.yaml"));
    assert_eq!(print(&fixture("config.toml")), printed);
    let again = folder.path().join("again.yaml");
    std::fs::write(&again, &printed).unwrap();
    let in_force =
        |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(in_force(&print(&again)), in_force(&printed));
}

#[test]
fn the_documented_configuration_is_one() {
    let document = include_str!("../../../docs/mcp-config.md");
    let yaml = document.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("documented.yaml");
    std::fs::write(&file, yaml).unwrap();
    let out = server(&file).arg("--print-config").output().unwrap();
    let printed = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(!printed.contains("refused"), "{printed}");
}

#[test]
fn a_configuration_that_is_wrong_ends_the_server_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    std::fs::write(&file, "server:\n  nane: x\n").unwrap();
    let out = server(&file).stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success() && told.contains("line 2") && told.contains("`server.name`"), "{told}");
    assert!(out.stdout.is_empty(), "standard output belongs to the protocol");
}

#[test]
fn the_server_is_what_its_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some.yaml");
    let text = "server: { name: bridge, version: \"7\", transport: http }\ntools: [{ name: list_traces, description: Look here first }]\n";
    std::fs::write(&file, text).unwrap();
    let requests = [
        ("tools/list", json!({})),
        ("tools/call", json!({"name": "list_traces", "arguments": {}})),
        ("tools/call", json!({"name": "analyze", "arguments": {}})),
    ];
    let (answers, told) = talk(&file, &requests);
    let info = &answers[0]["result"]["serverInfo"];
    assert_eq!((&info["name"], &info["version"]), (&json!("bridge"), &json!("7")));
    assert!(info["title"].as_str().unwrap().starts_with("schedtrace "), "{info}");
    let tools = answers[1]["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.iter().map(|tool| &tool["name"]).collect::<Vec<_>>(), ["list_traces"]);
    assert!(tools[0]["description"].as_str().unwrap().starts_with("Look here first. The traces"), "{tools:?}");
    assert_eq!(answers[2]["result"]["isError"], false, "{answers:?}");
    assert!(answers[3]["error"]["message"].as_str().unwrap().contains("use one of list_traces"), "{answers:?}");
    assert!(told.contains("`server.transport` is refused"), "{told}");
}

#[test]
fn calls_and_reads_beyond_their_rate_are_refused_and_the_rest_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slow.toml");
    // One at once, and the next in a quarter of an hour.
    std::fs::write(&file, "[security]\nrate_limit_per_second = 0.001\n").unwrap();
    let requests = [
        ("tools/call", json!({"name": "list_traces", "arguments": {}})),
        ("tools/call", json!({"name": "list_traces", "arguments": {}})),
        ("resources/read", json!({"uri": "schedtrace://trace/none/latency"})),
        ("tools/list", json!({})),
    ];
    let (answers, _) = talk(&file, &requests);
    assert_eq!(answers[1]["result"]["isError"], false, "{answers:?}");
    assert_eq!(answers[2]["result"]["isError"], true, "{answers:?}");
    let told = answers[2]["result"]["content"][0]["text"].as_str().unwrap();
    assert!(told.contains("ask again in "), "{told}");
    assert!(answers[3]["error"]["message"].as_str().unwrap().contains("ask again in "), "{answers:?}");
    assert!(answers[4]["result"]["tools"].is_array(), "what costs nothing is not counted");
}
