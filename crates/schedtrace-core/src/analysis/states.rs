//! The state machine that every analysis stands on: what each thread and each CPU is doing, from the events alone.
//!
//! ```text
//!                     switch out, still runnable
//!            +-----------------------------------------+
//!            v                                         |
//!        waiting  ----------- switch in --------->  running
//!            ^                                         |
//!            |                                         | switch out, asleep       switch out, dead
//!            +------- waking ------  blocked  <--------+------------------------>  dead
//! ```
//!
//! What is not yet known, and what missing events made unknowable, is *unknown*: it is never guessed, never counted
//! twice, and never negative. The rules are those of `kernel/sched/core.c`:
//!
//! - A switch-out of a runnable task begins a wait at once, whatever state it is in.
//! - A waking of a blocked task begins a wait. Who waits already goes on waiting for its first waker.
//! - A waking may come while the task is still on a CPU. It is *held*. If the task's next switch-out sleeps, the kernel may
//!   have taken the task off its queue before the waking (then it waits from the switch-out on), or not (then the
//!   waking had only kept it from an earlier sleep). What comes next tells: in the second case, another waking comes
//!   before the task runs, and the wait begins there. Until then the wait is *tentative*.
//! - The kernel chooses a woken task's CPU after the waking. A migration of a task on no run queue says what it chose;
//!   any other moves the task from one queue to another.
//! - A CPU's first switch tells who had it since the recording began, if nothing else was heard of that task.

mod moves;
mod recall;

use crate::event::{Batch, Context, Cpu, Event, EventKind, Nanos, Switch};
use crate::event::{TaskId, TaskState, Waker, WakeupNew, Waking};
use crate::source::Meta;
use crate::system::Topology;

use super::groups::{Gone, GroupIx};
use super::loss::Doubt;
pub use super::observer::{
    Cause, Left, Migrated, Observer, Ran, Seen, Segment, SleepEnd, Slept, Span, Switched, WaitEnd, Waited, Woken,
};
use super::tasks::NO_SLOT;
pub use super::tasks::{Names, TaskRef, Tasks};
pub use super::timeline::{CpuRef, Cpus, Occupant};

/// So many stretches of one wait are told apart by CPU; of a task that is moved more often, the rest is one stretch.
const MAX_SEGMENTS: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Nothing was heard of it yet.
    #[default]
    Unknown,
    /// Events are missing, so nobody knows what it does.
    Lost,
    Running(CpuRef),
    Waiting(Waiting),
    Blocked(Asleep),
    Dead,
}

/// Since when a task sleeps, and how.
#[derive(Clone, Copy, Debug)]
struct Asleep {
    from: Nanos,
    /// None of a task that slept already when the recording began.
    state: Option<TaskState>,
    /// Where it ran last.
    cpu: CpuRef,
    /// It began before that.
    cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    from: Nanos,
    /// It began before that.
    cut: bool,
    cause: Cause,
    cpu: CpuRef,
    /// Since when on this CPU's queue.
    since: Nanos,
    /// Another waking would show that the wait had not begun before.
    tentative: bool,
    /// When it was put on a queue, if that was told.
    enqueued: Option<Nanos>,
}

#[derive(Debug, Default)]
struct Thread {
    /// Whose state it is: places are reused.
    id: Option<TaskId>,
    state: State,
    /// The last waking that came while it was on a CPU.
    held: Option<Waker>,
    /// Finished parts of the present wait.
    segments: Vec<Segment>,
    /// While a wait is tentative: the sleep that there was instead, if another waking comes.
    asleep: Option<Asleep>,
    /// Where it ran last.
    ran_on: Option<CpuRef>,
}

/// The state of all threads and CPUs.
///
/// Feed it batches in order; it tells an [`Observer`] what happened, when it is over. What is still going on is told
/// by [`open`](Self::open), as often as it is asked for, without changing anything.
///
/// ```
/// use schedtrace_core::analysis::states::{Observer, Ran, Seen, States};
/// use schedtrace_core::{Cpu, Event, EventKind, Nanos, Switch, TaskId, TaskState};
///
/// #[derive(Default)]
/// struct Longest(Nanos);
/// impl Observer for Longest {
///     fn ran(&mut self, ran: &Ran, _: &Seen<'_>) {
///         self.0 = self.0.max(ran.span.until - ran.span.from);
///     }
/// }
///
/// let (mut states, mut longest) = (States::default(), Longest::default());
/// for (ts, prev, next) in [(10, 1, 2), (40, 2, 1)] {
///     let switch = Switch {
///         prev: TaskId(prev), next: TaskId(next), prev_state: TaskState::RUNNING, preempted: true, prev_prio: 120, next_prio: 120,
///     };
///     states.event(&Event { ts: Nanos(ts), cpu: Cpu(0), kind: EventKind::Switch(switch) }, &mut longest);
/// }
/// assert_eq!(longest.0, Nanos(30));
/// ```
#[derive(Debug, Default)]
pub struct States {
    tasks: Tasks,
    cpus: Cpus,
    names: Names,
    threads: Vec<Thread>,
    doubt: Doubt,
    topology: Topology,
    /// Only these CPUs were recorded, sorted; all if empty.
    only: Vec<u16>,
    started: Option<Nanos>,
    now: Nanos,
}

impl States {
    /// The state machine over a task table, which says how tasks are grouped, with a memory of who has had the CPUs.
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { tasks, cpus: Cpus::that_remember(), ..Self::default() }
    }

    /// The same without that memory.
    pub(super) fn that_forget(tasks: Tasks) -> Self {
        Self { tasks, ..Self::default() }
    }

    /// Takes the setting, before the first event.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::States;
    /// # use schedtrace_core::{Meta, Nanos};
    /// let mut states = States::default();
    /// states.begin(&Meta { started: Nanos(500), ..Meta::default() });
    /// assert_eq!(states.started(), Some(Nanos(500)));
    /// ```
    pub fn begin(&mut self, meta: &Meta) {
        self.tasks.set_filters(&meta.filters);
        self.topology = meta.topology.clone();
        self.doubt.begin(meta);
        self.only = meta.filters.cpus.clone();
        self.only.sort_unstable();
        if meta.started > Nanos::ZERO {
            self.start(meta.started);
        }
    }

    /// Takes a batch: identities and losses first, then the events.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::{Observer, States};
    /// # use schedtrace_core::{Batch, Meta, Nanos};
    /// # struct Nobody;
    /// # impl Observer for Nobody {}
    /// # let mut states = States::default();
    /// # states.begin(&Meta { started: Nanos(500), ..Meta::default() });
    /// states.update(&Batch { until: Nanos(900), ..Batch::default() }, &mut Nobody);
    /// assert_eq!(states.now(), Nanos(900));
    /// ```
    pub fn update(&mut self, batch: &Batch, out: &mut impl Observer) {
        self.read(batch);
        for event in &batch.events {
            self.event(event, out);
        }
        self.advance(batch.until);
    }

    /// Takes the identities and losses of a batch.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::States;
    /// # use schedtrace_core::{Batch, Cpu, Task, TaskId};
    /// # let mut states = States::default();
    /// states.read(&Batch { tasks: vec![Task { id: TaskId(7), ..Task::idle(Cpu(0)) }], ..Batch::default() });
    /// assert!(states.tasks().get(TaskId(7)).is_some());
    /// ```
    pub fn read(&mut self, batch: &Batch) {
        self.tasks.read(batch);
        self.names.read(batch);
        self.doubt.read(batch);
        for status in &batch.statuses {
            self.recall(status);
        }
        self.cpus.silence_is_idle &= !self.doubt.of_snapshot();
    }

    /// Nothing that comes is earlier.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::States;
    /// # use schedtrace_core::{Meta, Nanos};
    /// # let mut states = States::default();
    /// # states.begin(&Meta { started: Nanos(500), ..Meta::default() });
    /// states.advance(Nanos(700));
    /// assert_eq!(states.now(), Nanos(700));
    /// ```
    pub fn advance(&mut self, until: Nanos) {
        // The end of a stream may be told as the end of time.
        if until != Nanos::MAX && self.started.is_some() {
            self.now = self.now.max(until);
        }
    }

    /// When the recording began, or its first event came; none as long as neither is known.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::States;
    /// assert_eq!(States::default().started(), None);
    /// ```
    #[must_use]
    pub fn started(&self) -> Option<Nanos> {
        self.started
    }

    /// How far time has come.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::States;
    /// # use schedtrace_core::Nanos;
    /// assert_eq!(States::default().now(), Nanos::ZERO);
    /// ```
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Who the tasks are.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::States;
    /// # use schedtrace_core::TaskId;
    /// assert_eq!(States::default().tasks().who(TaskId(7)).to_string(), "<task 7>");
    /// ```
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The CPUs.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::States;
    /// # use schedtrace_core::Cpu;
    /// assert_eq!(States::default().cpus().on(Cpu(0)), None, "nothing was heard of it");
    /// ```
    #[must_use]
    pub fn cpus(&self) -> &Cpus {
        &self.cpus
    }

    fn start(&mut self, at: Nanos) {
        self.started = Some(at);
        self.now = at;
        let online: Vec<Cpu> = self.topology.cpus.iter().filter(|info| info.online).map(|info| info.cpu).collect();
        for cpu in online {
            self.cpu(cpu);
        }
    }

    /// Takes the next event. One that comes too late counts as of now.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::{Observer, States};
    /// # use schedtrace_core::{Cpu, Event, EventKind, Nanos, TaskId};
    /// # struct Nobody;
    /// # impl Observer for Nobody {}
    /// # let mut states = States::default();
    /// let freed = EventKind::Free { task: TaskId(7) };
    /// states.event(&Event { ts: Nanos(900), cpu: Cpu(0), kind: freed }, &mut Nobody);
    /// assert_eq!(states.now(), Nanos(900));
    /// ```
    pub fn event(&mut self, event: &Event, out: &mut impl Observer) {
        if self.started.is_none() {
            self.start(event.ts);
        }
        self.now = self.now.max(event.ts);
        let Some(cpu) = self.cpu(event.cpu) else { return };
        match event.kind {
            EventKind::Switch(switch) => self.switch(cpu, &switch, out),
            EventKind::Waking(waking) => self.waking(cpu, &waking, out),
            EventKind::WakeupNew(wakeup) => self.wakeup_new(cpu, &wakeup, out),
            EventKind::Migrate(migrate) => self.migrate(&migrate, out),
            EventKind::Snapshot(snapshot) => self.snapshot(cpu, &snapshot),
            EventKind::Free { task } => self.free(task),
            // Who the tasks are comes with the batch; what they do, with switches and wakeups.
            EventKind::Fork(_) | EventKind::Exec(_) | EventKind::Exit(_) | EventKind::Rename { .. } => {}
            _ => {
                match event.kind {
                    EventKind::Wakeup(wakeup) => self.enqueued(wakeup.task),
                    EventKind::HotplugExit(step) => {
                        step.offline(event.cpu).into_iter().for_each(|cpu| self.unplugged(cpu))
                    }
                    _ => {}
                }
                out.happened(event, cpu, &self.seen());
            }
        }
    }

    /// Tells what is going on until now, as far as it is known, without changing anything.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::{Observer, States};
    /// # use schedtrace_core::{Cpu, Meta, Nanos};
    /// # use schedtrace_core::analysis::states::{Seen, Span};
    /// # use schedtrace_core::system::{CpuInfo, Topology};
    /// #[derive(Default)]
    /// struct Unseen(Vec<Span>);
    /// impl Observer for Unseen {
    ///     fn unseen(&mut self, span: &Span, _: &Seen<'_>) {
    ///         self.0.push(*span);
    ///     }
    /// }
    ///
    /// # let mut states = States::default();
    /// # let cpu = CpuInfo { cpu: Cpu(0), core: 0, llc: 0, node: 0, online: true };
    /// # states.begin(&Meta { started: Nanos(500), topology: Topology { cpus: vec![cpu] }, ..Meta::default() });
    /// states.advance(Nanos(900));
    /// let mut unseen = Unseen::default();
    /// states.open(&mut unseen);
    /// assert_eq!((unseen.0[0].from, unseen.0[0].until), (Nanos(500), Nanos(900)), "nobody knows who has had CPU 0");
    /// ```
    pub fn open(&self, out: &mut impl Observer) {
        let seen = self.seen();
        for cpu in self.cpus.watched() {
            let span = self.span(cpu.cpu, cpu.since, self.now);
            match cpu.on {
                Occupant::Task(task) => out.ran(&Ran { task, span, left: Left::Open, cut: cpu.cut }, &seen),
                Occupant::Idle => out.idled(&span, &seen),
                Occupant::Unseen if self.cpus.silent(cpu) => out.idled(&span, &seen),
                Occupant::Unseen => out.unseen(&span, &seen),
            }
        }
        let mut segments = Vec::new();
        for (slot, thread) in self.threads.iter().enumerate() {
            let Some(id) = thread.id else { continue };
            let task = TaskRef { id, slot: slot as u32 };
            match thread.state {
                State::Waiting(waiting) if !waiting.tentative && self.cpus.at(waiting.cpu).watched => {
                    segments.clone_from(&thread.segments);
                    segments.push(Segment { cpu: waiting.cpu, from: waiting.since, until: self.now });
                    out.waited(&self.waited(task, &waiting, waiting.cpu, &segments, WaitEnd::Open), &seen);
                }
                State::Waiting(waiting) if waiting.tentative => {
                    if let Some(asleep) = thread.asleep {
                        out.slept(&self.slept(task, asleep, SleepEnd::Open), &seen);
                    }
                }
                State::Blocked(asleep) => out.slept(&self.slept(task, asleep, SleepEnd::Open), &seen),
                _ => {}
            }
        }
    }

    fn slept(&self, task: TaskRef, asleep: Asleep, end: SleepEnd) -> Slept {
        Slept {
            task,
            cpu: asleep.cpu,
            from: asleep.from,
            until: self.now,
            cut: asleep.cut,
            state: asleep.state,
            end,
            doubtful: end == SleepEnd::Unseen || self.doubt.of_wait(asleep.from, self.now),
        }
    }

    /// Tells of a sleep that is over, if some of it lies in the stream: as of [runs](Self::vacate).
    fn tell_slept(&self, task: TaskRef, asleep: Asleep, end: SleepEnd, out: &mut impl Observer) {
        if !asleep.cut || asleep.from < self.now {
            out.slept(&self.slept(task, asleep, end), &self.seen());
        }
    }

    /// What an observer may look up.
    ///
    /// ```
    /// # use schedtrace_core::analysis::states::States;
    /// # use schedtrace_core::NameId;
    /// assert_eq!(States::default().seen().names.text(NameId(7)), "");
    /// ```
    #[must_use]
    pub fn seen(&self) -> Seen<'_> {
        Seen { tasks: &self.tasks, cpus: &self.cpus, names: &self.names }
    }

    fn span(&self, cpu: CpuRef, from: Nanos, until: Nanos) -> Span {
        Span { cpu, from, until, doubtful: self.doubt.of_run(cpu.cpu, from, until) }
    }

    fn waited<'a>(
        &self,
        task: TaskRef,
        wait: &Waiting,
        cpu: CpuRef,
        segments: &'a [Segment],
        end: WaitEnd,
    ) -> Waited<'a> {
        Waited {
            task,
            cpu,
            from: wait.from,
            until: self.now,
            cut: wait.cut,
            cause: wait.cause,
            segments,
            migrated: segments.len() > 1,
            ran_on: self.threads.get(task.slot as usize).filter(|t| t.id == Some(task.id)).and_then(|t| t.ran_on),
            enqueued: wait.enqueued,
            end,
            doubtful: end == WaitEnd::Unseen || self.doubt.of_wait(wait.from, self.now),
        }
    }

    /// Where a CPU's state is kept; none if there are too many.
    #[inline]
    fn cpu(&mut self, cpu: Cpu) -> Option<CpuRef> {
        if let Some(cpu) = self.cpus.get(cpu) {
            return Some(cpu);
        }
        let watched = self.only.is_empty() || self.only.binary_search(&cpu.0).is_ok();
        let llc = self.topology.get(cpu).map(|info| info.llc);
        let group = self.tasks.join_cpu(cpu, llc);
        self.cpus.add(cpu, watched, group, self.started.unwrap_or_default())
    }

    /// The state of a task; none for idle tasks and those that are too many.
    #[inline]
    fn thread(&mut self, task: TaskRef) -> Option<&mut Thread> {
        let at = task.slot as usize;
        if task.slot == NO_SLOT {
            return None;
        }
        if at >= self.threads.len() {
            self.threads.resize_with(at + 1, Thread::default);
        }
        let thread = &mut self.threads[at];
        if thread.id != Some(task.id) {
            thread.segments.clear();
            (thread.id, thread.state, thread.held) = (Some(task.id), State::Unknown, None);
            (thread.asleep, thread.ran_on) = (None, None);
        }
        Some(thread)
    }

    #[inline]
    fn state(&mut self, task: TaskRef) -> State {
        self.thread(task).map_or(State::Unknown, |thread| thread.state)
    }

    #[inline]
    fn set(&mut self, task: TaskRef, state: State) {
        if let Some(thread) = self.thread(task) {
            thread.state = state;
        }
    }

    #[inline]
    fn begin_wait(&mut self, task: TaskRef, wait: Waiting) {
        if let Some(thread) = self.thread(task) {
            thread.segments.clear();
            thread.state = State::Waiting(wait);
        }
    }

    fn switch(&mut self, cpu: CpuRef, switch: &Switch, out: &mut impl Observer) {
        // No kernel does that, and nobody could say who had the CPU.
        if switch.prev == switch.next {
            return;
        }
        let prev = match self.cpus.at(cpu).on {
            Occupant::Task(task) if task.id == switch.prev => task,
            _ => self.tasks.find(switch.prev),
        };
        let next = self.tasks.find(switch.next);
        let left = match switch {
            _ if switch.prev_ends() => Left::Died,
            _ if switch.prev_runnable() && switch.prev_state.is_throttled() => Left::Throttled,
            _ if switch.prev_runnable() => Left::Preempted { in_kernel: switch.preempted },
            _ => Left::Slept(switch.prev_state),
        };
        let was = self.vacate(cpu, prev, left, out);
        let on = if switch.next.is_idle() { Occupant::Idle } else { Occupant::Task(next) };
        let now = self.now;
        self.cpus.turn(cpu, was, now, on, &self.tasks);
        let (prev_prio, next_prio) = (switch.prev_prio, switch.next_prio);
        out.switched(&Switched { at: now, cpu, prev, next, left, prev_prio, next_prio }, &self.seen());
        if !switch.prev.is_idle() {
            self.leave(cpu, prev, left, switch.next, out);
        }
        if !switch.next.is_idle() {
            self.enter(cpu, next, out);
        }
    }

    /// Tells who had the CPU until now, when `prev` leaves it.
    fn vacate(&mut self, cpu: CpuRef, prev: TaskRef, left: Left, out: &mut impl Observer) -> Occupant {
        let state = self.cpus.at_mut(cpu);
        let fresh = std::mem::replace(&mut state.fresh, false);
        let untold = fresh && matches!(self.state(prev), State::Unknown);
        let state = self.cpus.at(cpu);
        let (since, now) = (state.since, self.now);
        let leaving = if prev.id.is_idle() { Occupant::Idle } else { Occupant::Task(prev) };
        let (was, from) = match state.on {
            on if on == leaving => (on, since),
            Occupant::Task(other) => {
                self.lose(cpu, other);
                (Occupant::Unseen, since)
            }
            // Nothing else was heard of it: it had the CPU all the time, or since it was created.
            Occupant::Unseen if untold => {
                let created = self.tasks.identity(prev).map_or(Nanos::ZERO, |task| task.start);
                (leaving, since.max(created).min(now))
            }
            Occupant::Idle | Occupant::Unseen => (Occupant::Unseen, since),
        };
        if from > since {
            self.cpus.push(cpu, Occupant::Unseen, from, &self.tasks);
        }
        if self.cpus.at(cpu).watched {
            let seen = self.seen();
            if from > since {
                out.unseen(&self.span(cpu, since, from), &seen);
            }
            let span = self.span(cpu, from, now);
            match was {
                // Of one that began before the stream and ended with its first event, nothing lies in it.
                Occupant::Task(_) if self.cpus.at(cpu).cut && from == now => {}
                Occupant::Task(task) => out.ran(&Ran { task, span, left, cut: self.cpus.at(cpu).cut }, &seen),
                Occupant::Idle => out.idled(&span, &seen),
                Occupant::Unseen => out.unseen(&span, &seen),
            }
        }
        was
    }

    /// `task` is off the CPU now.
    fn leave(&mut self, cpu: CpuRef, task: TaskRef, left: Left, next: TaskId, out: &mut impl Observer) {
        self.missed(cpu, task, out);
        let now = self.now;
        let held = self.thread(task).and_then(|thread| thread.held.take());
        if let Some(thread) = self.thread(task) {
            (thread.asleep, thread.ran_on) = (None, Some(cpu));
        }
        let wait =
            |cause, tentative| Waiting { from: now, cut: false, cause, cpu, since: now, tentative, enqueued: None };
        let asleep = |state| Asleep { from: now, state: Some(state), cpu, cut: false };
        match (left, held) {
            (Left::Died, _) => {
                self.set(task, State::Dead);
                self.tasks.end(task);
            }
            (Left::Throttled, _) => self.begin_wait(task, wait(Cause::Throttled, false)),
            (Left::Slept(state), Some(waker)) => {
                self.begin_wait(task, wait(Cause::Woken(waker), true));
                if let Some(thread) = self.thread(task) {
                    thread.asleep = Some(asleep(state));
                }
            }
            (Left::Slept(state), None) => self.set(task, State::Blocked(asleep(state))),
            (Left::Preempted { .. } | Left::Open, _) => self.begin_wait(task, wait(Cause::Preempted(next), false)),
        }
    }

    /// `task` leaves `cpu`, so it ran there: whatever says otherwise lacks events.
    fn missed(&mut self, cpu: CpuRef, task: TaskRef, out: &mut impl Observer) {
        match self.state(task) {
            State::Running(other) if other != cpu => self.desert(other, task),
            State::Waiting(waiting) if !waiting.tentative => {
                self.finish(task, waiting.cpu, &waiting, WaitEnd::Unseen, out)
            }
            State::Blocked(asleep) => self.tell_slept(task, asleep, SleepEnd::Unseen, out),
            State::Dead => self.tasks.revive(task),
            _ => {}
        }
    }

    /// `task` has the CPU now.
    fn enter(&mut self, cpu: CpuRef, task: TaskRef, out: &mut impl Observer) {
        match self.state(task) {
            State::Waiting(waiting) if self.cpus.at(waiting.cpu).watched => {
                self.finish(task, cpu, &waiting, WaitEnd::Ran, out);
            }
            State::Running(other) => {
                if other != cpu {
                    self.desert(other, task);
                }
                self.start_unseen(task, out);
            }
            State::Dead => {
                self.tasks.revive(task);
                self.start_unseen(task, out);
            }
            State::Blocked(asleep) => {
                self.tell_slept(task, asleep, SleepEnd::Unseen, out);
                self.start_unseen(task, out);
            }
            State::Unknown | State::Lost | State::Waiting(_) => self.start_unseen(task, out),
        }
        if let Some(thread) = self.thread(task) {
            (thread.state, thread.held, thread.asleep) = (State::Running(cpu), None, None);
        }
    }

    fn start_unseen(&self, task: TaskRef, out: &mut impl Observer) {
        out.started_unseen(self.now, task, &self.seen());
    }

    /// Tells of a wait that is over, if some of it lies in the stream: as of [runs](Self::vacate).
    fn finish(&mut self, task: TaskRef, cpu: CpuRef, wait: &Waiting, end: WaitEnd, out: &mut impl Observer) {
        let Some(thread) = self.thread(task) else { return };
        let mut segments = std::mem::take(&mut thread.segments);
        // If nobody saw the last move, on whose queue it was is known from where it ran.
        segments.push(Segment { cpu, from: wait.since, until: self.now });
        if !wait.cut || wait.from < self.now {
            out.waited(&self.waited(task, wait, cpu, &segments, end), &self.seen());
        }
        segments.clear();
        if let Some(thread) = self.thread(task) {
            // Its room is used again by the next wait.
            thread.segments = segments;
        }
    }

    fn waking(&mut self, cpu: CpuRef, waking: &Waking, out: &mut impl Observer) {
        if waking.task.is_idle() {
            return;
        }
        let task = self.tasks.find(waking.task);
        let current = match self.cpus.at(cpu).on {
            Occupant::Task(task) if task.id == waking.current => task,
            _ => self.tasks.find(waking.current),
        };
        let Some(queue) = self.cpu(waking.prev_cpu) else { return };
        let (now, context) = (self.now, waking.context);
        let cause = Cause::Woken(waking.waker());
        let (tentative, enqueued) = (false, None);
        let wait = Waiting { from: now, cut: false, cause, cpu: queue, since: now, tentative, enqueued };
        let state = self.state(task);
        let awake = match state {
            State::Running(_) => true,
            // It is just going to sleep or to be preempted, on a CPU that is not known.
            State::Unknown | State::Lost => waking.on_cpu,
            State::Waiting(waiting) => !waiting.tentative && self.cpus.at(waiting.cpu).watched,
            // It has just been switched out, though the kernel may still be busy with that.
            State::Blocked(_) => false,
            State::Dead => return,
        };
        if !awake {
            self.wake_up(task, state, queue, waking.waker(), out);
            self.begin_wait(task, wait);
        } else if let Some(thread) = self.thread(task)
            && !matches!(state, State::Waiting(_))
        {
            thread.held = Some(waking.waker());
        }
        let woken = Woken { at: now, cpu, task, current, context, new: false, awake };
        out.woken(&woken, &self.seen());
    }

    /// Tells of the sleep that ends now, as far as there was one.
    fn wake_up(&mut self, task: TaskRef, state: State, queue: CpuRef, waker: Waker, out: &mut impl Observer) {
        let asleep = match state {
            State::Blocked(asleep) => Some(asleep),
            State::Waiting(_) => self.thread(task).and_then(|thread| thread.asleep.take()),
            // It existed and neither ran nor waited, or the snapshot would have said so.
            State::Unknown if self.cpus.silence_is_idle => {
                let created = self.tasks.identity(task).map_or(Nanos::MAX, |task| task.start);
                let started = self.started.unwrap_or_default();
                (created < started).then_some(Asleep { from: started, state: None, cpu: queue, cut: true })
            }
            _ => None,
        };
        if let Some(asleep) = asleep {
            self.tell_slept(task, asleep, SleepEnd::Woken(waker), out);
        }
    }

    /// The task was put on a queue.
    fn enqueued(&mut self, task: TaskId) {
        let now = self.now;
        let task = self.tasks.find(task);
        if let Some(thread) = self.thread(task)
            && let State::Waiting(waiting) = &mut thread.state
            // Who was preempted or throttled has been on its queue all the time.
            && !matches!(waiting.cause, Cause::Preempted(_) | Cause::Throttled)
            && waiting.enqueued.is_none()
        {
            waiting.enqueued = Some(now);
        }
    }

    fn wakeup_new(&mut self, cpu: CpuRef, wakeup: &WakeupNew, out: &mut impl Observer) {
        if wakeup.task.is_idle() {
            return;
        }
        let task = self.tasks.find(wakeup.task);
        let current = self.tasks.find(wakeup.parent);
        let Some(queue) = self.cpu(wakeup.target_cpu) else { return };
        let now = self.now;
        let awake = matches!(self.state(task), State::Running(_) | State::Waiting(_) | State::Dead);
        if !awake {
            let cause = Cause::New(wakeup.parent);
            let (tentative, enqueued) = (false, Some(now));
            let wait = Waiting { from: now, cut: false, cause, cpu: queue, since: now, tentative, enqueued };
            self.begin_wait(task, wait);
        }
        let woken = Woken { at: now, cpu, task, current, context: Context::Task, new: true, awake };
        out.woken(&woken, &self.seen());
    }

    fn free(&mut self, task: TaskId) {
        if task.is_idle() {
            return;
        }
        let task = self.tasks.find(task);
        if !matches!(self.state(task), State::Running(_)) {
            self.set(task, State::Dead);
            self.tasks.end(task);
        }
    }

    /// Whether there are so many groups that some should be folded.
    pub(crate) fn crowded(&self) -> bool {
        self.tasks.crowded()
    }

    /// Folds ended groups, the ones with the lowest scores.
    pub(super) fn fold_groups(&mut self, score: impl Fn(GroupIx) -> u64) -> Gone {
        let gone = self.tasks.fold_groups(score);
        self.cpus.fold(&gone);
        gone
    }

    /// Gives up all ended groups.
    pub(crate) fn forget_groups(&mut self) {
        let gone = self.tasks.forget_groups();
        self.cpus.fold(&gone);
    }
}
