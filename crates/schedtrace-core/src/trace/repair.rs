//! Brings what an interrupted recording left behind to rest.

use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::commit::{self, Commit, CommitState, Extent, Known, MetaFile};
use super::schema::Table;
use super::segment::{self, parquet_path, seq_of, stream_path};
use super::{reader, untrusted, writer};
use crate::error::{Error, Result};
use crate::event::Nanos;

/// The largest stream of a segment: what a writer begins a new one for, and a batch more.
const MAX_STREAM: u64 = 1 << 30;

/// What [`repair`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Whether there was something to do: false for a trace that was finished or repaired before.
    pub repaired: bool,
    /// Segments that were turned into Parquet.
    pub segments: u64,
    /// Events in the whole trace, with those that were removed to keep its limits.
    pub events: u64,
    /// Where it ends: at its last commit.
    pub until_ns: Nanos,
}

/// Finishes a trace whose recording was interrupted: what was committed becomes Parquet, as the rest is, and what was not
/// is removed. Of the events that a reader sees none comes or goes. The trace goes on to say that it was interrupted
/// ([`TraceState::Repaired`](super::TraceState::Repaired)).
///
/// It may be interrupted itself, at any moment, and be run again.
///
/// ```no_run
/// let repair = schedtrace_core::trace::repair("run.schedtrace")?;
/// println!("{} events, up to {}", repair.events, repair.until_ns);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Invalid`] if it is being recorded, with nothing changed; [`Error::NotATrace`], [`Error::NewerTrace`] and
/// [`Error::Damaged`] if it cannot be read; [`Error::Io`] if it cannot be written.
pub fn repair(dir: impl AsRef<Path>) -> Result<Repair> {
    let dir = dir.as_ref();
    let file = MetaFile::read(dir)?;
    let tables = Table::of(&file.meta, file.schema);
    reader::refuse_links(dir, &tables)?;
    let lock = writer::lock(dir)?;
    let mut meta = MetaFile::read(dir)?;
    let (mut commit, known) = Commit::read(dir)?;
    if known == Known::Durable {
        reader::catch_up(dir, &tables, &mut commit)?;
    }
    let mut done = Repair {
        repaired: commit.state == CommitState::Recording,
        segments: 0,
        events: events(&commit),
        until_ns: commit.complete_until_ns,
    };
    if done.repaired {
        let seqs = reader::segments(dir, &tables, &commit, known)?;
        for in_flight in &commit.segments {
            done.segments += u64::from(bring_to_rest(dir, &tables, in_flight.seq, &commit)?);
        }
        tables.iter().try_for_each(|&table| clear(dir, table, |seq| seqs.binary_search(&seq).is_ok()))?;
        meta.meta.ended = Some(commit.complete_until_ns);
        meta.totals = commit.totals.clone();
        meta.write(dir)?;
        commit.state = CommitState::Repaired;
        commit.segments.clear();
        commit.write_last(dir)?;
    }
    commit::remove_what_only_recorders_have(dir)?;
    drop(lock);
    Ok(done)
}

fn events(commit: &Commit) -> u64 {
    let events = Table::ALL.into_iter().filter(|table| table.is_event());
    let rows = events.filter_map(|table| commit.totals.rows.get(table.name()));
    rows.fold(0, |sum, rows| sum.saturating_add(*rows))
}

/// Turns a segment into Parquet, unless it is already; whether there was something to do.
fn bring_to_rest(dir: &Path, tables: &[Table], seq: u32, commit: &Commit) -> Result<bool> {
    let at_rest = |table: Table| untrusted::Parquet::open(parquet_path(dir, table, seq), table).map(|p| p.is_some());
    let whole = tables.iter().copied().map(at_rest).collect::<Result<Vec<_>>>()?.into_iter().all(|there| there);
    if whole {
        return Ok(false);
    }
    let Some(in_flight) = commit.segment(seq) else { return Ok(false) };
    let extent = |table: Table| {
        let extent = in_flight.tables.get(table.name()).copied().unwrap_or_default();
        if extent.bytes > MAX_STREAM {
            let why = format!("is said to hold {} bytes, more than a segment has", extent.bytes);
            return Err(Error::damaged(stream_path(dir, table, seq), why));
        }
        Ok((table, extent))
    };
    let extents = tables.iter().copied().map(extent).collect::<Result<Vec<(Table, Extent)>>>()?;
    segment::seal_left_over(dir, seq, in_flight.span, &extents)?;
    Ok(true)
}

/// Removes from a table's folder all but the Parquet files of the segments to keep.
pub(super) fn clear(dir: &Path, table: Table, keep: impl Fn(u32) -> bool) -> Result<()> {
    let folder = dir.join(table.folder());
    let entries = std::fs::read_dir(&folder).map_err(Error::io("cannot read", &folder))?;
    for entry in entries {
        let name = entry.map_err(Error::io("cannot read", &folder))?.file_name();
        let name = name.to_string_lossy();
        // Only what a writer makes; whatever else lies there is somebody's.
        let ours = seq_of(&name).is_some_and(|seq| !keep(seq))
            || name
                .strip_suffix(".arrows")
                .or(name.strip_suffix(".parquet.tmp"))
                .is_some_and(|n| n.parse::<u32>().is_ok());
        if ours {
            commit::remove(&folder.join(&*name))?;
        }
    }
    commit::sync_folder(&folder)
}

/// The traces in a folder (`*.schedtrace`) whose recording was interrupted and that nobody records any more, as far as
/// they belong to the user who asks. Links are not followed.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// assert!(schedtrace_core::trace::interrupted_in(folder.path())?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Error::Io`] if the folder cannot be read.
pub fn interrupted_in(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let folder = folder.as_ref();
    let user = rustix::process::geteuid().as_raw();
    let mine = |entry: &DirEntry| {
        let trace = Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "schedtrace");
        // Of a link this is what the link itself is.
        trace && entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user)
    };
    let entries = std::fs::read_dir(folder).map_err(Error::io("cannot read", folder))?;
    let traces = entries.filter_map(|entry| entry.ok().filter(mine).map(|entry| entry.path()));
    let mut found: Vec<_> = traces.filter(|dir| reader::is_interrupted(dir)).collect();
    found.sort();
    Ok(found)
}
