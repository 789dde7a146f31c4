//! The language of conditions, whatever they are about: `p99 > 1ms and comm ~ '^nginx'`.

use std::fmt;

use regex::{Regex, RegexBuilder};

use super::{BadFilter, bad};

/// No line has more conditions.
pub(super) const MAX_TERMS: usize = 64;
/// No pattern is longer.
const MAX_PATTERN: usize = 1_000;
/// What a pattern may grow to: memory, and time to read it.
const MAX_PATTERN_BYTES: usize = 256 << 10;
/// How deep its brackets may go.
const MAX_PATTERN_DEPTH: u32 = 32;

/// How two values are compared.
///
/// ```
/// use schedtrace_core::Operator;
/// assert!(Operator::AtLeast.holds(&5, &5) && !Operator::Less.holds(&5, &5));
/// assert_eq!(Operator::AtLeast.to_string(), ">=");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`, `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `~`: a pattern is found in a text.
    Matches,
    /// `!~`
    MatchesNot,
}

/// Longer ones first: `>=` begins with `>`. Of those that mean the same, the one that is written first.
const OPERATORS: [(&str, Operator); 9] = [
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("!=", Operator::Unequal),
    ("!~", Operator::MatchesNot),
    ("==", Operator::Equal),
    ("~", Operator::Matches),
    (">", Operator::More),
    ("<", Operator::Less),
    ("=", Operator::Equal),
];

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().rev().find(|(_, operator)| operator == self);
        f.write_str(sign.map_or("", |(sign, _)| sign))
    }
}

impl Operator {
    /// Whether it holds between what was found and what is wanted; patterns hold between no two values.
    ///
    /// ```
    /// use schedtrace_core::Operator;
    /// assert!(Operator::Unequal.holds("bash", "nginx") && !Operator::Matches.holds("bash", "bash"));
    /// ```
    #[must_use]
    pub fn holds<T: PartialOrd + ?Sized>(self, found: &T, wanted: &T) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::Unequal => found != wanted,
            Self::Less => found < wanted,
            Self::AtMost => found <= wanted,
            Self::More => found > wanted,
            Self::AtLeast => found >= wanted,
            // They are not about order.
            Self::Matches | Self::MatchesNot => false,
        }
    }

    /// Whether it is about less and more: texts are not compared so.
    ///
    /// ```
    /// use schedtrace_core::Operator;
    /// assert!(Operator::Less.is_order() && !Operator::Equal.is_order());
    /// ```
    #[must_use]
    pub const fn is_order(self) -> bool {
        matches!(self, Self::Less | Self::AtMost | Self::More | Self::AtLeast)
    }

    /// Whether it looks for a pattern.
    ///
    /// ```
    /// assert!(schedtrace_core::Operator::MatchesNot.is_pattern());
    /// ```
    #[must_use]
    pub const fn is_pattern(self) -> bool {
        matches!(self, Self::Matches | Self::MatchesNot)
    }
}

/// A condition as it is written, of whatever has fields: an event, as in an [`EventFilter`](super::EventFilter), or the row of
/// a table.
///
/// ```
/// use schedtrace_core::{Condition, Operator};
/// let line = "p99 > 1ms and comm ~ 'a, b'";
/// let conditions: Vec<_> = Condition::split(line)?.into_iter().filter_map(Condition::find).collect();
/// assert_eq!((conditions[0].field, conditions[0].operator, conditions[0].value), ("p99", Operator::More, "1ms"));
/// assert_eq!(conditions[1].text(), Ok("a, b"));
/// # Ok::<(), schedtrace_core::BadFilter>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// What is compared.
    pub field: &'a str,
    /// How.
    pub operator: Operator,
    /// With what, as it is written: it may be in quotes.
    pub value: &'a str,
}

impl<'a> Condition<'a> {
    /// Cuts a line at each `and`, `&&` and comma; what stands in quotes is left alone.
    ///
    /// ```
    /// use schedtrace_core::Condition;
    /// assert_eq!(Condition::split("cpu = 1, comm = it's && tid > 4")?, ["cpu = 1", "comm = it's", "tid > 4"]);
    /// assert!(Condition::split("comm = 'x").is_err());
    /// # Ok::<(), schedtrace_core::BadFilter>(())
    /// ```
    ///
    /// # Errors
    /// If a quote is not closed, or if there are more than 64 conditions.
    pub fn split(line: &'a str) -> Result<Vec<&'a str>, BadFilter> {
        let (mut parts, mut rest) = (Vec::new(), Some(line));
        while let Some(text) = rest {
            let (part, after) = cut(text)?;
            if !part.trim().is_empty() {
                if parts.len() == MAX_TERMS {
                    return Err(too_many(text));
                }
                parts.push(part.trim());
            }
            rest = after;
        }
        Ok(parts)
    }

    /// Finds the first operator of a part of a line, and what stands on both sides of it. None where nothing is compared.
    ///
    /// ```
    /// use schedtrace_core::Condition;
    /// assert_eq!(Condition::find("nginx"), None);
    /// assert_eq!(Condition::find("x>=5").map(|condition| condition.value), Some("5"));
    /// ```
    #[must_use]
    pub fn find(part: &'a str) -> Option<Self> {
        let begins = |at: usize| OPERATORS.iter().find(|(sign, _)| part[at..].starts_with(sign));
        let (at, (sign, operator)) = part.char_indices().find_map(|(at, _)| Some((at, begins(at)?)))?;
        Some(Self { field: part[..at].trim(), operator: *operator, value: part[at + sign.len()..].trim() })
    }

    /// The value without the quotes around it.
    ///
    /// ```
    /// use schedtrace_core::Condition;
    /// assert_eq!(Condition::find("comm = \"a b\"").map(|condition| condition.text()), Some(Ok("a b")));
    /// ```
    ///
    /// # Errors
    /// Why the quotes are wrong.
    pub fn text(&self) -> Result<&'a str, String> {
        let Some(quote) = self.value.chars().next().filter(|c| ['\'', '"'].contains(c)) else { return Ok(self.value) };
        match self.value[1..].split_once(quote) {
            Some((value, "")) => Ok(value),
            Some((_, rest)) => Err(format!("what is `{}` behind the quotes?", rest.trim())),
            None => Err(format!("the quote {quote} is not closed")),
        }
    }
}

pub(super) fn too_many(text: &str) -> BadFilter {
    bad(text, format!("there are more than {MAX_TERMS} conditions"))
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

/// What is looked for in texts: a regular expression of bounded size. Looking takes time in proportion to the text, whatever
/// it asks for.
///
/// ```
/// use schedtrace_core::Pattern;
/// assert!(Pattern::read("^ngi")?.is_in("nginx") && !Pattern::read("^x")?.is_in("nginx"));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Reads it.
    ///
    /// ```
    /// use schedtrace_core::Pattern;
    /// assert!(Pattern::read("(").is_err_and(|why| why.contains("no regular expression")));
    /// ```
    ///
    /// # Errors
    /// Why it cannot be read, or that it asks for too much.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PATTERN {
            return Err(format!("a pattern has at most {MAX_PATTERN} bytes"));
        }
        let read = RegexBuilder::new(text)
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES)
            .nest_limit(MAX_PATTERN_DEPTH)
            .build();
        read.map(Self).map_err(|error| {
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

    /// Whether it is found in a text.
    ///
    /// ```
    /// use schedtrace_core::Pattern;
    /// assert!(Pattern::read("W")?.is_in("FWS"));
    /// # Ok::<(), String>(())
    /// ```
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// What a number is of.
///
/// ```
/// use schedtrace_core::{Quantity, Unit};
/// assert_eq!(Quantity::read("5%").map(|it| it.of), Some(Unit::Percent));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nothing was said.
    Plain,
    /// Of time: the number is in nanoseconds.
    Time,
    /// The number is in bytes.
    Bytes,
    /// The number is in percents.
    Percent,
}

/// How units are written, and what one of them is.
const UNITS: [(&str, i128, Unit); 19] = [
    ("ns", 1, Unit::Time),
    ("us", 1_000, Unit::Time),
    ("µs", 1_000, Unit::Time),
    ("ms", 1_000_000, Unit::Time),
    ("s", 1_000_000_000, Unit::Time),
    ("min", 60_000_000_000, Unit::Time),
    ("h", 3_600_000_000_000, Unit::Time),
    ("KiB", 1 << 10, Unit::Bytes),
    ("MiB", 1 << 20, Unit::Bytes),
    ("GiB", 1 << 30, Unit::Bytes),
    ("TiB", 1 << 40, Unit::Bytes),
    ("PiB", 1 << 50, Unit::Bytes),
    ("EiB", 1 << 60, Unit::Bytes),
    ("B", 1, Unit::Bytes),
    ("%", 1, Unit::Percent),
    ("k", 1_000, Unit::Plain),
    ("M", 1_000_000, Unit::Plain),
    ("G", 1_000_000_000, Unit::Plain),
    ("", 1, Unit::Plain),
];

/// Whole nanoseconds, microseconds, milliseconds, seconds: in these, a span of time can be asked for by the name of its field.
pub(super) fn of_field(name: &str) -> Option<(&str, i128)> {
    let (stem, unit) = name.rsplit_once('_')?;
    let (.., scale, _) = UNITS.iter().find(|(name, ..)| *name == unit && ["ns", "us", "ms", "s"].contains(name))?;
    Some((stem, *scale))
}

/// A whole number, in hexadecimal if it says so; one with a unit in nanoseconds or bytes.
pub(super) fn number(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(i128::from);
    }
    let plain = |text: &str| text.parse::<i64>().map(i128::from).or_else(|_| text.parse::<u64>().map(i128::from)).ok();
    let units = UNITS.iter().filter(|(.., of)| *of != Unit::Percent);
    units.into_iter().find_map(|(unit, scale, _)| Some(plain(text.strip_suffix(unit)?.trim_end())? * scale))
}

/// A number, which need not be whole, with what it is of.
///
/// ```
/// use schedtrace_core::{Quantity, Unit};
/// assert_eq!(Quantity::read("1.5ms"), Some(Quantity { number: 1_500_000.0, of: Unit::Time }));
/// assert_eq!(Quantity::read("2 KiB/s"), Some(Quantity { number: 2_048.0, of: Unit::Bytes }));
/// assert_eq!(Quantity::read("soon"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    /// How many: nanoseconds, bytes, percents, or of what nobody said.
    pub number: f64,
    /// Of what.
    pub of: Unit,
}

impl Quantity {
    /// Reads it: with a unit of time (`ns`, `us`, `ms`, `s`, `min`, `h`), of bytes (`B`, `KiB` ... `EiB`), `%`, `k`, `M` or
    /// `G`, or none. What is no time or share itself may be of a second: `/s`.
    ///
    /// ```
    /// use schedtrace_core::Quantity;
    /// assert_eq!(Quantity::read("19k/s").map(|it| it.number), Some(19_000.0));
    /// assert_eq!(Quantity::read("5ms/s"), None);
    /// ```
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite())?;
        // So much a second, of what is not a time or a share itself.
        let (unit, is_rate) = unit.trim().strip_suffix("/s").map_or((unit.trim(), false), |unit| (unit, true));
        let (_, scale, of) = UNITS.iter().find(|(name, ..)| *name == unit)?;
        if is_rate && !matches!(of, Unit::Bytes | Unit::Plain) {
            return None;
        }
        Some(Self { number: number * *scale as f64, of: *of })
    }

    /// A duration, in nanoseconds: one without a unit is none.
    ///
    /// ```
    /// use schedtrace_core::Quantity;
    /// assert_eq!(Quantity::read("2us").and_then(Quantity::time_ns), Some(2_000));
    /// assert_eq!(Quantity::read("2").and_then(Quantity::time_ns), None);
    /// ```
    #[must_use]
    pub fn time_ns(self) -> Option<u64> {
        (self.of == Unit::Time && (0.0..1e18).contains(&self.number)).then_some(self.number as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_the_units_of_quantities() {
        for (unit, scale, of) in UNITS {
            let text = format!("3{unit}");
            let whole = (of != Unit::Percent).then_some(3 * scale);
            assert_eq!((number(&text), number(&format!("3 {unit}"))), (whole, whole), "{text}");
            assert_eq!(Quantity::read(&text), Some(Quantity { number: 3.0 * scale as f64, of }), "{text}");
        }
        assert_eq!(["0x7f", "-5", "18446744073709551615"].map(number), [Some(127), Some(-5), Some((1 << 64) - 1)]);
        assert_eq!(["", "ms", "1.5ms", "5 parsec", "5%"].map(number), [None; 5]);
        assert_eq!(["duration_us", "wait_s"].map(of_field), [Some(("duration", 1_000)), Some(("wait", 1_000_000_000))]);
        assert_eq!(["size_KiB", "duration_", "duration", "x_min"].map(of_field), [None; 4]);
    }

    #[test]
    fn operators_are_written_as_they_are_read() {
        for (_, operator) in OPERATORS {
            let text = format!("x {operator} 'y'");
            let found = Condition::find(&text).unwrap();
            assert_eq!((found.field, found.operator, found.text()), ("x", operator, Ok("y")), "{text}");
        }
        assert_eq!(Condition::find("a=b>c").map(|found| (found.field, found.value)), Some(("a", "b>c")));
        assert_eq!(Condition::find("= 5").map(|found| found.field), Some(""));
        assert!(Condition::split(&"a = 1,".repeat(65)).is_err_and(|error| error.why.contains("more than 64")));
    }

    proptest! {
        #[test]
        fn any_text_is_cut_or_refused(text in "\\PC{0,60}", odd in "(x|'|\"|,|and| |&&|~|!|=|<|>|[0-9]|ms|µs|%|\\(|é){0,16}") {
            for text in [text, odd] {
                for part in Condition::split(&text).unwrap_or_default() {
                    if let Some(found) = Condition::find(part) {
                        let _ = (found.text(), number(found.value), Quantity::read(found.value), Pattern::read(found.value));
                    }
                }
            }
        }
    }
}
