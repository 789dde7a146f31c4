//! The terminal UI of schedtrace: why tasks wait for a CPU, live or from a trace.
//!
//! A [`Feed`] gives pictures: [`Recorded`] one of a trace, [`Live`] one after the other of any [`Source`] that goes on.
//! [`Viewer`] is the model and how it looks, apart from any terminal; [`show`] runs both on the real one.
//!
//! ```no_run
//! use schedtrace_tui::{Quit, Recorded, show};
//! show(&mut Recorded::open("run.schedtrace".as_ref())?, &Quit::default())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Source`]: schedtrace_core::Source

mod draw;
mod feed;
mod viewer;

pub use feed::{Feed, Live, Picture, Recorded};
pub use viewer::Viewer;

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::crossterm::event::{self, Event};

/// How long it may take until [`Quit`] is noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);

/// Ends [`show`] from outside, when a signal comes for example: true ends it.
pub type Quit = Arc<AtomicBool>;

/// Fails where [`show`] would: if standard input or output is no terminal.
///
/// # Errors
/// One that says where to turn instead.
pub fn check_terminal() -> io::Result<()> {
    if io::stdout().is_terminal() && io::stdin().is_terminal() {
        return Ok(());
    }
    let why = "there is no terminal to draw on: `schedtrace report` prints the same of a trace as text";
    Err(io::Error::other(why))
}

/// Shows pictures until the user quits, or `quit` says so. Whatever happens, a panic too, the terminal is restored.
///
/// # Errors
/// If there is no terminal, or it fails.
pub fn show(feed: &mut impl Feed, quit: &Quit) -> io::Result<()> {
    check_terminal()?;
    let mut terminal = ratatui::try_init()?;
    let ended = run(&mut terminal, &mut Viewer::default(), feed, quit, next_event);
    ratatui::try_restore()?;
    ended
}

/// Waits for an event of the terminal. It is looked at here whether the terminal still is: crossterm reads from one that
/// was closed, as when an ssh connection breaks, for ever.
fn next_event(patience: Duration) -> io::Result<Option<Event>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::IN)];
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut terminal, Some(&patience)) {
        // Somebody may have asked us to quit.
        Err(rustix::io::Errno::INTR) => return Ok(None),
        polled => polled?,
    };
    if terminal[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return Err(io::Error::other("the terminal was closed"));
    }
    Ok(if event::poll(Duration::ZERO)? { Some(event::read()?) } else { None })
}

/// Draws, waits for an event or a picture, and goes on until told to quit. Draws only what has changed.
fn run<B: Backend<Error: Send + Sync + 'static>>(
    terminal: &mut Terminal<B>,
    viewer: &mut Viewer,
    feed: &mut impl Feed,
    quit: &Quit,
    mut next: impl FnMut(Duration) -> io::Result<Option<Event>>,
) -> io::Result<()> {
    let mut changed = true;
    while !quit.load(Ordering::Relaxed) {
        // While it is paused, the window of the next picture grows.
        if !viewer.is_paused()
            && let Some(picture) = feed.next()
        {
            viewer.show(picture);
            changed = true;
        }
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| viewer.draw(frame)).map_err(io::Error::other)?;
        }
        let patience = if viewer.is_paused() { LONGEST_SLEEP } else { feed.patience().min(LONGEST_SLEEP) };
        match next(patience)? {
            Some(Event::Key(key)) if viewer.key(key) == ControlFlow::Break(()) => break,
            event => changed = event.is_some(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;

    /// Gives no picture, ever.
    struct Silent;

    impl Feed for Silent {
        fn next(&mut self) -> Option<Picture> {
            None
        }
        fn patience(&self) -> Duration {
            Duration::MAX
        }
    }

    fn terminal() -> Terminal<TestBackend> {
        Terminal::new(TestBackend::new(80, 10)).unwrap()
    }

    #[test]
    fn it_runs_until_q() {
        let mut keys = ['j', 'k', 'q', 'x'].into_iter();
        let next = |patience| {
            assert!(patience <= LONGEST_SLEEP);
            Ok(keys.next().map(|key| Event::Key(KeyCode::Char(key).into())))
        };
        let mut terminal = terminal();
        run(&mut terminal, &mut Viewer::default(), &mut Silent, &Quit::default(), next).unwrap();
        assert_eq!(keys.next(), Some('x'), "it reads no key after q");
        assert!(terminal.backend().to_string().contains("waiting for the first events"));
    }

    #[test]
    fn it_runs_until_it_is_told_from_outside() {
        let quit = Quit::default();
        let mut rounds = 0;
        let next = |_| {
            rounds += 1;
            quit.store(rounds == 3, Ordering::Relaxed);
            Ok(None)
        };
        run(&mut terminal(), &mut Viewer::default(), &mut Silent, &quit, next).unwrap();
        assert_eq!(rounds, 3);
    }

    #[test]
    fn a_terminal_that_fails_ends_it() {
        let next = |_| Err(io::Error::other("gone"));
        let ended = run(&mut terminal(), &mut Viewer::default(), &mut Silent, &Quit::default(), next);
        assert_eq!(ended.unwrap_err().to_string(), "gone");
    }

    #[test]
    fn a_missing_trace_is_an_error_that_names_it() {
        let error = Recorded::open("/no/such.schedtrace".as_ref()).unwrap_err();
        assert!(error.to_string().contains("/no/such.schedtrace"), "{error}");
    }
}
