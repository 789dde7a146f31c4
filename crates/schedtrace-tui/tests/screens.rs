//! Every view as it was accepted: of small machines, of one that is far larger, and of a trace in which everything happens once,
//! at three sizes. With `SCHEDTRACE_ACCEPT=1` what is drawn is accepted.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::{env, fs};

use kit::{Recorded, Screen, here};
use proptest::prelude::*;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::style::{Color, Modifier};
use schedtrace_core::flight::WindowOptions;
use schedtrace_core::synthetic::SyntheticHost;
use schedtrace_tui::{App, Look, Origin, Settings};

const SIZES: [(u16, u16); 3] = [(80, 24), (140, 36), (300, 80)];

fn two() -> Recorded {
    Recorded::of("two", SyntheticHost::new().cpus(2).llcs(1).tasks(6).events(2_000))
}

fn sixteen() -> Recorded {
    let host = SyntheticHost::new().cpus(16).llcs(4).nodes(2).tasks(120).events(20_000).skew(true).lost_ratio(0.01);
    Recorded::of("sixteen", host)
}

/// 512 CPUs and 10,000 tasks, a part of which wake hundreds at once.
fn large() -> Recorded {
    let host = SyntheticHost::new().cpus(512).llcs(64).nodes(8).tasks(10_000).events(60_000).skew(true).burst(300);
    Recorded::of("large", host)
}

fn every_event() -> Recorded {
    Recorded::fixture("every-event", "../schedtrace/tests/every-event/events.schedtrace")
}

fn assert_accepted(name: &str, screen: &str) {
    let path = here(&format!("tests/screens/{name}.txt"));
    if env::var_os("SCHEDTRACE_ACCEPT").is_some() {
        fs::write(&path, screen).unwrap();
    }
    let accepted = fs::read_to_string(&path).unwrap_or_default();
    if accepted == screen {
        return;
    }
    let differs = accepted.lines().zip(screen.lines()).position(|(old, new)| old != new);
    let at = differs.unwrap_or_else(|| accepted.lines().count().min(screen.lines().count()));
    let around = |text: &str| text.lines().skip(at.saturating_sub(2)).take(6).collect::<Vec<_>>().join("\n");
    panic!(
        "{} says otherwise from line {} on; SCHEDTRACE_ACCEPT=1 accepts what is drawn.\naccepted:\n{}\ndrawn:\n{}",
        path.display(),
        at + 1,
        around(&accepted),
        around(screen)
    );
}

/// Goes through all views, and back to the first.
fn each_view(screen: &mut Screen, mut see: impl FnMut(&mut Screen, &str)) -> usize {
    screen.settle();
    let first = screen.view();
    for at in 0..100 {
        let view = screen.view();
        if at > 0 && view == first {
            return at;
        }
        // What this one shows depends on what the program was built with.
        if view != "sql" {
            see(screen, &view);
        }
        screen.keys("]");
    }
    panic!("there is no end to views");
}

fn assert_views_are_accepted(recorded: &Recorded) {
    for (width, height) in SIZES {
        let mut screen = recorded.shown(Settings::default());
        screen.resize(width, height);
        let mut seen = String::new();
        let mut see = |screen: &mut Screen, view: &str| {
            seen += &format!("{view:=^width$}\n{}", screen.text(), width = usize::from(width));
        };
        assert!(each_view(&mut screen, &mut see) >= 10);
        // One task in depth, whoever waited longest; it has no key of its own.
        screen.keys("1e");
        see(&mut screen, "task");
        assert_accepted(&format!("{}-{width}x{height}", recorded.name), &seen);
    }
}

#[test]
fn two_cpus() {
    assert_views_are_accepted(&two());
}

#[test]
fn sixteen_cpus_and_events_are_missing() {
    assert_views_are_accepted(&sixteen());
}

#[test]
fn hundreds_of_cpus_and_thousands_of_tasks() {
    assert_views_are_accepted(&large());
}

#[test]
fn everything_that_can_happen() {
    assert_views_are_accepted(&every_event());
}

#[test]
fn what_lies_over_a_view() {
    let mut screen = sixteen().shown(Settings { ascii: true, ..Settings::default() });
    screen.settle();
    let mut seen = String::new();
    let mut see = |screen: &mut Screen, what: &str| seen += &format!("{what:=^140}\n{}", screen.text());
    screen.keys("?");
    see(&mut screen, "help");
    screen.press(KeyCode::Esc);
    screen.keys(":time");
    see(&mut screen, "palette");
    screen.press(KeyCode::Esc);
    screen.keys("2/1");
    see(&mut screen, "filter");
    screen.press(KeyCode::Enter);
    screen.keys("/zzz");
    screen.press(KeyCode::Enter);
    see(&mut screen, "nothing found");
    assert_accepted("over", &seen);
}

#[test]
fn bars_of_many_cpus_show_load_or_waits() {
    let mut screen = large().shown(Settings::default());
    screen.settle();
    let bars = |screen: &Screen| {
        let text = screen.text();
        text.lines().skip_while(|line| !line.contains("0/0 ")).take(2).collect::<Vec<_>>().join("\n")
    };
    let busy = bars(&screen);
    screen.keys("a");
    let waits = bars(&screen);
    assert!(busy.starts_with("busy ") && waits.starts_with("p99 wait "), "{busy}\n{waits}");
    screen.keys("a");
    assert_eq!(bars(&screen), busy);
}

#[test]
fn events_are_filtered_as_everywhere() {
    let mut screen = sixteen().shown(Settings::default());
    screen.keys("E/");
    screen.keys("event = sched_waking and cpu = 3");
    screen.press(KeyCode::Enter);
    let text = screen.text();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("  ") && line.contains(" sched_")).collect();
    assert!(rows.len() > 5 && rows.iter().all(|row| row.contains("    3 sched_waking ")), "{text}");
    screen.keys("/ and");
    screen.keys(" commm = x");
    assert!(screen.text().contains("do you mean `comm`?"), "{}", screen.text());
    screen.press(KeyCode::Esc);
    screen.settle();
    assert!(screen.text().contains("sched_switch"), "{}", screen.text());
    let last = |screen: &Screen| screen.text().lines().rfind(|line| line.contains(" sched_")).unwrap().to_owned();
    let newest = last(&screen);
    screen.press(KeyCode::Home);
    assert_ne!(last(&screen), newest);
    screen.press(KeyCode::End);
    assert_eq!(last(&screen), newest);
    screen.press(KeyCode::Enter);
    screen.settle();
    assert_eq!(screen.view(), "timeline");
}

/// The line that tells of the moment under the cursor.
fn told(screen: &Screen) -> String {
    let text = screen.text();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len() - 3].to_owned()
}

/// Which time is looked at.
fn range(screen: &Screen) -> String {
    screen.text().lines().nth(1).unwrap().to_owned()
}

#[test]
fn the_cursor_of_the_timeline_stays_on_its_moment() {
    let mut screen = sixteen().shown(Settings::default());
    screen.keys("m");
    for _ in 0..40 {
        screen.press(KeyCode::Right);
    }
    let moment = |screen: &Screen| {
        let told = told(screen);
        let at = told.split("at ").nth(1).unwrap_or_else(|| panic!("{told}"));
        at.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let before = moment(&screen);
    screen.keys("zzzz");
    let zoomed = range(&screen);
    assert!((moment(&screen) - before).abs() < 0.000_5, "{before}, {}", told(&screen));
    screen.keys("}{");
    assert_eq!(range(&screen), zoomed, "half a screen later, and back");
    screen.keys("ZZZZZZ");
    assert!(range(&screen).contains("all of it"));
    screen.keys("v");
    for _ in 0..10 {
        screen.press(KeyCode::Right);
    }
    assert!(told(&screen).contains(" after the mark, at "), "{}", told(&screen));
    screen.keys("v");
    assert!(!range(&screen).contains("all of it"), "what lies between is looked at");
    screen.keys("0");
    // On some CPU somebody ran then who had been woken.
    let woken = (0..16).any(|_| {
        screen.keys("f");
        let woken = told(&screen).contains(" was woken by ");
        screen.press(KeyCode::Down);
        woken
    });
    assert!(woken, "{}", screen.text());
    let click =
        MouseEvent { kind: MouseEventKind::Down(MouseButton::Left), column: 60, row: 8, modifiers: KeyModifiers::NONE };
    screen.send(&Event::Mouse(click));
    assert!(told(&screen).starts_with("at "), "{}", told(&screen));
    assert!(screen.text().lines().nth(8).unwrap().starts_with("CPU 4 "));
    screen.keys("e");
    assert_eq!(screen.view(), "task");
    assert!(!range(&screen).contains("all of it"), "only what is around the cursor is explained");
}

#[test]
fn without_colours_all_is_still_said() {
    for recorded in [sixteen(), every_event()] {
        let mut plain = recorded.shown(Settings { look: Look::Monochrome, ascii: true, ..Settings::default() });
        each_view(&mut plain, |screen, view| {
            let buffer = screen.buffer();
            let coloured = buffer.content.iter().find(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
            assert!(coloured.is_none(), "{view}: {coloured:?}");
            let strange = screen.text().chars().find(|c| !c.is_ascii());
            assert_eq!(strange, None, "{view}");
        });
        plain.keys("1");
        let plain = plain.text();
        for look in Look::ALL {
            let mut screen = recorded.shown(Settings { look, ascii: true, ..Settings::default() });
            screen.settle();
            assert_eq!(screen.text(), plain, "{look:?} says something else");
        }
    }
    assert!(sixteen_text().contains("events are missing: counts are too low"));
}

#[test]
fn one_table_has_the_keys_and_a_sign_says_so() {
    let mut screen = every_event().shown(Settings { ascii: true, ..Settings::default() });
    screen.resize(140, 60);
    screen.settle();
    while screen.view() != "wakers" {
        screen.keys("]");
    }
    let marked = |screen: &Screen| {
        let (text, buffer) = (screen.text(), screen.buffer());
        let titles: Vec<_> = text.lines().filter(|line| line.starts_with("-> ")).map(str::to_owned).collect();
        let reversed = |y: &u16| buffer[(0, *y)].modifier.contains(Modifier::REVERSED);
        (titles, (0..60).filter(reversed).count())
    };
    let (first, rows) = marked(&screen);
    assert_eq!((first.len(), rows), (1, 1), "{}", screen.text());
    screen.press(KeyCode::Tab);
    let (second, rows) = marked(&screen);
    assert_eq!((second.len(), rows), (1, 1), "{}", screen.text());
    assert_ne!(first, second);
}

fn sixteen_text() -> String {
    let mut screen = sixteen().shown(Settings { look: Look::Monochrome, ..Settings::default() });
    screen.settle();
    screen.text()
}

#[test]
fn what_is_chosen_by_strangers_does_no_harm() {
    let live = Origin::live(SyntheticHost::new().start(), || (), WindowOptions::default()).unwrap();
    let mut screen = Screen::new(App::new(live.titled("a\u{1b}[2J"), Settings::default()).unwrap(), 60, 8);
    assert!(screen.text().contains("a?[2J") && !screen.text().contains('\u{1b}'));
    screen.settle();
    assert!(screen.text().contains("a?[2J") && !screen.text().contains('\u{1b}'));
}

/// What a user may do.
#[derive(Clone, Debug)]
enum Deed {
    Resize(u16, u16),
    Key(KeyCode, KeyModifiers),
    Click(u16, u16),
    Wait,
}

fn deed() -> impl Strategy<Value = Deed> {
    let named = [
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Backspace,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::F(1),
        KeyCode::F(3),
        KeyCode::Char('\u{1f980}'),
    ];
    let held =
        prop_oneof![8 => Just(KeyModifiers::NONE), 1 => Just(KeyModifiers::CONTROL), 1 => Just(KeyModifiers::ALT)];
    let key = prop_oneof![
        2 => (b' '..=b'~').prop_map(|key| KeyCode::Char(key.into())),
        // Through the views and into them.
        1 => proptest::sample::select("123456789Emz{}vfe][nb><".chars().map(KeyCode::Char).collect::<Vec<_>>()),
        1 => proptest::sample::select(named.to_vec()),
    ];
    prop_oneof![
        2 => (1..=300_u16, 1..=100_u16).prop_map(|(width, height)| Deed::Resize(width, height)),
        1 => (1..=20_u16, 1..=8_u16).prop_map(|(width, height)| Deed::Resize(width, height)),
        12 => (key, held).prop_map(|(key, held)| Deed::Key(key, held)),
        2 => (0..300_u16, 0..100_u16).prop_map(|(x, y)| Deed::Click(x, y)),
        3 => Just(Deed::Wait),
    ]
}

/// Keys that write files, or begin to record, are for tests that look at what they wrote.
fn is_of_the_screen(key: KeyCode) -> bool {
    !matches!(key, KeyCode::Char('s' | 'S' | 'x' | 'R'))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_storm_of_sizes_and_keys_breaks_it(deeds in prop::collection::vec(deed(), 1..80), which in 0..3_usize) {
        let recorded = match which {
            0 => two(),
            1 => every_event(),
            _ => Recorded::fixture("hackbench", "../schedtrace/tests/fixtures/hackbench.schedtrace"),
        };
        let mut screen = recorded.shown(Settings::default());
        screen.settle();
        for deed in deeds {
            match deed {
                Deed::Resize(width, height) => screen.resize(width, height),
                Deed::Key(key, held) if is_of_the_screen(key) => screen.send(&Event::Key(KeyEvent::new(key, held))),
                Deed::Key(..) => {}
                Deed::Click(column, row) => {
                    let kind = MouseEventKind::Down(MouseButton::Left);
                    screen.send(&Event::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }));
                }
                Deed::Wait => screen.settle(),
            }
        }
    }
}
