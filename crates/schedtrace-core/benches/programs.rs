//! What a run of the BPF programs costs, beside that of empty ones at the same tracepoints, in nanoseconds, as JSON lines:
//! programs EMPTY_OBJECT ROUNDS
//!
//! The kernel measures itself (`bpf_enable_stats()` in `kernel/bpf/syscall.c`), which alone takes most of what an empty
//! program seems to take: so the difference is what counts. A pair of tasks wakes each other on one CPU, while the
//! collector reads on another.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails by panicking, and prints")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libbpf_rs::ObjectBuilder;
use libbpf_rs::query::ProgInfoIter;
use schedtrace_core::live::Collector;
use schedtrace_core::{Poll, Result, Source};

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [empty, rounds] = &args[..] else { panic!("programs EMPTY_OBJECT ROUNDS") };
    let object = ObjectBuilder::default().open_file(empty).unwrap().load().unwrap();
    let _links: Vec<_> = object.progs_mut().map(|program| program.attach().unwrap()).collect();
    let (collecting, pair) = pin();
    for _ in 0..rounds.parse().unwrap() {
        rustix::thread::sched_setaffinity(None, &collecting).unwrap();
        let mut collector = Collector::builder().load()?.attach()?.start()?;
        let pipe = ["--cpu-list", &pair, "perf", "bench", "sched", "pipe", "-l", "100000"];
        let mut load = Command::new("taskset").args(pipe).stdout(Stdio::null()).spawn().unwrap();
        std::fs::write(STATS, "1").unwrap();
        while load.try_wait().unwrap().is_none() {
            collector.poll(Instant::now() + Duration::from_millis(10))?;
        }
        std::fs::write(STATS, "0").unwrap();
        let ran = |name: &str| {
            let program = ProgInfoIter::default().find(|info| info.name == name && info.run_cnt > 50_000);
            program.map_or(0.0, |info| info.run_time_ns as f64 / info.run_cnt as f64)
        };
        let [empty_switch, empty_waking, switch, waking] =
            ["empty_switch", "empty_waking", "sched_switch", "sched_waking"].map(ran);
        println!(
            r#"{{"empty_switch": {empty_switch}, "empty_waking": {empty_waking}, "switch": {switch}, "waking": {waking}}}"#
        );
        collector.stopper().stop();
        while !matches!(collector.poll(Instant::now() + Duration::from_secs(1))?, Poll::End) {}
    }
    Ok(())
}

/// The CPU for the collector, and the number of that for the pair.
fn pin() -> (rustix::thread::CpuSet, String) {
    let mut collecting = rustix::thread::CpuSet::new();
    collecting.set(0);
    (collecting, "1".to_owned())
}
