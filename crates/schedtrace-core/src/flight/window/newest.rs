//! Where a window begins, and what is known there; and how who wants only the newest part goes on from where they were.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::{Held, MAX_LOSSES, MAX_NAMES, Part, View};
use crate::event::{Batch, Event, Loss, Name, NameId, Nanos};
use crate::known::{Identities, Statuses};

/// Where it begins, and what is known there.
#[derive(Clone, Debug, Default)]
pub(super) struct Start {
    pub(super) from: Nanos,
    pub(super) identities: Identities,
    pub(super) statuses: Statuses,
    pub(super) names: HashMap<NameId, Name>,
    /// What is missing from before that reaches beyond there.
    pub(super) lost: VecDeque<Loss>,
}

impl Start {
    /// Takes note of a loss from before the window.
    pub(super) fn carry(&mut self, loss: &Loss) {
        self.statuses.lost(loss);
        self.lost.push_back(loss.clone());
        while self.lost.len() > MAX_LOSSES {
            self.merge_losses();
        }
    }

    /// Goes on to the end of a part: takes note of what holds there. Its losses are carried apart from it.
    pub(super) fn pass(&mut self, part: &Part) {
        if let Some(about) = &part.about {
            for task in &about.tasks {
                self.identities.task(task, part.from);
            }
            about.cgroups.iter().for_each(|cgroup| self.identities.cgroup(cgroup, part.from));
            for name in &about.names {
                if self.names.len() < MAX_NAMES || self.names.contains_key(&name.id) {
                    self.names.insert(name.id, name.clone());
                }
            }
            about.statuses.iter().for_each(|status| self.statuses.known(status));
        }
        let mut pass = |event: &Event| {
            self.statuses.event(event);
            drop(self.identities.event(event));
        };
        if part.late.is_empty() {
            part.events.iter().for_each(|event| pass(&event));
        } else {
            part.in_order().iter().for_each(pass);
        }
        self.from = self.from.max(part.until);
    }

    /// Goes on to a moment, or to where the next part begins: between two parts nothing happened.
    pub(super) fn advance(&mut self, since: Nanos, next: Option<&Part>) {
        let next = next.map_or(since, Part::begins);
        self.from = self.from.max(since.min(next));
    }

    /// What somebody has to know who begins there.
    pub(super) fn first(&self) -> Batch {
        let mut names: Vec<Name> = self.names.values().cloned().collect();
        names.sort_unstable_by_key(|name| name.id);
        Batch {
            until: self.from,
            tasks: self.identities.carry_tasks().map(|note| note.item).filter(|task| !task.id.is_idle()).collect(),
            cgroups: self.identities.carry_cgroups().map(|note| note.item).collect(),
            names,
            statuses: self.statuses.carry(),
            lost: self.lost.iter().cloned().collect(),
            ..Batch::default()
        }
    }

    /// Of two losses, makes one that says no less.
    fn merge_losses(&mut self) {
        let (Some(first), Some(second)) = (self.lost.pop_front(), self.lost.front_mut()) else { return };
        second.count = second.count.saturating_add(first.count);
        (second.from, second.until) = (second.from.min(first.from), second.until.max(first.until));
        second.kind = second.kind.filter(|kind| first.kind == Some(*kind));
    }
}

/// Who reads the newest part again and again: parts that they have passed are not read a second time.
#[derive(Debug)]
pub(super) struct Newest {
    start: Start,
    /// The number of the part that comes next.
    seq: u64,
}

impl Newest {
    /// One that can go on to a moment: that of before, unless it is too far, or something has come late to what it passed.
    pub(super) fn of(before: Option<Self>, held: &mut Held, from: Nanos) -> Self {
        let changed = held.changed.take();
        let goes_on = |newest: &Self| {
            newest.seq >= held.first_seq && newest.start.from <= from && changed.is_none_or(|seq| seq >= newest.seq)
        };
        before.filter(goes_on).unwrap_or_else(|| Self { start: held.start.clone(), seq: held.first_seq })
    }

    /// The parts that are to be passed before a moment, and all that follows it but for what is known there.
    pub(super) fn parts(&mut self, held: &Held, from: Nanos) -> (Vec<Part>, View) {
        let at = usize::try_from(self.seq - held.first_seq).unwrap_or(usize::MAX).min(held.parts.len());
        let cut = held.parts.partition_point(|part| part.until <= from).max(at);
        // Losses are told at any time after, also those of what was passed.
        self.start.lost.clone_from(&held.start.lost);
        self.start.statuses.lost_as(&held.start.statuses);
        held.parts.range(..cut).flat_map(|part| &part.lost).for_each(|loss| self.start.carry(loss));
        self.seq = held.first_seq + cut as u64;
        self.start.from = self.start.from.max(held.start.from);
        let view = View {
            meta: held.meta(self.start.from),
            first: Batch::default(),
            parts: held.parts.range(cut..).cloned().collect(),
        };
        (held.parts.range(at..cut).cloned().collect(), view)
    }

    /// Passes them; what is left begins there.
    pub(super) fn pass(&mut self, passed: &[Part], view: &mut View, from: Nanos) {
        passed.iter().for_each(|part| self.start.pass(part));
        let passed_until = self.start.from;
        self.start.advance(from.min(view.meta.ended.unwrap_or(from)), view.parts.first());
        let begins = self.start.from;
        self.start.lost.retain(|loss| loss.until >= begins);
        view.meta.started = begins;
        view.first = self.start.first();
        // What comes late to the next part may be earlier than its first event is now.
        self.start.from = passed_until;
    }
}
