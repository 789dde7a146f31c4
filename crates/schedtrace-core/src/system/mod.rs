//! The machine: topology, clocks, procfs and cgroups, and the names of its system calls. Every reader is rooted at a `&Path`, so that a test gives it a folder.

mod calls;
mod cgroups;
mod cpulist;
mod disks;
#[cfg(feature = "machine")]
mod hardware;
#[cfg(feature = "machine")]
pub mod kernel;
#[cfg(feature = "machine")]
pub mod processes;
pub mod procfs;
#[cfg(feature = "live")]
pub(crate) mod samples;
#[cfg(feature = "machine")]
pub mod sched_ext;
#[cfg(feature = "machine")]
pub mod stacks;
#[cfg(feature = "machine")]
pub mod stats;
mod topology;
#[cfg(feature = "machine")]
pub mod tracefs;

pub use calls::{errno_name, errno_number, errno_text, syscall_name, syscall_number};
pub use cgroups::Cgroups;
pub use cpulist::CpuList;
pub use disks::disk_name;
#[cfg(feature = "machine")]
pub use hardware::{CpuHardware, Hardware, Smt};
pub use topology::{CpuInfo, Locality, Topology};

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::Nanos;

/// Which machine, and which kernel.
///
/// ```
/// use schedtrace_core::system::Host;
/// let host = Host { hostname: "web-1".into(), kernel: "6.12.0".into(), machine: "x86_64".into() };
/// assert_eq!(serde_json::to_string(&host)?, r#"{"hostname":"web-1","kernel":"6.12.0","machine":"x86_64"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its node name.
    pub hostname: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The hardware, as `uname -m` prints it.
    pub machine: String,
}

impl Host {
    /// Reads it from procfs (`/proc`). Kernels before 6.1 do not tell the hardware there; it is then what this program
    /// was built for.
    ///
    /// ```
    /// use schedtrace_core::system::Host;
    /// println!("Linux {}", Host::read("/proc".as_ref())?.kernel);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if the hostname or the release cannot be read.
    pub fn read(proc: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = proc.join("sys/kernel").join(name);
            read_text(&path).map_err(Error::io("cannot read", path))
        };
        Ok(Self {
            hostname: read("hostname")?,
            kernel: read("osrelease")?,
            machine: read("arch").unwrap_or_else(|_| std::env::consts::ARCH.to_owned()),
        })
    }
}

/// The three clocks read together.
///
/// ```
/// use schedtrace_core::Nanos;
/// use schedtrace_core::system::ClockSnapshot;
///
/// let clocks = ClockSnapshot { monotonic_ns: Nanos(500), boottime_ns: Nanos(700), realtime_ns: Nanos(9_000) };
/// assert_eq!(clocks.realtime(Nanos(510)), Nanos(9_010));
/// assert_eq!(clocks.boottime(Nanos(490)), Nanos(690));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSnapshot {
    /// `CLOCK_MONOTONIC`: the clock of every event.
    pub monotonic_ns: Nanos,
    /// `CLOCK_BOOTTIME`: it goes on during suspend.
    pub boottime_ns: Nanos,
    /// `CLOCK_REALTIME`: nanoseconds since 1970-01-01 UTC.
    pub realtime_ns: Nanos,
}

impl ClockSnapshot {
    /// Reads the clocks now. `CLOCK_MONOTONIC` is read before and after the others, and the middle is taken as the
    /// moment of them all, so it is off by half of what the reads took together, at the most: some 50 ns. The best of
    /// a few attempts counts, since any of them may be interrupted.
    ///
    /// ```
    /// use schedtrace_core::system::ClockSnapshot;
    /// let (first, second) = (ClockSnapshot::now(), ClockSnapshot::now());
    /// assert!(first.monotonic_ns <= second.monotonic_ns);
    /// ```
    #[cfg(any(feature = "live", feature = "machine"))]
    #[must_use]
    pub fn now() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        let read = |clock| {
            let time = clock_gettime(clock);
            // Negative only for a wall clock set to before 1970.
            let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
            Nanos(seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0)))
        };
        let attempt = || {
            let before = read(ClockId::Monotonic);
            let (boottime_ns, realtime_ns) = (read(ClockId::Boottime), read(ClockId::Realtime));
            let took = read(ClockId::Monotonic) - before;
            (took, Self { monotonic_ns: before + Nanos(took.0 / 2), boottime_ns, realtime_ns })
        };
        let first = attempt();
        (0..7).map(|_| attempt()).fold(first, |best, next| if next.0 < best.0 { next } else { best }).1
    }

    /// The wall-clock time of a `CLOCK_MONOTONIC` moment, in nanoseconds since 1970-01-01 UTC: what the wall clock
    /// would have shown had it not been set or slewed since or until this snapshot.
    ///
    /// ```
    /// use schedtrace_core::Nanos;
    /// use schedtrace_core::system::ClockSnapshot;
    /// let clocks = ClockSnapshot { monotonic_ns: Nanos(500), realtime_ns: Nanos(9_000), ..ClockSnapshot::default() };
    /// assert_eq!(clocks.realtime(Nanos(510)), Nanos(9_010));
    /// ```
    #[must_use]
    pub fn realtime(&self, at: Nanos) -> Nanos {
        self.realtime_ns + (at - self.monotonic_ns) - (self.monotonic_ns - at)
    }

    /// The `CLOCK_BOOTTIME` of a `CLOCK_MONOTONIC` moment, had the machine not been suspended between it and this
    /// snapshot.
    ///
    /// ```
    /// use schedtrace_core::Nanos;
    /// use schedtrace_core::system::ClockSnapshot;
    /// let clocks = ClockSnapshot { monotonic_ns: Nanos(500), boottime_ns: Nanos(700), ..ClockSnapshot::default() };
    /// assert_eq!(clocks.boottime(Nanos(510)), Nanos(710));
    /// ```
    #[must_use]
    pub fn boottime(&self, at: Nanos) -> Nanos {
        self.boottime_ns + (at - self.monotonic_ns) - (self.monotonic_ns - at)
    }
}

/// The file in which the kernel (in sysfs, `/sys`) describes its types, which every program needs.
///
/// ```
/// use schedtrace_core::Error;
/// use schedtrace_core::system::btf_path;
/// match btf_path("/sys".as_ref()) {
///     Ok(path) => println!("this kernel describes its types in {}", path.display()),
///     Err(error) => println!("{error}"),
/// }
/// assert!(matches!(btf_path("/no/such/folder".as_ref()), Err(Error::NoBtf { .. })));
/// ```
///
/// # Errors
/// [`Error::NoBtf`] if it is missing, empty or may not be read.
pub fn btf_path(sys: &Path) -> Result<PathBuf> {
    let path = sys.join("kernel/btf/vmlinux");
    match File::open(&path).and_then(|mut file| file.read_exact(&mut [0])) {
        Ok(()) => Ok(path),
        Err(error) => Err(Error::NoBtf { path, why: error.to_string() }),
    }
}

/// Files of sysfs and procfs are small; whatever else stands in their place is not read on and on.
const MAX_TEXT: u64 = 64 * 1024;

/// A small text file, without the white space around.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    read_up_to(path, MAX_TEXT).map(|text| text.trim().to_owned())
}

/// Most files of procfs and sysfs are shorter, in bytes.
const ROOM: usize = 2_048;

fn read_up_to(path: &Path, limit: u64) -> io::Result<String> {
    // With room for what most of them say, one call reads it, and one finds its end.
    let mut bytes = Vec::with_capacity(ROOM);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a file below a test's folder, and the folders above it.
    pub(crate) fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_host_is_read() {
        let proc = tempfile::tempdir().unwrap();
        assert!(matches!(Host::read(proc.path()), Err(Error::Io { .. })));
        write(proc.path(), "sys/kernel/hostname", "box\n");
        write(proc.path(), "sys/kernel/osrelease", "6.12.1-test\n");
        let mut host =
            Host { hostname: "box".into(), kernel: "6.12.1-test".into(), machine: std::env::consts::ARCH.into() };
        assert_eq!(Host::read(proc.path()).unwrap(), host);
        write(proc.path(), "sys/kernel/arch", "riscv64\n");
        host.machine = "riscv64".into();
        assert_eq!(Host::read(proc.path()).unwrap(), host);
    }

    #[test]
    fn this_machine_is_read() {
        let host = Host::read(Path::new("/proc")).unwrap();
        assert!(host.kernel.starts_with(|c: char| c.is_ascii_digit()), "{host:?}");
        assert!(!host.machine.is_empty() && host.machine.trim() == host.machine);
    }

    #[test]
    fn moments_before_and_after_a_snapshot_map() {
        let clocks = ClockSnapshot { monotonic_ns: Nanos(100), boottime_ns: Nanos(150), realtime_ns: Nanos(1_000) };
        assert_eq!([Nanos(40), Nanos(100), Nanos(190)].map(|at| clocks.realtime(at).0), [940, 1_000, 1_090]);
        assert_eq!([Nanos(40), Nanos(100), Nanos(190)].map(|at| clocks.boottime(at).0), [90, 150, 240]);
        assert_eq!(clocks.realtime(Nanos::MAX), Nanos::MAX);
    }

    #[cfg(any(feature = "live", feature = "machine"))]
    #[test]
    fn the_clocks_are_read_together() {
        let (first, second) = (ClockSnapshot::now(), ClockSnapshot::now());
        assert!(first.monotonic_ns <= second.monotonic_ns);
        assert!(first.boottime_ns >= first.monotonic_ns - Nanos(1_000_000), "boot time never runs behind");
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(Nanos::from(wall) - first.realtime_ns < Nanos(60_000_000_000), "not the wall clock");
        assert!(first.realtime_ns - Nanos::from(wall) == Nanos::ZERO);
    }

    #[test]
    fn a_kernel_without_types_is_told() {
        let sys = tempfile::tempdir().unwrap();
        let error = btf_path(sys.path()).unwrap_err();
        assert!(matches!(&error, Error::NoBtf { .. }) && error.to_string().contains("CONFIG_DEBUG_INFO_BTF"));
        write(sys.path(), "kernel/btf/vmlinux", "");
        assert!(btf_path(sys.path()).is_err(), "empty");
        write(sys.path(), "kernel/btf/vmlinux", "\u{9f}");
        assert_eq!(btf_path(sys.path()).unwrap(), sys.path().join("kernel/btf/vmlinux"));
    }
}
