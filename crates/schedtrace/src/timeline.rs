//! `schedtrace timeline`: core's timelines as rows of letters.

use std::io::Write;

use schedtrace_core::analysis::{self, Answered, Lanes, Options, Timeline, TimelineOptions, TimelineReport};
use schedtrace_core::trace::Excerpt;
use schedtrace_core::{Meta, Nanos, Source};

use crate::args::{LanesArg, TimelineArgs};
use crate::render::{heading, quiet};
use crate::units::{count, offset, span};
use crate::window;
use crate::{Failure, print_json};

/// The longest name in front of a lane.
const NAME: usize = 24;

pub(crate) fn run(args: &TimelineArgs) -> Result<(), Failure> {
    let Excerpt { mut reader, from, until, window } = window::open(&args.trace, &args.window)?;
    let columns = u64::from(args.columns.max(1));
    let resolution = args.resolution.map_or(Nanos(window.duration_ns.0.div_ceil(columns)), Nanos::from);
    let subject = args.subject.subject();
    let lanes = match args.by {
        // Who asks for tasks wants to see tasks.
        _ if subject.is_some() => Lanes::Tasks,
        LanesArg::Cpu => Lanes::Cpus,
        LanesArg::Task => Lanes::Tasks,
    };
    let options = Options { from, until, top: args.top, include_recorder: args.include_recorder, ..Options::default() };
    let report = analysis::run(&mut reader, Timeline::study(TimelineOptions { lanes, resolution, subject }, options))?;
    if args.json {
        return print_json(&report);
    }
    let mut out = std::io::stdout().lock();
    write!(out, "{}", text(&report, lanes, reader.meta()))?;
    writeln!(out, "{}", window::completeness(&report.about.completeness, 0))?;
    Ok(())
}

fn text(report: &Answered<TimelineReport>, lanes: Lanes, meta: &Meta) -> String {
    let TimelineReport { resolution_ns, from_ns, columns, lanes: rows, lanes_total, .. } = &report.answer;
    let head = format!("{columns} columns of {resolution_ns}, from {}", offset(*from_ns, meta.started));
    let mut text = format!("{}\n", heading(&head));
    for lane in rows {
        let name = match (&lane.cpu, &lane.task) {
            (Some(cpu), _) => format!("CPU {cpu}"),
            (None, Some(task)) => task.to_string(),
            (None, None) => String::new(),
        };
        let line = lane.drawn(*columns, *resolution_ns);
        let totals = match lanes {
            Lanes::Cpus => format!("busy {}, waited for {}", sum(&lane.running_ns), sum(&lane.waiting_ns)),
            Lanes::Tasks => format!("ran {}, waited {}", sum(&lane.running_ns), sum(&lane.waiting_ns)),
        };
        let name: String = name.chars().take(NAME).collect();
        text += &format!("{name:>NAME$} {line} {totals}\n");
    }
    if rows.len() < *lanes_total {
        text += &format!("  … and {} more\n", count((lanes_total - rows.len()) as u64));
    }
    text + &format!("  {}\n", quiet(lanes.legend()))
}

fn sum(all: &[u64]) -> String {
    span(all.iter().copied().fold(0, u64::saturating_add))
}
