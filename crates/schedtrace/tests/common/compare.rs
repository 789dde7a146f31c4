//! Records a workload, and compares what is said of its threads with what others say of them; again, if something came
//! in between that is nobody's to measure.

use std::collections::HashSet;

use schedtrace_core::TaskId;

use super::process::{Measured, Process};
use super::recording::{Ours, Recorder, Recording, Trace};
use super::table::Table;
use super::{clock, procfs};

/// A wait begins for us when the waking does, and for the kernel when the thread has been put on a run queue. That
/// takes so long per wakeup, interrupting another CPU for it included.
pub const WAKEUP_NS: u64 = 5_000;

/// So often a workload is run again whose threads had an event that no tracer could see.
const ATTEMPTS: u32 = 100;
/// So often one is run again whose times are too far apart. The hypervisor may take a CPU away between our reading of
/// the clock and the kernel's, and tells of it in ticks of 10 ms only. A mistake of ours comes back every time. Where
/// it takes CPUs away every time, what it took is allowed for in the end: nobody can tell whose time that was.
const TIMES: u32 = 5;
/// A tick of steal.
const TICK_NS: u64 = 10_000_000;

/// A workload that was recorded.
#[derive(Debug)]
pub struct Run {
    pub measured: Vec<Measured>,
    pub lives: Vec<TaskId>,
    pub recording: Recording,
    pub trace: Trace,
    pub steal_ticks: u64,
}

/// Records what `work` does, from before its threads work until after, and compares; prints the table. Again, if
/// something came in between that is not ours to measure; then the table says so.
pub fn compare(
    title: &str,
    mut work: impl FnMut(&dyn Fn() -> Recorder) -> (Vec<Measured>, Recording),
    rows: impl Fn(&Run, &mut Table),
) {
    let mut notes = Vec::new();
    let (mut ring_mb, mut times) = (32, 1);
    for _ in 0..ATTEMPTS {
        let before = procfs::steal_ticks();
        let (measured, recording) = work(&|| Recorder::start(ring_mb));
        let steal_ticks = procfs::steal_ticks() - before;
        let missing = recording.missing();
        if missing > 0 {
            notes.push(format!("again, with larger rings: {missing} events were lost or late with {ring_mb} MiB"));
            ring_mb *= 4;
            continue;
        }
        let trace = recording.read();
        let lives = lives(&trace, &measured);
        let hidden = trace.hidden(&lives);
        if hidden > 0 {
            notes.push(format!("again: process 1 hid {hidden} of these threads' events, from every tracer"));
            continue;
        }
        let run = Run { measured, lives, recording, trace, steal_ticks };
        let mut table = Table::new(title);
        rows(&run, &mut table);
        if let Some(why) = table.lacking() {
            notes.push(format!("again: {why}"));
            continue;
        }
        let wrong = table.wrong_times();
        if !wrong.is_empty() && table.counts_hold() {
            if times < TIMES {
                notes.push(format!("again: with {} ms of steal these were apart:", run.steal_ticks * 10));
                notes.extend(wrong);
                times += 1;
                continue;
            }
            table.allow(run.steal_ticks * TICK_NS);
        }
        table.note(format!("steal meanwhile, on all CPUs: {} ms", run.steal_ticks * 10));
        notes.into_iter().for_each(|note| table.note(note));
        return table.check();
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
pub fn record(workload: &str, recorder: &dyn Fn() -> Recorder) -> (Vec<Measured>, Recording) {
    let mut process = Process::start(workload);
    let recorder = recorder();
    let measured = process.work();
    (measured, recorder.stop())
}

impl Run {
    /// What the report says of each measured thread.
    pub fn ours(&self) -> Vec<Ours> {
        let whole = self.recording.report(None);
        let of = |(thread, &life): (&Measured, &TaskId)| match thread.until_ns {
            None => whole.of(life),
            Some(until) => self.recording.report(Some(until)).of(life),
        };
        self.measured.iter().zip(&self.lives).map(of).collect()
    }

    /// The rows of all threads; children together.
    pub fn rows(&self, table: &mut Table) {
        let unread = clock::unread(&self.trace);
        let mut children = Table::new("");
        for ((thread, ours), life) in self.measured.iter().zip(self.ours()).zip(&self.lives) {
            let to = if thread.is_child() { &mut children } else { &mut *table };
            thread_rows(to, thread, &ours, unread.get(life).copied().unwrap_or(0));
        }
        let count = self.measured.iter().filter(|thread| thread.is_child()).count();
        if count > 0 {
            table.summed(&format!("{count} children"), &children);
        }
    }

    /// The life of a measured thread, and what the report says of it.
    pub fn named(&self, name: &str) -> (TaskId, Ours) {
        let at = self.measured.iter().position(|thread| thread.name == name).unwrap();
        (self.lives[at], self.recording.report(None).of(self.lives[at]))
    }
}

/// One thread's rows.
pub fn thread_rows(table: &mut Table, thread: &Measured, ours: &Ours, unread_ns: u64) {
    let (name, theirs) = (&thread.name, thread.theirs);
    // The thread that opens the gate does nothing else: there is no time to compare.
    if name != "opener" {
        let wakeups_ns = WAKEUP_NS * theirs.voluntary;
        let (sum, their_sum) = (ours.cpu_ns + ours.wait_ns, theirs.cpu_ns + theirs.wait_ns);
        table.time(name, "schedstat: CPU + run queues, ns", sum, their_sum, wakeups_ns);
        table.time(name, "schedstat: on CPUs, ns", ours.cpu_ns, theirs.cpu_ns, unread_ns);
        table.time(name, "schedstat: on run queues, ns", ours.wait_ns, theirs.wait_ns, unread_ns + wakeups_ns);
    }
    table.count(name, "schedstat: times run", ours.runs, theirs.runs);
    table.count(name, "schedstat: times run = our waits", ours.waits, theirs.runs);
    table.count(name, "status: voluntary switches", ours.voluntary, theirs.voluntary);
    table.count(name, "status: nonvoluntary switches", ours.involuntary, theirs.involuntary);
}
