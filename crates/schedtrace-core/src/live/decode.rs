//! From wire records to events. The only module that knows the wire's structs.

mod declared;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use schedtrace_bpf::wire::{self, rec_type};
use zerocopy::{FromBytes, IntoBytes};

use super::kernel::Settings;
use crate::event::{
    CgroupId, Comm, Context, Cpu, Event, EventKind, Exec, Exit, Fork, Kind, Migrate, Name, NameId, Nanos, ShardId,
    Snapshot, Switch, Task, TaskId, TaskState, WakeupNew, Waking,
};

/// Those that come over the wire have the numbers that the kernel's programs know; those that follow are made here.
const _: () = assert!(Kind::ScxCpuperf as usize + 1 == wire::KINDS && Kind::Wakeup as u8 == rec_type::WAKEUP);

/// What one record says.
#[derive(Debug, PartialEq)]
pub(super) enum Decoded {
    Event(Event),
    /// Who a task is; and who it is under an id it was given before the kernel named it.
    Task(Task, Option<Task>),
    /// Totals of a CPU's losses since the start, and the time of those that are new.
    Loss {
        cpu: Cpu,
        from: Nanos,
        until: Nanos,
        /// Behind a pointer: an event, of which there are millions, is not to take as much room.
        totals: Box<PerKind>,
    },
    /// A text, and the moment at which it was told.
    Name(Name),
    /// Too short, or of a type that is not known.
    Unreadable,
}

/// Gives ids to tasks that the kernel could not give one (no task-local storage), by what tells one life from another.
///
/// Shared by the shards behind a lock, which only such records and announcements take. A life that the kernel names
/// later keeps the id it was given here for what was recorded before; both carry the same thread id and start time.
#[derive(Debug, Default)]
pub(super) struct Nameless(Mutex<Names>);

/// One life: the task's address, its thread id, and when it was created. Address and thread id are both reused, and at
/// times together; the creation time alone is shared with the leader's by a thread that took the leader's place at an
/// exec (`de_thread()` in `fs/exec.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Life {
    pointer: u64,
    tid: u32,
    start: u64,
}

#[derive(Debug, Default)]
struct Names {
    ids: HashMap<Life, TaskId>,
    keys: HashMap<TaskId, Life>,
    /// Ended lives, the oldest first.
    over: VecDeque<TaskId>,
    given: u32,
}

impl Nameless {
    /// Ids from here on are given by user space; the kernel counts from 1, and idle tasks have bit 31.
    const FIRST: u32 = 1 << 30;
    /// So many ended lives: some megabytes, and more than end before a shard has caught up.
    const REMEMBERED: usize = 1 << 16;

    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, life: Life) -> TaskId {
        let names = &mut *self.names();
        *names.ids.entry(life).or_insert_with(|| {
            let id = TaskId(Self::FIRST + names.given);
            names.given = (names.given + 1) % Self::FIRST;
            names.keys.insert(id, life);
            id
        })
    }

    /// The kernel knows the task by this id. Returns the one that was given to it here before.
    fn name(&self, life: Life, id: TaskId) -> Option<TaskId> {
        let names = &mut *self.names();
        let given = names.ids.insert(life, id).filter(|&given| given != id);
        if let Some(given) = given {
            names.keys.remove(&given);
        }
        if let Some(old) = names.keys.insert(id, life).filter(|&old| old != life) {
            names.ids.remove(&old); // its thread id changed at an exec
        }
        given.filter(|given| given.0 >= Self::FIRST)
    }

    /// The life is over. A shard that lags may still bring records of it, so it is remembered for a while.
    fn forget(&self, id: TaskId) {
        let names = &mut *self.names();
        names.over.push_back(id);
        if names.over.len() > Self::REMEMBERED
            && let Some(key) = names.over.pop_front().and_then(|oldest| names.keys.remove(&oldest))
        {
            names.ids.remove(&key);
        }
    }
}

/// Decodes the records of one ring.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    nameless: Arc<Nameless>,
    recorder_tgid: u32,
}

fn read<T: FromBytes>(words: &[u64]) -> Option<T> {
    T::read_from_prefix(words.as_bytes()).ok().map(|(record, _)| record)
}

impl Decoder {
    pub(super) fn new(nameless: Arc<Nameless>, recorder_tgid: u32) -> Self {
        Self { nameless, recorder_tgid }
    }

    /// Reads one record: its type first, then the rest. Inlined, so that an event goes straight to where it is kept.
    #[inline(always)]
    pub(super) fn decode(&self, words: &[u64]) -> Decoded {
        let Some(&[kind, flags, ..]) = words.first().map(|word| word.as_bytes()) else { return Decoded::Unreadable };
        if kind > rec_type::MIGRATE || flags & wire::RAW != 0 {
            return self.decode_rare(kind, flags, words);
        }
        event(kind, words, |id, _| (id != 0).then_some(TaskId(id))).map_or(Decoded::Unreadable, Decoded::Event)
    }

    /// The same for what a storm does not bring.
    #[inline(never)]
    fn decode_rare(&self, kind: u8, flags: u8, words: &[u64]) -> Decoded {
        let decoded = match kind {
            rec_type::TASK => read(words).map(|record| {
                let (task, given) = self.task(&record);
                Decoded::Task(task, given)
            }),
            rec_type::LOSS => read(words).map(|record: wire::LossRecord| Decoded::Loss {
                cpu: Cpu(record.cpu),
                from: Nanos(record.from),
                until: Nanos(record.until),
                totals: Box::new(all_kinds(&record.lost)),
            }),
            rec_type::NAME => read(words).map(|record: wire::NameRecord| {
                Decoded::Name(Name::new(NameId(record.id), Nanos(record.ts), &record.text))
            }),
            _ => {
                // Behind the record's own parts.
                let own = if flags & wire::WIDE == 0 { 1 } else { 2 };
                let who = |part: usize| words.get(part * PART_BYTES / 8..).and_then(read::<wire::Who>);
                let who = if flags & wire::RAW != 0 { who(own).zip(who(own + 1)) } else { None };
                let event = match kind {
                    ..=rec_type::RENAME => event(kind, words, |id, second| self.resolve(id, second, who)),
                    _ => declared::event(kind, words, |id| self.resolve(id, false, who)),
                };
                if let Some(Event { kind: EventKind::Free { task }, .. }) = event {
                    self.nameless.forget(task);
                }
                event.map(Decoded::Event)
            }
        };
        decoded.unwrap_or(Decoded::Unreadable)
    }

    /// The id on the wire, or one by pointer and thread id where it is 0.
    fn resolve(&self, id: u32, second: bool, who: Option<(wire::Who, wire::Who)>) -> Option<TaskId> {
        if id != 0 {
            return Some(TaskId(id));
        }
        let wire::Who { ptr, tid, start, .. } = who.map(|(a, b)| if second { b } else { a })?;
        Some(self.nameless.id(Life { pointer: ptr, tid, start }))
    }

    fn task(&self, record: &wire::TaskRecord) -> (Task, Option<Task>) {
        let life = Life { pointer: record.ptr, tid: record.tid, start: record.start };
        let (id, given) = match record.id {
            0 => (self.nameless.id(life), None),
            id => (TaskId(id), self.nameless.name(life, TaskId(id))),
        };
        let task = Task {
            id,
            since: Nanos(record.ts),
            tid: record.tid,
            tgid: record.tgid,
            ppid: record.ppid,
            comm: Comm::from_bytes(record.comm),
            cgroup: CgroupId(record.cgroup),
            start: Nanos(record.start),
            kernel: record.flags & wire::TASK_KTHREAD != 0,
            recorder: record.tgid == self.recorder_tgid,
        };
        (task, given.map(|id| Task { id, since: task.start, ..task }))
    }

    /// What the iterator over tasks wrote: who exists, and an event for each task that has or wants a CPU.
    pub(super) fn listing(&self, bytes: &[u8]) -> (Vec<Task>, Vec<Event>) {
        let mut tasks = Vec::new();
        let mut events = Vec::new();
        for chunk in bytes.chunks_exact(size_of::<wire::TaskRecord>()) {
            let Ok(record) = wire::TaskRecord::read_from_bytes(chunk) else { continue };
            let (task, given) = self.task(&record);
            tasks.extend(given);
            let running = record.flags & wire::TASK_ON_CPU != 0;
            let selected = record.flags & wire::TASK_SELECTED != 0;
            if selected && (running || record.state == 0) {
                let snapshot = Snapshot { task: task.id, running };
                events.push(Event { ts: task.since, cpu: Cpu(record.cpu), kind: EventKind::Snapshot(snapshot) });
            }
            tasks.push(task);
        }
        (tasks, events)
    }
}

#[inline(always)]
fn event(kind: u8, words: &[u64], id: impl Fn(u32, bool) -> Option<TaskId>) -> Option<Event> {
    let (ts, cpu, kind) = match kind {
        rec_type::SWITCH => {
            let r: wire::Switch = read(words)?;
            let switch = Switch {
                prev: id(r.prev, false)?,
                next: id(r.next, true)?,
                prev_state: TaskState(r.prev_state),
                preempted: r.flags & wire::SWITCH_PREEMPT != 0,
                prev_prio: r.prev_prio,
                next_prio: r.next_prio,
            };
            (r.ts, r.cpu, EventKind::Switch(switch))
        }
        rec_type::WAKING => {
            let r: wire::Waking = read(words)?;
            let waking = Waking {
                task: id(r.task, false)?,
                current: id(r.current_task, true)?,
                context: match r.flags >> wire::WAKING_CONTEXT_SHIFT & 3 {
                    0 => Context::Task,
                    1 => Context::Softirq,
                    2 => Context::Hardirq,
                    _ => Context::Nmi,
                },
                prev_cpu: Cpu(r.prev_cpu),
                on_cpu: r.flags & wire::WAKING_ON_CPU != 0,
                prio: r.prio,
            };
            (r.ts, r.cpu, EventKind::Waking(waking))
        }
        rec_type::WAKEUP_NEW => {
            let r: wire::WakeupNew = read(words)?;
            let new = WakeupNew {
                task: id(r.task, false)?,
                parent: id(r.parent, true)?,
                target_cpu: Cpu(r.target_cpu),
                prio: r.prio,
            };
            (r.ts, r.cpu, EventKind::WakeupNew(new))
        }
        rec_type::MIGRATE => {
            let r: wire::Migrate = read(words)?;
            let migrate = Migrate {
                task: id(r.task, false)?,
                from: Cpu(r.from),
                to: Cpu(r.to),
                placed: r.flags & wire::MIGRATE_PLACED != 0,
                prio: r.prio,
            };
            (r.ts, r.cpu, EventKind::Migrate(migrate))
        }
        rec_type::FORK..=rec_type::RENAME => {
            let r: wire::Life = read(words)?;
            let task = id(r.task, false)?;
            let what = match kind {
                rec_type::FORK => EventKind::Fork(Fork { parent: task, child: id(r.child, true)? }),
                rec_type::EXEC => EventKind::Exec(Exec { task, old_tid: r.old_tid }),
                rec_type::EXIT => EventKind::Exit(Exit { task, group_dead: r.flags & wire::EXIT_GROUP_DEAD != 0 }),
                rec_type::FREE => EventKind::Free { task },
                _ => EventKind::Rename { task },
            };
            (r.ts, r.cpu, what)
        }
        _ => return None,
    };
    Some(Event { ts: Nanos(ts), cpu: Cpu(cpu), kind })
}

/// What a part of a record takes, of which a record of an event has one; without a ring's header.
pub(super) const PART_BYTES: usize = size_of::<wire::Switch>();

/// The bytes of a record without a ring's header; 0 for what is not sent.
pub(super) fn record_bytes(kind: Kind) -> u32 {
    match kind {
        kind if kind.is_sampled() => 0,
        kind if declared::is_wide(kind) => 2 * PART_BYTES as u32,
        _ => PART_BYTES as u32,
    }
}

/// Whether records of a kind always take the ring for lifecycles.
pub(super) fn goes_over_the_ring(kind: Kind) -> bool {
    (rec_type::FORK..=rec_type::TASK).contains(&(kind as u8))
}

/// How many parts the record has that begins with this word.
#[inline(always)]
pub(super) fn parts(head: u64) -> u64 {
    let [_, flags, ..] = head.to_le_bytes();
    1 + u64::from(flags & wire::WIDE != 0) + if flags & wire::RAW != 0 { 2 } else { 0 }
}

/// Whether the part that begins with this word was written on an even lap of its log, or on an odd one. One that was never
/// written is of an odd lap: the first lap is even.
#[inline(always)]
pub(super) fn is_of_lap(head: u64, even: bool) -> bool {
    let [_, flags, ..] = head.to_le_bytes();
    (flags & wire::LAP != 0) == even
}

/// A part's first word as it is written on such a lap.
#[cfg(test)]
pub(super) fn written_on_lap(head: u64, even: bool) -> u64 {
    if even { head | u64::from(wire::LAP) << 8 } else { head }
}

/// Where in a log's header stands what.
#[derive(Debug)]
pub(super) struct LogLayout {
    pub(super) head: usize,
    pub(super) tail: usize,
    pub(super) rung: usize,
    /// The header; the parts follow.
    pub(super) bytes: usize,
}

/// As the kernel programs have it.
pub(super) const LOG: LogLayout = LogLayout {
    head: std::mem::offset_of!(wire::Log, head),
    tail: std::mem::offset_of!(wire::Log, tail),
    rung: std::mem::offset_of!(wire::Log, rung),
    bytes: size_of::<wire::Log>(),
};

/// The record that a kernel program would put on a ring for this event; none for what never comes over one.
#[cfg(feature = "synthetic")]
pub(super) fn encode(event: &Event) -> Option<[u8; PART_BYTES]> {
    use zerocopy::transmute;
    let (ts, cpu) = (event.ts.0, event.cpu.0);
    let life = |r#type, flags, task: TaskId, child, old_tid| {
        transmute!(wire::Life { r#type, flags, cpu, task: task.0, ts, child, old_tid })
    };
    Some(match event.kind {
        EventKind::Switch(e) => transmute!(wire::Switch {
            r#type: rec_type::SWITCH,
            flags: if e.preempted { wire::SWITCH_PREEMPT } else { 0 },
            cpu,
            prev: e.prev.0,
            ts,
            next: e.next.0,
            prev_state: e.prev_state.0,
            prev_prio: e.prev_prio,
            next_prio: e.next_prio,
        }),
        EventKind::Waking(e) => transmute!(wire::Waking {
            r#type: rec_type::WAKING,
            flags: (e.context as u8) << wire::WAKING_CONTEXT_SHIFT | if e.on_cpu { wire::WAKING_ON_CPU } else { 0 },
            cpu,
            task: e.task.0,
            ts,
            current_task: e.current.0,
            prev_cpu: e.prev_cpu.0,
            prio: e.prio,
            pad: 0,
        }),
        EventKind::WakeupNew(e) => transmute!(wire::WakeupNew {
            r#type: rec_type::WAKEUP_NEW,
            flags: 0,
            cpu,
            task: e.task.0,
            ts,
            parent: e.parent.0,
            target_cpu: e.target_cpu.0,
            prio: e.prio,
            pad: 0,
        }),
        EventKind::Migrate(e) => transmute!(wire::Migrate {
            r#type: rec_type::MIGRATE,
            flags: if e.placed { wire::MIGRATE_PLACED } else { 0 },
            cpu,
            task: e.task.0,
            ts,
            from: e.from.0,
            to: e.to.0,
            prio: e.prio,
            pad: [0; 3],
        }),
        EventKind::Fork(e) => life(rec_type::FORK, 0, e.parent, e.child.0, 0),
        EventKind::Exec(e) => life(rec_type::EXEC, 0, e.task, 0, e.old_tid),
        EventKind::Exit(e) => life(rec_type::EXIT, if e.group_dead { wire::EXIT_GROUP_DEAD } else { 0 }, e.task, 0, 0),
        EventKind::Free { task } => life(rec_type::FREE, 0, task, 0, 0),
        EventKind::Rename { task } => life(rec_type::RENAME, 0, task, 0, 0),
        // A simulated machine makes none of the others.
        _ => return None,
    })
}

/// Per kind, a count.
pub(super) type PerKind = [u64; Kind::COUNT];

/// What the kernel counts, which knows fewer kinds than there are.
fn all_kinds(counts: &[u64; wire::KINDS]) -> PerKind {
    let mut all = [0; Kind::COUNT];
    all[..wire::KINDS].copy_from_slice(counts);
    all
}

/// What the kernel programs counted on one CPU.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) cpu: Cpu,
    pub(super) emitted: PerKind,
    pub(super) lost: PerKind,
    pub(super) passed_over: PerKind,
    /// The time of losses that were not told yet; begins at 0 where there are none.
    pub(super) untold: (Nanos, Nanos),
}

/// Reads the value of the map behind the `.data.cpus` section.
pub(super) fn counters(bytes: &[u8]) -> Vec<Counters> {
    let states = bytes.chunks_exact(size_of::<wire::CpuState>()).map(wire::CpuState::read_from_bytes);
    (0..).zip(states).filter_map(|(cpu, state)| state.ok().map(|state| (Cpu(cpu), state))).map(read_counters).collect()
}

fn read_counters((cpu, state): (Cpu, wire::CpuState)) -> Counters {
    let wire::CpuState { emitted, lost, passed_over, loss_from, loss_until, .. } = state;
    let [emitted, lost, passed_over] = [emitted, lost, passed_over].map(|counts| all_kinds(&counts));
    Counters { cpu, emitted, lost, passed_over, untold: (Nanos(loss_from), Nanos(loss_until)) }
}

/// Where the records of a CPU go, and whether it is recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuSetting {
    pub(super) shard: ShardId,
    /// The address of its log, where there are logs.
    pub(super) log: u64,
    pub(super) selected: bool,
}

/// The initial value of the `.data.cpus` section.
pub(super) fn cpu_states(cpus: impl IntoIterator<Item = CpuSetting>) -> Vec<u8> {
    let state = |cpu: CpuSetting| wire::CpuState {
        shard: cpu.shard.0,
        log: cpu.log,
        selected: cpu.selected.into(),
        ..Default::default()
    };
    cpus.into_iter().flat_map(|cpu| state(cpu).as_bytes().to_vec()).collect()
}

/// The value of the constant `settings`.
pub(super) fn settings(settings: &Settings, wake_at: u64, log_parts: usize) -> Vec<u8> {
    let probes = &settings.selection.probes;
    let settings = wire::Settings {
        wake_at,
        life_wake_at: (settings.plan.lifecycle_bytes as f64 * settings.wake_at) as u64,
        nr_cpus: settings.cpu_numbers as u32,
        kinds: probes.iter().filter(|probe| probe.on).fold(0, |bits, probe| bits | 1 << probe.kind as u32),
        calls: settings.calls.iter().fold([0; 8], |mut bits, &call| {
            if let Some(word) = bits.get_mut(call as usize / 64) {
                *word |= 1 << (call % 64);
            }
            bits
        }),
        layer_at: settings.layers.as_ref().map_or(0, |layers| layers.at + 1),
        log_parts: log_parts as u32,
        fail_ids_every: settings.fail_ids_every,
        filter_pids: settings.filter_pids.into(),
        filter_cgroups: (!settings.cgroups.is_empty()).into(),
        filter_cpus: (!settings.cpus.is_empty()).into(),
        // The only one of those that have BPF arenas that shows stores in order.
        weak_order: (settings.weak_order || !cfg!(target_arch = "x86_64")).into(),
        late_every: settings.late_every,
    };
    settings.as_bytes().to_vec()
}

/// Bytes that one CPU takes in the `.data.cpus` section.
pub(super) const CPU_STATE_BYTES: usize = size_of::<wire::CpuState>();

/// The value of the `.data.control` section, from what it is now.
pub(super) fn control(now: &[u8], enabled: bool, preempt_count_from_rq: i64) -> Vec<u8> {
    let (control, _) = wire::Control::read_from_prefix(now).unwrap_or_default();
    wire::Control { enabled: enabled.into(), preempt_count_from_rq, ..control }.as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(record: &impl IntoBytes_) -> Vec<u64> {
        record.bytes().chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
    }

    /// `IntoBytes` with the bound that `as_bytes` asks for.
    trait IntoBytes_ {
        fn bytes(&self) -> &[u8];
    }
    impl<T: IntoBytes + zerocopy::Immutable> IntoBytes_ for T {
        fn bytes(&self) -> &[u8] {
            self.as_bytes()
        }
    }

    fn decoder() -> Decoder {
        Decoder::new(Arc::default(), 42)
    }

    #[test]
    fn a_switch_reads_as_it_was_written() {
        let record = wire::Switch {
            r#type: rec_type::SWITCH,
            flags: wire::SWITCH_PREEMPT,
            cpu: 300,
            prev: 7,
            ts: 123,
            next: TaskId::idle(Cpu(300)).0,
            prev_state: 0x80,
            prev_prio: 120,
            next_prio: 255,
        };
        let expected = Switch {
            prev: TaskId(7),
            next: TaskId::idle(Cpu(300)),
            prev_state: TaskState::DEAD,
            preempted: true,
            prev_prio: 120,
            next_prio: 255,
        };
        assert_eq!(
            decoder().decode(&words(&record)),
            Decoded::Event(Event { ts: Nanos(123), cpu: Cpu(300), kind: EventKind::Switch(expected) })
        );
    }

    #[test]
    fn a_waking_tells_its_context() {
        let flags = wire::WAKING_ON_CPU | 2 << wire::WAKING_CONTEXT_SHIFT;
        let record = wire::Waking { r#type: rec_type::WAKING, flags, task: 1, current_task: 2, ..Default::default() };
        let Decoded::Event(Event { kind: EventKind::Waking(waking), .. }) = decoder().decode(&words(&record)) else {
            panic!("not a waking")
        };
        assert!(waking.on_cpu);
        assert_eq!(waking.waker(), crate::event::Waker::Interrupt(Context::Hardirq));
    }

    #[test]
    fn no_event_bears_id_0() {
        let record = wire::Switch { r#type: rec_type::SWITCH, prev: 0, next: 3, ..Default::default() };
        assert_eq!(decoder().decode(&words(&record)), Decoded::Unreadable);
    }

    #[test]
    fn a_task_without_id_is_known_by_pointer_and_tid() {
        let decoder = decoder();
        let raw = |prev_ptr, prev_tid, start| {
            let record =
                wire::Switch { r#type: rec_type::SWITCH, flags: wire::RAW, prev: 0, next: 3, ..Default::default() };
            let who = wire::Who { r#type: rec_type::WHO, ptr: prev_ptr, tid: prev_tid, start, ..Default::default() };
            let all = [words(&record), words(&who), words(&wire::Who::default())].concat();
            match decoder.decode(&all) {
                Decoded::Event(Event { kind: EventKind::Switch(switch), .. }) => switch.prev,
                other => panic!("{other:?}"),
            }
        };
        let first = raw(0xffff_8880_0000_1000, 10, 5);
        assert_ne!(first, TaskId(0));
        assert_eq!(raw(0xffff_8880_0000_1000, 10, 5), first);
        assert_ne!(raw(0xffff_8880_0000_1000, 11, 5), first, "the same structure, another thread id");
        assert_ne!(raw(0xffff_8880_0000_2000, 10, 5), first, "the same thread id, another structure");
        assert_ne!(raw(0xffff_8880_0000_1000, 10, 6), first, "both reused, created later");
        // Once the kernel has named it, its own id is used.
        let named =
            wire::TaskRecord { r#type: rec_type::TASK, id: 9, ptr: 0x2000, tid: 12, tgid: 42, ..Default::default() };
        let Decoded::Task(task, None) = decoder.decode(&words(&named)) else { panic!("not a task") };
        assert!(task.recorder, "a thread of process 42");
        assert_eq!(raw(0x2000, 12, 0), TaskId(9));
        // One that had been given an id before is announced under both.
        let named = wire::TaskRecord { id: 10, ptr: 0xffff_8880_0000_1000, tid: 10, start: 5, ..named };
        let Decoded::Task(task, Some(before)) = decoder.decode(&words(&named)) else { panic!("not a task") };
        assert_eq!((task.id, before.id, before.tid), (TaskId(10), first, 10));
    }

    #[test]
    fn a_life_that_is_over_is_known_until_the_shards_have_caught_up() {
        let nameless = Nameless::default();
        let life = |tid| Life { pointer: 0x1000, tid, start: 1 };
        nameless.name(life(7), TaskId(3));
        nameless.forget(TaskId(3));
        assert_eq!(nameless.id(life(7)), TaskId(3));
        for n in 0..Nameless::REMEMBERED as u32 {
            nameless.name(life(100 + n), TaskId(10 + n));
            nameless.forget(TaskId(10 + n));
        }
        assert_ne!(nameless.id(life(7)), TaskId(3), "and not for ever");
    }

    /// What the records of a ring say of tasks: pointer, thread id, time of creation, and the id given by the kernel.
    fn lives(fail_ids_every: u32, workload: impl FnOnce()) -> Vec<(Life, u32)> {
        let loaded = crate::live::Collector::builder().fail_ids_every(fail_ids_every).load();
        let mut programs = loaded.expect("live tests need root: run `make test` as root").programs;
        programs.attach().unwrap();
        programs.enable(true).unwrap();
        workload();
        programs.enable(false).unwrap();
        programs.detach();
        let (_, mut lifecycle, _) = programs.records().unwrap().pop().unwrap();
        let mut lives = Vec::new();
        lifecycle.look();
        lifecycle.drain(usize::MAX, |words| {
            if words[0].as_bytes()[0] == rec_type::TASK {
                let record: wire::TaskRecord = read(words).unwrap();
                let life = Life { pointer: record.ptr, tid: record.tid, start: record.start };
                lives.push((life, record.id));
            }
        });
        assert!(!lives.is_empty());
        lives
    }

    /// Where a thread id can be asked for; a kernel without `CONFIG_CHECKPOINT_RESTORE` has no such file.
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";

    /// Short children one after the other, all with one thread id where it can be asked for and nobody else takes it.
    fn children_of_one_tid() {
        let mut cpu = rustix::thread::CpuSet::new();
        cpu.set(0);
        // On one CPU, so that a structure that is given back is the next to be taken.
        rustix::thread::sched_setaffinity(None, &cpu).unwrap();
        let free =
            std::process::Command::new("/bin/true").spawn().and_then(|mut child| child.wait().map(|_| child.id()));
        let free = free.unwrap();
        for _ in 0..100 {
            let asked = std::fs::write(LAST, (free - 1).to_string());
            assert!(asked.is_ok() || !std::path::Path::new(LAST).exists(), "{asked:?}");
            assert!(std::process::Command::new("/bin/true").status().unwrap().success());
            // The kernel gives a task's structure back after a grace period.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Lives that share what `of` says with another one.
    fn reused<K: std::hash::Hash + Eq>(lives: &[(Life, u32)], of: impl Fn(&Life) -> K) -> usize {
        let mut sharing: HashMap<K, hashbrown::HashSet<Life>> = HashMap::new();
        for (life, _) in lives {
            sharing.entry(of(life)).or_default().insert(*life);
        }
        sharing.values().filter(|lives| lives.len() > 1).count()
    }

    #[test]
    fn live_who_reuses_a_pointer_or_a_thread_id_is_another_life() {
        let seen = std::thread::spawn(|| lives(0, children_of_one_tid)).join().unwrap();
        let (pointers, tids) = (reused(&seen, |life| life.pointer), reused(&seen, |life| life.tid));
        let can_ask = std::path::Path::new(LAST).exists();
        assert!(pointers > 0 && (tids > 0 || !can_ask), "{pointers} pointers and {tids} thread ids were reused");
        let nameless = Nameless::default();
        let mut ids: HashMap<Life, TaskId> = HashMap::new();
        let mut owners: HashMap<TaskId, Life> = HashMap::new();
        for &(life, id) in &seen {
            let id = match id {
                // Linux 6.1 refuses the storage of a task while it is at work on another one's on that CPU
                // (`bpf_task_storage_trylock()` in `kernel/bpf/bpf_task_storage.c`).
                0 => nameless.id(life),
                id => {
                    if let Some(before) = nameless.name(life, TaskId(id)) {
                        assert_eq!(
                            ids.insert(life, TaskId(id)),
                            Some(before),
                            "it is told that they are one: {life:?}"
                        );
                    }
                    TaskId(id)
                }
            };
            assert_eq!(*ids.entry(life).or_insert(id), id, "one life, one id: {life:?}");
            assert_eq!(*owners.entry(id).or_insert(life), life, "one id, one life: {id:?}");
        }
    }

    #[test]
    fn live_without_storage_too() {
        let seen = std::thread::spawn(|| lives(1, children_of_one_tid)).join().unwrap();
        let both = reused(&seen, |life| (life.pointer, life.tid));
        let can_ask = std::path::Path::new(LAST).exists();
        assert!(both > 0 || !can_ask, "pointer and thread id were reused together");
        let decoder = decoder();
        let mut owners: HashMap<TaskId, Life> = HashMap::new();
        for (life, id) in seen.into_iter().filter(|(_, id)| *id == 0) {
            let given = decoder.nameless.id(life);
            assert_eq!(*owners.entry(given).or_insert(life), life, "one id, one life: {given:?}, and {id} on the wire");
        }
    }

    #[cfg(feature = "synthetic")]
    #[test]
    fn every_kind_of_event_reads_as_it_was_encoded() {
        let (a, b, cpu) = (TaskId(7), TaskId::idle(Cpu(300)), Cpu(300));
        let (prev_prio, next_prio, prio) = (99, 255, 120);
        let mut kinds: Vec<EventKind> = [false, true]
            .map(|preempted| {
                EventKind::Switch(Switch {
                    prev: a,
                    next: b,
                    prev_state: TaskState::DEAD,
                    preempted,
                    prev_prio,
                    next_prio,
                })
            })
            .into();
        for context in [Context::Task, Context::Softirq, Context::Hardirq, Context::Nmi] {
            let waking = |on_cpu| Waking { task: a, current: b, context, prev_cpu: cpu, on_cpu, prio };
            kinds.extend([false, true].map(|on_cpu| EventKind::Waking(waking(on_cpu))));
        }
        kinds.extend([
            EventKind::WakeupNew(WakeupNew { task: a, parent: b, target_cpu: cpu, prio }),
            EventKind::Migrate(Migrate { task: a, from: Cpu(2), to: cpu, placed: false, prio }),
            EventKind::Migrate(Migrate { task: a, from: Cpu(2), to: cpu, placed: true, prio }),
            EventKind::Fork(Fork { parent: a, child: b }),
            EventKind::Exec(Exec { task: a, old_tid: 12 }),
            EventKind::Exit(Exit { task: a, group_dead: true }),
            EventKind::Free { task: a },
            EventKind::Rename { task: a },
        ]);
        for kind in kinds {
            let event = Event { ts: Nanos(123), cpu, kind };
            let record = encode(&event).unwrap();
            let words: Vec<u64> = record.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
            assert_eq!(decoder().decode(&words), Decoded::Event(event));
        }
        let snapshot = EventKind::Snapshot(Snapshot { task: a, running: true });
        assert_eq!(encode(&Event { ts: Nanos(1), cpu, kind: snapshot }), None);
    }

    proptest! {
        #[test]
        fn any_words_decode_to_something(words in prop::collection::vec(any::<u64>(), 0..24)) {
            decoder().decode(&words);
        }

        #[test]
        fn every_type_of_record_survives_any_body(kind in 0u8..40, rest in prop::collection::vec(any::<u64>(), 0..20)) {
            let mut words = rest;
            if let Some(first) = words.first_mut() {
                *first = *first & !0xff | u64::from(kind);
            }
            decoder().decode(&words);
        }
    }
}
