//! Where tasks are, as the stream says it: no figures, only the last word on each.

use std::collections::HashMap;
use std::sync::Arc;

use schedtrace_core::{Batch, CgroupId, Cpu, EventKind, Nanos, TaskId};

/// So many tasks are known: of more, the first ones.
const MOST: usize = 1 << 17;

/// The cgroup of each task, and the CPU that it had last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    until: Option<Nanos>,
    seats: HashMap<TaskId, Seat>,
    paths: HashMap<CgroupId, Arc<str>>,
    /// The first threads of processes, by the ids of these.
    leaders: HashMap<u32, TaskId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    cgroup: Option<CgroupId>,
    cpu: Option<Cpu>,
}

impl Roster {
    /// As it was at a moment, or at the end.
    pub(crate) fn new(until: Option<Nanos>) -> Self {
        Self { until, ..Self::default() }
    }

    fn seat(&mut self, task: TaskId) -> Option<&mut Seat> {
        let is_full = self.seats.len() >= MOST;
        if is_full && !self.seats.contains_key(&task) {
            return None;
        }
        Some(self.seats.entry(task).or_default())
    }

    pub(crate) fn update(&mut self, batch: &Batch) {
        let is_over = |at: Nanos, until: Option<Nanos>| until.is_some_and(|until| at >= until);
        for task in &batch.tasks {
            if !is_over(task.since, self.until)
                && let Some(seat) = self.seat(task.id)
            {
                seat.cgroup = Some(task.cgroup);
                if task.tid == task.tgid {
                    self.leaders.insert(task.tgid, task.id);
                }
            }
        }
        self.paths.extend(batch.cgroups.iter().map(|cgroup| (cgroup.id, Arc::clone(&cgroup.path))));
        for event in &batch.events {
            if let EventKind::Switch(switch) = &event.kind
                && !is_over(event.ts, self.until)
                && let Some(seat) = self.seat(switch.next)
            {
                seat.cpu = Some(event.cpu);
            }
        }
    }

    /// Its path, or its number where nobody named it.
    pub(crate) fn cgroup(&self, task: TaskId) -> Option<String> {
        let id = self.seats.get(&task)?.cgroup?;
        Some(self.paths.get(&id).map_or_else(|| format!("cgroup {}", id.0), ToString::to_string))
    }

    /// The first thread of a process.
    pub(crate) fn leader(&self, pid: u32) -> Option<TaskId> {
        self.leaders.get(&pid).copied()
    }

    pub(crate) fn cpu(&self, task: TaskId) -> Option<Cpu> {
        self.seats.get(&task)?.cpu
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedtrace_core::{Cgroup, Event, Switch, Task, TaskState};

    #[test]
    fn the_last_word_holds() {
        let task = |since, cgroup| Task {
            id: TaskId(7),
            since: Nanos(since),
            tid: 42,
            tgid: 42,
            cgroup: CgroupId(cgroup),
            ..Task::idle(Cpu(0))
        };
        let switch = |ts, cpu| {
            let switch = Switch {
                prev: TaskId::idle(Cpu(cpu)),
                next: TaskId(7),
                prev_state: TaskState::default(),
                preempted: false,
                prev_prio: 120,
                next_prio: 120,
            };
            Event { ts: Nanos(ts), cpu: Cpu(cpu), kind: EventKind::Switch(switch) }
        };
        let batch = Batch {
            tasks: vec![task(10, 1), task(50, 2)],
            cgroups: vec![Cgroup { id: CgroupId(1), path: "/web".into() }],
            events: vec![switch(20, 3), switch(60, 4)],
            ..Batch::default()
        };
        let told = |until| {
            let mut roster = Roster::new(until);
            roster.update(&batch);
            (roster.cgroup(TaskId(7)), roster.cpu(TaskId(7)), roster.leader(42), roster.cpu(TaskId(8)))
        };
        assert_eq!(told(Some(Nanos(40))), (Some("/web".into()), Some(Cpu(3)), Some(TaskId(7)), None));
        assert_eq!(told(None), (Some("cgroup 2".into()), Some(Cpu(4)), Some(TaskId(7)), None));
    }
}
