/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Interrupts: of devices, of software, and from other CPUs. */

#define IPI_RESCHEDULE 0
#define IPI_CALL 1
#define IPI_CALL_SINGLE 2
#define MASK_WORDS 128 /* NR_CPUS is at most 8192 */

SEC("tp_btf/irq_handler_entry")
int BPF_PROG(irq_handler_entry, int irq, struct irqaction *action)
{
	u32 cpu;

	if (!begins_here(REC_IRQ_ENTRY, &cpu))
		return 0;
	return send_short(REC_IRQ_ENTRY, 0, cpu, irq, name_of((u64)action, action->name), NULL);
}

SEC("tp_btf/irq_handler_exit")
int BPF_PROG(irq_handler_exit, int irq, struct irqaction *action, int ret)
{
	u32 cpu;

	if (!begins_here(REC_IRQ_EXIT, &cpu))
		return 0;
	return send_short(REC_IRQ_EXIT, ret ? IRQ_HANDLED : 0, cpu, irq, 0, NULL);
}

#define SOFTIRQ(name, kind)                                                 \
	SEC("tp_btf/" #name)                                                \
	int BPF_PROG(name, unsigned int vector)                             \
	{                                                                   \
		u32 cpu;                                                    \
                                                                            \
		if (!begins_here(kind, &cpu))                               \
			return 0;                                           \
		return send_short(kind, 0, cpu, vector, 0, NULL);           \
	}

SOFTIRQ(softirq_entry, REC_SOFTIRQ_ENTRY)
SOFTIRQ(softirq_exit, REC_SOFTIRQ_EXIT)
SOFTIRQ(softirq_raise, REC_SOFTIRQ_RAISE)

/* What the other CPU is to run; without one it is only to reschedule (arch_smp_send_reschedule()). */
SEC("tp_btf/ipi_send_cpu")
int BPF_PROG(ipi_send_cpu, unsigned int target, unsigned long callsite, void *callback)
{
	u32 cpu;

	if (!begins_here(REC_IPI_SEND, &cpu))
		return 0;
	return send_short(REC_IPI_SEND, 0, cpu, name_of((u64)callback, NULL), target | 1ull << 32, NULL);
}

/* How many CPUs a mask has, and in the upper half the first of them. */
static __noinline u64 count_mask(struct cpumask *mask)
{
	u64 first = 0, count = 0;
	bool found = false;

	for (u32 i = 0; i < MASK_WORDS; i++) {
		u64 word = 0;

		if (i * 64 >= settings.nr_cpus)
			break;
		bpf_probe_read_kernel(&word, sizeof(word), (void *)mask + i * sizeof(word));
		if (word && !found) {
			u64 low = word & -word;

			for (u32 bit = 0; bit < 64; bit++)
				if (low == 1ull << bit)
					first = i * 64 + bit;
			found = true;
		}
		word -= (word >> 1) & 0x5555555555555555;
		word = (word & 0x3333333333333333) + ((word >> 2) & 0x3333333333333333);
		count += (((word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101) >> 56;
	}
	return first << 32 | count;
}

SEC("tp_btf/ipi_send_cpumask")
int BPF_PROG(ipi_send_cpumask, struct cpumask *mask, unsigned long callsite, void *callback)
{
	u64 counted;
	u32 cpu;

	if (!begins_here(REC_IPI_SEND, &cpu))
		return 0;
	counted = count_mask(mask);
	return send_short(REC_IPI_SEND, 0, cpu, name_of((u64)callback, NULL), counted >> 32 | counted << 32, NULL);
}

#define IPI(name, kind, handler)                                            \
	SEC("tp_btf/" #name)                                                \
	int BPF_PROG(name, int vector)                                      \
	{                                                                   \
		u32 cpu;                                                    \
                                                                            \
		if (!begins_here(kind, &cpu))                               \
			return 0;                                           \
		return send_short(kind, 0, cpu, handler, 0, NULL);          \
	}

IPI(reschedule_entry, REC_IPI_ENTRY, IPI_RESCHEDULE)
IPI(reschedule_exit, REC_IPI_EXIT, IPI_RESCHEDULE)
IPI(call_function_entry, REC_IPI_ENTRY, IPI_CALL)
IPI(call_function_exit, REC_IPI_EXIT, IPI_CALL)
IPI(call_function_single_entry, REC_IPI_ENTRY, IPI_CALL_SINGLE)
IPI(call_function_single_exit, REC_IPI_EXIT, IPI_CALL_SINGLE)
