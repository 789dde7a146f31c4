//! How the screen is laid out: a headline, the view, its tables, and a line that says what can be done.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use schedtrace_core::Nanos;

use crate::app::Over;
use crate::engine::Range;
use crate::grid::Grid;
use crate::keys::{Action, Bindings};
use crate::line::Line as Typed;
use crate::picker::{Picker, Picks};
use crate::sheet::{Sheet, printable};
use crate::theme::Theme;
use crate::views::{Cx, Name, View};

/// What is drawn around a view.
pub(crate) struct Screen<'a> {
    pub(crate) title: &'a str,
    pub(crate) is_live: bool,
    pub(crate) is_followed: bool,
    pub(crate) paused: bool,
    /// Where a replay is.
    pub(crate) replay: Option<String>,
    pub(crate) is_recording: bool,
    /// Of the whole recording, or of all that went on so far.
    pub(crate) lost_total: u64,
    /// No more events come, though they should.
    pub(crate) has_ended: bool,
    /// Why there is no answer to what was asked last.
    pub(crate) failed: Option<&'a str>,
    pub(crate) name: Name,
    pub(crate) over: &'a Over,
    /// What can be typed as a filter, or why it leaves nothing out.
    pub(crate) why_filter: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) bindings: &'a Bindings,
    pub(crate) sheets: &'a [Sheet],
    pub(crate) panel: usize,
    pub(crate) commands: Vec<Action>,
}

/// Before anything is known.
pub(crate) fn waiting(screen: &Screen<'_>, theme: &Theme, frame: &mut Frame<'_>) {
    let text = screen.failed.or(screen.message).map_or_else(|| "waiting for the first events".to_owned(), printable);
    let lines =
        vec![Line::from(format!("schedtrace {}", printable(screen.title))).style(theme.title), Line::from(text)];
    frame.render_widget(Paragraph::new(lines), frame.area());
    theme.glyphs.only_known(frame.buffer_mut());
}

/// Draws all of it; how far down the help can be scrolled.
pub(crate) fn screen(
    screen: &Screen<'_>,
    cx: &Cx<'_>,
    view: &mut dyn View,
    grids: &mut [Grid],
    frame: &mut Frame<'_>,
) -> u16 {
    let area = frame.area();
    let heights = [Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(heights).areas(area);
    frame.render_widget(Paragraph::new(headline(screen, cx, head.width)), head);
    let height = view.height(cx, body).min(body.height);
    let [above, tables] = Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(body);
    view.draw(cx, frame, above);
    draw_tables(screen, cx, grids, frame, tables);
    frame.render_widget(foot_line(screen, cx, view.actions(), foot.width), foot);
    let mut last = 0;
    match screen.over {
        Over::Help(at) => last = help(screen, cx, view.actions(), *at, frame),
        Over::Palette { line, at } => palette(screen, cx, line, *at, frame),
        Over::Picker(list) => picker(list, cx, screen.is_live, frame),
        Over::Nothing | Over::Filter(_) | Over::Search(_) | Over::Name { .. } => {}
    }
    cx.theme.glyphs.only_known(frame.buffer_mut());
    last
}

/// Of what, of which time, and what is missing.
fn headline(screen: &Screen<'_>, cx: &Cx<'_>, width: u16) -> Vec<Line<'static>> {
    let (theme, picture) = (cx.theme, cx.picture);
    let state = match (screen.is_live, screen.is_followed, screen.paused) {
        (true, true, _) => Span::styled("  live", theme.good),
        (true, false, true) => Span::styled("  paused", theme.warn),
        (true, false, false) => Span::styled("  live, looking at what was", theme.warn),
        (false, ..) => {
            screen.replay.as_ref().map_or_else(Span::default, |at| Span::styled(format!("  {at}"), theme.warn))
        }
    };
    let ended = Span::styled(if screen.has_ended { "  ended" } else { "" }, theme.bad);
    let recording = Span::styled(if screen.is_recording { "  recording" } else { "" }, theme.bad);
    // Where nothing was worked out that knows what is missing here, all may be.
    let here = picture.completeness().map_or(screen.lost_total, |about| about.lost_total);
    let events =
        |lost: u64| if lost == 1 { "1 event is missing".to_owned() } else { format!("{lost} events are missing") };
    let sampled = if cx.meta.filters.is_empty() { "" } else { ", a part only: filters were set" };
    let missing = match (screen.lost_total.max(here), here) {
        _ if cx.without.is_some() => Span::styled("without events: what /proc and /sys say", theme.warn),
        (0, _) => Span::styled("no event is known to be missing", theme.dim),
        (lost, here) if lost == here => Span::styled(format!("{}: counts are too low", events(lost)), theme.bad),
        (lost, here) => Span::styled(format!("{}, {here} of them here: counts are too low", events(lost)), theme.bad),
    };
    let seconds = |at: Nanos| (at - cx.origin()).0 as f64 / 1e9;
    let window = match picture.range {
        _ if cx.without.is_some() => "as it is now".to_owned(),
        _ if picture.is_partial => format!("reading: {} so far", picture.window.duration_ns),
        Range::Newest(_) => format!("the last {}", picture.window.duration_ns),
        Range::All => format!("all of it: {}", picture.window.duration_ns),
        Range::Between(..) => format!(
            "{} from {:.6} s to {:.6} s",
            picture.window.duration_ns,
            seconds(picture.window.from_ns),
            seconds(picture.window.until_ns)
        ),
    };
    let [product, view] = [Span::styled("schedtrace ", theme.title), Span::styled(screen.name.text(), theme.key)];
    let mut title = format!(" {0} {1}", theme.glyphs.dot, printable(screen.title).replace('·', theme.glyphs.dot));
    // Whether it is live, and records, is seen whatever the title is.
    let others = [&product, &view, &state, &ended, &recording].map(Span::width).iter().sum();
    let room = usize::from(width).saturating_sub(others);
    if title.chars().count() > room {
        title = title.chars().take(room.saturating_sub(1)).collect::<String>() + theme.glyphs.cut;
    }
    vec![
        Line::from(vec![product, view, title.into(), state, ended, recording]),
        Line::from(match screen.failed {
            Some(why) => vec![Span::styled(format!("older figures: {}", printable(why)), theme.bad)],
            None => vec![format!("{window}{sampled}; ").into(), missing],
        }),
    ]
}

fn draw_tables(screen: &Screen<'_>, cx: &Cx<'_>, grids: &mut [Grid], frame: &mut Frame<'_>, area: Rect) {
    // What was drawn before is not there for the mouse any more.
    grids.iter_mut().for_each(Grid::leave_screen);
    let count = screen.sheets.len();
    if count == 0 || area.height == 0 {
        return;
    }
    // The table that has the keys gets most of the room; with little, all of it.
    let alone = area.height < 8 * count as u16;
    let heights = (0..count).map(|at| match (at == screen.panel, alone) {
        (true, _) => Constraint::Fill(if alone { 1 } else { 2 }),
        (false, true) => Constraint::Length(1),
        (false, false) => Constraint::Fill(1),
    });
    let places = Layout::vertical(heights).split(area);
    for (at, ((sheet, grid), place)) in screen.sheets.iter().zip(grids).zip(places.iter()).enumerate() {
        let [rule, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(*place);
        let has_keys = at == screen.panel;
        let (style, sign) = match has_keys && count > 1 {
            true => (cx.theme.key, cx.theme.glyphs.here),
            false => (cx.theme.dim, cx.theme.glyphs.rule),
        };
        frame.render_widget(Paragraph::new(rule_of(sheet, grid, sign, cx.theme, rule.width)).style(style), rule);
        grid.place_rule(rule);
        if body.height > 0 {
            grid.draw((sheet, has_keys), cx.theme, cx.origin(), frame, body);
        }
    }
}

/// The line above a table: what it is, and how much of it is there.
fn rule_of(sheet: &Sheet, grid: &Grid, sign: &str, theme: &Theme, width: u16) -> String {
    let shown = grid.counted(sheet);
    let of = if shown < sheet.total { format!("{shown} of {}", sheet.total) } else { sheet.total.to_string() };
    let only = match (grid.filter.as_str(), &grid.why_not) {
        ("", _) => String::new(),
        (filter, None) => format!(", only `{}`", printable(filter)),
        (filter, Some(_)) => format!(", all: `{}` is no condition yet", printable(filter)),
    };
    let title = format!("{}{sign} {} ({of}{only}) ", theme.glyphs.rule, printable(&sheet.title));
    let left = usize::from(width).saturating_sub(title.chars().count());
    title + &theme.glyphs.rule.repeat(left)
}

/// What can be done here.
fn foot_line(screen: &Screen<'_>, cx: &Cx<'_>, actions: &[Action], width: u16) -> Line<'static> {
    let theme = cx.theme;
    let typed = |asks: &'static str, typed: &Typed, why: Option<&str>| {
        let why = why.map_or_else(String::new, |why| format!("  {}", printable(why)));
        let room = usize::from(width).saturating_sub(asks.len());
        let line = [Span::styled(asks, theme.key)].into_iter().chain(typed.typed(room, theme));
        Line::from(line.chain([Span::styled(why, theme.warn)]).collect::<Vec<_>>())
    };
    match screen.over {
        Over::Filter(line) => return typed("only rows with ", line, screen.why_filter),
        Over::Search(line) => return typed("search ", line, screen.message),
        Over::Name { what, line } => return typed(what.asks(), line, None),
        Over::Nothing | Over::Help(_) | Over::Palette { .. } | Over::Picker(_) => {}
    }
    if let Some(message) = screen.message {
        return Line::from(printable(message)).style(theme.warn);
    }
    let always = [Action::Help, Action::Palette, Action::Filter, Action::Quit];
    let told = |action: &Action| {
        let key = screen.bindings.keys(*action).into_iter().next()?;
        Some([Span::styled(key, theme.key), format!(" {}  ", action.short()).into()])
    };
    let wide = |spans: &[Span<'_>; 2]| spans.iter().map(Span::width).sum::<usize>();
    let always: Vec<_> = always.iter().filter(|action| !actions.contains(action)).filter_map(told).collect();
    // What can be done everywhere has its place; of what can be done here, as much as there is room for: none is cut off.
    let mut left = (usize::from(width) + 2).saturating_sub(always.iter().map(wide).sum());
    let here = actions.iter().filter_map(told).take_while(|spans| {
        let room = left.checked_sub(wide(spans));
        left = room.unwrap_or(left);
        room.is_some()
    });
    let here: Vec<_> = here.collect();
    here.into_iter().chain(always).flatten().collect()
}

/// What lies over a view is no wider.
const HELP: u16 = 100;

fn centred(frame: &mut Frame<'_>, theme: &Theme, lines: usize, title: Line<'_>) -> Rect {
    let height = (lines as u16).saturating_add(2).min(frame.area().height);
    let area = frame.area().centered(Constraint::Length(HELP), Constraint::Length(height));
    frame.render_widget(Clear, area);
    let block = Block::bordered().border_set(theme.glyphs.border).title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

/// A title in which something is typed.
fn titled(before: &'static str, typed: &Typed, after: &str, theme: &Theme) -> Line<'static> {
    const ROOM: usize = 30;
    let line = [Span::raw(before)].into_iter().chain(typed.typed(ROOM, theme));
    Line::from(line.chain([Span::raw(after.to_owned())]).collect::<Vec<_>>())
}

/// What keys and columns mean; how far down it can be scrolled.
fn help(screen: &Screen<'_>, cx: &Cx<'_>, actions: &[Action], at: u16, frame: &mut Frame<'_>) -> u16 {
    let theme = cx.theme;
    let width = usize::from(frame.area().width.min(HELP)).saturating_sub(24).max(20);
    // What is told of a key or a column stands beside it, on as many lines as it takes.
    let told = |name: &str, style: Style, about: &str| {
        let mut parts = vec![String::new()];
        for word in about.split(' ') {
            match parts.last_mut() {
                Some(last) if last.is_empty() => last.push_str(word),
                Some(last) if last.chars().count() + 1 + word.chars().count() <= width => {
                    last.push(' ');
                    last.push_str(word);
                }
                _ => parts.push(word.to_owned()),
            }
        }
        let line = |(at, part)| {
            let name = if at == 0 { name } else { "" };
            Line::from(vec![Span::styled(format!("{name:>20}  "), style), Span::raw(part)])
        };
        parts.into_iter().enumerate().map(line).collect::<Vec<_>>()
    };
    let line = |action: &Action| told(&screen.bindings.keys(*action).join(" "), theme.key, action.about());
    let mut lines = vec![Line::from(screen.name.about()).style(theme.title), Line::default()];
    if let Some(sheet) = screen.sheets.get(screen.panel) {
        let told = |column: crate::sheet::Head<'_>| told(&printable(column.name), theme.head, &printable(column.about));
        lines.extend(sheet.columns.heads().into_iter().flat_map(told));
        lines.push(Line::default());
    }
    let others = Action::ALL.iter().filter(|action| !actions.contains(action));
    lines.extend(actions.iter().chain(others).flat_map(line));
    let fits = lines.len() + 2 <= usize::from(frame.area().height);
    let title = if fits { " help: any key closes it " } else { " help: Up and Down scroll, any key closes it " };
    let area = centred(frame, theme, lines.len(), title.into());
    // No further than to the last line.
    let last = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(area.height);
    frame.render_widget(Paragraph::new(lines).scroll((at.min(last), 0)), area);
    last
}

fn palette(screen: &Screen<'_>, cx: &Cx<'_>, line: &Typed, at: usize, frame: &mut Frame<'_>) {
    const MOST: usize = 14;
    let theme = cx.theme;
    let from = (at + 1).saturating_sub(MOST);
    let lines = screen.commands.iter().enumerate().skip(from).take(MOST).map(|(row, action)| {
        let keys = screen.bindings.keys(*action).join(" ");
        let line = Line::from(vec![
            Span::styled(format!("{:>18} ", action.name()), theme.head),
            Span::styled(format!("{keys:<16} "), theme.key),
            action.about().into(),
        ]);
        if row == at { line.style(theme.selected) } else { line }
    });
    let lines: Vec<_> = lines.collect();
    let area = centred(frame, theme, MOST, titled(" :", line, " ", theme));
    frame.render_widget(Paragraph::new(lines), area);
}

fn picker(list: &Picker, cx: &Cx<'_>, is_live: bool, frame: &mut Frame<'_>) {
    const MOST: usize = 18;
    let (theme, shown) = (cx.theme, list.shown());
    let from = (list.at + 1).saturating_sub(MOST);
    let lines = shown.iter().enumerate().skip(from).take(MOST).filter_map(|(row, &at)| {
        let item = list.items.get(at)?;
        let indent = if list.what == Picks::Columns || item.is_group { "" } else { "  " };
        let style = if item.is_group { theme.title } else { theme.head };
        let line = Line::from(vec![
            Span::styled(if item.is_on { "[x] " } else { "[ ] " }, if item.is_on { theme.good } else { theme.dim }),
            Span::styled(format!("{:<26} ", format!("{indent}{}", printable(&item.name))), style),
            Span::styled(format!("{:>9}  ", item.note), theme.key),
            Span::styled(printable(&item.about), theme.dim),
        ]);
        Some(if row == list.at { line.style(theme.selected) } else { line })
    });
    let lines: Vec<_> = lines.collect();
    let does = match list.what {
        Picks::Columns => "Space shows or hides, letters search, Esc closes",
        Picks::Events if list.is_changed => "Enter begins anew with these: what was kept goes; Esc leaves all as it is",
        Picks::Events if is_live && cx.without.is_none() => {
            "Enter shows them, Space chooses what is recorded, letters search"
        }
        Picks::Events => "Enter shows them, letters search, Esc closes",
    };
    let title = titled(" ", &list.line, &format!(" {does} "), theme);
    let area = centred(frame, theme, shown.len().clamp(1, MOST), title);
    frame.render_widget(Paragraph::new(lines), area);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::crossterm::event::{Event, KeyCode};

    use crate::{App, Origin, Settings, once};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn app() -> App {
        let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../schedtrace/tests/fixtures/hackbench.schedtrace");
        let origin = Origin::trace(trace.as_ref()).unwrap();
        App::new(origin.titled("a machine of a long name, ".repeat(9)), Settings::default()).unwrap()
    }

    #[test]
    fn no_key_of_the_help_line_is_cut_off_and_those_for_everywhere_are_there() {
        let mut app = app();
        for width in (40..160).step_by(3) {
            let screen = once(&mut app, width, 24, PATIENCE).unwrap();
            let line = screen.lines().last().unwrap();
            assert!(line.ends_with("q quit") && line.contains("? help"), "{width} columns: {line}");
        }
    }

    #[test]
    fn a_long_name_leaves_room_for_what_goes_on() {
        let screen = once(&mut app(), 80, 24, PATIENCE).unwrap();
        let line = screen.lines().next().unwrap();
        assert!(line.contains('…') && line.chars().count() <= 80, "{line}");
    }

    #[test]
    fn the_help_is_scrolled_to_its_end_and_back() {
        let mut app = app();
        let mut pressed = |key: KeyCode| {
            assert!(app.event(&Event::Key(key.into())).is_continue());
            once(&mut app, 80, 24, PATIENCE).unwrap()
        };
        assert!(pressed(KeyCode::Char('?')).contains("any key closes it"));
        let end = pressed(KeyCode::End);
        assert!(end.contains("What can be recorded here"), "{end}");
        assert_ne!(pressed(KeyCode::Up), end, "one line up from the end is another picture");
        assert!(!pressed(KeyCode::Char('x')).contains("any key closes it"));
    }
}
