//! The derived tables: each is declared once, with what its columns are; rows, builders, schemas and documentation come of
//! that.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use serde::Serialize;

use super::cells::{
    Cell, Flag, Num, OptFlag, OptNs, OptNum, OptText, OptTime, OptU8, OptU16, OptU32, Text, Time, U16, U32,
};

/// A table that can be asked, and what its columns are.
///
/// ```
/// use schedtrace_core::query;
/// let waits = query::tables().into_iter().find(|table| table.name == "thread_state").unwrap();
/// assert!(waits.columns.iter().any(|column| column.name == "dur" && column.unit == "ns"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableDoc {
    /// What it is called.
    pub name: String,
    /// Whether its rows lie in the trace, are made of the events while the query runs, or come of another query.
    pub kind: TableKind,
    /// What a row is.
    pub about: String,
    /// Where its definition stands: a document, or a file of the kernel's.
    pub source: String,
    /// Its columns, in order.
    pub columns: Vec<ColumnDoc>,
}

/// Where the rows of a table come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// They are made of the events while the query runs.
    Derived,
    /// They lie in the trace, as the kernel told.
    Event,
    /// They lie in the trace, and say who the tasks are, and what is missing.
    Setting,
    /// A query with a name.
    View,
}

/// A column, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnDoc {
    /// What it is called.
    pub name: String,
    /// Its type in SQL.
    pub data_type: String,
    /// What its numbers count; empty where they are names or plain numbers.
    pub unit: String,
    /// It can be `NULL`.
    pub nullable: bool,
    /// What it is.
    pub about: String,
}

/// As SQL calls it.
pub(super) fn sql_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Int32 => "int",
        DataType::Int64 => "bigint",
        DataType::Float64 => "double",
        _ => "text",
    }
}

/// What a derived table's columns are built with.
pub(super) trait Build: Send + 'static {
    /// All columns.
    fn schema() -> SchemaRef;
    /// The builders of some columns.
    fn of(wanted: &[usize]) -> Self;
    /// How many rows wait.
    fn rows(&self) -> usize;
    /// Takes them out.
    fn take(&mut self, schema: SchemaRef) -> Result<RecordBatch, ArrowError>;
}

macro_rules! tables {
    ($(
        $(#[doc = $about:literal])+
        $row:ident, $columns:ident = $name:literal, $source:literal {
            $($(#[doc = $column_about:literal])+ $column:ident: $cell:ident $(= $unit:literal)?,)*
        }
    )*) => {
        $(
            #[derive(Clone, Copy)]
            pub(super) struct $row<'a> { $(pub(super) $column: <$cell as Cell>::Value<'a>,)* }

            /// Builders of the columns that are wanted.
            #[derive(Debug, Default)]
            pub(super) struct $columns { rows: usize, $($column: Option<<$cell as Cell>::Builder>,)* }

            impl $columns {
                pub(super) const NAME: &'static str = $name;

                #[inline]
                pub(super) fn push(&mut self, row: $row<'_>) {
                    self.rows += 1;
                    $(if let Some(builder) = &mut self.$column { <$cell as Cell>::push(builder, row.$column); })*
                }

                fn doc() -> TableDoc {
                    TableDoc {
                        name: $name.to_owned(),
                        kind: TableKind::Derived,
                        about: sentence(&[$($about),+]),
                        source: $source.to_owned(),
                        columns: vec![$(ColumnDoc {
                            name: stringify!($column).to_owned(),
                            data_type: sql_type(&<$cell as Cell>::TYPE).to_owned(),
                            unit: <[&str]>::concat(&[$($unit)?]),
                            nullable: <$cell as Cell>::NULLABLE,
                            about: sentence(&[$($column_about),+]),
                        },)*],
                    }
                }
            }

            impl Build for $columns {
                fn schema() -> SchemaRef {
                    Arc::new(Schema::new(vec![
                        $(Field::new(stringify!($column), <$cell as Cell>::TYPE, <$cell as Cell>::NULLABLE),)*
                    ]))
                }

                fn of(wanted: &[usize]) -> Self {
                    let mut at = 0..;
                    let mut is_wanted = || at.next().is_some_and(|at| wanted.contains(&at));
                    Self { rows: 0, $($column: is_wanted().then(Default::default),)* }
                }

                fn rows(&self) -> usize {
                    self.rows
                }

                fn take(&mut self, schema: SchemaRef) -> Result<RecordBatch, ArrowError> {
                    let rows = std::mem::take(&mut self.rows);
                    let columns: Vec<ArrayRef> =
                        [$(self.$column.as_mut().map(<$cell as Cell>::finish),)*].into_iter().flatten().collect();
                    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
                }
            }
        )*

        /// The documentation of all of them.
        pub(super) fn derived() -> Vec<TableDoc> {
            vec![$($columns::doc(),)*]
        }
    };
}

/// The lines of a comment as one.
fn sentence(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

tables! {
    /// One row for each stretch of time in which a task had a CPU, and for each in which a CPU was idle (`utid` 0,
    /// `swapper`).
    SliceRow, SliceColumns = "sched_slice", "`sched_switch`, `__schedule` in kernel/sched/core.c; docs/analyses.md" {
        /// When it got the CPU, or when the recording began.
        ts: Time = "ns",
        /// How long it had it, as far as it was seen; NULL where switches are known to be missing in it.
        dur: OptNs = "ns",
        /// Which CPU.
        cpu: U16,
        /// Which task: `thread.utid`; 0 if the CPU was idle.
        utid: Num,
        /// How it ended: `R` and `R+` it stayed runnable (`R+`: preempted in the midst of kernel code), `S` interruptible sleep,
        /// `D` uninterruptible, `T` stopped, `t` traced, `I` idle kernel thread, `X` it died; NULL: it has not ended.
        end_state: OptText,
        /// Kernel priority with which it came: 0-99 real time, 100-139 for nice -20 to 19, 255 deadline; NULL if not seen.
        priority: OptU8,
        /// Thread id; NULL if its identity is not known.
        tid: OptU32,
        /// Process id.
        pid: OptU32,
        /// Name of the task, as it was when it ended.
        comm: Text,
        /// Both its ends were seen, and nothing is known to be missing in it.
        whole: Flag,
    }

    /// One row for each stretch of time in which a task was in one state: running, runnable without a CPU, or asleep. The
    /// rows of a task follow one another without gaps, but for times of which nothing is known.
    StateRow, StateColumns = "thread_state", "docs/analyses.md; states as in fs/proc/array.c" {
        /// When it came into the state, or when the recording began.
        ts: Time = "ns",
        /// How long it was in it, as far as it was seen; NULL where events are known to be missing in it.
        dur: OptNs = "ns",
        /// Running: its CPU. Runnable: on whose queue it was last. Otherwise NULL.
        cpu: OptU16,
        /// Which task: `thread.utid`.
        utid: Num,
        /// `Running`; `R` runnable since it was woken, or new; `R+` runnable since it lost the CPU; `S` interruptible
        /// sleep, `D` uninterruptible, `T` stopped, `t` traced, `I` idle kernel thread; NULL: asleep since before the recording.
        state: OptText,
        /// What it was for: `running`; `woken`, `new`, `preempted`, `throttled` (CPU quota), `at_start` (runnable since before the recording);
        /// `interruptible`, `uninterruptible`, `io`, `stopped`, `idle`, `asleep` (since before the recording).
        reason: Text,
        /// Asleep: it waits for I/O, as the kernel counts it (`in_iowait`). Otherwise NULL.
        io_wait: OptFlag,
        /// `R`: the task that woke it, or created it; NULL if an interrupt did.
        waker_utid: OptNum,
        /// Name of that task.
        waker_comm: OptText,
        /// `R`: an interrupt woke it.
        irq_context: OptFlag,
        /// Thread id; NULL if its identity is not known.
        tid: OptU32,
        /// Process id.
        pid: OptU32,
        /// Name of the task, as it was when it ended.
        comm: Text,
        /// Both its ends were seen, and nothing is known to be missing in it.
        whole: Flag,
    }

    /// One row for each wakeup of a sleeping task, and for the first of a new one. `dur` is the wakeup latency: from the
    /// waking until the task had a CPU.
    WakeupRow, WakeupColumns = "wakeup", "`sched_waking`, `try_to_wake_up` in kernel/sched/core.c; docs/analyses.md" {
        /// When it was woken.
        ts: Time = "ns",
        /// Until it had a CPU, as far as it was seen; NULL where events are known to be missing.
        dur: OptNs = "ns",
        /// The CPU on which it ran then.
        cpu: U16,
        /// Who was woken: `thread.utid`.
        utid: Num,
        /// Thread id; NULL if its identity is not known.
        tid: OptU32,
        /// Process id.
        pid: OptU32,
        /// Name of the task.
        comm: Text,
        /// Who woke it; NULL if an interrupt did.
        waker_utid: OptNum,
        /// Thread id of the waker.
        waker_tid: OptU32,
        /// Process id of the waker.
        waker_pid: OptU32,
        /// Name of the waker.
        waker_comm: OptText,
        /// The interrupt that woke it: `softirq`, `hardirq` or `nmi`; NULL if a task did.
        waker_context: OptText,
        /// It is a new task's first.
        new: Flag,
        /// The CPU on which it ran before; NULL if not seen.
        prev_cpu: OptU16,
        /// It was moved to another queue while it waited.
        migrated: Flag,
        /// From the waking until it was on a queue; NULL unless `sched_wakeup` was recorded.
        enqueue_dur: OptNs = "ns",
        /// Both its ends were seen, and nothing is known to be missing in it.
        whole: Flag,
    }

    /// One row for each time that a runnable task lost its CPU to another one. `dur` is how long it took to get one again.
    PreemptionRow, PreemptionColumns = "preemption", "`sched_switch` with a runnable `prev`; docs/analyses.md" {
        /// When it lost the CPU.
        ts: Time = "ns",
        /// Until it had a CPU again, as far as it was seen; NULL where events are known to be missing.
        dur: OptNs = "ns",
        /// Which CPU it lost.
        cpu: U16,
        /// Who lost it: `thread.utid`.
        utid: Num,
        /// Thread id; NULL if its identity is not known.
        tid: OptU32,
        /// Process id.
        pid: OptU32,
        /// Name of the task.
        comm: Text,
        /// Kernel priority with which it ran; NULL if not seen.
        priority: OptU8,
        /// Who got the CPU.
        by_utid: Num,
        /// Thread id of that one.
        by_tid: OptU32,
        /// Process id of that one.
        by_pid: OptU32,
        /// Name of that one.
        by_comm: Text,
        /// Kernel priority with which that one came; NULL if not seen.
        by_priority: OptU8,
        /// In the midst of kernel code; otherwise on its way back to user space, or in `sched_yield`. NULL if not seen.
        in_kernel: OptFlag,
        /// The CPU on which it ran next.
        next_cpu: U16,
        /// Both its ends were seen, and nothing is known to be missing in it.
        whole: Flag,
    }

    /// One row for each interrupt that a CPU served and that was seen from its beginning to its end; only where `irq_handler_entry` and the like were recorded
    /// (`record --events irq`).
    IrqRow, IrqColumns = "irq_slice", "`irq_handler_entry`, `softirq_entry` and their exits; docs/analyses.md" {
        /// When it began.
        ts: Time = "ns",
        /// How long it took, with what interrupted it.
        dur: OptNs = "ns",
        /// The part of it that was its own.
        self_dur: OptNs = "ns",
        /// Which CPU.
        cpu: U16,
        /// `hardirq`, `softirq` or `ipi`.
        kind: Text,
        /// The number of the interrupt line; NULL of those that have none.
        irq: OptU32,
        /// The handler, the softirq's vector, or the kind of the interrupt from another CPU.
        name: Text,
        /// Who had the CPU: `thread.utid`, 0 if nobody; NULL if not known.
        utid: OptNum,
        /// Thread id of that task.
        tid: OptU32,
        /// Name of that task.
        comm: OptText,
    }

    /// One row for each task: one life of one thread, as it was last.
    TaskRow, TaskColumns = "task", "`struct task_struct`; identities as the recorder announced them" {
        /// The number by which tables name it, unique over all traces of the query. Idle tasks have one, 0, which stands with the
        /// first of them; with the others it is NULL.
        utid: OptNum,
        /// The number by which the trace's own tables name it (`next_task`, `task`, ...), unique in one trace.
        task_id: U32,
        /// Thread id.
        tid: U32,
        /// Process id: the thread id of the group's leader.
        pid: U32,
        /// The process's parent.
        ppid: U32,
        /// The process: the `utid` of its leader, or, where that one was not seen, of its thread with the lowest.
        upid: Num,
        /// Its name.
        comm: Text,
        /// Its cgroup (v2): the number of its folder's inode.
        cgroup_id: Num,
        /// The path of that cgroup; NULL if not known.
        cgroup: OptText,
        /// When it was created.
        start_ts: Time = "ns",
        /// When it began to exit; NULL if it was not seen to.
        end_ts: OptTime = "ns",
        /// It is the leader of its process.
        is_main_thread: Flag,
        /// A kernel thread.
        kernel: Flag,
        /// The idle task of a CPU.
        is_idle: Flag,
        /// A thread of the recorder.
        recorder: Flag,
    }

    /// One row for each CPU of the machine.
    CpuRow, CpuColumns = "cpu", "/sys/devices/system/cpu" {
        /// The kernel's number of it.
        cpu: U16,
        /// Its physical core: the lowest number of a CPU that shares it.
        core: U32,
        /// Its last-level cache: the lowest number of a CPU that shares it.
        llc: U32,
        /// Its NUMA node.
        node: U32,
        /// Whether it was online when the recording began.
        online: Flag,
    }

    /// One row for each trace.
    TraceRow, TraceColumns = "trace_info", "meta.json of the trace" {
        /// Where it lies.
        path: Text,
        /// The kernel's release.
        kernel: Text,
        /// When the recording began.
        from_ts: Time = "ns",
        /// To when it goes.
        until_ts: Time = "ns",
        /// What has to be added to a time to have nanoseconds since 1970 (UTC); NULL if the clocks were not read.
        utc_offset: OptNum = "ns",
        /// `recording`, `interrupted`, `finished`, `repaired`, or `live`.
        state: Text,
        /// Events that are known to be missing.
        lost: Num,
        /// Nothing is known to be missing from it.
        complete: Flag,
    }
}
