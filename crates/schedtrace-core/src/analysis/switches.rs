//! How often the CPUs went from one task to another, and why.

use serde::Serialize;

use super::groups::{Gone, Group, GroupIx, Merge, Rows};
use super::states::{Left, Seen, Switched};
use super::study::Scope;
use crate::event::Cpu;

/// Context switches in the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SwitchesReport {
    /// Of all CPUs.
    pub total: SwitchCounts,
    /// Of each CPU, by number.
    pub cpus: Vec<SwitchCpuRow>,
    /// The groups whose tasks left a CPU most often, most first.
    pub groups: Vec<SwitchRow>,
    /// How many groups there are with any.
    pub groups_total: usize,
}

/// How tasks left CPUs. The idle task leaves a CPU whenever a task wants it, and waits for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SwitchCounts {
    /// A task left a CPU: voluntary and involuntary.
    pub switches: u64,
    /// It went to sleep or ended: what the kernel counts in `nvcsw`.
    pub voluntary: u64,
    /// It stayed runnable: what the kernel counts in `nivcsw`. It was preempted, or it called `sched_yield`.
    pub involuntary: u64,
    /// Of the involuntary ones: in the midst of kernel code, so that it was preempted for certain.
    pub preempted_in_kernel: u64,
}

/// One CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SwitchCpuRow {
    /// Which.
    pub cpu: Cpu,
    /// How tasks left it.
    #[serde(flatten)]
    pub counts: SwitchCounts,
    /// Its idle task left: it woke up.
    pub from_idle: u64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SwitchRow {
    /// Which.
    pub group: Group,
    /// How its tasks left CPUs.
    #[serde(flatten)]
    pub counts: SwitchCounts,
}

impl Merge for SwitchCounts {
    fn merge(&mut self, other: &Self) {
        self.switches.merge(&other.switches);
        self.voluntary.merge(&other.voluntary);
        self.involuntary.merge(&other.involuntary);
        self.preempted_in_kernel.merge(&other.preempted_in_kernel);
    }
}

/// Counts switches.
#[derive(Debug, Default)]
pub(super) struct Switches {
    rows: Rows<SwitchCounts>,
    /// By the CPUs' places: from tasks, and from the idle task.
    cpus: Vec<(SwitchCounts, u64)>,
}

impl Switches {
    pub(super) fn switched(&mut self, switched: &Switched, scope: &Scope, seen: &Seen<'_>) {
        if !scope.contains(switched.at) {
            return;
        }
        let at = switched.cpu.at as usize;
        if at >= self.cpus.len() {
            self.cpus.resize_with(at + 1, Default::default);
        }
        if switched.prev.id.is_idle() {
            self.cpus[at].1 += 1;
            return;
        }
        let mut count = SwitchCounts { switches: 1, ..SwitchCounts::default() };
        match switched.left {
            Left::Preempted { in_kernel } => (count.involuntary, count.preempted_in_kernel) = (1, u64::from(in_kernel)),
            // As the kernel counts it (`__schedule()` in kernel/sched/core.c): its state is TASK_RUNNING.
            Left::Throttled => count.involuntary = 1,
            Left::Slept(_) | Left::Died | Left::Open => count.voluntary = 1,
        }
        self.cpus[at].0.merge(&count);
        if let Some(row) = scope.row(switched.prev, switched.cpu, seen) {
            self.rows.at(row).merge(&count);
        }
    }

    pub(super) fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
    }

    pub(super) fn report(&self, top: usize, seen: &Seen<'_>) -> SwitchesReport {
        let mut total = SwitchCounts::default();
        let mut cpus = Vec::new();
        for cpu in seen.cpus.watched() {
            let (counts, from_idle) = self.cpus.get(cpu.cpu.at as usize).copied().unwrap_or_default();
            total.merge(&counts);
            cpus.push(SwitchCpuRow { cpu: cpu.cpu.cpu, counts, from_idle });
        }
        cpus.sort_unstable_by_key(|row| row.cpu);
        let rows = self.rows.ranked(|row| row.switches);
        let row = |&(ix, counts): &(GroupIx, &SwitchCounts)| SwitchRow { group: seen.tasks.group(ix), counts: *counts };
        SwitchesReport { total, cpus, groups: rows.iter().take(top).map(row).collect(), groups_total: rows.len() }
    }
}
