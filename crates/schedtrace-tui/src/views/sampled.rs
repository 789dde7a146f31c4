//! What a machine counted while it was recorded: memory, CPUs, load, pressure, network, of the time that is looked at.

use schedtrace_core::analysis::{
    Counter, CpuTimeShares, CpusUse, Gauge, InterfaceUse, LoadUse, MemoryUse, PressureUse, SampledCpu, SampledQueue,
    Samples, StallUse, SystemUseReport,
};
use schedtrace_core::{Kind, Nanos};

use super::Cx;
use super::relations::none_in_this_time;
use super::system::named;
use crate::sheet::{Column, Row, Sheet, Target, Value};

const MEMORY: &[Column] = &[
    Column { name: "MEMORY", about: "Which.", width: 16, rank: 0 },
    Column { name: "LAST", about: "How much, when it was sampled last in this time.", width: 9, rank: 0 },
    Column { name: "SHARE", about: "Of all; of swap, of all swap.", width: 7, rank: 1 },
    Column { name: "LEAST", about: "The least of all samples in this time.", width: 9, rank: 1 },
    Column { name: "MOST", about: "The most of them.", width: 9, rank: 1 },
    Column { name: "WHAT IT IS", about: "In a sentence.", width: 0, rank: 2 },
];

const FAULTS: &[Column] = &[
    Column { name: "WHAT HAPPENED", about: "Which counter.", width: 20, rank: 0 },
    Column { name: "RATE", about: "How often a second, from the first sample to the last.", width: 10, rank: 0 },
    Column { name: "TIMES", about: "How often in this time.", width: 9, rank: 1 },
    Column { name: "SINCE BOOT", about: "How often up to the last sample.", width: 14, rank: 1 },
    Column { name: "WHAT IT IS", about: "In a sentence.", width: 0, rank: 2 },
];

const CPUS: &[Column] = &[
    Column { name: "CPU", about: "Its number.", width: 6, rank: 0 },
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

const LOAD: &[Column] = &[
    Column { name: "LOAD", about: "What.", width: 24, rank: 0 },
    Column { name: "LAST", about: "How much, when it was sampled last in this time.", width: 9, rank: 0 },
    Column { name: "LEAST", about: "The least of all samples in this time.", width: 9, rank: 1 },
    Column { name: "MOST", about: "The most of them.", width: 9, rank: 1 },
    Column { name: "RATE", about: "How often a second, from the first sample to the last.", width: 10, rank: 1 },
];

const PRESSURE: &[Column] = &[
    Column { name: "WANT OF", about: "What was short.", width: 8, rank: 0 },
    Column { name: "WHO WAITED", about: "At least one task, or all that had something to do.", width: 10, rank: 0 },
    Column { name: "SHARE", about: "Of the time from the first sample to the last.", width: 7, rank: 1 },
    Column { name: "LOST", about: "How long, in this time.", width: 9, rank: 1 },
    Column { name: "SINCE BOOT", about: "All together.", width: 11, rank: 2 },
];

const INTERFACES: &[Column] = &[
    Column { name: "INTERFACE", about: "Its name.", width: 16, rank: 0 },
    Column { name: "IN", about: "Bytes received a second.", width: 11, rank: 0 },
    Column { name: "OUT", about: "Bytes sent a second.", width: 11, rank: 0 },
    Column { name: "PACKETS IN", about: "Packets received a second.", width: 10, rank: 1 },
    Column { name: "PACKETS OUT", about: "Packets sent a second.", width: 11, rank: 1 },
    Column { name: "ERRORS", about: "Packets with errors in this time, both ways.", width: 8, rank: 1 },
    Column { name: "DROPPED", about: "Packets dropped in this time, both ways.", width: 8, rank: 1 },
    Column { name: "ALL IN", about: "Bytes received since boot.", width: 9, rank: 2 },
    Column { name: "ALL OUT", about: "Bytes sent since boot.", width: 9, rank: 2 },
    Column { name: "REMARK", about: "Whether it went, or began to count anew.", width: 0, rank: 2 },
];

/// What was sampled in the time that is looked at; none as long as nobody knows.
pub(super) fn report<'a>(cx: &Cx<'a>) -> Option<&'a SystemUseReport> {
    cx.picture.report(cx.by)?.system.as_ref()
}

/// A table of it, which says of when it is, or why there is nothing.
fn sheet<T>(
    cx: &Cx<'_>,
    (what, kind): (&str, Kind),
    columns: &'static [Column],
    part: Option<(Samples, T)>,
    rows: impl FnOnce(T) -> Vec<Row>,
) -> Sheet {
    match part {
        Some((at, part)) => Sheet::new(format!("{what} {}", when(cx, at)), columns, rows(part)),
        None => Sheet::new(what, columns, Vec::new()).or(nothing(cx, kind)),
    }
}

/// Why there are no samples of a kind.
fn nothing(cx: &Cx<'_>, kind: Kind) -> &'static str {
    match cx.meta.probes.iter().any(|probe| probe.on && probe.kind == kind) {
        true => none_in_this_time(cx),
        false => "this was not sampled when it was recorded: schedtrace record --events default,system does",
    }
}

/// Of which moments something is: in seconds of the recording.
fn when(cx: &Cx<'_>, at: Samples) -> String {
    let second = |at: Nanos| format!("{:.3} s", (at - cx.origin()).0 as f64 / 1e9);
    match at.samples {
        1 => format!("at {}: one sample, no rates", second(at.last_ns)),
        samples => format!("between {} and {}: {samples} samples", second(at.first_ns), second(at.last_ns)),
    }
}

fn bytes(bytes: Option<u64>) -> Value {
    bytes.map_or(Value::None, Value::Bytes)
}

/// Memory, what happened to it, and the time that was lost for want of it.
pub(super) fn memory(cx: &Cx<'_>) -> Vec<Sheet> {
    let Some(report) = report(cx) else { return Vec::new() };
    let memory = || report.memory.as_ref().map(|memory| (memory.at, memory));
    let mut sheets = vec![sheet(cx, ("memory", Kind::Meminfo), MEMORY, memory(), uses)];
    if report.memory.is_some() {
        let faults = sheet(cx, ("what happened", Kind::SystemStat), FAULTS, memory(), faults);
        sheets.push(faults.or_if_empty("no number of /proc/vmstat was sampled when this was recorded: schedtrace record --events default,system does"));
        sheets.push(pressure(cx, report, &["memory"]));
    }
    sheets
}

fn uses(memory: &MemoryUse) -> Vec<Row> {
    let (whole, swap) = (memory.total_bytes, memory.swap_total_bytes);
    let rows = [
        ("total", whole, whole, "all that the kernel may give out"),
        ("in use", memory.in_use_bytes, whole, "what cannot be given to others without swapping"),
        (
            "available",
            memory.available_bytes,
            whole,
            "what new processes could have without swapping: free, and caches",
        ),
        ("free", memory.free_bytes, whole, "nobody uses it"),
        ("anonymous", memory.anonymous_bytes, whole, "stacks and heaps: of no file"),
        ("page cache", memory.cached_bytes, whole, "contents of files, kept for the next that reads them"),
        ("buffers", memory.buffers_bytes, whole, "blocks of disks, kept"),
        ("shared", memory.shared_bytes, whole, "shared between processes, and tmpfs"),
        ("slab", memory.slab_bytes, whole, "the kernel's own objects"),
        ("dirty", memory.dirty_bytes, whole, "changed, and not yet written to its file"),
        ("writeback", memory.writeback_bytes, whole, "being written then"),
        ("swap in use", memory.swap_used_bytes, swap, "put out to disk"),
    ];
    let row = |(name, gauge, whole, about): (&'static str, Option<Gauge>, Option<Gauge>, &'static str)| {
        let whole = whole.map(|whole| whole.now).filter(|&whole| whole > 0);
        let share = gauge.zip(whole).map(|(part, whole)| part.now as f64 / whole as f64);
        named(vec![
            Value::text(name),
            bytes(gauge.map(|gauge| gauge.now)),
            share.map_or(Value::None, Value::Ratio),
            bytes(gauge.map(|gauge| gauge.min)),
            bytes(gauge.map(|gauge| gauge.max)),
            Value::text(about),
        ])
    };
    rows.into_iter().map(row).collect()
}

fn faults(memory: &MemoryUse) -> Vec<Row> {
    let rows = [
        ("page faults", memory.page_faults, "pages touched that were not mapped"),
        ("major faults", memory.major_page_faults, "those that waited for a disk"),
        ("swapped in", memory.pages_swapped_in, "pages brought back from swap"),
        ("swapped out", memory.pages_swapped_out, "pages put out to swap"),
        ("killed", memory.oom_kills, "tasks killed because memory was short (the OOM killer)"),
    ];
    let row = |(name, counter, about): (&'static str, Option<Counter>, &'static str)| {
        let Counter { now, growth, per_second } = counter?;
        let times = per_second.map_or(Value::None, |_| Value::Count(growth));
        Some(named(vec![
            Value::text(name),
            per_second.map_or(Value::None, Value::Rate),
            times,
            Value::Count(now),
            Value::text(about),
        ]))
    };
    rows.into_iter().filter_map(row).collect()
}

/// Time lost for want of these.
pub(super) fn pressure(cx: &Cx<'_>, report: &SystemUseReport, of: &[&str]) -> Sheet {
    let part = report.pressure.as_ref().map(|pressure| (pressure.at, pressure));
    let rows = |pressure: &PressureUse| -> Vec<Row> {
        let of = pressure.resources.iter().filter(|row| of.contains(&row.resource));
        let rows = of.flat_map(|row| {
            [("some", row.some), ("all", row.full)].into_iter().filter_map(|(who, stall)| {
                let StallUse { total_ns, stalled_ns, stalled_ratio } = stall?;
                let (share, lost) = match stalled_ratio {
                    Some(share) => (Value::Ratio(share), Value::Time(stalled_ns.0)),
                    None => (Value::None, Value::None),
                };
                Some(Row {
                    target: Target::Named(format!("{} {who}", row.resource)),
                    depth: 0,
                    cells: vec![Value::text(row.resource), Value::text(who), share, lost, Value::Time(total_ns.0)],
                })
            })
        });
        rows.collect()
    };
    let stalled = sheet(cx, ("time lost for want of it", Kind::Pressure), PRESSURE, part, rows);
    stalled.or_if_empty("that kernel kept no account of it (CONFIG_PSI was off, or it was started with psi=0)")
}

/// What the machine counted of its CPUs, where it was sampled.
pub(super) fn cpus(cx: &Cx<'_>) -> Vec<Sheet> {
    let Some(report) = report(cx) else { return Vec::new() };
    let mut sheets = Vec::new();
    if let Some(cpus) = &report.cpus {
        let rows = |cpus: &CpusUse| cpus.cpus.iter().map(cpu).collect();
        let counted = sheet(cx, ("as the machine counted", Kind::SystemStat), CPUS, Some((cpus.at, cpus)), rows);
        sheets.push(counted.or_if_empty("only all of them together were sampled"));
    }
    if report.cpus.is_some() || report.load.is_some() {
        let at = report.load.map(|load| load.at).or(report.cpus.as_ref().map(|cpus| cpus.at)).unwrap_or_default();
        let part = (report.load.as_ref(), report.cpus.as_ref());
        sheets.push(sheet(cx, ("load", Kind::Loadavg), LOAD, Some((at, part)), |(load, cpus)| load_rows(load, cpus)));
    }
    if report.pressure.is_some() {
        sheets.push(pressure(cx, report, &["cpu", "irq"]));
    }
    sheets
}

fn cpu(cpu: &SampledCpu) -> Row {
    let share =
        |of: fn(&CpuTimeShares) -> f64| cpu.shares.as_ref().map_or(Value::None, |shares| Value::Ratio(of(shares)));
    let queue = |of: fn(&SampledQueue) -> Value| cpu.queue.as_ref().map_or(Value::None, of);
    Row {
        target: Target::Cpu(cpu.cpu),
        depth: 0,
        cells: vec![
            Value::Count(cpu.cpu.0.into()),
            share(|shares| shares.busy_ratio),
            share(|shares| shares.user_ratio),
            share(|shares| shares.system_ratio),
            share(|shares| shares.irq_ratio + shares.softirq_ratio),
            share(|shares| shares.steal_ratio),
            share(|shares| shares.iowait_ratio),
            queue(|queue| Value::Number(queue.waiting_mean)),
            queue(|queue| queue.wait_mean_ns.map_or(Value::None, |ns| Value::Time(ns as u64))),
            queue(|queue| Value::Rate(queue.timeslices_per_second)),
        ],
    }
}

fn load_rows(load: Option<&LoadUse>, cpus: Option<&CpusUse>) -> Vec<Row> {
    let row = |name: &'static str, [last, least, most]: [Value; 3], rate: Value| {
        named(vec![Value::text(name), last, least, most, rate])
    };
    let average = |name, gauge: Option<Gauge<f64>>| {
        let Gauge { now, min, max } = gauge?;
        Some(row(name, [now, min, max].map(Value::Number), Value::None))
    };
    let tasks = |name, gauge: Option<Gauge>| {
        let Gauge { now, min, max } = gauge?;
        Some(row(name, [now, min, max].map(Value::Count), Value::None))
    };
    let rate = |name, counter: Option<Counter>| {
        let rate = counter?.per_second?;
        Some(row(name, [Value::None, Value::None, Value::None], Value::Rate(rate)))
    };
    let rows = [
        average("1 minute", load.and_then(|load| load.one_minute)),
        average("5 minutes", load.and_then(|load| load.five_minutes)),
        average("15 minutes", load.and_then(|load| load.fifteen_minutes)),
        tasks("runnable tasks", load.and_then(|load| load.tasks_runnable)),
        tasks("tasks that wait for I/O", cpus.and_then(|cpus| cpus.tasks_waiting_for_io)),
        tasks("all tasks", load.and_then(|load| load.tasks)),
        rate("switches", cpus.and_then(|cpus| cpus.context_switches)),
        rate("interrupts", cpus.and_then(|cpus| cpus.interrupts)),
        rate("softirqs", cpus.and_then(|cpus| cpus.softirqs)),
        rate("new tasks", cpus.and_then(|cpus| cpus.tasks_created)),
    ];
    rows.into_iter().flatten().collect()
}

/// What interfaces carried.
pub(super) fn network(cx: &Cx<'_>) -> Vec<Sheet> {
    let Some(report) = report(cx) else { return Vec::new() };
    let part = report.network.as_ref().map(|network| (network.at, network));
    let total = report.network.as_ref().map_or(0, |network| network.interfaces_total);
    let interfaces = sheet(cx, ("interfaces", Kind::NetDev), INTERFACES, part, |network| {
        network.interfaces.iter().map(interface).collect()
    });
    vec![interfaces.of(total).or_if_empty("that machine, or that container, had no network interface")]
}

fn interface(interface: &InterfaceUse) -> Row {
    let rate = |counter: Option<Counter>, value: fn(f64) -> Value| {
        counter.and_then(|counter| counter.per_second).map_or(Value::None, value)
    };
    let times = |both: [Option<Counter>; 2]| {
        let [one, other] = both.map(|counter| counter.filter(|counter| counter.per_second.is_some()));
        one.zip(other).map_or(Value::None, |(one, other)| Value::Count(one.growth.saturating_add(other.growth)))
    };
    let mut remarks = Vec::new();
    if interface.gone {
        remarks.push("gone".to_owned());
    }
    if interface.resets > 0 {
        remarks.push(format!("counted anew {}x", interface.resets));
    }
    named(vec![
        Value::text(interface.name.clone()),
        rate(interface.received_bytes, Value::ByteRate),
        rate(interface.sent_bytes, Value::ByteRate),
        rate(interface.received_packets, Value::Rate),
        rate(interface.sent_packets, Value::Rate),
        times([interface.receive_errors, interface.send_errors]),
        times([interface.receive_dropped, interface.send_dropped]),
        bytes(interface.received_bytes.map(|bytes| bytes.now)),
        bytes(interface.sent_bytes.map(|bytes| bytes.now)),
        Value::text(remarks.join(", ")),
    ])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::crossterm::event::{Event, KeyCode};

    use crate::{App, Origin, Settings, once};

    fn press(app: &mut App, keys: &str) -> String {
        for key in keys.chars() {
            let _ = app.event(&Event::Key(KeyCode::Char(key).into()));
            let _ = once(app, 160, 60, Duration::from_secs(60)).unwrap();
        }
        once(app, 160, 60, Duration::from_secs(60)).unwrap()
    }

    fn of(trace: &str) -> App {
        let mut app = App::new(Origin::trace(trace.as_ref()).unwrap(), Settings::default()).unwrap();
        let _ = once(&mut app, 160, 60, Duration::from_secs(60)).unwrap();
        app
    }

    #[test]
    fn samples_are_those_of_the_time_that_is_looked_at() {
        let mut app = of("../schedtrace/tests/every-event/events.schedtrace");
        let screen = press(&mut app, "r");
        assert!(screen.contains("memory between 0.160 s and 7.089 s: 9 samples"), "{screen}");
        // The half in the middle: from 1.77 s to 5.32 s.
        let screen = press(&mut app, "z");
        assert!(screen.contains("memory between 2.") && !screen.contains("and 7.089 s"), "{screen}");
        let screen = press(&mut app, "W");
        assert!(screen.contains("interfaces between 2."), "{screen}");
        let screen = press(&mut app, "zzzzzzzz");
        assert!(screen.contains("none in this time: 0 looks at all of it"), "{screen}");
    }

    #[test]
    fn where_nothing_was_sampled_it_is_said_how() {
        let mut app = of("../schedtrace/tests/fixtures/hackbench.schedtrace");
        for key in ["r", "W"] {
            let screen = press(&mut app, key);
            assert!(screen.contains("schedtrace record --events default,system"), "{screen}");
        }
        assert!(!press(&mut app, "3").contains("as the machine counted"));
    }
}
