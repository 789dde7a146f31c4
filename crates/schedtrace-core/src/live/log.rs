//! The consumer's end of the logs in an arena: one for each CPU, read together in the order of time.
//!
//! A log is a header and a number of parts (a power of two) that are written round and round. Programs claim parts by
//! moving the header's `head`, fill them, and commit the record by a store to its first word, one bit of which turns with
//! each lap; `tail` says what was read and may be written again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::arena::Arena;
use super::decode::{LOG, PART_BYTES, is_of_lap, parts};
use super::ring::{Drained, Ring};

const PART_WORDS: usize = PART_BYTES / 8;
/// No record in a log has more parts: one of two, and who its tasks are.
const MAX_PARTS: usize = 4;
/// Room is given back to the programs after this many parts, not after each record.
const RELEASE_EVERY: u64 = 4096;

/// The logs of one shard.
#[derive(Debug)]
pub(super) struct Logs {
    arena: Arc<Arena>,
    logs: Vec<Log>,
    /// Where programs ring when a log fills up: its reader polls it.
    bell: Ring,
}

#[derive(Debug)]
struct Log {
    /// Where it begins in the arena.
    offset: usize,
    /// How many parts it has.
    size: u64,
    /// How far it was read.
    position: u64,
    /// How far it was given back.
    released: u64,
    /// How far it was claimed when [`Logs::look`] looked.
    claimed: u64,
    /// The time of the next record, if that is before `claimed` and committed.
    next: Option<u64>,
}

impl Logs {
    /// The logs that begin at these offsets, with `size` parts each.
    pub(super) fn new(arena: Arc<Arena>, offsets: impl IntoIterator<Item = usize>, size: usize, bell: Ring) -> Self {
        let log = |offset| Log { offset, size: size as u64, position: 0, released: 0, claimed: 0, next: None };
        Self { logs: offsets.into_iter().map(log).collect(), arena, bell }
    }

    /// Everything that was claimed before this call is drained next.
    pub(super) fn look(&mut self) {
        self.bell.drain(self.bell.producer_position(), usize::MAX, |_| ());
        for log in &mut self.logs {
            let [rung, head] = [LOG.rung, LOG.head].map(|at| self.arena.words::<1>(log.offset + at)[0]);
            // First: who finds much in it from here on rings again.
            rung.store(0, Ordering::Relaxed);
            log.claimed = head.load(Ordering::Acquire);
        }
    }

    /// Hands over each record that was claimed before [`look`](Self::look), as words, but no more than `most` of them: the
    /// oldest first, as far as each log is in order.
    pub(super) fn drain(&mut self, most: usize, mut record: impl FnMut(&[u64])) -> Drained {
        let mut left = most;
        // One that was not committed may be by now.
        self.logs.iter_mut().filter(|log| log.next.is_none()).for_each(|log| log.peek(&self.arena));
        loop {
            let (mut first, mut oldest, mut others) = (None, u64::MAX, u64::MAX);
            for log in &mut self.logs {
                match log.next {
                    Some(ts) if ts < oldest || first.is_none() => {
                        (others, oldest) = (oldest, ts);
                        first = Some(log);
                    }
                    Some(ts) => others = others.min(ts),
                    None => {}
                }
            }
            let Some(log) = first else { break };
            while log.next.is_some_and(|ts| ts <= others) {
                if left == 0 {
                    self.release();
                    return Drained::Most;
                }
                left -= 1;
                log.take(&self.arena, &mut record);
            }
        }
        self.release();
        match self.logs.iter().all(|log| log.position >= log.claimed) {
            true => Drained::All,
            false => Drained::Busy,
        }
    }

    fn release(&mut self) {
        self.logs.iter_mut().for_each(|log| log.release(&self.arena));
    }
}

impl Log {
    fn offset_of(&self, position: u64) -> usize {
        self.offset + LOG.bytes + (position & (self.size - 1)) as usize * PART_BYTES
    }

    #[inline(always)]
    fn peek(&mut self, arena: &Arena) {
        self.next = None;
        if self.position < self.claimed {
            let [head, ts] = arena.words(self.offset_of(self.position));
            // The record's other words were stored before this one.
            if is_of_lap(head.load(Ordering::Acquire), self.position & self.size == 0) {
                self.next = Some(ts.load(Ordering::Relaxed));
            }
        }
    }

    /// Hands over the next record, which is committed.
    #[inline(always)]
    fn take(&mut self, arena: &Arena, record: &mut impl FnMut(&[u64])) {
        let first: [_; PART_WORDS] =
            arena.words(self.offset_of(self.position)).map(|word| word.load(Ordering::Relaxed));
        match parts(first[0]) {
            1 => record(&first),
            count => {
                let mut words = [0; MAX_PARTS * PART_WORDS];
                for (at, words) in (0..).zip(words.chunks_exact_mut(PART_WORDS).take(count as usize)) {
                    let part: [_; PART_WORDS] = arena.words(self.offset_of(self.position + at));
                    words.iter_mut().zip(part).for_each(|(word, from)| *word = from.load(Ordering::Relaxed));
                }
                record(&words[..(count as usize).min(MAX_PARTS) * PART_WORDS]);
            }
        }
        self.position += parts(first[0]);
        if self.position - self.released >= RELEASE_EVERY {
            self.release(arena);
        }
        self.peek(arena);
    }

    fn release(&mut self, arena: &Arena) {
        if self.released != self.position {
            arena.words::<1>(self.offset + LOG.tail)[0].store(self.position, Ordering::Release);
            self.released = self.position;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;
    use crate::live::decode::written_on_lap;

    const PARTS: usize = 64;
    const STRIDE: usize = 4096;

    /// Writes as the programs do, on memory that lies as an arena does.
    struct Kernel {
        arena: Arc<Arena>,
        heads: Vec<u64>,
    }

    /// Claimed, and not committed yet.
    #[must_use]
    struct Claim {
        log: usize,
        at: u64,
    }

    impl Kernel {
        fn new(logs: usize) -> (Self, Logs) {
            let memory = memfd_create("logs", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&memory, (logs * STRIDE) as u64).unwrap();
            let arena = Arc::new(Arena::map(memory.as_fd(), logs * STRIDE).unwrap());
            let bell = memfd_create("bell", MemfdFlags::CLOEXEC).unwrap();
            let page = rustix::param::page_size();
            ftruncate(&bell, 4 * page as u64).unwrap();
            let bell = Ring::map(bell.as_fd(), page).unwrap();
            let reader = Logs::new(Arc::clone(&arena), (0..logs).map(|log| log * STRIDE), PARTS, bell);
            (Self { arena, heads: vec![0; logs] }, reader)
        }

        fn claim(&mut self, log: usize, parts: u64) -> Option<Claim> {
            let [tail, head] = [LOG.tail, LOG.head].map(|at| self.arena.words::<1>(log * STRIDE + at)[0]);
            let at = self.heads[log];
            if at + parts - tail.load(Ordering::Relaxed) > PARTS as u64 {
                return None;
            }
            self.heads[log] += parts;
            head.store(self.heads[log], Ordering::Relaxed);
            Some(Claim { log, at })
        }

        /// The first word of a record of one part, or of three, but for the lap.
        fn head(id: u32, parts: u64) -> u64 {
            u64::from(id) << 32 | if parts == 3 { 0x8000 } else { 0 }
        }

        fn commit(&self, claim: &Claim, id: u32, ts: u64, parts: u64) {
            for part in (0..parts).rev() {
                let at = claim.at + part;
                let offset = claim.log * STRIDE + LOG.bytes + (at % PARTS as u64) as usize * PART_BYTES;
                let [head, middle, tail]: [_; 3] = self.arena.words(offset);
                middle.store(ts + part, Ordering::Relaxed);
                tail.store(u64::from(id), Ordering::Relaxed);
                let word = if part == 0 { Self::head(id, parts) } else { 33 };
                head.store(written_on_lap(word, (at / PARTS as u64).is_multiple_of(2)), Ordering::Release);
            }
        }

        fn write(&mut self, log: usize, id: u32, ts: u64, parts: u64) -> bool {
            let claim = self.claim(log, parts);
            claim.inspect(|claim| self.commit(claim, id, ts, parts)).is_some()
        }
    }

    /// The ids and times of what is read, once everything was looked at.
    fn read(logs: &mut Logs, most: usize) -> (Drained, Vec<(u32, u64, usize)>) {
        let mut seen = Vec::new();
        let drained = logs.drain(most, |words| {
            let parts = words.len() / PART_WORDS;
            assert!(words.chunks(PART_WORDS).all(|part| part[2] == words[2]), "the parts of one record");
            seen.push(((words[0] >> 32) as u32, words[1], parts));
        });
        (drained, seen)
    }

    #[test]
    fn a_record_is_read_once_it_is_committed_and_not_before() {
        let (mut kernel, mut logs) = Kernel::new(1);
        assert!(kernel.write(0, 1, 10, 1));
        let outer = kernel.claim(0, 1).unwrap();
        // An interrupt comes in between, and commits what it claimed.
        assert!(kernel.write(0, 3, 30, 1));
        logs.look();
        assert_eq!(read(&mut logs, 9), (Drained::Busy, vec![(1, 10, 1)]));
        assert_eq!(read(&mut logs, 9), (Drained::Busy, vec![]));
        kernel.commit(&outer, 2, 40, 1);
        assert_eq!(read(&mut logs, 9), (Drained::All, vec![(2, 40, 1), (3, 30, 1)]));
        logs.look();
        assert_eq!(read(&mut logs, 9), (Drained::All, vec![]));
    }

    #[test]
    fn what_was_claimed_after_the_look_waits_for_the_next() {
        let (mut kernel, mut logs) = Kernel::new(1);
        logs.look();
        assert!(kernel.write(0, 1, 10, 1));
        assert_eq!(read(&mut logs, 9), (Drained::All, vec![]));
    }

    #[test]
    fn logs_are_read_in_the_order_of_time_and_no_more_than_was_asked_for() {
        let (mut kernel, mut logs) = Kernel::new(3);
        for (log, id, ts) in [(0, 1, 10), (2, 2, 20), (2, 3, 21), (0, 4, 30), (1, 5, u64::MAX), (0, 6, 35)] {
            assert!(kernel.write(log, id, ts, 1));
        }
        logs.look();
        let (drained, first) = read(&mut logs, 4);
        assert_eq!((drained, first.iter().map(|read| read.0).collect::<Vec<_>>()), (Drained::Most, vec![1, 2, 3, 4]));
        let (drained, rest) = read(&mut logs, 4);
        assert_eq!((drained, rest.iter().map(|read| read.0).collect::<Vec<_>>()), (Drained::All, vec![6, 5]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_once_in_the_order_of_its_log(
            steps in prop::collection::vec((0..2_usize, 0..4_usize, prop::bool::weighted(0.2), 1..40_usize), 1..400),
        ) {
            let (mut kernel, mut logs) = Kernel::new(2);
            let (mut id, mut written, mut seen) = (0, [vec![], vec![]], [vec![], vec![]]);
            for (log, what, long, most) in steps {
                if what > 0 {
                    id += 1;
                    let parts = if long { 3 } else { 1 };
                    if kernel.write(log, id, u64::from(id) * 10, parts) {
                        written[log].push((id, parts as usize));
                    }
                } else {
                    logs.look();
                    let (drained, read) = read(&mut logs, most);
                    prop_assert!(drained != Drained::Busy);
                    for (id, _, parts) in read {
                        let log = written.iter().position(|all| all.iter().any(|known| known.0 == id)).unwrap();
                        seen[log].push((id, parts));
                    }
                }
            }
            logs.look();
            for (id, _, parts) in read(&mut logs, usize::MAX).1 {
                let log = written.iter().position(|all| all.iter().any(|known| known.0 == id)).unwrap();
                seen[log].push((id, parts));
            }
            prop_assert_eq!(seen, written);
        }
    }
}
