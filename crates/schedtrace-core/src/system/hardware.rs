//! What sysfs says of CPUs beyond where they sit: how fast they can be, and whether cores run two threads.

use std::path::Path;

use serde::Serialize;

use super::{CpuList, Topology, read_text};
use crate::error::Result;
use crate::event::Cpu;

/// What the CPUs can do.
///
/// ```
/// use schedtrace_core::system::Hardware;
/// let hardware = Hardware::read("/sys".as_ref())?;
/// println!("{:?}", hardware.smt.control);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// Whether cores run more than one thread.
    pub smt: Smt,
    /// CPUs that the kernel keeps free of other tasks (`isolcpus`), as a list; empty if there are none.
    pub isolated: String,
    /// CPUs without a periodic tick (`nohz_full`), as a list; empty if there are none.
    pub nohz_full: String,
    /// Each CPU that exists, by number.
    pub cpus: Vec<CpuHardware>,
}

/// Simultaneous multithreading.
///
/// ```
/// use schedtrace_core::system::Smt;
/// assert!(!Smt::default().active);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Smt {
    /// Whether a core runs more than one thread now.
    pub active: bool,
    /// What the kernel says of it: `on`, `off`, `forceoff`, `notsupported` or `notimplemented`.
    pub control: Option<String>,
}

/// What one CPU can do. What the machine does not tell is none: virtual machines have no frequencies.
///
/// ```
/// use schedtrace_core::system::CpuHardware;
/// assert_eq!(CpuHardware::default().capacity, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuHardware {
    /// Which CPU.
    pub cpu: Cpu,
    /// The lowest frequency it can have.
    pub min_hz: Option<u64>,
    /// The highest frequency it can have.
    pub max_hz: Option<u64>,
    /// The frequency that it has or was told to have, now.
    pub current_hz: Option<u64>,
    /// Who sets its frequency: `schedutil`, `performance`.
    pub governor: Option<String>,
    /// How much it can do next to the fastest CPU of the machine, which has 1024.
    pub capacity: Option<u32>,
}

impl Hardware {
    /// Reads it from sysfs (`/sys`), for the CPUs that exist.
    ///
    /// ```
    /// use schedtrace_core::system::Hardware;
    /// assert!(!Hardware::read("/sys".as_ref())?.cpus.is_empty());
    /// assert!(Hardware::read("/no/such/folder".as_ref()).is_err());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if sysfs names no CPU.
    pub fn read(sys: &Path) -> Result<Self> {
        let topology = Topology::read(sys)?;
        let folder = sys.join("devices/system/cpu");
        let text = |name: &str| read_text(&folder.join(name)).ok();
        let list = |name| text(name).and_then(|list| CpuList::from_kernel(&list)).unwrap_or_default().to_string();
        let threads = topology.group_by(|info| info.core).into_values().any(|cpus| cpus.len() > 1);
        let smt = Smt {
            active: text("smt/active").map_or(threads, |active| active == "1"),
            control: text("smt/control").filter(|control| !control.is_empty()),
        };
        let cpus = topology.cpus.iter().map(|info| CpuHardware::read(info.cpu, &folder)).collect();
        Ok(Self { smt, isolated: list("isolated"), nohz_full: list("nohz_full"), cpus })
    }
}

impl CpuHardware {
    fn read(cpu: Cpu, folder: &Path) -> Self {
        let folder = folder.join(format!("cpu{cpu}"));
        let number = |name: &str| read_text(&folder.join(name)).ok()?.parse::<u64>().ok();
        let hz = |name: &str| number(&format!("cpufreq/{name}"))?.checked_mul(1_000);
        Self {
            cpu,
            min_hz: hz("cpuinfo_min_freq"),
            max_hz: hz("cpuinfo_max_freq"),
            current_hz: hz("scaling_cur_freq"),
            governor: read_text(&folder.join("cpufreq/scaling_governor")).ok(),
            capacity: number("cpu_capacity").and_then(|capacity| capacity.try_into().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;

    #[test]
    fn what_a_machine_tells_is_read_and_the_rest_is_none() {
        let sys = tempfile::tempdir().unwrap();
        let set = |path: &str, text: &str| write(sys.path(), &format!("devices/system/cpu/{path}"), text);
        set("present", "0,7\n");
        set("online", "0,7\n");
        set("isolated", "7\n");
        set("nohz_full", "(null)\n");
        set("cpu0/cpufreq/cpuinfo_min_freq", "800000\n");
        set("cpu0/cpufreq/cpuinfo_max_freq", "3400000\n");
        set("cpu0/cpufreq/scaling_cur_freq", "<unknown>\n");
        set("cpu0/cpufreq/scaling_governor", "schedutil\n");
        set("cpu7/cpu_capacity", "512\n");
        let hardware = Hardware::read(sys.path()).unwrap();
        assert_eq!((hardware.smt.active, hardware.smt.control), (false, None));
        assert_eq!((hardware.isolated.as_str(), hardware.nohz_full.as_str()), ("7", ""));
        let [slow, fast] = &hardware.cpus[..] else { panic!("{:?}", hardware.cpus) };
        assert_eq!((slow.min_hz, slow.max_hz, slow.current_hz), (Some(800_000_000), Some(3_400_000_000), None));
        assert_eq!((slow.governor.as_deref(), slow.capacity), (Some("schedutil"), None));
        assert_eq!((fast.cpu, fast.max_hz, fast.capacity), (Cpu(7), None, Some(512)));
    }

    #[test]
    fn threads_of_a_core_are_smt_where_the_kernel_does_not_say() {
        let sys = tempfile::tempdir().unwrap();
        let set = |path: &str, text: &str| write(sys.path(), &format!("devices/system/cpu/{path}"), text);
        set("present", "0-1\n");
        set("online", "0-1\n");
        set("cpu0/topology/core_cpus_list", "0-1\n");
        set("cpu1/topology/core_cpus_list", "0-1\n");
        assert!(Hardware::read(sys.path()).unwrap().smt.active);
        set("smt/active", "0\n");
        set("smt/control", "off\n");
        let smt = Hardware::read(sys.path()).unwrap().smt;
        assert_eq!((smt.active, smt.control.as_deref()), (false, Some("off")));
    }

    #[test]
    fn this_machine_is_read() {
        let (hardware, topology) = (Hardware::read("/sys".as_ref()).unwrap(), Topology::read("/sys".as_ref()).unwrap());
        assert_eq!(hardware.cpus.len(), topology.cpus.len());
    }
}
