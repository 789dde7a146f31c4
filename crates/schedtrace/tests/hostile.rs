//! Traces from strangers, damaged by accident or on purpose: whatever stands in them, the command says in a line which
//! file is wrong and how, within bounded memory and time. Values that no recorder writes are tried in
//! `schedtrace-core/src/trace/tests/hostile.rs`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the texts are worth reading")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the command may allocate, in bytes; the kernel refuses more (`RLIMIT_DATA` in `setrlimit(2)`).
const MEMORY: u64 = 512 << 20;
/// When it is taken to hang, in seconds.
const TIME: &str = "60";

/// A copy of a recorded trace, to be spoilt.
struct Victim {
    dir: tempfile::TempDir,
}

impl Victim {
    fn new() -> Self {
        let victim = Self { dir: tempfile::tempdir().unwrap() };
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hackbench.schedtrace");
        let status = Command::new("cp").arg("-r").arg(fixture).arg(victim.trace()).status().unwrap();
        assert!(status.success());
        victim
    }

    fn trace(&self) -> PathBuf {
        self.dir.path().join("run.schedtrace")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.trace().join(name)
    }

    fn run(&self, what: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", TIME, "prlimit", &format!("--data={MEMORY}")]);
        command.arg(env!("CARGO_BIN_EXE_schedtrace")).args(what).arg(self.trace());
        command.current_dir(self.dir.path()).env("RUST_BACKTRACE", "0").output().unwrap()
    }
}

/// The files of the trace, by their paths in it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// The command did what it could: an answer, or one line that names the file. It was neither killed nor did it panic.
fn judge(what: &str, output: &Output, file: &Path) -> Option<String> {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), None, "{what}: {stderr}");
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    match output.status.code() {
        Some(0) => None,
        Some(1) => {
            let line = stderr.lines().last().unwrap_or_default().to_owned();
            assert!(line.starts_with("schedtrace: ") && stderr.lines().count() == 1, "{what}: {stderr}");
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(line.contains(name) && line.len() < 1000, "{what}, in {name}: {line}");
            Some(line)
        }
        code => panic!("{what} ended with {code:?}: {stderr}"),
    }
}

#[test]
fn what_is_cut_off_is_told_of() {
    let victim = Victim::new();
    for path in files(&victim.trace()) {
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(997) {
            fs::write(&path, &whole[..at]).unwrap();
            let line = judge(&format!("cut at {at}"), &victim.run(&["report"]), &path);
            assert!(line.is_some(), "{} of {at} bytes passes for whole", path.display());
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn flipped_bits_do_no_harm() {
    let victim = Victim::new();
    for path in files(&victim.trace()) {
        let whole = fs::read(&path).unwrap();
        // One in each of some hundred places, another one each time.
        for at in (0..whole.len()).step_by(331) {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 1 << (at % 8);
            fs::write(&path, &spoilt).unwrap();
            judge(&format!("flipped at {at}"), &victim.run(&["report"]), &path);
        }
        fs::write(&path, &whole).unwrap();
    }
}

/// Spoils a file of a fresh copy; every way to read it says so.
fn spoilt(what: &str, name: &str, spoil: impl Fn(&Victim, &Path)) {
    for command in [&["report"][..], &["info"], &["export", "--to", "perfetto"], &["export", "--to", "csv"]] {
        let victim = Victim::new();
        let path = victim.file(name);
        spoil(&victim, &path);
        let line = judge(what, &victim.run(command), &path);
        if command[0] == "report" {
            let line = line.unwrap_or_else(|| panic!("{what}: it passes for whole"));
            println!("{what}\n    {}", line.replace(victim.dir.path().to_str().unwrap(), ""));
        }
    }
}

const SWITCH: &str = "events/sched_switch/00000000.parquet";

#[test]
fn what_is_not_what_it_should_be_is_told_of() {
    let replace = |path: &Path, with: &dyn Fn(&Path)| {
        fs::remove_file(path).unwrap();
        with(path);
    };
    spoilt("a table in the place of another", SWITCH, |victim, path| {
        fs::copy(victim.file("events/sched_waking/00000000.parquet"), path).map(drop).unwrap();
    });
    spoilt("a table that is not there", SWITCH, |_, path| fs::remove_file(path).unwrap());
    spoilt("an empty table", SWITCH, |_, path| fs::write(path, "").unwrap());
    spoilt("a link to a file of somebody else", SWITCH, |_, path| {
        replace(path, &|path| symlink("/etc/passwd", path).unwrap());
    });
    spoilt("a link to itself", SWITCH, |_, path| replace(path, &|path| symlink(path, path).unwrap()));
    spoilt("a device that never ends", SWITCH, |_, path| replace(path, &|path| symlink("/dev/zero", path).unwrap()));
    spoilt("a pipe that nobody writes to", SWITCH, |_, path| {
        replace(path, &|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()));
    });
    spoilt("a folder in the place of a table", SWITCH, |_, path| replace(path, &|path| fs::create_dir(path).unwrap()));
    spoilt("a description that is no JSON", "meta.json", |_, path| fs::write(path, "{").unwrap());
    spoilt("a description of a gigabyte, all holes", "meta.json", |_, path| {
        fs::File::create(path).unwrap().set_len(1 << 30).unwrap();
    });
    spoilt("a table of a terabyte, all holes", SWITCH, |_, path| {
        fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
    });
    spoilt("JSON that nests for ever", "meta.json", |_, path| fs::write(path, "[".repeat(100_000)).unwrap());
    let edit = |path: &Path, change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
    };
    spoilt("a beginning before time", "meta.json", |_, path| {
        edit(path, &|meta| meta["meta"]["started"] = (-5).into());
    });
    spoilt("a CPU that cannot be", "meta.json", |_, path| {
        edit(path, &|meta| meta["meta"]["topology"]["cpus"][0]["cpu"] = 70_000.into());
    });
}

#[test]
fn a_version_to_come_is_told_of() {
    let victim = Victim::new();
    for name in ["meta.json", "commit.json"] {
        let path = victim.file(name);
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        value["schema"] = 4_000_000_000_u32.into();
        fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
    }
    let line = judge("a version to come", &victim.run(&["report"]), &victim.trace()).unwrap();
    assert!(line.contains("newer schedtrace") && line.contains("update"), "{line}");
}

#[test]
fn what_is_only_strange_is_read() {
    let victim = Victim::new();
    let path = victim.file("meta.json");
    let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    meta["meta"]["host"]["hostname"] = "x".repeat(1 << 20).into();
    fs::write(&path, serde_json::to_vec(&meta).unwrap()).unwrap();
    judge("a host name of a megabyte", &victim.run(&["report"]), &path);
    // Folders that lead back to themselves are nobody's business.
    symlink(victim.trace(), victim.file("events/again")).unwrap();
    judge("a folder in a circle", &victim.run(&["info"]), &path);
}
