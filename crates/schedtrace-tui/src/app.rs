//! The state of the screen: which view of which time, and what keys do to it. It knows no terminal.

mod asking;
mod input;
mod out;
mod picking;
mod sampling;
mod time;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ratatui::Frame;
use schedtrace_core::analysis::{GroupBy, ReportName};
use schedtrace_core::{Error, Kind, Nanos, Result};

pub(crate) use self::out::{What, Wish};
use crate::config::{Chosen, Sorted, State};
use crate::draw;
use crate::engine::{Ask, Engine, Picture, Range, Told, Wants};
use crate::grid::Grid;
use crate::keys::{Action, Bindings};
use crate::line::Line;
use crate::machine::{Machine, Sampler};
use crate::origin::Origin;
use crate::past::{Curve, Past};
use crate::picker::Picker;
use crate::prompt::Prompt;
use crate::settings::{Settings, no_view, view_of};
use crate::sheet::Sheet;
use crate::theme::{Look, Theme};
use crate::views::{Cx, Name, Place, View};

/// Windows that are so many intervals apart do not follow each other.
const HELD: u32 = 8;
/// Pictures of what goes on are worked out in no more than one part of the time out of so many.
const RESTS: u32 = 4;
/// So many views one can go back.
const BACK: usize = 50;
/// What can be typed as a filter of a table.
const FILTERS: &str = "a text, or `p99 > 1ms and who ~ nginx`";
/// The shortest stretch of time that can be selected.
const SHORTEST: Nanos = Nanos(1_000);

/// A view as it was left.
struct Shown {
    place: Place,
    view: Box<dyn View>,
    grids: Vec<Grid>,
    panel: usize,
}

impl Shown {
    fn new(place: Place, origin: &Origin) -> Self {
        let view = match origin.without() {
            Some(why) => place.name.make_without(place.of, why),
            None => place.name.make(place.of),
        };
        Self { place, view, grids: Vec::new(), panel: 0 }
    }
}

/// What lies over the view.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Over {
    #[default]
    Nothing,
    /// Scrolled down by so many lines.
    Help(u16),
    /// Keys go to the filter.
    Filter(Line),
    /// Keys go to the text that is searched.
    Search(Line),
    /// Keys go to the name of what is to be written.
    Name { what: What, line: Line },
    /// Everything that can be done whose name has this, and which is selected.
    Palette { line: Line, at: usize },
    /// What can be on or off.
    Picker(Picker),
}

/// The screen.
pub struct App {
    origin: Origin,
    engine: Engine,
    settings: Settings,
    theme: Theme,
    bindings: Bindings,
    views: Vec<Shown>,
    at: usize,
    by: GroupBy,
    range: Range,
    paused: bool,
    over: Over,
    picture: Option<Picture>,
    /// Asked beside the events, where it is this machine.
    sampler: Option<Sampler>,
    machine: Option<Machine>,
    sheets: Vec<Sheet>,
    past: Curve,
    asked: Option<(u64, Ask)>,
    asked_at: Instant,
    /// The answer to that has not come.
    is_waiting: bool,
    due: Instant,
    width: u16,
    /// A line that tells what was done, or why not.
    message: Option<String>,
    /// The stream has ended, and that was told.
    has_ended: bool,
    /// Why what was asked last could not be answered.
    failed: Option<String>,
    /// What was searched last.
    search: String,
    time: time::Time,
    out: out::Out,
    prompt: Prompt,
    /// By what tables were sorted, and what colours were chosen: for the next time.
    sorts: Vec<Sorted>,
    /// Which columns were shown or hidden, beside the configuration.
    columns: Vec<Chosen>,
    /// How many events there were of each kind, when that was asked last.
    counts: Option<BTreeMap<Kind, u64>>,
    /// It is to begin anew, with these events.
    again: Option<String>,
    chosen: Option<Look>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("origin", &self.origin).field("view", &self.name()).finish_non_exhaustive()
    }
}

impl App {
    /// Looks at something.
    ///
    /// # Errors
    /// If no thread can be started; [`Error::Invalid`] if the settings name a view, a key or something to do that there is not.
    pub fn new(mut origin: Origin, settings: Settings) -> Result<Self> {
        settings.check()?;
        let engine = Engine::start(origin.store().clone())?;
        let theme = Theme::new(settings.look, settings.ascii);
        let range = if origin.is_live() { newest(settings.interval) } else { Range::All };
        let helper = origin.take_helper();
        let sampler = origin.is_here().then(|| Sampler::start("/".into(), helper, engine.ring()?)).transpose()?;
        let (bindings, left) = Bindings::chosen(&settings.keys).map_err(Error::Invalid)?;
        let left: Vec<_> = left.iter().map(|action| format!("`{}`", action.name())).collect();
        let message = (!left.is_empty())
            .then(|| format!("as keys were chosen, {} has none: `:` finds it by name", left.join(", ")));
        let remembered = settings.remembered.as_ref().map(|it| it.state.clone()).unwrap_or_default();
        let view = match &settings.view {
            Some(name) => view_of(name).ok_or_else(|| no_view(name))?,
            None => remembered.view.as_deref().and_then(view_of).unwrap_or(Name::Overview),
        };
        let views = vec![Shown::new(view.into(), &origin)];
        Ok(Self {
            origin,
            engine,
            settings,
            theme,
            bindings,
            views,
            at: 0,
            by: remembered.by.unwrap_or(GroupBy::Task),
            range,
            paused: false,
            over: Over::Nothing,
            picture: None,
            machine: sampler.is_some().then(Machine::default),
            sampler,
            sheets: Vec::new(),
            past: Curve::default(),
            asked: None,
            asked_at: Instant::now(),
            is_waiting: false,
            due: Instant::now(),
            width: 80,
            message,
            has_ended: false,
            failed: None,
            search: String::new(),
            time: time::Time::default(),
            out: out::Out::new()?,
            prompt: Prompt::default(),
            sorts: remembered.sort,
            columns: remembered.column,
            counts: None,
            again: None,
            chosen: remembered.theme,
        })
    }

    /// What is to be remembered for the next time.
    pub(crate) fn remembered(&self) -> State {
        let view = Some(self.name()).filter(|name| name.action().is_some()).map(|name| name.text().to_owned());
        State { view, by: Some(self.by), theme: self.chosen, sort: self.sorts.clone(), column: self.columns.clone() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// With which events it is to begin anew, if it is.
    pub(crate) fn again(&mut self) -> Option<String> {
        self.again.take()
    }

    /// How long it may be until there is something to do, if nothing comes meanwhile.
    pub(crate) fn patience(&self) -> Duration {
        // While an answer is waited for, the next question waits too; its bell is heard.
        let asks = self.is_followed() && !self.is_waiting;
        let followed = if asks { self.due.saturating_duration_since(Instant::now()) } else { Duration::MAX };
        self.replay_patience().map_or(followed, |replay| replay.min(followed))
    }

    /// What is readable when there is something to take.
    pub(crate) fn bells(&self) -> [&std::io::PipeReader; 2] {
        [self.engine.bell(), self.out.jobs.bell()]
    }

    /// Asks what is to be asked, and takes what was answered; whether the screen has changed.
    ///
    /// ```
    /// # use schedtrace_core::flight::WindowOptions;
    /// # use schedtrace_core::synthetic::SyntheticHost;
    /// # use schedtrace_tui::{App, Origin, Settings};
    /// # let origin = Origin::live(SyntheticHost::new().start(), || (), WindowOptions::default())?;
    /// let mut app = App::new(origin, Settings::default())?;
    /// let is_to_be_drawn = app.tick();
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn tick(&mut self) -> bool {
        let mut changed = false;
        while let Some(told) = self.engine.told() {
            changed = true;
            self.take(told);
        }
        changed |= self.sample();
        while let Some(done) = self.out.jobs.told() {
            changed = true;
            self.found(done);
        }
        if let Some(why) = self.origin.ended()
            && !std::mem::replace(&mut self.has_ended, true)
        {
            self.message = Some(why.to_owned());
            changed = true;
        }
        self.replay_on();
        self.hold_what_is_looked_at();
        let ask = Ask { range: self.range, wants: self.wants() };
        // Who asks again before there is an answer never gets one.
        let is_due = self.is_followed() && !self.is_waiting && Instant::now() >= self.due;
        if is_due || self.asked.as_ref().is_none_or(|(_, asked)| *asked != ask) {
            self.asked_at = Instant::now();
            self.due = self.asked_at + self.settings.interval;
            self.asked = Some((self.engine.ask(ask.clone()), ask));
            self.is_waiting = true;
        }
        changed
    }

    /// Waits until there is as much to look at as the window of a machine that runs is long.
    pub(crate) fn warm_up(&mut self, patience: Duration) {
        let (until, length) = (Instant::now() + patience, Nanos::from(self.settings.interval));
        let is_short = |origin: &Origin| {
            origin.without().is_none() && origin.store().extent().is_ok_and(|extent| extent.duration_ns < length)
        };
        while self.origin.ended().is_none() && self.origin.is_live() && is_short(&self.origin) && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks what is to be asked, and waits for the answer, and for rates of what the machine is asked: no longer than so.
    ///
    /// # Errors
    /// Why there is no answer; [`Error::Invalid`] if it takes longer.
    ///
    /// ```
    /// # use schedtrace_core::flight::WindowOptions;
    /// # use schedtrace_core::synthetic::SyntheticHost;
    /// # use schedtrace_tui::{App, Origin, Settings};
    /// # let origin = Origin::live(SyntheticHost::new().start(), || (), WindowOptions::default())?;
    /// let mut app = App::new(origin, Settings::default())?;
    /// app.settle(std::time::Duration::from_secs(10))?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn settle(&mut self, patience: Duration) -> Result<()> {
        self.tick();
        let until = Instant::now() + patience;
        self.settle_machine(until);
        self.make_sheets();
        while self.is_waiting {
            match self.engine.wait(until.saturating_duration_since(Instant::now())) {
                Some(told) => self.take(told),
                None => {
                    let why =
                        format!("there is no answer within {patience:?}: choose a part of the time, or wait longer");
                    return Err(Error::Invalid(why));
                }
            }
        }
        self.failed.as_ref().map_or(Ok(()), |why| Err(Error::Invalid(why.clone())))
    }

    /// Takes an answer, if it is one to what was asked last.
    fn take(&mut self, told: Told) {
        if self.asked.as_ref().is_none_or(|(serial, _)| *serial != told.serial) {
            return;
        }
        match told.answer {
            Ok(picture) => {
                // What takes long is not done all the time: the machine has other things to do.
                self.due = self.due.max(Instant::now() + self.asked_at.elapsed() * (RESTS - 1));
                self.is_waiting = picture.is_partial;
                self.failed = None;
                if !picture.is_partial {
                    self.remember(&picture);
                }
                self.picture = Some(picture);
                self.make_sheets();
            }
            Err(error) => {
                self.hold_replay();
                self.is_waiting = false;
                self.failed = Some(error.to_string());
            }
        }
    }

    /// Keeps the figures of a window for the curves.
    fn remember(&mut self, picture: &Picture) {
        let report = picture.scheds.values().next();
        if self.is_followed() {
            let past = report.map(|report| Past {
                busy_ratio: report.cpu_time.total.utilisation_ratio,
                wait_p99_ns: report.run_queue.total.wait.p99_ns,
            });
            self.past.push(past, Instant::now(), self.settings.interval * HELD);
        }
    }

    fn make_sheets(&mut self) {
        if self.name() == Name::Sql {
            self.prompt.prepare();
        }
        let Some(picture) = &self.picture else { return };
        let cx = cx(picture, &self.origin, &self.theme, self.by, &self.past, self.machine.as_ref(), &self.prompt);
        let shown = &mut self.views[self.at];
        self.sheets = shown.view.sheets(&cx);
        // What was worked out for another view may make no table of this one: what was chosen here stays until it does.
        let (name, before) = (shown.place.name.text(), shown.grids.len());
        if before == 0 && !self.sheets.is_empty() && !picture.is_partial && self.message.is_none() {
            let hidden = self.settings.hidden.get(name).map_or(&[][..], Vec::as_slice);
            self.message = picking::unknown_column(hidden, &self.sheets);
        }
        shown.grids.resize_with(self.sheets.len().max(before), Grid::default);
        for (at, grid) in shown.grids.iter_mut().enumerate().skip(before) {
            grid.hidden = picking::hidden_of(shown.place.name, at, &self.settings.hidden, &self.columns);
            let sorted = self.sorts.iter().find(|sorted| sorted.view == name && sorted.table == at);
            grid.sort = sorted.zip(self.sheets.get(at)).and_then(|(sorted, sheet)| {
                let column = sheet.columns.heads().iter().position(|column| column.name == sorted.column);
                column.map(|column| (column, sorted.ascending))
            });
        }
        if let Some(last) = self.sheets.len().checked_sub(1) {
            shown.panel = shown.panel.min(last);
        }
        for (grid, sheet) in shown.grids.iter_mut().zip(&self.sheets) {
            grid.follow(sheet, cx.origin());
        }
    }

    fn wants(&self) -> Wants {
        let wants = self.views[self.at].view.wants(self.by, self.width);
        // Where the machine itself is asked, nobody looks at samples of it.
        if self.machine.is_some() { wants.without(ReportName::SystemUse) } else { wants }
    }

    fn name(&self) -> Name {
        self.views[self.at].place.name
    }

    /// Whether the screen follows what goes on.
    fn is_followed(&self) -> bool {
        !self.paused && self.origin.is_live() && matches!(self.range, Range::Newest(_))
    }

    /// Draws the whole screen.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        self.width = frame.area().width;
        let (is_followed, replay, is_recording) = (self.is_followed(), self.replay_told(), self.is_recording());
        let Self {
            origin,
            theme,
            bindings,
            views,
            at,
            by,
            paused,
            over,
            picture,
            machine,
            sheets,
            past,
            message,
            has_ended,
            failed,
            prompt,
            time,
            ..
        } = self;
        let shown = &mut views[*at];
        let grid = shown.grids.get(shown.panel);
        let why_filter = match (shown.view.filter(), grid) {
            (None, Some(grid)) if grid.filter.is_empty() => Some(FILTERS.to_owned()),
            (None, Some(grid)) => grid.why_not.clone(),
            _ => None,
        };
        let screen = draw::Screen {
            title: origin.title(),
            is_live: origin.is_live(),
            is_followed,
            paused: *paused,
            replay,
            is_recording,
            lost_total: origin.lost(),
            has_ended: *has_ended,
            failed: failed.as_deref(),
            name: shown.place.name,
            over,
            why_filter: why_filter.as_deref(),
            message: message.as_deref(),
            bindings,
            sheets,
            panel: shown.panel,
            commands: if let Over::Palette { line, .. } = &*over { commands(&line.text()) } else { Vec::new() },
        };
        let Some(picture) = picture else {
            draw::waiting(&screen, theme, frame);
            return;
        };
        let cx = cx(picture, origin, theme, *by, past, machine.as_ref(), prompt).marked(time.mark());
        let last = draw::screen(&screen, &cx, shown.view.as_mut(), &mut shown.grids, frame);
        if let Over::Help(at) = over {
            *at = (*at).min(last);
        }
    }
}

fn newest(interval: Duration) -> Range {
    Range::Newest(Nanos(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)))
}

/// What a view draws from.
fn cx<'a>(
    picture: &'a Picture,
    origin: &'a Origin,
    theme: &'a Theme,
    by: GroupBy,
    past: &'a Curve,
    machine: Option<&'a Machine>,
    prompt: &'a Prompt,
) -> Cx<'a> {
    let (past, without) = (past.windows(), origin.without());
    Cx { picture, meta: origin.meta(), theme, by, past, machine, prompt, mark: None, without }
}

/// What can be done whose name or sentence has these words, those whose name begins with them first.
pub(crate) fn commands(text: &str) -> Vec<Action> {
    let text = text.to_lowercase();
    let holds = |action: &&Action| {
        text.split_whitespace().all(|word| action.name().contains(word) || action.about().to_lowercase().contains(word))
    };
    let mut found: Vec<Action> = Action::ALL.iter().filter(holds).copied().collect();
    found.sort_by_key(|action| (!action.name().starts_with(&text), !action.name().contains(&text)));
    found
}
