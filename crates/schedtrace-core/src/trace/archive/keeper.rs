//! Removes what is beyond the limits on a thread of its own: whoever records must not wait for the disk.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::older::Older;
use super::{Disk, LeftAlone, Limits, Surroundings};
use crate::error::{Error, Result};

/// What is left after the limits were kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// What earlier runs still take.
    pub(super) older_bytes: u64,
    pub(super) disk: Disk,
    /// What could not be touched, and was not told before.
    pub(super) left_alone: Vec<LeftAlone>,
}

/// The thread, which answers each question once.
#[derive(Debug)]
pub(super) struct Keeper {
    questions: Option<Sender<u64>>,
    answers: Receiver<Result<Kept>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(folder: PathBuf, limits: Limits, surroundings: Surroundings, mut older: Older) -> Result<Self> {
        let (questions, asked) = bounded::<u64>(1);
        let (answer, answers) = bounded(1);
        let work = {
            let folder = folder.clone();
            move || {
                for need_bytes in asked {
                    let told = older.left_alone().len();
                    let kept = older.keep(&folder, &limits, &surroundings, need_bytes);
                    let kept = kept.map(|disk| Kept {
                        older_bytes: older.bytes(),
                        disk,
                        left_alone: older.left_alone().get(told..).unwrap_or_default().to_vec(),
                    });
                    if answer.send(kept).is_err() {
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("trace-keeper".into()).spawn(work);
        let thread = thread.map_err(Error::io("cannot start the thread that keeps the limits of", folder))?;
        Ok(Self { questions: Some(questions), answers, thread: Some(thread) })
    }

    /// Has the limits kept, with this many bytes for the present run. Each question is answered: no other may be asked
    /// before.
    pub(super) fn ask(&self, need_bytes: u64) -> Result<()> {
        let sent = self.questions.as_ref().map(|questions| questions.send(need_bytes));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(died()) }
    }

    /// The answer, if it is there.
    pub(super) fn answer(&self) -> Result<Option<Kept>> {
        self.answers.try_recv().ok().transpose()
    }

    /// Waits for the answer.
    pub(super) fn wait(&self) -> Result<Kept> {
        self.answers.recv().map_err(|_| died())?
    }
}

fn died() -> Error {
    Error::Sink { sink: "trace".into(), why: "the thread that keeps the limits ended early".into() }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            // Whoever asked was told that there is no answer.
            let _ = thread.join();
        }
    }
}
