//! Preemptions: who took the CPU from whom, at what priority, and how long it took to get it back.

use serde::Serialize;

use super::groups::{Gone, Group, Merge};
use super::measure::{Latencies, Measure};
use super::question::{About, Counts, Question};
use super::runqueue::WaitCounts;
use super::states::{Cause, Left, Observer, Seen, Switched, Waited};
use super::study::Scope;
use super::tables::{Pair, Table};

/// Who preempted whom.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreemptionsReport {
    /// How often a runnable task lost its CPU to another one. A `sched_yield` looks the same to `sched_switch`.
    pub preemptions: u64,
    /// Of these: in the midst of kernel code.
    pub in_kernel: u64,
    /// Of these: to a task of a higher priority (a lower number, and deadline before all others).
    pub to_higher_priority: u64,
    /// How often a task lost it because the CPU quota of its cgroup was used up.
    pub throttled: u64,
    /// How long the tasks waited until they had a CPU again.
    pub off_cpu: Latencies,
    /// Waits that an edge of the window cuts off: no samples.
    pub censored: WaitCounts,
    /// Waits in which events are missing: no samples.
    pub in_loss: WaitCounts,
    /// The pairs that lost most time, most first. With CPUs as groups, by process.
    pub pairs: Vec<PreemptionRow>,
    /// How many pairs there were.
    pub pairs_total: usize,
    /// Preemptions among pairs that were too many to keep apart.
    pub others: u64,
}

/// One pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreemptionRow {
    /// Who lost the CPU.
    pub preempted: Group,
    /// Kernel priority at which it ran, the last time: 0-99 real-time, 100-139 for nice -20..19, 255 for deadline.
    pub preempted_prio: u8,
    /// Who took it.
    pub by: Group,
    /// Kernel priority at which that one came, the last time.
    pub by_prio: u8,
    /// How often.
    pub preemptions: u64,
    /// How long it took the one to get a CPU again.
    pub off_cpu: Latencies,
}

#[derive(Clone, Debug, Default)]
struct Row {
    times: u64,
    prios: (u8, u8),
    off_cpu: Measure,
}

impl Merge for Row {
    fn merge(&mut self, other: &Self) {
        self.times.merge(&other.times);
        self.prios = other.prios;
        self.off_cpu.merge(&other.off_cpu);
    }
}

/// Who took the CPU from whom?
#[derive(Clone, Debug)]
pub struct Preemptions {
    scope: Scope,
    total: Measure,
    times: [u64; 4],
    censored: WaitCounts,
    in_loss: WaitCounts,
    pairs: Table<Pair, Row>,
}

/// The lower, the sooner: deadline, whose priority is -1 in the kernel and 255 here, comes first.
fn rank(prio: u8) -> u8 {
    prio.wrapping_add(1)
}

impl Observer for Preemptions {
    fn switched(&mut self, switched: &Switched, seen: &Seen<'_>) {
        // The idle task gives way to everybody.
        let counts = self.scope.contains(switched.at) && !switched.prev.id.is_idle();
        if !counts || seen.tasks.left_out(switched.prev) {
            return;
        }
        let [times, in_kernel, higher, throttled] = &mut self.times;
        match switched.left {
            Left::Preempted { in_kernel: inside } if !switched.next.id.is_idle() => {
                *times += 1;
                *in_kernel += u64::from(inside);
                *higher += u64::from(rank(switched.next_prio) < rank(switched.prev_prio));
                let pair = Pair(seen.tasks.group_of(switched.prev), seen.tasks.group_of(switched.next));
                if let Some(row) = self.pairs.at(pair) {
                    row.times += 1;
                    row.prios = (switched.prev_prio, switched.next_prio);
                }
            }
            Left::Throttled => *throttled += 1,
            _ => {}
        }
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        let Cause::Preempted(by) = wait.cause else { return };
        let Some(counts) = self.scope.wait(wait, seen).filter(|_| !by.is_idle()) else { return };
        let ns = match counts {
            Counts::Sample(ns) => ns,
            Counts::Censored(ns) => return self.censored.add(ns),
            Counts::InLoss(ns) => return self.in_loss.add(ns),
        };
        let (task, cpu) = (Some(wait.task.id), wait.cpu.cpu);
        self.total.record(wait.from, ns, cpu, task, seen);
        let pair = Pair(seen.tasks.group_of(wait.task), seen.tasks.group_of(seen.tasks.known(by)));
        // Those without a row were counted when they lost the CPU.
        if let Some(row) = self.pairs.get_mut(pair) {
            row.off_cpu.record(wait.from, ns, cpu, task, seen);
        }
    }
}

impl Question for Preemptions {
    type Answer = PreemptionsReport;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            total: Measure::default(),
            times: [0; 4],
            censored: WaitCounts::default(),
            in_loss: WaitCounts::default(),
            pairs: Table::default(),
        }
    }

    fn fold(&mut self, gone: &Gone) {
        self.pairs.rename(|Pair(a, b)| Pair(gone.now(a), gone.now(b)));
    }

    fn answer(&self, _: &About, seen: &Seen<'_>) -> PreemptionsReport {
        let ranked = self.pairs.ranked(|row| (row.off_cpu.total_ns(), row.times));
        let row = |&(Pair(preempted, by), row): &(Pair, &Row)| PreemptionRow {
            preempted: seen.tasks.group(preempted),
            preempted_prio: row.prios.0,
            by: seen.tasks.group(by),
            by_prio: row.prios.1,
            preemptions: row.times,
            off_cpu: row.off_cpu.report(),
        };
        let [preemptions, in_kernel, to_higher_priority, throttled] = self.times;
        PreemptionsReport {
            preemptions,
            in_kernel,
            to_higher_priority,
            throttled,
            off_cpu: self.total.report(),
            censored: self.censored,
            in_loss: self.in_loss,
            pairs: ranked.iter().take(self.scope.top()).map(row).collect(),
            pairs_total: ranked.len(),
            others: self.pairs.others(),
        }
    }
}
