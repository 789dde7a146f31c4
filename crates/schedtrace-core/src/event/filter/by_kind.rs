//! A filter for each of some kinds.

use super::{BadFilter, EventFilter};
use crate::event::{Batch, Event, Kind};

/// Conditions that events of some kinds have to meet: those of all other kinds pass.
///
/// ```
/// use schedtrace_core::{Cpu, Event, Hang, Kind, KindFilters, Nanos, TaskId};
/// let mut filters = KindFilters::default();
/// filters.add(Kind::BlockIssue, "rwbs ~ 'W'", |_, _| None)?;
/// let other = Event { ts: Nanos(5), cpu: Cpu(0), kind: Hang { task: TaskId(1) }.into() };
/// assert!(filters.accepts(&other));
/// assert_eq!(filters.iter().collect::<Vec<_>>(), [(Kind::BlockIssue, "rwbs ~ 'W'")]);
/// # Ok::<(), schedtrace_core::BadFilter>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct KindFilters(Vec<Of>);

#[derive(Clone, Debug)]
struct Of {
    kind: Kind,
    text: String,
    filter: EventFilter,
}

/// The same conditions, as they were written.
impl PartialEq for KindFilters {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl KindFilters {
    /// Adds conditions that events of this kind have to meet, as [`EventFilter::read`] reads them, besides those that they
    /// have to meet already.
    ///
    /// # Errors
    ///
    /// If a condition cannot be read.
    ///
    /// ```
    /// # use schedtrace_core::{Kind, KindFilters};
    /// let wrong = KindFilters::default().add(Kind::Switch, "prev_pit != 0", |_, _| None).unwrap_err();
    /// assert!(wrong.why.contains("prev_pid"));
    /// ```
    pub fn add(
        &mut self,
        kind: Kind,
        text: &str,
        disk_name: impl Fn(u32, u32) -> Option<String>,
    ) -> Result<(), BadFilter> {
        let filter = EventFilter::read(text, Some(kind), disk_name)?;
        self.0.push(Of { kind, text: text.to_owned(), filter });
        Ok(())
    }

    /// Whether every event passes.
    ///
    /// ```
    /// assert!(schedtrace_core::KindFilters::default().is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The filters of those kinds that a condition holds for.
    ///
    /// ```
    /// # use schedtrace_core::{Kind, KindFilters};
    /// # let mut filters = KindFilters::default();
    /// filters.add(Kind::Switch, "prev_pid != 0", |_, _| None)?;
    /// assert!(filters.only(|kind| !kind.is_default()).is_empty());
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    #[must_use]
    pub fn only(&self, kinds: impl Fn(Kind) -> bool) -> Self {
        Self(self.0.iter().filter(|of| kinds(of.kind)).cloned().collect())
    }

    /// The kinds, and what has to hold of each, as it was written.
    ///
    /// ```
    /// assert_eq!(schedtrace_core::KindFilters::default().iter().count(), 0);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.0.iter().map(|of| (of.kind, of.text.as_str()))
    }

    /// Takes note of who is called how, before the events of the batch are looked at.
    ///
    /// ```
    /// # use schedtrace_core::{Batch, KindFilters};
    /// KindFilters::default().learn(&Batch::default());
    /// ```
    pub fn learn(&mut self, batch: &Batch) {
        for of in &mut self.0 {
            of.filter.learn(batch);
        }
    }

    /// Whether an event meets what is asked of its kind.
    ///
    /// ```
    /// # use schedtrace_core::{Cpu, Event, Hang, KindFilters, Nanos, TaskId};
    /// let event = Event { ts: Nanos(5), cpu: Cpu(0), kind: Hang { task: TaskId(1) }.into() };
    /// assert!(KindFilters::default().accepts(&event));
    /// ```
    #[must_use]
    pub fn accepts(&self, event: &Event) -> bool {
        let kind = event.kind.kind();
        self.0.iter().filter(|of| of.kind == kind).all(|of| of.filter.accepts(event))
    }
}
