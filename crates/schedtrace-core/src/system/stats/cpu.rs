//! CPU time, and what the scheduler counts beside it.

use std::path::Path;

use procfs_core::{CpuTime, ExplicitSystemInfo, FromRead, FromReadSI, KernelStats, LoadAverage};
use serde::Serialize;

use super::{Pressure, monotonic_now, per_second, share, strange, text};
use crate::error::Result;
use crate::event::{Cpu, Nanos};
use crate::system::procfs::TICK;

/// CPU time and switches of the whole machine, since boot.
///
/// ```
/// use schedtrace_core::system::stats::SystemCpu;
/// let cpu = SystemCpu::read("/".as_ref())?;
/// println!("{} CPUs, {} switches since boot", cpu.cpus.len(), cpu.context_switches);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SystemCpu {
    /// When it was read, by `CLOCK_MONOTONIC`.
    pub read_at_ns: Nanos,
    /// When the machine was started, in seconds since 1970-01-01 UTC.
    pub booted_at_unix_s: u64,
    /// All CPUs together, those that are offline now included.
    pub total: CpuTimes,
    /// Each CPU that is online, by number.
    pub cpus: Vec<CpuUse>,
    /// Switches from one task to another, and to the idle task.
    pub context_switches: u64,
    /// Interrupts of all kinds.
    pub interrupts: u64,
    /// Software interrupts of all kinds.
    pub softirqs: u64,
    /// Processes and threads that were created.
    pub tasks_created: u64,
    /// Tasks that run or wait for a CPU, now.
    pub tasks_runnable: Option<u32>,
    /// Tasks that sleep for I/O, now.
    pub tasks_waiting_for_io: Option<u32>,
    /// The load averages.
    pub load: Option<Load>,
    /// Time lost because the CPUs were busy.
    pub pressure: Option<Pressure>,
}

/// The load averages: tasks that run, wait for a CPU or sleep uninterruptibly.
///
/// ```
/// use schedtrace_core::system::stats::Load;
/// assert_eq!(Load::default().one_minute, 0.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Load {
    /// Over one minute.
    pub one_minute: f64,
    /// Over five minutes.
    pub five_minutes: f64,
    /// Over fifteen minutes.
    pub fifteen_minutes: f64,
    /// Tasks that exist.
    pub tasks: u32,
}

/// What CPUs did since boot. The kernel counts it in ticks of 10 ms.
///
/// ```
/// use schedtrace_core::Nanos;
/// use schedtrace_core::system::stats::CpuTimes;
/// let times = CpuTimes { user_ns: Nanos(5), irq_ns: Nanos(2), steal_ns: Nanos(9), ..CpuTimes::default() };
/// assert_eq!(times.busy_ns(), Nanos(7));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuTimes {
    /// In user space, guests included.
    pub user_ns: Nanos,
    /// In user space, of tasks with a nice value above zero.
    pub nice_ns: Nanos,
    /// In the kernel.
    pub system_ns: Nanos,
    /// In interrupt handlers.
    pub irq_ns: Nanos,
    /// In handlers of software interrupts.
    pub softirq_ns: Nanos,
    /// Wanted, but taken by the hypervisor.
    pub steal_ns: Nanos,
    /// Idle while a task slept for I/O.
    pub iowait_ns: Nanos,
    /// Idle otherwise.
    pub idle_ns: Nanos,
}

impl CpuTimes {
    /// What the CPUs worked: neither idle, nor taken by the hypervisor.
    ///
    /// ```
    /// use schedtrace_core::Nanos;
    /// use schedtrace_core::system::stats::CpuTimes;
    /// assert_eq!(CpuTimes { idle_ns: Nanos(1), ..CpuTimes::default() }.busy_ns(), Nanos::ZERO);
    /// ```
    #[must_use]
    pub fn busy_ns(&self) -> Nanos {
        self.user_ns + self.nice_ns + self.system_ns + self.irq_ns + self.softirq_ns
    }

    fn of(time: &CpuTime) -> Self {
        let ns = |ticks: u64| Nanos(ticks.saturating_mul(TICK.0));
        let later = |ticks: Option<u64>| ns(ticks.unwrap_or(0));
        Self {
            user_ns: ns(time.user),
            nice_ns: ns(time.nice),
            system_ns: ns(time.system),
            irq_ns: later(time.irq),
            softirq_ns: later(time.softirq),
            steal_ns: later(time.steal),
            iowait_ns: later(time.iowait),
            idle_ns: ns(time.idle),
        }
    }

    fn since(&self, before: &Self) -> CpuShares {
        // The kernel may take idle and iowait time back: differences of `Nanos` stop at zero.
        let spent = Self {
            user_ns: self.user_ns - before.user_ns,
            nice_ns: self.nice_ns - before.nice_ns,
            system_ns: self.system_ns - before.system_ns,
            irq_ns: self.irq_ns - before.irq_ns,
            softirq_ns: self.softirq_ns - before.softirq_ns,
            steal_ns: self.steal_ns - before.steal_ns,
            iowait_ns: self.iowait_ns - before.iowait_ns,
            idle_ns: self.idle_ns - before.idle_ns,
        };
        let all = spent.busy_ns() + spent.steal_ns + spent.iowait_ns + spent.idle_ns;
        let of = |part: Nanos| share(part.0, all.0);
        CpuShares {
            busy_ratio: of(spent.busy_ns()),
            user_ratio: of(spent.user_ns + spent.nice_ns),
            system_ratio: of(spent.system_ns),
            irq_ratio: of(spent.irq_ns),
            softirq_ratio: of(spent.softirq_ns),
            steal_ratio: of(spent.steal_ns),
            iowait_ratio: of(spent.iowait_ns),
            idle_ratio: of(spent.idle_ns),
        }
    }
}

/// One CPU's times.
///
/// ```
/// use schedtrace_core::Cpu;
/// use schedtrace_core::system::stats::{CpuTimes, CpuUse};
/// assert_eq!(CpuUse { cpu: Cpu(300), times: CpuTimes::default() }.cpu, Cpu(300));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuUse {
    /// Which CPU.
    pub cpu: Cpu,
    /// What it did since boot.
    #[serde(flatten)]
    pub times: CpuTimes,
}

/// What CPUs did between two readings, as parts of that time: each from 0 to 1, and 1 in all. To a tick of 10 ms, so two
/// readings 200 ms apart tell it to 5 percent of a CPU.
///
/// ```
/// use schedtrace_core::system::stats::CpuShares;
/// assert_eq!(CpuShares::default().busy_ratio, 0.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CpuShares {
    /// Worked: `user`, `system`, `irq` and `softirq` together.
    pub busy_ratio: f64,
    /// In user space, with or without a nice value.
    pub user_ratio: f64,
    /// In the kernel.
    pub system_ratio: f64,
    /// In interrupt handlers.
    pub irq_ratio: f64,
    /// In handlers of software interrupts.
    pub softirq_ratio: f64,
    /// Taken by the hypervisor.
    pub steal_ratio: f64,
    /// Idle while a task slept for I/O.
    pub iowait_ratio: f64,
    /// Idle otherwise.
    pub idle_ratio: f64,
}

/// One CPU between two readings.
///
/// ```
/// use schedtrace_core::system::stats::CpuUseRates;
/// assert_eq!(CpuUseRates::default().shares.idle_ratio, 0.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CpuUseRates {
    /// Which CPU.
    pub cpu: Cpu,
    /// What it did.
    #[serde(flatten)]
    pub shares: CpuShares,
}

/// What happened between two readings.
///
/// ```
/// use schedtrace_core::system::stats::CpuRates;
/// assert!(CpuRates::default().cpus.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuRates {
    /// How long it was from the first to the second.
    pub window_ns: Nanos,
    /// All CPUs together.
    pub total: CpuShares,
    /// Each CPU that was online at both.
    pub cpus: Vec<CpuUseRates>,
    /// Switches from one task to another, and to the idle task.
    pub context_switches_per_second: f64,
    /// Interrupts of all kinds.
    pub interrupts_per_second: f64,
    /// Software interrupts of all kinds.
    pub softirqs_per_second: f64,
    /// Processes and threads that were created.
    pub tasks_created_per_second: f64,
}

impl SystemCpu {
    /// Reads `proc/stat`, `proc/loadavg` and `proc/pressure/cpu` below `root`.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemCpu;
    /// assert!(SystemCpu::read("/".as_ref())?.context_switches > 0);
    /// assert!(SystemCpu::read("/no/such/folder".as_ref()).is_err());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if `proc/stat` cannot be read, or is not as the kernel writes it.
    pub fn read(root: &Path) -> Result<Self> {
        const STAT: &str = "proc/stat";
        let stat = text(root, STAT)?;
        let read_at_ns = monotonic_now();
        // Nothing but ticks per second is asked for, which are the same on every architecture.
        let ticks = ExplicitSystemInfo {
            boot_time_secs: 0,
            ticks_per_second: 1_000_000_000 / TICK.0,
            page_size: 4_096,
            is_little_endian: cfg!(target_endian = "little"),
        };
        let kernel = KernelStats::from_read(stat.as_bytes(), &ticks)
            .map_err(|_| strange(root, STAT, "it is not as the kernel writes it"))?;
        // What is read of CPUs has no numbers, and offline CPUs have no line.
        let numbers = stat.lines().filter_map(|line| line.split_ascii_whitespace().next()?.strip_prefix("cpu"));
        let numbers = numbers.filter(|number| !number.is_empty()).map(|number| number.parse().ok().map(Cpu));
        let cpus = numbers.zip(&kernel.cpu_time);
        let first = |name| stat.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next());
        let count = |name| first(name).and_then(|count| count.parse().ok()).unwrap_or(0);
        Ok(Self {
            read_at_ns,
            booted_at_unix_s: kernel.btime,
            total: CpuTimes::of(&kernel.total),
            cpus: cpus.filter_map(|(cpu, time)| Some(CpuUse { cpu: cpu?, times: CpuTimes::of(time) })).collect(),
            context_switches: kernel.ctxt,
            interrupts: count("intr "),
            softirqs: count("softirq "),
            tasks_created: kernel.processes,
            tasks_runnable: kernel.procs_running,
            tasks_waiting_for_io: kernel.procs_blocked,
            load: text(root, "proc/loadavg").ok().and_then(|text| Load::parse(&text)),
            pressure: Pressure::read(root, "cpu")?,
        })
    }

    /// What happened since an earlier reading of the same machine.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemCpu;
    /// let before = SystemCpu::read("/".as_ref())?;
    /// let rates = SystemCpu::read("/".as_ref())?.since(&before);
    /// assert!(rates.context_switches_per_second >= 0.0);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn since(&self, before: &Self) -> CpuRates {
        let window_ns = self.read_at_ns - before.read_at_ns;
        let rate = |count: fn(&Self) -> u64| per_second(count(before), count(self), window_ns);
        let earlier = |cpu: Cpu| before.cpus.iter().find(|one| one.cpu == cpu);
        let both = self.cpus.iter().filter_map(|now| Some((now, earlier(now.cpu)?)));
        let cpus = both.map(|(now, then)| CpuUseRates { cpu: now.cpu, shares: now.times.since(&then.times) });
        CpuRates {
            window_ns,
            total: self.total.since(&before.total),
            cpus: cpus.collect(),
            context_switches_per_second: rate(|cpu| cpu.context_switches),
            interrupts_per_second: rate(|cpu| cpu.interrupts),
            softirqs_per_second: rate(|cpu| cpu.softirqs),
            tasks_created_per_second: rate(|cpu| cpu.tasks_created),
        }
    }
}

impl Load {
    fn parse(text: &str) -> Option<Self> {
        let load = LoadAverage::from_read(text.as_bytes()).ok()?;
        // The kernel writes two digits behind the point, which `f32` turns into more.
        let two_digits = |load: f32| (f64::from(load) * 100.0).round() / 100.0;
        let known = [load.one, load.five, load.fifteen].iter().all(|load| load.is_finite());
        known.then(|| Self {
            one_minute: two_digits(load.one),
            five_minutes: two_digits(load.five),
            fifteen_minutes: two_digits(load.fifteen),
            tasks: load.max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::write;
    use super::*;

    const BEFORE: &str = "cpu  100 10 50 1000 20 1 2 3 0 0
cpu0 50 5 25 500 10 1 1 1 0 0
cpu300 50 5 25 500 10 0 1 2 0 0
intr 5000 1 2 3
ctxt 9000
btime 1700000000
processes 77
procs_running 2
procs_blocked 1
softirq 600 1 2 3
";

    fn folder(stat: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/stat", stat);
        write(root.path(), "proc/loadavg", "1.25 0.50 0.07 3/94 16787\n");
        write(root.path(), "proc/pressure/cpu", "some avg10=13.43 avg60=20.10 avg300=11.69 total=5\n");
        root
    }

    #[test]
    fn a_machine_with_sparse_cpus_is_read() {
        let root = folder(BEFORE);
        let cpu = SystemCpu::read(root.path()).unwrap();
        assert_eq!(cpu.cpus.iter().map(|one| one.cpu).collect::<Vec<_>>(), [Cpu(0), Cpu(300)]);
        assert_eq!(cpu.total.user_ns, Nanos(1_000_000_000));
        assert_eq!(cpu.total.busy_ns(), Nanos(1_630_000_000));
        assert_eq!(cpu.cpus[1].times.steal_ns, Nanos(20_000_000));
        assert_eq!((cpu.context_switches, cpu.interrupts, cpu.softirqs, cpu.tasks_created), (9_000, 5_000, 600, 77));
        assert_eq!((cpu.tasks_runnable, cpu.tasks_waiting_for_io), (Some(2), Some(1)));
        let load = Load { one_minute: 1.25, five_minutes: 0.5, fifteen_minutes: 0.07, tasks: 94 };
        assert_eq!(cpu.load, Some(load));
        assert_eq!(cpu.pressure.unwrap().some.unwrap().total_ns, Nanos(5_000));
        assert_eq!(cpu.booted_at_unix_s, 1_700_000_000);
        assert!(cpu.read_at_ns > Nanos::ZERO);
    }

    #[test]
    fn rates_are_between_two_readings() {
        let before = SystemCpu { read_at_ns: Nanos(0), ..SystemCpu::read(folder(BEFORE).path()).unwrap() };
        // CPU 300 went off, CPU 1 came: half a second later, 20 ticks of user and 30 of idle time; iowait was taken back.
        let after = "cpu  120 10 50 1030 15 1 2 3 0 0
cpu0 70 5 25 530 5 1 1 1 0 0
cpu1 9 9 9 9 9 9 9 9 0 0
intr 5100
ctxt 9050
btime 1700000000
processes 78
softirq 600
";
        let after = SystemCpu { read_at_ns: Nanos(500_000_000), ..SystemCpu::read(folder(after).path()).unwrap() };
        let rates = after.since(&before);
        assert_eq!(rates.window_ns, Nanos(500_000_000));
        assert_eq!((rates.total.busy_ratio, rates.total.idle_ratio, rates.total.iowait_ratio), (0.4, 0.6, 0.0));
        assert_eq!(rates.cpus.iter().map(|one| one.cpu).collect::<Vec<_>>(), [Cpu(0)]);
        assert_eq!(rates.cpus[0].shares.user_ratio, 0.4);
        assert_eq!((rates.context_switches_per_second, rates.interrupts_per_second), (100.0, 200.0));
        assert_eq!((rates.tasks_created_per_second, rates.softirqs_per_second), (2.0, 0.0));
    }

    #[test]
    fn what_is_no_statistics_is_told_with_its_path() {
        let root = folder("cpu 1 2\n");
        let told = SystemCpu::read(root.path()).unwrap_err().to_string();
        assert!(told.contains("proc/stat: it is not as the kernel writes it"), "{told}");
        std::fs::remove_file(root.path().join("proc/stat")).unwrap();
        assert!(SystemCpu::read(root.path()).unwrap_err().to_string().starts_with("cannot read "));
    }

    #[test]
    fn this_machine_is_read() {
        let before = SystemCpu::read("/".as_ref()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let after = SystemCpu::read("/".as_ref()).unwrap();
        assert!(after.context_switches > before.context_switches && after.interrupts > before.interrupts);
        assert!(!after.cpus.is_empty() && after.load.is_some());
        let rates = after.since(&before);
        assert!(rates.window_ns >= Nanos(30_000_000) && rates.context_switches_per_second > 0.0);
        for shares in rates.cpus.iter().map(|one| one.shares).chain([rates.total]) {
            let all = shares.busy_ratio + shares.steal_ratio + shares.iowait_ratio + shares.idle_ratio;
            assert!((all - 1.0).abs() < 1e-9 || all == 0.0, "{shares:?}");
        }
    }
}
