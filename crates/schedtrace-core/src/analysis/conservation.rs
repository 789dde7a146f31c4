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
use super::states::{Cause, CpuRef, Observer, Occupant, Ran, Seen, Span, Waited};
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
    /// When CPUs were idle, by their places.
    idle: Vec<Vec<Stretch>>,
    /// Where tasks have been seen to run.
    ran_on: HashMap<TaskId, Vec<CpuRef>>,
    total: Measure,
    waits: u64,
    wait_ns: u64,
    groups: Table<GroupIx, Measure>,
    cpus: BTreeMap<Cpu, u64>,
    /// Room for stretches of a wait: in which its own CPU was busy, and in which others were idle.
    busy: Vec<Stretch>,
    elsewhere: Vec<Stretch>,
}

/// From one moment to another.
type Stretch = (Nanos, Nanos);

/// Adds the stretches in which a CPU was idle between two times.
fn idle_on(past: &[Stretch], cpu: CpuRef, (from, until): Stretch, seen: &Seen<'_>, out: &mut Vec<Stretch>) {
    // Most waits are recent.
    let first = past.iter().rposition(|&(_, end)| end <= from).map_or(0, |at| at + 1);
    let between = past[first..].iter().take_while(|&&(begin, _)| begin < until);
    out.extend(between.map(|&(begin, end)| (begin.max(from), end.min(until))));
    // What has not ended may have been told, too.
    if let Some(since) = idle_since(cpu, seen)
        && since < until
        && past.last().is_none_or(|&(_, end)| end <= since)
    {
        out.push((since.max(from), until));
    }
}

/// Since when a CPU is idle now.
fn idle_since(cpu: CpuRef, seen: &Seen<'_>) -> Option<Nanos> {
    let state = seen.cpus.at(cpu);
    (state.on == Occupant::Idle || seen.cpus.silent(state)).then_some(state.since)
}

impl Conservation {
    /// For how long some CPU was idle between two times on which a task has run before, while its own was not: as long as
    /// that is idle, it is just waking up for it.
    fn idle_elsewhere(&mut self, task: TaskId, own: CpuRef, wait: Stretch, seen: &Seen<'_>) -> u64 {
        let Self { idle, ran_on, cpus, busy, elsewhere: all, .. } = self;
        let past = |cpu: CpuRef| idle.get(usize::from(cpu.at)).map_or(&[][..], |past| past);
        let maybe =
            |cpu: CpuRef| idle_since(cpu, seen).is_some() || past(cpu).last().is_some_and(|&(_, end)| end > wait.0);
        let Some(places) = ran_on.get(&task) else { return 0 };
        if !places.iter().any(|&cpu| cpu != own && maybe(cpu)) {
            return 0;
        }
        busy.clear();
        all.clear();
        // The stretches between those in which its own CPU was idle.
        idle_on(past(own), own, wait, seen, all);
        let mut at = wait.0;
        for (begin, end) in all.drain(..) {
            busy.push((at, begin));
            at = end;
        }
        busy.push((at, wait.1));
        busy.retain(|(from, until)| from < until);
        for &cpu in places.iter().filter(|cpu| **cpu != own && maybe(**cpu)) {
            let before = all.len();
            busy.iter().for_each(|&part| idle_on(past(cpu), cpu, part, seen, all));
            let ns: u64 = all[before..].iter().map(|&(begin, end)| (end - begin).0).sum();
            if ns > 0 {
                *cpus.entry(cpu.cpu).or_default() += ns;
            }
        }
        all.sort_unstable();
        let (mut told, mut ns) = (wait.0, 0);
        for &(begin, end) in all.iter() {
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
        if !places.contains(&ran.span.cpu) {
            places.push(ran.span.cpu);
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
        let at = usize::from(span.cpu.at);
        if at >= self.idle.len() {
            self.idle.resize_with(at + 1, Vec::new);
        }
        let past = &mut self.idle[at];
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
            ns += self.idle_elsewhere(wait.task.id, segment.cpu, (from, until), seen);
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
            idle: Vec::new(),
            ran_on: HashMap::new(),
            total: Measure::default(),
            waits: 0,
            wait_ns: 0,
            groups: Table::default(),
            cpus: BTreeMap::new(),
            busy: Vec::new(),
            elsewhere: Vec::new(),
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
