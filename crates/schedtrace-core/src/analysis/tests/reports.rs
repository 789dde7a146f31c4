//! Latencies, queue depths, preemptions and wakers, each worked out by hand.

use super::simulator::{simulate, steps};
use super::*;
use proptest::prelude::*;

/// Task 1 waits twice: for 60 on CPU 0, where it had run, and for 100 on CPU 1, where it had not.
fn two_wakeups() -> Stream {
    stream()
        .cpus(&[0, 1])
        .switch(1100, 0, 1, S, 2)
        .waking(1200, 0, 2, 1, 0)
        .wakeup(1210, 0, 1, 0)
        .switch(1260, 0, 2, S, 1)
        .switch(1300, 0, 1, S, IDLE)
        .waking(1400, 1, 3, 1, 0)
        .place(1405, 1, 1, 0, 1)
        .wakeup(1415, 1, 1, 1)
        .switch(1500, 1, 3, S, 1)
}

#[test]
fn a_latency_is_taken_apart() {
    let report = two_wakeups().ask::<Latency>().answer;
    let total = &report.total;
    assert_eq!(sums(&total.latency), (2, 160));
    assert_eq!((sums(&total.same_cpu), sums(&total.migrated)), ((1, 60), (1, 100)));
    // Put on a queue after 10 and 15, and there for 50 and 85.
    assert_eq!((sums(&total.to_enqueue), sums(&total.on_queue)), ((2, 25), (2, 135)));
    assert_eq!((total.censored, total.in_loss), (cut(0, 0, 0), cut(0, 0, 0)));
    let worst: Vec<_> = total.latency.worst.iter().map(|one| (one.at_ns.0, one.latency_ns, one.cpu.0)).collect();
    assert_eq!(worst, [(1400, 100, 1), (1200, 60, 0)]);
    assert_eq!(total.on_queue.worst[0].at_ns, Nanos(1415));
    assert_eq!((report.groups.len(), report.groups_total, task_of(&report.groups[0].group)), (1, 1, 1));
    assert_eq!(report.groups[0].latency, *total);
}

#[test]
fn latencies_by_cpu_go_to_the_cpu_where_the_task_ran() {
    let report = two_wakeups().by(GroupBy::Cpu).options(|options| options.top = 1).ask::<Latency>().answer;
    let rows: Vec<_> = report.groups.iter().map(|row| (row.group.to_string(), sums(&row.latency.latency))).collect();
    assert_eq!(rows, [("CPU 1".to_owned(), (1, 100))]);
    assert_eq!((report.groups_total, sums(&report.total.latency)), (2, (2, 160)));
}

#[test]
fn what_was_not_recorded_is_in_no_part_of_a_latency() {
    // Neither where task 1 had run before was seen, nor when it was put on a queue.
    let total = stream().waking(1200, 0, 2, 1, 0).switch(1300, 0, 2, S, 1).ask::<Latency>().answer.total;
    assert_eq!(sums(&total.latency), (1, 100));
    for part in [&total.same_cpu, &total.migrated, &total.to_enqueue, &total.on_queue] {
        assert_eq!(sums(part), (0, 0));
    }
}

#[test]
fn only_wakeups_have_a_latency() {
    // Task 1 is preempted, task 3 is new, and task 4 is throttled.
    let report = stream()
        .preempt(1100, 0, 1, 2)
        .switch(1200, 0, 2, S, 1)
        .wakeup_new(1300, 0, 1, 3, 1)
        .switch(1400, 1, IDLE, R, 3)
        .throttle(1500, 2, 4, IDLE)
        .switch(1600, 2, IDLE, R, 4)
        .ask::<Latency>();
    assert_eq!((sums(&report.answer.total.latency), report.answer.groups_total), ((0, 0), 0));
}

#[test]
fn a_latency_that_an_edge_cuts_off_is_no_sample() {
    // Task 1 waits in [1200, 1300), before the window; in [1400, 1600), of which 100 lie in it; in [1700, 1750); and in
    // [1850, 1950), of which 50 lie in it.
    let report = stream()
        .window(1500, 1900)
        .switch(1100, 0, 1, S, 2)
        .waking(1200, 0, 2, 1, 0)
        .switch(1300, 0, 2, S, 1)
        .switch(1350, 0, 1, S, IDLE)
        .irq_waking(1400, 1, IDLE, 1, 0)
        .switch(1600, 0, IDLE, R, 1)
        .switch(1650, 0, 1, S, IDLE)
        .irq_waking(1700, 1, IDLE, 1, 0)
        .wakeup(1710, 1, 1, 0)
        .switch(1750, 0, IDLE, R, 1)
        .switch(1800, 0, 1, S, IDLE)
        .irq_waking(1850, 1, IDLE, 1, 0)
        .wakeup(1860, 1, 1, 0)
        .switch(1950, 0, IDLE, R, 1)
        .ask::<Latency>();
    let total = &report.answer.total;
    assert_eq!((sums(&total.latency), sums(&total.same_cpu)), ((1, 50), (1, 50)));
    assert_eq!((sums(&total.to_enqueue), sums(&total.on_queue)), ((1, 10), (1, 40)));
    assert_eq!((total.censored, total.in_loss), (cut(2, 150, 100), cut(0, 0, 0)));
    assert_eq!((report.about.completeness.censored_waits, report.about.window.duration_ns), (2, Nanos(400)));
}

#[test]
fn a_latency_in_which_events_are_missing_is_no_sample() {
    let lossy = || two_wakeups().loss(Some(Kind::Waking), 1, 1220, 1230);
    let report = lossy().ask::<Latency>();
    assert_eq!(sums(&report.answer.total.latency), (1, 100));
    assert_eq!((report.answer.total.in_loss, report.about.completeness.in_loss), (cut(1, 60, 60), 1));
    let report = lossy().options(|options| options.include_doubtful = true).ask::<Latency>();
    assert_eq!((sums(&report.answer.total.latency), report.answer.total.in_loss), ((2, 160), cut(0, 0, 0)));
    assert_eq!(report.about.completeness.in_loss, 1);
}

#[test]
fn the_recorder_has_no_latency_unless_asked_for() {
    let recording = || two_wakeups().tasks(&[recorder(1)]);
    let report = recording().ask::<Latency>();
    assert_eq!((sums(&report.answer.total.latency), report.answer.groups_total), ((0, 0), 0));
    assert!(report.about.completeness.recorder_left_out);
    let report = recording().options(|options| options.include_recorder = true).ask::<Latency>();
    assert_eq!(sums(&report.answer.total.latency), (2, 160));
    assert!(!report.about.completeness.recorder_left_out);
}

/// Task 1 has CPU 0 until 1600. Task 2 waits there in [1200, 1600), task 3 in [1400, 1900). CPU 1 is idle.
fn two_in_line() -> Stream {
    stream()
        .cpus(&[0, 1])
        .snapshot(1000, 0, 1, true)
        .irq_waking(1200, 1, IDLE, 2, 0)
        .irq_waking(1400, 1, IDLE, 3, 0)
        .switch(1600, 0, 1, S, 2)
        .switch(1900, 0, 2, S, 3)
}

#[test]
fn depths_are_weighted_by_time() {
    // Nobody waits for 300, one for 200 + 300, two for 200: the mean is (500 + 2 * 200) / 1000.
    let report = two_in_line().ask::<Depth>().answer;
    let depth = DepthStats {
        mean: 0.9,
        p50: 1,
        p90: 2,
        p99: 2,
        p99_9: 2,
        p99_99: 2,
        max: 2,
        waiting_ns: 700,
        waiting_ratio: 0.7,
    };
    assert_eq!((report.total, report.uncounted_ns), (depth, 0));
    assert_eq!(report.cpus[0], DepthRow { place: Cpu(0), depth, busy_ns: 1000 });
    assert_eq!(report.cpus[1], DepthRow { place: Cpu(1), depth: DepthStats::default(), busy_ns: 0 });
    assert_eq!(report.llcs, [DepthRow { place: 0, depth, busy_ns: 1000 }]);
    assert_eq!(report.nodes, report.llcs);
}

#[test]
fn load_is_what_ran_and_what_waited() {
    // CPU 0 ran for 1000 and had 900 of waits, CPU 1 nothing: 1.9 and 0, whose mean and standard deviation are 0.95.
    let report = two_in_line().ask::<Depth>().answer;
    let [cpus, llcs, nodes] = &report.imbalance[..] else { panic!("{:?}", report.imbalance) };
    assert_eq!((cpus.across, cpus.places, cpus.least_load, cpus.most_load), ("cpu", 2, 0.0, 1.9));
    assert_eq!((cpus.mean_load, cpus.variation_ratio), (0.95, 1.0));
    // One cache with two CPUs: 1.9 / 2.
    assert_eq!((llcs.across, llcs.places, llcs.most_load, llcs.variation_ratio), ("llc", 1, 0.95, 0.0));
    assert_eq!((nodes.across, nodes.places, nodes.most_load), ("node", 1, 0.95));
}

#[test]
fn a_wait_that_moves_is_in_the_queue_of_one_cpu_at_a_time() {
    // Task 2 waits on CPU 0 in [1100, 1300), and on CPU 2, under another cache of the same node, until 1500.
    let report = stream()
        .topology(&[(0, 0, 0, 0), (1, 1, 0, 0), (2, 2, 2, 0), (3, 3, 3, 1)])
        .snapshot(1000, 0, 1, true)
        .snapshot(1000, 2, 4, true)
        .irq_waking(1100, 1, IDLE, 2, 0)
        .migrate(1300, 2, 2, 0, 2)
        .switch(1500, 2, 4, S, 2)
        .ask::<Depth>()
        .answer;
    assert_eq!((report.total.waiting_ns, report.total.max, report.total.mean), (400, 1, 0.4));
    let waiting = |rows: &[DepthRow<u32>]| -> Vec<_> {
        rows.iter().map(|row| (row.place, row.depth.waiting_ns, row.depth.max, row.busy_ns)).collect()
    };
    assert_eq!(waiting(&report.llcs), [(0, 200, 1, 1000), (2, 200, 1, 1000), (3, 0, 0, 0)]);
    assert_eq!(waiting(&report.nodes), [(0, 400, 1, 2000), (1, 0, 0, 0)]);
    assert_eq!(report.cpus.iter().map(|row| row.depth.waiting_ns).collect::<Vec<_>>(), [200, 0, 200, 0]);
    // Node 0: 2000 ran and 400 waited, on three CPUs.
    let nodes = &report.imbalance[2];
    assert!((nodes.most_load - 0.8).abs() < 1e-12 && nodes.least_load == 0.0, "{nodes:?}");
}

#[test]
fn who_comes_as_another_goes_makes_no_queue_deeper() {
    let report = stream().preempt(1100, 0, 1, 2).preempt(1200, 0, 2, 1).ask::<Depth>().answer;
    assert_eq!((report.total.waiting_ns, report.total.max, report.total.mean), (900, 1, 0.9));
}

#[test]
fn depths_are_those_of_the_window() {
    // Of [1200, 1600), 150 lie in it; task 3 comes as it ends.
    let report = two_in_line().window(1250, 1400).ask::<Depth>().answer;
    assert_eq!((report.total.mean, report.total.p50, report.total.waiting_ns), (1.0, 1, 150));
    assert_eq!((report.total.waiting_ratio, report.total.max, report.cpus[0].busy_ns), (1.0, 1, 150));
    // What has not ended counts until the end.
    let report = two_in_line().window(1000, 1500).ask::<Depth>().answer;
    assert_eq!((report.total.mean, report.total.max), (0.8, 2), "300 of task 2 and 100 of task 3");
}

#[test]
fn depths_leave_out_the_recorder_the_throttled_and_what_is_in_doubt() {
    let depth = |stream: Stream| stream.ask::<Depth>().answer.total.waiting_ns;
    assert_eq!(depth(two_in_line().tasks(&[recorder(2)])), 500);
    let with = |options: &mut Options| options.include_recorder = true;
    assert_eq!(depth(two_in_line().tasks(&[recorder(2)]).options(with)), 700);
    assert_eq!(depth(two_in_line().loss(Some(Kind::Switch), 1, 1700, 1700)), 400, "task 3's wait is in doubt");
    assert_eq!(depth(stream().throttle(1100, 0, 1, IDLE).switch(1500, 0, IDLE, R, 1)), 0);
}

#[test]
fn a_queue_that_is_deeper_than_can_be_told_is_told_of_until_it_is_empty() {
    // 5000 tasks wait from 1100 on; all but one get the CPU at 1300, and that one never does.
    let mut stream = stream().snapshot(1000, 0, 1, true);
    for task in 11..5_011 {
        stream = stream.irq_waking(1100, 1, IDLE, task, 0);
    }
    let mut on = 1;
    for task in 11..5_010 {
        stream = stream.switch(1300, 0, on, S, task);
        on = task;
    }
    let total = stream.ask::<Depth>().answer.total;
    assert_eq!((total.max, total.waiting_ns), (4096, 900));
    // 200 at 4096 and 700 at 1.
    assert!((total.mean - (200.0 * 4096.0 + 700.0) / 1000.0).abs() < 1e-9, "{}", total.mean);
}

#[test]
fn parts_of_waits_that_are_too_old_are_told_apart() {
    // Tasks 1 and 2 take turns every 10 from 1010 on: each switch ends one wait and begins another. Task 3 waits all
    // the time. When more than 2^19 changes are known, half of them are counted; the last of these is at 1010 + 10 * 2^17.
    let turns = (1 << 18) + 10;
    let end = 1_000 + 10 * turns;
    let mut stream = stream().snapshot(1000, 0, 1, true).snapshot(1000, 0, 3, false).ended(end);
    for n in 1..turns {
        let (prev, next) = if n % 2 == 1 { (1, 2) } else { (2, 1) };
        stream = stream.preempt(1_000 + 10 * n, 0, prev, next);
    }
    let report = stream.ask::<Depth>().answer;
    let uncounted = 10 + 10 * (1 << 17);
    assert_eq!(report.uncounted_ns, uncounted);
    // In truth one waits in [1000, 1010), and two do from then on.
    let told = report.total.mean * (end - 1_000) as f64;
    let truth = (10 + 2 * (end - 1_010) - uncounted) as f64;
    assert!((told - truth).abs() < 1.0, "{told}, not {truth}");
    assert_eq!(report.total.max, 2);
}

#[test]
fn preemptions_tell_who_took_the_cpu_and_for_how_long() {
    let report = stream()
        .prio_switch(1100, 0, (1, 120), R, (2, 110))
        .switch(1150, 0, 2, S, 1)
        .preempt(1200, 0, 1, 2)
        .switch(1300, 0, 2, S, 1)
        .ask::<Preemptions>()
        .answer;
    assert_eq!((report.preemptions, report.in_kernel, report.to_higher_priority, report.throttled), (2, 1, 1, 0));
    assert_eq!((sums(&report.off_cpu), report.pairs_total, report.others), ((2, 150), 1, 0));
    let row = &report.pairs[0];
    assert_eq!((task_of(&row.preempted), task_of(&row.by), row.preemptions), (1, 2, 2));
    assert_eq!((row.preempted_prio, row.by_prio), (120, 120), "as of the last time");
    assert_eq!(sums(&row.off_cpu), (2, 150));
}

#[test]
fn a_deadline_task_comes_before_all_others() {
    // The kernel's number for it is -1, which is 255 in events.
    let higher = |prev, next| {
        let report = stream().prio_switch(1100, 0, (1, prev), R, (2, next)).ask::<Preemptions>().answer;
        (report.preemptions, report.to_higher_priority)
    };
    assert_eq!([(120, 255), (50, 255), (120, 50), (120, 119)].map(|(prev, next)| higher(prev, next)), [(1, 1); 4]);
    assert_eq!([(255, 120), (255, 255), (50, 120), (120, 120)].map(|(prev, next)| higher(prev, next)), [(1, 0); 4]);
}

#[test]
fn who_gives_way_to_nobody_or_to_a_quota_was_not_preempted() {
    let report = stream()
        .switch(1100, 0, 1, R, IDLE)
        .switch(1200, 0, IDLE, R, 1)
        .throttle(1300, 0, 1, 2)
        .switch(1400, 0, 2, S, 1)
        .ask::<Preemptions>()
        .answer;
    assert_eq!((report.preemptions, report.throttled, report.pairs_total), (0, 1, 0));
    assert_eq!((sums(&report.off_cpu), report.censored), ((0, 0), cut(0, 0, 0)));
}

#[test]
fn the_idle_task_is_not_preempted() {
    let report = stream().switch(1100, 0, IDLE, R, 1).preempt(1200, 1, IDLE, 2).ask::<Preemptions>().answer;
    assert_eq!((report.preemptions, report.in_kernel, report.pairs_total), (0, 0, 0));
}

#[test]
fn preemptions_count_where_they_are_and_their_waits_where_both_ends_are() {
    // Before the window, over its beginning, and over its end.
    let report = stream()
        .window(1500, 2000)
        .preempt(1100, 0, 1, 2)
        .switch(1200, 0, 2, S, 1)
        .preempt(1400, 0, 1, 2)
        .switch(1600, 0, 2, S, 1)
        .preempt(1930, 0, 1, 2)
        .ask::<Preemptions>();
    assert_eq!((report.answer.preemptions, sums(&report.answer.off_cpu)), (1, (0, 0)));
    assert_eq!((report.answer.censored, report.about.completeness.censored_waits), (cut(2, 170, 100), 2));
    assert_eq!((report.answer.pairs[0].preemptions, sums(&report.answer.pairs[0].off_cpu)), (1, (0, 0)));
}

#[test]
fn preemptions_in_doubt_and_of_the_recorder_are_apart() {
    let preempted = || stream().preempt(1100, 0, 1, 2).switch(1150, 0, 2, S, 1);
    let report = preempted().loss(None, 1, 1120, 1130).ask::<Preemptions>().answer;
    assert_eq!((report.preemptions, sums(&report.off_cpu), report.in_loss), (1, (0, 0), cut(1, 50, 50)));
    let report = preempted().tasks(&[recorder(1)]).ask::<Preemptions>().answer;
    assert_eq!((report.preemptions, sums(&report.off_cpu), report.pairs_total), (0, (0, 0), 0));
    let report = preempted().tasks(&[recorder(2)]).ask::<Preemptions>().answer;
    assert_eq!((report.preemptions, task_of(&report.pairs[0].by)), (1, 2), "who took the CPU is named all the same");
}

#[test]
fn preemptions_by_cpu_name_processes() {
    let tasks = [task(1, 11, 10, "a"), task(2, 20, 20, "b"), task(3, 12, 10, "a")];
    // Both threads of process 10 lose the CPU to process 20, for 50 and for 30.
    let report = stream()
        .by(GroupBy::Cpu)
        .tasks(&tasks)
        .preempt(1100, 0, 1, 2)
        .switch(1150, 0, 2, S, 1)
        .preempt(1200, 1, 3, 2)
        .switch(1230, 1, 2, S, 3)
        .ask::<Preemptions>()
        .answer;
    let pairs: Vec<_> = report.pairs.iter().map(|row| (row.preempted.to_string(), row.by.to_string())).collect();
    assert_eq!(pairs, [("a[10]".to_owned(), "b[20]".to_owned())]);
    assert_eq!((report.pairs[0].preemptions, sums(&report.pairs[0].off_cpu)), (2, (2, 80)));
}

#[test]
fn wakers_are_ranked_by_how_long_the_woken_ones_wait() {
    // Task 2 wakes task 1 twice, which waits for 10 each time; task 3 does once, from another CPU, and it waits for 50.
    let mut both = stream().cpus(&[0, 1]);
    for at in [1100, 1200] {
        both = both.switch(at, 0, 1, S, 2).waking(at + 10, 0, 2, 1, 0).switch(at + 20, 0, 2, S, 1);
    }
    both = both.switch(1300, 0, 1, S, IDLE).waking(1400, 1, 3, 1, 0).switch(1450, 0, IDLE, R, 1);
    let report = both.ask::<Wakers>().answer;
    assert_eq!((report.wakeups, report.awake_already, report.pairs_total, report.others), (3, 0, 2, 0));
    let row = |row: &WakerRow| {
        let WakerGroup::Task { group } = &row.waker else { panic!("{:?}", row.waker) };
        (task_of(group), task_of(&row.wakee), sums(&row.latency), row.on_wakers_cpu)
    };
    assert_eq!(report.pairs.iter().map(row).collect::<Vec<_>>(), [(3, 1, (1, 50), 0), (2, 1, (2, 20), 2)]);
    assert_eq!(report.placement, Placement { same_cpu: 3, llc_local_ratio: 1.0, ..Placement::default() });
    assert_eq!(report.from_waker, Placement { same_cpu: 2, llc: 1, llc_local_ratio: 1.0, ..Placement::default() });
}

#[test]
fn woken_tasks_run_near_and_far() {
    // An interrupt on CPU 2 wakes task 1 six times. It ran on CPU 0, and then runs on the same CPU, on one of the same
    // core, cache and node, on another node, and on a CPU that is not in the topology.
    let mut stream = stream()
        .topology(&[(0, 0, 0, 0), (1, 0, 0, 0), (2, 2, 0, 0), (3, 3, 3, 0), (4, 4, 4, 1)])
        .switch(1050, 0, 1, S, IDLE);
    let mut last = 0;
    for (at, cpu) in [(1100, 0), (1200, 1), (1300, 2), (1400, 3), (1500, 4), (1600, 9)] {
        stream = stream.irq_waking(at, 2, IDLE, 1, last);
        if cpu != last {
            stream = stream.place(at + 1, 2, 1, last, cpu);
        }
        stream = stream.switch(at + 10, cpu, IDLE, R, 1).switch(at + 20, cpu, 1, S, IDLE);
        last = cpu;
    }
    let report = stream.ask::<Wakers>().answer;
    let (same_cpu, core, llc, node, cross_node, unknown) = (1, 1, 1, 1, 1, 1);
    let all = Placement { same_cpu, core, llc, node, cross_node, unknown, llc_local_ratio: 0.6 };
    assert_eq!(report.placement, all);
    // From CPU 2: CPUs 0 and 1 are under its cache, and it is itself one of them.
    assert_eq!(report.from_waker, Placement { core: 0, llc: 2, ..all });
    assert_eq!((report.pairs[0].on_wakers_cpu, sums(&report.pairs[0].latency)), (1, (6, 60)));
    assert_eq!(report.pairs[0].waker, WakerGroup::Interrupt { context: Context::Hardirq });
}

#[test]
fn a_waking_of_who_waits_already_moves_no_waker() {
    let report = stream()
        .switch(1100, 0, 1, S, 2)
        .waking(1200, 0, 2, 1, 0)
        .waking(1250, 1, 3, 1, 0)
        .switch(1300, 0, 2, S, 1)
        .waking_on_cpu(1350, 1, 3, 1, 0)
        .ask::<Wakers>()
        .answer;
    assert_eq!((report.wakeups, report.awake_already, report.pairs_total), (1, 2, 1));
    assert_eq!(report.pairs[0].on_wakers_cpu, 1);
}

#[test]
fn new_tasks_have_no_wakers_and_take_no_room_from_those_who_do() {
    let mut many = stream().switch(1010, 0, IDLE, R, 1);
    for task in 11..11 + (1 << 16) + 1 {
        many = many.wakeup_new(1100, 0, 1, task, 1);
        many = many.switch(1100, 1, IDLE, R, task).switch(1100, 1, task, X, IDLE);
    }
    let report = many.switch(1200, 2, 2, S, IDLE).waking(1300, 0, 1, 2, 2).switch(1320, 2, IDLE, R, 2).ask::<Wakers>();
    assert_eq!((report.answer.wakeups, report.answer.pairs_total), (1, 1));
    assert_eq!(report.answer.from_waker.unknown, 1, "without a topology");
}

#[test]
fn wakers_count_samples_of_the_window_only() {
    let woken = || stream().switch(1100, 0, 1, S, 2).waking(1200, 0, 2, 1, 0).switch(1300, 0, 2, S, 1);
    let wakers = |stream: Stream| {
        let report = stream.ask::<Wakers>();
        let cut = report.about.completeness;
        (report.answer.wakeups, report.answer.pairs_total, cut.censored_waits + cut.in_loss)
    };
    assert_eq!(wakers(woken()), (1, 1, 0));
    assert_eq!(wakers(woken().window(1250, 2000)), (0, 0, 1));
    assert_eq!(wakers(woken().window(1000, 1250)), (1, 0, 1));
    assert_eq!(wakers(woken().loss(Some(Kind::WakeupNew), 1, 1290, 1310)), (1, 0, 1));
    assert_eq!(wakers(woken().tasks(&[recorder(1)])), (0, 0, 0));
    assert_eq!(wakers(woken().tasks(&[recorder(2)])), (1, 1, 0), "who woke is named all the same");
}

/// What the kernel would have written, too: that a woken task was put on a queue, some time after it was woken.
fn with_wakeups(mut stream: Stream, late: &[u8]) -> Stream {
    let mut events = Vec::new();
    for (n, event) in stream.batch.events.iter().enumerate() {
        events.push(*event);
        if let EventKind::Waking(waking) = event.kind
            && late[n % late.len()] < 200
        {
            let ts = event.ts + Nanos(u64::from(late[n % late.len()] / 10));
            let wakeup = Wakeup { task: waking.task, target_cpu: waking.prev_cpu, prio: 120 };
            events.push(Event { ts, cpu: event.cpu, kind: EventKind::Wakeup(wakeup) });
        }
    }
    events.sort_by_key(|event| event.ts);
    stream.batch.events = events;
    stream
}

proptest! {
    #[test]
    fn the_mean_depth_is_the_time_of_all_waits(steps in steps(200), from in 900..3_000u64, length in 1..3_000u64) {
        let stream = simulate(&steps).stream.window(from, from + length);
        let waits = stream.clone().report().run_queue.total;
        let report = stream.ask::<Depth>();
        let window = report.about.window.duration_ns.0 as f64;
        let (depth, truth) = (&report.answer.total, waits.wait.total_ns + waits.censored.wait_ns);
        let off = (depth.mean * window - truth as f64).abs();
        prop_assert!(off < 1e-6 * window.max(1.0), "{depth:?}: {truth} in {window}");
        let cpus: f64 = report.answer.cpus.iter().map(|row| row.depth.mean).sum();
        prop_assert!((cpus - depth.mean).abs() < 1e-9, "{cpus} on all CPUs, {} together", depth.mean);
        let places = report.answer.cpus.iter().map(|row| row.depth);
        let places = places.chain(report.answer.llcs.iter().chain(&report.answer.nodes).map(|row| row.depth));
        for depth in places.chain([*depth]) {
            let quantiles = [0, depth.p50, depth.p90, depth.p99, depth.p99_9, depth.p99_99, depth.max];
            prop_assert!(quantiles.is_sorted(), "{depth:?}");
            prop_assert!((0.0..=1.0).contains(&depth.waiting_ratio) && depth.mean <= f64::from(depth.max));
        }
        for row in &report.answer.imbalance {
            let ordered = [0.0, row.least_load, row.mean_load, row.most_load];
            prop_assert!(ordered.windows(2).all(|pair| pair[0] <= pair[1] + 1e-12), "{row:?}");
        }
        prop_assert_eq!(report.answer.uncounted_ns, 0);
    }

    #[test]
    fn the_parts_of_a_latency_are_all_of_it(
        steps in steps(200),
        late in prop::collection::vec(any::<u8>(), 1..9),
        from in 900..2_000u64,
    ) {
        let stream = with_wakeups(simulate(&steps).stream.window(from, 10_000), &late);
        let answer = stream.ask::<Latency>().answer;
        for latency in answer.groups.iter().map(|row| &row.latency).chain([&answer.total]) {
            let (all, same, moved) = (sums(&latency.latency), sums(&latency.same_cpu), sums(&latency.migrated));
            prop_assert!(same.0 + moved.0 <= all.0 && same.1 + moved.1 <= all.1, "{latency:?}");
            let (before, after) = (sums(&latency.to_enqueue), sums(&latency.on_queue));
            prop_assert!(before.0 == after.0 && before.0 <= all.0 && before.1 + after.1 <= all.1, "{latency:?}");
            if before.0 == all.0 {
                prop_assert_eq!(before.1 + after.1, all.1);
            }
        }
        let of_groups = answer.groups.iter().map(|row| sums(&row.latency.latency).1);
        prop_assert_eq!(of_groups.sum::<u64>(), sums(&answer.total.latency).1);
    }
}
