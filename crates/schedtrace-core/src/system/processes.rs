//! The processes and threads that use the CPUs now, as procfs shows them.
//!
//! Their times go up from their start, so that one reading tells little of now. Take two: [`Processes::since`] gives the
//! rates between them.

mod cgroups;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use procfs_core::FromRead;
use procfs_core::process::Schedstat;
use serde::{Deserialize, Serialize};

pub use self::cgroups::Cgroups;
use self::cgroups::cgroup;
use super::procfs::TICK;
use super::{ClockSnapshot, read_text};
use crate::error::{Error, Result};
use crate::event::{Cpu, Nanos, Policy};

/// What one entry stands for.
///
/// ```
/// use schedtrace_core::system::processes::Level;
/// assert_eq!(serde_json::to_string(&Level::Thread)?, "\"thread\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A process, all its threads together.
    #[default]
    Process,
    /// One thread.
    Thread,
}

/// What the first entries have most of: since they began, or per second where rates are known.
///
/// ```
/// use schedtrace_core::system::processes::Order;
/// assert_eq!(serde_json::to_string(&Order::CpuTime)?, "\"cpu_time\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Time on a CPU.
    #[default]
    CpuTime,
    /// Time on a run queue.
    Wait,
    /// Times that they got a CPU.
    Timeslices,
    /// Times that they went to sleep.
    VoluntarySwitches,
    /// Times that they were taken off the CPU while they could have gone on.
    InvoluntarySwitches,
}

/// A process or a thread.
///
/// ```
/// use schedtrace_core::system::processes::TaskUse;
/// assert_eq!(TaskUse::default().rates, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TaskUse {
    /// The thread's id; of a process, that of its first thread.
    pub tid: u32,
    /// The id of the process.
    pub pid: u32,
    /// What it is called: text that it chose itself.
    pub comm: String,
    /// The cgroup of version 2 that it is in, as its path: text that somebody chose.
    pub cgroup: Option<String>,
    /// `R` runs or waits for a CPU, `S` sleeps, `D` sleeps and cannot be woken by a signal, `I` is idle, `T` and `t` are
    /// stopped, `Z` and `X` have ended. Of a process, that of its busiest thread in this order: R, D, the first one's.
    pub state: char,
    /// The scheduling policy: `other`, `fifo`, `rr`, `batch`, `idle`, `deadline`, `ext`.
    pub policy: Option<&'static str>,
    /// -20 to 19.
    pub nice: i32,
    /// The priority of a real-time policy, 1 to 99; else 0.
    pub rt_priority: u32,
    /// The CPU that it ran on last.
    pub last_cpu: Option<Cpu>,
    /// How many threads are in this.
    pub threads: u32,
    /// Since it began.
    #[serde(flatten)]
    pub counts: TaskCounts,
    /// Between two readings; none in a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<TaskRates>,
    /// When it began, in ticks since boot: with the id, this is one life.
    #[serde(skip)]
    began: u64,
}

/// What a task has had since it began; of a process, those of its threads that are alive. None where the kernel does not
/// count it.
///
/// ```
/// use schedtrace_core::system::processes::TaskCounts;
/// assert_eq!(TaskCounts::default().wait_ns, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TaskCounts {
    /// Time on a CPU.
    pub cpu_time_ns: Nanos,
    /// Time on a run queue, ready to run.
    pub wait_ns: Option<Nanos>,
    /// Times that it got a CPU.
    pub timeslices: Option<u64>,
    /// Times that it went to sleep.
    pub voluntary_switches: Option<u64>,
    /// Times that it was taken off the CPU while it could have gone on.
    pub involuntary_switches: Option<u64>,
}

/// What a task did between two readings.
///
/// ```
/// use schedtrace_core::system::processes::TaskRates;
/// assert_eq!(TaskRates::default().cpu_ratio, 0.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TaskRates {
    /// CPU time by time: 1 is a whole CPU, and a process may use several.
    pub cpu_ratio: f64,
    /// Time on a run queue by time: 1 is one thread that waited all the time. The kernel counts a wait when it ends, so that
    /// one which began earlier counts whole, and one that goes on does not.
    pub wait_ratio: f64,
    /// Times that it got a CPU.
    pub timeslices_per_second: f64,
    /// Times that it went to sleep.
    pub voluntary_switches_per_second: f64,
    /// Times that it was taken off the CPU while it could have gone on.
    pub involuntary_switches_per_second: f64,
}

/// Every thread of the machine, at one moment or between two.
///
/// ```
/// use schedtrace_core::system::processes::{Level, Order, Processes};
///
/// let before = Processes::read("/".as_ref())?;
/// std::thread::sleep(std::time::Duration::from_millis(20));
/// let now = Processes::read("/".as_ref())?.since(&before);
/// for task in now.top("/".as_ref(), Level::Process, Order::CpuTime, 5) {
///     println!("{} ({}): {:.2} CPUs", task.comm, task.pid, task.rates.unwrap_or_default().cpu_ratio);
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Processes {
    /// When it was read, by `CLOCK_MONOTONIC`.
    pub read_at_ns: Nanos,
    /// How long it was since the reading before; zero in a single one.
    pub window_ns: Nanos,
    /// Threads that were left out because there are more than [`MAX_THREADS`](Self::MAX_THREADS).
    pub omitted_threads: usize,
    threads: Vec<TaskUse>,
    /// The CPU time of each process to a tick of 10 ms, threads that have ended included: since it began, and since the
    /// reading before.
    processes: HashMap<u32, (Nanos, Option<Nanos>)>,
}

/// What threads had, by id and begin.
type Earlier = HashMap<(u32, u64), TaskCounts>;

/// How much is read of each thread.
#[derive(Clone, Copy)]
enum Depth<'a> {
    /// What `stat` tells.
    States,
    /// What it had as well, of those that ran since then.
    Counts(Option<&'a Earlier>),
}

impl Processes {
    /// How many threads are read at the most.
    pub const MAX_THREADS: usize = 65_536;

    /// Reads `proc/PID/task/TID/{stat,schedstat,status}` of all threads below `root` (`/`). What ends meanwhile is left
    /// out.
    ///
    /// ```
    /// use schedtrace_core::system::processes::Processes;
    /// assert!(Processes::read("/".as_ref())?.threads() > 0);
    /// assert!(Processes::read("/no/such/folder".as_ref()).is_err());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if procfs cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        Self::read_as(root, Depth::Counts(None))
    }

    /// The same as `Processes::read(root)?.since(before)`, for less: what a thread that did not run meanwhile cannot have
    /// changed is not read again.
    ///
    /// ```
    /// use schedtrace_core::system::processes::Processes;
    /// let before = Processes::read("/".as_ref())?;
    /// let now = Processes::read_after("/".as_ref(), &before)?;
    /// assert!(now.window_ns.0 > 0);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if procfs cannot be read.
    pub fn read_after(root: &Path, before: &Self) -> Result<Self> {
        let earlier = before.counts();
        let now = Self::read_as(root, Depth::Counts(Some(&earlier)))?;
        Ok(now.rated(before, &earlier))
    }

    /// Reads `stat` alone: of the counts only the CPU time is known, to a tick of 10 ms.
    ///
    /// ```
    /// use schedtrace_core::system::processes::{Level, Order, Processes};
    /// let states = Processes::read_states("/".as_ref())?;
    /// let first = &states.top("/".as_ref(), Level::Thread, Order::CpuTime, 1)[0];
    /// assert_eq!(first.counts.wait_ns, None);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if procfs cannot be read.
    pub fn read_states(root: &Path) -> Result<Self> {
        Self::read_as(root, Depth::States)
    }

    fn read_as(root: &Path, depth: Depth<'_>) -> Result<Self> {
        let proc = root.join("proc");
        let mut all = Self { read_at_ns: ClockSnapshot::now().monotonic_ns, ..Self::default() };
        for pid in numbers(&proc).map_err(Error::io("cannot read", &proc))? {
            let folder = proc.join(pid.to_string());
            let Some(process) = read_text(&folder.join("stat")).ok().and_then(|stat| Stat::parse(&stat)) else {
                continue;
            };
            all.processes.insert(pid, (process.time, None));
            for tid in numbers(&folder.join("task")).unwrap_or_default() {
                if all.threads.len() == Self::MAX_THREADS {
                    all.omitted_threads += 1;
                } else {
                    all.threads.extend(read_thread(&folder.join("task").join(tid.to_string()), pid, tid, depth));
                }
            }
        }
        Ok(all)
    }

    /// How many threads were read.
    ///
    /// ```
    /// use schedtrace_core::system::processes::Processes;
    /// assert_eq!(Processes::default().threads(), 0);
    /// ```
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// How many processes were read.
    ///
    /// ```
    /// use schedtrace_core::system::processes::Processes;
    /// assert_eq!(Processes::default().processes(), 0);
    /// ```
    #[must_use]
    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    /// The same, with what every thread did since an earlier reading.
    ///
    /// ```
    /// use schedtrace_core::system::processes::Processes;
    /// let before = Processes::read("/".as_ref())?;
    /// let now = Processes::read("/".as_ref())?.since(&before);
    /// assert!(now.window_ns.0 > 0);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn since(self, before: &Self) -> Self {
        self.rated(before, &before.counts())
    }

    fn counts(&self) -> Earlier {
        self.threads.iter().map(|task| ((task.tid, task.began), task.counts)).collect()
    }

    fn rated(mut self, before: &Self, earlier: &Earlier) -> Self {
        self.window_ns = self.read_at_ns - before.read_at_ns;
        for task in &mut self.threads {
            let then = earlier.get(&(task.tid, task.began)).copied();
            // Who was not there has begun since, unless some were left out.
            let then = then.or_else(|| (before.omitted_threads == 0).then(TaskCounts::default));
            task.rates = then.map(|then| task.counts.since(&then, self.window_ns));
        }
        for (pid, (time, grew)) in &mut self.processes {
            *grew = before.processes.get(pid).map(|(then, _)| *time - *then);
        }
        self
    }

    /// The first of them, at most `limit`, in the order that is asked for. The cgroups of these are read below `root`.
    ///
    /// ```
    /// use schedtrace_core::system::processes::{Level, Order, Processes};
    /// let tasks = Processes::read("/".as_ref())?.top("/".as_ref(), Level::Thread, Order::Wait, 3);
    /// assert!(tasks.len() <= 3);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn top(&self, root: &Path, level: Level, order: Order, limit: usize) -> Vec<TaskUse> {
        let mut tasks = self.first(level, order, limit);
        for task in &mut tasks {
            task.cgroup = cgroup(root, task);
        }
        tasks
    }

    /// The same, without their cgroups: [`Cgroups::fill`] knows them for less.
    ///
    /// ```
    /// use schedtrace_core::system::processes::{Level, Order, Processes};
    /// let first = Processes::read("/".as_ref())?.first(Level::Process, Order::CpuTime, 3);
    /// assert!(first.iter().all(|task| task.cgroup.is_none()));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn first(&self, level: Level, order: Order, limit: usize) -> Vec<TaskUse> {
        // Counts since it began do not compare with rates: those whose rates are not known come last.
        let key = |task: &TaskUse| (task.rates.is_some(), task.key(order));
        let compare = |a: &TaskUse, b: &TaskUse| {
            let ((a_rated, a_key), (b_rated, b_key)) = (key(a), key(b));
            b_rated.cmp(&a_rated).then(b_key.total_cmp(&a_key)).then(a.tid.cmp(&b.tid))
        };
        match level {
            Level::Thread => {
                let mut threads: Vec<&TaskUse> = self.threads.iter().collect();
                threads.sort_unstable_by(|a, b| compare(a, b));
                threads.into_iter().take(limit).cloned().collect()
            }
            Level::Process => {
                let mut processes = self.whole_processes();
                processes.sort_unstable_by(compare);
                processes.truncate(limit);
                processes
            }
        }
    }

    fn whole_processes(&self) -> Vec<TaskUse> {
        let mut processes: Vec<TaskUse> = Vec::new();
        // The threads of a process follow each other.
        for thread in &self.threads {
            match processes.last_mut().filter(|process| process.pid == thread.pid) {
                Some(process) => process.add(thread),
                None => processes.push(thread.clone()),
            }
        }
        for process in &mut processes {
            let Some((time, grew)) = self.processes.get(&process.pid) else { continue };
            // Two ticks may lie between what is counted in ticks and the truth.
            match (&mut process.rates, grew) {
                (Some(rates), Some(grew)) => {
                    rates.cpu_ratio = rates.cpu_ratio.max(ratio(*grew - TICK - TICK, self.window_ns));
                }
                (Some(_), None) => {}
                (None, _) => process.counts.cpu_time_ns = process.counts.cpu_time_ns.max(*time - TICK - TICK),
            }
        }
        processes
    }
}

impl TaskUse {
    /// By what it is sorted.
    fn key(&self, order: Order) -> f64 {
        let count = |count: Option<u64>| count.unwrap_or(0) as f64;
        match (&self.rates, order) {
            (Some(rates), Order::CpuTime) => rates.cpu_ratio,
            (Some(rates), Order::Wait) => rates.wait_ratio,
            (Some(rates), Order::Timeslices) => rates.timeslices_per_second,
            (Some(rates), Order::VoluntarySwitches) => rates.voluntary_switches_per_second,
            (Some(rates), Order::InvoluntarySwitches) => rates.involuntary_switches_per_second,
            (None, Order::CpuTime) => self.counts.cpu_time_ns.0 as f64,
            (None, Order::Wait) => count(self.counts.wait_ns.map(|wait| wait.0)),
            (None, Order::Timeslices) => count(self.counts.timeslices),
            (None, Order::VoluntarySwitches) => count(self.counts.voluntary_switches),
            (None, Order::InvoluntarySwitches) => count(self.counts.involuntary_switches),
        }
    }

    /// Another thread of the same process.
    fn add(&mut self, thread: &Self) {
        self.threads += thread.threads;
        let rank = |state| match state {
            'R' => 2,
            'D' => 1,
            _ => 0,
        };
        if rank(thread.state) > rank(self.state) {
            self.state = thread.state;
        }
        let both = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.saturating_add(b)).or(a).or(b);
        let (sum, one) = (&mut self.counts, &thread.counts);
        sum.cpu_time_ns = sum.cpu_time_ns + one.cpu_time_ns;
        sum.wait_ns = both(sum.wait_ns.map(|wait| wait.0), one.wait_ns.map(|wait| wait.0)).map(Nanos);
        sum.timeslices = both(sum.timeslices, one.timeslices);
        sum.voluntary_switches = both(sum.voluntary_switches, one.voluntary_switches);
        sum.involuntary_switches = both(sum.involuntary_switches, one.involuntary_switches);
        if let Some(one) = &thread.rates {
            let sum = self.rates.get_or_insert_default();
            sum.cpu_ratio += one.cpu_ratio;
            sum.wait_ratio += one.wait_ratio;
            sum.timeslices_per_second += one.timeslices_per_second;
            sum.voluntary_switches_per_second += one.voluntary_switches_per_second;
            sum.involuntary_switches_per_second += one.involuntary_switches_per_second;
        }
    }
}

impl TaskCounts {
    fn since(&self, before: &Self, window: Nanos) -> TaskRates {
        let rate = |now: Option<u64>, then: Option<u64>| {
            let grew = now.unwrap_or(0).saturating_sub(then.unwrap_or(0));
            if window == Nanos::ZERO { 0.0 } else { grew as f64 / window.as_secs_f64() }
        };
        TaskRates {
            cpu_ratio: ratio(self.cpu_time_ns - before.cpu_time_ns, window),
            wait_ratio: ratio(self.wait_ns.unwrap_or_default() - before.wait_ns.unwrap_or_default(), window),
            timeslices_per_second: rate(self.timeslices, before.timeslices),
            voluntary_switches_per_second: rate(self.voluntary_switches, before.voluntary_switches),
            involuntary_switches_per_second: rate(self.involuntary_switches, before.involuntary_switches),
        }
    }
}

fn ratio(part: Nanos, window: Nanos) -> f64 {
    if window == Nanos::ZERO { 0.0 } else { part.0 as f64 / window.0 as f64 }
}

/// The entries of a folder that are numbers, sorted.
fn numbers(folder: &Path) -> std::io::Result<Vec<u32>> {
    let names = fs::read_dir(folder)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<u32> = names.collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// None if it has ended meanwhile.
fn read_thread(folder: &Path, pid: u32, tid: u32, depth: Depth<'_>) -> Option<TaskUse> {
    let stat = Stat::parse(&read_text(&folder.join("stat")).ok()?)?;
    let counts = match depth {
        Depth::States => TaskCounts { cpu_time_ns: stat.time, ..TaskCounts::default() },
        Depth::Counts(earlier) => {
            read_counts(folder, stat.time, earlier.and_then(|earlier| earlier.get(&(tid, stat.began))))
        }
    };
    Some(TaskUse {
        tid,
        pid,
        comm: stat.comm,
        cgroup: None,
        state: stat.state,
        policy: stat.policy.name(),
        nice: stat.nice,
        rt_priority: stat.rt_priority,
        last_cpu: stat.last_cpu,
        threads: 1,
        counts,
        rates: None,
        began: stat.began,
    })
}

/// Those of a thread, whose CPU time by `stat` is `time`.
fn read_counts(folder: &Path, time: Nanos, before: Option<&TaskCounts>) -> TaskCounts {
    let schedstat = read_text(&folder.join("schedstat")).ok();
    let schedstat = schedstat.and_then(|text| Schedstat::from_read(text.as_bytes()).ok());
    let counts = TaskCounts {
        cpu_time_ns: schedstat.as_ref().map_or(time, |counted| Nanos(counted.sum_exec_runtime)),
        wait_ns: schedstat.as_ref().map(|counted| Nanos(counted.run_delay)),
        timeslices: schedstat.as_ref().map(|counted| counted.pcount),
        ..TaskCounts::default()
    };
    // `status` is the dearest of the three. Who did not run cannot have left a CPU; where nothing is counted, all are zero.
    let is_same = |before: &&TaskCounts| {
        before.timeslices == counts.timeslices
            && before.cpu_time_ns == counts.cpu_time_ns
            && counts.timeslices > Some(0)
    };
    if let Some(TaskCounts { voluntary_switches, involuntary_switches, .. }) = before.filter(is_same).copied() {
        return TaskCounts { voluntary_switches, involuntary_switches, ..counts };
    }
    let status = read_text(&folder.join("status")).unwrap_or_default();
    let count = |name| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    TaskCounts {
        voluntary_switches: count("voluntary_ctxt_switches:"),
        involuntary_switches: count("nonvoluntary_ctxt_switches:"),
        ..counts
    }
}

/// What is of use in a line of `do_task_stat()` in `fs/proc/array.c`. Read here and not by a library, for the name may hold
/// anything, parentheses included.
pub(super) struct Stat {
    pub(super) comm: String,
    pub(super) state: char,
    time: Nanos,
    nice: i32,
    began: u64,
    last_cpu: Option<Cpu>,
    rt_priority: u32,
    policy: Policy,
}

impl Stat {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (front, fields) = line.rsplit_once(')')?;
        let (_, comm) = front.split_once('(')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // proc_pid_stat(5) counts from 1, and the state is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        fn parsed<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
            text?.parse().ok()
        }
        let ticks = parsed::<u64>(field(14))?.saturating_add(parsed(field(15))?);
        Some(Self {
            comm: comm.to_owned(),
            state: field(3)?.chars().next()?,
            time: Nanos(ticks.saturating_mul(TICK.0)),
            nice: parsed(field(19))?,
            began: parsed(field(22))?,
            last_cpu: parsed(field(39)).map(Cpu),
            rt_priority: parsed(field(40)).unwrap_or(0),
            policy: Policy(parsed(field(41)).unwrap_or(u8::MAX)),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::write;
    use super::*;
    use proptest::prelude::*;

    /// Fields 3 to 41 of a stat line.
    pub(crate) fn stat(tid: u32, comm: &str, state: char, ticks: u64, began: u64, cpu: u16, policy: u8) -> String {
        let zeros = |count| "0 ".repeat(count);
        format!(
            "{tid} ({comm}) {state} {}{ticks} 0 {}-5 1 0 {began} {}{cpu} 0 {policy} 0\n",
            zeros(10),
            zeros(3),
            zeros(16)
        )
    }

    pub(super) struct Proc(pub(super) tempfile::TempDir);

    impl Proc {
        pub(super) fn thread(&self, pid: u32, tid: u32, stat: &str, schedstat: Option<&str>, switches: (u64, u64)) {
            let folder = format!("proc/{pid}/task/{tid}");
            let set = |name: &str, text: &str| write(self.0.path(), &format!("{folder}/{name}"), text);
            set("stat", stat);
            schedstat.into_iter().for_each(|text| set("schedstat", text));
            let (voluntary, involuntary) = switches;
            set(
                "status",
                &format!("voluntary_ctxt_switches:\t{voluntary}\nnonvoluntary_ctxt_switches:\t{involuntary}\n"),
            );
            set("cgroup", "1:cpu:/old\n0::/box/web\n");
            if pid == tid {
                write(self.0.path(), &format!("proc/{pid}/stat"), stat);
            }
        }
        pub(super) fn read(&self, at: u64) -> Processes {
            Processes { read_at_ns: Nanos(at), ..Processes::read(self.0.path()).unwrap() }
        }
    }

    pub(super) fn two_processes() -> Proc {
        let proc = Proc(tempfile::tempdir().unwrap());
        write(proc.0.path(), "proc/version", "not a process");
        proc.thread(7, 7, &stat(7, "a) (b", 'S', 3, 50, 1, 0), Some("30000000 5000 4\n"), (10, 1));
        proc.thread(7, 9, &stat(9, "worker", 'R', 1, 60, 300, 1), Some("10000000 1000 2\n"), (1, 1));
        proc.thread(8, 8, &stat(8, "old kernel", 'D', 100, 50, 0, 7), None, (0, 0));
        proc
    }

    #[test]
    fn processes_are_their_threads_together() {
        let proc = two_processes();
        let read = proc.read(0);
        assert_eq!((read.threads(), read.processes()), (3, 2));
        let top = read.top(proc.0.path(), Level::Process, Order::CpuTime, 10);
        assert_eq!(top.iter().map(|task| task.pid).collect::<Vec<_>>(), [8, 7]);
        let process = &top[1];
        assert_eq!((process.comm.as_str(), process.threads, process.state), ("a) (b", 2, 'R'));
        assert_eq!((process.policy, process.nice, process.last_cpu), (Some("other"), -5, Some(Cpu(1))));
        assert_eq!(process.cgroup.as_deref(), Some("/box/web"));
        let counts = TaskCounts {
            cpu_time_ns: Nanos(40_000_000),
            wait_ns: Some(Nanos(6_000)),
            timeslices: Some(6),
            voluntary_switches: Some(11),
            involuntary_switches: Some(2),
        };
        assert_eq!(process.counts, counts);
        assert_eq!((top[0].counts.cpu_time_ns, top[0].counts.wait_ns), (Nanos(1_000_000_000), None));
        assert_eq!(top[0].policy, Some("ext"));
        let threads = read.top(proc.0.path(), Level::Thread, Order::InvoluntarySwitches, 1);
        assert_eq!((threads.len(), threads[0].tid), (1, 7));
        assert_eq!(read.top(proc.0.path(), Level::Thread, Order::Wait, 9)[0].tid, 7);
    }

    #[test]
    fn rates_count_those_that_began_and_those_that_ended() {
        let proc = two_processes();
        let before = proc.read(0);
        // 7 worked for 50 ms; its thread 9 ended, and the id is another thread's now, that worked for 10 ms.
        proc.thread(7, 7, &stat(7, "a) (b", 'S', 8, 50, 1, 0), Some("80000000 100005000 8\n"), (14, 1));
        proc.thread(7, 9, &stat(9, "new", 'S', 1, 99, 300, 1), Some("10000000 0 1\n"), (1, 0));
        // Threads of 8 that came and went used half a CPU.
        write(proc.0.path(), "proc/8/stat", &stat(8, "old kernel", 'D', 112, 50, 0, 7));
        let now = proc.read(200_000_000).since(&before);
        assert_eq!(now.window_ns, Nanos(200_000_000));
        let top = now.top(proc.0.path(), Level::Process, Order::CpuTime, 10);
        let rates = |at: usize| top[at].rates.unwrap();
        assert_eq!((top[0].pid, rates(0).cpu_ratio), (8, 0.5));
        assert_eq!((top[1].pid, rates(1).cpu_ratio, rates(1).wait_ratio), (7, 0.3, 0.5));
        assert_eq!((rates(1).timeslices_per_second, rates(1).voluntary_switches_per_second), (25.0, 25.0));

        let omitted = Processes { omitted_threads: 1, ..before };
        let now = proc.read(200_000_000).since(&omitted);
        let threads = now.top(proc.0.path(), Level::Thread, Order::CpuTime, 10);
        assert_eq!(threads.iter().filter(|task| task.rates.is_none()).count(), 1, "it may have been there");
    }

    #[test]
    fn who_did_not_run_is_not_read_again_and_who_did_is() {
        let proc = two_processes();
        let before = proc.read(0);
        let path = |tid: u32| proc.0.path().join(format!("proc/7/task/{tid}/status"));
        proc.thread(7, 9, &stat(9, "worker", 'S', 1, 60, 300, 1), Some("10000500 1000 2\n"), (4, 1));
        std::fs::remove_file(path(7)).unwrap();
        let root = proc.0.path();
        let now = Processes::read_after(root, &before).unwrap();
        let counts = |all: &Processes, tid: u32| all.threads.iter().find(|task| task.tid == tid).unwrap().counts;
        assert_eq!(counts(&now, 7), counts(&before, 7), "it did not run: its status is not opened");
        assert_eq!(counts(&now, 9).voluntary_switches, Some(4), "its time went on, though it kept its CPU");
        // What has rates can be the reading before as well, as it is.
        let whole = |all: &Processes| all.first(Level::Process, Order::CpuTime, 10);
        let again = Processes::read_after(root, &now).unwrap();
        assert!(whole(&again).iter().all(|task| task.rates.unwrap().cpu_ratio == 0.0), "{again:?}");
        // Another life of the id, or a kernel that counts nothing: all is read.
        proc.thread(7, 7, &stat(7, "new", 'S', 3, 51, 1, 0), Some("30000000 5000 4\n"), (1, 1));
        proc.thread(7, 9, &stat(9, "worker", 'S', 1, 60, 300, 1), Some("0 0 0\n"), (6, 1));
        let zeros = Processes::read_after(root, &now).unwrap();
        assert_eq!(counts(&zeros, 7).voluntary_switches, Some(1));
        proc.thread(7, 9, &stat(9, "worker", 'S', 1, 60, 300, 1), Some("0 0 0\n"), (7, 1));
        assert_eq!(counts(&Processes::read_after(root, &zeros).unwrap(), 9).voluntary_switches, Some(7));
        let states = Processes::read_states(root).unwrap();
        let known = TaskCounts { cpu_time_ns: Nanos(30_000_000), ..TaskCounts::default() };
        assert_eq!((states.threads(), counts(&states, 7)), (3, known));
    }

    #[test]
    fn what_vanishes_is_no_error() {
        let proc = two_processes();
        std::fs::remove_file(proc.0.path().join("proc/7/task/9/stat")).unwrap();
        std::fs::remove_dir_all(proc.0.path().join("proc/8/task")).unwrap();
        write(proc.0.path(), "proc/9/stat", "nonsense");
        let read = proc.read(0);
        assert_eq!((read.threads(), read.processes()), (1, 2));
        std::fs::remove_dir_all(proc.0.path().join("proc/7")).unwrap();
        assert_eq!(read.top(proc.0.path(), Level::Process, Order::CpuTime, 10)[0].cgroup, None);
    }

    #[test]
    fn this_machine_is_read() {
        let before = Processes::read("/".as_ref()).unwrap();
        let mut spun = 0u64;
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(50) {
            spun = std::hint::black_box(spun + 1);
        }
        let now = Processes::read("/".as_ref()).unwrap().since(&before);
        let me = now.top("/".as_ref(), Level::Process, Order::CpuTime, usize::MAX);
        let me = me.iter().find(|task| task.pid == std::process::id()).unwrap();
        assert!(me.rates.unwrap().cpu_ratio > 0.0 && me.threads >= 1 && me.counts.timeslices > Some(0), "{me:?}");
        assert!(me.cgroup.as_deref().is_none_or(|path| path.starts_with('/')));
    }

    proptest! {
        #[test]
        fn any_line_gives_a_stat_or_none(line in "\\PC{0,80}", fields in "[0-9 )(RS-]{0,200}") {
            for line in [&line, &fields, &format!("1 ({line}) {fields}")] {
                let _ = Stat::parse(line);
            }
        }
    }
}
