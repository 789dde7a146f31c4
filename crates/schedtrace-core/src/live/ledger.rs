//! The books of a recording: what was lost, each told once, and what became of every event.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::decode::{self, Counters, PerKind};
use crate::event::{Cpu, Kind, Loss, LossPlace, Nanos, ShardId};
use crate::source::Account;

/// Keeps the books: what CPUs report as lost, each told once, and what became of all events in the end.
#[derive(Debug)]
pub(super) struct Ledger {
    shard_of: Vec<ShardId>,
    told: HashMap<Cpu, PerKind>,
    delivered: BTreeMap<ShardId, PerKind>,
}

impl Ledger {
    /// `shard_of` is indexed by the CPU's number.
    pub(super) fn new(shard_of: Vec<ShardId>) -> Self {
        Self { shard_of, told: HashMap::new(), delivered: BTreeMap::new() }
    }

    /// The ring that takes the events of a kind from a CPU.
    fn ring(&self, kind: Kind, cpu: Cpu) -> ShardId {
        match decode::goes_over_the_ring(kind) {
            true => ShardId::LIFECYCLE,
            false => self.shard_of.get(usize::from(cpu.0)).copied().unwrap_or(ShardId(0)),
        }
    }

    /// What was read from a ring.
    pub(super) fn delivered(&mut self, shard: ShardId, counts: &PerKind) {
        let sums = self.delivered.entry(shard).or_insert([0; Kind::COUNT]);
        sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
    }

    /// What is new in these totals.
    pub(super) fn lost(&mut self, cpu: Cpu, totals: PerKind, from: Nanos, until: Nanos, out: &mut Vec<Loss>) {
        let mut told = *self.told.entry(cpu).or_insert([0; Kind::COUNT]);
        for (kind, (&total, told)) in Kind::ALL.into_iter().zip(totals.iter().zip(&mut told)) {
            if total > *told {
                let (place, count) = (LossPlace::Ring(self.ring(kind, cpu)), total - *told);
                out.push(Loss { place, kind: Some(kind), count, from, until: until.max(from) });
                *told = total;
            }
        }
        self.told.insert(cpu, told);
    }

    /// What became of the events of these kinds.
    pub(super) fn accounts(&self, counters: &[Counters], kinds: &[Kind]) -> Vec<Account> {
        let mut accounts: BTreeMap<(ShardId, Kind), Account> = BTreeMap::new();
        let empty = |shard, kind| Account { shard, kind, emitted: 0, delivered: 0, lost: 0, passed_over: 0 };
        for counters in counters {
            for &kind in kinds {
                let shard = self.ring(kind, counters.cpu);
                let account = accounts.entry((shard, kind)).or_insert_with(|| empty(shard, kind));
                account.emitted += counters.emitted[kind as usize];
                account.lost += counters.lost[kind as usize];
                account.passed_over += counters.passed_over[kind as usize];
            }
        }
        for (&shard, counts) in &self.delivered {
            for (kind, &count) in Kind::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0) {
                accounts.entry((shard, kind)).or_insert_with(|| empty(shard, kind)).delivered = count;
            }
        }
        accounts.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_once() {
        let mut ledger = Ledger::new(vec![ShardId(0), ShardId(5)]);
        let mut totals = [0; Kind::COUNT];
        totals[Kind::Switch as usize] = 10;
        totals[Kind::Identity as usize] = 2;
        let mut out = Vec::new();
        ledger.lost(Cpu(1), totals, Nanos(5), Nanos(6), &mut out);
        ledger.lost(Cpu(1), totals, Nanos(7), Nanos(8), &mut out);
        totals[Kind::Switch as usize] = 11;
        ledger.lost(Cpu(1), totals, Nanos(9), Nanos(9), &mut out);
        let told: Vec<_> = out.iter().map(|l| (l.place.clone(), l.kind, l.count)).collect();
        assert_eq!(
            told,
            [
                (LossPlace::Ring(ShardId(5)), Some(Kind::Switch), 10),
                (LossPlace::Ring(ShardId::LIFECYCLE), Some(Kind::Identity), 2),
                (LossPlace::Ring(ShardId(5)), Some(Kind::Switch), 1),
            ]
        );
    }

    #[test]
    fn the_books_say_what_became_of_each_kind_in_each_ring() {
        let mut ledger = Ledger::new(vec![ShardId(0), ShardId(5)]);
        let of = |kind: Kind, n| {
            let mut counts = [0; Kind::COUNT];
            counts[kind as usize] = n;
            counts
        };
        ledger.delivered(ShardId(5), &of(Kind::Switch, 6));
        ledger.delivered(ShardId(5), &of(Kind::Switch, 1));
        ledger.delivered(ShardId::LIFECYCLE, &of(Kind::Fork, 2));
        let cpu = |cpu, emitted, lost| Counters {
            cpu: Cpu(cpu),
            emitted,
            lost,
            passed_over: of(Kind::Fork, 1),
            untold: Default::default(),
        };
        let counters =
            [cpu(0, of(Kind::Fork, 1), of(Kind::Fork, 0)), cpu(1, of(Kind::Switch, 10), of(Kind::Switch, 3))];
        let accounts = ledger.accounts(&counters, &[Kind::Switch, Kind::Fork]);
        let rows: Vec<_> =
            accounts.iter().map(|a| (a.shard, a.kind, a.emitted, a.delivered, a.lost, a.passed_over)).collect();
        assert_eq!(
            rows,
            [
                (ShardId(0), Kind::Switch, 0, 0, 0, 0),
                (ShardId(5), Kind::Switch, 10, 7, 3, 0),
                (ShardId::LIFECYCLE, Kind::Fork, 1, 2, 0, 2),
            ]
        );
        assert_eq!(accounts.iter().map(Account::unaccounted).collect::<Vec<_>>(), [0, 0, -1]);
    }
}
