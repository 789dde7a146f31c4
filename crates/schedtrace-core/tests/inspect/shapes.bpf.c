// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Maps for tests, whose entries have every kind of type: they are filled from outside, and read by the types that stand here.
 */
#include "../../../schedtrace-bpf/src/bpf/kernel.h"
#include <bpf/bpf_helpers.h>

enum {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_QUEUE = 22,
};

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum color { RED, GREEN = 5, BLUE = -2 };
enum wide { SMALL = 1, LARGE = 1ull << 40 };

struct point {
	short x;
	s64 y;
};

/* No padding: what stands in it is part of a key. */
struct place {
	u32 cpu;
	enum color color;
};

struct shape {
	u64 id;
	s64 below_zero;
	bool round;
	u8 small;
	signed char tiny;
	char label[16];
	enum color color;
	struct point corners[2];
	u32 grid[2][3];
	u8 hardware[6];
};

struct odd {
	u32 three : 3;
	s32 minus : 5;
	bool flag : 1;
	enum color color : 4;
	u64 long_one : 40;
	union {
		u32 whole;
		u16 halves[2];
	};
	union {
		struct point point;
		u64 raw;
	} either;
	enum wide wide;
	double ratio;
	float part;
	void *address;
	struct shape *of;
	const volatile u32 *const pointers[2];
	unsigned __int128 big;
	char text[300];
	u32 many[100];
	u32 rest[];
};

struct counts {
	u64 packets;
	u32 drops;
	struct point last;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct place);
	__type(value, struct shape);
} shapes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3);
	__type(key, u32);
	__type(value, struct counts);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct odd);
} odds SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__uint(key_size, 3);
	__uint(value_size, 300);
} untyped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__uint(key_size, 4);
	__uint(value_size, 4);
} tails SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__type(value, u64);
} waiting SEC(".maps");

u64 total = 7;
s32 balance[3] = { 1, -2, 3 };

SEC("syscall")
int counts_how_often_it_is_called(void *ctx)
{
	u32 first = 0;
	struct place place = {};
	u8 key[3] = {};

	total += 1 + balance[0];
	bpf_map_lookup_elem(&shapes, &place);
	bpf_map_lookup_elem(&counters, &first);
	bpf_map_lookup_elem(&untyped, key);
	bpf_map_lookup_elem(&odds, &first);
	bpf_map_pop_elem(&waiting, &total);
	return 0;
}
