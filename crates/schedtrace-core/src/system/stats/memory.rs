//! Memory, and how much of it is left.

use std::path::Path;

use serde::Serialize;

use super::{Pressure, monotonic_now, per_second, strange, text};
use crate::error::Result;
use crate::event::Nanos;

/// The memory of the machine, now.
///
/// ```
/// use schedtrace_core::system::stats::SystemMemory;
/// let memory = SystemMemory::read("/".as_ref())?;
/// assert!(memory.free_bytes < memory.total_bytes);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SystemMemory {
    /// When it was read, by `CLOCK_MONOTONIC`.
    pub read_at_ns: Nanos,
    /// All that the kernel has to give.
    pub total_bytes: u64,
    /// Not used at all.
    pub free_bytes: u64,
    /// What programs could have without swapping, by the kernel's estimate.
    pub available_bytes: Option<u64>,
    /// Blocks of disks in memory.
    pub buffers_bytes: u64,
    /// Files in memory, shared memory included.
    pub cached_bytes: u64,
    /// Memory of programs that no file stands behind.
    pub anonymous_bytes: u64,
    /// Shared memory and tmpfs.
    pub shared_bytes: u64,
    /// The kernel's own objects.
    pub slab_bytes: u64,
    /// What has yet to be written to disks.
    pub dirty_bytes: u64,
    /// What is being written to disks.
    pub writeback_bytes: u64,
    /// Room to swap to.
    pub swap_total_bytes: u64,
    /// Room to swap to that is left.
    pub swap_free_bytes: u64,
    /// Times since boot that a task touched a page that was not mapped.
    pub page_faults: u64,
    /// Times since boot that this took a read from a disk.
    pub major_page_faults: u64,
    /// Pages since boot that were brought back from swap.
    pub pages_swapped_in: u64,
    /// Pages since boot that were written to swap.
    pub pages_swapped_out: u64,
    /// Times since boot that a task was killed for want of memory.
    pub oom_kills: u64,
    /// Time lost because memory was short.
    pub pressure: Option<Pressure>,
}

/// What happened to memory between two readings.
///
/// ```
/// use schedtrace_core::system::stats::MemoryRates;
/// assert_eq!(MemoryRates::default().oom_kills, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MemoryRates {
    /// How long it was from the first to the second.
    pub window_ns: Nanos,
    /// How much more was in use at the second; less if negative.
    pub growth_bytes: i64,
    /// Touches of pages that were not mapped.
    pub page_faults_per_second: f64,
    /// Those that took a read from a disk.
    pub major_page_faults_per_second: f64,
    /// Pages brought back from swap.
    pub pages_swapped_in_per_second: f64,
    /// Pages written to swap.
    pub pages_swapped_out_per_second: f64,
    /// Tasks killed for want of memory.
    pub oom_kills: u64,
}

impl SystemMemory {
    /// Reads `proc/meminfo`, and `proc/vmstat` and `proc/pressure/memory` where they are, below `root`.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemMemory;
    /// assert!(SystemMemory::read("/".as_ref())?.total_bytes > 0);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if `proc/meminfo` cannot be read, or does not tell how much there is and how much
    /// is free.
    pub fn read(root: &Path) -> Result<Self> {
        const MEMINFO: &str = "proc/meminfo";
        let meminfo = text(root, MEMINFO)?;
        let read_at_ns = monotonic_now();
        // Kernels before 4.13 have no count of kills, and containers often hide the file.
        let vmstat = text(root, "proc/vmstat").unwrap_or_default();
        let bytes = |name| bytes_of(&meminfo, name);
        let count = |name| count_of(&vmstat, name).unwrap_or(0);
        let needed = |name| bytes(name).ok_or_else(|| strange(root, MEMINFO, "it lacks MemTotal or MemFree"));
        Ok(Self {
            read_at_ns,
            total_bytes: needed("MemTotal")?,
            free_bytes: needed("MemFree")?,
            available_bytes: bytes("MemAvailable"),
            buffers_bytes: bytes("Buffers").unwrap_or(0),
            cached_bytes: bytes("Cached").unwrap_or(0),
            anonymous_bytes: bytes("AnonPages").unwrap_or(0),
            shared_bytes: bytes("Shmem").unwrap_or(0),
            slab_bytes: bytes("Slab").unwrap_or(0),
            dirty_bytes: bytes("Dirty").unwrap_or(0),
            writeback_bytes: bytes("Writeback").unwrap_or(0),
            swap_total_bytes: bytes("SwapTotal").unwrap_or(0),
            swap_free_bytes: bytes("SwapFree").unwrap_or(0),
            page_faults: count("pgfault"),
            major_page_faults: count("pgmajfault"),
            pages_swapped_in: count("pswpin"),
            pages_swapped_out: count("pswpout"),
            oom_kills: count("oom_kill"),
            pressure: Pressure::read(root, "memory")?,
        })
    }

    /// What happened since an earlier reading of the same machine.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemMemory;
    /// let before = SystemMemory::read("/".as_ref())?;
    /// let rates = SystemMemory::read("/".as_ref())?.since(&before);
    /// println!("{:.0} page faults/s", rates.page_faults_per_second);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn since(&self, before: &Self) -> MemoryRates {
        let window_ns = self.read_at_ns - before.read_at_ns;
        let rate = |count: fn(&Self) -> u64| per_second(count(before), count(self), window_ns);
        // What was free before and is not now; both are far below what an i64 holds.
        let left =
            |memory: &Self| i64::try_from(memory.available_bytes.unwrap_or(memory.free_bytes)).unwrap_or(i64::MAX);
        MemoryRates {
            window_ns,
            growth_bytes: left(before).saturating_sub(left(self)),
            page_faults_per_second: rate(|memory| memory.page_faults),
            major_page_faults_per_second: rate(|memory| memory.major_page_faults),
            pages_swapped_in_per_second: rate(|memory| memory.pages_swapped_in),
            pages_swapped_out_per_second: rate(|memory| memory.pages_swapped_out),
            oom_kills: self.oom_kills.saturating_sub(before.oom_kills),
        }
    }
}

/// `meminfo_proc_show()` in `fs/proc/meminfo.c`: what it calls kB are 1,024 bytes.
fn bytes_of(meminfo: &str, name: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1_024))
}

fn count_of(vmstat: &str, name: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::write;
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "proc/meminfo",
            "MemTotal:  100 kB\nMemFree: 40 kB\nMemAvailable:\t60 kB\nSwapCached: 1 kB\nCached: 7 kB\n",
        );
        write(root.path(), "proc/vmstat", "pgfault 900\npgfault_other 1\npgmajfault 3\noom_kill 1\n");
        let before = SystemMemory { read_at_ns: Nanos(0), ..SystemMemory::read(root.path()).unwrap() };
        assert_eq!((before.total_bytes, before.free_bytes, before.available_bytes), (102_400, 40_960, Some(61_440)));
        assert_eq!((before.cached_bytes, before.swap_total_bytes, before.page_faults), (7_168, 0, 900));
        write(root.path(), "proc/meminfo", "MemTotal: 100 kB\nMemFree: 30 kB\nMemAvailable: 59 kB\n");
        write(root.path(), "proc/vmstat", "pgfault 1000\npgmajfault 3\noom_kill 2\n");
        let after = SystemMemory { read_at_ns: Nanos(100_000_000), ..SystemMemory::read(root.path()).unwrap() };
        let rates = after.since(&before);
        assert_eq!((rates.growth_bytes, rates.page_faults_per_second, rates.oom_kills), (1_024, 1_000.0, 1));
        assert_eq!(before.since(&after).growth_bytes, -1_024);
    }

    #[test]
    fn a_file_without_totals_is_none() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/meminfo", "MemTotal: 99999999999999999999 kB\n");
        let told = SystemMemory::read(root.path()).unwrap_err().to_string();
        assert!(told.ends_with("proc/meminfo: it lacks MemTotal or MemFree"), "{told}");
    }

    #[test]
    fn this_machine_is_read() {
        let memory = SystemMemory::read("/".as_ref()).unwrap();
        assert!(memory.total_bytes > 1 << 20 && memory.free_bytes < memory.total_bytes);
        assert!(memory.page_faults > 0, "{memory:?}");
    }
}
