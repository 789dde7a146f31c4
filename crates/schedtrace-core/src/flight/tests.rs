//! What a window gives out is what a recording of the same time would.

use std::time::{Duration, Instant};

use super::WindowOptions;
use crate::event::{
    Batch, Comm, Cpu, Doing, Event, EventKind, Kind, Loss, LossPlace, Nanos, ShardId, Switch, Task, TaskId, TaskState,
};
use crate::sink::Sink;
use crate::source::{Meta, Poll, Source};

#[cfg(feature = "trace")]
mod dumps;
mod keeping;
#[cfg(feature = "synthetic")]
mod reports;
mod triggers;

/// All that a source gives.
fn read(source: &mut impl Source) -> Vec<Batch> {
    std::iter::from_fn(|| match source.poll(Instant::now()) {
        Ok(Poll::Batch(batch)) => Some(batch),
        _ => None,
    })
    .collect()
}

fn events(source: &mut impl Source) -> Vec<Event> {
    read(source).into_iter().flat_map(|batch| batch.events).collect()
}

fn options(duration_ns: u64, max_bytes: u64) -> WindowOptions {
    WindowOptions { duration: Duration::from_nanos(duration_ns), max_bytes }
}

fn switch(ts: u64, cpu: u16, prev: u32, state: TaskState, next: u32) -> Event {
    let (prev, next) = (TaskId(prev), TaskId(next));
    let kind = Switch { prev, next, prev_state: state, preempted: false, prev_prio: 120, next_prio: 120 };
    Event { ts: Nanos(ts), cpu: Cpu(cpu), kind: EventKind::Switch(kind) }
}
