//! Shows why tasks waited, from a trace, on a terminal.
#![allow(clippy::print_stderr, reason = "a command says on standard error why it failed")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Shows why tasks waited for a CPU, from a trace that `schedtrace record` wrote.
#[derive(Parser)]
#[command(name = "schedtrace-tui", version)]
struct Args {
    /// Directory of the trace.
    trace: PathBuf,
}

fn main() -> ExitCode {
    match schedtrace_tui::show(&Args::parse().trace) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schedtrace-tui: {error}");
            ExitCode::FAILURE
        }
    }
}
