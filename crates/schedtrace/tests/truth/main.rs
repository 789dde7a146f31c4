//! Whether what schedtrace says is true: threads whose behaviour is known, recorded by the real command, and compared
//! with what the kernel itself counts of them and with what ftrace shows of the same seconds. Needs root.
//!
//! Counts must be the same; times must be within 1 %. What the two sides define differently is told apart: see
//! [`clock`], [`WAKEUP_NS`] and [`SWITCH_NS`]. `make truth` prints the tables; every row that is printed is checked.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a module here is as public as the test is")]

mod clock;
mod process;
mod procfs;
mod recording;
mod table;
mod workload;

use std::collections::HashSet;

use process::{Measured, Process};
use recording::{Ours, Recorder, Recording, Trace};
use schedtrace_core::TaskId;
use table::Table;

/// A wait begins for us when the waking does, and for the kernel when the thread has been put on a run queue: that
/// takes it so long per wakeup, more than that only if it has to interrupt another CPU for it.
const WAKEUP_NS: u64 = 5_000;
/// We and the kernel read the clock at different places of a switch. What lies between cancels out over a thread's
/// time on a CPU but for so much: whoever looks for another task before it leaves takes longer.
const SWITCH_NS: u64 = 3_000;

/// So often a workload is run again whose threads had an event that no tracer could see.
const ATTEMPTS: u32 = 24;

/// Not a test by itself: what the tests run as other processes.
#[test]
fn a_process_under_test() {
    workload::main();
}

/// A workload that was recorded.
struct Run {
    measured: Vec<Measured>,
    recording: Recording,
    trace: Trace,
    lives: Vec<TaskId>,
    /// What has to be said of this run.
    notes: Vec<String>,
}

/// Records what `work` does, from before its threads work until after. Again, if something came in between that is
/// not ours to measure: then it is said.
fn record(mut work: impl FnMut(&dyn Fn() -> Recorder) -> (Vec<Measured>, Recording)) -> Run {
    let mut notes = Vec::new();
    let mut ring_mb = 32;
    for _ in 0..ATTEMPTS {
        let steal = procfs::steal_ticks();
        let (measured, recording) = work(&|| Recorder::start(ring_mb));
        let steal = procfs::steal_ticks() - steal;
        let missing = recording.missing();
        if missing > 0 {
            notes.push(format!("again, with larger rings: {missing} events were lost or late with {ring_mb} MiB"));
            ring_mb *= 4;
            continue;
        }
        let trace = recording.read();
        let lives: Vec<TaskId> = lives(&trace, &measured);
        let hidden = trace.hidden(&lives);
        if hidden > 0 {
            notes.push(format!("again: process 1 hid {hidden} of these threads' events, from every tracer"));
            continue;
        }
        if steal > 0 {
            notes.push(format!("steal: {} ms meanwhile, on all CPUs", steal * 10));
        }
        return Run { measured, recording, trace, lives, notes };
    }
    panic!("no undisturbed run: {notes:?}");
}

/// The life of each measured thread. Ids are used again: of those that had the same id, the first is the oldest.
fn lives(trace: &Trace, measured: &[Measured]) -> Vec<TaskId> {
    let mut taken = HashSet::new();
    let life = |thread: &Measured| {
        let life = trace.lives(thread.tid).into_iter().find(|life| taken.insert(*life));
        life.unwrap_or_else(|| panic!("{} was never announced", thread.name))
    };
    measured.iter().map(life).collect()
}

/// Records a workload.
fn run(workload: &str) -> Run {
    record(|recorder| {
        let mut process = Process::start(workload);
        let recorder = recorder();
        let measured = process.work();
        (measured, recorder.stop())
    })
}

impl Run {
    /// What the report says of each measured thread.
    fn ours(&self) -> Vec<Ours> {
        let whole = self.recording.report(None);
        let of = |(thread, &life): (&Measured, &TaskId)| match thread.until_ns {
            None => whole.of(life),
            Some(until) => self.recording.report(Some(until)).of(life),
        };
        self.measured.iter().zip(&self.lives).map(of).collect()
    }

    /// The table of all threads.
    fn table(&self, title: &str) -> Table {
        let mut table = Table::new(title);
        let unread = clock::unread(&self.trace);
        for ((thread, ours), life) in self.measured.iter().zip(self.ours()).zip(&self.lives) {
            compare(&mut table, thread, &ours, unread.get(life).copied().unwrap_or(0));
        }
        self.notes.iter().for_each(|note| table.note(note.as_str()));
        table
    }
}

/// One thread's rows.
fn compare(table: &mut Table, thread: &Measured, ours: &Ours, unread_ns: u64) {
    let (name, theirs) = (&thread.name, thread.theirs);
    // The thread that opens the gate does nothing else: there is no time to compare.
    if name != "opener" {
        let slack = (WAKEUP_NS + SWITCH_NS) * theirs.runs;
        let (sum, their_sum) = (ours.cpu_ns + ours.wait_ns, theirs.cpu_ns + theirs.wait_ns);
        table.time(name, "schedstat: CPU + run queues, ns", sum, their_sum, slack);
        table.time(name, "schedstat: on CPUs, ns", ours.cpu_ns, theirs.cpu_ns, unread_ns + SWITCH_NS * theirs.runs);
        table.time(name, "schedstat: on run queues, ns", ours.wait_ns, theirs.wait_ns, unread_ns + slack);
    }
    table.count(name, "schedstat: times run", ours.runs, theirs.runs);
    table.count(name, "schedstat: times run = our waits", ours.waits, theirs.runs);
    table.count(name, "status: voluntary switches", ours.voluntary, theirs.voluntary);
    table.count(name, "status: nonvoluntary switches", ours.involuntary, theirs.involuntary);
}

#[test]
fn live_truth_threads_on_one_cpu() {
    run("pinned").table("two hogs and a worker on one CPU").check();
}

#[test]
fn live_truth_threads_anywhere() {
    run("unpinned").table("more hogs than CPUs, and sleepers, on any CPU").check();
}

#[test]
fn live_truth_blocking() {
    run("blocking")
        .table("threads that wake each other through pipes: on one CPU beside a hog, on two, on any")
        .check();
}

#[test]
fn live_truth_sleeping() {
    run("sleeping").table("threads that a timer wakes, beside hogs").check();
}

#[test]
fn live_truth_yielding() {
    run("yielding").table("two threads that yield one CPU to each other").check();
}

#[test]
fn live_truth_renaming() {
    run("renaming").table("a thread that changes its name 40 times").check();
}

#[test]
fn live_truth_exec() {
    run("exec").table("exec by a thread that is not the leader").check();
}

#[test]
fn live_truth_exiting() {
    run("exiting").table("threads that end").check();
}

#[test]
fn live_truth_forking() {
    run("forking").table("forks").check();
}

#[test]
fn live_truth_awake() {
    run("awake").table("awake").check();
}
