//! Puts known mistakes back, one after the other, and sees the test that guards against each of them fail.
//!
//! `xtask/mistakes/` holds a patch per mistake. Above the patch stand its name and its test:
//!
//! ```text
//! Mistake: the tail of a recording is thrown away at shutdown
//! Test: -p schedtrace-core --test loss live_the_tail
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

struct Mistake {
    file: PathBuf,
    name: String,
    /// Arguments of `cargo test`.
    test: Vec<String>,
    /// The kernel side has to be built again.
    in_kernel: bool,
}

/// Tries the mistakes whose file names contain `only`. With `check`, sees only that every patch still applies.
pub(crate) fn run(check: bool, only: Option<&str>) -> Result<()> {
    // Not as it was when this was built: several checkouts may share one build.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").context("run it by cargo: `cargo run -p xtask -- mistakes`")?;
    let root = Path::new(&xtask).join("..").canonicalize()?;
    let mistakes = read(&root.join("xtask/mistakes"), only.unwrap_or_default())?;
    ensure!(!mistakes.is_empty(), "no mistake is called so: see xtask/mistakes");
    if check {
        for mistake in &mistakes {
            apply(&root, &mistake.file, &["--check"])?;
        }
        println!("{} mistakes can be put back", mistakes.len());
        return Ok(());
    }
    // A copy of what is committed; what is built of it must not get in the way of what is built here.
    let scratch = tempfile::tempdir()?;
    let tree = scratch.path().join("tree");
    succeed(Command::new("git").args(["clone", "-q", "--shared"]).arg(&root).arg(&tree))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = target.join("mistakes");
    let mut unseen = Vec::new();
    for mistake in &mistakes {
        apply(&tree, &mistake.file, &[])?;
        let seen = is_seen(&tree, &target, mistake).with_context(|| mistake.file.display().to_string())?;
        println!(
            "{}  {}\n            cargo test {}",
            if seen { "seen    " } else { "NOT SEEN" },
            mistake.name,
            mistake.test.join(" ")
        );
        if !seen {
            unseen.push(mistake.name.as_str());
        }
        succeed(Command::new("git").args(["checkout", "-q", "."]).current_dir(&tree))?;
    }
    ensure!(unseen.is_empty(), "no test fails with: {}", unseen.join("; "));
    Ok(())
}

fn read(folder: &Path, only: &str) -> Result<Vec<Mistake>> {
    let mut files: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.file_stem().is_some_and(|stem| stem.to_string_lossy().contains(only)));
    files.sort();
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).with_context(|| format!("{} has no line `{name}`", file.display()))
        };
        let (name, test) = (field("Mistake:")?.to_owned(), field("Test:")?);
        let (test, in_kernel) = (test.split(' ').map(str::to_owned).collect(), text.contains("/src/bpf/"));
        Ok(Mistake { file, name, test, in_kernel })
    };
    files.into_iter().map(read).collect()
}

fn apply(tree: &Path, patch: &Path, more: &[&str]) -> Result<()> {
    succeed(Command::new("git").arg("apply").args(more).arg(patch).current_dir(tree))
}

/// Whether the test fails: by running to its end, not by failing to build.
fn is_seen(tree: &Path, target: &Path, mistake: &Mistake) -> Result<bool> {
    let cargo = || {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(tree).env("CARGO_TARGET_DIR", target);
        cargo
    };
    if mistake.in_kernel {
        succeed(cargo().args(["run", "--quiet", "--locked", "-p", "xtask", "--", "bpf"]))?;
    }
    let output = cargo()
        .args(["test", "--quiet", "--locked"])
        .args(&mistake.test)
        .args(["--", "--test-threads=1"])
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        ensure!(!said.contains("running 0 tests") || said.contains("1 passed"), "no test is called so");
        return Ok(false);
    }
    if !said.contains("test result: FAILED") {
        bail!("the test did not run: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(true)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}
