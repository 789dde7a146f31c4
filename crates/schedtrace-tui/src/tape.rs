//! What is kept of a stream that goes on: all the seconds that can be looked back. Beside it a recorder, which can be started
//! and stopped while the stream goes on: a recording begins with what is kept, and so reaches back to before somebody thought of
//! it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use schedtrace_core::flight::{self, Snapshot, WindowOptions, WindowSource};
use schedtrace_core::trace::{TraceWriter, WriterOptions};
use schedtrace_core::{Batch, Error, Meta, Nanos, OnFull, Pipeline, Poll, Result, Sink, Source, Window};

/// So many batches may be on their way to who writes them.
const DEPTH: usize = 16;

/// So many batches may wait for the disk: six seconds, as the kernel's rings are read.
const QUEUE: usize = 128;

/// The last seconds.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    all: flight::Window,
    /// What somebody looks at who does not follow what goes on: it would go away from under their eyes.
    held: Arc<Mutex<Option<Snapshot>>>,
}

impl Kept {
    pub(crate) fn new(options: WindowOptions) -> Result<Self> {
        Ok(Self { all: flight::Window::new(options)?, held: Arc::default() })
    }

    /// From now on, what is kept now is what there is, until that is taken back.
    pub(crate) fn hold(&self, holds: bool) {
        let mut held = self.held();
        if held.is_some() != holds {
            *held = holds.then(|| self.all.snapshot());
        }
    }

    /// From when to when there is something.
    pub(crate) fn extent(&self) -> Window {
        self.held().as_ref().map_or_else(|| self.all.covers().window, Snapshot::window)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.held().clone().unwrap_or_else(|| self.all.snapshot())
    }

    /// What happened since some moment, and some of what was before.
    pub(crate) fn source(&self, from: Option<Nanos>) -> WindowSource {
        if let Some(held) = &*self.held() {
            return held.source();
        }
        from.map_or_else(|| self.all.source(), |from| self.all.source_since(from))
    }

    fn held(&self) -> MutexGuard<'_, Option<Snapshot>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Kept {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.all.begin(meta)
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.all.batch(batch)
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.all.finish(meta)
    }
}

/// Takes every batch, for the screen and for the recording if there is one.
#[derive(Debug)]
pub(crate) struct Tape {
    kept: Kept,
    recording: Recording,
}

/// Starts and stops it. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How many there have been.
    count: u64,
    running: Option<Running>,
}

/// One of them: its number, and where its parts go.
#[derive(Clone, Debug)]
struct Running {
    number: u64,
    send: SyncSender<Part>,
    /// What the window holds has gone there.
    has_begun: bool,
}

/// What is to be written.
#[derive(Debug)]
enum Part {
    Begin(Box<Snapshot>),
    Batch(Box<Batch>),
}

/// What a recording writes, on the thread that calls [`Reel::write`].
#[derive(Debug)]
pub(crate) struct Reel {
    path: PathBuf,
    parts: Receiver<Part>,
    number: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taped {
    pub(crate) events: u64,
    /// Those for which the disk was too slow: the trace says so too.
    pub(crate) lost: u64,
}

impl Tape {
    pub(crate) fn new(kept: Kept, recording: Recording) -> Self {
        Self { kept, recording }
    }
}

impl Recording {
    /// A recording from the next batch on, until it is stopped.
    pub(crate) fn start(&self, path: &Path) -> Reel {
        let (send, parts) = sync_channel(DEPTH);
        let mut state = self.lock();
        state.count += 1;
        let number = state.count;
        state.running = Some(Running { number, send, has_begun: false });
        Reel { path: path.to_owned(), parts, number }
    }

    /// Its trace is finished soon after.
    pub(crate) fn stop(&self) {
        self.lock().running = None;
    }

    /// Stops the one of this number, and none that was started since.
    pub(crate) fn stop_number(&self, number: u64) {
        self.lock().running.take_if(|running| running.number == number);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.lock().running.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the next part goes, and what went there before.
    fn next(&self) -> Option<Running> {
        let mut state = self.lock();
        let running = state.running.as_mut()?;
        let before = running.clone();
        running.has_begun = true;
        Some(before)
    }
}

impl Sink for Tape {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.kept.begin(meta)
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        if let Some(Running { number, send, has_begun }) = self.recording.next() {
            let begin = (!has_begun).then(|| Part::Begin(Box::new(self.kept.all.snapshot())));
            let parts = begin.into_iter().chain([Part::Batch(Box::new(batch.clone()))]);
            // Who takes them never waits for the disk. Where nobody does, the writer has failed, and told so.
            if parts.into_iter().try_for_each(|part| send.send(part)).is_err() {
                self.recording.stop_number(number);
            }
        }
        self.kept.batch(batch)
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.recording.stop();
        self.kept.finish(meta)
    }
}

impl Reel {
    /// Which recording it is.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Writes all of it. Where the disk is so slow that too much would have to wait for it, what is newest is lost, and the
    /// trace says so: the stream, and with it the screen, goes on.
    pub(crate) fn write(self) -> Result<Taped> {
        let path = self.path.clone();
        self.write_to(|| TraceWriter::create(path, WriterOptions::default()))
    }

    fn write_to<S: Sink + Send>(self, create: impl FnOnce() -> Result<S> + Send) -> Result<Taped> {
        // Before that, there is nothing that would make it a trace.
        let Ok(Part::Begin(begun)) = self.parts.recv() else {
            return Err(Error::Invalid(format!("{} is empty: it was stopped before it began", self.path.display())));
        };
        let meta = Meta { ended: None, ..begun.meta().clone() };
        let mut parts = Parts { meta, until: begun.window().until_ns, parts: self.parts };
        let mut film = Film { create: Some(create), sink: None, begun: Some(*begun), events: 0 };
        let bus = Pipeline::new().depth(QUEUE).sink("recording", OnFull::DropNewest, &mut film);
        let summary = bus.run(&mut parts)?.into_result()?;
        let lost = summary.sinks.iter().map(|sink| sink.dropped).sum();
        Ok(Taped { events: film.events, lost })
    }
}

/// What comes after the beginning, until the recording is stopped.
struct Parts {
    meta: Meta,
    until: Nanos,
    parts: Receiver<Part>,
}

impl Source for Parts {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn poll(&mut self, deadline: Instant) -> Result<Poll> {
        Ok(match self.parts.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Part::Batch(batch)) => {
                // A stream that is at its end says so with a time that never comes.
                self.until = self.until.max(Some(batch.until).filter(|until| *until < Nanos::MAX).unwrap_or_default());
                Poll::Batch(*batch)
            }
            Ok(Part::Begin(_)) | Err(RecvTimeoutError::Timeout) => Poll::Idle,
            Err(RecvTimeoutError::Disconnected) => {
                self.meta.ended = Some(self.until);
                Poll::End
            }
        })
    }
}

/// Writes what the window held, and what comes then.
struct Film<F, S> {
    create: Option<F>,
    sink: Option<S>,
    begun: Option<Snapshot>,
    events: u64,
}

impl<F: FnOnce() -> Result<S>, S: Sink> Sink for Film<F, S> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        let (Some(create), Some(begun)) = (self.create.take(), self.begun.take()) else { return Ok(()) };
        let sink = self.sink.insert(create()?);
        sink.begin(meta)?;
        let mut held = begun.source();
        while let Poll::Batch(batch) = held.poll(Instant::now())? {
            self.events += batch.events.len() as u64;
            sink.batch(&batch)?;
        }
        Ok(())
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.events += (batch.events.len() + batch.late.len()) as u64;
        self.sink.as_mut().map_or(Ok(()), |sink| sink.batch(batch))
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.sink.as_mut().map_or(Ok(()), |sink| sink.finish(meta))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schedtrace_core::trace::{TraceReader, TraceState};
    use schedtrace_core::{Cpu, Event, Hang, Kind, Probe, TaskId};

    use super::*;

    fn meta() -> Meta {
        Meta { probes: vec![Probe { kind: Kind::Hang, on: true, why: None }], ..Meta::default() }
    }

    fn batch(at: u64) -> Batch {
        let event = Event { ts: Nanos(at), cpu: Cpu(0), kind: Hang { task: TaskId(1) }.into() };
        Batch { until: Nanos(at + 1), events: vec![event], ..Batch::default() }
    }

    #[test]
    fn a_recording_begins_with_what_the_window_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.schedtrace");
        let (kept, recording) = (Kept::new(WindowOptions::default()).unwrap(), Recording::default());
        let mut tape = Tape::new(kept, recording.clone());
        tape.begin(&meta()).unwrap();
        tape.batch(&batch(100)).unwrap();
        let reel = recording.start(&path);
        assert!(recording.is_on());
        let writer = std::thread::spawn(move || reel.write());
        tape.batch(&batch(200)).unwrap();
        tape.batch(&batch(300)).unwrap();
        recording.stop();
        tape.batch(&batch(400)).unwrap();
        assert_eq!(writer.join().unwrap().unwrap(), Taped { events: 3, lost: 0 });
        let mut reader = TraceReader::open(&path).unwrap();
        assert_eq!(reader.info().unwrap().state, TraceState::Finished);
        let mut times = Vec::new();
        while let Poll::Batch(batch) = reader.poll(std::time::Instant::now()).unwrap() {
            times.extend(batch.events.iter().map(|event| event.ts.0));
        }
        assert_eq!(times, [100, 200, 300]);
    }

    #[test]
    fn the_newest_is_read_by_itself() {
        fn times(mut source: WindowSource) -> Vec<u64> {
            let mut times = Vec::new();
            while let Poll::Batch(batch) = source.poll(Instant::now()).unwrap() {
                times.extend(batch.events.iter().map(|event| event.ts.0));
            }
            times
        }
        let second = 1_000_000_000;
        let mut kept = Kept::new(WindowOptions::default()).unwrap();
        kept.begin(&Meta::default()).unwrap();
        (1..=8).for_each(|n| kept.batch(&batch(n * second)).unwrap());
        assert_eq!(times(kept.source(None)), (1..=8).map(|n| n * second).collect::<Vec<_>>());
        assert_eq!(times(kept.source(Some(Nanos(7 * second)))), [7 * second, 8 * second]);
        assert_eq!(times(kept.source(Some(Nanos(3 * second)))), (3..=8).map(|n| n * second).collect::<Vec<_>>());
        kept.batch(&batch(9 * second)).unwrap();
        assert_eq!(times(kept.source(Some(Nanos(6 * second)))), [6, 7, 8, 9].map(|n| n * second));
        kept.hold(true);
        (10..=30).for_each(|n| kept.batch(&batch(n * second)).unwrap());
        assert_eq!(times(kept.source(Some(Nanos(8 * second)))).len(), 9, "it is held");
        assert_eq!(kept.extent().until_ns, Nanos(9 * second + 1));
        kept.hold(false);
        assert_eq!(kept.extent().until_ns, Nanos(30 * second + 1));
    }

    #[test]
    fn one_that_cannot_be_written_stops_itself_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, recording) = (Kept::new(WindowOptions::default()).unwrap(), Recording::default());
        let mut tape = Tape::new(kept, recording.clone());
        tape.begin(&meta()).unwrap();
        let reel = recording.start("/proc/no/such".as_ref());
        let number = reel.number();
        let writer = std::thread::spawn(move || reel.write());
        // It fails at some batch; nobody takes those that come then.
        while recording.is_on() {
            tape.batch(&batch(100)).unwrap();
        }
        assert!(writer.join().unwrap().unwrap_err().to_string().contains("/proc/no/such"));
        let path = folder.path().join("next.schedtrace");
        let reel = recording.start(&path);
        recording.stop_number(number);
        assert!(recording.is_on(), "another one has failed");
        let writer = std::thread::spawn(move || reel.write());
        tape.batch(&batch(200)).unwrap();
        recording.stop();
        writer.join().unwrap().unwrap();
        TraceReader::open(&path).unwrap();
    }

    #[test]
    fn one_that_ends_before_it_begins_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.schedtrace");
        let recording = Recording::default();
        let reel = recording.start(&path);
        recording.stop();
        assert!(reel.write().is_err());
        assert!(!path.exists());
    }

    #[test]
    fn nobody_waits_for_the_disk_and_the_trace_says_what_is_missing() {
        const BATCHES: u64 = 2_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.schedtrace");
        let (kept, recording) = (Kept::new(WindowOptions::default()).unwrap(), Recording::default());
        let mut tape = Tape::new(kept, recording.clone());
        tape.begin(&meta()).unwrap();
        let reel = recording.start(&path);
        let (goes_on, stuck) = sync_channel::<()>(1);
        let to = path.clone();
        let writer = std::thread::spawn(move || {
            reel.write_to(move || {
                // Until all of it has come, or who waits for that has given up.
                let _ = stuck.recv_timeout(Duration::from_secs(60));
                TraceWriter::create(to, WriterOptions::default())
            })
        });
        let (all, came) = sync_channel(1);
        let feeder = std::thread::spawn(move || {
            (1..=BATCHES).for_each(|n| tape.batch(&batch(n * 10)).unwrap());
            all.send(()).unwrap();
            tape
        });
        let came = came.recv_timeout(Duration::from_secs(30));
        assert!(came.is_ok(), "the stream waits for the disk");
        goes_on.send(()).unwrap();
        feeder.join().unwrap();
        recording.stop();
        let taped = writer.join().unwrap().unwrap();
        assert_eq!(taped.events + taped.lost, BATCHES);
        assert!(taped.lost > 0 && taped.events >= QUEUE as u64);
        let mut reader = TraceReader::open(&path).unwrap();
        let (mut events, mut lost) = (0, 0);
        while let Poll::Batch(batch) = reader.poll(Instant::now()).unwrap() {
            events += batch.events.len() as u64;
            lost += batch.lost.iter().map(|loss| loss.count).sum::<u64>();
        }
        assert_eq!(Taped { events, lost }, taped);
    }
}
