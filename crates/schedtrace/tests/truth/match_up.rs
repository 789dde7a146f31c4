//! Our events against ftrace's, one by one.
//!
//! Both hang on the same tracepoints and read the same clock, one after the other. So each CPU's events are the same on
//! both sides, a few microseconds apart; but where an interrupt comes between the two on one tracepoint, the events of
//! that interrupt stand before the interrupted one on one side, and behind it on the other. So an event is paired with
//! the next unpaired one of the other side that says the same, near in time, and pairs in another order are counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use schedtrace_core::analysis::states::{Cause, Observer, Seen, States, WaitEnd, Waited};
use schedtrace_core::{Context, EventKind, Nanos, TaskId, Waker};

use super::ftrace::{Shown, What};
use crate::common::recording::Trace;
use crate::common::table::Table;

/// So far may the two readings of the clock be apart: the nearer ones are paired first, so that an event that comes
/// again and again is not paired with another time that it came. The hypervisor may take the CPU away in between: 20 ms
/// were seen.
const APART: [Nanos; 4] = [Nanos(20_000), Nanos(200_000), Nanos(5_000_000), Nanos(50_000_000)];
/// What ftrace prints is rounded to microseconds.
const ROUNDED: Nanos = Nanos(1_000);

/// Who had which thread id, and when.
struct Tids {
    /// Of each life, the ids that it had, since when.
    of: HashMap<TaskId, Vec<(Nanos, u32)>>,
}

impl Tids {
    fn new(trace: &Trace) -> Self {
        let mut of: HashMap<TaskId, Vec<(Nanos, u32)>> = HashMap::new();
        trace.tasks.iter().for_each(|task| of.entry(task.id).or_default().push((task.since, task.tid)));
        of.values_mut().for_each(|ids| ids.sort_unstable());
        Self { of }
    }

    fn at(&self, task: TaskId, ts: Nanos) -> u32 {
        if task.is_idle() {
            return 0;
        }
        let ids = self.of.get(&task).unwrap_or_else(|| panic!("{task:?} was never announced"));
        ids.iter().rev().find(|&&(since, _)| since <= ts).unwrap_or(&ids[0]).1
    }

    /// Ids of lives that had more than one: a thread that executes a program changes its id before it says so.
    fn changing(&self) -> HashSet<u32> {
        let changing = self.of.values().filter(|ids| ids.iter().any(|&(_, tid)| tid != ids[0].1));
        changing.flatten().map(|&(_, tid)| tid).collect()
    }
}

/// Our events as ftrace would show them, in the order of time.
fn ours(trace: &Trace, tids: &Tids) -> Vec<Shown> {
    let shown = |event: &schedtrace_core::Event| {
        let tid = |task| tids.at(task, event.ts);
        let what = match event.kind {
            EventKind::Switch(switch) => What::Switch {
                prev: tid(switch.prev),
                next: tid(switch.next),
                state: if switch.preempted { 'R' } else { switch.prev_state.letter() },
                preempted: switch.preempted,
                prev_prio: switch.prev_prio,
                next_prio: switch.next_prio,
            },
            EventKind::Waking(waking) => What::Waking {
                current: tid(waking.current),
                context: waking.context,
                task: tid(waking.task),
                prio: waking.prio,
                cpu: waking.prev_cpu.0,
            },
            EventKind::WakeupNew(new) => {
                What::WakeupNew { current: tid(new.parent), task: tid(new.task), prio: new.prio, cpu: new.target_cpu.0 }
            }
            EventKind::Migrate(migrate) => {
                What::Migrate { task: tid(migrate.task), prio: migrate.prio, from: migrate.from.0, to: migrate.to.0 }
            }
            EventKind::Fork(fork) => What::Fork { parent: tid(fork.parent), child: tid(fork.child) },
            EventKind::Exec(exec) => What::Exec { task: tid(exec.task), old_tid: exec.old_tid },
            EventKind::Exit(exit) => What::Exit { task: tid(exit.task), group_dead: exit.group_dead },
            _ => return None,
        };
        Some(Shown { ts: event.ts, cpu: event.cpu.0, current: None, what })
    };
    trace.events.iter().filter_map(shown).collect()
}

/// CPUs whose idle task ftrace never shows.
///
/// On the sandboxed machines where process 1 is hidden, ftrace - not BPF - shows nothing of what the idle tasks do that
/// process 1 made when the machine started: all but the first CPU's. Interrupts of them are shown.
fn hidden_idle(ours: &[Shown], theirs: &[Shown]) -> HashSet<u16> {
    let from_idle = |shown: &&Shown| matches!(shown.what, What::Switch { prev: 0, .. });
    let shown: HashSet<u16> = theirs.iter().filter(from_idle).map(|shown| shown.cpu).collect();
    ours.iter().filter(from_idle).map(|ours| ours.cpu).filter(|cpu| !shown.contains(cpu)).collect()
}

/// Pairs of places in the two lists.
fn pairs(ours: &[Shown], theirs: &[Shown]) -> Vec<(usize, usize)> {
    let mut same: HashMap<(u16, What), [Vec<usize>; 2]> = HashMap::new();
    for (side, list) in [ours, theirs].into_iter().enumerate() {
        for (at, shown) in list.iter().enumerate() {
            same.entry((shown.cpu, shown.what)).or_default()[side].push(at);
        }
    }
    let mut pairs = Vec::new();
    for mut alone in same.into_values() {
        for apart in APART {
            let near = near(ours, theirs, &alone, apart);
            let (mine, others): (HashSet<usize>, HashSet<usize>) = near.iter().copied().unzip();
            alone[0].retain(|at| !mine.contains(at));
            alone[1].retain(|at| !others.contains(at));
            pairs.extend(near);
        }
    }
    pairs.sort_unstable();
    pairs
}

/// Pairs of these places, in order, that are no further apart than this.
fn near(ours: &[Shown], theirs: &[Shown], [mine, others]: &[Vec<usize>; 2], apart: Nanos) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let (mut m, mut o) = (0, 0);
    while let (Some(&mine), Some(&other)) = (mine.get(m), others.get(o)) {
        let (a, b) = (ours[mine].ts, theirs[other].ts);
        if a.max(b) - a.min(b) <= apart {
            pairs.push((mine, other));
        }
        m += usize::from(a <= b + apart);
        o += usize::from(b <= a + apart);
    }
    pairs
}

/// The rows of all kinds of events within a stretch of time, each of which is on both sides once.
pub fn rows(table: &mut Table, trace: &Trace, theirs: &[Shown], within: &Range<Nanos>) {
    let tids = Tids::new(trace);
    let changing = tids.changing();
    let known = |shown: &Shown| !shown.what.tids().iter().any(|tid| changing.contains(tid));
    let mut ours: Vec<Shown> = ours(trace, &tids).into_iter().filter(known).collect();
    // In the order of the CPU's own buffer where times are the same.
    let mut theirs: Vec<Shown> = theirs.iter().copied().filter(known).collect();
    theirs.retain(|shown| !matches!(shown.what, What::Wakeup { .. }));
    theirs.sort_by_key(|shown| shown.ts);

    let hidden = hidden_idle(&ours, &theirs);
    let by_hidden = |shown: &Shown| match shown.what {
        What::Switch { prev: 0, .. } => hidden.contains(&shown.cpu),
        _ => false,
    };
    let left_out = ours.iter().filter(|shown| by_hidden(shown) && within.contains(&shown.ts)).count();
    ours.retain(|shown| !by_hidden(shown));
    if left_out > 0 {
        table.note(format!(
            "left out: {left_out} switches away from idle tasks that ftrace does not show here: {hidden:?}"
        ));
    }

    // BPF does not run in interrupts of process 1, either.
    let of_1: HashSet<u32> = trace.tasks.iter().filter(|task| task.tgid == 1).map(|task| task.tid).collect();
    let in_1 = |shown: &Shown| shown.current.is_some_and(|current| of_1.contains(&current));
    let left_out = theirs.iter().filter(|shown| in_1(shown) && within.contains(&shown.ts)).count();
    let shown_by_us = |shown: &Shown| matches!(shown.what, What::Waking { current, .. } if of_1.contains(&current));
    if left_out > 0 && !ours.iter().any(shown_by_us) {
        theirs.retain(|shown| !in_1(shown));
        table.note(format!("left out: {left_out} events in interrupts of process 1, of which BPF shows none here"));
    }

    let pairs = pairs(&ours, &theirs);
    let paired = [pairs.iter().map(|pair| pair.0).collect(), pairs.iter().map(|pair| pair.1).collect()];
    let paired: [HashSet<usize>; 2] = paired;
    let mut counts: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
    for (side, list) in [&ours, &theirs].into_iter().enumerate() {
        for (at, shown) in list.iter().enumerate().filter(|(_, shown)| within.contains(&shown.ts)) {
            let count = counts.entry(shown.what.name()).or_default();
            count[side] += 1;
            if paired[side].contains(&at) {
                count[side + 2] += 1;
            } else {
                table.note(format!("{} alone: {shown:?}", ["ours", "theirs"][side]));
            }
        }
    }
    for (name, [mine, others, mine_paired, others_paired]) in counts {
        table.count("all", format!("ftrace: {name}: paired of ours"), mine_paired, mine);
        table.count("all", format!("ftrace: {name}: paired of theirs"), others_paired, others);
    }
    let inside: Vec<&(usize, usize)> = pairs.iter().filter(|pair| within.contains(&ours[pair.0].ts)).collect();
    let apart = inside.iter().map(|&&(a, b)| ours[a].ts.max(theirs[b].ts) - ours[a].ts.min(theirs[b].ts)).max();
    table.note(format!("the two readings of the clock are {} apart at most", apart.unwrap_or_default()));
    let mut last: HashMap<u16, usize> = HashMap::new();
    let swapped = inside.iter().filter(|pair| last.insert(ours[pair.0].cpu, pair.1).is_some_and(|at| at > pair.1));
    table.note(format!("pairs in another order on the same CPU: {}", swapped.count()));
    if !changing.is_empty() {
        table.note(format!("left out: {} ids of threads whose id changed by an exec", changing.len()));
    }
}

/// A wait that began with a wakeup and ended on a CPU, as our analysis tells it.
struct Woken {
    task: TaskId,
    from: Nanos,
    until: Nanos,
    /// On whose run queue it was put.
    target: u16,
    waker: Waker,
}

#[derive(Default)]
struct Waits(Vec<Woken>);

impl Observer for Waits {
    fn waited(&mut self, wait: &Waited<'_>, _: &Seen<'_>) {
        if let (Cause::Woken(waker), WaitEnd::Ran, Some(first)) = (wait.cause, wait.end, wait.segments.first()) {
            let (task, from, until, target) = (wait.task.id, wait.from, wait.until, first.cpu.cpu.0);
            self.0.push(Woken { task, from, until, target, waker });
        }
    }
}

/// The rows of wakers and targets: of every wait after a wakeup, who woke the task and where it was put.
pub fn wakeup_rows(table: &mut Table, trace: &Trace, theirs: &[Shown], within: &Range<Nanos>) {
    let tids = Tids::new(trace);
    let mut wakings: HashMap<u32, Vec<(Nanos, u32, Context)>> = HashMap::new();
    let mut wakeups: HashMap<u32, Vec<(Nanos, u16)>> = HashMap::new();
    for shown in theirs {
        match shown.what {
            What::Waking { current, context, task, .. } => {
                wakings.entry(task).or_default().push((shown.ts, current, context));
            }
            What::Wakeup { task, cpu } => wakeups.entry(task).or_default().push((shown.ts, cpu)),
            _ => {}
        }
    }
    wakings.values_mut().for_each(|of| of.sort_by_key(|waking| waking.0));
    wakeups.values_mut().for_each(|of| of.sort_by_key(|wakeup| wakeup.0));

    let mut waits = Waits::default();
    States::default().update(&trace.as_one(), &mut waits);
    let changing = tids.changing();
    let hidden = hidden_idle(&ours(trace, &tids), theirs);
    let (mut all, mut targets, mut wakers, mut unshown) = (0, 0, 0, 0);
    for wait in waits.0.iter().filter(|wait| within.contains(&wait.from) && within.contains(&wait.until)) {
        let tid = tids.at(wait.task, wait.from);
        if changing.contains(&tid) {
            continue;
        }
        all += 1;
        // The last waking before the wait: that of a task that was still going to sleep comes earlier than the wait.
        let waking =
            wakings.get(&tid).and_then(|of| of.iter().rev().find(|waking| waking.0 <= wait.from + ROUNDED + ROUNDED));
        let waker = waking.map(|&(_, current, context)| match context {
            Context::Task => (Context::Task, current),
            context => (context, 0),
        });
        let ours = match wait.waker {
            Waker::Task(task) => (Context::Task, tids.at(task, wait.from)),
            Waker::Interrupt(context) => (context, 0),
        };
        if waker == Some(ours) {
            wakers += 1;
        } else {
            table.note(format!("waker of {tid} at {}: ours {ours:?}, theirs {waking:?}", wait.from.0));
        }
        let put = wakeups.get(&tid).and_then(|of| {
            let of = of.iter().rev().find(|wakeup| wakeup.0 <= wait.until + ROUNDED)?;
            (of.0 + ROUNDED >= wait.from).then_some(*of)
        });
        if put.is_some_and(|put| put.1 == wait.target) {
            targets += 1;
        } else if put.is_none() && hidden.contains(&wait.target) {
            unshown += 1;
        } else {
            table.note(format!(
                "target of {tid}, {} to {}: ours {}, theirs {put:?}",
                wait.from.0, wait.until.0, wait.target
            ));
        }
    }
    table.count("all woken", "ftrace: sched_waking: wakers", wakers, all);
    table.count("all woken", "ftrace: sched_wakeup: targets", targets, all - unshown);
    if unshown > 0 {
        table.note(format!(
            "left out: {unshown} targets, where an idle task that ftrace does not show put the task on its queue"
        ));
    }
}

/// Notes how much of what is difficult there was; fails if there was none of it.
pub fn variety(table: &mut Table, trace: &Trace, within: &Range<Nanos>) {
    let events = || trace.events.iter().filter(|event| within.contains(&event.ts));
    let wakings = |is: &dyn Fn(&schedtrace_core::Waking, u16) -> bool| {
        events().filter(|e| matches!(&e.kind, EventKind::Waking(waking) if is(waking, e.cpu.0))).count()
    };
    let migrations = |placed| {
        events().filter(|event| matches!(event.kind, EventKind::Migrate(migrate) if migrate.placed == placed)).count()
    };
    let cases = [
        ("wakings from hardware interrupts", wakings(&|waking, _| waking.context == Context::Hardirq)),
        ("wakings from software interrupts", wakings(&|waking, _| waking.context == Context::Softirq)),
        ("wakings of a task of another CPU", wakings(&|waking, cpu| waking.prev_cpu.0 != cpu)),
        ("wakings of a task on a CPU", wakings(&|waking, _| waking.on_cpu)),
        ("migrations on wakeup", migrations(true)),
        ("migrations from queue to queue", migrations(false)),
    ];
    for (name, count) in cases {
        assert!(count > 0, "no {name}");
        table.note(format!("{name}: {count}"));
    }
}
