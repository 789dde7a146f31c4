//! The measured processes: this test binary again, told by the environment to be a workload.
//!
//! Its threads wait at a gate, do their work, and wait at another gate, so that all of them sleep when the kernel's
//! figures are read. Standard input and output connect it to the test: it tells its threads (`thread NAME TID`), that
//! they are at the first gate (`ready`), and who is at the second (`done NAME`); a line opens the first gate, and the
//! end of input the second.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Which workload to be, and what else it has to know.
pub const WORKLOAD: &str = "SCHEDTRACE_WORKLOAD";

/// A process that is a workload.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_under_test", "--nocapture", "--test-threads=1"]);
    command.env(WORKLOAD, name);
    command
}

/// Tells the test something. One write, so that lines of several threads do not mix.
pub fn tell(line: &str) {
    std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

pub fn tid() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The CPUs that this process may use.
pub fn cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Keeps a thread, the calling one if none is named, on one CPU.
pub fn pin(thread: Option<u32>, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    let thread = thread.and_then(|tid| rustix::thread::Pid::from_raw(tid.cast_signed()));
    sched_setaffinity(thread, &set).unwrap();
}

/// Gives the calling thread a weight among the others of its session.
pub fn nice(nice: i32) {
    setpriority_process(None, nice).unwrap();
}

/// Uses the CPU for so much time, however long that takes.
pub fn burn(time: Duration) {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let until = used() + time;
    while used() < until {
        std::hint::spin_loop();
    }
}

/// Uses the CPU, or waits for it, until so much time is over.
pub fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// The threads of this process, each behind its gate.
#[derive(Debug, Default)]
pub struct Threads {
    gates: Vec<std::io::PipeWriter>,
    joins: Vec<thread::JoinHandle<()>>,
    pub tids: BTreeMap<String, u32>,
}

impl Threads {
    /// A thread that does `work` between the gates, on one CPU if that is told. If `ends`, it ends instead of waiting
    /// at the second gate.
    pub fn add(&mut self, name: &str, cpu: Option<usize>, ends: bool, work: impl FnOnce() + Send + 'static) {
        let (mut gate, open) = std::io::pipe().unwrap();
        let (told, told_tid) = std::sync::mpsc::sync_channel(1);
        let at = name.to_owned();
        let body = move || {
            // Now, and not while it goes to sleep: on a thread that is moved while it leaves its run queue lazily,
            // Linux 6.18 counts all of its sleep as a wait in `schedstat`.
            cpu.into_iter().for_each(|cpu| pin(None, cpu));
            told.send(tid()).unwrap();
            drop(told);
            // Its end is that of the process.
            if gate.read(&mut [0]).unwrap() == 0 {
                return;
            }
            work();
            if !ends {
                tell(&format!("done {at}"));
                let _ = gate.read(&mut [0]).unwrap();
            }
        };
        self.joins.push(thread::Builder::new().name(name.to_owned()).spawn(body).unwrap());
        self.gates.push(open);
        let tid = told_tid.recv().unwrap();
        tell(&format!("thread {name} {tid}"));
        self.tids.insert(name.to_owned(), tid);
    }

    /// A thread that waits at the second gate when it has worked.
    pub fn work(&mut self, name: &str, work: impl FnOnce() + Send + 'static) {
        self.add(name, None, false, work);
    }

    /// A thread that stays on one CPU.
    pub fn pinned(&mut self, name: &str, cpu: usize, work: impl FnOnce() + Send + 'static) {
        self.add(name, Some(cpu), false, work);
    }

    /// Two threads that wake each other in turns through pipes and spin between; each on its CPU, if that is told.
    pub fn ping_pong(&mut self, names: [&str; 2], cpus: Option<[usize; 2]>, rounds: u32, between: Duration) {
        let (mut ping_read, mut ping_write) = std::io::pipe().unwrap();
        let (mut pong_read, mut pong_write) = std::io::pipe().unwrap();
        let cpu = |at: usize| cpus.map(|cpus| cpus[at]);
        self.add(names[0], cpu(0), false, move || {
            let mut byte = [0];
            for _ in 0..rounds {
                spin(between);
                ping_write.write_all(&byte).unwrap();
                pong_read.read_exact(&mut byte).unwrap();
            }
        });
        self.add(names[1], cpu(1), false, move || {
            let mut byte = [0];
            for _ in 0..rounds {
                ping_read.read_exact(&mut byte).unwrap();
                spin(between);
                pong_write.write_all(&byte).unwrap();
            }
        });
    }

    /// Lets them work, and ends when the test closes standard input.
    pub fn run(self) {
        tell(&format!("thread opener {}", tid()));
        tell("ready");
        let mut input = std::io::stdin().lock();
        let mut line = [0; 3];
        if input.read_exact(&mut line).is_ok() {
            self.gates.iter().for_each(|mut gate| gate.write_all(&[1]).unwrap());
            tell("done opener");
            let _ = input.read(&mut [0]);
        }
        drop(self.gates);
        self.joins.into_iter().for_each(|join| join.join().unwrap());
    }
}
