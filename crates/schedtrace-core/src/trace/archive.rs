//! Recordings without end: a folder of traces, one for each run of the recorder, that together keep to limits of size and
//! age.
//!
//! ```text
//! FOLDER/
//!   lock                            held by the recorder: there is one per folder
//!   20261120T081500Z.schedtrace/    an earlier run, named after when it began (UTC)
//!   20261122T105117Z.schedtrace/    the present one
//! ```
//!
//! Ids of tasks and `CLOCK_MONOTONIC` hold for one run and one boot, so that each run has a trace of its own; wall-clock time
//! is what they have in common. The oldest segments go first, whichever trace they are in.

mod keeper;
mod listing;
mod name;
mod older;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::commit::META;
use super::repair::{Repair, repair};
use super::writer::{self, TraceWriter, WriterOptions};
use crate::error::{Error, Result};
use crate::event::{Batch, Nanos};
use crate::sink::Sink;
use crate::source::Meta;

use keeper::{Keeper, Kept};
pub(super) use listing::that_holds_traces;
pub use listing::{Listing, StoredTrace, traces_in};
use older::Older;

/// A recording that may not take so much is none.
const MIN_MAX_BYTES: u64 = 4 << 20;
/// The most that is taken of a disk unless somebody says so, and which part of it, if that is less.
const DEFAULT_MAX_BYTES: u64 = 10 << 30;
const DEFAULT_PART: u64 = 10;
/// What is left free of a disk unless somebody says so, and which part of it, if that is less.
const DEFAULT_MIN_FREE_BYTES: u64 = 1 << 30;
const DEFAULT_FREE_PART: u64 = 20;
/// So much room is made before it is needed, as a part of the limit and at most: twice as much as a trace may need at once
/// when it begins another segment.
const AHEAD_PART: u64 = 8;
const MAX_AHEAD_BYTES: u64 = 128 << 20;
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How much an [`Archive`] keeps.
///
/// ```
/// use schedtrace_core::trace::ArchiveOptions;
/// let a_day = ArchiveOptions {
///     max_age: Some(std::time::Duration::from_secs(24 * 3600)),
///     max_bytes: Some(2 << 30),
///     ..ArchiveOptions::default()
/// };
/// # let _ = a_day;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// The most bytes that all its traces may take together; at least 4 MiB. None for a tenth of the disk, and 10 GiB at
    /// the most.
    pub max_bytes: Option<u64>,
    /// How far back it reaches, by the wall clock; none for no limit. 72 hours by default.
    pub max_age: Option<Duration>,
    /// So many bytes of the disk are left free for others. None for a twentieth of the disk, and 1 GiB at the most.
    pub min_free_bytes: Option<u64>,
    /// As [`WriterOptions::segment_bytes`].
    pub segment_bytes: u64,
    /// As [`WriterOptions::sync_interval`].
    pub sync_interval: Duration,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        let WriterOptions { segment_bytes, sync_interval, .. } = WriterOptions::default();
        let max_age = Some(Duration::from_secs(72 * 3600));
        Self { max_bytes: None, max_age, min_free_bytes: None, segment_bytes, sync_interval }
    }
}

impl ArchiveOptions {
    /// Checks that the limits can be kept.
    ///
    /// ```
    /// use schedtrace_core::trace::ArchiveOptions;
    /// assert!(ArchiveOptions { max_bytes: Some(1), ..ArchiveOptions::default() }.check().is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] if one makes no sense.
    pub fn check(&self) -> Result<()> {
        match self.max_bytes {
            Some(max_bytes) if max_bytes < MIN_MAX_BYTES => Err(Error::Invalid(format!(
                "recordings cannot be kept below {max_bytes} bytes: the smallest limit is {MIN_MAX_BYTES}"
            ))),
            _ => Ok(()),
        }
    }
}

/// The limits of a folder, once it is known how large its disk is.
#[derive(Clone, Copy, Debug)]
struct Limits {
    max_bytes: u64,
    max_age: Option<Nanos>,
    min_free_bytes: u64,
    ahead_bytes: u64,
}

impl Limits {
    fn new(options: &ArchiveOptions, disk: Disk) -> Self {
        let of_disk = || (disk.bytes / DEFAULT_PART).clamp(MIN_MAX_BYTES, DEFAULT_MAX_BYTES);
        let max_bytes = options.max_bytes.unwrap_or_else(of_disk);
        let free = || (disk.bytes / DEFAULT_FREE_PART).min(DEFAULT_MIN_FREE_BYTES);
        Self {
            max_bytes,
            max_age: options.max_age.map(Nanos::from),
            min_free_bytes: options.min_free_bytes.unwrap_or_else(free),
            ahead_bytes: (max_bytes / AHEAD_PART).min(MAX_AHEAD_BYTES),
        }
    }
}

/// How large a disk is, and how much of it is free, in bytes.
#[derive(Clone, Copy, Debug)]
struct Disk {
    bytes: u64,
    free_bytes: u64,
}

/// What limits are held against; a test has its own.
#[derive(Clone, Debug)]
pub(super) enum Surroundings {
    Real,
    #[cfg(test)]
    Test(std::sync::Arc<testing::Machine>),
}

impl Surroundings {
    /// The wall clock, in nanoseconds since 1970.
    fn now(&self) -> Nanos {
        match self {
            Self::Real => wall_clock(),
            #[cfg(test)]
            Self::Test(machine) => machine.now(),
        }
    }

    fn disk(&self, folder: &Path) -> Result<Disk> {
        match self {
            Self::Real => disk_of(folder),
            #[cfg(test)]
            Self::Test(machine) => Ok(machine.disk(folder)),
        }
    }

    /// How often age and the room on the disk are looked at where nothing else makes it necessary.
    fn look_every(&self) -> Duration {
        match self {
            Self::Real => LOOK_EVERY,
            #[cfg(test)]
            Self::Test(_) => Duration::ZERO,
        }
    }
}

fn wall_clock() -> Nanos {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Of a clock that is set to before 1970, everything is young.
    since_1970.map_or(Nanos::ZERO, Nanos::from)
}

fn disk_of(folder: &Path) -> Result<Disk> {
    let stat =
        rustix::fs::statvfs(folder).map_err(|e| Error::io("cannot tell how much is free at", folder)(e.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Disk { bytes: bytes(stat.f_blocks), free_bytes: bytes(stat.f_bavail) })
}

/// Something in a folder of traces that is not touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftAlone {
    /// What.
    pub path: PathBuf,
    /// Why, in a few words.
    pub why: String,
}

/// A folder of traces, one for each run of a recorder, that together keep to limits of size and age.
///
/// ```
/// use schedtrace_core::trace::{Archive, ArchiveOptions, traces_in};
/// use schedtrace_core::{Batch, Meta, Sink};
///
/// let folder = tempfile::tempdir()?;
/// let options = ArchiveOptions { min_free_bytes: Some(0), ..ArchiveOptions::default() };
/// for _run in 0..2 {
///     let mut recording = Archive::open(folder.path(), &options)?.record()?;
///     recording.begin(&Meta::default())?;
///     recording.batch(&Batch::default())?;
///     recording.finish(&Meta::default())?;
/// }
/// assert_eq!(traces_in(folder.path())?.traces.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Archive {
    folder: PathBuf,
    options: ArchiveOptions,
    limits: Limits,
    surroundings: Surroundings,
    older: Older,
    repaired: Vec<(PathBuf, Repair)>,
    /// Held as long as something may be written here.
    lock: File,
}

impl Archive {
    /// Opens a folder to record into, which is created if it is not there: brings to rest what earlier runs have left, and
    /// removes what is beyond the limits. Of what lies there only traces of earlier runs are touched that belong to this
    /// user; the rest is left alone, and told by [`left_alone`](Self::left_alone).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if somebody else records into it, if a limit makes no sense, or if too little of the disk is
    /// free; [`Error::Io`] if it cannot be created, read or written.
    pub fn open(folder: impl AsRef<Path>, options: &ArchiveOptions) -> Result<Self> {
        Self::open_in(folder.as_ref(), options, Surroundings::Real)
    }

    pub(super) fn open_in(folder: &Path, options: &ArchiveOptions, surroundings: Surroundings) -> Result<Self> {
        options.check()?;
        match std::fs::create_dir(folder) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            created => created.map_err(Error::io("cannot create", folder))?,
        }
        if folder.join(META).exists() {
            let why = format!("{} is a trace itself: name a folder for traces with -o", folder.display());
            return Err(Error::Invalid(why));
        }
        let lock = writer::lock(folder)?;
        let limits = Limits::new(options, surroundings.disk(folder)?);
        let (mut older, interrupted) = Older::find(folder)?;
        // First what can go at once: to bring a trace to rest takes room.
        older.keep(folder, &limits, &surroundings, 0)?;
        let mut repaired = Vec::new();
        for dir in interrupted {
            match repair(&dir) {
                Ok(done) => {
                    repaired.push((dir.clone(), done));
                    older.add(&dir);
                }
                Err(error) => older.leave(dir, error.to_string()),
            }
        }
        let archive =
            Self { folder: folder.to_owned(), options: options.clone(), limits, surroundings, older, repaired, lock };
        archive.make_room()
    }

    fn make_room(mut self) -> Result<Self> {
        let disk = self.older.keep(&self.folder, &self.limits, &self.surroundings, 0)?;
        if self.older.is_empty() && disk.free_bytes < self.limits.min_free_bytes {
            return Err(too_little_free(&self.folder, disk, &self.limits));
        }
        Ok(self)
    }

    /// The traces that an earlier run had not finished, and what was done about it.
    ///
    /// ```no_run
    /// use schedtrace_core::trace::{Archive, ArchiveOptions};
    /// let archive = Archive::open("recordings", &ArchiveOptions::default())?;
    /// archive.repaired().iter().for_each(|(trace, repair)| println!("{}: {} events", trace.display(), repair.events));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn repaired(&self) -> &[(PathBuf, Repair)] {
        &self.repaired
    }

    /// What lies in the folder and is not touched, nor counted.
    ///
    /// ```no_run
    /// use schedtrace_core::trace::{Archive, ArchiveOptions};
    /// let archive = Archive::open("recordings", &ArchiveOptions::default())?;
    /// archive.left_alone().iter().for_each(|left| println!("{}: {}", left.path.display(), left.why));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn left_alone(&self) -> &[LeftAlone] {
        self.older.left_alone()
    }

    /// The most bytes that all its traces may take together.
    ///
    /// ```no_run
    /// use schedtrace_core::trace::{Archive, ArchiveOptions};
    /// let archive = Archive::open("recordings", &ArchiveOptions::default())?;
    /// println!("{} bytes at the most", archive.max_bytes());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.limits.max_bytes
    }

    /// Creates the trace of this run. The recording starts with [`Sink::begin`].
    ///
    /// ```no_run
    /// use schedtrace_core::trace::{Archive, ArchiveOptions};
    /// let recording = Archive::open("recordings", &ArchiveOptions::default())?.record()?;
    /// println!("recording into {}", recording.trace().display());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be created.
    pub fn record(self) -> Result<ArchiveWriter> {
        let Self { folder, options, limits, surroundings, older, lock, .. } = self;
        let trace = name::free_in(&folder, surroundings.now());
        let options = WriterOptions {
            max_bytes: Some(limits.max_bytes),
            max_age: options.max_age,
            segment_bytes: options.segment_bytes,
            sync_interval: options.sync_interval,
        };
        let writer = TraceWriter::create(&trace, options)?;
        let older_bytes = older.bytes();
        let left_alone = older.left_alone().to_vec();
        let keeper = Keeper::start(folder.clone(), limits, surroundings.clone(), older)?;
        let mut writer = ArchiveWriter {
            trace,
            writer,
            keeper,
            limits,
            look_every: surroundings.look_every(),
            older_bytes,
            asked: None,
            looked: Instant::now(),
            left_alone,
            folder,
            _lock: lock,
        };
        writer.writer.keep_below(limits.max_bytes.saturating_sub(older_bytes), false);
        Ok(writer)
    }
}

fn too_little_free(folder: &Path, disk: Disk, limits: &Limits) -> Error {
    Error::Invalid(format!(
        "cannot record into {}: {} bytes of its disk are free, {} are to be left to others, and no recording is left to \
         remove; free some, or let it leave less",
        folder.display(),
        disk.free_bytes,
        limits.min_free_bytes
    ))
}

/// The trace of the present run in an [`Archive`]: a [`Sink`] that makes the folder keep to its limits while it grows.
///
/// What is beyond them is removed on a thread of its own, the oldest first. Only where that does not keep up with what is
/// recorded does the recording wait for it. What [`TraceWriter`] says of crashes holds here too; the next
/// [`Archive::open`] brings to rest what is left.
///
/// ```no_run
/// use schedtrace_core::live::Collector;
/// use schedtrace_core::trace::{Archive, ArchiveOptions};
/// use schedtrace_core::{OnFull, Pipeline, RateLimit};
///
/// let recording = Archive::open("/var/lib/schedtrace", &ArchiveOptions::default())?.record()?;
/// let mut bounded = RateLimit::new(500_000, recording);
/// let mut collector = Collector::builder().start()?;
/// Pipeline::new().sink("trace", OnFull::Block, &mut bounded).run(&mut collector)?.into_result()?;
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ArchiveWriter {
    trace: PathBuf,
    writer: TraceWriter,
    keeper: Keeper,
    limits: Limits,
    look_every: Duration,
    /// What earlier runs have left, when the keeper last told.
    older_bytes: u64,
    /// What this trace needed when the keeper was asked, as long as it has not answered.
    asked: Option<u64>,
    looked: Instant,
    left_alone: Vec<LeftAlone>,
    folder: PathBuf,
    /// Given back after all else is gone.
    _lock: File,
}

impl ArchiveWriter {
    /// The trace, which can be read while it grows, and afterwards.
    ///
    /// ```no_run
    /// # use schedtrace_core::trace::{Archive, ArchiveOptions};
    /// let recording = Archive::open("recordings", &ArchiveOptions::default())?.record()?;
    /// println!("schedtrace report {}", recording.trace().display());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn trace(&self) -> &Path {
        &self.trace
    }

    /// The size of all traces of the folder in bytes, that of this run among them.
    ///
    /// ```no_run
    /// # use schedtrace_core::trace::{Archive, ArchiveOptions};
    /// # let recording = Archive::open("recordings", &ArchiveOptions::default())?.record()?;
    /// println!("{} bytes", recording.bytes());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.older_bytes + self.writer.bytes()
    }

    /// How many events this run has written, with those that were removed since.
    ///
    /// ```no_run
    /// # use schedtrace_core::trace::{Archive, ArchiveOptions};
    /// # let recording = Archive::open("recordings", &ArchiveOptions::default())?.record()?;
    /// assert_eq!(recording.events(), 0);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn events(&self) -> u64 {
        self.writer.rows()
    }

    /// What lies in the folder and is not touched, nor counted, with what turned out to be so since.
    ///
    /// ```no_run
    /// # use schedtrace_core::trace::{Archive, ArchiveOptions};
    /// # let recording = Archive::open("recordings", &ArchiveOptions::default())?.record()?;
    /// recording.left_alone().iter().for_each(|left| println!("{}: {}", left.path.display(), left.why));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn left_alone(&self) -> &[LeftAlone] {
        &self.left_alone
    }

    /// Sees to it that the folder keeps to its limits; waits only if it would not, for want of time.
    fn keep(&mut self) -> Result<()> {
        if let Some(kept) = self.keeper.answer()? {
            self.take(kept)?;
        }
        let need = self.writer.need_bytes();
        let Limits { max_bytes, ahead_bytes, .. } = self.limits;
        let soon = self.older_bytes > 0 && self.older_bytes + need + ahead_bytes > max_bytes;
        if self.asked.is_none() && (soon || self.looked.elapsed() >= self.look_every) {
            self.ask(need)?;
        }
        // The trace must not come to remove its own segments for want of room that earlier ones take.
        let late = |older_bytes: u64| older_bytes > 0 && older_bytes + need + ahead_bytes / 2 > max_bytes;
        if late(self.older_bytes) {
            // The answer to a question from before may be too little.
            self.settle()?;
            if late(self.older_bytes) {
                self.ask(need)?;
                self.settle()?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, need: u64) -> Result<()> {
        self.asked = Some(need);
        self.looked = Instant::now();
        self.keeper.ask(need)
    }

    /// Waits for the answer, if there is to be one.
    fn settle(&mut self) -> Result<()> {
        if self.asked.is_some() {
            let kept = self.keeper.wait()?;
            self.take(kept)?;
        }
        Ok(())
    }

    /// Takes note of what is left of earlier runs, and of how much of the disk is free.
    fn take(&mut self, kept: Kept) -> Result<()> {
        let Kept { older_bytes, disk, left_alone } = kept;
        let needed = self.asked.take().unwrap_or_else(|| self.writer.need_bytes());
        self.older_bytes = older_bytes;
        self.left_alone.extend(left_alone);
        // What it may grow by, or has to shrink by, so that so much of the disk stays free.
        let by_disk = (needed + disk.free_bytes).saturating_sub(self.limits.min_free_bytes);
        let by_size = self.limits.max_bytes.saturating_sub(older_bytes);
        self.writer.keep_below(by_size.min(by_disk), by_disk < by_size);
        if disk.free_bytes < self.limits.min_free_bytes && older_bytes == 0 && self.writer.holds_only_the_newest() {
            return Err(too_little_free(&self.folder, disk, &self.limits));
        }
        Ok(())
    }
}

impl Sink for ArchiveWriter {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.writer.begin(meta)
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.keep()?;
        self.writer.batch(batch)
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.writer.finish(meta)?;
        self.settle()?;
        self.ask(self.writer.bytes())?;
        self.settle()
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! A machine of which a test says what time it is and how much of its disk is free.

    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Disk, Nanos, Path};

    #[derive(Debug)]
    pub(in crate::trace) struct Machine {
        pub(in crate::trace) now_ns: AtomicU64,
        /// What others have left of the disk.
        pub(in crate::trace) room_bytes: AtomicU64,
    }

    /// The size of all files, of which some may go meanwhile.
    fn bytes_below(dir: &Path) -> u64 {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let bytes = entries.map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        });
        bytes.sum()
    }

    impl Machine {
        pub(super) fn now(&self) -> Nanos {
            Nanos(self.now_ns.load(Ordering::Relaxed))
        }

        pub(super) fn disk(&self, folder: &Path) -> Disk {
            let room = self.room_bytes.load(Ordering::Relaxed);
            Disk { bytes: 1 << 40, free_bytes: room.saturating_sub(bytes_below(folder)) }
        }
    }
}
