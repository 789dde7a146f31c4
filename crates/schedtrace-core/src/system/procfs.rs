//! Processes as procfs shows them, with the ids of the PID namespace in which it is mounted.

use std::io;
use std::path::Path;

use super::read_text;
use crate::error::{Error, Result};
use crate::event::Nanos;

/// The unit of times in `/proc/PID/stat`: the kernel tells user space 100 ticks per second on every architecture that
/// Rust supports (`USER_HZ`), whatever its own rate.
pub(crate) const TICK: Nanos = Nanos(10_000_000);

/// The id of the process to which a process or thread id belongs.
///
/// ```
/// use schedtrace_core::system::procfs;
/// let me = std::process::id();
/// assert_eq!(procfs::tgid("/proc".as_ref(), me)?, me);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] if there is no such process or thread, [`Error::Io`] if procfs (`/proc`) cannot be read.
pub fn tgid(proc: &Path, id: u32) -> Result<u32> {
    status(proc, id).map(|(tgid, _)| tgid)
}

/// Checks that an id is that of a process, as somebody means who asks for `--pid`.
///
/// ```
/// use schedtrace_core::system::procfs;
/// procfs::check_process("/proc".as_ref(), std::process::id())?;
/// assert!(procfs::check_process("/proc".as_ref(), u32::MAX).is_err());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] if there is none, or if it is the id of another thread of a process, which it then names;
/// [`Error::Io`] if procfs (`/proc`) cannot be read.
pub fn check_process(proc: &Path, pid: u32) -> Result<()> {
    match status(proc, pid)? {
        (tgid, _) if tgid == pid => Ok(()),
        (tgid, name) => Err(Error::Invalid(format!(
            "{pid} is the id of a thread (`{name}`), not of a process: use {tgid}, the process it belongs to"
        ))),
    }
}

/// The id of the process, and the name of the thread.
fn status(proc: &Path, id: u32) -> Result<(u32, String)> {
    let path = proc.join(id.to_string()).join("status");
    let text = read_text(&path).map_err(|error| missing(proc, id, error))?;
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // The kernel escapes white space in names, but not every control character.
    let name = field("Name:").unwrap_or_default().chars().filter(|c| !c.is_control()).take(64).collect();
    match field("Tgid:").and_then(|tgid| tgid.parse().ok()) {
        Some(tgid) => Ok((tgid, name)),
        None => Err(Error::Io {
            what: "cannot find the thread group id in",
            path,
            source: io::Error::from(io::ErrorKind::InvalidData),
        }),
    }
}

fn missing(proc: &Path, id: u32, error: io::Error) -> Error {
    // A process that ends while its file is open gives ESRCH, which std does not name.
    const ESRCH: i32 = 3;
    let gone = error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH);
    match gone && proc.join("self").exists() {
        true => Error::Invalid(format!("no process has the id {id}: it may have ended; `ps -e` lists those that run")),
        false => Error::io("cannot read", proc.join(id.to_string()))(error),
    }
}

/// The time that a process has had a CPU, in user space and in the kernel, all its threads together: what a recorder
/// tells of its own cost.
///
/// To the nanosecond for threads that live (`schedstat`), to 20 ms if some have ended (`stat`).
///
/// ```
/// use schedtrace_core::system::procfs;
/// let before = procfs::cpu_time("/proc".as_ref(), std::process::id())?;
/// let after = procfs::cpu_time("/proc".as_ref(), std::process::id())?;
/// assert!(after >= before);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] if there is no such process, [`Error::Io`] if its `stat` says nothing of time.
pub fn cpu_time(proc: &Path, pid: u32) -> Result<Nanos> {
    let folder = proc.join(pid.to_string());
    let path = folder.join("stat");
    let stat = read_text(&path).map_err(|error| missing(proc, pid, error))?;
    let Some(ended_too) = stat_time(&stat) else {
        let source = io::Error::from(io::ErrorKind::InvalidData);
        return Err(Error::Io { what: "cannot find the CPU time in", path, source });
    };
    // A thread may end meanwhile, and a kernel may be built without schedstat.
    let threads = std::fs::read_dir(folder.join("task")).into_iter().flatten().flatten();
    let living = threads.filter_map(|thread| {
        let text = read_text(&thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok().map(Nanos)
    });
    Ok(living.fold(Nanos::ZERO, |sum, time| sum + time).max(ended_too))
}

/// `utime` and `stime` of a `stat` line: the 12th and 13th field behind the name, which may hold anything.
fn stat_time(stat: &str) -> Option<Nanos> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let ticks = times.next()??.saturating_add(times.next()??);
    Some(Nanos(ticks.saturating_mul(TICK.0)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;

    fn proc() -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        write(proc.path(), "self/status", "");
        write(proc.path(), "42/status", "Name:\tserver\nUmask:\t0022\nTgid:\t42\nPid:\t42\n");
        write(proc.path(), "43/status", "Name:\tworker \u{1b}[1m\nTgid:\t42\nPid:\t43\n");
        write(proc.path(), "44/status", "Name:\tTgid:\nNgid:\t0\n");
        proc
    }

    #[test]
    fn a_thread_names_its_process() {
        let proc = proc();
        assert_eq!(tgid(proc.path(), 43).unwrap(), 42);
        assert!(check_process(proc.path(), 42).is_ok());
        let error = check_process(proc.path(), 43).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)));
        assert_eq!(
            error.to_string(),
            "43 is the id of a thread (`worker [1m`), not of a process: use 42, the process it belongs to"
        );
    }

    #[test]
    fn who_is_not_there_is_told_from_what_cannot_be_read() {
        let proc = proc();
        let error = check_process(proc.path(), 7).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains("no process has the id 7"));
        assert!(matches!(tgid(proc.path(), 44), Err(Error::Io { .. })), "no Tgid line");
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(tgid(empty.path(), 7), Err(Error::Io { .. })), "no procfs");
        assert!(matches!(cpu_time(proc.path(), 7), Err(Error::Invalid(_))));
    }

    #[test]
    fn times_of_threads_that_live_and_that_ended_count() {
        let proc = proc();
        let stat = |ticks| format!("42 (a) b (c)) S 1 42 42 0 -1 4194304 102 0 0 0 {ticks} 2 7 8 20 0 2 0 104766\n");
        write(proc.path(), "42/stat", &stat(1));
        assert_eq!(cpu_time(proc.path(), 42).unwrap(), Nanos(30_000_000), "without schedstat");
        write(proc.path(), "42/task/42/schedstat", "30000001 129451 2\n");
        write(proc.path(), "42/task/43/schedstat", "5000000 0 1\n");
        write(proc.path(), "42/task/44/schedstat", "");
        assert_eq!(cpu_time(proc.path(), 42).unwrap(), Nanos(35_000_001));
        write(proc.path(), "42/stat", &stat(100));
        assert_eq!(cpu_time(proc.path(), 42).unwrap(), Nanos(1_020_000_000), "a thread has ended");
        for bad in ["", "42 (a", "42 (a) S 1 2", "42 (a) S 1 42 42 0 -1 4194304 102 0 0 0 x 2"] {
            write(proc.path(), "42/stat", bad);
            assert!(matches!(cpu_time(proc.path(), 42), Err(Error::Io { .. })), "{bad}");
        }
        write(proc.path(), "42/stat", &format!("42 (a) S 1 42 42 0 -1 1 1 0 0 0 {0} {0} 1", u64::MAX));
        assert_eq!(cpu_time(proc.path(), 42).unwrap(), Nanos::MAX);
    }

    #[test]
    fn this_process_is_found() {
        let (proc, pid) = (Path::new("/proc"), std::process::id());
        assert!(check_process(proc, pid).is_ok());
        // A test runs on a thread of its own, whose id the link names.
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        let tid: u32 = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!(tgid(proc, tid).unwrap(), pid);
        assert_eq!(check_process(proc, tid).is_ok(), tid == pid);
        assert!(cpu_time(proc, pid).unwrap() > Nanos::ZERO);
    }
}
