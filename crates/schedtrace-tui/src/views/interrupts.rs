//! Where interrupts were served, how long softirqs waited, and who interrupts whom.

use schedtrace_core::analysis::{InterruptsReport, IpisReport};

use super::Cx;
use super::relations::{nothing_of, row};
use crate::sheet::{Column, Sheet, Target, Value};

const CPUS: &[Column] = &[
    Column { name: "CPU", about: "Its number.", width: 6, rank: 0 },
    Column { name: "IRQ", about: "Time in the handlers of devices.", width: 9, rank: 1 },
    Column { name: "SOFTIRQ", about: "Time in software interrupts.", width: 9, rank: 1 },
    Column { name: "IPI", about: "Time in interrupts from other CPUs.", width: 9, rank: 1 },
    Column { name: "ALL", about: "All three.", width: 9, rank: 0 },
    Column { name: "SHARE", about: "The same, as a share of its time.", width: 7, rank: 0 },
];

const RAISED: &[Column] = &[
    Column { name: "SOFTIRQ", about: "Which.", width: 14, rank: 0 },
    Column { name: "TIMES", about: "How often it was asked for, and then served.", width: 9, rank: 1 },
    Column { name: "P50", about: "From being asked for to being served: the median.", width: 8, rank: 1 },
    Column { name: "P99", about: "99 of 100 were not longer.", width: 8, rank: 1 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
    Column { name: "TOTAL", about: "All together.", width: 9, rank: 2 },
];

const SENDERS: &[Column] = &[
    Column { name: "SENDER", about: "Who had the CPU that sent them.", width: 30, rank: 0 },
    Column { name: "TIMES", about: "How often.", width: 9, rank: 1 },
    Column { name: "TARGETS", about: "CPUs that were interrupted, all together.", width: 9, rank: 1 },
    Column { name: "RATE", about: "How often a second.", width: 9, rank: 2 },
];

const PAIRS: &[Column] = &[
    Column { name: "FROM", about: "The CPU that sent it.", width: 6, rank: 0 },
    Column { name: "TO", about: "The CPU that got it; the first, where there were several.", width: 6, rank: 0 },
    Column { name: "IPI", about: "What that was asked to do.", width: 34, rank: 0 },
    Column { name: "TIMES", about: "How often.", width: 9, rank: 1 },
    Column { name: "TARGETS", about: "CPUs that were interrupted, all together.", width: 9, rank: 2 },
    Column { name: "RATE", about: "How often a second.", width: 9, rank: 2 },
];

/// CPU by CPU.
pub(super) fn cpus(cx: &Cx<'_>, all: &InterruptsReport) -> Sheet {
    let window = cx.picture.window.duration_ns.0.max(1) as f64;
    let rows = all.cpus.iter().map(|of| {
        let times = &of.times;
        let total = times.hardirq_ns.saturating_add(times.softirq_ns).saturating_add(times.ipi_ns);
        let cells = vec![
            Value::Count(of.cpu.0.into()),
            Value::Lasted(times.hardirq_ns),
            Value::Lasted(times.softirq_ns),
            Value::Lasted(times.ipi_ns),
            Value::Lasted(total),
            Value::Ratio(total as f64 / window),
        ];
        row(Target::Cpu(of.cpu), cells)
    });
    Sheet::new("where it was served", CPUS, rows.collect()).or(nothing_of(cx, "irq"))
}

/// How long softirqs waited to be served, where that was recorded.
pub(super) fn raised(all: &InterruptsReport) -> Option<Sheet> {
    let rows = all.raised.iter().map(|of| {
        let delay = &of.delay.summary;
        let cells = vec![
            Value::text(of.vector.clone()),
            Value::Count(delay.count),
            Value::of(delay, |s| s.p50_ns),
            Value::of(delay, |s| s.p99_ns),
            Value::of(delay, |s| s.max_ns),
            Value::of(delay, |s| s.total_ns),
        ];
        row(Target::Named(format!("softirq {}", of.vector)), cells)
    });
    let sheet = Sheet::new("how long softirqs waited to be served", RAISED, rows.collect());
    (!all.raised.is_empty()).then_some(sheet)
}

/// Who sends IPIs, and from where to where.
pub(super) fn sent(cx: &Cx<'_>, ipis: &IpisReport) -> [Sheet; 2] {
    let senders = ipis.senders.iter().map(|of| {
        let cells = vec![
            Value::text(of.group.to_string()),
            Value::Count(of.counts.count),
            Value::Count(of.counts.targets),
            Value::Rate(of.counts.rate_per_second),
        ];
        row(Target::of(&of.group), cells)
    });
    let pairs = ipis.pairs.iter().map(|of| {
        let cells = vec![
            Value::Count(of.from.0.into()),
            Value::Count(of.to.0.into()),
            Value::text(of.callback.clone()),
            Value::Count(of.counts.count),
            Value::Count(of.counts.targets),
            Value::Rate(of.counts.rate_per_second),
        ];
        row(Target::Cpu(of.to), cells)
    });
    let title = match (ipis.from_idle, ipis.from_unknown) {
        (0, 0) => "who sent IPIs".to_owned(),
        (idle, 0) => format!("who sent IPIs; {idle} came from idle CPUs"),
        (idle, unknown) => format!("who sent IPIs; {idle} came from idle CPUs, {unknown} from nobody knows whom"),
    };
    [
        Sheet::new(title, SENDERS, senders.collect()).of(ipis.senders_total).or(nothing_of(cx, "ipi")),
        Sheet::new("from CPU to CPU", PAIRS, pairs.collect()).of(ipis.pairs_total).or(nothing_of(cx, "ipi")),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::crossterm::event::{Event, KeyCode};

    use crate::{App, Origin, Settings, once};

    #[test]
    fn all_that_a_recording_has_of_every_event_is_shown() {
        let trace = "../schedtrace/tests/every-event/events.schedtrace";
        let mut app = App::new(Origin::trace(trace.as_ref()).unwrap(), Settings::default()).unwrap();
        let patience = Duration::from_secs(60);
        let _ = once(&mut app, 160, 160, patience).unwrap();
        for (key, texts) in [
            ('7', &["where it was served", "how long softirqs waited", "who sent IPIs", "from CPU to CPU"][..]),
            ('8', &["requests at once", "AT ONCE"]),
            ('9', &["dispatch queues"]),
            ('M', &["P99 WAIT", "LLC 0"]),
            ('r', &["page cache", "LEAST", "WANT OF", "memory between"]),
            ('W', &["interfaces between", "PACKETS IN", "\nlo "]),
            ('3', &["as the machine counted between", "STOLEN", "15 minutes", "time lost"]),
        ] {
            let _ = app.event(&Event::Key(KeyCode::Char(key).into()));
            let screen = once(&mut app, 160, 160, patience).unwrap();
            for text in texts {
                assert!(screen.contains(text), "`{text}` for key {key}:\n{screen}");
            }
        }
    }
}
