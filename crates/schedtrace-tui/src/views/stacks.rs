//! Where one task is in the kernel, as the kernel tells it now.

use schedtrace_core::system::stacks::{KernelFrame, KernelStack};

use super::Cx;
use crate::machine::Stacks;
use crate::sheet::{Column, Row, Sheet, Target, Value};

const COLUMNS: &[Column] = &[
    Column {
        name: "FUNCTION",
        about: "A function of the kernel that the task is in; the one that it sleeps in is the first.",
        width: 0,
        rank: 0,
    },
    Column {
        name: "MODULE",
        about: "The module that the function is in; none of the kernel proper.",
        width: 16,
        rank: 2,
    },
    Column { name: "OFFSET", about: "How far into the function it is, of how many bytes.", width: 15, rank: 1 },
];

/// What it is called.
const TITLE: &str = "where it is in the kernel";
const NOT_RECORDED: &str = "traces hold no stacks: only of a machine that runs the kernel tells where a task is";
const NOBODY: &str = "open a task in a table to see where it is";
const NOT_THERE: &str = "looking where it is";
const NOWHERE: &str = "the kernel names no function that it is in";
const RUNS: &str = "it runs now, or waits for a CPU: the kernel tells where a task is while it sleeps";

/// The functions that a task is in; of a process, those of each of its threads below it.
pub(super) fn sheet(cx: &Cx<'_>) -> Sheet {
    let Some(machine) = cx.machine else { return Sheet::new(TITLE, COLUMNS, Vec::new()).or(NOT_RECORDED) };
    match &machine.stacks {
        None => Sheet::new(TITLE, COLUMNS, Vec::new()).or(if machine.asked.of.is_none() { NOBODY } else { NOT_THERE }),
        Some(Err(why)) => Sheet::new(TITLE, COLUMNS, Vec::new()).or(why.clone()),
        Some(Ok(stacks)) => told(stacks),
    }
}

fn told(stacks: &Stacks) -> Sheet {
    let part = stacks.threads.iter().any(|stack| !stack.is_whole && !stack.is_running());
    let part = if part { ": its innermost function alone, the others need CAP_SYS_ADMIN" } else { "" };
    if let ([stack], 1) = (&stacks.threads[..], stacks.threads_total) {
        let empty = if stack.is_running() { RUNS } else { NOWHERE };
        let title = format!("{TITLE}: {}{part}", doing(stack));
        return Sheet::new(title, COLUMNS, frames(stack, 0)).or(empty);
    }
    let mut rows = Vec::new();
    for stack in &stacks.threads {
        let target = Target::Thread { tid: stack.tid, pid: 0 };
        rows.push(Row { target, depth: 0, cells: vec![Value::text(doing(stack)), Value::None, Value::None] });
        rows.extend(frames(stack, 1));
    }
    let title = format!("where its threads are in the kernel{part}");
    Sheet::new(title, COLUMNS, rows).folded().of(stacks.threads_total).or(NOWHERE)
}

/// `bash[12] sleeps in wait4`.
fn doing(stack: &KernelStack) -> String {
    let does = match stack.state {
        'R' => "runs now, or waits for a CPU",
        'D' => "sleeps, and no signal wakes it",
        'S' => "sleeps",
        'I' => "is idle",
        'T' | 't' => "is stopped",
        'Z' | 'X' => "has ended",
        'P' => "is parked",
        _ => "is in a state that is not known",
    };
    let call = stack.syscall.as_ref().map_or_else(String::new, |call| format!(", in the system call {call}"));
    format!("{}[{}] {does}{call}", stack.comm, stack.tid)
}

fn frames(stack: &KernelStack, depth: u8) -> Vec<Row> {
    let row = |(at, frame): (usize, &KernelFrame)| {
        let offset = frame.offset_bytes.map(|offset| match frame.size_bytes {
            Some(size) => format!("{offset:#x} of {size:#x}"),
            None => format!("{offset:#x}"),
        });
        Row {
            target: Target::Named(format!("{} {at} {}", stack.tid, frame.function)),
            depth,
            cells: vec![
                Value::text(frame.function.clone()),
                frame.module.clone().map_or(Value::None, Value::text),
                offset.map_or(Value::None, Value::text),
            ],
        }
    };
    stack.frames.iter().enumerate().map(row).collect()
}
