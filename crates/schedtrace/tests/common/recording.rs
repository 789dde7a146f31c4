//! A recording by the real command, in a process of its own: its reports, and its events one by one.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use schedtrace_core::trace::TraceReader;
use schedtrace_core::{Batch, Cpu, Event, EventKind, Nanos, Poll, Source, Task, TaskId};
use serde_json::Value;

fn schedtrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_schedtrace"))
}

/// `schedtrace record` at work.
#[derive(Debug)]
pub struct Recorder {
    child: Child,
    dir: tempfile::TempDir,
}

impl Recorder {
    /// Starts it, and waits until it records.
    pub fn start(ring_mb: u32) -> Self {
        Self::of(ring_mb, "default")
    }

    /// Starts it, and waits until it records these events.
    pub fn of(ring_mb: u32, events: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("run.schedtrace");
        let mut command = schedtrace();
        command.args(["record", "--events", events, "--ring-mb", &ring_mb.to_string(), "-o"]).arg(&trace);
        let mut recorder = Self { child: command.stderr(Stdio::piped()).spawn().unwrap(), dir };
        let begun = Instant::now();
        // It writes these once it records.
        while !["meta.json", "commit.json"].iter().all(|file| trace.join(file).exists()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "no recording begins");
            assert_eq!(recorder.child.try_wait().unwrap(), None, "the recorder ended: live tests need root");
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(100));
        recorder
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(mut self) -> Recording {
        self.signal(Signal::INT);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the recorder ended with {status}");
        // Its child is gone: nothing is left for the drop.
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Recording { trace: dir.path().join("run.schedtrace"), _dir: dir }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A finished recording.
#[derive(Debug)]
pub struct Recording {
    trace: PathBuf,
    _dir: tempfile::TempDir,
}

impl Recording {
    /// A trace in a folder that goes with it.
    pub fn of(trace: PathBuf, dir: tempfile::TempDir) -> Self {
        Self { trace, _dir: dir }
    }

    /// What a user is told, thread by thread; up to a moment, if one is given.
    pub fn report(&self, until_ns: Option<u64>) -> Report {
        let until = until_ns.map(|until| format!("{until}ns"));
        let to: Vec<&str> = until.iter().flat_map(|until| ["--to", until]).collect();
        Report(self.json("report", &[&["--by", "task", "--top", "100000"], &to[..]].concat()))
    }

    /// What a command says of it.
    pub fn text(&self, command: &str, more: &[&str]) -> String {
        let output = schedtrace().arg(command).arg(&self.trace).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for programs.
    pub fn json(&self, command: &str, more: &[&str]) -> Value {
        serde_json::from_str(&self.text(command, &[more, &["--json"]].concat())).unwrap()
    }

    /// Everything that it holds.
    pub fn read(&self) -> Trace {
        let mut reader = TraceReader::open(&self.trace).unwrap();
        let mut all = Batch::default();
        while let Poll::Batch(batch) = reader.poll(Instant::now()).unwrap() {
            all.events.extend(batch.events);
            all.late.extend(batch.late);
            all.tasks.extend(batch.tasks);
        }
        // It is complete only with them; a thread's own order in time is what counts here.
        all.events.append(&mut all.late);
        all.events.sort_by_key(|event| event.ts);
        Trace { events: all.events, tasks: all.tasks }
    }

    /// How many events it lacks or has too late.
    pub fn missing(&self) -> u64 {
        let info = self.json("info", &[]);
        assert_eq!(info["state"], "finished");
        let completeness = &info["completeness"];
        let lost = completeness["lost"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap());
        lost.sum::<u64>() + completeness["late"].as_u64().unwrap()
    }
}

/// A report with a row for each thread.
#[derive(Debug)]
pub struct Report(pub Value);

/// What a report says of one life of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    pub comm: String,
    pub cpu_ns: u64,
    pub runs: u64,
    pub wait_ns: u64,
    pub waits: u64,
    pub longest_ns: u64,
    pub voluntary: u64,
    pub involuntary: u64,
}

impl Report {
    fn row(&self, section: &str, task: TaskId) -> Option<&Value> {
        let rows = self.0[section]["groups"].as_array().unwrap();
        rows.iter().find(|row| row["group"]["task"] == task.0)
    }

    pub fn of(&self, task: TaskId) -> Ours {
        let mut ours = Ours::default();
        if let Some(row) = self.row("cpu_time", task) {
            ours.comm = row["group"]["comm"].as_str().unwrap().to_owned();
            (ours.cpu_ns, ours.runs) = (number(&row["cpu_time_ns"]), number(&row["runs"]));
            assert_eq!(number(&row["in_loss_ns"]), 0);
        }
        if let Some(row) = self.row("run_queue", task) {
            (ours.wait_ns, ours.waits) = (number(&row["wait"]["total_ns"]), number(&row["wait"]["count"]));
            ours.longest_ns = number(&row["wait"]["max_ns"]);
            assert_eq!(number(&row["censored"]["waits"]), 0, "it did not run, nor wait, at the edges: {row}");
            assert_eq!(number(&row["in_loss"]["waits"]), 0, "{row}");
        }
        if let Some(row) = self.row("switches", task) {
            (ours.voluntary, ours.involuntary) = (number(&row["voluntary"]), number(&row["involuntary"]));
        }
        ours
    }
}

pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A recording's events and identities.
#[derive(Debug)]
pub struct Trace {
    pub events: Vec<Event>,
    pub tasks: Vec<Task>,
}

impl Trace {
    /// The lives that had a thread id, oldest first.
    pub fn lives(&self, tid: u32) -> Vec<TaskId> {
        let mut lives: Vec<_> = self.tasks.iter().filter(|task| task.tid == tid).map(|t| (t.start, t.id)).collect();
        lives.sort_unstable();
        lives.dedup_by_key(|&mut (_, id)| id);
        lives.into_iter().map(|(_, id)| id).collect()
    }

    /// The whole of it in one piece.
    pub fn as_one(&self) -> Batch {
        Batch { until: Nanos::MAX, events: self.events.clone(), tasks: self.tasks.clone(), ..Batch::default() }
    }

    /// Whether this is a thread of process 1.
    fn of_process_1(&self, id: TaskId) -> bool {
        self.tasks.iter().any(|task| task.id == id && task.tgid == 1)
    }

    /// How many switches and wakeups of these threads no tracer could see.
    ///
    /// On some sandboxed machines the kernel shows no event at all, to no tracer, while a thread of process 1 is
    /// current. Then the switch away from that thread is missing - the CPU's next switch begins with somebody else -
    /// and so is a wakeup from an interrupt that came meanwhile. A CPU that changed hands unseen in any other way is a
    /// mistake.
    pub fn hidden(&self, threads: &[TaskId]) -> u64 {
        let mut hidden = 0;
        let mut on = HashMap::<Cpu, TaskId>::new();
        let mut of_1 = HashMap::<TaskId, bool>::new();
        let mut asleep = HashMap::<TaskId, Nanos>::new();
        // Woken while it had not gone to sleep yet.
        let mut held = HashSet::<TaskId>::new();
        let mut had_by_1 = Nanos::ZERO;
        for event in &self.events {
            match event.kind {
                EventKind::Snapshot(snapshot) if snapshot.running => {
                    on.entry(event.cpu).or_insert(snapshot.task);
                }
                EventKind::Switch(switch) => {
                    let before = on.insert(event.cpu, switch.next).unwrap_or(switch.prev);
                    if *of_1.entry(before).or_insert_with(|| self.of_process_1(before)) {
                        had_by_1 = event.ts;
                        hidden += u64::from(before != switch.prev && threads.contains(&switch.prev));
                    } else {
                        assert_eq!(before, switch.prev, "who was on CPU {}: {event:?}", event.cpu);
                    }
                    let woken = held.remove(&switch.prev);
                    if switch.voluntary() && !woken {
                        asleep.insert(switch.prev, event.ts);
                    }
                    if let Some(since) = asleep.remove(&switch.next).filter(|_| threads.contains(&switch.next)) {
                        let now = on.values().any(|on| of_1.get(on).copied().unwrap_or_else(|| self.of_process_1(*on)));
                        hidden += u64::from(now || had_by_1 >= since);
                    }
                    held.remove(&switch.next);
                }
                EventKind::Waking(waking) if asleep.remove(&waking.task).is_none() => {
                    held.insert(waking.task);
                }
                _ => {}
            }
        }
        hidden
    }
}
