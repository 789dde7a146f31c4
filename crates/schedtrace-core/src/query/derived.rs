//! The derived tables: how their rows come of what the state machine tells.

use hashbrown::HashMap;

use super::producer::{Intervals, Make, Maker, Who};
use super::tables::{
    IrqColumns, IrqRow, PreemptionColumns, PreemptionRow, SliceColumns, SliceRow, StateColumns, StateRow,
    WakeupColumns, WakeupRow,
};
use crate::analysis::states::{
    Cause, CpuRef, Left, Observer, Occupant, Ran, Seen, SleepEnd, Slept, Span, Switched, WaitEnd, Waited,
};
use crate::analysis::{CauseKind, Nested, Served, Service, ThreadState};
use crate::event::{Cpu, Event, Nanos, TaskId, TaskState, Waker};

/// How long something was, unless events are missing in it.
fn dur(from: Nanos, until: Nanos, doubtful: bool) -> Option<u64> {
    (!doubtful).then(|| (until - from).0)
}

/// Whether a run began and ended while it was looked at: what ran when the recording began had begun before.
fn saw_both_ends(ran: &Ran, started: Nanos) -> bool {
    ran.is_whole() && ran.span.from != started
}

/// The letter of a state, as text.
fn letter(state: TaskState) -> &'static str {
    match state.letter() {
        'R' => "R",
        'S' => "S",
        'D' => "D",
        'T' => "T",
        't' => "t",
        'X' => "X",
        'Z' => "Z",
        'I' => "I",
        _ => "P",
    }
}

/// What makes the rows of a table, and what it has to remember for that.
pub(super) struct Made<C, S> {
    maker: Maker<C>,
    memory: S,
}

impl<C, S: Default> From<Maker<C>> for Made<C, S> {
    fn from(maker: Maker<C>) -> Self {
        Self { maker, memory: S::default() }
    }
}

/// Of which intervals a table's rows are made.
macro_rules! made {
    ($($made:ident: $columns:ident of $($of:ident),*;)*) => {$(
        impl Make for $made {
            type Columns = $columns;
            const OF: Intervals = Intervals { $($of: true,)* ..Intervals::NONE };
            fn maker(&mut self) -> &mut Maker<$columns> {
                &mut self.maker
            }
        }
    )*};
}

made! {
    Slices: SliceColumns of runs, idles;
    ThreadStates: StateColumns of runs, waits, sleeps;
    Wakeups: WakeupColumns of waits;
    Preemptions: PreemptionColumns of waits;
    Irqs: IrqColumns of;
}

/// Rows of `sched_slice`; with the last priority on each CPU.
pub(super) type Slices = Made<SliceColumns, HashMap<Cpu, u8>>;

impl Slices {
    fn add(&mut self, task: TaskId, span: &Span, end_state: Option<&str>, both_ends: bool, seen: &Seen<'_>) {
        if !self.maker.wants_time(span.from) || !self.maker.wants_task(task, seen) {
            return;
        }
        let priority = self.memory.get(&span.cpu.cpu).copied();
        let whole = both_ends && !span.doubtful;
        let who = self.maker.who(task, seen);
        let (rows, names) = self.maker.parts();
        rows.columns.push(SliceRow {
            ts: span.from,
            dur: dur(span.from, span.until, span.doubtful),
            cpu: span.cpu.cpu.0,
            utid: who.utid,
            end_state,
            priority,
            tid: who.tid,
            pid: who.pid,
            comm: names.text(who),
            whole,
        });
        rows.added();
    }
}

impl Observer for Slices {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        let end_state = match ran.left {
            Left::Preempted { in_kernel: true } => Some("R+"),
            Left::Preempted { in_kernel: false } | Left::Throttled => Some("R"),
            Left::Slept(state) => Some(letter(state)),
            Left::Died => Some("X"),
            Left::Open => None,
        };
        self.add(ran.task.id, &ran.span, end_state, saw_both_ends(ran, self.maker.started), seen);
    }

    fn idled(&mut self, span: &Span, seen: &Seen<'_>) {
        // The idle task is always runnable.
        let over = !self.maker.at_end;
        let both_ends = over && span.from > self.maker.started;
        self.add(TaskId::idle(span.cpu.cpu), span, over.then_some("R"), both_ends, seen);
    }

    fn switched(&mut self, switched: &Switched, _: &Seen<'_>) {
        self.memory.insert(switched.cpu.cpu, switched.next_prio);
    }
}

/// Rows of `thread_state`.
pub(super) type ThreadStates = Made<StateColumns, ()>;

/// A time in one state.
struct Stretch<'a> {
    task: TaskId,
    from: Nanos,
    until: Nanos,
    /// It is over, and its beginning was seen.
    both_ends: bool,
    doubtful: bool,
    cpu: Option<CpuRef>,
    state: Option<&'a str>,
    reason: ThreadState,
    io_wait: Option<bool>,
    waker: Option<Waker>,
}

impl ThreadStates {
    fn add(&mut self, stretch: &Stretch<'_>, seen: &Seen<'_>) {
        let maker = &mut self.maker;
        if !maker.wants_time(stretch.from) || !maker.wants_task(stretch.task, seen) {
            return;
        }
        let who = maker.who(stretch.task, seen);
        let waker = match stretch.waker {
            Some(Waker::Task(task)) => Some(maker.who(task, seen)),
            _ => None,
        };
        let whole = stretch.both_ends && !stretch.doubtful;
        let (rows, names) = maker.parts();
        rows.columns.push(StateRow {
            ts: stretch.from,
            dur: dur(stretch.from, stretch.until, stretch.doubtful),
            cpu: stretch.cpu.map(|cpu| cpu.cpu.0),
            utid: who.utid,
            state: stretch.state,
            reason: stretch.reason.name(),
            io_wait: stretch.io_wait,
            waker_utid: waker.map(|waker| waker.utid),
            waker_comm: waker.map(|waker| names.text(waker)),
            irq_context: stretch.waker.map(|waker| matches!(waker, Waker::Interrupt(_))),
            tid: who.tid,
            pid: who.pid,
            comm: names.text(who),
            whole,
        });
        rows.added();
    }
}

impl Observer for ThreadStates {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        let stretch = Stretch {
            task: ran.task.id,
            from: ran.span.from,
            until: ran.span.until,
            both_ends: saw_both_ends(ran, self.maker.started),
            doubtful: ran.span.doubtful,
            cpu: Some(ran.span.cpu),
            state: Some("Running"),
            reason: ThreadState::Running,
            io_wait: None,
            waker: None,
        };
        self.add(&stretch, seen);
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        let waker = match wait.cause {
            Cause::Woken(waker) => Some(waker),
            Cause::New(parent) => Some(Waker::Task(parent)),
            Cause::Preempted(_) | Cause::Throttled | Cause::AtStart => None,
        };
        let lost_the_cpu = matches!(wait.cause, Cause::Preempted(_) | Cause::Throttled);
        let stretch = Stretch {
            task: wait.task.id,
            from: wait.from,
            until: wait.until,
            both_ends: wait.is_whole(),
            doubtful: wait.doubtful || wait.end == WaitEnd::Unseen,
            cpu: Some(wait.cpu),
            state: Some(if lost_the_cpu { "R+" } else { "R" }),
            reason: CauseKind::from(wait.cause).into(),
            io_wait: None,
            waker,
        };
        self.add(&stretch, seen);
    }

    fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
        let stretch = Stretch {
            task: slept.task.id,
            from: slept.from,
            until: slept.until,
            both_ends: slept.is_whole(),
            doubtful: slept.doubtful || slept.end == SleepEnd::Unseen,
            cpu: None,
            state: slept.state.map(letter),
            reason: ThreadState::of_sleep(slept.state),
            io_wait: slept.state.map(TaskState::is_io_wait),
            waker: None,
        };
        self.add(&stretch, seen);
    }
}

/// Rows of `wakeup`.
pub(super) type Wakeups = Made<WakeupColumns, ()>;

impl Observer for Wakeups {
    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        let (waker, new) = match wait.cause {
            Cause::Woken(waker) => (waker, false),
            Cause::New(parent) => (Waker::Task(parent), true),
            Cause::Preempted(_) | Cause::Throttled | Cause::AtStart => return,
        };
        let maker = &mut self.maker;
        if !maker.wants_time(wait.from) || !maker.wants_task(wait.task.id, seen) {
            return;
        }
        let doubtful = wait.doubtful || wait.end == WaitEnd::Unseen;
        let who = maker.who(wait.task.id, seen);
        let (by, context) = match waker {
            Waker::Task(task) => (Some(maker.who(task, seen)), None),
            Waker::Interrupt(context) => (None, Some(context.name())),
        };
        let (rows, names) = maker.parts();
        rows.columns.push(WakeupRow {
            ts: wait.from,
            dur: dur(wait.from, wait.until, doubtful),
            cpu: wait.cpu.cpu.0,
            utid: who.utid,
            tid: who.tid,
            pid: who.pid,
            comm: names.text(who),
            waker_utid: by.map(|by| by.utid),
            waker_tid: by.and_then(|by| by.tid),
            waker_pid: by.and_then(|by| by.pid),
            waker_comm: by.map(|by| names.text(by)),
            waker_context: context,
            new,
            prev_cpu: wait.ran_on.map(|cpu| cpu.cpu.0),
            migrated: wait.migrated,
            enqueue_dur: wait.enqueued.map(|at| (at - wait.from).0),
            whole: wait.is_whole() && !doubtful,
        });
        rows.added();
    }
}

/// How a task lost its CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    at: Nanos,
    cpu: Cpu,
    prio: u8,
    by_prio: u8,
    in_kernel: bool,
}

/// Rows of `preemption`; with those who wait to have a CPU again.
pub(super) type Preemptions = Made<PreemptionColumns, HashMap<TaskId, Taken>>;

/// Of so many waiting tasks at once it is known how they lost their CPU.
const MAX_TAKEN: usize = 1 << 19;

impl Observer for Preemptions {
    fn switched(&mut self, switched: &Switched, _: &Seen<'_>) {
        let Left::Preempted { in_kernel } = switched.left else { return };
        if switched.prev.id.is_idle() || self.memory.len() >= MAX_TAKEN {
            return;
        }
        let (at, cpu) = (switched.at, switched.cpu.cpu);
        let taken = Taken { at, cpu, prio: switched.prev_prio, by_prio: switched.next_prio, in_kernel };
        self.memory.insert(switched.prev.id, taken);
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        let Cause::Preempted(by) = wait.cause else { return };
        let open = wait.end == WaitEnd::Open;
        let taken = if open { self.memory.get(&wait.task.id).copied() } else { self.memory.remove(&wait.task.id) };
        // A task that nobody took the CPU from gave it back to itself, or to nobody.
        if by.is_idle() || !self.maker.wants_time(wait.from) || !self.maker.wants_task(wait.task.id, seen) {
            return;
        }
        let taken = taken.filter(|taken| taken.at == wait.from);
        let doubtful = wait.doubtful || wait.end == WaitEnd::Unseen;
        let (who, by): (Who, Who) = (self.maker.who(wait.task.id, seen), self.maker.who(by, seen));
        let first = wait.segments.first().map_or(wait.cpu, |segment| segment.cpu);
        let (rows, names) = self.maker.parts();
        rows.columns.push(PreemptionRow {
            ts: wait.from,
            dur: dur(wait.from, wait.until, doubtful),
            cpu: taken.map_or(first.cpu, |taken| taken.cpu).0,
            utid: who.utid,
            tid: who.tid,
            pid: who.pid,
            comm: names.text(who),
            priority: taken.map(|taken| taken.prio),
            by_utid: by.utid,
            by_tid: by.tid,
            by_pid: by.pid,
            by_comm: names.text(by),
            by_priority: taken.map(|taken| taken.by_prio),
            in_kernel: taken.map(|taken| taken.in_kernel),
            next_cpu: wait.cpu.cpu.0,
            whole: wait.is_whole() && !doubtful,
        });
        rows.added();
    }
}

/// Rows of `irq_slice`; with what each CPU serves.
pub(super) type Irqs = Made<IrqColumns, Nested>;

impl Irqs {
    fn add(&mut self, service: &Service, at: Nanos, seen: &Seen<'_>) {
        let task = match service.interrupted {
            Occupant::Task(task) => Some(task.id),
            Occupant::Idle => Some(TaskId::idle(service.cpu.cpu)),
            Occupant::Unseen => None,
        };
        let wanted = task.is_some_and(|task| self.maker.wants_task(task, seen)) || self.maker.bounds.any_task();
        if !self.maker.wants_time(service.from) || !wanted {
            return;
        }
        let (kind, irq, name) = match service.served {
            Served::Hardirq(irq, name) => ("hardirq", Some(irq), seen.names.text(name)),
            Served::Softirq(vector) => ("softirq", Some(vector.0.into()), vector.name().unwrap_or("")),
            Served::Ipi(ipi) => ("ipi", None, ipi.name().unwrap_or("")),
        };
        let who = task.map(|task| self.maker.who(task, seen));
        let (rows, names) = self.maker.parts();
        rows.columns.push(IrqRow {
            ts: service.from,
            dur: Some((at - service.from).0),
            self_dur: Some(service.self_ns),
            cpu: service.cpu.cpu.0,
            kind,
            irq,
            name,
            utid: who.map(|who| who.utid),
            tid: who.and_then(|who| who.tid),
            comm: who.map(|who| names.text(who)),
        });
        rows.added();
    }
}

impl Observer for Irqs {
    fn switched(&mut self, switched: &Switched, _: &Seen<'_>) {
        self.memory.switched(switched.cpu, switched.at);
    }

    fn happened(&mut self, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
        if let (_, Some(service)) = self.memory.happened(event, cpu, seen) {
            self.add(&service, event.ts, seen);
        }
    }
}
