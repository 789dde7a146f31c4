//! Memory that BPF programs write and we read: a BPF arena (Linux 6.9, `kernel/bpf/arena.c`).
//!
//! The kernel writes this memory while we read it, so it is reached by atomic loads and stores only.
#![allow(unsafe_code, reason = "the mapping is shared with the kernel")]

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// The most that one arena holds (`arena_map_alloc()`).
pub(super) const MOST_BYTES: usize = 1 << 32;

/// An arena, mapped as long as this lives.
#[derive(Debug)]
pub(super) struct Arena {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone, nothing of it is tied to a thread, and all access is atomic.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps the arena behind `fd`, all of its `bytes` (whole pages), and has the kernel put every page in place: a program's
    /// store to one that is not there would be dropped in silence.
    pub(super) fn map(fd: BorrowedFd<'_>, bytes: usize) -> std::io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, fd, 0)? };
        let Some(mapped) = NonNull::new(base.cast()) else {
            return Err(std::io::Error::other("the kernel mapped an arena at address 0"));
        };
        let arena = Self { base: mapped, bytes };
        // Where memory is short this is an error; to touch the pages ourselves would be a signal.
        // SAFETY: the range is the mapping made above, whose pages are made, not changed.
        unsafe { madvise(base, bytes, Advice::LinuxPopulateWrite)? };
        Ok(arena)
    }

    /// Where a place in it lies for user space, by which the programs know it too.
    pub(super) fn address(&self, offset: usize) -> u64 {
        self.base.as_ptr() as u64 + offset as u64
    }

    /// The `N` words at `offset`.
    ///
    /// # Panics
    /// Where they do not lie inside, or are not aligned, which is a mistake of ours.
    #[inline(always)]
    pub(super) fn words<const N: usize>(&self, offset: usize) -> [&AtomicU64; N] {
        assert!(offset.is_multiple_of(8) && offset + 8 * N <= self.bytes, "outside of the arena");
        std::array::from_fn(|at| {
            // SAFETY: inside the mapping and aligned, by the line above; mapped as long as `self` lives; an atomic may be
            // written by others while we hold it.
            unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset + 8 * at).cast()) }
        })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `map` with this length; no reference to it outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "cannot unmap an arena: {unmapped:?}");
    }
}
