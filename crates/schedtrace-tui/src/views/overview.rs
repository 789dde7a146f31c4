//! The machine at a glance.

use std::collections::BTreeMap;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline};
use schedtrace_core::analysis::{CpuRow, CpuUse, Group, GroupBy, Report, RunQueueStats};
use schedtrace_core::{Cpu, Nanos};

use super::tasks::{COLUMNS, rows};
use super::{Cx, Effect, View};
use crate::engine::Wants;
use crate::keys::Action;
use crate::sheet::{Sheet, Value, unknown_share};
use crate::theme::Theme;

#[derive(Default)]
pub(super) struct Overview {
    bars: Bars,
}

/// What the bar of a CPU shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Bars {
    #[default]
    Busy,
    Waits,
}

/// A CPU with its figures: number, bar, utilisation, 99th percentile of the wait.
const CELL: usize = 21;
/// A wait that takes the least bar, in nanoseconds.
const SHORT_WAIT_NS: f64 = 1e3;
/// If for more than this share of the time it is not known what a CPU did, its bar would say something else.
const UNKNOWN: f64 = 0.05;
/// As wide as the label of a node and a cache.
const LABEL: usize = 16;

impl View for Overview {
    fn wants(&self, by: GroupBy, _: u16) -> Wants {
        Wants::default().sched(by).sched(GroupBy::Cpu)
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let Some(report) = cx.picture.sched(cx.by) else { return Vec::new() };
        let rows: Vec<_> = rows(report).into_iter().take(report.run_queue.groups.len()).collect();
        vec![
            Sheet::new("who waited", COLUMNS, rows)
                .of(report.run_queue.groups_total)
                .said_without_recorder(&report.completeness)
                .or("nobody waited for a CPU in this time"),
        ]
    }

    fn height(&self, cx: &Cx<'_>, area: Rect) -> u16 {
        let most = usize::from(area.height / 3).max(2);
        let history = if cx.past.len() > 1 { 2 } else { 0 };
        2 + history + self.bars.of_cpus(cx, usize::from(area.width), most).len() as u16
    }

    fn draw(&mut self, cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
        let Some(report) = cx.picture.sched(GroupBy::Cpu) else { return };
        let history = if cx.past.len() > 1 { 2 } else { 0 };
        let heights = [Constraint::Length(2), Constraint::Length(history), Constraint::Min(0)];
        let [totals, lines, grid] = Layout::vertical(heights).areas(area);
        frame.render_widget(Paragraph::new(head(report, cx.theme)), totals);
        if history > 0 {
            sparklines(cx, frame, lines);
        }
        let cpus = self.bars.of_cpus(cx, usize::from(grid.width), usize::from(grid.height));
        frame.render_widget(Paragraph::new(cpus), grid);
    }

    fn act(&mut self, action: Action, _: &Cx<'_>) -> Option<Effect> {
        if action != Action::Bars {
            return None;
        }
        self.bars = match self.bars {
            Bars::Busy => Bars::Waits,
            Bars::Waits => Bars::Busy,
        };
        Some(Effect::Done)
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Open, Action::Explain, Action::Tasks, Action::Timeline, Action::Latency, Action::Bars]
    }
}

fn head(report: &Report, theme: &Theme) -> Vec<Line<'static>> {
    let (stats, used) = (&report.run_queue.total, &report.cpu_time.total);
    let (wait, busy) = (&stats.wait, used.utilisation_ratio);
    let rate = |count: u64| crate::sheet::short(count as f64 / (report.window.duration_ns.0.max(1) as f64 / 1e9));
    let open = [&stats.censored, &stats.in_loss];
    let cut_off: u64 = open.iter().map(|counts| counts.waits).sum();
    let of_them = if cut_off > 0 { format!("; {cut_off} of them not seen whole") } else { String::new() };
    let longest = match Value::longest(wait, open) {
        Value::None => Value::Time(0),
        longest => longest,
    };
    vec![
        Line::from(vec![
            Span::styled(busy_of(used), theme.scale(busy)),
            recorder(report).into(),
            format!(
                "   {} switches/s   {} wakeups/s   {} migrations/s",
                rate(report.switches.total.switches),
                rate(report.wakeups.total.wakeups),
                rate(report.migrations.total.migrations)
            )
            .into(),
        ]),
        Line::from(vec![
            format!(
                "{} waits for a CPU, {} in all: p50 {}, ",
                wait.count + cut_off,
                Value::waited(wait, open).shown(Nanos::ZERO),
                Nanos(wait.p50_ns)
            )
            .into(),
            Span::styled(format!("p99 {}", Nanos(wait.p99_ns)), theme.wait(wait.p99_ns)),
            ", longest ".into(),
            Span::styled(longest.shown(Nanos::ZERO), theme.wait(longest.number().unwrap_or(0.0) as u64)),
            of_them.into(),
        ]),
    ]
}

/// How busy the machine was, as far as that is known.
fn busy_of(used: &CpuUse) -> String {
    let sign = if unknown_share(used) >= 0.005 { ">" } else { "" };
    format!("{sign}{:.0}% busy", used.utilisation_ratio * 100.0)
}

/// What the recorder took of that: it is in no row of its own where it was left out.
fn recorder(report: &Report) -> String {
    let (it, total) = (report.cpu_time.recorder_ns, &report.cpu_time.total);
    let all = total.busy_ns.saturating_add(total.idle_ns).saturating_add(total.unknown_ns);
    if it == 0 { String::new() } else { format!(" (recorder {:.1}%)", it as f64 / all.max(1) as f64 * 100.0) }
}

/// How busy the CPUs were in the windows before this, and how long tasks waited.
fn sparklines(cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
    let columns = [Constraint::Length(10), Constraint::Min(0), Constraint::Length(12)];
    let rows: [Rect; 2] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    type Figure = fn(&crate::past::Past) -> u64;
    let figures: [(&str, Figure, u64); 2] =
        [("busy", |past| (past.busy_ratio * 1000.0) as u64, 1000), ("p99 wait", |past| past.wait_p99_ns, 0)];
    for ((name, of, most), row) in figures.into_iter().zip(rows) {
        let [label, line, scale] = Layout::horizontal(columns).areas(row);
        let newest = cx.past.iter().rev().take(usize::from(line.width)).rev();
        let values: Vec<Option<u64>> = newest.map(|past| past.as_ref().map(of)).collect();
        let highest = values.iter().flatten().copied().max().unwrap_or(0);
        let (most, told) = match most {
            0 => (highest.max(1), format!(" to {}", Nanos(highest))),
            most => (most, " to 100%".to_owned()),
        };
        frame.render_widget(Paragraph::new(name).style(cx.theme.dim), label);
        frame.render_widget(Paragraph::new(told).style(cx.theme.dim), scale);
        frame.render_widget(
            Sparkline::default()
                .data(values)
                .bar_set(cx.theme.glyphs.bar_set())
                .absent_value_symbol(" ")
                .max(most)
                .style(cx.theme.key),
            line,
        );
    }
}

/// How busy a CPU was, and how long tasks waited for it.
#[derive(Clone, Copy, Debug)]
struct Load {
    cpu: Cpu,
    used: CpuUse,
    /// The 99th percentile, or the longest of those that are not over, if that is longer.
    wait_ns: u64,
    is_open: bool,
}

/// The CPUs under each last-level cache of each node; without one where the topology is not known.
type Caches = BTreeMap<Option<(u32, u32)>, Vec<Load>>;

impl Load {
    fn new(used: &CpuRow, stats: Option<&RunQueueStats>) -> Self {
        let p99_ns = stats.map_or(0, |stats| stats.wait.p99_ns);
        let open_ns = stats.map_or(0, |stats| stats.censored.longest_ns.max(stats.in_loss.longest_ns));
        Self { cpu: used.cpu, used: used.used, wait_ns: p99_ns.max(open_ns), is_open: open_ns > p99_ns }
    }

    fn bar(&self, bars: Bars, theme: &Theme) -> Span<'static> {
        let busy = self.used.utilisation_ratio;
        match bars {
            Bars::Busy if unknown_share(&self.used) > UNKNOWN => Span::styled("?", theme.warn),
            Bars::Busy => Span::styled(theme.glyphs.bar(busy), theme.scale(busy)),
            // Waits differ by orders of magnitude: a step of the bar is about a fourfold one, and 100 ms fill it.
            Bars::Waits => {
                let ratio = (self.wait_ns as f64 / SHORT_WAIT_NS).log10() / 5.0;
                Span::styled(
                    theme.glyphs.bar(if self.wait_ns == 0 { 0.0 } else { ratio.max(0.01) }),
                    theme.wait(self.wait_ns),
                )
            }
        }
    }

    fn figures(&self, bars: Bars, theme: &Theme) -> Vec<Span<'static>> {
        let wait = match self.wait_ns {
            0 => Span::styled(format!(" {:<8}", "-"), theme.dim),
            ns => {
                let told = if self.is_open { Value::AtLeast(ns) } else { Value::Time(ns) };
                Span::styled(format!(" {:<8}", told.shown(Nanos::ZERO)), theme.wait(ns))
            }
        };
        let busy = match unknown_share(&self.used) {
            unknown if unknown >= 1.0 => "-".to_owned(),
            unknown => {
                format!("{}{:.0}%", if unknown >= 0.005 { ">" } else { "" }, self.used.utilisation_ratio * 100.0)
            }
        };
        let number = Span::styled(format!("{:>4} ", self.cpu.0), theme.dim);
        vec![number, self.bar(bars, theme), format!("{busy:>5}").into(), wait]
    }
}

impl Bars {
    /// The CPUs by node and last-level cache: with figures where these fit into so many lines, or else as bars.
    fn of_cpus(self, cx: &Cx<'_>, width: usize, most: usize) -> Vec<Line<'static>> {
        let Some(report) = cx.picture.sched(GroupBy::Cpu) else { return Vec::new() };
        let waits = report.run_queue.groups.iter().filter_map(|row| match row.group {
            Group::Cpu { cpu } => Some((cpu, &row.stats)),
            _ => None,
        });
        let waits: BTreeMap<Cpu, &RunQueueStats> = waits.collect();
        let mut caches = Caches::new();
        for row in &report.cpu_time.cpus {
            let place = cx.meta.topology.get(row.cpu).map(|info| (info.node, info.llc));
            caches.entry(place).or_default().push(Load::new(row, waits.get(&row.cpu).copied()));
        }
        self.with_figures(&caches, width, most, cx.theme)
            .unwrap_or_else(|| self.as_bars(&caches, width, most.max(1), cx.theme))
    }

    /// With figures, if they fit.
    fn with_figures(self, caches: &Caches, width: usize, most: usize, theme: &Theme) -> Option<Vec<Line<'static>>> {
        let several = caches.len() > 1;
        let name = |place: &Option<(u32, u32)>| match place {
            None => "node ? LLC ?".to_owned(),
            Some((node, llc)) => format!("node {node} LLC {llc}"),
        };
        let label = if several { LABEL } else { 0 };
        let per_line = (width.saturating_sub(label) / CELL).max(1);
        let lines: usize = caches.values().map(|cpus| cpus.len().div_ceil(per_line)).sum();
        if lines > most {
            return None;
        }
        let mut text = Vec::new();
        for (place, cpus) in caches {
            for (at, cpus) in cpus.chunks(per_line).enumerate() {
                let name = if several && at == 0 { name(place) } else { String::new() };
                let label = std::iter::once(Span::styled(format!("{name:<label$}"), theme.head));
                text.push(label.chain(cpus.iter().flat_map(|cpu| cpu.figures(self, theme))).collect());
            }
        }
        Some(text)
    }

    /// A bar for each. Where there are not enough lines, the last one says how many are missing.
    fn as_bars(self, caches: &Caches, width: usize, most: usize, theme: &Theme) -> Vec<Line<'static>> {
        let shows = match self {
            Self::Busy => "busy  ",
            Self::Waits => "p99 wait  ",
        };
        let (mut text, mut used) = (vec![Line::from(Span::styled(shows, theme.head))], shows.len());
        // How many CPUs stand in each line.
        let mut counts = vec![0];
        for (place, cpus) in caches {
            let name = format!("{} ", place.map_or("?".to_owned(), |(node, llc)| format!("{node}/{llc}")));
            let indent = name.chars().count();
            if used > 0 && used + indent + cpus.len() > width {
                (used, counts) = (0, [counts, vec![0]].concat());
                text.push(Line::default());
            }
            let mut label = Span::styled(name, theme.dim);
            let mut left = &cpus[..];
            while !left.is_empty() {
                let (here, rest) = left.split_at(width.saturating_sub(used + indent).clamp(1, left.len()));
                if let (Some(line), Some(count)) = (text.last_mut(), counts.last_mut()) {
                    line.push_span(label);
                    line.extend(here.iter().map(|cpu| cpu.bar(self, theme)));
                    line.push_span("  ");
                    *count += here.len();
                }
                used += indent + here.len() + 2;
                // More than a line: it goes on below.
                label = Span::raw(" ".repeat(indent));
                left = rest;
                if !left.is_empty() {
                    (used, counts) = (0, [counts, vec![0]].concat());
                    text.push(Line::default());
                }
            }
        }
        if text.len() > most {
            let missing: usize = counts.iter().skip(most - 1).sum();
            text.truncate(most - 1);
            text.push(Line::from(format!("+{missing} CPUs: the view `cpus` shows all")).style(theme.warn));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::theme::Look;
    use schedtrace_core::analysis::{Summary, WaitCounts};

    fn used(cpu: u16, busy_ns: u64, unknown_ns: u64) -> CpuRow {
        let used = CpuUse {
            busy_ns,
            idle_ns: 1000 - busy_ns - unknown_ns,
            unknown_ns,
            in_loss_ns: 0,
            utilisation_ratio: busy_ns as f64 / 1000.0,
        };
        CpuRow { cpu: Cpu(cpu), used }
    }

    fn told(lines: &[Line<'_>]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn cpus_for_which_there_is_no_room_are_counted() {
        let theme = Theme::new(Look::Monochrome, true);
        let cpus = |from: u16| (from..from + 100).map(|cpu| Load::new(&used(cpu, 1000, 0), None)).collect();
        let caches = Caches::from([(Some((0, 0)), cpus(0)), (Some((1, 100)), cpus(100)), (None, cpus(200))]);
        for width in [4, 30, 60, 140] {
            let all = told(&Bars::Busy.as_bars(&caches, width, 1000, &theme));
            assert_eq!(all.iter().map(|line| line.matches('@').count()).sum::<usize>(), 300);
            // A line as wide as the screen may end in spaces that are cut off.
            let cut = all.iter().find(|line| width > 10 && line.trim_end().chars().count() > width);
            assert_eq!(cut, None, "{width}");
            for most in 1..all.len() {
                let some = told(&Bars::Busy.as_bars(&caches, width, most, &theme));
                let (last, shown) = some.split_last().unwrap();
                let shown: usize = shown.iter().map(|line| line.matches('@').count()).sum();
                assert_eq!(
                    (some.len(), last.as_str()),
                    (most, &*format!("+{} CPUs: the view `cpus` shows all", 300 - shown))
                );
            }
        }
    }

    #[test]
    fn a_cpu_for_which_somebody_waits_still_shows_it() {
        let theme = Theme::new(Look::Monochrome, true);
        let open = WaitCounts { waits: 1, wait_ns: 2_000_000_000, longest_ns: 2_000_000_000 };
        let stats = RunQueueStats { censored: open, ..RunQueueStats::default() };
        let load = Load::new(&used(3, 1000, 0), Some(&stats));
        let told = |load: Load| Line::from(load.figures(Bars::Waits, &theme)).to_string();
        assert_eq!(told(load).trim_end(), format!("   3 @ 100% >{}", Nanos(2_000_000_000)));
        let wait = Summary { count: 1, p99_ns: 3_000_000_000, ..Summary::default() };
        let load =
            Load::new(&used(3, 1000, 0), Some(&RunQueueStats { wait, censored: open, ..RunQueueStats::default() }));
        assert_eq!(told(load).trim_end(), format!("   3 @ 100% {}", Nanos(3_000_000_000)));
    }

    #[test]
    fn what_is_not_known_is_not_idle() {
        let theme = Theme::new(Look::Monochrome, true);
        let told = |busy, unknown| {
            Line::from(Load::new(&used(3, busy, unknown), None).figures(Bars::Busy, &theme)).to_string()
        };
        assert_eq!(told(500, 0).trim_end(), "   3 =  50% -");
        assert_eq!(told(500, 20).trim_end(), "   3 = >50% -");
        assert_eq!(told(500, 200).trim_end(), "   3 ? >50% -");
        assert_eq!(told(0, 1000).trim_end(), "   3 ?    - -");
    }
}
