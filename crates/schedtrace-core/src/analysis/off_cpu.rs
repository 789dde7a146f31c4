//! Time off the CPU: when a process or a thread did not run, for how long, and whose doing that was.
//!
//! An event is a stretch that a thread spent in one state other than running: it waited for a CPU, or it slept. A thread that
//! sleeps and then waits for a CPU has two. They are the rows of the SQL table `thread_state` that are not `Running`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cpu_time::ratio;
use super::distribution::{Distribution, Summary};
use super::groups::{Gone, Group, GroupIx, Merge};
use super::holders::{HolderOfWait, of_wait};
use super::question::{About, Question, Study};
use super::runqueue::{CauseKind, WaitCounts};
use super::states::{Cause, Observer, Ran, Seen, SleepEnd, Slept, Span, TaskRef, Waited};
use super::study::Scope;
use super::tables::Table;
use super::tasks::Who;
use super::wakeups::of_waker;
use super::{Options, Subject, ThreadState};
use crate::event::{Context, Cpu, Nanos, Waker};

/// When a process or a thread was off the CPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OffCpuReport {
    /// Whether the subject was there: whether anything is known of what one of its threads did in the window.
    pub subject_seen: bool,
    /// Shorter events are left out.
    pub min_ns: Nanos,
    /// How many events.
    pub events: u64,
    /// All of them together, the parts in the window of those that its edges cut off included.
    pub total_ns: u64,
    /// How long they lasted: those that lie in the window as a whole.
    pub lasted: Summary,
    /// Whose doing all of it was, most time first.
    pub contenders: Vec<Contender>,
    /// Those in which it was runnable, and waited for a CPU.
    pub waits: OffCpuPart,
    /// Those in which it slept.
    pub sleeps: OffCpuPart,
}

/// The waits for a CPU, or the sleeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OffCpuPart {
    /// How many.
    pub events: u64,
    /// All of them together, the parts in the window of those that its edges cut off included.
    pub total_ns: u64,
    /// How long they lasted: those that lie in the window as a whole.
    pub lasted: Summary,
    /// Of the events: those that an edge of the window cuts off.
    pub censored: WaitCounts,
    /// Not among the events: those in which events of the kernel are missing, as far as they are known.
    pub in_loss: WaitCounts,
    /// By reason, most time first.
    pub reasons: Vec<OffCpuReason>,
    /// Whose doing it was, most time first: who had the CPU during the waits, who ended the sleeps.
    pub contenders: Vec<Blamed>,
    /// How many of these there are.
    pub contenders_total: usize,
    /// The longest, longest first.
    pub tail: Vec<OffCpuSample>,
}

/// Why it was off the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OffCpuReason {
    /// The state.
    pub reason: ThreadState,
    /// How often.
    pub events: u64,
    /// All of that together.
    pub total_ns: u64,
    /// The longest.
    pub longest_ns: u64,
}

/// Somebody whose doing it was, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Blamed {
    /// Who.
    #[serde(flatten)]
    pub whose: WhoseDoing,
    /// How often: turns that it had the CPU, or sleeps that it ended.
    pub times: u64,
    /// For how long: it had the CPU while others waited; or others slept until it woke them.
    pub total_ns: u64,
    /// The same as a share of all time of these events.
    pub share_ratio: f64,
}

/// Somebody whose doing waits and sleeps were.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contender {
    /// Who.
    #[serde(flatten)]
    pub whose: WhoseDoing,
    /// For how long it had the CPU while others waited.
    pub held_ns: u64,
    /// For how long others slept until it woke them.
    pub slept_ns: u64,
    /// Both together.
    pub total_ns: u64,
    /// The same as a share of all time off the CPU.
    pub share_ratio: f64,
}

/// Whose doing it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum WhoseDoing {
    /// The tasks of this group: by default, a process.
    Tasks {
        /// Which.
        group: Group,
    },
    /// Nobody: the CPU was idle.
    Idle,
    /// An interrupt, whatever task it interrupted.
    Interrupt {
        /// Of which kind.
        context: Context,
    },
    /// It is not known, or it has not ended.
    Unknown,
}

impl std::fmt::Display for WhoseDoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tasks { group } => group.fmt(f),
            Self::Idle => f.pad("an idle CPU"),
            Self::Interrupt { context } => f.pad(context.name()),
            Self::Unknown => f.pad("nobody known"),
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OffCpuSample {
    /// Who was off the CPU.
    pub task: Who,
    /// Why.
    pub reason: ThreadState,
    /// Since when, in the window.
    pub from_ns: Nanos,
    /// For how long.
    pub duration_ns: u64,
    /// A wait: for which CPU in the end. A sleep: on which it ran last.
    pub cpu: Cpu,
    /// An edge of the window cuts it off.
    pub censored: bool,
    /// Who woke it, after a sleep; who took the CPU from it, or woke it, before a wait.
    pub by: Option<Who>,
    /// An interrupt did.
    pub by_interrupt: Option<Context>,
    /// A wait: who had the CPU longest meanwhile.
    pub held_by: Vec<HolderOfWait>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Doing {
    times: u64,
    ns: u64,
}

impl Merge for Doing {
    fn merge(&mut self, other: &Self) {
        self.times.merge(&other.times);
        self.ns.merge(&other.ns);
    }
}

#[derive(Clone, Debug, Default)]
struct Part {
    lasted: Distribution,
    reasons: [WaitCounts; ThreadState::ALL.len()],
    censored: WaitCounts,
    in_loss: WaitCounts,
    contenders: Table<GroupIx, Doing>,
    /// Not in order.
    tail: Vec<OffCpuSample>,
    /// The shortest of `tail`, once there are enough of them.
    least: u64,
}

impl Part {
    fn add(&mut self, reason: ThreadState, ns: u64, censored: bool) {
        self.reasons[reason as usize].add(ns);
        match censored {
            true => self.censored.add(ns),
            false => self.lasted.record(ns),
        }
    }

    fn blame(&mut self, whom: GroupIx, ns: u64) {
        if let Some(row) = self.contenders.at(whom) {
            row.merge(&Doing { times: 1, ns });
        }
    }

    /// Whether this one is among the longest.
    fn is_long(&self, ns: u64, room: usize) -> bool {
        room > 0 && ns > 0 && (self.tail.len() < room || ns > self.least)
    }

    #[cold]
    fn keep(&mut self, sample: OffCpuSample, room: usize) {
        if self.tail.len() < room {
            self.tail.push(sample);
        } else if let Some(shortest) = self.tail.iter_mut().min_by_key(|kept| kept.duration_ns) {
            *shortest = sample;
        }
        if self.tail.len() >= room {
            self.least = self.tail.iter().map(|kept| kept.duration_ns).min().unwrap_or(0);
        }
    }

    fn report(&self, top: usize, seen: &Seen<'_>) -> OffCpuPart {
        let all = ThreadState::ALL.into_iter().zip(&self.reasons).filter(|(_, counts)| counts.waits > 0);
        let mut reasons: Vec<OffCpuReason> = all
            .map(|(reason, counts)| OffCpuReason {
                reason,
                events: counts.waits,
                total_ns: counts.wait_ns,
                longest_ns: counts.longest_ns,
            })
            .collect();
        reasons.sort_by_key(|row| (std::cmp::Reverse(row.total_ns), row.reason));
        let total_ns = reasons.iter().map(|row| row.total_ns).fold(0, u64::saturating_add);
        let contenders = self.contenders.ranked(|doing| doing.ns);
        let blamed = |&(whom, doing): &(GroupIx, &Doing)| Blamed {
            whose: whose(whom, seen),
            times: doing.times,
            total_ns: doing.ns,
            share_ratio: ratio(doing.ns, total_ns),
        };
        let mut tail = self.tail.clone();
        tail.sort_by_key(|sample| (std::cmp::Reverse(sample.duration_ns), sample.from_ns));
        OffCpuPart {
            events: reasons.iter().map(|row| row.events).fold(0, u64::saturating_add),
            total_ns,
            lasted: self.lasted.summary(),
            censored: self.censored,
            in_loss: self.in_loss,
            reasons,
            contenders_total: contenders.len(),
            contenders: contenders.iter().take(top).map(blamed).collect(),
            tail,
        }
    }
}

/// Whose doing waits and sleeps were together, most time first.
fn contenders(waits: &Part, sleeps: &Part, (top, total_ns): (usize, u64), seen: &Seen<'_>) -> Vec<Contender> {
    let mut all: BTreeMap<GroupIx, (u64, u64)> = BTreeMap::new();
    for (whom, doing) in waits.contenders.iter() {
        all.entry(whom).or_default().0 = doing.ns;
    }
    for (whom, doing) in sleeps.contenders.iter() {
        all.entry(whom).or_default().1 = doing.ns;
    }
    let both = |(held, slept): (u64, u64)| held.saturating_add(slept);
    let mut all: Vec<_> = all.into_iter().filter(|(_, ns)| both(*ns) > 0).collect();
    all.sort_by_key(|(_, ns)| std::cmp::Reverse(both(*ns)));
    let told = all.into_iter().take(top).map(|(whom, ns)| Contender {
        whose: whose(whom, seen),
        held_ns: ns.0,
        slept_ns: ns.1,
        total_ns: both(ns),
        share_ratio: ratio(both(ns), total_ns),
    });
    told.collect()
}

fn whose(whom: GroupIx, seen: &Seen<'_>) -> WhoseDoing {
    let interrupt = |context| WhoseDoing::Interrupt { context };
    match whom {
        GroupIx::IDLE => WhoseDoing::Idle,
        GroupIx::UNSEEN => WhoseDoing::Unknown,
        GroupIx::SOFTIRQ => interrupt(Context::Softirq),
        GroupIx::HARDIRQ => interrupt(Context::Hardirq),
        GroupIx::NMI => interrupt(Context::Nmi),
        ix => WhoseDoing::Tasks { group: seen.tasks.group(ix) },
    }
}

/// When was a process or a thread off the CPU, and whose doing was that?
///
/// ```
/// use schedtrace_core::analysis::{self, GroupBy, OffCpu, Options, Subject};
/// use schedtrace_core::{Batch, Cpu, Event, EventKind, MemorySource, Meta, Nanos, Switch, Task, TaskId, TaskState};
///
/// // On CPU 0, task 2 preempts task 1 at 10 us and ends at 30 us.
/// let switch = |ts, prev, next, prev_state, preempted| Event {
///     ts: Nanos(ts),
///     cpu: Cpu(0),
///     kind: EventKind::Switch(Switch {
///         prev: TaskId(prev), next: TaskId(next), prev_state, preempted, prev_prio: 120, next_prio: 120,
///     }),
/// };
/// let events = vec![switch(10_000, 1, 2, TaskState::RUNNING, true), switch(30_000, 2, 1, TaskState::DEAD, false)];
/// let tasks = vec![Task { id: TaskId(1), tid: 42, tgid: 42, ..Task::idle(Cpu(0)) }];
/// let meta = Meta { started: Nanos(1), ended: Some(Nanos(40_000)), ..Meta::default() };
/// let mut source = MemorySource::new(meta, [Batch { until: Nanos(40_000), events, tasks, ..Batch::default() }]);
///
/// let asked = OffCpu::study(Some(Subject::Process(42)), Nanos(0), Options { by: GroupBy::Process, ..Options::default() });
/// let report = analysis::run(&mut source, asked)?;
/// assert_eq!((report.answer.events, report.answer.waits.total_ns), (1, 20_000));
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OffCpu {
    scope: Scope,
    subject: Option<Subject>,
    min: u64,
    subject_seen: bool,
    waits: Part,
    sleeps: Part,
}

impl OffCpu {
    /// The study of a subject, or of all tasks without one: of what lasted for `min` at least. [`Options::by`] says what
    /// contenders are, and [`Options::top`] how many of them and of the longest waits and sleeps are told.
    ///
    /// ```
    /// use schedtrace_core::Nanos;
    /// use schedtrace_core::analysis::{Analysis, OffCpu, Options, Subject};
    /// let study = OffCpu::study(Some(Subject::Thread(42)), Nanos(1_000_000), Options::default());
    /// assert_eq!(study.report().answer.events, 0);
    /// ```
    #[must_use]
    pub fn study(subject: Option<Subject>, min: Nanos, options: Options) -> Study<Self> {
        let include_recorder = options.include_recorder || subject.is_some();
        let options = Options { include_recorder, ..options };
        let scope = Scope::new(&options);
        Study::that_remembers(Self { subject, min: min.0, ..Self::new(&scope) }, scope, options)
    }

    fn is_wanted(&self, task: TaskRef, seen: &Seen<'_>) -> bool {
        let is = |of: fn(&crate::event::Task) -> u32, id: u32| seen.tasks.identity(task).is_some_and(|it| of(it) == id);
        !seen.tasks.left_out(task)
            && match self.subject {
                None | Some(Subject::Last) => true,
                Some(Subject::Thread(tid)) => is(|task| task.tid, tid),
                Some(Subject::Process(pid)) => is(|task| task.tgid, pid),
            }
    }

    /// The part in the window of what a task of the subject did, if it is long enough.
    fn clip(&mut self, task: TaskRef, span: &Span, seen: &Seen<'_>) -> Option<(Nanos, Nanos)> {
        let part = self.scope.clip_wait(span.from, span.until)?;
        let is_long = (part.1 - part.0).0 >= self.min;
        if (!is_long && self.subject_seen) || !self.is_wanted(task, seen) {
            return None;
        }
        self.subject_seen = true;
        is_long.then_some(part)
    }
}

impl Observer for OffCpu {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        if !self.subject_seen && self.scope.clip(ran.span.from, ran.span.until).is_some() {
            self.subject_seen = self.is_wanted(ran.task, seen);
        }
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        let span = Span { cpu: wait.cpu, from: wait.from, until: wait.until, doubtful: wait.doubtful };
        let Some((from, until)) = self.clip(wait.task, &span, seen) else { return };
        let ns = (until - from).0;
        if wait.doubtful {
            return self.waits.in_loss.add(ns);
        }
        let reason = CauseKind::from(wait.cause).into();
        let censored = !wait.is_whole() || (from, until) != (wait.from, wait.until);
        self.waits.add(reason, ns, censored);
        for segment in wait.segments {
            if let Some((from, until)) = self.scope.clip_wait(segment.from, segment.until) {
                seen.cpus.held(segment.cpu, from, until, |held| self.waits.blame(held.group, held.ns));
            }
        }
        let room = self.scope.worst;
        if self.waits.is_long(ns, room) {
            let (by, by_interrupt) = match wait.cause {
                Cause::Woken(Waker::Task(task)) | Cause::Preempted(task) | Cause::New(task) => (Some(task), None),
                Cause::Woken(Waker::Interrupt(context)) => (None, Some(context)),
                Cause::Throttled | Cause::AtStart => (None, None),
            };
            let sample = OffCpuSample {
                task: seen.tasks.who(wait.task.id),
                reason,
                from_ns: from,
                duration_ns: ns,
                cpu: wait.cpu.cpu,
                censored,
                by: by.map(|task| seen.tasks.who(task)),
                by_interrupt,
                held_by: of_wait(wait, &self.scope, seen),
            };
            self.waits.keep(sample, room);
        }
    }

    fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
        let span = Span { cpu: slept.cpu, from: slept.from, until: slept.until, doubtful: slept.doubtful };
        let Some((from, until)) = self.clip(slept.task, &span, seen) else { return };
        let ns = (until - from).0;
        if slept.doubtful {
            return self.sleeps.in_loss.add(ns);
        }
        let reason = ThreadState::of_sleep(slept.state);
        let censored = !slept.is_whole() || (from, until) != (slept.from, slept.until);
        self.sleeps.add(reason, ns, censored);
        let waker = match slept.end {
            // Whoever wakes it after the window is not known in it.
            SleepEnd::Woken(waker) if self.scope.contains(slept.until) => Some(waker),
            _ => None,
        };
        self.sleeps.blame(waker.map_or(GroupIx::UNSEEN, |waker| of_waker(waker, seen)), ns);
        let room = self.scope.worst;
        if self.sleeps.is_long(ns, room) {
            let (by, by_interrupt) = match waker {
                Some(Waker::Task(task)) => (Some(seen.tasks.who(task)), None),
                Some(Waker::Interrupt(context)) => (None, Some(context)),
                None => (None, None),
            };
            let task = seen.tasks.who(slept.task.id);
            let (from_ns, duration_ns, cpu) = (from, ns, slept.cpu.cpu);
            let held_by = Vec::new();
            let sample = OffCpuSample { task, reason, from_ns, duration_ns, cpu, censored, by, by_interrupt, held_by };
            self.sleeps.keep(sample, room);
        }
    }
}

impl Question for OffCpu {
    type Answer = OffCpuReport;

    fn new(scope: &Scope) -> Self {
        let (waits, sleeps) = (Part::default(), Part::default());
        Self { scope: *scope, subject: None, min: 0, subject_seen: false, waits, sleeps }
    }

    fn fold(&mut self, gone: &Gone) {
        for part in [&mut self.waits, &mut self.sleeps] {
            part.contenders.rename(|ix| gone.now(ix));
        }
    }

    fn answer(&self, _: &About, seen: &Seen<'_>) -> OffCpuReport {
        let top = self.scope.top();
        let (waits, sleeps) = (self.waits.report(top, seen), self.sleeps.report(top, seen));
        let mut lasted = self.waits.lasted.clone();
        lasted.merge(&self.sleeps.lasted);
        let total_ns = waits.total_ns.saturating_add(sleeps.total_ns);
        OffCpuReport {
            subject_seen: self.subject_seen,
            min_ns: Nanos(self.min),
            events: waits.events.saturating_add(sleeps.events),
            total_ns,
            contenders: contenders(&self.waits, &self.sleeps, (top, total_ns), seen),
            lasted: lasted.summary(),
            waits,
            sleeps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Stream, X};
    use super::super::{Analysis, GroupBy};
    use super::*;
    use crate::event::TaskState;

    /// The life of a thread, as one of a process.
    fn a_life(state: TaskState) -> Stream {
        super::super::tests::a_life(state).by(GroupBy::Process)
    }

    fn asked(stream: Stream, subject: Option<Subject>, min: u64) -> OffCpuReport {
        let mut study = OffCpu::study(subject, Nanos(min), stream.options.clone());
        study.begin(&stream.meta);
        study.update(&crate::event::Batch { until: stream.meta.ended.unwrap(), ..stream.batch });
        study.finish(&stream.meta);
        study.report().answer
    }

    fn blamed(part: &OffCpuPart) -> Vec<(String, u64, u64)> {
        part.contenders.iter().map(|row| (row.whose.to_string(), row.times, row.total_ns)).collect()
    }

    #[test]
    fn waits_and_sleeps_have_those_whose_doing_they_were() {
        let report = asked(a_life(TaskState::UNINTERRUPTIBLE), Some(Subject::Process(10)), 0);
        assert_eq!((report.events, report.total_ns, report.lasted.max_ns), (3, 450, 300));
        let reasons = |part: &OffCpuPart| -> Vec<_> {
            part.reasons.iter().map(|row| (row.reason, row.events, row.total_ns)).collect()
        };
        assert_eq!(reasons(&report.waits), [(ThreadState::Preempted, 1, 100), (ThreadState::Woken, 1, 50)]);
        assert_eq!(reasons(&report.sleeps), [(ThreadState::Uninterruptible, 1, 300)]);
        assert_eq!(blamed(&report.waits), [("two[12]".to_owned(), 2, 150)]);
        assert_eq!(blamed(&report.sleeps), [("two[12]".to_owned(), 1, 300)]);
        let wait = &report.waits.tail[0];
        assert_eq!((wait.reason, wait.from_ns, wait.duration_ns), (ThreadState::Preempted, Nanos(1_100), 100));
        assert_eq!(wait.by.as_ref().map(|who| who.tid), Some(12));
        assert_eq!(wait.held_by[0].held_ns, 100);
        let sleep = &report.sleeps.tail[0];
        assert_eq!((sleep.from_ns, sleep.duration_ns, sleep.censored), (Nanos(1_300), 300, false));
        assert_eq!(sleep.by.as_ref().map(|who| who.comm.as_str()), Some("two"));
        assert_eq!(asked(a_life(X), Some(Subject::Thread(77)), 0).events, 0, "nobody is called so");
    }

    #[test]
    fn whoever_did_both_is_told_once_with_both() {
        let report = asked(a_life(TaskState::UNINTERRUPTIBLE), Some(Subject::Process(10)), 0);
        let told: Vec<_> =
            report.contenders.iter().map(|one| (one.whose.to_string(), one.held_ns, one.slept_ns)).collect();
        assert_eq!(told, [("two[12]".to_owned(), 150, 300)]);
        assert_eq!((report.contenders[0].total_ns, report.contenders[0].share_ratio), (450, 1.0));
    }

    #[test]
    fn who_was_never_off_the_cpu_was_there() {
        let seen = |stream: Stream, tid| asked(stream, Some(Subject::Thread(tid)), 1_000_000).subject_seen;
        let life = || a_life(TaskState::INTERRUPTIBLE);
        assert!(seen(life(), 11) && seen(life(), 12), "what is short is left out, and whoever did it is not");
        assert!(!seen(life(), 77), "nobody is called so");
        assert!(seen(life().window(1_230, 1_270), 11), "it ran");
        assert!(!seen(life().window(1_750, 1_800), 11), "it was gone");
    }

    #[test]
    fn what_is_short_is_left_out_and_what_is_cut_off_is_no_sample() {
        let one = Some(Subject::Thread(11));
        let report = asked(a_life(TaskState::INTERRUPTIBLE), one, 100);
        assert_eq!((report.events, report.waits.events, report.min_ns), (2, 1, Nanos(100)));
        // In [1_150, 1_400), an edge cuts off each of the two.
        let report = asked(a_life(TaskState::INTERRUPTIBLE).window(1_150, 1_400), one, 0);
        assert_eq!((report.events, report.total_ns, report.lasted.count), (2, 150, 0));
        assert_eq!((report.waits.censored.wait_ns, report.sleeps.censored.wait_ns), (50, 100));
        assert_eq!(blamed(&report.sleeps), [("nobody known".to_owned(), 1, 100)]);
        assert!(report.waits.tail[0].censored && report.waits.tail[0].from_ns == Nanos(1_150));
    }

    #[test]
    fn what_is_lost_is_told_apart() {
        let lossy = a_life(TaskState::INTERRUPTIBLE).loss(None, 5, 1_320, 1_330);
        let report = asked(lossy, Some(Subject::Thread(11)), 0);
        assert_eq!((report.sleeps.events, report.sleeps.in_loss.waits), (0, 1), "{report:?}");
    }

    #[test]
    fn the_longest_stay_however_many_there_are() {
        for top in [0, 1, 2, 5] {
            let stream = a_life(TaskState::INTERRUPTIBLE).options(|options| options.top = top);
            let kept: Vec<u64> =
                asked(stream, Some(Subject::Thread(11)), 0).waits.tail.iter().map(|kept| kept.duration_ns).collect();
            assert_eq!(kept, [100, 50][..top.min(2)]);
        }
    }
}
