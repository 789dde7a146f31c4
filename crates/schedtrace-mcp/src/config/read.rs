//! Which keys there are.

use std::path::PathBuf;

use super::node::{Node, Table};
use super::{
    BadConfig, Config, ConfigLimits, ConfigProbes, ConfigSecurity, ConfigServer, ConfigStorage, ConfigTool,
    ConfigTracepoint, ConfigUprobe,
};

/// The configuration that a file is.
pub(super) fn config(root: &Node) -> Result<Config, BadConfig> {
    let known = [
        "server",
        "probes",
        "storage",
        "tools",
        "security",
        "traces",
        "roots",
        "collect",
        "limits",
        "keep",
        "audit_log",
        "daemon",
    ];
    let table = Table::read(root, "", &known)?;
    let paths = |key: &str| Ok(table.texts(key)?.into_iter().map(PathBuf::from).collect());
    Ok(Config {
        server: section(table, "server", &["name", "version", "transport", "read_only"], server)?,
        probes: section(table, "probes", &["uprobes", "tracepoints"], probes)?,
        storage: section(
            table,
            "storage",
            &["backend", "retention_hours", "precision_ms", "max_events_per_second"],
            storage,
        )?,
        tools: parts(table, "tools", &["name", "description", "schema"], tool)?,
        security: section(table, "security", &["write_access", "pid_filtering", "rate_limit_per_second"], security)?,
        traces: paths("traces")?,
        roots: paths("roots")?,
        collect: table.flag("collect")?,
        limits: section(
            table,
            "limits",
            &["max_duration_s", "max_bytes", "max_at_once", "max_events_per_second"],
            limits,
        )?,
        keep: table.text("keep")?.map(PathBuf::from),
        audit_log: table.text("audit_log")?.map(PathBuf::from),
        daemon: table.flag("daemon")?,
    })
}

/// What stands under a key that has keys of its own.
fn section<T: Default>(
    table: Table<'_>,
    key: &str,
    known: &[&str],
    read: fn(Table<'_>) -> Result<T, BadConfig>,
) -> Result<T, BadConfig> {
    let Some(node) = table.get(key) else { return Ok(T::default()) };
    read(Table::read(node, &table.path(key), known)?)
}

/// The parts of a list, each of which has keys.
fn parts<T>(
    table: Table<'_>,
    key: &str,
    known: &[&str],
    read: fn(Table<'_>) -> Result<T, BadConfig>,
) -> Result<Option<Vec<T>>, BadConfig> {
    let Some(list) = table.list(key)? else { return Ok(None) };
    let read = |(path, node): &(String, &Node)| read(Table::read(node, path, known)?);
    list.iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn server(table: Table<'_>) -> Result<ConfigServer, BadConfig> {
    Ok(ConfigServer {
        name: table.text("name")?,
        version: table.text("version")?,
        transport: table.text("transport")?,
        read_only: table.flag("read_only")?,
    })
}

fn probes(table: Table<'_>) -> Result<ConfigProbes, BadConfig> {
    Ok(ConfigProbes {
        uprobes: parts(table, "uprobes", &["library", "symbol", "attach"], uprobe)?.unwrap_or_default(),
        tracepoints: parts(table, "tracepoints", &["name", "filter"], tracepoint)?,
    })
}

fn uprobe(table: Table<'_>) -> Result<ConfigUprobe, BadConfig> {
    let (library, symbol) = (table.required("library")?, table.required("symbol")?);
    Ok(ConfigUprobe { library, symbol, attach: table.text("attach")? })
}

fn tracepoint(table: Table<'_>) -> Result<ConfigTracepoint, BadConfig> {
    Ok(ConfigTracepoint { name: table.required("name")?, filter: table.text("filter")? })
}

fn storage(table: Table<'_>) -> Result<ConfigStorage, BadConfig> {
    Ok(ConfigStorage {
        backend: table.text("backend")?,
        retention_hours: table.number("retention_hours")?,
        precision_ms: table.number("precision_ms")?,
        max_events_per_second: table.whole("max_events_per_second")?,
    })
}

fn tool(table: Table<'_>) -> Result<ConfigTool, BadConfig> {
    Ok(ConfigTool {
        name: table.required("name")?,
        description: table.text("description")?,
        schema: table.text("schema")?,
    })
}

fn security(table: Table<'_>) -> Result<ConfigSecurity, BadConfig> {
    Ok(ConfigSecurity {
        write_access: table.flag("write_access")?,
        pid_filtering: table.flag("pid_filtering")?,
        rate_limit_per_second: table.number("rate_limit_per_second")?,
    })
}

fn limits(table: Table<'_>) -> Result<ConfigLimits, BadConfig> {
    Ok(ConfigLimits {
        max_duration_s: table.whole("max_duration_s")?,
        max_bytes: table.whole("max_bytes")?,
        max_at_once: table.whole("max_at_once")?,
        max_events_per_second: table.whole("max_events_per_second")?,
    })
}
