//! What the running kernel can do with BPF, and what this process may.

use std::path::Path;

use libbpf_rs::btf::types::{Func, Struct, Typedef};
use libbpf_rs::btf::{Btf, BtfType};
use libbpf_rs::{MapType, ProgramType};
use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::super::capabilities::{self, Capabilities};
use super::super::kernel::quiet_libbpf;
use crate::system::read_text;

/// What BPF gives on this machine, to this process.
///
/// ```no_run
/// use schedtrace_core::live::inspect;
/// let support = inspect::support(false);
/// let arena = support.features.iter().find(|feature| feature.name == "arena");
/// assert!(arena.is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Support {
    /// What this process may do.
    pub rights: Rights,
    /// What the kernel has.
    pub features: Vec<Feature>,
    /// What schedtrace can record here, if that was tried: what `schedtrace doctor` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<Capabilities>,
}

/// What this process may do with BPF.
///
/// ```no_run
/// use schedtrace_core::live::inspect;
/// if let Some(mend) = inspect::support(false).rights.mend {
///     println!("{mend}");
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rights {
    /// Its effective user id; 0 is root.
    pub uid: u32,
    /// Whether it has `CAP_BPF`: to load programs and make maps.
    pub cap_bpf: bool,
    /// Whether it has `CAP_PERFMON`: to attach programs that trace.
    pub cap_perfmon: bool,
    /// Whether it has `CAP_SYS_ADMIN`: to list and read what others loaded. It stands for the other two as well.
    pub cap_sys_admin: bool,
    /// Whether these are rights on the machine, and not within a user namespace, where BPF knows none of them.
    pub of_machine: bool,
    /// Whether it may record.
    pub may_record: bool,
    /// Whether it may look at the programs and maps of the machine.
    pub may_inspect: bool,
    /// How to get what is missing; none where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// Something that a kernel may have.
///
/// ```
/// use schedtrace_core::live::inspect::Feature;
/// let feature = Feature { name: "arena", what: "memory shared with programs", available: Some(true), note: None };
/// assert_eq!(serde_json::to_value(&feature)?["available"], true);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub what: &'static str,
    /// Whether the kernel has it; none if this process may not try.
    pub available: Option<bool>,
    /// What else was found, or why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Finds out by trying: small programs and maps are made and let go of, and nothing is attached. `try_recording` tries
/// what [`Collector::capabilities`](crate::live::Collector::capabilities) tries too, which loads and attaches schedtrace's own
/// programs and takes a second or two; nothing is recorded meanwhile.
///
/// ```no_run
/// use schedtrace_core::live::inspect;
/// for feature in inspect::support(false).features {
///     println!("{:<14} {:?} ({})", feature.name, feature.available, feature.what);
/// }
/// ```
#[must_use]
pub fn support(try_recording: bool) -> Support {
    quiet_libbpf();
    let recording = try_recording.then(Capabilities::find);
    let (effective, uid) = (capabilities::effective(), rustix::process::geteuid().as_raw());
    let rights = rights(effective, uid, super::may_look().is_ok(), is_of_machine(Path::new("/")));
    let features = features(Path::new("/"), rights.of_machine && (rights.cap_bpf || rights.cap_sys_admin));
    Support { rights, features, recording }
}

/// Whether rights are those of the machine, and not of a user namespace (`user_namespaces(7)`), where they do not count.
fn is_of_machine(root: &Path) -> bool {
    // `PROC_USER_INIT_INO` in include/linux/proc_ns.h.
    const INITIAL: &str = "user:[4026531837]";
    std::fs::read_link(root.join("proc/self/ns/user")).map_or(true, |namespace| namespace.as_os_str() == INITIAL)
}

fn rights(effective: CapabilitySet, uid: u32, may_inspect: bool, of_machine: bool) -> Rights {
    let has = |set| effective.contains(set);
    let (cap_bpf, cap_perfmon) = (has(CapabilitySet::BPF), has(CapabilitySet::PERFMON));
    let cap_sys_admin = has(CapabilitySet::SYS_ADMIN);
    let may_record = of_machine && (cap_sys_admin || cap_bpf && cap_perfmon);
    let mend = match (may_record, may_inspect) {
        _ if !of_machine => {
            Some("run on the host: what a container or a user namespace calls a right is none of the machine's")
        }
        (true, true) => None,
        (true, false) => Some("to look at the machine's programs and maps, CAP_SYS_ADMIN is needed: run with sudo"),
        (false, _) => Some(
            "to record, run with sudo, or `setcap cap_bpf,cap_perfmon+ep` on the binary; to look at the machine's programs and maps, CAP_SYS_ADMIN is needed",
        ),
    };
    let mend = mend.map(Into::into);
    Rights { uid, cap_bpf, cap_perfmon, cap_sys_admin, of_machine, may_record, may_inspect, mend }
}

const UNTRIED: &str = "not tried: this process has neither CAP_BPF nor CAP_SYS_ADMIN on the machine";

/// What the kernel has, found by making it, by the kernel's own types, or by a file.
fn features(root: &Path, may_try: bool) -> Vec<Feature> {
    let tried = |name, what, answer: Option<bool>| Feature {
        name,
        what,
        available: answer,
        note: if may_try { None } else { Some(UNTRIED.into()) },
    };
    let map = |name, what, ty: MapType| tried(name, what, if may_try { ty.is_supported().ok() } else { None });
    let program = |name, what, ty: ProgramType| tried(name, what, if may_try { ty.is_supported().ok() } else { None });
    let mut features = vec![
        map("ringbuf", "records for user space, in one order (5.8)", MapType::RingBuf),
        map("arena", "memory that programs and user space share (6.9)", MapType::Arena),
        map("task_storage", "values that lie with a task (5.11)", MapType::TaskStorage),
        map("cgroup_storage", "values that lie with a cgroup (6.2)", MapType::CGrpStorage),
        program("raw_tracepoint", "programs at tracepoints (4.17)", ProgramType::RawTracepoint),
        program("perf_event", "programs at samples and counters (4.9)", ProgramType::PerfEvent),
        program("kprobe", "programs at instructions of the kernel (4.1)", ProgramType::Kprobe),
        program("fentry", "programs at the begin and the end of kernel functions (5.5)", ProgramType::Tracing),
        program("struct_ops", "programs that are parts of the kernel, as schedulers are (5.6)", ProgramType::StructOps),
        program("lsm", "programs that decide what is allowed (5.7)", ProgramType::Lsm),
        program("xdp", "programs at arriving packets (4.8)", ProgramType::Xdp),
    ];
    let probe = root.join("sys/bus/event_source/devices");
    for feature in &mut features {
        // The kind of program is there on every kernel that traces; what it is for may be missing.
        if feature.name == "kprobe" && !probe.join("kprobe").exists() {
            feature.available = Some(false);
            feature.note = Some("no CONFIG_KPROBE_EVENTS".into());
        }
    }
    let btf = Btf::from_path(root.join("sys/kernel/btf/vmlinux")).ok();
    let can_call = |btf: &Btf<'_>| btf.type_by_name::<Func<'_>>("register_ftrace_direct").is_some();
    if let Some(fentry) = features.iter_mut().find(|feature| feature.name == "fentry")
        && btf.as_ref().is_some_and(|btf| !can_call(btf))
    {
        // Such a program loads, and cannot be attached.
        fentry.available = Some(false);
        fentry.note = Some("no CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS".into());
    }
    features.extend(by_types(btf.as_ref()));
    features.push(jit(root));
    features
}

/// What shows in the kernel's own types.
fn by_types(btf: Option<&Btf<'_>>) -> Vec<Feature> {
    let has = |name: &str, is: fn(BtfType<'_>) -> bool| Some(btf?.type_by_name::<BtfType<'_>>(name).is_some_and(is));
    let is_struct = |ty: BtfType<'_>| Struct::try_from(ty).is_ok();
    let is_name = |ty: BtfType<'_>| Typedef::try_from(ty).is_ok();
    let note = || btf.is_none().then(|| "not known: this kernel does not tell its types".to_owned());
    let feature = |name, what, available| Feature { name, what, available, note: note() };
    vec![
        Feature {
            name: "btf",
            what: "the kernel tells its own types, which every program of schedtrace needs (CONFIG_DEBUG_INFO_BTF)",
            available: Some(btf.is_some()),
            note: None,
        },
        feature(
            "kprobe_multi",
            "one program at many functions at once (5.18)",
            has("bpf_kprobe_multi_link", is_struct),
        ),
        feature("uprobe_multi", "the same in programs of users (6.6)", has("bpf_uprobe_multi_link", is_struct)),
        feature(
            "tp_btf",
            "programs at tracepoints that know the kernel's types, which record (5.5)",
            has("btf_trace_sched_switch", is_name),
        ),
        feature("task_iterator", "a program that is shown every task (5.8)", has("bpf_iter__task", is_struct)),
        feature("sched_ext", "schedulers as programs (6.12)", has("sched_ext_ops", is_struct)),
    ]
}

fn jit(root: &Path) -> Feature {
    let what = "programs run as machine code";
    let feature = |available, note: Option<String>| Feature { name: "jit", what, available, note };
    // The file is root's alone, and there only with CONFIG_BPF_JIT.
    match read_text(&root.join("proc/sys/net/core/bpf_jit_enable")).as_deref() {
        Ok("0") => feature(Some(false), Some("`sysctl net.core.bpf_jit_enable=1` turns it on".into())),
        Ok("2") => feature(Some(true), Some("net.core.bpf_jit_enable=2: the kernel logs what it compiles".into())),
        Ok(_) => feature(Some(true), None),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            feature(None, Some("not known: net.core.bpf_jit_enable is shown to root alone".into()))
        }
        Err(_) => feature(Some(false), Some("this kernel has none (CONFIG_BPF_JIT)".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::write;

    #[test]
    fn what_is_missing_comes_with_how_to_get_it() {
        let of = |set, uid, may_inspect| rights(set, uid, may_inspect, true);
        let all = of(CapabilitySet::all(), 0, true);
        assert!(all.may_record && all.cap_sys_admin && all.mend.is_none());
        let both = of(CapabilitySet::BPF | CapabilitySet::PERFMON, 1000, false);
        assert!(both.may_record && !both.may_inspect && both.mend.unwrap().contains("CAP_SYS_ADMIN is needed"));
        let container = rights(CapabilitySet::all(), 0, false, false);
        assert!(!container.may_record && container.cap_bpf && container.mend.unwrap().contains("on the host"));
        for few in [CapabilitySet::BPF, CapabilitySet::PERFMON, CapabilitySet::empty()] {
            let rights = of(few, 1000, false);
            assert!(!rights.may_record && rights.mend.unwrap().contains("setcap cap_bpf,cap_perfmon+ep"), "{few:?}");
        }
    }

    #[test]
    fn rights_in_a_namespace_are_told_from_those_of_the_machine() {
        let root = tempfile::tempdir().unwrap();
        let ns = root.path().join("proc/self/ns");
        assert!(is_of_machine(root.path()), "not known");
        std::fs::create_dir_all(&ns).unwrap();
        for (namespace, of_machine) in [("user:[4026531837]", true), ("user:[4026532000]", false)] {
            std::os::unix::fs::symlink(namespace, ns.join("user")).unwrap();
            assert_eq!(is_of_machine(root.path()), of_machine, "{namespace}");
            std::fs::remove_file(ns.join("user")).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_tried_is_not_called_missing() {
        let root = tempfile::tempdir().unwrap();
        let found = features(root.path(), false);
        let of = |name: &str| found.iter().find(|feature| feature.name == name).unwrap();
        for untried in ["ringbuf", "arena", "struct_ops"] {
            assert_eq!((of(untried).available, of(untried).note.as_deref()), (None, Some(UNTRIED)), "{untried}");
        }
        assert_eq!((of("btf").available, of("kprobe").available), (Some(false), Some(false)));
        assert!(of("sched_ext").available.is_none() && of("sched_ext").note.is_some());
    }

    #[test]
    fn the_compiler_of_programs_is_on_off_or_absent() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(jit(root.path()).available, Some(false));
        for (text, available) in [("0\n", false), ("1\n", true), ("2\n", true)] {
            write(root.path(), "proc/sys/net/core/bpf_jit_enable", text);
            assert_eq!(jit(root.path()).available, Some(available), "{text}");
        }
    }
}
