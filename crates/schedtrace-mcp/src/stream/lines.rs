//! Events as lines of JSON: `{"seq","ts_ns","cpu","event","task":{"tid","pid","comm"}, ...}`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use schedtrace_core::{
    Batch, Cgroup, CgroupId, Comm, Event, EventKind, FieldType, Kind, Name, NameId, Nanos, Task, TaskId,
};
use serde_json::{Map, Value, json};

use crate::answer::cleaned;

/// Characters of a name.
const MAX_NAME: usize = 200;

/// Who a task was at the moment of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) tid: u32,
    pub(super) pid: u32,
    pub(super) comm: Comm,
    pub(super) cgroup: CgroupId,
}

impl From<&Task> for Who {
    fn from(task: &Task) -> Self {
        Self { tid: task.tid, pid: task.tgid, comm: task.comm, cgroup: task.cgroup }
    }
}

/// An event that waits to be told.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) seq: u64,
    pub(super) event: Event,
    /// It came behind later ones.
    pub(super) late: bool,
    /// The tasks that it is about, as far as they are known, in the order of [`tasks`].
    pub(super) who: [Option<Who>; 2],
    /// What its names read, in the order of its fields.
    names: Option<Arc<[Arc<str>]>>,
}

/// Who is alive, and what is called how: what events are told with.
#[derive(Debug, Default)]
pub(super) struct Known {
    tasks: HashMap<TaskId, Task>,
    names: HashMap<NameId, Arc<str>>,
    cgroups: HashMap<CgroupId, Arc<str>>,
    /// Lives that ended at an event of this number: what comes late may speak of them still.
    over: VecDeque<(u64, TaskId)>,
}

impl Known {
    /// Takes note of what a batch tells, but for those of whom something changes in its course: who they are then, in the
    /// order of time.
    pub(super) fn learn(&mut self, batch: &Batch) -> VecDeque<Task> {
        let mut changes = Vec::new();
        for task in &batch.tasks {
            match self.tasks.entry(task.id) {
                Entry::Vacant(entry) => drop(entry.insert(*task)),
                Entry::Occupied(_) => changes.push(*task),
            }
        }
        changes.sort_by_key(|task| task.since);
        self.names.extend(batch.names.iter().map(|name| (name.id, Arc::clone(&name.text))));
        self.cgroups.extend(batch.cgroups.iter().map(|cgroup| (cgroup.id, Arc::clone(&cgroup.path))));
        changes.into()
    }

    /// Takes note of the changes until a moment.
    pub(super) fn change(&mut self, changes: &mut VecDeque<Task>, until: Nanos) {
        while let Some(task) = changes.front().filter(|task| task.since <= until).copied() {
            self.tasks.insert(task.id, task);
            changes.pop_front();
        }
    }

    /// Notes that lives are over, and forgets those that ended before this number.
    pub(super) fn forget(&mut self, events: &[Held], before: u64) {
        self.over.extend(events.iter().filter_map(|held| match held.event.kind {
            EventKind::Free { task } => Some((held.seq, task)),
            _ => None,
        }));
        while self.over.front().is_some_and(|(seq, _)| *seq < before) {
            if let Some((_, task)) = self.over.pop_front() {
                self.tasks.remove(&task);
            }
        }
    }

    /// All of it, for whoever comes later.
    pub(super) fn told(&self) -> Batch {
        let since = Nanos(0);
        Batch {
            tasks: self.tasks.values().copied().collect(),
            names: self.names.iter().map(|(&id, text)| Name { id, since, text: Arc::clone(text) }).collect(),
            cgroups: self.cgroups.iter().map(|(&id, path)| Cgroup { id, path: Arc::clone(path) }).collect(),
            ..Batch::default()
        }
    }

    /// An event with who it is about.
    pub(super) fn hold(&self, seq: u64, event: &Event, late: bool) -> Held {
        let who = tasks(&event.kind).map(|task| {
            let (_, id) = task?;
            id.idle_cpu().map(Task::idle).as_ref().or_else(|| self.tasks.get(&id)).map(Who::from)
        });
        let values = event.kind.values();
        let named = event.kind.kind().fields().iter().zip(&*values);
        let named = named.filter(|(field, _)| field.ty == FieldType::Name);
        let text = |value: &u64| {
            let id = u32::try_from(*value).ok().map(NameId);
            id.and_then(|id| self.names.get(&id)).cloned().unwrap_or_else(|| "".into())
        };
        let names: Vec<Arc<str>> = named.map(|(_, value)| text(value)).collect();
        Held { seq, event: *event, late, who, names: (!names.is_empty()).then(|| names.into()) }
    }
}

/// The tasks that an event is about, by what each is there.
fn tasks(kind: &EventKind) -> [Option<(&'static str, TaskId)>; 2] {
    let one = |task| [Some(("task", task)), None];
    match *kind {
        EventKind::Switch(e) => [Some(("task", e.next)), Some(("prev", e.prev))],
        EventKind::Waking(e) => [Some(("task", e.task)), Some(("current", e.current))],
        EventKind::WakeupNew(e) => [Some(("task", e.task)), Some(("parent", e.parent))],
        EventKind::Fork(e) => [Some(("task", e.child)), Some(("parent", e.parent))],
        EventKind::Migrate(e) => one(e.task),
        EventKind::Exec(e) => one(e.task),
        EventKind::Exit(e) => one(e.task),
        EventKind::Snapshot(e) => one(e.task),
        EventKind::Free { task } | EventKind::Rename { task } => one(task),
        _ => {
            let values = kind.values();
            let fields = kind.kind().fields().iter().zip(&*values).filter_map(|(field, &value)| {
                let id = u32::try_from(value).ok().map(TaskId)?;
                (field.ty == FieldType::Task).then_some((field.name, id))
            });
            let fields: Vec<_> = fields.take(2).collect();
            [fields.first().copied(), fields.get(1).copied()]
        }
    }
}

/// What an event says besides who it is about, with the names of the columns of its table.
fn details(held: &Held, line: &mut Map<String, Value>) {
    let mut with = |name: &str, value: Value| drop(line.insert(name.to_owned(), value));
    match held.event.kind {
        EventKind::Switch(e) => {
            with("prev_state", e.prev_state.letter().to_string().into());
            with("preempted", e.preempted.into());
            with("prev_prio", e.prev_prio.into());
            with("next_prio", e.next_prio.into());
        }
        EventKind::Waking(e) => {
            with("context", e.context.name().into());
            with("prev_cpu", e.prev_cpu.0.into());
            with("on_cpu", e.on_cpu.into());
            with("prio", e.prio.into());
        }
        EventKind::WakeupNew(e) => {
            with("target_cpu", e.target_cpu.0.into());
            with("prio", e.prio.into());
        }
        EventKind::Migrate(e) => {
            with("from_cpu", e.from.0.into());
            with("to_cpu", e.to.0.into());
            with("placed", e.placed.into());
            with("prio", e.prio.into());
        }
        EventKind::Exec(e) => with("old_tid", e.old_tid.into()),
        EventKind::Exit(e) => with("group_dead", e.group_dead.into()),
        declared => {
            let mut names = held.names.iter().flat_map(|names| names.iter());
            for (field, &value) in declared.kind().fields().iter().zip(&*declared.values()) {
                match field.ty {
                    // Told already, as who it is about.
                    FieldType::Task => {}
                    FieldType::Signed => with(field.name, (value as i64).into()),
                    FieldType::Flag => with(field.name, (value != 0).into()),
                    FieldType::Id => with(field.name, format!("{value:#x}").into()),
                    FieldType::Name => {
                        with(field.name, names.next().map_or(Value::Null, |name| cleaned(name, MAX_NAME).into()))
                    }
                    FieldType::Choice(choices) => {
                        let known = usize::try_from(value).ok().and_then(|at| choices.get(at));
                        with(field.name, known.map_or_else(|| value.into(), |name| (*name).into()));
                    }
                    _ => with(field.name, value.into()),
                }
            }
        }
    }
}

/// The line of an event.
pub(super) fn line(held: &Held) -> String {
    let Held { seq, event, late, who, .. } = held;
    let mut line = Map::new();
    line.insert("seq".into(), (*seq).into());
    line.insert("ts_ns".into(), event.ts.0.into());
    line.insert("cpu".into(), event.cpu.0.into());
    line.insert("event".into(), event.kind.kind().name().into());
    for (role, who) in tasks(&event.kind).into_iter().zip(who) {
        if let Some((role, _)) = role {
            let who = who
                .as_ref()
                .map(|who| json!({ "tid": who.tid, "pid": who.pid, "comm": cleaned(&who.comm.to_string(), MAX_NAME) }));
            line.insert(role.into(), who.into());
        }
    }
    details(held, &mut line);
    if *late {
        line.insert("late".into(), true.into());
    }
    Value::Object(line).to_string()
}

/// The line that says that events are missing here.
pub(super) fn lost(place: &str, kind: Option<Kind>, count: u64) -> String {
    json!({ "event": "lost", "place": place, "kind": kind.map(Kind::name), "count": count }).to_string()
}
