//! Who the tasks are at each moment: an export names a task as it was called then.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::event::{self, Batch, Comm, Event, FieldType, NameId, Nanos, Task, TaskId};

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
    texts: HashMap<NameId, Arc<str>>,
    /// What tasks will be called after what has come: a recorded trace tells all names of a segment at once.
    later: Vec<Task>,
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

    /// A field's value as people read it.
    pub(super) fn value(&self, ty: FieldType, value: u64) -> String {
        event::text(ty, value, |id| self.texts.get(&id).map(|text| &**text))
    }

    /// The identities that hold from some time of this batch on, and from when, in the order of time. The first that is
    /// heard of a task holds for what it did before as well.
    pub(super) fn due(&mut self, batch: &Batch) -> Vec<(Nanos, Task)> {
        self.texts.extend(batch.names.iter().map(|name| (name.id, Arc::clone(&name.text))));
        let mut tasks = std::mem::take(&mut self.later);
        tasks.extend(&batch.tasks);
        tasks.sort_by_key(|task| task.since);
        let mut heard = HashSet::new();
        let (mut due, later): (Vec<_>, Vec<_>) = tasks
            .into_iter()
            .map(|task| {
                let first = heard.insert(task.id) && !self.known.contains_key(&task.id);
                (if first { Nanos::ZERO } else { task.since }, task)
            })
            .partition(|(from, _)| *from < batch.until);
        due.sort_by_key(|(from, _)| *from);
        self.later = later.into_iter().map(|(_, task)| task).collect();
        due
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

/// The events of a batch, and the identities that are due in it, in the order of time.
pub(super) fn steps<'a>(due: &'a [(Nanos, Task)], batch: &'a Batch) -> impl Iterator<Item = Step<'a>> {
    let mut tasks = due.iter().peekable();
    let mut events = batch.events.iter().peekable();
    let mut late = batch.late.iter();
    std::iter::from_fn(move || {
        let next = events.peek().map(|event| event.ts);
        tasks
            .next_if(|(from, _)| next.is_none_or(|next| *from <= next))
            .map(|(_, task)| Step::Task(task))
            .or_else(|| events.next().map(Step::Event))
            .or_else(|| late.next().map(Step::Late))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cpu, EventKind};

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
        let first = Batch {
            // Also where it is told early, and from its beginning where it is told late.
            tasks: vec![task(1, 25, "newest"), task(1, 20, "new"), task(1, 5, "old")],
            events: [3, 5, 19, 20].map(event).into(),
            late: vec![event(1)],
            until: Nanos(22),
            ..Batch::default()
        };
        let second = Batch { events: [22, 25].map(event).into(), until: Nanos(30), ..Batch::default() };
        let mut names = Names::default();
        let mut seen = Vec::new();
        for batch in [first, second] {
            let due = names.due(&batch);
            for step in steps(&due, &batch) {
                match step {
                    Step::Task(task) => assert!(names.take(task)),
                    Step::Event(event) | Step::Late(event) => {
                        seen.push((event.ts.0, names.of(TaskId(1)).comm.to_string()));
                    }
                }
            }
        }
        let expected = [(3, "old"), (5, "old"), (19, "old"), (20, "new"), (1, "new"), (22, "new"), (25, "newest")]
            .map(|(ts, name)| (ts, name.to_owned()));
        assert_eq!(seen, expected);
        assert!(!names.take(&task(1, 30, "newest")), "nothing is new");
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
