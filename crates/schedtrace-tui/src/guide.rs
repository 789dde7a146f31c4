//! docs/top.md says what the code says: its tables of views, actions and configuration keys are made from it, between marks.
//! `SCHEDTRACE_ACCEPT=1` writes them anew.

use std::path::Path;

use crate::config::KEYS;
use crate::keys::{Action, Bindings, Key};
use crate::settings::Settings;
use crate::views::Name;

/// The guide, from the root of the repository.
const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/top.md");

/// What the keys of the configuration take and mean, in the order in which they stand in the guide.
const CONFIGURATION: [(&str, &str, &str); KEYS.len()] = [
    (
        "theme",
        "`\"light\"`",
        "Colours: `dark`, `light`, `colour-blind`, `sixteen`, `monochrome`. Without it, what the terminal has.",
    ),
    ("ascii", "`true`", "Only signs that every terminal has. Without it, where the locale is not UTF-8."),
    (
        "interval",
        "`\"500ms\"`",
        "How long the window is and how often the screen is drawn, live; 125ms to 60s. Without it 1s.",
    ),
    (
        "keys",
        "`quit = [\"q\", \"ctrl-q\"]`",
        "A table: by the name of an action, all keys that it has from then on; `[]` takes them away.",
    ),
    ("hidden", "`tasks = [\"CGROUP\"]`", "A table: by the name of a view, columns that are not shown."),
];

fn keys_of(bindings: &Bindings, action: Action) -> String {
    let keys = bindings.keys(action);
    let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    keys.join(" ")
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ").trim_end());
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule: Vec<String> = head.iter().map(|_| "---".to_owned()).collect();
    line(&head) + &line(&rule) + &rows.into_iter().map(|row| line(&row)).collect::<String>()
}

fn views() -> String {
    let bindings = Bindings::default();
    let row = |name: &Name| {
        let keys =
            name.action().map_or_else(|| "`Enter` or `e` on a row".to_owned(), |action| keys_of(&bindings, action));
        vec![format!("`{}`", name.text()), keys, name.about().to_owned()]
    };
    table(&["view", "keys", "what it shows"], Name::ALL.iter().map(row))
}

fn actions() -> String {
    let bindings = Bindings::default();
    let row =
        |action: &Action| vec![keys_of(&bindings, *action), format!("`{}`", action.name()), action.about().to_owned()];
    table(&["keys", "action", "what it does"], Action::ALL.iter().map(row))
}

fn configuration() -> String {
    let row =
        |&(key, example, about): &(&str, &str, &str)| [&format!("`{key}`"), example, about].map(str::to_owned).into();
    table(&["key", "example", "what it is"], CONFIGURATION.iter().map(row))
}

/// What stands between the two marks of a name, replaced.
fn with(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: made from the code -->\n"), format!("<!-- end of {name} -->"));
    let from = text.find(&begin).unwrap_or_else(|| panic!("docs/top.md has no `{begin}`")) + begin.len();
    let until = from + text[from..].find(&end).unwrap_or_else(|| panic!("docs/top.md has no `{end}`"));
    format!("{}\n{table}\n{}", &text[..from], &text[until..])
}

#[test]
fn its_tables_are_what_the_code_says() {
    assert_eq!(CONFIGURATION.map(|(key, ..)| key), KEYS, "every key of the configuration is told of");
    let found = std::fs::read_to_string(GUIDE).expect("docs/top.md is there");
    let tables = [("views", views()), ("actions", actions()), ("configuration", configuration())];
    let wanted = tables.iter().fold(found.clone(), |text, (name, table)| with(&text, name, table));
    if std::env::var_os("SCHEDTRACE_ACCEPT").is_some() {
        std::fs::write(GUIDE, &wanted).expect("docs/top.md can be written");
        return;
    }
    assert!(
        found == wanted,
        "docs/top.md is not what the code says: accept it with SCHEDTRACE_ACCEPT=1, and read the difference"
    );
}

/// The text of the first block of TOML.
fn example() -> &'static str {
    let guide = include_str!("../../../docs/top.md");
    let from = guide.find("```toml\n").expect("the guide has an example") + "```toml\n".len();
    &guide[from..from + guide[from..].find("```").expect("a block ends")]
}

#[test]
fn its_example_of_a_configuration_is_taken() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("schedtrace");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("config.toml"), example()).expect("a file");
    let settings = Settings::of_user(|name| {
        let is_one = matches!(name, "XDG_CONFIG_HOME" | "XDG_STATE_HOME");
        is_one.then(|| Path::new(home.path()).as_os_str().to_owned())
    });
    let settings = settings.expect("the example is right");
    for key in KEYS {
        assert!(example().contains(key), "the example has no `{key}`");
    }
    Bindings::chosen(&settings.keys).expect("its keys are keys");
}

/// What stands between backticks, outside of blocks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_keys_of_its_questions_do_something() {
    let guide = include_str!("../../../docs/top.md");
    let from = guide.find("| question | key | then |").expect("the questions");
    let questions = guide[from..].split("\n\n").next().unwrap_or_default();
    let bindings = Bindings::default();
    let bound: Vec<String> = Action::ALL.iter().flat_map(|&action| bindings.keys(action)).collect();
    let keys: Vec<&str> = quoted(questions).filter(|text| text.parse::<Key>().is_ok()).collect();
    assert!(keys.len() > 20, "{keys:?}");
    for key in keys {
        assert!(bound.iter().any(|one| one == key), "docs/top.md has `{key}`, which does nothing");
    }
}
