use std::collections::BTreeMap;

use super::bootstrap::{MAX_BLOCKS, student_to_normal};
use super::profile::{FIRST_SLICE_NS, MAX_SLICES, Slices, bucket, highest_ns, join};
use super::*;
use crate::analysis::question::About;
use crate::analysis::tests::{S, Stream, stream, task};
use crate::analysis::{Sched, Study, run};
use crate::event::{Batch, Kind, Nanos};
use crate::source::MemorySource;

/// Fewer draws than outside tests: their lowest and highest are the interval.
const DRAWS: usize = 1_000;

fn profile(stream: Stream) -> Answered<ProfileAnswer> {
    let until = stream.meta.ended.unwrap_or_default();
    let mut source = MemorySource::new(stream.meta, [Batch { until, ..stream.batch }]);
    run(&mut source, Study::<Profile>::new(stream.options)).unwrap()
}

fn of_slices(slices: Vec<WindowSlice>) -> Answered<ProfileAnswer> {
    let total = join(&slices, slices.len()).pop().unwrap_or_default();
    let window = Window::new(Nanos(7), Nanos(7 + total.duration_ns));
    let events = BTreeMap::from([(Kind::Switch, total.switches.max(1))]);
    let answer = ProfileAnswer { slice_ns: FIRST_SLICE_NS, total, slices, ..ProfileAnswer::default() };
    Answered { about: About { window, events, completeness: Completeness::default() }, answer }
}

impl Random {
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A slice with these waits.
fn with_waits(waits: impl IntoIterator<Item = u64>) -> WindowSlice {
    let mut slices = Slices::new(Nanos(1));
    waits.into_iter().for_each(|ns| slices.sample(Nanos(1), ns));
    WindowSlice { duration_ns: FIRST_SLICE_NS, ..slices.list.pop().unwrap_or_default() }
}

/// A load that comes in waves: how many waits there are, and how long they are, is alike in slices that follow one
/// another.
fn load(random: &mut Random, slices: usize, waits: f64, mean_ns: f64) -> Answered<ProfileAnswer> {
    let mut wave = 1.0;
    let slice = |_| {
        wave = 0.5 * wave + 0.5 * (0.5 + random.unit());
        let n = (waits * (wave + random.unit() - 0.5)).round() as u64;
        let slice = with_waits((0..n).map(|_| (-(-random.unit()).ln_1p() * mean_ns * wave) as u64));
        let busy = (wave * 0.5 * FIRST_SLICE_NS as f64) as u64;
        WindowSlice {
            wait_ns: slice.sampled_ns,
            switches: n + random.below(20) as u64,
            involuntary: n / 3,
            wakeups: n - n / 3,
            migrations: random.below(10) as u64,
            busy_ns: busy,
            idle_ns: FIRST_SLICE_NS - busy,
            ..slice
        }
    };
    of_slices((0..slices).map(slice).collect())
}

impl Comparison {
    fn metric(&self, name: &str) -> &MetricChange {
        self.metrics.iter().find(|metric| metric.name == name).unwrap()
    }

    fn claims(&self) -> usize {
        use Verdict::{Better, Higher, Lower, Worse};
        self.metrics.iter().filter(|metric| matches!(metric.verdict, Better | Worse | Higher | Lower)).count()
    }

    fn is_sound(&self) -> bool {
        let ends = |metric: &MetricChange| metric.interval.map(|interval| [interval.low, interval.high]);
        let numbers = self.metrics.iter().flat_map(|metric| {
            let ends = ends(metric).into_iter().flatten();
            [metric.a, metric.b, metric.change, metric.change_ratio].into_iter().flatten().chain(ends)
        });
        let tasks = self.tasks_grew.iter().chain(&self.tasks_shrank);
        let mut rates = tasks.flat_map(|task| [task.a_wait_ns_per_second, task.b_wait_ns_per_second]);
        numbers.into_iter().all(f64::is_finite) && rates.all(f64::is_finite) && serde_json::to_string(self).is_ok()
    }
}

/// In `[1_000, 2_000)` on CPU 0: 1 waits 200 ns and is waiting at the end since 500 ns, 2 waits 100 ns.
fn on_paper() -> Stream {
    stream()
        .tasks(&[task(1, 11, 11, "make"), task(2, 12, 12, "cc")])
        .preempt(1_100, 0, 1, 2)
        .switch(1_300, 0, 2, S, 1)
        .waking(1_400, 0, 1, 2, 0)
        .preempt(1_500, 0, 1, 2)
}

#[test]
fn a_stream_on_paper() {
    let profile = profile(on_paper());
    let answer = &profile.answer;
    assert_eq!((answer.slices.len(), answer.total.duration_ns), (1, 1_000));
    assert_eq!((answer.censored.waits, answer.censored.wait_ns), (1, 500));
    let uses: Vec<_> = answer.names.iter().map(|row| (row.comm.to_string(), row.used)).collect();
    let used = |waits, wait_ns, cpu_ns| NameUse { tasks: 1, waits, wait_ns, cpu_ns };
    assert_eq!(uses, [("cc".to_owned(), used(1, 100, 700)), ("make".to_owned(), used(1, 700, 300))]);

    let comparison = compare_with(&profile, &profile, DRAWS);
    let values: Vec<_> = comparison.metrics.iter().map(|metric| (metric.name, metric.a.unwrap())).collect();
    let per_us = |n: f64| n * 1e6;
    let expected = [
        ("wait_p50_ns", 100.0),
        ("wait_p90_ns", 200.0),
        ("wait_p99_ns", 200.0),
        ("wait_p99_9_ns", 200.0),
        ("wait_mean_ns", 150.0),
        ("wait_max_ns", 200.0),
        ("waits_per_second", per_us(2.0)),
        ("wait_ns_per_second", per_us(800.0)),
        ("switches_per_second", per_us(3.0)),
        ("involuntary_switches_per_second", per_us(2.0)),
        ("wakeups_per_second", per_us(1.0)),
        ("migrations_per_second", 0.0),
        ("cpu_utilisation_ratio", 1.0),
    ];
    for ((name, value), (expected_name, expected)) in values.into_iter().zip(expected) {
        assert_eq!(name, expected_name);
        assert!((value - expected).abs() <= expected * 1e-9, "{name}: {value}");
    }
    assert!(comparison.is_sound());
    let refused = |metric: &MetricChange| matches!(metric.verdict, Verdict::TooFewSamples | Verdict::NotComparable);
    assert!(comparison.metrics.iter().all(refused));
}

#[test]
fn who_waited_longer_is_named() {
    let quiet = stream().tasks(&[task(5, 21, 21, "make"), task(6, 22, 22, "ld")]).preempt(1_990, 0, 6, 5);
    let comparison = compare_with(&profile(quiet), &profile(on_paper()), DRAWS);
    let names = |changes: &[TaskChange]| changes.iter().map(|task| task.comm.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&comparison.tasks_grew), ["make", "cc"]);
    assert_eq!(names(&comparison.tasks_shrank), ["ld"]);
    let (make, ld) = (&comparison.tasks_grew[0], &comparison.tasks_shrank[0]);
    assert!((make.growth_ns_per_second - 7e8).abs() < 1.0, "{make:?}");
    assert!((ld.growth_ns_per_second + 1e7).abs() < 1.0, "{ld:?}");
}

#[test]
fn nothing_changes_from_a_to_a() {
    let a = load(&mut Random(1), 128, 200.0, 50_000.0);
    let comparison = compare_with(&a, &a, DRAWS);
    for metric in comparison.metrics.iter().filter(|metric| metric.name != "wait_max_ns") {
        assert_eq!((metric.change, metric.verdict), (Some(0.0), Verdict::NoDifferenceShown), "{metric:?}");
        let interval = metric.interval.unwrap();
        assert!(interval.low <= 0.0 && interval.high >= 0.0, "{metric:?}");
    }
    assert_eq!(comparison.metric("wait_max_ns").verdict, Verdict::NotComparable);
    assert_eq!(comparison, compare_with(&a, &a, DRAWS), "the same answer each time");
}

#[test]
fn chance_is_hardly_ever_taken_for_a_difference() {
    let mut random = Random(2);
    let claims = |slices, waits, random: &mut Random| -> usize {
        let (a, b) = (load(random, slices, waits, 50_000.0), load(random, slices, waits, 50_000.0));
        compare_with(&a, &b, DRAWS).claims()
    };
    // In blocks of two slices, in as few blocks as are enough, and in between.
    let many: usize = (0..40).map(|_| claims(128, 100.0, &mut random)).sum();
    let some: usize = (0..60).map(|_| claims(40, 60.0, &mut random)).sum();
    let few: usize = (0..100).map(|_| claims(16, 60.0, &mut random)).sum();
    println!("claims that are wrong: {many} of 40, {some} of 60, {few} of 100");
    assert!(many + some + few <= 5, "{many} {some} {few}");
}

#[test]
fn a_real_shift_is_claimed() {
    let mut random = Random(3);
    let (a, b) = (load(&mut random, 256, 200.0, 50_000.0), load(&mut random, 256, 200.0, 65_000.0));
    let there = compare_with(&a, &b, DRAWS);
    let back = compare_with(&b, &a, DRAWS);
    for name in ["wait_p50_ns", "wait_p90_ns", "wait_mean_ns"] {
        assert_eq!(
            (there.metric(name).verdict, back.metric(name).verdict),
            (Verdict::Worse, Verdict::Better),
            "{name}"
        );
        let change_ratio = there.metric(name).change_ratio.unwrap();
        assert!((0.15..0.45).contains(&change_ratio), "{name}: {change_ratio}");
        let (there, back) = (there.metric(name).interval.unwrap(), back.metric(name).interval.unwrap());
        assert!(there.low > 0.0 && back.high < 0.0);
    }
    let twice = |slice: &WindowSlice| WindowSlice { migrations: slice.migrations * 2 + 1, ..slice.clone() };
    let moved = of_slices(a.answer.slices.iter().map(twice).collect());
    assert_eq!(compare_with(&a, &moved, DRAWS).metric("migrations_per_second").verdict, Verdict::Higher);
    assert_eq!(compare_with(&moved, &a, DRAWS).metric("migrations_per_second").verdict, Verdict::Lower);

    // 20 samples on one side are too few, however far apart.
    let few = of_slices((0..20).map(|_| with_waits([1_000_000_000])).collect());
    let wait = |name| compare_with(&a, &few, DRAWS).metric(name).verdict;
    assert_eq!(wait("wait_p50_ns"), Verdict::Worse, "10 of 20 are beyond the median");
    assert_eq!(wait("wait_p90_ns"), Verdict::TooFewSamples);
    let fewer = of_slices((0..10).map(|_| with_waits([1_000_000_000, 1_000_000_000])).collect());
    assert_eq!(compare_with(&a, &fewer, DRAWS).metric("wait_p50_ns").verdict, Verdict::TooFewSamples, "10 blocks");
}

#[test]
fn what_is_missing_forbids_a_verdict() {
    let mut random = Random(4);
    let (a, b) = (load(&mut random, 64, 100.0, 50_000.0), load(&mut random, 64, 100.0, 90_000.0));
    let mut lossy = b.clone();
    lossy.about.completeness.lost_total = b.answer.total.switches / 50;
    let comparison = compare_with(&a, &lossy, DRAWS);
    let lost = |metric: &&MetricChange| metric.verdict == Verdict::LossTooLarge;
    assert_eq!(comparison.metrics.iter().filter(lost).count(), TESTED);

    let mut doubtful = b.clone();
    doubtful.answer.in_loss.waits = b.answer.total.waits / 50;
    let comparison = compare_with(&doubtful, &a, DRAWS);
    assert_eq!(comparison.metric("wait_p50_ns").verdict, Verdict::LossTooLarge);
    assert_ne!(comparison.metric("switches_per_second").verdict, Verdict::LossTooLarge);
}

#[test]
fn joining_slices_keeps_all_sums() {
    let mut random = Random(5);
    for _ in 0..50 {
        let mut slices = Slices::new(Nanos(500));
        slices.begin(Nanos(20));
        let (mut waits, mut sampled_ns, mut wait_ns, mut longest) = (0, 0, 0, 0);
        let reach = 1 << (15 + random.below(30));
        for _ in 0..200 {
            let from = 500 + random.below(reach) as u64;
            let ns = random.below(reach) as u64;
            slices.sample(Nanos(from + ns), ns);
            slices.spread(Nanos(from), Nanos(from + ns), |slice| &mut slice.wait_ns);
            (waits, sampled_ns, wait_ns, longest) = (waits + 1, sampled_ns + ns, wait_ns + ns, ns.max(longest));
            assert!(slices.list.len() <= MAX_SLICES);
        }
        let until = 500 + 2 * reach as u64;
        let (slice_ns, list) = slices.of(&Window::new(Nanos(500), Nanos(until)));
        assert!(list.iter().all(|slice| (1..=slice_ns).contains(&slice.duration_ns)));
        let blocks = Blocks::new(&list);
        assert!(blocks.list.len() <= MAX_BLOCKS);
        for list in [&list, &blocks.list] {
            let total = join(list, list.len()).pop().unwrap();
            assert_eq!((total.waits, total.sampled_ns, total.max_ns), (waits, sampled_ns, longest));
            assert_eq!((total.wait_ns, total.duration_ns), (wait_ns, until - 500));
            assert_eq!(total.wait_buckets.iter().map(|(_, n)| n).sum::<u64>(), waits);
        }
    }
}

#[test]
fn a_long_stream_adds_up_to_what_the_standard_study_says() {
    let made = |mut random: Random| {
        let mut stream = stream().tasks(&[task(1, 11, 11, "a"), task(2, 12, 12, "b")]).cpus(&[0, 1]);
        stream.meta.ended = Some(Nanos(700_000_000));
        let (mut at, mut on) = (1_000, 1);
        while at < 690_000_000 {
            stream = stream.preempt(at, 0, on, 3 - on);
            on = 3 - on;
            at += 1 + random.below(3_000_000) as u64;
        }
        stream
    };
    let profile = profile(made(Random(6)));
    let stream = made(Random(6));
    let batch = Batch { until: Nanos(700_000_000), ..stream.batch };
    let report = run(&mut MemorySource::new(stream.meta, [batch]), Sched::new(stream.options)).unwrap();
    let (total, waits) = (&profile.answer.total, &report.run_queue.total.wait);
    assert!(profile.answer.slices.len() > 64 && profile.answer.slice_ns == 4 * FIRST_SLICE_NS);
    assert_eq!((total.waits, total.sampled_ns, total.max_ns), (waits.count, waits.total_ns, waits.max_ns));
    assert_eq!(
        (total.switches, total.involuntary),
        (report.switches.total.switches, report.switches.total.involuntary)
    );
    assert_eq!((total.busy_ns, total.idle_ns), (report.cpu_time.total.busy_ns, report.cpu_time.total.idle_ns));
    assert_eq!(total.wait_ns, waits.total_ns + profile.answer.censored.wait_ns);
    assert_eq!(total.duration_ns, report.window.duration_ns.0);
    let comparison = compare_with(&profile, &profile, DRAWS);
    assert_eq!(comparison.metric("wait_p90_ns").a, Some(waits.p90_ns as f64), "the same buckets");
}

#[test]
fn buckets_cover_all_waits() {
    let mut random = Random(7);
    let waits = (0..5_000).map(|_| random.next() >> random.below(64)).chain([0, 255, 256, 511, 512, u64::MAX]);
    for ns in waits.collect::<Vec<_>>() {
        let highest = highest_ns(bucket(ns));
        assert!(highest >= ns && highest - ns <= ns / 128, "{ns}: {highest}");
        assert!(highest == u64::MAX || bucket(highest + 1) == bucket(ns) + 1, "{ns}");
    }
}

#[test]
fn strange_windows_give_no_strange_numbers() {
    let empty = of_slices(Vec::new());
    let no_time = profile({
        let mut stream = on_paper();
        stream.options.until = Some(Nanos(1_000));
        stream
    });
    let endless = profile(on_paper().preempt(u64::MAX - 1, 0, 2, 1).switch(u64::MAX - 1, 0, 1, S, 2));
    let timeless = of_slices(vec![WindowSlice { duration_ns: 0, ..with_waits([1, u64::MAX, u64::MAX]) }; 40]);
    let full = load(&mut Random(8), 64, 50.0, 1e6);
    let mut unstarted = on_paper();
    (unstarted.meta.started, unstarted.meta.ended) = (Nanos(0), None);
    let strange = [empty, no_time, endless, timeless, full, profile(unstarted)];
    for (a, b) in strange.iter().flat_map(|a| strange.iter().map(move |b| (a, b))) {
        let comparison = compare_with(a, b, 100);
        assert!(comparison.is_sound(), "{comparison:?}");
        assert_eq!(comparison.metrics.len(), METRICS.len());
    }
}

#[test]
fn the_constants_are_what_they_say() {
    // The tail beyond the quantile, by Simpson's rule.
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let (steps, end) = (10_000, 12.0);
    let step = (end - NORMAL_QUANTILE) / f64::from(steps);
    let weight = |n| if n == 0 || n == steps { 1.0 } else { f64::from(2 + 2 * (n % 2)) };
    let tail =
        (0..=steps).map(|n| weight(n) * density(NORMAL_QUANTILE + step * f64::from(n))).sum::<f64>() * step / 3.0;
    assert!((tail / TAIL_RATIO - 1.0).abs() < 1e-6, "{tail} {TAIL_RATIO}");
    // From tables of Student's t: at 0.9995, 15 degrees of freedom have 4.073, 60 have 3.460. The normal distribution
    // has 3.291.
    for (degrees, t) in [(15.0, 4.073), (60.0, 3.460)] {
        assert!((student_to_normal(3.290_5, degrees) * 3.290_5 - t).abs() < 0.02);
    }
}
