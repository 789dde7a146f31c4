//! The machine: topology, clocks, procfs and cgroups. Every reader is rooted at a `&Path`, so that a test gives it a folder.

mod topology;

pub use topology::{CpuInfo, Locality, Topology};

use serde::{Deserialize, Serialize};

use crate::event::Nanos;

/// Which machine, and which kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its node name.
    pub hostname: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The hardware, as `uname -m` prints it.
    pub machine: String,
}

/// The three clocks read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSnapshot {
    /// `CLOCK_MONOTONIC`: the clock of every event.
    pub monotonic_ns: Nanos,
    /// `CLOCK_BOOTTIME`: it goes on during suspend.
    pub boottime_ns: Nanos,
    /// `CLOCK_REALTIME`: nanoseconds since 1970-01-01 UTC.
    pub realtime_ns: Nanos,
}
