//! Streams made by hand or by a small simulator, and reports on them.

mod bounds;
mod explanations;
mod properties;
mod recall;
mod reports;
mod rules;
mod shares;
mod simulator;
mod sleeps;

use super::states::{Observer, States};
use super::*;
use crate::event::*;
use crate::source::{Filters, MemorySource};
use crate::system::{CpuInfo, Topology};

pub(super) const R: TaskState = TaskState::RUNNING;
pub(super) const S: TaskState = TaskState::INTERRUPTIBLE;
pub(super) const X: TaskState = TaskState::DEAD;
/// The idle task, in switches.
pub(super) const IDLE: u32 = u32::MAX;

/// A stream that is being written down. Times are nanoseconds; tasks are `TaskId`s.
#[derive(Clone)]
pub(super) struct Stream {
    pub(super) meta: Meta,
    pub(super) batch: Batch,
    pub(super) options: Options,
}

/// A recording of `[1_000, 2_000)`, the window of most tests.
pub(super) fn stream() -> Stream {
    Stream {
        meta: Meta { started: Nanos(1_000), ended: Some(Nanos(2_000)), ..Meta::default() },
        batch: Batch::default(),
        options: Options::default(),
    }
}

pub(super) fn task(id: u32, tid: u32, tgid: u32, comm: &str) -> Task {
    Task {
        id: TaskId(id),
        tid,
        tgid,
        ppid: 1,
        comm: Comm::new(comm),
        cgroup: CgroupId(u64::from(tgid)),
        kernel: false,
        ..Task::idle(Cpu(0))
    }
}

/// Task 1 runs until 1_100, is preempted by task 2 until 1_200, runs until 1_300, sleeps in this state until task 2 wakes it at
/// 1_600, waits behind it until 1_650, and runs until 1_700; then it is gone.
pub(super) fn a_life(state: TaskState) -> Stream {
    stream()
        .cpus(&[0])
        .tasks(&[task(1, 11, 10, "one"), task(2, 12, 12, "two")])
        .preempt(1_100, 0, 1, 2)
        .preempt(1_200, 0, 2, 1)
        .switch(1_300, 0, 1, state, 2)
        .waking(1_600, 0, 2, 1, 0)
        .preempt(1_650, 0, 2, 1)
        .switch(1_700, 0, 1, X, IDLE)
}

/// A task of the process that records.
pub(super) fn recorder(id: u32) -> Task {
    Task { recorder: true, ..task(id, 900 + id, 900, "schedtrace") }
}

fn id(cpu: u16, task: u32) -> TaskId {
    if task == IDLE { TaskId::idle(Cpu(cpu)) } else { TaskId(task) }
}

impl Stream {
    pub(super) fn by(mut self, by: GroupBy) -> Self {
        self.options.by = by;
        self
    }

    pub(super) fn tasks(mut self, tasks: &[Task]) -> Self {
        self.batch.tasks.extend(tasks);
        self
    }

    /// CPUs of one LLC and node, each a core.
    pub(super) fn cpus(mut self, cpus: &[u16]) -> Self {
        let info = |&n: &u16| CpuInfo { cpu: Cpu(n), core: n.into(), llc: 0, node: 0, online: true };
        self.meta.topology = Topology { cpus: cpus.iter().map(info).collect() };
        self
    }

    /// CPUs, each with its core, its last-level cache and its node.
    pub(super) fn topology(mut self, cpus: &[(u16, u32, u32, u32)]) -> Self {
        let info = |&(n, core, llc, node): &_| CpuInfo { cpu: Cpu(n), core, llc, node, online: true };
        self.meta.topology = Topology { cpus: cpus.iter().map(info).collect() };
        self
    }

    /// Only what lies between these times counts.
    pub(super) fn window(self, from: u64, until: u64) -> Self {
        self.options(|options| (options.from, options.until) = (Some(Nanos(from)), Some(Nanos(until))))
    }

    pub(super) fn ended(mut self, at: u64) -> Self {
        self.meta.ended = Some(Nanos(at));
        self
    }

    pub(super) fn event(mut self, ts: u64, cpu: u16, kind: EventKind) -> Self {
        self.batch.events.push(Event { ts: Nanos(ts), cpu: Cpu(cpu), kind });
        self
    }

    fn turn(self, ts: u64, cpu: u16, prev: u32, prev_state: TaskState, preempted: bool, next: u32) -> Self {
        let (prev, next) = (id(cpu, prev), id(cpu, next));
        let switch = Switch { prev, next, prev_state, preempted, prev_prio: 120, next_prio: 120 };
        self.event(ts, cpu, EventKind::Switch(switch))
    }

    /// `prev` leaves of its own will, in this state.
    pub(super) fn switch(self, ts: u64, cpu: u16, prev: u32, state: TaskState, next: u32) -> Self {
        self.turn(ts, cpu, prev, state, false, next)
    }

    /// `prev` is preempted.
    pub(super) fn preempt(self, ts: u64, cpu: u16, prev: u32, next: u32) -> Self {
        self.turn(ts, cpu, prev, R, true, next)
    }

    /// `prev` leaves in this state, with these priorities.
    pub(super) fn prio_switch(
        self,
        ts: u64,
        cpu: u16,
        prev: (u32, u8),
        prev_state: TaskState,
        next: (u32, u8),
    ) -> Self {
        let (prev, prev_prio) = (id(cpu, prev.0), prev.1);
        let (next, next_prio) = (id(cpu, next.0), next.1);
        let switch = Switch { prev, next, prev_state, preempted: false, prev_prio, next_prio };
        self.event(ts, cpu, EventKind::Switch(switch))
    }

    /// The quota of `prev`'s cgroup is used up.
    pub(super) fn throttle(self, ts: u64, cpu: u16, prev: u32, next: u32) -> Self {
        self.turn(ts, cpu, prev, TaskState::THROTTLED, false, next)
    }

    fn wake(self, ts: u64, cpu: u16, (current, task): (u32, u32), prev_cpu: u16, how: (Context, bool)) -> Self {
        let (task, current) = (TaskId(task), id(cpu, current));
        let waking = Waking { task, current, context: how.0, prev_cpu: Cpu(prev_cpu), on_cpu: how.1, prio: 120 };
        self.event(ts, cpu, EventKind::Waking(waking))
    }

    /// `waker` on `cpu` wakes `task`, which ran on `prev_cpu` last.
    pub(super) fn waking(self, ts: u64, cpu: u16, waker: u32, task: u32, prev_cpu: u16) -> Self {
        self.wake(ts, cpu, (waker, task), prev_cpu, (Context::Task, false))
    }

    /// The same, while the task is on its CPU.
    pub(super) fn waking_on_cpu(self, ts: u64, cpu: u16, waker: u32, task: u32, prev_cpu: u16) -> Self {
        self.wake(ts, cpu, (waker, task), prev_cpu, (Context::Task, true))
    }

    /// A hardware interrupt wakes `task`.
    pub(super) fn irq_waking(self, ts: u64, cpu: u16, current: u32, task: u32, prev_cpu: u16) -> Self {
        self.wake(ts, cpu, (current, task), prev_cpu, (Context::Hardirq, false))
    }

    /// `task` was put on the queue of this CPU.
    pub(super) fn wakeup(self, ts: u64, cpu: u16, task: u32, target_cpu: u16) -> Self {
        let wakeup = Wakeup { task: TaskId(task), target_cpu: Cpu(target_cpu), prio: 120 };
        self.event(ts, cpu, EventKind::Wakeup(wakeup))
    }

    pub(super) fn wakeup_new(self, ts: u64, cpu: u16, parent: u32, task: u32, target_cpu: u16) -> Self {
        let (task, parent) = (TaskId(task), TaskId(parent));
        let new = WakeupNew { task, parent, target_cpu: Cpu(target_cpu), prio: 120 };
        self.event(ts, cpu, EventKind::WakeupNew(new))
    }

    /// `task` moves from one queue to another.
    pub(super) fn migrate(self, ts: u64, cpu: u16, task: u32, from: u16, to: u16) -> Self {
        let migrate = Migrate { task: TaskId(task), from: Cpu(from), to: Cpu(to), placed: false, prio: 120 };
        self.event(ts, cpu, EventKind::Migrate(migrate))
    }

    /// `task`, which last ran on `from`, was woken and is to wait on `to`.
    pub(super) fn place(self, ts: u64, cpu: u16, task: u32, from: u16, to: u16) -> Self {
        let migrate = Migrate { task: TaskId(task), from: Cpu(from), to: Cpu(to), placed: true, prio: 120 };
        self.event(ts, cpu, EventKind::Migrate(migrate))
    }

    pub(super) fn snapshot(self, ts: u64, cpu: u16, task: u32, running: bool) -> Self {
        self.event(ts, cpu, EventKind::Snapshot(Snapshot { task: TaskId(task), running }))
    }

    pub(super) fn loss(mut self, kind: Option<Kind>, count: u64, from: u64, until: u64) -> Self {
        let place = LossPlace::Ring(ShardId(0));
        self.batch.lost.push(Loss { place, kind, count, from: Nanos(from), until: Nanos(until) });
        self
    }

    pub(super) fn filter(mut self, filters: Filters) -> Self {
        self.meta.filters = filters;
        self
    }

    pub(super) fn options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    pub(super) fn report(self) -> Report {
        let until = self.meta.ended.unwrap_or_default();
        let batch = Batch { until, ..self.batch };
        let mut source = MemorySource::new(self.meta, [batch]);
        run(&mut source, Sched::new(self.options)).unwrap()
    }
}

impl Stream {
    /// What a question answers to it.
    pub(super) fn ask<Q: Question>(self) -> Answered<Q::Answer> {
        let mut study = Study::<Q>::new(self.options);
        study.begin(&self.meta);
        study.update(&Batch { until: self.meta.ended.unwrap_or_default(), ..self.batch });
        study.finish(&self.meta);
        study.report()
    }

    /// Everything that the state machine tells, also of what has not ended.
    pub(super) fn observe<O: Observer + Default>(self) -> O {
        let (mut states, mut observer) = (States::default(), O::default());
        states.begin(&self.meta);
        states.update(&Batch { until: self.meta.ended.unwrap_or_default(), ..self.batch }, &mut observer);
        states.open(&mut observer);
        observer
    }
}

/// Count and total.
pub(super) fn sums(latencies: &Latencies) -> (u64, u64) {
    (latencies.summary.count, latencies.summary.total_ns)
}

/// Waits that are no samples.
pub(super) fn cut(waits: u64, wait_ns: u64, longest_ns: u64) -> WaitCounts {
    WaitCounts { waits, wait_ns, longest_ns }
}

/// The tasks of rows.
pub(super) fn task_of(group: &Group) -> u32 {
    match group {
        Group::Task(who) => who.task.0,
        other => panic!("{other} is no task"),
    }
}

impl Report {
    /// The run-queue row of a task.
    pub(super) fn waits(&self, task: u32) -> RunQueueRow {
        let of = |row: &&RunQueueRow| matches!(&row.group, Group::Task(who) if who.task == TaskId(task));
        let nothing = || RunQueueRow { group: Group::Unknown, stats: RunQueueStats::default(), causes: Vec::new() };
        self.run_queue.groups.iter().find(of).cloned().unwrap_or_else(nothing)
    }

    /// Samples, all together, and their causes, of a task.
    pub(super) fn waited(&self, task: u32) -> (u64, u64, Vec<CauseKind>) {
        let row = self.waits(task);
        (row.stats.wait.count, row.stats.wait.total_ns, row.causes.iter().map(|cause| cause.cause).collect())
    }

    /// CPU time of a task.
    pub(super) fn ran(&self, task: u32) -> u64 {
        let of = |row: &&CpuTimeRow| matches!(&row.group, Group::Task(who) if who.task == TaskId(task));
        self.cpu_time.groups.iter().find(of).map_or(0, |row| row.cpu_time_ns)
    }

    /// Busy, idle and unknown time of a CPU.
    pub(super) fn cpu(&self, cpu: u16) -> (u64, u64, u64) {
        let row = self.cpu_time.cpus.iter().find(|row| row.cpu == Cpu(cpu)).unwrap();
        (row.used.busy_ns, row.used.idle_ns, row.used.unknown_ns)
    }

    /// Behind which tasks a task waited, and how long behind an idle CPU and behind nobody knows whom.
    pub(super) fn behind(&self, task: u32) -> (Vec<(u32, u64)>, u64, u64) {
        let of = |row: &&HoldersRow| matches!(&row.group, Group::Task(who) if who.task == TaskId(task));
        let held = self.holders.groups.iter().find(of).map(|row| row.held_by.clone()).unwrap_or_default();
        let holders = held.holders.iter().map(|holder| match &holder.group {
            Group::Task(who) => (who.task.0, holder.held_ns),
            other => panic!("{other:?} is no task"),
        });
        (holders.collect(), held.idle_ns, held.unknown_ns)
    }
}
