//! `schedtrace sql`

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use schedtrace_core::query::{self, Database, Format, Limits, Query, Rows, Value};
use schedtrace_core::{Error, Result};

use crate::Failure;
use crate::args::SqlArgs;
use crate::render::{Column, quiet, table, warning};
use crate::units::{count, plural};

#[cfg(feature = "live")]
mod live;
mod prompt;

/// So many rows a table has where nobody says how many.
const ROWS_OF_A_TABLE: u64 = 1_000;

pub(crate) fn run(args: &SqlArgs) -> Result<(), Failure> {
    let (traces, statement) = args.split();
    let statement = match (&args.file, statement) {
        (Some(_), Some(_)) => {
            return Err(Error::Invalid("give the statement, or a file with --file, and not both".into()).into());
        }
        (Some(file), None) => Some(read(file)?),
        (None, Some(statement)) => Some(statement.to_owned()),
        (None, None) => None,
    };
    let form = Form::new(args)?;
    let what = What::open(args, traces, form.limits(args), statement.is_some())?;
    match statement {
        Some(statement) => ask(&what.now()?, &args.query(&statement), &form),
        None if std::io::stdin().is_terminal() => prompt::run(&what, form),
        None => {
            let text = read("-".as_ref())?;
            let db = what.now()?;
            query::statements(&text).into_iter().try_for_each(|statement| ask(&db, &args.query(statement), &form))
        }
    }
}

/// What is asked.
#[derive(Debug)]
enum What {
    Traces(Database),
    #[cfg(feature = "live")]
    Live(live::Live, Limits),
}

impl What {
    /// Opens it; of the running machine, what was collected is complete if only one statement follows.
    fn open(args: &SqlArgs, traces: &[String], limits: Limits, once: bool) -> Result<Self> {
        #[cfg(feature = "live")]
        if let Some(duration) = args.live {
            if !traces.is_empty() {
                return Err(Error::Invalid("ask traces, or the running machine with --live, and not both".into()));
            }
            let mut live = live::Live::start(&args.collect, duration, limits.memory_bytes as u64)?;
            std::thread::sleep(duration);
            if once {
                live.stop()?;
            }
            return Ok(Self::Live(live, limits));
        }
        let _ = (args, once);
        Ok(Self::Traces(Database::open(query::find(traces)?)?.with_limits(limits)))
    }

    /// As it is now: traces are the same always, and of the running machine this is a moment.
    fn now(&self) -> Result<Database> {
        match self {
            Self::Traces(db) => Ok(db.clone()),
            #[cfg(feature = "live")]
            Self::Live(live, limits) => live.database(limits),
        }
    }
}

/// How answers are written, and where.
#[derive(Clone, Debug)]
struct Form {
    /// None for a table to read.
    format: Option<Format>,
    output: Option<PathBuf>,
}

impl Form {
    fn new(args: &SqlArgs) -> Result<Self> {
        let format = match &*args.format {
            "table" => None,
            name => Some(name.parse().map_err(|_| unknown_format(name))?),
        };
        if format == Some(Format::Parquet) && args.output.is_none() && std::io::stdout().is_terminal() {
            return Err(Error::Invalid("a Parquet file is not for a terminal: give a file with -o".into()));
        }
        if let Some(output) = args.output.as_ref().filter(|output| output.exists() && !args.force) {
            let why = format!("{} exists already: give another file with -o, or --force", output.display());
            return Err(Error::Invalid(why));
        }
        Ok(Self { format, output: args.output.clone() })
    }

    fn limits(&self, args: &SqlArgs) -> Limits {
        let mut limits = Limits::default();
        // A table is for eyes; whoever takes a file takes it whole.
        limits.rows = args.rows.or(self.format.is_none().then_some(ROWS_OF_A_TABLE));
        limits.time = args.timeout.unwrap_or(limits.time);
        limits.memory_bytes =
            args.memory.map_or(limits.memory_bytes, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
        limits.threads = args.threads.unwrap_or(limits.threads);
        limits
    }
}

fn unknown_format(name: &str) -> Error {
    Error::Invalid(format!("cannot write {name}: use one of table, {}", Format::ALL.map(|(name, _)| name).join(", ")))
}

/// Asks, and writes the answer.
fn ask(db: &Database, query: &Query, form: &Form) -> Result<(), Failure> {
    let began = Instant::now();
    let mut rows = db.query(query.clone())?;
    let Some(format) = form.format else {
        let (text, written) = as_table(&mut rows)?;
        match &form.output {
            Some(output) => create(output)?.write_all(text.as_bytes()).map_err(Error::io("cannot write", output))?,
            None => write!(std::io::stdout(), "{text}")?,
        }
        return told(&rows, db, written, began);
    };
    let written = match &form.output {
        Some(output) => rows.write(format, create(output)?)?,
        None => {
            let mut text = std::io::BufWriter::new(std::io::stdout());
            let written = rows.write(format, &mut text).map_err(Failure::of_output)?;
            if format == Format::Json {
                writeln!(text)?;
            }
            text.flush()?;
            written
        }
    };
    told(&rows, db, written, began)
}

/// How many rows there were, and how long it took, for whoever sits in front of it; and what must not be overlooked.
fn told(rows: &Rows, db: &Database, written: u64, began: Instant) -> Result<(), Failure> {
    let mut stderr = std::io::stderr();
    if rows.is_cut() {
        let limit = count(db.limits().rows.unwrap_or(0));
        writeln!(stderr, "{}", warning(&format!("only the first {limit} rows are shown: see --rows")))?;
    }
    if stderr.is_terminal() {
        writeln!(
            stderr,
            "{}",
            quiet(&format!("{} in {:.3} s", plural(written, "row"), began.elapsed().as_secs_f64()))
        )?;
    }
    Ok(())
}

/// The rows for eyes, and how many they are.
fn as_table(rows: &mut Rows) -> Result<(String, u64)> {
    let columns = rows.columns();
    let heads: Vec<Column<'_>> = columns
        .iter()
        .map(|(name, is_number)| if *is_number { Column::Number(name) } else { Column::Text(name) })
        .collect();
    let mut lines = Vec::new();
    for batch in rows {
        lines.extend(query::cells(&batch?)?);
    }
    let written = lines.len() as u64;
    Ok((table(&heads, lines), written))
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(Error::io("cannot create", path))
}

fn read(path: &Path) -> Result<String> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(Error::io("cannot read", path))?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(Error::io("cannot read", path))
}

impl SqlArgs {
    /// The traces, and the statement that may stand behind them: whatever is last and is no path. A statement has blanks,
    /// and what is both is taken for the path.
    fn split(&self) -> (&[String], Option<&str>) {
        match self.what.split_last() {
            Some((last, traces))
                if (!traces.is_empty() || self.is_live())
                    && last.contains(char::is_whitespace)
                    && !Path::new(last).exists() =>
            {
                (traces, Some(last))
            }
            _ => (&self.what, None),
        }
    }

    fn is_live(&self) -> bool {
        #[cfg(feature = "live")]
        return self.live.is_some();
        #[cfg(not(feature = "live"))]
        false
    }

    fn query(&self, statement: &str) -> Query {
        self.params.iter().fold(Query::new(statement), |query, (name, value)| query.with(name.clone(), value.clone()))
    }
}

/// `name=value`: a number, a text, `true`, `false` or `null`; a text that looks like one of these stands in quotes.
pub(crate) fn param(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is no NAME=VALUE"))?;
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    let value = match value {
        "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match (quoted('\'').or(quoted('"')), value.parse::<i64>(), value.parse::<f64>()) {
            (Some(text), ..) => Value::from(text),
            (None, Ok(number), _) => Value::Int(number),
            (None, _, Ok(number)) if number.is_finite() => Value::Float(number),
            _ => Value::from(value),
        },
    };
    Ok((name.trim_start_matches('$').to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_the_types_they_look_like() {
        assert_eq!(param("n=7"), Ok(("n".into(), Value::Int(7))));
        assert_eq!(param("$n=-7.5"), Ok(("n".into(), Value::Float(-7.5))));
        assert_eq!(param("comm='7'"), Ok(("comm".into(), Value::from("7"))));
        assert_eq!(param("comm=kworker/0:1=x"), Ok(("comm".into(), Value::from("kworker/0:1=x"))));
        assert_eq!(param("x=null"), Ok(("x".into(), Value::Null)));
        assert_eq!(param("x=nan"), Ok(("x".into(), Value::from("nan"))));
        assert!(param("x").is_err());
    }
}
