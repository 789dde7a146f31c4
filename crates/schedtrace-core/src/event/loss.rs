//! What is missing: where, how much of it, and when.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Kind, Nanos, ShardId};

/// Where events went missing. Serialized as its text.
///
/// ```
/// use schedtrace_core::{LossPlace, ShardId};
/// assert_eq!("ring:3".parse(), Ok(LossPlace::Ring(ShardId(3))));
/// assert_eq!(LossPlace::Queue("view".into()).to_string(), "queue:view");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum LossPlace {
    /// The ring of a shard was full.
    Ring(ShardId),
    /// The kernel skipped a program that would have nested in itself (`recursion_misses`).
    Nested,
    /// A record could not be read.
    Decode(ShardId),
    /// An event came behind the watermark. It is not missing: it travels in [`Batch::late`](super::Batch::late).
    Late,
    /// The queue of a sink was full.
    Queue(Arc<str>),
    /// There were more in a second than were to be recorded ([`RateLimit`](crate::RateLimit)).
    RateLimit,
    /// In one of so many places that they are not told apart any more.
    Elsewhere,
}

impl fmt::Display for LossPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(shard) => write!(f, "ring:{shard}"),
            Self::Nested => f.write_str("nested"),
            Self::Decode(shard) => write!(f, "decode:{shard}"),
            Self::Late => f.write_str("late"),
            Self::Queue(sink) => write!(f, "queue:{sink}"),
            Self::RateLimit => f.write_str("rate_limit"),
            Self::Elsewhere => f.write_str("elsewhere"),
        }
    }
}

/// Not the name of a place where events can be lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place where events can be lost")]
pub struct UnknownPlace(pub String);

impl FromStr for LossPlace {
    type Err = UnknownPlace;
    fn from_str(text: &str) -> Result<Self, UnknownPlace> {
        let unknown = || UnknownPlace(text.to_owned());
        let shard = |name: &str| name.parse::<ShardId>().map_err(|_| unknown());
        match text.split_once(':') {
            None if text == "nested" => Ok(Self::Nested),
            None if text == "late" => Ok(Self::Late),
            None if text == "rate_limit" => Ok(Self::RateLimit),
            None if text == "elsewhere" => Ok(Self::Elsewhere),
            Some(("ring", n)) => shard(n).map(Self::Ring),
            Some(("decode", n)) => shard(n).map(Self::Decode),
            Some(("queue", sink)) => Ok(Self::Queue(sink.into())),
            _ => Err(unknown()),
        }
    }
}

impl From<LossPlace> for String {
    fn from(place: LossPlace) -> Self {
        place.to_string()
    }
}

impl TryFrom<String> for LossPlace {
    type Error = UnknownPlace;
    fn try_from(text: String) -> Result<Self, UnknownPlace> {
        text.parse()
    }
}

/// How many events went missing in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossCount {
    /// Where.
    pub place: LossPlace,
    /// Which kind, where that is known.
    pub kind: Option<Kind>,
    /// How many.
    pub count: u64,
}

/// Events known to be missing: where, how many, which kind, between which two times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where they went missing.
    pub place: LossPlace,
    /// Which kind, where that is known.
    pub kind: Option<Kind>,
    /// How many.
    pub count: u64,
    /// Not before.
    pub from: Nanos,
    /// Not after.
    pub until: Nanos,
}

/// The most places and kinds of loss that are told apart. A machine has far fewer; a damaged trace may name any number.
pub(crate) const MAX_COUNTS: usize = 1024;

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
