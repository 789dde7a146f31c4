//! A number over time, in as much room whatever the time.

use std::collections::BTreeMap;

use super::{Counter, Gauge, Samples, StallUse};
use crate::analysis::states::Seen;
use crate::event::{Kind, NameId, Nanos};

/// What is kept of one number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Series {
    samples: u64,
    from: Nanos,
    until: Nanos,
    first: u64,
    last: u64,
    min: u64,
    max: u64,
    /// What it grew at the steps at which it did not go back.
    growth: u64,
    /// How often it went back.
    resets: u64,
}

impl Series {
    /// Takes a value; none is of an earlier moment than the one before.
    pub(super) fn add(&mut self, at: Nanos, value: u64) {
        if self.samples == 0 {
            *self = Self { from: at, first: value, last: value, min: value, max: value, ..Self::default() };
        }
        self.growth = self.growth.saturating_add(value.saturating_sub(self.last));
        self.resets += u64::from(value < self.last);
        self.samples += 1;
        (self.until, self.last) = (at, value);
        (self.min, self.max) = (self.min.min(value), self.max.max(value));
    }

    pub(super) fn samples(&self) -> u64 {
        self.samples
    }

    pub(super) fn from(&self) -> Nanos {
        self.from
    }

    pub(super) fn until(&self) -> Nanos {
        self.until
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn growth(&self) -> u64 {
        self.growth
    }

    pub(super) fn resets(&self) -> u64 {
        self.resets
    }

    pub(super) fn duration(&self) -> Nanos {
        self.until - self.from
    }

    /// Whether there are two moments, with some time in between.
    pub(super) fn is_pair(&self) -> bool {
        self.duration() > Nanos::ZERO
    }

    pub(super) fn gauge(&self) -> Gauge {
        Gauge { now: self.last, min: self.min, max: self.max }
    }

    pub(super) fn counter(&self) -> Counter {
        let per_second = self.is_pair().then(|| self.growth as f64 / self.duration().as_secs_f64());
        Counter { now: self.last, growth: self.growth, per_second }
    }

    /// Of a number that counts microseconds.
    pub(super) fn stall(&self) -> StallUse {
        let ns = |us: u64| Nanos(us.saturating_mul(1_000));
        let stalled_ns = ns(self.growth);
        // The kernel adds up what was lost when it looks, which may be later than it was lost.
        let ratio = || (stalled_ns.0 as f64 / self.duration().0 as f64).min(1.0);
        StallUse { total_ns: ns(self.last), stalled_ns, stalled_ratio: self.is_pair().then(ratio) }
    }
}

/// When a file was read: all its numbers are of the same moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looks(Samples);

impl Looks {
    /// There is a number of that moment; whether it may be, since time does not go back.
    pub(super) fn look(&mut self, at: Nanos) -> bool {
        let Samples { samples, first_ns, last_ns } = &mut self.0;
        if *samples > 0 && at < *last_ns {
            return false;
        }
        if *samples == 0 {
            *first_ns = at;
        }
        *samples += u64::from(*samples == 0 || at > *last_ns);
        *last_ns = at;
        true
    }

    pub(super) fn samples(&self) -> Samples {
        self.0
    }
}

/// Numbers by kind and name.
#[derive(Debug)]
pub(super) struct Numbers<'a> {
    by_name: BTreeMap<Kind, BTreeMap<&'a str, &'a Series>>,
    none: BTreeMap<&'a str, &'a Series>,
}

impl<'a> Numbers<'a> {
    /// What is known by name, and how many values are not.
    pub(super) fn named(all: impl Iterator<Item = ((Kind, NameId), &'a Series)>, seen: &'a Seen<'_>) -> (Self, u64) {
        let (mut by_name, mut unnamed) = (BTreeMap::<Kind, BTreeMap<&str, &Series>>::new(), 0_u64);
        let mut all: Vec<_> = all.filter(|(_, series)| series.samples > 0).collect();
        // Of two that have the same name, the one that was told later counts, and the other one does not.
        all.sort_unstable_by_key(|&((kind, id), series)| (series.until, kind, id));
        for ((kind, id), series) in all {
            let beside = match seen.names.text(id) {
                "" => Some(series),
                name => by_name.entry(kind).or_default().insert(name, series),
            };
            unnamed = unnamed.saturating_add(beside.map_or(0, |series| series.samples));
        }
        (Self { by_name, none: BTreeMap::new() }, unnamed)
    }

    pub(super) fn of(&self, kind: Kind) -> &BTreeMap<&'a str, &'a Series> {
        self.by_name.get(&kind).unwrap_or(&self.none)
    }
}
