// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * A scheduler for tests: tasks with an even number go into a queue by time of arrival, the others into one by virtual time;
 * both wait for whichever CPU comes first. It keeps a layer of each task where scx_layered does, and sets the performance of
 * CPUs. For Linux 6.12 and later, where calls were renamed in 6.13.
 */
#include "../../../schedtrace-bpf/src/bpf/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define FIFO_DSQ 7
#define VTIME_DSQ 8
#define SLICE_NS 5000000
#define LAYER 3
#define HALF_PERFORMANCE 512

char LICENSE[] SEC("license") = "GPL";

s32 scx_bpf_create_dsq(u64 dsq, s32 node) __ksym;
void scx_bpf_cpuperf_set(s32 cpu, u32 performance) __ksym;
void scx_bpf_dispatch(struct task_struct *p, u64 dsq, u64 slice, u64 flags) __ksym __weak;
void scx_bpf_dispatch_vtime(struct task_struct *p, u64 dsq, u64 slice, u64 vtime, u64 flags) __ksym __weak;
void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq, u64 slice, u64 flags) __ksym __weak;
void scx_bpf_dsq_insert_vtime(struct task_struct *p, u64 dsq, u64 slice, u64 vtime, u64 flags) __ksym __weak;
bool scx_bpf_consume(u64 dsq) __ksym __weak;
bool scx_bpf_dsq_move_to_local(u64 dsq) __ksym __weak;

struct task_ctx {
	u64 pad;
	u32 layer_id;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} task_ctxs SEC(".maps");

u64 arrivals = 1;

SEC("struct_ops.s/init")
s32 init(void)
{
	s32 failed = scx_bpf_create_dsq(FIFO_DSQ, -1);

	return failed ? failed : scx_bpf_create_dsq(VTIME_DSQ, -1);
}

/* Where a task was, and into a queue: the kernel's own choice would let it run at once on a CPU that is idle. */
SEC("struct_ops/select_cpu")
s32 BPF_PROG(select_cpu, struct task_struct *p, s32 prev_cpu, u64 flags)
{
	return prev_cpu;
}

SEC("struct_ops/enqueue")
int BPF_PROG(enqueue, struct task_struct *p, u64 flags)
{
	struct task_ctx *mine = bpf_task_storage_get(&task_ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	u64 vtime = __sync_fetch_and_add(&arrivals, 1);

	if (mine)
		mine->layer_id = LAYER;
	if (p->pid & 1) {
		if (bpf_ksym_exists(scx_bpf_dsq_insert_vtime))
			scx_bpf_dsq_insert_vtime(p, VTIME_DSQ, SLICE_NS, vtime, flags);
		else
			scx_bpf_dispatch_vtime(p, VTIME_DSQ, SLICE_NS, vtime, flags);
	} else {
		if (bpf_ksym_exists(scx_bpf_dsq_insert))
			scx_bpf_dsq_insert(p, FIFO_DSQ, SLICE_NS, flags);
		else
			scx_bpf_dispatch(p, FIFO_DSQ, SLICE_NS, flags);
	}
	return 0;
}

static __always_inline bool take(u64 dsq)
{
	return bpf_ksym_exists(scx_bpf_dsq_move_to_local) ? scx_bpf_dsq_move_to_local(dsq) : scx_bpf_consume(dsq);
}

SEC("struct_ops/dispatch")
int BPF_PROG(dispatch, s32 cpu, struct task_struct *prev)
{
	if (!take(FIFO_DSQ))
		take(VTIME_DSQ);
	return 0;
}

SEC("struct_ops/running")
int BPF_PROG(running, struct task_struct *p)
{
	scx_bpf_cpuperf_set(bpf_get_smp_processor_id(), HALF_PERFORMANCE);
	return 0;
}

/* Those of the kernel's that are set: libbpf finds them by their names. */
struct sched_ext_ops {
	s32 (*init)(void);
	s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 flags);
	void (*enqueue)(struct task_struct *p, u64 flags);
	void (*dispatch)(s32 cpu, struct task_struct *prev);
	void (*running)(struct task_struct *p);
	char name[128];
};

SEC(".struct_ops.link")
struct sched_ext_ops two_queues = {
	.init = (void *)init,
	.select_cpu = (void *)select_cpu,
	.enqueue = (void *)enqueue,
	.dispatch = (void *)dispatch,
	.running = (void *)running,
	.name = "two_queues",
};
