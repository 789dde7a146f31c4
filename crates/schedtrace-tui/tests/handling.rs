//! On a real terminal: what a user chose is kept to, and what leaves the screen arrives.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod tty;

use std::path::Path;

use serde_json::Value;
use tty::{Setup, Terminal, eventually};

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schedtrace/tests/fixtures/hackbench.schedtrace");

/// The viewer, of the trace of hackbench.
fn viewer() -> String {
    format!("{} {TRACE}", env!("CARGO_BIN_EXE_schedtrace-tui"))
}

fn leave(terminal: &Terminal) {
    terminal.keys(&["q"]);
    terminal.assert_left_as_it_was(0);
}

fn configured(home: &Path, config: &str) {
    let folder = home.join(".config/schedtrace");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), config).unwrap();
}

#[test]
fn keys_are_those_of_the_configuration() {
    let home = tempfile::tempdir().unwrap();
    configured(home.path(), "[keys]\nquit = [\"ctrl-x\"]\ntasks = [\"h\"]\nlatency = [\"F12\"]\n");
    let terminal = Setup::new().home(home.path()).running(&viewer());
    // The help line tells them.
    terminal.wait("ctrl-x quit");
    terminal.keys(&["q"]);
    terminal.keys(&["h"]);
    terminal.wait("schedtrace tasks");
    terminal.keys(&["F12"]);
    terminal.wait("schedtrace latency");
    terminal.keys(&["C-x"]);
    terminal.assert_left_as_it_was(0);
}

#[test]
fn a_wrong_configuration_is_told_with_its_line_before_anything_is_drawn() {
    let home = tempfile::tempdir().unwrap();
    for (config, line, told) in [
        ("theme = \"dark\"\n\n[keys]\nquit = [\"hyper-x\"]\n", 4, "`hyper-x` is no key"),
        ("# so\nthemes = \"dark\"\n", 2, "`theme`"),
        ("interval = \"1s\"\ntheme = ", 2, ""),
    ] {
        configured(home.path(), config);
        // Lines are broken where they are longer.
        let terminal = Setup::new().size(300, 30).home(home.path()).running(&viewer());
        let screen = terminal.assert_left_as_it_was(1);
        assert!(screen.contains(&format!("config.toml, line {line}: ")) && screen.contains(told), "{screen}");
    }
}

#[test]
fn what_was_looked_at_last_is_remembered() {
    let home = tempfile::tempdir().unwrap();
    let begin = || Setup::new().size(160, 40).home(home.path()).running(&viewer());
    let terminal = begin();
    terminal.wait("who waited");
    terminal.keys(&["b"]);
    terminal.wait("rows by process");
    terminal.keys(&["5"]);
    terminal.wait("schedtrace latency");
    terminal.keys(&["T"]);
    let theme = terminal.wait("theme ");
    leave(&terminal);
    let kept = std::fs::read_to_string(home.path().join(".local/state/schedtrace/top.toml")).unwrap();
    assert!(kept.contains("view = \"latency\"") && kept.contains("by = \"process\""), "{kept}");
    assert!(kept.contains("theme = "), "{kept} of {theme}");
    let terminal = begin();
    terminal.wait("schedtrace latency");
    leave(&terminal);
    // Where it cannot be kept, that is no reason to fail.
    let file = home.path().join(".local/state/schedtrace");
    std::fs::remove_dir_all(&file).unwrap();
    std::fs::write(&file, "in the way").unwrap();
    let terminal = begin();
    terminal.wait("who waited");
    leave(&terminal);
}

#[test]
fn a_copy_arrives_at_the_terminal() {
    let terminal = Setup::new().running(&viewer());
    terminal.wait("who waited");
    terminal.keys(&["y"]);
    terminal.wait("as Markdown");
    let copied = || {
        eventually("the copy arrives", || {
            let buffer = terminal.command().arg("show-buffer").output().unwrap();
            if buffer.status.success() {
                Ok(String::from_utf8(buffer.stdout).unwrap())
            } else {
                Err(format!("{buffer:?}"))
            }
        })
    };
    let table = copied();
    assert!(table.contains("| WHO ") && table.contains("rcu_preempt[18]") && table.contains("312ms"), "{table}");
    terminal.tmux(&["delete-buffer"]);
    terminal.keys(&["Y"]);
    terminal.wait("as JSON");
    let table: Value = serde_json::from_str(&copied()).unwrap();
    assert!(table.to_string().contains("rcu_preempt[18]"), "{table}");
    leave(&terminal);
}

/// Types a name in place of the one that is proposed.
fn name(terminal: &Terminal, asks: &str, name: &str) {
    let screen = terminal.wait(asks);
    let proposed = screen.lines().find_map(|line| line.split_once(asks)).unwrap().1;
    let proposed = proposed.split('_').next().unwrap().chars().count();
    terminal.keys(&vec!["BSpace"; proposed + 8]);
    terminal.type_text(name);
    terminal.wait(&format!("{asks}{name}_"));
    terminal.keys(&["Enter"]);
}

#[test]
fn a_view_is_written_as_markdown_and_as_json() {
    let terminal = Setup::new().running(&viewer());
    terminal.wait("who waited");
    for file in ["view.md", "view.json"] {
        terminal.keys(&["s"]);
        name(&terminal, "write this view (.md or .json) as ", file);
        terminal.wait(&format!("written: {file}"));
    }
    let text = terminal.text_of("view.md");
    assert!(text.contains("## who waited") && text.contains("rcu_preempt[18]"), "{text}");
    let view: Value = serde_json::from_str(&terminal.text_of("view.json")).unwrap();
    assert_eq!((&view["view"], &view["lost_total"]), (&"overview".into(), &0.into()), "{view}");
    assert!(view["tables"].to_string().contains("rcu_preempt[18]"), "{view}");
    // Nothing is overwritten.
    terminal.keys(&["s"]);
    name(&terminal, "write this view (.md or .json) as ", "view.md");
    terminal.wait("exists already");
    assert_eq!(terminal.text_of("view.md"), text);
    leave(&terminal);
}

#[test]
fn a_stretch_of_time_is_written_for_perfetto() {
    let terminal = Setup::new().running(&viewer());
    terminal.wait("who waited");
    terminal.keys(&["x"]);
    name(&terminal, "write this stretch of time for Perfetto as ", "all.pftrace");
    terminal.wait("open it at ui.perfetto.dev");
    terminal.keys(&["z"]);
    terminal.wait("from 0.4");
    terminal.keys(&["x"]);
    name(&terminal, "write this stretch of time for Perfetto as ", "half.pftrace");
    terminal.wait("to half.pftrace");
    let [all, half] = ["all.pftrace", "half.pftrace"].map(|file| std::fs::read(terminal.file(file)).unwrap());
    // Packets of field 1, each with its length.
    assert!(all.starts_with(&[0x0a]) && half.starts_with(&[0x0a]));
    assert!(half.len() > 1000 && half.len() < all.len(), "{} and {} bytes", all.len(), half.len());
    assert!(all.windows(9).any(|bytes| bytes == b"hackbench"));
    leave(&terminal);
}

#[test]
fn a_terminal_without_colours_gets_none() {
    let colours = |screen: &str| {
        screen.match_indices("\u{1b}[").any(|(at, _)| {
            let sequence = screen[at + 2..].split('m').next().unwrap();
            sequence
                .split([';', ':'])
                .any(|code| matches!(code.parse(), Ok(30..=37 | 38 | 40..=47 | 48 | 90..=97 | 100..=107)))
        })
    };
    let show = |setup: Setup, term: &str| {
        // tmux sets it itself.
        let terminal = setup.running(&format!("TERM={term} {}", viewer()));
        terminal.wait("? help");
        let screen = terminal.coloured();
        leave(&terminal);
        screen
    };
    let with = show(Setup::new(), "tmux-256color");
    assert!(colours(&with), "{with}");
    for (setup, term) in
        [(Setup::new().env("NO_COLOR", "1"), "tmux-256color"), (Setup::new(), "vt220"), (Setup::new(), "dumb")]
    {
        let without = show(setup, term);
        assert!(!colours(&without), "{term}: {without}");
        // What is selected is to be seen without.
        assert!(without.contains("\u{1b}[7m") || without.contains("\u{1b}[0;7m"), "{without}");
    }
    // An empty one is not set: https://no-color.org
    let empty = show(Setup::new().env("NO_COLOR", ""), "tmux-256color");
    assert!(colours(&empty), "{empty}");
}

#[test]
fn a_locale_without_unicode_gets_ascii() {
    let terminal = Setup::new().env("LC_ALL", "C").env("LANG", "C").running(&viewer());
    for (key, view) in [("1", "overview"), ("2", "tasks"), ("5", "latency")] {
        terminal.keys(&[key]);
        let screen = terminal
            .wait_until(view, |screen| screen.contains(&format!("schedtrace {view}")) && screen.contains("hackbench["));
        assert!(screen.is_ascii(), "{screen}");
    }
    leave(&terminal);
    let terminal = Setup::new().running(&viewer());
    let screen = terminal.wait("? help");
    assert!(!screen.is_ascii(), "{screen}");
    leave(&terminal);
}
