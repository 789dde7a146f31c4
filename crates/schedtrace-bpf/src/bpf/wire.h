/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What crosses from the kernel to user space. Little structs, each beginning with its type; `src/wire.rs` says the
 * same in Rust, and a test compares the two by the objects' BTF.
 *
 * A scheduling record takes 24 bytes: in a log of the arena that is all, and with a ring's 8-byte header it takes 32.
 */
#ifndef SCHEDTRACE_WIRE_H
#define SCHEDTRACE_WIRE_H

/* The numbers are those of `Kind` in schedtrace-core, so that counters need no translation. */
enum rec_type {
	REC_SWITCH,
	REC_WAKING,
	REC_WAKEUP_NEW,
	REC_MIGRATE,
	REC_FORK,
	REC_EXEC,
	REC_EXIT,
	REC_FREE,
	REC_RENAME,
	REC_SNAPSHOT, /* counts only: a snapshot is read from the iterator as REC_TASK */
	REC_TASK,
	REC_WAKEUP,
	REC_WAIT,
	REC_HANG,
	REC_PRIO_CHANGE,
	REC_PI_SETPRIO,
	REC_IRQ_ENTRY,
	REC_IRQ_EXIT,
	REC_SOFTIRQ_ENTRY,
	REC_SOFTIRQ_EXIT,
	REC_SOFTIRQ_RAISE,
	REC_IPI_SEND,
	REC_IPI_ENTRY,
	REC_IPI_EXIT,
	REC_CPU_FREQUENCY,
	REC_CPU_IDLE,
	REC_HOTPLUG_ENTER,
	REC_HOTPLUG_EXIT,
	REC_BLOCK_INSERT,
	REC_BLOCK_ISSUE,
	REC_BLOCK_COMPLETE,
	REC_FUTEX_WAIT,
	REC_FUTEX_WAKE,
	REC_SYSCALL_FAILED,
	REC_SYSCALL,
	REC_CRED_CHANGE,
	REC_WORK_START,
	REC_WORK_END,
	REC_RECLAIM_BEGIN,
	REC_RECLAIM_END,
	REC_OOM_KILL,
	REC_MAJOR_FAULT,
	REC_SCX_INSERT,
	REC_SCX_DISPATCH,
	REC_SCX_MOVE,
	REC_SCX_CPUPERF,
	REC_KINDS, /* what follows in `Kind` comes from user space */
	REC_LOSS = 128,
	REC_WHO,
	REC_MORE,
	REC_NAME,
};

enum rec_flags {
	/* A task could not be given an id: its id field is 0, and two struct rec_who stand behind the record. */
	REC_RAW = 0x80,
	/* In a log: which lap it was written on. Turning it is what commits a record. */
	REC_LAP = 0x40,
	/* The record is a struct rec_wide: it has a second part. */
	REC_WIDE = 0x20,
	SWITCH_PREEMPT = 0x01,
	WAKING_ON_CPU = 0x01,
	WAKING_CONTEXT_SHIFT = 1, /* two bits: 0 task, 1 softirq, 2 hardirq, 3 NMI */
	MIGRATE_PLACED = 0x01,
	EXIT_GROUP_DEAD = 0x01,
	IRQ_HANDLED = 0x01,
	SCX_MOVED = 0x01,
	TASK_KTHREAD = 0x01,
	TASK_ON_CPU = 0x02,
	TASK_SELECTED = 0x04, /* only in the listing */
	/*
	 * In `prev_state`, beside the kernel's bits: two that `task_struct::__state` never has. EXIT_DEAD is a state of
	 * `exit_state`, and __TASK_FREEZABLE_UNSAFE only marks what lockdep is to overlook.
	 */
	STATE_THROTTLED = 0x0010,
	STATE_IOWAIT = 0x4000,
};

/* `a` is the first task of the event and `b` the second, at the same place in every record. */
struct rec_switch {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 prev;
	u64 ts;
	u32 next;
	u16 prev_state;
	u8 prev_prio;
	u8 next_prio;
};

struct rec_waking {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 task;
	u64 ts;
	u32 current_task;
	u16 prev_cpu;
	u8 prio;
	u8 pad;
};

struct rec_wakeup_new {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 task;
	u64 ts;
	u32 parent;
	u16 target_cpu;
	u8 prio;
	u8 pad;
};

struct rec_migrate {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 task;
	u64 ts;
	u16 from;
	u16 to;
	u8 prio;
	u8 pad[3];
};

/* Fork, exec, exit, free, rename. */
struct rec_life {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 task;
	u64 ts;
	u32 child; /* fork */
	u32 old_tid; /* exec */
};

/* Every other event that fits: `a` is the task, where it has one. What `b` means is its own. */
struct rec_short {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 a;
	u64 ts;
	u64 b;
};

/* Those that do not fit into one part. */
struct rec_wide {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 a;
	u64 ts;
	u64 b;
	u8 more_type; /* REC_MORE */
	u8 more_flags;
	u16 s;
	u32 c;
	u64 d;
	u64 e;
};

/* A text that events speak of by its number: the name of a function or of an interrupt's handler. */
struct rec_name {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 id;
	u64 ts;
	char text[64];
};

/* Two of them follow a record with REC_RAW: who `a` and `b` are, whether they have an id or not. */
struct rec_who {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 tid;
	u64 ptr;
	u64 start;
};

/*
 * Any of the above as three words, as a little-endian machine has them in registers: written field by field and read
 * back as words, they would wait for the store buffer.
 */
struct part {
	u64 head; /* type, flags, cpu, a */
	u64 ts;
	u64 tail; /* b, and what remains */
};

struct rec_task {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 id; /* 0: known by `ptr` and `tid` only */
	u64 ts;
	u64 ptr;
	u64 start;
	u64 cgroup;
	u32 tid;
	u32 tgid;
	u32 ppid;
	u32 state;
	char comm[16];
};

/* Sent once a CPU's ring has room again. */
struct rec_loss {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 pad;
	u64 ts;
	u64 from;
	u64 until;
	u64 lost[REC_KINDS]; /* totals of this CPU since the start */
};

/* What a program is loaded with. */
struct settings {
	u64 wake_at; /* wake the reader at this fill, in bytes of a ring or parts of a log; 0: never */
	u64 kinds; /* to send, bits by their number; fork, exec, free and rename programs run in any case: they keep identities true */
	u64 calls[8]; /* system calls whose durations are recorded, bits by their number */
	u64 life_wake_at; /* the same for the ring of lifecycles, in bytes */
	u32 nr_cpus;
	u32 log_parts; /* a power of two */
	u32 layer_at; /* where in the value of `task_ctxs` a task's layer stands, plus one; 0: nowhere */
	u32 fail_ids_every; /* for tests: every Nth look-up of a task's id fails, as it does when storage cannot be had */
	u8 filter_pids;
	u8 filter_cgroups;
	u8 filter_cpus;
	u8 weak_order; /* stores may be seen in another order than they were made */
	u32 late_every; /* for tests: every Nth record in a log is committed some microseconds after it was claimed */
};

struct control {
	/* Set when all programs are attached, cleared when the recording ends. */
	u64 enabled;
	/* From a CPU's run queue to its preempt_count, in bytes; 0: not known, every waking counts as a task's. */
	s64 preempt_count_from_rq;
	/* Where in a task's bpf_local_storage ours is cached, in bytes, plus one; 0: not known. list_tasks finds it. */
	u64 storage_cached;
};

/*
 * Per CPU, read and written by user space through the map behind the .data.cpus section. What every event touches comes
 * first, in one cache line: flags and places, and the counts of the frequent kinds.
 */
struct cpu_state {
	u64 log; /* where its log lies in the arena, as user space has it mapped */
	u64 loss_from; /* 0: no loss that has not been told */
	u32 records;
	u16 shard;
	u8 selected;
	u8 pad;
	u64 emitted[REC_KINDS];
	u64 lost[REC_KINDS];
	u64 passed_over[REC_KINDS]; /* runs outside of the recording, or of what the filters leave out */
	u64 loss_until;
	u64 preempt_count_at; /* address of this CPU's preempt_count, once it was needed */
} __attribute__((aligned(64)));

/*
 * A log in the arena: this, and then settings.log_parts parts, round and round. Whoever writes and whoever reads have
 * a cache line each.
 */
struct log {
	u64 head; /* parts claimed since the start */
	u64 limit; /* up to which parts there was room when `tail` was last looked at */
	u64 head_line[6];
	u64 tail; /* parts read since the start */
	u64 rung; /* the bell was rung since the reader last looked */
	u64 tail_line[6];
};

#endif
