//! Which events somebody wants to see, as one line of text says.

mod by_kind;
mod kernel;
mod read;
mod term;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hashbrown::HashMap;

pub use self::by_kind::KindFilters;
use self::kernel::Get;
pub(super) use self::kernel::system;
pub(crate) use self::term::cut;
pub use self::term::{Condition, Operator, Pattern, Quantity, Unit};
use super::field::text;
use super::{Batch, Cpu, Event, EventKind, FieldType, Kind, NameId, Task, TaskId};

/// Conditions that an event meets, or not: `dsq_lat_us > 1000`, `prev_pid != 0 && next_pid != 0`,
/// `event = futex_wait and duration_ns >= 5ms and comm ~ '^nginx'`.
///
/// All of them have to hold; between them stands `and`, `&&` or a comma. The fields are
///
/// - `event`: the name of a kind, of a group or what else [`Kinds`](super::Kinds) reads; `group`; `cpu`; `ts_ns`,
/// - `tid`, `pid`, `comm`: those of any of the tasks that the event is about,
/// - those of the event's kind ([`Kind::fields`]); one that ends in `_ns` is there as `_us`, `_ms` and `_s` as well, and
///   takes a number with a unit,
/// - those of the kernel's tracepoint, by the names in its format file: `prev_comm`, `next_prio`, `target_cpu`, `orig_cpu`,
///   `child_pid`, `vec`, `nr_sector`, `dev`, `rwbs`, `error`. As there, `prev_pid` and its kin are thread ids, and
///   `prev_state` is a letter (`R+` where it was preempted) or the tracepoint's bits. `rwbs` is the operation's letter alone
///   ([`BlockOp::rwbs`](super::BlockOp::rwbs)): flags of requests are not recorded,
/// - what scxtop calls them: `dsq_lat_us`, `dsq_id`, `dsq_vtime`, `dsq_nr_queued`, `layer_id`, `softirq_nr`. A task that comes
///   to run from a dispatch queue counts as a `sched_switch` there.
///
/// A field can be that of some events only: `futex.duration_us`, `sched_switch.prev_pid`, `block:block_rq_issue.bytes`. Of one
/// tracepoint, `pid`, `comm` and `cpu` are what the kernel calls so there: `sched_waking.pid` is the thread that is woken.
///
/// | operator | of | holds where |
/// |---|---|---|
/// | `=`, `==`, `!=` | numbers, texts | they are equal, or not |
/// | `<`, `<=`, `>`, `>=` | numbers | the field is less, at most, more, at least |
/// | `~`, `!~` | texts | a regular expression is found in it, or not: `~ '^W'`, `~ 'W'` |
///
/// A number may have a unit: of time (`ns`, `us`, `ms`, `s`, `min`, `h`), of bytes (`B`, `KiB`, `MiB` ...), or `k`, `M`, `G`. A
/// time without one is in nanoseconds.
///
/// Texts may stand in quotes, `'` or `"`, and have to where there is an `and`, a comma or `&&` in them; nothing is escaped
/// there. Patterns are those of the crate `regex`, of bounded size, and take time in proportion to the text.
///
/// An event that has no such field does not meet the condition, nor does one whose task is not known.
///
/// ```
/// use schedtrace_core::{Address, Batch, Cpu, Event, EventFilter, FutexWait, Nanos, TaskId};
/// let mut long: EventFilter = "futex_wait.duration_us > 100".parse()?;
/// let wait = FutexWait { task: TaskId(1), address: Address(7), duration_ns: Nanos(200_000), result: 0 };
/// let event = Event { ts: Nanos(500_000), cpu: Cpu(0), kind: wait.into() };
/// assert!(long.accepts(&event));
/// assert!("futex_wait.length > 100".parse::<EventFilter>().is_err(), "it has no such field");
/// let wrong = "prev_pidd = 7".parse::<EventFilter>().unwrap_err();
/// assert!(wrong.why.contains("do you mean `prev_pid`?"));
/// # Ok::<(), schedtrace_core::BadFilter>(())
/// ```
#[derive(Clone, Debug)]
pub struct EventFilter {
    terms: Vec<Term>,
    names: HashMap<NameId, Arc<str>>,
    tasks: HashMap<TaskId, Task>,
    /// Lives that were over in the batch before: what comes late may speak of them still.
    over: Vec<TaskId>,
}

/// Why a text is no [`EventFilter`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{term}` is no condition: {why}")]
pub struct BadFilter {
    /// The part that cannot be read.
    pub term: String,
    /// Why, and what would do.
    pub why: String,
}

#[derive(Clone, Debug)]
struct Term {
    /// Of which kinds it speaks, where it says so.
    kinds: Option<Vec<Kind>>,
    field: Field,
    operator: Operator,
    value: Value,
}

#[derive(Clone, Debug)]
enum Field {
    Event,
    Group,
    Cpu,
    Time,
    Tid,
    Pid,
    Comm,
    /// Of each kind that has it, where it is.
    Of(Vec<Part>),
}

/// A field in the events of a kind.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: Kind,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// One of the kind's own, by its place; what it holds is in so many of the unit that is asked for.
    Own { at: usize, ty: FieldType, scale: i128 },
    /// One that the kernel's tracepoint has.
    Kernel(Get),
}

#[derive(Clone, Debug)]
enum Value {
    Number(i128),
    Text(String),
    Pattern(Pattern),
    Kinds(Vec<Kind>),
}

/// What scxtop's fields are here, and of which kind.
const ALIASES: [(&str, Kind, &str); 11] = [
    ("dsq_lat_us", Kind::ScxDispatch, "latency_us"),
    ("next_dsq_lat_us", Kind::ScxDispatch, "latency_us"),
    ("next_dsq_id", Kind::ScxDispatch, "dsq_id"),
    ("dsq_nr_queued", Kind::ScxDispatch, "depth"),
    ("next_dsq_nr", Kind::ScxDispatch, "depth"),
    ("layer_id", Kind::ScxDispatch, "layer"),
    ("next_layer_id", Kind::ScxDispatch, "layer"),
    ("dsq_vtime", Kind::ScxInsert, "vtime"),
    ("next_dsq_vtime", Kind::ScxInsert, "vtime"),
    ("softirq_nr", Kind::SoftirqEntry, "vector"),
    ("perf", Kind::ScxCpuperf, "performance"),
];

impl Term {
    fn holds_number(&self, found: i128) -> bool {
        matches!(self.value, Value::Number(wanted) if self.operator.holds(&found, &wanted))
    }

    fn holds_text(&self, found: &str) -> bool {
        match &self.value {
            Value::Text(wanted) => self.operator.holds(found, wanted.as_str()),
            Value::Pattern(pattern) => pattern.is_in(found) == (self.operator == Operator::Matches),
            Value::Number(_) | Value::Kinds(_) => false,
        }
    }
}

impl FromStr for EventFilter {
    type Err = BadFilter;

    fn from_str(line: &str) -> Result<Self, BadFilter> {
        Self::read(line, None, |_, _| None)
    }
}

fn bad(term: &str, why: impl fmt::Display) -> BadFilter {
    BadFilter { term: term.chars().take(80).collect(), why: why.to_string() }
}

impl EventFilter {
    /// Reads conditions: with a kind, those of its events only, and `pid`, `comm` and `cpu` are what its tracepoint calls
    /// so. `disk_name` gives the name of a whole disk by its major and minor number, for `dev = 8:0`:
    /// [`disk_name`](crate::system::disk_name) does for the running machine. Parsing a text does the same without either.
    ///
    /// # Errors
    ///
    /// If a condition cannot be read: it says which, why, and what would do.
    ///
    /// ```
    /// use schedtrace_core::{EventFilter, Kind};
    /// let writes = EventFilter::read("rwbs ~ 'W' && dev = 8:0", Some(Kind::BlockIssue), |_, _| Some("sda".into()))?;
    /// assert!(EventFilter::read("rwbs ~ 'W'", Some(Kind::Switch), |_, _| None).is_err(), "it has no such field");
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    pub fn read(
        line: &str,
        kind: Option<Kind>,
        disk_name: impl Fn(u32, u32) -> Option<String>,
    ) -> Result<Self, BadFilter> {
        let terms = read::terms(line, kind, &disk_name)?;
        Ok(Self { terms, names: HashMap::new(), tasks: HashMap::new(), over: Vec::new() })
    }

    /// Takes note of who is called how, before the events of the batch are looked at.
    ///
    /// ```
    /// # use schedtrace_core::{Batch, EventFilter};
    /// let mut filter: EventFilter = "comm = nginx".parse()?;
    /// filter.learn(&Batch::default());
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    pub fn learn(&mut self, batch: &Batch) {
        self.names.extend(batch.names.iter().map(|name| (name.id, Arc::clone(&name.text))));
        for id in self.over.drain(..) {
            self.tasks.remove(&id);
        }
        self.tasks.extend(batch.tasks.iter().map(|task| (task.id, *task)));
        let over = |event: &Event| if let EventKind::Free { task } = event.kind { Some(task) } else { None };
        self.over.extend(batch.late.iter().chain(&batch.events).filter_map(over));
    }

    /// Whether an event meets all conditions.
    ///
    /// ```
    /// # use schedtrace_core::{Cpu, Event, EventFilter, Hang, Nanos, TaskId};
    /// let event = Event { ts: Nanos(5), cpu: Cpu(3), kind: Hang { task: TaskId(1) }.into() };
    /// assert!("cpu = 3 and event = sched_hang".parse::<EventFilter>()?.accepts(&event));
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    #[must_use]
    pub fn accepts(&self, event: &Event) -> bool {
        self.terms.iter().all(|term| self.meets(term, event))
    }

    /// The kinds of which events may meet all conditions: those that have to be recorded for any to be seen.
    ///
    /// ```
    /// use schedtrace_core::{EventFilter, Kind};
    /// assert_eq!("dsq_lat_us > 1000".parse::<EventFilter>()?.kinds(), [Kind::ScxDispatch]);
    /// assert!("cpu = 3".parse::<EventFilter>()?.kinds().contains(&Kind::Switch));
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let may = |term: &Term, kind: Kind| {
            let spoken_of = term.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind));
            spoken_of
                && match (&term.field, &term.value) {
                    (Field::Event, Value::Kinds(kinds)) => kinds.contains(&kind) == (term.operator == Operator::Equal),
                    (Field::Group, Value::Text(group)) => term.operator.holds(&*kind.group().to_string(), &**group),
                    (Field::Of(parts), _) => parts.iter().any(|part| part.kind == kind),
                    _ => true,
                }
        };
        Kind::selectable().filter(|&kind| self.terms.iter().all(|term| may(term, kind))).collect()
    }

    /// Whom an event is about in the first place, if that is known.
    pub(crate) fn subject(&self, event: &Event) -> Option<Task> {
        tasks(&event.kind)[0].and_then(|id| self.task(id))
    }

    /// Whether it asks for nothing but which task it is, and on which CPU.
    pub(crate) fn is_of_tasks(&self) -> bool {
        let of_task = |field: &Field| matches!(field, Field::Cpu | Field::Tid | Field::Pid | Field::Comm);
        self.terms.iter().all(|term| term.kinds.is_none() && of_task(&term.field))
    }

    /// Whether a task on a CPU meets all conditions, if they ask for nothing else.
    pub(crate) fn accepts_task(&self, task: Option<&Task>, cpu: Cpu) -> bool {
        let meets = |term: &Term| match (&term.field, task) {
            (Field::Cpu, _) => term.holds_number(cpu.0.into()),
            (Field::Tid, Some(task)) => term.holds_number(task.tid.into()),
            (Field::Pid, Some(task)) => term.holds_number(task.tgid.into()),
            (Field::Comm, Some(task)) => term.holds_text(&task.comm.to_string()),
            _ => false,
        };
        self.terms.iter().all(meets)
    }

    fn meets(&self, term: &Term, event: &Event) -> bool {
        let kind = event.kind.kind();
        if term.kinds.as_ref().is_some_and(|kinds| !kinds.contains(&kind)) {
            return false;
        }
        let any_task = |meets: &dyn Fn(&Task) -> bool| {
            tasks(&event.kind).into_iter().flatten().filter_map(|id| self.task(id)).any(|task| meets(&task))
        };
        match &term.field {
            Field::Event => {
                let named = matches!(&term.value, Value::Kinds(kinds) if kinds.contains(&kind));
                named == (term.operator == Operator::Equal)
            }
            Field::Group => term.holds_text(&kind.group().to_string()),
            Field::Cpu => term.holds_number(event.cpu.0.into()),
            Field::Time => term.holds_number(event.ts.0.into()),
            Field::Tid => any_task(&|task| term.holds_number(task.tid.into())),
            Field::Pid => any_task(&|task| term.holds_number(task.tgid.into())),
            Field::Comm => any_task(&|task| term.holds_text(&task.comm.to_string())),
            Field::Of(parts) => {
                let part = parts.iter().find(|part| part.kind == kind);
                part.is_some_and(|part| self.part_meets(part.place, term, event))
            }
        }
    }

    fn part_meets(&self, place: Place, term: &Term, event: &Event) -> bool {
        let wants_number = matches!(term.value, Value::Number(_));
        let task = |id: Option<TaskId>| id.and_then(|id| self.task(id));
        let own = |ty: FieldType, value: u64, scale: i128| match (ty, &term.value) {
            (_, Value::Text(_) | Value::Pattern(_)) => {
                term.holds_text(&text(ty, value, |id| self.names.get(&id).map(|text| &**text)))
            }
            (FieldType::Signed, _) => term.holds_number(i128::from(value as i64)),
            // Not divided, which would round: what is wanted is multiplied.
            (_, Value::Number(wanted)) => term.operator.holds(&i128::from(value), &wanted.saturating_mul(scale)),
            (_, Value::Kinds(_)) => false,
        };
        match place {
            Place::Own { at, ty, scale } => event.kind.values().get(at).is_some_and(|&value| own(ty, value, scale)),
            Place::Kernel(get) => match get {
                Get::Number(number) => number(event).is_some_and(|number| term.holds_number(number)),
                Get::Tid(id) => task(id(event)).is_some_and(|task| term.holds_number(task.tid.into())),
                Get::Comm(id) => task(id(event)).is_some_and(|task| term.holds_text(&task.comm.to_string())),
                Get::State(state) => state(event).is_some_and(|(state, preempted)| {
                    if wants_number {
                        term.holds_number(kernel::state_bits(state, preempted))
                    } else {
                        term.holds_text(&kernel::state_text(state, preempted))
                    }
                }),
                Get::Rwbs => kernel::operation(event).is_some_and(|operation| term.holds_text(operation.rwbs())),
                Get::Disk => {
                    let name = kernel::disk(event).and_then(|id| self.names.get(&id));
                    name.is_some_and(|name| term.holds_text(name))
                }
                Get::Own(_) | Get::Missing => false,
            },
        }
    }

    fn task(&self, id: TaskId) -> Option<Task> {
        id.idle_cpu().map(Task::idle).or_else(|| self.tasks.get(&id).copied())
    }
}

/// The tasks that an event is about.
fn tasks(kind: &EventKind) -> [Option<TaskId>; 2] {
    let (a, b) = match kind {
        EventKind::Switch(e) => (e.next, Some(e.prev)),
        EventKind::Waking(e) => (e.task, Some(e.current)),
        EventKind::WakeupNew(e) => (e.task, Some(e.parent)),
        EventKind::Migrate(e) => (e.task, None),
        EventKind::Fork(e) => (e.child, Some(e.parent)),
        EventKind::Exec(e) => (e.task, None),
        EventKind::Exit(e) => (e.task, None),
        EventKind::Snapshot(e) => (e.task, None),
        EventKind::Free { task } | EventKind::Rename { task } => (*task, None),
        declared => return [declared.task(), None],
    };
    [Some(a), b]
}

#[cfg(test)]
mod tests;
