//! What is missing: which stretches of time cannot be trusted, and how complete a report is.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::tasks::clean;
use crate::event::{Batch, Cpu, Kind, Loss, LossCount, LossCounts, LossPlace, Nanos, ShardId};
use crate::source::Meta;

/// So many stretches are remembered.
const MAX_STRETCHES: usize = 1 << 10;
/// The CPUs of so many rings are told apart.
const MAX_RINGS: usize = 1 << 10;
/// The longest name of a queue that is kept, in bytes.
const MAX_NAME: usize = 64;

/// Stretches of time, joined where they touch.
#[derive(Debug, Default)]
struct Stretches {
    /// Disjoint and sorted, both ends included.
    known: VecDeque<(Nanos, Nanos)>,
    /// Stretches that ended before are forgotten.
    forgotten: Option<Nanos>,
}

impl Stretches {
    fn add(&mut self, mut from: Nanos, mut until: Nanos) {
        let first = self.known.partition_point(|stretch| stretch.1 < from);
        let after = self.known.partition_point(|stretch| stretch.0 <= until);
        for &(a, b) in self.known.range(first..after.max(first)) {
            from = from.min(a);
            until = until.max(b);
        }
        self.known.drain(first..after.max(first));
        self.known.insert(first, (from, until));
        if self.known.len() > MAX_STRETCHES
            && let Some((_, until)) = self.known.pop_front()
        {
            self.forgotten = self.forgotten.max(Some(until));
        }
    }

    /// Whether one lies between these times, or might for all that is remembered.
    fn touch(&self, from: Nanos, until: Nanos) -> bool {
        if self.forgotten.is_some_and(|end| from <= end) {
            return true;
        }
        match self.known.back() {
            None => false,
            Some(last) if last.1 < from => false,
            Some(_) => {
                let first = self.known.partition_point(|stretch| stretch.1 < from);
                self.known.get(first).is_some_and(|stretch| stretch.0 <= until)
            }
        }
    }
}

/// What cannot be trusted, and when, because events are known to be missing.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Switches or wakeups are missing on some CPU. A wait is in doubt whatever CPU that is: meanwhile the task may have
    /// run there, and come back.
    waits: Stretches,
    /// Switches are missing on the CPUs of a ring. Who had another CPU is known all the same.
    runs: BTreeMap<ShardId, Stretches>,
    /// Switches are missing, on any CPU.
    runs_anywhere: Stretches,
    /// By the CPU's number.
    ring_of: Vec<Option<ShardId>>,
    /// Whether who ran at the start may be missing.
    snapshot: bool,
}

impl Doubt {
    /// Takes from the setting which CPUs share a ring.
    pub(super) fn begin(&mut self, meta: &Meta) {
        for ring in meta.rings.iter().take(MAX_RINGS) {
            for cpu in ring.cpus.iter().map(|cpu| usize::from(cpu.0)) {
                if self.ring_of.len() <= cpu {
                    self.ring_of.resize(cpu + 1, None);
                }
                self.ring_of[cpu] = Some(ring.shard);
            }
        }
    }

    pub(super) fn read(&mut self, batch: &Batch) {
        for loss in &batch.lost {
            self.snapshot |= matches!(loss.kind, None | Some(Kind::Snapshot));
            let (from, until) = (loss.from.min(loss.until), loss.until);
            if loss.kind.is_none_or(decisive) && loss.count > 0 {
                self.waits.add(from, until);
                if matches!(loss.kind, None | Some(Kind::Switch)) {
                    let ring = match loss.place {
                        LossPlace::Ring(ring) | LossPlace::Decode(ring) => Some(ring),
                        _ => None,
                    };
                    self.runs_of(ring).add(from, until);
                }
            }
        }
        for event in &batch.late {
            let kind = event.kind.kind();
            if decisive(kind) {
                self.waits.add(event.ts, event.ts);
                if kind == Kind::Switch {
                    let ring = self.ring(event.cpu);
                    self.runs_of(ring).add(event.ts, event.ts);
                }
            }
        }
    }

    fn ring(&self, cpu: Cpu) -> Option<ShardId> {
        self.ring_of.get(usize::from(cpu.0)).copied().flatten()
    }

    fn runs_of(&mut self, ring: Option<ShardId>) -> &mut Stretches {
        match ring {
            Some(ring) if self.ring_of.contains(&Some(ring)) => self.runs.entry(ring).or_default(),
            _ => &mut self.runs_anywhere,
        }
    }

    /// Whether a wait between these times cannot be trusted.
    pub(super) fn of_wait(&self, from: Nanos, until: Nanos) -> bool {
        self.waits.touch(from, until)
    }

    /// Whether who had this CPU between these times cannot be trusted.
    pub(super) fn of_run(&self, cpu: Cpu, from: Nanos, until: Nanos) -> bool {
        let here = self.ring(cpu).and_then(|ring| self.runs.get(&ring));
        here.is_some_and(|stretches| stretches.touch(from, until)) || self.runs_anywhere.touch(from, until)
    }

    /// Whether who ran at the start may be missing.
    pub(super) fn of_snapshot(&self) -> bool {
        self.snapshot
    }
}

/// Whether waits and runs cannot be told without events of this kind.
fn decisive(kind: Kind) -> bool {
    matches!(kind, Kind::Switch | Kind::Waking | Kind::WakeupNew)
}

/// How complete a report is. Read it before the numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Completeness {
    /// Events that are known to be missing in the window, by place and kind.
    pub lost: Vec<LossCount>,
    /// All of them together.
    pub lost_total: u64,
    /// Events that came behind the watermark. They are not missing from a trace, but no analysis saw them.
    pub late: u64,
    /// The recording left out processes, cgroups or CPUs on purpose: who held a CPU may not be known.
    pub filtered: bool,
    /// Threads of the recorder were left out of rows and latencies. They are still named where they held a CPU.
    pub recorder_left_out: bool,
    /// Waits cut off by an edge of the window: begun before it, or not over at its end. Of these, only a lower bound
    /// is known; they are no samples of a latency.
    pub censored_waits: u64,
    /// Waits during which events are missing. They are in no latency, and in no other number unless it says so.
    pub in_loss: u64,
    /// Times that a task got a CPU although nothing was seen that made it runnable: its wait is not measured.
    pub unseen_starts: u64,
}

impl Completeness {
    /// Whether nothing is known to be missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost_total == 0 && self.late == 0 && self.in_loss == 0
    }
}

/// Counts what is missing in a window.
#[derive(Debug, Default)]
pub(super) struct Losses {
    counts: LossCounts,
    total: u64,
    late_events: u64,
    late_losses: u64,
}

impl Losses {
    /// Counts what is missing between these times.
    pub(super) fn read(&mut self, batch: &Batch, from: Nanos, until: Nanos) {
        let inside = |event: &&crate::event::Event| (from..until).contains(&event.ts);
        self.late_events = self.late_events.saturating_add(batch.late.iter().filter(inside).count() as u64);
        for loss in batch.lost.iter().filter(|loss| loss.until >= from && loss.from < until) {
            self.add(loss);
        }
    }

    fn add(&mut self, loss: &Loss) {
        if loss.place == LossPlace::Late {
            self.late_losses = self.late_losses.saturating_add(loss.count);
            return;
        }
        self.total = self.total.saturating_add(loss.count);
        match &loss.place {
            // Only these have names, which a damaged trace may have made.
            LossPlace::Queue(name) => {
                let place = LossPlace::Queue(clean(name, MAX_NAME).into());
                self.counts.add(&Loss { place, ..loss.clone() });
            }
            _ => self.counts.add(loss),
        }
    }

    /// What has to do with losses, the rest zero.
    pub(super) fn completeness(&self) -> Completeness {
        Completeness {
            lost: self.counts.list(),
            lost_total: self.total,
            // The same events, told of twice.
            late: self.late_events.max(self.late_losses),
            ..Completeness::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::MAX_COUNTS;
    use crate::source::RingInfo;
    use proptest::prelude::*;

    fn loss(from: u64, until: u64) -> Loss {
        let (from, until) = (Nanos(from), Nanos(until));
        Loss { place: LossPlace::Ring(ShardId(0)), kind: Some(Kind::Switch), count: 1, from, until }
    }

    proptest! {
        #[test]
        fn stretches_answer_as_a_list_would(
            stretches in prop::collection::vec((0..200u64, 0..20u64), 0..40),
            asked in prop::collection::vec((0..220u64, 0..30u64), 0..40),
        ) {
            let mut doubt = Doubt::default();
            let lost = stretches.iter().map(|&(from, length)| loss(from, from + length)).collect();
            doubt.read(&Batch { lost, ..Batch::default() });
            for (from, length) in asked {
                let truth = stretches.iter().any(|&(a, b)| a <= from + length && from <= a + b);
                prop_assert_eq!(doubt.of_wait(Nanos(from), Nanos(from + length)), truth);
                prop_assert_eq!(doubt.of_run(Cpu(9), Nanos(from), Nanos(from + length)), truth, "no ring is known");
            }
            let known = &doubt.waits.known;
            prop_assert!(known.iter().zip(known.iter().skip(1)).all(|(a, b)| a.1 < b.0));
        }
    }

    #[test]
    fn what_is_forgotten_stays_doubtful() {
        let mut doubt = Doubt::default();
        let lost = (0..2 * MAX_STRETCHES as u64).map(|n| loss(n * 10, n * 10 + 1)).collect();
        doubt.read(&Batch { lost, ..Batch::default() });
        assert_eq!(doubt.waits.known.len(), MAX_STRETCHES);
        assert!(doubt.of_wait(Nanos(5), Nanos(6)));
        let last = 2 * MAX_STRETCHES as u64 * 10;
        assert!(!doubt.of_wait(Nanos(last - 7), Nanos(last)));
    }

    #[test]
    fn who_had_a_cpu_is_in_doubt_only_where_its_ring_lost_switches() {
        let mut doubt = Doubt::default();
        let ring = |shard, cpus: &[u16]| RingInfo {
            shard: ShardId(shard),
            cpus: cpus.iter().copied().map(Cpu).collect(),
            bytes: 4096,
        };
        doubt.begin(&Meta { rings: vec![ring(0, &[0, 7]), ring(1, &[300])], ..Meta::default() });
        let of = |place, kind, at| Loss { place, kind, ..loss(at, at) };
        let lost = vec![
            of(LossPlace::Ring(ShardId(1)), Some(Kind::Switch), 10),
            of(LossPlace::Ring(ShardId(1)), Some(Kind::Waking), 20),
            of(LossPlace::Nested, Some(Kind::Switch), 30),
            of(LossPlace::Ring(ShardId(5)), None, 40),
        ];
        let switch = crate::event::Switch {
            prev: crate::event::TaskId(1),
            next: crate::event::TaskId(2),
            prev_state: crate::event::TaskState::RUNNING,
            preempted: false,
            prev_prio: 120,
            next_prio: 120,
        };
        let kind = crate::event::EventKind::Switch(switch);
        let late = vec![crate::event::Event { ts: Nanos(50), cpu: Cpu(7), kind }];
        doubt.read(&Batch { lost, late, ..Batch::default() });
        let at = |cpu, at| doubt.of_run(Cpu(cpu), Nanos(at), Nanos(at));
        let of_runs = [10, 20, 30, 40, 50].map(|ts| (at(0, ts), at(300, ts)));
        assert_eq!(of_runs, [(false, true), (false, false), (true, true), (true, true), (true, false)]);
        assert!([10, 20, 30, 40, 50].into_iter().all(|ts| doubt.of_wait(Nanos(ts), Nanos(ts))));
    }

    #[test]
    fn places_are_bounded_and_clean_and_late_counts_once() {
        let mut losses = Losses::default();
        let many = 2 * MAX_COUNTS as u64;
        let lost = (0..many).map(|n| Loss { place: LossPlace::Queue(format!("a\n{n}").into()), ..loss(5, 5) });
        let late = Loss { place: LossPlace::Late, count: 2, ..loss(5, 5) };
        let batch = Batch { lost: lost.chain([late, loss(900, 901)]).collect(), ..Batch::default() };
        losses.read(&batch, Nanos(0), Nanos(100));
        let told = losses.completeness();
        assert!(told.lost.len() <= MAX_COUNTS + 1);
        assert!(told.lost.iter().all(|row| !row.place.to_string().contains('\n')));
        assert_eq!((told.lost_total, told.late), (many, 2));
        assert_eq!(told.lost.iter().map(|row| row.count).sum::<u64>(), many);
    }
}
