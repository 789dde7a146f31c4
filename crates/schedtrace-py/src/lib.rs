//! The Python module `schedtrace`: opens a trace and gives its reports as plain dicts. `schedtrace.pyi` is its face.

mod error;

use pyo3::prelude::*;

/// Explains what the Linux scheduler did: reads schedtrace traces.
#[pymodule]
mod schedtrace {
    use std::path::PathBuf;

    use pyo3::prelude::*;
    use schedtrace_core::analysis::{self, GroupBy, Options, Sched};
    use schedtrace_core::trace::TraceReader;
    use serde::Serialize;

    use crate::error::to_python;

    #[pymodule_export]
    use crate::error::TraceError;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name that Python uses")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// A trace on disk. It is read anew for each question, so that one that is being recorded grows.
    #[pyclass(frozen)]
    struct Trace {
        path: PathBuf,
    }

    /// Opens a trace: the directory that `schedtrace record -o` wrote.
    #[pyfunction]
    fn open(path: PathBuf) -> PyResult<Trace> {
        TraceReader::open(&path).map_err(to_python)?;
        Ok(Trace { path })
    }

    #[pymethods]
    impl Trace {
        /// What is in the trace, and how complete it is.
        fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
            let info = py.detach(|| TraceReader::open(&self.path)?.info()).map_err(to_python)?;
            to_dict(py, &info)
        }

        /// Why tasks waited, who held the CPUs meanwhile, and what else the scheduler did.
        #[pyo3(signature = (*, by = "task", top = 20))]
        fn report<'py>(&self, py: Python<'py>, by: &str, top: usize) -> PyResult<Bound<'py, PyAny>> {
            let by: GroupBy = by.parse().map_err(|unknown: analysis::UnknownGrouping| to_python(unknown.into()))?;
            let study = Sched::new(Options { by, top, ..Options::default() });
            let report = py.detach(|| analysis::run(&mut TraceReader::open(&self.path)?, study)).map_err(to_python)?;
            to_dict(py, &report)
        }

        fn __repr__(&self) -> String {
            format!("<schedtrace.Trace {:?}>", self.path)
        }
    }

    /// Dicts, lists, strings and numbers, by way of JSON: Python's own parser is the fast way to make them.
    fn to_dict<'py>(py: Python<'py>, data: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
        let text = serde_json::to_string(data)
            .map_err(|error| pyo3::exceptions::PyRuntimeError::new_err(format!("cannot tell it as JSON: {error}")))?;
        py.import("json")?.call_method1("loads", (text,))
    }
}
