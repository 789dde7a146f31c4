//! What the running kernel can record, from its BTF, and what is switched off because it cannot.

use std::path::Path;

use libbpf_rs::btf::types::{DataSec, Func, Struct, Typedef, Var};
use libbpf_rs::btf::{Btf, BtfKind};

use crate::error::{Error, Result};
use crate::event::{EventGroup, FieldInfo, FieldType, Kind};
use crate::source::Probe;

/// What the kernel has to have for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// A tracepoint.
    Tracepoint(&'static str),
    /// A function at whose beginning or end the program runs (fentry, fexit).
    Function(&'static str),
    /// Software events of perf, on each CPU.
    PerfEvent,
}

impl Needs {
    /// As documents have it.
    pub(super) fn text(self) -> String {
        match self {
            Self::Tracepoint(name) => name.to_owned(),
            Self::Function(name) => format!("{name}()"),
            Self::PerfEvent => "PERF_COUNT_SW_PAGE_FAULTS_MAJ".to_owned(),
        }
    }
}

/// A program of the BPF objects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// What the object calls it.
    pub(super) name: &'static str,
    pub(super) needs: Needs,
    /// The kinds that it records, or takes a part in recording. Runs that it passes over, or that the kernel skips, count
    /// as those of the first.
    pub(super) kinds: &'static [Kind],
}

impl Program {
    /// Whether it speaks of texts by their numbers.
    pub(super) fn tells_names(&self) -> bool {
        let is_name = |field: &FieldInfo| field.ty == FieldType::Name;
        self.kinds.iter().any(|kind| kind.fields().iter().any(is_name))
    }
}

const fn on(name: &'static str, kinds: &'static [Kind]) -> Program {
    Program { name, needs: Needs::Tracepoint(name), kinds }
}

const fn at(name: &'static str, function: &'static str, kinds: &'static [Kind]) -> Program {
    Program { name, needs: Needs::Function(function), kinds }
}

/// All programs but the iterator. They are attached from the last to the first: the most frequent ones last, so that
/// attaching does not record itself.
pub(super) static PROGRAMS: [Program; 51] = [
    on("sched_switch", &[Kind::Switch]),
    on("sched_waking", &[Kind::Waking]),
    on("sched_wakeup_new", &[Kind::WakeupNew]),
    on("sched_migrate_task", &[Kind::Migrate]),
    on("sched_process_fork", &[Kind::Fork]),
    on("sched_process_exec", &[Kind::Exec]),
    on("sched_process_exit", &[Kind::Exit]),
    on("sched_process_free", &[Kind::Free]),
    on("task_rename", &[Kind::Rename]),
    on("sched_wakeup", &[Kind::Wakeup]),
    on("sched_process_wait", &[Kind::Wait]),
    on("sched_process_hang", &[Kind::Hang]),
    on("sched_pi_setprio", &[Kind::PiSetprio]),
    on("irq_handler_entry", &[Kind::IrqEntry]),
    on("irq_handler_exit", &[Kind::IrqExit]),
    on("softirq_entry", &[Kind::SoftirqEntry]),
    on("softirq_exit", &[Kind::SoftirqExit]),
    on("softirq_raise", &[Kind::SoftirqRaise]),
    on("ipi_send_cpu", &[Kind::IpiSend]),
    on("ipi_send_cpumask", &[Kind::IpiSend]),
    on("reschedule_entry", &[Kind::IpiEntry]),
    on("reschedule_exit", &[Kind::IpiExit]),
    on("call_function_entry", &[Kind::IpiEntry]),
    on("call_function_exit", &[Kind::IpiExit]),
    on("call_function_single_entry", &[Kind::IpiEntry]),
    on("call_function_single_exit", &[Kind::IpiExit]),
    on("cpu_frequency", &[Kind::CpuFrequency]),
    on("cpu_idle", &[Kind::CpuIdle]),
    on("cpuhp_enter", &[Kind::HotplugEnter]),
    on("cpuhp_multi_enter", &[Kind::HotplugEnter]),
    on("cpuhp_exit", &[Kind::HotplugExit]),
    on("block_rq_insert", &[Kind::BlockInsert]),
    on("block_rq_issue", &[Kind::BlockIssue, Kind::BlockComplete]),
    on("block_rq_complete", &[Kind::BlockComplete]),
    on("workqueue_execute_start", &[Kind::WorkStart]),
    on("workqueue_execute_end", &[Kind::WorkEnd]),
    on("mm_vmscan_direct_reclaim_begin", &[Kind::ReclaimBegin]),
    on("mm_vmscan_direct_reclaim_end", &[Kind::ReclaimEnd]),
    on("mark_victim", &[Kind::OomKill]),
    Program { name: "major_fault", needs: Needs::PerfEvent, kinds: &[Kind::MajorFault] },
    Program { name: "exec_with_rights", needs: Needs::Tracepoint("sched_process_exec"), kinds: &[Kind::CredChange] },
    Program {
        name: "sys_exit",
        needs: Needs::Tracepoint("sys_exit"),
        kinds: &[
            Kind::SyscallFailed,
            Kind::Syscall,
            Kind::FutexWait,
            Kind::FutexWake,
            Kind::PrioChange,
            Kind::CredChange,
        ],
    },
    on("sys_enter", &[Kind::Syscall, Kind::FutexWait]),
    at("scx_dispatch_612", "scx_bpf_dispatch", &[Kind::ScxInsert, Kind::ScxDispatch]),
    at("scx_dispatch_vtime_612", "scx_bpf_dispatch_vtime", &[Kind::ScxInsert, Kind::ScxDispatch]),
    at("scx_dsq_insert", "scx_bpf_dsq_insert", &[Kind::ScxInsert, Kind::ScxDispatch]),
    at("scx_dsq_insert_vtime", "scx_bpf_dsq_insert_vtime", &[Kind::ScxInsert, Kind::ScxDispatch]),
    at("scx_consume_612", "scx_bpf_consume", &[Kind::ScxMove]),
    at("scx_dsq_move_to_local", "scx_bpf_dsq_move_to_local", &[Kind::ScxMove]),
    at("scx_cpuperf_set", "scx_bpf_cpuperf_set", &[Kind::ScxCpuperf]),
    Program { name: "scx_run", needs: Needs::Tracepoint("sched_switch"), kinds: &[Kind::ScxDispatch] },
];

/// Whether it is a function of sched_ext.
fn is_of_sched_ext(program: &Program) -> bool {
    program.kinds.iter().any(|kind| kind.group() == EventGroup::SchedExt)
}

/// The file that a kind is sampled from, where no program records it; empty for what needs none.
pub(super) fn sampled_from(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::ScxLoad | Kind::ScxUnload => "/sys/kernel/sched_ext/state",
        Kind::TraceStarted | Kind::TraceStopped => "",
        Kind::SystemStat => "/proc/stat",
        Kind::Meminfo => "/proc/meminfo",
        Kind::Loadavg => "/proc/loadavg",
        Kind::Pressure => "/proc/pressure/cpu",
        Kind::NetDev => "/proc/net/dev",
        Kind::SchedStats => "/proc/schedstat",
        Kind::RecorderStat => "/proc/self/stat",
        _ => return None,
    })
}

/// Facts about a kernel that decide what is loaded.
pub(super) trait Kernel {
    /// Whether it has a tracepoint of this name.
    fn has_tracepoint(&self, name: &str) -> bool;
    /// Whether it has a function of this name that a program can be attached to.
    fn has_function(&self, name: &str) -> bool;
    /// Whether there is such a file of procfs or sysfs.
    fn has_file(&self, path: &str) -> bool;

    /// Whether it has what a program needs.
    fn has(&self, needs: Needs) -> bool {
        match needs {
            Needs::Tracepoint(name) => self.has_tracepoint(name),
            Needs::Function(name) => self.has_function(name),
            Needs::PerfEvent => true,
        }
    }
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

    fn has_function(&self, name: &str) -> bool {
        self.0.type_by_name::<Func<'_>>(name).is_some()
    }

    fn has_file(&self, path: &str) -> bool {
        Path::new(path).exists()
    }
}

/// Notes that the kernel refuses the program of an event.
pub(super) fn refuse(probe: &mut Probe, why: &str) {
    if probe.on {
        (probe.on, probe.why) = (false, Some(format!("the kernel refuses its program: {why}")));
    }
}

/// What somebody wants to be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Those that were named; whoever named one is told when it cannot be had.
    pub(super) named: Vec<Kind>,
    /// Those that are recorded where the kernel has them.
    pub(super) possible: Vec<Kind>,
}

impl Wanted {
    pub(super) fn is_default(&self) -> bool {
        self.named.is_empty() && self.possible.is_empty()
    }

    fn wants(&self, kind: Kind) -> bool {
        if self.is_default() { kind.is_default() } else { self.named.contains(&kind) || self.possible.contains(&kind) }
    }
}

/// Which events are recorded, and which programs that takes.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) probes: Vec<Probe>,
    /// The programs to load: those of the selected events, and those that keep identities true.
    pub(super) programs: Vec<&'static Program>,
}

impl Selection {
    pub(super) fn is_on(&self, kind: Kind) -> bool {
        self.probes.iter().any(|probe| probe.kind == kind && probe.on)
    }

    /// The kinds that programs record, and those whose programs keep identities true.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let programs = |kind: &Kind| self.programs.iter().any(|program| program.kinds.contains(kind));
        let counts = |kind: &Kind| programs(kind) && (kind.is_default() || self.is_on(*kind));
        Kind::ALL.into_iter().filter(counts).collect()
    }

    /// What is left of it for a kernel that refuses to load it: without programs at functions, or, where there are none of
    /// these, without all that has to be asked for. None where there is nothing to leave out, or somebody named it.
    pub(super) fn less(&self, wanted: &Wanted, why: &str) -> Option<Self> {
        let functions = self.programs.iter().any(|program| is_of_sched_ext(program));
        let goes = |kind: Kind| {
            let left_out = if functions { kind.group() == EventGroup::SchedExt } else { !kind.is_default() };
            left_out && !kind.is_sampled()
        };
        let mut less = self.clone();
        less.programs.retain(|program| !program.kinds.iter().all(|kind| goes(*kind)));
        if less.programs.len() == self.programs.len() || wanted.named.iter().any(|kind| goes(*kind)) {
            return None;
        }
        less.probes.iter_mut().filter(|probe| goes(probe.kind)).for_each(|probe| refuse(probe, why));
        less.probes.iter().any(|probe| probe.on).then_some(less)
    }
}

/// Decides what is recorded. Says nothing of kinds that are neither wanted nor recorded by default.
pub(super) fn select(kernel: &dyn Kernel, wanted: &Wanted) -> Result<Selection> {
    if let Some(kind) = wanted.named.iter().chain(&wanted.possible).find(|kind| !kind.is_selectable()) {
        return Err(Error::Invalid(format!(
            "`{kind}` is not an event that can be selected: `schedtrace record --events help` lists them"
        )));
    }
    let mut selection = Selection { probes: Vec::new(), programs: Vec::new() };
    for kind in Kind::selectable() {
        let selected = wanted.wants(kind);
        let missing = if selected { missing(kernel, kind) } else { None };
        match &missing {
            Some(why) if wanted.named.contains(&kind) => return Err(cannot(kind, why)),
            _ => {}
        }
        if selected || kind.is_default() {
            let why = if selected { missing.clone() } else { Some("not selected".to_owned()) };
            selection.probes.push(Probe { kind, on: selected && missing.is_none(), why });
        }
    }
    if !selection.probes.iter().any(|probe| probe.on) {
        let why =
            selection.probes.iter().filter(|probe| wanted.wants(probe.kind)).find_map(|probe| probe.why.as_deref());
        let why = why.unwrap_or("`schedtrace doctor` says why");
        return Err(Error::Invalid(format!(
            "none of these events can be recorded here: {why}; ask for others as well"
        )));
    }
    let takes_part = |kind: &Kind| selection.is_on(*kind) || keeps_identity(*kind);
    let programs = PROGRAMS.iter().filter(|program| program.kinds.iter().any(takes_part) && kernel.has(program.needs));
    selection.programs = programs.collect();
    Ok(selection)
}

fn cannot(kind: Kind, why: &str) -> Error {
    match why {
        NO_TRACEPOINT => Error::NoTracepoint { event: kind.name().into() },
        why => Error::Invalid(format!("cannot record `{kind}`: {why}; leave it out of the event list")),
    }
}

const NO_TRACEPOINT: &str = "this kernel has no such tracepoint";

/// Why the kernel cannot have a kind recorded; none where it can.
fn missing(kernel: &dyn Kernel, kind: Kind) -> Option<String> {
    if let Some(file) = sampled_from(kind) {
        return (!file.is_empty() && !kernel.has_file(file)).then(|| format!("there is no {file}"));
    }
    let programs = PROGRAMS.iter().filter(|program| program.kinds.contains(&kind));
    // What only helps elsewhere is no help where the rest is missing.
    let functions = kind.group() == EventGroup::SchedExt;
    let there =
        |program: &Program| kernel.has(program.needs) && (!functions || matches!(program.needs, Needs::Function(_)));
    if programs.clone().any(there) {
        return None;
    }
    Some(match functions {
        true if !kernel.has_file("/sys/kernel/sched_ext/state") => "this kernel has no sched_ext".to_owned(),
        true => "this kernel's sched_ext has no such function".to_owned(),
        false => NO_TRACEPOINT.to_owned(),
    })
}

/// Programs that run whether their events are selected or not, because identities depend on them.
fn keeps_identity(kind: Kind) -> bool {
    matches!(kind, Kind::Fork | Kind::Exec | Kind::Free | Kind::Rename)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel without something; and with sched_ext, or not.
    struct Without(&'static str, bool);
    impl Kernel for Without {
        fn has_tracepoint(&self, name: &str) -> bool {
            name != self.0
        }
        fn has_function(&self, name: &str) -> bool {
            self.1 && name != self.0
        }
        fn has_file(&self, path: &str) -> bool {
            path != self.0 && (self.1 || !path.contains("sched_ext"))
        }
    }

    fn named(kinds: &[Kind]) -> Wanted {
        Wanted { named: kinds.to_vec(), possible: Vec::new() }
    }

    fn possible(kinds: impl IntoIterator<Item = Kind>) -> Wanted {
        Wanted { named: Vec::new(), possible: kinds.into_iter().collect() }
    }

    fn all() -> Wanted {
        possible(Kind::selectable())
    }

    #[test]
    fn a_missing_tracepoint_is_switched_off_and_told() {
        let selection = select(&Without("task_rename", false), &Wanted::default()).unwrap();
        assert!(selection.programs.iter().all(|program| program.name != "task_rename"));
        let off: Vec<_> = selection.probes.iter().filter(|probe| !probe.on).collect();
        assert_eq!(off.len(), 1);
        assert_eq!(off[0].kind, Kind::Rename);
        assert!(off[0].why.as_deref().unwrap().contains("no such tracepoint"));
    }

    #[test]
    fn a_missing_tracepoint_that_was_asked_for_is_an_error() {
        let kernel = Without("sched_waking", false);
        let error = select(&kernel, &named(&[Kind::Switch, Kind::Waking])).unwrap_err();
        assert!(error.to_string().contains("`sched_waking`"), "{error}");
        let selection = select(&kernel, &named(&[Kind::Switch])).unwrap();
        let programs: Vec<_> = selection.programs.iter().map(|program| program.name).collect();
        let identity = ["sched_process_fork", "sched_process_exec", "sched_process_free", "task_rename"];
        assert_eq!(programs, [&["sched_switch"], &identity[..]].concat());
    }

    #[test]
    fn by_itself_nothing_is_loaded_but_what_is_recorded_by_default() {
        let selection = select(&Without("", true), &Wanted::default()).unwrap();
        assert_eq!(selection.programs.len(), 10);
        assert_eq!(selection.probes.len(), 10, "and of nothing else anything is said");
    }

    #[test]
    fn what_is_no_event_cannot_be_selected() {
        assert!(select(&Without("", true), &named(&[Kind::Identity])).is_err());
        assert!(select(&Without("/proc/pressure/cpu", true), &possible([Kind::Pressure])).is_err(), "nothing is left");
    }

    #[test]
    fn every_kind_can_be_had_somewhere_and_every_program_serves_one() {
        let selection = select(&Without("", true), &all()).unwrap();
        assert!(selection.probes.iter().all(|probe| probe.on), "{:?}", selection.probes);
        assert_eq!(selection.programs.len(), PROGRAMS.len());
    }

    #[test]
    fn a_kernel_without_sched_ext_records_the_rest() {
        let selection = select(&Without("", false), &all()).unwrap();
        for probe in &selection.probes {
            assert_eq!(probe.on, probe.kind.group() != EventGroup::SchedExt, "{probe:?}");
        }
        assert!(selection.programs.iter().all(|program| !is_of_sched_ext(program)), "nothing waits for it either");
        assert!(select(&Without("", false), &named(&[Kind::ScxInsert])).is_err());
    }

    #[test]
    fn where_functions_are_refused_the_rest_is_recorded() {
        let whole = select(&Without("", true), &all()).unwrap();
        let selection = whole.less(&all(), "it says no").unwrap();
        for probe in &selection.probes {
            let sampled = matches!(probe.kind, Kind::ScxLoad | Kind::ScxUnload);
            assert_eq!(probe.on, probe.kind.group() != EventGroup::SchedExt || sampled, "{probe:?}");
        }
        assert!(selection.programs.iter().all(|program| !is_of_sched_ext(program)));
        // And where that is not enough, what everybody records; with less nothing would be left.
        let least = selection.less(&all(), "no").unwrap();
        assert_eq!(least.programs.len(), 10);
        assert!(least.probes.iter().all(|probe| probe.on == (probe.kind.is_default() || probe.kind.is_sampled())));
        assert!(least.less(&all(), "no").is_none());
        // Whoever named one of them is told instead.
        assert!(whole.less(&named(&[Kind::ScxMove]), "no").is_none());
    }
}
