//! What a report has a row for: groups of tasks or CPUs, their names, and tables of bounded size that are kept per group.
//!
//! Tasks come and go without end, so at most [`MAX_GROUPS`] groups are kept. Before that many are reached, groups
//! whose tasks have all ended are folded into one, [`Group::Others`], those that mattered least first.

use hashbrown::HashMap;
use serde::Serialize;

use super::tasks::{Who, WhoName};
use crate::event::{CgroupId, Cpu, TaskId};

/// So many groups are kept.
pub(super) const MAX_GROUPS: usize = 1 << 16;
/// So many ended groups survive a folding.
const KEEP_ENDED: usize = 1 << 12;
/// So many pairs of groups are kept in one table.
const MAX_PAIRS: usize = 1 << 18;

/// What a row of a report speaks of.
///
/// ```
/// use schedtrace_core::{Cpu, analysis::Group};
/// let group = Group::Process { pid: 42, comm: "sshd".into() };
/// assert_eq!((group.to_string(), Group::Cpu { cpu: Cpu(3) }.to_string()), ("sshd[42]".into(), "CPU 3".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Group {
    /// One life of one thread.
    Task(Who),
    /// The threads of one life of one process.
    Process {
        /// Process (thread group) id.
        pid: u32,
        /// The name of its leader or, while that is not known, of one of its threads.
        comm: String,
    },
    /// The tasks of a cgroup.
    Cgroup {
        /// Its id.
        id: CgroupId,
        /// Its path in the v2 hierarchy, if that is known; control characters replaced.
        path: Option<String>,
    },
    /// What happened on one CPU.
    Cpu {
        /// Which.
        cpu: Cpu,
    },
    /// What happened on CPUs that share a last-level cache.
    Llc {
        /// The lowest number among these CPUs; none for CPUs of which it is not known.
        llc: Option<u32>,
    },
    /// Tasks whose identity never came.
    Unknown,
    /// Groups that were too many to keep apart.
    Others,
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Task(who) => who.to_string(),
            Self::Process { pid, comm } => format!("{comm}[{pid}]"),
            Self::Cgroup { path: Some(path), .. } => path.clone(),
            Self::Cgroup { id, path: None } => format!("cgroup {}", id.0),
            Self::Cpu { cpu } => format!("CPU {cpu}"),
            Self::Llc { llc: Some(llc) } => format!("LLC {llc}"),
            Self::Llc { llc: None } => "LLC unknown".to_owned(),
            Self::Unknown => "unknown tasks".to_owned(),
            Self::Others => "others".to_owned(),
        };
        f.pad(&text)
    }
}

/// A group's place in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GroupIx(pub(super) u32);

impl GroupIx {
    /// Takes what cannot be kept apart.
    pub(super) const OTHERS: Self = Self(0);
    /// Tasks without an identity, where groups are not tasks.
    pub(super) const UNKNOWN: Self = Self(1);
    /// No group: the idle task.
    pub(super) const IDLE: Self = Self(u32::MAX);
    /// No group: nobody knows who.
    pub(super) const UNSEEN: Self = Self(u32::MAX - 1);
    /// No group: wakers that are interrupts.
    pub(super) const SOFTIRQ: Self = Self(u32::MAX - 2);
    pub(super) const HARDIRQ: Self = Self(u32::MAX - 3);
    pub(super) const NMI: Self = Self(u32::MAX - 4);
}

/// What makes a group one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Others,
    Unknown,
    Task(TaskId),
    /// Number of a process's life.
    Process(u32),
    Cgroup(CgroupId),
    Cpu(Cpu),
    Llc(Option<u32>),
}

#[derive(Debug)]
struct Member {
    key: Key,
    name: WhoName,
    /// Known tasks or CPUs that belong to it; without any, the group can be folded.
    members: u32,
}

/// All groups there are.
#[derive(Debug)]
pub(super) struct Groups {
    index: HashMap<Key, GroupIx>,
    list: Vec<Member>,
    free: Vec<GroupIx>,
    /// Groups that were refused since the last folding.
    refused: u64,
}

impl Default for Groups {
    fn default() -> Self {
        let mut groups = Self { index: HashMap::new(), list: Vec::new(), free: Vec::new(), refused: 0 };
        // Never folded: OTHERS and UNKNOWN have these places for good.
        groups.join(Key::Others, WhoName::NOBODY);
        groups.join(Key::Unknown, WhoName::NOBODY);
        groups
    }
}

impl Groups {
    /// The group of this key, with one more member.
    pub(super) fn join(&mut self, key: Key, name: WhoName) -> GroupIx {
        if let Some(&ix) = self.index.get(&key) {
            self.list[ix.0 as usize].members += 1;
            return ix;
        }
        let entry = Member { key, name, members: 1 };
        let ix = if let Some(ix) = self.free.pop() {
            self.list[ix.0 as usize] = entry;
            ix
        } else if self.list.len() < MAX_GROUPS {
            self.list.push(entry);
            GroupIx((self.list.len() - 1) as u32)
        } else {
            self.refused += 1;
            self.list[0].members += 1;
            return GroupIx::OTHERS;
        };
        self.index.insert(key, ix);
        ix
    }

    /// The group has one member less.
    pub(super) fn leave(&mut self, ix: GroupIx) {
        let entry = &mut self.list[ix.0 as usize];
        entry.members = entry.members.saturating_sub(1);
    }

    /// Tells the name by which the group is known from now on.
    pub(super) fn rename(&mut self, ix: GroupIx, name: WhoName) {
        if ix != GroupIx::OTHERS && ix != GroupIx::UNKNOWN {
            self.list[ix.0 as usize].name = name;
        }
    }

    pub(super) fn key(&self, ix: GroupIx) -> Key {
        self.list.get(ix.0 as usize).map_or(Key::Unknown, |entry| entry.key)
    }

    pub(super) fn name(&self, ix: GroupIx) -> WhoName {
        self.list.get(ix.0 as usize).map_or(WhoName::NOBODY, |entry| entry.name)
    }

    /// Whether it is time to fold: room is short, and there is something to fold.
    pub(super) fn crowded(&self) -> bool {
        let used = self.list.len() - self.free.len();
        let full = used > MAX_GROUPS - MAX_GROUPS / 8 || self.refused > 0;
        full && self.list.iter().filter(|entry| entry.members == 0).count() > 2 * KEEP_ENDED
    }

    /// Gives up groups without members, all but the ones with the highest scores.
    pub(super) fn fold(&mut self, score: impl Fn(GroupIx) -> u64) -> Gone {
        let mut ended: Vec<GroupIx> = self.without_members();
        if ended.len() > KEEP_ENDED {
            ended.select_nth_unstable_by_key(KEEP_ENDED, |&ix| std::cmp::Reverse(score(ix)));
        }
        self.give_up(&ended[KEEP_ENDED.min(ended.len())..])
    }

    /// Gives up every group without members.
    pub(super) fn forget(&mut self) -> Gone {
        let ended = self.without_members();
        self.give_up(&ended)
    }

    fn without_members(&self) -> Vec<GroupIx> {
        let indexed = |&ix: &GroupIx| self.index.get(&self.list[ix.0 as usize].key) == Some(&ix);
        (0..self.list.len() as u32)
            .map(GroupIx)
            .filter(|&ix| self.list[ix.0 as usize].members == 0)
            .filter(indexed)
            .collect()
    }

    fn give_up(&mut self, ended: &[GroupIx]) -> Gone {
        self.refused = 0;
        let mut gone = vec![false; self.list.len()];
        for &ix in ended.iter().filter(|&&ix| ix > GroupIx::UNKNOWN) {
            gone[ix.0 as usize] = true;
            self.index.remove(&self.list[ix.0 as usize].key);
            self.free.push(ix);
        }
        Gone(gone)
    }
}

/// The groups that were given up: their places go to other groups.
#[derive(Debug)]
pub struct Gone(Vec<bool>);

impl Gone {
    /// Whose place takes what this one had.
    pub(super) fn now(&self, ix: GroupIx) -> GroupIx {
        if self.0.get(ix.0 as usize).copied().unwrap_or(false) { GroupIx::OTHERS } else { ix }
    }
}

/// What can be added up.
pub(super) trait Merge {
    fn merge(&mut self, other: &Self);
}

impl Merge for u64 {
    fn merge(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }
}

/// One value per group.
#[derive(Clone, Debug)]
pub(super) struct Rows<T>(Vec<T>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default + Merge> Rows<T> {
    pub(super) fn at(&mut self, ix: GroupIx) -> &mut T {
        let at = ix.0 as usize;
        debug_assert!(at < MAX_GROUPS, "no group");
        if at >= self.0.len() {
            self.0.resize_with(at + 1, T::default);
        }
        &mut self.0[at]
    }

    pub(super) fn get(&self, ix: GroupIx) -> Option<&T> {
        self.0.get(ix.0 as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (GroupIx, &T)> {
        self.0.iter().enumerate().map(|(at, row)| (GroupIx(at as u32), row))
    }

    /// The groups of which this is more than nothing, most first.
    pub(super) fn ranked(&self, most: impl Fn(&T) -> u64) -> Vec<(GroupIx, &T)> {
        let mut rows: Vec<_> = self.iter().filter(|(_, row)| most(row) > 0).collect();
        rows.sort_unstable_by_key(|&(ix, row)| (std::cmp::Reverse(most(row)), ix));
        rows
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (ix, row) in other.iter() {
            self.at(ix).merge(row);
        }
    }

    pub(super) fn fold(&mut self, gone: &Gone) {
        for at in 0..self.0.len() {
            let ix = GroupIx(at as u32);
            if gone.now(ix) != ix {
                let row = std::mem::take(&mut self.0[at]);
                self.0[GroupIx::OTHERS.0 as usize].merge(&row);
            }
        }
    }
}

/// A number, never zero, per pair of groups. Where there are too many pairs, the second of a new one is
/// [`GroupIx::OTHERS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    /// Of the first groups, which are most of all there are on most machines: zero for pairs that are not there. In a map of
    /// all pairs, each look-up would miss the caches, and a report makes several for every wait.
    dense: Vec<Vec<u64>>,
    sparse: HashMap<(GroupIx, GroupIx), u64>,
    len: usize,
}

/// So many groups have their pairs side by side: 8 MiB, if each of them meets each.
const DENSE: u32 = 1 << 10;

impl Pairs {
    pub(super) fn add(&mut self, a: GroupIx, b: GroupIx, n: u64) {
        if n == 0 {
            return;
        }
        let b = if self.len >= MAX_PAIRS && self.get(a, b) == 0 { GroupIx::OTHERS } else { b };
        let sum = self.cell(a, b);
        let new = *sum == 0;
        sum.merge(&n);
        self.len += usize::from(new);
    }

    fn get(&self, a: GroupIx, b: GroupIx) -> u64 {
        let sum = if a.0 < DENSE && b.0 < DENSE {
            self.dense.get(a.0 as usize).and_then(|row| row.get(b.0 as usize))
        } else {
            self.sparse.get(&(a, b))
        };
        sum.copied().unwrap_or(0)
    }

    fn cell(&mut self, a: GroupIx, b: GroupIx) -> &mut u64 {
        if a.0 >= DENSE || b.0 >= DENSE {
            return self.sparse.entry((a, b)).or_default();
        }
        let (row, column) = (a.0 as usize, b.0 as usize);
        if row >= self.dense.len() {
            self.dense.resize_with(row + 1, Vec::new);
        }
        let row = &mut self.dense[row];
        if column >= row.len() {
            row.resize(column + 1, 0);
        }
        &mut row[column]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (GroupIx, GroupIx, u64)> {
        let sparse = self.sparse.iter().map(|(&(a, b), &n)| (a, b, n));
        let dense = (0..).map(GroupIx).zip(&self.dense).flat_map(|(a, row)| {
            let pairs = (0..).map(GroupIx).zip(row).filter(|(_, n)| **n > 0);
            pairs.map(move |(b, &n)| (a, b, n))
        });
        dense.chain(sparse)
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.add_all(other.iter().collect());
    }

    /// The largest first: those keep their names where there is no room for all, and the same ones every time.
    fn add_all(&mut self, mut pairs: Vec<(GroupIx, GroupIx, u64)>) {
        pairs.sort_unstable_by_key(|&(a, b, n)| (std::cmp::Reverse(n), a, b));
        pairs.into_iter().for_each(|(a, b, n)| self.add(a, b, n));
    }

    pub(super) fn fold(&mut self, gone: &Gone) {
        let moved = |a: GroupIx, b: GroupIx| gone.now(a) != a || gone.now(b) != b;
        let moving: Vec<_> = self.iter().filter(|&(a, b, _)| moved(a, b)).collect();
        for &(a, b, _) in &moving {
            *self.cell(a, b) = 0;
        }
        self.sparse.retain(|_, n| *n > 0);
        self.len -= moving.len();
        self.add_all(moving.into_iter().map(|(a, b, n)| (gone.now(a), gone.now(b), n)).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_without_members_are_folded_and_their_places_reused() {
        let mut groups = Groups::default();
        let mut rows = Rows::<u64>::default();
        let mut pairs = Pairs::default();
        let lives = 4 * MAX_GROUPS as u32;
        for life in 0..lives {
            let ix = groups.join(Key::Task(TaskId(life)), WhoName::NOBODY);
            *rows.at(ix) += 1;
            pairs.add(ix, ix, 1);
            groups.leave(ix);
            if groups.crowded() {
                let gone = groups.fold(|ix| u64::from(ix.0));
                rows.fold(&gone);
                pairs.fold(&gone);
            }
        }
        assert!(
            groups.list.len() <= MAX_GROUPS && rows.0.len() <= MAX_GROUPS && pairs.iter().count() <= MAX_GROUPS + 1
        );
        assert_eq!(rows.iter().map(|(_, n)| n).sum::<u64>(), u64::from(lives), "nothing is lost by folding");
        assert_eq!(pairs.iter().map(|(_, _, n)| n).sum::<u64>(), u64::from(lives));
        assert!(*rows.at(GroupIx::OTHERS) > u64::from(lives / 2));
    }

    #[test]
    fn groups_with_members_stay_and_a_full_table_takes_no_more() {
        let mut groups = Groups::default();
        let first = groups.join(Key::Task(TaskId(0)), WhoName::NOBODY);
        for life in 1..2 * MAX_GROUPS as u32 {
            groups.join(Key::Task(TaskId(life)), WhoName::NOBODY);
        }
        assert!(!groups.crowded(), "nothing can be folded");
        assert_eq!(groups.join(Key::Task(TaskId(u32::MAX)), WhoName::NOBODY), GroupIx::OTHERS);
        assert_eq!(groups.join(Key::Task(TaskId(0)), WhoName::NOBODY), first);
    }

    #[test]
    fn which_pairs_find_room_is_not_a_matter_of_chance() {
        let mut pairs = Pairs::default();
        (0..MAX_PAIRS as u32 - 10).for_each(|n| pairs.add(GroupIx(2), GroupIx(3 + n), 1));
        let mut more = Pairs::default();
        (0..100).for_each(|n| more.add(GroupIx(1), GroupIx(3 + n), 50 + u64::from(n)));
        pairs.merge(&more);
        assert!((90..100).all(|n| pairs.get(GroupIx(1), GroupIx(3 + n)) > 0), "the largest have names");
        assert_eq!(pairs.get(GroupIx(1), GroupIx::OTHERS), (50..140).sum::<u64>());
    }

    #[test]
    fn too_many_pairs_are_lumped() {
        let mut pairs = Pairs::default();
        for n in 0..MAX_PAIRS as u32 + 10 {
            pairs.add(GroupIx(2), GroupIx(3 + n), 1);
        }
        assert_eq!(pairs.iter().count(), MAX_PAIRS + 1);
        assert_eq!(pairs.get(GroupIx(2), GroupIx::OTHERS), 10);
    }
}
