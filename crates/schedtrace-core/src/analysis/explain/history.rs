//! What every task and CPU did in a window, kept as stretches of time that can be looked up by time.

use std::cell::Cell;

use hashbrown::HashMap;

use crate::analysis::nested::{Nested, Served, Worked};
use crate::analysis::states::{
    Cause, CpuRef, Left, Observer, Ran, Seen, Segment, SleepEnd, Slept, Span, Switched, WaitEnd, Waited, Woken,
};
use crate::analysis::study::Scope;
use crate::event::{
    Address, BlockComplete, BlockOp, Context, Cpu, Event, EventKind, NameId, Nanos, TaskId, TaskState, Waker,
};

/// So many stretches are kept, half a gigabyte: what would be beyond ends the window.
const MAX_STRETCHES: usize = 8 << 20;
/// What a list of its own takes beside what stands in it, in stretches.
const LINE: usize = 4;
/// Of so many tasks it is kept when they were created, and when they ended.
const MAX_LIVES: usize = 1 << 20;

/// A stretch of a task's life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) from: Nanos,
    pub(super) until: Nanos,
    pub(super) doing: Doing,
    /// Events are missing in it.
    pub(super) doubtful: bool,
    pub(super) edges: Edges,
}

/// Which ends of a stretch are events, and not only edges of the window or of what is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edges {
    pub(super) begun: bool,
    pub(super) ended: bool,
}

/// What a task did.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doing {
    Running {
        cpu: Cpu,
    },
    Waiting {
        cause: Cause,
        /// Where it ran in the end.
        cpu: Cpu,
        /// Where in the list of segments its own stand, if it was moved.
        segments: (u32, u32),
    },
    Asleep {
        state: Option<TaskState>,
        end: SleepEnd,
        cpu: Cpu,
        /// On which CPU it was woken, and what was served there at that moment.
        woken_on: Option<(Cpu, Option<Served>)>,
    },
}

/// Who had a CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) from: Nanos,
    pub(super) until: Nanos,
    /// None where nobody knows.
    pub(super) who: Option<TaskId>,
    /// Switches.
    pub(super) edges: Edges,
}

/// A call that waited for a futex.
#[derive(Clone, Copy, Debug)]
pub(super) struct FutexCall {
    pub(super) from: Nanos,
    pub(super) until: Nanos,
    pub(super) address: Address,
}

/// A request that a disk has done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) until: Nanos,
    pub(super) task: TaskId,
    pub(super) device: NameId,
    pub(super) operation: BlockOp,
}

/// Something that lasts, in lists ordered by time that do not overlap.
pub(super) trait Lasts {
    fn from(&self) -> Nanos;
    fn until(&self) -> Nanos;
}

macro_rules! lasts {
    ($($type:ty),*) => {
        $(impl Lasts for $type {
            fn from(&self) -> Nanos {
                self.from
            }
            fn until(&self) -> Nanos {
                self.until
            }
        })*
    };
}
lasts!(Stretch, Turn, Worked, FutexCall);

/// What lasted, in the order of time, and where it was looked at last: who looks again mostly looks close by.
#[derive(Clone, Debug)]
pub(super) struct Line<T> {
    pub(super) list: Vec<T>,
    at: Cell<usize>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { list: Vec::new(), at: Cell::new(0) }
    }
}

impl<T> Line<T> {
    /// The place of the first of which this is not true, as it is of all before it: as `partition_point`, but in steps that
    /// begin where it was looked at last.
    fn first_not(&self, is_before: impl Fn(&T) -> bool) -> usize {
        let list = &self.list;
        let start = self.at.get().min(list.len());
        let (mut low, mut high, mut step) = (start, start, 1);
        if list.get(start).is_some_and(&is_before) {
            while list.get(high).is_some_and(&is_before) {
                (low, high, step) = (high + 1, (high + step).min(list.len()), step * 2);
            }
        } else {
            while low > 0 && !is_before(&list[low - 1]) {
                (high, low, step) = (low - 1, low.saturating_sub(step), step * 2);
            }
        }
        let at = low + list[low..high.max(low)].partition_point(is_before);
        self.at.set(at);
        at
    }
}

/// What overlaps a stretch of time, each with the part that does.
fn between<T: Lasts>(line: &Line<T>, from: Nanos, until: Nanos) -> impl Iterator<Item = (&T, Nanos, Nanos)> {
    line.list[line.first_not(|one| one.until() <= from)..]
        .iter()
        .take_while(move |one| one.from() < until)
        .map(move |one| (one, one.from().max(from), one.until().min(until)))
        .filter(|(_, from, until)| from < until)
}

/// The same of a list and what goes on after it, of which nothing is told twice.
fn both<'a, T: Lasts + 'a>(
    lists: [Option<&'a Line<T>>; 2],
    from: Nanos,
    until: Nanos,
) -> impl Iterator<Item = (&'a T, Nanos, Nanos)> {
    let mut at = from;
    let parts = lists.into_iter().flatten().flat_map(move |list| between(list, from, until));
    parts.filter_map(move |(one, begin, end)| {
        let begin = begin.max(at);
        at = at.max(end);
        (begin < end).then_some((one, begin, end))
    })
}

/// What happened in a window.
#[derive(Clone, Debug)]
pub(super) struct History {
    scope: Scope,
    pub(super) tasks: HashMap<TaskId, Line<Stretch>>,
    pub(super) cpus: HashMap<Cpu, Line<Turn>>,
    pub(super) segments: Vec<Segment>,
    /// The number of the first of these: those of what has not ended are counted on.
    first_segment: usize,
    /// It holds what has not ended.
    open: bool,
    /// Interrupts, of each only what it took itself.
    pub(super) served: HashMap<Cpu, Line<Worked>>,
    nested: Nested,
    pub(super) futexes: HashMap<TaskId, Vec<FutexCall>>,
    /// By who brought them and by where their ends were told, in the order of their ends.
    requests_of: HashMap<TaskId, Vec<Request>>,
    requests_on: HashMap<Cpu, Vec<Request>>,
    /// The last switch of each CPU.
    switched: HashMap<Cpu, Nanos>,
    /// When tasks were created and when they ended, as far as that was in the window.
    pub(super) born: HashMap<TaskId, Nanos>,
    pub(super) died: HashMap<TaskId, Nanos>,
    /// Who left a CPU last.
    pub(super) last_ran: Option<(Nanos, TaskId)>,
    kept: usize,
    /// There was no room for what came after.
    pub(super) full_at: Option<Nanos>,
}

impl History {
    pub(super) fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            tasks: HashMap::new(),
            cpus: HashMap::new(),
            segments: Vec::new(),
            first_segment: 0,
            open: false,
            served: HashMap::new(),
            nested: Nested::new(scope),
            futexes: HashMap::new(),
            requests_of: HashMap::new(),
            requests_on: HashMap::new(),
            switched: HashMap::new(),
            born: HashMap::new(),
            died: HashMap::new(),
            last_ran: None,
            kept: 0,
            full_at: None,
        }
    }

    /// An empty one for what has not ended yet, to be looked up beside this one.
    pub(super) fn tail(&self) -> Self {
        let first_segment = self.first_segment + self.segments.len();
        Self { first_segment, open: true, switched: self.switched.clone(), ..Self::new(&self.scope) }
    }

    /// Whether there is room for so many more, the first of which ends then.
    fn admit(&mut self, until: Nanos, more: usize) -> bool {
        if self.kept >= MAX_STRETCHES {
            self.full_at.get_or_insert(until);
            return false;
        }
        self.kept += more;
        true
    }

    fn stretch(&mut self, task: TaskId, (from, until): (Nanos, Nanos), doubtful: bool, edges: Edges, doing: Doing) {
        let Some((start, until)) = self.scope.clip(from, until) else { return };
        let fresh = if self.tasks.contains_key(&task) { 0 } else { LINE };
        if self.admit(until, 1 + fresh) {
            let line = self.tasks.entry(task).or_default();
            // What is told twice, or in the wrong order, would be counted twice.
            let start = line.list.last().map_or(start, |last| start.max(last.until));
            if start < until {
                let edges = Edges { begun: edges.begun && start == from, ..edges };
                line.list.push(Stretch { from: start, until, doing, doubtful, edges });
            }
        }
    }

    /// Who had a CPU until it was switched, or until now.
    fn turn(&mut self, span: &Span, who: Option<TaskId>) {
        let cpu = span.cpu.cpu;
        let Some((from, until)) = self.scope.clip(span.from, span.until) else { return };
        if self.admit(until, 1) {
            let edges = Edges { begun: from == span.from && self.came_at(span), ended: !self.open };
            let line = self.cpus.entry(cpu).or_default();
            let from = line.list.last().map_or(from, |last| from.max(last.until));
            if from < until {
                line.list.push(Turn { from, until, who, edges });
            }
        }
    }

    /// Whether a switch began this stretch of a CPU's time.
    fn came_at(&self, span: &Span) -> bool {
        self.switched.get(&span.cpu.cpu) == Some(&span.from)
    }
}

impl Observer for History {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        let Span { cpu, from, until, doubtful } = ran.span;
        let edges = Edges { begun: self.came_at(&ran.span), ended: ran.left != Left::Open };
        self.stretch(ran.task.id, (from, until), doubtful, edges, Doing::Running { cpu: cpu.cpu });
        self.turn(&ran.span, Some(ran.task.id));
        if ran.left == Left::Died && self.died.len() < MAX_LIVES {
            self.died.insert(ran.task.id, until);
        }
        if self.scope.clip(from, until).is_some() && !seen.tasks.is_recorder(ran.task) {
            self.last_ran = self.last_ran.max(Some((until, ran.task.id)));
        }
    }

    fn idled(&mut self, span: &Span, _: &Seen<'_>) {
        self.turn(span, Some(TaskId::idle(span.cpu.cpu)));
    }

    fn unseen(&mut self, span: &Span, _: &Seen<'_>) {
        self.turn(span, None);
    }

    fn waited(&mut self, wait: &Waited<'_>, _: &Seen<'_>) {
        let Some((_, until)) = self.scope.clip(wait.from, wait.until) else { return };
        let mut segments = (0, 0);
        if wait.segments.len() > 1 {
            if !self.admit(until, wait.segments.len()) {
                return;
            }
            let first = self.first_segment + self.segments.len();
            self.segments.extend_from_slice(wait.segments);
            segments = (first as u32, (first + wait.segments.len()) as u32);
        }
        let doing = Doing::Waiting { cause: wait.cause, cpu: wait.cpu.cpu, segments };
        let edges = Edges { begun: !wait.cut, ended: wait.end == WaitEnd::Ran };
        self.stretch(wait.task.id, (wait.from, wait.until), wait.doubtful, edges, doing);
    }

    fn slept(&mut self, slept: &Slept, _: &Seen<'_>) {
        let doing = Doing::Asleep { state: slept.state, end: slept.end, cpu: slept.cpu.cpu, woken_on: None };
        let edges = Edges { begun: !slept.cut, ended: matches!(slept.end, SleepEnd::Woken(_)) };
        self.stretch(slept.task.id, (slept.from, slept.until), slept.doubtful, edges, doing);
    }

    fn switched(&mut self, switched: &Switched, _: &Seen<'_>) {
        self.switched.insert(switched.cpu.cpu, switched.at);
        self.nested.switched(switched.cpu, switched.at);
    }

    fn woken(&mut self, woken: &Woken, _: &Seen<'_>) {
        if woken.new && self.born.len() < MAX_LIVES {
            self.born.insert(woken.task.id, woken.at);
        }
        if woken.context == Context::Task || woken.awake {
            return;
        }
        let served = self.nested.serving(woken.cpu.cpu);
        if let Some(last) = self.tasks.get_mut(&woken.task.id).and_then(|line| line.list.last_mut())
            && last.until == woken.at
            && let Doing::Asleep { woken_on, .. } = &mut last.doing
        {
            *woken_on = Some((woken.cpu.cpu, served));
        }
    }

    fn happened(&mut self, event: &Event, on: CpuRef, seen: &Seen<'_>) {
        let (at, cpu) = (event.ts, event.cpu);
        if let (Some(worked), _) = self.nested.happened(event, on, seen)
            && let Some((from, until)) = self.scope.clip(worked.from, worked.until)
            && self.admit(until, 1)
        {
            let begins = worked.begins && from == worked.from;
            self.served.entry(cpu).or_default().list.push(Worked { from, until, begins, ..worked });
        }
        match event.kind {
            EventKind::FutexWait(wait) => {
                let from = at - wait.duration_ns;
                let fresh = if self.futexes.contains_key(&wait.task) { 0 } else { LINE };
                if let Some((from, until)) = self.scope.clip(from, at)
                    && self.admit(until, 1 + fresh)
                {
                    let call = FutexCall { from, until, address: wait.address };
                    self.futexes.entry(wait.task).or_default().push(call);
                }
            }
            EventKind::BlockComplete(done) => self.request(at, cpu, &done),
            _ => {}
        }
    }
}

impl History {
    fn request(&mut self, at: Nanos, cpu: Cpu, done: &BlockComplete) {
        let fresh = if self.requests_of.contains_key(&done.task) { 0 } else { LINE };
        if self.scope.contains(at) && self.admit(at, 1 + fresh) {
            let BlockComplete { task, device, operation, .. } = *done;
            let request = Request { until: at, task, device, operation };
            self.requests_of.entry(task).or_default().push(request);
            self.requests_on.entry(cpu).or_default().push(request);
        }
    }
}

/// Two histories, of which one holds what has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past<'a> {
    pub(super) ended: &'a History,
    pub(super) open: &'a History,
}

impl<'a> Past<'a> {
    /// What a task did between two times, in order.
    pub(super) fn of(
        self,
        task: TaskId,
        from: Nanos,
        until: Nanos,
    ) -> impl Iterator<Item = (&'a Stretch, Nanos, Nanos)> {
        both([self.ended, self.open].map(|history| history.tasks.get(&task)), from, until)
    }

    /// What a task did just before a time.
    pub(super) fn before(self, task: TaskId, at: Nanos) -> Option<&'a Stretch> {
        [self.open, self.ended].into_iter().find_map(|history| {
            let line = history.tasks.get(&task)?;
            line.list[..line.first_not(|stretch| stretch.from < at)].last()
        })
    }

    /// Whether a task lost a CPU at that time.
    pub(super) fn ran_until(self, task: TaskId, at: Nanos) -> bool {
        self.before(task, at).is_some_and(|it| it.until >= at && matches!(it.doing, Doing::Running { .. }))
    }

    /// Who had a CPU between two times.
    pub(super) fn on(self, cpu: Cpu, from: Nanos, until: Nanos) -> impl Iterator<Item = (&'a Turn, Nanos, Nanos)> {
        both([self.ended, self.open].map(|history| history.cpus.get(&cpu)), from, until)
    }

    /// What a CPU served between two times.
    pub(super) fn served(
        self,
        cpu: Cpu,
        from: Nanos,
        until: Nanos,
    ) -> impl Iterator<Item = (&'a Worked, Nanos, Nanos)> {
        self.ended.served.get(&cpu).into_iter().flat_map(move |line| between(line, from, until))
    }

    /// The queues that a task waited on.
    pub(super) fn queues(self, stretch: &Stretch, cpu: Cpu, (first, end): (u32, u32)) -> Vec<(Cpu, Nanos, Nanos)> {
        if first == end {
            return vec![(cpu, stretch.from, stretch.until)];
        }
        let history = if (first as usize) < self.open.first_segment { self.ended } else { self.open };
        let [first, end] = [first, end].map(|at| (at as usize).saturating_sub(history.first_segment));
        let segments = history.segments.get(first..end).unwrap_or_default();
        segments.iter().map(|segment| (segment.cpu.cpu, segment.from, segment.until)).collect()
    }

    /// The futex call in which a task slept.
    pub(super) fn futex(self, task: TaskId, from: Nanos, until: Nanos) -> Option<Address> {
        let calls = self.ended.futexes.get(&task)?;
        let first = calls.partition_point(|call| call.until < until);
        calls.get(first).filter(|call| call.from <= from).map(|call| call.address)
    }

    /// The last request of a task that was done while it slept.
    pub(super) fn own_request(self, task: TaskId, from: Nanos, until: Nanos) -> Option<Request> {
        last_done(self.ended.requests_of.get(&task)?, from, until)
    }

    /// The last request, whoever's, that was done on a CPU.
    pub(super) fn request_on(self, cpu: Cpu, from: Nanos, until: Nanos) -> Option<Request> {
        last_done(self.ended.requests_on.get(&cpu)?, from, until)
    }

    /// Whether a task was not there between two times, and up to when: it had not begun, or had ended.
    pub(super) fn absent(self, task: TaskId, from: Nanos) -> Option<Nanos> {
        let of = |born: fn(&History) -> &HashMap<TaskId, Nanos>| {
            [self.ended, self.open].into_iter().find_map(|history| born(history).get(&task).copied())
        };
        if of(|history| &history.died).is_some_and(|died| died <= from) {
            return Some(Nanos::MAX);
        }
        of(|history| &history.born).filter(|born| from < *born)
    }
}

fn last_done(requests: &[Request], from: Nanos, until: Nanos) -> Option<Request> {
    let done = &requests[..requests.partition_point(|request| request.until <= until)];
    done.last().filter(|request| request.until > from).copied()
}

/// The task that woke another one. A CPU that is idle wakes on behalf of interrupts.
pub(super) fn waker(end: SleepEnd) -> Option<TaskId> {
    match end {
        SleepEnd::Woken(Waker::Task(task)) if !task.is_idle() => Some(task),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn looking_close_by_finds_what_looking_everywhere_does(
            mut list in prop::collection::vec(0..1_000u32, 0..200),
            asked in prop::collection::vec(0..1_100u32, 1..50),
        ) {
            list.sort_unstable();
            let line = Line { list, at: Cell::new(0) };
            for limit in asked {
                prop_assert_eq!(line.first_not(|&one| one < limit), line.list.partition_point(|&one| one < limit));
            }
        }
    }
}
