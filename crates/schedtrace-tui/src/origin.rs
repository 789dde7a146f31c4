//! Where events come from: a recorded trace, or the last seconds of a machine that runs. What reads them cannot tell which.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use schedtrace_core::flight::{WindowOptions, WindowSource};
use schedtrace_core::system::stacks::StackHelper;
use schedtrace_core::system::{ClockSnapshot, Host, Topology};
use schedtrace_core::trace::{TraceReader, TraceState};
use schedtrace_core::{Error, Meta, Nanos, OnFull, Pipeline, Poll, Result, Source, Summary, Window};

use crate::tape::{Kept, Recording, Tape};

/// What is looked at.
///
/// ```
/// use schedtrace_core::flight::WindowOptions;
/// use schedtrace_core::synthetic::SyntheticHost;
/// use schedtrace_tui::Origin;
/// let live = Origin::live(SyntheticHost::new().start(), || (), WindowOptions::default())?;
/// assert!(live.title().starts_with("synthetic"));
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Origin {
    title: String,
    meta: Meta,
    store: Store,
    stream: Option<Stream>,
    /// Whether it is this machine, which can be asked what else it knows.
    is_here: bool,
    /// Why there are no events, and how to get them.
    without: Option<String>,
    /// Who may see where tasks are in the kernel, until it is taken.
    helper: Option<StackHelper>,
    lost: Lost,
}

/// Where the events lie; every thread that reads them has its own.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// And from when to when it reaches, where that stays so.
    Trace(PathBuf, Option<Window>),
    Live(Kept),
}

/// How many events are missing: of a recording, or of all that went on so far.
type Lost = Arc<AtomicU64>;

/// A source of which is counted what is missing.
struct Counted<S> {
    source: S,
    lost: Lost,
}

impl<S: Source> Source for Counted<S> {
    fn meta(&self) -> &Meta {
        self.source.meta()
    }

    fn poll(&mut self, deadline: Instant) -> Result<Poll> {
        let polled = self.source.poll(deadline);
        if let Ok(Poll::Batch(batch)) = &polled {
            let lost = batch.lost.iter().fold(0, |sum: u64, loss| sum.saturating_add(loss.count));
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        polled
    }
}

/// Events between two times.
pub(crate) enum Events {
    Trace(Box<TraceReader>),
    Live(WindowSource),
}

/// A stream that goes on, and the thread that reads it.
struct Stream {
    reader: Option<JoinHandle<Result<Summary>>>,
    stop: Option<Box<dyn FnOnce() + Send>>,
    ended: Option<String>,
    recording: Recording,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Origin {
    /// A trace that was recorded.
    ///
    /// # Errors
    /// Those of [`TraceReader::open`].
    pub fn trace(path: &Path) -> Result<Self> {
        let reader = TraceReader::open(path)?;
        let (meta, info) = (reader.meta().clone(), reader.info()?);
        let extent = (info.state == TraceState::Finished).then_some(info.window);
        let store = Store::Trace(path.to_owned(), extent);
        let title = path.display().to_string();
        let lost = info.completeness.lost.iter().fold(0, |sum: u64, loss| sum.saturating_add(loss.count));
        let lost = Arc::new(AtomicU64::new(lost));
        Ok(Self { title, meta, store, stream: None, is_here: false, without: None, helper: None, lost })
    }

    /// The running machine as `/proc` and `/sys` show it, which takes no privilege: without events. `why` says why there are
    /// none, and what to do about it; views that need events show it.
    ///
    /// ```
    /// use schedtrace_tui::Origin;
    /// let machine = Origin::procfs("recording needs CAP_BPF and CAP_PERFMON: run with sudo")?;
    /// assert!(machine.is_live());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if procfs or sysfs cannot be read.
    pub fn procfs(why: impl Into<String>) -> Result<Self> {
        let started = ClockSnapshot::now();
        let meta = Meta {
            host: Host::read(Path::new("/proc"))?,
            topology: Topology::read(Path::new("/sys"))?,
            clocks: vec![started],
            started: started.monotonic_ns,
            ..Meta::default()
        };
        let store = Store::Live(Kept::new(WindowOptions::default())?);
        let (title, without, lost) = (named(&meta), Some(why.into()), Lost::default());
        Ok(Self { title, meta, store, stream: None, is_here: true, without, helper: None, lost })
    }

    /// A source that goes on, of which the last seconds are kept; `stop` makes it end. It is read on a thread of its own.
    ///
    /// # Errors
    /// Those of [`WindowOptions::check`]; [`Error::Invalid`] if no thread can be started.
    pub fn live<S: Source + Send + 'static>(
        source: S,
        stop: impl FnOnce() + Send + 'static,
        options: WindowOptions,
    ) -> Result<Self> {
        let kept = Kept::new(options)?;
        let meta = source.meta().clone();
        let (recording, lost) = (Recording::default(), Lost::default());
        let mut source = Counted { source, lost: Arc::clone(&lost) };
        let mut sink = Tape::new(kept.clone(), recording.clone());
        let read = move || Pipeline::new().sink("screen", OnFull::Block, &mut sink).run(&mut source);
        let reader = std::thread::Builder::new().name("st-merge".into()).spawn(read);
        let reader = reader.map_err(|error| Error::Invalid(format!("cannot start a thread: {error}")))?;
        let stream = Some(Stream { reader: Some(reader), stop: Some(Box::new(stop)), ended: None, recording });
        // A source may be of another machine, or of none.
        let is_here = Host::read(Path::new("/proc")).is_ok_and(|here| here == meta.host);
        Ok(Self {
            title: named(&meta),
            meta,
            store: Store::Live(kept),
            stream,
            is_here,
            without: None,
            helper: None,
            lost,
        })
    }

    /// Gives it another name than that of the machine or the path of the trace.
    ///
    /// ```
    /// # use schedtrace_core::flight::WindowOptions;
    /// # use schedtrace_core::synthetic::SyntheticHost;
    /// # use schedtrace_tui::Origin;
    /// let live = Origin::live(SyntheticHost::new().start(), || (), WindowOptions::default())?;
    /// assert_eq!(live.titled("before the change").title(), "before the change");
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Asks somebody else where tasks are in the kernel, if there is somebody: what the kernel tells to `CAP_SYS_ADMIN`.
    ///
    /// ```no_run
    /// # use std::process::Command;
    /// # use schedtrace_core::system::stacks::StackHelper;
    /// # use schedtrace_tui::Origin;
    /// let helper = StackHelper::start(&mut Command::new("/usr/lib/my-stacks"))?;
    /// let origin = Origin::procfs("this program records nothing")?.helped(Some(helper));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn helped(mut self, helper: Option<StackHelper>) -> Self {
        self.helper = helper;
        self
    }

    pub(crate) fn take_helper(&mut self) -> Option<StackHelper> {
        self.helper.take()
    }

    /// The name of the machine, or of the trace.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What the recording says of itself.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Whether it goes on: more events come, or there are none and the machine is looked at.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.without.is_some() || self.stream.as_ref().is_some_and(|stream| stream.ended.is_none())
    }

    /// Whether it is this machine as it runs, which can be asked what it knows beside events.
    pub(crate) fn is_here(&self) -> bool {
        self.is_here
    }

    /// Why there are no events at all, if there are none.
    pub(crate) fn without(&self) -> Option<&str> {
        self.without.as_deref()
    }

    /// How many events are known to be missing: of the recording, or of all that went on so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Why no more events come, though they should.
    pub fn ended(&mut self) -> Option<&str> {
        let stream = self.stream.as_mut()?;
        if let Some(reader) = stream.reader.take_if(|reader| reader.is_finished()) {
            let ended = reader.join().map_err(|_| Error::Invalid("its reader panicked: a bug in schedtrace".into()));
            stream.ended = Some(match ended.and_then(|ended| ended).and_then(Summary::into_result) {
                Ok(_) => "the stream has ended".into(),
                Err(error) => error.to_string(),
            });
        }
        stream.ended.as_deref()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What starts and stops a recording of a stream that goes on.
    pub(crate) fn recording(&self) -> Option<&Recording> {
        self.stream.as_ref().filter(|stream| stream.ended.is_none()).map(|stream| &stream.recording)
    }
}

/// A machine that runs.
fn named(meta: &Meta) -> String {
    format!("{} · Linux {} · {}", meta.host.hostname, meta.host.kernel, meta.topology.shape())
}

impl Drop for Origin {
    fn drop(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        if let Some(stop) = stream.stop.take() {
            stop();
        }
        // Its end detaches the programs; nobody wants its result any more.
        if let Some(reader) = stream.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Store {
    /// From when to when there are events.
    pub(crate) fn extent(&self) -> Result<Window> {
        match self {
            Self::Trace(_, Some(extent)) => Ok(*extent),
            Self::Trace(path, None) => Ok(TraceReader::open(path)?.info()?.window),
            Self::Live(kept) => Ok(kept.extent()),
        }
    }

    /// What lies between two times, and what has to be known from before.
    pub(crate) fn read(&self, from: Option<Nanos>, until: Option<Nanos>) -> Result<Events> {
        Ok(match self {
            Self::Trace(path, _) => Events::Trace(Box::new(TraceReader::open(path)?.between(from, until))),
            Self::Live(kept) => Events::Live(kept.source(from)),
        })
    }
}

impl Source for Events {
    fn meta(&self) -> &Meta {
        match self {
            Self::Trace(reader) => reader.meta(),
            Self::Live(source) => source.meta(),
        }
    }

    fn poll(&mut self, deadline: Instant) -> Result<Poll> {
        match self {
            Self::Trace(reader) => reader.poll(deadline),
            Self::Live(source) => source.poll(deadline),
        }
    }
}
