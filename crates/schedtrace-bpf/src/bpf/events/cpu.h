/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of CPUs: how fast they are, how deeply they sleep, and when they come and go. */

SEC("tp_btf/cpu_frequency")
int BPF_PROG(cpu_frequency, unsigned int khz, unsigned int target)
{
	u32 cpu;

	if (!begins_here(REC_CPU_FREQUENCY, &cpu))
		return 0;
	return send_short(REC_CPU_FREQUENCY, 0, cpu, target, khz, NULL);
}

SEC("tp_btf/cpu_idle")
int BPF_PROG(cpu_idle, unsigned int state, unsigned int target)
{
	u32 cpu;

	if (!begins_here(REC_CPU_IDLE, &cpu))
		return 0;
	return send_short(REC_CPU_IDLE, 0, cpu, target, state, NULL);
}

static __always_inline int hotplug_enter(unsigned int of, int target, int step, u64 function)
{
	u32 cpu;

	if (!begins_here(REC_HOTPLUG_ENTER, &cpu))
		return 0;
	return send_wide(REC_HOTPLUG_ENTER, 0, cpu, of, (u32)target | (u64)(u32)step << 32, 0,
			 name_of(function, NULL), 0, 0, NULL);
}

SEC("tp_btf/cpuhp_enter")
int BPF_PROG(cpuhp_enter, unsigned int of, int target, int step)
{
	return hotplug_enter(of, target, step, word_of(ctx, 3));
}

SEC("tp_btf/cpuhp_multi_enter")
int BPF_PROG(cpuhp_multi_enter, unsigned int of, int target, int step)
{
	return hotplug_enter(of, target, step, word_of(ctx, 3));
}

SEC("tp_btf/cpuhp_exit")
int BPF_PROG(cpuhp_exit, unsigned int of, int state, int step, int result)
{
	u32 cpu;

	if (!begins_here(REC_HOTPLUG_EXIT, &cpu))
		return 0;
	return send_wide(REC_HOTPLUG_EXIT, 0, cpu, of, (u32)state | (u64)(u32)step << 32, 0, result, 0, 0, NULL);
}
