//! The critical path: from the end of a window back to its beginning, along whoever everything waited for.
//!
//! Where the path comes to the end of a sleep, it goes on with the task that ended it, at that moment; where it comes to
//! the beginning of a life, with the task that created it. So it is one line of stretches that cover the window without
//! overlap: had one of them been shorter, the end would have come earlier, as far as nothing else then became the longest
//! way (Yang and Miller, "Critical Path Analysis for the Execution of Parallel and Distributed Programs", ICDCS 1988).

use super::history::{Doing, Past, waker};
use crate::analysis::states::Cause;
use crate::event::{Nanos, TaskId};

/// So many parts are followed.
const MAX_PARTS: usize = 1 << 22;

/// A part of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) task: TaskId,
    /// What it did is known.
    pub(super) known: bool,
    pub(super) from: Nanos,
    pub(super) until: Nanos,
}

/// The path that ends with `task` at the end of the window, first part first.
pub(super) fn back_from(past: Past<'_>, task: TaskId, from: Nanos, until: Nanos) -> Vec<Part> {
    let (mut task, mut at) = (task, until);
    let mut parts: Vec<Part> = Vec::new();
    while at > from && parts.len() < MAX_PARTS {
        let Some(stretch) = past.before(task, at) else { break };
        if stretch.until < at {
            // Nothing is known of what it did since.
            parts.push(Part { task, known: false, from: stretch.until.max(from), until: at });
            at = stretch.until;
            continue;
        }
        let woken_by = match stretch.doing {
            Doing::Asleep { end, .. } if stretch.until == at => waker(end),
            _ => None,
        };
        // It was running then, or it could not have woken anybody.
        if let Some(waker) = woken_by.filter(|&waker| waker != task && past.ran_until(waker, at)) {
            task = waker;
            continue;
        }
        parts.push(Part { task, known: true, from: stretch.from.max(from), until: at });
        at = stretch.from;
        if let Doing::Waiting { cause: Cause::New(parent), .. } = stretch.doing
            && stretch.edges.begun
            && past.ran_until(parent, at)
        {
            task = parent;
        }
    }
    if at > from {
        parts.push(Part { task, known: false, from, until: at });
    }
    parts.reverse();
    parts
}
