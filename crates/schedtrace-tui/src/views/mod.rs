//! What can be looked at. A view says what it wants worked out, and makes tables of that; what is drawn above them, if
//! anything, is its own.

mod disks;
mod doctor;
mod events;
mod interrupts;
mod lanes;
mod latency;
mod machine;
mod overview;
mod power;
mod processes;
mod programs;
mod queues;
mod relations;
mod sampled;
mod sql;
mod stacks;
mod system;
mod tasks;
mod timeline;
mod tree;
mod without;

use ratatui::Frame;
use ratatui::layout::Rect;
use schedtrace_core::analysis::{GroupBy, Subject};
use schedtrace_core::{Cpu, Meta, Nanos};

use crate::engine::{Picture, Range, Wants};
use crate::keys::Action;
use crate::machine::{Machine, Part};
use crate::past::Past;
use crate::prompt::Prompt;
use crate::sheet::{Sheet, Target};
use crate::theme::Theme;

/// What a view draws from.
pub(crate) struct Cx<'a> {
    pub(crate) picture: &'a Picture,
    pub(crate) meta: &'a Meta,
    pub(crate) theme: &'a Theme,
    /// What rows are, where that can be chosen.
    pub(crate) by: GroupBy,
    /// The windows before this one, of a machine that runs; nothing where nobody looked.
    pub(crate) past: &'a [Option<Past>],
    /// What the machine says of itself beside events; nothing of a recording.
    pub(crate) machine: Option<&'a Machine>,
    /// What is asked in SQL, and the answer.
    pub(crate) prompt: &'a Prompt,
    /// The moment that is marked, if one is.
    pub(crate) mark: Option<Nanos>,
    /// Why there are no events at all but only what the machine says, where that is so.
    pub(crate) without: Option<&'a str>,
}

impl Cx<'_> {
    /// With the moment that is marked.
    pub(crate) fn marked(self, mark: Option<Nanos>) -> Self {
        Self { mark, ..self }
    }

    /// When the recording began.
    pub(crate) fn origin(&self) -> Nanos {
        self.meta.started
    }
}

/// What a key, or a click, leads to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// It was dealt with.
    Done,
    /// Another view, of somebody if it is.
    Go(Place),
    /// Another stretch of time, in all views.
    Look(Range),
    /// This statement is to be typed on; or none, and what can be asked is to be shown.
    Statement(Option<String>),
    /// Another view, of another stretch of time.
    At(Place, Range),
}

/// A view.
pub(crate) trait View {
    /// What has to be worked out for it, where the screen is so wide.
    fn wants(&self, by: GroupBy, width: u16) -> Wants;

    /// What the machine is asked for it.
    fn machine(&self) -> &'static [Part] {
        &[]
    }

    /// Its tables.
    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet>;

    /// How high that is which stands above the tables.
    fn height(&self, cx: &Cx<'_>, area: Rect) -> u16 {
        let _ = (cx, area);
        0
    }

    /// Draws what stands above the tables.
    fn draw(&mut self, cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
        let _ = (cx, frame, area);
    }

    /// Does what this view does otherwise than others.
    fn act(&mut self, action: Action, cx: &Cx<'_>) -> Option<Effect> {
        let _ = (action, cx);
        None
    }

    /// The time that the cursor is at, and how long it is, where there is one that is no row's.
    fn moment(&self, cx: &Cx<'_>) -> Option<(Nanos, Nanos)> {
        let _ = cx;
        None
    }

    /// Puts the cursor on a thread, or a CPU, and a moment, where it can be there.
    fn point_at(&mut self, tid: u32, cpu: Cpu, at: Nanos) {
        let _ = (tid, cpu, at);
    }

    /// Does what a click there means, where it is not in a table.
    fn click(&mut self, cx: &Cx<'_>, x: u16, y: u16) -> Option<Effect> {
        let _ = (cx, x, y);
        None
    }

    /// What is typed as a filter, where this view has one of its own, which chooses what is worked out.
    fn filter(&self) -> Option<&str> {
        None
    }

    /// Takes another filter of its own.
    fn set_filter(&mut self, text: String) {
        let _ = text;
    }

    /// What can be done here in particular: for the help line.
    fn actions(&self) -> &'static [Action] {
        &[]
    }

    /// Where a row leads.
    fn open(&self, target: &Target) -> Option<Effect> {
        target.subject().map(|who| Effect::Go(Place::of(Name::Task, who)))
    }
}

/// A view, and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: Name,
    pub(crate) of: Option<Subject>,
}

impl Place {
    pub(crate) fn of(name: Name, who: Subject) -> Self {
        Self { name, of: Some(who) }
    }
}

impl From<Name> for Place {
    fn from(name: Name) -> Self {
        Self { name, of: None }
    }
}

/// Declares the views: what they are called, what opens them, and what they show.
macro_rules! views {
    ($($name:ident = $text:literal $action:expr, $about:literal, $make:expr;)*) => {
        /// The name of a view.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Name {
            $($name,)*
        }

        impl Name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub(crate) const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub(crate) const fn about(self) -> &'static str {
                match self { $(Self::$name => $about,)* }
            }

            /// What opens it, if it can be opened from everywhere.
            pub(crate) const fn action(self) -> Option<Action> {
                match self { $(Self::$name => $action,)* }
            }

            pub(crate) fn make(self, of: Option<Subject>) -> Box<dyn View> {
                match self { $(Self::$name => { let make: fn(Option<Subject>) -> Box<dyn View> = $make; make(of) })* }
            }
        }
    };
}

views! {
    Overview = "overview" Some(Action::Overview), "the machine at a glance: CPUs by node and cache, who waited longest and why", |_| Box::new(overview::Overview::default());
    Tasks = "tasks" Some(Action::Tasks), "processes and threads: CPU time, waits, switches, wakeups, migrations", |_| Box::new(tree::Tasks);
    Task = "task" None, "one task in depth: why it was slow, what it waited for, who woke it", |of| Box::new(tasks::Depth::new(of));
    Cpus = "cpus" Some(Action::Cpus), "CPU by CPU: time, waits, queue, switches", |_| Box::new(machine::Places(GroupBy::Cpu));
    Llcs = "llcs" Some(Action::Llcs), "by last-level cache", |_| Box::new(machine::Places(GroupBy::Llc));
    Nodes = "nodes" Some(Action::Nodes), "by NUMA node: queues and how unevenly the load was spread", |_| Box::new(machine::Nodes);
    Cgroups = "cgroups" Some(Action::Cgroups), "cgroup by cgroup", |_| Box::new(machine::Places(GroupBy::Cgroup));
    Timeline = "timeline" Some(Action::Timeline), "what each CPU or thread did, moment by moment", |of| Box::new(timeline::Gantt::new(of));
    Latency = "latency" Some(Action::Latency), "how long tasks waited for a CPU, and the worst cases", |_| Box::new(latency::Latency);
    Events = "events" Some(Action::Events), "the events themselves, with a filter", |_| Box::new(events::Events::default());
    Wakers = "wakers" Some(Action::Wakers), "who wakes whom, and who takes whose CPU", |_| Box::new(relations::Wakers);
    Interrupts = "interrupts" Some(Action::Interrupts), "interrupts, softirqs and IPIs", |_| Box::new(relations::Interrupts);
    BlockIo = "disks" Some(Action::BlockIo), "block devices: requests, latency, who asked", |_| Box::new(disks::Disks);
    SchedExt = "sched_ext" Some(Action::SchedExt), "which scheduler runs, what it tells of itself, and its queues", |_| Box::new(queues::Queues);
    Power = "power" Some(Action::Power), "idle states and frequencies", |_| Box::new(power::Power);
    Memory = "memory" Some(Action::Memory), "memory: what is used for what, faults, swap, time lost for want of it", |_| Box::new(system::Memory);
    Network = "network" Some(Action::Network), "network interfaces: bytes, packets, errors", |_| Box::new(system::Network);
    Programs = "programs" Some(Action::Programs), "BPF programs: who loaded them, how often they run, what that costs", |_| Box::new(programs::Programs);
    Sql = "sql" Some(Action::Sql), "any question in SQL, and its rows", |_| Box::new(sql::Sql);
    Doctor = "doctor" Some(Action::Doctor), "what can be recorded here, what is missing, and how to get it", |_| Box::new(doctor::Doctor);
}

impl Name {
    /// The view of a machine without events: what it has without, or why it has nothing.
    pub(crate) fn make_without(self, of: Option<Subject>, why: &str) -> Box<dyn View> {
        match self {
            Self::Overview => Box::new(system::Glance),
            Self::Cpus => Box::new(system::Cpus),
            Self::Tasks => Box::new(processes::Processes),
            Self::BlockIo
            | Self::Doctor
            | Self::Interrupts
            | Self::Memory
            | Self::Network
            | Self::Power
            | Self::Programs
            | Self::SchedExt => self.make(of),
            _ => Box::new(without::Without::new(why)),
        }
    }
}
