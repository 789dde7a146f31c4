//! Who the tasks are at each moment: an export names a task as it was called then.

use hashbrown::HashMap;

use crate::event::{Batch, Comm, Event, Task, TaskId};

/// Thread ids from here on belong to tasks whose identity was lost: Linux gives none beyond 2^22 (`PID_MAX_LIMIT` in
/// `include/linux/threads.h`).
pub const UNKNOWN_TID: u32 = 1 << 30;

/// A thread, by the ids and the name that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) tid: u32,
    pub(super) tgid: u32,
    pub(super) comm: Comm,
}

/// The tasks that are known at the time to which the stream has come.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<TaskId, Task>,
    /// Those whose structures the kernel gave back in this batch and in the one before, of which events may come late.
    freed: [Vec<TaskId>; 2],
}

impl Names {
    pub(super) fn of(&self, id: TaskId) -> Name {
        let name = |task: &Task| Name { tid: task.tid, tgid: task.tgid, comm: task.comm };
        match (id.idle_cpu(), self.known.get(&id)) {
            (Some(cpu), _) => name(&Task::idle(cpu)),
            (None, Some(task)) => name(task),
            (None, None) => {
                let tid = UNKNOWN_TID | (id.0 & (UNKNOWN_TID - 1));
                Name { tid, tgid: tid, comm: Comm::new(&format!("<task {}>", id.0)) }
            }
        }
    }

    /// Takes an identity; whether something of the name is new.
    pub(super) fn take(&mut self, task: &Task) -> bool {
        let before = self.known.contains_key(&task.id).then(|| self.of(task.id));
        self.known.insert(task.id, *task);
        !task.id.is_idle() && before != Some(self.of(task.id))
    }

    /// A life is over.
    pub(super) fn free(&mut self, id: TaskId) {
        self.freed[0].push(id);
    }

    /// Forgets who has been gone for long enough, after a batch.
    pub(super) fn forget(&mut self) {
        for id in self.freed[1].drain(..) {
            self.known.remove(&id);
        }
        self.freed.swap(0, 1);
    }
}

/// What a batch says, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// Who somebody is from now on.
    Task(&'a Task),
    Event(&'a Event),
    /// It has no place in the order.
    Late(&'a Event),
}

/// The identities and events of a batch in the order of time.
pub(super) fn steps(batch: &Batch) -> impl Iterator<Item = Step<'_>> {
    let mut tasks: Vec<&Task> = batch.tasks.iter().collect();
    tasks.sort_by_key(|task| task.since);
    let mut tasks = tasks.into_iter().peekable();
    let mut events = batch.events.iter().peekable();
    let mut late = batch.late.iter();
    std::iter::from_fn(move || {
        let next = events.peek().map(|event| event.ts);
        tasks
            .next_if(|task| next.is_none_or(|next| task.since <= next))
            .map(Step::Task)
            .or_else(|| events.next().map(Step::Event))
            .or_else(|| late.next().map(Step::Late))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cpu, EventKind, Nanos};

    fn task(id: u32, since: u64, comm: &str) -> Task {
        Task {
            id: TaskId(id),
            tid: id * 10,
            tgid: id * 10,
            since: Nanos(since),
            comm: Comm::new(comm),
            ..Task::idle(Cpu(0))
        }
    }

    fn event(ts: u64) -> Event {
        Event { ts: Nanos(ts), cpu: Cpu(0), kind: EventKind::Free { task: TaskId(1) } }
    }

    #[test]
    fn a_name_holds_from_its_own_time_on() {
        let batch = Batch {
            tasks: vec![task(1, 20, "new"), task(1, 5, "old")],
            events: vec![event(5), event(19), event(20)],
            late: vec![event(1)],
            ..Batch::default()
        };
        let mut names = Names::default();
        let mut seen = Vec::new();
        for step in steps(&batch) {
            match step {
                Step::Task(task) => assert!(names.take(task)),
                Step::Event(event) | Step::Late(event) => {
                    seen.push((event.ts.0, names.of(TaskId(1)).comm.to_string()));
                }
            }
        }
        let expected = [(5, "old"), (19, "old"), (20, "new"), (1, "new")].map(|(ts, name)| (ts, name.to_owned()));
        assert_eq!(seen, expected);
        assert!(!names.take(&task(1, 30, "new")), "nothing is new");
    }

    #[test]
    fn who_is_gone_is_remembered_for_a_while_and_nobody_stands_for_another() {
        let mut names = Names::default();
        names.take(&task(1, 0, "one"));
        names.free(TaskId(1));
        names.forget();
        assert_eq!(names.of(TaskId(1)).tid, 10);
        names.forget();
        assert_eq!(names.of(TaskId(1)).tid, UNKNOWN_TID | 1);
        assert_eq!(names.of(TaskId::idle(Cpu(3))).tid, 0);
    }
}
