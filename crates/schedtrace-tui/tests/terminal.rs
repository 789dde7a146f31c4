//! On a real terminal, which `script` (util-linux) makes: it is left as it was, however the viewer ends.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use schedtrace_tui::{Feed, Picture, Quit, show};

/// What the viewer on the terminal is to do.
const DEED: &str = "SCHEDTRACE_TUI_DEED";

/// Does its deed in the place of a picture.
struct Doer {
    deed: String,
    asked: u32,
    quit: Quit,
}

impl Feed for Doer {
    fn next(&mut self) -> Option<Picture> {
        match self.deed.as_str() {
            "panic" => panic!("a feed that panics"),
            // Says that it is there once the screen was drawn, and goes on.
            file if file.starts_with('/') => {
                self.asked += 1;
                if self.asked == 3 {
                    std::fs::write(file, std::process::id().to_string()).unwrap();
                }
            }
            _ => self.quit.store(true, Ordering::Relaxed),
        }
        None
    }
    fn patience(&self) -> Duration {
        Duration::from_millis(10)
    }
}

/// No test by itself: what the others run on a terminal.
#[test]
fn viewer() {
    if let Ok(deed) = std::env::var(DEED) {
        let quit = Quit::default();
        show(&mut Doer { deed, asked: 0, quit: quit.clone() }, &quit).unwrap();
    }
}

/// What a terminal shows: its settings, the viewer that does this, and the settings again.
fn on_a_terminal(deed: &str) -> String {
    let me = std::env::current_exe().unwrap();
    let viewer = format!("stty -g; {} viewer --exact --nocapture; stty -g", me.display());
    let script = Command::new("script").args(["-qec", &viewer, "/dev/null"]).env(DEED, deed).output();
    let script = script.expect("script, of util-linux");
    String::from_utf8_lossy(&script.stdout).into_owned()
}

#[test]
fn a_terminal_that_is_closed_ends_the_viewer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    // It is not to be ended by the signal that comes with it.
    let viewer = format!("trap '' HUP; exec {} viewer --exact", std::env::current_exe().unwrap().display());
    let mut script = Command::new("script");
    script.args(["-qec", &viewer, "/dev/null"]).env(DEED, &file).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut script = script.spawn().expect("script, of util-linux");
    let pid = loop {
        match std::fs::read_to_string(&file) {
            Ok(pid) if !pid.is_empty() => break pid,
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    script.kill().unwrap();
    script.wait().unwrap();
    let runs = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
    let begun = std::time::Instant::now();
    while runs() {
        if begun.elapsed() > Duration::from_secs(20) {
            let _ = Command::new("kill").args(["-9", &pid]).status();
            panic!("it goes on without a terminal");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

fn assert_left_as_it_was(screen: &str) {
    // As `stty -g` writes them: hexadecimal numbers with colons.
    let is_settings = |line: &&str| line.contains(':') && line.chars().all(|c| c == ':' || c.is_ascii_hexdigit());
    let settings: Vec<_> = screen.lines().map(str::trim).filter(is_settings).collect();
    assert_eq!(settings.len(), 2, "{screen:?}");
    assert_eq!(settings[0], settings[1], "{screen:?}");
    let (entered, left) = (screen.find(ENTER), screen.rfind(LEAVE));
    assert!(entered.is_some() && entered < left, "{screen:?}");
}

#[test]
fn the_terminal_is_left_as_it_was() {
    assert_left_as_it_was(&on_a_terminal("quit"));
}

#[test]
fn and_after_a_panic_which_can_be_read() {
    let screen = on_a_terminal("panic");
    assert_left_as_it_was(&screen);
    assert!(screen.find(LEAVE) < screen.find("a feed that panics"), "{screen:?}");
}
