//! `schedtrace top` on a terminal, which `script` (util-linux) makes.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hackbench.schedtrace")
}

/// The command without a terminal, with a home of its own.
fn without_a_terminal(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schedtrace"));
    command.stdin(Stdio::null()).env("HOME", home).env("LC_ALL", "C.UTF-8");
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").arg("top");
    command
}

/// What a terminal of 100 columns shows until, after a while, `q` is typed.
fn top(arguments: &str, after: Duration) -> String {
    let top = format!("stty cols 100 rows 30; {} top {arguments}", env!("CARGO_BIN_EXE_schedtrace"));
    let mut script = Command::new("script");
    script.args(["-qec", &top, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().expect("script, of util-linux");
    let mut keys = script.stdin.take().unwrap();
    let typed = thread::spawn(move || {
        thread::sleep(after);
        keys.write_all(b"q").unwrap();
        keys
    });
    let output = script.wait_with_output().unwrap();
    drop(typed.join().unwrap());
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{screen:?}");
    screen
}

#[test]
fn a_trace_is_shown() {
    let screen = top(fixture().to_str().unwrap(), Duration::from_millis(500));
    assert!(screen.contains("rcu_preempt[18]"), "{screen:?}");
}

#[cfg(feature = "live")]
#[test]
fn live_the_running_machine_is_shown() {
    let screen = top("--interval 200ms", Duration::from_secs(3));
    // Between words there are movements of the cursor.
    assert!(screen.contains("live") && screen.contains("BEHIND"), "{screen:?}");
}

#[test]
fn without_a_terminal_it_says_where_to_turn() {
    let output = Command::new(env!("CARGO_BIN_EXE_schedtrace")).args(["top", "x"]).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("there is no terminal") && told.contains("schedtrace report"), "{told}");
}

#[test]
fn a_screen_is_printed_for_scripts() {
    let home = tempfile::tempdir().unwrap();
    let print = |options: &[&str]| {
        let output = without_a_terminal(home.path()).arg(fixture()).arg("--once").args(options).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let screen = print(&["--view", "tasks", "--width", "100", "--height", "20"]);
    assert!(screen.contains("rcu_preempt[18]") && screen.contains("WAKEUPS"), "{screen}");
    assert_eq!(screen.lines().count(), 20);
    assert!(screen.lines().all(|line| line.chars().count() <= 100), "{screen}");
    assert!(print(&["--ascii"]).is_ascii());
    assert_eq!(home.path().read_dir().unwrap().count(), 0, "nothing is remembered of it");
}

#[test]
fn a_wrong_configuration_is_told_with_its_line() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/schedtrace");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), "theme = \"light\"\nintervall = \"1s\"\n").unwrap();
    let output = without_a_terminal(home.path()).arg(fixture()).arg("--once").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("config.toml, line 2") && told.contains("`interval`"), "{told}");
}

/// A user that every Debian has.
const NOBODY: u32 = 65_534;

/// What the command prints once for a user without any privilege, who has a home.
fn once_as_nobody(arguments: &[&str]) -> String {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;

    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // Where it was built, not everybody may look.
    let (binary, trace) = (home.path().join("schedtrace"), home.path().join("run.schedtrace"));
    std::fs::copy(env!("CARGO_BIN_EXE_schedtrace"), &binary).unwrap();
    let copied = Command::new("cp").arg("-r").args([&fixture(), &trace]).status().unwrap();
    assert!(copied.success());
    let mut command = Command::new(binary);
    command.stdin(Stdio::null()).current_dir(home.path()).env("HOME", home.path()).env("LC_ALL", "C.UTF-8");
    for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "SUDO_UID", "PKEXEC_UID", "DOAS_USER"] {
        command.env_remove(variable);
    }
    let size = ["top", "--once", "--width", "120", "--height", "40"];
    let output = command.args(size).args(arguments).uid(NOBODY).gid(NOBODY).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(told, "");
    let screen = String::from_utf8(output.stdout).unwrap();
    assert_eq!(screen.lines().count(), 40, "{screen}");
    screen
}

#[test]
fn live_whoever_may_not_record_sees_a_trace_and_what_procfs_says() {
    let screen = once_as_nobody(&["run.schedtrace"]);
    assert!(screen.contains("rcu_preempt[18]") && screen.contains("no event is known to be missing"), "{screen}");
    // Live: the figures that everybody may read, and that there is more.
    let overview = once_as_nobody(&["--view", "overview"]);
    assert!(overview.contains("without events"), "{overview}");
    assert!(overview.contains("% busy") || overview.contains("CPU"), "{overview}");
    let tasks = once_as_nobody(&["--view", "tasks"]);
    assert!(tasks.contains("without events") && tasks.contains("schedtrace["), "{tasks}");
    // A view that needs events says why there are none, and what to do.
    let timeline = once_as_nobody(&["--view", "timeline"]);
    for part in ["without events", "CAP_BPF", "sudo"] {
        assert!(timeline.contains(part), "no `{part}`: {timeline}");
    }
}
