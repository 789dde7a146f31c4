//! Large machines, simulated, through everything that a recording goes through: merge, bus, analyses, and each writer.
//! The simulation knows what is true.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use schedtrace_core::analysis::{Group, GroupBy, Options, Report, Sched, Shared};
use schedtrace_core::export::csv::CsvWriter;
use schedtrace_core::export::perfetto::PerfettoWriter;
use schedtrace_core::synthetic::{SyntheticHost, Truth};
use schedtrace_core::trace::{TraceReader, TraceWriter, WriterOptions};
use schedtrace_core::{Batch, Cpu, EventKind, Meta, OnFull, Pipeline, Source};

/// What the others made of a recording.
struct Made {
    truth: Truth,
    meta: Meta,
    report: Report,
    /// The same, of the trace that was written meanwhile.
    replayed: Report,
    /// Events that came in time, and late.
    came: [u64; 2],
    lost: u64,
    cpus: BTreeSet<Cpu>,
    csv: u64,
}

fn options(by: GroupBy) -> Options {
    Options { by, top: usize::MAX, ..Options::default() }
}

/// Records a machine into a trace, a Perfetto trace, a CSV and a report at once, and reads the trace again.
fn record(host: SyntheticHost, by: GroupBy) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.schedtrace");
    let mut source = host.start();
    let mut writer = TraceWriter::create(&path, WriterOptions::default()).unwrap();
    let sched = Shared::new(Sched::new(options(by)));
    let (mut perfetto, mut csv) = (PerfettoWriter::new(Vec::new()), CsvWriter::new(Vec::new()));
    let (mut came, mut lost, mut cpus) = ([0, 0], 0, BTreeSet::new());
    let mut order = |batch: &Batch| {
        assert!(batch.events.is_sorted_by_key(|event| event.ts));
        came = [came[0] + batch.events.len() as u64, came[1] + batch.late.len() as u64];
        lost += batch.lost.iter().map(|loss| loss.count).sum::<u64>();
        let switches = batch.events.iter().filter(|event| matches!(event.kind, EventKind::Switch(_)));
        cpus.extend(switches.map(|event| event.cpu));
    };
    let summary = Pipeline::new()
        .sink("trace", OnFull::Block, &mut writer)
        .sink("report", OnFull::Block, &mut sched.clone())
        .sink("perfetto", OnFull::Block, &mut perfetto)
        .sink("csv", OnFull::Block, &mut csv)
        .sink("order", OnFull::Block, &mut order)
        .run(&mut source)
        .unwrap();
    summary.into_result().unwrap();
    let mut reader = TraceReader::open(&path).unwrap();
    let replayed = schedtrace_core::analysis::run(&mut reader, Sched::new(options(by))).unwrap();
    assert!(perfetto.bytes() > 0);
    Made {
        truth: source.truth(),
        meta: source.meta().clone(),
        report: sched.report(),
        replayed,
        came,
        lost,
        cpus,
        csv: csv.bytes(),
    }
}

fn emitted(truth: &Truth) -> u64 {
    truth.emitted.values().sum()
}

/// Nothing is missing: the report is what the simulation knows.
fn assert_exact(made: &Made) {
    let Made { truth, report, .. } = made;
    assert_eq!(made.came, [emitted(truth), 0]);
    let wait = &report.run_queue.total.wait;
    assert_eq!((wait.count, wait.total_ns), (truth.waits, truth.wait_ns));
    let ran: BTreeMap<_, _> = report
        .cpu_time
        .groups
        .iter()
        .filter_map(|row| match &row.group {
            Group::Task(who) => Some((who.task, row.cpu_time_ns)),
            _ => None,
        })
        .collect();
    let expected: BTreeMap<_, _> =
        truth.cpu_time_ns.iter().filter(|(_, ns)| **ns > 0).map(|(id, ns)| (*id, *ns)).collect();
    assert!(ran == expected, "CPU time of {} tasks, and of {} in truth", ran.len(), expected.len());
    assert_eq!(&made.replayed, report, "a trace says the same as the stream");
}

#[test]
fn a_large_machine_is_understood_to_the_nanosecond() {
    let host = SyntheticHost::new().cpus(512).llcs(64).nodes(8).tasks(10_000).events(200_000).skew(true).burst(500);
    let made = record(host, GroupBy::Task);
    assert_exact(&made);
    assert_eq!(made.meta.topology.shape(), "512 CPUs, 512 cores, 64 LLCs, 8 nodes");
    assert_eq!((made.meta.rings.len(), made.cpus.len()), (64, 512));
    let use_of = &made.report.cpu_time.total;
    let window = made.report.window.duration_ns.0;
    assert_eq!(use_of.busy_ns + use_of.idle_ns + use_of.unknown_ns, 512 * window);
    assert_eq!(use_of.unknown_ns, 0);
    assert!(made.report.migrations.total.cross_node > 0 && made.report.migrations.total.llc > 0);
}

#[test]
fn cpu_numbers_with_gaps_are_as_good_as_others() {
    for stride in [7, 127] {
        let host = || SyntheticHost::new().cpus(500).llcs(50).nodes(5).tasks(1_000).events(30_000).seed(9);
        let (dense, sparse) = (record(host(), GroupBy::Cpu), record(host().stride(stride), GroupBy::Cpu));
        assert_exact(&record(host().stride(stride), GroupBy::Task));
        assert_eq!(dense.truth.waits, sparse.truth.waits);
        // The same work, on CPUs with other numbers.
        let used = |made: &Made| made.report.cpu_time.cpus.iter().map(|row| row.used).collect::<Vec<_>>();
        assert_eq!(used(&dense), used(&sparse));
        let numbers: Vec<_> = sparse.report.cpu_time.cpus.iter().map(|row| row.cpu.0).collect();
        assert_eq!(numbers, (0..500).map(|at| at * stride).collect::<Vec<_>>());
        assert_eq!(dense.report.run_queue.total, sparse.report.run_queue.total);
        assert!(sparse.csv > dense.csv, "longer numbers");
    }
}

#[test]
fn cpus_that_go_and_come_lose_nothing() {
    let host = SyntheticHost::new().cpus(64).llcs(8).nodes(2).tasks(2_000).events(60_000).hotplug(true);
    let made = record(host, GroupBy::Task);
    assert_exact(&made);
    assert!(made.cpus.contains(&Cpu(64)), "one that was not there when it began");
}

#[test]
fn what_is_late_or_lost_is_told_by_everybody() {
    let host = SyntheticHost::new().cpus(512).llcs(64).nodes(8).tasks(10_000).events(150_000).skew(true).burst(300);
    let made = record(host.late_ratio(0.01).lost_ratio(0.02).hotplug(true).stride(7), GroupBy::Process);
    let truth = &made.truth;
    assert!(truth.late > 1_000 && truth.lost > 1_000, "{truth:?}");
    assert_eq!((made.came[0] + made.came[1], made.came[1]), (emitted(truth) - truth.lost, truth.late));
    assert_eq!(made.lost, truth.lost);
    let complete = &made.report.completeness;
    assert_eq!((complete.lost_total, complete.late), (truth.lost, truth.late));
    assert!(complete.in_loss > 0, "waits that nobody can know");
    // What is known is never more than what is true.
    let wait = &made.report.run_queue.total.wait;
    assert!(wait.count < truth.waits, "{} of {}", wait.count, truth.waits);
    let use_of = &made.report.cpu_time.total;
    let cpus = made.report.cpu_time.cpus.len() as u64;
    assert_eq!(use_of.busy_ns + use_of.idle_ns + use_of.unknown_ns, cpus * made.report.window.duration_ns.0);
    assert_eq!(made.replayed.completeness.lost_total, truth.lost);
}
