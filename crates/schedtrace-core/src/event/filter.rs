//! Which events somebody wants to see, as one line of text says.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::field::text;
use super::{Batch, Cpu, Event, EventGroup, EventKind, FieldType, Kind, Kinds, NameId, Task, TaskId};

/// Conditions that an event meets, or not: `dsq_lat_us > 1000`, `event = futex_wait and duration_ns >= 5ms and comm = nginx`.
///
/// All of them have to hold; between them stands `and`, `&&` or a comma. The fields are
///
/// - `event`: the name of a kind, of a group or what else [`Kinds`] reads; `group`; `cpu`; `ts_ns`,
/// - `tid`, `pid`, `comm`: those of any of the tasks that the event is about,
/// - those of the event's kind ([`Kind::fields`]); one that ends in `_ns` is there as `_us`, `_ms` and `_s` as well, and
///   takes a number with a unit,
/// - what scxtop calls them: `dsq_lat_us`, `dsq_id`, `dsq_vtime`, `dsq_nr_queued`, `layer_id`, `softirq_nr`. A task that comes
///   to run from a dispatch queue counts as a `sched_switch` there.
///
/// An event that has no such field does not meet the condition.
///
/// ```
/// use schedtrace_core::{Address, Batch, Cpu, Event, EventFilter, FutexWait, Nanos, TaskId};
/// let mut long: EventFilter = "futex_wait.duration_us > 100".parse()?;
/// let wait = FutexWait { task: TaskId(1), address: Address(7), duration_ns: Nanos(200_000), result: 0 };
/// let event = Event { ts: Nanos(500_000), cpu: Cpu(0), kind: wait.into() };
/// assert!(long.accepts(&event));
/// assert!("futex_wait.length > 100".parse::<EventFilter>().is_err(), "it has no such field");
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
    comparison: Comparison,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Event,
    Group,
    Cpu,
    Time,
    Tid,
    Pid,
    Comm,
    /// One of the kind's own, by its name; what it holds is divided by so much.
    Own(String, i128),
}

#[derive(Clone, Debug)]
enum Value {
    Number(i128),
    Text(String),
    Kinds(Vec<Kind>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// Longer ones first: `>=` begins with `>`.
const COMPARISONS: [(&str, Comparison); 7] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    (">", Comparison::More),
    ("<", Comparison::Less),
    ("=", Comparison::Equal),
];

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

const UNITS: [(&str, i128); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

impl Comparison {
    fn holds<T: PartialOrd + ?Sized>(self, found: &T, wanted: &T) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::Unequal => found != wanted,
            Self::Less => found < wanted,
            Self::AtMost => found <= wanted,
            Self::More => found > wanted,
            Self::AtLeast => found >= wanted,
        }
    }
}

impl FromStr for EventFilter {
    type Err = BadFilter;

    fn from_str(line: &str) -> Result<Self, BadFilter> {
        let terms = line.replace("&&", " and ").replace(',', " and ");
        let terms: Vec<_> =
            terms.split(" and ").map(str::trim).filter(|term| !term.is_empty()).map(Term::read).collect();
        let terms = terms.into_iter().collect::<Result<Vec<_>, _>>()?;
        if terms.is_empty() {
            return Err(bad(line, "there is nothing in it: try `event = futex_wait and duration_us > 100`"));
        }
        Ok(Self { terms, names: HashMap::new(), tasks: HashMap::new(), over: Vec::new() })
    }
}

fn bad(term: &str, why: impl fmt::Display) -> BadFilter {
    BadFilter { term: term.chars().take(80).collect(), why: why.to_string() }
}

impl Term {
    fn read(term: &str) -> Result<Self, BadFilter> {
        let at = |op: &str| term.find(op);
        let found = COMPARISONS.iter().filter_map(|(op, comparison)| Some((at(op)?, op.len(), *comparison)));
        // The first one in the text, and of those that begin there the longest.
        let found = found.min_by_key(|(at, length, _)| (*at, usize::MAX - length));
        let Some((at, length, comparison)) = found else {
            return Err(bad(term, "it compares nothing: use =, !=, <, <=, > or >="));
        };
        let (left, right) = (term[..at].trim(), term[at + length..].trim().trim_matches(['"', '\'']));
        let (kinds, field) = match left.split_once('.') {
            Some((kinds, field)) => (Some(kinds_of(kinds).map_err(|why| bad(term, why))?), field),
            None => (None, left),
        };
        let (field, ty, only) = Field::read(field, kinds.as_deref()).map_err(|why| bad(term, why))?;
        let value = Value::read(&field, ty, right).map_err(|why| bad(term, why))?;
        let orders = !matches!(comparison, Comparison::Equal | Comparison::Unequal);
        if orders && !matches!(value, Value::Number(_)) {
            return Err(bad(term, "texts are equal or not: use = or !="));
        }
        Ok(Self { kinds: only.map(|kind| vec![kind]).or(kinds), field, comparison, value })
    }
}

fn kinds_of(name: &str) -> Result<Vec<Kind>, String> {
    let mut kinds = name.parse::<Kinds>().map_err(|error| error.to_string())?.kinds;
    if kinds.contains(&Kind::Switch) {
        kinds.push(Kind::ScxDispatch);
    }
    Ok(kinds)
}

impl Field {
    /// The field, what it holds where that is a kind's own, and the one kind that has it where the name is scxtop's.
    fn read(name: &str, kinds: Option<&[Kind]>) -> Result<(Self, Option<FieldType>, Option<Kind>), String> {
        let common = match name {
            "event" => Self::Event,
            "group" => Self::Group,
            "cpu" => Self::Cpu,
            "ts_ns" => Self::Time,
            "tid" => Self::Tid,
            "pid" if kinds.is_none() => Self::Pid,
            "comm" => Self::Comm,
            _ => {
                let alias = ALIASES.iter().find(|(alias, ..)| *alias == name);
                let (name, only) = alias.map_or((name, None), |(_, kind, field)| (*field, Some(*kind)));
                let all = only.as_ref().map(std::slice::from_ref).or(kinds).unwrap_or(&Kind::ALL);
                let (field, ty) = Self::own(name, all)?;
                return Ok((field, Some(ty), only));
            }
        };
        Ok((common, None, None))
    }

    fn own(name: &str, kinds: &[Kind]) -> Result<(Self, FieldType), String> {
        let find = |name: &str| kinds.iter().flat_map(|kind| kind.fields()).find(|field| field.name == name);
        if let Some(field) = find(name) {
            return Ok((Self::Own(name.to_owned(), 1), field.ty));
        }
        // Of a span of time, another unit.
        let scaled = UNITS.iter().find_map(|(unit, scale)| {
            let stem = name.strip_suffix(unit)?.strip_suffix('_')?;
            let full = format!("{stem}_ns");
            find(&full).map(|field| (Self::Own(full, *scale), field.ty))
        });
        scaled.ok_or_else(|| {
            format!("no event there has a field `{name}`; `schedtrace record --events help` lists the events")
        })
    }
}

impl Value {
    fn read(field: &Field, ty: Option<FieldType>, text: &str) -> Result<Self, String> {
        match (field, ty) {
            (Field::Event, _) => kinds_of(text).map(Self::Kinds),
            (Field::Group, _) => match EventGroup::ALL.iter().find(|(name, _)| *name == text) {
                Some(_) => Ok(Self::Text(text.to_owned())),
                None => Err(format!(
                    "no group is called so: use one of {}",
                    EventGroup::ALL.map(|(name, _)| name).join(", ")
                )),
            },
            (Field::Comm, _) | (_, Some(FieldType::Name | FieldType::Choice(_))) => Ok(Self::Text(text.to_owned())),
            (_, Some(FieldType::Flag)) => match text {
                "true" | "1" => Ok(Self::Number(1)),
                "false" | "0" => Ok(Self::Number(0)),
                _ => Err("it is true or false".to_owned()),
            },
            _ => number(text).map(Self::Number).ok_or_else(|| "it has to be a number: 1000, 0x7f00, 5ms".to_owned()),
        }
    }
}

/// A number, in hexadecimal if it says so; one with a unit in nanoseconds.
pub(crate) fn number(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(i128::from);
    }
    let plain = |text: &str| text.parse::<i64>().map(i128::from).or_else(|_| text.parse::<u64>().map(i128::from)).ok();
    plain(text).or_else(|| UNITS.iter().find_map(|(unit, scale)| Some(plain(text.strip_suffix(unit)?.trim())? * scale)))
}

impl EventFilter {
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
        self.over.extend(batch.events.iter().filter_map(over));
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
        let meets = |term: &Term| {
            let number = |found: u32| matches!(term.value, Value::Number(wanted) if term.comparison.holds(&i128::from(found), &wanted));
            match (&term.field, task) {
                (Field::Cpu, _) => number(cpu.0.into()),
                (Field::Tid, Some(task)) => number(task.tid),
                (Field::Pid, Some(task)) => number(task.tgid),
                (Field::Comm, Some(task)) => {
                    let comm = task.comm.to_string();
                    matches!(&term.value, Value::Text(wanted) if term.comparison.holds(&comm, wanted))
                }
                _ => false,
            }
        };
        self.terms.iter().all(meets)
    }

    fn meets(&self, term: &Term, event: &Event) -> bool {
        let kind = event.kind.kind();
        if term.kinds.as_ref().is_some_and(|kinds| !kinds.contains(&kind)) {
            return false;
        }
        let number =
            |found: i128| matches!(term.value, Value::Number(wanted) if term.comparison.holds(&found, &wanted));
        let text = |found: &str| matches!(&term.value, Value::Text(wanted) if term.comparison.holds(found, wanted));
        let any_task = |meets: &dyn Fn(&Task) -> bool| {
            tasks(&event.kind).into_iter().flatten().filter_map(|id| self.task(id)).any(|task| meets(&task))
        };
        match &term.field {
            Field::Event => {
                let named = matches!(&term.value, Value::Kinds(kinds) if kinds.contains(&kind));
                named == (term.comparison == Comparison::Equal)
            }
            Field::Group => text(&kind.group().to_string()),
            Field::Cpu => number(event.cpu.0.into()),
            Field::Time => number(event.ts.0.into()),
            Field::Tid => any_task(&|task| number(task.tid.into())),
            Field::Pid => any_task(&|task| number(task.tgid.into())),
            Field::Comm => any_task(&|task| text(&task.comm.to_string())),
            Field::Own(name, scale) => {
                let Some(at) = kind.fields().iter().position(|field| field.name == name) else { return false };
                let (ty, values) = (kind.fields()[at].ty, event.kind.values());
                let Some(&value) = values.get(at) else { return false };
                match (ty, &term.value) {
                    (_, Value::Text(_)) => text(&self::text(ty, value, |id| self.names.get(&id).map(|text| &**text))),
                    (FieldType::Signed, _) => number(i128::from(value as i64)),
                    // Not divided, which would round: what is wanted is multiplied.
                    (_, Value::Number(wanted)) => {
                        term.comparison.holds(&i128::from(value), &wanted.saturating_mul(*scale))
                    }
                    _ => false,
                }
            }
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
mod tests {
    use super::*;
    use crate::event::{Address, Comm, FutexWait, Name, Nanos, ScxDispatch, Softirq, SoftirqEntry, WorkStart};

    fn at(cpu: u16, kind: impl Into<EventKind>) -> Event {
        Event { ts: Nanos(9_000_000), cpu: Cpu(cpu), kind: kind.into() }
    }

    fn accepts(filter: &str, event: &Event) -> bool {
        let mut filter: EventFilter = filter.parse().unwrap();
        let task = Task { id: TaskId(7), tid: 70, tgid: 77, comm: Comm::new("nginx"), ..Task::idle(Cpu(0)) };
        let name = Name::new(NameId(5), Nanos(0), b"vmstat_update");
        filter.learn(&Batch { tasks: vec![task], names: vec![name], ..Batch::default() });
        filter.accepts(event)
    }

    #[test]
    fn conditions_hold_all_or_not() {
        let (task, duration_ns) = (TaskId(7), Nanos(1_500_000));
        let wait = at(3, FutexWait { task, address: Address(0x7f00), duration_ns, result: -110 });
        for filter in [
            "duration_ns > 1499999",
            "duration_us>=1500",
            "duration_ms > 1",
            "duration_ns = 1500us",
            "futex_wait.duration_ns <= 2ms",
            "event = futex_wait",
            "event != sched_switch",
            "event = futex and cpu = 3",
            "group = futex, cpu < 4 && result = -110",
            "address == 0x7f00",
            "comm = nginx and tid = 70 and pid = 77",
            "comm = 'nginx'",
            "ts_ns >= 9000000",
        ] {
            assert!(accepts(filter, &wait), "{filter}");
        }
        for filter in [
            "duration_ms > 1.5ms and cpu = 3",
            "cpu > 3",
            "event = irq",
            "comm != nginx",
            "latency_ns > 0",
            "result > 0",
        ] {
            let read = filter.parse::<EventFilter>();
            assert!(read.is_err() || !accepts(filter, &wait), "{filter}");
        }
        assert!(accepts("vector = TIMER", &at(0, SoftirqEntry { vector: Softirq(1) })));
        assert!(accepts("function = vmstat_update", &at(0, WorkStart { task, function: NameId(5) })));
        assert!(!accepts("function = vmstat_update", &at(0, WorkStart { task, function: NameId(6) })));
    }

    #[test]
    fn what_scxtop_s_users_wrote_keeps_working() {
        let (task, dsq_id, latency_ns) = (TaskId(7), Address(8), Nanos(1_200_000));
        let run = at(1, ScxDispatch { task, dsq_id, latency_ns, depth: 4, layer: 2 });
        for filter in [
            "dsq_lat_us > 1000",
            "event = sched_switch and dsq_lat_us > 1000",
            "sched_switch.dsq_lat_us > 1000",
            "layer_id = 2",
            "dsq_nr_queued = 4",
        ] {
            assert!(accepts(filter, &run), "{filter}");
        }
        assert!(!accepts("dsq_lat_us > 1200", &run), "it is no longer than that");
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (filter, why) in [
            ("", "nothing in it"),
            ("duration_ns", "compares nothing"),
            ("duration_ns > long", "a number"),
            ("length > 3", "no event there has a field `length`"),
            ("futex_wait.vector = TIMER", "no event there has a field `vector`"),
            ("event = dream", "no event is called `dream`"),
            ("group = dream", "use one of sched, irq"),
            ("comm > nginx", "use = or !="),
            ("moved = perhaps", "true or false"),
        ] {
            let error = filter.parse::<EventFilter>().unwrap_err().to_string();
            assert!(error.contains(why), "{filter}: {error}");
        }
    }
}
