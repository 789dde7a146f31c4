//! What CPUs do about power: how long they are in which idle state, and how fast they run otherwise.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::{Latencies, Measure};
use super::question::{About, Question};
use super::states::{CpuRef, Observer, Seen};
use super::study::Scope;
use super::tables::{Mean, Table};
use super::timeline::MAX_CPUS;
use crate::event::{Cpu, Event, EventKind, Nanos};

/// So many idle states of one CPU are kept apart; the kernel has at most ten (`CPUIDLE_STATE_MAX`).
const MAX_STATES: usize = 16;
/// So many are, of all CPUs together.
const MAX_ALL_STATES: usize = 64;

/// Idle states and frequencies in the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PowerReport {
    /// Idle states, of all CPUs together, those with most time first.
    pub states: Vec<IdleStateRow>,
    /// How many idle states were entered.
    pub states_total: usize,
    /// Each CPU that was heard of, by number.
    pub cpus: Vec<CpuPowerRow>,
    /// Events whose CPU or idle state has no row: there were too many.
    pub others: u64,
    /// An idle state that was entered without being left, or left without being entered: the time before is not known.
    pub unpaired: u64,
}

/// One idle state, of all CPUs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IdleStateRow {
    /// How it was used.
    #[serde(flatten)]
    pub time: IdleTime,
    /// How long CPUs stayed in it, of those stays that lie in the window as a whole.
    pub residency: Latencies,
}

/// How one idle state was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdleTime {
    /// Its number in `/sys/devices/system/cpu/cpuN/cpuidle`.
    pub state: i32,
    /// How often it was entered in the window.
    pub entries: u64,
    /// How long it lasted in the window, all together.
    pub time_ns: u64,
}

/// One CPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuPowerRow {
    /// Which.
    pub cpu: Cpu,
    /// Its idle states, by number.
    pub states: Vec<IdleTime>,
    /// How long it stayed in any of them, of those stays that lie in the window as a whole.
    pub residency: Latencies,
    /// Time in idle states.
    pub idle_ns: u64,
    /// Time in none.
    pub active_ns: u64,
    /// Time of which nobody knows: before the first `cpu_idle`, and where events are missing. The three make up the
    /// window.
    pub unknown_ns: u64,
    /// Its frequency. None where none was told.
    pub frequency: Option<Frequency>,
}

/// How fast a CPU was set to run, be it idle or not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Frequency {
    /// In the mean over the time in which it is known.
    pub mean_khz: f64,
    /// The lowest.
    pub min_khz: u32,
    /// The highest.
    pub max_khz: u32,
    /// How often it was changed in the window.
    pub changes: u64,
    /// Time before it was told for the first time.
    pub unknown_ns: u64,
}

/// What a CPU does, since when.
#[derive(Clone, Copy, Debug, Default)]
enum Idle {
    #[default]
    Unknown,
    Active(Nanos),
    In(i32, Nanos),
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    entries: u64,
    ns: u64,
}

/// The frequency of a CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    now: Option<(u32, Nanos)>,
    mean: Mean,
    /// The lowest and the highest, as soon as one was in force in the window.
    ends: Option<(u32, u32)>,
    changes: u64,
}

impl Speed {
    fn set(&mut self, khz: u32, at: Nanos, scope: &Scope) {
        self.hold(at, scope);
        let changed = self.now.is_some_and(|(before, _)| before != khz);
        self.changes += u64::from(changed && scope.contains(at));
        self.now = Some((khz, at));
    }

    /// It has been what it is until then.
    fn hold(&mut self, until: Nanos, scope: &Scope) {
        if let Some((khz, since)) = self.now
            && let Some((from, until)) = scope.clip(since, until)
        {
            self.mean.add(khz.into(), (until - from).0);
            let (min, max) = self.ends.unwrap_or((khz, khz));
            self.ends = Some((min.min(khz), max.max(khz)));
        }
    }

    fn report(mut self, about: &About, scope: &Scope) -> Option<Frequency> {
        self.hold(about.window.until_ns, scope);
        let (min_khz, max_khz) = self.ends?;
        Some(Frequency {
            mean_khz: self.mean.mean()?,
            min_khz,
            max_khz,
            changes: self.changes,
            unknown_ns: about.window.duration_ns.0.saturating_sub(self.mean.count()),
        })
    }
}

#[derive(Clone, Debug, Default)]
struct Row {
    idle: Idle,
    states: BTreeMap<i32, Used>,
    residency: Measure,
    active_ns: u64,
    speed: Speed,
}

impl Row {
    /// The state's row; none if there are too many.
    fn state(&mut self, state: i32) -> Option<&mut Used> {
        if self.states.len() >= MAX_STATES && !self.states.contains_key(&state) {
            return None;
        }
        Some(self.states.entry(state).or_default())
    }

    /// It has done until then what it does.
    fn hold(&mut self, until: Nanos, scope: &Scope) {
        match self.idle {
            Idle::Unknown => {}
            Idle::Active(since) => self.active_ns = self.active_ns.saturating_add(length(since, until, scope)),
            Idle::In(state, since) => {
                if let Some(used) = self.state(state) {
                    used.ns = used.ns.saturating_add(length(since, until, scope));
                }
            }
        }
    }

    fn report(&self, cpu: Cpu, about: &About, scope: &Scope) -> CpuPowerRow {
        let states = self.states.iter().filter(|(_, used)| used.entries > 0 || used.ns > 0);
        let states: Vec<IdleTime> =
            states.map(|(&state, used)| IdleTime { state, entries: used.entries, time_ns: used.ns }).collect();
        let idle_ns = states.iter().fold(0, |sum: u64, state| sum.saturating_add(state.time_ns));
        CpuPowerRow {
            cpu,
            residency: self.residency.report(),
            idle_ns,
            active_ns: self.active_ns,
            unknown_ns: about.window.duration_ns.0.saturating_sub(idle_ns).saturating_sub(self.active_ns),
            frequency: self.speed.report(about, scope),
            states,
        }
    }
}

/// How do CPUs rest, and how fast do they run?
#[derive(Clone, Debug)]
pub struct Power {
    scope: Scope,
    cpus: Table<Cpu, Row, MAX_CPUS>,
    residency: Table<i32, Measure, MAX_ALL_STATES>,
    others: u64,
    unpaired: u64,
}

impl Power {
    fn idle(&mut self, cpu: Cpu, state: i32, at: Nanos, seen: &Seen<'_>) {
        let counts = self.scope.contains(at);
        let Some(row) = self.cpus.at(cpu) else { return };
        let next = if state < 0 { Idle::Active(at) } else { Idle::In(state, at) };
        match (row.idle, next) {
            (Idle::In(..), Idle::In(..)) | (Idle::Active(_), Idle::Active(_)) => self.unpaired += u64::from(counts),
            (Idle::In(state, since), _) => {
                row.hold(at, &self.scope);
                if counts && self.scope.contains(since) && since <= at {
                    row.residency.record(since, (at - since).0, cpu, None, seen);
                    if let Some(all) = self.residency.at(state) {
                        all.record(since, (at - since).0, cpu, None, seen);
                    }
                }
            }
            (Idle::Active(_) | Idle::Unknown, _) => row.hold(at, &self.scope),
        }
        row.idle = next;
        if state >= 0 && counts {
            match row.state(state) {
                Some(used) => used.entries += 1,
                None => self.others += 1,
            }
        }
    }

    /// All CPUs, by number, until the end of the window.
    fn cpus(&self, about: &About, seen: &Seen<'_>) -> Vec<CpuPowerRow> {
        let mut rows: BTreeMap<Cpu, CpuPowerRow> = BTreeMap::new();
        for (cpu, row) in self.cpus.iter() {
            let mut row = row.clone();
            row.hold(about.window.until_ns, &self.scope);
            rows.insert(cpu, row.report(cpu, about, &self.scope));
        }
        for cpu in seen.cpus.watched() {
            let cpu = cpu.cpu.cpu;
            rows.entry(cpu).or_insert_with(|| Row::default().report(cpu, about, &self.scope));
        }
        rows.into_values().collect()
    }

    fn states(&self, cpus: &[CpuPowerRow]) -> Vec<IdleStateRow> {
        let mut all: BTreeMap<i32, IdleTime> = BTreeMap::new();
        for time in cpus.iter().flat_map(|cpu| &cpu.states) {
            let sum = all.entry(time.state).or_insert(IdleTime { state: time.state, ..IdleTime::default() });
            sum.entries = sum.entries.saturating_add(time.entries);
            sum.time_ns = sum.time_ns.saturating_add(time.time_ns);
        }
        let residency = |state| self.residency.get(state).map(Measure::report).unwrap_or_default();
        let mut rows: Vec<_> = all.into_values().collect();
        rows.sort_by_key(|time| (std::cmp::Reverse(time.time_ns), time.state));
        rows.into_iter().map(|time| IdleStateRow { time, residency: residency(time.state) }).collect()
    }
}

impl Observer for Power {
    fn happened(&mut self, event: &Event, _: CpuRef, seen: &Seen<'_>) {
        match event.kind {
            EventKind::CpuIdle(idle) => self.idle(idle.target_cpu, idle.state, event.ts, seen),
            EventKind::CpuFrequency(set) => {
                if let Some(row) = self.cpus.at(set.target_cpu) {
                    row.speed.set(set.frequency_khz, event.ts, &self.scope);
                }
            }
            _ => {}
        }
    }
}

impl Question for Power {
    type Answer = PowerReport;

    fn new(scope: &Scope) -> Self {
        Self { scope: *scope, cpus: Table::default(), residency: Table::default(), others: 0, unpaired: 0 }
    }

    fn answer(&self, about: &About, seen: &Seen<'_>) -> PowerReport {
        let cpus = self.cpus(about, seen);
        let mut states = self.states(&cpus);
        let states_total = states.len();
        states.truncate(self.scope.top());
        let others = self.others.saturating_add(self.cpus.others()).saturating_add(self.residency.others());
        PowerReport { states, states_total, cpus, others, unpaired: self.unpaired }
    }
}

fn length(from: Nanos, until: Nanos, scope: &Scope) -> u64 {
    scope.clip(from, until).map_or(0, |(from, until)| (until - from).0)
}

#[cfg(test)]
mod tests {
    use super::super::tables::testing::{asked, at};
    use super::*;
    use crate::event::{CpuFrequency, CpuIdle};

    fn idle(ts: u64, cpu: u16, state: i32) -> Event {
        at(ts, 0, CpuIdle { target_cpu: Cpu(cpu), state })
    }
    fn speed(ts: u64, cpu: u16, frequency_khz: u32) -> Event {
        at(ts, 0, CpuFrequency { target_cpu: Cpu(cpu), frequency_khz })
    }
    fn times(row: &CpuPowerRow) -> (u64, u64, u64) {
        (row.idle_ns, row.active_ns, row.unknown_ns)
    }

    #[test]
    fn idle_states_and_frequencies_are_weighed_by_time() {
        // Unknown 100, state 2 for 200, active 100, state 1 for 50, active 50, state 2 for 300, active 200.
        let events = vec![
            idle(1_100, 3, 2),
            speed(1_200, 3, 1_000),
            idle(1_300, 3, -1),
            idle(1_400, 3, 1),
            speed(1_400, 3, 3_000),
            idle(1_450, 3, -1),
            idle(1_500, 3, 2),
            speed(1_600, 3, 3_000),
            idle(1_800, 3, -1),
        ];
        let report = asked::<Power>(events, vec![]).answer;
        // CPU 0 sent the events, and nothing is known of it.
        assert_eq!((report.cpus.len(), times(&report.cpus[0])), (2, (0, 0, 1_000)));
        let row = &report.cpus[1];
        assert_eq!((row.cpu, times(row)), (Cpu(3), (550, 350, 100)));
        let two = IdleTime { state: 2, entries: 2, time_ns: 500 };
        assert_eq!(row.states, [IdleTime { state: 1, entries: 1, time_ns: 50 }, two]);
        assert_eq!((row.residency.summary.count, row.residency.summary.max_ns), (3, 300));
        assert_eq!((report.states[0].time, report.states[0].residency.summary.min_ns), (two, 200));
        let frequency = row.frequency.unwrap();
        // 200 ns at 1_000 and 600 ns at 3_000.
        assert_eq!((frequency.mean_khz, frequency.min_khz, frequency.max_khz), (2_500.0, 1_000, 3_000));
        assert_eq!((frequency.changes, frequency.unknown_ns), (1, 200));
    }

    #[test]
    fn the_edges_of_the_window_cut() {
        let events = vec![
            speed(500, 3, 1_000),
            idle(900, 3, 2),
            idle(1_100, 3, -1),
            speed(1_500, 3, 2_000),
            idle(1_900, 3, 1),
            idle(2_100, 3, -1),
        ];
        let report = asked::<Power>(events, vec![]).answer;
        let row = &report.cpus[1];
        assert_eq!((times(row), row.residency.summary.count), ((200, 800, 0), 0));
        assert_eq!(row.states.iter().map(|state| state.entries).collect::<Vec<_>>(), [1, 0]);
        let frequency = row.frequency.unwrap();
        assert_eq!((frequency.mean_khz, frequency.changes, frequency.unknown_ns), (1_500.0, 1, 0));
    }

    #[test]
    fn what_is_missing_is_unknown() {
        let events = vec![
            idle(1_000, 3, -1),
            idle(1_100, 3, 1),
            // It was left, at some time.
            idle(1_300, 3, 1),
            idle(1_400, 3, -1),
            idle(1_800, 3, -1),
        ];
        let report = asked::<Power>(events, vec![]).answer;
        assert_eq!((times(&report.cpus[1]), report.unpaired), ((100, 300, 600), 2));
    }

    #[test]
    fn strange_numbers_do_no_harm() {
        let mut events: Vec<_> =
            (0..1_000).flat_map(|n| [idle(1_500, 3, n * 2_000_000), idle(1_501, 3, -n - 1)]).collect();
        events.extend((0..u16::MAX).map(|cpu| speed(1_600, cpu, u32::MAX)));
        // Time goes backwards.
        events.extend([idle(1_700, 4, 1), idle(1_650, 4, i32::MIN), speed(1_100, 4, 0)]);
        let report = asked::<Power>(events, vec![]).answer;
        assert_eq!(report.states_total, MAX_STATES + 1);
        assert_eq!(report.cpus.len(), MAX_CPUS);
        assert!(report.others > 984);
    }
}
