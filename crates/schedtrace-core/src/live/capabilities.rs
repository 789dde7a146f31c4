//! What can be recorded here and now, what cannot, why, and what would help.

use std::path::Path;

use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::builder::CollectorBuilder;
use super::probes::{self, Vmlinux, Wanted};
use super::shards::ShardPolicy;
use crate::error::{Error, Result};
use crate::event::Kind;
use crate::source::{Probe, Transport};
use crate::system::{self, Cgroups, Host};

/// What this process can record on the running kernel: [`Collector::capabilities`](super::Collector::capabilities).
///
/// Found out by trying: the programs are loaded, attached and dropped again, and record nothing meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// The machine and its kernel.
    pub host: Host,
    /// What recording builds on.
    pub checks: Vec<Check>,
    /// The events, each with what it costs to be without, or what is not known of it.
    pub probes: Vec<Probe>,
}

/// Something that recording builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub aspect: Aspect,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What it costs to be without; none where nothing is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub costs: Option<String>,
    /// How to mend it; none where nothing needs to be mended, or nobody can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// What a [`Check`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Aspect {
    /// The capabilities of this thread: `CAP_BPF` and `CAP_PERFMON`, or `CAP_SYS_ADMIN` (`capabilities(7)`).
    Privileges,
    /// The kernel's description of its own types, BTF.
    KernelTypes,
    /// Whether the kernel takes the programs.
    Programs,
    /// How records travel to the recorder.
    Transport,
    /// Whether process ids here are those that the kernel uses (`pid_namespaces(7)`).
    PidNamespace,
    /// Whether cgroups can be named.
    Cgroups,
    /// Whether the kernel can be given schedulers as BPF programs, and which it has.
    SchedExt,
    /// Whether the kernel has kprobes, which nothing that is recorded needs.
    Kprobes,
}

impl Aspect {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileges => "privileges",
            Self::KernelTypes => "kernel types",
            Self::Programs => "programs",
            Self::Transport => "transport",
            Self::PidNamespace => "process ids",
            Self::Cgroups => "cgroups",
            Self::SchedExt => "sched_ext",
            Self::Kprobes => "kprobes",
        }
    }
}

/// How something is that recording builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Absent; nothing that is recorded needs it.
    Absent,
    /// Recording works, and something is missing.
    Limited,
    /// Recording does not work.
    Failed,
}

impl State {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Absent => "absent",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

impl Capabilities {
    /// Whether recording works.
    ///
    /// ```no_run
    /// # use schedtrace_core::live::Collector;
    /// assert!(Collector::capabilities().can_record(), "run with sudo");
    /// ```
    #[must_use]
    pub fn can_record(&self) -> bool {
        self.checks.iter().all(|check| check.state != State::Failed)
    }

    pub(super) fn find() -> Self {
        let root = Path::new("/");
        let sys = root.join("sys");
        let (programs, probes) = programs(&sys);
        let checks = [privileges(), kernel_types(&sys)].into_iter().chain(programs);
        let checks = checks.chain([pid_namespace(root), cgroups(root), sched_ext(&sys), kprobes(&sys)]);
        Self { host: Host::read(&root.join("proc")).unwrap_or_default(), checks: checks.collect(), probes }
    }
}

impl Check {
    fn new(aspect: Aspect, state: State, found: impl Into<String>) -> Self {
        Self { aspect, state, found: found.into(), costs: None, mend: None }
    }

    fn costs(self, costs: &str) -> Self {
        Self { costs: Some(costs.into()), ..self }
    }

    fn mend(self, mend: &str) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }
}

/// What this thread may do now.
pub(super) fn effective() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

fn privileges() -> Check {
    privileges_of(effective())
}

fn privileges_of(effective: CapabilitySet) -> Check {
    let (least, any) = (CapabilitySet::BPF | CapabilitySet::PERFMON, CapabilitySet::SYS_ADMIN);
    let names = (effective & (least | any)).iter_names().map(|(name, _)| format!("CAP_{name}"));
    let names: Vec<_> = names.collect();
    if effective.contains(least) || effective.contains(any) {
        return Check::new(Aspect::Privileges, State::Ok, names.join(", "));
    }
    let found = if names.is_empty() { "neither CAP_BPF nor CAP_PERFMON".into() } else { format!("only {}", names[0]) };
    Check::new(Aspect::Privileges, State::Failed, found)
        .costs("nothing can be recorded; traces can be read")
        .mend("run with sudo, or `setcap cap_bpf,cap_perfmon+ep` on the binary")
}

fn kernel_types(sys: &Path) -> Check {
    match system::btf_path(sys) {
        Ok(path) => Check::new(Aspect::KernelTypes, State::Ok, path.display().to_string()),
        Err(error) => Check::new(Aspect::KernelTypes, State::Failed, error.to_string())
            .costs("nothing can be recorded: the programs find the kernel's fields by it")
            .mend("use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of Debian, Ubuntu and Fedora are"),
    }
}

/// Loads and attaches all programs, and lets go of them.
fn programs(sys: &Path) -> (Vec<Check>, Vec<Probe>) {
    let attach = || {
        CollectorBuilder::default()
            .shards(ShardPolicy::Single)
            .events_where_possible(Kind::selectable())
            .load()?
            .attach()
    };
    match attach() {
        Ok(attached) => {
            let on = attached.meta.probes.iter().filter(|probe| probe.on).count();
            let limited = attached.meta.probes.iter().any(|probe| probe.kind.is_default() && probe.why.is_some());
            let state = if limited { State::Limited } else { State::Ok };
            let check =
                Check::new(Aspect::Programs, state, format!("the kernel takes them; {on} events can be recorded"));
            let check = if limited { check.costs("what the notes beside the events say") } else { check };
            let transport = transport(attached.programs.transport(), attached.programs.no_arena());
            (vec![check, transport], attached.meta.probes)
        }
        Err(error) => {
            let lockdown = std::fs::read_to_string(sys.join("kernel/security/lockdown")).unwrap_or_default();
            let check = Check::new(Aspect::Programs, State::Failed, error.to_string()).costs("nothing can be recorded");
            let check = match &error {
                _ if lockdown.contains("[confidentiality]") => {
                    check.mend("the kernel is locked down: boot with lockdown=integrity or less")
                }
                Error::Privilege { .. } => check.mend("see privileges; in a container, they must be those of the host"),
                Error::NoBtf { .. } => check.mend("see kernel types"),
                _ => check.mend("`schedtrace -vv doctor` shows what the kernel says"),
            };
            (vec![check], known(sys).unwrap_or_default())
        }
    }
}

fn transport(transport: Transport, no_arena: Option<&str>) -> Check {
    match transport {
        Transport::Arena => Check::new(Aspect::Transport, State::Ok, "logs in a BPF arena, one for each CPU"),
        Transport::Ring => {
            let why = no_arena.map(|why| format!("; no arena: {why}")).unwrap_or_default();
            Check::new(Aspect::Transport, State::Absent, format!("BPF ring buffers{why}"))
                .costs("nothing is missing; recording takes more of the traced tasks' time")
                .mend("Linux 6.10 and later have what the arena takes")
        }
    }
}

/// The events that the kernel has, where none can be recorded.
fn known(sys: &Path) -> Result<Vec<Probe>> {
    let wanted = Wanted { possible: Kind::selectable().collect(), ..Wanted::default() };
    let mut probes = probes::select(&Vmlinux::read(&system::btf_path(sys)?)?, &wanted)?.probes;
    for probe in probes.iter_mut().filter(|probe| probe.on) {
        (probe.on, probe.why) = (false, Some("the programs cannot be loaded".into()));
    }
    Ok(probes)
}

fn pid_namespace(root: &Path) -> Check {
    // `PROC_PID_INIT_INO` in include/linux/proc_ns.h.
    const INITIAL: &str = "pid:[4026531836]";
    match std::fs::read_link(root.join("proc/self/ns/pid")) {
        Ok(namespace) if namespace.as_os_str() == INITIAL => {
            Check::new(Aspect::PidNamespace, State::Ok, "those of the host")
        }
        Ok(_) => Check::new(Aspect::PidNamespace, State::Limited, "those of a container")
            .costs("a trace has the host's ids, which are not those that are seen here, and --pid finds nobody")
            .mend("run on the host, or in a container that shares its process ids (`docker run --pid=host`)"),
        Err(error) => Check::new(Aspect::PidNamespace, State::Limited, format!("not known: {error}"))
            .costs("ids in a trace may not be those that are seen here")
            .mend("mount procfs on /proc"),
    }
}

fn cgroups(root: &Path) -> Check {
    match Cgroups::find(root) {
        Ok(cgroups) => Check::new(Aspect::Cgroups, State::Ok, format!("named by {}", cgroups.mount().display())),
        Err(error) => Check::new(Aspect::Cgroups, State::Limited, error.to_string())
            .costs("cgroups have numbers and no names, and --cgroup is refused")
            .mend("mount it, here or on the host"),
    }
}

/// See `kernel/sched/ext.c`: `state` and `root/ops` below `/sys/kernel/sched_ext`.
fn sched_ext(sys: &Path) -> Check {
    let read = |name: &str| std::fs::read_to_string(sys.join("kernel/sched_ext").join(name));
    match (read("state"), read("root/ops")) {
        (Ok(_), Ok(ops)) => Check::new(Aspect::SchedExt, State::Ok, format!("the scheduler is {}", ops.trim())),
        (Ok(state), Err(_)) => Check::new(Aspect::SchedExt, State::Ok, format!("{}; no such scheduler", state.trim())),
        (Err(_), _) => Check::new(Aspect::SchedExt, State::Absent, "this kernel has none (CONFIG_SCHED_CLASS_EXT)"),
    }
}

/// Told by the device of perf events for kprobes, which needs no tracefs.
fn kprobes(sys: &Path) -> Check {
    match sys.join("bus/event_source/devices/kprobe").exists() {
        true => Check::new(Aspect::Kprobes, State::Ok, "this kernel has them"),
        false => Check::new(Aspect::Kprobes, State::Absent, "this kernel has none (CONFIG_KPROBE_EVENTS)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::write;

    #[test]
    fn either_pair_of_capabilities_does() {
        let check = |set| privileges_of(set).state;
        assert_eq!(check(CapabilitySet::BPF | CapabilitySet::PERFMON), State::Ok);
        assert_eq!(check(CapabilitySet::SYS_ADMIN), State::Ok);
        for too_few in [CapabilitySet::BPF, CapabilitySet::PERFMON, CapabilitySet::CHOWN, CapabilitySet::empty()] {
            assert_eq!(check(too_few), State::Failed, "{too_few:?}");
        }
        let text = privileges_of(CapabilitySet::BPF);
        assert_eq!((text.found.as_str(), text.mend.is_some()), ("only CAP_BPF", true));
    }

    #[test]
    fn what_is_missing_says_what_it_costs() {
        let root = tempfile::tempdir().unwrap();
        let (path, sys) = (root.path(), root.path().join("sys"));
        let checks = [kernel_types(&sys), pid_namespace(path), cgroups(path)];
        assert!(checks.iter().all(|check| check.costs.is_some() && check.mend.is_some()), "{checks:?}");
        assert_eq!([sched_ext(&sys).state, kprobes(&sys).state], [State::Absent; 2]);
        std::fs::create_dir_all(path.join("proc/self/ns")).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", path.join("proc/self/ns/pid")).unwrap();
        assert_eq!(pid_namespace(path).state, State::Limited);
        write(path, "sys/kernel/sched_ext/state", "disabled\n");
        assert_eq!(sched_ext(&sys).found, "disabled; no such scheduler");
        write(path, "sys/kernel/sched_ext/root/ops", "simple\n");
        assert_eq!(sched_ext(&sys).found, "the scheduler is simple");
    }

    #[test]
    fn recording_works_unless_something_failed() {
        let with = |state| Capabilities {
            host: Host::default(),
            checks: vec![Check::new(Aspect::Cgroups, state, "")],
            probes: vec![],
        };
        assert!([State::Ok, State::Absent, State::Limited].into_iter().all(|state| with(state).can_record()));
        assert!(!with(State::Failed).can_record());
    }
}
