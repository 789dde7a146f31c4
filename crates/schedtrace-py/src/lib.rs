//! The native part of the Python module `schedtrace`: opens traces, records them, and gives reports as JSON and tables
//! as Arrow streams. `python/schedtrace/` is its face, `_native.pyi` says what is here.

mod error;

use pyo3::prelude::*;

#[pymodule]
#[pyo3(name = "_native")]
mod native {
    use std::path::PathBuf;

    use arrow::array::RecordBatchReader;
    use arrow::datatypes::SchemaRef;
    use arrow::error::ArrowError;
    use arrow::ffi_stream::FFI_ArrowArrayStream;
    use arrow::record_batch::RecordBatch;
    use pyo3::prelude::*;
    use pyo3::types::PyCapsule;
    use schedtrace_core::analysis::{self, GroupBy, Options, Sched};
    use schedtrace_core::trace::{TableReader, TraceReader};
    use serde::Serialize;

    use crate::error::to_python;

    #[pymodule_export]
    use crate::error::TraceError;

    #[cfg(feature = "live")]
    #[pymodule_export]
    use crate::recorder::Recorder;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name that Python uses")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// A trace on disk. It is read anew for each question, so that one that is being recorded grows.
    #[pyclass(frozen)]
    struct Trace {
        path: PathBuf,
    }

    #[pymethods]
    impl Trace {
        #[new]
        fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
            py.detach(|| TraceReader::open(&path)).map_err(to_python)?;
            Ok(Self { path })
        }

        fn info(&self, py: Python<'_>) -> PyResult<String> {
            to_json(&py.detach(|| TraceReader::open(&self.path)?.info()).map_err(to_python)?)
        }

        fn report(&self, py: Python<'_>, by: &str, top: usize, include_recorder: bool) -> PyResult<String> {
            let by: GroupBy = by.parse().map_err(|unknown: analysis::UnknownGrouping| to_python(unknown.into()))?;
            let study = Sched::new(Options { by, top, include_recorder, ..Options::default() });
            let report = py.detach(|| analysis::run(&mut TraceReader::open(&self.path)?, study)).map_err(to_python)?;
            to_json(&report)
        }

        /// A capsule of an Arrow stream, by the Arrow PyCapsule interface: nothing is copied, nothing is read before it is
        /// asked for.
        fn stream<'py>(&self, py: Python<'py>, table: &str) -> PyResult<Bound<'py, PyCapsule>> {
            let rows = TraceReader::open(&self.path).and_then(|trace| trace.table(table)).map_err(to_python)?;
            let stream = FFI_ArrowArrayStream::new(Box::new(Rows(rows)));
            PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
        }
    }

    /// The rows of a table as Arrow's own interface wants them.
    struct Rows(TableReader);

    impl Iterator for Rows {
        type Item = Result<RecordBatch, ArrowError>;

        fn next(&mut self) -> Option<Self::Item> {
            Some(self.0.next()?.map_err(|why| ArrowError::ExternalError(Box::new(why))))
        }
    }

    impl RecordBatchReader for Rows {
        fn schema(&self) -> SchemaRef {
            self.0.schema()
        }
    }

    pub(crate) fn to_json(data: &impl Serialize) -> PyResult<String> {
        serde_json::to_string(data)
            .map_err(|error| pyo3::exceptions::PyRuntimeError::new_err(format!("cannot tell it as JSON: {error}")))
    }
}

#[cfg(feature = "live")]
mod recorder;
