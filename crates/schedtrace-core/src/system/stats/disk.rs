//! Block devices.

use std::path::Path;

use procfs_core::{DiskStat, DiskStats, FromRead};
use serde::Serialize;

use super::{Pressure, monotonic_now, per_second, share, strange, text};
use crate::error::Result;
use crate::event::Nanos;

/// The kernel counts in sectors of 512 bytes, whatever the device's own are.
const SECTOR_BYTES: u64 = 512;

/// What the block devices have done since boot, or since each was made.
///
/// ```
/// use schedtrace_core::system::stats::SystemDisk;
/// for disk in SystemDisk::read("/".as_ref())?.disks {
///     println!("{}: {} reads", disk.name, disk.reads);
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SystemDisk {
    /// When it was read, by `CLOCK_MONOTONIC`.
    pub read_at_ns: Nanos,
    /// Disks and their partitions that have done anything, the busiest first.
    pub disks: Vec<Disk>,
    /// How many devices have never done anything.
    pub unused_devices: usize,
    /// Time lost because of I/O.
    pub pressure: Option<Pressure>,
    /// Those that have never done anything: at their first request, all that they do is new.
    #[serde(skip)]
    unused: Vec<Disk>,
}

/// What one block device has done.
///
/// ```
/// use schedtrace_core::system::stats::Disk;
/// assert_eq!(Disk { name: "vda".into(), ..Disk::default() }.writes, 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Its name.
    pub name: String,
    /// Its number: major and minor.
    pub device: (u32, u32),
    /// Reads completed.
    pub reads: u64,
    /// What they brought.
    pub read_bytes: u64,
    /// From request to completion, summed over all reads.
    pub read_time_ms: u64,
    /// Writes completed.
    pub writes: u64,
    /// What they took.
    pub written_bytes: u64,
    /// From request to completion, summed over all writes.
    pub write_time_ms: u64,
    /// Discards completed.
    pub discards: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Requests that are under way, now.
    pub in_flight: u64,
    /// Time in which at least one request was under way.
    pub busy_ms: u64,
    /// Time that requests were under way, summed over all of them.
    pub queued_ms: u64,
}

/// What the block devices did between two readings.
///
/// ```
/// use schedtrace_core::system::stats::DiskRates;
/// assert!(DiskRates::default().disks.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DiskRates {
    /// How long it was from the first to the second.
    pub window_ns: Nanos,
    /// Those that were there at both, the busiest first.
    pub disks: Vec<DiskActivity>,
}

/// What one block device did between two readings.
///
/// ```
/// use schedtrace_core::system::stats::DiskActivity;
/// assert_eq!(DiskActivity::default().read_mean_ms, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DiskActivity {
    /// Its name.
    pub name: String,
    /// Reads completed.
    pub reads_per_second: f64,
    /// What they brought.
    pub read_bytes_per_second: f64,
    /// From request to completion of a read; `None` where there was none.
    pub read_mean_ms: Option<f64>,
    /// Writes completed.
    pub writes_per_second: f64,
    /// What they took.
    pub written_bytes_per_second: f64,
    /// From request to completion of a write; `None` where there was none.
    pub write_mean_ms: Option<f64>,
    /// Part of the time in which at least one request was under way, from 0 to 1.
    pub busy_ratio: f64,
    /// Requests under way, on average.
    pub queue_mean: f64,
}

impl SystemDisk {
    /// Reads `proc/diskstats` and `proc/pressure/io` below `root`.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemDisk;
    /// assert!(SystemDisk::read("/no/such/folder".as_ref()).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if `proc/diskstats` cannot be read, or is not as the kernel writes it.
    pub fn read(root: &Path) -> Result<Self> {
        const DISKSTATS: &str = "proc/diskstats";
        let stats = text(root, DISKSTATS)?;
        let read_at_ns = monotonic_now();
        let DiskStats(stats) = DiskStats::from_read(stats.as_bytes())
            .map_err(|_| strange(root, DISKSTATS, "it is not as the kernel writes it"))?;
        let used = |disk: &Disk| disk.reads | disk.writes | disk.discards | disk.flushes | disk.in_flight != 0;
        let (mut disks, unused): (Vec<Disk>, Vec<Disk>) = stats.into_iter().map(Disk::from).partition(used);
        disks.sort_by(|a, b| b.busy_ms.cmp(&a.busy_ms).then_with(|| a.name.cmp(&b.name)));
        Ok(Self { read_at_ns, disks, unused_devices: unused.len(), pressure: Pressure::read(root, "io")?, unused })
    }

    /// What happened since an earlier reading of the same machine.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemDisk;
    /// let before = SystemDisk::read("/".as_ref())?;
    /// let rates = SystemDisk::read("/".as_ref())?.since(&before);
    /// assert!(rates.disks.iter().all(|disk| disk.busy_ratio <= 1.0));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn since(&self, before: &Self) -> DiskRates {
        let window_ns = self.read_at_ns - before.read_at_ns;
        let window_ms = window_ns.0 as f64 / 1e6;
        let both = self.disks.iter().filter_map(|now| {
            let mut known = before.disks.iter().chain(&before.unused);
            let then = known.find(|then| then.device == now.device && then.name == now.name)?;
            let rate = |count: fn(&Disk) -> u64| per_second(count(then), count(now), window_ns);
            let grew = |count: fn(&Disk) -> u64| count(now).saturating_sub(count(then));
            let part = |ms: u64| if window_ms > 0.0 { ms as f64 / window_ms } else { 0.0 };
            let mean = |ms: u64, requests: u64| (requests > 0).then(|| share(ms, requests));
            Some(DiskActivity {
                name: now.name.clone(),
                reads_per_second: rate(|disk| disk.reads),
                read_bytes_per_second: rate(|disk| disk.read_bytes),
                read_mean_ms: mean(grew(|disk| disk.read_time_ms), grew(|disk| disk.reads)),
                writes_per_second: rate(|disk| disk.writes),
                written_bytes_per_second: rate(|disk| disk.written_bytes),
                write_mean_ms: mean(grew(|disk| disk.write_time_ms), grew(|disk| disk.writes)),
                // The kernel adds whole milliseconds when requests end, so it may tell a little more than there was.
                busy_ratio: part(grew(|disk| disk.busy_ms)).min(1.0),
                queue_mean: part(grew(|disk| disk.queued_ms)),
            })
        });
        let mut disks: Vec<_> = both.collect();
        disks.sort_by(|a, b| b.busy_ratio.total_cmp(&a.busy_ratio));
        DiskRates { window_ns, disks }
    }
}

impl From<DiskStat> for Disk {
    fn from(stat: DiskStat) -> Self {
        let number = |number: i32| u32::try_from(number).unwrap_or(0);
        Self {
            name: stat.name,
            device: (number(stat.major), number(stat.minor)),
            reads: stat.reads,
            read_bytes: stat.sectors_read.saturating_mul(SECTOR_BYTES),
            read_time_ms: stat.time_reading,
            writes: stat.writes,
            written_bytes: stat.sectors_written.saturating_mul(SECTOR_BYTES),
            write_time_ms: stat.time_writing,
            discards: stat.discards.unwrap_or(0),
            flushes: stat.flushes.unwrap_or(0),
            in_flight: stat.in_progress,
            busy_ms: stat.time_in_progress,
            queued_ms: stat.weighted_time_in_progress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::write;
    use super::*;

    fn read(text: &str, at: u64) -> SystemDisk {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/diskstats", text);
        SystemDisk { read_at_ns: Nanos(at), ..SystemDisk::read(root.path()).unwrap() }
    }

    #[test]
    fn the_busiest_device_comes_first() {
        // The oldest form has 11 numbers; discards and flushes came later.
        let before = read(
            "   7 0 loop0 1 0 8 1 0 0 0 0 0 5 5\n 7 1 loop1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n 254 0 vda 100 1 2000 50 10 0 16 30 0 60 80 1 0 8 1 2 3\n",
            0,
        );
        assert_eq!(before.disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), ["vda", "loop0"]);
        assert_eq!(before.unused_devices, 1);
        let vda = &before.disks[0];
        assert_eq!((vda.device, vda.read_bytes, vda.written_bytes), ((254, 0), 1_024_000, 8_192));
        assert_eq!((vda.discards, vda.flushes, vda.busy_ms, vda.queued_ms), (1, 2, 60, 80));
        let after = read("254 0 vda 120 1 2400 90 10 0 16 30 4 160 280 1 0 8 1 2 3\n", 200_000_000);
        let rates = after.since(&before);
        let vda = &rates.disks[0];
        assert_eq!((vda.reads_per_second, vda.read_bytes_per_second), (100.0, 1_024_000.0));
        assert_eq!((vda.read_mean_ms, vda.write_mean_ms), (Some(2.0), None));
        assert_eq!((vda.busy_ratio, vda.queue_mean), (0.5, 1.0));
        assert_eq!(after.disks[0].in_flight, 4);
    }

    #[test]
    fn the_first_request_of_a_device_is_told() {
        let before = read("7 1 loop1 0 0 0 0 0 0 0 0 0 0 0\n", 0);
        let after = read("7 1 loop1 10 0 80 5 0 0 0 0 0 100 5\n7 2 new 10 0 80 5 0 0 0 0 0 100 5\n", 1_000_000_000);
        let told: Vec<_> =
            after.since(&before).disks.into_iter().map(|disk| (disk.name, disk.reads_per_second)).collect();
        assert_eq!(told, [("loop1".to_owned(), 10.0)], "what was not there before may have begun at any time");
    }

    #[test]
    fn this_machine_is_read() {
        let disks = SystemDisk::read("/".as_ref()).unwrap();
        assert!(disks.disks.iter().all(|disk| !disk.name.is_empty()), "{disks:?}");
    }
}
