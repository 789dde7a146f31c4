//! At most so many events per second: a recording that goes on for days must not fill the disk, or take a CPU, in one bad
//! hour.

use std::borrow::Cow;

use crate::error::Result;
use crate::event::{Batch, Event, Kind, Loss, LossPlace, Nanos};
use crate::sink::Sink;
use crate::source::Meta;

const SECOND_NS: u64 = 1_000_000_000;

/// Gives a sink at most so many events of each second, and leaves out the rest of that second.
///
/// What is left out is counted as [`Loss`] at [`LossPlace::RateLimit`], by kind and with the time that it covers, in the
/// batch that it was missing from: *came = passed on + lost*, and whoever analyses what was passed on trusts no wait across
/// the gap. Seconds are those of the events' clock.
///
/// Forks, execs, exits and what else says who lives and under which name ([`Fork`](Kind::Fork), [`Exec`](Kind::Exec),
/// [`Exit`](Kind::Exit), [`Free`](Kind::Free), [`Rename`](Kind::Rename), [`Snapshot`](Kind::Snapshot)) is passed on whatever
/// comes, and takes from the second's share; so are identities, paths, names and losses, which are no events.
///
/// ```
/// use schedtrace_core::{Batch, Cpu, Event, Hang, Nanos, RateLimit, Sink, TaskId};
/// let (mut events, mut lost) = (0, 0);
/// let mut two_per_second = RateLimit::new(2, |batch: &Batch| {
///     events += batch.events.len();
///     lost += batch.lost.iter().map(|loss| loss.count).sum::<u64>();
/// });
/// let at = |ts| Event { ts: Nanos(ts), cpu: Cpu(0), kind: Hang { task: TaskId(1) }.into() };
/// two_per_second.batch(&Batch { events: vec![at(5), at(6), at(7), at(1_000_000_001)], ..Batch::default() })?;
/// assert_eq!(two_per_second.lost(), 1);
/// assert_eq!((events, lost), (3, 1));
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct RateLimit<S> {
    sink: S,
    per_second: u64,
    /// The second that the stream has come to, and how many of its events there is still room for.
    second: u64,
    room: u64,
    /// Up to when it was told, in this second, that events of a kind are missing.
    told: [Option<Nanos>; Kind::COUNT],
    lost: u64,
}

impl<S: Sink> RateLimit<S> {
    /// A sink that is given at most `per_second` events of each second; [`u64::MAX`] leaves nothing out.
    ///
    /// ```
    /// use schedtrace_core::{Batch, RateLimit};
    /// let sink = RateLimit::new(500_000, |_: &Batch| ());
    /// assert_eq!(sink.lost(), 0);
    /// ```
    pub fn new(per_second: u64, sink: S) -> Self {
        Self { sink, per_second, second: 0, room: per_second, told: [None; Kind::COUNT], lost: 0 }
    }

    /// How many events were left out.
    ///
    /// ```
    /// # use schedtrace_core::{Batch, RateLimit};
    /// # let sink = RateLimit::new(500_000, |_: &Batch| ());
    /// assert_eq!(sink.lost(), 0);
    /// ```
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The sink behind it.
    ///
    /// ```
    /// # use schedtrace_core::{Batch, RateLimit};
    /// # let sink = RateLimit::new(500_000, |_: &Batch| ());
    /// let everything = sink.into_inner();
    /// ```
    pub fn into_inner(self) -> S {
        self.sink
    }

    /// The events of a list that are passed on.
    fn admit<'a>(&mut self, events: &'a [Event], late: bool, out: &mut Vec<Loss>) -> Cow<'a, [Event]> {
        let mut gap = Gap::default();
        let mut kept: Option<Vec<Event>> = None;
        for (at, event) in events.iter().enumerate() {
            let second = event.ts.0 / SECOND_NS;
            if second > self.second {
                gap.tell(out);
                (self.second, self.room, self.told) = (second, self.per_second, [None; Kind::COUNT]);
            }
            let kind = event.kind.kind();
            if self.room > 0 || is_lifecycle(kind) {
                self.room = self.room.saturating_sub(1);
                kept.iter_mut().for_each(|kept| kept.push(*event));
                continue;
            }
            kept.get_or_insert_with(|| events[..at].to_vec());
            self.lost += 1;
            // A gap goes on from batch to batch, so that it is one; what comes late lies somewhere else.
            let told = if late { &mut None } else { &mut self.told[kind as usize] };
            gap.add(kind, told.replace(event.ts).unwrap_or(event.ts), event.ts);
        }
        gap.tell(out);
        kept.map_or(Cow::Borrowed(events), Cow::Owned)
    }
}

/// Whether it says who lives: what comes later could not be understood without it.
const fn is_lifecycle(kind: Kind) -> bool {
    matches!(kind, Kind::Fork | Kind::Exec | Kind::Exit | Kind::Free | Kind::Rename | Kind::Snapshot)
}

/// What is missing from one stretch of a batch, by kind.
#[derive(Default)]
struct Gap(Vec<Loss>);

impl Gap {
    fn add(&mut self, kind: Kind, from: Nanos, until: Nanos) {
        match self.0.iter_mut().find(|loss| loss.kind == Some(kind)) {
            Some(loss) => {
                loss.count += 1;
                (loss.from, loss.until) = (loss.from.min(from), loss.until.max(until));
            }
            None => self.0.push(Loss { place: LossPlace::RateLimit, kind: Some(kind), count: 1, from, until }),
        }
    }

    fn tell(&mut self, out: &mut Vec<Loss>) {
        out.append(&mut self.0);
    }
}

impl<S: Sink> Sink for RateLimit<S> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.sink.begin(meta)
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        let mut lost = Vec::new();
        let events = self.admit(&batch.events, false, &mut lost);
        let late = self.admit(&batch.late, true, &mut lost);
        if lost.is_empty() {
            return self.sink.batch(batch);
        }
        lost.extend_from_slice(&batch.lost);
        self.sink.batch(&Batch {
            until: batch.until,
            events: events.into_owned(),
            late: late.into_owned(),
            tasks: batch.tasks.clone(),
            cgroups: batch.cgroups.clone(),
            names: batch.names.clone(),
            statuses: batch.statuses.clone(),
            lost,
        })
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.sink.finish(meta)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::analysis::{self, Options, Sched};
    use crate::event::*;
    use crate::source::MemorySource;

    fn waking(ts: u64) -> Event {
        let kind = Waking {
            task: TaskId(1),
            current: TaskId(2),
            context: Context::Task,
            prev_cpu: Cpu(0),
            on_cpu: false,
            prio: 120,
        };
        Event { ts: Nanos(ts), cpu: Cpu(0), kind: EventKind::Waking(kind) }
    }

    fn switch(ts: u64, prev: TaskId, next: TaskId) -> Event {
        let prev_state = TaskState::INTERRUPTIBLE;
        let kind = Switch { prev, next, prev_state, preempted: false, prev_prio: 120, next_prio: 120 };
        Event { ts: Nanos(ts), cpu: Cpu(0), kind: EventKind::Switch(kind) }
    }

    fn fork(ts: u64) -> Event {
        Event { ts: Nanos(ts), cpu: Cpu(0), kind: EventKind::Fork(Fork { parent: TaskId(1), child: TaskId(2) }) }
    }

    /// What passes a limit.
    fn limited(per_second: u64, batches: &[Batch]) -> (Vec<Batch>, u64) {
        let mut passed = Vec::new();
        let mut limit = RateLimit::new(per_second, |batch: &Batch| passed.push(batch.clone()));
        batches.iter().for_each(|batch| limit.batch(batch).unwrap());
        let lost = limit.lost();
        (passed, lost)
    }

    fn batch(events: Vec<Event>) -> Batch {
        let until = events.last().map_or(Nanos::ZERO, |event| event.ts + Nanos(1));
        Batch { until, events, ..Batch::default() }
    }

    #[test]
    fn the_rest_of_a_second_is_left_out_and_told_of() {
        const S: u64 = SECOND_NS;
        let first =
            batch(vec![waking(S + 1), waking(S + 2), waking(S + 3), fork(S + 4), switch(S + 5, TaskId(1), TaskId(2))]);
        let second = Batch {
            tasks: vec![Task::idle(Cpu(3))],
            lost: vec![Loss { place: LossPlace::Nested, kind: None, count: 9, from: Nanos(1), until: Nanos(2) }],
            ..batch(vec![waking(S + 6), waking(2 * S), waking(2 * S + 1), waking(2 * S + 2)])
        };
        let (passed, lost) = limited(2, &[first.clone(), second.clone()]);
        assert_eq!(lost, 4);
        assert_eq!(passed[0].events, [first.events[0], first.events[1], first.events[3]], "a fork is never left out");
        assert_eq!(passed[1].events, second.events[1..3]);
        assert_eq!((passed[0].until, &passed[1].tasks), (first.until, &second.tasks));
        let loss = |kind, from, until| Loss {
            place: LossPlace::RateLimit,
            kind: Some(kind),
            count: 1,
            from: Nanos(from),
            until: Nanos(until),
        };
        assert_eq!(passed[0].lost, [loss(Kind::Waking, S + 3, S + 3), loss(Kind::Switch, S + 5, S + 5)]);
        // The gap of the first second goes on where it was left; that of the next is another one.
        let expected =
            [loss(Kind::Waking, S + 3, S + 6), loss(Kind::Waking, 2 * S + 2, 2 * S + 2), second.lost[0].clone()];
        assert_eq!(passed[1].lost, expected);
    }

    #[test]
    fn below_the_limit_nothing_changes() {
        let batches = [batch((0..100).map(|n| waking(n * SECOND_NS / 50)).collect())];
        assert_eq!(limited(50, &batches), (batches.to_vec(), 0));
        assert_eq!(limited(u64::MAX, &batches), (batches.to_vec(), 0));
    }

    proptest! {
        #[test]
        fn what_came_is_passed_on_or_counted(
            per_second in 0_u64..20,
            stream in prop::collection::vec(
                (prop::collection::vec((0_u64..SECOND_NS, 0_u8..3), 0..40), prop::collection::vec(0_u64..SECOND_NS, 0..4)),
                0..12,
            ),
        ) {
            let mut now = 0;
            let batches: Vec<Batch> = stream.iter().map(|(events, late)| {
                let mut events: Vec<Event> = events.iter().map(|&(offset, kind)| match kind {
                    0 => waking(now + offset),
                    1 => switch(now + offset, TaskId(1), TaskId(2)),
                    _ => fork(now + offset),
                }).collect();
                events.sort_by_key(|event| event.ts);
                let late = late.iter().map(|&before| waking(now.saturating_sub(before))).collect();
                now = events.last().map_or(now, |event| event.ts.0);
                Batch { until: Nanos(now), late, events, ..Batch::default() }
            }).collect();
            let (passed, lost) = limited(per_second, &batches);

            prop_assert_eq!(passed.len(), batches.len());
            let mut in_second: BTreeMap<u64, u64> = BTreeMap::new();
            let mut told = 0;
            let mut gaps: Vec<&Loss> = Vec::new();
            for (came, went) in batches.iter().zip(&passed) {
                prop_assert_eq!(came.until, went.until);
                let count = |batch: &Batch, kind: Kind| {
                    batch.events.iter().chain(&batch.late).filter(|event| event.kind.kind() == kind).count() as u64
                };
                for kind in [Kind::Waking, Kind::Switch, Kind::Fork] {
                    let missing: u64 = went.lost.iter().filter(|loss| loss.kind == Some(kind)).map(|loss| loss.count).sum();
                    prop_assert_eq!(count(came, kind), count(went, kind) + missing, "{:?}", kind);
                    told += missing;
                }
                prop_assert_eq!(count(came, Kind::Fork), count(went, Kind::Fork));
                // What is passed on is in the order in which it came, and in no gap unless it is never left out.
                let mut rest = came.events.iter();
                prop_assert!(went.events.iter().all(|event| rest.any(|other| other == event)));
                prop_assert!(went.lost.iter().all(|loss| loss.place == LossPlace::RateLimit && loss.from <= loss.until));
                gaps.extend(&went.lost);
                for event in went.events.iter().filter(|event| event.kind.kind() != Kind::Fork) {
                    *in_second.entry(event.ts.0 / SECOND_NS).or_default() += 1;
                }
            }
            prop_assert_eq!(told, lost);
            prop_assert!(in_second.values().all(|&count| count <= per_second));
            // Each event that is missing lies in a gap of its kind.
            for (came, went) in batches.iter().zip(&passed) {
                for event in came.events.iter().filter(|event| !went.events.contains(event)) {
                    let covers = |loss: &&&Loss| {
                        loss.kind == Some(event.kind.kind()) && (loss.from..=loss.until).contains(&event.ts)
                    };
                    prop_assert!(gaps.iter().any(|loss| covers(&loss)), "{:?}", event);
                }
            }
        }
    }

    /// Task 1 sleeps and is woken again and again; how it waits between `waits` and its start can be told from the numbers.
    #[test]
    fn no_wait_is_measured_across_a_gap() {
        const S: u64 = SECOND_NS;
        let (one, idle) = (TaskId(1), TaskId::idle(Cpu(0)));
        // Three waits of a millisecond, then one of which the end is left out, and with it another wait; then one more.
        let round = |at: u64| [waking(at), switch(at + 1_000_000, idle, one), switch(at + 2_000_000, one, idle)];
        let mut events: Vec<Event> = (0..5).flat_map(|n| round(S + n * 10_000_000)).collect();
        events.extend(round(2 * S));
        let source = |batch: Batch| {
            let meta = Meta { started: Nanos(S - 1), ended: Some(batch.until), ..Meta::default() };
            MemorySource::new(meta, [batch])
        };
        let whole = batch(events);
        let report = analysis::run(&mut source(whole.clone()), Sched::new(Options::default())).unwrap();
        assert_eq!((report.run_queue.total.wait.count, report.run_queue.total.wait.max_ns), (6, 1_000_000));
        assert!(report.completeness.is_complete());

        // Ten events: the fourth round is woken, and does not get the CPU any more.
        let (passed, lost) = limited(10, &[whole]);
        assert_eq!((lost, passed[0].events.len()), (5, 13));
        let report = analysis::run(&mut source(passed[0].clone()), Sched::new(Options::default())).unwrap();
        let total = &report.run_queue.total;
        assert_eq!((total.wait.count, total.wait.max_ns), (3, 1_000_000), "those before the gap");
        assert_eq!((total.in_loss.waits, total.in_loss.longest_ns), (1, S - 30_000_000 + 1_000_000));
        assert_eq!((report.completeness.lost_total, report.completeness.in_loss), (5, 1));
        let places: Vec<_> =
            report.completeness.lost.iter().map(|row| (row.place.to_string(), row.kind, row.count)).collect();
        let place = || "rate_limit".to_owned();
        assert_eq!(places, [(place(), Some(Kind::Switch), 4), (place(), Some(Kind::Waking), 1)]);
    }
}
