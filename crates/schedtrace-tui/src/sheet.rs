//! Tables as data: columns, rows, and values that know how they compare and how they read. What draws, sorts, filters and
//! exports them stands elsewhere, once for all views.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use schedtrace_core::analysis::{Completeness, CpuUse, Group, Subject, Summary, WaitCounts, Who};
use schedtrace_core::{Cpu, Nanos};
use serde_json::json;

/// A figure or a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Value {
    /// There is none.
    #[default]
    None,
    Count(u64),
    /// How long somebody waited, or something took that should not.
    Time(u64),
    /// A duration that is none of these: it is good or bad at no length.
    Lasted(u64),
    /// A duration whose end is not known.
    AtLeast(u64),
    /// A moment, told from the beginning of the recording.
    Moment(Nanos),
    /// A share: 0 to 1.
    Ratio(f64),
    /// A share that may be larger: not all is known.
    RatioAtLeast(f64),
    /// So many a second.
    Rate(f64),
    Bytes(u64),
    /// So many bytes a second.
    ByteRate(f64),
    Number(f64),
    /// As it is, without a unit.
    Int(i64),
    /// The same, to its last digit.
    #[cfg_attr(not(feature = "sql"), allow(dead_code, reason = "only answers in SQL have them"))]
    Float(f64),
    Text(Cow<'static, str>),
}

impl Value {
    /// Quantiles mean nothing where nothing was measured.
    pub(crate) fn of(summary: &Summary, figure: fn(&Summary) -> u64) -> Self {
        if summary.count == 0 { Self::None } else { Self::Time(figure(summary)) }
    }

    /// All waits together, those too whose end or beginning is not known.
    pub(crate) fn waited(over: &Summary, open: [&WaitCounts; 2]) -> Self {
        match open.iter().map(|counts| counts.wait_ns).sum::<u64>() {
            0 => Self::Time(over.total_ns),
            more => Self::AtLeast(over.total_ns.saturating_add(more)),
        }
    }

    /// The longest of all waits, those too whose end or beginning is not known: what goes on may have gone on longest.
    pub(crate) fn longest(over: &Summary, open: [&WaitCounts; 2]) -> Self {
        let longest = open.iter().map(|counts| counts.longest_ns).max().unwrap_or(0);
        if longest > over.max_ns { Self::AtLeast(longest) } else { Self::of(over, |over| over.max_ns) }
    }

    /// How busy a CPU was, as far as that is known.
    pub(crate) fn busy(used: &CpuUse) -> Self {
        match unknown_share(used) {
            unknown if unknown >= 1.0 => Self::None,
            // As much as the figure shows.
            unknown if unknown >= 0.000_5 => Self::RatioAtLeast(used.utilisation_ratio),
            _ => Self::Ratio(used.utilisation_ratio),
        }
    }

    pub(crate) fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Text(text.into())
    }

    /// As it reads, where a recording began at `origin`.
    pub(crate) fn shown(&self, origin: Nanos) -> String {
        match self {
            Self::None => "-".to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Time(ns) | Self::Lasted(ns) => Nanos(*ns).to_string(),
            Self::AtLeast(ns) => format!(">{}", Nanos(*ns)),
            Self::Moment(at) => format!("{:.6}", (*at - origin).0 as f64 / 1e9),
            Self::RatioAtLeast(ratio) => format!(">{:.1}%", ratio * 100.0),
            Self::Ratio(ratio) => format!("{:.1}%", ratio * 100.0),
            Self::Rate(rate) => format!("{}/s", short(*rate)),
            Self::Bytes(bytes) => bytes_of(*bytes),
            Self::ByteRate(rate) => format!("{}/s", bytes_of(*rate as u64)),
            Self::Number(number) => format!("{number:.2}"),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) => printable(text),
        }
    }

    /// As programs read it: nanoseconds, bytes, ratios.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Count(n) | Self::Time(n) | Self::Lasted(n) | Self::AtLeast(n) | Self::Bytes(n) => json!(n),
            Self::Moment(at) => json!(at),
            Self::Ratio(number)
            | Self::RatioAtLeast(number)
            | Self::Rate(number)
            | Self::ByteRate(number)
            | Self::Number(number)
            | Self::Float(number) => json!(number),
            Self::Int(number) => json!(number),
            Self::Text(text) => json!(text),
        }
    }

    /// Figures stand at the right.
    pub(crate) fn is_figure(&self) -> bool {
        !matches!(self, Self::Text(_))
    }

    /// In nanoseconds, bytes, or as a ratio.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::None | Self::Text(_) => None,
            Self::Count(n) | Self::Time(n) | Self::Lasted(n) | Self::AtLeast(n) | Self::Bytes(n) => Some(*n as f64),
            Self::Moment(at) => Some(at.0 as f64),
            Self::Int(number) => Some(*number as f64),
            Self::Ratio(number)
            | Self::RatioAtLeast(number)
            | Self::Rate(number)
            | Self::ByteRate(number)
            | Self::Number(number)
            | Self::Float(number) => Some(*number),
        }
    }

    /// By what it is sorted: worked out once for each, however often it is compared.
    pub(crate) fn key(&self) -> Key {
        let key = |number: f64, exact: i128| {
            // As `f64::total_cmp` orders them.
            let bits = number.to_bits().cast_signed();
            Key::Number(bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed(), exact)
        };
        match self {
            Self::None => Key::None,
            Self::Text(text) => Key::Text(natural(text)),
            // Numbers that are one and the same as an `f64` are still told apart.
            Self::Count(n) | Self::Time(n) | Self::Lasted(n) | Self::AtLeast(n) | Self::Bytes(n) => {
                key(*n as f64, (*n).into())
            }
            Self::Int(n) => key(*n as f64, (*n).into()),
            Self::Moment(at) => key(at.0 as f64, at.0.into()),
            Self::Ratio(n)
            | Self::RatioAtLeast(n)
            | Self::Rate(n)
            | Self::ByteRate(n)
            | Self::Number(n)
            | Self::Float(n) => key(*n, *n as i128),
        }
    }

    /// What is not there is less than all that is; texts are less than figures.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// By what a value is sorted: first by what it is, then by how much.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    None,
    Text(Vec<u8>),
    Number(i64, i128),
}

/// A text, so that its bytes sort as one reads it: whatever the case, and `CPU 2` before `CPU 10`.
fn natural(text: &str) -> Vec<u8> {
    let lower = text.to_lowercase();
    let (mut key, mut left) = (Vec::with_capacity(lower.len()), lower.as_bytes());
    while let Some(first) = left.first() {
        let digits = left.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (run, rest) = left.split_at(digits.max(1));
        if digits > 0 {
            // A number that has more digits is larger: their count comes before them.
            let zeros = run.iter().take_while(|byte| **byte == b'0').count();
            key.push(b'0');
            key.extend(((digits - zeros) as u64).to_be_bytes());
            key.extend(&run[zeros..]);
        } else {
            key.push(*first);
        }
        left = rest;
    }
    key
}

/// For which share of the time it is not known what a CPU did.
pub(crate) fn unknown_share(used: &CpuUse) -> f64 {
    let all = used.busy_ns.saturating_add(used.idle_ns).saturating_add(used.unknown_ns);
    used.unknown_ns as f64 / all.max(1) as f64
}

/// Three digits with the letter of a power of a thousand.
pub(crate) fn short(number: f64) -> String {
    let (value, letter) = match number.abs() {
        n if n >= 999_500_000.0 => (number / 1e9, "G"),
        n if n >= 999_500.0 => (number / 1e6, "M"),
        n if n >= 9_995.0 => (number / 1e3, "k"),
        n if n < 10.0 && n.fract() != 0.0 => return format!("{number:.1}"),
        _ => return format!("{number:.0}"),
    };
    format!("{value:.*}{letter}", if value.abs() < 9.95 { 1 } else { 0 })
}

/// In powers of 1,024.
pub(crate) fn bytes_of(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut at) = (bytes as f64, 0);
    while value >= 1023.5 && at + 1 < units.len() {
        (value, at) = (value / 1024.0, at + 1);
    }
    format!("{value:.*} {}", if at > 0 && value < 9.95 { 1 } else { 0 }, units[at])
}

/// What stands in a name or a path may have been chosen by anybody.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_unseen(c) { '?' } else { c }).collect()
}

/// Takes no room, or turns round what follows: a name could pass for another.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What a row is about: where one can go from there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// Nothing that has a view of its own; rows are told apart by this text.
    #[default]
    Nothing,
    Named(String),
    Thread {
        tid: u32,
        pid: u32,
    },
    Process(u32),
    Cpu(Cpu),
    /// Something that happened to somebody at a time.
    Moment {
        from: Nanos,
        until: Nanos,
        tid: Option<u32>,
        cpu: Option<Cpu>,
    },
}

impl Target {
    pub(crate) fn of(group: &Group) -> Self {
        match group {
            Group::Task(who) => Self::who(who),
            Group::Process { pid, .. } => Self::Process(*pid),
            Group::Cpu { cpu } => Self::Cpu(*cpu),
            other => Self::Named(other.to_string()),
        }
    }

    pub(crate) fn who(who: &Who) -> Self {
        if who.tid == 0 { Self::Nothing } else { Self::Thread { tid: who.tid, pid: who.pid } }
    }

    /// Whose time can be explained.
    pub(crate) fn subject(&self) -> Option<Subject> {
        match self {
            Self::Thread { tid, .. } | Self::Moment { tid: Some(tid), .. } => Some(Subject::Thread(*tid)),
            Self::Process(pid) => Some(Subject::Process(*pid)),
            _ => None,
        }
    }
}

/// What stands above a column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    /// In capitals, as it stands above.
    pub(crate) name: &'a str,
    /// What it tells, in a sentence.
    pub(crate) about: &'a str,
    /// So many characters; 0 for all that is left.
    pub(crate) width: u16,
    /// Where there is no room for all, those of the highest number go first.
    pub(crate) rank: u8,
}

/// A column of a view.
pub(crate) type Column = Head<'static>;

/// A column that was asked for: nobody knew of it before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) width: u16,
}

/// The columns of a table.
#[derive(Clone, Debug)]
pub(crate) enum Columns {
    Fixed(&'static [Column]),
    #[cfg_attr(not(feature = "sql"), allow(dead_code, reason = "only answers in SQL have them"))]
    Made(Arc<[Made]>),
}

impl Default for Columns {
    fn default() -> Self {
        Self::Fixed(&[])
    }
}

impl From<&'static [Column]> for Columns {
    fn from(fixed: &'static [Column]) -> Self {
        Self::Fixed(fixed)
    }
}

impl Columns {
    /// All, in their order. Those that were asked for go from the right where there is no room.
    pub(crate) fn heads(&self) -> Vec<Head<'_>> {
        match self {
            Self::Fixed(fixed) => fixed.to_vec(),
            Self::Made(made) => {
                let rank = |at: usize| u8::try_from(at).unwrap_or(u8::MAX);
                let heads = made.iter().enumerate();
                heads
                    .map(|(at, it)| Head { name: &it.name, about: &it.about, width: it.width, rank: rank(at) })
                    .collect()
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Fixed(fixed) => fixed.len(),
            Self::Made(made) => made.len(),
        }
    }

    pub(crate) fn name(&self, at: usize) -> Option<&str> {
        match self {
            Self::Fixed(fixed) => fixed.get(at).map(|column| column.name),
            Self::Made(made) => made.get(at).map(|column| column.name.as_str()),
        }
    }
}

/// A row: its values in the order of the columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) target: Target,
    /// How deep it stands in a tree.
    pub(crate) depth: u8,
    pub(crate) cells: Vec<Value>,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) title: String,
    pub(crate) columns: Columns,
    pub(crate) rows: Vec<Row>,
    /// How many rows there are, of which these may be the first.
    pub(crate) total: usize,
    /// What to do where there is no row.
    pub(crate) empty: Cow<'static, str>,
    /// What stands below a row is hidden until it is opened.
    pub(crate) folds: bool,
    /// A text for which there is no room goes on below, in the column that takes what is left.
    pub(crate) wraps: bool,
    /// Rows come at its end: who looks at the last one goes on to do so.
    pub(crate) newest_last: bool,
}

/// Where nobody said why there is no row.
const NOTHING: &str = "nothing here";

impl Sheet {
    pub(crate) fn new(title: impl Into<String>, columns: impl Into<Columns>, rows: Vec<Row>) -> Self {
        let (total, columns) = (rows.len(), columns.into());
        Self {
            title: title.into(),
            columns,
            rows,
            total,
            empty: NOTHING.into(),
            folds: false,
            wraps: false,
            newest_last: false,
        }
    }

    pub(crate) fn of(mut self, total: usize) -> Self {
        self.total = total;
        self
    }

    pub(crate) fn or(mut self, empty: impl Into<Cow<'static, str>>) -> Self {
        self.empty = empty.into();
        self
    }

    /// As [`or`](Self::or), unless there is another reason already.
    pub(crate) fn or_if_empty(self, empty: impl Into<Cow<'static, str>>) -> Self {
        if self.empty == NOTHING { self.or(empty) } else { self }
    }

    /// Says so where the threads of the recorder are in none of the rows: what it took is in the figures of CPUs all the same.
    pub(crate) fn said_without_recorder(mut self, about: &Completeness) -> Self {
        if about.recorder_left_out {
            self.title += ", without the recorder";
        }
        self
    }

    /// Then only those are counted that stand below no other; how many of these there are is said after it.
    pub(crate) fn folded(mut self) -> Self {
        self.folds = true;
        self.total = self.rows.iter().filter(|row| row.depth == 0).count();
        self
    }

    /// Shows all of its texts, on as many lines as they take.
    pub(crate) fn wrapped(mut self) -> Self {
        self.wraps = true;
        self
    }

    pub(crate) fn newest_last(mut self) -> Self {
        self.newest_last = true;
        self
    }

    /// As JSON: an object for each row.
    pub(crate) fn json(&self) -> serde_json::Value {
        let heads = self.columns.heads();
        let row = |row: &Row| {
            let cells = heads.iter().zip(&row.cells);
            let cells = cells.map(|(column, cell)| (column.name.to_lowercase().replace(' ', "_"), cell.json()));
            serde_json::Value::Object(cells.collect())
        };
        json!({ "title": self.title, "total": self.total, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }

    /// As a table of Markdown.
    pub(crate) fn markdown(&self, origin: Nanos) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let heads = self.columns.heads();
        let mut text = line(heads.iter().map(|column| column.name.replace('|', "\\|")).collect());
        text += &line(heads.iter().map(|_| "---".to_owned()).collect());
        for row in &self.rows {
            text += &line(row.cells.iter().map(|cell| cell.shown(origin).replace('|', "\\|")).collect());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::None),
            "[a-bA-B]{0,2}[0-9]{0,3}".prop_map(Value::text),
            any::<u64>().prop_map(Value::Count),
            (0..4_u64).prop_map(|by| Value::Time((1 << 60) + by)),
            (0..4_i64).prop_map(|by| Value::Int((1 << 60) + by)),
            any::<f64>().prop_map(Value::Float),
            Just(Value::Float((1_u64 << 60) as f64)),
        ]
    }

    proptest! {
        #[test]
        fn values_have_one_order(a in value(), b in value(), c in value()) {
            prop_assert_eq!(a.compare(&b), b.compare(&a).reverse());
            prop_assert_eq!(a.compare(&a), Ordering::Equal);
            if a.compare(&b).is_le() && b.compare(&c).is_le() {
                prop_assert!(a.compare(&c).is_le());
                let all_equal = a.compare(&b).is_eq() && b.compare(&c).is_eq();
                prop_assert_eq!(a.compare(&c).is_eq(), all_equal);
            }
        }
    }

    #[test]
    fn what_is_not_over_may_be_the_longest() {
        let over = Summary { count: 2, max_ns: 50, ..Summary::default() };
        let open = |waits, longest_ns| WaitCounts { waits, wait_ns: longest_ns, longest_ns };
        assert_eq!(Value::longest(&over, [&open(0, 0), &open(0, 0)]), Value::Time(50));
        assert_eq!(Value::longest(&over, [&open(1, 40), &open(0, 0)]), Value::Time(50));
        assert_eq!(Value::longest(&over, [&open(1, 40), &open(1, 60)]), Value::AtLeast(60));
        assert_eq!(Value::longest(&Summary::default(), [&open(1, 70), &open(0, 0)]), Value::AtLeast(70));
        assert_eq!(Value::longest(&Summary::default(), [&open(0, 0), &open(0, 0)]), Value::None);
    }

    #[test]
    fn a_cpu_of_which_not_all_is_known_was_at_least_so_busy() {
        let used = |busy_ns, idle_ns, unknown_ns| CpuUse {
            busy_ns,
            idle_ns,
            unknown_ns,
            in_loss_ns: 0,
            utilisation_ratio: busy_ns as f64 / 1000.0,
        };
        let shown = |used: &CpuUse| Value::busy(used).shown(Nanos::ZERO);
        assert_eq!(shown(&used(250, 750, 0)), "25.0%");
        assert_eq!(shown(&used(250, 700, 50)), ">25.0%");
        assert_eq!(shown(&used(0, 0, 1000)), "-");
    }

    #[test]
    fn names_can_be_seen_as_they_are() {
        assert_eq!(printable("a\u{202e}b\u{200b}c\u{feff}\u{2066}\u{1b}"), "a?b?c???");
        assert_eq!(printable("caf\u{e9} \u{732b}"), "caf\u{e9} \u{732b}");
    }

    #[test]
    fn numbers_in_texts_are_numbers() {
        let mut texts =
            ["irq 10 b", "comm[100]", "irq 9 b", "Comm[9]", "irq 9 a", "irq 010 a", "", "9"].map(Value::text);
        texts.sort_by(Value::compare);
        let read = ["", "9", "Comm[9]", "comm[100]", "irq 9 a", "irq 9 b", "irq 010 a", "irq 10 b"].map(Value::text);
        assert_eq!(texts, read);
    }

    #[test]
    fn figures_have_three_digits() {
        for (number, told) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (999.0, "999"),
            (9_994.0, "9994"),
            (10_000.0, "10k"),
            (999_600.0, "1.0M"),
            (2.5e9, "2.5G"),
        ] {
            assert_eq!(short(number), told, "{number}");
        }
        for (bytes, told) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (u64::MAX, "16 EiB")]
        {
            assert_eq!(bytes_of(bytes), told, "{bytes}");
        }
    }

    #[test]
    fn what_is_not_there_comes_last_when_the_largest_comes_first() {
        let mut values = [Value::None, Value::Time(3), Value::AtLeast(9), Value::Time(5)];
        values.sort_by(|a, b| b.compare(a));
        assert_eq!(values, [Value::AtLeast(9), Value::Time(5), Value::Time(3), Value::None]);
        assert_eq!(Value::text("b").compare(&Value::text("A")), Ordering::Greater);
    }
}
