//! System calls: which failed, and how long those took that were chosen.

use serde::Serialize;

use super::groups::{Gone, Group, GroupIx};
use super::measure::{Latencies, Measure};
use super::question::{About, Counts, Question};
use super::states::{CpuRef, Observer, Seen};
use super::study::Scope;
use super::tables::{Table, Tally, leaves_out};
use crate::event::{Event, EventKind, Syscall};
use crate::source::Meta;
use crate::system;

/// So many groups are named with each failure.
const TASKS: usize = 3;
/// Beyond it, a negative result says that the kernel makes the call again (`include/linux/errno.h`).
const MAX_ERRNO: i64 = 511;

/// System calls that ended in the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SyscallsReport {
    /// Calls that failed: all of them. Only where `syscall_failed` was recorded.
    pub failed: u64,
    /// By call and error, the most frequent first.
    pub failures: Vec<SyscallFailure>,
    /// How many calls and errors there are with any.
    pub failures_total: usize,
    /// Calls whose duration was recorded, those that took longest in all first.
    pub calls: Vec<SyscallRow>,
    /// How many there are with any.
    pub calls_total: usize,
    /// Events whose call has no row: there were too many.
    pub others: u64,
}

/// A call that failed with one error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SyscallFailure {
    /// The call's number on the recorded machine.
    pub number: u32,
    /// What it is called there, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    /// `errno(3)`.
    pub errno: u32,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// How often.
    pub count: u64,
    /// How often per second.
    pub rate_per_second: f64,
    /// The groups to which it happened most often, most first.
    pub groups: Vec<SyscallTask>,
}

/// One group to which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyscallTask {
    /// Which.
    pub group: Group,
    /// How often.
    pub count: u64,
}

/// A call whose duration was recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SyscallRow {
    /// Its number on the recorded machine.
    pub number: u32,
    /// What it is called there, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    /// How often it was made.
    pub count: u64,
    /// How often per second.
    pub rate_per_second: f64,
    /// How often it failed.
    pub failed: u64,
    /// How long it took, of those that lie in the window as a whole.
    pub latency: Latencies,
    /// Those that began before the window: no samples.
    pub censored: u64,
    /// The groups that spent most time in it, most first.
    pub groups: Vec<SyscallTime>,
}

/// One group that made a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyscallTime {
    /// Which.
    pub group: Group,
    /// How much time of the window it spent in the call.
    pub time_ns: u64,
}

/// What calls are called on the recorded machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    machine: String,
}

impl Names {
    pub(super) fn of(meta: &Meta) -> Self {
        Self { machine: meta.host.machine.clone() }
    }

    pub(super) fn call(&self, number: u32) -> Option<&'static str> {
        system::syscall_name(&self.machine, number)
    }
}

#[derive(Clone, Debug, Default)]
struct Failure {
    count: u64,
    groups: Tally<GroupIx>,
}

#[derive(Clone, Debug, Default)]
struct Call {
    count: u64,
    failed: u64,
    latency: Measure,
    censored: u64,
    groups: Tally<GroupIx>,
}

/// Which system calls fail, and how long do they take?
#[derive(Clone, Debug)]
pub struct Syscalls {
    scope: Scope,
    names: Names,
    failed: u64,
    failures: Table<(u32, u32), Failure>,
    calls: Table<u32, Call>,
}

impl Syscalls {
    fn called(&mut self, call: &Syscall, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
        let Some(counts) = self.scope.ended(event.ts, call.duration_ns) else { return };
        let Some(row) = self.calls.at(call.number) else { return };
        row.count += 1;
        row.failed += u64::from((-MAX_ERRNO..0).contains(&call.result));
        let ns = match counts {
            Counts::Sample(ns) => {
                row.latency.record(event.ts - call.duration_ns, ns, event.cpu, Some(call.task), seen);
                ns
            }
            Counts::Censored(ns) | Counts::InLoss(ns) => {
                row.censored += 1;
                ns
            }
        };
        if let Some(group) = self.scope.row_of(call.task, cpu, seen) {
            row.groups.add(group, ns);
        }
    }
}

impl Observer for Syscalls {
    fn happened(&mut self, event: &Event, cpu: CpuRef, seen: &Seen<'_>) {
        match event.kind {
            EventKind::SyscallFailed(failed) if self.scope.contains(event.ts) => {
                if let Some(group) = self.scope.row_of(failed.task, cpu, seen) {
                    self.failed += 1;
                    if let Some(row) = self.failures.at((failed.number, failed.errno)) {
                        row.count += 1;
                        row.groups.add(group, 1);
                    }
                }
            }
            EventKind::Syscall(call) if !leaves_out(call.task, seen) => self.called(&call, event, cpu, seen),
            _ => {}
        }
    }
}

impl Question for Syscalls {
    type Answer = SyscallsReport;

    fn new(scope: &Scope) -> Self {
        Self { scope: *scope, names: Names::default(), failed: 0, failures: Table::default(), calls: Table::default() }
    }

    fn begin(&mut self, meta: &Meta) {
        self.names = Names::of(meta);
    }

    fn fold(&mut self, gone: &Gone) {
        self.failures.values_mut().for_each(|row| row.groups.fold(gone));
        self.calls.values_mut().for_each(|row| row.groups.fold(gone));
    }

    fn answer(&self, about: &About, seen: &Seen<'_>) -> SyscallsReport {
        let top = self.scope.top();
        let group = |ix| seen.tasks.group(ix);
        let failures = self.failures.ranked(|row| row.count);
        let failure = |&((number, errno), row): &((u32, u32), &Failure)| SyscallFailure {
            number,
            name: self.names.call(number),
            errno,
            error: system::errno_name(errno),
            count: row.count,
            rate_per_second: about.per_second(row.count),
            groups: row.groups.top(TASKS).iter().map(|&(ix, count)| SyscallTask { group: group(ix), count }).collect(),
        };
        let calls = self.calls.ranked(|row| (row.latency.total_ns(), row.count));
        let time = |&(ix, time_ns): &(GroupIx, u64)| SyscallTime { group: group(ix), time_ns };
        let call = |&(number, row): &(u32, &Call)| SyscallRow {
            number,
            name: self.names.call(number),
            count: row.count,
            rate_per_second: about.per_second(row.count),
            failed: row.failed,
            latency: row.latency.report(),
            censored: row.censored,
            groups: row.groups.top(TASKS).iter().map(time).collect(),
        };
        SyscallsReport {
            failed: self.failed,
            failures: failures.iter().take(top).map(failure).collect(),
            failures_total: failures.len(),
            calls: calls.iter().take(top).map(call).collect(),
            calls_total: calls.len(),
            others: self.failures.others().saturating_add(self.calls.others()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Analysis;
    use super::super::tables::testing::{asked, at};
    use super::*;
    use crate::event::{Nanos, SyscallFailed, TaskId};

    fn failed(ts: u64, task: u32, number: u32, errno: u32) -> Event {
        at(ts, 0, SyscallFailed { task: TaskId(task), number, errno })
    }
    fn call(ts: u64, task: u32, number: u32, result: i64, ns: u64) -> Event {
        at(ts, 0, Syscall { task: TaskId(task), number, result, duration_ns: Nanos(ns) })
    }

    #[test]
    fn failures_are_told_by_call_and_error() {
        let events = vec![
            failed(999, 1, 2, 2),
            failed(1_000, 1, 2, 2),
            failed(1_100, 1, 2, 2),
            failed(1_200, 6, 2, 2),
            failed(1_300, 6, 2, 13),
            failed(1_400, 9, 2, 2),
            failed(2_000, 1, 2, 2),
        ];
        let report = asked::<Syscalls>(events, vec![]).answer;
        assert_eq!((report.failed, report.failures_total), (4, 2));
        let first = &report.failures[0];
        assert_eq!((first.number, first.errno, first.count, first.rate_per_second), (2, 2, 3, 3e6));
        let groups: Vec<_> = first.groups.iter().map(|task| (task.group.to_string(), task.count)).collect();
        assert_eq!(groups, [("worker[101]".to_owned(), 2), ("worker[106]".to_owned(), 1)]);
        assert_eq!(report.failures[1].errno, 13);
    }

    #[test]
    fn calls_are_named_as_on_the_machine_that_was_recorded() {
        let name = |machine: &str| {
            let host = system::Host { machine: machine.into(), ..system::Host::default() };
            let mut study = super::super::Study::<Syscalls>::new(super::super::Options::default());
            study.begin(&Meta { host, started: Nanos(1), ..Meta::default() });
            let events = vec![failed(10, 1, 57, 2), call(20, 1, 57, 0, 5)];
            study.update(&crate::event::Batch { until: Nanos(100), events, ..Default::default() });
            let answer = study.report().answer;
            (answer.failures[0].name, answer.failures[0].error, answer.calls[0].name)
        };
        assert_eq!(name("x86_64"), (Some("fork"), Some("ENOENT"), Some("fork")));
        assert_eq!(name("aarch64"), (Some("close"), Some("ENOENT"), Some("close")));
        assert_eq!(name("s390x"), (None, Some("ENOENT"), None));
    }

    #[test]
    fn durations_are_told_by_call() {
        let events = vec![
            // Began before the window.
            call(1_010, 1, 0, 5, 20),
            call(1_100, 1, 0, 5, 100),
            call(1_200, 2, 0, -11, 30),
            // The kernel makes it again.
            call(1_300, 2, 0, -512, 10),
            call(1_400, 2, 1, 0, 300),
            call(1_400, 9, 1, 0, 300),
            call(2_000, 1, 1, 0, 300),
        ];
        let report = asked::<Syscalls>(events, vec![]).answer;
        let [first, second] = &report.calls[..] else { panic!("two") };
        assert_eq!((first.number, first.count, first.latency.summary.total_ns), (1, 1, 300));
        assert_eq!((second.count, second.failed, second.censored), (4, 1, 1));
        assert_eq!((second.latency.summary.count, second.latency.summary.max_ns), (3, 100));
        let times: Vec<_> = second.groups.iter().map(|task| task.time_ns).collect();
        assert_eq!(times, [110, 40]);
    }

    #[test]
    fn strange_numbers_do_no_harm() {
        let mut events = vec![call(1_001, 1, u32::MAX, i64::MIN, u64::MAX), failed(1_001, 1, u32::MAX, u32::MAX)];
        events.extend((0..10_000).map(|n| call(1_100, n + 10, n, -1, 1)));
        events.extend((0..10_000).map(|n| failed(1_200, n + 10, 1, n)));
        let report = asked::<Syscalls>(events, vec![]).answer;
        assert_eq!((report.calls_total, report.failures_total), (4_096, 4_096));
        assert_eq!(report.others, 2 * (10_001 - 4_096));
    }
}
