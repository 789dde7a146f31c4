//! The standard study: runs the state machine once, and asks it all questions.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cpu_time::{CpuTime, CpuTimeReport};
use super::groups::GroupIx;
use super::holders::{Holders, HoldersReport};
use super::loss::{Completeness, Losses};
use super::migrations::{Migrations, MigrationsReport};
use super::question::Nobody;
use super::runqueue::{RunQueue, RunQueueReport};
use super::states::{CpuRef, Migrated, Observer, Ran, Seen, Span, States, Switched, TaskRef, Tasks, Waited, Woken};
use super::switches::{Switches, SwitchesReport};
use super::wakeups::{Wakeups, WakeupsReport};
use super::{Analysis, GroupBy, Options};
use crate::event::{Batch, Kind, Nanos, Window};
use crate::source::Meta;
use crate::system::Topology;

/// So many of the worst waits are kept, however many are asked for.
const MAX_WORST: usize = 1000;

/// Everything that [`Sched`] found out about one window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The stretch of time it speaks of.
    pub window: Window,
    /// What its rows are.
    pub by: GroupBy,
    /// Events in the window, per kind.
    pub events: BTreeMap<Kind, u64>,
    /// What is missing.
    pub completeness: Completeness,
    /// How long tasks waited for a CPU, and why.
    pub run_queue: RunQueueReport,
    /// Who held the CPU meanwhile.
    pub holders: HoldersReport,
    /// Who used the CPUs.
    pub cpu_time: CpuTimeReport,
    /// How often the CPUs changed hands.
    pub switches: SwitchesReport,
    /// Who woke whom.
    pub wakeups: WakeupsReport,
    /// How far tasks were moved.
    pub migrations: MigrationsReport,
}

/// What counts: the window, and which rows it goes to.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    from: Nanos,
    until: Nanos,
    /// What began earlier is cut off. Windows that follow one another have it in common.
    floor: Nanos,
    by: GroupBy,
    pub(super) include_doubtful: bool,
    /// So many of the worst waits are kept.
    pub(super) worst: usize,
    /// So many rows are reported.
    top: usize,
}

impl Scope {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            from: options.from.unwrap_or_default(),
            until: options.until.unwrap_or(Nanos::MAX),
            floor: options.from.unwrap_or_default(),
            by: options.by,
            include_doubtful: options.include_doubtful,
            worst: options.top.min(MAX_WORST),
            top: options.top,
        }
    }

    /// How many rows.
    pub(super) fn top(&self) -> usize {
        self.top
    }

    /// Where the window begins.
    pub(super) fn from(&self) -> Nanos {
        self.from
    }

    /// Where it ends.
    pub(super) fn until(&self) -> Nanos {
        self.until
    }

    pub(super) fn contains(&self, at: Nanos) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// The part in the window; none of what touches it at most.
    pub(super) fn clip(&self, from: Nanos, until: Nanos) -> Option<(Nanos, Nanos)> {
        let (from, until) = (from.max(self.from), until.min(self.until));
        (from < until).then_some((from, until))
    }

    /// The part of a wait that counts; none of one that was over before the window. It may have taken no time. One that ends
    /// where the window begins is of this window only if it follows another one, in which that wait was not over yet.
    pub(super) fn clip_wait(&self, from: Nanos, until: Nanos) -> Option<(Nanos, Nanos)> {
        if until < self.from || (until == self.from && from < until && self.floor == self.from) {
            return None;
        }
        let (from, until) = (from.max(self.floor), until.min(self.until));
        (from <= until).then_some((from, until))
    }

    /// The group whose row this goes to, if any.
    pub(super) fn row(&self, task: TaskRef, cpu: CpuRef, seen: &Seen<'_>) -> Option<GroupIx> {
        if seen.tasks.left_out(task) {
            return None;
        }
        match self.by {
            GroupBy::Cpu | GroupBy::Llc => Some(seen.cpus.at(cpu).group),
            GroupBy::Task | GroupBy::Process | GroupBy::Cgroup => Some(seen.tasks.group_of(task)),
        }
    }
}

/// The standard study: why did tasks wait, who held the CPUs, and what else the scheduler did.
///
/// It reads the stream once, in bounded memory, and its report can be asked for at any time, also while the
/// stream goes on.
///
/// ```
/// use schedtrace_core::analysis::{Analysis, GroupBy, Options, Sched};
/// use schedtrace_core::{Batch, Meta};
/// let mut study = Sched::new(Options { by: GroupBy::Process, top: 5, ..Options::default() });
/// study.begin(&Meta::default());
/// study.update(&Batch::default());
/// assert_eq!(study.report().run_queue.total.wait.count, 0);
/// ```
#[derive(Debug)]
pub struct Sched {
    options: Options,
    states: States,
    questions: Questions,
    events: [u64; Kind::COUNT],
    losses: Losses,
    /// Where this window begins, if not where the recording does.
    from: Option<Nanos>,
    /// The recording's filters left something out.
    filtered: bool,
}

impl Default for Sched {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Sched {
    /// A study with these options.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let tasks = Tasks::new(options.by, options.include_recorder);
        let scope = Scope::new(&options);
        Self {
            states: States::new(tasks),
            questions: Questions::new(scope, Topology::default()),
            events: [0; Kind::COUNT],
            losses: Losses::default(),
            from: options.from,
            filtered: false,
            options,
        }
    }

    /// The state machine: who the tasks are, and who has the CPUs now.
    #[must_use]
    pub fn states(&self) -> &States {
        &self.states
    }

    /// The window that a report made now would speak of.
    #[must_use]
    pub fn window(&self) -> Window {
        let started = self.states.started().unwrap_or_default();
        let until = self.states.now().min(self.options.until.unwrap_or(Nanos::MAX));
        let from = self.from.unwrap_or(started).max(started).min(until.max(started));
        let until = until.max(from);
        Window::new(from, until)
    }

    /// Ends the window, and begins another one where it ended. What tasks and CPUs are doing is kept, the numbers are
    /// not: for views that show what happened since they were last drawn.
    ///
    /// A wait that goes on is censored in this window's report, and counts as a whole in the window in which it ends.
    pub fn next_window(&mut self) {
        let at = self.window().until_ns;
        self.states.forget_groups();
        let scope = Scope { from: at, ..self.questions.scope };
        let topology = std::mem::take(&mut self.questions.topology);
        self.questions = Questions::new(scope, topology);
        self.events = [0; Kind::COUNT];
        self.losses = Losses::default();
        self.from = Some(at);
    }

    /// Takes a batch. The questions are not told of what is over before `told_from`: they speak of the window alone, and half of
    /// what is read may lie before it.
    pub(super) fn take(&mut self, batch: &Batch, told_from: Nanos) {
        let from = self.questions.scope.from;
        let until = self.options.until.unwrap_or(Nanos::MAX);
        self.states.read(batch);
        self.losses.read(batch, from, until);
        for event in batch.events.iter().take_while(|event| event.ts < until) {
            // An event that comes too late counts as of now.
            if event.ts.max(self.states.now()) < told_from {
                self.states.event(event, &mut Nobody);
                continue;
            }
            if event.ts >= from {
                self.events[event.kind.kind() as usize] += 1;
            }
            self.states.event(event, &mut self.questions);
        }
        self.states.advance(if batch.until == Nanos::MAX { batch.until } else { batch.until.min(until) });
        if self.states.crowded() {
            self.fold();
        }
    }

    fn completeness(&self, open: &Questions) -> Completeness {
        let (cut, in_loss) = self.questions.run_queue.cut();
        let (cut_open, in_loss_open) = open.run_queue.cut();
        Completeness {
            filtered: self.filtered,
            recorder_left_out: !self.options.include_recorder && self.states.tasks().has_recorder(),
            censored_waits: cut + cut_open,
            in_loss: in_loss + in_loss_open,
            unseen_starts: self.questions.unseen_starts,
            ..self.losses.completeness()
        }
    }

    fn fold(&mut self) {
        let questions = &mut self.questions;
        let gone = self.states.fold_groups(|ix| questions.run_queue.ns(ix).saturating_add(questions.cpu_time.ns(ix)));
        questions.run_queue.fold(&gone);
        questions.holders.fold(&gone);
        questions.cpu_time.fold(&gone);
        questions.switches.fold(&gone);
        questions.wakeups.fold(&gone);
        questions.migrations.fold(&gone);
    }
}

impl Analysis for Sched {
    type Report = Report;

    fn begin(&mut self, meta: &Meta) {
        self.states.begin(meta);
        self.filtered = !meta.filters.is_empty();
        self.questions.topology = meta.topology.clone();
    }

    fn update(&mut self, batch: &Batch) {
        self.take(batch, self.questions.scope.from);
    }

    fn finish(&mut self, meta: &Meta) {
        if let Some(ended) = meta.ended {
            self.states.advance(ended.min(self.options.until.unwrap_or(ended)));
        }
    }

    fn report(&self) -> Report {
        let top = self.options.top;
        let mut open = Questions::new(self.questions.scope, Topology::default());
        self.states.open(&mut open);
        let seen = self.states.seen();
        let of = &self.questions;
        Report {
            window: self.window(),
            by: self.options.by,
            events: Kind::ALL.into_iter().zip(self.events).filter(|&(_, n)| n > 0).collect(),
            completeness: self.completeness(&open),
            run_queue: of.run_queue.report(&open.run_queue, top, &seen),
            holders: of.holders.report(&open.holders, top, &seen),
            cpu_time: of.cpu_time.report(&open.cpu_time, top, &seen),
            switches: of.switches.report(top, &seen),
            wakeups: of.wakeups.report(top, &seen),
            migrations: of.migrations.report(top, &seen),
        }
    }
}

/// All questions, asked of one window.
#[derive(Debug)]
struct Questions {
    scope: Scope,
    topology: Topology,
    run_queue: RunQueue,
    holders: Holders,
    cpu_time: CpuTime,
    switches: Switches,
    wakeups: Wakeups,
    migrations: Migrations,
    unseen_starts: u64,
}

impl Questions {
    fn new(scope: Scope, topology: Topology) -> Self {
        Self {
            scope,
            topology,
            run_queue: RunQueue::default(),
            holders: Holders::default(),
            cpu_time: CpuTime::default(),
            switches: Switches::default(),
            wakeups: Wakeups::default(),
            migrations: Migrations::default(),
            unseen_starts: 0,
        }
    }
}

impl Observer for Questions {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        self.cpu_time.ran(ran, &self.scope, seen);
    }

    fn idled(&mut self, span: &Span, seen: &Seen<'_>) {
        self.cpu_time.idled(span, &self.scope, seen);
    }

    fn unseen(&mut self, span: &Span, _: &Seen<'_>) {
        self.cpu_time.unseen(span, &self.scope);
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        if let Some(row) = self.scope.row(wait.task, wait.cpu, seen)
            && self.run_queue.waited(wait, row, &self.scope, seen)
        {
            self.holders.waited(wait, row, &self.scope, seen);
        }
    }

    fn switched(&mut self, switched: &Switched, seen: &Seen<'_>) {
        self.switches.switched(switched, &self.scope, seen);
    }

    fn woken(&mut self, woken: &Woken, seen: &Seen<'_>) {
        self.wakeups.woken(woken, &self.scope, seen);
    }

    fn migrated(&mut self, migrated: &Migrated, seen: &Seen<'_>) {
        self.migrations.migrated(migrated, &self.topology, &self.scope, seen);
    }

    fn started_unseen(&mut self, at: Nanos, task: TaskRef, seen: &Seen<'_>) {
        if self.scope.contains(at) && !seen.tasks.left_out(task) {
            self.unseen_starts += 1;
        }
    }
}
