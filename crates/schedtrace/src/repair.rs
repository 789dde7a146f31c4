//! `schedtrace repair`, and what `record` does before it begins.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use schedtrace_core::trace::{self, Repair};
use serde::Serialize;

use crate::args::RepairArgs;
use crate::{FAILURE, Failure, complain, print_json, units};

#[derive(Serialize)]
struct Repaired<'a> {
    path: &'a Path,
    #[serde(flatten)]
    repair: Repair,
}

/// Each trace by itself: one that cannot be repaired does not keep the others from it.
pub(crate) fn run(args: &RepairArgs) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    let mut done = Vec::new();
    for path in &args.traces {
        match trace::repair(path) {
            Ok(repair) if args.json => done.push(Repaired { path, repair }),
            Ok(repair) => writeln!(std::io::stdout(), "{}", line(path, repair))?,
            Err(error) => code = complain(FAILURE, &error.to_string()),
        }
    }
    if args.json {
        print_json(&done)?;
    }
    Ok(code)
}

fn line(path: &Path, repair: Repair) -> String {
    let events = units::plural(repair.events, "event");
    match repair.repaired {
        true => format!("{}: repaired, {events} up to its last commit", path.display()),
        false => format!("{}: nothing to repair, {events}", path.display()),
    }
}

/// Recordings that were interrupted, here or beside it, are finished before the next one begins. One that cannot be is
/// left as it is.
#[cfg(feature = "live")]
pub(crate) fn left_over_beside(output: &Path) {
    let folder = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A folder that cannot be read will be told of when the trace is created in it.
    for path in trace::interrupted_in(folder).unwrap_or_default() {
        match trace::repair(&path) {
            Ok(repair) => eprintln!("{}", line(&path, repair)),
            Err(error) => eprintln!("schedtrace: left as it is: {error}"),
        }
    }
}
