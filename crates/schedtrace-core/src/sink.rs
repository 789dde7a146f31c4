//! Where batches go: the [`Sink`] trait.

use std::borrow::Cow;

use crate::error::Result;
use crate::event::{Batch, Event, EventFilter, KindFilters};
use crate::source::Meta;

/// Takes batches in order. Only [`batch`](Sink::batch) is required.
///
/// A closure is a sink, and so are `Option` and `Vec` of a sink and `Box<dyn Sink + Send>`, so an optional sink needs no `if`:
///
/// ```
/// use schedtrace_core::{Batch, Sink};
/// let mut switches = 0;
/// let mut sink = Some(|batch: &Batch| switches += batch.events.len());
/// sink.batch(&Batch::default())?;
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
pub trait Sink {
    /// Called once before the first batch.
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        let _ = meta;
        Ok(())
    }

    /// Takes the next stretch of the stream. An error ends this sink, and no other.
    fn batch(&mut self, batch: &Batch) -> Result<()>;

    /// Called once after the last batch, with what is known by then. Not called after an error.
    fn finish(&mut self, meta: &Meta) -> Result<()> {
        let _ = meta;
        Ok(())
    }
}

impl<F: FnMut(&Batch)> Sink for F {
    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self(batch);
        Ok(())
    }
}

macro_rules! each {
    ($($of:tt)*) => {
        $($of)* {
            fn begin(&mut self, meta: &Meta) -> Result<()> {
                self.iter_mut().try_for_each(|sink| sink.begin(meta))
            }
            fn batch(&mut self, batch: &Batch) -> Result<()> {
                self.iter_mut().try_for_each(|sink| sink.batch(batch))
            }
            fn finish(&mut self, meta: &Meta) -> Result<()> {
                self.iter_mut().try_for_each(|sink| sink.finish(meta))
            }
        }
    };
}

each!(impl<S: Sink> Sink for Option<S>);
each!(impl<S: Sink> Sink for Vec<S>);

// Not for every `Box<S>`: a boxed closure is a closure already.
impl Sink for Box<dyn Sink + Send + '_> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        (**self).begin(meta)
    }
    fn batch(&mut self, batch: &Batch) -> Result<()> {
        (**self).batch(batch)
    }
    fn finish(&mut self, meta: &Meta) -> Result<()> {
        (**self).finish(meta)
    }
}

/// What to do when a sink's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Wait for room: a recorder, which must not lose anything. The rings fill meanwhile, and count what they lose.
    Block,
    /// Drop the batch's events and count them as loss of this sink: a view. Identities and losses are carried
    /// over to the next batch, never dropped.
    DropNewest,
}

/// Gives a sink only the events that a filter accepts, and all the rest of each batch.
///
/// ```
/// use schedtrace_core::{Batch, Cpu, Event, Filtered, Hang, Nanos, Sink, TaskId};
/// let mut seen = Vec::new();
/// let mut some = Filtered::new("cpu = 3".parse()?, |batch: &Batch| seen.extend(batch.events.iter().map(|e| e.cpu)));
/// let on = |cpu| Event { ts: Nanos(5), cpu: Cpu(cpu), kind: Hang { task: TaskId(1) }.into() };
/// some.batch(&Batch { events: vec![on(1), on(3)], ..Batch::default() })?;
/// assert_eq!(some.events(), 1);
/// assert_eq!(seen, [Cpu(3)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Filtered<S> {
    by: By,
    sink: S,
    events: u64,
}

#[derive(Debug)]
enum By {
    All(EventFilter),
    Kind(KindFilters),
}

impl By {
    fn learn(&mut self, batch: &Batch) {
        match self {
            Self::All(filter) => filter.learn(batch),
            Self::Kind(filters) => filters.learn(batch),
        }
    }

    fn accepts(&self, event: &Event) -> bool {
        match self {
            Self::All(filter) => filter.accepts(event),
            Self::Kind(filters) => filters.accepts(event),
        }
    }

    /// What the sink is told of the recording: that events of some kinds were chosen is a part of it.
    fn meta<'a>(&self, meta: &'a Meta) -> Cow<'a, Meta> {
        match self {
            Self::Kind(filters) if !filters.is_empty() => {
                let mut meta = meta.clone();
                meta.filters.events.extend(filters.iter().map(|(kind, text)| format!("{kind}: {text}")));
                Cow::Owned(meta)
            }
            _ => Cow::Borrowed(meta),
        }
    }
}

impl<S: Sink> Filtered<S> {
    /// A sink behind a filter.
    ///
    /// ```
    /// use schedtrace_core::{Batch, Filtered};
    /// let sink = Filtered::new("event = irq".parse()?, |_: &Batch| ());
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    pub fn new(filter: EventFilter, sink: S) -> Self {
        Self { by: By::All(filter), sink, events: 0 }
    }

    /// A sink behind filters of some kinds, for a recording of which only so much is wanted: it is told of them in
    /// [`Filters::events`](crate::Filters::events).
    ///
    /// ```
    /// use schedtrace_core::{Batch, Filtered, Kind, KindFilters};
    /// let mut writes = KindFilters::default();
    /// writes.add(Kind::BlockIssue, "rwbs ~ 'W'", |_, _| None)?;
    /// let sink = Filtered::by_kind(writes, |_: &Batch| ());
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    pub fn by_kind(filters: KindFilters, sink: S) -> Self {
        Self { by: By::Kind(filters), sink, events: 0 }
    }

    /// The sink behind it.
    ///
    /// ```
    /// use schedtrace_core::{Batch, Filtered};
    /// let sink = Filtered::new("event = irq".parse()?, |_: &Batch| ());
    /// let everything = sink.into_inner();
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    pub fn into_inner(self) -> S {
        self.sink
    }

    /// How many events it let through.
    ///
    /// ```
    /// # use schedtrace_core::{Batch, Filtered};
    /// # let sink = Filtered::new("event = irq".parse()?, |_: &Batch| ());
    /// assert_eq!(sink.events(), 0);
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    pub fn events(&self) -> u64 {
        self.events
    }
}

impl<S: Sink> Sink for Filtered<S> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.sink.begin(&self.by.meta(meta))
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.by.learn(batch);
        let accepted = |events: &[Event]| events.iter().filter(|event| self.by.accepts(event)).copied().collect();
        let some = Batch {
            until: batch.until,
            events: accepted(&batch.events),
            late: accepted(&batch.late),
            tasks: batch.tasks.clone(),
            cgroups: batch.cgroups.clone(),
            names: batch.names.clone(),
            lost: batch.lost.clone(),
            statuses: batch.statuses.clone(),
        };
        self.events += (some.events.len() + some.late.len()) as u64;
        self.sink.batch(&some)
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.sink.finish(&self.by.meta(meta))
    }
}
