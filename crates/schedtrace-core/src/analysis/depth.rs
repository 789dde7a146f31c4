//! How many tasks waited on the run queues, weighted by time, and how unevenly the CPUs were loaded.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cpu_time::ratio;
use super::question::{About, Question};
use super::states::{Observer, Ran, Seen, Span, Waited};
use super::study::Scope;
use crate::event::{Cpu, Nanos};
use crate::source::Meta;
use crate::system::Topology;

/// Depths beyond are counted as this one.
const MAX_DEPTH: usize = 1 << 12;
/// So many changes of depths wait to be put in order, since waits are told when they are over: a wait that lasts for more
/// than half of them is not counted from its beginning.
const MAX_CHANGES: usize = 1 << 19;

/// How many tasks waited for each CPU, and how the load was spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DepthReport {
    /// Of all CPUs together.
    pub total: DepthStats,
    /// Each CPU, by number.
    pub cpus: Vec<DepthRow<Cpu>>,
    /// Each last-level cache: all queues of its CPUs together.
    pub llcs: Vec<DepthRow<u32>>,
    /// Each NUMA node: all queues of its CPUs together.
    pub nodes: Vec<DepthRow<u32>>,
    /// How unevenly the load was spread across CPUs, last-level caches and nodes.
    pub imbalance: Vec<ImbalanceRow>,
    /// Parts of waits that were too old to be counted when they became known.
    pub uncounted_ns: u64,
}

/// How many tasks waited, and did not run: weighted by the time for which so many did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct DepthStats {
    /// The mean.
    pub mean: f64,
    /// What it did not exceed half of the time.
    pub p50: u32,
    /// What it did not exceed 90 % of the time.
    pub p90: u32,
    /// What it did not exceed 99 % of the time.
    pub p99: u32,
    /// What it did not exceed 99.9 % of the time.
    pub p99_9: u32,
    /// What it did not exceed 99.99 % of the time.
    pub p99_99: u32,
    /// The most.
    pub max: u32,
    /// For how long somebody waited.
    pub waiting_ns: u64,
    /// The same as a share of the window.
    pub waiting_ratio: f64,
}

/// One CPU, cache or node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DepthRow<T> {
    /// Which.
    pub place: T,
    /// How deep its queues were.
    #[serde(flatten)]
    pub depth: DepthStats,
    /// For how long its CPUs were busy.
    pub busy_ns: u64,
}

/// How unevenly load was spread across places of one kind. Load is the time for which tasks ran or waited at a place, per
/// CPU of the place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImbalanceRow {
    /// `cpu`, `llc` or `node`.
    pub across: &'static str,
    /// How many places there are.
    pub places: usize,
    /// The smallest load: how many tasks ran or waited there, per CPU, in the mean over the window.
    pub least_load: f64,
    /// The largest.
    pub most_load: f64,
    /// The mean.
    pub mean_load: f64,
    /// The standard deviation of the loads divided by their mean (coefficient of variation): 0 where all are equal.
    pub variation_ratio: f64,
}

/// How many waited on one queue, or on several.
#[derive(Clone, Debug, Default)]
struct Line {
    /// For how long so many waited; nobody did for what is left of the window.
    ns: Vec<u64>,
    now: u32,
    since: Nanos,
}

impl Line {
    fn turn(&mut self, at: Nanos, by: i32) {
        if self.now > 0 && at > self.since {
            // Only what is told has an end: a wait that is over is one less, however many there were.
            let depth = (self.now as usize).min(MAX_DEPTH);
            if depth >= self.ns.len() {
                self.ns.resize(depth + 1, 0);
            }
            self.ns[depth] += (at - self.since).0;
        }
        self.since = self.since.max(at);
        self.now = self.now.saturating_add_signed(by);
    }

    fn max(&self) -> u32 {
        self.ns.len().saturating_sub(1) as u32
    }

    fn stats(&self, window_ns: u64) -> DepthStats {
        let waiting_ns: u64 = self.ns.iter().sum();
        let total: f64 = self.ns.iter().enumerate().map(|(depth, &ns)| depth as f64 * ns as f64).sum();
        let window = window_ns.max(waiting_ns);
        let quantile = |share: f64| {
            let enough = share * window as f64;
            let mut told = (window - waiting_ns) as f64;
            if told >= enough {
                return 0;
            }
            for (depth, &ns) in self.ns.iter().enumerate() {
                told += ns as f64;
                // Sums of floating-point numbers may miss the end by a little.
                if told >= enough * (1.0 - 1e-12) {
                    return depth as u32;
                }
            }
            self.max()
        };
        DepthStats {
            mean: if window == 0 { 0.0 } else { total / window as f64 },
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            p99_99: quantile(0.9999),
            max: self.max(),
            waiting_ns,
            waiting_ratio: ratio(waiting_ns, window),
        }
    }
}

/// The queues of places of one kind.
#[derive(Clone, Debug, Default)]
struct Lines<K: Ord>(BTreeMap<K, Line>);

/// How deep were the run queues?
#[derive(Clone, Debug)]
pub struct Depth {
    scope: Scope,
    topology: Topology,
    /// Beginnings (+1) and ends (-1) of waits, by time, that have not been counted yet.
    changes: Vec<(Nanos, Cpu, i32)>,
    /// Everything before this was counted.
    counted: Nanos,
    total: Line,
    cpus: Lines<Cpu>,
    llcs: Lines<u32>,
    nodes: Lines<u32>,
    busy: BTreeMap<Cpu, u64>,
    waiting: BTreeMap<Cpu, u64>,
    uncounted_ns: u64,
}

impl Depth {
    /// The task waits on this queue between two times.
    fn waits(&mut self, cpu: Cpu, from: Nanos, until: Nanos) {
        *self.waiting.entry(cpu).or_default() += (until - from).0;
        let begin = from.max(self.counted);
        self.uncounted_ns += (begin.min(until) - from).0;
        if begin < until {
            self.changes.push((begin, cpu, 1));
            self.changes.push((until, cpu, -1));
        }
        if self.changes.len() > MAX_CHANGES {
            self.count(MAX_CHANGES / 2);
        }
    }

    /// Counts the oldest changes.
    fn count(&mut self, changes: usize) {
        self.changes.sort_unstable_by_key(|&(at, ..)| at);
        for (at, cpu, by) in self.changes.drain(..changes.min(self.changes.len())) {
            self.counted = at;
            self.total.turn(at, by);
            self.cpus.0.entry(cpu).or_default().turn(at, by);
            if let Some(info) = self.topology.get(cpu) {
                self.llcs.0.entry(info.llc).or_default().turn(at, by);
                self.nodes.0.entry(info.node).or_default().turn(at, by);
            }
        }
    }
}

impl Observer for Depth {
    fn ran(&mut self, ran: &Ran, _: &Seen<'_>) {
        if let Some((from, until)) = self.scope.clip(ran.span.from, ran.span.until) {
            *self.busy.entry(ran.span.cpu.cpu).or_default() += (until - from).0;
        }
    }

    fn idled(&mut self, span: &Span, _: &Seen<'_>) {
        self.busy.entry(span.cpu.cpu).or_default();
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        if wait.doubtful || seen.tasks.left_out(wait.task) || wait.cause == super::states::Cause::Throttled {
            return;
        }
        for segment in wait.segments {
            if let Some((from, until)) = self.scope.clip(segment.from, segment.until) {
                self.waits(segment.cpu.cpu, from, until);
            }
        }
    }
}

impl Question for Depth {
    type Answer = DepthReport;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            topology: Topology::default(),
            changes: Vec::new(),
            counted: Nanos::ZERO,
            total: Line::default(),
            cpus: Lines::default(),
            llcs: Lines::default(),
            nodes: Lines::default(),
            busy: BTreeMap::new(),
            waiting: BTreeMap::new(),
            uncounted_ns: 0,
        }
    }

    fn begin(&mut self, meta: &Meta) {
        self.topology = meta.topology.clone();
    }

    fn answer(&self, about: &About, _: &Seen<'_>) -> DepthReport {
        let mut all = self.clone();
        all.count(usize::MAX);
        let window_ns = about.window.duration_ns.0;
        let cpus: Vec<Cpu> = all
            .busy
            .keys()
            .chain(all.cpus.0.keys())
            .copied()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let nothing = Line::default();
        let busy = |cpu: &Cpu| all.busy.get(cpu).copied().unwrap_or(0);
        let load = |cpu: &Cpu| busy(cpu) + all.waiting.get(cpu).copied().unwrap_or(0);
        let place_of = |node: bool| {
            let mut places = BTreeMap::<u32, Vec<Cpu>>::new();
            for &cpu in &cpus {
                if let Some(info) = all.topology.get(cpu) {
                    places.entry(if node { info.node } else { info.llc }).or_default().push(cpu);
                }
            }
            places
        };
        let (llcs, nodes) = (place_of(false), place_of(true));
        let rows = |places: &BTreeMap<u32, Vec<Cpu>>, lines: &Lines<u32>| {
            let row = |(&place, cpus): (&u32, &Vec<Cpu>)| DepthRow {
                place,
                depth: lines.0.get(&place).unwrap_or(&nothing).stats(window_ns),
                busy_ns: cpus.iter().map(busy).sum(),
            };
            places.iter().map(row).collect::<Vec<_>>()
        };
        let of_place =
            |cpus: &Vec<Cpu>| ratio(cpus.iter().map(load).sum::<u64>(), window_ns) / cpus.len().max(1) as f64;
        DepthReport {
            total: all.total.stats(window_ns),
            cpus: cpus
                .iter()
                .map(|cpu| DepthRow {
                    place: *cpu,
                    depth: all.cpus.0.get(cpu).unwrap_or(&nothing).stats(window_ns),
                    busy_ns: busy(cpu),
                })
                .collect(),
            imbalance: vec![
                imbalance("cpu", cpus.iter().map(|cpu| ratio(load(cpu), window_ns))),
                imbalance("llc", llcs.values().map(of_place)),
                imbalance("node", nodes.values().map(of_place)),
            ],
            llcs: rows(&llcs, &all.llcs),
            nodes: rows(&nodes, &all.nodes),
            uncounted_ns: all.uncounted_ns,
        }
    }
}

fn imbalance(across: &'static str, loads: impl Iterator<Item = f64>) -> ImbalanceRow {
    let loads: Vec<f64> = loads.collect();
    let count = loads.len().max(1) as f64;
    let mean = loads.iter().sum::<f64>() / count;
    let variance = loads.iter().map(|load| (load - mean).powi(2)).sum::<f64>() / count;
    ImbalanceRow {
        across,
        places: loads.len(),
        least_load: loads.iter().copied().reduce(f64::min).unwrap_or(0.0),
        most_load: loads.iter().copied().reduce(f64::max).unwrap_or(0.0),
        mean_load: mean,
        variation_ratio: if mean > 0.0 { variance.sqrt() / mean } else { 0.0 },
    }
}
