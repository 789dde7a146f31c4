//! How much a server may collect.

use std::time::Duration;

/// What each collection of a server is held to, whatever an agent asks for.
///
/// ```
/// use schedtrace_mcp::Limits;
/// let limits = Limits { max_events_per_second: Some(500_000), ..Limits::default() };
/// assert_eq!(limits.max_duration.as_secs(), 600);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest that one goes on, [`Settings::daemon`](crate::Settings::daemon)'s excepted. Default: 600 s.
    pub max_duration: Duration,
    /// The most room that the trace of one takes, in bytes, and at least 1 MiB; its oldest part goes first. Default: 256 MiB.
    pub max_bytes: u64,
    /// The most events of each second that one takes in; the others are counted as lost. Default: all are taken in.
    pub max_events_per_second: Option<u64>,
    /// How many there are at once. Default: 2.
    pub max_at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_duration: Duration::from_secs(600),
            max_bytes: 256 << 20,
            max_events_per_second: None,
            max_at_once: 2,
        }
    }
}
