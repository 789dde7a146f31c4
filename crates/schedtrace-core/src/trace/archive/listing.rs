//! Which traces a folder holds.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::LeftAlone;
use super::name::{SUFFIX, text};
use crate::error::{Error, Result};
use crate::event::{Nanos, Window};
use crate::source::Source;
use crate::trace::commit::{COMMIT, DURABLE, LOCK, META, temporary};
use crate::trace::info::TraceState;
use crate::trace::reader::TraceReader;

/// So many traces are named to somebody who named none.
const NAMED: usize = 8;

/// One of the traces in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredTrace {
    /// The trace, for [`TraceReader::open`].
    pub path: PathBuf,
    /// Whether it is finished, or grows.
    pub state: TraceState,
    /// From when to when, by its own boot's `CLOCK_MONOTONIC`; what was removed is left out.
    pub window: Window,
    /// The same by the wall clock, in nanoseconds since 1970; none where the trace does not say.
    pub from_wall_ns: Option<Nanos>,
    /// Its end, or its last commit, by the wall clock.
    pub until_wall_ns: Option<Nanos>,
}

impl std::fmt::Display for StoredTrace {
    /// Its name and its times: `20261122T105117Z.schedtrace (2026-11-22 10:51:17 UTC, 45.0s, recording)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().replace(char::is_control, "?");
        let from = self.from_wall_ns.map_or("at an unknown time".to_owned(), text);
        let state = match self.state {
            TraceState::Finished => "",
            TraceState::Recording => ", being recorded",
            TraceState::Interrupted => ", interrupted",
            TraceState::Repaired => ", repaired",
        };
        write!(f, "{name} ({from}, {}{state})", self.window.duration_ns)
    }
}

/// What [`traces_in`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The traces, by the time at which they begin.
    pub traces: Vec<StoredTrace>,
    /// What is called as a trace and cannot be read.
    pub unreadable: Vec<LeftAlone>,
}

/// The traces in a folder (`*.schedtrace`), by the time at which they begin: finished, interrupted and growing ones. Reads
/// what each says of itself, and no events. Links are not followed.
///
/// ```
/// use schedtrace_core::trace::traces_in;
/// let folder = tempfile::tempdir()?;
/// assert!(traces_in(folder.path())?.traces.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Error::Io`] if the folder cannot be read. A trace that cannot be read is [`Listing::unreadable`].
pub fn traces_in(folder: impl AsRef<Path>) -> Result<Listing> {
    let folder = folder.as_ref();
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(folder).map_err(Error::io("cannot read", folder))? {
        let entry = entry.map_err(Error::io("cannot read", folder))?;
        // Of a link this is what the link itself is.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder || !entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            continue;
        }
        match stored_or_none(&entry.path()) {
            Ok(trace) => listing.traces.extend(trace),
            Err(error) => listing.unreadable.push(LeftAlone { path: entry.path(), why: error.to_string() }),
        }
    }
    listing.traces.sort_by(|a, b| (a.from_wall_ns, &a.path).cmp(&(b.from_wall_ns, &b.path)));
    listing.unreadable.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(listing)
}

/// The trace in a folder; none of a run that has not begun, or that ended meanwhile and left nothing.
fn stored_or_none(path: &Path) -> Result<Option<StoredTrace>> {
    match stored(path.to_owned()) {
        Err(Error::NotATrace { .. }) if !path.exists() || has_not_begun(path) => Ok(None),
        // It has begun since it was looked at. What says so is asked last: before, it could come between two looks.
        Err(Error::NotATrace { .. }) if path.join(META).exists() => stored(path.to_owned()).map(Some),
        trace => trace.map(Some),
    }
}

/// Whether nothing stands in a trace's folder yet but what its recorder makes before it says what the trace is: its lock,
/// empty tables, and the first commit.
fn has_not_begun(path: &Path) -> bool {
    let is_early = |name: &str| {
        [LOCK, COMMIT, DURABLE].contains(&name) || [COMMIT, DURABLE, META].iter().any(|of| name == temporary(of))
    };
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let Ok(entry) = entry else { return false };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() && folder == path && is_early(&entry.file_name().to_string_lossy()) => {}
                _ => return false,
            }
        }
    }
    true
}

fn stored(path: PathBuf) -> Result<StoredTrace> {
    let reader = TraceReader::open_one(&path)?;
    let (state, window, clocks) = (reader.state(), reader.window(), &reader.meta().clocks);
    Ok(StoredTrace {
        state,
        // The reading nearest to each: between them the machine may have been suspended, or its clock set.
        from_wall_ns: clocks.first().map(|clocks| clocks.realtime(window.from_ns)),
        until_wall_ns: clocks.last().map(|clocks| clocks.realtime(window.until_ns)),
        window,
        path,
    })
}

/// Says of a folder that is no trace which traces are in it, if any are.
pub(in crate::trace) fn that_holds_traces(error: Error) -> Error {
    let Error::NotATrace { path, why } = error else { return error };
    let traces = traces_in(&path).map(|listing| listing.traces).unwrap_or_default();
    let Some(newest) = traces.last() else { return Error::NotATrace { path, why } };
    let named: Vec<_> = traces.iter().rev().take(NAMED).map(ToString::to_string).collect();
    let more = traces.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} older ones") } else { String::new() };
    let why = format!("it holds traces: {}{more}; name one of them, as {}", named.join(", "), newest.path.display());
    Error::NotATrace { path, why }
}
