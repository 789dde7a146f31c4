//! `schedtrace mcp`

use schedtrace_mcp::{Settings, serve_stdio};

use crate::args::McpArgs;
use crate::{FAILURE, Failure};

pub(crate) fn run(args: McpArgs) -> Result<(), Failure> {
    let settings = Settings {
        traces: args.traces,
        #[cfg(feature = "live")]
        collect: args.collect,
        #[cfg(not(feature = "live"))]
        collect: false,
    };
    serve_stdio(settings).map_err(|error| Failure::Coded(FAILURE, error.to_string()))
}
