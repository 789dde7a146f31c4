//! `schedtrace export`

use std::io::Write;
use std::path::{Path, PathBuf};

use schedtrace_core::export::csv::CsvWriter;
use schedtrace_core::export::perfetto::PerfettoWriter;
use schedtrace_core::trace::TraceReader;
use schedtrace_core::{Error, Filtered, OnFull, Pipeline, Sink};

use crate::args::{ExportArgs, Format};
use crate::{Failure, units};

pub(crate) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let mut trace = TraceReader::open(&args.trace)?;
    let output = args.output.clone().unwrap_or_else(|| beside(&args.trace, args.to));
    if output.exists() && !args.force {
        let why = format!("{} exists already: give another file with -o, or --force", output.display());
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
    };
    let each = units::ratio(bytes, events);
    let what = units::plural(events, "event");
    writeln!(std::io::stderr(), "{what} to {}, {} ({each:.1} bytes per event)", output.display(), units::bytes(bytes))?;
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
