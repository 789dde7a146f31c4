//! What the commands that analyse a trace have in common: its window, and what is missing from it.

use std::path::Path;

use schedtrace_core::analysis::Completeness;
use schedtrace_core::trace::TraceReader;
use schedtrace_core::{Error, Meta, Nanos, Result, Source, Window};

use crate::args::WindowArgs;
use crate::render::{heading, warning};
use crate::units::{Stretch, Time, count, lost, offset, plural, span, started};

/// A trace, of which some part is wanted.
pub(crate) struct Trace {
    pub(crate) reader: TraceReader,
    pub(crate) from: Option<Nanos>,
    pub(crate) until: Option<Nanos>,
    /// The part, with the edges of the recording where no others were given.
    pub(crate) window: Window,
}

/// Opens a trace for what lies between two times.
pub(crate) fn open(dir: &Path, window: &WindowArgs) -> Result<Trace> {
    open_between(dir, Stretch { from: window.from, to: window.to }, ["--from", "--to"])
}

/// The same, where the two times are called otherwise.
pub(crate) fn open_between(dir: &Path, stretch: Stretch, names: [&str; 2]) -> Result<Trace> {
    let trace = TraceReader::open(dir)?;
    let bound = |time: Option<Time>| time.map(|time| time.in_trace(trace.meta())).transpose();
    let (from, until) = (bound(stretch.from)?, bound(stretch.to)?);
    if let (Some(from), Some(until)) = (from, until)
        && until <= from
    {
        return Err(Error::Invalid(format!("{} must be later than {}", names[1], names[0])));
    }
    let whole = trace.info()?.window;
    for (name, outside) in [
        (names[0], from.is_some_and(|from| from >= whole.until_ns)),
        (names[1], until.is_some_and(|until| until <= whole.from_ns)),
    ] {
        if outside {
            let why = format!("{name} leaves nothing of the recording, which is {} long", whole.duration_ns);
            return Err(Error::Invalid(why));
        }
    }
    let begin = from.unwrap_or(whole.from_ns).max(whole.from_ns);
    let window = Window::new(begin, until.unwrap_or(whole.until_ns).min(whole.until_ns));
    Ok(Trace { reader: trace.between(from, until), from, until, window })
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
