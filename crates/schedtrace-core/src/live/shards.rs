//! Which CPUs share a ring, and how large each ring is.

use super::arena;
use super::decode::{LOG, PART_BYTES};
use crate::error::{Error, Result};
use crate::event::{Cpu, ShardId};
use crate::system::{CpuInfo, Topology};

/// How CPUs are grouped into shards: each has a ring and a thread of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardPolicy {
    /// CPUs that share a last-level cache, at most 8 of them to a shard. Producers of one ring contend for its lock,
    /// and 8 of them already push less through it than one alone.
    #[default]
    Auto,
    /// One per CPU.
    PerCpu,
    /// One per last-level cache, however many CPUs share it.
    PerLlc,
    /// One per NUMA node.
    PerNode,
    /// One for the whole machine.
    Single,
}

impl ShardPolicy {
    /// All of them with their names, for command lines.
    pub const ALL: [(&'static str, Self); 5] = [
        ("auto", Self::Auto),
        ("per-cpu", Self::PerCpu),
        ("per-llc", Self::PerLlc),
        ("per-node", Self::PerNode),
        ("single", Self::Single),
    ];
}

impl std::str::FromStr for ShardPolicy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, policy)| policy).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            Error::Invalid(format!("no shard policy is called `{name}`: use one of {names}"))
        })
    }
}

const AUTO_CPUS: usize = 8;

/// The shards of a machine, and the bytes between kernel and recorder that are theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Shard `n` is the `n`th: its CPUs, sorted.
    pub(super) shards: Vec<Vec<Cpu>>,
    /// Bytes of each shard's ring, where they have rings.
    pub(super) ring_bytes: usize,
    /// Bytes of the ring for lifecycle, identity and loss.
    pub(super) lifecycle_bytes: usize,
    /// Bytes for all shards.
    bytes: usize,
    page: usize,
}

/// The logs in an arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogPlan {
    /// The log of each CPU, indexed by its number.
    pub(super) log_of: Vec<usize>,
    /// The logs of each shard.
    pub(super) logs: Vec<Vec<usize>>,
    /// The parts of each log, a power of two.
    pub(super) parts: usize,
    /// Bytes from one log to the next.
    pub(super) stride: usize,
    /// Bytes of all of them.
    pub(super) bytes: usize,
    /// Bytes of each shard's bell.
    pub(super) bell_bytes: usize,
}

/// A log has no fewer parts: room for a few of the longest records.
const LEAST_PARTS: usize = 64;

impl Plan {
    /// Divides `budget` bytes: an eighth, and at most 1 MiB, for lifecycle and loss, the rest evenly among the shards.
    /// A ring's size is a power of two and at least a page (`ringbuf_map_alloc()` in `kernel/bpf/ringbuf.c`).
    pub(super) fn new(policy: ShardPolicy, topology: &Topology, budget: usize, page: usize) -> Result<Self> {
        let shards = group(policy, topology);
        let lifecycle_bytes = floor_power_of_two(budget / 8).clamp(page, 1 << 20);
        let each = budget.saturating_sub(lifecycle_bytes) / shards.len();
        let ring_bytes = floor_power_of_two(each).min(1 << 30);
        if ring_bytes < page {
            let least = page * (shards.len() + 1) + page * shards.len() / 7;
            return Err(Error::Invalid(format!(
                "{budget} bytes are too few for {} ring(s) of at least {page} bytes each: give the rings at least {} \
                 bytes, or use fewer shards",
                shards.len() + 1,
                least.next_multiple_of(page),
            )));
        }
        let bytes = budget - lifecycle_bytes;
        Ok(Self { shards, ring_bytes, lifecycle_bytes, bytes, page })
    }

    /// The same bytes as logs: one for each of these CPUs, also for one that is offline now, and one that those share that
    /// are added later, if the kernel expects any. `count`: how many CPU numbers there can be.
    pub(super) fn logs(&self, cpus: &[CpuInfo], count: usize) -> Result<LogPlan> {
        let spare = cpus.len();
        let mut log_of = vec![spare; count];
        for (log, info) in cpus.iter().enumerate() {
            if let Some(slot) = log_of.get_mut(usize::from(info.cpu.0)) {
                *slot = log;
            }
        }
        let all = if log_of.contains(&spare) { spare + 1 } else { spare };
        let mut logs = vec![Vec::new(); self.shards.len()];
        for (&log, shard) in log_of.iter().zip(self.shard_of(count)) {
            if !logs[usize::from(shard.0)].contains(&log) {
                logs[usize::from(shard.0)].push(log);
            }
        }
        let room = self.bytes.saturating_sub(self.page * self.shards.len()).min(arena::MOST_BYTES) / all.max(1);
        let whole_pages = room / self.page * self.page;
        let parts = floor_power_of_two(whole_pages.saturating_sub(LOG.bytes) / PART_BYTES);
        if parts < LEAST_PARTS {
            return Err(Error::Invalid(format!(
                "{} bytes are too few for {all} log(s) of at least {} bytes each: give them more bytes, or choose the \
                 transport `ring`",
                self.bytes, self.page,
            )));
        }
        let stride = (LOG.bytes + parts * PART_BYTES).next_multiple_of(self.page);
        Ok(LogPlan { log_of, logs, parts, stride, bytes: all * stride, bell_bytes: self.page })
    }

    /// The shard of each CPU, indexed by its number, for `count` CPU numbers. One that was not there when the plan was
    /// made goes to the first shard.
    pub(super) fn shard_of(&self, count: usize) -> Vec<ShardId> {
        let mut shard_of = vec![ShardId(0); count];
        for (shard, cpus) in self.shards.iter().enumerate() {
            for cpu in cpus {
                if let Some(slot) = shard_of.get_mut(usize::from(cpu.0)) {
                    *slot = ShardId(shard as u16);
                }
            }
        }
        shard_of
    }
}

fn floor_power_of_two(n: usize) -> usize {
    if n == 0 { 0 } else { 1 << n.ilog2() }
}

fn group(policy: ShardPolicy, topology: &Topology) -> Vec<Vec<Cpu>> {
    let groups = topology.group_by(|info| match policy {
        ShardPolicy::Auto | ShardPolicy::PerLlc => info.llc,
        ShardPolicy::PerCpu => u32::from(info.cpu.0),
        ShardPolicy::PerNode => info.node,
        ShardPolicy::Single => 0,
    });
    let most = if policy == ShardPolicy::Auto { AUTO_CPUS } else { usize::MAX };
    let mut shards: Vec<Vec<Cpu>> = groups
        .into_values()
        .flat_map(|cpus| {
            // Even parts: 12 CPUs make 6 + 6, not 8 + 4.
            let parts = cpus.len().div_ceil(most);
            let size = cpus.len().div_ceil(parts);
            cpus.chunks(size).map(<[Cpu]>::to_vec).collect::<Vec<_>>()
        })
        .collect();
    if shards.is_empty() {
        shards.push(Vec::new());
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    /// 2 nodes with 2 LLCs each, 12 CPUs per LLC, ids with gaps.
    fn large() -> Topology {
        let cpus = (0..48)
            .map(|n: u16| CpuInfo {
                cpu: Cpu(n * 7),
                core: u32::from(n),
                llc: u32::from(n / 12) * 84,
                node: u32::from(n / 24),
                online: n != 13,
            })
            .collect();
        Topology { cpus }
    }

    fn sizes(policy: ShardPolicy) -> Vec<usize> {
        group(policy, &large()).iter().map(Vec::len).collect()
    }

    #[test]
    fn shards_follow_the_policy() {
        assert_eq!(sizes(ShardPolicy::Auto), [6, 6, 6, 5, 6, 6, 6, 6]);
        assert_eq!(sizes(ShardPolicy::PerLlc), [12, 11, 12, 12]);
        assert_eq!(sizes(ShardPolicy::PerNode), [23, 24]);
        assert_eq!(sizes(ShardPolicy::Single), [47]);
        assert_eq!(sizes(ShardPolicy::PerCpu), vec![1; 47]);
    }

    #[test]
    fn sparse_cpus_find_their_shard() {
        let plan = Plan::new(ShardPolicy::PerNode, &large(), 64 << 20, PAGE).unwrap();
        let shard_of = plan.shard_of(330);
        assert_eq!((shard_of[0], shard_of[47 * 7], shard_of[5]), (ShardId(0), ShardId(1), ShardId(0)));
    }

    #[test]
    fn the_budget_is_kept() {
        for policy in ShardPolicy::ALL.map(|(_, policy)| policy) {
            for budget in [1 << 20, 3 << 20, 100 << 20] {
                let plan = Plan::new(policy, &large(), budget, PAGE).unwrap();
                assert!(plan.ring_bytes.is_power_of_two() && plan.lifecycle_bytes.is_power_of_two());
                assert!(plan.ring_bytes * plan.shards.len() + plan.lifecycle_bytes <= budget);
            }
        }
    }

    #[test]
    fn every_cpu_has_a_log_and_those_that_may_come_share_one() {
        let topology = large();
        for (policy, budget) in
            [(ShardPolicy::Auto, 32 << 20), (ShardPolicy::PerCpu, 3 << 20), (ShardPolicy::Single, 6 << 30)]
        {
            let plan = Plan::new(policy, &topology, budget, PAGE).unwrap();
            let logs = plan.logs(&topology.cpus, 400).unwrap();
            assert!(logs.parts.is_power_of_two() && logs.stride.is_multiple_of(PAGE));
            assert!(logs.stride >= LOG.bytes + logs.parts * PART_BYTES && logs.bytes == 49 * logs.stride);
            let bells = logs.bell_bytes * plan.shards.len();
            assert!(logs.bytes + bells + plan.lifecycle_bytes <= budget && logs.bytes <= arena::MOST_BYTES);
            // No log has two readers, and each has that of its CPUs.
            let mut all: Vec<_> = logs.logs.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..49).collect::<Vec<_>>());
            for (cpu, shard) in plan.shard_of(400).into_iter().enumerate() {
                assert!(logs.logs[usize::from(shard.0)].contains(&logs.log_of[cpu]));
            }
            assert_eq!((logs.log_of[7], logs.log_of[47 * 7], logs.log_of[1], logs.log_of[399]), (1, 47, 48, 48));
        }
        let plan = Plan::new(ShardPolicy::Single, &topology, 64 << 10, PAGE).unwrap();
        let error = plan.logs(&topology.cpus, 400).unwrap_err().to_string();
        assert!(error.contains("49 log(s)") && error.contains("`ring`"), "{error}");
    }

    #[test]
    fn too_small_a_budget_is_refused_with_one_that_does() {
        let error = Plan::new(ShardPolicy::PerCpu, &large(), 8192, PAGE).unwrap_err().to_string();
        let enough: usize = error.split("at least ").nth(2).and_then(|t| t.split(' ').next()).unwrap().parse().unwrap();
        assert!(Plan::new(ShardPolicy::PerCpu, &large(), enough, PAGE).is_ok(), "{error}");
        assert!(Plan::new(ShardPolicy::Single, &large(), 0, PAGE).is_err());
    }
}
