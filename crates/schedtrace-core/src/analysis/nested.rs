//! What interrupts a CPU: each interrupt from its entry to its exit, and how much of that was its own.

use super::states::{CpuRef, Occupant, Seen};
use super::study::Scope;
use super::tables::Table;
use super::timeline::MAX_CPUS;
use crate::event::{Cpu, Event, EventKind, Ipi, NameId, Nanos, Softirq};

/// No kernel nests deeper: a few hard interrupts over one soft one.
const MAX_DEPTH: usize = 16;

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Served {
    Hardirq(u32, NameId),
    Softirq(Softirq),
    Ipi(Ipi),
}

impl Served {
    /// Whether an exit of the one is that of the other. The exit does not name the handler.
    fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Hardirq(irq, _), Self::Hardirq(other, _)) => irq == other,
            _ => self == other,
        }
    }
}

/// One that was served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    pub(crate) served: Served,
    pub(crate) cpu: CpuRef,
    pub(crate) from: Nanos,
    /// Time of its own.
    pub(crate) self_ns: u64,
    /// The part of it in the window.
    pub(super) in_window_ns: u64,
    /// All of it lies in the window.
    pub(super) whole: bool,
    /// Who had the CPU.
    pub(crate) interrupted: Occupant,
    /// Since when nothing has interrupted it.
    since: Nanos,
    /// Something is missing in it.
    doubtful: bool,
}

impl Service {
    /// It was at work until now, without interruption.
    fn work(&mut self, until: Nanos, scope: &Scope) -> Worked {
        let begins = self.since == self.from;
        let worked = Worked { served: self.served, from: self.since, until, begins, ends: false };
        self.self_ns = self.self_ns.saturating_add((until - self.since).0);
        if let Some((from, until)) = scope.clip(self.since, until) {
            self.in_window_ns = self.in_window_ns.saturating_add((until - from).0);
        }
        self.since = until;
        worked
    }
}

/// A part of a service, that nothing interrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worked {
    pub(super) served: Served,
    pub(super) from: Nanos,
    pub(super) until: Nanos,
    /// It begins with the entry.
    pub(super) begins: bool,
    /// It ends with the exit.
    pub(super) ends: bool,
}

/// What each CPU serves, one interrupting the other.
#[derive(Clone, Debug)]
pub(crate) struct Nested {
    scope: Scope,
    /// By number, the innermost last.
    cpus: Table<Cpu, Vec<Service>, MAX_CPUS>,
    /// Entries without an exit, exits without an entry, and services in which such were.
    unpaired: u64,
    /// Those of them that are interrupts from other CPUs.
    unpaired_ipis: u64,
}

/// Whatever time it is.
#[cfg(feature = "sql")]
impl Default for Nested {
    fn default() -> Self {
        Self::new(&Scope::new(&super::Options::default()))
    }
}

impl Nested {
    pub(super) fn new(scope: &Scope) -> Self {
        Self { scope: *scope, cpus: Table::default(), unpaired: 0, unpaired_ipis: 0 }
    }

    pub(super) fn unpaired(&self) -> u64 {
        self.unpaired
    }

    pub(super) fn unpaired_ipis(&self) -> u64 {
        self.unpaired_ipis
    }

    /// What a CPU serves now.
    pub(super) fn serving(&self, cpu: Cpu) -> Option<Served> {
        self.cpus.get(cpu)?.last().map(|service| service.served)
    }

    /// Takes any event; gives the part that is over with it, and the whole.
    pub(crate) fn happened(
        &mut self,
        event: &Event,
        cpu: CpuRef,
        seen: &Seen<'_>,
    ) -> (Option<Worked>, Option<Service>) {
        let entered = match event.kind {
            EventKind::IrqEntry(entry) => self.enter(event, cpu, Served::Hardirq(entry.irq, entry.action), seen),
            EventKind::SoftirqEntry(entry) => self.enter(event, cpu, Served::Softirq(entry.vector), seen),
            EventKind::IpiEntry(entry) => self.enter(event, cpu, Served::Ipi(entry.ipi), seen),
            EventKind::IrqExit(exit) => return self.exit(event, Served::Hardirq(exit.irq, NameId::NONE)),
            EventKind::SoftirqExit(exit) => return self.exit(event, Served::Softirq(exit.vector)),
            EventKind::IpiExit(exit) => return self.exit(event, Served::Ipi(exit.ipi)),
            _ => None,
        };
        (entered, None)
    }

    /// A CPU went from one task to another: no hard interrupt is being served. A soft one may be, in kernels for real
    /// time.
    pub(crate) fn switched(&mut self, cpu: CpuRef, at: Nanos) {
        let Some(stack) = self.cpus.get_mut(cpu.cpu) else { return };
        if let Some(first) = stack.iter().position(|service| !matches!(service.served, Served::Softirq(_))) {
            let stale: Vec<Service> = stack.drain(first..).collect();
            stack.iter_mut().for_each(|below| below.doubtful = true);
            self.miss(stale, at);
        }
    }

    /// What is being served until then, as if it were over.
    pub(super) fn open(&self, until: Nanos) -> Vec<Service> {
        let mut all = Vec::new();
        for (_, stack) in self.cpus.iter() {
            let mut stack = stack.clone();
            if let Some(last) = stack.last_mut() {
                last.work(until, &self.scope);
            }
            let known = stack.into_iter().filter(|service| !service.doubtful);
            all.extend(known.map(|service| Service { whole: false, ..service }));
        }
        all
    }

    fn enter(&mut self, event: &Event, cpu: CpuRef, served: Served, seen: &Seen<'_>) -> Option<Worked> {
        let stack = self.cpus.at(cpu.cpu)?;
        let mut worked = None;
        // Soft interrupts interrupt no other, and nothing interrupts itself: what is still there has ended unseen.
        let keep = match served {
            Served::Softirq(_) => 0,
            _ if stack.len() >= MAX_DEPTH => 0,
            _ => stack.iter().position(|service| service.served.is(served)).unwrap_or(stack.len()),
        };
        let stale: Vec<Service> = stack.drain(keep..).collect();
        if !stale.is_empty() {
            stack.iter_mut().for_each(|below| below.doubtful = true);
        } else if let Some(outer) = stack.last_mut() {
            worked = Some(outer.work(event.ts, &self.scope));
        }
        stack.push(Service {
            served,
            cpu,
            from: event.ts,
            self_ns: 0,
            in_window_ns: 0,
            whole: self.scope.contains(event.ts),
            interrupted: seen.cpus.on(cpu.cpu).map_or(Occupant::Unseen, |(on, _)| on),
            since: event.ts,
            doubtful: false,
        });
        self.miss(stale, event.ts);
        worked
    }

    fn exit(&mut self, event: &Event, served: Served) -> (Option<Worked>, Option<Service>) {
        let Some(stack) = self.cpus.at(event.cpu) else { return (None, None) };
        let Some(at) = stack.iter().rposition(|service| service.served.is(served)) else {
            if let Some(outer) = stack.last_mut() {
                outer.doubtful = true;
            }
            self.count(served, event.ts);
            return (None, None);
        };
        let mut over: Vec<Service> = stack.drain(at..).collect();
        if over.len() == 1
            && let Some(mut service) = over.pop()
        {
            let worked = Worked { ends: true, ..service.work(event.ts, &self.scope) };
            if let Some(outer) = stack.last_mut() {
                outer.since = event.ts;
            }
            if !service.doubtful {
                return (Some(worked), Some(service));
            }
            over.push(service);
        }
        if let Some(outer) = stack.last_mut() {
            (outer.since, outer.doubtful) = (event.ts, true);
        }
        self.miss(over, event.ts);
        (None, None)
    }

    fn miss(&mut self, stale: Vec<Service>, at: Nanos) {
        stale.into_iter().for_each(|service| self.count(service.served, at));
    }

    fn count(&mut self, served: Served, at: Nanos) {
        if self.scope.contains(at) {
            self.unpaired = self.unpaired.saturating_add(1);
            self.unpaired_ipis = self.unpaired_ipis.saturating_add(u64::from(matches!(served, Served::Ipi(_))));
        }
    }
}
