//! What a comparison needs to know of one window: how it was filled, slice by slice, and whose waits it had.

use hashbrown::HashMap;
use serde::{Serialize, Serializer};

use super::super::groups::Merge;
use super::super::question::{About, Counts, Question};
use super::super::runqueue::WaitCounts;
use super::super::states::{Left, Migrated, Observer, Ran, Seen, Span, Switched, TaskRef, Waited, Woken};
use super::super::study::Scope;
use super::super::tasks::NO_SLOT;
use crate::event::{Comm, Nanos, TaskId, Window};
use crate::source::Meta;

/// A window is cut into so many slices at most.
pub(super) const MAX_SLICES: usize = 256;
/// How long slices are as long as there are no more than that.
pub(super) const FIRST_SLICE_NS: u64 = 1_000_000;
/// So many names of tasks are told apart.
const MAX_NAMES: usize = 4_096;
/// Each doubling of a wait has so many buckets: none is wider than 1/128 (0.8 %) of its values.
const PER_DOUBLING: u64 = 128;

/// The bucket of a wait. Waits below 256 ns have one each.
pub(super) fn bucket(ns: u64) -> u16 {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(PER_DOUBLING.ilog2() + 1);
    (u64::from(shift) * PER_DOUBLING + (ns >> shift)) as u16
}

/// The longest wait in a bucket.
pub(super) fn highest_ns(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < 2 * PER_DOUBLING {
        return bucket;
    }
    let shift = bucket / PER_DOUBLING - 1;
    let first = (bucket - shift * PER_DOUBLING) << shift;
    first.saturating_add((1 << shift) - 1)
}

/// How many waits there were of which length, with an error of at most 1/128 (0.8 %). Serialises as a list of pairs:
/// the longest wait of a bucket in nanoseconds, and the number of waits in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitBuckets(Vec<(u16, u64)>);

impl WaitBuckets {
    fn add(&mut self, bucket: u16, waits: u64) {
        match self.0.binary_search_by_key(&bucket, |&(bucket, _)| bucket) {
            Ok(at) => self.0[at].1.merge(&waits),
            Err(at) => self.0.insert(at, (bucket, waits)),
        }
    }

    /// Bucket and number of waits, shortest waits first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().copied()
    }
}

impl Merge for WaitBuckets {
    fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(bucket, waits)| self.add(bucket, waits));
    }
}

impl Serialize for WaitBuckets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|(bucket, waits)| (highest_ns(bucket), waits)))
    }
}

/// What happened in one slice of a window, on all CPUs together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WindowSlice {
    /// How long it is. The first and the last slice may be cut off by the window.
    pub duration_ns: u64,
    /// Waits for a CPU that ended in it and whose whole length is known: the samples.
    pub waits: u64,
    /// All samples together.
    pub sampled_ns: u64,
    /// The longest sample.
    pub max_ns: u64,
    /// How long the samples were.
    pub wait_buckets: WaitBuckets,
    /// Time that tasks spent waiting within the slice, whenever the waits began and ended. Unlike the samples, it has
    /// the waits that an edge of the window cuts off.
    pub wait_ns: u64,
    /// Switches away from tasks, as in [`SwitchCounts`](crate::analysis::SwitchCounts).
    pub switches: u64,
    /// Of these: the task stayed runnable.
    pub involuntary: u64,
    /// Of these: it was preempted in the midst of kernel code.
    pub preempted_in_kernel: u64,
    /// Wakeups, without those of new tasks.
    pub wakeups: u64,
    /// Moves to another CPU.
    pub migrations: u64,
    /// CPU time with a task.
    pub busy_ns: u64,
    /// CPU time without.
    pub idle_ns: u64,
    /// CPU time of which nobody knows.
    pub unknown_ns: u64,
}

impl WindowSlice {
    /// CPU time, used or not.
    pub(super) fn cpu_ns(&self) -> u64 {
        self.busy_ns.saturating_add(self.idle_ns).saturating_add(self.unknown_ns)
    }
}

impl Merge for WindowSlice {
    fn merge(&mut self, other: &Self) {
        self.duration_ns.merge(&other.duration_ns);
        self.waits.merge(&other.waits);
        self.sampled_ns.merge(&other.sampled_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.wait_buckets.merge(&other.wait_buckets);
        self.wait_ns.merge(&other.wait_ns);
        self.switches.merge(&other.switches);
        self.involuntary.merge(&other.involuntary);
        self.preempted_in_kernel.merge(&other.preempted_in_kernel);
        self.wakeups.merge(&other.wakeups);
        self.migrations.merge(&other.migrations);
        self.busy_ns.merge(&other.busy_ns);
        self.idle_ns.merge(&other.idle_ns);
        self.unknown_ns.merge(&other.unknown_ns);
    }
}

/// Joins neighbours, so many at a time.
pub(super) fn join(slices: &[WindowSlice], at_a_time: usize) -> Vec<WindowSlice> {
    let joined = |neighbours: &[WindowSlice]| {
        let mut all = WindowSlice::default();
        neighbours.iter().for_each(|slice| all.merge(slice));
        all
    };
    slices.chunks(at_a_time.max(1)).map(joined).collect()
}

/// Slices of equal length from some moment on. How far they will reach is not known: when there are too many, each two
/// become one.
#[derive(Clone, Debug)]
pub(super) struct Slices {
    /// The window begins no earlier than this.
    floor: Nanos,
    /// Where the first one begins: where the window does, once that is known.
    origin: Option<Nanos>,
    slice_ns: u64,
    pub(super) list: Vec<WindowSlice>,
}

impl Slices {
    pub(super) fn new(floor: Nanos) -> Self {
        Self { floor, origin: None, slice_ns: FIRST_SLICE_NS, list: Vec::new() }
    }

    /// The window begins here, unless it is known to begin elsewhere.
    pub(super) fn begin(&mut self, at: Nanos) -> Nanos {
        *self.origin.get_or_insert(at.max(self.floor))
    }

    /// The number of the slice at a moment, and all before it, exist from now on.
    fn index(&mut self, at: Nanos) -> usize {
        let offset_ns = (at - self.begin(at)).0;
        while offset_ns / self.slice_ns >= MAX_SLICES as u64 {
            self.list = join(&self.list, 2);
            self.slice_ns = self.slice_ns.saturating_mul(2);
        }
        let index = (offset_ns / self.slice_ns) as usize;
        if index >= self.list.len() {
            self.list.resize_with(index + 1, WindowSlice::default);
        }
        index
    }

    fn at(&mut self, at: Nanos) -> &mut WindowSlice {
        let index = self.index(at);
        &mut self.list[index]
    }

    /// Takes a wait that ended then.
    pub(super) fn sample(&mut self, at: Nanos, ns: u64) {
        let slice = self.at(at);
        slice.waits += 1;
        slice.sampled_ns.merge(&ns);
        slice.max_ns = slice.max_ns.max(ns);
        slice.wait_buckets.add(bucket(ns), 1);
    }

    /// Gives each slice its part of a stretch of time. What is before the first slice goes to that.
    pub(super) fn spread(&mut self, from: Nanos, until: Nanos, part: impl Fn(&mut WindowSlice) -> &mut u64) {
        if from >= until {
            return;
        }
        let origin = self.begin(from);
        // The last first: it may make all slices longer.
        let last = self.index(Nanos(until.0 - 1));
        let first = self.index(from);
        let mut begin = from;
        for index in first..=last {
            let end =
                if index == last { until } else { origin + Nanos(self.slice_ns.saturating_mul(index as u64 + 1)) };
            part(&mut self.list[index]).merge(&(end - begin).0);
            begin = end;
        }
    }

    /// The slices of a window. What happened at its very end goes to the last of them.
    pub(super) fn of(mut self, window: &Window) -> (u64, Vec<WindowSlice>) {
        let (from, until) = (window.from_ns, window.until_ns);
        if from < until {
            self.begin(from);
            self.index(Nanos(until.0 - 1));
        }
        let origin = self.origin.unwrap_or(from);
        let mut slices: Vec<WindowSlice> = Vec::with_capacity(self.list.len());
        for (index, mut slice) in self.list.into_iter().enumerate() {
            let begin = origin + Nanos(self.slice_ns.saturating_mul(index as u64));
            let end = begin + Nanos(self.slice_ns);
            let begin = if index == 0 { from } else { begin.max(from) };
            slice.duration_ns = (end.min(until) - begin).0;
            match slices.last_mut() {
                Some(last) if slice.duration_ns == 0 || last.duration_ns == 0 => last.merge(&slice),
                _ => slices.push(slice),
            }
        }
        (self.slice_ns, slices)
    }
}

/// What the tasks of one name did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NameUse {
    /// How many tasks had the name. One that changes its name and takes it back counts twice.
    pub tasks: u64,
    /// Waits for a CPU whose whole length is known.
    pub waits: u64,
    /// Time spent waiting for a CPU, with waits that an edge of the window cuts off.
    pub wait_ns: u64,
    /// Time on a CPU.
    pub cpu_ns: u64,
}

/// The tasks of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NameRow {
    /// Their name (`comm`). Unlike process ids, it is the same in another recording.
    pub comm: Comm,
    /// What they did.
    #[serde(flatten)]
    pub used: NameUse,
}

/// Whose time it was, by name.
#[derive(Clone, Debug, Default)]
struct Names {
    index: HashMap<Comm, u32>,
    rows: Vec<NameRow>,
    /// Names that came when there were too many.
    others: NameUse,
    /// Tasks of which no name came.
    unnamed: NameUse,
    /// By the tasks' places: whose place it was last, and its name then.
    told: Vec<(Option<TaskId>, u32)>,
}

/// Stands for a name that came when there were too many, and for none.
const OTHERS: u32 = u32::MAX;
const UNNAMED: u32 = u32::MAX - 1;

impl Names {
    fn of(&mut self, task: TaskRef, seen: &Seen<'_>) -> &mut NameUse {
        let name = seen.tasks.identity(task).map(|task| task.comm);
        let row = name.map_or(UNNAMED, |name| self.find(name));
        if task.slot != NO_SLOT {
            let at = task.slot as usize;
            if at >= self.told.len() {
                self.told.resize(at + 1, (None, UNNAMED));
            }
            let now = (Some(task.id), row);
            if std::mem::replace(&mut self.told[at], now) != now {
                self.at(row).tasks += 1;
            }
        }
        self.at(row)
    }

    fn find(&mut self, name: Comm) -> u32 {
        if let Some(&row) = self.index.get(&name) {
            return row;
        }
        if self.rows.len() >= MAX_NAMES {
            return OTHERS;
        }
        let row = self.rows.len() as u32;
        self.index.insert(name, row);
        self.rows.push(NameRow { comm: name, used: NameUse::default() });
        row
    }

    fn at(&mut self, row: u32) -> &mut NameUse {
        match row {
            UNNAMED => &mut self.unnamed,
            row => self.rows.get_mut(row as usize).map_or(&mut self.others, |row| &mut row.used),
        }
    }
}

/// Cuts the window into slices of equal length, and keeps of each what [`compare`](super::compare) needs: at most 256
/// of them, however long the window is.
///
/// ```
/// use schedtrace_core::analysis::{self, Options, Profile, Study};
/// use schedtrace_core::{MemorySource, Meta, Nanos};
///
/// let meta = Meta { started: Nanos(1), ended: Some(Nanos(3_000_001)), ..Meta::default() };
/// let mut source = MemorySource::new(meta, []);
/// let profile = analysis::run(&mut source, Study::<Profile>::new(Options::default()))?;
/// assert_eq!(profile.answer.slices.len(), 3);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Profile {
    scope: Scope,
    slices: Slices,
    names: Names,
    censored: WaitCounts,
    in_loss: WaitCounts,
}

/// A window, slice by slice, and whose waits it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProfileAnswer {
    /// The length of a slice.
    pub slice_ns: u64,
    /// All slices together.
    pub total: WindowSlice,
    /// The slices, in their order. Together they are as long as the window.
    pub slices: Vec<WindowSlice>,
    /// What the tasks did, by name; the 4,096 names that came first, sorted.
    pub names: Vec<NameRow>,
    /// The tasks of all other names.
    pub other_names: NameUse,
    /// Tasks of which no name came.
    pub unnamed: NameUse,
    /// Waits that an edge of the window cuts off: no samples.
    pub censored: WaitCounts,
    /// Waits in which events are missing: no samples.
    pub in_loss: WaitCounts,
}

impl Observer for Profile {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        let Some((from, until)) = self.scope.clip(ran.span.from, ran.span.until) else { return };
        let left_out = seen.tasks.left_out(ran.task);
        if left_out && seen.tasks.filtered() && !seen.tasks.is_recorder(ran.task) {
            // Switches among tasks that were not selected were not recorded.
            return self.slices.spread(from, until, |slice| &mut slice.unknown_ns);
        }
        self.slices.spread(from, until, |slice| &mut slice.busy_ns);
        if !left_out {
            self.names.of(ran.task, seen).cpu_ns.merge(&(until - from).0);
        }
    }

    fn idled(&mut self, span: &Span, seen: &Seen<'_>) {
        if seen.tasks.filtered() {
            // Switches to and from tasks that were not selected were not recorded.
            return self.unseen(span, seen);
        }
        if let Some((from, until)) = self.scope.clip(span.from, span.until) {
            self.slices.spread(from, until, |slice| &mut slice.idle_ns);
        }
    }

    fn unseen(&mut self, span: &Span, _: &Seen<'_>) {
        if let Some((from, until)) = self.scope.clip(span.from, span.until) {
            self.slices.spread(from, until, |slice| &mut slice.unknown_ns);
        }
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        let Some(counts) = self.scope.wait(wait, seen) else { return };
        let Some((from, until)) = self.scope.clip_wait(wait.from, wait.until) else { return };
        let (waits, ns) = match counts {
            Counts::InLoss(ns) => return self.in_loss.add(ns),
            Counts::Censored(ns) => (0, ns),
            Counts::Sample(ns) => (1, ns),
        };
        // The beginning first: if nothing was told before, the slices begin there.
        self.slices.spread(from, until, |slice| &mut slice.wait_ns);
        if waits > 0 {
            self.slices.sample(until, ns);
        } else {
            self.censored.add(ns);
        }
        let used = self.names.of(wait.task, seen);
        used.waits += waits;
        used.wait_ns.merge(&ns);
    }

    fn switched(&mut self, switched: &Switched, seen: &Seen<'_>) {
        let from_idle = switched.prev.id.is_idle();
        if !self.scope.contains(switched.at) || from_idle || !seen.cpus.at(switched.cpu).watched {
            return;
        }
        let slice = self.slices.at(switched.at);
        slice.switches += 1;
        match switched.left {
            Left::Preempted { in_kernel } => {
                slice.involuntary += 1;
                slice.preempted_in_kernel += u64::from(in_kernel);
            }
            // As the kernel counts it (`__schedule()` in kernel/sched/core.c): its state is TASK_RUNNING.
            Left::Throttled => slice.involuntary += 1,
            Left::Slept(_) | Left::Died | Left::Open => {}
        }
    }

    fn woken(&mut self, woken: &Woken, seen: &Seen<'_>) {
        if self.scope.contains(woken.at) && !woken.new && !seen.tasks.left_out(woken.task) {
            self.slices.at(woken.at).wakeups += 1;
        }
    }

    fn migrated(&mut self, migrated: &Migrated, seen: &Seen<'_>) {
        if self.scope.contains(migrated.at) && migrated.from != migrated.to && !seen.tasks.left_out(migrated.task) {
            self.slices.at(migrated.at).migrations += 1;
        }
    }
}

impl Question for Profile {
    type Answer = ProfileAnswer;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            slices: Slices::new(scope.from()),
            names: Names::default(),
            censored: WaitCounts::default(),
            in_loss: WaitCounts::default(),
        }
    }

    fn begin(&mut self, meta: &Meta) {
        if meta.started > Nanos::ZERO {
            self.slices.begin(meta.started);
        }
    }

    fn answer(&self, about: &About, _: &Seen<'_>) -> ProfileAnswer {
        let (slice_ns, slices) = self.slices.clone().of(&about.window);
        let total = join(&slices, slices.len()).pop().unwrap_or_default();
        let mut names = self.names.rows.clone();
        names.sort_unstable_by_key(|row| row.comm);
        ProfileAnswer {
            slice_ns,
            total,
            slices,
            names,
            other_names: self.names.others,
            unnamed: self.names.unnamed,
            censored: self.censored,
            in_loss: self.in_loss,
        }
    }
}
