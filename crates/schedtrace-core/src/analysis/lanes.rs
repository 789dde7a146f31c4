//! Timelines: what each task or each CPU did, column by column, at a chosen resolution.

use hashbrown::HashMap;
use serde::Serialize;

use super::question::{About, Question, Study};
use super::states::{Observer, Ran, Seen, Slept, Span, Waited};
use super::study::Scope;
use super::tasks::Who;
use super::{Options, Subject};
use crate::event::{Cpu, Nanos, TaskId};
use crate::source::Meta;

/// So many columns at most: beyond, two become one, and the resolution is half as fine.
const MAX_COLUMNS: usize = 1 << 12;
/// So many cells of all lanes together; about 200 MiB.
const MAX_CELLS: usize = 1 << 22;
/// So many lanes at most.
const MAX_LANES: usize = 1 << 13;

/// What the lanes of a timeline are, and how fine its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineOptions {
    /// What the lanes are.
    pub lanes: Lanes,
    /// How long a column is. Where that made more than 4,096 of them, it is doubled until they are not.
    pub resolution: Nanos,
    /// Only the threads of this subject; all if none.
    pub subject: Option<Subject>,
}

impl Default for TimelineOptions {
    fn default() -> Self {
        Self { lanes: Lanes::Cpus, resolution: Nanos(10_000_000), subject: None }
    }
}

/// What the lanes of a timeline are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lanes {
    /// CPUs, by number.
    #[default]
    Cpus,
    /// Tasks: those that ran and waited longest, most first.
    Tasks,
}

/// What each task or each CPU did, column by column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimelineReport {
    /// How long a column is.
    pub resolution_ns: Nanos,
    /// When the first one begins.
    pub from_ns: Nanos,
    /// How many there are. The last one may reach beyond the window.
    pub columns: usize,
    /// The lanes.
    pub lanes: Vec<Lane>,
    /// How many lanes there were.
    pub lanes_total: usize,
    /// Time of lanes that were too many to keep.
    pub others_ns: u64,
}

/// One task, or one CPU. What a column's times lack of its length is not known, or before or after the task's life.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lane {
    /// Which CPU, where lanes are CPUs.
    pub cpu: Option<Cpu>,
    /// Which task, where lanes are tasks.
    pub task: Option<Who>,
    /// A task: it had a CPU. A CPU: a task had it.
    pub running_ns: Vec<u64>,
    /// A task: it was runnable and waited. A CPU: tasks waited on its queue, all together.
    pub waiting_ns: Vec<u64>,
    /// A task: it slept for I/O. Empty for CPUs.
    pub io_ns: Vec<u64>,
    /// A task: it slept otherwise. A CPU: it was idle.
    pub idle_ns: Vec<u64>,
    /// A CPU: who had it for the longest time without a break. Empty for tasks.
    pub longest: Vec<Option<Who>>,
}

impl Lanes {
    /// What the letters of [`Lane::drawn`] mean.
    ///
    /// ```
    /// use schedtrace_core::analysis::Lanes;
    /// assert!(Lanes::Tasks.legend().contains("w waited for a CPU"));
    /// ```
    #[must_use]
    pub const fn legend(self) -> &'static str {
        match self {
            Self::Cpus => "# busy, + busy for less than half, w busy while others waited, . idle, blank unknown",
            Self::Tasks => {
                "# ran, + ran for less than half, w waited for a CPU, D slept for I/O, . slept, blank not there or unknown"
            }
        }
    }
}

impl Lane {
    /// The lane as a row of letters, one for each column of so many nanoseconds. [`Lanes::legend`] has the letters.
    ///
    /// A CPU's column is `w` where tasks waited for it for a tenth of the column, taken together; else `#` where it was busy
    /// for half of it, `+` where for less, `.` where it was idle. A task's is what took most of it; a task that ran for a
    /// twentieth of it and did something else for longer, but did not wait, is `+`. Nothing is known of what is blank.
    ///
    /// ```
    /// use schedtrace_core::Nanos;
    /// use schedtrace_core::analysis::Lane;
    /// let (running_ns, waiting_ns, idle_ns) = (vec![90, 0], vec![0, 80], vec![10, 20]);
    /// let (io_ns, longest) = (vec![0, 0], Vec::new());
    /// let lane = Lane { cpu: None, task: None, running_ns, waiting_ns, io_ns, idle_ns, longest };
    /// assert_eq!(lane.drawn(2, Nanos(100)), "#w");
    /// ```
    #[must_use]
    pub fn drawn(&self, columns: usize, resolution: Nanos) -> String {
        (0..columns).map(|at| self.letter(at, resolution.0)).collect()
    }

    /// What took most of a column.
    fn letter(&self, at: usize, resolution: u64) -> char {
        let of = |all: &[u64]| all.get(at).copied().unwrap_or(0);
        let (running, waiting) = (of(&self.running_ns), of(&self.waiting_ns));
        let (io, idle) = (of(&self.io_ns), of(&self.idle_ns));
        if self.cpu.is_some() {
            return match (running, waiting) {
                (_, 1..) if waiting.saturating_mul(10) >= resolution => 'w',
                (1.., _) if running.saturating_mul(2) >= resolution => '#',
                (1.., _) => '+',
                _ if idle > 0 => '.',
                _ => ' ',
            };
        }
        let most = running.max(waiting).max(io).max(idle);
        match most {
            0 => ' ',
            _ if most == waiting => 'w',
            _ if most == running => '#',
            // A moment of work is more than none.
            _ if running.saturating_mul(20) >= resolution => '+',
            _ if most == io => 'D',
            _ => '.',
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Cpu(Cpu),
    Task(TaskId),
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Running,
    Waiting,
    Io,
    Idle,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    ns: [u64; 4],
    longest: Option<(u64, TaskId)>,
}

impl Cell {
    fn merge(&mut self, other: &Self) {
        self.ns.iter_mut().zip(other.ns).for_each(|(mine, theirs)| *mine = mine.saturating_add(theirs));
        self.longest = self.longest.max(other.longest);
    }
}

/// What did each task or each CPU do, and when?
#[derive(Clone, Debug)]
pub struct Timeline {
    scope: Scope,
    options: TimelineOptions,
    /// Where the first column begins.
    from: Option<Nanos>,
    resolution: u64,
    lanes: HashMap<Key, Vec<Cell>>,
    cells: usize,
    others_ns: u64,
}

impl Timeline {
    /// The study of a timeline.
    ///
    /// ```
    /// use schedtrace_core::Nanos;
    /// use schedtrace_core::analysis::{Analysis, Lanes, Options, Timeline, TimelineOptions};
    /// let wanted = TimelineOptions { lanes: Lanes::Tasks, resolution: Nanos(1_000_000), subject: None };
    /// assert_eq!(Timeline::study(wanted, Options::default()).report().answer.columns, 0);
    /// ```
    #[must_use]
    pub fn study(timeline: TimelineOptions, options: Options) -> Study<Self> {
        let scope = Scope::new(&options);
        let resolution = timeline.resolution.0.max(1);
        let question = Self { options: timeline, resolution, ..Self::new(&scope) };
        Study::with(question, scope, options)
    }

    fn is_wanted(&self, task: TaskId, seen: &Seen<'_>) -> bool {
        match self.options.subject {
            None | Some(Subject::Last) => true,
            Some(Subject::Thread(tid)) => seen.tasks.get(task).is_some_and(|task| task.tid == tid),
            Some(Subject::Process(pid)) => seen.tasks.get(task).is_some_and(|task| task.tgid == pid),
        }
    }

    /// Makes columns twice as long.
    fn coarsen(&mut self) {
        self.resolution = self.resolution.saturating_mul(2);
        self.cells = 0;
        for lane in self.lanes.values_mut() {
            for at in 0..lane.len().div_ceil(2) {
                let mut cell = lane[2 * at];
                if let Some(second) = lane.get(2 * at + 1) {
                    cell.merge(second);
                }
                lane[at] = cell;
            }
            lane.truncate(lane.len().div_ceil(2));
            lane.shrink_to_fit();
            self.cells += lane.len();
        }
    }

    fn add(&mut self, key: Key, from: Nanos, until: Nanos, part: Part, who: Option<TaskId>) {
        let Some((from, until)) = self.scope.clip(from, until) else { return };
        let start = *self.from.get_or_insert(from);
        let from = from.max(start);
        if from >= until {
            return;
        }
        if self.lanes.len() >= MAX_LANES && !self.lanes.contains_key(&key) {
            self.others_ns = self.others_ns.saturating_add((until - from).0);
            return;
        }
        while (until - start).0.div_ceil(self.resolution) > MAX_COLUMNS as u64 {
            self.coarsen();
        }
        let (first, last) = ((from - start).0 / self.resolution, ((until - start).0 - 1) / self.resolution);
        let lane = self.lanes.entry(key).or_default();
        if lane.len() <= last as usize {
            self.cells += last as usize + 1 - lane.len();
            lane.resize(last as usize + 1, Cell::default());
        }
        for column in first..=last {
            let begin = start + Nanos(column * self.resolution);
            let ns = (until.min(begin + Nanos(self.resolution)) - from.max(begin)).0;
            let cell = &mut lane[column as usize];
            cell.ns[part as usize] = cell.ns[part as usize].saturating_add(ns);
            cell.longest = cell.longest.max(who.map(|who| (ns, who)));
        }
        if self.cells > MAX_CELLS && self.lanes.values().any(|lane| lane.len() > 1) {
            self.coarsen();
        }
    }
}

impl Observer for Timeline {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        let Span { cpu, from, until, .. } = ran.span;
        match self.options.lanes {
            Lanes::Cpus => self.add(Key::Cpu(cpu.cpu), from, until, Part::Running, Some(ran.task.id)),
            Lanes::Tasks if !seen.tasks.left_out(ran.task) && self.is_wanted(ran.task.id, seen) => {
                self.add(Key::Task(ran.task.id), from, until, Part::Running, None);
            }
            Lanes::Tasks => {}
        }
    }

    fn idled(&mut self, span: &Span, _: &Seen<'_>) {
        if self.options.lanes == Lanes::Cpus {
            self.add(Key::Cpu(span.cpu.cpu), span.from, span.until, Part::Idle, None);
        }
    }

    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        if wait.doubtful || seen.tasks.left_out(wait.task) {
            return;
        }
        match self.options.lanes {
            Lanes::Cpus => {
                for segment in wait.segments {
                    self.add(Key::Cpu(segment.cpu.cpu), segment.from, segment.until, Part::Waiting, None);
                }
            }
            Lanes::Tasks if self.is_wanted(wait.task.id, seen) => {
                self.add(Key::Task(wait.task.id), wait.from, wait.until, Part::Waiting, None);
            }
            Lanes::Tasks => {}
        }
    }

    fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
        let wanted = self.options.lanes == Lanes::Tasks && !slept.doubtful && !seen.tasks.left_out(slept.task);
        if wanted && self.is_wanted(slept.task.id, seen) {
            let io = slept.state.is_some_and(crate::event::TaskState::is_io_wait);
            let part = if io { Part::Io } else { Part::Idle };
            self.add(Key::Task(slept.task.id), slept.from, slept.until, part, None);
        }
    }
}

impl Question for Timeline {
    type Answer = TimelineReport;

    fn new(scope: &Scope) -> Self {
        let options = TimelineOptions::default();
        let from = Some(scope.from()).filter(|from| *from > Nanos::ZERO);
        let (lanes, resolution) = (HashMap::new(), options.resolution.0);
        Self { scope: *scope, options, from, resolution, lanes, cells: 0, others_ns: 0 }
    }

    fn begin(&mut self, meta: &Meta) {
        if meta.started > Nanos::ZERO {
            self.from = Some(self.scope.from().max(meta.started));
        }
    }

    fn answer(&self, about: &About, seen: &Seen<'_>) -> TimelineReport {
        let awake =
            |lane: &[Cell]| lane.iter().map(|cell| cell.ns[0].saturating_add(cell.ns[1])).fold(0, u64::saturating_add);
        let mut lanes: Vec<(Key, &Vec<Cell>)> = self.lanes.iter().map(|(key, lane)| (*key, lane)).collect();
        match self.options.lanes {
            Lanes::Cpus => lanes.sort_unstable_by_key(|&(key, _)| key),
            Lanes::Tasks => lanes.sort_by_cached_key(|&(key, lane)| (std::cmp::Reverse(awake(lane)), key)),
        }
        let lanes_total = lanes.len();
        if self.options.lanes == Lanes::Tasks {
            lanes.truncate(self.scope.top());
        }
        let from = self.from.unwrap_or_default();
        let used = self.lanes.values().map(Vec::len).max().unwrap_or(0);
        let whole = (about.window.until_ns - from).0.div_ceil(self.resolution);
        let columns = used.max(usize::try_from(whole).unwrap_or(MAX_COLUMNS).min(MAX_COLUMNS));
        let lane = |(key, cells): (Key, &Vec<Cell>)| {
            let of =
                |part: Part| (0..columns).map(|at| cells.get(at).map_or(0, |cell| cell.ns[part as usize])).collect();
            let is_cpu = matches!(key, Key::Cpu(_));
            let longest = |at: usize| cells.get(at).and_then(|cell| cell.longest).map(|(_, who)| seen.tasks.who(who));
            Lane {
                cpu: if let Key::Cpu(cpu) = key { Some(cpu) } else { None },
                task: if let Key::Task(task) = key { Some(seen.tasks.who(task)) } else { None },
                running_ns: of(Part::Running),
                waiting_ns: of(Part::Waiting),
                io_ns: if is_cpu { Vec::new() } else { of(Part::Io) },
                idle_ns: of(Part::Idle),
                longest: if is_cpu { (0..columns).map(longest).collect() } else { Vec::new() },
            }
        };
        TimelineReport {
            resolution_ns: Nanos(self.resolution),
            from_ns: from,
            columns,
            lanes: lanes.into_iter().map(lane).collect(),
            lanes_total,
            others_ns: self.others_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Analysis;
    use super::super::tests::{IDLE, S, X, stream, task};
    use super::*;
    use proptest::prelude::*;

    fn timeline(stream: super::super::tests::Stream, timeline: TimelineOptions) -> TimelineReport {
        let mut study = Timeline::study(timeline, stream.options.clone());
        study.begin(&stream.meta);
        study.update(&stream.batch);
        study.finish(&stream.meta);
        study.report().answer
    }

    #[test]
    fn columns_say_what_tasks_and_cpus_did() {
        // Task 1 runs until 1_250, task 2 until 1_500; task 1 is woken at 1_400 and waits for it, then runs until 1_700.
        let told = || {
            stream()
                .tasks(&[task(1, 11, 11, "one"), task(2, 12, 12, "two")])
                .cpus(&[0])
                .switch(1_250, 0, 1, S, 2)
                .waking(1_400, 0, 2, 1, 0)
                .switch(1_500, 0, 2, X, 1)
                .switch(1_700, 0, 1, S, IDLE)
        };
        let columns = TimelineOptions { lanes: Lanes::Tasks, resolution: Nanos(250), subject: None };
        let report = timeline(told(), columns);
        assert_eq!((report.resolution_ns, report.from_ns, report.columns), (Nanos(250), Nanos(1_000), 4));
        let one = report.lanes.iter().find(|lane| lane.task.as_ref().is_some_and(|who| who.tid == 11)).unwrap();
        assert_eq!(one.running_ns, [250, 0, 200, 0]);
        assert_eq!(one.waiting_ns, [0, 100, 0, 0]);
        assert_eq!(one.idle_ns, [0, 150, 50, 250]);
        let only = timeline(told(), TimelineOptions { subject: Some(Subject::Thread(12)), ..columns });
        assert_eq!(only.lanes.len(), 1);
        assert_eq!(only.lanes[0].running_ns, [0, 250, 0, 0], "no column of others shifts them");

        let cpus = timeline(told(), TimelineOptions { lanes: Lanes::Cpus, ..columns });
        let cpu = &cpus.lanes[0];
        assert_eq!(cpu.running_ns, [250, 250, 200, 0]);
        assert_eq!((cpu.waiting_ns.clone(), cpu.idle_ns.clone()), (vec![0, 100, 0, 0], vec![0, 0, 50, 250]));
        let names: Vec<_> = cpu.longest.iter().map(|who| who.as_ref().map(|who| who.tid)).collect();
        assert_eq!(names, [Some(11), Some(12), Some(11), None]);
    }

    #[test]
    fn a_letter_tells_what_took_most() {
        let lane = |running, waiting, io, idle| Lane {
            cpu: None,
            task: None,
            running_ns: vec![running],
            waiting_ns: vec![waiting],
            io_ns: vec![io],
            idle_ns: vec![idle],
            longest: Vec::new(),
        };
        let letters = [(60, 40, 0, 0), (10, 90, 0, 0), (10, 0, 0, 90), (1, 0, 60, 39), (0, 0, 0, 90), (0, 0, 0, 0)];
        let told: String = letters.iter().map(|&(r, w, d, i)| lane(r, w, d, i).drawn(1, Nanos(100))).collect();
        assert_eq!(told, "#w+D. ");
        assert_eq!(lane(1, 1, 1, 1).drawn(2, Nanos(100)), "w ", "there is no second column");
    }

    proptest! {
        #[test]
        fn no_time_is_lost_by_coarser_columns(
            spans in prop::collection::vec((0..1_000_000_000u64, 1..100_000_000u64), 1..50),
            resolution in 1..100_000u64,
        ) {
            let mut lanes = Timeline::new(&Scope::new(&Options::default()));
            (lanes.resolution, lanes.from) = (resolution, Some(Nanos(1)));
            let mut whole = 0;
            for (from, ns) in spans {
                lanes.add(Key::Cpu(Cpu(3)), Nanos(1 + from), Nanos(1 + from + ns), Part::Running, None);
                whole += ns;
            }
            let lane = &lanes.lanes[&Key::Cpu(Cpu(3))];
            prop_assert_eq!(lane.iter().map(|cell| cell.ns[0]).sum::<u64>(), whole);
            prop_assert!(lane.len() <= MAX_COLUMNS);
        }
    }
}
