//! What the server answers from.

use std::path::{Path, PathBuf};
#[cfg(feature = "live")]
use std::sync::Arc;
#[cfg(feature = "live")]
use std::sync::OnceLock;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::Settings;
#[cfg(feature = "live")]
use crate::collect::Collections;
use crate::rate::CallRate;
use crate::traces::Allowed;

/// What tools and resources stand on: which traces may be read, and what is being collected.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) traces: Allowed,
    #[cfg(feature = "live")]
    pub(crate) collections: Arc<Collections>,
    /// How often it may be asked, if that is limited.
    rate: Option<Mutex<CallRate>>,
    /// The client will ask no more: what is collected ends, and what was asked is still answered.
    pub(crate) gone: CancellationToken,
    /// The server is to end now.
    pub(crate) stop: CancellationToken,
    /// The signal that ended the server.
    #[cfg(feature = "live")]
    pub(crate) signal: OnceLock<&'static str>,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            traces: Allowed::new(&settings),
            #[cfg(feature = "live")]
            collections: Arc::new(Collections::new(&settings)),
            rate: settings.calls_per_second.map(|rate| Mutex::new(CallRate::new(rate, Instant::now()))),
            gone: CancellationToken::new(),
            stop: CancellationToken::new(),
            #[cfg(feature = "live")]
            signal: OnceLock::new(),
            settings,
        }
    }

    /// Counts a call; says when to ask again where there were too many.
    pub(crate) fn take_call(&self) -> Result<(), String> {
        let Some(rate) = &self.rate else { return Ok(()) };
        // Whoever panicked while it held this left a count that holds.
        let taken = rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        taken.map_err(|wait| {
            let most = self.settings.calls_per_second.unwrap_or_default();
            let wait = wait.as_secs_f64().max(0.001);
            format!("there were more than {most} calls in a second, which is what this server allows: ask again in {wait:.3} s")
        })
    }

    /// Whether it may collect from the running kernel.
    pub(crate) fn collects(&self) -> bool {
        self.settings.collect && cfg!(feature = "live")
    }

    /// The folder of the trace that was asked for: a name that `list_traces` told, a handle, or a path. Without a name, what is
    /// or was collected comes first.
    pub(crate) fn find(&self, named: Option<&Path>) -> Result<PathBuf, String> {
        #[cfg(feature = "live")]
        if let Some(trace) = self.collections.trace(named) {
            return Ok(trace);
        }
        self.traces.find(named)
    }
}
