//! A real terminal, which `tmux` makes: keys in, the screen read, and the terminal left as it was.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything takes that is waited for.
fn patience() -> Duration {
    // There, everything takes longer.
    let is_emulated = std::env::var_os("SCHEDTRACE_VM").is_some();
    Duration::from_secs(if is_emulated { 300 } else { 60 })
}

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) => assert!(begun.elapsed() < patience(), "{what}: in vain:\n{why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How a terminal is to be.
#[derive(Debug)]
pub(crate) struct Setup {
    size: (u16, u16),
    variables: Vec<(String, String)>,
    home: Option<PathBuf>,
}

impl Setup {
    /// With 100 columns and 30 lines.
    pub(crate) fn new() -> Self {
        Self { size: (100, 30), variables: Vec::new(), home: None }
    }

    pub(crate) fn size(mut self, columns: u16, lines: u16) -> Self {
        self.size = (columns, lines);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another home than one of its own, which is empty.
    pub(crate) fn home(mut self, home: &Path) -> Self {
        self.home = Some(home.to_owned());
        self
    }

    /// Runs a command of the shell in its home, and keeps what it leaves.
    pub(crate) fn running(self, command: &str) -> Terminal {
        let show =
            format!("stty -g >before; {command}; status=$?; stty -g >after; echo \"left with $status\"; exec cat");
        self.shell(&show)
    }

    /// A shell that controls its jobs.
    pub(crate) fn interactive(self) -> Terminal {
        self.env("PS1", "ready> ").env("ENV", "").shell("exec sh -i")
    }

    fn shell(self, command: &str) -> Terminal {
        let folder = tempfile::tempdir().unwrap();
        let home = self.home.clone().unwrap_or_else(|| folder.path().to_owned());
        let terminal = Terminal { folder, home };
        let (columns, lines) = (self.size.0.to_string(), self.size.1.to_string());
        let mut tmux = terminal.command();
        tmux.args(["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &lines, "-c"]).arg(&terminal.home);
        tmux.env("HOME", &terminal.home).env("LC_ALL", "C.UTF-8").env("COLORTERM", "truecolor").env("SHELL", "/bin/sh");
        for unset in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "NO_COLOR", "SUDO_USER", "SUDO_UID", "SUDO_GID"] {
            tmux.env_remove(unset);
        }
        tmux.envs(self.variables);
        // The server's first one ends with it.
        let ran = tmux.arg(command).args([";", "set-option", "-s", "set-clipboard", "on"]).output();
        succeeded(&tmux, ran);
        terminal
    }
}

/// What it printed.
fn succeeded(tmux: &Command, ran: std::io::Result<Output>) -> String {
    let ran = ran.unwrap_or_else(|error| {
        panic!("tmux cannot be run ({error}); these tests need it: sudo apt-get install tmux, or dnf install tmux")
    });
    assert!(ran.status.success(), "{tmux:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// A terminal with a server and a home of its own, that go with it.
#[derive(Debug)]
pub(crate) struct Terminal {
    folder: TempDir,
    home: PathBuf,
}

impl Terminal {
    /// A client of its server.
    pub(crate) fn command(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-u").arg("-S").arg(self.folder.path().join("tmux")).env_remove("TMUX");
        tmux
    }

    pub(crate) fn tmux(&self, args: &[&str]) -> String {
        let mut tmux = self.command();
        let ran = tmux.args(args).output();
        succeeded(&tmux, ran)
    }

    /// Keys by their names in tmux: `q`, `Enter`, `C-z`.
    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// A text, key by key.
    pub(crate) fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    pub(crate) fn resize(&self, columns: u16, lines: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]);
    }

    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with what gives it colours.
    pub(crate) fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until something stands on the screen.
    pub(crate) fn wait(&self, what: &str) -> String {
        self.wait_until(what, |screen| screen.contains(what))
    }

    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        eventually(what, || {
            let screen = self.screen();
            if is_so(&screen) { Ok(screen) } else { Err(screen) }
        })
    }

    /// What the terminal is like: on its other screen, told of the mouse, with a cursor.
    pub(crate) fn state(&self) -> String {
        self.tmux(&["display-message", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}"]).trim().to_owned()
    }

    pub(crate) fn wait_state(&self, wanted: &str) {
        eventually("the state of the terminal", || {
            let state = self.state();
            if state == wanted { Ok(()) } else { Err(format!("{state}, not {wanted}:\n{}", self.screen())) }
        });
    }

    /// The process that the shell of the terminal has started.
    pub(crate) fn child(&self) -> String {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        eventually("the shell has one child", || {
            // Not of every kernel: /proc/PID/task/TID/children.
            let processes =
                std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let is_child = |pid: &String| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(shell.trim())
            };
            let children: Vec<_> = processes.filter(is_child).collect();
            if let [pid] = &children[..] { Ok(pid.clone()) } else { Err(format!("{children:?}")) }
        })
    }

    pub(crate) fn kill(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child()]).status().unwrap();
        assert!(sent.success());
    }

    /// A file below the home.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.home.join(path)
    }

    pub(crate) fn text_of(&self, path: &str) -> String {
        std::fs::read_to_string(self.file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The command has ended so, and the terminal is as it was before; what is to be read on it.
    pub(crate) fn assert_left_as_it_was(&self, status: i32) -> String {
        let screen = self.wait(&format!("left with {status}"));
        let (before, after) = (self.text_of("before"), self.text_of("after"));
        assert!(before.contains(':'), "{before}");
        assert_eq!(before, after, "{screen}");
        assert_eq!(self.state(), "0 0 1", "{screen}");
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}
