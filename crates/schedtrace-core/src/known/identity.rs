//! Who is alive: the identities with which a segment or a window begins, so that it can be read without what was before.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::Note;
use crate::event::{Cgroup, CgroupId, Cpu, Event, EventKind, Nanos, Task, TaskId};

/// The most tasks that are carried from segment to segment. More than any machine runs; it bounds what a lossy recording
/// accumulates when it misses the ends of lives.
pub(crate) const MAX_TASKS: usize = 400_000;
/// When the paths of cgroups take more than this many bytes, those in which no task is alive are not carried on.
const MAX_PATH_BYTES: usize = 8 << 20;
/// What a path takes besides its text.
const PATH_OVERHEAD: usize = 64;

/// The tasks that are alive, and the paths of cgroups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identities {
    tasks: HashMap<TaskId, (Task, Nanos)>,
    /// Which life has a thread id now: when another takes it, the one before has ended, even if nobody saw it.
    by_tid: HashMap<u32, TaskId>,
    idle: Idle,
    cgroups: HashMap<CgroupId, (Arc<str>, Nanos)>,
    path_bytes: usize,
}

impl Identities {
    /// Takes note of an identity that was announced when the stream had come to `now`; returns the time under which it
    /// is to be stored.
    ///
    /// An identity holds for late events too, which are sorted to their place before it: hence the time since which it
    /// holds, if that is earlier. Never before an earlier identity of the same task, or sorting would swap the two.
    pub(crate) fn task(&mut self, task: &Task, now: Nanos) -> Nanos {
        let mut seen = now.min(task.since);
        if let Some(cpu) = idle_cpu(task.id) {
            self.idle.insert(cpu);
            return seen;
        }
        if let Some(before) = self.by_tid.insert(task.tid, task.id).filter(|before| *before != task.id) {
            self.tasks.remove(&before);
        }
        let room = self.tasks.len() < MAX_TASKS;
        match self.tasks.entry(task.id) {
            Entry::Occupied(mut entry) => {
                let (before, seen_before) = *entry.get();
                seen = seen.max(seen_before);
                entry.insert((*task, seen));
                if before.tid != task.tid && self.by_tid.get(&before.tid) == Some(&task.id) {
                    self.by_tid.remove(&before.tid);
                }
            }
            Entry::Vacant(entry) if room => drop(entry.insert((*task, seen))),
            Entry::Vacant(_) => drop(self.by_tid.remove(&task.tid)),
        }
        seen
    }

    /// Takes note of a cgroup's path that was announced when the stream had come to `now`.
    pub(crate) fn cgroup(&mut self, cgroup: &Cgroup, now: Nanos) {
        if self.path_bytes > MAX_PATH_BYTES {
            self.forget_unused_cgroups();
        }
        if self.path_bytes <= MAX_PATH_BYTES {
            self.path_bytes += cgroup.path.len() + PATH_OVERHEAD;
            if let Some((before, _)) = self.cgroups.insert(cgroup.id, (Arc::clone(&cgroup.path), now)) {
                self.path_bytes -= before.len() + PATH_OVERHEAD;
            }
        }
    }

    fn forget_unused_cgroups(&mut self) {
        let used: hashbrown::HashSet<CgroupId> = self.tasks.values().map(|(task, _)| task.cgroup).collect();
        self.cgroups.retain(|id, _| used.contains(id));
        self.path_bytes = self.cgroups.values().map(|(path, _)| path.len() + PATH_OVERHEAD).sum();
    }

    /// Takes note of an event: of lives that end. Returns the idle tasks that were not seen before.
    #[inline]
    pub(crate) fn event(&mut self, event: &Event) -> impl Iterator<Item = Cpu> + use<> {
        let (a, b) = match &event.kind {
            EventKind::Switch(e) => {
                if e.prev_ends() {
                    self.end(e.prev);
                }
                (e.prev, e.next)
            }
            EventKind::Waking(e) => (e.task, e.current),
            EventKind::WakeupNew(e) => (e.task, e.parent),
            EventKind::Fork(e) => (e.parent, e.child),
            EventKind::Free { task } => {
                self.end(*task);
                (*task, *task)
            }
            EventKind::Migrate(e) => (e.task, e.task),
            EventKind::Exec(e) => (e.task, e.task),
            EventKind::Exit(e) => (e.task, e.task),
            EventKind::Rename { task } => (*task, *task),
            EventKind::Snapshot(e) => (e.task, e.task),
            declared => declared.task().map_or((TaskId(0), TaskId(0)), |task| (task, task)),
        };
        let mut new = |task: TaskId| idle_cpu(task).filter(|cpu| self.idle.insert(*cpu));
        [new(a), new(b)].into_iter().flatten()
    }

    fn end(&mut self, task: TaskId) {
        if let Some((task, _)) = self.tasks.remove(&task)
            && self.by_tid.get(&task.tid) == Some(&task.id)
        {
            self.by_tid.remove(&task.tid);
        }
    }

    /// What a new segment begins with: idle tasks, then the others by id.
    pub(crate) fn carry_tasks(&self) -> impl Iterator<Item = Note<Task>> {
        let mut alive: Vec<TaskId> = self.tasks.keys().copied().collect();
        alive.sort_unstable();
        let idle = self.idle.cpus().map(|cpu| Note { seen: Nanos::ZERO, carried: true, item: Task::idle(cpu) });
        let alive = alive.into_iter().filter_map(|id| self.tasks.get(&id));
        idle.chain(alive.map(|&(item, seen)| Note { seen, carried: true, item }))
    }

    /// What a new segment begins with: the paths of cgroups by id.
    pub(crate) fn carry_cgroups(&self) -> impl Iterator<Item = Note<Cgroup>> {
        let mut ids: Vec<CgroupId> = self.cgroups.keys().copied().collect();
        ids.sort_unstable();
        let known = ids.into_iter().filter_map(|id| self.cgroups.get_key_value(&id));
        known.map(|(&id, (path, seen))| Note {
            seen: *seen,
            carried: true,
            item: Cgroup { id, path: Arc::clone(path) },
        })
    }
}

/// The CPU of an idle task's id, if it is one that [`TaskId::idle`] makes.
pub(crate) fn idle_cpu(task: TaskId) -> Option<Cpu> {
    task.idle_cpu().filter(|cpu| TaskId::idle(*cpu) == task)
}

/// The CPUs whose idle tasks were seen: a bit for each of the 65,536 possible.
#[derive(Clone, Debug)]
struct Idle(Box<[u64; 1024]>);

impl Default for Idle {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl Idle {
    /// Whether it was not there before.
    #[inline]
    fn insert(&mut self, cpu: Cpu) -> bool {
        let (word, bit) = (usize::from(cpu.0 / 64), 1 << (cpu.0 % 64));
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    fn cpus(&self) -> impl Iterator<Item = Cpu> {
        (0..=u16::MAX).filter(|cpu| self.0[usize::from(cpu / 64)] & (1 << (cpu % 64)) != 0).map(Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Comm, Switch, TaskState};

    fn task(id: u32, tid: u32, since: u64) -> Task {
        Task {
            id: TaskId(id),
            since: Nanos(since),
            tid,
            tgid: tid,
            ppid: 1,
            comm: Comm::new("t"),
            cgroup: CgroupId(7),
            start: Nanos(1),
            kernel: false,
            recorder: false,
        }
    }

    fn alive(identities: &Identities) -> Vec<u32> {
        identities.carry_tasks().map(|note| note.item.id.0).collect()
    }

    fn switch(prev: TaskId, next: TaskId, prev_state: TaskState) -> Event {
        let kind = Switch { prev, next, prev_state, preempted: false, prev_prio: 120, next_prio: 120 };
        Event { ts: Nanos(5), cpu: Cpu(0), kind: EventKind::Switch(kind) }
    }

    #[test]
    fn a_life_ends_at_its_last_switch_or_when_it_is_freed() {
        let mut identities = Identities::default();
        for id in 1..=3 {
            identities.task(&task(id, id, 0), Nanos(0));
        }
        assert_eq!(identities.event(&switch(TaskId(1), TaskId(2), TaskState::DEAD)).count(), 0);
        assert_eq!(alive(&identities), [2, 3]);
        let free = Event { ts: Nanos(6), cpu: Cpu(0), kind: EventKind::Free { task: TaskId(3) } };
        assert_eq!(identities.event(&free).count(), 0);
        assert_eq!(alive(&identities), [2]);
    }

    #[test]
    fn a_thread_id_that_is_used_again_ends_the_life_that_had_it() {
        let mut identities = Identities::default();
        identities.task(&task(1, 50, 0), Nanos(0));
        identities.task(&task(2, 50, 9), Nanos(9));
        assert_eq!(alive(&identities), [2]);
        // An exec by a thread that is not the leader: it takes the leader's id, and its own is free.
        identities.task(&task(2, 40, 10), Nanos(10));
        identities.task(&task(3, 50, 11), Nanos(11));
        assert_eq!(alive(&identities), [2, 3]);
    }

    #[test]
    fn idle_tasks_are_told_once_and_carried() {
        let mut identities = Identities::default();
        let idle = TaskId::idle(Cpu(300));
        let first: Vec<Cpu> = identities.event(&switch(idle, TaskId(1), TaskState::RUNNING)).collect();
        assert_eq!(first, [Cpu(300)]);
        assert_eq!(identities.event(&switch(idle, TaskId(1), TaskState::RUNNING)).count(), 0);
        assert_eq!(alive(&identities), [idle.0]);
        // No idle task has such an id, whatever its low bits say.
        assert_eq!(idle_cpu(TaskId(0x8001_0000)), None);
    }

    #[test]
    fn an_identity_is_stored_no_later_than_it_holds_and_never_before_its_predecessor() {
        let mut identities = Identities::default();
        assert_eq!(identities.task(&task(1, 1, 70), Nanos(100)), Nanos(70));
        assert_eq!(identities.task(&task(1, 1, 30), Nanos(200)), Nanos(70));
        assert_eq!(identities.task(&task(1, 1, 250), Nanos(200)), Nanos(200));
    }

    #[test]
    fn paths_of_unused_cgroups_do_not_pile_up() {
        let mut identities = Identities::default();
        identities.task(&task(1, 1, 0), Nanos(0));
        let path: Arc<str> = "/x".repeat(2000).into();
        for id in 0..5000 {
            identities.cgroup(&Cgroup { id: CgroupId(id), path: Arc::clone(&path) }, Nanos(0));
        }
        assert!(identities.path_bytes <= MAX_PATH_BYTES + path.len() + PATH_OVERHEAD);
        let kept = identities.carry_cgroups().map(|note| note.item.id.0).collect::<Vec<_>>();
        assert!(kept.contains(&7), "the one in use stays");
        assert_eq!(kept.len() * (path.len() + PATH_OVERHEAD), identities.path_bytes);
    }
}
