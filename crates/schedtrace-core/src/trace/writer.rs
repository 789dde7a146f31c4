//! Writes a trace: a [`Sink`] whose data survive whatever happens to the process.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::{FlockOperation, OFlags, flock};

use super::commit::{self, Commit, CommitState, InFlight, LOCK, MetaFile, SCHEMA, Totals, sync_folder};
use super::retention::{self, Retention};
use super::schema::{Rows, Table};
use super::segment::{self, Flight, Sealed, Unsealed};
use super::sync::{Job, Syncer};
use crate::error::{Error, Result};
use crate::event::{Batch, Event, LossCounts, Nanos, Task};
use crate::known::{Identities, Note, Statuses};
use crate::sink::Sink;
use crate::source::Meta;

/// The smallest and the largest segment, in bytes of its streams.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 4 << 10..=256 << 20;
/// The smallest limit of size.
const MIN_MAX_BYTES: u64 = 1 << 20;
/// So many commits between two times that they are brought to the disk.
const COMMITS_PER_SYNC: u32 = 4;
/// A commit may come earlier by so much.
const EARLY: Duration = Duration::from_millis(20);
/// So many segments may wait to be turned into Parquet, and take so many bytes, where no limit of size says less.
const WAITING_SEGMENTS: usize = 16;
const WAITING_BYTES: u64 = 1 << 30;
/// A segment that is to be sorted when it comes to rest is held in memory: it does not grow beyond this for want of room.
const GROWN_BYTES: u64 = 32 << 20;
/// A limit is kept in so many steps: each segment is at most this part of it.
const SEGMENTS_PER_LIMIT: u64 = 16;

/// How a trace is written.
///
/// ```
/// use schedtrace_core::trace::WriterOptions;
/// let last_hour = WriterOptions {
///     max_bytes: Some(1 << 30),
///     max_age: Some(std::time::Duration::from_secs(3600)),
///     ..WriterOptions::default()
/// };
/// # let _ = last_hour;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// The most bytes that all files of the trace may take together; the oldest segments are removed to keep it. At
    /// least 1 MiB.
    pub max_bytes: Option<u64>,
    /// How far back the trace reaches; segments whose last event is older are removed.
    pub max_age: Option<Duration>,
    /// The size in bytes at which the stream is cut and turned into Parquet: from 4 KiB to 256 MiB, and no more than a
    /// sixteenth of `max_bytes`.
    pub segment_bytes: u64,
    /// How much a crash may cost: commits are made four times as often, and what was committed is brought to the disk
    /// this often, as fast as the disk can. Both happen as batches come.
    pub sync_interval: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { max_bytes: None, max_age: None, segment_bytes: 32 << 20, sync_interval: Duration::from_secs(1) }
    }
}

impl WriterOptions {
    /// Checks that the limits can be kept.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one makes no sense.
    pub fn check(&self) -> Result<()> {
        match self.max_bytes {
            Some(max_bytes) if max_bytes < MIN_MAX_BYTES => Err(Error::Invalid(format!(
                "a trace cannot be kept below {max_bytes} bytes: the smallest limit is {MIN_MAX_BYTES}"
            ))),
            _ => Ok(()),
        }
    }
}

/// Writes a trace into a directory.
///
/// Everything up to the last commit, at most [`WriterOptions::sync_interval`] back, can be read at any time, also while
/// the recording runs and after it was killed. The disk is waited for on another thread: after a power cut, or on a copy
/// of an unfinished trace elsewhere, what had not reached it yet is missing. A writer that is dropped without
/// [`finish`](Sink::finish), or that failed (a full disk), leaves an interrupted trace that ends at its last commit.
///
/// ```
/// use schedtrace_core::trace::{TraceReader, TraceState, TraceWriter, WriterOptions};
/// use schedtrace_core::{Batch, Meta, Sink};
///
/// let folder = tempfile::tempdir()?;
/// let dir = folder.path().join("run.schedtrace");
/// let mut writer = TraceWriter::create(&dir, WriterOptions::default())?;
/// writer.begin(&Meta::default())?;
/// writer.batch(&Batch::default())?;
/// writer.finish(&Meta::default())?;
/// assert_eq!(TraceReader::open(&dir)?.info()?.state, TraceState::Finished);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TraceWriter {
    dir: PathBuf,
    options: WriterOptions,
    phase: Phase,
    /// Held until the recording is finished or the writer is gone.
    lock: Option<File>,
    /// Those of this trace.
    tables: Vec<Table>,
    flight: Option<Flight>,
    identities: Identities,
    statuses: Statuses,
    sealer: Sealer,
    syncer: Syncer,
    /// Segments that are not known to be at rest, oldest first.
    unsealed: VecDeque<Waiting>,
    retention: Retention,
    /// What is beyond the limits and not part of the trace any more. Its files go with the next segment that is sealed.
    overdue: Vec<Sealed>,
    /// Whether its files go at once, and how many jobs do that.
    hurry: bool,
    removing: u32,
    counts: Counts,
    /// The time to which the stream has come.
    until: Nanos,
    boot_id: Option<String>,
    committed: Instant,
    synced: Instant,
    /// Segments begun and removed when the folders were last brought to the disk.
    folders_synced: (u32, u64),
    meta_bytes: u64,
    document_bytes: u64,
}

/// A segment that waits to be at rest.
#[derive(Debug)]
struct Waiting {
    segment: InFlight,
    bytes: u64,
    files: Vec<Arc<File>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    Recording,
    Finished,
    Failed,
}

/// What was recorded so far.
#[derive(Debug)]
struct Counts {
    rows: [u64; Table::COUNT],
    late: u64,
    lost: LossCounts,
}

impl Default for Counts {
    fn default() -> Self {
        Self { rows: [0; Table::COUNT], late: 0, lost: LossCounts::default() }
    }
}

impl TraceWriter {
    /// Creates the directory and locks it. The recording starts with [`Sink::begin`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the directory exists and is not empty, or a limit makes no sense; [`Error::Io`] if it cannot
    /// be created or written.
    pub fn create(dir: impl AsRef<Path>, mut options: WriterOptions) -> Result<Self> {
        let dir = dir.as_ref().to_owned();
        options.check()?;
        if let Some(max_bytes) = options.max_bytes {
            options.segment_bytes = options.segment_bytes.min(max_bytes / SEGMENTS_PER_LIMIT);
        }
        options.segment_bytes = options.segment_bytes.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        match std::fs::create_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => refuse_unless_empty(&dir)?,
            created => created.map_err(Error::io("cannot create", &dir))?,
        }
        let lock = lock(&dir)?;
        // Somebody else may have recorded and finished in between.
        refuse_unless_empty(&dir)?;
        Ok(Self {
            phase: Phase::Created,
            lock: Some(lock),
            tables: Vec::new(),
            flight: None,
            identities: Identities::default(),
            statuses: Statuses::default(),
            sealer: Sealer::start(dir.clone())?,
            syncer: Syncer::start(dir.clone())?,
            unsealed: VecDeque::new(),
            retention: Retention::new(options.max_bytes, options.max_age),
            overdue: Vec::new(),
            hurry: false,
            removing: 0,
            counts: Counts::default(),
            until: Nanos::ZERO,
            boot_id: commit::boot_id(),
            committed: Instant::now(),
            synced: Instant::now(),
            folders_synced: (0, 0),
            meta_bytes: 0,
            document_bytes: 0,
            dir,
            options,
        })
    }

    /// The size of the trace's files in bytes; at rest once it is finished.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.retention.sealed_bytes() + self.in_flight_bytes() + self.document_bytes
    }

    /// How many events were written, with those that came late and those that were removed later.
    #[must_use]
    pub fn rows(&self) -> u64 {
        Table::ALL.into_iter().filter(|table| table.is_event()).map(|table| self.counts.rows[table.index()]).sum()
    }

    /// How many rows, events among them, were removed to keep to the limits.
    #[must_use]
    pub fn removed_rows(&self) -> u64 {
        self.retention.removed().rows
    }

    /// The room that the trace needs in bytes: that of its files, and what they take for a moment as they come to rest.
    pub(super) fn need_bytes(&self) -> u64 {
        self.retention.sealed_bytes() + self.other_bytes()
    }

    /// What all but the segments at rest needs.
    fn other_bytes(&self) -> u64 {
        // The segment on its way to rest is there twice for a moment.
        let twice_bytes = self.unsealed.iter().map(|waiting| waiting.bytes).max().unwrap_or(0);
        let overdue_bytes: u64 = self.overdue.iter().map(|segment| segment.bytes).sum();
        self.in_flight_bytes() + twice_bytes + overdue_bytes + self.document_bytes
    }

    /// Changes the limit of size of a trace that has one: the oldest segments are counted out at the next commit. With
    /// `hurry` their files go at once, and not with the next segment that is sealed.
    pub(super) fn keep_below(&mut self, max_bytes: u64, hurry: bool) {
        self.retention.keep_below(max_bytes);
        self.hurry = hurry;
    }

    /// Whether there is nothing but the segment that grows: nothing is left that could be removed.
    pub(super) fn holds_only_the_newest(&self) -> bool {
        let removed = self.overdue.is_empty() && self.removing == 0;
        removed && self.retention.sealed_bytes() == 0 && self.unsealed.is_empty()
    }

    /// Waits until all segments that were cut are at rest, so that a test does not depend on how fast that goes.
    #[cfg(test)]
    pub(super) fn settle(&mut self) -> Result<()> {
        while !self.unsealed.is_empty() {
            let sealed = self.sealer.done.recv().map_err(|_| self.sealer.died())?;
            self.note(sealed?);
        }
        Ok(())
    }

    fn in_flight_bytes(&self) -> u64 {
        self.unsealed.iter().map(|waiting| waiting.bytes).sum::<u64>() + self.flight.as_ref().map_or(0, Flight::bytes)
    }

    /// Runs a step of the recording; after an error there is no other.
    fn step(&mut self, phase: Phase, step: impl FnOnce(&mut Self) -> Result<Phase>) -> Result<()> {
        if self.phase != phase {
            let why = match self.phase {
                Phase::Created => "its recording has not begun",
                Phase::Recording => "its recording has begun already",
                Phase::Finished => "it is finished",
                Phase::Failed => "writing it failed before",
            };
            return Err(Error::Invalid(format!("cannot write the trace {}: {why}", self.dir.display())));
        }
        let result = step(self);
        self.phase = *result.as_ref().unwrap_or(&Phase::Failed);
        result.map(drop)
    }

    fn start(&mut self, meta: &Meta) -> Result<()> {
        self.tables = Table::of(meta, SCHEMA);
        for table in &self.tables {
            let folder = self.dir.join(table.folder());
            std::fs::create_dir_all(&folder).map_err(Error::io("cannot create", &folder))?;
        }
        sync_folder(&self.dir.join("events"))?;
        self.until = meta.started;
        // A trace that has its setting has a commit too, whatever happens.
        let commit = self.commit(CommitState::Recording, Vec::new());
        let commit_bytes = commit.write_durable(&self.dir)? + commit.write_last(&self.dir)?;
        self.meta_bytes = self.meta_file(meta).write(&self.dir)?;
        self.document_bytes = self.meta_bytes + commit_bytes;
        self.flight = Some(Flight::create(&self.dir, &self.tables, 0, self.until, Rows::default())?);
        (self.committed, self.synced) = (Instant::now(), Instant::now());
        Ok(())
    }

    fn record(&mut self, batch: &Batch) -> Result<()> {
        let now = self.until;
        for task in &batch.tasks {
            let seen = self.identities.task(task, now);
            self.task(Note { seen, carried: false, item: *task })?;
        }
        for cgroup in &batch.cgroups {
            self.identities.cgroup(cgroup, now);
            let note = Note { seen: now, carried: false, item: cgroup.clone() };
            self.add(Table::Cgroups, |flight| flight.rows.cgroup(&note))?;
        }
        if let Some(flight) = &mut self.flight {
            batch.names.iter().for_each(|name| flight.rows.name(name));
        }
        for status in &batch.statuses {
            self.statuses.known(status);
            self.add(Table::States, |flight| flight.rows.status(status, now))?;
        }
        for loss in &batch.lost {
            self.counts.lost.add(loss);
            self.statuses.lost(loss);
            let note = Note { seen: now.min(loss.from), carried: false, item: loss.clone() };
            self.add(Table::Loss, |flight| flight.rows.loss(&note))?;
        }
        for event in batch.events.iter().chain(&batch.late) {
            self.event(event)?;
        }
        self.counts.late += batch.late.len() as u64;
        // A source that has nothing more says so with a time that never comes.
        let until = if batch.until < Nanos::MAX { batch.until } else { batch.events.last().map_or(now, |e| e.ts) };
        self.until = now.max(until);
        if let Some(flight) = &mut self.flight {
            flight.span.until_ns = self.until;
            // Segments must not outlive the limit of age just because little happens.
            let span = self.until - flight.span.from_ns;
            let aged = self.options.max_age.is_some_and(|age| span > Nanos::from(age / SEGMENTS_PER_LIMIT as u32));
            let large = flight.new_bytes() >= self.options.segment_bytes;
            if aged || large && self.has_room()? {
                self.rotate()?;
            }
        }
        if self.is_due(self.committed, self.options.sync_interval / COMMITS_PER_SYNC) {
            self.commit_written()?;
        }
        Ok(())
    }

    /// Whether so much time has gone by, or nearly: where batches come once in an interval, the next one would be late.
    fn is_due(&self, last: Instant, interval: Duration) -> bool {
        last.elapsed() >= interval.saturating_sub(EARLY)
    }

    /// Whether a segment that is large enough should make way for the next. Where the disk or the CPUs do not keep up,
    /// segments wait, and then the newest one grows, which costs less than many small ones; then the recorder has to wait.
    fn has_room(&mut self) -> Result<bool> {
        self.collect()?;
        let most = self.options.max_bytes.map_or(WAITING_BYTES, |max| WAITING_BYTES.min(max / 2));
        while self.in_flight_bytes() >= most && !self.unsealed.is_empty() {
            let sealed = self.sealer.done.recv().map_err(|_| self.sealer.died())?;
            self.note(sealed?);
        }
        let bytes = self.flight.as_ref().map_or(0, Flight::new_bytes);
        Ok(self.unsealed.len() < WAITING_SEGMENTS / 2 || bytes >= GROWN_BYTES)
    }

    #[inline]
    fn event(&mut self, event: &Event) -> Result<()> {
        self.statuses.event(event);
        for cpu in self.identities.event(event) {
            self.task(Note { seen: self.until.min(event.ts), carried: false, item: Task::idle(cpu) })?;
        }
        let Some(flight) = &mut self.flight else { return Ok(()) };
        flight.span.first_ns = flight.span.first_ns.min(event.ts);
        flight.span.last_ns = flight.span.last_ns.max(event.ts);
        let table = flight.rows.event(event);
        self.counts.rows[table.index()] += 1;
        flight.flush_if_full(table)
    }

    fn task(&mut self, note: Note<Task>) -> Result<()> {
        self.add(Table::Tasks, |flight| flight.rows.task(&note))
    }

    fn add(&mut self, table: Table, push: impl FnOnce(&mut Flight)) -> Result<()> {
        let Some(flight) = &mut self.flight else { return Ok(()) };
        push(flight);
        self.counts.rows[table.index()] += 1;
        flight.flush_if_full(table)
    }

    /// Ends the segment, gives it to the sealer, and begins the next with who is alive.
    fn rotate(&mut self) -> Result<()> {
        self.commit_written()?;
        let (seq, rows) = self.retire()?;
        let mut flight = Flight::create(&self.dir, &self.tables, seq + 1, self.until, rows)?;
        for note in self.identities.carry_tasks() {
            flight.rows.task(&note);
            flight.flush_if_full(Table::Tasks)?;
        }
        for note in self.identities.carry_cgroups() {
            flight.rows.cgroup(&note);
            flight.flush_if_full(Table::Cgroups)?;
        }
        for status in self.statuses.carry() {
            flight.rows.status(&status, self.until);
            flight.flush_if_full(Table::States)?;
        }
        flight.repeated()?;
        self.flight = Some(flight);
        Ok(())
    }

    /// Gives the segment in flight to the sealer; returns its number, and the rows to go on with.
    fn retire(&mut self) -> Result<(u32, Rows)> {
        let Some(mut flight) = self.flight.take() else { return Ok((0, Rows::default())) };
        let written = flight.write_out()?;
        let next = flight.rows.next();
        let files = flight.files();
        let segment = flight.end(&written);
        let seq = segment.seq;
        self.unsealed.push_back(Waiting { segment: written, bytes: segment.bytes, files });
        let job = SealJob { segment: Some(segment), remove: std::mem::take(&mut self.overdue) };
        if !self.sealer.submit(job) {
            self.collect()?;
            return Err(self.sealer.died());
        }
        Ok((seq, next))
    }

    /// Takes note of the segments that came to rest.
    fn collect(&mut self) -> Result<()> {
        while let Ok(sealed) = self.sealer.done.try_recv() {
            self.note(sealed?);
        }
        Ok(())
    }

    fn note(&mut self, sealed: Option<Sealed>) {
        let Some(sealed) = sealed else {
            self.removing = self.removing.saturating_sub(1);
            return;
        };
        self.unsealed.retain(|waiting| waiting.segment.seq != sealed.seq);
        self.retention.add(sealed);
    }

    /// Writes everything out, says so in the commit record, and removes what is beyond the limits. Now and then also
    /// has it brought to the disk, and does not wait for that.
    fn commit_written(&mut self) -> Result<()> {
        self.collect()?;
        let newest = self.flight.as_mut().map(Flight::write_out).transpose()?;
        self.overdue.extend(self.retention.overdue(self.other_bytes(), self.until));
        let segments = self.unsealed.iter().map(|waiting| waiting.segment.clone()).chain(newest).collect();
        let commit = self.commit(CommitState::Recording, segments);
        let documents = commit.write(&self.dir)?;
        self.document_bytes = self.document_bytes.max(self.meta_bytes + documents);
        self.committed = Instant::now();
        if self.hurry && !self.overdue.is_empty() {
            let job = SealJob { segment: None, remove: std::mem::take(&mut self.overdue) };
            if !self.sealer.submit(job) {
                self.collect()?;
                return Err(self.sealer.died());
            }
            self.removing += 1;
        }
        if self.is_due(self.synced, self.options.sync_interval) {
            self.offer(commit)?;
        }
        Ok(())
    }

    /// Has what this record counts brought to the disk, unless the disk is still busy with the one before.
    fn offer(&mut self, commit: Commit) -> Result<()> {
        let waiting = self.unsealed.iter().flat_map(|waiting| &waiting.files).cloned();
        let files = waiting.chain(self.flight.iter().flat_map(Flight::files)).collect();
        let folders = (self.flight.as_ref().map_or(0, |flight| flight.seq + 1), self.retention.removed().segments);
        if self.syncer.offer(Job { files, folders: folders != self.folders_synced, commit })? {
            self.synced = Instant::now();
            self.folders_synced = folders;
        }
        Ok(())
    }

    fn commit(&self, state: CommitState, segments: Vec<InFlight>) -> Commit {
        Commit {
            schema: SCHEMA,
            boot_id: self.boot_id.clone(),
            state,
            complete_until_ns: self.until,
            first_seq: self.retention.first_seq(),
            segments,
            totals: self.totals(),
        }
    }

    fn end(&mut self, meta: &Meta) -> Result<()> {
        self.until = self.until.max(meta.ended.filter(|ended| *ended < Nanos::MAX).unwrap_or_default());
        if let Some(flight) = &mut self.flight {
            flight.span.until_ns = self.until;
        }
        self.commit_written()?;
        self.retire()?;
        self.sealer.finish();
        self.collect()?;
        if !self.unsealed.is_empty() {
            return Err(self.sealer.died());
        }
        self.syncer.finish()?;
        self.overdue.extend(self.retention.overdue(self.document_bytes, self.until));
        self.meta_bytes = self.meta_file(meta).write(&self.dir)?;
        self.document_bytes = self.meta_bytes + self.commit(CommitState::Finished, Vec::new()).write_last(&self.dir)?;
        self.overdue.drain(..).try_for_each(|segment| retention::remove(&self.dir, &segment))?;
        commit::remove_what_only_recorders_have(&self.dir)?;
        self.lock = None;
        Ok(())
    }

    fn meta_file(&self, meta: &Meta) -> MetaFile {
        let writer = concat!("schedtrace ", env!("CARGO_PKG_VERSION")).to_owned();
        MetaFile { schema: SCHEMA, writer, meta: meta.clone(), totals: self.totals() }
    }

    fn totals(&self) -> Totals {
        let rows = self.tables.iter().map(|table| (table.name().to_owned(), self.counts.rows[table.index()]));
        let lost = self.counts.lost.list();
        Totals { rows: rows.collect(), late: self.counts.late, lost, removed: self.retention.removed() }
    }
}

impl Sink for TraceWriter {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.step(Phase::Created, |writer| writer.start(meta).map(|()| Phase::Recording))
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.step(Phase::Recording, |writer| writer.record(batch).map(|()| Phase::Recording))
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.step(Phase::Recording, |writer| writer.end(meta).map(|()| Phase::Finished))
    }
}

/// A segment to turn into Parquet, if there is one, after others have made way for it.
#[derive(Debug)]
struct SealJob {
    segment: Option<Unsealed>,
    remove: Vec<Sealed>,
}

/// Turns segments into Parquet on a thread of its own, one after the other, so that recording goes on meanwhile. All that
/// may wait for the disk happens there: also giving the blocks of removed files back.
#[derive(Debug)]
struct Sealer {
    jobs: Option<Sender<SealJob>>,
    /// Of each job the segment that came to rest, if it had one.
    done: Receiver<Result<Option<Sealed>>>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    fn start(dir: PathBuf) -> Result<Self> {
        // So many segments wait while one is worked on; one more blocks the recorder until there is room.
        let (jobs, next) = bounded::<SealJob>(WAITING_SEGMENTS);
        // There is room for all of them, and for those that were done since somebody asked.
        let (report, done) = bounded(4 * WAITING_SEGMENTS);
        let work = {
            let dir = dir.clone();
            move || {
                for SealJob { segment, remove } in next {
                    let removed = remove.iter().try_for_each(|segment| retention::remove(&dir, segment));
                    let sealed =
                        removed.and_then(|()| segment.map(|segment| segment::seal(&dir, &segment)).transpose());
                    let failed = sealed.is_err();
                    if report.send(sealed).is_err() || failed {
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("trace-sealer".into()).spawn(work);
        let thread = thread.map_err(Error::io("cannot start the thread that seals segments of", dir))?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Whether the thread took it; if not, its error is in `done`.
    fn submit(&self, job: SealJob) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }

    /// Waits until all segments are at rest, or one failed.
    fn finish(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there shows in a segment that never came to rest.
            let _ = thread.join();
        }
    }

    fn died(&self) -> Error {
        Error::Sink { sink: "trace".into(), why: "the thread that seals segments ended early".into() }
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.finish();
    }
}

fn refuse_unless_empty(dir: &Path) -> Result<()> {
    let refuse = |what| {
        let why = format!("{} exists already and {what}: choose another directory with -o", dir.display());
        Err(Error::Invalid(why))
    };
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => return refuse("is no directory"),
        entries => entries.map_err(Error::io("cannot read", dir))?,
    };
    for entry in entries {
        // Of a writer that never began.
        if entry.map_err(Error::io("cannot read", dir))?.file_name() != LOCK {
            return refuse("is not empty");
        }
    }
    Ok(())
}

/// Takes the lock of a trace that somebody writes.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(&path);
    let file = file.map_err(Error::io("cannot create", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let why = format!(
                "{} is being recorded into: let that end first, or choose another directory with -o",
                dir.display()
            );
            Err(Error::Invalid(why))
        }
        Err(e) => Err(Error::io("cannot lock", &path)(e.into())),
    }
}
