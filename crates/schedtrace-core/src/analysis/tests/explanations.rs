//! What holds for the explanation of every schedule, and of every nonsense.

use super::properties::{kind, nonsense};
use super::simulator::{simulate, steps};
use super::*;
use crate::analysis::explain::tests::check;
use proptest::prelude::*;

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![Just(Subject::Last), (0..9u32).prop_map(Subject::Thread), (0..4u32).prop_map(Subject::Process),]
}

/// Threads 1, 2, 3 ... of processes 0, 1, 2 and 3.
fn tasks() -> Vec<Task> {
    (1..40).map(|id| task(id, id, id % 4, "task")).collect()
}

fn beside() -> impl Strategy<Value = EventKind> {
    let id = || (0..6u32).prop_map(TaskId);
    let ns = || prop_oneof![4 => (0..500u64).prop_map(Nanos), 1 => any::<u64>().prop_map(Nanos)];
    let vector = || (0..3u8).prop_map(Softirq);
    prop_oneof![
        (id(), 0..3u64, ns(), any::<i32>()).prop_map(|(task, address, duration_ns, result)| {
            FutexWait { task, address: Address(address), duration_ns, result }.into()
        }),
        (id(), 0..3u32, ns()).prop_map(|(task, device, latency_ns)| {
            let (device, operation) = (NameId(device), BlockOp(0));
            BlockComplete { task, device, size_bytes: 4096, operation, status: 0, latency_ns }.into()
        }),
        (0..3u32).prop_map(|irq| IrqEntry { irq, action: NameId(irq) }.into()),
        (0..3u32).prop_map(|irq| IrqExit { irq, handled: true }.into()),
        vector().prop_map(|vector| SoftirqEntry { vector }.into()),
        vector().prop_map(|vector| SoftirqExit { vector }.into()),
    ]
}

fn explained(meta: Meta, batches: Vec<Batch>, subject: Subject, options: Options) -> Explained {
    run(&mut MemorySource::new(meta, batches), Explain::study(subject, options)).unwrap()
}

proptest! {
    #[test]
    fn explanations_are_partitions(
        steps in steps(200),
        subject in subject(),
        beside in prop::collection::vec((0..4_000u64, 0..4usize, beside()), 0..40),
        from in prop::option::of(900..3_000u64),
        length in prop::option::of(0..2_000u64),
        missing in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let sim = simulate(&steps);
        let mut events = sim.stream.batch.events.clone();
        let until = sim.stream.meta.ended.unwrap();
        for (ts, cpu, kind) in beside {
            events.push(Event { ts: Nanos(1_000 + ts).min(until), cpu: Cpu([0, 1, 7, 300][cpu]), kind });
        }
        events.sort_by_key(|event| event.ts);
        for missing in missing {
            events.remove(missing.index(events.len()));
            if events.is_empty() {
                return Ok(());
            }
        }
        let from = from.map(Nanos);
        let ends = length.map(|length| from.unwrap_or(Nanos(1_000)) + Nanos(length));
        let options = Options { from, until: ends, ..Options::default() };
        let batch = Batch { until, events, tasks: tasks(), ..Batch::default() };
        check(&explained(sim.stream.meta.clone(), vec![batch], subject, options));
    }

    #[test]
    fn what_is_known_of_a_schedule_is_explained(steps in steps(200), id in 1..7u32) {
        let sim = simulate(&steps);
        let batch = Batch { until: sim.stream.meta.ended.unwrap(), tasks: tasks(), ..sim.stream.batch };
        let report = explained(sim.stream.meta, vec![batch], Subject::Thread(id), Options::default());
        check(&report);
        let total = |mechanisms: &[Mechanism]| -> u64 {
            let steps = report.answer.steps.iter().filter(|step| mechanisms.contains(&step.mechanism));
            steps.map(|step| step.total_ns).sum()
        };
        let truth = &sim.truth;
        prop_assert_eq!(total(&[Mechanism::Running]), truth.ran.get(&id).copied().unwrap_or_default());
        let waits = [truth.waited.get(&id), truth.censored.get(&id)].into_iter().flatten();
        let waits = waits.map(|(_, ns)| ns).sum::<u64>();
        prop_assert_eq!(total(&[Mechanism::RunQueue, Mechanism::Preempted]), waits);
        // Who slept all the time was not seen.
        prop_assert!(report.answer.subject.is_none() || report.answer.unexplained_ns == 0, "{:#?}", report.answer.steps);
    }

    #[test]
    fn nonsense_is_explained_without_harm(
        events in nonsense(),
        more in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..3_000u64, 0..3u16, prop_oneof![kind(), beside()]),
            0..60,
        ),
        subject in subject(),
        from in prop::option::of(0..3_000u64),
        started in prop_oneof![Just(0u64), 0..2_000u64],
    ) {
        let mut events = events;
        for (place, ts, cpu, kind) in more {
            let at = place.index(events.len() + 1);
            events.insert(at, Event { ts: Nanos(ts), cpu: Cpu(cpu), kind });
        }
        let mut study = Explain::study(subject, Options { from: from.map(Nanos), ..Options::default() });
        study.begin(&Meta { started: Nanos(started), ..Meta::default() });
        for part in events.chunks(70) {
            study.update(&Batch { events: part.to_vec(), tasks: tasks(), ..Batch::default() });
            check(&study.report());
        }
    }
}
