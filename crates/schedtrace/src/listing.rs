//! `schedtrace info` of a folder of traces.

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use schedtrace_core::trace::{self, LeftAlone, TraceInfo, TraceReader, TraceState};
use schedtrace_core::{Error, LossPlace, Nanos};
use serde::Serialize;

use crate::render::{Column, heading, table, warning};
use crate::{Failure, print_json, units};

#[derive(Serialize)]
struct Folder<'a> {
    path: &'a Path,
    /// The size of all its traces.
    bytes: u64,
    traces: Vec<Trace>,
    unreadable: Vec<LeftAlone>,
}

#[derive(Serialize)]
struct Trace {
    from_wall_ns: Option<Nanos>,
    until_wall_ns: Option<Nanos>,
    info: TraceInfo,
}

/// Tells which traces are in a folder that is none itself; where there are none either, that is the error.
pub(crate) fn run(folder: &Path, json: bool, error: Error) -> Result<(), Failure> {
    let Ok(listing) = trace::traces_in(folder) else { return Err(error.into()) };
    let mut unreadable = listing.unreadable;
    let mut traces = Vec::new();
    for stored in listing.traces {
        match TraceReader::open(&stored.path).and_then(|reader| reader.info()) {
            Ok(info) => {
                traces.push(Trace { from_wall_ns: stored.from_wall_ns, until_wall_ns: stored.until_wall_ns, info });
            }
            // Removed meanwhile, to keep to the limits.
            Err(Error::NotATrace { path, .. }) if !path.exists() => {}
            Err(error) => unreadable.push(LeftAlone { path: stored.path, why: error.to_string() }),
        }
    }
    if traces.is_empty() && unreadable.is_empty() {
        return Err(error.into());
    }
    let bytes = traces.iter().map(|trace| trace.info.bytes).sum();
    let found = Folder { path: folder, bytes, traces, unreadable };
    if json { print_json(&found) } else { print(&found) }
}

fn print(folder: &Folder<'_>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", heading(&folder.path.display().to_string()))?;
    let texts = ["TRACE", "FROM (UTC)"].map(Column::Text);
    let numbers = ["LASTS", "EVENTS", "LOST", "BYTES"].map(Column::Number);
    let columns: Vec<_> = texts.into_iter().chain(numbers).chain([Column::Text("STATE")]).collect();
    write!(out, "{}", table(&columns, folder.traces.iter().map(row)))?;
    let count = units::plural(folder.traces.len() as u64, "trace");
    writeln!(out, "  {count}, {} in all", units::bytes(folder.bytes))?;
    for left in &folder.unreadable {
        writeln!(out, "  {}", warning(&format!("cannot be read: {}", left.why)))?;
    }
    if let Some(newest) = folder.traces.last() {
        writeln!(out, "next: schedtrace report {}", newest.info.path.display())?;
    }
    Ok(())
}

fn row(trace: &Trace) -> Vec<String> {
    let info = &trace.info;
    let name = info.path.file_name().unwrap_or_default().to_string_lossy().replace(char::is_control, "?");
    let from = trace.from_wall_ns.and_then(|at| Timestamp::from_nanosecond(i128::from(at.0)).ok());
    let from = from.map_or_else(|| "unknown".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string());
    let lost = info.completeness.lost.iter().filter(|row| row.place != LossPlace::Late);
    let lost = lost.fold(0_u64, |sum, row| sum.saturating_add(row.count));
    let state = match info.state {
        TraceState::Finished => "finished",
        TraceState::Recording => "being recorded",
        TraceState::Interrupted => "interrupted",
        TraceState::Repaired => "interrupted, repaired",
    };
    let removed = if info.completeness.removed.segments > 0 { ", oldest part removed" } else { "" };
    let lasts = info.window.duration_ns.to_string();
    let (events, bytes) = (units::count(info.completeness.events), units::bytes(info.bytes));
    vec![name, from, lasts, events, units::count(lost), bytes, format!("{state}{removed}")]
}
