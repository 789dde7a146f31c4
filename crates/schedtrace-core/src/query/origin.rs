//! Where rows come from: a trace, or whatever else can be read as often as it is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::event::{Batch, Cgroup, CgroupId, EventKind, Nanos, Task, TaskId};
use crate::source::{Meta, Poll, Source};
use crate::trace::{TraceReader, TraceState};

/// Opens a stream from its beginning.
pub(super) type Open = dyn Fn() -> Result<Box<dyn Source + Send>> + Send + Sync;

#[derive(Clone)]
pub(super) enum Place {
    Trace(PathBuf),
    Stream(Arc<Open>),
}

/// One of the traces of a query.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) place: Place,
    /// What is added to a task's number, so that it is unique over all traces.
    base: i64,
    pub(super) host: String,
    pub(super) path: String,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Origin").field(&self.path).finish()
    }
}

/// What is said of a trace as a whole.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) meta: Meta,
    pub(super) until: Nanos,
    pub(super) state: &'static str,
    pub(super) lost: u64,
}

/// The tasks of a trace.
#[derive(Debug, Default)]
pub(super) struct People {
    /// Each as it was last.
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) paths: BTreeMap<CgroupId, Arc<str>>,
    /// When they began to exit.
    pub(super) ends: BTreeMap<TaskId, Nanos>,
}

impl Origin {
    /// The `number`th trace of a query.
    pub(super) fn new(number: usize, place: Place, host: String, path: String) -> Self {
        // Numbers of tasks have 32 bits.
        Self { place, base: (number as i64) << 32, host, path }
    }

    /// Whether it is the first of the query's traces.
    pub(super) fn is_first(&self) -> bool {
        self.base == 0
    }

    /// The number of a task in queries: idle tasks of all CPUs, and of all traces, have that of none.
    pub(super) fn utid(&self, task: TaskId) -> i64 {
        if task.is_idle() { 0 } else { self.base + i64::from(task.0) }
    }

    /// The stream, from a moment on or earlier, with the events of some tables and perhaps others.
    pub(super) fn open(&self, from: Option<Nanos>, tables: fn(&str) -> bool) -> Result<Box<dyn Source + Send>> {
        match &self.place {
            Place::Trace(dir) => {
                let reader = TraceReader::open(dir)?;
                // A segment that does not say what tasks were doing when it began needs those before it.
                let from = from.filter(|_| reader.has_statuses());
                Ok(Box::new(reader.between(from, None).only(tables)))
            }
            Place::Stream(open) => open(),
        }
    }

    /// What is said of it as a whole.
    pub(super) fn setting(&self) -> Result<Setting> {
        match &self.place {
            Place::Trace(dir) => {
                let reader = TraceReader::open(dir)?;
                let state = match reader.state() {
                    TraceState::Finished => "finished",
                    TraceState::Recording => "recording",
                    TraceState::Interrupted => "interrupted",
                    TraceState::Repaired => "repaired",
                };
                Ok(Setting { meta: reader.meta().clone(), until: reader.until(), state, lost: reader.lost() })
            }
            Place::Stream(open) => {
                let (mut until, mut lost) = (Nanos::ZERO, 0_u64);
                let mut source = open()?;
                drain(&mut *source, |batch| {
                    until = until.max(batch.until);
                    lost = batch.lost.iter().map(|loss| loss.count).fold(lost, u64::saturating_add);
                    true
                })?;
                Ok(Setting { meta: source.meta().clone(), until, state: "live", lost })
            }
        }
    }

    /// Who its tasks are.
    pub(super) fn people(&self) -> Result<People> {
        let mut people = People::default();
        let mut source = match &self.place {
            Place::Trace(dir) => Box::new(TraceReader::open(dir)?.only(|table| table == "task_lifecycle")),
            Place::Stream(open) => open()?,
        };
        drain(&mut *source, |batch| {
            people.tasks.extend(batch.tasks.iter().map(|task| (task.id, *task)));
            people.paths.extend(batch.cgroups.iter().map(|Cgroup { id, path }| (*id, Arc::clone(path))));
            for event in &batch.events {
                if let EventKind::Exit(exit) = event.kind {
                    people.ends.insert(exit.task, event.ts);
                }
            }
            true
        })?;
        for cpu in &source.meta().topology.cpus {
            people.tasks.entry(TaskId::idle(cpu.cpu)).or_insert_with(|| Task::idle(cpu.cpu));
        }
        Ok(people)
    }
}

/// Reads a stream to its end, or as long as `each` wants more.
pub(super) fn drain(source: &mut dyn Source, mut each: impl FnMut(Batch) -> bool) -> Result<()> {
    loop {
        match source.poll(Instant::now() + Duration::from_secs(1))? {
            Poll::Batch(batch) => {
                if !each(batch) {
                    return Ok(());
                }
            }
            Poll::Idle => {}
            Poll::End => return Ok(()),
        }
    }
}
