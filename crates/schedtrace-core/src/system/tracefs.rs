//! What can be attached to: tracepoints, and functions of the kernel.
//!
//! A kernel has thousands of tracepoints and a hundred thousand functions: they are found by a part of their name, and
//! told page by page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::read_up_to;
use crate::error::{Error, Result};

/// All functions of a kernel with all its modules take 20 MiB.
const MAX_SYMBOLS: u64 = 128 * 1024 * 1024;

/// The tracepoints of one part of the kernel.
///
/// ```
/// use schedtrace_core::system::tracefs::Subsystem;
/// assert_eq!(Subsystem { name: "sched".into(), events: 24 }.events, 24);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Subsystem {
    /// `sched`, `irq`, `block`.
    pub name: String,
    /// How many tracepoints it has.
    pub events: usize,
}

/// A part of a long list.
///
/// ```
/// use schedtrace_core::system::tracefs::Page;
/// let page = Page { skip: 100, limit: 50 };
/// assert_eq!(page.of((0..1000).collect()), ((100..150).collect(), Some(150)));
/// assert_eq!(page.of(vec![1, 2]), (vec![], None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Page {
    /// How many entries to leave out at the beginning.
    pub skip: usize,
    /// How many to give.
    pub limit: usize,
}

impl Page {
    /// The entries of this page, and how many to skip for the next, if there is one.
    ///
    /// ```
    /// use schedtrace_core::system::tracefs::Page;
    /// assert_eq!(Page { skip: 1, limit: 1 }.of(vec!["a", "b"]), (vec!["b"], None));
    /// ```
    #[must_use]
    pub fn of<T>(self, list: Vec<T>) -> (Vec<T>, Option<usize>) {
        let end = self.skip.saturating_add(self.limit);
        let next = (end < list.len()).then_some(end);
        (list.into_iter().skip(self.skip).take(self.limit).collect(), next)
    }
}

/// Tracepoints that were asked for.
///
/// ```
/// use schedtrace_core::system::tracefs::Tracepoints;
/// assert!(Tracepoints::default().events.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tracepoints {
    /// How many match.
    pub matching: usize,
    /// This page of them: `sched:sched_switch`, by name.
    pub events: Vec<String>,
    /// How many to skip for the next page; none if this is the last.
    pub next: Option<usize>,
}

/// From what the functions are known.
///
/// ```
/// use schedtrace_core::system::tracefs::FunctionSource;
/// assert_eq!(serde_json::to_string(&FunctionSource::Kallsyms)?, "\"kallsyms\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionSource {
    /// `available_filter_functions` of tracefs: what the kernel says can be traced.
    AvailableFilterFunctions,
    /// The code symbols of `/proc/kallsyms`: some of them may still be refused.
    #[default]
    Kallsyms,
}

/// Functions of the kernel that were asked for.
///
/// ```
/// use schedtrace_core::system::tracefs::Functions;
/// assert_eq!(Functions::default().matching, 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Functions {
    /// From what they are known.
    pub source: FunctionSource,
    /// Whether this kernel has kprobes at all. Without, programs can still be attached to functions by fentry.
    pub kprobes_supported: bool,
    /// Whether functions that the kernel forbids kprobes in are left out. They are known only where debugfs can be read.
    pub blacklist_known: bool,
    /// How many functions there are.
    pub total: usize,
    /// How many match.
    pub matching: usize,
    /// This page of them, by name.
    pub functions: Vec<Function>,
    /// How many to skip for the next page; none if this is the last.
    pub next: Option<usize>,
}

/// A function of the kernel.
///
/// ```
/// use schedtrace_core::system::tracefs::Function;
/// assert_eq!(Function { name: "schedule".into(), module: None, copies: 1 }.copies, 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The module that it is in, unless it is the kernel itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// How many functions bear this name; one that is not alone cannot be attached to by name.
    pub copies: u32,
}

/// Where tracefs is below `root` (`/`).
///
/// ```
/// use schedtrace_core::system::tracefs;
/// assert!(tracefs::find("/no/such/folder".as_ref()).is_err());
/// ```
///
/// # Errors
/// [`Error::Invalid`] if it is not mounted, or may not be read.
pub fn find(root: &Path) -> Result<PathBuf> {
    let places = ["sys/kernel/tracing", "sys/kernel/debug/tracing"].map(|place| root.join(place));
    places.into_iter().find(|place| place.join("events").is_dir()).ok_or_else(|| {
        Error::Invalid(
            "tracefs cannot be read: it needs root, and has to be mounted; `mount -t tracefs nodev /sys/kernel/tracing` \
             mounts it"
                .to_owned(),
        )
    })
}

/// The parts of the kernel that have tracepoints, by name.
///
/// ```no_run
/// use schedtrace_core::system::tracefs;
/// let sched = tracefs::subsystems("/".as_ref())?.into_iter().find(|one| one.name == "sched");
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] if tracefs is not mounted or may not be read.
pub fn subsystems(root: &Path) -> Result<Vec<Subsystem>> {
    let events = find(root)?.join("events");
    let one = |name: String| {
        let count = folders(&events.join(&name)).map(|events| events.len()).unwrap_or(0);
        Subsystem { name, events: count }
    };
    let all = folders(&events).map_err(Error::io("cannot read", &events))?;
    Ok(all.into_iter().map(one).filter(|subsystem| subsystem.events > 0).collect())
}

/// Tracepoints of a subsystem, or of all, whose name contains `filter`.
///
/// ```no_run
/// use schedtrace_core::system::tracefs::{self, Page};
/// let found = tracefs::tracepoints("/".as_ref(), Some("sched"), Some("wak"), Page { skip: 0, limit: 50 })?;
/// assert!(found.events.contains(&"sched:sched_waking".to_owned()));
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] if tracefs is not mounted or may not be read, or has no such subsystem.
pub fn tracepoints(root: &Path, subsystem: Option<&str>, filter: Option<&str>, page: Page) -> Result<Tracepoints> {
    let events = find(root)?.join("events");
    let mut subsystems = folders(&events).map_err(Error::io("cannot read", &events))?;
    if let Some(wanted) = subsystem {
        // Compared with what is there, never joined to a path.
        subsystems.retain(|name| name == wanted);
        if subsystems.is_empty() {
            let wanted: String = wanted.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(Error::Invalid(format!(
                "no tracepoints are called {wanted}:*; name a subsystem that this kernel has, such as sched, irq or block"
            )));
        }
    }
    let mut all = Vec::new();
    for subsystem in subsystems {
        // One that is taken away with its module meanwhile has none.
        let names = folders(&events.join(&subsystem)).unwrap_or_default();
        let names = names.into_iter().filter(|name| filter.is_none_or(|part| name.contains(part)));
        all.extend(names.map(|name| format!("{subsystem}:{name}")));
    }
    let matching = all.len();
    let (events, next) = page.of(all);
    Ok(Tracepoints { matching, events, next })
}

/// Functions of the kernel and its modules whose name contains each of these `parts`.
///
/// ```
/// use schedtrace_core::system::tracefs::{self, Page};
/// match tracefs::functions("/".as_ref(), &["schedule"], Page { skip: 0, limit: 10 }) {
///     Ok(found) => assert!(found.functions.len() <= 10),
///     Err(error) => println!("{error}"),
/// }
/// ```
///
/// # Errors
/// [`Error::Io`] if neither of the lists can be read.
pub fn functions(root: &Path, parts: &[&str], page: Page) -> Result<Functions> {
    let (source, text) = symbols(root)?;
    let blacklist = read_up_to(&root.join("sys/kernel/debug/kprobes/blacklist"), MAX_SYMBOLS).ok();
    // `kprobe_blacklist_seq_show()` in `kernel/kprobes.c`: two addresses, and a name.
    let forbidden = blacklist.iter().flat_map(|text| text.lines()).filter_map(|line| line.split_whitespace().nth(1));
    let forbidden: BTreeSet<&str> = forbidden.collect();
    let mut copies: BTreeMap<(&str, Option<&str>), u32> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let name = match source {
            FunctionSource::AvailableFilterFunctions => words.next(),
            // t and T for functions, w and W for weak ones: what is code.
            FunctionSource::Kallsyms => match (words.nth(1), words.next()) {
                (Some("t" | "T" | "w" | "W"), Some(name)) => Some(name).filter(|name| !is_no_function(name)),
                _ => None,
            },
        };
        let Some(name) = name.filter(|name| !forbidden.contains(name)) else { continue };
        let module = words.next().map(|module| module.trim_matches(['[', ']']));
        *copies.entry((name, module)).or_default() += 1;
    }
    let total = copies.len();
    let matching: Vec<_> =
        copies.into_iter().filter(|((name, _), _)| parts.iter().all(|part| name.contains(part))).collect();
    let count = matching.len();
    let (functions, next) = page.of(matching);
    Ok(Functions {
        source,
        kprobes_supported: root.join("sys/bus/event_source/devices/kprobe").exists(),
        blacklist_known: blacklist.is_some(),
        total,
        matching: count,
        functions: functions
            .into_iter()
            .map(|((name, module), copies)| Function { name: name.to_owned(), module: module.map(Into::into), copies })
            .collect(),
        next,
    })
}

/// Code that has a symbol and is no function: what stands before functions, the trampolines of static calls, and labels.
fn is_no_function(symbol: &str) -> bool {
    ["__pfx_", "__cfi_", "__SCT__", "."].iter().any(|prefix| symbol.starts_with(prefix))
}

/// The first of the two lists that can be read. A kernel that is locked down refuses the better one, even to root.
fn symbols(root: &Path) -> Result<(FunctionSource, String)> {
    let traceable = find(root).ok().map(|tracefs| tracefs.join("available_filter_functions"));
    let traceable = traceable.and_then(|path| read_up_to(&path, MAX_SYMBOLS).ok()).filter(|text| !text.is_empty());
    if let Some(text) = traceable {
        return Ok((FunctionSource::AvailableFilterFunctions, text));
    }
    let path = root.join("proc/kallsyms");
    let text = read_up_to(&path, MAX_SYMBOLS).map_err(Error::io("cannot read", path))?;
    Ok((FunctionSource::Kallsyms, text))
}

/// The names of the folders in a folder, sorted.
fn folders(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;

    const ALL: Page = Page { skip: 0, limit: usize::MAX };

    fn folder(at: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for event in ["sched/sched_waking", "sched/sched_switch", "irq/softirq_entry"] {
            write(root.path(), &format!("{at}/events/{event}/id"), "1\n");
        }
        write(root.path(), &format!("{at}/events/sched/enable"), "0\n");
        write(root.path(), &format!("{at}/events/ftrace/enable"), "0\n");
        root
    }

    #[test]
    fn tracepoints_are_found_by_subsystem_and_name() {
        for at in ["sys/kernel/tracing", "sys/kernel/debug/tracing"] {
            let root = folder(at);
            let names = |subsystem, filter, page| tracepoints(root.path(), subsystem, filter, page).unwrap();
            let all = names(None, None, ALL);
            assert_eq!(all.events, ["irq:softirq_entry", "sched:sched_switch", "sched:sched_waking"]);
            assert_eq!((all.matching, all.next), (3, None));
            assert_eq!(names(Some("sched"), Some("wak"), ALL).events, ["sched:sched_waking"]);
            let first = names(Some("sched"), None, Page { skip: 0, limit: 1 });
            assert_eq!((first.matching, first.next), (2, Some(1)));
            assert_eq!(names(Some("sched"), None, Page { skip: 1, limit: 1 }).events, ["sched:sched_waking"]);
            let subsystems = subsystems(root.path()).unwrap();
            assert_eq!(subsystems.len(), 2, "one without tracepoints is none: {subsystems:?}");
            assert_eq!(subsystems[1], Subsystem { name: "sched".into(), events: 2 });
        }
    }

    #[test]
    fn a_subsystem_is_a_name_and_no_path() {
        let root = folder("sys/kernel/tracing");
        write(root.path(), "sys/kernel/secret/x/y", "");
        for name in ["../../secret", "sched/../irq", "", ".", "none\n\u{1b}[2J"] {
            let told = tracepoints(root.path(), Some(name), None, ALL).unwrap_err().to_string();
            assert!(told.contains("such as sched") && !told.contains(char::is_control), "{told}");
        }
        let told = subsystems(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
        assert!(told.contains("mount -t tracefs"), "{told}");
    }

    #[test]
    fn functions_come_from_the_better_list() {
        let root = folder("sys/kernel/tracing");
        assert!(functions(root.path(), &[], ALL).is_err());
        let symbols = "ffff T schedule\nffff t helper\nffff t helper\nffff D data\nffff t gone [mod]\nffff W weak\nffff t __pfx_weak\nffff T .slowpath\nffff T __SCT__cond_resched\nbad\nffff T\n";
        write(root.path(), "proc/kallsyms", symbols);
        let found = functions(root.path(), &[], ALL).unwrap();
        assert_eq!((found.source, found.kprobes_supported), (FunctionSource::Kallsyms, false));
        let told: Vec<_> =
            found.functions.iter().map(|one| (one.name.as_str(), one.module.as_deref(), one.copies)).collect();
        assert_eq!(told, [("gone", Some("mod"), 1), ("helper", None, 2), ("schedule", None, 1), ("weak", None, 1)]);

        write(root.path(), "sys/kernel/debug/kprobes/blacklist", "0xff-0xff\tschedule\n");
        write(root.path(), "sys/bus/event_source/devices/kprobe/type", "6\n");
        let found = functions(root.path(), &["e"], Page { skip: 0, limit: 1 }).unwrap();
        assert_eq!((found.total, found.matching, found.next), (3, 3, Some(1)));
        assert!(found.kprobes_supported && found.blacklist_known);

        write(root.path(), "sys/kernel/tracing/available_filter_functions", "schedule\ndo_it [mod]\n");
        let found = functions(root.path(), &["do_"], ALL).unwrap();
        assert_eq!((found.source, found.total), (FunctionSource::AvailableFilterFunctions, 1));
        assert_eq!(found.functions[0].module.as_deref(), Some("mod"));
        assert_eq!(functions(root.path(), &["\0"], ALL).unwrap().matching, 0);
    }

    #[test]
    fn this_machine_is_read() {
        let found = functions("/".as_ref(), &["sched"], Page { skip: 0, limit: 5 }).unwrap();
        assert!(found.total > 1_000 && found.functions.len() == 5 && found.matching > 5, "{found:?}");
    }
}
