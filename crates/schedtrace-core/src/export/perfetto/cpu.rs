//! The events of one CPU, on their way into a bundle.

use hashbrown::HashMap;

use super::Boottime;
use super::proto::{self, Bundle, CompactSched, FtraceEvent, What};
use crate::event::{Comm, Context, Cpu, Event, EventKind, Switch, TaskId, TaskState, Waking};
use crate::export::names::Names;

/// `TRACE_FLAG_HARDIRQ`, `TRACE_FLAG_SOFTIRQ` and `TRACE_FLAG_NMI` in the kernel's `include/linux/trace_events.h`.
const HARDIRQ: u32 = 0x08;
const SOFTIRQ: u32 = 0x10;
const NMI: u32 = 0x40;
/// `CLONE_THREAD` in `include/uapi/linux/sched.h`.
const CLONE_THREAD: u64 = 0x0001_0000;

/// What waits to be written of one CPU, and what a reader of it knows by then.
#[derive(Debug, Default)]
pub(super) struct CpuStream {
    events: Vec<FtraceEvent>,
    compact: CompactSched,
    comms: HashMap<Comm, u32>,
    /// The times of the last switch and the last waking in this bundle.
    last: (u64, u64),
    /// Whom the last switch gave the CPU to, where a reader knows that too.
    current: Option<TaskId>,
    lost: bool,
}

impl CpuStream {
    /// Events of this CPU went missing.
    pub(super) fn lose(&mut self) {
        (self.lost, self.current) = (true, None);
    }

    pub(super) fn event(&mut self, event: &Event, names: &Names, boottime: Boottime, late: bool) {
        let at = boottime.of(event.ts);
        match event.kind {
            EventKind::Switch(switch) if !late && self.current == Some(switch.prev) && at >= self.last.0 => {
                self.compact_switch(at, &switch, names);
            }
            EventKind::Switch(switch) => self.full_switch(at, &switch, names),
            EventKind::Waking(waking) if !late && self.current == Some(waking.current) && at >= self.last.1 => {
                self.compact_waking(at, &waking, names);
            }
            _ => self.full(at, event, names),
        }
        match event.kind {
            // What came before is settled already.
            EventKind::Switch(_) if late => {}
            EventKind::Switch(switch) => self.current = Some(switch.next),
            _ => {}
        }
    }

    fn intern(&mut self, comm: Comm) -> u32 {
        let table = &mut self.compact.intern_table;
        *self.comms.entry(comm).or_insert_with(|| {
            table.push(comm.to_string());
            table.len() as u32 - 1
        })
    }

    fn compact_switch(&mut self, at: u64, switch: &Switch, names: &Names) {
        let next = names.of(switch.next);
        let comm = self.intern(next.comm);
        let compact = &mut self.compact;
        compact.switch_timestamp.push(at - self.last.0);
        compact.switch_prev_state.push(prev_state(switch));
        compact.switch_next_pid.push(next.tid.cast_signed());
        compact.switch_next_prio.push(switch.next_prio.into());
        compact.switch_next_comm_index.push(comm);
        self.last.0 = at;
    }

    fn compact_waking(&mut self, at: u64, waking: &Waking, names: &Names) {
        let task = names.of(waking.task);
        let comm = self.intern(task.comm);
        let compact = &mut self.compact;
        compact.waking_timestamp.push(at - self.last.1);
        compact.waking_pid.push(task.tid.cast_signed());
        compact.waking_target_cpu.push(waking.prev_cpu.0.into());
        compact.waking_prio.push(waking.prio.into());
        compact.waking_comm_index.push(comm);
        compact.waking_common_flags.push(flags(waking.context));
        self.last.1 = at;
    }

    fn full_switch(&mut self, at: u64, switch: &Switch, names: &Names) {
        let (prev, next) = (names.of(switch.prev), names.of(switch.next));
        let what = proto::Switch {
            prev_comm: Some(prev.comm.to_string()),
            prev_pid: Some(prev.tid.cast_signed()),
            prev_prio: Some(switch.prev_prio.into()),
            prev_state: Some(prev_state(switch)),
            next_comm: Some(next.comm.to_string()),
            next_pid: Some(next.tid.cast_signed()),
            next_prio: Some(switch.next_prio.into()),
        };
        self.push(at, Some(prev.tid), None, What::Switch(what));
    }

    /// Everything but switches.
    fn full(&mut self, at: u64, event: &Event, names: &Names) {
        let name = |id| names.of(id);
        let comm = |id| Some(name(id).comm.to_string());
        let tid = |id| Some(name(id).tid.cast_signed());
        let wakeup = |task, prio: u8, cpu: Cpu| proto::Wakeup {
            comm: comm(task),
            pid: tid(task),
            prio: Some(prio.into()),
            success: Some(1),
            target_cpu: Some(cpu.0.into()),
        };
        let current = self.current.map(|current| name(current).tid);
        let (who, common_flags, what) = match event.kind {
            EventKind::Waking(waking) => (
                Some(name(waking.current).tid),
                Some(flags(waking.context)),
                What::Waking(wakeup(waking.task, waking.prio, waking.prev_cpu)),
            ),
            EventKind::WakeupNew(new) => {
                (Some(name(new.parent).tid), None, What::WakeupNew(wakeup(new.task, new.prio, new.target_cpu)))
            }
            EventKind::Migrate(migrate) => {
                let what = proto::Migrate {
                    comm: comm(migrate.task),
                    pid: tid(migrate.task),
                    prio: Some(migrate.prio.into()),
                    orig_cpu: Some(migrate.from.0.into()),
                    dest_cpu: Some(migrate.to.0.into()),
                };
                (current, None, What::Migrate(what))
            }
            EventKind::Fork(fork) => {
                let (parent, child) = (name(fork.parent), name(fork.child));
                let clone_flags = if parent.tgid == child.tgid { CLONE_THREAD } else { 0 };
                let new = proto::NewTask {
                    pid: Some(child.tid.cast_signed()),
                    comm: Some(child.comm.to_string()),
                    clone_flags: Some(clone_flags),
                };
                // By which Perfetto tells two lives of one thread id apart.
                self.push(at, Some(parent.tid), None, What::NewTask(new));
                let what = proto::Fork {
                    parent_comm: Some(parent.comm.to_string()),
                    parent_pid: Some(parent.tid.cast_signed()),
                    child_comm: Some(child.comm.to_string()),
                    child_pid: Some(child.tid.cast_signed()),
                };
                (Some(parent.tid), None, What::Fork(what))
            }
            EventKind::Exec(exec) => {
                let what = proto::Exec { pid: tid(exec.task), old_pid: Some(exec.old_tid.cast_signed()) };
                (Some(name(exec.task).tid), None, What::Exec(what))
            }
            EventKind::Exit(exit) => {
                let tgid = Some(name(exit.task).tgid.cast_signed());
                let what = proto::Exit { comm: comm(exit.task), pid: tid(exit.task), tgid };
                (Some(name(exit.task).tid), None, What::Exit(what))
            }
            EventKind::Free { task } => (current, None, What::Free(proto::Free { comm: comm(task), pid: tid(task) })),
            EventKind::Rename { task } => {
                let what = proto::Rename { pid: tid(task), oldcomm: None, newcomm: comm(task) };
                (current, None, What::Rename(what))
            }
            // A snapshot is nothing that the kernel did, and switches have gone another way.
            // The others are track events.
            _ => return,
        };
        self.push(at, who, common_flags, what);
    }

    fn push(&mut self, timestamp: u64, pid: Option<u32>, common_flags: Option<u32>, what: What) {
        self.events.push(FtraceEvent { timestamp, pid, common_flags, what: Some(what) });
    }

    /// What was gathered since the last time.
    pub(super) fn take(&mut self, cpu: Cpu) -> Option<Bundle> {
        let compact = std::mem::take(&mut self.compact);
        let is_empty = compact.switch_timestamp.is_empty() && compact.waking_timestamp.is_empty();
        self.comms.clear();
        self.last = (0, 0);
        if is_empty && self.events.is_empty() {
            return None;
        }
        Some(Bundle {
            cpu: Some(cpu.0.into()),
            event: std::mem::take(&mut self.events),
            lost_events: std::mem::take(&mut self.lost).then_some(true),
            compact_sched: (!is_empty).then_some(compact),
        })
    }
}

fn flags(context: Context) -> u32 {
    match context {
        Context::Task => 0,
        Context::Softirq => SOFTIRQ,
        Context::Hardirq => HARDIRQ,
        Context::Nmi => NMI,
    }
}

/// As the tracepoint has it: a bit for each letter, and one more for who was preempted
/// (`__trace_sched_switch_state()` in `include/trace/events/sched.h`).
fn prev_state(switch: &Switch) -> i64 {
    const PREEMPTED: i64 = 0x100;
    if switch.preempted {
        return PREEMPTED;
    }
    match switch.prev_state.letter() {
        'S' => 0x01,
        'D' => 0x02,
        'T' => 0x04,
        't' => 0x08,
        'X' => 0x10,
        'Z' => 0x20,
        'P' => 0x40,
        'I' => 0x80,
        _ => i64::from(TaskState::RUNNING.0),
    }
}
