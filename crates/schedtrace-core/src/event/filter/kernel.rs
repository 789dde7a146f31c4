//! What the kernel's own tracepoints call their fields, and where those stand in our events.
//!
//! The names are those of `/sys/kernel/tracing/events/*/*/format`; `pid` is a thread's number there.

use crate::event::{BlockOp, Event, EventKind, Kind, NameId, TaskId, TaskState};

/// A field of a tracepoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelField {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) get: Get,
}

/// Where its value comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Get {
    /// The field of ours that holds it.
    Own(&'static str),
    /// A number that is made of the event.
    Number(fn(&Event) -> Option<i128>),
    /// The thread id of a task.
    Tid(fn(&Event) -> Option<TaskId>),
    /// The name of a task.
    Comm(fn(&Event) -> Option<TaskId>),
    /// The state of a task, as a letter or as the tracepoint's bits.
    State(fn(&Event) -> Option<(TaskState, bool)>),
    /// What a request does, in the letters of `blk_fill_rwbs()`.
    Rwbs,
    /// A disk: its name, or its number.
    Disk,
    /// It is not recorded.
    Missing,
}

macro_rules! of {
    ($kind:ident.$field:ident) => {
        |event| if let EventKind::$kind(e) = &event.kind { Some(e.$field) } else { None }
    };
}

macro_rules! number {
    ($kind:ident.$field:ident) => {
        |event| if let EventKind::$kind(e) = &event.kind { Some(i128::from(e.$field)) } else { None }
    };
    ($kind:ident.$field:ident.0) => {
        |event| if let EventKind::$kind(e) = &event.kind { Some(i128::from(e.$field.0)) } else { None }
    };
}

/// Of what was put on a run queue, moved or ended: the task itself.
fn subject(event: &Event) -> Option<TaskId> {
    match event.kind {
        EventKind::Waking(e) => Some(e.task),
        EventKind::WakeupNew(e) => Some(e.task),
        EventKind::Migrate(e) => Some(e.task),
        EventKind::Exec(e) => Some(e.task),
        EventKind::Exit(e) => Some(e.task),
        EventKind::Free { task } | EventKind::Rename { task } => Some(task),
        kind => kind.task(),
    }
}

/// `nr_sector` of a request: what is no whole sector does not count (`blk_rq_sectors()`).
fn sectors(event: &Event) -> Option<i128> {
    let bytes = match event.kind {
        EventKind::BlockInsert(e) => e.size_bytes,
        EventKind::BlockIssue(e) => e.size_bytes,
        EventKind::BlockComplete(e) => e.size_bytes,
        _ => return None,
    };
    Some(i128::from(bytes >> 9))
}

/// The operation of a request.
pub(super) fn operation(event: &Event) -> Option<BlockOp> {
    match event.kind {
        EventKind::BlockInsert(e) => Some(e.operation),
        EventKind::BlockIssue(e) => Some(e.operation),
        EventKind::BlockComplete(e) => Some(e.operation),
        _ => None,
    }
}

/// The disk of a request.
pub(super) fn disk(event: &Event) -> Option<NameId> {
    match event.kind {
        EventKind::BlockInsert(e) => Some(e.device),
        EventKind::BlockIssue(e) => Some(e.device),
        EventKind::BlockComplete(e) => Some(e.device),
        _ => None,
    }
}

const fn field(kind: Kind, name: &'static str, get: Get) -> KernelField {
    KernelField { kind, name, get }
}

/// All of them, tracepoint by tracepoint.
pub(super) const FIELDS: &[KernelField] = &[
    field(Kind::Switch, "prev_comm", Get::Comm(of!(Switch.prev))),
    field(Kind::Switch, "prev_pid", Get::Tid(of!(Switch.prev))),
    field(Kind::Switch, "prev_prio", Get::Number(number!(Switch.prev_prio))),
    field(
        Kind::Switch,
        "prev_state",
        Get::State(
            |event| {
                if let EventKind::Switch(e) = &event.kind { Some((e.prev_state, e.preempted)) } else { None }
            },
        ),
    ),
    field(Kind::Switch, "next_comm", Get::Comm(of!(Switch.next))),
    field(Kind::Switch, "next_pid", Get::Tid(of!(Switch.next))),
    field(Kind::Switch, "next_prio", Get::Number(number!(Switch.next_prio))),
    field(Kind::Waking, "comm", Get::Comm(subject)),
    field(Kind::Waking, "pid", Get::Tid(subject)),
    field(Kind::Waking, "prio", Get::Number(number!(Waking.prio))),
    field(Kind::Waking, "target_cpu", Get::Number(number!(Waking.prev_cpu.0))),
    field(Kind::Wakeup, "comm", Get::Comm(subject)),
    field(Kind::Wakeup, "pid", Get::Tid(subject)),
    field(Kind::WakeupNew, "comm", Get::Comm(subject)),
    field(Kind::WakeupNew, "pid", Get::Tid(subject)),
    field(Kind::WakeupNew, "prio", Get::Number(number!(WakeupNew.prio))),
    field(Kind::WakeupNew, "target_cpu", Get::Number(number!(WakeupNew.target_cpu.0))),
    field(Kind::Migrate, "comm", Get::Comm(subject)),
    field(Kind::Migrate, "pid", Get::Tid(subject)),
    field(Kind::Migrate, "prio", Get::Number(number!(Migrate.prio))),
    field(Kind::Migrate, "orig_cpu", Get::Number(number!(Migrate.from.0))),
    field(Kind::Migrate, "dest_cpu", Get::Number(number!(Migrate.to.0))),
    field(Kind::Fork, "parent_comm", Get::Comm(of!(Fork.parent))),
    field(Kind::Fork, "parent_pid", Get::Tid(of!(Fork.parent))),
    field(Kind::Fork, "child_comm", Get::Comm(of!(Fork.child))),
    field(Kind::Fork, "child_pid", Get::Tid(of!(Fork.child))),
    field(Kind::Exec, "filename", Get::Missing),
    field(Kind::Exec, "pid", Get::Tid(subject)),
    field(Kind::Exec, "old_pid", Get::Number(number!(Exec.old_tid))),
    field(Kind::Exit, "comm", Get::Comm(subject)),
    field(Kind::Exit, "pid", Get::Tid(subject)),
    field(Kind::Exit, "prio", Get::Missing),
    field(Kind::Exit, "group_dead", Get::Number(number!(Exit.group_dead))),
    field(Kind::Free, "comm", Get::Comm(subject)),
    field(Kind::Free, "pid", Get::Tid(subject)),
    field(Kind::Free, "prio", Get::Missing),
    field(Kind::Wait, "comm", Get::Comm(subject)),
    field(Kind::Wait, "prio", Get::Missing),
    field(Kind::Hang, "comm", Get::Comm(subject)),
    field(Kind::Hang, "pid", Get::Tid(subject)),
    field(Kind::PiSetprio, "comm", Get::Comm(subject)),
    field(Kind::PiSetprio, "pid", Get::Tid(subject)),
    field(Kind::PiSetprio, "oldprio", Get::Own("old_prio")),
    field(Kind::PiSetprio, "newprio", Get::Own("new_prio")),
    field(Kind::Rename, "pid", Get::Tid(subject)),
    field(Kind::Rename, "oldcomm", Get::Missing),
    field(Kind::Rename, "newcomm", Get::Comm(subject)),
    field(Kind::Rename, "oom_score_adj", Get::Missing),
    field(Kind::IrqEntry, "name", Get::Own("action")),
    field(Kind::IrqExit, "ret", Get::Own("handled")),
    field(Kind::SoftirqEntry, "vec", Get::Own("vector")),
    field(Kind::SoftirqExit, "vec", Get::Own("vector")),
    field(Kind::SoftirqRaise, "vec", Get::Own("vector")),
    field(Kind::CpuFrequency, "state", Get::Own("frequency_khz")),
    field(Kind::CpuFrequency, "cpu_id", Get::Own("target_cpu")),
    field(Kind::CpuIdle, "cpu_id", Get::Own("target_cpu")),
    field(Kind::HotplugEnter, "cpu", Get::Own("target_cpu")),
    field(Kind::HotplugEnter, "target", Get::Own("target_state")),
    field(Kind::HotplugEnter, "idx", Get::Own("step")),
    field(Kind::HotplugEnter, "fun", Get::Own("function")),
    field(Kind::HotplugExit, "cpu", Get::Own("target_cpu")),
    field(Kind::HotplugExit, "idx", Get::Own("step")),
    field(Kind::HotplugExit, "ret", Get::Own("result")),
    field(Kind::BlockInsert, "dev", Get::Disk),
    field(Kind::BlockInsert, "nr_sector", Get::Number(sectors)),
    field(Kind::BlockInsert, "bytes", Get::Own("size_bytes")),
    field(Kind::BlockInsert, "rwbs", Get::Rwbs),
    field(Kind::BlockInsert, "comm", Get::Comm(subject)),
    field(Kind::BlockInsert, "ioprio", Get::Missing),
    field(Kind::BlockInsert, "cmd", Get::Missing),
    field(Kind::BlockIssue, "dev", Get::Disk),
    field(Kind::BlockIssue, "nr_sector", Get::Number(sectors)),
    field(Kind::BlockIssue, "bytes", Get::Own("size_bytes")),
    field(Kind::BlockIssue, "rwbs", Get::Rwbs),
    field(Kind::BlockIssue, "comm", Get::Comm(subject)),
    field(Kind::BlockIssue, "ioprio", Get::Missing),
    field(Kind::BlockIssue, "cmd", Get::Missing),
    field(Kind::BlockComplete, "dev", Get::Disk),
    field(Kind::BlockComplete, "sector", Get::Missing),
    field(Kind::BlockComplete, "nr_sector", Get::Number(sectors)),
    field(Kind::BlockComplete, "rwbs", Get::Rwbs),
    field(
        Kind::BlockComplete,
        "error",
        Get::Number(|event| if let EventKind::BlockComplete(e) = &event.kind { Some(errno(e.status)) } else { None }),
    ),
    field(Kind::BlockComplete, "ioprio", Get::Missing),
    field(Kind::BlockComplete, "cmd", Get::Missing),
    field(Kind::WorkStart, "work", Get::Missing),
    field(Kind::WorkEnd, "work", Get::Missing),
    field(Kind::ReclaimBegin, "gfp_flags", Get::Missing),
    field(Kind::ReclaimEnd, "nr_reclaimed", Get::Own("pages")),
    field(Kind::OomKill, "pid", Get::Own("victim_pid")),
];

/// `blk_status_to_errno()` of `block/blk-core.c`: the numbers up to 13 mean the same in all kernels; what came later is an
/// error all the same.
fn errno(status: u8) -> i128 {
    /// By status: OK, NOTSUPP, TIMEOUT, NOSPC, TRANSPORT, TARGET, RESV_CONFLICT, MEDIUM, PROTECTION, RESOURCE, IOERR,
    /// DM_REQUEUE, AGAIN, DEV_RESOURCE.
    const ERRNOS: [i128; 14] = [0, 95, 110, 28, 67, 121, 52, 61, 84, 12, 5, 78, 11, 16];
    const EIO: i128 = 5;
    -ERRNOS.get(usize::from(status)).copied().unwrap_or(EIO)
}

/// The bits of `prev_state` that the tracepoint reports: one for the letter, and one for a preemption
/// (`__trace_sched_switch_state()` in `include/trace/events/sched.h`).
pub(super) fn state_bits(state: TaskState, preempted: bool) -> i128 {
    if preempted {
        return 0x100;
    }
    match state.letter() {
        'S' => 1,
        'D' => 2,
        'T' => 4,
        't' => 8,
        'X' => 0x10,
        'Z' => 0x20,
        'P' => 0x40,
        'I' => 0x80,
        _ => 0,
    }
}

/// The same as the tracepoint prints it: `R+` for who was preempted.
pub(super) fn state_text(state: TaskState, preempted: bool) -> String {
    if preempted { "R+".to_owned() } else { state.letter().to_string() }
}

/// The letters of states, as [`state_text`] gives them.
pub(super) const STATES: [&str; 10] = ["R", "R+", "S", "D", "T", "t", "X", "Z", "P", "I"];

/// Which subsystem of the kernel a tracepoint belongs to: `block` in `block:block_rq_issue`.
pub(in crate::event) fn system(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Switch
        | Kind::Waking
        | Kind::WakeupNew
        | Kind::Migrate
        | Kind::Fork
        | Kind::Exec
        | Kind::Exit
        | Kind::Free
        | Kind::Wakeup
        | Kind::Wait
        | Kind::Hang
        | Kind::PiSetprio => "sched",
        Kind::Rename => "task",
        Kind::IrqEntry | Kind::IrqExit | Kind::SoftirqEntry | Kind::SoftirqExit | Kind::SoftirqRaise => "irq",
        Kind::CpuFrequency | Kind::CpuIdle => "power",
        Kind::HotplugEnter | Kind::HotplugExit => "cpuhp",
        Kind::BlockInsert | Kind::BlockIssue | Kind::BlockComplete => "block",
        Kind::WorkStart | Kind::WorkEnd => "workqueue",
        Kind::ReclaimBegin | Kind::ReclaimEnd => "vmscan",
        Kind::IpiSend => "ipi",
        Kind::OomKill => "oom",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_ours_that_is_named_is_there_and_no_name_comes_twice() {
        for (at, field) in FIELDS.iter().enumerate() {
            if let Get::Own(own) = field.get {
                assert!(field.kind.fields().iter().any(|f| f.name == own), "{}.{own}", field.kind);
            }
            let twice = FIELDS[at + 1..].iter().any(|other| (other.kind, other.name) == (field.kind, field.name));
            assert!(!twice, "{}.{}", field.kind, field.name);
            assert!(system(field.kind).is_some(), "{}", field.kind);
        }
    }

    #[test]
    fn states_have_the_bits_that_the_tracepoint_reports() {
        for (letter, bits) in [("R", 0), ("S", 1), ("D", 2), ("T", 4), ("t", 8), ("Z", 0x20), ("P", 0x40)] {
            let state = TaskState(u16::try_from(bits).unwrap());
            assert_eq!((state_text(state, false).as_str(), state_bits(state, false)), (letter, bits));
            assert_eq!((state_text(state, true).as_str(), state_bits(state, true)), ("R+", 0x100));
        }
        assert_eq!(state_bits(TaskState(0x402), false), 0x80, "an idle kernel thread's");
        assert_eq!(state_bits(TaskState::DEAD, false), 0x10);
        let waits_for_io = TaskState(TaskState::UNINTERRUPTIBLE.0 | TaskState::IO_WAIT.0);
        assert_eq!(state_bits(waits_for_io, false), 2);
    }

    /// The names are those of the running kernel's tracepoints, but for fields that it does not have yet, or no longer.
    #[test]
    fn live_the_running_kernel_calls_them_so() {
        let events = std::path::Path::new("/sys/kernel/tracing/events");
        let mut seen = 0;
        for kind in Kind::ALL {
            let Some(system) = system(kind) else { continue };
            let name = if kind == Kind::OomKill { "mark_victim" } else { kind.name() };
            let Ok(format) = std::fs::read_to_string(events.join(system).join(name).join("format")) else { continue };
            for field in FIELDS.iter().filter(|field| field.kind == kind) {
                let has =
                    format.contains(&format!(" {};", field.name)) || format.contains(&format!(" {}[", field.name));
                // `block_rq_issue.ioprio` came with 6.11, and `work` was always there.
                assert!(has || field.name == "ioprio", "{kind}.{}: {format}", field.name);
                seen += 1;
            }
        }
        assert!(seen == 0 || seen > 60, "{seen}");
    }
}
