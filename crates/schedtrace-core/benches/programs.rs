//! What a run of the BPF programs costs, beside that of empty ones at the same tracepoints, in nanoseconds, as JSON lines:
//! programs EMPTY_OBJECT ROUNDS
//!
//! The kernel measures itself (`bpf_enable_stats()` in `kernel/bpf/syscall.c`), which alone takes most of what an empty
//! program seems to take: so the difference is what counts. A pair of tasks wakes each other on one CPU, while the
//! collector reads on another.
#![allow(missing_docs, clippy::print_stdout, reason = "a bench prints")]

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libbpf_rs::ObjectBuilder;
use libbpf_rs::query::ProgInfoIter;
use rustix::thread::CpuSet;
use schedtrace_core::live::Collector;
use schedtrace_core::{Poll, Source};

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

const COLLECTOR_CPU: usize = 0;
const PAIR_CPU: &str = "1";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [empty, rounds] = &args[..] else { return Err("programs EMPTY_OBJECT ROUNDS".into()) };
    let object = ObjectBuilder::default().open_file(empty)?.load()?;
    let _links = object.progs_mut().map(|program| program.attach()).collect::<Result<Vec<_>, _>>()?;
    let mut collecting = CpuSet::new();
    collecting.set(COLLECTOR_CPU);
    for _ in 0..rounds.parse()? {
        rustix::thread::sched_setaffinity(None, &collecting)?;
        let mut collector = Collector::builder().load()?.attach()?.start()?;
        let pipe = ["--cpu-list", PAIR_CPU, "perf", "bench", "sched", "pipe", "-l", "100000"];
        let mut load = Command::new("taskset").args(pipe).stdout(Stdio::null()).spawn()?;
        std::fs::write(STATS, "1")?;
        while load.try_wait()?.is_none() {
            collector.poll(Instant::now() + Duration::from_millis(10))?;
        }
        std::fs::write(STATS, "0")?;
        let ran = |name: &str| {
            let program = ProgInfoIter::default().find(|info| info.name == name && info.run_cnt > 50_000);
            let program = program.ok_or_else(|| format!("{name} has hardly run: is perf here, and CPU {PAIR_CPU}?"))?;
            Ok::<_, Box<dyn Error>>(program.run_time_ns as f64 / program.run_cnt as f64)
        };
        println!(
            r#"{{"empty_switch": {}, "empty_waking": {}, "switch": {}, "waking": {}}}"#,
            ran("empty_switch")?,
            ran("empty_waking")?,
            ran("sched_switch")?,
            ran("sched_waking")?,
        );
        collector.stopper().stop();
        while !matches!(collector.poll(Instant::now() + Duration::from_secs(1))?, Poll::End) {}
    }
    Ok(())
}
