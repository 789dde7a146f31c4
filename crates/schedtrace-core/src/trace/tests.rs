//! What is written is what is read: at rest, in flight, after a crash, after rotation, after removal; and what was
//! tampered with is refused.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::schema::Table;
use super::*;
use crate::event::*;
use crate::source::{Meta, Poll, Probe, Source};
use crate::{Error, Result, Sink};

mod archive;
mod hostile;
mod lifecycle;
mod repairing;
mod round_trip;

/// A folder in memory where there is one: what is synced here need not survive a power cut.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Segments as small as can be, everything committed at once.
fn tiny() -> WriterOptions {
    WriterOptions { segment_bytes: 4096, sync_interval: Duration::ZERO, ..WriterOptions::default() }
}

/// Besides what every trace has, a kind with a name, one with a choice, and one with numbers of each sort.
const DECLARED: [Kind; 3] = [Kind::IrqEntry, Kind::BlockComplete, Kind::FutexWait];

fn meta() -> Meta {
    meta_with(&DECLARED)
}

fn meta_with(kinds: &[Kind]) -> Meta {
    let probes = kinds.iter().map(|&kind| Probe { kind, on: true, why: None }).collect();
    let mut meta = Meta { started: Nanos(1_000), probes, ..Meta::default() };
    meta.host.hostname = "box".into();
    meta
}

/// The tables of a trace with that.
fn tables() -> Vec<Table> {
    Table::of(&meta(), super::commit::SCHEMA)
}

/// Begins a trace and gives it these batches; the writer is still recording.
fn record(dir: &Path, options: WriterOptions, batches: &[Batch]) -> TraceWriter {
    let mut writer = TraceWriter::create(dir, options).unwrap();
    writer.begin(&meta()).unwrap();
    for batch in batches {
        writer.batch(batch).unwrap();
    }
    writer
}

fn write(dir: &Path, options: WriterOptions, batches: &[Batch]) -> TraceWriter {
    let mut writer = record(dir, options, batches);
    writer.finish(&meta()).unwrap();
    writer
}

/// All batches of a source; they keep the rules of the stream.
fn drain(source: &mut TraceReader) -> Result<Vec<Batch>> {
    let mut batches: Vec<Batch> = Vec::new();
    while let Poll::Batch(batch) = source.poll(Instant::now())? {
        let before = batches.last().map_or(Nanos::ZERO, |batch| batch.until);
        assert!(batch.until >= before, "time goes back from {before} to {}", batch.until);
        assert!(batch.events.is_sorted_by_key(|event| event.ts));
        assert!(batch.events.first().is_none_or(|event| event.ts >= before));
        assert!(batch.events.last().is_none_or(|event| event.ts <= batch.until));
        assert!(batch.late.iter().all(|event| event.ts < before.max(batch.until)));
        assert!(batch.events.len() <= 8192 && batch.tasks.len() <= 8192);
        batches.push(batch);
    }
    assert!(matches!(source.poll(Instant::now())?, Poll::End), "the end stays the end");
    Ok(batches)
}

fn read(dir: &Path) -> Result<Vec<Batch>> {
    drain(&mut TraceReader::open(dir)?)
}

/// What a stream says, whatever its batches: sorted, so that it can be compared.
#[derive(Debug, PartialEq)]
struct Content {
    events: Vec<String>,
    tasks: Vec<String>,
    cgroups: Vec<String>,
    lost: Vec<String>,
}

/// Events as they read, with the names that were told before them: their numbers are each stream's own.
fn events(batches: &[Batch]) -> Vec<String> {
    let mut names: HashMap<NameId, std::sync::Arc<str>> = HashMap::new();
    let mut texts = Vec::new();
    for batch in batches {
        names.extend(batch.names.iter().map(|name| (name.id, name.text.clone())));
        for event in batch.events.iter().chain(&batch.late) {
            let kind = event.kind.kind();
            let field = |(field, &value): (&FieldInfo, &u64)| {
                let text = crate::event::text(field.ty, value, |id| names.get(&id).map(|text| &**text));
                format!("{}={text}", field.name)
            };
            let fields: Vec<_> = kind.fields().iter().zip(&*event.kind.values()).map(field).collect();
            texts.push(match fields.is_empty() {
                true => format!("{event:?}"),
                false => format!("{} {} {kind} {}", event.ts, event.cpu, fields.join(" ")),
            });
        }
    }
    texts.sort();
    texts
}

fn content(batches: &[Batch]) -> Content {
    fn all<'a, T: std::fmt::Debug + 'a>(items: impl Iterator<Item = &'a T>) -> Vec<String> {
        let mut texts: Vec<String> = items.map(|item| format!("{item:?}")).collect();
        texts.sort();
        texts
    }
    Content {
        events: events(batches),
        tasks: all(batches.iter().flat_map(|b| &b.tasks)),
        cgroups: all(batches.iter().flat_map(|b| &b.cgroups)),
        lost: all(batches.iter().flat_map(|b| &b.lost)),
    }
}

fn task(id: u32, since: u64, comm: &str) -> Task {
    Task {
        id: TaskId(id),
        since: Nanos(since),
        tid: id,
        tgid: id,
        ppid: 1,
        comm: Comm::new(comm),
        cgroup: CgroupId(u64::from(id % 3)),
        start: Nanos(since),
        kernel: false,
        recorder: false,
    }
}

fn switch(ts: u64, cpu: u16, prev: TaskId, next: TaskId) -> Event {
    let kind = EventKind::Switch(Switch {
        prev,
        next,
        prev_state: TaskState::INTERRUPTIBLE,
        preempted: false,
        prev_prio: 120,
        next_prio: 120,
    });
    Event { ts: Nanos(ts), cpu: Cpu(cpu), kind }
}

/// A quiet machine: `count` batches of `size` switches between idle and a few tasks, 1 µs apart, each batch announcing
/// one task.
fn stream(count: u64, size: u64) -> Vec<Batch> {
    (0..count)
        .map(|n| {
            let begin = 10_000 + n * size * 1_000;
            let id = TaskId(n as u32 + 1);
            let events = (0..size).map(|k| {
                let (a, b) = if k % 2 == 0 { (TaskId::idle(Cpu(7)), id) } else { (id, TaskId::idle(Cpu(7))) };
                switch(begin + k * 1_000, 7, a, b)
            });
            let at = Nanos(begin + size * 1_000 - 1);
            let declared = declared(n, id).map(|kind| Event { ts: at, cpu: Cpu(7), kind });
            let events = events.chain(declared);
            Batch {
                names: vec![Name::new(NameId(n as u32 + 1), Nanos(begin), format!("name{}", n % 3).as_bytes())],
                until: Nanos(begin + size * 1_000),
                events: events.collect(),
                tasks: vec![task(id.0, begin, &format!("task{n}"))],
                cgroups: vec![Cgroup { id: CgroupId(n), path: format!("/c{n}").into() }],
                ..Batch::default()
            }
        })
        .collect()
}

fn declared(n: u64, task: TaskId) -> [EventKind; 3] {
    let (action, latency_ns) = (NameId(n as u32 + 1), Nanos(n * 1_000));
    let operation = BlockOp(if n.is_multiple_of(2) { 1 } else { 77 });
    [
        IrqEntry { irq: n as u32, action }.into(),
        BlockComplete { task, device: NameId::NONE, size_bytes: 4096, operation, status: 10, latency_ns }.into(),
        FutexWait { task, address: Address(u64::MAX - n), duration_ns: Nanos(n), result: -110 }.into(),
    ]
}

/// Every event's tasks are known before it.
fn assert_self_contained(batches: &[Batch]) {
    let mut known: HashSet<TaskId> = HashSet::new();
    for batch in batches {
        known.extend(batch.tasks.iter().map(|task| task.id));
        for event in &batch.events {
            let EventKind::Switch(e) = event.kind else { continue };
            for task in [e.prev, e.next] {
                assert!(task.is_idle() || known.contains(&task), "{task:?} at {} is unknown", event.ts);
            }
        }
    }
}

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn size(dir: &Path) -> u64 {
    files(dir).iter().map(|path| path.metadata().unwrap().len()).sum()
}
