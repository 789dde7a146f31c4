/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Who tasks are, and what everybody records of the scheduler. One program per tracepoint, all of them tp_btf.
 *
 * The path of a frequent event: look up both tasks' ids (task-local storage), and put a record of 24 bytes where those
 * of this CPU go. What includes this says where that is, before it does:
 *
 *   put(c, parts, n)       the record's `n` parts, a constant, on the way of frequent events
 *   put_life(c, parts, n)  on the ring for lifecycle
 *
 * Both give the record its time, *after* they have taken room for it: a reader that reads the clock, and then how much
 * room was taken, has every record that is older than its clock reading.
 */
#ifndef SCHEDTRACE_SCHED_H
#define SCHEDTRACE_SCHED_H

#include "common.h"

#define ID_IDLE 0x80000000u
#define MAX_CGROUP_DEPTH 32
#define RAW_PARTS 3
#define CACHED_STORAGES 16 /* BPF_LOCAL_STORAGE_CACHE_SIZE, include/linux/bpf_local_storage.h */

extern void *bpf_rdonly_cast(const void *obj, u32 btf_id) __ksym __weak;

struct task_info {
	u32 id;
	bool announced; /* the record with its identity was accepted */
	bool selected; /* by the filters for processes and cgroups */
	u16 pad;
	u64 cgroups; /* task->cgroups when it was announced */
};

/* The same as bits of its first word. */
#define INFO_ANNOUNCED (1ull << 32)
#define INFO_SELECTED (1ull << 40)

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_info);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, u8);
} pids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u8);
} cgroups SEC(".maps");

static __always_inline bool cpu_selected(u32 cpu)
{
	struct cpu_state *c;

	if (!settings.filter_cpus)
		return true;
	c = state_of(cpu);
	return c && c->selected;
}

/* The ring has room again: say what it lost, and between which times. */
static __noinline int tell_loss(struct cpu_state *c, u32 cpu)
{
	struct rec_loss *r;
	u64 from;

	if (!c)
		return 0;
	from = __sync_lock_test_and_set(&c->loss_from, 0);
	if (!from)
		return 0;
	r = bpf_ringbuf_reserve(&lifecycle, sizeof(*r), 0);
	if (!r) {
		__sync_val_compare_and_swap(&c->loss_from, 0, from);
		return 0;
	}
	r->type = REC_LOSS;
	r->flags = 0;
	r->cpu = cpu;
	r->pad = 0;
	r->ts = bpf_ktime_get_ns();
	r->from = from;
	r->until = c->loss_until;
	for (int i = 0; i < REC_KINDS; i++)
		r->lost[i] = c->lost[i];
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline u32 cpu_of(struct task_struct *t)
{
	return bpf_core_field_exists(t->thread_info.cpu) ? t->thread_info.cpu : t->wake_cpu;
}

static __always_inline u64 cgroup_of(struct task_struct *t)
{
	return t->cgroups->dfl_cgrp->kn->id;
}

static __always_inline bool in_cgroups(struct task_struct *t)
{
	struct cgroup *cgrp = t->cgroups->dfl_cgrp;
	int level = cgrp->level;

	for (int i = 0; i < MAX_CGROUP_DEPTH; i++) {
		struct cgroup *up;
		u64 id;

		if (i > level)
			break;
		up = BPF_CORE_READ(cgrp, ancestors[i]);
		id = BPF_CORE_READ(up, kn, id);
		if (bpf_map_lookup_elem(&cgroups, &id))
			return true;
	}
	return false;
}

static __always_inline bool select(struct task_struct *t)
{
	u32 tgid = t->tgid;

	if (settings.filter_pids && !bpf_map_lookup_elem(&pids, &tgid))
		return false;
	return !settings.filter_cgroups || in_cgroups(t);
}

static __always_inline void describe(struct rec_task *r, struct task_struct *t, u32 id)
{
	r->type = REC_TASK;
	r->flags = (t->flags & PF_KTHREAD ? TASK_KTHREAD : 0) | (t->on_cpu ? TASK_ON_CPU : 0);
	r->cpu = cpu_of(t);
	r->id = id;
	r->ts = bpf_ktime_get_ns();
	r->ptr = (u64)t;
	r->start = t->start_time;
	r->cgroup = cgroup_of(t);
	r->tid = t->pid;
	r->tgid = t->tgid;
	r->ppid = t->real_parent->tgid;
	r->state = t->__state;
	bpf_probe_read_kernel(r->comm, sizeof(r->comm), t->comm);
}

/* Sends who the task is; `comm` overrides the name where it is about to change. */
static __noinline bool announce(struct task_struct *t, u32 id, const char *comm)
{
	struct rec_task *r;
	struct cpu_state *c;
	u32 cpu;

	c = this_cpu(&cpu);
	if (!c)
		return false;
	__sync_fetch_and_add(&c->emitted[REC_TASK], 1);
	r = bpf_ringbuf_reserve(&lifecycle, sizeof(*r), 0);
	if (!r) {
		note_loss(c, REC_TASK);
		return false;
	}
	describe(r, t, id);
	if (comm)
		bpf_probe_read_kernel_str(r->comm, sizeof(r->comm), comm);
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return true;
}

/* Gives a task its id. Returns NULL where task storage cannot be had. */
static __always_inline struct task_info *adopt(struct task_struct *t)
{
	struct task_info *info = bpf_task_storage_get(&tasks, t, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (info && !info->id) {
		u32 id = __sync_fetch_and_add(&last_id, 1) + 1;
		/* Two CPUs may meet the same task at once: the first one names it. */
		__sync_val_compare_and_swap(&info->id, 0, id);
	}
	return info;
}

/* A task that was not known at first sight: often it is new, was not announced, or has moved to another cgroup. */
static __noinline u32 meet(struct task_struct *t, bool *selected)
{
	struct task_info *info = adopt(t);
	u64 cgroups;

	if (!info) {
		*selected = select(t);
		return 0;
	}
	cgroups = (u64)t->cgroups;
	if (info->announced && info->cgroups == cgroups) {
		*selected = info->selected;
		return info->id;
	}
	info->selected = select(t);
	*selected = info->selected;
	if (announce(t, info->id, NULL)) {
		info->cgroups = cgroups;
		info->announced = true;
	}
	return info->id;
}

/* The word at an address of the kernel's; 0 where there is none. Needs bpf_rdonly_cast() (Linux 6.2), which is no call. */
static __always_inline u64 word_at(u64 address)
{
	struct timespec64 *words = bpf_rdonly_cast((void *)address, bpf_core_type_id_kernel(struct timespec64));

	return words->tv_sec;
}

static __always_inline bool can_look(struct task_struct *t)
{
	return bpf_ksym_exists(bpf_rdonly_cast) && bpf_core_field_exists(t->bpf_storage) &&
	       bpf_core_type_exists(struct bpf_local_storage_data);
}

/* A storage of the task that the kernel has cached at such a place, if it is ours; otherwise 0. */
static __always_inline u64 cached_storage(struct task_struct *t, u64 at)
{
	u64 storage = word_at((u64)__builtin_preserve_access_index(&t->bpf_storage)), data;

	if (!storage)
		return 0;
	data = word_at(storage + at);
	if (!data || word_at(data + bpf_core_field_offset(struct bpf_local_storage_data, smap)) != (u64)&tasks)
		return 0;
	return data + bpf_core_field_offset(struct bpf_local_storage_data, data);
}

/*
 * What is known of a task, as bpf_task_storage_get() would find it at first sight (bpf_local_storage_lookup(),
 * include/linux/bpf_local_storage.h), read here: the call takes several times as long. Nothing depends on it: where the
 * kernel has this otherwise, or has cached others of the task's storages, nothing is found. The first word of a struct
 * task_info, or 0: the task is new, was not announced, is in another cgroup, or is not found.
 */
static __always_inline u64 known(struct task_struct *t)
{
	u64 at = control.storage_cached, info;

	if (!at || !can_look(t))
		return 0;
	info = cached_storage(t, at - 1);
	if (!info || word_at(info + sizeof(u64)) != (u64)t->cgroups)
		return 0;
	return word_at(info);
}

/* Finds the place, which is the same for all tasks. */
static __always_inline void find_cached(struct task_struct *t)
{
	if (!can_look(t))
		return;
	for (u32 i = 0; i < CACHED_STORAGES; i++) {
		u64 at = bpf_core_field_offset(struct bpf_local_storage, cache) + i * sizeof(void *);

		if (cached_storage(t, at))
			control.storage_cached = at + 1;
	}
}

/* The id of a task; 0 where it cannot have one now. */
static __always_inline u32 id_of(struct task_struct *t, u32 cpu, bool *selected)
{
	bool filter = settings.filter_pids || settings.filter_cgroups;
	bool chosen = true;
	u64 info;
	u32 id;

	if (t->pid == 0) {
		*selected = !filter;
		return ID_IDLE | cpu;
	}
	if (settings.fail_ids_every && __sync_fetch_and_add(&lookups, 1) % settings.fail_ids_every == 0) {
		*selected = select(t);
		return 0;
	}
	info = known(t);
	if (likely(info & INFO_ANNOUNCED)) {
		*selected = !filter || info & INFO_SELECTED;
		return info;
	}
	id = meet(t, &chosen);
	*selected = chosen;
	return id;
}

/* What goes over the ring for lifecycle. */
static __always_inline bool is_life(u32 kind)
{
	return kind >= REC_FORK && kind <= REC_TASK;
}

/* Who a task is, or nobody, as a part behind a record. */
static __always_inline struct part who_is(u32 cpu, struct task_struct *t)
{
	struct part who = { .head = HEAD(REC_WHO, 0, cpu, t ? t->pid : 0), .ts = (u64)t, .tail = t ? t->start_time : 0 };

	return who;
}

/* A record with a task that has no id: who its tasks are follows it, and so does an identity. */
static __noinline int send_raw(struct part *any, struct task_struct *a, struct task_struct *b)
{
	u32 kind = any->head & 0xff;
	struct part parts[RAW_PARTS];
	struct cpu_state *c;
	u32 cpu;

	/* Or it is computed again after the check, and Linux 6.1 does not see that it is the same. */
	barrier_var(kind);
	c = this_cpu(&cpu);
	if (!c || kind >= REC_KINDS)
		return 0;
	if (!(any->head >> 32))
		announce(a, 0, NULL);
	if (b && !(u32)any->tail)
		announce(b, 0, NULL);
	parts[0] = *any;
	parts[0].head |= REC_RAW << 8;
	parts[1] = who_is(cpu, a);
	parts[2] = who_is(cpu, b);
	if (!(is_life(kind) ? put_life(c, parts, RAW_PARTS) : put(c, parts, RAW_PARTS)))
		note_loss(c, kind);
	return 0;
}

static __always_inline bool is_wanted(u32 kind)
{
	return settings.kinds & 1ull << kind;
}

/*
 * Sends a record: `head` and `tail` are its first and last eight bytes, between which comes the time. `kind` is a
 * constant wherever this is called; `lacks_id` says that some task of the record has no id.
 */
static __always_inline void send(struct cpu_state *c, u32 cpu, u32 kind, u64 head, u64 tail, struct task_struct *a,
				 struct task_struct *b, bool lacks_id)
{
	struct part part = { .head = head, .tail = tail };
	bool life = is_life(kind);

	if (life && !is_wanted(kind)) {
		pass_over(c, kind);
		return;
	}
	c->emitted[kind]++;
	if (unlikely(lacks_id)) {
		send_raw(&part, a, b);
		return;
	}
	if (unlikely(!(life ? put_life(c, &part, 1) : put(c, &part, 1)))) {
		note_loss(c, kind);
		return;
	}
	if (unlikely(c->loss_from))
		tell_loss(c, cpu);
}

/*
 * The state in which a task leaves its CPU, and what the state does not say: that it waits for I/O as the kernel counts
 * it, or that it would go on if its cgroup had not used up its quota.
 */
static __always_inline u32 leaves_in(struct task_struct *prev, u32 state, bool preempt)
{
	state &= ~(STATE_THROTTLED | STATE_IOWAIT);
	if (state && !preempt)
		return BPF_CORE_READ_BITFIELD(prev, in_iowait) ? state | STATE_IOWAIT : state;
	if (bpf_core_field_exists(prev->throttled))
		return prev->throttled ? state | STATE_THROTTLED : state;
	/* Before Linux 6.18 a whole queue was throttled, with all that is on it; real-time tasks are on others. */
	if (prev->prio >= MAX_RT_PRIO && bpf_core_field_exists(prev->se.cfs_rq) &&
	    bpf_core_field_exists(prev->se.cfs_rq->throttle_count))
		return prev->se.cfs_rq->throttle_count ? state | STATE_THROTTLED : state;
	return state;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)
{
	bool prev_selected, next_selected;
	u32 cpu, prev_id, next_id;
	struct cpu_state *c;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	if (!control.enabled || !cpu_selected(cpu))
		return pass_over(c, REC_SWITCH);
	prev_id = id_of(prev, cpu, &prev_selected);
	next_id = id_of(next, cpu, &next_selected);
	if (!prev_selected && !next_selected)
		return pass_over(c, REC_SWITCH);
	send(c, cpu, REC_SWITCH, HEAD(REC_SWITCH, preempt ? SWITCH_PREEMPT : 0, cpu, prev_id),
	     TAIL(next_id, (u16)leaves_in(prev, prev_state, preempt) | (u8)prev->prio << 16 | (u8)next->prio << 24), prev, next,
	     !prev_id || !next_id);
	return 0;
}

/*
 * arm64 and others keep preempt_count in thread_info. x86 keeps it in a per-CPU variable, whose address a
 * program learns by name only where the kernel has CONFIG_KALLSYMS_ALL. So go from another per-CPU variable,
 * the run queue, which every task points to: BTF tells how far apart the two are.
 */
static __always_inline u32 preempt_count(struct cpu_state *c, struct task_struct *current)
{
	struct task_struct___arm64 *t = (void *)current;
	u32 count = 0;
	u64 rq;

	if (bpf_core_field_exists(t->thread_info.preempt.count)) {
		bpf_core_read(&count, sizeof(count), &t->thread_info.preempt.count);
	} else if (control.preempt_count_from_rq && bpf_core_field_exists(current->se.cfs_rq)) {
		if (!c->preempt_count_at) {
			rq = (u64)BPF_CORE_READ(current, se.cfs_rq, rq);
			if (!rq)
				return 0;
			c->preempt_count_at = rq + control.preempt_count_from_rq;
		}
		/* As a type of the kernel's where it allows that (Linux 6.2): the call takes a fifth of the program's time. */
		if (bpf_ksym_exists(bpf_rdonly_cast)) {
			struct refcount_struct *at = bpf_rdonly_cast((void *)c->preempt_count_at,
								     bpf_core_type_id_kernel(struct refcount_struct));
			count = at->refs.counter;
		} else {
			bpf_probe_read_kernel(&count, sizeof(count), (void *)c->preempt_count_at);
		}
	}
	return count;
}

/* include/linux/preempt.h: bits 8-15 softirq (bit 8: serving one), 16-19 hardirq, 20-23 NMI. */
static __always_inline u32 context(struct cpu_state *c, struct task_struct *current)
{
	u32 count = preempt_count(c, current);

	if (count & 0xf00000)
		return 3;
	if (count & 0x0f0000)
		return 2;
	return count & 0x100 ? 1 : 0;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(sched_waking, struct task_struct *p)
{
	struct task_struct *current;
	u32 cpu, prev_cpu, id, waker, flags;
	bool selected, waker_selected;
	struct cpu_state *c;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	prev_cpu = cpu_of(p);
	if (!control.enabled || !(cpu_selected(cpu) || cpu_selected(prev_cpu)))
		return pass_over(c, REC_WAKING);
	current = bpf_get_current_task_btf();
	id = id_of(p, cpu, &selected);
	waker = id_of(current, cpu, &waker_selected);
	if (!selected && !waker_selected)
		return pass_over(c, REC_WAKING);
	flags = (p->on_cpu ? WAKING_ON_CPU : 0) | context(c, current) << WAKING_CONTEXT_SHIFT;
	send(c, cpu, REC_WAKING, HEAD(REC_WAKING, flags, cpu, id), TAIL(waker, (u16)prev_cpu | (u8)p->prio << 16), p,
	     current, !id || !waker);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *p)
{
	struct task_struct *current;
	u32 cpu, target, id, parent;
	bool selected, parent_selected;
	struct cpu_state *c;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	target = cpu_of(p);
	if (!control.enabled || !(cpu_selected(cpu) || cpu_selected(target)))
		return pass_over(c, REC_WAKEUP_NEW);
	current = bpf_get_current_task_btf();
	id = id_of(p, cpu, &selected);
	parent = id_of(current, cpu, &parent_selected);
	if (!selected && !parent_selected)
		return pass_over(c, REC_WAKEUP_NEW);
	send(c, cpu, REC_WAKEUP_NEW, HEAD(REC_WAKEUP_NEW, 0, cpu, id), TAIL(parent, (u16)target | (u8)p->prio << 16), p,
	     current, !id || !parent);
	return 0;
}

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(sched_migrate_task, struct task_struct *p, int dest_cpu)
{
	struct cpu_state *c;
	u32 cpu, from, id;
	bool selected;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	from = cpu_of(p);
	if (!control.enabled || !(cpu_selected(from) || cpu_selected(dest_cpu)))
		return pass_over(c, REC_MIGRATE);
	id = id_of(p, cpu, &selected);
	if (!selected)
		return pass_over(c, REC_MIGRATE);
	/* Who moves it from queue to queue leaves a mark in `on_rq`; try_to_wake_up(), choosing a CPU, finds it on none. */
	send(c, cpu, REC_MIGRATE, HEAD(REC_MIGRATE, p->on_rq ? 0 : MIGRATE_PLACED, cpu, id),
	     TAIL((u16)from | (u32)dest_cpu << 16, (u8)p->prio), p, NULL, !id);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	bool parent_selected, child_selected;
	u32 cpu, tgid, id, child_id;
	struct cpu_state *c;
	u8 one = 1;

	/* Also before recording starts: a process that is followed may fork at any time. */
	if (settings.filter_pids) {
		tgid = parent->tgid;
		if (bpf_map_lookup_elem(&pids, &tgid)) {
			tgid = child->tgid;
			bpf_map_update_elem(&pids, &tgid, &one, BPF_ANY);
		}
	}
	c = this_cpu(&cpu);
	if (!c)
		return 0;
	if (!control.enabled)
		return pass_over(c, REC_FORK);
	id = id_of(parent, cpu, &parent_selected);
	child_id = id_of(child, cpu, &child_selected);
	if (!parent_selected && !child_selected)
		return pass_over(c, REC_FORK);
	send(c, cpu, REC_FORK, HEAD(REC_FORK, 0, cpu, id), TAIL(child_id, 0), parent, child, !id || !child_id);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *p, int old_pid, struct linux_binprm *bprm)
{
	struct task_info *info;
	struct cpu_state *c;
	bool selected;
	u32 cpu, id;

	/* A thread that is not the leader takes over the leader's id: announce it again. */
	if (old_pid != p->pid) {
		info = bpf_task_storage_get(&tasks, p, 0, 0);
		if (info)
			info->announced = false;
	}
	c = this_cpu(&cpu);
	if (!c)
		return 0;
	if (!control.enabled)
		return pass_over(c, REC_EXEC);
	id = id_of(p, cpu, &selected);
	if (!selected)
		return pass_over(c, REC_EXEC);
	send(c, cpu, REC_EXEC, HEAD(REC_EXEC, 0, cpu, id), TAIL(0, old_pid), p, NULL, !id);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *p)
{
	struct cpu_state *c;
	bool selected;
	u32 cpu, id;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	if (!control.enabled)
		return pass_over(c, REC_EXIT);
	id = id_of(p, cpu, &selected);
	if (!selected)
		return pass_over(c, REC_EXIT);
	/* do_exit() has taken this thread off signal->live before the tracepoint. */
	send(c, cpu, REC_EXIT, HEAD(REC_EXIT, p->signal->live.counter == 0 ? EXIT_GROUP_DEAD : 0, cpu, id), 0, p, NULL,
	     !id);
	return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(sched_process_free, struct task_struct *p)
{
	struct task_info *info;
	struct cpu_state *c;
	u32 cpu, tgid;

	if (settings.filter_pids && p->pid == p->tgid) {
		tgid = p->tgid;
		bpf_map_delete_elem(&pids, &tgid);
	}
	c = this_cpu(&cpu);
	if (!c)
		return 0;
	/* Only lives that were spoken of: the storage itself goes with the task. */
	info = bpf_task_storage_get(&tasks, p, 0, 0);
	if (!control.enabled || !info || !info->announced || !info->selected)
		return pass_over(c, REC_FREE);
	send(c, cpu, REC_FREE, HEAD(REC_FREE, 0, cpu, info->id), 0, p, NULL, false);
	return 0;
}

SEC("tp_btf/task_rename")
int BPF_PROG(task_rename, struct task_struct *p, const char *comm)
{
	struct task_info *info;
	struct cpu_state *c;
	u32 cpu;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	info = bpf_task_storage_get(&tasks, p, 0, 0);
	if (!info || !info->id)
		return pass_over(c, REC_RENAME); /* not met yet: it will be announced by its new name */
	if (!control.enabled) {
		info->announced = false;
		return pass_over(c, REC_RENAME);
	}
	/* The tracepoint comes before the copy. A refused announcement is made up for at the next event. */
	info->announced = announce(p, info->id, comm);
	if (!info->selected)
		return pass_over(c, REC_RENAME);
	send(c, cpu, REC_RENAME, HEAD(REC_RENAME, 0, cpu, info->id), 0, p, NULL, false);
	return 0;
}

/* Who exists, and what each is doing: read by user space before and after the start. */
SEC("iter/task")
int list_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	struct task_info *info;
	struct rec_task r = {};
	struct cpu_state *c;
	u64 cgroups;
	u32 cpu;

	if (!t)
		return 0;
	c = this_cpu(&cpu);
	if (c)
		preempt_count_seen |= preempt_count(c, bpf_get_current_task_btf());
	info = adopt(t);
	if (!control.storage_cached)
		find_cached(t);
	if (!info)
		return 0; /* it will be announced when it is first seen */
	cgroups = (u64)t->cgroups;
	info->selected = select(t);
	describe(&r, t, info->id);
	if (info->selected && cpu_selected(r.cpu))
		r.flags |= TASK_SELECTED;
	if (bpf_seq_write(ctx->meta->seq, &r, sizeof(r)) == 0) {
		info->cgroups = cgroups;
		info->announced = true;
	}
	return 0;
}

#endif
