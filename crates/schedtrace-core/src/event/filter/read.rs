//! From a line of text to the conditions of a filter.

use regex::{Regex, RegexBuilder};

use super::kernel::{FIELDS, Get, STATES};
use super::{ALIASES, BadFilter, COMPARISONS, Comparison, Field, Part, Place, Term, UNITS, Value, bad, number};
use crate::event::choose::nearest;
use crate::event::{BlockOp, EventGroup, FieldType, Kind, Kinds};

/// No line has more conditions.
const MAX_TERMS: usize = 64;
/// No pattern is longer.
const MAX_PATTERN: usize = 1_000;
/// What a pattern may grow to: memory, and time to read it.
const MAX_PATTERN_BYTES: usize = 256 << 10;
/// How deep its brackets may go.
const MAX_PATTERN_DEPTH: u32 = 32;

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
                return Err(bad(text, format!("there are more than {MAX_TERMS} conditions")));
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

/// The first condition of a text, and what follows the `and`, `&&` or comma behind it. What stands in quotes is left alone.
pub(crate) fn cut(text: &str) -> Result<(&str, Option<&str>), BadFilter> {
    // A quote begins only where a value does: `comm = it's` has none.
    let mut quote = None;
    let mut value_begins = false;
    for (at, c) in text.char_indices() {
        if let Some((open, _)) = quote {
            if c == open {
                quote = None;
            }
            continue;
        }
        let here = &text[at..];
        let separator = if c == ',' {
            Some(1)
        } else if here.starts_with("&&") {
            Some(2)
        } else if at > 0 && c.is_ascii_whitespace() && is_and(&here[1..]) {
            Some(4)
        } else {
            None
        };
        if let Some(length) = separator {
            return Ok((&text[..at], Some(&here[length..])));
        }
        match c {
            '\'' | '"' if value_begins => quote = Some((c, at)),
            '=' | '<' | '>' | '~' => value_begins = true,
            _ if !c.is_whitespace() => value_begins = false,
            _ => {}
        }
    }
    match quote {
        Some((open, at)) => Err(bad(&text[at..], format!("the quote {open} is not closed"))),
        None => Ok((text, None)),
    }
}

/// Whether a text begins with the word `and`.
fn is_and(text: &str) -> bool {
    text.strip_prefix("and").is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_whitespace()))
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
        let found = COMPARISONS.iter().filter_map(|(op, comparison)| Some((term.find(op)?, op.len(), *comparison)));
        // The first one in the text, and of those that begin there the longest.
        let found = found.min_by_key(|(at, length, _)| (*at, usize::MAX - length));
        let Some((at, length, comparison)) = found else {
            return Err(bad(term, "it compares nothing: use =, !=, <, <=, >, >=, ~ or !~"));
        };
        let (left, right) = (term[..at].trim(), term[at + length..].trim());
        if left.contains('(') || left.contains("||") || right.contains("||") && !right.starts_with(['\'', '"']) {
            return Err(bad(term, "all conditions have to hold: there is no `||`, and there are no brackets"));
        }
        let right = unquoted(right).map_err(wrong)?;
        let (kinds, name) = match left.split_once('.') {
            Some((kinds, name)) => (Some(kinds_of(kinds).map_err(wrong)?), name),
            None => (of.map(|kind| vec![kind]), left),
        };
        let (field, kinds) = Field::read(name, kinds).map_err(wrong)?;
        let (field, value) = Value::read(field, comparison, right, disk).map_err(wrong)?;
        let orders = !matches!(
            comparison,
            Comparison::Equal | Comparison::Unequal | Comparison::Matches | Comparison::MatchesNot
        );
        if orders && !matches!(value, Value::Number(_)) {
            return Err(bad(term, "texts are equal or not, or match a pattern: use =, !=, ~ or !~"));
        }
        Ok(Self { kinds, field, comparison, value })
    }
}

/// A value without the quotes around it.
fn unquoted(text: &str) -> Result<&str, String> {
    let Some(quote) = text.chars().next().filter(|c| ['\'', '"'].contains(c)) else { return Ok(text) };
    let inside = &text[1..];
    match inside.find(quote) {
        Some(end) if end + 1 == inside.len() => Ok(&inside[..end]),
        Some(end) => Err(format!("what is `{}` behind the quotes?", inside[end + 1..].trim())),
        None => Err(format!("the quote {quote} is not closed")),
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
    UNITS.iter().find_map(|&(unit, scale)| {
        let stem = name.strip_suffix(unit)?.strip_suffix('_')?;
        own(&format!("{stem}_ns")).map(|(at, ty)| Place::Own { at, ty, scale })
    })
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
    fn read(field: Field, comparison: Comparison, text: &str, disk: DiskName<'_>) -> Result<(Field, Self), String> {
        let is_pattern = matches!(comparison, Comparison::Matches | Comparison::MatchesNot);
        let value = match &field {
            Field::Of(parts) => return Self::of_parts(parts, is_pattern, text, disk),
            Field::Group | Field::Comm if is_pattern => Self::Pattern(pattern(text)?),
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
                let pattern = pattern(text)?;
                if rwbs_all().any(|rwbs| pattern.is_match(rwbs)) {
                    Ok(Value::Pattern(pattern))
                } else {
                    Err(no_flags())
                }
            }
            _ => pattern(text).map(Value::Pattern),
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

/// A pattern of bounded size: matching takes time in proportion to the text, whatever it asks for.
fn pattern(text: &str) -> Result<Regex, String> {
    if text.len() > MAX_PATTERN {
        return Err(format!("a pattern has at most {MAX_PATTERN} bytes"));
    }
    let read = RegexBuilder::new(text)
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES)
        .nest_limit(MAX_PATTERN_DEPTH)
        .build();
    read.map_err(|error| {
        let why = match &error {
            regex::Error::CompiledTooBig(_) => "it asks for too much: repeat less".to_owned(),
            // The last line says why; those before it draw where.
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim().trim_start_matches("error: ").to_owned()
            }
        };
        format!("the pattern is no regular expression: {why}; `W` finds a W anywhere, `^W` at the beginning")
    })
}
