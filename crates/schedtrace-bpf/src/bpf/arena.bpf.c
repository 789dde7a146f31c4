// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Records travel through logs in a BPF arena (Linux 6.9, and 6.10 for atomic operations there), one log for each CPU: no
 * lock, no call, and no bytes but the record's.
 *
 * Any program may interrupt another on its CPU: sched_waking of the current task runs with interrupts on. So room is
 * claimed by an atomic operation, and a record is committed by the last store into it, of the word with its lap; a reader
 * goes no further than the first record that is claimed and not committed. CPUs that share a log are no different.
 *
 * User space has touched every page before a program runs: a store to one that is not there is dropped in silence.
 */
#include "common.h"

#define __arena __attribute__((address_space(1)))
/* Each failed try is an interrupt that has put a record here meanwhile, or another CPU that shares the log. */
#define CLAIM_TRIES 64

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
} arena SEC(".maps");

/* Where the reader of a shard is woken: nothing is ever read from them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct ring);
} bells SEC(".maps");

static __noinline int ring_bell(struct cpu_state *c)
{
	struct log __arena *log;
	void *bell, *r;
	u32 shard;

	if (!c)
		return 0;
	log = (struct log __arena *)c->log;
	shard = c->shard;
	bell = bpf_map_lookup_elem(&bells, &shard);
	if (!bell)
		return 0;
	r = bpf_ringbuf_reserve(bell, sizeof(u64), 0);
	if (!r)
		return 0; /* it was rung so often that the reader is about to wake anyway */
	log->rung = 1;
	bpf_ringbuf_discard(r, BPF_RB_FORCE_WAKEUP);
	return 0;
}

/*
 * The reader has read what it gives back before it says so (a store-release), and nothing is stored here before that was
 * seen, for the stores depend on it (control dependencies, Documentation/memory-barriers.txt). A successful
 * compare-and-exchange is fully ordered (Documentation/atomic_t.txt): the claim is seen before the clock is read.
 */
static __always_inline bool claim(struct log __arena *log, u32 n, u64 *at)
{
	volatile u64 __arena *limit = &log->limit;
	volatile u64 __arena *head = &log->head;

	for (int i = 0; i < CLAIM_TRIES; i++) {
		*at = *head;
		/* The reader's line is looked at once a lap. A limit that is too low, by whoever wrote it last, is no harm. */
		if (unlikely(*at + n > *limit)) {
			u64 room = *(volatile u64 __arena *)&log->tail + settings.log_parts;

			*limit = room;
			if (*at + n > room)
				return false;
		}
		if (likely(__sync_val_compare_and_swap(&log->head, *at, *at + n) == *at))
			return true;
	}
	return false;
}

/* Some microseconds. */
static __noinline int dawdle(void)
{
	for (int i = 0; i < 100; i++)
		bpf_ktime_get_ns();
	return 0;
}

static __always_inline u64 lap(u64 at)
{
	return at & settings.log_parts ? 0 : (u64)REC_LAP << 8;
}

static __always_inline bool put(struct cpu_state *c, struct part *parts, u32 n)
{
	struct log __arena *log = (struct log __arena *)c->log;
	struct part __arena *all = (struct part __arena *)(log + 1);
	struct part __arena *first;
	u64 at;

	/* Ties the program to the map, whose address every access below starts from. */
	asm volatile("" ::"r"(&arena));
	if (!claim(log, n, &at))
		return false;
	first = &all[at & (settings.log_parts - 1)];
	parts->ts = bpf_ktime_get_ns();
	for (u32 i = 1; i < n; i++) {
		/* Volatile, or clang 19 stores constants through an address that it forgot to cast. */
		volatile struct part __arena *more = &all[(at + i) & (settings.log_parts - 1)];
		more->head = parts[i].head | lap(at + i);
		more->ts = parts[i].ts;
		more->tail = parts[i].tail;
	}
	if (settings.late_every && at % settings.late_every == 0)
		dawdle();
	first->ts = parts->ts;
	first->tail = parts->tail;
	/*
	 * x86 shows stores in the order in which they were made (Intel SDM volume 3, 9.2.2), so that the compiler alone has
	 * to be held back. Elsewhere an exchange, which is fully ordered like every atomic operation that returns a value
	 * (Documentation/atomic_t.txt; SWPAL in arch/arm64/net/bpf_jit_comp.c).
	 */
	barrier();
	if (settings.weak_order)
		__sync_lock_test_and_set(&first->head, parts->head | lap(at));
	else
		*(volatile u64 __arena *)&first->head = parts->head | lap(at);
	if (unlikely(settings.wake_at && !(at & 31) && at - *(volatile u64 __arena *)&log->tail >= settings.wake_at &&
		     !*(volatile u64 __arena *)&log->rung))
		ring_bell(c);
	return true;
}

#include "sched.h"
#include "events.h"
