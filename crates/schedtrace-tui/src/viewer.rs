//! The model of the screen and how it is drawn.

use std::collections::HashMap;
use std::ops::ControlFlow;

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState};
use schedtrace_core::Nanos;
use schedtrace_core::analysis::{Group, HeldBy, Report, RunQueueRow};

/// A report on a screen: what is shown and where one has scrolled to. It knows no terminal.
///
/// ```
/// use ratatui::{Terminal, backend::TestBackend};
/// use schedtrace_core::analysis::{Analysis, Sched};
/// use schedtrace_tui::Viewer;
///
/// let mut viewer = Viewer::new("run.schedtrace", Sched::default().report());
/// let mut terminal = Terminal::new(TestBackend::new(100, 10))?;
/// terminal.draw(|frame| viewer.draw(frame))?;
/// assert!(terminal.backend().to_string().contains("run.schedtrace"));
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Debug)]
pub struct Viewer {
    title: String,
    report: Report,
    selected: TableState,
    /// Rows on the screen, for paging.
    page: usize,
}

impl Viewer {
    /// Shows a report under a title. Rows come in the report's order: those that waited longest in all first.
    #[must_use]
    pub fn new(title: &str, report: Report) -> Self {
        // A path may hold anything.
        let title = title.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let selected = TableState::new().with_selected((!report.run_queue.groups.is_empty()).then_some(0));
        Self { title, report, selected, page: 1 }
    }

    /// Does what a key says; `Break` means to quit.
    pub fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        if key.kind == KeyEventKind::Release {
            return ControlFlow::Continue(());
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return ControlFlow::Break(()),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll(self.page.cast_signed()),
            KeyCode::PageUp => self.scroll(-self.page.cast_signed()),
            KeyCode::Home | KeyCode::Char('g') => self.scroll(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.scroll(isize::MAX),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn scroll(&mut self, by: isize) {
        let Some(last) = self.report.run_queue.groups.len().checked_sub(1) else { return };
        let at = self.selected.selected().unwrap_or(0);
        self.selected.select(Some(at.saturating_add_signed(by).min(last)));
    }

    /// Draws the whole screen.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([Constraint::Length(3), Constraint::Min(1), Constraint::Length(1)]);
        let [head, table, keys] = areas.areas(frame.area());
        frame.render_widget(Paragraph::new(self.headline()), head);
        self.draw_table(frame, table);
        frame.render_widget("q quit   up/down, page up/down, home/end scroll".dim(), keys);
    }

    fn headline(&self) -> Vec<Line<'static>> {
        let Report { window, completeness, run_queue, cpu_time, .. } = &self.report;
        let wait = &run_queue.total.wait;
        let missing = match completeness.lost_total {
            0 => "no event is known to be missing".into(),
            lost => format!("{lost} events are missing: counts are too low").red(),
        };
        vec![
            Line::from(vec!["schedtrace ".bold(), self.title.clone().into()]),
            Line::from(vec![
                format!(
                    "{} on {} {}, {:.0}% busy; ",
                    Nanos(window.duration_ns),
                    cpu_time.cpus.len(),
                    if cpu_time.cpus.len() == 1 { "CPU" } else { "CPUs" },
                    cpu_time.total.utilisation_ratio * 100.0
                )
                .into(),
                missing,
            ]),
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

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let held: HashMap<&Group, &HeldBy> =
            self.report.holders.groups.iter().map(|row| (&row.group, &row.held_by)).collect();
        let rows = self.report.run_queue.groups.iter().map(|row| cells(row, held.get(&row.group).copied()));
        let widths = [20, 9, 9, 9, 9, 9].map(Constraint::Length).into_iter().chain([Constraint::Min(24)]);
        let header = ["TASK", "WAITS", "WAITED", "P50", "P99", "LONGEST", "BEHIND"];
        let shown = format!(" {} of {} tasks that waited ", rows.len(), self.report.run_queue.groups_total);
        // The border and the header take a line each.
        self.page = usize::from(area.height.saturating_sub(2)).max(1);
        let table = Table::new(rows, widths)
            .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .block(Block::new().borders(ratatui::widgets::Borders::TOP).title(shown));
        frame.render_stateful_widget(table, area, &mut self.selected);
    }
}

fn cells(row: &RunQueueRow, held_by: Option<&HeldBy>) -> Row<'static> {
    let wait = &row.stats.wait;
    let figures = [wait.total_ns, wait.p50_ns, wait.p99_ns, wait.max_ns].map(|ns| Nanos(ns).to_string());
    let texts = [row.group.to_string(), wait.count.to_string()].into_iter().chain(figures);
    Row::new(texts.chain([behind(held_by)]).map(Cell::from))
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

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use schedtrace_core::analysis::{self, Options, Sched};
    use schedtrace_core::{
        Batch, Comm, Cpu, Event, EventKind, Loss, LossPlace, MemorySource, Meta, Switch, Task, TaskId, TaskState,
    };

    /// Tasks 1 to 5 on CPU 7: at n ms task n is preempted by the next one, and at 10-n ms it gets the CPU back. So they wait
    /// for 8, 6, 4 and 2 ms.
    fn report(lost: Vec<Loss>) -> Report {
        let switch = |ms: u64, prev: u32, next: u32, prev_state, preempted| Event {
            ts: Nanos(ms * 1_000_000),
            cpu: Cpu(7),
            kind: EventKind::Switch(Switch {
                prev: TaskId(prev),
                next: TaskId(next),
                prev_state,
                preempted,
                prev_prio: 120,
                next_prio: 120,
            }),
        };
        let up = (1..5).map(|n| switch(u64::from(n), n, n + 1, TaskState::RUNNING, true));
        let down = (1..5).map(|n| switch(10 - u64::from(n), n + 1, n, TaskState::INTERRUPTIBLE, false)).rev();
        let tasks = (1..=5).map(|n| Task {
            id: TaskId(n),
            tid: 100 + n,
            tgid: 100 + n,
            comm: Comm::new(&format!("task\u{1b}{n}")),
            ..Task::idle(Cpu(0))
        });
        let batch = Batch {
            until: Nanos(10_000_000),
            events: up.chain(down).collect(),
            tasks: tasks.collect(),
            lost,
            ..Batch::default()
        };
        let meta = Meta { started: Nanos(1), ..Meta::default() };
        analysis::run(&mut MemorySource::new(meta, [batch]), Sched::new(Options::default())).unwrap()
    }

    fn screen(viewer: &mut Viewer, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| viewer.draw(frame)).unwrap();
        terminal.backend().to_string().lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect()
    }

    #[test]
    fn tasks_are_shown_by_how_long_they_waited() {
        let lines = screen(&mut Viewer::new("run.schedtrace", report(Vec::new())), 110, 12);
        assert_eq!(lines[0], "schedtrace run.schedtrace");
        assert_eq!(lines[1], "10.0ms on 1 CPU, 100% busy; no event is known to be missing");
        assert!(lines[2].starts_with("4 waits for a CPU, 20.0ms in all"), "{lines:#?}");
        assert!(lines[3].contains("4 of 4 tasks that waited"), "{lines:#?}");
        let starts: Vec<_> =
            lines[5..9].iter().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>()).collect();
        assert_eq!(
            starts,
            [
                ["task?1[101]", "1", "8.00ms"],
                ["task?2[102]", "1", "6.00ms"],
                ["task?3[103]", "1", "4.00ms"],
                ["task?4[104]", "1", "2.00ms"]
            ],
            "and control characters of names never reach the terminal"
        );
        assert!(lines[8].ends_with("100% task?5[105]"), "{lines:#?}");
    }

    #[test]
    fn what_is_missing_is_told() {
        let loss = Loss {
            place: LossPlace::Decode(schedtrace_core::ShardId(0)),
            kind: None,
            count: 42,
            from: Nanos(1),
            until: Nanos(2),
        };
        let lines = screen(&mut Viewer::new("a", report(vec![loss])), 100, 12);
        assert!(lines[1].contains("42 events are missing"), "{lines:#?}");
    }

    #[test]
    fn keys_scroll_within_the_rows_and_quit() {
        let mut viewer = Viewer::new("a", report(Vec::new()));
        // The head takes three lines, the keys one, the border and the header two: two rows are left.
        screen(&mut viewer, 100, 8);
        let mut press = |code: KeyCode| {
            let quit = viewer.key(code.into()).is_break();
            (quit, viewer.selected.selected())
        };
        assert_eq!(press(KeyCode::Up), (false, Some(0)));
        assert_eq!(press(KeyCode::Down), (false, Some(1)));
        assert_eq!(press(KeyCode::PageDown), (false, Some(3)));
        assert_eq!(press(KeyCode::PageDown), (false, Some(3)));
        assert_eq!(press(KeyCode::PageUp), (false, Some(1)));
        assert_eq!(press(KeyCode::End), (false, Some(3)));
        assert_eq!(press(KeyCode::Home), (false, Some(0)));
        assert_eq!(press(KeyCode::Char('x')), (false, Some(0)));
        assert_eq!(press(KeyCode::Char('q')), (true, Some(0)));
        assert_eq!(press(KeyCode::Esc), (true, Some(0)));
        assert!(!viewer.key(KeyCode::Char('c').into()).is_break());
        assert!(viewer.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)).is_break());
    }

    #[test]
    fn an_empty_report_and_a_tiny_terminal_are_drawn() {
        use schedtrace_core::analysis::Analysis;
        let mut viewer = Viewer::new("a\u{1b}[2J", Sched::default().report());
        assert!(viewer.key(KeyCode::Down.into()).is_continue());
        assert_eq!(screen(&mut viewer, 60, 8)[0], "schedtrace a?[2J");
        let mut viewer = Viewer::new("a", report(Vec::new()));
        for (width, height) in [(1, 1), (2, 5), (200, 2), (10, 60)] {
            screen(&mut viewer, width, height);
        }
    }
}
