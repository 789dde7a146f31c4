//! A BPF ring buffer, read from its mapping.
//!
//! `kernel/bpf/ringbuf.c` lays it out: a page with the consumer's position, a page with the producer's, and the
//! data, mapped twice in a row so that a record never wraps. A record has an 8-byte header: its length, with two
//! flag bits (`include/uapi/linux/bpf.h`: `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT`), and a page offset.
//!
//! The kernel writes this memory while we read it, so it is read by atomic and volatile loads only.
#![allow(unsafe_code, reason = "the mapping is shared with the kernel")]

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
pub(super) const HEADER: u64 = 8;
/// No record is longer: the longest is the loss record.
pub(super) const MAX_WORDS: usize = 50;
/// Space is given back to the kernel after this many bytes, not after each record.
const RELEASE_EVERY: u64 = 64 * 1024;

/// Why a ring was not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// Everything that was asked for was read.
    All,
    /// As many records as were asked for.
    Most,
    /// The next record is not committed yet.
    Busy,
}

/// The consumer's end of one ring.
#[derive(Debug)]
pub(super) struct Ring {
    consumer: NonNull<u8>,
    producer: NonNull<u8>,
    page: usize,
    size: usize,
    position: u64,
}

// SAFETY: the mappings belong to this value alone, and nothing of them is tied to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring behind `fd`, which has `size` bytes (a power of two, as the kernel made it).
    pub(super) fn map(fd: BorrowedFd<'_>, size: usize) -> std::io::Result<Self> {
        let page = rustix::param::page_size();
        let null = std::ptr::null_mut();
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let consumer = unsafe { mmap(null, page, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)? };
        // SAFETY: as above. The producer's page and the data, twice.
        let producer = unsafe { mmap(null, page + 2 * size, ProtFlags::READ, MapFlags::SHARED, fd, page as u64) };
        let producer = match producer {
            Ok(producer) => producer,
            Err(error) => {
                // SAFETY: this is the mapping made above, and nothing refers to it.
                unsafe { munmap(consumer, page)? };
                return Err(error.into());
            }
        };
        match (NonNull::new(consumer.cast()), NonNull::new(producer.cast())) {
            (Some(consumer), Some(producer)) => {
                let mut ring = Self { consumer, producer, page, size, position: 0 };
                ring.position = ring.consumer_position().load(Ordering::Relaxed);
                Ok(ring)
            }
            _ => Err(std::io::Error::other("the kernel mapped a ring buffer at address 0")),
        }
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped as long as `self` lives, is aligned, and the kernel only reads it.
        unsafe { self.consumer.cast::<AtomicU64>().as_ref() }
    }

    /// The producer's position: everything that was reserved before this call lies before it.
    pub(super) fn producer_position(&self) -> u64 {
        // SAFETY: the page is mapped as long as `self` lives and is aligned; the kernel stores with release.
        unsafe { self.producer.cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    /// Hands over each record before `until`, as words, but no more than `most` of them.
    pub(super) fn drain(&mut self, until: u64, most: usize, mut record: impl FnMut(&[u64])) -> Drained {
        let mut words = [0; MAX_WORDS];
        let mut released = self.position;
        let mut left = most;
        let drained = loop {
            if self.position >= until {
                break Drained::All;
            }
            if left == 0 {
                break Drained::Most;
            }
            left -= 1;
            let offset = (self.position & (self.size as u64 - 1)) as usize;
            // SAFETY: `offset` is below `size` and a multiple of 8, so the header lies in the first copy of the data,
            // which begins one page behind the producer's page.
            let header = unsafe { self.producer.add(self.page + offset).cast::<AtomicU32>().as_ref() };
            let length = header.load(Ordering::Acquire);
            if length & BUSY != 0 {
                break Drained::Busy;
            }
            let bytes = u64::from(length & !DISCARD);
            if length & DISCARD == 0 {
                let count = (bytes as usize / 8).min(MAX_WORDS);
                for (at, word) in words[..count].iter_mut().enumerate() {
                    // SAFETY: the record follows its header and ends at most `size` bytes behind `offset`, which the
                    // second copy of the data covers; it is committed, and the kernel leaves it alone until released.
                    *word = unsafe {
                        self.producer.add(self.page + offset + HEADER as usize + at * 8).cast::<u64>().read_volatile()
                    };
                }
                record(&words[..count]);
            }
            self.position += (bytes + HEADER).next_multiple_of(8);
            if self.position - released >= RELEASE_EVERY {
                self.release();
                released = self.position;
            }
        };
        self.release();
        drained
    }

    fn release(&self) {
        self.consumer_position().store(self.position, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: both were mapped by `map` with these lengths; no reference to them outlives `self`.
        let unmapped = unsafe {
            munmap(self.consumer.as_ptr().cast(), self.page)
                .and(munmap(self.producer.as_ptr().cast(), self.page + 2 * self.size))
        };
        debug_assert!(unmapped.is_ok(), "cannot unmap a ring: {unmapped:?}");
    }
}
