//! Which traces may be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::Settings;

/// How deep traces are looked for below a root.
const MAX_DEPTH: usize = 16;
/// So many folders are looked at, at most.
pub(crate) const MAX_FOLDERS: usize = 10_000;

/// So many are named where no tool tells which there are.
const MAX_NAMED: usize = 5;

/// The traces, folders of traces and roots that this server was given; without any, the folder that it runs in.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    /// With how deep traces lie below.
    places: Vec<(PathBuf, usize)>,
    /// There is a tool that tells which they are.
    are_listed: bool,
}

/// The traces that were found.
#[derive(Debug, PartialEq)]
pub(crate) struct Listing {
    /// The newest first.
    pub(crate) traces: Vec<PathBuf>,
    /// Whether there were more folders than are looked at: there may be more traces.
    pub(crate) is_cut: bool,
}

/// A place that was given, and where it is.
#[derive(Debug)]
struct Place<'a> {
    given: &'a Path,
    real: Option<PathBuf>,
}

impl Allowed {
    pub(crate) fn new(settings: &Settings) -> Self {
        let traces = settings.traces.iter().map(|place| (place.clone(), 1));
        let roots = settings.roots.iter().map(|place| (place.clone(), MAX_DEPTH));
        let mut places: Vec<_> = traces.chain(roots).collect();
        if places.is_empty() {
            places.push((PathBuf::from("."), 1));
        }
        let are_listed = settings.tools.as_ref().is_none_or(|all| all.iter().any(|tool| tool.name == "list_traces"));
        Self { places, are_listed }
    }

    /// The folder of the trace that was asked for; the only one there is, if none was named.
    pub(crate) fn find(&self, named: Option<&Path>) -> Result<PathBuf, String> {
        let Some(named) = named else {
            let mut all = self.all();
            return match all.traces.len() {
                _ if all.is_cut => Err(format!(
                    "there are more than {MAX_FOLDERS} folders to look for traces in: name one in `trace`, by its path"
                )),
                1 => Ok(all.traces.remove(0)),
                0 => Err("there is no trace here: name one in `trace`, by its absolute path".into()),
                n => Err(format!("there are {n} traces: name one in `trace`; {}", self.which())),
            };
        };
        // What is not there is not said to be there or not, unless it would be within.
        Self::find_in(&self.real_places(), named).ok_or_else(|| {
            format!("{} is none of the traces that this server was given; {}", named.display(), self.which())
        })
    }

    /// Where the places are.
    fn real_places(&self) -> Vec<Place<'_>> {
        self.places.iter().map(|(given, _)| Place { given, real: given.canonicalize().ok() }).collect()
    }

    /// The folder that this means, if it is one of those that may be read.
    fn find_in(places: &[Place<'_>], named: &Path) -> Option<PathBuf> {
        // A name as list_traces tells it, or a path.
        // A trace that was given itself goes by its own name.
        let is_named = |place: &Path| place.file_name() == Some(named.as_os_str());
        let beside = places.iter().find_map(|place| match place.given.join(named) {
            below if below.exists() => Some(below),
            _ => place.real.as_deref().is_some_and(is_named).then(|| place.given.to_owned()),
        });
        let path = if named.is_relative() { beside.unwrap_or_else(|| named.to_owned()) } else { named.to_owned() };
        let found = path.canonicalize().ok()?;
        let is_within = |place: &Place<'_>| place.real.as_ref().is_some_and(|place| found.starts_with(place));
        places.iter().any(is_within).then_some(found)
    }

    /// How to learn which there are.
    fn which(&self) -> String {
        if self.are_listed {
            return "list_traces tells which".to_owned();
        }
        let mut names = self.names();
        names.truncate(MAX_NAMED);
        format!("there is {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    }

    /// All of them, the newest first, with the names by which they are found; and whether more may be there.
    pub(crate) fn named(&self) -> (Vec<(String, PathBuf)>, bool) {
        let places = self.real_places();
        let Listing { traces, is_cut } = self.all();
        (traces.into_iter().map(|path| (Self::name(&places, &path), path)).collect(), is_cut)
    }

    /// The names by which they are found, the newest first.
    pub(crate) fn names(&self) -> Vec<String> {
        self.named().0.into_iter().map(|(name, _)| name).collect()
    }

    /// The shortest name by which a trace is found: its way below the place that was given.
    fn name(places: &[Place<'_>], path: &Path) -> String {
        let below = places.iter().filter_map(|place| {
            let below = path.strip_prefix(place.real.as_ref()?).ok()?;
            let name = if below.as_os_str().is_empty() { path.file_name()? } else { below.as_os_str() };
            Some(name.to_string_lossy().into_owned())
        });
        let found = |name: &String| Self::find_in(places, Path::new(name)).is_some_and(|found| found == path);
        below.filter(found).min_by_key(String::len).unwrap_or_else(|| path.to_string_lossy().into_owned())
    }

    /// All of them, as far as they are found.
    pub(crate) fn all(&self) -> Listing {
        self.look(MAX_FOLDERS)
    }

    /// Looks at so many folders at most.
    fn look(&self, most: usize) -> Listing {
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        let mut folders: Vec<(PathBuf, usize)> = self.places.clone();
        // Those that were or will be looked at.
        let mut known = folders.len();
        let mut is_cut = false;
        while let Some((folder, depth)) = folders.pop() {
            let changed = fs::symlink_metadata(folder.join("meta.json")).and_then(|file| file.modified());
            if let (Ok(changed), Ok(path)) = (changed, folder.canonicalize()) {
                found.push((changed, path));
            } else if depth > 0 {
                let below = fs::read_dir(&folder).into_iter().flatten().flatten();
                // Links are not followed: they may lead elsewhere, or round.
                for entry in below.filter(|entry| entry.file_type().is_ok_and(|ty| ty.is_dir())) {
                    if known >= most {
                        is_cut = true;
                        break;
                    }
                    known += 1;
                    folders.push((entry.path(), depth - 1));
                }
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        found.dedup_by(|a, b| a.1 == b.1);
        Listing { traces: found.into_iter().map(|(_, path)| path).collect(), is_cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::write_trace;

    fn allowed(traces: &Path) -> Allowed {
        Allowed::new(&Settings { traces: vec![traces.to_owned()], ..Settings::default() })
    }

    #[test]
    fn only_what_was_given_may_be_read() {
        let (ours, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (trace, other) = (write_trace(ours.path()).canonicalize().unwrap(), write_trace(others.path()));
        let allowed = allowed(ours.path());
        assert_eq!(allowed.find(None).unwrap(), trace);
        assert_eq!(allowed.find(Some(&trace)).unwrap(), trace);
        assert_eq!(allowed.find(Some(Path::new("a.schedtrace"))).unwrap(), trace);
        let around = ours.path().join("..").join(others.path().file_name().unwrap()).join("a.schedtrace");
        std::os::unix::fs::symlink(&other, ours.path().join("link")).unwrap();
        let there = allowed.find(Some(&other)).unwrap_err();
        for forbidden in [other.clone(), around, ours.path().join("link"), ours.path().join("../..")] {
            let told = allowed.find(Some(&forbidden)).unwrap_err();
            assert!(told.contains("none of the traces"), "{told}");
        }
        fs::remove_dir_all(&other).unwrap();
        assert_eq!(allowed.find(Some(&other)).unwrap_err(), there, "nobody learns what else is on this machine");
        assert!(
            Allowed::new(&Settings::default()).find(Some(&trace)).is_err(),
            "nothing was given but the folder it runs in"
        );
    }

    #[test]
    fn a_trace_goes_by_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        let trace = write_trace(folder.path()).canonicalize().unwrap();
        let allowed = allowed(&trace);
        assert_eq!(allowed.names(), ["a.schedtrace"]);
        assert_eq!(allowed.find(Some(Path::new("a.schedtrace"))).unwrap(), trace);
        assert!(allowed.find(Some(Path::new("../a.schedtrace"))).is_ok(), "it is the one that was given");
        assert!(allowed.find(Some(Path::new("b.schedtrace"))).is_err());
    }

    #[test]
    fn no_more_folders_are_looked_at_than_said() {
        let root = tempfile::tempdir().unwrap();
        for day in 0..9 {
            fs::create_dir_all(root.path().join(format!("host/{day}"))).unwrap();
        }
        let trace = write_trace(&root.path().join("host/0")).canonicalize().unwrap();
        let roots = Allowed::new(&Settings { roots: vec![root.path().to_owned()], ..Settings::default() });
        // The root, the host, its days and the trace.
        assert_eq!(roots.look(12), Listing { traces: vec![trace], is_cut: false });
        for most in 1..12 {
            assert!(roots.look(most).is_cut, "{most}");
        }
    }

    #[test]
    fn roots_have_traces_many_levels_below() {
        let root = tempfile::tempdir().unwrap();
        let way = format!("host/day{}", "/x".repeat(MAX_DEPTH - 3));
        let deep = root.path().join(&way);
        fs::create_dir_all(&deep).unwrap();
        let trace = write_trace(&deep).canonicalize().unwrap();
        std::os::unix::fs::symlink("..", deep.join("round")).unwrap();
        assert!(allowed(root.path()).all().traces.is_empty(), "a folder of traces has them one level below");
        let roots = Allowed::new(&Settings { roots: vec![root.path().to_owned()], ..Settings::default() });
        assert_eq!(roots.all(), Listing { traces: vec![trace.clone()], is_cut: false });
        let name = format!("{way}/a.schedtrace");
        assert_eq!(roots.find(Some(Path::new(&name))).unwrap(), trace);
        assert_eq!(roots.names(), [name]);
        for told in [include_str!("args.rs"), include_str!("lib.rs"), include_str!("config.rs")] {
            assert!(told.contains(&format!("up to {MAX_DEPTH} levels deep")));
        }
    }
}
