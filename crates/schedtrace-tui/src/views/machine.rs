//! The parts of the machine: CPUs, caches, nodes, cgroups.

use std::collections::{BTreeMap, HashMap};

use schedtrace_core::analysis::{DepthStats, Group, GroupBy, ReportName, Summary};

use super::tasks::{COLUMNS, rows};
use super::{Cx, View, sampled};
use crate::engine::Wants;
use crate::keys::Action;
use crate::sheet::{Column, Row, Sheet, Target, Value};

/// One table, by one of these.
pub(super) struct Places(pub(super) GroupBy);

const CPUS: &[Column] = &[
    Column { name: "CPU", about: "Its number.", width: 6, rank: 0 },
    Column { name: "NODE", about: "Its NUMA node.", width: 5, rank: 4 },
    Column { name: "LLC", about: "The lowest CPU under its last-level cache.", width: 5, rank: 4 },
    Column { name: "BUSY", about: "Share of the time in which a task had it; >: not all is known.", width: 7, rank: 1 },
    Column { name: "WAITS", about: "Waits for it, those too that are not over.", width: 7, rank: 3 },
    Column { name: "WAITED", about: "How long, all together.", width: 8, rank: 2 },
    Column { name: "P99", about: "99 of 100 waits were not longer.", width: 8, rank: 1 },
    Column { name: "LONGEST", about: "The longest wait; >: it is not over, or not seen whole.", width: 8, rank: 2 },
    Column { name: "QUEUE", about: "Tasks that waited on its queue, on average.", width: 6, rank: 2 },
    Column { name: "MOST", about: "Most of them at once.", width: 5, rank: 3 },
    Column { name: "SWITCHES", about: "Switches on it.", width: 9, rank: 3 },
    Column { name: "FORCED", about: "Of a task that would have gone on.", width: 8, rank: 5 },
];

impl View for Places {
    fn wants(&self, by: GroupBy, _: u16) -> Wants {
        let wants = Wants::default().sched(self.0);
        if self.0 != GroupBy::Cpu {
            return wants;
        }
        wants.report(GroupBy::Cpu, ReportName::Depth).report(by, ReportName::SystemUse)
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let Some(report) = cx.picture.sched(self.0) else { return Vec::new() };
        if self.0 != GroupBy::Cpu {
            let title = if self.0 == GroupBy::Llc { "last-level caches" } else { "cgroups" };
            let rows = rows(report);
            let total = report.cpu_time.groups_total.max(rows.len());
            let sheet = Sheet::new(title, COLUMNS, rows).of(total).said_without_recorder(&report.completeness);
            return vec![sheet.or("nobody ran in this time: press 0 for all of it")];
        }
        let waits = report.run_queue.groups.iter().filter_map(|row| match row.group {
            Group::Cpu { cpu } => Some((cpu, &row.stats)),
            _ => None,
        });
        let waits: HashMap<_, _> = waits.collect();
        let switches: HashMap<_, _> = report.switches.cpus.iter().map(|row| (row.cpu, &row.counts)).collect();
        let depths = cx.picture.report(GroupBy::Cpu).and_then(|set| set.depth.as_ref());
        let depths: HashMap<_, _> =
            depths.iter().flat_map(|depth| &depth.cpus).map(|row| (row.place, &row.depth)).collect();
        let row = |row: &schedtrace_core::analysis::CpuRow| {
            let (cpu, place) = (row.cpu, cx.meta.topology.get(row.cpu));
            let (stats, depth) = (waits.get(&cpu), depths.get(&cpu));
            let number = |number: Option<u32>| number.map_or(Value::None, |n| Value::Count(n.into()));
            let figure = |of| stats.map_or(Value::None, |stats| Value::of(&stats.wait, of));
            let count = |count: Option<u64>| count.map_or(Value::None, Value::Count);
            Row {
                target: Target::Cpu(cpu),
                depth: 0,
                cells: vec![
                    Value::Count(cpu.0.into()),
                    number(place.map(|place| place.node)),
                    number(place.map(|place| place.llc)),
                    Value::busy(&row.used),
                    count(stats.map(|stats| stats.wait.count + stats.censored.waits + stats.in_loss.waits)),
                    stats.map_or(Value::None, |stats| Value::waited(&stats.wait, [&stats.censored, &stats.in_loss])),
                    figure(|wait| wait.p99_ns),
                    stats.map_or(Value::None, |stats| Value::longest(&stats.wait, [&stats.censored, &stats.in_loss])),
                    depth.map_or(Value::None, |depth: &&DepthStats| Value::Number(depth.mean)),
                    depth.map_or(Value::None, |depth| Value::Count(depth.max.into())),
                    count(switches.get(&cpu).map(|counts| counts.switches)),
                    count(switches.get(&cpu).map(|counts| counts.involuntary)),
                ],
            }
        };
        let rows = report.cpu_time.cpus.iter().map(row).collect();
        let cpus = Sheet::new("CPUs", CPUS, rows).or("nothing is known of any CPU in this time: press 0 for all of it");
        std::iter::once(cpus).chain(sampled::cpus(cx)).collect()
    }

    fn actions(&self) -> &'static [Action] {
        match self.0 {
            GroupBy::Cpu => &[Action::SortNext, Action::Filter, Action::NextPanel, Action::Timeline],
            _ => &[Action::SortNext, Action::Filter, Action::Timeline],
        }
    }
}

/// Nodes, and how evenly they were used.
pub(super) struct Nodes;

const NODES: &[Column] = &[
    Column { name: "PLACE", about: "A NUMA node, or a last-level cache by its lowest CPU.", width: 12, rank: 0 },
    Column { name: "BUSY", about: "CPU time of its CPUs, all together.", width: 9, rank: 1 },
    Column { name: "QUEUE", about: "Tasks that waited there, on average.", width: 8, rank: 1 },
    Column { name: "MOST", about: "Most of them at once.", width: 6, rank: 2 },
    Column { name: "WAITING", about: "Time in which somebody waited there.", width: 9, rank: 2 },
    Column { name: "SHARE", about: "The same, as a share of the time.", width: 7, rank: 2 },
    Column { name: "WAITS", about: "Waits of tasks for a CPU there.", width: 8, rank: 3 },
    Column {
        name: "P99 WAIT",
        about: "99 of 100 of these were not longer; not of a node with several caches.",
        width: 8,
        rank: 1,
    },
    Column { name: "LONGEST", about: "The longest of them.", width: 8, rank: 2 },
];

const BALANCE: &[Column] = &[
    Column { name: "ACROSS", about: "Between which places.", width: 12, rank: 0 },
    Column { name: "PLACES", about: "How many.", width: 7, rank: 1 },
    Column {
        name: "LEAST",
        about: "Load of the one that had least: tasks that ran or waited, for each CPU.",
        width: 7,
        rank: 1,
    },
    Column { name: "MEAN", about: "On average.", width: 7, rank: 1 },
    Column { name: "MOST", about: "Of the one that had most.", width: 7, rank: 1 },
    Column { name: "VARIATION", about: "Standard deviation over mean.", width: 10, rank: 1 },
];

impl View for Nodes {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        Wants::default().report(GroupBy::Cpu, ReportName::Depth).sched(GroupBy::Llc)
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let Some(depth) = cx.picture.report(GroupBy::Cpu).and_then(|set| set.depth.as_ref()) else { return Vec::new() };
        let waits: BTreeMap<u32, &Summary> = cx.picture.sched(GroupBy::Llc).map_or_else(BTreeMap::new, |report| {
            let of = report.run_queue.groups.iter().filter_map(|row| match row.group {
                Group::Llc { llc: Some(llc) } => Some((llc, &row.stats.wait)),
                _ => None,
            });
            of.collect()
        });
        let row = |name: String, depth: &DepthStats, busy_ns: u64, waits: &[&Summary]| Row {
            target: Target::Named(name.clone()),
            depth: u8::from(name.starts_with("LLC")),
            cells: vec![
                Value::text(name),
                Value::Lasted(busy_ns),
                Value::Number(depth.mean),
                Value::Count(depth.max.into()),
                Value::Time(depth.waiting_ns),
                Value::Ratio(depth.waiting_ratio),
                Value::Count(waits.iter().map(|wait| wait.count).sum()),
                // Quantiles of several do not add up to one.
                if let [only] = waits { Value::of(only, |s| s.p99_ns) } else { Value::None },
                waits.iter().max_by_key(|wait| wait.max_ns).map_or(Value::None, |wait| Value::of(wait, |s| s.max_ns)),
            ],
        };
        let mut rows = Vec::new();
        for node in &depth.nodes {
            let of_node = |llc: u32| cx.meta.topology.cpus.iter().any(|cpu| cpu.node == node.place && cpu.llc == llc);
            let below: Vec<_> = depth.llcs.iter().filter(|llc| of_node(llc.place)).collect();
            let waits: Vec<Option<&Summary>> = below.iter().map(|llc| waits.get(&llc.place).copied()).collect();
            let of_node: Vec<_> = waits.iter().flatten().copied().collect();
            rows.push(row(format!("node {}", node.place), &node.depth, node.busy_ns, &of_node));
            rows.extend(
                below
                    .iter()
                    .zip(&waits)
                    .map(|(llc, wait)| row(format!("LLC {}", llc.place), &llc.depth, llc.busy_ns, wait.as_slice())),
            );
        }
        let why = if cx.meta.topology.cpus.is_empty() {
            "the recording does not say which CPUs share a node or a cache: the view `cpus` shows each by itself"
        } else {
            "nothing happened in this time: press 0 for all of it"
        };
        let balance = depth.imbalance.iter().map(|row| Row {
            target: Target::Named(row.across.to_owned()),
            depth: 0,
            cells: vec![
                Value::text(row.across),
                Value::Count(row.places as u64),
                Value::Number(row.least_load),
                Value::Number(row.mean_load),
                Value::Number(row.most_load),
                Value::Ratio(row.variation_ratio),
            ],
        });
        vec![
            Sheet::new("nodes and caches", NODES, rows).or(why),
            Sheet::new("how evenly the load was spread", BALANCE, balance.collect()).or(why),
        ]
    }
}
