//! Serves schedtrace traces to an AI agent over standard input and output.
#![allow(clippy::print_stderr, reason = "logs go to standard error; standard output belongs to the protocol")]

use std::process::ExitCode;

use clap::Parser;

/// Serves schedtrace traces to an AI agent: an MCP server on standard input and output, which reads traces and
/// changes nothing. A host starts it; there is nothing to type.
#[derive(Parser)]
#[command(name = "schedtrace-mcp", version)]
struct Args {}

fn main() -> ExitCode {
    Args::parse();
    match schedtrace_mcp::serve_stdio() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schedtrace-mcp: {error}");
            ExitCode::FAILURE
        }
    }
}
