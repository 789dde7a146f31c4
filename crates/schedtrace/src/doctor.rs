//! `schedtrace doctor`

use std::io::Write;
use std::process::ExitCode;

use schedtrace_core::live::{Capabilities, Collector, State};
use schedtrace_core::{EventGroup, Probe};
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::render::{heading, warning};
use crate::{FAILURE, Failure, print_json};

#[derive(Serialize)]
struct Told<'a> {
    can_record: bool,
    #[serde(flatten)]
    capabilities: &'a Capabilities,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let capabilities = Collector::capabilities();
    let can_record = capabilities.can_record();
    if args.json {
        print_json(&Told { can_record, capabilities: &capabilities })?;
    } else {
        print(&capabilities)?;
    }
    Ok(if can_record { ExitCode::SUCCESS } else { FAILURE.into() })
}

fn print(capabilities: &Capabilities) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let host = &capabilities.host;
    writeln!(out, "{}", heading(&format!("{} · Linux {} · {}", host.hostname, host.kernel, host.machine)))?;
    for check in &capabilities.checks {
        let state = format!("{:<8}", check.state.name());
        let state = if matches!(check.state, State::Ok | State::Absent) { state } else { warning(&state) };
        writeln!(out, "  {state} {:<13} {}", check.aspect.name(), check.found)?;
        for (what, text) in [("costs", &check.costs), ("mend", &check.mend)] {
            if let Some(text) = text {
                writeln!(out, "{:25}{what}: {text}", "")?;
            }
        }
    }
    let line = |probe: &Probe| {
        let on = if probe.on { "on" } else { "off" };
        let line = format!("  {on:<8} {:<19} {}", probe.kind.name(), probe.why.as_deref().unwrap_or_default());
        line.trim_end().to_owned()
    };
    writeln!(out, "\n{}", heading("Events"))?;
    let (by_default, more): (Vec<_>, Vec<_>) = capabilities.probes.iter().partition(|probe| probe.kind.is_default());
    by_default.into_iter().try_for_each(|probe| writeln!(out, "{}", line(probe)))?;
    // Of those that have to be asked for, how many there are, and which are not.
    writeln!(out, "\n{}", heading("More, with --events"))?;
    for (name, group) in EventGroup::ALL {
        let of_group = more.iter().filter(|probe| probe.kind.group() == group);
        let (on, off): (Vec<_>, Vec<_>) = of_group.partition(|probe| probe.on);
        writeln!(
            out,
            "  {:<8} {name:<19} {} of {}",
            if on.is_empty() { "off" } else { "on" },
            on.len(),
            on.len() + off.len()
        )?;
        off.into_iter().try_for_each(|probe| writeln!(out, "  {}", line(probe)))?;
    }
    let verdict = match capabilities.can_record() {
        true => "`schedtrace record` works here".to_owned(),
        false => warning("`schedtrace record` does not work here"),
    };
    writeln!(out, "\n{verdict}").map_err(Failure::from)
}
