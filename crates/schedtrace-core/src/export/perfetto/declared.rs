//! Events of the kinds that are declared with their fields, as track events: slices, instants and counters, on the tracks
//! of threads, CPUs and disks, with all fields as arguments.

use hashbrown::HashMap;

use super::proto::{Annotation, CounterDescriptor, Data, ThreadDescriptor, TrackDescriptor, TrackEvent, track_event};
use crate::event::{self, Event, EventGroup, FieldInfo, FieldType, Kind, Nanos, Shape};
use crate::export::names::Names;

/// Track ids from here on.
const FIRST_TRACK: u64 = 1 << 34;

/// Whose track it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// By its thread id and its process's.
    Thread(u32, u32),
    Cpu(u16),
    Thing(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    owner: Owner,
    /// None for the thread's own.
    name: Option<&'static str>,
    /// Slices of one track do not overlap: what goes on at once has lanes of its own.
    lane: usize,
}

/// A packet, and the time it bears.
pub(super) type Packet = (Option<Nanos>, Data);

/// The tracks that were described so far.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    ids: HashMap<Key, u64>,
    /// When each lane of an owner is free again.
    lanes: HashMap<(Owner, &'static str), Vec<Nanos>>,
}

impl Tracks {
    /// What is to be written of an event.
    pub(super) fn event(&mut self, event: &Event, names: &Names, out: &mut Vec<Packet>) {
        let kind = event.kind.kind();
        let values = event.kind.values();
        let fields = || kind.fields().iter().zip(values.iter().copied());
        let shape = kind.shape();
        match shape {
            Shape::Counter => {
                let (what, value) = (fields().next(), values.last().copied().unwrap_or_default());
                let what = what.map(|(field, value)| names.value(field.ty, value)).unwrap_or_default();
                let title = if kind.group() == EventGroup::System { what } else { format!("CPU {what}") };
                let track = self.counter(kind, title, out);
                let counter_value = Some(value.cast_signed());
                out.push((
                    Some(event.ts),
                    of(track_event::COUNTER, track, |event| TrackEvent { counter_value, ..event }),
                ));
            }
            Shape::Begin | Shape::End | Shape::Instant => {
                // A moment has a place on a track where nothing that lasts could be mistaken to enclose it.
                let name = if shape == Shape::Instant { kind.name() } else { pair(kind) };
                let track = self.track(Key { owner: owner(event, names), name: Some(name), lane: 0 }, out);
                let how = match shape {
                    Shape::Begin => track_event::SLICE_BEGIN,
                    Shape::End => track_event::SLICE_END,
                    _ => track_event::INSTANT,
                };
                out.push((Some(event.ts), described(how, track, kind, fields(), names)));
            }
            Shape::Span => {
                let lasted = fields().find(|(field, _)| ["duration_ns", "latency_ns"].contains(&field.name));
                let begun = event.ts - Nanos(lasted.map_or(0, |(_, value)| value));
                let owner = owner(event, names);
                let lane = self.lane(&owner, kind.name(), begun, event.ts);
                let track = self.track(Key { owner, name: Some(kind.name()), lane }, out);
                out.push((Some(begun), described(track_event::SLICE_BEGIN, track, kind, fields(), names)));
                out.push((Some(event.ts), of(track_event::SLICE_END, track, |event| event)));
            }
        }
    }

    /// The first lane that is free from then on; it is taken until the end.
    fn lane(&mut self, owner: &Owner, name: &'static str, from: Nanos, until: Nanos) -> usize {
        let lanes = self.lanes.entry((owner.clone(), name)).or_default();
        match lanes.iter().position(|free| *free <= from) {
            Some(lane) => {
                lanes[lane] = until;
                lane
            }
            None => {
                lanes.push(until);
                lanes.len() - 1
            }
        }
    }

    fn counter(&mut self, kind: Kind, title: String, out: &mut Vec<Packet>) -> u64 {
        let key = Key { owner: Owner::Thing(title), name: Some(kind.name()), lane: 0 };
        let next = FIRST_TRACK + self.ids.len() as u64;
        *self.ids.entry(key).or_insert_with_key(|key| {
            let Owner::Thing(title) = &key.owner else { return next };
            let name = Some(format!("{} {title}", kind.name()));
            let counter = Some(CounterDescriptor { unit_name: None });
            let track = TrackDescriptor { uuid: Some(next), name, counter, ..TrackDescriptor::default() };
            out.push((None, Data::TrackDescriptor(track)));
            next
        })
    }

    fn track(&mut self, key: Key, out: &mut Vec<Packet>) -> u64 {
        if let Some(&known) = self.ids.get(&key) {
            return known;
        }
        // A thread's tracks hang below its own.
        let parent_uuid = match &key.owner {
            Owner::Thread(..) if key.name.is_some() => {
                Some(self.track(Key { owner: key.owner.clone(), name: None, lane: 0 }, out))
            }
            _ => None,
        };
        let uuid = FIRST_TRACK + self.ids.len() as u64;
        let (mut name, mut thread) = (key.name.map(str::to_owned), None);
        match (&key.owner, key.name) {
            (Owner::Thread(tid, tgid), None) => {
                thread = Some(ThreadDescriptor { pid: Some(tgid.cast_signed()), tid: Some(tid.cast_signed()) });
            }
            (Owner::Cpu(cpu), Some(what)) => name = Some(format!("CPU {cpu} {what}")),
            (Owner::Thing(thing), Some(what)) => name = Some(format!("{what} {thing}")),
            _ => {}
        }
        let track = TrackDescriptor { uuid: Some(uuid), name, parent_uuid, thread, ..TrackDescriptor::default() };
        out.push((None, Data::TrackDescriptor(track)));
        self.ids.insert(key, uuid);
        uuid
    }
}

/// A disk's requests are its own, whoever asked for them; what has no task is the CPU's.
fn owner(event: &Event, names: &Names) -> Owner {
    let kind = event.kind.kind();
    let values = event.kind.values();
    let field = |name: &str| kind.fields().iter().position(|field| field.name == name).and_then(|at| values.get(at));
    match (kind.group(), event.kind.task()) {
        (EventGroup::Block, _) => {
            Owner::Thing(field("device").map(|&device| names.value(FieldType::Name, device)).unwrap_or_default())
        }
        (_, Some(task)) => {
            let name = names.of(task);
            Owner::Thread(name.tid, name.tgid)
        }
        (EventGroup::Cpu, None) => Owner::Cpu(field("target_cpu").map_or(event.cpu.0, |&cpu| cpu as u16)),
        (EventGroup::System, None) => Owner::Thing("recorder".to_owned()),
        _ => Owner::Cpu(event.cpu.0),
    }
}

/// What a kind that begins something and the one that ends it have in common.
fn pair(kind: Kind) -> &'static str {
    match kind {
        Kind::IrqEntry | Kind::IrqExit => "irq",
        Kind::SoftirqEntry | Kind::SoftirqExit => "softirq",
        Kind::IpiEntry | Kind::IpiExit => "ipi",
        Kind::HotplugEnter | Kind::HotplugExit => "cpuhp",
        Kind::WorkStart | Kind::WorkEnd => "workqueue",
        Kind::ReclaimBegin | Kind::ReclaimEnd => "direct_reclaim",
        kind => kind.name(),
    }
}

fn of(r#type: i32, track: u64, more: impl FnOnce(TrackEvent) -> TrackEvent) -> Data {
    let event = TrackEvent { r#type: Some(r#type), track_uuid: Some(track), ..TrackEvent::default() };
    Data::TrackEvent(more(event))
}

/// With its fields, and called as its first name says.
fn described<'a>(
    r#type: i32,
    track: u64,
    kind: Kind,
    fields: impl Iterator<Item = (&'a FieldInfo, u64)>,
    names: &Names,
) -> Data {
    let mut title = None;
    let annotation = |(field, value): (&FieldInfo, u64)| {
        let mut annotation = Annotation { name: Some(field.name.to_owned()), ..Annotation::default() };
        match field.ty {
            FieldType::Name | FieldType::Choice(_) => {
                let text = names.value(field.ty, value);
                if !text.is_empty() {
                    title.get_or_insert_with(|| text.clone());
                }
                annotation.string_value = Some(text);
            }
            FieldType::Signed => annotation.int_value = Some(value.cast_signed()),
            FieldType::Flag => annotation.bool_value = Some(value != 0),
            FieldType::Id => annotation.pointer_value = Some(value),
            FieldType::Task => annotation.int_value = Some(names.of(event::TaskId(value as u32)).tid.into()),
            _ => annotation.uint_value = Some(value),
        }
        annotation
    };
    let debug_annotations: Vec<_> = fields.map(annotation).collect();
    let name = (r#type != track_event::SLICE_END).then(|| title.unwrap_or_else(|| kind.name().to_owned()));
    let categories = vec![kind.group().to_string()];
    of(r#type, track, |event| TrackEvent { name, categories, debug_annotations, ..event })
}
