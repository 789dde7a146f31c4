//! What the state machine tells of sleeps, quotas and queues, rule by rule.

use std::collections::BTreeMap;

use super::simulator::{simulate, steps};
use super::*;
use crate::analysis::states::{Cause, CpuRef, Left, Ran, Seen, SleepEnd, Slept, WaitEnd, Waited};
use proptest::prelude::*;

/// Task, from, until, where it had run, when it was put on a queue, why it waited, and how that ended.
type ToldWait = (u32, u64, u64, Option<u16>, Option<u64>, Cause, WaitEnd);

/// Everything that is told, in order.
#[derive(Default)]
struct Told {
    slept: Vec<Slept>,
    waited: Vec<ToldWait>,
    left: Vec<(u32, Left)>,
    happened: Vec<(u16, Kind)>,
    /// Of each task: all stretches of some length.
    stretches: BTreeMap<u32, Vec<(u64, u64)>>,
    died: Vec<u32>,
}

impl Told {
    fn stretch(&mut self, task: u32, from: Nanos, until: Nanos) {
        let all = self.stretches.entry(task).or_default();
        if from < until {
            all.push((from.0, until.0));
        }
    }

    /// The sleeps of one task: from, until, in which state, and how they ended.
    fn sleeps(&self, task: u32) -> Vec<(u64, u64, Option<TaskState>, SleepEnd)> {
        let of = self.slept.iter().filter(|slept| slept.task.id == TaskId(task));
        of.map(|slept| (slept.from.0, slept.until.0, slept.state, slept.end)).collect()
    }
}

impl Observer for Told {
    fn ran(&mut self, ran: &Ran, _: &Seen<'_>) {
        self.left.push((ran.task.id.0, ran.left));
        self.stretch(ran.task.id.0, ran.span.from, ran.span.until);
        if ran.left == Left::Died {
            self.died.push(ran.task.id.0);
        }
    }
    fn waited(&mut self, wait: &Waited<'_>, _: &Seen<'_>) {
        let (ran_on, enqueued) = (wait.ran_on.map(|cpu| cpu.cpu.0), wait.enqueued.map(|at| at.0));
        self.waited.push((wait.task.id.0, wait.from.0, wait.until.0, ran_on, enqueued, wait.cause, wait.end));
        self.stretch(wait.task.id.0, wait.from, wait.until);
    }
    fn slept(&mut self, slept: &Slept, _: &Seen<'_>) {
        self.slept.push(*slept);
        self.stretch(slept.task.id.0, slept.from, slept.until);
    }
    fn happened(&mut self, event: &Event, cpu: CpuRef, _: &Seen<'_>) {
        self.happened.push((cpu.cpu.0, event.kind.kind()));
    }
}

fn by(task: u32) -> SleepEnd {
    SleepEnd::Woken(Waker::Task(TaskId(task)))
}

const HARDIRQ: SleepEnd = SleepEnd::Woken(Waker::Interrupt(Context::Hardirq));
const D: TaskState = TaskState(TaskState::UNINTERRUPTIBLE.0 | TaskState::IO_WAIT.0);

#[test]
fn a_sleep_is_told_when_somebody_ends_it() {
    // Task 1 sleeps in [1100, 1300), and in [1500, 1600) for I/O. It is awake at the end.
    let told: Told = stream()
        .switch(1100, 0, 1, S, 2)
        .waking(1300, 0, 2, 1, 0)
        .switch(1400, 0, 2, S, 1)
        .switch(1500, 0, 1, D, IDLE)
        .irq_waking(1600, 1, IDLE, 1, 0)
        .switch(1650, 0, IDLE, R, 1)
        .observe();
    assert_eq!(told.sleeps(1), [(1100, 1300, Some(S), by(2)), (1500, 1600, Some(D), HARDIRQ)]);
    assert_eq!(told.sleeps(2), [(1400, 2000, Some(S), SleepEnd::Open)]);
    assert!(told.slept.iter().all(|slept| slept.cpu.cpu == Cpu(0) && !slept.doubtful));
}

#[test]
fn a_sleep_in_which_events_are_missing_is_in_doubt() {
    let lossy = stream().switch(1100, 0, 1, S, 2).waking(1300, 0, 2, 1, 0).switch(1400, 0, 2, S, 1);
    let told: Told = lossy.switch(1500, 0, 1, S, IDLE).loss(Some(Kind::Waking), 1, 1200, 1210).observe();
    assert_eq!(
        told.slept.iter().map(|slept| (slept.from.0, slept.doubtful)).collect::<Vec<_>>(),
        [(1100, true), (1500, false), (1400, false)]
    );
}

#[test]
fn a_sleep_ends_unseen_if_the_task_turns_out_to_have_run() {
    // Nothing woke task 1, but it gets CPU 0 at 1500. And nothing woke task 3, but it leaves CPU 1 at 1600.
    let told: Told = stream()
        .switch(1100, 0, 1, S, IDLE)
        .switch(1200, 1, 3, S, IDLE)
        .switch(1500, 0, IDLE, R, 1)
        .switch(1600, 1, 3, S, IDLE)
        .observe();
    assert_eq!(told.sleeps(1), [(1100, 1500, Some(S), SleepEnd::Unseen)]);
    let unseen = (1200, 1600, Some(S), SleepEnd::Unseen);
    assert_eq!(told.sleeps(3), [unseen, (1600, 2000, Some(S), SleepEnd::Open)]);
    assert!(told.slept.iter().all(|slept| slept.doubtful == (slept.end == SleepEnd::Unseen)));
}

#[test]
fn who_slept_before_the_recording_began_slept_since_then() {
    // Whoever was not named by the snapshot slept; task 4 was created later, and of task 5 nobody knows when.
    let tasks = [Task { start: Nanos(5), ..task(3, 3, 3, "old") }, Task { start: Nanos(1200), ..task(4, 4, 4, "new") }];
    let woken = |stream: Stream| -> Told {
        let stream = stream.irq_waking(1300, 0, 1, 3, 7).irq_waking(1310, 0, 1, 4, 7).irq_waking(1320, 0, 1, 5, 7);
        stream.tasks(&tasks).observe()
    };
    let told = woken(stream().cpus(&[0, 7]).snapshot(1000, 0, 1, true));
    assert_eq!(told.sleeps(3), [(1000, 1300, None, HARDIRQ)]);
    assert_eq!((told.slept[0].cpu.cpu, told.slept.len()), (Cpu(7), 1));
    assert_eq!(woken(stream()).slept.len(), 0, "without a snapshot");
}

#[test]
fn a_waking_that_overtakes_the_switch_out_leaves_no_sleep() {
    let overtaken = || stream().switch(1010, 0, IDLE, R, 1).waking_on_cpu(1090, 1, 2, 1, 0).switch(1100, 0, 1, S, IDLE);
    let told: Told = overtaken().switch(1160, 0, IDLE, R, 1).observe();
    assert_eq!((told.sleeps(1), told.waited.len()), (vec![], 1));
    // As long as nobody knows, it is told as a sleep, which it turns out to be when another waking comes.
    let told: Told = overtaken().observe();
    assert_eq!((told.sleeps(1), told.waited.len()), (vec![(1100, 2000, Some(S), SleepEnd::Open)], 0));
    let told: Told = overtaken().waking(1300, 1, 3, 1, 0).observe();
    assert_eq!((told.sleeps(1), told.waited.len()), (vec![(1100, 1300, Some(S), by(3))], 1));
    // A CPU was chosen for it, so it waits.
    let told: Told = overtaken().place(1120, 1, 1, 0, 1).waking(1300, 1, 3, 1, 1).observe();
    assert_eq!((told.sleeps(1), told.waited.len()), (vec![], 1));
}

#[test]
fn a_wait_that_is_known_was_no_sleep_wherever_it_goes_on() {
    // The choice shows that it waits, on a CPU that is not recorded; then it runs and sleeps there unseen until 1300.
    let filters = Filters { cpus: vec![0, 1], ..Filters::default() };
    let told: Told = stream()
        .filter(filters)
        .switch(1010, 0, IDLE, R, 1)
        .waking_on_cpu(1090, 1, 2, 1, 0)
        .switch(1100, 0, 1, S, IDLE)
        .place(1120, 1, 1, 0, 9)
        .waking(1300, 1, 3, 1, 9)
        .observe();
    assert_eq!(told.sleeps(1), []);
}

#[test]
fn a_dead_task_does_not_sleep() {
    let told: Told = stream().switch(1100, 0, 1, X, IDLE).event(1200, 1, EventKind::Free { task: TaskId(1) }).observe();
    assert_eq!((told.slept.len(), told.died), (0, vec![1]));
}

#[test]
fn a_quota_keeps_a_task_runnable() {
    // Task 1 is throttled at 1100, woken to no avail, and goes on at 1400. Task 2 is out of time at 1500, in the kernel.
    let in_kernel = Switch {
        prev: TaskId(2),
        next: TaskId(1),
        prev_state: TaskState::THROTTLED,
        preempted: true,
        prev_prio: 120,
        next_prio: 120,
    };
    let told: Told = stream()
        .throttle(1100, 0, 1, IDLE)
        .waking(1200, 1, 3, 1, 0)
        .wakeup(1210, 1, 1, 0)
        .switch(1400, 0, IDLE, R, 1)
        .switch(1450, 0, 1, S, 2)
        .event(1500, 0, EventKind::Switch(in_kernel))
        .observe();
    assert_eq!(told.left[..2], [(1, Left::Throttled), (1, Left::Slept(S))]);
    assert_eq!(told.left[2], (2, Left::Throttled));
    assert_eq!(
        told.waited,
        [
            (1, 1100, 1400, Some(0), None, Cause::Throttled, WaitEnd::Ran),
            (2, 1500, 2000, Some(0), None, Cause::Throttled, WaitEnd::Open)
        ]
    );
}

#[test]
fn a_throttled_wait_is_a_cause_of_its_own_and_a_switch_that_nobody_wanted() {
    let report = stream().throttle(1100, 0, 1, IDLE).switch(1400, 0, IDLE, R, 1).report();
    assert_eq!(report.waited(1), (1, 300, vec![CauseKind::Throttled]));
    assert_eq!((report.switches.total.involuntary, report.switches.total.preempted_in_kernel), (1, 0));
}

#[test]
fn states_with_a_quota_are_read_back() {
    let sleeps = TaskState(TaskState::INTERRUPTIBLE.0 | TaskState::THROTTLED.0);
    let of = |state: TaskState| (state.is_runnable(), state.is_throttled(), state.letter());
    assert_eq!([of(R), of(TaskState::THROTTLED), of(S)], [(true, false, 'R'), (true, true, 'R'), (false, false, 'S')]);
    assert_eq!(of(sleeps), (false, true, 'S'));
    // Who goes to sleep is asleep, whatever its cgroup may use.
    let told: Told = stream().switch(1100, 0, 1, sleeps, IDLE).observe();
    assert_eq!(told.sleeps(1), [(1100, 2000, Some(sleeps), SleepEnd::Open)]);
}

#[test]
fn a_wait_knows_where_the_task_had_run_and_when_it_was_put_on_a_queue() {
    // Task 1 ran on CPU 0, and waits on CPU 1 from 1300 on. Of task 2 nothing was seen before.
    let told: Told = stream()
        .switch(1100, 0, 1, S, IDLE)
        .irq_waking(1200, 1, IDLE, 1, 0)
        .place(1205, 1, 1, 0, 1)
        .wakeup(1215, 1, 1, 1)
        .wakeup(1220, 1, 1, 1)
        .switch(1300, 1, IDLE, R, 1)
        .irq_waking(1400, 2, IDLE, 2, 2)
        .switch(1450, 2, IDLE, R, 2)
        .wakeup_new(1500, 2, 2, 3, 0)
        .switch(1600, 0, IDLE, R, 3)
        .observe();
    let waited: Vec<_> = told.waited.iter().map(|w| (w.0, w.1, w.2, w.3, w.4)).collect();
    let truth = [(1, 1200, 1300, Some(0), Some(1215)), (2, 1400, 1450, None, None), (3, 1500, 1600, None, Some(1500))];
    assert_eq!(waited, truth, "the first of two counts");
}

#[test]
fn a_preempted_task_is_put_on_no_queue() {
    // It was about to sleep, and is woken while it waits: it was on the queue all the time.
    let told: Told = stream()
        .preempt(1100, 0, 1, 2)
        .waking(1200, 1, 3, 1, 0)
        .wakeup(1205, 1, 1, 0)
        .switch(1300, 0, 2, S, 1)
        .observe();
    let waited: Vec<_> = told.waited.iter().map(|w| (w.0, w.1, w.2, w.4)).collect();
    assert_eq!(waited, [(1, 1100, 1300, None)]);
}

#[test]
fn a_wakeup_of_who_runs_changes_nothing() {
    let told: Told = stream()
        .switch(1010, 0, IDLE, R, 1)
        .waking_on_cpu(1050, 1, 2, 1, 0)
        .wakeup(1055, 1, 1, 0)
        .switch(1100, 0, 1, S, IDLE)
        .waking(1500, 1, 3, 1, 0)
        .switch(1510, 0, IDLE, R, 1)
        .observe();
    let waited: Vec<_> = told.waited.iter().map(|w| (w.0, w.1, w.2, w.4)).collect();
    assert_eq!((waited, told.sleeps(1)), (vec![(1, 1500, 1510, None)], vec![(1100, 1500, Some(S), by(3))]));
}

#[test]
fn where_a_task_left_a_cpu_unseen_is_where_nobody_knows() {
    // Task 1 had CPU 0 until 1100, and CPU 1 from 1200 on, which it left unseen: where it ran last is not known.
    let told: Told = stream()
        .switch(1100, 0, 1, S, IDLE)
        .irq_waking(1150, 1, IDLE, 1, 0)
        .place(1150, 1, 1, 0, 1)
        .switch(1200, 1, IDLE, R, 1)
        .switch(1300, 1, 2, S, IDLE)
        .irq_waking(1400, 0, IDLE, 1, 3)
        .switch(1500, 3, IDLE, R, 1)
        .observe();
    let waited: Vec<_> = told.waited.iter().map(|w| (w.1, w.2, w.3)).collect();
    assert_eq!(waited, [(1150, 1200, Some(0)), (1400, 1500, None)]);
}

#[test]
fn what_changes_no_state_is_passed_on_with_its_cpu() {
    let fork = EventKind::Fork(Fork { parent: TaskId(1), child: TaskId(2) });
    let hang = EventKind::from(Hang { task: TaskId(1) });
    let told: Told = stream()
        .switch(1100, 0, IDLE, R, 1)
        .wakeup(1200, 7, 2, 0)
        .event(1300, 300, hang)
        .event(1310, 0, fork)
        .waking(1320, 0, 1, 2, 0)
        .observe();
    assert_eq!(told.happened, [(7, Kind::Wakeup), (300, Kind::Hang)]);
}

/// That no two stretches of one task overlap; and, if nothing is missing, that there are no gaps between them.
fn check(told: &Told, ended: u64, complete: bool) -> Result<(), TestCaseError> {
    for (task, stretches) in &told.stretches {
        let mut sorted = stretches.clone();
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            let (before, after) = (pair[0].1, pair[1].0);
            prop_assert!(before <= after, "task {task}: {sorted:?} overlap");
            prop_assert!(!complete || before == after, "task {task}: {sorted:?} have a gap");
        }
        if complete && !told.died.contains(task) {
            prop_assert!(
                sorted.last().is_none_or(|last| last.1 == ended),
                "task {task}: {sorted:?} end before {ended}"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_moment_of_a_life_is_told_once(steps in steps(200)) {
        let stream = simulate(&steps).stream;
        let ended = stream.meta.ended.unwrap().0;
        check(&stream.observe(), ended, true)?;
    }

    #[test]
    fn no_moment_of_a_life_is_told_twice_if_events_are_missing(
        steps in steps(200),
        missing in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        born in prop::collection::vec(0..2_000u64, 6),
    ) {
        let mut stream = simulate(&steps).stream;
        for missing in missing {
            let events = &mut stream.batch.events;
            if !events.is_empty() {
                events.remove(missing.index(events.len()));
            }
        }
        let born = (1..).zip(born).map(|(id, start)| Task { start: Nanos(start), ..task(id, id, id, "t") });
        let tasks: Vec<_> = born.collect();
        let ended = stream.meta.ended.unwrap().0;
        check(&stream.tasks(&tasks).observe(), ended, false)?;
    }
}
