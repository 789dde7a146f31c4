//! The BPF programs of the machine, whoever loaded them.

use schedtrace_core::analysis::GroupBy;

#[cfg(feature = "live")]
use super::system::told;
use super::{Cx, View};
use crate::engine::Wants;
use crate::keys::Action;
use crate::machine::Part;
use crate::sheet::{Column, Sheet};
#[cfg(feature = "live")]
use crate::sheet::{Row, Target, Value};

pub(super) struct Programs;

const PROGRAMS: &[Column] = &[
    Column { name: "ID", about: "The kernel's number of it.", width: 7, rank: 1 },
    Column { name: "PROGRAM", about: "Its name.", width: 32, rank: 0 },
    Column { name: "KIND", about: "What kind of program it is.", width: 14, rank: 2 },
    Column { name: "CPU", about: "What it takes now, as a share of one CPU.", width: 7, rank: 1 },
    Column { name: "RUNS", about: "How often it runs now.", width: 9, rank: 1 },
    Column { name: "RUN", about: "How long a run takes now, on average.", width: 8, rank: 1 },
    Column { name: "ALL RUNS", about: "How often it ran while runs were counted.", width: 11, rank: 3 },
    Column { name: "ALL TIME", about: "What these took together.", width: 9, rank: 3 },
    Column { name: "MISSED", about: "Runs left out, since it was running on that CPU already.", width: 7, rank: 4 },
    Column { name: "HELD BY", about: "Processes that hold it open.", width: 22, rank: 2 },
    Column { name: "ATTACHED TO", about: "Where, as far as the kernel tells.", width: 0, rank: 2 },
];

impl View for Programs {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        Wants::default()
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Programs]
    }

    #[cfg(feature = "live")]
    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        match told(cx, |machine| &machine.programs) {
            // Who records gave the right up with the others.
            Err(why) if cx.without.is_none() && cx.machine.is_some_and(|machine| machine.programs.is_some()) => {
                let why = format!("{why}. Once it records, schedtrace has no such right any more, whoever started it");
                vec![Sheet::new("BPF programs", PROGRAMS, Vec::new()).or(why)]
            }
            Err(why) => vec![Sheet::new("BPF programs", PROGRAMS, Vec::new()).or(why)],
            Ok(found) => {
                let title = match found.run_times_known {
                    true => "BPF programs",
                    false => "BPF programs; the kernel does not count their runs: `sysctl kernel.bpf_stats_enabled=1`",
                };
                vec![Sheet::new(title, PROGRAMS, found.programs.iter().map(row).collect()).or("none is loaded")]
            }
        }
    }

    #[cfg(not(feature = "live"))]
    fn sheets(&self, _: &Cx<'_>) -> Vec<Sheet> {
        let why = "this schedtrace was built without `live`, and cannot look at BPF programs";
        vec![Sheet::new("BPF programs", PROGRAMS, Vec::new()).or(why)]
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::SortNext, Action::Filter]
    }
}

#[cfg(feature = "live")]
fn row((program, cost): &(schedtrace_core::live::inspect::Program, Option<crate::machine::Cost>)) -> Row {
    let runs = &program.runs;
    let joined = |all: Vec<String>| Value::text(all.join(", "));
    let counted = |value| if runs.run_time_known { value } else { Value::None };
    let name = if program.is_schedtrace { format!("{} (schedtrace)", program.name) } else { program.name.clone() };
    Row {
        target: Target::Named(program.id.to_string()),
        depth: 0,
        cells: vec![
            Value::Count(program.id.into()),
            Value::text(name),
            Value::text(program.ty.clone()),
            cost.map_or(Value::None, |cost| Value::Ratio(cost.cpu_ratio)),
            cost.map_or(Value::None, |cost| Value::Rate(cost.runs_per_second)),
            cost.and_then(|cost| cost.mean_ns).map_or(Value::None, |ns| Value::Lasted(ns as u64)),
            counted(Value::Count(runs.run_count)),
            counted(Value::Lasted(runs.run_time_ns.0)),
            Value::Count(runs.recursion_misses),
            joined(program.holders.iter().map(|holder| format!("{}[{}]", holder.comm, holder.pid)).collect()),
            joined(program.attachments.iter().map(ToString::to_string).collect()),
        ],
    }
}
