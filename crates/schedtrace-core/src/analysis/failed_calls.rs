//! System calls that failed, by task, call and error.

use serde::Serialize;

use super::explain::Subject;
use super::question::{About, Question, Study};
use super::states::{CpuRef, Observer, Seen};
use super::study::Scope;
use super::tables::{Table, leaves_out};
use super::tasks::{Who, WhoName};
use super::{Options, syscalls};
use crate::event::{Event, EventKind, Nanos, TaskId};
use crate::source::Meta;

/// Which failed calls count.
///
/// ```
/// use schedtrace_core::analysis::{FailedCallsOptions, Subject};
/// let denied = FailedCallsOptions { errnos: vec![1, 13], subject: Some(Subject::Process(4242)), ..Default::default() };
/// assert!(denied.comm.is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedCallsOptions {
    /// Only those of this thread or process; all if none.
    pub subject: Option<Subject>,
    /// Only those of tasks of this name.
    pub comm: Option<String>,
    /// Only these errors; all if empty.
    pub errnos: Vec<u32>,
    /// Only these calls, by their numbers; all if empty.
    pub calls: Vec<u32>,
}

/// System calls that failed in the window, by task, call and error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailedCallsReport {
    /// Whether the recording tells of failed calls at all (`syscall_failed`).
    pub recorded: bool,
    /// Calls that failed: all of them, whichever were asked for.
    pub failed: u64,
    /// Of these, those that were asked for.
    pub matching: u64,
    /// They, the most frequent first.
    pub rows: Vec<FailedCall>,
    /// How many rows there are.
    pub rows_total: usize,
    /// Of those that were asked for: how many have no row, since there were too many.
    pub others: u64,
}

/// A call of one task that failed with one error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailedCall {
    /// Whose.
    pub task: Who,
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
    /// When it failed first in the window.
    pub first_ns: Nanos,
    /// When it failed last in the window.
    pub last_ns: Nanos,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    who: Option<WhoName>,
    count: u64,
    first: Nanos,
    last: Nanos,
}

/// Whose system calls fail, and how?
#[derive(Clone, Debug)]
pub struct FailedCalls {
    scope: Scope,
    options: FailedCallsOptions,
    names: syscalls::Names,
    recorded: bool,
    failed: u64,
    matching: u64,
    rows: Table<(TaskId, u32, u32), Row>,
}

impl FailedCalls {
    /// The study of failed calls. Those of the recorder count where a subject is given: it may be the recorder.
    ///
    /// ```
    /// use schedtrace_core::analysis::{Analysis, FailedCalls, FailedCallsOptions, Options};
    /// let study = FailedCalls::study(FailedCallsOptions::default(), Options::default());
    /// assert_eq!(study.report().answer.rows_total, 0);
    /// ```
    #[must_use]
    pub fn study(wanted: FailedCallsOptions, options: Options) -> Study<Self> {
        let include_recorder = options.include_recorder || wanted.subject.is_some();
        let options = Options { include_recorder, ..options };
        let scope = Scope::new(&options);
        Study::with(Self { options: wanted, ..Self::new(&scope) }, scope, options)
    }

    fn is_wanted(&self, task: TaskId, seen: &Seen<'_>) -> bool {
        let Some(known) = seen.tasks.get(task) else {
            return self.options.subject.is_none() && self.options.comm.is_none();
        };
        let is_subject = match self.options.subject {
            None | Some(Subject::Last) => true,
            Some(Subject::Thread(tid)) => known.tid == tid,
            Some(Subject::Process(pid)) => known.tgid == pid,
        };
        is_subject && self.options.comm.as_ref().is_none_or(|comm| known.comm.to_string() == *comm)
    }
}

impl Observer for FailedCalls {
    fn happened(&mut self, event: &Event, _: CpuRef, seen: &Seen<'_>) {
        let EventKind::SyscallFailed(failed) = event.kind else { return };
        if !self.scope.contains(event.ts) || leaves_out(failed.task, seen) {
            return;
        }
        self.failed += 1;
        let is_in = |list: &[u32], number| list.is_empty() || list.contains(&number);
        let wanted = is_in(&self.options.errnos, failed.errno) && is_in(&self.options.calls, failed.number);
        if !wanted || !self.is_wanted(failed.task, seen) {
            return;
        }
        self.matching += 1;
        if let Some(row) = self.rows.at((failed.task, failed.number, failed.errno)) {
            if row.count == 0 {
                (row.who, row.first) = (seen.tasks.get(failed.task).map(WhoName::of), event.ts);
            }
            row.count += 1;
            row.last = row.last.max(event.ts);
        }
    }
}

impl Question for FailedCalls {
    type Answer = FailedCallsReport;

    fn new(scope: &Scope) -> Self {
        Self {
            scope: *scope,
            options: FailedCallsOptions::default(),
            names: syscalls::Names::default(),
            recorded: false,
            failed: 0,
            matching: 0,
            rows: Table::default(),
        }
    }

    fn begin(&mut self, meta: &Meta) {
        self.names = syscalls::Names::of(meta);
        self.recorded = meta.probes.iter().any(|probe| probe.kind == crate::event::Kind::SyscallFailed && probe.on);
    }

    fn answer(&self, about: &About, seen: &Seen<'_>) -> FailedCallsReport {
        let ranked = self.rows.ranked(|row| row.count);
        let row = |&((task, number, errno), row): &((TaskId, u32, u32), &Row)| FailedCall {
            task: row.who.map_or_else(|| seen.tasks.who(task), WhoName::who),
            number,
            name: self.names.call(number),
            errno,
            error: crate::system::errno_name(errno),
            count: row.count,
            rate_per_second: about.per_second(row.count),
            first_ns: row.first,
            last_ns: row.last,
        };
        FailedCallsReport {
            recorded: self.recorded || about.has(crate::event::Kind::SyscallFailed),
            failed: self.failed,
            matching: self.matching,
            rows: ranked.iter().take(self.scope.top()).map(row).collect(),
            rows_total: ranked.len(),
            others: self.rows.others(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::testing::{asked, asked_of, at};
    use super::*;
    use crate::event::SyscallFailed;

    fn failed(ts: u64, task: u32, number: u32, errno: u32) -> Event {
        at(ts, 0, SyscallFailed { task: TaskId(task), number, errno })
    }

    fn some() -> Vec<Event> {
        vec![
            failed(999, 1, 257, 2),
            failed(1_000, 1, 257, 2),
            failed(1_100, 6, 257, 2),
            failed(1_200, 1, 257, 2),
            failed(1_300, 1, 257, 13),
            failed(1_400, 7, 0, 11),
            // The recorder's.
            failed(1_500, 9, 0, 11),
            failed(2_000, 1, 257, 2),
        ]
    }

    #[test]
    fn failures_are_told_by_task_call_and_error() {
        let report = asked::<FailedCalls>(some(), vec![]).answer;
        assert_eq!((report.failed, report.matching, report.rows_total, report.recorded), (5, 5, 4, true));
        let first = &report.rows[0];
        assert_eq!((first.task.tid, first.number, first.errno, first.count), (101, 257, 2, 2));
        assert_eq!((first.first_ns, first.last_ns, first.rate_per_second), (Nanos(1_000), Nanos(1_200), 2e6));
        assert_eq!((first.error, first.name), (Some("ENOENT"), None), "nobody said which machine it is");
        assert!(!asked::<FailedCalls>(vec![], vec![]).answer.recorded);
    }

    #[test]
    fn only_what_was_asked_for_counts() {
        let of = |wanted: FailedCallsOptions| {
            let all = if wanted.subject.is_some() { 6 } else { 5 };
            let report = asked_of(|options| FailedCalls::study(wanted, options), some()).answer;
            assert_eq!(report.failed, all);
            report.rows.iter().map(|row| (row.task.tid, row.number, row.errno)).collect::<Vec<_>>()
        };
        let all = FailedCallsOptions::default;
        assert_eq!(of(FailedCallsOptions { errnos: vec![13, 11], ..all() }), [(101, 257, 13), (107, 0, 11)]);
        assert_eq!(of(FailedCallsOptions { calls: vec![0], ..all() }), [(107, 0, 11)]);
        let process = FailedCallsOptions { subject: Some(Subject::Process(106)), ..all() };
        assert_eq!(of(process), [(106, 257, 2), (107, 0, 11), (109, 0, 11)]);
        let recorder = FailedCallsOptions { subject: Some(Subject::Thread(109)), ..all() };
        assert_eq!(of(recorder), [(109, 0, 11)], "whoever asks for the recorder means it");
        assert_eq!(of(FailedCallsOptions { subject: Some(Subject::Thread(106)), ..all() }), [(106, 257, 2)]);
        assert_eq!(of(FailedCallsOptions { comm: Some("nobody".into()), ..all() }), []);
        assert_eq!(of(FailedCallsOptions { comm: Some("worker".into()), ..all() }).len(), 4);
    }

    #[test]
    fn strange_numbers_do_no_harm() {
        let events = (0..10_000).map(|n| failed(1_100, n + 10, u32::MAX - n, u32::MAX)).collect();
        let report = asked::<FailedCalls>(events, vec![]).answer;
        assert_eq!((report.rows_total, report.others, report.matching), (4_096, 10_000 - 4_096, 10_000));
    }
}
