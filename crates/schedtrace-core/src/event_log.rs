//! The last events of a stream that somebody wants to see, as people read them.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;

use crate::error::Result;
use crate::event::{Batch, Context, Event, EventFilter, EventKind, FieldType, Kind, NameId, Nanos, Task, TaskId, text};
use crate::known::MAX_TASKS;
use crate::sink::Sink;

/// So many names are remembered, as many as analyses remember.
const MAX_NAMES: usize = 1 << 16;

/// A [`Sink`] that keeps the last events of a window that meet a filter, with who they are about at that moment.
///
/// Its memory is bounded by how many are kept, and by how many tasks are alive, of which it knows 400,000 at most. Events that came behind the watermark are not
/// told.
///
/// ```
/// use schedtrace_core::{Batch, Cpu, Event, EventLog, Hang, Nanos, Sink, TaskId};
/// let mut log = EventLog::new(2).filtered("cpu = 3".parse()?);
/// let on = |ts, cpu| Event { ts: Nanos(ts), cpu: Cpu(cpu), kind: Hang { task: TaskId(1) }.into() };
/// log.batch(&Batch { events: vec![on(1, 3), on(2, 3), on(3, 1), on(4, 3)], ..Batch::default() })?;
/// assert_eq!(log.events().map(|told| told.event.ts.0).collect::<Vec<_>>(), [2, 4]);
/// assert_eq!(log.total(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct EventLog {
    most: usize,
    from: Nanos,
    until: Nanos,
    filter: Option<EventFilter>,
    kept: VecDeque<Kept>,
    total: u64,
    tasks: HashMap<TaskId, Task>,
    names: HashMap<NameId, Arc<str>>,
}

/// An event, and who its tasks were then.
#[derive(Clone, Debug)]
struct Kept {
    event: Event,
    who: [Option<Task>; 2],
}

/// An event as people read it.
///
/// ```
/// use schedtrace_core::LoggedEvent;
/// fn line(told: &LoggedEvent) -> String {
///     let fields = told.fields.iter().map(|(name, text)| format!(" {name}={text}"));
///     format!("{} {}{}", told.event.ts, told.event.kind.kind(), fields.collect::<String>())
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoggedEvent {
    /// The event.
    pub event: Event,
    /// Whom it is about in the first place: who runs from now on, who is woken. None where nobody knows.
    pub task: Option<Task>,
    /// The other task that it speaks of: who left the CPU, the task that was current, the parent.
    pub other: Option<Task>,
    /// What else it says: names of fields, and their values as texts. Durations have their unit in the text.
    pub fields: Vec<(&'static str, String)>,
}

impl EventLog {
    /// Keeps at most so many.
    ///
    /// ```
    /// assert_eq!(schedtrace_core::EventLog::new(10).events().count(), 0);
    /// ```
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            from: Nanos::ZERO,
            until: Nanos::MAX,
            filter: None,
            kept: VecDeque::new(),
            total: 0,
            tasks: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// Only those that meet a filter.
    ///
    /// ```
    /// let log = schedtrace_core::EventLog::new(10).filtered("comm = nginx".parse()?);
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    #[must_use]
    pub fn filtered(mut self, filter: EventFilter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Only those from one moment until before another.
    ///
    /// ```
    /// use schedtrace_core::{EventLog, Nanos};
    /// let log = EventLog::new(10).between(Nanos(5), Nanos(7));
    /// ```
    #[must_use]
    pub fn between(mut self, from: Nanos, until: Nanos) -> Self {
        (self.from, self.until) = (from, until);
        self
    }

    /// How many there were, of which the last are kept.
    ///
    /// ```
    /// assert_eq!(schedtrace_core::EventLog::new(10).total(), 0);
    /// ```
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Those that are kept, in the order of time.
    ///
    /// ```
    /// assert!(schedtrace_core::EventLog::new(10).events().next().is_none());
    /// ```
    pub fn events(&self) -> impl DoubleEndedIterator<Item = LoggedEvent> + ExactSizeIterator + '_ {
        self.kept.iter().map(|kept| LoggedEvent {
            event: kept.event,
            task: kept.who[0],
            other: kept.who[1],
            fields: self.fields(&kept.event.kind),
        })
    }

    /// Whether an event is to be told. What tasks were doing when a recording began is nothing that the kernel did.
    fn is_wanted(&self, event: &Event) -> bool {
        let is_within = event.ts >= self.from && event.ts < self.until && event.kind.kind() != Kind::Snapshot;
        is_within && self.filter.as_ref().is_none_or(|filter| filter.accepts(event))
    }

    fn fields(&self, kind: &EventKind) -> Vec<(&'static str, String)> {
        match *kind {
            EventKind::Switch(e) => {
                let runnable = if e.preempted { "+" } else { "" };
                vec![
                    ("prev_state", format!("{}{runnable}", e.prev_state.letter())),
                    ("prev_prio", e.prev_prio.to_string()),
                    ("next_prio", e.next_prio.to_string()),
                ]
            }
            EventKind::Waking(e) => vec![
                ("context", Context::name(e.context).to_owned()),
                ("prev_cpu", e.prev_cpu.0.to_string()),
                ("on_cpu", e.on_cpu.to_string()),
                ("prio", e.prio.to_string()),
            ],
            EventKind::WakeupNew(e) => {
                vec![("target_cpu", e.target_cpu.0.to_string()), ("prio", e.prio.to_string())]
            }
            EventKind::Migrate(e) => vec![
                ("from_cpu", e.from.0.to_string()),
                ("to_cpu", e.to.0.to_string()),
                ("placed", e.placed.to_string()),
                ("prio", e.prio.to_string()),
            ],
            EventKind::Exec(e) => vec![("old_tid", e.old_tid.to_string())],
            EventKind::Exit(e) => vec![("group_dead", e.group_dead.to_string())],
            declared => {
                let values = declared.values();
                let fields = declared.kind().fields().iter().zip(&*values);
                // Who it is about is told already.
                let fields = fields.filter(|(field, _)| field.ty != FieldType::Task);
                let name = |id: NameId| self.names.get(&id).map(|text| &**text);
                let told = fields.map(|(field, &value)| match field.ty {
                    FieldType::Duration => {
                        (field.name.strip_suffix("_ns").unwrap_or(field.name), Nanos(value).to_string())
                    }
                    ty => (field.name, text(ty, value, name)),
                });
                told.collect()
            }
        }
    }

    /// Takes note of what a batch tells but for those of whom something changes in its course, in the order of time.
    fn learn(&mut self, batch: &Batch) -> VecDeque<Task> {
        if self.names.len() < MAX_NAMES {
            self.names.extend(batch.names.iter().map(|name| (name.id, Arc::clone(&name.text))));
        }
        let mut changes = Vec::new();
        let mut room = MAX_TASKS.saturating_sub(self.tasks.len());
        for task in &batch.tasks {
            match self.tasks.entry(task.id) {
                Entry::Vacant(entry) if room > 0 => {
                    entry.insert(*task);
                    room -= 1;
                }
                Entry::Vacant(_) => {}
                Entry::Occupied(_) => changes.push(*task),
            }
        }
        changes.sort_by_key(|task| task.since);
        changes.into()
    }

    /// Takes note of the changes until a moment.
    fn change(&mut self, changes: &mut VecDeque<Task>, until: Nanos) {
        while let Some(task) = changes.front().filter(|task| task.since <= until).copied() {
            self.tasks.insert(task.id, task);
            changes.pop_front();
        }
    }
}

impl Sink for EventLog {
    fn batch(&mut self, batch: &Batch) -> Result<()> {
        let mut changes = self.learn(batch);
        if let Some(filter) = &mut self.filter {
            filter.learn(batch);
        }
        let found: Vec<&Event> = batch.events.iter().filter(|event| self.is_wanted(event)).collect();
        self.total += found.len() as u64;
        // Only the last of them will be kept.
        for event in &found[found.len().saturating_sub(self.most)..] {
            self.change(&mut changes, event.ts);
            let who = tasks(&event.kind).map(|id| {
                let id = id?;
                id.idle_cpu().map(Task::idle).or_else(|| self.tasks.get(&id).copied())
            });
            if self.kept.len() == self.most {
                self.kept.pop_front();
            }
            self.kept.push_back(Kept { event: **event, who });
        }
        self.change(&mut changes, Nanos::MAX);
        for event in &batch.events {
            if let EventKind::Free { task } = event.kind {
                self.tasks.remove(&task);
            }
        }
        Ok(())
    }
}

/// The tasks that an event is about.
fn tasks(kind: &EventKind) -> [Option<TaskId>; 2] {
    match *kind {
        EventKind::Switch(e) => [Some(e.next), Some(e.prev)],
        EventKind::Waking(e) => [Some(e.task), Some(e.current)],
        EventKind::WakeupNew(e) => [Some(e.task), Some(e.parent)],
        EventKind::Fork(e) => [Some(e.child), Some(e.parent)],
        EventKind::Migrate(e) => [Some(e.task), None],
        EventKind::Exec(e) => [Some(e.task), None],
        EventKind::Exit(e) => [Some(e.task), None],
        EventKind::Snapshot(e) => [Some(e.task), None],
        EventKind::Free { task } | EventKind::Rename { task } => [Some(task), None],
        _ => {
            let values = kind.values();
            let fields = kind.kind().fields().iter().zip(&*values);
            let mut ids = fields.filter(|(field, _)| field.ty == FieldType::Task);
            let mut next = || ids.next().and_then(|(_, &value)| u32::try_from(value).ok()).map(TaskId);
            [next(), next()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CgroupId, Comm, Cpu, Hang};

    fn task(id: u32, since: u64, comm: &str) -> Task {
        let (id, since) = (TaskId(id), Nanos(since));
        Task { id, since, tid: 70 + id.0, comm: Comm::new(comm), cgroup: CgroupId(1), ..Task::idle(Cpu(0)) }
    }

    fn hang(ts: u64, id: u32) -> Event {
        Event { ts: Nanos(ts), cpu: Cpu(0), kind: Hang { task: TaskId(id) }.into() }
    }

    fn comms(log: &EventLog) -> Vec<String> {
        log.events().map(|told| told.task.map_or_else(|| "?".into(), |task| task.comm.to_string())).collect()
    }

    #[test]
    fn a_task_bears_the_name_that_it_had_then() {
        let mut log = EventLog::new(10);
        log.batch(&Batch { tasks: vec![task(1, 0, "old")], events: vec![hang(1, 1)], ..Batch::default() }).unwrap();
        let renamed =
            Batch { tasks: vec![task(1, 5, "new")], events: vec![hang(4, 1), hang(6, 1)], ..Batch::default() };
        log.batch(&renamed).unwrap();
        let over = Event { kind: EventKind::Free { task: TaskId(1) }, ..hang(8, 1) };
        log.batch(&Batch { events: vec![over, hang(9, 2)], ..Batch::default() }).unwrap();
        assert_eq!(comms(&log), ["old", "old", "new", "new", "?"]);
        assert!(log.tasks.is_empty(), "whose life is over is forgotten");
    }

    #[test]
    fn lives_whose_ends_nobody_saw_take_bounded_memory() {
        let mut log = EventLog::new(10);
        let all: Vec<Task> = (1..=MAX_TASKS as u32 + 10).map(|id| task(id, 0, "old")).collect();
        for tasks in all.chunks(1 << 16) {
            log.batch(&Batch { tasks: tasks.to_vec(), ..Batch::default() }).unwrap();
        }
        assert_eq!(log.tasks.len(), MAX_TASKS);
        let over = Event { kind: EventKind::Free { task: TaskId(1) }, ..hang(1, 1) };
        log.batch(&Batch { events: vec![over], ..Batch::default() }).unwrap();
        let tasks = vec![task(2, 2, "new"), task(u32::MAX >> 1, 2, "next"), task(u32::MAX >> 2, 2, "no room")];
        log.batch(&Batch { tasks, ..Batch::default() }).unwrap();
        let events = vec![hang(3, 2), hang(4, u32::MAX >> 1), hang(5, u32::MAX >> 2)];
        log.batch(&Batch { events, ..Batch::default() }).unwrap();
        assert_eq!(comms(&log), ["old", "new", "next", "?"]);
    }

    #[test]
    fn the_last_of_the_window_are_kept_and_all_are_counted() {
        let mut log = EventLog::new(3).between(Nanos(5), Nanos(100));
        for from in [0, 50, 98] {
            log.batch(&Batch { events: (from..from + 10).map(|ts| hang(ts, 1)).collect(), ..Batch::default() })
                .unwrap();
        }
        assert_eq!(log.events().map(|told| told.event.ts.0).collect::<Vec<_>>(), [59, 98, 99]);
        assert_eq!(log.total(), 5 + 10 + 2);
        let mut none = EventLog::new(0);
        none.batch(&Batch { events: vec![hang(1, 1)], ..Batch::default() }).unwrap();
        assert_eq!((none.events().count(), none.total()), (0, 1));
    }
}
