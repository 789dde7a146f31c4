//! The live window, and the flight recorder that writes it down when something goes wrong.
//!
//! ```text
//!   Source ── Pipeline ──> Window ──> Snapshot ──> Source: reports, explanations, queries
//!                            |
//!                        Triggers ──> the window as a trace, and why it was written
//! ```
//!
//! A [`Window`] keeps the last seconds of a stream in memory; what is read from it begins with who is alive and what each
//! task is doing, and so is a recording like any other. A [`Trigger`] is a line of text such as `runqueue_latency > 20ms`,
//! which fires when that happens, also on a wait that has not ended.
#![cfg_attr(feature = "trace", doc = "[`FlightRecorder`] puts the two together.")]

mod pack;
#[cfg(feature = "trace")]
mod recorder;
#[cfg(test)]
mod tests;
mod trigger;
mod window;

#[cfg(feature = "trace")]
pub use recorder::{Dump, FlightHandle, FlightOptions, FlightRecorder, FlightStatus};
pub use trigger::{BadTrigger, Trigger, Triggers};
pub use window::{Covers, Snapshot, Window, WindowOptions, WindowSource};
