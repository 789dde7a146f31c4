//! The server as a process, spoken to line by line.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// In which way the protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// `initialize`, as of 2025-06-18.
    Session,
    /// Stateless, as of 2026-07-28.
    Stateless,
}

/// A server, and the client that speaks to it.
pub(crate) struct Client {
    pub(crate) server: Child,
    era: Era,
    stdin: Option<ChildStdin>,
    messages: Receiver<Value>,
    asked: u64,
    /// What came without being an answer that was waited for.
    pub(crate) notifications: Vec<Value>,
    answers: Vec<Value>,
}

impl Client {
    pub(crate) fn start(era: Era, arguments: &[&str]) -> Self {
        Self::start_with(era, &mut command(arguments))
    }

    pub(crate) fn start_with(era: Era, command: &mut Command) -> Self {
        let mut server = command.spawn().unwrap();
        let stdin = server.stdin.take();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let (send, messages) = sync_channel(100_000);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).unwrap());
            }
        });
        let mut client =
            Self { server, era, stdin, messages, asked: 0, notifications: Vec::new(), answers: Vec::new() };
        if era == Era::Session {
            assert!(client.call("initialize", hello())["result"].is_object());
            client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        }
        client
    }

    pub(crate) fn send(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    /// Asks, and does not wait for the answer.
    pub(crate) fn ask(&mut self, method: &str, mut params: Value) -> u64 {
        if self.era == Era::Stateless {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        self.asked += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.asked, "method": method, "params": params }));
        self.asked
    }

    pub(crate) fn answer(&mut self, id: u64) -> Value {
        loop {
            if let Some(at) = self.answers.iter().position(|answer| answer["id"] == id) {
                return self.answers.swap_remove(at);
            }
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|why| panic!("answer {id}: {why}"));
            let to = if message["id"].is_null() { &mut self.notifications } else { &mut self.answers };
            to.push(message);
        }
    }

    /// Whether this was answered before something that was waited for.
    pub(crate) fn is_answered(&self, id: u64) -> bool {
        self.answers.iter().any(|answer| answer["id"] == id)
    }

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        self.answer(id)
    }

    /// What a tool answers that is to succeed.
    pub(crate) fn tool(&mut self, name: &str, arguments: Value) -> Value {
        let answer = self.call("tools/call", json!({ "name": name, "arguments": arguments }));
        assert_eq!(answer["result"]["isError"], false, "{answer}");
        answer["result"]["structuredContent"].clone()
    }

    /// What a tool says that is to fail.
    pub(crate) fn refusal(&mut self, name: &str, arguments: Value) -> String {
        let answer = self.call("tools/call", json!({ "name": name, "arguments": arguments }));
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// What stands in a resource.
    pub(crate) fn text(&mut self, uri: &str) -> String {
        let answer = self.call("resources/read", json!({ "uri": uri }));
        answer["result"]["contents"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// The lines of a resource.
    pub(crate) fn lines(&mut self, uri: &str) -> Vec<Value> {
        self.text(uri).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Subscribes, as the era does; what ends it.
    pub(crate) fn subscribe(&mut self, uri: &str) -> u64 {
        if self.era == Era::Session {
            let answer = self.call("resources/subscribe", json!({ "uri": uri }));
            assert!(answer["result"].is_object(), "{answer}");
            return 0;
        }
        let id = self.ask("subscriptions/listen", json!({ "notifications": { "resourceSubscriptions": [uri] } }));
        let accepted = self.notification("notifications/subscriptions/acknowledged");
        assert_eq!(accepted["params"]["notifications"]["resourceSubscriptions"], json!([uri]), "{accepted}");
        id
    }

    pub(crate) fn unsubscribe(&mut self, uri: &str, id: u64) {
        if self.era == Era::Session {
            let answer = self.call("resources/unsubscribe", json!({ "uri": uri }));
            assert!(answer["result"].is_object(), "{answer}");
        } else {
            self.cancel(id);
        }
    }

    pub(crate) fn cancel(&mut self, id: u64) {
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } }));
    }

    /// The next notification of this kind.
    pub(crate) fn notification(&mut self, method: &str) -> Value {
        loop {
            if let Some(at) = self.notifications.iter().position(|message| message["method"] == method) {
                return self.notifications.remove(at);
            }
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|why| panic!("{method}: {why}"));
            let to = if message["id"].is_null() { &mut self.notifications } else { &mut self.answers };
            to.push(message);
        }
    }

    /// Goes away, and waits for the server to do so.
    pub(crate) fn leave(mut self) -> ExitStatus {
        self.stdin = None;
        wait(&mut self.server)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub(crate) fn hello() -> Value {
    json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } })
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = if std::env::var_os("SCHEDTRACE_VM").is_some() {
        // There, the command is at hand, and what cargo built is far away.
        let mut command = Command::new("/run/out/schedtrace");
        command.arg("mcp");
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_schedtrace-mcp"))
    };
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Waits for a process that ends.
pub(crate) fn wait(server: &mut Child) -> ExitStatus {
    let mut ended = None;
    eventually("the server ends", || {
        ended = server.try_wait().unwrap();
        ended.is_some()
    });
    ended.unwrap()
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "it does not come to this: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The BPF programs and links that a process holds, by their numbers.
pub(crate) fn held(pid: u32) -> BTreeSet<String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let info = fds.filter_map(|fd| std::fs::read_to_string(fd.path()).ok());
    let numbers = info.filter_map(|info| {
        let number = info.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
        Some(number.trim().to_owned())
    });
    numbers.collect()
}

/// Those of these programs that the kernel still has, whoever holds them.
pub(crate) fn loaded(programs: &BTreeSet<String>) -> Vec<String> {
    let all = Command::new("bpftool").args(["-j", "prog", "show"]).output().expect("bpftool is installed");
    let all: Value = serde_json::from_slice(&all.stdout).unwrap();
    let all: BTreeSet<_> = all.as_array().unwrap().iter().map(|program| program["id"].to_string()).collect();
    programs.iter().filter(|id| all.contains(*id)).cloned().collect()
}

/// The lines of an audit log.
pub(crate) fn audited(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every beginning in an audit log has one end.
pub(crate) fn assert_complete(audit: &[Value]) {
    let of = |action: &str| {
        let of = audit.iter().filter(|line| line["action"] == action);
        let mut of: Vec<_> = of.map(|line| format!("{} {}", line["what"], line["id"])).collect();
        of.sort();
        of
    };
    assert_eq!(of("start"), of("end"));
    assert!(!of("start").is_empty());
}

/// Memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
