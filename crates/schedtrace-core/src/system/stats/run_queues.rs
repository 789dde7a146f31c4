//! How long tasks ran and waited on each CPU.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::{MAX_STATISTICS, monotonic_now, per_second};
use crate::error::{Error, Result};
use crate::event::{Cpu, Nanos};
use crate::system::read_up_to;

/// The run queues of the CPUs, since boot: what the scheduler itself counts, to the nanosecond.
///
/// ```
/// use schedtrace_core::system::stats::RunQueues;
/// match RunQueues::read("/".as_ref())? {
///     Some(queues) => println!("{} CPUs", queues.cpus.len()),
///     None => println!("this kernel was built without CONFIG_SCHEDSTATS"),
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunQueues {
    /// When it was read, by `CLOCK_MONOTONIC`.
    pub read_at_ns: Nanos,
    /// Each CPU that is online, by number.
    pub cpus: Vec<RunQueue>,
}

/// One CPU's run queue, since boot.
///
/// ```
/// use schedtrace_core::system::stats::RunQueue;
/// assert_eq!(RunQueue::default().timeslices, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunQueue {
    /// Which CPU.
    pub cpu: Cpu,
    /// Time that tasks ran there.
    pub running_ns: Nanos,
    /// Time that tasks waited there, summed over all of them.
    pub waiting_ns: Nanos,
    /// Times that a task got the CPU.
    pub timeslices: u64,
}

/// One CPU's run queue between two readings.
///
/// ```
/// use schedtrace_core::system::stats::RunQueueRates;
/// assert_eq!(RunQueueRates::default().waiting_mean, 0.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RunQueueRates {
    /// Which CPU.
    pub cpu: Cpu,
    /// Part of the time that a task ran there, from 0 to 1.
    pub running_ratio: f64,
    /// How many tasks waited there, on average. The kernel counts a wait when it ends, so that one which began earlier
    /// counts whole, and one that goes on does not.
    pub waiting_mean: f64,
    /// Times that a task got the CPU.
    pub timeslices_per_second: f64,
    /// From ready to running, on average; none where no task got the CPU.
    pub wait_mean_ns: Option<f64>,
}

impl RunQueues {
    /// Reads `proc/schedstat` below `root`. `None` where the kernel was built without CONFIG_SCHEDSTATS.
    ///
    /// ```
    /// use schedtrace_core::system::stats::RunQueues;
    /// assert_eq!(RunQueues::read("/no/such/folder".as_ref())?, None);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if the file is there and cannot be read.
    pub fn read(root: &Path) -> Result<Option<Self>> {
        let path = root.join("proc/schedstat");
        match read_up_to(&path, MAX_STATISTICS) {
            Ok(text) => {
                let read_at_ns = monotonic_now();
                Ok(Some(Self { read_at_ns, cpus: text.lines().filter_map(RunQueue::parse).collect() }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("cannot read", path)(error)),
        }
    }

    /// What happened on the CPUs that were online at an earlier reading, too.
    ///
    /// ```
    /// use schedtrace_core::system::stats::RunQueues;
    /// assert!(RunQueues::default().since(&RunQueues::default()).is_empty());
    /// ```
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<RunQueueRates> {
        let window = self.read_at_ns - before.read_at_ns;
        let part = |time: Nanos| if window == Nanos::ZERO { 0.0 } else { time.0 as f64 / window.0 as f64 };
        let both = self.cpus.iter().filter_map(|now| {
            let then = before.cpus.iter().find(|then| then.cpu == now.cpu)?;
            let waited = now.waiting_ns - then.waiting_ns;
            let slices = now.timeslices.saturating_sub(then.timeslices);
            Some(RunQueueRates {
                cpu: now.cpu,
                running_ratio: part(now.running_ns - then.running_ns).min(1.0),
                waiting_mean: part(waited),
                timeslices_per_second: per_second(then.timeslices, now.timeslices, window),
                wait_mean_ns: (slices > 0).then(|| waited.0 as f64 / slices as f64),
            })
        });
        both.collect()
    }
}

impl RunQueue {
    /// `show_schedstat()` in `kernel/sched/stats.c`: in every version, the last three numbers of a CPU's line.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.strip_prefix("cpu")?.split_ascii_whitespace().collect();
        let [cpu, _, .., running, waiting, slices] = words[..] else { return None };
        Some(Self {
            cpu: Cpu(cpu.parse().ok()?),
            running_ns: Nanos(running.parse().ok()?),
            waiting_ns: Nanos(waiting.parse().ok()?),
            timeslices: slices.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::write;
    use super::*;

    fn read(text: &str, at: u64) -> RunQueues {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/schedstat", text);
        RunQueues { read_at_ns: Nanos(at), ..RunQueues::read(root.path()).unwrap().unwrap() }
    }

    #[test]
    fn the_last_three_numbers_count() {
        let text = "version 17\ntimestamp 4\ncpu0 0 0 0 0 0 0 100 200 4\ndomain0 MC 3 0 0 0\ncpu300 0 0 0 0 0 0 7 8 9\ncpu1 2\n";
        let before = read(text, 0);
        let first = RunQueue { cpu: Cpu(0), running_ns: Nanos(100), waiting_ns: Nanos(200), timeslices: 4 };
        assert_eq!((before.cpus.len(), before.cpus[0], before.cpus[1].cpu), (2, first, Cpu(300)));
        let after = read("cpu0 0 0 0 0 0 0 500000100 2000000200 14\ncpu1 0 0 0 0 0 0 1 1 1\n", 1_000_000_000);
        let rates = after.since(&before);
        let expected = RunQueueRates {
            cpu: Cpu(0),
            running_ratio: 0.5,
            waiting_mean: 2.0,
            timeslices_per_second: 10.0,
            wait_mean_ns: Some(200_000_000.0),
        };
        assert_eq!(rates, [expected]);
    }
}
