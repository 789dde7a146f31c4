//! What happened: events, the tasks they speak of, and what is known to be missing.
//!
//! Everything here is plain data and imports nothing else of this crate. Times are
//! `CLOCK_MONOTONIC` nanoseconds ([`Nanos`]), as `bpf_ktime_get_ns()` reads them.

mod choose;
mod field;
mod filter;
mod kinds;
mod loss;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use choose::{EventGroup, Kinds, UnknownKind};
#[cfg(feature = "trace")]
pub(crate) use field::choice;
pub(crate) use field::text;
pub use field::{Address, BlockOp, FieldInfo, FieldType, Ipi, Name, NameId, Policy, Softirq, Values};
pub(crate) use filter::cut;
pub use filter::{BadFilter, Condition, EventFilter, KindFilters, Operator, Pattern, Quantity, Unit};
pub use kinds::*;
pub(crate) use loss::LossCounts;
#[cfg(test)]
pub(crate) use loss::MAX_COUNTS;
pub use loss::{Loss, LossCount, LossPlace, UnknownPlace};

/// A stretch of time: from its beginning up to, but not including, its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its beginning.
    pub from_ns: Nanos,
    /// Its end.
    pub until_ns: Nanos,
    /// Its length.
    pub duration_ns: Nanos,
}

impl Window {
    /// From one moment to another; of no length if that is earlier.
    ///
    /// ```
    /// use schedtrace_core::{Nanos, Window};
    /// assert_eq!(Window::new(Nanos(300), Nanos(500)).duration_ns, Nanos(200));
    /// ```
    #[must_use]
    pub fn new(from_ns: Nanos, until_ns: Nanos) -> Self {
        Self { from_ns, until_ns, duration_ns: until_ns - from_ns }
    }
}

/// A moment, or a span of time, in nanoseconds of `CLOCK_MONOTONIC`.
///
/// ```
/// use schedtrace_core::Nanos;
/// assert_eq!(Nanos(1_500) - Nanos(500), Nanos(1_000));
/// assert_eq!(Nanos(5) - Nanos(7), Nanos(0), "differences saturate");
/// assert_eq!(Nanos(1_234_567).to_string(), "1.23ms");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);
    /// Later than every event.
    pub const MAX: Self = Self(u64::MAX);

    /// The span in seconds.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl std::ops::Sub for Nanos {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add for Nanos {
    type Output = Self;
    fn add(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl From<std::time::Duration> for Nanos {
    fn from(span: std::time::Duration) -> Self {
        Self(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Three significant digits with a unit: `850ns`, `12.3us`, `1.23ms`, `45.0s`.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0;
        if ns < 1_000 {
            return f.pad(&format!("{ns}ns"));
        }
        let (value, unit) = match ns {
            0..999_500 => (ns as f64 / 1e3, "us"),
            999_500..999_500_000 => (ns as f64 / 1e6, "ms"),
            _ => (ns as f64 / 1e9, "s"),
        };
        let digits = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        f.pad(&format!("{value:.digits$}{unit}"))
    }
}

/// The kernel's number of a logical CPU. Numbers may be sparse: never an index into a dense array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cpu(pub u16);

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One ring of the transport, or one table of a trace: whatever delivers events in an order of its own.
///
/// As text, and in documents, it is its number, `lifecycle`, or `system`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ShardId(pub u16);

impl ShardId {
    /// The small ring that carries lifecycle, identity and loss records.
    pub const LIFECYCLE: Self = Self(u16::MAX);
    /// No ring: the recorder itself, which samples what no program records.
    pub const SYSTEM: Self = Self(u16::MAX - 1);

    const NAMES: [(&'static str, Self); 2] = [("lifecycle", Self::LIFECYCLE), ("system", Self::SYSTEM)];
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, named)| named == self) {
            Some((name, _)) => f.pad(name),
            None => self.0.fmt(f),
        }
    }
}

impl From<ShardId> for String {
    fn from(shard: ShardId) -> Self {
        shard.to_string()
    }
}

impl FromStr for ShardId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::NAMES.iter().find(|(name, _)| *name == text) {
            Some((_, named)) => Ok(*named),
            None => text.parse().map(Self),
        }
    }
}

impl TryFrom<String> for ShardId {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// One life of one task, unique per boot and recording.
///
/// PIDs are reused, and so are the kernel's task structures; a `TaskId` is not. The idle task of each
/// CPU has an id of its own that is known without being announced.
///
/// ```
/// use schedtrace_core::{Cpu, TaskId};
/// assert_eq!(TaskId::idle(Cpu(3)).idle_cpu(), Some(Cpu(3)));
/// assert!(!TaskId(7).is_idle());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u32);

impl TaskId {
    const IDLE: u32 = 1 << 31;

    /// The idle task (`swapper/N`) of a CPU.
    #[must_use]
    pub const fn idle(cpu: Cpu) -> Self {
        Self(Self::IDLE | cpu.0 as u32)
    }

    /// Whether this is the idle task of some CPU.
    #[must_use]
    pub const fn is_idle(self) -> bool {
        self.0 & Self::IDLE != 0
    }

    /// The CPU whose idle task this is.
    #[must_use]
    pub const fn idle_cpu(self) -> Option<Cpu> {
        if self.is_idle() { Some(Cpu(self.0 as u16)) } else { None }
    }
}

/// A cgroup v2 directory's id: its inode number, which the kernel calls `kernfs_node::id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupId(pub u64);

/// A task's name, at most 15 bytes (`TASK_COMM_LEN` in the kernel's `include/linux/sched.h`).
///
/// The bytes come from strangers: [`Display`](fmt::Display) replaces control characters and invalid UTF-8.
///
/// ```
/// use schedtrace_core::Comm;
/// assert_eq!(Comm::new("a name longer than fifteen").to_string(), "a name longer t");
/// assert_eq!(Comm::from_bytes(*b"tab\there\0 old...").to_string(), "tab?here");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comm([u8; 16]);

impl Comm {
    /// The first 15 bytes of `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self::from_bytes(bytes)
    }

    /// As the kernel stores it: what follows the first NUL is dropped.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; 16]) -> Self {
        let end = bytes[..15].iter().position(|&b| b == 0).unwrap_or(15);
        bytes[end..].fill(0);
        Self(bytes)
    }

    /// The bytes up to the first NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        &self.0[..end]
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String =
            String::from_utf8_lossy(self.as_bytes()).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        f.pad(&text)
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for Comm {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A task's scheduler state when it left the CPU: the `TASK_*` bits of the kernel's `include/linux/sched.h`, and two that
/// `task_struct::__state` never has.
///
/// ```
/// use schedtrace_core::TaskState;
/// let reads_a_file = TaskState(TaskState::UNINTERRUPTIBLE.0 | TaskState::IO_WAIT.0);
/// assert!(reads_a_file.is_io_wait() && reads_a_file.letter() == 'D');
/// assert!(TaskState::THROTTLED.is_runnable());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskState(pub u16);

impl TaskState {
    /// `TASK_RUNNING`: on a CPU or on a run queue.
    pub const RUNNING: Self = Self(0);
    /// `TASK_INTERRUPTIBLE`: asleep, a signal wakes it.
    pub const INTERRUPTIBLE: Self = Self(1);
    /// `TASK_UNINTERRUPTIBLE`: asleep, mostly for I/O or a lock in the kernel.
    pub const UNINTERRUPTIBLE: Self = Self(2);
    /// `TASK_DEAD`: the last switch-out of its life.
    pub const DEAD: Self = Self(0x80);
    /// Added to a sleeping task's state: it waits for I/O (`task_struct::in_iowait`, which makes idle time `iowait` in
    /// `/proc/stat`).
    pub const IO_WAIT: Self = Self(0x4000);
    /// Added to a runnable task's state: its cgroup has used up its CPU quota (`throttle_cfs_rq` in `kernel/sched/fair.c`).
    pub const THROTTLED: Self = Self(0x10);

    /// Whether the state alone says that the task could go on.
    #[must_use]
    pub const fn is_runnable(self) -> bool {
        self.0 & !Self::THROTTLED.0 == 0
    }

    /// Whether it sleeps for I/O.
    #[must_use]
    pub const fn is_io_wait(self) -> bool {
        self.0 & Self::IO_WAIT.0 != 0
    }

    /// Whether it is runnable, but was kept from the CPU by the quota of its cgroup.
    #[must_use]
    pub const fn is_throttled(self) -> bool {
        self.0 & Self::THROTTLED.0 != 0
    }

    /// Whether this is the last state of a life.
    #[must_use]
    pub const fn is_dead(self) -> bool {
        self.0 & Self::DEAD.0 != 0
    }

    /// The letter that `ps` and the `sched_switch` tracepoint print (`fs/proc/array.c`): `R S D T t X Z P I`.
    #[must_use]
    pub const fn letter(self) -> char {
        // TASK_IDLE: uninterruptible (2) and TASK_NOLOAD (0x400).
        if self.0 & 0x402 == 0x402 {
            return 'I';
        }
        match self.0 & 0xff {
            0 => 'R',
            b if b & 1 != 0 => 'S',
            b if b & 2 != 0 => 'D',
            b if b & 4 != 0 => 'T',
            b if b & 8 != 0 => 't',
            b if b & 0x80 != 0 => 'X',
            0x10 => 'R',
            b if b & 0x20 != 0 => 'Z',
            _ => 'P',
        }
    }
}

/// Something the kernel did, when, and on which CPU. 48 bytes, `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub ts: Nanos,
    /// The CPU on which the kernel did it; where a task was *put* stands in the kind.
    pub cpu: Cpu,
    /// What.
    pub kind: EventKind,
}

/// `sched_switch`: `prev` left the CPU and `next` has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Who left.
    pub prev: TaskId,
    /// Who runs now.
    pub next: TaskId,
    /// The state in which `prev` left. A preempted task may have any state and stays runnable all the same.
    pub prev_state: TaskState,
    /// `preempt` of the tracepoint: the kernel took the CPU away in the midst of kernel code. A preemption on the way
    /// back to user space does not set it, and looks like a `sched_yield`.
    pub preempted: bool,
    /// Kernel priority of `prev`: 0-99 real-time, 100-139 for nice -20..19, 255 for deadline.
    pub prev_prio: u8,
    /// Kernel priority of `next`.
    pub next_prio: u8,
}

impl Switch {
    /// Whether `prev` stayed on a run queue: it was preempted, or it yielded. The kernel counts it in `nivcsw`.
    #[must_use]
    pub const fn prev_runnable(&self) -> bool {
        self.preempted || self.prev_state.is_runnable()
    }

    /// Whether `prev` gave the CPU up to sleep or to end, which the kernel counts in `nvcsw`
    /// (`__schedule()` in `kernel/sched/core.c`).
    #[must_use]
    pub const fn voluntary(&self) -> bool {
        !self.prev_runnable()
    }

    /// Whether this is the last event of `prev`'s life on a CPU.
    #[must_use]
    pub const fn prev_ends(&self) -> bool {
        !self.preempted && self.prev_state.is_dead()
    }
}

/// `sched_waking`: somebody wakes `task`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waking {
    /// Who is woken.
    pub task: TaskId,
    /// The task that was current on the CPU of the event. It is the waker only where `context` is [`Context::Task`].
    pub current: TaskId,
    /// In which context the kernel woke it.
    pub context: Context,
    /// The CPU on which `task` ran last; the target, unless a migration follows before it runs.
    pub prev_cpu: Cpu,
    /// `task` was still on a CPU: the wait begins at its next switch-out, if that one sleeps, and never otherwise.
    pub on_cpu: bool,
    /// Kernel priority of `task`, as in [`Switch::prev_prio`].
    pub prio: u8,
}

impl Waking {
    /// Who did it: the current task, or the interrupt that had interrupted it.
    #[must_use]
    pub const fn waker(&self) -> Waker {
        match self.context {
            Context::Task => Waker::Task(self.current),
            context => Waker::Interrupt(context),
        }
    }
}

/// Who woke a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Waker {
    /// A task.
    Task(TaskId),
    /// An interrupt, whatever task it interrupted.
    Interrupt(Context),
}

/// The context in which kernel code ran, from `preempt_count` (`include/linux/preempt.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Context {
    /// A task.
    Task,
    /// A software interrupt, also in `ksoftirqd`.
    Softirq,
    /// A hardware interrupt.
    Hardirq,
    /// A non-maskable interrupt.
    Nmi,
}

impl Context {
    /// `task`, `softirq`, `hardirq` or `nmi`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Softirq => "softirq",
            Self::Hardirq => "hardirq",
            Self::Nmi => "nmi",
        }
    }
}

/// `sched_wakeup_new`: a task waits for a CPU for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeupNew {
    /// The new task.
    pub task: TaskId,
    /// The task that created it.
    pub parent: TaskId,
    /// Where it waits.
    pub target_cpu: Cpu,
    /// Kernel priority of `task`, as in [`Switch::prev_prio`].
    pub prio: u8,
}

/// `sched_migrate_task`: `task` moves between run queues, or is to wait on another CPU than the one it last ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrate {
    /// Who moves.
    pub task: TaskId,
    /// From which CPU.
    pub from: Cpu,
    /// To which CPU.
    pub to: Cpu,
    /// It is just being woken and on no run queue yet: `to` is where it begins to wait (`try_to_wake_up` in
    /// `kernel/sched/core.c`).
    pub placed: bool,
    /// Kernel priority of `task`, as in [`Switch::prev_prio`].
    pub prio: u8,
}

/// `sched_process_fork`: a task was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Who created it.
    pub parent: TaskId,
    /// The new life.
    pub child: TaskId,
}

/// `sched_process_exec`: a task replaced its program. It takes its thread group's id, whichever thread it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Who.
    pub task: TaskId,
    /// Its thread id before.
    pub old_tid: u32,
}

/// `sched_process_exit`: a task began to exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Who.
    pub task: TaskId,
    /// Whether no thread of its process is left that has not begun to exit (`signal_struct::live` is 0). When the last
    /// two threads exit at once, both may say so.
    pub group_dead: bool,
}

/// What a task was doing when the recording began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Who; the CPU it was on, or whose run queue it was on, is that of the event.
    pub task: TaskId,
    /// It had the CPU; otherwise it was runnable and waited.
    pub running: bool,
}

/// Who a task is, from a moment on. Comes once, and again whenever something of it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which life.
    pub id: TaskId,
    /// From when on this holds.
    pub since: Nanos,
    /// Thread id, in the initial PID namespace.
    pub tid: u32,
    /// Process (thread group) id, in the initial PID namespace; people call it the PID.
    pub tgid: u32,
    /// Process id of the parent.
    pub ppid: u32,
    /// Its name.
    pub comm: Comm,
    /// Its cgroup in the v2 hierarchy.
    pub cgroup: CgroupId,
    /// When it was created (`task_struct::start_time`).
    pub start: Nanos,
    /// A kernel thread, or an idle task.
    pub kernel: bool,
    /// A thread of the process that records: left out of reports unless asked for.
    pub recorder: bool,
}

impl Task {
    /// The idle task of a CPU, which needs no announcement.
    #[must_use]
    pub fn idle(cpu: Cpu) -> Self {
        Self {
            id: TaskId::idle(cpu),
            since: Nanos::ZERO,
            tid: 0,
            tgid: 0,
            ppid: 0,
            comm: Comm::new(&format!("swapper/{cpu}")),
            cgroup: CgroupId(1),
            start: Nanos::ZERO,
            kernel: true,
            recorder: false,
        }
    }
}

/// What a task was doing when the stream came to where a source begins in its midst: so that whoever reads on from there
/// knows what it need not have read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// Who; the idle task of a CPU says what that CPU was doing.
    pub task: TaskId,
    /// Since when.
    pub since: Nanos,
    /// Where it ran, waited, or ran last.
    pub cpu: Cpu,
    /// What.
    pub doing: Doing,
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It has a CPU. If it was woken since it got it: by whom, for then it may not sleep when it leaves the CPU to sleep.
    Running(Option<Waker>),
    /// It waits for a CPU since it was woken.
    Woken(Waker),
    /// It was woken while it ran, and left the CPU to sleep, in this state: it waits, unless another waking comes.
    Waking(Waker, TaskState),
    /// It waits for a CPU since this task took it.
    Preempted(TaskId),
    /// It waits since the CPU quota of its cgroup was used up.
    Throttled,
    /// It waits for a CPU since this task created it.
    New(TaskId),
    /// It waits for a CPU, since before the recording began.
    Waiting,
    /// It sleeps, in this state.
    Asleep(TaskState),
    /// Events are missing: nobody knows.
    Unknown,
}

/// The path of a cgroup, once it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Which.
    pub id: CgroupId,
    /// Below the mount point of the v2 hierarchy: `/`, `/system.slice/ssh.service`.
    pub path: Arc<str>,
}

/// A stretch of the stream, in time order.
///
/// `tasks` and `cgroups` hold for the events of this batch and of those that follow: read them first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Everything before this moment has been delivered; what comes earlier after all is in `late`.
    pub until: Nanos,
    /// Sorted by time, none earlier than the `until` of the batch before.
    pub events: Vec<Event>,
    /// Events that came behind the watermark. Recorders keep them, views may not.
    pub late: Vec<Event>,
    /// Identities that are new or changed.
    pub tasks: Vec<Task>,
    /// Paths of cgroups that were not named before.
    pub cgroups: Vec<Cgroup>,
    /// Names that were not told before.
    pub names: Vec<Name>,
    /// What tasks were doing, where this is the first batch of a part of a recording: they hold before its first event.
    pub statuses: Vec<TaskStatus>,
    /// What is known to be missing.
    pub lost: Vec<Loss>,
}

impl Batch {
    /// Whether it says nothing but how far time has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.late.is_empty()
            && self.tasks.is_empty()
            && self.cgroups.is_empty()
            && self.names.is_empty()
            && self.statuses.is_empty()
            && self.lost.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_small() {
        assert_eq!(std::mem::size_of::<Event>(), 48);
    }

    #[test]
    fn names_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for place in [
            LossPlace::Ring(ShardId(3)),
            LossPlace::Ring(ShardId::LIFECYCLE),
            LossPlace::Nested,
            LossPlace::Decode(ShardId(0)),
            LossPlace::Late,
            LossPlace::Queue("trace".into()),
            LossPlace::RateLimit,
            LossPlace::Elsewhere,
        ] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        assert!("ring:many".parse::<LossPlace>().is_err());
    }

    #[test]
    fn a_preempted_task_is_runnable_whatever_its_state() {
        let mut switch = Switch {
            prev: TaskId(1),
            next: TaskId(2),
            prev_state: TaskState::INTERRUPTIBLE,
            preempted: true,
            prev_prio: 120,
            next_prio: 120,
        };
        assert!(switch.prev_runnable() && !switch.voluntary());
        switch.preempted = false;
        assert!(!switch.prev_runnable() && switch.voluntary());
    }

    #[test]
    fn times_print_with_three_digits() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.00us"),
            (12_345, "12.3us"),
            (999_499, "999us"),
            (999_500, "1.00ms"),
            (99_950_000, "100ms"),
            (2_500_000_000, "2.50s"),
            (120_000_000_000, "120s"),
        ] {
            assert_eq!(Nanos(ns).to_string(), text);
        }
    }
}
