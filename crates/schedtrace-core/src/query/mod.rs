//! Any question in SQL: over one trace, over many, or over the last seconds of the running machine.
//!
//! ```no_run
//! use schedtrace_core::query::Database;
//!
//! let db = Database::open(["run.schedtrace"])?;
//! let rows = db.query("select comm, approx_percentile_cont(0.99) within group (order by dur) as p99_ns
//!                      from wakeup where whole group by comm order by p99_ns desc")?;
//! for batch in rows {
//!     println!("{} rows", batch?.num_rows());
//! }
//! # Ok::<(), schedtrace_core::Error>(())
//! ```
//!
//! [`tables`] says which tables there are and what every column is. Some lie in the trace as the kernel told them
//! (`sched_switch`, ...); others are made of the events while the query runs, by the state machine that all analyses stand
//! on (`sched_slice`, `thread_state`, `wakeup`, `preemption`, `irq_slice`); and views are named and shaped like Perfetto's.
//!
//! The dialect is that of [DataFusion](https://datafusion.apache.org/user-guide/sql/). Statements can only read, and only
//! these tables: there are no files, no network, and nothing to create. Each has [`Limits`] of rows, time and memory.
//!
//! The engine works on threads of its own, and brings its own async runtime, which no caller ever sees: a [`Database`] can be
//! used and dropped anywhere, also inside another runtime (where [`Rows`] block like any iterator).

mod bounds;
mod cells;
mod database;
mod derived;
mod docs;
mod files;
mod find;
mod functions;
mod guard;
mod origin;
mod output;
mod producer;
mod providers;
mod setting;
mod tables;
#[cfg(test)]
mod tests;
mod views;

pub use database::{Database, Limits, Query, Rows, Value};
pub use docs::{WORDS, tables};
pub use find::find;
pub use guard::{is_whole, statements};
pub use output::{Format, cells, json};
pub use tables::{ColumnDoc, TableDoc, TableKind};
