//! Traces on disk: [`TraceWriter`] is a [`Sink`](crate::Sink), [`TraceReader`] a [`Source`](crate::Source).
//!
//! A trace is a directory of Parquet tables, so that every data tool opens it without us:
//!
//! ```text
//! run.schedtrace/
//!   meta.json                          the setting: host, kernel, topology, clocks, probes; completeness once finished
//!   commit.json                        how far it has come: replaced at each commit
//!   durable.json                       how far it has come on the disk: while it is recorded
//!   lock                               held while it is recorded, gone when it is finished
//!   events/sched_switch/00000000.parquet, ...     sched_waking, sched_wakeup_new, sched_migrate_task, task_lifecycle, snapshot
//!   tasks/00000000.parquet, ...        who the tasks are: `task_id` is what the events name
//!   cgroups/00000000.parquet, ...      paths of cgroups
//!   loss/00000000.parquet, ...         what is known to be missing
//!   states/00000000.parquet, ...       what each task was doing when the segment began
//! ```
//!
//! The number is that of the *segment*: a stretch of time in all tables, so that segment 7 of one table goes with segment
//! 7 of the others. Each segment begins with the identities that hold when it begins (`carried`), and with what each task was
//! doing then, so that it can be read without those before it. Units stand in the names of columns; times are `CLOCK_MONOTONIC`.
//!
//! A task can be announced more than once: when its name changes, and at the begin of each segment. With DuckDB:
//!
//! ```sql
//! select t.comm, count(*) as switches
//! from 'run.schedtrace/events/sched_switch/*.parquet' s
//! asof join 'run.schedtrace/tasks/*.parquet' t on s.next_task = t.task_id and s.ts_ns >= t.since_ns
//! group by t.comm order by switches desc;
//! ```
//!
//! # Columns
//!
//! | table | columns |
//! |---|---|
//! | all events | `ts_ns`, `cpu` |
//! | `sched_switch` | `prev_task`, `next_task`, `prev_state` (`TASK_*` bits, and two more: [`TaskState`](crate::TaskState)), `preempted`, `prev_prio`, `next_prio` |
//! | `sched_waking` | `task`, `current_task`, `context` (task, softirq, hardirq, nmi), `prev_cpu`, `on_cpu`, `prio` |
//! | `sched_wakeup_new` | `task`, `parent_task`, `target_cpu`, `prio` |
//! | `sched_migrate_task` | `task`, `from_cpu`, `to_cpu`, `placed`, `prio` |
//! | `task_lifecycle` | `event` (fork, exec, exit, free, rename), `task` (of a fork: the child), `parent_task`, `old_tid`, `group_dead` |
//! | `snapshot` | `task`, `running` |
//! | any other event | its fields ([`Kind::fields`](crate::Kind::fields)); there if it was recorded |
//! | `tasks` | `task_id`, `tid`, `pid`, `ppid`, `comm`, `cgroup_id`, `start_ns`, `since_ns`, `kernel`, `recorder`, `seen_ns`, `carried` |
//! | `cgroups` | `cgroup_id`, `path`, `seen_ns`, `carried` |
//! | `loss` | `place`, `kind`, `count`, `from_ns`, `until_ns`, `seen_ns` |
//! | `states` | `task_id`, `state` (running, woken, waking, preempted, throttled, new, waiting, asleep, unknown), `since_ns`, `cpu`, `sleep_state` (as `prev_state`), `by_task` and `by_context` (who woke or preempted it), `seen_ns`, `carried`; an idle task stands for its CPU. The first segment has none, unless the recording began in the midst of a stream |
//!
//! `seen_ns` is where in the stream the row belongs. The idle task of CPU *n* has the id 2³¹ + *n*; it is in `tasks` too.
//!
//! # In flight
//!
//! The newest segment of each table is an Arrow IPC stream (`.arrows`), appended record batch by record batch. At each
//! commit `commit.json` says how many bytes of each table count; readers go no further. That survives the recorder,
//! whatever kills it. A thread in the background brings the same to the disk, and then says so in `durable.json`, which
//! is what readers believe after the machine was started again (`boot_id`), or elsewhere. When a segment is large enough
//! another thread turns it into Parquet, sorted by time, and removes the streams once all Parquet files are in place.
//! [`repair`](repair()) does that for what an interrupted recording has left.

mod archive;
mod column;
mod commit;
mod declared;
mod footer;
mod info;
#[cfg(feature = "sql")]
mod parts;
mod reader;
mod repair;
mod retention;
mod schema;
mod segment;
mod sync;
#[cfg(test)]
mod tests;
mod untrusted;
mod when;
mod writer;

#[cfg(feature = "sql")]
pub(crate) use parts::{AtRest, Part, StreamRows, all_tables};

pub use archive::{Archive, ArchiveOptions, ArchiveWriter, LeftAlone, Listing, StoredTrace, traces_in};
pub use info::{Completeness, Removed, TableInfo, TraceInfo, TraceState};
pub use reader::{TableReader, TraceReader};
pub use repair::{Repair, interrupted_in, repair};
pub use when::{Excerpt, Stretch, Time};
pub use writer::{TraceWriter, WriterOptions};
