//! Choosing kinds of events by name: of a kind, of a group, or what scxtop calls them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::filter::system;

/// What kinds of events have to do with: people choose by it what is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventGroup {
    /// The scheduler, and the lives of tasks.
    Sched,
    /// Interrupts: of devices, of software, from other CPUs.
    Irq,
    /// CPUs: frequency, idle states, hotplug.
    Cpu,
    /// Requests of block devices.
    Block,
    /// Futexes: who waits, and who wakes.
    Futex,
    /// System calls that fail, and how long chosen ones take.
    Syscalls,
    /// Users, capabilities, kernel threads' work, and want of memory.
    Process,
    /// Schedulers that are BPF programs.
    SchedExt,
    /// Samples of what the whole machine does, and of the recorder.
    System,
}

impl EventGroup {
    /// All of them with their names, for command lines.
    ///
    /// ```
    /// use schedtrace_core::EventGroup;
    /// assert_eq!(EventGroup::ALL[1], ("irq", EventGroup::Irq));
    /// ```
    pub const ALL: [(&'static str, Self); 9] = [
        ("sched", Self::Sched),
        ("irq", Self::Irq),
        ("cpu", Self::Cpu),
        ("block", Self::Block),
        ("futex", Self::Futex),
        ("syscalls", Self::Syscalls),
        ("process", Self::Process),
        ("sched_ext", Self::SchedExt),
        ("system", Self::System),
    ];
}

impl fmt::Display for EventGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::ALL.iter().find(|(_, group)| group == self).map_or("", |(name, _)| name))
    }
}

/// The name that was not a kind of event.
///
/// ```
/// use schedtrace_core::{Kind, UnknownKind};
/// assert!(UnknownKind("sched_swich".into()).to_string().contains("do you mean `sched_switch`?"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownKind(pub String);

impl UnknownKind {
    /// The name of a kind or a group that is most like it, if any is.
    ///
    /// ```
    /// use schedtrace_core::UnknownKind;
    /// assert_eq!(UnknownKind("sched_swich".into()).nearest(), Some("sched_switch"));
    /// ```
    #[must_use]
    pub fn nearest(&self) -> Option<&'static str> {
        let wanted = self.0.rsplit(':').next().unwrap_or(&self.0);
        let known = Kind::selectable().map(Kind::name).chain(ALIASES.iter().map(|(alias, _)| *alias));
        nearest(wanted, known.chain(EventGroup::ALL.map(|(name, _)| name)))
    }
}

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        let short: String = name.chars().take(64).collect();
        write!(f, "no event is called `{short}`: ")?;
        if let Some(near) = self.nearest() {
            write!(f, "do you mean `{near}`? ")?;
        }
        f.write_str("`schedtrace record --events help` lists them")
    }
}

/// The one of some names that is most like another, if any is.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// So alike are names of which one is taken for the other.
    const ALIKE: f64 = 0.8;
    let name: String = name.chars().take(64).collect::<String>().to_lowercase();
    let near = names.map(|other| (strsim::jaro_winkler(&name, &other.to_lowercase()), other));
    near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(alike, _)| *alike >= ALIKE).map(|(_, other)| other)
}

impl FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// What scxtop calls its events, where that is not the kernel's name.
const ALIASES: [(&str, &[Kind]); 13] = [
    ("fork", &[Kind::Fork]),
    ("exec", &[Kind::Exec]),
    ("exit", &[Kind::Exit]),
    ("wait", &[Kind::Wait]),
    ("sched_wait", &[Kind::Wait]),
    ("sched_hang", &[Kind::Hang]),
    ("sched_fork", &[Kind::Fork]),
    ("sched_exec", &[Kind::Exec]),
    ("sched_exit", &[Kind::Exit]),
    ("sched_migrate", &[Kind::Migrate]),
    ("hardirq", &[Kind::IrqEntry, Kind::IrqExit]),
    ("softirq", &[Kind::SoftirqEntry, Kind::SoftirqExit]),
    ("ipi", &[Kind::IpiSend, Kind::IpiEntry, Kind::IpiExit]),
];

/// Kinds of events, as people choose them: by the name of a kind, of a group, `default` or `all`. Names that scxtop has for
/// them do as well, and those of tracepoints with their subsystem, as `sched:sched_switch`.
///
/// ```
/// use schedtrace_core::{Kind, Kinds};
/// assert_eq!("softirq".parse::<Kinds>()?.kinds, [Kind::SoftirqEntry, Kind::SoftirqExit]);
/// assert!("default".parse::<Kinds>()?.kinds.contains(&Kind::Switch));
/// assert!("irq".parse::<Kinds>()?.kinds.contains(&Kind::IpiSend));
/// assert_eq!("block:block_rq_issue".parse::<Kinds>()?.kinds, [Kind::BlockIssue]);
/// assert!("nothing".parse::<Kinds>().is_err());
/// # Ok::<(), schedtrace_core::UnknownKind>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Which.
    pub kinds: Vec<Kind>,
    /// Whether it is one that was named: then it has to be there, while of a group it is enough to have some.
    pub named: bool,
}

impl FromStr for Kinds {
    type Err = UnknownKind;
    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let of = |wanted: &dyn Fn(Kind) -> bool| {
            let kinds = Kind::selectable().filter(|kind| wanted(*kind)).collect();
            Self { kinds, named: false }
        };
        if let Some((_, kinds)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            return Ok(Self { kinds: kinds.to_vec(), named: kinds.len() == 1 });
        }
        if let Some(&(_, group)) = EventGroup::ALL.iter().find(|(known, _)| *known == name) {
            return Ok(of(&|kind| kind.group() == group));
        }
        match name {
            "default" => Ok(of(&Kind::is_default)),
            "all" => Ok(of(&|_| true)),
            _ if name.contains(':') => of_tracepoint(name)
                .map(|kind| Self { kinds: vec![kind], named: true })
                .ok_or_else(|| UnknownKind(name.to_owned())),
            _ => name.parse().map(|kind| Self { kinds: vec![kind], named: true }),
        }
    }
}

/// The kind that records a tracepoint, by its full name.
fn of_tracepoint(name: &str) -> Option<Kind> {
    let (subsystem, name) = name.split_once(':')?;
    // What ours is called otherwise.
    let name = match name {
        "mark_victim" => Kind::OomKill.name(),
        "ipi_send_cpu" | "ipi_send_cpumask" => Kind::IpiSend.name(),
        name => name,
    };
    name.parse::<Kind>().ok().filter(|kind| system(*kind) == Some(subsystem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_kinds_and_every_alias_is_no_name_of_another() {
        for (name, group) in EventGroup::ALL {
            assert_eq!(group.to_string(), name);
            assert!(
                name.parse::<Kinds>().is_ok_and(|found| found.kinds.iter().all(|kind| kind.group() == group)),
                "{name}"
            );
        }
        for (alias, _) in ALIASES {
            assert!(
                alias.parse::<Kind>().is_err() && EventGroup::ALL.iter().all(|(name, _)| *name != alias),
                "{alias}"
            );
        }
    }
}
