//! Memory stays bounded, and names stay right, however many tasks come and go.

use super::*;

/// A long run of short lives, of which one in a hundred thousand matters.
#[test]
fn many_short_lives_leave_few_rows_and_the_long_one_is_not_forgotten() {
    let mut study = Sched::new(Options { top: 3, ..Options::default() });
    study.begin(&Meta { started: Nanos(1), ..Meta::default() });
    let switch = |ts: u64, prev: u32, state, next: u32| {
        let (prev, next) = (id(0, prev), id(0, next));
        let switch = Switch { prev, next, prev_state: state, preempted: false, prev_prio: 120, next_prio: 120 };
        Event { ts: Nanos(ts), cpu: Cpu(0), kind: EventKind::Switch(switch) }
    };
    let (lives, important) = (300_000_u32, 1_000);
    let mut ts = 1;
    for first in (0..lives).step_by(1_000) {
        let mut batch = Batch::default();
        for life in first..first + 1_000 {
            batch.tasks.push(task(life, life, life, "short"));
            batch.events.push(switch(ts, IDLE, R, life));
            ts += if life == important { 1_000_000 } else { 10 };
            batch.events.push(switch(ts, life, X, IDLE));
        }
        batch.until = Nanos(ts);
        study.update(&batch);
    }
    let report = study.report();
    let first = &report.cpu_time.groups[0];
    assert_eq!(
        (&first.group, first.cpu_time_ns),
        (&Group::Others, report.cpu_time.total.busy_ns - 1_000_000 - (report.cpu_time.groups_total as u64 - 2) * 10)
    );
    let second = &report.cpu_time.groups[1];
    assert_eq!((second.group.to_string(), second.cpu_time_ns), ("short[1000]".into(), 1_000_000));
    assert!(report.cpu_time.groups_total < 70_000);
    assert_eq!(report.cpu_time.total.busy_ns, u64::from(lives - 1) * 10 + 1_000_000);
}

#[test]
fn a_task_that_ended_is_still_named_in_the_worst_wait() {
    // Task 2 held the CPU, and is gone when task 1 gets it.
    let report = stream()
        .tasks(&[task(1, 1, 1, "victim"), task(2, 2, 2, "holder")])
        .preempt(1100, 0, 1, 2)
        .switch(1300, 0, 2, X, 3)
        .event(1301, 0, EventKind::Free { task: TaskId(2) })
        .switch(1400, 0, 3, S, 1)
        .report();
    let names: Vec<_> =
        report.run_queue.worst[0].held_by.iter().flat_map(|held| &held.who).map(Who::to_string).collect();
    assert_eq!(names, ["holder[2]", "<task 3>"]);
    assert_eq!(report.behind(1), (vec![(2, 200), (3, 100)], 0, 0));
}

#[test]
fn a_wait_of_very_many_parts_is_told_as_far_as_it_is_remembered() {
    // Two tasks hand CPU 0 to each other 100,000 times while task 1 waits.
    let mut stream = stream().preempt(1001, 0, 1, 2);
    for n in 0..100_000_u64 {
        let (prev, next) = if n % 2 == 0 { (2, 3) } else { (3, 2) };
        stream = stream.switch(1011 + n * 10, 0, prev, R, next);
    }
    stream.meta.ended = Some(Nanos(2_000_000));
    let report = stream.switch(1_001_011, 0, 2, S, 1).report();
    assert_eq!(report.waited(1).1, 1_000_010);
    let (holders, idle, unknown) = report.behind(1);
    let told: u64 = holders.iter().map(|(_, ns)| ns).sum();
    assert_eq!((told + unknown, idle), (1_000_010, 0));
    assert_eq!(told, super::super::timeline::MAX_INTERVALS as u64 * 10);
}

#[test]
fn a_task_that_is_moved_without_end_takes_bounded_memory() {
    let mut stream = stream().switch(1001, 0, 1, S, 2).waking(1002, 0, 2, 1, 0);
    for n in 0..1_000_u64 {
        let (from, to) = if n % 2 == 0 { (0, 1) } else { (1, 0) };
        stream = stream.migrate(1010 + n, 1, 1, from, to);
    }
    stream.meta.ended = Some(Nanos(5_000));
    let report = stream.switch(3000, 0, 2, S, 1).report();
    assert_eq!(report.waited(1).1, 1998);
    let (holders, _, unknown) = report.behind(1);
    assert_eq!(holders.iter().map(|(_, ns)| ns).sum::<u64>() + unknown, 1998);
    assert_eq!(report.migrations.total.migrations, 1_000);
}
