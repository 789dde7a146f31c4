//! `--events help`: which events there are.

use std::io::Write;

use schedtrace_core::live::Collector;
use schedtrace_core::{EventGroup, Kind};

use crate::Failure;
use crate::render::{heading, quiet};

/// The first sentence of what is said of an event, without the names that it has in the kernel.
fn first_sentence(about: &str) -> String {
    let about = if about.starts_with('`') { about.split_once(": ").map_or(about, |(_, rest)| rest) } else { about };
    let first = about.split_once(". ").map_or(about, |(first, _)| first).trim_end_matches('.');
    let mut letters = first.chars();
    letters.next().map_or_else(String::new, |letter| letter.to_uppercase().chain(letters).collect())
}

/// Lists the events by their groups; of those that this kernel cannot have recorded, why not.
pub(crate) fn help() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let capabilities = Collector::capabilities();
    // Where nothing can be recorded, `doctor` says why; nothing is wrong with any single event.
    let probes = if capabilities.can_record() { capabilities.probes } else { Vec::new() };
    let kinds = || Kind::selectable();
    for (name, group) in EventGroup::ALL {
        writeln!(out, "{}", heading(name))?;
        for kind in kinds().filter(|kind| kind.group() == group) {
            let by_default = if kind.is_default() { "*" } else { " " };
            writeln!(out, "{by_default} {:<30} {}", kind.name(), first_sentence(kind.about()))?;
            let off = probes.iter().find(|probe| probe.kind == kind && !probe.on);
            if let Some(why) = off.and_then(|probe| probe.why.as_deref()) {
                writeln!(out, "  {:<30} {}", "", quiet(&format!("not here: {why}")))?;
            }
        }
    }
    writeln!(
        out,
        "\n* is recorded by default. A name stands for one event, that of a group for all of its events that the kernel has;\n\
         `default` and `all` are groups too: --events default,irq,futex_wait"
    )
    .map_err(Failure::from)
}
