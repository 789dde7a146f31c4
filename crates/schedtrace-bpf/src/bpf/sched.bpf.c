// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Records what the scheduler does. One program per tracepoint, all of them tp_btf.
 *
 * The path of a frequent event: look up both tasks' ids (task-local storage), reserve 24 bytes on
 * the shard's ring, read the clock, fill, submit without a wakeup. The clock is read *after* the
 * reservation: a reader that reads the clock and then the producer position has every record that is
 * older than its clock reading.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "wire.h"

#define ID_IDLE 0x80000000u
#define MAX_CGROUP_DEPTH 32

extern void *bpf_rdonly_cast(const void *obj, u32 btf_id) __ksym __weak;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Set before loading; the verifier sees constants, and drops what is switched off. */
const volatile u32 nr_cpus = 1;
const volatile u64 wake_bytes = 0; /* wake the reader at this fill of a ring; 0: never */
const volatile bool filter_pids = false;
const volatile bool filter_cgroups = false;
const volatile bool filter_cpus = false;
/* Kinds to send (bits by their number). Fork, exec, free and rename programs run in any case: they keep identities true. */
const volatile u32 kinds = ~0u;
/* For tests: every Nth look-up of a task's id fails, as it does when storage cannot be had. */
const volatile u32 fail_ids_every = 0;

/* Written by user space alone, so that one map update changes all of it. */
volatile struct control control SEC(".data.control");

u32 last_id = 0;
u32 lookups = 0;
/* What list_tasks reads as preempt_count: it runs in a task, so that a reader can see whether the distance holds. */
u32 preempt_count_seen = 0;

/* Brings the records into the object's BTF, where the test of src/wire.rs looks them up. */
const union wire_records {
	struct rec_switch a;
	struct rec_waking b;
	struct rec_wakeup_new c;
	struct rec_migrate d;
	struct rec_life e;
	struct rec_raw f;
	struct rec_task g;
	struct rec_loss h;
} *wire_records __attribute__((unused));

/* Resized to the number of possible CPU ids before loading. */
struct cpu_state cpus[1] SEC(".data.cpus");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct ring);
} rings SEC(".maps");

/* Lifecycle, identity and loss: a storm of switches cannot push them out. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} lifecycle SEC(".maps");

struct task_info {
	u32 id;
	bool announced; /* the record with its identity was accepted */
	bool selected; /* by the filters for processes and cgroups */
	u64 cgroups; /* task->cgroups when it was announced */
};

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

/* The barrier keeps the compiler from computing the address before the check, which the verifier would not follow. */
static __always_inline struct cpu_state *state_of(u32 cpu)
{
	if (cpu >= nr_cpus)
		return NULL;
	barrier_var(cpu);
	return &cpus[cpu];
}

static __always_inline struct cpu_state *this_cpu(u32 *cpu)
{
	*cpu = bpf_get_smp_processor_id();
	return state_of(*cpu);
}

/* Every run counts, so that what the kernel says of runs can be compared with what was recorded of them. */
static __always_inline int pass_over(struct cpu_state *c, u32 kind)
{
	c->passed_over[kind]++;
	return 0;
}

static __always_inline bool cpu_selected(u32 cpu)
{
	struct cpu_state *c;

	if (!filter_cpus)
		return true;
	c = state_of(cpu);
	return c && c->selected;
}

static __always_inline void note_loss(struct cpu_state *c, u32 kind)
{
	u64 now = bpf_ktime_get_ns();

	__sync_fetch_and_add(&c->lost[kind], 1);
	c->loss_until = now;
	__sync_val_compare_and_swap(&c->loss_from, 0, now);
}

/* Every 32nd record asks whether the reader should be woken: the question costs more than a record should. */
static __always_inline u64 wakeup_flag(struct cpu_state *c, void *ring)
{
	if (!wake_bytes || (++c->records & 31))
		return BPF_RB_NO_WAKEUP;
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) >= wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
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

	if (filter_pids && !bpf_map_lookup_elem(&pids, &tgid))
		return false;
	return !filter_cgroups || in_cgroups(t);
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

/* A task that is new, was not announced, or has moved to another cgroup. */
static __noinline u32 meet(struct task_struct *t, bool *selected)
{
	struct task_info *info = adopt(t);
	u64 cgroups;

	if (!info) {
		*selected = select(t);
		return 0;
	}
	cgroups = (u64)t->cgroups;
	info->selected = select(t);
	*selected = info->selected;
	if (announce(t, info->id, NULL)) {
		info->cgroups = cgroups;
		info->announced = true;
	}
	return info->id;
}

/* The id of a task; 0 where it cannot have one now. */
static __always_inline u32 id_of(struct task_struct *t, u32 cpu, bool *selected)
{
	struct task_info *info;

	if (t->pid == 0) {
		*selected = !filter_pids && !filter_cgroups;
		return ID_IDLE | cpu;
	}
	if (fail_ids_every && __sync_fetch_and_add(&lookups, 1) % fail_ids_every == 0) {
		*selected = select(t);
		return 0;
	}
	info = bpf_task_storage_get(&tasks, t, 0, 0);
	if (likely(info && info->announced && info->cgroups == (u64)t->cgroups)) {
		*selected = info->selected;
		return info->id;
	}
	return meet(t, selected);
}

/* A record with a task that has no id: pointer and thread id follow it, and so does an identity. */
static __noinline int send_raw(struct rec_any *any, struct task_struct *a, struct task_struct *b, bool life)
{
	struct {
		struct rec_any any;
		struct rec_raw raw;
	} *r;
	struct cpu_state *c;
	u32 cpu, shard, kind = any->type;
	void *ring;

	c = this_cpu(&cpu);
	if (!c || kind >= REC_KINDS)
		return 0;
	if (!any->a)
		announce(a, 0, NULL);
	if (b && !any->b)
		announce(b, 0, NULL);
	if (life) {
		r = bpf_ringbuf_reserve(&lifecycle, sizeof(*r), 0);
	} else {
		shard = c->shard;
		ring = bpf_map_lookup_elem(&rings, &shard);
		r = ring ? bpf_ringbuf_reserve(ring, sizeof(*r), 0) : NULL;
	}
	if (!r) {
		note_loss(c, kind);
		return 0;
	}
	r->any = *any;
	r->any.flags |= REC_RAW;
	r->any.ts = bpf_ktime_get_ns();
	r->raw.a_ptr = (u64)a;
	r->raw.a_start = a->start_time;
	r->raw.a_tid = a->pid;
	r->raw.b_ptr = (u64)b;
	r->raw.b_start = b ? b->start_time : 0;
	r->raw.b_tid = b ? b->pid : 0;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

#define AS_ANY(rec) ((struct rec_any *)&(rec))

/*
 * Copies a finished 24-byte record to the ring of this CPU's shard, or to the one for lifecycles. `kind` is a
 * constant wherever this is called; `lacks_id` says that some task of the record has no id.
 */
static __always_inline void send(struct cpu_state *c, u32 cpu, u32 kind, struct rec_any *any, struct task_struct *a,
				 struct task_struct *b, bool lacks_id)
{
	bool life = kind >= REC_FORK;
	u32 shard = c->shard;
	struct rec_any *r;
	void *ring = NULL;
	u64 flag;

	if (life && !(kinds & 1u << kind)) {
		pass_over(c, kind);
		return;
	}
	c->emitted[kind]++;
	if (unlikely(lacks_id)) {
		send_raw(any, a, b, life);
		return;
	}
	if (life) {
		r = bpf_ringbuf_reserve(&lifecycle, sizeof(*r), 0);
	} else {
		ring = bpf_map_lookup_elem(&rings, &shard);
		r = ring ? bpf_ringbuf_reserve(ring, sizeof(*r), 0) : NULL;
	}
	if (unlikely(!r)) {
		note_loss(c, kind);
		return;
	}
	any->ts = bpf_ktime_get_ns();
	*r = *any;
	flag = life ? wakeup_flag(c, &lifecycle) : wakeup_flag(c, ring);
	bpf_ringbuf_submit(r, flag);
	if (unlikely(c->loss_from))
		tell_loss(c, cpu);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)
{
	bool prev_selected, next_selected;
	struct cpu_state *c;
	u32 cpu;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	if (!control.enabled || !cpu_selected(cpu))
		return pass_over(c, REC_SWITCH);
	struct rec_switch r = {
		.type = REC_SWITCH,
		.flags = preempt ? SWITCH_PREEMPT : 0,
		.cpu = cpu,
		.prev = id_of(prev, cpu, &prev_selected),
		.next = id_of(next, cpu, &next_selected),
		.prev_state = prev_state,
		.prev_prio = prev->prio,
		.next_prio = next->prio,
	};
	if (!prev_selected && !next_selected)
		return pass_over(c, REC_SWITCH);
	send(c, cpu, REC_SWITCH, AS_ANY(r), prev, next, !r.prev || !r.next);
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
	bool selected, waker_selected;
	struct cpu_state *c;
	u32 cpu, prev_cpu;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	prev_cpu = cpu_of(p);
	if (!control.enabled || !(cpu_selected(cpu) || cpu_selected(prev_cpu)))
		return pass_over(c, REC_WAKING);
	current = bpf_get_current_task_btf();
	struct rec_waking r = {
		.type = REC_WAKING,
		.flags = (p->on_cpu ? WAKING_ON_CPU : 0) | context(c, current) << WAKING_CONTEXT_SHIFT,
		.cpu = cpu,
		.task = id_of(p, cpu, &selected),
		.current_task = id_of(current, cpu, &waker_selected),
		.prev_cpu = prev_cpu,
		.prio = p->prio,
	};
	if (!selected && !waker_selected)
		return pass_over(c, REC_WAKING);
	send(c, cpu, REC_WAKING, AS_ANY(r), p, current, !r.task || !r.current_task);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *p)
{
	struct task_struct *current;
	bool selected, parent_selected;
	struct cpu_state *c;
	u32 cpu, target;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	target = cpu_of(p);
	if (!control.enabled || !(cpu_selected(cpu) || cpu_selected(target)))
		return pass_over(c, REC_WAKEUP_NEW);
	current = bpf_get_current_task_btf();
	struct rec_wakeup_new r = {
		.type = REC_WAKEUP_NEW,
		.cpu = cpu,
		.task = id_of(p, cpu, &selected),
		.parent = id_of(current, cpu, &parent_selected),
		.target_cpu = target,
		.prio = p->prio,
	};
	if (!selected && !parent_selected)
		return pass_over(c, REC_WAKEUP_NEW);
	send(c, cpu, REC_WAKEUP_NEW, AS_ANY(r), p, current, !r.task || !r.parent);
	return 0;
}

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(sched_migrate_task, struct task_struct *p, int dest_cpu)
{
	struct cpu_state *c;
	bool selected;
	u32 cpu, from;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	from = cpu_of(p);
	if (!control.enabled || !(cpu_selected(from) || cpu_selected(dest_cpu)))
		return pass_over(c, REC_MIGRATE);
	struct rec_migrate r = {
		.type = REC_MIGRATE,
		/* Who moves it from queue to queue leaves a mark here; try_to_wake_up(), choosing a CPU, finds it on none. */
		.flags = p->on_rq ? 0 : MIGRATE_PLACED,
		.cpu = cpu,
		.task = id_of(p, cpu, &selected),
		.from = from,
		.to = dest_cpu,
		.prio = p->prio,
	};
	if (!selected)
		return pass_over(c, REC_MIGRATE);
	send(c, cpu, REC_MIGRATE, AS_ANY(r), p, NULL, !r.task);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	bool parent_selected, child_selected;
	struct cpu_state *c;
	u32 cpu, tgid;
	u8 one = 1;

	/* Also before recording starts: a process that is followed may fork at any time. */
	if (filter_pids) {
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
	struct rec_life r = {
		.type = REC_FORK,
		.cpu = cpu,
		.task = id_of(parent, cpu, &parent_selected),
		.child = id_of(child, cpu, &child_selected),
	};
	if (!parent_selected && !child_selected)
		return pass_over(c, REC_FORK);
	send(c, cpu, REC_FORK, AS_ANY(r), parent, child, !r.task || !r.child);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *p, int old_pid, struct linux_binprm *bprm)
{
	struct task_info *info;
	struct cpu_state *c;
	bool selected;
	u32 cpu;

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
	struct rec_life r = {
		.type = REC_EXEC,
		.cpu = cpu,
		.task = id_of(p, cpu, &selected),
		.old_tid = old_pid,
	};
	if (!selected)
		return pass_over(c, REC_EXEC);
	send(c, cpu, REC_EXEC, AS_ANY(r), p, NULL, !r.task);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *p)
{
	struct cpu_state *c;
	bool selected;
	u32 cpu;

	c = this_cpu(&cpu);
	if (!c)
		return 0;
	if (!control.enabled)
		return pass_over(c, REC_EXIT);
	struct rec_life r = {
		.type = REC_EXIT,
		/* do_exit() has taken this thread off signal->live before the tracepoint. */
		.flags = p->signal->live.counter == 0 ? EXIT_GROUP_DEAD : 0,
		.cpu = cpu,
		.task = id_of(p, cpu, &selected),
	};
	if (!selected)
		return pass_over(c, REC_EXIT);
	send(c, cpu, REC_EXIT, AS_ANY(r), p, NULL, !r.task);
	return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(sched_process_free, struct task_struct *p)
{
	struct task_info *info;
	struct cpu_state *c;
	u32 cpu, tgid;

	if (filter_pids && p->pid == p->tgid) {
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
	struct rec_life r = {
		.type = REC_FREE,
		.cpu = cpu,
		.task = info->id,
	};
	send(c, cpu, REC_FREE, AS_ANY(r), p, NULL, !r.task);
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
	struct rec_life r = {
		.type = REC_RENAME,
		.cpu = cpu,
		.task = info->id,
	};
	send(c, cpu, REC_RENAME, AS_ANY(r), p, NULL, !r.task);
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
