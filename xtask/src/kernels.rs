//! The table of kernels in the documentation, made of what machines said of themselves: each left a folder with `machine`
//! (its name, and its shape, in two lines), `doctor.json` (`schedtrace doctor --json`) and `output` (of its tests).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const HEAD: &str = "\
# What works on which kernel

Made by `make kernels`, which boots each of these machines, asks `schedtrace doctor` what can be recorded there, and runs the
live tests. Machines that are emulated are so by QEMU, without hardware virtualisation; the tests of topology and of CPUs
that come and go are for them alone.

";

#[derive(Deserialize)]
struct Doctor {
    can_record: bool,
    checks: Vec<Check>,
    probes: Vec<Probe>,
}

#[derive(Deserialize)]
struct Check {
    aspect: String,
    state: String,
    found: String,
}

#[derive(Deserialize)]
struct Probe {
    kind: String,
    on: bool,
}

struct Run {
    name: String,
    shape: String,
    doctor: Doctor,
    /// By what was run: how many passed, and how many there were.
    tests: BTreeMap<String, (u64, u64)>,
    failed: Vec<String>,
}

/// Prints the page.
pub(crate) fn print(folders: &[PathBuf]) -> Result<()> {
    let runs = folders.iter().map(|folder| Run::read(folder)).collect::<Result<Vec<_>>>()?;
    print!("{HEAD}{}", table(&runs));
    Ok(())
}

impl Run {
    fn read(folder: &Path) -> Result<Self> {
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (machine, output) = (text("machine")?, text("output")?);
        let (name, shape) = machine.trim_end().split_once('\n').context("`machine` needs two lines")?;
        let doctor = serde_json::from_str(&text("doctor.json")?)
            .with_context(|| format!("{} is not what doctor says", folder.display()))?;
        let (tests, failed) = tests(&output);
        ensure!(output.lines().any(|line| line == "finished"), "{name} did not come to the end of its tests");
        ensure!(!tests.is_empty(), "{name} ran no test");
        Ok(Self { name: name.into(), shape: shape.into(), doctor, tests, failed })
    }
}

/// What was run, how it went, and what failed.
fn tests(output: &str) -> (BTreeMap<String, (u64, u64)>, Vec<String>) {
    let (mut tests, mut failed, mut name) = (BTreeMap::<String, (u64, u64)>::new(), Vec::new(), "");
    for line in output.lines() {
        if let Some(binary) = line.trim_start().strip_prefix("Running ") {
            name = binary.split(' ').next().unwrap_or_default();
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let number = |what: &str| -> u64 {
                let before = result.split(what).next().unwrap_or_default();
                before.rsplit([' ', '.']).find_map(|word| word.parse().ok()).unwrap_or(0)
            };
            let (passed, not) = (number(" passed"), number(" failed"));
            let sum = tests.entry(name.into()).or_default();
            *sum = (sum.0 + passed, sum.1 + passed + not);
        } else if let Some(test) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            failed.push(test.into());
        }
    }
    tests.retain(|_, (_, all)| *all > 0);
    (tests, failed)
}

fn table(runs: &[Run]) -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: String, cell: &dyn Fn(&Run) -> String| rows.push((name, runs.iter().map(cell).collect()));
    row("machine".into(), &|run| run.shape.clone());
    row("**`schedtrace record`**".into(), &|run| {
        if run.doctor.can_record { "works".into() } else { "does not work".into() }
    });
    let aspects = runs.first().map_or(&[][..], |run| &run.doctor.checks);
    for Check { aspect, .. } in aspects {
        row(aspect.clone(), &|run| {
            let check = run.doctor.checks.iter().find(|check| check.aspect == *aspect);
            check.map_or("not looked at".into(), |check| match check.state.as_str() {
                "ok" => "yes".into(),
                "absent" => "no".into(),
                state => format!("{state}: {}", check.found),
            })
        });
    }
    let kinds: BTreeSet<&str> = runs.iter().flat_map(|run| &run.doctor.probes).map(|probe| &*probe.kind).collect();
    for kind in kinds {
        row(format!("`{kind}`"), &|run| {
            let on = run.doctor.probes.iter().any(|probe| probe.kind == kind && probe.on);
            if on { "recorded".into() } else { "not recorded".into() }
        });
    }
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.tests.keys()).collect();
    for name in names {
        row(format!("tests `{name}`"), &|run| match run.tests.get(name) {
            Some((passed, all)) => format!("{passed} of {all} pass"),
            None => "not run".into(),
        });
    }
    let mut text = format!("| | {} |\n", runs.iter().map(|run| &*run.name).collect::<Vec<_>>().join(" | "));
    text += &format!("|{}\n", "---|".repeat(runs.len() + 1));
    for (name, cells) in rows {
        text += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    for run in runs.iter().filter(|run| !run.failed.is_empty()) {
        text += &format!("\nOn {} these fail: `{}`.\n", run.name, run.failed.join("`, `"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read() {
        let output = "6.1\n     Running live live_\ntest a ... ok\ntest b ... FAILED\n\
                      test result: FAILED. 12 passed; 1 failed; 0 ignored\n     Running vm vm_\n\
                      test result: ok. 4 passed; 0 failed; 0 ignored\nfinished\n";
        let (tests, failed) = tests(output);
        assert_eq!(tests, BTreeMap::from([("live".into(), (12, 13)), ("vm".into(), (4, 4))]));
        assert_eq!(failed, ["b"]);
        let doctor = serde_json::from_str(
            r#"{"can_record": true, "checks": [{"aspect": "sched_ext", "state": "absent", "found": "none"}],
                "probes": [{"kind": "task_rename", "on": false}]}"#,
        );
        let run = Run { name: "6.1".into(), shape: "8 CPUs".into(), doctor: doctor.unwrap(), tests, failed };
        let text = table(&[run]);
        for line in ["| sched_ext | no |", "| `task_rename` | not recorded |", "| tests `live` | 12 of 13 pass |"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.ends_with("On 6.1 these fail: `b`.\n"), "{text}");
    }
}
