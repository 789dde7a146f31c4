//! How long tasks waited for a CPU: how many how long, by cause, by length, over time, and the worst.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use schedtrace_core::analysis::{Bucket, GroupBy, ReportName, Summary};
use schedtrace_core::{Context, Nanos};

use super::{Cx, Effect, Name, Place, View};
use crate::engine::{Range, Wants};
use crate::keys::Action;
use crate::sheet::{Column, Row, Sheet, Target, Value};
use crate::slices::Slice;

pub(super) struct Latency;

/// As wide as what stands before the curve.
const LABEL: u16 = 10;
/// Lines of the curve, its legend among them.
const CURVE: u16 = 7;
/// Lines of the histogram, its counts and its scale among them.
const HISTOGRAM: u16 = 7;
/// Letters of each of its buckets, a space among them.
const BUCKET: u16 = 8;
/// So many slices at most.
const SLICES: u16 = 150;

const WORST: &[Column] = &[
    Column {
        name: "AT",
        about: "When the wait began, in seconds from the beginning of the recording.",
        width: 12,
        rank: 0,
    },
    Column { name: "WAITED", about: "How long.", width: 8, rank: 0 },
    Column { name: "WHO", about: "Who waited.", width: 24, rank: 0 },
    Column { name: "CPU", about: "Where.", width: 5, rank: 2 },
    Column { name: "WHY", about: "What made it wait.", width: 12, rank: 1 },
    Column { name: "BY", about: "Who woke it, or took its CPU.", width: 22, rank: 3 },
    Column { name: "BEHIND", about: "Who had the CPU meanwhile.", width: 0, rank: 1 },
];

const QUANTILES: &[Column] = &[
    Column { name: "WAITS", about: "All, or those of one cause, or one part of a wakeup.", width: 26, rank: 0 },
    Column { name: "COUNT", about: "How many.", width: 9, rank: 1 },
    Column { name: "P50", about: "The median.", width: 8, rank: 2 },
    Column { name: "P90", about: "90 of 100 were not longer.", width: 8, rank: 3 },
    Column { name: "P99", about: "99 of 100 were not longer.", width: 8, rank: 1 },
    Column { name: "P99.9", about: "999 of 1,000 were not longer.", width: 8, rank: 2 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
    Column { name: "TOTAL", about: "All together.", width: 9, rank: 2 },
];

const LENGTHS: &[Column] = &[
    Column { name: "FROM", about: "The shortest of these waits took at least so long.", width: 8, rank: 0 },
    Column { name: "LESS THAN", about: "And the longest less than that, twice as long.", width: 9, rank: 0 },
    Column { name: "WAITS", about: "How many.", width: 9, rank: 0 },
    Column { name: "SHARE", about: "Of all waits.", width: 7, rank: 1 },
    Column { name: "LONGER", about: "Share of the waits that took longer than these.", width: 8, rank: 2 },
    Column { name: "", about: "How many, as a bar.", width: 0, rank: 1 },
];

const OVER_TIME: &[Column] = &[
    Column {
        name: "AT",
        about: "When the slice begins, in seconds from the beginning of the recording.",
        width: 12,
        rank: 0,
    },
    Column { name: "LASTED", about: "How long it is.", width: 8, rank: 3 },
    Column { name: "WAITS", about: "Waits that ended in it.", width: 9, rank: 1 },
    Column { name: "P50", about: "The median.", width: 8, rank: 2 },
    Column { name: "P99", about: "99 of 100 were not longer.", width: 8, rank: 0 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
    Column { name: "BUSY", about: "Share of the time in which a task had a CPU.", width: 7, rank: 2 },
];

impl View for Latency {
    fn wants(&self, by: GroupBy, width: u16) -> Wants {
        let slices = Some(width.saturating_sub(LABEL).clamp(10, SLICES));
        Wants { slices, ..Wants::default().sched(by).report(by, ReportName::Latency) }
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let Some(report) = cx.picture.sched(cx.by) else { return Vec::new() };
        let worst = report.run_queue.worst.iter().map(|wait| {
            let by = match (&wait.by, wait.by_interrupt) {
                (Some(who), _) => who.to_string(),
                (None, Some(context)) => Context::name(context).to_owned(),
                (None, None) => String::new(),
            };
            let held = wait.held_by.iter().map(|holder| {
                let who = holder.who.as_ref().map_or_else(|| "idle CPU".to_owned(), ToString::to_string);
                format!("{who} {}", Nanos(holder.held_ns))
            });
            let until = wait.from_ns + Nanos(wait.wait_ns);
            Row {
                target: Target::Moment { from: wait.from_ns, until, tid: Some(wait.task.tid), cpu: Some(wait.cpu) },
                depth: 0,
                cells: vec![
                    Value::Moment(wait.from_ns),
                    if wait.censored { Value::AtLeast(wait.wait_ns) } else { Value::Time(wait.wait_ns) },
                    Value::text(wait.task.to_string()),
                    Value::Count(wait.cpu.0.into()),
                    Value::text(wait.cause.name()),
                    Value::text(by),
                    Value::text(held.collect::<Vec<_>>().join(", ")),
                ],
            }
        });
        let of = &report.run_queue.total;
        let of = usize::try_from(of.wait.count + of.censored.waits + of.in_loss.waits).unwrap_or(usize::MAX);
        let worst: Vec<Row> = worst.collect();
        let of = of.max(worst.len());
        let worst = Sheet::new("the longest waits", WORST, worst).of(of).or("nobody waited for a CPU in this time");
        let mut rows = vec![quantiles("all waits".into(), &report.run_queue.total.wait)];
        rows.extend(report.run_queue.causes.iter().map(|row| quantiles(row.cause.name().into(), &row.wait)));
        if let Some(latency) = cx.picture.report(cx.by).and_then(|set| set.latency.as_ref()) {
            let total = &latency.total;
            for (name, part) in [
                ("woken, to a CPU", &total.latency),
                ("  on the CPU as before", &total.same_cpu),
                ("  on another CPU", &total.migrated),
                ("  until on a queue", &total.to_enqueue),
                ("  on the queue", &total.on_queue),
            ] {
                rows.push(quantiles(name.into(), &part.summary));
            }
        }
        let slices = cx.picture.slices.iter().map(slice).collect();
        let over_time =
            Sheet::new("over time", OVER_TIME, slices).or("nothing happened in this time: press 0 for all of it");
        let lengths = Sheet::new("by length", LENGTHS, lengths(cx, &report.run_queue.histogram));
        vec![worst, Sheet::new("how long", QUANTILES, rows), lengths.or("no wait ended in this time"), over_time]
    }

    fn height(&self, cx: &Cx<'_>, area: Rect) -> u16 {
        let waits = cx.picture.sched(cx.by).map_or(0, |report| report.run_queue.total.wait.count);
        match area.height {
            _ if waits == 0 => 0,
            30.. => CURVE + HISTOGRAM,
            18.. => CURVE,
            _ => 0,
        }
    }

    /// How long over time; and how many how long, where there is room.
    fn draw(&mut self, cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
        let heights = [Constraint::Length(CURVE), Constraint::Min(0)];
        let [above, below] = Layout::vertical(heights).areas(area);
        curve(cx, frame, above);
        histogram(cx, frame, below);
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Open, Action::Explain, Action::NextPanel, Action::NextAnomaly, Action::Group]
    }

    fn open(&self, target: &Target) -> Option<Effect> {
        match target {
            // A slice, of all tasks.
            Target::Moment { from, until, tid: None, .. } => Some(Effect::Look(Range::Between(*from, *until))),
            // The moment itself, with as much again before and after it.
            Target::Moment { from, until, .. } => {
                let margin = Nanos((*until - *from).0 + 1);
                Some(Effect::Look(Range::Between(*from - margin, *until + margin)))
            }
            other => other.subject().map(|who| Effect::Go(Place::of(Name::Task, who))),
        }
    }
}

fn slice(slice: &Slice) -> Row {
    let (from, until) = (slice.window.from_ns, slice.window.until_ns);
    Row {
        target: Target::Moment { from, until, tid: None, cpu: None },
        depth: 0,
        cells: vec![
            Value::Moment(from),
            Value::Lasted(slice.window.duration_ns.0),
            Value::Count(slice.wait.count),
            Value::of(&slice.wait, |s| s.p50_ns),
            Value::of(&slice.wait, |s| s.p99_ns),
            Value::of(&slice.wait, |s| s.max_ns),
            Value::Ratio(slice.busy_ratio),
        ],
    }
}

fn log10(ns: u64) -> f64 {
    (ns.max(1) as f64).log10()
}

/// The median and the 99th percentile of each slice, on a scale of powers of ten: a column from the ground to the median, and
/// on from there in another sign.
fn curve(cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
    let slices = &cx.picture.slices;
    let waits = || slices.iter().map(|slice| &slice.wait).filter(|wait| wait.count > 0);
    let Some(worst) = slices.iter().filter(|slice| slice.wait.count > 0).max_by_key(|slice| slice.wait.p99_ns) else {
        return;
    };
    let least = waits().map(|wait| wait.p50_ns).min().unwrap_or(0);
    // A whole number of powers: a line is the same share of a power everywhere.
    let bottom = log10(least.max(100)).floor();
    let top = log10(worst.wait.p99_ns).ceil().max(bottom + 1.0);
    let rows = area.height.saturating_sub(1);
    let (median, beyond) = (cx.theme.glyphs.bars[8], cx.theme.glyphs.shade);
    // How many lines of the whole height lie below.
    let height = |ns: u64| ((log10(ns) - bottom) / (top - bottom) * f64::from(rows)).clamp(0.0, f64::from(rows));
    let mut lines = Vec::new();
    for row in (0..rows).rev() {
        let at = bottom + (top - bottom) * f64::from(row + 1) / f64::from(rows);
        let label = format!("{:>8} ", Nanos(10f64.powf(at) as u64).to_string());
        let mut line = Line::from(Span::styled(label, cx.theme.dim));
        for slice in slices {
            let (low, high) = (height(slice.wait.p50_ns), height(slice.wait.p99_ns));
            let is_below = |edge: f64| edge > f64::from(row) || row == 0;
            let span = match slice.wait.count {
                0 => Span::raw(" "),
                _ if is_below(low) => Span::styled(median, cx.theme.wait(slice.wait.p50_ns)),
                _ if is_below(high) => Span::styled(beyond, cx.theme.wait(slice.wait.p99_ns)),
                _ => Span::styled(" ", Style::new()),
            };
            line.push_span(span);
        }
        lines.push(line);
    }
    let seconds = (worst.window.from_ns - cx.origin()).0 as f64 / 1e9;
    let length = slices.first().map_or(Nanos::ZERO, |slice| slice.window.duration_ns);
    let highest = Nanos(worst.wait.p99_ns);
    let legend = format!("{median} p50 {beyond} p99 of each {length}; the highest p99 is {highest}, at {seconds:.6} s");
    lines.push(Line::from(format!("{:>9}{legend}", "")).style(cx.theme.dim));
    frame.render_widget(Paragraph::new(lines), area);
}

/// How many took how long: a row for each bucket, with a bar that is longest where most are.
fn lengths(cx: &Cx<'_>, buckets: &[Bucket]) -> Vec<Row> {
    /// Letters of the longest.
    const LONGEST: f64 = 60.0;
    let all: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0).max(1);
    let share = |count: u64| count as f64 / all.max(1) as f64;
    let mut longer = all;
    let row = |bucket: &Bucket| {
        longer -= bucket.count;
        // One that is not empty is seen.
        let letters = (bucket.count as f64 / most as f64 * LONGEST).ceil() as usize;
        Row {
            target: Target::Named(Nanos(bucket.from_ns).to_string()),
            depth: 0,
            cells: vec![
                Value::Time(bucket.from_ns),
                Value::Time(bucket.until_ns),
                Value::Count(bucket.count),
                Value::Ratio(share(bucket.count)),
                Value::Ratio(share(longer)),
                Value::text(cx.theme.glyphs.bars[8].repeat(letters)),
            ],
        }
    };
    buckets.iter().map(row).collect()
}

/// Neighbours together, two and two, until no more are left than there is room for.
fn fitting(buckets: &[Bucket], most: usize) -> Vec<Bucket> {
    let mut fitting = buckets.to_vec();
    while fitting.len() > most.max(1) {
        let together = |two: &[Bucket]| Bucket {
            from_ns: two[0].from_ns,
            until_ns: two[two.len() - 1].until_ns,
            count: two.iter().map(|bucket| bucket.count).sum(),
        };
        fitting = fitting.chunks(2).map(together).collect();
    }
    fitting
}

/// How many took how long: a column for each length, how many these are, and from where on.
fn histogram(cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
    let Some(report) = cx.picture.sched(cx.by) else { return };
    let room = area.width.saturating_sub(LABEL);
    let buckets = fitting(&report.run_queue.histogram, usize::from(room / BUCKET));
    let (Some(most), true) = (buckets.iter().map(|bucket| bucket.count).max(), area.height > 2) else { return };
    // Wide enough to be seen as one picture, not so wide that few of them fill the screen.
    let width = usize::from((room / buckets.len().max(1) as u16).clamp(BUCKET, BUCKET + BUCKET / 2));
    let rows = area.height - 2;
    let line = |label: &str, cell: &dyn Fn(&Bucket) -> String| {
        let mut line = Line::from(Span::styled(format!("{label:>8} "), cx.theme.dim));
        for bucket in &buckets {
            line.push_span(Span::styled(format!("{:<width$}", cell(bucket)), cx.theme.wait(bucket.from_ns)));
        }
        line
    };
    let eighths = |bucket: &Bucket| (bucket.count as f64 / most as f64 * f64::from(rows) * 8.0).ceil() as usize;
    let mut lines: Vec<Line<'_>> = (0..usize::from(rows))
        .rev()
        .map(|row| {
            let column = |bucket: &Bucket| {
                cx.theme.glyphs.bars[eighths(bucket).saturating_sub(row * 8).min(8)].repeat(width - 1)
            };
            line(if row + 1 == usize::from(rows) { "waits" } else { "" }, &column)
        })
        .collect();
    lines.push(line("", &|bucket| Value::Count(bucket.count).shown(Nanos::ZERO)));
    lines.push(line("from", &|bucket| Nanos(bucket.from_ns).to_string()));
    frame.render_widget(Paragraph::new(lines), area);
}

fn quantiles(name: String, summary: &Summary) -> Row {
    Row {
        target: Target::Named(name.clone()),
        depth: 0,
        cells: vec![
            Value::text(name),
            Value::Count(summary.count),
            Value::of(summary, |s| s.p50_ns),
            Value::of(summary, |s| s.p90_ns),
            Value::of(summary, |s| s.p99_ns),
            Value::of(summary, |s| s.p99_9_ns),
            Value::of(summary, |s| s.max_ns),
            Value::of(summary, |s| s.total_ns),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_that_do_not_fit_are_put_together_and_none_is_dropped() {
        let bucket = |at: u32| Bucket { from_ns: 1 << at, until_ns: 2 << at, count: u64::from(at) };
        let buckets: Vec<_> = (10..25).map(bucket).collect();
        for room in 0..20 {
            let fitting = fitting(&buckets, room);
            assert!(fitting.len() <= room.max(1), "{} for {room}", fitting.len());
            assert_eq!(fitting.iter().map(|bucket| bucket.count).sum::<u64>(), (10..25).sum::<u64>());
            assert_eq!((fitting[0].from_ns, fitting[fitting.len() - 1].until_ns), (1 << 10, 1 << 25));
            assert!(fitting.windows(2).all(|two| two[0].until_ns == two[1].from_ns));
        }
    }
}
