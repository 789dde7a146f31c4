//! Records of the kinds that are declared with their fields: all of one shape, in which each kind has its own meaning.

use schedtrace_bpf::wire::{self, rec_type};

use super::read;
use crate::event::{
    Address, BlockComplete, BlockInsert, BlockIssue, BlockOp, Cpu, CpuFrequency, CpuIdle, CredChange, Event, EventKind,
    FutexWait, FutexWake, Hang, HotplugEnter, HotplugExit, Ipi, IpiEntry, IpiExit, IpiSend, IrqEntry, IrqExit, Kind,
    MajorFault, NameId, Nanos, OomKill, PiSetprio, Policy, PrioChange, ReclaimBegin, ReclaimEnd, ScxCpuperf,
    ScxDispatch, ScxInsert, ScxMove, Softirq, SoftirqEntry, SoftirqExit, SoftirqRaise, Syscall, SyscallFailed, TaskId,
    Wait, Wakeup, WorkEnd, WorkStart,
};

/// The kinds whose records have two parts.
const WIDE: [Kind; 11] = [
    Kind::HotplugEnter,
    Kind::HotplugExit,
    Kind::BlockInsert,
    Kind::BlockIssue,
    Kind::BlockComplete,
    Kind::FutexWait,
    Kind::FutexWake,
    Kind::Syscall,
    Kind::CredChange,
    Kind::ScxInsert,
    Kind::ScxDispatch,
];

/// Whether the records of a kind have two parts.
pub(super) fn is_wide(kind: Kind) -> bool {
    WIDE.contains(&kind)
}

/// Reads a record of one part, or of two; `id` finds the task that it speaks of.
pub(super) fn event(kind: u8, words: &[u64], id: impl Fn(u32) -> Option<TaskId>) -> Option<Event> {
    let short: wire::Short = read(words)?;
    let r = match short.flags & wire::WIDE {
        0 => wire::Wide { a: short.a, b: short.b, ..Default::default() },
        _ => read(words)?,
    };
    let task = || id(r.a);
    let (low, high) = (r.b as u32, (r.b >> 32) as u32);
    let (cpu_of_a, name_of_b) = (Cpu(r.a as u16), NameId(low));
    let has = |flag| short.flags & flag != 0;
    let kind: EventKind = match kind {
        rec_type::WAKEUP => Wakeup { task: task()?, target_cpu: Cpu(low as u16), prio: high as u8 }.into(),
        rec_type::WAIT => Wait { task: task()?, pid: low }.into(),
        rec_type::HANG => Hang { task: task()? }.into(),
        rec_type::PRIO_CHANGE => {
            PrioChange { task: task()?, tid: low, prio: high as u8, policy: Policy((high >> 8) as u8) }.into()
        }
        rec_type::PI_SETPRIO => {
            let (old_prio, new_prio) = (high as u8, (high >> 8) as u8);
            PiSetprio { task: task()?, booster_tid: low, old_prio, new_prio }.into()
        }
        rec_type::IRQ_ENTRY => IrqEntry { irq: r.a, action: name_of_b }.into(),
        rec_type::IRQ_EXIT => IrqExit { irq: r.a, handled: has(wire::IRQ_HANDLED) }.into(),
        rec_type::SOFTIRQ_ENTRY => SoftirqEntry { vector: Softirq(r.a as u8) }.into(),
        rec_type::SOFTIRQ_EXIT => SoftirqExit { vector: Softirq(r.a as u8) }.into(),
        rec_type::SOFTIRQ_RAISE => SoftirqRaise { vector: Softirq(r.a as u8) }.into(),
        rec_type::IPI_SEND => IpiSend { callback: NameId(r.a), target_cpu: Cpu(low as u16), targets: high }.into(),
        rec_type::IPI_ENTRY => IpiEntry { ipi: Ipi(r.a as u8) }.into(),
        rec_type::IPI_EXIT => IpiExit { ipi: Ipi(r.a as u8) }.into(),
        rec_type::CPU_FREQUENCY => CpuFrequency { target_cpu: cpu_of_a, frequency_khz: low }.into(),
        rec_type::CPU_IDLE => CpuIdle { target_cpu: cpu_of_a, state: low as i32 }.into(),
        rec_type::HOTPLUG_ENTER => {
            let (target_state, step) = (low as i32, high as i32);
            HotplugEnter { target_cpu: cpu_of_a, target_state, step, function: NameId(r.c) }.into()
        }
        rec_type::HOTPLUG_EXIT => {
            HotplugExit { target_cpu: cpu_of_a, state: low as i32, step: high as i32, result: r.c as i32 }.into()
        }
        rec_type::BLOCK_INSERT => {
            let (device, size_bytes, operation) = (NameId(r.c), r.d as u32, BlockOp(r.s as u8));
            BlockInsert { task: task()?, device, sector: r.b, size_bytes, operation }.into()
        }
        rec_type::BLOCK_ISSUE => {
            let (device, size_bytes, operation) = (NameId(r.c), r.d as u32, BlockOp(r.s as u8));
            BlockIssue { task: task()?, device, sector: r.b, size_bytes, operation }.into()
        }
        rec_type::BLOCK_COMPLETE => {
            let (device, size_bytes, operation) = (NameId(r.c), r.d as u32, BlockOp(r.s as u8));
            let (status, latency_ns) = ((r.d >> 32) as u8, Nanos(r.b));
            BlockComplete { task: task()?, device, size_bytes, operation, status, latency_ns }.into()
        }
        rec_type::FUTEX_WAIT => {
            let (address, duration_ns, result) = (Address(r.b), Nanos(r.d), r.c as i32);
            FutexWait { task: task()?, address, duration_ns, result }.into()
        }
        rec_type::FUTEX_WAKE => FutexWake { task: task()?, address: Address(r.b), woken: r.c as i32 }.into(),
        rec_type::SYSCALL_FAILED => SyscallFailed { task: task()?, number: low, errno: high }.into(),
        rec_type::SYSCALL => Syscall { task: task()?, number: r.c, result: r.b as i64, duration_ns: Nanos(r.d) }.into(),
        rec_type::CRED_CHANGE => {
            let (parent_tid, capabilities) = (r.c, Address(r.d));
            CredChange { task: task()?, parent_tid, uid: low, euid: high, capabilities }.into()
        }
        rec_type::WORK_START => WorkStart { task: task()?, function: name_of_b }.into(),
        rec_type::WORK_END => WorkEnd { task: task()?, function: name_of_b }.into(),
        rec_type::RECLAIM_BEGIN => ReclaimBegin { task: task()?, order: low }.into(),
        rec_type::RECLAIM_END => ReclaimEnd { task: task()?, pages: r.b }.into(),
        rec_type::OOM_KILL => OomKill { task: task()?, victim_pid: low }.into(),
        rec_type::MAJOR_FAULT => MajorFault { task: task()?, address: Address(r.b) }.into(),
        rec_type::SCX_INSERT => ScxInsert { task: task()?, dsq_id: Address(r.b), slice_ns: r.c, vtime: r.d }.into(),
        rec_type::SCX_DISPATCH => {
            let (dsq_id, latency_ns) = (Address(r.b), Nanos(r.d));
            ScxDispatch { task: task()?, dsq_id, latency_ns, depth: r.c as u16, layer: r.s }.into()
        }
        rec_type::SCX_MOVE => ScxMove { dsq_id: Address(r.b), moved: has(wire::SCX_MOVED) }.into(),
        rec_type::SCX_CPUPERF => ScxCpuperf { target_cpu: cpu_of_a, performance: low }.into(),
        _ => return None,
    };
    let as_it_should_be = is_wide(kind.kind()) == (short.flags & wire::WIDE != 0);
    as_it_should_be.then_some(Event { ts: Nanos(short.ts), cpu: Cpu(short.cpu), kind })
}
