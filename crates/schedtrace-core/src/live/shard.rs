//! One thread per shard: poll -> decode -> a chunk of events with a watermark.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use rustix::event::epoll;
use rustix::time::{ClockId, clock_gettime};

use super::decode::{Decoded, Decoder, PerKind};
use super::ring::{Drained, Ring};
use crate::event::{Cpu, Event, Kind, Loss, LossPlace, Nanos, ShardId, Task};

/// What a shard delivers at a time.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) shard: ShardId,
    /// Nothing earlier follows from this shard.
    pub(super) until: Nanos,
    pub(super) events: Vec<Event>,
    pub(super) tasks: Vec<Task>,
    pub(super) lost: Vec<Loss>,
    pub(super) full: Vec<FullRing>,
    /// Records that were read, per kind.
    pub(super) delivered: PerKind,
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

/// Tells all shards to read what is left and to end.
#[derive(Debug)]
pub(super) struct Finish {
    now: AtomicBool,
    bell: OwnedFd,
}

impl Finish {
    pub(super) fn new() -> std::io::Result<Self> {
        let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        Ok(Self { now: AtomicBool::new(false), bell })
    }

    pub(super) fn ring(&self) {
        self.now.store(true, Ordering::Release);
        // The bell is never read, so it stays up for every shard; it can only be full, which is as good.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
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

/// The consumer of one ring.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: ShardId,
    pub(super) ring: Ring,
    pub(super) ring_fd: OwnedFd,
    pub(super) decoder: Decoder,
    pub(super) drain_interval: Duration,
    pub(super) finish: Arc<Finish>,
}

impl Shard {
    /// Reads until told to finish, or until nobody wants the chunks any more.
    pub(super) fn run(mut self, chunks: &Sender<Chunk>) -> std::io::Result<()> {
        let epoll = self.epoll()?;
        let mut chunk = self.chunk();
        loop {
            let finishing = self.finish.now.load(Ordering::Acquire);
            // The clock comes before the position: a record that is older than the clock was reserved before it.
            let clock = now();
            let producer = self.ring.producer_position();
            loop {
                let decoder = &self.decoder;
                let room = RECORDS_PER_CHUNK.saturating_sub(chunk.events.len()).max(1);
                let drained = self.ring.drain(producer, room, |words| take(decoder, words, clock, &mut chunk));
                match drained {
                    Drained::All => chunk.until = clock - SLACK,
                    // Time has come no further: what is older than the clock may still be in the ring.
                    Drained::Most => {}
                    Drained::Busy if finishing => {
                        std::thread::yield_now();
                        continue;
                    }
                    Drained::Busy => break,
                }
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
            self.wait(&epoll);
        }
    }

    fn chunk(&self) -> Chunk {
        let (events, tasks, lost, full) = Default::default();
        Chunk { shard: self.id, until: Nanos::ZERO, events, tasks, lost, full, delivered: [0; Kind::COUNT] }
    }

    /// An empty chunk with room for as many events as came last.
    fn chunk_like(&self, last: &Chunk) -> Chunk {
        Chunk { events: Vec::with_capacity(last.events.len()), ..self.chunk() }
    }

    /// Edge-triggered: a ring that merely holds something must not wake us, or every wait would end at once.
    fn epoll(&self) -> std::io::Result<OwnedFd> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN;
        let data = epoll::EventData::new_u64;
        epoll::add(&epoll, self.ring_fd.as_fd(), data(0), flags | epoll::EventFlags::ET)?;
        epoll::add(&epoll, self.finish.bell.as_fd(), data(1), flags | epoll::EventFlags::ET)?;
        Ok(epoll)
    }

    /// Until the ring's fill threshold, the drain interval, or the end.
    fn wait(&self, epoll: &OwnedFd) {
        let timeout = rustix::time::Timespec {
            tv_sec: self.drain_interval.as_secs() as _,
            tv_nsec: self.drain_interval.subsec_nanos().into(),
        };
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
        if let Err(error) = epoll::wait(epoll, &mut events[..], Some(&timeout))
            && error != rustix::io::Errno::INTR
        {
            tracing::warn!("epoll_wait: {error}");
            std::thread::sleep(self.drain_interval);
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
        Decoded::Loss { cpu, from, until, totals } => chunk.full.push(FullRing { cpu, from, until, totals }),
        Decoded::Unreadable => {
            let place = LossPlace::Decode(chunk.shard);
            chunk.lost.push(Loss { place, kind: None, count: 1, from: chunk.until, until: clock });
        }
    }
}
