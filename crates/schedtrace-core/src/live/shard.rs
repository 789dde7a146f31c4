//! One thread per shard: poll -> decode -> a chunk of events with a watermark.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use rustix::event::epoll;
use rustix::time::{ClockId, clock_gettime};

use super::decode::{Decoded, Decoder, PerKind};
use super::log::Logs;
use super::ring::{Drained, Ring};
use crate::event::{Cpu, Event, Kind, Loss, LossPlace, Name, Nanos, ShardId, Task};

/// What a shard delivers at a time.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) shard: ShardId,
    /// Nothing earlier follows from this shard.
    pub(super) until: Nanos,
    pub(super) events: Vec<Event>,
    pub(super) tasks: Vec<Task>,
    pub(super) names: Vec<Name>,
    pub(super) lost: Vec<Loss>,
    pub(super) full: Vec<FullRing>,
    /// Records that were read, per kind.
    pub(super) delivered: PerKind,
}

impl Chunk {
    pub(super) fn empty(shard: ShardId) -> Self {
        let (events, tasks, names, lost, full) = Default::default();
        Self { shard, until: Nanos::ZERO, events, tasks, names, lost, full, delivered: [0; Kind::COUNT] }
    }
}

/// The most records of a chunk: what a full ring holds comes in pieces, so that memory stays bounded.
const RECORDS_PER_CHUNK: usize = 1 << 15;

/// A CPU tells that its ring was full.
#[derive(Debug)]
pub(super) struct FullRing {
    pub(super) cpu: Cpu,
    pub(super) from: Nanos,
    pub(super) until: Nanos,
    pub(super) totals: PerKind,
}

/// The end of a recording: first somebody asks for it, then all shards are told to read what is left.
#[derive(Debug)]
pub(super) struct Finish {
    asked: AtomicBool,
    now: AtomicBool,
    /// When the recording ended, once that was told.
    pub(super) ended: AtomicU64,
    bell: OwnedFd,
}

impl Finish {
    pub(super) fn new() -> std::io::Result<Self> {
        let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        let (asked, now, ended) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        Ok(Self { asked, now, ended, bell })
    }

    /// Asks whoever takes the chunks, who is woken by the next one of them: each shard reads its ring at once.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Tells all shards to read what is left and to end.
    pub(super) fn tell(&self, ended: Nanos) {
        self.ended.store(ended.0, Ordering::Release);
        self.now.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn is_told(&self) -> bool {
        self.now.load(Ordering::Acquire)
    }

    fn ring(&self) {
        // The bell is never read: each shard wakes whenever it is rung. It can only be full, after 2^64 times.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// How often the rings are read. All shards go by it, for the merge is only as far as the slowest of them.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// While events come thick.
    busy_until: AtomicU64,
}

/// So many events a second on one ring are thick.
const BUSY: u64 = 20_000;
/// For so long after they were.
const STAYS_BUSY: Nanos = Nanos(1_000_000_000);
/// Where few events come, rings are read so many times less often: each time wakes every thread of a recorder once.
const QUIET: u32 = 5;

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval: interval.max(Duration::from_micros(1)), busy_until: AtomicU64::new(0) }
    }

    /// So many events came on one ring between these times.
    fn saw(&self, events: usize, from: Nanos, until: Nanos) {
        let seconds = (until - from).0 as f64 / 1e9;
        if events as f64 > BUSY as f64 * seconds {
            self.busy_until.store((until + STAYS_BUSY).0, Ordering::Relaxed);
        }
    }

    /// How long it is until the next look: the same moment for all shards, so that the merge wakes once for all of them.
    fn wait(&self, now: Nanos) -> Duration {
        let busy = now.0 < self.busy_until.load(Ordering::Relaxed);
        let interval = if busy { self.interval } else { self.interval.saturating_mul(QUIET) };
        let past = u128::from(now.0) % interval.as_nanos();
        interval - Duration::from_nanos(past as u64)
    }
}

/// A clock reading is off by less than this from one on another CPU, and from `bpf_ktime_get_ns()`, which may run
/// behind while the kernel updates its timekeeping (`kernel/time/timekeeping.c`, "fast timekeeper").
const SLACK: Nanos = Nanos(50_000);

/// Now, by the clock of the events.
pub(super) fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// What a shard reads.
#[derive(Debug)]
pub(super) enum Records {
    Ring {
        ring: Ring,
        /// The producer's position when it was looked at.
        until: u64,
    },
    Logs(Logs),
}

impl From<Ring> for Records {
    fn from(ring: Ring) -> Self {
        Self::Ring { ring, until: 0 }
    }
}

impl From<Logs> for Records {
    fn from(logs: Logs) -> Self {
        Self::Logs(logs)
    }
}

impl Records {
    /// All for which room was taken before this call is drained next.
    pub(super) fn look(&mut self) {
        match self {
            Self::Ring { ring, until } => *until = ring.producer_position(),
            Self::Logs(logs) => logs.look(),
        }
    }

    /// Hands over what was there at the last [`look`](Self::look), as words, but no more than `most` records.
    pub(super) fn drain(&mut self, most: usize, record: impl FnMut(&[u64])) -> Drained {
        match self {
            Self::Ring { ring, until } => ring.drain(*until, most, record),
            Self::Logs(logs) => logs.drain(most, record),
        }
    }
}

/// The consumer of one shard's records.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: ShardId,
    pub(super) records: Records,
    /// Where programs wake it: the ring, or the bell of the logs.
    pub(super) wakes: OwnedFd,
    pub(super) decoder: Decoder,
    pub(super) pace: Arc<Pace>,
    pub(super) finish: Arc<Finish>,
}

impl Shard {
    /// Reads until told to finish, or until nobody wants the chunks any more.
    pub(super) fn run(mut self, chunks: &Sender<Chunk>) -> std::io::Result<()> {
        let alarm = Alarm::new(&self.finish, Some(self.wakes.as_fd()), Arc::clone(&self.pace))?;
        let mut chunk = self.chunk();
        let mut last = now();
        let mut patience = 1_000_000_u32;
        loop {
            let finishing = self.finish.is_told();
            // The clock comes before the position: a record that is older than the clock was reserved before it.
            let clock = now();
            self.records.look();
            let mut seen = 0;
            loop {
                let decoder = &self.decoder;
                let room = RECORDS_PER_CHUNK.saturating_sub(chunk.events.len()).max(1);
                let drained = self.records.drain(room, |words| take(decoder, words, clock, &mut chunk));
                match drained {
                    Drained::All => chunk.until = clock - SLACK,
                    // Time has come no further: what is older than the clock may still be in the ring.
                    Drained::Most => {}
                    Drained::Busy if finishing => {
                        // The programs have ended, or are about to.
                        patience = patience.checked_sub(1).ok_or_else(|| {
                            std::io::Error::other("a record was begun and not completed, which is a bug in schedtrace")
                        })?;
                        std::thread::yield_now();
                        continue;
                    }
                    Drained::Busy => break,
                }
                seen += chunk.events.len();
                let fresh = self.chunk_like(&chunk);
                if chunks.send(std::mem::replace(&mut chunk, fresh)).is_err() {
                    return Ok(());
                }
                if drained == Drained::All {
                    break;
                }
            }
            if finishing {
                return Ok(());
            }
            self.pace.saw(seen, last, clock);
            last = clock;
            alarm.wait(Nanos::MAX);
        }
    }

    fn chunk(&self) -> Chunk {
        Chunk::empty(self.id)
    }

    /// An empty chunk with room for as many events as came last.
    fn chunk_like(&self, last: &Chunk) -> Chunk {
        Chunk { events: Vec::with_capacity(last.events.len()), ..self.chunk() }
    }
}

/// Wakes a thread that makes chunks.
#[derive(Debug)]
pub(super) struct Alarm {
    epoll: OwnedFd,
    pace: Arc<Pace>,
}

impl Alarm {
    /// Edge-triggered: a ring that merely holds something must not wake us, or every wait would end at once.
    pub(super) fn new(finish: &Finish, wakes: Option<BorrowedFd<'_>>, pace: Arc<Pace>) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        for (data, fd) in (0..).zip(wakes.into_iter().chain([finish.bell.as_fd()])) {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(data), flags)?;
        }
        Ok(Self { epoll, pace })
    }

    /// Until the ring's fill threshold, the next look, or the end; and no longer than until `last`.
    pub(super) fn wait(&self, last: Nanos) {
        let now = now();
        let wait = self.pace.wait(now).min(Duration::from_nanos((last - now).0));
        let timeout = rustix::time::Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() };
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
        if let Err(error) = epoll::wait(&self.epoll, &mut events[..], Some(&timeout))
            && error != rustix::io::Errno::INTR
        {
            tracing::warn!("epoll_wait: {error}");
            std::thread::sleep(wait);
        }
    }
}

fn take(decoder: &Decoder, words: &[u64], clock: Nanos, chunk: &mut Chunk) {
    match decoder.decode(words) {
        Decoded::Event(event) => {
            chunk.delivered[event.kind.kind() as usize] += 1;
            chunk.events.push(event);
        }
        Decoded::Task(task, given) => {
            chunk.delivered[Kind::Identity as usize] += 1;
            chunk.tasks.extend(given.into_iter().chain([task]));
        }
        Decoded::Name(name) => chunk.names.push(name),
        Decoded::Loss { cpu, from, until, totals } => chunk.full.push(FullRing { cpu, from, until, totals: *totals }),
        Decoded::Unreadable => {
            let place = LossPlace::Decode(chunk.shard);
            chunk.lost.push(Loss { place, kind: None, count: 1, from: chunk.until, until: clock });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rings_are_read_at_the_same_moments_and_less_often_where_little_happens() {
        let pace = Pace::new(Duration::from_millis(50));
        let at = |ms: u64| pace.wait(Nanos(ms * 1_000_000)).as_millis();
        let saw = |events, until: u64| pace.saw(events, Nanos((until - 50) * 1_000_000), Nanos(until * 1_000_000));
        assert_eq!([at(10_000), at(10_010), at(10_249)], [250, 240, 1]);
        saw(1_000, 10_250);
        assert_eq!(at(10_260), 240, "20,000 events a second are not thick yet");
        saw(1_001, 10_250);
        assert_eq!([at(10_260), at(11_249), at(11_260)], [40, 1, 240]);
        assert!(Pace::new(Duration::ZERO).wait(Nanos(7)) > Duration::ZERO);
    }
}
