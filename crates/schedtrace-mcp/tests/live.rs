//! Collecting, recording and streaming through the server: needs what loads BPF programs.
#![cfg(feature = "live")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{Client, Era, assert_complete, audited, command, eventually, held, hello, loaded, resident_bytes, wait};
use serde_json::{Value, json};

const ERAS: [Era; 2] = [Era::Session, Era::Stateless];

/// A name that nothing else here has.
fn name() -> String {
    format!("t{:010x}", RandomState::new().build_hasher().finish() >> 24)
}

/// A thread of this name that sleeps and wakes so many times.
fn work(name: &str, times: u32) {
    let work = move || (0..times).for_each(|_| thread::sleep(Duration::from_millis(1)));
    thread::Builder::new().name(name.to_owned()).spawn(work).unwrap().join().unwrap();
}

/// Two threads that wake each other as fast as they can, until this is dropped.
struct Storm(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Storm {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ((mut a_in, mut a_out), (mut b_in, mut b_out)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let (first, second) = (Arc::clone(&over), Arc::clone(&over));
        let ping = thread::spawn(move || {
            let mut byte = [0];
            while !first.load(Ordering::Relaxed) && a_out.write_all(&byte).is_ok() && b_in.read(&mut byte).is_ok() {}
        });
        let pong = thread::spawn(move || {
            let mut byte = [0];
            while a_in.read(&mut byte).is_ok_and(|n| n > 0)
                && !second.load(Ordering::Relaxed)
                && b_out.write_all(&byte).is_ok()
            {}
        });
        Self(over, vec![ping, pong])
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Whether the event is about a task of this name.
fn is_about(line: &Value, name: &str) -> bool {
    ["task", "prev", "current", "parent"].iter().any(|role| line[role]["comm"] == name)
}

#[test]
fn live_subscribers_see_what_happens_in_both_eras() {
    for era in ERAS {
        let folder = tempfile::tempdir().unwrap();
        let audit = folder.path().join("audit.jsonl");
        let mut client = Client::start(era, &["--collect", "--audit", audit.to_str().unwrap()]);
        let pid = client.server.id();
        assert!(held(pid).is_empty(), "nothing is loaded before somebody wants it");
        let name = name();
        let uri = format!("events://stream?kind=sched_switch&task={name}");
        let id = client.subscribe(&uri);
        eventually("the programs are loaded", || !held(pid).is_empty());
        let programs = held(pid);
        // The first events may come before this collection does.
        eventually("its events arrive", || {
            work(&name, 50);
            client.lines("events://stream").len() > 1
        });
        work(&name, 50);
        let told = client.notification("notifications/resources/updated");
        assert_eq!(told["params"]["uri"], uri);
        let mut seen = Vec::new();
        eventually("all of its switches arrive", || {
            seen.extend(client.lines(&uri).into_iter().filter(|line| line["event"] != "page_end"));
            seen.len() >= 100
        });
        for line in &seen {
            assert!(line["event"] == "sched_switch" && is_about(line, &name), "{line}");
        }
        let wrong = client.call("resources/read", json!({ "uri": "events://stream?where=length > 3" }));
        assert!(wrong["error"]["message"].as_str().unwrap().contains("no event there has a field"), "{wrong}");

        client.unsubscribe(&uri, id);
        eventually("nothing stays loaded", || held(pid).is_empty() && loaded(&programs).is_empty());
        assert_eq!(client.lines(&uri).last().unwrap()["subscribed"], false);
        assert!(client.leave().success());
        let audit = audited(&audit);
        assert_complete(&audit);
        assert_eq!(audit.len(), 4, "{audit:?}");
        assert!(audit.iter().all(|line| line["client"]["name"] == "test"), "{audit:?}");
    }
}

#[test]
fn live_recordings_have_handles_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, keep) = (folder.path().join("audit.jsonl"), folder.path().join("kept"));
    let arguments = ["--collect", "--audit", audit.to_str().unwrap(), "--keep", keep.to_str().unwrap()];
    let mut client = Client::start(Era::Stateless, &arguments);
    let pid = client.server.id();
    let name = name();

    let begun = client.tool("record_trace", json!({ "duration_s": 60, "events": ["default", "irq"] }));
    assert_eq!((&begun["state"], &begun["handle"]), (&json!("recording"), &json!("rec-1")));
    work(&name, 50);
    let other = client.tool("record_trace", json!({ "duration_s": 60, "pids": [std::process::id()] }));
    assert_eq!(other["handle"], "rec-2");
    let both = held(pid);
    let refused = client.refusal("record_trace", json!({}));
    assert!(
        refused.contains("2 at once is the limit") && refused.contains("rec-1") && refused.contains("rec-2"),
        "{refused}"
    );
    let refused = client.refusal("enable_collection", json!({}));
    assert!(refused.contains("2 at once is the limit"), "{refused}");

    let cancelled = client.tool("record_trace", json!({ "action": "cancel", "handle": "rec-2" }));
    assert_eq!(cancelled["state"], "cancelled");
    assert!(held(pid).len() < both.len());
    assert!(!std::path::Path::new(other["trace"].as_str().unwrap()).exists());
    let refused = client.refusal("record_trace", json!({ "action": "status", "handle": "rec-2" }));
    assert!(refused.contains("rec-1"), "{refused}");

    eventually("it can be read while it goes on", || {
        let so_far = client.tool("open_trace", json!({ "trace": "rec-1" }));
        so_far["state"] == "recording" && so_far["completeness"]["events"].as_u64().unwrap() > 100
    });
    let ended = client.tool("record_trace", json!({ "action": "stop", "handle": "rec-1" }));
    assert_eq!(ended["state"], "finished");
    assert!(ended["events"].as_u64().unwrap() > 100, "{ended}");
    assert!(held(pid).is_empty());
    assert_eq!(client.tool("open_trace", json!({ "trace": "rec-1" }))["state"], "finished");
    assert!(client.tool("list_traces", json!({}))["traces"][0]["trace"].as_str().unwrap().contains("rec-1"));

    let waited = client.tool("record_trace", json!({ "duration_s": 1, "wait": true }));
    assert_eq!(waited["state"], "finished", "{waited}");
    assert!(client.leave().success());
    let kept: Vec<_> = std::fs::read_dir(&keep).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept.len(), 2, "the two that were not cancelled stay: {kept:?}");
    let audit = audited(&audit);
    assert_complete(&audit);
    let of_first = audit.iter().find(|line| line["id"] == "rec-1").unwrap();
    assert_eq!(of_first["asked"]["events"], json!(["default", "irq"]));
    assert!(audit.iter().any(|line| line["outcome"] == "cancelled" && line["id"] == "rec-2"));
}

#[test]
fn live_whoever_does_not_wait_any_more_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let keep = folder.path().join("kept");
    let mut client = Client::start(Era::Session, &["--collect", "--keep", keep.to_str().unwrap()]);
    let pid = client.server.id();
    let arguments = json!({ "duration_s": 60, "wait": true });
    let params = json!({ "name": "record_trace", "arguments": arguments, "_meta": { "progressToken": "p" } });
    let waits = client.ask("tools/call", params);
    let progress = client.notification("notifications/progress");
    assert!(progress["params"]["message"].as_str().unwrap().starts_with("rec-1: "), "{progress}");
    let programs = held(pid);
    assert!(!programs.is_empty());
    // Others do not wait with those that wait, of which there are more than are worked on at a time.
    let status =
        json!({ "name": "record_trace", "arguments": { "action": "status", "handle": "rec-1", "wait": true } });
    let waiting: Vec<_> = (0..10).map(|_| client.ask("tools/call", status.clone())).collect();
    client.tool("get_topology", json!({}));
    assert!(!waiting.iter().any(|&id| client.is_answered(id)));
    client.cancel(waits);
    eventually("nothing stays loaded", || held(pid).is_empty() && loaded(&programs).is_empty());
    eventually("and nothing is left of it", || std::fs::read_dir(&keep).unwrap().count() == 0);
    assert!(client.leave().success());
}

#[test]
fn live_nothing_stays_attached_however_it_ends() {
    for how in ["stdin", "TERM", "INT", "HUP", "KILL"] {
        let folder = tempfile::tempdir().unwrap();
        let audit = folder.path().join("audit.jsonl");
        let mut client = Client::start(Era::Session, &["--collect", "--daemon", "--audit", audit.to_str().unwrap()]);
        let pid = client.server.id();
        assert!(!held(pid).is_empty(), "a daemon collects from the start");
        let refused = client.refusal("disable_collection", json!({}));
        assert!(refused.contains("--daemon"), "{refused}");
        client.subscribe("events://stream");
        client.tool("record_trace", json!({ "duration_s": 60 }));
        let programs = held(pid);
        let events = client.lines("events://stream");
        assert!(events.last().unwrap()["event"] == "page_end");
        match how {
            "stdin" => assert!(client.leave().success()),
            signal => {
                let sent = std::process::Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap();
                assert!(sent.success());
                assert_eq!(wait(&mut client.server).success(), signal != "KILL", "{signal}");
            }
        }
        eventually("nothing stays loaded", || loaded(&programs).is_empty());
        if how != "KILL" {
            let audit = audited(&audit);
            assert_complete(&audit);
            assert_eq!(audit.len(), 6, "a collection, a subscription, a recording: {audit:?}");
            let why = if how == "stdin" { "the client went away".to_owned() } else { format!("SIG{how}") };
            assert!(audit.iter().all(|line| line["action"] == "start" || line["outcome"] == *why), "{audit:?}");
        }
    }
}

#[test]
fn live_whoever_insists_does_not_wait_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit");
    assert!(std::process::Command::new("mkfifo").arg(&audit).status().unwrap().success());
    let reader = std::fs::File::options().read(true).write(true).open(&audit).unwrap();
    let mut client = Client::start(Era::Session, &["--collect", "--daemon", "--audit", audit.to_str().unwrap()]);
    let pid = client.server.id();
    let programs = held(pid);
    assert!(!programs.is_empty());
    // Nobody reads the audit log any more: the end waits for that.
    drop(reader);
    let interrupt = || std::process::Command::new("kill").args(["-s", "INT", &pid.to_string()]).status().unwrap();
    assert!(interrupt().success());
    thread::sleep(Duration::from_millis(100));
    // As when whoever started it passes on what the terminal said already.
    assert!(interrupt().success());
    thread::sleep(Duration::from_millis(1_500));
    assert!(client.server.try_wait().unwrap().is_none(), "that was one wish");
    assert!(interrupt().success());
    assert_eq!(wait(&mut client.server).signal(), Some(2));
    eventually("nothing stays loaded", || loaded(&programs).is_empty());
}

#[test]
fn live_a_standard_error_that_nobody_reads_holds_nothing_up() {
    let (_unread, mut full) = std::io::pipe().unwrap();
    // As much as a pipe takes.
    full.write_all(&[b'x'; 1 << 16]).unwrap();
    let mut client = Client::start_with(Era::Session, command(&["--collect"]).stderr(full));
    for _ in 0..2 {
        client.subscribe("events://stream");
        eventually("its events arrive", || client.lines("events://stream").len() > 1);
        client.unsubscribe("events://stream", 0);
    }
    let pid = client.server.id();
    eventually("nothing stays loaded", || held(pid).is_empty());
    assert!(client.leave().success());
}

#[test]
fn live_a_client_that_vanishes_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.jsonl");
    let mut server = command(&["--collect", "--daemon", "--audit", audit.to_str().unwrap()]).spawn().unwrap();
    let mut stdin = server.stdin.take().unwrap();
    writeln!(stdin, "{}", json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello() })).unwrap();
    eventually("it collects", || !held(server.id()).is_empty());
    let programs = held(server.id());
    // As when its process is killed: both pipes close, in the midst of a request, and nobody reads what was still to come.
    write!(stdin, "{{\"jsonrpc\": \"2.0\", \"id\":").unwrap();
    drop((server.stdout.take(), stdin));
    wait(&mut server);
    assert!(loaded(&programs).is_empty());
    let audit = audited(&audit);
    assert_complete(&audit);
    assert_eq!(audit.last().unwrap()["outcome"], "the client went away");
}

#[test]
fn live_a_client_that_does_not_read_delays_nobody_and_is_told() {
    let mut client = Client::start(Era::Stateless, &["--collect"]);
    let pid = client.server.id();
    let uris = ["events://stream", "events://stream?kind=sched_switch", "events://stream?where=cpu < 64"];
    for uri in uris {
        client.subscribe(uri);
    }
    let asks = json!({ "name": "open_trace", "arguments": {} });
    eventually("it collects", || client.call("tools/call", asks.clone())["result"]["isError"] == false);
    let storm = Storm::start();
    let lost_of = |lines: &[Value]| lines.last().unwrap()["lost"].as_u64().unwrap();
    let mut before = None;
    // Nobody reads the streams meanwhile; all others are answered.
    eventually("more has happened than waits", || {
        let events = client.tool("open_trace", json!({}))["completeness"]["events"].as_u64().unwrap();
        if events > 50_000 && before.is_none() {
            before = Some(resident_bytes(pid));
        }
        events > 1_000_000
    });
    let grown = resident_bytes(pid).saturating_sub(before.unwrap());
    assert!(grown < 100 << 20, "{grown} bytes more");
    drop(storm);
    for uri in uris {
        let lines = client.lines(uri);
        assert!(lost_of(&lines) > 0, "{:?}", lines.last());
        let told = lines.iter().filter(|line| line["event"] == "lost" && line["place"] == "stream");
        assert_eq!(told.map(|line| line["count"].as_u64().unwrap()).sum::<u64>(), lost_of(&lines));
        assert!(lines.iter().any(|line| line["event"] == "sched_switch"), "and what came last is there");
    }
    assert!(client.leave().success());
}

#[test]
fn live_what_is_not_collected_cannot_be_streamed() {
    let mut client = Client::start(Era::Session, &["--collect"]);
    client.tool("enable_collection", json!({ "duration_s": 60 }));
    let refused = client.call("resources/subscribe", json!({ "uri": "events://stream?kind=futex_wait" }));
    assert!(refused["error"]["message"].as_str().unwrap().contains("disable_collection"), "{refused}");
    client.subscribe("events://stream?kind=sched_switch");
    let ended = client.tool("disable_collection", json!({}));
    assert!(ended["events"].as_u64().is_some(), "{ended}");
    eventually("the stream says so", || {
        client.lines("events://stream?kind=sched_switch").last().unwrap()["ended"] == "live"
    });
    // What is asked for beyond the default is collected with it.
    let begun = client.call("resources/subscribe", json!({ "uri": "events://stream?kind=softirq" }));
    assert!(begun["result"].is_object(), "{begun}");
    eventually("softirqs arrive", || {
        let lines = client.lines("events://stream?kind=softirq");
        lines.iter().any(|line| line["event"] == "softirq_entry" && line["vector"].is_string())
    });
    assert!(client.leave().success());
}

#[test]
fn live_whoever_subscribes_again_is_served_again() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.jsonl");
    let mut client = Client::start(Era::Session, &["--collect", "--audit", audit.to_str().unwrap()]);
    let pid = client.server.id();
    let uri = "events://stream?kind=sched_switch";
    client.subscribe(uri);
    client.subscribe(uri);
    client.tool("disable_collection", json!({}));
    eventually("the stream says so", || client.lines(uri).last().unwrap()["ended"] == "live");
    assert!(held(pid).is_empty());
    client.subscribe(uri);
    assert!(!held(pid).is_empty(), "it collects again");
    eventually("events arrive", || client.lines(uri).iter().any(|line| line["event"] == "sched_switch"));
    client.unsubscribe(uri, 0);
    eventually("nothing stays loaded", || held(pid).is_empty());
    assert!(client.leave().success());
    let audit = audited(&audit);
    assert_complete(&audit);
    assert_eq!(audit.len(), 8, "two collections, two subscriptions: {audit:?}");
}

#[test]
fn live_so_many_subscriptions_stand_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.jsonl");
    let uri = |limit: usize| format!("events://stream?limit={limit}");
    let told = |answer: &Value| answer["error"]["message"].as_str().unwrap_or_default().to_owned();

    let mut client = Client::start(Era::Session, &["--collect"]);
    for limit in 1..=16 {
        client.subscribe(&uri(limit));
    }
    let ask = |limit| json!({ "uri": uri(limit) });
    let refused = told(&client.call("resources/subscribe", ask(17)));
    assert!(refused.contains("16 subscriptions stand") && refused.contains("resources/unsubscribe"), "{refused}");
    client.subscribe(&uri(16));
    client.unsubscribe(&uri(1), 0);
    // It makes room as soon as whoever told of it is gone.
    eventually("there is room", || client.call("resources/subscribe", ask(17))["result"].is_object());
    assert!(client.leave().success());

    let mut client = Client::start(Era::Stateless, &["--collect", "--audit", audit.to_str().unwrap()]);
    let listen = |uris: Vec<String>| json!({ "notifications": { "resourceSubscriptions": uris } });
    let refused = told(&client.call("subscriptions/listen", listen((1..=17).map(uri).collect())));
    assert!(refused.contains("16 subscriptions stand"), "{refused}");
    assert!(held(client.server.id()).is_empty(), "nothing was begun for those before it");
    client.ask("subscriptions/listen", listen(vec![uri(1); 2_000]));
    eventually("it collects", || !held(client.server.id()).is_empty());
    assert!(client.leave().success());
    let audit = audited(&audit);
    assert_eq!(audit.len(), 4, "a collection, a subscription: {audit:?}");

    let config = folder.path().join("c.yaml");
    std::fs::write(&config, "collect: true\nsecurity: { rate_limit_per_second: 0.001 }\n").unwrap();
    for (era, method) in [(Era::Session, "resources/subscribe"), (Era::Stateless, "subscriptions/listen")] {
        let mut client = Client::start(era, &["--config", config.to_str().unwrap()]);
        client.tool("list_traces", json!({}));
        let asked = if era == Era::Session { ask(1) } else { listen(vec![uri(1)]) };
        let refused = told(&client.call(method, asked));
        assert!(refused.contains("calls in a second"), "{method}: {refused}");
        assert!(client.leave().success());
    }
}
