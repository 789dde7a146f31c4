//! Recordings that go on by themselves, for programs that have something else to do meanwhile.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::event::{Batch, KindFilters, LossPlace};
use crate::live::{CollectorBuilder, Stopper};
use crate::pipeline::{Pipeline, Summary, check_names};
use crate::rate_limit::RateLimit;
use crate::sink::{Filtered, OnFull, Sink};
use crate::source::Meta;
use crate::trace::{TraceReader, TraceWriter, WriterOptions};

/// How long the first commit of a trace may take.
const FIRST_COMMIT: Duration = Duration::from_secs(10);

/// The running kernel is recorded into a trace, on threads of its own, until this is stopped or dropped, the
/// [time](CollectorBuilder::duration) is over, or the trace cannot be written any more.
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
    written: Written,
    thread: Option<JoinHandle<Result<Summary>>>,
}

/// How much a recording has written into its trace so far, behind its conditions and its limit: for whoever looks on.
///
/// ```no_run
/// # use schedtrace_core::{Recorder, live::Collector, trace::WriterOptions};
/// let recorder = Recorder::start(Collector::builder(), "run.schedtrace", WriterOptions::default())?;
/// let written = recorder.written();
/// println!("{} events so far, {} lost", written.events(), written.lost());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    events: AtomicU64,
    lost: AtomicU64,
}

impl Written {
    /// Events, the late ones included; those that have gone since to make room as well.
    ///
    /// ```
    /// assert_eq!(schedtrace_core::Written::default().events(), 0);
    /// ```
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.events.load(Ordering::Relaxed)
    }

    /// Events that the trace says are missing, without what was merely late.
    ///
    /// ```
    /// assert_eq!(schedtrace_core::Written::default().lost(), 0);
    /// ```
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

/// Counts what a sink takes.
struct Counted<S> {
    sink: S,
    written: Written,
}

impl<S: Sink> Sink for Counted<S> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.sink.begin(meta)
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.sink.batch(batch)?;
        let lost = batch.lost.iter().filter(|loss| loss.place != LossPlace::Late).map(|loss| loss.count);
        let Counts { events, lost: missing } = &*self.written.0;
        events.fetch_add((batch.events.len() + batch.late.len()) as u64, Ordering::Relaxed);
        missing.fetch_add(lost.fold(0, u64::saturating_add), Ordering::Relaxed);
        Ok(())
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.sink.finish(meta)
    }
}

/// A sink without which there is no use in going on: if it fails or panics, this is called.
struct Needed<S, F: Fn()> {
    sink: S,
    end: F,
}

/// Calls it unless it is told that all is well.
struct Unless<'a, F: Fn()>(&'a F, bool);

impl<F: Fn()> Drop for Unless<'_, F> {
    fn drop(&mut self) {
        if !self.1 {
            self.0();
        }
    }
}

impl<S: Sink, F: Fn()> Needed<S, F> {
    fn call(&mut self, call: impl FnOnce(&mut S) -> Result<()>) -> Result<()> {
        let mut unless = Unless(&self.end, false);
        let result = call(&mut self.sink);
        unless.1 = result.is_ok();
        result
    }
}

impl<S: Sink, F: Fn()> Sink for Needed<S, F> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.call(|sink| sink.begin(meta))
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.call(|sink| sink.batch(batch))
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.call(|sink| sink.finish(meta))
    }
}

/// A recording that is to begin: what is recorded, where to, and who else sees it.
///
/// ```no_run
/// use schedtrace_core::live::Collector;
/// use schedtrace_core::trace::WriterOptions;
/// use schedtrace_core::{Batch, OnFull, Recorder};
///
/// let view = |batch: &Batch| println!("{} events until {}", batch.events.len(), batch.until);
/// let recorder = Recorder::builder(Collector::builder(), "run.schedtrace", WriterOptions::default())
///     .events_per_second(500_000)
///     .sink("view", OnFull::DropNewest, view)
///     .start()?;
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[must_use = "a builder records nothing until it is started"]
pub struct RecorderBuilder {
    collector: CollectorBuilder,
    trace: PathBuf,
    options: WriterOptions,
    events_per_second: u64,
    only: KindFilters,
    sinks: Vec<(Arc<str>, OnFull, Box<dyn Sink + Send>)>,
}

impl fmt::Debug for RecorderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sinks: Vec<_> = self.sinks.iter().map(|(name, on_full, _)| (name, on_full)).collect();
        f.debug_struct("RecorderBuilder")
            .field("collector", &self.collector)
            .field("trace", &self.trace)
            .field("options", &self.options)
            .field("events_per_second", &self.events_per_second)
            .field("only", &self.only)
            .field("sinks", &sinks)
            .finish()
    }
}

impl RecorderBuilder {
    /// Writes at most so many events of each second into the trace, and the rest as loss ([`RateLimit`]). The other sinks are
    /// given all. Default: no limit.
    ///
    /// ```no_run
    /// # use schedtrace_core::{Recorder, live::Collector, trace::WriterOptions};
    /// let builder = Recorder::builder(Collector::builder(), "run.schedtrace", WriterOptions::default());
    /// let recorder = builder.events_per_second(500_000).start()?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn events_per_second(mut self, most: u64) -> Self {
        self.events_per_second = most;
        self
    }

    /// Writes of some kinds only those events into the trace that meet these conditions ([`Filtered::by_kind`]), which the trace
    /// says. The other sinks are given all. Default: no conditions.
    ///
    /// ```no_run
    /// # use schedtrace_core::{Kind, KindFilters, Recorder, live::Collector, trace::WriterOptions};
    /// let mut writes = KindFilters::default();
    /// writes.add(Kind::BlockIssue, "rwbs ~ 'W'", |_, _| None)?;
    /// let builder = Recorder::builder(Collector::builder(), "run.schedtrace", WriterOptions::default());
    /// let recorder = builder.only(writes).start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn only(mut self, filters: KindFilters) -> Self {
        self.only = filters;
        self
    }

    /// Gives the stream to this sink as well, behind a queue and on a thread of its own ([`Pipeline::sink`]); when the
    /// recording is over, the sink is dropped. Its name is not `trace`, and that of no other.
    ///
    /// ```no_run
    /// # use schedtrace_core::{Batch, OnFull, Recorder, live::Collector, trace::WriterOptions};
    /// let builder = Recorder::builder(Collector::builder(), "run.schedtrace", WriterOptions::default());
    /// let recorder = builder.sink("count", OnFull::Block, |batch: &Batch| drop(batch.events.len())).start()?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn sink(mut self, name: impl Into<Arc<str>>, on_full: OnFull, sink: impl Sink + Send + 'static) -> Self {
        self.sinks.push((name.into(), on_full, Box::new(sink)));
        self
    }

    /// Begins the recording; returns once its trace can be read.
    ///
    /// ```no_run
    /// # use schedtrace_core::{Recorder, live::Collector, trace::WriterOptions};
    /// let recorder = Recorder::builder(Collector::builder(), "run.schedtrace", WriterOptions::default()).start()?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`CollectorBuilder::start`], [`TraceWriter::create`] and, about the names of sinks, [`Pipeline::run`];
    /// [`Error::Invalid`] if no thread can be started.
    pub fn start(self) -> Result<Recorder> {
        let Self { collector, trace, options, events_per_second, only, mut sinks } = self;
        options.check()?;
        check_names(std::iter::once("trace").chain(sinks.iter().map(|(name, ..)| &**name)))?;
        let loaded = collector.load()?;
        let writer = TraceWriter::create(&trace, options)?;
        // Of a recording that did not begin, nothing is left behind.
        let mut collector = loaded.start().inspect_err(|_| drop(std::fs::remove_dir_all(&trace)))?;
        let (stopper, ends) = (collector.stopper(), collector.ends());
        let written = Written::default();
        let counted = Counted { sink: writer, written: written.clone() };
        let end = stopper.clone();
        let record = move || {
            let bounded = RateLimit::new(events_per_second, counted);
            let sink: Box<dyn Sink + Send> =
                if only.is_empty() { Box::new(bounded) } else { Box::new(Filtered::by_kind(only, bounded)) };
            // Whoever looks on does not keep a recording going that is not written.
            let mut writer = Needed { sink, end: move || end.stop() };
            let mut pipeline = Pipeline::new().sink("trace", OnFull::Block, &mut writer);
            for (name, on_full, sink) in &mut sinks {
                pipeline = pipeline.sink(Arc::clone(name), *on_full, sink);
            }
            pipeline.run(&mut collector)
        };
        let thread = std::thread::Builder::new().name("st-merge".into()).spawn(record);
        let thread = thread.map_err(|error| Error::Invalid(format!("cannot start a thread: {error}")))?;
        let mut recorder = Recorder { trace, ends, stopper, written, thread: Some(thread) };
        recorder.await_first_commit()?;
        Ok(recorder)
    }
}

impl Recorder {
    /// Begins a recording; returns once its trace can be read.
    ///
    /// ```no_run
    /// # use schedtrace_core::{Recorder, live::Collector, trace::WriterOptions};
    /// let recorder = Recorder::start(Collector::builder(), "run.schedtrace", WriterOptions::default())?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`CollectorBuilder::start`] and [`TraceWriter::create`]; [`Error::Invalid`] if no thread can be started.
    pub fn start(builder: CollectorBuilder, trace: impl AsRef<Path>, options: WriterOptions) -> Result<Self> {
        Self::builder(builder, trace, options).start()
    }

    /// A recording into this trace, with more to choose.
    ///
    /// ```no_run
    /// # use schedtrace_core::{Recorder, live::Collector, trace::WriterOptions};
    /// let recorder = Recorder::builder(Collector::builder(), "run.schedtrace", WriterOptions::default()).start()?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn builder(collector: CollectorBuilder, trace: impl AsRef<Path>, options: WriterOptions) -> RecorderBuilder {
        let trace = trace.as_ref().to_owned();
        let only = KindFilters::default();
        RecorderBuilder { collector, trace, options, events_per_second: u64::MAX, only, sinks: Vec::new() }
    }

    fn await_first_commit(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match TraceReader::open(&self.trace) {
                Ok(_) => return Ok(()),
                // Its first commit may have come since, with its last.
                Err(_) if self.is_finished() => {
                    return match TraceReader::open(&self.trace) {
                        Ok(_) => Ok(()),
                        // What went wrong says more than that nothing was written.
                        Err(error) => self.end().and_then(Summary::into_result).and(Err(error)),
                    };
                }
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

    /// How much was written so far; it can be asked from anywhere, and when the recording is over.
    ///
    /// ```no_run
    /// # use schedtrace_core::{Recorder, live::Collector, trace::WriterOptions};
    /// let recorder = Recorder::start(Collector::builder(), "run.schedtrace", WriterOptions::default())?;
    /// println!("{} events so far", recorder.written().events());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn written(&self) -> Written {
        self.written.clone()
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::event::{Cpu, Event, Hang, Kind, Loss, Nanos, TaskId};

    /// Fails, or panics, at the second batch.
    struct Failing(u32, bool);

    impl Sink for Failing {
        fn batch(&mut self, _: &Batch) -> Result<()> {
            self.0 += 1;
            match (self.0 > 1, self.1) {
                (true, true) => panic!("it broke"),
                (true, false) => Err(Error::Invalid("no space left".into())),
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn what_fails_ends_what_cannot_go_on_without_it() {
        for panics in [false, true] {
            let ended = Cell::new(0);
            let mut sink = Needed { sink: Failing(0, panics), end: || ended.set(ended.get() + 1) };
            sink.begin(&Meta::default()).unwrap();
            sink.batch(&Batch::default()).unwrap();
            assert_eq!(ended.get(), 0);
            let failed = catch_unwind(AssertUnwindSafe(|| sink.batch(&Batch::default())));
            assert!(failed.is_err() == panics && !matches!(failed, Ok(Ok(()))));
            assert_eq!(ended.get(), 1);
        }
    }

    #[test]
    fn what_is_written_is_counted_and_what_failed_is_not() {
        let event = Event { ts: Nanos(5), cpu: Cpu(0), kind: Hang { task: TaskId(1) }.into() };
        let loss = |place, count| Loss { place, kind: Some(Kind::Switch), count, from: Nanos(0), until: Nanos(9) };
        let lost = vec![loss(LossPlace::Late, 5), loss(LossPlace::RateLimit, 7)];
        let batch = Batch { events: vec![event; 2], late: vec![event], lost, ..Batch::default() };
        let written = Written::default();
        let mut sink = Counted { sink: Failing(0, false), written: written.clone() };
        sink.batch(&batch).unwrap();
        assert!(sink.batch(&batch).is_err());
        assert_eq!((written.events(), written.lost()), (3, 7));
    }
}
