//! The cgroups of threads, which are read seldom: there are many, and they hardly change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::TaskUse;
use crate::system::read_text;

/// The cgroups of threads, read once for each, and again from time to time: a thread is moved seldom.
///
/// ```
/// use schedtrace_core::system::processes::{Cgroups, Level, Order, Processes};
/// let mut cgroups = Cgroups::new("/".into());
/// let mut tasks = Processes::read("/".as_ref())?.first(Level::Thread, Order::CpuTime, 10);
/// cgroups.next();
/// cgroups.fill(&mut tasks);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: PathBuf,
    round: u32,
    /// By id and begin, with the round in which somebody asked for it last.
    known: HashMap<(u32, u64), (Option<String>, u32)>,
}

impl Cgroups {
    /// So many rounds a cgroup is taken as it was, at the most.
    pub const ROUNDS: u32 = 16;

    /// Those of the machine below `root` (`/`).
    ///
    /// ```
    /// use schedtrace_core::system::processes::Cgroups;
    /// let _ = Cgroups::new("/".into());
    /// ```
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, round: 0, known: HashMap::new() }
    }

    /// Begins a round: those that were not asked for in the last one are forgotten, and some of the others are read again
    /// when they are, so that [`ROUNDS`](Self::ROUNDS) rounds read each.
    ///
    /// ```
    /// use schedtrace_core::system::processes::Cgroups;
    /// Cgroups::new("/".into()).next();
    /// ```
    pub fn next(&mut self) {
        let over = self.round;
        self.known.retain(|_, (_, asked)| *asked == over);
        self.round = self.round.wrapping_add(1);
    }

    /// Says of each task which cgroup it is in.
    ///
    /// ```
    /// use schedtrace_core::system::processes::{Cgroups, Level, Order, Processes};
    /// let processes = Processes::read("/".as_ref())?;
    /// let mut tasks = processes.first(Level::Process, Order::CpuTime, 1);
    /// Cgroups::new("/".into()).fill(&mut tasks);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn fill(&mut self, tasks: &mut [TaskUse]) {
        for task in tasks {
            task.cgroup = self.of(task);
        }
    }

    fn of(&mut self, task: &TaskUse) -> Option<String> {
        let is_again = task.tid % Self::ROUNDS == self.round % Self::ROUNDS;
        match self.known.get_mut(&(task.tid, task.began)) {
            Some((path, asked)) if *asked == self.round || !is_again => {
                *asked = self.round;
                path.clone()
            }
            _ => {
                let path = cgroup(&self.root, task);
                self.known.insert((task.tid, task.began), (path.clone(), self.round));
                path
            }
        }
    }
}

/// The path of the hierarchy of version 2: the line with the number 0 (cgroups(7)).
pub(super) fn cgroup(root: &Path, task: &TaskUse) -> Option<String> {
    let text = read_text(&root.join(format!("proc/{}/task/{}/cgroup", task.pid, task.tid))).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{stat, two_processes};
    use super::super::{Level, Order, Processes};
    use super::*;
    use crate::system::tests::write;

    #[test]
    fn a_cgroup_is_read_once_and_again_after_some_rounds() {
        let proc = two_processes();
        let read = proc.read(0);
        let mut cgroups = Cgroups::new(proc.0.path().to_owned());
        let of = |cgroups: &mut Cgroups, read: &Processes| {
            let mut all = read.first(Level::Thread, Order::CpuTime, 10);
            cgroups.fill(&mut all);
            let mut all: Vec<_> = all.into_iter().map(|task| (task.tid, task.cgroup.unwrap())).collect();
            all.sort();
            all.into_iter().map(|(_, cgroup)| cgroup).collect::<Vec<_>>()
        };
        assert_eq!(of(&mut cgroups, &read), ["/box/web"; 3]);
        for (pid, tid) in [(7, 7), (7, 9), (8, 8)] {
            write(proc.0.path(), &format!("proc/{pid}/task/{tid}/cgroup"), "0::/moved\n");
        }
        cgroups.next();
        assert_eq!(of(&mut cgroups, &read), ["/box/web"; 3], "it is not read each time");
        // Another life of the same id.
        proc.thread(7, 9, &stat(9, "new", 'S', 1, 99, 300, 1), None, (1, 0));
        write(proc.0.path(), "proc/7/task/9/cgroup", "0::/moved\n");
        assert_eq!(of(&mut cgroups, &proc.read(0)), ["/box/web", "/box/web", "/moved"]);
        for _ in 0..Cgroups::ROUNDS {
            cgroups.next();
            of(&mut cgroups, &read);
        }
        assert_eq!(of(&mut cgroups, &read), ["/moved"; 3]);
        cgroups.next();
        cgroups.next();
        assert!(cgroups.known.is_empty(), "nobody asks for them any more");
    }
}
