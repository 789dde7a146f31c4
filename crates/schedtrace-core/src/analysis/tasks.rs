//! Who the tasks are: identities, names, and the group that each task's rows belong to.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use serde::Serialize;

use super::GroupBy;
use super::groups::{Gone, Group, GroupIx, Groups, Key};
use crate::event::{Batch, Cgroup, CgroupId, Comm, Cpu, NameId, Task, TaskId};
use crate::source::Filters;

/// So many tasks are known at once.
const MAX_TASKS: usize = 1 << 19;
/// So many ended tasks are remembered by name: the worst waits name tasks that ended meanwhile.
const MAX_ENDED: usize = 1 << 12;
/// So many cgroup paths are remembered.
const MAX_CGROUPS: usize = 1 << 16;
/// So many names of functions, handlers and disks are remembered.
const MAX_NAMES: usize = 1 << 16;
/// The longest path that is kept, in bytes (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// A thread, as a report names it.
///
/// A task whose identity never came has `tid` and `pid` 0 and is called by its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Who {
    /// Which life.
    pub task: TaskId,
    /// Thread id.
    pub tid: u32,
    /// Process (thread group) id.
    pub pid: u32,
    /// Its name; control characters replaced.
    pub comm: String,
}

/// `name[tid]`
impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.tid {
            0 => f.pad(&self.comm),
            tid => f.pad(&format!("{}[{tid}]", self.comm)),
        }
    }
}

/// What [`Who`] is made of, without the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WhoName {
    task: TaskId,
    tid: u32,
    pid: u32,
    /// None as long as the identity has not come.
    comm: Option<Comm>,
}

impl WhoName {
    pub(super) const NOBODY: Self = Self::unknown(TaskId(0));

    const fn unknown(task: TaskId) -> Self {
        Self { task, tid: 0, pid: 0, comm: None }
    }

    pub(super) const fn of(task: &Task) -> Self {
        Self { task: task.id, tid: task.tid, pid: task.tgid, comm: Some(task.comm) }
    }

    pub(super) fn who(self) -> Who {
        let comm = self.comm.map_or_else(|| format!("<task {}>", self.task.0), |comm| comm.to_string());
        Who { task: self.task, tid: self.tid, pid: self.pid, comm }
    }
}

/// A task in an event, and where its state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRef {
    /// Which.
    pub id: TaskId,
    /// [`NO_SLOT`] for idle tasks and for those that were too many.
    pub(super) slot: u32,
}

pub(super) const NO_SLOT: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    /// None while nobody has it.
    id: Option<TaskId>,
    task: Option<Task>,
    group: GroupIx,
    /// Number of the process's life.
    process: u32,
    ended: bool,
    /// Not a row of any report.
    left_out: bool,
}

/// In which slot a task is. The kernel side counts ids from 1, so most are found without a hash.
#[derive(Debug, Default)]
struct Index {
    /// By id; [`NO_SLOT`] where there is none. At most 4 MiB.
    low: Vec<u32>,
    rest: HashMap<TaskId, u32>,
}

impl Index {
    const LOW: u32 = 1 << 20;

    #[inline]
    fn get(&self, id: TaskId) -> Option<u32> {
        match self.low.get(id.0 as usize) {
            Some(&slot) => (slot != NO_SLOT).then_some(slot),
            None if id.0 < Self::LOW => None,
            None => self.rest.get(&id).copied(),
        }
    }

    fn insert(&mut self, id: TaskId, slot: u32) {
        let at = id.0 as usize;
        if id.0 >= Self::LOW {
            self.rest.insert(id, slot);
            return;
        }
        if at >= self.low.len() {
            self.low.resize(at + 1, NO_SLOT);
        }
        self.low[at] = slot;
    }

    fn remove(&mut self, id: TaskId) {
        match self.low.get_mut(id.0 as usize) {
            Some(slot) => *slot = NO_SLOT,
            None => drop(self.rest.remove(&id)),
        }
    }
}

/// One life of one process: process ids are reused.
#[derive(Debug)]
struct Process {
    life: u32,
    leader: Option<TaskId>,
    /// Creation of the leader, or of the first thread seen while the leader is not known.
    start: crate::event::Nanos,
    threads: u32,
    selected: bool,
}

/// The task table: the latest identity of every task, the paths of cgroups, and the grouping.
///
/// Memory is bounded: of tasks that ended, only the last few thousand are remembered here; reports keep the names of
/// those they have rows for. At most about half a million tasks are known at once; more are counted together.
///
/// ```
/// use schedtrace_core::{Batch, Task, TaskId, Cpu, Comm, analysis::Tasks};
/// let mut tasks = Tasks::default();
/// let sshd = Task { id: TaskId(1), tid: 42, tgid: 42, comm: Comm::new("sshd"), ..Task::idle(Cpu(0)) };
/// tasks.read(&Batch { tasks: vec![sshd], ..Batch::default() });
/// assert_eq!(tasks.who(TaskId(1)).to_string(), "sshd[42]");
/// assert_eq!(tasks.who(TaskId(9)).to_string(), "<task 9>");
/// ```
#[derive(Debug, Default)]
pub struct Tasks {
    index: Index,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// In the order of their ends, which may name a task twice.
    ended: VecDeque<(u32, TaskId)>,
    processes: HashMap<u32, Process>,
    lives: u32,
    paths: HashMap<CgroupId, Arc<str>>,
    /// The first cgroup of each path: a service that is started again has a new cgroup at the same path.
    by_path: HashMap<Arc<str>, CgroupId>,
    groups: Groups,
    by: GroupBy,
    filters: Filters,
    include_recorder: bool,
    /// A thread of the recorder has been named.
    recorder: bool,
}

impl Tasks {
    pub(super) fn new(by: GroupBy, include_recorder: bool) -> Self {
        Self { by, include_recorder, ..Self::default() }
    }

    pub(super) fn set_filters(&mut self, filters: &Filters) {
        self.filters = filters.clone();
    }

    /// Whether the recording followed some tasks only.
    pub(super) fn filtered(&self) -> bool {
        !self.filters.pids.is_empty() || !self.filters.cgroups.is_empty()
    }

    /// Takes the identities and the cgroup paths of a batch.
    pub fn read(&mut self, batch: &Batch) {
        for cgroup in &batch.cgroups {
            self.name_cgroup(cgroup);
        }
        for task in &batch.tasks {
            self.identify(task);
        }
    }

    /// The latest identity of a task.
    #[must_use]
    pub fn get(&self, id: TaskId) -> Option<&Task> {
        self.slots[self.index.get(id)? as usize].task.as_ref()
    }

    /// How a report names a task. Unknown ones are named by their id.
    #[must_use]
    pub fn who(&self, id: TaskId) -> Who {
        match id.idle_cpu() {
            Some(cpu) => WhoName::of(&Task::idle(cpu)).who(),
            None => self.get(id).map_or(WhoName::unknown(id), WhoName::of).who(),
        }
    }

    /// The path of a cgroup, control characters replaced.
    #[must_use]
    pub fn cgroup_path(&self, id: CgroupId) -> Option<&str> {
        self.paths.get(&id).map(|path| &**path)
    }

    /// Where the task's state is kept; makes a place for one that is new.
    #[inline]
    pub(super) fn find(&mut self, id: TaskId) -> TaskRef {
        if id.is_idle() {
            return TaskRef { id, slot: NO_SLOT };
        }
        let slot = self.index.get(id).unwrap_or_else(|| self.admit(id));
        TaskRef { id, slot }
    }

    /// Where the state of a task is kept that was heard of before. One of which nothing is known has no place.
    pub(super) fn known(&self, id: TaskId) -> TaskRef {
        let slot = if id.is_idle() { None } else { self.index.get(id) };
        TaskRef { id, slot: slot.unwrap_or(NO_SLOT) }
    }

    #[cold]
    fn admit(&mut self, id: TaskId) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < MAX_TASKS => {
                self.slots.push(Slot {
                    id: None,
                    task: None,
                    group: GroupIx::OTHERS,
                    process: 0,
                    ended: false,
                    left_out: false,
                });
                (self.slots.len() - 1) as u32
            }
            None => return NO_SLOT,
        };
        let key = if self.by == GroupBy::Task { Key::Task(id) } else { Key::Unknown };
        let group = self.groups.join(key, WhoName::unknown(id));
        // Filters name tasks by what is not known yet.
        let left_out = self.filtered();
        self.slots[slot as usize] = Slot { id: Some(id), task: None, group, process: 0, ended: false, left_out };
        self.index.insert(id, slot);
        slot
    }

    /// The group of a task, be it a row or not.
    pub(super) fn group_of(&self, task: TaskRef) -> GroupIx {
        self.slot(task).map_or(GroupIx::OTHERS, |slot| slot.group)
    }

    /// Whether the task is to be left out: it records, or it was not selected by the recording's filters.
    pub(crate) fn left_out(&self, task: TaskRef) -> bool {
        self.slot(task).is_some_and(|slot| slot.left_out)
    }

    /// Whether the task belongs to the process that records.
    pub(super) fn is_recorder(&self, task: TaskRef) -> bool {
        self.identity(task).is_some_and(|task| task.recorder)
    }

    pub(super) fn has_recorder(&self) -> bool {
        self.recorder
    }

    pub(super) fn identity(&self, task: TaskRef) -> Option<&Task> {
        self.slot(task)?.task.as_ref()
    }

    /// Its place, unless that was given to another task.
    fn slot(&self, task: TaskRef) -> Option<&Slot> {
        self.slots.get(task.slot as usize).filter(|slot| slot.id == Some(task.id))
    }

    /// The task will not run again; it may still be named for a while.
    pub(super) fn end(&mut self, task: TaskRef) {
        let Some(slot) = self.slots.get_mut(task.slot as usize) else { return };
        if std::mem::replace(&mut slot.ended, true) {
            return;
        }
        self.ended.push_back((task.slot, task.id));
        if self.ended.len() > MAX_ENDED
            && let Some((slot, id)) = self.ended.pop_front()
        {
            self.forget(slot, id);
        }
    }

    /// A task that was taken for ended runs.
    pub(super) fn revive(&mut self, task: TaskRef) {
        if let Some(slot) = self.slots.get_mut(task.slot as usize) {
            slot.ended = false;
        }
    }

    fn forget(&mut self, at: u32, id: TaskId) {
        let slot = &mut self.slots[at as usize];
        if slot.id != Some(id) || !slot.ended {
            return;
        }
        slot.id = None;
        self.groups.leave(slot.group);
        if let Some(task) = slot.task.take() {
            let life = slot.process;
            self.leave_process(task.tgid, life);
        }
        self.index.remove(id);
        self.free.push(at);
    }

    fn identify(&mut self, task: &Task) {
        let at = self.find(task.id).slot;
        if at == NO_SLOT {
            return;
        }
        self.recorder |= task.recorder;
        let process = self.join_process(at, task);
        let selected = self.select(task);
        let key = match self.by {
            GroupBy::Task => Key::Task(task.id),
            GroupBy::Process | GroupBy::Cpu | GroupBy::Llc => Key::Process(process),
            GroupBy::Cgroup => Key::Cgroup(self.canonical(task.cgroup)),
        };
        let name = WhoName::of(task);
        let group = self.groups.join(key, name);
        let slot = &mut self.slots[at as usize];
        self.groups.leave(slot.group);
        slot.group = group;
        slot.process = process;
        slot.task = Some(*task);
        slot.left_out = !selected || (task.recorder && !self.include_recorder);
        let leads = self.processes.get(&task.tgid).is_none_or(|p| p.leader.is_none_or(|leader| leader == task.id));
        if self.by == GroupBy::Task || leads {
            self.groups.rename(group, name);
        }
    }

    /// The life of the task's process, which has this thread from now on.
    fn join_process(&mut self, at: u32, task: &Task) -> u32 {
        let slot = &self.slots[at as usize];
        let before = slot.task.as_ref().map(|task| (task.tgid, slot.process));
        let leads = task.tid == task.tgid;
        if let Some(process) = self.processes.get_mut(&task.tgid) {
            let member = before == Some((task.tgid, process.life));
            let same = match process.leader {
                _ if member => true,
                // A thread that executes a program takes its leader's place and start time.
                Some(_) if leads => process.start == task.start,
                Some(_) => process.threads > 0 && task.start >= process.start,
                None => process.threads > 0 && (!leads || task.start <= process.start),
            };
            if same {
                if leads {
                    process.leader = Some(task.id);
                    process.start = task.start;
                }
                if !member {
                    process.threads += 1;
                    let life = process.life;
                    if let Some((tgid, life)) = before {
                        self.leave_process(tgid, life);
                    }
                    return life;
                }
                return process.life;
            }
        }
        if let Some((tgid, life)) = before {
            self.leave_process(tgid, life);
        }
        self.lives = self.lives.wrapping_add(1);
        let leader = leads.then_some(task.id);
        let process = Process { life: self.lives, leader, start: task.start, threads: 1, selected: false };
        self.processes.insert(task.tgid, process);
        self.lives
    }

    fn leave_process(&mut self, tgid: u32, life: u32) {
        if let Some(process) = self.processes.get_mut(&tgid)
            && process.life == life
        {
            process.threads = process.threads.saturating_sub(1);
            if process.threads == 0 {
                self.processes.remove(&tgid);
            }
        }
    }

    /// Whether the recording's filters let this task pass.
    fn select(&mut self, task: &Task) -> bool {
        let process = self.processes.get(&task.tgid).is_some_and(|process| process.selected);
        let parent = self.processes.get(&task.ppid).is_some_and(|process| process.selected);
        let by_pid = self.filters.pids.is_empty() || self.filters.pids.contains(&task.tgid) || process || parent;
        if let Some(process) = self.processes.get_mut(&task.tgid) {
            process.selected = by_pid && !self.filters.pids.is_empty();
        }
        let below = |path: &str, top: &str| {
            let top = top.trim_end_matches('/');
            path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let by_cgroup = self.filters.cgroups.is_empty()
            || self.cgroup_path(task.cgroup).is_none_or(|path| self.filters.cgroups.iter().any(|top| below(path, top)));
        by_pid && by_cgroup
    }

    fn name_cgroup(&mut self, cgroup: &Cgroup) {
        if self.paths.len() >= MAX_CGROUPS && !self.paths.contains_key(&cgroup.id) {
            return;
        }
        let path: Arc<str> = clean(&cgroup.path, MAX_PATH).into();
        if self.by_path.len() < MAX_CGROUPS {
            self.by_path.entry(path.clone()).or_insert(cgroup.id);
        }
        self.paths.insert(cgroup.id, path);
    }

    fn canonical(&self, id: CgroupId) -> CgroupId {
        self.paths.get(&id).and_then(|path| self.by_path.get(path)).copied().unwrap_or(id)
    }

    /// The group of a CPU, where CPUs are what rows speak of.
    pub(super) fn join_cpu(&mut self, cpu: Cpu, llc: Option<u32>) -> GroupIx {
        match self.by {
            GroupBy::Cpu => self.groups.join(Key::Cpu(cpu), WhoName::NOBODY),
            GroupBy::Llc => self.groups.join(Key::Llc(llc), WhoName::NOBODY),
            GroupBy::Task | GroupBy::Process | GroupBy::Cgroup => GroupIx::OTHERS,
        }
    }

    /// How a report names a group.
    pub(super) fn group(&self, ix: GroupIx) -> Group {
        let name = self.groups.name(ix);
        match self.groups.key(ix) {
            Key::Others => Group::Others,
            Key::Unknown => Group::Unknown,
            Key::Task(_) => Group::Task(name.who()),
            Key::Process(_) => Group::Process { pid: name.pid, comm: name.who().comm },
            Key::Cgroup(id) => Group::Cgroup { id, path: self.cgroup_path(id).map(str::to_owned) },
            Key::Cpu(cpu) => Group::Cpu { cpu },
            Key::Llc(llc) => Group::Llc { llc },
        }
    }

    pub(super) fn crowded(&self) -> bool {
        self.groups.crowded()
    }

    pub(super) fn fold_groups(&mut self, score: impl Fn(GroupIx) -> u64) -> Gone {
        self.groups.fold(score)
    }

    pub(super) fn forget_groups(&mut self) -> Gone {
        self.groups.forget()
    }
}

/// What names in events read: of functions, interrupt handlers and disks. At most 65,536 of them.
#[derive(Debug, Default)]
pub struct Names(HashMap<NameId, Arc<str>>);

impl Names {
    pub(super) fn read(&mut self, batch: &Batch) {
        for name in &batch.names {
            if self.0.len() < MAX_NAMES || self.0.contains_key(&name.id) {
                self.0.insert(name.id, Arc::clone(&name.text));
            }
        }
    }

    /// The text; empty where there is none.
    #[must_use]
    pub fn text(&self, id: NameId) -> &str {
        self.0.get(&id).map_or("", |text| text)
    }
}

/// Text from strangers, without control characters and of at most so many bytes.
pub(super) fn clean(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..end].chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
