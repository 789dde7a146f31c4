//! Recordings that go on by themselves, with others that look on. Needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "live", feature = "trace"))]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use schedtrace_core::live::Collector;
use schedtrace_core::trace::{TraceReader, WriterOptions};
use schedtrace_core::{Batch, Error, LossPlace, OnFull, Poll, Recorder, RecorderBuilder, Source};

fn builder(trace: &std::path::Path) -> RecorderBuilder {
    Recorder::builder(Collector::builder().pid(std::process::id()), trace, WriterOptions::default())
}

/// Sleeps and wakes, so that there are events.
fn work() {
    (0..200).for_each(|_| thread::sleep(Duration::from_micros(100)));
}

fn read(trace: &std::path::Path) -> (u64, u64) {
    let mut reader = TraceReader::open(trace).unwrap();
    let (mut events, mut left_out) = (0, 0);
    loop {
        match reader.poll(Instant::now() + Duration::from_secs(1)).unwrap() {
            Poll::Batch(batch) => {
                events += (batch.events.len() + batch.late.len()) as u64;
                let limited = batch.lost.iter().filter(|loss| loss.place == LossPlace::RateLimit);
                left_out += limited.map(|loss| loss.count).sum::<u64>();
            }
            Poll::Idle => {}
            Poll::End => return (events, left_out),
        }
    }
}

#[test]
fn live_all_sinks_of_a_recording_see_the_same_stream() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("a.schedtrace");
    let (first, second) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let count = |seen: &Arc<AtomicU64>| {
        let seen = Arc::clone(seen);
        move |batch: &Batch| {
            seen.fetch_add((batch.events.len() + batch.late.len()) as u64, Ordering::Relaxed);
        }
    };
    let builder = builder(&trace).sink("first", OnFull::Block, count(&first));
    let recorder = builder.sink("second", OnFull::Block, count(&second)).start().unwrap();
    work();
    let summary = recorder.stop().unwrap();
    let events = summary.total_events();
    assert!(events > 200, "{events}");
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (events, events));
    assert_eq!(read(&trace), (events, 0));
    assert_eq!(Arc::strong_count(&first), 1, "a recording that is over lets go of its sinks");
}

#[test]
fn live_a_limit_on_events_is_the_trace_s_alone_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("a.schedtrace");
    let seen = Arc::<Mutex<u64>>::default();
    let count = {
        let seen = Arc::clone(&seen);
        move |batch: &Batch| *seen.lock().unwrap() += (batch.events.len() + batch.late.len()) as u64
    };
    let recorder = builder(&trace).events_per_second(20).sink("all", OnFull::Block, count).start().unwrap();
    work();
    let counts = recorder.written();
    let events = recorder.stop().unwrap().total_events();
    assert_eq!(*seen.lock().unwrap(), events);
    let (written, left_out) = read(&trace);
    assert_eq!((counts.events(), counts.lost()), (written, left_out), "what is counted is what the trace has");
    assert!(left_out > 0 && written < events, "{written} of {events}, {left_out} left out");
    assert_eq!(written + left_out, events);
}

#[test]
fn live_a_sink_that_cannot_be_named_so_begins_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["trace", ""] {
        let trace = folder.path().join(format!("{name}.schedtrace"));
        let told = builder(&trace).sink(name, OnFull::Block, |_: &Batch| ()).start().unwrap_err();
        assert!(matches!(told, Error::Invalid(_)), "{told}");
        assert!(!trace.exists(), "nothing is left behind");
    }
}

#[test]
fn live_a_trace_that_cannot_be_written_ends_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("a.schedtrace");
    let recorder = builder(&trace).sink("view", OnFull::DropNewest, |_: &Batch| ()).start().unwrap();
    // As when the disk is full: what is to be written next fails.
    std::fs::remove_dir_all(&trace).unwrap();
    let begun = Instant::now();
    while !recorder.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it goes on, and nothing is written");
        work();
    }
    let why = recorder.stop().unwrap_err().to_string();
    assert!(why.contains("trace"), "{why}");
}
