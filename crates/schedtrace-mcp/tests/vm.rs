//! What the server tells while a scheduler of sched_ext runs: in a virtual machine that `make vm-test` boots.
#![cfg(feature = "live")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{Client, Era, eventually};
use serde_json::{Value, json};

/// In which every task waits (`tests/sched_ext/two_queues.bpf.c` of schedtrace-core).
const QUEUES: [u64; 2] = [7, 8];

/// Threads that sleep and wake; neighbours go into different queues.
fn work() {
    let workers: Vec<_> =
        (0..4).map(|_| thread::spawn(|| (0..50).for_each(|_| thread::sleep(Duration::from_millis(1))))).collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

fn stats(client: &mut Client, uri: &str) -> Value {
    client.tool("query_stats", json!({ "uri": uri }))["value"].take()
}

#[test]
fn vm_a_scheduler_of_sched_ext_is_told_with_its_queues() {
    assert!(std::env::var_os("SCHEDTRACE_VM").is_some(), "this needs a machine of its own: run scripts/vm-test.sh");
    if !Path::new("/sys/kernel/sched_ext").exists() {
        println!("this kernel has no sched_ext: CONFIG_SCHED_CLASS_EXT, Linux 6.12");
        return;
    }
    let mut client = Client::start(Era::Stateless, &["--collect"]);
    let before = stats(&mut client, "scheduler://current");
    assert_eq!((&before["class"], &before["sched_ext_supported"]), (&json!("other"), &json!(true)), "{before}");

    let mut scheduler = Command::new("/run/out/two_queues");
    let mut scheduler = scheduler.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(scheduler.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "it schedules\n");
    let current = stats(&mut client, "scheduler://current");
    assert_eq!((&current["class"], &current["state"]), (&json!("sched_ext"), &json!("enabled")), "{current}");
    assert!(current["name"].as_str().unwrap().starts_with("two_queues"), "{current}");
    assert!(current["summary"].as_str().unwrap().contains("two_queues"), "{current}");
    let counted = stats(&mut client, "stats://scheduler/scx");
    assert_eq!(counted["state"], "enabled", "{counted}");
    // It serves no statistics of its own, and that is said.
    let raw = client.refusal("query_stats", json!({ "uri": "stats://scheduler/raw" }));
    assert!(raw.contains("two_queues"), "{raw}");
    let programs = client.text("bpf://programs?name=enqueue");
    assert!(programs.contains("struct_ops"), "{programs}");

    client.tool("enable_collection", json!({ "duration_s": 600 }));
    let uri = "events://stream?where=dsq_lat_us > 0";
    let id = client.subscribe(uri);
    let mut of_queues = BTreeSet::new();
    eventually("tasks are seen that waited in both queues", || {
        work();
        let lines = client.lines(uri);
        // In hexadecimal digits: those of the kernel have the highest bit.
        let number = |line: &Value| u64::from_str_radix(line["dsq_id"].as_str()?.strip_prefix("0x")?, 16).ok();
        of_queues.extend(lines.iter().filter_map(number));
        QUEUES.iter().all(|queue| of_queues.contains(queue))
    });
    client.unsubscribe(uri, id);
    let mut told = Value::Null;
    eventually("both queues are in what was collected", || {
        told = stats(&mut client, "stats://aggregated/dsq");
        told["queues_total"].as_u64() >= Some(2)
    });
    assert!(told["scheduler"].as_str().unwrap().starts_with("two_queues"), "{told}");
    assert!(told["total"]["latency"]["p99_ns"].as_u64() > Some(0), "{told}");
    let report = client.tool("analyze", json!({ "report": "dispatch" }));
    assert!(report["summary"].as_str().unwrap().contains("dispatch"), "{report}");
    client.tool("disable_collection", json!({}));

    // Its standard input ends.
    assert!(scheduler.wait().unwrap().success());
    let after = stats(&mut client, "scheduler://current");
    assert_eq!(after["class"], "other", "{after}");
    assert!(client.leave().success());
}
