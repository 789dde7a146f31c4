//! What each CPU or thread did, moment by moment: a column of the screen is a stretch of time.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use schedtrace_core::analysis::{GroupBy, Lane, Lanes, Subject, TimelineReport, Who};
use schedtrace_core::{Context, Cpu, EventKind, LoggedEvent, Nanos, Waker, Window};

use super::lanes::{self, LABEL, column, moment};
use super::{Cx, Effect, Name, Place, View};
use crate::engine::{Lined, Log, Range, Wants};
use crate::keys::Action;
use crate::sheet::{Sheet, printable};

/// Lines besides the lanes: two above, two below.
const AROUND: u16 = 4;
/// The shortest stretch of time that is looked at.
const SHORTEST: u64 = 1_000;

/// Whose a lane is: a CPU's or a thread's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Cpu(Cpu),
    Thread(u32),
}

impl Whose {
    fn of(lane: &Lane) -> Option<Self> {
        lane.cpu.map(Self::Cpu).or_else(|| lane.task.as_ref().map(|who| Self::Thread(who.tid)))
    }
}

pub(super) struct Gantt {
    lanes: Lanes,
    subject: Option<Subject>,
    /// Where one looks: lane and column.
    at: (usize, usize),
    /// Whose lane that is; the cursor stays in it when lanes come, go, or stand in another order.
    on: Option<Whose>,
    /// The moment that is there; it stays under the cursor when another stretch of time is looked at.
    when: Option<Nanos>,
    names: bool,
    offset: usize,
    rows: usize,
    /// Where the lanes were drawn: for the mouse.
    drawn: Rect,
    /// Who is followed from waking to waking, if not whoever is under the cursor.
    followed: Option<u32>,
    /// Which waking is looked for, and whether it was not found yet.
    waking: Option<Log>,
    sought: bool,
    /// What was found, or not.
    told: Option<String>,
}

impl Gantt {
    pub(super) fn new(of: Option<Subject>) -> Self {
        Self {
            lanes: if of.is_some() { Lanes::Tasks } else { Lanes::Cpus },
            subject: of,
            at: (0, 0),
            on: None,
            when: None,
            names: true,
            offset: 0,
            rows: 1,
            drawn: Rect::default(),
            followed: None,
            waking: None,
            sought: false,
            told: None,
        }
    }
}

impl View for Gantt {
    fn wants(&self, _: GroupBy, width: u16) -> Wants {
        let columns = width.saturating_sub(LABEL).max(10);
        let timeline = Some(Lined { lanes: self.lanes, columns, subject: self.subject });
        Wants { timeline, log: self.waking.clone(), ..Wants::default() }
    }

    fn sheets(&self, _: &Cx<'_>) -> Vec<Sheet> {
        Vec::new()
    }

    fn height(&self, _: &Cx<'_>, area: Rect) -> u16 {
        area.height
    }

    fn draw(&mut self, cx: &Cx<'_>, frame: &mut Frame<'_>, area: Rect) {
        let Some(timeline) = report(cx) else { return };
        self.find_waker(cx, timeline);
        self.place(timeline);
        let (theme, shown) = (cx.theme, timeline.lanes.len());
        let rows = area.height.saturating_sub(AROUND);
        self.rows = usize::from(rows).max(1);
        let offset = self.offset.min(shown.saturating_sub(self.rows));
        self.offset = offset.clamp((self.at.0 + 1).saturating_sub(self.rows), self.at.0);
        self.drawn = Rect {
            x: area.x.saturating_add(LABEL),
            y: area.y.saturating_add(2),
            width: area.width.saturating_sub(LABEL),
            height: rows,
        };
        let until = moment(timeline, timeline.columns);
        let mut lines = vec![
            Line::from(format!(
                "{:<label$}{:.6} s {} {:.6} s, {} a column",
                format!("{shown} of {}", timeline.lanes_total),
                seconds(cx, timeline.from_ns),
                theme.glyphs.rule.repeat(3),
                seconds(cx, until),
                timeline.resolution_ns,
                label = usize::from(LABEL)
            )),
            lanes::ruler(timeline, cx.mark, theme),
        ];
        for (at, lane) in timeline.lanes.iter().enumerate().skip(self.offset).take(usize::from(rows)) {
            let cursor = (at == self.at.0).then_some(self.at.1);
            lines.push(lanes::line(lane, timeline, lanes::Look { cursor, names: self.names }, theme));
        }
        lines.resize(usize::from(area.height.saturating_sub(2)), Line::default());
        lines.push(self.under_cursor(cx));
        lines.push(Line::from(lanes::legend(self.lanes, theme, area.width)).style(theme.dim));
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn act(&mut self, action: Action, cx: &Cx<'_>) -> Option<Effect> {
        let timeline = report(cx)?;
        let (lane, column) = self.at;
        let (last, step) = (timeline.columns.saturating_sub(1), (timeline.columns / 10).max(1));
        let told = self.told.take();
        match action {
            Action::Up => self.go(timeline, lane.saturating_sub(1), column),
            Action::Down => self.go(timeline, lane + 1, column),
            Action::PageUp => self.go(timeline, lane.saturating_sub(self.rows), column),
            Action::PageDown => self.go(timeline, lane + self.rows, column),
            // Beyond the edge it goes on.
            Action::Left if column == 0 => return Some(self.pan(cx, timeline, -1, 10)),
            Action::Right if column >= last => return Some(self.pan(cx, timeline, 1, 10)),
            Action::Left => self.go(timeline, lane, column - 1),
            Action::Right => self.go(timeline, lane, column + 1),
            Action::First => self.go(timeline, lane, column.saturating_sub(step)),
            Action::Last => self.go(timeline, lane, column + step),
            Action::Earlier => return Some(self.pan(cx, timeline, -1, 2)),
            Action::Later => return Some(self.pan(cx, timeline, 1, 2)),
            Action::ZoomIn => return Some(self.zoom(cx, timeline, 1, 2)),
            Action::ZoomOut => return Some(self.zoom(cx, timeline, 2, 1)),
            Action::Group => {
                self.lanes = if self.lanes == Lanes::Cpus { Lanes::Tasks } else { Lanes::Cpus };
                (self.at.0, self.on, self.followed) = (0, None, None);
            }
            Action::Names => self.names = !self.names,
            Action::Follow => self.follow(cx, timeline),
            Action::Open => return Some(self.open_lane(cx)),
            Action::Explain => return Some(self.explain(cx, timeline)),
            _ => {
                self.told = told;
                return None;
            }
        }
        Some(Effect::Done)
    }

    /// When the column under the cursor begins, and how long it is.
    fn moment(&self, cx: &Cx<'_>) -> Option<(Nanos, Nanos)> {
        let timeline = report(cx)?;
        Some((moment(timeline, self.at.1), timeline.resolution_ns))
    }

    fn click(&mut self, cx: &Cx<'_>, x: u16, y: u16) -> Option<Effect> {
        let timeline = report(cx)?;
        if !self.drawn.contains(Position { x, y }) {
            return None;
        }
        let (lane, column) = (self.offset + usize::from(y - self.drawn.y), usize::from(x - self.drawn.x));
        self.told = None;
        self.go(timeline, lane, column);
        Some(Effect::Done)
    }

    fn point_at(&mut self, tid: u32, cpu: Cpu, at: Nanos) {
        (self.when, self.followed, self.told) = (Some(at), None, None);
        self.on = Some(if self.lanes == Lanes::Cpus { Whose::Cpu(cpu) } else { Whose::Thread(tid) });
    }

    fn actions(&self) -> &'static [Action] {
        &[
            Action::Follow,
            Action::Explain,
            Action::Group,
            Action::ZoomIn,
            Action::ZoomOut,
            Action::Select,
            Action::NextAnomaly,
            Action::Names,
            Action::Earlier,
            Action::Later,
        ]
    }
}

fn report<'a>(cx: &Cx<'a>) -> Option<&'a TimelineReport> {
    cx.picture.timeline.as_ref().map(|timeline| &timeline.answer)
}

fn seconds(cx: &Cx<'_>, at: Nanos) -> f64 {
    (at - cx.origin()).0 as f64 / 1e9
}

/// A stretch of time of this length, moved to lie within all that there is.
fn within(extent: Window, from: Nanos, length: u64) -> Range {
    let length = length.max(SHORTEST).min(extent.duration_ns.0);
    let last = extent.until_ns - Nanos(length);
    let from = from.clamp(extent.from_ns, last.max(extent.from_ns));
    Range::Between(from, from + Nanos(length))
}

/// So many parts of a length.
fn part(length: u64, parts: u64, of: u64) -> u64 {
    u64::try_from(u128::from(length) * u128::from(parts) / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

impl Gantt {
    fn lane<'a>(&self, cx: &Cx<'a>) -> Option<&'a Lane> {
        report(cx)?.lanes.get(self.at.0)
    }

    /// Who is under the cursor: the task of the lane, or who had the CPU for longest.
    fn who<'a>(&self, cx: &Cx<'a>) -> Option<&'a Who> {
        let lane = self.lane(cx)?;
        let who = lane.task.as_ref().or_else(|| lane.longest.get(self.at.1)?.as_ref());
        who.filter(|who| who.tid > 0)
    }

    /// Moves the cursor.
    fn go(&mut self, timeline: &TimelineReport, lane: usize, column: usize) {
        self.at = (lane.min(timeline.lanes.len().saturating_sub(1)), column.min(timeline.columns.saturating_sub(1)));
        self.on = timeline.lanes.get(self.at.0).and_then(Whose::of);
        self.when = Some(moment(timeline, self.at.1));
        self.followed = None;
    }

    /// Puts the cursor on its moment and into its lane, where these are on the screen.
    fn place(&mut self, timeline: &TimelineReport) {
        if let Some(at) = self.on.and_then(|on| timeline.lanes.iter().position(|lane| Whose::of(lane) == Some(on))) {
            self.at.0 = at;
        }
        if let Some(at) = self.when.and_then(|when| column(timeline, when)) {
            self.at.1 = at;
        }
        self.at.0 = self.at.0.min(timeline.lanes.len().saturating_sub(1));
        self.at.1 = self.at.1.min(timeline.columns.saturating_sub(1));
    }

    /// Shorter or longer, with the cursor where it is.
    fn zoom(&mut self, cx: &Cx<'_>, timeline: &TimelineReport, parts: u64, of: u64) -> Effect {
        let (window, extent) = (cx.picture.window, cx.picture.extent);
        let length = part(window.duration_ns.0, parts, of).max(SHORTEST);
        let when = self.when.filter(|when| column(timeline, *when).is_some());
        let when = *self.when.insert(when.unwrap_or_else(|| moment(timeline, self.at.1)));
        if length >= extent.duration_ns.0 {
            return Effect::Look(Range::All);
        }
        let before = part((when - window.from_ns).0, length, window.duration_ns.0);
        Effect::Look(within(extent, when - Nanos(before), length))
    }

    /// A part of the window earlier or later; the cursor stays where it is on the screen, but for what was at the edge.
    fn pan(&mut self, cx: &Cx<'_>, timeline: &TimelineReport, direction: i8, of: u64) -> Effect {
        let (window, extent) = (cx.picture.window, cx.picture.extent);
        let by = Nanos(part(window.duration_ns.0, 1, of).max(1));
        let from = if direction < 0 { window.from_ns - by } else { window.from_ns + by };
        let to = within(extent, from, window.duration_ns.0);
        if to == Range::Between(window.from_ns, window.until_ns) {
            self.told = Some("there is no more in that direction".to_owned());
            return Effect::Done;
        }
        self.when = match direction {
            _ if of == 2 => None,
            // One column beyond the edge.
            ..0 => Some(timeline.from_ns - Nanos(1)),
            _ => Some(moment(timeline, timeline.columns)),
        };
        Effect::Look(to)
    }

    /// Asks who woke whoever is under the cursor, for the last time before the end of the column.
    fn follow(&mut self, cx: &Cx<'_>, timeline: &TimelineReport) {
        let Some(tid) = self.followed.or_else(|| self.who(cx).map(|who| who.tid)) else {
            self.told = Some("nobody is here whose waking could be looked for".to_owned());
            return;
        };
        // From waking to waking, strictly back in time.
        let until = match (self.followed, self.when) {
            (Some(_), Some(when)) => when,
            _ => moment(timeline, self.at.1 + 1),
        };
        self.waking = Some(Log { filter: format!("sched_waking.pid = {tid}"), until: Some(until), most: 1 });
        self.sought = true;
        self.told = Some("looking for the waking".to_owned());
    }

    /// Goes where the waking was, once it is known.
    fn find_waker(&mut self, cx: &Cx<'_>, timeline: &TimelineReport) {
        let Some(logged) =
            cx.picture.log.as_ref().filter(|logged| self.sought && self.waking.as_ref() == Some(&logged.of))
        else {
            return;
        };
        self.sought = false;
        self.told = Some(match logged.events.last() {
            None => "it was not woken before this in this stretch of time: Z shows more of it".to_owned(),
            Some(waking) => self.go_to_waker(cx, timeline, waking),
        });
    }

    fn go_to_waker(&mut self, cx: &Cx<'_>, timeline: &TimelineReport, waking: &LoggedEvent) -> String {
        let EventKind::Waking(what) = waking.event.kind else { return String::new() };
        let name = |task: Option<schedtrace_core::Task>| {
            task.map_or_else(|| "?".to_owned(), |task| format!("{}[{}]", task.comm, task.tid))
        };
        let current = waking.other.map(|task| task.tid).filter(|tid| *tid > 0);
        let (by, waker) = match what.waker() {
            Waker::Interrupt(context) => (format!("an interrupt ({})", Context::name(context)), None),
            Waker::Task(_) => (name(waking.other), current),
        };
        let (at, cpu) = (waking.event.ts, waking.event.cpu);
        let is_there = |lane: &Lane| match &lane.task {
            Some(who) => waker == Some(who.tid),
            None => lane.cpu == Some(cpu),
        };
        let lane = timeline.lanes.iter().position(is_there);
        if let Some(lane) = lane {
            (self.at.0, self.on) = (lane, Whose::of(&timeline.lanes[lane]));
        }
        (self.when, self.followed) = (Some(at), waker);
        let missing = if lane.is_none() { ", who has no lane here" } else { "" };
        printable(&format!("{} was woken by {by}{missing} on CPU {cpu} at {:.6} s", name(waking.task), seconds(cx, at)))
    }

    /// From a CPU, or one of all tasks, to the threads of a process; from one of these to all that is known of it.
    fn open_lane(&mut self, cx: &Cx<'_>) -> Effect {
        let Some(who) = self.who(cx) else {
            self.told = Some("nobody is here who could be looked at".to_owned());
            return Effect::Done;
        };
        Effect::Go(match self.subject {
            Some(_) => Place::of(Name::Task, Subject::Thread(who.tid)),
            None => Place::of(Name::Timeline, Subject::Process(who.pid)),
        })
    }

    /// Why whoever is here was slow: between mark and cursor, or in a stretch around the cursor.
    fn explain(&mut self, cx: &Cx<'_>, timeline: &TimelineReport) -> Effect {
        let Some(who) = self.who(cx) else {
            self.told = Some("nobody is here whose time could be explained".to_owned());
            return Effect::Done;
        };
        let (window, extent) = (cx.picture.window, cx.picture.extent);
        let (at, until) = (moment(timeline, self.at.1), moment(timeline, self.at.1 + 1));
        let range = match cx.mark {
            Some(mark) => Range::Between(mark.min(at), mark.max(until)),
            None => {
                let length = part(window.duration_ns.0, 1, 5);
                within(extent, at - Nanos(length / 2), length)
            }
        };
        Effect::At(Place::of(Name::Task, Subject::Thread(who.tid)), range)
    }

    /// What is where one looks.
    fn under_cursor(&self, cx: &Cx<'_>) -> Line<'static> {
        let (Some(lane), Some(timeline)) = (self.lane(cx), report(cx)) else {
            return Line::from(match self.subject {
                None => "nothing happened in this time: press 0 for all of it",
                Some(_) => {
                    "it did nothing in this time, or it is the recorder, which is left out: press 0 for all of it"
                }
            });
        };
        if let Some(told) = &self.told {
            return Line::from(told.clone()).style(cx.theme.key);
        }
        let at = moment(timeline, self.at.1);
        let of = |all: &[u64]| Nanos(all.get(self.at.1).copied().unwrap_or(0)).to_string();
        let who = lane.longest.get(self.at.1).and_then(Option::as_ref);
        let who = who.map_or(String::new(), |who| format!(", longest {}", printable(&who.to_string())));
        let distance = cx.mark.map_or(String::new(), |mark| match (mark <= at, at.max(mark) - at.min(mark)) {
            (true, far) => format!("{far} after the mark, "),
            (false, far) => format!("{far} before the mark, "),
        });
        Line::from(format!(
            "{distance}at {:.6} s, of {}: {} {}, waited {}, {} {}{who}",
            seconds(cx, at),
            timeline.resolution_ns,
            if lane.cpu.is_some() { "busy" } else { "ran" },
            of(&lane.running_ns),
            of(&lane.waiting_ns),
            if lane.cpu.is_some() { "idle" } else { "slept" },
            of(&lane.idle_ns)
        ))
    }
}
