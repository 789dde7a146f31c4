//! However a process that records comes to its end, the kernel is left without a program, map or link of it. Needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "live")]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use schedtrace_core::{Batch, Kind, OnFull, Pipeline, Poll, Source};
use support::InKernel;

const HOW: &str = "SCHEDTRACE_TEST_END";

/// Not a test by itself: the process that records and comes to its end.
#[test]
fn child_that_ends() {
    let Ok(how) = std::env::var(HOW) else { return };
    // With every program that there is.
    let all = Kind::selectable();
    let mut collector = support::collector().events_where_possible(all).start().unwrap();
    let first = collector.poll(Instant::now() + Duration::from_secs(5)).unwrap();
    assert!(matches!(first, Poll::Batch(_)));
    println!("recording");
    match how.as_str() {
        "a panic" => panic!("while the collector records"),
        "an abort" => std::process::abort(),
        "an exit" => std::process::exit(7),
        "a panic in a thread" => {
            let stopper = collector.stopper();
            let recording = thread::spawn(move || {
                let _collector = collector;
                panic!("and the collector goes with it");
            });
            assert!(recording.join().is_err());
            stopper.stop();
        }
        "a panic in a sink" => {
            let mut sink = |_: &Batch| panic!("it had enough");
            let summary = Pipeline::new().sink("bad", OnFull::Block, &mut sink).run(&mut collector).unwrap();
            assert!(summary.into_result().unwrap_err().to_string().contains("it panicked: it had enough"));
        }
        // The parent sends a signal.
        _ => while collector.poll(Instant::now() + Duration::from_secs(1)).is_ok() {},
    }
}

fn child(how: &str) -> Child {
    // Whoever runs the tests may have had signals ignored, as a shell does for what it puts into the background.
    let mut child = Command::new("env")
        .arg("--default-signal")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_ends", "--nocapture", "--test-threads=1"])
        .env(HOW, how)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let recording = lines.any(|line| line.is_ok_and(|line| line.ends_with("recording")));
    assert!(recording, "live tests need root: run `make test` as root");
    // It may still have something to say.
    thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn live_nothing_is_left_in_the_kernel_however_it_ends() {
    let before = InKernel::now();
    let signals = [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL, Signal::QUIT].map(Some);
    let panics = ["a panic", "an abort", "an exit", "a panic in a thread", "a panic in a sink"];
    let ends = signals.map(|signal| ("a signal", signal)).into_iter().chain(panics.map(|how| (how, None)));
    for (how, signal) in ends {
        let mut child = child(how);
        if let Some(signal) = signal {
            let during = before.new_since();
            assert!(during.iter().all(|new| *new > 0), "its programs, maps and links: {during:?}");
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        let status = child.wait().unwrap();
        assert_eq!(status.signal().is_some(), signal.is_some() || how == "an abort", "{how}: {status}");
        before.assert_nothing_new_remains(&format!("{how} {signal:?}"));
    }
}
