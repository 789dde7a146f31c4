//! `schedtrace doctor`

use std::io::Write;
use std::process::ExitCode;

use schedtrace_core::live::{Capabilities, Collector, State};
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
    writeln!(out, "\n{}", heading("Events"))?;
    for probe in &capabilities.probes {
        let on = if probe.on { "on" } else { "off" };
        let line = format!("  {on:<8} {:<19} {}", probe.kind.name(), probe.why.as_deref().unwrap_or_default());
        writeln!(out, "{}", line.trim_end())?;
    }
    let verdict = match capabilities.can_record() {
        true => "`schedtrace record` works here".to_owned(),
        false => warning("`schedtrace record` does not work here"),
    };
    writeln!(out, "\n{verdict}").map_err(Failure::from)
}
