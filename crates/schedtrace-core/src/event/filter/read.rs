//! From a line of text to the conditions of a filter.

use super::kernel::{FIELDS, Get, STATES};
use super::term::{Condition, MAX_TERMS, Operator, Pattern, cut, number, of_field, too_many};
use super::{ALIASES, BadFilter, Field, Part, Place, Term, Value, bad};
use crate::event::choose::nearest;
use crate::event::{BlockOp, EventGroup, FieldType, Kind, Kinds};

/// The name of a whole disk by its number, where that is known.
pub(super) type DiskName<'a> = &'a dyn Fn(u32, u32) -> Option<String>;

/// All conditions of a line.
pub(super) fn terms(line: &str, of: Option<Kind>, disk: DiskName<'_>) -> Result<Vec<Term>, BadFilter> {
    let mut terms = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (term, after) = cut(text)?;
        if !term.trim().is_empty() {
            if terms.len() == MAX_TERMS {
                return Err(too_many(text));
            }
            terms.push(Term::read(term.trim(), of, disk)?);
        }
        rest = after;
    }
    if terms.is_empty() {
        return Err(bad(line, "there is nothing in it: try `event = futex_wait and duration_us > 100`"));
    }
    Ok(terms)
}

/// Kinds by the name of one, of a group, or of a tracepoint; with those that scxtop counts as the same.
pub(super) fn kinds_of(name: &str) -> Result<Vec<Kind>, String> {
    let mut kinds = name.parse::<Kinds>().map_err(|error| error.to_string())?.kinds;
    if kinds.contains(&Kind::Switch) {
        kinds.push(Kind::ScxDispatch);
    }
    Ok(kinds)
}

impl Term {
    fn read(term: &str, of: Option<Kind>, disk: DiskName<'_>) -> Result<Self, BadFilter> {
        let wrong = |why: String| bad(term, why);
        let Some(found) = Condition::find(term) else {
            return Err(bad(term, "it compares nothing: use =, !=, <, <=, >, >=, ~ or !~"));
        };
        let Condition { field: left, operator, value: right } = found;
        if left.contains('(') || left.contains("||") || right.contains("||") && !right.starts_with(['\'', '"']) {
            return Err(bad(term, "all conditions have to hold: there is no `||`, and there are no brackets"));
        }
        let right = found.text().map_err(wrong)?;
        let (kinds, name) = match left.split_once('.') {
            Some((kinds, name)) => (Some(kinds_of(kinds).map_err(wrong)?), name),
            None => (of.map(|kind| vec![kind]), left),
        };
        let (field, kinds) = Field::read(name, kinds).map_err(wrong)?;
        let (field, value) = Value::read(field, operator, right, disk).map_err(wrong)?;
        if operator.is_order() && !matches!(value, Value::Number(_)) {
            return Err(bad(term, "texts are equal or not, or match a pattern: use =, !=, ~ or !~"));
        }
        Ok(Self { kinds, field, operator, value })
    }
}

impl Field {
    /// The field, and the kinds of events that can have it, where it is not all.
    fn read(name: &str, kinds: Option<Vec<Kind>>) -> Result<(Self, Option<Vec<Kind>>), String> {
        let alias = ALIASES.iter().find(|(alias, ..)| *alias == name);
        if let Some((_, kind, field)) = alias {
            let parts = parts(field, &[*kind]);
            return Ok((Self::Of(parts), Some(vec![*kind])));
        }
        let common = match name {
            "event" => Some(Self::Event),
            "group" => Some(Self::Group),
            "cpu" => Some(Self::Cpu),
            "ts_ns" => Some(Self::Time),
            "tid" => Some(Self::Tid),
            "pid" => Some(Self::Pid),
            "comm" => Some(Self::Comm),
            _ => None,
        };
        // Of one tracepoint, `pid`, `comm` and `cpu` are what the kernel calls so there.
        let one = kinds.as_deref().is_some_and(|kinds| {
            let has = |kind: &Kind| place(name, *kind).is_some();
            kinds.first().is_some_and(has) && kinds.iter().all(|kind| *kind == kinds[0] || *kind == Kind::ScxDispatch)
        });
        match common {
            Some(common) if !one => return Ok((common, kinds)),
            _ => {}
        }
        let parts = parts(name, kinds.as_deref().unwrap_or(&Kind::ALL));
        let missing = |part: &Part| matches!(part.place, Place::Kernel(Get::Missing));
        if let Some(part) = parts.first().filter(|_| parts.iter().all(missing)) {
            return Err(format!("the kernel's field `{name}` of {} is not recorded", part.kind));
        }
        if parts.is_empty() {
            return Err(unknown(name, kinds.as_deref()));
        }
        Ok((Self::Of(parts.into_iter().filter(|part| !missing(part)).collect()), kinds))
    }
}

/// Where a field of this name is, in each of the kinds that have one.
fn parts(name: &str, kinds: &[Kind]) -> Vec<Part> {
    kinds.iter().filter_map(|&kind| place(name, kind).map(|place| Part { kind, place })).collect()
}

/// Where a field of this name is in the events of a kind: ours come first.
fn place(name: &str, kind: Kind) -> Option<Place> {
    let own = |name: &str| {
        let at = kind.fields().iter().position(|field| field.name == name)?;
        Some((at, kind.fields()[at].ty))
    };
    if let Some((at, ty)) = own(name) {
        return Some(Place::Own { at, ty, scale: 1 });
    }
    if let Some(field) = FIELDS.iter().find(|field| field.kind == kind && field.name == name) {
        return match field.get {
            Get::Own(name) => own(name).map(|(at, ty)| Place::Own { at, ty, scale: 1 }),
            get => Some(Place::Kernel(get)),
        };
    }
    // Of a span of time, another unit.
    let (stem, scale) = of_field(name)?;
    own(&format!("{stem}_ns")).map(|(at, ty)| Place::Own { at, ty, scale })
}

/// Says that there is no such field, and which one may be meant.
fn unknown(name: &str, kinds: Option<&[Kind]>) -> String {
    let all = kinds.unwrap_or(&Kind::ALL);
    let own = all.iter().flat_map(|kind| kind.fields()).map(|field| field.name);
    let of_kernel = FIELDS.iter().filter(|field| all.contains(&field.kind)).map(|field| field.name);
    let common = ["event", "group", "cpu", "ts_ns", "tid", "pid", "comm"];
    let of_scxtop = ALIASES.iter().map(|(alias, ..)| *alias).filter(|_| kinds.is_none());
    let near = nearest(name, own.chain(of_kernel).chain(common).chain(of_scxtop));
    let near = near.map_or_else(String::new, |near| format!("; do you mean `{near}`?"));
    let short: String = name.chars().take(64).collect();
    format!("no event there has a field `{short}`{near}; `schedtrace record --events help` lists the events")
}

/// What a field of an event holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Number,
    Flag,
    Text,
    Choice(&'static [&'static str]),
    State,
    Rwbs,
    Disk,
}

impl Part {
    fn holds(&self) -> Holds {
        match self.place {
            Place::Own { ty, .. } => match ty {
                FieldType::Flag => Holds::Flag,
                FieldType::Name if matches!(self.kind.group(), EventGroup::Block) => Holds::Disk,
                FieldType::Name => Holds::Text,
                FieldType::Choice(names) => Holds::Choice(names),
                _ => Holds::Number,
            },
            Place::Kernel(get) => match get {
                Get::Comm(_) => Holds::Text,
                Get::State(_) => Holds::State,
                Get::Rwbs => Holds::Rwbs,
                Get::Disk => Holds::Disk,
                Get::Own(_) | Get::Number(_) | Get::Tid(_) | Get::Missing => Holds::Number,
            },
        }
    }
}

impl Value {
    /// What the field is compared with; of the kinds that have such a field, those remain where it can be compared.
    fn read(field: Field, operator: Operator, text: &str, disk: DiskName<'_>) -> Result<(Field, Self), String> {
        let is_pattern = operator.is_pattern();
        let value = match &field {
            Field::Of(parts) => return Self::of_parts(parts, is_pattern, text, disk),
            Field::Group | Field::Comm if is_pattern => Self::Pattern(Pattern::read(text)?),
            _ if is_pattern => return Err("~ and !~ compare texts, and this is none: use =, !=, <, <=, > or >=".into()),
            Field::Event => Self::Kinds(kinds_of(text)?),
            Field::Group => match EventGroup::ALL.iter().find(|(name, _)| *name == text) {
                Some(_) => Self::Text(text.to_owned()),
                None => {
                    let all = EventGroup::ALL.map(|(name, _)| name).join(", ");
                    return Err(format!("no group is called so: use one of {all}"));
                }
            },
            Field::Comm => Self::Text(text.to_owned()),
            Field::Cpu | Field::Time | Field::Tid | Field::Pid => Self::Number(number_of(text)?),
        };
        Ok((field, value))
    }

    /// A field may hold a number in one kind and a text in another: what the value is says which kinds are meant.
    fn of_parts(parts: &[Part], is_pattern: bool, text: &str, disk: DiskName<'_>) -> Result<(Field, Self), String> {
        let mut first = None;
        let mut chosen: Option<(Vec<Part>, Self)> = None;
        for part in parts {
            let read = if is_pattern { part.pattern(text) } else { part.value(text, disk) };
            match (read, &mut chosen) {
                (Ok(value), None) => chosen = Some((vec![*part], value)),
                (Ok(value), Some((parts, known))) if value.is_like(known) => parts.push(*part),
                (Ok(_), Some(_)) => {}
                (Err(why), _) => first = first.or(Some(why)),
            }
        }
        match chosen {
            Some((parts, value)) => Ok((Field::Of(parts), value)),
            None => Err(first.unwrap_or_else(|| "no event there has such a field".to_owned())),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::Text(_), Self::Text(_)) | (Self::Pattern(_), Self::Pattern(_)) => true,
            _ => false,
        }
    }
}

impl Part {
    fn value(&self, text: &str, disk: DiskName<'_>) -> Result<Value, String> {
        let named = |names: &[&str], what: &str| {
            let near = nearest(text, names.iter().copied());
            let near = near.map_or_else(String::new, |near| format!("; do you mean `{near}`?"));
            format!("no {what} is called so{near} There are {}", names.join(", "))
        };
        match self.holds() {
            Holds::Number => number_of(text).map(Value::Number),
            Holds::Text => Ok(Value::Text(text.to_owned())),
            Holds::Flag => match text {
                "true" | "1" => Ok(Value::Number(1)),
                "false" | "0" => Ok(Value::Number(0)),
                _ => Err("it is true or false".to_owned()),
            },
            Holds::Choice(names) if names.contains(&text) => Ok(Value::Text(text.to_owned())),
            Holds::Choice(names) => number(text).map(Value::Number).ok_or_else(|| named(names, "value")),
            Holds::State if STATES.contains(&text) => Ok(Value::Text(text.to_owned())),
            Holds::State => number(text).map(Value::Number).ok_or_else(|| named(&STATES, "state")),
            Holds::Rwbs if rwbs_all().any(|rwbs| rwbs == text) => Ok(Value::Text(text.to_owned())),
            Holds::Rwbs => Err(no_flags()),
            Holds::Disk => disk_of(text, disk).map(Value::Text),
        }
    }

    fn pattern(&self, text: &str) -> Result<Value, String> {
        match self.holds() {
            Holds::Number | Holds::Flag => {
                Err("~ and !~ compare texts, and this is a number: use =, !=, <, <=, > or >=".to_owned())
            }
            Holds::Rwbs => {
                let pattern = Pattern::read(text)?;
                if rwbs_all().any(|rwbs| pattern.is_in(rwbs)) { Ok(Value::Pattern(pattern)) } else { Err(no_flags()) }
            }
            _ => Pattern::read(text).map(Value::Pattern),
        }
    }
}

/// All that `rwbs` can be here.
fn rwbs_all() -> impl Iterator<Item = &'static str> {
    (0..=u8::MAX).map(|operation| BlockOp(operation).rwbs())
}

fn no_flags() -> String {
    let mut all: Vec<_> = rwbs_all().collect();
    all.sort_unstable();
    all.dedup();
    format!(
        "that matches none of {}: the operation of a request is recorded, not its flags (F before it, and F, A, S, M \
         behind it)",
        all.join(", ")
    )
}

/// The name of a disk: as such, or by its number, `8:0` or as the kernel has it in 32 bits.
fn disk_of(text: &str, disk: DiskName<'_>) -> Result<String, String> {
    let parts = text.split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let whole = text.parse::<u32>().ok().map(|device| (device >> 20, device & 0xf_ffff));
    let Some((major, minor)) = parts.or(whole) else { return Ok(text.to_owned()) };
    disk(major, minor).ok_or_else(|| {
        format!(
            "which disk {major}:{minor} is cannot be told here: write its name, as in `dev = sda` (`lsblk` has both; a \
             partition's requests are those of its disk)"
        )
    })
}

fn number_of(text: &str) -> Result<i128, String> {
    number(text).ok_or_else(|| "it has to be a number: 1000, 0x7f00, 5ms".to_owned())
}
