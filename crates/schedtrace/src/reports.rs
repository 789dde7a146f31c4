//! `schedtrace report DIR NAME...`: core's reports by name as text, a section each.

mod events;
mod latencies;
mod system;

use std::io::Write;
use std::path::Path;

use schedtrace_core::analysis::{self, About, GroupBy, Latencies, Options, ReportName, ReportSet, Summary};
use schedtrace_core::trace::Excerpt;
use schedtrace_core::{Kind, Meta, Source};

use crate::args::{ReportArgs, Wanted};
use crate::render::{Column, heading, table};
use crate::units::{count, offset, percent, ratio, span};
use crate::window;
use crate::{Failure, print_json};

/// So many of the longest are named.
const WORST: usize = 3;
/// CPUs that have a row each.
const CPUS: usize = 64;
/// How long something took, as columns.
const LATENCY: [Column; 7] = [
    Column::Number("count"),
    Column::Number("p50"),
    Column::Number("p90"),
    Column::Number("p99"),
    Column::Number("p99.9"),
    Column::Number("p99.99"),
    Column::Number("max"),
];

/// Whether somebody only wants to know which reports there are: also without a trace.
pub(crate) fn asks_for_help(args: &ReportArgs) -> bool {
    let no_trace = args.names.is_empty() && args.trace == Path::new("help") && !args.trace.exists();
    no_trace || args.names.contains(&Wanted::Help)
}

/// Which reports there are.
pub(crate) fn help() -> Result<(), Failure> {
    let columns = [Column::Text("NAME"), Column::Text("EVENTS"), Column::Text("WHAT IT TELLS")];
    let rows = ReportName::ALL.iter().map(|name| {
        let events = name.needs().map_or_else(|| "default".to_owned(), |group| format!("default,{group}"));
        vec![name.name().to_owned(), events, name.about().to_owned()]
    });
    write!(std::io::stdout().lock(), "{}", table(&columns, rows)).map_err(Failure::from)
}

pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let Excerpt { mut reader, from, until, .. } = window::open(&args.trace, &args.window)?;
    let options = Options {
        by: args.by,
        top: args.top,
        from,
        until,
        include_recorder: args.include_recorder,
        ..Options::default()
    };
    let wanted = in_order(&args.names);
    let report = analysis::run_reports(&mut reader, wanted.iter().copied(), &options)?;
    if args.json {
        return print_json(&report);
    }
    let about = &report.about;
    let page = Page { about, meta: reader.meta(), by: args.by, top: args.top };
    let mut out = std::io::stdout().lock();
    write!(out, "{}", window::head(page.meta, &about.window, about.events.values().sum()))?;
    for name in wanted {
        write!(out, "\n{}\n  {}\n{}", heading(name.name()), name.about(), page.section(name, &report.answer))?;
    }
    writeln!(out, "\n{}\n  {}", heading("Completeness"), window::missing(&about.completeness, None))?;
    Ok(())
}

/// Each once, in the order in which they were asked for.
fn in_order(names: &[Wanted]) -> Vec<ReportName> {
    let mut wanted = Vec::new();
    for name in names {
        let these = match name {
            Wanted::Help => &[],
            Wanted::All => ReportName::ALL,
            Wanted::One(name) => std::slice::from_ref(name),
        };
        for name in these {
            if !wanted.contains(name) {
                wanted.push(*name);
            }
        }
    }
    wanted
}

/// What all sections are written on.
struct Page<'a> {
    about: &'a About,
    meta: &'a Meta,
    by: GroupBy,
    top: usize,
}

impl Page<'_> {
    fn section(&self, name: ReportName, set: &ReportSet) -> String {
        if let Some(why) = self.lacks_events(name) {
            return why;
        }
        let text = match name {
            ReportName::ThreadStates => set.states.as_ref().map(|report| self.states(report)),
            ReportName::Latency => set.latency.as_ref().map(|report| self.latency(report)),
            ReportName::Depth => set.depth.as_ref().map(|report| self.depth(report)),
            ReportName::Preemptions => set.preemptions.as_ref().map(|report| self.preemptions(report)),
            ReportName::Wakers => set.wakers.as_ref().map(|report| self.wakers(report)),
            ReportName::Conservation => set.conservation.as_ref().map(|report| self.conservation(report)),
            ReportName::Fairness => set.fairness.as_ref().map(|report| self.fairness(report)),
            ReportName::Outliers => set.outliers.as_ref().map(|report| self.outliers(report)),
            ReportName::Interrupts => set.interrupts.as_ref().map(|report| self.interrupts(report)),
            ReportName::Ipis => set.ipis.as_ref().map(|report| self.ipis(report)),
            ReportName::BlockIo => set.block_io.as_ref().map(|report| self.block_io(report)),
            ReportName::Futexes => set.futexes.as_ref().map(|report| self.futexes(report)),
            ReportName::Dispatch => set.dispatch.as_ref().map(|report| self.dispatch(report)),
            ReportName::Power => set.power.as_ref().map(|report| self.power(report)),
            ReportName::Syscalls => set.syscalls.as_ref().map(|report| self.syscalls(report)),
            ReportName::SystemUse => set.system.as_ref().map(|report| self.system(report)),
            _ => None,
        };
        text.unwrap_or_else(|| "  Only --json prints this one.\n".into())
    }

    /// That there is nothing to report from, and what would change that.
    fn lacks_events(&self, name: ReportName) -> Option<String> {
        let group = name.needs()?;
        let is_of = |kind: Kind| kind.group() == group;
        if self.about.events.keys().copied().any(is_of) {
            return None;
        }
        Some(if self.meta.probes.iter().any(|probe| probe.on && is_of(probe.kind)) {
            format!("  Events of the group {group} were recorded, and none happened in this window.\n")
        } else {
            format!("  Its events were not recorded: schedtrace record --events default,{group} does.\n")
        })
    }

    /// When it took longest; each with what was done, where there are several things.
    fn worst<'a>(&self, of: impl IntoIterator<Item = (String, &'a Latencies)>) -> String {
        let mut all: Vec<_> = of
            .into_iter()
            .flat_map(|(what, times)| times.worst.iter().map(move |worst| (what.clone(), worst)))
            .collect();
        all.sort_by_key(|(_, worst)| (std::cmp::Reverse(worst.latency_ns), worst.at_ns));
        let parts = all.iter().take(WORST).map(|(what, worst)| {
            let task = worst.task.as_ref().map(|who| match who.task.is_idle() {
                true => "idle".to_owned(),
                false => who.to_string(),
            });
            let what = (!what.is_empty()).then(|| what.clone());
            let whose: Vec<String> = what.into_iter().chain(task).chain([format!("CPU {}", worst.cpu)]).collect();
            let at = offset(worst.at_ns, self.meta.started);
            format!("{} at {at} ({})", span(worst.latency_ns), whose.join(", "))
        });
        let parts: Vec<_> = parts.collect();
        if parts.is_empty() { String::new() } else { format!("  The longest: {}.\n", parts.join("; ")) }
    }

    /// A part of the window.
    fn of_window(&self, ns: u64) -> String {
        percent(ratio(ns, self.about.window.duration_ns.0))
    }

    /// Those that have a row, of all that the report has.
    fn shown<'a, T>(&self, rows: &'a [T]) -> &'a [T] {
        &rows[..rows.len().min(self.top)]
    }
}

/// Columns, and behind them those of a latency.
fn with_latency<'a>(columns: &[Column<'a>]) -> Vec<Column<'a>> {
    columns.iter().copied().chain(LATENCY).collect()
}

/// Cells, and behind them those of a latency.
fn row<const N: usize>(cells: [String; N], times: &Latencies) -> Vec<String> {
    cells.into_iter().chain(quantiles(&times.summary)).collect()
}

fn quantiles(summary: &Summary) -> Vec<String> {
    let times = [summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p99_9_ns, summary.p99_99_ns, summary.max_ns];
    let time = |ns: u64| if summary.count == 0 { "-".to_owned() } else { span(ns) };
    std::iter::once(count(summary.count)).chain(times.map(time)).collect()
}

/// A table below a line that says what it is of; nothing where it has no rows.
fn titled(title: &str, columns: &[Column], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() { String::new() } else { format!("\n  {title}\n{}", table(columns, rows)) }
}

/// Something that is to be told only where there is any.
fn if_any(n: u64, text: impl FnOnce(String) -> String) -> String {
    if n > 0 { text(count(n)) } else { String::new() }
}

fn decimal(value: f64) -> String {
    format!("{value:.2}")
}

fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".into())
}
