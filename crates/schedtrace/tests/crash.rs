//! Whatever ends a recorder, what it had committed is there, can be finished, and nothing stays behind. Needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "`make kills` shows the table")]

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use schedtrace_core::trace::{TraceReader, TraceState};
use schedtrace_core::{Nanos, Poll, Source};

fn schedtrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_schedtrace"))
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn monotonic() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a subcommand on a trace; it must succeed.
fn run(what: &str, trace: &Path) -> String {
    let output = schedtrace().arg(what).arg(trace).output().unwrap();
    assert!(output.status.success(), "{what}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Switches and wakeups for as long as it lives.
struct Load(Child);

impl Load {
    fn start() -> Self {
        let script = "while :; do hackbench -p -g 1 -f 4 -l 500 >/dev/null; done";
        let mut shell = Command::new("setsid");
        Self(shell.args(["sh", "-c", script]).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // `setsid` made it the leader of a group, so that the benchmark goes with it.
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Numbers that look random and can be had again (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Everything in a folder: contents and times.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let modified = path.metadata().unwrap().modified().unwrap();
        if path.is_dir() {
            found.extend(snapshot(&path));
        }
        found.insert(path.clone(), (fs::read(&path).ok(), modified));
    }
    found
}

/// Files that only a recording in flight has.
fn left_over(dir: &Path) -> Vec<PathBuf> {
    let at_rest = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".parquet") || name == "meta.json" || name == "commit.json"
    };
    snapshot(dir).into_keys().filter(|path| path.is_file() && !at_rest(path)).collect()
}

/// How many events a trace has, and a fingerprint of all that it says, however that is cut into batches.
fn content(trace: &Path) -> (u64, u64) {
    fn print(sum: &mut u64, item: &impl std::fmt::Debug) {
        let mut hasher = DefaultHasher::new();
        format!("{item:?}").hash(&mut hasher);
        *sum = sum.wrapping_add(hasher.finish());
    }
    let mut reader = TraceReader::open(trace).unwrap();
    let (mut events, mut sum) = (0, 0);
    while let Poll::Batch(batch) = reader.poll(Instant::now()).unwrap() {
        events += (batch.events.len() + batch.late.len()) as u64;
        batch.events.iter().chain(&batch.late).for_each(|event| print(&mut sum, event));
        batch.tasks.iter().for_each(|task| print(&mut sum, task));
        batch.cgroups.iter().for_each(|cgroup| print(&mut sum, cgroup));
        batch.lost.iter().for_each(|loss| print(&mut sum, loss));
    }
    (events, sum)
}

/// How a recorder is ended, and what was found afterwards.
struct Kill {
    number: usize,
    small: bool,
    /// It was told to end so long before.
    while_ending: Option<u64>,
    /// After the recording began, or after the recorder was started.
    moment_ms: u64,
    from_start: bool,
}

const KILLS: usize = 50;

fn plan() -> Vec<Kill> {
    let seed = std::env::var("SCHEDTRACE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("SCHEDTRACE_SEED={seed} gives the same moments again");
    let mut numbers = Numbers(seed);
    let kill = |number| Kill {
        number,
        small: number % 2 == 1,
        while_ending: (number % 5 == 4).then(|| numbers.below(60)),
        moment_ms: numbers.below(1800),
        from_start: number % 10 == 0,
    };
    (1..=KILLS).map(kill).collect()
}

impl Kill {
    /// Records, kills, looks, finishes what is left; a row of the table.
    fn carry_out(&self, folder: &Path) -> String {
        let trace = folder.join("run.schedtrace");
        let limit = if self.small { &["--max-size", "2MiB"][..] } else { &[] };
        let mut recorder =
            schedtrace().args(["record", "-o"]).arg(&trace).args(limit).stderr(Stdio::null()).spawn().unwrap();
        while !self.from_start && !trace.join("meta.json").exists() {
            assert!(recorder.try_wait().unwrap().is_none(), "live tests need root: run `make test` as root");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(self.moment_ms));
        if let Some(span) = self.while_ending {
            signal(&recorder, Signal::INT);
            thread::sleep(Duration::from_millis(span));
        }
        let killed = monotonic();
        signal(&recorder, Signal::KILL);
        recorder.wait().unwrap();

        let options = if self.small { "--max-size 2MiB" } else { "" };
        let ending = self.while_ending.map(|span| format!("{span} ms after SIGINT")).unwrap_or_default();
        let row = |found: &str, events: u64, missing: String, left: usize, by: &str| {
            let moment = format!("{} ms{}", self.moment_ms, if self.from_start { " from start" } else { "" });
            format!(
                "{:>4}  {options:<15}  {moment:<18}  {ending:<18}  {found:<11}  {events:>8}  {missing:>8}  {left:>6}  {by}",
                self.number
            )
        };
        if !trace.join("meta.json").exists() {
            return row("not begun", 0, String::new(), 0, "");
        }
        let before = snapshot(&trace);
        let info = TraceReader::open(&trace).unwrap().info().unwrap();
        let (events, fingerprint) = content(&trace);
        run("info", &trace);
        run("report", &trace);
        assert!(snapshot(&trace) == before, "kill {}: a reader changed something", self.number);
        assert_eq!(info.completeness.events, events, "kill {}: what is counted is there", self.number);
        if info.state == TraceState::Finished {
            return row("finished", events, String::new(), 0, "");
        }
        assert_eq!(info.state, TraceState::Interrupted);
        let missing = killed - info.window.until_ns;
        // A recording that was told to end collects nothing more.
        let bound = Nanos(1_000_000_000);
        assert!(missing <= bound, "kill {}: the last {missing} are missing", self.number);

        let left = left_over(&trace).iter().filter(|path| path.extension().is_some_and(|e| e == "arrows")).count();
        let by_record = self.number % 4 < 2;
        if by_record {
            let next = schedtrace().args(["record", "-d", "20ms", "-o"]).arg(folder.join("next.schedtrace")).output();
            let next = next.unwrap();
            assert!(next.status.success() && stderr(&next).contains("run.schedtrace: repaired"), "{}", stderr(&next));
        } else {
            assert!(run("repair", &trace).contains("repaired"));
        }
        let info = TraceReader::open(&trace).unwrap().info().unwrap();
        assert_eq!(info.state, TraceState::Repaired);
        assert_eq!(content(&trace), (events, fingerprint), "kill {}: the same stream as before", self.number);
        assert_eq!(left_over(&trace), [] as [PathBuf; 0]);
        let by = if by_record { "next record" } else { "repair" };
        row("interrupted", events, format!("{} ms", missing.0 / 1_000_000), left, by)
    }
}

#[test]
fn live_kills_at_any_moment_leave_a_trace_that_opens() {
    let _load = Load::start();
    let plan = plan();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(kill) = plan.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let folder = tempfile::tempdir().unwrap();
                    let row = kill.carry_out(folder.path());
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((kill.number, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort();
    println!(
        "KILL  OPTIONS          MOMENT              WHILE ENDING        FOUND          EVENTS   MISSING  TABLES  FINISHED BY\n{}",
        rows.iter().map(|(_, row)| format!("{row}\n")).collect::<String>()
    );
    let found = |what: &str| rows.iter().filter(|(_, row)| row.contains(what)).count();
    println!("{} interrupted, {} finished, {} not begun", found("interrupted"), found("finished"), found("not begun"));
    assert!(found("interrupted") > KILLS / 2, "most of them were killed while they recorded");
}

/// Starts `record` in a folder; returns once it records.
fn recording(trace: &Path) -> Child {
    let mut recorder = schedtrace().args(["record", "-o"]).arg(trace).stderr(Stdio::piped()).spawn().unwrap();
    while !trace.join("meta.json").exists() {
        assert!(recorder.try_wait().unwrap().is_none(), "live tests need root: run `make test` as root");
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(700));
    recorder
}

/// It ends by itself, with status 1, and one line that says why.
fn ends_with_a_line(recorder: Child) -> String {
    let output = recorder.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("schedtrace: ") && said.trim_end().lines().count() == 1, "one line: {said}");
    said
}

#[test]
fn live_a_recording_that_goes_on_is_finished_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("run.schedtrace");
    let recorder = recording(&trace);
    let refused = schedtrace().arg("repair").arg(&trace).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("is being recorded into"), "{}", stderr(&refused));
    let beside = schedtrace().args(["record", "-d", "20ms", "-o"]).arg(folder.path().join("other.schedtrace")).output();
    assert!(!stderr(&beside.unwrap()).contains("run.schedtrace"));
    assert!(run("info", &trace).contains("still being recorded"));
    signal(&recorder, Signal::INT);
    assert!(recorder.wait_with_output().unwrap().status.success());
    assert!(run("info", &trace).contains("complete: "));
    assert!(run("repair", &trace).contains("nothing to repair"));
}

#[test]
fn live_a_folder_that_was_interrupted_is_finished_and_not_recorded_into() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("run.schedtrace");
    let mut recorder = recording(&trace);
    signal(&recorder, Signal::KILL);
    recorder.wait().unwrap();
    let before = content(&trace);
    let again = schedtrace().args(["record", "-d", "1s", "-o"]).arg(&trace).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let said = stderr(&again);
    assert!(said.contains("run.schedtrace: repaired") && said.contains("choose another directory"), "{said}");
    assert_eq!(content(&trace), before);
}

#[test]
fn live_a_folder_that_is_removed_ends_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    for removed in ["run.schedtrace", ""] {
        let parent = folder.path().join("parent");
        fs::create_dir_all(&parent).unwrap();
        let trace = parent.join("run.schedtrace");
        let recorder = recording(&trace);
        let _ = fs::remove_dir_all(parent.join(removed));
        let said = ends_with_a_line(recorder);
        assert!(said.contains("run.schedtrace") && said.contains("No such file or directory"), "{said}");
        assert!(!trace.exists(), "what was removed does not come back");
    }
}

#[test]
fn live_a_file_system_that_turns_read_only_ends_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status().expect("mkfs.ext4 of e2fsprogs");
    assert!(made.success());
    // The kernel refuses a plain `remount,ro` while files are open for writing. `abort` makes the file system do what it
    // does after an error on its device: turn read-only at once. The mount is in a namespace of its own.
    let script = r#"
        mount -o loop "$1/image" "$1/mnt" || exit 99
        "$0" record -o "$1/mnt/run.schedtrace" & recorder=$!
        while [ ! -e "$1/mnt/run.schedtrace/meta.json" ]; do sleep 0.02; done
        sleep 1.5
        mount -o remount,abort "$1/mnt"
        wait $recorder; code=$?
        cp -r "$1/mnt/run.schedtrace" "$1/copy.schedtrace" || exit 98
        exit $code"#;
    fs::create_dir(folder.path().join("mnt")).unwrap();
    let output = Command::new("timeout")
        .args(["60", "unshare", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_schedtrace")])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said.lines().find(|line| line.starts_with("schedtrace: ")).unwrap_or_default();
    assert!(line.contains("Read-only file system") && line.contains("run.schedtrace"), "{said}");
    let copy = folder.path().join("copy.schedtrace");
    assert!(content(&copy).0 > 0, "what was committed is there");
    assert!(run("info", &copy).contains("interrupted"));
}

#[test]
fn live_a_recorder_that_nobody_listens_to_records_on() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("run.schedtrace");
    let mut recorder = recording(&trace);
    // Whoever read its messages is gone.
    drop(recorder.stderr.take());
    signal(&recorder, Signal::INT);
    assert!(recorder.wait().unwrap().success());
    assert!(run("info", &trace).contains("complete: "));
}
