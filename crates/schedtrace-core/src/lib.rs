//! Records what the Linux scheduler does, with BPF, and explains it: why did this task wait, who held the CPU, who woke
//! whom, and what was lost?
//!
//! ```text
//!   the running kernel                 a trace on disk            a list in a test
//!   live::Collector                    trace::TraceReader         MemorySource
//!          |                                  |                        |
//!          +-------------- Source: poll() -> Batch -------------------+
//!                                    |
//!                      Pipeline: one queue per sink, OnFull
//!                                    |
//!          +----------------------+--+-------------------+
//!   trace::TraceWriter      analysis::Sched         a closure, your Sink
//!                           -> a typed Report
//! ```
//!
//! Every kernel event becomes an [`Event`] in one place and travels in time-ordered [`Batch`]es; whatever is shown is a
//! [`Sink`] or an [`analysis::Analysis`] over that stream, live and recorded alike. What is missing travels with it, as
//! [`Loss`].
//!
//! # Why did a task wait?
//!
//! ```
//! use schedtrace_core::analysis::{self, Options, Sched};
//! use schedtrace_core::{
//!     Batch, Context, Cpu, Event, EventKind, MemorySource, Meta, Nanos, Switch, TaskId, TaskState, Waking,
//! };
//!
//! # fn main() -> schedtrace_core::Result<()> {
//! let at = |ts, kind| Event { ts: Nanos(ts), cpu: Cpu(0), kind };
//! let switch = |prev, next, prev_state| {
//!     let (preempted, prev_prio, next_prio) = (false, 120, 120);
//!     EventKind::Switch(Switch { prev, next, prev_state, preempted, prev_prio, next_prio })
//! };
//! let (ours, other, idle) = (TaskId(1), TaskId(2), TaskId::idle(Cpu(0)));
//! let events = vec![
//!     at(1_000, switch(ours, other, TaskState::INTERRUPTIBLE)), // we sleep
//!     at(2_000, EventKind::Waking(Waking {                      // are woken,
//!         task: ours, current: other, context: Context::Task, prev_cpu: Cpu(0), on_cpu: false, prio: 120,
//!     })),
//!     at(9_000, switch(other, ours, TaskState::INTERRUPTIBLE)), // and get the CPU when the other one sleeps
//!     at(9_500, switch(ours, idle, TaskState::DEAD)),
//! ];
//! let batch = Batch { until: Nanos(10_000), events, ..Batch::default() };
//! let mut source = MemorySource::new(Meta::default(), [batch]); // or a Collector, or a TraceReader
//!
//! let report = analysis::run(&mut source, Sched::new(Options::default()))?;
//! assert_eq!(report.run_queue.total.wait.max_ns, 7_000);
//! assert_eq!(report.holders.total.holders[0].share_ratio, 1.0);
//! # Ok(())
//! # }
//! ```
//!
//! To record, see [`live`] (needs root, or `CAP_BPF` and `CAP_PERFMON`); to store and read, [`trace`]; for answers,
//! [`analysis`]; to keep only the last seconds, until something goes wrong, [`flight`].
//!
//! # Features
//!
//! - `live` (default): the running kernel as a source. Brings libbpf, which needs a C compiler, make, libelf and zlib,
//!   and no clang.
//! - `machine`: what the running machine says of itself in procfs and sysfs ([`system::stats`] and its neighbours); no
//!   privilege needed. Brings procfs-core and flate2.
//! - `trace` (default): traces on disk. Brings Arrow and Parquet.
//! - `sql`: SQL over traces and over the live window ([`query`]). Brings DataFusion, and with it an async runtime that stays
//!   inside, and zstd, which needs a C compiler.
//! - `perfetto`: writes Perfetto traces. Brings prost.
//! - `csv`: writes comma-separated values.
//! - `vendored`: `live`, with libelf and zlib linked statically.
//! - `synthetic`: simulated machines of any size as a source, for tests and benches. Brings fastrand.

pub mod analysis;
#[cfg(any(feature = "csv", feature = "trace"))]
mod counted;
mod error;
mod event;
mod event_log;
#[cfg(any(feature = "csv", feature = "perfetto"))]
pub mod export;
pub mod flight;
mod known;
#[cfg(feature = "live")]
pub mod live;
pub mod merge;
pub mod pipeline;
#[cfg(feature = "sql")]
pub mod query;
mod rate_limit;
#[cfg(all(feature = "live", feature = "trace"))]
mod recorder;
mod sink;
mod source;
#[cfg(feature = "synthetic")]
pub mod synthetic;
pub mod system;
#[cfg(feature = "trace")]
pub mod trace;

pub use error::{Error, Result};
pub use event::*;
pub use event_log::{EventLog, LoggedEvent};
pub use pipeline::{Pipeline, SinkOutcome, Summary};
pub use rate_limit::RateLimit;
#[cfg(all(feature = "live", feature = "trace"))]
pub use recorder::{Recorder, RecorderBuilder, Written};
pub use sink::{Filtered, OnFull, Sink};
pub use source::{Account, Filters, Fired, MemorySource, Meta, Poll, Probe, RingInfo, Source, Transport};

/// The README's example compiles.
#[cfg(all(doctest, feature = "live"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
