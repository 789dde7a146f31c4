//! Serves schedtrace traces to an AI agent over standard input and output.
#![allow(clippy::print_stderr, reason = "logs go to standard error; standard output belongs to the protocol")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use schedtrace_mcp::{Settings, serve_stdio};

/// Serves schedtrace traces to an AI agent: an MCP server on standard input and output. A host starts it; there is
/// nothing to type. `schedtrace mcp` is the same.
#[derive(Parser)]
#[command(name = "schedtrace-mcp", version)]
struct Args {
    /// A trace, or a folder of traces, that may be read; may be given several times [default: all that you may read]
    #[arg(long = "trace", value_name = "DIR")]
    traces: Vec<PathBuf>,
    /// Record the running machine when the agent asks for it; needs CAP_BPF and CAP_PERFMON
    #[cfg(feature = "live")]
    #[arg(long)]
    collect: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let settings = Settings {
        traces: args.traces,
        #[cfg(feature = "live")]
        collect: args.collect,
        #[cfg(not(feature = "live"))]
        collect: false,
    };
    match serve_stdio(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schedtrace-mcp: {error}");
            ExitCode::FAILURE
        }
    }
}
