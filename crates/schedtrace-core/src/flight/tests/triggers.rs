//! What fires, and what does not.

use super::*;
use crate::event::{Address, Context, FutexWait, Waking};
use crate::flight::{Trigger, Triggers};
use crate::source::Fired;

const S: TaskState = TaskState::INTERRUPTIBLE;
const R: TaskState = TaskState::RUNNING;

fn waking(ts: u64, task: u32, by: u32) -> Event {
    let (task, current) = (TaskId(task), TaskId(by));
    let kind = Waking { task, current, context: Context::Task, prev_cpu: Cpu(0), on_cpu: false, prio: 120 };
    Event { ts: Nanos(ts), cpu: Cpu(0), kind: EventKind::Waking(kind) }
}

fn batch(until: u64, events: Vec<Event>) -> Batch {
    Batch { until: Nanos(until), events, ..Batch::default() }
}

fn tasks(all: &[(u32, &str)]) -> Batch {
    let task = |&(id, comm): &(u32, &str)| Task {
        id: TaskId(id),
        tid: id + 1_000,
        tgid: id + 2_000,
        comm: Comm::new(comm),
        ..Task::idle(Cpu(0))
    };
    Batch { until: Nanos(1_000), tasks: all.iter().map(task).collect(), ..Batch::default() }
}

/// What fires, batch by batch.
fn fired(trigger: &str, batches: &[Batch]) -> Vec<Vec<Fired>> {
    let mut triggers = Triggers::new([trigger.parse::<Trigger>().unwrap()]);
    triggers.begin(&Meta { started: Nanos(1_000), ..Meta::default() });
    let known = tasks(&[(1, "victim"), (2, "hog"), (3, "other")]);
    std::iter::once(&known).chain(batches).map(|batch| triggers.batch(batch)).skip(1).collect()
}

#[test]
fn a_wait_that_was_too_long_fires_when_it_ends() {
    let events = vec![switch(2_000, 0, 1, S, 2), waking(3_000, 1, 2), switch(9_000, 0, 2, R, 1)];
    let all = fired("runqueue_latency > 5us", &[batch(9_500, events)]);
    let one = &all[0][0];
    assert_eq!(all[0].len(), 1, "the hog has waited for 500 ns: {all:?}");
    assert_eq!((one.comm.as_str(), one.tid, one.pid), ("victim", 1_001, 2_001));
    assert_eq!((one.duration_ns, one.at_ns, one.ongoing), (Some(Nanos(6_000)), Nanos(9_000), false));
    assert_eq!(one.to_string(), "victim[1001] waited 6.00us for CPU 0");
}

#[test]
fn a_wait_that_goes_on_fires_once_as_soon_as_it_is_too_long() {
    let events = vec![switch(2_000, 0, 1, S, 2), waking(3_000, 1, 2)];
    let later = [batch(4_000, events), batch(8_000, vec![]), batch(9_000, vec![]), batch(20_000, vec![])];
    let ends = batch(30_000, vec![switch(25_000, 0, 2, S, 1)]);
    let all = fired("wait > 5us", &[&later[..], &[ends]].concat());
    let counts: Vec<usize> = all.iter().map(Vec::len).collect();
    assert_eq!(counts, [0, 0, 1, 0, 0], "told once, and not again when it ends");
    assert!(all[2][0].ongoing);
    assert_eq!(all[2][0].duration_ns, Some(Nanos(6_000)));
    assert_eq!(all[2][0].to_string(), "victim[1001] has waited 6.00us for CPU 0, and still waits");
}

#[test]
fn the_limit_itself_counts_only_where_it_says_so() {
    let events = vec![switch(2_000, 0, 1, S, 2), waking(3_000, 1, 2), switch(8_000, 0, 2, S, 1)];
    assert!(fired("wait > 5us", &[batch(8_000, events.clone())])[0].is_empty());
    assert_eq!(fired("wait >= 5us", &[batch(8_000, events)])[0].len(), 1);
}

#[test]
fn it_can_be_about_some_tasks_only() {
    let events = vec![switch(2_000, 0, 1, S, 2), waking(3_000, 1, 2), switch(9_000, 0, 2, R, 1)];
    for (whose, fires) in [
        ("comm = victim", true),
        ("comm = hog", false),
        ("comm != hog, tid = 1001", true),
        ("pid = 2001 and cpu = 0", true),
        ("cpu > 0", false),
        ("comm = nobody", false),
    ] {
        let some = fired(&format!("runqueue_latency > 5us for {whose}"), &[batch(9_500, events.clone())]);
        assert_eq!(some[0].len(), usize::from(fires), "{whose}");
    }
}

#[test]
fn sleeps_losses_and_events_fire() {
    let slept = vec![switch(2_000, 0, 1, S, 2), waking(9_000, 1, 2)];
    let all = fired("sleep > 5us for comm = victim", &[batch(9_500, slept)]);
    assert_eq!(all[0][0].to_string(), "victim[1001] slept for 7.00us");

    let loss = Loss { place: LossPlace::Nested, kind: None, count: 3, from: Nanos(1_500), until: Nanos(1_700) };
    let lost = Batch { lost: vec![loss], ..batch(2_000, vec![]) };
    assert_eq!(fired("lost > 2", std::slice::from_ref(&lost))[0][0].to_string(), "3 events were lost");
    assert!(fired("lost > 3", &[lost])[0].is_empty());

    let wait = FutexWait { task: TaskId(1), address: Address(7), duration_ns: Nanos(60_000_000), result: 0 };
    let event = Event { ts: Nanos(2_000), cpu: Cpu(0), kind: wait.into() };
    let some = fired("event = futex_wait and duration_ms > 50 and comm = victim", &[batch(3_000, vec![event])]);
    assert_eq!(some[0][0].to_string(), "futex_wait on CPU 0 of victim[1001]");
    assert!(fired("futex_wait.duration_ms > 60", &[batch(3_000, vec![event])])[0].is_empty());
}

#[test]
fn what_is_in_doubt_does_not_fire() {
    let events = vec![switch(2_000, 0, 1, S, 2), waking(3_000, 1, 2), switch(9_000, 0, 2, R, 1)];
    let loss =
        Loss { place: LossPlace::Nested, kind: Some(Kind::Switch), count: 1, from: Nanos(4_000), until: Nanos(5_000) };
    let doubtful = Batch { lost: vec![loss], ..batch(9_500, events) };
    assert!(fired("wait > 5us", &[doubtful])[0].is_empty(), "it may have run meanwhile");
}

#[test]
fn what_cannot_be_read_says_why() {
    for (text, why) in [
        ("", "there is nothing in it"),
        ("wait", "use > or >="),
        ("wait < 20ms", "use > or >="),
        ("wait > 20", "write a time such as 20ms"),
        ("wait > -20ms", "write a time such as 20ms"),
        ("wait > 20ms for duration_ns > 5", "comm, tid, pid and cpu only"),
        ("wait > 20ms for length > 5", "no event there has a field"),
        ("lost > many", "how many events?"),
        ("event = dream", "no event is called `dream`"),
        ("whatever", "it compares nothing"),
    ] {
        let error = text.parse::<Trigger>().unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
        assert_eq!(error.lines().count(), 1);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}", tail in "(wait|sleep|lost|runqueue_latency)[ >=a-z0-9.,&]{0,40}") {
        for text in [text, tail] {
            if let Ok(trigger) = text.parse::<Trigger>() {
                proptest::prop_assert_eq!(trigger.to_string(), text.trim());
            }
        }
    }
}
