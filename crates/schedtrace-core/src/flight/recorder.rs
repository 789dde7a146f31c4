//! The flight recorder: a window, triggers, and a folder for what is worth keeping.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::window::{Covers, Lent, Window, WindowOptions};
use super::{Trigger, Triggers};
use crate::error::{Error, Result};
use crate::event::{Batch, Nanos};
use crate::sink::Sink;
use crate::source::{Fired, Meta};
use crate::trace::{TraceWriter, WriterOptions};

/// So many names are tried for a trace.
const ATTEMPTS: u32 = 1000;
/// The longest part of a name that a person or a program gives, in characters.
const MAX_WORD: usize = 32;
/// What is told of the last so many traces.
const MAX_LISTED: usize = 1000;

/// What a flight recorder keeps, and how much it writes.
///
/// ```
/// use std::time::Duration;
/// use schedtrace_core::flight::FlightOptions;
/// let options = FlightOptions { window: Duration::from_secs(30), ..FlightOptions::default() };
/// assert_eq!(options.after_firing(), Duration::from_secs(3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightOptions {
    /// How far back it reaches.
    pub window: Duration,
    /// The most bytes that events in memory may take: those of the window, of which there is room for two thirds of it, and
    /// those that are being written.
    pub memory_bytes: u64,
    /// How long it goes on when something fired, before the window is written; by default, a tenth of the window.
    pub after: Option<Duration>,
    /// So many traces are written at most.
    pub max_dumps: u32,
    /// After a trigger fired, none counts for so long; by default, as long as the window is. Whoever asks is not held up by it.
    pub cool_down: Option<Duration>,
}

/// Ten seconds, 256 MiB, ten traces.
impl Default for FlightOptions {
    fn default() -> Self {
        let window = WindowOptions::default();
        Self { window: window.duration, memory_bytes: window.max_bytes, after: None, max_dumps: 10, cool_down: None }
    }
}

impl FlightOptions {
    /// How long it goes on when something fired.
    ///
    /// ```
    /// use std::time::Duration;
    /// use schedtrace_core::flight::FlightOptions;
    /// assert_eq!(FlightOptions::default().after_firing(), Duration::from_secs(1));
    /// ```
    #[must_use]
    pub fn after_firing(&self) -> Duration {
        self.after.unwrap_or(self.window / 10)
    }

    fn window_options(&self) -> WindowOptions {
        WindowOptions { duration: self.window, max_bytes: self.memory_bytes / 3 * 2 }
    }

    /// Checks that it can be kept to.
    ///
    /// ```
    /// use schedtrace_core::flight::FlightOptions;
    /// assert!(FlightOptions { memory_bytes: 10, ..FlightOptions::default() }.check().is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] if the window is of no length or has next to no memory, or is over before it is written.
    pub fn check(&self) -> Result<()> {
        self.window_options().check()?;
        let (window, after) = (Nanos::from(self.window), Nanos::from(self.after_firing()));
        if after >= window {
            let why = format!(
                "in {after} after a trigger, a window of {window} holds nothing of what was before it: make the window longer"
            );
            return Err(Error::Invalid(why));
        }
        Ok(())
    }
}

/// A window that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The trace.
    pub path: PathBuf,
    /// Why it was written.
    pub fired: Fired,
    /// How many events it holds.
    pub events: u64,
}

/// How a flight recorder is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlightStatus {
    /// What the window holds.
    pub covers: Covers,
    /// Bytes of events that have left the window and are still being written.
    pub writing_bytes: u64,
    /// How often triggers fired.
    pub fired: u64,
    /// How often nothing was written for it: something had fired just before, or was being written, or there were enough
    /// traces.
    pub suppressed: u64,
    /// What is to be written, once it has gone on for a while, or is being written.
    pub pending: Option<Fired>,
    /// What was written, the oldest first.
    pub dumps: Vec<Dump>,
    /// What could not be written, and why: the last time, and how often.
    pub failed: Option<(String, u64)>,
}

/// Keeps the last seconds of a stream in memory, and writes them as a trace when a trigger fires, or when somebody asks.
///
/// It is a [`Sink`] that does not wait for the disk: a trace is written by a thread of its own, one at a time, while the
/// stream goes on.
///
/// ```
/// use schedtrace_core::flight::{FlightOptions, FlightRecorder};
/// use schedtrace_core::trace::TraceReader;
/// use schedtrace_core::{Batch, Cpu, Event, EventKind, MemorySource, Meta, Nanos, OnFull, Pipeline, Source, TaskId};
///
/// let folder = tempfile::tempdir()?;
/// let trigger = "event = sched_process_free".parse()?;
/// let mut recorder = FlightRecorder::create(folder.path(), FlightOptions::default(), [trigger])?;
/// let handle = recorder.handle();
///
/// let event = Event { ts: Nanos(500), cpu: Cpu(0), kind: EventKind::Free { task: TaskId(1) } };
/// let mut stream = MemorySource::new(Meta::default(), [Batch { until: Nanos(900), events: vec![event], ..Batch::default() }]);
/// Pipeline::new().sink("flight", OnFull::Block, &mut recorder).run(&mut stream)?.into_result()?;
///
/// let dump = &handle.status().dumps[0];
/// let trace = TraceReader::open(&dump.path)?;
/// assert_eq!(trace.meta().trigger.as_ref().map(|fired| fired.at_ns), Some(Nanos(500)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FlightRecorder {
    folder: PathBuf,
    options: FlightOptions,
    window: Window,
    triggers: Triggers,
    shared: Arc<Mutex<Shared>>,
    /// What fired, and when it is to be written.
    due: Option<(Fired, Nanos)>,
    /// Until then no trigger counts.
    cool_until: Nanos,
    writing: Option<JoinHandle<Result<Dump>>>,
    begun: u32,
    until: Nanos,
    meta: Meta,
}

#[derive(Debug, Default)]
struct Shared {
    status: FlightStatus,
    /// Somebody asks for it.
    asked: Option<String>,
    /// Nobody takes what is asked for any more.
    over: bool,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Plain counts and lists: what panicked while it held them left none half-done that matters.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FlightRecorder {
    /// A recorder that writes into a folder, which is made if it is not there.
    ///
    /// ```
    /// use schedtrace_core::flight::{FlightOptions, FlightRecorder};
    /// let folder = tempfile::tempdir()?;
    /// let recorder = FlightRecorder::create(folder.path(), FlightOptions::default(), ["wait > 20ms".parse()?])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`FlightOptions::check`]; [`Error::Io`] if the folder cannot be made.
    pub fn create(
        folder: impl AsRef<Path>,
        options: FlightOptions,
        triggers: impl IntoIterator<Item = Trigger>,
    ) -> Result<Self> {
        options.check()?;
        let folder = folder.as_ref().to_owned();
        std::fs::create_dir_all(&folder).map_err(Error::io("cannot create", &folder))?;
        Ok(Self {
            folder,
            options,
            window: Window::new(options.window_options())?,
            triggers: Triggers::new(triggers),
            shared: Arc::default(),
            due: None,
            cool_until: Nanos::ZERO,
            writing: None,
            begun: 0,
            until: Nanos::ZERO,
            meta: Meta::default(),
        })
    }

    /// The window, to be read at any time.
    ///
    /// ```
    /// use schedtrace_core::flight::{FlightOptions, FlightRecorder};
    /// let folder = tempfile::tempdir()?;
    /// let recorder = FlightRecorder::create(folder.path(), FlightOptions::default(), [])?;
    /// let window = recorder.window().clone();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// For whoever asks it to write, or how it is doing.
    ///
    /// ```
    /// use schedtrace_core::flight::{FlightOptions, FlightRecorder};
    /// let folder = tempfile::tempdir()?;
    /// let recorder = FlightRecorder::create(folder.path(), FlightOptions::default(), [])?;
    /// assert_eq!(recorder.handle().status().fired, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> FlightHandle {
        FlightHandle { window: self.window.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Takes what has fired: the first one that counts is to be written.
    fn take(&mut self, fired: Vec<Fired>) {
        if fired.is_empty() {
            return;
        }
        let mut shared = lock(&self.shared);
        shared.status.fired += fired.len() as u64;
        let mut fired = fired.into_iter();
        let busy = self.due.is_some() || self.writing.is_some();
        if !busy && self.until >= self.cool_until && self.begun < self.options.max_dumps {
            self.due = fired.next().map(|fired| (fired, self.until + Nanos::from(self.options.after_firing())));
            self.cool_until = self.until + Nanos::from(self.options.cool_down.unwrap_or(self.options.window));
        }
        shared.status.suppressed += fired.len() as u64;
        shared.status.pending = self.due.as_ref().map(|(fired, _)| fired.clone());
    }

    /// Takes what was asked for, once nothing else is under way.
    fn take_asked(&mut self) {
        if self.due.is_some() || self.writing.is_some() {
            return;
        }
        let mut shared = lock(&self.shared);
        let Some(reason) = shared.asked.take() else { return };
        if self.begun >= self.options.max_dumps {
            shared.status.suppressed += 1;
            return;
        }
        let fired = Fired { what: reason, at_ns: self.until, ..Fired::default() };
        shared.status.pending = Some(fired.clone());
        self.due = Some((fired, self.until + Nanos::from(self.options.after_firing())));
    }

    /// Begins to write what is due.
    fn write(&mut self) {
        let Some((fired, _)) = self.due.take() else { return };
        self.begun += 1;
        let mut lent = self.window.lend();
        lent.meta.trigger = Some(fired.clone());
        let stem = format!("{}-{}", self.wall_time(fired.at_ns), word(&fired));
        let folder = self.folder.clone();
        let write = move || dump(&folder, &stem, fired, lent);
        match std::thread::Builder::new().name("st-flight".into()).spawn(write) {
            Ok(thread) => self.writing = Some(thread),
            Err(error) => self.done(Err(Error::Invalid(format!("cannot start a thread: {error}")))),
        }
    }

    /// Takes note of what was written; waits for it if that is wanted.
    pub(super) fn collect(&mut self, wait: bool) {
        if let Some(thread) = self.writing.take_if(|thread| wait || thread.is_finished()) {
            let panicked = |_| Err(Error::Invalid("the thread that writes a window panicked: a bug".into()));
            self.done(thread.join().unwrap_or_else(panicked));
        }
    }

    fn done(&mut self, written: Result<Dump>) {
        let status = &mut lock(&self.shared).status;
        status.pending = None;
        match written {
            Ok(dump) => {
                status.dumps.push(dump);
                if status.dumps.len() > MAX_LISTED {
                    status.dumps.remove(0);
                }
            }
            Err(error) => {
                let times = status.failed.as_ref().map_or(0, |(_, times)| *times);
                status.failed = Some((error.to_string(), times + 1));
            }
        }
    }

    /// A moment by the wall clock, so that names stand in its order: `20261122T101500.250Z`; nanoseconds of the events'
    /// clock where nobody read both.
    fn wall_time(&self, at: Nanos) -> String {
        match self.meta.clocks.first() {
            Some(clocks) => utc(clocks.realtime(at)),
            None => format!("{}ns", at.0),
        }
    }
}

impl Sink for FlightRecorder {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.meta = meta.clone();
        self.until = meta.started;
        self.triggers.begin(meta);
        self.window.begin(meta)
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.window.batch(batch)?;
        self.until = self.until.max(self.window.covers().window.until_ns);
        let fired = self.triggers.batch(batch);
        self.collect(false);
        self.take(fired);
        self.take_asked();
        if self.due.as_ref().is_some_and(|(_, at)| *at <= self.until) {
            self.write();
        }
        Ok(())
    }

    /// What fired and was not written yet is written now. That traces could not be written is an error here.
    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.window.finish(meta)?;
        lock(&self.shared).over = true;
        self.write();
        self.collect(true);
        // What was asked for while another was written.
        self.take_asked();
        self.write();
        self.collect(true);
        match lock(&self.shared).status.failed.clone() {
            Some((why, 1)) => Err(Error::Sink { sink: "flight".into(), why }),
            Some((why, times)) => Err(Error::Sink { sink: "flight".into(), why: format!("{why} ({times} times)") }),
            None => Ok(()),
        }
    }
}

/// Asks a [`FlightRecorder`] to write its window, and how it is doing. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct FlightHandle {
    window: Window,
    shared: Arc<Mutex<Shared>>,
}

impl FlightHandle {
    /// Asks for the window to be written, once it has gone on for a while; the reason stands in the trace. Whether it was
    /// taken note of: nothing else may be asked for, and the recording may not be over. It is not held up by a cool-down, but
    /// by what is being written, and counts for the most traces there may be.
    ///
    /// ```
    /// use schedtrace_core::flight::{FlightOptions, FlightRecorder};
    /// let folder = tempfile::tempdir()?;
    /// let recorder = FlightRecorder::create(folder.path(), FlightOptions::default(), [])?;
    /// assert!(recorder.handle().dump("a request took 2 s"));
    /// assert!(!recorder.handle().dump("the next one too"), "one at a time");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "it may not be taken note of"]
    pub fn dump(&self, reason: impl Into<String>) -> bool {
        let mut shared = lock(&self.shared);
        let taken = !shared.over && shared.asked.is_none();
        if taken {
            shared.asked = Some(reason.into());
        } else {
            shared.status.suppressed += 1;
        }
        taken
    }

    /// How it is doing.
    ///
    /// ```
    /// use schedtrace_core::flight::{FlightOptions, FlightRecorder};
    /// let folder = tempfile::tempdir()?;
    /// let recorder = FlightRecorder::create(folder.path(), FlightOptions::default(), [])?;
    /// assert!(recorder.handle().status().dumps.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn status(&self) -> FlightStatus {
        let (covers, writing_bytes) = (self.window.covers(), self.window.lent_bytes());
        FlightStatus { covers, writing_bytes, ..lock(&self.shared).status.clone() }
    }
}

/// Writes a window as a trace.
fn dump(folder: &Path, stem: &str, fired: Fired, lent: Lent) -> Result<Dump> {
    let names = (1..=ATTEMPTS).map(|nth| match nth {
        1 => format!("{stem}.schedtrace"),
        nth => format!("{stem}-{nth}.schedtrace"),
    });
    let path = names.map(|name| folder.join(name)).find(|path| !path.exists());
    let path = path.ok_or_else(|| {
        Error::Invalid(format!("{} holds too many traces called {stem}: move some away", folder.display()))
    })?;
    let mut writer = TraceWriter::create(&path, WriterOptions::default())?;
    let meta = lent.meta.clone();
    writer.begin(&meta)?;
    for batch in lent {
        writer.batch(&batch)?;
    }
    writer.finish(&meta)?;
    Ok(Dump { path, fired, events: writer.rows() })
}

/// What a trace is about, in a word that every file system takes.
fn word(fired: &Fired) -> String {
    let text = match &fired.trigger {
        Some(trigger) => trigger.parse::<Trigger>().map_or("trigger", |trigger| trigger.name()).to_owned(),
        None => fired.what.clone(),
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
    let word: String = text.chars().take(MAX_WORD).map(plain).collect();
    let parts: Vec<&str> = word.split('-').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "asked".to_owned() } else { parts.join("-") }
}

/// A moment of the wall clock, in nanoseconds since 1970-01-01 UTC, to the millisecond.
fn utc(at: Nanos) -> String {
    let (seconds, ms) = (at.0 / 1_000_000_000, at.0 / 1_000_000 % 1_000);
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        (days, month) = (days - length, month + 1);
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{:02}T{hour:02}{minute:02}{second:02}.{ms:03}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_order_of_time() {
        for (seconds, text) in [
            (0, "19700101T000000.250Z"),
            (951_782_400, "20000229T000000.250Z"),
            (1_798_761_599, "20261231T235959.250Z"),
            (1_798_761_600, "20270101T000000.250Z"),
            (4_107_542_400, "21000301T000000.250Z"),
        ] {
            assert_eq!(utc(Nanos(seconds * 1_000_000_000 + 250_000_000)), text);
        }
    }

    #[test]
    fn a_name_has_nothing_in_it_that_leads_elsewhere() {
        let asked = |what: &str| word(&Fired { what: what.to_owned(), ..Fired::default() });
        assert_eq!(asked("../../etc/passwd"), "etc-passwd");
        assert_eq!(asked("/"), "asked");
        assert_eq!(asked("A request took 2 s\n"), "a-request-took-2-s");
        let fired = Fired { trigger: Some("wait > 20ms for comm = ../x".to_owned()), ..Fired::default() };
        assert_eq!(word(&fired), "runqueue_latency");
    }
}
