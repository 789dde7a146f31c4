//! What the kernel itself says of a thread: `/proc/TID/schedstat` and `/proc/TID/status`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// The kernel's figures of one thread, from its creation on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Time on CPUs, of the run queue's task clock: without steal, where the hypervisor tells it.
    pub cpu_ns: u64,
    /// Time on a run queue.
    pub wait_ns: u64,
    /// How often it was given a CPU.
    pub runs: u64,
    /// How often it left one to sleep or to end.
    pub voluntary: u64,
    /// How often it left one and stayed runnable.
    pub involuntary: u64,
}

impl Reading {
    /// A thread's figures now. A running thread's time on a CPU is that of its last switch or tick.
    pub fn of(tid: u32) -> Option<Self> {
        let schedstat = fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
        let mut fields = schedstat.split_ascii_whitespace().map(|field| field.parse::<u64>().ok());
        Some(Self {
            cpu_ns: fields.next()??,
            wait_ns: fields.next()??,
            runs: fields.next()??,
            voluntary: field(&status, "voluntary_ctxt_switches:")?.parse().ok()?,
            involuntary: field(&status, "nonvoluntary_ctxt_switches:")?.parse().ok()?,
        })
    }

    /// What was added since an earlier reading of the same life.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns - earlier.cpu_ns,
            wait_ns: self.wait_ns - earlier.wait_ns,
            runs: self.runs - earlier.runs,
            voluntary: self.voluntary - earlier.voluntary,
            involuntary: self.involuntary - earlier.involuntary,
        }
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// `S` for a thread that sleeps, `Z` for one that has ended and was not waited for, and so on.
fn state(tid: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    field(&status, "State:")?.chars().next()
}

/// A thread that does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The thread with this id sleeps.
    Asleep(u32),
    /// The process with this id has ended and is not waited for.
    Zombie(u32),
}

impl Rest {
    fn reading(self) -> Option<Reading> {
        let (tid, expected) = match self {
            Self::Asleep(tid) => (tid, 'S'),
            Self::Zombie(tid) => (tid, 'Z'),
        };
        Reading::of(tid).filter(|_| state(tid) == Some(expected))
    }
}

/// The figures of threads that do nothing: waits until two readings, some time apart, say the same.
pub fn settled(threads: &[Rest]) -> Vec<Reading> {
    let begun = Instant::now();
    let mut last: Option<Vec<Reading>> = None;
    loop {
        let now: Option<Vec<Reading>> = threads.iter().map(|thread| thread.reading()).collect();
        if let (Some(last), Some(now)) = (&last, &now)
            && last == now
        {
            return now.clone();
        }
        last = now;
        assert!(begun.elapsed() < Duration::from_secs(30), "these do not come to rest: {threads:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Time that the hypervisor kept from this machine's CPUs, in ticks of 10 ms.
pub fn steal_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let all = stat.lines().next().unwrap();
    all.split_ascii_whitespace().nth(8).and_then(|field| field.parse().ok()).unwrap_or(0)
}
