//! The event bus: one source, any number of sinks, each on a thread of its own behind a bounded queue.
//!
//! ```text
//!                       ┌─ queue ─ "trace"  (Block: the source waits for it)
//!  Source ── Pipeline ──┼─ queue ─ "report" (Block)
//!                       └─ queue ─ "view"   (DropNewest: loses events, and is told)
//! ```
//!
//! Batches are shared ([`Arc`]), not copied. A sink that fails or panics is ended alone.

mod carry;
mod summary;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};
use crate::event::Batch;
use crate::sink::{OnFull, Sink};
use crate::source::{Meta, Poll, Source};

use carry::Carry;
use summary::Tally;
pub use summary::{SinkOutcome, Summary};

/// How many batches wait in front of each sink, unless [`Pipeline::depth`] says otherwise. The sinks share the batches,
/// so this bounds the memory of all queues together: at a million events per second in batches of 50 ms, 50 MB.
pub const QUEUE_DEPTH: usize = 32;

/// The deepest queue that [`Pipeline::depth`] takes.
pub const MAX_QUEUE_DEPTH: usize = 4096;

/// How long one poll of a silent source may wait, and so how soon the run ends once no sink is left.
const POLL: Duration = Duration::from_millis(500);

/// Carries the batches of one source to any number of sinks.
///
/// Sinks are borrowed, so that the caller has them back after the run:
///
/// ```
/// use schedtrace_core::{Batch, MemorySource, Meta, OnFull, Pipeline};
///
/// let mut source = MemorySource::new(Meta::default(), [Batch::default(), Batch::default()]);
/// let (mut recorded, mut shown) = (0, 0);
/// let mut recorder = |_: &Batch| recorded += 1;
/// let mut view = |_: &Batch| shown += 1;
/// let summary = Pipeline::new()
///     .sink("trace", OnFull::Block, &mut recorder)
///     .sink("view", OnFull::DropNewest, &mut view)
///     .run(&mut source)?;
/// assert_eq!((summary.batches, recorded), (2, 2));
/// summary.into_result()?;
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// Each sink sees [`Sink::begin`], then the batches in order, then [`Sink::finish`], on a thread named after it. A
/// sink with [`OnFull::Block`] gets every batch, however slow it is; the source is not polled meanwhile. A sink with
/// [`OnFull::DropNewest`] misses the events of the batches that found its queue full; their identities, cgroup paths
/// and losses, and the count of what it missed per kind (as [`Loss`](crate::Loss) at
/// [`LossPlace::Queue`](crate::LossPlace::Queue)), come with its next batch, or with a last one before `finish`.
#[must_use = "a pipeline does nothing until it is run"]
pub struct Pipeline<'env> {
    sinks: Vec<Entry<'env>>,
    depth: usize,
}

struct Entry<'env> {
    name: Arc<str>,
    on_full: OnFull,
    sink: &'env mut (dyn Sink + Send),
}

impl Default for Pipeline<'_> {
    fn default() -> Self {
        Self { sinks: Vec::new(), depth: QUEUE_DEPTH }
    }
}

impl fmt::Debug for Pipeline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sinks: Vec<_> = self.sinks.iter().map(|entry| (&entry.name, entry.on_full)).collect();
        f.debug_struct("Pipeline").field("sinks", &sinks).field("depth", &self.depth).finish()
    }
}

impl<'env> Pipeline<'env> {
    /// A pipeline without sinks. Run so, it counts what the source delivers.
    ///
    /// ```
    /// use schedtrace_core::{Batch, MemorySource, Meta, Pipeline};
    /// let mut source = MemorySource::new(Meta::default(), [Batch::default()]);
    /// assert_eq!(Pipeline::new().run(&mut source)?.batches, 1);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// How many batches wait in front of each sink, from 1 to [`MAX_QUEUE_DEPTH`]; what lies outside is brought inside.
    ///
    /// ```
    /// use schedtrace_core::{Batch, OnFull, Pipeline};
    /// let mut view = |_: &Batch| ();
    /// let pipeline = Pipeline::new().depth(2).sink("view", OnFull::DropNewest, &mut view);
    /// ```
    pub fn depth(mut self, batches: usize) -> Self {
        self.depth = batches.clamp(1, MAX_QUEUE_DEPTH);
        self
    }

    /// Adds a sink. Its name, unique in this pipeline, stands in the [`Summary`], in losses and on its thread.
    ///
    /// ```
    /// use schedtrace_core::{Batch, OnFull, Pipeline};
    /// let mut events = 0;
    /// let mut count = |batch: &Batch| events += batch.events.len();
    /// let pipeline = Pipeline::new().sink("count", OnFull::Block, &mut count);
    /// ```
    pub fn sink(mut self, name: impl Into<Arc<str>>, on_full: OnFull, sink: &'env mut (dyn Sink + Send)) -> Self {
        self.sinks.push(Entry { name: name.into(), on_full, sink });
        self
    }

    /// Carries batches until the source ends or fails, or until no sink is left, and waits for the sinks to finish.
    ///
    /// ```
    /// use schedtrace_core::{Batch, MemorySource, Meta, OnFull, Pipeline};
    ///
    /// let mut source = MemorySource::new(Meta::default(), [Batch::default()]);
    /// let mut fails = |_: &Batch| panic!("out of paper");
    /// let summary = Pipeline::new().sink("printer", OnFull::Block, &mut fails).run(&mut source)?;
    /// assert!(summary.into_result().is_err());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for two sinks of one name, or a name that is empty or holds a NUL; otherwise the source's
    /// error, once the sinks have taken what came before it and were finished. A sink's failure is no error here: it
    /// stands in the summary ([`Summary::into_result`] makes it one). A source that panics takes the run with it.
    pub fn run<S: Source + ?Sized>(self, source: &mut S) -> Result<Summary> {
        check_names(self.sinks.iter().map(|entry| &*entry.name))?;
        let begin = Arc::new(source.meta().clone());
        thread::scope(|scope| {
            let mut tally = Tally::default();
            let mut lanes: Vec<Lane<'_>> =
                self.sinks.into_iter().map(|entry| Lane::start(scope, entry, self.depth, &begin)).collect();
            let ended = pump(source, &mut lanes, &mut tally);
            let meta = Arc::new(source.meta().clone());
            lanes.iter_mut().for_each(|lane| lane.finish(&meta));
            let sinks = lanes.into_iter().map(Lane::join).collect();
            ended.map(|()| tally.summary(sinks))
        })
    }
}

/// Sinks can be told apart by their names, and threads be named after them.
pub(crate) fn check_names<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    for (at, name) in names.clone().enumerate() {
        // A thread's name ends at a NUL, so it may hold none.
        if name.is_empty() || name.contains('\0') {
            return Err(Error::Invalid(format!("{name:?} cannot name a sink: use a word")));
        }
        if names.clone().take(at).any(|other| other == name) {
            return Err(Error::Invalid(format!("two sinks are named {name:?}: give each a name of its own")));
        }
    }
    Ok(())
}

/// The run loop.
fn pump<S: Source + ?Sized>(source: &mut S, lanes: &mut [Lane<'_>], tally: &mut Tally) -> Result<()> {
    while lanes.is_empty() || !lanes.iter().all(Lane::ended) {
        match source.poll(Instant::now() + POLL)? {
            Poll::Batch(batch) => {
                tally.count(&batch);
                let batch = Arc::new(batch);
                lanes.iter_mut().for_each(|lane| lane.offer(&batch));
            }
            Poll::Idle => {}
            Poll::End => break,
        }
    }
    Ok(())
}

enum Message {
    Batch(Arc<Batch>),
    Finish(Arc<Meta>),
}

/// The bus's end of one sink's queue.
struct Lane<'scope> {
    name: Arc<str>,
    on_full: OnFull,
    queue: Sender<Message>,
    thread: Result<ScopedJoinHandle<'scope, Result<(), String>>, String>,
    /// What the sink missed and is still to be told.
    carry: Carry,
}

impl<'scope> Lane<'scope> {
    fn start<'env: 'scope>(
        scope: &'scope Scope<'scope, '_>,
        entry: Entry<'env>,
        depth: usize,
        meta: &Arc<Meta>,
    ) -> Self {
        let Entry { name, on_full, sink } = entry;
        let (queue, batches) = bounded(depth);
        let meta = Arc::clone(meta);
        let thread = thread::Builder::new().name(name.to_string()).spawn_scoped(scope, || serve(sink, meta, batches));
        let thread = thread.map_err(|error| format!("cannot start its thread: {error}"));
        Self { carry: Carry::new(Arc::clone(&name)), name, on_full, queue, thread }
    }

    /// Whether the sink has failed: it takes nothing more.
    fn ended(&self) -> bool {
        self.thread.as_ref().map_or(true, ScopedJoinHandle::is_finished)
    }

    /// Queues a batch, with what the sink missed before; or drops it where there is no room and the sink allows it.
    fn offer(&mut self, batch: &Arc<Batch>) {
        if self.ended() {
            self.carry.clear();
        } else if self.on_full == OnFull::DropNewest && self.queue.is_full() {
            self.carry.drop_batch(batch);
        } else {
            // Only this thread adds to the queue: where it was not full, sending does not wait.
            let batch = if self.carry.is_empty() { Arc::clone(batch) } else { Arc::new(self.carry.deliver(batch)) };
            self.send(Message::Batch(batch));
        }
    }

    /// Tells the sink what it missed, and that this was all.
    fn finish(&mut self, meta: &Arc<Meta>) {
        if !self.carry.is_empty() {
            let rest = self.carry.deliver(&Batch::default());
            self.send(Message::Batch(Arc::new(rest)));
        }
        self.send(Message::Finish(Arc::clone(meta)));
    }

    fn send(&self, message: Message) {
        // Fails only when the sink has ended, and then `join` says why.
        let _ = self.queue.send(message);
    }

    fn join(self) -> SinkOutcome {
        drop(self.queue);
        let result = match self.thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| Err(panic_text(panic.as_ref()))),
            Err(why) => Err(why),
        };
        let error = result.err().map(|why| Error::Sink { sink: self.name.to_string(), why });
        SinkOutcome { name: self.name.to_string(), error, dropped: self.carry.dropped() }
    }
}

/// A sink's thread. The queue closes when it returns, whether by an error or a panic, so that nobody waits for it.
fn serve(sink: &mut (dyn Sink + Send), meta: Arc<Meta>, batches: Receiver<Message>) -> Result<(), String> {
    // Unwind safe: a sink that panicked is not called again here, and its owner learns of the panic.
    let result = catch_unwind(AssertUnwindSafe(move || {
        sink.begin(&meta)?;
        for message in batches {
            match message {
                Message::Batch(batch) => sink.batch(&batch)?,
                Message::Finish(meta) => return sink.finish(&meta),
            }
        }
        // The bus is gone without a word: the source panicked.
        Ok(())
    }));
    match result {
        Ok(result) => result.map_err(|error: Error| error.to_string()),
        Err(panic) => Err(panic_text(panic.as_ref())),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.map_or_else(|| "it panicked".to_owned(), |text| format!("it panicked: {text}"))
}

#[cfg(test)]
mod tests;
