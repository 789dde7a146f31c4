//! What comes of a configuration: what is done, what is done otherwise, and what is refused.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use schedtrace_core::system::disk_name;
use schedtrace_core::{Kind, Kinds};

use super::node::nearest;
use super::{Config, ConfigTracepoint};
use crate::{Limits, Settings, ToolChoice, tools};

/// A recording may not be smaller.
const MIN_BYTES: u64 = 1 << 20;

/// What the server does of what a configuration asks for.
///
/// ```
/// use schedtrace_mcp::Config;
/// let plan = Config::from_yaml("server: { transport: http }\nsecurity: { rate_limit_per_second: 5 }\n")?.plan();
/// assert_eq!(plan.settings.calls_per_second, Some(5.0));
/// assert_eq!(plan.refused[0].key, "server.transport");
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// What is in force.
    pub settings: Settings,
    /// What is not done.
    pub refused: Vec<Refused>,
    /// What is done in another way than may be thought.
    pub told: Vec<Told>,
}

/// Something that is asked for and not done.
///
/// ```
/// use schedtrace_mcp::Config;
/// let plan = Config::from_yaml("storage: { backend: rows }")?.plan();
/// assert!(plan.refused[0].to_string().starts_with("`storage.backend` is refused: "));
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The key, with what it is set to where that tells it from others.
    pub key: String,
    /// Why.
    pub why: String,
    /// What would do, or what is done.
    pub instead: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is refused: {}; {}", self.key, self.why, self.instead)
    }
}

/// Something that is done in another way than may be thought.
///
/// ```
/// use schedtrace_mcp::Config;
/// let plan = Config::from_yaml("storage: { precision_ms: 1 }")?.plan();
/// assert_eq!(plan.told[0].to_string(), "`storage.precision_ms`: times are kept to the nanosecond, which is finer");
/// # Ok::<(), schedtrace_mcp::BadConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// The key.
    pub key: String,
    /// How it is done.
    pub how: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.how)
    }
}

/// One line of bounded length, whatever stands in the file.
fn line(text: impl Into<String>) -> String {
    text.into().chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

impl Plan {
    fn refuse(&mut self, key: impl Into<String>, why: impl Into<String>, instead: impl Into<String>) {
        self.refused.push(Refused { key: line(key), why: line(why), instead: line(instead) });
    }

    fn tell(&mut self, key: impl Into<String>, how: impl Into<String>) {
        self.told.push(Told { key: line(key), how: line(how) });
    }
}

impl Config {
    /// What is done of it, and what is refused.
    ///
    /// ```
    /// use schedtrace_mcp::Config;
    /// let plan = Config::from_yaml("tools: [{ name: analyze }, { name: dream }]")?.plan();
    /// assert_eq!(plan.settings.tools.unwrap().len(), 1);
    /// assert_eq!(plan.refused[0].key, "tools[1] (dream)");
    /// # Ok::<(), schedtrace_mcp::BadConfig>(())
    /// ```
    #[must_use]
    pub fn plan(&self) -> Plan {
        let settings = Settings {
            traces: self.traces.clone(),
            roots: self.roots.clone(),
            name: self.server.name.clone(),
            version: self.server.version.clone(),
            calls_per_second: self.security.rate_limit_per_second,
            keep: self.keep.clone(),
            audit_log: self.audit_log.clone(),
            ..Settings::default()
        };
        let mut plan = Plan { settings, refused: Vec::new(), told: Vec::new() };
        self.plan_powers(&mut plan);
        self.plan_probes(&mut plan);
        self.plan_storage(&mut plan);
        self.plan_tools(&mut plan);
        plan
    }

    fn plan_powers(&self, plan: &mut Plan) {
        if let Some(transport) = self.server.transport.as_deref().filter(|transport| *transport != "stdio") {
            let why = format!("`{transport}` is not there");
            plan.refuse("server.transport", why, "it is `stdio`: a host starts the server and speaks to it");
        }
        if self.security.write_access == Some(true) {
            plan.refuse("security.write_access", "no tool changes the machine", "it is false");
        }
        if self.security.pid_filtering == Some(false) {
            plan.tell("security.pid_filtering", "tools take a `pid` all the same, which shows less, never more");
        }
        let wants = self.collect == Some(true);
        if wants && self.server.read_only == Some(true) {
            plan.refuse(
                "collect",
                "`server.read_only` is true",
                "set that to false, or start the server with --collect",
            );
        } else if wants && !cfg!(feature = "live") {
            plan.refuse(
                "collect",
                "this server was built without the means to collect",
                "build it with feature `live`",
            );
        } else {
            plan.settings.collect = wants;
        }
        if self.server.read_only == Some(false) && !wants {
            plan.tell("server.read_only", "nothing more is allowed by that: recording is `collect: true`");
        }
        if self.daemon == Some(true) {
            if plan.settings.collect {
                plan.settings.daemon = true;
            } else {
                plan.refuse(
                    "daemon",
                    "it collects from the start, and collecting is not allowed",
                    "set `collect: true`",
                );
            }
        }
    }

    fn plan_probes(&self, plan: &mut Plan) {
        for (at, uprobe) in self.probes.uprobes.iter().enumerate() {
            let key = format!("probes.uprobes[{at}] ({}:{})", uprobe.library, uprobe.symbol);
            plan.refuse(key, "user probes are not there yet", "ask what the kernel saw of its threads meanwhile");
        }
        let Some(tracepoints) = &self.probes.tracepoints else { return };
        for (at, tracepoint) in tracepoints.iter().enumerate() {
            plan_tracepoint(plan, at, tracepoint);
        }
        if plan.settings.probes.kinds.is_empty() {
            return;
        }
        let named = &plan.settings.probes.kinds;
        let besides: Vec<_> = Kind::selectable().filter(|kind| kind.is_default() && !named.contains(kind)).collect();
        if !besides.is_empty() {
            let besides = besides.iter().map(Kind::to_string).collect::<Vec<_>>().join(", ");
            plan.tell(
                "probes.tracepoints",
                format!("analyses need more, so that these are recorded as well: {besides}"),
            );
        }
        if !plan.settings.collect {
            plan.tell("probes.tracepoints", "recorded once collecting is allowed: `collect: true`, or --collect");
        }
    }

    fn plan_storage(&self, plan: &mut Plan) {
        let storage = &self.storage;
        if let Some(backend) = storage.backend.as_deref().filter(|backend| *backend != "columnar") {
            let why = format!("`{backend}` is not there");
            plan.refuse("storage.backend", why, "it is `columnar`: Parquet, which other engines read as well");
        }
        if storage.precision_ms.is_some() {
            plan.tell("storage.precision_ms", "times are kept to the nanosecond, which is finer");
        }
        // Whole seconds: what is printed reads back as the same.
        let seconds = |hours: f64| Duration::from_secs((hours * 3600.0).round().max(1.0) as u64);
        plan.settings.probes.retention = storage.retention_hours.map(seconds);
        let (asked, mut limits) = (&self.limits, Limits::default());
        let rates = [storage.max_events_per_second, asked.max_events_per_second];
        limits.max_events_per_second = rates.into_iter().flatten().min();
        if let Some(at_once) = asked.max_at_once {
            limits.max_at_once = usize::try_from(at_once).unwrap_or(usize::MAX);
        }
        match asked.max_duration_s.map(Duration::from_secs) {
            Some(duration) if duration > limits.max_duration => {
                let most = limits.max_duration.as_secs();
                plan.refuse("limits.max_duration_s", "no collection lasts longer than that", format!("it is {most}"));
            }
            Some(duration) => limits.max_duration = duration,
            None => {}
        }
        match asked.max_bytes {
            Some(bytes) if bytes < MIN_BYTES => {
                let instead = format!("it is {}", limits.max_bytes);
                plan.refuse("limits.max_bytes", format!("no trace can be kept below {MIN_BYTES} bytes"), instead);
            }
            Some(bytes) => limits.max_bytes = bytes,
            None => {}
        }
        plan.settings.limits = limits;
    }

    fn plan_tools(&self, plan: &mut Plan) {
        let Some(asked) = &self.tools else { return };
        let mut chosen: Vec<ToolChoice> = Vec::new();
        for (at, tool) in asked.iter().enumerate() {
            let key = format!("tools[{at}] ({})", tool.name);
            if tool.name == "analyze_gpu_launch_latency" {
                plan.refuse(key, "it needs user probes, which are not there yet", "the tool is left out");
            } else if !tools::names().any(|name| name == tool.name) {
                let near = nearest(&tool.name, tools::names());
                let all = || format!("use one of {}", tools::names().collect::<Vec<_>>().join(", "));
                let instead = near.map_or_else(all, |near| format!("do you mean `{near}`?"));
                plan.refuse(key, "there is no such tool", instead);
            } else if chosen.iter().any(|choice| choice.name == tool.name) {
                plan.refuse(key, "it was named before", "what was said there holds");
            } else {
                if let Some(schema) = tool.schema.as_deref().filter(|schema| *schema != "event") {
                    let why = format!("`{schema}` is not there");
                    plan.refuse(
                        format!("tools[{at}].schema ({})", tool.name),
                        why,
                        "answers are `event`: they cite events",
                    );
                }
                chosen.push(ToolChoice { name: tool.name.clone(), description: tool.description.clone() });
            }
        }
        plan.settings.tools = Some(chosen);
    }
}

fn plan_tracepoint(plan: &mut Plan, at: usize, tracepoint: &ConfigTracepoint) {
    let key = format!("probes.tracepoints[{at}] ({})", tracepoint.name);
    let kinds = match tracepoint.name.parse::<Kinds>() {
        Ok(kinds) => kinds,
        Err(unknown) => return plan.refuse(key, unknown.to_string(), "it is not recorded"),
    };
    if kinds.kinds.iter().any(|kind| plan.settings.probes.kinds.contains(kind)) {
        return plan.refuse(key, "it was named before", "what was said there holds");
    }
    if let Some(filter) = &tracepoint.filter {
        let [kind] = kinds.kinds[..] else {
            return plan.refuse(
                key,
                "a filter is that of one tracepoint, and these are several",
                "name each by itself",
            );
        };
        let disk = |major, minor| disk_name(Path::new("/sys"), major, minor);
        if let Err(bad) = plan.settings.probes.filters.add(kind, filter, disk) {
            let what = if kind.is_default() { "all of it is recorded, as analyses need" } else { "it is not recorded" };
            return plan.refuse(format!("{key}.filter"), bad.to_string(), what);
        }
        if kind.is_default() {
            let how = "it holds where events are listed or streamed; analyses need all of this event, and record it";
            plan.tell(format!("{key}.filter"), how);
        }
    }
    plan.settings.probes.kinds.extend(kinds.kinds);
}
