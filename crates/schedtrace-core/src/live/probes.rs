//! What the running kernel can record, from its BTF, and what is switched off because it cannot.

use std::path::Path;

use libbpf_rs::btf::types::{DataSec, Struct, Typedef, Var};
use libbpf_rs::btf::{Btf, BtfKind};

use crate::error::{Error, Result};
use crate::event::Kind;
use crate::source::Probe;

/// The kinds that a user may select: one tracepoint each.
pub(super) const SELECTABLE: [Kind; 9] = [
    Kind::Switch,
    Kind::Waking,
    Kind::WakeupNew,
    Kind::Migrate,
    Kind::Fork,
    Kind::Exec,
    Kind::Exit,
    Kind::Free,
    Kind::Rename,
];

/// Facts about a kernel that decide what is loaded.
pub(super) trait Kernel {
    /// Whether it has a tracepoint of this name.
    fn has_tracepoint(&self, name: &str) -> bool;
}

/// The running kernel's BTF.
#[derive(Debug)]
pub(super) struct Vmlinux(Btf<'static>);

impl Vmlinux {
    pub(super) fn read(path: &Path) -> Result<Self> {
        Btf::from_path(path).map(Self).map_err(|error| Error::NoBtf { path: path.to_owned(), why: error.to_string() })
    }

    /// Bytes from a CPU's run queue to its `preempt_count`, both per-CPU variables, where the architecture keeps it in
    /// one: `__preempt_count`, or from 6.2 to 6.14 a member of `pcpu_hot` (`arch/x86/include/asm/current.h` there).
    pub(super) fn preempt_count_from_rq(&self) -> Option<i64> {
        let section: DataSec<'_> = self.0.type_by_name(".data..percpu")?;
        let offset_of = |name: &str| {
            section.iter().find_map(|entry| {
                let var = self.0.type_by_id::<Var<'_>>(entry.ty)?;
                (var.name()? == name).then_some(i64::from(entry.offset))
            })
        };
        let rq = offset_of("runqueues")?;
        if let Some(count) = offset_of("__preempt_count") {
            return Some(count - rq);
        }
        let hot = offset_of("pcpu_hot")?;
        self.member_offset("pcpu_hot", "preempt_count").map(|member| hot + member - rq)
    }

    /// Where a member stands in a struct, also inside unnamed members.
    fn member_offset(&self, name: &str, member: &str) -> Option<i64> {
        fn within(btf: &Btf<'_>, ty: libbpf_rs::btf::TypeId, member: &str, depth: u32) -> Option<i64> {
            use libbpf_rs::btf::types::{Composite, MemberAttr};
            let composite = Composite::try_from(btf.type_by_id::<libbpf_rs::btf::BtfType<'_>>(ty)?).ok()?;
            composite.iter().find_map(|field| {
                let MemberAttr::Normal { offset } = field.attr else { return None };
                let here = i64::from(offset / 8);
                match field.name {
                    Some(name) if name == member => Some(here),
                    None if depth > 0 => within(btf, field.ty, member, depth - 1).map(|inner| here + inner),
                    _ => None,
                }
            })
        }
        let found: Struct<'_> = self.0.type_by_name(name)?;
        within(&self.0, found.type_id(), member, 4)
    }
}

impl Kernel for Vmlinux {
    fn has_tracepoint(&self, name: &str) -> bool {
        // libbpf attaches a tp_btf program by this typedef, which the kernel's tracepoint headers make.
        self.0
            .type_by_name::<Typedef<'_>>(&format!("btf_trace_{name}"))
            .is_some_and(|found| found.kind() == BtfKind::Typedef)
    }
}

/// Which events are recorded, and which programs that takes.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) probes: Vec<Probe>,
    /// The programs to load: those of the selected events, and those that keep identities true.
    pub(super) programs: Vec<Kind>,
}

/// Decides what is recorded. `asked`: kinds named by the user, who is told when one cannot be had; without them,
/// everything that the kernel has.
pub(super) fn select(kernel: &dyn Kernel, asked: Option<&[Kind]>) -> Result<Selection> {
    if let Some(kind) = asked.unwrap_or_default().iter().find(|kind| !SELECTABLE.contains(kind)) {
        let names = SELECTABLE.map(Kind::name).join(", ");
        return Err(Error::Invalid(format!("`{kind}` is not an event that can be selected: use some of {names}")));
    }
    if asked.is_some_and(<[Kind]>::is_empty) {
        return Err(Error::Invalid("no event is selected: name at least one, or leave the list out".into()));
    }
    let mut selection = Selection { probes: Vec::new(), programs: Vec::new() };
    for kind in SELECTABLE {
        let selected = asked.is_none_or(|kinds| kinds.contains(&kind));
        let there = kernel.has_tracepoint(kind.name());
        if selected && !there && asked.is_some() {
            return Err(Error::NoTracepoint { event: kind.name().into() });
        }
        let why = match (selected, there) {
            (false, _) => Some("not selected".to_owned()),
            (true, false) => Some("this kernel has no such tracepoint".to_owned()),
            (true, true) => None,
        };
        selection.probes.push(Probe { kind, on: selected && there, why });
        if there && (selected || keeps_identity(kind)) {
            selection.programs.push(kind);
        }
    }
    Ok(selection)
}

/// Programs that run whether their events are selected or not, because identities depend on them.
fn keeps_identity(kind: Kind) -> bool {
    matches!(kind, Kind::Fork | Kind::Exec | Kind::Free | Kind::Rename)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Without(&'static str);
    impl Kernel for Without {
        fn has_tracepoint(&self, name: &str) -> bool {
            name != self.0
        }
    }

    #[test]
    fn a_missing_tracepoint_is_switched_off_and_told() {
        let selection = select(&Without("task_rename"), None).unwrap();
        assert!(!selection.programs.contains(&Kind::Rename));
        let off: Vec<_> = selection.probes.iter().filter(|probe| !probe.on).collect();
        assert_eq!(off.len(), 1);
        assert_eq!(off[0].kind, Kind::Rename);
        assert!(off[0].why.as_deref().unwrap().contains("no such tracepoint"));
    }

    #[test]
    fn a_missing_tracepoint_that_was_asked_for_is_an_error() {
        let error = select(&Without("sched_waking"), Some(&[Kind::Switch, Kind::Waking])).unwrap_err();
        assert!(error.to_string().contains("`sched_waking`"), "{error}");
        let selection = select(&Without("sched_waking"), Some(&[Kind::Switch])).unwrap();
        assert_eq!(selection.programs, [Kind::Switch, Kind::Fork, Kind::Exec, Kind::Free, Kind::Rename]);
    }

    #[test]
    fn what_is_no_event_cannot_be_selected() {
        assert!(select(&Without(""), Some(&[Kind::Identity])).is_err());
        assert!(select(&Without(""), Some(&[])).is_err());
    }
}
