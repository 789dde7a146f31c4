//! `schedtrace record` on the running kernel, as root; and what it says where it cannot record.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

const NOBODY: u32 = 65_534;

fn schedtrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_schedtrace"))
}

/// Runs `record -o DIR ...` in a folder of its own.
fn record(args: &[&str]) -> (tempfile::TempDir, PathBuf, Output) {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("run.schedtrace");
    let output = schedtrace().args(["record", "-o"]).arg(&trace).args(args).output().unwrap();
    (dir, trace, output)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(what: &str, trace: &Path, more: &[&str]) -> Value {
    let output = schedtrace().arg(what).arg(trace).arg("--json").args(more).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn live_a_command_is_recorded_from_its_start_to_its_end() {
    let (_dir, trace, output) = record(&["--", "/bin/sh", "-c", "echo out; sleep 0.05; exit 7"]);
    assert_eq!(output.status.code(), Some(7), "the command's status: {}", stderr(&output));
    assert_eq!(output.stdout, b"out\n", "stdout is the command's");
    let text = stderr(&output);
    for part in ["recorded ", "events ", "lost      nothing", "bytes per event", "of CPU time", "schedtrace report"] {
        assert!(text.contains(part), "`{part}` in {text}");
    }
    assert!(!text.contains("unaccounted"), "{text}");
    let report = json("report", &trace, &["--by", "process", "--top", "1000"]);
    assert_eq!(report["completeness"]["lost_total"], 0);
    let meta: Value = serde_json::from_slice(&fs::read(trace.join("meta.json")).unwrap()).unwrap();
    let recorder = &meta["meta"]["recorder_pid"];
    assert!(recorder.is_u64());
    let has = |report: &Value, field: &str, value: &Value| {
        report["switches"]["groups"].as_array().unwrap().iter().any(|row| row["group"][field] == *value)
    };
    assert!(has(&report, "comm", &"sleep".into()) && !has(&report, "pid", recorder), "the recorder is left out");
    let all = json("report", &trace, &["--by", "process", "--top", "1000", "--include-recorder"]);
    assert!(has(&all, "pid", recorder), "unless asked for");
}

#[test]
fn live_a_command_that_is_killed_gives_the_status_of_a_shell() {
    let (_dir, _, output) = record(&["--", "/bin/sh", "-c", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(128 + 9), "{}", stderr(&output));
}

#[test]
fn live_the_time_and_signals_end_a_recording_in_good_order() {
    let (_dir, trace, output) = record(&["-d", "200ms"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(json("info", &trace, &[])["state"], "finished");

    for signal in ["INT", "TERM", "HUP"] {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("run.schedtrace");
        let child = schedtrace().args(["record", "-o"]).arg(&trace).stderr(Stdio::piped()).spawn().unwrap();
        // It writes the trace's description once it records.
        while !trace.join("meta.json").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(100));
        let killed = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{signal}: {}", stderr(&output));
        assert_eq!(json("info", &trace, &[])["state"], "finished", "{signal}");
    }
}

#[test]
fn live_limits_keep_a_trace_small() {
    let (_dir, trace, output) = record(&["--max-size", "1MiB", "--", "hackbench", "-p", "-g", "4", "-l", "2000"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let info = json("info", &trace, &[]);
    assert!(info["bytes"].as_u64().unwrap() <= 1 << 20, "{info}");
    assert!(info["completeness"]["removed"]["rows"].as_u64().unwrap() > 0, "{info}");
    assert_eq!(json("report", &trace, &[])["run_queue"]["total"]["wait"]["count"].as_u64().map(|n| n > 0), Some(true));
}

#[test]
fn live_only_what_was_asked_for_is_recorded() {
    let (_dir, trace, output) = record(&["--events", "sched_switch", "--cpu", "0", "-d", "100ms"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let info = json("info", &trace, &[]);
    let rows = |name: &str| {
        let tables = info["tables"].as_array().unwrap();
        tables.iter().find(|table| table["name"] == name).map_or(0, |table| table["rows"].as_u64().unwrap())
    };
    assert!(rows("sched_switch") > 0);
    assert_eq!(rows("sched_waking"), 0);
    let report = json("report", &trace, &[]);
    assert_eq!(report["completeness"]["filtered"], true);
}

/// Runs `record` with these arguments; it must fail with this status and one line, and leave no folder behind.
fn refused(args: &[&str], code: i32) -> String {
    let (_dir, trace, output) = record(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(text.starts_with("schedtrace: ") && text.trim_end().lines().count() == 1, "one line: {text}");
    assert!(!trace.exists(), "{args:?} left {} behind", trace.display());
    text
}

#[test]
fn live_what_cannot_be_recorded_is_refused_in_a_line() {
    assert!(refused(&["--pid", "4194303", "-d", "1s"], 1).contains("no process has the id 4194303"));
    assert!(refused(&["--cgroup", "/no/such", "-d", "1s"], 1).contains("/no/such"));
    assert!(refused(&["--cpu", "60000", "-d", "1s"], 1).contains("CPU 60000 is not online"));
    assert!(refused(&["--ring-mb", "0", "-d", "1s"], 1).contains("give the rings at least"));
    assert!(refused(&["--events", "identity", "-d", "1s"], 1).contains("not an event that can be selected"));
    assert!(refused(&["--", "no-such-command-anywhere"], 127).contains("no-such-command-anywhere"));
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert!(refused(&["--", plain.to_str().unwrap()], 126).contains("not executable"));
}

#[test]
fn live_a_folder_that_exists_or_cannot_be_made_is_refused() {
    let (_dir, trace, output) = record(&["-d", "50ms"]);
    assert!(output.status.success());
    let before = json("info", &trace, &[]);
    let again = schedtrace().args(["record", "-d", "1s", "-o"]).arg(&trace).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("-o"), "{}", stderr(&again));
    assert_eq!(json("info", &trace, &[]), before, "the old trace is as it was");
    let nowhere = schedtrace().args(["record", "-d", "1s", "-o", "/proc/run.schedtrace"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("/proc/run.schedtrace"), "{}", stderr(&nowhere));
}

#[test]
fn live_a_full_disk_ends_the_recording_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    // A file system of 300 KiB in a mount namespace of its own, and an hour to fill it.
    let script = r#"
        mount -t tmpfs -o size=300k none "$1" || exit 99
        hackbench -p -g 4 -l 100000 >/dev/null & load=$!
        "$0" record -d 1h -o "$1/run.schedtrace"; code=$?
        kill $load
        exit $code"#;
    let output = Command::new("timeout")
        .args(["60", "unshare", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_schedtrace")])
        .arg(dir.path())
        .output()
        .unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("No space left on device") && text.contains("run.schedtrace"), "{text}");
}

#[test]
fn live_without_privileges_it_says_which_are_needed() {
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("schedtrace");
    fs::copy(env!("CARGO_BIN_EXE_schedtrace"), &binary).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let run = |args: &[&str]| Command::new(&binary).args(args).current_dir(dir.path()).uid(NOBODY).output().unwrap();
    let output = run(&["record", "-d", "1s", "-o", "run.schedtrace"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("CAP_BPF") && text.contains("sudo") && text.trim_end().lines().count() == 1, "{text}");
    assert!(!dir.path().join("run.schedtrace").exists());
}

#[test]
fn live_without_btf_it_says_what_the_kernel_needs() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" record -d 1s -o \"$1\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_schedtrace")])
        .arg(dir.path().join("run.schedtrace"))
        .output()
        .unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("CONFIG_DEBUG_INFO_BTF=y") && text.trim_end().lines().count() == 1, "{text}");
}
