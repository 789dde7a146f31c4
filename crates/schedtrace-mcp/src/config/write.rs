//! What is in force, as a configuration that reads back as the same.

use std::fmt::{self, Write};
use std::path::Path;

use schedtrace_core::Kind;
use serde_json::Value;

use super::Plan;
use crate::tools;

/// YAML with a comment for whatever is refused, done otherwise, or left at its default.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "# What is in force. A line that begins with # says what is so by default, or could not be done.\n",
        )?;
        for refused in &self.refused {
            writeln!(f, "# {refused}")?;
        }
        for told in &self.told {
            writeln!(f, "# {told}")?;
        }
        self.write_server(f)?;
        self.write_probes(f)?;
        self.write_limits(f)?;
        self.write_tools(f)?;
        let settings = &self.settings;
        f.write_str("security:\n  write_access: false\n  pid_filtering: true\n")?;
        optional(f, "  ", "rate_limit_per_second", settings.calls_per_second, "without limit")?;
        let given = !settings.traces.is_empty() || !settings.roots.is_empty();
        let nowhere = if given { "none" } else { "those in the folder that it runs in" };
        for (key, places) in [("traces", &settings.traces), ("roots", &settings.roots)] {
            match places.is_empty() {
                true => writeln!(f, "# {key}: {nowhere}")?,
                false => writeln!(f, "{key}:")?,
            }
            places.iter().try_for_each(|place| writeln!(f, "  - {}", quoted_path(place)))?;
        }
        writeln!(f, "collect: {}\ndaemon: {}", settings.collect, settings.daemon)?;
        optional(f, "", "keep", settings.keep.as_deref().map(quoted_path), "nothing stays when the server ends")?;
        optional(f, "", "audit_log", settings.audit_log.as_deref().map(quoted_path), "no file")
    }
}

impl Plan {
    fn write_server(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        f.write_str("server:\n")?;
        optional(f, "  ", "name", settings.name.as_deref().map(quoted), crate::NAME)?;
        optional(f, "  ", "version", settings.version.as_deref().map(quoted), crate::VERSION)?;
        writeln!(f, "  transport: \"stdio\"\n  read_only: {}", !settings.collect)
    }

    fn write_probes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let probes = &self.settings.probes;
        if probes.kinds.is_empty() {
            let recorded = probes.recorded().map(Kind::name).collect::<Vec<_>>().join(", ");
            return writeln!(f, "probes:\n  # tracepoints: {recorded}");
        }
        f.write_str("probes:\n  tracepoints:\n")?;
        for kind in &probes.kinds {
            writeln!(f, "    - name: {}", quoted(kind.name()))?;
            if let Some((_, filter)) = probes.filters.iter().find(|(of, _)| of == kind) {
                writeln!(f, "      filter: {}", quoted(filter))?;
            }
        }
        Ok(())
    }

    fn write_limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = &self.settings.limits;
        f.write_str("storage:\n  backend: \"columnar\"\n")?;
        let hours = self.settings.probes.retention.map(|age| age.as_secs_f64() / 3600.0);
        optional(f, "  ", "retention_hours", hours, "as long as there is room")?;
        optional(f, "  ", "max_events_per_second", limits.max_events_per_second, "without limit")?;
        writeln!(f, "limits:\n  max_duration_s: {}", limits.max_duration.as_secs())?;
        writeln!(f, "  max_bytes: {}\n  max_at_once: {}", limits.max_bytes, limits.max_at_once)
    }

    fn write_tools(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(chosen) = &self.settings.tools else {
            return writeln!(f, "# tools: all ({})", tools::names().collect::<Vec<_>>().join(", "));
        };
        if chosen.is_empty() {
            return f.write_str("tools: []\n");
        }
        f.write_str("tools:\n")?;
        for tool in chosen {
            writeln!(f, "  - name: {}", quoted(&tool.name))?;
            if let Some(description) = &tool.description {
                writeln!(f, "    description: {}", quoted(description))?;
            }
        }
        Ok(())
    }
}

/// What was set, or as a comment what is so by default.
fn optional(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    key: &str,
    value: Option<impl fmt::Display>,
    default: &str,
) -> fmt::Result {
    match value {
        Some(value) => writeln!(f, "{indent}{key}: {value}"),
        None => writeln!(f, "{indent}# {key}: {default}"),
    }
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A text in quotes: what JSON takes is YAML, once nothing in it breaks a line.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // YAML takes these for the end of a line, or for nothing that may stand in a file.
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // Writing into a text does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}
