//! `schedtrace top` on a terminal, which `script` (util-linux) makes.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

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
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hackbench.schedtrace");
    let screen = top(fixture.to_str().unwrap(), Duration::from_millis(500));
    assert!(screen.contains("rcu_preempt[18]"), "{screen:?}");
}

#[cfg(feature = "live")]
#[test]
fn live_the_running_machine_is_shown() {
    let screen = top("--interval 200ms", Duration::from_secs(3));
    // Between words there are movements of the cursor.
    assert!(screen.contains("  live") && screen.contains("LONGEST BEHIND"), "{screen:?}");
}

#[test]
fn without_a_terminal_it_says_where_to_turn() {
    let output = Command::new(env!("CARGO_BIN_EXE_schedtrace")).args(["top", "x"]).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("there is no terminal") && told.contains("schedtrace report"), "{told}");
}
