//! Takes a stretch of time apart: what the task did in it, what it waited for, and what that waited for.
//!
//! Each level is a partition of the one above it: no nanosecond is told twice, none is left out. What the events do not
//! tell is told as [`Mechanism::Unknown`].

use std::cell::Cell;
use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::history::{Doing, Past, Stretch, Turn, waker};
use super::{Mechanism, Moment};
use crate::analysis::nested::Served;
use crate::analysis::states::{Cause, SleepEnd};
use crate::event::{Address, BlockOp, Cpu, Kind, NameId, Nanos, TaskId, TaskState};

/// So deep is a chain followed.
pub(super) const MAX_DEPTH: usize = 10;
/// A CPU that stays idle for so long while somebody waits for it was not just being woken (the timer tick of the
/// slowest kernels comes every 10 ms; leaving the deepest idle state takes less than 1 ms).
const KEPT_OFF: Nanos = Nanos(2_000_000);
/// So many moments are shown for each step.
const MOMENTS: usize = 3;
/// So many steps are told apart, a few hundred megabytes: where there would be more, chains are followed no further.
pub(super) const MAX_NODES: usize = 1 << 19;

/// What is told apart on one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) mechanism: Mechanism,
    pub(super) who: Option<TaskId>,
    pub(super) what: What,
    /// Whose time it is; none where that is clear from where it stands.
    pub(super) of: Option<TaskId>,
}

/// What else there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum What {
    Nothing,
    Served(Served),
    Futex(Address),
    Disk(NameId, BlockOp),
    Cpu(Cpu),
}

/// A step of the chain, and those below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) ns: u64,
    pub(super) times: u64,
    pub(super) longest_ns: u64,
    pub(super) span: Option<(Nanos, Nanos)>,
    /// The longest, not in order.
    pub(super) moments: Vec<Moment>,
    pub(super) steps: HashMap<Key, Node>,
}

impl Node {
    /// Takes what was told of a part; whose part it was is told apart.
    pub(super) fn take(&mut self, other: Self, task: Option<TaskId>) {
        for (key, node) in other.steps {
            let task = task.filter(|_| key.mechanism != Mechanism::Unknown);
            self.fold(Key { who: key.who.or(task), of: task, ..key }, node);
        }
    }

    /// Adds a step to the one that stands for it.
    pub(super) fn fold(&mut self, key: Key, node: Self) {
        self.steps.entry(key).or_default().merge(node);
    }

    fn merge(&mut self, other: Self) {
        self.ns += other.ns;
        self.times += other.times;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        self.span = match (self.span, other.span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
        self.moments.extend(other.moments);
        self.moments.sort_by_key(|moment| std::cmp::Reverse(moment.until_ns - moment.from_ns));
        self.moments.truncate(MOMENTS);
        for (key, node) in other.steps {
            self.steps.entry(key).or_default().merge(node);
        }
    }

    fn add(&mut self, key: Key, moment: Moment) -> &mut Self {
        let node = self.steps.entry(key).or_default();
        let (from, until) = (moment.from_ns, moment.until_ns);
        let ns = (until - from).0;
        node.ns += ns;
        node.times += 1;
        node.longest_ns = node.longest_ns.max(ns);
        node.span = Some(node.span.map_or((from, until), |(a, b)| (a.min(from), b.max(until))));
        if node.moments.len() < MOMENTS {
            node.moments.push(moment);
        } else if let Some(least) = node.moments.iter_mut().min_by_key(|moment| moment.until_ns - moment.from_ns)
            && (least.until_ns - least.from_ns).0 < ns
        {
            *least = moment;
        }
        node
    }
}

/// How a task's time was spent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk<'a> {
    pub(super) past: Past<'a>,
    /// So many more steps may be told apart.
    pub(super) room: &'a Cell<usize>,
}

const fn key(mechanism: Mechanism, who: Option<TaskId>, what: What) -> Key {
    Key { mechanism, who, what, of: None }
}

fn moment(from: Nanos, until: Nanos, cpu: Option<Cpu>, begin: Option<Kind>, end: Option<Kind>) -> Moment {
    Moment { from_ns: from, until_ns: until, cpu, begun_by: begin, ended_by: end }
}

impl<'a> Walk<'a> {
    /// What a task did between two times, and why: all of that time is added to `into`.
    pub(super) fn task(self, task: TaskId, from: Nanos, until: Nanos, depth: usize, into: &mut Node) {
        let mut at = from;
        for (stretch, begin, end) in self.past.of(task, from, until) {
            self.silence(task, at, begin, into);
            self.stretch(task, stretch, (begin, end), depth, into);
            at = end;
        }
        self.silence(task, at, until, into);
    }

    /// Nothing was heard of a task: it was not there, or nothing is known.
    pub(super) fn silence(self, task: TaskId, from: Nanos, until: Nanos, into: &mut Node) {
        let absent = self.past.absent(task, from).map_or(from, |end| end.min(until));
        if from < absent {
            let of = key(Mechanism::Absent, None, What::Nothing);
            self.add(into, of, moment(from, absent, None, None, None));
        }
        self.gap(absent, until, into);
    }

    /// Nothing is known of that time.
    pub(super) fn gap(self, from: Nanos, until: Nanos, into: &mut Node) {
        if from < until {
            self.add(into, key(Mechanism::Unknown, None, What::Nothing), moment(from, until, None, None, None));
        }
    }

    /// Adds what took as long as this moment.
    fn add(self, into: &mut Node, of: Key, moment: Moment) -> &mut Node {
        if !into.steps.contains_key(&of) {
            self.room.set(self.room.get().saturating_sub(1));
        }
        into.add(of, moment)
    }

    fn stretch(self, task: TaskId, stretch: &Stretch, (from, until): (Nanos, Nanos), depth: usize, into: &mut Node) {
        if stretch.doubtful {
            return self.gap(from, until, into);
        }
        let begun = stretch.edges.begun && from == stretch.from;
        let ended = stretch.edges.ended && until == stretch.until;
        match stretch.doing {
            Doing::Running { cpu } => self.ran(task, (cpu, from, until), (begun, ended), into),
            Doing::Waiting { cause, cpu, segments } => {
                let (mechanism, begun_by) = match cause {
                    Cause::Throttled => (Mechanism::Throttled, Kind::Switch),
                    Cause::Preempted(_) => (Mechanism::Preempted, Kind::Switch),
                    // It was woken before it was asleep.
                    Cause::Woken(_) if self.past.ran_until(task, from) => (Mechanism::RunQueue, Kind::Switch),
                    Cause::Woken(_) => (Mechanism::RunQueue, Kind::Waking),
                    Cause::New(_) => (Mechanism::RunQueue, Kind::WakeupNew),
                    Cause::AtStart => (Mechanism::RunQueue, Kind::Snapshot),
                };
                let edges = (begun.then_some(begun_by), ended.then_some(Kind::Switch));
                let whole = moment(from, until, Some(cpu), edges.0, edges.1);
                let node = self.add(into, key(mechanism, None, What::Nothing), whole);
                if cause == Cause::Throttled {
                    return;
                }
                let mut told = from;
                for (queue, begin, end) in self.past.queues(stretch, cpu, segments) {
                    let (begin, end) = (begin.max(told), end.min(until));
                    if begin < end {
                        self.unseen(cpu, told, begin, node);
                        self.behind(queue, begin, end, node);
                        told = end;
                    }
                }
                self.unseen(cpu, told, until, node);
            }
            Doing::Asleep { state, end, cpu, woken_on } => {
                let of = self.sleep(task, stretch, state, end, woken_on);
                let edges = (begun.then_some(Kind::Switch), ended.then_some(Kind::Waking));
                let node = self.add(into, of, moment(from, until, Some(cpu), edges.0, edges.1));
                // What the waker did meanwhile is why it did not come earlier.
                if let Some(waker) = waker(end)
                    && matches!(of.mechanism, Mechanism::Futex | Mechanism::Blocked)
                    && waker != task
                    && depth < MAX_DEPTH
                {
                    match self.room.get() {
                        0 => self.gap(from, until, node),
                        _ => self.task(waker, from, until, depth + 1, node),
                    }
                }
            }
        }
    }

    /// It had the CPU, but for what interrupted it.
    fn ran(self, task: TaskId, (cpu, from, until): (Cpu, Nanos, Nanos), (begun, ended): (bool, bool), into: &mut Node) {
        let run = |begin: Nanos, end: Nanos, into: &mut Node| {
            if begin < end {
                let begun_by = (begun && begin == from).then_some(Kind::Switch);
                let ended_by = (ended && end == until).then_some(Kind::Switch);
                let of = key(Mechanism::Running, Some(task), What::Nothing);
                self.add(into, of, moment(begin, end, Some(cpu), begun_by, ended_by));
            }
        };
        let mut at = from;
        for (served, begin, end) in self.past.served(cpu, from, until) {
            let begin = begin.max(at);
            let end = end.max(begin);
            run(at, begin, into);
            let (entry, exit) = match served.served {
                Served::Hardirq(..) => (Kind::IrqEntry, Kind::IrqExit),
                Served::Softirq(_) => (Kind::SoftirqEntry, Kind::SoftirqExit),
                Served::Ipi(_) => (Kind::IpiEntry, Kind::IpiExit),
            };
            if begin < end {
                let begun_by = (served.begins && begin == served.from).then_some(entry);
                let ended_by = (served.ends && end == served.until).then_some(exit);
                let of = key(Mechanism::Interrupted, None, What::Served(served.served));
                self.add(into, of, moment(begin, end, Some(cpu), begun_by, ended_by));
            }
            at = end;
        }
        run(at, until, into);
    }

    /// Who had the CPU for which the task waited.
    fn behind(self, cpu: Cpu, from: Nanos, until: Nanos, into: &mut Node) {
        let mut at = from;
        for (turn, begin, end) in self.past.on(cpu, from, until) {
            self.unseen(cpu, at, begin, into);
            at = end;
            let of = match turn.who {
                None => {
                    self.unseen(cpu, begin, end, into);
                    continue;
                }
                Some(who) if !who.is_idle() => key(Mechanism::HeldBy, Some(who), What::Cpu(cpu)),
                Some(_) if end - begin >= KEPT_OFF => key(Mechanism::KeptOff, None, What::Cpu(cpu)),
                Some(_) => key(Mechanism::CpuWakeup, None, What::Cpu(cpu)),
            };
            let Turn { from, until, edges, .. } = *turn;
            let begun_by = (edges.begun && begin == from).then_some(Kind::Switch);
            let ended_by = (edges.ended && end == until).then_some(Kind::Switch);
            self.add(into, of, moment(begin, end, Some(cpu), begun_by, ended_by));
        }
        self.unseen(cpu, at, until, into);
    }

    /// Nobody knows who had this CPU.
    fn unseen(self, cpu: Cpu, from: Nanos, until: Nanos, into: &mut Node) {
        if from < until {
            self.add(into, key(Mechanism::Unknown, None, What::Cpu(cpu)), moment(from, until, Some(cpu), None, None));
        }
    }

    /// Why a task slept.
    fn sleep(
        self,
        task: TaskId,
        stretch: &Stretch,
        state: Option<TaskState>,
        end: SleepEnd,
        woken_on: Option<(Cpu, Option<Served>)>,
    ) -> Key {
        let (from, until) = (stretch.from, stretch.until);
        let by_task = waker(end);
        if state.is_some_and(|state| matches!(state.letter(), 'T' | 't')) {
            return key(Mechanism::Stopped, by_task, What::Nothing);
        }
        if end == SleepEnd::Unseen {
            return key(Mechanism::Unknown, None, What::Nothing);
        }
        if let Some(of) = self.disk(task, stretch, state, end, woken_on.map(|(cpu, _)| cpu)) {
            return of;
        }
        let futex = self.past.futex(task, from, until).map(What::Futex);
        match (end, by_task, woken_on) {
            (SleepEnd::Open | SleepEnd::Unseen, ..) => key(Mechanism::NotWoken, None, What::Nothing),
            (SleepEnd::Woken(_), Some(_), _) => {
                let mechanism = if futex.is_some() { Mechanism::Futex } else { Mechanism::Blocked };
                key(mechanism, by_task, futex.unwrap_or(What::Nothing))
            }
            // No interrupt wakes at a futex: its time was up, or there was a signal.
            (_, None, Some((_, Some(served)))) if futex.is_none() => key(Mechanism::Sleep, None, What::Served(served)),
            (_, None, _) => key(Mechanism::Sleep, None, futex.unwrap_or(What::Nothing)),
        }
    }

    /// Whether it slept for a disk.
    fn disk(
        self,
        task: TaskId,
        stretch: &Stretch,
        state: Option<TaskState>,
        end: SleepEnd,
        woken_on: Option<Cpu>,
    ) -> Option<Key> {
        let (from, until) = (stretch.from, stretch.until);
        let here = || self.past.request_on(woken_on?, from, until);
        let request = if !state.is_some_and(TaskState::is_io_wait) {
            // The state does not tell: it was for its own request if the end of that is what woke it.
            Some(here().filter(|request| request.task == task)?)
        } else if matches!(end, SleepEnd::Woken(_)) {
            // Requests are also issued on behalf of others.
            self.past.own_request(task, from, until).or_else(here)
        } else {
            None
        };
        let what = request.map_or(What::Nothing, |request| What::Disk(request.device, request.operation));
        Some(key(Mechanism::Io, None, what))
    }

    /// The time of a process: of whichever of its threads had it. While one runs, it is that one's; while none does and
    /// one waits, that one's; and while all sleep, that of the one which is woken first. What is in doubt comes after
    /// what is known to run, and before all else.
    pub(super) fn process(self, threads: &[TaskId], from: Nanos, until: Nanos) -> Vec<(TaskId, Nanos, Nanos)> {
        // There is nothing to choose from.
        if let [task] = *threads {
            return vec![(task, from, until)];
        }
        let rank = |stretch: &Stretch| match stretch.doing {
            Doing::Running { .. } if !stretch.doubtful => 0,
            _ if stretch.doubtful => 1,
            Doing::Running { .. } | Doing::Waiting { .. } => 2,
            Doing::Asleep { end: SleepEnd::Woken(_), .. } => 3,
            Doing::Asleep { .. } => 4,
        };
        let mut lines: Vec<_> = threads.iter().map(|&task| (task, self.past.of(task, from, until))).collect();
        let mut next_of = |line: usize| {
            let (task, stretches) = lines.get_mut(line)?;
            stretches.next().map(|(it, begin, end)| (begin, (rank(it), end, *task, line)))
        };
        // What comes next in each line; what goes on, the best first; and which of that ends first.
        let mut coming: BTreeSet<_> = (0..threads.len()).filter_map(&mut next_of).collect();
        let (mut present, mut ends) = (BTreeSet::new(), BTreeSet::new());
        let (mut at, mut parts) = (from, Vec::<(TaskId, Nanos, Nanos)>::new());
        while at < until {
            while let Some(&(end, this)) = ends.first()
                && end <= at
            {
                ends.pop_first();
                present.remove(&this);
            }
            while let Some(&(begin, this)) = coming.first()
                && begin <= at
            {
                coming.pop_first();
                present.insert(this);
                ends.insert((this.1, this));
                coming.extend(next_of(this.3));
            }
            let change = coming.first().map(|(begin, _)| *begin).into_iter().chain(ends.first().map(|(end, _)| *end));
            let next = change.fold(until, Nanos::min);
            if let Some(&(_, _, task, _)) = present.first() {
                match parts.last_mut() {
                    Some(last) if last.0 == task && last.2 == at => last.2 = next,
                    _ => parts.push((task, at, next)),
                }
            }
            at = next;
        }
        parts
    }
}
