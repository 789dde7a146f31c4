//! Processes, and their threads below them.

use std::collections::{BTreeSet, HashMap};

use schedtrace_core::Nanos;
use schedtrace_core::analysis::{
    Group, GroupBy, MigrationCounts, Report, ReportName, RunQueueStats, StateTime, SwitchCounts, ThreadState,
    WakeupCounts, Who,
};
use schedtrace_core::system::processes::TaskUse;

use super::processes::{llc, state};
use super::system::told;
use super::{Cx, View, tasks};
use crate::engine::Wants;
use crate::keys::Action;
use crate::machine::Part;
use crate::roster::Roster;
use crate::sheet::{Column, Row, Sheet, Target, Value};

pub(super) struct Tasks;

const COLUMNS: &[Column] = &[
    Column { name: "WHO", about: "The process, and below it its threads.", width: 24, rank: 0 },
    Column { name: "CPU", about: "CPU time, as a share of one CPU.", width: 7, rank: 1 },
    Column { name: "RUN", about: "CPU time, all together.", width: 8, rank: 1 },
    Column { name: "WAIT", about: "Time runnable without a CPU, all together.", width: 8, rank: 1 },
    Column { name: "P99 WAIT", about: "99 of 100 of its waits were not longer.", width: 8, rank: 1 },
    Column {
        name: "LONGEST",
        about: "The longest of its waits; >: it is not over, or not seen whole.",
        width: 8,
        rank: 5,
    },
    Column { name: "SWITCHES", about: "How often it left a CPU.", width: 9, rank: 2 },
    Column { name: "WAKEUPS", about: "How often it was woken.", width: 8, rank: 3 },
    Column { name: "MIGRATIONS", about: "How often it moved to another CPU.", width: 10, rank: 3 },
    Column {
        name: "STATE",
        about: "Its state now; of a recording, the one in which it was longest.",
        width: 16,
        rank: 3,
    },
    Column { name: "LLC", about: "The last-level cache it ran on last, by its lowest CPU.", width: 6, rank: 6 },
    Column { name: "WAKER", about: "Who woke it most often, and how large a part that was.", width: 24, rank: 4 },
    Column { name: "OFF-CPU", about: "Why it was not on a CPU: what took most time.", width: 34, rank: 7 },
    Column { name: "CGROUP", about: "Its cgroup.", width: 0, rank: 8 },
];

impl View for Tasks {
    fn wants(&self, by: GroupBy, _: u16) -> Wants {
        let levels: &[GroupBy] = match by {
            GroupBy::Task => &[GroupBy::Process, GroupBy::Task],
            GroupBy::Process => &[GroupBy::Process],
            _ => return Wants::default().sched(by),
        };
        let of = |wants: Wants, &by: &GroupBy| wants.sched(by).report(by, ReportName::ThreadStates);
        Wants { roster: true, ..levels.iter().fold(Wants::default(), of) }
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::States]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        match cx.by {
            GroupBy::Task | GroupBy::Process => vec![tree(cx)],
            by => {
                let Some(report) = cx.picture.sched(by) else { return Vec::new() };
                let rows = tasks::rows(report);
                let total = report.cpu_time.groups_total.max(report.run_queue.groups_total).max(rows.len());
                vec![
                    Sheet::new(format!("by {by}"), tasks::COLUMNS, rows)
                        .of(total)
                        .said_without_recorder(&report.completeness)
                        .or("nobody ran in this time: press 0 for all of it"),
                ]
            }
        }
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Open, Action::Fold, Action::FoldAll, Action::Explain, Action::Group, Action::SortNext, Action::Filter]
    }
}

/// Processes, those that waited longest first, each with its threads if it has several.
fn tree(cx: &Cx<'_>) -> Sheet {
    let Some(processes) = Figures::new(cx, GroupBy::Process) else { return Sheet::default() };
    let threads = Figures::new(cx, GroupBy::Task);
    let mut below: HashMap<u32, Vec<(&Group, &Who)>> = HashMap::new();
    for group in threads.iter().flat_map(Figures::groups) {
        if let Group::Task(who) = group {
            below.entry(who.pid).or_default().push((group, who));
        }
    }
    let places = Places::new(cx);
    let mut rows = Vec::new();
    for group in processes.groups() {
        let threads_of = match group {
            Group::Process { pid, .. } => below.remove(pid).unwrap_or_default(),
            _ => Vec::new(),
        };
        let place = places.of_process(group, &threads_of);
        rows.push(processes.row(group, 0, place));
        // A process of one thread is that thread.
        let is_alone = matches!(&threads_of[..], [(_, who)] if who.tid == who.pid);
        if let Some(threads) = threads.as_ref().filter(|_| !is_alone) {
            let row = |(group, who): &(&Group, &Who)| threads.row(group, 1, places.of_thread(who));
            rows.extend(threads_of.iter().map(row));
        }
    }
    let title = match threads.as_ref().map(Figures::shown_and_total) {
        Some((shown, total)) if shown < total => format!("processes, with {shown} of {total} threads"),
        _ => "processes".to_owned(),
    };
    let about = &processes.report.completeness;
    let sheet =
        Sheet::new(title, COLUMNS, rows).folded().of(processes.shown_and_total().1).said_without_recorder(about);
    sheet.or("nobody ran in this time: press 0 for all of it")
}

/// What was worked out for processes, or for threads, to be found by group.
struct Figures<'a> {
    report: &'a Report,
    window_ns: f64,
    ran: HashMap<&'a Group, u64>,
    waited: HashMap<&'a Group, &'a RunQueueStats>,
    switches: HashMap<&'a Group, &'a SwitchCounts>,
    wakeups: HashMap<&'a Group, &'a WakeupCounts>,
    moves: HashMap<&'a Group, &'a MigrationCounts>,
    /// Who woke it most often.
    wakers: HashMap<&'a Group, (String, u64)>,
    states: HashMap<&'a Group, &'a [StateTime]>,
}

impl<'a> Figures<'a> {
    fn new(cx: &Cx<'a>, by: GroupBy) -> Option<Self> {
        let report = cx.picture.sched(by)?;
        let states = cx.picture.report(by).and_then(|set| set.states.as_ref());
        let mut wakers = HashMap::new();
        // The pairs come with the most frequent first.
        for pair in &report.wakeups.pairs {
            wakers.entry(&pair.wakee).or_insert_with(|| (pair.waker.to_string(), pair.wakeups));
        }
        Some(Self {
            report,
            window_ns: report.window.duration_ns.0.max(1) as f64,
            ran: report.cpu_time.groups.iter().map(|row| (&row.group, row.cpu_time_ns)).collect(),
            waited: report.run_queue.groups.iter().map(|row| (&row.group, &row.stats)).collect(),
            switches: report.switches.groups.iter().map(|row| (&row.group, &row.counts)).collect(),
            wakeups: report.wakeups.groups.iter().map(|row| (&row.group, &row.counts)).collect(),
            moves: report.migrations.groups.iter().map(|row| (&row.group, &row.counts)).collect(),
            wakers,
            states: states.iter().flat_map(|it| &it.groups).map(|row| (&row.group, &row.states[..])).collect(),
        })
    }

    /// Those that waited, the longest first, and then those that only ran.
    fn groups(&self) -> impl Iterator<Item = &'a Group> {
        let alone = self.report.cpu_time.groups.iter().map(|row| &row.group);
        let alone = alone.filter(|group| !self.waited.contains_key(group));
        self.report.run_queue.groups.iter().map(|row| &row.group).chain(alone)
    }

    /// How many there are a row for, and how many there are.
    fn shown_and_total(&self) -> (usize, usize) {
        let shown = self.groups().count();
        (shown, self.report.cpu_time.groups_total.max(self.report.run_queue.groups_total).max(shown))
    }

    fn row(&self, group: &Group, depth: u8, place: Place) -> Row {
        let (stats, ran) = (self.waited.get(group), self.ran.get(group));
        let count = |count: Option<u64>| count.map_or(Value::None, Value::Count);
        let wakeups = self.wakeups.get(group).map(|counts| counts.wakeups);
        // Whoever began a task is among those that woke it.
        let begun = self.wakeups.get(group).map(|counts| counts.wakeups + counts.new_tasks);
        let waker = self.wakers.get(group).map(|(who, times)| match begun.filter(|all| all >= times) {
            Some(all) => format!("{who} {:.0}%", *times as f64 / all as f64 * 100.0),
            None => who.clone(),
        });
        let states = self.states.get(group).copied().unwrap_or_default();
        Row {
            target: Target::of(group),
            depth,
            cells: vec![
                Value::text(group.to_string()),
                ran.map_or(Value::None, |ns| Value::Ratio(*ns as f64 / self.window_ns)),
                ran.map_or(Value::None, |ns| Value::Lasted(*ns)),
                stats.map_or(Value::None, |it| Value::waited(&it.wait, [&it.censored, &it.in_loss])),
                stats.map_or(Value::None, |it| Value::of(&it.wait, |wait| wait.p99_ns)),
                stats.map_or(Value::None, |it| Value::longest(&it.wait, [&it.censored, &it.in_loss])),
                count(self.switches.get(group).map(|counts| counts.switches)),
                count(wakeups),
                count(self.moves.get(group).map(|counts| counts.migrations)),
                Value::text(place.state.or_else(|| longest(states)).unwrap_or_default()),
                place.llc,
                Value::text(waker.unwrap_or_default()),
                Value::text(off_cpu(states)),
                Value::text(place.cgroup.unwrap_or_default()),
            ],
        }
    }
}

/// The state in which it was longest.
fn longest(states: &[StateTime]) -> Option<&'static str> {
    states.iter().max_by_key(|time| time.total_ns).map(|time| time.state.name())
}

/// Why it was not on a CPU, what took most time first: `interruptible 1.2s, woken 3ms`.
fn off_cpu(states: &[StateTime]) -> String {
    let mut off: Vec<&StateTime> =
        states.iter().filter(|time| time.state != ThreadState::Running && time.total_ns > 0).collect();
    off.sort_by_key(|time| std::cmp::Reverse(time.total_ns));
    let told = off.iter().take(3).map(|time| format!("{} {}", time.state.name(), Nanos(time.total_ns)));
    told.collect::<Vec<_>>().join(", ")
}

/// Where somebody is, and what it does, as far as that is known.
struct Place {
    state: Option<&'static str>,
    llc: Value,
    cgroup: Option<String>,
}

struct Places<'a> {
    cx: &'a Cx<'a>,
    roster: Option<&'a Roster>,
    /// What the machine says now, by thread and by process.
    threads: HashMap<u32, &'a TaskUse>,
    processes: HashMap<u32, &'a TaskUse>,
}

impl<'a> Places<'a> {
    fn new(cx: &'a Cx<'a>) -> Self {
        let now = told(cx, |machine| &machine.tasks).ok();
        Self {
            cx,
            roster: cx.picture.roster.as_ref(),
            threads: now.iter().flat_map(|now| &now.threads).map(|task| (task.tid, task)).collect(),
            processes: now.iter().flat_map(|now| &now.processes).map(|task| (task.pid, task)).collect(),
        }
    }

    fn of_thread(&self, who: &Who) -> Place {
        let now = self.threads.get(&who.tid);
        let cpu = self.roster.and_then(|roster| roster.cpu(who.task));
        let cpu = cpu.and_then(|cpu| llc(self.cx, cpu));
        let cgroup = self.roster.and_then(|roster| roster.cgroup(who.task));
        Place {
            state: now.map(|now| state(now.state)),
            llc: cpu.map_or(Value::None, |llc| Value::Count(llc.into())),
            cgroup: cgroup.or_else(|| now?.cgroup.clone()),
        }
    }

    fn of_process(&self, group: &Group, threads: &[(&Group, &Who)]) -> Place {
        let Group::Process { pid, .. } = group else { return Place { state: None, llc: Value::None, cgroup: None } };
        let now = self.processes.get(pid);
        let leader = self.roster.and_then(|roster| roster.leader(*pid));
        let tasks = threads.iter().map(|(_, who)| who.task).chain(leader.filter(|_| threads.is_empty()));
        let llcs: BTreeSet<u32> = tasks.filter_map(|task| llc(self.cx, self.roster?.cpu(task)?)).collect();
        let cgroup = leader.and_then(|leader| self.roster?.cgroup(leader));
        Place {
            state: now.map(|now| state(now.state)),
            llc: match (llcs.first(), llcs.len()) {
                (None, _) => Value::None,
                (Some(only), 1) => Value::Count((*only).into()),
                (_, several) => Value::text(format!("{several} LLCs")),
            },
            cgroup: cgroup.or_else(|| now?.cgroup.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_cpu_time_is_told_by_reason() {
        let time = |state, total_ns| StateTime { state, times: 1, total_ns, longest_ns: total_ns };
        let states = [
            time(ThreadState::Running, 9_000_000),
            time(ThreadState::Woken, 1_000_000),
            time(ThreadState::Preempted, 0),
            time(ThreadState::Interruptible, 5_000_000),
        ];
        assert_eq!(off_cpu(&states), format!("interruptible {}, woken {}", Nanos(5_000_000), Nanos(1_000_000)));
        assert_eq!(longest(&states), Some("running"));
        assert_eq!((off_cpu(&[]), longest(&[])), (String::new(), None));
    }
}
