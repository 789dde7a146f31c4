//! Wakeup latency, taken apart: how long the kernel took to put a woken task on a queue, and how long it waited there, on the
//! CPU where it had run before or on another one.

use serde::Serialize;

use super::groups::{Gone, Group, Merge, Rows};
use super::measure::{Latencies, Measure};
use super::question::{About, Counts, Question};
use super::runqueue::WaitCounts;
use super::states::{Cause, Observer, Seen, Waited};
use super::study::Scope;

/// How long woken tasks waited for a CPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LatencyReport {
    /// All of them.
    pub total: WakeupLatency,
    /// The groups whose tasks waited longest in all, most first.
    pub groups: Vec<LatencyRow>,
    /// How many groups were woken.
    pub groups_total: usize,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LatencyRow {
    /// Which.
    pub group: Group,
    /// How long its tasks waited.
    #[serde(flatten)]
    pub latency: WakeupLatency,
}

/// The latency between a waking and the moment at which the woken task had a CPU, and its parts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WakeupLatency {
    /// From `sched_waking` to the switch that gave it the CPU.
    #[serde(flatten)]
    pub latency: Latencies,
    /// Of these: the task ran where it had run before.
    pub same_cpu: Latencies,
    /// Of these: it ran on another CPU.
    pub migrated: Latencies,
    /// From `sched_waking` to `sched_wakeup`: the kernel chose a CPU and waited for its queue's lock. Only where
    /// `sched_wakeup` was recorded.
    pub to_enqueue: Latencies,
    /// From `sched_wakeup` to the switch: on the queue. Only where `sched_wakeup` was recorded.
    pub on_queue: Latencies,
    /// Waits that an edge of the window cuts off: no samples.
    pub censored: WaitCounts,
    /// Waits in which events are missing: no samples.
    pub in_loss: WaitCounts,
}

#[derive(Clone, Debug, Default)]
struct Row {
    all: Measure,
    same: Measure,
    migrated: Measure,
    to_enqueue: Measure,
    on_queue: Measure,
    censored: WaitCounts,
    in_loss: WaitCounts,
}

impl Merge for Row {
    fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
        self.same.merge(&other.same);
        self.migrated.merge(&other.migrated);
        self.to_enqueue.merge(&other.to_enqueue);
        self.on_queue.merge(&other.on_queue);
        self.censored.merge(&other.censored);
        self.in_loss.merge(&other.in_loss);
    }
}

impl Row {
    fn add(&mut self, wait: &Waited<'_>, counts: Counts, seen: &Seen<'_>) {
        let ns = match counts {
            Counts::Sample(ns) => ns,
            Counts::Censored(ns) => return self.censored.add(ns),
            Counts::InLoss(ns) => return self.in_loss.add(ns),
        };
        let (task, cpu) = (Some(wait.task.id), wait.cpu.cpu);
        self.all.record(wait.from, ns, cpu, task, seen);
        match wait.ran_on {
            Some(before) if before == wait.cpu => self.same.record(wait.from, ns, cpu, task, seen),
            Some(_) => self.migrated.record(wait.from, ns, cpu, task, seen),
            None => {}
        }
        if let Some(enqueued) = wait.enqueued {
            self.to_enqueue.record(wait.from, (enqueued - wait.from).0, cpu, task, seen);
            self.on_queue.record(enqueued, (wait.until - enqueued).0, cpu, task, seen);
        }
    }

    fn report(&self) -> WakeupLatency {
        WakeupLatency {
            latency: self.all.report(),
            same_cpu: self.same.report(),
            migrated: self.migrated.report(),
            to_enqueue: self.to_enqueue.report(),
            on_queue: self.on_queue.report(),
            censored: self.censored,
            in_loss: self.in_loss,
        }
    }
}

/// How long did woken tasks wait, and which part of that was what?
#[derive(Clone, Debug)]
pub struct Latency {
    scope: Scope,
    rows: Rows<Row>,
}

impl Observer for Latency {
    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        if matches!(wait.cause, Cause::Woken(_))
            && let Some(counts) = self.scope.wait(wait, seen)
            && let Some(row) = self.scope.row(wait.task, wait.cpu, seen)
        {
            self.rows.at(row).add(wait, counts, seen);
        }
    }
}

impl Question for Latency {
    type Answer = LatencyReport;

    fn new(scope: &Scope) -> Self {
        Self { scope: *scope, rows: Rows::default() }
    }

    fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
    }

    fn answer(&self, _: &About, seen: &Seen<'_>) -> LatencyReport {
        let mut total = Row::default();
        self.rows.iter().for_each(|(_, row)| total.merge(row));
        let most =
            |row: &Row| row.all.total_ns().saturating_add(row.censored.wait_ns).saturating_add(row.in_loss.wait_ns);
        let rows = self.rows.ranked(most);
        let row = |&(ix, row): &(_, &Row)| LatencyRow { group: seen.tasks.group(ix), latency: row.report() };
        LatencyReport {
            total: total.report(),
            groups: rows.iter().take(self.scope.top()).map(row).collect(),
            groups_total: rows.len(),
        }
    }
}
