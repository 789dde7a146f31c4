//! Where programs are attached, as far as links tell.

use std::collections::BTreeMap;

use libbpf_rs::ProgramAttachType;
use libbpf_rs::btf::{Btf, BtfType};
use libbpf_rs::query::{IterType, LinkInfoIter, LinkTypeInfo, PerfEventType};
use serde::Serialize;

use super::types::Types;
use super::{clean, words};

/// One place where a program is attached.
///
/// ```
/// use schedtrace_core::live::inspect::Attachment;
/// let attachment = Attachment {
///     link_id: 12,
///     kind: "tracing".into(),
///     attach_type: Some("trace_raw_tp".into()),
///     target: Some("sched_switch".into()),
/// };
/// assert_eq!(attachment.to_string(), "tracing trace_raw_tp sched_switch");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// The link by which it is attached.
    pub link_id: u32,
    /// The kind of the link: `tracing`, `perf_event`, `cgroup`, `struct_ops`, ...
    pub kind: String,
    /// How, where a kind has several ways: `trace_fentry`, `cgroup_inet_ingress`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_type: Option<String>,
    /// To what, where the kernel tells: a tracepoint, a function, a file, `cgroup 42`, `interface 2`, `map 7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl std::fmt::Display for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.kind)?;
        [&self.attach_type, &self.target].into_iter().flatten().try_for_each(|part| write!(f, " {part}"))
    }
}

/// Those of every program, by its id.
pub(super) fn find(types: &Types) -> BTreeMap<u32, Vec<Attachment>> {
    let mut kernel = Kernel::default();
    let mut found: BTreeMap<u32, Vec<Attachment>> = BTreeMap::new();
    for link in LinkInfoIter::default() {
        let (kind, attach_type, target) = told(&link.info, types, &mut kernel);
        let attachment = Attachment { link_id: link.id, kind: kind.into(), attach_type, target };
        found.entry(link.prog_id).or_default().push(attachment);
    }
    found
}

/// The kernel's own types, read once somebody asks.
#[derive(Default)]
struct Kernel(Option<Option<Btf<'static>>>);

impl Kernel {
    /// A tracepoint or a function by the number of its type.
    fn name(&mut self, id: u32) -> Option<String> {
        let btf = self.0.get_or_insert_with(|| Btf::from_vmlinux().ok()).as_ref()?;
        let name = btf.type_by_id::<BtfType<'_>>(id.into())?.name()?.to_str()?;
        Some(name.strip_prefix("btf_trace_").unwrap_or(name).to_owned())
    }
}

type Told = (&'static str, Option<String>, Option<String>);

fn how(ty: &ProgramAttachType) -> Option<String> {
    match ty {
        ProgramAttachType::Unknown => None,
        known => Some(words::of(known)),
    }
}

fn told(info: &LinkTypeInfo, types: &Types, kernel: &mut Kernel) -> Told {
    match info {
        LinkTypeInfo::RawTracepoint(at) => ("raw_tracepoint", None, Some(clean(&at.name))),
        LinkTypeInfo::Tracing(at) => {
            // Of another program or a module it would be a number of theirs.
            let is_kernel = types.is_kernel(at.target_obj_id);
            ("tracing", how(&at.attach_type), if is_kernel { kernel.name(at.target_btf_id) } else { None })
        }
        LinkTypeInfo::Cgroup(at) => ("cgroup", how(&at.attach_type), Some(format!("cgroup {}", at.cgroup_id))),
        LinkTypeInfo::Iter(at) => {
            let of = match at.iter_type {
                IterType::Map { map_id } => format!(" of map {map_id}"),
                IterType::Cgroup { cgroup_id, .. } if cgroup_id != 0 => format!(" of cgroup {cgroup_id}"),
                IterType::Task { pid, .. } if pid != 0 => format!(" of process {pid}"),
                _ => String::new(),
            };
            ("iter", None, Some(format!("{}{of}", at.target_name.to_string_lossy())))
        }
        LinkTypeInfo::NetNs(at) => ("netns", how(&at.attach_type), Some(format!("network namespace {}", at.ino))),
        LinkTypeInfo::Xdp(at) => ("xdp", None, Some(format!("interface {}", at.ifindex))),
        LinkTypeInfo::StructOps(at) => ("struct_ops", None, Some(format!("map {}", at.map_id))),
        LinkTypeInfo::Netfilter(at) => ("netfilter", None, Some(format!("hook {}", at.hooknum))),
        LinkTypeInfo::KprobeMulti(at) => ("kprobe_multi", None, Some(format!("{} functions", at.count))),
        LinkTypeInfo::UprobeMulti(at) => {
            let path = at.path.as_ref().map(|path| format!(" in {}", clean(&path.to_string_lossy())));
            ("uprobe_multi", None, Some(format!("{} places{}", at.count, path.unwrap_or_default())))
        }
        LinkTypeInfo::Tcx(at) => ("tcx", how(&at.attach_type), Some(format!("interface {}", at.ifindex))),
        LinkTypeInfo::Netkit(at) => ("netkit", how(&at.attach_type), Some(format!("interface {}", at.ifindex))),
        LinkTypeInfo::SockMap(at) => ("sockmap", how(&at.attach_type), Some(format!("map {}", at.map_id))),
        LinkTypeInfo::PerfEvent(at) => ("perf_event", None, perf_event(&at.event_type)),
        LinkTypeInfo::Unknown => ("unknown", None, None),
    }
}

fn perf_event(event: &PerfEventType) -> Option<String> {
    let text = |name: &Option<std::ffi::OsString>| name.as_ref().map(|name| clean(&name.to_string_lossy()));
    let at = |kind: &str, name: Option<String>, offset: u32| {
        let offset = if offset == 0 { String::new() } else { format!("+{offset:#x}") };
        Some(format!("{kind} {}{offset}", name?))
    };
    match event {
        PerfEventType::Tracepoint { name, .. } => at("tracepoint", text(name), 0),
        PerfEventType::Kprobe { func_name, is_retprobe, offset, .. } => {
            at(if *is_retprobe { "kretprobe" } else { "kprobe" }, text(func_name), *offset)
        }
        PerfEventType::Uprobe { file_name, is_retprobe, offset, .. } => {
            at(if *is_retprobe { "uretprobe" } else { "uprobe" }, text(file_name), *offset)
        }
        PerfEventType::Event { config, event_type, .. } => Some(format!("perf event {event_type}:{config}")),
        _ => None,
    }
}
