use std::collections::HashSet;
use std::sync::mpsc;

use proptest::prelude::*;

use super::*;
use crate::event::{
    Cgroup, CgroupId, Cpu, Event, EventKind, Kind, Loss, LossCount, LossPlace, Name, NameId, Nanos, Task, TaskId,
};
use crate::source::MemorySource;

/// What a sink was given, in order.
#[derive(Debug, Default)]
struct Seen {
    begun: Vec<Meta>,
    batches: Vec<Batch>,
    finished: Vec<Meta>,
}

impl Sink for Seen {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.begun.push(meta.clone());
        Ok(())
    }
    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.batches.push(batch.clone());
        Ok(())
    }
    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.finished.push(meta.clone());
        Ok(())
    }
}

/// Where it misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Begin,
    Batch,
    Finish,
}

struct Failing {
    at: At,
    panics: bool,
    calls: Vec<At>,
}

impl Failing {
    fn new(at: At, panics: bool) -> Self {
        Self { at, panics, calls: Vec::new() }
    }
    fn call(&mut self, at: At) -> Result<()> {
        self.calls.push(at);
        match at == self.at {
            true if self.panics => panic!("it broke at {at:?}"),
            true => Err(Error::Invalid(format!("no room at {at:?}"))),
            false => Ok(()),
        }
    }
}

impl Sink for Failing {
    fn begin(&mut self, _: &Meta) -> Result<()> {
        self.call(At::Begin)
    }
    fn batch(&mut self, _: &Batch) -> Result<()> {
        self.call(At::Batch)
    }
    fn finish(&mut self, _: &Meta) -> Result<()> {
        self.call(At::Finish)
    }
}

/// A source that is a closure, and whose meta says how often it was polled.
struct Polled<F>(Meta, F);

impl<F: FnMut(u64) -> Result<Poll>> Source for Polled<F> {
    fn meta(&self) -> &Meta {
        &self.0
    }
    fn poll(&mut self, _: Instant) -> Result<Poll> {
        self.0.started = self.0.started + Nanos(1);
        self.1(self.0.started.0)
    }
}

fn polled<F: FnMut(u64) -> Result<Poll>>(poll: F) -> Polled<F> {
    Polled(Meta::default(), poll)
}

/// Batch `n` has a switch-free event or two, an identity, a cgroup and a loss of its own.
fn batch(n: u64) -> Batch {
    let event = |ts, kind| Event { ts: Nanos(ts), cpu: Cpu(300), kind };
    let id = TaskId(n as u32);
    Batch {
        until: Nanos(n * 100 + 100),
        events: vec![
            event(n * 100, EventKind::Rename { task: id }),
            event(n * 100 + 50, EventKind::Exit(crate::event::Exit { task: id, group_dead: true })),
        ],
        late: if n % 3 == 2 { vec![event(n * 100 - 150, EventKind::Rename { task: id })] } else { vec![] },
        tasks: vec![Task { id, ..Task::idle(Cpu(0)) }],
        cgroups: vec![Cgroup { id: CgroupId(n), path: "/".into() }],
        names: vec![Name::new(NameId(n as u32), Nanos(n), b"name")],
        lost: vec![Loss { place: LossPlace::Nested, kind: None, count: 1, from: Nanos(0), until: Nanos(n) }],
        statuses: Vec::new(),
    }
}

fn batches(count: u64) -> Vec<Batch> {
    (0..count).map(batch).collect()
}

fn events_of(batches: &[Batch]) -> u64 {
    batches.iter().map(|batch| (batch.events.len() + batch.late.len()) as u64).sum()
}

#[test]
fn every_sink_gets_everything_in_order() {
    let given = batches(50);
    let mut queue = given.clone().into_iter();
    let mut source = polled(|_| Ok(queue.next().map_or(Poll::End, Poll::Batch)));
    let (mut a, mut b) = (Seen::default(), Seen::default());
    let summary = Pipeline::new()
        .depth(1)
        .sink("a", OnFull::Block, &mut a)
        .sink("b", OnFull::Block, &mut b)
        .run(&mut source)
        .unwrap();
    for seen in [a, b] {
        assert_eq!(seen.batches, given);
        assert_eq!(seen.begun.iter().map(|meta| meta.started.0).collect::<Vec<_>>(), [0], "before the first poll");
        assert_eq!(seen.finished.iter().map(|meta| meta.started.0).collect::<Vec<_>>(), [51], "after the last one");
    }
    assert_eq!(summary.batches, 50);
    assert_eq!(summary.late, 16);
    assert_eq!(summary.events.into_iter().collect::<Vec<_>>(), [(Kind::Exit, 50), (Kind::Rename, 66)]);
    assert_eq!(summary.lost, [LossCount { place: LossPlace::Nested, kind: None, count: 50 }]);
    assert!(summary.sinks.iter().all(|sink| sink.error.is_none() && sink.dropped == 0));
}

/// A view that holds up its first batch until the source has given out everything.
struct Slow {
    gate: mpsc::Receiver<()>,
    seen: Seen,
}

impl Sink for Slow {
    fn batch(&mut self, batch: &Batch) -> Result<()> {
        // Closed once the source has ended.
        let _ = self.gate.recv();
        self.seen.batch(batch)
    }
    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.seen.finish(meta)
    }
}

#[test]
fn a_slow_view_drops_events_and_is_told() {
    let given = batches(20);
    let (open, gate) = mpsc::sync_channel(1);
    let mut open = Some(open);
    let mut queue = given.clone().into_iter();
    let mut source = polled(|_| {
        Ok(queue.next().map_or_else(
            || {
                open = None;
                Poll::End
            },
            Poll::Batch,
        ))
    });
    let mut view = Slow { gate, seen: Seen::default() };
    let mut recorder = Seen::default();
    let summary = Pipeline::new()
        .depth(1)
        .sink("trace", OnFull::Block, &mut recorder)
        .sink("view", OnFull::DropNewest, &mut view)
        .run(&mut source)
        .unwrap();

    assert_eq!(recorder.batches, given, "the recorder has everything");
    let Seen { batches: shown, finished, .. } = view.seen;
    assert_eq!(finished.len(), 1);
    let dropped = summary.sinks[1].dropped;
    // One batch in hand and one in the queue, at the most: the first, of two events, and another, of three or fewer.
    assert!(dropped >= events_of(&given) - 5 && dropped < events_of(&given), "{dropped}");
    assert_eq!(events_of(&shown) + dropped, events_of(&given));
    let ids = |batches: &[Batch]| batches.iter().flat_map(|b| b.tasks.iter().map(|t| t.id.0)).collect::<Vec<_>>();
    assert_eq!(ids(&shown), ids(&given), "identities survive");
    let lost: Vec<&Loss> = shown.iter().flat_map(|batch| &batch.lost).collect();
    let (queue, nested): (Vec<&Loss>, Vec<_>) = lost.iter().partition(|loss| loss.place != LossPlace::Nested);
    assert_eq!(nested.len(), 20);
    assert!(queue.iter().all(|loss| loss.place == LossPlace::Queue("view".into()) && loss.kind.is_some()));
    assert!(queue.iter().all(|loss| loss.from >= Nanos(50) && loss.until <= Nanos(1950)));
    assert_eq!(queue.iter().map(|loss| loss.count).sum::<u64>(), dropped);
    assert_eq!(shown.iter().map(|batch| batch.cgroups.len()).sum::<usize>(), 20);
    assert_eq!(shown.iter().map(|batch| batch.names.len()).sum::<usize>(), 20);
    assert_eq!(shown.last().map(|batch| batch.until), Some(Nanos(2000)), "it knows how far time came");
    assert_eq!(summary.lost_total, 20, "a view's loss is its own");
    assert_eq!(summary.sinks[0].dropped, 0);
}

#[test]
fn sinks_that_fail_disturb_no_other() {
    let given = batches(40);
    for (at, panics) in [At::Begin, At::Batch, At::Finish].map(|at| [(at, false), (at, true)]).concat() {
        let (mut bad, mut worse) = (Failing::new(at, panics), Failing::new(at, panics));
        let (mut before, mut after) = (Seen::default(), Seen::default());
        let summary = Pipeline::new()
            .depth(2)
            .sink("before", OnFull::Block, &mut before)
            .sink("bad", OnFull::Block, &mut bad)
            .sink("worse", OnFull::DropNewest, &mut worse)
            .sink("after", OnFull::Block, &mut after)
            .run(&mut MemorySource::new(Meta::default(), given.clone()))
            .unwrap();
        assert_eq!((&before.batches, &after.batches), (&given, &given), "{at:?} {panics}");
        assert_eq!((before.finished.len(), after.finished.len()), (1, 1));
        let texts: Vec<_> = summary.sinks.iter().map(|sink| sink.error.as_ref().map(Error::to_string)).collect();
        let why = if panics { format!("it panicked: it broke at {at:?}") } else { format!("no room at {at:?}") };
        let text = |sink: &str| Some(format!("the {sink} sink failed: {why}"));
        assert_eq!(texts, [None, text("bad"), text("worse"), None]);
        assert_eq!(bad.calls.last(), Some(&at), "nothing is called after a failure");
        assert_eq!(bad.calls.iter().filter(|&&call| call == at).count(), 1);
        let error = summary.into_result().unwrap_err();
        assert!(matches!(error, Error::Sink { sink, .. } if sink == "bad"));
    }
}

#[test]
fn a_source_that_fails_leaves_finished_sinks() {
    let given = batches(5);
    let mut queue = given.clone().into_iter();
    let mut source = polled(|_| match queue.next() {
        Some(batch) => Ok(Poll::Batch(batch)),
        None => Err(Error::Invalid("the ring is gone".into())),
    });
    let mut seen = Seen::default();
    let error = Pipeline::new().sink("trace", OnFull::Block, &mut seen).run(&mut source).unwrap_err();
    assert_eq!(error.to_string(), "the ring is gone");
    assert_eq!((seen.batches, seen.finished.len()), (given, 1));
}

#[test]
fn a_source_that_panics_does_not_hang_the_run() {
    let mut seen = Seen::default();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let mut source = polled(|n| if n < 3 { Ok(Poll::Batch(batch(n))) } else { panic!("no source") });
        Pipeline::new().sink("trace", OnFull::Block, &mut seen).run(&mut source)
    }));
    assert!(panic.is_err());
    assert_eq!((seen.batches.len(), seen.finished.len()), (2, 0));
}

#[test]
fn without_a_sink_left_nobody_polls() {
    // Sources without an end, one busy and one quiet: the test ends only if the run does.
    for busy in [true, false] {
        let mut source = polled(|n| if busy || n == 1 { Ok(Poll::Batch(batch(n))) } else { Ok(Poll::Idle) });
        let (mut bad, mut worse) = (Failing::new(At::Batch, false), Failing::new(At::Batch, true));
        let summary = Pipeline::new()
            .depth(1)
            .sink("bad", OnFull::Block, &mut bad)
            .sink("worse", OnFull::DropNewest, &mut worse)
            .run(&mut source)
            .unwrap();
        assert!(summary.sinks.iter().all(|sink| sink.error.is_some()));
    }
}

#[test]
fn a_pipeline_without_sinks_counts() {
    let summary = Pipeline::new().run(&mut MemorySource::new(Meta::default(), batches(7))).unwrap();
    assert_eq!((summary.batches, summary.total_events()), (7, 16));
}

#[test]
fn every_queue_has_room_for_one() {
    let mut seen = Seen::default();
    let mut source = MemorySource::new(Meta::default(), batches(1));
    let summary = Pipeline::new().depth(0).sink("view", OnFull::DropNewest, &mut seen).run(&mut source).unwrap();
    assert_eq!((seen.batches, summary.sinks[0].dropped), (batches(1), 0));
}

#[test]
fn names_tell_sinks_apart() {
    let run = |a: &str, b: &str| {
        let (mut first, mut second) = (|_: &Batch| {}, |_: &Batch| {});
        Pipeline::new()
            .sink(a, OnFull::Block, &mut first)
            .sink(b, OnFull::Block, &mut second)
            .run(&mut MemorySource::new(Meta::default(), batches(1)))
            .map(|summary| summary.batches)
            .map_err(|error| error.to_string())
    };
    assert_eq!(run("a", "a name longer than a thread's"), Ok(1));
    assert_eq!(run("a", "a"), Err("two sinks are named \"a\": give each a name of its own".to_owned()));
    assert!(run("a", "").is_err() && run("nul\0", "b").is_err());
}

proptest! {
    // Threads: fewer cases than usual.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_pace_nothing_goes_uncounted(count in 0..60_u64, depth in 1..4_usize, pause in 0..5_u32) {
        let given = batches(count);
        let mut seen: Vec<Batch> = Vec::new();
        let mut view = |batch: &Batch| {
            (0..pause * 20).for_each(|_| thread::yield_now());
            seen.push(batch.clone());
        };
        let mut all: Vec<Batch> = Vec::new();
        let mut slow = |batch: &Batch| {
            (0..pause).for_each(|_| thread::yield_now());
            all.push(batch.clone());
        };
        let summary = Pipeline::new()
            .depth(depth)
            .sink("view", OnFull::DropNewest, &mut view)
            .sink("trace", OnFull::Block, &mut slow)
            .run(&mut MemorySource::new(Meta::default(), given.clone()))
            .unwrap();
        prop_assert_eq!(&all, &given, "a slow recorder neither loses nor reorders");
        let dropped = summary.sinks[0].dropped;
        prop_assert_eq!(events_of(&seen) + dropped, events_of(&given));
        let told = seen.iter().flat_map(|batch| &batch.lost).filter(|loss| loss.place != LossPlace::Nested);
        prop_assert_eq!(told.map(|loss| loss.count).sum::<u64>(), dropped);
        let ids: HashSet<TaskId> = seen.iter().flat_map(|batch| batch.tasks.iter().map(|task| task.id)).collect();
        prop_assert_eq!(ids.len() as u64, count);
        prop_assert!(seen.is_sorted_by_key(|batch| batch.until));
    }
}
