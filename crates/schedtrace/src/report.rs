//! `schedtrace report`: core's report as text.

use std::io::Write;

use schedtrace_core::analysis::{
    self, CauseKind, CpuUse, Group, GroupBy, HeldBy, Options, Report, RunQueueStats, Sched, WorstWait,
};
use schedtrace_core::trace::Excerpt;
use schedtrace_core::{Meta, Source};

use crate::args::ReportArgs;
use crate::render::{Column, heading, more, table};
use crate::units::{count, offset, percent, plural, ratio, span};
use crate::window;
use crate::{Failure, print_json, reports};

/// Rows that are looked up by group when a row of text is put together.
const JOINED: usize = 1000;
/// Names of holders in a sentence.
const NAMES: usize = 5;

pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    if reports::asks_for_help(args) {
        return reports::help();
    }
    if !args.names.is_empty() {
        return reports::run(args);
    }
    let Excerpt { mut reader, from, until, .. } = window::open(&args.trace, &args.window)?;
    // As text, the columns of a row come from several lists, so that all of them are needed in whole.
    let top = if args.json { args.top } else { args.top.max(JOINED) };
    let options =
        Options { by: args.by, top, from, until, include_recorder: args.include_recorder, ..Options::default() };
    let report = analysis::run(&mut reader, Sched::new(options))?;
    if args.json {
        return print_json(&report);
    }
    let mut out = std::io::stdout().lock();
    let text = Text { report: &report, meta: reader.meta(), top: args.top };
    for section in [text.head(), text.waits(), text.worst(), text.cpus(), text.wakeups(), text.migrations()] {
        write!(out, "{section}")?;
    }
    writeln!(out, "{}", window::completeness(&report.completeness, report.cpu_time.recorder_ns))?;
    Ok(())
}

/// A report being written.
struct Text<'a> {
    report: &'a Report,
    meta: &'a Meta,
    top: usize,
}

impl Text<'_> {
    fn head(&self) -> String {
        window::head(self.meta, &self.report.window, self.report.events.values().sum())
    }

    fn waits(&self) -> String {
        let run_queue = &self.report.run_queue;
        let total = &run_queue.total;
        let mut text = format!("\n{}\n", heading("Why tasks waited for a CPU"));
        if total.wait.count == 0 {
            return text + "  No wait was seen from its beginning to its end.\n";
        }
        let wait = &total.wait;
        text += &format!(
            "  {} in {}: half below {}, p99 {}, p99.9 {}, the longest {}\n",
            span(wait.total_ns),
            plural(wait.count, "wait"),
            span(wait.p50_ns),
            span(wait.p99_ns),
            span(wait.p99_9_ns),
            span(wait.max_ns)
        );
        let causes = run_queue.causes.iter().filter(|row| row.wait.count > 0).map(|row| {
            let share = percent(ratio(row.wait.total_ns, wait.total_ns));
            format!("{share} {} ({})", cause(row.cause), plural(row.wait.count, "wait"))
        });
        text += &format!("  Of that time: {}.\n", causes.collect::<Vec<_>>().join(", "));
        text += &format!("  Meanwhile the CPU was with: {}.\n\n", by_name(&self.report.holders.total));

        let columns = [
            Column::Text(self.report.by.name()),
            Column::Number("waited"),
            Column::Number("waits"),
            Column::Number("p50"),
            Column::Number("p99"),
            Column::Number("max"),
            Column::Number("cpu time"),
            Column::Text("because"),
            Column::Text("behind"),
        ];
        let shown = run_queue.groups.iter().take(self.top);
        text += &table(&columns, shown.map(|row| self.wait_row(&row.group, &row.stats, row_causes(row))));
        text + &more(run_queue.groups.len().min(self.top), run_queue.groups_total)
    }

    fn wait_row(&self, group: &Group, stats: &RunQueueStats, causes: String) -> Vec<String> {
        let wait = &stats.wait;
        let cpu_time = self.report.cpu_time.groups.iter().find(|row| row.group == *group);
        let holders = self.report.holders.groups.iter().find(|row| row.group == *group);
        vec![
            group.to_string(),
            span(wait.total_ns),
            count(wait.count),
            span(wait.p50_ns),
            span(wait.p99_ns),
            span(wait.max_ns),
            cpu_time.map_or_else(|| "-".into(), |row| span(row.cpu_time_ns)),
            causes,
            holders.map_or_else(|| "-".into(), |row| held_by(&row.held_by, 2)),
        ]
    }

    fn worst(&self) -> String {
        let worst = &self.report.run_queue.worst;
        if worst.is_empty() {
            return String::new();
        }
        let columns = [
            Column::Number("at"),
            Column::Number("waited"),
            Column::Text("task"),
            Column::Number("cpu"),
            Column::Text("because"),
            Column::Text("behind"),
        ];
        let rows = worst.iter().take(self.top).map(|wait| {
            let held = holders_of(wait);
            vec![
                offset(wait.from_ns, self.meta.started),
                format!("{}{}", if wait.censored { ">" } else { "" }, span(wait.wait_ns)),
                wait.task.to_string(),
                format!("{}{}", wait.cpu, if wait.migrated { " (moved)" } else { "" }),
                why(wait),
                held,
            ]
        });
        format!("\n{}\n{}", heading("The longest waits"), table(&columns, rows))
    }

    fn cpus(&self) -> String {
        let cpu_time = &self.report.cpu_time;
        let columns = [
            Column::Number("cpu"),
            Column::Number("busy"),
            Column::Number("idle"),
            Column::Number("unknown"),
            Column::Number("switches"),
            Column::Number("of them voluntary"),
        ];
        let part = |used: &CpuUse, ns: u64| percent(ratio(ns, used.busy_ns + used.idle_ns + used.unknown_ns));
        let rows = cpu_time.cpus.iter().take(64).map(|row| {
            let switches = self.report.switches.cpus.iter().find(|switches| switches.cpu == row.cpu);
            let used = &row.used;
            vec![
                row.cpu.to_string(),
                part(used, used.busy_ns),
                part(used, used.idle_ns),
                part(used, used.unknown_ns),
                switches.map_or_else(|| "-".into(), |row| count(row.counts.switches)),
                switches.map_or_else(|| "-".into(), |row| percent(ratio(row.counts.voluntary, row.counts.switches))),
            ]
        });
        let mut text = format!("\n{}\n{}", heading("The CPUs"), table(&columns, rows));
        text += &more(cpu_time.cpus.len().min(64), cpu_time.cpus.len());
        let users = cpu_time.groups.iter().take(5).map(|row| format!("{} {}", row.group, span(row.cpu_time_ns)));
        let users: Vec<_> = users.collect();
        if !users.is_empty() && !matches!(self.report.by, GroupBy::Cpu | GroupBy::Llc) {
            text += &format!("  Most CPU time: {}.\n", users.join(", "));
        }
        text
    }

    fn wakeups(&self) -> String {
        let wakeups = &self.report.wakeups;
        if wakeups.pairs.is_empty() {
            return String::new();
        }
        let columns = [Column::Number("times"), Column::Text("waker"), Column::Text("woke")];
        let rows = wakeups.pairs.iter().take(5);
        let rows = rows.map(|pair| vec![count(pair.wakeups), pair.waker.to_string(), pair.wakee.to_string()]);
        let total = &wakeups.total;
        format!(
            "\n{}\n  {}, {} of them from interrupts; {}\n{}",
            heading("Who woke whom"),
            plural(total.wakeups, "wakeup"),
            percent(ratio(total.from_interrupt, total.wakeups)),
            plural(total.new_tasks, "new task"),
            table(&columns, rows)
        ) + &more(wakeups.pairs.len().min(5), wakeups.pairs_total)
    }

    fn migrations(&self) -> String {
        let total = &self.report.migrations.total;
        let places = [
            (total.core, "within a core"),
            (total.llc, "within an LLC"),
            (total.node, "within a node"),
            (total.cross_node, "across nodes"),
            (total.unknown, "between CPUs of unknown place"),
        ];
        let parts: Vec<_> =
            places.iter().filter(|(n, _)| *n > 0).map(|(n, place)| format!("{} {place}", count(*n))).collect();
        let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
        format!("\n{}\n  {}{parts}\n", heading("Migrations"), plural(total.migrations, "migration"))
    }
}

/// Why, in the words of a sentence: "61% woken".
fn cause(cause: CauseKind) -> &'static str {
    match cause {
        CauseKind::Woken => "after a wakeup",
        CauseKind::Throttled => "for want of CPU quota",
        CauseKind::New => "as new tasks",
        CauseKind::AtStart => "since before the start",
        _ => "after losing the CPU",
    }
}

fn row_causes(row: &analysis::RunQueueRow) -> String {
    let mut causes: Vec<_> = row.causes.iter().filter(|cause| cause.counts.waits > 0).collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.counts.wait_ns));
    let whole = row.stats.wait.total_ns;
    let parts = causes
        .iter()
        .take(2)
        .map(|cause| format!("{} {}", cause.cause.name(), percent(ratio(cause.counts.wait_ns, whole))));
    parts.collect::<Vec<_>>().join(", ")
}

fn why(wait: &WorstWait) -> String {
    let by = wait.by.as_ref().map(ToString::to_string).or_else(|| wait.by_interrupt.map(|c| c.name().to_owned()));
    match by {
        Some(by) => format!("{} by {by}", wait.cause.name()),
        None => wait.cause.name().to_owned(),
    }
}

/// The two that had the CPU longest during a wait, and for how long.
fn holders_of(wait: &WorstWait) -> String {
    let mut held: Vec<(String, u64)> = Vec::new();
    for holder in &wait.held_by {
        let who = match &holder.who {
            None => "unknown".into(),
            Some(who) if who.task.is_idle() => "nobody (idle)".into(),
            Some(who) => who.to_string(),
        };
        // A task that was moved may have waited for two idle CPUs.
        match held.iter_mut().find(|(known, _)| *known == who) {
            Some((_, ns)) => *ns += holder.held_ns,
            None => held.push((who, holder.held_ns)),
        }
    }
    let parts: Vec<_> = held.into_iter().take(2).map(|(who, ns)| format!("{who} {}", span(ns))).collect();
    if parts.is_empty() { "-".into() } else { parts.join(", ") }
}

/// Who had the CPU, by share: `stress[12] 83%, idle 3%`.
fn held_by(held: &HeldBy, most: usize) -> String {
    let mut parts: Vec<(f64, String)> =
        held.holders.iter().map(|holder| (holder.share_ratio, holder.group.to_string())).collect();
    parts.push((held.idle_ratio, "nobody (idle)".into()));
    parts.push((held.unknown_ratio, "unknown".into()));
    parts.retain(|(share, _)| *share > 0.0);
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let rest: f64 = parts.iter().skip(most).map(|(share, _)| share).sum::<f64>() + ratio(held.others_ns, held.wait_ns);
    let mut parts: Vec<_> =
        parts.into_iter().take(most).map(|(share, who)| format!("{who} {}", percent(share))).collect();
    if rest >= 0.001 {
        parts.push(format!("others {}", percent(rest)));
    }
    if parts.is_empty() { "-".into() } else { parts.join(", ") }
}

/// The same for all waits, by the names of the tasks: `hackbench (40 tasks) 85%`.
fn by_name(held: &HeldBy) -> String {
    let mut names: Vec<(String, u64, u64)> = Vec::new();
    for holder in &held.holders {
        let name = match &holder.group {
            Group::Task(who) => who.comm.clone(),
            Group::Process { comm, .. } => comm.clone(),
            other => other.to_string(),
        };
        match names.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, tasks, ns)) => (*tasks, *ns) = (*tasks + 1, *ns + holder.held_ns),
            None => names.push((name, 1, holder.held_ns)),
        }
    }
    names.push(("nobody (idle)".into(), 1, held.idle_ns));
    names.push(("unknown".into(), 1, held.unknown_ns));
    names.retain(|(.., ns)| *ns > 0);
    names.sort_by_key(|(.., ns)| std::cmp::Reverse(*ns));
    let rest = names.iter().skip(NAMES).map(|(.., ns)| ns).sum::<u64>() + held.others_ns;
    let parts = names.iter().take(NAMES).map(|(name, tasks, ns)| {
        let many = if *tasks > 1 { format!(" ({tasks} of that name)") } else { String::new() };
        format!("{name}{many} {}", percent(ratio(*ns, held.wait_ns)))
    });
    let rest = (rest > 0).then(|| format!("others {}", percent(ratio(rest, held.wait_ns))));
    parts.chain(rest).collect::<Vec<_>>().join(", ")
}
