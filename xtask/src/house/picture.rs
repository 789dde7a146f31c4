//! The dependency picture: drawn from the manifests, and held against the one in ARCHITECTURE.md.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::crates::Crate;

const RULE: &str = "ARCHITECTURE.md shows the dependencies as they are: put there, between the markers, what \
                    `cargo run -p xtask -- house --picture` prints";
const BEGIN: &str = "<!-- picture -->";
const END: &str = "<!-- end of picture -->";

/// Crates and arrows as text: who depends on whom within this repository, tests left out.
///
/// Whoever depends on most, in the end, stands on top, with a blank line between the storeys.
pub(super) fn draw(crates: &[Crate]) -> String {
    let width = crates.iter().map(|one| one.name.len()).max().unwrap_or(0);
    let mut storeys: BTreeMap<Reverse<usize>, BTreeSet<String>> = BTreeMap::new();
    for one in crates {
        let ours = |optional: bool| -> BTreeSet<&str> {
            let of = one.dependencies.iter().filter(|dependency| !dependency.dev && dependency.optional == optional);
            let names = of.map(|dependency| dependency.name.as_str());
            names.filter(|name| crates.iter().any(|other| other.name == *name)).collect()
        };
        let mut row = format!("{:width$}", one.name);
        for (arrow, names) in [("-->", ours(false)), ("..>", ours(true))] {
            if !names.is_empty() {
                row.push_str(&format!(" {arrow} {}", names.into_iter().collect::<Vec<_>>().join(", ")));
            }
        }
        storeys.entry(Reverse(height(crates, &one.name, crates.len()))).or_default().insert(row.trim_end().to_owned());
    }
    let storeys: Vec<String> =
        storeys.into_values().map(|rows| rows.into_iter().collect::<Vec<_>>().join("\n")).collect();
    format!("{}\n\n--> depends on   ..> with a feature only\n", storeys.join("\n\n"))
}

/// How long the longest chain of dependencies below a crate is; `limit` ends a cycle.
fn height(crates: &[Crate], name: &str, limit: usize) -> usize {
    let Some(one) = crates.iter().find(|one| one.name == name) else { return 0 };
    if limit == 0 {
        return 0;
    }
    let below = one.dependencies.iter().filter(|dependency| !dependency.dev);
    let ours = below.filter(|dependency| crates.iter().any(|other| other.name == dependency.name));
    ours.map(|dependency| 1 + height(crates, &dependency.name, limit - 1)).max().unwrap_or(0)
}

/// Whether the page shows exactly this picture.
pub(super) fn check(page: &str, text: &str, picture: &str) -> Option<Violation> {
    let broken = |line, what: &str| Some(Violation { file: page.to_owned(), line, what: what.to_owned(), rule: RULE });
    let Some((before, rest)) = text.split_once(BEGIN) else {
        return broken(1, &format!("there is no `{BEGIN}`"));
    };
    let line = before.lines().count().max(1);
    let Some((shown, _)) = rest.split_once(END) else {
        return broken(line, &format!("there is no `{END}` after `{BEGIN}`"));
    };
    if shown.trim() == format!("```text\n{picture}```") { None } else { broken(line, "the picture is out of date") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::crates::Dependency;

    /// A crate and its dependencies: name, optional, for tests only.
    type Row<'a> = (&'a str, &'a [(&'a str, bool, bool)]);

    fn house(rows: &[Row]) -> Vec<Crate> {
        let of = |&(name, dependencies): &Row| Crate {
            name: name.to_owned(),
            manifest: String::new(),
            text: String::new(),
            dependencies: dependencies
                .iter()
                .map(|&(name, optional, dev)| Dependency { name: name.to_owned(), rename: None, optional, dev })
                .collect(),
        };
        rows.iter().map(of).collect()
    }

    #[test]
    fn crates_stand_above_what_they_depend_on() {
        let crates = house(&[
            ("bpf", &[("libbpf-rs", false, false)]),
            ("core", &[("bpf", true, false), ("serde", false, false)]),
            ("command", &[("core", false, false), ("tui", false, false), ("bpf", false, true)]),
            ("tui", &[("core", false, false)]),
            ("mcp", &[("core", false, false)]),
        ]);
        assert_eq!(
            draw(&crates),
            "command --> core, tui\n\nmcp     --> core\ntui     --> core\n\ncore    ..> bpf\n\nbpf\n\n\
             --> depends on   ..> with a feature only\n"
        );
    }

    #[test]
    fn a_cycle_ends() {
        draw(&house(&[("a", &[("b", false, false)]), ("b", &[("a", false, false)])]));
    }

    #[test]
    fn the_page_has_to_show_the_picture() {
        let page = |shown: &str| format!("# Title\n\n{BEGIN}\n```text\n{shown}```\n{END}\n");
        assert_eq!(check("A.md", &page("a --> b\n"), "a --> b\n"), None);
        let line = |text: &str| check("A.md", text, "a --> b\n").map(|violation| (violation.line, violation.what));
        assert_eq!(line(&page("a --> c\n")), Some((2, "the picture is out of date".to_owned())));
        assert!(line("# Title\n").is_some_and(|(line, _)| line == 1));
        assert!(line(&format!("{BEGIN}\n```text\na --> b\n```\n")).is_some());
    }
}
