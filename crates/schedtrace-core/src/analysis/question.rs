//! What reports have in common: a window, what is missing from it, and one state machine that asks all of them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::groups::Gone;
use super::loss::{Completeness, Losses};
use super::states::{Observer, Seen, Slept, States, WaitEnd, Waited};
use super::study::Scope;
use super::{Analysis, Options, Tasks};
use crate::event::{Batch, Kind, Nanos, Window};
use crate::source::Meta;

/// A question about one window, which a [`Study`] asks of the stream: it takes what the state machine finds out, and says
/// what that comes to.
///
/// It is told of everything, also of what lies outside the window or in doubt; [`Scope`] says what counts.
pub trait Question: Observer + Clone {
    /// What the answer is.
    type Answer: Serialize;

    /// A question about a window.
    fn new(scope: &Scope) -> Self;

    /// Takes the setting.
    fn begin(&mut self, meta: &Meta) {
        let _ = meta;
    }

    /// These groups are no more: what was theirs belongs to the others.
    fn fold(&mut self, gone: &Gone) {
        let _ = gone;
    }

    /// The answer, at the end of the window or at any time before. What has not ended was told.
    fn answer(&self, about: &About, seen: &Seen<'_>) -> Self::Answer;

    /// The answer as of now, with what has not ended.
    fn answer_now(&self, about: &About, states: &States) -> Self::Answer {
        let mut question = self.clone();
        states.open(&mut question);
        question.answer(about, &states.seen())
    }
}

/// What every report says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct About {
    /// The stretch of time it speaks of.
    pub window: Window,
    /// Events in the window, per kind.
    pub events: BTreeMap<Kind, u64>,
    /// What is missing.
    pub completeness: Completeness,
}

impl About {
    /// Something per second of the window.
    pub(super) fn per_second(&self, count: u64) -> f64 {
        let seconds = self.window.duration_ns.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    /// Whether events of a kind were seen at all.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.events.contains_key(&kind)
    }
}

/// An answer, and what it speaks of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answered<A> {
    /// The window, what was seen in it, and what is missing.
    #[serde(flatten)]
    pub about: About,
    /// The answer.
    #[serde(flatten)]
    pub answer: A,
}

/// Asks one question, or several at once, of a stream: live or recorded, in one pass and in bounded memory.
///
/// ```
/// use schedtrace_core::analysis::{self, Latency, Options, Study};
/// use schedtrace_core::{MemorySource, Meta};
///
/// let mut source = MemorySource::new(Meta::default(), []);
/// let report = analysis::run(&mut source, Study::<Latency>::new(Options::default()))?;
/// assert_eq!(report.answer.total.latency.summary.count, 0);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Study<Q> {
    options: Options,
    scope: Scope,
    meta: Meta,
    states: States,
    asked: Asked<Q>,
    events: [u64; Kind::COUNT],
    losses: Losses,
}

impl<Q: Question> Default for Study<Q> {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl<Q: Question> Study<Q> {
    /// A study with these options.
    ///
    /// ```
    /// use schedtrace_core::analysis::{Analysis, Latency, Options, Study};
    /// let study = Study::<Latency>::new(Options { top: 5, ..Options::default() });
    /// assert_eq!(study.report().about.completeness.lost_total, 0);
    /// ```
    #[must_use]
    pub fn new(options: Options) -> Self {
        let scope = Scope::new(&options);
        Self::with(Q::new(&scope), scope, options)
    }

    /// The same for a question that was made with what else it needs.
    pub(super) fn with(question: Q, scope: Scope, options: Options) -> Self {
        let states = States::that_forget(Tasks::new(options.by, options.include_recorder));
        Self::over(states, question, scope, options)
    }

    /// The same for a question that asks who has had the CPUs.
    pub(super) fn that_remembers(question: Q, scope: Scope, options: Options) -> Self {
        let states = States::new(Tasks::new(options.by, options.include_recorder));
        Self::over(states, question, scope, options)
    }

    fn over(states: States, question: Q, scope: Scope, options: Options) -> Self {
        Self {
            scope,
            meta: Meta::default(),
            states,
            asked: Asked { question, scope, cut: Cut::default() },
            events: [0; Kind::COUNT],
            losses: Losses::default(),
            options,
        }
    }

    /// The state machine: who the tasks are, and who has the CPUs now.
    ///
    /// ```
    /// use schedtrace_core::analysis::{Latency, Study};
    /// assert_eq!(Study::<Latency>::default().states().started(), None);
    /// ```
    #[must_use]
    pub fn states(&self) -> &States {
        &self.states
    }

    fn window(&self) -> Window {
        let started = self.states.started().unwrap_or_default();
        let until = self.states.now().min(self.scope.until());
        let from = self.scope.from().max(started).min(until.max(started));
        Window::new(from, until.max(from))
    }
}

impl<Q: Question> Analysis for Study<Q> {
    type Report = Answered<Q::Answer>;

    fn begin(&mut self, meta: &Meta) {
        self.states.begin(meta);
        self.asked.question.begin(meta);
        self.meta.filters = meta.filters.clone();
    }

    fn update(&mut self, batch: &Batch) {
        let until = self.scope.until();
        self.states.read(batch);
        self.losses.read(batch, self.scope.from(), until);
        for event in batch.events.iter().take_while(|event| event.ts < until) {
            if event.ts >= self.scope.from() {
                self.events[event.kind.kind() as usize] += 1;
            }
            self.states.event(event, &mut self.asked);
        }
        self.states.advance(if batch.until == Nanos::MAX { batch.until } else { batch.until.min(until) });
        if self.states.crowded() {
            let gone = self.states.fold_groups(|_| 0);
            self.asked.question.fold(&gone);
        }
    }

    fn finish(&mut self, meta: &Meta) {
        if let Some(ended) = meta.ended {
            self.states.advance(ended.min(self.scope.until()));
        }
    }

    fn report(&self) -> Self::Report {
        let mut open = Asked { question: Nobody, scope: self.scope, cut: self.asked.cut };
        self.states.open(&mut open);
        let cut = open.cut;
        let completeness = Completeness {
            filtered: !self.meta.filters.is_empty(),
            recorder_left_out: !self.options.include_recorder && self.states.tasks().has_recorder(),
            censored_waits: cut.censored,
            in_loss: cut.in_loss,
            unseen_starts: cut.unseen_starts,
            ..self.losses.completeness()
        };
        let about = About {
            window: self.window(),
            events: Kind::ALL.into_iter().zip(self.events).filter(|&(_, n)| n > 0).collect(),
            completeness,
        };
        let answer = self.asked.question.answer_now(&about, &self.states);
        Answered { about, answer }
    }
}

/// What no percentile knows of.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    censored: u64,
    in_loss: u64,
    unseen_starts: u64,
}

/// A question, and what is counted whatever it is.
#[derive(Clone, Debug)]
struct Asked<Q> {
    question: Q,
    scope: Scope,
    cut: Cut,
}

/// Asks nothing.
#[derive(Clone, Debug)]
pub(super) struct Nobody;

impl Observer for Nobody {}

impl<Q: Observer> Observer for Asked<Q> {
    fn ran(&mut self, ran: &super::states::Ran, seen: &Seen<'_>) {
        self.question.ran(ran, seen);
    }

    fn idled(&mut self, span: &super::states::Span, seen: &Seen<'_>) {
        self.question.idled(span, seen);
    }

    fn unseen(&mut self, span: &super::states::Span, seen: &Seen<'_>) {
        self.question.unseen(span, seen);
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        if let Some((from, _)) = self.scope.clip_wait(wait.from, wait.until)
            && !seen.tasks.left_out(wait.task)
        {
            let censored = from > wait.from || wait.end == WaitEnd::Open || wait.cut;
            let counted = if wait.doubtful { &mut self.cut.in_loss } else { &mut self.cut.censored };
            *counted += u64::from(wait.doubtful || censored);
        }
        self.question.waited(wait, seen);
    }

    fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
        self.question.slept(slept, seen);
    }

    fn switched(&mut self, switched: &super::states::Switched, seen: &Seen<'_>) {
        self.question.switched(switched, seen);
    }

    fn woken(&mut self, woken: &super::states::Woken, seen: &Seen<'_>) {
        self.question.woken(woken, seen);
    }

    fn migrated(&mut self, migrated: &super::states::Migrated, seen: &Seen<'_>) {
        self.question.migrated(migrated, seen);
    }

    fn happened(&mut self, event: &crate::event::Event, cpu: super::states::CpuRef, seen: &Seen<'_>) {
        self.question.happened(event, cpu, seen);
    }

    fn started_unseen(&mut self, at: Nanos, task: super::states::TaskRef, seen: &Seen<'_>) {
        if self.scope.contains(at) && !seen.tasks.left_out(task) {
            self.cut.unseen_starts += 1;
        }
        self.question.started_unseen(at, task, seen);
    }
}

/// What a wait counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    /// Its whole length is known and lies in the window: a sample.
    Sample(u64),
    /// An edge of the window cuts it off.
    Censored(u64),
    /// Events are missing in it.
    InLoss(u64),
}

impl Scope {
    /// What a wait counts for in this window; none of what is not part of it, or of a task that is left out.
    pub(super) fn wait(&self, wait: &Waited<'_>, seen: &Seen<'_>) -> Option<Counts> {
        if seen.tasks.left_out(wait.task) {
            return None;
        }
        let (from, until) = self.clip_wait(wait.from, wait.until)?;
        let ns = (until - from).0;
        Some(match wait {
            wait if wait.doubtful && (wait.end == WaitEnd::Unseen || !self.include_doubtful) => Counts::InLoss(ns),
            wait if from == wait.from && wait.is_whole() => Counts::Sample(ns),
            _ => Counts::Censored(ns),
        })
    }
}
