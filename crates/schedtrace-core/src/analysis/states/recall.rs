//! What is known from before the first event: who ran or waited when a recording began, or where its reading did.

use super::{Asleep, Cause, CpuRef, Occupant, State, States, Waiting};
use crate::event::{Doing, Snapshot, TaskStatus};

impl States {
    /// Who ran or waited at the start. The events between the start and the snapshot know better.
    pub(super) fn snapshot(&mut self, cpu: CpuRef, snapshot: &Snapshot) {
        self.cpus.silence_is_idle = !self.doubt.of_snapshot() && !self.tasks.filtered();
        if snapshot.task.is_idle() {
            return;
        }
        let task = self.tasks.find(snapshot.task);
        if !matches!(self.state(task), State::Unknown) {
            return;
        }
        let from = self.started.unwrap_or(self.now);
        if !snapshot.running {
            let cause = Cause::AtStart;
            let (tentative, enqueued) = (false, None);
            self.begin_wait(task, Waiting { from, cut: true, cause, cpu, since: from, tentative, enqueued });
        } else if self.cpus.at(cpu).fresh {
            self.set(task, State::Running(cpu));
            self.cpus.at_mut(cpu).take(task, &self.tasks);
        }
    }

    /// What a task was doing before the first event, if nothing was heard of it yet.
    pub(super) fn recall(&mut self, status: &TaskStatus) {
        let Some(cpu) = self.cpu(status.cpu) else { return };
        let fresh = self.cpus.at(cpu).fresh;
        // Whoever says what all were doing says so of every CPU that was heard of.
        self.cpus.silence_is_idle = !self.tasks.filtered();
        let started = self.started.unwrap_or_default();
        let (since, cut) = (status.since.max(started), status.since < started || status.doing == Doing::Waiting);
        if status.task.is_idle() {
            if fresh {
                let on = if matches!(status.doing, Doing::Running(_)) { Occupant::Idle } else { Occupant::Unseen };
                self.cpus.recall(cpu, (since, cut), on, &self.tasks);
            }
            return;
        }
        let task = self.tasks.find(status.task);
        if !matches!(self.state(task), State::Unknown) {
            return;
        }
        let wait = |cause| Waiting { from: since, cut, cause, cpu, since, tentative: false, enqueued: None };
        let (mut held, mut asleep) = (None, None);
        let state = match status.doing {
            Doing::Running(woken) if fresh => {
                held = woken;
                self.cpus.recall(cpu, (since, cut), Occupant::Task(task), &self.tasks);
                State::Running(cpu)
            }
            Doing::Running(_) | Doing::Unknown => State::Lost,
            Doing::Waking(waker, state) => {
                asleep = Some(Asleep { from: since, state: Some(state), cpu, cut });
                State::Waiting(Waiting { tentative: true, ..wait(Cause::Woken(waker)) })
            }
            Doing::Woken(waker) => State::Waiting(wait(Cause::Woken(waker))),
            Doing::Preempted(by) => State::Waiting(wait(Cause::Preempted(by))),
            Doing::Throttled => State::Waiting(wait(Cause::Throttled)),
            Doing::New(by) => State::Waiting(wait(Cause::New(by))),
            Doing::Waiting => State::Waiting(wait(Cause::AtStart)),
            Doing::Asleep(state) => State::Blocked(Asleep { from: since, state: Some(state), cpu, cut }),
        };
        if let Some(thread) = self.thread(task) {
            thread.segments.clear();
            (thread.state, thread.ran_on) = (state, Some(cpu));
            (thread.held, thread.asleep) = (held, asleep);
        }
    }
}
