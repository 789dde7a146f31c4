//! Why did tasks wait? Typed answers from the stream of events, the same live and recorded.
//!
//! [`Sched`] is the standard study. It runs one state machine ([`states`]) over the stream and answers, for one window:
//!
//! | question | answer |
//! |---|---|
//! | How long did tasks wait for a CPU, and why? | [`RunQueueReport`] |
//! | Who held the CPU meanwhile? | [`HoldersReport`] |
//! | Who used the CPUs? | [`CpuTimeReport`] |
//! | How often did the CPUs change hands? | [`SwitchesReport`] |
//! | Who woke whom? | [`WakeupsReport`] |
//! | How far were tasks moved? | [`MigrationsReport`] |
//! | What is missing from all that? | [`Completeness`] |
//!
//! Reports are plain data that serialise; units stand in the names of their fields. For a question of your own,
//! implement [`states::Observer`], or [`Analysis`] from scratch.
//!
//! ```
//! use schedtrace_core::analysis::{self, GroupBy, Options, Sched};
//! use schedtrace_core::{Cpu, Event, EventKind, MemorySource, Meta, Nanos, Batch, Switch, TaskId, TaskState};
//!
//! // On CPU 0, task 2 preempts task 1 at 10 us and ends at 30 us.
//! let switch = |ts, prev, next, state, preempted| Event {
//!     ts: Nanos(ts),
//!     cpu: Cpu(0),
//!     kind: EventKind::Switch(Switch {
//!         prev: TaskId(prev), next: TaskId(next), prev_state: state, preempted, prev_prio: 120, next_prio: 120,
//!     }),
//! };
//! let events = vec![switch(10_000, 1, 2, TaskState::RUNNING, true), switch(30_000, 2, 1, TaskState::DEAD, false)];
//! let meta = Meta { started: Nanos(1), ..Meta::default() };
//! let mut source = MemorySource::new(meta, [Batch { until: Nanos(40_000), events, ..Batch::default() }]);
//!
//! let report = analysis::run(&mut source, Sched::new(Options { by: GroupBy::Task, ..Options::default() }))?;
//! assert_eq!(report.run_queue.total.wait.max_ns, 20_000);
//! assert_eq!(report.holders.total.holders[0].group.to_string(), "<task 2>");
//! # Ok::<(), schedtrace_core::Error>(())
//! ```

mod block_io;
mod compare;
mod conservation;
mod cpu_time;
mod depth;
mod dispatch;
mod distribution;
mod explain;
mod failed_calls;
mod fairness;
mod futexes;
mod groups;
mod holders;
mod interrupts;
mod ipis;
mod lanes;
mod latency;
mod loss;
mod measure;
mod migrations;
mod nested;
mod observer;
mod off_cpu;
mod outliers;
mod power;
mod preemptions;
mod question;
mod reports;
mod runqueue;
pub mod states;
mod study;
mod switches;
mod syscalls;
mod system_use;
mod tables;
mod tasks;
mod thread_states;
mod timeline;
mod wakers;
mod wakeups;

#[cfg(test)]
mod tests;

pub use block_io::{BlockDeviceRow, BlockIo, BlockIoReport, BlockRow, BlockTaskRow, BlockTotals};
pub use compare::{
    Comparison, Interval, MetricChange, NameRow, NameUse, Profile, ProfileAnswer, TaskChange, Verdict, WaitBuckets,
    WindowSlice, compare,
};
pub use conservation::{Conservation, ConservationReport, ConservationRow, IdleCpuRow};
pub use cpu_time::{CpuRow, CpuTimeReport, CpuTimeRow, CpuUse};
pub use depth::{Depth, DepthReport, DepthRow, DepthStats, ImbalanceRow};
pub use dispatch::{Dispatch, DispatchReport, DsqCounts, DsqRow, LayerRow};
pub use distribution::{Bucket, Distribution, Summary};
pub use explain::{
    ContentionSource, CriticalPath, Explain, Explained, Explanation, Mechanism, Moment, PathPart, Recommendation,
    Severity, Step, Subject,
};
pub use failed_calls::{FailedCall, FailedCalls, FailedCallsOptions, FailedCallsReport};
pub use fairness::{Fairness, FairnessReport, FairnessRow};
pub use futexes::{FutexCounts, FutexRow, FutexWaker, Futexes, FutexesReport};
pub use groups::{Gone, Group};
pub use holders::{HeldBy, Holder, HolderOfWait, HoldersReport, HoldersRow};
pub use interrupts::{
    InterruptCpuRow, InterruptRow, InterruptSource, InterruptTimes, Interrupted, Interrupts, InterruptsReport,
    SoftirqDelay,
};
pub use ipis::{IpiCounts, IpiHandled, IpiPairRow, IpiSender, IpiSent, Ipis, IpisReport};
pub use lanes::{Lane, Lanes, Timeline, TimelineOptions, TimelineReport};
pub use latency::{Latency, LatencyReport, LatencyRow, WakeupLatency};
pub use loss::Completeness;
pub use measure::{Example, Latencies};
pub use migrations::{MigrationCounts, MigrationRow, MigrationsReport};
#[cfg(feature = "sql")]
pub(crate) use nested::{Nested, Served, Service};
pub use off_cpu::{Blamed, Contender, OffCpu, OffCpuPart, OffCpuReason, OffCpuReport, OffCpuSample, WhoseDoing};
pub use outliers::{Beyond, Fences, OutlierRow, Outliers, OutliersReport};
pub use power::{CpuPowerRow, Frequency, IdleStateRow, IdleTime, Power, PowerReport};
pub use preemptions::{PreemptionRow, Preemptions, PreemptionsReport};
pub use question::{About, Answered, Question, Study};
pub use reports::{ReportName, ReportSet, Reports, run_reports};
pub use runqueue::{
    CauseCounts, CauseKind, CauseRow, RunQueueReport, RunQueueRow, RunQueueStats, WaitCounts, WorstWait,
};
pub use study::{Report, Sched, Scope};
pub use switches::{SwitchCounts, SwitchCpuRow, SwitchRow, SwitchesReport};
pub use syscalls::{SyscallFailure, SyscallRow, SyscallTask, SyscallTime, Syscalls, SyscallsReport};
pub use system_use::{
    Counter, CpuTimeShares, CpusUse, Gauge, InterfaceUse, LoadUse, MemoryUse, NetworkUse, PressureUse,
    ResourcePressure, SampledCpu, SampledQueue, Samples, StallUse, SystemUse, SystemUseReport,
};
pub use tasks::{Tasks, Who};
pub use thread_states::{
    SleepRow, StateRow, StateTime, ThreadState, ThreadStates, ThreadStatesReport, ThreadStatesRow,
};
pub use wakers::{Placement, WakerRow, Wakers, WakersReport};
pub use wakeups::{WakerGroup, WakeupCounts, WakeupPair, WakeupRow, WakeupsReport};

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::{Batch, Nanos};
use crate::pipeline::Pipeline;
use crate::sink::{OnFull, Sink};
use crate::source::{Meta, Source};

/// Answers a question about the stream.
///
/// ```
/// use schedtrace_core::analysis::{self, Analysis};
/// use schedtrace_core::{Batch, EventKind, MemorySource, Meta};
///
/// /// How many switches were there?
/// #[derive(Default)]
/// struct Switches(u64);
///
/// impl Analysis for Switches {
///     type Report = u64;
///
///     fn update(&mut self, batch: &Batch) {
///         self.0 += batch.events.iter().filter(|event| matches!(event.kind, EventKind::Switch(_))).count() as u64;
///     }
///
///     fn report(&self) -> u64 {
///         self.0
///     }
/// }
///
/// let mut source = MemorySource::new(Meta::default(), [Batch::default()]);
/// assert_eq!(analysis::run(&mut source, Switches::default())?, 0);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
pub trait Analysis {
    /// The answer.
    type Report: Serialize;

    /// Takes the setting, before the first batch.
    ///
    /// ```
    /// # use schedtrace_core::analysis::{Analysis, Sched};
    /// # use schedtrace_core::{Meta, Nanos};
    /// let mut sched = Sched::default();
    /// sched.begin(&Meta { started: Nanos(500), ..Meta::default() });
    /// ```
    fn begin(&mut self, meta: &Meta) {
        let _ = meta;
    }

    /// Takes the next stretch of the stream.
    ///
    /// ```
    /// # use schedtrace_core::analysis::{Analysis, Sched};
    /// # use schedtrace_core::{Batch, Meta, Nanos};
    /// # let mut sched = Sched::default();
    /// # sched.begin(&Meta { started: Nanos(500), ..Meta::default() });
    /// sched.update(&Batch { until: Nanos(900), ..Batch::default() });
    /// assert_eq!(sched.report().window.duration_ns, Nanos(400));
    /// ```
    fn update(&mut self, batch: &Batch);

    /// Takes what is known after the last batch.
    ///
    /// ```
    /// # use schedtrace_core::analysis::{Analysis, Sched};
    /// # use schedtrace_core::{Meta, Nanos};
    /// # let mut sched = Sched::default();
    /// sched.finish(&Meta { ended: Some(Nanos(900)), ..Meta::default() });
    /// ```
    fn finish(&mut self, meta: &Meta) {
        let _ = meta;
    }

    /// The answer so far, as of the last batch.
    ///
    /// ```
    /// # use schedtrace_core::analysis::{Analysis, Sched};
    /// assert_eq!(Sched::default().report().run_queue.total.wait.count, 0);
    /// ```
    fn report(&self) -> Self::Report;
}

/// Two questions asked of one stream, answered at the same moment.
///
/// ```
/// use schedtrace_core::analysis::{Analysis, GroupBy, Options, Sched};
/// let both = (Sched::default(), Sched::new(Options { by: GroupBy::Cpu, ..Options::default() }));
/// let (by_task, by_cpu) = both.report();
/// assert_eq!((by_task.by, by_cpu.by), (GroupBy::Task, GroupBy::Cpu));
/// ```
impl<A: Analysis, B: Analysis> Analysis for (A, B) {
    type Report = (A::Report, B::Report);

    fn begin(&mut self, meta: &Meta) {
        self.0.begin(meta);
        self.1.begin(meta);
    }

    fn update(&mut self, batch: &Batch) {
        self.0.update(batch);
        self.1.update(batch);
    }

    fn finish(&mut self, meta: &Meta) {
        self.0.finish(meta);
        self.1.finish(meta);
    }

    fn report(&self) -> Self::Report {
        (self.0.report(), self.1.report())
    }
}

/// Reads a source to its end, and gives the answer. The source is read on this thread, and the analysis follows on
/// another.
///
/// ```
/// use schedtrace_core::analysis::{self, Sched};
/// use schedtrace_core::{MemorySource, Meta};
///
/// let mut source = MemorySource::new(Meta::default(), []);
/// let report = analysis::run(&mut source, Sched::default())?;
/// assert_eq!(report.run_queue.total.wait.count, 0);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
pub fn run<A: Analysis + Send>(source: &mut (impl Source + ?Sized), analysis: A) -> Result<A::Report> {
    let analysis = Shared::new(analysis);
    Pipeline::new().sink("analysis", OnFull::Block, &mut analysis.clone()).run(source)?.into_result()?;
    Ok(analysis.report())
}

/// An analysis as a [`Sink`], that others can ask for its report while the stream goes on.
///
/// ```
/// use schedtrace_core::analysis::{Sched, Shared};
/// use schedtrace_core::{Batch, Sink};
/// let view = Shared::new(Sched::default());
/// let mut sink = view.clone();
/// sink.batch(&Batch::default())?;
/// assert_eq!(view.report().run_queue.total.wait.count, 0);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Shared<A>(Arc<Mutex<A>>);

impl<A> Clone for Shared<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Analysis> Shared<A> {
    /// Shares an analysis.
    ///
    /// ```
    /// use schedtrace_core::analysis::{Sched, Shared};
    /// let view = Shared::new(Sched::default());
    /// let for_a_thread = view.clone();
    /// ```
    pub fn new(analysis: A) -> Self {
        Self(Arc::new(Mutex::new(analysis)))
    }

    /// The answer so far.
    ///
    /// ```
    /// use schedtrace_core::analysis::{Sched, Shared};
    /// let view = Shared::new(Sched::default());
    /// assert_eq!(view.report().run_queue.total.wait.count, 0);
    /// ```
    #[must_use]
    pub fn report(&self) -> A::Report {
        self.lock().report()
    }

    /// The analysis itself. No batch is taken while it is held.
    ///
    /// ```
    /// use schedtrace_core::analysis::{Analysis, Sched, Shared};
    /// let view = Shared::new((Sched::default(), Sched::default()));
    /// assert_eq!(view.lock().0.report().run_queue.total.wait.count, 0, "only one of the two reports is made");
    /// ```
    pub fn lock(&self) -> MutexGuard<'_, A> {
        // An analysis that panicked has wrong numbers at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Analysis> Sink for Shared<A> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.lock().begin(meta);
        Ok(())
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.lock().update(batch);
        Ok(())
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.lock().finish(meta);
        Ok(())
    }
}

/// What the rows of a report are.
///
/// ```
/// use schedtrace_core::analysis::GroupBy;
/// assert_eq!("cgroup".parse(), Ok(GroupBy::Cgroup));
/// assert!("thread".parse::<GroupBy>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// Threads: one life of one thread.
    #[default]
    Task,
    /// Processes: the threads of one life of one process. A process id that is used again is another process.
    Process,
    /// Cgroups, by path in the v2 hierarchy.
    Cgroup,
    /// CPUs: where it happened. Who held the CPU, and who woke whom, is told by process.
    Cpu,
    /// Last-level caches: under which one it happened. Who held the CPU, and who woke whom, is told by process.
    Llc,
}

impl GroupBy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Task, Self::Process, Self::Cgroup, Self::Cpu, Self::Llc];

    /// `task`, `process`, `cgroup`, `cpu` or `llc`.
    ///
    /// ```
    /// use schedtrace_core::analysis::GroupBy;
    /// assert_eq!(GroupBy::Llc.name(), "llc");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Cpu => "cpu",
            Self::Llc => "llc",
        }
    }
}

impl std::fmt::Display for GroupBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Not the name of something that rows can be.
///
/// ```
/// use schedtrace_core::analysis::GroupBy;
/// let error = "thread".parse::<GroupBy>().unwrap_err();
/// assert_eq!(error.to_string(), "cannot group by `thread`: use one of task, process, cgroup, cpu, llc");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot group by `{0}`: use one of {list}", list = GroupBy::ALL.map(GroupBy::name).join(", "))]
pub struct UnknownGrouping(pub String);

impl From<UnknownGrouping> for Error {
    fn from(unknown: UnknownGrouping) -> Self {
        Self::Invalid(unknown.to_string())
    }
}

impl FromStr for GroupBy {
    type Err = UnknownGrouping;
    fn from_str(name: &str) -> Result<Self, UnknownGrouping> {
        Self::ALL.into_iter().find(|by| by.name() == name).ok_or_else(|| UnknownGrouping(name.to_owned()))
    }
}

/// What to report, and how.
///
/// ```
/// use schedtrace_core::Nanos;
/// use schedtrace_core::analysis::{GroupBy, Options};
///
/// let second_after = |started: Nanos| Options {
///     by: GroupBy::Process,
///     from: Some(started),
///     until: Some(started + Nanos(1_000_000_000)),
///     ..Options::default()
/// };
/// assert_eq!(second_after(Nanos(500)).top, 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What the rows are.
    pub by: GroupBy,
    /// How many rows, pairs and worst waits at most.
    pub top: usize,
    /// Begin here; by default, where the recording begins. What was before is read, but not counted.
    pub from: Option<Nanos>,
    /// End before this; by default, with the stream.
    pub until: Option<Nanos>,
    /// Give rows to the recorder's own threads, and count their waits.
    pub include_recorder: bool,
    /// Take waits during which events are missing for samples, too.
    pub include_doubtful: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            by: GroupBy::default(),
            top: 20,
            from: None,
            until: None,
            include_recorder: false,
            include_doubtful: false,
        }
    }
}
