//! The server as a process, spoken to in plain lines of JSON-RPC.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Write};

use common::{Client, Era, command, hello, resident_bytes, wait};
use serde_json::{Value, json};

/// Sends these messages at once, and returns the answers in the order in which they came.
fn talk(arguments: &[&str], messages: &[Value]) -> Vec<Value> {
    let mut server = command(arguments).spawn().unwrap();
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
    let answers = talk(&["--trace", trace], &messages);
    for answer in answers.iter().filter(|answer| analyses.contains(&answer["id"].as_u64().unwrap())) {
        assert_eq!(answer["result"]["isError"], false, "{answer}");
    }
    let list = answers.iter().position(|answer| answer["id"] == 2).unwrap();
    assert!(list + 1 < answers.len(), "the list does not wait for all of the analyses before it");
}

#[test]
fn a_thousand_calls_at_once_are_answered_or_refused() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../schedtrace/tests/fixtures/hackbench.schedtrace");
    let mut client = Client::start(Era::Session, &["--trace", trace]);
    let params = json!({ "name": "get_topology", "arguments": { "trace": trace } });
    let calls: Vec<_> = (0..1_000).map(|_| client.ask("tools/call", params.clone())).collect();
    let answers: Vec<Value> = calls.into_iter().map(|id| client.answer(id)).collect();
    let refused = answers.iter().filter(|answer| answer["result"]["isError"] == true);
    for answer in refused {
        let told = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(told.contains("256 calls are under way"), "{told}");
    }
    let done = answers.iter().filter(|answer| answer["result"]["isError"] == false).count();
    assert!(done >= 256, "{done}");
    client.tool("get_topology", json!({}));
    assert!(client.leave().success());
}

#[test]
fn a_client_that_asks_and_does_not_read_waits_itself() {
    let mut server = command(&[]).spawn().unwrap();
    let mut stdin = server.stdin.take().unwrap();
    let pid = server.id();
    let (send, written) = std::sync::mpsc::sync_channel(1);
    let writer = std::thread::spawn(move || {
        let begin = [
            json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello()}),
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        ];
        let ask = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"});
        for message in begin.into_iter().chain((1..100_000).map(ask)) {
            match writeln!(stdin, "{message}") {
                Ok(()) => drop(send.try_send(())),
                Err(why) => return assert_eq!(why.kind(), ErrorKind::BrokenPipe),
            }
        }
        panic!("nothing held this client back");
    });
    // It comes to a halt.
    while written.recv_timeout(std::time::Duration::from_secs(2)).is_ok() {}
    assert!(resident_bytes(pid) < 150 << 20, "{} bytes", resident_bytes(pid));
    // Then it goes, with requests in the pipe and answers that nobody read.
    server.kill().unwrap();
    wait(&mut server);
    writer.join().unwrap();
}

#[test]
fn a_client_that_leaves_without_reading_is_not_waited_for() {
    let mut server = command(&[]).spawn().unwrap();
    let mut stdin = server.stdin.take().unwrap();
    let mut lines = format!("{}\n", json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello()}));
    lines.push_str("{\"jsonrpc\": \"2.0\", \"method\": \"notifications/initialized\"}\n");
    let ask = |id: u64| format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"}));
    lines.extend((1..400).map(ask));
    stdin.write_all(lines.as_bytes()).unwrap();
    // By now it waits for somebody to read, and does not see what comes behind.
    std::thread::sleep(std::time::Duration::from_secs(2));
    stdin.write_all((400..500).map(ask).collect::<String>().as_bytes()).unwrap();
    // Its end of the output stays open.
    drop(stdin);
    wait(&mut server);
}

#[test]
fn what_was_asked_before_the_client_closed_its_end_is_answered() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../schedtrace/tests/fixtures/hackbench.schedtrace");
    let mut server = command(&["--trace", trace]).spawn().unwrap();
    let mut stdin = server.stdin.take().unwrap();
    let params = json!({"name": "analyze", "arguments": {"trace": trace}});
    for message in [
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello()}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}),
    ] {
        writeln!(stdin, "{message}").unwrap();
    }
    drop(stdin);
    let answers = BufReader::new(server.stdout.take().unwrap()).lines();
    let answers: Vec<Value> = answers.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(answers.iter().find(|answer| answer["id"] == 1).unwrap()["result"]["isError"], false, "{answers:?}");
    assert!(wait(&mut server).success());
}
