//! The terminal UI of schedtrace: the scheduler at a glance, live or from a trace.
//!
//! ```text
//!   Origin ── Store ──> Engine (a thread): analyses of core ──> Picture ──> View: tables ──> screen
//!   a trace, or the     answers one question: which time,                   sorted, filtered, drawn
//!   last seconds        and what the view wants of it
//! ```
//!
//! An [`Origin`] is a trace, or the last seconds of a source that goes on: what is drawn cannot tell which. [`App`] is the state
//! of the screen, apart from any terminal; [`show`] runs it on the real one, and [`once`] draws it as text. [`Settings`] say
//! how it begins: [`Settings::of_user`] takes those of the user's configuration. `docs/top.md` in the repository is the guide
//! for whoever looks at it.
//!
//! A trace on the terminal, as the user likes it, until they quit:
//!
//! ```no_run
//! use schedtrace_tui::{Origin, Quit, Settings, show};
//!
//! let settings = Settings::of_user(|name| std::env::var_os(name))?;
//! show(Origin::trace("run.schedtrace".as_ref())?, settings, &Quit::default())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Any [`Source`](schedtrace_core::Source) of a program that embeds it - its own, or a `Collector` of the running kernel - as text,
//! with what is looked at chosen by keys:
//!
//! ```
//! use std::time::Duration;
//!
//! use ratatui::crossterm::event::{Event, KeyCode};
//! use schedtrace_core::flight::WindowOptions;
//! use schedtrace_core::synthetic::SyntheticHost;
//! use schedtrace_tui::{App, Look, Origin, Settings, once};
//!
//! let (source, patience) = (SyntheticHost::new().start(), Duration::from_secs(30));
//! // The closure makes the source end: a collector's `stopper().stop()`.
//! let origin = Origin::live(source, || (), WindowOptions::default())?.titled("before the change");
//! let settings = Settings { view: Some("tasks".to_owned()), look: Look::Monochrome, ascii: true, ..Settings::default() };
//! let mut app = App::new(origin, settings)?;
//! assert!(once(&mut app, 120, 40, patience)?.contains("schedtrace tasks"));
//!
//! let _ = app.event(&Event::Key(KeyCode::Char('5').into()));
//! assert!(once(&mut app, 120, 40, patience)?.contains("schedtrace latency"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program with a loop of its own calls [`App::tick`], [`App::event`] and [`App::draw`] there.

mod app;
mod asked;
mod config;
mod draw;
mod engine;
mod filter;
mod grid;
#[cfg(test)]
mod guide;
mod jobs;
mod keys;
mod line;
mod machine;
mod origin;
mod past;
mod picker;
mod prompt;
mod replay;
mod roster;
mod settings;
mod sheet;
mod slices;
mod sql;
mod tape;
mod terminal;
mod theme;
mod views;

pub use app::App;
pub use config::Remembered;
pub use origin::Origin;
pub use settings::{Settings, view_names};
pub use theme::Look;

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event};

use crate::app::Wish;
use crate::terminal::{Signals, Tty};

/// How long what is being written may take when the screen has gone.
const LAST_WRITES: Duration = Duration::from_secs(10);
/// How long it may take until [`Quit`] is noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);

/// Ends [`show`] from outside, when a signal comes for example: true ends it.
pub type Quit = Arc<AtomicBool>;

/// How [`show`] has ended.
///
/// ```
/// use schedtrace_tui::Ended;
/// let again = Ended::Again { events: "default,irq".into() };
/// assert_ne!(again, Ended::Quit);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is nothing more to do.
    Quit,
    /// The user wants to go on, with these events collected instead: names as [`Kinds`](schedtrace_core::Kinds) reads them,
    /// with commas between them. Only where [`Settings::begins_anew`] says that it can be.
    Again {
        /// Which.
        events: String,
    },
}

/// Fails where [`show`] would: if standard input or output is no terminal.
///
/// # Errors
/// One that says where to turn instead.
pub fn check_terminal() -> io::Result<()> {
    if io::stdout().is_terminal() && io::stdin().is_terminal() {
        return Ok(());
    }
    let why = "there is no terminal to draw on: `schedtrace report` prints the same of a trace as text, and \
               `schedtrace top --once` a screen";
    Err(io::Error::other(why))
}

/// How many columns and lines the terminal has, if there is one.
///
/// ```
/// let (columns, lines) = schedtrace_tui::size().unwrap_or((80, 24));
/// ```
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Shows it until the user quits, or `quit` says so, or a signal to end comes. Whatever happens, a panic too, the terminal is
/// restored; when it is suspended (ctrl-z), it is given back until it goes on. What was written while the screen went is told
/// on standard output.
///
/// # Errors
/// If there is no terminal, or it fails; if no thread can be started; if the settings name what there is not; if something
/// that was being written could not be, or not in time.
pub fn show(origin: Origin, settings: Settings, quit: &Quit) -> io::Result<Ended> {
    check_terminal()?;
    let mut app = App::new(origin, settings).map_err(io::Error::other)?;
    let mut tty = Tty::take(Signals::hear(quit)?)?;
    let ended = run(&mut tty, &mut app, quit);
    let given = tty.give_back();
    let closed = app.close_down(LAST_WRITES);
    for told in &closed.told {
        // Somebody may have closed the terminal.
        let _ = writeln!(io::stdout(), "{told}");
    }
    if let Some(remembered) = &app.settings().remembered {
        // Where nothing can be written, nothing is remembered: no reason to complain.
        let _ = app.remembered().write(&remembered.path);
    }
    let unfinished = closed.failed.join("; ");
    match ended.and(given) {
        Err(error) if !unfinished.is_empty() => {
            return Err(io::Error::new(error.kind(), format!("{error}; {unfinished}")));
        }
        ended => ended?,
    };
    if !unfinished.is_empty() {
        return Err(io::Error::other(unfinished));
    }
    Ok(app.again().map_or(Ended::Quit, |events| Ended::Again { events }))
}

/// The screen as text, as it is once its first window was worked out: of a machine that runs, when that window is full.
///
/// # Errors
/// Why there are no figures: what cannot be read, or that it takes longer than `patience`.
///
/// ```
/// use std::time::Duration;
/// use schedtrace_core::flight::WindowOptions;
/// use schedtrace_core::synthetic::SyntheticHost;
/// use schedtrace_tui::{App, Origin, Settings, once};
///
/// let origin = Origin::live(SyntheticHost::new().start(), || (), WindowOptions::default())?;
/// let mut app = App::new(origin, Settings::default())?;
/// assert!(once(&mut app, 100, 30, Duration::from_secs(10))?.contains("synthetic"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn once(app: &mut App, width: u16, height: u16, patience: Duration) -> io::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).map_err(io::Error::other)?;
    // How wide it is decides what is asked.
    terminal.draw(|frame| app.draw(frame)).map_err(io::Error::other)?;
    app.warm_up(patience);
    app.settle(patience).map_err(io::Error::other)?;
    terminal.draw(|frame| app.draw(frame)).map_err(io::Error::other)?;
    let text = terminal.backend().to_string();
    Ok(text.lines().map(|line| line.trim_matches('"').trim_end().to_owned() + "\n").collect())
}

/// Waits for an event of the terminal, or for an answer of the engine. It is looked at here whether the terminal still is:
/// crossterm reads from one that was closed, as when an ssh connection breaks, for ever.
fn next_event(app: &App, patience: Duration) -> io::Result<Option<Event>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = io::stdin();
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    let closed = || io::Error::other("the terminal was closed");
    let mut looked = [PollFd::new(&stdin, PollFlags::empty())];
    if poll(&mut looked, Some(&Timespec::default())).is_ok_and(|found| found > 0)
        && looked[0].revents().intersects(gone)
    {
        return Err(closed());
    }
    if event::poll(Duration::ZERO)? {
        return event::read().map(Some);
    }
    let [engine, jobs] = app.bells();
    let mut waited =
        [PollFd::new(&stdin, PollFlags::IN), PollFd::new(engine, PollFlags::IN), PollFd::new(jobs, PollFlags::IN)];
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut waited, Some(&patience)) {
        // Somebody may have asked us to quit.
        Err(rustix::io::Errno::INTR) => return Ok(None),
        polled => polled?,
    };
    if waited[0].revents().intersects(gone) {
        return Err(closed());
    }
    if event::poll(Duration::ZERO)? {
        return event::read().map(Some);
    }
    if waited[0].revents().contains(PollFlags::IN) {
        terminal::tell_of_input_again()?;
    }
    Ok(None)
}

/// Draws, waits for an event or an answer, and goes on until told to quit. Draws only what has changed.
fn run(tty: &mut Tty, app: &mut App, quit: &Quit) -> io::Result<()> {
    let mut changed = true;
    while !quit.load(Ordering::Relaxed) {
        changed |= tty.obey()?;
        changed |= app.tick();
        if std::mem::take(&mut changed) {
            tty.draw(|frame| app.draw(frame))?;
        }
        match next_event(app, app.patience().min(LONGEST_SLEEP))? {
            Some(event) if app.event(&event) == ControlFlow::Break(()) => break,
            event => changed = event.is_some(),
        }
        for wish in app.wishes() {
            match wish {
                Wish::Copy(text) => Tty::copy(&text)?,
                Wish::Suspend => tty.suspend(),
            }
        }
    }
    Ok(())
}
