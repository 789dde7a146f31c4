//! What leaves the screen: copies, files, traces; and the prompts that ask for a name or a text.

use std::path::Path;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use schedtrace_core::Result;

use super::{App, Over};
use crate::jobs::{self, Done, Jobs, free_name};
use crate::keys::Action;
use crate::line::Line;
use crate::origin::Store;
use crate::sheet::{Sheet, printable};
use crate::tape::Recording;

/// What terminals take at once of a copy, in bytes before it is packed: xterm takes 75,000 packed.
const COPY_BYTES: usize = 56_000;

/// What is written when its name is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    View,
    Perfetto,
    Snapshot,
    Recording,
}

impl What {
    /// Before the name, where it is asked for.
    pub(crate) const fn asks(self) -> &'static str {
        match self {
            Self::View => "write this view (.md or .json) as ",
            Self::Perfetto => "write this stretch of time for Perfetto as ",
            Self::Snapshot => "write the last seconds as the trace ",
            Self::Recording => "record from now on into the trace ",
        }
    }
}

/// What only somebody with a terminal can do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Gives this to the clipboard.
    Copy(String),
    Suspend,
}

#[derive(Debug)]
pub(super) struct Out {
    pub(super) jobs: Jobs,
    pub(super) wishes: Vec<Wish>,
    /// Somebody was told that something is being written still.
    is_warned: bool,
}

/// What came of it that something was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    /// What was written while the screen went.
    pub(crate) told: Vec<String>,
    /// What was not, or not to its end.
    pub(crate) failed: Vec<String>,
}

impl Out {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { jobs: Jobs::new()?, wishes: Vec::new(), is_warned: false })
    }

    /// Writes something; who was warned was not of this.
    fn write(&mut self, path: &Path, job: impl FnOnce() -> Done + Send + 'static) -> Result<()> {
        self.is_warned = false;
        self.jobs.write(&printable(&path.to_string_lossy()), job)
    }
}

impl App {
    /// Copies the table that has the keys, as it is shown.
    pub(super) fn copy(&mut self, action: Action) {
        let origin = self.origin.meta().started;
        let Some((grid, sheet)) = self.panel() else {
            self.message = Some("there is no table here".to_owned());
            return;
        };
        let mut shown =
            Sheet { rows: grid.rows(sheet).cloned().collect(), columns: sheet.columns.clone(), ..Sheet::default() };
        (shown.title, shown.total) = (sheet.title.clone(), sheet.total);
        let all = shown.rows.len();
        let text = loop {
            let text = if action == Action::Copy { shown.markdown(origin) } else { shown.json().to_string() };
            if text.len() <= COPY_BYTES || shown.rows.is_empty() {
                break text;
            }
            shown.rows.truncate(shown.rows.len() * COPY_BYTES / text.len().max(1) * 9 / 10);
        };
        let as_what = if action == Action::Copy { "Markdown" } else { "JSON" };
        self.message = Some(match shown.rows.len() {
            rows if rows == all => format!("copied {rows} rows as {as_what}, if this terminal takes copies (OSC 52)"),
            rows => format!("copied {rows} of {all} rows as {as_what}: a terminal takes no more; s writes a file"),
        });
        self.out.wishes.push(Wish::Copy(text));
    }

    /// Asks for a name, which is proposed.
    pub(super) fn ask_name(&mut self, what: What) {
        let live = matches!(self.origin.store(), Store::Live(_));
        if !live && matches!(what, What::Snapshot | What::Recording) {
            self.message = Some("this is a trace already: x writes a stretch of it for Perfetto".to_owned());
            return;
        }
        let trace = match self.origin.store() {
            Store::Trace(path, _) => path.file_stem().map(|stem| printable(&stem.to_string_lossy())),
            Store::Live(_) => None,
        };
        let trace = trace.filter(|name| !name.is_empty()).unwrap_or_else(|| "schedtrace".to_owned());
        let path = match what {
            What::View => free_name(&format!("{trace}-{}", self.name().text()), "md"),
            What::Perfetto => free_name(&trace, "pftrace"),
            What::Snapshot => free_name("snapshot", "schedtrace"),
            What::Recording => free_name("recording", "schedtrace"),
        };
        self.over = Over::Name { what, line: Line::new(&path.display().to_string()) };
    }

    pub(super) fn type_name(&mut self, key: KeyEvent, what: What, mut line: Line) {
        match key.code {
            KeyCode::Esc => return,
            KeyCode::Enter if !line.text().trim().is_empty() => {
                if let Err(error) = self.write(what, line.text().trim()) {
                    self.message = Some(error.to_string());
                }
                return;
            }
            _ => _ = line.press(key),
        }
        self.over = Over::Name { what, line };
    }

    fn write(&mut self, what: What, name: &str) -> Result<()> {
        let (path, store) = (Path::new(name).to_owned(), self.origin.store().clone());
        let window = self.chosen().unwrap_or_default();
        match (what, &store) {
            (What::View, _) => {
                let text = self.view_text(path.extension().is_some_and(|ending| ending == "json"));
                self.out.write(&path.clone(), move || jobs::save(&path, &text))?;
            }
            (What::Perfetto, _) => {
                let export = move |path: &Path| jobs::export(&store, path, window.from_ns, window.until_ns);
                self.out.write(&path.clone(), move || export(&path))?;
            }
            (What::Snapshot, Store::Live(kept)) => {
                let snapshot = kept.snapshot();
                self.out.write(&path.clone(), move || jobs::snapshot(&snapshot, &path))?;
            }
            (What::Recording, Store::Live(_)) => {
                let Some(recording) = self.origin.recording().cloned() else { return Ok(()) };
                let reel = recording.start(&path);
                let number = reel.number();
                let job = move || jobs::record(reel, &path);
                self.out.write(Path::new(name), job).inspect_err(|_| recording.stop_number(number))?;
                self.message = Some("recording, with the seconds before this one: R stops it".to_owned());
                return Ok(());
            }
            (What::Snapshot | What::Recording, Store::Trace(..)) => return Ok(()),
        }
        self.message = Some(format!("writing {name}"));
        Ok(())
    }

    /// The tables of the view as they are shown.
    fn view_text(&self, as_json: bool) -> String {
        let (shown, origin) = (&self.views[self.at], self.origin.meta().started);
        let sheets = self.sheets.iter().zip(&shown.grids).map(|(sheet, grid)| Sheet {
            title: sheet.title.clone(),
            columns: sheet.columns.clone(),
            rows: grid.rows(sheet).cloned().collect(),
            empty: sheet.empty.clone(),
            ..*sheet
        });
        let window = self.picture.as_ref().map(|picture| picture.window).unwrap_or_default();
        if as_json {
            let tables: Vec<_> = sheets.map(|sheet| sheet.json()).collect();
            let view = serde_json::json!({
                "of": self.origin.title(), "view": shown.place.name.text(), "window": window,
                "lost_total": self.origin.lost(), "tables": tables,
            });
            return format!("{view:#}\n");
        }
        let seconds = |at: schedtrace_core::Nanos| (at - origin).0 as f64 / 1e9;
        let mut text = format!(
            "# {}: {}\n\nFrom {:.6} s to {:.6} s; {} events are known to be missing.\n",
            printable(self.origin.title()),
            shown.place.name.text(),
            seconds(window.from_ns),
            seconds(window.until_ns),
            self.origin.lost()
        );
        for sheet in sheets {
            text += &format!("\n## {}\n\n{}", printable(&sheet.title), sheet.markdown(origin));
        }
        text
    }

    /// Starts a recording, or stops the one that goes on.
    pub(super) fn record(&mut self) {
        match self.origin.recording().filter(|recording| recording.is_on()).cloned() {
            Some(recording) => {
                recording.stop();
                self.message = Some("the recording is being finished".to_owned());
            }
            None => self.ask_name(What::Recording),
        }
    }

    pub(super) fn is_recording(&self) -> bool {
        self.origin.recording().is_some_and(Recording::is_on)
    }

    /// Whether somebody who quits is to be told first that something is being written.
    pub(super) fn warns(&mut self) -> bool {
        let writing = self.out.jobs.running().len().saturating_sub(usize::from(self.is_recording()));
        if writing == 0 || std::mem::replace(&mut self.out.is_warned, true) {
            return false;
        }
        self.message =
            Some("something is being written still: a second time quits, and leaves it unfinished".to_owned());
        true
    }

    /// Stops what is recorded, and waits a while for what is written; nobody wants to know any more what was looked up.
    pub(crate) fn close_down(&mut self, patience: Duration) -> Closed {
        if let Some(recording) = self.origin.recording() {
            recording.stop();
        }
        let mut closed = Closed::default();
        let begun = Instant::now();
        loop {
            // Before what has come of them is taken: they tell first, and end then.
            let running = self.out.jobs.running();
            while let Some(done) = self.out.jobs.told() {
                match done {
                    Done::Told(told) => closed.told.push(told),
                    Done::Failed(why) => closed.failed.push(why),
                    Done::Waits(_) | Done::NoWaits(_) | Done::Answer(..) | Done::Counted(_) => {}
                }
            }
            if running.is_empty() {
                return closed;
            }
            if begun.elapsed() >= patience {
                let left = running.into_iter().map(|name| format!("{name} was left unfinished: it took too long"));
                closed.failed.extend(left);
                return closed;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Takes what the terminal is to do.
    pub(crate) fn wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.out.wishes)
    }

    /// Searches as it is typed; the same key again goes on to the next.
    pub(super) fn type_search(&mut self, key: KeyEvent, action: Option<Action>, mut line: Line) {
        let is_typed = matches!(key.code, KeyCode::Char(_))
            && !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        let goes_on = action == Some(Action::Search) && !is_typed || key.code == KeyCode::Down;
        match key.code {
            KeyCode::Enter | KeyCode::Esc => return,
            _ if goes_on => {}
            _ => _ = line.press(key),
        }
        let (origin, text) = (self.origin.meta().started, line.text());
        if let Some((grid, sheet)) = self.panel() {
            let found = grid.find(sheet, origin, &text, goes_on);
            self.message = (!found && !text.is_empty()).then(|| format!("no row has `{}`", printable(&text)));
        }
        (self.search, self.over) = (text, Over::Search(line));
    }
}

#[cfg(test)]
mod tests {
    use schedtrace_core::flight::WindowOptions;
    use schedtrace_core::synthetic::SyntheticHost;

    use super::*;
    use crate::{Origin, Settings};

    fn app() -> App {
        let host = SyntheticHost::new().events(100).start();
        App::new(Origin::live(host, || (), WindowOptions::default()).unwrap(), Settings::default()).unwrap()
    }

    #[test]
    fn who_quits_hears_what_has_come_of_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut app = app();
        app.write(What::View, &folder.path().join("view.md").to_string_lossy()).unwrap();
        app.write(What::Snapshot, "/proc/no/such").unwrap();
        let closed = app.close_down(Duration::from_secs(30));
        assert!(matches!(&*closed.told, [told] if told.contains("view.md")), "{closed:?}");
        assert!(matches!(&*closed.failed, [why] if why.contains("/proc/no/such")), "{closed:?}");
    }

    #[test]
    fn who_quits_does_not_wait_for_what_has_panicked() {
        let mut app = app();
        app.out.write("run.schedtrace".as_ref(), || panic!("no {} is left", "room")).unwrap();
        // It waits until the end, which comes.
        let closed = app.close_down(Duration::MAX);
        let told = "run.schedtrace was left unfinished: a bug in schedtrace (no room is left)";
        assert_eq!(closed.failed, [told]);
    }

    #[test]
    fn who_quits_waits_for_what_is_written_and_not_for_what_is_looked_up() {
        let mut app = app();
        let (end, ends) = std::sync::mpsc::sync_channel::<()>(0);
        let looks = move || {
            let _ = ends.recv();
            Done::NoWaits("it is over".into())
        };
        app.out.jobs.look(looks).unwrap();
        assert!(!app.warns());
        assert_eq!(app.close_down(Duration::MAX), Closed::default());
        drop(end);
        let (end, ends) = std::sync::mpsc::sync_channel::<()>(0);
        let slow = move || {
            let _ = ends.recv();
            Done::Told("written".into())
        };
        app.out.write("slow.md".as_ref(), slow).unwrap();
        assert!(app.warns() && !app.warns(), "once");
        app.out.write("next.md".as_ref(), || Done::Told("next".into())).unwrap();
        assert!(app.warns(), "of another one");
        while app.out.jobs.running().len() > 1 {
            std::thread::yield_now();
        }
        let closed = app.close_down(Duration::ZERO);
        assert_eq!(closed.told, ["next"]);
        assert!(matches!(&*closed.failed, [left] if left.starts_with("slow.md was left unfinished")), "{closed:?}");
        drop(end);
    }
}
