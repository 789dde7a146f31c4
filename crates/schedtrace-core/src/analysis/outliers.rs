//! Outliers: waits that do not belong to the rest, and groups whose waits do not.
//!
//! Two fences, each of which needs no distribution to be normal: Tukey's, 1.5 and 3 times the interquartile range above the
//! third quartile (Tukey, "Exploratory Data Analysis", 1977), and the median plus 3.5 times the median absolute deviation
//! over 0.6745 (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993). Both are taken from the histogram, whose
//! error of less than 1 % they inherit.

use serde::Serialize;

use super::cpu_time::ratio;
use super::distribution::Distribution;
use super::groups::{Gone, Group, GroupIx, Rows};
use super::measure::{Latencies, Measure};
use super::question::{About, Counts, Question};
use super::states::{Observer, Seen, Waited};
use super::study::Scope;

/// A group has a median of its own only with so many samples.
const ENOUGH: u64 = 10;

/// Waits, and groups, that do not belong to the rest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutliersReport {
    /// All waits for a CPU.
    pub waits: Latencies,
    /// Where outliers begin among them.
    pub fences: Fences,
    /// Waits beyond Tukey's outer fence.
    pub far_out: Beyond,
    /// Waits beyond the fence of the median absolute deviation; none where that is 0.
    pub by_mad: Beyond,
    /// Groups whose p99 lies beyond the fence of the median absolute deviation of all groups' p99, highest first. Only those
    /// with ten samples or more are compared; none lies beyond where the p99s of most are the same.
    pub groups: Vec<OutlierRow>,
    /// How many groups were compared.
    pub compared: usize,
}

/// Where outliers begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fences {
    /// The first quartile.
    pub p25_ns: u64,
    /// The median.
    pub p50_ns: u64,
    /// The third quartile.
    pub p75_ns: u64,
    /// The interquartile range.
    pub iqr_ns: u64,
    /// The median absolute deviation from the median.
    pub mad_ns: u64,
    /// Tukey's inner fence: the third quartile and 1.5 interquartile ranges.
    pub inner_ns: u64,
    /// Tukey's outer fence: the third quartile and 3 interquartile ranges.
    pub outer_ns: u64,
    /// The median and 3.5 median absolute deviations over 0.6745.
    pub mad_fence_ns: u64,
}

/// What lies beyond a fence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Beyond {
    /// How many samples.
    pub count: u64,
    /// As a share of all.
    pub count_ratio: f64,
    /// All of them together.
    pub total_ns: u64,
    /// The same as a share of the time of all.
    pub total_ratio: f64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutlierRow {
    /// Which.
    pub group: Group,
    /// Its p99.
    pub p99_ns: u64,
    /// How far that is from the median of all, in median absolute deviations over 0.6745: beyond 3.5.
    pub score: f64,
    /// Its waits.
    pub waits: Latencies,
}

impl Fences {
    pub(super) fn of(all: &Distribution) -> Self {
        let [p25_ns, p50_ns, p75_ns] = [2_500, 5_000, 7_500].map(|per_10_000| all.quantile(per_10_000));
        let iqr_ns = p75_ns.saturating_sub(p25_ns);
        let mad_ns = all.mad(p50_ns);
        Self {
            p25_ns,
            p50_ns,
            p75_ns,
            iqr_ns,
            mad_ns,
            inner_ns: p75_ns.saturating_add(iqr_ns).saturating_add(iqr_ns / 2),
            outer_ns: p75_ns.saturating_add(iqr_ns.saturating_mul(3)),
            mad_fence_ns: p50_ns.saturating_add((mad_ns as f64 * 3.5 / 0.6745) as u64),
        }
    }
}

/// Which waits do not belong to the rest?
#[derive(Clone, Debug)]
pub struct Outliers {
    scope: Scope,
    total: Measure,
    rows: Rows<Measure>,
}

impl Observer for Outliers {
    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        if let Some(Counts::Sample(ns)) = self.scope.wait(wait, seen)
            && let Some(row) = self.scope.row(wait.task, wait.cpu, seen)
        {
            let (task, cpu) = (Some(wait.task.id), wait.cpu.cpu);
            self.total.record(wait.from, ns, cpu, task, seen);
            self.rows.at(row).record(wait.from, ns, cpu, task, seen);
        }
    }
}

impl Question for Outliers {
    type Answer = OutliersReport;

    fn new(scope: &Scope) -> Self {
        Self { scope: *scope, total: Measure::default(), rows: Rows::default() }
    }

    fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
    }

    fn answer(&self, _: &About, seen: &Seen<'_>) -> OutliersReport {
        let all = self.total.distribution();
        let fences = Fences::of(all);
        let beyond = |fence: u64| {
            let (count, total_ns) = all.beyond(fence);
            Beyond {
                count,
                count_ratio: ratio(count, all.count()),
                total_ns,
                total_ratio: ratio(total_ns, all.total_ns()),
            }
        };
        let enough: Vec<(GroupIx, &Measure, u64)> = self
            .rows
            .iter()
            .filter(|(_, row)| row.count() >= ENOUGH)
            .map(|(ix, row)| (ix, row, row.distribution().quantile(9_900)))
            .collect();
        let mut of_groups = Distribution::default();
        enough.iter().for_each(|&(.., p99)| of_groups.record(p99));
        let of_groups = Fences::of(&of_groups);
        let score = |p99: u64| (p99 as f64 - of_groups.p50_ns as f64) * 0.6745 / of_groups.mad_ns as f64;
        let mut groups: Vec<OutlierRow> = enough
            .iter()
            .filter(|&&(.., p99)| of_groups.mad_ns > 0 && p99 > of_groups.mad_fence_ns)
            .map(|&(ix, row, p99_ns)| OutlierRow {
                group: seen.tasks.group(ix),
                p99_ns,
                score: score(p99_ns),
                waits: row.report(),
            })
            .collect();
        groups.sort_by_key(|row| std::cmp::Reverse(row.p99_ns));
        groups.truncate(self.scope.top());
        OutliersReport {
            waits: self.total.report(),
            far_out: beyond(fences.outer_ns),
            // Where more than half of all are the same, everything else would be far out.
            by_mad: if fences.mad_ns > 0 { beyond(fences.mad_fence_ns) } else { Beyond::default() },
            fences,
            groups,
            compared: enough.len(),
        }
    }
}
