//! The traces of earlier runs: how large they are, how old, and how their oldest segments are removed.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::name::is_ours;
use super::{Disk, LeftAlone, Limits, Surroundings};
use crate::error::{Error, Result};
use crate::event::Nanos;
use crate::source::Meta;
use crate::trace::commit::{self, Commit, CommitState, LOCK, META, MetaFile};
use crate::trace::info::{Removed, TraceState};
use crate::trace::reader::{self, state};
use crate::trace::repair::clear;
use crate::trace::schema::{self, Table};
use crate::trace::segment::{parquet_path, seq_of};
use crate::trace::untrusted::{Parquet, Rows};
use crate::trace::writer;

/// What earlier runs have left, oldest first.
#[derive(Debug, Default)]
pub(super) struct Older {
    traces: VecDeque<OldTrace>,
    left_alone: Vec<LeftAlone>,
}

impl Older {
    /// Looks what is in a folder; the second are traces of which the recording was interrupted.
    pub(super) fn find(folder: &Path) -> Result<(Self, Vec<PathBuf>)> {
        let mut older = Self::default();
        let mut interrupted = Vec::new();
        let user = rustix::process::geteuid().as_raw();
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io("cannot read", folder))? {
            entries.push(entry.map_err(Error::io("cannot read", folder))?);
        }
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            if name == LOCK {
                continue;
            }
            // Of a link this is what the link itself is.
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_dir() || !name.to_str().is_some_and(is_ours) {
                older.leave(path, "is no trace of an earlier run");
            } else if metadata.uid() != user {
                older.leave(path, "belongs to another user");
            } else if !never_began(&path) {
                match OldTrace::open(&path) {
                    Ok(Some(trace)) => older.traces.push_back(trace),
                    Ok(None) => interrupted.push(path),
                    Err(error) => older.leave(path, error.to_string()),
                }
            }
        }
        older.sort();
        Ok((older, interrupted))
    }

    /// Adds a trace that was brought to rest.
    pub(super) fn add(&mut self, dir: &Path) {
        match OldTrace::open(dir) {
            Ok(Some(trace)) => self.traces.push_back(trace),
            Ok(None) => self.leave(dir.to_owned(), "is being recorded"),
            Err(error) => self.leave(dir.to_owned(), error.to_string()),
        }
        self.sort();
    }

    fn sort(&mut self) {
        self.traces.make_contiguous().sort_by(|a, b| (a.until_wall, &a.dir).cmp(&(b.until_wall, &b.dir)));
    }

    /// Takes note of what is not touched.
    pub(super) fn leave(&mut self, path: PathBuf, why: impl Into<String>) {
        self.left_alone.push(LeftAlone { path, why: why.into() });
    }

    pub(super) fn left_alone(&self) -> &[LeftAlone] {
        &self.left_alone
    }

    /// The size of all of them in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.traces.iter().map(OldTrace::bytes).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Removes what is too old, and then the oldest until the present run has the room that it needs, and some more, and
    /// enough of the disk is free. Tells how much that is.
    pub(super) fn keep(
        &mut self,
        folder: &Path,
        limits: &Limits,
        surroundings: &Surroundings,
        need_bytes: u64,
    ) -> Result<Disk> {
        let disk = surroundings.disk(folder)?;
        let now = surroundings.now();
        let wanted = self.bytes().saturating_add(need_bytes).saturating_add(limits.ahead_bytes);
        let missing = limits.min_free_bytes.saturating_sub(disk.free_bytes);
        let mut excess = wanted.saturating_sub(limits.max_bytes).max(missing);
        let mut removed = false;
        while let Some(trace) = self.traces.front_mut() {
            let too_old = |wall: Nanos| limits.max_age.is_some_and(|age| now - wall > age);
            let overdue = trace.overdue(excess, too_old);
            if overdue == 0 && !trace.segments.is_empty() {
                break;
            }
            let before = trace.bytes();
            match trace.remove_oldest(overdue) {
                Ok(()) if trace.segments.is_empty() => {
                    excess = excess.saturating_sub(before);
                    self.traces.pop_front();
                }
                Ok(()) => excess = excess.saturating_sub(before - trace.bytes()),
                Err(error) => {
                    let dir = trace.dir.clone();
                    self.traces.pop_front();
                    self.leave(dir, error.to_string());
                }
            }
            removed = true;
        }
        if removed { surroundings.disk(folder) } else { Ok(disk) }
    }
}

/// Of a run that ended before it began nothing is left but its folder, which goes; whether that was so.
fn never_began(dir: &Path) -> bool {
    let names =
        std::fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>());
    let Ok(names) = names else { return false };
    if names.iter().any(|name| name != LOCK) {
        return false;
    }
    // Somebody may be about to begin; the lock says so.
    let Ok(_lock) = writer::lock(dir) else { return false };
    commit::remove(&dir.join(LOCK)).is_ok() && std::fs::remove_dir(dir).is_ok()
}

/// A segment at rest.
#[derive(Clone, Copy, Debug)]
struct OldSegment {
    seq: u32,
    bytes: u64,
    /// To when it reaches, in the trace's own time and by the wall clock.
    until: Nanos,
    latest_wall: Nanos,
}

/// A trace of an earlier run.
#[derive(Debug)]
struct OldTrace {
    dir: PathBuf,
    tables: Vec<Table>,
    /// Oldest first.
    segments: VecDeque<OldSegment>,
    document_bytes: u64,
    /// When it ends, by the wall clock.
    until_wall: Nanos,
}

impl OldTrace {
    /// Looks at a trace; none if it was interrupted.
    fn open(dir: &Path) -> Result<Option<Self>> {
        let file = MetaFile::read(dir)?;
        let tables = Table::of(&file.meta, file.schema);
        reader::refuse_links(dir, &tables)?;
        let (commit, known, state) = state(dir, &tables)?;
        match state {
            TraceState::Finished | TraceState::Repaired => {}
            TraceState::Interrupted => return Ok(None),
            TraceState::Recording => return Err(Error::Invalid("is being recorded by somebody else".into())),
        }
        let wall = |at: Nanos| wall(&file.meta, at);
        let until_wall = wall(commit.complete_until_ns);
        let mut segments = VecDeque::new();
        for seq in reader::segments(dir, &tables, &commit, known)? {
            let size = |table: &Table| parquet_path(dir, *table, seq).symlink_metadata().map_or(0, |file| file.len());
            // A file that cannot be read must not keep its segment from going: then it goes with the trace's end.
            let span = Parquet::open(parquet_path(dir, Table::Tasks, seq), Table::Tasks).ok().flatten();
            let span = span.and_then(|tasks| tasks.span());
            let (until, latest) = span.map_or((commit.complete_until_ns, commit.complete_until_ns), |span| {
                (span.until_ns.min(commit.complete_until_ns), span.latest())
            });
            let bytes = tables.iter().map(size).sum();
            segments.push_back(OldSegment { seq, bytes, until, latest_wall: wall(latest) });
        }
        let mut trace = Self { dir: dir.to_owned(), tables, segments, document_bytes: 0, until_wall };
        if trace.has_leftovers(commit.first_seq)? {
            trace.clear(commit.first_seq)?;
        }
        trace.measure();
        Ok(Some(trace))
    }

    fn bytes(&self) -> u64 {
        self.document_bytes + self.segments.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    fn measure(&mut self) {
        let documents = [META, commit::COMMIT].map(|name| self.dir.join(name).symlink_metadata());
        self.document_bytes = documents.into_iter().flatten().map(|file| file.len()).sum();
    }

    /// How many of its segments have to go: those that are too old, and the oldest until there is so much more room.
    fn overdue(&self, excess_bytes: u64, too_old: impl Fn(Nanos) -> bool) -> usize {
        let mut freed = 0;
        let overdue = self.segments.iter().take_while(|segment| {
            let goes = freed < excess_bytes || too_old(segment.latest_wall);
            freed += segment.bytes;
            goes
        });
        overdue.count()
    }

    /// Removes its oldest segments, and says so in its commit record before it does; with the last one goes the trace.
    fn remove_oldest(&mut self, count: usize) -> Result<()> {
        let lock = writer::lock(&self.dir)?;
        let (mut commit, _) = Commit::read(&self.dir)?;
        if commit.state == CommitState::Recording {
            return Err(Error::Invalid("is being recorded by somebody else".into()));
        }
        let going: Vec<OldSegment> = self.segments.iter().take(count).copied().collect();
        if let Some(last) = going.last() {
            let removed = &mut commit.totals.removed;
            for segment in &going {
                removed.segments = removed.segments.saturating_add(1);
                removed.rows = removed.rows.saturating_add(new_rows(&self.dir, &self.tables, segment.seq));
                removed.until_ns = removed.until_ns.max(segment.until);
            }
            let removed: Removed = *removed;
            commit.first_seq = commit.first_seq.max(last.seq.saturating_add(1));
            // From here on readers pass them over; what is left by a crash goes when the folder is opened again.
            commit.write_last(&self.dir)?;
            let mut file = MetaFile::read(&self.dir)?;
            file.totals.removed = removed;
            file.write(&self.dir)?;
            self.segments.drain(..going.len());
            self.clear(commit.first_seq)?;
        }
        if self.segments.is_empty() {
            return self.remove_whole();
        }
        commit::remove_what_only_recorders_have(&self.dir)?;
        self.measure();
        drop(lock);
        Ok(())
    }

    /// Whether an earlier run was ended while it removed segments: the last table's files go last.
    fn has_leftovers(&self, first_seq: u32) -> Result<bool> {
        let Some(last) = self.tables.last() else { return Ok(false) };
        let folder = self.dir.join(last.folder());
        let entries = std::fs::read_dir(&folder).map_err(Error::io("cannot read", &folder))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        Ok(names.filter_map(|name| name.to_str().and_then(seq_of)).any(|seq| seq < first_seq))
    }

    /// Removes the files of all segments before this one.
    fn clear(&self, first_seq: u32) -> Result<()> {
        self.tables.iter().try_for_each(|&table| clear(&self.dir, table, |seq| seq >= first_seq))
    }

    /// Removes a trace of which nothing is left: its folders and documents, and nothing that somebody else put there.
    fn remove_whole(&self) -> Result<()> {
        let is_not_empty = |dir: &Path| std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
        let remove_dir = |dir: PathBuf| match std::fs::remove_dir(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                let others = is_not_empty(&dir);
                let why = "holds files that are not of a trace, which stay";
                Err(if others { Error::damaged(&dir, why) } else { Error::io("cannot remove", &dir)(e) })
            }
            _ => Ok(()),
        };
        let folders = self.tables.iter().map(|table| table.folder()).chain([PathBuf::from("events")]);
        folders.map(|folder| self.dir.join(folder)).try_for_each(remove_dir)?;
        commit::remove_what_only_recorders_have(&self.dir)?;
        commit::remove(&self.dir.join(commit::COMMIT))?;
        commit::remove(&self.dir.join(META))?;
        remove_dir(self.dir.clone())
    }
}

/// A moment of a trace by the wall clock, as its last reading of the clocks has it: where the machine was suspended in
/// between, that is the later of all that it may have been, so that nothing goes too early.
fn wall(meta: &Meta, at: Nanos) -> Nanos {
    // Without a reading nobody knows how old it is; it goes when room is needed.
    meta.clocks.last().map_or(Nanos::MAX, |clocks| clocks.realtime(at))
}

/// The rows of a segment, but for those repeated from earlier segments. What cannot be read has none.
fn new_rows(dir: &Path, tables: &[Table], seq: u32) -> u64 {
    let rows = |&table: &Table| {
        let Ok(Some(file)) = Parquet::open(parquet_path(dir, table, seq), table) else { return 0 };
        if table.is_event() || table == Table::Loss {
            return file.extent().rows;
        }
        not_carried(Rows::Parquet(Box::new(file))).unwrap_or(0)
    };
    tables.iter().map(rows).fold(0, u64::saturating_add)
}

fn not_carried(mut rows: Rows) -> Result<u64> {
    let mut count: u64 = 0;
    while let Some(batch) = rows.next()? {
        count = count.saturating_add(schema::new_rows(&batch));
    }
    Ok(count)
}
