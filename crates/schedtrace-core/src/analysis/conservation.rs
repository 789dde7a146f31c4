//! Work conservation: was a CPU idle while a task that may run there waited elsewhere?
//!
//! A scheduler that conserves work leaves no CPU idle while somebody waits (Lozi et al., "The Linux Scheduler: a Decade of
//! Wasted Cores", EuroSys 2016). Which CPUs a task may use is not recorded, so that what counts is where it has been seen to
//! run: a task that is kept on one CPU never counts, and one whose affinity was narrowed meanwhile counts wrongly. While
//! its own CPU is idle too, a task waits for that one to wake up, which counts for nobody.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::Serialize;

use super::cpu_time::ratio;
use super::groups::{Gone, Group, GroupIx};
use super::measure::{Latencies, Measure};
use super::question::{About, Question};
use super::states::{Cause, Observer, Occupant, Ran, Seen, Span, Waited};
use super::study::Scope;
use super::tables::Table;
use crate::event::{Cpu, Nanos, TaskId};

/// So many idle stretches are remembered of each CPU.
const MAX_IDLE: usize = 1 << 12;
/// So many tasks are followed.
const MAX_TASKS: usize = 1 << 16;

/// CPUs that were idle while somebody waited.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConservationReport {
    /// Waits during which another CPU was idle, on which the task had run before: for how long.
    pub violations: Latencies,
    /// Waits that were looked at.
    pub waits: u64,
    /// All of their time.
    pub wait_ns: u64,
    /// The time in violation as a share of it.
    pub violated_ratio: f64,
    /// The groups that lost most time so, most first.
    pub groups: Vec<ConservationRow>,
    /// How many groups lost any.
    pub groups_total: usize,
    /// The CPUs that were idle meanwhile.
    pub cpus: Vec<IdleCpuRow>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConservationRow {
    /// Which.
    pub group: Group,
    /// For how long its tasks waited while another CPU was idle.
    pub violations: Latencies,
}

/// One CPU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct IdleCpuRow {
    /// Which.
    pub cpu: Cpu,
    /// For how long it was idle while somebody waited who might have run there, once for each who did.
    pub idle_ns: u64,
}

/// Was a CPU idle while a task that may run there waited elsewhere?
#[derive(Clone, Debug)]
pub struct Conservation {
    scope: Scope,
    idle: BTreeMap<Cpu, Vec<(Nanos, Nanos)>>,
    /// Where tasks have been seen to run, those of more than one CPU.
    ran_on: HashMap<TaskId, Vec<Cpu>>,
    total: Measure,
    waits: u64,
    wait_ns: u64,
    groups: Table<GroupIx, Measure>,
    cpus: BTreeMap<Cpu, u64>,
}

impl Conservation {
    /// When a CPU was idle between two times.
    fn idle_on(&self, cpu: Cpu, from: Nanos, until: Nanos, seen: &Seen<'_>) -> Vec<(Nanos, Nanos)> {
        let past = self.idle.get(&cpu).map_or(&[][..], |past| past);
        let first = past.partition_point(|&(_, end)| end <= from);
        let mut idle: Vec<_> = past[first..]
            .iter()
            .take_while(|&&(begin, _)| begin < until)
            .map(|&(begin, end)| (begin.max(from), end.min(until)))
            .collect();
        if let Some((Occupant::Idle, since)) = seen.cpus.on(cpu)
            && since < until
            // What has not ended may have been told, too.
            && past.last().is_none_or(|&(_, end)| end <= since)
        {
            idle.push((since.max(from), until));
        }
        idle
    }

    /// For how long some CPU was idle between two times on which a task has run before, while its own was not: as long as
    /// that is idle, it is just waking up for it.
    fn idle_elsewhere(&mut self, task: TaskId, own: Cpu, from: Nanos, until: Nanos, seen: &Seen<'_>) -> u64 {
        let Some(places) = self.ran_on.get(&task).filter(|places| places.iter().any(|cpu| *cpu != own)) else {
            return 0;
        };
        // The stretches between those in which its own CPU was idle.
        let mut busy = Vec::new();
        let mut at = from;
        for (begin, end) in self.idle_on(own, from, until, seen) {
            busy.push((at, begin));
            at = end;
        }
        busy.push((at, until));
        let mut all = Vec::new();
        let mut of_cpus = Vec::new();
        for &cpu in places.iter().filter(|cpu| **cpu != own) {
            let parts = busy.iter().filter(|(from, until)| from < until);
            let idle: Vec<_> = parts.flat_map(|&(from, until)| self.idle_on(cpu, from, until, seen)).collect();
            of_cpus.push((cpu, idle.iter().map(|&(begin, end)| (end - begin).0).sum::<u64>()));
            all.extend(idle);
        }
        for (cpu, ns) in of_cpus.into_iter().filter(|(_, ns)| *ns > 0) {
            *self.cpus.entry(cpu).or_default() += ns;
        }
        all.sort_unstable();
        let mut told = from;
        let mut ns = 0;
        for (begin, end) in all {
            ns += (end - begin.max(told)).0;
            told = told.max(end);
        }
        ns
    }
}

impl Observer for Conservation {
    fn ran(&mut self, ran: &Ran, _: &Seen<'_>) {
        if self.ran_on.len() >= MAX_TASKS && !self.ran_on.contains_key(&ran.task.id) {
            return;
        }
        let places = self.ran_on.entry(ran.task.id).or_default();
        let cpu = ran.span.cpu.cpu;
        if let Err(at) = places.binary_search(&cpu) {
            places.insert(at, cpu);
        }
        if ran.left == super::states::Left::Died {
            self.ran_on.remove(&ran.task.id);
        }
    }

    fn idled(&mut self, span: &Span, _: &Seen<'_>) {
        // Somebody may have had the CPU unseen.
        if span.doubtful {
            return;
        }
        let past = self.idle.entry(span.cpu.cpu).or_default();
        if past.len() >= MAX_IDLE {
            past.drain(..MAX_IDLE / 2);
        }
        past.push((span.from, span.until));
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        if wait.doubtful || seen.tasks.left_out(wait.task) || seen.tasks.filtered() || wait.cause == Cause::Throttled {
            return;
        }
        let Some((from, until)) = self.scope.clip(wait.from, wait.until) else { return };
        self.waits += 1;
        self.wait_ns += (until - from).0;
        let mut ns = 0;
        for segment in wait.segments {
            let Some((from, until)) = self.scope.clip(segment.from, segment.until) else { continue };
            ns += self.idle_elsewhere(wait.task.id, segment.cpu.cpu, from, until, seen);
        }
        if ns > 0 {
            self.total.record(from, ns, wait.cpu.cpu, Some(wait.task.id), seen);
            if let Some(group) = self.groups.at(seen.tasks.group_of(wait.task)) {
                group.record(from, ns, wait.cpu.cpu, Some(wait.task.id), seen);
            }
        }
    }
}

impl Question for Conservation {
    type Answer = ConservationReport;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            idle: BTreeMap::new(),
            ran_on: HashMap::new(),
            total: Measure::default(),
            waits: 0,
            wait_ns: 0,
            groups: Table::default(),
            cpus: BTreeMap::new(),
        }
    }

    fn fold(&mut self, gone: &Gone) {
        self.groups.rename(|group| gone.now(group));
    }

    fn answer(&self, _: &About, seen: &Seen<'_>) -> ConservationReport {
        let ranked = self.groups.ranked(Measure::total_ns);
        let row = |&(group, violations): &(GroupIx, &Measure)| ConservationRow {
            group: seen.tasks.group(group),
            violations: violations.report(),
        };
        ConservationReport {
            violations: self.total.report(),
            waits: self.waits,
            wait_ns: self.wait_ns,
            violated_ratio: ratio(self.total.total_ns(), self.wait_ns),
            groups: ranked.iter().take(self.scope.top()).map(row).collect(),
            groups_total: ranked.len(),
            cpus: self.cpus.iter().map(|(&cpu, &idle_ns)| IdleCpuRow { cpu, idle_ns }).collect(),
        }
    }
}
