//! Reads the machine, part by part: each as often as it may.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use schedtrace_core::analysis::Subject;
#[cfg(feature = "live")]
use schedtrace_core::live::{Capabilities, Collector, inspect};
use schedtrace_core::system::Hardware;
use schedtrace_core::system::kernel::KernelInfo;
use schedtrace_core::system::processes::{Cgroups, Level, Order, Processes};
use schedtrace_core::system::sched_ext::{Scheduler, SchedulerClass, ScxStats};
use schedtrace_core::system::stacks::{KernelStack, StackHelper};
use schedtrace_core::system::stats::{RunQueues, SystemCpu, SystemDisk, SystemInterrupts, SystemMemory, SystemNetwork};
use schedtrace_core::{Error, Result};
use serde_json::Value as Json;

use super::{
    Asked, FIRST_INTERVAL, INTERVAL, Machine, Part, REST, Reading, SCX_PATIENCE, SchedulerNow, Stacks, TASKS, Tasks,
    Told,
};
#[cfg(feature = "live")]
use super::{Cost, Programs};

/// What is due so soon is read with what is due now.
const SOON: Duration = Duration::from_millis(50);
/// Of so many threads of a process it is told where they are.
const STACKS: usize = 64;

/// The readings before, and when the next ones are due.
pub(super) struct Before {
    root: PathBuf,
    now: Machine,
    due: HashMap<Part, Instant>,
    queues: Option<RunQueues>,
    tasks: Option<Processes>,
    cgroups: Cgroups,
    scheduler: Option<(Instant, Scheduler)>,
    helper: Option<StackHelper>,
    #[cfg(feature = "live")]
    watch: inspect::ProgramWatch,
    #[cfg(feature = "live")]
    programs: Option<(Instant, BTreeMap<u32, inspect::Runs>)>,
    /// Found out once: it takes a while, and does not change.
    #[cfg(feature = "live")]
    recording: Option<Capabilities>,
}

impl Before {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            now: Machine::default(),
            due: HashMap::new(),
            queues: None,
            tasks: None,
            cgroups: Cgroups::new(root.clone()),
            scheduler: None,
            helper: None,
            #[cfg(feature = "live")]
            watch: inspect::ProgramWatch::default(),
            #[cfg(feature = "live")]
            programs: None,
            #[cfg(feature = "live")]
            recording: None,
            root,
        }
    }

    /// With somebody who may see where tasks are in the kernel.
    pub(super) fn helped(self, helper: Option<StackHelper>) -> Self {
        Self { helper, ..self }
    }

    /// Reads from now on only these: what was read of others is of a time that nobody looks at any more.
    pub(super) fn keep(&mut self, asked: Asked) {
        for part in self.now.asked.left_for(asked) {
            self.due.remove(part);
            match part {
                Part::Cpu => self.queues = None,
                Part::Tasks => (self.tasks, self.cgroups) = (None, Cgroups::new(self.root.clone())),
                Part::Scheduler => self.scheduler = None,
                #[cfg(feature = "live")]
                Part::Programs => self.programs = None,
                _ => {}
            }
        }
        self.now.keep(asked);
    }

    /// Reads what is due of these parts; all that is known of them, and when the next is due.
    pub(super) fn read(&mut self, asked: impl Into<Asked>, at: Instant) -> (Machine, Instant) {
        let asked = asked.into();
        self.keep(asked);
        for &part in asked.parts {
            let due = self.due.get(&part).copied();
            if due.is_some_and(|due| due > at + SOON) {
                continue;
            }
            let used = cpu_time();
            self.read_part(part);
            let used = cpu_time().saturating_sub(used);
            let pause = if due.is_none() { FIRST_INTERVAL } else { INTERVAL };
            // Not before it is over: a part that takes longer than its interval would leave no time to any other.
            self.due.insert(part, at.max(Instant::now()) + (used * REST).max(pause));
            // One look is enough where there are no rates.
            if (due.is_some() || part == Part::Stacks) && !self.now.settled.contains(&part) {
                self.now.settled.push(part);
            }
        }
        let next = asked.parts.iter().filter_map(|part| self.due.get(part)).min();
        (self.now.clone(), next.copied().unwrap_or(at + INTERVAL))
    }

    fn read_part(&mut self, part: Part) {
        let (root, now) = (&self.root, &mut self.now);
        match part {
            Part::Cpu => {
                since(&mut now.cpu, SystemCpu::read(root), SystemCpu::since);
                self.now.queues = Some(self.queues());
            }
            Part::Memory => since(&mut now.memory, SystemMemory::read(root), SystemMemory::since),
            Part::Network => since(&mut now.network, SystemNetwork::read(root), SystemNetwork::since),
            Part::Disks => since(&mut now.disks, SystemDisk::read(root), SystemDisk::since),
            Part::Interrupts => since(&mut now.interrupts, SystemInterrupts::read(root), SystemInterrupts::since),
            Part::Tasks => self.now.tasks = Some(self.tasks().map(Arc::new)),
            Part::States => self.now.tasks = Some(self.states().map(Arc::new)),
            Part::Hardware => now.hardware = Some(Hardware::read(&root.join("sys")).map_err(why)),
            Part::Scheduler => self.now.scheduler = Some(self.scheduler()),
            Part::Kernel => now.kernel = Some(KernelInfo::read(root).map_err(why)),
            #[cfg(feature = "live")]
            Part::Programs => self.now.programs = Some(self.programs()),
            #[cfg(feature = "live")]
            Part::Recording => {
                let known = self.recording.get_or_insert_with(Collector::capabilities);
                now.recording = Some(Ok(known.clone()));
            }
            #[cfg(not(feature = "live"))]
            Part::Programs | Part::Recording => {}
            Part::Stacks => now.stacks = now.asked.of.and_then(|of| stacks(root, self.helper.as_mut(), of)),
        }
    }

    fn queues(&mut self) -> std::result::Result<Vec<schedtrace_core::system::stats::RunQueueRates>, String> {
        let now = RunQueues::read(&self.root).map_err(why)?;
        let now = now.ok_or("this kernel does not count them (CONFIG_SCHEDSTATS is off)")?;
        let rates = self.queues.as_ref().map(|before| now.since(before)).unwrap_or_default();
        self.queues = Some(now);
        Ok(rates)
    }

    fn tasks(&mut self) -> std::result::Result<Tasks, String> {
        let now = match &self.tasks {
            Some(before) => Processes::read_after(&self.root, before),
            None => Processes::read(&self.root),
        };
        let now = now.map_err(why)?;
        let mut tasks = told(&now, TASKS);
        self.cgroups.next();
        self.cgroups.fill(&mut tasks.processes);
        self.cgroups.fill(&mut tasks.threads);
        self.tasks = Some(now);
        Ok(tasks)
    }

    /// Of all of them: which ones are looked for is not known.
    fn states(&self) -> std::result::Result<Tasks, String> {
        Ok(told(&Processes::read_states(&self.root).map_err(why)?, usize::MAX))
    }

    fn scheduler(&mut self) -> std::result::Result<SchedulerNow, String> {
        let (now, at) = (Scheduler::read(&self.root).map_err(why)?, Instant::now());
        let events_per_second = match &self.scheduler {
            // The counters begin anew with each scheduler.
            Some((then, before)) if before.enable_seq == now.enable_seq => {
                per_second(&before.events, &now.events, at.duration_since(*then))
            }
            _ => BTreeMap::new(),
        };
        self.scheduler = Some((at, now.clone()));
        let told = match now.class {
            SchedulerClass::SchedExt => {
                let figures = ScxStats::at(&self.root).timeout(SCX_PATIENCE).stats("top").map_err(why);
                figures.map(|figures| leaves(&figures))
            }
            SchedulerClass::Other => Ok(Vec::new()),
        };
        Ok(SchedulerNow { scheduler: now, events_per_second, told })
    }

    #[cfg(feature = "live")]
    fn programs(&mut self) -> std::result::Result<Programs, String> {
        // What is counted is read first.
        let (at, mut found) = (Instant::now(), self.watch.read().map_err(why)?);
        found.sort_busiest_first();
        let runs = found.programs.iter().map(|program| (program.id, program.runs)).collect();
        let before = self.programs.replace((at, runs));
        let cost = |program: &inspect::Program| {
            let (then, before) = before.as_ref()?;
            cost(before.get(&program.id)?, &program.runs, at.duration_since(*then))
        };
        let programs = found.programs.into_iter().map(|program| {
            let cost = cost(&program);
            (program, cost)
        });
        Ok(Programs { run_times_known: found.run_times_known, programs: programs.collect() })
    }
}

/// Nothing where nobody is meant.
fn stacks(root: &Path, helper: Option<&mut StackHelper>, of: Subject) -> Told<Stacks> {
    let read = match (of, helper) {
        (Subject::Thread(tid), Some(helper)) => helper.read(tid).map(|stack| (vec![stack], 1)),
        (Subject::Thread(tid), None) => KernelStack::read(root, tid).map(|stack| (vec![stack], 1)),
        (Subject::Process(pid), Some(helper)) => helper.read_process(pid, STACKS),
        (Subject::Process(pid), None) => KernelStack::read_process(root, pid, STACKS),
        (Subject::Last, _) => return None,
    };
    // Without the folder of the task, there is no task.
    let is_gone = match of {
        Subject::Thread(id) | Subject::Process(id) => !root.join(format!("proc/{id}")).exists(),
        Subject::Last => false,
    };
    Some(read.map(|(threads, threads_total)| Stacks { threads, threads_total }).map_err(|error| match is_gone {
        true => "it has ended: only of a task that is alive the kernel tells where it is".to_owned(),
        false => why(error),
    }))
}

fn why(error: Error) -> String {
    error.to_string()
}

/// The busiest.
fn told(now: &Processes, most: usize) -> Tasks {
    let mut processes = now.first(Level::Process, Order::CpuTime, usize::MAX);
    let alone_total = processes.iter().filter(|process| process.threads == 1).count();
    processes.truncate(most);
    Tasks {
        processes,
        threads: now.first(Level::Thread, Order::CpuTime, most),
        processes_total: now.processes(),
        threads_total: now.threads() + now.omitted_threads,
        alone_total,
    }
}

/// What this thread used of a CPU: what it waits for costs nobody anything.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A reading with its rates; a failure ends the row of readings.
fn since<N, R>(told: &mut Told<Reading<N, R>>, read: Result<N>, rates: impl Fn(&N, &N) -> R) {
    *told = Some(match (read, told.take()) {
        (Ok(now), Some(Ok(before))) => Ok(Reading { rates: Some(rates(&now, &before.now)), now }),
        (Ok(now), _) => Ok(Reading { now, rates: None }),
        (Err(error), _) => Err(why(error)),
    });
}

fn per_second(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, window: Duration) -> BTreeMap<String, f64> {
    let seconds = window.as_secs_f64();
    if seconds <= 0.0 {
        return BTreeMap::new();
    }
    let rate = |(name, count): (&String, &u64)| {
        let grew = count.saturating_sub(*before.get(name)?);
        Some((name.clone(), grew as f64 / seconds))
    };
    now.iter().filter_map(rate).collect()
}

/// None where runs are not counted.
#[cfg(feature = "live")]
fn cost(before: &inspect::Runs, now: &inspect::Runs, window: Duration) -> Option<Cost> {
    let seconds = window.as_secs_f64();
    if seconds <= 0.0 || !now.run_time_known {
        return None;
    }
    let (runs, time_ns) = (
        now.run_count.saturating_sub(before.run_count) as f64,
        now.run_time_ns.0.saturating_sub(before.run_time_ns.0) as f64,
    );
    let mean_ns = (runs > 0.0).then(|| time_ns / runs);
    Some(Cost { runs_per_second: runs / seconds, cpu_ratio: time_ns / 1e9 / seconds, mean_ns })
}

/// So many figures of a scheduler are shown.
const LEAVES: usize = 2_000;

/// The figures of a JSON document, each by its path: `cpus.0.util`.
fn leaves(all: &Json) -> Vec<(String, Json)> {
    let (mut found, mut open) = (Vec::new(), vec![(String::new(), all)]);
    while let Some((path, value)) = open.pop() {
        if found.len() == LEAVES {
            found.push(("...".to_owned(), Json::String(format!("only {LEAVES} figures are shown"))));
            break;
        }
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        // What is opened last is looked at first: so the order stays.
        match value {
            Json::Object(fields) => open.extend(fields.iter().rev().map(|(name, value)| (join(name), value))),
            Json::Array(items) => {
                let items = items.iter().enumerate().rev();
                open.extend(items.map(|(at, value)| (join(&at.to_string()), value)));
            }
            leaf => found.push((path, leaf.clone())),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// All is due again.
    const LATER: Duration = Duration::from_secs(3_600);
    const ALL: &[Part] = &[
        Part::Cpu,
        Part::Memory,
        Part::Network,
        Part::Disks,
        Part::Interrupts,
        Part::Tasks,
        Part::Hardware,
        Part::Scheduler,
        Part::Kernel,
    ];

    #[test]
    fn this_machine_is_read_and_the_second_reading_has_rates() {
        let (mut before, at) = (Before::new("/".into()), Instant::now());
        let (first, due) = before.read(ALL, at);
        assert!(!first.is_settled() && due > at);
        assert!(first.memory.unwrap().unwrap().rates.is_none());
        let at = at + LATER;
        let (second, _) = before.read(ALL, at);
        assert!(second.is_settled());
        assert!(second.cpu.unwrap().unwrap().rates.is_some());
        assert!(second.network.unwrap().unwrap().rates.is_some());
        let tasks = second.tasks.unwrap().unwrap();
        let me = tasks.processes.iter().find(|task| task.pid == std::process::id()).unwrap();
        assert!(me.rates.is_some() && tasks.threads_total >= tasks.threads.len());
        assert!(second.kernel.unwrap().is_ok() && second.scheduler.unwrap().is_ok());
        assert!(before.read(&[Part::Cpu], at).0.memory.is_none(), "nobody looks at it");
        let (machine, _) = before.read(ALL, at);
        assert!(!machine.is_settled(), "nothing is compared with what is long past");
        assert!(machine.memory.unwrap().unwrap().rates.is_none());
    }

    #[test]
    fn what_two_views_want_is_kept_and_not_read_before_it_is_due() {
        const GLANCE: &[Part] = &[Part::Cpu, Part::Tasks, Part::Memory];
        let (mut before, at) = (Before::new("/".into()), Instant::now());
        before.read(GLANCE, at);
        let (settled, due) = before.read(GLANCE, at + LATER);
        let (kept, next) = before.read(&[Part::Tasks], at + LATER);
        assert!(kept.is_settled(), "it has rates at once");
        let tasks = |machine: &Machine| machine.tasks.clone().unwrap().unwrap();
        assert!(Arc::ptr_eq(&tasks(&settled), &tasks(&kept)), "it was read just now");
        assert!(kept.cpu.is_none() && next >= due);
        let (read, _) = before.read(&[Part::Tasks], next);
        assert!(!Arc::ptr_eq(&tasks(&read), &tasks(&kept)));
        let (both, _) = before.read(&[Part::Tasks, Part::Memory], next);
        assert!(!both.is_settled() && Arc::ptr_eq(&tasks(&read), &tasks(&both)));
    }

    #[test]
    fn states_alone_are_of_all_threads() {
        let (machine, _) = Before::new("/".into()).read(&[Part::States], Instant::now());
        let tasks = machine.tasks.unwrap().unwrap();
        assert!(tasks.threads.iter().any(|task| task.state == 'R' && task.counts.wait_ns.is_none()));
        assert!(tasks.processes_total >= tasks.processes.len() && tasks.alone_total <= tasks.processes.len());
    }

    #[test]
    fn where_a_task_is_is_told_of_whom_is_looked_at() {
        let (mut before, at) = (Before::new("/".into()), Instant::now());
        let of = |of| Asked { parts: &[Part::Stacks], of };
        let (nobody, _) = before.read(of(None), at);
        assert!(nobody.stacks.is_none());
        let me = std::process::id();
        let (machine, _) = before.read(of(Some(Subject::Process(me))), at);
        assert!(machine.is_settled() && machine.stacks.is_some(), "another one is read at once");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let (machine, _) = before.read(of(Some(Subject::Thread(child.id()))), at);
        assert!(machine.stacks.unwrap().unwrap_err().contains("it has ended"));
        let (machine, _) = before.read(&[Part::Memory], at);
        assert!(machine.stacks.is_none(), "nobody looks at it");
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let root = tempfile::tempdir().unwrap();
        let mut before = Before::new(root.path().to_owned());
        for _ in 0..2 {
            let (machine, _) = before.read(ALL, Instant::now());
            let whys = [machine.memory.map(|told| told.err()), machine.kernel.map(|told| told.err())];
            assert!(whys.iter().all(|why| why.as_ref().unwrap().as_ref().unwrap().contains("cannot read")), "{whys:?}");
        }
    }

    #[test]
    fn counters_that_went_back_do_not_go_up() {
        let of = |counts: [(&str, u64); 2]| counts.map(|(name, count)| (name.to_owned(), count)).into();
        let (before, now) = (of([("a", 5), ("b", 9)]), of([("a", 25), ("b", 1)]));
        let rates = per_second(&before, &now, Duration::from_secs(2));
        assert_eq!((rates["a"], rates["b"]), (10.0, 0.0));
        assert!(per_second(&before, &now, Duration::ZERO).is_empty());
    }

    #[test]
    fn figures_have_paths_in_their_order() {
        let told = json!({ "util": 0.5, "cpus": [{ "busy": 1 }, { "busy": 2 }], "none": {} });
        let paths: Vec<_> = leaves(&told).into_iter().map(|(path, value)| format!("{path}={value}")).collect();
        let mut sorted = paths.clone();
        sorted.sort();
        assert_eq!(sorted, ["cpus.0.busy=1", "cpus.1.busy=2", "util=0.5"]);
        let busy: Vec<_> = paths.iter().filter(|path| path.starts_with("cpus")).collect();
        assert_eq!(busy, ["cpus.0.busy=1", "cpus.1.busy=2"]);
        assert_eq!(leaves(&json!((0..9_000).collect::<Vec<u32>>())).len(), LEAVES + 1, "and that there are more");
        assert_eq!(leaves(&json!((0..LEAVES).collect::<Vec<_>>())).len(), LEAVES);
    }

    #[cfg(feature = "live")]
    #[test]
    fn what_a_program_costs_is_known_where_runs_are_counted() {
        let runs = |run_count, time, run_time_known| inspect::Runs {
            run_count,
            run_time_ns: schedtrace_core::Nanos(time),
            run_time_known,
            recursion_misses: 0,
        };
        let window = Duration::from_secs(2);
        let found = cost(&runs(10, 1_000, true), &runs(30, 21_000, true), window);
        assert_eq!(found, Some(Cost { runs_per_second: 10.0, cpu_ratio: 1e-5, mean_ns: Some(1_000.0) }));
        assert_eq!(cost(&runs(10, 0, false), &runs(30, 0, false), window), None);
        assert_eq!(cost(&runs(9, 9, true), &runs(9, 9, true), window).unwrap().mean_ns, None);
    }
}
