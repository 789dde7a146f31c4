//! The running kernel as a [`Source`](crate::Source): the [`Collector`].
//!
//! ```text
//!  Collector::builder()   options                              needs nothing
//!    .load()?             programs loaded, maps made           needs CAP_BPF and CAP_PERFMON
//!    .attach()?           tasks listed, programs attached      needs them too; no thread yet: drop privileges here
//!    .start()?            recording begins                     needs nothing any more
//!  Collector              a Source: poll() gives batches
//!    .stopper()           a handle that ends it from any thread or signal handler's thread
//!  Poll::End              detached, and every ring read to its end
//! ```
//!
//! Dropping a collector at any point detaches its programs and frees their maps.
//!
//! # From the kernel to a batch
//!
//! One BPF program per tracepoint puts records of 24 bytes into the log of its CPU, in a BPF arena, or on the ring of its
//! CPU's shard, where the kernel has no arenas ([`Transport`](crate::Transport)). One thread per shard reads its logs
//! whenever one is a quarter full, and otherwise on a timer, decodes, and sends a chunk of events with a watermark over a
//! bounded channel. [`Collector::poll`](crate::Source::poll) merges the chunks by time. A log that is full drops records
//! and counts them, per CPU and kind, with the time of the first and the
//! last; the count travels as [`Loss`](crate::Loss) over a ring of its own.

mod arena;
mod builder;
mod capabilities;
mod catalog;
mod decode;
pub mod inspect;
mod kernel;
mod layers;
mod ledger;
mod log;
mod perf;
mod probes;
mod ring;
mod running;
mod sampler;
mod shard;
mod shards;
#[cfg(feature = "synthetic")]
mod synthetic;

pub use builder::{Attached, CollectorBuilder, Loaded};
pub use capabilities::{Aspect, Capabilities, Check, State};
pub use catalog::{EventInfo, catalog_fields, catalog_row, events};
pub use running::{Collector, Stopper};
pub use shards::ShardPolicy;
#[cfg(feature = "synthetic")]
pub use synthetic::SyntheticRings;
