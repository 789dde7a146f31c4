//! What a run of the BPF programs costs, beside that of empty ones at the same tracepoints, in nanoseconds, as JSON lines:
//! programs EMPTY_OBJECT ROUNDS
//!
//! The kernel measures itself (`bpf_enable_stats()` in `kernel/bpf/syscall.c`), which alone takes most of what an empty
//! program seems to take: so the difference is what counts. A pair of tasks wakes each other on one CPU, while the
//! collector reads on another. Each round measures both transports.
#![allow(missing_docs, clippy::print_stdout, reason = "a bench prints")]

use std::collections::HashMap;
use std::error::Error;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libbpf_rs::ObjectBuilder;
use libbpf_rs::query::ProgInfoIter;
use rustix::thread::CpuSet;
use schedtrace_core::live::Collector;
use schedtrace_core::{Poll, Source, Transport};

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
        // In turn, so that whatever else the machine does meets both.
        for (name, transport) in Transport::ALL {
            let [empty_switch, empty_waking, switch, waking] = run(transport)?;
            println!(
                r#"{{"transport": "{name}", "empty_switch": {empty_switch}, "empty_waking": {empty_waking}, "switch": {switch}, "waking": {waking}}}"#
            );
        }
    }
    Ok(())
}

/// What a run takes: of the empty programs at a switch and a waking, and of ours.
fn run(transport: Transport) -> Result<[f64; 4], Box<dyn Error>> {
    let mut collector = Collector::builder().transport(transport).start()?;
    let pipe = ["--cpu-list", PAIR_CPU, "perf", "bench", "sched", "pipe", "-l", "100000"];
    let mut load = Command::new("taskset").args(pipe).stdout(Stdio::null()).spawn()?;
    let before =
        ProgInfoIter::default().map(|info| (info.id, (info.run_time_ns, info.run_cnt))).collect::<HashMap<_, _>>();
    std::fs::write(STATS, "1")?;
    while load.try_wait()?.is_none() {
        collector.poll(Instant::now() + Duration::from_millis(10))?;
    }
    std::fs::write(STATS, "0")?;
    let mut ran = [0.0; 4];
    for (ran, name) in ran.iter_mut().zip(["empty_switch", "empty_waking", "sched_switch", "sched_waking"]) {
        let runs = ProgInfoIter::default().filter(|info| info.name == name).map(|info| {
            let (time, count) = before.get(&info.id).copied().unwrap_or_default();
            (info.run_time_ns - time, info.run_cnt - count)
        });
        let (time, count) = runs.max_by_key(|&(_, count)| count).unwrap_or_default();
        if count < 50_000 {
            return Err(format!("{name} has hardly run: is perf here, and CPU {PAIR_CPU}?").into());
        }
        *ran = time as f64 / count as f64;
    }
    collector.stopper().stop();
    while !matches!(collector.poll(Instant::now() + Duration::from_secs(1))?, Poll::End) {}
    Ok(ran)
}
