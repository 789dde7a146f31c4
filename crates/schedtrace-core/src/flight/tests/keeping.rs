//! What stays in a window and what goes.

use super::*;
use crate::flight::Window;

fn at(ts: u64) -> Event {
    switch(ts, 0, 1, TaskState::RUNNING, 2)
}

fn fed(options: WindowOptions, batches: impl IntoIterator<Item = Batch>) -> Window {
    let window = Window::new(options).unwrap();
    let mut sink = window.clone();
    sink.begin(&Meta { started: Nanos(1), ..Meta::default() }).unwrap();
    for batch in batches {
        sink.batch(&batch).unwrap();
    }
    window
}

fn batch(until: u64, events: impl IntoIterator<Item = u64>) -> Batch {
    Batch { until: Nanos(until), events: events.into_iter().map(at).collect(), ..Batch::default() }
}

#[test]
fn what_is_too_old_goes() {
    let window = fed(options(100, 1 << 20), (0..50).map(|n| batch(n * 10 + 11, [n * 10 + 5])));
    let covers = window.covers();
    assert_eq!((covers.window.from_ns, covers.window.until_ns), (Nanos(401), Nanos(501)));
    assert!(!covers.shortened);
    assert_eq!(events(&mut window.source()).first().map(|event| event.ts), Some(Nanos(405)));
    assert_eq!(covers.events, 10);
}

#[test]
fn a_quiet_time_is_part_of_the_window_and_moves_it_on() {
    let window = fed(options(100, 1 << 20), [batch(11, [5]), batch(1_000, [])]);
    assert_eq!(window.covers().window, crate::event::Window::new(Nanos(900), Nanos(1_000)));
    assert_eq!(window.covers().events, 0);
    let never = Batch { until: Nanos::MAX, ..batch(0, [2_000]) };
    let window = fed(options(100, 1 << 20), [never]);
    assert_eq!(window.covers().window.until_ns, Nanos(2_000), "a time that never comes is none");
}

#[test]
fn memory_makes_it_shorter_and_it_says_so() {
    let many = |n: u64| batch((n + 1) * 1_000_000, (0..1_000).map(|i| n * 1_000_000 + i * 1_000));
    let window = fed(options(1_000_000_000, 64 << 10), (0..100).map(many));
    let covers = window.covers();
    assert!(covers.bytes <= 64 << 10 && covers.bytes > 32 << 10, "{covers:?}");
    assert!(covers.shortened && covers.window.duration_ns < Nanos(5_000_000), "{covers:?}");
    let held = events(&mut window.source());
    assert_eq!(held.len() as u64, covers.events);
    assert_eq!(held.last().map(|event| event.ts), Some(Nanos(99_999_000)), "it is the oldest that goes");
    // A batch that would not fit is kept in parts.
    let window = fed(options(1_000_000_000, 64 << 10), [batch(2_000_000, 0..100_000)]);
    assert!(window.covers().bytes <= 64 << 10 && window.covers().events > 1_000, "{:?}", window.covers());
}

#[test]
fn what_comes_late_is_in_its_place() {
    let late = Batch { late: vec![at(12), at(3), at(27)], ..batch(41, [35]) };
    let window = fed(options(25, 1 << 20), [batch(11, [5]), batch(21, [15]), batch(31, [25]), late]);
    let held: Vec<u64> = events(&mut window.source()).iter().map(|event| event.ts.0).collect();
    assert_eq!(held, [12, 15, 25, 27, 35], "3 is from before the window");
    assert_eq!(window.covers().events, held.len() as u64);
}

#[test]
fn it_begins_with_who_is_alive_and_what_each_does() {
    let task =
        |id: u32, comm: &str| Task { id: TaskId(id), tid: id, tgid: id, comm: Comm::new(comm), ..Task::idle(Cpu(0)) };
    let first = Batch { tasks: vec![task(1, "one"), task(2, "two")], ..batch(11, []) };
    let first = Batch { events: vec![switch(5, 0, 1, TaskState::INTERRUPTIBLE, 2)], ..first };
    let loss = Loss {
        place: LossPlace::Ring(ShardId(0)),
        kind: Some(Kind::Hang),
        count: 1,
        from: Nanos(8),
        until: Nanos(150),
    };
    let over = Loss { until: Nanos(9), ..loss.clone() };
    let second = Batch { lost: vec![loss.clone(), over], ..batch(21, []) };
    let window = fed(options(100, 1 << 20), [first, second, batch(200, [])]);
    let batches = read(&mut window.source());
    let known = &batches[0];
    assert_eq!(known.until, Nanos(100));
    assert_eq!(known.tasks.iter().map(|task| task.comm.to_string()).collect::<Vec<_>>(), ["one", "two"]);
    let doing: Vec<_> = known.statuses.iter().map(|status| (status.task.0, status.since.0, status.doing)).collect();
    assert_eq!(doing, [(1, 5, Doing::Asleep(TaskState::INTERRUPTIBLE)), (2, 5, Doing::Running(None))]);
    assert_eq!(known.lost, [loss], "what reaches into the window is told");
}

#[test]
fn a_window_that_cannot_be_kept_is_refused() {
    for wrong in [options(0, 1 << 20), options(100, 100)] {
        assert!(matches!(Window::new(wrong), Err(crate::Error::Invalid(_))), "{wrong:?}");
    }
}

#[test]
fn a_snapshot_stays_as_it_is() {
    let window = fed(options(100, 1 << 20), [batch(11, [5])]);
    let snapshot = window.snapshot();
    window.clone().batch(&batch(500, [499])).unwrap();
    assert_eq!(events(&mut snapshot.source()).len(), 1);
    assert_eq!(events(&mut snapshot.source())[0].ts, Nanos(5), "as often as it is asked for");
    assert_eq!(events(&mut window.source())[0].ts, Nanos(499));
}
