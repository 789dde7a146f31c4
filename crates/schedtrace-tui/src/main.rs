//! Shows why tasks waited, from a trace, on a terminal.
#![allow(clippy::print_stderr, reason = "a command says on standard error why it failed")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use schedtrace_tui::{Origin, Quit, Settings, check_terminal, show};

/// Shows why tasks waited for a CPU, from a trace that `schedtrace record` wrote; without one, what `/proc` and `/sys` say of
/// the running machine. `schedtrace top` does the same, and shows the events of the running machine too.
#[derive(Parser)]
#[command(name = "schedtrace-tui", version)]
struct Args {
    /// Directory of the trace [default: the running machine, without events].
    trace: Option<PathBuf>,
}

fn main() -> ExitCode {
    match view(Args::parse().trace.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schedtrace-tui: {error}");
            ExitCode::FAILURE
        }
    }
}

fn view(trace: Option<&Path>) -> Result<(), Box<dyn Error>> {
    check_terminal()?;
    let origin = match trace {
        Some(trace) => Origin::trace(trace)?,
        None => Origin::procfs("this program records nothing: `schedtrace top` does")?,
    };
    let settings = Settings::of_user(|name| std::env::var_os(name))?;
    show(origin, settings, &Quit::default())?;
    Ok(())
}
