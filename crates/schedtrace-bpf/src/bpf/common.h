/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the programs stand on whichever way their records go: settings, switches, counters, and the small ring for
 * lifecycle, identity and loss.
 */
#ifndef SCHEDTRACE_COMMON_H
#define SCHEDTRACE_COMMON_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "wire.h"

/* The first and the last word of a struct part. */
#define HEAD(type, flags, cpu, a) ((u64)(type) | (u64)(flags) << 8 | (u64)(u16)(cpu) << 16 | (u64)(u32)(a) << 32)
#define TAIL(b, rest) ((u64)(u32)(b) | (u64)(u32)(rest) << 32)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Set before loading; the verifier sees constants, and drops what is switched off. */
const volatile struct settings settings SEC(".rodata.settings") = {};

/* Written by user space, while no program writes it, so that one map update changes all of it. */
volatile struct control control SEC(".data.control");

u32 last_id = 0;
u32 last_name = 0;
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
	struct rec_who f;
	struct rec_task g;
	struct rec_loss h;
	struct log i;
	struct rec_short j;
	struct rec_wide k;
	struct rec_name l;
} *wire_records __attribute__((unused));

/* Resized to the number of possible CPU ids before loading. */
struct cpu_state cpus[1] SEC(".data.cpus");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

/* Lifecycle, identity and loss: a storm of switches cannot push them out. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} lifecycle SEC(".maps");

/* The barrier keeps the compiler from computing the address before the check, which the verifier would not follow. */
static __always_inline struct cpu_state *state_of(u32 cpu)
{
	if (cpu >= settings.nr_cpus)
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

static __always_inline void note_loss(struct cpu_state *c, u32 kind)
{
	u64 now = bpf_ktime_get_ns();

	__sync_fetch_and_add(&c->lost[kind], 1);
	c->loss_until = now;
	__sync_val_compare_and_swap(&c->loss_from, 0, now);
}

/* Every 32nd record asks whether the reader should be woken: the question costs more than a record should. */
static __always_inline u64 wakeup_flag(struct cpu_state *c, void *ring, u64 wake_at)
{
	if (!wake_at || (++c->records & 31))
		return BPF_RB_NO_WAKEUP;
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) >= wake_at ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline bool put_on(struct cpu_state *c, void *ring, u64 wake_at, struct part *parts, u32 n)
{
	struct part *r = bpf_ringbuf_reserve(ring, n * sizeof(*r), 0);

	if (unlikely(!r))
		return false;
	parts->ts = bpf_ktime_get_ns();
	for (u32 i = 0; i < n; i++)
		r[i] = parts[i];
	bpf_ringbuf_submit(r, wakeup_flag(c, ring, wake_at));
	return true;
}

static __always_inline bool put_life(struct cpu_state *c, struct part *parts, u32 n)
{
	return put_on(c, &lifecycle, settings.life_wake_at, parts, n);
}

#endif
