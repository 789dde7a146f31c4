//! Where events come from: the [`Source`] trait and what a source says of itself.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::{Batch, Cpu, Kind, Nanos, ShardId};
use crate::system::{ClockSnapshot, Host, Topology};

/// What a source says of itself: the setting in which its events are to be read. Stored as `meta.json` in a trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The machine.
    pub host: Host,
    /// Its CPUs and how they hang together.
    pub topology: Topology,
    /// The clocks read together at the start and at the end, to map `CLOCK_MONOTONIC` to boot time and wall-clock time.
    pub clocks: Vec<ClockSnapshot>,
    /// The programs that were or were not attached.
    pub probes: Vec<Probe>,
    /// What was left out on purpose.
    pub filters: Filters,
    /// Process id of the recorder.
    pub recorder_pid: Option<u32>,
    /// When recording began: no event is earlier.
    pub started: Nanos,
    /// When it ended; none while it goes on.
    pub ended: Option<Nanos>,
    /// How the records travelled from the kernel; none where they did not, or nobody noted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The rings between the kernel and the recorder, or what stands in their place.
    #[serde(default)]
    pub rings: Vec<RingInfo>,
    /// What became of every event, by ring and kind. Known at the end of a live recording.
    #[serde(default)]
    pub accounts: Vec<Account>,
    /// Why it was written, where it is what a flight recorder kept of a longer stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Fired>,
}

/// Why a part of a stream was kept: what fired, or who asked for it.
///
/// ```
/// use schedtrace_core::{Fired, Nanos};
/// let fired = Fired { what: "somebody asked".to_owned(), at_ns: Nanos(500), ..Fired::default() };
/// assert_eq!(fired.to_string(), "somebody asked");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// The trigger, as it was given; none where somebody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// What happened, in a sentence.
    pub what: String,
    /// When that was known.
    pub at_ns: Nanos,
    /// Whom it happened to: the name of the task, control characters replaced; empty where it concerns no task.
    #[serde(default)]
    pub comm: String,
    /// Its thread id, in the initial PID namespace; 0 where that is not known.
    #[serde(default)]
    pub tid: u32,
    /// Its process id; 0 where that is not known.
    #[serde(default)]
    pub pid: u32,
    /// How long it took, or has taken so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<Nanos>,
    /// It had not ended.
    #[serde(default)]
    pub ongoing: bool,
}

/// What happened.
impl std::fmt::Display for Fired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may come out of a file.
        let line: String = self.what.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        f.pad(&line)
    }
}

/// How records travel from the kernel to the recorder.
///
/// ```
/// use schedtrace_core::Transport;
/// assert_eq!("arena".parse::<Transport>()?, Transport::Arena);
/// assert_eq!(Transport::Ring.to_string(), "ring");
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Transport {
    /// A BPF ring buffer for each shard of CPUs: on every kernel that can record.
    Ring,
    /// A log for each CPU in a BPF arena: it takes less of the traced tasks' time, and needs Linux 6.10.
    Arena,
}

impl Transport {
    /// All of them with their names, for command lines.
    ///
    /// ```
    /// use schedtrace_core::Transport;
    /// assert_eq!(Transport::ALL[1], ("arena", Transport::Arena));
    /// ```
    pub const ALL: [(&'static str, Self); 2] = [("ring", Self::Ring), ("arena", Self::Arena)];
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Self::ALL.iter().find(|(_, transport)| transport == self).map_or("", |(name, _)| name);
        f.pad(name)
    }
}

impl std::str::FromStr for Transport {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, transport)| transport).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            Error::Invalid(format!("no transport is called `{name}`: use one of {names}"))
        })
    }
}

/// A ring of the transport, or the logs of a shard, and the CPUs whose events go through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingInfo {
    /// Which.
    pub shard: ShardId,
    /// The CPUs that share it; the ring for lifecycles, which all share, names none.
    pub cpus: Vec<Cpu>,
    /// Its size.
    pub bytes: u64,
}

/// What became of the events of one kind that were meant for one ring, over a whole recording.
///
/// `emitted` is counted where the event is seen, in the kernel and apart from the rings, so that
/// *emitted = delivered + lost* can be checked; [`unaccounted`](Self::unaccounted) is the difference.
///
/// ```
/// use schedtrace_core::{Account, Kind, ShardId};
/// let account =
///     Account { shard: ShardId(0), kind: Kind::Switch, emitted: 10, delivered: 7, lost: 3, passed_over: 0 };
/// assert_eq!(account.unaccounted(), 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The ring.
    pub shard: ShardId,
    /// The kind.
    pub kind: Kind,
    /// Events for which the kernel programs wanted room in the ring.
    pub emitted: u64,
    /// Records that were read from the ring.
    pub delivered: u64,
    /// Events that found the ring full.
    pub lost: u64,
    /// Runs of the program that recorded nothing: before the start, after the end, or of what the filters leave out.
    pub passed_over: u64,
}

impl Account {
    /// What is neither delivered nor lost: 0, or there is a hole that nobody saw.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        i128::from(self.emitted) - i128::from(self.delivered) - i128::from(self.lost)
    }
}

/// One kernel program, and whether it was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The event it records.
    pub kind: Kind,
    /// Whether it was attached.
    pub on: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What was recorded: everything, or only what these lists name. An empty list leaves nothing out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    /// Only these processes and their descendants.
    #[serde(default)]
    pub pids: Vec<u32>,
    /// Only tasks in these cgroups and below, as paths in the v2 hierarchy.
    #[serde(default)]
    pub cgroups: Vec<String>,
    /// Only what happened on these CPUs.
    #[serde(default)]
    pub cpus: Vec<u16>,
    /// Of these kinds of events only those that meet conditions: `block_rq_issue: rwbs ~ 'W'`. All of other kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

impl Filters {
    /// Whether everything was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty() && self.cgroups.is_empty() && self.cpus.is_empty() && self.events.is_empty()
    }
}

/// What a poll brought.
#[derive(Debug)]
pub enum Poll {
    /// The next stretch of the stream.
    Batch(Batch),
    /// Nothing until the deadline.
    Idle,
    /// The stream is over; polling again gives `End` again.
    End,
}

/// A stream of events in batches: the running kernel, a trace on disk, or a list in a test.
pub trait Source {
    /// The setting. What is known only at the end (`ended`, `accounts`) is there once [`Poll::End`] was returned.
    fn meta(&self) -> &Meta;

    /// The next batch; waits for it until `deadline` at the latest.
    fn poll(&mut self, deadline: Instant) -> Result<Poll>;
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn meta(&self) -> &Meta {
        (**self).meta()
    }
    fn poll(&mut self, deadline: Instant) -> Result<Poll> {
        (**self).poll(deadline)
    }
}

/// A source that gives out the batches it was made with.
///
/// ```
/// use schedtrace_core::{Batch, MemorySource, Meta, Poll, Source};
/// let mut source = MemorySource::new(Meta::default(), [Batch::default()]);
/// assert!(matches!(source.poll(std::time::Instant::now()), Ok(Poll::Batch(_))));
/// assert!(matches!(source.poll(std::time::Instant::now()), Ok(Poll::End)));
/// ```
#[derive(Debug)]
pub struct MemorySource {
    meta: Meta,
    batches: std::collections::VecDeque<Batch>,
}

impl MemorySource {
    /// A source of these batches, in this order.
    pub fn new(meta: Meta, batches: impl IntoIterator<Item = Batch>) -> Self {
        Self { meta, batches: batches.into_iter().collect() }
    }
}

impl Source for MemorySource {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn poll(&mut self, _deadline: Instant) -> Result<Poll> {
        Ok(self.batches.pop_front().map_or(Poll::End, Poll::Batch))
    }
}
