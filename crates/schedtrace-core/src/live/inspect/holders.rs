//! Which processes hold programs open, by `/proc/PID/fdinfo`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::clean;
use crate::system::read_text;

/// So many open files are looked at, which takes a few hundred milliseconds.
const MAX_FILES: usize = 200_000;
/// So many processes are named for each program.
const MAX_HOLDERS: usize = 8;

/// A process that holds a program or a link of it open.
///
/// ```
/// use schedtrace_core::live::inspect::Holder;
/// let holder = Holder { pid: 4242, comm: "schedtrace".into() };
/// assert_eq!(serde_json::to_string(&holder)?, r#"{"pid":4242,"comm":"schedtrace"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name, as it gave it itself.
    pub comm: String,
}

/// Programs by their ids, with the processes that hold them.
#[derive(Debug, Default)]
pub(super) struct Holders {
    pub(super) by_program: BTreeMap<u32, Vec<Holder>>,
    /// Whether every process could be looked into.
    pub(super) complete: bool,
}

/// Looks for them below `proc`, in the processes that this one may look into.
pub(super) fn find(proc: &Path) -> Holders {
    let mut found = Holders { complete: true, ..Holders::default() };
    let mut files = 0;
    let Ok(processes) = fs::read_dir(proc) else { return Holders::default() };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else {
            // One that is gone holds nothing.
            found.complete &= !process.path().exists();
            continue;
        };
        let mut programs = Vec::new();
        for file in open.flatten() {
            files += 1;
            if files > MAX_FILES {
                found.complete = false;
                return found;
            }
            let is_bpf = |target: &Path| {
                target.to_str().is_some_and(|name| name.starts_with("anon_inode:") && name.contains("bpf"))
            };
            if fs::read_link(file.path()).is_ok_and(|target| is_bpf(&target)) {
                programs.extend(program_of(&process.path().join("fdinfo").join(file.file_name())));
            }
        }
        programs.sort_unstable();
        programs.dedup();
        if programs.is_empty() {
            continue;
        }
        let comm = clean(&read_text(&process.path().join("comm")).unwrap_or_default());
        for program in programs {
            let holders = found.by_program.entry(program).or_default();
            if holders.len() < MAX_HOLDERS {
                holders.push(Holder { pid, comm: comm.clone() });
            }
        }
    }
    found.by_program.values_mut().for_each(|holders| holders.sort());
    found
}

/// The program of which an open file tells: of a program or of a link.
fn program_of(fdinfo: &Path) -> Option<u32> {
    let text = read_text(fdinfo).ok()?;
    text.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::write;
    use std::os::unix::fs::symlink;

    #[test]
    fn open_programs_and_links_tell_who_holds_them() {
        let proc = tempfile::tempdir().unwrap();
        let open = |pid: u32, fd: u32, target: &str, fdinfo: &str| {
            let folder = proc.path().join(format!("{pid}/fd"));
            fs::create_dir_all(&folder).unwrap();
            symlink(target, folder.join(fd.to_string())).unwrap();
            write(proc.path(), &format!("{pid}/fdinfo/{fd}"), fdinfo);
            write(proc.path(), &format!("{pid}/comm"), "na\u{1b}me\n");
        };
        open(20, 3, "anon_inode:bpf-prog", "pos:\t0\nprog_type:\t26\nprog_id:\t7\n");
        open(20, 4, "anon_inode:bpf_link", "link_id:\t1\nprog_id:\t7\n");
        open(20, 5, "anon_inode:bpf-map", "map_id:\t1\n");
        open(10, 3, "anon_inode:bpf_link", "prog_id:\t7\n");
        open(10, 4, "/tmp/bpf", "prog_id:\t8\n");
        open(10, 5, "anon_inode:bpf-prog", "prog_id:\tmany\n");
        write(proc.path(), "sys/kernel/hostname", "box");
        let found = find(proc.path());
        assert!(found.complete);
        let name = |pid| Holder { pid, comm: "na\u{fffd}me".into() };
        assert_eq!(found.by_program, BTreeMap::from([(7, vec![name(10), name(20)])]));
        // A process without a list of its files cannot be looked into.
        write(proc.path(), "30/comm", "hidden");
        assert!(!find(proc.path()).complete);
        assert!(!find(&proc.path().join("nowhere")).complete);
    }
}
