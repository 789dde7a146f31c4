//! The model of the screen: what is shown, and what keys do to it. How it looks is [`draw`](crate::draw)'s.

use std::ops::ControlFlow;

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;
use schedtrace_core::analysis::RunQueueRow;

use crate::draw;
use crate::feed::Picture;

/// A picture on a screen: what of it is shown, and where one has scrolled to. It knows no terminal.
///
/// ```
/// use ratatui::{Terminal, backend::TestBackend};
/// use schedtrace_core::synthetic::SyntheticHost;
/// use schedtrace_tui::{Feed, Live, Viewer};
///
/// let mut feed = Live::start(SyntheticHost::new().start(), || (), std::time::Duration::from_millis(10))?;
/// std::thread::sleep(feed.patience());
/// let mut viewer = Viewer::default();
/// viewer.show(feed.next().expect("it is time"));
/// let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
/// terminal.draw(|frame| viewer.draw(frame)).unwrap();
/// assert!(terminal.backend().to_string().contains("synthetic · Linux"));
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Viewer {
    pub(crate) picture: Option<Picture>,
    pub(crate) selected: TableState,
    /// Rows on the screen, for paging.
    pub(crate) page: usize,
    /// Only tasks whose names contain this.
    pub(crate) filter: String,
    /// Keys go to the filter.
    pub(crate) typing: bool,
    /// The picture stays.
    pub(crate) paused: bool,
    pub(crate) help: bool,
}

impl Viewer {
    /// Takes a new picture.
    pub fn show(&mut self, picture: Picture) {
        self.picture = Some(picture);
        self.scroll(0);
    }

    /// Whether the picture is to stay: the window of the next one grows meanwhile.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Does what a key says; `Break` means to quit.
    pub fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        if key.kind == KeyEventKind::Release {
            return ControlFlow::Continue(());
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return ControlFlow::Break(());
        }
        if self.typing {
            self.type_in(key.code);
        } else if self.help {
            self.help = false;
        } else {
            return self.command(key.code);
        }
        ControlFlow::Continue(())
    }

    fn type_in(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < 64 => self.filter.push(c),
            _ => {}
        }
        self.scroll(0);
    }

    fn command(&mut self, key: KeyCode) -> ControlFlow<()> {
        match key {
            KeyCode::Char('q') => return ControlFlow::Break(()),
            KeyCode::Esc if self.filter.is_empty() => return ControlFlow::Break(()),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p') => self.paused = !self.paused && self.is_live(),
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::PageDown => self.scroll(self.page.cast_signed()),
            KeyCode::PageUp => self.scroll(-self.page.cast_signed()),
            KeyCode::Home | KeyCode::Char('g') => self.scroll(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.scroll(isize::MAX),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    pub(crate) fn is_live(&self) -> bool {
        self.picture.as_ref().is_some_and(|picture| picture.live)
    }

    /// The tasks that waited and that the filter lets through, those that waited longest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &RunQueueRow> {
        let filter = self.filter.to_lowercase();
        let rows = self.picture.iter().flat_map(|picture| &picture.by_task.run_queue.groups);
        rows.filter(move |row| filter.is_empty() || row.group.to_string().to_lowercase().contains(&filter))
    }

    fn scroll(&mut self, by: isize) {
        let last = self.rows().count().checked_sub(1);
        let at = self.selected.selected().unwrap_or(0);
        self.selected.select(last.map(|last| at.saturating_add_signed(by).min(last)));
    }

    /// Draws the whole screen.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        draw::screen(self, frame);
    }
}
