//! Recording from Python: without the interpreter's lock, and with Ctrl-C.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use schedtrace_core::live::Collector;
use schedtrace_core::trace::WriterOptions;
use schedtrace_core::{Kinds, UnknownKind};

use crate::error::to_python;
use crate::native::to_json;

/// How often it is looked whether somebody pressed Ctrl-C.
const TICK: Duration = Duration::from_millis(50);

/// A recording that goes on until it is stopped, dropped, or the time is over.
#[pyclass(frozen)]
pub(crate) struct Recorder(Mutex<Option<schedtrace_core::Recorder>>);

impl Recorder {
    fn recorder(&self) -> MutexGuard<'_, Option<schedtrace_core::Recorder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Recorder {
    #[new]
    #[pyo3(signature = (path, duration, pids, events, ring_bytes, max_bytes))]
    fn start(
        py: Python<'_>,
        path: PathBuf,
        duration: Option<Duration>,
        pids: Vec<u32>,
        events: Vec<String>,
        ring_bytes: usize,
        max_bytes: Option<u64>,
    ) -> PyResult<Self> {
        let mut builder =
            pids.iter().fold(Collector::builder().ring_bytes(ring_bytes), |builder, &pid| builder.pid(pid));
        for name in &events {
            let kinds: Kinds = name.parse().map_err(|error: UnknownKind| PyValueError::new_err(error.to_string()))?;
            builder = builder.kinds(&kinds);
        }
        if let Some(duration) = duration {
            builder = builder.duration(duration);
        }
        let options = WriterOptions { max_bytes, ..WriterOptions::default() };
        let started = py.detach(|| schedtrace_core::Recorder::start(builder, path, options));
        Ok(Self(Mutex::new(Some(started.map_err(to_python)?))))
    }

    /// Waits for so long, or until the recording ends by itself; whether it has ended. Ctrl-C raises KeyboardInterrupt, and
    /// the recording goes on.
    fn wait(&self, py: Python<'_>, at_most: Option<Duration>) -> PyResult<bool> {
        let until = at_most.and_then(|at_most| Instant::now().checked_add(at_most));
        loop {
            if self.recorder().as_ref().is_none_or(schedtrace_core::Recorder::is_finished) {
                return Ok(true);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
            py.check_signals()?;
            py.detach(|| std::thread::sleep(TICK));
        }
    }

    /// Ends the recording, and says as JSON what there was.
    fn stop(&self, py: Python<'_>) -> PyResult<String> {
        let recorder = self.recorder().take();
        let recorder = recorder.ok_or_else(|| PyRuntimeError::new_err("the recording was stopped already"))?;
        let summary = py.detach(|| recorder.stop()).map_err(to_python)?;
        let lost = summary.lost_total;
        to_json(&serde_json::json!({ "events": summary.total_events(), "lost": lost }))
    }
}
