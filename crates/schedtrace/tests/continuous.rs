//! `schedtrace record --continuous`: a recording that goes on, keeps to its limits, survives a kill, and is asked while it
//! grows. The live part needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LIMIT: u64 = 4 << 20;

fn schedtrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_schedtrace"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(what: &str, path: &Path) -> Value {
    let output = schedtrace().arg(what).arg(path).arg("--json").output().unwrap();
    assert!(output.status.success(), "{what} {}: {}", path.display(), stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Switches and wakeups for as long as it lives.
struct Load(Child);

impl Load {
    fn start() -> Self {
        let script = "while :; do hackbench -p -g 2 -l 1000 >/dev/null; done";
        Self(Command::new("setsid").args(["sh", "-c", script]).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // `setsid` made it the leader of a group, so that the benchmark goes with it.
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

fn record(folder: &Path, more: &[&str]) -> Child {
    let mut command = schedtrace();
    command.args(["record", "--continuous", "--max-size", "4MiB", "--min-free", "1MiB", "-o"]).arg(folder).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The traces of a folder, oldest first: where they are, and what `info` says of them.
fn traces(folder: &Path) -> Vec<(PathBuf, Value)> {
    let info = json("info", folder);
    assert_eq!(info["unreadable"], Value::Array(Vec::new()), "{info}");
    let traces = info["traces"].as_array().unwrap().iter();
    traces.map(|trace| (trace["info"]["path"].as_str().unwrap().into(), trace["info"].clone())).collect()
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < patience, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes_below(&path) } else { path.metadata().unwrap().len() }).sum()
}

#[test]
fn live_a_continuous_recording_keeps_to_its_limits_and_survives_a_kill() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("recordings");
    let load = Load::start();
    let mut first = record(&folder, &[]);
    await_that("a segment that had to go", || {
        folder.exists()
            && schedtrace().arg("info").arg(&folder).output().unwrap().status.success()
            && traces(&folder).iter().any(|(_, info)| info["completeness"]["removed"]["segments"].as_u64() > Some(0))
    });
    let growing = traces(&folder);
    let [(trace, info)] = &growing[..] else { panic!("{growing:?}") };
    assert_eq!(info["state"], "recording");
    assert!(
        json("report", trace)["run_queue"]["total"]["wait"]["count"].as_u64() > Some(0),
        "it answers while it grows"
    );
    let told = stderr(&schedtrace().arg("report").arg(&folder).output().unwrap());
    let name = trace.file_name().unwrap().to_str().unwrap();
    assert!(told.contains("it holds traces") && told.contains(name) && told.trim_end().lines().count() == 1, "{told}");
    let refused = record(&folder, &[]).wait_with_output().unwrap();
    assert!(!refused.status.success() && stderr(&refused).contains("being recorded into"), "{}", stderr(&refused));

    kill_process(Pid::from_child(&first), Signal::KILL).unwrap();
    first.wait().unwrap();
    let second = record(&folder, &["--max-rate", "2000"]);
    await_that("a second trace", || traces(&folder).len() == 2);
    let old = &traces(&folder)[0].0;
    assert_eq!(old, trace);
    std::thread::sleep(Duration::from_secs(3));
    kill_process(Pid::from_child(&second), Signal::TERM).unwrap();
    let output = second.wait_with_output().unwrap();
    drop(load);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    for part in ["repaired, ", "recorded ", "left out", "of 4.0 MiB at the most", "schedtrace info"] {
        assert!(text.contains(part), "`{part}` in {text}");
    }
    assert!(!text.contains("unaccounted") && output.stdout.is_empty(), "{text}");

    let left = traces(&folder);
    let [(_, killed), (path, newest)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&killed["state"], &newest["state"]), (&"repaired".into(), &"finished".into()));
    assert!(bytes_below(&folder) <= LIMIT, "{} bytes", bytes_below(&folder));
    for (path, _) in &left {
        assert!(json("report", path)["run_queue"]["total"]["wait"]["count"].as_u64() > Some(0));
    }
    // Every event that the kernel delivered was written, or counted as left out.
    let sum = |rows: &Value, key: &str, name: &str, count: &str| {
        let rows = rows.as_array().unwrap().iter().filter(|row| row[key] == name);
        rows.map(|row| row[count].as_u64().unwrap()).sum::<u64>()
    };
    for kind in ["sched_switch", "sched_waking", "sched_wakeup_new"] {
        let lost = sum(&newest["completeness"]["lost"], "kind", kind, "count");
        let written = sum(&newest["tables"], "name", kind, "rows");
        assert_eq!(written + lost, sum(&newest["accounts"], "kind", kind, "emitted"), "{kind}: {newest}");
    }
    let lost = sum(&newest["completeness"]["lost"], "place", "rate_limit", "count");
    assert!(lost > 0, "{newest}");
    assert_eq!(newest["completeness"]["removed"]["segments"], 0, "the oldest go first");
    let completeness = &json("report", path)["completeness"];
    assert!(
        completeness["lost_total"].as_u64() >= Some(lost) && completeness["in_loss"].as_u64() > Some(0),
        "{completeness}"
    );
}

#[test]
fn what_goes_with_continuous_is_refused_without_it() {
    for (args, told) in [
        (&["record", "--max-rate", "5", "-o", "x"][..], "--continuous"),
        (&["record", "--min-free", "5MiB", "-o", "x"], "--continuous"),
        (&["record", "--continuous"], "--output"),
        (&["record", "--continuous", "-o", "x", "--", "true"], "cannot be used with"),
    ] {
        let output = schedtrace().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(told), "{args:?}: {}", stderr(&output));
    }
}
