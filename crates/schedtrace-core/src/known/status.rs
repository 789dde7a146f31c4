//! What every task is doing, kept while a stream goes by: a segment or a window begins with it, so that it can be analysed
//! without what was before.
//!
//! It is the state machine of [`analysis::states`](crate::analysis::states) without intervals, causes of doubt, or CPUs: what
//! is stored is where that one has to go on from. A property test holds the two together.

use hashbrown::{HashMap, HashSet};

use super::MAX_TASKS;
use crate::event::{Cpu, Doing, Event, EventKind, Kind, Loss, Nanos, TaskId, TaskStatus};

/// Ids below are found without a hash: at most 4 MiB.
const LOW: u32 = 1 << 20;
const NO_SLOT: u32 = u32::MAX;

/// What the tasks are doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statuses {
    slots: Vec<TaskStatus>,
    free: Vec<u32>,
    low: Vec<u32>,
    high: HashMap<TaskId, u32>,
    /// What CPUs do of which the idle task has been seen: since when they have been idle, or not.
    cpus: HashMap<Cpu, (Nanos, bool)>,
    /// Switches or wakeups are missing until then: what was before is not known any more.
    lost_until: Option<Nanos>,
}

impl Statuses {
    #[inline]
    fn find(&self, task: TaskId) -> Option<usize> {
        let slot = match self.low.get(task.0 as usize) {
            Some(&slot) => slot,
            None if task.0 < LOW => NO_SLOT,
            None => self.high.get(&task).copied().unwrap_or(NO_SLOT),
        };
        (slot != NO_SLOT).then_some(slot as usize)
    }

    #[inline]
    fn set(&mut self, task: TaskId, since: Nanos, cpu: Cpu, doing: Doing) -> Option<&mut TaskStatus> {
        let slot = TaskStatus { task, since, cpu, doing };
        let at = match self.find(task) {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => self.admit(slot)?,
        };
        Some(&mut self.slots[at])
    }

    #[cold]
    fn admit(&mut self, slot: TaskStatus) -> Option<usize> {
        let task = slot.task;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None if self.slots.len() < MAX_TASKS => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        if task.0 >= LOW {
            self.high.insert(task, at);
        } else {
            if self.low.len() <= task.0 as usize {
                self.low.resize(task.0 as usize + 1, NO_SLOT);
            }
            self.low[task.0 as usize] = at;
        }
        Some(at as usize)
    }

    fn remove(&mut self, task: TaskId) {
        let Some(at) = self.find(task) else { return };
        match self.low.get_mut(task.0 as usize) {
            Some(slot) => *slot = NO_SLOT,
            None => drop(self.high.remove(&task)),
        }
        self.slots[at].task = TaskId(0);
        self.free.push(at as u32);
    }

    /// Takes what is known from before.
    pub(crate) fn known(&mut self, status: &TaskStatus) {
        match status.task.idle_cpu() {
            Some(cpu) => drop(self.cpus.insert(cpu, (status.since, matches!(status.doing, Doing::Running(_))))),
            None => drop(self.set(status.task, status.since, status.cpu, status.doing)),
        }
    }

    /// Takes note that events are missing.
    pub(crate) fn lost(&mut self, loss: &Loss) {
        let decisive =
            |kind| matches!(kind, Kind::Switch | Kind::Waking | Kind::WakeupNew | Kind::Migrate | Kind::Snapshot);
        if loss.count > 0 && loss.kind.is_none_or(decisive) {
            self.lost_until = self.lost_until.max(Some(loss.until));
        }
    }

    /// Takes note that what another one knows to be missing is missing here too.
    pub(crate) fn lost_as(&mut self, other: &Self) {
        self.lost_until = self.lost_until.max(other.lost_until);
    }

    /// Takes an event.
    #[inline]
    pub(crate) fn event(&mut self, event: &Event) {
        let (ts, cpu) = (event.ts, event.cpu);
        match &event.kind {
            EventKind::Switch(e) => {
                let idle = TaskId::idle(cpu);
                if e.prev == idle || e.next == idle {
                    self.cpus.insert(cpu, (ts, e.next == idle));
                }
                if !e.prev.is_idle() {
                    if e.prev_ends() {
                        self.remove(e.prev);
                    } else {
                        let was = self.find(e.prev).map(|at| self.slots[at].doing);
                        let doing = match was {
                            _ if e.prev_runnable() && e.prev_state.is_throttled() => Doing::Throttled,
                            _ if e.prev_runnable() => Doing::Preempted(e.next),
                            Some(Doing::Running(Some(waker))) => Doing::Waking(waker, e.prev_state),
                            _ => Doing::Asleep(e.prev_state),
                        };
                        self.set(e.prev, ts, cpu, doing);
                    }
                }
                if !e.next.is_idle() {
                    self.set(e.next, ts, cpu, Doing::Running(None));
                }
            }
            EventKind::Waking(e) if !e.task.is_idle() => {
                let doing = self.find(e.task).map(|at| &mut self.slots[at].doing);
                match doing {
                    Some(Doing::Running(held)) => *held = Some(e.waker()),
                    None | Some(Doing::Unknown) if e.on_cpu => {}
                    None | Some(Doing::Unknown | Doing::Asleep(_) | Doing::Waking(..)) => {
                        self.set(e.task, ts, e.prev_cpu, Doing::Woken(e.waker()));
                    }
                    Some(_) => {}
                }
            }
            EventKind::WakeupNew(e) if !e.task.is_idle() => {
                self.set(e.task, ts, e.target_cpu, Doing::New(e.parent));
            }
            EventKind::Migrate(e) => {
                let Some(status) = self.find(e.task).map(|at| &mut self.slots[at]) else { return };
                match status.doing {
                    Doing::Running(_) | Doing::Asleep(_) => return,
                    // A CPU is chosen for a task that was asleep, never for one that had been kept from sleeping.
                    Doing::Waking(waker, _) if e.placed => status.doing = Doing::Woken(waker),
                    _ => {}
                }
                status.cpu = e.to;
            }
            EventKind::HotplugExit(e) => {
                let Some(off) = e.offline(cpu) else { return };
                // Whoever was seen there last has left it, and nobody told.
                let left = |status: &&mut TaskStatus| status.cpu == off && matches!(status.doing, Doing::Running(_));
                self.slots.iter_mut().filter(left).for_each(|status| status.doing = Doing::Unknown);
            }
            EventKind::Snapshot(e) if !e.task.is_idle() && self.find(e.task).is_none() => {
                let doing = if e.running { Doing::Running(None) } else { Doing::Waiting };
                self.set(e.task, ts, cpu, doing);
            }
            EventKind::Free { task }
                if self.find(*task).is_some_and(|at| !matches!(self.slots[at].doing, Doing::Running(_))) =>
            {
                self.remove(*task);
            }
            _ => {}
        }
    }

    /// What a segment or a window that follows begins with, by task.
    pub(crate) fn carry(&self) -> Vec<TaskStatus> {
        // What came after the last loss is known again.
        let known = |status: TaskStatus| match self.lost_until {
            Some(lost) if status.since <= lost => TaskStatus { doing: Doing::Unknown, ..status },
            _ => status,
        };
        let tasks = self.slots.iter().filter(|slot| slot.task != TaskId(0)).map(|slot| known(*slot));
        let mut all: Vec<TaskStatus> = tasks.collect();
        let running = all.iter().filter(|status| matches!(status.doing, Doing::Running(_))).map(|status| status.cpu);
        let busy: HashSet<Cpu> = running.collect();
        for (&cpu, &(since, idle)) in self.cpus.iter().filter(|(cpu, _)| !busy.contains(*cpu)) {
            let doing = if idle { Doing::Running(None) } else { Doing::Unknown };
            all.push(known(TaskStatus { task: TaskId::idle(cpu), since, cpu, doing }));
        }
        all.sort_unstable_by_key(|status| status.task);
        all
    }
}
