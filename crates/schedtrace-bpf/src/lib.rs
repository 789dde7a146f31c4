//! The kernel side of [schedtrace](https://docs.rs/schedtrace-core): BPF programs that record what the scheduler does,
//! what they put on the wire, and the skeletons that load them. `schedtrace-core` is its one user.
//!
//! There are two objects with the same programs: those in `ring.bpf.o` send their records through BPF ring buffers, those
//! in `arena.bpf.o` through logs in a BPF arena, which takes less of the traced tasks' time and needs Linux 6.10. Apart, so
//! that a kernel without arenas never sees one.
//!
//! The objects are compiled once and shipped here, so building this crate needs no clang. CO-RE relocations fit them to
//! the running kernel when libbpf loads them.

// libbpf-cargo's output: its style and its unsafe code are its own.
macro_rules! skeletons {
    ($($name:ident = $file:literal),*) => {
        $(
            #[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::expect_used, clippy::unwrap_used)]
            #[allow(missing_docs, missing_debug_implementations, unreachable_pub, unused_imports, dead_code)]
            #[allow(unsafe_code, unused_qualifications)]
            #[rustfmt::skip]
            #[path = $file]
            mod $name;
        )*
    };
}
skeletons!(ring_skel = "ring.skel.rs", arena_skel = "arena.skel.rs");

#[allow(missing_debug_implementations, reason = "types that the derives of zerocopy make; ours implement it")]
pub mod wire;

pub use arena_skel::{ArenaSkel, ArenaSkelBuilder, OpenArenaSkel};
pub use ring_skel::{OpenRingSkel, RingSkel, RingSkelBuilder};
