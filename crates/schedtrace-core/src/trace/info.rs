//! What a trace says of itself, for people and for programs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::event::{LossCount, Nanos, Window};
use crate::source::{Account, Fired, Transport};
use crate::system::Host;

/// What is in a trace, and how complete it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceInfo {
    /// The directory.
    pub path: PathBuf,
    /// Whether it is finished.
    pub state: TraceState,
    /// The machine it was recorded on.
    pub host: Host,
    /// From when to when; what was removed is left out.
    pub window: Window,
    /// Its tables.
    pub tables: Vec<TableInfo>,
    /// The size of all its files in bytes.
    pub bytes: u64,
    /// What is missing.
    pub completeness: Completeness,
    /// How the records travelled from the kernel; none where nobody noted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// What became of every event between the kernel and the recorder, by ring and kind; empty unless it is finished.
    pub accounts: Vec<Account>,
    /// Why it was written, where it is what a flight recorder kept of a longer stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Fired>,
}

/// Whether a trace is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceState {
    /// The recording ended as it should.
    Finished,
    /// It is being recorded: more is to come.
    Recording,
    /// It was not finished and nobody records it any more: it ends at the last commit.
    Interrupted,
    /// It was interrupted and ends at the last commit; what was left over has been brought to rest
    /// ([`repair`](super::repair())).
    Repaired,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableInfo {
    /// Its name, which is the name of its folder.
    pub name: String,
    /// Rows in all its segments.
    pub rows: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// How many segments it has.
    pub segments: u64,
}

/// What is in a trace, and what is known to be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// Events in the trace.
    pub events: u64,
    /// Events that came behind the watermark over the whole recording. They are not missing.
    pub late: u64,
    /// Events known to be missing, per place and kind.
    pub lost: Vec<LossCount>,
    /// What was removed to keep the limits of size and age.
    pub removed: Removed,
    /// The recording was not finished: it ends at the last commit, [`Window::until_ns`].
    pub ends_at_last_commit: bool,
    /// It is finished, nothing is known to be missing, and nothing was removed.
    pub complete: bool,
}

/// What was removed to keep the limits of size and age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Segments.
    pub segments: u64,
    /// Rows of all tables in them.
    pub rows: u64,
    /// Nothing is left from before this time, but for identities that still hold.
    pub until_ns: Nanos,
}
