// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Records travel through BPF ring buffers, one for each shard of CPUs: every kernel that has what the programs need has them. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct ring);
} rings SEC(".maps");

static __always_inline bool put(struct cpu_state *c, struct part *parts, u32 n)
{
	u32 shard = c->shard;
	void *ring = bpf_map_lookup_elem(&rings, &shard);

	return ring && put_on(c, ring, settings.wake_at, parts, n);
}

#include "sched.h"
#include "events.h"
