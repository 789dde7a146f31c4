//! Why did the tasks of a recorded trace wait? Prints the report as JSON: `report DIR [BY [TOP]]`, where BY is task,
//! process, cgroup, cpu or llc.
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use schedtrace_core::analysis::{self, Options, Sched};
use schedtrace_core::trace::TraceReader;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let trace = arguments.next().ok_or("which trace? Name a folder that `schedtrace record -o` wrote")?;
    let by = arguments.next().map_or(Ok(analysis::GroupBy::default()), |by| by.parse())?;
    let top = arguments.next().map_or(Ok(20), |top| top.parse())?;
    let mut reader = TraceReader::open(trace)?;
    let report = analysis::run(&mut reader, Sched::new(Options { by, top, ..Options::default() }))?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
