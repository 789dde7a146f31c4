//! Processes and their threads as `/proc` shows them: for a machine without events, and for what events do not tell.

use std::collections::HashMap;

use schedtrace_core::Cpu;
use schedtrace_core::analysis::GroupBy;
use schedtrace_core::system::processes::TaskUse;

use super::system::told;
use super::{Cx, View};
use crate::engine::Wants;
use crate::keys::Action;
use crate::machine::{Part, Tasks};
use crate::sheet::{Column, Row, Sheet, Target, Value};

pub(super) struct Processes;

const COLUMNS: &[Column] = &[
    Column { name: "WHO", about: "The process, and below it its threads.", width: 32, rank: 0 },
    Column { name: "CPU", about: "CPU time now, as a share of one CPU.", width: 7, rank: 0 },
    Column { name: "WAIT", about: "Time on a run queue now, as a share of the time.", width: 7, rank: 1 },
    Column { name: "SWITCHES", about: "How often a second it leaves a CPU.", width: 9, rank: 2 },
    Column { name: "FORCED", about: "How often that is against its will.", width: 8, rank: 3 },
    Column { name: "STATE", about: "What it does now; of a process, its busiest thread.", width: 16, rank: 1 },
    Column { name: "THREADS", about: "How many it has.", width: 7, rank: 4 },
    Column { name: "ON CPU", about: "The CPU that it had last.", width: 6, rank: 4 },
    Column { name: "LLC", about: "The last-level cache of that, by its lowest CPU.", width: 5, rank: 5 },
    Column { name: "POLICY", about: "How it is scheduled.", width: 8, rank: 5 },
    Column { name: "NICE", about: "Its nice value, or rt and its priority.", width: 5, rank: 6 },
    Column { name: "ALL CPU", about: "CPU time since it began.", width: 8, rank: 5 },
    Column { name: "CGROUP", about: "Its cgroup.", width: 0, rank: 3 },
];

impl View for Processes {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        Wants::default()
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Tasks]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        vec![sheet(cx)]
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Fold, Action::FoldAll, Action::SortNext, Action::Filter, Action::Doctor]
    }
}

/// Processes with their threads, the busiest first.
pub(super) fn sheet(cx: &Cx<'_>) -> Sheet {
    match told(cx, |machine| &machine.tasks) {
        Err(why) => Sheet::new("processes", COLUMNS, Vec::new()).or(why),
        Ok(tasks) => {
            let title = format!("{} processes, {} threads", tasks.processes_total, tasks.threads_total);
            let rows = rows(tasks, cx);
            // A process of one thread has no row below it.
            let total = tasks.processes_total + tasks.threads_total.saturating_sub(tasks.alone_total);
            let total = total.max(rows.len());
            Sheet::new(title, COLUMNS, rows).of(total).folded().or("no process can be seen")
        }
    }
}

fn rows(tasks: &Tasks, cx: &Cx<'_>) -> Vec<Row> {
    let mut threads: HashMap<u32, Vec<&TaskUse>> = HashMap::new();
    for thread in &tasks.threads {
        threads.entry(thread.pid).or_default().push(thread);
    }
    let mut rows = Vec::with_capacity(tasks.processes.len() + tasks.threads.len());
    for process in &tasks.processes {
        rows.push(row(process, Target::Process(process.pid), 0, cx));
        let threads = threads.remove(&process.pid).unwrap_or_default();
        // A process of one thread is that thread.
        if process.threads > 1 {
            let thread = |task: &&TaskUse| row(task, Target::Thread { tid: task.tid, pid: task.pid }, 1, cx);
            rows.extend(threads.iter().map(thread));
        }
    }
    rows
}

fn row(task: &TaskUse, target: Target, depth: u8, cx: &Cx<'_>) -> Row {
    let rates = task.rates.as_ref();
    let rate = |rate: Option<f64>| rate.map_or(Value::None, Value::Rate);
    let both = rates.map(|rates| rates.voluntary_switches_per_second + rates.involuntary_switches_per_second);
    let number = |number: Option<u32>| number.map_or(Value::None, |number| Value::Count(number.into()));
    Row {
        target,
        depth,
        cells: vec![
            Value::text(format!("{}[{}]", task.comm, task.tid)),
            rates.map_or(Value::None, |rates| Value::Ratio(rates.cpu_ratio)),
            rates.map_or(Value::None, |rates| Value::Ratio(rates.wait_ratio)),
            rate(both),
            rate(rates.map(|rates| rates.involuntary_switches_per_second)),
            Value::text(state(task.state)),
            if depth == 0 { Value::Count(task.threads.into()) } else { Value::None },
            number(task.last_cpu.map(|cpu| cpu.0.into())),
            number(task.last_cpu.and_then(|cpu| llc(cx, cpu))),
            task.policy.map_or(Value::None, Value::text),
            match task.rt_priority {
                0 => Value::Int(task.nice.into()),
                priority => Value::text(format!("rt{priority}")),
            },
            Value::Lasted(task.counts.cpu_time_ns.0),
            task.cgroup.clone().map_or(Value::None, Value::text),
        ],
    }
}

/// The last-level cache of a CPU, by its lowest CPU.
pub(super) fn llc(cx: &Cx<'_>, cpu: Cpu) -> Option<u32> {
    cx.meta.topology.get(cpu).map(|info| info.llc)
}

/// The letter of proc(5), with a word.
pub(super) fn state(letter: char) -> &'static str {
    match letter {
        'R' => "R runnable",
        'S' => "S sleeps",
        'D' => "D uninterruptible",
        'I' => "I idle",
        'T' => "T stopped",
        't' => "t traced",
        'Z' => "Z ended",
        'X' => "X gone",
        _ => "?",
    }
}
