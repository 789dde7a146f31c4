//! What a sink missed and is still to be told.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::event::{Batch, Cgroup, EventKind, Kind, Loss, LossPlace, Name, Nanos, Task, TaskId};

/// Below this many records everything is carried over as it came; above, what a later record made superfluous goes.
const COMPACT_FROM: usize = 1024;

/// Takes the place of the batches that a full queue turned away: counts their events, and keeps the rest of them for
/// the sink's next batch.
///
/// A sink may be stuck for as long as a recording lasts. What is kept is therefore bounded by what lives, not by what
/// happened: one identity per task that has not been freed, one path per cgroup, each name, one loss per place and kind.
#[derive(Debug)]
pub(super) struct Carry {
    sink: Arc<str>,
    /// Whether a batch was turned away since the last delivery.
    pending: bool,
    until: Nanos,
    tasks: Vec<Task>,
    cgroups: Vec<Cgroup>,
    names: Vec<Name>,
    lost: Vec<Loss>,
    /// Events turned away since the last delivery, by the number of their kind.
    missed: [Option<Loss>; Kind::COUNT],
    /// Tasks whose structure was freed since the last compaction: they need no name any more.
    freed: HashSet<TaskId>,
    compact_at: usize,
    dropped: u64,
}

impl Carry {
    pub(super) fn new(sink: Arc<str>) -> Self {
        Self {
            sink,
            pending: false,
            until: Nanos::ZERO,
            tasks: Vec::new(),
            cgroups: Vec::new(),
            names: Vec::new(),
            lost: Vec::new(),
            missed: [const { None }; Kind::COUNT],
            freed: HashSet::new(),
            compact_at: COMPACT_FROM,
            dropped: 0,
        }
    }

    /// Whether the sink knows everything it can know.
    pub(super) fn is_empty(&self) -> bool {
        !self.pending
    }

    /// How many events were turned away, from the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets what is still to be told.
    pub(super) fn clear(&mut self) {
        *self = Self { dropped: self.dropped, ..Self::new(Arc::clone(&self.sink)) };
    }

    /// Takes a batch that the sink's queue had no room for.
    pub(super) fn drop_batch(&mut self, batch: &Batch) {
        self.pending = true;
        self.until = self.until.max(batch.until);
        for event in batch.events.iter().chain(&batch.late) {
            let kind = event.kind.kind();
            let loss = self.missed[kind as usize].get_or_insert_with(|| Loss {
                place: LossPlace::Queue(Arc::clone(&self.sink)),
                kind: Some(kind),
                count: 0,
                from: event.ts,
                until: event.ts,
            });
            widen(loss, 1, event.ts, event.ts);
            if let EventKind::Free { task } = event.kind {
                self.freed.insert(task);
            }
        }
        self.dropped += (batch.events.len() + batch.late.len()) as u64;
        self.tasks.extend_from_slice(&batch.tasks);
        self.cgroups.extend_from_slice(&batch.cgroups);
        self.names.extend_from_slice(&batch.names);
        self.lost.extend_from_slice(&batch.lost);
        if self.len() >= self.compact_at {
            self.compact();
            self.compact_at = COMPACT_FROM.max(self.len() * 2);
        }
    }

    /// A batch together with everything carried over, which comes first in its lists.
    pub(super) fn deliver(&mut self, batch: &Batch) -> Batch {
        let this = std::mem::replace(self, Self { dropped: self.dropped, ..Self::new(Arc::clone(&self.sink)) });
        let mut merged = Batch {
            until: this.until.max(batch.until),
            events: batch.events.clone(),
            late: batch.late.clone(),
            tasks: this.tasks,
            cgroups: this.cgroups,
            names: this.names,
            lost: this.lost,
            // Those that were missed do not hold any more.
            statuses: batch.statuses.clone(),
        };
        merged.lost.extend(this.missed.into_iter().flatten());
        merged.tasks.extend_from_slice(&batch.tasks);
        merged.cgroups.extend_from_slice(&batch.cgroups);
        merged.names.extend_from_slice(&batch.names);
        merged.lost.extend_from_slice(&batch.lost);
        merged
    }

    fn len(&self) -> usize {
        self.tasks.len() + self.cgroups.len() + self.names.len() + self.lost.len() + self.freed.len()
    }

    fn compact(&mut self) {
        let freed = std::mem::take(&mut self.freed);
        self.tasks.retain(|task| !freed.contains(&task.id));
        keep_last(&mut self.tasks, |task| task.id);
        keep_last(&mut self.cgroups, |cgroup| cgroup.id);
        keep_last(&mut self.names, |name| name.id);
        let mut sums: HashMap<(LossPlace, Option<Kind>), usize> = HashMap::new();
        let mut lost: Vec<Loss> = Vec::new();
        for loss in self.lost.drain(..) {
            match sums.entry((loss.place.clone(), loss.kind)) {
                hashbrown::hash_map::Entry::Occupied(at) => {
                    widen(&mut lost[*at.get()], loss.count, loss.from, loss.until);
                }
                hashbrown::hash_map::Entry::Vacant(at) => {
                    at.insert(lost.len());
                    lost.push(loss);
                }
            }
        }
        self.lost = lost;
    }
}

/// Adds more of the same loss.
fn widen(loss: &mut Loss, count: u64, from: Nanos, until: Nanos) {
    loss.count = loss.count.saturating_add(count);
    loss.from = loss.from.min(from);
    loss.until = loss.until.max(until);
}

/// Removes what a later item of the same key replaces; the order stays.
fn keep_last<T, K: std::hash::Hash + Eq>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let last: HashMap<K, usize> = items.iter().enumerate().map(|(at, item)| (key(item), at)).collect();
    let mut at = 0;
    items.retain(|item| {
        at += 1;
        last.get(&key(item)) == Some(&(at - 1))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CgroupId, Comm, Cpu, Event};

    fn task(id: u32, comm: &str) -> Task {
        Task { id: TaskId(id), comm: Comm::new(comm), ..Task::idle(Cpu(0)) }
    }

    fn event(ts: u64, kind: EventKind) -> Event {
        Event { ts: Nanos(ts), cpu: Cpu(0), kind }
    }

    #[test]
    fn events_are_counted_and_the_rest_is_kept() {
        let mut carry = Carry::new("view".into());
        assert!(carry.is_empty());
        let rename = |ts| event(ts, EventKind::Rename { task: TaskId(1) });
        carry.drop_batch(&Batch {
            until: Nanos(10),
            events: vec![rename(5), rename(6)],
            late: vec![rename(2), event(3, EventKind::Free { task: TaskId(1) })],
            tasks: vec![task(1, "a"), task(1, "b")],
            ..Batch::default()
        });
        assert!(!carry.is_empty());
        let next = Batch { until: Nanos(20), tasks: vec![task(2, "c")], events: vec![rename(11)], ..Batch::default() };
        let told = carry.deliver(&next);
        assert_eq!(told.tasks, [task(1, "a"), task(1, "b"), task(2, "c")], "few records are carried as they came");
        assert_eq!((told.until, &told.events), (Nanos(20), &next.events));
        let loss = |kind, count, from, until| Loss {
            place: LossPlace::Queue("view".into()),
            kind: Some(kind),
            count,
            from: Nanos(from),
            until: Nanos(until),
        };
        assert_eq!(told.lost, [loss(Kind::Free, 1, 3, 3), loss(Kind::Rename, 3, 2, 6)]);
        assert!(carry.is_empty(), "it is told once");
        assert_eq!((carry.deliver(&next), carry.dropped()), (next, 4));
    }

    #[test]
    fn a_sink_that_is_stuck_for_ever_takes_bounded_memory() {
        let mut carry = Carry::new("view".into());
        for n in 0..200_000_u32 {
            let place = if n % 2 == 0 { LossPlace::Nested } else { LossPlace::Late };
            let loss = Loss { place, kind: None, count: 1, from: Nanos(n.into()), until: Nanos(n.into()) };
            carry.drop_batch(&Batch {
                until: Nanos(n.into()),
                events: vec![event(n.into(), EventKind::Free { task: TaskId(n) })],
                // Short lives, and one that lasts and changes its name again and again.
                tasks: vec![task(n, "short"), task(u32::MAX, &n.to_string())],
                cgroups: vec![Cgroup { id: CgroupId(7), path: n.to_string().into() }],
                lost: vec![loss],
                ..Batch::default()
            });
            assert!(carry.len() <= 2 * COMPACT_FROM);
        }
        let told = carry.deliver(&Batch::default());
        assert_eq!(told.tasks.last(), Some(&task(u32::MAX, "199999")));
        assert_eq!(told.cgroups.last().map(|cgroup| &*cgroup.path), Some("199999"));
        let sum = |place: LossPlace| told.lost.iter().filter(|l| l.place == place).map(|l| l.count).sum::<u64>();
        assert_eq!(sum(LossPlace::Nested), 100_000);
        assert_eq!(sum(LossPlace::Late), 100_000);
        assert_eq!(sum(LossPlace::Queue("view".into())), 200_000);
        let nested = told.lost.iter().filter(|loss| loss.place == LossPlace::Nested);
        assert_eq!(nested.map(|loss| loss.from).min(), Some(Nanos(0)));
    }

    #[test]
    fn only_what_came_last_of_a_key_stays() {
        let mut items = vec![(1, 'a'), (2, 'b'), (1, 'c'), (3, 'd'), (2, 'e')];
        keep_last(&mut items, |item| item.0);
        assert_eq!(items, [(1, 'c'), (3, 'd'), (2, 'e')]);
    }
}
