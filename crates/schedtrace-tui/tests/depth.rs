//! One task in depth, and what is picked from lists over a view.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kit::{Recorded, Screen};
use ratatui::crossterm::event::KeyCode;
use schedtrace_core::flight::WindowOptions;
use schedtrace_core::synthetic::{Synthetic, SyntheticHost};
use schedtrace_core::{Meta, Poll, Source};
use schedtrace_tui::{App, Origin, Settings};

/// A machine that goes on, though nothing happens any more.
struct Endless(Synthetic, Arc<AtomicBool>);

impl Source for Endless {
    fn meta(&self) -> &Meta {
        self.0.meta()
    }

    fn poll(&mut self, deadline: Instant) -> schedtrace_core::Result<Poll> {
        Ok(match self.0.poll(deadline)? {
            Poll::End if !self.1.load(Ordering::Relaxed) => {
                std::thread::sleep(Duration::from_millis(5));
                Poll::Idle
            }
            polled => polled,
        })
    }
}

fn hackbench(settings: Settings) -> Screen {
    let mut screen =
        Recorded::fixture("hackbench", "../schedtrace/tests/fixtures/hackbench.schedtrace").shown(settings);
    screen.settle();
    screen
}

fn line_of<'a>(text: &'a str, what: &str) -> &'a str {
    text.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("nothing says {what}:\n{text}"))
}

#[test]
fn a_task_is_shown_over_time_with_whose_doing_its_delays_were() {
    let mut screen = hackbench(Settings::default());
    screen.resize(140, 60);
    screen.keys("1e");
    let text = screen.text();
    // Of the task alone, as the explanation names it.
    let title = line_of(&text, "lost to others").trim_start_matches(['─', '▶', ' ']);
    let explained = title.split(':').next().unwrap().to_owned();
    let strip = text.lines().find(|line| line.starts_with(&explained)).unwrap_or_else(|| panic!("no strip:\n{text}"));
    assert!(strip.contains('▒') && strip.contains('·'), "{strip}");
    assert!(text.contains("▇ ran,"), "every sign is explained: {text}");
    for told in ["whose doing it was", "when it did not run", "its states", "HAD THE CPU", "SLEPT UNTIL"] {
        line_of(&text, told);
    }
    // Where there is no room, the tables go first.
    screen.resize(80, 14);
    screen.settle();
    assert!(!screen.text().contains("▇ ran,"), "{}", screen.text());
}

#[test]
fn columns_are_shown_and_hidden() {
    let hidden = [("overview".to_owned(), vec!["forced".to_owned()])].into();
    let settings = Settings { hidden, ..Settings::default() };
    let mut screen = hackbench(settings);
    let head = |screen: &Screen| line_of(&screen.text(), "WAITED").to_owned();
    assert!(head(&screen).contains("P50") && !head(&screen).contains("FORCED"), "{}", head(&screen));
    screen.keys("Hp50 ");
    screen.press(KeyCode::Esc);
    screen.keys("Hforced");
    screen.press(KeyCode::Enter);
    let list = screen.text();
    assert!(line_of(&list, "against its will").contains("[x] FORCED"), "{list}");
    screen.press(KeyCode::Esc);
    screen.settle();
    assert!(!head(&screen).contains("P50") && head(&screen).contains("FORCED"), "{}", head(&screen));
    // Another view of the same, and back.
    screen.keys("21");
    assert!(!head(&screen).contains("P50") && head(&screen).contains("FORCED"), "{}", head(&screen));
    // What says what a row is stays.
    screen.keys("Hwho ");
    screen.press(KeyCode::Esc);
    screen.settle();
    assert!(head(&screen).contains("WHO"), "{}", head(&screen));
}

#[test]
fn events_are_counted_and_chosen() {
    let mut screen = hackbench(Settings::default());
    screen.keys("Ksched_switch");
    let mut counted = String::new();
    for _ in 0..500 {
        std::thread::sleep(Duration::from_millis(20));
        screen.settle();
        counted = line_of(&screen.text(), "A CPU goes from").to_owned();
        if counted.split_whitespace().any(|word| word.parse::<u64>().is_ok_and(|n| n > 0)) {
            break;
        }
    }
    let count = counted.split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap();
    assert!(count > 100 && counted.contains("[x]"), "{counted}");
    // A trace stays as it was recorded.
    screen.keys(" ");
    assert!(line_of(&screen.text(), "A CPU goes from").contains("[x]"), "{}", screen.text());
    screen.press(KeyCode::Down);
    screen.press(KeyCode::Enter);
    screen.settle();
    let told = line_of(&screen.text(), "events with").to_owned();
    assert!(told.contains("event = sched_switch") && told.contains(&format!("{count}")), "{told}, {count} counted");
}

#[test]
fn other_events_need_what_was_given_up() {
    let live = |begins_anew| {
        let stop = Arc::<AtomicBool>::default();
        let source = Endless(SyntheticHost::new().events(5_000).start(), Arc::clone(&stop));
        let stop = move || stop.store(true, Ordering::Relaxed);
        let origin = Origin::live(source, stop, WindowOptions::default()).unwrap();
        let settings = Settings { begins_anew, ..Settings::default() };
        let mut screen = Screen::new(App::new(origin, settings).unwrap(), 300, 36);
        screen.settle();
        screen.keys("Kirq_handler_entry ");
        screen.press(KeyCode::Enter);
        screen.text()
    };
    let text = live(false);
    assert!(line_of(&text, "sudo schedtrace top --events ").contains("irq_handler_entry"), "{text}");
    assert!(!live(true).contains("sudo schedtrace"), "it begins anew by itself");
}
