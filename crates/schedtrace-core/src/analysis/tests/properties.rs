//! What holds for every schedule, and for every nonsense.

use std::collections::BTreeMap;

use super::simulator::{Truth, simulate, steps};
use super::*;
use crate::analysis::states::{Observer, Ran, Seen, Span, States, Waited};
use proptest::prelude::*;

/// What a report says, in the words of the simulator.
pub(super) fn told(report: &Report) -> Truth {
    let id = |group: &Group| match group {
        Group::Task(who) => who.task.0,
        other => panic!("{other} is no task"),
    };
    let mut truth = Truth { switches: report.switches.total.switches, ..Truth::default() };
    for row in &report.cpu_time.groups {
        truth.ran.insert(id(&row.group), row.cpu_time_ns);
    }
    for row in &report.cpu_time.cpus {
        truth.idle.insert(row.cpu.0, row.used.idle_ns);
    }
    for row in &report.run_queue.groups {
        let (wait, cut) = (&row.stats.wait, &row.stats.censored);
        if wait.count > 0 {
            truth.waited.insert(id(&row.group), (wait.count, wait.total_ns));
        }
        if cut.waits > 0 {
            truth.censored.insert(id(&row.group), (cut.waits, cut.wait_ns));
        }
    }
    for row in &report.holders.groups {
        let waited = id(&row.group);
        for holder in &row.held_by.holders {
            truth.behind.insert((waited, id(&holder.group)), holder.held_ns);
        }
        if row.held_by.idle_ns > 0 {
            truth.behind.insert((waited, IDLE), row.held_by.idle_ns);
        }
    }
    truth
}

/// Without what a report does not name: groups that waited for no time at all.
pub(super) fn of_some_length(mut truth: Truth) -> Truth {
    let named: Vec<u32> =
        truth.waited.iter().chain(&truth.censored).filter(|(_, w)| w.1 > 0).map(|(&t, _)| t).collect();
    truth.waited.retain(|task, _| named.contains(task));
    truth.censored.retain(|task, _| named.contains(task));
    for cpu in [0, 1, 7, 300] {
        truth.idle.entry(cpu).or_default();
    }
    truth
}

/// Behind whom all waited.
fn all_behind(report: &Report) -> BTreeMap<u32, u64> {
    let held = &report.holders.total;
    let holders = held.holders.iter().map(|holder| match &holder.group {
        Group::Task(who) => (who.task.0, holder.held_ns),
        other => panic!("{other} is no task"),
    });
    holders.chain((held.idle_ns > 0).then_some((IDLE, held.idle_ns))).collect()
}

fn by_holder(truth: &Truth) -> BTreeMap<u32, u64> {
    let mut all = BTreeMap::new();
    for (&(_, holder), ns) in &truth.behind {
        *all.entry(holder).or_default() += ns;
    }
    all
}

/// Collects all intervals.
#[derive(Default)]
struct Intervals {
    ran: BTreeMap<u32, Vec<(u64, u64)>>,
    waited: BTreeMap<u32, Vec<(u64, u64)>>,
    cpus: BTreeMap<u16, Vec<(u64, u64)>>,
}

impl Intervals {
    fn cpu(&mut self, span: &Span) {
        self.cpus.entry(span.cpu.cpu.0).or_default().push((span.from.0, span.until.0));
    }
}

impl Observer for Intervals {
    fn ran(&mut self, ran: &Ran, _: &Seen<'_>) {
        self.cpu(&ran.span);
        self.ran.entry(ran.task.id.0).or_default().push((ran.span.from.0, ran.span.until.0));
    }
    fn idled(&mut self, span: &Span, _: &Seen<'_>) {
        self.cpu(span);
    }
    fn unseen(&mut self, span: &Span, _: &Seen<'_>) {
        self.cpu(span);
    }
    fn waited(&mut self, wait: &Waited<'_>, _: &Seen<'_>) {
        self.waited.entry(wait.task.id.0).or_default().push((wait.from.0, wait.until.0));
        assert_eq!(wait.segments.first().map(|segment| segment.from), Some(wait.from));
        assert_eq!(wait.segments.last().map(|segment| segment.until), Some(wait.until));
        assert!(wait.segments.windows(2).all(|pair| pair[0].until == pair[1].from), "segments have no gaps");
    }
}

/// That CPUs' intervals follow one another without gaps, and that no task is in two places, or waits while it runs.
fn check_intervals(meta: &Meta, events: &[Event]) -> Result<(), TestCaseError> {
    let (mut states, mut all) = (States::default(), Intervals::default());
    states.begin(meta);
    for event in events {
        states.event(event, &mut all);
    }
    states.open(&mut all);
    let (started, now) = (states.started().unwrap_or_default().0, states.now().0);
    for (cpu, spans) in &all.cpus {
        let mut at = started;
        for &(from, until) in spans {
            prop_assert!(from == at && until >= from, "CPU {cpu}: {from}..{until} follows {at}");
            at = until;
        }
        prop_assert_eq!(at, now, "CPU {} is told of until the end", cpu);
    }
    for (task, waits) in &all.waited {
        let ran = all.ran.get(task).cloned().unwrap_or_default();
        let mut both: Vec<_> = waits.iter().chain(&ran).filter(|span| span.0 < span.1).collect();
        both.sort_unstable();
        prop_assert!(both.windows(2).all(|pair| pair[0].1 <= pair[1].0), "task {task}: {waits:?} and {ran:?} overlap");
    }
    for (task, ran) in &mut all.ran {
        ran.retain(|span| span.0 < span.1);
        ran.sort_unstable();
        prop_assert!(ran.windows(2).all(|pair| pair[0].1 <= pair[1].0), "task {task} is in two places: {ran:?}");
    }
    Ok(())
}

/// That every nanosecond of every CPU and of every wait is told of once.
fn check_sums(report: &Report) -> Result<(), TestCaseError> {
    for row in &report.cpu_time.cpus {
        let used = &row.used;
        let all = u128::from(used.busy_ns) + u128::from(used.idle_ns) + u128::from(used.unknown_ns);
        prop_assert_eq!(all, u128::from(report.window.duration_ns.0), "CPU {}", row.cpu);
    }
    let tasks: u64 = report.cpu_time.groups.iter().map(|row| row.cpu_time_ns).sum();
    prop_assert_eq!(tasks, report.cpu_time.total.busy_ns);
    let held = report.holders.groups.iter().map(|row| &row.held_by).chain([&report.holders.total]);
    for held in held {
        let parts: u64 = held.holders.iter().map(|holder| holder.held_ns).sum();
        prop_assert_eq!(parts + held.others_ns + held.idle_ns + held.unknown_ns, held.wait_ns);
    }
    let stats = &report.run_queue.total;
    prop_assert_eq!(report.holders.total.wait_ns, stats.wait.total_ns + stats.censored.wait_ns);
    prop_assert_eq!(report.holders.total.waits, stats.wait.count + stats.censored.waits);
    prop_assert_eq!(report.run_queue.causes.iter().map(|row| row.wait.count).sum::<u64>(), stats.wait.count);
    Ok(())
}

pub(super) fn kind() -> impl Strategy<Value = EventKind> {
    let id = || {
        prop_oneof![
            8 => (0..6u32).prop_map(TaskId),
            2 => (0..3u16).prop_map(|cpu| TaskId::idle(Cpu(cpu))),
            1 => any::<u32>().prop_map(TaskId),
        ]
    };
    let cpu = || prop_oneof![8 => (0..3u16).prop_map(Cpu), 1 => any::<u16>().prop_map(Cpu)];
    let context = prop_oneof![Just(Context::Task), Just(Context::Softirq), Just(Context::Hardirq), Just(Context::Nmi)];
    let state = prop_oneof![Just(R), Just(S), Just(X), any::<u16>().prop_map(TaskState)];
    prop_oneof![
        6 => (id(), id(), state, any::<bool>()).prop_map(|(prev, next, prev_state, preempted)| {
            EventKind::Switch(Switch { prev, next, prev_state, preempted, prev_prio: 120, next_prio: 120 })
        }),
        4 => (id(), id(), context, cpu(), any::<bool>()).prop_map(|(task, current, context, prev_cpu, on_cpu)| {
            EventKind::Waking(Waking { task, current, context, prev_cpu, on_cpu, prio: 120 })
        }),
        1 => (id(), id(), cpu()).prop_map(|(task, parent, target_cpu)| {
            EventKind::WakeupNew(WakeupNew { task, parent, target_cpu, prio: 120 })
        }),
        2 => (id(), cpu(), cpu(), any::<bool>()).prop_map(|(task, from, to, placed)| EventKind::Migrate(Migrate { task, from, to, placed, prio: 120 })),
        1 => (id(), any::<bool>()).prop_map(|(task, running)| EventKind::Snapshot(Snapshot { task, running })),
        1 => (id(), id()).prop_map(|(parent, child)| EventKind::Fork(Fork { parent, child })),
        1 => (id(), any::<u32>()).prop_map(|(task, old_tid)| EventKind::Exec(Exec { task, old_tid })),
        1 => (id(), any::<bool>()).prop_map(|(task, group_dead)| EventKind::Exit(Exit { task, group_dead })),
        1 => id().prop_map(|task| EventKind::Free { task }),
        1 => id().prop_map(|task| EventKind::Rename { task }),
    ]
}

pub(super) fn nonsense() -> impl Strategy<Value = Vec<Event>> {
    let ts = prop_oneof![20 => 0..3_000u64, 1 => any::<u64>()];
    let cpu = prop_oneof![8 => 0..3u16, 1 => any::<u16>()];
    let event = (ts, cpu, kind()).prop_map(|(ts, cpu, kind)| Event { ts: Nanos(ts), cpu: Cpu(cpu), kind });
    prop::collection::vec(event, 0..200)
}

fn identities() -> impl Strategy<Value = Vec<Task>> {
    let one = (0..8u32, 0..5u32, 0..5u32, 0..5u32, 0..3u64, any::<bool>(), any::<[u8; 16]>());
    let one = one.prop_map(|(id, tid, tgid, ppid, start, recorder, comm)| Task {
        ppid,
        start: Nanos(start),
        recorder,
        comm: Comm::from_bytes(comm),
        ..task(id, tid, tgid, "")
    });
    prop::collection::vec(one, 0..20)
}

/// The reports of a window: by questions that are told only of what touches it, and by those that are told of everything.
fn told_less_and_all(meta: &Meta, batches: &[Batch], options: &Options) -> [Report; 2] {
    let told_from = [options.from.unwrap_or_default(), Nanos::ZERO];
    told_from.map(|told_from| {
        let mut sched = Sched::new(options.clone());
        sched.begin(meta);
        batches.iter().for_each(|batch| sched.take(batch, told_from));
        sched.finish(meta);
        sched.report()
    })
}

/// In batches of so many.
fn in_batches(events: &[Event], size: usize) -> Vec<Batch> {
    let until = |part: &[Event]| part.iter().map(|event| event.ts).max().unwrap_or_default();
    events.chunks(size).map(|part| Batch { until: until(part), events: part.to_vec(), ..Batch::default() }).collect()
}

proptest! {
    #[test]
    fn what_is_over_before_a_window_changes_nothing(
        steps in steps(150), from in 0.0..1.0f64, length in 0.0..1.0f64, size in 1..60usize, by in 0..GroupBy::ALL.len(),
    ) {
        let stream = simulate(&steps).stream;
        let (started, ended) = (Nanos(1_000), stream.meta.ended.unwrap_or_default());
        let part = |of: f64| Nanos(((ended - started).0 as f64 * of) as u64);
        let until = started + part(from) + part(length);
        let options = Options { by: GroupBy::ALL[by], from: Some(started + part(from)), until: Some(until), ..stream.options };
        let first = Batch { events: Vec::new(), until: started, ..stream.batch.clone() };
        let batches: Vec<_> = [first].into_iter().chain(in_batches(&stream.batch.events, size)).collect();
        let [less, all] = told_less_and_all(&stream.meta, &batches, &options);
        prop_assert_eq!(less, all);
    }

    #[test]
    fn nor_does_it_in_nonsense(events in nonsense(), from in any::<prop::sample::Index>(), size in 1..60usize) {
        let at = events.get(from.index(events.len().max(1))).map_or(Nanos::ZERO, |event| event.ts);
        let options = Options { from: Some(at), ..Options::default() };
        let [less, all] = told_less_and_all(&Meta::default(), &in_batches(&events, size), &options);
        prop_assert_eq!(less, all);
    }

    #[test]
    fn a_valid_schedule_is_told_as_it_was(steps in steps(200)) {
        let sim = simulate(&steps);
        check_intervals(&sim.stream.meta, &sim.stream.batch.events)?;
        let report = sim.stream.report();
        check_sums(&report)?;
        prop_assert_eq!(report.cpu_time.total.unknown_ns, 0);
        prop_assert_eq!((report.completeness.in_loss, report.completeness.unseen_starts), (0, 0));
        let (mut told, mut truth) = (of_some_length(told(&report)), of_some_length(sim.truth));
        prop_assert_eq!(all_behind(&report), by_holder(&truth));
        if truth.most_behind > 8 {
            // Of a wait with more holders than that, only the longest ones are named.
            prop_assert!(told.behind.iter().all(|(pair, ns)| truth.behind.get(pair).is_some_and(|all| ns <= all)));
            told.behind.clear();
            truth.behind.clear();
        }
        truth.most_behind = 0;
        prop_assert_eq!(told, truth);
    }

    #[test]
    fn how_the_stream_is_cut_into_batches_changes_nothing(
        steps in steps(100),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        from in 900..3_000u64,
        length in prop::option::of(1..2_000u64),
    ) {
        let mut sim = simulate(&steps);
        sim.stream.options.from = Some(Nanos(from));
        sim.stream.options.until = length.map(|length| Nanos(from + length));
        let (meta, options, events) = (sim.stream.meta.clone(), sim.stream.options.clone(), sim.stream.batch.events.clone());
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(events.len() + 1)).chain([events.len()]).collect();
        ends.sort_unstable();
        let mut study = Sched::new(options);
        study.begin(&meta);
        let mut at = 0;
        for end in ends {
            let until = events.get(end).map_or(meta.ended.unwrap(), |event| event.ts);
            study.update(&Batch { until, events: events[at..end].to_vec(), ..Batch::default() });
            check_sums(&study.report())?;
            at = end;
        }
        study.finish(&meta);
        let report = study.report();
        check_sums(&report)?;
        prop_assert_eq!(report, sim.stream.report());
    }

    #[test]
    fn missing_events_never_count_anything_twice(steps in steps(200), missing in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let mut sim = simulate(&steps);
        for missing in missing {
            let events = &mut sim.stream.batch.events;
            events.remove(missing.index(events.len()));
            if events.is_empty() {
                return Ok(());
            }
        }
        check_intervals(&sim.stream.meta, &sim.stream.batch.events)?;
        check_sums(&sim.stream.report())?;
    }

    #[test]
    fn nonsense_is_survived(
        events in nonsense(),
        tasks in identities(),
        by in prop::sample::select(GroupBy::ALL.to_vec()),
        top in 0..30usize,
        from in prop::option::of(0..3_000u64),
        filters in prop::sample::select(vec![
            Filters::default(),
            Filters { pids: vec![1], ..Filters::default() },
            Filters { cpus: vec![2, 0], ..Filters::default() },
            Filters { cgroups: vec!["/a".into()], ..Filters::default() },
        ]),
    ) {
        let meta = Meta { filters, ..Meta::default() };
        if meta.filters.is_empty() {
            check_intervals(&meta, &events)?;
        }
        let mut study = Sched::new(Options { by, top, from: from.map(Nanos), ..Options::default() });
        study.begin(&meta);
        for (n, part) in events.chunks(50).enumerate() {
            study.update(&Batch { events: part.to_vec(), tasks: tasks.clone(), ..Batch::default() });
            let report = study.report();
            serde_json::to_string(&report).unwrap();
            for row in &report.cpu_time.cpus {
                let used = &row.used;
                let all = u128::from(used.busy_ns) + u128::from(used.idle_ns) + u128::from(used.unknown_ns);
                prop_assert_eq!(all, u128::from(report.window.duration_ns.0));
            }
            if n == 2 {
                study.next_window();
            }
        }
    }
}
