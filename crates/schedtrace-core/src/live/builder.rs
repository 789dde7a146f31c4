//! What to record, and how: from options to loaded programs to a running collector.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::decode::Decoder;
use super::kernel::{Programs, Settings};
use super::layers::Layers;
use super::probes::{self, Vmlinux, Wanted};
use super::sampler::Sampler;
use super::shards::{Plan, ShardPolicy};
use super::{Collector, running};
use crate::error::{Error, Result};
use crate::event::{Cgroup, Cpu, Kind, Kinds, Task};
use crate::source::{Filters, Meta, Transport};
use crate::system::{self, Cgroups, Host, Topology};

/// Options of a [`Collector`], each with a default that records everything.
///
/// ```no_run
/// use schedtrace_core::live::{Collector, ShardPolicy};
/// use schedtrace_core::Kind;
///
/// let collector = Collector::builder()
///     .shards(ShardPolicy::PerLlc)
///     .ring_bytes(64 << 20)
///     .events([Kind::Switch, Kind::Waking])
///     .pid(4242)
///     .start()?;
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder records nothing until it is started"]
pub struct CollectorBuilder {
    transport: Option<Transport>,
    shards: ShardPolicy,
    ring_bytes: usize,
    wake_at: f64,
    drain_interval: Duration,
    events: Wanted,
    calls: Vec<u32>,
    sample_interval: Duration,
    pids: Vec<u32>,
    cgroups: Vec<PathBuf>,
    cpus: Vec<Cpu>,
    duration: Option<Duration>,
    fail_ids_every: u32,
    one_log: bool,
    late_every: u32,
    weak_order: bool,
}

impl Default for CollectorBuilder {
    fn default() -> Self {
        Self {
            transport: None,
            shards: ShardPolicy::default(),
            ring_bytes: 32 << 20,
            wake_at: 0.25,
            drain_interval: Duration::from_millis(50),
            events: Wanted::default(),
            calls: Vec::new(),
            sample_interval: Duration::from_secs(1),
            pids: Vec::new(),
            cgroups: Vec::new(),
            cpus: Vec::new(),
            duration: None,
            fail_ids_every: 0,
            one_log: false,
            late_every: 0,
            weak_order: false,
        }
    }
}

impl CollectorBuilder {
    /// How records travel from the kernel; one that this kernel does not take is an error. Default: the arena where the
    /// kernel takes it, and rings elsewhere.
    ///
    /// ```no_run
    /// use schedtrace_core::{Source, Transport, live::Collector};
    /// let collector = Collector::builder().transport(Transport::Arena).start()?;
    /// assert_eq!(collector.meta().transport, Some(Transport::Arena));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// How CPUs are grouped into shards. Default: [`ShardPolicy::Auto`].
    pub fn shards(mut self, policy: ShardPolicy) -> Self {
        self.shards = policy;
        self
    }

    /// Bytes of all rings or logs together. Default: 32 MiB. Each holds a power of two, so less may be used.
    pub fn ring_bytes(mut self, bytes: usize) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// How full a ring or a log is, from 0 to 1, when its reader is woken before the drain interval is over. Default: 0.25.
    pub fn wake_at(mut self, fill: f64) -> Self {
        self.wake_at = fill;
        self
    }

    /// How often each ring is read, which is also how far behind a live view is; while none gets more than 20,000 events
    /// a second, five times less often. Default: 50 ms.
    pub fn drain_interval(mut self, interval: Duration) -> Self {
        self.drain_interval = interval;
        self
    }

    /// Records these events only; asking for one that the kernel lacks is an error. Several calls add up. Default: those
    /// that are [recorded by default](Kind::is_default), as far as the kernel has them.
    pub fn events(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        self.events.named.extend(kinds);
        self
    }

    /// The same, but what the kernel lacks is left out and told by [`Meta::probes`].
    ///
    /// ```no_run
    /// use schedtrace_core::{EventGroup, Kind, live::Collector};
    /// let wanted = |kind: &Kind| kind.is_default() || kind.group() == EventGroup::Irq;
    /// let collector = Collector::builder().events_where_possible(Kind::ALL.into_iter().filter(wanted)).start()?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn events_where_possible(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        self.events.possible.extend(kinds);
        self
    }

    /// Records what somebody chose by name: a single event has to be there, of a group what the kernel has.
    ///
    /// ```no_run
    /// use schedtrace_core::live::Collector;
    /// let collector = Collector::builder().kinds(&"default".parse()?).kinds(&"futex_wait".parse()?).start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kinds(self, kinds: &Kinds) -> Self {
        let Kinds { kinds, named } = kinds;
        if *named { self.events(kinds.iter().copied()) } else { self.events_where_possible(kinds.iter().copied()) }
    }

    /// Records how long each system call of these numbers takes ([`Kind::Syscall`]); numbers are those of this machine, up
    /// to 511. Default: none.
    ///
    /// ```no_run
    /// use schedtrace_core::{Kind, live::Collector};
    /// let fsync = 74; // on x86-64
    /// let collector = Collector::builder().events([Kind::Syscall]).calls([fsync]).start()?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn calls(mut self, numbers: impl IntoIterator<Item = u32>) -> Self {
        self.calls.extend(numbers);
        self
    }

    /// How often the events of [`EventGroup::System`](crate::EventGroup::System) are sampled. Default: 1 s.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use schedtrace_core::{Kind, live::Collector};
    /// let fine = Collector::builder().events([Kind::Pressure]).sample_interval(Duration::from_millis(100)).start()?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn sample_interval(mut self, interval: Duration) -> Self {
        self.sample_interval = interval;
        self
    }

    /// Records only this process (thread group), its descendants, and whoever is wakened by or switches with them.
    /// Several add up.
    pub fn pid(mut self, pid: u32) -> Self {
        self.pids.push(pid);
        self
    }

    /// Records only tasks in this cgroup and below: a path in the file system, or one in the v2 hierarchy.
    /// Several add up; together with [`pid`](Self::pid), a task must pass both.
    pub fn cgroup(mut self, path: impl AsRef<Path>) -> Self {
        self.cgroups.push(path.as_ref().to_owned());
        self
    }

    /// Records only these CPUs: the switches on them, and the wakings and migrations that happen on, or come from or
    /// go to, one of them. A waking elsewhere of a task that is moved here only afterwards is not seen.
    pub fn cpus(mut self, cpus: impl IntoIterator<Item = Cpu>) -> Self {
        self.cpus.extend(cpus);
        self
    }

    /// Ends by itself when it has recorded for so long: at the first poll after that. Default: it goes on until it is
    /// [stopped](super::Stopper).
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// For tests: every `n`th look-up of a task's id fails in the kernel, as it does where task-local storage cannot
    /// be had.
    #[doc(hidden)]
    pub fn fail_ids_every(mut self, n: u32) -> Self {
        self.fail_ids_every = n;
        self
    }

    /// For tests: all CPUs share one log of the arena, as CPUs do that are added while recording.
    #[doc(hidden)]
    pub fn one_log(mut self, one: bool) -> Self {
        self.one_log = one;
        self
    }

    /// For tests: every `n`th record in a log of the arena is committed some microseconds after its room was claimed.
    #[doc(hidden)]
    pub fn late_every(mut self, n: u32) -> Self {
        self.late_every = n;
        self
    }

    /// For tests: records in a log are committed as on a CPU that shows stores in another order than they were made.
    #[doc(hidden)]
    pub fn weak_order(mut self, weak: bool) -> Self {
        self.weak_order = weak;
        self
    }

    /// Checks the options and loads the programs; nothing is recorded yet.
    ///
    /// # Errors
    /// [`Error::Privilege`] without `CAP_BPF` and `CAP_PERFMON`, [`Error::NoBtf`] on a kernel without BTF,
    /// [`Error::NoTracepoint`] for an event that was asked for and is not there, [`Error::Invalid`] for a process,
    /// cgroup or CPU that does not exist and for rings that are too small.
    pub fn load(self) -> Result<Loaded> {
        let topology = Topology::read(Path::new("/sys"))?;
        let cgroups = self.check_filters(&topology)?;
        let plan = Plan::new(self.shards, &topology, self.ring_bytes, rustix::param::page_size())?;
        let vmlinux = Vmlinux::read(&system::btf_path(Path::new("/sys"))?)?;
        if let Some(call) = self.calls.iter().find(|&&call| call >= MAX_CALLS) {
            return Err(Error::Invalid(format!(
                "system call {call} cannot be timed: numbers go up to {}",
                MAX_CALLS - 1
            )));
        }
        let selection = probes::select(&vmlinux, &self.events)?;
        match (self.calls.is_empty(), selection.is_on(Kind::Syscall)) {
            (false, false) => {
                let why = "system calls are timed by the event `syscall`, which is not asked for: add it to the events";
                return Err(Error::Invalid(why.into()));
            }
            (true, true) if self.events.named.contains(&Kind::Syscall) => {
                let why = "the event `syscall` is of chosen system calls: name them, by their numbers (--calls 0,1)";
                return Err(Error::Invalid(why.into()));
            }
            _ => {}
        }
        let (cgroups, paths) = cgroups.iter().map(|cgroup| (cgroup.id, cgroup.path.to_string())).unzip();
        // Not only those that are present: a CPU may be added while we record.
        let known = topology.cpus.last().map(|info| usize::from(info.cpu.0) + 1);
        let cpu_numbers = libbpf_rs::num_possible_cpus().ok().max(known).unwrap_or(1);
        let settings = Settings {
            cpu_numbers,
            logs: plan.logs(if self.one_log { &[] } else { &topology.cpus }, cpu_numbers),
            wake_at: self.wake_at.clamp(0.0, 1.0),
            preempt_count_from_rq: vmlinux.preempt_count_from_rq(),
            plan,
            cgroups,
            filter_pids: !self.pids.is_empty(),
            cpus: self.cpus.clone(),
            fail_ids_every: self.fail_ids_every,
            late_every: self.late_every,
            weak_order: self.weak_order,
            calls: self.calls.clone(),
            layers: if selection.is_on(Kind::ScxDispatch) { Layers::find() } else { None },
            online: topology.online().into_iter().collect(),
            selection,
        };
        let (programs, settings) = load(settings, &self.events, self.transport)?;
        let selection = &settings.selection;
        let shard_of = settings.plan.shard_of(settings.cpu_numbers);
        let meta = Meta {
            transport: Some(programs.transport()),
            rings: programs.ring_infos(&shard_of),
            host: Host::read(Path::new("/proc"))?,
            topology,
            probes: selection.probes.clone(),
            filters: Filters {
                pids: self.pids,
                cgroups: paths,
                cpus: self.cpus.iter().map(|cpu| cpu.0).collect(),
                events: Vec::new(),
            },
            recorder_pid: Some(std::process::id()),
            ..Meta::default()
        };
        let sampler = Sampler::new(selection, self.sample_interval, std::process::id());
        Ok(Loaded { programs, meta, shard_of, drain_interval: self.drain_interval, duration: self.duration, sampler })
    }

    /// [`load`](Self::load) and [`Loaded::start`] in one.
    ///
    /// # Errors
    /// Those of both.
    pub fn start(self) -> Result<Collector> {
        self.load()?.start()
    }

    /// Checks that what the filters name exists, and finds the cgroups.
    fn check_filters(&self, topology: &Topology) -> Result<Vec<Cgroup>> {
        for &pid in &self.pids {
            system::procfs::check_process(Path::new("/proc"), pid)?;
        }
        let online = topology.online();
        if let Some(cpu) = self.cpus.iter().find(|&&cpu| !online.contains(cpu)) {
            return Err(Error::Invalid(format!("CPU {cpu} is not online: use some of {online}")));
        }
        if self.cgroups.is_empty() {
            return Ok(Vec::new());
        }
        let cgroups = Cgroups::find(Path::new("/"))?;
        self.cgroups.iter().map(|path| cgroups.resolve(path)).collect()
    }
}

/// System calls have smaller numbers, on every architecture.
const MAX_CALLS: u32 = 512;

/// Loads the programs. A kernel may refuse some of those that have to be asked for: then the rest is loaded.
fn load(mut settings: Settings, wanted: &Wanted, transport: Option<Transport>) -> Result<(Programs, Settings)> {
    loop {
        match Programs::load(&settings, transport) {
            Ok(programs) => return Ok((programs, settings)),
            Err(error @ Error::Privilege { .. }) if !privileged() => return Err(error),
            Err(error) => match settings.selection.less(wanted, &error.to_string()) {
                Some(selection) => settings.selection = selection,
                None => return Err(error),
            },
        }
    }
}

/// Whether a refusal can be about something else than privileges: the verifier's are told by the same number.
fn privileged() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective.intersects(rustix::thread::CapabilitySet::SYS_ADMIN | rustix::thread::CapabilitySet::BPF)
    })
}

/// Loaded programs, not attached yet. Loading needs privileges and fails where they are missing.
#[derive(Debug)]
#[must_use = "loaded programs record nothing until they are started"]
pub struct Loaded {
    pub(super) programs: Programs,
    pub(super) meta: Meta,
    pub(super) shard_of: Vec<crate::event::ShardId>,
    pub(super) drain_interval: Duration,
    pub(super) duration: Option<Duration>,
    pub(super) sampler: Option<Sampler>,
}

impl Loaded {
    /// Lists the tasks and attaches the programs, which are silent still.
    ///
    /// # Errors
    /// [`Error::Bpf`] and [`Error::Privilege`] where the kernel refuses.
    pub fn attach(self) -> Result<Attached> {
        running::attach(self)
    }

    /// [`attach`](Self::attach) and [`Attached::start`] in one.
    ///
    /// # Errors
    /// Those of both.
    pub fn start(self) -> Result<Collector> {
        self.attach()?.start()
    }
}

/// Attached programs that record nothing yet. No thread was started so far, and what follows needs no privilege (on
/// Linux 5.19 and later, where whoever has a map may use it): the moment to give up what this process has.
#[derive(Debug)]
#[must_use = "attached programs record nothing until they are started"]
pub struct Attached {
    pub(super) programs: Programs,
    pub(super) meta: Meta,
    pub(super) shard_of: Vec<crate::event::ShardId>,
    pub(super) drain_interval: Duration,
    pub(super) duration: Option<Duration>,
    pub(super) sampler: Option<Sampler>,
    pub(super) decoder: Decoder,
    /// Those of before.
    pub(super) tasks: Vec<Task>,
}

impl Attached {
    /// Begins to record.
    ///
    /// # Errors
    /// [`Error::Bpf`] and [`Error::Privilege`] where the kernel refuses.
    pub fn start(self) -> Result<Collector> {
        running::start(self)
    }
}
