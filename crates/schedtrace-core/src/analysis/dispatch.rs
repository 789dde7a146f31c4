//! Dispatch queues of sched_ext: what schedulers put there, and how long it stayed.

use serde::Serialize;

use super::measure::{Latencies, Measure};
use super::question::{About, Counts, Question};
use super::states::{CpuRef, Observer, Seen};
use super::study::Scope;
use super::tables::{Mean, Table, leaves_out};
use crate::event::{Address, Event, EventKind, ScxDispatch, ScxInsert};

/// The kernel's own queues have this bit (`SCX_DSQ_FLAG_BUILTIN` of `kernel/sched/ext.c`).
const BUILTIN: u64 = 1 << 63;
/// With it: the queue of the CPU that the lower half names (`SCX_DSQ_FLAG_LOCAL_ON`).
const LOCAL_ON: u64 = 1 << 62;
/// `SCX_DSQ_GLOBAL` and `SCX_DSQ_LOCAL`.
const GLOBAL: u64 = BUILTIN | 1;
const LOCAL: u64 = BUILTIN | 2;
/// No layer: no scx_layered schedules.
const NO_LAYER: u16 = u16::MAX;
/// A slice that is longer than the event can say, or has no end.
const LONG_SLICE: u32 = u32::MAX;

/// What went through dispatch queues (DSQs) in the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DispatchReport {
    /// All queues together.
    pub total: DsqCounts,
    /// The queues in which tasks waited longest in all, most first.
    pub queues: Vec<DsqRow>,
    /// How many queues there were.
    pub queues_total: usize,
    /// The layers whose tasks waited longest in all, most first. Only where scx_layered schedules.
    pub layers: Vec<LayerRow>,
    /// How many layers there were.
    pub layers_total: usize,
    /// Events whose queue or layer has no row: there were too many.
    pub others: u64,
}

/// What went through one or more queues.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DsqCounts {
    /// How often a task was put there.
    pub inserts: u64,
    /// The slices that tasks were given with that, in the mean. None where none was given, or only such as have no end.
    pub slice_mean_ns: Option<f64>,
    /// Inserts with a slice of 4.29 seconds or more, also without end: not in the mean.
    pub slices_long: u64,
    /// How often a task from there got a CPU.
    pub dispatches: u64,
    /// From the insert to the CPU, of those that lie in the window as a whole.
    pub latency: Latencies,
    /// Those that were put there before the window: no samples.
    pub censored: u64,
    /// How many tasks were left when one got a CPU, in the mean: 0 where the kernel does not say. None without any.
    pub depth_mean: Option<f64>,
    /// How many at most: 65,535 for that and more.
    pub depth_max: u16,
    /// How often a scheduler took from there for its CPU.
    pub moves: u64,
    /// Of these: there was nothing to take.
    pub moves_empty: u64,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DsqRow {
    /// Its id. The kernel's own have bit 63 (`SCX_DSQ_*` of `kernel/sched/ext.c`).
    pub dsq_id: Address,
    /// What it is: `global` for the queue of all CPUs, `local` for that of the CPU on which the task is put there,
    /// `local-on N` for that of CPU N; the id in hexadecimal for the scheduler's own.
    pub dsq: String,
    /// What went through it.
    #[serde(flatten)]
    pub counts: DsqCounts,
}

/// One layer of scx_layered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRow {
    /// Its number.
    pub layer: u16,
    /// How often one of its tasks got a CPU from a queue.
    pub dispatches: u64,
    /// From the insert to the CPU, of those that lie in the window as a whole.
    pub latency: Latencies,
    /// Those that were put there before the window: no samples.
    pub censored: u64,
}

/// Tasks that got a CPU.
#[derive(Clone, Debug, Default)]
struct Dispatched {
    dispatches: u64,
    latency: Measure,
    censored: u64,
}

impl Dispatched {
    fn add(&mut self, dispatch: &ScxDispatch, counts: Counts, event: &Event, seen: &Seen<'_>) {
        self.dispatches += 1;
        match counts {
            Counts::Sample(ns) => {
                let since = event.ts - dispatch.latency_ns;
                self.latency.record(since, ns, event.cpu, Some(dispatch.task), seen);
            }
            Counts::Censored(_) | Counts::InLoss(_) => self.censored += 1,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Dsq {
    inserts: u64,
    slices: Mean,
    dispatched: Dispatched,
    depth: Mean,
    depth_max: u16,
    moves: u64,
    moves_empty: u64,
}

impl Dsq {
    fn insert(&mut self, insert: &ScxInsert) {
        self.inserts += 1;
        if insert.slice_ns != LONG_SLICE {
            self.slices.add(insert.slice_ns.into(), 1);
        }
    }

    fn dispatch(&mut self, dispatch: &ScxDispatch, counts: Counts, event: &Event, seen: &Seen<'_>) {
        self.dispatched.add(dispatch, counts, event, seen);
        self.depth.add(dispatch.depth.into(), 1);
        self.depth_max = self.depth_max.max(dispatch.depth);
    }

    fn take(&mut self, moved: bool) {
        self.moves += 1;
        self.moves_empty += u64::from(!moved);
    }

    fn report(&self) -> DsqCounts {
        DsqCounts {
            inserts: self.inserts,
            slice_mean_ns: self.slices.mean(),
            slices_long: self.inserts.saturating_sub(self.slices.count()),
            dispatches: self.dispatched.dispatches,
            latency: self.dispatched.latency.report(),
            censored: self.dispatched.censored,
            depth_mean: self.depth.mean(),
            depth_max: self.depth_max,
            moves: self.moves,
            moves_empty: self.moves_empty,
        }
    }
}

/// What happens in the dispatch queues?
#[derive(Clone, Debug)]
pub struct Dispatch {
    scope: Scope,
    total: Dsq,
    queues: Table<Address, Dsq>,
    layers: Table<u16, Dispatched>,
}

impl Dispatch {
    fn dispatch(&mut self, dispatch: &ScxDispatch, event: &Event, seen: &Seen<'_>) {
        let Some(counts) = self.scope.ended(event.ts, dispatch.latency_ns) else { return };
        self.total.dispatch(dispatch, counts, event, seen);
        if let Some(queue) = self.queues.at(dispatch.dsq_id) {
            queue.dispatch(dispatch, counts, event, seen);
        }
        if dispatch.layer != NO_LAYER
            && let Some(layer) = self.layers.at(dispatch.layer)
        {
            layer.add(dispatch, counts, event, seen);
        }
    }
}

impl Observer for Dispatch {
    fn happened(&mut self, event: &Event, _: CpuRef, seen: &Seen<'_>) {
        match event.kind {
            EventKind::ScxInsert(insert) if self.scope.contains(event.ts) && !leaves_out(insert.task, seen) => {
                self.total.insert(&insert);
                if let Some(queue) = self.queues.at(insert.dsq_id) {
                    queue.insert(&insert);
                }
            }
            EventKind::ScxDispatch(dispatch) if !leaves_out(dispatch.task, seen) => {
                self.dispatch(&dispatch, event, seen);
            }
            EventKind::ScxMove(taken) if self.scope.contains(event.ts) => {
                self.total.take(taken.moved);
                if let Some(queue) = self.queues.at(taken.dsq_id) {
                    queue.take(taken.moved);
                }
            }
            _ => {}
        }
    }
}

impl Question for Dispatch {
    type Answer = DispatchReport;

    fn new(scope: &Scope) -> Self {
        Self { scope: *scope, total: Dsq::default(), queues: Table::default(), layers: Table::default() }
    }

    fn answer(&self, _: &About, _: &Seen<'_>) -> DispatchReport {
        let top = self.scope.top();
        let queues = self.queues.ranked(|queue| {
            let dispatched = &queue.dispatched;
            (dispatched.latency.total_ns(), dispatched.dispatches, queue.inserts, queue.moves)
        });
        let queue = |&(id, queue): &(Address, &Dsq)| DsqRow { dsq_id: id, dsq: name(id), counts: queue.report() };
        let layers = self.layers.ranked(|layer| (layer.latency.total_ns(), layer.dispatches));
        let layer = |&(layer, row): &(u16, &Dispatched)| LayerRow {
            layer,
            dispatches: row.dispatches,
            latency: row.latency.report(),
            censored: row.censored,
        };
        DispatchReport {
            total: self.total.report(),
            queues: queues.iter().take(top).map(queue).collect(),
            queues_total: queues.len(),
            layers: layers.iter().take(top).map(layer).collect(),
            layers_total: layers.len(),
            others: self.queues.others().saturating_add(self.layers.others()),
        }
    }
}

/// What a queue is.
fn name(id: Address) -> String {
    match id.0 {
        GLOBAL => "global".to_owned(),
        LOCAL => "local".to_owned(),
        id if id & (BUILTIN | LOCAL_ON) == BUILTIN | LOCAL_ON => format!("local-on {}", id as u32),
        _ => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::testing::{asked, at};
    use super::*;
    use crate::event::{Nanos, ScxMove, TaskId};

    fn insert(ts: u64, task: u32, dsq: u64, slice_ns: u32) -> Event {
        at(ts, 0, ScxInsert { task: TaskId(task), dsq_id: Address(dsq), slice_ns, vtime: 0 })
    }
    fn dispatch(ts: u64, task: u32, dsq: u64, ns: u64, depth: u16, layer: u16) -> Event {
        let (task, dsq_id, latency_ns) = (TaskId(task), Address(dsq), Nanos(ns));
        at(ts, 0, ScxDispatch { task, dsq_id, latency_ns, depth, layer })
    }
    fn taken(ts: u64, dsq: u64, moved: bool) -> Event {
        at(ts, 0, ScxMove { dsq_id: Address(dsq), moved })
    }

    #[test]
    fn queues_have_names() {
        let names = [0, 7, BUILTIN, GLOBAL, LOCAL, BUILTIN | LOCAL_ON | 12, LOCAL_ON | 12].map(|id| name(Address(id)));
        let builtin = "0x8000000000000000";
        assert_eq!(names, ["0x0", "0x7", builtin, "global", "local", "local-on 12", "0x400000000000000c"]);
    }

    #[test]
    fn a_queue_is_described_by_what_goes_through_it() {
        let events = vec![
            insert(1_100, 1, 7, 1_000),
            insert(1_110, 2, 7, 2_000),
            insert(1_120, 3, LOCAL, u32::MAX),
            taken(1_150, 7, true),
            dispatch(1_200, 1, 7, 100, 1, 4),
            taken(1_250, 7, true),
            dispatch(1_300, 2, 7, 190, 0, 4),
            taken(1_350, 7, false),
            dispatch(1_400, 3, LOCAL, 280, 65_535, 65_535),
            // The recorder's own are nobody's business.
            insert(1_500, 9, 7, 5),
            dispatch(1_600, 9, 7, 100, 9, 9),
        ];
        let report = asked::<Dispatch>(events, vec![]).answer;
        let [first, second] = &report.queues[..] else { panic!("two") };
        let counts = &first.counts;
        assert_eq!((first.dsq_id, &*first.dsq), (Address(7), "0x7"));
        assert_eq!((counts.inserts, counts.dispatches, counts.latency.summary.total_ns), (2, 2, 290));
        assert_eq!((counts.slice_mean_ns, counts.slices_long), (Some(1_500.0), 0));
        assert_eq!((counts.depth_mean, counts.depth_max), (Some(0.5), 1));
        assert_eq!((counts.moves, counts.moves_empty), (3, 1));
        assert_eq!((&*second.dsq, second.counts.slice_mean_ns, second.counts.slices_long), ("local", None, 1));
        assert_eq!((second.counts.depth_max, report.total.dispatches), (65_535, 3));
        let [layer] = &report.layers[..] else { panic!("one") };
        assert_eq!((layer.layer, layer.dispatches, layer.latency.summary.max_ns), (4, 2, 190));
    }

    #[test]
    fn the_edges_of_the_window_cut() {
        let events = vec![
            insert(999, 1, 7, 5),
            taken(999, 7, true),
            dispatch(1_010, 1, 7, 11, 0, 1),
            dispatch(1_020, 2, 7, 20, 0, 1),
            dispatch(2_000, 3, 7, 20, 0, 1),
        ];
        let counts = asked::<Dispatch>(events, vec![]).answer.queues.remove(0).counts;
        assert_eq!((counts.inserts, counts.moves, counts.dispatches, counts.censored), (0, 0, 2, 1));
        assert_eq!((counts.latency.summary.count, counts.latency.summary.max_ns), (1, 20));
    }

    #[test]
    fn too_many_queues_are_counted() {
        let mut events: Vec<_> = (0..10_000).map(|n| insert(1_100, 1, n, 1)).collect();
        events.extend((0..10_000).map(|n| dispatch(1_200, 1, 0, u64::MAX, 0, n as u16)));
        let report = asked::<Dispatch>(events, vec![]).answer;
        assert_eq!((report.queues_total, report.layers_total), (4_096, 4_096));
        assert_eq!((report.others, report.total.inserts), (2 * (10_000 - 4_096), 10_000));
    }
}
