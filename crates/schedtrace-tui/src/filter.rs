//! Which rows of a table somebody wants to see: those with a text, or those that meet conditions, written as the filters of
//! events are (`schedtrace_core::EventFilter`).

use regex::{Regex, RegexBuilder};
use schedtrace_core::Nanos;

use crate::sheet::{Head, Row, Value};

/// The memory that a pattern may take, in bytes.
const PATTERN_BYTES: usize = 1 << 18;

/// A text that has to stand in a row, or conditions that all have to hold: `p99 > 1ms and who ~ nginx`. Between them stands
/// `and`, `&&` or a comma.
///
/// The fields are the table's columns, whatever the case, with `_` for a space. A number may have a unit: of time (`ns`, `us`,
/// `ms`, `s`), of bytes (`B`, `KiB` ...), `%`, or `k`, `M`, `G`, with `/s` behind it where it is a rate. Without one it is in nanoseconds, bytes, or what the column
/// shows: percents, and seconds for a moment. Texts may stand in quotes.
#[derive(Clone, Debug)]
pub(crate) enum RowFilter {
    /// In any of its cells, whatever the case.
    Text(String),
    Terms(Vec<Term>),
}

/// A condition.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    column: usize,
    comparison: Comparison,
    wanted: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
    Matches,
    MatchesNot,
}

/// Longer ones first: `>=` begins with `>`.
const COMPARISONS: [(&str, Comparison); 9] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("!~", Comparison::MatchesNot),
    ("~", Comparison::Matches),
    (">", Comparison::More),
    ("<", Comparison::Less),
    ("=", Comparison::Equal),
];

#[derive(Clone, Debug)]
enum Wanted {
    Pattern(Regex),
    /// The text, and the number that it is if it is one.
    Is(String, Option<Quantity>),
}

/// A number with what it is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantity {
    number: f64,
    of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Plain,
    /// The number is in nanoseconds.
    Time,
    /// The number is in bytes.
    Bytes,
    /// The number is in percents.
    Percent,
}

const UNITS: [(&str, f64, Of); 19] = [
    ("ns", 1.0, Of::Time),
    ("us", 1e3, Of::Time),
    ("µs", 1e3, Of::Time),
    ("ms", 1e6, Of::Time),
    ("s", 1e9, Of::Time),
    ("min", 60e9, Of::Time),
    ("h", 3600e9, Of::Time),
    ("KiB", 1024.0, Of::Bytes),
    ("MiB", 1_048_576.0, Of::Bytes),
    ("GiB", 1_073_741_824.0, Of::Bytes),
    ("TiB", 1_099_511_627_776.0, Of::Bytes),
    ("PiB", 1_125_899_906_842_624.0, Of::Bytes),
    ("EiB", 1_152_921_504_606_846_976.0, Of::Bytes),
    ("B", 1.0, Of::Bytes),
    ("%", 1.0, Of::Percent),
    ("k", 1e3, Of::Plain),
    ("M", 1e6, Of::Plain),
    ("G", 1e9, Of::Plain),
    ("", 1.0, Of::Plain),
];

impl Quantity {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite())?;
        // So much a second, of what is not a time or a share itself.
        let (unit, is_rate) = unit.trim().strip_suffix("/s").map_or((unit.trim(), false), |unit| (unit, true));
        let (_, scale, of) = UNITS.iter().find(|(name, ..)| *name == unit)?;
        if is_rate && !matches!(of, Of::Bytes | Of::Plain) {
            return None;
        }
        Some(Self { number: number * scale, of: *of })
    }

    /// A duration, in nanoseconds: one without a unit is none.
    pub(crate) fn time_ns(self) -> Option<u64> {
        (self.of == Of::Time && (0.0..1e18).contains(&self.number)).then_some(self.number as u64)
    }

    /// What a value is and what it is compared with, both in the same unit; none if the two are not of one kind.
    fn beside(self, cell: &Value, origin: Nanos) -> Option<(f64, f64)> {
        // With what one is where nothing is said: a moment is told in seconds.
        let (of, found, plain) = match cell {
            Value::None | Value::Text(_) => return None,
            Value::Time(ns) | Value::AtLeast(ns) => (Of::Time, *ns as f64, 1.0),
            Value::Moment(at) => (Of::Time, (*at - origin).0 as f64, 1e9),
            Value::Ratio(ratio) | Value::RatioAtLeast(ratio) => (Of::Percent, ratio * 100.0, 1.0),
            Value::Bytes(bytes) => (Of::Bytes, *bytes as f64, 1.0),
            Value::ByteRate(rate) => (Of::Bytes, *rate, 1.0),
            Value::Count(count) => (Of::Plain, *count as f64, 1.0),
            Value::Int(number) => (Of::Plain, *number as f64, 1.0),
            Value::Rate(number) | Value::Number(number) | Value::Float(number) => (Of::Plain, *number, 1.0),
        };
        match self.of {
            Of::Plain => Some((found, self.number * plain)),
            wanted => (wanted == of).then_some((found, self.number)),
        }
    }
}

impl RowFilter {
    /// Reads it, for a table of these columns.
    ///
    /// # Errors
    /// Why a condition cannot be read; what has no operator in it is a text, and any text will do.
    pub(crate) fn read(text: &str, columns: &[Head<'_>]) -> Result<Self, String> {
        let parts = split(text)?;
        if !parts.iter().any(|part| operator(part).is_some()) {
            return Ok(Self::Text(text.to_lowercase()));
        }
        parts.into_iter().map(|part| Term::read(part, columns)).collect::<Result<_, _>>().map(Self::Terms)
    }

    pub(crate) fn accepts(&self, row: &Row, origin: Nanos) -> bool {
        match self {
            Self::Text(text) => {
                text.is_empty() || row.cells.iter().any(|cell| cell.shown(origin).to_lowercase().contains(text))
            }
            Self::Terms(terms) => terms.iter().all(|term| term.holds(row, origin)),
        }
    }
}

impl Term {
    fn read(part: &str, columns: &[Head<'_>]) -> Result<Self, String> {
        let (at, sign, comparison) =
            operator(part).ok_or_else(|| format!("`{part}` is no condition: write `p99 > 1ms` or `who ~ nginx`"))?;
        let (name, text) = (part[..at].trim(), unquoted(part[at + sign.len()..].trim())?);
        let column = column(name, columns)?;
        if text.is_empty() {
            return Err(format!("what is {name} to be compared with? Write `{name} {sign} ...`"));
        }
        let wanted = match comparison {
            Comparison::Matches | Comparison::MatchesNot => {
                let pattern = RegexBuilder::new(text).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
                Wanted::Pattern(pattern.map_err(|error| {
                    let error = error.to_string();
                    format!("`{text}` is no pattern: {}", error.lines().last().unwrap_or_default())
                })?)
            }
            _ => Wanted::Is(text.to_owned(), Quantity::read(text)),
        };
        let is_order = !matches!(comparison, Comparison::Equal | Comparison::Unequal);
        if let (Wanted::Is(_, None), true) = (&wanted, is_order) {
            return Err(format!("`{text}` is no number: write 5, 5ms, 5KiB or 5%"));
        }
        Ok(Self { column, comparison, wanted })
    }

    fn holds(&self, row: &Row, origin: Nanos) -> bool {
        let Some(cell) = row.cells.get(self.column).filter(|cell| **cell != Value::None) else { return false };
        match (&self.wanted, cell) {
            (Wanted::Pattern(pattern), cell) => {
                pattern.is_match(&cell.shown(origin)) == (self.comparison == Comparison::Matches)
            }
            (Wanted::Is(wanted, _), Value::Text(text)) if !self.is_order() => {
                (text.as_ref() == wanted.as_str()) == (self.comparison == Comparison::Equal)
            }
            // A number that stands in a text.
            (Wanted::Is(_, Some(wanted)), Value::Text(text)) => match Quantity::read(text) {
                Some(found) if found.of == wanted.of => self.compares(found.number, wanted.number),
                _ => false,
            },
            (Wanted::Is(_, Some(wanted)), cell) => {
                wanted.beside(cell, origin).is_some_and(|(found, wanted)| self.compares(found, wanted))
            }
            (Wanted::Is(wanted, None), cell) => {
                (cell.shown(origin) == *wanted) == (self.comparison == Comparison::Equal)
            }
        }
    }

    fn is_order(&self) -> bool {
        !matches!(self.comparison, Comparison::Equal | Comparison::Unequal)
    }

    fn compares(&self, found: f64, wanted: f64) -> bool {
        match self.comparison {
            Comparison::Equal => found == wanted,
            Comparison::Unequal => found != wanted,
            Comparison::Less => found < wanted,
            Comparison::AtMost => found <= wanted,
            Comparison::More => found > wanted,
            Comparison::AtLeast => found >= wanted,
            Comparison::Matches | Comparison::MatchesNot => false,
        }
    }
}

/// The column of this name.
fn column(name: &str, columns: &[Head<'_>]) -> Result<usize, String> {
    let plain = |name: &str| name.to_lowercase().replace([' ', '_'], "");
    if let Some(at) = columns.iter().position(|column| plain(column.name) == plain(name)) {
        return Ok(at);
    }
    let all = || columns.iter().map(|column| column.name.to_lowercase().replace(' ', "_"));
    Err(match nearest(&name.to_lowercase(), all()) {
        Some(near) => format!("no column is called `{name}`: do you mean `{near}`?"),
        None => format!("no column is called `{name}`: here are {}", all().collect::<Vec<_>>().join(", ")),
    })
}

/// That one of these which was probably meant.
pub(crate) fn nearest<T: AsRef<str>>(name: &str, all: impl IntoIterator<Item = T>) -> Option<T> {
    let likeness = |known: &T| strsim::jaro_winkler(name, known.as_ref());
    let ranked = all.into_iter().map(|known| (likeness(&known), known)).filter(|(likeness, _)| *likeness > 0.75);
    ranked.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// The first operator that stands behind a name: where, how it is written, and what it is.
fn operator(part: &str) -> Option<(usize, &'static str, Comparison)> {
    let begins = |at: usize| COMPARISONS.iter().find(|(sign, _)| part[at..].starts_with(sign));
    let (at, (sign, comparison)) = part.char_indices().find_map(|(at, _)| Some((at, begins(at)?)))?;
    (!part[..at].trim().is_empty()).then_some((at, *sign, *comparison))
}

/// Cut at each `and`, `&&` and comma outside of quotes, as `schedtrace_core::EventFilter` does.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut from, mut skip) = (Vec::new(), 0, 0);
    // A quote begins only where a value does: `comm = it's` has none.
    let (mut quote, mut value_begins) = (None, false);
    for (at, letter) in text.char_indices() {
        if at < skip {
            continue;
        }
        if let Some(open) = quote {
            quote = (letter != open).then_some(open);
            continue;
        }
        let rest = &text[at..];
        let length = match letter {
            ',' => 1,
            '&' if rest.starts_with("&&") => 2,
            _ if at > from && letter.is_ascii_whitespace() && is_and(&rest[1..]) => 4,
            _ => {
                match letter {
                    '\'' | '"' if value_begins => quote = Some(letter),
                    '=' | '<' | '>' | '~' => value_begins = true,
                    _ if !letter.is_whitespace() => value_begins = false,
                    _ => {}
                }
                continue;
            }
        };
        parts.push(text[from..at].trim());
        (from, skip, value_begins) = (at + length, at + length, false);
    }
    if let Some(open) = quote {
        return Err(format!("the quote {open} is not closed"));
    }
    parts.push(text[from..].trim());
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

/// Whether a text begins with the word `and`.
fn is_and(text: &str) -> bool {
    text.strip_prefix("and").is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_whitespace()))
}

/// A value without the quotes around it.
fn unquoted(text: &str) -> Result<&str, String> {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) else { return Ok(text) };
    let inside = &text[1..];
    match inside.split_once(quote) {
        Some((value, "")) => Ok(value),
        Some((_, rest)) => Err(format!("what is `{}` behind the quotes?", rest.trim())),
        None => Err(format!("the quote {quote} is not closed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::Column;
    use proptest::prelude::*;

    const COLUMNS: &[Column] = &[
        Column { name: "WHO", about: "", width: 0, rank: 0 },
        Column { name: "P99", about: "", width: 8, rank: 0 },
        Column { name: "CPU", about: "", width: 8, rank: 0 },
        Column { name: "AT", about: "", width: 8, rank: 0 },
        Column { name: "MOST AT ONCE", about: "", width: 8, rank: 0 },
    ];

    fn row(who: &str, p99: u64, cpu: f64, at: u64, most: u64) -> Row {
        let cells = vec![
            Value::text(who.to_owned()),
            Value::Time(p99),
            Value::Ratio(cpu),
            Value::Moment(Nanos(at)),
            Value::Count(most),
        ];
        Row { cells, ..Row::default() }
    }

    fn accepts(filter: &str, row: &Row) -> bool {
        RowFilter::read(filter, COLUMNS).unwrap_or_else(|why| panic!("{filter}: {why}")).accepts(row, Nanos::ZERO)
    }

    #[test]
    fn conditions_are_of_columns() {
        let nginx = row("nginx[12]", 2_000_000, 0.6, 1_500_000_000, 3);
        for holds in [
            "p99 > 1ms",
            "P99>=2000us",
            "p99 = 2000000",
            "who ~ ^ngi",
            "who !~ bash",
            "who = nginx[12]",
            "who = 'nginx[12]'",
            "cpu > 50",
            "cpu > 50%",
            "at < 2",
            "at > 1400ms",
            "most_at_once < 10 and p99 > 1ms, cpu<=60 && who ~ 'n'",
            "NGINX",
            "60.0%",
        ] {
            assert!(accepts(holds, &nginx), "{holds}");
        }
        for fails in ["p99 > 2ms", "p99 > 1KiB", "who ~ NGINX", "who != nginx[12]", "at > 2", "cpu < 50", "bash"] {
            assert!(!accepts(fails, &nginx), "{fails}");
        }
        assert!(!accepts("p99 != 5", &Row { cells: vec![Value::text("x"), Value::None], ..Row::default() }));
    }

    #[test]
    fn what_cannot_be_read_says_what_would_do() {
        for (text, told) in [
            ("p9 > 1ms", "`p99`"),
            ("latency_of_it > 1", "who, p99, cpu, at, most_at_once"),
            ("p99 > soon", "no number"),
            ("p99 > 1 parsec", "no number"),
            ("who ~ (", "no pattern"),
            ("p99 >", "compared with"),
            ("p99 > 1 and nginx", "`nginx` is no condition"),
        ] {
            let why = RowFilter::read(text, COLUMNS).unwrap_err();
            assert!(why.contains(told), "{text}: {why}");
        }
    }

    #[test]
    fn texts_in_quotes_are_one() {
        assert!(accepts("who = 'a and b, c'", &row("a and b, c", 0, 0.0, 0, 0)));
        assert!(accepts("who ~ \"x > y\"", &row("x > y", 0, 0.0, 0, 0)));
    }

    /// Every kind of figure that a cell can hold.
    fn figures(number: u32) -> Vec<Value> {
        let (whole, float) = (u64::from(number), f64::from(number));
        let all = [
            Value::Count(whole),
            Value::Time(whole),
            Value::AtLeast(whole),
            Value::Moment(Nanos(whole)),
            Value::Ratio(float),
            Value::Rate(float),
            Value::Bytes(whole),
            Value::Bytes(whole << 30),
            Value::ByteRate(float),
            Value::Number(float),
            Value::Int(whole.cast_signed()),
            Value::Float(float),
        ];
        all.into()
    }

    #[test]
    fn rates_of_bytes_are_found() {
        let disk = Row { cells: vec![Value::text("sda"), Value::ByteRate(3.0 * 1_048_576.0)], ..Row::default() };
        for holds in ["p99 > 2MiB/s", "p99 > 2 MiB", "p99 = 3145728", "p99 < 4096 KiB/s"] {
            assert!(accepts(holds, &disk), "{holds}");
        }
        assert!(!accepts("p99 > 4MiB/s", &disk));
        let often = Row { cells: vec![Value::text("sda"), Value::Rate(20_000.0)], ..Row::default() };
        assert!(accepts("p99 > 19k/s and p99 < 21000/s", &often));
        for wrong in ["p99 > 5ms/s", "p99 > 5%/s"] {
            assert!(RowFilter::read(wrong, COLUMNS).is_err_and(|why| why.contains("no number")), "{wrong}");
        }
    }

    #[test]
    fn conditions_are_cut_as_those_of_events() {
        for (text, parts) in [
            ("who = it's, p99 > 1", vec!["who = it's", "p99 > 1"]),
            ("who = 'a, b' and p99 > 1", vec!["who = 'a, b'", "p99 > 1"]),
            ("who = x\tand\tp99 > 1", vec!["who = x", "p99 > 1"]),
            ("who = x AND y", vec!["who = x AND y"]),
            ("who = x,, p99 > 1,", vec!["who = x", "p99 > 1"]),
            ("who = andy and p99 > 1", vec!["who = andy", "p99 > 1"]),
        ] {
            assert_eq!(split(text).as_ref(), Ok(&parts), "{text}");
        }
        assert!(split("who = 'x").is_err_and(|why| why.contains("not closed")));
        assert!(RowFilter::read("who = 'x' y", COLUMNS).is_err_and(|why| why.contains("behind the quotes")));
    }

    proptest! {
        /// The filter of events tells which condition it cannot read: the first one here.
        #[test]
        fn the_first_condition_is_that_of_a_filter_of_events(
            value in "(x|'|\"|,|and|an| |\t|&&|~|=|<|[0-9]|é){1,14}"
        ) {
            let text = format!("zz = {value}");
            let theirs = text.parse::<schedtrace_core::EventFilter>().unwrap_err();
            match split(&text) {
                // It reads one after the other, and stops at the first that is wrong.
                Err(why) => prop_assert!(why == theirs.why || theirs.term.len() < text.len()),
                Ok(parts) => prop_assert_eq!(parts[0], theirs.term.as_str()),
            }
        }

        #[test]
        fn what_a_cell_shows_can_be_typed(number: u32) {
            for cell in figures(number) {
                let shown = cell.shown(Nanos::ZERO);
                let quantity = Quantity::read(shown.trim_start_matches('>'));
                let (found, wanted) = quantity.and_then(|it| it.beside(&cell, Nanos::ZERO))
                    .unwrap_or_else(|| panic!("{cell:?} shows {shown}, which is not compared with it"));
                // It is rounded there.
                prop_assert!((found - wanted).abs() <= 0.05 * found + 1.0 || matches!(cell, Value::Moment(_)), "{cell:?}: {shown}");
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}", who in ".{0,20}") {
            let row = row(&who, 5, 0.5, 7, 9);
            if let Ok(filter) = RowFilter::read(&text, COLUMNS) {
                filter.accepts(&row, Nanos::ZERO);
            }
        }

        #[test]
        fn what_looks_like_conditions_is_read_or_refused(
            text in "(who|p99|cpu|'|\"|,|and| |&&|~|!|=|<|>|[0-9]|ms|µs|%|\\(|é){0,16}"
        ) {
            if let Ok(filter) = RowFilter::read(&text, COLUMNS) {
                filter.accepts(&row("é", 5, 0.5, 7, 9), Nanos::ZERO);
            }
        }

        #[test]
        fn a_text_is_found_where_it_stands(text in "[a-zA-Z0-9é/:.-]{0,8}", before in "[a-z ]{0,5}", after in "[a-z ]{0,5}") {
            let row = row(&format!("{before}{text}{after}"), 0, 0.0, 0, 0);
            prop_assert!(accepts(&text.to_uppercase(), &row) || text.to_uppercase().to_lowercase() != text.to_lowercase());
        }

        #[test]
        fn figures_are_less_or_not_less(found: u32, wanted: u32) {
            let row = row("x", found.into(), 0.0, 0, found.into());
            for column in ["p99", "most at once"] {
                let holds = |sign: &str| accepts(&format!("{column} {sign} {wanted}"), &row);
                prop_assert_eq!(holds("<"), found < wanted);
                prop_assert_eq!(holds(">="), found >= wanted);
                prop_assert_eq!(holds("="), found == wanted);
                prop_assert_eq!(holds("!="), found != wanted);
                prop_assert_eq!(holds("<="), holds("<") || holds("="));
                prop_assert_eq!(holds(">"), !holds("<="));
            }
        }

        #[test]
        fn all_conditions_have_to_hold(p99: u16, most: u16, a: u16, b: u16) {
            let row = row("x", p99.into(), 0.0, 0, most.into());
            let (one, other) = (format!("p99 > {a}"), format!("most_at_once > {b}"));
            let both = accepts(&one, &row) && accepts(&other, &row);
            for between in [" and ", " && ", ", "] {
                prop_assert_eq!(accepts(&format!("{one}{between}{other}"), &row), both);
            }
        }

        #[test]
        fn units_are_of_one_thing(ms in 0_u64..1 << 40) {
            let time = |text: String| Quantity::read(&text).and_then(Quantity::time_ns);
            prop_assert_eq!(time(format!("{ms}ms")), time(format!("{}us", ms * 1000)));
            prop_assert_eq!(time(format!("{ms}")), None);
        }
    }
}
