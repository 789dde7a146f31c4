//! What is known at a moment of the stream: who is alive, and what each task is doing. Whoever cuts a stream carries both on,
//! so that what follows can be read without what was before: the trace writer from segment to segment, and the live window when
//! its oldest part goes.

mod identity;
mod status;

#[cfg(feature = "trace")]
pub(crate) use identity::idle_cpu;
pub(crate) use identity::{Identities, MAX_TASKS};
pub(crate) use status::Statuses;

use crate::event::Nanos;

/// An identity, a path or a loss, and where in the stream it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "trace"), allow(dead_code, reason = "traces keep all of it"))]
pub(crate) struct Note<T> {
    /// The time to which the stream had come: it holds for events from here on.
    pub(crate) seen: Nanos,
    /// It was announced before and is repeated.
    pub(crate) carried: bool,
    /// What.
    pub(crate) item: T,
}
