//! Records what the Linux scheduler does, with BPF, and explains it.

pub mod analysis;
mod error;
mod event;
#[cfg(feature = "live")]
pub mod live;
pub mod merge;
pub mod pipeline;
mod sink;
mod source;
pub mod system;
#[cfg(feature = "trace")]
pub mod trace;

pub use error::{Error, Result};
pub use event::*;
pub use pipeline::{Pipeline, Summary};
pub use sink::{OnFull, Sink};
pub use source::{Filters, MemorySource, Meta, Poll, Probe, Source};
