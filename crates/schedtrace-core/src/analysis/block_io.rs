//! Block devices: what was asked of them, how long that took, and who wanted it.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::Serialize;

use super::groups::{Gone, Group, Merge, Rows};
use super::measure::{Latencies, Measure};
use super::question::{About, Counts, Question};
use super::states::{CpuRef, Observer, Seen};
use super::study::Scope;
use super::tables::{Table, named};
use crate::event::{BlockComplete, BlockInsert, BlockIssue, BlockOp, Event, EventKind, Kind, NameId, Nanos};

/// So many requests are followed through the I/O scheduler at once.
const MAX_INSERTED: usize = 1 << 14;
/// So many requests of one device are counted as in flight at once.
const MAX_IN_FLIGHT: usize = 1 << 12;
/// What was issued this long before another request is in flight no more: its completion was lost. The kernel gives a
/// request 30 seconds (`BLK_DEFAULT_SG_TIMEOUT`).
const GIVEN_UP: Nanos = Nanos(60_000_000_000);

/// Requests that block devices completed in the window, also those of the recorder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockIoReport {
    /// All of them.
    pub total: BlockTotals,
    /// By device and operation, those that took longest in all first.
    pub operations: Vec<BlockRow>,
    /// How many devices and operations there were.
    pub operations_total: usize,
    /// Devices, those that had most to do first.
    pub devices: Vec<BlockDeviceRow>,
    /// How many devices there were.
    pub devices_total: usize,
    /// The groups that wanted it done, those whose requests took longest in all first.
    pub groups: Vec<BlockTaskRow>,
    /// How many groups there are with any.
    pub groups_total: usize,
    /// Events whose device or operation has no row: there were too many.
    pub others: u64,
    /// Requests that were given to an I/O scheduler and not issued: merged into others, lost, or too many to follow.
    pub unpaired: u64,
}

/// Requests that were completed. One that is completed in parts counts once for each part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct BlockTotals {
    /// How many.
    pub requests: u64,
    /// How much they moved.
    pub bytes: u64,
    /// Of these requests: they failed.
    pub failed: u64,
    /// How many per second.
    pub requests_per_second: f64,
    /// How much per second.
    pub bytes_per_second: f64,
}

/// One operation of one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockRow {
    /// The disk; empty where its name is not known.
    pub device: String,
    /// The operation; its number where it has no name.
    pub operation: String,
    /// How much of it.
    #[serde(flatten)]
    pub totals: BlockTotals,
    /// From `block_rq_issue` to `block_rq_complete`: in the device.
    pub latency: Latencies,
    /// Requests that were issued before the window: no samples.
    pub censored: u64,
    /// From `block_rq_insert` to `block_rq_issue`: in the I/O scheduler. Only where both were recorded; requests that
    /// pass it by are none.
    pub scheduler: Latencies,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockDeviceRow {
    /// The disk; empty where its name is not known.
    pub device: String,
    /// How many requests it had to do at once, in the mean over the window.
    pub in_flight_mean: f64,
    /// How many at most. None where `block_rq_issue` was not recorded.
    pub in_flight_max: Option<u64>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockTaskRow {
    /// Which.
    pub group: Group,
    /// How many of its requests were completed.
    pub requests: u64,
    /// How much they moved.
    pub bytes: u64,
    /// How long the device had them, all together.
    pub latency_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Done {
    requests: u64,
    bytes: u64,
    failed: u64,
    ns: u64,
}

impl Merge for Done {
    fn merge(&mut self, other: &Self) {
        self.requests.merge(&other.requests);
        self.bytes.merge(&other.bytes);
        self.failed.merge(&other.failed);
        self.ns.merge(&other.ns);
    }
}

impl Done {
    fn report(&self, about: &About) -> BlockTotals {
        BlockTotals {
            requests: self.requests,
            bytes: self.bytes,
            failed: self.failed,
            requests_per_second: about.per_second(self.requests),
            bytes_per_second: about.per_second(self.bytes),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Row {
    done: Done,
    latency: Measure,
    censored: u64,
    scheduler: Measure,
}

/// What a device has to do.
#[derive(Clone, Debug, Default)]
struct Device {
    /// Time of all requests in the window that are completed.
    busy_ns: u64,
    /// When those were issued that are not, and how many at that moment.
    issued: BTreeMap<Nanos, u64>,
    now: u64,
    most: u64,
}

impl Device {
    /// Notes how many there are now, if now is in the window.
    fn note(&mut self, counts: bool) {
        if counts {
            self.most = self.most.max(self.now);
        }
    }

    fn issue(&mut self, at: Nanos) {
        while let Some(first) = self.issued.first_entry() {
            if *first.key() + GIVEN_UP >= at && self.issued.len() < MAX_IN_FLIGHT {
                break;
            }
            if let Some((_, count)) = self.issued.pop_first() {
                self.now = self.now.saturating_sub(count);
            }
        }
        *self.issued.entry(at).or_default() += 1;
        self.now += 1;
    }

    /// The request that was issued then is done: the nearest one, since its time was not taken at the moment of the event.
    fn complete(&mut self, issued: Nanos) {
        let around = [self.issued.range(..=issued).next_back(), self.issued.range(issued..).next()];
        let nearest = around.into_iter().flatten().map(|(&at, _)| at).min_by_key(|at| at.0.abs_diff(issued.0));
        let Some(at) = nearest else { return };
        if let Some(count) = self.issued.get_mut(&at) {
            *count = count.saturating_sub(1);
            self.now = self.now.saturating_sub(1);
            if *count == 0 {
                self.issued.remove(&at);
            }
        }
    }

    /// Time of requests in the window, also of those that are not completed yet.
    fn busy_ns(&self, until: Nanos, scope: &Scope) -> u64 {
        self.issued.iter().fold(self.busy_ns, |sum, (&at, &count)| {
            let ns = scope.clip(at, until).map_or(0, |(from, until)| (until - from).0);
            sum.saturating_add(ns.saturating_mul(count))
        })
    }
}

/// What did block devices do, for whom, and how long did it take?
#[derive(Clone, Debug)]
pub struct BlockIo {
    scope: Scope,
    total: Done,
    rows: Table<(NameId, BlockOp), Row>,
    devices: Table<NameId, Device>,
    groups: Rows<Done>,
    /// Since when requests are in an I/O scheduler, by device and sector.
    inserted: HashMap<(NameId, u64), Nanos>,
    unpaired: u64,
}

impl BlockIo {
    fn insert(&mut self, insert: &BlockInsert, at: Nanos) {
        if self.inserted.len() >= MAX_INSERTED {
            // Most of them were merged into others: the older half goes.
            let mut since: Vec<Nanos> = self.inserted.values().copied().collect();
            let (_, &mut median, _) = since.select_nth_unstable(MAX_INSERTED / 2);
            self.inserted.retain(|_, since| *since > median);
            self.miss(MAX_INSERTED - self.inserted.len(), at);
        }
        if self.inserted.insert((insert.device, insert.sector), at).is_some() {
            self.miss(1, at);
        }
    }

    /// So many were given to a scheduler, and will never be seen again.
    fn miss(&mut self, count: usize, at: Nanos) {
        if self.scope.contains(at) {
            self.unpaired = self.unpaired.saturating_add(count as u64);
        }
    }

    fn issue(&mut self, issue: &BlockIssue, event: &Event, seen: &Seen<'_>) {
        let counts = self.scope.contains(event.ts);
        if let Some(device) = self.devices.at(issue.device) {
            device.note(counts);
            device.issue(event.ts);
            device.note(counts);
        }
        if let Some(since) = self.inserted.remove(&(issue.device, issue.sector))
            && let Some(Counts::Sample(ns)) = self.scope.ended(event.ts, event.ts - since)
            && let Some(row) = self.rows.at((issue.device, issue.operation))
        {
            row.scheduler.record(since, ns, event.cpu, Some(issue.task), seen);
        }
    }

    fn complete(&mut self, done: &BlockComplete, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
        let issued = event.ts - done.latency_ns;
        let counts = self.scope.ended(event.ts, done.latency_ns);
        if let Some(device) = self.devices.at(done.device) {
            device.note(counts.is_some());
            device.complete(issued);
            if let Some((from, until)) = self.scope.clip(issued, event.ts) {
                device.busy_ns.merge(&(until - from).0);
            }
        }
        let Some(counts) = counts else { return };
        let (ns, sample) = match counts {
            Counts::Sample(ns) => (ns, true),
            Counts::Censored(ns) | Counts::InLoss(ns) => (ns, false),
        };
        let failed = u64::from(done.status != 0);
        let one = Done { requests: 1, bytes: done.size_bytes.into(), failed, ns };
        self.total.merge(&one);
        if let Some(row) = self.rows.at((done.device, done.operation)) {
            row.done.merge(&one);
            if sample {
                row.latency.record(issued, ns, event.cpu, Some(done.task), seen);
            } else {
                row.censored += 1;
            }
        }
        if let Some(row) = self.scope.row_of(done.task, cpu, seen) {
            self.groups.at(row).merge(&one);
        }
    }

    fn devices(&self, about: &About, seen: &Seen<'_>) -> (Vec<BlockDeviceRow>, usize) {
        let until = about.window.until_ns;
        let rows = self.devices.ranked(|device| {
            let now = if device.now > 0 && until > about.window.from_ns { device.now } else { 0 };
            (device.busy_ns(until, &self.scope), device.most.max(now))
        });
        let issues = about.has(Kind::BlockIssue);
        let duration = about.window.duration_ns.0;
        let row = |&(id, device): &(NameId, &Device)| BlockDeviceRow {
            device: named(id, seen),
            in_flight_mean: super::cpu_time::ratio(device.busy_ns(until, &self.scope), duration),
            in_flight_max: (issues || device.now > 0).then_some(device.most.max(device.now)),
        };
        (rows.iter().take(self.scope.top()).map(row).collect(), rows.len())
    }
}

impl Observer for BlockIo {
    fn happened(&mut self, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
        match event.kind {
            EventKind::BlockInsert(insert) => self.insert(&insert, event.ts),
            EventKind::BlockIssue(issue) => self.issue(&issue, event, seen),
            EventKind::BlockComplete(done) => self.complete(&done, event, cpu, seen),
            _ => {}
        }
    }
}

impl Question for BlockIo {
    type Answer = BlockIoReport;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            total: Done::default(),
            rows: Table::default(),
            devices: Table::default(),
            groups: Rows::default(),
            inserted: HashMap::new(),
            unpaired: 0,
        }
    }

    fn fold(&mut self, gone: &Gone) {
        self.groups.fold(gone);
    }

    fn answer(&self, about: &About, seen: &Seen<'_>) -> BlockIoReport {
        let top = self.scope.top();
        let rows = self.rows.ranked(|row| (row.done.ns, row.done.requests, row.scheduler.count()));
        let row = |&((device, operation), row): &((NameId, BlockOp), &Row)| BlockRow {
            device: named(device, seen),
            operation: operation.name().map_or_else(|| operation.0.to_string(), str::to_owned),
            totals: row.done.report(about),
            latency: row.latency.report(),
            censored: row.censored,
            scheduler: row.scheduler.report(),
        };
        let groups = self.groups.ranked(|group| group.ns.max(u64::from(group.requests > 0)));
        let group = |&(ix, done): &(_, &Done)| BlockTaskRow {
            group: seen.tasks.group(ix),
            requests: done.requests,
            bytes: done.bytes,
            latency_ns: done.ns,
        };
        let (devices, devices_total) = self.devices(about, seen);
        BlockIoReport {
            total: self.total.report(about),
            operations: rows.iter().take(top).map(row).collect(),
            operations_total: rows.len(),
            devices,
            devices_total,
            groups: groups.iter().take(top).map(group).collect(),
            groups_total: groups.len(),
            others: self.rows.others().max(self.devices.others()),
            unpaired: self.unpaired,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::testing::{asked, at, named};
    use super::*;
    use crate::event::TaskId;

    const READ: BlockOp = BlockOp(0);
    const SDA: NameId = NameId(1);

    fn insert(ts: u64, sector: u64) -> Event {
        at(ts, 0, BlockInsert { task: TaskId(1), device: SDA, sector, size_bytes: 4_096, operation: READ })
    }
    fn issue(ts: u64, sector: u64) -> Event {
        at(ts, 0, BlockIssue { task: TaskId(1), device: SDA, sector, size_bytes: 4_096, operation: READ })
    }
    fn done(ts: u64, task: u32, ns: u64, status: u8) -> Event {
        let (task, latency_ns) = (TaskId(task), Nanos(ns));
        at(ts, 1, BlockComplete { task, device: SDA, size_bytes: 4_096, operation: READ, status, latency_ns })
    }

    #[test]
    fn requests_are_followed_from_the_scheduler_through_the_device() {
        let events =
            vec![insert(1_000, 8), issue(1_050, 8), issue(1_100, 16), done(1_250, 1, 200, 0), done(1_300, 6, 201, 10)];
        let report = asked::<BlockIo>(events, vec![named(1, "sda")]).answer;
        assert_eq!((report.total.requests, report.total.bytes, report.total.failed), (2, 8_192, 1));
        assert_eq!((report.total.requests_per_second, report.total.bytes_per_second), (2e6, 8.192e9));
        let [row] = &report.operations[..] else { panic!("one") };
        assert_eq!((&*row.device, &*row.operation, row.censored), ("sda", "read", 0));
        assert_eq!((row.latency.summary.min_ns, row.latency.summary.max_ns), (200, 201));
        assert_eq!((row.scheduler.summary.count, row.scheduler.summary.max_ns), (1, 50));
        // 401 ns of requests in 1_000 ns.
        let [device] = &report.devices[..] else { panic!("one") };
        assert_eq!((device.in_flight_mean, device.in_flight_max), (0.401, Some(2)));
        let of: Vec<_> = report.groups.iter().map(|row| (row.requests, row.bytes, row.latency_ns)).collect();
        assert_eq!(of, [(1, 4_096, 201), (1, 4_096, 200)]);
        assert_eq!((report.unpaired, report.others), (0, 0));
    }

    #[test]
    fn the_edges_of_the_window_cut() {
        // 900..1_100, 950..990, and 1_800 until after the end.
        let events = vec![issue(900, 8), issue(950, 16), done(990, 1, 40, 0), done(1_100, 1, 200, 0), issue(1_800, 8)];
        let report = asked::<BlockIo>(events, vec![]).answer;
        let [row] = &report.operations[..] else { panic!("one") };
        assert_eq!((row.totals.requests, row.latency.summary.count, row.censored), (1, 0, 1));
        assert_eq!((report.groups[0].latency_ns, &*row.device), (100, "<name 1>"));
        assert_eq!((report.devices[0].in_flight_mean, report.devices[0].in_flight_max), (0.3, Some(1)));
    }

    #[test]
    fn without_issues_nobody_knows_how_many_at_once() {
        let report = asked::<BlockIo>(vec![done(1_500, 9, 100, 0)], vec![]).answer;
        assert_eq!((report.devices[0].in_flight_mean, report.devices[0].in_flight_max), (0.1, None));
        assert_eq!((report.total.requests, report.groups_total), (1, 0), "the recorder has no row");
    }

    #[test]
    fn what_makes_no_sense_does_no_harm() {
        let mut events = vec![done(1_001, 1, u64::MAX, 255)];
        events.extend((0..40_000).map(|n| insert(1_010 + n / 100, n)));
        events.extend((0..10_000).map(|n| issue(1_500 + n / 100, 1_000_000 + n)));
        let strange = |n| BlockComplete {
            task: TaskId(n),
            device: NameId(n),
            size_bytes: u32::MAX,
            operation: BlockOp(200),
            status: 0,
            latency_ns: Nanos(1),
        };
        events.extend((0..5_000).map(|n| at(1_900, 0, strange(n))));
        let report = asked::<BlockIo>(events, vec![]).answer;
        assert!(report.unpaired >= 40_000 - MAX_INSERTED as u64 && report.others > 0);
        assert_eq!(report.total.requests, 5_001);
        assert_eq!(report.devices_total, 4_096);
    }
}
