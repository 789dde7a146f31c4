//! Keys and the mouse go to what can be seen.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "the kit is that of all tests")]

mod kit;

use kit::{Recorded, Screen};
use ratatui::crossterm::event::{Event, KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use schedtrace_tui::Settings;

fn every_event(width: u16, height: u16) -> Screen {
    let recorded = Recorded::fixture("every-event", "../schedtrace/tests/every-event/events.schedtrace");
    let mut screen = recorded.shown(Settings::default());
    screen.resize(width, height);
    screen.settle();
    screen
}

fn mouse(screen: &mut Screen, kind: MouseEventKind, column: u16, row: u16) {
    screen.send(&Event::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }));
    screen.settle();
}

fn click(screen: &mut Screen, column: u16, row: u16) {
    mouse(screen, MouseEventKind::Down(MouseButton::Left), column, row);
}

/// The lines above tables: where they are, and what they say after the sign of the one that has the keys.
fn rules(screen: &Screen) -> Vec<(u16, String)> {
    let text = screen.text();
    let said = |line: &str| line.strip_prefix("── ").or(line.strip_prefix("─▶ ")).map(str::to_owned);
    let lines = text.lines().enumerate().filter_map(|(at, line)| Some((at, said(line)?)));
    lines.map(|(at, said)| (at.try_into().unwrap(), said)).collect()
}

fn line(screen: &Screen, at: u16) -> String {
    screen.text().lines().nth(at.into()).unwrap().to_owned()
}

/// The column of the table of which the names stand there by which it is sorted.
fn sorted_by(screen: &Screen, heads: u16) -> String {
    let heads = line(screen, heads);
    let sorted = heads.split_whitespace().find(|name| name.ends_with(['▼', '▲', '↓', '↑']));
    sorted.unwrap_or_default().to_owned()
}

#[test]
fn a_table_that_is_not_shown_is_not_hit() {
    let mut screen = every_event(80, 18);
    screen.keys("6");
    let before = rules(&screen);
    assert!(before.len() == 2 && before[1].0 > before[0].0 + 5, "{}", screen.text());
    // The other table takes the room of this one: clicks there are for that one alone.
    screen.press(KeyCode::Tab);
    screen.settle();
    let after = rules(&screen);
    assert_eq!(after[1].0, after[0].0 + 1, "{}", screen.text());
    click(&mut screen, 3, after[1].0 + 4);
    click(&mut screen, 3, after[1].0 + 1);
    assert_eq!(rules(&screen), after);
    assert_ne!(sorted_by(&screen, after[1].0 + 1), "", "{}", screen.text());
    // A click at the line above a table gives it the keys, and the room.
    click(&mut screen, 3, after[0].0);
    assert_eq!(rules(&screen), before);
    assert_eq!(sorted_by(&screen, before[0].0 + 1), "", "{}", screen.text());
}

#[test]
fn a_click_chooses_the_table() {
    let mut screen = every_event(140, 60);
    screen.keys("6");
    let tables = rules(&screen);
    assert!(tables.len() > 1 && tables[1].0 + 3 < 60, "{}", screen.text());
    // Its first row is selected already: it is not opened by the click that chooses the table.
    let view = screen.view();
    click(&mut screen, 3, tables[1].0 + 2);
    assert_eq!(screen.view(), view, "{}", screen.text());
    // The keys are its own now.
    screen.keys(">");
    let tables = rules(&screen);
    assert_eq!(sorted_by(&screen, tables[0].0 + 1), "", "{}", screen.text());
    assert_ne!(sorted_by(&screen, tables[1].0 + 1), "", "{}", screen.text());
}

#[test]
fn what_lies_over_the_view_takes_the_mouse() {
    let mut screen = every_event(140, 36);
    screen.keys("2");
    let (view, below) = (screen.view(), screen.text());
    let letters = ['?', ':', '/', 'K'].map(KeyCode::Char);
    for over in letters.into_iter().chain([KeyCode::F(2), KeyCode::F(3)]) {
        screen.press(over);
        screen.settle();
        for row in 0..36 {
            click(&mut screen, 5, row);
            click(&mut screen, 5, row);
        }
        mouse(&mut screen, MouseEventKind::ScrollDown, 5, 10);
        mouse(&mut screen, MouseEventKind::ScrollDown, 5, 10);
        assert_eq!(screen.view(), view, "{over}: {}", screen.text());
        screen.press(KeyCode::Esc);
        screen.press(KeyCode::F(12));
        assert_eq!(screen.text(), below, "{over}");
    }
    // The wheel goes through what can be chosen.
    screen.keys(":");
    let first = screen.text();
    mouse(&mut screen, MouseEventKind::ScrollDown, 5, 10);
    screen.press(KeyCode::Enter);
    assert_ne!(screen.text(), first);
    assert!(screen.text().contains("help"), "the second of the commands: {}", screen.text());
}

#[test]
fn what_is_held_is_not_typed() {
    use ratatui::crossterm::event::KeyEvent;
    let mut screen = every_event(140, 36);
    screen.keys("2");
    let held = |letter, modifiers| Event::Key(KeyEvent::new(KeyCode::Char(letter), modifiers));
    for over in ['/', ':', 'K'].map(KeyCode::Char).into_iter().chain([KeyCode::F(2), KeyCode::F(3)]) {
        screen.press(over);
        screen.settle();
        screen.keys("qx");
        screen.send(&held('z', KeyModifiers::CONTROL));
        screen.send(&held('z', KeyModifiers::ALT));
        screen.settle();
        assert!(screen.text().contains("qx_"), "{over}: {}", screen.text());
        // The cursor moves: a letter is put before the others.
        screen.send(&held('a', KeyModifiers::CONTROL));
        screen.keys("j");
        screen.send(&held('e', KeyModifiers::CONTROL));
        assert!(screen.text().contains("jqx_"), "{over}: {}", screen.text());
        screen.send(&held('u', KeyModifiers::CONTROL));
        assert!(!screen.text().contains("qx"), "{over}: {}", screen.text());
        screen.press(KeyCode::Esc);
        screen.settle();
    }
}
