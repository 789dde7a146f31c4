//! Which events there are, and what each takes: for documents, and for whoever lets people choose.

use super::decode;
use super::probes::{PROGRAMS, sampled_from};
use crate::event::{FieldType, Kind};

/// A kind of events that can be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventInfo {
    /// Which.
    pub kind: Kind,
    /// What it is recorded by: tracepoints, functions of the kernel's (`name()`), events of perf; or the file that it is
    /// sampled from.
    pub probes: Vec<String>,
    /// The first kernel that has it, and what else that takes. Nothing was tried on kernels before 6.1.
    pub needs: &'static str,
    /// The bytes of a record in a log of the arena; a ring adds 8. 0 where none is sent.
    pub record_bytes: u32,
}

/// All kinds of events that can be asked for.
///
/// ```
/// use schedtrace_core::Kind;
/// let events = schedtrace_core::live::events();
/// let wait = events.iter().find(|event| event.kind == Kind::FutexWait).expect("all are there");
/// assert_eq!((wait.record_bytes, wait.needs), (48, "6.1"));
/// assert!(wait.probes.contains(&"sys_exit".to_owned()));
/// ```
#[must_use]
pub fn events() -> Vec<EventInfo> {
    Kind::selectable().map(describe).collect()
}

fn describe(kind: Kind) -> EventInfo {
    let programs = PROGRAMS.iter().filter(|program| program.kinds.contains(&kind));
    let mut probes: Vec<String> = programs.map(|program| program.needs.text()).collect();
    probes.extend(sampled_from(kind).filter(|file| !file.is_empty()).map(str::to_owned));
    EventInfo { kind, probes, needs: needs(kind), record_bytes: decode::record_bytes(kind) }
}

fn needs(kind: Kind) -> &'static str {
    match kind {
        Kind::Hang => "6.1, CONFIG_DETECT_HUNG_TASK",
        // Those of other tasks are found by `bpf_task_from_pid()`.
        Kind::PrioChange => "6.1; of other tasks 6.2",
        Kind::IpiSend => "6.4",
        Kind::IpiEntry | Kind::IpiExit => "6.1, x86",
        Kind::ScxInsert | Kind::ScxDispatch | Kind::ScxMove | Kind::ScxCpuperf => "6.12, sched_ext and fentry",
        Kind::ScxLoad | Kind::ScxUnload => "6.12, sched_ext",
        Kind::Pressure => "6.1, CONFIG_PSI",
        Kind::SchedStats => "6.1, CONFIG_SCHEDSTATS",
        _ => "6.1",
    }
}

/// A row of the table in docs/events.md, up to what is measured.
#[doc(hidden)]
#[must_use]
pub fn catalog_row(event: &EventInfo) -> String {
    let EventInfo { kind, probes, needs, record_bytes } = event;
    let probes: Vec<_> = probes.iter().map(|probe| format!("`{probe}`")).collect();
    let probes = if probes.is_empty() { "the recorder itself".to_owned() } else { probes.join(", ") };
    let (log, ring) = match (record_bytes, kind.is_sampled(), decode::goes_over_the_ring(*kind)) {
        (_, true, _) => ("-".to_owned(), "-".to_owned()),
        (bytes, _, true) => ("-".to_owned(), (bytes + 8).to_string()),
        (bytes, ..) => (bytes.to_string(), (bytes + 8).to_string()),
    };
    format!("| `{kind}` | {} | {probes} | {needs} | {log} | {ring} |", kind.group())
}

/// What each event says, and its fields, for docs/events.md.
#[doc(hidden)]
#[must_use]
pub fn catalog_fields() -> String {
    let mut text = String::new();
    for event in events() {
        let kind = event.kind;
        text += &format!("- **`{kind}`**: {}\n", kind.about());
        for field in kind.fields() {
            let values = match field.ty {
                FieldType::Choice(names) => format!(" One of {}.", names.join(", ")),
                _ => String::new(),
            };
            text += &format!("  - `{}`: {}{values}\n", field.name, field.about);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/events.md, but for what `scripts/bench.sh events` measures.
    #[test]
    fn the_guide_lists_what_there_is() {
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events.md");
        let Ok(guide) = std::fs::read_to_string(guide) else { return };
        let rows: Vec<_> = guide.lines().filter(|line| line.starts_with("| `")).collect();
        for event in events() {
            let row = catalog_row(&event);
            assert!(
                rows.iter().any(|line| line.starts_with(&row)),
                "docs/events.md lacks {row}: scripts/bench.sh events"
            );
        }
        assert!(guide.contains(&catalog_fields()), "docs/events.md has other fields: scripts/bench.sh events");
    }

    #[test]
    fn whatever_is_recorded_says_by_what() {
        for event in events() {
            let by_itself = matches!(event.kind, Kind::TraceStarted | Kind::TraceStopped);
            assert_eq!(event.probes.is_empty(), by_itself, "{event:?}");
            assert_eq!(event.record_bytes == 0, event.kind.is_sampled(), "{event:?}");
        }
    }
}
