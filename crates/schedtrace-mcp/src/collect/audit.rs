//! The audit log: what was collected, for whom, and what came of it. One line of JSON for each beginning and each end.
//!
//! A beginning is written down before any program is loaded, and if it cannot be, nothing is.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::teller::Teller;
use crate::call::Client;

/// How long the last lines on standard error may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Writes lines to a file, if there is one, and short ones to standard error, for which nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    path: Option<PathBuf>,
    /// Lines do not mix.
    writing: Mutex<()>,
    teller: Teller,
}

/// What is written of a beginning and of its end.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `collection`, `recording` or `subscription`.
    pub(crate) what: &'static str,
    pub(crate) id: String,
    pub(crate) client: Client,
    /// What was asked for, and what it is held to.
    pub(crate) asked: Value,
}

impl Audit {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    /// Something is about to begin.
    pub(crate) fn begin(&self, entry: &Entry) -> Result<(), String> {
        let mut more = Map::new();
        more.insert("asked".into(), entry.asked.clone());
        self.write(entry, "start", more)
    }

    /// It is over: how, and what there is of it. What cannot be written any more is told on standard error.
    pub(crate) fn end(&self, entry: &Entry, outcome: &str, told: &Value) {
        let mut more = Map::new();
        more.insert("outcome".into(), outcome.into());
        more.extend(told.as_object().cloned().unwrap_or_default());
        if let Err(why) = self.write(entry, "end", more) {
            self.teller.say(&why);
        }
    }

    /// Makes sure that lines can be written, where they are to be.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.append(b"")
    }

    /// Gives the last lines on standard error some time to be written.
    pub(crate) fn flush(&self) {
        self.teller.flush(LAST_LINES);
    }

    fn write(&self, entry: &Entry, action: &str, more: Map<String, Value>) -> Result<(), String> {
        let client = json!({ "name": entry.client.name, "version": entry.client.version });
        let head = json!({
            "time": jiff::Timestamp::now().to_string(),
            "action": action,
            "what": entry.what,
            "id": entry.id,
            "client": client,
        });
        let mut line = head.as_object().cloned().unwrap_or_default();
        line.extend(more);
        let rest = if action == "start" { entry.asked.to_string() } else { line["outcome"].to_string() };
        let short = format!("audit: {action} {} {}: {rest}", entry.what, entry.id);
        self.append(format!("{}\n", Value::Object(line)).as_bytes())?;
        self.teller.say(&short);
        Ok(())
    }

    fn append(&self, line: &[u8]) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let _turn = self.writing.lock();
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(line)).map_err(|error| {
            format!("the audit log {} cannot be written, so nothing is collected: {error}; start the server with an --audit \
                file that it may write", path.display())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry() -> Entry {
        let client = Client { name: "a \u{1b}[2J\n{\"b\"".into(), version: "1".into() };
        Entry { what: "recording", id: "rec-1".into(), client, asked: json!({ "pids": [7], "duration_s": 5 }) }
    }

    #[test]
    fn every_beginning_and_end_is_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::new(Some(path.clone()));
        audit.begin(&entry()).unwrap();
        audit.end(&entry(), "stopped", &json!({ "events": 3, "lost": 0 }));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "a name cannot end a line: {text}");
        assert_eq!((&lines[0]["action"], &lines[0]["asked"]["pids"]), (&json!("start"), &json!([7])));
        assert_eq!((&lines[1]["outcome"], &lines[1]["events"]), (&json!("stopped"), &json!(3)));
        assert!(lines.iter().all(|line| line["id"] == "rec-1" && line["client"]["version"] == "1"));
        assert!(lines[0]["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::new(Some(folder.path().join("none/audit.jsonl")));
        assert!(audit.check().is_err());
        let why = audit.begin(&entry()).unwrap_err();
        assert!(why.contains("nothing is collected") && why.contains("--audit"), "{why}");
        assert!(Audit::default().begin(&entry()).is_ok(), "standard error is enough where no file was asked for");
    }
}
