//! The programs in the kernel: opened, loaded, attached, and gone when this is dropped.

use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Once;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{ErrorKind, Iter, Link, MapCore, MapFlags, MapHandle, MapType, PrintLevel};
use schedtrace_bpf::{OpenSchedSkel, SchedSkel, SchedSkelBuilder};

use super::decode::{self, Counters, PerKind};
use super::probes::{SELECTABLE, Selection};
use super::ring::Ring;
use super::shards::Plan;
use crate::error::{Error, Result};
use crate::event::{CgroupId, Cpu, Kind, ShardId};
use crate::source::RingInfo;

/// The program of a selectable kind, borrowed as the tokens before `progs` say.
macro_rules! program {
    ([$($borrow:tt)+] $progs:expr, $kind:expr) => {
        match $kind {
            Kind::Switch => $($borrow)+ $progs.sched_switch,
            Kind::Waking => $($borrow)+ $progs.sched_waking,
            Kind::WakeupNew => $($borrow)+ $progs.sched_wakeup_new,
            Kind::Migrate => $($borrow)+ $progs.sched_migrate_task,
            Kind::Fork => $($borrow)+ $progs.sched_process_fork,
            Kind::Exec => $($borrow)+ $progs.sched_process_exec,
            Kind::Exit => $($borrow)+ $progs.sched_process_exit,
            Kind::Free => $($borrow)+ $progs.sched_process_free,
            // Neither a snapshot nor an identity has a tracepoint, and neither is selectable.
            Kind::Rename | Kind::Snapshot | Kind::Identity => $($borrow)+ $progs.task_rename,
        }
    };
}

/// What the programs are loaded with.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) plan: Plan,
    /// How many CPU numbers there can be: the highest plus one.
    pub(super) cpu_numbers: usize,
    pub(super) selection: Selection,
    pub(super) cgroups: Vec<CgroupId>,
    /// Only the processes that [`Programs::follow`] names.
    pub(super) filter_pids: bool,
    pub(super) cpus: Vec<Cpu>,
    /// Bytes in a ring at which its reader is woken.
    pub(super) wake_bytes: usize,
    pub(super) preempt_count_from_rq: Option<i64>,
    pub(super) fail_ids_every: u32,
}

/// The loaded programs, and their links once they are attached.
pub(super) struct Programs {
    // Fields drop in this order: programs are detached before their maps and themselves go.
    links: Vec<Link>,
    skel: SchedSkel<'static>,
    rings: Vec<MapHandle>,
    programs: Vec<Kind>,
    ring_bytes: usize,
    lifecycle_bytes: usize,
    preempt_count_from_rq: i64,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("rings", &self.rings.len()).field("links", &self.links.len()).finish()
    }
}

/// An error of libbpf, as one that says what to do.
fn refused(step: &str) -> impl FnOnce(libbpf_rs::Error) -> Error {
    let step = step.to_owned();
    move |error| match error.kind() {
        ErrorKind::PermissionDenied => Error::Privilege { why: format!("{step} was refused ({error})") },
        _ => Error::Bpf { step, why: format!("{error:#}") },
    }
}

/// libbpf prints to stderr unless it is told otherwise; a library must not.
fn quiet_libbpf() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Debug, |level, text| {
            let text = text.trim_end();
            match level {
                PrintLevel::Warn => tracing::warn!(target: "libbpf", "{text}"),
                PrintLevel::Info => tracing::info!(target: "libbpf", "{text}"),
                PrintLevel::Debug => tracing::debug!(target: "libbpf", "{text}"),
            }
        })));
    });
}

impl Programs {
    /// Loads what the settings ask for; nothing runs yet.
    pub(super) fn load(settings: &Settings) -> Result<Self> {
        quiet_libbpf();
        // The skeleton borrows this slot, which is one pointer large, for as long as it lives; giving it the whole
        // run of the process keeps `Programs` free of a self-reference.
        let slot = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = SchedSkelBuilder::default().open(slot).map_err(refused("opening the BPF object"))?;
        configure(&mut open, settings).map_err(refused("configuring the BPF object"))?;
        let mut skel = open.load().map_err(refused("loading the BPF programs"))?;
        let rings = fill_maps(&mut skel, settings).map_err(refused("setting up the BPF maps"))?;
        let mut programs = Self {
            links: Vec::new(),
            skel,
            rings,
            programs: settings.selection.programs.clone(),
            ring_bytes: settings.plan.ring_bytes,
            lifecycle_bytes: settings.plan.lifecycle_bytes,
            preempt_count_from_rq: settings.preempt_count_from_rq.unwrap_or(0),
        };
        programs.enable(false)?;
        Ok(programs)
    }

    /// Attaches every loaded program; they stay silent until enabled. The frequent ones come last, so that attaching
    /// does not record itself.
    pub(super) fn attach(&mut self) -> Result<()> {
        for &kind in self.programs.iter().rev() {
            let step = format!("attaching to the {kind} tracepoint");
            self.links.push(program!([&] self.skel.progs, kind).attach().map_err(refused(&step))?);
        }
        Ok(())
    }

    /// Lets the programs record, or silences all of them at once.
    pub(super) fn enable(&mut self, on: bool) -> Result<()> {
        let control = decode::control(on, self.preempt_count_from_rq);
        let map = &self.skel.maps.data_control;
        map.update(&0u32.to_ne_bytes(), &control, MapFlags::ANY).map_err(refused("switching the recording"))
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
        let link = self.skel.progs.list_tasks.attach().map_err(refused(STEP))?;
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
        let seen = self.skel.maps.bss_data.as_deref().map_or(INTERRUPTS, |bss| bss.preempt_count_seen);
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
            let map = &self.skel.maps.pids;
            map.update(&pid.to_ne_bytes(), &[1], MapFlags::ANY).map_err(refused("filtering by process"))?;
        }
        Ok(())
    }

    /// The rings, ready to be read: one per shard, and the one for lifecycle last.
    pub(super) fn map_rings(&self) -> Result<Vec<(ShardId, Ring, std::os::fd::OwnedFd)>> {
        let shards = (0..).map(ShardId).zip(self.rings.iter().map(|map| (map.as_fd(), self.ring_bytes)));
        let lifecycle = (ShardId::LIFECYCLE, (self.skel.maps.lifecycle.as_fd(), self.lifecycle_bytes));
        shards
            .chain([lifecycle])
            .map(|(shard, (fd, bytes))| {
                let mapped = Ring::map(fd, bytes).and_then(|ring| Ok((shard, ring, fd.try_clone_to_owned()?)));
                mapped.map_err(|error| Error::Bpf { step: "mapping a ring".into(), why: error.to_string() })
            })
            .collect()
    }

    /// What the programs counted so far.
    pub(super) fn counters(&self) -> Result<Vec<Counters>> {
        const STEP: &str = "reading the counters";
        let value = self.skel.maps.data_cpus.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(refused(STEP))?;
        Ok(decode::counters(&value.unwrap_or_default()))
    }

    /// How often each program was skipped because it would have nested in itself: `recursion_misses` of its fdinfo
    /// (`bpf_prog_show_fdinfo()` in `kernel/bpf/syscall.c`). None where the kernel does not say.
    pub(super) fn nested(&self) -> Option<PerKind> {
        let mut nested = [0; Kind::COUNT];
        for &kind in &self.programs {
            let fd = program!([&] self.skel.progs, kind).as_fd().as_raw_fd();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let misses = info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
            nested[kind as usize] = misses.trim().parse().ok()?;
        }
        Some(nested)
    }

    /// The kinds whose programs are loaded, whether their events are recorded or not.
    pub(super) fn kinds(&self) -> &[Kind] {
        &self.programs
    }

    /// The rings and the CPUs that share each.
    pub(super) fn ring_infos(&self, shard_of: &[ShardId]) -> Vec<RingInfo> {
        let cpus_of = |shard| (0..).map(Cpu).zip(shard_of).filter(move |(_, of)| **of == shard).map(|(cpu, _)| cpu);
        let shards = (0..self.rings.len()).map(|shard| ShardId(shard as u16));
        let shards =
            shards.map(|shard| RingInfo { shard, cpus: cpus_of(shard).collect(), bytes: self.ring_bytes as u64 });
        let lifecycle = RingInfo { shard: ShardId::LIFECYCLE, cpus: Vec::new(), bytes: self.lifecycle_bytes as u64 };
        shards.chain([lifecycle]).collect()
    }
}

fn configure(open: &mut OpenSchedSkel<'_>, settings: &Settings) -> libbpf_rs::Result<()> {
    let Settings { plan, selection, .. } = settings;
    open.maps.rings.set_max_entries(plan.shards.len() as u32)?;
    open.maps.lifecycle.set_max_entries(plan.lifecycle_bytes as u32)?;
    open.maps.data_cpus.set_value_size((settings.cpu_numbers * decode::CPU_STATE_BYTES) as u32)?;
    if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
        rodata.nr_cpus = settings.cpu_numbers as u32;
        rodata.wake_bytes = settings.wake_bytes as u64;
        rodata.filter_pids = settings.filter_pids;
        rodata.filter_cgroups = !settings.cgroups.is_empty();
        rodata.filter_cpus = !settings.cpus.is_empty();
        let probes = &selection.probes;
        rodata.kinds = probes.iter().filter(|probe| probe.on).fold(0, |bits, probe| bits | 1 << probe.kind as u32);
        rodata.fail_ids_every = settings.fail_ids_every;
    }
    for kind in SELECTABLE {
        program!([&mut] open.progs, kind).set_autoload(selection.programs.contains(&kind));
    }
    Ok(())
}

fn fill_maps(skel: &mut SchedSkel<'_>, settings: &Settings) -> libbpf_rs::Result<Vec<MapHandle>> {
    let mut rings = Vec::new();
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
        ..Default::default()
    };
    for shard in 0..settings.plan.shards.len() as u32 {
        let bytes = settings.plan.ring_bytes as u32;
        let ring = MapHandle::create(MapType::RingBuf, Some(format!("ring_{shard}")), 0, 0, bytes, &options)?;
        let fd = ring.as_fd().as_raw_fd();
        skel.maps.rings.update(&shard.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)?;
        rings.push(ring);
    }
    let selected = |cpu: u16| settings.cpus.is_empty() || settings.cpus.contains(&Cpu(cpu));
    let shard_of = settings.plan.shard_of(settings.cpu_numbers);
    let states = decode::cpu_states(shard_of.into_iter().zip(0..).map(|(shard, cpu)| (shard, selected(cpu))));
    skel.maps.data_cpus.update(&0u32.to_ne_bytes(), &states, MapFlags::ANY)?;
    for cgroup in &settings.cgroups {
        skel.maps.cgroups.update(&cgroup.0.to_ne_bytes(), &[1], MapFlags::ANY)?;
    }
    Ok(rings)
}
