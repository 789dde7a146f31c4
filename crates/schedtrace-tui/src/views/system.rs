//! What the machine counts, without any event: CPUs, memory, network.

use std::borrow::Cow;
use std::collections::HashMap;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use schedtrace_core::analysis::{GroupBy, ReportName};
use schedtrace_core::system::stats::{CpuRates, MemoryRates, Pressure, Stall, SystemCpu, SystemMemory};

use super::{Cx, View, processes, sampled};
use crate::engine::Wants;
use crate::keys::Action;
use crate::machine::{Machine, Part, Reading, Told};
use crate::sheet::{Column, Row, Sheet, Target, Value};

/// What the machine was asked, or a sentence that says why there is nothing.
pub(super) fn told<'a, T>(
    cx: &Cx<'a>,
    part: impl FnOnce(&'a Machine) -> &'a Told<T>,
) -> Result<&'a T, Cow<'static, str>> {
    match cx.machine.map(part) {
        None => Err(
            "this is a recording, or another machine, of which this was not kept; for this machine run `schedtrace top` \
             without a trace"
                .into(),
        ),
        Some(None) => Err("it is being read".into()),
        Some(Some(Ok(told))) => Ok(told),
        Some(Some(Err(why))) => Err(why.clone().into()),
    }
}

/// A row that is about its first cell.
pub(super) fn named(cells: Vec<Value>) -> Row {
    let name = cells.first().map_or_else(String::new, |cell| cell.shown(Default::default()));
    Row { target: Target::Named(name), depth: 0, cells }
}

/// A table of what was told, or why it is empty.
pub(super) fn sheet<T>(
    title: impl Into<String>,
    columns: &'static [Column],
    told: Result<T, Cow<'static, str>>,
    rows: impl FnOnce(T) -> Vec<Row>,
) -> Sheet {
    match told {
        Ok(told) => Sheet::new(title, columns, rows(told)),
        Err(why) => Sheet::new(title, columns, Vec::new()).or(why),
    }
}

/// The machine at a glance: its CPUs, and who uses them.
pub(super) struct Glance;

impl View for Glance {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        Wants::default()
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Cpu, Part::Tasks, Part::Memory]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        vec![processes::sheet(cx), cpus(cx)]
    }

    fn height(&self, _: &Cx<'_>, _: Rect) -> u16 {
        3
    }

    fn draw(&mut self, cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
        let mut lines = vec![match told(cx, |machine| &machine.cpu) {
            Ok(cpu) => busy(cx, cpu),
            Err(why) => Line::from(why),
        }];
        if let Ok(Reading { now, .. }) = told(cx, |machine| &machine.memory) {
            lines.push(Line::from(format!(
                "memory {} of {} in use, swap {} of {}",
                Value::Bytes(used(now)).shown(cx.origin()),
                Value::Bytes(now.total_bytes).shown(cx.origin()),
                Value::Bytes(now.swap_total_bytes.saturating_sub(now.swap_free_bytes)).shown(cx.origin()),
                Value::Bytes(now.swap_total_bytes).shown(cx.origin()),
            )));
        }
        lines.extend(
            cx.without
                .map(|why| Line::from(format!("no events: {}", crate::sheet::printable(why))).style(cx.theme.warn)),
        );
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::NextPanel, Action::Fold, Action::Tasks, Action::Memory, Action::Doctor]
    }
}

/// What the CPUs did, all together.
fn busy(cx: &Cx<'_>, cpu: &Reading<SystemCpu, CpuRates>) -> Line<'static> {
    let load = cpu.now.load.map_or(String::new(), |load| {
        format!("   load {:.2} {:.2} {:.2}", load.one_minute, load.five_minutes, load.fifteen_minutes)
    });
    let Some(rates) = &cpu.rates else { return Line::from(load.trim_start().to_owned()) };
    let total = &rates.total;
    Line::from(vec![
        Span::styled(format!("{:.0}% busy", total.busy_ratio * 100.0), cx.theme.scale(total.busy_ratio)),
        format!(
            "   user {:.0}%   system {:.0}%   interrupts {:.0}%   stolen {:.0}%   waits for I/O {:.0}%   {} switches/s{load}",
            total.user_ratio * 100.0,
            total.system_ratio * 100.0,
            (total.irq_ratio + total.softirq_ratio) * 100.0,
            total.steal_ratio * 100.0,
            total.iowait_ratio * 100.0,
            crate::sheet::short(rates.context_switches_per_second)
        )
        .into(),
    ])
}

/// CPU by CPU.
pub(super) struct Cpus;

const CPUS: &[Column] = &[
    Column { name: "CPU", about: "Its number.", width: 6, rank: 0 },
    Column { name: "NODE", about: "Its NUMA node.", width: 5, rank: 4 },
    Column { name: "LLC", about: "The lowest CPU under its last-level cache.", width: 5, rank: 4 },
    Column { name: "BUSY", about: "Share of the time in which it worked.", width: 7, rank: 1 },
    Column { name: "USER", about: "In user space.", width: 7, rank: 2 },
    Column { name: "SYSTEM", about: "In the kernel.", width: 7, rank: 2 },
    Column { name: "IRQ", about: "In handlers of interrupts and softirqs.", width: 7, rank: 3 },
    Column { name: "STOLEN", about: "Taken by the hypervisor.", width: 7, rank: 3 },
    Column { name: "I/O", about: "Idle while a task slept for I/O.", width: 7, rank: 3 },
    Column { name: "QUEUE", about: "Tasks that waited for it, on average.", width: 7, rank: 1 },
    Column { name: "WAIT", about: "From ready to running, on average.", width: 8, rank: 1 },
    Column { name: "SLICES", about: "How often a task got it.", width: 9, rank: 3 },
];

fn cpus(cx: &Cx<'_>) -> Sheet {
    let queues = told(cx, |machine| &machine.queues);
    let title = match (cx.machine.and_then(|machine| machine.queues.as_ref()), &queues) {
        (Some(Err(_)), Err(why)) => format!("CPUs; waits are not known: {why}"),
        _ => "CPUs".to_owned(),
    };
    let queues: HashMap<_, _> = queues.iter().flat_map(|queues| queues.iter()).map(|row| (row.cpu, row)).collect();
    sheet(title, CPUS, told(cx, |machine| &machine.cpu), |cpu| {
        let rates = cpu.rates.iter().flat_map(|rates| &rates.cpus);
        let row = |cpu: &schedtrace_core::system::stats::CpuUseRates| {
            let (place, queue, shares) = (cx.meta.topology.get(cpu.cpu), queues.get(&cpu.cpu), &cpu.shares);
            let number = |number: Option<u32>| number.map_or(Value::None, |n| Value::Count(n.into()));
            Row {
                target: Target::Cpu(cpu.cpu),
                depth: 0,
                cells: vec![
                    Value::Count(cpu.cpu.0.into()),
                    number(place.map(|place| place.node)),
                    number(place.map(|place| place.llc)),
                    Value::Ratio(shares.busy_ratio),
                    Value::Ratio(shares.user_ratio),
                    Value::Ratio(shares.system_ratio),
                    Value::Ratio(shares.irq_ratio + shares.softirq_ratio),
                    Value::Ratio(shares.steal_ratio),
                    Value::Ratio(shares.iowait_ratio),
                    queue.map_or(Value::None, |queue| Value::Number(queue.waiting_mean)),
                    queue.and_then(|queue| queue.wait_mean_ns).map_or(Value::None, |ns| Value::Time(ns as u64)),
                    queue.map_or(Value::None, |queue| Value::Rate(queue.timeslices_per_second)),
                ],
            }
        };
        rates.map(row).collect()
    })
    .or_if_empty("it is being read")
}

impl View for Cpus {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        Wants::default()
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Cpu]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let pressure_of = |cpu: &Reading<SystemCpu, CpuRates>| cpu.now.pressure;
        vec![cpus(cx), pressure(told(cx, |machine| &machine.cpu).map(pressure_of))]
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::SortNext, Action::NextPanel]
    }
}

const PRESSURE: &[Column] = &[
    Column { name: "WHO WAITED", about: "At least one task, or all that had something to do.", width: 14, rank: 0 },
    Column { name: "10 S", about: "Share of the last ten seconds.", width: 7, rank: 1 },
    Column { name: "1 MIN", about: "Share of the last minute.", width: 7, rank: 1 },
    Column { name: "5 MIN", about: "Share of the last five minutes.", width: 7, rank: 1 },
    Column { name: "SINCE BOOT", about: "All together.", width: 11, rank: 2 },
];

/// Time lost because something was short.
pub(super) fn pressure(told: Result<Option<Pressure>, Cow<'static, str>>) -> Sheet {
    let row = |(who, stall): (&'static str, Option<Stall>)| {
        let Stall { avg10_percent, avg60_percent, avg300_percent, total_ns } = stall?;
        let shares = [avg10_percent, avg60_percent, avg300_percent].map(|share| Value::Ratio(share / 100.0));
        Some(named([Value::text(who)].into_iter().chain(shares).chain([Value::Time(total_ns.0)]).collect()))
    };
    let stalled = sheet("time lost for want of it", PRESSURE, told, |pressure: Option<Pressure>| {
        let pressure = pressure.unwrap_or_default();
        [("some", pressure.some), ("all", pressure.full)].into_iter().filter_map(row).collect()
    });
    stalled.or_if_empty("this kernel keeps no account of it (CONFIG_PSI is off, or it was started with psi=0)")
}

/// Memory, and what is done with it.
pub(super) struct Memory;

const MEMORY: &[Column] = &[
    Column { name: "MEMORY", about: "Which.", width: 16, rank: 0 },
    Column { name: "NOW", about: "How much.", width: 9, rank: 0 },
    Column { name: "SHARE", about: "Of all; of swap, of all swap.", width: 7, rank: 1 },
    Column { name: "WHAT IT IS", about: "In a sentence.", width: 0, rank: 2 },
];

const FAULTS: &[Column] = &[
    Column { name: "WHAT HAPPENED", about: "Which counter.", width: 20, rank: 0 },
    Column { name: "RATE", about: "How often a second, now.", width: 10, rank: 0 },
    Column { name: "SINCE BOOT", about: "How often.", width: 14, rank: 1 },
    Column { name: "WHAT IT IS", about: "In a sentence.", width: 0, rank: 2 },
];

impl View for Memory {
    fn wants(&self, by: GroupBy, _: u16) -> Wants {
        Wants::default().report(by, ReportName::SystemUse)
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Memory]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        if cx.machine.is_none() {
            return sampled::memory(cx);
        }
        let memory = || told(cx, |machine| &machine.memory);
        if let Err(why) = memory() {
            return vec![Sheet::new("memory", MEMORY, Vec::new()).or(why)];
        }
        vec![
            sheet("memory", MEMORY, memory(), |memory| uses(&memory.now)),
            sheet("what happens", FAULTS, memory(), faults),
            pressure(memory().map(|memory| memory.now.pressure)),
        ]
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::NextPanel, Action::SortNext]
    }
}

/// What new processes could not have without swapping.
fn used(memory: &SystemMemory) -> u64 {
    memory.total_bytes.saturating_sub(memory.available_bytes.unwrap_or(memory.free_bytes))
}

fn uses(memory: &SystemMemory) -> Vec<Row> {
    let swapped = memory.swap_total_bytes.saturating_sub(memory.swap_free_bytes);
    let rows = [
        ("total", Some(memory.total_bytes), "all that the kernel may give out"),
        ("in use", Some(used(memory)), "what cannot be given to others without swapping"),
        ("available", memory.available_bytes, "what new processes could have without swapping: free, and caches"),
        ("free", Some(memory.free_bytes), "nobody uses it"),
        ("anonymous", Some(memory.anonymous_bytes), "stacks and heaps: of no file"),
        ("page cache", Some(memory.cached_bytes), "contents of files, kept for the next that reads them"),
        ("buffers", Some(memory.buffers_bytes), "blocks of disks, kept"),
        ("shared", Some(memory.shared_bytes), "shared between processes, and tmpfs"),
        ("slab", Some(memory.slab_bytes), "the kernel's own objects"),
        ("dirty", Some(memory.dirty_bytes), "changed, and not yet written to its file"),
        ("writeback", Some(memory.writeback_bytes), "being written now"),
        ("swap in use", Some(swapped), "put out to disk"),
    ];
    let row = |(name, bytes, about): (&'static str, Option<u64>, &'static str)| {
        let whole = if name == "swap in use" { memory.swap_total_bytes } else { memory.total_bytes };
        let share = bytes.filter(|_| whole > 0).map(|bytes| bytes as f64 / whole as f64);
        named(vec![
            Value::text(name),
            bytes.map_or(Value::None, Value::Bytes),
            share.map_or(Value::None, Value::Ratio),
            Value::text(about),
        ])
    };
    rows.into_iter().map(row).collect()
}

fn faults(memory: &Reading<SystemMemory, MemoryRates>) -> Vec<Row> {
    let Reading { now, rates } = memory;
    let rates = rates.unwrap_or_default();
    let row = |name: &'static str, rate: f64, total: u64, about: &'static str| {
        let rate = if memory.rates.is_some() { Value::Rate(rate) } else { Value::None };
        named(vec![Value::text(name), rate, Value::Count(total), Value::text(about)])
    };
    let swap = "pages brought back from swap";
    let rows = [
        row("page faults", rates.page_faults_per_second, now.page_faults, "pages touched that were not mapped"),
        row("major faults", rates.major_page_faults_per_second, now.major_page_faults, "those that waited for a disk"),
        row("swapped in", rates.pages_swapped_in_per_second, now.pages_swapped_in, swap),
        row("swapped out", rates.pages_swapped_out_per_second, now.pages_swapped_out, "pages put out to swap"),
    ];
    let killed = named(vec![
        Value::text("killed"),
        Value::None,
        Value::Count(now.oom_kills),
        Value::text("tasks killed because memory was short (the OOM killer)"),
    ]);
    rows.into_iter().chain([killed]).collect()
}

/// Interfaces.
pub(super) struct Network;

const INTERFACES: &[Column] = &[
    Column { name: "INTERFACE", about: "Its name.", width: 16, rank: 0 },
    Column { name: "IN", about: "Bytes received a second.", width: 11, rank: 0 },
    Column { name: "OUT", about: "Bytes sent a second.", width: 11, rank: 0 },
    Column { name: "PACKETS IN", about: "Packets received a second.", width: 10, rank: 1 },
    Column { name: "PACKETS OUT", about: "Packets sent a second.", width: 11, rank: 1 },
    Column { name: "ERRORS", about: "Packets with errors a second, both ways.", width: 8, rank: 1 },
    Column { name: "DROPPED", about: "Packets dropped a second, both ways.", width: 8, rank: 1 },
    Column { name: "ALL IN", about: "Bytes received since boot.", width: 9, rank: 2 },
    Column { name: "ALL OUT", about: "Bytes sent since boot.", width: 9, rank: 2 },
];

impl View for Network {
    fn wants(&self, by: GroupBy, _: u16) -> Wants {
        Wants::default().report(by, ReportName::SystemUse)
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Network]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        if cx.machine.is_none() {
            return sampled::network(cx);
        }
        let network = sheet("interfaces", INTERFACES, told(cx, |machine| &machine.network), |network| {
            let rates = network.rates.iter().flat_map(|rates| &rates.interfaces);
            let rates: HashMap<_, _> = rates.map(|rates| (rates.name.as_str(), rates)).collect();
            let row = |interface: &schedtrace_core::system::stats::Interface| {
                let rates = rates.get(interface.name.as_str());
                let bytes = |bytes: Option<f64>| bytes.map_or(Value::None, Value::ByteRate);
                let rate = |rate: Option<f64>| rate.map_or(Value::None, Value::Rate);
                named(vec![
                    Value::text(interface.name.clone()),
                    bytes(rates.map(|rates| rates.received_bytes_per_second)),
                    bytes(rates.map(|rates| rates.sent_bytes_per_second)),
                    rate(rates.map(|rates| rates.received_packets_per_second)),
                    rate(rates.map(|rates| rates.sent_packets_per_second)),
                    rate(rates.map(|rates| rates.errors_per_second)),
                    rate(rates.map(|rates| rates.dropped_per_second)),
                    Value::Bytes(interface.received_bytes),
                    Value::Bytes(interface.sent_bytes),
                ])
            };
            network.now.interfaces.iter().map(row).collect()
        });
        vec![network.or_if_empty("this machine, or this container, has no network interface")]
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::SortNext, Action::Filter]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::crossterm::event::{Event, KeyCode};
    use schedtrace_core::synthetic::SyntheticHost;

    use crate::{App, Origin, Settings, once};

    /// The view that a key opens, as text.
    fn shown(origin: Origin, key: char) -> String {
        let mut app = App::new(origin, Settings::default()).unwrap();
        let _ = once(&mut app, 160, 50, Duration::from_secs(60)).unwrap();
        let _ = app.event(&Event::Key(KeyCode::Char(key).into()));
        once(&mut app, 160, 50, Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn without_events_the_machine_is_shown_and_what_is_missing() {
        let shown = |key| shown(Origin::procfs("nobody may record here").unwrap(), key);
        let me = format!("[{}]", std::process::id());
        for (key, texts) in [
            ('1', &["nobody may record here", "busy", "CPUs"][..]),
            ('2', &[&me[..], "R runnable", " threads ("]),
            ('3', &["STOLEN", "time lost for want of it"]),
            ('4', &["nobody may record here", "sudo schedtrace top", "setcap"]),
            ('7', &["interrupts now", "/s"]),
            ('8', &["disks now"]),
            ('9', &["scheduler runs"]),
            ('P', &["frequencies now"]),
            ('r', &["page cache", "page faults", "/s"]),
            ('W', &["interfaces", "PACKETS IN"]),
            ('B', &["BPF programs"]),
            // With `live`, that is found out by loading programs.
            #[cfg(not(feature = "live"))]
            ('D', &["what recording builds on", "nobody may record here", "release"]),
        ] {
            let screen = shown(key);
            for text in texts {
                assert!(screen.contains(text), "`{text}` for key {key}:\n{screen}");
            }
        }
    }

    #[cfg(feature = "live")]
    #[test]
    fn live_the_doctor_tries() {
        let screen = shown(Origin::procfs("nobody records here").unwrap(), 'D');
        for text in ["what recording builds on", "privileges", "sched_switch", "release"] {
            assert!(screen.contains(text), "`{text}`:\n{screen}");
        }
    }

    #[test]
    fn of_another_machine_nothing_is_said() {
        let origin = Origin::live(SyntheticHost::new().start(), || (), Default::default()).unwrap();
        let screen = shown(origin, 'r');
        assert!(screen.contains("--events default,system"), "{screen}");
    }
}
