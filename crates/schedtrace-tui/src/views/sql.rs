//! A statement in SQL, and what it answers.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use schedtrace_core::Nanos;
use schedtrace_core::analysis::GroupBy;

use super::{Cx, Effect, Name, View};
use crate::engine::{Range, Wants};
use crate::keys::Action;
use crate::sheet::{Column, Row, Sheet, Target, Value, printable};
use crate::sql::{Table, WITHOUT};

/// As much time as is shown before and after a moment that is opened, at least.
const AROUND: Nanos = Nanos(500_000);
const ASKS: &str = "sql> ";

pub(super) struct Sql;

const TABLES: &[Column] = &[
    Column { name: "TABLE", about: "Its name.", width: 24, rank: 0 },
    Column { name: "A ROW FOR EACH", about: "What a row of it tells.", width: 0, rank: 0 },
    Column { name: "COLUMNS", about: "Their names.", width: 60, rank: 1 },
];

impl View for Sql {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        // The standard study knows what is missing.
        Wants::default().sched(GroupBy::Llc)
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        let tables = || cx.prompt.tables().iter().map(|of| table(of, is_selected(cx))).collect::<Vec<_>>();
        match (&cx.prompt.answer, WITHOUT) {
            (Some(Ok(answer)), _) => vec![answer.sheet.clone()],
            (_, None) => vec![Sheet::new("what can be asked: Enter takes a table", TABLES, tables())],
            (_, Some(why)) => vec![Sheet::new("SQL", TABLES, Vec::new()).or(why)],
        }
    }

    fn height(&self, cx: &Cx<'_>, _: Rect) -> u16 {
        match (WITHOUT, &cx.prompt.answer) {
            (Some(_), _) => 0,
            (None, Some(Err(_))) => 5,
            _ => 3,
        }
    }

    fn draw(&mut self, cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
        if WITHOUT.is_some() {
            return;
        }
        let seconds = |at: Nanos| (at - cx.origin()).0 as f64 / 1e9;
        let window = cx.picture.window;
        let edges = format!("{:.6} s to {:.6} s", seconds(window.from_ns), seconds(window.until_ns));
        let time = match is_selected(cx) {
            true => format!("`ts between $from and $until` asks of the selected {edges}"),
            false => format!("All time is asked; $from and $until are {edges}"),
        };
        let (told, style) = status(cx);
        let lines = vec![line(cx, area.width), Line::styled(time, cx.theme.dim), Line::styled(told, style)];
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
    }

    fn act(&mut self, action: Action, cx: &Cx<'_>) -> Option<Effect> {
        let has_rows = matches!(&cx.prompt.answer, Some(Ok(_)));
        (action == Action::Clear && has_rows).then_some(Effect::Statement(None))
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Sql, Action::Open, Action::Clear, Action::SortNext, Action::Filter, Action::Save]
    }

    fn open(&self, target: &Target) -> Option<Effect> {
        match target {
            Target::Moment { from, until, .. } => {
                let margin = AROUND.max(Nanos((*until - *from).0 / 2));
                Some(Effect::At(Name::Timeline.into(), Range::Between(*from - margin, *until + margin)))
            }
            Target::Named(name) if !name.starts_with(|c: char| c.is_ascii_digit()) => {
                Some(Effect::Statement(Some(format!("select * from {name} limit 100"))))
            }
            _ => None,
        }
    }
}

/// Whether a part of the time was chosen: what is asked may be meant of that.
fn is_selected(cx: &Cx<'_>) -> bool {
    matches!(cx.picture.range, Range::Between(..))
}

/// What stands where nothing was typed yet.
fn example(cx: &Cx<'_>) -> &'static str {
    match is_selected(cx) {
        true => "select * from thread_state where ts between $from and $until",
        false => "select comm, state, sum(dur) from thread_state group by comm, state",
    }
}

/// It is named by what is asked of it: in a part of the time, where one is selected.
fn table(table: &Table, is_selected: bool) -> Row {
    let ts = table.columns.iter().find(|column| is_selected && matches!(column.as_str(), "ts" | "ts_ns"));
    let time = ts.map_or_else(String::new, |ts| format!(" where {ts} between $from and $until"));
    let about = table.about.split_once(". ").map_or(table.about.as_str(), |(first, _)| first);
    Row {
        target: Target::Named(table.name.clone() + &time),
        depth: 0,
        cells: vec![
            Value::text(table.name.clone()),
            Value::text(about.trim_end_matches('.').trim_start_matches("One row for each ").to_owned()),
            Value::text(table.columns.join(" ")),
        ],
    }
}

/// What is going on, and how it looks.
fn status(cx: &Cx<'_>) -> (String, Style) {
    let (prompt, theme) = (cx.prompt, cx.theme);
    if let Some((names, at)) = prompt.offers() {
        let name = |(n, name): (usize, &String)| if Some(n) == at { format!("[{name}]") } else { name.clone() };
        let from = at.unwrap_or(0).saturating_sub(3);
        return (names.iter().enumerate().skip(from).take(40).map(name).collect::<Vec<_>>().join("  "), theme.key);
    }
    match &prompt.answer {
        _ if prompt.is_running() => ("asking: Esc ends it".to_owned(), theme.warn),
        Some(Err(why)) => (printable(why), theme.bad),
        _ if prompt.is_typing() => (
            "Enter asks, Tab completes, Up and Down are what was asked before, Esc leaves the line".to_owned(),
            theme.dim,
        ),
        Some(Ok(answer)) => (answer.told.clone(), theme.good),
        None => (String::new(), theme.dim),
    }
}

/// What is typed, as much of it as there is room for.
fn line(cx: &Cx<'_>, width: u16) -> Line<'static> {
    let room = usize::from(width).saturating_sub(ASKS.len());
    let line = match cx.prompt.is_typing() {
        true => cx.prompt.line().typed(room, cx.theme),
        false => cx.prompt.line().spans(room, Style::new(), " "),
    };
    let is_empty = cx.prompt.is_typing() && cx.prompt.line().letters().is_empty();
    let example = is_empty.then(|| Span::styled(format!(" such as {}", example(cx)), cx.theme.dim));
    [Span::styled(ASKS, cx.theme.key)].into_iter().chain(line).chain(example).collect::<Vec<_>>().into()
}
