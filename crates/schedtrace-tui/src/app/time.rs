//! Which time is looked at: a stretch that is marked, a recording that is played, the longest waits one after another.

use std::time::{Duration, Instant};

use schedtrace_core::analysis::WorstWait;
use schedtrace_core::{Nanos, Window};

use super::{App, SHORTEST, newest};
use crate::engine::Range;
use crate::jobs::{Done, waits};
use crate::keys::Action;
use crate::origin::Store;
use crate::replay::Replay;
use crate::sheet::Target;

/// How often a replay is drawn, at most.
const FRAME: Duration = Duration::from_millis(100);
/// So much is shown before a wait and after it, at least.
const AROUND: Nanos = Nanos(100_000);

/// A time that the cursor is at.
#[derive(Clone, Copy, Debug)]
struct Mark {
    from: Nanos,
    until: Nanos,
    /// A column of the timeline: it is as long as the zoom makes it.
    is_column: bool,
}

impl Mark {
    /// From the beginning of the first to the end of the last. What was a column has the length of one now.
    fn to(self, last: Self) -> (Nanos, Nanos) {
        let length = self.until - self.from;
        let until =
            if self.is_column && last.is_column { self.from + length.min(last.until - last.from) } else { self.until };
        let from = self.from.min(last.from);
        (from, until.max(last.until).max(from + SHORTEST))
    }
}

#[derive(Debug, Default)]
pub(super) struct Time {
    /// The first of two marks.
    mark: Option<Mark>,
    pub(super) replay: Option<Replay>,
    /// When the replay was drawn last.
    drawn: Option<Instant>,
    /// The longest waits, in the order of time.
    waits: Option<Vec<WorstWait>>,
    /// At which of them one is.
    at: Option<usize>,
    /// They are looked for; whether the next is wanted then, or the one before.
    wanted: Option<bool>,
}

impl Time {
    /// The moment that is marked.
    pub(super) fn mark(&self) -> Option<Nanos> {
        self.mark.map(|mark| mark.from)
    }
}

impl App {
    /// Another time is looked at: what is played is not any more.
    pub(super) fn set_range(&mut self, range: Range) {
        self.time.replay = None;
        self.range = range;
    }

    /// All that there is, or what goes on.
    pub(super) fn all_time(&self) -> Range {
        if self.origin.is_live() { newest(self.settings.interval) } else { Range::All }
    }

    /// From when to when there is something to look at.
    pub(super) fn extent(&self) -> Option<Window> {
        self.origin.store().extent().ok()
    }

    /// The time that was chosen, whether its picture is there or not.
    pub(super) fn chosen(&self) -> Option<Window> {
        self.extent().map(|extent| self.range.within(extent))
    }

    /// Takes the first mark away; whether there was one.
    pub(super) fn unmark(&mut self) -> bool {
        self.time.mark.take().is_some()
    }

    /// Marks a time, or selects what lies between the two.
    pub(super) fn select(&mut self) {
        let Some(here) = self.moment() else {
            let why = "there is no time here: mark one on the timeline, or in a table of moments (the longest waits)";
            self.message = Some(why.to_owned());
            return;
        };
        let seconds = |at: Nanos| (at - self.origin.meta().started).0 as f64 / 1e9;
        match self.time.mark.take() {
            None => {
                self.message =
                    Some(format!("marked {:.6} s: a second mark selects what lies between", seconds(here.from)));
                self.time.mark = Some(here);
            }
            Some(mark) => {
                let (from, until) = mark.to(here);
                self.set_range(Range::Between(from, until));
                self.message = Some("only the selected time is looked at: 0 for all of it".to_owned());
            }
        }
    }

    /// What time the cursor is at, if it is at one.
    fn moment(&self) -> Option<Mark> {
        let picture = self.picture.as_ref()?;
        let cx =
            super::cx(picture, &self.origin, &self.theme, self.by, &self.past, self.machine.as_ref(), &self.prompt);
        let shown = &self.views[self.at];
        if let Some((at, length)) = shown.view.moment(&cx) {
            return Some(Mark { from: at, until: at + length, is_column: true });
        }
        let (grid, sheet) = shown.grids.get(shown.panel).zip(self.sheets.get(shown.panel))?;
        match grid.row(sheet)?.target {
            Target::Moment { from, until, .. } => Some(Mark { from, until, is_column: false }),
            _ => None,
        }
    }

    /// Holds what is live, or plays what was recorded.
    pub(super) fn play_or_hold(&mut self) {
        if self.origin.is_live() {
            self.paused = !self.paused;
            return;
        }
        let Some(extent) = self.extent() else { return };
        let (at, length) = match self.range {
            Range::Between(from, until) => (from, until - from),
            // Of a short recording, a part that leaves something to move through.
            Range::All | Range::Newest(_) => {
                let most = Nanos(extent.duration_ns.0 / 10);
                (extent.from_ns, Nanos::from(self.settings.interval).min(most))
            }
        };
        let replay = self.time.replay.get_or_insert_with(|| Replay::new(at, length));
        if replay.is_playing() {
            replay.hold();
            return;
        }
        if replay.window(extent).1 >= extent.until_ns {
            replay.seek(extent.from_ns, extent);
        }
        replay.play(Instant::now());
        self.message = Some("+ and - change how fast, { and } seek, Space holds, 0 ends it".to_owned());
        self.show_replay();
    }

    fn show_replay(&mut self) {
        if let Some((replay, extent)) = self.time.replay.as_ref().zip(self.extent()) {
            let (from, until) = replay.window(extent);
            self.range = Range::Between(from, until);
        }
    }

    /// How long it may be until the replay goes on.
    pub(super) fn replay_patience(&self) -> Option<Duration> {
        self.time.replay.as_ref().filter(|replay| replay.is_playing())?;
        Some(self.time.drawn.map_or(Duration::ZERO, |drawn| FRAME.saturating_sub(drawn.elapsed())))
    }

    /// Moves the replay on, if what was asked is answered: else nothing would ever be.
    pub(super) fn replay_on(&mut self) {
        let answered = !self.is_waiting;
        let is_due = self.replay_patience() == Some(Duration::ZERO);
        let (true, true, Some(extent)) = (answered, is_due, self.extent()) else { return };
        let now = Instant::now();
        if let Some(replay) = &mut self.time.replay {
            self.time.drawn = Some(now);
            replay.go_on(now, extent);
            if !replay.is_playing() {
                self.message = Some("the recording ends here: Space plays it again".to_owned());
            }
            self.show_replay();
        }
    }

    pub(super) fn hold_replay(&mut self) {
        if let Some(replay) = &mut self.time.replay {
            replay.hold();
        }
    }

    /// Where the replay is, for the headline.
    pub(super) fn replay_told(&self) -> Option<String> {
        self.time
            .replay
            .as_ref()
            .zip(self.extent())
            .map(|(replay, extent)| replay.told(extent, self.origin.meta().started))
    }

    /// Seeks in what is played; whether there is anything.
    pub(super) fn seek(&mut self, action: Action) -> bool {
        let extent = self.extent();
        let Some((replay, extent)) = self.time.replay.as_mut().zip(extent) else { return false };
        match action {
            Action::Earlier => replay.step(-1.0, extent),
            Action::Later => replay.step(1.0, extent),
            Action::First if replay.is_playing() => replay.seek(extent.from_ns, extent),
            Action::Last if replay.is_playing() => replay.seek(extent.until_ns, extent),
            Action::Begin => replay.seek(extent.from_ns, extent),
            Action::End => replay.seek(extent.until_ns, extent),
            Action::Faster | Action::Slower => replay.change(action == Action::Faster),
            _ => return false,
        }
        self.show_replay();
        true
    }

    /// The first stretch, or the last, as long as the one that is looked at.
    pub(super) fn edge(&mut self, action: Action) {
        let Some((extent, chosen)) = self.extent().zip(self.chosen()) else { return };
        let length = chosen.duration_ns;
        if length >= extent.duration_ns {
            self.message = Some("all of it is looked at: zoom in first".to_owned());
            return;
        }
        let range = match action {
            Action::Begin => Range::Between(extent.from_ns, extent.from_ns + length),
            _ => Range::Between(extent.until_ns - length, extent.until_ns),
        };
        self.set_range(range);
    }

    /// What is kept of what goes on is held where somebody looks at it, and goes on with the rest where nobody does.
    pub(super) fn hold_what_is_looked_at(&mut self) {
        let is_followed = self.is_followed();
        if let Store::Live(kept) = self.origin.store() {
            kept.hold(!is_followed);
        }
        if is_followed {
            (self.time.waits, self.time.at) = (None, None);
        }
    }

    /// Back to all that there is, or to what goes on.
    pub(super) fn leave(&mut self) {
        self.paused = false;
        self.set_range(self.all_time());
    }

    /// Goes to the next of the longest waits, or the one before; looks for them first.
    pub(super) fn anomaly(&mut self, forward: bool) {
        if self.time.waits.is_some() && !self.is_followed() {
            self.walk(forward);
            return;
        }
        if let Store::Live(kept) = self.origin.store() {
            // What is found is to be there still when it is looked at.
            self.paused = true;
            kept.hold(true);
        }
        let store = self.origin.store().clone();
        let (waiting, started) = (self.time.wanted.replace(forward).is_some(), "looking for the longest waits");
        let start = || self.out.jobs.look(move || waits(&store));
        self.message = Some(match if waiting { Ok(()) } else { start() } {
            Ok(()) => started.to_owned(),
            Err(error) => error.to_string(),
        });
    }

    /// Takes what was found.
    pub(super) fn found(&mut self, done: Done) {
        match done {
            Done::Told(told) | Done::Failed(told) => self.message = Some(told),
            Done::Counted(counts) => self.counted(counts),
            Done::Answer(serial, answer) => self.answered(serial, *answer),
            Done::NoWaits(why) => {
                self.time.wanted = None;
                self.message = Some(why);
            }
            Done::Waits(waits) => {
                let forward = self.time.wanted.take().unwrap_or(true);
                // Else somebody has gone back to what goes on.
                if !self.is_followed() {
                    (self.time.waits, self.time.at) = (Some(waits), None);
                    self.walk(forward);
                }
            }
        }
    }

    fn walk(&mut self, forward: bool) {
        let Some(waits) = self.time.waits.as_ref().filter(|waits| !waits.is_empty()) else {
            self.message = Some("nobody waited for a CPU".to_owned());
            return;
        };
        let window = self.chosen().unwrap_or_default();
        let to = match (self.time.at, forward) {
            (Some(at), true) => Some(at + 1).filter(|at| *at < waits.len()),
            (Some(at), false) => at.checked_sub(1),
            (None, true) => waits.iter().position(|wait| wait.from_ns >= window.from_ns).or(Some(0)),
            (None, false) => waits.iter().rposition(|wait| wait.from_ns <= window.until_ns).or(Some(waits.len() - 1)),
        };
        let Some((at, wait)) = to.and_then(|at| Some((at, waits.get(at)?))) else {
            let last = if forward { "last" } else { "first" };
            self.message = Some(format!("this is the {last} of the {} longest waits", waits.len()));
            return;
        };
        let (length, until) = (Nanos(wait.wait_ns), wait.from_ns + Nanos(wait.wait_ns));
        let margin = length.max(AROUND);
        let range = Range::Between(wait.from_ns - margin, until + margin);
        let longer = waits.iter().filter(|other| other.wait_ns > wait.wait_ns).count();
        let told = format!(
            "wait {} of {}: {}, {}, CPU {}, {}: the {} longest",
            at + 1,
            waits.len(),
            length,
            wait.task,
            wait.cpu,
            wait.cause.name(),
            ordinal(longer + 1)
        );
        self.time.at = Some(at);
        let (tid, cpu, from) = (wait.task.tid, wait.cpu, wait.from_ns);
        self.set_range(range);
        self.views[self.at].view.point_at(tid, cpu, from);
        self.message = Some(told);
    }
}

/// `1st`, `2nd`, `3rd`, `4th`.
fn ordinal(n: usize) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_two_marks_has_both() {
        let mark = |from, until, is_column| Mark { from: Nanos(from), until: Nanos(until), is_column };
        let between = |first: Mark, last: Mark| {
            let (from, until) = first.to(last);
            (from.0, until.0)
        };
        let (row, column) = (mark(10_000, 90_000, false), mark(50_000, 60_000, true));
        assert_eq!(between(row, column), (10_000, 90_000));
        assert_eq!(between(column, mark(20_000, 30_000, true)), (20_000, 60_000));
        // Marked, zoomed in, and marked again: what was one column fills the screen now.
        let (coarse, fine) = (mark(0, 1_000_000, true), mark(4_000, 6_000, true));
        assert_eq!(between(coarse, fine), (0, 6_000));
        assert_eq!(between(mark(7, 7, false), mark(7, 7, false)), (7, 1_007), "there is something to see in it");
    }
}
