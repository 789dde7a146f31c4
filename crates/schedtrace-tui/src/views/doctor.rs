//! What can be recorded here, what is missing, and how to get it.

use schedtrace_core::analysis::GroupBy;
use schedtrace_core::system::kernel::KernelInfo;
use schedtrace_core::{EventGroup, Probe, Transport};

use super::system::{named, sheet, told};
use super::{Cx, View};
use crate::engine::Wants;
use crate::keys::Action;
use crate::machine::Part;
use crate::sheet::{Column, Row, Sheet, Target, Value};

pub(super) struct Doctor;

const CHECKS: &[Column] = &[
    Column { name: "STATE", about: "ok; absent, and not needed; limited; failed.", width: 8, rank: 0 },
    Column { name: "WHAT", about: "What was looked at.", width: 14, rank: 0 },
    Column { name: "FOUND", about: "How it is, what that costs, and how to mend it.", width: 0, rank: 0 },
];

const EVENTS: &[Column] = &[
    Column { name: "STATE", about: "Whether it is recorded.", width: 6, rank: 0 },
    Column { name: "EVENT", about: "Its name.", width: 24, rank: 0 },
    Column { name: "GROUP", about: "The group by which it is asked for, with --events.", width: 12, rank: 1 },
    Column { name: "WHY NOT", about: "Why it is not, where that was not asked for.", width: 0, rank: 1 },
];

const KERNEL: &[Column] = &[
    Column { name: "KERNEL", about: "What was looked at.", width: 36, rank: 0 },
    Column { name: "FOUND", about: "How it is.", width: 0, rank: 0 },
];

impl View for Doctor {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        Wants::default()
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Kernel, Part::Recording]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let kernel = sheet("the kernel", KERNEL, told(cx, |machine| &machine.kernel), kernel);
        let sheets = if cx.without.is_some() {
            without(cx, kernel)
        } else {
            vec![recorded(cx), events(&cx.meta.probes), kernel]
        };
        // What to do stands at the end of a sentence.
        sheets.into_iter().map(Sheet::wrapped).collect()
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::NextPanel, Action::Filter]
    }
}

/// What was found, and below it what it costs and how to mend it.
fn check(state: &'static str, what: &'static str, found: String, costs: Option<&str>, mend: Option<&str>) -> Vec<Row> {
    let row = |state: &'static str, name: &'static str, text: String| Row {
        target: Target::Named(format!("{what} {name}")),
        depth: 0,
        cells: vec![Value::text(state), Value::text(name), Value::text(text)],
    };
    let below = [("  costs", costs), ("  mend", mend)];
    let below = below.into_iter().filter_map(|(name, text)| Some(row("", name, text?.to_owned())));
    std::iter::once(row(state, what, found)).chain(below).collect()
}

/// Of what records, or did: it has found out by doing.
fn recorded(cx: &Cx<'_>) -> Sheet {
    let meta = cx.meta;
    let on = meta.probes.iter().filter(|probe| probe.on).count();
    let limited = meta.probes.iter().any(|probe| probe.kind.is_default() && probe.why.is_some());
    let mut rows = check(
        if limited { "limited" } else { "ok" },
        "programs",
        format!("{on} events are recorded"),
        limited.then_some("what the notes beside the events say"),
        None,
    );
    rows.extend(meta.transport.into_iter().flat_map(|transport| match transport {
        Transport::Arena => check("ok", "transport", "logs in a BPF arena, one for each CPU".into(), None, None),
        Transport::Ring => check(
            "ok",
            "transport",
            "BPF ring buffers".into(),
            Some("nothing is missing; recording takes more of the traced tasks' time"),
            Some("Linux 6.10 and later have what the arena takes"),
        ),
        other => check("ok", "transport", format!("{other:?}"), None, None),
    }));
    if !meta.filters.is_empty() {
        rows.extend(check("limited", "filters", "a part only is recorded, as was asked for".into(), None, None));
    }
    Sheet::new("this recording", CHECKS, rows)
}

fn events(probes: &[Probe]) -> Sheet {
    let group_of = |probe: &Probe| EventGroup::ALL.iter().find(|(_, group)| probe.kind.group() == *group);
    let row = |probe: &Probe| {
        let mut row = named(vec![Value::text(probe.kind.name())]);
        let group = if probe.kind.is_default() { Some("default") } else { group_of(probe).map(|(name, _)| *name) };
        row.cells = vec![
            Value::text(if probe.on { "on" } else { "off" }),
            Value::text(probe.kind.name()),
            group.map_or(Value::None, Value::text),
            probe.why.clone().map_or(Value::None, Value::text),
        ];
        row
    };
    Sheet::new("events", EVENTS, probes.iter().map(row).collect()).or("it does not say which events were recorded")
}

/// Of a machine where nothing records: found out by trying, as `schedtrace doctor` does.
#[cfg(feature = "live")]
fn without(cx: &Cx<'_>, kernel: Sheet) -> Vec<Sheet> {
    let recording = || told(cx, |machine| &machine.recording);
    let checks = sheet("what recording builds on", CHECKS, recording(), |found| {
        let row = |it: &schedtrace_core::live::Check| {
            check(it.state.name(), it.aspect.name(), it.found.clone(), it.costs.as_deref(), it.mend.as_deref())
        };
        found.checks.iter().flat_map(row).collect()
    });
    let events = match recording() {
        Ok(found) => events(&found.probes).or("the kernel's events are not known: see above"),
        Err(why) => events(&[]).or(why),
    };
    vec![checks, events, kernel]
}

#[cfg(not(feature = "live"))]
fn without(cx: &Cx<'_>, kernel: Sheet) -> Vec<Sheet> {
    let why = cx.without.unwrap_or_default().to_owned();
    let rows = check("failed", "recording", why, Some("views of events are empty"), None);
    vec![Sheet::new("what recording builds on", CHECKS, rows), kernel]
}

fn kernel(kernel: &KernelInfo) -> Vec<Row> {
    let yes = |yes: Option<bool>| yes.map(|yes| if yes { "yes" } else { "no" }.to_owned());
    let known = [
        ("release", Some(kernel.release.clone())),
        ("version", kernel.version.clone()),
        ("hardware", Some(kernel.machine.clone())),
        ("distribution", kernel.distribution.as_ref().map(|it| it.name.clone())),
        ("describes its types (BTF)", yes(Some(kernel.btf))),
        ("counts runs of BPF programs", yes(kernel.bpf_stats_enabled)),
        ("compiles BPF programs", yes(kernel.bpf_jit_enabled)),
        ("lockdown", kernel.lockdown.clone()),
        ("configuration read from", kernel.config_source.clone()),
    ];
    let row = |name: String, found: String| named(vec![Value::text(name), Value::text(found)]);
    let known = known.into_iter().filter_map(|(name, found)| Some(row(name.to_owned(), found?)));
    known.chain(kernel.config.iter().map(|(name, value)| row(name.clone(), value.clone()))).collect()
}
