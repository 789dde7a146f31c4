//! The CPUs: what each one does now, and who has had it in the recent past.

use std::collections::VecDeque;

use super::groups::{Gone, GroupIx};
use super::tasks::{TaskRef, Tasks};
use crate::event::{Cpu, Nanos, TaskId};

/// So many CPUs are told apart (the largest `NR_CPUS` that distributions build with); events on more are ignored.
pub(super) const MAX_CPUS: usize = 1 << 13;
/// So many intervals are remembered of all CPUs together, 16 MiB, but of each one at least and at most so many: a wait of
/// a second on a busy CPU spans ten thousand.
const INTERVALS: usize = 1 << 20;
const MIN_INTERVALS: usize = 1 << 12;
pub(super) const MAX_INTERVALS: usize = 1 << 16;

/// A CPU in an event, and where its state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuRef {
    /// Which.
    pub cpu: Cpu,
    pub(super) at: u16,
}

/// Who has a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// A task.
    Task(TaskRef),
    /// Nobody: the idle task.
    Idle,
    /// Nobody knows: events are missing, or none has come yet.
    Unseen,
}

/// One CPU.
#[derive(Debug)]
pub(super) struct CpuState {
    pub(super) cpu: CpuRef,
    /// Whether the recording's filters let it pass.
    pub(super) watched: bool,
    /// Its group, where groups are CPUs.
    pub(super) group: GroupIx,
    /// Who has it, since when.
    pub(super) on: Occupant,
    on_group: GroupIx,
    pub(super) since: Nanos,
    /// Nothing was heard of it yet.
    pub(super) fresh: bool,
    /// Whoever has it has had it since before that.
    pub(super) cut: bool,
    past: VecDeque<Interval>,
    past_from: Nanos,
}

/// Begins where the one before ends.
#[derive(Clone, Copy, Debug)]
struct Interval {
    until: Nanos,
    task: TaskId,
    group: GroupIx,
}

/// Who had a CPU for how long, as told by [`Cpus::held`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Meaningless where the group is idle or unseen.
    pub(super) task: TaskId,
    pub(super) group: GroupIx,
    pub(super) ns: u64,
}

/// All CPUs: who has each, and who has had it in the recent past.
#[derive(Debug, Default)]
pub struct Cpus {
    /// By number: place in the list, plus one. At most 2 * 65,536 bytes.
    index: Vec<u16>,
    pub(super) list: Vec<CpuState>,
    /// So many intervals are remembered of each.
    most: usize,
    /// Somebody will ask who has had them: remembering it takes about 9 ns of every event (docs/performance.md).
    remembers: bool,
    /// Everyone who ran at the start has been told: a CPU that was not named was idle, and has been as long as it is
    /// silent.
    pub(super) silence_is_idle: bool,
}

impl Cpus {
    /// CPUs of which [`held`](Self::held) can be asked.
    pub(super) fn that_remember() -> Self {
        Self { remembers: true, ..Self::default() }
    }

    /// Who has a CPU, and since when. None for a CPU that was never heard of and is not in the topology.
    #[must_use]
    pub fn on(&self, cpu: Cpu) -> Option<(Occupant, Nanos)> {
        let state = self.at(self.get(cpu)?);
        Some((if self.silent(state) { Occupant::Idle } else { state.on }, state.since))
    }

    /// The CPU of this number, if there is one.
    pub(super) fn get(&self, cpu: Cpu) -> Option<CpuRef> {
        let at = self.index.get(cpu.0 as usize)?.checked_sub(1)?;
        Some(CpuRef { cpu, at })
    }

    /// Makes a place for a CPU of which nothing is known from `since` on. None if there are too many.
    pub(super) fn add(&mut self, cpu: Cpu, watched: bool, group: GroupIx, since: Nanos) -> Option<CpuRef> {
        if self.list.len() >= MAX_CPUS {
            return None;
        }
        let at = self.list.len() as u16;
        if self.index.len() <= cpu.0 as usize {
            self.index.resize(cpu.0 as usize + 1, 0);
        }
        self.index[cpu.0 as usize] = at + 1;
        let cpu = CpuRef { cpu, at };
        self.list.push(CpuState {
            cpu,
            watched,
            group,
            on: Occupant::Unseen,
            on_group: GroupIx::UNSEEN,
            since,
            fresh: true,
            cut: false,
            past: VecDeque::new(),
            past_from: since,
        });
        self.most = (INTERVALS / self.list.len()).clamp(MIN_INTERVALS, MAX_INTERVALS);
        Some(cpu)
    }

    pub(super) fn at(&self, cpu: CpuRef) -> &CpuState {
        &self.list[cpu.at as usize]
    }

    pub(super) fn at_mut(&mut self, cpu: CpuRef) -> &mut CpuState {
        &mut self.list[cpu.at as usize]
    }

    /// From `at` on, `on` has the CPU; until then it was `was`.
    pub(super) fn turn(&mut self, cpu: CpuRef, was: Occupant, at: Nanos, on: Occupant, tasks: &Tasks) {
        self.push(cpu, was, at, tasks);
        let on_group = if self.remembers { group(on, tasks) } else { GroupIx::UNSEEN };
        let state = self.at_mut(cpu);
        (state.on, state.on_group, state.since, state.cut) = (on, on_group, at, false);
    }

    /// Remembers that `who` had the CPU from the end of what is remembered until `until`.
    pub(super) fn push(&mut self, cpu: CpuRef, who: Occupant, until: Nanos, tasks: &Tasks) {
        if self.remembers {
            let most = self.most;
            self.at_mut(cpu).push(who, until, most, tasks);
        }
    }

    /// Somebody, or nobody, has had a CPU since some time before the first event; nothing was heard of it until then.
    pub(super) fn recall(&mut self, cpu: CpuRef, (since, cut): (Nanos, bool), on: Occupant, tasks: &Tasks) {
        self.turn(cpu, Occupant::Unseen, since, on, tasks);
        let state = self.at_mut(cpu);
        (state.fresh, state.cut) = (false, cut);
    }

    /// The CPUs that the recording watched.
    pub(super) fn watched(&self) -> impl Iterator<Item = &CpuState> {
        self.list.iter().filter(|cpu| cpu.watched)
    }

    /// Who has had `cpu` in `[from, until)`, the latest first. What is no longer remembered is unseen.
    pub(super) fn held(&self, cpu: CpuRef, from: Nanos, until: Nanos, mut each: impl FnMut(Held)) {
        let state = self.at(cpu);
        if !self.silent(state) {
            state.held(from, until, each);
        } else if until > from {
            each(Held { task: TaskId::idle(cpu.cpu), group: GroupIx::IDLE, ns: (until - from).0 });
        }
    }

    /// Whether the CPU is idle because it was never heard of.
    pub(super) fn silent(&self, cpu: &CpuState) -> bool {
        cpu.fresh && self.silence_is_idle
    }

    pub(super) fn fold(&mut self, gone: &Gone) {
        for cpu in &mut self.list {
            cpu.on_group = gone.now(cpu.on_group);
            for interval in &mut cpu.past {
                interval.group = gone.now(interval.group);
            }
        }
    }
}

impl CpuState {
    /// It turns out that this task has had it since the beginning.
    pub(super) fn take(&mut self, task: TaskRef, tasks: &Tasks) {
        self.on = Occupant::Task(task);
        self.on_group = tasks.group_of(task);
        self.fresh = false;
    }

    /// It turns out that the one who had it has left at some time.
    pub(super) fn gone(&mut self) {
        self.on = Occupant::Unseen;
        self.on_group = GroupIx::UNSEEN;
    }

    fn push(&mut self, who: Occupant, until: Nanos, most: usize, tasks: &Tasks) {
        let from = self.past.back().map_or(self.past_from, |last| last.until);
        if until <= from {
            return;
        }
        let task = match who {
            Occupant::Task(task) => task.id,
            Occupant::Idle | Occupant::Unseen => TaskId::idle(self.cpu.cpu),
        };
        let group = group(who, tasks);
        if let Some(last) = self.past.back_mut()
            && (last.task, last.group) == (task, group)
        {
            last.until = until;
            return;
        }
        while self.past.len() >= most
            && let Some(first) = self.past.pop_front()
        {
            self.past_from = first.until;
        }
        self.past.push_back(Interval { until, task, group });
    }

    fn held(&self, from: Nanos, until: Nanos, mut each: impl FnMut(Held)) {
        let mut give = |task, group, from: Nanos, until: Nanos| {
            if until > from {
                each(Held { task, group, ns: (until - from).0 });
            }
        };
        let now = match self.on {
            Occupant::Task(task) => task.id,
            Occupant::Idle | Occupant::Unseen => TaskId::idle(self.cpu.cpu),
        };
        let known_until = self.past.back().map_or(self.past_from, |last| last.until);
        give(now, self.on_group, from.max(known_until), until);
        // Mostly all of it is recent; an old segment of a wait takes a search.
        let end = if until >= known_until {
            self.past.len()
        } else {
            (self.past.partition_point(|interval| interval.until < until) + 1).min(self.past.len())
        };
        let mut intervals = self.past.range(..end).rev();
        let mut last = intervals.next();
        while let Some(interval) = last {
            if interval.until <= from {
                return;
            }
            last = intervals.next();
            let began = last.map_or(self.past_from, |before| before.until);
            give(interval.task, interval.group, began.max(from), interval.until.min(until));
        }
        give(TaskId::idle(self.cpu.cpu), GroupIx::UNSEEN, from, self.past_from.min(until));
    }
}

fn group(who: Occupant, tasks: &Tasks) -> GroupIx {
    match who {
        Occupant::Task(task) => tasks.group_of(task),
        Occupant::Idle => GroupIx::IDLE,
        Occupant::Unseen => GroupIx::UNSEEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(intervals: u32) -> (Cpus, CpuRef, Tasks) {
        let (mut cpus, mut tasks) = (Cpus::that_remember(), Tasks::default());
        let cpu = cpus.add(Cpu(300), true, GroupIx::OTHERS, Nanos(0)).unwrap();
        for n in 0..intervals {
            // Task n + 1 has the CPU in [10 n, 10 n + 10).
            let was = Occupant::Task(tasks.find(TaskId(n + 1)));
            cpus.turn(cpu, was, Nanos(u64::from(n) * 10 + 10), Occupant::Idle, &tasks);
        }
        (cpus, cpu, tasks)
    }

    fn held(cpus: &Cpus, cpu: CpuRef, from: u64, until: u64) -> Vec<(u32, u64)> {
        let mut all = Vec::new();
        cpus.held(cpu, Nanos(from), Nanos(until), |held| {
            let who = match held.group {
                GroupIx::IDLE => 0,
                GroupIx::UNSEEN => u32::MAX,
                _ => held.task.0,
            };
            all.push((who, held.ns));
        });
        all
    }

    #[test]
    fn any_stretch_of_the_past_can_be_asked_for() {
        let (cpus, cpu, _) = history(3);
        assert_eq!(held(&cpus, cpu, 0, 35), [(0, 5), (3, 10), (2, 10), (1, 10)]);
        assert_eq!(held(&cpus, cpu, 5, 12), [(2, 2), (1, 5)]);
        assert_eq!(held(&cpus, cpu, 10, 20), [(2, 10)]);
        assert_eq!(held(&cpus, cpu, 31, 35), [(0, 4)]);
        assert_eq!(held(&cpus, cpu, 7, 7), []);
    }

    #[test]
    fn what_fell_out_is_unseen() {
        let more = MAX_INTERVALS as u32 + 2;
        let (cpus, cpu, _) = history(more);
        assert_eq!(cpus.at(cpu).past.len(), MAX_INTERVALS);
        assert_eq!(held(&cpus, cpu, 5, 25), [(3, 5), (u32::MAX, 15)]);
        let all: u64 = held(&cpus, cpu, 0, u64::from(more) * 10).iter().map(|(_, ns)| ns).sum();
        assert_eq!(all, u64::from(more) * 10, "every nanosecond is told once");
    }

    #[test]
    fn there_is_an_end_to_cpus() {
        let mut cpus = Cpus::default();
        let made = (0..=u16::MAX).filter(|&n| cpus.add(Cpu(n), true, GroupIx::OTHERS, Nanos(0)).is_some()).count();
        assert_eq!(made, MAX_CPUS);
        assert!(cpus.get(Cpu(7)).is_some() && cpus.get(Cpu(u16::MAX)).is_none());
    }
}
