//! The kernel side of [schedtrace](https://docs.rs/schedtrace-core): BPF programs that record what the scheduler does,
//! what they put on the wire, and the skeleton that loads them. `schedtrace-core` is its one user.
//!
//! The object is compiled once and shipped here (`src/bpf/sched.bpf.o`), so building this crate needs no clang.
//! CO-RE relocations fit it to the running kernel when libbpf loads it.

// libbpf-cargo's output: its style and its unsafe code are its own.
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::expect_used, clippy::unwrap_used, unsafe_code, unused_qualifications)]
#[allow(missing_docs, missing_debug_implementations, unreachable_pub, unused_imports, dead_code)]
#[rustfmt::skip]
#[path = "sched.skel.rs"]
mod sched_skel;

#[allow(missing_debug_implementations, reason = "types that the derives of zerocopy make; ours implement it")]
pub mod wire;

pub use sched_skel::{OpenSchedSkel, SchedSkel, SchedSkelBuilder};
