//! Who needs which power for how long: the recorder gives all of it up once it records, and reading needs none. Needs
//! root, and `setcap` (libcap2-bin).
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A user that every Debian has, with a group of its own number.
const NOBODY: u32 = 65_534;

/// A folder that belongs to nobody, with a copy of the command that everybody may run.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        // Not below /tmp if that is a tmpfs without capabilities of files.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let place = Self { dir };
        fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_schedtrace"), place.binary()).unwrap();
        fs::create_dir(place.home()).unwrap();
        chown(place.home(), Some(NOBODY), Some(NOBODY)).unwrap();
        place
    }

    fn binary(&self) -> PathBuf {
        self.dir.path().join("schedtrace")
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The command, run where nobody may write.
    fn command(&self) -> Command {
        let mut command = Command::new(self.binary());
        command.current_dir(self.home()).env_remove("SUDO_UID").env_remove("PKEXEC_UID").env_remove("DOAS_USER");
        command
    }

    fn as_nobody(&self) -> Command {
        let mut command = self.command();
        command.uid(NOBODY).gid(NOBODY);
        command
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Starts a recording and waits until it goes on.
fn start(mut command: Command, trace: &Path) -> Child {
    let mut child = command.args(["record", "-o"]).arg(trace).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !trace.join("commit.json").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no recording begins");
        assert_eq!(child.try_wait().unwrap(), None, "the recorder ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(100));
    child
}

fn stop(child: Child) -> Output {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    output
}

/// The fields of `/proc/PID/task/*/status` that tell of power, thread by thread.
fn powers(pid: u32) -> Vec<(String, Vec<String>)> {
    const FIELDS: [&str; 7] = ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapAmb"];
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |thread: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        (field("Name"), FIELDS.map(field).to_vec())
    };
    threads.map(of).collect()
}

/// Whether all threads, of which there are several by now, are this user and can do nothing else.
fn assert_powerless(pid: u32, id: u32, groups: &str) {
    let ids = vec![id.to_string(); 4].join(" ");
    let none = "0000000000000000";
    let threads = powers(pid);
    assert!(threads.len() >= 4, "all threads are there: {threads:?}");
    for (name, powers) in threads {
        assert_eq!(powers, [ids.as_str(), &ids, groups, none, none, none, none], "{name}");
    }
}

/// Everything of a trace belongs to this user.
fn assert_owned(path: &Path, id: u32) {
    let metadata = path.symlink_metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (id, id), "{}", path.display());
    if metadata.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| assert_owned(&entry.unwrap().path(), id));
    }
}

fn assert_complete(place: &Place, trace: &Path) {
    let output = place.as_nobody().arg("info").arg(trace).arg("--json").output().unwrap();
    let info: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!((&info["state"], &info["completeness"]["complete"]), (&"finished".into(), &true.into()), "{info}");
    assert!(info["completeness"]["events"].as_u64().unwrap() > 0);
    // The kernel still told, at the end, what became of every event.
    let accounts = info["accounts"].as_array().unwrap();
    assert!(accounts.iter().any(|account| account["emitted"].as_u64() > Some(0)), "{info}");
    for account in accounts {
        assert_eq!(account["emitted"], account["delivered"], "{account}");
    }
    // That runs were skipped would be seen, too.
    let meta: Value = serde_json::from_slice(&fs::read(trace.join("meta.json")).unwrap()).unwrap();
    let probes = meta["meta"]["probes"].as_array().unwrap();
    assert!(probes.iter().all(|probe| !probe["why"].as_str().unwrap_or_default().contains("skipped")), "{probes:?}");
}

#[test]
fn live_who_called_sudo_gets_the_trace_and_the_recorder_is_that_user() {
    let place = Place::new();
    let trace = place.home().join("run.schedtrace");
    let mut sudo = place.command();
    sudo.env("SUDO_UID", NOBODY.to_string());
    let child = start(sudo, &trace);
    assert_powerless(child.id(), NOBODY, &NOBODY.to_string());
    stop(child);
    assert_owned(&trace, NOBODY);
    assert_complete(&place, &trace);
}

#[test]
fn live_root_keeps_its_name_and_gives_its_capabilities_up() {
    let place = Place::new();
    let trace = place.dir.path().join("run.schedtrace");
    let child = start(place.command(), &trace);
    let groups = fs::read_to_string("/proc/self/status").unwrap();
    let groups = groups.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap().trim();
    assert_powerless(child.id(), 0, groups);
    stop(child);
    assert_owned(&trace, 0);
    assert_complete(&place, &trace);
}

#[test]
fn live_file_capabilities_are_enough_and_are_given_up() {
    let place = Place::new();
    let status = Command::new("setcap").arg("cap_bpf,cap_perfmon+ep").arg(place.binary()).status();
    assert!(status.expect("setcap is needed (libcap2-bin)").success());
    let trace = place.home().join("run.schedtrace");
    let child = start(place.as_nobody(), &trace);
    assert_powerless(child.id(), NOBODY, "");
    stop(child);
    assert_owned(&trace, NOBODY);
    assert_complete(&place, &trace);
    let doctor = place.as_nobody().arg("doctor").output().unwrap();
    assert!(doctor.status.success() && text(&doctor).contains("CAP_PERFMON, CAP_BPF"), "{}", text(&doctor));
}

#[test]
fn live_commands_run_as_the_user_too() {
    let place = Place::new();
    let id = |more: &[&str]| {
        let mut command = place.command();
        command.env("SUDO_UID", NOBODY.to_string()).arg("record").args(more).args(["--", "id", "-u"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(id(&["-o", "by-nobody.schedtrace"]), NOBODY.to_string());
    assert_eq!(id(&["-o", "by-root.schedtrace", "--user", "root"]), "0");
}

#[test]
fn live_where_the_user_may_not_write_the_trace_is_roots() {
    let place = Place::new();
    let trace = place.dir.path().join("run.schedtrace");
    let record = |more: &[&str]| {
        let mut command = place.command();
        command.env("SUDO_UID", NOBODY.to_string()).args(["record", "-d", "100ms", "-o"]).arg(&trace).args(more);
        command.output().unwrap()
    };
    let refused = record(&["--user", "nobody"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("nobody cannot create") && !trace.exists(), "{}", text(&refused));
    let output = record(&[]);
    assert!(output.status.success() && text(&output).contains("will belong to root"), "{}", text(&output));
    assert_owned(&trace, 0);
    assert_complete(&place, &trace);
}

#[test]
fn live_reading_needs_no_power() {
    let place = Place::new();
    let trace = place.dir.path().join("run.schedtrace");
    let output = place.command().args(["record", "-d", "100ms", "-o"]).arg(&trace).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    for what in [&["report"][..], &["info"], &["export", "--to", "perfetto"], &["export", "--to", "csv"]] {
        let output = place.as_nobody().args(what).arg(&trace).output().unwrap();
        assert!(output.status.success(), "{what:?}: {}", text(&output));
    }
    let doctor = place.as_nobody().arg("doctor").output().unwrap();
    assert_eq!(doctor.status.code(), Some(1));
    let told = text(&doctor);
    for part in ["neither CAP_BPF nor CAP_PERFMON", "sudo", "setcap", "does not work here"] {
        assert!(told.contains(part), "`{part}` in {told}");
    }
}

#[test]
fn live_the_doctor_says_what_record_does() {
    let place = Place::new();
    let output = place.command().args(["doctor", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["can_record"], true);
    let on: Vec<_> = told["probes"].as_array().unwrap().iter().filter(|probe| probe["on"] == true).collect();
    let trace = place.dir.path().join("run.schedtrace");
    assert!(
        place.command().args(["record", "--events", "all", "-d", "50ms", "-o"]).arg(&trace).status().unwrap().success()
    );
    let meta: Value = serde_json::from_slice(&fs::read(trace.join("meta.json")).unwrap()).unwrap();
    let recorded = meta["meta"]["probes"].as_array().unwrap();
    assert_eq!(on, recorded.iter().filter(|probe| probe["on"] == true).collect::<Vec<_>>());
}
