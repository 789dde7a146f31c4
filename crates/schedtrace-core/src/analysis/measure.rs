//! Durations with the worst examples: what every report says of a latency.

use serde::Serialize;

use super::distribution::{Distribution, Summary};
use super::groups::Merge;
use super::states::Seen;
use super::tasks::Who;
use crate::event::{Cpu, Nanos, TaskId};

/// So many examples are kept with each distribution.
pub(super) const EXAMPLES: usize = 3;

/// How long something took, and when it took longest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// Count, quantiles and extremes.
    #[serde(flatten)]
    pub summary: Summary,
    /// The longest ones, longest first.
    pub worst: Vec<Example>,
}

/// One of the longest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// When it began.
    pub at_ns: Nanos,
    /// How long it took.
    pub latency_ns: u64,
    /// On which CPU it ended.
    pub cpu: Cpu,
    /// Whom it concerned, if anybody.
    pub task: Option<Who>,
}

/// Adds up durations.
#[derive(Clone, Debug, Default)]
pub(super) struct Measure {
    all: Distribution,
    /// Not in order.
    worst: Vec<Example>,
}

impl Measure {
    /// Takes a duration that began at `at`.
    pub(super) fn record(&mut self, at: Nanos, ns: u64, cpu: Cpu, task: Option<TaskId>, seen: &Seen<'_>) {
        self.all.record(ns);
        if ns > 0 && (self.worst.len() < EXAMPLES || self.worst.iter().any(|worst| worst.latency_ns < ns)) {
            self.keep(Example { at_ns: at, latency_ns: ns, cpu, task: task.map(|task| seen.tasks.who(task)) });
        }
    }

    #[cold]
    fn keep(&mut self, example: Example) {
        if self.worst.len() < EXAMPLES {
            self.worst.push(example);
        } else if let Some(least) = self.worst.iter_mut().min_by_key(|worst| worst.latency_ns) {
            *least = example;
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.all.count()
    }

    pub(super) fn total_ns(&self) -> u64 {
        self.all.total_ns()
    }

    pub(super) fn distribution(&self) -> &Distribution {
        &self.all
    }

    pub(super) fn report(&self) -> Latencies {
        let mut worst = self.worst.clone();
        worst.sort_by_key(|example| (std::cmp::Reverse(example.latency_ns), example.at_ns));
        Latencies { summary: self.all.summary(), worst }
    }
}

impl Merge for Measure {
    fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
        for example in &other.worst {
            if self.worst.len() < EXAMPLES || self.worst.iter().any(|worst| worst.latency_ns < example.latency_ns) {
                self.keep(example.clone());
            }
        }
    }
}
