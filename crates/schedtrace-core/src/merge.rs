//! One order of time out of several shards: a watermark k-way merge, pure and free of I/O.
//!
//! Shards deliver at their own pace, each in an order of its own. [`Merge`] holds what they deliver until nothing
//! earlier can follow from any of them, and then releases it sorted by time.
//!
//! # The release rule
//!
//! - Each shard has a *promise*, the greatest `until` it was pushed with: nothing earlier follows from it. A shard
//!   that has not been heard of has promised nothing (time zero); a closed one has promised the end of time.
//! - The *watermark* is the smallest promise. It never goes back.
//! - [`Merge::drain`] releases exactly the items with `ts < watermark`, in time order; items of one time come in the
//!   order in which their shards were named to [`Merge::new`], and within a shard in the order in which they were
//!   pushed. Once every shard is closed, everything is released.
//! - An item pushed with a `ts` below the watermark of the last `drain` is *late*: it cannot be put in order any more
//!   and comes out apart. An item earlier than its own shard's promise, but not than that watermark, breaks the
//!   promise without harm: it is sorted in.
//!
//! So what `drain` appends to `out`, call after call, is sorted as a whole, and every item comes out exactly once, in
//! `out` or in `late`.

use std::collections::VecDeque;

use crate::event::{Event, Nanos, ShardId};

/// Something that happened at a moment.
///
/// ```
/// use schedtrace_core::Nanos;
/// use schedtrace_core::merge::Timed;
///
/// struct Frame {
///     shown: Nanos,
/// }
/// impl Timed for Frame {
///     fn ts(&self) -> Nanos {
///         self.shown
///     }
/// }
/// ```
pub trait Timed {
    /// When.
    ///
    /// ```
    /// use schedtrace_core::merge::Timed;
    /// use schedtrace_core::{Cpu, Event, EventKind, Nanos, TaskId};
    /// let event = Event { ts: Nanos(500), cpu: Cpu(0), kind: EventKind::Free { task: TaskId(7) } };
    /// assert_eq!(Timed::ts(&event), Nanos(500));
    /// ```
    fn ts(&self) -> Nanos;
}

impl Timed for Event {
    fn ts(&self) -> Nanos {
        self.ts
    }
}

/// Merges the items of several shards by time; the [module](self) states when it releases them.
///
/// Holds items in memory for as long as the slowest shard holds the watermark back, so whoever feeds it must advance
/// quiet shards too: [`pending`](Self::pending) says how much waits, [`slowest`](Self::slowest) for whom. What has
/// piled up comes out in pieces by [`drain_at_most`](Self::drain_at_most).
///
/// ```
/// use schedtrace_core::merge::{Merge, Timed};
/// use schedtrace_core::{Nanos, ShardId};
///
/// #[derive(Debug, PartialEq)]
/// struct At(u64);
/// impl Timed for At {
///     fn ts(&self) -> Nanos {
///         Nanos(self.0)
///     }
/// }
///
/// let (a, b) = (ShardId(0), ShardId(7));
/// let mut merge = Merge::new([a, b]);
/// let (mut out, mut late) = (Vec::new(), Vec::new());
///
/// merge.push(a, vec![At(5), At(3), At(9)], Nanos(8));
/// assert_eq!(merge.drain(&mut out, &mut late), None, "the other shard may still bring anything");
///
/// merge.push(b, vec![At(4)], Nanos(6));
/// assert_eq!(merge.drain(&mut out, &mut late), Some(Nanos(6)));
/// assert_eq!(out, [At(3), At(4), At(5)]);
///
/// merge.push(b, vec![At(2)], Nanos(8));
/// assert_eq!(merge.drain(&mut out, &mut late), Some(Nanos(8)));
/// assert_eq!(late, [At(2)], "it came behind the watermark");
/// ```
#[derive(Debug)]
pub struct Merge<T> {
    /// In the order of ties.
    shards: Vec<Shard<T>>,
    /// The watermark of the last drain: everything earlier has been released.
    released: Nanos,
    /// What came behind it since then.
    late: Vec<T>,
}

/// What one shard has delivered and is not released yet.
#[derive(Debug)]
struct Shard<T> {
    id: ShardId,
    /// Nothing earlier follows.
    until: Nanos,
    items: VecDeque<T>,
    /// Whether `items` is in time order.
    sorted: bool,
}

impl<T: Timed> Merge<T> {
    /// A merge of these shards. Items of one time come out in the order in which the shards are named here; a shard
    /// that is named twice counts once.
    ///
    /// ```
    /// # use schedtrace_core::merge::{Merge, Timed};
    /// # use schedtrace_core::{Nanos, ShardId};
    /// # struct At(u64);
    /// # impl Timed for At {
    /// #     fn ts(&self) -> Nanos { Nanos(self.0) }
    /// # }
    /// let merge = Merge::<At>::new((0..4).map(ShardId));
    /// assert_eq!(merge.watermark(), Nanos::ZERO);
    /// ```
    pub fn new(shards: impl IntoIterator<Item = ShardId>) -> Self {
        let mut merge = Self { shards: Vec::new(), released: Nanos::ZERO, late: Vec::new() };
        for shard in shards {
            merge.shard(shard);
        }
        merge
    }

    /// Takes what a shard delivered, in any order (an ordered list costs the least), and its promise that nothing
    /// earlier than `until` follows from it. Without items it advances a quiet shard; a promise below an earlier one
    /// changes nothing.
    ///
    /// A shard that was not named to [`new`](Self::new) is taken in, last in the order of ties, and holds the
    /// watermark back from now on.
    ///
    /// ```
    /// # use schedtrace_core::merge::{Merge, Timed};
    /// # use schedtrace_core::{Nanos, ShardId};
    /// # struct At(u64);
    /// # impl Timed for At {
    /// #     fn ts(&self) -> Nanos { Nanos(self.0) }
    /// # }
    /// let mut merge = Merge::new([ShardId(0)]);
    /// merge.push(ShardId(0), vec![At(5), At(3)], Nanos(8));
    /// assert_eq!(merge.watermark(), Nanos(8));
    /// ```
    pub fn push(&mut self, shard: ShardId, mut items: Vec<T>, until: Nanos) {
        sort(&mut items);
        let behind = items.partition_point(|item| item.ts() < self.released);
        self.late.extend(items.drain(..behind));
        let shard = self.shard(shard);
        shard.until = shard.until.max(until);
        shard.append(items);
    }

    /// Nothing more follows from this shard: it no longer holds the watermark back.
    ///
    /// ```
    /// # use schedtrace_core::merge::{Merge, Timed};
    /// # use schedtrace_core::{Nanos, ShardId};
    /// # struct At(u64);
    /// # impl Timed for At {
    /// #     fn ts(&self) -> Nanos { Nanos(self.0) }
    /// # }
    /// let mut merge = Merge::<At>::new([ShardId(0)]);
    /// merge.close(ShardId(0));
    /// assert_eq!(merge.watermark(), Nanos::MAX);
    /// ```
    pub fn close(&mut self, shard: ShardId) {
        self.push(shard, Vec::new(), Nanos::MAX);
    }

    /// The smallest promise of all shards: what is earlier can be released. Zero while there is no shard.
    ///
    /// ```
    /// # use schedtrace_core::merge::{Merge, Timed};
    /// # use schedtrace_core::{Nanos, ShardId};
    /// # struct At(u64);
    /// # impl Timed for At {
    /// #     fn ts(&self) -> Nanos { Nanos(self.0) }
    /// # }
    /// let mut merge = Merge::<At>::new([ShardId(0), ShardId(1)]);
    /// merge.push(ShardId(0), vec![], Nanos(8));
    /// assert_eq!(merge.watermark(), Nanos::ZERO);
    /// merge.push(ShardId(1), vec![], Nanos(6));
    /// assert_eq!(merge.watermark(), Nanos(6));
    /// ```
    #[must_use]
    pub fn watermark(&self) -> Nanos {
        // Not below what was released: a shard that was taken in later has promised less.
        self.shards.iter().map(|shard| shard.until).min().unwrap_or(Nanos::ZERO).max(self.released)
    }

    /// How many items wait for the watermark.
    ///
    /// ```
    /// # use schedtrace_core::merge::{Merge, Timed};
    /// # use schedtrace_core::{Nanos, ShardId};
    /// # struct At(u64);
    /// # impl Timed for At {
    /// #     fn ts(&self) -> Nanos { Nanos(self.0) }
    /// # }
    /// let mut merge = Merge::new([ShardId(0)]);
    /// merge.push(ShardId(0), vec![At(5), At(3)], Nanos(8));
    /// assert_eq!(merge.pending(), 2);
    /// ```
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shards.iter().map(|shard| shard.items.len()).sum()
    }

    /// The shard whose promise holds the watermark back: the next one to read from. None once all are closed.
    ///
    /// ```
    /// # use schedtrace_core::merge::{Merge, Timed};
    /// # use schedtrace_core::{Nanos, ShardId};
    /// # struct At(u64);
    /// # impl Timed for At {
    /// #     fn ts(&self) -> Nanos { Nanos(self.0) }
    /// # }
    /// let mut merge = Merge::<At>::new([ShardId(0), ShardId(1)]);
    /// merge.push(ShardId(0), vec![], Nanos(8));
    /// assert_eq!(merge.slowest(), Some(ShardId(1)));
    /// ```
    #[must_use]
    pub fn slowest(&self) -> Option<ShardId> {
        let open = self.shards.iter().filter(|shard| shard.until < Nanos::MAX);
        open.min_by_key(|shard| shard.until).map(|shard| shard.id)
    }

    /// Appends what can be released to `out`, and what came behind the watermark since the last call to `late` (in
    /// the order of the pushes, each by time). Returns the watermark if it advanced or anything came out.
    ///
    /// ```
    /// # use schedtrace_core::merge::{Merge, Timed};
    /// # use schedtrace_core::{Nanos, ShardId};
    /// # struct At(u64);
    /// # impl Timed for At {
    /// #     fn ts(&self) -> Nanos { Nanos(self.0) }
    /// # }
    /// let mut merge = Merge::new([ShardId(0)]);
    /// merge.push(ShardId(0), vec![At(9), At(3)], Nanos(8));
    /// let (mut out, mut late) = (Vec::new(), Vec::new());
    /// assert_eq!(merge.drain(&mut out, &mut late), Some(Nanos(8)));
    /// assert_eq!(out[0].ts(), Nanos(3));
    /// assert_eq!(merge.pending(), 1, "something earlier than 9 may still come");
    /// ```
    pub fn drain(&mut self, out: &mut Vec<T>, late: &mut Vec<T>) -> Option<Nanos> {
        self.drain_at_most(usize::MAX, out, late)
    }

    /// As [`drain`](Self::drain), but releases no more than about `most` items at once, and returns the time up to which
    /// they reach: what is earlier than the watermark all the same comes with the next calls. Items of one time are not
    /// torn apart, however many they are.
    ///
    /// ```
    /// # use schedtrace_core::merge::{Merge, Timed};
    /// # use schedtrace_core::{Nanos, ShardId};
    /// # struct At(u64);
    /// # impl Timed for At {
    /// #     fn ts(&self) -> Nanos { Nanos(self.0) }
    /// # }
    /// let mut merge = Merge::new([ShardId(0)]);
    /// merge.push(ShardId(0), vec![At(1), At(2), At(3)], Nanos(8));
    /// let (mut out, mut late) = (Vec::new(), Vec::new());
    /// while merge.pending() > 0 {
    ///     merge.drain_at_most(2, &mut out, &mut late);
    /// }
    /// assert_eq!(out.len(), 3);
    /// ```
    pub fn drain_at_most(&mut self, most: usize, out: &mut Vec<T>, late: &mut Vec<T>) -> Option<Nanos> {
        let watermark = self.cut(most).unwrap_or(Nanos::MAX).min(self.watermark());
        let before = (out.len(), late.len());
        late.append(&mut self.late);
        let advanced = watermark > self.released;
        // Below a watermark that stood still nothing waits; at the end of time even the last moment is released.
        if advanced || watermark == Nanos::MAX {
            self.release(watermark, out);
        }
        (advanced || before != (out.len(), late.len())).then_some(watermark)
    }

    /// A time below which each shard has no more than its part of `most` items; none where they have not so many.
    fn cut(&mut self, most: usize) -> Option<Nanos> {
        let each = (most / self.shards.len().max(1)).max(1);
        if self.shards.iter().all(|shard| shard.items.len() <= each) {
            return None;
        }
        let earliest = self.shards.iter_mut().filter_map(|shard| shard.time_at(0)).min()?;
        let cut = self.shards.iter_mut().filter_map(|shard| shard.time_at(each)).min()?;
        Some(cut.max(earliest + Nanos(1)))
    }

    /// Moves everything below the watermark to `out`.
    fn release(&mut self, watermark: Nanos, out: &mut Vec<T>) {
        let from = out.len();
        self.shards.iter_mut().for_each(|shard| shard.release(watermark, out));
        // A run per shard, in the order of ties, and a stable sort that finds runs and merges them in pairs: where the
        // shards interleave finely, as CPUs do, that takes half the time of a heap of the shards' heads.
        out[from..].sort_by_key(Timed::ts);
        self.released = watermark;
    }

    /// The state of a shard, new if it was not known. There are few shards, and this is per push, not per item.
    fn shard(&mut self, id: ShardId) -> &mut Shard<T> {
        let known = self.shards.iter().position(|shard| shard.id == id);
        let at = known.unwrap_or_else(|| {
            self.shards.push(Shard { id, until: Nanos::ZERO, items: VecDeque::new(), sorted: true });
            self.shards.len() - 1
        });
        &mut self.shards[at]
    }
}

impl<T: Timed> Shard<T> {
    /// Adds sorted items behind those that wait.
    fn append(&mut self, items: Vec<T>) {
        let Some(first) = items.first() else { return };
        // What overlaps is sorted once, when it is released.
        self.sorted &= self.items.back().is_none_or(|last| last.ts() <= first.ts());
        if self.items.is_empty() {
            self.items = items.into();
        } else {
            self.items.extend(items);
        }
    }

    fn sort(&mut self) {
        if !self.sorted {
            self.items.make_contiguous().sort_by_key(Timed::ts);
            self.sorted = true;
        }
    }

    /// The time of the item at this place in the order of time, if there is one.
    fn time_at(&mut self, at: usize) -> Option<Nanos> {
        if at < self.items.len() {
            self.sort();
        }
        self.items.get(at).map(Timed::ts)
    }

    /// Moves what lies below the watermark to `out`, in time order.
    fn release(&mut self, watermark: Nanos, out: &mut Vec<T>) {
        self.sort();
        let below = match watermark {
            Nanos::MAX => self.items.len(),
            _ => self.items.partition_point(|item| item.ts() < watermark),
        };
        out.extend(self.items.drain(..below));
    }
}

/// A stable sort for what is nearly in order: a ring's records are out of order by no more than the CPUs that wrote at
/// the same moment. Moves single items while that is cheap, and leaves the rest to the standard sort.
fn sort<T: Timed>(items: &mut [T]) {
    let mut moves = items.len() * 8;
    for at in 1..items.len() {
        let ts = items[at].ts();
        if items[at - 1].ts() <= ts {
            continue;
        }
        let to = items[..at].iter().rposition(|item| item.ts() <= ts).map_or(0, |before| before + 1);
        let Some(left) = moves.checked_sub(at - to) else { return items.sort_by_key(Timed::ts) };
        moves = left;
        items[to..=at].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Item {
        ts: u64,
        /// Which item it is, counted over all pushes.
        seq: usize,
    }

    impl Timed for Item {
        fn ts(&self) -> Nanos {
            Nanos(self.ts)
        }
    }

    const SHARDS: [ShardId; 4] = [ShardId::LIFECYCLE, ShardId(0), ShardId(300), ShardId(7)];

    /// Says the same as `Merge`, the slow way: one list, sorted whole at each drain.
    #[derive(Default)]
    struct Model {
        until: [u64; SHARDS.len()],
        waiting: Vec<(u64, usize, usize)>,
        late: Vec<(u64, usize)>,
        released: u64,
    }

    impl Model {
        fn push(&mut self, shard: usize, items: &[Item], until: u64) {
            let mut sorted = items.to_vec();
            sorted.sort_by_key(|item| (item.ts, item.seq));
            for item in sorted {
                if item.ts < self.released {
                    self.late.push((item.ts, item.seq));
                } else {
                    self.waiting.push((item.ts, shard, item.seq));
                }
            }
            self.until[shard] = self.until[shard].max(until);
        }

        fn drain(&mut self, out: &mut Vec<usize>, late: &mut Vec<usize>) -> Option<Nanos> {
            let watermark = self.until.into_iter().min().unwrap();
            let (mut ready, waiting): (Vec<_>, Vec<_>) =
                self.waiting.drain(..).partition(|&(ts, ..)| ts < watermark || watermark == u64::MAX);
            ready.sort_unstable();
            let moved = watermark > self.released || !ready.is_empty() || !self.late.is_empty();
            self.waiting = waiting;
            self.released = watermark;
            out.extend(ready.iter().map(|&(_, _, seq)| seq));
            late.extend(self.late.drain(..).map(|(_, seq)| seq));
            moved.then_some(Nanos(watermark))
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { shard: usize, times: Vec<u64>, until: u64 },
        Close { shard: usize },
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few distinct times, so that many are equal; the last moment of all among them.
        let ts = prop_oneof![40 => 0..60_u64, 1 => Just(u64::MAX)];
        prop_oneof![
            12 => (0..SHARDS.len(), vec(ts, 0..12), 0..60_u64)
                .prop_map(|(shard, times, until)| Step::Push { shard, times, until }),
            1 => (0..SHARDS.len()).prop_map(|shard| Step::Close { shard }),
            5 => Just(Step::Drain),
        ]
    }

    proptest! {
        #[test]
        fn it_says_what_sorting_everything_says(steps in vec(step(), 0..60)) {
            let mut merge = Merge::new(SHARDS);
            let mut model = Model::default();
            let (mut out, mut late, mut expected, mut expected_late) = (vec![], vec![], vec![], vec![]);
            let mut seq = 0;
            let close_all = (0..SHARDS.len()).map(|shard| Step::Close { shard }).chain([Step::Drain]);
            for step in steps.into_iter().chain(close_all) {
                match step {
                    Step::Push { shard, times, until } => {
                        let items: Vec<Item> = times.iter().map(|&ts| { seq += 1; Item { ts, seq } }).collect();
                        model.push(shard, &items, until);
                        merge.push(SHARDS[shard], items, Nanos(until));
                    }
                    Step::Close { shard } => {
                        model.push(shard, &[], u64::MAX);
                        merge.close(SHARDS[shard]);
                    }
                    Step::Drain => {
                        let told = merge.drain(&mut out, &mut late);
                        prop_assert_eq!(told, model.drain(&mut expected, &mut expected_late));
                    }
                }
                prop_assert_eq!(merge.pending(), model.waiting.len());
            }
            prop_assert!(out.is_sorted_by_key(|item| item.ts));
            prop_assert_eq!(out.len() + late.len(), seq);
            prop_assert_eq!(out.iter().map(|item| item.seq).collect::<Vec<_>>(), expected);
            prop_assert_eq!(late.iter().map(|item| item.seq).collect::<Vec<_>>(), expected_late);
        }

        #[test]
        fn sorting_is_stable_whether_nearly_in_order_or_not(spread in 0..200_u64, noise in vec(0..200_u64, 0..300)) {
            let mut items: Vec<Item> = (noise.iter().enumerate())
                .map(|(seq, noise)| Item { ts: seq as u64 / 3 + noise * spread / 200, seq })
                .collect();
            let mut expected = items.clone();
            expected.sort_by_key(|item| (item.ts, item.seq));
            sort(&mut items);
            prop_assert_eq!(items, expected);
        }
    }

    fn items(times: &[u64]) -> Vec<Item> {
        times.iter().enumerate().map(|(seq, &ts)| Item { ts, seq }).collect()
    }

    fn drained(merge: &mut Merge<Item>) -> (Option<Nanos>, Vec<u64>, Vec<u64>) {
        let (mut out, mut late) = (vec![], vec![]);
        let told = merge.drain(&mut out, &mut late);
        let times = |items: Vec<Item>| items.iter().map(|item| item.ts).collect();
        (told, times(out), times(late))
    }

    proptest! {
        #[test]
        fn in_pieces_it_says_the_same(pushes in vec((0..SHARDS.len(), vec(0..500_u64, 0..80)), 0..20), most in 1..60_usize) {
            let (mut whole, mut pieces) = (Merge::new(SHARDS), Merge::new(SHARDS));
            for (shard, times) in &pushes {
                whole.push(SHARDS[*shard], items(times), Nanos::ZERO);
                pieces.push(SHARDS[*shard], items(times), Nanos::ZERO);
            }
            SHARDS.into_iter().for_each(|shard| { whole.close(shard); pieces.close(shard); });
            let (mut expected, mut out, mut late, mut until) = (vec![], vec![], vec![], Nanos::ZERO);
            whole.drain(&mut expected, &mut late);
            while let Some(to) = pieces.drain_at_most(most, &mut out, &mut late) {
                prop_assert!(to >= until && out.iter().all(|item| item.ts < to.0));
                until = to;
                let at_one_time = out.iter().map(|item| item.ts).max().map_or(0, |ts| out.iter().filter(|i| i.ts == ts).count());
                prop_assert!(out.len() <= most.max(SHARDS.len()) + at_one_time, "{} of {most}", out.len());
                let piece: Vec<_> = expected.drain(..out.len()).collect();
                prop_assert_eq!(&piece, &out);
                out.clear();
            }
            prop_assert!(expected.is_empty() && late.is_empty());
        }
    }

    #[test]
    fn a_quiet_shard_holds_the_watermark_until_it_speaks() {
        let mut merge = Merge::new([ShardId(0), ShardId(9)]);
        merge.push(ShardId(0), items(&[1, 2, 3]), Nanos(10));
        assert_eq!(drained(&mut merge), (None, vec![], vec![]));
        assert_eq!((merge.slowest(), merge.pending()), (Some(ShardId(9)), 3));
        merge.push(ShardId(9), vec![], Nanos(3));
        assert_eq!(drained(&mut merge), (Some(Nanos(3)), vec![1, 2], vec![]), "the watermark itself is not below it");
        merge.close(ShardId(9));
        assert_eq!(drained(&mut merge), (Some(Nanos(10)), vec![3], vec![]));
        merge.close(ShardId(0));
        assert_eq!((merge.slowest(), merge.watermark()), (None, Nanos::MAX));
    }

    #[test]
    fn an_advance_is_told_once() {
        let mut merge: Merge<Item> = Merge::new([ShardId(0)]);
        merge.push(ShardId(0), vec![], Nanos(5));
        assert_eq!(drained(&mut merge).0, Some(Nanos(5)));
        assert_eq!(drained(&mut merge).0, None);
        merge.push(ShardId(0), vec![], Nanos(4));
        assert_eq!((drained(&mut merge).0, merge.watermark()), (None, Nanos(5)), "it never goes back");
    }

    #[test]
    fn a_shard_that_was_not_named_is_taken_in() {
        let mut merge = Merge::new([ShardId(0)]);
        merge.push(ShardId(0), vec![], Nanos(5));
        assert_eq!(drained(&mut merge).0, Some(Nanos(5)));
        merge.push(ShardId(40), items(&[4, 6]), Nanos(2));
        merge.push(ShardId(0), items(&[6, 7]), Nanos(9));
        assert_eq!(drained(&mut merge), (Some(Nanos(5)), vec![], vec![4]), "it holds the others back");
        merge.push(ShardId(40), vec![], Nanos(9));
        assert_eq!(drained(&mut merge), (Some(Nanos(9)), vec![6, 6, 7], vec![]));
    }

    #[test]
    fn without_shards_nothing_is_known() {
        let mut merge: Merge<Item> = Merge::new([]);
        assert_eq!(drained(&mut merge), (None, vec![], vec![]));
    }
}
