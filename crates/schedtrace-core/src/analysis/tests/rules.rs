//! One stream per rule, each with its answer worked out by hand.

use super::*;
use crate::analysis::states::Occupant;
use CauseKind::{New, Preempted, Woken};

#[test]
fn a_blocked_task_waits_from_its_waking_on() {
    // Task 1 sleeps at 1100. Task 2 wakes it at 1300, and goes to sleep itself at 1450.
    let report = stream().switch(1100, 0, 1, S, 2).waking(1300, 0, 2, 1, 0).switch(1450, 0, 2, S, 1).report();
    assert_eq!(report.waited(1), (1, 150, vec![Woken]));
    assert_eq!(report.behind(1), (vec![(2, 150)], 0, 0));
    assert_eq!((report.ran(1), report.ran(2)), (100 + 550, 350));
    let worst = &report.run_queue.worst[0];
    assert_eq!((worst.task.task, worst.from_ns, worst.wait_ns, worst.cpu), (TaskId(1), Nanos(1300), 150, Cpu(0)));
    assert_eq!(worst.by.as_ref().map(|who| who.task), Some(TaskId(2)));
    assert_eq!(worst.held_by[0].who.as_ref().map(|who| who.task), Some(TaskId(2)));
}

#[test]
fn a_waking_that_overtakes_the_switch_out_begins_the_wait_there() {
    // Task 2 wakes task 1 at 1090, while task 1 is on its way off CPU 0, which it leaves, asleep, at 1100.
    let report = stream()
        .switch(1010, 0, IDLE, R, 1)
        .waking_on_cpu(1090, 1, 2, 1, 0)
        .switch(1100, 0, 1, S, 3)
        .switch(1160, 0, 3, S, 1)
        .report();
    assert_eq!(report.waited(1), (1, 60, vec![Woken]));
    assert_eq!(report.run_queue.worst[0].by.as_ref().map(|who| who.task), Some(TaskId(2)));
    assert_eq!(report.behind(1), (vec![(3, 60)], 0, 0));
}

#[test]
fn a_waking_that_only_kept_a_task_from_sleeping_begins_no_wait() {
    // The waking at 1050 finds task 1 running. Task 1 sleeps at 1100 for another reason, until task 3 wakes it at 1500.
    let report = stream()
        .switch(1010, 0, IDLE, R, 1)
        .waking_on_cpu(1050, 1, 2, 1, 0)
        .switch(1100, 0, 1, S, IDLE)
        .waking(1500, 1, 3, 1, 0)
        .switch(1510, 0, IDLE, R, 1)
        .report();
    assert_eq!(report.waited(1), (1, 10, vec![Woken]));
    assert_eq!(report.run_queue.worst[0].by.as_ref().map(|who| who.task), Some(TaskId(3)));
    assert_eq!(report.wakeups.total.while_runnable, 1);
}

#[test]
fn a_sleep_that_may_have_been_a_wait_is_not_counted_when_the_window_ends() {
    let report =
        stream().switch(1010, 0, IDLE, R, 1).waking_on_cpu(1050, 1, 2, 1, 0).switch(1100, 0, 1, S, IDLE).report();
    assert_eq!(report.waits(1).stats.censored.waits, 0);
    assert_eq!(report.completeness.censored_waits, 0);
}

#[test]
fn a_waking_from_before_a_task_got_its_cpu_says_nothing_of_its_next_sleep() {
    // Task 1 was woken on a CPU that it must have left unseen, for it gets CPU 0 at 1100. Why it runs again at 1500 was
    // not seen either.
    let report = stream()
        .waking_on_cpu(1050, 1, 2, 1, 3)
        .switch(1100, 0, IDLE, R, 1)
        .switch(1200, 0, 1, S, IDLE)
        .switch(1500, 0, IDLE, R, 1)
        .report();
    assert_eq!((report.waited(1).0, report.completeness.unseen_starts), (0, 2));
}

#[test]
fn a_waking_of_a_running_task_that_is_preempted_then_begins_none() {
    // The wait is the preemption's: from 1100, not from 1050, and by task 3.
    let report = stream()
        .switch(1010, 0, IDLE, R, 1)
        .waking_on_cpu(1050, 1, 2, 1, 0)
        .preempt(1100, 0, 1, 3)
        .switch(1170, 0, 3, S, 1)
        .switch(1200, 0, 1, S, IDLE)
        .report();
    assert_eq!(report.waited(1), (1, 70, vec![Preempted]));
    assert_eq!(report.run_queue.worst[0].by.as_ref().map(|who| who.task), Some(TaskId(3)));
    assert_eq!(report.waits(1).stats.censored.waits, 0, "it sleeps since 1200");
}

#[test]
fn a_waking_just_after_the_switch_out_counts_although_the_task_is_still_on_its_cpu() {
    // `on_cpu` is cleared after the switch: 1101 is the truth.
    let report = stream()
        .switch(1010, 0, IDLE, R, 1)
        .switch(1100, 0, 1, S, 3)
        .waking_on_cpu(1101, 1, 2, 1, 0)
        .switch(1160, 0, 3, S, 1)
        .report();
    assert_eq!(report.waited(1), (1, 59, vec![Woken]));
}

#[test]
fn the_first_waker_stays() {
    // Preempted with a state that is not running, task 1 can be woken while it waits: that changes nothing.
    let report = stream()
        .switch(1100, 0, 1, S, 2)
        .waking(1200, 0, 2, 1, 0)
        .waking(1250, 1, 3, 1, 0)
        .switch(1300, 0, 2, S, 1)
        .report();
    assert_eq!(report.waited(1), (1, 100, vec![Woken]));
    assert_eq!(report.run_queue.worst[0].by.as_ref().map(|who| who.task), Some(TaskId(2)));
    assert_eq!((report.wakeups.total.wakeups, report.wakeups.total.while_runnable), (2, 1));
}

#[test]
fn a_remote_wakeup_waits_on_the_cpu_of_the_task() {
    // Woken from CPU 1, task 1 waits on CPU 0, which is idle: waking that CPU takes 40.
    let report = stream()
        .switch(1100, 0, 1, S, IDLE)
        .switch(1150, 1, IDLE, R, 2)
        .waking(1300, 1, 2, 1, 0)
        .switch(1340, 0, IDLE, R, 1)
        .report();
    assert_eq!(report.waited(1), (1, 40, vec![Woken]));
    assert_eq!(report.behind(1), (vec![], 40, 0));
    assert_eq!(report.run_queue.worst[0].held_by[0].who.as_ref().map(ToString::to_string), Some("swapper/0".into()));
}

#[test]
fn an_interrupt_is_the_waker_not_the_task_that_it_interrupted() {
    let report = stream().switch(1100, 0, 1, S, 2).irq_waking(1300, 0, 2, 1, 0).preempt(1305, 0, 2, 1).report();
    let worst = report.run_queue.worst.iter().find(|wait| wait.task.task == TaskId(1)).unwrap();
    assert_eq!((worst.by.as_ref(), worst.by_interrupt), (None, Some(Context::Hardirq)));
    assert_eq!(report.wakeups.total.from_interrupt, 1);
    assert_eq!(report.wakeups.pairs[0].waker, WakerGroup::Interrupt { context: Context::Hardirq });
}

#[test]
fn a_preempted_task_waits_at_once_whatever_its_state() {
    let sleeping =
        Switch { prev: TaskId(1), next: TaskId(2), prev_state: S, preempted: true, prev_prio: 120, next_prio: 120 };
    let report = stream().event(1100, 0, EventKind::Switch(sleeping)).switch(1400, 0, 2, S, 1).report();
    assert_eq!(report.waited(1), (1, 300, vec![Preempted]));
    assert_eq!(report.behind(1), (vec![(2, 300)], 0, 0));
    assert_eq!((report.switches.total.preempted_in_kernel, report.switches.total.voluntary), (1, 1));
}

#[test]
fn a_task_that_loses_its_cpu_outside_of_the_kernel_waits_too() {
    let report = stream().switch(1100, 0, 1, R, 2).switch(1180, 0, 2, R, 1).report();
    assert_eq!(report.waited(1), (1, 80, vec![Preempted]));
    assert_eq!(report.switches.total, SwitchCounts { switches: 2, involuntary: 2, ..SwitchCounts::default() });
    assert_eq!(report.waits(2).stats.censored, WaitCounts { waits: 1, wait_ns: 820, longest_ns: 820 });
}

#[test]
fn a_new_task_waits_from_its_first_wakeup_on() {
    let report = stream().switch(1010, 0, IDLE, R, 1).wakeup_new(1200, 0, 1, 2, 1).switch(1230, 1, IDLE, R, 2).report();
    assert_eq!(report.waited(2), (1, 30, vec![New]));
    assert_eq!(report.run_queue.worst[0].by.as_ref().map(|who| who.task), Some(TaskId(1)));
    assert_eq!((report.wakeups.total.new_tasks, report.wakeups.total.wakeups), (1, 0));
}

#[test]
fn a_migration_splits_a_wait_between_the_cpus() {
    // Task 1 waits on CPU 0 behind task 2 in [1200, 1300), then, pulled over by CPU 1, there behind task 3 until 1450.
    let report = stream()
        .cpus(&[0, 1])
        .switch(1100, 0, 1, S, 2)
        .switch(1110, 1, IDLE, R, 3)
        .waking(1200, 0, 2, 1, 0)
        .migrate(1300, 1, 1, 0, 1)
        .switch(1450, 1, 3, S, 1)
        .report();
    assert_eq!(report.waited(1), (1, 250, vec![Woken]));
    assert_eq!(report.behind(1), (vec![(3, 150), (2, 100)], 0, 0));
    assert_eq!((report.waits(1).stats.migrated, report.run_queue.worst[0].cpu), (1, Cpu(1)));
    let moved = MigrationCounts { migrations: 1, llc: 1, ..MigrationCounts::default() };
    assert_eq!(report.migrations.total, moved);
}

#[test]
fn the_choice_of_a_cpu_is_no_move() {
    // The waker puts task 1 onto CPU 1: task 1 was never on CPU 0's queue, however long the choice has taken.
    let report = stream()
        .cpus(&[0, 1])
        .switch(1100, 0, 1, S, 2)
        .switch(1110, 1, IDLE, R, 3)
        .waking(1200, 0, 2, 1, 0)
        .place(1302, 0, 1, 0, 1)
        .switch(1450, 1, 3, S, 1)
        .report();
    assert_eq!(report.waited(1), (1, 250, vec![Woken]));
    assert_eq!(report.behind(1), (vec![(3, 250)], 0, 0));
    assert_eq!((report.waits(1).stats.migrated, report.migrations.total.at_wakeup), (0, 1));
}

#[test]
fn a_cpu_that_pulls_a_task_it_just_woke_moves_it() {
    // An interrupt on idle CPU 1 wakes task 1 on CPU 0. Next of all, that CPU, still idle, takes it over from there.
    let mut stream = stream().cpus(&[0, 1]).switch(1100, 0, 1, S, 2).irq_waking(1200, 1, IDLE, 1, 0);
    stream.meta.ended = Some(Nanos(2_000));
    let report = stream.migrate(1_300, 1, 1, 0, 1).switch(1_350, 1, IDLE, R, 1).report();
    assert_eq!(report.behind(1), (vec![(2, 100)], 50, 0));
    assert_eq!((report.waits(1).stats.migrated, report.migrations.total.at_wakeup), (1, 0));
}

#[test]
fn the_first_switch_tells_who_ran_before() {
    let mut report = stream().switch(1400, 0, 1, S, IDLE).switch(1500, 1, IDLE, R, 2);
    // Task 3 was created at 1250: it cannot have run before.
    report = report.tasks(&[Task { start: Nanos(1250), ..task(3, 3, 3, "late") }]).switch(1600, 2, 3, S, IDLE);
    let report = report.report();
    assert_eq!(report.cpu(0), (400, 600, 0));
    assert_eq!(report.cpu(1), (500, 500, 0));
    assert_eq!(report.cpu(2), (350, 400, 250));
}

#[test]
fn the_first_switch_tells_nothing_of_a_task_that_was_seen_elsewhere() {
    // Task 1 sleeps since 1100, so its switch-in on CPU 1 was not seen.
    let report = stream().switch(1100, 0, 1, S, IDLE).switch(1400, 1, 1, S, IDLE).report();
    assert_eq!(report.cpu(1), (0, 600, 400));
    assert_eq!(report.ran(1), 100);
}

#[test]
fn the_first_switch_tells_nothing_of_a_task_that_was_lost() {
    // Task 1 had CPU 0 since 1100 but task 2 leaves it at 1300, so task 1 may have been anywhere, even on CPU 1.
    let report = stream().switch(1100, 0, IDLE, R, 1).switch(1300, 0, 2, S, IDLE).switch(1400, 1, 1, S, IDLE).report();
    assert_eq!((report.cpu(0), report.cpu(1), report.ran(1)), ((0, 800, 200), (0, 600, 400), 0));
}

#[test]
fn a_hog_that_never_switches_is_known_from_the_snapshot() {
    // Nobody was named on CPU 1: it is idle. Task 2 waits behind the hog all the time.
    let report = stream().cpus(&[0, 1]).snapshot(1005, 0, 1, true).snapshot(1006, 0, 2, false).report();
    assert_eq!((report.cpu(0), report.cpu(1)), ((1000, 0, 0), (0, 1000, 0)));
    assert_eq!(report.ran(1), 1000);
    assert_eq!(report.behind(2), (vec![(1, 1000)], 0, 0));
    assert_eq!(report.waits(2).stats.censored, WaitCounts { waits: 1, wait_ns: 1000, longest_ns: 1000 });
    assert_eq!((report.run_queue.total.wait.count, report.completeness.censored_waits), (0, 1));
    let worst = &report.run_queue.worst[0];
    assert_eq!((worst.task.task, worst.wait_ns, worst.censored), (TaskId(2), 1000, true));
    assert_eq!(worst.cause, CauseKind::AtStart);
}

#[test]
fn without_a_snapshot_nothing_is_known_of_a_silent_cpu() {
    assert_eq!(stream().cpus(&[0, 1]).switch(1500, 0, 1, S, IDLE).report().cpu(1), (0, 0, 1000));
    let lost = stream().cpus(&[0, 1]).snapshot(1005, 0, 1, true).loss(Some(Kind::Snapshot), 1, 1000, 1010);
    assert_eq!(lost.report().cpu(1), (0, 0, 1000));
}

#[test]
fn events_know_better_than_the_snapshot() {
    // The snapshot was a little late: task 1 had left CPU 0 at 1003 already, and task 3 got it.
    let report =
        stream().preempt(1003, 0, 1, 3).snapshot(1005, 0, 1, true).snapshot(1006, 0, 3, false).switch(1010, 0, 3, S, 1);
    let report = report.report();
    assert_eq!((report.ran(1), report.ran(3)), (3 + 990, 7));
    assert_eq!(report.waited(1), (1, 7, vec![Preempted]));
    assert_eq!(report.waits(3).stats.censored.waits, 0);
}

#[test]
fn a_switch_that_contradicts_what_was_seen_leaves_a_gap() {
    // At 1200 task 2 got CPU 0, but at 1500 it is task 3 that leaves: in between, nobody knows.
    let report = stream().switch(1200, 0, 1, S, 2).switch(1500, 0, 3, S, 1).report();
    assert_eq!(report.cpu(0), (200 + 500, 0, 300));
    assert_eq!((report.ran(1), report.ran(2), report.ran(3)), (700, 0, 0));
    // Task 1 was asleep, and nothing was seen that woke it: no wait is made up.
    assert_eq!((report.waited(1).0, report.completeness.unseen_starts), (0, 2));
}

#[test]
fn a_task_that_turns_up_elsewhere_is_not_counted_twice() {
    // Task 1 was seen to get CPU 0 at 1100, and CPU 1 at 1300. When it left CPU 0 is not known.
    let report = stream()
        .switch(1100, 0, IDLE, R, 1)
        .switch(1300, 1, IDLE, R, 1)
        .switch(1400, 1, 1, S, IDLE)
        .switch(1500, 0, 2, S, IDLE)
        .report();
    assert_eq!((report.cpu(0), report.cpu(1)), ((0, 600, 400), (100, 900, 0)));
    assert_eq!(report.ran(1), 100);
}

#[test]
fn a_wait_whose_end_was_not_seen_is_no_sample() {
    // Woken at 1200, task 1 is found to leave CPU 1 at 1400: it must have got it before.
    for doubtful in [false, true] {
        let stream = stream().switch(1100, 0, 1, S, 2).waking(1200, 0, 2, 1, 0).switch(1400, 1, 1, S, IDLE);
        let report = stream.options(|options| options.include_doubtful = doubtful).report();
        let stats = report.waits(1).stats;
        assert_eq!((stats.wait.count, stats.in_loss.waits, report.completeness.in_loss), (0, 1, 1));
        assert_eq!(stats.censored.waits, 0);
    }
}

#[test]
fn waits_during_a_loss_are_counted_apart() {
    let lossy = || {
        stream()
            .switch(1100, 0, 1, S, 2)
            .waking(1200, 0, 2, 1, 0)
            .switch(1300, 0, 2, S, 1)
            .preempt(1400, 0, 1, 2)
            .switch(1450, 0, 2, S, 1)
            .loss(Some(Kind::Switch), 7, 1250, 1260)
            .loss(Some(Kind::Fork), 2, 1420, 1430)
    };
    let report = lossy().report();
    assert_eq!(report.waited(1), (1, 50, vec![Preempted]), "a lost fork changes nothing");
    assert_eq!(report.waits(1).stats.in_loss, WaitCounts { waits: 1, wait_ns: 100, longest_ns: 100 });
    assert_eq!(report.behind(1), (vec![(2, 50)], 0, 0));
    assert_eq!((report.completeness.in_loss, report.completeness.lost_total), (1, 9));
    assert_eq!(report.completeness.lost.len(), 2);
    assert!(!report.completeness.is_complete());
    assert_eq!(report.cpu_time.total.in_loss_ns, 200, "task 2's run of [1100, 1300)");

    let report = lossy().options(|options| options.include_doubtful = true).report();
    assert_eq!(report.waited(1), (2, 150, vec![Woken, Preempted]));
    assert_eq!(report.completeness.in_loss, 1);
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    // Process 50 with threads 50 and 51 ends; later another process has the number 50.
    let lives = [
        task(1, 50, 50, "old"),
        Task { start: Nanos(5), ..task(2, 51, 50, "old") },
        Task { start: Nanos(1500), ..task(3, 50, 50, "young") },
    ];
    let report = stream()
        .by(GroupBy::Process)
        .tasks(&lives[..2])
        .switch(1100, 0, 1, X, 2)
        .switch(1300, 0, 2, X, IDLE)
        .tasks(&lives[2..])
        .wakeup_new(1500, 0, 9, 3, 0)
        .switch(1600, 0, IDLE, R, 3)
        .report();
    let rows: Vec<_> =
        report.cpu_time.groups.iter().map(|row| (row.group.to_string(), row.cpu_time_ns, row.runs)).collect();
    assert_eq!(rows, [("young[50]".into(), 400, 1), ("old[50]".into(), 300, 2)]);
}

#[test]
fn a_thread_that_is_older_than_its_leader_is_of_another_process() {
    let report = stream()
        .by(GroupBy::Process)
        .tasks(&[Task { start: Nanos(500), ..task(1, 50, 50, "young") }, task(2, 51, 50, "old")])
        .switch(1100, 0, 1, S, 2)
        .switch(1300, 0, 2, S, IDLE)
        .report();
    let rows: Vec<_> = report.cpu_time.groups.iter().map(|row| (row.group.to_string(), row.cpu_time_ns)).collect();
    assert_eq!(rows, [("old[50]".into(), 200), ("young[50]".into(), 100)]);
}

#[test]
fn two_lives_of_one_thread_id_are_two_rows() {
    let report = stream()
        .tasks(&[task(1, 50, 50, "first"), task(2, 50, 50, "second")])
        .switch(1100, 0, 1, X, 2)
        .switch(1400, 0, 2, X, IDLE)
        .report();
    assert_eq!((report.ran(1), report.ran(2)), (100, 300));
    assert_eq!(report.cpu_time.groups[0].group.to_string(), "second[50]");
}

#[test]
fn everything_is_clipped_to_the_window() {
    let whole = || {
        stream()
            .preempt(1100, 0, 1, 2)
            .switch(1300, 0, 2, R, 1)
            .preempt(1400, 0, 1, 2)
            .switch(1500, 0, 2, S, 1)
            .preempt(1700, 0, 1, 2)
            .switch(1900, 0, 2, S, 1)
    };
    // Of task 1's three waits, the first begins before the window and the last is not over at its end.
    let report = whole()
        .options(|options| {
            options.from = Some(Nanos(1200));
            options.until = Some(Nanos(1800));
        })
        .report();
    assert_eq!(report.window, Window::new(Nanos(1200), Nanos(1800)));
    assert_eq!(report.waited(1), (1, 100, vec![Preempted]));
    assert_eq!(report.waits(1).stats.censored, WaitCounts { waits: 2, wait_ns: 100 + 100, longest_ns: 100 });
    assert_eq!(report.behind(1), (vec![(2, 300)], 0, 0));
    assert_eq!((report.ran(1), report.ran(2), report.cpu(0)), (300, 300, (600, 0, 0)));
    assert_eq!((report.switches.total.switches, report.events[&Kind::Switch]), (4, 4));
    assert_eq!((report.run_queue.total.wait.count, report.waited(2)), (2, (1, 100, vec![Preempted])));
    assert_eq!(whole().report().waited(1).0, 3);
}

#[test]
fn a_wait_that_ends_where_the_window_begins_is_none_of_its_own() {
    let stream = stream().preempt(1100, 0, 1, 2).switch(1300, 0, 2, S, 1);
    let report = stream.options(|options| options.from = Some(Nanos(1300))).report();
    assert_eq!((report.completeness.censored_waits, report.run_queue.total.wait.count), (0, 0));
    assert_eq!(report.switches.total.switches, 1, "the switch itself is in it");
}

#[test]
fn an_empty_window_is_empty() {
    let report = stream().preempt(1100, 0, 1, 2).options(|options| options.from = Some(Nanos(5_000))).report();
    assert_eq!((report.window.duration_ns, report.cpu_time.total.busy_ns, report.events.len()), (Nanos(0), 0, 0));
}

#[test]
fn cpu_numbers_may_be_sparse() {
    let report = stream()
        .cpus(&[0, 7, 300])
        .by(GroupBy::Cpu)
        .switch(1100, 300, 1, S, IDLE)
        .waking(1200, 7, 2, 1, 300)
        .switch(1210, 300, IDLE, R, 1)
        .switch(1500, 0, IDLE, R, 3)
        .report();
    let cpus: Vec<_> = report.cpu_time.cpus.iter().map(|row| (row.cpu.0, row.used.busy_ns)).collect();
    assert_eq!(cpus, [(0, 500), (7, 0), (300, 890)]);
    assert_eq!(report.run_queue.groups[0].group, Group::Cpu { cpu: Cpu(300) });
    assert_eq!(report.run_queue.groups[0].stats.wait.total_ns, 10);
}

#[test]
fn the_recorder_is_left_out_of_rows_but_named_as_holder() {
    let recorder = Task { recorder: true, ..task(9, 9, 9, "schedtrace") };
    let recorded = || stream().tasks(&[recorder, task(1, 1, 1, "app")]).preempt(1100, 0, 1, 9).preempt(1250, 0, 9, 1);
    let report = recorded().report();
    assert_eq!(report.waited(1), (1, 150, vec![Preempted]));
    assert_eq!(report.behind(1), (vec![(9, 150)], 0, 0));
    assert_eq!((report.ran(9), report.cpu_time.recorder_ns, report.cpu(0)), (0, 150, (1000, 0, 0)));
    assert_eq!((report.run_queue.groups.len(), report.completeness.censored_waits), (1, 0));
    assert!(report.completeness.recorder_left_out);

    let report = recorded().options(|options| options.include_recorder = true).report();
    assert_eq!((report.ran(9), report.completeness.censored_waits), (150, 1));
    assert!(!report.completeness.recorder_left_out);
}

#[test]
fn of_tasks_that_were_not_selected_little_is_told() {
    // Only process 1 and its child 3 were followed, so task 2 may have run and slept unseen.
    let child = Task { ppid: 1, ..task(3, 3, 3, "child") };
    let other = Task { ppid: 7, ..task(2, 2, 2, "other") };
    let report = stream()
        .filter(Filters { pids: vec![1], ..Filters::default() })
        .tasks(&[task(1, 1, 1, "app"), child, other])
        .preempt(1100, 0, 1, 2)
        .preempt(1300, 0, 2, 1)
        .switch(1500, 0, 1, S, 3)
        .report();
    assert_eq!(report.waited(1), (1, 200, vec![Preempted]));
    assert_eq!(report.behind(1), (vec![(2, 200)], 0, 0));
    assert_eq!((report.ran(1), report.ran(2), report.ran(3)), (300, 0, 500));
    assert_eq!(report.cpu(0), (800, 0, 200));
    assert_eq!((report.completeness.censored_waits, report.completeness.filtered), (0, true));
}

#[test]
fn a_task_that_goes_where_nothing_is_recorded_waits_no_longer() {
    // Only CPU 0 was recorded. Task 1 is moved to CPU 1 at 1250, runs and sleeps there, and is woken again at 1700.
    let report = stream()
        .filter(Filters { cpus: vec![0], ..Filters::default() })
        .switch(1100, 0, 1, S, 2)
        .waking(1200, 0, 2, 1, 0)
        .migrate(1250, 0, 1, 0, 1)
        .switch(1600, 0, 2, R, 3)
        .waking(1700, 0, 3, 1, 1)
        .place(1701, 0, 1, 1, 0)
        .switch(1800, 0, 3, S, 1)
        .report();
    assert_eq!(report.waited(1), (1, 100, vec![Woken]));
    assert_eq!(report.behind(1), (vec![(3, 100)], 0, 0));
    assert_eq!((report.cpu_time.cpus.len(), report.cpu_time.total.unknown_ns), (1, 0));
}

#[test]
fn cgroups_of_one_path_are_one_group() {
    let service = |id: u64| Cgroup { id: CgroupId(id), path: "/system.slice/a\u{1b}[1m.service".into() };
    let mut stream = stream().by(GroupBy::Cgroup).tasks(&[
        Task { cgroup: CgroupId(70), ..task(1, 1, 1, "before") },
        Task { cgroup: CgroupId(80), ..task(2, 2, 2, "after") },
        Task { cgroup: CgroupId(90), ..task(3, 3, 3, "unnamed") },
    ]);
    stream.batch.cgroups = vec![service(70), service(80)];
    let report = stream.switch(1100, 0, 1, X, 2).switch(1400, 0, 2, S, 3).switch(1600, 0, 3, S, IDLE).report();
    let rows: Vec<_> = report.cpu_time.groups.iter().map(|row| (row.group.to_string(), row.cpu_time_ns)).collect();
    assert_eq!(rows, [("/system.slice/a?[1m.service".into(), 400), ("cgroup 90".into(), 200)]);
}

#[test]
fn groups_can_be_caches() {
    let mut stream = stream().cpus(&[0, 1, 2, 3]).by(GroupBy::Llc);
    for info in &mut stream.meta.topology.cpus[2..] {
        info.llc = 2;
    }
    let report = stream
        .preempt(1100, 0, 1, 2)
        .switch(1150, 0, 2, S, 1)
        .preempt(1200, 3, 5, 6)
        .switch(1290, 3, 6, S, 5)
        .preempt(1300, 9, 7, 8)
        .switch(1310, 9, 8, S, 7)
        .report();
    let rows: Vec<_> =
        report.run_queue.groups.iter().map(|row| (row.group.to_string(), row.stats.wait.total_ns)).collect();
    assert_eq!(rows, [("LLC 2".into(), 90), ("LLC 0".into(), 50), ("LLC unknown".into(), 10)]);
    assert_eq!(report.holders.total.holders[0].group, Group::Unknown, "these tasks were never named");
}

#[test]
fn windows_follow_one_another() {
    // Task 1 is preempted at 1400 and gets the CPU back at 1700.
    let stream = stream().preempt(1400, 0, 1, 2).switch(1700, 0, 2, S, 1);
    let mut study = Sched::default();
    study.begin(&stream.meta);
    let at = stream.batch.events.partition_point(|event| event.ts < Nanos(1500));
    let (early, late) = stream.batch.events.split_at(at);
    study.update(&Batch { until: Nanos(1500), events: early.to_vec(), ..Batch::default() });
    let first = study.report();
    let (now, since) = study.states().cpus().on(Cpu(0)).unwrap();
    assert!(matches!(now, Occupant::Task(task) if task.id == TaskId(2)) && since == Nanos(1400));
    assert_eq!(study.states().cpus().on(Cpu(1)), None);
    study.next_window();
    study.update(&Batch { until: Nanos(2000), events: late.to_vec(), ..Batch::default() });
    let second = study.report();
    assert_eq!((first.ran(1), first.ran(2), second.ran(1), second.ran(2)), (400, 100, 300, 200));
    assert_eq!((first.waited(1).0, first.waits(1).stats.censored.wait_ns), (0, 100));
    assert_eq!(second.waited(1), (1, 300, vec![Preempted]), "it counts as a whole where it ends");
    assert_eq!(second.behind(1), (vec![(2, 300)], 0, 0));
    assert_eq!((second.window.from_ns, second.window.duration_ns), (Nanos(1500), Nanos(500)));
    // What ends where one window ends and the next begins is of the next, as the event that ends it is.
    let mut study = Sched::default();
    study.begin(&stream.meta);
    study.update(&Batch { until: Nanos(1700), events: early.to_vec(), ..Batch::default() });
    let first = study.report();
    study.next_window();
    study.update(&Batch { until: Nanos(2000), events: late.to_vec(), ..Batch::default() });
    assert_eq!((first.waited(1).0, study.report().waited(1)), (0, (1, 300, vec![Preempted])));
    assert_eq!((first.switches.total.switches, second.switches.total.switches), (1, 1));
}

/// CPU 7 goes off line under its stopper, task 2, by what CPU 0 does.
pub(super) fn unplugged(stream: Stream) -> Stream {
    let step = |state, step, result| HotplugExit { target_cpu: Cpu(7), state, step, result }.into();
    stream
        .switch(1_100, 7, 1, S, IDLE)
        .event(1_150, 7, step(148, 149, 0))
        .event(1_160, 0, step(145, 236, 0))
        .switch(1_200, 7, IDLE, R, 2)
        .event(1_210, 0, step(87, 145, -16))
        .event(1_220, 0, step(87, 145, 0))
        .event(1_230, 0, step(60, 61, 0))
}

#[test]
fn a_cpu_that_is_off_line_is_neither_busy_nor_idle() {
    let report = unplugged(stream()).report();
    let used = report.cpu_time.cpus.iter().find(|row| row.cpu == Cpu(7)).unwrap().used;
    assert_eq!((used.busy_ns, used.idle_ns, used.unknown_ns), (100, 100, 800));
    assert_eq!((report.ran(1), report.ran(2)), (100, 0));
    // It comes back: the idle task is the first that is seen to leave it.
    let step = HotplugExit { target_cpu: Cpu(7), state: 85, step: 85, result: 0 };
    let back = unplugged(stream()).event(1_600, 0, step.into()).switch(1_700, 7, IDLE, R, 3).report();
    let used = back.cpu_time.cpus.iter().find(|row| row.cpu == Cpu(7)).unwrap().used;
    assert_eq!((used.busy_ns, used.idle_ns, used.unknown_ns), (100 + 300, 100, 500));
}

#[test]
fn of_many_holders_the_longest_are_named() {
    // Task 1 waits behind tasks 2 to 21: for 100 behind task 21, for 1 behind each of the others.
    let mut stream = stream().preempt(1100, 0, 1, 2);
    for n in 2..21 {
        stream = stream.switch(1099 + u64::from(n), 0, n, S, n + 1);
    }
    let report = stream.switch(1219, 0, 21, S, 1).report();
    let held = &report.holders.groups[0].held_by;
    assert_eq!((held.wait_ns, held.holders.len(), held.others_ns), (119, 8, 119 - 107));
    assert_eq!((held.holders[0].held_ns, held.holders[1].held_ns), (100, 1));
    let total = &report.holders.total;
    assert_eq!((total.holders.len(), total.others_ns), (20, 0));
}

#[test]
fn reports_name_units_and_threads() {
    let report = stream().tasks(&[task(1, 11, 10, "app")]).preempt(1100, 0, 1, 2).switch(1150, 0, 2, S, 1).report();
    let json = serde_json::to_value(&report).unwrap();
    let row = &json["run_queue"]["groups"][0];
    assert_eq!(row["group"], serde_json::json!({"kind": "task", "task": 1, "tid": 11, "pid": 10, "comm": "app"}));
    assert_eq!((&row["wait"]["p99_ns"], &row["causes"][0]["wait_ns"]), (&50.into(), &50.into()));
    assert_eq!((&json["window"]["duration_ns"], &json["events"]["sched_switch"]), (&1000.into(), &2.into()));
    assert_eq!(json["run_queue"]["worst"][0]["held_by"][0]["who"]["comm"], "<task 2>");
}
