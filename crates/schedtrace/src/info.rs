//! `schedtrace info`

use std::io::Write;

use schedtrace_core::trace::{TraceReader, TraceState};
use schedtrace_core::{Account, Error, Kind, Source};

use crate::args::InfoArgs;
use crate::render::{Column, heading, table, warning};
use crate::{Failure, listing, print_json, units};

pub(crate) fn run(args: &InfoArgs) -> Result<(), Failure> {
    let trace = match TraceReader::open(&args.trace) {
        Err(error @ Error::NotATrace { .. }) => return listing::run(&args.trace, args.json, error),
        trace => trace?,
    };
    let info = trace.info()?;
    if args.json {
        return print_json(&info);
    }
    let meta = trace.meta();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", heading(&info.path.display().to_string()))?;
    writeln!(out, "  host      {} · Linux {} · {}", info.host.hostname, info.host.kernel, info.host.machine)?;
    writeln!(out, "  CPUs      {}", meta.topology.shape())?;
    let started = units::started(meta).unwrap_or_else(|| "at an unknown time".into());
    writeln!(out, "  window    {} from {started}", info.window.duration_ns)?;
    let state = match info.state {
        TraceState::Finished => "finished".to_owned(),
        TraceState::Recording => warning("still being recorded: this is what was there at the last commit"),
        TraceState::Interrupted => warning("interrupted: it ends at the last commit; `schedtrace repair` finishes it"),
        TraceState::Repaired => warning("interrupted, and repaired since: it ends at the last commit"),
    };
    writeln!(out, "  state     {state}")?;
    if let Some(fired) = &meta.trigger {
        let at = units::offset(fired.at_ns, meta.started);
        writeln!(out, "  because   {fired} ({at})")?;
        if let Some(trigger) = &fired.trigger {
            writeln!(out, "  trigger   {}", trigger.chars().filter(|c| !c.is_control()).collect::<String>())?;
        }
    }
    if let Some(transport) = meta.transport {
        writeln!(out, "  transport {transport}")?;
    }
    let filters = &meta.filters;
    if !filters.is_empty() {
        let mut only = Vec::new();
        only.extend(filters.pids.iter().map(|pid| format!("process {pid} and its descendants")));
        only.extend(filters.cgroups.iter().map(|path| format!("cgroup {path}")));
        only.extend(filters.cpus.iter().map(|cpu| format!("CPU {cpu}")));
        only.extend(filters.events.iter().cloned());
        writeln!(out, "  only      {}", only.join(", "))?;
    }
    for probe in meta.probes.iter().filter(|probe| probe.why.is_some()) {
        let on = if probe.on { "" } else { "off: " };
        writeln!(out, "  {}  {on}{}", probe.kind, probe.why.as_deref().unwrap_or_default())?;
    }
    writeln!(out)?;
    let columns = [Column::Text("TABLE"), Column::Number("ROWS"), Column::Number("BYTES"), Column::Number("PER ROW")];
    // Of what was asked for and did not happen, the JSON tells.
    let asked_for = |name: &str| name.parse::<Kind>().is_ok_and(|kind| !kind.is_default());
    let tables = info.tables.iter().filter(|table| table.rows > 0 || !asked_for(&table.name));
    let rows = tables.map(|t| {
        let each = if t.rows == 0 { String::new() } else { format!("{:.1}", t.bytes as f64 / t.rows as f64) };
        vec![t.name.clone(), units::count(t.rows), units::bytes(t.bytes), each]
    });
    write!(out, "{}", table(&columns, rows))?;
    writeln!(out, "  {} in all", units::bytes(info.bytes))?;
    writeln!(out)?;
    let completeness = &info.completeness;
    let events = units::plural(completeness.events, "event");
    if completeness.complete {
        writeln!(out, "  complete: {events}, nothing lost")?;
    } else {
        writeln!(out, "  {}", warning(&format!("not complete: {events}")))?;
    }
    for row in &completeness.lost {
        writeln!(out, "  lost      {}", units::lost(row.count, row.kind, &row.place))?;
    }
    if completeness.late > 0 {
        writeln!(out, "  late      {}, kept", units::plural(completeness.late, "event"))?;
    }
    if completeness.removed.segments > 0 {
        let rows = units::plural(completeness.removed.rows, "row");
        writeln!(out, "  removed   {rows}, the oldest, to keep to the limits")?;
    }
    if info.accounts.iter().any(|account| account.lost > 0 || account.unaccounted() != 0) {
        writeln!(out)?;
        write!(out, "{}", ledger(&info.accounts))?;
    }
    Ok(())
}

/// What became of every event, by ring and kind.
fn ledger(accounts: &[Account]) -> String {
    let numbers = ["EMITTED", "DELIVERED", "LOST", "UNACCOUNTED"].map(Column::Number);
    let columns: Vec<_> = [Column::Text("RING"), Column::Text("KIND")].into_iter().chain(numbers).collect();
    let rows = accounts.iter().filter(|account| account.emitted > 0).map(|account| {
        let counts = [account.emitted, account.delivered, account.lost].map(units::count);
        let names = [account.shard.to_string(), account.kind.to_string()];
        names.into_iter().chain(counts).chain([account.unaccounted().to_string()]).collect()
    });
    table(&columns, rows)
}
