//! Each report in a sentence or two, with its own figures: how much there is of it, and who has most.

use std::fmt::Display;

use schedtrace_core::Nanos;
use schedtrace_core::analysis::{
    BlockIoReport, ConservationReport, DepthReport, DispatchReport, FairnessReport, FutexesReport, InterruptSource,
    InterruptsReport, IpisReport, LatencyReport, OutliersReport, PowerReport, PreemptionsReport, Report, ReportSet,
    Summary, SyscallsReport, SystemUseReport, ThreadState, ThreadStatesReport, WakerGroup, WakersReport,
};

use crate::answer::{named, quoted};

/// What a report says; none of one that was not made.
pub(super) fn report(set: &ReportSet) -> Option<String> {
    let latency = set.latency.as_ref().map(latency);
    let all = [
        latency,
        set.states.as_ref().map(states),
        set.depth.as_ref().map(depth),
        set.preemptions.as_ref().map(preemptions),
        set.wakers.as_ref().map(wakers),
        set.conservation.as_ref().map(conservation),
        set.fairness.as_ref().map(fairness),
        set.outliers.as_ref().map(outliers),
        set.interrupts.as_ref().map(interrupts),
        set.ipis.as_ref().map(ipis),
        set.block_io.as_ref().map(block_io),
        set.futexes.as_ref().map(futexes),
        set.dispatch.as_ref().map(dispatch),
        set.power.as_ref().map(power),
        set.syscalls.as_ref().map(syscalls),
        set.system.as_ref().map(system),
    ];
    all.into_iter().flatten().next()
}

/// The overview: how long tasks waited, who waited longest in all, and behind whom.
pub(super) fn overview(report: &Report) -> String {
    let wait = &report.run_queue.total.wait;
    let missing = match report.completeness.lost_total {
        0 => "No event is known to be missing.".to_owned(),
        lost => format!("{lost} events are known to be missing, so the counts are too low."),
    };
    let worst = report.run_queue.groups.first().map_or_else(String::new, |row| {
        let (group, waited) = (named(&row.group), row.stats.wait.total_ns.saturating_add(row.stats.censored.wait_ns));
        let holders = report.holders.groups.iter().find(|held| held.group == row.group);
        let holder = holders.and_then(|held| held.held_by.holders.first());
        let behind = holder.map_or_else(String::new, |holder| {
            format!(", {} of that behind {}", percent(holder.share_ratio), named(&holder.group))
        });
        format!(" {group} waited longest in all: {}{behind}.", Nanos(waited))
    });
    format!(
        "tasks waited for a CPU {} times, {} in all: half of the waits took up to {}, 99% up to {}, 99.9% up to {}, the longest \
         {}.{worst} {missing}",
        wait.count,
        Nanos(wait.total_ns),
        Nanos(wait.p50_ns),
        Nanos(wait.p99_ns),
        Nanos(wait.p99_9_ns),
        Nanos(wait.max_ns),
    )
}

fn percent(ratio: f64) -> String {
    format!("{:.0}%", ratio * 100.0)
}

/// How many, how long in all, and the tail.
fn spread(of: &Summary) -> String {
    format!(
        "{} in all, p50 {}, p99 {}, p99.9 {}, longest {}",
        Nanos(of.total_ns),
        Nanos(of.p50_ns),
        Nanos(of.p99_ns),
        Nanos(of.p99_9_ns),
        Nanos(of.max_ns)
    )
}

/// A sentence about the first of a list, if there is any.
fn first<T>(all: &[T], say: impl FnOnce(&T) -> String) -> String {
    all.first().map_or_else(String::new, |one| format!(" {}", say(one)))
}

fn counted(n: u64, what: impl Display) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn states(report: &ThreadStatesReport) -> String {
    let of = |wanted: fn(ThreadState) -> bool| -> Nanos {
        let rows = report.total.iter().filter(|row| wanted(row.state));
        let all = rows.map(|row| row.lasted.summary.total_ns.saturating_add(row.censored.wait_ns));
        Nanos(all.fold(0, u64::saturating_add))
    };
    let ran = of(|state| state == ThreadState::Running);
    let waited = of(|state| state > ThreadState::Running && state <= ThreadState::AtStart);
    let io = of(|state| state == ThreadState::Io);
    let awake = first(&report.groups, |row| {
        let states = row.states.iter().take(3).map(|time| format!("{} {}", time.state.name(), Nanos(time.total_ns)));
        format!("{} was awake longest: {}.", named(&row.group), states.collect::<Vec<_>>().join(", "))
    });
    format!("threads ran {ran}, waited {waited} for a CPU, and slept {io} for I/O.{awake}")
}

fn latency(report: &LatencyReport) -> String {
    let all = &report.total.latency.summary;
    let worst = first(&report.groups, |row| {
        let of = &row.latency.latency.summary;
        format!("Most of it was {}'s: {} in all, p99 {}.", named(&row.group), Nanos(of.total_ns), Nanos(of.p99_ns))
    });
    format!("woken tasks waited {} for a CPU: {}.{worst}", counted(all.count, "time"), spread(all))
}

fn depth(report: &DepthReport) -> String {
    let total = &report.total;
    let deepest = report.cpus.iter().max_by(|a, b| a.depth.mean.total_cmp(&b.depth.mean));
    let deepest = deepest.map_or_else(String::new, |row| {
        format!(
            " The longest queue was that of CPU {}: {:.2} on average, {} at most.",
            row.place, row.depth.mean, row.depth.max
        )
    });
    let uneven = first(&report.imbalance, |row| {
        format!(
            "Across {}: the load of the least was {:.2}, of the most {:.2}.",
            row.across, row.least_load, row.most_load
        )
    });
    format!(
        "{:.2} tasks waited on average, {} at most, and somebody waited for {} of the time.{deepest}{uneven}",
        total.mean,
        total.max,
        percent(total.waiting_ratio)
    )
}

fn preemptions(report: &PreemptionsReport) -> String {
    let worst = first(&report.pairs, |row| {
        let lost = Nanos(row.off_cpu.summary.total_ns);
        let (who, by) = (named(&row.preempted), named(&row.by));
        format!("{who} lost most to {by}: {}, {lost} in all.", counted(row.preemptions, "time"))
    });
    let throttled = match report.throttled {
        0 => String::new(),
        n => format!(" {} by a CPU quota that was used up.", counted(n, "more time")),
    };
    let all = &report.off_cpu.summary;
    format!(
        "tasks lost the CPU {} while they could run: {}.{worst}{throttled}",
        counted(report.preemptions, "time"),
        spread(all)
    )
}

fn wakers(report: &WakersReport) -> String {
    let worst = first(&report.pairs, |row| {
        let of = &row.latency.summary;
        let (woken, all, p99) = (counted(of.count, "time"), Nanos(of.total_ns), Nanos(of.p99_ns));
        let waker = match &row.waker {
            WakerGroup::Task { group } => named(group),
            other => other.to_string(),
        };
        let wakee = named(&row.wakee);
        format!("Most waiting followed where {waker} woke {wakee}: {woken}, {all} in all, p99 {p99}.")
    });
    let local = percent(report.placement.llc_local_ratio);
    format!(
        "{}; {local} of the woken ran under the cache where they ran before.{worst}",
        counted(report.wakeups, "wakeup")
    )
}

fn conservation(report: &ConservationReport) -> String {
    let of = &report.violations.summary;
    let worst = first(&report.groups, |row| {
        format!("Most of it was {}'s: {}.", named(&row.group), Nanos(row.violations.summary.total_ns))
    });
    format!(
        "a CPU was idle {} while a task that may run there waited elsewhere: {} of all waiting ({}).{worst}",
        counted(of.count, "time"),
        percent(report.violated_ratio),
        spread(of)
    )
}

fn fairness(report: &FairnessReport) -> String {
    let least = report.groups.iter().min_by(|a, b| a.got_ratio.total_cmp(&b.got_ratio));
    let least = least.map_or_else(String::new, |row| {
        let (got, ran, waited) = (percent(row.got_ratio), Nanos(row.run_ns), Nanos(row.wait_ns));
        format!(
            " Of those that are shown, {} got least of what it wanted: {got}, it ran {ran} and waited {waited}.",
            named(&row.group)
        )
    });
    let jain = report.jain.map_or_else(|| "not known".to_owned(), |jain| format!("{jain:.3}"));
    format!(
        "{} wanted the CPUs at once; Jain's index of what they got by weight is {jain} (1 is fair).{least}",
        report.competed
    )
}

fn outliers(report: &OutliersReport) -> String {
    let far = &report.far_out;
    let worst = first(&report.groups, |row| {
        format!(
            "{} stands out: its p99 is {}, a score of {:.1} where 3.5 is the limit.",
            named(&row.group),
            Nanos(row.p99_ns),
            row.score
        )
    });
    format!(
        "{} of {} waits are far out, beyond {}: {} of all waiting.{worst}",
        far.count,
        report.waits.summary.count,
        Nanos(report.fences.outer_ns),
        percent(far.total_ratio)
    )
}

fn interrupts(report: &InterruptsReport) -> String {
    let total = &report.total;
    let worst = first(&report.sources, |row| {
        let source = match &row.source {
            InterruptSource::Hardirq { irq, action } => format!("interrupt {irq} ({})", quoted(action)),
            InterruptSource::Softirq { vector } => format!("softirq {vector}"),
            InterruptSource::Ipi { ipi } => format!("inter-processor interrupt {ipi}"),
        };
        format!("{source} took most: {}, {} in all.", counted(row.count, "time"), Nanos(row.time_ns))
    });
    let stolen = first(&report.interrupted, |row| {
        format!("It was taken from {} first: {}.", named(&row.group), Nanos(row.stolen_ns))
    });
    format!(
        "devices' interrupts took {}, software interrupts {}, other CPUs' {}.{worst}{stolen}",
        Nanos(total.hardirq_ns),
        Nanos(total.softirq_ns),
        Nanos(total.ipi_ns)
    )
}

fn ipis(report: &IpisReport) -> String {
    let worst = first(&report.pairs, |row| {
        let callback = quoted(&row.callback);
        format!("Most went from CPU {} to CPU {} for {callback}: {}.", row.from, row.to, row.counts.count)
    });
    let who = first(&report.senders, |row| format!("{} sent most: {}.", named(&row.group), row.counts.count));
    format!(
        "CPUs interrupted others {}, {:.0} a second.{worst}{who}",
        counted(report.sent.count, "time"),
        report.sent.rate_per_second
    )
}

fn block_io(report: &BlockIoReport) -> String {
    let total = &report.total;
    let worst = report.operations.iter().max_by_key(|row| row.latency.summary.total_ns);
    let worst = worst.map_or_else(String::new, |row| {
        let of = &row.latency.summary;
        format!(
            " Most time went to {} of {}: p99 {}, longest {}.",
            row.operation,
            quoted(&row.device),
            Nanos(of.p99_ns),
            Nanos(of.max_ns)
        )
    });
    let who = first(&report.groups, |row| {
        format!("{} asked for most: {}.", named(&row.group), counted(row.requests, "request"))
    });
    format!("disks served {}, {} failed.{worst}{who}", counted(total.requests, "request"), total.failed)
}

fn futexes(report: &FutexesReport) -> String {
    let worst = first(&report.futexes, |row| {
        let of = &row.counts.latency.summary;
        let waker =
            row.wakers.first().map_or_else(String::new, |waker| format!(", mostly until {} woke them", waker.task));
        format!(
            "Most time was at futex {} of {}[{}]: {} by {}{waker}.",
            row.address,
            row.comm,
            row.pid,
            Nanos(of.total_ns),
            counted(row.waiters, "thread")
        )
    });
    let total = &report.total;
    format!("threads waited at futexes {}: {}.{worst}", counted(total.waits, "time"), spread(&total.latency.summary))
}

fn dispatch(report: &DispatchReport) -> String {
    let worst = first(&report.queues, |row| {
        let of = &row.counts.latency.summary;
        format!("{} had most of it: p99 {}, longest {}.", row.dsq, Nanos(of.p99_ns), Nanos(of.max_ns))
    });
    let total = &report.total;
    format!(
        "tasks were put into dispatch queues {}: {} in them.{worst}",
        counted(total.inserts, "time"),
        spread(&total.latency.summary)
    )
}

fn power(report: &PowerReport) -> String {
    let most = report.states.iter().max_by_key(|row| row.time.time_ns);
    let most = most.map_or_else(
        || "no idle state was seen".to_owned(),
        |row| {
            format!(
                "CPUs were longest in idle state {}: {}, {}",
                row.time.state,
                counted(row.time.entries, "time"),
                Nanos(row.time.time_ns)
            )
        },
    );
    let slowest = report.cpus.iter().filter_map(|row| Some((row.cpu, row.frequency?)));
    let slowest = slowest.min_by(|(_, a), (_, b)| a.mean_khz.total_cmp(&b.mean_khz));
    let slowest = slowest.map_or_else(String::new, |(cpu, frequency)| {
        format!(" CPU {cpu} was slowest: {:.0} MHz on average.", frequency.mean_khz / 1e3)
    });
    format!("{most}.{slowest}")
}

fn system(report: &SystemUseReport) -> String {
    let busy = report.cpus.as_ref().and_then(|cpus| cpus.total);
    let busy = busy.map(|total| format!("CPUs were {:.1} % busy", total.busy_ratio * 100.0));
    let memory = report.memory.and_then(|memory| Some((memory.in_use_bytes?.now, memory.total_bytes?.now)));
    let memory = memory.map(|(used, total)| format!("{used} of {total} bytes of memory were in use"));
    let load = report.load.and_then(|load| load.one_minute).map(|load| format!("the load was {:.2}", load.now));
    let stalls = report.pressure.iter().flat_map(|pressure| &pressure.resources);
    let stalls = stalls.filter_map(|row| Some((row.resource, row.some?.stalled_ratio?)));
    let stalls = stalls.max_by(|(_, a), (_, b)| a.total_cmp(b)).filter(|(_, ratio)| *ratio > 0.0);
    let stalls =
        stalls.map(|(what, ratio)| format!("tasks waited for want of {what} {:.1} % of the time", ratio * 100.0));
    let network = report.network.as_ref().and_then(|network| network.interfaces.first());
    let network =
        network.and_then(|one| Some((&one.name, one.received_bytes?.per_second?, one.sent_bytes?.per_second?)));
    let network = network.map(|(name, received, sent)| {
        format!("{} carried most: {received:.0} bytes/s in, {sent:.0} out", quoted(name))
    });
    let parts: Vec<_> = [busy, memory, load, stalls, network].into_iter().flatten().collect();
    if parts.is_empty() {
        "0 numbers of the machine were sampled.".to_owned()
    } else {
        format!("{}.", parts.join("; "))
    }
}

fn syscalls(report: &SyscallsReport) -> String {
    let worst = first(&report.failures, |row| {
        let who =
            row.groups.first().map_or_else(String::new, |task| format!(", most of them {}'s", named(&task.group)));
        format!("Most often number {} with errno {}: {}{who}.", row.number, row.errno, counted(row.count, "time"))
    });
    let slow = report.calls.iter().max_by_key(|row| row.latency.summary.total_ns);
    let slow = slow.map_or_else(String::new, |row| {
        let of = &row.latency.summary;
        format!(" Number {} took longest in all: {}, p99 {}.", row.number, Nanos(of.total_ns), Nanos(of.p99_ns))
    });
    format!("{} failed.{worst}{slow}", counted(report.failed, "system call"))
}
