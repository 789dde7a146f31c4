//! The cgroup v2 hierarchy: paths to ids, and ids to paths.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::read_up_to;
use crate::error::{Error, Result};
use crate::event::{Cgroup, CgroupId};

/// A machine with many containers has thousands of mounts.
const MAX_MOUNTINFO: u64 = 16 * 1024 * 1024;

/// The cgroup v2 hierarchy of a machine, wherever it is mounted.
///
/// A cgroup's id is the inode number of its directory. Names are remembered after their directory is gone, since events
/// may still speak of them.
///
/// ```no_run
/// use std::path::Path;
/// use schedtrace_core::system::Cgroups;
///
/// let cgroups = Cgroups::find(Path::new("/"))?;
/// let slice = cgroups.resolve("/system.slice")?;
/// assert_eq!(cgroups.resolve("/sys/fs/cgroup/system.slice")?, slice);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Cgroups {
    /// The folder that takes the place of `/`.
    root: PathBuf,
    /// Where the hierarchy is mounted, as the machine sees it.
    mount: PathBuf,
    /// Where the hierarchies of version 1 are.
    v1: Vec<PathBuf>,
    names: HashMap<CgroupId, Arc<str>>,
    scanned: Option<Instant>,
}

impl Cgroups {
    /// How deep [`scan`](Self::scan) goes.
    pub const MAX_DEPTH: usize = 64;
    /// How many cgroups [`scan`](Self::scan) returns at the most.
    pub const MAX_CGROUPS: usize = 65_536;
    /// The least time between two scans for an id that is not known.
    pub const RESCAN_AFTER: Duration = Duration::from_millis(500);

    /// Finds the hierarchy in `proc/self/mountinfo` below `root` (`/`). Where version 1 is in use too, it is often
    /// mounted at `/sys/fs/cgroup/unified`.
    ///
    /// # Errors
    /// [`Error::Io`] if the mounts cannot be read, [`Error::Invalid`] if the hierarchy is not mounted.
    pub fn find(root: &Path) -> Result<Self> {
        let path = root.join("proc/self/mountinfo");
        let text = read_up_to(&path, MAX_MOUNTINFO).map_err(Error::io("cannot read the mounts from", &path))?;
        let mounts: Vec<Mount> = text.lines().filter_map(Mount::parse).collect();
        // A mount of the whole hierarchy, rather than one of a part of it somewhere else.
        let v2 = |mount: &&Mount| mount.kind == "cgroup2";
        let mount = mounts.iter().filter(v2).find(|mount| mount.whole).or_else(|| mounts.iter().find(v2));
        let Some(mount) = mount else {
            return Err(Error::Invalid(
                "the cgroup v2 hierarchy is not mounted: `mount -t cgroup2 none /sys/fs/cgroup/unified` mounts it"
                    .to_owned(),
            ));
        };
        let v1 = mounts.iter().filter(|mount| mount.kind == "cgroup").map(|mount| mount.at.clone()).collect();
        Ok(Self { root: root.to_owned(), mount: mount.at.clone(), v1, names: HashMap::new(), scanned: None })
    }

    /// Where the hierarchy is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The cgroup that somebody names by a path in the file system (`/sys/fs/cgroup/system.slice`) or below the mount
    /// (`/system.slice`, `system.slice`).
    ///
    /// # Errors
    /// [`Error::Invalid`], with what to name instead, if there is no such cgroup, if the path is one of version 1 or
    /// outside of the hierarchy, or if it holds `..`.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<Cgroup> {
        let path = path.as_ref();
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(Error::Invalid(format!("the cgroup path {} holds `..`: write it without", path.display())));
        }
        let mount = self.mount.display();
        // Mounts may lie inside each other: the innermost one is meant.
        let depth = |mount: &PathBuf| path.starts_with(mount).then(|| mount.components().count());
        if self.v1.iter().filter_map(depth).max() > depth(&self.mount) {
            return Err(Error::Invalid(format!(
                "{} is a cgroup of version 1: tasks are recorded with that of version 2, so name one below {mount}",
                path.display()
            )));
        }
        let below = path.strip_prefix(&self.mount).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
        let directory = self.directory().join(below);
        match fs::symlink_metadata(&directory) {
            Ok(metadata) if metadata.is_dir() => Ok(Cgroup { id: CgroupId(metadata.ino()), path: v2_path(below) }),
            Ok(_) => {
                Err(Error::Invalid(format!("{} is no cgroup: name a directory below {mount}", directory.display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Invalid(format!(
                "no cgroup of version 2 is called {}: name a directory below {mount}",
                path.display()
            ))),
            Err(error) => Err(Error::io("cannot read the cgroup", directory)(error)),
        }
    }

    /// The whole tree, by path: down to [`MAX_DEPTH`](Self::MAX_DEPTH), and up to
    /// [`MAX_CGROUPS`](Self::MAX_CGROUPS), those nearest to the root first. Links are not followed; what goes away
    /// meanwhile, or may not be read, is left out.
    #[must_use]
    pub fn scan(&self) -> Vec<Cgroup> {
        let mut found = Vec::new();
        let mut open = VecDeque::from([(PathBuf::new(), 0)]);
        while let Some((below, depth)) = open.pop_front() {
            let directory = self.directory().join(&below);
            let Ok(metadata) = fs::symlink_metadata(&directory) else { continue };
            found.push(Cgroup { id: CgroupId(metadata.ino()), path: v2_path(&below) });
            if depth == Self::MAX_DEPTH {
                continue;
            }
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if found.len() + open.len() >= Self::MAX_CGROUPS {
                    break;
                }
                // The type of the entry itself, not of what a link leads to.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push_back((below.join(entry.file_name()), depth + 1));
                }
            }
        }
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// The path of a cgroup. An id that is not known yet makes it scan the tree, at most once per
    /// [`RESCAN_AFTER`](Self::RESCAN_AFTER), so that ids of cgroups long gone cost little; `now` is the caller's clock.
    pub fn path_of(&mut self, id: CgroupId, now: Instant) -> Option<Arc<str>> {
        let fresh = self.scanned.is_some_and(|last| now.saturating_duration_since(last) < Self::RESCAN_AFTER);
        if !fresh && !self.names.contains_key(&id) {
            self.scanned = Some(now);
            // The names of cgroups that are gone must not pile up for ever.
            if self.names.len() > 2 * Self::MAX_CGROUPS {
                self.names.clear();
            }
            let found = self.scan();
            self.names.extend(found.into_iter().map(|cgroup| (cgroup.id, cgroup.path)));
        }
        self.names.get(&id).cloned()
    }

    /// Where the hierarchy is, seen from here.
    fn directory(&self) -> PathBuf {
        self.root.join(self.mount.strip_prefix("/").unwrap_or(&self.mount))
    }
}

/// A path below the mount as the kernel writes it: `/`, `/system.slice`.
fn v2_path(below: &Path) -> Arc<str> {
    let names = below.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    let path = names.fold(String::new(), |path, name| path + "/" + &name);
    if path.is_empty() { "/".into() } else { path.into() }
}

/// A line of `mountinfo`, described in proc_pid_mountinfo(5).
struct Mount {
    /// Whether it shows the whole file system, not a directory of it.
    whole: bool,
    at: PathBuf,
    kind: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        // The fields before the type vary in number, and end with a dash.
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let whole = fields.next()? == "/";
        Some(Self { whole, at: PathBuf::from(unescape(fields.next()?)), kind: rest.split(' ').next()?.to_owned() })
    }
}

/// Undoes the kernel's escapes: `\040` is a space.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match byte {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
38 31 0:36 / /sys/fs/cgroup/unified rw,relatime shared:10 master:2 - cgroup2 cgroup2 rw
";

    /// A machine whose hierarchy is at `mount`, with a few cgroups.
    fn machine(mountinfo: &str, mount: &str) -> (tempfile::TempDir, Cgroups) {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/self/mountinfo", mountinfo);
        for cgroup in ["system.slice/ssh.service", "user.slice", "a b"] {
            write(root.path(), &format!("{mount}/{cgroup}/cgroup.procs"), "");
        }
        let cgroups = Cgroups::find(root.path()).unwrap();
        (root, cgroups)
    }

    fn paths(cgroups: &[Cgroup]) -> Vec<&str> {
        cgroups.iter().map(|cgroup| &*cgroup.path).collect()
    }

    #[test]
    fn it_is_found_where_it_is_mounted() {
        let (_root, cgroups) = machine(HYBRID, "sys/fs/cgroup/unified");
        assert_eq!(cgroups.mount(), Path::new("/sys/fs/cgroup/unified"));
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let (_root, cgroups) = machine(unified, "sys/fs/cgroup");
        assert_eq!(cgroups.mount(), Path::new("/sys/fs/cgroup"));
        let odd = "nonsense\n 1 2\n5 1 0:26 /part /mnt/part rw - cgroup2 none rw\n6 1 0:26 / /mnt/a\\040b rw - cgroup2 none rw\n";
        let (_root, cgroups) = machine(odd, "mnt/a b");
        assert_eq!(cgroups.mount(), Path::new("/mnt/a b"), "the whole of it, not a part");
        assert_eq!(cgroups.scan().len(), 5);
    }

    #[test]
    fn where_it_is_not_mounted_that_is_the_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(Cgroups::find(root.path()), Err(Error::Io { .. })));
        write(root.path(), "proc/self/mountinfo", HYBRID.lines().next().unwrap());
        assert!(Cgroups::find(root.path()).unwrap_err().to_string().contains("mount -t cgroup2"));
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"\04\9\é\400x\"), r"\04\9\é\400x\");
    }

    #[test]
    fn a_path_may_be_of_the_file_system_or_of_the_hierarchy() {
        let (root, cgroups) = machine(HYBRID, "sys/fs/cgroup/unified");
        let directory = root.path().join("sys/fs/cgroup/unified/system.slice/ssh.service");
        let id = CgroupId(fs::metadata(directory).unwrap().ino());
        let ssh = Cgroup { id, path: "/system.slice/ssh.service".into() };
        for path in [
            "/sys/fs/cgroup/unified/system.slice/ssh.service",
            "/system.slice/ssh.service/",
            "system.slice//./ssh.service",
        ] {
            assert_eq!(cgroups.resolve(path).unwrap(), ssh, "{path}");
        }
        let top = cgroups.resolve("/").unwrap();
        assert_eq!(&*top.path, "/");
        assert_eq!(cgroups.resolve("/sys/fs/cgroup/unified").unwrap(), top);
    }

    #[test]
    fn what_is_no_cgroup_is_refused_with_a_reason() {
        let (root, cgroups) = machine(HYBRID, "sys/fs/cgroup/unified");
        write(root.path(), "sys/fs/cgroup/memory/system.slice/tasks", "");
        for (path, reason) in [
            ("/sys/fs/cgroup/memory/system.slice", "is a cgroup of version 1"),
            ("/sys/fs/cgroup/memory", "is a cgroup of version 1"),
            ("/nothing.slice", "no cgroup of version 2 is called /nothing.slice"),
            ("/user.slice/cgroup.procs", "is no cgroup"),
            ("/user.slice/../system.slice", "holds `..`"),
        ] {
            let error = cgroups.resolve(path).unwrap_err().to_string();
            assert!(error.contains(reason), "{path}: {error}");
            assert!(reason.contains("..") || error.ends_with("below /sys/fs/cgroup/unified"), "what to do: {error}");
        }
    }

    #[test]
    fn a_mount_of_version_1_inside_version_2_and_the_reverse() {
        let inside = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n31 30 0:27 / /sys/fs/cgroup/net_cls rw - cgroup net_cls rw,net_cls\n";
        let (_root, cgroups) = machine(inside, "sys/fs/cgroup");
        assert!(cgroups.resolve("/sys/fs/cgroup/net_cls/x").unwrap_err().to_string().contains("version 1"));
        assert!(cgroups.resolve("/sys/fs/cgroup/user.slice").is_ok());
        let around = "30 23 0:26 / /cg rw - cgroup cgroup rw,cpu\n31 30 0:27 / /cg/v2 rw - cgroup2 none rw\n";
        let (_root, cgroups) = machine(around, "cg/v2");
        assert!(cgroups.resolve("/cg/v2/user.slice").is_ok());
        assert!(cgroups.resolve("/cg/user.slice").unwrap_err().to_string().contains("version 1"));
    }

    #[test]
    fn the_tree_is_scanned_without_following_links() {
        let (root, cgroups) = machine(HYBRID, "sys/fs/cgroup/unified");
        let directory = root.path().join("sys/fs/cgroup/unified");
        std::os::unix::fs::symlink(&directory, directory.join("user.slice/loop")).unwrap();
        let found = cgroups.scan();
        assert_eq!(paths(&found), ["/", "/a b", "/system.slice", "/system.slice/ssh.service", "/user.slice"]);
        for cgroup in &found {
            assert_eq!(&cgroups.resolve(&*cgroup.path).unwrap(), cgroup);
        }
        let deep = vec!["d"; Cgroups::MAX_DEPTH + 5].join("/");
        fs::create_dir_all(directory.join(deep)).unwrap();
        assert_eq!(cgroups.scan().len(), 5 + Cgroups::MAX_DEPTH, "it stops going down");
    }

    #[test]
    fn an_unknown_id_is_looked_for_once_in_a_while() {
        let (root, mut cgroups) = machine(HYBRID, "sys/fs/cgroup/unified");
        let directory = root.path().join("sys/fs/cgroup/unified/new.slice");
        let start = Instant::now();
        let user = cgroups.resolve("/user.slice").unwrap();
        assert_eq!(cgroups.path_of(user.id, start), Some(user.path.clone()));
        fs::create_dir(&directory).unwrap();
        let new = cgroups.resolve("/new.slice").unwrap();
        assert_eq!(cgroups.path_of(new.id, start + Cgroups::RESCAN_AFTER / 2), None, "too soon to look again");
        assert_eq!(cgroups.path_of(new.id, start + Cgroups::RESCAN_AFTER), Some(new.path.clone()));
        fs::remove_dir(&directory).unwrap();
        let later = start + 10 * Cgroups::RESCAN_AFTER;
        assert_eq!(cgroups.path_of(CgroupId(u64::MAX), later), None);
        assert_eq!(cgroups.path_of(new.id, later), Some(new.path), "events may still speak of it");
    }

    #[test]
    fn this_machine_is_read() {
        // A container or an old machine may have no such mount; it must then be told as such.
        match Cgroups::find(Path::new("/")) {
            Ok(cgroups) => {
                let found = cgroups.scan();
                assert_eq!(found.first(), Some(&cgroups.resolve("/").unwrap()));
                assert_eq!(cgroups.resolve(cgroups.mount()).unwrap().id, cgroups.resolve("/").unwrap().id);
            }
            Err(error) => assert!(error.to_string().contains("cgroup v2 hierarchy is not mounted"), "{error}"),
        }
    }
}
