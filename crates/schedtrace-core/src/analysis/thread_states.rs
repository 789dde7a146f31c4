//! What threads did with their time: ran, waited for a CPU and why, slept and for what, and who ended their sleeps.

use hashbrown::HashMap;
use serde::Serialize;

use super::groups::{Gone, Group, GroupIx, Merge, Rows};
use super::measure::{Latencies, Measure};
use super::question::{About, Question};
use super::runqueue::{CauseKind, WaitCounts};
use super::states::{CpuRef, Observer, Ran, Seen, SleepEnd, Slept, Waited};
use super::study::Scope;
use super::tables::{Pair, Table};
use super::wakeups::{WakerGroup, of_waker};
use crate::event::{Cpu, Event, EventKind, Nanos, TaskId, TaskState};

/// So many sleeps wait for the end of the call in which they were; of more tasks, none is known to be at a futex.
const MAX_PENDING: usize = 1 << 16;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadState {
    /// It has a CPU.
    Running,
    /// It waits for a CPU since it was woken.
    Woken,
    /// It waits for a CPU since it lost it.
    Preempted,
    /// It waits since the CPU quota of its cgroup was used up.
    Throttled,
    /// It waits for its first CPU.
    New,
    /// It waits for a CPU, since before the recording began.
    AtStart,
    /// It sleeps, and a signal would wake it.
    Interruptible,
    /// It sleeps, and no signal wakes it.
    Uninterruptible,
    /// It sleeps for I/O, as the kernel counts it (`iowait`).
    Io,
    /// It sleeps in a call of futex(2); only where `futex_wait` was recorded.
    Futex,
    /// A signal or a debugger has stopped it.
    Stopped,
    /// A kernel thread that has nothing to do (`TASK_IDLE`).
    Idle,
    /// It sleeps, in a state that is not known: since before the recording began.
    Asleep,
}

impl ThreadState {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Running,
        Self::Woken,
        Self::Preempted,
        Self::Throttled,
        Self::New,
        Self::AtStart,
        Self::Interruptible,
        Self::Uninterruptible,
        Self::Io,
        Self::Futex,
        Self::Stopped,
        Self::Idle,
        Self::Asleep,
    ];

    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Woken => "woken",
            Self::Preempted => "preempted",
            Self::Throttled => "throttled",
            Self::New => "new",
            Self::AtStart => "at_start",
            Self::Interruptible => "interruptible",
            Self::Uninterruptible => "uninterruptible",
            Self::Io => "io",
            Self::Futex => "futex",
            Self::Stopped => "stopped",
            Self::Idle => "idle",
            Self::Asleep => "asleep",
        }
    }

    pub(crate) fn of_sleep(state: Option<TaskState>) -> Self {
        match state {
            None => Self::Asleep,
            Some(state) if state.is_io_wait() => Self::Io,
            Some(state) => match state.letter() {
                'S' => Self::Interruptible,
                'T' | 't' => Self::Stopped,
                'I' => Self::Idle,
                _ => Self::Uninterruptible,
            },
        }
    }
}

impl From<CauseKind> for ThreadState {
    fn from(cause: CauseKind) -> Self {
        match cause {
            CauseKind::Woken => Self::Woken,
            CauseKind::Preempted => Self::Preempted,
            CauseKind::Throttled => Self::Throttled,
            CauseKind::New => Self::New,
            CauseKind::AtStart => Self::AtStart,
        }
    }
}

/// What threads did with their time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThreadStatesReport {
    /// All threads together: each state that occurred.
    pub total: Vec<StateRow>,
    /// The groups that were awake longest, most first.
    pub groups: Vec<ThreadStatesRow>,
    /// How many groups there were.
    pub groups_total: usize,
    /// Who ended the sleeps that took longest in all, most first. With CPUs as groups, by process.
    pub wakers: Vec<SleepRow>,
    /// How many pairs of sleeper and waker there were.
    pub wakers_total: usize,
    /// Sleeps of pairs that were too many to keep apart.
    pub others: u64,
}

/// One state, of all threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateRow {
    /// Which.
    pub state: ThreadState,
    /// How long it lasted, each time: those that lie in the window as a whole.
    pub lasted: Latencies,
    /// Those that an edge of the window cuts off, with the part that lies in it.
    pub censored: WaitCounts,
    /// Those in which events are missing, as far as they are known.
    pub in_loss: WaitCounts,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThreadStatesRow {
    /// Which.
    pub group: Group,
    /// Each state that occurred, in the order of [`ThreadState::ALL`].
    pub states: Vec<StateTime>,
}

/// One state of a group, the parts in the window of those that its edges cut off included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StateTime {
    /// Which.
    pub state: ThreadState,
    /// How often.
    pub times: u64,
    /// All of that together.
    pub total_ns: u64,
    /// The longest.
    pub longest_ns: u64,
}

/// Who ended the sleeps of whom.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SleepRow {
    /// Who slept.
    pub sleeper: Group,
    /// Who woke it.
    pub waker: WakerGroup,
    /// How long the sleeps lasted: those that lie in the window as a whole.
    pub lasted: Latencies,
}

#[derive(Clone, Debug, Default)]
struct Total {
    lasted: Measure,
    censored: WaitCounts,
    in_loss: WaitCounts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row([WaitCounts; ThreadState::ALL.len()]);

impl Merge for Row {
    fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| mine.merge(theirs));
    }
}

impl Row {
    /// Time awake.
    fn most(&self) -> u64 {
        let awake = &self.0[..=ThreadState::AtStart as usize];
        awake.iter().map(|counts| counts.wait_ns).fold(0, u64::saturating_add)
    }
}

/// A stretch that a thread spent in one state.
#[derive(Clone, Copy, Debug)]
struct Spent {
    task: TaskId,
    row: GroupIx,
    cpu: Cpu,
    from: Nanos,
    until: Nanos,
    state: ThreadState,
    /// It has begun and ended, as far as is known.
    whole: bool,
    doubtful: bool,
}

/// What did threads do with their time?
#[derive(Clone, Debug)]
pub struct ThreadStates {
    scope: Scope,
    total: Vec<Total>,
    rows: Rows<Row>,
    pairs: Table<Pair, Measure>,
    /// The last sleep of each task: the call in which it was has not ended yet.
    pending: HashMap<TaskId, Spent>,
}

impl ThreadStates {
    fn spend(&mut self, spent: Spent, seen: &Seen<'_>) {
        let Some((from, until)) = self.scope.clip_wait(spent.from, spent.until) else { return };
        let ns = (until - from).0;
        let total = &mut self.total[spent.state as usize];
        if spent.doubtful {
            return total.in_loss.add(ns);
        }
        self.rows.at(spent.row).0[spent.state as usize].add(ns);
        if spent.whole && from == spent.from && until == spent.until {
            total.lasted.record(from, ns, spent.cpu, Some(spent.task), seen);
        } else {
            total.censored.add(ns);
        }
    }

    fn flush(&mut self, seen: &Seen<'_>) {
        for (_, spent) in std::mem::take(&mut self.pending) {
            self.spend(spent, seen);
        }
    }
}

impl Observer for ThreadStates {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        let Some(row) = self.scope.row(ran.task, ran.span.cpu, seen) else { return };
        let super::states::Span { cpu, from, until, doubtful } = ran.span;
        let whole = ran.is_whole();
        let (task, cpu, state) = (ran.task.id, cpu.cpu, ThreadState::Running);
        self.spend(Spent { task, row, cpu, from, until, state, whole, doubtful }, seen);
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        let Some(row) = self.scope.row(wait.task, wait.cpu, seen) else { return };
        let whole = wait.is_whole();
        let state = CauseKind::from(wait.cause).into();
        let Waited { from, until, doubtful, .. } = *wait;
        let (task, cpu) = (wait.task.id, wait.cpu.cpu);
        self.spend(Spent { task, row, cpu, from, until, state, whole, doubtful }, seen);
    }

    fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
        let Some(row) = self.scope.row(slept.task, slept.cpu, seen) else { return };
        let Slept { from, until, doubtful, .. } = *slept;
        let (task, cpu) = (slept.task.id, slept.cpu.cpu);
        let whole = slept.is_whole();
        let state = ThreadState::of_sleep(slept.state);
        let spent = Spent { task, row, cpu, from, until, state, whole, doubtful };
        if let SleepEnd::Woken(waker) = slept.end
            && whole
            && !doubtful
            && self.scope.contains(until)
            && self.scope.contains(from)
            && let Some(pair) = self.pairs.at(Pair(seen.tasks.group_of(slept.task), of_waker(waker, seen)))
        {
            pair.record(from, (until - from).0, cpu, Some(task), seen);
        }
        // It may have been at a futex, which is told when the call is over.
        let before = match state {
            ThreadState::Interruptible if self.pending.len() < MAX_PENDING => self.pending.insert(task, spent),
            _ => {
                let before = self.pending.remove(&task);
                self.spend(spent, seen);
                before
            }
        };
        if let Some(before) = before {
            self.spend(before, seen);
        }
    }

    fn happened(&mut self, event: &Event, _: CpuRef, seen: &Seen<'_>) {
        if let EventKind::FutexWait(wait) = event.kind
            && let Some(mut spent) = self.pending.remove(&wait.task)
        {
            if spent.from >= event.ts - wait.duration_ns {
                spent.state = ThreadState::Futex;
            }
            self.spend(spent, seen);
        }
    }
}

impl Question for ThreadStates {
    type Answer = ThreadStatesReport;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            total: vec![Total::default(); ThreadState::ALL.len()],
            rows: Rows::default(),
            pairs: Table::default(),
            pending: HashMap::new(),
        }
    }

    fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
        self.pairs.rename(|Pair(a, b)| Pair(gone.now(a), gone.now(b)));
        self.pending.values_mut().for_each(|spent| spent.row = gone.now(spent.row));
    }

    fn answer(&self, _: &About, seen: &Seen<'_>) -> ThreadStatesReport {
        let mut all = self.clone();
        all.flush(seen);
        let rows = all.rows.ranked(|row| {
            // Groups that slept all the time come last, but they come.
            row.most().max(u64::from(row.0.iter().any(|counts| counts.waits > 0)))
        });
        let states = |row: &Row| {
            let all = ThreadState::ALL.into_iter().zip(row.0).filter(|(_, counts)| counts.waits > 0);
            let time = |(state, counts): (ThreadState, WaitCounts)| StateTime {
                state,
                times: counts.waits,
                total_ns: counts.wait_ns,
                longest_ns: counts.longest_ns,
            };
            all.map(time).collect()
        };
        let pairs = all.pairs.ranked(Measure::total_ns);
        let occurred = |total: &Total| total.lasted.count() + total.censored.waits + total.in_loss.waits > 0;
        ThreadStatesReport {
            total: ThreadState::ALL
                .into_iter()
                .zip(&all.total)
                .filter(|(_, total)| occurred(total))
                .map(|(state, total)| StateRow {
                    state,
                    lasted: total.lasted.report(),
                    censored: total.censored,
                    in_loss: total.in_loss,
                })
                .collect(),
            groups: rows
                .iter()
                .take(self.scope.top())
                .map(|&(ix, row)| ThreadStatesRow { group: seen.tasks.group(ix), states: states(row) })
                .collect(),
            groups_total: rows.len(),
            wakers: pairs
                .iter()
                .take(self.scope.top())
                .map(|&(Pair(sleeper, by), lasted)| SleepRow {
                    sleeper: seen.tasks.group(sleeper),
                    waker: WakerGroup::of(by, seen),
                    lasted: lasted.report(),
                })
                .collect(),
            wakers_total: pairs.len(),
            others: all.pairs.others(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{S, Stream, a_life, sums};
    use super::super::{Answered, Options};
    use super::*;
    use crate::event::{Address, FutexWait};

    fn asked(stream: Stream) -> Answered<ThreadStatesReport> {
        stream.ask::<ThreadStates>()
    }

    fn times(report: &ThreadStatesReport, tid: u32) -> Vec<(ThreadState, u64, u64)> {
        let of = |row: &&ThreadStatesRow| matches!(&row.group, Group::Task(who) if who.tid == tid);
        let row = report.groups.iter().find(of);
        row.into_iter().flat_map(|row| &row.states).map(|time| (time.state, time.times, time.total_ns)).collect()
    }

    #[test]
    fn each_stretch_of_a_life_has_its_state() {
        let report = asked(a_life(TaskState::UNINTERRUPTIBLE)).answer;
        let expected = [
            (ThreadState::Running, 3, 250),
            (ThreadState::Woken, 1, 50),
            (ThreadState::Preempted, 1, 100),
            (ThreadState::Uninterruptible, 1, 300),
        ];
        assert_eq!(times(&report, 11), expected);
        let sleep = report.wakers.iter().find(|row| row.sleeper.to_string() == "one[11]").unwrap();
        assert_eq!((sleep.waker.to_string(), sums(&sleep.lasted)), ("two[12]".to_owned(), (1, 300)));
    }

    #[test]
    fn sleeps_are_told_apart_by_what_they_are_for() {
        let io = TaskState(TaskState::UNINTERRUPTIBLE.0 | TaskState::IO_WAIT.0);
        for (state, expected) in [
            (io, ThreadState::Io),
            (TaskState(4), ThreadState::Stopped),
            (TaskState(0x402), ThreadState::Idle),
            (S, ThreadState::Interruptible),
        ] {
            let report = asked(a_life(state)).answer;
            assert!(times(&report, 11).contains(&(expected, 1, 300)), "{expected:?}: {:?}", times(&report, 11));
        }
    }

    #[test]
    fn a_sleep_at_a_futex_is_known_when_the_call_is_over() {
        // The call began at 1_290 and is over at 1_660: the sleep was in it. One that began later was another one.
        let call = |duration_ns| FutexWait {
            task: TaskId(1),
            address: Address(7),
            duration_ns: Nanos(duration_ns),
            result: 0,
        };
        let with = |duration_ns| {
            let mut stream = a_life(S);
            let at = stream.batch.events.iter().position(|event| event.ts == Nanos(1_700)).unwrap();
            let event = Event { ts: Nanos(1_660), cpu: Cpu(0), kind: call(duration_ns).into() };
            stream.batch.events.insert(at, event);
            asked(stream).answer
        };
        assert!(times(&with(370), 11).contains(&(ThreadState::Futex, 1, 300)));
        assert!(times(&with(300), 11).contains(&(ThreadState::Interruptible, 1, 300)));
    }

    #[test]
    fn what_an_edge_cuts_off_counts_with_its_part() {
        let stream = a_life(S).options(|options| {
            *options = Options { from: Some(Nanos(1_400)), until: Some(Nanos(1_620)), ..options.clone() };
        });
        let report = asked(stream).answer;
        assert_eq!(times(&report, 11), [(ThreadState::Woken, 1, 20), (ThreadState::Interruptible, 1, 200)]);
        let sleeps = report.total.iter().find(|row| row.state == ThreadState::Interruptible).unwrap();
        assert_eq!((sleeps.lasted.summary.count, sleeps.censored.waits, sleeps.censored.wait_ns), (0, 1, 200));
        assert!(report.wakers.is_empty(), "no sleep lies in the window as a whole");
    }

    #[test]
    fn where_events_are_missing_no_sleep_is_measured() {
        let report = asked(a_life(S).loss(None, 3, 1_400, 1_500)).answer;
        let sleeps = report.total.iter().find(|row| row.state == ThreadState::Interruptible).unwrap();
        assert_eq!((sleeps.lasted.summary.count, sleeps.in_loss.waits), (0, 1));
    }
}
