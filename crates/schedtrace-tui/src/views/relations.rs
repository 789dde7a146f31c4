//! Who wakes whom, who takes whose CPU; interrupts.

use schedtrace_core::EventGroup;
use schedtrace_core::analysis::{GroupBy, InterruptSource, ReportName, WakersReport};
use schedtrace_core::system::stats::{InterruptActivity, InterruptKind};

use super::system::{sheet, told};
use super::{Cx, View, interrupts};
use crate::engine::{Range, Wants};
use crate::keys::Action;
use crate::machine::Part;
use crate::sheet::{Column, Row, Sheet, Target, Value};

/// Where such events were recorded, and none happened.
pub(super) fn none_in_this_time(cx: &Cx<'_>) -> &'static str {
    match cx.picture.range {
        Range::All => "such events were recorded, and none happened",
        Range::Newest(_) | Range::Between(..) => "none in this time: 0 looks at all of it",
    }
}

/// Why there is nothing of a group of events: they were not recorded, or there were none.
pub(super) fn nothing_of(cx: &Cx<'_>, name: &str) -> String {
    let group = EventGroup::ALL.iter().find(|(known, _)| *known == name).map(|(_, group)| *group);
    if cx.meta.probes.iter().any(|probe| probe.on && Some(probe.kind.group()) == group) {
        return none_in_this_time(cx).to_owned();
    }
    format!("these events are not recorded: add --events default,{name}")
}

pub(super) fn row(target: Target, cells: Vec<Value>) -> Row {
    Row { target, depth: 0, cells }
}

pub(super) struct Wakers;

const WAKERS: &[Column] = &[
    Column { name: "WAKER", about: "Who woke, or which interrupt.", width: 26, rank: 0 },
    Column { name: "WAKEE", about: "Who was woken.", width: 26, rank: 0 },
    Column { name: "TIMES", about: "How often.", width: 9, rank: 1 },
    Column { name: "P50", about: "From wakeup to CPU: the median.", width: 8, rank: 2 },
    Column { name: "P99", about: "99 of 100 were not longer.", width: 8, rank: 1 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 2 },
    Column { name: "SAME CPU", about: "How often it ran on the waker's CPU.", width: 9, rank: 3 },
];

const PREEMPTIONS: &[Column] = &[
    Column { name: "PREEMPTED", about: "Who lost the CPU.", width: 26, rank: 0 },
    Column { name: "BY", about: "Who got it.", width: 26, rank: 0 },
    Column { name: "TIMES", about: "How often.", width: 9, rank: 1 },
    Column { name: "P50", about: "Until it had a CPU again: the median.", width: 8, rank: 2 },
    Column { name: "P99", about: "99 of 100 were not longer.", width: 8, rank: 1 },
    Column { name: "PRIO", about: "Kernel priority of the first; the lower the sooner.", width: 5, rank: 3 },
    Column { name: "BY PRIO", about: "Of the second.", width: 8, rank: 3 },
];

impl View for Wakers {
    fn wants(&self, by: GroupBy, _: u16) -> Wants {
        Wants::default().report(by, ReportName::Wakers).report(by, ReportName::Preemptions)
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let set = cx.picture.report(cx.by);
        let mut sheets = Vec::new();
        if let Some(wakers) = set.and_then(|set| set.wakers.as_ref()) {
            let rows = wakers.pairs.iter().map(|pair| {
                let latency = &pair.latency.summary;
                row(
                    Target::of(&pair.wakee),
                    vec![
                        Value::text(pair.waker.to_string()),
                        Value::text(pair.wakee.to_string()),
                        Value::Count(latency.count),
                        Value::of(latency, |s| s.p50_ns),
                        Value::of(latency, |s| s.p99_ns),
                        Value::of(latency, |s| s.max_ns),
                        Value::Count(pair.on_wakers_cpu),
                    ],
                )
            });
            sheets.push(
                Sheet::new(placed(wakers), WAKERS, rows.collect())
                    .of(wakers.pairs_total)
                    .or("nobody was woken in this time"),
            );
        }
        if let Some(preemptions) = set.and_then(|set| set.preemptions.as_ref()) {
            let rows = preemptions.pairs.iter().map(|pair| {
                row(
                    Target::of(&pair.preempted),
                    vec![
                        Value::text(pair.preempted.to_string()),
                        Value::text(pair.by.to_string()),
                        Value::Count(pair.preemptions),
                        Value::of(&pair.off_cpu.summary, |s| s.p50_ns),
                        Value::of(&pair.off_cpu.summary, |s| s.p99_ns),
                        Value::Count(pair.preempted_prio.into()),
                        Value::Count(pair.by_prio.into()),
                    ],
                )
            });
            let sheet = Sheet::new("who takes whose CPU", PREEMPTIONS, rows.collect());
            sheets.push(sheet.of(preemptions.pairs_total).or("nobody lost a CPU in this time"));
        }
        sheets
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Open, Action::Explain, Action::NextPanel, Action::Group]
    }
}

/// Who wakes whom; and how many stay near, of those of which that is known.
fn placed(wakers: &WakersReport) -> String {
    let it = &wakers.placement;
    let known = it.same_cpu + it.core + it.llc + it.node + it.cross_node;
    if known == 0 {
        return "who wakes whom".to_owned();
    }
    let of = if it.unknown == 0 { known.to_string() } else { format!("{known} whose place is known") };
    format!("who wakes whom: {:.0}% of {of} stay under their cache", it.llc_local_ratio * 100.0)
}

pub(super) struct Interrupts;

const SOURCES: &[Column] = &[
    Column { name: "SOURCE", about: "Which interrupt, softirq or IPI.", width: 30, rank: 0 },
    Column { name: "TIMES", about: "How often it was served.", width: 9, rank: 1 },
    Column { name: "TIME", about: "All together.", width: 9, rank: 1 },
    Column { name: "SHARE", about: "The same, as a share of the time of one CPU.", width: 7, rank: 1 },
    Column { name: "P50", about: "The median.", width: 8, rank: 2 },
    Column { name: "P99", about: "99 of 100 were not longer.", width: 8, rank: 2 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
];

const VICTIMS: &[Column] = &[
    Column { name: "INTERRUPTED", about: "Whose time it took.", width: 30, rank: 0 },
    Column { name: "TIMES", about: "How often.", width: 9, rank: 1 },
    Column { name: "STOLEN", about: "All together.", width: 9, rank: 0 },
];

const SENT: &[Column] = &[
    Column { name: "IPI", about: "What the other CPU was asked to do.", width: 34, rank: 0 },
    Column { name: "TIMES", about: "How often.", width: 9, rank: 1 },
    Column { name: "TARGETS", about: "CPUs that were interrupted, all together.", width: 9, rank: 1 },
    Column { name: "RATE", about: "How often a second.", width: 9, rank: 2 },
];

const NOW: &[Column] = &[
    Column { name: "SOURCE", about: "Its number or short name.", width: 12, rank: 0 },
    Column { name: "KIND", about: "Interrupt, or softirq.", width: 9, rank: 2 },
    Column { name: "RATE", about: "How often it comes a second.", width: 9, rank: 0 },
    Column { name: "CPU", about: "The CPU on which it comes most often.", width: 5, rank: 1 },
    Column { name: "THERE", about: "How often a second it comes there.", width: 9, rank: 1 },
    Column { name: "WHAT IT IS", about: "What the kernel says of it.", width: 0, rank: 1 },
];

/// How often interrupts come now, as the kernel counts them.
fn interrupts_now(cx: &Cx<'_>) -> Sheet {
    let now = sheet("interrupts now", NOW, told(cx, |machine| &machine.interrupts), |interrupts| {
        let sources = interrupts.rates.iter().flat_map(|rates| &rates.sources);
        let source = |source: &InterruptActivity| {
            let kind = match source.kind {
                InterruptKind::Interrupt => "interrupt",
                InterruptKind::Softirq => "softirq",
            };
            let cells = vec![
                Value::text(source.name.clone()),
                Value::text(kind),
                Value::Rate(source.per_second),
                source.busiest_cpu.map_or(Value::None, |cpu| Value::Count(cpu.0.into())),
                Value::Rate(source.busiest_cpu_per_second),
                Value::text(source.description.clone()),
            ];
            row(Target::Named(format!("{kind} {}", source.name)), cells)
        };
        sources.map(source).collect()
    });
    now.or_if_empty("it is being read")
}

impl View for Interrupts {
    fn machine(&self) -> &'static [Part] {
        &[Part::Interrupts]
    }

    fn wants(&self, by: GroupBy, _: u16) -> Wants {
        Wants::default().report(by, ReportName::Interrupts).report(by, ReportName::Ipis)
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        if cx.without.is_some() {
            return vec![interrupts_now(cx)];
        }
        let set = cx.picture.report(cx.by);
        let mut sheets = Vec::new();
        if let Some(all) = set.and_then(|set| set.interrupts.as_ref()) {
            let rows = all.sources.iter().map(|source| {
                let name = name(&source.source);
                row(
                    Target::Named(name.clone()),
                    vec![
                        Value::text(name),
                        Value::Count(source.count),
                        Value::Time(source.time_ns),
                        Value::Ratio(source.share_ratio),
                        Value::of(&source.latency.summary, |s| s.p50_ns),
                        Value::of(&source.latency.summary, |s| s.p99_ns),
                        Value::of(&source.latency.summary, |s| s.max_ns),
                    ],
                )
            });
            let sheet = Sheet::new("what was served", SOURCES, rows.collect()).of(all.sources_total);
            sheets.push(sheet.or(nothing_of(cx, "irq")));
            let rows = all.interrupted.iter().map(|victim| {
                let cells = vec![
                    Value::text(victim.group.to_string()),
                    Value::Count(victim.count),
                    Value::Time(victim.stolen_ns),
                ];
                row(Target::of(&victim.group), cells)
            });
            sheets.push(
                Sheet::new("whose time it took", VICTIMS, rows.collect())
                    .of(all.interrupted_total)
                    .or(nothing_of(cx, "irq")),
            );
            sheets.push(interrupts::cpus(cx, all));
            sheets.extend(interrupts::raised(all));
        }
        if let Some(ipis) = set.and_then(|set| set.ipis.as_ref()) {
            let rows = ipis.callbacks.iter().map(|sent| {
                let cells = vec![
                    Value::text(sent.callback.clone()),
                    Value::Count(sent.counts.count),
                    Value::Count(sent.counts.targets),
                    Value::Rate(sent.counts.rate_per_second),
                ];
                row(Target::Named(sent.callback.clone()), cells)
            });
            sheets.push(
                Sheet::new("IPIs that were sent", SENT, rows.collect())
                    .of(ipis.callbacks_total)
                    .or(nothing_of(cx, "ipi")),
            );
            sheets.extend(interrupts::sent(cx, ipis));
        }
        sheets.push(interrupts_now(cx));
        sheets
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::NextPanel, Action::Group, Action::SortNext]
    }
}

fn name(source: &InterruptSource) -> String {
    match source {
        InterruptSource::Hardirq { irq, action } => format!("irq {irq} {action}"),
        InterruptSource::Softirq { vector } => format!("softirq {vector}"),
        InterruptSource::Ipi { ipi } => format!("IPI {ipi}"),
    }
}
