//! A small scheduler that writes down what it does as the kernel would, and knows the answers.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

/// One step: what to do, with which CPU and which task, and how long to go on afterwards.
pub(super) type Step = (u8, u8, u8, u8);

pub(super) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..12u8, any::<u8>(), any::<u8>(), prop_oneof![Just(0u8), 1..100u8]), 1..most)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Now {
    Asleep,
    On(usize),
    Queued(usize),
    Dead,
}

struct SimTask {
    now: Now,
    last_cpu: usize,
    wait: Option<Wait>,
}

/// A wait that goes on.
#[derive(Default)]
struct Wait {
    ns: u64,
    /// It began with the recording.
    at_start: bool,
    /// The events do not tell it from a sleep as long as it goes on.
    tentative: bool,
    behind: BTreeMap<u32, u64>,
}

/// What is true of a run.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Truth {
    /// Per task.
    pub(super) ran: BTreeMap<u32, u64>,
    /// Per task: finished waits and all of them together.
    pub(super) waited: BTreeMap<u32, (u64, u64)>,
    /// Per task: waits that an edge cuts off.
    pub(super) censored: BTreeMap<u32, (u64, u64)>,
    /// Who waited behind whom; `IDLE` for nobody.
    pub(super) behind: BTreeMap<(u32, u32), u64>,
    /// The most holders that one wait had.
    pub(super) most_behind: usize,
    /// Per CPU.
    pub(super) idle: BTreeMap<u16, u64>,
    /// Switches from tasks.
    pub(super) switches: u64,
}

const CPUS: [u16; 4] = [0, 1, 7, 300];

pub(super) struct Simulator {
    at: u64,
    on: [Option<usize>; CPUS.len()],
    tasks: Vec<SimTask>,
    pub(super) stream: Stream,
    pub(super) truth: Truth,
}

/// Runs these steps. Tasks have the ids 1, 2, 3 ...
pub(super) fn simulate(steps: &[Step]) -> Simulator {
    let mut sim = Simulator {
        at: 1_000,
        on: [None; CPUS.len()],
        tasks: Vec::new(),
        stream: stream().cpus(&CPUS).options(|options| options.top = 1000),
        truth: Truth::default(),
    };
    // Task 1 runs, task 2 waits behind it, and tasks 3 to 6 sleep.
    for (now, wait) in [(Now::On(0), None), (Now::Queued(0), Some(Wait { at_start: true, ..Wait::default() }))] {
        sim.tasks.push(SimTask { now, last_cpu: 0, wait });
    }
    for cpu in 0..4 {
        sim.tasks.push(SimTask { now: Now::Asleep, last_cpu: cpu, wait: None });
    }
    sim.on[0] = Some(0);
    sim.write(|stream, at| stream.snapshot(at, 0, 1, true).snapshot(at, 0, 2, false));
    for &step in steps {
        sim.step(step);
    }
    sim.end()
}

impl Simulator {
    fn write(&mut self, event: impl FnOnce(Stream, u64) -> Stream) {
        let stream = std::mem::replace(&mut self.stream, stream());
        self.stream = event(stream, self.at);
    }

    fn pass(&mut self, ns: u64) {
        self.at += ns;
        for (cpu, on) in self.on.iter().enumerate() {
            match on {
                Some(task) => *self.truth.ran.entry(*task as u32 + 1).or_default() += ns,
                None => *self.truth.idle.entry(CPUS[cpu]).or_default() += ns,
            }
        }
        for state in &mut self.tasks {
            if let (Now::Queued(cpu), Some(wait)) = (state.now, &mut state.wait) {
                wait.ns += ns;
                let holder = self.on[cpu].map_or(IDLE, |holder| holder as u32 + 1);
                *wait.behind.entry(holder).or_default() += ns;
            }
        }
    }

    fn count(&mut self, task: usize, wait: Wait, open: bool) {
        if wait.at_start && !open && wait.ns == 0 {
            // It was over with the first event: nothing of it lies in the stream.
            return;
        }
        let cut = open || wait.at_start;
        let rows = if cut { &mut self.truth.censored } else { &mut self.truth.waited };
        let row = rows.entry(task as u32 + 1).or_default();
        *row = (row.0 + 1, row.1 + wait.ns);
        let holders = wait.behind.iter().filter(|(_, ns)| **ns > 0).count();
        self.truth.most_behind = self.truth.most_behind.max(holders);
        for (holder, ns) in wait.behind {
            *self.truth.behind.entry((task as u32 + 1, holder)).or_default() += ns;
        }
    }

    fn end(mut self) -> Self {
        self.pass(5);
        self.stream.meta.ended = Some(Nanos(self.at));
        for task in 0..self.tasks.len() {
            if let Some(wait) = self.tasks[task].wait.take_if(|wait| !wait.tentative) {
                self.count(task, wait, true);
            }
        }
        self.truth.behind.retain(|_, ns| *ns > 0);
        self.truth.ran.retain(|_, ns| *ns > 0);
        self
    }

    fn step(&mut self, (what, cpu, pick, ns): Step) {
        let cpu = cpu as usize % CPUS.len();
        let ns = u64::from(ns);
        match what {
            0 => self.turn(cpu, pick, |task| task.now = Now::Asleep, S, false),
            1 => self.turn(cpu, pick, |task| task.wait = Some(Wait::default()), R, true),
            2 => self.turn(cpu, pick, |task| task.wait = Some(Wait::default()), R, false),
            3 => self.turn(cpu, pick, |task| task.now = Now::Dead, X, false),
            4..7 => self.fill(cpu, pick),
            7 | 8 => self.wake(cpu, pick),
            9 => self.overtake(cpu, pick, ns),
            10 => self.touch(cpu, pick),
            _ if pick < 40 => self.fork(cpu, pick),
            _ => self.pull(cpu, pick),
        }
        self.pass(ns);
    }

    fn name(&self, cpu: usize) -> u32 {
        self.on[cpu].map_or(IDLE, |task| task as u32 + 1)
    }

    fn choose(&self, pick: u8, which: impl Fn(&SimTask) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.tasks.len()).filter(|&task| which(&self.tasks[task])).collect();
        (!all.is_empty()).then(|| all[pick as usize % all.len()])
    }

    /// The task on this CPU leaves it, and one that waits there gets it.
    fn turn(&mut self, cpu: usize, pick: u8, leave: impl FnOnce(&mut SimTask), state: TaskState, preempt: bool) {
        let next = self.choose(pick, |task| task.now == Now::Queued(cpu));
        let Some(prev) = self.on[cpu] else { return self.fill(cpu, pick) };
        // Who stays runnable leaves to another task only.
        if next.is_none() && state == R {
            return;
        }
        let task = &mut self.tasks[prev];
        (task.now, task.last_cpu) = (Now::Queued(cpu), cpu);
        leave(task);
        self.switch(cpu, prev as u32 + 1, next, state, preempt);
    }

    fn switch(&mut self, cpu: usize, prev: u32, next: Option<usize>, state: TaskState, preempt: bool) {
        let name = next.map_or(IDLE, |next| next as u32 + 1);
        self.on[cpu] = next;
        self.truth.switches += u64::from(prev != IDLE);
        if let Some(next) = next {
            let task = &mut self.tasks[next];
            task.now = Now::On(cpu);
            if let Some(wait) = task.wait.take() {
                self.count(next, wait, false);
            }
        }
        self.write(|stream, at| match preempt {
            true => stream.preempt(at, CPUS[cpu], prev, name),
            false => stream.switch(at, CPUS[cpu], prev, state, name),
        });
    }

    /// An idle CPU takes a task that waits.
    fn fill(&mut self, cpu: usize, pick: u8) {
        if self.on[cpu].is_none()
            && let Some(next) = self.choose(pick, |task| task.now == Now::Queued(cpu))
        {
            self.switch(cpu, IDLE, Some(next), R, false);
        }
    }

    /// Wakes a sleeping task, and maybe puts it on another CPU.
    fn wake(&mut self, cpu: usize, pick: u8) {
        let Some(task) = self.choose(pick, |task| task.now == Now::Asleep) else { return };
        let (waker, last) = (self.name(cpu), self.tasks[task].last_cpu);
        self.write(|stream, at| stream.waking(at, CPUS[cpu], waker, task as u32 + 1, CPUS[last]));
        self.tasks[task].wait = Some(Wait::default());
        self.place(cpu, task, last, pick, 2);
    }

    /// The waker chooses the CPU, which takes some time.
    fn place(&mut self, cpu: usize, task: usize, from: usize, pick: u8, ns: u64) {
        let to = pick as usize / 7 % CPUS.len();
        self.tasks[task].now = Now::Queued(to);
        if to != from {
            self.pass(ns);
            self.write(|stream, at| stream.place(at, CPUS[cpu], task as u32 + 1, CPUS[from], CPUS[to]));
            if let Some(wait) = &mut self.tasks[task].wait {
                wait.tentative = false;
            }
        }
    }

    /// Wakes a task that is just leaving its CPU to sleep.
    fn overtake(&mut self, cpu: usize, pick: u8, ns: u64) {
        let other = |task: &SimTask| matches!(task.now, Now::On(on) if on != cpu);
        let Some(task) = self.choose(pick, other) else { return };
        let Now::On(on) = self.tasks[task].now else { return };
        let waker = self.name(cpu);
        self.write(|stream, at| stream.waking_on_cpu(at, CPUS[cpu], waker, task as u32 + 1, CPUS[on]));
        self.pass(ns);
        let next = self.choose(pick, |task| task.now == Now::Queued(on));
        self.tasks[task].wait = Some(Wait { tentative: true, ..Wait::default() });
        self.tasks[task].last_cpu = on;
        // Where it will be is not known to the CPU it leaves, but that is where it waits.
        self.tasks[task].now = Now::Queued(pick as usize / 7 % CPUS.len());
        self.switch(on, task as u32 + 1, next, S, false);
        self.place(cpu, task, on, pick, 3);
    }

    /// Wakes a task that is about to sleep, but does not: it goes on running.
    fn touch(&mut self, cpu: usize, pick: u8) {
        let Some(task) = self.choose(pick, |task| matches!(task.now, Now::On(_))) else { return };
        let Now::On(on) = self.tasks[task].now else { return };
        let waker = self.name(cpu);
        self.write(|stream, at| stream.waking_on_cpu(at, CPUS[cpu], waker, task as u32 + 1, CPUS[on]));
    }

    fn fork(&mut self, cpu: usize, pick: u8) {
        let Some(parent) = self.on[cpu] else { return };
        let to = pick as usize % CPUS.len();
        self.tasks.push(SimTask { now: Now::Queued(to), last_cpu: to, wait: Some(Wait::default()) });
        let child = self.tasks.len() as u32;
        self.write(|stream, at| stream.wakeup_new(at, CPUS[cpu], parent as u32 + 1, child, CPUS[to]));
    }

    /// A CPU pulls a waiting task over from another one.
    fn pull(&mut self, cpu: usize, pick: u8) {
        let other = |task: &SimTask| matches!(task.now, Now::Queued(on) if on != cpu);
        let Some(task) = self.choose(pick, other) else { return };
        let Now::Queued(from) = self.tasks[task].now else { return };
        self.tasks[task].now = Now::Queued(cpu);
        self.write(|stream, at| stream.migrate(at, CPUS[cpu], task as u32 + 1, CPUS[from], CPUS[cpu]));
    }
}
