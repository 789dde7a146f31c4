//! Shows why tasks waited, from a trace, on a terminal.
#![allow(clippy::print_stderr, reason = "a command says on standard error why it failed")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use schedtrace_tui::{Quit, Recorded, check_terminal, show};

/// Shows why tasks waited for a CPU, from a trace that `schedtrace record` wrote. `schedtrace top` does the same, and
/// shows the running machine too.
#[derive(Parser)]
#[command(name = "schedtrace-tui", version)]
struct Args {
    /// Directory of the trace.
    trace: PathBuf,
}

fn main() -> ExitCode {
    match view(&Args::parse().trace) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schedtrace-tui: {error}");
            ExitCode::FAILURE
        }
    }
}

fn view(trace: &Path) -> Result<(), Box<dyn Error>> {
    check_terminal()?;
    Ok(show(&mut Recorded::open(trace)?, &Quit::default())?)
}
