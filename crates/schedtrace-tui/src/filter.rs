//! Which rows of a table somebody wants to see: those with a text, or those that meet conditions, written as the filters of
//! events are (`schedtrace_core::EventFilter`).

use schedtrace_core::{BadFilter, Condition, Nanos, Operator, Pattern, Quantity, Unit};

use crate::sheet::{Head, Row, Value};

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
    operator: Operator,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    Pattern(Pattern),
    /// The text, and the number that it is if it is one.
    Is(String, Option<Quantity>),
}

/// What a value is and what it is compared with, both in the same unit; none if the two are not of one kind.
fn beside(wanted: Quantity, cell: &Value, origin: Nanos) -> Option<(f64, f64)> {
    // With what one is where nothing is said: a moment is told in seconds.
    let (of, found, plain) = match cell {
        Value::None | Value::Text(_) => return None,
        Value::Time(ns) | Value::Lasted(ns) | Value::AtLeast(ns) => (Unit::Time, *ns as f64, 1.0),
        Value::Moment(at) => (Unit::Time, (*at - origin).0 as f64, 1e9),
        Value::Ratio(ratio) | Value::RatioAtLeast(ratio) => (Unit::Percent, ratio * 100.0, 1.0),
        Value::Bytes(bytes) => (Unit::Bytes, *bytes as f64, 1.0),
        Value::ByteRate(rate) => (Unit::Bytes, *rate, 1.0),
        Value::Count(count) => (Unit::Plain, *count as f64, 1.0),
        Value::Int(number) => (Unit::Plain, *number as f64, 1.0),
        Value::Rate(number) | Value::Number(number) | Value::Float(number) => (Unit::Plain, *number, 1.0),
    };
    match wanted.of {
        Unit::Plain => Some((found, wanted.number * plain)),
        unit => (unit == of).then_some((found, wanted.number)),
    }
}

impl RowFilter {
    /// Reads it, for a table of these columns.
    ///
    /// # Errors
    /// Why a condition cannot be read; what has no operator in it is a text, and any text will do.
    pub(crate) fn read(text: &str, columns: &[Head<'_>]) -> Result<Self, String> {
        let parts = Condition::split(text).map_err(|BadFilter { why, .. }| why)?;
        if !parts.iter().any(|part| condition(part).is_some()) {
            return Ok(Self::Text(text.to_lowercase()));
        }
        parts.into_iter().map(|part| Term::read(part, columns)).collect::<Result<_, _>>().map(Self::Terms)
    }

    /// Whether it leaves nothing out.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Terms(terms) => terms.is_empty(),
        }
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
        let found =
            condition(part).ok_or_else(|| format!("`{part}` is no condition: write `p99 > 1ms` or `who ~ nginx`"))?;
        let Condition { field: name, operator, .. } = found;
        let text = found.text()?;
        let column = column(name, columns)?;
        if text.is_empty() {
            return Err(format!("what is {name} to be compared with? Write `{name} {operator} ...`"));
        }
        let wanted = match operator.is_pattern() {
            true => Wanted::Pattern(Pattern::read(text)?),
            false => Wanted::Is(text.to_owned(), Quantity::read(text)),
        };
        if let (Wanted::Is(_, None), true) = (&wanted, operator.is_order()) {
            return Err(format!("`{text}` is no number: write 5, 5ms, 5KiB or 5%"));
        }
        Ok(Self { column, operator, wanted })
    }

    fn holds(&self, row: &Row, origin: Nanos) -> bool {
        let Some(cell) = row.cells.get(self.column).filter(|cell| **cell != Value::None) else { return false };
        match (&self.wanted, cell) {
            (Wanted::Pattern(pattern), cell) => {
                pattern.is_in(&cell.shown(origin)) == (self.operator == Operator::Matches)
            }
            (Wanted::Is(wanted, _), Value::Text(text)) if !self.operator.is_order() => {
                self.operator.holds(text.as_ref(), wanted.as_str())
            }
            // A number that stands in a text.
            (Wanted::Is(_, Some(wanted)), Value::Text(text)) => match Quantity::read(text) {
                Some(found) if found.of == wanted.of => self.operator.holds(&found.number, &wanted.number),
                _ => false,
            },
            (Wanted::Is(_, Some(wanted)), cell) => {
                beside(*wanted, cell, origin).is_some_and(|(found, wanted)| self.operator.holds(&found, &wanted))
            }
            (Wanted::Is(wanted, None), cell) => self.operator.holds(cell.shown(origin).as_str(), wanted.as_str()),
        }
    }
}

/// It leaves nothing out.
impl Default for RowFilter {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// The column whose name is being typed, as it is written in a condition.
pub(crate) fn begun(text: &str, columns: &[Head<'_>]) -> Option<String> {
    let text = text.trim().to_lowercase();
    let names = columns.iter().map(|column| column.name.to_lowercase().replace(' ', "_"));
    names.into_iter().find(|name| !text.is_empty() && name.starts_with(&text))
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

/// What is compared, if there is a name before the operator.
fn condition(part: &str) -> Option<Condition<'_>> {
    Condition::find(part).filter(|condition| !condition.field.is_empty())
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
            ("who ~ (", "no regular expression"),
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
            assert_eq!(Condition::split(text).as_ref(), Ok(&parts), "{text}");
        }
        assert!(Condition::split("who = 'x").is_err_and(|error| error.why.contains("not closed")));
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
            match Condition::split(&text) {
                // It reads one after the other, and stops at the first that is wrong.
                Err(error) => prop_assert!(error.why == theirs.why || theirs.term.len() < text.len()),
                Ok(parts) => prop_assert_eq!(parts[0], theirs.term.as_str()),
            }
        }

        #[test]
        fn what_a_cell_shows_can_be_typed(number: u32) {
            for cell in figures(number) {
                let shown = cell.shown(Nanos::ZERO);
                let quantity = Quantity::read(shown.trim_start_matches('>'));
                let (found, wanted) = quantity.and_then(|it| beside(it, &cell, Nanos::ZERO))
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
