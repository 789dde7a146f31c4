//! What a flight recorder waits for: triggers, read from a line of text, and watched for in a stream.

use std::fmt;
use std::str::FromStr;

use hashbrown::HashMap;

use crate::analysis::states::{CpuRef, Observer, Seen, SleepEnd, Slept, States, TaskRef, WaitEnd, Waited};
use crate::event::{Batch, Cpu, Event, EventFilter, Nanos, Quantity, Task, TaskId, cut};
use crate::source::{Fired, Meta};

/// So many firings of one batch are told one by one.
const MAX_FIRED: usize = 256;
/// So many waits that were told of before they ended are remembered.
const MAX_TOLD: usize = 1 << 16;

/// What is waited for, as one line of text says:
///
/// | text | fires when |
/// |---|---|
/// | `runqueue_latency > 20ms`, `wait > 20ms` | a task has waited for a CPU for longer than that, be it over or not |
/// | `sleep > 1s for comm = nginx` | a task has slept for longer than that, be it over or not |
/// | `lost > 0` | so many events are missing from a batch |
/// | `event = futex_wait and duration_ms > 50` | an event meets these conditions, as [`EventFilter`] has them |
///
/// Waits and sleeps can be those of some tasks only: `for`, and conditions about `comm`, `tid`, `pid` and `cpu`. What a wait
/// and a sleep are, the state machine of [`analysis::states`](crate::analysis::states) says, as for every report. Those
/// during which events are missing do not count, nor do those of the recorder.
///
/// ```
/// use schedtrace_core::flight::Trigger;
/// let trigger: Trigger = "runqueue_latency > 20ms for comm = nginx and cpu < 4".parse()?;
/// assert_eq!(trigger.name(), "runqueue_latency");
/// assert!("runqueue_latency > 20".parse::<Trigger>().is_err(), "of what?");
/// # Ok::<(), schedtrace_core::flight::BadTrigger>(())
/// ```
#[derive(Clone, Debug)]
pub struct Trigger {
    text: String,
    of: Of,
}

#[derive(Clone, Debug)]
enum Of {
    Wait(Longer),
    Sleep(Longer),
    Lost(Over),
    Event(EventFilter),
}

/// Of some tasks, what takes longer than that.
#[derive(Clone, Debug)]
struct Longer {
    than: Over,
    whose: Option<EventFilter>,
}

#[derive(Clone, Copy, Debug)]
struct Over {
    limit: u64,
    /// The limit itself will do.
    or_equal: bool,
}

impl Over {
    fn is_met(self, found: u64) -> bool {
        found > self.limit || self.or_equal && found == self.limit
    }
}

/// Why a text is no [`Trigger`].
///
/// ```
/// use schedtrace_core::flight::Trigger;
/// let bad = "wait > soon".parse::<Trigger>().unwrap_err();
/// assert_eq!(bad.to_string(), "`wait > soon` is no trigger: how long? write a time such as 20ms");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no trigger: {why}")]
pub struct BadTrigger {
    /// The text.
    pub text: String,
    /// Why, and what would do.
    pub why: String,
}

impl From<BadTrigger> for crate::Error {
    fn from(bad: BadTrigger) -> Self {
        Self::Invalid(bad.to_string())
    }
}

impl FromStr for Trigger {
    type Err = BadTrigger;

    fn from_str(text: &str) -> Result<Self, BadTrigger> {
        let text = text.trim();
        let of = Of::read(text).map_err(|why| BadTrigger { text: text.chars().take(200).collect(), why })?;
        Ok(Self { text: text.to_owned(), of })
    }
}

/// As it was given.
impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Trigger {
    /// What it is about, in a word: for the names of files.
    ///
    /// ```
    /// use schedtrace_core::flight::Trigger;
    /// assert_eq!("wait > 20ms".parse::<Trigger>()?.name(), "runqueue_latency");
    /// # Ok::<(), schedtrace_core::flight::BadTrigger>(())
    /// ```
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.of {
            Of::Wait(_) => "runqueue_latency",
            Of::Sleep(_) => "sleep",
            Of::Lost(_) => "lost",
            Of::Event(_) => "event",
        }
    }
}

impl Of {
    fn read(text: &str) -> Result<Self, String> {
        let word = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        let measure = match word {
            "runqueue_latency" | "wait" => Self::Wait,
            "sleep" => Self::Sleep,
            "lost" => return Self::read_lost(text[word.len()..].trim()),
            "" => return Err("there is nothing in it: try `runqueue_latency > 20ms`".to_owned()),
            _ => {
                let filter = text.parse::<EventFilter>().map_err(|bad| {
                    format!("{bad}; or write `runqueue_latency > 20ms`, `sleep > 1s for comm = nginx`, `lost > 0`")
                })?;
                return Ok(Self::Event(filter));
            }
        };
        let terms = &text[word.len()..];
        let (terms, whose) = match terms.split_once(" for ") {
            Some((terms, whose)) => (terms, Some(whose)),
            None => cut(terms).map_err(|bad| bad.to_string())?,
        };
        let (limit, or_equal) = limit(terms.trim())?;
        let limit = Quantity::read(limit).and_then(Quantity::time_ns);
        let limit = limit.ok_or("how long? write a time such as 20ms")?;
        let whose = whose.map(str::parse::<EventFilter>);
        let whose = whose.transpose().map_err(|bad| bad.to_string())?;
        if whose.as_ref().is_some_and(|whose| !whose.is_of_tasks()) {
            return Err("after `for` there can be comm, tid, pid and cpu only".to_owned());
        }
        Ok(measure(Longer { than: Over { limit, or_equal }, whose }))
    }

    fn read_lost(rest: &str) -> Result<Self, String> {
        let (limit, or_equal) = limit(rest)?;
        let limit = limit.parse().map_err(|_| "how many events? write a number, as in `lost > 0`")?;
        Ok(Self::Lost(Over { limit, or_equal }))
    }
}

/// What stands behind `>` or `>=`.
fn limit(text: &str) -> Result<(&str, bool), &'static str> {
    let or_equal = text.strip_prefix(">=");
    let limit = or_equal.or_else(|| text.strip_prefix('>'));
    let limit =
        limit.ok_or("it fires when something is more than a limit: use > or >=, as in `runqueue_latency > 20ms`")?;
    Ok((limit.trim(), or_equal.is_some()))
}

/// Watches for triggers in a stream.
///
/// ```
/// use schedtrace_core::flight::Triggers;
/// use schedtrace_core::{Batch, Cpu, Event, Hang, Meta, Nanos, TaskId};
///
/// let mut triggers = Triggers::new(["event = sched_hang".parse()?]);
/// triggers.begin(&Meta::default());
/// let event = Event { ts: Nanos(500), cpu: Cpu(0), kind: Hang { task: TaskId(1) }.into() };
/// let fired = triggers.batch(&Batch { until: Nanos(900), events: vec![event], ..Batch::default() });
/// assert_eq!((fired.len(), fired[0].at_ns), (1, Nanos(500)));
/// # Ok::<(), schedtrace_core::flight::BadTrigger>(())
/// ```
#[derive(Debug)]
pub struct Triggers {
    all: Vec<Trigger>,
    /// Only where one is about waits or sleeps.
    states: Option<States>,
    told: Told,
}

/// Waits and sleeps of which was told before they ended: by the number of the trigger and the task, when they began.
type Told = HashMap<(usize, TaskId), Nanos>;

impl Triggers {
    /// Watches for these.
    ///
    /// ```
    /// use schedtrace_core::flight::Triggers;
    /// let triggers = Triggers::new(["wait > 20ms".parse()?]);
    /// # Ok::<(), schedtrace_core::flight::BadTrigger>(())
    /// ```
    #[must_use]
    pub fn new(triggers: impl IntoIterator<Item = Trigger>) -> Self {
        let all: Vec<Trigger> = triggers.into_iter().collect();
        let follows = all.iter().any(|trigger| matches!(trigger.of, Of::Wait(_) | Of::Sleep(_)));
        Self { all, states: follows.then(States::default), told: Told::new() }
    }

    /// Takes the setting, before the first batch.
    ///
    /// ```
    /// use schedtrace_core::Meta;
    /// use schedtrace_core::flight::Triggers;
    /// Triggers::new([]).begin(&Meta::default());
    /// ```
    pub fn begin(&mut self, meta: &Meta) {
        if let Some(states) = &mut self.states {
            *states = States::default();
            states.begin(meta);
        }
        self.told.clear();
    }

    /// Takes a batch; says what has fired, at most a few hundred times. What has not ended yet is told once, as soon as it
    /// has taken long enough.
    ///
    /// ```
    /// use schedtrace_core::Batch;
    /// use schedtrace_core::flight::Triggers;
    /// assert!(Triggers::new([]).batch(&Batch::default()).is_empty());
    /// ```
    pub fn batch(&mut self, batch: &Batch) -> Vec<Fired> {
        let mut fired = Vec::new();
        if let Some(states) = &mut self.states {
            let mut watch = Watch { all: &self.all, told: &mut self.told, fired: &mut fired };
            states.update(batch, &mut watch);
            states.open(&mut watch);
            if states.crowded() {
                states.forget_groups();
            }
        }
        for trigger in &mut self.all {
            trigger.look(batch, &mut fired);
        }
        fired
    }
}

impl Trigger {
    /// Looks for what needs no state.
    fn look(&mut self, batch: &Batch, fired: &mut Vec<Fired>) {
        let text = &self.text;
        match &mut self.of {
            Of::Lost(limit) => {
                let lost = batch.lost.iter().map(|loss| loss.count).fold(0, u64::saturating_add);
                if lost > 0 && limit.is_met(lost) {
                    let what = format!("{lost} events were lost");
                    let at_ns = batch.lost.iter().map(|loss| loss.until).max().unwrap_or(batch.until);
                    push(fired, Fired { trigger: Some(text.clone()), what, at_ns, ..Fired::default() });
                }
            }
            Of::Event(filter) => {
                filter.learn(batch);
                let met = batch.events.iter().chain(&batch.late).filter(|event| filter.accepts(event));
                for event in met.take(MAX_FIRED) {
                    push(fired, of_event(text, filter, event));
                }
            }
            Of::Wait(_) | Of::Sleep(_) => {}
        }
    }
}

fn push(fired: &mut Vec<Fired>, one: Fired) {
    if fired.len() < MAX_FIRED {
        fired.push(one);
    }
}

fn of_event(text: &str, filter: &EventFilter, event: &Event) -> Fired {
    let task = filter.subject(event);
    let mut what = format!("{} on CPU {}", event.kind.kind(), event.cpu);
    if let Some(task) = &task {
        what += &format!(" of {}[{}]", task.comm, task.tid);
    }
    Fired { trigger: Some(text.to_owned()), what, at_ns: event.ts, ..whose(task.as_ref()) }
}

/// The part of it that says whom it happened to.
fn whose(task: Option<&Task>) -> Fired {
    let comm = task.map(|task| task.comm.to_string()).unwrap_or_default();
    Fired { comm, tid: task.map_or(0, |task| task.tid), pid: task.map_or(0, |task| task.tgid), ..Fired::default() }
}

/// Hears of waits and sleeps.
struct Watch<'a> {
    all: &'a [Trigger],
    told: &'a mut Told,
    fired: &'a mut Vec<Fired>,
}

/// A wait or a sleep.
#[derive(Clone, Copy)]
struct Took {
    task: TaskRef,
    cpu: Cpu,
    from: Nanos,
    until: Nanos,
    open: bool,
    sleep: bool,
}

impl Watch<'_> {
    fn took(&mut self, took: Took, seen: &Seen<'_>) {
        let length = took.until - took.from;
        for (nth, trigger) in self.all.iter().enumerate() {
            let longer = match &trigger.of {
                Of::Wait(longer) if !took.sleep => longer,
                Of::Sleep(longer) if took.sleep => longer,
                _ => continue,
            };
            if !longer.than.is_met(length.0) || seen.tasks.left_out(took.task) {
                continue;
            }
            let task = seen.tasks.get(took.task.id);
            if longer.whose.as_ref().is_some_and(|whose| !whose.accepts_task(task, took.cpu)) {
                continue;
            }
            let key = (nth, took.task.id);
            let told = self.told.get(&key) == Some(&took.from);
            if !took.open {
                self.told.remove(&key);
            } else if !told {
                if self.told.len() >= MAX_TOLD {
                    self.told.clear();
                }
                self.told.insert(key, took.from);
            }
            if !told {
                push(self.fired, fired(trigger, took, task));
            }
        }
    }
}

fn fired(trigger: &Trigger, took: Took, task: Option<&Task>) -> Fired {
    let length = took.until - took.from;
    let who = match task {
        Some(task) => format!("{}[{}]", task.comm, task.tid),
        None => format!("<task {}>", took.task.id.0),
    };
    let what = match (took.sleep, took.open) {
        (false, false) => format!("{who} waited {length} for CPU {}", took.cpu),
        (false, true) => format!("{who} has waited {length} for CPU {}, and still waits", took.cpu),
        (true, false) => format!("{who} slept for {length}"),
        (true, true) => format!("{who} has slept for {length}, and still sleeps"),
    };
    Fired {
        trigger: Some(trigger.text.clone()),
        what,
        at_ns: took.until,
        duration_ns: Some(length),
        ongoing: took.open,
        ..whose(task)
    }
}

impl Observer for Watch<'_> {
    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        if !wait.doubtful && wait.end != WaitEnd::Unseen {
            let (task, cpu, open) = (wait.task, cpu(wait.cpu), wait.end == WaitEnd::Open);
            self.took(Took { task, cpu, from: wait.from, until: wait.until, open, sleep: false }, seen);
        }
    }

    fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
        if !slept.doubtful && slept.end != SleepEnd::Unseen {
            let (task, cpu, open) = (slept.task, cpu(slept.cpu), slept.end == SleepEnd::Open);
            self.took(Took { task, cpu, from: slept.from, until: slept.until, open, sleep: true }, seen);
        }
    }
}

fn cpu(cpu: CpuRef) -> Cpu {
    cpu.cpu
}
