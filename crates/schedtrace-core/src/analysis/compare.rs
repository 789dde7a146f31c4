//! Two recordings, or two windows of one, side by side: what changed, and whether that may be chance.
//!
//! Waits are not independent of one another: one long run delays all who are queued behind it. So no wait is drawn by
//! itself. The window is cut into blocks of time, and the blocks are drawn: the block bootstrap (Carlstein, "The use of
//! subseries values for estimating the variance of a general statistic from a stationary sequence", Annals of
//! Statistics 14, 1986; Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of
//! Statistics 17, 1989). A window has 64 blocks at most.
//!
//! What it cannot know: whether the recordings themselves are typical. Its intervals tell how much a number varies
//! *within* a recording. A load that has phases longer than a block (1/64 of the window), or that differs from run to
//! run, needs longer recordings, or several of each.

mod bootstrap;
mod profile;
#[cfg(test)]
mod tests;

pub use profile::{NameRow, NameUse, Profile, ProfileAnswer, WaitBuckets, WindowSlice};

use serde::Serialize;

use self::bootstrap::{Blocks, Random, neighbours_widen, student_to_normal, weighted};
use super::cpu_time::ratio;
use super::{Answered, Completeness};
use crate::event::{Comm, Window};

/// No difference that is not there is claimed in so many of all comparisons, whichever metric.
const CONFIDENCE_RATIO: f64 = 0.99;
/// So many times all blocks are drawn. At the level of one metric, 3 of the draws are below the interval, 3 above.
const RESAMPLES: usize = 10_000;
/// So many blocks on each side must have samples.
const MIN_BLOCKS: u64 = 16;
/// So many samples on each side must be beyond a quantile.
const MIN_BEYOND: u64 = 10;
/// If more is missing on one side, what is left is no fair sample.
const MAX_MISSING_RATIO: f64 = 0.01;
/// So many names of tasks are listed each way.
const TOP_NAMES: usize = 20;
/// Where the draws begin: the same two recordings give the same answer.
const SEED: u64 = 0x5eed;

/// What changed from A to B.
///
/// With a probability of `confidence_ratio`, no verdict of the whole comparison claims a difference that is not there.
/// Each metric's interval is wider than that (`confidence_each_ratio`), because there are so many of them: the error
/// is divided by the number of metrics (Bonferroni).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The window of A.
    pub window_a: Window,
    /// The window of B.
    pub window_b: Window,
    /// What is missing from A.
    pub completeness_a: Completeness,
    /// What is missing from B.
    pub completeness_b: Completeness,
    /// Of all verdicts together.
    pub confidence_ratio: f64,
    /// Of the interval of one metric.
    pub confidence_each_ratio: f64,
    /// The metrics, always the same ones in the same order.
    pub metrics: Vec<MetricChange>,
    /// Names of tasks that waited longer in B, in all, per second of the window; most growth first.
    pub tasks_grew: Vec<TaskChange>,
    /// Names of tasks that waited less, most first.
    pub tasks_shrank: Vec<TaskChange>,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricChange {
    /// Its name, which ends in its unit.
    pub name: &'static str,
    /// Its unit, to be shown: `ns`, `1/s`, `ns/s` or `ratio`.
    pub unit: &'static str,
    /// In A; none where there was nothing to make it from.
    pub a: Option<f64>,
    /// In B.
    pub b: Option<f64>,
    /// B less A, in the same unit.
    pub change: Option<f64>,
    /// The same as a share of A; none where A is 0.
    pub change_ratio: Option<f64>,
    /// Between which changes the true one is; none where there is too little to tell.
    pub interval: Option<Interval>,
    /// What A's number was made from: waits, events, or for a utilisation blocks of time.
    pub samples_a: u64,
    /// The same of B.
    pub samples_b: u64,
    /// What may be said.
    pub verdict: Verdict,
}

/// From one number to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The lower one.
    pub low: f64,
    /// The higher one.
    pub high: f64,
}

/// What may be said of a change from A to B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B has shorter or fewer waits.
    Better,
    /// B has longer or more waits.
    Worse,
    /// B has more. Whether that is good, nobody can say in general.
    Higher,
    /// B has less of it.
    Lower,
    /// What there is may be chance. There may be a difference all the same.
    NoDifferenceShown,
    /// Fewer than 16 blocks of time with samples, or than 10 samples beyond the quantile, on one side.
    TooFewSamples,
    /// More than 1 % is missing on one side: of its events, for waits also of these, for utilisations of the CPU time.
    LossTooLarge,
    /// The two numbers cannot be compared: a maximum grows with the length of the recording.
    NotComparable,
}

/// What the tasks of one name waited.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskChange {
    /// The name. The tasks of a name are taken together: process ids differ between recordings.
    pub comm: Comm,
    /// Wait for CPUs per second of A's window, all tasks together.
    pub a_wait_ns_per_second: f64,
    /// The same of B.
    pub b_wait_ns_per_second: f64,
    /// B less A.
    pub growth_ns_per_second: f64,
    /// What they did in A.
    pub a: NameUse,
    /// What they did in B.
    pub b: NameUse,
}

/// How a metric is made from blocks.
#[derive(Clone, Copy, Debug)]
enum Made {
    /// A quantile of the waits, per 10,000.
    Quantile(u32),
    /// A sum as a share of another one, times a factor.
    Share { part: fn(&WindowSlice) -> u64, whole: fn(&WindowSlice) -> u64, factor: f64 },
    /// The longest wait.
    Longest,
}

/// What can be missing from a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Waits,
    Events,
    CpuTime,
}

#[derive(Clone, Copy, Debug)]
struct Metric {
    name: &'static str,
    unit: &'static str,
    made: Made,
    of: Of,
    /// More of it is worse.
    costs: bool,
    /// What a block has for it to be made from.
    samples: fn(&WindowSlice) -> u64,
}

const fn quantile(name: &'static str, per_10_000: u32) -> Metric {
    let samples = |block: &WindowSlice| block.waits;
    Metric { name, unit: "ns", made: Made::Quantile(per_10_000), of: Of::Waits, costs: true, samples }
}

const fn per_second(name: &'static str, of: Of, part: fn(&WindowSlice) -> u64) -> Metric {
    let made = Made::Share { part, whole: |block| block.duration_ns, factor: 1e9 };
    Metric { name, unit: "1/s", made, of, costs: false, samples: part }
}

const METRICS: [Metric; 13] = [
    quantile("wait_p50_ns", 5_000),
    quantile("wait_p90_ns", 9_000),
    quantile("wait_p99_ns", 9_900),
    quantile("wait_p99_9_ns", 9_990),
    Metric {
        made: Made::Share { part: |block| block.sampled_ns, whole: |block| block.waits, factor: 1.0 },
        ..quantile("wait_mean_ns", 0)
    },
    Metric { made: Made::Longest, ..quantile("wait_max_ns", 10_000) },
    per_second("waits_per_second", Of::Waits, |block| block.waits),
    Metric {
        unit: "ns/s",
        costs: true,
        samples: |block| block.waits,
        ..per_second("wait_ns_per_second", Of::Waits, |block| block.wait_ns)
    },
    per_second("switches_per_second", Of::Events, |block| block.switches),
    per_second("involuntary_switches_per_second", Of::Events, |block| block.involuntary),
    per_second("wakeups_per_second", Of::Events, |block| block.wakeups),
    per_second("migrations_per_second", Of::Events, |block| block.migrations),
    Metric {
        name: "cpu_utilisation_ratio",
        unit: "ratio",
        made: Made::Share { part: |block| block.busy_ns, whole: WindowSlice::cpu_ns, factor: 1.0 },
        of: Of::CpuTime,
        costs: false,
        samples: |block| u64::from(block.cpu_ns() > 0),
    },
];

/// All but the maximum.
const TESTED: usize = METRICS.len() - 1;
/// How much of the error each end of each interval gets.
const TAIL_RATIO: f64 = (1.0 - CONFIDENCE_RATIO) / (2 * TESTED) as f64;
/// The quantile of the normal distribution that leaves this tail.
const NORMAL_QUANTILE: f64 = 3.341_478_956;

/// One metric's part of a side.
#[derive(Debug)]
struct Prepared {
    metric: Metric,
    part: Vec<f64>,
    whole: Vec<f64>,
    samples: u64,
    blocks_with_samples: u64,
}

impl Prepared {
    fn new(metric: &Metric, blocks: &[WindowSlice]) -> Self {
        let numbers = |of: fn(&WindowSlice) -> u64| blocks.iter().map(|block| of(block) as f64).collect();
        let (part, whole) = match metric.made {
            Made::Share { part, whole, .. } => (numbers(part), numbers(whole)),
            Made::Quantile(_) | Made::Longest => (Vec::new(), Vec::new()),
        };
        Self {
            metric: *metric,
            part,
            whole,
            samples: blocks.iter().fold(0, |sum, block| sum.saturating_add((metric.samples)(block))),
            blocks_with_samples: blocks.iter().filter(|block| (metric.samples)(block) > 0).count() as u64,
        }
    }

    /// The metric of the blocks that were drawn; none of nothing.
    fn value(&self, blocks: &Blocks, weights: &[u64]) -> Option<f64> {
        match self.metric.made {
            Made::Quantile(per_10_000) => blocks.quantile_ns(per_10_000, weights).map(|ns| ns as f64),
            Made::Share { factor, .. } => {
                let whole = weighted(&self.whole, weights);
                (whole > 0.0).then(|| weighted(&self.part, weights) / whole * factor)
            }
            Made::Longest => (self.samples > 0).then(|| longest_ns(blocks) as f64),
        }
    }

    /// The metric of the window itself. No quantile is above the longest wait.
    fn estimate(&self, blocks: &Blocks) -> Option<f64> {
        let value = self.value(blocks, &blocks.as_they_are())?;
        Some(if matches!(self.metric.made, Made::Quantile(_)) { value.min(longest_ns(blocks) as f64) } else { value })
    }

    /// How much blocks that are like their neighbours widen the interval.
    fn neighbours_widen(&self, blocks: &Blocks) -> f64 {
        match self.metric.made {
            Made::Quantile(per_10_000) => {
                let (below, all) = blocks.below_quantile(per_10_000);
                neighbours_widen(&below, &all)
            }
            Made::Share { .. } => neighbours_widen(&self.part, &self.whole),
            Made::Longest => 1.0,
        }
    }

    fn is_enough(&self) -> bool {
        let beyond = match self.metric.made {
            Made::Quantile(per_10_000) => {
                u128::from(self.samples) * u128::from(10_000 - per_10_000) >= u128::from(MIN_BEYOND) * 10_000
            }
            Made::Share { .. } | Made::Longest => true,
        };
        self.blocks_with_samples >= MIN_BLOCKS && beyond
    }
}

fn longest_ns(blocks: &Blocks) -> u64 {
    blocks.list.iter().map(|block| block.max_ns).max().unwrap_or(0)
}

/// A or B.
#[derive(Debug)]
struct Side<'a> {
    of: &'a Answered<ProfileAnswer>,
    blocks: Blocks,
    metrics: Vec<Prepared>,
}

impl<'a> Side<'a> {
    fn new(of: &'a Answered<ProfileAnswer>) -> Self {
        let blocks = Blocks::new(&of.answer.slices);
        let metrics = METRICS.iter().map(|metric| Prepared::new(metric, &blocks.list)).collect();
        Self { of, blocks, metrics }
    }

    /// Whether so much is missing that what is left may be of another kind.
    fn lacks(&self, of: Of) -> bool {
        let (about, answer) = (&self.of.about, &self.of.answer);
        let too_large = |missing: u64, there: u64| ratio(missing, there.saturating_add(missing)) > MAX_MISSING_RATIO;
        let events = about.events.values().fold(0_u64, |sum, &n| sum.saturating_add(n));
        let missing = about.completeness.lost_total.saturating_add(about.completeness.late);
        let total = &answer.total;
        too_large(missing, events)
            || match of {
                Of::Events => false,
                Of::Waits => too_large(answer.in_loss.waits, total.waits),
                Of::CpuTime => too_large(total.unknown_ns, total.busy_ns.saturating_add(total.idle_ns)),
            }
    }

    /// Per second of the window; 0 of no time.
    fn per_second(&self, ns: u64) -> f64 {
        let seconds = self.of.about.window.duration_ns.as_secs_f64();
        if seconds > 0.0 { ns as f64 / seconds } else { 0.0 }
    }
}

/// Compares two profiles: what changed from A to B, and whether that may be chance.
///
/// A difference is claimed only if the interval of the change excludes 0, at least 16 blocks of time on both sides have
/// samples, at least 10 samples on both sides are beyond the quantile in question, and no more than 1 % is missing.
/// The interval is the percentile interval of 10,000 draws, widened for the number of blocks by the ratio of Student's
/// *t* to the normal quantile and by the root of *n* / (*n* - 1): with few blocks, percentile intervals are too short
/// (Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69, 2015). It is widened
/// again where blocks are like their neighbours, as the load of most machines comes in waves: by the root of
/// (1 + *r*) / (1 - *r*), with *r* the correlation of one block with the next.
///
/// Waits and wait times have a direction, better or worse. Rates of events and the utilisation have none.
///
/// ```
/// use schedtrace_core::analysis::{self, Options, Profile, Study, Verdict};
/// use schedtrace_core::{MemorySource, Meta, Nanos};
///
/// let meta = Meta { started: Nanos(1), ended: Some(Nanos(1_000_000_001)), ..Meta::default() };
/// let profile = || analysis::run(&mut MemorySource::new(meta.clone(), []), Study::<Profile>::new(Options::default()));
/// let comparison = analysis::compare(&profile()?, &profile()?);
/// assert_eq!(comparison.metrics[0].name, "wait_p50_ns");
/// assert_eq!(comparison.metrics[0].verdict, Verdict::TooFewSamples, "nobody waited");
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[must_use]
pub fn compare(a: &Answered<ProfileAnswer>, b: &Answered<ProfileAnswer>) -> Comparison {
    compare_with(a, b, RESAMPLES)
}

fn compare_with(a: &Answered<ProfileAnswer>, b: &Answered<ProfileAnswer>, resamples: usize) -> Comparison {
    let (a, b) = (Side::new(a), Side::new(b));
    let changes = draw_changes(&a, &b, resamples);
    let metrics = changes.into_iter().enumerate().map(|(at, changes)| metric_change(&a, &b, at, changes)).collect();
    let (tasks_grew, tasks_shrank) = task_changes(&a, &b);
    Comparison {
        window_a: a.of.about.window,
        window_b: b.of.about.window,
        completeness_a: a.of.about.completeness.clone(),
        completeness_b: b.of.about.completeness.clone(),
        confidence_ratio: CONFIDENCE_RATIO,
        confidence_each_ratio: 1.0 - 2.0 * TAIL_RATIO,
        metrics,
        tasks_grew,
        tasks_shrank,
    }
}

/// For each metric, the changes that were drawn; none where it is not tested.
fn draw_changes(a: &Side<'_>, b: &Side<'_>, resamples: usize) -> Vec<Vec<f64>> {
    let tested: Vec<bool> = (a.metrics.iter().zip(&b.metrics))
        .map(|(a, b)| !matches!(a.metric.made, Made::Longest) && a.is_enough() && b.is_enough())
        .collect();
    let mut changes = vec![Vec::new(); METRICS.len()];
    if !tested.contains(&true) {
        return changes;
    }
    let mut random = Random(SEED);
    let (mut weights_a, mut weights_b) = (a.blocks.as_they_are(), b.blocks.as_they_are());
    for _ in 0..resamples {
        a.blocks.draw(&mut random, &mut weights_a);
        b.blocks.draw(&mut random, &mut weights_b);
        for (at, changes) in changes.iter_mut().enumerate().filter(|&(at, _)| tested[at]) {
            let value_a = a.metrics[at].value(&a.blocks, &weights_a);
            let value_b = b.metrics[at].value(&b.blocks, &weights_b);
            if let (Some(value_a), Some(value_b)) = (value_a, value_b) {
                changes.push(value_b - value_a);
            }
        }
    }
    changes
}

fn metric_change(a: &Side<'_>, b: &Side<'_>, at: usize, changes: Vec<f64>) -> MetricChange {
    let (of_a, of_b) = (&a.metrics[at], &b.metrics[at]);
    let metric = &of_a.metric;
    let (value_a, value_b) = (of_a.estimate(&a.blocks), of_b.estimate(&b.blocks));
    let change = value_a.zip(value_b).map(|(a, b)| b - a);
    let blocks = of_a.blocks_with_samples.min(of_b.blocks_with_samples) as f64;
    let wider = few_blocks_widen(blocks) * of_a.neighbours_widen(&a.blocks).max(of_b.neighbours_widen(&b.blocks));
    let interval = change.and_then(|change| interval(change, changes, wider));
    let (more, less) = if metric.costs { (Verdict::Worse, Verdict::Better) } else { (Verdict::Higher, Verdict::Lower) };
    let verdict = match (metric.made, interval) {
        (Made::Longest, _) => Verdict::NotComparable,
        _ if a.lacks(metric.of) || b.lacks(metric.of) => Verdict::LossTooLarge,
        (_, None) => Verdict::TooFewSamples,
        (_, Some(interval)) if interval.low > 0.0 => more,
        (_, Some(interval)) if interval.high < 0.0 => less,
        _ => Verdict::NoDifferenceShown,
    };
    MetricChange {
        name: metric.name,
        unit: metric.unit,
        a: value_a,
        b: value_b,
        change,
        change_ratio: change.zip(value_a).filter(|&(_, a)| a > 0.0).map(|(change, a)| change / a),
        interval,
        samples_a: of_a.samples,
        samples_b: of_b.samples,
        verdict,
    }
}

/// How much the number of blocks widens the interval.
fn few_blocks_widen(blocks: f64) -> f64 {
    student_to_normal(NORMAL_QUANTILE, blocks - 1.0) * (blocks / (blocks - 1.0)).sqrt()
}

/// Where the true change is, after the changes that were drawn; none if there are none.
fn interval(change: f64, mut drawn: Vec<f64>, wider: f64) -> Option<Interval> {
    drawn.sort_unstable_by(f64::total_cmp);
    let outside = ((TAIL_RATIO * (drawn.len() + 1) as f64) as usize).saturating_sub(1);
    let (low, high) = (*drawn.get(outside)?, *drawn.iter().rev().nth(outside)?);
    let low = change - (change - low).max(0.0) * wider;
    let high = change + (high - change).max(0.0) * wider;
    (low.is_finite() && high.is_finite()).then_some(Interval { low, high })
}

/// The names whose tasks waited longer, and those whose tasks waited less.
fn task_changes(a: &Side<'_>, b: &Side<'_>) -> (Vec<TaskChange>, Vec<TaskChange>) {
    let (rows_a, rows_b) = (&a.of.answer.names, &b.of.answer.names);
    let mut changes = Vec::new();
    let mut add = |comm: Comm, used_a: Option<NameUse>, used_b: Option<NameUse>| {
        // A name that is missing where not all names were told apart may be among the others.
        let hidden = |used: Option<NameUse>, side: &Side<'_>| used.is_none() && side.of.answer.other_names.tasks > 0;
        if hidden(used_a, a) || hidden(used_b, b) {
            return;
        }
        let (used_a, used_b) = (used_a.unwrap_or_default(), used_b.unwrap_or_default());
        let (wait_a, wait_b) = (a.per_second(used_a.wait_ns), b.per_second(used_b.wait_ns));
        changes.push(TaskChange {
            comm,
            a_wait_ns_per_second: wait_a,
            b_wait_ns_per_second: wait_b,
            growth_ns_per_second: wait_b - wait_a,
            a: used_a,
            b: used_b,
        });
    };
    let find = |rows: &[NameRow], comm: Comm| {
        rows.binary_search_by_key(&comm, |row| row.comm).ok().and_then(|at| rows.get(at)).map(|row| row.used)
    };
    for row in rows_a {
        add(row.comm, Some(row.used), find(rows_b, row.comm));
    }
    for row in rows_b.iter().filter(|row| find(rows_a, row.comm).is_none()) {
        add(row.comm, None, Some(row.used));
    }
    changes.sort_by(|x, y| y.growth_ns_per_second.total_cmp(&x.growth_ns_per_second).then(x.comm.cmp(&y.comm)));
    let grew = changes.iter().take_while(|change| change.growth_ns_per_second > 0.0).take(TOP_NAMES);
    let shrank = changes.iter().rev().take_while(|change| change.growth_ns_per_second < 0.0).take(TOP_NAMES);
    (grew.cloned().collect(), shrank.cloned().collect())
}
