//! Counting what is missing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::event::{Kind, Loss, LossCount, LossPlace};

/// The most places and kinds of loss that are told apart. A machine has far fewer; a damaged trace may name any number.
const MAX_COUNTS: usize = 1024;

/// How many events went missing, by place and kind; of bounded size, whatever is added.
#[derive(Clone, Debug, Default)]
pub(crate) struct LossCounts(BTreeMap<(LossPlace, Option<Kind>), u64>);

impl LossCounts {
    /// Adds a loss to that of its place and kind, or to what went missing elsewhere if there are too many of them.
    pub(crate) fn add(&mut self, loss: &Loss) {
        let full = self.0.len() >= MAX_COUNTS;
        let count = match self.0.entry((loss.place.clone(), loss.kind)) {
            Entry::Vacant(_) if full => self.0.entry((LossPlace::Elsewhere, None)).or_default(),
            entry => entry.or_default(),
        };
        *count = count.saturating_add(loss.count);
    }

    /// By place, then by kind.
    pub(crate) fn list(&self) -> Vec<LossCount> {
        let count = |((place, kind), &count): (&(LossPlace, Option<Kind>), &u64)| LossCount {
            place: place.clone(),
            kind: *kind,
            count,
        };
        self.0.iter().map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Nanos;

    #[test]
    fn a_list_without_end_is_summed_up() {
        let mut counts = LossCounts::default();
        for n in 0..MAX_COUNTS * 2 {
            let place = LossPlace::Queue(n.to_string().into());
            counts.add(&Loss { place, kind: None, count: 3, from: Nanos(0), until: Nanos(1) });
        }
        let list = counts.list();
        assert_eq!(list.len(), MAX_COUNTS + 1);
        assert_eq!(list.iter().map(|loss| loss.count).sum::<u64>(), 3 * 2 * MAX_COUNTS as u64, "none is left out");
    }
}
