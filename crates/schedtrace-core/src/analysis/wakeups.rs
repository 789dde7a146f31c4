//! Who woke whom.

use serde::Serialize;

use super::groups::{Gone, Group, GroupIx, Merge, Pairs, Rows};
use super::states::{Seen, Woken};
use super::study::Scope;
use crate::event::{Context, Waker};

/// Wakeups in the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WakeupsReport {
    /// All of them.
    pub total: WakeupCounts,
    /// The groups whose tasks were woken most often, most first.
    pub groups: Vec<WakeupRow>,
    /// How many groups there are with any.
    pub groups_total: usize,
    /// Who woke whom most often, most first. A new task's first wakeup is its parent's.
    pub pairs: Vec<WakeupPair>,
    /// How many pairs there are.
    pub pairs_total: usize,
}

/// How tasks were woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WakeupCounts {
    /// Wakeups of sleeping tasks, and of tasks that were just about to sleep.
    pub wakeups: u64,
    /// Of these: the task was still on a CPU or on a run queue, so that no wait began.
    pub while_runnable: u64,
    /// Of these: from an interrupt, be it a hardware or a software interrupt or an NMI.
    pub from_interrupt: u64,
    /// New tasks that began; not among the wakeups.
    pub new_tasks: u64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WakeupRow {
    /// Whose tasks were woken; with CPUs as groups, on which CPU the waker was.
    pub group: Group,
    /// How.
    #[serde(flatten)]
    pub counts: WakeupCounts,
}

/// Who woke whom how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WakeupPair {
    /// Who woke.
    pub waker: WakerGroup,
    /// Who was woken.
    pub wakee: Group,
    /// How often.
    pub wakeups: u64,
}

/// Who woke a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum WakerGroup {
    /// A task of this group.
    Task {
        /// Which.
        group: Group,
    },
    /// An interrupt, whatever task it interrupted.
    Interrupt {
        /// Of which kind.
        context: Context,
    },
}

/// The group of the wakers that are interrupts of this kind; none of tasks.
fn of_interrupt(context: Context) -> Option<GroupIx> {
    match context {
        Context::Task => None,
        Context::Softirq => Some(GroupIx::SOFTIRQ),
        Context::Hardirq => Some(GroupIx::HARDIRQ),
        Context::Nmi => Some(GroupIx::NMI),
    }
}

/// The group of a waker.
pub(super) fn of_waker(waker: Waker, seen: &Seen<'_>) -> GroupIx {
    match waker {
        Waker::Interrupt(context) => of_interrupt(context).unwrap_or(GroupIx::HARDIRQ),
        Waker::Task(task) => seen.tasks.group_of(seen.tasks.known(task)),
    }
}

impl WakerGroup {
    pub(super) fn of(waker: GroupIx, seen: &Seen<'_>) -> Self {
        let interrupt = |context| Self::Interrupt { context };
        match waker {
            GroupIx::SOFTIRQ => interrupt(Context::Softirq),
            GroupIx::HARDIRQ => interrupt(Context::Hardirq),
            GroupIx::NMI => interrupt(Context::Nmi),
            waker => Self::Task { group: seen.tasks.group(waker) },
        }
    }
}

impl std::fmt::Display for WakerGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Task { group } => group.fmt(f),
            Self::Interrupt { context } => f.pad(context.name()),
        }
    }
}

impl Merge for WakeupCounts {
    fn merge(&mut self, other: &Self) {
        self.wakeups.merge(&other.wakeups);
        self.while_runnable.merge(&other.while_runnable);
        self.from_interrupt.merge(&other.from_interrupt);
        self.new_tasks.merge(&other.new_tasks);
    }
}

/// Counts wakeups.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    rows: Rows<WakeupCounts>,
    pairs: Pairs,
}

impl Wakeups {
    pub(super) fn woken(&mut self, woken: &Woken, scope: &Scope, seen: &Seen<'_>) {
        if !scope.contains(woken.at) {
            return;
        }
        let Some(row) = scope.row(woken.task, woken.cpu, seen) else { return };
        let interrupt = woken.context != Context::Task;
        self.rows.at(row).merge(&WakeupCounts {
            wakeups: u64::from(!woken.new),
            while_runnable: u64::from(!woken.new && woken.awake),
            from_interrupt: u64::from(interrupt),
            new_tasks: u64::from(woken.new),
        });
        let waker = of_interrupt(woken.context).unwrap_or_else(|| seen.tasks.group_of(woken.current));
        self.pairs.add(seen.tasks.group_of(woken.task), waker, 1);
    }

    pub(super) fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
        self.pairs.fold(gone);
    }

    pub(super) fn report(&self, top: usize, seen: &Seen<'_>) -> WakeupsReport {
        let mut total = WakeupCounts::default();
        self.rows.iter().for_each(|(_, row)| total.merge(row));
        let rows = self.rows.ranked(|row| row.wakeups + row.new_tasks);
        let row = |&(ix, counts): &(GroupIx, &WakeupCounts)| WakeupRow { group: seen.tasks.group(ix), counts: *counts };

        let mut pairs: Vec<(GroupIx, GroupIx, u64)> = self.pairs.iter().collect();
        let pairs_total = pairs.len();
        pairs.sort_unstable_by_key(|&(wakee, waker, n)| (std::cmp::Reverse(n), wakee, waker));
        let pair = |&(wakee, by, wakeups): &(GroupIx, GroupIx, u64)| WakeupPair {
            waker: WakerGroup::of(by, seen),
            wakee: seen.tasks.group(wakee),
            wakeups,
        };
        WakeupsReport {
            total,
            groups: rows.iter().take(top).map(row).collect(),
            groups_total: rows.len(),
            pairs: pairs.iter().take(top).map(pair).collect(),
            pairs_total,
        }
    }
}
