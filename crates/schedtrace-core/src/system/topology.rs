//! CPUs, and which of them share a core, a last-level cache and a NUMA node.

use serde::{Deserialize, Serialize};

use crate::event::Cpu;

/// One logical CPU and where it sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuInfo {
    /// The kernel's number of it.
    pub cpu: Cpu,
    /// Physical core; unique on the machine: the lowest CPU number among its hardware threads.
    pub core: u32,
    /// Last-level cache domain; unique on the machine: the lowest CPU number that shares it.
    pub llc: u32,
    /// NUMA node.
    pub node: u32,
    /// Whether it was online.
    pub online: bool,
}

/// The CPUs of a machine, sorted by number. Numbers may be sparse.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// One entry per CPU that exists.
    pub cpus: Vec<CpuInfo>,
}

/// How far apart two CPUs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// The same CPU.
    Cpu,
    /// Hardware threads of one core.
    Core,
    /// Cores that share a last-level cache.
    Llc,
    /// Caches of one NUMA node.
    Node,
    /// Different NUMA nodes.
    CrossNode,
    /// At least one of the two is not in the topology.
    Unknown,
}

impl Topology {
    /// Where a CPU sits.
    #[must_use]
    pub fn get(&self, cpu: Cpu) -> Option<&CpuInfo> {
        self.cpus.binary_search_by_key(&cpu, |info| info.cpu).ok().map(|at| &self.cpus[at])
    }

    /// How far apart two CPUs are.
    #[must_use]
    pub fn locality(&self, a: Cpu, b: Cpu) -> Locality {
        if a == b {
            return Locality::Cpu;
        }
        match (self.get(a), self.get(b)) {
            (Some(a), Some(b)) if a.core == b.core => Locality::Core,
            (Some(a), Some(b)) if a.llc == b.llc => Locality::Llc,
            (Some(a), Some(b)) if a.node == b.node => Locality::Node,
            (Some(_), Some(_)) => Locality::CrossNode,
            _ => Locality::Unknown,
        }
    }
}
