//! What tables there are, and what every column is: for `.schema`, for the guide, and for whoever asks by program.

use arrow::datatypes::SchemaRef;

use super::tables::{ColumnDoc, TableDoc, TableKind, derived, sql_type};
use super::views::VIEWS;
use crate::event::Kind;
use crate::trace::all_tables;

/// What stands in statements beside the names of tables and columns, for prompts that complete it.
///
/// ```
/// use schedtrace_core::query;
/// assert!(query::WORDS.contains(&"select"));
/// ```
pub const WORDS: [&str; 36] = [
    "select",
    "from",
    "where",
    "group by",
    "order by",
    "having",
    "limit",
    "with",
    "as",
    "and",
    "or",
    "not",
    "in",
    "is null",
    "between",
    "like",
    "join",
    "left join",
    "using",
    "on",
    "union all",
    "distinct",
    "case",
    "when",
    "then",
    "else",
    "end",
    "desc",
    "count(*)",
    "sum(",
    "avg(",
    "min(",
    "max(",
    "approx_percentile_cont(",
    "explain",
    "over (partition by",
];

/// All tables that a trace can have, the derived ones first, then what lies in the trace, then the views. A trace has those
/// of the events that were recorded: [`Database::tables`](super::Database::tables).
///
/// ```
/// use schedtrace_core::query;
/// let tables = query::tables();
/// let switches = tables.iter().find(|table| table.name == "sched_switch").unwrap();
/// assert_eq!((&*switches.columns[0].name, &*switches.columns[0].unit), ("ts_ns", "ns"));
/// ```
#[must_use]
pub fn tables() -> Vec<TableDoc> {
    let stored = all_tables().map(|(name, kind, schema)| stored(name, kind, &schema));
    let views = VIEWS.iter().map(|view| TableDoc {
        name: view.name.to_owned(),
        kind: TableKind::View,
        about: view.about.to_owned(),
        source: "https://perfetto.dev/docs/analysis/sql-tables".to_owned(),
        columns: view.columns.iter().map(|(name, about)| view_column(name, about)).collect(),
    });
    derived().into_iter().chain(stored).chain(views).collect()
}

/// What has to be recorded for a table that is in no trace of a query; none if no table is called so.
pub(super) fn recorded_with(name: &str) -> Option<&'static str> {
    if name == "irq_slice" {
        return Some("irq");
    }
    all_tables().find(|(table, _, _)| *table == name).map(|(table, _, _)| table)
}

/// The types of a view's columns are those of what it selects.
fn view_column(name: &str, about: &str) -> ColumnDoc {
    let (data_type, unit) = match name {
        "ts" | "dur" | "ts_end" | "start_ts" | "end_ts" => ("bigint", "ns"),
        "cpu" | "priority" => ("int", ""),
        "end_state" | "name" | "cgroup" => ("text", ""),
        "is_main_thread" | "is_idle" => ("boolean", ""),
        _ => ("bigint", ""),
    };
    let nullable =
        about.contains("NULL") || matches!(name, "dur" | "ts_end" | "end_state" | "priority" | "start_ts" | "tid");
    let (name, about) = (name.to_owned(), about.to_owned());
    ColumnDoc { name, data_type: data_type.to_owned(), unit: unit.to_owned(), nullable, about }
}

fn stored(name: &'static str, kind: Option<Kind>, schema: &SchemaRef) -> TableDoc {
    let (about, source) = match kind {
        Some(kind) => (sentence(kind.about()), format!("event `{name}`; docs/events.md")),
        None => (about(name).to_owned(), source(name).to_owned()),
    };
    let columns = schema.fields().iter().map(|field| {
        let column: &str = field.name();
        let about = match (column, kind) {
            ("ts_ns", _) => "When it happened (`CLOCK_MONOTONIC`).",
            ("cpu", _) if name != "states" => "On which CPU.",
            (_, Some(kind)) => kind.fields().iter().find(|field| field.name == column).map_or("", |field| field.about),
            _ => column_about(name, column),
        };
        ColumnDoc {
            name: column.to_owned(),
            data_type: sql_type(field.data_type()).to_owned(),
            unit: unit(column).to_owned(),
            nullable: field.is_nullable(),
            about: sentence(about),
        }
    });
    let kind = if kind.is_some() || is_event(name) { TableKind::Event } else { TableKind::Setting };
    TableDoc { name: name.to_owned(), kind, about, source, columns: columns.collect() }
}

/// A first letter that is large, and a full stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    let stop = if text.ends_with('.') || text.is_empty() { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}

/// The unit stands at the end of a name.
fn unit(column: &str) -> &'static str {
    let end = column.rsplit('_').next().unwrap_or(column);
    match end {
        "ns" if column.contains('_') => "ns",
        "us" => "us",
        "ms" => "ms",
        "bytes" => "bytes",
        "kib" => "KiB",
        "khz" => "kHz",
        "sectors" => "sectors of 512 bytes",
        "pages" => "pages",
        "ratio" => "1",
        _ => "",
    }
}

fn is_event(table: &str) -> bool {
    !matches!(table, "tasks" | "cgroups" | "loss" | "states")
}

fn about(table: &str) -> &'static str {
    match table {
        "sched_switch" => "A CPU went from one task to another.",
        "sched_waking" => "A sleeping task is being woken; comes before its CPU is chosen.",
        "sched_wakeup_new" => "A new task was put on a run queue for the first time.",
        "sched_migrate_task" => "A task was moved to another CPU's run queue.",
        "task_lifecycle" => "A task was created, replaced its program, changed its name, ended, or was given back.",
        "snapshot" => "Seen when the recording began: a task that was running or runnable.",
        "tasks" => {
            "Who the tasks are: a row for each time that something of a task changed, and for each task again where a segment begins."
        }
        "cgroups" => "The paths of cgroups, once they are known, and again where a segment begins.",
        "loss" => "Events that are known to be missing: where, which, how many, and between which times.",
        "states" => "What each task was doing when a segment of the trace began.",
        _ => "",
    }
}

fn source(table: &str) -> &'static str {
    match table {
        "sched_switch" => "tracepoint `sched_switch`, kernel/sched/core.c",
        "sched_waking" => "tracepoint `sched_waking`, `try_to_wake_up` in kernel/sched/core.c",
        "sched_wakeup_new" => "tracepoint `sched_wakeup_new`, `wake_up_new_task` in kernel/sched/core.c",
        "sched_migrate_task" => "tracepoint `sched_migrate_task`, `set_task_cpu` in kernel/sched/core.c",
        "task_lifecycle" => "tracepoints `sched_process_fork`, `_exec`, `_exit`, `_free` and `task_rename`",
        "snapshot" => "a task iterator, at the start",
        "tasks" => "`struct task_struct`, include/linux/sched.h",
        "cgroups" => "the cgroup v2 file system",
        _ => "ARCHITECTURE.md",
    }
}

fn column_about(table: &str, column: &str) -> &'static str {
    match (table, column) {
        (_, "prev_task") => "Who left the CPU: `task.task_id`",
        (_, "next_task") => "Who came",
        (_, "prev_state") => {
            "What the one who left does now: `TASK_*` bits of include/linux/sched.h, 0x4000 waits for I/O, 0x10 with 0 throttled"
        }
        (_, "preempted") => "It lost the CPU in the midst of kernel code",
        (_, "prev_prio") => {
            "Kernel priority of the one who left: 0-99 real time, 100-139 for nice -20 to 19, 255 deadline"
        }
        (_, "next_prio") => "Kernel priority of the one who came",
        ("sched_waking", "task") => "Who is woken",
        (_, "current_task") => "Who was current where it happened: the waker only if `context` is `task`",
        (_, "context") => "From where: `task`, `softirq`, `hardirq` or `nmi`",
        (_, "prev_cpu") => "Where the task ran last",
        (_, "on_cpu") => "It was still on a CPU",
        (_, "prio") => "Kernel priority of the task",
        ("sched_wakeup_new", "task") => "The new task",
        (_, "parent_task") => "Who created it; NULL where nobody did",
        (_, "target_cpu") => "On whose run queue it was put",
        ("sched_migrate_task", "task") => "Who was moved",
        (_, "from_cpu") => "From whose queue",
        (_, "to_cpu") => "To whose",
        (_, "placed") => "The CPU was chosen as part of a wakeup; otherwise it was moved from queue to queue",
        ("task_lifecycle", "event") => "`fork`, `exec`, `exit`, `free` or `rename`",
        ("task_lifecycle", "task") => "Whose life; of a fork: the child",
        (_, "old_tid") => "Thread id before an exec; otherwise NULL",
        (_, "group_dead") => "The last thread of its process ended; NULL unless it is an exit",
        ("snapshot", "task") => "Which task",
        (_, "running") => "It had the CPU; otherwise it waited for it",
        ("states", "task_id") => "Which task; an idle task stands for its CPU",
        (_, "task_id") => "The number by which events name it",
        (_, "tid") => "Thread id",
        (_, "pid") => "Process id: the thread id of the group's leader",
        (_, "ppid") => "Process id of the parent",
        (_, "comm") => "Its name",
        (_, "cgroup_id") => "Its cgroup (v2): the number of its folder's inode",
        (_, "path") => "Below the mount point of the v2 hierarchy",
        (_, "start_ns") => "When it was created",
        ("tasks", "since_ns") => "Since when it is so",
        (_, "since_ns") => "Since when",
        (_, "kernel") => "A kernel thread",
        (_, "recorder") => "A thread of the recorder",
        (_, "seen_ns") => "Where in the stream the row belongs",
        (_, "carried") => "It was told before, and is repeated where a segment begins",
        (_, "place") => "Where they were lost: `ring 0`, `late`, ...",
        (_, "kind") => "Which events; NULL if not known",
        (_, "count") => "How many",
        (_, "from_ns") => "Not before",
        (_, "until_ns") => "Not after",
        (_, "state") => {
            "`running`, `woken`, `waking`, `preempted`, `throttled`, `new`, `waiting`, `asleep` or `unknown`"
        }
        ("states", "cpu") => "Its CPU, or that on whose queue it is, or where it ran last",
        (_, "sleep_state") => "Asleep: as `prev_state`",
        (_, "by_task") => "Who woke or preempted it; NULL if nobody, or an interrupt did",
        (_, "by_context") => "The interrupt that woke it; NULL if none did",
        _ => "",
    }
}
