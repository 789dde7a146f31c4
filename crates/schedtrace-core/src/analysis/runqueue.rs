//! Run-queue latency: how long tasks waited for a CPU after they had become runnable, and why they did.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;

use super::distribution::{Bucket, Distribution, Summary};
use super::groups::{Gone, Group, GroupIx, Merge, Rows};
use super::holders::{self, HolderOfWait};
use super::states::{Cause, Seen, WaitEnd, Waited};
use super::study::Scope;
use super::tasks::Who;
use crate::event::{Context, Cpu, Nanos, Waker};

/// Run-queue latency in the window, by group and by cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunQueueReport {
    /// Of all tasks.
    pub total: RunQueueStats,
    /// The waits in `total.wait`, by their lengths: [`Distribution::histogram`].
    pub histogram: Vec<Bucket>,
    /// Of all tasks, for each cause.
    pub causes: Vec<CauseRow>,
    /// The groups that waited longest in all, most first. With CPUs as groups: by the CPU where the task ran in the end.
    pub groups: Vec<RunQueueRow>,
    /// How many groups waited.
    pub groups_total: usize,
    /// The longest waits, longest first.
    pub worst: Vec<WorstWait>,
}

/// How long tasks waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunQueueStats {
    /// Waits that began and ended in the window: the run-queue latency.
    pub wait: Summary,
    /// Waits that an edge of the window cuts off, with the part that lies in it.
    pub censored: WaitCounts,
    /// Waits during which events are missing: what is known of their lengths may be wrong.
    pub in_loss: WaitCounts,
    /// Of the waits in `wait`: those in which the task was moved from one run queue to another.
    pub migrated: u64,
}

/// Waits that are counted, but are no samples of the latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WaitCounts {
    /// How many.
    pub waits: u64,
    /// All together, as far as it is known.
    pub wait_ns: u64,
    /// The longest, as far as it is known.
    pub longest_ns: u64,
}

/// Run-queue latency after one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CauseRow {
    /// Why the tasks were runnable.
    pub cause: CauseKind,
    /// How long they waited.
    pub wait: Summary,
}

/// Waits of a group after one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CauseCounts {
    /// Why the tasks were runnable.
    pub cause: CauseKind,
    /// How many waits, and how long.
    #[serde(flatten)]
    pub counts: WaitCounts,
}

/// Why a task became runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    /// It was woken.
    Woken,
    /// It was running, and lost the CPU. A `sched_yield` counts as this, too: `sched_switch` cannot tell it from a
    /// preemption on the way back to user space.
    Preempted,
    /// It was running, and the CPU quota of its cgroup was used up.
    Throttled,
    /// It is new.
    New,
    /// It was runnable already when the recording began.
    AtStart,
}

impl CauseKind {
    /// The causes of waits that can be measured.
    const MEASURED: [Self; 4] = [Self::Woken, Self::Preempted, Self::Throttled, Self::New];

    /// `woken`, `preempted`, `throttled`, `new` or `at start`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Woken => "woken",
            Self::Preempted => "preempted",
            Self::Throttled => "throttled",
            Self::New => "new",
            Self::AtStart => "at start",
        }
    }
}

impl From<Cause> for CauseKind {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Woken(_) => Self::Woken,
            Cause::Preempted(_) => Self::Preempted,
            Cause::Throttled => Self::Throttled,
            Cause::New(_) => Self::New,
            Cause::AtStart => Self::AtStart,
        }
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunQueueRow {
    /// Which.
    pub group: Group,
    /// How long its tasks waited.
    #[serde(flatten)]
    pub stats: RunQueueStats,
    /// The waits in `wait`, for each cause that occurred.
    pub causes: Vec<CauseCounts>,
}

/// One wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorstWait {
    /// Who waited.
    pub task: Who,
    /// When the wait began, or the window, if that was later.
    pub from_ns: Nanos,
    /// How long it took; at least so long if `censored`.
    pub wait_ns: u64,
    /// An edge of the window cuts it off.
    pub censored: bool,
    /// Where the task ran in the end, or waits.
    pub cpu: Cpu,
    /// It was moved from one run queue to another meanwhile.
    pub migrated: bool,
    /// Why the task became runnable.
    pub cause: CauseKind,
    /// The task that woke it, created it, or preempted it.
    pub by: Option<Who>,
    /// It was woken from an interrupt, of this kind.
    pub by_interrupt: Option<Context>,
    /// Who held the CPU meanwhile, longest first.
    pub held_by: Vec<HolderOfWait>,
}

impl Merge for WaitCounts {
    fn merge(&mut self, other: &Self) {
        self.waits.merge(&other.waits);
        self.wait_ns = self.wait_ns.saturating_add(other.wait_ns);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }
}

impl WaitCounts {
    /// One more, of this length.
    pub(super) fn add(&mut self, ns: u64) {
        self.merge(&Self { waits: 1, wait_ns: ns, longest_ns: ns });
    }
}

#[derive(Debug, Default)]
struct Row {
    wait: Distribution,
    causes: [WaitCounts; CauseKind::MEASURED.len()],
    migrated: u64,
}

impl Merge for Row {
    fn merge(&mut self, other: &Self) {
        self.wait.merge(&other.wait);
        self.causes.iter_mut().zip(&other.causes).for_each(|(mine, theirs)| mine.merge(theirs));
        self.migrated.merge(&other.migrated);
    }
}

/// What is no sample of a latency.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    censored: WaitCounts,
    in_loss: WaitCounts,
}

impl Merge for Cut {
    fn merge(&mut self, other: &Self) {
        self.censored.merge(&other.censored);
        self.in_loss.merge(&other.in_loss);
    }
}

/// Adds up waits.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    rows: Rows<Row>,
    cut: Rows<Cut>,
    causes: [Distribution; CauseKind::MEASURED.len()],
    worst: Vec<WorstWait>,
    /// How long those in `worst` are, and their places there: the shortest one makes room, of several the first.
    lengths: BinaryHeap<Reverse<(u64, usize)>>,
}

impl RunQueue {
    /// Takes a wait. Whether it counts, so that behind whom it was is to be asked.
    pub(super) fn waited(&mut self, wait: &Waited<'_>, row: GroupIx, scope: &Scope, seen: &Seen<'_>) -> bool {
        let Some((from, until)) = scope.clip_wait(wait.from, wait.until) else { return false };
        let ns = (until - from).0;
        if wait.doubtful {
            self.cut.at(row).in_loss.add(ns);
            if wait.end == WaitEnd::Unseen || !scope.include_doubtful {
                return false;
            }
        }
        let whole = from == wait.from && wait.is_whole();
        let cause = CauseKind::from(wait.cause);
        let sample = CauseKind::MEASURED.iter().position(|&kind| whole && kind == cause);
        match sample {
            Some(at) => {
                let row = self.rows.at(row);
                row.wait.record(ns);
                row.causes[at].add(ns);
                row.migrated += u64::from(wait.migrated);
                self.causes[at].record(ns);
            }
            None => self.cut.at(row).censored.add(ns),
        }
        if ns > 0 && scope.worst > 0 && (self.worst.len() < scope.worst || ns > self.least()) {
            self.rank(from, ns, sample.is_none(), wait, scope, seen);
        }
        true
    }

    fn rank(&mut self, from: Nanos, ns: u64, censored: bool, wait: &Waited<'_>, scope: &Scope, seen: &Seen<'_>) {
        let (by, by_interrupt) = match wait.cause {
            Cause::Woken(Waker::Interrupt(context)) => (None, Some(context)),
            Cause::Woken(Waker::Task(task)) | Cause::Preempted(task) | Cause::New(task) => {
                (Some(seen.tasks.who(task)), None)
            }
            Cause::Throttled | Cause::AtStart => (None, None),
        };
        let worst = WorstWait {
            task: seen.tasks.who(wait.task.id),
            from_ns: from,
            wait_ns: ns,
            censored,
            cpu: wait.cpu.cpu,
            migrated: wait.migrated,
            cause: wait.cause.into(),
            by,
            by_interrupt,
            held_by: holders::of_wait(wait, scope, seen),
        };
        if self.worst.len() < scope.worst {
            self.lengths.push(Reverse((ns, self.worst.len())));
            self.worst.push(worst);
        } else if let Some(mut shortest) = self.lengths.peek_mut() {
            let Reverse((length, at)) = &mut *shortest;
            (*length, self.worst[*at]) = (ns, worst);
        }
    }

    /// The shortest of `worst`.
    fn least(&self) -> u64 {
        self.lengths.peek().map_or(0, |&Reverse((ns, _))| ns)
    }

    pub(super) fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
        self.cut.fold(gone);
    }

    /// How long a group waited.
    pub(super) fn ns(&self, group: GroupIx) -> u64 {
        let measured = self.rows.get(group).map_or(0, |row| row.wait.total_ns());
        measured.saturating_add(self.cut.get(group).map_or(0, |cut| cut.censored.wait_ns))
    }

    /// All waits that are cut off, and all that are doubtful.
    pub(super) fn cut(&self) -> (u64, u64) {
        let sum = |of: fn(&Cut) -> u64| self.cut.iter().map(|(_, cut)| of(cut)).sum();
        (sum(|cut| cut.censored.waits), sum(|cut| cut.in_loss.waits))
    }

    /// `open` holds what is not over yet: no samples.
    pub(super) fn report(&self, open: &Self, top: usize, seen: &Seen<'_>) -> RunQueueReport {
        let mut cut = self.cut.clone();
        cut.merge(&open.cut);
        let mut all = Distribution::default();
        self.causes.iter().for_each(|cause| all.merge(cause));
        let mut sum = Cut::default();
        cut.iter().for_each(|(_, cut)| sum.merge(cut));
        let mut waited = Rows::<u64>::default();
        for (ix, row) in self.rows.iter().filter(|(_, row)| row.wait.count() > 0) {
            waited.at(ix).merge(&row.wait.total_ns());
        }
        for (ix, cut) in cut.iter().filter(|(_, cut)| cut.censored.waits + cut.in_loss.waits > 0) {
            waited.at(ix).merge(&cut.censored.wait_ns.saturating_add(cut.in_loss.wait_ns));
        }
        let ranked = waited.ranked(|&ns| ns);
        let nothing = Row::default();
        let row = |&(ix, _): &(GroupIx, &u64)| {
            let row = self.rows.get(ix).unwrap_or(&nothing);
            let Cut { censored, in_loss } = cut.get(ix).copied().unwrap_or_default();
            let causes = CauseKind::MEASURED.into_iter().zip(row.causes).filter(|(_, counts)| counts.waits > 0);
            RunQueueRow {
                group: seen.tasks.group(ix),
                stats: RunQueueStats { wait: row.wait.summary(), censored, in_loss, migrated: row.migrated },
                causes: causes.map(|(cause, counts)| CauseCounts { cause, counts }).collect(),
            }
        };
        let mut worst: Vec<WorstWait> = self.worst.iter().chain(&open.worst).cloned().collect();
        worst.sort_by_key(|worst| (Reverse(worst.wait_ns), worst.from_ns));
        worst.truncate(top);
        RunQueueReport {
            total: RunQueueStats {
                wait: all.summary(),
                censored: sum.censored,
                in_loss: sum.in_loss,
                migrated: self.rows.iter().map(|(_, row)| row.migrated).sum(),
            },
            histogram: all.histogram(),
            causes: CauseKind::MEASURED
                .into_iter()
                .zip(&self.causes)
                .map(|(cause, wait)| CauseRow { cause, wait: wait.summary() })
                .collect(),
            groups: ranked.iter().take(top).map(row).collect(),
            groups_total: ranked.len(),
            worst,
        }
    }
}
