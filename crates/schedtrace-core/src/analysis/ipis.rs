//! Interrupts between CPUs: who sends them where, and what serving them takes.

use serde::Serialize;

use super::groups::{Gone, Group, Merge, Rows};
use super::interrupts::ipi_name;
use super::measure::{Latencies, Measure};
use super::nested::{Nested, Served, Service};
use super::question::{About, Question};
use super::states::{CpuRef, Observer, Occupant, Seen, Switched};
use super::study::Scope;
use super::tables::{Table, named};
use crate::event::{Cpu, Event, EventKind, Ipi, IpiSend, NameId};

/// So many pairs of CPUs are kept apart, by function.
const MAX_PAIRS: usize = 1 << 16;

/// Interrupts between CPUs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IpisReport {
    /// Those that were sent.
    pub sent: IpiCounts,
    /// What they were sent for, the most frequent first.
    pub callbacks: Vec<IpiSent>,
    /// For how many functions any were sent.
    pub callbacks_total: usize,
    /// From which CPU to which, the most frequent first.
    pub pairs: Vec<IpiPairRow>,
    /// How many pairs there are with any.
    pub pairs_total: usize,
    /// Sends whose function or pair has no row: there were too many.
    pub others: u64,
    /// The groups whose tasks were current where most were sent, most first: they sent them, or were interrupted by who
    /// did.
    pub senders: Vec<IpiSender>,
    /// How many groups there are with any.
    pub senders_total: usize,
    /// Sent from idle CPUs.
    pub from_idle: u64,
    /// Sent where a task had the CPU that is left out, or nobody knows who.
    pub from_unknown: u64,
    /// What serving them took, most first. Where the architecture tells (x86).
    pub handled: Vec<IpiHandled>,
    /// Entries without an exit, exits without an entry, and those in which such were: no samples, and no time.
    pub unpaired: u64,
}

/// How many interrupts were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct IpiCounts {
    /// How often.
    pub count: u64,
    /// To how many CPUs, all together.
    pub targets: u64,
    /// How often per second.
    pub rate_per_second: f64,
}

/// What interrupts were sent for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IpiSent {
    /// The function that the other CPUs were to run; `reschedule` where they were only to reschedule.
    pub callback: String,
    /// How many.
    #[serde(flatten)]
    pub counts: IpiCounts,
}

/// From which CPU to which.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IpiPairRow {
    /// The function that the other CPUs were to run; `reschedule` where they were only to reschedule.
    pub callback: String,
    /// Who sent it.
    pub from: Cpu,
    /// Who got it; the first, where there were several.
    pub to: Cpu,
    /// How many.
    #[serde(flatten)]
    pub counts: IpiCounts,
}

/// One group whose tasks were current.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IpiSender {
    /// Which.
    pub group: Group,
    /// How many.
    #[serde(flatten)]
    pub counts: IpiCounts,
}

/// What serving interrupts took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IpiHandled {
    /// What they were for.
    pub ipi: String,
    /// How many were served, in whole or in part in the window.
    pub count: u64,
    /// Their time, clipped to the window.
    pub time_ns: u64,
    /// How long they took, of those that lie in the window as a whole.
    pub latency: Latencies,
    /// Those that an edge of the window cuts off: no samples.
    pub censored: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    count: u64,
    targets: u64,
}

impl Merge for Sent {
    fn merge(&mut self, other: &Self) {
        self.count.merge(&other.count);
        self.targets.merge(&other.targets);
    }
}

impl Sent {
    fn report(&self, about: &About) -> IpiCounts {
        IpiCounts { count: self.count, targets: self.targets, rate_per_second: about.per_second(self.count) }
    }
}

#[derive(Clone, Debug, Default)]
struct Handled {
    count: u64,
    time_ns: u64,
    own: Measure,
    censored: u64,
}

/// Who interrupts whom?
#[derive(Clone, Debug)]
pub struct Ipis {
    scope: Scope,
    total: Sent,
    callbacks: Table<NameId, Sent>,
    pairs: Table<(NameId, Cpu, Cpu), Sent, MAX_PAIRS>,
    others: u64,
    senders: Rows<Sent>,
    from_idle: u64,
    from_unknown: u64,
    nested: Nested,
    handled: Table<Ipi, Handled>,
}

impl Ipis {
    fn send(&mut self, send: &IpiSend, cpu: CpuRef, seen: &Seen<'_>) {
        let sent = Sent { count: 1, targets: send.targets.into() };
        self.total.merge(&sent);
        let callback = self.callbacks.at(send.callback).map(|row| row.merge(&sent));
        let pair = self.pairs.at((send.callback, cpu.cpu, send.target_cpu)).map(|row| row.merge(&sent));
        self.others += u64::from(callback.is_none() || pair.is_none());
        match seen.cpus.on(cpu.cpu) {
            Some((Occupant::Idle, _)) => self.from_idle += 1,
            Some((Occupant::Task(task), _)) => match self.scope.row(task, cpu, seen) {
                Some(row) => self.senders.at(row).merge(&sent),
                None => self.from_unknown += 1,
            },
            Some((Occupant::Unseen, _)) | None => self.from_unknown += 1,
        }
    }

    fn add(&mut self, service: &Service, seen: &Seen<'_>) {
        let Served::Ipi(ipi) = service.served else { return };
        if (service.whole || service.in_window_ns > 0)
            && let Some(row) = self.handled.at(ipi)
        {
            row.count += 1;
            row.time_ns.merge(&service.in_window_ns);
            if service.whole {
                row.own.record(service.from, service.self_ns, service.cpu.cpu, None, seen);
            } else {
                row.censored += 1;
            }
        }
    }

    fn handled(&self) -> Vec<IpiHandled> {
        let row = |&(ipi, row): &(Ipi, &Handled)| IpiHandled {
            ipi: ipi_name(ipi),
            count: row.count,
            time_ns: row.time_ns,
            latency: row.own.report(),
            censored: row.censored,
        };
        let rows = self.handled.ranked(|row| (row.time_ns, row.count));
        rows.iter().take(self.scope.top()).map(row).collect()
    }
}

impl Observer for Ipis {
    fn happened(&mut self, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
        if let EventKind::IpiSend(send) = event.kind
            && self.scope.contains(event.ts)
        {
            self.send(&send, cpu, seen);
        }
        if let Some(service) = self.nested.happened(event, cpu, seen).1 {
            self.add(&service, seen);
        }
    }

    fn switched(&mut self, switched: &Switched, _: &Seen<'_>) {
        self.nested.switched(switched.cpu, switched.at);
    }
}

impl Question for Ipis {
    type Answer = IpisReport;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            total: Sent::default(),
            callbacks: Table::default(),
            pairs: Table::default(),
            others: 0,
            senders: Rows::default(),
            from_idle: 0,
            from_unknown: 0,
            nested: Nested::new(scope),
            handled: Table::default(),
        }
    }

    fn fold(&mut self, gone: &Gone) {
        self.senders.fold(gone);
    }

    fn answer(&self, about: &About, seen: &Seen<'_>) -> IpisReport {
        let mut all = self.clone();
        for service in self.nested.open(about.window.until_ns) {
            all.add(&service, seen);
        }
        let top = self.scope.top();
        let text = |id| if id == NameId::NONE { "reschedule".to_owned() } else { named(id, seen) };
        let callbacks = all.callbacks.ranked(|row| row.count);
        let callback = |&(id, row): &(NameId, &Sent)| IpiSent { callback: text(id), counts: row.report(about) };
        let pairs = all.pairs.ranked(|row| row.count);
        let pair = |&((id, from, to), row): &(_, &Sent)| IpiPairRow {
            callback: text(id),
            from,
            to,
            counts: row.report(about),
        };
        let senders = all.senders.ranked(|row| row.count);
        let sender = |&(ix, row): &(_, &Sent)| IpiSender { group: seen.tasks.group(ix), counts: row.report(about) };
        IpisReport {
            sent: all.total.report(about),
            callbacks: callbacks.iter().take(top).map(callback).collect(),
            callbacks_total: callbacks.len(),
            pairs: pairs.iter().take(top).map(pair).collect(),
            pairs_total: pairs.len(),
            others: all.others,
            senders: senders.iter().take(top).map(sender).collect(),
            senders_total: senders.len(),
            from_idle: all.from_idle,
            from_unknown: all.from_unknown,
            handled: all.handled(),
            unpaired: all.nested.unpaired_ipis(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::testing::{asked, at, named, sleeping};
    use super::*;
    use crate::event::{IpiEntry, IpiExit};

    fn send(ts: u64, cpu: u16, callback: u32, target: u16, targets: u32) -> Event {
        at(ts, cpu, IpiSend { callback: NameId(callback), target_cpu: Cpu(target), targets })
    }

    #[test]
    fn sends_are_told_by_function_and_by_cpu() {
        let events = vec![
            send(999, 0, 1, 1, 1),
            sleeping(1_000, 0, u32::MAX, 5),
            send(1_000, 0, 1, 1, 3),
            send(1_100, 0, 1, 2, 1),
            send(1_200, 0, 0, 1, 1),
            sleeping(1_300, 0, 5, 9),
            // The recorder's task has no row.
            send(1_400, 0, 0, 1, 1),
            sleeping(1_500, 0, 9, u32::MAX),
            send(1_600, 0, 0, 1, 1),
            send(1_700, 8_000, 0, 1, 1),
            send(2_000, 0, 1, 1, 1),
        ];
        let report = asked::<Ipis>(events, vec![named(1, "do_flush_tlb")]).answer;
        assert_eq!((report.sent.count, report.sent.targets, report.sent.rate_per_second), (6, 8, 6e6));
        let [reschedule, flush] = &report.callbacks[..] else { panic!("two") };
        assert_eq!((&*reschedule.callback, reschedule.counts.count), ("reschedule", 4));
        assert_eq!((&*flush.callback, flush.counts.count, flush.counts.targets), ("do_flush_tlb", 2, 4));
        assert_eq!((report.pairs_total, report.pairs[0].from, report.pairs[0].counts.count), (4, Cpu(0), 3));
        assert_eq!((report.senders.len(), report.senders[0].counts.targets), (1, 5));
        assert_eq!((report.from_idle, report.from_unknown, report.others), (1, 2, 0));
    }

    #[test]
    fn serving_takes_time_in_the_window() {
        let (entry, exit) =
            (|ts, ipi| at(ts, 1, IpiEntry { ipi: Ipi(ipi) }), |ts, ipi| at(ts, 1, IpiExit { ipi: Ipi(ipi) }));
        let events = vec![
            entry(980, 2),
            exit(1_020, 2),
            entry(1_100, 2),
            exit(1_130, 2),
            exit(1_200, 0),
            entry(1_300, 0),
            exit(1_310, 0),
            entry(1_990, 200),
        ];
        let report = asked::<Ipis>(events, vec![]).answer;
        let [call, reschedule, unknown] = &report.handled[..] else { panic!("three") };
        assert_eq!((&*call.ipi, call.count, call.time_ns, call.censored), ("call_function_single", 2, 50, 1));
        assert_eq!((call.latency.summary.count, call.latency.summary.max_ns), (1, 30));
        assert_eq!((&*unknown.ipi, unknown.time_ns, unknown.censored), ("200", 10, 1));
        assert_eq!((&*reschedule.ipi, reschedule.time_ns, report.unpaired), ("reschedule", 10, 1));
    }

    #[test]
    fn there_is_an_end_to_functions() {
        let events = (1..=10_000).map(|n| send(1_500, 0, n, 1, 1)).collect();
        let report = asked::<Ipis>(events, vec![]).answer;
        assert_eq!((report.callbacks_total, report.others, report.sent.count), (4_096, 10_000 - 4_096, 10_000));
    }
}
