/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * System calls, and what is told by them: futexes, priorities, users and capabilities.
 *
 * The kernel keeps the arguments for as long as the call lasts, so that what does not need the time of its beginning is
 * read at its end. Calls of 32-bit programs have other numbers, and are left out.
 */

#define MAX_ERRNO 511 /* from here on, results are the kernel's own: the call will be made again (include/linux/errno.h) */
#define EINTR 4

struct call {
	u64 began;
	u32 nr;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct call);
} calls SEC(".maps");

extern struct task_struct *bpf_task_from_pid(s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;

static __always_inline bool is_x86(void)
{
	return bpf_core_field_exists(((struct pt_regs___x86 *)0)->orig_ax);
}

/* The number of a call on x86-64, and on all that have the generic ones (include/uapi/asm-generic/unistd.h). */
#define NR(x86, generic) (is_x86() ? (x86) : (generic))

static __always_inline bool is_compat(struct task_struct *current)
{
	struct task_struct___x86 *t = (void *)current;

	return bpf_core_field_exists(t->thread_info.status) && t->thread_info.status & TS_COMPAT;
}

static __always_inline u64 argument(struct pt_regs *regs, u32 n)
{
	struct pt_regs___x86 *x86 = (void *)regs;
	struct pt_regs___arm64 *arm64 = (void *)regs;

	if (bpf_core_field_exists(x86->orig_ax))
		return n == 0 ? x86->di : n == 1 ? x86->si : x86->dx;
	if (bpf_core_field_exists(arm64->orig_x0))
		return n == 0 ? arm64->orig_x0 : n == 1 ? arm64->regs[1] : arm64->regs[2];
	return 0;
}

static __always_inline s64 number(struct pt_regs *regs)
{
	struct pt_regs___x86 *x86 = (void *)regs;
	struct pt_regs___arm64 *arm64 = (void *)regs;

	if (bpf_core_field_exists(x86->orig_ax))
		return x86->orig_ax;
	if (bpf_core_field_exists(arm64->syscallno))
		return arm64->syscallno;
	return -1;
}

/* What a call does to a futex (include/uapi/linux/futex.h). */
enum futex { FUTEX_NOTHING, FUTEX_WAITS, FUTEX_WAKES };

static __always_inline enum futex futex_of(s64 nr, struct pt_regs *regs)
{
	/* Commands 0 to 13 as bits: WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2; and those that wake. */
	const u32 waits = 1 << 0 | 1 << 6 | 1 << 9 | 1 << 11 | 1 << 13;
	const u32 wakes = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 10 | 1 << 12;
	u32 command;

	if (nr == 455)
		return FUTEX_WAITS;
	if (nr == 454)
		return FUTEX_WAKES;
	if (nr != NR(202, 98))
		return FUTEX_NOTHING;
	command = 1 << (argument(regs, 1) & 31);
	if (command & waits)
		return FUTEX_WAITS;
	return command & wakes ? FUTEX_WAKES : FUTEX_NOTHING;
}

static __always_inline bool is_timed(s64 nr)
{
	return is_wanted(REC_SYSCALL) && (u64)nr < 512 && settings.calls[nr / 64] & 1ull << (nr & 63);
}

/* Only notes when a call began; it is recorded when it is over. */
SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long nr)
{
	struct task_struct *current = bpf_get_current_task_btf();
	struct call *call;

	if (!control.enabled || is_compat(current))
		return 0;
	if (!is_timed(nr) && !(is_wanted(REC_FUTEX_WAIT) && futex_of(nr, regs) == FUTEX_WAITS))
		return 0;
	call = bpf_task_storage_get(&calls, current, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (call) {
		call->nr = nr;
		call->began = bpf_ktime_get_ns();
	}
	return 0;
}

/* How long the call lasted that ends now; 0 where its beginning was not seen. */
static __always_inline u64 lasted(struct task_struct *current, s64 nr)
{
	struct call *call = bpf_task_storage_get(&calls, current, 0, 0);
	u64 began;

	if (!call || !call->began || call->nr != (u32)nr)
		return 0;
	began = call->began;
	call->began = 0;
	return bpf_ktime_get_ns() - began;
}

/* A priority was set: of the caller, of another task, or (`tid` 0) of a whole group. */
static __noinline int priority_set(struct pt_regs *regs, u32 cpu, u32 id, s64 nr)
{
	struct task_struct *current = bpf_get_current_task_btf(), *other;
	u32 tid = argument(regs, 0), prio = current->prio, policy = current->policy;

	if (nr == NR(141, 140)) {
		u32 which = tid;

		tid = argument(regs, 1);
		if (which) {
			prio = 120 + (u32)argument(regs, 2);
			return send_short(REC_PRIO_CHANGE, 0, cpu, id, (u64)(u8)prio << 32 | 255ull << 40, current);
		}
	}
	if (!tid)
		tid = current->pid;
	if (tid != current->pid) {
		if (!bpf_ksym_exists(bpf_task_from_pid))
			return 0;
		other = bpf_task_from_pid(tid);
		if (!other)
			return 0;
		prio = other->prio;
		policy = other->policy;
		bpf_task_release(other);
	}
	return send_short(REC_PRIO_CHANGE, 0, cpu, id, tid | (u64)(u8)prio << 32 | (u64)(u8)policy << 40, current);
}

static __always_inline int cred_changed(u32 cpu, u32 id, struct task_struct *current)
{
	const struct cred *cred = current->cred;
	u64 caps = 0;

	bpf_core_read(&caps, sizeof(caps), &cred->cap_effective);
	return send_wide(REC_CRED_CHANGE, 0, cpu, id, cred->uid.val | (u64)cred->euid.val << 32, 0,
			 current->real_parent->pid, caps, 0, current);
}

static __always_inline bool sets_priority(s64 nr)
{
	return nr == NR(141, 140) || nr == NR(142, 118) || nr == NR(144, 119) || nr == NR(314, 274);
}

/* setuid, setgid, setreuid, setregid, setresuid, setresgid, setfsuid, setfsgid, capset */
static __always_inline bool sets_cred(s64 nr)
{
	return nr == NR(105, 146) || nr == NR(106, 144) || nr == NR(113, 145) || nr == NR(114, 143) ||
	       nr == NR(117, 147) || nr == NR(119, 149) || nr == NR(122, 151) || nr == NR(123, 152) || nr == NR(126, 91);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long ret)
{
	struct task_struct *current = bpf_get_current_task_btf();
	s64 nr = number(regs);
	bool failed = ret < 0 && ret >= -MAX_ERRNO, sent = false;
	enum futex futex = FUTEX_NOTHING;
	u64 duration = 0;
	u32 cpu, id;

	if (nr < 0 || is_compat(current))
		return begins(REC_SYSCALL_FAILED, &cpu) ? passed_over(REC_SYSCALL_FAILED, cpu) : 0;
	if (!begins_of(REC_SYSCALL_FAILED, &cpu, current, &id))
		return 0;
	if (is_wanted(REC_FUTEX_WAIT) || is_wanted(REC_FUTEX_WAKE))
		futex = futex_of(nr, regs);
	if (is_timed(nr) || futex == FUTEX_WAITS)
		duration = lasted(current, nr);
	if (is_wanted(REC_FUTEX_WAIT) && futex == FUTEX_WAITS && duration) {
		s32 result = ret < -MAX_ERRNO ? -EINTR : ret;

		send_wide(REC_FUTEX_WAIT, 0, cpu, id, argument(regs, 0), 0, result, duration, 0, current);
		sent = true;
	}
	if (is_wanted(REC_FUTEX_WAKE) && futex == FUTEX_WAKES && ret >= 0) {
		send_wide(REC_FUTEX_WAKE, 0, cpu, id, argument(regs, 0), 0, ret, 0, 0, current);
		sent = true;
	}
	if (is_timed(nr) && duration) {
		send_wide(REC_SYSCALL, 0, cpu, id, ret, 0, nr, duration, 0, current);
		sent = true;
	}
	if (is_wanted(REC_SYSCALL_FAILED) && failed) {
		send_short(REC_SYSCALL_FAILED, 0, cpu, id, (u32)nr | (u64)(u32)-ret << 32, current);
		sent = true;
	}
	if (is_wanted(REC_PRIO_CHANGE) && ret == 0 && sets_priority(nr)) {
		priority_set(regs, cpu, id, nr);
		sent = true;
	}
	/* setfsuid and setfsgid give what was before, whatever comes of it. */
	if (is_wanted(REC_CRED_CHANGE) && !failed && sets_cred(nr)) {
		cred_changed(cpu, id, current);
		sent = true;
	}
	return sent ? 0 : passed_over(REC_SYSCALL_FAILED, cpu);
}
