//! What is recorded of the running kernel, and which of it is shown.

use std::time::Duration;

use schedtrace_core::{Kind, KindFilters};
#[cfg(feature = "live")]
use {
    schedtrace_core::EventGroup,
    schedtrace_core::live::{Collector, CollectorBuilder},
    schedtrace_core::system::sched_ext::{Scheduler, SchedulerClass},
    schedtrace_core::trace::WriterOptions,
};

/// Which events a collection records, and how far back it reaches.
///
/// The events that are [recorded by default](Kind::is_default) always are: analyses follow every thread through all of them.
/// A filter of such a kind holds where events are listed or streamed; of any other, for the recording as well.
///
/// ```
/// use schedtrace_core::Kind;
/// use schedtrace_mcp::Probes;
/// let probes = Probes { kinds: vec![Kind::BlockIssue], ..Probes::default() };
/// assert!(probes.recorded().any(|kind| kind == Kind::Switch));
/// assert!(probes.recorded().any(|kind| kind == Kind::BlockIssue));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probes {
    /// Those that were asked for; with none, those that are recorded by default.
    pub kinds: Vec<Kind>,
    /// What has to hold of the events of some kinds.
    pub filters: KindFilters,
    /// What is older is removed; with none, only what there is no room for.
    pub retention: Option<Duration>,
}

impl Probes {
    /// The kinds that are recorded, as far as the kernel has them.
    ///
    /// ```
    /// use schedtrace_mcp::Probes;
    /// assert!(Probes::default().recorded().all(|kind| kind.is_default()));
    /// ```
    pub fn recorded(&self) -> impl Iterator<Item = Kind> {
        Kind::selectable().filter(|kind| kind.is_default() || self.kinds.contains(kind))
    }

    /// The same where this scheduler runs: what tasks do in the queues of one of sched_ext is seen in its own events alone.
    #[cfg(feature = "live")]
    pub(crate) fn beside(mut self, scheduler: &Scheduler) -> Self {
        if scheduler.class == SchedulerClass::SchedExt {
            let of_it = Kind::selectable().filter(|kind| kind.group() == EventGroup::SchedExt);
            let more: Vec<Kind> = of_it.filter(|kind| !self.kinds.contains(kind)).collect();
            self.kinds.extend(more);
        }
        self
    }

    /// The filters that hold for a recording: no analysis needs what they leave out.
    ///
    /// ```
    /// use schedtrace_mcp::Probes;
    /// assert!(Probes::default().left_out().is_empty());
    /// ```
    #[must_use]
    pub fn left_out(&self) -> KindFilters {
        self.filters.only(|kind| !kind.is_default())
    }
}

#[cfg(feature = "live")]
impl Probes {
    /// What is to be loaded into the kernel.
    pub(crate) fn collector(&self) -> CollectorBuilder {
        let builder = Collector::builder();
        if self.kinds.is_empty() { builder } else { builder.events_where_possible(self.recorded()) }
    }

    /// How its trace is written.
    pub(crate) fn options(&self, max_bytes: u64) -> WriterOptions {
        WriterOptions { max_bytes: Some(max_bytes), max_age: self.retention, ..WriterOptions::default() }
    }
}

#[cfg(test)]
#[cfg(feature = "live")]
mod tests {
    use std::io::Write;
    use std::time::Instant;

    use schedtrace_core::trace::TraceReader;
    use schedtrace_core::{BlockOp, EventKind, Poll, Recorder, Source};

    use super::*;
    use crate::Config;

    #[test]
    fn beside_a_scheduler_of_sched_ext_its_events_are_recorded() {
        let has = |class| {
            let scheduler = Scheduler { class, ..Scheduler::default() };
            let probes = Probes { kinds: vec![Kind::BlockIssue], ..Probes::default() }.beside(&scheduler);
            let recorded: Vec<_> = probes.recorded().collect();
            assert!(recorded.contains(&Kind::Switch) && recorded.contains(&Kind::BlockIssue));
            recorded.iter().any(|kind| kind.group() == EventGroup::SchedExt)
        };
        assert_eq!((has(SchedulerClass::SchedExt), has(SchedulerClass::Other)), (true, false));
    }

    #[test]
    fn live_a_recording_has_what_was_asked_for() {
        let config = r#"{ "collect": true, "probes": { "tracepoints": [
            { "name": "sched_switch", "filter": "prev_comm = nobody" },
            { "name": "block:block_rq_issue", "filter": "rwbs !~ W" },
            { "name": "block:block_rq_complete" }
        ] }, "storage": { "retention_hours": 1, "max_events_per_second": 4000000 } }"#;
        let plan = Config::from_yaml(config).unwrap().plan();
        assert_eq!(plan.refused, []);
        let (probes, limits) = (plan.settings.probes, plan.settings.limits);
        // Not in memory, as temporary files may be.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let trace = folder.path().join("a.schedtrace");
        let recorder = Recorder::builder(probes.collector(), &trace, probes.options(limits.max_bytes))
            .events_per_second(limits.max_events_per_second.unwrap())
            .only(probes.left_out())
            .start()
            .unwrap();
        let mut file = std::fs::File::create(folder.path().join("written")).unwrap();
        file.write_all(&[7; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        assert!(recorder.stop().unwrap().total_events() > 0);

        let mut trace = TraceReader::open(&trace).unwrap();
        assert_eq!(trace.meta().filters.events, ["block_rq_issue: rwbs !~ W"]);
        let (write, mut written, mut switches) = (BlockOp(1), 0, 0);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match trace.poll(deadline).unwrap() {
                Poll::Batch(batch) => {
                    for event in batch.events.iter().chain(&batch.late) {
                        match event.kind {
                            EventKind::BlockIssue(issue) => assert_ne!(issue.operation, write, "it was left out"),
                            EventKind::BlockComplete(done) if done.operation == write => written += 1,
                            EventKind::Switch(_) => switches += 1,
                            _ => {}
                        }
                    }
                }
                Poll::Idle => {}
                Poll::End => break,
            }
        }
        assert!(written > 0, "a megabyte was written");
        assert!(switches > 0, "analyses need every switch, whatever is shown");
    }
}
