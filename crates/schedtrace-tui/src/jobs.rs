//! What takes longer than a frame and is no picture: files that are written, waits that are looked for. Each has a thread of
//! its own, and tells when it is done.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schedtrace_core::analysis::{self, GroupBy, Options, Sched, WorstWait};
use schedtrace_core::export::perfetto::PerfettoWriter;
use schedtrace_core::flight;
use schedtrace_core::trace::{TraceWriter, WriterOptions};
use schedtrace_core::{
    BadFilter, Batch, Error, EventFilter, Filtered, Kind, Nanos, OnFull, Pipeline, Poll, Result, Source,
};

use crate::origin::Store;
use crate::sheet::printable;
use crate::sql::Answer;
use crate::tape::{Reel, Taped};

/// So many of the longest waits are walked through.
const WAITS: usize = 100;

/// What has come of a job.
#[derive(Debug)]
pub(crate) enum Done {
    /// A sentence.
    Told(String),
    /// Something was not written, or not to its end, and why.
    Failed(String),
    /// The longest waits, in the order of time.
    Waits(Vec<WorstWait>),
    /// What a query has answered: which, and rows, or why there are none.
    Answer(u64, Box<Result<Answer, String>>),
    /// How many events there are of each kind.
    Counted(BTreeMap<Kind, u64>),
    /// There are no waits to walk through, and why.
    NoWaits(String),
}

/// Those that run.
#[derive(Debug)]
pub(crate) struct Jobs {
    tell: SyncSender<Done>,
    told: Receiver<Done>,
    ring: PipeWriter,
    /// Readable when one has ended.
    bell: PipeReader,
    /// What is being written, by number.
    running: Arc<Mutex<BTreeMap<u64, String>>>,
}

impl Jobs {
    pub(crate) fn new() -> Result<Self> {
        let (tell, told) = sync_channel(16);
        let (bell, ring) = std::io::pipe().map_err(|error| Error::Invalid(format!("cannot make a pipe: {error}")))?;
        Ok(Self { tell, told, ring, bell, running: Arc::default() })
    }

    /// Writes something on a thread of its own: who quits waits for it.
    ///
    /// # Errors
    /// If none can be started.
    pub(crate) fn write(&self, name: &str, job: impl FnOnce() -> Done + Send + 'static) -> Result<()> {
        let number = {
            let mut running = self.lock();
            let number = running.last_key_value().map_or(0, |(number, _)| number + 1);
            running.insert(number, name.to_owned());
            number
        };
        let running = Arc::clone(&self.running);
        let ended = move || drop(running.lock().unwrap_or_else(PoisonError::into_inner).remove(&number));
        let failed = format!("{name} was left unfinished");
        self.start("st-write", failed, job, ended).inspect_err(|_| drop(self.lock().remove(&number)))
    }

    /// Looks something up on a thread of its own: nothing is lost where nobody waits for its end.
    ///
    /// # Errors
    /// If none can be started.
    pub(crate) fn look(&self, job: impl FnOnce() -> Done + Send + 'static) -> Result<()> {
        self.start("st-look", "this was not looked up".to_owned(), job, || ())
    }

    /// What has come of it is told before it is said to have ended; so is a panic, since somebody may wait for the end.
    fn start(
        &self,
        name: &str,
        failed: String,
        job: impl FnOnce() -> Done + Send + 'static,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let cannot = |error: std::io::Error| Error::Invalid(format!("cannot start a thread: {error}"));
        let (tell, mut ring) = (self.tell.clone(), self.ring.try_clone().map_err(cannot)?);
        let run = move || {
            // What it worked on is its own, and goes with it.
            let done = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
                let why = panic.downcast_ref::<&str>().map(|why| (*why).to_owned());
                let why = why.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                Done::Failed(printable(&format!("{failed}: a bug in schedtrace ({why})")))
            });
            // Nobody listens any more where the screen has gone.
            let _ = tell.send(done).map(|()| ring.write_all(&[0]));
            ended();
        };
        std::thread::Builder::new().name(name.into()).spawn(run).map(drop).map_err(cannot)
    }

    /// What one that has ended tells.
    pub(crate) fn told(&mut self) -> Option<Done> {
        let done = self.told.try_recv().ok()?;
        let _ = self.bell.read(&mut [0]);
        Some(done)
    }

    pub(crate) fn bell(&self) -> &PipeReader {
        &self.bell
    }

    /// The names of what is being written.
    pub(crate) fn running(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is not there yet.
fn create(path: &Path) -> Result<File> {
    File::options().write(true).create_new(true).open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::Invalid(format!(
            "{} exists already, and nothing is overwritten: choose another name",
            path.display()
        )),
        _ => Error::io("cannot create", path)(error),
    })
}

/// Writes a file, or none: what was not written to its end is taken away.
fn written<T>(path: &Path, write: impl FnOnce(File) -> Result<T>) -> Result<T> {
    let file = create(path)?;
    write(file).inspect_err(|_| drop(std::fs::remove_file(path)))
}

fn told(done: Result<String>) -> Done {
    done.map_or_else(|error| Done::Failed(error.to_string()), Done::Told)
}

/// Writes a text.
pub(crate) fn save(path: &Path, text: &str) -> Done {
    let write = |mut file: File| file.write_all(text.as_bytes()).map_err(Error::io("cannot write", path));
    told(written(path, write).map(|()| format!("written: {}, {} bytes", path.display(), text.len())))
}

/// Only what happened between two times.
fn between(from: Nanos, until: Nanos) -> Result<EventFilter> {
    let filter = format!("ts_ns >= {} and ts_ns < {}", from.0, until.0).parse();
    filter.map_err(|error: BadFilter| Error::Invalid(error.to_string()))
}

/// Writes a stretch of time for Perfetto.
pub(crate) fn export(store: &Store, path: &Path, from: Nanos, until: Nanos) -> Done {
    let write = |file: File| {
        let mut events = store.read(Some(from), Some(until))?;
        let out = PerfettoWriter::new(BufWriter::with_capacity(1 << 18, file));
        let mut some = Filtered::new(between(from, until)?, out);
        Pipeline::new().sink("export", OnFull::Block, &mut some).run(&mut events)?.into_result()?;
        Ok(some.events())
    };
    told(
        written(path, write).map(|events| format!("{events} events to {}: open it at ui.perfetto.dev", path.display())),
    )
}

/// Writes the last seconds as a trace.
pub(crate) fn snapshot(window: &flight::Snapshot, path: &Path) -> Done {
    let write = || {
        let mut writer = TraceWriter::create(path, WriterOptions::default())?;
        Pipeline::new().sink("trace", OnFull::Block, &mut writer).run(&mut window.source())?.into_result()
    };
    let length = window.window().duration_ns;
    told(write().map(|summary| {
        let (events, path) = (summary.total_events(), path.display());
        format!("the last {length}, {events} events, to {path}: schedtrace top {path}")
    }))
}

/// Writes a stream as it comes, until it is stopped.
pub(crate) fn record(reel: Reel, path: &Path) -> Done {
    match reel.write() {
        Ok(Taped { events, lost: 0 }) => {
            Done::Told(format!("recorded {events} events: schedtrace top {}", path.display()))
        }
        Ok(Taped { events, lost }) => Done::Told(format!(
            "recorded {events} events, {lost} more are lost, for the disk was too slow: schedtrace top {}",
            path.display()
        )),
        Err(Error::Sink { why, .. }) => Done::Failed(format!("the recording has ended: {why}")),
        Err(error) => Done::Failed(format!("the recording has ended: {error}")),
    }
}

/// Looks for the longest waits of all that there is.
pub(crate) fn waits(store: &Store) -> Done {
    let options = Options { by: GroupBy::Task, top: WAITS, ..Options::default() };
    let report = store.read(None, None).and_then(|mut events| analysis::run(&mut events, Sched::new(options)));
    match report {
        Ok(report) => {
            let mut waits = report.run_queue.worst;
            waits.sort_by_key(|wait| (wait.from_ns, wait.wait_ns));
            Done::Waits(waits)
        }
        Err(error) => Done::NoWaits(error.to_string()),
    }
}

/// Counts all events that there are.
pub(crate) fn count(store: &Store) -> Done {
    let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
    let mut add = |batch: &Batch| {
        for event in &batch.events {
            *counts.entry(event.kind.kind()).or_default() += 1;
        }
    };
    let mut read = || -> Result<()> {
        let mut events = store.read(None, None)?;
        loop {
            match events.poll(Instant::now() + Duration::from_secs(1))? {
                Poll::Batch(batch) => add(&batch),
                Poll::Idle => {}
                Poll::End => return Ok(()),
            }
        }
    };
    match read() {
        Ok(()) => Done::Counted(counts),
        Err(error) => Done::Told(error.to_string()),
    }
}

/// The first of `stem.ending`, `stem-2.ending` and so on that is not there.
pub(crate) fn free_name(stem: &str, ending: &str) -> PathBuf {
    let name = |n: u32| if n == 1 { format!("{stem}.{ending}") } else { format!("{stem}-{n}.{ending}") };
    (1..1000).map(name).map(PathBuf::from).find(|path| !path.exists()).unwrap_or_else(|| name(1000).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.md");
        assert!(matches!(save(&path, "a"), Done::Told(told) if told.starts_with("written")));
        assert!(matches!(save(&path, "b"), Done::Failed(told) if told.contains("exists already")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a");
        let stem = folder.path().join("view");
        assert_eq!(free_name(&stem.to_string_lossy(), "md"), folder.path().join("view-2.md"));
        assert!(
            matches!(save(&folder.path().join("no/view.md"), "a"), Done::Failed(told) if told.starts_with("cannot create"))
        );
    }

    #[test]
    fn whoever_waits_hears_of_the_end() {
        let mut jobs = Jobs::new().unwrap();
        jobs.write("this", || Done::Told("done".into())).unwrap();
        jobs.bell().try_clone().unwrap().read_exact(&mut []).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let told =
            std::iter::repeat_with(|| jobs.told()).find(|told| told.is_some() || std::time::Instant::now() > until);
        assert!(matches!(told.flatten(), Some(Done::Told(told)) if told == "done"));
        while !jobs.running().is_empty() {
            std::thread::yield_now();
        }
    }
}
