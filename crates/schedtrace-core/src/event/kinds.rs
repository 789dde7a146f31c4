//! The kinds of events: those whose meaning the analyses know, and those that are declared here with their fields.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::field::{Address, BlockOp, Field, FieldInfo, FieldType, Ipi, MAX_FIELDS, NameId, Policy, Softirq, Values};
use super::{Cpu, EventGroup, Exec, Exit, Fork, Migrate, Nanos, Snapshot, Switch, TaskId, WakeupNew, Waking};

/// How an event shows on a time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// A moment.
    Instant,
    /// Something begins that another kind ends.
    Begin,
    /// What began is over.
    End,
    /// Something is over that lasted as long as the field `duration_ns` or `latency_ns` says.
    Span,
    /// A new value of something that goes on: that of its last field.
    Counter,
}

macro_rules! events {
    ($(
        $(#[doc = $doc:literal])+
        $kind:ident = $name:literal in $group:ident, $shape:ident {
            $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty,)*
        }
    )*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $kind {
                $($(#[doc = $field_doc])+ pub $field: $type,)*
            }

            impl From<$kind> for EventKind {
                fn from(event: $kind) -> Self {
                    Self::$kind(event)
                }
            }
        )*

        /// What the kernel did: one variant per kind of event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum EventKind {
            /// A CPU went from one task to another.
            Switch(Switch),
            /// A sleeping task is being woken; comes before its CPU is chosen.
            Waking(Waking),
            /// A new task was put on a run queue for the first time.
            WakeupNew(WakeupNew),
            /// A task was moved to another CPU's run queue.
            Migrate(Migrate),
            /// A task was created.
            Fork(Fork),
            /// A task replaced its program.
            Exec(Exec),
            /// A task began to exit; it still runs until its last switch-out.
            Exit(Exit),
            /// The kernel gave a task's structure back.
            Free {
                /// The life that had ended before.
                task: TaskId,
            },
            /// A task changed its name; its new identity comes in the same [`Batch::tasks`](super::Batch::tasks).
            Rename {
                /// Whose name.
                task: TaskId,
            },
            /// Seen when the recording began: a task that was running or runnable.
            Snapshot(Snapshot),
            $($(#[doc = $doc])+ $kind($kind),)*
        }

        /// The kinds of records, for selecting and counting them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Kind {
            /// [`EventKind::Switch`].
            #[serde(rename = "sched_switch")]
            Switch,
            /// [`EventKind::Waking`].
            #[serde(rename = "sched_waking")]
            Waking,
            /// [`EventKind::WakeupNew`].
            #[serde(rename = "sched_wakeup_new")]
            WakeupNew,
            /// [`EventKind::Migrate`].
            #[serde(rename = "sched_migrate_task")]
            Migrate,
            /// [`EventKind::Fork`].
            #[serde(rename = "sched_process_fork")]
            Fork,
            /// [`EventKind::Exec`].
            #[serde(rename = "sched_process_exec")]
            Exec,
            /// [`EventKind::Exit`].
            #[serde(rename = "sched_process_exit")]
            Exit,
            /// [`EventKind::Free`].
            #[serde(rename = "sched_process_free")]
            Free,
            /// [`EventKind::Rename`].
            #[serde(rename = "task_rename")]
            Rename,
            /// [`EventKind::Snapshot`].
            Snapshot,
            /// A [`Task`](super::Task) record: no event, but it can be lost as one.
            Identity,
            $(
                #[doc = concat!("[`EventKind::", stringify!($kind), "`].")]
                #[serde(rename = $name)]
                $kind,
            )*
        }

        impl Kind {
            /// All of them, in the order of their numbers.
            pub const ALL: [Self; 11 + DECLARED] = [
                Self::Switch,
                Self::Waking,
                Self::WakeupNew,
                Self::Migrate,
                Self::Fork,
                Self::Exec,
                Self::Exit,
                Self::Free,
                Self::Rename,
                Self::Snapshot,
                Self::Identity,
                $(Self::$kind,)*
            ];

            /// The kernel's name of the tracepoint, or ours where there is none.
            ///
            /// ```
            /// use schedtrace_core::Kind;
            /// assert_eq!(Kind::FutexWait.name(), "futex_wait");
            /// ```
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Switch => "sched_switch",
                    Self::Waking => "sched_waking",
                    Self::WakeupNew => "sched_wakeup_new",
                    Self::Migrate => "sched_migrate_task",
                    Self::Fork => "sched_process_fork",
                    Self::Exec => "sched_process_exec",
                    Self::Exit => "sched_process_exit",
                    Self::Free => "sched_process_free",
                    Self::Rename => "task_rename",
                    Self::Snapshot => "snapshot",
                    Self::Identity => "identity",
                    $(Self::$kind => $name,)*
                }
            }

            /// What it has to do with.
            ///
            /// ```
            /// use schedtrace_core::{EventGroup, Kind};
            /// assert_eq!(Kind::SoftirqEntry.group(), EventGroup::Irq);
            /// ```
            #[must_use]
            pub const fn group(self) -> EventGroup {
                match self {
                    $(Self::$kind => EventGroup::$group,)*
                    _ => EventGroup::Sched,
                }
            }

            /// How it shows on a time line.
            ///
            /// ```
            /// use schedtrace_core::{Kind, Shape};
            /// assert_eq!(Kind::FutexWait.shape(), Shape::Span);
            /// ```
            #[must_use]
            pub const fn shape(self) -> Shape {
                match self {
                    $(Self::$kind => Shape::$shape,)*
                    _ => Shape::Instant,
                }
            }

            /// The fields of its events, which are also the columns of its table. Empty for those kinds whose structs the
            /// analyses know, from `sched_switch` to `snapshot`.
            ///
            /// ```
            /// use schedtrace_core::Kind;
            /// let fields: Vec<_> = Kind::FutexWait.fields().iter().map(|field| field.name).collect();
            /// assert_eq!(fields, ["task", "address", "duration_ns", "result"]);
            /// ```
            #[must_use]
            pub const fn fields(self) -> &'static [FieldInfo] {
                match self {
                    $(Self::$kind => {
                        const FIELDS: &[FieldInfo] = &[
                            $(FieldInfo {
                                name: stringify!($field),
                                ty: <$type as Field>::TYPE,
                                about: concat!($($field_doc),+).trim_ascii(),
                            },)*
                        ];
                        FIELDS
                    })*
                    _ => &[],
                }
            }

            /// What its events say, in a sentence or two.
            ///
            /// ```
            /// use schedtrace_core::Kind;
            /// assert!(Kind::Hang.about().contains("hung"));
            /// ```
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    Self::Switch => "A CPU goes from one task to another.",
                    Self::Waking => "A sleeping task is being woken; its CPU is not chosen yet.",
                    Self::WakeupNew => "A new task is put on a run queue for the first time.",
                    Self::Migrate => "A task is moved to another CPU's run queue.",
                    Self::Fork => "A task is created.",
                    Self::Exec => "A task replaces its program.",
                    Self::Exit => "A task begins to exit.",
                    Self::Free => "The kernel gives a task's structure back.",
                    Self::Rename => "A task changes its name.",
                    Self::Snapshot => "What a task was doing when the recording began.",
                    Self::Identity => "Who a task is.",
                    $(Self::$kind => concat!($($doc),+).trim_ascii(),)*
                }
            }

            /// Those that are declared with their fields.
            #[cfg_attr(not(feature = "trace"), allow(dead_code, reason = "each has a table"))]
            pub(crate) const DECLARED: [Self; DECLARED] = [$(Self::$kind,)*];
        }

        /// How many kinds are declared with their fields.
        const DECLARED: usize = [$($name),*].len();

        impl HotplugExit {
    /// The CPU that is off line after this step, which the CPU `by` has done, if one is: the last steps that take a CPU down,
    /// from `CPUHP_TEARDOWN_CPU` on, are done by another one (`kernel/cpu.c`). It is so until something happens on it again.
    ///
    /// ```
    /// use schedtrace_core::{Cpu, HotplugExit};
    /// let step = HotplugExit { target_cpu: Cpu(7), state: 87, step: 145, result: 0 };
    /// assert_eq!((step.offline(Cpu(0)), step.offline(Cpu(7))), (Some(Cpu(7)), None));
    /// ```
    #[must_use]
    pub fn offline(&self, by: Cpu) -> Option<Cpu> {
        (self.result == 0 && self.state < self.step && by != self.target_cpu).then_some(self.target_cpu)
    }
}

impl EventKind {
            /// Which kind it is.
            ///
            /// ```
            /// use schedtrace_core::{EventKind, Hang, Kind, TaskId};
            /// assert_eq!(EventKind::Hang(Hang { task: TaskId(7) }).kind(), Kind::Hang);
            /// ```
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    Self::Switch(_) => Kind::Switch,
                    Self::Waking(_) => Kind::Waking,
                    Self::WakeupNew(_) => Kind::WakeupNew,
                    Self::Migrate(_) => Kind::Migrate,
                    Self::Fork(_) => Kind::Fork,
                    Self::Exec(_) => Kind::Exec,
                    Self::Exit(_) => Kind::Exit,
                    Self::Free { .. } => Kind::Free,
                    Self::Rename { .. } => Kind::Rename,
                    Self::Snapshot(_) => Kind::Snapshot,
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// The values of its fields, as [`Kind::fields`] lists them; none for those that list none.
            ///
            /// ```
            /// use schedtrace_core::{EventKind, Hang, TaskId};
            /// assert_eq!(*EventKind::Hang(Hang { task: TaskId(7) }).values(), [7]);
            /// ```
            #[must_use]
            pub fn values(&self) -> Values {
                let mut all = Values { values: [0; MAX_FIELDS], len: 0 };
                match self {
                    $(Self::$kind(_event) => {
                        $(
                            all.values[usize::from(all.len)] = _event.$field.to_value();
                            all.len += 1;
                        )*
                    })*
                    _ => {}
                }
                all
            }

            /// The event of a kind with these values; none where a value is none of its field's.
            #[cfg_attr(not(any(feature = "live", feature = "trace")), allow(dead_code, reason = "for what is sampled or stored"))]
            pub(crate) fn from_values(kind: Kind, values: &[u64]) -> Option<Self> {
                let mut _values = values.iter().copied();
                match kind {
                    $(Kind::$kind => Some(Self::$kind($kind {
                        $($field: <$type as Field>::from_value(_values.next()?)?,)*
                    })),)*
                    _ => None,
                }
            }
        }
    };
}

events! {
    /// `sched_wakeup`: the task is on a run queue again. Its wait began at `sched_waking`, which also names the waker.
    Wakeup = "sched_wakeup" in Sched, Instant {
        /// Who was woken.
        task: TaskId,
        /// The CPU on whose run queue it is.
        target_cpu: Cpu,
        /// Its kernel priority, as in `sched_switch`.
        prio: u8,
    }
    /// `sched_process_wait`: a task looks for children that ended.
    Wait = "sched_process_wait" in Sched, Instant {
        /// Who waits.
        task: TaskId,
        /// The child that it wants, in the initial PID namespace; 0 for any.
        pid: u32,
    }
    /// `sched_process_hang`: a task has not left uninterruptible sleep for so long that the kernel calls it hung
    /// (`kernel/hung_task.c`; 120 seconds, unless told otherwise).
    Hang = "sched_process_hang" in Sched, Instant {
        /// Who is hung.
        task: TaskId,
    }
    /// A priority or a policy was set by a system call: setpriority, sched_setscheduler, sched_setparam, sched_setattr.
    PrioChange = "sched_prio_change" in Sched, Instant {
        /// Who set it.
        task: TaskId,
        /// Of which thread, by the number it was asked for; 0 for a whole process group or user.
        tid: u32,
        /// The kernel priority since: 0-99 real-time, 100-139 for nice -20..19, 255 for deadline.
        prio: u8,
        /// The policy since; 255 for a whole process group or user.
        policy: Policy,
    }
    /// `sched_pi_setprio`: a task holds a lock for which another one waits, and is lent that one's priority, or gives it back.
    PiSetprio = "sched_pi_setprio" in Sched, Instant {
        /// Who holds the lock.
        task: TaskId,
        /// The thread that waits; 0 where the loan is taken back.
        booster_tid: u32,
        /// Its kernel priority before.
        old_prio: u8,
        /// Its kernel priority since.
        new_prio: u8,
    }

    /// `irq_handler_entry`: a device's interrupt is handled from here on.
    IrqEntry = "irq_handler_entry" in Irq, Begin {
        /// The number of the interrupt.
        irq: u32,
        /// Who handles it, as in /proc/interrupts.
        action: NameId,
    }
    /// `irq_handler_exit`: the handler is done.
    IrqExit = "irq_handler_exit" in Irq, End {
        /// The number of the interrupt.
        irq: u32,
        /// Whether it was this handler's.
        handled: bool,
    }
    /// `softirq_entry`: a software interrupt is served from here on, after an interrupt or in `ksoftirqd`.
    SoftirqEntry = "softirq_entry" in Irq, Begin {
        /// Which.
        vector: Softirq,
    }
    /// `softirq_exit`: it was served.
    SoftirqExit = "softirq_exit" in Irq, End {
        /// Which.
        vector: Softirq,
    }
    /// `softirq_raise`: it is asked for on this CPU.
    SoftirqRaise = "softirq_raise" in Irq, Instant {
        /// Which.
        vector: Softirq,
    }
    /// `ipi_send_cpu`, `ipi_send_cpumask`: an interrupt goes to other CPUs.
    IpiSend = "ipi_send" in Irq, Instant {
        /// The function that they are to run; none where they are only to reschedule.
        callback: NameId,
        /// The CPU it goes to, or the first of them.
        target_cpu: Cpu,
        /// To how many it goes.
        targets: u32,
    }
    /// `reschedule_entry`, `call_function_entry`, `call_function_single_entry` of x86: such an interrupt is handled.
    IpiEntry = "ipi_entry" in Irq, Begin {
        /// What it is for.
        ipi: Ipi,
    }
    /// `reschedule_exit` and so on: it was handled.
    IpiExit = "ipi_exit" in Irq, End {
        /// What it was for.
        ipi: Ipi,
    }

    /// `cpu_frequency`: the frequency of a CPU was set.
    CpuFrequency = "cpu_frequency" in Cpu, Counter {
        /// Whose.
        target_cpu: Cpu,
        /// In kilohertz.
        frequency_khz: u32,
    }
    /// `cpu_idle`: a CPU enters an idle state, or leaves it.
    CpuIdle = "cpu_idle" in Cpu, Counter {
        /// Whose.
        target_cpu: Cpu,
        /// The state's number in `/sys/devices/system/cpu/cpuN/cpuidle`; -1 where it is left.
        state: i32,
    }
    /// `cpuhp_enter`, `cpuhp_multi_enter`: a step of taking a CPU up or down begins.
    HotplugEnter = "cpuhp_enter" in Cpu, Begin {
        /// Whose.
        target_cpu: Cpu,
        /// The state that it is to reach: `enum cpuhp_state` of `include/linux/cpuhotplug.h`.
        target_state: i32,
        /// The state whose step this is.
        step: i32,
        /// The function of the step.
        function: NameId,
    }
    /// `cpuhp_exit`: the step is done.
    HotplugExit = "cpuhp_exit" in Cpu, End {
        /// Whose.
        target_cpu: Cpu,
        /// The state that it is in.
        state: i32,
        /// The state whose step this was.
        step: i32,
        /// 0, or a negative errno.
        result: i32,
    }

    /// `block_rq_insert`: a request is given to the I/O scheduler.
    BlockInsert = "block_rq_insert" in Block, Instant {
        /// Who was current: who wants it done, or a kernel thread on its behalf.
        task: TaskId,
        /// The disk.
        device: NameId,
        /// Where it begins, in sectors of 512 bytes.
        sector: u64,
        /// How much.
        size_bytes: u32,
        /// What.
        operation: BlockOp,
    }
    /// `block_rq_issue`: a request is given to the device.
    BlockIssue = "block_rq_issue" in Block, Instant {
        /// Who was current.
        task: TaskId,
        /// The disk.
        device: NameId,
        /// Where it begins, in sectors of 512 bytes.
        sector: u64,
        /// How much.
        size_bytes: u32,
        /// What.
        operation: BlockOp,
    }
    /// `block_rq_complete`: the device has done it, or a part of it.
    BlockComplete = "block_rq_complete" in Block, Span {
        /// Who brought it as far as it was seen first.
        task: TaskId,
        /// The disk.
        device: NameId,
        /// How much.
        size_bytes: u32,
        /// What.
        operation: BlockOp,
        /// 0, or how it failed: `BLK_STS_*` of `include/linux/blk_types.h`.
        status: u8,
        /// Since it was issued.
        latency_ns: Nanos,
    }

    /// A call of futex(2) that may wait is over.
    FutexWait = "futex_wait" in Futex, Span {
        /// Who waited.
        task: TaskId,
        /// The address in its process: whoever wakes there woke it.
        address: Address,
        /// How long the call took.
        duration_ns: Nanos,
        /// 0 or more where it was woken; a negative errno where not: -110 after its time, -11 where the value was another
        /// one, -4 for a signal.
        result: i32,
    }
    /// A call of futex(2) that wakes is over.
    FutexWake = "futex_wake" in Futex, Instant {
        /// Who woke.
        task: TaskId,
        /// The address in its process.
        address: Address,
        /// How many it woke or moved to another futex.
        woken: i32,
    }

    /// A system call failed. Calls that the kernel makes again by itself are none.
    SyscallFailed = "syscall_failed" in Syscalls, Instant {
        /// Whose.
        task: TaskId,
        /// The call's number on this machine.
        number: u32,
        /// `errno(3)`.
        errno: u32,
    }
    /// A system call whose number was chosen is over.
    Syscall = "syscall" in Syscalls, Span {
        /// Whose.
        task: TaskId,
        /// The call's number on this machine.
        number: u32,
        /// What it returned; a negative errno where it failed.
        result: i64,
        /// How long it took.
        duration_ns: Nanos,
    }

    /// A task has other users or capabilities since: by a system call (setuid and its kin, capset), or by a program whose
    /// file gives them.
    CredChange = "cred_change" in Process, Instant {
        /// Whose.
        task: TaskId,
        /// The thread that is its parent; `tasks.ppid` leads on from there.
        parent_tid: u32,
        /// Its user.
        uid: u32,
        /// The user whose rights it has.
        euid: u32,
        /// Its effective capabilities, as bits (`capabilities(7)`).
        capabilities: Address,
    }
    /// `workqueue_execute_start`: a kernel thread begins a piece of work.
    WorkStart = "workqueue_execute_start" in Process, Begin {
        /// The thread.
        task: TaskId,
        /// The function.
        function: NameId,
    }
    /// `workqueue_execute_end`: it is done.
    WorkEnd = "workqueue_execute_end" in Process, End {
        /// The thread.
        task: TaskId,
        /// The function.
        function: NameId,
    }
    /// `mm_vmscan_direct_reclaim_begin`: a task that wants memory has to look for some itself.
    ReclaimBegin = "mm_vmscan_direct_reclaim_begin" in Process, Begin {
        /// Who.
        task: TaskId,
        /// It wants 2^order pages.
        order: u32,
    }
    /// `mm_vmscan_direct_reclaim_end`: it goes on.
    ReclaimEnd = "mm_vmscan_direct_reclaim_end" in Process, End {
        /// Who.
        task: TaskId,
        /// How many pages it found.
        pages: u64,
    }
    /// `mark_victim`: a process is to die for want of memory.
    OomKill = "oom_kill" in Process, Instant {
        /// Who wanted memory.
        task: TaskId,
        /// The process that dies.
        victim_pid: u32,
    }
    /// A page had to be read from a disk (`PERF_COUNT_SW_PAGE_FAULTS_MAJ`); told once it is there.
    MajorFault = "major_fault" in Process, Instant {
        /// Who wanted it.
        task: TaskId,
        /// The address.
        address: Address,
    }

    /// `scx_bpf_dsq_insert`: a scheduler puts a task into a dispatch queue (DSQ).
    ScxInsert = "scx_dsq_insert" in SchedExt, Instant {
        /// Who.
        task: TaskId,
        /// The queue; the kernel's own have bit 63 (`SCX_DSQ_*` of `kernel/sched/ext.c`).
        dsq_id: Address,
        /// How long it may run then; 4,294,967,295 for that and more, also without limit.
        slice_ns: u32,
        /// Its place in a queue that is ordered by virtual time; 0 in others.
        vtime: u64,
    }
    /// A task that was in a dispatch queue gets a CPU.
    ScxDispatch = "scx_dispatch" in SchedExt, Span {
        /// Who.
        task: TaskId,
        /// The queue.
        dsq_id: Address,
        /// Since it was put there.
        latency_ns: Nanos,
        /// How many are left in the queue: 65,535 for that and more, 0 where the kernel does not say.
        depth: u16,
        /// Its layer, where scx_layered schedules; 65,535 where not.
        layer: u16,
    }
    /// `scx_bpf_dsq_move_to_local`: a scheduler takes from a dispatch queue for this CPU.
    ScxMove = "scx_dsq_move" in SchedExt, Instant {
        /// The queue.
        dsq_id: Address,
        /// Whether there was one to take.
        moved: bool,
    }
    /// `scx_bpf_cpuperf_set`: a scheduler sets how fast a CPU is to be.
    ScxCpuperf = "sched_cpu_perf_set" in SchedExt, Counter {
        /// Whose.
        target_cpu: Cpu,
        /// From 0 to 1024 (`SCX_CPUPERF_ONE`).
        performance: u32,
    }
    /// A scheduler was loaded. Seen in `/sys/kernel/sched_ext`, up to a second later.
    ScxLoad = "scx_load" in SchedExt, Instant {
        /// Its name.
        scheduler: NameId,
    }
    /// A scheduler is gone. Seen in `/sys/kernel/sched_ext`, up to a second later.
    ScxUnload = "scx_unload" in SchedExt, Instant {
        /// Its name.
        scheduler: NameId,
    }

    /// The recording began.
    TraceStarted = "trace_started" in System, Instant {
        /// The process that records.
        pid: u32,
    }
    /// The recording ended.
    TraceStopped = "trace_stopped" in System, Instant {
        /// The process that records.
        pid: u32,
    }
    /// A number of `/proc/stat`, or of `/proc/vmstat`: times in ticks of `sysconf(_SC_CLK_TCK)`, and counts, since the start
    /// of the machine.
    SystemStat = "system_stat" in System, Counter {
        /// What: `cpu0.user`, `ctxt`, `procs_running`, `pgfault`.
        metric: NameId,
        /// How much.
        value: i64,
    }
    /// A number of `/proc/meminfo`, in kibibytes.
    Meminfo = "meminfo" in System, Counter {
        /// What: `MemAvailable`.
        metric: NameId,
        /// How much.
        value: i64,
    }
    /// A number of `/proc/loadavg`: loads in hundredths, and counts of tasks.
    Loadavg = "loadavg" in System, Counter {
        /// What: `load1`, `load5`, `load15`, `runnable`, `tasks`.
        metric: NameId,
        /// How much.
        value: i64,
    }
    /// A number of `/proc/pressure`, in microseconds since the start of the machine.
    Pressure = "pressure" in System, Counter {
        /// What: `cpu.some`, `io.full`.
        metric: NameId,
        /// How much.
        value: i64,
    }
    /// A number of `/proc/net/dev`, since the start of the machine.
    NetDev = "net_dev" in System, Counter {
        /// What: `eth0.rx_bytes`.
        metric: NameId,
        /// How much.
        value: i64,
    }
    /// A number of `/proc/schedstat` (`Documentation/scheduler/sched-stats.rst`), since the start of the machine.
    SchedStats = "sched_stats" in System, Counter {
        /// What: `cpu0.running_ns`, `cpu0.waiting_ns`, `cpu0.timeslices`.
        metric: NameId,
        /// How much.
        value: i64,
    }
    /// What the recorder itself takes.
    RecorderStat = "recorder_stat" in System, Counter {
        /// What: `user_ns` and `system_ns` since its start, `resident_bytes`.
        metric: NameId,
        /// How much.
        value: i64,
    }
}

impl EventKind {
    /// The task that an event of a declared kind is about: its first field, where that is one.
    ///
    /// ```
    /// use schedtrace_core::{EventKind, Hang, SoftirqEntry, Softirq, TaskId};
    /// assert_eq!(EventKind::from(Hang { task: TaskId(7) }).task(), Some(TaskId(7)));
    /// assert_eq!(EventKind::from(SoftirqEntry { vector: Softirq(1) }).task(), None);
    /// ```
    #[must_use]
    pub fn task(&self) -> Option<TaskId> {
        let is_task = self.kind().fields().first().is_some_and(|field| field.ty == FieldType::Task);
        self.values().first().filter(|_| is_task).map(|&id| TaskId(id as u32))
    }
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether it is recorded unless something else is asked for: what the scheduler does and who the tasks are, and which
    /// CPUs go off line, since from there nothing is heard.
    ///
    /// ```
    /// use schedtrace_core::Kind;
    /// assert!(Kind::Switch.is_default() && Kind::HotplugExit.is_default() && !Kind::SoftirqEntry.is_default());
    /// ```
    #[must_use]
    pub const fn is_default(self) -> bool {
        (self as u8) <= Self::Rename as u8 || matches!(self, Self::HotplugExit)
    }

    /// Whether it comes from the recorder itself, which looks at files of the kernel's: no program in the kernel records it,
    /// and none of it can be lost on the way.
    ///
    /// ```
    /// use schedtrace_core::Kind;
    /// assert!(Kind::Meminfo.is_sampled() && !Kind::Switch.is_sampled());
    /// ```
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self as u8 >= Self::ScxLoad as u8
    }

    /// All that can be asked for.
    ///
    /// ```
    /// use schedtrace_core::Kind;
    /// assert!(Kind::selectable().all(|kind| kind.is_selectable()));
    /// ```
    pub fn selectable() -> impl Iterator<Item = Self> + Clone {
        Self::ALL.into_iter().filter(|kind| kind.is_selectable())
    }

    /// Whether it can be asked for: whatever happens does not include identities, and what is seen once at the beginning.
    ///
    /// ```
    /// use schedtrace_core::Kind;
    /// assert!(!Kind::Snapshot.is_selectable());
    /// ```
    #[must_use]
    pub const fn is_selectable(self) -> bool {
        !matches!(self, Self::Snapshot | Self::Identity)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_reads_back_from_its_values() {
        for kind in Kind::DECLARED {
            let fields = kind.fields();
            assert!(!fields.is_empty() && fields.len() <= MAX_FIELDS, "{kind}");
            assert!(fields.iter().all(|field| !field.about.is_empty()), "{kind}");
            for values in [vec![0; fields.len()], vec![1; fields.len()]] {
                let event = EventKind::from_values(kind, &values).unwrap();
                assert_eq!((event.kind(), &*event.values()), (kind, &values[..]));
            }
            assert_eq!(EventKind::from_values(kind, &[]), None, "too few values");
        }
        assert_eq!(EventKind::from_values(Kind::IrqExit, &[1, 2]), None, "no flag is 2");
        assert_eq!(EventKind::from_values(Kind::Switch, &[1]), None);
    }

    #[test]
    fn what_lasts_says_how_long() {
        for kind in Kind::DECLARED.into_iter().filter(|kind| kind.shape() == Shape::Span) {
            let lasts = kind.fields().iter().any(|field| ["duration_ns", "latency_ns"].contains(&field.name));
            assert!(lasts, "{kind}");
        }
    }
}
