//! What a chain comes to: plain sentences, how bad it is, whose doing, and what to do about it.

use std::collections::BTreeMap;

use super::walk::{Key, Node, What};
use super::{ContentionSource, Mechanism, Recommendation, Severity};
use crate::analysis::nested::Served;
use crate::analysis::states::Seen;
use crate::analysis::tasks::Who;
use crate::event::{NameId, Nanos, TaskId};

/// What a step says beside who and when: the interrupt, the futex, the disk, the CPU.
pub(super) fn detail(what: What, seen: &Seen<'_>) -> Option<String> {
    Some(match what {
        What::Nothing => return None,
        What::Served(it) => served(it, seen),
        What::Futex(address) => format!("futex {address}"),
        What::Disk(device, operation) => {
            let operation = operation.name().map_or_else(|| format!("operation {}", operation.0), str::to_owned);
            format!("{operation} of {}", named(device, "an unnamed disk", seen))
        }
        What::Cpu(cpu) => format!("CPU {cpu}"),
    })
}

fn named<'a>(name: NameId, otherwise: &'a str, seen: &'a Seen<'_>) -> &'a str {
    match seen.names.text(name) {
        "" => otherwise,
        text => text,
    }
}

fn served(it: Served, seen: &Seen<'_>) -> String {
    match it {
        Served::Hardirq(irq, action) => format!("interrupt {irq} ({})", named(action, "unnamed", seen)),
        Served::Softirq(vector) => format!("softirq {}", vector.name().unwrap_or("of a later kernel")),
        Served::Ipi(ipi) => format!("inter-processor interrupt {}", ipi.name().unwrap_or("of a later kernel")),
    }
}

/// The step in a sentence. `of` is whose time it is.
pub(super) fn sentence(key: Key, node: &Node, of: &str, seen: &Seen<'_>) -> String {
    let who = key.who.map(|task| seen.tasks.who(task).to_string());
    let who = who.as_deref().unwrap_or("others");
    let detail = detail(key.what, seen);
    let detail = detail.as_deref();
    let time = Nanos(node.ns);
    let times = match node.times {
        1 => "once".to_owned(),
        n => format!("{n} times, at most {} at once", Nanos(node.longest_ns)),
    };
    match key.mechanism {
        Mechanism::Running => format!("{who} ran for {time}"),
        Mechanism::Interrupted => {
            format!("{of} was interrupted for {time} ({times}) by {}", detail.unwrap_or("something"))
        }
        Mechanism::RunQueue => format!("{of} was runnable and waited {time} ({times}) for a CPU"),
        Mechanism::Preempted => format!("{of} lost the CPU and waited {time} ({times}) to get it back"),
        Mechanism::Throttled => {
            format!("{of} was kept from the CPU for {time} ({times}): its cgroup had used up its quota")
        }
        Mechanism::HeldBy => format!("{who} had {} for {time} of that", detail.unwrap_or("the CPU")),
        Mechanism::CpuWakeup => {
            format!("{} was idle for {time} of that ({times}): it had to wake up first", detail.unwrap_or("the CPU"))
        }
        Mechanism::KeptOff => format!(
            "{} was idle for {time} of that ({times}), and {of} did not run: a quota, its affinity, or the scheduler kept it off",
            detail.unwrap_or("the CPU")
        ),
        Mechanism::Io => match detail {
            Some(detail) => format!("{of} slept {time} ({times}) for I/O: {detail}"),
            None => format!("{of} slept {time} ({times}) for I/O"),
        },
        Mechanism::Futex => {
            format!("{of} slept {time} ({times}) at {} until {who} woke it", detail.unwrap_or("a futex"))
        }
        Mechanism::Blocked => format!("{of} slept {time} ({times}) until {who} woke it"),
        Mechanism::Sleep => match detail {
            Some(futex) if matches!(key.what, What::Futex(_)) => {
                format!("{of} slept {time} ({times}) at {futex} until its time was up, or a signal came")
            }
            Some(detail) => format!("{of} slept {time} ({times}) until {detail} woke it"),
            None => format!("{of} slept {time} ({times}) until an interrupt woke it: a timer or a device"),
        },
        Mechanism::NotWoken => format!("{of} slept {time}, and nobody woke it in the window"),
        Mechanism::Stopped => format!("{of} was stopped for {time} ({times}), by a signal or a debugger"),
        Mechanism::Absent => format!("{of} was not there for {time}: it had not begun, or had ended"),
        Mechanism::Unknown if key.what != What::Nothing => {
            format!("it is not known who had {} for {time} of that", detail.unwrap_or("the CPU"))
        }
        Mechanism::Unknown => format!("it is not known what {of} did for {time}"),
    }
}

/// One end of the chain.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    /// What decides about it: that of the step, or of one above it.
    mechanism: Mechanism,
    who: Option<TaskId>,
    what: What,
    /// Whose time it is; none for that of the subject.
    victim: Option<TaskId>,
    ns: u64,
}

/// The ends of all chains: what there is no further reason for.
/// `above` is the step they belong to, and whose that is.
fn leaves(node: &Node, above: Option<(Key, Option<TaskId>)>, victim: Option<TaskId>, out: &mut Vec<Leaf>) {
    for (key, step) in &node.steps {
        if step.steps.is_empty() {
            out.push(leaf(*key, above, victim, step.ns));
        } else {
            let below = if is_of_waker(key.mechanism) { key.who.or(victim) } else { victim };
            leaves(step, Some((*key, victim)), below, out);
        }
    }
}

/// Whether what stands below such a step is the time of whoever ended it.
pub(super) const fn is_of_waker(mechanism: Mechanism) -> bool {
    matches!(mechanism, Mechanism::Futex | Mechanism::Blocked)
}

fn leaf(key: Key, above: Option<(Key, Option<TaskId>)>, victim: Option<TaskId>, ns: u64) -> Leaf {
    let Key { mechanism, who, what, .. } = key;
    // Whoever lets a task go on did not stop it.
    let who = who.filter(|_| mechanism != Mechanism::Stopped);
    let above = above.map(|(key, whose)| (key.mechanism, key.what, whose));
    let (mechanism, what, victim) = match (mechanism, above) {
        (Mechanism::HeldBy, Some((Mechanism::Preempted, ..))) => (Mechanism::Preempted, what, victim),
        (Mechanism::HeldBy, _) => (Mechanism::RunQueue, what, victim),
        // Whoever had the lock worked: that took the time of whoever slept.
        (Mechanism::Running, Some((Mechanism::Futex, futex, sleeper))) => (Mechanism::Futex, futex, sleeper),
        // Whoever had to wake it worked.
        (Mechanism::Running, Some((Mechanism::Blocked, _, sleeper))) => (Mechanism::Blocked, what, sleeper),
        _ => (mechanism, what, victim),
    };
    Leaf { mechanism, who, what, victim, ns }
}

impl Mechanism {
    /// Whether time spent so was kept from the task by something else.
    const fn is_contention(self) -> bool {
        matches!(
            self,
            Self::RunQueue
                | Self::Preempted
                | Self::Throttled
                | Self::KeptOff
                | Self::CpuWakeup
                | Self::Interrupted
                | Self::Io
                | Self::Futex
                | Self::Blocked
                | Self::Stopped
        )
    }
}

/// What was decisive.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) contended_ns: u64,
    pub(super) mechanism: Option<Mechanism>,
    pub(super) source: Option<ContentionSource>,
    /// Whose time was lost, if not the subject's own: that of one it waited for.
    pub(super) victim: Option<TaskId>,
}

/// The mechanism that took most of the time, and whose doing it was. Only what somebody else did counts: `mine` is
/// whose time it is.
pub(super) fn verdict(root: &Node, mine: &[TaskId], seen: &Seen<'_>) -> Verdict {
    let mut all = Vec::new();
    leaves(root, None, None, &mut all);
    all.iter_mut().for_each(|leaf| leaf.victim = leaf.victim.filter(|task| !mine.contains(task)));
    all.retain(|leaf| leaf.mechanism.is_contention() && !leaf.who.is_some_and(|who| mine.contains(&who)));
    let mut by_mechanism = BTreeMap::<Mechanism, u64>::new();
    for leaf in &all {
        *by_mechanism.entry(leaf.mechanism).or_default() += leaf.ns;
    }
    let contended_ns = by_mechanism.values().sum();
    let mechanism =
        by_mechanism.into_iter().max_by_key(|&(mechanism, ns)| (ns, mechanism)).map(|(mechanism, _)| mechanism);
    let mut by_source = BTreeMap::<_, (u64, BTreeMap<Option<TaskId>, u64>)>::new();
    for leaf in all.iter().filter(|leaf| Some(leaf.mechanism) == mechanism) {
        // Behind one task on several CPUs is behind one task.
        let on_cpu = leaf.who.is_some() && matches!(leaf.what, What::Cpu(_));
        let what = if on_cpu { What::Nothing } else { leaf.what };
        // A quota is that of the one whose time it took.
        let quota = leaf.victim.filter(|_| leaf.mechanism == Mechanism::Throttled);
        let (ns, victims) = by_source.entry((leaf.who, what, quota)).or_default();
        *ns += leaf.ns;
        *victims.entry(leaf.victim).or_default() += leaf.ns;
    }
    let source = by_source.into_iter().max_by_key(|(_, (ns, _))| *ns);
    let victim = source.as_ref().and_then(|(_, (_, victims))| victims.iter().max_by_key(|(_, ns)| **ns));
    let victim = victim.and_then(|(victim, _)| *victim);
    let source = source.map(|((who, what, _), (ns, _))| {
        let task: Option<Who> = who.map(|task| seen.tasks.who(task));
        ContentionSource { task, what: detail(what, seen), total_ns: ns, cgroup: None }
    });
    Verdict { contended_ns, mechanism, source, victim }
}

impl Severity {
    /// By the share of the window that was lost.
    pub(super) fn of(contended_ns: u64, window_ns: u64) -> Self {
        match contended_ns as f64 / window_ns.max(1) as f64 {
            ..0.01 => Self::None,
            ..0.05 => Self::Low,
            ..0.2 => Self::Medium,
            ..0.5 => Self::High,
            _ => Self::Critical,
        }
    }
}

/// What to do where there is nothing to explain.
pub(super) fn not_seen(subject: &str) -> Recommendation {
    let action = "choose another subject, or another window".to_owned();
    Recommendation { action, reason: format!("nothing of {subject} was seen in this one") }
}

/// What to do about it, and why that would help.
pub(super) fn recommendation(verdict: &Verdict, subject: &str, seen: &Seen<'_>) -> Recommendation {
    let source = verdict.source.as_ref();
    let task = source.and_then(|source| source.task.as_ref()).map(ToString::to_string);
    let who = task.as_deref().unwrap_or("whoever held the CPU");
    let what = source.and_then(|source| source.what.as_deref());
    let it = verdict.victim.map_or_else(|| subject.to_owned(), |task| seen.tasks.who(task).to_string());
    let (action, reason) = match verdict.mechanism {
        Some(Mechanism::RunQueue | Mechanism::Preempted) => (
            format!(
                "keep {who} off the CPUs that {it} needs (a cpuset or taskset), or give it a lower weight (nice, cpu.weight)"
            ),
            format!("{it} was runnable, and {who} had its CPU"),
        ),
        Some(Mechanism::Throttled) => (
            format!("raise the CPU quota of the cgroup of {it} (cpu.max), or its burst (cpu.max.burst)"),
            format!("{it} was runnable, and its cgroup had no quota left in the period"),
        ),
        Some(Mechanism::KeptOff) => (
            format!("look at the affinity and at the CPU quota of {it}, and at the scheduler in use"),
            format!("{it} was runnable while the CPU that it waited for was idle"),
        ),
        Some(Mechanism::CpuWakeup) => (
            "limit how deep the CPUs sleep (cpuidle governor, /dev/cpu_dma_latency), or keep the work on fewer CPUs"
                .to_owned(),
            format!("{it} waited for idle CPUs to wake up"),
        ),
        Some(Mechanism::Interrupted) => (
            format!(
                "steer {} to other CPUs (/proc/irq/N/smp_affinity, rps_cpus), or move {it} away",
                what.unwrap_or("the interrupts")
            ),
            format!("interrupts took the CPU while {it} ran"),
        ),
        Some(Mechanism::Io) => (
            format!(
                "look at who else uses the disk, at caching and at read-ahead ({})",
                what.unwrap_or("no disk was named: record the event group `block`")
            ),
            format!("{it} slept until the disk was done"),
        ),
        Some(Mechanism::Futex) => (
            format!("shorten what {who} does while it holds {}, or divide the lock", what.unwrap_or("the lock")),
            format!("{it} slept until {who} let go of it"),
        ),
        Some(Mechanism::Blocked) => {
            (format!("look at what {who} does before it wakes {it}"), format!("{it} slept until {who} was done"))
        }
        Some(Mechanism::Stopped) => {
            (format!("see who stops {it}"), format!("{it} was stopped by a signal or a debugger"))
        }
        _ => ("nothing".to_owned(), "nothing kept it from running".to_owned()),
    };
    let reason = match verdict.victim {
        Some(_) => format!("{reason}, and {subject} waited for {it}"),
        None => reason,
    };
    Recommendation { action, reason }
}
