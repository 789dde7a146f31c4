//! The last seconds of the running machine, to be asked like a trace.

use std::thread::JoinHandle;
use std::time::Duration;

use schedtrace_core::flight::{Window, WindowOptions};
use schedtrace_core::live::{Collector, Stopper};
use schedtrace_core::query::{Database, Limits};
use schedtrace_core::{Error, OnFull, Pipeline, Result};

use crate::args::CollectArgs;
use crate::privilege;

/// A window that is kept up to date.
#[derive(Debug)]
pub(super) struct Live {
    window: Window,
    stopper: Stopper,
    collecting: Option<JoinHandle<Result<()>>>,
}

impl Live {
    /// Begins to collect; privileges are given up then.
    pub(super) fn start(collect: &CollectArgs, duration: Duration, max_bytes: u64) -> Result<Self> {
        let window = Window::new(WindowOptions { duration, max_bytes })?;
        let user = privilege::invoking_user(collect.user.as_deref())?;
        let attached = collect.builder().load()?.attach()?;
        privilege::drop_all(user.as_ref())?;
        let mut collector: Collector = attached.start()?;
        let (stopper, mut sink) = (collector.stopper(), window.clone());
        let collect = move || {
            Pipeline::new().sink("window", OnFull::Block, &mut sink).run(&mut collector)?.into_result().map(drop)
        };
        let collecting = std::thread::Builder::new().name("window".into()).spawn(collect);
        let collecting = collecting.map_err(|error| Error::Invalid(format!("no thread can be started ({error})")))?;
        Ok(Self { window, stopper, collecting: Some(collecting) })
    }

    /// What it holds now.
    pub(super) fn database(&self, limits: &Limits) -> Result<Database> {
        let snapshot = self.window.snapshot();
        let db = Database::of_stream("live", move || Ok(Box::new(snapshot.source())))?;
        Ok(db.with_limits(limits.clone()))
    }

    /// Ends collecting, so that all is there that was seen.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.stopper.stop();
        let ended = self.collecting.take().map(JoinHandle::join);
        ended.unwrap_or(Ok(Ok(()))).unwrap_or_else(|_| Err(Error::Invalid("collecting failed inside".into())))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Whoever leaves does not ask how it ended.
        let _ = self.stop();
    }
}
