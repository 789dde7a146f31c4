//! Who held the CPU while tasks waited for it.
//!
//! Every nanosecond of a wait belongs to whoever had, at that time, the CPU on whose run queue the task was: to
//! another task, to nobody (the CPU was idle: the time that a wakeup of an idle CPU takes), or to somebody unknown.

use serde::Serialize;

use super::cpu_time::ratio;
use super::groups::{Gone, Group, GroupIx, Merge, Pairs, Rows};
use super::states::{Seen, Waited};
use super::study::Scope;
use super::tasks::Who;
use crate::event::TaskId;

/// So many holders are named per group.
const PER_GROUP: usize = 10;
/// So many are named per wait.
const PER_WAIT: usize = 3;
/// So many holders of one wait go into the table: those that held the CPU longest. Each of the others held it for less
/// than a ninth of the wait.
const LONGEST: usize = 8;

/// Who held the CPU while the tasks of a group waited.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HoldersReport {
    /// For all waits together.
    pub total: HeldBy,
    /// The groups that waited longest, most first.
    pub groups: Vec<HoldersRow>,
    /// How many groups waited.
    pub groups_total: usize,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HoldersRow {
    /// Who waited; with CPUs as groups, where.
    pub group: Group,
    /// Behind whom.
    #[serde(flatten)]
    pub held_by: HeldBy,
}

/// Behind whom the time was spent. The holders, `others_ns`, `idle_ns` and `unknown_ns` make up `wait_ns`.
///
/// Waits that an edge of the window cuts off are in it, with the part that lies in the window. Waits during which events
/// are missing are not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HeldBy {
    /// How many waits.
    pub waits: u64,
    /// All of them together.
    pub wait_ns: u64,
    /// The groups that held the CPU longest, most first. With CPUs as groups, the holders are processes.
    ///
    /// In the rows of groups, a wait counts for the eight that held the CPU longest in it, so that crowded run queues can be
    /// told of at all; for the total, it counts for everyone.
    pub holders: Vec<Holder>,
    /// Held by further groups.
    pub others_ns: u64,
    /// The CPU was idle: it had to be woken first.
    pub idle_ns: u64,
    /// `idle_ns` as a share of `wait_ns`.
    pub idle_ratio: f64,
    /// It is not known who held the CPU: events are missing, or the wait was too long to remember.
    pub unknown_ns: u64,
    /// `unknown_ns` as a share of `wait_ns`.
    pub unknown_ratio: f64,
}

/// One holder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holder {
    /// Who held the CPU.
    pub group: Group,
    /// For how long.
    pub held_ns: u64,
    /// The same as a share of `wait_ns`.
    pub share_ratio: f64,
}

/// Who held the CPU during one wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HolderOfWait {
    /// Which task; the idle task if there was none; none if it is not known.
    pub who: Option<Who>,
    /// For how long.
    pub held_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    waits: u64,
    ns: u64,
    idle: u64,
    unseen: u64,
}

impl Merge for Waits {
    fn merge(&mut self, other: &Self) {
        self.waits.merge(&other.waits);
        self.ns.merge(&other.ns);
        self.idle.merge(&other.idle);
        self.unseen.merge(&other.unseen);
    }
}

/// Adds up who held the CPUs.
#[derive(Debug, Default)]
pub(super) struct Holders {
    rows: Rows<Waits>,
    /// Who waited, behind whom.
    pairs: Pairs,
    /// Behind whom all waited.
    total: Rows<u64>,
    /// Room to add up one wait: all zero between waits.
    sums: Rows<u64>,
    /// Where `sums` is not zero.
    some: Vec<GroupIx>,
}

impl Holders {
    pub(super) fn waited(&mut self, wait: &Waited<'_>, row: GroupIx, scope: &Scope, seen: &Seen<'_>) {
        let mut waits = Waits { waits: 1, ..Waits::default() };
        for segment in wait.segments {
            let Some((from, until)) = scope.clip_wait(segment.from, segment.until) else { continue };
            waits.ns.merge(&(until - from).0);
            seen.cpus.held(segment.cpu, from, until, |held| match held.group {
                GroupIx::IDLE => waits.idle.merge(&held.ns),
                GroupIx::UNSEEN => waits.unseen.merge(&held.ns),
                group => {
                    let ns = self.sums.at(group);
                    if *ns == 0 {
                        self.some.push(group);
                    }
                    ns.merge(&held.ns);
                }
            });
        }
        self.rows.at(row).merge(&waits);
        let mut longest = [(0_u64, GroupIx::OTHERS); LONGEST];
        let mut shortest = 0;
        for group in self.some.drain(..) {
            let ns = std::mem::take(self.sums.at(group));
            self.total.at(group).merge(&ns);
            if ns > longest[shortest].0 {
                longest[shortest] = (ns, group);
                shortest = (0..LONGEST).min_by_key(|&at| longest[at].0).unwrap_or(0);
            }
        }
        for &(ns, group) in longest.iter().filter(|(ns, _)| *ns > 0) {
            self.pairs.add(row, group, ns);
        }
    }

    pub(super) fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
        self.pairs.fold(gone);
        self.total.fold(gone);
    }

    /// `open` holds what is not over yet.
    pub(super) fn report(&self, open: &Self, top: usize, seen: &Seen<'_>) -> HoldersReport {
        let (mut rows, mut pairs, mut total) = (self.rows.clone(), self.pairs.clone(), self.total.clone());
        rows.merge(&open.rows);
        pairs.merge(&open.pairs);
        total.merge(&open.total);
        let mut sum = Waits::default();
        rows.iter().for_each(|(_, waits)| sum.merge(waits));
        let ranked = rows.ranked(|waits| waits.ns);
        // Where the named ones stand in the report.
        let mut place = Rows::<u64>::default();
        for (at, &(ix, _)) in ranked.iter().take(top).enumerate() {
            *place.at(ix) = at as u64 + 1;
        }
        let mut of_each: Vec<Vec<(GroupIx, u64)>> = vec![Vec::new(); ranked.len().min(top)];
        for (row, holder, ns) in pairs.iter() {
            if let Some(at) = place.get(row).and_then(|place| place.checked_sub(1)) {
                of_each[at as usize].push((holder, ns));
            }
        }
        let of_all = total.ranked(|&ns| ns).into_iter().map(|(ix, &ns)| (ix, ns)).collect();
        HoldersReport {
            total: held_by(&sum, of_all, top, seen),
            groups: ranked
                .iter()
                .zip(of_each)
                .map(|(&(ix, waits), holders)| HoldersRow {
                    group: seen.tasks.group(ix),
                    held_by: held_by(waits, holders, top.min(PER_GROUP), seen),
                })
                .collect(),
            groups_total: ranked.len(),
        }
    }
}

fn held_by(waits: &Waits, mut holders: Vec<(GroupIx, u64)>, top: usize, seen: &Seen<'_>) -> HeldBy {
    holders.sort_unstable_by_key(|&(ix, ns)| (ix == GroupIx::OTHERS, std::cmp::Reverse(ns), ix));
    let named = holders.iter().take(top).filter(|(ix, _)| *ix != GroupIx::OTHERS);
    let holders: Vec<Holder> = named
        .map(|&(ix, held_ns)| Holder { group: seen.tasks.group(ix), held_ns, share_ratio: ratio(held_ns, waits.ns) })
        .collect();
    let told = holders.iter().map(|holder| holder.held_ns).chain([waits.idle, waits.unseen]);
    let told = told.fold(0, u64::saturating_add);
    HeldBy {
        waits: waits.waits,
        wait_ns: waits.ns,
        holders,
        others_ns: waits.ns.saturating_sub(told),
        idle_ns: waits.idle,
        idle_ratio: ratio(waits.idle, waits.ns),
        unknown_ns: waits.unseen,
        unknown_ratio: ratio(waits.unseen, waits.ns),
    }
}

/// The tasks that held the CPU longest during one wait.
pub(super) fn of_wait(wait: &Waited<'_>, scope: &Scope, seen: &Seen<'_>) -> Vec<HolderOfWait> {
    // None: nobody knows. A long wait may have had many holders, and this is for the few worst ones.
    let mut holders = hashbrown::HashMap::<Option<TaskId>, u64>::new();
    for segment in wait.segments {
        if let Some((from, until)) = scope.clip_wait(segment.from, segment.until) {
            seen.cpus.held(segment.cpu, from, until, |held| {
                holders.entry((held.group != GroupIx::UNSEEN).then_some(held.task)).or_default().merge(&held.ns);
            });
        }
    }
    let mut holders: Vec<_> = holders.into_iter().collect();
    holders.sort_unstable_by_key(|&(who, ns)| (std::cmp::Reverse(ns), who));
    holders.truncate(PER_WAIT);
    holders.into_iter().map(|(who, held_ns)| HolderOfWait { who: who.map(|id| seen.tasks.who(id)), held_ns }).collect()
}
