//! The live window: the last seconds of a stream, in memory.

mod newest;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::newest::{Newest, Start};
use super::pack::Packed;
use crate::error::{Error, Result};
use crate::event::{self, Batch, Cgroup, Event, Loss, Name, Nanos, Task, TaskStatus};
use crate::sink::Sink;
use crate::source::{Meta, Poll, Source};

/// The least room that a window has, in bytes.
const MIN_BYTES: u64 = 64 << 10;
/// A batch is kept in parts of at most so many events, and of no more than a sixteenth of the room.
const PART_EVENTS: usize = 1 << 16;
const PARTS: u64 = 16;
/// About what an event takes.
const EVENT_BYTES: u64 = 20;
/// So many names are carried on, as many as analyses remember.
const MAX_NAMES: usize = 1 << 16;
/// So many losses that reach into the window from before it are carried on.
const MAX_LOSSES: usize = 1 << 10;

/// How long a window is, and how much memory it may take.
///
/// ```
/// use std::time::Duration;
/// use schedtrace_core::flight::{Window, WindowOptions};
/// let window = Window::new(WindowOptions { duration: Duration::from_secs(30), ..WindowOptions::default() })?;
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// How far back it reaches.
    pub duration: Duration,
    /// The most bytes that its events may take, and the identities and losses between them: at least 64 KiB. Where they do
    /// not suffice, it reaches less far back.
    pub max_bytes: u64,
}

/// Ten seconds, 256 MiB.
impl Default for WindowOptions {
    fn default() -> Self {
        Self { duration: Duration::from_secs(10), max_bytes: 256 << 20 }
    }
}

impl WindowOptions {
    /// Checks that the window can be kept.
    ///
    /// ```
    /// use schedtrace_core::flight::WindowOptions;
    /// assert!(WindowOptions { max_bytes: 10, ..WindowOptions::default() }.check().is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is of no length, or has next to no memory.
    pub fn check(&self) -> Result<()> {
        if self.duration.is_zero() {
            return Err(Error::Invalid("a window of no length keeps nothing: give it a time such as 10s".into()));
        }
        if self.max_bytes < MIN_BYTES {
            let why = format!("a window cannot be kept in {} bytes: give it {MIN_BYTES} or more", self.max_bytes);
            return Err(Error::Invalid(why));
        }
        Ok(())
    }
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covers {
    /// From when to when.
    pub window: event::Window,
    /// Events in it, with those that came late.
    pub events: u64,
    /// The memory that they take, and what came with them.
    pub bytes: u64,
    /// Memory, and not time, decided where it begins: it is shorter than was asked for.
    pub shortened: bool,
}

/// The last seconds of a stream, in memory, to be read at any time while it goes on.
///
/// It is a [`Sink`], and a handle: clones show the same window. What it gives out begins with who is alive and what each
/// task is doing, so that an analysis says of it what it would say of a trace of the same time.
///
/// ```
/// use schedtrace_core::analysis::{self, Options, Sched};
/// use schedtrace_core::flight::{Window, WindowOptions};
/// use schedtrace_core::{Batch, Cpu, Event, Hang, MemorySource, Meta, Nanos, OnFull, Pipeline, TaskId};
///
/// let window = Window::new(WindowOptions::default())?;
/// let event = Event { ts: Nanos(500), cpu: Cpu(0), kind: Hang { task: TaskId(1) }.into() };
/// let mut stream = MemorySource::new(Meta::default(), [Batch { until: Nanos(900), events: vec![event], ..Batch::default() }]);
/// Pipeline::new().sink("window", OnFull::Block, &mut window.clone()).run(&mut stream)?;
///
/// assert_eq!(window.covers().events, 1);
/// let report = analysis::run(&mut window.source(), Sched::new(Options::default()))?;
/// assert_eq!(report.window.until_ns, Nanos(900));
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Window {
    options: WindowOptions,
    held: Arc<Mutex<Held>>,
    /// Who reads the newest part again and again. Locked before `held`.
    newest: Arc<Mutex<Option<Newest>>>,
}

impl Window {
    /// An empty window.
    ///
    /// ```
    /// use schedtrace_core::flight::{Window, WindowOptions};
    /// let window = Window::new(WindowOptions::default())?;
    /// assert_eq!(window.covers().bytes, 0);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WindowOptions::check`].
    pub fn new(options: WindowOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { options, held: Arc::default(), newest: Arc::default() })
    }

    /// How far back it reaches now, and what that takes.
    ///
    /// ```
    /// use schedtrace_core::flight::{Window, WindowOptions};
    /// assert!(!Window::new(WindowOptions::default())?.covers().shortened);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn covers(&self) -> Covers {
        self.lock().covers(self.options.duration)
    }

    /// What it holds now. Events are shared and not copied: what is held here stays in memory until the snapshot goes.
    ///
    /// ```
    /// use schedtrace_core::flight::{Window, WindowOptions};
    /// let snapshot = Window::new(WindowOptions::default())?.snapshot();
    /// let (once, again) = (snapshot.source(), snapshot.source());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Arc::new(self.lock().snapshot()))
    }

    /// A source of what it holds now.
    ///
    /// ```
    /// use schedtrace_core::{Poll, Source};
    /// use schedtrace_core::flight::{Window, WindowOptions};
    /// let mut source = Window::new(WindowOptions::default())?.source();
    /// while let Poll::Batch(batch) = source.poll(std::time::Instant::now())? {
    ///     println!("{} events", batch.events.len());
    /// }
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn source(&self) -> WindowSource {
        self.snapshot().source()
    }

    /// A source of what it holds since some moment, for who looks at the newest part again and again: what was before is not
    /// read each time. It begins at that moment or before it, with who is alive and what each task is doing there, so that an
    /// analysis that begins at that moment ([`Options::from`](crate::analysis::Options::from)) says what it would say of
    /// [`Window::source`]. Clones share how far it has come: asked for ever later moments, each part is passed once.
    ///
    /// ```
    /// use schedtrace_core::{Nanos, Source};
    /// use schedtrace_core::flight::{Window, WindowOptions};
    /// let source = Window::new(WindowOptions::default())?.source_since(Nanos(5));
    /// assert!(source.meta().started <= Nanos(5));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn source_since(&self, from: Nanos) -> WindowSource {
        let mut kept = self.newest();
        let mut held = self.lock();
        let mut newest = Newest::of(kept.take(), &mut held, from);
        let (passed, mut view) = newest.parts(&held, from);
        // Nobody has to wait for the rest.
        drop(held);
        newest.pass(&passed, &mut view, from);
        *kept = Some(newest);
        WindowSource { view: Arc::new(view), next: 0 }
    }

    /// The same for who gives each part back as it is read; until then it counts as memory of the window.
    #[cfg(feature = "trace")]
    pub(super) fn lend(&self) -> Lent {
        let mut held = self.lock();
        let View { meta, first, parts } = held.snapshot();
        let loan = Arc::new(AtomicU64::new(held.first_seq));
        held.loan = Some(Loan { next: Arc::clone(&loan), end: held.first_seq + parts.len() as u64 });
        Lent { meta, first: Some(first), parts: parts.into(), next: loan }
    }

    /// How many bytes of what was lent have left the window and are not given back.
    #[cfg(feature = "trace")]
    pub(super) fn lent_bytes(&self) -> u64 {
        let mut held = self.lock();
        held.reclaim();
        held.gone_bytes
    }

    fn newest(&self) -> MutexGuard<'_, Option<Newest>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing in it is left half-done that would make it wrong in more than a part.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Window {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        let mut newest = self.newest();
        let start = Start { from: meta.started, ..Start::default() };
        *self.lock() = Held { meta: meta.clone(), start, until: meta.started, ..Held::default() };
        *newest = None;
        Ok(())
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        let most = usize::try_from(self.options.max_bytes / PARTS / EVENT_BYTES).unwrap_or(usize::MAX);
        // Before anybody has to wait.
        let packed: Vec<Packed> = batch.events.chunks(most.clamp(1, PART_EVENTS)).map(Packed::new).collect();
        self.lock().add(batch, packed, self.options);
        Ok(())
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        let mut held = self.lock();
        held.until = held.until.max(meta.ended.filter(|ended| *ended < Nanos::MAX).unwrap_or_default());
        held.go(self.options);
        Ok(())
    }
}

/// What came with the events of a part, and holds from there on.
#[derive(Debug, Default)]
struct About {
    tasks: Vec<Task>,
    cgroups: Vec<Cgroup>,
    names: Vec<Name>,
    statuses: Vec<TaskStatus>,
}

impl About {
    fn of(batch: &Batch) -> Option<Self> {
        let about = Self {
            tasks: batch.tasks.clone(),
            cgroups: batch.cgroups.clone(),
            names: batch.names.clone(),
            statuses: batch.statuses.clone(),
        };
        (about.bytes() > size_of::<Self>()).then_some(about)
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.tasks)
            + size_of_val(&*self.statuses)
            + self.cgroups.iter().map(|cgroup| size_of::<Cgroup>() + cgroup.path.len()).sum::<usize>()
            + self.names.iter().map(|name| size_of::<Name>() + name.text.len()).sum::<usize>()
    }
}

/// A batch, or a part of one.
#[derive(Clone, Debug)]
struct Part {
    /// To where the stream had come before, and after it.
    from: Nanos,
    until: Nanos,
    about: Option<Arc<About>>,
    events: Arc<Packed>,
    /// Events of its time that came later, as they came; and what is missing since some moment of it, whenever that was told.
    late: Vec<Event>,
    lost: Vec<Loss>,
    bytes: u64,
}

impl Part {
    fn new(from: Nanos, until: Nanos, about: Option<About>, events: Packed) -> Self {
        let bytes = size_of::<Self>() + events.bytes() + about.as_ref().map_or(0, About::bytes);
        let (about, events) = (about.map(Arc::new), Arc::new(events));
        Self { from, until, about, events, late: Vec::new(), lost: Vec::new(), bytes: bytes as u64 }
    }

    /// Until when nothing happens in it: what its first event ends has gone on until then.
    fn begins(&self) -> Nanos {
        let quiet = self.late.is_empty() && self.events.len() > 0;
        if quiet { self.from.max(self.events.first() - Nanos(1)) } else { self.from }
    }

    /// Its events, with those that came late in their places.
    fn in_order(&self) -> Vec<Event> {
        let mut events: Vec<Event> = self.events.iter().collect();
        if !self.late.is_empty() {
            events.extend_from_slice(&self.late);
            events.sort_by_key(|event| event.ts);
        }
        events
    }

    /// As it goes to whoever reads; `in_place` says where what came late is to be.
    fn batch(&self, in_place: bool) -> Batch {
        let mut batch = Batch { until: self.until, lost: self.lost.clone(), ..Batch::default() };
        if let Some(about) = &self.about {
            (batch.tasks, batch.cgroups) = (about.tasks.clone(), about.cgroups.clone());
            (batch.names, batch.statuses) = (about.names.clone(), about.statuses.clone());
        }
        if in_place {
            batch.events = self.in_order();
        } else {
            (batch.events, batch.late) = (self.events.iter().collect(), self.late.clone());
        }
        batch
    }

    fn count(&self) -> u64 {
        (self.events.len() + self.late.len()) as u64
    }
}

/// Which parts somebody reads who gives them back one by one.
#[derive(Debug)]
struct Loan {
    /// Those before were given back.
    next: Arc<AtomicU64>,
    end: u64,
}

#[derive(Debug, Default)]
struct Held {
    meta: Meta,
    start: Start,
    /// To where the stream has come.
    until: Nanos,
    parts: VecDeque<Part>,
    /// The number of the first.
    first_seq: u64,
    bytes: u64,
    events: u64,
    /// Memory decided where it begins.
    shortened: bool,
    loan: Option<Loan>,
    /// Parts that have gone, and are not given back yet: their numbers and bytes.
    gone: VecDeque<(u64, u64)>,
    gone_bytes: u64,
    /// The first part to which something late was added since the newest was read.
    changed: Option<u64>,
}

impl Held {
    fn add(&mut self, batch: &Batch, packed: Vec<Packed>, options: WindowOptions) {
        if self.start.from == Nanos::ZERO && self.parts.is_empty() {
            // A source that does not say when it began begins with its first event.
            self.start.from = batch.events.first().map_or(Nanos::ZERO, |event| event.ts);
            self.until = self.until.max(self.start.from);
        }
        // A source that has nothing more says so with a time that never comes.
        let last = batch.events.last().map_or(self.until, |event| event.ts);
        let until = if batch.until < Nanos::MAX { batch.until } else { last };
        let until = until.max(self.until);
        let mut about = About::of(batch);
        let mut packed = packed.into_iter().peekable();
        if packed.peek().is_none() && about.is_some() {
            self.push(Part::new(self.until, until, about.take(), Packed::default()));
        }
        while let Some(events) = packed.next() {
            let end = packed.peek().map_or(until, |next| next.first().clamp(self.until, until));
            self.push(Part::new(self.until, end, about.take(), events));
        }
        self.until = until;
        // What is earlier than the window belongs to no part of it.
        let from = self.start.from;
        for event in batch.late.iter().filter(|event| event.ts >= from) {
            let Some(part) = self.part_at(event.ts) else { break };
            part.late.push(*event);
            part.bytes += size_of::<Event>() as u64;
            self.bytes += size_of::<Event>() as u64;
            self.events += 1;
        }
        for loss in batch.lost.iter().filter(|loss| loss.until >= from) {
            if loss.from < from {
                self.start.carry(loss);
            } else if let Some(part) = self.part_at(loss.from) {
                part.lost.push(loss.clone());
                part.bytes += size_of::<Loss>() as u64;
                self.bytes += size_of::<Loss>() as u64;
            }
        }
        self.go(options);
    }

    fn push(&mut self, part: Part) {
        self.bytes += part.bytes;
        self.events += part.count();
        self.until = part.until;
        self.parts.push_back(part);
    }

    /// The part to whose time a moment belongs, the last one if it is none's; something is added to it.
    fn part_at(&mut self, at: Nanos) -> Option<&mut Part> {
        if self.parts.is_empty() {
            self.push(Part::new(self.until, self.until, None, Packed::default()));
        }
        let nth = self.parts.partition_point(|part| part.until <= at).min(self.parts.len() - 1);
        let seq = self.first_seq + nth as u64;
        self.changed = Some(self.changed.map_or(seq, |changed| changed.min(seq)));
        self.parts.get_mut(nth)
    }

    /// Lets go of what is too old or too much.
    fn go(&mut self, options: WindowOptions) {
        self.reclaim();
        let since = self.until - Nanos::from(options.duration);
        while self.parts.front().is_some_and(|part| part.until <= since) {
            self.drop_first();
        }
        if since > self.start.from {
            self.start.advance(since, self.parts.front());
        }
        self.shortened &= self.start.from > since;
        // What is being read elsewhere takes room, but not more than half: there is always a window.
        let room = |held: &Self| options.max_bytes.saturating_sub(held.gone_bytes).max(options.max_bytes / 2);
        while self.bytes > room(self) && !self.parts.is_empty() {
            self.drop_first();
            self.shortened = true;
        }
        let from = self.start.from;
        self.start.lost.retain(|loss| loss.until >= from);
    }

    /// Takes note of what was given back.
    fn reclaim(&mut self) {
        let Some(loan) = &self.loan else { return };
        let next = loan.next.load(Ordering::Acquire);
        while let Some(&(seq, bytes)) = self.gone.front().filter(|(seq, _)| *seq < next) {
            debug_assert!(seq < loan.end, "only what was lent is waited for");
            self.gone.pop_front();
            self.gone_bytes -= bytes;
        }
        if next >= loan.end {
            self.loan = None;
        }
    }

    fn drop_first(&mut self) {
        let Some(part) = self.parts.pop_front() else { return };
        let seq = self.first_seq;
        self.first_seq += 1;
        self.bytes -= part.bytes;
        self.events -= part.count();
        if self.loan.as_ref().is_some_and(|loan| seq < loan.end && seq >= loan.next.load(Ordering::Acquire)) {
            self.gone.push_back((seq, part.bytes));
            self.gone_bytes += part.bytes;
        }
        part.lost.iter().for_each(|loss| self.start.carry(loss));
        self.start.pass(&part);
    }

    fn covers(&self, wanted: Duration) -> Covers {
        let window = event::Window::new(self.start.from, self.until);
        let shortened = self.shortened && window.duration_ns < Nanos::from(wanted);
        Covers { window, events: self.events, bytes: self.bytes, shortened }
    }

    /// The setting of what is held since some moment.
    fn meta(&self, started: Nanos) -> Meta {
        // The accounts speak of all that was recorded.
        Meta { started, ended: Some(self.until), accounts: Vec::new(), ..self.meta.clone() }
    }

    fn snapshot(&self) -> View {
        let meta = self.meta(self.start.from);
        View { meta, first: self.start.first(), parts: self.parts.iter().cloned().collect() }
    }
}

#[derive(Debug)]
struct View {
    meta: Meta,
    /// What is known where it begins.
    first: Batch,
    parts: Vec<Part>,
}

/// What a [`Window`] held at a moment. Clones share it.
///
/// ```
/// use schedtrace_core::analysis::{self, Options, Sched};
/// use schedtrace_core::flight::{Window, WindowOptions};
/// let snapshot = Window::new(WindowOptions::default())?.snapshot();
/// let report = analysis::run(&mut snapshot.source(), Sched::new(Options::default()))?;
/// assert_eq!(report.window, snapshot.window());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<View>);

impl Snapshot {
    /// A source of it from its beginning, as often as one is wanted. Events that came late are in their places.
    ///
    /// ```
    /// use schedtrace_core::flight::{Window, WindowOptions};
    /// let source = Window::new(WindowOptions::default())?.snapshot().source();
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn source(&self) -> WindowSource {
        WindowSource { view: Arc::clone(&self.0), next: 0 }
    }

    /// From when to when.
    ///
    /// ```
    /// use schedtrace_core::flight::{Window, WindowOptions};
    /// assert_eq!(Window::new(WindowOptions::default())?.snapshot().window().duration_ns.0, 0);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn window(&self) -> event::Window {
        event::Window::new(self.0.meta.started, self.0.meta.ended.unwrap_or_default())
    }

    /// The setting.
    ///
    /// ```
    /// use schedtrace_core::flight::{Window, WindowOptions};
    /// assert!(Window::new(WindowOptions::default())?.snapshot().meta().filters.is_empty());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }
}

/// Reads a [`Snapshot`]: it begins with who is alive and what each task is doing.
#[derive(Clone, Debug)]
pub struct WindowSource {
    view: Arc<View>,
    /// 0 is what is known where it begins.
    next: usize,
}

impl Source for WindowSource {
    fn meta(&self) -> &Meta {
        &self.view.meta
    }

    fn poll(&mut self, _deadline: Instant) -> Result<Poll> {
        let batch = match self.next.checked_sub(1) {
            None => Some(self.view.first.clone()),
            Some(at) => self.view.parts.get(at).map(|part| part.batch(true)),
        };
        self.next += usize::from(batch.is_some());
        Ok(batch.map_or(Poll::End, Poll::Batch))
    }
}

/// A window whose parts go back to it as they are read. What came late comes late.
#[cfg(feature = "trace")]
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) meta: Meta,
    first: Option<Batch>,
    parts: VecDeque<Part>,
    next: Arc<AtomicU64>,
}

#[cfg(feature = "trace")]
impl Iterator for Lent {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let batch = self.parts.pop_front()?.batch(false);
        self.next.fetch_add(1, Ordering::Release);
        Some(batch)
    }
}

#[cfg(feature = "trace")]
impl Drop for Lent {
    fn drop(&mut self) {
        // Whatever became of it, nobody has these parts any more.
        self.next.fetch_add(self.parts.len() as u64, Ordering::Release);
    }
}
