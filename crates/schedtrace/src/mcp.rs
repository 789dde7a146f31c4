//! `schedtrace mcp`

use crate::{FAILURE, Failure};

pub(crate) fn run(args: &schedtrace_mcp::Args) -> Result<(), Failure> {
    schedtrace_mcp::run(args).map_err(|error| Failure::Coded(FAILURE, error.to_string()))
}
