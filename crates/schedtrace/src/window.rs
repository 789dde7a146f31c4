//! What the commands that analyse a trace have in common: its window, and what is missing from it.

use std::path::Path;

use schedtrace_core::analysis::Completeness;
use schedtrace_core::trace::{Excerpt, Stretch};
use schedtrace_core::{Meta, Result, Window};

use crate::args::WindowArgs;
use crate::render::{heading, warning};
use crate::units::{count, lost, offset, plural, span, started};

/// Opens a trace for what lies between two times.
pub(crate) fn open(dir: &Path, window: &WindowArgs) -> Result<Excerpt> {
    Stretch { from: window.from, until: window.to }.open(dir, ["--from", "--to"])
}

/// What was recorded where, and which part of it is looked at.
pub(crate) fn head(meta: &Meta, window: &Window, events: u64) -> String {
    let host = &meta.host;
    let when = started(meta).map(|at| format!(" from {at}")).unwrap_or_default();
    let at = match offset(window.from_ns, meta.started) {
        start if start == "+0.000000s" => String::new(),
        later => format!(", from {later}"),
    };
    format!(
        "{} · Linux {} · {}\n{} of recording{at}{when} · {}\n",
        host.hostname,
        host.kernel,
        meta.topology.shape(),
        window.duration_ns,
        plural(events, "event"),
    )
}

/// What is missing, in words; `recorder_ns` is the CPU time of the recorder that was left out.
pub(crate) fn completeness(complete: &Completeness, recorder_ns: u64) -> String {
    format!("\n{}\n  {}", heading("Completeness"), missing(complete, Some(recorder_ns)))
}

/// The same without a heading; `recorder_ns` only where it is known.
pub(crate) fn missing(complete: &Completeness, recorder_ns: Option<u64>) -> String {
    let mut lines = Vec::new();
    if complete.lost_total > 0 {
        let rows = complete.lost.iter().map(|row| lost(row.count, row.kind, &row.place));
        let text = format!("{} lost: {}", count(complete.lost_total), rows.collect::<Vec<_>>().join(", "));
        lines.push(warning(&text));
    } else {
        lines.push("nothing lost".into());
    }
    if complete.in_loss > 0 {
        let waits = plural(complete.in_loss, "wait");
        lines.push(warning(&format!("{waits} left out, for which the kernel showed no beginning or no end")));
    }
    if complete.late > 0 {
        lines.push(format!("{} came late", plural(complete.late, "event")));
    }
    if complete.censored_waits > 0 {
        lines.push(format!("{} cut off by the edges of the window", plural(complete.censored_waits, "wait")));
    }
    if complete.filtered {
        lines.push("only what the filters let through was recorded".into());
    }
    match recorder_ns {
        None if complete.recorder_left_out => lines.push("the recorder's own threads left out".into()),
        Some(ns) if complete.recorder_left_out && ns > 0 => {
            lines.push(format!("the recorder's own {} of CPU time left out", span(ns)))
        }
        _ => {}
    }
    lines.join("; ")
}
