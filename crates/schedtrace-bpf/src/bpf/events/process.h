/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What befalls processes: other users' rights, work for kernel threads, and want of memory. */

/* A program whose file gives it another user's rights or capabilities. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_with_rights, struct task_struct *p, int old_pid, struct linux_binprm *bprm)
{
	u32 cpu, id;

	if (!begins_of(REC_CRED_CHANGE, &cpu, p, &id))
		return 0;
	if (!BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec))
		return passed_over(REC_CRED_CHANGE, cpu);
	return cred_changed(cpu, id, p);
}

SEC("tp_btf/workqueue_execute_start")
int BPF_PROG(workqueue_execute_start, struct work_struct *work)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u32 cpu, id;

	if (!begins_of(REC_WORK_START, &cpu, current, &id))
		return 0;
	return send_short(REC_WORK_START, 0, cpu, id, name_of((u64)work->func, NULL), current);
}

SEC("tp_btf/workqueue_execute_end")
int BPF_PROG(workqueue_execute_end)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u32 cpu, id;

	if (!begins_of(REC_WORK_END, &cpu, current, &id))
		return 0;
	return send_short(REC_WORK_END, 0, cpu, id, name_of(word_of(ctx, 1), NULL), current);
}

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int BPF_PROG(mm_vmscan_direct_reclaim_begin, int order)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u32 cpu, id;

	if (!begins_of(REC_RECLAIM_BEGIN, &cpu, current, &id))
		return 0;
	return send_short(REC_RECLAIM_BEGIN, 0, cpu, id, order, current);
}

SEC("tp_btf/mm_vmscan_direct_reclaim_end")
int BPF_PROG(mm_vmscan_direct_reclaim_end, unsigned long pages)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u32 cpu, id;

	if (!begins_of(REC_RECLAIM_END, &cpu, current, &id))
		return 0;
	return send_short(REC_RECLAIM_END, 0, cpu, id, pages, current);
}

/* The victim by its task, or by its number before Linux 6.8. */
SEC("tp_btf/mark_victim")
int BPF_PROG(mark_victim)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u64 victim = word_of(ctx, 0);
	u32 cpu, id, tid = victim;

	if (!begins_of(REC_OOM_KILL, &cpu, current, &id))
		return 0;
	if (victim >> 48)
		bpf_core_read(&tid, sizeof(tid), &((struct task_struct *)victim)->pid);
	return send_short(REC_OOM_KILL, 0, cpu, id, tid, current);
}

/* A software event of perf on every CPU: the kernel counts a major fault once it knows it for one. */
SEC("perf_event")
int major_fault(struct bpf_perf_event_data *ctx)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u32 cpu, id;

	if (!begins_of(REC_MAJOR_FAULT, &cpu, current, &id))
		return 0;
	return send_short(REC_MAJOR_FAULT, 0, cpu, id, ctx->addr, current);
}
