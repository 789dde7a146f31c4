/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The kernel's types, with only the fields in use. `preserve_access_index` makes each access a
 * CO-RE relocation, so that libbpf finds the field where the running kernel has it.
 */
#ifndef SCHEDTRACE_KERNEL_H
#define SCHEDTRACE_KERNEL_H

typedef signed int s32;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed long long s64;
typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef signed char __s8;
typedef signed short __s16;
typedef s32 __s32;
typedef s64 __s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u64 __be64;
typedef u32 __wsum;
#ifndef bool
typedef _Bool bool;
#define true 1
#define false 0
#endif
#define NULL ((void *)0)

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
	BPF_MAP_TYPE_ARENA = 33,
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1 << 10 };
enum { BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };
enum { BPF_RB_AVAIL_DATA = 0 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[];
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

/* Any of the kernel's structs that begins with 32 bits and nothing else. */
struct refcount_struct {
	atomic_t refs;
};

/* Any of the kernel's structs that begins with two words and no pointer. */
struct timespec64 {
	s64 tv_sec;
	s64 tv_nsec;
};

struct bpf_local_storage_map;

struct bpf_local_storage_data {
	struct bpf_local_storage_map *smap;
	u8 data[];
};

struct bpf_local_storage {
	struct bpf_local_storage_data *cache[16];
};

struct thread_info {
	u32 cpu;
};

typedef struct {
	u32 val;
} kuid_t;

typedef struct {
	u64 val;
} kernel_cap_t;

struct cred {
	kuid_t uid;
	kuid_t euid;
	kernel_cap_t cap_effective;
};

struct rq;

struct cfs_rq {
	struct rq *rq;
	int throttle_count;
};

struct sched_entity {
	struct cfs_rq *cfs_rq;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	unsigned int flags;
	int on_cpu;
	int on_rq;
	int wake_cpu;
	int prio;
	int normal_prio;
	struct sched_entity se;
	int pid;
	int tgid;
	u64 start_time;
	char comm[16];
	struct task_struct *real_parent;
	struct css_set *cgroups;
	struct signal_struct *signal;
	const struct cred *cred;
	unsigned int policy;
	bool throttled;
	unsigned int in_iowait : 1;
	struct bpf_local_storage *bpf_storage;
};

struct linux_binprm {
	unsigned int secureexec : 1;
};

struct seq_file;

struct upid {
	int nr;
};

struct pid {
	struct upid numbers[1];
};

struct irqaction {
	const char *name;
};

struct cpumask {
	unsigned long bits[1];
};

struct work_struct {
	void (*func)(struct work_struct *work);
};

struct gendisk {
	char disk_name[32];
};

struct request_queue {
	struct gendisk *disk;
};

struct request {
	struct request_queue *q;
	u32 cmd_flags;
	u32 __data_len;
	u64 __sector;
};

struct bpf_perf_event_data {
	u64 regs[21]; /* not looked at */
	u64 sample_period;
	u64 addr;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

/* Where arm64 and others keep preempt_count. */
struct preempt_parts___arm64 {
	u32 count;
};
struct thread_info___arm64 {
	struct preempt_parts___arm64 preempt;
};
struct task_struct___arm64 {
	struct thread_info___arm64 thread_info;
};

/* A call's registers: those of user space, and the call's number. */
struct pt_regs;
struct pt_regs___x86 {
	unsigned long di, si, dx, orig_ax;
};
struct pt_regs___arm64 {
	u64 regs[31];
	u64 orig_x0;
	s32 syscallno;
};
/* A call of a 32-bit program says so here, on x86. */
struct thread_info___x86 {
	u32 status;
};
struct task_struct___x86 {
	struct thread_info___x86 thread_info;
};

#pragma clang attribute pop

#define MAX_RT_PRIO 100 /* include/linux/sched/prio.h */
#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */
#define TS_COMPAT 0x0002 /* arch/x86/include/asm/thread_info.h */
#define REQ_OP_MASK 0xff /* include/linux/blk_types.h */

#endif
