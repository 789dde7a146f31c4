//! The configuration file: what it may say, and what comes of it.
//!
//! ```text
//!   YAML or TOML -> Config -> Plan: Settings, what is told, what is refused and why
//! ```
//!
//! A key that is not known, or a value of another type than it has to be, is an error with its line. What is understood but
//! cannot be done is refused by name; the server runs all the same.

mod node;
mod plan;
mod read;
mod toml_file;
mod write;
mod yaml_file;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use plan::{Plan, Refused, Told};

/// No configuration is larger.
const MAX_BYTES: u64 = 1 << 20;

/// A configuration file, as it was written: `None` is what it does not say.
///
/// ```
/// use schedtrace_mcp::Config;
/// let config = Config::from_yaml("storage: { retention_hours: 72 }\nsecurity: { rate_limit_per_second: 100 }\n")?;
/// assert_eq!(config.storage.retention_hours, Some(72.0));
/// assert_eq!(config, Config::from_toml("[storage]\nretention_hours = 72\n[security]\nrate_limit_per_second = 100\n")?);
/// let wrong = Config::from_yaml("storage:\n  retention: 72\n").unwrap_err();
/// assert_eq!((wrong.line, wrong.why.contains("`storage.retention_hours`")), (2, true));
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// `server`: what it says of itself, and how it is spoken to.
    pub server: ConfigServer,
    /// `probes`: which events are recorded, once it may collect.
    pub probes: ConfigProbes,
    /// `storage`: how much of them is kept.
    pub storage: ConfigStorage,
    /// `tools`: those that it has; all, unless they are listed.
    pub tools: Option<Vec<ConfigTool>>,
    /// `security`: what it may do, and how often it may be asked.
    pub security: ConfigSecurity,
    /// `traces`: traces, and folders of traces, that may be read. Relative paths are those from the file's folder.
    pub traces: Vec<PathBuf>,
    /// `roots`: folders below which all traces may be read, up to 16 levels deep.
    pub roots: Vec<PathBuf>,
    /// `collect`: record the running kernel when asked to.
    pub collect: Option<bool>,
    /// `limits`: of what is collected.
    pub limits: ConfigLimits,
    /// `keep`: the folder in which recordings stay that an agent made.
    pub keep: Option<PathBuf>,
    /// `audit_log`: the file that has a line for each thing that was collected.
    pub audit_log: Option<PathBuf>,
    /// `daemon`: collect from the start, until the client goes away.
    pub daemon: Option<bool>,
}

/// `server` of a [`Config`].
///
/// ```
/// # use schedtrace_mcp::Config;
/// let config = Config::from_yaml("server: { name: bridge, version: \"1.0.0\", transport: stdio, read_only: true }")?;
/// assert_eq!((config.server.name.as_deref(), config.server.read_only), (Some("bridge"), Some(true)));
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfigServer {
    /// What it calls itself to a client.
    pub name: Option<String>,
    /// The version that it tells a client.
    pub version: Option<String>,
    /// How it is spoken to: `stdio`.
    pub transport: Option<String>,
    /// Whether it may do no more than read.
    pub read_only: Option<bool>,
}

/// `probes` of a [`Config`].
///
/// ```
/// # use schedtrace_mcp::Config;
/// let config = Config::from_yaml("probes: { tracepoints: [{ name: \"sched:sched_switch\", filter: prev_pid != 0 }] }")?;
/// let tracepoints = config.probes.tracepoints.unwrap();
/// assert_eq!((tracepoints[0].name.as_str(), tracepoints[0].filter.as_deref()), ("sched:sched_switch", Some("prev_pid != 0")));
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfigProbes {
    /// Functions of programs and libraries.
    pub uprobes: Vec<ConfigUprobe>,
    /// Events of the kernel; those of the scheduler, unless they are listed.
    pub tracepoints: Option<Vec<ConfigTracepoint>>,
}

/// A function of a library, in `probes.uprobes`.
///
/// ```
/// # use schedtrace_mcp::Config;
/// let config = Config::from_yaml("probes: { uprobes: [{ library: libc.so, symbol: malloc, attach: entry }] }")?;
/// assert_eq!(config.probes.uprobes[0].symbol, "malloc");
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfigUprobe {
    /// The library.
    pub library: String,
    /// Its function.
    pub symbol: String,
    /// Where: `entry` or `return`.
    pub attach: Option<String>,
}

/// An event of the kernel, in `probes.tracepoints`.
///
/// ```
/// # use schedtrace_mcp::Config;
/// let config = Config::from_yaml("probes: { tracepoints: [{ name: futex_wait }] }")?;
/// assert_eq!(config.probes.tracepoints.unwrap()[0].filter, None);
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfigTracepoint {
    /// Its name, with or without its subsystem: `sched:sched_switch`, `futex_wait`.
    pub name: String,
    /// What has to hold of its fields, as [`EventFilter`](schedtrace_core::EventFilter) reads it.
    pub filter: Option<String>,
}

/// `storage` of a [`Config`].
///
/// ```
/// # use schedtrace_mcp::Config;
/// let config = Config::from_yaml("storage: { backend: columnar, precision_ms: 1, max_events_per_second: 50000 }")?;
/// assert_eq!(config.storage.max_events_per_second, Some(50_000));
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfigStorage {
    /// How events are stored: `columnar`.
    pub backend: Option<String>,
    /// How far back a recording reaches, in hours.
    pub retention_hours: Option<f64>,
    /// How exact times have to be, in milliseconds.
    pub precision_ms: Option<f64>,
    /// So many events of a second are recorded; the rest is counted as lost.
    pub max_events_per_second: Option<u64>,
}

/// A tool that the server has, in `tools` of a [`Config`].
///
/// ```
/// # use schedtrace_mcp::Config;
/// let config = Config::from_yaml("tools: [{ name: analyze, schema: event }]")?;
/// assert_eq!(config.tools.unwrap()[0].schema.as_deref(), Some("event"));
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfigTool {
    /// Its name.
    pub name: String,
    /// What a client is told of it first.
    pub description: Option<String>,
    /// What its answers are made of: `event`.
    pub schema: Option<String>,
}

/// `security` of a [`Config`].
///
/// ```
/// # use schedtrace_mcp::Config;
/// let config = Config::from_yaml("security: { write_access: false, pid_filtering: true, rate_limit_per_second: 0.5 }")?;
/// assert_eq!(config.security.rate_limit_per_second, Some(0.5));
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfigSecurity {
    /// Whether tools may change anything.
    pub write_access: Option<bool>,
    /// Whether tools may be asked for some processes only.
    pub pid_filtering: Option<bool>,
    /// So many calls are answered in a second.
    pub rate_limit_per_second: Option<f64>,
}

/// `limits` of a [`Config`]: what one collection may take.
///
/// ```
/// # use schedtrace_mcp::Config;
/// let config = Config::from_yaml("limits: { max_duration_s: 60, max_bytes: 100000000, max_at_once: 1 }")?;
/// assert_eq!(config.limits.max_duration_s, Some(60));
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfigLimits {
    /// Seconds.
    pub max_duration_s: Option<u64>,
    /// Room on the disk.
    pub max_bytes: Option<u64>,
    /// How many there may be at a time.
    pub max_at_once: Option<u64>,
    /// So many events of a second are recorded.
    pub max_events_per_second: Option<u64>,
}

/// Why a text is no [`Config`].
///
/// ```
/// use schedtrace_mcp::Config;
/// let bad = Config::from_yaml("server:\n  read_only: perhaps\n").unwrap_err();
/// assert_eq!(bad.to_string(), "line 2: `server.read_only` has to be true or false, and it is a text");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadConfig {
    /// The file, if it came from one.
    pub file: Option<PathBuf>,
    /// The line, from 1; 0 where it is about the whole.
    pub line: usize,
    /// What is wrong, and what would do.
    pub why: String,
}

impl std::fmt::Display for BadConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.file, self.line) {
            (Some(file), 0) => write!(f, "{}: {}", file.display(), self.why),
            (Some(file), line) => write!(f, "{}, line {line}: {}", file.display(), self.why),
            (None, 0) => f.write_str(&self.why),
            (None, line) => write!(f, "line {line}: {}", self.why),
        }
    }
}

impl std::error::Error for BadConfig {}

impl From<BadConfig> for std::io::Error {
    fn from(bad: BadConfig) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, bad)
    }
}

impl BadConfig {
    fn at(line: usize, why: impl Into<String>) -> Self {
        let why: String = why.into().chars().map(|c| if c.is_control() { ' ' } else { c }).take(1_000).collect();
        Self { file: None, line, why }
    }
}

impl Config {
    /// Reads a file: TOML if its name ends in `.toml`, YAML if in `.yaml` or `.yml`. Relative paths in it become those from its
    /// folder.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is larger than 1 MiB, or says what is not understood.
    ///
    /// ```
    /// use schedtrace_mcp::Config;
    /// let folder = tempfile::tempdir()?;
    /// std::fs::write(folder.path().join("schedtrace.yaml"), "traces: [runs]\n")?;
    /// let config = Config::load(&folder.path().join("schedtrace.yaml"))?;
    /// assert_eq!(config.traces, [folder.path().join("runs")]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load(path: &Path) -> Result<Self, BadConfig> {
        let whole = |why: String| BadConfig { file: Some(path.to_owned()), ..BadConfig::at(0, why) };
        let is = |ending: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending));
        let read = match () {
            () if is("toml") => Self::from_toml,
            () if is("yaml") || is("yml") => Self::from_yaml,
            () => return Err(whole("it is read by its ending: call it .yaml or .toml".into())),
        };
        let mut bytes = Vec::new();
        let file = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        file.map_err(|error| whole(format!("the configuration cannot be read: {error}")))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(whole(format!("it is larger than {MAX_BYTES} bytes, which is too much for a configuration")));
        }
        let text = String::from_utf8(bytes).map_err(|error| whole(format!("it is no text: {error}")))?;
        let mut config = read(&text).map_err(|bad| BadConfig { file: Some(path.to_owned()), ..bad })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let files = config.keep.iter_mut().chain(&mut config.audit_log);
        for place in config.traces.iter_mut().chain(&mut config.roots).chain(files) {
            *place = folder.join(&*place);
        }
        Ok(config)
    }

    /// Reads YAML 1.2. Anchors and aliases are understood; tags, merge keys and several documents are not.
    ///
    /// # Errors
    ///
    /// If it is no YAML, or says what is not understood.
    ///
    /// ```
    /// use schedtrace_mcp::Config;
    /// assert_eq!(Config::from_yaml("")?, Config::default());
    /// assert!(Config::from_yaml("server: [").is_err());
    /// # Ok::<(), schedtrace_mcp::BadConfig>(())
    /// ```
    pub fn from_yaml(text: &str) -> Result<Self, BadConfig> {
        read::config(&yaml_file::read(text)?)
    }

    /// Reads TOML: the same keys.
    ///
    /// # Errors
    ///
    /// If it is no TOML, or says what is not understood.
    ///
    /// ```
    /// use schedtrace_mcp::Config;
    /// assert_eq!(Config::from_toml("collect = true")?.collect, Some(true));
    /// assert!(Config::from_toml("collect = yes").is_err());
    /// # Ok::<(), schedtrace_mcp::BadConfig>(())
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, BadConfig> {
        read::config(&toml_file::read(text)?)
    }
}

#[cfg(test)]
mod tests;
