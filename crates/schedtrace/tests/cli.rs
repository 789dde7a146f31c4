//! The command as a user meets it: what it prints, what it refuses, and how it ends. Needs no privileges: the trace is
//! one that was recorded before (`tests/fixtures/README.md`).
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn schedtrace(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_schedtrace")).args(args).output().unwrap()
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hackbench.schedtrace")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&schedtrace(args))).unwrap()
}

/// The one line that a failure prints.
fn complaint(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty());
    assert!(text.starts_with("schedtrace: ") && text.trim_end().lines().count() == 1, "one line: {text}");
    text
}

/// One with every event that there is.
fn every_event() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/every-event/events.schedtrace")
}

/// Lines of a trace's CSV, as far as they meet conditions: the event's name, who it is about, and its other fields.
fn exported(trace: &Path, conditions: Option<&str>) -> Vec<(String, String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.csv");
    let (trace, path) = (trace.to_str().unwrap(), file.to_str().unwrap());
    let mut args = vec!["export", trace, "--to", "csv", "-o", path];
    args.extend(conditions.into_iter().flat_map(|conditions| ["--where", conditions]));
    stdout(&schedtrace(&args));
    let text = fs::read_to_string(&file).unwrap();
    let line = |line: &str| {
        let columns: Vec<_> = line.split(',').collect();
        (columns[2].to_owned(), columns[5].to_owned(), columns[14].to_owned())
    };
    text.lines().skip(1).map(line).collect()
}

#[test]
fn every_kind_of_event_is_read_back_from_a_recording() {
    let trace = every_event();
    let lines = exported(&trace, None);
    let info = json(&["info", "--json", trace.to_str().unwrap()]);
    let mut kinds = 0;
    for table in info["tables"].as_array().unwrap() {
        let (name, rows) = (table["name"].as_str().unwrap(), table["rows"].as_u64().unwrap());
        if ["tasks", "cgroups", "loss", "snapshot", "task_lifecycle"].contains(&name) {
            continue;
        }
        assert_eq!(lines.iter().filter(|line| line.0 == name).count() as u64, rows, "{name}");
        kinds += u64::from(rows > 0);
    }
    assert!(kinds >= 35, "{kinds}");
    // Names read as they did on that machine.
    for (event, details) in [
        ("softirq_entry", "vector=TIMER"),
        ("irq_handler_entry", "action=virtio0-requests"),
        ("workqueue_execute_start", "function=vmstat_update"),
        ("ipi_entry", "ipi=reschedule"),
        ("scx_load", "scheduler=two_queues"),
        ("scx_dsq_insert", "dsq_id=0x7 slice_ns=5000000 vtime=0"),
        ("sched_cpu_perf_set", "performance=512"),
        ("net_dev", "metric=lo.rx_bytes"),
    ] {
        let found = lines.iter().any(|line| line.0 == event && line.2.contains(details));
        assert!(found, "{event} with {details}: {:?}", lines.iter().find(|line| line.0 == event));
    }
    // A report looks at those that it knows.
    let report = json(&["report", trace.to_str().unwrap(), "--json"]);
    assert_eq!(report["events"]["scx_dispatch"], 2185);
    assert!(report["run_queue"]["total"]["wait"]["count"].as_u64() > Some(1000), "{}", report["run_queue"]["total"]);
}

#[test]
fn conditions_choose_events() {
    let trace = every_event();
    let number = |line: &str, name: &str| -> u64 {
        let value = line.split(' ').find_map(|field| field.strip_prefix(name)).unwrap();
        value.trim_start_matches('=').parse().unwrap()
    };
    let all = exported(&trace, None);
    let late = exported(&trace, Some("dsq_lat_us > 1000 and dsq_id = 7"));
    let expected = all.iter().filter(|line| {
        let of_seven = line.0 == "scx_dispatch" && line.2.contains("dsq_id=0x7 ");
        of_seven && number(&line.2, "latency_ns") > 1_000_000
    });
    assert!(!late.is_empty() && late.iter().eq(expected), "{}", late.len());
    let irq = exported(&trace, Some("group = irq and event != softirq"));
    assert!(
        !irq.is_empty()
            && irq
                .iter()
                .all(|line| line.0.starts_with("irq") || line.0.starts_with("ipi") || line.0 == "softirq_raise")
    );
    let mine = exported(&trace, Some("comm = schedtrace"));
    assert!(mine.iter().any(|line| line.1 == "schedtrace" && line.0 == "futex_wait"));
    let wrong = schedtrace(&["export", trace.to_str().unwrap(), "--to", "csv", "--where", "speed > 3"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no event there has a field `speed`"));
}

/// A copy of the fixture that a test may spoil.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("copy.schedtrace");
    let status = Command::new("cp").arg("-r").arg(fixture()).arg(&trace).status().unwrap();
    assert!(status.success());
    (dir, trace)
}

#[test]
fn a_recorded_trace_gives_the_report_it_always_gave() {
    for by in ["task", "process", "cgroup", "cpu", "llc"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/report-by-{by}.json"));
        let report = json(&["report", fixture().to_str().unwrap(), "--by", by, "--top", "5", "--json"]);
        if std::env::var_os("SCHEDTRACE_ACCEPT").is_some() {
            fs::write(&path, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
        }
        let accepted: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(report == accepted, "by {by}: see {}, or accept with SCHEDTRACE_ACCEPT=1", path.display());
    }
}

#[test]
fn the_report_for_people_says_why_and_behind_whom() {
    let text = stdout(&schedtrace(&["report", fixture().to_str().unwrap()]));
    for part in ["Why tasks waited for a CPU", "The longest waits", "The CPUs", "Who woke whom", "Completeness"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains("hackbench"), "{text}");
    assert!(!text.contains('\x1b'), "no colour in a pipe");
}

#[test]
fn a_part_of_the_trace_can_be_asked_for() {
    let trace = fixture();
    let trace = trace.to_str().unwrap();
    let whole = json(&["report", trace, "--json"]);
    let part = json(&["report", trace, "--from", "0.05s", "--to", "0.1s", "--json"]);
    let ns = |report: &Value, name: &str| report["window"][name].as_u64().unwrap();
    assert_eq!(ns(&part, "duration_ns"), 50_000_000);
    assert_eq!(ns(&part, "from_ns"), ns(&whole, "from_ns") + 50_000_000);
    let waits = |report: &Value| report["run_queue"]["total"]["wait"]["count"].as_u64().unwrap();
    assert!(waits(&part) > 0 && waits(&part) < waits(&whole));
    let wrong = schedtrace(&["report", trace, "--from", "0.1s", "--to", "0.05s"]);
    assert!(complaint(&wrong, 1).contains("--to must be later"));
}

#[test]
fn info_tells_rows_and_bytes_of_each_table() {
    let trace = fixture();
    let info = json(&["info", trace.to_str().unwrap(), "--json"]);
    let tables = info["tables"].as_array().unwrap();
    let switches = tables.iter().find(|table| table["name"] == "sched_switch").unwrap();
    assert!(switches["rows"].as_u64().unwrap() > 100 && switches["bytes"].as_u64().unwrap() > 100);
    assert_eq!(info["state"], "finished");
    assert_eq!(info["completeness"]["complete"], true);
    let text = stdout(&schedtrace(&["info", trace.to_str().unwrap()]));
    assert!(text.contains("sched_switch") && text.contains("nothing lost"), "{text}");
}

#[test]
fn what_is_no_trace_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let file = dir.path().join("file");
    fs::write(&file, "not a trace").unwrap();
    for path in [dir.path(), &missing, &file] {
        for what in ["report", "info"] {
            let line = complaint(&schedtrace(&[what, path.to_str().unwrap()]), 1);
            assert!(line.contains(path.to_str().unwrap()), "{line}");
        }
    }
}

#[test]
fn a_newer_trace_asks_for_an_update() {
    let (_dir, trace) = copy();
    let meta = trace.join("meta.json");
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&meta).unwrap()).unwrap();
    value["schema"] = 99.into();
    fs::write(&meta, value.to_string()).unwrap();
    let line = complaint(&schedtrace(&["report", trace.to_str().unwrap()]), 1);
    assert!(line.contains("newer") && line.contains("update"), "{line}");
}

#[test]
fn text_from_a_trace_cannot_drive_the_terminal() {
    let (_dir, trace) = copy();
    let meta = trace.join("meta.json");
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&meta).unwrap()).unwrap();
    value["meta"]["host"]["hostname"] = "\x1b[2Jevil".into();
    fs::write(&meta, value.to_string()).unwrap();
    for what in ["report", "info"] {
        let text = stdout(&schedtrace(&[what, trace.to_str().unwrap()]));
        assert!(text.contains("?[2Jevil") && !text.contains('\x1b'), "{text}");
    }
}

#[test]
fn a_truncated_table_is_named() {
    let (_dir, trace) = copy();
    let table = fs::read_dir(trace.join("events/sched_switch")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&table).unwrap();
    fs::write(&table, &bytes[..bytes.len() / 2]).unwrap();
    let line = complaint(&schedtrace(&["report", trace.to_str().unwrap()]), 1);
    assert!(line.contains("sched_switch") && line.contains("damaged"), "{line}");
}

#[test]
fn what_cannot_be_done_is_one_line_that_says_why() {
    let (fixture, folder) = (fixture(), tempfile::tempdir().unwrap());
    let (trace, missing) = (fixture.to_str().unwrap(), folder.path().join("no/such"));
    let missing = missing.to_str().unwrap();
    for (args, why) in [
        (&["report", trace, "--from", "1h"][..], "--from leaves nothing"),
        (&["report", trace, "--to", "0s"], "--to leaves nothing"),
        (&["report", trace, "--from", "2ms", "--to", "1ms"], "--to must be later"),
        (&["report", missing], "no such directory"),
        (&["info", missing], "no such directory"),
        (&["repair", missing], "no such directory"),
        (&["export", trace, "--to", "csv", "-o", missing], "cannot create"),
        (&["man", missing], "cannot write the manual pages"),
        (&["mcp", "--trace", missing], "cannot read"),
    ] {
        let line = complaint(&schedtrace(args), 1);
        assert!(line.contains(why), "{args:?}: {line}");
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let commands = ["record", "top", "doctor", "report", "info", "export", "repair", "mcp"];
    let commands = commands.into_iter().filter(|name| cfg!(feature = "live") || !["record", "doctor"].contains(name));
    let folder = tempfile::tempdir().unwrap();
    stdout(&schedtrace(&["man", folder.path().to_str().unwrap()]));
    let bash = stdout(&schedtrace(&["completions", "bash"]));
    for command in commands {
        assert!(bash.contains(&format!("schedtrace,{command})")), "{command}");
        let page = fs::read_to_string(folder.path().join(format!("schedtrace-{command}.1"))).unwrap();
        assert!(page.contains(".SH DESCRIPTION"), "{page}");
    }
    for shell in ["zsh", "fish"] {
        assert!(stdout(&schedtrace(&["completions", shell])).contains("max-size"), "{shell}");
    }
    assert_eq!(schedtrace(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn wrong_arguments_are_a_usage_error_with_advice() {
    for (args, advice) in [
        (vec!["report"], "DIR"),
        (vec!["report", "x", "--by", "colour"], "task, process"),
        (vec!["report", "x", "--from", "yesterday"], "1.5s"),
        (vec!["record", "-d", "soon"], "5s"),
        (vec!["record", "--events", "sched_nonsense"], "--events help"),
        (vec!["record", "--shards", "many"], "per-llc"),
        (vec!["record", "--cpu", "3-1"], "1-3"),
        (vec!["record", "--max-size", "large"], "max-size"),
        (vec!["dance"], "dance"),
    ] {
        let output = schedtrace(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(advice), "{args:?}: {text}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_schedtrace"))
        .args(["report", fixture().to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_trace_is_exported_once() {
    let dir = tempfile::tempdir().unwrap();
    for (to, extension) in [("perfetto", "pftrace"), ("csv", "csv")] {
        let export = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_schedtrace"));
            command.current_dir(dir.path()).arg("export").arg(fixture()).args(["--to", to]).args(more).output().unwrap()
        };
        let file = dir.path().join("hackbench").with_extension(extension);
        assert!(stdout(&export(&[])).is_empty());
        let written = fs::read(&file).unwrap();
        assert!(!written.is_empty());
        fs::write(&file, "mine").unwrap();
        assert!(complaint(&export(&[]), 1).contains("--force"), "what is there stays");
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        assert!(stdout(&export(&["--force"])).is_empty());
        assert_eq!(fs::read(&file).unwrap(), written, "the same every time");
    }
    let lines = fs::read_to_string(dir.path().join("hackbench.csv")).unwrap();
    let info = json(&["info", fixture().to_str().unwrap(), "--json"]);
    let events = info["completeness"]["events"].as_u64().unwrap();
    let tables = info["tables"].as_array().unwrap();
    let seen_at_start = tables.iter().find(|table| table["name"] == "snapshot").unwrap()["rows"].as_u64().unwrap();
    assert!(seen_at_start > 0);
    // A heading, and no line for those that were seen at the start, which the kernel did not do.
    assert_eq!(lines.lines().count() as u64, 1 + events - seen_at_start);
}
