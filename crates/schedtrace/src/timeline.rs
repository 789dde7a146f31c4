//! `schedtrace timeline`: core's timelines as rows of letters.

use std::io::Write;

use schedtrace_core::analysis::{self, Answered, Lane, Lanes, Options, Timeline, TimelineOptions, TimelineReport};
use schedtrace_core::{Meta, Nanos, Source};

use crate::args::{LanesArg, TimelineArgs};
use crate::render::{heading, quiet};
use crate::units::{count, offset, span};
use crate::window::{self, Trace};
use crate::{Failure, print_json};

/// The longest name in front of a lane.
const NAME: usize = 24;

pub(crate) fn run(args: &TimelineArgs) -> Result<(), Failure> {
    let Trace { mut reader, from, until, window } = window::open(&args.trace, &args.window)?;
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
        let line: String = (0..*columns).map(|at| letter(lane, at, resolution_ns.0)).collect();
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
    let legend = match lanes {
        Lanes::Cpus => "# busy, + busy for less than half, w busy while others waited, . idle, blank unknown",
        Lanes::Tasks => {
            "# ran, + ran for less than half, w waited for a CPU, D slept for I/O, . slept, blank not there or unknown"
        }
    };
    text + &format!("  {}\n", quiet(legend))
}

fn sum(all: &[u64]) -> String {
    span(all.iter().copied().fold(0, u64::saturating_add))
}

/// What took most of a column.
fn letter(lane: &Lane, at: usize, resolution: u64) -> char {
    let of = |all: &[u64]| all.get(at).copied().unwrap_or(0);
    let (running, waiting) = (of(&lane.running_ns), of(&lane.waiting_ns));
    let (io, idle) = (of(&lane.io_ns), of(&lane.idle_ns));
    if lane.cpu.is_some() {
        return match (running, waiting) {
            _ if waiting * 10 >= resolution => 'w',
            _ if running * 2 >= resolution => '#',
            (1.., _) => '+',
            _ if idle > 0 => '.',
            _ => ' ',
        };
    }
    let most = running.max(waiting).max(io).max(idle);
    match most {
        0 => ' ',
        _ if most == waiting => 'w',
        _ if most == running => '#',
        // A moment of work is more than none.
        _ if running * 20 >= resolution => '+',
        _ if most == io => 'D',
        _ => '.',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_tells_what_took_most() {
        let lane = |running, waiting, io, idle| Lane {
            cpu: None,
            task: None,
            running_ns: vec![running],
            waiting_ns: vec![waiting],
            io_ns: vec![io],
            idle_ns: vec![idle],
            longest: Vec::new(),
        };
        let letters = [(60, 40, 0, 0), (10, 90, 0, 0), (10, 0, 0, 90), (1, 0, 60, 39), (0, 0, 0, 90), (0, 0, 0, 0)];
        let told: String = letters.iter().map(|&(r, w, d, i)| letter(&lane(r, w, d, i), 0, 100)).collect();
        assert_eq!(told, "#w+D. ");
        assert_eq!(letter(&lane(1, 1, 1, 1), 7, 100), ' ', "there is no such column");
    }
}
