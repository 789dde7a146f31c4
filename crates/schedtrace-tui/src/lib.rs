//! The terminal UI of schedtrace: shows the report of a trace, tasks that waited longest first.
//!
//! [`Viewer`] is the model and its picture, apart from any terminal; [`show`] runs it on the real one.
//!
//! ```no_run
//! schedtrace_tui::show("run.schedtrace".as_ref())?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod viewer;

pub use viewer::Viewer;

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::crossterm::event::{self, Event};
use schedtrace_core::Error;
use schedtrace_core::analysis::{self, Options, Report, Sched};
use schedtrace_core::trace::TraceReader;

/// So many tasks can be scrolled through.
const ROWS: usize = 10_000;

/// Reads a trace and shows its report until the user quits. Whatever happens, a panic too, the terminal is restored.
///
/// # Errors
///
/// If the trace cannot be read, or standard output is no terminal.
pub fn show(trace: &Path) -> io::Result<()> {
    let report = read(trace).map_err(io::Error::other)?;
    if !io::stdout().is_terminal() {
        return Err(io::Error::other("standard output is no terminal: `schedtrace report` prints the same as text"));
    }
    let mut viewer = Viewer::new(&trace.display().to_string(), report);
    let mut terminal = ratatui::try_init()?;
    let ended = run(&mut terminal, &mut viewer, event::read);
    ratatui::try_restore()?;
    ended
}

fn read(trace: &Path) -> Result<Report, Error> {
    analysis::run(&mut TraceReader::open(trace)?, Sched::new(Options { top: ROWS, ..Options::default() }))
}

/// Draws, waits for an event, and does what it says, until it says to quit.
fn run<B: Backend<Error: Send + Sync + 'static>>(
    terminal: &mut Terminal<B>,
    viewer: &mut Viewer,
    mut next: impl FnMut() -> io::Result<Event>,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| viewer.draw(frame)).map_err(io::Error::other)?;
        if let Event::Key(key) = next()?
            && viewer.key(key) == ControlFlow::Break(())
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;
    use schedtrace_core::analysis::Analysis;

    #[test]
    fn it_runs_until_q() {
        let mut terminal = Terminal::new(TestBackend::new(80, 10)).unwrap();
        let mut viewer = Viewer::new("a", Sched::default().report());
        let mut keys = ['j', 'k', 'q', 'x'].into_iter();
        run(&mut terminal, &mut viewer, || Ok(Event::Key(KeyCode::Char(keys.next().unwrap()).into()))).unwrap();
        assert_eq!(keys.next(), Some('x'), "it reads no key after q");
        assert!(terminal.backend().to_string().contains("schedtrace"));
    }

    #[test]
    fn a_terminal_that_fails_ends_it() {
        let mut terminal = Terminal::new(TestBackend::new(80, 10)).unwrap();
        let mut viewer = Viewer::new("a", Sched::default().report());
        let ended = run(&mut terminal, &mut viewer, || Err(io::Error::other("gone")));
        assert_eq!(ended.unwrap_err().to_string(), "gone");
    }

    #[test]
    fn a_missing_trace_is_an_error_that_names_it() {
        let error = show("/no/such.schedtrace".as_ref()).unwrap_err();
        assert!(error.to_string().contains("/no/such.schedtrace"), "{error}");
    }
}
