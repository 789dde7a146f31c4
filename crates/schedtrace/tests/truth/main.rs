//! Whether what schedtrace says is true: threads whose behaviour is known, recorded by the real command, and compared
//! with what the kernel itself counts of them and with what ftrace shows of the same seconds. Needs root.
//!
//! Counts must be the same; times must be within 1 %. What the two sides define differently is told apart: see
//! [`common::clock`] and [`common::compare::WAKEUP_NS`]. `make truth` prints the tables; every row that is printed is
//! checked.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a module here is as public as the test is")]

#[path = "../common/mod.rs"]
mod common;
mod ftrace;
mod match_up;
mod workload;

use std::cell::RefCell;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::compare::{Run, compare, record};
use common::process::{self, Measured, Process};
use common::recording::{Recorder, Recording};
use common::table::Table;
use common::threads::monotonic_ns;
use ftrace::Ftrace;
use schedtrace_core::{EventKind, Nanos};

/// Not a test by itself: what the tests run as other processes.
#[test]
fn a_process_under_test() {
    workload::main();
}

/// Records a workload, and compares all of its threads with what the kernel counted.
fn workload(workload: &str, title: &str) {
    compare(title, |recorder| record(workload, recorder), |run, table| run.rows(table));
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
        let from = Nanos(monotonic_ns());
        process.work();
        let until = Nanos(monotonic_ns());
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
