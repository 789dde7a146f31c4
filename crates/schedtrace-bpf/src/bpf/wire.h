/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What crosses the rings. Little structs, each beginning with its type; `src/wire.rs` says the same
 * in Rust, and a test compares the two by the object's BTF.
 *
 * With the ring's own 8-byte header every scheduling record takes 32 bytes.
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
	REC_KINDS,
	REC_LOSS = 32,
};

enum rec_flags {
	/* A task could not be given an id: its id field is 0, and a struct rec_raw stands behind the record. */
	REC_RAW = 0x80,
	SWITCH_PREEMPT = 0x01,
	WAKING_ON_CPU = 0x01,
	WAKING_CONTEXT_SHIFT = 1, /* two bits: 0 task, 1 softirq, 2 hardirq, 3 NMI */
	MIGRATE_PLACED = 0x01,
	EXIT_GROUP_DEAD = 0x01,
	TASK_KTHREAD = 0x01,
	TASK_ON_CPU = 0x02,
	TASK_SELECTED = 0x04, /* only in the listing */
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

/* Any of the above as four words, for the path that is not hot. */
struct rec_any {
	u8 type;
	u8 flags;
	u16 cpu;
	u32 a;
	u64 ts;
	u32 b;
	u32 rest;
};

/* Follows a record with REC_RAW: who the tasks without an id are. */
struct rec_raw {
	u64 a_ptr;
	u64 b_ptr;
	u64 a_start;
	u64 b_start;
	u32 a_tid;
	u32 b_tid;
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

struct control {
	/* Set when all programs are attached, cleared when the recording ends. */
	u64 enabled;
	/* From a CPU's run queue to its preempt_count, in bytes; 0: not known, every waking counts as a task's. */
	s64 preempt_count_from_rq;
};

/* Per CPU, read and written by user space through the map behind the .data.cpus section. */
struct cpu_state {
	u64 emitted[REC_KINDS];
	u64 lost[REC_KINDS];
	u64 passed_over[REC_KINDS]; /* runs outside of the recording, or of what the filters leave out */
	u64 loss_from; /* 0: no loss that has not been told */
	u64 loss_until;
	u64 preempt_count_at; /* address of this CPU's preempt_count, once it was needed */
	u32 records;
	u16 shard;
	u8 selected;
	u8 pad;
} __attribute__((aligned(64)));

#endif
