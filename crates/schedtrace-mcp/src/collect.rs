//! Collecting from the running kernel, when the server was started for it: into a trace of limited size and time, which
//! the other tools read as any other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use schedtrace_core::live::Collector;
use schedtrace_core::trace::WriterOptions;
use schedtrace_core::{Error, Recorder, Result};

/// The trace may take so much room; the oldest part goes first.
const MAX_BYTES: u64 = 256 << 20;

/// One collection: the programs are loaded while it is on, and its trace is there as long as it is.
#[derive(Debug)]
pub(crate) struct Collection {
    /// None once it has ended.
    recorder: Option<Recorder>,
    ended: std::result::Result<u64, String>,
    folder: tempfile::TempDir,
}

impl Collection {
    /// Loads the programs, and records these processes, or all, for so long at most.
    pub(crate) fn start(pids: &[u32], limit: Duration) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("schedtrace-mcp-").tempdir();
        let folder = folder.map_err(Error::io("cannot create a folder in", std::env::temp_dir()))?;
        let builder = pids.iter().fold(Collector::builder().duration(limit), |builder, &pid| builder.pid(pid));
        let options = WriterOptions { max_bytes: Some(MAX_BYTES), ..WriterOptions::default() };
        let recorder = Recorder::start(builder, trace_in(&folder), options)?;
        Ok(Self { recorder: Some(recorder), ended: Ok(0), folder })
    }

    /// What is read while it goes on, and afterwards.
    pub(crate) fn trace(&self) -> PathBuf {
        trace_in(&self.folder)
    }

    pub(crate) fn owns(&self, path: &Path) -> bool {
        path.starts_with(self.folder.path())
    }

    /// How much longer the programs are loaded, if they are.
    pub(crate) fn left(&mut self) -> Option<Duration> {
        if self.recorder.as_ref().is_some_and(Recorder::is_finished) {
            // How it ended is told when somebody asks for its end.
            let _ = self.stop();
        }
        let ends = self.recorder.as_ref()?.ends()?;
        Some(ends.saturating_duration_since(Instant::now()))
    }

    /// Detaches and unloads the programs; how many events there are, or what went wrong.
    pub(crate) fn stop(&mut self) -> std::result::Result<u64, String> {
        if let Some(recorder) = self.recorder.take() {
            let summary = recorder.stop().map_err(|why| why.to_string());
            self.ended = summary.map(|summary| summary.total_events());
        }
        self.ended.clone()
    }
}

fn trace_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("live.schedtrace")
}
