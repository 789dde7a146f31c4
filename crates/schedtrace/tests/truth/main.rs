//! Whether what schedtrace says is true: threads whose behaviour is known, recorded by the real command, and compared
//! with what the kernel itself counts of them and with what ftrace shows of the same seconds. Needs root.
//!
//! Counts must be the same; times must be within 1 %. What the two sides define differently is told apart: see
//! [`clock`] and [`WAKEUP_NS`]. `make truth` prints the tables; every row that is printed is checked.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a module here is as public as the test is")]

mod clock;
mod ftrace;
mod match_up;
mod process;
mod procfs;
mod recording;
mod table;
mod workload;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ftrace::Ftrace;
use process::{Measured, Process};
use recording::{Ours, Recorder, Recording, Trace};
use schedtrace_core::{EventKind, Nanos, TaskId};
use table::Table;

/// A wait begins for us when the waking does, and for the kernel when the thread has been put on a run queue. That
/// takes so long per wakeup, interrupting another CPU for it included.
const WAKEUP_NS: u64 = 5_000;

/// So often a workload is run again whose threads had an event that no tracer could see.
const ATTEMPTS: u32 = 100;
/// So often one is run again whose times are too far apart. The hypervisor may take a CPU away between our reading of
/// the clock and the kernel's, and tells of it in ticks of 10 ms only. A mistake of ours comes back every time. Where it takes
/// CPUs away every time, what it took is allowed for in the end: nobody can tell whose time that was.
const TIMES: u32 = 5;
/// A tick of steal.
const TICK_NS: u64 = 10_000_000;

/// Not a test by itself: what the tests run as other processes.
#[test]
fn a_process_under_test() {
    workload::main();
}

/// A workload that was recorded.
struct Run {
    measured: Vec<Measured>,
    lives: Vec<TaskId>,
    recording: Recording,
    trace: Trace,
    steal_ticks: u64,
}

/// Records what `work` does, from before its threads work until after, and compares; prints the table. Again, if
/// something came in between that is not ours to measure; then the table says so.
fn compare(
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

/// Records a workload, and compares all of its threads with what the kernel counted.
fn workload(workload: &str, title: &str) {
    compare(title, |recorder| record(workload, recorder), |run, table| run.rows(table));
}

/// Records a workload.
fn record(workload: &str, recorder: &dyn Fn() -> Recorder) -> (Vec<Measured>, Recording) {
    let mut process = Process::start(workload);
    let recorder = recorder();
    let measured = process.work();
    (measured, recorder.stop())
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

    /// The rows of all threads; children together.
    fn rows(&self, table: &mut Table) {
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
    fn named(&self, name: &str) -> (TaskId, Ours) {
        let at = self.measured.iter().position(|thread| thread.name == name).unwrap();
        (self.lives[at], self.recording.report(None).of(self.lives[at]))
    }
}

/// One thread's rows.
fn thread_rows(table: &mut Table, thread: &Measured, ours: &Ours, unread_ns: u64) {
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

#[test]
fn live_truth_threads_on_one_cpu() {
    workload("pinned", "two hogs and a worker on one CPU");
}

#[test]
fn live_truth_threads_anywhere() {
    workload("unpinned", "more hogs than CPUs, and sleepers, on any CPU");
}

#[test]
fn live_truth_blocking() {
    workload("blocking", "threads that wake each other through pipes, beside hogs: on one CPU, on two, on any");
}

#[test]
fn live_truth_sleeping() {
    workload("sleeping", "threads that a timer wakes, beside hogs");
}

#[test]
fn live_truth_yielding() {
    workload("yielding", "two threads that yield one CPU to each other");
}

#[test]
fn live_truth_forking() {
    workload("forking", "a thread that creates processes, and these: each is read as a zombie");
}

#[test]
fn live_truth_exiting() {
    workload(
        "exiting",
        "threads that end: each told its own figures at last, of which the report is up to that moment",
    );
}

#[test]
fn live_truth_exec() {
    workload("exec", "a thread that is not the leader executes a program, and has the leader's id from then on");
}

#[test]
fn live_truth_renaming() {
    let rows = |run: &Run, table: &mut Table| {
        run.rows(table);
        let (life, ours) = run.named("name-0");
        assert_eq!(ours.comm, "name-40", "a row has the thread's last name");
        let mut names: Vec<String> = Vec::new();
        run.trace.tasks.iter().filter(|task| task.id == life).for_each(|task| names.push(task.comm.to_string()));
        names.dedup();
        let given: Vec<String> = (0..=40).map(|n| format!("name-{n}")).collect();
        assert_eq!(names, given, "the trace has all of its names");
        table.count("name-0", "comm: names", names.len() as u64, given.len() as u64);
    };
    compare("a thread that changes its name", |recorder| record("renaming", recorder), rows);
}

#[test]
fn live_truth_a_waking_of_a_running_thread_begins_no_wait() {
    let rows = |run: &Run, table: &mut Table| {
        run.rows(table);
        let (life, _) = run.named("woken");
        let wakings = run.trace.events.iter().filter_map(|event| match event.kind {
            EventKind::Waking(waking) if waking.task == life => Some(waking.on_cpu),
            _ => None,
        });
        let on_cpu = wakings.filter(|&on_cpu| on_cpu).count();
        if on_cpu == 0 {
            // Where the hypervisor takes CPUs away, the two do not meet.
            table.lacks("no waking came while the thread had a CPU");
        }
        table.note(format!("{on_cpu} wakings came while the thread was on a CPU"));
    };
    compare("a thread that is woken while it runs", |recorder| record("awake", recorder), rows);
}

/// A process of one thread that is called `name`, works so much, and sleeps so often.
fn live(name: &str, work: u32, sleeps: u32) -> Child {
    let script = format!(
        "printf {name} >/proc/self/comm; i=0; while [ $i -lt {work} ]; do i=$((i+1)); done
        i=0; while [ $i -lt {sleeps} ]; do i=$((i+1)); sleep 0.005; done"
    );
    Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// Two lives of one process id while it is recorded, the first of which is over when the second begins.
fn two_lives(recorder: &dyn Fn() -> Recorder) -> (Vec<Measured>, Recording) {
    loop {
        let recorder = recorder();
        let mut first = live("first", 60_000, 4);
        let mut measured = vec![Measured::from_its_start("first life", first.id())];
        process::read_at_rest(&mut measured);
        first.wait().unwrap();
        // The kernel gives the next process the next id.
        fs::write("/proc/sys/kernel/ns_last_pid", (first.id() - 1).to_string()).unwrap();
        let mut second = live("second", 150_000, 9);
        if second.id() == first.id() {
            measured.push(Measured::from_its_start("second life", second.id()));
            process::read_at_rest(&mut measured[1..]);
            let recording = recorder.stop();
            second.wait().unwrap();
            return (measured, recording);
        }
        // Somebody else was quicker.
        second.wait().unwrap();
    }
}

#[test]
fn live_truth_two_lives_of_one_process_id() {
    let rows = |run: &Run, table: &mut Table| {
        assert_eq!(run.measured[0].tid, run.measured[1].tid);
        assert_eq!(run.trace.lives(run.measured[0].tid), run.lives, "two lives, and no more");
        run.rows(table);
        assert_eq!([run.named("first life").1.comm, run.named("second life").1.comm], ["first", "second"]);
        table.note(format!("both had process id {}", run.measured[0].tid));
    };
    compare("two processes with the same id, one after the other: each is read as a zombie", two_lives, rows);
}

#[test]
fn live_truth_every_event_is_that_of_ftrace() {
    let seen = RefCell::new((Vec::new(), Nanos::ZERO..Nanos::ZERO));
    let work = |recorder: &dyn Fn() -> Recorder| {
        let mut process = Process::start("mixed");
        let ftrace = Ftrace::start();
        let recorder = recorder();
        let from = Nanos(workload::monotonic_ns());
        process.work();
        let until = Nanos(workload::monotonic_ns());
        // What is compared lies within what both have seen.
        thread::sleep(Duration::from_millis(50));
        let recording = recorder.stop();
        *seen.borrow_mut() = (ftrace.stop(), from..until);
        (vec![], recording)
    };
    let rows = |run: &Run, table: &mut Table| {
        let (theirs, within) = &*seen.borrow();
        match_up::rows(table, &run.trace, theirs, within);
        match_up::wakeup_rows(table, &run.trace, theirs, within);
        match_up::variety(table, &run.trace, within);
    };
    compare("a bit of everything: every event of all tasks, as ftrace shows the same seconds", work, rows);
}
