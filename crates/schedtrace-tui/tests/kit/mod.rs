//! What the tests of the screen share: traces of machines of any size, and a terminal that only remembers.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use schedtrace_core::synthetic::SyntheticHost;
use schedtrace_core::trace::{TraceWriter, WriterOptions};
use schedtrace_core::{OnFull, Pipeline, Summary};
use schedtrace_tui::{App, Origin, Settings};
use tempfile::TempDir;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A trace, with a name instead of its path.
pub(crate) struct Recorded {
    pub(crate) name: &'static str,
    path: PathBuf,
    /// It goes with this.
    folder: Option<Arc<TempDir>>,
}

impl Recorded {
    pub(crate) fn fixture(name: &'static str, path: &str) -> Self {
        Self { name, path: here(path), folder: None }
    }

    /// What a machine would have recorded that is not there; the same each time.
    pub(crate) fn of(name: &'static str, host: SyntheticHost) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.schedtrace");
        let mut writer = TraceWriter::create(&path, WriterOptions::default()).unwrap();
        let run = Pipeline::new().sink("trace", OnFull::Block, &mut writer).run(&mut host.start());
        run.and_then(Summary::into_result).unwrap();
        Self { name, path, folder: Some(Arc::new(folder)) }
    }

    pub(crate) fn shown(&self, settings: Settings) -> Screen {
        let origin = Origin::trace(&self.path).unwrap().titled(self.name);
        Screen { folder: self.folder.clone(), ..Screen::new(App::new(origin, settings).unwrap(), 140, 36) }
    }
}

/// An [`App`] on a terminal that only remembers.
pub(crate) struct Screen {
    app: App,
    terminal: Terminal<TestBackend>,
    /// The trace stays as long as it is looked at.
    #[allow(dead_code, reason = "kept, not read")]
    folder: Option<Arc<TempDir>>,
}

impl Screen {
    pub(crate) fn new(app: App, width: u16, height: u16) -> Self {
        let terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut screen = Self { app, terminal, folder: None };
        screen.draw();
        screen
    }

    /// Makes it another size, as a user does with the mouse.
    pub(crate) fn resize(&mut self, width: u16, height: u16) {
        self.terminal.backend_mut().resize(width, height);
        self.send(&Event::Resize(width, height));
    }

    pub(crate) fn draw(&mut self) {
        self.terminal.draw(|frame| self.app.draw(frame)).unwrap();
    }

    pub(crate) fn send(&mut self, event: &Event) {
        let _ = self.app.event(event);
        self.app.tick();
        self.draw();
    }

    /// Until all is there that was asked for: what is drawn may ask for more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..3 {
            // What cannot be answered, as a wrong filter, is told on the screen.
            let _ = self.app.settle(PATIENCE);
            self.draw();
        }
    }

    pub(crate) fn press(&mut self, key: KeyCode) {
        self.send(&Event::Key(KeyEvent::new(key, KeyModifiers::NONE)));
    }

    /// Presses keys one after the other, and waits for what they lead to.
    pub(crate) fn keys(&mut self, keys: &str) {
        for key in keys.chars() {
            self.press(KeyCode::Char(key));
            self.settle();
        }
    }

    pub(crate) fn text(&self) -> String {
        let buffer = self.buffer();
        let line = |y: u16| {
            let cells = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned() + "\n"
        };
        (0..buffer.area.height).map(line).collect()
    }

    pub(crate) fn buffer(&self) -> &Buffer {
        self.terminal.backend().buffer()
    }

    /// The name of the view, as the first line has it.
    pub(crate) fn view(&self) -> String {
        self.text().lines().next().and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default().to_owned()
    }
}
