//! How the screen looks.

use std::collections::{BTreeMap, HashMap};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table};
use schedtrace_core::analysis::{Group, HeldBy, RunQueueRow, Summary};
use schedtrace_core::{Cpu, Nanos};

use crate::feed::Picture;
use crate::viewer::Viewer;

const BARS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
/// A CPU with its figures: number, bar, utilisation, 99th percentile of the wait.
const CELL: usize = 25;

const HELP: [&str; 18] = [
    "What is shown: tasks that were runnable and waited for a CPU, those that waited",
    "longest in all first, and who had the CPU meanwhile. Live, it is what happened",
    "since the screen was last drawn. A time with > is of waits that are not over yet,",
    "or in which events are missing: it was so long at least.",
    "",
    "CPUs, by last-level cache:   3 ▅  61% 2.31ms   the bar and the share are busy",
    "time; the time is the 99th percentile of the waits that ended on that CPU. Where",
    "there are too many CPUs for that, each is a bar.",
    "",
    "  up, down, j, k      one row           /   show tasks of this name only",
    "  page up, page down  one page          Esc show all tasks again",
    "  home, end, g, G     first, last row   p   pause, and go on (live)",
    "  q, Ctrl-C           quit              ?   this help",
    "",
    "Events that were lost are told in red: counts are too low then, and waits in",
    "which something is missing are left out.",
    "",
    "Any key closes this.",
];

pub(crate) fn screen(viewer: &mut Viewer, frame: &mut Frame<'_>) {
    let area = frame.area();
    let Some(picture) = &viewer.picture else {
        frame.render_widget("schedtrace: waiting for the first events", area);
        return;
    };
    let cpus = cpus(picture, usize::from(area.width), usize::from(area.height / 3).max(2));
    let heights = [Constraint::Length(3), Constraint::Length(cpus.len() as u16), Constraint::Min(3)];
    let [head, grid, table, keys] = Layout::vertical(heights.into_iter().chain([Constraint::Length(1)])).areas(area);
    frame.render_widget(Paragraph::new(headline(picture, viewer.paused)), head);
    frame.render_widget(Paragraph::new(cpus), grid);
    frame.render_widget(keys_line(viewer), keys);
    tasks(viewer, frame, table);
    if viewer.help {
        help(frame);
    }
}

/// What stands in a name or a path may have been chosen by anybody.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn headline(picture: &Picture, paused: bool) -> Vec<Line<'static>> {
    let report = &picture.by_task;
    let wait = &report.run_queue.total.wait;
    let state = match (&picture.failed, paused, picture.live) {
        (Some(why), ..) => format!("  {}", printable(why)).red().bold(),
        (None, true, _) => "  paused".yellow().bold(),
        (None, false, true) => "  live".green(),
        (None, false, false) => "".into(),
    };
    let missing = match (picture.lost_total, report.completeness.lost_total) {
        (0, _) => "no event is known to be missing".into(),
        (lost, here) if lost == here => format!("{lost} events are missing: counts are too low").red(),
        (lost, here) => format!("{lost} events are missing, {here} of them here: counts are too low").red(),
    };
    let cpus = report.cpu_time.cpus.len();
    let busy = format!(
        "{} on {cpus} {}, {:.0}% busy; ",
        report.window.duration_ns,
        if cpus == 1 { "CPU" } else { "CPUs" },
        report.cpu_time.total.utilisation_ratio * 100.0
    );
    vec![
        Line::from(vec!["schedtrace ".bold(), printable(&picture.title).into(), state]),
        Line::from(vec![busy.into(), missing]),
        Line::from(format!(
            "{} waits for a CPU, {} in all: p50 {}, p99 {}, longest {}",
            wait.count,
            Nanos(wait.total_ns),
            Nanos(wait.p50_ns),
            Nanos(wait.p99_ns),
            Nanos(wait.max_ns)
        )),
    ]
}

fn keys_line(viewer: &Viewer) -> Line<'static> {
    if viewer.typing {
        return Line::from(vec!["only tasks called ".bold(), printable(&viewer.filter).into(), "▏".into()]);
    }
    let pause = if viewer.is_live() { "p pause   " } else { "" };
    Line::from(format!("q quit   / filter   {pause}up/down, page up/down scroll   ? help")).dim()
}

/// How busy a CPU was, and how long tasks waited for it.
#[derive(Clone, Copy, Debug)]
struct Load {
    cpu: Cpu,
    busy: f64,
    p99_ns: u64,
}

impl Load {
    fn bar(self) -> Span<'static> {
        let at = ((self.busy * BARS.len() as f64) as usize).min(BARS.len() - 1);
        let colour = match self.busy {
            busy if busy >= 0.9 => Color::Red,
            busy if busy >= 0.5 => Color::Yellow,
            _ => Color::Green,
        };
        Span::styled(BARS[at], colour)
    }

    fn figures(self) -> Vec<Span<'static>> {
        let wait = format!(" {:<8}", Nanos(self.p99_ns).to_string());
        let wait = match self.p99_ns {
            0 => format!(" {:<8}", "-").dim(),
            10_000_000.. => wait.red(),
            1_000_000.. => wait.yellow(),
            _ => wait.into(),
        };
        vec![format!("{:>5} ", self.cpu.0).dim(), self.bar(), format!(" {:>4.0}%", self.busy * 100.0).into(), wait]
    }
}

/// The CPUs by last-level cache: with figures where these fit into so many lines, or else as bars.
fn cpus(picture: &Picture, width: usize, most: usize) -> Vec<Line<'static>> {
    let waits = picture.by_cpu.run_queue.groups.iter().filter_map(|row| match row.group {
        Group::Cpu { cpu } => Some((cpu, row.stats.wait.p99_ns)),
        _ => None,
    });
    let waits: HashMap<Cpu, u64> = waits.collect();
    let mut caches: BTreeMap<Option<u32>, Vec<Load>> = BTreeMap::new();
    for row in &picture.by_cpu.cpu_time.cpus {
        let info = picture.topology.get(row.cpu);
        let p99_ns = waits.get(&row.cpu).copied().unwrap_or(0);
        let load = Load { cpu: row.cpu, busy: row.used.utilisation_ratio, p99_ns };
        caches.entry(info.map(|info| info.llc)).or_default().push(load);
    }
    // A cache is named by the lowest number of its CPUs.
    let name = |llc: Option<u32>| llc.map_or("LLC ?".into(), |llc| format!("LLC {llc}"));
    let label = if caches.len() > 1 { 9 } else { 0 };
    let per_line = (width.saturating_sub(label) / CELL).max(1);
    let lines: usize = caches.values().map(|cpus| cpus.len().div_ceil(per_line)).sum();
    if lines <= most {
        let mut text = Vec::new();
        for (llc, cpus) in caches {
            for (at, cpus) in cpus.chunks(per_line).enumerate() {
                let name = if label > 0 && at == 0 { name(llc) } else { String::new() };
                let label = std::iter::once(format!("{name:<label$}").bold());
                text.push(label.chain(cpus.iter().flat_map(|cpu| cpu.figures())).collect());
            }
        }
        return text;
    }
    let (mut text, mut used) = (vec![Line::default()], 0);
    for (llc, cpus) in caches {
        let name = format!("{} ", name(llc));
        let wide = name.chars().count() + cpus.len() + 2;
        if used > 0 && used + wide > width {
            text.push(Line::default());
            used = 0;
        }
        used += wide;
        if let Some(line) = text.last_mut() {
            line.extend([name.dim()].into_iter().chain(cpus.iter().map(|cpu| cpu.bar())).chain(["  ".into()]));
        }
    }
    text
}

fn tasks(viewer: &mut Viewer, frame: &mut Frame<'_>, area: Rect) {
    let Some(picture) = &viewer.picture else { return };
    let report = &picture.by_task;
    let held: HashMap<&Group, &HeldBy> = report.holders.groups.iter().map(|row| (&row.group, &row.held_by)).collect();
    let used = report.cpu_time.groups.iter().map(|row| (&row.group, row.cpu_time_ns));
    let used: HashMap<&Group, u64> = used.collect();
    let window = report.window.duration_ns.0.max(1) as f64;
    // A narrow terminal has room for the figures that matter most.
    let columns: Vec<_> = COLUMNS.iter().filter(|column| area.width >= 100 || column.always).collect();
    let rows = viewer.rows().map(|row| {
        let told = Told {
            row,
            cpu_ratio: used.get(&row.group).map_or(0.0, |ns| *ns as f64 / window),
            held_by: held.get(&row.group).copied(),
        };
        Row::new(columns.iter().map(|column| Cell::from((column.text)(&told))))
    });
    let rows: Vec<_> = rows.collect();
    let of = match viewer.filter.as_str() {
        "" => String::new(),
        filter => format!(", only {}", printable(filter)),
    };
    let shown = format!(" {} of {} tasks that waited{of} ", rows.len(), report.run_queue.groups_total);
    // The border and the header take a line each.
    viewer.page = usize::from(area.height.saturating_sub(2)).max(1);
    let header = Row::new(columns.iter().map(|column| column.name)).style(Style::new().add_modifier(Modifier::BOLD));
    let table = Table::new(rows, columns.iter().map(|column| column.width))
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().borders(Borders::TOP).title(shown));
    frame.render_stateful_widget(table, area, &mut viewer.selected);
}

/// What is known of one row.
struct Told<'a> {
    row: &'a RunQueueRow,
    cpu_ratio: f64,
    held_by: Option<&'a HeldBy>,
}

struct Column {
    name: &'static str,
    width: Constraint,
    /// Also on a narrow terminal.
    always: bool,
    text: fn(&Told<'_>) -> String,
}

const COLUMNS: [Column; 8] = [
    Column { name: "TASK", width: Constraint::Length(22), always: true, text: |told| told.row.group.to_string() },
    Column { name: "WAITS", width: Constraint::Length(7), always: true, text: waits },
    Column {
        name: "CPU",
        width: Constraint::Length(6),
        always: true,
        text: |told| format!("{:.1}%", told.cpu_ratio * 100.0),
    },
    Column { name: "WAITED", width: Constraint::Length(8), always: true, text: waited },
    Column { name: "P50", width: Constraint::Length(7), always: false, text: |told| figure(told, |wait| wait.p50_ns) },
    Column { name: "P99", width: Constraint::Length(7), always: true, text: |told| figure(told, |wait| wait.p99_ns) },
    Column {
        name: "LONGEST",
        width: Constraint::Length(7),
        always: false,
        text: |told| figure(told, |wait| wait.max_ns),
    },
    Column { name: "BEHIND", width: Constraint::Fill(1), always: true, text: |told| behind(told.held_by) },
];

/// A figure of the waits that are over; there may be none.
fn figure(told: &Told<'_>, of: fn(&Summary) -> u64) -> String {
    let wait = &told.row.stats.wait;
    if wait.count == 0 { "-".into() } else { Nanos(of(wait)).to_string() }
}

fn waits(told: &Told<'_>) -> String {
    let stats = &told.row.stats;
    (stats.wait.count + stats.censored.waits + stats.in_loss.waits).to_string()
}

/// With what is known of waits that are not over, or in which events are missing.
fn waited(told: &Told<'_>) -> String {
    let stats = &told.row.stats;
    let more = stats.censored.wait_ns + stats.in_loss.wait_ns;
    format!("{}{}", if more > 0 { ">" } else { "" }, Nanos(stats.wait.total_ns.saturating_add(more)))
}

/// Who held the CPU, with shares of the time: `83% stress-ng[7], 9% kworker[12], 3% idle CPU`.
fn behind(held_by: Option<&HeldBy>) -> String {
    let Some(held_by) = held_by.filter(|held_by| held_by.wait_ns > 0) else { return String::new() };
    let mut shares: Vec<(f64, String)> =
        held_by.holders.iter().map(|holder| (holder.share_ratio, holder.group.to_string())).collect();
    shares.push((held_by.others_ns as f64 / held_by.wait_ns as f64, "others".to_owned()));
    shares.push((held_by.idle_ratio, "idle CPU".to_owned()));
    shares.push((held_by.unknown_ratio, "unknown".to_owned()));
    shares.sort_by(|a, b| b.0.total_cmp(&a.0));
    let told = shares.into_iter().take(3).filter(|(share, _)| *share >= 0.005);
    told.map(|(share, who)| format!("{:.0}% {who}", share * 100.0)).collect::<Vec<_>>().join(", ")
}

fn help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let centred = area.centered(Constraint::Length(84), Constraint::Length(HELP.len() as u16 + 2));
    frame.render_widget(Clear, centred);
    let text: Vec<Line<'_>> = HELP.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" schedtrace ")), centred);
}
