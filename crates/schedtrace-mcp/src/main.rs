//! Serves schedtrace traces to an AI agent over standard input and output.
#![allow(clippy::print_stderr, reason = "logs go to standard error; standard output belongs to the protocol")]

use std::process::ExitCode;

use clap::Parser;

/// Serves schedtrace traces to an AI agent: an MCP server on standard input and output. A host starts it; there is
/// nothing to type. `schedtrace mcp` is the same.
#[derive(Parser)]
#[command(name = "schedtrace-mcp", version)]
struct Command {
    #[command(flatten)]
    args: schedtrace_mcp::Args,
}

fn main() -> ExitCode {
    match schedtrace_mcp::run(&Command::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schedtrace-mcp: {error}");
            ExitCode::FAILURE
        }
    }
}
