//! The programs in the kernel: opened, loaded, attached, and gone when this is dropped.

use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use libbpf_rs::skel::{OpenSkel, Skel as _, SkelBuilder};
use libbpf_rs::{ErrorKind, Iter, Link, MapCore, MapFlags, MapHandle, MapType, PrintLevel, ProgramMut};
use schedtrace_bpf::{ArenaSkel, ArenaSkelBuilder, RingSkel, RingSkelBuilder};

use super::arena::Arena;
use super::decode::{self, Counters, CpuSetting, PerKind};
use super::layers::Layers;
use super::log::Logs;
use super::perf;
use super::probes::{Needs, Program, Selection};
use super::ring::Ring;
use super::shard::Records;
use super::shards::{LogPlan, Plan};
use crate::error::{Error, Result};
use crate::event::{CgroupId, Cpu, EventGroup, Kind, ShardId};
use crate::source::{RingInfo, Transport};

/// The skeleton of either object: they have the same programs, and the same maps but for those of the transport.
enum Skel {
    Ring(RingSkel<'static>),
    Arena(ArenaSkel<'static>),
}

/// The same expression over either skeleton.
macro_rules! either {
    ($skel:expr, $name:ident => $what:expr) => {
        match $skel {
            Skel::Ring($name) => $what,
            Skel::Arena($name) => $what,
        }
    };
}

/// Sets what both objects have, before they are loaded.
macro_rules! configure {
    ($open:ident, $settings:ident, $wake_at:expr, $log_parts:expr) => {{
        $open.maps.lifecycle.set_max_entries($settings.plan.lifecycle_bytes as u32)?;
        $open.maps.data_cpus.set_value_size(($settings.cpu_numbers * decode::CPU_STATE_BYTES) as u32)?;
        $open.maps.rodata_settings.set_initial_value(&decode::settings($settings, $wake_at, $log_parts))?;
        for mut program in $open.open_object_mut().progs_mut() {
            let name = program.name().to_owned();
            let is_wanted = |wanted: &&Program| name == wanted.name;
            program.set_autoload(name == "list_tasks" || $settings.selection.programs.iter().any(is_wanted));
        }
        // What no program touches takes no memory.
        let loads =
            |group| $settings.selection.programs.iter().any(|p| p.kinds.iter().any(|kind| kind.group() == group));
        $open.maps.names.set_autocreate($settings.selection.programs.iter().any(|program| program.tells_names()))?;
        $open.maps.requests.set_autocreate(loads(EventGroup::Block))?;
        $open.maps.calls.set_autocreate(loads(EventGroup::Syscalls))?;
        $open.maps.queued.set_autocreate(loads(EventGroup::SchedExt))?;
        match $settings.layers.as_ref() {
            Some(layers) => $open.maps.task_ctxs.reuse_fd(layers.map.as_fd())?,
            None => $open.maps.task_ctxs.set_autocreate(loads(EventGroup::SchedExt))?,
        }
    }};
}

const OPENING: &str = "opening the BPF object";
const LOADING: &str = "loading the BPF programs";
const MAPS: &str = "setting up the BPF maps";

/// What the programs are loaded with.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) plan: Plan,
    /// The same bytes as logs, for the arena; or why they are too few.
    pub(super) logs: Result<LogPlan>,
    /// How many CPU numbers there can be: the highest plus one.
    pub(super) cpu_numbers: usize,
    pub(super) selection: Selection,
    pub(super) cgroups: Vec<CgroupId>,
    /// Only the processes that [`Programs::follow`] names.
    pub(super) filter_pids: bool,
    pub(super) cpus: Vec<Cpu>,
    /// How full a ring or a log is, from 0 to 1, when its reader is woken.
    pub(super) wake_at: f64,
    pub(super) preempt_count_from_rq: Option<i64>,
    pub(super) fail_ids_every: u32,
    pub(super) late_every: u32,
    pub(super) weak_order: bool,
    /// The system calls whose durations are recorded, by their numbers.
    pub(super) calls: Vec<u32>,
    /// Where scx_layered has the layers of tasks, if it runs.
    pub(super) layers: Option<Layers>,
    /// The CPUs that are there.
    pub(super) online: Vec<Cpu>,
}

/// What records travel through.
#[derive(Debug)]
enum Ways {
    /// A ring for each shard, of so many bytes.
    Rings(Vec<MapHandle>, usize),
    /// Logs in an arena, and a bell for each shard.
    Logs { arena: Arc<Arena>, plan: LogPlan, bells: Vec<MapHandle> },
}

/// The loaded programs, and their links once they are attached.
pub(super) struct Programs {
    // Fields drop in this order: programs are detached before their maps and themselves go.
    links: Vec<Link>,
    skel: Skel,
    ways: Ways,
    programs: Vec<&'static Program>,
    online: Vec<Cpu>,
    kinds: Vec<Kind>,
    lifecycle_bytes: usize,
    preempt_count_from_rq: i64,
    no_arena: Option<String>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("ways", &self.ways).field("links", &self.links.len()).finish()
    }
}

/// An error of libbpf, as one that says what to do.
pub(super) fn refused(step: &str) -> impl FnOnce(libbpf_rs::Error) -> Error {
    let step = step.to_owned();
    move |error| match error.kind() {
        ErrorKind::PermissionDenied => Error::Privilege { why: format!("{step} was refused ({error})") },
        _ => Error::Bpf { step, why: format!("{error:#}") },
    }
}

/// While something is tried that may be refused, what libbpf says of it is no warning.
static TRYING: AtomicBool = AtomicBool::new(false);

/// libbpf prints to stderr unless it is told otherwise; a library must not.
pub(super) fn quiet_libbpf() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Debug, |level, text| {
            let text = text.trim_end();
            match level {
                PrintLevel::Warn if !TRYING.load(Ordering::Relaxed) => tracing::warn!(target: "libbpf", "{text}"),
                PrintLevel::Info => tracing::info!(target: "libbpf", "{text}"),
                PrintLevel::Warn | PrintLevel::Debug => tracing::debug!(target: "libbpf", "{text}"),
            }
        })));
    });
}

impl Programs {
    /// Loads what the settings ask for, with the transport that was asked for, or the best that the kernel takes; nothing
    /// runs yet.
    pub(super) fn load(settings: &Settings, transport: Option<Transport>) -> Result<Self> {
        quiet_libbpf();
        let refused = match transport {
            Some(Transport::Ring) => None,
            Some(Transport::Arena) => return Self::load_arena(settings),
            None => {
                TRYING.store(true, Ordering::Relaxed);
                let loaded = Self::load_arena(settings);
                TRYING.store(false, Ordering::Relaxed);
                match loaded {
                    Ok(programs) => return Ok(programs),
                    Err(error) => Some(error.to_string()),
                }
            }
        };
        Self::load_rings(settings).map(|programs| Self { no_arena: refused, ..programs })
    }

    fn load_rings(settings: &Settings) -> Result<Self> {
        let bytes = settings.plan.ring_bytes;
        let mut open = RingSkelBuilder::default().open(slot()).map_err(refused(OPENING))?;
        let load = move || {
            open.maps.rings.set_max_entries(settings.plan.shards.len() as u32)?;
            configure!(open, settings, (bytes as f64 * settings.wake_at) as u64, 0);
            open.load()
        };
        let skel = load().map_err(refused(LOADING))?;
        let rings = make_rings(&skel.maps.rings, "ring", settings.plan.shards.len(), bytes);
        let rings = rings.map_err(refused(MAPS))?;
        Self::new(Skel::Ring(skel), Ways::Rings(rings, bytes), settings, |_| 0)
    }

    fn load_arena(settings: &Settings) -> Result<Self> {
        const STEP: &str = "making a BPF arena (Linux 6.10 has what it takes)";
        let plan = settings.logs.as_ref().map_err(|error| Error::Invalid(error.to_string()))?;
        let pages = (plan.bytes / rustix::param::page_size()) as u32;
        // Ours and not libbpf's, so that it stays mapped as long as somebody reads it.
        let options = map_options(libbpf_rs::libbpf_sys::BPF_F_MMAPABLE);
        let map = MapHandle::create(MapType::Arena, Some("arena"), 0, 0, pages, &options).map_err(refused(STEP))?;
        let arena = Arena::map(map.as_fd(), plan.bytes);
        let arena = arena.map_err(|error| Error::Bpf { step: STEP.into(), why: error.to_string() })?;
        let mut open = ArenaSkelBuilder::default().open(slot()).map_err(refused(OPENING))?;
        let load = move || {
            open.maps.arena.set_max_entries(pages)?;
            open.maps.arena.reuse_fd(map.as_fd())?;
            open.maps.bells.set_max_entries(settings.plan.shards.len() as u32)?;
            configure!(open, settings, (plan.parts as f64 * settings.wake_at) as u64, plan.parts);
            open.load()
        };
        let skel = load().map_err(refused(LOADING))?;
        let bells = make_rings(&skel.maps.bells, "bell", settings.plan.shards.len(), plan.bell_bytes);
        let bells = bells.map_err(refused(MAPS))?;
        let log = |cpu: usize| plan.log_of.get(cpu).map_or(0, |&log| arena.address(log * plan.stride));
        let addresses: Vec<_> = (0..settings.cpu_numbers).map(log).collect();
        let ways = Ways::Logs { arena: Arc::new(arena), plan: plan.clone(), bells };
        Self::new(Skel::Arena(skel), ways, settings, |cpu| addresses[cpu])
    }

    /// Fills the maps that both transports have; `log` says where the log of a CPU lies.
    fn new(skel: Skel, ways: Ways, settings: &Settings, log: impl Fn(usize) -> u64) -> Result<Self> {
        let selected = |cpu: u16| settings.cpus.is_empty() || settings.cpus.contains(&Cpu(cpu));
        let shard_of = settings.plan.shard_of(settings.cpu_numbers);
        let cpu = |(shard, cpu)| CpuSetting { shard, log: log(usize::from(cpu)), selected: selected(cpu) };
        let states = decode::cpu_states(shard_of.into_iter().zip(0..).map(cpu));
        let fill = || {
            either!(&skel, skel => skel.maps.data_cpus.update(&0u32.to_ne_bytes(), &states, MapFlags::ANY))?;
            for cgroup in &settings.cgroups {
                either!(&skel, skel => skel.maps.cgroups.update(&cgroup.0.to_ne_bytes(), &[1], MapFlags::ANY))?;
            }
            Ok(())
        };
        fill().map_err(refused(MAPS))?;
        let mut programs = Self {
            links: Vec::new(),
            skel,
            ways,
            programs: settings.selection.programs.clone(),
            online: settings.online.clone(),
            kinds: settings.selection.kinds(),
            lifecycle_bytes: settings.plan.lifecycle_bytes,
            preempt_count_from_rq: settings.preempt_count_from_rq.unwrap_or(0),
            no_arena: None,
        };
        programs.enable(false)?;
        Ok(programs)
    }

    /// What the records travel through.
    pub(super) fn transport(&self) -> Transport {
        match self.ways {
            Ways::Rings(..) => Transport::Ring,
            Ways::Logs { .. } => Transport::Arena,
        }
    }

    /// Why it is not the arena, where that was tried.
    pub(super) fn no_arena(&self) -> Option<&str> {
        self.no_arena.as_deref()
    }

    /// Does something with each loaded program, in the order of [`PROGRAMS`](super::probes::PROGRAMS) turned round.
    fn each<T>(&self, mut each: impl FnMut(&'static Program, ProgramMut<'_>) -> Result<T>) -> Result<Vec<T>> {
        let object = either!(&self.skel, skel => skel.object());
        let by_name = |program: &Program| {
            let why = || format!("the object has no program {}, which is a bug in schedtrace", program.name);
            let found = object.progs_mut().find(|found| found.name() == program.name);
            found.ok_or_else(|| Error::Bpf { step: "looking for a program".into(), why: why() })
        };
        self.programs.iter().rev().map(|&program| each(program, by_name(program)?)).collect()
    }

    /// Attaches every loaded program; they stay silent until enabled. The frequent ones come last, so that attaching
    /// does not record itself. Returns those that the kernel refuses and others can do without, and why.
    pub(super) fn attach(&mut self) -> Result<Vec<(&'static Program, String)>> {
        let mut without = Vec::new();
        let links = self.each(|program, loaded| {
            let step = format!("attaching to {}", program.needs.text());
            let attached = match program.needs {
                Needs::PerfEvent => perf::attach(&loaded, &self.online, &step),
                Needs::Tracepoint(_) | Needs::Function(_) => {
                    loaded.attach().map(|link| vec![link]).map_err(refused(&step))
                }
            };
            match attached {
                Err(error) if !matches!(program.needs, Needs::Tracepoint(_)) => {
                    without.push((program, error.to_string()));
                    Ok(Vec::new())
                }
                attached => attached,
            }
        })?;
        self.links = links.into_iter().flatten().collect();
        Ok(without)
    }

    /// Lets the programs record, or silences all of them at once.
    pub(super) fn enable(&mut self, on: bool) -> Result<()> {
        const STEP: &str = "switching the recording";
        let key = 0u32.to_ne_bytes();
        let now =
            either!(&self.skel, skel => skel.maps.data_control.lookup(&key, MapFlags::ANY)).map_err(refused(STEP))?;
        let control = decode::control(&now.unwrap_or_default(), on, self.preempt_count_from_rq);
        either!(&self.skel, skel => skel.maps.data_control.update(&key, &control, MapFlags::ANY)).map_err(refused(STEP))
    }

    /// Detaches every program and waits until none of them runs any more.
    pub(super) fn detach(&mut self) {
        self.links.clear();
        // Tracepoint probes run with preemption off, and MEMBARRIER_CMD_GLOBAL waits for all such sections
        // (synchronize_rcu() in kernel/sched/membarrier.c).
        if let Err(error) = rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global) {
            tracing::debug!("membarrier: {error}; waiting instead");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// All tasks, as records; gives each an id.
    pub(super) fn list_tasks(&self) -> Result<Vec<u8>> {
        const STEP: &str = "listing the tasks";
        let link = either!(&self.skel, skel => skel.progs.list_tasks.attach()).map_err(refused(STEP))?;
        let mut bytes = Vec::new();
        Iter::new(&link)
            .map_err(refused(STEP))?
            .read_to_end(&mut bytes)
            .map_err(|error| Error::Bpf { step: STEP.into(), why: error.to_string() })?;
        Ok(bytes)
    }

    /// Whether interrupts can be told from tasks. Checked after [`list_tasks`](Self::list_tasks), which reads
    /// `preempt_count` where no interrupt can be: if it saw one, the place is not the one it should be, and is not used.
    pub(super) fn check_preempt_count(&mut self) -> Result<bool> {
        const INTERRUPTS: u32 = 0x00ff_ff00;
        if self.preempt_count_from_rq == 0 {
            return Ok(cfg!(not(target_arch = "x86_64")));
        }
        let seen = either!(&self.skel, skel => skel.maps.bss_data.as_deref().map(|bss| bss.preempt_count_seen));
        let seen = seen.unwrap_or(INTERRUPTS);
        if seen & INTERRUPTS != 0 {
            tracing::warn!(
                "preempt_count reads {seen:#x} in a task: the waker of wakeups from interrupts is not known"
            );
            self.preempt_count_from_rq = 0;
            self.enable(false)?;
        }
        Ok(self.preempt_count_from_rq != 0)
    }

    /// Adds processes to those that are recorded.
    pub(super) fn follow(&self, pids: impl IntoIterator<Item = u32>) -> Result<()> {
        for pid in pids {
            either!(&self.skel, skel => skel.maps.pids.update(&pid.to_ne_bytes(), &[1], MapFlags::ANY))
                .map_err(refused("filtering by process"))?;
        }
        Ok(())
    }

    /// What each shard reads, and where it is woken: one per shard, and the ring for lifecycle last.
    pub(super) fn records(&self) -> Result<Vec<(ShardId, Records, OwnedFd)>> {
        let shard = |at: usize| {
            let (records, fd): (Records, _) = match &self.ways {
                Ways::Rings(rings, bytes) => (Ring::map(rings[at].as_fd(), *bytes)?.into(), rings[at].as_fd()),
                Ways::Logs { arena, plan, bells } => {
                    let bell = Ring::map(bells[at].as_fd(), plan.bell_bytes)?;
                    let offsets = plan.logs[at].iter().map(|log| log * plan.stride);
                    (Logs::new(Arc::clone(arena), offsets, plan.parts, bell).into(), bells[at].as_fd())
                }
            };
            Ok((ShardId(at as u16), records, fd.try_clone_to_owned()?))
        };
        let lifecycle = || {
            let fd = either!(&self.skel, skel => skel.maps.lifecycle.as_fd());
            Ok((ShardId::LIFECYCLE, Ring::map(fd, self.lifecycle_bytes)?.into(), fd.try_clone_to_owned()?))
        };
        let all: std::io::Result<_> = (0..self.shards()).map(shard).chain(std::iter::once_with(lifecycle)).collect();
        all.map_err(|error| Error::Bpf { step: "mapping a ring".into(), why: error.to_string() })
    }

    /// How many shards there are, without that for lifecycle.
    fn shards(&self) -> usize {
        match &self.ways {
            Ways::Rings(rings, _) | Ways::Logs { bells: rings, .. } => rings.len(),
        }
    }

    /// What the programs counted so far.
    pub(super) fn counters(&self) -> Result<Vec<Counters>> {
        const STEP: &str = "reading the counters";
        let value = either!(&self.skel, skel => skel.maps.data_cpus.lookup(&0u32.to_ne_bytes(), MapFlags::ANY));
        let value = value.map_err(refused(STEP))?;
        Ok(decode::counters(&value.unwrap_or_default()))
    }

    /// How often each program was skipped because it would have nested in itself: `recursion_misses` of its fdinfo
    /// (`bpf_prog_show_fdinfo()` in `kernel/bpf/syscall.c`). None where the kernel does not say.
    pub(super) fn nested(&self) -> Option<PerKind> {
        let mut nested = [0; Kind::COUNT];
        let misses = self.each(|program, loaded| {
            let misses = recursion_misses(loaded.as_fd().as_raw_fd());
            Ok(program.kinds.first().copied().zip(misses))
        });
        for (kind, misses) in misses.ok()?.into_iter().collect::<Option<Vec<_>>>()? {
            nested[kind as usize] += misses;
        }
        Some(nested)
    }

    /// The kinds whose programs are loaded, as far as they are recorded or keep identities true.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.kinds.clone()
    }

    /// The rings and the CPUs that share each.
    pub(super) fn ring_infos(&self, shard_of: &[ShardId]) -> Vec<RingInfo> {
        let cpus_of = |shard| (0..).map(Cpu).zip(shard_of).filter(move |(_, of)| **of == shard).map(|(cpu, _)| cpu);
        let bytes: Vec<_> = match &self.ways {
            Ways::Rings(rings, bytes) => vec![*bytes; rings.len()],
            Ways::Logs { plan, .. } => plan.logs.iter().map(|logs| logs.len() * plan.stride).collect(),
        };
        let shards = (0..).map(ShardId).zip(bytes);
        let shards =
            shards.map(|(shard, bytes)| RingInfo { shard, cpus: cpus_of(shard).collect(), bytes: bytes as u64 });
        let lifecycle = RingInfo { shard: ShardId::LIFECYCLE, cpus: Vec::new(), bytes: self.lifecycle_bytes as u64 };
        shards.chain([lifecycle]).collect()
    }
}

/// How often the kernel skipped a program.
fn recursion_misses(fd: i32) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// Gives whatever is behind it the whole run of the process to live: a skeleton borrows this slot, which is one pointer
/// large, and `Programs` stays free of a self-reference.
fn slot() -> &'static mut MaybeUninit<libbpf_rs::OpenObject> {
    Box::leak(Box::new(MaybeUninit::uninit()))
}

fn map_options(flags: u32) -> libbpf_rs::libbpf_sys::bpf_map_create_opts {
    libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
        map_flags: flags,
        ..Default::default()
    }
}

/// So many rings, each in its place in `map`.
fn make_rings(map: &impl MapCore, name: &str, count: usize, bytes: usize) -> libbpf_rs::Result<Vec<MapHandle>> {
    (0..count as u32)
        .map(|at| {
            let name = format!("{name}_{at}");
            let ring = MapHandle::create(MapType::RingBuf, Some(name), 0, 0, bytes as u32, &map_options(0))?;
            map.update(&at.to_ne_bytes(), &ring.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)?;
            Ok(ring)
        })
        .collect()
}
