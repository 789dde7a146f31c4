//! What the state machine tells: intervals that are over, and events with the tasks and CPUs they concern.

use super::tasks::{Names, TaskRef, Tasks};
use super::timeline::{CpuRef, Cpus};
use crate::event::{Context, Cpu, Event, Nanos, TaskId, TaskState, Waker};

/// Takes what the state machine found out, in the order in which it became known. All methods default to nothing.
pub trait Observer {
    /// A task had a CPU and has left it.
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        let _ = (ran, seen);
    }
    /// A CPU was idle.
    fn idled(&mut self, span: &Span, seen: &Seen<'_>) {
        let _ = (span, seen);
    }
    /// It is not known what a CPU did.
    fn unseen(&mut self, span: &Span, seen: &Seen<'_>) {
        let _ = (span, seen);
    }
    /// A task waited for a CPU.
    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        let _ = (wait, seen);
    }
    /// A task was asleep.
    fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
        let _ = (slept, seen);
    }
    /// A CPU went from one task to another.
    fn switched(&mut self, switched: &Switched, seen: &Seen<'_>) {
        let _ = (switched, seen);
    }
    /// A task was woken, or began.
    fn woken(&mut self, woken: &Woken, seen: &Seen<'_>) {
        let _ = (woken, seen);
    }
    /// A task moved to another run queue.
    fn migrated(&mut self, migrated: &Migrated, seen: &Seen<'_>) {
        let _ = (migrated, seen);
    }
    /// Something happened on a CPU that changes no task's state: an event of one of the kinds that are declared with their
    /// fields.
    fn happened(&mut self, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
        let _ = (event, cpu, seen);
    }
    /// A task got a CPU although nothing was seen that made it runnable.
    fn started_unseen(&mut self, at: Nanos, task: TaskRef, seen: &Seen<'_>) {
        let _ = (at, task, seen);
    }
}

/// What an observer may look up.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Who the tasks are.
    pub tasks: &'a Tasks,
    /// Who has had the CPUs.
    pub cpus: &'a Cpus,
    /// What the events' names read.
    pub names: &'a Names,
}

/// A stretch of time on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which CPU.
    pub cpu: CpuRef,
    /// The beginning.
    pub from: Nanos,
    /// The end.
    pub until: Nanos,
    /// Switches of this CPU are known to be missing in it.
    pub doubtful: bool,
}

/// A task had a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Who.
    pub task: TaskRef,
    /// Where and when.
    pub span: Span,
    /// How it ended.
    pub left: Left,
    /// It began before the part of the recording that is read: how long it was is not known.
    pub cut: bool,
}

impl Ran {
    /// It ended, and began in the part that is read.
    pub(crate) fn is_whole(&self) -> bool {
        self.left != Left::Open && !self.cut
    }
}

impl Waited<'_> {
    /// It ended with a CPU, and began in the part that is read.
    pub(crate) fn is_whole(&self) -> bool {
        self.end == WaitEnd::Ran && !self.cut
    }
}

impl Slept {
    /// It ended with a waking, and began in the part that is read.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.end, SleepEnd::Woken(_)) && !self.cut
    }
}

/// How a task's time on a CPU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It lost the CPU, and stayed runnable.
    Preempted {
        /// In the midst of kernel code. Otherwise it was on its way back to user space, or it called `sched_yield`:
        /// `sched_switch` does not tell these two apart.
        in_kernel: bool,
    },
    /// Its cgroup had used up its CPU quota: it stayed runnable, and may not run.
    Throttled,
    /// It went to sleep, in this state.
    Slept(TaskState),
    /// Its life ended.
    Died,
    /// It has not ended.
    Open,
}

/// Why a task became runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody woke it.
    Woken(Waker),
    /// It was running, and lost the CPU to this task.
    Preempted(TaskId),
    /// It was running, and its cgroup had used up its CPU quota: it waits for the next period.
    Throttled,
    /// It is new; this task created it.
    New(TaskId),
    /// It was runnable already when the recording began.
    AtStart,
}

/// A task was runnable and had no CPU.
#[derive(Clone, Copy, Debug)]
pub struct Waited<'a> {
    /// Who.
    pub task: TaskRef,
    /// Where it ran in the end, or waits now.
    pub cpu: CpuRef,
    /// When it became runnable; with [`Cause::AtStart`], when the recording began.
    pub from: Nanos,
    /// When it got the CPU, or until when it is known to have waited.
    pub until: Nanos,
    /// It began before `from`, where the recording begins, or the part of it that is read: how long it was is not known.
    pub cut: bool,
    /// Why it became runnable.
    pub cause: Cause,
    /// On whose run queue it was, one after the other, from `from` until `until`.
    pub segments: &'a [Segment],
    /// It changed the run queue after it had been put on one.
    pub migrated: bool,
    /// Where it ran before; none where that was not seen.
    pub ran_on: Option<CpuRef>,
    /// When it was put on a queue, where `sched_wakeup` or `sched_wakeup_new` told: until then the kernel chose a CPU and
    /// waited for its queue. None of who was preempted or throttled, and stayed on one.
    pub enqueued: Option<Nanos>,
    /// How it ended.
    pub end: WaitEnd,
    /// Switches or wakeups are known to be missing in it.
    pub doubtful: bool,
}

/// A part of a wait, on one run queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// On whose.
    pub cpu: CpuRef,
    /// From when on.
    pub from: Nanos,
    /// Until when.
    pub until: Nanos,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// The task got a CPU.
    Ran,
    /// It has not ended.
    Open,
    /// At some time before: the task turned out to have run meanwhile.
    Unseen,
}

/// A task was asleep: neither on a CPU nor on a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slept {
    /// Who.
    pub task: TaskRef,
    /// Where it ran last.
    pub cpu: CpuRef,
    /// When it left the CPU, or when the recording began.
    pub from: Nanos,
    /// When it was woken, or until when it is known to have slept.
    pub until: Nanos,
    /// It began before `from`, where the recording begins, or the part of it that is read: how long it was is not known.
    pub cut: bool,
    /// In which state; none of a task that slept already when the recording began.
    pub state: Option<TaskState>,
    /// How it ended.
    pub end: SleepEnd,
    /// Switches or wakeups are known to be missing in it.
    pub doubtful: bool,
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepEnd {
    /// Somebody woke the task.
    Woken(Waker),
    /// It has not ended.
    Open,
    /// At some time before: the task turned out to have run.
    Unseen,
}

/// A switch, with the tasks' places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switched {
    /// When.
    pub at: Nanos,
    /// Where.
    pub cpu: CpuRef,
    /// Who left.
    pub prev: TaskRef,
    /// Who came.
    pub next: TaskRef,
    /// How `prev` left.
    pub left: Left,
    /// Kernel priority of `prev`, as in [`Switch::prev_prio`](crate::Switch::prev_prio).
    pub prev_prio: u8,
    /// Kernel priority of `next`.
    pub next_prio: u8,
}

/// A wakeup, with the tasks' places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// When.
    pub at: Nanos,
    /// The CPU of the waker.
    pub cpu: CpuRef,
    /// Who was woken.
    pub task: TaskRef,
    /// Who was current where the waking took place: the waker only if `context` is [`Context::Task`].
    pub current: TaskRef,
    /// In which context.
    pub context: Context,
    /// It is a new task's first.
    pub new: bool,
    /// The task was on a CPU, or waited for one already.
    pub awake: bool,
}

/// A migration, with the task's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// When.
    pub at: Nanos,
    /// Who.
    pub task: TaskRef,
    /// From where.
    pub from: Cpu,
    /// To where.
    pub to: Cpu,
    /// The CPU was chosen as part of a wakeup; otherwise the task was moved from queue to queue.
    pub placed: bool,
}
