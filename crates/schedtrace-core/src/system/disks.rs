//! Which disk has which number.

use std::path::Path;

/// The name of a whole disk by its numbers, as sysfs (`/sys`) has it; none of a partition, whose requests are those of its
/// disk, and none where there is no such disk.
///
/// ```
/// use schedtrace_core::system::disk_name;
/// println!("8:0 is {}", disk_name("/sys".as_ref(), 8, 0).as_deref().unwrap_or("no disk"));
/// ```
#[must_use]
pub fn disk_name(sys: &Path, major: u32, minor: u32) -> Option<String> {
    let disk = sys.join("dev/block").join(format!("{major}:{minor}")).canonicalize().ok()?;
    if disk.join("partition").exists() {
        return None;
    }
    // A disk whose name has a slash in it has an exclamation mark there.
    Some(disk.file_name()?.to_str()?.replace('!', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_names_and_partitions_are_none() {
        let sys = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sys.path().join("dev/block")).unwrap();
        for (number, name) in [("8:0", "block/sda"), ("8:1", "block/sda/sda1"), ("104:0", "block/cciss!c0d0")] {
            std::fs::create_dir_all(sys.path().join(name)).unwrap();
            std::os::unix::fs::symlink(sys.path().join(name), sys.path().join("dev/block").join(number)).unwrap();
        }
        std::fs::write(sys.path().join("block/sda/sda1/partition"), "1\n").unwrap();
        let name = |major, minor| disk_name(sys.path(), major, minor);
        assert_eq!(name(8, 0).as_deref(), Some("sda"));
        assert_eq!(name(104, 0).as_deref(), Some("cciss/c0d0"));
        assert_eq!((name(8, 1), name(9, 0)), (None, None));
    }
}
