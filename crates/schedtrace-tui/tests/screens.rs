//! Screens as they were accepted: of a recorded trace, and of a simulated machine that is far larger. With
//! `SCHEDTRACE_ACCEPT=1` they are written anew.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;
use std::{env, fs, thread};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;
use ratatui::style::Color;
use schedtrace_core::synthetic::SyntheticHost;
use schedtrace_tui::{Feed, Live, Picture, Recorded, Viewer};

fn here(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn recorded() -> Picture {
    let mut picture =
        Recorded::open(&here("../schedtrace/tests/fixtures/hackbench.schedtrace")).unwrap().next().unwrap();
    picture.title = "hackbench.schedtrace".into();
    picture
}

/// All that happens on 512 CPUs, in one picture.
fn large() -> Picture {
    let host =
        SyntheticHost::new().cpus(512).llcs(64).nodes(8).tasks(3_000).events(100_000).skew(true).lost_ratio(0.01);
    let mut live = Live::start(host.start(), || (), Duration::from_secs(3600)).unwrap();
    live.finish();
    let picture = live.next().unwrap();
    assert!(!picture.live);
    picture
}

fn terminal(viewer: &mut Viewer, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| viewer.draw(frame)).unwrap();
    terminal
}

fn screen(viewer: &mut Viewer, width: u16, height: u16) -> String {
    let terminal = terminal(viewer, width, height);
    let text = terminal.backend().to_string();
    text.lines().map(|line| line.trim_matches('"').trim_end().to_owned() + "\n").collect()
}

fn assert_accepted(name: &str, screen: &str) {
    let path = here(&format!("tests/screens/{name}.txt"));
    if env::var_os("SCHEDTRACE_ACCEPT").is_some() {
        fs::write(&path, screen).unwrap();
    }
    let accepted = fs::read_to_string(&path).unwrap_or_default();
    assert!(accepted == screen, "not what {} says; SCHEDTRACE_ACCEPT=1 accepts it:\n{screen}", path.display());
}

fn of(picture: Picture) -> Viewer {
    let mut viewer = Viewer::default();
    viewer.show(picture);
    viewer
}

fn press(viewer: &mut Viewer, keys: &str) {
    keys.chars().for_each(|key| assert!(viewer.key(KeyCode::Char(key).into()).is_continue()));
}

#[test]
fn a_trace_on_a_wide_and_on_a_small_terminal() {
    let mut viewer = of(recorded());
    assert_accepted("wide", &screen(&mut viewer, 140, 30));
    assert_accepted("small", &screen(&mut viewer, 80, 24));
}

#[test]
fn a_filter_and_the_help() {
    let mut viewer = of(recorded());
    press(&mut viewer, "/RCU");
    assert_accepted("typing", &screen(&mut viewer, 100, 16));
    assert!(viewer.key(KeyCode::Enter.into()).is_continue());
    assert_accepted("filtered", &screen(&mut viewer, 100, 16));
    press(&mut viewer, "?");
    assert_accepted("help", &screen(&mut viewer, 100, 30));
    press(&mut viewer, "x");
    assert_accepted("filtered", &screen(&mut viewer, 100, 16));
    assert!(viewer.key(KeyCode::Esc.into()).is_continue(), "it ends the filter");
    assert!(viewer.key(KeyCode::Esc.into()).is_break());
}

#[test]
fn hundreds_of_cpus_find_room_and_what_is_lost_is_red() {
    let mut viewer = of(large());
    assert_accepted("large", &screen(&mut viewer, 140, 40));
    let terminal = terminal(&mut viewer, 140, 40);
    let buffer = terminal.backend().buffer();
    let red: String = (0..140).map(|x| &buffer[(x, 1)]).filter(|c| c.fg == Color::Red).map(|c| c.symbol()).collect();
    assert!(red.ends_with("events are missing: counts are too low"), "{red}");
}

#[test]
fn a_live_picture_can_be_paused_and_a_recorded_one_not() {
    let host = SyntheticHost::new().events(u64::MAX).start();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let source = Stoppable(host, std::sync::Arc::clone(&stop));
    let stop = move || stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut live = Live::start(source, stop, Duration::from_millis(20)).unwrap();
    thread::sleep(live.patience());
    let mut viewer = of(live.next().unwrap());
    let screen_of = |viewer: &mut Viewer| screen(viewer, 100, 20);
    assert!(screen_of(&mut viewer).lines().next().unwrap().ends_with("  live"));
    press(&mut viewer, "p");
    assert!(viewer.is_paused() && screen_of(&mut viewer).lines().next().unwrap().ends_with("  paused"));
    press(&mut viewer, "p");
    assert!(!viewer.is_paused());
    let mut viewer = of(recorded());
    press(&mut viewer, "p");
    assert!(!viewer.is_paused());
}

/// A simulated machine that goes on until it is stopped.
struct Stoppable(schedtrace_core::synthetic::Synthetic, std::sync::Arc<std::sync::atomic::AtomicBool>);

impl schedtrace_core::Source for Stoppable {
    fn meta(&self) -> &schedtrace_core::Meta {
        self.0.meta()
    }
    fn poll(&mut self, deadline: std::time::Instant) -> schedtrace_core::Result<schedtrace_core::Poll> {
        thread::sleep(Duration::from_millis(1));
        match self.1.load(std::sync::atomic::Ordering::Relaxed) {
            true => Ok(schedtrace_core::Poll::End),
            false => self.0.poll(deadline),
        }
    }
}

#[test]
fn keys_scroll_within_the_rows() {
    let mut viewer = of(recorded());
    let first = screen(&mut viewer, 100, 20);
    let mut after = |code: KeyCode| {
        assert!(viewer.key(code.into()).is_continue());
        screen(&mut viewer, 100, 20)
    };
    assert_eq!(after(KeyCode::Up), first, "there is nothing above");
    let last = after(KeyCode::End);
    assert_ne!(last, first);
    assert_eq!(after(KeyCode::Down), last, "there is nothing below");
    assert_eq!(after(KeyCode::PageDown), last);
    assert_ne!(after(KeyCode::PageUp), last);
    assert_eq!(after(KeyCode::Home), first);
    assert_eq!(after(KeyCode::Char('x')), first);
}

#[test]
fn a_tiny_terminal_and_a_name_with_control_characters_do_no_harm() {
    let mut picture = recorded();
    picture.title = "a\u{1b}[2J".into();
    let mut viewer = of(picture);
    for (width, height) in [(1, 1), (2, 5), (200, 2), (10, 60), (300, 100)] {
        let screen = screen(&mut viewer, width, height);
        assert!(!screen.contains('\u{1b}'));
        press(&mut viewer, "?");
        self::screen(&mut viewer, width, height);
        press(&mut viewer, "?");
    }
    assert!(screen(&mut viewer, 60, 8).starts_with("schedtrace a?[2J"));
}
