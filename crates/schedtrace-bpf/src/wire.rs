//! What crosses from the kernel to user space: `src/bpf/wire.h` in Rust.
//!
//! Every record begins with its type. A test compares each struct with the objects' BTF, field by field.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Record types that are also counted per kind; the numbers are those of `schedtrace_core::Kind`.
pub mod rec_type {
    /// [`Switch`](super::Switch)
    pub const SWITCH: u8 = 0;
    /// [`Waking`](super::Waking)
    pub const WAKING: u8 = 1;
    /// [`WakeupNew`](super::WakeupNew)
    pub const WAKEUP_NEW: u8 = 2;
    /// [`Migrate`](super::Migrate)
    pub const MIGRATE: u8 = 3;
    /// [`Life`](super::Life)
    pub const FORK: u8 = 4;
    /// [`Life`](super::Life)
    pub const EXEC: u8 = 5;
    /// [`Life`](super::Life)
    pub const EXIT: u8 = 6;
    /// [`Life`](super::Life)
    pub const FREE: u8 = 7;
    /// [`Life`](super::Life)
    pub const RENAME: u8 = 8;
    /// Only counted.
    pub const SNAPSHOT: u8 = 9;
    /// [`TaskRecord`](super::TaskRecord)
    pub const TASK: u8 = 10;
    /// [`Short`](super::Short)
    pub const WAKEUP: u8 = 11;
    /// [`Short`](super::Short)
    pub const WAIT: u8 = 12;
    /// [`Short`](super::Short)
    pub const HANG: u8 = 13;
    /// [`Short`](super::Short)
    pub const PRIO_CHANGE: u8 = 14;
    /// [`Short`](super::Short)
    pub const PI_SETPRIO: u8 = 15;
    /// [`Short`](super::Short)
    pub const IRQ_ENTRY: u8 = 16;
    /// [`Short`](super::Short)
    pub const IRQ_EXIT: u8 = 17;
    /// [`Short`](super::Short)
    pub const SOFTIRQ_ENTRY: u8 = 18;
    /// [`Short`](super::Short)
    pub const SOFTIRQ_EXIT: u8 = 19;
    /// [`Short`](super::Short)
    pub const SOFTIRQ_RAISE: u8 = 20;
    /// [`Short`](super::Short)
    pub const IPI_SEND: u8 = 21;
    /// [`Short`](super::Short)
    pub const IPI_ENTRY: u8 = 22;
    /// [`Short`](super::Short)
    pub const IPI_EXIT: u8 = 23;
    /// [`Short`](super::Short)
    pub const CPU_FREQUENCY: u8 = 24;
    /// [`Short`](super::Short)
    pub const CPU_IDLE: u8 = 25;
    /// [`Wide`](super::Wide)
    pub const HOTPLUG_ENTER: u8 = 26;
    /// [`Wide`](super::Wide)
    pub const HOTPLUG_EXIT: u8 = 27;
    /// [`Wide`](super::Wide)
    pub const BLOCK_INSERT: u8 = 28;
    /// [`Wide`](super::Wide)
    pub const BLOCK_ISSUE: u8 = 29;
    /// [`Wide`](super::Wide)
    pub const BLOCK_COMPLETE: u8 = 30;
    /// [`Wide`](super::Wide)
    pub const FUTEX_WAIT: u8 = 31;
    /// [`Wide`](super::Wide)
    pub const FUTEX_WAKE: u8 = 32;
    /// [`Short`](super::Short)
    pub const SYSCALL_FAILED: u8 = 33;
    /// [`Wide`](super::Wide)
    pub const SYSCALL: u8 = 34;
    /// [`Wide`](super::Wide)
    pub const CRED_CHANGE: u8 = 35;
    /// [`Short`](super::Short)
    pub const WORK_START: u8 = 36;
    /// [`Short`](super::Short)
    pub const WORK_END: u8 = 37;
    /// [`Short`](super::Short)
    pub const RECLAIM_BEGIN: u8 = 38;
    /// [`Short`](super::Short)
    pub const RECLAIM_END: u8 = 39;
    /// [`Short`](super::Short)
    pub const OOM_KILL: u8 = 40;
    /// [`Short`](super::Short)
    pub const MAJOR_FAULT: u8 = 41;
    /// [`Wide`](super::Wide)
    pub const SCX_INSERT: u8 = 42;
    /// [`Wide`](super::Wide)
    pub const SCX_DISPATCH: u8 = 43;
    /// [`Short`](super::Short)
    pub const SCX_MOVE: u8 = 44;
    /// [`Short`](super::Short)
    pub const SCX_CPUPERF: u8 = 45;
    /// [`LossRecord`](super::LossRecord)
    pub const LOSS: u8 = 128;
    /// [`Who`](super::Who)
    pub const WHO: u8 = 129;
    /// The second part of a [`Wide`](super::Wide)
    pub const MORE: u8 = 130;
    /// [`NameRecord`](super::NameRecord)
    pub const NAME: u8 = 131;
}

/// How many kinds are counted.
pub const KINDS: usize = 46;

/// In `flags` of any record: a task has no id, and two [`Who`] follow.
pub const RAW: u8 = 0x80;
/// In `flags` of any part of a record in a log: which lap it was written on.
pub const LAP: u8 = 0x40;
/// In `flags` of any record: it is a [`Wide`], which has two parts.
pub const WIDE: u8 = 0x20;
/// In `flags` of a [`Short`] of type `IRQ_EXIT`: the interrupt was this handler's.
pub const IRQ_HANDLED: u8 = 0x01;
/// In `flags` of a [`Short`] of type `SCX_MOVE`: there was a task to take.
pub const SCX_MOVED: u8 = 0x01;
/// In `flags` of a [`Switch`]: the task was preempted.
pub const SWITCH_PREEMPT: u8 = 0x01;
/// In `flags` of a [`Waking`]: the task was on a CPU.
pub const WAKING_ON_CPU: u8 = 0x01;
/// Where in `flags` of a [`Waking`] the context stands: 0 task, 1 softirq, 2 hardirq, 3 NMI.
pub const WAKING_CONTEXT_SHIFT: u8 = 1;
/// In `flags` of a [`Migrate`]: the task was on no run queue.
pub const MIGRATE_PLACED: u8 = 0x01;
/// In `flags` of a [`Life`] of type `EXIT`: the last thread of its process.
pub const EXIT_GROUP_DEAD: u8 = 0x01;
/// In `flags` of a [`TaskRecord`]: a kernel thread.
pub const TASK_KTHREAD: u8 = 0x01;
/// In `flags` of a [`TaskRecord`]: it was on a CPU.
pub const TASK_ON_CPU: u8 = 0x02;
/// In `flags` of a [`TaskRecord`] of the listing: the filters let it and its CPU through.
pub const TASK_SELECTED: u8 = 0x04;

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident = $c_name:literal { $($field:ident : $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            #[allow(missing_docs)]
            pub struct $name { $(pub $field: $type),* }

            impl Default for $name {
                /// All zero.
                fn default() -> Self {
                    Self::new_zeroed()
                }
            }
        )*

        #[cfg(test)]
        fn layouts() -> Vec<(&'static str, usize, Vec<(&'static str, usize)>)> {
            vec![$((
                $c_name,
                size_of::<$name>(),
                vec![$((stringify!($field), std::mem::offset_of!($name, $field))),*],
            )),*]
        }
    };
}

records! {
    /// `sched_switch`.
    Switch = "rec_switch" {
        r#type: u8, flags: u8, cpu: u16, prev: u32, ts: u64, next: u32, prev_state: u16, prev_prio: u8, next_prio: u8,
    }
    /// `sched_waking`.
    Waking = "rec_waking" {
        r#type: u8, flags: u8, cpu: u16, task: u32, ts: u64, current_task: u32, prev_cpu: u16, prio: u8, pad: u8,
    }
    /// `sched_wakeup_new`.
    WakeupNew = "rec_wakeup_new" {
        r#type: u8, flags: u8, cpu: u16, task: u32, ts: u64, parent: u32, target_cpu: u16, prio: u8, pad: u8,
    }
    /// `sched_migrate_task`.
    Migrate = "rec_migrate" {
        r#type: u8, flags: u8, cpu: u16, task: u32, ts: u64, from: u16, to: u16, prio: u8, pad: [u8; 3],
    }
    /// Fork, exec, exit, free, rename.
    Life = "rec_life" {
        r#type: u8, flags: u8, cpu: u16, task: u32, ts: u64, child: u32, old_tid: u32,
    }
    /// Every other event that fits into one part.
    Short = "rec_short" {
        r#type: u8, flags: u8, cpu: u16, a: u32, ts: u64, b: u64,
    }
    /// One that does not.
    Wide = "rec_wide" {
        r#type: u8, flags: u8, cpu: u16, a: u32, ts: u64, b: u64, more_type: u8, more_flags: u8, s: u16, c: u32, d: u64,
        e: u64,
    }
    /// A text that events speak of by its number.
    NameRecord = "rec_name" {
        r#type: u8, flags: u8, cpu: u16, id: u32, ts: u64, text: [u8; 64],
    }
    /// Who a task is that may have no id: two of them, for the record's first task and its second, follow one with [`RAW`].
    Who = "rec_who" {
        r#type: u8, flags: u8, cpu: u16, tid: u32, ptr: u64, start: u64,
    }
    /// Who a task is.
    TaskRecord = "rec_task" {
        r#type: u8, flags: u8, cpu: u16, id: u32, ts: u64, ptr: u64, start: u64, cgroup: u64, tid: u32, tgid: u32,
        ppid: u32, state: u32, comm: [u8; 16],
    }
    /// What a CPU could not send.
    LossRecord = "rec_loss" {
        r#type: u8, flags: u8, cpu: u16, pad: u32, ts: u64, from: u64, until: u64, lost: [u64; KINDS],
    }
    /// What the programs are loaded with.
    Settings = "settings" {
        wake_at: u64, kinds: u64, calls: [u64; 8], life_wake_at: u64, nr_cpus: u32, log_parts: u32, layer_at: u32,
        fail_ids_every: u32, filter_pids: u8, filter_cgroups: u8,
        filter_cpus: u8, weak_order: u8, late_every: u32,
    }
    /// The switches of a running recorder.
    Control = "control" {
        enabled: u64, preempt_count_from_rq: i64, storage_cached: u64,
    }
    /// Counters and settings of one CPU.
    CpuState = "cpu_state" {
        log: u64, loss_from: u64, records: u32, shard: u16, selected: u8, pad: u8, emitted: [u64; KINDS],
        lost: [u64; KINDS], passed_over: [u64; KINDS], loss_until: u64, preempt_count_at: u64, alignment: [u64; 1],
    }
    /// What a log in the arena begins with; its parts follow.
    Log = "log" {
        head: u64, limit: u64, head_line: [u64; 6], tail: u64, rung: u64, tail_line: [u64; 6],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libbpf_rs::btf::types::Struct;
    use libbpf_rs::btf::{Btf, HasSize};

    #[test]
    fn the_structs_are_those_of_the_objects() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bpf");
        for object in ["ring.bpf.o", "arena.bpf.o"] {
            are_those_of(&Btf::from_path(format!("{folder}/{object}")).unwrap());
        }
    }

    fn are_those_of(btf: &Btf<'_>) {
        let layouts = layouts();
        assert_eq!(layouts.len(), 15);
        for (name, size, fields) in layouts {
            let theirs = btf.type_by_name::<Struct<'_>>(name).unwrap_or_else(|| panic!("{name} is not in the object"));
            assert_eq!(theirs.size(), size, "size of {name}");
            let fields: Vec<_> = fields.into_iter().filter(|(field, _)| *field != "alignment").collect();
            assert_eq!(theirs.len(), fields.len(), "fields of {name}");
            for (member, (field, offset)) in theirs.iter().zip(fields) {
                let member_name = member.name.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                assert_eq!(member_name, field.trim_start_matches("r#"), "in {name}");
                let bits = match member.attr {
                    libbpf_rs::btf::types::MemberAttr::Normal { offset } => offset,
                    libbpf_rs::btf::types::MemberAttr::BitField { .. } => panic!("{name}.{member_name} is a bit field"),
                };
                assert_eq!(bits as usize, offset * 8, "{name}.{member_name}");
            }
        }
    }

    #[test]
    fn scheduling_records_take_32_bytes_on_the_ring_and_24_in_a_log() {
        const RING_HEADER: usize = 8;
        for size in [size_of::<Switch>(), size_of::<Waking>(), size_of::<WakeupNew>(), size_of::<Migrate>()] {
            assert_eq!((size, size + RING_HEADER), (24, 32));
        }
    }
}
