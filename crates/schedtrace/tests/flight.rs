//! A flight recorder on the running kernel: a spike of latency after seconds of quiet is caught, with what was before it, and
//! whoever caused it is named. Needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a module here is as public as the test is")]

#[path = "explain/answer.rs"]
#[allow(dead_code, reason = "the tests of explanations use all of it")]
mod answer;
#[path = "common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use answer::{Answer, Named, WAITS, hold};
use common::process::{Process, random_name};
use common::recording::{Recording, number};
use common::threads::{self, Threads, WORKLOAD, cpus, ms, nice, spin, tid, us};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The victim is left in peace for so long.
const QUIET: Duration = ms(2000);
/// Then it is kept from its CPU for so long.
const SPIKE: Duration = ms(60);
/// What the recorder waits for.
const LIMIT: &str = "30ms";
/// What else the machine does, or its hypervisor, may get in between: so many tries.
const TRIES: usize = 3;

/// Not a test by itself: what the tests record.
#[test]
fn a_process_under_test() {
    let Ok(told) = std::env::var(WORKLOAD) else { return };
    let words: Vec<&str> = told.split(' ').collect();
    let [victim, hog, decoy] = words[..] else { panic!("a victim, a hog and a decoy, and not {words:?}") };
    let (first, last) = (cpus()[0], *cpus().last().unwrap());
    let mut threads = Threads::default();
    threads.pinned(victim, last, || {
        let begun = Instant::now();
        while begun.elapsed() < QUIET + SPIKE + ms(500) {
            thread::sleep(us(500));
        }
    });
    threads.pinned(hog, last, || {
        thread::sleep(QUIET);
        scheduled(&["-f", "-p", "10"]);
        spin(SPIKE);
        scheduled(&["-o", "-p", "0"]);
    });
    // Busier than the hog, and not in the way.
    threads.pinned(decoy, first, || {
        nice(10);
        spin(QUIET + SPIKE);
    });
    threads.run();
}

/// Changes how the calling thread is scheduled.
fn scheduled(how: &[&str]) {
    let status = Command::new("chrt").args(how).arg(tid().to_string()).status();
    assert!(status.expect("this takes chrt").success(), "live tests need root");
}

/// `schedtrace record --flight` at work.
struct Flight {
    child: Child,
    dir: tempfile::TempDir,
}

impl Flight {
    /// Starts it, and waits until it watches.
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_schedtrace"));
        command.args(["record", "-o"]).arg(dir.path().join("flights")).args(more);
        let mut flight = Self { child: command.stderr(Stdio::piped()).spawn().unwrap(), dir };
        let begun = Instant::now();
        while !flight.has_thread("flight") {
            assert!(begun.elapsed() < Duration::from_secs(60), "no recording begins");
            assert_eq!(flight.child.try_wait().unwrap(), None, "the recorder ended: live tests need root");
            thread::sleep(ms(10));
        }
        thread::sleep(ms(100));
        flight
    }

    /// Whether it has a thread of this name.
    fn has_thread(&self, name: &str) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.into_iter().any(|comm| comm.trim() == name)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The traces that were written, finished or not.
    fn traces(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("flights")).into_iter().flatten().flatten();
        let mut traces: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        traces.sort();
        traces
    }

    /// Ends it as Ctrl-C does; what it says, and where its traces are.
    fn stop(self) -> (Output, Vec<PathBuf>, tempfile::TempDir) {
        self.signal(Signal::INT);
        let traces = self.dir.path().join("flights");
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut all: Vec<PathBuf> = std::fs::read_dir(traces).unwrap().flatten().map(|entry| entry.path()).collect();
        all.sort();
        (output, all, self.dir)
    }
}

fn info(trace: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_schedtrace")).args(["info", "--json"]).arg(trace).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One spike: what was written because of it names the hog.
fn spike() -> Result<(), String> {
    let names = [random_name(), random_name(), random_name()];
    let mut process = Process::of(threads::command(&names.join(" ")));
    let named = |name: &String| Named { name: name.clone(), tid: process.tid(name), pid: process.id() };
    let [victim, hog, decoy] = [0, 1, 2].map(|nth| named(&names[nth]));
    let trigger = format!("runqueue_latency > {LIMIT} for tid = {}", victim.tid);
    let flight = Flight::start(&["--flight", "2s", "--flight-after", "300ms", "--trigger", &trigger]);
    process.work();
    let (output, traces, dir) = flight.stop();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    drop(process);
    hold(traces.len() == 1, &format!("one trace was to be written: {traces:?}\n{text}"))?;
    assert!(text.contains("fired     1") && text.contains(traces[0].to_str().unwrap()), "{text}");

    let info = info(&traces[0]);
    let fired = &info["trigger"];
    assert_eq!(info["state"], "finished");
    assert_eq!((&fired["trigger"], &fired["tid"]), (&trigger.as_str().into(), &victim.tid.into()), "{fired}");
    let (at, length) = (number(&fired["at_ns"]), number(&fired["duration_ns"]));
    let from = number(&info["window"]["from_ns"]);
    hold(at - from > 1_200_000_000, &format!("{} ns of what was before it are there", at - from))?;
    hold(number(&info["window"]["until_ns"]) >= at + 250_000_000, "and a little of what came after it")?;

    let recording = Recording::of(traces[0].clone(), dir);
    let answer = Answer::new(&recording, victim.tid, Some((at - length, at)));
    println!("{victim:?} {hog:?} {decoy:?}\n{text}\n{}", answer.text);
    answer.explained()?;
    answer.verdict(&WAITS, Some(&hog))?;
    let report = recording.json("report", &["--by", "task", "--top", "100000"]);
    let rows = report["cpu_time"]["groups"].as_array().unwrap();
    let used = |it: &Named| rows.iter().find(|row| it.is(&row["group"])).map_or(0, |row| number(&row["cpu_time_ns"]));
    hold(used(&decoy) > used(&hog), "the decoy was to use more of the CPUs than the hog")
}

#[test]
fn live_a_spike_is_caught_with_what_was_before_it_and_its_cause_is_named() {
    let mut whys = Vec::new();
    for _ in 0..TRIES {
        match spike() {
            Ok(()) => return,
            Err(why) => whys.push(why),
        }
    }
    panic!("{}", whys.join("\n"));
}

#[test]
fn live_a_signal_asks_for_the_window_and_the_recording_goes_on() {
    let flight = Flight::start(&["--flight", "1s", "--flight-after", "50ms", "--flight-memory", "16MiB"]);
    for nth in 1..=2 {
        flight.signal(Signal::USR1);
        let begun = Instant::now();
        let finished = |trace: &PathBuf| trace.join("meta.json").exists() && info(trace)["state"] == "finished";
        while flight.traces().iter().filter(|trace| finished(trace)).count() < nth {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written");
            thread::sleep(ms(20));
        }
    }
    let (output, traces, _dir) = flight.stop();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(traces.len(), 2, "{text}");
    for trace in &traces {
        assert_eq!(info(trace)["trigger"]["what"], "sigusr1");
        assert!(trace.to_str().unwrap().ends_with("sigusr1.schedtrace"), "{}", trace.display());
    }
    assert!(text.contains("2 traces written"), "{text}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_recorded() {
    for (args, why) in [
        (&["--flight", "10s", "--trigger", "wait > 20"][..], "write a time such as 20ms"),
        (&["--trigger", "wait > 20ms"], "--flight"),
        (&["--flight", "1s", "--flight-after", "2s"], "make the window longer"),
        (&["--flight", "1s", "--flight-memory", "1KiB"], "cannot be kept"),
        (&["--flight", "1s", "--max-size", "1GiB"], "cannot be used with"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_schedtrace"));
        let output = command.args(["record", "-o"]).arg(dir.path().join("flights")).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(why), "{args:?}: {text}");
        assert!(!dir.path().join("flights").exists());
    }
}
