//! What the running machine says of itself, beside events: read on a thread of its own, once a second, while somebody looks at
//! a view that shows it.

mod reading;

use std::collections::BTreeMap;
use std::io::{PipeWriter, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use schedtrace_core::analysis::Subject;
#[cfg(feature = "live")]
use schedtrace_core::live::{Capabilities, inspect};
use schedtrace_core::system::Hardware;
use schedtrace_core::system::kernel::KernelInfo;
use schedtrace_core::system::processes::TaskUse;
use schedtrace_core::system::sched_ext::Scheduler;
use schedtrace_core::system::stacks::{KernelStack, StackHelper};
use schedtrace_core::system::stats::{
    CpuRates, DiskRates, InterruptRates, MemoryRates, NetworkRates, RunQueueRates, SystemCpu, SystemDisk,
    SystemInterrupts, SystemMemory, SystemNetwork,
};
use schedtrace_core::{Error, Result};
use serde_json::Value as Json;

use self::reading::Before;

/// How often it is read.
const INTERVAL: Duration = Duration::from_secs(1);
/// The second reading comes sooner: there are no rates before it.
const FIRST_INTERVAL: Duration = Duration::from_millis(250);
/// Reading a part takes at most one part in so many of the time of a CPU: the tasks of a machine with 10,000 threads are read
/// less often than its memory.
const REST: u32 = 20;
/// So many threads are shown, the busiest.
const TASKS: usize = 5_000;
/// So long a scheduler may take to tell its figures.
const SCX_PATIENCE: Duration = Duration::from_millis(200);

/// Something that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Cpu,
    Memory,
    Network,
    Disks,
    Interrupts,
    Tasks,
    /// Of tasks their states alone, where events tell what they do: into `tasks` as well.
    States,
    /// Frequencies and idle states, as they are now.
    Hardware,
    Scheduler,
    Kernel,
    Programs,
    /// What can be recorded here. It is found out by trying, so that nobody asks while something is recorded.
    Recording,
    /// Where the task that is looked at is in the kernel.
    Stacks,
}

/// What is read, and of whom, where it is of somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) parts: &'static [Part],
    pub(crate) of: Option<Subject>,
}

impl Asked {
    /// What was read for this, and is not for the other: of somebody else it is another answer.
    fn left_for(self, other: Self) -> impl Iterator<Item = &'static Part> {
        let stays = move |part: &Part| other.parts.contains(part) && (*part != Part::Stacks || other.of == self.of);
        self.parts.iter().filter(move |part| !stays(part))
    }
}

impl From<&'static [Part]> for Asked {
    fn from(parts: &'static [Part]) -> Self {
        Self { parts, of: None }
    }
}

impl<const N: usize> From<&'static [Part; N]> for Asked {
    fn from(parts: &'static [Part; N]) -> Self {
        Self { parts, of: None }
    }
}

/// A reading, or why there is none; nothing while it is not known yet.
pub(crate) type Told<T> = Option<std::result::Result<T, String>>;

/// Counters since boot, and how fast they grew since the reading before, if there was one.
#[derive(Clone, Debug)]
pub(crate) struct Reading<N, R> {
    pub(crate) now: N,
    pub(crate) rates: Option<R>,
}

/// The machine, as far as somebody looks at it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) cpu: Told<Reading<SystemCpu, CpuRates>>,
    pub(crate) queues: Told<Vec<RunQueueRates>>,
    pub(crate) memory: Told<Reading<SystemMemory, MemoryRates>>,
    pub(crate) network: Told<Reading<SystemNetwork, NetworkRates>>,
    pub(crate) disks: Told<Reading<SystemDisk, DiskRates>>,
    pub(crate) interrupts: Told<Reading<SystemInterrupts, InterruptRates>>,
    pub(crate) tasks: Told<Arc<Tasks>>,
    pub(crate) hardware: Told<Hardware>,
    pub(crate) scheduler: Told<SchedulerNow>,
    pub(crate) kernel: Told<KernelInfo>,
    #[cfg(feature = "live")]
    pub(crate) programs: Told<Programs>,
    #[cfg(feature = "live")]
    pub(crate) recording: Told<Capabilities>,
    pub(crate) stacks: Told<Stacks>,
    /// What is read: a view that was left may have wanted something else.
    pub(crate) asked: Asked,
    /// What was read often enough to have rates.
    pub(crate) settled: Vec<Part>,
}

impl Machine {
    /// Whether all that is read was read often enough to have rates.
    pub(crate) fn is_settled(&self) -> bool {
        !self.asked.parts.is_empty() && self.asked.parts.iter().all(|part| self.settled.contains(part))
    }

    /// From now on these are read: the others are not known any more.
    pub(crate) fn keep(&mut self, asked: Asked) {
        for part in self.asked.left_for(asked) {
            self.settled.retain(|settled| settled != part);
            match part {
                Part::Cpu => (self.cpu, self.queues) = (None, None),
                Part::Memory => self.memory = None,
                Part::Network => self.network = None,
                Part::Disks => self.disks = None,
                Part::Interrupts => self.interrupts = None,
                Part::Tasks | Part::States => self.tasks = None,
                Part::Hardware => self.hardware = None,
                Part::Scheduler => self.scheduler = None,
                Part::Kernel => self.kernel = None,
                #[cfg(feature = "live")]
                Part::Programs => self.programs = None,
                #[cfg(feature = "live")]
                Part::Recording => self.recording = None,
                #[cfg(not(feature = "live"))]
                Part::Programs | Part::Recording => {}
                Part::Stacks => self.stacks = None,
            }
        }
        self.asked = asked;
    }
}

/// Where threads are in the kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stacks {
    pub(crate) threads: Vec<KernelStack>,
    /// Of which these may be the first.
    pub(crate) threads_total: usize,
}

/// Those that use the CPUs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) processes: Vec<TaskUse>,
    pub(crate) threads: Vec<TaskUse>,
    pub(crate) processes_total: usize,
    pub(crate) threads_total: usize,
    /// Threads that are all of their process.
    pub(crate) alone_total: usize,
}

/// Who schedules, and what is told of it.
#[derive(Clone, Debug)]
pub(crate) struct SchedulerNow {
    pub(crate) scheduler: Scheduler,
    /// How fast the kernel's counters grew.
    pub(crate) events_per_second: BTreeMap<String, f64>,
    /// What it tells of itself, by the path of each figure; or why it does not.
    pub(crate) told: std::result::Result<Vec<(String, Json)>, String>,
}

/// The BPF programs, with what they cost since the reading before.
#[cfg(feature = "live")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs {
    pub(crate) run_times_known: bool,
    pub(crate) programs: Vec<(inspect::Program, Option<Cost>)>,
}

/// What a program cost between two readings.
#[cfg(feature = "live")]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    pub(crate) runs_per_second: f64,
    /// Of one CPU.
    pub(crate) cpu_ratio: f64,
    /// Of a run, on average.
    pub(crate) mean_ns: Option<f64>,
}

/// Reads what is wanted, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Sampler {
    wanted: Arc<Mutex<Asked>>,
    knock: SyncSender<()>,
    told: Receiver<Box<Machine>>,
}

impl Sampler {
    /// Reads the machine below `root` (`/`); `ring` is written to when there is a reading. Where tasks are in the kernel a
    /// helper is asked, if there is one.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(root: PathBuf, helper: Option<StackHelper>, ring: PipeWriter) -> Result<Self> {
        let (knock, knocked) = sync_channel(1);
        let (tell, told) = sync_channel(1);
        let wanted = Arc::<Mutex<Asked>>::default();
        let worker = Worker { before: Before::new(root).helped(helper), wanted: Arc::clone(&wanted), tell, ring };
        let thread = std::thread::Builder::new().name("st-machine".into());
        thread
            .spawn(move || worker.run(&knocked))
            .map_err(|error| Error::Invalid(format!("cannot start a thread: {error}")))?;
        Ok(Self { wanted, knock, told })
    }

    /// Says what is to be read from now on; nothing lets it sleep. Whether that is something else than before.
    pub(crate) fn want(&self, asked: impl Into<Asked>) -> bool {
        let (mut wanted, asked) = (self.wanted.lock().unwrap_or_else(PoisonError::into_inner), asked.into());
        if *wanted == asked {
            return false;
        }
        *wanted = asked;
        let (Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(()))) = self.knock.try_send(());
        true
    }

    /// The next reading, if there is one: the bell was rung once for it.
    pub(crate) fn told(&self) -> Option<Machine> {
        self.told.try_recv().ok().map(|machine| *machine)
    }

    /// The next reading, which is waited for.
    pub(crate) fn wait(&self, patience: Duration) -> Option<Machine> {
        self.told.recv_timeout(patience).ok().map(|machine| *machine)
    }
}

struct Worker {
    before: Before,
    wanted: Arc<Mutex<Asked>>,
    tell: SyncSender<Box<Machine>>,
    ring: PipeWriter,
}

impl Worker {
    fn run(mut self, knocked: &Receiver<()>) {
        loop {
            let asked = *self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.parts.is_empty() {
                // What was read before is of a time that nobody looks at any more.
                self.before.keep(asked);
                match knocked.recv() {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
            let (machine, next) = self.before.read(asked, Instant::now());
            if self.tell.send(Box::new(machine)).is_err() || self.ring.write_all(&[0]).is_err() {
                return;
            }
            let pause = next.saturating_duration_since(Instant::now());
            if knocked.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_while_somebody_looks() {
        let (bell, ring) = std::io::pipe().unwrap();
        let sampler = Sampler::start("/".into(), None, ring).unwrap();
        assert!(!sampler.want(&[]), "nobody looks at first");
        assert!(sampler.want(&[Part::Memory]));
        let patience = Duration::from_secs(60);
        let first = sampler.wait(patience).unwrap();
        assert!(first.memory.is_some() && first.network.is_none());
        assert!(!sampler.want(&[Part::Memory]));
        sampler.want(&[Part::Network]);
        let settled = std::iter::from_fn(|| sampler.wait(patience));
        assert!(settled.take(10).any(|machine| machine.network.is_some() && machine.is_settled()));
        drop((sampler, bell));
    }
}
