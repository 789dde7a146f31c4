//! Idle CPUs, fair shares and outliers, each worked out by hand.

use super::*;
use crate::analysis::fairness::indices;
use proptest::prelude::*;

/// Task 1 has run on CPU 1, which is idle from 1100 on, and waits on CPU 0 behind task 2 in [1300, 1500).
fn waits_beside_an_idle_cpu() -> Stream {
    stream()
        .cpus(&[0, 1])
        .switch(1100, 1, 1, S, IDLE)
        .waking(1300, 0, 2, 1, 1)
        .place(1300, 0, 1, 1, 0)
        .switch(1500, 0, 2, S, 1)
}

/// Time in violation, all time waited, and the CPUs that were idle meanwhile.
fn violated(stream: Stream) -> (u64, u64, Vec<(u16, u64)>) {
    let answer = stream.ask::<Conservation>().answer;
    let cpus = answer.cpus.iter().map(|row| (row.cpu.0, row.idle_ns)).collect();
    (answer.violations.summary.total_ns, answer.wait_ns, cpus)
}

#[test]
fn a_cpu_that_idles_while_a_task_waits_elsewhere_is_told() {
    let report = waits_beside_an_idle_cpu().ask::<Conservation>().answer;
    assert_eq!((sums(&report.violations), report.waits, report.wait_ns), ((1, 200), 1, 200));
    assert_eq!((report.violated_ratio, report.groups_total), (1.0, 1));
    assert_eq!((task_of(&report.groups[0].group), sums(&report.groups[0].violations)), (1, (1, 200)));
    assert_eq!(report.cpus, [IdleCpuRow { cpu: Cpu(1), idle_ns: 200 }]);
}

#[test]
fn only_cpus_on_which_a_task_has_run_count() {
    // Task 3 has never been on CPU 1, and task 1 is nowhere but there.
    let kept = stream().cpus(&[0, 1]).switch(1100, 1, 1, S, IDLE).switch(1150, 0, 3, S, 2);
    let kept = kept.waking(1300, 0, 2, 3, 0).waking(1300, 0, 2, 1, 1);
    assert_eq!(violated(kept.switch(1400, 1, IDLE, R, 1).switch(1500, 0, 2, S, 3)), (0, 300, vec![]));
}

#[test]
fn a_cpu_that_was_busy_for_a_part_of_a_wait_counts_for_the_rest() {
    // CPU 1 is busy in [1350, 1400): 50 before and 100 after. What it did before 1300 and after 1500 does not matter.
    let stream = stream()
        .cpus(&[0, 1])
        .switch(1100, 1, 1, S, IDLE)
        .waking(1300, 0, 2, 1, 1)
        .place(1300, 0, 1, 1, 0)
        .switch(1350, 1, IDLE, R, 3)
        .switch(1400, 1, 3, S, IDLE)
        .switch(1500, 0, 2, S, 1)
        .switch(1600, 1, IDLE, R, 3);
    assert_eq!(violated(stream), (150, 200, vec![(1, 150)]));
}

#[test]
fn a_moment_at_which_two_cpus_were_idle_counts_once() {
    let stream = stream()
        .cpus(&[0, 1, 2])
        .switch(1050, 1, 1, S, IDLE)
        .waking(1060, 0, 2, 1, 1)
        .place(1060, 0, 1, 1, 2)
        .switch(1060, 2, IDLE, R, 1)
        .switch(1100, 2, 1, S, IDLE)
        .waking(1300, 0, 2, 1, 2)
        .place(1300, 0, 1, 2, 0)
        .switch(1400, 1, IDLE, R, 3)
        .switch(1500, 0, 2, S, 1);
    // CPU 1 was idle for a half of the time, CPU 2 all the time.
    assert_eq!(violated(stream), (200, 200, vec![(1, 100), (2, 200)]));
}

#[test]
fn a_wait_that_has_not_ended_is_looked_at_once() {
    let open = stream().cpus(&[0, 1]).switch(1050, 0, 2, R, 3).switch(1100, 1, 1, S, IDLE);
    let open = open.waking(1300, 0, 3, 1, 1).place(1300, 0, 1, 1, 0).tasks(&[recorder(2)]);
    assert_eq!(violated(open), (700, 700, vec![(1, 700)]));
}

#[test]
fn violations_are_those_of_the_window() {
    assert_eq!(violated(waits_beside_an_idle_cpu().window(1350, 1420)), (70, 70, vec![(1, 70)]));
    assert_eq!(violated(waits_beside_an_idle_cpu().window(1600, 1700)), (0, 0, vec![]));
}

#[test]
fn waits_that_prove_nothing_are_not_looked_at() {
    let none = (0, 0, vec![]);
    assert_eq!(violated(waits_beside_an_idle_cpu().loss(Some(Kind::Switch), 1, 1400, 1400)), none);
    assert_eq!(violated(waits_beside_an_idle_cpu().tasks(&[recorder(1)])), none);
    let filters = Filters { pids: vec![1], ..Filters::default() };
    let tasks = [task(1, 1, 1, "a"), task(2, 2, 2, "b")];
    assert_eq!(violated(waits_beside_an_idle_cpu().tasks(&tasks).filter(filters)), none);
    let throttled = stream().cpus(&[0, 1]).switch(1050, 1, 1, S, IDLE).switch(1060, 0, IDLE, R, 1);
    assert_eq!(violated(throttled.throttle(1100, 0, 1, IDLE).switch(1500, 0, IDLE, R, 1)), none);
}

#[test]
fn a_cpu_that_may_have_been_busy_unseen_was_not_idle() {
    // Switches are missing between 1150 and 1160: somebody may have had CPU 1 from then until 1450.
    let stream = stream()
        .cpus(&[0, 1])
        .switch(1100, 1, 1, S, IDLE)
        .loss(Some(Kind::Switch), 2, 1150, 1160)
        .waking(1300, 0, 2, 1, 1)
        .place(1300, 0, 1, 1, 0)
        .switch(1450, 1, IDLE, R, 3)
        .switch(1500, 0, 2, S, 1);
    assert_eq!(violated(stream), (0, 200, vec![]));
}

/// Tasks 1 and 2, of these priorities, share CPU 0: task 1 has it until 1250, and from 1500 until `again`.
fn shared(prios: (u8, u8), again: u64) -> Stream {
    let (one, two) = ((1, prios.0), (2, prios.1));
    stream()
        .snapshot(1000, 0, 1, true)
        .snapshot(1000, 0, 2, false)
        .prio_switch(1250, 0, one, R, two)
        .prio_switch(1500, 0, two, R, one)
        .prio_switch(again, 0, one, R, two)
}

fn close(told: Option<f64>, truth: f64) -> bool {
    told.is_some_and(|told| (told - truth).abs() < 1e-12)
}

#[test]
fn equal_shares_are_fair() {
    let report = shared((120, 120), 1750).ask::<Fairness>().answer;
    assert_eq!((report.competed, report.groups_total), (2, 2));
    assert_eq!((report.jain, report.jain_unweighted), (Some(1.0), Some(1.0)));
    assert_eq!((report.gini, report.gini_unweighted), (Some(0.0), Some(0.0)));
    for row in &report.groups {
        assert_eq!((row.run_ns, row.wait_ns, row.got_ratio), (500, 500, 0.5));
        assert_eq!((row.weight, row.got_by_weight), (Some(1024.0), Some(0.5)));
    }
}

#[test]
fn unequal_shares_are_measured() {
    // Task 1 has the CPU for 250 + 500 of 1000, task 2 for the rest. Jain: 1 / (2 * (9 + 1) / 16) = 0.8. Gini: half of
    // the mean difference, (0.5 + 0.5) / 4 / 2, by the mean of 0.5.
    let report = shared((120, 120), 2000).ask::<Fairness>().answer;
    assert!(close(report.jain, 0.8) && close(report.gini, 0.25), "{report:?}");
    assert_eq!((report.jain_unweighted, report.gini_unweighted), (report.jain, report.gini));
    let rows: Vec<_> = report.groups.iter().map(|row| (task_of(&row.group), row.got_ratio)).collect();
    assert_eq!(rows, [(2, 0.25), (1, 0.75)], "who got least, first");
}

#[test]
fn shares_are_weighed_by_nice_value() {
    // Nice 5 weighs 335: a quarter of the CPU is more by weight than three quarters are with 1024.
    let report = shared((120, 125), 2000).ask::<Fairness>().answer;
    let rows: Vec<_> = report.groups.iter().map(|row| (task_of(&row.group), row.weight)).collect();
    assert_eq!(rows, [(1, Some(1024.0)), (2, Some(335.0))]);
    assert!(close(report.groups[0].got_by_weight, 0.75) && close(report.groups[1].got_by_weight, 256.0 / 335.0));
    assert!(report.jain > Some(0.99) && close(report.jain_unweighted, 0.8));
}

#[test]
fn real_time_tasks_are_not_shared_by_weight() {
    for prio in [0, 99, 140, 255] {
        let report = shared((120, prio), 2000).ask::<Fairness>().answer;
        let row = report.groups.iter().find(|row| task_of(&row.group) == 2).unwrap();
        assert_eq!((row.weight, row.got_by_weight), (None, None));
        assert_eq!((report.jain, report.gini), (None, None), "one is left that competed by weight");
        assert!(close(report.jain_unweighted, 0.8));
    }
}

#[test]
fn the_weight_of_a_group_is_that_of_its_tasks_by_time() {
    // Two threads of one process, each on its own CPU: nice 0 (1024) for 300, and nice 19 (15) for 100, which comes last
    // and ends at the same time. Before they waited, for 100 and 300: (300 * 1024 + 100 * 15) / 400.
    let report = stream()
        .by(GroupBy::Process)
        .tasks(&[task(1, 10, 10, "p"), task(2, 11, 10, "p")])
        .window(1000, 1500)
        .irq_waking(1000, 9, IDLE, 1, 0)
        .irq_waking(1000, 9, IDLE, 2, 1)
        .prio_switch(1100, 0, (IDLE, 120), R, (1, 120))
        .prio_switch(1300, 1, (IDLE, 120), R, (2, 139))
        .prio_switch(1400, 0, (1, 120), S, (IDLE, 120))
        .prio_switch(1400, 1, (2, 139), S, (IDLE, 120))
        .ask::<Fairness>()
        .answer;
    let row = &report.groups[0];
    assert_eq!((row.run_ns, row.wait_ns, row.got_ratio), (400, 400, 0.5));
    assert!(close(row.weight, 308_700.0 / 400.0), "{row:?}");
}

#[test]
fn who_gets_nothing_got_less_than_others_whatever_its_weight() {
    // Task 3 waits all the time: got are 1/2, 1/2 and 0. Jain: 1 / (3 / 2). Gini: 2 * (1 + 1.5) / 3 - 4 / 3.
    let report = shared((120, 120), 1750).snapshot(1750, 0, 3, false).ask::<Fairness>().answer;
    assert_eq!((report.competed, task_of(&report.groups[0].group)), (3, 3));
    assert_eq!((report.groups[0].weight, report.groups[0].got_by_weight), (None, Some(0.0)));
    assert!(close(report.jain, 2.0 / 3.0) && close(report.gini, 1.0 / 3.0), "{report:?}");
    assert_eq!((report.jain_unweighted, report.gini_unweighted), (report.jain, report.gini));
}

#[test]
fn who_hardly_waits_does_not_compete() {
    // Task 1 waits for 10 of 1000, not more than 1 %, and task 2 for 990.
    let of = |until| {
        let stream = stream().snapshot(1000, 0, 1, true).snapshot(1000, 0, 2, false);
        stream.switch(1500, 0, 1, R, 2).switch(until, 0, 2, R, 1).ask::<Fairness>().answer
    };
    let report = of(1510);
    assert_eq!((report.competed, report.groups_total, report.jain), (1, 2, None));
    assert_eq!(of(1511).competed, 2);
}

#[test]
fn shares_are_those_of_the_window() {
    // [1200, 1600): task 1 has the CPU for 50 + 100, task 2 for 250.
    let report = shared((120, 120), 1750).window(1200, 1600).ask::<Fairness>().answer;
    let rows: Vec<_> = report.groups.iter().map(|row| (task_of(&row.group), row.run_ns, row.wait_ns)).collect();
    assert_eq!(rows, [(1, 150, 250), (2, 250, 150)]);
}

#[test]
fn what_is_in_doubt_throttled_or_the_recorders_is_no_share() {
    let shares = |stream: Stream| -> Vec<(u32, u64, u64)> {
        let answer = stream.ask::<Fairness>().answer;
        let mut rows: Vec<_> = answer.groups.iter().map(|row| (task_of(&row.group), row.run_ns, row.wait_ns)).collect();
        rows.sort_unstable();
        rows
    };
    assert_eq!(shares(shared((120, 120), 1750)), [(1, 500, 500), (2, 500, 500)]);
    assert_eq!(shares(shared((120, 120), 1750).tasks(&[recorder(2)])), [(1, 500, 500)]);
    // From 1250 until 1500, task 1's wait and task 2's run are in doubt.
    let lossy = shared((120, 120), 1750).loss(Some(Kind::Switch), 1, 1300, 1310);
    assert_eq!(shares(lossy), [(1, 500, 250), (2, 250, 500)]);
    let throttled = stream().switch(1100, 0, 1, R, 2).switch(1200, 0, 2, R, 1).throttle(1300, 0, 1, IDLE);
    // Task 1: 100 + 100 on the CPU, 100 behind task 2. Task 2 waits from 1200 on.
    assert_eq!(shares(throttled.snapshot(1400, 0, 9, false)), [(1, 200, 100), (2, 100, 800), (9, 0, 1000)]);
}

#[test]
fn fences_are_those_of_the_textbook() {
    // 10, 20 ... 1000. The distances from 500 are 0, twice each of 10 to 490, and 500: the 50th is 250.
    let mut all = Distribution::default();
    (1..=100).for_each(|n| all.record(n * 10));
    let truth = Fences {
        p25_ns: 250,
        p50_ns: 500,
        p75_ns: 750,
        iqr_ns: 500,
        mad_ns: 250,
        inner_ns: 1500,
        outer_ns: 2250,
        // 500 + 3.5 * 250 / 0.6745 = 500 + 1297.3.
        mad_fence_ns: 1797,
    };
    assert_eq!(Fences::of(&all), truth);
}

#[test]
fn fences_are_bounded() {
    let mut all = Distribution::default();
    [0, 0, 0, u64::MAX, u64::MAX].into_iter().for_each(|ns| all.record(ns));
    let fences = Fences::of(&all);
    assert_eq!((fences.inner_ns, fences.outer_ns), (u64::MAX, u64::MAX));
    assert_eq!(Fences::of(&Distribution::default()), Fences::default());
}

/// Task `task` waits so often and for so long, on a CPU of its own.
fn waits_for(mut stream: Stream, task: u32, times: u64, ns: u64) -> Stream {
    let (cpu, mut at) = (task as u16, stream.batch.events.last().map_or(1_000, |event| event.ts.0));
    for _ in 0..times {
        stream = stream.irq_waking(at + 1, 0, IDLE, task, cpu);
        stream = stream.switch(at + 1 + ns, cpu, IDLE, R, task).switch(at + 2 + ns, cpu, task, S, IDLE);
        at += 2 + ns;
    }
    stream.ended(at + 1)
}

#[test]
fn waits_beyond_the_fences_are_counted() {
    // Ten of 10, and one of 500: all quartiles are 10, and so are the fences.
    let report = waits_for(waits_for(stream(), 1, 10, 10), 2, 1, 500).ask::<Outliers>().answer;
    assert_eq!(sums(&report.waits), (11, 600));
    assert_eq!((report.fences.iqr_ns, report.fences.mad_ns, report.fences.outer_ns), (0, 0, 10));
    let beyond = Beyond { count: 1, count_ratio: 1.0 / 11.0, total_ns: 500, total_ratio: 500.0 / 600.0 };
    assert_eq!(report.far_out, beyond);
    assert_eq!(report.by_mad, Beyond::default(), "there is no spread to measure by");
}

#[test]
fn groups_beyond_the_others_are_named() {
    // p99s of 10, 12, 14, 16 and 1000. The median is 14; the distances 4, 2, 0, 2 and 986 have the median 2: the fence
    // is at 14 + 2 * 3.5 / 0.6745 = 24.4. Task 6 has too few samples to be compared.
    let mut all = stream();
    for (task, ns) in [(1, 10), (2, 12), (3, 1000), (4, 14), (5, 16)] {
        all = waits_for(all, task, 10, ns);
    }
    let report = waits_for(all, 6, 9, 5000).ask::<Outliers>().answer;
    assert_eq!((report.compared, report.groups.len()), (5, 1));
    let row = &report.groups[0];
    assert_eq!((task_of(&row.group), row.p99_ns, sums(&row.waits)), (3, 1000, (10, 10_000)));
    assert!((row.score - 986.0 * 0.6745 / 2.0).abs() < 1e-9, "{}", row.score);
}

#[test]
fn groups_that_are_mostly_alike_have_no_outliers() {
    let mut all = stream();
    for (task, ns) in [(1, 10), (2, 10), (3, 1000), (4, 10)] {
        all = waits_for(all, task, 10, ns);
    }
    let report = all.ask::<Outliers>().answer;
    assert_eq!((report.compared, report.groups.len()), (4, 0));
    serde_json::to_string(&report).unwrap();
}

#[test]
fn outliers_are_looked_for_among_samples_only() {
    let waits = |stream: Stream| sums(&stream.ask::<Outliers>().answer.waits);
    // From 1001 until 1011, from 1013 until 1023, from 1025 until 1035.
    let three = || waits_for(stream(), 1, 3, 10);
    assert_eq!(waits(three()), (3, 30));
    assert_eq!(waits(three().window(1005, 1030)), (1, 10));
    assert_eq!(waits(three().loss(Some(Kind::Waking), 1, 1015, 1016)), (2, 20));
    assert_eq!(waits(three().tasks(&[recorder(1)])), (0, 0));
    let nothing = stream().ask::<Outliers>().answer;
    assert_eq!((nothing.fences, nothing.far_out, nothing.compared), (Fences::default(), Beyond::default(), 0));
}

proptest! {
    #[test]
    fn indices_keep_their_bounds(got in prop::collection::vec(prop_oneof![0.0..1.0f64, Just(0.0), Just(0.3)], 0..50)) {
        let n = got.len() as f64;
        let (jain, gini) = indices(got.clone());
        if got.len() < 2 || got.iter().all(|x| *x == 0.0) {
            prop_assert_eq!((jain, gini), (None, None));
            return Ok(());
        }
        let (jain, gini) = (jain.unwrap(), gini.unwrap());
        prop_assert!(1.0 / n <= jain * (1.0 + 1e-12) && jain <= 1.0, "{jain} of {n}");
        prop_assert!((0.0..1.0).contains(&gini), "{gini}");
        // Half of the mean difference between any two, divided by the mean.
        let mean = got.iter().sum::<f64>() / n;
        let apart: f64 = got.iter().flat_map(|a| got.iter().map(move |b| (a - b).abs())).sum();
        prop_assert!((gini - apart / (n * n) / 2.0 / mean).abs() < 1e-9);
    }

    #[test]
    fn deviations_and_what_lies_beyond_are_as_exact_as_they_say(
        samples in prop::collection::vec(prop_oneof![0..300u64, 0..10_000_000_000u64, 1_000_000..1_010_000u64], 1..400),
        fence in prop_oneof![0..300u64, 0..10_000_000_000u64, 1_000_000..1_010_000u64],
    ) {
        let mut all = Distribution::default();
        samples.iter().for_each(|&ns| all.record(ns));
        let median = all.quantile(5_000);
        let mut distances: Vec<u64> = samples.iter().map(|ns| ns.abs_diff(median)).collect();
        distances.sort_unstable();
        let (told, truth) = (all.mad(median), distances[distances.len().div_ceil(2) - 1]);
        let (count, total) = all.beyond(fence);
        let beyond = |fence: u64| {
            let beyond: Vec<u64> = samples.iter().copied().filter(|&ns| ns > fence).collect();
            (beyond.len() as u64, beyond.iter().sum::<u64>())
        };
        let least = beyond(fence);
        if samples.len() <= 128 {
            prop_assert_eq!((told, (count, total)), (truth, least));
        }
        prop_assert!(told.abs_diff(truth) <= (median + truth) / 64, "{told}, in truth {truth}, around {median}");
        // A sample that is told to be longer may lie before the fence by 1/128 of itself.
        let most = beyond(fence - fence / 128 - u64::from(fence > 0 && fence % 128 > 0));
        prop_assert!(least.0 <= count && count <= most.0, "{least:?} <= {count} <= {most:?}");
        prop_assert!(least.1 <= total && total <= most.1 + most.1 / 128 && total <= all.total_ns());
    }
}
