//! Tables by key, of bounded size: keys come with the events, and recordings may come from strangers.

use std::hash::Hash;

use hashbrown::HashMap;

use super::groups::{Gone, GroupIx, Merge};
use super::question::Counts;
use super::states::{CpuRef, Seen};
use super::study::Scope;
use crate::event::{NameId, Nanos, TaskId};

/// So many keys have a row in one table.
pub(super) const MAX_KEYS: usize = 1 << 12;
/// So many keys are told apart in one tally.
const MAX_TALLIED: usize = 64;

/// One value per key, of the first so many keys.
#[derive(Clone, Debug)]
pub(super) struct Table<K, V, const MAX: usize = MAX_KEYS> {
    rows: HashMap<K, V>,
    others: u64,
}

impl<K, V, const MAX: usize> Default for Table<K, V, MAX> {
    fn default() -> Self {
        Self { rows: HashMap::new(), others: 0 }
    }
}

impl<K: Copy + Eq + Hash + Ord, V: Default, const MAX: usize> Table<K, V, MAX> {
    /// The row of a key. None if there are too many, which is counted.
    pub(super) fn at(&mut self, key: K) -> Option<&mut V> {
        if self.rows.len() >= MAX && !self.rows.contains_key(&key) {
            self.others = self.others.saturating_add(1);
            return None;
        }
        Some(self.rows.entry(key).or_default())
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.rows.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.rows.get_mut(&key)
    }

    /// How often a key had no room.
    pub(super) fn others(&self) -> u64 {
        self.others
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.rows.iter().map(|(&key, row)| (key, row))
    }

    /// In no order.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.rows.values_mut()
    }

    /// The rows of which this is more than nothing, most first.
    pub(super) fn ranked<M: Ord + Default>(&self, most: impl Fn(&V) -> M) -> Vec<(K, &V)> {
        let mut rows: Vec<_> = self.iter().filter(|(_, row)| most(row) > M::default()).collect();
        rows.sort_unstable_by_key(|&(key, row)| (std::cmp::Reverse(most(row)), key));
        rows
    }
}

impl<K: Copy + Eq + Hash + Ord, V: Default + Merge, const MAX: usize> Table<K, V, MAX> {
    /// Gives rows other keys; those that have the same one then are added up.
    pub(super) fn rename(&mut self, now: impl Fn(K) -> K) {
        let moved: Vec<K> = self.rows.keys().copied().filter(|&key| now(key) != key).collect();
        for key in moved {
            if let Some(row) = self.rows.remove(&key) {
                self.rows.entry(now(key)).or_default().merge(&row);
            }
        }
    }
}

/// Two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pair(pub(super) GroupIx, pub(super) GroupIx);

/// Counts by key: of the first few keys, and of all others together.
#[derive(Clone, Debug)]
pub(super) struct Tally<K>(HashMap<K, u64>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash + Ord> Tally<K> {
    pub(super) fn add(&mut self, key: K, count: u64) {
        if self.0.len() < MAX_TALLIED || self.0.contains_key(&key) {
            let sum = self.0.entry(key).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// The keys with most, most first.
    pub(super) fn top(&self, count: usize) -> Vec<(K, u64)> {
        let mut all: Vec<_> = self.0.iter().map(|(&key, &sum)| (key, sum)).collect();
        all.sort_unstable_by_key(|&(key, sum)| (std::cmp::Reverse(sum), key));
        all.truncate(count);
        all
    }
}

impl Tally<GroupIx> {
    /// These groups are no more.
    pub(super) fn fold(&mut self, gone: &Gone) {
        for (ix, sum) in std::mem::take(&mut self.0) {
            self.add(gone.now(ix), sum);
        }
    }
}

/// What a name reads, also where nobody told it.
pub(super) fn named(id: NameId, seen: &Seen<'_>) -> String {
    match (seen.names.text(id), id) {
        ("", NameId::NONE) => String::new(),
        ("", NameId(id)) => format!("<name {id}>"),
        (text, _) => text.to_owned(),
    }
}

/// A sum, and how many were summed up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    count: u64,
    sum: u128,
}

impl Mean {
    pub(super) fn add(&mut self, value: u64, times: u64) {
        self.count = self.count.saturating_add(times);
        self.sum = self.sum.saturating_add(u128::from(value) * u128::from(times));
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// None of nothing.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }
}

impl Scope {
    /// The group whose row something goes to that an event tells of a task, if any.
    pub(super) fn row_of(&self, task: TaskId, cpu: CpuRef, seen: &Seen<'_>) -> Option<GroupIx> {
        if leaves_out(task, seen) { None } else { self.row(seen.tasks.known(task), cpu, seen) }
    }

    /// What counts of something that took so long and ends with an event at `until`; none of what ends outside of the
    /// window.
    pub(super) fn ended(&self, until: Nanos, ns: Nanos) -> Option<Counts> {
        if !self.contains(until) {
            return None;
        }
        let from = until - ns;
        Some(match self.clip_wait(from, until) {
            Some((clipped, _)) if clipped == from => Counts::Sample(ns.0),
            Some((clipped, _)) => Counts::Censored((until - clipped).0),
            None => Counts::Censored(0),
        })
    }
}

/// Whether a task that an event names is to be left out. One of which nothing is known is, where the recording followed
/// some tasks only.
pub(super) fn leaves_out(task: TaskId, seen: &Seen<'_>) -> bool {
    let known = seen.tasks.known(task);
    let unknown = known.slot == super::tasks::NO_SLOT && !task.is_idle();
    seen.tasks.left_out(known) || (unknown && seen.tasks.filtered())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::question::{Answered, Question};
    use super::super::{BlockIo, Dispatch, Futexes, Interrupts, Ipis, Power, Syscalls, SystemUse};
    use super::*;
    use crate::event::{Cpu, Event, EventKind, Kind};

    #[test]
    fn a_full_table_counts_what_it_cannot_take() {
        let mut table = Table::<u32, u64, 4>::default();
        for key in 0..10 {
            if let Some(row) = table.at(key) {
                *row += u64::from(key);
            }
        }
        assert_eq!((table.iter().count(), table.others()), (4, 6));
        assert_eq!(table.ranked(|&row| row).iter().map(|&(key, _)| key).collect::<Vec<_>>(), [3, 2, 1]);
        assert!(table.at(2).is_some(), "who has a row keeps it");
    }

    #[test]
    fn a_tally_has_an_end() {
        let mut tally = Tally::default();
        (0..1_000).for_each(|key| tally.add(key, key + 1));
        tally.add(7, 1_000);
        assert_eq!(tally.top(usize::MAX).len(), MAX_TALLIED);
        assert_eq!(tally.top(2), [(7, 1_008), (63, 64)]);
    }

    #[test]
    fn folded_groups_are_counted_together() {
        let mut groups = super::super::groups::Groups::default();
        let [first, second] = [1, 2].map(|id| {
            let name = super::super::tasks::WhoName::NOBODY;
            groups.join(super::super::groups::Key::Task(TaskId(id)), name)
        });
        let mut tally = Tally::default();
        for (group, count) in [(first, 5), (second, 7), (GroupIx::OTHERS, 1)] {
            tally.add(group, count);
        }
        groups.leave(first);
        tally.fold(&groups.forget());
        assert_eq!(tally.top(3), [(second, 7), (GroupIx::OTHERS, 6)]);
    }

    /// Events of any kind with any values, or with such as come together.
    fn any_event() -> impl Strategy<Value = Event> {
        let value = prop_oneof![0..8u64, Just(255), Just(u64::from(u16::MAX)), Just(u32::MAX.into()), any::<u64>()];
        let kind = prop::sample::select(Kind::DECLARED.to_vec());
        (kind, prop::collection::vec(value, 6), 900..2_200u64, 0..3u16).prop_filter_map(
            "",
            |(kind, values, ts, cpu)| {
                let kind = EventKind::from_values(kind, &values)?;
                Some(Event { ts: Nanos(ts), cpu: Cpu(cpu), kind })
            },
        )
    }

    fn survives<Q: Question>(events: &[Event]) -> Answered<Q::Answer> {
        let answered = testing::asked::<Q>(events.to_vec(), vec![]);
        serde_json::to_string(&answered.answer).unwrap();
        answered
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nonsense_is_survived_and_times_add_up(
            mut events in prop::collection::vec(any_event(), 0..400),
            sorted in any::<bool>(),
        ) {
            if sorted {
                events.sort_by_key(|event| event.ts);
            }
            survives::<BlockIo>(&events);
            survives::<Dispatch>(&events);
            survives::<Futexes>(&events);
            survives::<Ipis>(&events);
            survives::<Syscalls>(&events);
            survives::<SystemUse>(&events);
            let report = survives::<Interrupts>(&events).answer;
            let total = report.total.hardirq_ns + report.total.softirq_ns + report.total.ipi_ns;
            let stolen: u64 = report.interrupted.iter().map(|row| row.stolen_ns).sum();
            prop_assert_eq!(total, stolen + report.idle_ns + report.unknown_ns);
            prop_assert_eq!(total, report.cpus.iter().map(|row| {
                row.times.hardirq_ns + row.times.softirq_ns + row.times.ipi_ns
            }).sum::<u64>());
            let power = survives::<Power>(&events);
            if sorted {
                let duration = power.about.window.duration_ns.0;
                prop_assert!(report.cpus.iter().all(|row| row.times.hardirq_ns <= duration));
                prop_assert!(total <= duration * report.cpus.len() as u64, "no moment is counted twice");
                for cpu in power.answer.cpus {
                    prop_assert_eq!(cpu.idle_ns + cpu.active_ns + cpu.unknown_ns, duration);
                }
            }
        }
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut mean = Mean::default();
        assert_eq!(mean.mean(), None);
        (0..3).for_each(|_| mean.add(u64::MAX, u64::MAX));
        assert_eq!(mean.count(), u64::MAX);
        assert!(mean.mean().is_some());
    }
}

/// What the tests of questions share: streams by hand, with the window `[1_000, 2_000)`.
#[cfg(test)]
pub(super) mod testing {
    use super::super::question::{Answered, Question, Study};
    use super::super::{Analysis, Options};
    use crate::event::{Batch, Comm, Cpu, Event, EventKind, Name, NameId, Nanos, Switch, Task, TaskId, TaskState};
    use crate::source::Meta;

    /// An event, at a moment and on a CPU.
    pub(in super::super) fn at(ts: u64, cpu: u16, kind: impl Into<EventKind>) -> Event {
        Event { ts: Nanos(ts), cpu: Cpu(cpu), kind: kind.into() }
    }

    /// A task goes to sleep, and another one comes; `u32::MAX` is the idle task.
    pub(in super::super) fn sleeping(ts: u64, cpu: u16, prev: u32, next: u32) -> Event {
        let id = |id| if id == u32::MAX { TaskId::idle(Cpu(cpu)) } else { TaskId(id) };
        let switch = Switch {
            prev: id(prev),
            next: id(next),
            prev_state: TaskState::INTERRUPTIBLE,
            preempted: false,
            prev_prio: 120,
            next_prio: 120,
        };
        at(ts, cpu, EventKind::Switch(switch))
    }

    pub(in super::super) fn named(id: u32, text: &str) -> Name {
        Name::new(NameId(id), Nanos(0), text.as_bytes())
    }

    /// Tasks 1 to 9: threads 101 to 109, of process 101 those up to 5, of process 106 the rest. Task 9 records.
    fn tasks() -> Vec<Task> {
        let task = |id: u32| Task {
            id: TaskId(id),
            tid: 100 + id,
            tgid: if id <= 5 { 101 } else { 106 },
            comm: Comm::new("worker"),
            kernel: false,
            recorder: id == 9,
            ..Task::idle(Cpu(0))
        };
        (1..=9).map(task).collect()
    }

    /// What a question answers to that. The recording began before the window, and goes on after it.
    pub(in super::super) fn asked<Q: Question>(events: Vec<Event>, names: Vec<Name>) -> Answered<Q::Answer> {
        answer(Study::<Q>::new, events, names)
    }

    /// The same of a question that takes more than options.
    pub(in super::super) fn asked_of<Q: Question>(
        study: impl FnOnce(Options) -> Study<Q>,
        events: Vec<Event>,
    ) -> Answered<Q::Answer> {
        answer(study, events, vec![])
    }

    fn answer<Q: Question>(
        study: impl FnOnce(Options) -> Study<Q>,
        events: Vec<Event>,
        names: Vec<Name>,
    ) -> Answered<Q::Answer> {
        let options = Options { from: Some(Nanos(1_000)), until: Some(Nanos(2_000)), ..Options::default() };
        let meta = Meta { started: Nanos(100), ended: Some(Nanos(3_000)), ..Meta::default() };
        let mut study = study(options);
        study.begin(&meta);
        study.update(&Batch { until: Nanos(3_000), events, names, tasks: tasks(), ..Batch::default() });
        study.finish(&meta);
        study.report()
    }
}
