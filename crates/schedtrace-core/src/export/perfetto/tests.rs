//! What is written, read back by the same messages. `scripts/test-perfetto.py` reads it by Perfetto's own.

use super::proto::{Bundle, What};
use super::*;
use crate::event::{Comm, Context, ShardId, Switch, TaskId, TaskState, Waking};
use crate::source::RingInfo;

#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<Packet>,
}

fn event(ts: u64, cpu: u16, kind: EventKind) -> Event {
    Event { ts: Nanos(ts), cpu: Cpu(cpu), kind }
}

fn switch(ts: u64, cpu: u16, prev: u32, next: u32) -> Event {
    let (prev, next) = (TaskId(prev), TaskId(next));
    let (prev_state, preempted, prio) = (TaskState::INTERRUPTIBLE, false, 120);
    event(ts, cpu, EventKind::Switch(Switch { prev, next, prev_state, preempted, prev_prio: prio, next_prio: prio }))
}

fn waking(ts: u64, cpu: u16, current: u32, task: u32) -> Event {
    let (task, current) = (TaskId(task), TaskId(current));
    let (context, prev_cpu) = (Context::Softirq, Cpu(300));
    event(ts, cpu, EventKind::Waking(Waking { task, current, context, prev_cpu, on_cpu: false, prio: 120 }))
}

fn meta() -> Meta {
    let clocks =
        system::ClockSnapshot { monotonic_ns: Nanos(1_000), boottime_ns: Nanos(1_500), realtime_ns: Nanos(9_000) };
    let ring = |shard, cpu| RingInfo { shard: ShardId(shard), cpus: vec![Cpu(cpu)], bytes: 4096 };
    Meta { clocks: vec![clocks], rings: vec![ring(0, 0), ring(1, 300)], started: Nanos(1_000), ..Meta::default() }
}

fn packets(batches: &[Batch]) -> Vec<Packet> {
    let mut writer = PerfettoWriter::new(Vec::new());
    writer.begin(&meta()).unwrap();
    batches.iter().for_each(|batch| writer.batch(batch).unwrap());
    writer.finish(&meta()).unwrap();
    let bytes = writer.bytes();
    let written = writer.into_inner();
    assert_eq!(written.len() as u64, bytes);
    Trace::decode(written.as_slice()).unwrap().packet
}

fn bundles(packets: Vec<Packet>) -> Vec<Bundle> {
    let bundle = |packet: Packet| match packet.data {
        Some(Data::FtraceEvents(bundle)) => Some(bundle),
        _ => None,
    };
    packets.into_iter().filter_map(bundle).collect()
}

#[test]
fn who_leaves_is_written_only_where_nobody_would_guess_it() {
    let batch = Batch {
        until: Nanos(3_000),
        events: vec![switch(2_000, 0, 1, 2), waking(2_010, 0, 2, 3), switch(2_020, 0, 2, 3), switch(2_030, 0, 9, 1)],
        ..Batch::default()
    };
    let found = bundles(packets(&[batch]));
    assert_eq!(found.len(), 1);
    let compact = found[0].compact_sched.as_ref().unwrap();
    // In boot time, and the differences.
    assert_eq!((&compact.switch_timestamp[..], &compact.waking_timestamp[..]), (&[2_520][..], &[2_510][..]));
    assert_eq!(compact.waking_common_flags, [0x10]);
    assert_eq!(compact.waking_target_cpu, [300]);
    let full: Vec<_> = found[0].event.iter().map(|event| (event.timestamp, event.what.clone())).collect();
    let prev = |what: &Option<What>| match what {
        Some(What::Switch(switch)) => switch.prev_pid,
        _ => None,
    };
    let unknown = |id: u32| Some((crate::export::UNKNOWN_TID | id).cast_signed());
    assert_eq!((full.len(), prev(&full[0].1), prev(&full[1].1)), (2, unknown(1), unknown(9)));
}

#[test]
fn after_a_loss_the_ring_s_cpus_say_so_and_begin_anew() {
    let loss = Loss {
        place: LossPlace::Ring(ShardId(1)),
        kind: Some(Kind::Switch),
        count: 7,
        from: Nanos(2_500),
        until: Nanos(2_600),
    };
    let batch = |ts, lost| Batch {
        until: Nanos(ts + 500),
        events: vec![
            switch(ts, 0, 1, 2),
            switch(ts + 1, 300, 3, 4),
            switch(ts + 2, 0, 2, 1),
            switch(ts + 3, 300, 4, 3),
        ],
        lost,
        ..Batch::default()
    };
    let packets = packets(&[batch(2_000, vec![]), batch(3_000, vec![loss])]);
    let slices = packets.iter().filter(|packet| matches!(packet.data, Some(Data::TrackEvent(_))));
    let times: Vec<_> = slices.filter_map(|packet| packet.timestamp).filter(|at| (3_000..3_200).contains(at)).collect();
    assert_eq!(times, [3_000, 3_100], "when it was, in boot time");
    let found: Vec<_> = bundles(packets)
        .into_iter()
        .map(|bundle| {
            let compact = bundle.compact_sched.map_or(0, |compact| compact.switch_timestamp.len());
            (bundle.cpu.unwrap(), bundle.lost_events.unwrap_or(false), bundle.event.len(), compact)
        })
        .collect();
    assert_eq!(found, [(0, false, 1, 1), (300, false, 1, 1), (0, false, 0, 2), (300, true, 1, 1)]);
}

#[test]
fn what_comes_late_changes_nothing_of_what_is_known() {
    let batch = Batch {
        until: Nanos(4_000),
        events: vec![switch(2_000, 0, 1, 2)],
        late: vec![switch(1_500, 0, 5, 6)],
        ..Batch::default()
    };
    let next = Batch { until: Nanos(5_000), events: vec![switch(4_100, 0, 2, 1)], ..Batch::default() };
    let found = bundles(packets(&[batch, next]));
    assert_eq!((found[0].event.len(), found[1].event.len()), (2, 0));
}

#[test]
fn tasks_are_announced_once_and_by_their_new_names() {
    let task = |since, comm| Task {
        id: TaskId(1),
        tid: 11,
        tgid: 11,
        since: Nanos(since),
        comm: Comm::new(comm),
        ..Task::idle(Cpu(0))
    };
    let batch = |tasks| Batch { until: Nanos(9_000), tasks, ..Batch::default() };
    let packets = packets(&[batch(vec![task(1_100, "a"), task(1_200, "a")]), batch(vec![task(1_300, "b")])]);
    let names: Vec<_> = packets
        .into_iter()
        .filter_map(|packet| match packet.data {
            Some(Data::ProcessTree(tree)) => Some((packet.timestamp, tree.threads[0].name.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(names, [(Some(1_600), Some("a".to_owned())), (Some(1_800), Some("b".to_owned()))]);
}
