//! `meta.json` and `commit.json`: what a trace says of itself, and how far it can be trusted while it is written.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::info::Removed;
use super::segment::Span;
use super::untrusted;
use crate::error::{Error, Result};
use crate::event::{LossCount, Nanos};
use crate::source::Meta;

/// The version of the layout and of the tables.
pub(super) const SCHEMA: u32 = 2;
/// The setting of the recording.
pub(super) const META: &str = "meta.json";
/// How far the recording has come, as whoever looks on the running machine may see it: also after the recorder was killed.
pub(super) const COMMIT: &str = "commit.json";
/// How far it has come on the disk: what is left after a power cut.
pub(super) const DURABLE: &str = "durable.json";
/// Held by the writer while it records.
pub(super) const LOCK: &str = "lock";

/// The largest document that is read, in bytes; a topology of 10,000 CPUs takes 1 MiB.
const MAX_DOCUMENT: u64 = 16 << 20;
/// The most segments in flight that a commit may name: the newest, and those that wait to be sealed.
const MAX_IN_FLIGHT: usize = 64;

/// `meta.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MetaFile {
    /// The version of the layout.
    pub(super) schema: u32,
    /// What wrote it.
    pub(super) writer: String,
    /// The setting.
    pub(super) meta: Meta,
    /// What was recorded and what is missing: complete once the recording is finished.
    #[serde(default)]
    pub(super) totals: Totals,
}

/// `commit.json`, replaced at every commit, and `durable.json`, replaced when all that it counts is on the disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Commit {
    /// The version of the layout.
    pub(super) schema: u32,
    /// Since which start of the machine it is written: what is written and not synced is there until the next.
    #[serde(default)]
    pub(super) boot_id: Option<String>,
    /// Whether more is to come.
    pub(super) state: CommitState,
    /// All tables are complete up to this time, exclusively.
    pub(super) complete_until_ns: Nanos,
    /// The oldest segment; what is older was removed.
    pub(super) first_seq: u32,
    /// The segments that are not known to be at rest.
    pub(super) segments: Vec<InFlight>,
    /// What was recorded and what is missing.
    pub(super) totals: Totals,
}

/// How much can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// All that was written.
    Written,
    /// What was on the disk when the machine went down, or is on a copy made elsewhere.
    Durable,
}

/// Which start of the machine this is (`random(4)`); none where the kernel does not say.
pub(super) fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CommitState {
    #[default]
    Recording,
    Finished,
    /// It was interrupted, and what had been committed was brought to rest afterwards.
    Repaired,
}

/// A segment in flight: how much of each table is committed, by the table's name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct InFlight {
    pub(super) seq: u32,
    #[serde(flatten)]
    pub(super) span: Span,
    pub(super) tables: BTreeMap<String, Extent>,
}

/// How much of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extent {
    pub(super) bytes: u64,
    pub(super) rows: u64,
}

/// What was recorded and what is missing, over the whole recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Totals {
    /// Rows written per table, with those that were removed later, without identities that were repeated.
    pub(super) rows: BTreeMap<String, u64>,
    /// Events that came behind the watermark; they are stored.
    pub(super) late: u64,
    /// Events known to be missing, per place and kind.
    pub(super) lost: Vec<LossCount>,
    /// What was removed to keep the limits.
    pub(super) removed: Removed,
}

impl MetaFile {
    /// Reads a trace's `meta.json`.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let not = |why: String| Error::NotATrace { path: dir.to_owned(), why };
        let bytes = match untrusted::read_small(&dir.join(META), MAX_DOCUMENT) {
            Ok(Some(bytes)) => bytes,
            Ok(None) if !dir.exists() => return Err(not("there is no such directory".into())),
            Ok(None) => return Err(not(format!("it has no {META}"))),
            // A plain file, of which nothing can be inside.
            Err(Error::Io { .. }) if dir.is_file() => return Err(not("it is no directory".into())),
            Err(e) => return Err(e),
        };
        let head: Head = serde_json::from_slice(&bytes)
            .map_err(|e| not(format!("its {META} names no schema version ({})", one_line(&e))))?;
        if head.schema > SCHEMA {
            return Err(Error::NewerTrace { path: dir.to_owned(), found: head.schema, known: SCHEMA });
        }
        document(&bytes).map_err(|e| not(format!("its {META} cannot be read ({})", one_line(&e))))
    }

    /// Writes it so that a reader finds the old one or the new one, and nothing between; returns its size in bytes.
    pub(super) fn write(&self, dir: &Path) -> Result<u64> {
        write(dir, META, serde_json::to_vec_pretty(self))
    }
}

impl Commit {
    /// Reads how far a trace has come: what was written, as long as it cannot have been lost, and otherwise what is known
    /// to be on the disk. The second tells which it is.
    pub(super) fn read(dir: &Path) -> Result<(Self, Known)> {
        let written = Self::read_file(dir, COMMIT);
        match &written {
            // It is synced, as all that it counts.
            Ok(Some(commit)) if commit.state != CommitState::Recording => return Ok((commit.clone(), Known::Written)),
            Ok(Some(commit)) if commit.boot_id.is_some() && commit.boot_id == boot_id() => {
                return Ok((commit.clone(), Known::Written));
            }
            _ => {}
        }
        if let Some(durable) = Self::read_file(dir, DURABLE)? {
            return Ok((durable, Known::Durable));
        }
        // It may have been finished just now.
        let commit = match written {
            Err(e) => return Self::read_file(dir, COMMIT)?.map(|commit| (commit, Known::Written)).ok_or(e),
            Ok(_) => Self::read_file(dir, COMMIT)?,
        };
        let missing = || Error::NotATrace { path: dir.to_owned(), why: format!("it has no {COMMIT}") };
        commit.map(|commit| (commit, Known::Written)).ok_or_else(missing)
    }

    /// A reader that is held up between opening and reading a record may find it half-written, since the two take turns
    /// ([`exchange`]): then it looks again.
    fn read_file(dir: &Path, name: &str) -> Result<Option<Self>> {
        let again = |error| match error {
            Error::Damaged { .. } => Self::read_file_once(dir, name),
            error => Err(error),
        };
        Self::read_file_once(dir, name).or_else(again).or_else(again)
    }

    fn read_file_once(dir: &Path, name: &str) -> Result<Option<Self>> {
        let path = dir.join(name);
        let Some(bytes) = untrusted::read_small(&path, MAX_DOCUMENT)? else { return Ok(None) };
        let commit: Self = document(&bytes).map_err(|e| Error::damaged(&path, one_line(&e)))?;
        if commit.segments.len() > MAX_IN_FLIGHT {
            return Err(Error::damaged(&path, "names too many segments in flight"));
        }
        Ok(Some(commit))
    }

    /// Writes it so that a reader finds the old one or the new one, and nothing between; returns the size in bytes of
    /// both, which stay there. A power cut may take it.
    pub(super) fn write(&self, dir: &Path) -> Result<u64> {
        exchange(dir, COMMIT, serde_json::to_vec(self))
    }

    /// The same, but it is on the disk afterwards: the end of a recording.
    pub(super) fn write_last(&self, dir: &Path) -> Result<u64> {
        write(dir, COMMIT, serde_json::to_vec(self))
    }

    /// Writes the record of what is on the disk.
    pub(super) fn write_durable(&self, dir: &Path) -> Result<u64> {
        write(dir, DURABLE, serde_json::to_vec(self))
    }

    /// What it says of a segment.
    pub(super) fn segment(&self, seq: u32) -> Option<&InFlight> {
        self.segments.iter().find(|segment| segment.seq == seq)
    }
}

/// Reads a document of a trace. Its texts (host, paths, places) come from strangers and end on terminals, so control
/// characters are replaced here, once.
fn document<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    fn clean(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) if text.contains(char::is_control) => {
                *text = text.replace(char::is_control, "?");
            }
            serde_json::Value::Array(values) => values.iter_mut().for_each(clean),
            serde_json::Value::Object(members) => members.values_mut().for_each(clean),
            _ => {}
        }
    }
    let mut value: serde_json::Value = serde_json::from_slice(bytes)?;
    clean(&mut value);
    serde_json::from_value(value)
}

/// The message of serde may quote the document.
fn one_line(error: &serde_json::Error) -> String {
    untrusted::one_line(&error.to_string())
}

/// Removes from a finished trace what only a recording has: its lock, its second record, and documents half-written.
pub(super) fn remove_what_only_recorders_have(dir: &Path) -> Result<()> {
    let documents = [META, COMMIT, DURABLE].map(temporary);
    // The lock last: until then nobody else takes it for finished.
    for name in documents.iter().map(String::as_str).chain([DURABLE, LOCK]) {
        remove(&dir.join(name))?;
    }
    Ok(())
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("cannot remove", path)(e)),
        _ => Ok(()),
    }
}

/// What a file is called until it takes the place of the one before.
pub(super) fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

fn write(dir: &Path, name: &str, document: serde_json::Result<Vec<u8>>) -> Result<u64> {
    let path = dir.join(name);
    let bytes = document.map_err(|e| Error::io("cannot write", &path)(e.into()))?;
    let tmp = dir.join(temporary(name));
    let mut file = File::create(&tmp).map_err(Error::io("cannot create", &tmp))?;
    file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(Error::io("cannot write", &tmp))?;
    std::fs::rename(&tmp, &path).map_err(Error::io("cannot replace", &path))?;
    sync_folder(dir)?;
    Ok(bytes.len() as u64)
}

/// The same without waiting for the disk, not even for the blocks of the old document to be given back, which a file
/// system that is mounted with `discard` waits for: the two change places, and the old one's are used again.
fn exchange(dir: &Path, name: &str, document: serde_json::Result<Vec<u8>>) -> Result<u64> {
    let (path, tmp) = (dir.join(name), dir.join(temporary(name)));
    let mut bytes = document.map_err(|e| Error::io("cannot write", &path)(e.into()))?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&tmp);
    let mut file = file.map_err(Error::io("cannot create", &tmp))?;
    // Space behind a document is part of JSON: nothing has to be cut off.
    let there = file.metadata().map_err(Error::io("cannot read", &tmp))?.len();
    bytes.resize(bytes.len().max(there.min(MAX_DOCUMENT) as usize), b' ');
    file.write_all(&bytes).map_err(Error::io("cannot write", &tmp))?;
    match renameat_with(CWD, &tmp, CWD, &path, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // Some file systems cannot do that, as those of a network.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::rename(&tmp, &path).map_err(Error::io("cannot replace", &path))?;
        }
        Err(e) => return Err(Error::io("cannot replace", &path)(e.into())),
    }
    Ok(2 * bytes.len() as u64)
}

/// Makes what was created, renamed or removed in a folder survive a power cut.
pub(super) fn sync_folder(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(Error::io("cannot sync", dir))
}
