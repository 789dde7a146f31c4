//! What is written, and what not.

use super::*;
use crate::flight::{FlightOptions, FlightRecorder, FlightStatus};
use crate::source::Probe;
use crate::system::ClockSnapshot;
use crate::trace::{TraceReader, TraceState};

fn hang(ts: u64) -> Event {
    Event { ts: Nanos(ts), cpu: Cpu(0), kind: crate::event::Hang { task: TaskId(1) }.into() }
}

fn batch(until: u64, events: Vec<Event>) -> Batch {
    Batch { until: Nanos(until), events, ..Batch::default() }
}

/// A setting in which such events are recorded.
fn setting() -> Meta {
    let probe = Probe { kind: Kind::Hang, on: true, why: None };
    Meta { started: Nanos(1), probes: vec![probe], ..Meta::default() }
}

fn flight_options() -> FlightOptions {
    FlightOptions {
        window: Duration::from_nanos(1_000),
        after: Some(Duration::from_nanos(100)),
        memory_bytes: 1 << 20,
        ..FlightOptions::default()
    }
}

/// Waits until nothing is being written, so that a test does not depend on how fast that goes.
fn settle(recorder: &mut FlightRecorder) {
    recorder.collect(true);
}

/// Feeds it batch by batch, and waits for what each has written.
fn fly(options: FlightOptions, batches: &[Batch]) -> (tempfile::TempDir, FlightStatus) {
    let folder = tempfile::tempdir().unwrap();
    let trigger = "event = sched_hang".parse().unwrap();
    let mut recorder = FlightRecorder::create(folder.path(), options, [trigger]).unwrap();
    let clocks = ClockSnapshot { realtime_ns: Nanos(1_798_761_600_000_000_000), ..ClockSnapshot::default() };
    let meta = Meta { clocks: vec![clocks], ..setting() };
    recorder.begin(&meta).unwrap();
    for batch in batches {
        recorder.batch(batch).unwrap();
        settle(&mut recorder);
    }
    recorder.finish(&meta).unwrap();
    (folder, recorder.handle().status())
}

fn times(path: &std::path::Path) -> Vec<u64> {
    events(&mut TraceReader::open(path).unwrap()).iter().map(|event| event.ts.0).collect()
}

#[test]
fn what_was_before_and_a_little_of_what_comes_after_is_written() {
    let quiet = |ts: u64| switch(ts, 0, 1, TaskState::RUNNING, 2);
    let (_folder, status) = fly(
        flight_options(),
        &[
            batch(10, vec![quiet(5)]),
            batch(2_000, vec![quiet(1_990)]),
            batch(2_100, vec![hang(2_050)]),
            batch(2_150, vec![quiet(2_120)]),
            batch(2_210, vec![quiet(2_205)]),
            batch(2_400, vec![quiet(2_300)]),
        ],
    );
    assert_eq!((status.fired, status.suppressed, status.dumps.len()), (1, 0, 1), "{status:?}");
    let dump = &status.dumps[0];
    assert_eq!(times(&dump.path), [1_990, 2_050, 2_120, 2_205], "5 is too old, and 2300 comes too late");
    assert_eq!(dump.path.file_name().unwrap(), "20270101T000000.000Z-event.schedtrace");
    let trace = TraceReader::open(&dump.path).unwrap();
    let (info, meta) = (trace.info().unwrap(), trace.meta());
    assert_eq!((info.state, info.window.from_ns), (TraceState::Finished, Nanos(1_210)));
    assert_eq!(info.trigger, meta.trigger);
    let fired = meta.trigger.as_ref().unwrap();
    assert_eq!((fired.trigger.as_deref(), fired.at_ns), (Some("event = sched_hang"), Nanos(2_050)));
}

#[test]
fn there_are_not_too_many_and_what_is_passed_over_is_counted() {
    let options = FlightOptions { max_dumps: 2, cool_down: Some(Duration::from_nanos(500)), ..flight_options() };
    let all: Vec<Batch> = (0..30).map(|n| batch(n * 100 + 50, vec![hang(n * 100 + 10)])).collect();
    let (folder, status) = fly(options, &all);
    assert_eq!((status.fired, status.dumps.len(), status.suppressed), (30, 2, 28), "{status:?}");
    assert!(status.dumps[1].fired.at_ns >= status.dumps[0].fired.at_ns + Nanos(500));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_fired_last_is_written_at_the_end() {
    let (_folder, status) = fly(flight_options(), &[batch(60, vec![hang(50)])]);
    assert_eq!(status.dumps.len(), 1);
    assert_eq!(times(&status.dumps[0].path), [50]);
}

#[test]
fn whoever_asks_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = FlightOptions { max_dumps: 2, ..flight_options() };
    let mut recorder = FlightRecorder::create(folder.path(), options, []).unwrap();
    let handle = recorder.handle();
    recorder.begin(&setting()).unwrap();
    for n in 1..4_u64 {
        assert!(handle.dump("a/b"));
        assert!(!handle.dump("again"), "one at a time");
        recorder.batch(&batch(n * 1_000, vec![hang(n * 1_000 - 5)])).unwrap();
        recorder.batch(&batch(n * 1_000 + 200, vec![])).unwrap();
        settle(&mut recorder);
    }
    recorder.finish(&Meta::default()).unwrap();
    assert!(!handle.dump("too late"));
    let status = handle.status();
    assert_eq!((status.dumps.len(), status.suppressed), (2, 5), "{status:?}");
    assert_eq!(status.dumps[0].fired.to_string(), "a/b");
    assert_eq!(status.dumps[0].path.parent(), Some(folder.path()));
}

#[test]
fn a_trace_that_cannot_be_written_is_an_error_at_the_end_and_the_stream_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("flights");
    let mut recorder = FlightRecorder::create(&inside, flight_options(), []).unwrap();
    std::fs::remove_dir(&inside).unwrap();
    let handle = recorder.handle();
    recorder.begin(&setting()).unwrap();
    assert!(handle.dump("why"));
    for n in 1..5 {
        recorder.batch(&batch(n * 1_000, vec![hang(n * 1_000 - 5)])).unwrap();
        settle(&mut recorder);
    }
    assert_eq!(handle.status().failed.map(|(_, times)| times), Some(1));
    assert!(recorder.finish(&Meta::default()).unwrap_err().to_string().contains("cannot create"));
}

#[test]
fn memory_is_bounded_while_it_is_written() {
    let options = WindowOptions { duration: Duration::from_secs(1), max_bytes: 128 << 10 };
    let window = crate::flight::Window::new(options).unwrap();
    let mut sink = window.clone();
    sink.begin(&Meta { started: Nanos(1), ..Meta::default() }).unwrap();
    let mut n = 0;
    let mut feed = |times: u64| {
        for _ in 0..times {
            let events = (0..100).map(|i| switch(n * 1_000 + i, 0, 1, TaskState::RUNNING, 2)).collect();
            sink.batch(&batch((n + 1) * 1_000, events)).unwrap();
            n += 1;
            let covers = window.covers();
            assert!(covers.bytes + window.lent_bytes() <= (128 << 10) * 3 / 2, "{covers:?}");
            assert!(covers.bytes <= 128 << 10);
        }
    };
    feed(200);
    let full = window.covers().events;
    let mut lent = window.lend();
    // Nothing is given back: the window goes on in half of the room.
    feed(200);
    assert!(window.lent_bytes() > 100 << 10, "all of it is out of the window");
    assert!(window.covers().events > full / 3, "there is a window all the same");
    let written: usize = lent.by_ref().map(|batch| batch.events.len()).sum();
    assert_eq!(written as u64, full);
    feed(200);
    assert_eq!((window.lent_bytes(), window.covers().events), (0, full), "all of the room is there again");
    // What is not read to its end is given back as well.
    drop(window.lend());
    feed(200);
    assert_eq!((window.lent_bytes(), window.covers().events), (0, full));
}
