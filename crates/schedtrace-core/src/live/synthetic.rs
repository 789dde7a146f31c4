//! What a simulated machine did, on rings as the kernel lays them out.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::MemfdFlags;

use super::decode::{Decoded, Decoder, Nameless, PART_BYTES, encode};
use super::ring::{HEADER, Ring};
use crate::error::{Error, Result};
use crate::event::{Batch, Event, Nanos, ShardId};
use crate::merge::Merge;
use crate::source::{Meta, Poll, Source};
use crate::synthetic::SyntheticHost;

/// The most records that are read from a ring at a time.
const RECORDS: usize = 1 << 13;

/// A simulated machine whose events cross the wire: memory laid out as a BPF ring is, one ring for each shard, read and
/// decoded by the code that reads the kernel's, and merged. For measuring that code at rates and on machines that are not
/// at hand: nothing is simulated while it is polled.
///
/// What comes behind the watermark or is lost on the simulated machine is left out.
///
/// ```
/// use schedtrace_core::live::SyntheticRings;
/// use schedtrace_core::synthetic::SyntheticHost;
/// use schedtrace_core::{Poll, Source};
///
/// let mut rings = SyntheticRings::new(SyntheticHost::new().cpus(64).llcs(8).events(20_000))?;
/// let (mut events, deadline) = (0, std::time::Instant::now());
/// while let Poll::Batch(batch) = rings.poll(deadline)? {
///     events += batch.events.len() as u64;
/// }
/// assert_eq!(events, rings.events());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct SyntheticRings {
    meta: Meta,
    ended: Meta,
    rings: Vec<SyntheticRing>,
    merge: Merge<Event>,
    decoder: Decoder,
    /// Who the tasks are.
    identities: Batch,
    over: bool,
}

#[derive(Debug)]
struct SyntheticRing {
    shard: ShardId,
    memory: File,
    ring: Ring,
    bytes: usize,
    records: u64,
}

impl SyntheticRings {
    /// Lets the machine do all it is to do, and writes that on its rings. They take 32 bytes an event.
    ///
    /// ```
    /// # use schedtrace_core::{Source, live::SyntheticRings, synthetic::SyntheticHost};
    /// let rings = SyntheticRings::new(SyntheticHost::new().cpus(16).llcs(2).events(1_000))?;
    /// assert_eq!(rings.meta().rings.len(), 2);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if there is not so much memory.
    pub fn new(host: SyntheticHost) -> Result<Self> {
        let mut host = host.start();
        let meta = host.meta().clone();
        let mut records: Vec<(ShardId, Vec<u8>)> = meta.rings.iter().map(|ring| (ring.shard, Vec::new())).collect();
        let rings = meta.rings.iter().enumerate();
        let ring_of: HashMap<_, _> = rings.flat_map(|(at, ring)| ring.cpus.iter().map(move |&cpu| (cpu, at))).collect();
        let mut identities = Batch::default();
        while let Poll::Batch(batch) = host.poll(Instant::now())? {
            for event in &batch.events {
                let (Some(record), Some(&ring)) = (encode(event), ring_of.get(&event.cpu)) else { continue };
                let ring = &mut records[ring].1;
                // The header: a length, and where the page lies among the ring's.
                ring.extend((PART_BYTES as u32).to_ne_bytes());
                ring.extend([0; 4]);
                ring.extend(record);
            }
            identities.tasks.extend(batch.tasks);
            identities.cgroups.extend(batch.cgroups);
        }
        let rings = records.into_iter().map(|(shard, records)| SyntheticRing::new(shard, &records));
        let rings =
            rings.collect::<std::io::Result<Vec<_>>>().map_err(Error::io("cannot make the rings of", "memory"))?;
        let merge = Merge::new(rings.iter().map(|ring| ring.shard));
        let decoder = Decoder::new(Arc::new(Nameless::default()), 0);
        Ok(Self { meta, ended: host.meta().clone(), rings, merge, decoder, identities, over: false })
    }

    /// How many events there are.
    ///
    /// ```
    /// # use schedtrace_core::{live::SyntheticRings, synthetic::SyntheticHost};
    /// assert!(SyntheticRings::new(SyntheticHost::new().events(1_000))?.events() >= 1_000);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn events(&self) -> u64 {
        self.rings.iter().map(|ring| ring.records).sum()
    }

    /// Back to the beginning.
    ///
    /// ```
    /// # use schedtrace_core::{Poll, Source, live::SyntheticRings, synthetic::SyntheticHost};
    /// let mut rings = SyntheticRings::new(SyntheticHost::new().events(1_000))?;
    /// let now = std::time::Instant::now();
    /// while let Poll::Batch(_) = rings.poll(now)? {}
    /// rings.rewind()?;
    /// assert!(matches!(rings.poll(now)?, Poll::Batch(_)));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if the rings cannot be mapped again.
    pub fn rewind(&mut self) -> Result<()> {
        let again = self.rings.iter_mut().try_for_each(SyntheticRing::rewind);
        again.map_err(Error::io("cannot map the rings of", "memory"))?;
        self.merge = Merge::new(self.rings.iter().map(|ring| ring.shard));
        self.over = false;
        Ok(())
    }
}

impl Source for SyntheticRings {
    fn meta(&self) -> &Meta {
        if self.over { &self.ended } else { &self.meta }
    }

    fn poll(&mut self, _: Instant) -> Result<Poll> {
        let mut batch = Batch::default();
        if self.merge.watermark() == Nanos::ZERO {
            batch.clone_from(&self.identities);
        }
        while !self.over {
            for ring in &mut self.rings {
                if ring.deliver(&self.decoder, &mut self.merge) {
                    self.merge.close(ring.shard);
                }
            }
            self.over = self.merge.slowest().is_none();
            if let Some(until) = self.merge.drain(&mut batch.events, &mut batch.late) {
                batch.until = until;
                return Ok(Poll::Batch(batch));
            }
        }
        Ok(Poll::End)
    }
}

impl SyntheticRing {
    fn new(shard: ShardId, records: &[u8]) -> std::io::Result<Self> {
        let page = rustix::param::page_size();
        let bytes = records.len().next_power_of_two().max(page);
        let memory = File::from(rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC)?);
        // The consumer's page, the producer's, and the data: it never wraps, so the second copy is not looked at.
        memory.set_len((2 * page + bytes) as u64)?;
        memory.write_all_at(&(records.len() as u64).to_ne_bytes(), page as u64)?;
        memory.write_all_at(records, 2 * page as u64)?;
        let ring = Ring::map(memory.as_fd(), bytes)?;
        let records = (records.len() / (PART_BYTES + HEADER as usize)) as u64;
        Ok(Self { shard, memory, ring, bytes, records })
    }

    fn rewind(&mut self) -> std::io::Result<()> {
        self.memory.write_all_at(&0_u64.to_ne_bytes(), 0)?;
        self.ring = Ring::map(self.memory.as_fd(), self.bytes)?;
        Ok(())
    }

    /// Reads on; whether that was all.
    fn deliver(&mut self, decoder: &Decoder, merge: &mut Merge<Event>) -> bool {
        let (producer, mut events) = (self.ring.producer_position(), Vec::with_capacity(RECORDS));
        let drained = self.ring.drain(producer, RECORDS, |words| {
            if let Decoded::Event(event) = decoder.decode(words) {
                events.push(event);
            }
        });
        // What follows may be of the same moment.
        let until = events.last().map_or(Nanos::ZERO, |event| event.ts);
        merge.push(self.shard, events, until);
        drained == super::ring::Drained::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crosses_the_wire_is_what_happened() {
        let host = SyntheticHost::new().cpus(20).llcs(2).stride(7).tasks(40).events(30_000);
        let read = |source: &mut dyn Source| {
            let mut events = Vec::new();
            while let Poll::Batch(batch) = source.poll(Instant::now()).unwrap() {
                assert!(batch.late.is_empty() && batch.lost.is_empty());
                assert!(batch.events.is_sorted_by_key(|event| event.ts));
                events.extend(batch.events);
            }
            events
        };
        let mut rings = SyntheticRings::new(host.clone()).unwrap();
        assert!(rings.rings.len() > 2);
        let (once, happened) = (read(&mut rings), read(&mut host.start()));
        assert_eq!(once.len() as u64, rings.events());
        assert_eq!(once, happened);
        assert!(rings.meta().ended.is_some());
        rings.rewind().unwrap();
        assert_eq!(read(&mut rings), happened);
    }
}
