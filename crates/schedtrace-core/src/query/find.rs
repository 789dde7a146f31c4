//! Which traces are meant: paths, folders of traces, and patterns.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A pattern that matches more is not meant.
const MAX_TRACES: usize = 10_000;

/// The traces that some paths and patterns mean: a trace itself, all traces in a folder, or whatever a pattern like
/// `host=*/*.schedtrace` matches. Sorted, each once.
///
/// # Errors
///
/// [`Error::NotATrace`] if a path is none and has none in it; [`Error::Invalid`] if a pattern matches nothing or cannot be
/// understood; [`Error::Io`] if a folder cannot be read.
///
/// ```
/// use schedtrace_core::query;
/// let error = query::find(["no/such/*.schedtrace"]).unwrap_err();
/// assert_eq!(error.to_string(), "no trace matches `no/such/*.schedtrace`");
/// ```
pub fn find(what: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for what in what {
        let what = what.as_ref();
        let path = Path::new(what);
        if path.symlink_metadata().is_ok() || !what.contains(['*', '?', '[']) {
            found.extend(in_path(path)?);
            continue;
        }
        let pattern = glob::glob(what).map_err(|error| Error::Invalid(format!("`{what}` is no pattern: {error}")))?;
        let before = found.len();
        for path in pattern.take(MAX_TRACES) {
            let path = path.map_err(|error| {
                let path = error.path().to_owned();
                Error::io("cannot read", path)(error.into())
            })?;
            if path.is_dir() {
                found.extend(in_path(&path).unwrap_or_default());
            }
        }
        if found.len() == before {
            return Err(Error::Invalid(format!("no trace matches `{what}`")));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// A trace, or all traces in a folder.
fn in_path(path: &Path) -> Result<Vec<PathBuf>> {
    let is_trace = |path: &Path| path.join("meta.json").exists();
    if is_trace(path) || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut traces = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io("cannot read", path))? {
        let entry = entry.map_err(Error::io("cannot read", path))?.path();
        if is_trace(&entry) {
            traces.push(entry);
        }
    }
    if traces.is_empty() {
        return Err(Error::NotATrace {
            path: path.to_owned(),
            why: "it has no meta.json, and no trace is in it".into(),
        });
    }
    Ok(traces)
}
