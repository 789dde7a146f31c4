//! Interrupts: what the CPUs did for them, and whose time that was.

use serde::Serialize;

use super::cpu_time::ratio;
use super::groups::{Gone, Group, Merge, Rows};
use super::measure::{Latencies, Measure};
use super::nested::{Nested, Served, Service};
use super::question::{About, Counts, Question};
use super::states::{CpuRef, Observer, Occupant, Seen, Switched};
use super::study::Scope;
use super::tables::{Table, named};
use super::timeline::MAX_CPUS;
use crate::event::{Cpu, Event, EventKind, Ipi, Nanos, Softirq};

/// Interrupts that were served, of three sorts: of devices, of software, and from other CPUs.
///
/// Each has its own time only: what interrupted it meanwhile is counted there. Times are clipped to the window. Soft
/// interrupts that `ksoftirqd` serves count too, and take the time of that thread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterruptsReport {
    /// All of them.
    pub total: InterruptTimes,
    /// What took most time, most first.
    pub sources: Vec<InterruptRow>,
    /// How many sources there were.
    pub sources_total: usize,
    /// Services whose source has no row: there were too many.
    pub others: u64,
    /// Each CPU that served any, by number.
    pub cpus: Vec<InterruptCpuRow>,
    /// Whom they interrupted: the groups that lost most time, most first.
    pub interrupted: Vec<Interrupted>,
    /// How many groups lost any.
    pub interrupted_total: usize,
    /// Time of theirs in which nothing else wanted the CPU.
    pub idle_ns: u64,
    /// Time that they took from tasks that are left out, or from nobody knows whom.
    pub unknown_ns: u64,
    /// How long software interrupts waited to be served. Only where `softirq_raise` was recorded.
    pub raised: Vec<SoftirqDelay>,
    /// Entries without an exit, exits without an entry, and those in which such were: no samples, and no time. An
    /// interrupt that was being served when the recording began leaves one.
    pub unpaired: u64,
}

/// Time in interrupts, by sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterruptTimes {
    /// In the handlers of devices.
    pub hardirq_ns: u64,
    /// In software interrupts.
    pub softirq_ns: u64,
    /// In interrupts from other CPUs.
    pub ipi_ns: u64,
}

/// Where interrupts came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum InterruptSource {
    /// A device.
    Hardirq {
        /// The number of the interrupt.
        irq: u32,
        /// Who handles it, as in /proc/interrupts; empty where that is not known.
        action: String,
    },
    /// Software: the kernel's own later work.
    Softirq {
        /// Which; its number where a later kernel has others.
        vector: String,
    },
    /// Another CPU.
    Ipi {
        /// What for; its number where a later kernel has others.
        ipi: String,
    },
}

/// One source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterruptRow {
    /// Which.
    pub source: InterruptSource,
    /// How many were served, in whole or in part in the window.
    pub count: u64,
    /// Their time.
    pub time_ns: u64,
    /// The same as a share of the time of one CPU.
    pub share_ratio: f64,
    /// How long they took, of those that lie in the window as a whole.
    pub latency: Latencies,
    /// Those that an edge of the window cuts off: no samples.
    pub censored: u64,
}

/// One CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InterruptCpuRow {
    /// Which.
    pub cpu: Cpu,
    /// What it spent on interrupts.
    #[serde(flatten)]
    pub times: InterruptTimes,
}

/// One group whose tasks were interrupted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interrupted {
    /// Which.
    pub group: Group,
    /// How often.
    pub count: u64,
    /// How much time they lost.
    pub stolen_ns: u64,
}

/// One software interrupt's way from being asked for to being served.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SoftirqDelay {
    /// Which.
    pub vector: String,
    /// From the first `softirq_raise` after it was last served, to the next service on that CPU.
    pub delay: Latencies,
    /// Those that began before the window: no samples.
    pub censored: u64,
}

#[derive(Clone, Debug, Default)]
struct Source {
    count: u64,
    time_ns: u64,
    own: Measure,
    censored: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stolen {
    count: u64,
    ns: u64,
}

impl Merge for Stolen {
    fn merge(&mut self, other: &Self) {
        self.count.merge(&other.count);
        self.ns.merge(&other.ns);
    }
}

impl Merge for InterruptTimes {
    fn merge(&mut self, other: &Self) {
        self.hardirq_ns.merge(&other.hardirq_ns);
        self.softirq_ns.merge(&other.softirq_ns);
        self.ipi_ns.merge(&other.ipi_ns);
    }
}

/// How many vectors there are that have names: of others, what waits is not followed.
const VECTORS: usize = Softirq::NAMES.len();

/// What did interrupts take, and from whom?
#[derive(Clone, Debug)]
pub struct Interrupts {
    scope: Scope,
    nested: Nested,
    sources: Table<Served, Source>,
    cpus: Table<Cpu, InterruptTimes, MAX_CPUS>,
    stolen: Rows<Stolen>,
    idle_ns: u64,
    unknown_ns: u64,
    /// Since when each vector is asked for.
    raised: Table<Cpu, [Option<Nanos>; VECTORS], MAX_CPUS>,
    delays: [(Measure, u64); VECTORS],
}

impl Interrupts {
    fn add(&mut self, service: &Service, seen: &Seen<'_>) {
        let ns = service.in_window_ns;
        if ns == 0 && !service.whole {
            return;
        }
        if let Some(source) = self.sources.at(service.served) {
            source.count += 1;
            source.time_ns.merge(&ns);
            if service.whole {
                source.own.record(service.from, service.self_ns, service.cpu.cpu, task(service.interrupted), seen);
            } else {
                source.censored += 1;
            }
        }
        if let Some(cpu) = self.cpus.at(service.cpu.cpu) {
            let mut times = InterruptTimes::default();
            match service.served {
                Served::Hardirq(..) => times.hardirq_ns = ns,
                Served::Softirq(_) => times.softirq_ns = ns,
                Served::Ipi(_) => times.ipi_ns = ns,
            }
            cpu.merge(&times);
        }
        match service.interrupted {
            Occupant::Idle => self.idle_ns.merge(&ns),
            Occupant::Unseen => self.unknown_ns.merge(&ns),
            Occupant::Task(task) => match self.scope.row(task, service.cpu, seen) {
                Some(row) => self.stolen.at(row).merge(&Stolen { count: 1, ns }),
                None => self.unknown_ns.merge(&ns),
            },
        }
    }

    fn raise(&mut self, event: &Event, vector: Softirq) {
        if let Some(cpu) = self.raised.at(event.cpu)
            && let Some(since @ None) = cpu.get_mut(usize::from(vector.0))
        {
            *since = Some(event.ts);
        }
    }

    fn serve(&mut self, event: &Event, vector: Softirq, seen: &Seen<'_>) {
        let at = usize::from(vector.0);
        let since = self.raised.get_mut(event.cpu).and_then(|cpu| cpu.get_mut(at)).and_then(Option::take);
        if let Some(since) = since
            && let Some((delay, censored)) = self.delays.get_mut(at)
        {
            match self.scope.ended(event.ts, event.ts - since) {
                Some(Counts::Sample(ns)) => delay.record(since, ns, event.cpu, None, seen),
                Some(_) => *censored += 1,
                None => {}
            }
        }
    }

    fn sources(&self, about: &About, seen: &Seen<'_>) -> (Vec<InterruptRow>, usize) {
        let rows = self.sources.ranked(|source| (source.time_ns, source.count));
        let row = |&(served, source): &(Served, &Source)| InterruptRow {
            source: name(served, seen),
            count: source.count,
            time_ns: source.time_ns,
            share_ratio: ratio(source.time_ns, about.window.duration_ns.0),
            latency: source.own.report(),
            censored: source.censored,
        };
        (rows.iter().take(self.scope.top()).map(row).collect(), rows.len())
    }

    fn delays(&self) -> Vec<SoftirqDelay> {
        let named = self.delays.iter().zip(Softirq::NAMES);
        let mut rows: Vec<SoftirqDelay> = named
            .filter(|((delay, censored), _)| delay.count() > 0 || *censored > 0)
            .map(|((delay, censored), vector)| SoftirqDelay {
                vector: (*vector).to_owned(),
                delay: delay.report(),
                censored: *censored,
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.delay.summary.total_ns));
        rows.truncate(self.scope.top());
        rows
    }
}

impl Observer for Interrupts {
    fn happened(&mut self, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
        match event.kind {
            EventKind::SoftirqRaise(raise) => self.raise(event, raise.vector),
            EventKind::SoftirqEntry(entry) => self.serve(event, entry.vector, seen),
            _ => {}
        }
        if let Some(service) = self.nested.happened(event, cpu, seen).1 {
            self.add(&service, seen);
        }
    }

    fn switched(&mut self, switched: &Switched, _: &Seen<'_>) {
        self.nested.switched(switched.cpu, switched.at);
    }
}

impl Question for Interrupts {
    type Answer = InterruptsReport;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            nested: Nested::new(scope),
            sources: Table::default(),
            cpus: Table::default(),
            stolen: Rows::default(),
            idle_ns: 0,
            unknown_ns: 0,
            raised: Table::default(),
            delays: Default::default(),
        }
    }

    fn fold(&mut self, gone: &Gone) {
        self.stolen.fold(gone);
    }

    fn answer(&self, about: &About, seen: &Seen<'_>) -> InterruptsReport {
        let mut all = self.clone();
        for service in self.nested.open(about.window.until_ns) {
            all.add(&service, seen);
        }
        let mut total = InterruptTimes::default();
        let mut cpus: Vec<_> = all.cpus.iter().map(|(cpu, &times)| InterruptCpuRow { cpu, times }).collect();
        cpus.sort_unstable_by_key(|row| row.cpu);
        cpus.iter().for_each(|row| total.merge(&row.times));
        let (sources, sources_total) = all.sources(about, seen);
        let stolen = all.stolen.ranked(|row| row.ns);
        let row = |&(ix, row): &(_, &Stolen)| Interrupted {
            group: seen.tasks.group(ix),
            count: row.count,
            stolen_ns: row.ns,
        };
        InterruptsReport {
            total,
            sources,
            sources_total,
            others: all.sources.others(),
            cpus,
            interrupted: stolen.iter().take(self.scope.top()).map(row).collect(),
            interrupted_total: stolen.len(),
            idle_ns: all.idle_ns,
            unknown_ns: all.unknown_ns,
            raised: all.delays(),
            unpaired: all.nested.unpaired(),
        }
    }
}

fn task(occupant: Occupant) -> Option<crate::event::TaskId> {
    match occupant {
        Occupant::Task(task) => Some(task.id),
        Occupant::Idle | Occupant::Unseen => None,
    }
}

fn name(served: Served, seen: &Seen<'_>) -> InterruptSource {
    match served {
        Served::Hardirq(irq, action) => InterruptSource::Hardirq { irq, action: named(action, seen) },
        Served::Softirq(vector) => {
            InterruptSource::Softirq { vector: vector.name().map_or_else(|| vector.0.to_string(), str::to_owned) }
        }
        Served::Ipi(ipi) => InterruptSource::Ipi { ipi: ipi_name(ipi) },
    }
}

/// What an interrupt from another CPU is for; its number where a later kernel has others.
pub(super) fn ipi_name(ipi: Ipi) -> String {
    ipi.name().map_or_else(|| ipi.0.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::tables::testing::{asked, at, named as name, sleeping};
    use super::*;
    use crate::event::{IpiEntry, IpiExit, IrqEntry, IrqExit, NameId, SoftirqEntry, SoftirqExit, SoftirqRaise};

    fn irq(ts: u64, irq: u32) -> Event {
        at(ts, 0, IrqEntry { irq, action: NameId(1) })
    }
    fn irq_done(ts: u64, irq: u32) -> Event {
        at(ts, 0, IrqExit { irq, handled: true })
    }
    fn soft(ts: u64, vector: u8) -> Event {
        at(ts, 0, SoftirqEntry { vector: Softirq(vector) })
    }
    fn soft_done(ts: u64, vector: u8) -> Event {
        at(ts, 0, SoftirqExit { vector: Softirq(vector) })
    }
    fn times(report: &InterruptsReport) -> (u64, u64, u64) {
        (report.total.hardirq_ns, report.total.softirq_ns, report.total.ipi_ns)
    }

    #[test]
    fn each_has_its_own_time_and_somebody_lost_it() {
        // Task 5 has CPU 0 in 1_100..1_500. A softirq in 1_200..1_300, in it the disk in 1_210..1_240, in that an IPI.
        let ipi = Ipi(0);
        let events = vec![
            sleeping(1_100, 0, u32::MAX, 5),
            soft(1_200, 3),
            irq(1_210, 24),
            at(1_220, 0, IpiEntry { ipi }),
            at(1_230, 0, IpiExit { ipi }),
            irq_done(1_240, 24),
            soft_done(1_300, 3),
            sleeping(1_500, 0, 5, u32::MAX),
            irq(1_600, 24),
            irq_done(1_605, 24),
        ];
        let report = asked::<Interrupts>(events, vec![name(1, "virtio0")]).answer;
        assert_eq!(times(&report), (25, 70, 10));
        assert_eq!((report.idle_ns, report.unknown_ns, report.unpaired), (5, 0, 0));
        assert_eq!(
            (report.interrupted.len(), report.interrupted[0].stolen_ns, report.interrupted[0].count),
            (1, 100, 3)
        );
        assert_eq!(report.sources_total, 3);
        let [first, second, _] = &report.sources[..] else { panic!("three") };
        assert_eq!(first.source, InterruptSource::Softirq { vector: "NET_RX".into() });
        assert_eq!((first.latency.summary.max_ns, first.share_ratio), (70, 0.07));
        assert_eq!(second.source, InterruptSource::Hardirq { irq: 24, action: "virtio0".into() });
        assert_eq!((second.count, second.latency.summary.min_ns, second.latency.summary.max_ns), (2, 5, 20));
        assert_eq!(report.cpus.len(), 1);
    }

    #[test]
    fn the_edges_of_the_window_cut() {
        // 990..1_010, and 1_995 until after the end.
        let events = vec![soft(990, 1), soft_done(1_010, 1), irq(1_995, 7)];
        let report = asked::<Interrupts>(events, vec![]).answer;
        assert_eq!(times(&report), (5, 10, 0));
        assert!(report.sources.iter().all(|row| (row.count, row.censored, row.latency.summary.count) == (1, 1, 0)));
        assert_eq!(report.sources[1].source, InterruptSource::Hardirq { irq: 7, action: "<name 1>".into() });
    }

    #[test]
    fn what_lacks_its_other_half_is_no_sample() {
        let events = vec![
            irq_done(1_010, 7),
            soft(1_100, 1),
            // The exit of 7 is lost, and with it how much of the softirq's time was its own.
            irq(1_110, 7),
            soft_done(1_200, 1),
            soft(1_300, 1),
            // Its exit is lost: the next one shows.
            soft(1_400, 2),
            soft_done(1_410, 2),
            // A switch in a hard interrupt shows that it had ended.
            irq(1_500, 7),
            sleeping(1_600, 0, u32::MAX, 5),
            irq_done(1_700, 7),
        ];
        let report = asked::<Interrupts>(events, vec![]).answer;
        assert_eq!(times(&report), (0, 10, 0));
        assert_eq!((report.sources_total, report.unpaired), (1, 6));
    }

    #[test]
    fn a_stream_of_entries_ends_nowhere() {
        let events = (0..100_000).map(|n| irq(1_001 + n / 200, n as u32)).collect();
        let report = asked::<Interrupts>(events, vec![]).answer;
        assert!(report.unpaired >= 99_000);
        let events = (0..20_000).flat_map(|n| [irq(1_500, n), irq_done(1_501, n)]).collect();
        let report = asked::<Interrupts>(events, vec![]).answer;
        assert_eq!((report.sources_total, report.others, report.unpaired), (4_096, 20_000 - 4_096, 0));
    }

    #[test]
    fn the_first_raise_counts() {
        let raise = |ts, vector| at(ts, 0, SoftirqRaise { vector: Softirq(vector) });
        let events = vec![
            raise(1_100, 3),
            raise(1_150, 3),
            raise(1_150, 200),
            soft(1_200, 3),
            soft_done(1_210, 3),
            soft(1_300, 3),
            soft_done(1_310, 3),
            raise(1_320, 3),
            soft(1_340, 3),
            soft_done(1_350, 3),
        ];
        let report = asked::<Interrupts>(events, vec![]).answer;
        let [delay] = &report.raised[..] else { panic!("one vector") };
        assert_eq!((&*delay.vector, delay.delay.summary.count, delay.delay.summary.max_ns), ("NET_RX", 2, 100));
        assert_eq!((delay.delay.summary.min_ns, delay.censored), (20, 0));
    }
}
