//! Who wakes whom, how long the woken ones then wait, and how far from their wakers they run.

use hashbrown::HashMap;
use serde::Serialize;

use super::cpu_time::ratio;
use super::groups::{Gone, Group, Merge};
use super::measure::{Latencies, Measure};
use super::question::{About, Counts, Question};
use super::states::{Cause, Observer, Seen, Waited, Woken};
use super::study::Scope;
use super::tables::{Pair, Table};
use super::wakeups::{WakerGroup, of_waker};
use crate::event::{Cpu, TaskId};
use crate::source::Meta;
use crate::system::{Locality, Topology};

/// Who woke whom, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WakersReport {
    /// Wakeups of sleeping tasks.
    pub wakeups: u64,
    /// Wakings of tasks that were awake already: nothing came of them.
    pub awake_already: u64,
    /// The pairs whose wakees waited longest in all, most first. With CPUs as groups, by process.
    pub pairs: Vec<WakerRow>,
    /// How many pairs there were.
    pub pairs_total: usize,
    /// Wakeups among pairs that were too many to keep apart.
    pub others: u64,
    /// How far from where it had run before a woken task ran.
    pub placement: Placement,
    /// How far from its waker's CPU a woken task ran.
    pub from_waker: Placement,
}

/// How far from some CPU tasks ran, by the closest thing that the two CPUs share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Placement {
    /// On the same CPU.
    pub same_cpu: u64,
    /// On another CPU of the same core.
    pub core: u64,
    /// On another core under the same last-level cache.
    pub llc: u64,
    /// Under another cache of the same NUMA node.
    pub node: u64,
    /// On another node.
    pub cross_node: u64,
    /// The topology does not tell.
    pub unknown: u64,
    /// Those under the same last-level cache as a share of those that are known.
    pub llc_local_ratio: f64,
}

/// One pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WakerRow {
    /// Who woke.
    pub waker: WakerGroup,
    /// Who was woken.
    pub wakee: Group,
    /// From the waking until the wakee had a CPU.
    pub latency: Latencies,
    /// Of these: the wakee ran on the CPU of its waker.
    pub on_wakers_cpu: u64,
}

#[derive(Clone, Debug, Default)]
struct Row {
    latency: Measure,
    on_wakers_cpu: u64,
}

impl Merge for Row {
    fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.on_wakers_cpu.merge(&other.on_wakers_cpu);
    }
}

impl Placement {
    fn add(&mut self, topology: &Topology, from: Cpu, to: Cpu) {
        *match topology.locality(from, to) {
            Locality::Cpu => &mut self.same_cpu,
            Locality::Core => &mut self.core,
            Locality::Llc => &mut self.llc,
            Locality::Node => &mut self.node,
            Locality::CrossNode => &mut self.cross_node,
            Locality::Unknown => &mut self.unknown,
        } += 1;
    }

    fn report(mut self) -> Self {
        let local = self.same_cpu + self.core + self.llc;
        self.llc_local_ratio = ratio(local, local + self.node + self.cross_node);
        self
    }
}

/// Who wakes whom, and how long do the woken ones wait?
#[derive(Clone, Debug)]
pub struct Wakers {
    scope: Scope,
    topology: Topology,
    wakeups: u64,
    awake: u64,
    pairs: Table<Pair, Row>,
    placement: Placement,
    from_waker: Placement,
    /// On which CPU the wakers of those who wait now were: at most so many as there are tasks.
    woken_on: HashMap<TaskId, Cpu>,
}

/// So many woken tasks are followed until they run.
const MAX_WOKEN: usize = 1 << 16;

impl Observer for Wakers {
    fn woken(&mut self, woken: &Woken, seen: &Seen<'_>) {
        if self.scope.contains(woken.at) && !seen.tasks.left_out(woken.task) && !woken.new {
            self.wakeups += u64::from(!woken.awake);
            self.awake += u64::from(woken.awake);
        }
        // Nobody asks who woke a new task, so that nothing would make room again.
        let room = self.woken_on.len() < MAX_WOKEN || self.woken_on.contains_key(&woken.task.id);
        if !woken.awake && !woken.new && room {
            self.woken_on.insert(woken.task.id, woken.cpu.cpu);
        }
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        let Cause::Woken(waker) = wait.cause else { return };
        let woken_on = self.woken_on.remove(&wait.task.id);
        let Some(Counts::Sample(ns)) = self.scope.wait(wait, seen) else { return };
        if let Some(row) = self.pairs.at(Pair(of_waker(waker, seen), seen.tasks.group_of(wait.task))) {
            row.latency.record(wait.from, ns, wait.cpu.cpu, Some(wait.task.id), seen);
            row.on_wakers_cpu += u64::from(woken_on == Some(wait.cpu.cpu));
        }
        if let Some(cpu) = woken_on {
            self.from_waker.add(&self.topology, cpu, wait.cpu.cpu);
        }
        if let Some(before) = wait.ran_on {
            self.placement.add(&self.topology, before.cpu, wait.cpu.cpu);
        }
    }
}

impl Question for Wakers {
    type Answer = WakersReport;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            topology: Topology::default(),
            wakeups: 0,
            awake: 0,
            pairs: Table::default(),
            placement: Placement::default(),
            from_waker: Placement::default(),
            woken_on: HashMap::new(),
        }
    }

    fn begin(&mut self, meta: &Meta) {
        self.topology = meta.topology.clone();
    }

    fn fold(&mut self, gone: &Gone) {
        self.pairs.rename(|Pair(a, b)| Pair(gone.now(a), gone.now(b)));
    }

    fn answer(&self, _: &About, seen: &Seen<'_>) -> WakersReport {
        let ranked = self.pairs.ranked(|row| (row.latency.total_ns(), row.latency.count()));
        let row = |&(Pair(waker, wakee), row): &(Pair, &Row)| WakerRow {
            waker: WakerGroup::of(waker, seen),
            wakee: seen.tasks.group(wakee),
            latency: row.latency.report(),
            on_wakers_cpu: row.on_wakers_cpu,
        };
        WakersReport {
            wakeups: self.wakeups,
            awake_already: self.awake,
            pairs: ranked.iter().take(self.scope.top()).map(row).collect(),
            pairs_total: ranked.len(),
            others: self.pairs.others(),
            placement: self.placement.report(),
            from_waker: self.from_waker.report(),
        }
    }
}
