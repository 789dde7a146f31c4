//! `schedtrace export`

use std::io::Write;
use std::path::{Path, PathBuf};

use schedtrace_core::export::csv::CsvWriter;
use schedtrace_core::export::perfetto::PerfettoWriter;
use schedtrace_core::trace::TraceReader;
use schedtrace_core::{Error, OnFull, Pipeline, Sink, Summary};

use crate::args::{ExportArgs, Format};
use crate::{Failure, units};

pub(crate) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let mut trace = TraceReader::open(&args.trace)?;
    let output = args.output.clone().unwrap_or_else(|| beside(&args.trace, args.to));
    if output.exists() && !args.force {
        let why = format!("{} exists already: give another file with -o, or --force", output.display());
        return Err(Error::Invalid(why).into());
    }
    let (summary, bytes) = match args.to {
        Format::Perfetto => {
            let mut writer = PerfettoWriter::create(&output)?;
            (feed(&mut trace, &mut writer)?, writer.bytes())
        }
        Format::Csv => {
            let mut writer = CsvWriter::create(&output)?;
            (feed(&mut trace, &mut writer)?, writer.bytes())
        }
    };
    let events = summary.total_events();
    let each = units::ratio(bytes, events);
    let what = units::plural(events, "event");
    writeln!(std::io::stderr(), "{what} to {}, {} ({each:.1} bytes per event)", output.display(), units::bytes(bytes))?;
    Ok(())
}

fn feed(trace: &mut TraceReader, sink: &mut (dyn Sink + Send)) -> Result<Summary, Error> {
    Pipeline::new().sink("export", OnFull::Block, sink).run(trace)?.into_result()
}

/// `run.schedtrace` becomes `run.pftrace`, here.
fn beside(trace: &Path, to: Format) -> PathBuf {
    let name = trace.file_stem().unwrap_or("trace".as_ref());
    Path::new(name).with_extension(to.extension())
}
