//! A recorder that was stopped for a while says so, in every report over that time and in no other. Needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use schedtrace_core::Nanos;
use serde_json::Value;

fn schedtrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_schedtrace"))
}

fn text(what: &str, trace: &Path, more: &[&str]) -> String {
    let output = schedtrace().arg(what).arg(trace).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(what: &str, trace: &Path, more: &[&str]) -> Value {
    serde_json::from_str(&text(what, trace, &[&["--json"], more].concat())).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn monotonic() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[test]
fn live_a_recorder_that_was_stopped_says_so_in_every_report() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("run.schedtrace");
    let mut recorder =
        schedtrace().args(["record", "--ring-mb", "1", "-o"]).arg(&trace).stderr(Stdio::piped()).spawn().unwrap();
    while !trace.join("meta.json").exists() {
        assert!(recorder.try_wait().unwrap().is_none(), "live tests need root: run `make test` as root");
        thread::sleep(Duration::from_millis(10));
    }
    // Quiet, then a flood that nobody takes from the rings, then quiet again.
    thread::sleep(Duration::from_millis(300));
    let before = monotonic();
    signal(&recorder, Signal::STOP);
    let flood = Command::new("hackbench").args(["-p", "-g", "4", "-l", "2000"]).stdout(Stdio::null()).status();
    assert!(flood.unwrap().success());
    let after = monotonic();
    signal(&recorder, Signal::CONT);
    thread::sleep(Duration::from_millis(500));
    signal(&recorder, Signal::INT);
    let output = recorder.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("unaccounted"), "{said}");
    assert!(said.lines().any(|line| line.trim_start().starts_with("lost ") && line.contains("sched_switch")), "{said}");

    let info = json("info", &trace, &[]);
    assert_eq!(info["completeness"]["complete"], false);
    let of_switches = |rows: &Value| -> u64 {
        let rows = rows.as_array().unwrap().iter();
        rows.filter(|row| row["kind"] == "sched_switch").map(|row| row["count"].as_u64().unwrap()).sum()
    };
    let lost = of_switches(&info["completeness"]["lost"]);
    assert!(lost > 0, "{info}");
    assert!(text("info", &trace, &[]).contains("lost"));

    // The rings held out for a moment after the recorder was stopped: in the midst, events were being lost.
    let until = |at: Nanos| format!("{}ns", at.0);
    let midst = until(Nanos(before.0.midpoint(after.0)));
    for by in ["task", "process", "cgroup", "cpu", "llc"] {
        let whole = json("report", &trace, &["--by", by]);
        assert_eq!(of_switches(&whole["completeness"]["lost"]), lost, "by {by}");
        assert!(text("report", &trace, &["--by", by]).contains("lost"), "by {by}");
        let during = json("report", &trace, &["--by", by, "--from", &midst, "--to", &until(after)]);
        assert!(of_switches(&during["completeness"]["lost"]) > 0, "by {by}, from {midst}: {during}");
        for window in [["--to", &until(before)], ["--from", &until(after + Nanos(300_000_000))]] {
            let quiet = json("report", &trace, &[&["--by", by], &window[..]].concat());
            assert_eq!(quiet["completeness"]["lost_total"], 0, "by {by}, {window:?}");
        }
    }
}
