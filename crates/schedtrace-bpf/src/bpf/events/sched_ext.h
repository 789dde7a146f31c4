/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a scheduler of sched_ext does. Its calls into the kernel have changed names and arguments from version to version
 * (kernel/sched/ext.c from 6.12 on): there is a program for each, and those are loaded whose function the kernel has.
 */

struct queued {
	u64 since;
	u64 dsq;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct queued);
} queued SEC(".maps");

/* Where scx_layered runs, this is its own map of this name, in which each task's layer stands. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} task_ctxs SEC(".maps");

extern s32 scx_bpf_dsq_nr_queued(u64 dsq) __ksym __weak;

static __always_inline int insert(struct task_struct *p, u64 dsq, u64 slice, u64 vtime)
{
	struct queued *q;
	u32 cpu, id;

	if (!begins_of(REC_SCX_INSERT, &cpu, p, &id))
		return 0;
	q = bpf_task_storage_get(&queued, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (q) {
		q->dsq = dsq;
		q->since = bpf_ktime_get_ns();
	}
	if (!is_wanted(REC_SCX_INSERT))
		return passed_over(REC_SCX_INSERT, cpu);
	return send_wide(REC_SCX_INSERT, 0, cpu, id, dsq, 0, slice > 0xffffffff ? 0xffffffff : slice, vtime, 0, p);
}

SEC("fentry/scx_bpf_dispatch")
int BPF_PROG(scx_dispatch_612, struct task_struct *p, u64 dsq, u64 slice)
{
	return insert(p, dsq, slice, 0);
}

SEC("fentry/scx_bpf_dispatch_vtime")
int BPF_PROG(scx_dispatch_vtime_612, struct task_struct *p, u64 dsq, u64 slice, u64 vtime)
{
	return insert(p, dsq, slice, vtime);
}

SEC("fentry/scx_bpf_dsq_insert")
int BPF_PROG(scx_dsq_insert, struct task_struct *p, u64 dsq, u64 slice)
{
	return insert(p, dsq, slice, 0);
}

SEC("fentry/scx_bpf_dsq_insert_vtime")
int BPF_PROG(scx_dsq_insert_vtime, struct task_struct *p, u64 dsq, u64 slice, u64 vtime)
{
	return insert(p, dsq, slice, vtime);
}

/* How many tasks a queue holds; 0 where the kernel does not say. */
static __always_inline u32 depth_of(u64 dsq)
{
	s32 depth = bpf_ksym_exists(scx_bpf_dsq_nr_queued) ? scx_bpf_dsq_nr_queued(dsq) : 0;

	return depth < 0 ? 0 : depth > 0xffff ? 0xffff : depth;
}

/* A queue's task gets a CPU. */
SEC("tp_btf/sched_switch")
int BPF_PROG(scx_run, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	u32 cpu, id, layer = 0xffff;
	struct queued *q;
	u64 since, *value;

	if (!begins_of(REC_SCX_DISPATCH, &cpu, next, &id))
		return 0;
	q = bpf_task_storage_get(&queued, next, 0, 0);
	if (!q || !q->since)
		return passed_over(REC_SCX_DISPATCH, cpu);
	since = q->since;
	q->since = 0;
	if (settings.layer_at) {
		value = bpf_task_storage_get(&task_ctxs, next, 0, 0);
		if (value)
			bpf_probe_read_kernel(&layer, sizeof(layer), (void *)value + settings.layer_at - 1);
	}
	return send_wide(REC_SCX_DISPATCH, 0, cpu, id, q->dsq, layer > 0xffff ? 0xffff : layer, depth_of(q->dsq),
			 bpf_ktime_get_ns() - since, 0, next);
}

static __always_inline int moved(u64 dsq, bool any)
{
	u32 cpu;

	if (!begins_here(REC_SCX_MOVE, &cpu))
		return 0;
	return send_short(REC_SCX_MOVE, any ? SCX_MOVED : 0, cpu, 0, dsq, NULL);
}

SEC("fexit/scx_bpf_consume")
int BPF_PROG(scx_consume_612, u64 dsq, bool any)
{
	return moved(dsq, any);
}

SEC("fexit/scx_bpf_dsq_move_to_local")
int BPF_PROG(scx_dsq_move_to_local, u64 dsq, bool any)
{
	return moved(dsq, any);
}

SEC("fentry/scx_bpf_cpuperf_set")
int BPF_PROG(scx_cpuperf_set, s32 target, u32 perf)
{
	u32 cpu;

	if (!begins_here(REC_SCX_CPUPERF, &cpu))
		return 0;
	return send_short(REC_SCX_CPUPERF, 0, cpu, target, perf, NULL);
}
