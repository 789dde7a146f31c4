//! Asks in SQL, as `schedtrace sql` does: a trace, or what is kept of the last seconds.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use schedtrace_core::{Nanos, Result, Window};

use crate::origin::Store;
use crate::sheet::Sheet;

/// A table that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// What a row is.
    pub(crate) about: String,
    pub(crate) columns: Vec<String>,
}

/// Rows, and a sentence about them.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) sheet: Sheet,
    pub(crate) told: String,
}

/// What is asked.
#[cfg_attr(not(feature = "sql"), allow(dead_code, reason = "nobody answers it"))]
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) sql: String,
    /// The time that is selected: `$from` and `$until`.
    pub(crate) window: Window,
    /// When the recording began.
    pub(crate) started: Nanos,
}

/// Why nothing can be asked, if this program was made so.
#[cfg(not(feature = "sql"))]
pub(crate) const WITHOUT: Option<&str> = Some(
    "built without SQL: a schedtrace with the feature `sql`, as by default, has it; so has DuckDB, of a trace's files",
);
#[cfg(feature = "sql")]
pub(crate) const WITHOUT: Option<&str> = None;

#[cfg(feature = "sql")]
pub(crate) use with::{answer, tables};

#[cfg(not(feature = "sql"))]
pub(crate) fn answer(_: &Store, _: &Question, _: Arc<AtomicBool>) -> Result<Answer> {
    Err(schedtrace_core::Error::Invalid(WITHOUT.unwrap_or_default().to_owned()))
}

/// What stands in statements beside names.
#[cfg(feature = "sql")]
pub(crate) use schedtrace_core::query::WORDS;
#[cfg(not(feature = "sql"))]
pub(crate) const WORDS: [&str; 0] = [];

#[cfg(not(feature = "sql"))]
pub(crate) fn tables() -> Vec<Table> {
    Vec::new()
}

#[cfg(feature = "sql")]
mod with {
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use schedtrace_core::query::{self, Database, Limits, Query, Rows};
    use schedtrace_core::{Cpu, Error};

    use super::*;
    use crate::sheet::{Columns, Made, Row, Target, Value};

    /// So many rows are taken at most.
    const ROWS: u64 = 10_000;
    /// So long a query works at most.
    const TIME: Duration = Duration::from_secs(60);
    /// So much memory a query takes at most, beside its rows.
    const MEMORY_BYTES: usize = 512 << 20;
    /// And so much its rows.
    const ROWS_BYTES: usize = 64 << 20;
    /// A column is as wide as most of its texts, within these.
    const WIDTHS: std::ops::RangeInclusive<usize> = 5..=44;

    pub(crate) fn tables() -> Vec<Table> {
        let table = |doc: query::TableDoc| Table {
            name: doc.name,
            about: doc.about,
            columns: doc.columns.into_iter().map(|column| column.name).collect(),
        };
        query::tables().into_iter().map(table).collect()
    }

    fn database(store: &Store) -> Result<Database> {
        let db = match store {
            Store::Trace(path, _) => Database::open([path])?,
            Store::Live(kept) => {
                let snapshot = kept.snapshot();
                Database::of_stream("live", move || Ok(Box::new(snapshot.source())))?
            }
        };
        // The screen is to go on being drawn meanwhile, and what is recorded to be read.
        let threads = std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2));
        let limits = Limits { rows: Some(ROWS), time: TIME, memory_bytes: MEMORY_BYTES, threads, ..Limits::default() };
        Ok(db.with_limits(limits))
    }

    fn query_of(question: &Question) -> Result<Query> {
        let statement = match query::statements(&question.sql)[..] {
            [one] => one,
            [] => return Err(Error::Invalid("there is no statement".into())),
            _ => return Err(Error::Invalid("one statement at a time, please".into())),
        };
        let edges = [("from", question.window.from_ns), ("until", question.window.until_ns)];
        // Values that nobody asks for are in the way of those with numbers.
        let wanted = edges.into_iter().filter(|(name, _)| statement.contains(&format!("${name}")));
        let number = |at: Nanos| i64::try_from(at.0).unwrap_or(i64::MAX);
        Ok(wanted.fold(Query::new(statement), |query, (name, at)| query.with(name, number(at))))
    }

    pub(crate) fn answer(store: &Store, question: &Question, cancelled: Arc<AtomicBool>) -> Result<Answer> {
        let began = Instant::now();
        let query = query_of(question)?;
        let mut rows = database(store)?.query_unless(query, move || cancelled.load(Ordering::Relaxed))?;
        let columns = rows.columns();
        let (read, is_whole) = read(&mut rows, &columns)?;
        let (count, seconds) = (read.len(), began.elapsed().as_secs_f64());
        let cut = match (rows.is_cut(), is_whole) {
            (_, false) => ", and more that would take too much memory",
            (true, _) => ", and more: `limit` or `where` chooses them",
            _ => "",
        };
        let told = format!("{count} row{} in {seconds:.3} s{cut}", if count == 1 { "" } else { "s" });
        let made = made(&columns, &read, question.started);
        let sheet = Sheet::new(question.sql.clone(), Columns::Made(made.into()), read);
        Ok(Answer { sheet: sheet.or("no row is such a one"), told })
    }

    /// The rows, and whether these are all that came.
    fn read(rows: &mut Rows, columns: &[(String, bool)]) -> Result<(Vec<Row>, bool)> {
        let (mut read, mut bytes) = (Vec::new(), 0_usize);
        let places = Places::of(columns);
        for batch in rows.by_ref() {
            let batch = batch?;
            for (at, cells) in query::cells(&batch)?.into_iter().enumerate() {
                bytes += cells.iter().map(|cell| cell.len() + size_of::<Value>()).sum::<usize>();
                if bytes > ROWS_BYTES {
                    return Ok((read, false));
                }
                let cells = cells.into_iter().zip(columns).enumerate().map(|(column, (text, (name, is_number)))| {
                    if batch.column(column).is_null(at) { Value::None } else { value(name, *is_number, text) }
                });
                let cells: Vec<Value> = cells.collect();
                read.push(Row { target: places.target(&cells, read.len()), depth: 0, cells });
            }
        }
        Ok((read, true))
    }

    /// Durations read as everywhere else; times stay as they are, since statements name them so.
    fn value(name: &str, is_number: bool, text: String) -> Value {
        let is_duration = name == "dur" || name.ends_with("_ns") && !name.starts_with("ts");
        match (is_number, text.parse::<i64>(), text.parse::<f64>()) {
            (true, Ok(ns @ 0..), _) if is_duration => Value::Time(ns.unsigned_abs()),
            (true, Ok(number), _) => Value::Int(number),
            (true, _, Ok(number)) => Value::Float(number),
            _ => Value::text(text),
        }
    }

    /// In which columns it stands when and to whom something happened.
    struct Places {
        ts: Option<usize>,
        dur: Option<usize>,
        tid: Option<usize>,
        cpu: Option<usize>,
    }

    impl Places {
        fn of(columns: &[(String, bool)]) -> Self {
            let at =
                |names: &[&str]| columns.iter().position(|(name, number)| *number && names.contains(&name.as_str()));
            Self { ts: at(&["ts", "ts_ns"]), dur: at(&["dur"]), tid: at(&["tid"]), cpu: at(&["cpu"]) }
        }

        fn target(&self, cells: &[Value], row: usize) -> Target {
            let number = |at: Option<usize>| match cells.get(at?)? {
                Value::Int(number) => u64::try_from(*number).ok(),
                Value::Time(ns) => Some(*ns),
                _ => None,
            };
            let small = |at| number(at).and_then(|number| u32::try_from(number).ok());
            let Some(from) = number(self.ts).map(Nanos) else { return Target::Named(row.to_string()) };
            let until = from + Nanos(number(self.dur).unwrap_or(0));
            let cpu = number(self.cpu).and_then(|cpu| u16::try_from(cpu).ok()).map(Cpu);
            Target::Moment { from, until, tid: small(self.tid).filter(|tid| *tid > 0), cpu }
        }
    }

    fn made(columns: &[(String, bool)], rows: &[Row], started: Nanos) -> Vec<Made> {
        let last = columns.len().saturating_sub(1);
        let column = |(at, (name, is_number)): (usize, &(String, bool))| {
            let texts = rows.iter().take(200).filter_map(|row| Some(row.cells.get(at)?.shown(started).chars().count()));
            // The sign of the order stands behind the name.
            let width = texts.max().unwrap_or(0).max(name.chars().count() + 1);
            let width = width.clamp(*WIDTHS.start(), *WIDTHS.end());
            let is_rest = at == last && !is_number;
            let about = if *is_number { "A number of the answer." } else { "A text of the answer." };
            Made { name: name.clone(), about: about.to_owned(), width: if is_rest { 0 } else { width as u16 } }
        };
        columns.iter().enumerate().map(column).collect()
    }
}
