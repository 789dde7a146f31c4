//! The one error type: each variant is one line that says what failed, why, and what to do.

use std::path::{Path, PathBuf};

/// What went wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process may not load BPF programs.
    #[error(
        "cannot load the BPF programs: {why}; recording needs CAP_BPF and CAP_PERFMON: run with sudo, or `setcap cap_bpf,cap_perfmon+ep` on the binary"
    )]
    Privilege {
        /// What the kernel answered.
        why: String,
    },
    /// The process may not look at the BPF objects of the machine.
    #[error(
        "cannot look at the BPF objects of this machine: {why}; the kernel shows them to CAP_SYS_ADMIN alone, for which CAP_BPF is no substitute: run with sudo, or `setcap cap_sys_admin+ep` on the binary"
    )]
    NotShown {
        /// What the kernel answered.
        why: String,
    },
    /// The kernel has no BTF.
    #[error(
        "cannot record on this kernel: {path} cannot be read ({why}); a kernel built with CONFIG_DEBUG_INFO_BTF=y is needed"
    )]
    NoBtf {
        /// Where it should be.
        path: PathBuf,
        /// Why it could not be read.
        why: String,
    },
    /// The running kernel lacks an event that was asked for by name.
    #[error("cannot record `{event}`: this kernel has no such tracepoint; leave it out of the event list")]
    NoTracepoint {
        /// The tracepoint.
        event: String,
    },
    /// The kernel or libbpf refused a step.
    #[error("{step} failed: {why}")]
    Bpf {
        /// Which step, and what to try.
        step: String,
        /// What libbpf or the kernel said.
        why: String,
    },
    /// An argument that cannot be meant.
    #[error("{0}")]
    Invalid(String),
    /// A system call or file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried: "cannot create".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A path that is no trace.
    #[error("{} is not a schedtrace trace: {why}", path.display())]
    NotATrace {
        /// What was opened.
        path: PathBuf,
        /// What gave it away.
        why: String,
    },
    /// A trace of a later version.
    #[error("{} was written by a newer schedtrace (schema {found}, this one reads up to {known}): update schedtrace", path.display())]
    NewerTrace {
        /// The trace.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest this version reads.
        known: u32,
    },
    /// A file of a trace that does not say what it should.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        why: String,
    },
    /// A query that cannot be answered.
    #[error("cannot answer the query: {0}")]
    Query(String),
    /// A sink failed or panicked; the others went on.
    #[error("the {sink} sink failed: {why}")]
    Sink {
        /// Its name.
        sink: String,
        /// What it said.
        why: String,
    },
}

impl Error {
    /// An I/O error with what was tried, on which path.
    pub fn io(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// A file of a trace that cannot be trusted.
    pub fn damaged(path: impl AsRef<Path>, why: impl std::fmt::Display) -> Self {
        Self::Damaged { path: path.as_ref().to_owned(), why: why.to_string() }
    }
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
