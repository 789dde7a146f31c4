//! Reports by name and the comparison, as a user meets them, on traces that were recorded before
//! (`tests/fixtures/README.md`).
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const NAMES: [&str; 16] = [
    "states",
    "latency",
    "depth",
    "preemptions",
    "wakers",
    "conservation",
    "fairness",
    "outliers",
    "interrupts",
    "ipis",
    "block-io",
    "futexes",
    "dispatch",
    "power",
    "syscalls",
    "system",
];

fn schedtrace(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_schedtrace")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&schedtrace(args))).unwrap()
}

/// The one line that a failure prints.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty());
    assert!(text.starts_with("schedtrace: ") && text.trim_end().lines().count() == 1, "one line: {text}");
    text
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The default events, and every event that there is.
fn traces() -> [(&'static str, String); 2] {
    [("hackbench", "fixtures/hackbench.schedtrace"), ("every-event", "every-event/events.schedtrace")]
        .map(|(name, path)| (name, tests().join(path).to_str().unwrap().to_owned()))
}

#[test]
fn each_report_reads_as_it_always_did() {
    for (of, trace) in traces() {
        let mut all = String::new();
        for name in NAMES {
            let text = stdout(&schedtrace(&["report", &trace, name, "--top", "3"]));
            let section = text.find(&format!("\n{name}\n")).unwrap_or_else(|| panic!("{name} in {text}"));
            let end = text.find("\nCompleteness\n").unwrap();
            assert!(!text.contains('\x1b'), "no colour in a pipe");
            all += &text[section..end];
        }
        let path = tests().join(format!("fixtures/reports-of-{of}.txt"));
        if std::env::var_os("SCHEDTRACE_ACCEPT").is_some() {
            fs::write(&path, &all).unwrap();
        }
        let accepted = fs::read_to_string(&path).unwrap();
        assert!(
            all == accepted,
            "of {of}: see {}, or accept with SCHEDTRACE_ACCEPT=1; now it is\n{all}",
            path.display()
        );
        // One pass over the trace gives the same.
        let text = stdout(&schedtrace(&["report", &trace, "all", "--top", "3"]));
        assert!(text.contains(&all), "{text}");
    }
}

#[test]
fn what_was_not_recorded_is_told_with_what_would_record_it() {
    let [(_, few), (_, every)] = traces();
    let text = stdout(&schedtrace(&["report", &few, "futexes", "power"]));
    for advice in ["schedtrace record --events default,futex", "schedtrace record --events default,cpu"] {
        assert!(text.contains(advice), "{text}");
    }
    assert!(!stdout(&schedtrace(&["report", &every, "all"])).contains("record --events"));
}

#[test]
fn reports_are_asked_for_by_name() {
    let [_, (_, trace)] = traces();
    let report = json(&["report", &trace, "latency", "block-io", "--json", "--by", "process", "--top", "2"]);
    let report = report.as_object().unwrap();
    let parts: Vec<_> = report.keys().map(String::as_str).collect();
    assert_eq!(parts, ["window", "events", "completeness", "latency", "block-io"]);
    let groups = report["latency"]["groups"].as_array().unwrap();
    assert!(groups.len() == 2 && groups.iter().all(|row| row["group"]["kind"] == "process"), "{groups:?}");
    assert_eq!(json(&["report", &trace, "all", "--json"]).as_object().unwrap().len(), 3 + NAMES.len());
    // In the order in which they were asked for, each once.
    let text = stdout(&schedtrace(&["report", &trace, "wakers", "depth", "wakers"]));
    assert!(text.find("\nwakers\n") < text.find("\ndepth\n") && text.matches("\nwakers\n").count() == 1, "{text}");
    let part = json(&["report", &trace, "latency", "--from", "1s", "--to", "2s", "--json"]);
    assert_eq!(part["window"]["duration_ns"], 1_000_000_000);
}

#[test]
fn help_lists_the_reports_and_a_wrong_name_is_a_usage_error() {
    let [(_, trace), _] = traces();
    let help = stdout(&schedtrace(&["report", &trace, "help"]));
    assert_eq!(help, stdout(&schedtrace(&["report", "help"])), "without a trace, too");
    assert!(NAMES.iter().all(|name| help.contains(&format!("\n  {name} "))) && help.contains("default,irq"), "{help}");
    let wrong = schedtrace(&["report", &trace, "latencies"]);
    assert_eq!(wrong.status.code(), Some(2));
    let text = String::from_utf8_lossy(&wrong.stderr);
    assert!(text.contains("no report is called `latencies`: use one of states, latency, depth"), "{text}");
}

#[test]
fn a_trace_does_not_differ_from_itself() {
    for (_, trace) in traces() {
        let comparison = json(&["diff", &trace, &trace, "--json"]);
        assert_eq!(comparison["window_a"], comparison["window_b"]);
        for metric in comparison["metrics"].as_array().unwrap() {
            let verdict = metric["verdict"].as_str().unwrap();
            let claims = ["better", "worse", "higher", "lower"].contains(&verdict);
            assert!(!claims && metric["a"] == metric["b"], "{metric}");
        }
        for names in ["tasks_grew", "tasks_shrank"] {
            assert!(comparison[names].as_array().unwrap().is_empty(), "{names}");
        }
        let text = stdout(&schedtrace(&["diff", &trace, &trace]));
        for part in ["No difference is shown", "wait_p99_ns", "With a confidence of 99 %", "Completeness"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn two_windows_of_a_trace_are_compared() {
    let [_, (_, trace)] = traces();
    let windows = ["diff", &trace, "--a", "0s..1.5s", "--b", "4s..5.5s"];
    let comparison = json(&[&windows[..], &["--json"]].concat());
    let ns = |side: &str, end: &str| comparison[side][end].as_u64().unwrap();
    assert_eq!((ns("window_a", "duration_ns"), ns("window_b", "duration_ns")), (1_500_000_000, 1_500_000_000));
    assert_eq!(ns("window_b", "from_ns") - ns("window_a", "from_ns"), 4_000_000_000);
    assert!(!comparison["tasks_grew"].as_array().unwrap().is_empty());
    let text = stdout(&schedtrace(&windows));
    assert!(text.contains("Tasks that waited longer in B") && text.contains("+4.000000s"), "{text}");
    // The same two, of a trace given twice.
    let twice = json(&["diff", &trace, &trace, "--a", "..1.5s", "--b", "4s..5.5s", "--json"]);
    assert_eq!(twice, comparison);
}

#[test]
fn windows_that_cannot_be_compared_are_refused_with_the_reason() {
    let [(_, trace), _] = traces();
    for (args, why) in [
        (&[][..], "--a 0s..5s --b 5s..10s"),
        (&["--a", "0s..1s"], "give a second trace"),
        (&["--a", "0s..1s", "--b", "1h.."], "the beginning of --b leaves nothing of the recording"),
        (&["--a", "..0s", "--b", "1s.."], "the end of --a leaves nothing"),
        (&["--a", "2ms..1ms", "--b", "1s.."], "the end of --a must be later"),
        (&["no/such"], "no such directory"),
    ] {
        let line = complaint(&schedtrace(&[&["diff", &trace], args].concat()));
        assert!(line.contains(why), "{args:?}: {line}");
    }
    let wrong = schedtrace(&["diff", &trace, "--a", "1s", "--b", "2s.."]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("two dots"));
}
