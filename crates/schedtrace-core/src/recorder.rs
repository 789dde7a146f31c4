//! Recordings that go on by themselves, for programs that have something else to do meanwhile.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::live::{CollectorBuilder, Stopper};
use crate::pipeline::{Pipeline, Summary};
use crate::sink::OnFull;
use crate::trace::{TraceReader, TraceWriter, WriterOptions};

/// How long the first commit of a trace may take.
const FIRST_COMMIT: Duration = Duration::from_secs(10);

/// The running kernel is recorded into a trace, on threads of its own, until this is stopped or dropped, or the
/// [time](CollectorBuilder::duration) is over.
///
/// ```no_run
/// use std::time::Duration;
/// use schedtrace_core::Recorder;
/// use schedtrace_core::live::Collector;
/// use schedtrace_core::trace::WriterOptions;
///
/// let at_most_a_minute = Collector::builder().duration(Duration::from_secs(60));
/// let recorder = Recorder::start(at_most_a_minute, "run.schedtrace", WriterOptions::default())?;
/// // ... what is to be seen ...
/// let summary = recorder.stop()?;
/// println!("{} events, {} lost", summary.total_events(), summary.lost_total);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Recorder {
    trace: PathBuf,
    ends: Option<Instant>,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<Summary>>>,
}

impl Recorder {
    /// Begins a recording; returns once its trace can be read.
    ///
    /// # Errors
    /// Those of [`CollectorBuilder::start`] and [`TraceWriter::create`]; [`Error::Invalid`] if no thread can be started.
    pub fn start(builder: CollectorBuilder, trace: impl AsRef<Path>, options: WriterOptions) -> Result<Self> {
        options.check()?;
        let trace = trace.as_ref().to_owned();
        let loaded = builder.load()?;
        let mut writer = TraceWriter::create(&trace, options)?;
        // Of a recording that did not begin, nothing is left behind.
        let mut collector = loaded.start().inspect_err(|_| drop(std::fs::remove_dir_all(&trace)))?;
        let (stopper, ends) = (collector.stopper(), collector.ends());
        let record = move || Pipeline::new().sink("trace", OnFull::Block, &mut writer).run(&mut collector);
        let thread = std::thread::Builder::new().name("st-merge".into()).spawn(record);
        let thread = thread.map_err(|error| Error::Invalid(format!("cannot start a thread: {error}")))?;
        let recorder = Self { trace, ends, stopper, thread: Some(thread) };
        recorder.await_first_commit()?;
        Ok(recorder)
    }

    fn await_first_commit(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match TraceReader::open(&self.trace) {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > FIRST_COMMIT => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The trace, which can be read while the recording goes on, and afterwards.
    #[must_use]
    pub fn trace(&self) -> &Path {
        &self.trace
    }

    /// When it ends by itself, if it does.
    #[must_use]
    pub fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Whether it has ended, by itself: the time is over, or something failed. [`stop`](Self::stop) says which.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the recording: everything until now is in the trace, and nothing of it is left in the kernel.
    ///
    /// # Errors
    /// What went wrong while it was recorded or written.
    pub fn stop(mut self) -> Result<Summary> {
        self.end().and_then(Summary::into_result)
    }

    fn end(&mut self) -> Result<Summary> {
        self.stopper.stop();
        let thread = self.thread.take().map(JoinHandle::join);
        let ended = thread.ok_or_else(|| Error::Invalid("the recording has ended already".into()))?;
        ended.map_err(|_| Error::Invalid("the recorder panicked: a bug in schedtrace".into()))?
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.thread.is_some()
            && let Err(error) = self.end()
        {
            tracing::warn!("a recording that nobody stopped has failed: {error}");
        }
    }
}
