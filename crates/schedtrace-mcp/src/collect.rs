//! Collecting from the running kernel, when the server was started for it: into a trace of limited size and time, which
//! the other tools read as any other.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schedtrace_core::live::Collector;
use schedtrace_core::trace::{TraceReader, TraceWriter, WriterOptions};
use schedtrace_core::{Error, OnFull, Pipeline, Result, Summary};

/// The trace may take so much room; the oldest part goes first.
const MAX_BYTES: u64 = 256 << 20;
/// How long the first commit of a trace may take.
const FIRST_COMMIT: Duration = Duration::from_secs(10);

/// One collection: the programs are loaded while its thread runs, and its trace is there as long as it is.
#[derive(Debug)]
pub(crate) struct Collection {
    folder: tempfile::TempDir,
    stop: SyncSender<()>,
    recorder: Option<JoinHandle<Result<Summary>>>,
    pub(crate) until: Instant,
    ended: Option<std::result::Result<u64, String>>,
}

impl Collection {
    /// Loads the programs, and records these processes, or all, for so long at most.
    pub(crate) fn start(pids: &[u32], limit: Duration) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("schedtrace-mcp-").tempdir();
        let folder = folder.map_err(Error::io("cannot create a folder in", std::env::temp_dir()))?;
        let path = folder.path().join("live.schedtrace");
        let builder = pids.iter().fold(Collector::builder(), |builder, &pid| builder.pid(pid));
        let mut collector = builder.start()?;
        let options = WriterOptions { max_bytes: Some(MAX_BYTES), ..WriterOptions::default() };
        let mut writer = TraceWriter::create(&path, options)?;
        let (stop, stopped) = sync_channel(1);
        let stopper = collector.stopper();
        let start = |name: &str| std::thread::Builder::new().name(name.into());
        let cannot = |error| Error::Invalid(format!("cannot start a thread: {error}"));
        // It ends with the collection: the other end of its channel does.
        start("st-limit").spawn(move || wait(&stopped, limit, || stopper.stop())).map_err(cannot)?;
        let record = move || Pipeline::new().sink("trace", OnFull::Block, &mut writer).run(&mut collector);
        let recorder = start("st-merge").spawn(record).map_err(cannot)?;
        let collection = Self { folder, stop, recorder: Some(recorder), until: Instant::now() + limit, ended: None };
        collection.await_first_commit()?;
        Ok(collection)
    }

    fn await_first_commit(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match TraceReader::open(self.trace()) {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > FIRST_COMMIT => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// What is read while it goes on, and afterwards.
    pub(crate) fn trace(&self) -> PathBuf {
        self.folder.path().join("live.schedtrace")
    }

    pub(crate) fn owns(&self, path: &Path) -> bool {
        path.starts_with(self.folder.path())
    }

    /// Whether the programs are loaded.
    pub(crate) fn is_on(&mut self) -> bool {
        if self.recorder.as_ref().is_some_and(JoinHandle::is_finished) {
            // How it ended is told when somebody asks for its end.
            let _ = self.stop();
        }
        self.recorder.is_some()
    }

    /// Detaches and unloads the programs; how many events there are, or what went wrong.
    pub(crate) fn stop(&mut self) -> std::result::Result<u64, String> {
        // It is full where somebody has asked already, and nobody listens where the time was over.
        let _ = self.stop.try_send(());
        if let Some(recorder) = self.recorder.take() {
            let summary = recorder.join().map_err(|_| "the recorder panicked: a bug in schedtrace".to_owned());
            let summary = summary.and_then(|ended| ended.and_then(Summary::into_result).map_err(|why| why.to_string()));
            self.ended = Some(summary.map(|summary| summary.total_events()));
        }
        self.ended.clone().unwrap_or(Ok(0))
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Stops when told to, when nobody is there to tell, or when the time is over.
fn wait(stopped: &Receiver<()>, limit: Duration, stop: impl FnOnce()) {
    match stopped.recv_timeout(limit) {
        Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => stop(),
    }
}
