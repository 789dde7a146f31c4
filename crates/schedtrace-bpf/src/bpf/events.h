/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every event beyond those that everybody records: what they have in common, and then a file for each group of them. None
 * of their programs is loaded unless its events are asked for.
 *
 * What an event is about is a task where it says so, and otherwise the CPU it happened on: with a filter by process or
 * cgroup, it is recorded if the task that is current there is.
 */
#ifndef SCHEDTRACE_EVENTS_H
#define SCHEDTRACE_EVENTS_H

#include "sched.h"

/* Texts that were told, by the address of the function or of the text. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, u32);
} names SEC(".maps");

/*
 * The number of a text, told when it is first met: `text`, or, without one, the symbol at the address `key`. 0 where it could
 * not be told; it is tried again at the next event.
 */
static __noinline u32 name_of(u64 key, const char *text)
{
	static const char symbol[] = "%ps";
	u32 *known, id, cpu;
	struct rec_name *r;

	if (!key)
		return 0;
	known = bpf_map_lookup_elem(&names, &key);
	if (likely(known))
		return *known;
	r = bpf_ringbuf_reserve(&lifecycle, sizeof(*r), 0);
	if (!r)
		return 0;
	id = __sync_fetch_and_add(&last_name, 1) + 1;
	cpu = bpf_get_smp_processor_id();
	r->type = REC_NAME;
	r->flags = 0;
	r->cpu = cpu;
	r->id = id;
	r->ts = bpf_ktime_get_ns();
	r->text[0] = 0;
	if (text)
		bpf_probe_read_kernel_str(r->text, sizeof(r->text), text);
	else
		bpf_snprintf(r->text, sizeof(r->text), symbol, &key, sizeof(key));
	/* Whoever finds it from here on makes a later event: the text comes first. */
	if (bpf_map_update_elem(&names, &key, &id, BPF_NOEXIST)) {
		/* Another CPU was faster, or there are more than anybody has. */
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		known = bpf_map_lookup_elem(&names, &key);
		return known ? *known : 0;
	}
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return id;
}

/* Puts a record of one part or, being wide, of two; `task` is the one it speaks of, if any. */
static __always_inline int emit(struct part *parts, u32 n, struct task_struct *task)
{
	u32 kind = parts->head & 0xff, cpu;
	struct part all[4];
	struct cpu_state *c;
	bool put_it;

	barrier_var(kind);
	c = this_cpu(&cpu);
	if (!c || kind >= REC_KINDS)
		return 0;
	c->emitted[kind]++;
	if (unlikely(task && !(parts->head >> 32))) {
		announce(task, 0, NULL);
		all[0] = parts[0];
		all[0].head |= REC_RAW << 8;
		if (n == 2)
			all[1] = parts[1];
		all[n] = who_is(cpu, task);
		all[n + 1] = who_is(cpu, NULL);
		put_it = put(c, all, n + 2);
	} else {
		put_it = put(c, parts, n);
	}
	if (unlikely(!put_it))
		note_loss(c, kind);
	else if (unlikely(c->loss_from))
		tell_loss(c, cpu);
	return 0;
}

static __noinline int emit_one(struct part *parts, struct task_struct *task)
{
	return emit(parts, 1, task);
}

static __noinline int emit_two(struct part *parts, struct task_struct *task)
{
	return emit(parts, 2, task);
}

/* A struct rec_short. */
static __always_inline int send_short(u32 kind, u32 flags, u32 cpu, u32 a, u64 b, struct task_struct *task)
{
	struct part part = { .head = HEAD(kind, flags, cpu, a), .tail = b };

	return emit_one(&part, task);
}

/* A struct rec_wide. */
static __always_inline int send_wide(u32 kind, u32 flags, u32 cpu, u32 a, u64 b, u16 s, u32 c, u64 d, u64 e,
				     struct task_struct *task)
{
	struct part parts[2] = {
		{ .head = HEAD(kind, flags | REC_WIDE, cpu, a), .tail = b },
		{ .head = HEAD(REC_MORE, 0, s, c), .ts = d, .tail = e },
	};

	return emit_two(parts, task);
}

/* What a program begins with: whether it records now, and here. */
static __always_inline bool begins(u32 kind, u32 *cpu)
{
	struct cpu_state *c = this_cpu(cpu);

	if (!c)
		return false;
	if (control.enabled && cpu_selected(*cpu))
		return true;
	pass_over(c, kind);
	return false;
}

/* The same where the event is a task's, whose id is found, and which has to be one that is recorded. */
static __always_inline bool begins_of(u32 kind, u32 *cpu, struct task_struct *task, u32 *id)
{
	struct cpu_state *c;
	bool selected;

	if (!begins(kind, cpu))
		return false;
	*id = id_of(task, *cpu, &selected);
	c = state_of(*cpu);
	if (!selected && c)
		pass_over(c, kind);
	return selected;
}

/* The same where it is the CPU's: with a filter, it is taken for the current task's. */
static __always_inline bool begins_here(u32 kind, u32 *cpu)
{
	u32 id;

	if (!settings.filter_pids && !settings.filter_cgroups)
		return begins(kind, cpu);
	return begins_of(kind, cpu, bpf_get_current_task_btf(), &id);
}

static __always_inline int passed_over(u32 kind, u32 cpu)
{
	struct cpu_state *c = state_of(cpu);

	return c ? pass_over(c, kind) : 0;
}

/*
 * A tracepoint's argument as a word, for those that the verifier lets no program read: pointers to functions, and those
 * that have another type from kernel to kernel.
 */
static __always_inline u64 word_of(void *ctx, u32 n)
{
	u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), ctx + n * sizeof(word));
	return word;
}

#include "events/sched.h"
#include "events/irq.h"
#include "events/cpu.h"
#include "events/block.h"
#include "events/calls.h"
#include "events/process.h"
#include "events/sched_ext.h"

#endif
