//! Checks the rules of the house, as ARCHITECTURE.md states them.
//!
//! The rules are functions over data (manifests, dependency closures, scanned sources), so that each is tested by
//! feeding it what breaks it.

mod crates;
mod picture;
mod scan;
mod sources;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use scan::Source;

/// A broken rule, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    file: String,
    line: usize,
    what: String,
    rule: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}\n    rule: {}", self.file, self.line, self.what, self.rule)
    }
}

/// The picture that ARCHITECTURE.md has to show, on standard output.
pub(crate) fn print_picture() -> anyhow::Result<()> {
    print!("{}", picture::draw(&crates::read()?.1));
    Ok(())
}

/// Checks every rule; prints what was checked, or fails with every violation.
pub(crate) fn check() -> anyhow::Result<()> {
    let (root, crates) = crates::read()?;
    let sources = read_sources(&root)?;
    let mut violations = crates::check(&crates);
    violations.extend(sources::check(&sources));
    violations.extend(sources::check_list(&sources));

    let with = |features: &str| closure(&root, &["--no-default-features", "--features", features]);
    // All but `sql`: DataFusion brings a runtime and C, and is kept to itself.
    let all = with("live,trace,csv,perfetto,synthetic,vendored")?;
    let (none, live, trace, both) = (with("")?, with("live")?, with("trace")?, with("live,trace")?);
    let offline = with("csv,perfetto,trace")?;
    violations.extend(crates::check_closures(&all, &offline, &none));

    let page = "ARCHITECTURE.md";
    let text = std::fs::read_to_string(root.join(page)).with_context(|| format!("cannot read {page}"))?;
    violations.extend(picture::check(page, &text, &picture::draw(&crates)));

    println!("{} crates, {} source files", crates.len(), sources.len());
    println!(
        "schedtrace-core needs {} crates of others without features, {} with live, {} with trace, {} with both",
        none.len(),
        live.len(),
        trace.len(),
        both.len()
    );
    violations.sort();
    for violation in &violations {
        eprintln!("{violation}");
    }
    if !violations.is_empty() {
        bail!("{} places break a rule of the house; see \"The rules\" in {page}", violations.len());
    }
    println!("every rule of the house holds");
    Ok(())
}

/// Every Rust source of this repository.
fn read_sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders: Vec<_> = ["crates", "xtask", "examples", "benches"].map(|name| root.join(name)).into();
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name();
            if kind.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let file = path.strip_prefix(root)?.to_string_lossy().into_owned();
                sources.push(Source::read(&file, &text)?);
            }
        }
    }
    sources.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(sources)
}

/// The names of all crates of others that become part of schedtrace-core: without what its tests need, and what only
/// macros need while it is compiled.
///
/// `cargo metadata` unites the features of all members of the workspace, so only `cargo tree` tells what one needs.
fn closure(root: &Path, features: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "-p", "schedtrace-core", "-e", "no-dev,no-proc-macro", "--prefix", "none", "--format", "{p}"])
        .args(features)
        .current_dir(root)
        .output()
        .context("cannot run `cargo tree`")?;
    if !output.status.success() {
        bail!("`cargo tree` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let ours = |name: &str| name.starts_with("schedtrace");
    // "name v1.2.3 (where from)"; two versions of one crate are two crates.
    let lines = String::from_utf8(output.stdout).context("`cargo tree` printed no text")?;
    Ok(lines
        .lines()
        .map(|line| line.split(" (").next().unwrap_or(line).trim().to_owned())
        .filter(|line| !line.is_empty() && !ours(line))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_says_where_what_and_why() {
        let violation = Violation { file: "a/b.rs".into(), line: 7, what: "names `live`".into(), rule: "no" };
        assert_eq!(violation.to_string(), "a/b.rs:7: names `live`\n    rule: no");
    }

    #[test]
    fn this_repository_is_read() {
        let (root, crates) = crates::read().unwrap();
        let core = crates.iter().find(|one| one.name == "schedtrace-core").unwrap();
        assert!(core.dependencies.iter().any(|dependency| dependency.name == "schedtrace-bpf" && dependency.optional));
        let sources = read_sources(&root).unwrap();
        assert!(sources.iter().any(|source| source.file == "crates/schedtrace-core/src/event.rs"));
        assert!(sources.iter().any(|source| source.file == "xtask/src/house/mod.rs"));
    }

    #[test]
    fn features_change_the_closure() {
        let (root, _) = crates::read().unwrap();
        let off = closure(&root, &["--no-default-features"]).unwrap();
        let all = closure(&root, &["--all-features"]).unwrap();
        assert!(off.iter().any(|name| name.starts_with("serde v")), "{off:?}");
        assert!(all.iter().any(|name| name.starts_with("libbpf-sys v")), "{all:?}");
        assert!(off.is_subset(&all));
    }
}
