//! The command line of the server, which `schedtrace mcp` has as well.
#![allow(
    clippy::print_stderr,
    reason = "what is refused goes to standard error; standard output belongs to the protocol"
)]

use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::{Config, Plan};

/// What the server is started with. Flags win over the configuration file.
///
/// ```
/// use schedtrace_mcp::Args;
/// let args = Args { traces: vec!["run.schedtrace".into()], ..Args::default() };
/// assert_eq!(args.plan()?.settings.traces, args.traces);
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Args {
    /// A trace, or a folder of traces, that may be read; may be given several times [default: the current folder]
    #[arg(long = "trace", value_name = "DIR")]
    pub traces: Vec<PathBuf>,
    /// A folder below which all traces may be read, up to 16 levels deep; may be given several times
    #[arg(long = "traces", value_name = "ROOT")]
    pub roots: Vec<PathBuf>,
    /// Record the running machine when the agent asks for it; needs CAP_BPF and CAP_PERFMON
    #[cfg(feature = "live")]
    #[arg(long)]
    pub collect: bool,
    /// Collect from the start until the client goes away
    #[cfg(feature = "live")]
    #[arg(long, requires = "collect")]
    pub daemon: bool,
    /// Keep the recordings that the agent makes in this folder
    #[cfg(feature = "live")]
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Append a line to this file for each beginning and end of what is collected
    #[cfg(feature = "live")]
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Read a configuration (.yaml, .yml or .toml); flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print what is in force as YAML, with what is refused and why, and end
    #[arg(long)]
    pub print_config: bool,
}

impl Args {
    /// What is in force: the configuration file, and what the flags say.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or says what is not understood.
    ///
    /// ```
    /// use schedtrace_mcp::Args;
    /// let missing = Args { config: Some("/nowhere/schedtrace.yaml".into()), ..Args::default() };
    /// assert!(missing.plan().unwrap_err().to_string().contains("cannot be read"));
    /// ```
    pub fn plan(&self) -> Result<Plan, crate::BadConfig> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
        if !self.traces.is_empty() || !self.roots.is_empty() {
            config.traces.clone_from(&self.traces);
            config.roots.clone_from(&self.roots);
        }
        #[cfg(feature = "live")]
        if self.collect {
            config.collect = Some(true);
            config.server.read_only = None;
        }
        #[cfg(feature = "live")]
        {
            config.daemon = self.daemon.then_some(true).or(config.daemon);
            config.keep = self.keep.clone().or(config.keep);
            config.audit_log = self.audit.clone().or(config.audit_log);
        }
        Ok(config.plan())
    }
}

/// Does what the command line says: serves one client on standard input and output, or prints what is in force. What is
/// refused is told on standard error.
///
/// # Errors
///
/// Those of [`Args::plan`] and [`serve_stdio`](crate::serve_stdio), and if nothing can be printed.
///
/// ```no_run
/// schedtrace_mcp::run(&schedtrace_mcp::Args::default())?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn run(args: &Args) -> io::Result<()> {
    let plan = args.plan()?;
    if args.print_config {
        return io::stdout().write_all(plan.to_string().as_bytes());
    }
    for refused in &plan.refused {
        eprintln!("schedtrace-mcp: {refused}");
    }
    for told in &plan.told {
        eprintln!("schedtrace-mcp: {told}");
    }
    crate::serve_stdio(plan.settings)
}
