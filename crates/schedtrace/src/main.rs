//! The `schedtrace` command: arguments in, library calls out.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

mod args;
mod diff;
#[cfg(feature = "live")]
mod doctor;
#[cfg(feature = "live")]
mod events;
mod explain;
mod export;
#[cfg(feature = "live")]
mod flight;
mod guides;
mod info;
mod listing;
mod mcp;
#[cfg(feature = "live")]
mod privilege;
#[cfg(feature = "live")]
mod record;
mod render;
mod repair;
mod report;
mod reports;
#[cfg(feature = "sql")]
mod sql;
mod timeline;
mod top;
mod units;
mod window;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use schedtrace_core::Error;

use crate::args::{Args, Command};

/// Something went wrong; the line on stderr says what.
const FAILURE: u8 = 1;

/// Why the command ends.
#[derive(Debug)]
enum Failure {
    /// A line for the user.
    Error(Error),
    /// The same, with an exit code of its own.
    Coded(u8, String),
    /// Whoever read our output has gone: no reason to complain.
    Pipe,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

#[cfg(feature = "sql")]
impl Failure {
    /// Something went wrong while standard output was written.
    fn of_output(error: Error) -> Self {
        match error {
            Error::Io { source, .. } => source.into(),
            error => error.into(),
        }
    }
}

/// Writing to stdout failed.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Pipe,
            _ => Self::Coded(FAILURE, format!("cannot write to standard output: {error}")),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(args.log_level().into())
        .with_env_var("SCHEDTRACE_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let done = match args.command {
        #[cfg(feature = "live")]
        Command::Record(args) => record::run(&args),
        #[cfg(feature = "live")]
        Command::Doctor(args) => doctor::run(&args),
        Command::Top(args) => top::run(&args).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "live")]
        Command::Stacks => top::stacks().map(|()| ExitCode::SUCCESS),
        Command::Report(args) => report::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Diff(args) => diff::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => explain::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Timeline(args) => timeline::run(&args).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "sql")]
        Command::Sql(args) => sql::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Info(args) => info::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Export(args) => export::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Repair(args) => repair::run(&args),
        Command::Completions(args) => guides::completions(&args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => guides::man(&args).map(|()| ExitCode::SUCCESS),
        Command::Mcp(args) => mcp::run(&args).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(Failure::Pipe) => ExitCode::SUCCESS,
        Err(Failure::Error(error)) => complain(FAILURE, &error.to_string()),
        Err(Failure::Coded(code, text)) => complain(code, &text),
    }
}

fn complain(code: u8, text: &str) -> ExitCode {
    // Nobody is left to tell when stderr is gone too.
    let _ = writeln!(std::io::stderr(), "schedtrace: {text}");
    code.into()
}

/// Writes a report as JSON, for programs.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Coded(FAILURE, error.to_string()))?;
    writeln!(std::io::stdout(), "{text}").map_err(Failure::from)
}
