//! Which segments have to go, so that a trace stays within its limits of size and age.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use super::commit;
use super::info::Removed;
use super::schema::Table;
use super::segment::{Sealed, parquet_path};
use crate::error::Result;
use crate::event::Nanos;

/// The segments at rest, oldest first, and the limits they have to keep.
#[derive(Debug, Default)]
pub(super) struct Retention {
    max_bytes: Option<u64>,
    max_age: Option<Nanos>,
    /// Empty without limits: then nobody asks.
    sealed: VecDeque<Sealed>,
    sealed_bytes: u64,
    removed: Removed,
    first_seq: u32,
}

impl Retention {
    pub(super) fn new(max_bytes: Option<u64>, max_age: Option<Duration>) -> Self {
        Self { max_bytes, max_age: max_age.map(Nanos::from), ..Self::default() }
    }

    /// Changes the limit of size: from now on the directory may take so many bytes.
    pub(super) fn keep_below(&mut self, max_bytes: u64) {
        self.max_bytes = Some(max_bytes);
    }

    /// Takes note of a segment that came to rest.
    pub(super) fn add(&mut self, segment: Sealed) {
        self.sealed_bytes += segment.bytes;
        if self.max_bytes.is_some() || self.max_age.is_some() {
            self.sealed.push_back(segment);
        }
    }

    /// The segments that have to go, oldest first, when the rest of the directory takes `other_bytes` and the stream has
    /// come to `now`. They are not counted any more; the caller commits that, and then removes them with [`remove`].
    pub(super) fn overdue(&mut self, other_bytes: u64, now: Nanos) -> Vec<Sealed> {
        let mut overdue = Vec::new();
        while let Some(&oldest) = self.sealed.front() {
            let large = self.max_bytes.is_some_and(|max| self.sealed_bytes + other_bytes > max);
            let old = self.max_age.is_some_and(|max| now - oldest.span.latest() > max);
            if !large && !old {
                break;
            }
            self.sealed.pop_front();
            self.sealed_bytes -= oldest.bytes;
            self.removed.segments += 1;
            self.removed.rows += oldest.rows;
            self.removed.until_ns = self.removed.until_ns.max(oldest.span.until_ns);
            self.first_seq = oldest.seq + 1;
            overdue.push(oldest);
        }
        overdue
    }

    /// The size of the segments at rest in bytes.
    pub(super) fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes
    }

    /// What has gone so far.
    pub(super) fn removed(&self) -> Removed {
        self.removed
    }

    /// The oldest segment that is left.
    pub(super) fn first_seq(&self) -> u32 {
        self.first_seq
    }
}

/// Removes the files of a segment.
pub(super) fn remove(dir: &Path, segment: &Sealed) -> Result<()> {
    Table::ALL.into_iter().try_for_each(|table| commit::remove(&parquet_path(dir, table, segment.seq)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::segment::Span;

    fn segment(seq: u32, last: u64, bytes: u64) -> Sealed {
        let span = Span { from_ns: Nanos(0), until_ns: Nanos(last), first_ns: Nanos(0), last_ns: Nanos(last) };
        Sealed { seq, span, bytes, rows: 10 }
    }

    fn seqs(segments: &[Sealed]) -> Vec<u32> {
        segments.iter().map(|segment| segment.seq).collect()
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_needed() {
        let mut retention = Retention::new(Some(100), None);
        for seq in 0..4 {
            retention.add(segment(seq, u64::from(seq) * 10, 30));
        }
        assert_eq!(seqs(&retention.overdue(0, Nanos(40))), [0]);
        assert_eq!(seqs(&retention.overdue(10, Nanos(40))), [0; 0]);
        assert_eq!(seqs(&retention.overdue(11, Nanos(40))), [1]);
        assert_eq!(retention.first_seq(), 2);
        assert_eq!(retention.removed(), Removed { segments: 2, rows: 20, until_ns: Nanos(10) });
        assert_eq!(retention.sealed_bytes(), 60);
    }

    #[test]
    fn age_counts_from_the_last_event() {
        let mut retention = Retention::new(None, Some(Duration::from_nanos(100)));
        retention.add(segment(0, 50, 1));
        retention.add(segment(1, 80, 1));
        assert_eq!(seqs(&retention.overdue(0, Nanos(150))), [0; 0]);
        assert_eq!(seqs(&retention.overdue(0, Nanos(151))), [0]);
        assert_eq!(seqs(&retention.overdue(0, Nanos(1000))), [1]);
    }

    #[test]
    fn without_limits_nothing_is_kept_in_memory() {
        let mut retention = Retention::new(None, None);
        retention.add(segment(0, 50, 1));
        assert!(retention.sealed.is_empty());
        assert_eq!(retention.sealed_bytes(), 1);
        assert!(retention.overdue(u64::MAX - 1, Nanos::MAX).is_empty());
    }
}
