//! Tasks that leave their CPUs, and CPUs that leave: by a migration, unseen, or off line.

use super::{CpuRef, MAX_SEGMENTS, Migrated, Observer, Occupant, Segment, State, States, TaskRef};
use crate::event::{Cpu, Migrate};

impl States {
    /// The task has left the CPU it was seen on, but nobody knows when, nor what it does.
    pub(super) fn lose(&mut self, cpu: CpuRef, task: TaskRef) {
        if let Some(thread) = self.thread(task)
            && matches!(thread.state, State::Running(on) if on == cpu)
        {
            (thread.state, thread.held, thread.ran_on) = (State::Lost, None, None);
        }
    }

    /// `task` was seen on `cpu`, and turns up elsewhere.
    pub(super) fn desert(&mut self, cpu: CpuRef, task: TaskRef) {
        let cpu = self.cpus.at_mut(cpu);
        if cpu.on == Occupant::Task(task) {
            cpu.gone();
        }
    }

    /// The CPU is off line, or going to be at once. Who was seen there last is its stopper, whose leave nobody tells: on a CPU
    /// that is off line no tracepoint is run (`__DECLARE_TRACE` in `include/linux/tracepoint.h`).
    pub(super) fn unplugged(&mut self, cpu: Cpu) {
        let Some(cpu) = self.cpus.get(cpu) else { return };
        if let Occupant::Task(task) = self.cpus.at(cpu).on {
            self.lose(cpu, task);
            self.cpus.at_mut(cpu).gone();
        }
    }

    /// A task is moved from one run queue to another.
    pub(super) fn migrate(&mut self, migrate: &Migrate, out: &mut impl Observer) {
        if migrate.task.is_idle() {
            return;
        }
        let task = self.tasks.find(migrate.task);
        let (Some(from), Some(to)) = (self.cpu(migrate.from), self.cpu(migrate.to)) else { return };
        let (now, placed) = (self.now, migrate.placed);
        // On a CPU that is not recorded it may have run and slept any number of times.
        let reliable = placed || self.cpus.at(from).watched;
        if let Some(thread) = self.thread(task)
            && let State::Waiting(waiting) = &mut thread.state
        {
            if !reliable {
                thread.state = State::Lost;
            } else if placed && thread.segments.is_empty() {
                // A CPU is chosen for a task that was asleep, never for one that had been kept from sleeping.
                (waiting.cpu, waiting.tentative) = (to, false);
                thread.asleep = None;
            } else if thread.segments.len() < MAX_SEGMENTS {
                thread.segments.push(Segment { cpu: from, from: waiting.since, until: now });
                (waiting.cpu, waiting.since) = (to, now);
            } else {
                waiting.cpu = to;
            }
        }
        let migrated = Migrated { at: now, task, from: migrate.from, to: migrate.to, placed };
        out.migrated(&migrated, &self.seen());
    }
}
