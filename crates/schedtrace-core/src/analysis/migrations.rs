//! How far tasks were moved between run queues.

use serde::Serialize;

use super::groups::{Gone, Group, GroupIx, Merge, Rows};
use super::states::{Migrated, Seen};
use super::study::Scope;
use crate::system::{Locality, Topology};

/// Migrations in the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigrationsReport {
    /// All of them.
    pub total: MigrationCounts,
    /// The groups whose tasks migrated most often, most first. With CPUs as groups: by the CPU they went to.
    pub groups: Vec<MigrationRow>,
    /// How many groups there are with any.
    pub groups_total: usize,
}

/// How tasks migrated, and how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MigrationCounts {
    /// All of them.
    pub migrations: u64,
    /// Of these: the CPU was chosen when the task was woken. The others moved it from one run queue to another, or
    /// while it slept.
    pub at_wakeup: u64,
    /// To another hardware thread of the same core.
    pub core: u64,
    /// To another core under the same last-level cache.
    pub llc: u64,
    /// To another last-level cache of the same NUMA node.
    pub node: u64,
    /// To another NUMA node.
    pub cross_node: u64,
    /// How far is not known: a CPU is not in the topology.
    pub unknown: u64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigrationRow {
    /// Which.
    pub group: Group,
    /// How its tasks migrated.
    #[serde(flatten)]
    pub counts: MigrationCounts,
}

impl Merge for MigrationCounts {
    fn merge(&mut self, other: &Self) {
        self.migrations.merge(&other.migrations);
        self.at_wakeup.merge(&other.at_wakeup);
        self.core.merge(&other.core);
        self.llc.merge(&other.llc);
        self.node.merge(&other.node);
        self.cross_node.merge(&other.cross_node);
        self.unknown.merge(&other.unknown);
    }
}

/// Counts migrations.
#[derive(Debug, Default)]
pub(super) struct Migrations {
    rows: Rows<MigrationCounts>,
}

impl Migrations {
    pub(super) fn migrated(&mut self, migrated: &Migrated, topology: &Topology, scope: &Scope, seen: &Seen<'_>) {
        if !scope.contains(migrated.at) || migrated.from == migrated.to {
            return;
        }
        let Some(to) = seen.cpus.get(migrated.to) else { return };
        let Some(row) = scope.row(migrated.task, to, seen) else { return };
        let mut count =
            MigrationCounts { migrations: 1, at_wakeup: u64::from(migrated.placed), ..MigrationCounts::default() };
        match topology.locality(migrated.from, migrated.to) {
            Locality::Core => count.core = 1,
            Locality::Llc => count.llc = 1,
            Locality::Node => count.node = 1,
            Locality::CrossNode => count.cross_node = 1,
            Locality::Cpu | Locality::Unknown => count.unknown = 1,
        }
        self.rows.at(row).merge(&count);
    }

    pub(super) fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
    }

    pub(super) fn report(&self, top: usize, seen: &Seen<'_>) -> MigrationsReport {
        let mut total = MigrationCounts::default();
        self.rows.iter().for_each(|(_, row)| total.merge(row));
        let rows = self.rows.ranked(|row| row.migrations);
        let row =
            |&(ix, counts): &(GroupIx, &MigrationCounts)| MigrationRow { group: seen.tasks.group(ix), counts: *counts };
        MigrationsReport { total, groups: rows.iter().take(top).map(row).collect(), groups_total: rows.len() }
    }
}
