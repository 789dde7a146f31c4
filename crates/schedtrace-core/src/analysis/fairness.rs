//! Fairness: did those who wanted the CPUs get them alike, as their weights say?
//!
//! What a group got is its time on CPUs as a share of the time in which it wanted one: it ran, or it was runnable and waited.
//! Divided by its weight, this is the same for all groups under a scheduler that shares CPUs by weight and gives each as
//! much as it wants, as long as they compete for the same ones. Two measures of how far it is from that:
//!
//! - Jain's index (Jain, Chiu and Hawe, DEC-TR-301, 1984): `(sum x)^2 / (n * sum x^2)`; 1 where all got the same, `1/n` where
//!   one got everything.
//! - The Gini coefficient: half of the mean difference between any two, divided by the mean; 0 where all got the same.
//!
//! Weights are those of `sched_prio_to_weight` in `kernel/sched/core.c`, by nice value, 1,024 for nice 0. Weights of cgroups
//! are not recorded, so that they do not count.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cpu_time::ratio;
use super::groups::{Gone, Group, GroupIx, Merge, Rows};
use super::question::{About, Question};
use super::states::{Cause, Observer, Ran, Seen, Switched, Waited};
use super::study::Scope;
use crate::event::{Cpu, TaskId};

/// `sched_prio_to_weight` of `kernel/sched/core.c`, for nice -20 to 19.
const WEIGHTS: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121, 2501,
    1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
];
/// A group competed if it waited for more than this share of the time in which it wanted a CPU,
const COMPETED_RATIO: f64 = 0.01;
/// and if that was this share of the window, or more: a single wakeup says nothing of shares.
const WANTED_RATIO: f64 = 0.001;

/// How fairly CPU time was shared among those who competed for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FairnessReport {
    /// Groups that wanted a CPU for a thousandth of the window, or more, and waited for more than 1 % of that time.
    pub competed: usize,
    /// Jain's index of what they got, by weight; none if fewer than two competed.
    pub jain: Option<f64>,
    /// The same, whatever their weights.
    pub jain_unweighted: Option<f64>,
    /// The Gini coefficient of what they got, by weight.
    pub gini: Option<f64>,
    /// The same, whatever their weights.
    pub gini_unweighted: Option<f64>,
    /// Of those who competed: who got least by weight, first.
    pub groups: Vec<FairnessRow>,
    /// How many groups ran or waited at all.
    pub groups_total: usize,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FairnessRow {
    /// Which.
    pub group: Group,
    /// Its time on CPUs.
    pub run_ns: u64,
    /// Its time on run queues.
    pub wait_ns: u64,
    /// What it got: `run_ns` as a share of both.
    pub got_ratio: f64,
    /// Its weight, the mean of its tasks' by the times for which they ran: 1,024 for nice 0; none for real-time and deadline
    /// tasks, which are not shared by weight, and where no switch told.
    pub weight: Option<f64>,
    /// What it got, divided by its weight over 1,024. Zero of who never ran, also where its weight was not told.
    pub got_by_weight: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    run: u64,
    wait: u64,
    /// Nanoseconds times weight, and those nanoseconds.
    weighted: u128,
    weighed: u64,
    /// Priority of the task that came last.
    prio: Option<u8>,
}

impl Merge for Row {
    fn merge(&mut self, other: &Self) {
        self.run.merge(&other.run);
        self.wait.merge(&other.wait);
        self.weighted = self.weighted.saturating_add(other.weighted);
        self.weighed.merge(&other.weighed);
        self.prio = self.prio.or(other.prio);
    }
}

fn weight(prio: u8) -> Option<u32> {
    WEIGHTS.get(usize::from(prio).checked_sub(100)?).copied()
}

/// Did those who wanted the CPUs get them alike?
#[derive(Clone, Debug)]
pub struct Fairness {
    scope: Scope,
    rows: Rows<Row>,
    /// Who has a CPU, and at what priority it came.
    on: BTreeMap<Cpu, (TaskId, u8)>,
}

impl Observer for Fairness {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        let Some((from, until)) = self.scope.clip(ran.span.from, ran.span.until) else { return };
        let Some(row) = self.scope.row(ran.task, ran.span.cpu, seen).filter(|_| !ran.span.doubtful) else { return };
        let row = self.rows.at(row);
        let ns = (until - from).0;
        row.run.merge(&ns);
        let came = self.on.get(&ran.span.cpu.cpu).filter(|(task, _)| *task == ran.task.id);
        if let Some(weight) = came.and_then(|&(_, prio)| weight(prio)) {
            row.weighted = row.weighted.saturating_add(u128::from(ns) * u128::from(weight));
            row.weighed.merge(&ns);
        }
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        if wait.doubtful || wait.cause == Cause::Throttled {
            return;
        }
        if let Some((from, until)) = self.scope.clip(wait.from, wait.until)
            && let Some(row) = self.scope.row(wait.task, wait.cpu, seen)
        {
            self.rows.at(row).wait.merge(&(until - from).0);
        }
    }

    fn switched(&mut self, switched: &Switched, seen: &Seen<'_>) {
        for (task, prio) in [(switched.prev, switched.prev_prio), (switched.next, switched.next_prio)] {
            if !task.id.is_idle()
                && let Some(row) = self.scope.row(task, switched.cpu, seen)
            {
                self.rows.at(row).prio = Some(prio);
            }
        }
        self.on.insert(switched.cpu.cpu, (switched.next.id, switched.next_prio));
    }
}

/// Jain's index and the Gini coefficient; none of fewer than two, or where nobody got anything.
pub(super) fn indices(mut got: Vec<f64>) -> (Option<f64>, Option<f64>) {
    let n = got.len() as f64;
    let sum: f64 = got.iter().sum();
    let squares: f64 = got.iter().map(|x| x * x).sum();
    if got.len() < 2 || sum <= 0.0 {
        return (None, None);
    }
    got.sort_by(f64::total_cmp);
    let ranked: f64 = got.iter().enumerate().map(|(at, x)| (at as f64 + 1.0) * x).sum();
    let (jain, gini) = (sum * sum / (n * squares), 2.0 * ranked / (n * sum) - (n + 1.0) / n);
    // Sums of floating-point numbers may miss the ends by a little.
    (Some(jain.min(1.0)), Some(gini.max(0.0)))
}

impl Question for Fairness {
    type Answer = FairnessReport;

    fn new(scope: &Scope) -> Self {
        Self { scope: *scope, rows: Rows::default(), on: BTreeMap::new() }
    }

    fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
    }

    fn answer(&self, about: &About, seen: &Seen<'_>) -> FairnessReport {
        let all: Vec<(GroupIx, &Row)> = self.rows.iter().filter(|(_, row)| row.run + row.wait > 0).collect();
        let mut rows: Vec<FairnessRow> = Vec::new();
        for &(ix, row) in &all {
            let wanted = row.run.saturating_add(row.wait);
            let wanted_ratio = ratio(wanted, about.window.duration_ns.0);
            if ratio(row.wait, wanted) <= COMPETED_RATIO || wanted_ratio < WANTED_RATIO {
                continue;
            }
            let got_ratio = ratio(row.run, wanted);
            let weight = (row.weighed > 0).then(|| row.weighted as f64 / row.weighed as f64);
            let weight = weight.or(row.prio.and_then(self::weight).map(f64::from));
            // Who was never seen to run got nothing, whatever its weight.
            let nothing = (row.run == 0 && row.prio.is_none()).then_some(0.0);
            rows.push(FairnessRow {
                group: seen.tasks.group(ix),
                run_ns: row.run,
                wait_ns: row.wait,
                got_ratio,
                weight,
                got_by_weight: weight.map(|weight| got_ratio * 1024.0 / weight).or(nothing),
            });
        }
        let (jain, gini) = indices(rows.iter().filter_map(|row| row.got_by_weight).collect());
        let (jain_unweighted, gini_unweighted) = indices(rows.iter().map(|row| row.got_ratio).collect());
        rows.sort_by(|a, b| {
            let of = |row: &FairnessRow| row.got_by_weight.unwrap_or(row.got_ratio);
            of(a).total_cmp(&of(b)).then(b.wait_ns.cmp(&a.wait_ns))
        });
        let competed = rows.len();
        rows.truncate(self.scope.top());
        FairnessReport { competed, jain, jain_unweighted, gini, gini_unweighted, groups: rows, groups_total: all.len() }
    }
}
