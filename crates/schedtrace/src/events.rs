//! `--events help`: which events there are.

use std::io::Write;

use schedtrace_core::live::Collector;
use schedtrace_core::{EventGroup, Kind};

use crate::Failure;
use crate::render::{heading, quiet};

/// Lists the events by their groups; of those that this kernel cannot have recorded, why not.
pub(crate) fn help() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let probes = Collector::capabilities().probes;
    let kinds = || Kind::ALL.into_iter().filter(|kind| kind.is_selectable());
    for (name, group) in EventGroup::ALL {
        writeln!(out, "{}", heading(name))?;
        for kind in kinds().filter(|kind| kind.group() == group) {
            let by_default = if kind.is_default() { "*" } else { " " };
            let about = kind.about();
            let about = about.split_once(": ").map_or(about, |(_, rest)| rest);
            writeln!(out, "{by_default} {:<30} {about}", kind.name())?;
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
