//! What a run came to.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::event::{Batch, Kind, LossCount, LossCounts, LossPlace};

/// What came through a [`Pipeline`](super::Pipeline), what is known to be missing, and how each sink fared.
#[derive(Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Events that the source delivered, per kind, the late ones included. Kinds that did not come have no entry.
    pub events: BTreeMap<Kind, u64>,
    /// How many of them came behind the watermark ([`Batch::late`]).
    pub late: u64,
    /// Batches that the source delivered.
    pub batches: u64,
    /// What the stream said is missing, per place and kind, by place. What single sinks missed because their queue
    /// was full is not here but in [`SinkOutcome::dropped`]: the others have it.
    pub lost: Vec<LossCount>,
    /// The sum of `lost` without what was merely late.
    pub lost_total: u64,
    /// Each sink, in the order in which it was added.
    pub sinks: Vec<SinkOutcome>,
}

impl Summary {
    /// How many events the source delivered.
    #[must_use]
    pub fn total_events(&self) -> u64 {
        self.events.values().sum()
    }

    /// The summary, unless a sink failed.
    ///
    /// # Errors
    /// [`Error::Sink`] of the first sink that failed.
    pub fn into_result(mut self) -> Result<Self> {
        match self.sinks.iter_mut().find_map(|sink| sink.error.take()) {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

/// How one sink fared.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct SinkOutcome {
    /// Its name in the pipeline.
    pub name: String,
    /// Why it ended before the stream did: an [`Error::Sink`], serialized as its text.
    #[serde(serialize_with = "as_optional_text")]
    pub error: Option<Error>,
    /// Events it missed because its queue was full; it was told.
    pub dropped: u64,
}

fn as_optional_text<S: Serializer>(value: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(Error::to_string).serialize(serializer)
}

/// Counts what comes through. Once per event, so an array.
pub(super) struct Tally {
    events: [u64; Kind::COUNT],
    late: u64,
    batches: u64,
    lost: LossCounts,
    lost_total: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { events: [0; Kind::COUNT], late: 0, batches: 0, lost: LossCounts::default(), lost_total: 0 }
    }
}

impl Tally {
    pub(super) fn count(&mut self, batch: &Batch) {
        for event in batch.events.iter().chain(&batch.late) {
            self.events[event.kind.kind() as usize] += 1;
        }
        self.late += batch.late.len() as u64;
        self.batches += 1;
        for loss in &batch.lost {
            if loss.place != LossPlace::Late {
                self.lost_total = self.lost_total.saturating_add(loss.count);
            }
            self.lost.add(loss);
        }
    }

    pub(super) fn summary(self, sinks: Vec<SinkOutcome>) -> Summary {
        let counts = Kind::ALL.into_iter().map(|kind| (kind, self.events[kind as usize]));
        Summary {
            events: counts.filter(|&(_, count)| count > 0).collect(),
            late: self.late,
            batches: self.batches,
            lost: self.lost.list(),
            lost_total: self.lost_total,
            sinks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Loss, MAX_COUNTS, Nanos};

    #[test]
    fn a_list_of_losses_without_end_is_summed_up() {
        let mut tally = Tally::default();
        for n in 0..MAX_COUNTS as u64 * 2 {
            let place = LossPlace::Queue(n.to_string().into());
            let loss = Loss { place, kind: None, count: u64::MAX / MAX_COUNTS as u64, from: Nanos(0), until: Nanos(1) };
            tally.count(&Batch { lost: vec![loss], ..Batch::default() });
        }
        let summary = tally.summary(vec![]);
        assert_eq!((summary.lost.len(), summary.lost_total), (MAX_COUNTS + 1, u64::MAX), "sums saturate");
    }

    #[test]
    fn it_serializes_with_names_and_texts() {
        let mut tally = Tally::default();
        let late = Loss { place: LossPlace::Late, kind: Some(Kind::Waking), count: 2, from: Nanos(0), until: Nanos(1) };
        let nested = Loss { place: LossPlace::Nested, kind: None, count: 5, ..late.clone() };
        tally.count(&Batch { lost: vec![late, nested], ..Batch::default() });
        let error = Error::Sink { sink: "view".into(), why: "no".into() };
        let outcome = SinkOutcome { name: "view".into(), error: Some(error), dropped: 3 };
        let summary = tally.summary(vec![outcome]);
        assert_eq!(
            serde_json::to_value(&summary).unwrap(),
            serde_json::json!({
                "events": {}, "late": 0, "batches": 1, "lost_total": 5,
                "lost": [
                    {"place": "nested", "kind": null, "count": 5},
                    {"place": "late", "kind": "sched_waking", "count": 2},
                ],
                "sinks": [{"name": "view", "error": "the view sink failed: no", "dropped": 3}],
            })
        );
        assert!(matches!(summary.into_result(), Err(Error::Sink { .. })));
    }
}
