//! Futexes: where threads wait for one another, and who wakes there.

use hashbrown::HashSet;
use serde::Serialize;

use super::groups::Merge;
use super::measure::{Latencies, Measure};
use super::question::{About, Counts, Question};
use super::states::{CpuRef, Observer, Seen};
use super::study::Scope;
use super::tables::{Table, Tally, leaves_out};
use super::tasks::Who;
use crate::event::{Address, Event, EventKind, FutexWait, FutexWake, TaskId};

/// So many waiters of one futex are told apart.
const MAX_WAITERS: usize = 256;
/// So many of those that woke are named.
const WAKERS: usize = 3;
/// `ETIMEDOUT`, `EAGAIN` and `EINTR`.
const TIMED_OUT: i32 = -110;
const AGAIN: i32 = -11;
const INTERRUPTED: i32 = -4;

/// Waits for futexes that ended in the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FutexesReport {
    /// All of them.
    pub total: FutexCounts,
    /// The futexes for which threads waited longest in all, most first.
    pub futexes: Vec<FutexRow>,
    /// For how many futexes any waited.
    pub futexes_total: usize,
    /// Waits and wakes whose futex has no row: there were too many.
    pub others: u64,
    /// Waits and wakes of threads whose process is not known: they have no row.
    pub unidentified: u64,
}

/// How threads waited.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FutexCounts {
    /// Waits until somebody woke.
    pub waits: u64,
    /// How long these took, of those that lie in the window as a whole.
    pub latency: Latencies,
    /// Those that began before the window: no samples.
    pub censored: u64,
    /// Waits that ended because their time was over.
    pub timeouts: u64,
    /// Calls that did not wait: the value was another one already.
    pub value_changed: u64,
    /// Waits that a signal ended.
    pub interrupted: u64,
    /// Calls that failed otherwise.
    pub failed: u64,
}

/// One futex: an address in one process. A futex in memory that processes share has a row for each of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FutexRow {
    /// The process.
    pub pid: u32,
    /// The name of one of its threads: of the first one that was seen here.
    pub comm: String,
    /// The address in its memory.
    pub address: Address,
    /// How threads waited for it.
    #[serde(flatten)]
    pub counts: FutexCounts,
    /// How many different threads; 256 for that and more.
    pub waiters: u64,
    /// Who woke there most often: who had what the others waited for. Only where `futex_wake` was recorded.
    pub wakers: Vec<FutexWaker>,
}

/// One who woke others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FutexWaker {
    /// Who.
    pub task: Who,
    /// In how many calls that woke any.
    pub wakes: u64,
}

#[derive(Clone, Debug, Default)]
struct Waits {
    waits: u64,
    /// Time in the window.
    ns: u64,
    measure: Measure,
    censored: u64,
    timeouts: u64,
    value_changed: u64,
    interrupted: u64,
    failed: u64,
}

impl Waits {
    fn add(&mut self, wait: &FutexWait, counts: Counts, event: &Event, seen: &Seen<'_>) {
        match wait.result {
            TIMED_OUT => return self.timeouts += 1,
            AGAIN => return self.value_changed += 1,
            INTERRUPTED => return self.interrupted += 1,
            i32::MIN..=-1 => return self.failed += 1,
            _ => {}
        }
        self.waits += 1;
        match counts {
            Counts::Sample(ns) => {
                self.ns.merge(&ns);
                self.measure.record(event.ts - wait.duration_ns, ns, event.cpu, Some(wait.task), seen);
            }
            Counts::Censored(ns) | Counts::InLoss(ns) => {
                self.ns.merge(&ns);
                self.censored += 1;
            }
        }
    }

    /// By which futexes are ranked: calls that did not contend come last.
    fn most(&self) -> (u64, u64, u64) {
        let idle = self.timeouts.saturating_add(self.value_changed);
        (self.ns, self.waits, idle.saturating_add(self.interrupted).saturating_add(self.failed))
    }

    fn report(&self) -> FutexCounts {
        FutexCounts {
            waits: self.waits,
            latency: self.measure.report(),
            censored: self.censored,
            timeouts: self.timeouts,
            value_changed: self.value_changed,
            interrupted: self.interrupted,
            failed: self.failed,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Row {
    comm: String,
    waits: Waits,
    waiters: HashSet<TaskId>,
    wakers: Tally<TaskId>,
}

/// Where do threads wait for one another?
#[derive(Clone, Debug)]
pub struct Futexes {
    scope: Scope,
    total: Waits,
    rows: Table<(u32, Address), Row>,
    unidentified: u64,
}

impl Futexes {
    fn row(&mut self, task: TaskId, address: Address, seen: &Seen<'_>) -> Option<&mut Row> {
        let Some(identity) = seen.tasks.get(task) else {
            self.unidentified += 1;
            return None;
        };
        let row = self.rows.at((identity.tgid, address))?;
        if row.comm.is_empty() {
            row.comm = seen.tasks.who(task).comm;
        }
        Some(row)
    }

    fn wait(&mut self, wait: &FutexWait, event: &Event, seen: &Seen<'_>) {
        let Some(counts) = self.scope.ended(event.ts, wait.duration_ns) else { return };
        self.total.add(wait, counts, event, seen);
        if let Some(row) = self.row(wait.task, wait.address, seen) {
            row.waits.add(wait, counts, event, seen);
            if row.waiters.len() < MAX_WAITERS {
                row.waiters.insert(wait.task);
            }
        }
    }

    fn wake(&mut self, wake: &FutexWake, seen: &Seen<'_>) {
        if let Some(row) = self.row(wake.task, wake.address, seen) {
            row.wakers.add(wake.task, 1);
        }
    }
}

impl Observer for Futexes {
    fn happened(&mut self, event: &Event, _: CpuRef, seen: &Seen<'_>) {
        match event.kind {
            EventKind::FutexWait(wait) if !leaves_out(wait.task, seen) => self.wait(&wait, event, seen),
            EventKind::FutexWake(wake)
                if wake.woken > 0 && self.scope.contains(event.ts) && !leaves_out(wake.task, seen) =>
            {
                self.wake(&wake, seen);
            }
            _ => {}
        }
    }
}

impl Question for Futexes {
    type Answer = FutexesReport;

    fn new(scope: &Scope) -> Self {
        Self { scope: *scope, total: Waits::default(), rows: Table::default(), unidentified: 0 }
    }

    fn answer(&self, _: &About, seen: &Seen<'_>) -> FutexesReport {
        let rows = self.rows.ranked(|row| row.waits.most());
        let waker = |(task, wakes)| FutexWaker { task: seen.tasks.who(task), wakes };
        let row = |&((pid, address), row): &((u32, Address), &Row)| FutexRow {
            pid,
            comm: row.comm.clone(),
            address,
            counts: row.waits.report(),
            waiters: row.waiters.len() as u64,
            wakers: row.wakers.top(WAKERS).into_iter().map(waker).collect(),
        };
        FutexesReport {
            total: self.total.report(),
            futexes: rows.iter().take(self.scope.top()).map(row).collect(),
            futexes_total: rows.len(),
            others: self.rows.others(),
            unidentified: self.unidentified,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::testing::{asked, at};
    use super::*;
    use crate::event::Nanos;

    fn wait(ts: u64, task: u32, address: u64, ns: u64, result: i32) -> Event {
        let (task, address) = (TaskId(task), Address(address));
        at(ts, 0, FutexWait { task, address, duration_ns: Nanos(ns), result })
    }
    fn wake(ts: u64, task: u32, address: u64, woken: i32) -> Event {
        at(ts, 1, FutexWake { task: TaskId(task), address: Address(address), woken })
    }

    #[test]
    fn waits_belong_to_an_address_of_a_process() {
        let events = vec![
            wake(1_190, 3, 0x10, 1),
            wait(1_200, 1, 0x10, 100, 0),
            wake(1_290, 3, 0x10, 1),
            wake(1_291, 4, 0x10, 0),
            wait(1_300, 2, 0x10, 50, 0),
            wake(1_310, 4, 0x10, 2),
            wait(1_320, 1, 0x10, 5, 0),
            wait(1_400, 1, 0x10, 300, -110),
            wait(1_500, 1, 0x10, 1, -11),
            wait(1_600, 1, 0x10, 90, -4),
            wait(1_700, 1, 0x10, 1, -22),
            // Another process has another futex at the same address; the recorder has none.
            wait(1_800, 6, 0x10, 10, 0),
            wait(1_800, 9, 0x20, 500, 0),
            wait(1_900, 77, 0x10, 400, 0),
        ];
        let report = asked::<Futexes>(events, vec![]).answer;
        let [first, second] = &report.futexes[..] else { panic!("two") };
        assert_eq!((first.pid, &*first.comm, first.address, first.waiters), (101, "worker", Address(0x10), 2));
        let counts = &first.counts;
        assert_eq!((counts.waits, counts.latency.summary.total_ns, counts.latency.summary.max_ns), (3, 155, 100));
        assert_eq!((counts.timeouts, counts.value_changed, counts.interrupted, counts.failed), (1, 1, 1, 1));
        let wakers: Vec<_> = first.wakers.iter().map(|waker| (waker.task.tid, waker.wakes)).collect();
        assert_eq!(wakers, [(103, 2), (104, 1)]);
        assert_eq!((second.pid, second.counts.waits, second.wakers.len()), (106, 1, 0));
        assert_eq!((report.total.waits, report.unidentified, report.others), (5, 1, 0));
    }

    #[test]
    fn the_edges_of_the_window_cut() {
        let events = vec![
            wake(999, 3, 0x10, 1),
            wait(999, 1, 0x10, 5, 0),
            wait(1_010, 1, 0x10, 100, 0),
            wait(1_020, 1, 0x10, 20, 0),
            wait(2_000, 1, 0x10, 5, 0),
        ];
        let report = asked::<Futexes>(events, vec![]).answer;
        let counts = &report.futexes[0].counts;
        assert_eq!((counts.waits, counts.censored, counts.latency.summary.total_ns), (2, 1, 20));
        assert!(report.futexes[0].wakers.is_empty());
    }

    #[test]
    fn strange_numbers_and_too_many_addresses_do_no_harm() {
        let mut events = vec![wait(1_001, 1, u64::MAX, u64::MAX, i32::MIN), wait(1_001, 1, 0, u64::MAX, i32::MAX)];
        events.extend((0..10_000).map(|n| wait(1_500, 1, n, 1, 0)));
        events.extend((0..10_000).map(|n| wake(1_600, 1, n, 1)));
        let report = asked::<Futexes>(events, vec![]).answer;
        assert_eq!((report.futexes_total, report.total.failed), (4_096, 1));
        assert_eq!(report.others, 2 * (10_001 - 4_096));
        assert_eq!(report.total.waits, 10_001);
    }
}
