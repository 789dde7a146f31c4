//! `schedtrace export`

#[cfg(feature = "sql")]
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
#[cfg(feature = "sql")]
use std::time::Duration;

use schedtrace_core::export::csv::CsvWriter;
use schedtrace_core::export::perfetto::PerfettoWriter;
#[cfg(feature = "sql")]
use schedtrace_core::query::{self, Database, Limits, Query, TableKind};
use schedtrace_core::trace::TraceReader;
use schedtrace_core::{Error, Filtered, OnFull, Pipeline, Sink};

use crate::args::{ExportArgs, Format};
use crate::{Failure, units};

pub(crate) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let mut trace = TraceReader::open(&args.trace)?;
    let output = args.output.clone().unwrap_or_else(|| beside(&args.trace, args.to));
    if output.exists() && !args.force {
        let why = format!("{} exists already: give another name with -o, or --force", output.display());
        return Err(Error::Invalid(why).into());
    }
    let (events, bytes) = match args.to {
        Format::Perfetto => {
            let (events, writer) = feed(args, &mut trace, PerfettoWriter::create(&output)?)?;
            (events, writer.bytes())
        }
        Format::Csv => {
            let (events, writer) = feed(args, &mut trace, CsvWriter::create(&output)?)?;
            (events, writer.bytes())
        }
        #[cfg(feature = "sql")]
        Format::Parquet => return tables(args, &output),
    };
    let each = units::ratio(bytes, events);
    let what = units::plural(events, "event");
    writeln!(std::io::stderr(), "{what} to {}, {} ({each:.1} bytes per event)", output.display(), units::bytes(bytes))?;
    Ok(())
}

/// Writes the derived tables, a file for each.
#[cfg(feature = "sql")]
fn tables(args: &ExportArgs, folder: &Path) -> Result<(), Failure> {
    if args.filter.is_some() {
        let why =
            "conditions hold for events, and tables are made of all of them: use `schedtrace sql ... --format parquet`";
        return Err(Error::Invalid(why.into()).into());
    }
    let db = Database::open([&args.trace])?;
    // However long it takes: nothing is sorted or grouped.
    let db = db.with_limits(Limits { time: Duration::MAX, ..Limits::default() });
    std::fs::create_dir_all(folder).map_err(Error::io("cannot create", folder))?;
    for table in db.tables().into_iter().filter(|table| table.kind == TableKind::Derived) {
        let path = folder.join(&table.name).with_extension("parquet");
        let file = File::create(&path).map_err(Error::io("cannot create", &path))?;
        let rows =
            db.query(Query::new(format!("select * from {}", table.name)))?.write(query::Format::Parquet, file)?;
        writeln!(std::io::stderr(), "{} to {}", units::plural(rows, "row"), path.display())?;
    }
    Ok(())
}

/// Writes what is wanted of a trace; returns how many events that was.
fn feed<S: Sink + Send>(args: &ExportArgs, trace: &mut TraceReader, mut sink: S) -> Result<(u64, S), Error> {
    let Some(filter) = args.filter.clone() else {
        let summary = Pipeline::new().sink("export", OnFull::Block, &mut sink).run(trace)?.into_result()?;
        return Ok((summary.total_events(), sink));
    };
    let mut some = Filtered::new(filter, sink);
    Pipeline::new().sink("export", OnFull::Block, &mut some).run(trace)?.into_result()?;
    Ok((some.events(), some.into_inner()))
}

/// `run.schedtrace` becomes `run.pftrace`, here.
fn beside(trace: &Path, to: Format) -> PathBuf {
    let name = trace.file_stem().unwrap_or("trace".as_ref());
    Path::new(name).with_extension(to.extension())
}
