//! What the kernel counts for the whole machine: CPU time, memory, network, disks and interrupts.
//!
//! Most counters go up from boot, so that one reading tells little of now. Take two: `since` gives the rates between them.
//! Every reader is rooted at the folder that takes the place of `/`.
//!
//! ```
//! use std::path::Path;
//! use schedtrace_core::system::stats::SystemCpu;
//!
//! let before = SystemCpu::read(Path::new("/"))?;
//! std::thread::sleep(std::time::Duration::from_millis(20));
//! let rates = SystemCpu::read(Path::new("/"))?.since(&before);
//! assert!(rates.total.busy_ratio <= 1.0);
//! # Ok::<(), schedtrace_core::Error>(())
//! ```

mod cpu;
mod disk;
mod interrupts;
mod memory;
mod network;
mod run_queues;

pub use cpu::{CpuRates, CpuShares, CpuTimes, CpuUse, CpuUseRates, Load, SystemCpu};
pub use disk::{Disk, DiskActivity, DiskRates, SystemDisk};
pub use interrupts::{Interrupt, InterruptActivity, InterruptKind, InterruptRates, SystemInterrupts};
pub use memory::{MemoryRates, SystemMemory};
pub use network::{Interface, InterfaceActivity, NetworkRates, SystemNetwork};
pub use run_queues::{RunQueue, RunQueueRates, RunQueues};

use std::io;
use std::path::Path;

use serde::Serialize;

use super::{ClockSnapshot, read_up_to};
use crate::error::{Error, Result};
use crate::event::Nanos;

/// A machine with a thousand CPUs writes a megabyte into `/proc/interrupts`; what stands in its place is not read on and on.
const MAX_STATISTICS: u64 = 16 * 1024 * 1024;

/// How much time was lost to a resource that was short (pressure stall information).
///
/// ```
/// use schedtrace_core::system::stats::Pressure;
/// if let Some(pressure) = Pressure::read("/".as_ref(), "cpu")? {
///     println!("{:?}", pressure.some);
/// }
/// assert!(Pressure::read("/no/such/folder".as_ref(), "cpu")?.is_none());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// At least one task was kept waiting.
    pub some: Option<Stall>,
    /// All tasks that were not idle were kept waiting.
    pub full: Option<Stall>,
}

/// One line of a pressure file.
///
/// ```
/// use schedtrace_core::system::stats::Stall;
/// assert_eq!(Stall::default().total_ns.0, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stall {
    /// Share of the last 10 seconds, in percent.
    pub avg10_percent: f64,
    /// Share of the last minute, in percent.
    pub avg60_percent: f64,
    /// Share of the last five minutes, in percent.
    pub avg300_percent: f64,
    /// In all since boot.
    pub total_ns: Nanos,
}

impl Pressure {
    /// Reads `proc/pressure/NAME` below `root`, where `name` is `cpu`, `memory`, `io` or `irq`. `None` where the kernel
    /// keeps no such account, or was told at boot not to.
    ///
    /// ```
    /// use schedtrace_core::system::stats::Pressure;
    /// let stalled = Pressure::read("/".as_ref(), "io")?.and_then(|io| io.full);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if the file is there and cannot be read.
    pub fn read(root: &Path, name: &str) -> Result<Option<Self>> {
        /// How the kernel refuses the file where the account is switched off, which std does not name.
        const EOPNOTSUPP: i32 = 95;
        let path = root.join("proc/pressure").join(name);
        match read_up_to(&path, MAX_STATISTICS) {
            Ok(text) => Ok(Some(Self::parse(&text)).filter(|pressure| *pressure != Self::default())),
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(EOPNOTSUPP) => {
                Ok(None)
            }
            Err(error) => Err(Error::io("cannot read", path)(error)),
        }
    }

    /// `psi_show()` in `kernel/sched/psi.c`.
    fn parse(text: &str) -> Self {
        let line = |name| text.lines().find_map(|line| Stall::parse(line.strip_prefix(name)?));
        Self { some: line("some "), full: line("full ") }
    }
}

impl Stall {
    fn parse(fields: &str) -> Option<Self> {
        let field = |name| fields.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
        let percent = |name| field(name)?.parse::<f64>().ok().filter(|share| share.is_finite());
        let total_us: u64 = field("total=")?.parse().ok()?;
        Some(Self {
            avg10_percent: percent("avg10=")?,
            avg60_percent: percent("avg60=")?,
            avg300_percent: percent("avg300=")?,
            total_ns: Nanos(total_us.saturating_mul(1_000)),
        })
    }
}

fn monotonic_now() -> Nanos {
    ClockSnapshot::now().monotonic_ns
}

/// A file below `root`, as text.
fn text(root: &Path, path: &str) -> Result<String> {
    let path = root.join(path);
    read_up_to(&path, MAX_STATISTICS).map_err(Error::io("cannot read", path))
}

/// The error that a file does not say what it should.
fn strange(root: &Path, path: &str, why: &'static str) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, why);
    Error::Io { what: "cannot understand", path: root.join(path), source }
}

/// How fast a counter grew. One that went back was set anew meanwhile (a device was taken away and put back).
fn per_second(before: u64, after: u64, window: Nanos) -> f64 {
    if window == Nanos::ZERO { 0.0 } else { after.saturating_sub(before) as f64 / window.as_secs_f64() }
}

/// A part of a whole; nothing of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pressure_is_read_as_far_as_it_is_told() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Pressure::read(root.path(), "irq").unwrap(), None);
        write(root.path(), "proc/pressure/irq", "full avg10=1.50 avg60=0.25 avg300=0.00 total=7\n");
        let irq = Pressure::read(root.path(), "irq").unwrap().unwrap();
        assert_eq!(irq.some, None);
        assert_eq!(irq.full.unwrap().total_ns, Nanos(7_000));
        assert_eq!(irq.full.unwrap().avg10_percent, 1.5);
        write(root.path(), "proc/pressure/cpu", "some\nfull avg10=NaN avg60=0 avg300=0 total=1\n");
        assert_eq!(Pressure::read(root.path(), "cpu").unwrap(), None);
        std::fs::create_dir_all(root.path().join("proc/pressure/io")).unwrap();
        let told = Pressure::read(root.path(), "io").unwrap_err().to_string();
        assert!(told.starts_with("cannot read ") && told.contains("proc/pressure/io"), "{told}");
    }

    #[test]
    fn rates_of_nothing_are_nothing() {
        assert_eq!(per_second(1, 5, Nanos::ZERO), 0.0);
        assert_eq!(per_second(5, 1, Nanos(1)), 0.0, "a counter that was set anew");
        assert_eq!(per_second(1, 5, Nanos(2_000_000_000)), 2.0);
        assert_eq!(share(0, 0), 0.0);
    }

    /// Every reader, on a folder whose files all say the same.
    fn read_all(root: &Path) {
        let cpu = SystemCpu::read(root).map(|cpu| cpu.since(&cpu));
        let memory = SystemMemory::read(root).map(|memory| memory.since(&memory));
        let network = SystemNetwork::read(root).map(|network| network.since(&network));
        let disk = SystemDisk::read(root).map(|disk| disk.since(&disk));
        let interrupts = SystemInterrupts::read(root).map(|interrupts| interrupts.since(&interrupts));
        assert!(RunQueues::read(root).is_ok());
        let errors = [cpu.err(), memory.err(), network.err(), disk.err(), interrupts.err()];
        for told in errors.into_iter().flatten().map(|error| error.to_string()) {
            assert!(told.starts_with("cannot ") && !told.contains('\n') && !told.contains(".rs"), "{told}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_gives_an_error_and_no_panic(
            lines in prop::collection::vec(
                prop_oneof![
                    "(cpu|cpu[0-9]{0,6}|ctxt|btime|processes|intr|softirq|MemTotal:|SwapFree:|some|full|eth0:| +CPU[0-9]{1,5})( [0-9]{0,21}){0,20}( kB)?",
                    "[0-9 ]{0,60}",
                    "\\PC{0,40}",
                ],
                0..12,
            ),
        ) {
            let root = tempfile::tempdir().unwrap();
            let text = lines.join("\n");
            for path in ["stat", "loadavg", "meminfo", "net/dev", "diskstats", "interrupts", "softirqs", "pressure/cpu", "schedstat"] {
                write(root.path(), &format!("proc/{path}"), &text);
            }
            read_all(root.path());
        }
    }
}
