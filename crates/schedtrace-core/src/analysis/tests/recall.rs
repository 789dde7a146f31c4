//! What a trace says its tasks were doing when a segment began takes the place of everything before it.

use proptest::prelude::*;

use super::properties::{of_some_length, told as summed};
use super::simulator::{simulate, steps};
use super::*;
use crate::analysis::{Explain, Mechanism, Subject};
use crate::known::Statuses;

/// The reports of what follows a moment: by those who saw everything, and by those who were told at that moment.
fn both<A: Analysis>(stream: Stream, at: Nanos, study: impl Fn(Options) -> A) -> [A::Report; 2] {
    let options = Options { from: Some(at), ..stream.options.clone() };
    let before = stream.batch.events.partition_point(|event| event.ts < at);
    let mut statuses = Statuses::default();
    stream.batch.events[..before].iter().for_each(|event| statuses.event(event));
    let told = Batch { until: at, statuses: statuses.carry(), ..Batch::default() };
    let rest = Batch {
        until: stream.meta.ended.unwrap_or_default(),
        events: stream.batch.events[before..].to_vec(),
        ..Batch::default()
    };
    let all = Batch { until: rest.until, ..stream.batch.clone() };
    [vec![all], vec![told, rest]].map(|batches| {
        let mut study = study(options.clone());
        study.begin(&stream.meta);
        batches.iter().for_each(|batch| study.update(batch));
        study.finish(&stream.meta);
        study.report()
    })
}

#[test]
fn a_long_sleep_is_known_from_before() {
    let stream = || stream().cpus(&[0]).switch(1_100, 0, 1, S, 2).waking(1_900, 0, 2, 1, 0).preempt(1_950, 0, 2, 1);
    let [seen, told] = both(stream(), Nanos(1_500), |options| Explain::study(Subject::Last, options));
    let step = &told.answer.steps[0];
    assert_eq!(told.answer.subject.as_ref().map(|who| who.task), Some(TaskId(1)), "task 1 runs last");
    assert_eq!((step.mechanism, step.total_ns), (Mechanism::Blocked, 400));
    assert_eq!(seen.answer, told.answer);
}

#[test]
fn a_cpu_that_went_off_line_before_is_not_busy() {
    let [seen, told] = both(super::rules::unplugged(stream().cpus(&[0, 7])), Nanos(1_500), Sched::new);
    let unknown = |report: &Report| {
        report.cpu_time.cpus.iter().find(|row| row.cpu == Cpu(7)).map(|row| (row.used.unknown_ns, row.used.busy_ns))
    };
    assert_eq!((unknown(&seen), unknown(&told)), (Some((500, 0)), Some((500, 0))));
}

proptest! {
    #[test]
    fn whoever_is_told_knows_as_much_as_who_saw_it(steps in steps(150), part in 0.0..1.0f64) {
        let sim = simulate(&steps);
        let ended = sim.stream.meta.ended.unwrap_or_default();
        let at = Nanos(1_000 + ((ended - Nanos(1_000)).0 as f64 * part) as u64);
        let [seen, told] = both(sim.stream, at, Sched::new);
        // Rows of equal length stand in any order.
        prop_assert_eq!(of_some_length(summed(&seen)), of_some_length(summed(&told)));
        let sim = simulate(&steps);
        let [seen, told] = both(sim.stream, at, |options| Explain::study(Subject::Last, options));
        prop_assert_eq!(seen.answer.steps, told.answer.steps);
    }
}
