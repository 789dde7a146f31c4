//! Who waited, in a table; and one of them in depth.

use std::collections::HashMap;

use schedtrace_core::analysis::{
    Contender, Explanation, Group, GroupBy, HeldBy, Lanes, MigrationCounts, OffCpuPart, Report, ReportName, Step,
    Subject, SwitchCounts, ThreadState, WakeupCounts, WhoseDoing,
};

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::{Cx, Effect, View, lanes, stacks};
use crate::engine::{Lined, Wants};
use crate::keys::Action;
use crate::machine::Part;
use crate::sheet::{Column, Row, Sheet, Target, Value};

pub(super) const COLUMNS: &[Column] = &[
    Column { name: "WHO", about: "The thread, process, cgroup, CPU or cache.", width: 24, rank: 0 },
    Column { name: "CPU", about: "CPU time, as a share of one CPU.", width: 7, rank: 1 },
    Column { name: "WAITED", about: "Time runnable without a CPU, all together.", width: 8, rank: 1 },
    Column { name: "WAITS", about: "How often it waited for a CPU.", width: 7, rank: 3 },
    Column { name: "P50", about: "The median of its waits.", width: 7, rank: 6 },
    Column { name: "P99", about: "99 of 100 of its waits were not longer.", width: 7, rank: 2 },
    Column {
        name: "LONGEST",
        about: "The longest of its waits; >: it is not over, or not seen whole.",
        width: 8,
        rank: 4,
    },
    Column { name: "SWITCHES", about: "How often it left a CPU.", width: 9, rank: 5 },
    Column { name: "FORCED", about: "How often that was against its will.", width: 7, rank: 7 },
    Column { name: "WOKEN", about: "How often it was woken.", width: 7, rank: 6 },
    Column { name: "MOVED", about: "How often it moved to another CPU.", width: 7, rank: 7 },
    Column { name: "BEHIND", about: "Who had the CPU while it waited.", width: 0, rank: 2 },
];

/// A row for each that ran or waited, those that waited longest first.
pub(super) fn rows(report: &Report) -> Vec<Row> {
    let window = report.window.duration_ns.0.max(1) as f64;
    let ran: HashMap<&Group, u64> = report.cpu_time.groups.iter().map(|row| (&row.group, row.cpu_time_ns)).collect();
    let held: HashMap<&Group, &HeldBy> = report.holders.groups.iter().map(|row| (&row.group, &row.held_by)).collect();
    let switches: HashMap<&Group, &SwitchCounts> =
        report.switches.groups.iter().map(|row| (&row.group, &row.counts)).collect();
    let wakeups: HashMap<&Group, &WakeupCounts> =
        report.wakeups.groups.iter().map(|row| (&row.group, &row.counts)).collect();
    let moves: HashMap<&Group, &MigrationCounts> =
        report.migrations.groups.iter().map(|row| (&row.group, &row.counts)).collect();
    let waited: HashMap<&Group, usize> =
        report.run_queue.groups.iter().enumerate().map(|(at, row)| (&row.group, at)).collect();
    let alone = report.cpu_time.groups.iter().map(|row| &row.group).filter(|group| !waited.contains_key(group));
    let all = report.run_queue.groups.iter().map(|row| &row.group).chain(alone);
    let row = |group: &Group| {
        let stats = waited.get(group).map(|&at| &report.run_queue.groups[at].stats);
        let figure = |figure| stats.map_or(Value::None, |stats| Value::of(&stats.wait, figure));
        let count = |count: Option<u64>| count.map_or(Value::None, Value::Count);
        Row {
            target: Target::of(group),
            depth: 0,
            cells: vec![
                Value::text(group.to_string()),
                ran.get(group).map_or(Value::None, |ns| Value::Ratio(*ns as f64 / window)),
                stats.map_or(Value::None, |stats| Value::waited(&stats.wait, [&stats.censored, &stats.in_loss])),
                count(stats.map(|stats| stats.wait.count + stats.censored.waits + stats.in_loss.waits)),
                figure(|wait| wait.p50_ns),
                figure(|wait| wait.p99_ns),
                stats.map_or(Value::None, |stats| Value::longest(&stats.wait, [&stats.censored, &stats.in_loss])),
                count(switches.get(group).map(|counts| counts.switches)),
                count(switches.get(group).map(|counts| counts.involuntary)),
                count(wakeups.get(group).map(|counts| counts.wakeups)),
                count(moves.get(group).map(|counts| counts.migrations)),
                Value::text(held.get(group).map_or(String::new(), |held| behind(held))),
            ],
        }
    };
    all.map(row).collect()
}

/// Who held the CPU, with shares of the time: `83% stress-ng[7], 9% kworker[12], 3% idle CPU`.
fn behind(held_by: &HeldBy) -> String {
    if held_by.wait_ns == 0 {
        return String::new();
    }
    let mut shares: Vec<(f64, String)> =
        held_by.holders.iter().map(|holder| (holder.share_ratio, holder.group.to_string())).collect();
    shares.push((held_by.others_ns as f64 / held_by.wait_ns as f64, "others".to_owned()));
    shares.push((held_by.idle_ratio, "idle CPU".to_owned()));
    shares.push((held_by.unknown_ratio, "unknown".to_owned()));
    shares.sort_by(|a, b| b.0.total_cmp(&a.0));
    let told = shares.into_iter().take(3).filter(|(share, _)| *share >= 0.005);
    told.map(|(share, who)| format!("{:.0}% {who}", share * 100.0)).collect::<Vec<_>>().join(", ")
}

/// No more threads of a process are drawn above its tables: the timeline has all.
const LANES: usize = 3;

/// One of them.
pub(super) struct Depth(Subject);

impl Depth {
    pub(super) fn new(of: Option<Subject>) -> Self {
        Self(of.unwrap_or(Subject::Last))
    }
}

const CHAIN: &[Column] = &[
    Column {
        name: "HOW ITS TIME WAS SPENT",
        about: "Each step, and below it what that waited for.",
        width: 0,
        rank: 0,
    },
    Column { name: "SHARE", about: "Of the window.", width: 7, rank: 1 },
    Column { name: "TIME", about: "All of it together.", width: 8, rank: 1 },
    Column { name: "TIMES", about: "How often.", width: 7, rank: 2 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
];

const STATES: &[Column] = &[
    Column { name: "STATE", about: "What a thread did.", width: 18, rank: 0 },
    Column { name: "TIME", about: "All of it together.", width: 8, rank: 1 },
    Column { name: "TIMES", about: "How often.", width: 8, rank: 2 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
    Column { name: "WHO", about: "Which thread.", width: 0, rank: 1 },
];

const DELAYS: &[Column] = &[
    Column { name: "AT", about: "When it began, in seconds from the beginning of the recording.", width: 12, rank: 0 },
    Column { name: "LASTED", about: "How long it was off the CPU.", width: 8, rank: 0 },
    Column { name: "REASON", about: "Why.", width: 16, rank: 1 },
    Column { name: "WHO", about: "Which thread.", width: 22, rank: 1 },
    Column { name: "BY", about: "Who had the CPU, or ended the sleep.", width: 0, rank: 1 },
];

const DOINGS: &[Column] = &[
    Column { name: "WHO", about: "Another task, an interrupt, or nobody that is known.", width: 28, rank: 0 },
    Column { name: "TIME", about: "All of it together.", width: 8, rank: 1 },
    Column { name: "SHARE", about: "Of all time that it was off the CPU.", width: 7, rank: 1 },
    Column { name: "HAD THE CPU", about: "How long, while this one waited for it.", width: 12, rank: 2 },
    Column { name: "TURNS", about: "How often it had it then.", width: 7, rank: 3 },
    Column { name: "SLEPT UNTIL", about: "How long this one slept until that one woke it.", width: 12, rank: 2 },
    Column { name: "WOKE", about: "How often it woke this one.", width: 7, rank: 3 },
];

impl View for Depth {
    fn wants(&self, _: GroupBy, width: u16) -> Wants {
        let mut wants = Wants::default().report(GroupBy::Task, ReportName::ThreadStates);
        (wants.explain, wants.off_cpu) = (Some(self.0), Some(self.0));
        let columns = width.saturating_sub(lanes::LABEL).max(10);
        wants.timeline = Some(Lined { lanes: Lanes::Tasks, columns, subject: Some(self.0) });
        wants
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Stacks]
    }

    fn height(&self, cx: &Cx<'_>, area: Rect) -> u16 {
        let drawn = cx.picture.timeline.as_ref().map_or(0, |it| it.answer.lanes.len().min(LANES));
        if drawn == 0 || area.height < 16 { 0 } else { drawn as u16 + 2 }
    }

    fn draw(&mut self, cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
        let Some(timeline) = cx.picture.timeline.as_ref().map(|it| &it.answer).filter(|_| area.height > 0) else {
            return;
        };
        let look = lanes::Look { cursor: None, names: false };
        let mut lines = vec![lanes::ruler(timeline, None, cx.theme)];
        lines.extend(timeline.lanes.iter().take(LANES).map(|lane| lanes::line(lane, timeline, look, cx.theme)));
        lines.push(Line::from(lanes::legend(Lanes::Tasks, cx.theme, area.width)).style(cx.theme.dim));
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let Some(explain) = &cx.picture.explain else { return Vec::new() };
        vec![chain(&explain.answer), doings(cx), self.delays(cx), self.states(cx), stacks::sheet(cx)]
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Back, Action::NextPanel, Action::Open, Action::Timeline]
    }

    fn open(&self, target: &Target) -> Option<Effect> {
        match target {
            Target::Moment { from, until, .. } => {
                let margin = schedtrace_core::Nanos((*until - *from).0 / 2 + 1);
                Some(Effect::Look(crate::engine::Range::Between(*from - margin, *until + margin)))
            }
            other => other.subject().map(|who| Effect::Go(super::Place::of(super::Name::Task, who))),
        }
    }
}

fn chain(it: &Explanation) -> Sheet {
    fn below(steps: &[Step], depth: u8, rows: &mut Vec<Row>) {
        for step in steps {
            let moment = step.evidence.first();
            let target = moment.map_or(Target::Nothing, |moment| Target::Moment {
                from: moment.from_ns,
                until: moment.until_ns,
                tid: step.who.as_ref().map(|who| who.tid),
                cpu: moment.cpu,
            });
            let cells = vec![
                Value::text(step.sentence.clone()),
                Value::Ratio(step.share_ratio),
                Value::Time(step.total_ns),
                Value::Count(step.times),
                Value::Time(step.longest_ns),
            ];
            rows.push(Row { target, depth, cells });
            below(&step.steps, depth.saturating_add(1), rows);
        }
    }
    let mut rows = Vec::new();
    below(&it.steps, 0, &mut rows);
    let who = it.subject.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let title = format!(
        "{who}: {:.0}% lost to others ({}); {}",
        it.contended_ratio * 100.0,
        it.severity.name(),
        it.recommendation.action
    );
    Sheet::new(title, CHAIN, rows).or("it did nothing in this time: press 0 for all of it")
}

/// Who had the CPU while it waited, and who woke it.
fn doings(cx: &Cx<'_>) -> Sheet {
    let Some(off_cpu) = cx.picture.off_cpu.as_ref().map(|it| &it.answer) else { return Sheet::default() };
    let turns = |part: &OffCpuPart, whose: &WhoseDoing| {
        let found = part.contenders.iter().find(|blamed| blamed.whose == *whose);
        found.map_or(Value::None, |blamed| Value::Count(blamed.times))
    };
    let time = |ns: u64| if ns == 0 { Value::None } else { Value::Time(ns) };
    let row = |it: &Contender| Row {
        target: match &it.whose {
            WhoseDoing::Tasks { group } => Target::of(group),
            other => Target::Named(other.to_string()),
        },
        depth: 0,
        cells: vec![
            Value::text(it.whose.to_string()),
            Value::Time(it.total_ns),
            Value::Ratio(it.share_ratio),
            time(it.held_ns),
            turns(&off_cpu.waits, &it.whose),
            time(it.slept_ns),
            turns(&off_cpu.sleeps, &it.whose),
        ],
    };
    let rows = off_cpu.contenders.iter().map(row).collect();
    Sheet::new("whose doing it was that it did not run", DOINGS, rows).or("it was never off the CPU in this time")
}

impl Depth {
    fn delays(&self, cx: &Cx<'_>) -> Sheet {
        let Some(off_cpu) = &cx.picture.off_cpu else { return Sheet::default() };
        let parts = [&off_cpu.answer.waits, &off_cpu.answer.sleeps];
        let mut rows: Vec<Row> = Vec::new();
        for sample in parts.iter().flat_map(|part| &part.tail) {
            let by = sample.held_by.first().and_then(|holder| holder.who.as_ref()).or(sample.by.as_ref());
            let target = Target::Moment {
                from: sample.from_ns,
                until: sample.from_ns + schedtrace_core::Nanos(sample.duration_ns),
                tid: Some(sample.task.tid),
                cpu: Some(sample.cpu),
            };
            let cells = vec![
                Value::Moment(sample.from_ns),
                Value::Time(sample.duration_ns),
                Value::text(sample.reason.name()),
                Value::text(sample.task.to_string()),
                Value::text(by.map_or(String::new(), ToString::to_string)),
            ];
            rows.push(Row { target, depth: 0, cells });
        }
        rows.sort_by(|a, b| b.cells[1].compare(&a.cells[1]));
        Sheet::new("when it did not run", DELAYS, rows).or("it was never off the CPU in this time")
    }

    fn states(&self, cx: &Cx<'_>) -> Sheet {
        let Some(states) = cx.picture.report(GroupBy::Task).and_then(|set| set.states.as_ref()) else {
            return Sheet::default();
        };
        let is_it = |group: &Group| match (group, self.0) {
            (Group::Task(who), Subject::Thread(tid)) => who.tid == tid,
            (Group::Task(who), Subject::Process(pid)) => who.pid == pid,
            _ => false,
        };
        let of = states.groups.iter().filter(|row| is_it(&row.group));
        let rows = of.flat_map(|row| row.states.iter().map(move |time| (&row.group, time)));
        let rows = rows.map(|(group, time)| Row {
            target: Target::of(group),
            depth: 0,
            cells: vec![
                Value::text(ThreadState::name(time.state)),
                Value::Time(time.total_ns),
                Value::Count(time.times),
                Value::Time(time.longest_ns),
                Value::text(group.to_string()),
            ],
        });
        Sheet::new("its states", STATES, rows.collect())
    }
}
