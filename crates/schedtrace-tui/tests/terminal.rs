//! On a real terminal: however it ends, and whatever comes between, the terminal is left as it was.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod tty;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use schedtrace_core::flight::WindowOptions;
use schedtrace_core::synthetic::{Synthetic, SyntheticHost};
use schedtrace_core::{Batch, Meta, Poll, Result, Source};
use schedtrace_tui::{Origin, Quit, Settings, show};
use tty::{Setup, Terminal, eventually};

/// The viewer, of the trace of hackbench.
fn viewer() -> String {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../schedtrace/tests/fixtures/hackbench.schedtrace");
    format!("{} {trace}", env!("CARGO_BIN_EXE_schedtrace-tui"))
}

/// A machine that goes on until it is stopped, as another program may show one.
struct Machine {
    events: Synthetic,
    begun: Instant,
    /// What comes next, when its time has come.
    next: Option<Batch>,
    /// Its source panics as soon as this is there.
    panics_at: Option<PathBuf>,
    stopped: Arc<AtomicBool>,
}

impl Source for Machine {
    fn meta(&self) -> &Meta {
        self.events.meta()
    }

    fn poll(&mut self, deadline: Instant) -> Result<Poll> {
        assert!(!self.panics_at.as_ref().is_some_and(|file| file.exists()), "the source has a bug");
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(Poll::End);
        }
        let next = match self.next.take() {
            Some(next) => next,
            None => match self.events.poll(deadline)? {
                Poll::Batch(next) => next,
                other => return Ok(other),
            },
        };
        let due = self.begun + Duration::from_nanos((next.until - self.events.meta().started).0);
        let patience = Instant::now() + Duration::from_millis(50);
        std::thread::sleep(due.min(deadline).min(patience).saturating_duration_since(Instant::now()));
        if Instant::now() >= due {
            return Ok(Poll::Batch(next));
        }
        self.next = Some(next);
        Ok(Poll::Idle)
    }
}

/// Says to a test that it runs on the terminal that another one made.
const ON_A_TERMINAL: &str = "SCHEDTRACE_TEST_SHOWS";

#[test]
fn a_machine_is_shown() {
    if std::env::var_os(ON_A_TERMINAL).is_some() {
        return show_machine();
    }
    let terminal = Setup::new().running(&machine());
    terminal.wait("live");
    terminal.wait("1/56 ");
    terminal.keys(&["q"]);
    terminal.assert_left_as_it_was(0);
}

/// A machine, until its source panics if it is told to.
#[allow(clippy::print_stderr, reason = "it is the program that other tests look at")]
fn show_machine() {
    let machine = Machine {
        events: SyntheticHost::new().cpus(64).llcs(8).nodes(2).tasks(500).events(u64::MAX).start(),
        begun: Instant::now(),
        next: None,
        panics_at: std::env::var_os("SOURCE_PANICS").map(PathBuf::from),
        stopped: Arc::default(),
    };
    let stopped = Arc::clone(&machine.stopped);
    let origin = Origin::live(machine, move || stopped.store(true, Ordering::Relaxed), WindowOptions::default());
    if let Err(error) = show(origin.unwrap(), Settings::default(), &Quit::default()) {
        eprintln!("not shown: {error}");
        std::process::exit(3);
    }
}

/// The command that runs it.
fn machine() -> String {
    let this = std::env::current_exe().unwrap();
    format!("env {ON_A_TERMINAL}=1 RUST_BACKTRACE=0 {} --exact a_machine_is_shown --nocapture", this.display())
}

#[test]
fn keys_go_in_and_views_come_out() {
    let terminal = Setup::new().running(&viewer());
    terminal.wait("who waited");
    terminal.wait_state("1 1 0");
    terminal.keys(&["2"]);
    terminal.wait("WAKEUPS");
    terminal.keys(&["/", "h", "a", "c", "k", "b", "Enter"]);
    let screen = terminal.wait("only `hackb`");
    assert!(!screen.contains("rcu_preempt"), "{screen}");
    terminal.keys(&["e"]);
    terminal.wait("HOW ITS TIME WAS SPENT");
    terminal.keys(&["BSpace"]);
    terminal.wait("only `hackb`");
    terminal.keys(&["?"]);
    terminal.wait("any key closes it");
    terminal.keys(&["Escape"]);
    // Escape and a letter at once are alt with that letter.
    terminal.wait_until("the help is closed", |screen| !screen.contains("any key closes it"));
    terminal.keys(&["E"]);
    terminal.wait("the newest last");
    terminal.type_text("/event = sched_waking");
    terminal.keys(&["Enter"]);
    terminal.wait("events with event = sched_waking");
    terminal.keys(&["q"]);
    terminal.assert_left_as_it_was(0);
}

#[test]
fn a_key_ends_it_and_leaves_the_terminal_as_it_was() {
    for key in ["q", "F10", "C-c"] {
        let terminal = Setup::new().running(&viewer());
        terminal.wait("who waited");
        // One that asks for a text takes letters, but not these.
        if key != "q" {
            terminal.keys(&[":"]);
            terminal.wait(" :_ ");
        }
        if key == "F10" {
            terminal.keys(&["Escape"]);
            terminal.wait_until("the palette is closed", |screen| !screen.contains(" :_ "));
        }
        terminal.keys(&[key]);
        terminal.assert_left_as_it_was(0);
    }
}

#[test]
fn a_signal_ends_it_and_leaves_the_terminal_as_it_was() {
    for signal in ["TERM", "INT", "HUP"] {
        let terminal = Setup::new().running(&viewer());
        terminal.wait("who waited");
        terminal.kill(signal);
        terminal.assert_left_as_it_was(0);
    }
}

#[test]
fn a_terminal_that_is_closed_ends_it() {
    // It is not to be ended by the signal that comes with it.
    let terminal = Setup::new().running(&format!("trap '' HUP; {}", viewer()));
    terminal.wait("who waited");
    let pid = terminal.child();
    drop(terminal);
    let runs = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
    let begun = Instant::now();
    while runs() {
        if begun.elapsed() > Duration::from_secs(60) {
            let _ = Command::new("kill").args(["-9", &pid]).status();
            panic!("it goes on without a terminal");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_thread_says_that_panics_is_read_on_a_terminal_that_can_be_used() {
    let terminal = Setup::new().env("SOURCE_PANICS", "now").running(&machine());
    terminal.wait("who waited");
    terminal.wait_state("1 1 0");
    std::fs::write(terminal.file("now"), "").unwrap();
    let screen = terminal.assert_left_as_it_was(3);
    assert_in_order(&screen, &["the source has a bug", "not shown: a thread panicked"]);
    assert!(!screen.contains("who waited") && !screen.contains("schedtrace overview"), "{screen}");
}

fn assert_in_order(screen: &str, texts: &[&str]) {
    let mut rest = screen;
    for text in texts {
        let Some((_, after)) = rest.split_once(text) else { panic!("no `{text}` in its place:\n{screen}") };
        rest = after;
    }
}

/// Waits until the shell can be used: what is typed is seen, and a line ends where Enter is pressed.
fn assert_usable(terminal: &Terminal, word: &str) {
    terminal.type_text(&format!("echo {word}-''usable"));
    terminal.keys(&["Enter"]);
    terminal.wait(&format!("{word}-usable"));
}

#[test]
fn it_is_suspended_and_goes_on() {
    let terminal = Setup::new().interactive();
    terminal.wait("ready>");
    terminal.type_text("stty -g >before; clear");
    terminal.keys(&["Enter"]);
    terminal.type_text(&viewer());
    terminal.keys(&["Enter"]);
    for (round, by_key) in [("first", true), ("second", false), ("third", true)] {
        terminal.wait("who waited");
        terminal.wait_state("1 1 0");
        if by_key {
            terminal.keys(&["C-z"]);
        } else {
            terminal.kill("TSTP");
        }
        // The shell is back, on its own screen.
        terminal.wait_until("the shell", |screen| screen.trim_end().ends_with("ready>"));
        assert_eq!(terminal.state(), "0 0 1", "{round}");
        assert_usable(&terminal, round);
        terminal.type_text(&format!("stty -g >{round}"));
        terminal.keys(&["Enter"]);
        assert_usable(&terminal, &format!("{round}-still"));
        assert_eq!(terminal.text_of("before"), terminal.text_of(round));
        terminal.type_text("clear; fg");
        terminal.keys(&["Enter"]);
    }
    terminal.wait("who waited");
    terminal.keys(&["2"]);
    terminal.wait("schedtrace tasks");
    terminal.keys(&["q"]);
    // Before it has gone, what is typed is for it.
    terminal.wait_until("the shell", |screen| screen.trim_end().ends_with("ready>"));
    assert_usable(&terminal, "end");
    assert_eq!(terminal.state(), "0 0 1");
}

#[test]
fn it_follows_the_size_of_its_terminal() {
    let terminal = Setup::new().running(&viewer());
    terminal.wait("q quit");
    for (width, height) in [(40, 10), (20, 3), (1, 1), (130, 40)] {
        terminal.resize(width, height);
    }
    eventually("it is as wide as its terminal", || {
        let screen = terminal.screen();
        let width = screen.lines().map(|line| line.chars().count()).max();
        if width == Some(130) { Ok(()) } else { Err(screen) }
    });
    terminal.keys(&["q"]);
    terminal.assert_left_as_it_was(0);
}

#[test]
fn a_storm_of_sizes_while_events_come_does_no_harm() {
    let terminal = Setup::new().running(&machine());
    terminal.wait("who waited");
    let sizes = [(300, 80), (80, 24), (13, 2), (200, 5), (1, 50), (120, 40)];
    for (at, (columns, lines)) in sizes.into_iter().cycle().take(60).enumerate() {
        terminal.resize(columns, lines);
        // In the midst of it, views are changed.
        if at % 5 == 0 {
            terminal.keys(&["]"]);
        }
    }
    terminal.resize(140, 40);
    // It has read all of that when it is where this leads.
    terminal.keys(&["9"]);
    terminal.wait("schedtrace sched_ext");
    terminal.keys(&["1"]);
    let screen = terminal.wait_until("the overview", |screen| {
        // The whole of it: the foot is drawn last.
        let all = ["who waited", "commands"].iter().all(|part| screen.contains(part));
        all && screen.lines().any(|line| line.chars().count() == 140)
    });
    // Nothing of another size is left: one head, one foot.
    let heads = screen.lines().filter(|line| line.starts_with("schedtrace ")).count();
    assert_eq!((heads, screen.matches("commands").count()), (1, 1), "{screen}");
    assert!(screen.lines().next().is_some_and(|line| line.starts_with("schedtrace overview")), "{screen}");
    terminal.keys(&["q"]);
    terminal.assert_left_as_it_was(0);
}

#[test]
fn no_key_is_lost_while_the_size_changes() {
    let terminal = Setup::new().running(&viewer());
    terminal.wait("who waited");
    for round in 0..200_u16 {
        let (key, view) = [("2", "schedtrace tasks"), ("1", "schedtrace overview")][usize::from(round % 2)];
        let columns = (60 + round % 50).to_string();
        let (resize, press) = (["resize-window", "-x", &columns, "-y", "20", ";"], ["send-keys", key]);
        terminal.tmux(&[&resize[..], &press[..]].concat());
        terminal.wait(view);
    }
    terminal.keys(&["q"]);
    terminal.assert_left_as_it_was(0);
}

#[test]
fn it_says_why_it_cannot_begin() {
    let terminal = Setup::new().running(concat!(env!("CARGO_BIN_EXE_schedtrace-tui"), " /nowhere"));
    let screen = terminal.assert_left_as_it_was(1);
    assert!(screen.contains("/nowhere"), "{screen}");
}
