//! The command line.

use std::path::PathBuf;
use std::time::Duration;

#[cfg(any(feature = "live", feature = "sql"))]
use bytesize::ByteSize;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use schedtrace_core::EventFilter;
use schedtrace_core::analysis::{GroupBy, ReportName, Subject};
#[cfg(feature = "live")]
use schedtrace_core::live::{Collector, CollectorBuilder, ShardPolicy};
#[cfg(feature = "live")]
use schedtrace_core::system::CpuList;
use schedtrace_core::trace::{Stretch, Time};
#[cfg(feature = "live")]
use schedtrace_core::{Kinds, Transport, UnknownKind};
use schedtrace_tui::Look;

#[cfg(feature = "live")]
use crate::flight::FlightArgs;
use crate::units;

/// Records what the Linux scheduler does, and explains it: why did tasks wait, who held the CPU, who woke whom, and
/// what was lost?
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, propagate_version = true)]
pub(crate) struct Args {
    /// Say more on stderr; twice for everything, libbpf's own words too (also: SCHEDTRACE_LOG=debug)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    pub(crate) fn log_level(&self) -> tracing::level_filters::LevelFilter {
        match self.verbose {
            // What libbpf warns of comes to the user as the error of the call that failed.
            0 => tracing::level_filters::LevelFilter::ERROR,
            1 => tracing::level_filters::LevelFilter::INFO,
            _ => tracing::level_filters::LevelFilter::DEBUG,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "live")]
    Record(RecordArgs),
    #[cfg(feature = "live")]
    Doctor(DoctorArgs),
    Top(TopArgs),
    /// Tells `schedtrace top`, which has given its privileges up, where tasks are in the kernel.
    #[cfg(feature = "live")]
    #[command(hide = true)]
    Stacks,
    Report(ReportArgs),
    Diff(DiffArgs),
    Explain(ExplainArgs),
    Timeline(TimelineArgs),
    #[cfg(feature = "sql")]
    Sql(SqlArgs),
    Info(InfoArgs),
    Export(ExportArgs),
    Repair(RepairArgs),
    /// Serve traces to an AI agent: an MCP server on standard input and output
    ///
    /// A host (Claude, VS Code, Cursor ...) starts it; there is nothing to type.
    Mcp(schedtrace_mcp::Args),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Ask traces anything, in SQL: one statement, or a prompt without any
///
/// Tables: `.tables` and `.schema` at the prompt, or docs/tables.md. Statements can only read, and only traces. Of several
/// traces, each table has two more columns, `host` and `trace`.
///
///   schedtrace sql run.schedtrace "select comm, sum(dur) from sched_slice group by comm order by 2 desc limit 5"
///   schedtrace sql 'host=*/*.schedtrace' "select host, count(*) from preemption group by host"
///   sudo schedtrace sql --live 5s "select comm, max(dur) from wakeup group by comm order by 2 desc limit 5"
#[cfg(feature = "sql")]
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct SqlArgs {
    /// Traces, folders of traces, or patterns of them (in quotes); then the statement
    #[arg(required_unless_present = "live", value_name = "TRACE... [STATEMENT]")]
    pub(crate) what: Vec<String>,
    /// Read the statement from a file; `-` is standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A value for a parameter: --param ns=20000000 for $ns; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = crate::sql::param)]
    pub(crate) params: Vec<(String, schedtrace_core::query::Value)>,
    /// How rows are written: table, json, jsonl, csv, parquet
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
    /// Write them to this file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write over the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
    /// No more rows than this [default: 1000 for a table, no limit otherwise]
    #[arg(long, value_name = "N")]
    pub(crate) rows: Option<u64>,
    /// Stop after so much time [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Take no more memory than this for sorting, grouping and joining [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Work with so many threads [default: one for each CPU]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Ask the running machine: collect for so long, keep that in memory, and ask it; at the prompt, every statement asks the
    /// last so much time
    #[cfg(feature = "live")]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) live: Option<Duration>,
    #[cfg(feature = "live")]
    #[command(flatten, next_help_heading = "With --live")]
    pub(crate) collect: CollectArgs,
}

/// Record the running kernel into a trace: until the time is over, Ctrl-C, or the end of COMMAND
///
/// Needs root, or CAP_BPF and CAP_PERFMON, until the recording begins; then the recorder becomes whoever called sudo and
/// gives all capabilities up. The trace belongs to that user, and COMMAND runs as that user. The recorder's own threads
/// are recorded and marked; reports leave them out unless asked. Recordings in the same folder (*.schedtrace) that were
/// interrupted are finished first.
#[cfg(feature = "live")]
#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    /// The trace: a folder that does not exist yet [default: sched-DATE-TIME.schedtrace]; with --flight, a folder for traces
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// How long: 5s, 1m30s, 2h
    #[arg(short, long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) duration: Option<Duration>,
    #[command(flatten)]
    pub(crate) collect: CollectArgs,
    #[command(flatten)]
    pub(crate) flight: FlightArgs,
    /// Keep the trace below this size: the oldest part goes first
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_size: Option<ByteSize>,
    /// Keep no more than the last so much time [default: 72h, 0 for no limit]
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "72h", hide_default_value = true)]
    pub(crate) max_age: Duration,
    /// Record without end: DIR is a folder of traces, one for each run of the recorder, that together keep to --max-size
    /// and --max-age; what an earlier run has left is finished first [default of --max-size: a tenth of the disk, at most
    /// 10 GiB]
    #[arg(long, requires = "output", conflicts_with_all = ["perfetto", "command", "flight"])]
    pub(crate) continuous: bool,
    /// With --continuous: record at most so many events of each second, and count the rest as lost [0 for no limit]
    #[arg(long, value_name = "N", requires = "continuous", default_value_t = 500_000)]
    pub(crate) max_rate: u64,
    /// With --continuous: leave so much of the disk free [default: a twentieth of the disk, at most 1 GiB]
    #[arg(long, value_name = "SIZE", requires = "continuous")]
    pub(crate) min_free: Option<ByteSize>,
    /// Write a Perfetto trace as well, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub(crate) perfetto: Option<PathBuf>,
    /// Run this command, record until it ends, and end with its exit status
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

/// What is recorded, and how.
#[cfg(feature = "live")]
#[derive(Debug, clap::Args)]
pub(crate) struct CollectArgs {
    /// Only this process and those it starts; may be given several times
    #[arg(short, long = "pid", value_name = "PID")]
    pub(crate) pids: Vec<u32>,
    /// Only tasks in this cgroup (v2) and below; may be given several times
    #[arg(long = "cgroup", value_name = "PATH")]
    pub(crate) cgroups: Vec<PathBuf>,
    /// Only what happens on these CPUs: 0-3,7
    #[arg(long = "cpu", value_name = "LIST")]
    pub(crate) cpus: Option<CpuList>,
    /// Only these events: by name, group, `default` or `all`, as in default,irq,futex_wait; `help` lists them
    /// [default: default]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) events: Option<Vec<Events>>,
    /// With the event `syscall`: the system calls whose durations are recorded, by their numbers
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) calls: Vec<u32>,
    /// How often the events of the group `system` are sampled
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "1s")]
    pub(crate) sample_interval: Duration,
    /// How events travel from the kernel: ring, arena [default: arena where the kernel has it]
    #[arg(long, value_name = "TRANSPORT", env = "SCHEDTRACE_TRANSPORT")]
    pub(crate) transport: Option<Transport>,
    /// Memory between kernel and recorder, in MiB, divided among the CPUs
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) ring_mb: u32,
    /// CPUs that share a ring: auto, per-cpu, per-llc, per-node, single
    #[arg(long, value_name = "POLICY", default_value = "auto")]
    pub(crate) shards: ShardPolicy,
    /// Become this user (name or number) once the recording begins, instead of whoever called sudo; root to stay root
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
}

/// An item of the list of events.
#[cfg(feature = "live")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Events {
    /// Tells which there are.
    Help,
    Of(Kinds),
}

#[cfg(feature = "live")]
impl std::str::FromStr for Events {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        if text == "help" { Ok(Self::Help) } else { text.parse().map(Self::Of) }
    }
}

#[cfg(feature = "live")]
impl CollectArgs {
    pub(crate) fn builder(&self) -> CollectorBuilder {
        let mut builder = Collector::builder().shards(self.shards).ring_bytes((self.ring_mb as usize) << 20);
        builder = self.transport.into_iter().fold(builder, |builder, transport| builder.transport(transport));
        builder = self.pids.iter().fold(builder, |builder, &pid| builder.pid(pid));
        builder = self.cgroups.iter().fold(builder, |builder, path| builder.cgroup(path));
        builder = self.cpus.iter().fold(builder, |builder, cpus| builder.cpus(cpus.clone()));
        builder = builder.calls(self.calls.iter().copied()).sample_interval(self.sample_interval);
        self.events.iter().flatten().fold(builder, |builder, events| match events {
            Events::Help => builder,
            Events::Of(kinds) => builder.kinds(kinds),
        })
    }

    /// Whether somebody only wants to know which events there are.
    pub(crate) fn asks_for_help(&self) -> bool {
        self.events.iter().flatten().any(|events| *events == Events::Help)
    }
}

/// Tell what can be recorded here and what not, why, what that costs, and how to mend it
///
/// Loads and attaches the programs, and lets go of them again. Ends with 0 if `record` would work, and with 1 if not.
#[cfg(feature = "live")]
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// For programs: docs/json.md says what stands where
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show on the terminal who waits for a CPU and who has it: of the running machine, or of a trace
///
/// Live, it takes the privileges that `record` needs, and gives them up as `record` does; without them it shows what /proc and
/// /sys tell. Inside, `?` says what keys and columns mean, and `:` finds what can be done. It writes nothing but what it is asked
/// to. The guide is docs/top.md; keys and colours are chosen in schedtrace/config.toml, in the folder for configurations.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// A trace
    #[cfg_attr(feature = "live", doc = "[default: the running machine]")]
    #[arg(value_name = "DIR")]
    #[cfg_attr(not(feature = "live"), arg(required = true))]
    pub(crate) trace: Option<PathBuf>,
    /// How long the window is, and how often the screen is drawn, live; how long the window of a replay is [default: 1s]
    #[arg(short, long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) interval: Option<Duration>,
    /// Which view to begin with [default: the last one, or overview]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(schedtrace_tui::view_names()))]
    pub(crate) view: Option<String>,
    /// Colours [default: what the terminal has]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Look::ALL.map(Look::name)).try_map(|name| name.parse::<Look>()))]
    pub(crate) theme: Option<Look>,
    /// Draw with the signs that every terminal has [default: where the locale is not UTF-8]
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Print the screen once, as text, for scripts: of the running machine, when its first window is full
    #[arg(long)]
    pub(crate) once: bool,
    /// With --once: so many columns [default: those of the terminal, or 80]
    #[arg(long, value_name = "N", requires = "once", value_parser = clap::value_parser!(u16).range(20..=1000))]
    pub(crate) width: Option<u16>,
    /// With --once: so many lines [default: those of the terminal, or 24]
    #[arg(long, value_name = "N", requires = "once", value_parser = clap::value_parser!(u16).range(5..=1000))]
    pub(crate) height: Option<u16>,
    #[cfg(feature = "live")]
    #[command(flatten)]
    pub(crate) collect: CollectArgs,
}

/// Say why tasks waited for a CPU, from a trace, or answer other questions by name
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// The trace
    #[arg(value_name = "DIR")]
    pub(crate) trace: PathBuf,
    /// Which reports: latency, depth, interrupts ... or `all`; `help` lists them [default: why tasks waited for a CPU]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<Wanted>,
    /// What the rows are: task, process, cgroup, cpu, llc
    #[arg(long, value_name = "WHAT", default_value = "task")]
    pub(crate) by: GroupBy,
    /// How many rows
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) window: WindowArgs,
    /// Do not leave the recorder's own threads out
    #[arg(long)]
    pub(crate) include_recorder: bool,
    /// For programs: docs/json.md says what stands where
    #[arg(long)]
    pub(crate) json: bool,
}

/// A name in the list of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Tells which there are.
    Help,
    All,
    One(ReportName),
}

impl std::str::FromStr for Wanted {
    type Err = schedtrace_core::Error;
    fn from_str(text: &str) -> Result<Self, schedtrace_core::Error> {
        match text {
            "help" => Ok(Self::Help),
            "all" => Ok(Self::All),
            name => name.parse().map(Self::One),
        }
    }
}

/// Compare two traces, or two windows of one: what changed, and whether that may be chance
///
/// `schedtrace diff BEFORE AFTER` compares two traces, `schedtrace diff DIR --a 0s..5s --b 5s..10s` two windows of one.
/// Ends with 0 whatever the verdicts are.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// The trace that is compared with
    #[arg(value_name = "A")]
    pub(crate) first: PathBuf,
    /// The trace that is compared [default: A, of which --a and --b choose windows]
    #[arg(value_name = "B")]
    pub(crate) second: Option<PathBuf>,
    /// This window of A: 0s..5s, 2s.. or ..10s, with times as `report --from` takes them
    #[arg(long, value_name = "T..T", value_parser = units::stretch, allow_hyphen_values = true)]
    pub(crate) a: Option<Stretch>,
    /// This window of B
    #[arg(long, value_name = "T..T", value_parser = units::stretch, allow_hyphen_values = true)]
    pub(crate) b: Option<Stretch>,
    /// Do not leave the recorder's own threads out
    #[arg(long)]
    pub(crate) include_recorder: bool,
    /// For programs: docs/json.md says what stands where
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which part of a trace.
#[derive(Debug, clap::Args)]
pub(crate) struct WindowArgs {
    /// Begin here: 1.5s after the start, -30s before the end, 2026-11-21T10:00:00Z, or 1234567890ns of CLOCK_MONOTONIC
    #[arg(long, value_name = "T", value_parser = units::time, allow_hyphen_values = true)]
    pub(crate) from: Option<Time>,
    /// End here
    #[arg(long, value_name = "T", value_parser = units::time, allow_hyphen_values = true)]
    pub(crate) to: Option<Time>,
}

/// Whose part of a trace.
#[derive(Debug, clap::Args)]
pub(crate) struct SubjectArgs {
    /// This process
    #[arg(short, long, value_name = "PID")]
    pid: Option<u32>,
    /// This thread
    #[arg(short, long, value_name = "TID", conflicts_with = "pid")]
    tid: Option<u32>,
}

impl SubjectArgs {
    pub(crate) fn subject(&self) -> Option<Subject> {
        self.tid.map(Subject::Thread).or(self.pid.map(Subject::Process))
    }
}

/// Explain a window of a thread or a process: what it waited for, what that waited for, and so on
///
/// By itself, it explains whoever ran last. What it did makes up the window. Record the groups `irq`, `block` and `futex` too, so that interrupts, disks and locks have
/// names: schedtrace record --events default,irq,block,futex
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// The trace
    #[arg(value_name = "DIR")]
    pub(crate) trace: PathBuf,
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
    #[command(flatten)]
    pub(crate) window: WindowArgs,
    /// For programs: docs/json.md says what stands where
    #[arg(long)]
    pub(crate) json: bool,
}

/// Draw what each CPU or each task did, column by column
#[derive(Debug, clap::Args)]
pub(crate) struct TimelineArgs {
    /// The trace
    #[arg(value_name = "DIR")]
    pub(crate) trace: PathBuf,
    /// What the lanes are
    #[arg(long, value_name = "WHAT", default_value = "cpu")]
    pub(crate) by: LanesArg,
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
    /// How many columns
    #[arg(long, value_name = "N", default_value_t = 80)]
    pub(crate) columns: u16,
    /// How long a column is, instead of so many: 1ms
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with = "columns")]
    pub(crate) resolution: Option<std::time::Duration>,
    /// How many tasks
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) window: WindowArgs,
    /// Do not leave the recorder's own threads out
    #[arg(long)]
    pub(crate) include_recorder: bool,
    /// For programs: docs/json.md says what stands where
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the lanes of a timeline are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LanesArg {
    /// CPUs
    Cpu,
    /// Tasks
    Task,
}

/// Tell what a trace holds: host, kernel, window, tables, and how complete it is
#[derive(Debug, clap::Args)]
pub(crate) struct InfoArgs {
    /// The trace
    #[arg(value_name = "DIR")]
    pub(crate) trace: PathBuf,
    /// For programs: docs/json.md says what stands where
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write a trace in another tool's format: for the Perfetto UI, as one line per event, or as tables for other engines
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The trace
    #[arg(value_name = "DIR")]
    pub(crate) trace: PathBuf,
    /// Which format
    #[arg(long, value_name = "FORMAT")]
    pub(crate) to: Format,
    /// The file, or of Parquet the folder [default: the trace's name, here, with .pftrace, .csv or .tables]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Only events that meet these conditions: 'event = futex_wait and duration_us > 100', 'dsq_lat_us > 1000'
    #[arg(long = "where", value_name = "CONDITIONS")]
    pub(crate) filter: Option<EventFilter>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// What a trace can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For ui.perfetto.dev and trace_processor
    Perfetto,
    /// One line per event
    Csv,
    /// A folder of Parquet files: what the events tell of slices, states, wakeups, preemptions, tasks (docs/tables.md)
    #[cfg(feature = "sql")]
    Parquet,
}

impl Format {
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Perfetto => "pftrace",
            Self::Csv => "csv",
            #[cfg(feature = "sql")]
            Self::Parquet => "tables",
        }
    }
}

/// Finish traces whose recording was interrupted: what was left in flight becomes Parquet
///
/// No event that can be read comes or goes by it, and it may be interrupted itself. `record` does the same with what it
/// finds beside its own trace.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// The traces
    #[arg(value_name = "DIR", required = true)]
    pub(crate) traces: Vec<PathBuf>,
    /// For programs: docs/json.md says what stands where
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print completions for a shell: `source <(schedtrace completions bash)`
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Write the manual pages into a folder: `schedtrace man ~/.local/share/man/man1`
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The folder, which has to be there
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_hold_together() {
        Args::command().debug_assert();
    }
}
