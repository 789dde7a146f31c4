//! Reads a trace: a [`Source`] that streams it in time order, whatever its size.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use rustix::fs::{FlockOperation, flock};

use super::archive;
use super::commit::{Commit, CommitState, Extent, Known, LOCK, MetaFile};
use super::declared::Interner;
use super::info::{Completeness, TableInfo, TraceInfo, TraceState};
use super::schema::{self, Table};
use super::segment::{Span, parquet_path, seq_of, stream_path};
use super::untrusted::{self, Parquet, Rows, Stream};
use crate::error::{Error, Result};
use crate::event::{Batch, Cgroup, Event, Loss, LossPlace, Nanos, ShardId, Task, TaskStatus, Window};
use crate::known::{Note, idle_cpu};
use crate::merge::Merge;
use crate::source::{Meta, Poll, Source};

/// About how many events a batch has.
const EVENTS_PER_BATCH: usize = 8192;
/// How often a segment is looked for again that comes to rest, or is removed, while it is being opened.
const ATTEMPTS: usize = 4;

/// Reads a trace from its directory, finished or not, and writes nothing.
///
/// A trace that is still being recorded, or was interrupted, is read up to its last commit. Memory stays bounded whatever
/// the size of the trace. Files are not trusted: what does not say what it should ends in [`Error::Damaged`].
///
/// Each stretch of time comes in one order; events that were recorded too late for it come in [`Batch::late`]. Identities
/// that held before the first segment come first. Idle tasks are not announced: their ids say who they are.
///
/// ```no_run
/// use schedtrace_core::trace::TraceReader;
/// use schedtrace_core::{Poll, Source};
///
/// let mut trace = TraceReader::open("run.schedtrace")?;
/// let mut switches = 0;
/// while let Poll::Batch(batch) = trace.poll(std::time::Instant::now())? {
///     switches += batch.events.iter().filter(|e| e.kind.kind() == schedtrace_core::Kind::Switch).count();
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct TraceReader {
    dir: PathBuf,
    tables: Vec<Table>,
    names: Interner,
    meta: Meta,
    commit: Commit,
    state: TraceState,
    /// Segments that were not read yet.
    seqs: VecDeque<u32>,
    all_seqs: Vec<u32>,
    from: Option<Nanos>,
    until: Option<Nanos>,
    /// The tables of events that are read, by name.
    wanted: fn(&str) -> bool,
    /// The segment before the next, if it was read: what it knew need not be repeated.
    previous: Option<u32>,
    open: Option<Segment>,
    /// Everything before this was delivered.
    delivered: Nanos,
}

impl TraceReader {
    /// Opens a trace.
    ///
    /// # Errors
    ///
    /// [`Error::NotATrace`] if it is none, which names those that are in it; [`Error::NewerTrace`] if a later version wrote
    /// it, [`Error::Damaged`] if what it says of itself cannot be, [`Error::Io`] if it cannot be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_one(dir.as_ref()).map_err(archive::that_holds_traces)
    }

    /// The same, without looking for traces in what is none.
    pub(super) fn open_one(dir: &Path) -> Result<Self> {
        let dir = dir.to_owned();
        let file = MetaFile::read(&dir)?;
        let tables = Table::of(&file.meta, file.schema);
        refuse_links(&dir, &tables)?;
        let (commit, known, state) = state(&dir, &tables)?;
        // Again: what is known only at the end was written before the commit that says so.
        let mut meta = MetaFile::read(&dir)?.meta;
        if state == TraceState::Interrupted {
            meta.ended = Some(commit.complete_until_ns);
        }
        // What was removed is not part of the recording any more.
        meta.started = meta.started.max(commit.totals.removed.until_ns);
        let all_seqs = segments(&dir, &tables, &commit, known)?;
        let seqs = all_seqs.iter().copied().collect();
        let (previous, open, delivered) = (None, None, Nanos::ZERO);
        let names = Interner::default();
        Ok(Self {
            dir,
            tables,
            names,
            meta,
            commit,
            state,
            seqs,
            all_seqs,
            from: None,
            until: None,
            wanted: |_| true,
            previous,
            open,
            delivered,
        })
    }

    /// Whether it is finished.
    pub(crate) fn state(&self) -> TraceState {
        self.state
    }

    /// From when to when it reaches.
    pub(super) fn window(&self) -> Window {
        Window::new(self.meta.started, self.commit.complete_until_ns.max(self.meta.started))
    }

    /// Reads only the segments in which something of the time between two moments may be; `None` is the trace's begin or
    /// end. Within a segment nothing is left out: whoever needs exact limits clips.
    #[must_use]
    pub fn between(mut self, from: Option<Nanos>, until: Option<Nanos>) -> Self {
        (self.from, self.until) = (from, until);
        self
    }

    /// Reads only the events of some tables.
    #[cfg(feature = "sql")]
    pub(crate) fn only(mut self, wanted: fn(&str) -> bool) -> Self {
        self.wanted = wanted;
        self
    }

    /// What is in the trace, and how complete it is: looks at the metadata of every file, and at no row.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn info(&self) -> Result<TraceInfo> {
        let mut extents = [Extent::default(); Table::COUNT];
        let mut segments = 0;
        for &seq in &self.all_seqs {
            let Some(files) = SegmentFiles::open(&self.dir, &self.tables, seq)? else { continue };
            segments += 1;
            for (table, extent) in self.tables.iter().zip(&files.extents) {
                let sum = &mut extents[table.index()];
                sum.bytes = sum.bytes.saturating_add(extent.bytes);
                sum.rows = sum.rows.saturating_add(extent.rows);
            }
        }
        let table = |table: &Table| {
            let Extent { rows, bytes } = extents[table.index()];
            TableInfo { name: table.name().to_owned(), rows, bytes, segments }
        };
        let tables: Vec<TableInfo> = self.tables.iter().map(table).collect();
        let events = self.tables.iter().filter(|table| table.is_event());
        let documents = [super::commit::META, super::commit::COMMIT].map(|name| self.dir.join(name).metadata());
        let documents = documents.into_iter().filter_map(|metadata| Some(metadata.ok()?.len()));
        let totals = &self.commit.totals;
        let missing = totals.lost.iter().any(|loss| loss.count > 0 && loss.place != LossPlace::Late);
        Ok(TraceInfo {
            path: self.dir.clone(),
            state: self.state,
            host: self.meta.host.clone(),
            window: self.window(),
            bytes: tables.iter().map(|table| table.bytes).chain(documents).fold(0, u64::saturating_add),
            completeness: Completeness {
                events: events.map(|table| extents[table.index()].rows).fold(0, u64::saturating_add),
                late: totals.late,
                lost: totals.lost.clone(),
                removed: totals.removed,
                ends_at_last_commit: self.state != TraceState::Finished,
                complete: self.state == TraceState::Finished && !missing && totals.removed.segments == 0,
            },
            tables,
            transport: self.meta.transport,
            accounts: self.meta.accounts.clone(),
            trigger: self.meta.trigger.clone(),
        })
    }

    /// Where the newest segments begin that have no more than so many events together, the newest one in any case; none if
    /// that is the whole trace. An analysis of what follows that moment reads nothing before it, and misses nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// ```no_run
    /// use schedtrace_core::trace::TraceReader;
    /// let trace = TraceReader::open("run.schedtrace")?;
    /// let newest = trace.begin_of_newest(1_000_000)?;
    /// let trace = trace.between(newest, None);
    /// # let _ = trace;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn begin_of_newest(&self, events: u64) -> Result<Option<Nanos>> {
        let (mut sum, mut begin) = (0_u64, None);
        for &seq in self.all_seqs.iter().rev() {
            let Some(files) = SegmentFiles::open(&self.dir, &self.tables, seq)? else { continue };
            let counted = self.tables.iter().zip(&files.extents).filter(|(table, _)| table.is_event());
            let before = sum;
            sum = counted.map(|(_, extent)| extent.rows).fold(sum, u64::saturating_add);
            if sum > events && before > 0 {
                return Ok(begin);
            }
            // Where one ends the next begins: a nanosecond later, only the next is meant.
            begin = files.span.map(|span| span.from_ns + Nanos(1)).or(begin);
        }
        Ok(None)
    }

    /// One of its tables, as Arrow has it: rows as they lie in the files, in which each segment's `tasks` and `cgroups`
    /// begin with those known from before (`carried`).
    ///
    /// ```no_run
    /// use schedtrace_core::trace::TraceReader;
    /// let mut rows = 0;
    /// for batch in TraceReader::open("run.schedtrace")?.table("sched_switch")? {
    ///     rows += batch?.num_rows();
    /// }
    /// println!("{rows} switches");
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if no table is called so; the module's documentation lists them.
    pub fn table(&self, name: &str) -> Result<TableReader> {
        let at = self.tables.iter().position(|table| table.name() == name).ok_or_else(|| {
            let all: Vec<_> = self.tables.iter().map(|table| table.name()).collect();
            Error::Invalid(format!("no table of this trace is called `{name}`: use one of {}", all.join(", ")))
        })?;
        let seqs = self.all_seqs.iter().copied().collect();
        Ok(TableReader { dir: self.dir.clone(), tables: self.tables.clone(), at, seqs, rows: None })
    }

    /// Some segments of one of its tables.
    #[cfg(feature = "sql")]
    pub(super) fn table_of(&self, name: &str, seqs: impl IntoIterator<Item = u32>) -> Result<TableReader> {
        Ok(TableReader { seqs: seqs.into_iter().collect(), ..self.table(name)? })
    }

    /// To which time it goes, as far as it was committed.
    #[cfg(feature = "sql")]
    pub(crate) fn until(&self) -> Nanos {
        self.commit.complete_until_ns.max(self.meta.started)
    }

    /// What is known to be missing from it.
    #[cfg(feature = "sql")]
    pub(crate) fn lost(&self) -> u64 {
        let lost = self.commit.totals.lost.iter().filter(|loss| loss.place != LossPlace::Late);
        lost.map(|loss| loss.count).fold(0, u64::saturating_add)
    }

    #[cfg(feature = "sql")]
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    #[cfg(feature = "sql")]
    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    #[cfg(feature = "sql")]
    pub(super) fn seqs(&self) -> &[u32] {
        &self.all_seqs
    }

    /// Which time a segment at rest covers, if it says.
    fn span_at_rest(&self, seq: u32) -> Result<Option<Span>> {
        // Every trace has it, and it is small.
        let path = parquet_path(&self.dir, Table::Tasks, seq);
        Ok(Parquet::open(path, Table::Tasks)?.and_then(|parquet| parquet.span()))
    }

    /// Opens the next segment that is wanted; none at the end.
    fn next_segment(&mut self) -> Result<Option<Segment>> {
        while let Some(seq) = self.seqs.pop_front() {
            let is_outside = |span: Option<Span>| span.is_some_and(|span| span.is_outside(self.from, self.until));
            // One file says so: the others of a segment that is not wanted are not opened.
            if (self.from.is_some() || self.until.is_some()) && is_outside(self.span_at_rest(seq)?) {
                continue;
            }
            let Some(files) = SegmentFiles::open(&self.dir, &self.tables, seq)? else { continue };
            if is_outside(files.span) {
                continue;
            }
            let consecutive = self.previous.is_some_and(|previous| previous.checked_add(1) == Some(seq));
            self.previous = Some(seq);
            return Ok(Segment::new(&self.tables, files, !consecutive, self.wanted));
        }
        Ok(None)
    }

    fn advance(&mut self) -> Result<Option<Batch>> {
        loop {
            let Some(segment) = &mut self.open else {
                let Some(segment) = self.next_segment()? else { return Ok(None) };
                self.open = Some(segment);
                continue;
            };
            // What is after the end of what is wanted need not be read, only what came late for it, which at rest is in
            // its place.
            let enough = self.until.is_some_and(|until| self.delivered > until) && segment.is_at_rest();
            if !enough && let Some(batch) = segment.next(&mut self.delivered, &mut self.names)? {
                return Ok(Some(batch));
            }
            self.open = None;
        }
    }
}

impl Source for TraceReader {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The next batch, at once. After an error, [`Error::Damaged`] or [`Error::Io`], the trace is over.
    fn poll(&mut self, _deadline: Instant) -> Result<Poll> {
        let next = self.advance();
        if next.is_err() {
            self.seqs.clear();
            self.open = None;
        }
        Ok(next?.map_or(Poll::End, Poll::Batch))
    }
}

/// The rows of one table of a trace, in record batches: what [`TraceReader::table`] gives. It ends with the first error,
/// [`Error::Damaged`] or [`Error::Io`].
#[derive(Debug)]
pub struct TableReader {
    dir: PathBuf,
    /// Those of the trace, and which of them this is.
    tables: Vec<Table>,
    at: usize,
    seqs: VecDeque<u32>,
    rows: Option<Rows>,
}

impl TableReader {
    /// Its columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.tables[self.at].schema()
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = &mut self.rows
                && let Some(batch) = rows.next()?
            {
                let batch = with_schema(&self.tables[self.at].schema(), &batch);
                return batch.map(Some).map_err(|why| Error::damaged(rows.path(), why));
            }
            let Some(seq) = self.seqs.pop_front() else { return Ok(None) };
            let files = SegmentFiles::open(&self.dir, &self.tables, seq)?;
            self.rows = files.and_then(|files| files.tables.into_iter().nth(self.at));
        }
    }
}

/// The columns as the schema has them: texts are read as views, which are cheaper to check.
pub(super) fn with_schema(schema: &SchemaRef, batch: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let found = batch.column_by_name(field.name());
        let found = found.ok_or_else(|| ArrowError::SchemaError(format!("lacks the column {}", field.name())))?;
        cast(found, field.data_type())
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<std::result::Result<_, _>>()?)
}

impl Iterator for TableReader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.seqs.clear();
            self.rows = None;
        }
        next
    }
}

/// The last commit, how much of it can be relied on, and whether the trace is finished, being recorded, or was interrupted.
pub(super) fn state(dir: &Path, tables: &[Table]) -> Result<(Commit, Known, TraceState)> {
    let (mut commit, mut known) = Commit::read(dir)?;
    if commit.state == CommitState::Recording {
        if is_locked(dir)? {
            return Ok((commit, known, TraceState::Recording));
        }
        // It may have been finished since.
        (commit, known) = Commit::read(dir)?;
    }
    if known == Known::Durable {
        catch_up(dir, tables, &mut commit)?;
    }
    let state = match commit.state {
        CommitState::Finished => TraceState::Finished,
        CommitState::Repaired => TraceState::Repaired,
        CommitState::Recording => TraceState::Interrupted,
    };
    Ok((commit, known, state))
}

/// The files may have come further than the record of what is on the disk: a segment that it counts in part, and that
/// came to rest since, is there as a whole.
pub(super) fn catch_up(dir: &Path, tables: &[Table], commit: &mut Commit) -> Result<()> {
    let Some(newest) = commit.segments.iter().map(|segment| segment.seq).max() else { return Ok(()) };
    let at_rest = tables.iter().map(|&table| Parquet::open(parquet_path(dir, table, newest), table));
    let at_rest = at_rest.collect::<Result<Option<Vec<_>>>>()?;
    if let Some(span) = at_rest.and_then(|tables| tables.first().and_then(Parquet::span)) {
        commit.complete_until_ns = commit.complete_until_ns.max(span.until_ns);
    }
    Ok(())
}

/// Whether this is a trace that was interrupted and nobody records.
pub(super) fn is_interrupted(dir: &Path) -> bool {
    let state = MetaFile::read(dir).and_then(|file| state(dir, &Table::of(&file.meta, file.schema)));
    matches!(state, Ok((_, _, TraceState::Interrupted)))
}

/// Whether somebody records into a directory.
fn is_locked(dir: &Path) -> Result<bool> {
    let Some(lock) = untrusted::open(&dir.join(LOCK))? else { return Ok(false) };
    // Given back at once: the file is closed at the end of this function.
    Ok(flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK))
}

/// A link in place of a folder would lead out of the trace.
pub(super) fn refuse_links(dir: &Path, tables: &[Table]) -> Result<()> {
    for folder in tables.iter().map(|table| table.folder()).chain([PathBuf::from("events")]) {
        let path = dir.join(folder);
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(Error::damaged(&path, "is a symbolic link, which is not followed"));
        }
    }
    Ok(())
}

/// The numbers of all segments, oldest first.
pub(super) fn segments(dir: &Path, tables: &[Table], commit: &Commit, known: Known) -> Result<Vec<u32>> {
    let folder = dir.join(Table::Tasks.folder());
    let mut seqs: BTreeSet<u32> = commit.segments.iter().map(|segment| segment.seq).collect();
    let entries = match std::fs::read_dir(&folder) {
        // Interrupted before anything was written.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(Error::io("cannot read", &folder))?),
    };
    for entry in entries.into_iter().flatten() {
        let name = entry.map_err(Error::io("cannot read", &folder))?.file_name();
        seqs.extend(name.to_str().and_then(seq_of));
    }
    seqs.retain(|seq| *seq >= commit.first_seq);
    if known == Known::Durable {
        // The files may have come further than the record: what it does not count yet is left out, and so are the oldest
        // segments, as far as they were removed since.
        let newest = commit.segments.iter().map(|segment| segment.seq).max();
        seqs.retain(|seq| newest.is_none_or(|newest| *seq <= newest));
        let is_whole = |seq| {
            let there = |table| parquet_path(dir, table, seq).exists() || stream_path(dir, table, seq).exists();
            tables.iter().copied().all(there)
        };
        return Ok(seqs.into_iter().skip_while(|seq| !is_whole(*seq)).collect());
    }
    Ok(seqs.into_iter().collect())
}

/// The files of one segment, opened together: they stay readable if it is removed meanwhile.
#[derive(Debug)]
struct SegmentFiles {
    tables: Vec<Rows>,
    extents: Vec<Extent>,
    span: Option<Span>,
}

impl SegmentFiles {
    /// Opens a segment wherever it is: each table at rest or in flight. None if it was removed meanwhile.
    fn open(dir: &Path, tables: &[Table], seq: u32) -> Result<Option<Self>> {
        let mut missing = Table::Switch;
        for _ in 0..ATTEMPTS {
            // At rest first: where not all tables are, the commit that is read next has their streams.
            let parquet = tables.iter().map(|&table| Parquet::open(parquet_path(dir, table, seq), table));
            let parquet = parquet.collect::<Result<Vec<_>>>()?;
            let commit = if parquet.iter().all(Option::is_some) { None } else { Some(Commit::read(dir)?.0) };
            if commit.as_ref().is_some_and(|commit| seq < commit.first_seq) {
                return Ok(None);
            }
            let in_flight = commit.as_ref().and_then(|commit| commit.segment(seq));
            let mut files = Self { tables: Vec::new(), extents: Vec::new(), span: in_flight.map(|s| s.span) };
            for (&table, parquet) in tables.iter().zip(parquet) {
                missing = table;
                // Some tables at rest are no help: all are, or the streams of all are still there.
                if let Some(in_flight) = in_flight {
                    let Some(&committed) = in_flight.tables.get(table.name()) else { break };
                    let Some(stream) = Stream::open(stream_path(dir, table, seq), table, committed)? else { break };
                    files.extents.push(committed);
                    files.tables.push(Rows::Stream(Box::new(stream)));
                } else {
                    let Some(parquet) = parquet else { break };
                    files.span = files.span.or(parquet.span());
                    files.extents.push(parquet.extent());
                    files.tables.push(Rows::Parquet(Box::new(parquet)));
                }
            }
            if files.tables.len() == tables.len() {
                return Ok(Some(files));
            }
        }
        Err(Error::damaged(parquet_path(dir, missing, seq), "is missing"))
    }
}

/// One table of events on its way into the merge.
#[derive(Debug)]
struct EventTable {
    table: Table,
    rows: Rows,
    /// Nothing earlier follows, as far as the table is in order.
    until: Nanos,
    ended: bool,
}

impl EventTable {
    fn shard(&self) -> ShardId {
        ShardId(self.table.index() as u16)
    }

    /// Moves its next rows into the merge.
    fn refill(&mut self, names: &mut Interner, merge: &mut Merge<Event>) -> Result<()> {
        let Some(rows) = self.rows.next()? else {
            self.ended = true;
            merge.close(self.shard());
            return Ok(());
        };
        let mut events = Vec::new();
        let read = schema::read_events(self.table, &rows, names, &mut events);
        read.map_err(|why| Error::damaged(self.rows.path(), why))?;
        self.until = events.iter().map(|event| event.ts).fold(self.until, Nanos::max);
        merge.push(self.shard(), events, self.until);
        Ok(())
    }
}

/// One table of what belongs to the stream at some time: identities, paths, losses.
#[derive(Debug)]
struct NoteTable<T> {
    rows: Rows,
    read: ReadNotes<T>,
    notes: VecDeque<Note<T>>,
    /// Whether what earlier segments know is wanted too.
    repeated: bool,
}

type ReadNotes<T> = fn(&RecordBatch, &mut VecDeque<Note<T>>) -> Result<(), String>;

impl<T> NoteTable<T> {
    fn new(rows: Rows, read: ReadNotes<T>, repeated: bool) -> Self {
        Self { rows, read, notes: VecDeque::new(), repeated }
    }

    /// Moves out what is due, in the order in which it was announced; whether that was all, and not just as much as a
    /// batch may have.
    fn take(&mut self, due: impl Fn(Nanos) -> bool, out: &mut Vec<T>) -> Result<bool> {
        loop {
            while let Some(note) = self.notes.front() {
                if !note.carried && !due(note.seen) {
                    return Ok(true);
                }
                if out.len() >= EVENTS_PER_BATCH {
                    return Ok(false);
                }
                let wanted = !note.carried || self.repeated;
                out.extend(self.notes.pop_front().filter(|_| wanted).map(|note| note.item));
            }
            let Some(rows) = self.rows.next()? else { return Ok(true) };
            (self.read)(&rows, &mut self.notes).map_err(|why| Error::damaged(self.rows.path(), why))?;
        }
    }
}

/// A segment that is being read.
#[derive(Debug)]
struct Segment {
    tables: Vec<EventTable>,
    tasks: NoteTable<Task>,
    cgroups: NoteTable<Cgroup>,
    lost: NoteTable<Loss>,
    /// None in traces that have no such table.
    statuses: Option<NoteTable<TaskStatus>>,
    merge: Merge<Event>,
    /// Events in time order, of which those from `next` on were not delivered.
    events: Vec<Event>,
    next: usize,
    late: Vec<Event>,
    /// To which time the merge has come.
    merged: Nanos,
    span: Option<Span>,
    ended: bool,
}

impl Segment {
    /// `None` unless every table is there.
    fn new(tables: &[Table], files: SegmentFiles, repeated: bool, wanted: fn(&str) -> bool) -> Option<Self> {
        let rows = tables.iter().copied().zip(files.tables);
        let (events, notes): (Vec<_>, Vec<_>) = rows.partition(|(table, _)| table.is_event());
        let tables: Vec<EventTable> = events
            .into_iter()
            .filter(|(table, _)| wanted(table.name()))
            .map(|(table, rows)| EventTable { table, rows, until: Nanos::ZERO, ended: false })
            .collect();
        // Tasks, cgroups, losses, states: in the order of their numbers.
        let mut rows = notes.into_iter().map(|(_, rows)| rows);
        Some(Self {
            merge: Merge::new(tables.iter().map(EventTable::shard)),
            tables,
            tasks: NoteTable::new(rows.next()?, schema::read_tasks, repeated),
            cgroups: NoteTable::new(rows.next()?, schema::read_cgroups, repeated),
            lost: NoteTable::new(rows.next()?, schema::read_loss, repeated),
            statuses: rows.next().map(|rows| NoteTable::new(rows, schema::read_states, repeated)),
            events: Vec::new(),
            next: 0,
            late: Vec::new(),
            merged: Nanos::ZERO,
            span: files.span,
            ended: false,
        })
    }

    /// Whether its rows are sorted.
    fn is_at_rest(&self) -> bool {
        self.tables.iter().all(|table| matches!(table.rows, Rows::Parquet(_)))
    }

    /// Its next batch, when everything before `delivered` was; none at its end.
    fn next(&mut self, delivered: &mut Nanos, names: &mut Interner) -> Result<Option<Batch>> {
        self.refill(names)?;
        let end = self.events.len().min(self.next + EVENTS_PER_BATCH);
        let events = &self.events[self.next..end];
        let last = events.last().map_or(Nanos::ZERO, |event| event.ts);
        let until = match self.events.get(end) {
            Some(event) => event.ts,
            None if self.ended => self.span.map_or(last, |span| span.until_ns).max(last),
            None => self.merged,
        };
        let over = self.ended && end == self.events.len();
        let due = |seen: Nanos| over || seen < until || seen <= last;
        let mut batch = Batch { until: *delivered, names: std::mem::take(&mut names.fresh), ..Batch::default() };
        let all = self.tasks.take(due, &mut batch.tasks)?
            & self.cgroups.take(due, &mut batch.cgroups)?
            & self.lost.take(due, &mut batch.lost)?
            & self.statuses.as_mut().map_or(Ok(true), |table| table.take(due, &mut batch.statuses))?;
        batch.tasks.retain(|task| idle_cpu(task.id).is_none());
        // Identities come first, in batches of their own if they are many.
        if all {
            let late = events.partition_point(|event| event.ts < *delivered);
            batch.late = std::mem::take(&mut self.late);
            batch.late.extend_from_slice(&events[..late]);
            batch.events = events[late..].to_vec();
            batch.until = until.max(*delivered);
            self.next = end;
        }
        if all && over && batch.is_empty() && batch.until == *delivered {
            return Ok(None);
        }
        *delivered = batch.until;
        Ok(Some(batch))
    }

    /// Reads on until there are events to deliver, or no more.
    fn refill(&mut self, names: &mut Interner) -> Result<()> {
        if self.next < self.events.len() {
            return Ok(());
        }
        self.events.clear();
        self.next = 0;
        while self.events.is_empty() && self.late.len() < EVENTS_PER_BATCH && !self.ended {
            // The one that holds the others back.
            let slowest = self.tables.iter_mut().filter(|table| !table.ended).min_by_key(|table| table.until);
            if let Some(table) = slowest {
                table.refill(names, &mut self.merge)?;
            }
            self.ended = self.tables.iter().all(|table| table.ended);
            self.merged = self.merge.drain(&mut self.events, &mut self.late).unwrap_or(self.merged);
        }
        Ok(())
    }
}
