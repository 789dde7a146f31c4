//! What the kernel counted of the whole machine while it was recorded: memory, CPU time, load, pressure, network. Read from
//! `/proc` at times and recorded as events, one for each number.

mod series;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use self::series::{Looks, Numbers, Series};
use super::question::{About, Question};
use super::states::{CpuRef, Observer, Seen};
use super::study::Scope;
use super::tables::Table;
use crate::event::{Cpu, Event, EventKind, Kind, NameId, Nanos};
use crate::system::procfs::TICK;

/// So many numbers are followed: a machine with 1,024 CPUs has 13 for each of them.
const MAX_NUMBERS: usize = 1 << 15;
/// What `/proc/pressure` tells of.
const RESOURCES: [&str; 4] = ["cpu", "memory", "io", "irq"];

/// What the machine counted, of the looks at it that lie in the window. A part that was not looked at is null, and so is a
/// number that the kernel did not tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SystemUseReport {
    /// Memory. None where `meminfo` was not sampled in the window.
    pub memory: Option<MemoryUse>,
    /// CPU time and run queues. None where neither `system_stat` nor `sched_stats` was sampled in the window.
    pub cpus: Option<CpusUse>,
    /// The load averages. None where `loadavg` was not sampled in the window.
    pub load: Option<LoadUse>,
    /// Time lost for want of something. None where `pressure` was not sampled in the window.
    pub pressure: Option<PressureUse>,
    /// Network interfaces. None where `net_dev` was not sampled in the window.
    pub network: Option<NetworkUse>,
    /// Numbers that stand nowhere: their names are not known, or were too many, or they are below zero, or of a moment before
    /// the one that was told last.
    pub others: u64,
}

/// When the machine was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Samples {
    /// How often in the window.
    pub samples: u64,
    /// The first time.
    pub first_ns: Nanos,
    /// The last time: what is called `now` is of then.
    pub last_ns: Nanos,
}

/// Something that rises and falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gauge<T = u64> {
    /// At the last look in the window.
    pub now: T,
    /// The least at any look in the window.
    pub min: T,
    /// The most at any look in the window.
    pub max: T,
}

/// Something that the kernel counts up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counter {
    /// At the last look in the window, since the start of the machine.
    pub now: u64,
    /// How much it grew from the first look in the window to the last. Where it went back in between, what it grew at that
    /// step is not known and not part of it.
    pub growth: u64,
    /// The same per second. None where it was seen only once.
    pub per_second: Option<f64>,
}

/// Memory. What is called `kB` in `/proc/meminfo` are 1,024 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MemoryUse {
    /// When.
    #[serde(flatten)]
    pub at: Samples,
    /// All that the kernel has to give: `MemTotal`.
    pub total_bytes: Option<Gauge>,
    /// What others could not have without swapping: all but `MemAvailable`. None where the total changed in the window.
    pub in_use_bytes: Option<Gauge>,
    /// What programs could have without swapping, by the kernel's estimate: `MemAvailable`.
    pub available_bytes: Option<Gauge>,
    /// Not used at all: `MemFree`.
    pub free_bytes: Option<Gauge>,
    /// Memory of programs that no file stands behind: `AnonPages`.
    pub anonymous_bytes: Option<Gauge>,
    /// Files in memory, shared memory included: `Cached`.
    pub cached_bytes: Option<Gauge>,
    /// Blocks of disks in memory: `Buffers`.
    pub buffers_bytes: Option<Gauge>,
    /// Shared memory and tmpfs: `Shmem`.
    pub shared_bytes: Option<Gauge>,
    /// The kernel's own objects: `Slab`.
    pub slab_bytes: Option<Gauge>,
    /// What has yet to be written to disks: `Dirty`.
    pub dirty_bytes: Option<Gauge>,
    /// What is being written to disks: `Writeback`.
    pub writeback_bytes: Option<Gauge>,
    /// Room to swap to: `SwapTotal`.
    pub swap_total_bytes: Option<Gauge>,
    /// How much of it is used: all but `SwapFree`. None where the room changed in the window.
    pub swap_used_bytes: Option<Gauge>,
    /// How much less was available at the last look than at the first; more if negative.
    pub growth_bytes: Option<i64>,
    /// Touches of pages that were not mapped. This and what follows is of `/proc/vmstat`, and sampled with `system_stat`.
    pub page_faults: Option<Counter>,
    /// Those that took a read from a disk.
    pub major_page_faults: Option<Counter>,
    /// Pages brought back from swap.
    pub pages_swapped_in: Option<Counter>,
    /// Pages written to swap.
    pub pages_swapped_out: Option<Counter>,
    /// Tasks killed for want of memory.
    pub oom_kills: Option<Counter>,
}

/// CPU time, and what the scheduler counts beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpusUse {
    /// When `/proc/stat` was read; where it was not, when `/proc/schedstat` was.
    #[serde(flatten)]
    pub at: Samples,
    /// All CPUs together. None where they were seen only once.
    pub total: Option<CpuTimeShares>,
    /// Each CPU, by number.
    pub cpus: Vec<SampledCpu>,
    /// Switches from one task to another, and to the idle task.
    pub context_switches: Option<Counter>,
    /// Interrupts of all kinds.
    pub interrupts: Option<Counter>,
    /// Software interrupts of all kinds.
    pub softirqs: Option<Counter>,
    /// Processes and threads that were created.
    pub tasks_created: Option<Counter>,
    /// Tasks that run or wait for a CPU.
    pub tasks_runnable: Option<Gauge>,
    /// Tasks that sleep for I/O.
    pub tasks_waiting_for_io: Option<Gauge>,
}

/// What a CPU did between the first look and the last, as parts of that time: each from 0 to 1, and 1 in all. The kernel counts
/// it in ticks of 10 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CpuTimeShares {
    /// Worked: `user`, `system`, `irq` and `softirq` together.
    pub busy_ratio: f64,
    /// In user space, with or without a nice value, guests included.
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
    /// How much time that was, to a tick.
    pub counted_ns: Nanos,
}

/// One CPU, between the first look at it and the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SampledCpu {
    /// Which.
    pub cpu: Cpu,
    /// What it did. None where that was seen only once, or not a tick of it.
    pub shares: Option<CpuTimeShares>,
    /// Its run queue. None where `/proc/schedstat` was not sampled twice.
    pub queue: Option<SampledQueue>,
}

/// One CPU's run queue, between the first look at it and the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SampledQueue {
    /// Part of the time that a task ran there, from 0 to 1.
    pub running_ratio: f64,
    /// How many tasks waited there, on average. The kernel counts a wait when it ends.
    pub waiting_mean: f64,
    /// Times that a task got the CPU.
    pub timeslices_per_second: f64,
    /// From ready to running, on average. None where no task got the CPU.
    pub wait_mean_ns: Option<f64>,
}

/// The load averages: tasks that run, wait for a CPU or sleep uninterruptibly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LoadUse {
    /// When.
    #[serde(flatten)]
    pub at: Samples,
    /// Over one minute.
    pub one_minute: Option<Gauge<f64>>,
    /// Over five minutes.
    pub five_minutes: Option<Gauge<f64>>,
    /// Over fifteen minutes.
    pub fifteen_minutes: Option<Gauge<f64>>,
    /// Tasks that run or wait for a CPU.
    pub tasks_runnable: Option<Gauge>,
    /// Tasks that exist.
    pub tasks: Option<Gauge>,
}

/// How much time was lost for want of something (pressure stall information).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PressureUse {
    /// When.
    #[serde(flatten)]
    pub at: Samples,
    /// By what was short: `cpu`, `memory`, `io`, `irq`, as far as the kernel tells.
    pub resources: Vec<ResourcePressure>,
}

/// What was lost for want of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ResourcePressure {
    /// Which: `cpu`, `memory`, `io` or `irq`.
    pub resource: &'static str,
    /// At least one task was kept waiting.
    pub some: Option<StallUse>,
    /// All tasks that were not idle were kept waiting.
    pub full: Option<StallUse>,
}

/// Time lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StallUse {
    /// Up to the last look in the window, since the start of the machine.
    pub total_ns: Nanos,
    /// From the first look in the window to the last.
    pub stalled_ns: Nanos,
    /// The same as a part of that time, from 0 to 1. None where it was seen only once.
    pub stalled_ratio: Option<f64>,
}

/// What network interfaces carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NetworkUse {
    /// When.
    #[serde(flatten)]
    pub at: Samples,
    /// Each interface, those that carried most bytes in the window first.
    pub interfaces: Vec<InterfaceUse>,
    /// How many there were.
    pub interfaces_total: usize,
}

/// What one interface carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct InterfaceUse {
    /// Its name: text that somebody chose.
    pub name: String,
    /// When it was there.
    #[serde(flatten)]
    pub at: Samples,
    /// It was not there any more at the last look at the others.
    pub gone: bool,
    /// How often it was seen to have begun to count anew: it was taken away and made again. What it carried meanwhile is not known.
    pub resets: u64,
    /// Received.
    pub received_bytes: Option<Counter>,
    /// Received.
    pub received_packets: Option<Counter>,
    /// Received with an error.
    pub receive_errors: Option<Counter>,
    /// Received, but thrown away.
    pub receive_dropped: Option<Counter>,
    /// Sent.
    pub sent_bytes: Option<Counter>,
    /// Sent.
    pub sent_packets: Option<Counter>,
    /// Not sent because of an error.
    pub send_errors: Option<Counter>,
    /// Not sent for want of room.
    pub send_dropped: Option<Counter>,
}

/// What did the machine count of itself?
#[derive(Clone, Debug)]
pub struct SystemUse {
    scope: Scope,
    numbers: Table<(Kind, NameId), Series, MAX_NUMBERS>,
    /// When files were read, by the kind of their numbers.
    looks: BTreeMap<Kind, Looks>,
    others: u64,
}

impl SystemUse {
    fn number(&mut self, kind: Kind, metric: NameId, value: i64, at: Nanos) {
        if !self.scope.contains(at) {
            return;
        }
        // Nothing that is read here is ever below zero.
        let known = u64::try_from(value).ok().filter(|_| self.looks.entry(kind).or_default().look(at));
        match (known, self.numbers.at((kind, metric))) {
            (Some(value), Some(series)) => series.add(at, value),
            (None, Some(_)) => self.others = self.others.saturating_add(1),
            // The table counts these itself.
            (_, None) => {}
        }
    }

    /// When the numbers of a kind were read; none where they were not.
    fn at(&self, kind: Kind) -> Option<Samples> {
        self.looks.get(&kind).map(Looks::samples).filter(|at| at.samples > 0)
    }
}

impl Observer for SystemUse {
    fn happened(&mut self, event: &Event, _: CpuRef, _: &Seen<'_>) {
        let (metric, value) = match event.kind {
            EventKind::SystemStat(it) => (it.metric, it.value),
            EventKind::Meminfo(it) => (it.metric, it.value),
            EventKind::Loadavg(it) => (it.metric, it.value),
            EventKind::Pressure(it) => (it.metric, it.value),
            EventKind::NetDev(it) => (it.metric, it.value),
            EventKind::SchedStats(it) => (it.metric, it.value),
            _ => return,
        };
        self.number(event.kind.kind(), metric, value, event.ts);
    }
}

impl Question for SystemUse {
    type Answer = SystemUseReport;

    fn new(scope: &Scope) -> Self {
        Self { scope: *scope, numbers: Table::default(), looks: BTreeMap::new(), others: 0 }
    }

    fn answer(&self, _: &About, seen: &Seen<'_>) -> SystemUseReport {
        let (numbers, unnamed) = Numbers::named(self.numbers.iter(), seen);
        let of = |kind| numbers.of(kind);
        let cpus = self.at(Kind::SystemStat).or_else(|| self.at(Kind::SchedStats));
        SystemUseReport {
            memory: self.at(Kind::Meminfo).map(|at| MemoryUse::of(at, of(Kind::Meminfo), of(Kind::SystemStat))),
            cpus: cpus.map(|at| CpusUse::of(at, of(Kind::SystemStat), of(Kind::SchedStats))),
            load: self.at(Kind::Loadavg).map(|at| LoadUse::of(at, of(Kind::Loadavg))),
            pressure: self.at(Kind::Pressure).map(|at| PressureUse::of(at, of(Kind::Pressure))),
            network: self.at(Kind::NetDev).map(|at| NetworkUse::of(at, of(Kind::NetDev), self.scope.top())),
            others: self.others.saturating_add(self.numbers.others()).saturating_add(unnamed),
        }
    }
}

/// Numbers of one kind, by name.
type Of<'a> = &'a BTreeMap<&'a str, &'a Series>;

impl MemoryUse {
    fn of(at: Samples, of: Of<'_>, stat: Of<'_>) -> Self {
        let counter = |name| stat.get(name).map(|series| series.counter());
        let bytes = |name| Some(of.get(name)?.gauge().map(|kib| kib.saturating_mul(1_024)));
        let (total, available) = (bytes("MemTotal"), bytes("MemAvailable"));
        let (swap, swap_free) = (bytes("SwapTotal"), bytes("SwapFree"));
        let growth = of.get("MemAvailable").filter(|series| series.is_pair()).map(|series| {
            let signed = |kib: u64| i64::try_from(kib.saturating_mul(1_024)).unwrap_or(i64::MAX);
            signed(series.first()).saturating_sub(signed(series.last()))
        });
        Self {
            at,
            total_bytes: total,
            in_use_bytes: all_but(total, available),
            available_bytes: available,
            free_bytes: bytes("MemFree"),
            anonymous_bytes: bytes("AnonPages"),
            cached_bytes: bytes("Cached"),
            buffers_bytes: bytes("Buffers"),
            shared_bytes: bytes("Shmem"),
            slab_bytes: bytes("Slab"),
            dirty_bytes: bytes("Dirty"),
            writeback_bytes: bytes("Writeback"),
            swap_total_bytes: swap,
            swap_used_bytes: all_but(swap, swap_free),
            growth_bytes: growth,
            page_faults: counter("pgfault"),
            major_page_faults: counter("pgmajfault"),
            pages_swapped_in: counter("pswpin"),
            pages_swapped_out: counter("pswpout"),
            oom_kills: counter("oom_kill"),
        }
    }
}

/// What is not left of a whole. Least and most are known only of a whole that is always the same.
fn all_but(whole: Option<Gauge>, left: Option<Gauge>) -> Option<Gauge> {
    let (whole, left) = (whole.filter(|whole| whole.min == whole.max)?.now, left?);
    let used = |left: u64| whole.saturating_sub(left);
    Some(Gauge { now: used(left.now), min: used(left.max), max: used(left.min) })
}

impl CpusUse {
    fn of(at: Samples, stat: Of<'_>, queues: Of<'_>) -> Self {
        let counter = |name| stat.get(name).map(|series| series.counter());
        let gauge = |name| stat.get(name).map(|series| series.gauge());
        // `cpu7.user`, beside `cpu.user` of all of them together.
        let number = |name: &&str| name.strip_prefix("cpu")?.split_once('.')?.0.parse().ok().map(Cpu);
        let mut cpus: Vec<Cpu> = stat.keys().chain(queues.keys()).filter_map(number).collect();
        cpus.sort_unstable();
        cpus.dedup();
        let cpu = |cpu: Cpu| SampledCpu {
            cpu,
            shares: CpuTimeShares::of(&format!("cpu{cpu}."), stat),
            queue: SampledQueue::of(&format!("cpu{cpu}."), queues),
        };
        Self {
            at,
            total: CpuTimeShares::of("cpu.", stat),
            cpus: cpus.into_iter().map(cpu).collect(),
            context_switches: counter("ctxt"),
            interrupts: counter("intr"),
            softirqs: counter("softirq"),
            tasks_created: counter("processes"),
            tasks_runnable: gauge("procs_running"),
            tasks_waiting_for_io: gauge("procs_blocked"),
        }
    }
}

impl CpuTimeShares {
    /// None where a part is not known: the others would not be parts of the whole. Guests' time is part of `user` and `nice`.
    fn of(prefix: &str, stat: Of<'_>) -> Option<Self> {
        let ticks = |name: &str| stat.get(&*format!("{prefix}{name}")).filter(|series| series.is_pair());
        // The kernel may take idle and iowait time back: so the ends alone, not what it grew in between.
        let ticks = |name: &str| ticks(name).map(|series| series.last().saturating_sub(series.first()));
        let [user, nice, system, irq] = [ticks("user")?, ticks("nice")?, ticks("system")?, ticks("irq")?];
        let [softirq, steal] = [ticks("softirq")?, ticks("steal")?];
        let [iowait, idle] = [ticks("iowait")?, ticks("idle")?];
        let sum = |parts: &[u64]| parts.iter().map(|&part| u128::from(part)).sum::<u128>();
        let all = sum(&[user, nice, system, irq, softirq, steal, iowait, idle]);
        let share = |parts: &[u64]| sum(parts) as f64 / all as f64;
        (all > 0).then(|| Self {
            busy_ratio: share(&[user, nice, system, irq, softirq]),
            user_ratio: share(&[user, nice]),
            system_ratio: share(&[system]),
            irq_ratio: share(&[irq]),
            softirq_ratio: share(&[softirq]),
            steal_ratio: share(&[steal]),
            iowait_ratio: share(&[iowait]),
            idle_ratio: share(&[idle]),
            counted_ns: Nanos(u64::try_from(all.saturating_mul(TICK.0.into())).unwrap_or(u64::MAX)),
        })
    }
}

impl SampledQueue {
    fn of(prefix: &str, queues: Of<'_>) -> Option<Self> {
        let series = |name: &str| queues.get(&*format!("{prefix}{name}")).filter(|series| series.is_pair());
        let (running, waiting, slices) = (series("running_ns")?, series("waiting_ns")?, series("timeslices")?);
        let part = |series: &Series| series.growth() as f64 / series.duration().0 as f64;
        let (waited, count) = (waiting.growth(), slices.growth());
        Some(Self {
            running_ratio: part(running).min(1.0),
            waiting_mean: part(waiting),
            timeslices_per_second: slices.counter().per_second?,
            wait_mean_ns: (count > 0).then(|| waited as f64 / count as f64),
        })
    }
}

impl LoadUse {
    fn of(at: Samples, of: Of<'_>) -> Self {
        let gauge = |name| of.get(name).map(|series| series.gauge());
        let load = |name| gauge(name).map(|load| load.map(|hundredths| hundredths as f64 / 100.0));
        Self {
            at,
            one_minute: load("load1"),
            five_minutes: load("load5"),
            fifteen_minutes: load("load15"),
            tasks_runnable: gauge("runnable"),
            tasks: gauge("tasks"),
        }
    }
}

impl PressureUse {
    fn of(at: Samples, of: Of<'_>) -> Self {
        let stall = |resource: &str, who: &str| of.get(&*format!("{resource}.{who}")).map(|series| series.stall());
        let resources = RESOURCES.into_iter().map(|resource| {
            let (some, full) = (stall(resource, "some"), stall(resource, "full"));
            ResourcePressure { resource, some, full }
        });
        let told = |row: &ResourcePressure| row.some.is_some() || row.full.is_some();
        Self { at, resources: resources.filter(told).collect() }
    }
}

impl NetworkUse {
    fn of(at: Samples, of: Of<'_>, top: usize) -> Self {
        // An interface's name may have a point in it: `eth0.100`.
        let mut by_name: BTreeMap<&str, Vec<(&str, &Series)>> = BTreeMap::new();
        for (name, series) in of {
            if let Some((interface, what)) = name.rsplit_once('.') {
                by_name.entry(interface).or_default().push((what, series));
            }
        }
        let mut interfaces: Vec<_> =
            by_name.into_iter().map(|(name, of)| InterfaceUse::of(name, &of, at.last_ns)).collect();
        interfaces
            .sort_by_key(|one| std::cmp::Reverse((one.moved(|bytes| bytes.growth), one.moved(|bytes| bytes.now))));
        let interfaces_total = interfaces.len();
        interfaces.truncate(top);
        Self { at, interfaces, interfaces_total }
    }
}

impl InterfaceUse {
    fn of(name: &str, of: &[(&str, &Series)], last_ns: Nanos) -> Self {
        let counter = |what| of.iter().find(|(known, _)| *known == what).map(|(_, series)| series.counter());
        let all = || of.iter().map(|(_, series)| series);
        let at = Samples {
            samples: all().map(|series| series.samples()).max().unwrap_or(0),
            first_ns: all().map(|series| series.from()).min().unwrap_or_default(),
            last_ns: all().map(|series| series.until()).max().unwrap_or_default(),
        };
        Self {
            name: name.to_owned(),
            at,
            gone: at.last_ns < last_ns,
            resets: all().map(|series| series.resets()).max().unwrap_or(0),
            received_bytes: counter("rx_bytes"),
            received_packets: counter("rx_packets"),
            receive_errors: counter("rx_errors"),
            receive_dropped: counter("rx_dropped"),
            sent_bytes: counter("tx_bytes"),
            sent_packets: counter("tx_packets"),
            send_errors: counter("tx_errors"),
            send_dropped: counter("tx_dropped"),
        }
    }

    /// Bytes in both directions.
    fn moved(&self, of: impl Fn(Counter) -> u64) -> u64 {
        let bytes = [self.received_bytes, self.sent_bytes].into_iter().flatten();
        bytes.fold(0, |sum, bytes| sum.saturating_add(of(bytes)))
    }
}

impl<T> Gauge<T> {
    /// The same in another unit.
    fn map<U>(self, unit: impl Fn(T) -> U) -> Gauge<U> {
        Gauge { now: unit(self.now), min: unit(self.min), max: unit(self.max) }
    }
}
