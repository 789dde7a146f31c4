//! The tables of a trace: their columns, and how an event becomes a row and a row an event. Nothing else knows a column.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::column::{Column, Count, Flag, Id, OptFlag, OptText, OptU32, Text, Time, U8, U16, U32};
use super::declared::{self, Interner, Texts};
use crate::event::{
    Cgroup, CgroupId, Comm, Context, Cpu, Doing, Event, EventKind, Exec, Exit, Fork, Kind, Loss, LossPlace, Migrate,
    Name, Nanos, Snapshot, Switch, Task, TaskId, TaskState, TaskStatus, Waker, WakeupNew, Waking,
};
use crate::known::Note;
use crate::source::Meta;

/// The version of the schema from which on traces say what tasks were doing when a segment began.
const STATES_SINCE: u32 = 2;

/// Declares a table once: a row, the builders of its columns, and a typed view of a record batch.
macro_rules! table {
    ($table:expr, $row:ident, $columns:ident, $view:ident { $($name:ident: $type:ty),* $(,)? }) => {
        struct $row<'a> { $($name: <$type as Column>::Value<'a>,)* }

        #[derive(Default, Debug)]
        struct $columns { rows: usize, $($name: <$type as Column>::Builder,)* }

        impl $columns {
            #[inline]
            fn push(&mut self, row: $row<'_>) {
                self.rows += 1;
                $(<$type>::push(&mut self.$name, row.$name);)*
            }

            fn take(&mut self) -> Result<RecordBatch, ArrowError> {
                self.rows = 0;
                RecordBatch::try_new($table.schema(), vec![$(<$type>::array(&mut self.$name)),*])
            }

            fn columns() -> Vec<ColumnInfo> {
                vec![$(ColumnInfo {
                    name: stringify!($name),
                    data_type: <$type>::TYPE,
                    nullable: <$type>::NULLABLE,
                }),*]
            }
        }

        struct $view<'a> { rows: usize, $($name: <$type as Column>::View<'a>,)* }

        impl<'a> $view<'a> {
            fn new(batch: &'a RecordBatch) -> Result<Self, String> {
                let mut columns = batch.columns().iter();
                Ok(Self {
                    rows: batch.num_rows(),
                    $($name: {
                        let array = columns.next().ok_or(concat!("has no column ", stringify!($name)))?;
                        if !<$type>::NULLABLE && array.null_count() != 0 {
                            return Err(concat!("column ", stringify!($name), " has nulls").to_owned());
                        }
                        <$type>::view(array).ok_or(concat!("column ", stringify!($name), " has the wrong type"))?
                    },)*
                })
            }

            #[inline]
            fn row(&self, row: usize) -> Result<$row<'a>, String> {
                Ok($row { $($name: <$type>::value(&self.$name, row).map_err(|why| bad(stringify!($name), row, why))?,)* })
            }
        }
    };
}

#[cold]
fn bad(column: &str, row: usize, why: &str) -> String {
    format!("column {column} {why} in row {row}")
}

table!(
    Table::Switch,
    SwitchRow,
    SwitchColumns,
    SwitchView {
        ts_ns: Time,
        cpu: U16,
        prev_task: U32,
        next_task: U32,
        prev_state: U16,
        preempted: Flag,
        prev_prio: U8,
        next_prio: U8,
    }
);
table!(
    Table::Waking,
    WakingRow,
    WakingColumns,
    WakingView {
        ts_ns: Time,
        cpu: U16,
        task: U32,
        current_task: U32,
        context: Text,
        prev_cpu: U16,
        on_cpu: Flag,
        prio: U8,
    }
);
table!(
    Table::WakeupNew,
    WakeupNewRow,
    WakeupNewColumns,
    WakeupNewView { ts_ns: Time, cpu: U16, task: U32, parent_task: U32, target_cpu: U16, prio: U8 }
);
table!(
    Table::Migrate,
    MigrateRow,
    MigrateColumns,
    MigrateView { ts_ns: Time, cpu: U16, task: U32, from_cpu: U16, to_cpu: U16, placed: Flag, prio: U8 }
);
table!(
    Table::Lifecycle,
    LifecycleRow,
    LifecycleColumns,
    LifecycleView {
        ts_ns: Time,
        cpu: U16,
        event: Text,
        task: U32,
        parent_task: OptU32,
        old_tid: OptU32,
        group_dead: OptFlag,
    }
);
table!(Table::Snapshot, SnapshotRow, SnapshotColumns, SnapshotView { ts_ns: Time, cpu: U16, task: U32, running: Flag });
table!(
    Table::Tasks,
    TaskRow,
    TaskColumns,
    TaskView {
        task_id: U32,
        tid: U32,
        pid: U32,
        ppid: U32,
        comm: Text,
        cgroup_id: Id,
        start_ns: Time,
        since_ns: Time,
        kernel: Flag,
        recorder: Flag,
        seen_ns: Time,
        carried: Flag,
    }
);
table!(
    Table::Cgroups,
    CgroupRow,
    CgroupColumns,
    CgroupView { cgroup_id: Id, path: Text, seen_ns: Time, carried: Flag }
);
table!(
    Table::Loss,
    LossRow,
    LossColumns,
    LossView { place: Text, kind: OptText, count: Count, from_ns: Time, until_ns: Time, seen_ns: Time }
);

table!(
    Table::States,
    StateRow,
    StateColumns,
    StateView {
        task_id: U32,
        state: Text,
        since_ns: Time,
        cpu: U16,
        sleep_state: U16,
        by_task: OptU32,
        by_context: OptText,
        seen_ns: Time,
        carried: Flag,
    }
);

/// One column, as the schemas and the Parquet properties need it.
pub(super) struct ColumnInfo {
    pub(super) name: &'static str,
    pub(super) data_type: DataType,
    pub(super) nullable: bool,
}

/// A table of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    Switch,
    Waking,
    WakeupNew,
    Migrate,
    Lifecycle,
    Snapshot,
    Tasks,
    Cgroups,
    Loss,
    /// What tasks were doing when a segment began.
    States,
    /// Of a kind that is declared with its fields.
    Of(Kind),
}

impl Table {
    /// How many there are.
    pub(super) const COUNT: usize = Self::CORE.len() + Kind::DECLARED.len();
    /// Those that every trace has.
    const CORE: [Self; 10] = [
        Self::Switch,
        Self::Waking,
        Self::WakeupNew,
        Self::Migrate,
        Self::Lifecycle,
        Self::Snapshot,
        Self::Tasks,
        Self::Cgroups,
        Self::Loss,
        Self::States,
    ];
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; Self::COUNT] = {
        let mut all = [Self::Switch; Self::COUNT];
        let mut at = 0;
        while at < Self::COUNT {
            all[at] =
                if at < Self::CORE.len() { Self::CORE[at] } else { Self::Of(Kind::DECLARED[at - Self::CORE.len()]) };
            at += 1;
        }
        all
    };

    /// Those of a trace: what was not asked for has none, nor has what its version of the schema does not know.
    pub(super) fn of(meta: &Meta, schema: u32) -> Vec<Self> {
        let is_on = |kind: Kind| meta.probes.iter().any(|probe| probe.kind == kind && probe.on);
        let is_there = |table: &Self| match table {
            Self::Of(kind) => is_on(*kind),
            Self::States => schema >= STATES_SINCE,
            _ => true,
        };
        Self::ALL.into_iter().filter(is_there).collect()
    }

    /// What people call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Switch => "sched_switch",
            Self::Waking => "sched_waking",
            Self::WakeupNew => "sched_wakeup_new",
            Self::Migrate => "sched_migrate_task",
            Self::Lifecycle => "task_lifecycle",
            Self::Snapshot => "snapshot",
            Self::Tasks => "tasks",
            Self::Cgroups => "cgroups",
            Self::Loss => "loss",
            Self::States => "states",
            Self::Of(kind) => kind.name(),
        }
    }

    /// Whether it holds events.
    pub(super) const fn is_event(self) -> bool {
        !matches!(self, Self::Tasks | Self::Cgroups | Self::Loss | Self::States)
    }

    /// Whether it has texts of any length: paths, and names that a program gave its sinks.
    pub(super) const fn has_long_texts(self) -> bool {
        matches!(self, Self::Cgroups | Self::Loss)
    }

    /// Its folder below the trace's.
    pub(super) fn folder(self) -> std::path::PathBuf {
        if self.is_event() { std::path::Path::new("events").join(self.name()) } else { self.name().into() }
    }

    /// Its place in [`Table::ALL`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Switch => 0,
            Self::Waking => 1,
            Self::WakeupNew => 2,
            Self::Migrate => 3,
            Self::Lifecycle => 4,
            Self::Snapshot => 5,
            Self::Tasks => 6,
            Self::Cgroups => 7,
            Self::Loss => 8,
            Self::States => 9,
            Self::Of(kind) => Self::CORE.len() + declared_index(kind),
        }
    }

    /// Its columns.
    pub(super) fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; Table::COUNT]> = LazyLock::new(|| {
            Table::ALL.map(|table| {
                let fields = table.columns().into_iter().map(|c| Field::new(c.name, c.data_type, c.nullable));
                Arc::new(Schema::new(fields.collect::<Vec<_>>()))
            })
        });
        Arc::clone(&SCHEMAS[self.index()])
    }

    fn columns(self) -> Vec<ColumnInfo> {
        match self {
            Self::Switch => SwitchColumns::columns(),
            Self::Waking => WakingColumns::columns(),
            Self::WakeupNew => WakeupNewColumns::columns(),
            Self::Migrate => MigrateColumns::columns(),
            Self::Lifecycle => LifecycleColumns::columns(),
            Self::Snapshot => SnapshotColumns::columns(),
            Self::Tasks => TaskColumns::columns(),
            Self::Cgroups => CgroupColumns::columns(),
            Self::Loss => LossColumns::columns(),
            Self::States => StateColumns::columns(),
            Self::Of(kind) => declared::columns(kind),
        }
    }
}

/// The place of a kind in [`Kind::DECLARED`], which is the order of their numbers.
const fn declared_index(kind: Kind) -> usize {
    kind as usize - Kind::DECLARED[0] as usize
}

/// Rows of all tables on their way into record batches.
#[derive(Debug, Default)]
pub(super) struct Rows {
    switch: SwitchColumns,
    waking: WakingColumns,
    wakeup_new: WakeupNewColumns,
    migrate: MigrateColumns,
    lifecycle: LifecycleColumns,
    snapshot: SnapshotColumns,
    tasks: TaskColumns,
    cgroups: CgroupColumns,
    loss: LossColumns,
    states: StateColumns,
    /// By the places of their kinds; none where no event came.
    declared: Vec<Option<declared::Rows>>,
    texts: Texts,
}

impl Rows {
    /// Those of the next segment, which speak of the same names. Of this one all must have been taken.
    pub(super) fn next(&mut self) -> Self {
        Self { texts: std::mem::take(&mut self.texts), ..Self::default() }
    }

    /// Learns a name, which the events that follow may bear.
    pub(super) fn name(&mut self, name: &Name) {
        self.texts.learn(name);
    }

    fn declared(&self, kind: Kind) -> Option<&declared::Rows> {
        self.declared.get(declared_index(kind))?.as_ref()
    }

    /// Adds an event; returns the table it went into.
    #[inline]
    pub(super) fn event(&mut self, event: &Event) -> Table {
        let (ts_ns, cpu) = (event.ts, event.cpu.0);
        let mut row =
            LifecycleRow { ts_ns, cpu, event: "", task: 0, parent_task: None, old_tid: None, group_dead: None };
        match event.kind {
            EventKind::Switch(e) => {
                self.switch.push(SwitchRow {
                    ts_ns,
                    cpu,
                    prev_task: e.prev.0,
                    next_task: e.next.0,
                    prev_state: e.prev_state.0,
                    preempted: e.preempted,
                    prev_prio: e.prev_prio,
                    next_prio: e.next_prio,
                });
                return Table::Switch;
            }
            EventKind::Waking(e) => {
                self.waking.push(WakingRow {
                    ts_ns,
                    cpu,
                    task: e.task.0,
                    current_task: e.current.0,
                    context: e.context.name(),
                    prev_cpu: e.prev_cpu.0,
                    on_cpu: e.on_cpu,
                    prio: e.prio,
                });
                return Table::Waking;
            }
            EventKind::WakeupNew(e) => {
                let (task, parent_task, target_cpu) = (e.task.0, e.parent.0, e.target_cpu.0);
                self.wakeup_new.push(WakeupNewRow { ts_ns, cpu, task, parent_task, target_cpu, prio: e.prio });
                return Table::WakeupNew;
            }
            EventKind::Migrate(e) => {
                let (task, from_cpu, to_cpu) = (e.task.0, e.from.0, e.to.0);
                self.migrate.push(MigrateRow { ts_ns, cpu, task, from_cpu, to_cpu, placed: e.placed, prio: e.prio });
                return Table::Migrate;
            }
            EventKind::Snapshot(e) => {
                self.snapshot.push(SnapshotRow { ts_ns, cpu, task: e.task.0, running: e.running });
                return Table::Snapshot;
            }
            EventKind::Fork(e) => {
                (row.event, row.task, row.parent_task) = ("fork", e.child.0, Some(e.parent.0));
            }
            EventKind::Exec(e) => (row.event, row.task, row.old_tid) = ("exec", e.task.0, Some(e.old_tid)),
            EventKind::Exit(e) => (row.event, row.task, row.group_dead) = ("exit", e.task.0, Some(e.group_dead)),
            EventKind::Free { task } => (row.event, row.task) = ("free", task.0),
            EventKind::Rename { task } => (row.event, row.task) = ("rename", task.0),
            _ => {
                let kind = event.kind.kind();
                self.declared.resize_with(Kind::DECLARED.len(), || None);
                let rows = &mut self.declared[declared_index(kind)];
                rows.get_or_insert_with(|| declared::Rows::new(kind)).push(event);
                return Table::Of(kind);
            }
        }
        self.lifecycle.push(row);
        Table::Lifecycle
    }

    /// Adds an identity.
    pub(super) fn task(&mut self, note: &Note<Task>) {
        let task = &note.item;
        self.tasks.push(TaskRow {
            task_id: task.id.0,
            tid: task.tid,
            pid: task.tgid,
            ppid: task.ppid,
            // Other tools print what they find here: no control characters, no invalid UTF-8.
            comm: &task.comm.to_string(),
            cgroup_id: task.cgroup.0,
            start_ns: task.start,
            since_ns: task.since,
            kernel: task.kernel,
            recorder: task.recorder,
            seen_ns: note.seen,
            carried: note.carried,
        });
    }

    /// Adds the path of a cgroup.
    pub(super) fn cgroup(&mut self, note: &Note<Cgroup>) {
        self.cgroups.push(CgroupRow {
            cgroup_id: note.item.id.0,
            path: &note.item.path,
            seen_ns: note.seen,
            carried: note.carried,
        });
    }

    /// Adds a loss.
    pub(super) fn loss(&mut self, note: &Note<Loss>) {
        let loss = &note.item;
        self.loss.push(LossRow {
            place: &loss.place.to_string(),
            kind: loss.kind.map(Kind::name),
            count: loss.count,
            from_ns: loss.from,
            until_ns: loss.until,
            seen_ns: note.seen,
        });
    }

    /// Adds what a task was doing when the segment began, at the time `now`.
    pub(super) fn status(&mut self, status: &TaskStatus, now: Nanos) {
        let (mut sleep_state, mut by_task, mut by_context) = (0, None, None);
        match status.doing {
            Doing::Preempted(task) | Doing::New(task) => by_task = Some(task.0),
            Doing::Asleep(state) | Doing::Waking(_, state) => sleep_state = state.0,
            Doing::Running(_) | Doing::Woken(_) | Doing::Throttled | Doing::Waiting | Doing::Unknown => {}
        }
        match status.doing {
            Doing::Running(Some(waker)) | Doing::Woken(waker) | Doing::Waking(waker, _) => match waker {
                Waker::Task(task) => by_task = Some(task.0),
                Waker::Interrupt(context) => by_context = Some(context.name()),
            },
            _ => {}
        }
        self.states.push(StateRow {
            task_id: status.task.0,
            state: state_name(status.doing),
            since_ns: status.since,
            cpu: status.cpu.0,
            sleep_state,
            by_task,
            by_context,
            seen_ns: now,
            carried: true,
        });
    }

    /// How many rows wait in a table.
    pub(super) fn len(&self, table: Table) -> usize {
        match table {
            Table::Switch => self.switch.rows,
            Table::Waking => self.waking.rows,
            Table::WakeupNew => self.wakeup_new.rows,
            Table::Migrate => self.migrate.rows,
            Table::Lifecycle => self.lifecycle.rows,
            Table::Snapshot => self.snapshot.rows,
            Table::Tasks => self.tasks.rows,
            Table::Cgroups => self.cgroups.rows,
            Table::Loss => self.loss.rows,
            Table::States => self.states.rows,
            Table::Of(kind) => self.declared(kind).map_or(0, declared::Rows::len),
        }
    }

    /// Takes the waiting rows of a table out.
    pub(super) fn take(&mut self, table: Table) -> Result<RecordBatch, ArrowError> {
        match table {
            Table::Switch => self.switch.take(),
            Table::Waking => self.waking.take(),
            Table::WakeupNew => self.wakeup_new.take(),
            Table::Migrate => self.migrate.take(),
            Table::Lifecycle => self.lifecycle.take(),
            Table::Snapshot => self.snapshot.take(),
            Table::Tasks => self.tasks.take(),
            Table::Cgroups => self.cgroups.take(),
            Table::Loss => self.loss.take(),
            Table::States => self.states.take(),
            Table::Of(kind) => match self.declared.get_mut(declared_index(kind)) {
                Some(Some(rows)) => rows.take(table.schema(), &self.texts),
                _ => Ok(RecordBatch::new_empty(table.schema())),
            },
        }
    }
}

/// Reads the rows of an event table; the error says what is wrong with them. Other tables hold no events.
pub(super) fn read_events(
    table: Table,
    batch: &RecordBatch,
    names: &mut Interner,
    out: &mut Vec<Event>,
) -> Result<(), String> {
    macro_rules! each {
        ($view:ident, $row:ident => $kind:expr) => {{
            let view = $view::new(batch)?;
            out.reserve(view.rows);
            for at in 0..view.rows {
                let $row = view.row(at)?;
                out.push(Event { ts: $row.ts_ns, cpu: Cpu($row.cpu), kind: $kind });
            }
        }};
    }
    match table {
        Table::Switch => each!(SwitchView, row => EventKind::Switch(Switch {
            prev: TaskId(row.prev_task),
            next: TaskId(row.next_task),
            prev_state: TaskState(row.prev_state),
            preempted: row.preempted,
            prev_prio: row.prev_prio,
            next_prio: row.next_prio,
        })),
        Table::Waking => each!(WakingView, row => EventKind::Waking(Waking {
            task: TaskId(row.task),
            current: TaskId(row.current_task),
            context: context(row.context)?,
            prev_cpu: Cpu(row.prev_cpu),
            on_cpu: row.on_cpu,
            prio: row.prio,
        })),
        Table::WakeupNew => each!(WakeupNewView, row => EventKind::WakeupNew(WakeupNew {
            task: TaskId(row.task),
            parent: TaskId(row.parent_task),
            target_cpu: Cpu(row.target_cpu),
            prio: row.prio,
        })),
        Table::Migrate => each!(MigrateView, row => EventKind::Migrate(Migrate {
            task: TaskId(row.task),
            from: Cpu(row.from_cpu),
            to: Cpu(row.to_cpu),
            placed: row.placed,
            prio: row.prio,
        })),
        Table::Snapshot => each!(SnapshotView, row => EventKind::Snapshot(Snapshot {
            task: TaskId(row.task),
            running: row.running,
        })),
        Table::Lifecycle => each!(LifecycleView, row => lifecycle(&row)?),
        Table::Of(kind) => declared::read_events(kind, batch, names, out)?,
        Table::Tasks | Table::Cgroups | Table::Loss | Table::States => {}
    }
    Ok(())
}

const fn state_name(doing: Doing) -> &'static str {
    match doing {
        Doing::Running(_) => "running",
        Doing::Waking(..) => "waking",
        Doing::Woken(_) => "woken",
        Doing::Preempted(_) => "preempted",
        Doing::Throttled => "throttled",
        Doing::New(_) => "new",
        Doing::Waiting => "waiting",
        Doing::Asleep(_) => "asleep",
        Doing::Unknown => "unknown",
    }
}

/// Reads rows of the `states` table.
pub(super) fn read_states(batch: &RecordBatch, out: &mut VecDeque<Note<TaskStatus>>) -> Result<(), String> {
    let view = StateView::new(batch)?;
    for at in 0..view.rows {
        let row = view.row(at)?;
        let by = || row.by_task.map(TaskId).ok_or_else(|| format!("column by_task is null for {}", row.state));
        let interrupt = row.by_context.map(context).transpose()?.map(Waker::Interrupt);
        let waker = || interrupt.map_or_else(|| by().map(Waker::Task), Ok);
        let doing = match row.state {
            "running" => Doing::Running(interrupt.or(row.by_task.map(|task| Waker::Task(TaskId(task))))),
            "woken" => Doing::Woken(waker()?),
            "waking" => Doing::Waking(waker()?, TaskState(row.sleep_state)),
            "preempted" => Doing::Preempted(by()?),
            "throttled" => Doing::Throttled,
            "new" => Doing::New(by()?),
            "waiting" => Doing::Waiting,
            "asleep" => Doing::Asleep(TaskState(row.sleep_state)),
            "unknown" => Doing::Unknown,
            other => return Err(unknown("state", other)),
        };
        let item = TaskStatus { task: TaskId(row.task_id), since: row.since_ns, cpu: Cpu(row.cpu), doing };
        out.push_back(Note { seen: row.seen_ns, carried: row.carried, item });
    }
    Ok(())
}

fn context(name: &str) -> Result<Context, String> {
    [Context::Task, Context::Softirq, Context::Hardirq, Context::Nmi]
        .into_iter()
        .find(|context| context.name() == name)
        .ok_or_else(|| unknown("context", name))
}

fn unknown(column: &str, value: &str) -> String {
    format!("column {column} {}", unknown_value(value))
}

/// The value comes from a stranger: escaped, and cut.
pub(super) fn unknown_value(value: &str) -> String {
    let value: String = value.chars().take(32).collect();
    format!("has the unknown value {value:?}")
}

fn lifecycle(row: &LifecycleRow<'_>) -> Result<EventKind, String> {
    let task = TaskId(row.task);
    let needs = |column: &str| format!("column {column} is null for {}", row.event);
    Ok(match row.event {
        "fork" => {
            let parent = TaskId(row.parent_task.ok_or_else(|| needs("parent_task"))?);
            EventKind::Fork(Fork { parent, child: task })
        }
        "exec" => EventKind::Exec(Exec { task, old_tid: row.old_tid.ok_or_else(|| needs("old_tid"))? }),
        "exit" => EventKind::Exit(Exit { task, group_dead: row.group_dead.ok_or_else(|| needs("group_dead"))? }),
        "free" => EventKind::Free { task },
        "rename" => EventKind::Rename { task },
        other => return Err(unknown("event", other)),
    })
}

/// Reads rows of the `tasks` table.
pub(super) fn read_tasks(batch: &RecordBatch, out: &mut VecDeque<Note<Task>>) -> Result<(), String> {
    let view = TaskView::new(batch)?;
    for at in 0..view.rows {
        let row = view.row(at)?;
        let item = Task {
            id: TaskId(row.task_id),
            since: row.since_ns,
            tid: row.tid,
            tgid: row.pid,
            ppid: row.ppid,
            comm: Comm::new(row.comm),
            cgroup: CgroupId(row.cgroup_id),
            start: row.start_ns,
            kernel: row.kernel,
            recorder: row.recorder,
        };
        out.push_back(Note { seen: row.seen_ns, carried: row.carried, item });
    }
    Ok(())
}

/// Reads rows of the `cgroups` table.
pub(super) fn read_cgroups(batch: &RecordBatch, out: &mut VecDeque<Note<Cgroup>>) -> Result<(), String> {
    let view = CgroupView::new(batch)?;
    for at in 0..view.rows {
        let row = view.row(at)?;
        let item = Cgroup { id: CgroupId(row.cgroup_id), path: row.path.into() };
        out.push_back(Note { seen: row.seen_ns, carried: row.carried, item });
    }
    Ok(())
}

/// Reads rows of the `loss` table.
pub(super) fn read_loss(batch: &RecordBatch, out: &mut VecDeque<Note<Loss>>) -> Result<(), String> {
    let view = LossView::new(batch)?;
    for at in 0..view.rows {
        let row = view.row(at)?;
        let place: LossPlace = row.place.parse().map_err(|_| unknown("place", row.place))?;
        let kind = row.kind.map(|name| name.parse::<Kind>().map_err(|_| unknown("kind", name))).transpose()?;
        let item = Loss { place, kind, count: row.count, from: row.from_ns, until: row.until_ns };
        out.push_back(Note { seen: row.seen_ns, carried: false, item });
    }
    Ok(())
}

/// How many rows of a record batch earlier segments do not know.
pub(super) fn new_rows(batch: &RecordBatch) -> u64 {
    let carried = batch.column_by_name("carried").and_then(Flag::view).map_or(0, |carried| carried.true_count());
    batch.num_rows().saturating_sub(carried) as u64
}

/// The keys by which the rows of a table are sorted at rest: events by time, the others by where they belong in the
/// stream, repeated ones first.
pub(super) fn sort_keys(table: Table, batch: &RecordBatch) -> Result<Vec<i64>, String> {
    let name = if table.is_event() { "ts_ns" } else { "seen_ns" };
    let times =
        batch.column_by_name(name).and_then(Time::view).ok_or_else(|| format!("has no column {name}"))?.values();
    let Some(carried) = batch.column_by_name("carried").and_then(Flag::view) else { return Ok(times.to_vec()) };
    Ok(times.iter().enumerate().map(|(row, &time)| if carried.value(row) { i64::MIN } else { time }).collect())
}

/// A schema with views in place of plain texts.
pub(super) fn viewed(schema: &Schema) -> SchemaRef {
    with_types(schema, |data_type| if *data_type == DataType::Utf8 { DataType::Utf8View } else { data_type.clone() })
}

/// A schema as queries see it: with views, and with numbers that can be subtracted from one another.
#[cfg(feature = "sql")]
pub(super) fn queried(schema: &Schema) -> SchemaRef {
    with_types(schema, |data_type| match data_type {
        DataType::Utf8 => DataType::Utf8View,
        DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        other => other.clone(),
    })
}

fn with_types(schema: &Schema, of: impl Fn(&DataType) -> DataType) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields = fields.map(|field| Arc::new(Field::new(field.name(), of(field.data_type()), field.is_nullable())));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
