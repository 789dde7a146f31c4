//! Brings what was written to the disk, on a thread of its own: a disk that stalls for seconds must not hold up the
//! recorder, or the rings overflow behind it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::commit::{Commit, sync_folder};
use super::schema::Table;
use crate::error::{Error, Result};

/// What is to survive a power cut, and the record that says so once it does.
#[derive(Debug)]
pub(super) struct Job {
    /// Everything that `commit` counts is in these files, in Parquet files, or was brought to the disk before.
    pub(super) files: Vec<Arc<File>>,
    /// Files were created or removed since the last job.
    pub(super) folders: bool,
    pub(super) commit: Commit,
}

/// The thread that waits for the disk.
#[derive(Debug)]
pub(super) struct Syncer {
    jobs: Option<Sender<Box<Job>>>,
    failed: Receiver<Error>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(dir: PathBuf) -> Result<Self> {
        // A job is taken when the thread has nothing else to do, or not at all: the next one holds all that it held.
        let (jobs, next) = bounded::<Box<Job>>(0);
        let (report, failed) = bounded(1);
        let work = {
            let dir = dir.clone();
            move || {
                for job in next {
                    if let Err(error) = sync(&dir, &job) {
                        let _ = report.send(error);
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("trace-sync".into()).spawn(work);
        let thread = thread.map_err(Error::io("cannot start the thread that syncs", dir))?;
        Ok(Self { jobs: Some(jobs), failed, thread: Some(thread) })
    }

    /// Whether the thread took the job.
    ///
    /// # Errors
    ///
    /// That of an earlier job.
    pub(super) fn offer(&self, job: Job) -> Result<bool> {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(Box::new(job))) {
            Some(Ok(())) => Ok(true),
            Some(Err(TrySendError::Full(_))) | None => Ok(false),
            Some(Err(TrySendError::Disconnected(_))) => Err(self.error()),
        }
    }

    /// Waits until the last job is done.
    ///
    /// # Errors
    ///
    /// Its error, or that of an earlier job.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.jobs = None;
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        match self.failed.try_recv() {
            Ok(error) => Err(error),
            Err(_) if panicked => Err(self.error()),
            Err(_) => Ok(()),
        }
    }

    fn error(&self) -> Error {
        let died = || Error::Sink { sink: "trace".into(), why: "the thread that syncs ended early".into() };
        self.failed.try_recv().unwrap_or_else(|_| died())
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

fn sync(dir: &Path, job: &Job) -> Result<()> {
    job.files.iter().try_for_each(|file| file.sync_data()).map_err(Error::io("cannot sync the files of", dir))?;
    if job.folders {
        let folders = Table::ALL.into_iter().map(|table| dir.join(table.folder()));
        folders.filter(|folder| folder.exists()).try_for_each(|folder| sync_folder(&folder))?;
    }
    job.commit.write_durable(dir).map(drop)
}
