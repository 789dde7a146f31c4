//! Machines that are not there: a [`Source`] with the shape of a large host, for tests and benches of whatever takes a
//! stream. Its events go through the real [`Merge`], shard by shard, as a collector's do.
//!
//! The machine is simulated, so that the answers are known ([`Truth`]): tasks wake each other, wait, run, are preempted,
//! move between CPUs, and go to sleep. What makes large hosts hard can be added: some CPUs that are far busier than
//! others, bursts in which one task wakes hundreds, shards that deliver late, events that come behind the watermark or
//! never, CPUs that go off line and come back, and CPU numbers with gaps.
//!
//! ```
//! use schedtrace_core::analysis::{self, Options, Sched};
//! use schedtrace_core::synthetic::SyntheticHost;
//!
//! let mut source = SyntheticHost::new().cpus(64).llcs(8).nodes(2).tasks(500).events(20_000).start();
//! let report = analysis::run(&mut source, Sched::new(Options::default()))?;
//! assert_eq!(report.run_queue.total.wait.count, source.truth().waits);
//! # Ok::<(), schedtrace_core::Error>(())
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::event::{
    Batch, Cgroup, CgroupId, Comm, Context, Cpu, Event, EventKind, Kind, Loss, LossPlace, Migrate, Nanos, ShardId,
    Switch, Task, TaskId, TaskState, Waking,
};
use crate::merge::Merge;
use crate::source::{Meta, Poll, Probe, RingInfo, Source};
use crate::system::{ClockSnapshot, CpuInfo, Host, Topology};

/// When the recording begins.
const STARTED: u64 = 1_000_000;
/// How much time a round of deliveries covers.
const ROUND: u64 = 2_000_000;
/// CPUs that share a ring, at the most.
const CPUS_PER_SHARD: usize = 8;
const PRIO: u8 = 120;

/// The shape of a machine, and what goes wrong on it.
///
/// ```
/// use schedtrace_core::synthetic::SyntheticHost;
/// use schedtrace_core::Source;
///
/// let host = SyntheticHost::new().cpus(512).llcs(64).nodes(8).tasks(10_000).stride(7).hotplug(true).start();
/// assert_eq!(host.meta().topology.cpus[511].cpu.0, 511 * 7);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a machine does nothing until it is started"]
pub struct SyntheticHost {
    cpus: u16,
    llcs: u16,
    nodes: u16,
    tasks: u32,
    events: u64,
    stride: u16,
    skew: bool,
    burst: usize,
    late_ratio: f64,
    lost_ratio: f64,
    hotplug: bool,
    seed: u64,
}

impl Default for SyntheticHost {
    fn default() -> Self {
        Self {
            cpus: 8,
            llcs: 2,
            nodes: 1,
            tasks: 100,
            events: 10_000,
            stride: 1,
            skew: false,
            burst: 0,
            late_ratio: 0.0,
            lost_ratio: 0.0,
            hotplug: false,
            seed: 1,
        }
    }
}

/// Sets one option of the same name.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident($example:literal): $type:ty;)*) => {
        $($(#[$doc])*
        ///
        /// ```
        /// use schedtrace_core::synthetic::SyntheticHost;
        #[doc = concat!("let host = SyntheticHost::new().", stringify!($name), "(", stringify!($example), ");")]
        /// ```
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $name;
            self
        })*
    };
}

impl SyntheticHost {
    /// 8 CPUs, 2 last-level caches, one node, 100 tasks, 10,000 events; nothing goes wrong.
    ///
    /// ```
    /// use schedtrace_core::Source;
    /// use schedtrace_core::synthetic::SyntheticHost;
    /// assert_eq!(SyntheticHost::new().start().meta().topology.cpus.len(), 8);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    options! {
        /// How many CPUs.
        cpus(512): u16;
        /// How many last-level caches they share, evenly.
        llcs(64): u16;
        /// How many NUMA nodes the caches are in, evenly.
        nodes(8): u16;
        /// How many tasks.
        tasks(10_000): u32;
        /// About how many events there are, before any is lost.
        events(1_000_000): u64;
        /// The distance between CPU numbers: with 7, they are 0, 7, 14 and so on.
        stride(7): u16;
        /// Some CPUs are far busier than others, and shards deliver at different paces.
        skew(true): bool;
        /// Now and then a task wakes so many at once.
        burst(300): usize;
        /// So many of all events come behind the watermark, from 0 to 1.
        late_ratio(0.01): f64;
        /// So many of all events never come, from 0 to 1.
        lost_ratio(0.01): f64;
        /// A CPU goes off line and comes back, and one that was not there at the start comes.
        hotplug(true): bool;
        /// What is random is the same for the same seed.
        seed(42): u64;
    }

    /// A recording of it.
    ///
    /// ```
    /// use schedtrace_core::synthetic::SyntheticHost;
    /// use schedtrace_core::{Pipeline, Source};
    ///
    /// let mut recording = SyntheticHost::new().start();
    /// Pipeline::new().run(&mut recording)?;
    /// assert!(recording.meta().ended.is_some());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn start(self) -> Synthetic {
        Synthetic::new(self)
    }
}

/// What is true of a recording so far.
///
/// ```
/// use schedtrace_core::synthetic::SyntheticHost;
/// use schedtrace_core::{Kind, Pipeline};
///
/// let mut recording = SyntheticHost::new().lost_ratio(0.1).start();
/// let summary = Pipeline::new().run(&mut recording)?;
/// let truth = recording.truth();
/// assert_eq!(truth.emitted.values().sum::<u64>(), summary.events.values().sum::<u64>() + truth.lost);
/// assert!(truth.emitted[&Kind::Switch] > 0);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Events that happened, by kind.
    pub emitted: BTreeMap<Kind, u64>,
    /// Of these, those that never came.
    pub lost: u64,
    /// Of these, those that came behind the watermark.
    pub late: u64,
    /// Waits that ended.
    pub waits: u64,
    /// All of their times together.
    pub wait_ns: u64,
    /// Each task's time on CPUs, until now.
    pub cpu_time_ns: BTreeMap<TaskId, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asleep,
    /// On this CPU's queue, and since when it waits.
    Queued(usize, u64),
    /// On a CPU, since then.
    Running(u64),
}

#[derive(Debug)]
struct SimTask {
    state: State,
    last_cpu: usize,
    /// Where it stands in the list of those that sleep.
    bed: usize,
}

#[derive(Debug)]
struct SimCpu {
    cpu: Cpu,
    shard: ShardId,
    online: bool,
    current: Option<usize>,
    queue: VecDeque<usize>,
    /// How long it takes to do something, on average.
    pace: u64,
}

/// A simulated recording: a [`Source`] that ends when so many events have happened.
///
/// ```
/// use std::time::Instant;
/// use schedtrace_core::synthetic::SyntheticHost;
/// use schedtrace_core::{Poll, Source};
///
/// let mut recording = SyntheticHost::new().start();
/// assert!(matches!(recording.poll(Instant::now())?, Poll::Batch(_)));
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Synthetic {
    host: SyntheticHost,
    meta: Meta,
    random: fastrand::Rng,
    now: u64,
    cpus: Vec<SimCpu>,
    tasks: Vec<SimTask>,
    asleep: Vec<usize>,
    /// What comes next: when, on which CPU, and whether that CPU goes on afterwards by itself.
    due: BinaryHeap<Reverse<(u64, usize, bool)>>,
    shards: Vec<Ring>,
    merge: Merge<Event>,
    /// The watermark.
    released: Nanos,
    lost: Vec<Loss>,
    announced: bool,
    ended: bool,
    happened: u64,
    truth: Truth,
}

/// What waits in a shard's ring.
#[derive(Debug, Default)]
struct Ring {
    waiting: Vec<Event>,
    /// Held back until they are behind the watermark.
    late: Vec<Event>,
    losing: Option<(u64, u64, BTreeMap<Kind, u64>)>,
    /// It delivers every so many rounds.
    pace: u64,
}

impl Synthetic {
    fn new(host: SyntheticHost) -> Self {
        let count = usize::from(host.cpus.max(1));
        let mut random = fastrand::Rng::with_seed(host.seed);
        let per = |groups: u16| count.div_ceil(usize::from(groups.clamp(1, host.cpus.max(1))));
        let number = |at: usize| (at * usize::from(host.stride.max(1))) as u16;
        let llc = |at: usize| at / per(host.llcs);
        let infos = (0..count).map(|at| CpuInfo {
            cpu: Cpu(number(at)),
            core: u32::from(number(at)),
            llc: u32::from(number(llc(at) * per(host.llcs))),
            node: (at / per(host.nodes)) as u32,
            online: true,
        });
        let topology = Topology { cpus: infos.collect() };
        let mut groups: Vec<Vec<Cpu>> = Vec::new();
        for cpus in topology.llcs().values() {
            groups.extend(cpus.chunks(CPUS_PER_SHARD).map(<[Cpu]>::to_vec));
        }
        let shard_of = |cpu: Cpu| {
            let at = groups.iter().position(|cpus| cpus.contains(&cpu)).unwrap_or(0);
            ShardId(at as u16)
        };
        // One more, which is not there at the start.
        let numbers = (0..count).map(number).chain(host.hotplug.then(|| number(count)));
        let cpus: Vec<_> = numbers
            .enumerate()
            .map(|(at, cpu)| SimCpu {
                cpu: Cpu(cpu),
                shard: shard_of(Cpu(cpu)),
                online: at < count,
                current: None,
                queue: VecDeque::new(),
                pace: if host.skew { 5_000 << (at % 8) } else { 20_000 },
            })
            .collect();
        let rings = groups.iter().enumerate().map(|(at, cpus)| RingInfo {
            shard: ShardId(at as u16),
            cpus: cpus.clone(),
            bytes: 1 << 20,
        });
        let meta = Meta {
            host: Host { hostname: "synthetic".into(), kernel: "0.0.0".into(), machine: std::env::consts::ARCH.into() },
            topology,
            clocks: vec![ClockSnapshot {
                monotonic_ns: Nanos(STARTED),
                boottime_ns: Nanos(STARTED),
                realtime_ns: Nanos(1_700_000_000_000_000_000),
            }],
            probes: [Kind::Switch, Kind::Waking, Kind::Migrate].map(|kind| Probe { kind, on: true, why: None }).into(),
            rings: rings.collect(),
            started: Nanos(STARTED),
            ..Meta::default()
        };
        let shards = (0..groups.len() as u64)
            .map(|at| Ring { pace: if host.skew { 1 + at % 3 } else { 1 }, ..Ring::default() })
            .collect();
        let tasks: Vec<_> = (0..host.tasks.max(1) as usize)
            .map(|bed| SimTask { state: State::Asleep, last_cpu: random.usize(..count), bed })
            .collect();
        let due = (0..count).map(|cpu| Reverse((STARTED + 1 + random.u64(..100_000), cpu, true))).collect();
        Self {
            merge: Merge::new((0..groups.len()).map(|at| ShardId(at as u16))),
            asleep: (0..tasks.len()).collect(),
            now: STARTED,
            released: Nanos(STARTED),
            lost: Vec::new(),
            announced: false,
            ended: false,
            happened: 0,
            truth: Truth::default(),
            host,
            meta,
            random,
            cpus,
            tasks,
            due,
            shards,
        }
    }

    /// What is true of it so far; of all of it once it has ended.
    ///
    /// ```
    /// use schedtrace_core::synthetic::{SyntheticHost, Truth};
    /// assert_eq!(SyntheticHost::new().start().truth(), Truth::default(), "nothing has happened yet");
    /// ```
    #[must_use]
    pub fn truth(&self) -> Truth {
        let mut truth = self.truth.clone();
        for (at, task) in self.tasks.iter().enumerate() {
            if let State::Running(since) = task.state {
                *truth.cpu_time_ns.entry(id(at)).or_default() += self.now - since;
            }
        }
        truth
    }

    fn write(&mut self, cpu: usize, kind: EventKind) {
        let event = Event { ts: Nanos(self.now), cpu: self.cpus[cpu].cpu, kind };
        self.happened += 1;
        *self.truth.emitted.entry(kind.kind()).or_default() += 1;
        let ring = &mut self.shards[usize::from(self.cpus[cpu].shard.0)];
        // Some hundred events at a time are lost, as when a ring is full.
        const RUN: u64 = 100;
        if ring.losing.is_none() && self.host.lost_ratio > 0.0 && self.random.f64() < self.host.lost_ratio / RUN as f64
        {
            ring.losing = Some((self.now, RUN, BTreeMap::new()));
        }
        if let Some((from, left, kinds)) = &mut ring.losing {
            *kinds.entry(kind.kind()).or_default() += 1;
            self.truth.lost += 1;
            *left -= 1;
            if *left == 0 {
                let (place, from, until) = (LossPlace::Ring(self.cpus[cpu].shard), Nanos(*from), Nanos(self.now));
                let loss = |(kind, count)| Loss { place: place.clone(), kind: Some(kind), count, from, until };
                self.lost.extend(std::mem::take(kinds).into_iter().map(loss));
                ring.losing = None;
            }
        } else if self.host.late_ratio > 0.0 && self.random.f64() < self.host.late_ratio {
            self.truth.late += 1;
            ring.late.push(event);
        } else {
            ring.waiting.push(event);
        }
    }

    /// Time goes on by a moment: no two events happen at once.
    fn tick(&mut self) {
        self.now += 1 + self.random.u64(..50);
    }

    fn switch(&mut self, cpu: usize, next: Option<usize>, prev_state: TaskState) {
        self.tick();
        let now = self.now;
        let idle = TaskId::idle(self.cpus[cpu].cpu);
        let prev = std::mem::replace(&mut self.cpus[cpu].current, next);
        if let Some(task) = prev {
            if let State::Running(since) = self.tasks[task].state {
                *self.truth.cpu_time_ns.entry(id(task)).or_default() += now - since;
            }
            self.tasks[task].last_cpu = cpu;
            if prev_state == TaskState::RUNNING {
                self.tasks[task].state = State::Queued(cpu, now);
                self.cpus[cpu].queue.push_back(task);
            } else {
                self.tasks[task].state = State::Asleep;
                self.tasks[task].bed = self.asleep.len();
                self.asleep.push(task);
            }
        }
        if let Some(task) = next {
            if let State::Queued(_, since) = self.tasks[task].state {
                self.truth.waits += 1;
                self.truth.wait_ns += now - since;
            }
            self.tasks[task].state = State::Running(now);
        }
        let (prev, next) = (prev.map_or(idle, id), next.map_or(idle, id));
        let switch = Switch { prev, next, prev_state, preempted: false, prev_prio: PRIO, next_prio: PRIO };
        self.write(cpu, EventKind::Switch(switch));
    }

    /// Somebody wakes a task that sleeps, from this CPU.
    fn wake(&mut self, cpu: usize) {
        if self.asleep.is_empty() {
            return;
        }
        let at = self.random.usize(..self.asleep.len());
        let task = self.asleep.swap_remove(at);
        if let Some(&moved) = self.asleep.get(at) {
            self.tasks[moved].bed = at;
        }
        self.tick();
        let prev_cpu = self.tasks[task].last_cpu;
        let (context, current) = match self.cpus[cpu].current {
            Some(current) if self.random.u8(..4) > 0 => (Context::Task, id(current)),
            Some(current) => (Context::Softirq, id(current)),
            None => (Context::Hardirq, TaskId::idle(self.cpus[cpu].cpu)),
        };
        let from = self.cpus[prev_cpu].cpu;
        let waking = Waking { task: id(task), current, context, prev_cpu: from, on_cpu: false, prio: PRIO };
        let since = self.now;
        self.write(cpu, EventKind::Waking(waking));
        let mut target = prev_cpu;
        if !self.cpus[target].online || self.random.u8(..3) == 0 {
            target = self.somewhere();
        }
        if target != prev_cpu {
            self.tick();
            let to = self.cpus[target].cpu;
            self.write(cpu, EventKind::Migrate(Migrate { task: id(task), from, to, placed: true, prio: PRIO }));
        }
        self.tasks[task].state = State::Queued(target, since);
        self.cpus[target].queue.push_back(task);
        if self.cpus[target].current.is_none() {
            self.due.push(Reverse((self.now + 1_000 + self.random.u64(..20_000), target, false)));
        }
    }

    /// A CPU that is on line.
    fn somewhere(&mut self) -> usize {
        loop {
            let cpu = self.random.usize(..self.cpus.len());
            if self.cpus[cpu].online {
                return cpu;
            }
        }
    }

    /// A CPU does something.
    fn step(&mut self, cpu: usize) {
        let next = self.cpus[cpu].queue.pop_front();
        match (self.cpus[cpu].current, next) {
            (None, Some(_)) => return self.switch(cpu, next, TaskState::RUNNING),
            (None, None) => return self.wake(cpu),
            (Some(_), Some(_)) if self.random.u8(..4) == 0 => return self.switch(cpu, next, TaskState::RUNNING),
            _ => {}
        }
        if self.random.u8(..2) == 0 {
            return self.switch(cpu, next, TaskState::INTERRUPTIBLE);
        }
        self.cpus[cpu].queue.extend(next);
        self.cpus[cpu].queue.rotate_right(usize::from(next.is_some()));
        let burst = self.host.burst > 0 && self.random.u16(..2_000) == 0;
        (0..if burst { self.host.burst } else { 1 }).for_each(|_| self.wake(cpu));
    }

    /// A CPU goes: who was on it is moved, by another one.
    fn unplug(&mut self, cpu: usize) {
        if self.cpus[cpu].current.is_some() {
            self.switch(cpu, None, TaskState::RUNNING);
        }
        self.cpus[cpu].online = false;
        while let Some(task) = self.cpus[cpu].queue.pop_front() {
            let target = self.somewhere();
            self.tick();
            let (from, to) = (self.cpus[cpu].cpu, self.cpus[target].cpu);
            self.write(target, EventKind::Migrate(Migrate { task: id(task), from, to, placed: false, prio: PRIO }));
            if let State::Queued(_, since) = self.tasks[task].state {
                self.tasks[task].state = State::Queued(target, since);
            }
            self.cpus[target].queue.push_back(task);
        }
    }

    fn plug(&mut self, cpu: usize) {
        self.cpus[cpu].online = true;
        self.due.push(Reverse((self.now + 1, cpu, true)));
    }

    /// Whatever happens to CPUs, when so many events have happened.
    fn hotplug(&mut self, before: u64) {
        let passed = |part: u64| {
            let at = self.host.events * part / 10;
            before < at && self.happened >= at
        };
        let (first, new) = (1.min(self.cpus.len() - 2), self.cpus.len() - 1);
        let (off, comes, back) = (passed(3), passed(5), passed(7));
        if off {
            self.unplug(first);
        }
        if comes {
            self.plug(new);
        }
        if back {
            self.plug(first);
        }
    }

    /// Goes on for a round, and delivers what each shard has.
    fn round(&mut self, round: u64) {
        let until = self.now + ROUND;
        while self.happened < self.host.events {
            let Some(&Reverse((at, cpu, goes_on))) = self.due.peek() else { break };
            if at > until {
                break;
            }
            self.due.pop();
            self.now = self.now.max(at);
            let before = self.happened;
            let waits = self.cpus[cpu].current.is_none() && !self.cpus[cpu].queue.is_empty();
            if self.cpus[cpu].online && (goes_on || waits) {
                self.step(cpu);
            }
            if goes_on && self.cpus[cpu].online {
                let pace = self.cpus[cpu].pace;
                self.due.push(Reverse((self.now + pace / 2 + self.random.u64(..pace), cpu, true)));
            }
            if self.host.hotplug && self.cpus.len() > 2 {
                self.hotplug(before);
            }
        }
        let over = self.happened >= self.host.events || self.due.is_empty();
        if over {
            // Time goes on for everybody until the end.
            self.tick();
        } else {
            self.now = self.now.max(until);
        }
        for (at, ring) in self.shards.iter_mut().enumerate() {
            let shard = ShardId(at as u16);
            if !over && !round.is_multiple_of(ring.pace) {
                continue;
            }
            let behind = ring.late.partition_point(|event| event.ts < self.released);
            let late = ring.late.drain(..behind).collect();
            let events = std::mem::take(&mut ring.waiting);
            self.merge.push(shard, late, Nanos(self.now));
            self.merge.push(shard, events, Nanos(self.now));
        }
        if over {
            self.end();
        }
    }

    /// Delivers what was held back.
    fn end(&mut self) {
        self.ended = true;
        self.meta.ended = Some(Nanos(self.now));
        for (at, ring) in self.shards.iter_mut().enumerate() {
            let shard = ShardId(at as u16);
            if let Some((from, _, kinds)) = ring.losing.take() {
                let (place, from, until) = (LossPlace::Ring(shard), Nanos(from), Nanos(self.now));
                let loss = |(kind, count)| Loss { place: place.clone(), kind: Some(kind), count, from, until };
                self.lost.extend(kinds.into_iter().map(loss));
            }
        }
    }

    /// Who the tasks are: processes of up to 16 threads, four to a cgroup.
    fn identities(&self, batch: &mut Batch) {
        let count = self.tasks.len() as u32;
        batch.tasks = (0..count)
            .map(|at| Task {
                id: id(at as usize),
                since: Nanos(STARTED),
                tid: 1_000 + at,
                tgid: 1_000 + at - at % 16,
                ppid: 1,
                comm: Comm::new(&format!("worker-{}", at % 16)),
                cgroup: CgroupId(2 + u64::from(at / 64)),
                start: Nanos(STARTED / 2),
                kernel: false,
                recorder: false,
            })
            .collect();
        batch.cgroups = (0..=count / 64)
            .map(|at| Cgroup { id: CgroupId(2 + u64::from(at)), path: Arc::from(format!("/service-{at}")) })
            .collect();
    }
}

fn id(task: usize) -> TaskId {
    TaskId(task as u32 + 1)
}

impl Source for Synthetic {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn poll(&mut self, _: Instant) -> Result<Poll> {
        let mut batch = Batch::default();
        for round in 1.. {
            if let Some(until) = self.merge.drain_at_most(1 << 15, &mut batch.events, &mut batch.late) {
                (batch.until, self.released) = (until, until);
                break;
            }
            if !self.ended {
                self.round(round);
                continue;
            }
            // What was held back for all this time.
            if self.shards.iter().all(|ring| ring.late.is_empty()) {
                return Ok(Poll::End);
            }
            for (at, ring) in self.shards.iter_mut().enumerate() {
                self.merge.push(ShardId(at as u16), std::mem::take(&mut ring.late), Nanos(self.now));
            }
        }
        if !std::mem::replace(&mut self.announced, true) {
            self.identities(&mut batch);
        }
        batch.lost = std::mem::take(&mut self.lost);
        Ok(Poll::Batch(batch))
    }
}
