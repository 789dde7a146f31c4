//! The scheduler that runs: what the kernel and it say of it, and its dispatch queues.

use schedtrace_core::analysis::{DispatchReport, GroupBy, ReportName};
use serde_json::Value as Json;

use super::relations::row;
use super::system::{named, told};
use super::{Cx, View};
use crate::engine::Wants;
use crate::keys::Action;
use crate::machine::Part;
use crate::sheet::{Column, Sheet, Target, Value};

pub(super) struct Queues;

const QUEUES: &[Column] = &[
    Column { name: "QUEUE", about: "The dispatch queue.", width: 20, rank: 0 },
    Column { name: "DISPATCHES", about: "Tasks that got a CPU from it.", width: 11, rank: 1 },
    Column { name: "P50", about: "How long they lay there: the median.", width: 8, rank: 1 },
    Column { name: "P99", about: "99 of 100 not longer.", width: 8, rank: 1 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
    Column {
        name: "DEPTH",
        about: "Tasks left there when one got a CPU, on average; nothing where the kernel does not say.",
        width: 7,
        rank: 2,
    },
    Column { name: "MOST", about: "Most that were left.", width: 6, rank: 2 },
    Column { name: "INSERTS", about: "Tasks that were put there.", width: 9, rank: 2 },
    Column { name: "SLICE", about: "What they were given, on average.", width: 8, rank: 3 },
    Column { name: "MOVES", about: "How often a CPU took from it.", width: 8, rank: 3 },
    Column { name: "IN VAIN", about: "How often it found nothing.", width: 8, rank: 3 },
];

const LAYERS: &[Column] = &[
    Column { name: "LAYER", about: "The layer of scx_layered, by its number.", width: 6, rank: 0 },
    Column { name: "DISPATCHES", about: "How often one of its tasks got a CPU from a queue.", width: 11, rank: 1 },
    Column { name: "P50", about: "How long they lay there: the median.", width: 8, rank: 1 },
    Column { name: "P99", about: "99 of 100 not longer.", width: 8, rank: 1 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
    Column { name: "TOTAL", about: "All together.", width: 9, rank: 2 },
];

/// The layers of scx_layered, if it schedules.
fn layers(dispatch: &DispatchReport) -> Option<Sheet> {
    let rows = dispatch.layers.iter().map(|layer| {
        let latency = &layer.latency.summary;
        let cells = vec![
            Value::Count(layer.layer.into()),
            Value::Count(layer.dispatches),
            Value::of(latency, |s| s.p50_ns),
            Value::of(latency, |s| s.p99_ns),
            Value::of(latency, |s| s.max_ns),
            Value::of(latency, |s| s.total_ns),
        ];
        row(Target::Named(format!("layer {}", layer.layer)), cells)
    });
    let sheet = Sheet::new("layers of scx_layered", LAYERS, rows.collect()).of(dispatch.layers_total);
    (dispatch.layers_total > 0).then_some(sheet)
}

const COUNTERS: &[Column] = &[
    Column { name: "FIGURE", about: "The kernel's counter, or what the scheduler calls it.", width: 40, rank: 0 },
    Column { name: "RATE", about: "How fast it grows, of a counter of the kernel.", width: 10, rank: 1 },
    Column { name: "NOW", about: "Its value; of a counter, since the scheduler was loaded.", width: 0, rank: 0 },
];

/// What the kernel counts of the scheduler, and what it tells of itself.
fn figures(cx: &Cx<'_>) -> Sheet {
    let now = match told(cx, |machine| &machine.scheduler) {
        Ok(now) => now,
        Err(why) => return Sheet::new("the scheduler", COUNTERS, Vec::new()).or(why),
    };
    let scheduler = &now.scheduler;
    let count = |name: &'static str, count: Option<u64>| {
        Some(named(vec![Value::text(name), Value::None, Value::Count(count?)]))
    };
    let state = named(vec![Value::text("who schedules"), Value::None, Value::text(scheduler.describe())]);
    let known = [
        Some(state),
        count("schedulers loaded since boot", scheduler.enable_seq),
        count("tasks kept from SCHED_EXT", scheduler.nr_rejected),
        count("CPUs that came or went since boot", scheduler.hotplug_seq),
    ];
    let counters = scheduler.events.iter().map(|(name, count)| {
        let rate = now.events_per_second.get(name).map_or(Value::None, |rate| Value::Rate(*rate));
        named(vec![Value::text(name.clone()), rate, Value::Count(*count)])
    });
    let figure = |(name, value): &(String, Json)| {
        let value = match value {
            Json::String(text) => Value::text(text.clone()),
            Json::Number(number) => match number.as_u64() {
                Some(count) => Value::Count(count),
                None => number.as_f64().map_or(Value::None, Value::Number),
            },
            other => Value::text(other.to_string()),
        };
        named(vec![Value::text(format!("scx {name}")), Value::None, value])
    };
    let mut rows: Vec<_> = known.into_iter().flatten().chain(counters).collect();
    match &now.told {
        Ok(told) => rows.extend(told.iter().map(figure)),
        Err(why) => rows.push(named(vec![Value::text("scx statistics"), Value::None, Value::text(why.clone())])),
    }
    Sheet::new("the scheduler", COUNTERS, rows).or(scheduler.describe())
}

impl View for Queues {
    fn wants(&self, by: GroupBy, _: u16) -> Wants {
        Wants::default().report(by, ReportName::Dispatch)
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Scheduler]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        if cx.without.is_some() {
            return vec![figures(cx)];
        }
        let Some(dispatch) = cx.picture.report(cx.by).and_then(|set| set.dispatch.as_ref()) else { return Vec::new() };
        let rows = dispatch.queues.iter().map(|queue| {
            let counts = &queue.counts;
            let latency = &counts.latency.summary;
            row(
                Target::Named(queue.dsq.clone()),
                vec![
                    Value::text(queue.dsq.clone()),
                    Value::Count(counts.dispatches),
                    Value::of(latency, |s| s.p50_ns),
                    Value::of(latency, |s| s.p99_ns),
                    Value::of(latency, |s| s.max_ns),
                    // Where the kernel does not say, it is 0 each time.
                    counts.depth_mean.filter(|_| counts.depth_max > 0).map_or(Value::None, Value::Number),
                    if counts.depth_max > 0 { Value::Count(counts.depth_max.into()) } else { Value::None },
                    Value::Count(counts.inserts),
                    counts.slice_mean_ns.map_or(Value::None, |ns| Value::Lasted(ns as u64)),
                    Value::Count(counts.moves),
                    Value::Count(counts.moves_empty),
                ],
            )
        });
        let why = "no task went through a dispatch queue: the kernel's own scheduler runs, or the events of sched_ext are not in \
                   this recording (--events default,sched_ext)";
        let queues = Sheet::new("dispatch queues", QUEUES, rows.collect()).of(dispatch.queues_total).or(why);
        // Of a recording only the queues are known.
        let mut sheets = if cx.machine.is_some() { vec![figures(cx), queues] } else { vec![queues, figures(cx)] };
        sheets.extend(layers(dispatch));
        sheets
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::NextPanel, Action::SortNext, Action::Group]
    }
}
