//! Questions in SQL on the screen: what is typed, what is answered, and what becomes of that.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use std::time::{Duration, Instant};

use kit::{Recorded, Screen};
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use schedtrace_core::flight::WindowOptions;
use schedtrace_core::synthetic::SyntheticHost;
use schedtrace_tui::{App, Origin, Settings};

fn hackbench() -> Screen {
    let mut screen =
        Recorded::fixture("hackbench", "../schedtrace/tests/fixtures/hackbench.schedtrace").shown(Settings::default());
    screen.settle();
    screen
}

/// Types a statement where statements are typed.
fn ask(screen: &mut Screen, sql: &str) {
    if !screen.text().contains("Enter asks") {
        screen.press(KeyCode::Char(';'));
    }
    screen.send(&Event::Key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL)));
    screen.settle();
    sql.chars().for_each(|letter| screen.press(KeyCode::Char(letter)));
    screen.press(KeyCode::Enter);
}

/// Waits until something stands there.
fn until(screen: &mut Screen, told: &str) -> String {
    let last = Instant::now() + Duration::from_secs(120);
    while !screen.text().contains(told) {
        assert!(Instant::now() < last, "{told} never came:\n{}", screen.text());
        std::thread::sleep(Duration::from_millis(20));
        screen.settle();
    }
    screen.text()
}

#[test]
fn rows_are_a_table_as_all_others() {
    let mut screen = hackbench();
    screen.press(KeyCode::Char(';'));
    let tables = until(&mut screen, "what can be asked");
    assert!(tables.contains("sql>") && tables.contains("thread_state") && tables.contains("$from"), "{tables}");
    ask(
        &mut screen,
        "select cpu, count(*) as n, sum(dur) as total_ns, 'a|b' as t from sched_slice group by cpu order by cpu",
    );
    let text = until(&mut screen, "rows in");
    let figures = |text: &str| -> Vec<u64> {
        let rows = text.lines().filter(|line| line.ends_with("a|b"));
        rows.map(|row| row.split_whitespace().nth(1).unwrap().parse().unwrap()).collect()
    };
    let rows = figures(&text);
    assert!(rows.len() > 1, "{text}");
    assert!(!text.contains("error"), "{text}");
    // Sorted by the second column, the largest first.
    screen.keys(">>");
    let sorted = figures(&screen.text());
    let mut expected = rows.clone();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(sorted, expected, "{}", screen.text());
    // Filtered, in the words of the statement's columns.
    screen.keys("/n = ");
    screen.keys(&format!("{}", rows[0]));
    screen.press(KeyCode::Enter);
    assert_eq!(figures(&screen.text()), [rows[0]], "{}", screen.text());
    // Another answer begins anew.
    screen.press(KeyCode::Delete);
    screen.settle();
    until(&mut screen, "what can be asked");
}

#[test]
fn what_is_asked_of_the_selected_time_is_offered() {
    let mut screen = hackbench();
    screen.press(KeyCode::Char(';'));
    let text = until(&mut screen, "what can be asked");
    assert!(text.contains("such as select comm") && text.contains("All time is asked; $from and $until are"), "{text}");
    screen.press(KeyCode::Esc);
    screen.settle();
    // A part of the time, and back.
    screen.keys("z");
    let text = screen.text();
    assert!(text.contains("`ts between $from and $until` asks of the selected"), "{text}");
    screen.press(KeyCode::Char(';'));
    assert!(screen.text().contains("such as select * from thread_state where ts between"), "{}", screen.text());
    screen.press(KeyCode::Esc);
    screen.press(KeyCode::Enter);
    screen.settle();
    assert!(screen.text().contains("where ts between $from and $until limit 100"), "{}", screen.text());
    screen.press(KeyCode::Enter);
    until(&mut screen, " in 0.");
}

#[test]
fn what_is_wrong_is_told_and_what_was_meant() {
    let mut screen = hackbench();
    ask(&mut screen, "select commm from thread_state");
    until(&mut screen, "do you mean `comm`?");
    screen.press(KeyCode::Char(';'));
    screen.press(KeyCode::Up);
    assert!(screen.text().contains("sql> select commm from"), "what was asked comes back: {}", screen.text());
    screen.press(KeyCode::Esc);
    ask(&mut screen, "; select 1; select 2");
    until(&mut screen, "one statement at a time");
    ask(&mut screen, "drop table sched_slice");
    until(&mut screen, "traces are only read");
}

#[test]
fn a_statement_can_name_the_time_that_is_selected() {
    let mut screen = hackbench();
    let all = "select count(*) + 0.5 as c from sched_slice";
    ask(&mut screen, all);
    until(&mut screen, "1 row in");
    let count = |screen: &Screen| -> f64 {
        screen.text().lines().filter_map(|line| line.trim().parse().ok()).next_back().unwrap()
    };
    let of_all = count(&screen);
    screen.keys("z");
    screen.press(KeyCode::Delete);
    ask(&mut screen, &format!("{all} where ts >= $from and ts < $until"));
    until(&mut screen, "1 row in");
    let of_part = count(&screen);
    assert!(0.5 < of_part && of_part < of_all, "{of_part} of {of_all}: {}", screen.text());
}

#[test]
fn a_row_that_has_a_time_leads_to_it() {
    let mut screen = hackbench();
    ask(&mut screen, "select ts, dur, tid, comm from thread_state where dur > 0 limit 3");
    until(&mut screen, "3 rows in");
    screen.press(KeyCode::Enter);
    screen.settle();
    assert_eq!(screen.view(), "timeline", "{}", screen.text());
}

#[test]
fn a_query_is_ended() {
    let mut screen = hackbench();
    ask(
        &mut screen,
        "select count(*) from sched_slice a, sched_slice b, sched_slice c, sched_slice d where a.dur + b.dur + c.dur = d.dur",
    );
    until(&mut screen, "asking: Esc ends it");
    screen.press(KeyCode::Esc);
    until(&mut screen, "the query was ended");
    assert!(!screen.text().contains("asking"), "{}", screen.text());
    // The next one is answered as ever.
    ask(&mut screen, "select 7");
    until(&mut screen, "1 row in");
}

#[test]
fn the_last_seconds_can_be_asked_too() {
    let origin = Origin::live(SyntheticHost::new().events(5_000).start(), || (), WindowOptions::default()).unwrap();
    let mut screen = Screen::new(App::new(origin, Settings::default()).unwrap(), 140, 36);
    screen.settle();
    ask(&mut screen, "select count(*) as events from sched_switch");
    until(&mut screen, "1 row in");
}
