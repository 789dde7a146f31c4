//! Events in less room: those of which there are most take 20 bytes instead of 48, and come back as they were.

use crate::event::{
    Context, Cpu, Event, EventKind, Kind, Migrate, Nanos, Switch, TaskId, TaskState, WakeupNew, Waking,
};

/// The fields of an event of which the kind is declared with them are kept here if they are no more than that.
const SMALL: usize = 3;

/// Events of one batch, in their order.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// The time that theirs are counted from.
    base: Nanos,
    records: Box<[Record]>,
    /// What does not fit.
    wide: Box<[Event]>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    /// Nanoseconds after the base.
    after_ns: u32,
    what: What,
}

/// As [`EventKind`], with the CPU of the event.
#[derive(Clone, Copy, Debug)]
enum What {
    Switch {
        prev: TaskId,
        next: TaskId,
        cpu: Cpu,
        prev_state: TaskState,
        preempted: bool,
        prev_prio: u8,
        next_prio: u8,
    },
    Waking {
        task: TaskId,
        current: TaskId,
        cpu: Cpu,
        prev_cpu: Cpu,
        context: Context,
        on_cpu: bool,
        prio: u8,
    },
    WakeupNew {
        task: TaskId,
        parent: TaskId,
        cpu: Cpu,
        target_cpu: Cpu,
        prio: u8,
    },
    Migrate {
        task: TaskId,
        cpu: Cpu,
        from: Cpu,
        to: Cpu,
        placed: bool,
        prio: u8,
    },
    /// A declared kind, and its first fields.
    Small {
        kind: Kind,
        cpu: Cpu,
        values: [u32; SMALL],
    },
    /// It is the one of this number among those that do not fit.
    Wide(u32),
}

impl Packed {
    /// Packs events, as many as there are numbers for.
    pub(super) fn new(events: &[Event]) -> Self {
        let base = events.first().map_or(Nanos::ZERO, |event| event.ts);
        let mut wide = Vec::new();
        let pack = |event: &Event| {
            let after = event.ts.0.checked_sub(base.0).and_then(|after| u32::try_from(after).ok());
            let fits = after.and_then(|after_ns| Some(Record { after_ns, what: What::of(event)? }));
            fits.unwrap_or_else(|| {
                wide.push(*event);
                Record { after_ns: 0, what: What::Wide((wide.len() - 1) as u32) }
            })
        };
        let records = events.iter().map(pack).collect();
        Self { base, records, wide: wide.into() }
    }

    /// When the first one was.
    pub(super) fn first(&self) -> Nanos {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The room they take.
    pub(super) fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.records) + std::mem::size_of_val(&*self.wide)
    }

    /// The events, as they were.
    pub(super) fn iter(&self) -> impl Iterator<Item = Event> {
        self.records.iter().filter_map(|record| match record.what {
            What::Wide(at) => self.wide.get(at as usize).copied(),
            what => {
                let (cpu, kind) = what.event()?;
                Some(Event { ts: self.base + Nanos(record.after_ns.into()), cpu, kind })
            }
        })
    }
}

impl What {
    #[inline]
    fn of(event: &Event) -> Option<Self> {
        let cpu = event.cpu;
        Some(match event.kind {
            EventKind::Switch(Switch { prev, next, prev_state, preempted, prev_prio, next_prio }) => {
                Self::Switch { prev, next, cpu, prev_state, preempted, prev_prio, next_prio }
            }
            EventKind::Waking(Waking { task, current, context, prev_cpu, on_cpu, prio }) => {
                Self::Waking { task, current, cpu, prev_cpu, context, on_cpu, prio }
            }
            EventKind::WakeupNew(WakeupNew { task, parent, target_cpu, prio }) => {
                Self::WakeupNew { task, parent, cpu, target_cpu, prio }
            }
            EventKind::Migrate(Migrate { task, from, to, placed, prio }) => {
                Self::Migrate { task, cpu, from, to, placed, prio }
            }
            ref declared => {
                let found = declared.values();
                if found.is_empty() || found.len() > SMALL {
                    return None;
                }
                let mut values = [0; SMALL];
                for (value, found) in values.iter_mut().zip(found.iter()) {
                    *value = u32::try_from(*found).ok()?;
                }
                Self::Small { kind: declared.kind(), cpu, values }
            }
        })
    }

    #[inline]
    fn event(self) -> Option<(Cpu, EventKind)> {
        Some(match self {
            Self::Switch { prev, next, cpu, prev_state, preempted, prev_prio, next_prio } => {
                (cpu, EventKind::Switch(Switch { prev, next, prev_state, preempted, prev_prio, next_prio }))
            }
            Self::Waking { task, current, cpu, prev_cpu, context, on_cpu, prio } => {
                (cpu, EventKind::Waking(Waking { task, current, context, prev_cpu, on_cpu, prio }))
            }
            Self::WakeupNew { task, parent, cpu, target_cpu, prio } => {
                (cpu, EventKind::WakeupNew(WakeupNew { task, parent, target_cpu, prio }))
            }
            Self::Migrate { task, cpu, from, to, placed, prio } => {
                (cpu, EventKind::Migrate(Migrate { task, from, to, placed, prio }))
            }
            Self::Small { kind, cpu, values } => (cpu, EventKind::from_values(kind, &values.map(u64::from))?),
            Self::Wide(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_stays_small() {
        assert_eq!(std::mem::size_of::<Record>(), 20);
    }

    /// An event of any kind, with any values that its fields take.
    fn event() -> impl Strategy<Value = Event> {
        let (n, task) = (any::<u32>(), any::<u32>().prop_map(TaskId));
        let (cpu, prio, flag) = (any::<u16>().prop_map(Cpu), any::<u8>(), any::<bool>());
        let declared = (0..Kind::ALL.len(), prop::array::uniform8(prop_oneof![0..4u64, any::<u64>()]));
        let switch = (task.clone(), task.clone(), any::<u16>(), flag, prio, prio);
        let waking = (task.clone(), task.clone(), cpu.clone(), flag, prio, 0..4usize);
        let contexts = [Context::Task, Context::Softirq, Context::Hardirq, Context::Nmi];
        let kind = prop_oneof![
            switch.prop_map(|(prev, next, state, preempted, prev_prio, next_prio)| {
                let prev_state = TaskState(state);
                EventKind::Switch(Switch { prev, next, prev_state, preempted, prev_prio, next_prio })
            }),
            waking.prop_map(move |(task, current, prev_cpu, on_cpu, prio, context)| {
                EventKind::Waking(Waking { task, current, context: contexts[context], prev_cpu, on_cpu, prio })
            }),
            (task.clone(), task.clone(), cpu.clone(), prio).prop_map(|(task, parent, target_cpu, prio)| {
                EventKind::WakeupNew(WakeupNew { task, parent, target_cpu, prio })
            }),
            (task.clone(), cpu.clone(), cpu.clone(), flag, prio).prop_map(|(task, from, to, placed, prio)| {
                EventKind::Migrate(Migrate { task, from, to, placed, prio })
            }),
            (task.clone(), n).prop_map(|(task, old_tid)| EventKind::Exec(crate::event::Exec { task, old_tid })),
            declared.prop_map(|(kind, values)| {
                EventKind::from_values(Kind::ALL[kind], &values).unwrap_or(EventKind::Free { task: TaskId(1) })
            }),
        ];
        (prop_oneof![0..10_000_000_000u64, any::<u64>()], cpu, kind).prop_map(|(ts, cpu, kind)| Event {
            ts: Nanos(ts),
            cpu,
            kind,
        })
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(events in prop::collection::vec(event(), 0..50)) {
            let packed = Packed::new(&events);
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), events);
        }
    }
}
