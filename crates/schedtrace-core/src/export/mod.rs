//! Streams in other tools' formats. Each is a [`Sink`](crate::Sink), so that a recording and a replayed trace can feed it.

#[cfg(feature = "csv")]
pub mod csv;
mod names;
#[cfg(feature = "perfetto")]
pub mod perfetto;

pub use names::UNKNOWN_TID;
