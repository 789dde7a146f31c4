//! Rust's errors as Python's: the one place that maps them.

use pyo3::exceptions::{PyException, PyPermissionError, PyRuntimeError, PyValueError};
use pyo3::{PyErr, create_exception};
use schedtrace_core::Error;

create_exception!(schedtrace, TraceError, PyException, "A trace that cannot be read: the message says why.");

/// The exception for an error of the library; the message is the library's.
pub(crate) fn to_python(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::NotATrace { .. } | Error::NewerTrace { .. } | Error::Damaged { .. } => TraceError::new_err(message),
        Error::Privilege { .. } | Error::NotShown { .. } => PyPermissionError::new_err(message),
        Error::Invalid(_) => PyValueError::new_err(message),
        // OSError's subclass goes by the kind: FileNotFoundError, PermissionError.
        Error::Io { source, .. } => std::io::Error::new(source.kind(), message).into(),
        _ => PyRuntimeError::new_err(message),
    }
}
