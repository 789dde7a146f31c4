//! The server as a process, spoken to in plain lines of JSON-RPC.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Sends these messages at once, and returns the answers in the order in which they came.
fn talk(messages: &[Value]) -> Vec<Value> {
    let mut server = Command::new(env!("CARGO_BIN_EXE_schedtrace-mcp"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = server.stdin.take().unwrap();
    let lines: String = messages.iter().map(|message| format!("{message}\n")).collect();
    stdin.write_all(lines.as_bytes()).unwrap();
    let expected = messages.iter().filter(|message| message.get("id").is_some()).count();
    let answers = BufReader::new(server.stdout.take().unwrap()).lines().take(expected);
    let answers = answers.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    drop(stdin);
    assert!(server.wait().unwrap().success());
    answers
}

#[test]
fn others_are_answered_while_a_trace_is_read() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../schedtrace/tests/fixtures/hackbench.schedtrace");
    let hello =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    let mut messages = vec![
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    ];
    let params = json!({"name": "analyze", "arguments": {"trace": trace}});
    let analyses = 100..120;
    messages.extend(
        analyses.clone().map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})),
    );
    messages.push(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}));
    let answers = talk(&messages);
    for answer in answers.iter().filter(|answer| analyses.contains(&answer["id"].as_u64().unwrap())) {
        assert_eq!(answer["result"]["isError"], false, "{answer}");
    }
    let list = answers.iter().position(|answer| answer["id"] == 2).unwrap();
    assert!(list + 1 < answers.len(), "the list does not wait for all of the analyses before it");
}
