//! A cgroup with a CPU quota.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A cgroup that is removed when it goes out of scope.
#[derive(Debug)]
pub struct Quota {
    folder: PathBuf,
    /// Where threads are let in.
    tasks: &'static str,
    /// Its path in the hierarchy of version 2, if it is there.
    path: Option<String>,
}

/// Where a hierarchy of cgroups is mounted that has the CPU controller: of version 1, or of version 2.
fn mounted(version: u8) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.find_map(|line| match (version, line[..].get(1..4)?) {
        (1, [at, "cgroup", options]) if options.split(',').any(|option| option == "cpu") => Some(PathBuf::from(at)),
        (2, [at, "cgroup2", _]) => Some(PathBuf::from(at)),
        _ => None,
    })
}

impl Quota {
    /// Lets one thread of a process, the only one that wants to run, run for 20 ms of each 100 ms.
    pub fn new(name: &str, process: u32, thread: u32) -> Result<Self, String> {
        let at = |path: &Path, what: std::io::Error| format!("{}: {what}", path.display());
        let write = |path: PathBuf, text: &str| fs::write(&path, text).map_err(|error| at(&path, error));
        if let Some(root) = mounted(1) {
            let quota = Self { folder: root.join(name), tasks: "tasks", path: None };
            fs::create_dir(&quota.folder).map_err(|error| at(&quota.folder, error))?;
            write(quota.folder.join("cpu.cfs_period_us"), "100000")?;
            write(quota.folder.join("cpu.cfs_quota_us"), "20000")?;
            // As long as it may run, it does.
            write(quota.folder.join("cpu.shares"), "10240")?;
            write(quota.folder.join(quota.tasks), &thread.to_string())?;
            return Ok(quota);
        }
        let root = mounted(2).ok_or("no hierarchy of cgroups is mounted")?;
        write(root.join("cgroup.subtree_control"), "+cpu")?;
        // Of version 2, a thread alone can be moved only below its process.
        let quota = Self { folder: root.join(name), tasks: "cgroup.threads", path: Some(format!("/{name}/quota")) };
        fs::create_dir(&quota.folder).map_err(|error| at(&quota.folder, error))?;
        let inner = quota.folder.join("quota");
        write(quota.folder.join("cgroup.procs"), &process.to_string())?;
        fs::create_dir(&inner).map_err(|error| at(&inner, error))?;
        write(inner.join("cgroup.type"), "threaded")?;
        write(quota.folder.join("cgroup.subtree_control"), "+cpu")?;
        write(inner.join("cpu.max"), "20000 100000")?;
        write(inner.join("cpu.weight"), "1000")?;
        write(inner.join(quota.tasks), &thread.to_string())?;
        Ok(quota)
    }

    /// As answers name it, which know the hierarchy of version 2 alone.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // When its threads are gone; these end soon.
        for _ in 0..100 {
            let _ = fs::remove_dir(self.folder.join("quota"));
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        println!("{} could not be removed", self.folder.display());
    }
}
