//! What keys and the mouse do.

use std::ops::ControlFlow;

use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use schedtrace_core::Nanos;
use schedtrace_core::analysis::GroupBy;

use super::{App, BACK, Over, SHORTEST, Shown, What, Wish, commands, cx, newest};
use crate::config::Sorted;
use crate::engine::Range;
use crate::grid::{Grid, Hit};
use crate::keys::Action;
use crate::line::Line;
use crate::settings::{LEAST_INTERVAL, MOST_INTERVAL};
use crate::sheet::Sheet;
use crate::theme::{Look, Theme};
use crate::views::{Cx, Effect, Name, Place, View};

impl App {
    /// Does what an event of the terminal says; `Break` means to quit.
    ///
    /// ```
    /// # use ratatui::crossterm::event::{Event, KeyCode};
    /// # use schedtrace_core::flight::WindowOptions;
    /// # use schedtrace_core::synthetic::SyntheticHost;
    /// # use schedtrace_tui::{App, Origin, Settings};
    /// # let origin = Origin::live(SyntheticHost::new().start(), || (), WindowOptions::default())?;
    /// let mut app = App::new(origin, Settings::default())?;
    /// assert!(app.event(&Event::Key(KeyCode::Char('?').into())).is_continue());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn event(&mut self, event: &Event) -> ControlFlow<()> {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => return self.key(*key),
            Event::Mouse(mouse) => return self.mouse(*mouse),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// The mouse is where it can be seen: what lies over the view takes it, and what is below does not.
    fn mouse(&mut self, mouse: MouseEvent) -> ControlFlow<()> {
        let turned = match mouse.kind {
            MouseEventKind::ScrollDown => Some((Action::Down, KeyCode::Down)),
            MouseEventKind::ScrollUp => Some((Action::Up, KeyCode::Up)),
            _ => None,
        };
        match (&self.over, turned) {
            (Over::Nothing, Some((action, _))) => return self.act(action),
            (Over::Nothing, None) if mouse.kind == MouseEventKind::Down(MouseButton::Left) => {
                self.click(mouse.column, mouse.row);
            }
            (&Over::Help(at), Some((action, _))) => self.scroll_help(Some(action), at),
            (Over::Palette { .. } | Over::Picker(_), Some((_, key))) => return self.key(key.into()),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// A click gives a table the keys. Only in the one that had them a row that is selected already is opened.
    fn click(&mut self, x: u16, y: u16) {
        if let Some(effect) = self.with_view(|view, cx| view.click(cx, x, y)) {
            return self.do_effect(effect);
        }
        let shown = &mut self.views[self.at];
        let tables = shown.grids.iter_mut().zip(&self.sheets).enumerate();
        let hit = tables.into_iter().find_map(|(panel, (grid, sheet))| {
            let hit = grid.click(sheet, x, y)?;
            if hit == Hit::Head {
                grid.follow(sheet, self.origin.meta().started);
            }
            Some((panel, hit))
        });
        let Some((panel, hit)) = hit else { return };
        let had_keys = std::mem::replace(&mut shown.panel, panel) == panel;
        match hit {
            Hit::Head => self.keep_sort(),
            Hit::Selected if had_keys => _ = self.act(Action::Open),
            Hit::Selected | Hit::Row | Hit::Place => {}
        }
    }

    /// Remembers by what the table that has the keys is sorted.
    fn keep_sort(&mut self) {
        let (view, table) = (self.name().text(), self.views[self.at].panel);
        let sorted = self.panel().and_then(|(grid, sheet)| {
            let (column, ascending) = grid.sort?;
            Some((sheet.columns.name(column)?.to_owned(), ascending))
        });
        let Some((column, ascending)) = sorted else { return };
        self.sorts.retain(|sorted| sorted.view != view || sorted.table != table);
        self.sorts.push(Sorted { view: view.to_owned(), table, column, ascending });
    }

    fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return ControlFlow::Break(());
        }
        match std::mem::take(&mut self.over) {
            Over::Help(at) => self.scroll_help(self.bindings.action(key), at),
            Over::Filter(line) => self.type_filter(key, line),
            Over::Search(line) => self.type_search(key, self.bindings.action(key), line),
            Over::Name { what, line } => self.type_name(key, what, line),
            Over::Palette { line, at } => return self.type_command(key, line, at),
            Over::Picker(list) => return self.pick(key, list),
            Over::Nothing if self.type_sql(key) => {}
            Over::Nothing => {
                if let Some(action) = self.bindings.action(key) {
                    self.message = None;
                    return self.act(action);
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Scrolls the help, or closes it.
    fn scroll_help(&mut self, action: Option<Action>, at: u16) {
        const PAGE: u16 = 10;
        self.over = match action {
            Some(Action::Up) => Over::Help(at.saturating_sub(1)),
            Some(Action::Down) => Over::Help(at.saturating_add(1)),
            Some(Action::PageUp) => Over::Help(at.saturating_sub(PAGE)),
            Some(Action::PageDown) => Over::Help(at.saturating_add(PAGE)),
            Some(Action::First) => Over::Help(0),
            Some(Action::Last) => Over::Help(u16::MAX),
            _ => Over::Nothing,
        };
    }

    /// What is typed as the filter of this view, or of the table that has the keys.
    fn begin_filter(&mut self) {
        let own = self.views[self.at].view.filter().map(Line::new);
        let line = own.or_else(|| self.panel().map(|(grid, _)| Line::new(&grid.filter)));
        self.over = Over::Filter(line.unwrap_or_default());
    }

    fn type_filter(&mut self, key: KeyEvent, mut line: Line) {
        match key.code {
            // What leaves nothing out is not done yet.
            KeyCode::Enter if self.panel().is_some_and(|(grid, _)| grid.why_not.is_some()) => {}
            KeyCode::Enter => return,
            KeyCode::Esc => line.clear(),
            _ => _ = line.press(key),
        }
        let origin = self.origin.meta().started;
        let shown = &mut self.views[self.at];
        if shown.view.filter().is_some() {
            shown.view.set_filter(line.text());
        } else if let Some((grid, sheet)) = shown.grids.get_mut(shown.panel).zip(self.sheets.get(shown.panel)) {
            grid.filter = line.text();
            grid.follow(sheet, origin);
        }
        if key.code != KeyCode::Esc {
            self.over = Over::Filter(line);
        }
    }

    fn type_command(&mut self, key: KeyEvent, mut line: Line, mut at: usize) -> ControlFlow<()> {
        let before = line.text();
        let found = commands(&before);
        match key.code {
            KeyCode::Esc => return ControlFlow::Continue(()),
            KeyCode::Enter => {
                return found.get(at).map_or(ControlFlow::Continue(()), |action| self.act(*action));
            }
            KeyCode::Up => at = at.saturating_sub(1),
            KeyCode::Down => at = (at + 1).min(found.len().saturating_sub(1)),
            _ => _ = line.press(key),
        }
        if line.text() != before {
            at = 0;
        }
        self.over = Over::Palette { line, at };
        ControlFlow::Continue(())
    }

    pub(super) fn panel(&mut self) -> Option<(&mut Grid, &Sheet)> {
        let shown = &mut self.views[self.at];
        shown.grids.get_mut(shown.panel).zip(self.sheets.get(shown.panel))
    }

    fn act(&mut self, action: Action) -> ControlFlow<()> {
        if let Some(effect) = self.with_view(|view, cx| view.act(action, cx)) {
            self.do_effect(effect);
            return ControlFlow::Continue(());
        }
        if let Some(name) = Name::ALL.iter().find(|name| name.action() == Some(action)) {
            self.go((*name).into());
            if action == Action::Sql {
                self.begin_sql();
            }
            return ControlFlow::Continue(());
        }
        match action {
            Action::Quit if self.warns() => {}
            Action::Quit => return ControlFlow::Break(()),
            Action::Suspend => self.out.wishes.push(Wish::Suspend),
            Action::Help => self.over = Over::Help(0),
            Action::Palette => self.over = Over::Palette { line: Line::default(), at: 0 },
            Action::Columns | Action::Pick => self.open_picker(action),
            Action::Filter => self.begin_filter(),
            Action::Search => self.over = Over::Search(Line::new(&self.search)),
            Action::Back => self.travel(-1),
            Action::Forward => self.travel(1),
            Action::Close => self.close(),
            Action::NextView | Action::PreviousView => self.next_view(if action == Action::NextView { 1 } else { -1 }),
            Action::NextPanel | Action::PreviousPanel => {
                self.next_panel(if action == Action::NextPanel { 1 } else { -1 })
            }
            Action::Group => {
                let all = GroupBy::ALL;
                let at = all.iter().position(|by| *by == self.by).unwrap_or(0);
                self.by = all[(at + 1) % all.len()];
                self.message = Some(format!("rows by {}", self.by));
            }
            Action::Pause => self.play_or_hold(),
            Action::First | Action::Last | Action::Begin | Action::End | Action::Earlier | Action::Later
                if self.seek(action) => {}
            Action::Begin | Action::End => self.edge(action),
            Action::Select => self.select(),
            Action::NextAnomaly | Action::PreviousAnomaly => self.anomaly(action == Action::NextAnomaly),
            Action::Copy | Action::CopyJson => self.copy(action),
            Action::Save => self.ask_name(What::View),
            Action::Export => self.ask_name(What::Perfetto),
            Action::Snapshot => self.ask_name(What::Snapshot),
            Action::Record => self.record(),
            Action::Theme => {
                let at = Look::ALL.iter().position(|look| *look == self.settings.look).unwrap_or(0);
                self.settings.look = Look::ALL[(at + 1) % Look::ALL.len()];
                self.theme = Theme::new(self.settings.look, self.settings.ascii);
                self.chosen = Some(self.settings.look);
                self.message = Some(format!("theme {}", self.settings.look.name()));
            }
            Action::AllTime => self.leave(),
            Action::ZoomIn | Action::ZoomOut | Action::Earlier | Action::Later => self.look(action),
            Action::Faster | Action::Slower => self.pace(action),
            _ => self.on_panel(action),
        }
        ControlFlow::Continue(())
    }

    /// Asks the view what is to be done, if there is a picture to do it with.
    fn with_view(&mut self, asks: impl FnOnce(&mut dyn View, &Cx<'_>) -> Option<Effect>) -> Option<Effect> {
        let picture = self.picture.as_ref()?;
        let cx = cx(picture, &self.origin, &self.theme, self.by, &self.past, self.machine.as_ref(), &self.prompt);
        asks(self.views[self.at].view.as_mut(), &cx.marked(self.time.mark()))
    }

    /// What is done to a table.
    fn on_panel(&mut self, action: Action) {
        let origin = self.origin.meta().started;
        let shown = &mut self.views[self.at];
        let Some((grid, sheet)) = shown.grids.get_mut(shown.panel).zip(self.sheets.get(shown.panel)) else { return };
        match action {
            Action::Up => grid.scroll(sheet, -1),
            Action::Down => grid.scroll(sheet, 1),
            Action::PageUp => grid.scroll_pages(sheet, -1),
            Action::PageDown => grid.scroll_pages(sheet, 1),
            Action::First => grid.scroll(sheet, isize::MIN),
            Action::Last => grid.scroll(sheet, isize::MAX),
            Action::SortNext => grid.sort_by_next(sheet, 1),
            Action::SortPrevious => grid.sort_by_next(sheet, -1),
            Action::SortReverse => grid.sort = grid.sort.map(|(at, ascending)| (at, !ascending)),
            Action::Fold if sheet.folds => grid.fold(sheet),
            Action::FoldAll if sheet.folds => grid.fold_all(sheet),
            Action::Open | Action::Explain => {
                let Some(target) = grid.row(sheet).map(|row| row.target.clone()) else { return };
                let effect = match (action, target.subject()) {
                    (Action::Explain, Some(who)) => Some(Effect::Go(Place::of(Name::Task, who))),
                    _ => shown.view.open(&target),
                };
                match effect {
                    Some(effect) => self.do_effect(effect),
                    None => self.message = Some("there is nothing more to see of this row".to_owned()),
                }
                return;
            }
            _ => {
                self.message = Some(format!("{} cannot be done here", action.name()));
                return;
            }
        }
        grid.follow(sheet, origin);
        if matches!(action, Action::SortNext | Action::SortPrevious | Action::SortReverse) {
            self.keep_sort();
        }
    }

    fn do_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Done => {}
            Effect::Go(place) => self.go(place),
            Effect::Look(range) => {
                self.set_range(range);
                self.message = Some("a part of the time is looked at: 0 for all of it".to_owned());
            }
            Effect::Statement(statement) => self.take_statement(statement),
            Effect::At(place, range) => {
                self.do_effect(Effect::Look(range));
                self.go(place);
            }
        }
    }

    /// Goes to a view; what was gone back from is forgotten.
    pub(super) fn go(&mut self, place: Place) {
        if self.views[self.at].place == place {
            return;
        }
        self.views.truncate(self.at + 1);
        if self.views.len() == BACK {
            self.views.remove(0);
        }
        self.views.push(Shown::new(place, &self.origin));
        self.at = self.views.len() - 1;
        self.make_sheets();
    }

    fn travel(&mut self, by: isize) {
        let to = self.at.saturating_add_signed(by).min(self.views.len() - 1);
        if to == self.at {
            self.message = Some(if by < 0 { "this was the first view" } else { "this was the last view" }.to_owned());
        }
        self.at = to;
        self.make_sheets();
    }

    fn close(&mut self) {
        let origin = self.origin.meta().started;
        let all = self.all_time();
        let view = &mut self.views[self.at].view;
        if view.filter().is_some_and(|text| !text.is_empty()) {
            view.set_filter(String::new());
        } else if self.unmark() {
            self.message = Some("the mark is gone".to_owned());
        } else if let Some((grid, sheet)) = self.panel().filter(|(grid, _)| !grid.filter.is_empty()) {
            grid.filter.clear();
            let sheet = sheet.clone();
            grid.follow(&sheet, origin);
        } else if self.range != all {
            self.leave();
        } else if self.at > 0 {
            self.travel(-1);
        }
    }

    fn next_view(&mut self, step: isize) {
        let all: Vec<Name> = Name::ALL.iter().copied().filter(|name| name.action().is_some()).collect();
        let at = all.iter().position(|name| *name == self.name()).unwrap_or(0).cast_signed();
        self.go(all[(at + step).rem_euclid(all.len().cast_signed()).cast_unsigned()].into());
    }

    fn next_panel(&mut self, step: isize) {
        let shown = &mut self.views[self.at];
        if let Ok(panels @ 1..) = isize::try_from(self.sheets.len()) {
            shown.panel = (shown.panel.cast_signed() + step).rem_euclid(panels).cast_unsigned();
        }
    }

    /// Another stretch of time.
    fn look(&mut self, action: Action) {
        let Some((extent, window)) = self.extent().zip(self.chosen()) else { return };
        let (from, length) = (window.from_ns, window.duration_ns.0.max(1));
        let most = extent.duration_ns.0;
        let (from, length) = match action {
            Action::ZoomIn => (from + Nanos(length / 4), (length - 2 * (length / 4)).max(SHORTEST.0)),
            Action::ZoomOut => (from - Nanos(length / 2), length.saturating_mul(2)),
            Action::Earlier => (from - Nanos(length / 2), length),
            _ => (from + Nanos(length / 2), length),
        };
        // At the edges the stretch stays as long as it is.
        let length = length.min(most);
        let from = from.clamp(extent.from_ns, extent.until_ns - Nanos(length));
        let until = from + Nanos(length);
        if (from, until) == (window.from_ns, window.until_ns) {
            self.message = Some("there is no more in that direction".to_owned());
        } else if from <= extent.from_ns && until >= extent.until_ns && !self.origin.is_live() {
            self.set_range(Range::All);
        } else {
            self.set_range(Range::Between(from, until));
        }
    }

    /// Shorter or longer windows of what goes on.
    fn pace(&mut self, action: Action) {
        if self.seek(action) {
            return;
        }
        if !self.origin.is_live() {
            self.message = Some("nothing is being played: Space plays the recording".to_owned());
            return;
        }
        let interval = self.settings.interval;
        let to = if action == Action::Faster { interval / 2 } else { interval * 2 };
        self.settings.interval = to.clamp(LEAST_INTERVAL, MOST_INTERVAL);
        if matches!(self.range, Range::Newest(_)) {
            self.range = newest(self.settings.interval);
        }
        self.message = Some(format!("windows of {:?}", self.settings.interval));
    }
}
