//! The kernel and the distribution around it, and how far they let BPF programs be used.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde::Serialize;

use super::{Host, btf_path, read_text};
use crate::error::Result;

/// A configuration has 300 KiB; what unpacks to more than this is none.
const MAX_CONFIG: u64 = 8 * 1024 * 1024;

/// The options that say whether something can be traced: those that begin with `CONFIG_BPF`, and these.
const OPTIONS: [&str; 22] = [
    "CONFIG_CGROUP_BPF",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_DEBUG_INFO_BTF_MODULES",
    "CONFIG_DYNAMIC_FTRACE",
    "CONFIG_FPROBE",
    "CONFIG_FTRACE_SYSCALLS",
    "CONFIG_FUNCTION_ERROR_INJECTION",
    "CONFIG_FUNCTION_TRACER",
    "CONFIG_HZ",
    "CONFIG_KPROBES",
    "CONFIG_KPROBE_EVENTS",
    "CONFIG_NO_HZ_FULL",
    "CONFIG_PREEMPT",
    "CONFIG_PREEMPT_DYNAMIC",
    "CONFIG_PREEMPT_RT",
    "CONFIG_PSI",
    "CONFIG_SCHEDSTATS",
    "CONFIG_SCHED_CLASS_EXT",
    "CONFIG_SCHED_CORE",
    "CONFIG_SCHED_INFO",
    "CONFIG_TRACEPOINTS",
    "CONFIG_UPROBE_EVENTS",
];

/// The kernel that runs, and what it lets BPF programs do.
///
/// ```
/// use schedtrace_core::system::kernel::KernelInfo;
/// let kernel = KernelInfo::read("/".as_ref())?;
/// println!("Linux {} on {}", kernel.release, kernel.machine);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelInfo {
    /// As `uname -r` prints it.
    pub release: String,
    /// As `uname -v` prints it: how it was built, and when.
    pub version: Option<String>,
    /// The hardware, as `uname -m` prints it.
    pub machine: String,
    /// What is installed around it.
    pub distribution: Option<Distribution>,
    /// Whether the kernel describes its types (BTF), without which no program of ours can be loaded.
    pub btf: bool,
    /// Who may load BPF programs without a privilege.
    pub unprivileged_bpf: Option<UnprivilegedBpf>,
    /// Whether the kernel counts how often BPF programs run, and for how long.
    pub bpf_stats_enabled: Option<bool>,
    /// Whether BPF programs are compiled to machine code. None where the kernel hides it.
    pub bpf_jit_enabled: Option<bool>,
    /// How far the kernel is locked against its administrator: `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// Where the configuration was read, if it was.
    pub config_source: Option<String>,
    /// The options that matter to tracing, with their values: `y`, `m`, `n`, or what else they were set to. What the kernel
    /// does not know is not among them.
    pub config: BTreeMap<String, String>,
}

/// A distribution, as it says in `/etc/os-release`.
///
/// ```
/// use schedtrace_core::system::kernel::Distribution;
/// assert_eq!(Distribution { id: "debian".into(), ..Distribution::default() }.version, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Distribution {
    /// For people: `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
    /// For programs: `debian`.
    pub id: String,
    /// `12`; rolling ones have none.
    pub version: Option<String>,
}

/// Who may load BPF programs without a privilege (`kernel.unprivileged_bpf_disabled`).
///
/// ```
/// use schedtrace_core::system::kernel::UnprivilegedBpf;
/// assert_eq!(serde_json::to_string(&UnprivilegedBpf::OffForGood)?, "\"off_for_good\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnprivilegedBpf {
    /// Everybody, some kinds of them.
    On,
    /// Nobody, until the machine is started again.
    OffForGood,
    /// Nobody, until the administrator allows it.
    Off,
}

impl KernelInfo {
    /// Reads it below `root` (`/`). What may not be read is left out.
    ///
    /// ```
    /// use schedtrace_core::system::kernel::KernelInfo;
    /// assert!(KernelInfo::read("/no/such/folder".as_ref()).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if not even the kernel's release can be read.
    pub fn read(root: &Path) -> Result<Self> {
        let Host { kernel: release, machine, .. } = Host::read(&root.join("proc"))?;
        let text = |path: &str| read_text(&root.join(path)).ok().filter(|text| !text.is_empty());
        let number = |path: &str| text(path)?.parse::<u64>().ok();
        let config = config(root, &release);
        let lockdown = text("sys/kernel/security/lockdown");
        Ok(Self {
            version: text("proc/sys/kernel/version"),
            machine,
            distribution: text("etc/os-release")
                .or_else(|| text("usr/lib/os-release"))
                .and_then(|text| distribution(&text)),
            btf: btf_path(&root.join("sys")).is_ok(),
            unprivileged_bpf: match number("proc/sys/kernel/unprivileged_bpf_disabled") {
                Some(0) => Some(UnprivilegedBpf::On),
                Some(1) => Some(UnprivilegedBpf::OffForGood),
                Some(_) => Some(UnprivilegedBpf::Off),
                None => None,
            },
            bpf_stats_enabled: number("proc/sys/kernel/bpf_stats_enabled").map(|on| on != 0),
            bpf_jit_enabled: number("proc/sys/net/core/bpf_jit_enable").map(|on| on != 0),
            lockdown: lockdown.and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())),
            config_source: config.as_ref().map(|(source, _)| source.clone()),
            config: config.map(|(_, text)| options(&text)).unwrap_or_default(),
            release,
        })
    }
}

/// Where the configuration stands, and its text.
fn config(root: &Path, release: &str) -> Option<(String, String)> {
    let mut places = vec!["proc/config.gz".to_owned()];
    // A release is part of a name here: never one that leads elsewhere.
    if !release.contains('/') {
        places.extend([format!("boot/config-{release}"), format!("lib/modules/{release}/config")]);
    }
    let read = |place: &str| {
        let file = File::open(root.join(place)).ok()?;
        let mut bytes = Vec::new();
        if place.ends_with(".gz") {
            GzDecoder::new(file).take(MAX_CONFIG).read_to_end(&mut bytes).ok()?;
        } else {
            file.take(MAX_CONFIG).read_to_end(&mut bytes).ok()?;
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    places.into_iter().find_map(|place| read(&place).map(|text| (format!("/{place}"), text)))
}

fn options(text: &str) -> BTreeMap<String, String> {
    let matters = |name: &str| name.starts_with("CONFIG_BPF") || OPTIONS.contains(&name);
    let option = |line: &str| {
        let unset = line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set"));
        let (name, value) = unset.map(|name| (name, "n")).or_else(|| line.split_once('='))?;
        matters(name).then(|| (name.to_owned(), value.trim_matches('"').to_owned()))
    };
    text.lines().filter_map(option).collect()
}

/// os-release(5): assignments as a shell reads them.
fn distribution(text: &str) -> Option<Distribution> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
        let quoted = ['"', '\''].into_iter().find_map(|q| value.strip_prefix(q)?.strip_suffix(q));
        Some(quoted.unwrap_or(value).replace('\\', "")).filter(|value| !value.is_empty())
    };
    let name = field("PRETTY_NAME").or_else(|| field("NAME"))?;
    Some(Distribution { name, id: field("ID").unwrap_or_else(|| "linux".into()), version: field("VERSION_ID") })
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;
    use std::io::Write;

    fn folder() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/sys/kernel/hostname", "box\n");
        write(root.path(), "proc/sys/kernel/osrelease", "6.12.1-test\n");
        write(root.path(), "proc/sys/kernel/arch", "riscv64\n");
        root
    }

    #[test]
    fn a_kernel_that_tells_nothing_is_read() {
        let kernel = KernelInfo::read(folder().path()).unwrap();
        let expected = KernelInfo { release: "6.12.1-test".into(), machine: "riscv64".into(), ..KernelInfo::default() };
        assert_eq!(kernel, expected);
    }

    #[test]
    fn what_is_told_is_read() {
        let root = folder();
        let set = |path: &str, text: &str| write(root.path(), path, text);
        set("etc/os-release", "# x\nNAME=\"Debian\"\nPRETTY_NAME=\"Debian \\\"12\\\"\"\nID=debian\nVERSION_ID='12'\n");
        set("proc/sys/kernel/unprivileged_bpf_disabled", "2\n");
        set("proc/sys/kernel/bpf_stats_enabled", "1\n");
        set("proc/sys/net/core/bpf_jit_enable", "0\n");
        set("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        set("sys/kernel/btf/vmlinux", "x");
        set(
            "boot/config-6.12.1-test",
            "CONFIG_BPF=y\n# CONFIG_KPROBES is not set\nCONFIG_HZ=250\nCONFIG_X=y\nCONFIG_BPF_LSM=\"a=b\"\n",
        );
        let kernel = KernelInfo::read(root.path()).unwrap();
        let debian = Distribution { name: "Debian \"12\"".into(), id: "debian".into(), version: Some("12".into()) };
        assert_eq!(kernel.distribution, Some(debian));
        assert_eq!(kernel.unprivileged_bpf, Some(UnprivilegedBpf::Off));
        assert_eq!((kernel.bpf_stats_enabled, kernel.bpf_jit_enabled, kernel.btf), (Some(true), Some(false), true));
        assert_eq!(kernel.lockdown.as_deref(), Some("integrity"));
        assert_eq!(kernel.config_source.as_deref(), Some("/boot/config-6.12.1-test"));
        let options: Vec<_> = kernel.config.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(options, ["CONFIG_BPF=y", "CONFIG_BPF_LSM=a=b", "CONFIG_HZ=250", "CONFIG_KPROBES=n"]);

        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"CONFIG_SCHED_CLASS_EXT=y\n").unwrap();
        let packed = packed.finish().unwrap();
        std::fs::write(root.path().join("proc/config.gz"), &packed).unwrap();
        let kernel = KernelInfo::read(root.path()).unwrap();
        assert_eq!(kernel.config_source.as_deref(), Some("/proc/config.gz"), "the running kernel's own comes first");
        assert_eq!(kernel.config["CONFIG_SCHED_CLASS_EXT"], "y");
        std::fs::write(root.path().join("proc/config.gz"), &packed[..packed.len() / 2]).unwrap();
        assert_eq!(KernelInfo::read(root.path()).unwrap().config["CONFIG_HZ"], "250", "a damaged one is passed over");
    }

    #[test]
    fn a_release_leads_nowhere_else() {
        let root = folder();
        write(root.path(), "proc/sys/kernel/osrelease", "../../secret");
        write(root.path(), "secret/config", "CONFIG_BPF=y\n");
        write(root.path(), "lib/modules/6.12.1-test/modules.dep", "");
        assert_eq!(KernelInfo::read(root.path()).unwrap().config_source, None);
    }

    #[test]
    fn this_machine_is_read() {
        let kernel = KernelInfo::read("/".as_ref()).unwrap();
        assert!(kernel.release.starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(kernel.config_source.is_some(), !kernel.config.is_empty(), "{kernel:?}");
    }
}
