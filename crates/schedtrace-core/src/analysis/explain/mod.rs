//! Why was it slow? What a thread or a process did in a window, what it waited for, what that waited for, and so on.

mod history;
mod path;
#[cfg(test)]
pub(super) mod tests;
mod walk;
mod words;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use hashbrown::HashMap;
use serde::Serialize;

use self::history::{Doing, History, Past};
use self::walk::{Key, Node, Walk, What};
use super::cpu_time::ratio;
use super::question::{About, Answered, Question, Study};
use super::states::{CpuRef, Left, Observer, Ran, Seen, Slept, Span, States, Switched, Waited, Woken};
use super::study::Scope;
use super::tasks::Who;
use super::{Options, Tasks};
use crate::event::{Cpu, Event, Kind, Nanos, Task, TaskId};

/// So many steps of each mechanism are told on each level, those that took longest; the rest of them is one step.
const STEPS: usize = 8;
/// So many threads of a process are followed: those that ran or waited longest.
const MAX_THREADS: usize = 256;
/// So many threads of a process are remembered when they have ended.
const MAX_ENDED: usize = 1 << 16;
/// So many parts of the critical path are told, those that took longest.
const PATH_PARTS: usize = 64;
/// What took less than one part in so many of the window is not taken apart.
const WORTH: u64 = 1000;

/// Whose time is to be explained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// The task that had a CPU last in the window: whoever ended it.
    #[default]
    Last,
    /// A thread, by its thread id.
    Thread(u32),
    /// A process: whichever of its threads could make progress. While one of them runs, it runs.
    Process(u32),
}

impl Subject {
    /// Whether it names this task.
    const fn is(self, task: &Task) -> bool {
        match self {
            Self::Last => false,
            Self::Thread(tid) => task.tid == tid,
            Self::Process(pid) => task.tgid == pid,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.pad("the task that ran last"),
            Self::Thread(tid) => f.pad(&format!("thread {tid}")),
            Self::Process(pid) => f.pad(&format!("process {pid}")),
        }
    }
}

/// How a task spends time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mechanism {
    /// It had a CPU.
    Running,
    /// It had a CPU, which served an interrupt.
    Interrupted,
    /// It was woken, or new, and waited for a CPU.
    RunQueue,
    /// It lost the CPU, and waited to get it back.
    Preempted,
    /// It was runnable, and its cgroup had used up its CPU quota.
    Throttled,
    /// Of a wait: this task had the CPU.
    HeldBy,
    /// Of a wait: the CPU was idle, and had to wake up.
    CpuWakeup,
    /// Of a wait: the CPU was idle for more than 2 ms, and the task did not get it.
    KeptOff,
    /// It slept for I/O.
    Io,
    /// It slept in a call of futex(2): for a lock, or a condition.
    Futex,
    /// It slept until another task woke it.
    Blocked,
    /// It slept until an interrupt woke it: a timer, or a device.
    Sleep,
    /// It slept, and was not woken in the window.
    NotWoken,
    /// It was stopped by a signal or a debugger.
    Stopped,
    /// It had not begun, or had ended.
    Absent,
    /// Events are missing, or none tell.
    Unknown,
}

impl Mechanism {
    /// As in JSON: `run_queue`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::RunQueue => "run_queue",
            Self::Preempted => "preempted",
            Self::Throttled => "throttled",
            Self::HeldBy => "held_by",
            Self::CpuWakeup => "cpu_wakeup",
            Self::KeptOff => "kept_off",
            Self::Io => "io",
            Self::Futex => "futex",
            Self::Blocked => "blocked",
            Self::Sleep => "sleep",
            Self::NotWoken => "not_woken",
            Self::Stopped => "stopped",
            Self::Absent => "absent",
            Self::Unknown => "unknown",
        }
    }
}

/// How much of the window was lost to others: less than 1 %, 5 %, 20 %, 50 % of it, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Less than 1 %.
    None,
    /// Less than 5 %.
    Low,
    /// Less than 20 %.
    Medium,
    /// Less than 50 %.
    High,
    /// Half of it, or more.
    Critical,
}

impl Severity {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A moment at which a step shows: rows of the trace's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When it began; also the time of the event that began it.
    pub from_ns: Nanos,
    /// When it was over; also the time of the event that ended it.
    pub until_ns: Nanos,
    /// On which CPU.
    pub cpu: Option<Cpu>,
    /// The kind of the event at `from_ns`; none where it began before the window, or another step did.
    pub begun_by: Option<Kind>,
    /// The kind of the event at `until_ns`.
    pub ended_by: Option<Kind>,
}

/// A step of the chain. The steps below it make up its whole time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// How the time was spent.
    pub mechanism: Mechanism,
    /// Who ran, had the CPU, or woke.
    pub who: Option<Who>,
    /// Which interrupt, futex, disk or CPU.
    pub what: Option<String>,
    /// When it began for the first time.
    pub from_ns: Nanos,
    /// When it was over for the last time.
    pub until_ns: Nanos,
    /// How often.
    pub times: u64,
    /// All of that together.
    pub total_ns: u64,
    /// The longest.
    pub longest_ns: u64,
    /// `total_ns` as a share of the window.
    pub share_ratio: f64,
    /// The same in words.
    pub sentence: String,
    /// The longest ones, longest first.
    pub evidence: Vec<Moment>,
    /// What that waited for.
    pub steps: Vec<Step>,
}

/// What kept the subject from running.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContentionSource {
    /// The task whose doing it was, if it was a task's.
    pub task: Option<Who>,
    /// The interrupt, the futex, the disk or the CPU.
    pub what: Option<String>,
    /// The cgroup whose quota was used up, as a path in the v2 hierarchy.
    pub cgroup: Option<String>,
    /// For how long.
    pub total_ns: u64,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recommendation {
    /// What.
    pub action: String,
    /// Why that would help.
    pub reason: String,
}

/// A part of the critical path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathPart {
    /// When it began.
    pub from_ns: Nanos,
    /// When it was over.
    pub until_ns: Nanos,
    /// Whose turn it was; none where it is not known.
    pub who: Option<Who>,
    /// What it did for the longest part of that time.
    pub mechanism: Mechanism,
    /// The same in words.
    pub sentence: String,
}

/// The critical path of the window: from its end back to its beginning, along whoever everything waited for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CriticalPath {
    /// Its parts of most time, in the order of time.
    pub parts: Vec<PathPart>,
    /// How many parts it has.
    pub parts_total: usize,
    /// How its whole time was spent, and by whom.
    pub steps: Vec<Step>,
}

/// Why a window of a thread or a process was as it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Whose window; none where nothing of the subject was seen.
    pub subject: Option<Who>,
    /// Of a process: how many of its threads were followed.
    pub threads: usize,
    /// How much of the window was lost to others.
    pub severity: Severity,
    /// What took most of that.
    pub mechanism: Option<Mechanism>,
    /// Whose doing that was.
    pub contention_source: Option<ContentionSource>,
    /// All that was lost to others.
    pub contended_ns: u64,
    /// The same as a share of the window.
    pub contended_ratio: f64,
    /// Of which it is not known what happened.
    pub unexplained_ns: u64,
    /// The same as a share of the window.
    pub unexplained_ratio: f64,
    /// What could be done.
    pub recommendation: Recommendation,
    /// What it did, longest first: these make up the window.
    pub steps: Vec<Step>,
    /// The way through the window.
    pub critical_path: CriticalPath,
    /// The window holds more than can be kept: only what was before this moment is explained.
    pub cut_off_at_ns: Option<Nanos>,
}

/// Explains a window of a thread, or of a process.
///
/// ```
/// use schedtrace_core::analysis::{self, Explain, Mechanism, Options, Subject};
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
/// let report = analysis::run(&mut source, Explain::study(Subject::Thread(42), Options::default()))?;
/// assert_eq!(report.answer.mechanism, Some(Mechanism::Preempted));
/// assert_eq!(report.answer.contended_ns, 20_000);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Explain {
    subject: Subject,
    history: History,
    /// Those that were the subject and have ended: the names of tasks are not kept for ever.
    ended: HashMap<TaskId, Who>,
}

impl Explain {
    /// The question about one subject.
    #[must_use]
    pub fn study(subject: Subject, options: Options) -> Study<Self> {
        let options = Options { include_recorder: true, ..options };
        let scope = Scope::new(&options);
        Study::with(Self { subject, ..Self::new(&scope) }, scope, options)
    }

    /// The lives that the subject names, those that were seen in the window.
    fn threads(&self, past: Past<'_>, tasks: &Tasks) -> Vec<TaskId> {
        let is_meant = |id: &TaskId| {
            let last = past.open.last_ran.max(past.ended.last_ran);
            match self.subject {
                Subject::Last => last.is_some_and(|(_, last)| last == *id),
                _ => self.ended.contains_key(id) || tasks.get(*id).is_some_and(|task| self.subject.is(task)),
            }
        };
        let mut seen: Vec<TaskId> = past.ended.tasks.keys().chain(past.open.tasks.keys()).copied().collect();
        seen.sort_unstable();
        seen.dedup();
        seen.retain(is_meant);
        if seen.len() > MAX_THREADS {
            let awake = |task: &TaskId| -> u64 {
                let all = past.of(*task, Nanos::ZERO, Nanos::MAX);
                let awake = all.filter(|(stretch, ..)| !matches!(stretch.doing, Doing::Asleep { .. }));
                awake.map(|(_, from, until)| (until - from).0).sum()
            };
            seen.sort_by_cached_key(|task| std::cmp::Reverse(awake(task)));
            seen.truncate(MAX_THREADS);
        }
        seen
    }

    fn explain(&self, past: Past<'_>, about: &About, seen: &Seen<'_>) -> Explanation {
        let from = about.window.from_ns;
        let cut_off_at_ns = self.history.full_at;
        let until = cut_off_at_ns.unwrap_or(Nanos::MAX).min(about.window.until_ns);
        let window_ns = (until - from).0;
        let threads = self.threads(past, seen.tasks);
        let room = Cell::new(walk::MAX_NODES);
        let walk = Walk { past, room: &room };
        let mut root = Node::default();
        let (mut at, parts) = (from, walk.process(&threads, from, until));
        for &(task, begin, end) in &parts {
            walk.silence(task, at, begin, &mut root);
            walk.task(task, begin, end, 1, &mut root);
            at = end;
        }
        match parts.last() {
            Some(&(task, ..)) => walk.silence(task, at, until, &mut root),
            None => walk.gap(at, until, &mut root),
        }

        let subject = self.name(&threads, seen);
        let verdict = words::verdict(&root, &threads, seen);
        let unexplained_ns = unexplained(&root);
        let last = parts.last().map(|&(task, ..)| task);
        let tell =
            Tell { seen, window_ns, of: subject.as_ref().map_or_else(|| self.subject.to_string(), Who::to_string) };
        let contention_source = verdict.source.clone().map(|source| {
            let quota = verdict.mechanism == Some(Mechanism::Throttled);
            let cgroup = verdict.victim.or(last).filter(|_| quota).and_then(|task| seen.tasks.get(task));
            // The root of the hierarchy has no quota: it was one of another hierarchy's, whose groups nobody recorded.
            let cgroup = cgroup.and_then(|task| seen.tasks.cgroup_path(task.cgroup)).filter(|path| *path != "/");
            let cgroup = cgroup.map(str::to_owned);
            ContentionSource { cgroup, ..source }
        });
        Explanation {
            threads: threads.len(),
            severity: Severity::of(verdict.contended_ns, window_ns),
            mechanism: verdict.mechanism,
            contention_source,
            contended_ns: verdict.contended_ns,
            contended_ratio: ratio(verdict.contended_ns, window_ns),
            unexplained_ns,
            unexplained_ratio: ratio(unexplained_ns, window_ns),
            recommendation: match subject {
                Some(_) => words::recommendation(&verdict, &tell.of, seen),
                None => words::not_seen(&tell.of),
            },
            steps: tell.steps(&root),
            critical_path: self.critical_path(past, last, (from, until), &tell),
            subject,
            cut_off_at_ns,
        }
    }

    /// Who it is: of a process its leader, if that was seen.
    fn name(&self, threads: &[TaskId], seen: &Seen<'_>) -> Option<Who> {
        let ended = |task: &TaskId| self.ended.get(task).cloned();
        let mut names = threads.iter().map(|task| ended(task).unwrap_or_else(|| seen.tasks.who(*task)));
        match self.subject {
            Subject::Process(pid) => {
                let all: Vec<Who> = names.collect();
                all.iter().find(|who| who.tid == pid).or(all.first()).cloned()
            }
            Subject::Last | Subject::Thread(_) => names.next(),
        }
    }

    fn critical_path(
        &self,
        past: Past<'_>,
        last: Option<TaskId>,
        (from, until): (Nanos, Nanos),
        tell: &Tell<'_>,
    ) -> CriticalPath {
        let room = Cell::new(walk::MAX_NODES);
        let walk = Walk { past, room: &room };
        let parts = last.map_or_else(Vec::new, |task| path::back_from(past, task, from, until));
        // As deep as the next level: what it waits for is on the path itself, if it is a task.
        let take_apart = |part: &path::Part, into: &mut Node| match part.known {
            true => walk.task(part.task, part.from, part.until, walk::MAX_DEPTH, into),
            false => walk.silence(part.task, part.from, part.until, into),
        };
        // There may be millions of parts, of few tasks.
        let mut of_tasks = HashMap::<TaskId, Node>::new();
        parts.iter().for_each(|part| take_apart(part, of_tasks.entry(part.task).or_default()));
        let mut root = Node::default();
        of_tasks.into_iter().for_each(|(task, node)| root.take(node, Some(task)));

        let parts_total = parts.len();
        let mut longest = parts;
        if longest.len() > PATH_PARTS {
            longest
                .select_nth_unstable_by_key(PATH_PARTS, |part| (std::cmp::Reverse(part.until - part.from), part.from));
            longest.truncate(PATH_PARTS);
        }
        longest.sort_by_key(|part| part.from);
        let tell_part = |part: &path::Part| {
            let mut node = Node::default();
            take_apart(part, &mut node);
            let (key, step) = node.steps.iter().max_by_key(|(key, step)| (step.ns, **key))?;
            let who = tell.seen.tasks.who(part.task);
            Some(PathPart {
                from_ns: part.from,
                until_ns: part.until,
                mechanism: key.mechanism,
                sentence: words::sentence(*key, step, &who.to_string(), tell.seen),
                who: Some(who).filter(|_| part.known),
            })
        };
        let told = longest.iter().filter_map(tell_part).collect();
        CriticalPath { parts: told, parts_total, steps: tell.steps(&root) }
    }
}

/// All time of which nothing is known, on any level.
fn unexplained(node: &Node) -> u64 {
    let of = |(key, step): (&Key, &Node)| match key.mechanism {
        Mechanism::Unknown => step.ns,
        _ => unexplained(step),
    };
    node.steps.iter().map(of).sum()
}

/// Turns a chain into what is reported.
struct Tell<'a> {
    seen: &'a Seen<'a>,
    window_ns: u64,
    /// Whose time it is.
    of: String,
}

impl Tell<'_> {
    fn steps(&self, node: &Node) -> Vec<Step> {
        self.below(node, &self.of)
    }

    fn below(&self, node: &Node, of: &str) -> Vec<Step> {
        let mut steps: Vec<(Key, &Node)> = node.steps.iter().map(|(key, step)| (*key, step)).collect();
        steps.sort_by_key(|&(key, step)| (std::cmp::Reverse(step.ns), key));
        let (mut told, mut rest) = (BTreeMap::<Mechanism, usize>::new(), Node::default());
        // What is left of several tasks' time is nobody's in particular.
        let mut whose = of;
        steps.retain(|&(key, step)| {
            let so_many = told.entry(key.mechanism).or_default();
            *so_many += 1;
            if *so_many > STEPS {
                rest.fold(Key { who: None, what: What::Nothing, of: None, ..key }, step.clone());
                whose = if key.of.is_some() { "others" } else { whose };
            }
            *so_many <= STEPS
        });
        let mut steps: Vec<Step> = steps.into_iter().map(|(key, step)| self.step(key, step, of)).collect();
        steps.extend(rest.steps.iter().map(|(key, step)| self.step(*key, step, whose)));
        steps.sort_by_key(|step| std::cmp::Reverse(step.total_ns));
        steps
    }

    fn step(&self, key: Key, node: &Node, of: &str) -> Step {
        let who = key.who.map(|task| self.seen.tasks.who(task));
        let owner = key.of.map(|task| self.seen.tasks.who(task).to_string());
        let of = owner.as_deref().unwrap_or(of);
        let worth = node.ns >= self.window_ns / WORTH;
        // Below a sleep stands the time of whoever ended it.
        let below = match (&who, key.mechanism) {
            (Some(who), mechanism) if words::is_of_waker(mechanism) => who.to_string(),
            _ => of.to_owned(),
        };
        let mut evidence = node.moments.clone();
        evidence.sort_by_key(|moment| (std::cmp::Reverse(moment.until_ns - moment.from_ns), moment.from_ns));
        let (from_ns, until_ns) = node.span.unwrap_or_default();
        Step {
            mechanism: key.mechanism,
            what: words::detail(key.what, self.seen),
            from_ns,
            until_ns,
            times: node.times,
            total_ns: node.ns,
            longest_ns: node.longest_ns,
            share_ratio: ratio(node.ns, self.window_ns),
            sentence: words::sentence(key, node, of, self.seen),
            evidence,
            steps: if worth { self.below(node, &below) } else { Vec::new() },
            who,
        }
    }
}

impl Observer for Explain {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        self.history.ran(ran, seen);
        if ran.left == Left::Died
            && self.ended.len() < MAX_ENDED
            && seen.tasks.identity(ran.task).is_some_and(|task| self.subject.is(task))
        {
            self.ended.insert(ran.task.id, seen.tasks.who(ran.task.id));
        }
    }
    fn idled(&mut self, span: &Span, seen: &Seen<'_>) {
        self.history.idled(span, seen);
    }
    fn unseen(&mut self, span: &Span, seen: &Seen<'_>) {
        self.history.unseen(span, seen);
    }
    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        self.history.waited(wait, seen);
    }
    fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
        self.history.slept(slept, seen);
    }
    fn switched(&mut self, switched: &Switched, seen: &Seen<'_>) {
        self.history.switched(switched, seen);
    }
    fn woken(&mut self, woken: &Woken, seen: &Seen<'_>) {
        self.history.woken(woken, seen);
    }
    fn happened(&mut self, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
        self.history.happened(event, cpu, seen);
    }
}

impl Question for Explain {
    type Answer = Explanation;

    fn new(scope: &Scope) -> Self {
        Self { subject: Subject::Last, history: History::new(scope), ended: HashMap::new() }
    }

    fn answer(&self, about: &About, seen: &Seen<'_>) -> Explanation {
        self.explain(Past { ended: &self.history, open: &self.history.tail() }, about, seen)
    }

    /// Without a copy of the history, which may be long.
    fn answer_now(&self, about: &About, states: &States) -> Explanation {
        let mut open = self.history.tail();
        states.open(&mut open);
        self.explain(Past { ended: &self.history, open: &open }, about, &states.seen())
    }
}

/// An explanation, with what it speaks of.
pub type Explained = Answered<Explanation>;
