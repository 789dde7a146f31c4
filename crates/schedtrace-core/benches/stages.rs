//! What each stage costs per event, on one core: decode, merge, write, read, analyse, export, alone and in a row. Elements
//! are events.
//!
//! The events are those of a simulated machine, of which some parts lie on rings as the kernel lays them out; they are made
//! before the clock starts, so that only the stages are timed. `scripts/bench.sh` pins it to a CPU, where writer and sealer,
//! which are threads, share one core with the rest.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails by panicking, and prints")]

use std::hint::black_box;
use std::io;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use schedtrace_core::analysis::states::{Observer, Ran, Seen, Slept, States, WaitEnd, Waited};
use schedtrace_core::analysis::{self, Analysis, Distribution, GroupBy, Options, ReportName, Reports, Sched};
use schedtrace_core::export::{csv::CsvWriter, perfetto::PerfettoWriter};
use schedtrace_core::live::SyntheticRings;
use schedtrace_core::merge::Merge;
use schedtrace_core::synthetic::SyntheticHost;
use schedtrace_core::trace::{TraceReader, TraceWriter, WriterOptions};
use schedtrace_core::{Batch, Event, Meta, Nanos, OnFull, Pipeline, Poll, Result, ShardId, Sink, Source, TaskState};

/// Events of one run.
const EVENTS: u64 = 1_000_000;

/// What a shard delivers at once: its events, and until when they are all.
type Chunk = (ShardId, Vec<Event>, Nanos);

/// What a source delivers, all of it.
struct Stream {
    meta: Meta,
    batches: Vec<Batch>,
    ended: Meta,
}

impl Stream {
    fn new(mut source: impl Source) -> Self {
        let meta = source.meta().clone();
        let mut batches = Vec::new();
        drain(&mut source, |batch| batches.push(batch));
        Self { meta, batches, ended: source.meta().clone() }
    }

    fn feed(&self, sink: &mut impl Sink) {
        sink.begin(&self.meta).unwrap();
        for batch in &self.batches {
            sink.batch(batch).unwrap();
        }
        sink.finish(&self.ended).unwrap();
    }

    fn study<A: Analysis>(&self, mut analysis: A) -> A::Report {
        analysis.begin(&self.meta);
        self.batches.iter().for_each(|batch| analysis.update(batch));
        analysis.finish(&self.ended);
        analysis.report()
    }

    /// The events as the shards deliver them.
    fn chunks(&self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        for batch in &self.batches {
            for ring in &self.meta.rings {
                let events = batch.events.iter().filter(|event| ring.cpus.contains(&event.cpu)).copied().collect();
                chunks.push((ring.shard, events, batch.until));
            }
        }
        chunks
    }
}

fn drain(source: &mut impl Source, mut each: impl FnMut(Batch)) {
    while let Poll::Batch(batch) = source.poll(Instant::now()).unwrap() {
        each(batch);
    }
}

fn merge(chunks: Vec<Chunk>, shards: &[ShardId]) -> usize {
    let mut merge = Merge::new(shards.iter().copied());
    let (mut out, mut late, mut merged) = (Vec::new(), Vec::new(), 0);
    for (shard, events, until) in chunks {
        merge.push(shard, events, until);
        merge.drain(&mut out, &mut late);
        merged += out.len();
        out.clear();
    }
    merged
}

/// Run-queue latency and nothing else, by the state machine that every report stands on.
#[derive(Default)]
struct Latency {
    states: States,
    waits: Waits,
}

#[derive(Default)]
struct Waits(Distribution);

impl Observer for Waits {
    fn waited(&mut self, wait: &Waited<'_>, _: &Seen<'_>) {
        if wait.end == WaitEnd::Ran && !wait.doubtful {
            self.0.record((wait.until - wait.from).0);
        }
    }
}

impl Analysis for Latency {
    type Report = analysis::Summary;

    fn begin(&mut self, meta: &Meta) {
        self.states.begin(meta);
    }

    fn update(&mut self, batch: &Batch) {
        self.states.update(batch, &mut self.waits);
    }

    fn report(&self) -> analysis::Summary {
        self.waits.0.summary()
    }
}

/// How long threads ran, waited and slept, and for what: every interval that the state machine tells.
#[derive(Default)]
struct ThreadStates {
    states: States,
    told: Told,
}

#[derive(Default)]
struct Told {
    intervals: u64,
    /// Running; waiting; asleep for I/O; asleep otherwise.
    ns: [u64; 4],
}

impl Told {
    fn add(&mut self, state: usize, from: Nanos, until: Nanos) {
        self.intervals += 1;
        self.ns[state] += (until - from).0;
    }
}

impl Observer for Told {
    fn ran(&mut self, ran: &Ran, _: &Seen<'_>) {
        self.add(0, ran.span.from, ran.span.until);
    }
    fn waited(&mut self, wait: &Waited<'_>, _: &Seen<'_>) {
        self.add(1, wait.from, wait.until);
    }
    fn slept(&mut self, slept: &Slept, _: &Seen<'_>) {
        self.add(if slept.state.is_some_and(TaskState::is_io_wait) { 2 } else { 3 }, slept.from, slept.until);
    }
}

impl Analysis for ThreadStates {
    type Report = (u64, [u64; 4]);

    fn begin(&mut self, meta: &Meta) {
        self.states.begin(meta);
    }

    fn update(&mut self, batch: &Batch) {
        self.states.update(batch, &mut self.told);
    }

    fn report(&self) -> (u64, [u64; 4]) {
        (self.told.intervals, self.told.ns)
    }
}

/// Writes what comes, as `schedtrace record` does: by a sink of its own on the bus.
fn record(source: &mut SyntheticRings, trace: &std::path::Path) -> Result<()> {
    let mut writer = TraceWriter::create(trace, WriterOptions::default())?;
    Pipeline::new().sink("trace", OnFull::Block, &mut writer).run(source)?.into_result().map(drop)
}

fn stages(criterion: &mut Criterion) {
    let host = || SyntheticHost::new().cpus(16).llcs(2).tasks(500).events(EVENTS);
    let mut rings = SyntheticRings::new(host()).unwrap();
    let stream = Stream::new(host().start());
    let folder = tempfile::tempdir().unwrap();
    let mut written = 0;
    let mut path = || {
        written += 1;
        folder.path().join(written.to_string())
    };
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Elements(rings.events())).sample_size(10);

    group.bench_function("decode and merge", |bench| {
        bench.iter(|| {
            rings.rewind().unwrap();
            drain(&mut rings, |batch| drop(black_box(batch)));
        });
    });
    group.bench_function("decode, merge and run-queue latency", |bench| {
        bench.iter(|| {
            rings.rewind().unwrap();
            let mut latency = Latency::default();
            latency.begin(rings.meta());
            drain(&mut rings, |batch| latency.update(&batch));
            assert!(latency.report().count > 0);
        });
    });
    group.bench_function("decode, merge and write", |bench| {
        bench.iter(|| {
            rings.rewind().unwrap();
            record(&mut rings, &path()).unwrap();
        });
    });

    let shards: Vec<_> = stream.meta.rings.iter().map(|ring| ring.shard).collect();
    group.bench_function("merge", |bench| {
        bench.iter_batched(|| stream.chunks(), |chunks| merge(chunks, &shards), BatchSize::PerIteration);
    });
    group.bench_function("run-queue latency", |bench| bench.iter(|| black_box(stream.study(Latency::default()))));
    for by in [GroupBy::Task, GroupBy::Process, GroupBy::Cpu] {
        let study = || Sched::new(Options { by, ..Options::default() });
        group.bench_function(format!("report by {by}"), |bench| bench.iter(|| black_box(stream.study(study()))));
    }
    group.bench_function("thread states", |bench| bench.iter(|| black_box(stream.study(ThreadStates::default()))));
    let all = || Reports::study(ReportName::ALL.iter().copied(), Options::default());
    group.bench_function("all reports", |bench| bench.iter(|| black_box(stream.study(all()))));
    group.bench_function("write", |bench| {
        bench.iter(|| stream.feed(&mut TraceWriter::create(path(), WriterOptions::default()).unwrap()));
    });

    let trace = path();
    stream.feed(&mut TraceWriter::create(&trace, WriterOptions::default()).unwrap());
    group.bench_function("read", |bench| {
        bench.iter(|| {
            let mut events = 0;
            drain(&mut TraceReader::open(&trace).unwrap(), |batch| events += batch.events.len() as u64);
            assert_eq!(events, rings.events());
        });
    });
    group.bench_function("read and thread states", |bench| {
        bench.iter(|| {
            let mut trace = TraceReader::open(&trace).unwrap();
            let mut states = ThreadStates::default();
            states.begin(trace.meta());
            drain(&mut trace, |batch| states.update(&batch));
            assert!(states.report().0 > 0);
        });
    });
    group.bench_function("export as CSV", |bench| bench.iter(|| stream.feed(&mut CsvWriter::new(io::sink()))));
    group.bench_function("export for Perfetto", |bench| {
        bench.iter(|| stream.feed(&mut PerfettoWriter::new(io::sink())));
    });
    group.finish();
    let bytes = TraceReader::open(&trace).unwrap().info().unwrap().bytes;
    println!("on disk: {:.2} bytes per event", bytes as f64 / rings.events() as f64);
}

/// The same by the size of the machine: its shards deliver to one merge, which is on one core whatever they are.
fn machines(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut written = 0;
    let mut group = criterion.benchmark_group("machines");
    for (cpus, llcs) in [(2, 1), (16, 2), (64, 8), (256, 32)] {
        let host = SyntheticHost::new().cpus(cpus).llcs(llcs).tasks(u32::from(cpus) * 8).events(EVENTS);
        let mut rings = SyntheticRings::new(host).unwrap();
        group.throughput(Throughput::Elements(rings.events())).sample_size(10);
        let name = format!("{cpus} CPUs, {} shards, {} tasks", rings.meta().rings.len(), cpus * 8);
        group.bench_function(format!("{name}: decode and merge"), |bench| {
            bench.iter(|| {
                rings.rewind().unwrap();
                drain(&mut rings, |batch| drop(black_box(batch)));
            });
        });
        group.bench_function(format!("{name}: and write"), |bench| {
            bench.iter(|| {
                rings.rewind().unwrap();
                written += 1;
                record(&mut rings, &folder.path().join(written.to_string())).unwrap();
            });
        });
        group.bench_function(format!("{name}: and report by process"), |bench| {
            bench.iter(|| {
                rings.rewind().unwrap();
                let study = Sched::new(Options { by: GroupBy::Process, ..Options::default() });
                black_box(analysis::run(&mut rings, study).unwrap());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stages, machines);
criterion_main!(benches);
