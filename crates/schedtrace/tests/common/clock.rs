//! Where the kernel's clock stands still between a wakeup and the switch that it leads to.
//!
//! The kernel's figures are those of the run queue's clock. A wakeup that takes the CPU from who has it reads that
//! clock, and asks the switch that follows not to read it again (`rq_clock_skip_update()` in `kernel/sched/core.c`). So
//! the time between the two, the way out of an interrupt for instance, is a wait for us; for the kernel the wait took
//! no time, and the woken thread had the CPU already. Neither changes the sum of both.

use std::collections::HashMap;

use schedtrace_core::analysis::states::{Cause, Observer, Seen, States, Switched, WaitEnd, Waited};
use schedtrace_core::{Cpu, Nanos, TaskId};

use super::recording::Trace;

/// A wakeup that takes the CPU has it by then, in an interrupt on a virtual machine too. Who waits longer waits for a
/// tick, which reads the clock again.
const AT_ONCE_NS: u64 = 100_000;

/// For each thread: all time between a wakeup and the switch that directly followed it on that CPU, of switches to
/// this thread and away from it.
pub fn unread(trace: &Trace) -> HashMap<TaskId, u64> {
    let mut direct = Direct::default();
    States::default().update(&trace.as_one(), &mut direct);
    direct.unread
}

#[derive(Default)]
struct Direct {
    unread: HashMap<TaskId, u64>,
    /// The last switch of each CPU, who left, and when the switch before it was.
    last: HashMap<Cpu, (Nanos, TaskId, Nanos)>,
}

impl Observer for Direct {
    fn switched(&mut self, switched: &Switched, _: &Seen<'_>) {
        let before = self.last.get(&switched.cpu.cpu).map_or(Nanos::ZERO, |&(at, ..)| at);
        self.last.insert(switched.cpu.cpu, (switched.at, switched.prev.id, before));
    }

    fn waited(&mut self, wait: &Waited<'_>, _: &Seen<'_>) {
        let woken = matches!(wait.cause, Cause::Woken(_) | Cause::New(_));
        let Some(&(at, prev, before)) = self.last.get(&wait.cpu.cpu) else { return };
        let span = (wait.until - wait.from).0;
        if woken && wait.end == WaitEnd::Ran && at == wait.until && wait.from >= before && span < AT_ONCE_NS {
            *self.unread.entry(wait.task.id).or_default() += span;
            *self.unread.entry(prev).or_default() += span;
        }
    }
}
