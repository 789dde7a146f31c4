/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* More of what the scheduler does. */

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup, struct task_struct *p)
{
	u32 cpu, id;

	if (!begins_of(REC_WAKEUP, &cpu, p, &id))
		return 0;
	return send_short(REC_WAKEUP, 0, cpu, id, cpu_of(p) | (u64)(u8)p->prio << 32, p);
}

/* A parent looks for children that ended; `pid` is the one it wants, or none for any. */
SEC("tp_btf/sched_process_wait")
int BPF_PROG(sched_process_wait, struct pid *pid)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u32 cpu, id, tid = 0;

	if (!begins_of(REC_WAIT, &cpu, current, &id))
		return 0;
	if (pid)
		bpf_core_read(&tid, sizeof(tid), &pid->numbers[0].nr);
	return send_short(REC_WAIT, 0, cpu, id, tid, current);
}

SEC("tp_btf/sched_process_hang")
int BPF_PROG(sched_process_hang, struct task_struct *p)
{
	u32 cpu, id;

	if (!begins_of(REC_HANG, &cpu, p, &id))
		return 0;
	return send_short(REC_HANG, 0, cpu, id, 0, p);
}

/* `booster` waits for a lock that `p` holds and lends it its priority; none takes a loan back. */
SEC("tp_btf/sched_pi_setprio")
int BPF_PROG(sched_pi_setprio, struct task_struct *p, struct task_struct *booster)
{
	u32 cpu, id, tid = 0, prio, lent;

	if (!begins_of(REC_PI_SETPRIO, &cpu, p, &id))
		return 0;
	prio = p->prio;
	lent = p->normal_prio;
	if (booster) {
		tid = booster->pid;
		if (booster->prio < lent)
			lent = booster->prio;
	}
	return send_short(REC_PI_SETPRIO, 0, cpu, id, tid | (u64)(u8)prio << 32 | (u64)(u8)lent << 40, p);
}
