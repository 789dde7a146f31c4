//! All reports by name, as many of them as are wanted, in one pass.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;

use serde::Serialize;

use super::groups::Gone;
use super::question::{About, Answered, Question, Study};
use super::states::{CpuRef, Migrated, Observer, Ran, Seen, Slept, Span, States, Switched, TaskRef, Waited, Woken};
use super::study::Scope;
use super::{
    Analysis, BlockIo, Conservation, Depth, Dispatch, Fairness, Futexes, Interrupts, Ipis, Latency, Options, Outliers,
    Power, Preemptions, Shared, Syscalls, SystemUse, ThreadStates, Wakers,
};
use crate::error::Error;
use crate::event::{Event, EventGroup, Nanos};
use crate::pipeline::Pipeline;
use crate::sink::OnFull;
use crate::source::{Meta, Source};

/// More threads than that are of no use: each follows the whole stream.
const MAX_THREADS: usize = 4;

/// Declares the reports once: field, question, name, what it tells, and the group of events that it needs besides the default
/// ones.
macro_rules! reports {
    ($($(#[doc = $doc:literal])+ $field:ident: $question:ident = $name:literal $(needs $group:ident)?;)*) => {
        /// A report.
        ///
        /// ```
        /// use schedtrace_core::analysis::ReportName;
        /// assert_eq!("latency".parse::<ReportName>()?, ReportName::Latency);
        /// assert!(ReportName::ALL.iter().all(|name| !name.about().is_empty()));
        /// # Ok::<(), schedtrace_core::Error>(())
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ReportName {
            $($(#[doc = $doc])+ $question,)*
        }

        impl ReportName {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$question,)*];

            /// As in commands and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$question => $name,)*
                }
            }

            /// What it tells, in a sentence.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$question => concat!($($doc),+).trim_ascii(),)*
                }
            }

            /// The group of events that it stands on, where those that are recorded by default are not enough.
            #[must_use]
            pub const fn needs(self) -> Option<EventGroup> {
                match self {
                    $($(Self::$question => Some(EventGroup::$group),)?)*
                    _ => None,
                }
            }
        }

        /// The reports that were asked for.
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        #[non_exhaustive]
        pub struct ReportSet {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $name, skip_serializing_if = "Option::is_none")]
                pub $field: Option<<$question as Question>::Answer>,
            )*
        }

        /// Makes reports: as many as are wanted, in one pass over the stream.
        ///
        /// ```
        /// use schedtrace_core::analysis::{self, Options, ReportName, Reports};
        /// use schedtrace_core::{MemorySource, Meta};
        ///
        /// let wanted = [ReportName::Latency, ReportName::Fairness];
        /// let mut source = MemorySource::new(Meta::default(), []);
        /// let report = analysis::run(&mut source, Reports::study(wanted, Options::default()))?;
        /// assert!(report.answer.latency.is_some() && report.answer.depth.is_none());
        /// # Ok::<(), schedtrace_core::Error>(())
        /// ```
        #[derive(Clone, Debug)]
        pub struct Reports {
            $($field: Option<$question>,)*
        }

        impl Reports {
            /// The study of these reports.
            #[must_use]
            pub fn study(wanted: impl IntoIterator<Item = ReportName>, options: Options) -> Study<Self> {
                let scope = Scope::new(&options);
                let mut reports = Self { $($field: None,)* };
                for name in wanted {
                    match name {
                        $(ReportName::$question => reports.$field = Some($question::new(&scope)),)*
                    }
                }
                Study::with(reports, scope, options)
            }
        }

        impl ReportSet {
            /// Takes what another one has.
            fn take(&mut self, other: Self) {
                $(self.$field = self.$field.take().or(other.$field);)*
            }
        }

        impl Observer for Reports {
            fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.ran(ran, seen); })*
            }
            fn idled(&mut self, span: &Span, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.idled(span, seen); })*
            }
            fn unseen(&mut self, span: &Span, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.unseen(span, seen); })*
            }
            fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.waited(wait, seen); })*
            }
            fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.slept(slept, seen); })*
            }
            fn switched(&mut self, switched: &Switched, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.switched(switched, seen); })*
            }
            fn woken(&mut self, woken: &Woken, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.woken(woken, seen); })*
            }
            fn migrated(&mut self, migrated: &Migrated, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.migrated(migrated, seen); })*
            }
            fn happened(&mut self, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.happened(event, cpu, seen); })*
            }
            fn started_unseen(&mut self, at: Nanos, task: TaskRef, seen: &Seen<'_>) {
                $(if let Some(it) = &mut self.$field { it.started_unseen(at, task, seen); })*
            }
        }

        impl Question for Reports {
            type Answer = ReportSet;

            fn new(scope: &Scope) -> Self {
                Self { $($field: Some($question::new(scope)),)* }
            }

            fn begin(&mut self, meta: &Meta) {
                $(if let Some(it) = &mut self.$field { it.begin(meta); })*
            }

            fn fold(&mut self, gone: &Gone) {
                $(if let Some(it) = &mut self.$field { it.fold(gone); })*
            }

            fn answer(&self, about: &About, seen: &Seen<'_>) -> ReportSet {
                ReportSet { $($field: self.$field.as_ref().map(|it| it.answer(about, seen)),)* }
            }

            fn answer_now(&self, about: &About, states: &States) -> ReportSet {
                ReportSet { $($field: self.$field.as_ref().map(|it| it.answer_now(about, states)),)* }
            }
        }
    };
}

reports! {
    /// What threads did with their time: ran, waited and why, slept and for what, and who ended their sleeps.
    states: ThreadStates = "states";
    /// How long woken tasks waited for a CPU: to be put on a queue, on it, on the same CPU as before or on another one.
    latency: Latency = "latency";
    /// How many tasks waited on the run queues of each CPU, cache and node, and how unevenly the load was spread.
    depth: Depth = "depth";
    /// Who took the CPU from whom, at what priority, and how long it took to get it back.
    preemptions: Preemptions = "preemptions";
    /// Who wakes whom, how long the woken ones wait, and how far from their wakers they run.
    wakers: Wakers = "wakers";
    /// When a CPU was idle while a task that may run there waited elsewhere.
    conservation: Conservation = "conservation";
    /// Whether those who wanted the CPUs got them as their weights say.
    fairness: Fairness = "fairness";
    /// Which waits, and whose, do not belong to the rest.
    outliers: Outliers = "outliers";
    /// What interrupts took, and from whom.
    interrupts: Interrupts = "interrupts" needs Irq;
    /// Which CPU interrupts which other one, and for what.
    ipis: Ipis = "ipis" needs Irq;
    /// How long the disks took, by disk, operation and task.
    block_io: BlockIo = "block-io" needs Block;
    /// Where threads wait for one another, and who wakes there.
    futexes: Futexes = "futexes" needs Futex;
    /// How long tasks were in the dispatch queues of a sched_ext scheduler, and how deep these were.
    dispatch: Dispatch = "dispatch" needs SchedExt;
    /// In which idle states the CPUs were, and at which frequencies.
    power: Power = "power" needs Cpu;
    /// Which system calls failed, and how long the chosen ones took.
    syscalls: Syscalls = "syscalls" needs Syscalls;
    /// What the machine counted as a whole: memory, CPU time, load, pressure, network.
    system: SystemUse = "system" needs System;
}

/// Reads a source to its end, and makes reports: as [`run`](super::run) of one [`Reports::study`], but divided among threads,
/// of which each follows the stream with a state machine of its own.
///
/// ```
/// use schedtrace_core::analysis::{self, Options, ReportName};
/// use schedtrace_core::{MemorySource, Meta};
///
/// let mut source = MemorySource::new(Meta::default(), []);
/// let report = analysis::run_reports(&mut source, ReportName::ALL.iter().copied(), &Options::default())?;
/// assert!(report.answer.latency.is_some() && report.answer.depth.is_some());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
pub fn run_reports(
    source: &mut (impl Source + ?Sized),
    wanted: impl IntoIterator<Item = ReportName>,
    options: &Options,
) -> Result<Answered<ReportSet>, Error> {
    let wanted: Vec<ReportName> = wanted.into_iter().collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).clamp(1, MAX_THREADS);
    let studies = (0..threads).map(|nth| {
        // Those that take most time are listed first.
        let mine = wanted.iter().copied().skip(nth).step_by(threads);
        Shared::new(Reports::study(mine, options.clone()))
    });
    let studies: Vec<_> = studies.collect();
    let mut sinks: Vec<_> = studies.clone();
    let mut pipeline = Pipeline::new();
    for (nth, sink) in sinks.iter_mut().enumerate() {
        pipeline = pipeline.sink(format!("reports-{nth}"), OnFull::Block, sink);
    }
    pipeline.run(source)?.into_result()?;
    let mut reports = studies.iter().map(Shared::report);
    let mut whole = reports.next().unwrap_or_else(|| Reports::study([], options.clone()).report());
    reports.for_each(|part| whole.answer.take(part.answer));
    Ok(whole)
}

impl fmt::Display for ReportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ReportName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().find(|known| known.name() == name).copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|known| known.name()).collect();
            Error::Invalid(format!("no report is called `{name}`: use one of {}", names.join(", ")))
        })
    }
}
