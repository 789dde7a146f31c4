//! The terminal: taken, given back whatever happens, given back for a while when we are suspended.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::{DefaultTerminal, Frame};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};

use crate::Quit;

/// Signals that were heard.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    /// To be suspended.
    stop: Arc<AtomicBool>,
    /// We go on: somebody else may have had the terminal meanwhile.
    woken: Arc<AtomicBool>,
}

impl Signals {
    /// Hears them from now on. Those that end us set `quit`; the second one ends us as it always would.
    pub(crate) fn hear(quit: &Quit) -> io::Result<Self> {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(quit))?;
            signal_hook::flag::register(signal, Arc::clone(quit))?;
        }
        let signals = Self { stop: Arc::default(), woken: Arc::default() };
        signal_hook::flag::register(SIGTSTP, Arc::clone(&signals.stop))?;
        signal_hook::flag::register(SIGCONT, Arc::clone(&signals.woken))?;
        Ok(signals)
    }
}

/// The terminal, for as long as it is ours.
#[derive(Debug)]
pub(crate) struct Tty {
    terminal: DefaultTerminal,
    signals: Signals,
}

impl Tty {
    pub(crate) fn take(signals: Signals) -> io::Result<Self> {
        restore_after_a_panic();
        let terminal = ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))?;
        let tty = Self { terminal, signals };
        // From here on, whoever drops it gives the terminal back.
        let _writes = Writes::hold();
        PANICKED.store(false, Ordering::Relaxed);
        set_up()?;
        Ok(tty)
    }

    /// Draws what has changed. Fails if a thread of ours has panicked: what it said is not drawn over.
    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let _writes = Writes::hold();
        nobody_panicked()?;
        self.terminal.draw(draw).map(drop)
    }

    /// Suspends us if that was asked for; whether all is to be drawn again. Fails if a thread of ours has panicked.
    pub(crate) fn obey(&mut self) -> io::Result<bool> {
        nobody_panicked()?;
        if self.signals.stop.swap(false, Ordering::Relaxed) {
            give_back()?;
            // It stops here until somebody lets us go on.
            signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
            self.signals.woken.store(true, Ordering::Relaxed);
        }
        if !self.signals.woken.swap(false, Ordering::Relaxed) {
            return Ok(false);
        }
        let _writes = Writes::hold();
        nobody_panicked()?;
        // Who was stopped without being asked still takes the modes for set, and whoever had the terminal meanwhile may have
        // changed them.
        disable_raw_mode()?;
        set_up()?;
        self.terminal.clear()?;
        Ok(true)
    }

    /// As ctrl-z does where a terminal makes a signal of it: soon.
    pub(crate) fn suspend(&self) {
        self.signals.stop.store(true, Ordering::Relaxed);
    }

    /// Gives a text to the terminal's clipboard (OSC 52): some terminals take none.
    pub(crate) fn copy(text: &str) -> io::Result<()> {
        let _writes = Writes::hold();
        nobody_panicked()?;
        let mut out = io::stdout().lock();
        write!(out, "\x1b]52;c;{}\x07", base64(text.as_bytes()))?;
        out.flush()
    }

    /// Gives the terminal back, and tells if that fails.
    pub(crate) fn give_back(self) -> io::Result<()> {
        give_back()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = give_back();
    }
}

/// Whoever writes to the terminal holds this: nobody draws over what a panic says, and nobody ends before it is said.
static WRITES: Mutex<()> = Mutex::new(());
/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// A thread has, and the terminal was given back.
static PANICKED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread holds [`WRITES`].
    static HOLDS: Cell<bool> = const { Cell::new(false) };
}

/// The right to write.
struct Writes {
    _right: MutexGuard<'static, ()>,
}

impl Writes {
    fn hold() -> Self {
        let right = WRITES.lock().unwrap_or_else(PoisonError::into_inner);
        HOLDS.set(true);
        Self { _right: right }
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        HOLDS.set(false);
    }
}

fn set_up() -> io::Result<()> {
    TAKEN.store(true, Ordering::Relaxed);
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture)
}

/// Gives it back, once: a second time would move the cursor to where it was before, over what was said since.
fn restore() -> io::Result<()> {
    if !TAKEN.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    // All of it, though a part fails.
    let screen = execute!(io::stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    disable_raw_mode().and(screen)
}

fn give_back() -> io::Result<()> {
    let _writes = Writes::hold();
    restore()
}

fn nobody_panicked() -> io::Result<()> {
    if PANICKED.load(Ordering::Relaxed) {
        return Err(io::Error::other("a thread panicked: a bug in schedtrace"));
    }
    Ok(())
}

/// What a panic says is to be read, and the terminal to be used.
fn restore_after_a_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Who panics while it draws has the right to write already.
            let _writes = (!HOLDS.get()).then(Writes::hold);
            if TAKEN.load(Ordering::Relaxed) {
                let _ = restore();
                PANICKED.store(true, Ordering::Relaxed);
            }
            before(panic);
        }));
    });
}

/// Has the kernel tell once more that there is something to read. crossterm waits for input to *come* (an edge), and leaves it
/// where it is when the size changes at the same moment: it would not look again before the next key, while whoever looks at
/// the terminal itself finds it readable all the time. To set attributes, the same ones too, wakes those who wait to read.
pub(crate) fn tell_of_input_again() -> io::Result<()> {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    Ok(tcsetattr(&stdin, OptionalActions::Now, &tcgetattr(&stdin)?)?)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { letter.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
#[path = "../tests/tty/mod.rs"]
mod tty;

#[cfg(test)]
mod tests {
    use ratatui::widgets::Paragraph;

    use super::tty::Setup;
    use super::{Signals, Tty, base64};
    use crate::Quit;

    /// Says to this test that it runs on the terminal that it made.
    const ON_A_TERMINAL: &str = "SCHEDTRACE_TEST_DRAWS";

    #[test]
    fn what_a_drawing_says_that_panics_is_read_on_a_terminal_that_can_be_used() {
        if std::env::var_os(ON_A_TERMINAL).is_some() {
            return draw_and_panic();
        }
        let (this, name) = (std::env::current_exe().unwrap(), std::thread::current().name().unwrap().to_owned());
        let command = format!("env {ON_A_TERMINAL}=1 RUST_BACKTRACE=0 {} --exact {name} --nocapture", this.display());
        let screen = Setup::new().running(&command).assert_left_as_it_was(101);
        assert_eq!(screen.matches("the drawing has a bug").count(), 1, "{screen}");
        assert!(!screen.contains("half"), "{screen}");
    }

    fn draw_and_panic() {
        let mut tty = Tty::take(Signals::hear(&Quit::default()).unwrap()).unwrap();
        tty.draw(|frame| frame.render_widget(Paragraph::new("half a screen"), frame.area())).unwrap();
        let _ = tty.draw(|frame| {
            frame.render_widget(Paragraph::new("the other half"), frame.area());
            panic!("the drawing has a bug");
        });
    }

    #[test]
    fn texts_are_packed_as_terminals_read_them() {
        for (text, packed) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("µs", "wrVz")]
        {
            assert_eq!(base64(text.as_bytes()), packed);
        }
    }
}
