/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Requests of block devices, from the I/O scheduler to the device and back. */

struct request_info {
	u64 issued; /* 0: not yet */
	u32 task; /* whoever brought it as far as it was seen first */
	u32 pad;
};

/* One that is merged into another is never completed: what was longest ago goes first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct request_info);
} requests SEC(".maps");

static __always_inline u32 disk_of(struct request *rq)
{
	struct gendisk *disk = BPF_CORE_READ(rq, q, disk);

	return disk ? name_of((u64)disk, disk->disk_name) : 0;
}

static __always_inline int request(u32 kind, struct request *rq)
{
	struct task_struct *current = bpf_get_current_task_btf();
	struct request_info fresh = {}, *info;
	u64 key = (u64)rq;
	u64 sector = rq->__sector;
	u32 cpu, id;

	if (!begins_of(kind, &cpu, current, &id))
		return 0;
	/* As the tracepoint has it: what is about no place on the disk is at none. */
	if (sector == ~0ull)
		sector = 0;
	if (kind == REC_BLOCK_ISSUE)
		fresh.issued = bpf_ktime_get_ns();
	info = bpf_map_lookup_elem(&requests, &key);
	if (kind == REC_BLOCK_ISSUE && info && !info->issued) {
		info->issued = fresh.issued;
	} else {
		fresh.task = id;
		bpf_map_update_elem(&requests, &key, &fresh, BPF_ANY);
	}
	if (!is_wanted(kind))
		return passed_over(kind, cpu);
	return send_wide(kind, 0, cpu, id, sector, rq->cmd_flags & REQ_OP_MASK, disk_of(rq),
			 rq->__data_len, 0, current);
}

SEC("tp_btf/block_rq_insert")
int BPF_PROG(block_rq_insert, struct request *rq)
{
	return request(REC_BLOCK_INSERT, rq);
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(block_rq_issue, struct request *rq)
{
	return request(REC_BLOCK_ISSUE, rq);
}

/* It runs wherever the device's interrupt comes: what is recorded was decided when the request was seen first. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(block_rq_complete, struct request *rq, u32 error, unsigned int bytes)
{
	struct request_info *info;
	u64 key = (u64)rq, latency;
	u32 cpu, task, left;

	if (!begins(REC_BLOCK_COMPLETE, &cpu))
		return 0;
	info = bpf_map_lookup_elem(&requests, &key);
	if (!info || !info->issued || !info->task)
		return passed_over(REC_BLOCK_COMPLETE, cpu); /* issued before the recording began */
	latency = bpf_ktime_get_ns() - info->issued;
	task = info->task;
	left = rq->__data_len;
	if (bytes >= left)
		bpf_map_delete_elem(&requests, &key);
	return send_wide(REC_BLOCK_COMPLETE, 0, cpu, task, latency, rq->cmd_flags & REQ_OP_MASK, disk_of(rq),
			 bytes | (u64)(u8)error << 32, 0, NULL);
}
