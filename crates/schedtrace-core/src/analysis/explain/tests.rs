//! Streams made by hand, whose explanations can be worked out on paper.

use super::*;
use crate::analysis::run;
use crate::analysis::tests::{IDLE, R, S, Stream, X, stream, task};
use crate::event::{
    Address, BlockComplete, BlockOp, Cgroup, CgroupId, FutexWait, IrqEntry, IrqExit, Name, NameId, Softirq,
    SoftirqEntry, SoftirqExit, TaskState,
};
use crate::source::MemorySource;

const D_IO: TaskState = TaskState(TaskState::UNINTERRUPTIBLE.0 | TaskState::IO_WAIT.0);

fn explain(stream: Stream, subject: Subject) -> Explained {
    let until = stream.meta.ended.unwrap_or_default();
    let names = ["subject", "second", "third", "fourth"].into_iter().zip(1..);
    let known: Vec<_> = names.map(|(name, id)| task(id, id, if id < 3 { 10 } else { 10 + id }, name)).collect();
    let stream = stream.tasks(&known);
    let batch = crate::event::Batch { until, ..stream.batch };
    run(&mut MemorySource::new(stream.meta, [batch]), Explain::study(subject, stream.options)).unwrap()
}

fn of_thread(stream: Stream) -> Explained {
    let report = explain(stream, Subject::Thread(1));
    check(&report);
    report
}

/// Mechanism, task and time of each step, longest first.
fn told(steps: &[Step]) -> Vec<(Mechanism, u32, u64)> {
    steps.iter().map(|step| (step.mechanism, step.who.as_ref().map_or(0, |who| who.task.0), step.total_ns)).collect()
}

fn step(steps: &[Step], mechanism: Mechanism) -> &Step {
    steps.iter().find(|step| step.mechanism == mechanism).unwrap_or_else(|| panic!("no {mechanism:?} in {steps:#?}"))
}

fn source(report: &Explained) -> (u32, u64) {
    let source = report.answer.contention_source.as_ref().unwrap();
    (source.task.as_ref().map_or(0, |who| who.task.0), source.total_ns)
}

/// What holds for every explanation.
pub(in crate::analysis) fn check(report: &Explained) {
    fn sums(steps: &[Step], whole: u64) {
        assert_eq!(steps.iter().map(|step| step.total_ns).sum::<u64>(), whole, "{steps:#?}");
        for step in steps.iter().filter(|step| !step.steps.is_empty()) {
            sums(&step.steps, step.total_ns);
        }
    }
    let it = &report.answer;
    let window = report.about.window;
    let until = it.cut_off_at_ns.unwrap_or(Nanos::MAX).min(window.until_ns);
    let whole = (until - window.from_ns).0;
    sums(&it.steps, whole);
    assert!(it.contended_ns <= whole && it.unexplained_ns <= whole, "{it:#?}");
    if it.subject.is_some() {
        sums(&it.critical_path.steps, whole);
    }
    let parts = &it.critical_path.parts;
    assert!(parts.windows(2).all(|pair| pair[0].until_ns <= pair[1].from_ns), "{parts:#?}");
    assert!(parts.iter().all(|part| window.from_ns <= part.from_ns && part.until_ns <= until), "{parts:#?}");
    if it.subject.is_some() && parts.len() == it.critical_path.parts_total {
        assert_eq!(parts.iter().map(|part| (part.until_ns - part.from_ns).0).sum::<u64>(), whole, "{parts:#?}");
    }
    let json = serde_json::to_value(report).unwrap();
    assert!(json["contended_ratio"].is_f64() && json["unexplained_ratio"].is_f64(), "no number is NaN");
}

/// Task 1 is woken at 1,100 and waits behind task 2 until 1,900. Task 3 runs on CPU 1 all the time.
fn behind_a_hog() -> Stream {
    stream()
        .snapshot(1001, 0, 1, true)
        .snapshot(1001, 1, 3, true)
        .switch(1010, 0, 1, S, 2)
        .irq_waking(1100, 1, 3, 1, 0)
        .preempt(1900, 0, 2, 1)
}

#[test]
fn whoever_had_the_cpu_is_named_and_nobody_else() {
    let report = of_thread(behind_a_hog());
    let it = &report.answer;
    use Mechanism::*;
    assert_eq!(told(&it.steps), [(RunQueue, 0, 800), (Running, 1, 110), (Sleep, 0, 90)]);
    assert_eq!(told(&it.steps[0].steps), [(HeldBy, 2, 800)]);
    assert_eq!(it.steps[0].steps[0].sentence, "second[2] had CPU 0 for 800ns of that");
    assert_eq!((it.mechanism, source(&report), it.contended_ns), (Some(RunQueue), (2, 800), 800));
    assert_eq!((it.severity, it.unexplained_ns), (Severity::Critical, 0));
    assert!(!serde_json::to_string(it).unwrap().contains("third"), "it was on another CPU");
    let wait = it.steps[0].evidence[0];
    assert_eq!((wait.from_ns, wait.until_ns), (Nanos(1100), Nanos(1900)));
    assert_eq!((wait.begun_by, wait.ended_by), (Some(Kind::Waking), Some(Kind::Switch)));
    let ran: Vec<_> = it.steps[1].evidence.iter().map(|it| (it.from_ns.0, it.begun_by, it.ended_by)).collect();
    assert_eq!(ran, [(1900, Some(Kind::Switch), None), (1000, None, Some(Kind::Switch))]);
}

#[test]
fn no_event_is_named_that_is_not_in_the_window() {
    let cut = behind_a_hog().options(|options| (options.from, options.until) = (Some(Nanos(1200)), Some(Nanos(1700))));
    let report = of_thread(cut);
    use Mechanism::*;
    assert_eq!(told(&report.answer.steps), [(RunQueue, 0, 500)]);
    for step in [&report.answer.steps[0], &report.answer.steps[0].steps[0]] {
        let it = step.evidence[0];
        assert_eq!((it.from_ns, it.until_ns, it.begun_by, it.ended_by), (Nanos(1200), Nanos(1700), None, None));
    }
    let begun =
        behind_a_hog().options(|options| (options.from, options.until) = (Some(Nanos(1100)), Some(Nanos(1900))));
    let it = of_thread(begun).answer.steps[0].evidence[0];
    assert_eq!((it.begun_by, it.ended_by), (Some(Kind::Waking), None), "an event at the end is not in the window");
}

/// Task 2 holds what task 1 waits for at a futex from 1,100 to 1,750, and is preempted by task 3 from 1,200 to 1,700.
fn behind_a_lock(state: TaskState) -> Stream {
    let wait = FutexWait { task: TaskId(1), address: Address(0x10), duration_ns: Nanos(680), result: 0 };
    stream()
        .snapshot(1001, 0, 1, true)
        .snapshot(1001, 1, 2, true)
        .switch(1100, 0, 1, S, IDLE)
        .switch(1200, 1, 2, state, 3)
        .switch(1700, 1, 3, S, 2)
        .waking(1750, 1, 2, 1, 0)
        .switch(1760, 0, IDLE, R, 1)
        .event(1770, 0, wait.into())
}

#[test]
fn whoever_preempted_the_holder_of_a_lock_is_to_blame() {
    let report = of_thread(behind_a_lock(R));
    let it = &report.answer;
    use Mechanism::*;
    assert_eq!(told(&it.steps), [(Futex, 2, 650), (Running, 1, 340), (RunQueue, 0, 10)]);
    assert_eq!(it.steps[0].what.as_deref(), Some("futex 0x10"));
    assert_eq!(told(&it.steps[0].steps), [(Preempted, 0, 500), (Running, 2, 150)]);
    assert_eq!(told(&it.steps[0].steps[0].steps), [(HeldBy, 3, 500)]);
    assert_eq!(told(&it.steps[2].steps), [(CpuWakeup, 0, 10)]);
    let sentence = &it.steps[0].steps[0].sentence;
    assert_eq!(sentence, "second[2] lost the CPU and waited 500ns (once) to get it back");
    assert_eq!((it.mechanism, source(&report), it.contended_ns), (Some(Preempted), (3, 500), 660));
    let reason = "second[2] was runnable, and third[3] had its CPU, and subject[1] waited for second[2]";
    assert_eq!(it.recommendation.reason, reason);
    let path: Vec<_> = it.critical_path.parts.iter().map(|part| (part.from_ns.0, part.mechanism)).collect();
    assert_eq!(path, [(1000, Running), (1200, Preempted), (1700, Running), (1750, RunQueue), (1760, Running)]);
}

#[test]
fn the_quota_is_that_of_whoever_used_it_up() {
    let mut stream = behind_a_lock(TaskState::THROTTLED).tasks(&[task(2, 2, 2, "holder")]);
    stream.batch.cgroups.push(Cgroup { id: CgroupId(10), path: "/both".into() });
    let report = of_thread(stream);
    use Mechanism::*;
    assert_eq!(told(&report.answer.steps[0].steps), [(Throttled, 0, 500), (Running, 2, 150)]);
    assert_eq!(report.answer.mechanism, Some(Throttled));
    assert!(report.answer.recommendation.action.contains("the cgroup of second[2]"));
    assert_eq!(report.answer.contention_source.unwrap().cgroup.as_deref(), Some("/both"));
}

#[test]
fn a_task_that_may_not_run_waits_for_nobody() {
    let mut stream = stream()
        .snapshot(1001, 0, 1, true)
        .switch(1100, 0, 1, TaskState::THROTTLED, 3)
        .irq_waking(1200, 0, 3, 1, 0)
        .preempt(1800, 0, 3, 1);
    stream.batch.cgroups.push(Cgroup { id: CgroupId(10), path: "/limited".into() });
    let report = of_thread(stream);
    let it = &report.answer;
    use Mechanism::*;
    assert_eq!(told(&it.steps), [(Throttled, 0, 700), (Running, 1, 300)]);
    assert!(it.steps[0].steps.is_empty(), "task 3 ran meanwhile, and did nothing to it");
    assert_eq!((it.mechanism, source(&report)), (Some(Throttled), (0, 700)));
    assert_eq!(it.contention_source.as_ref().unwrap().cgroup.as_deref(), Some("/limited"));
    assert_eq!(
        (it.steps[0].evidence[0].begun_by, it.steps[0].evidence[0].ended_by),
        (Some(Kind::Switch), Some(Kind::Switch))
    );
}

#[test]
fn a_late_waker_is_explained_too() {
    // Task 3 wakes task 2, which waits behind task 4 before it wakes task 1.
    let report = of_thread(
        stream()
            .snapshot(1001, 0, 1, true)
            .snapshot(1001, 1, 2, true)
            .snapshot(1001, 2, 3, true)
            .switch(1010, 0, 1, S, IDLE)
            .switch(1010, 1, 2, S, 4)
            .waking(1100, 2, 3, 2, 1)
            .switch(1500, 1, 4, S, 2)
            .waking(1600, 1, 2, 1, 0)
            .switch(1600, 0, IDLE, R, 1),
    );
    let it = &report.answer;
    use Mechanism::*;
    assert_eq!(told(&it.steps), [(Blocked, 2, 590), (Running, 1, 410)]);
    assert_eq!(told(&it.steps[0].steps), [(RunQueue, 0, 400), (Running, 2, 100), (Blocked, 3, 90)]);
    assert_eq!(told(&it.steps[0].steps[2].steps), [(Running, 3, 90)]);
    assert_eq!((it.mechanism, source(&report), it.contended_ns), (Some(RunQueue), (4, 400), 590));
    // The path: task 3 until it wakes task 2, and so on.
    let path: Vec<_> =
        it.critical_path.parts.iter().map(|part| (part.from_ns.0, part.who.as_ref().unwrap().task.0)).collect();
    assert_eq!(path, [(1000, 3), (1100, 2), (1500, 2), (1600, 1)]);
    assert_eq!(
        step(&it.critical_path.steps, RunQueue).sentence,
        "second[2] was runnable and waited 400ns (once) for a CPU"
    );
}

#[test]
fn chains_are_followed_to_a_depth_of_ten() {
    let mut stream = stream();
    for id in 1..=13_u32 {
        stream = stream.snapshot(1001, id as u16, id, true);
    }
    for id in 1..13_u32 {
        stream = stream.switch(1010, id as u16, id, S, IDLE);
    }
    for id in (1..13_u32).rev() {
        let at = 1_900 - u64::from(id) * 10;
        stream = stream.waking(at, id as u16 + 1, id + 1, id, id as u16).switch(at, id as u16, IDLE, R, id);
    }
    let report = of_thread(stream);
    let mut steps = &report.answer.steps;
    for waker in 2..=11 {
        let blocked = step(steps, Mechanism::Blocked);
        assert_eq!(blocked.who.as_ref().unwrap().task.0, waker);
        steps = &blocked.steps;
    }
    assert!(steps.is_empty(), "{steps:#?}");
    assert_eq!(report.answer.contended_ns, 880);
    assert_eq!(source(&report), (11, 790));
}

fn io(state: TaskState, who: Option<u32>) -> Explained {
    let mut stream = stream().snapshot(1001, 0, 1, true).switch(1100, 0, 1, state, IDLE);
    stream.batch.names.push(Name { id: NameId(1), since: Nanos::ZERO, text: "sda".into() });
    if let Some(task) = who {
        let (task, latency_ns) = (TaskId(task), Nanos(100));
        let done =
            BlockComplete { task, device: NameId(1), size_bytes: 4096, operation: BlockOp(0), status: 0, latency_ns };
        stream = stream.event(1390, 1, done.into());
    }
    of_thread(stream.irq_waking(1400, 1, 3, 1, 0).switch(1400, 0, IDLE, R, 1))
}

#[test]
fn sleep_for_a_disk_is_told_with_the_disk() {
    use Mechanism::*;
    // On behalf of task 1, by itself or by a kernel thread; where no request was recorded, the state tells.
    for (who, what) in [(Some(1), Some("read of sda")), (Some(3), Some("read of sda")), (None, None)] {
        let report = io(D_IO, who);
        assert_eq!(told(&report.answer.steps), [(Running, 1, 700), (Io, 0, 300)]);
        assert_eq!(report.answer.steps[1].what.as_deref(), what);
        assert_eq!((report.answer.mechanism, source(&report)), (Some(Io), (0, 300)));
    }
    // Where the state does not tell, the end of its own request does, but nobody else's.
    assert_eq!(told(&io(S, Some(1)).answer.steps)[1], (Io, 0, 300));
    assert_eq!(told(&io(S, Some(3)).answer.steps)[1], (Sleep, 0, 300));
    assert_eq!(told(&io(S, None).answer.steps)[1], (Sleep, 0, 300));
}

#[test]
fn interrupts_take_what_they_take_themselves() {
    let vector = Softirq(3);
    let report = of_thread(
        stream()
            .snapshot(1001, 0, 1, true)
            .event(1100, 0, SoftirqEntry { vector }.into())
            .event(1120, 0, IrqEntry { irq: 7, action: NameId::NONE }.into())
            .event(1150, 0, IrqExit { irq: 7, handled: true }.into())
            .event(1200, 0, SoftirqExit { vector }.into())
            .switch(1900, 0, 1, S, IDLE),
    );
    use Mechanism::*;
    let steps = &report.answer.steps;
    assert_eq!(told(steps), [(Running, 1, 800), (NotWoken, 0, 100), (Interrupted, 0, 70), (Interrupted, 0, 30)]);
    assert_eq!((steps[2].times, steps[2].longest_ns), (2, 50));
    let edges: Vec<_> = steps[2].evidence.iter().map(|it| (it.begun_by, it.ended_by)).collect();
    assert_eq!(edges, [(None, Some(Kind::SoftirqExit)), (Some(Kind::SoftirqEntry), None)]);
    assert_eq!(
        (steps[3].evidence[0].begun_by, steps[3].evidence[0].ended_by),
        (Some(Kind::IrqEntry), Some(Kind::IrqExit))
    );
    assert_eq!((report.answer.mechanism, report.answer.contended_ns), (Some(Interrupted), 100));
}

#[test]
fn a_process_runs_while_one_of_its_threads_does() {
    let stream = stream()
        .snapshot(1001, 0, 1, true)
        .snapshot(1001, 1, 3, true)
        .wakeup_new(1200, 0, 1, 2, 1)
        .switch(1300, 0, 1, S, IDLE)
        .switch(1500, 1, 3, S, 2)
        .switch(1600, 1, 2, S, IDLE)
        .irq_waking(1800, 0, IDLE, 1, 0)
        .switch(1800, 0, IDLE, R, 1);
    let report = explain(stream, Subject::Process(10));
    check(&report);
    let it = &report.answer;
    use Mechanism::*;
    assert_eq!((it.threads, it.subject.as_ref().unwrap().tid), (2, 1));
    assert_eq!(told(&it.steps), [(Running, 1, 500), (RunQueue, 0, 200), (Sleep, 0, 200), (Running, 2, 100)]);
    assert_eq!(told(&it.steps[1].steps), [(HeldBy, 3, 200)]);
    assert_eq!((source(&report), it.contended_ns), ((3, 200), 200));
}

#[test]
fn a_task_is_absent_before_its_birth_and_after_its_death() {
    let stream = stream()
        .snapshot(1001, 1, 3, true)
        .wakeup_new(1300, 1, 3, 1, 0)
        .switch(1310, 0, IDLE, R, 1)
        .switch(1600, 0, 1, X, IDLE);
    let report = of_thread(stream);
    use Mechanism::*;
    assert_eq!(told(&report.answer.steps), [(Absent, 0, 700), (Running, 1, 290), (RunQueue, 0, 10)]);
    assert_eq!(report.answer.steps[2].evidence[0].begun_by, Some(Kind::WakeupNew));
    let path: Vec<_> = report.answer.critical_path.parts.iter().map(|part| (part.from_ns.0, part.mechanism)).collect();
    assert_eq!(path, [(1000, Running), (1300, RunQueue), (1310, Running), (1600, Absent)], "task 3 created it");
}

#[test]
fn where_events_are_missing_nothing_is_told() {
    let report = of_thread(behind_a_hog().loss(Some(Kind::Waking), 1, 1500, 1510));
    use Mechanism::*;
    assert_eq!(told(&report.answer.steps), [(Unknown, 0, 800), (Running, 1, 110), (Sleep, 0, 90)]);
    assert_eq!((report.answer.unexplained_ns, report.answer.contended_ns), (800, 0));
}

#[test]
fn the_path_goes_through_what_an_interrupt_woke() {
    let report = of_thread(behind_a_hog());
    let path: Vec<_> = report.answer.critical_path.parts.iter().map(|part| (part.from_ns.0, part.mechanism)).collect();
    use Mechanism::*;
    assert_eq!(path, [(1000, Running), (1010, Sleep), (1100, RunQueue), (1900, Running)]);
}

#[test]
fn a_timeout_at_a_futex_is_nobodys_doing() {
    let wait = FutexWait { task: TaskId(1), address: Address(0x10), duration_ns: Nanos(310), result: -110 };
    let report = of_thread(
        stream()
            .snapshot(1001, 0, 1, true)
            .switch(1100, 0, 1, S, IDLE)
            .irq_waking(1400, 0, IDLE, 1, 0)
            .switch(1400, 0, IDLE, R, 1)
            .event(1405, 0, wait.into()),
    );
    let sleep = step(&report.answer.steps, Mechanism::Sleep);
    assert_eq!(sleep.sentence, "subject[1] slept 300ns (once) at futex 0x10 until its time was up, or a signal came");
    assert_eq!((report.answer.contended_ns, report.answer.severity), (0, Severity::None));
}

#[test]
fn an_idle_cpu_wakes_on_behalf_of_an_interrupt() {
    let stream = stream().snapshot(1001, 0, 1, true).switch(1100, 0, 1, S, IDLE).waking(1400, 1, IDLE, 1, 0);
    let report = of_thread(stream.switch(1400, 0, IDLE, R, 1));
    assert_eq!(told(&report.answer.steps), [(Mechanism::Running, 1, 700), (Mechanism::Sleep, 0, 300)]);
}

#[test]
fn a_waking_before_the_sleep_begins_no_wait() {
    // Woken while it was on its CPU: the wait begins with the switch.
    let stream = stream().snapshot(1001, 0, 1, true).snapshot(1001, 1, 3, true).waking_on_cpu(1090, 1, 3, 1, 0);
    let report = of_thread(stream.switch(1100, 0, 1, S, 2).switch(1300, 0, 2, S, 1));
    let wait = step(&report.answer.steps, Mechanism::RunQueue);
    assert_eq!((wait.total_ns, wait.evidence[0].begun_by), (200, Some(Kind::Switch)));
}

#[test]
fn what_has_not_ended_ends_with_no_event() {
    let stream = stream().switch(1100, 0, 1, S, 3).irq_waking(1200, 1, IDLE, 1, 0);
    let report = of_thread(stream.migrate(1500, 1, 1, 0, 2));
    let wait = step(&report.answer.steps, Mechanism::RunQueue);
    assert_eq!((wait.total_ns, wait.evidence[0].begun_by, wait.evidence[0].ended_by), (800, Some(Kind::Waking), None));
    assert_eq!(told(&wait.steps), [(Mechanism::Unknown, 0, 500), (Mechanism::HeldBy, 3, 300)]);
    assert_eq!(wait.steps[0].sentence, "it is not known who had CPU 2 for 500ns of that");
}

#[test]
fn queues_of_a_wait_that_goes_on_are_not_mixed_up_with_those_of_another() {
    // Task 2 has waited on CPUs 0 and 2 when it ends at the very end; task 1 still waits on 0 and 3.
    let stream = stream()
        .cpus(&[0, 1, 2, 3])
        .snapshot(1001, 0, 1, true)
        .preempt(1100, 0, 1, 3)
        .wakeup_new(1150, 0, 3, 2, 0)
        .migrate(1200, 1, 1, 0, 3)
        .migrate(1200, 1, 2, 0, 2)
        .switch(1300, 2, IDLE, R, 4)
        .switch(1300, 3, IDLE, R, 5)
        .switch(2000, 2, 4, S, 2);
    let report = of_thread(stream);
    let wait = step(&report.answer.steps, Mechanism::Preempted);
    let held: Vec<_> = told(&wait.steps).into_iter().filter(|it| it.0 == Mechanism::HeldBy).collect();
    assert_eq!(held, [(Mechanism::HeldBy, 5, 700), (Mechanism::HeldBy, 3, 100)]);
}

#[test]
fn who_lets_a_stopped_task_go_on_did_not_stop_it() {
    let stream = stream().snapshot(1001, 0, 1, true).snapshot(1001, 1, 3, true).switch(1100, 0, 1, TaskState(4), IDLE);
    let report = of_thread(stream.waking(1500, 1, 3, 1, 0).switch(1500, 0, IDLE, R, 1));
    assert_eq!((report.answer.mechanism, source(&report)), (Some(Mechanism::Stopped), (0, 400)));
}

#[test]
fn nothing_is_said_of_a_subject_that_was_not_seen() {
    let report = explain(behind_a_hog(), Subject::Thread(99));
    check(&report);
    let it = &report.answer;
    assert_eq!((it.subject.clone(), it.threads, it.mechanism), (None, 0, None));
    assert_eq!(told(&it.steps), [(Mechanism::Unknown, 0, 1000)]);
    assert_eq!((it.unexplained_ns, it.critical_path.parts.len()), (1000, 0));
    assert_eq!(it.recommendation.reason, "nothing of thread 99 was seen in this one");
}

#[test]
fn an_empty_window_has_no_shares() {
    let at = Some(Nanos(1500));
    let report = of_thread(behind_a_hog().options(|options| (options.from, options.until) = (at, at)));
    assert_eq!((report.answer.steps.len(), report.answer.contended_ratio), (0, 0.0));
    let report = explain(stream(), Subject::Last);
    check(&report);
    assert_eq!(report.answer.subject, None);
}

#[test]
fn the_last_is_whoever_had_a_cpu_last() {
    let stream = stream().snapshot(1001, 0, 1, true).snapshot(1001, 1, 3, true);
    let report = explain(stream.switch(1900, 0, 1, S, IDLE).switch(1950, 1, 3, S, IDLE), Subject::Last);
    check(&report);
    assert_eq!(report.answer.subject.unwrap().task, TaskId(3));
}

#[test]
fn long_recordings_are_explained_in_one_pass() {
    // Tasks 1 and 2 wake each other 100,000 times each.
    let mut stream = stream().snapshot(1001, 0, 1, true).snapshot(1001, 1, 2, true).switch(1001, 1, 2, S, IDLE);
    let turns = 200_000_u64;
    for n in 0..turns {
        let (at, cpu) = (1_010 + n * 10, (n % 2) as u16);
        let (now, next) = (u32::from(cpu) + 1, 2 - u32::from(cpu));
        stream = stream.waking(at, cpu, now, next, 1 - cpu).switch(at + 1, 1 - cpu, IDLE, R, next).switch(
            at + 2,
            cpu,
            now,
            S,
            IDLE,
        );
    }
    stream.meta.ended = Some(Nanos(1_010 + turns * 10));
    let report = of_thread(stream);
    let blocked = step(&report.answer.steps, Mechanism::Blocked);
    assert_eq!(blocked.times, turns / 2);
    assert_eq!(report.answer.critical_path.parts.len(), PATH_PARTS);
    assert!(report.answer.cut_off_at_ns.is_none());
}

#[test]
fn chains_of_many_tasks_take_bounded_memory() {
    // Of 97 tasks on as many CPUs, each wakes another one and goes to sleep: no two chains are the same.
    let tasks = 97_u64;
    let mut stream = stream();
    for id in 0..tasks {
        stream = stream.snapshot(1001, id as u16, id as u32 + 1, true);
    }
    let mut awake: Vec<u64> = (0..tasks).collect();
    let (mut asleep, mut at, mut random) = (Vec::<u64>::new(), 1_001, 1_u64);
    for _ in 0..60_000 {
        at += 7;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = |from: &mut Vec<u64>, shift: u64| from.swap_remove((random >> shift) as usize % from.len());
        if awake.len() > 40 {
            let task = pick(&mut awake, 33);
            stream = stream.switch(at, task as u16, task as u32 + 1, S, IDLE);
            asleep.push(task);
        } else {
            let (waker, task) = (awake[(random >> 40) as usize % awake.len()], pick(&mut asleep, 33));
            stream = stream.waking(at, waker as u16, waker as u32 + 1, task as u32 + 1, task as u16);
            stream = stream.switch(at + 2, task as u16, IDLE, R, task as u32 + 1);
            awake.push(task);
        }
    }
    stream.meta.ended = Some(Nanos(at + 5));
    let report = of_thread(stream);
    assert_eq!(report.answer.unexplained_ns, 0);
    assert!(serde_json::to_string(&report).unwrap().len() < 4 << 20);
}

#[test]
fn what_is_kept_is_small() {
    assert!(size_of::<history::Stretch>() <= 64 && size_of::<history::Turn>() <= 32);
}

#[test]
fn threads_that_ended_long_ago_are_remembered() {
    // Task 1 ends at the beginning, and then more tasks than are kept by name.
    let mut stream = stream().snapshot(1001, 0, 1, true).switch(1100, 0, 1, X, 100);
    let lives: Vec<_> = (100..10_100).map(|id| task(id, id, id, "short")).collect();
    for id in 100..10_099 {
        stream = stream.switch(1100 + u64::from(id), 0, id, X, id + 1);
    }
    stream.meta.ended = Some(Nanos(11_200));
    for subject in [Subject::Thread(1), Subject::Process(10)] {
        let stream = Stream { meta: stream.meta.clone(), batch: stream.batch.clone(), options: stream.options.clone() };
        let report = explain(stream.tasks(&lives), subject);
        check(&report);
        assert_eq!(report.answer.subject.as_ref().unwrap().to_string(), "subject[1]");
        assert_eq!(told(&report.answer.steps), [(Mechanism::Absent, 0, 10_100), (Mechanism::Running, 1, 100)]);
    }
}

#[test]
fn whoever_works_before_it_wakes_another_takes_the_time_of_that_one() {
    let stream = stream()
        .cpus(&[0, 1])
        .switch(1_050, 1, IDLE, R, 2)
        .switch(1_100, 0, 1, S, IDLE)
        .waking(1_900, 1, 2, 1, 0)
        .switch(1_910, 0, IDLE, R, 1);
    let report = explain(stream, Subject::Thread(1));
    assert_eq!((report.answer.mechanism, source(&report)), (Some(Mechanism::Blocked), (2, 800)));
    let told = &report.answer.recommendation;
    assert_eq!(told.action, "look at what second[2] does before it wakes subject[1]");
    assert_eq!(told.reason, "subject[1] slept until second[2] was done");
}
