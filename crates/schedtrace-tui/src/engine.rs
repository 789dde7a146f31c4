//! What the screen shows is worked out here, on a thread of its own: the screen never waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use schedtrace_core::analysis::{
    Analysis, Answered, Completeness, Explain, Explanation, GroupBy, Lanes, OffCpu, OffCpuReport, Options, Report,
    ReportName, ReportSet, Reports, Sched, Study, Subject, Timeline, TimelineOptions, TimelineReport,
};
use schedtrace_core::{
    Batch, Error, EventFilter, EventLog, LoggedEvent, Meta, Nanos, OnFull, Pipeline, Poll, Result, Sink, Source, Window,
};

use crate::origin::{Events, Store};
use crate::roster::Roster;
use crate::slices::{Slice, Slices};

/// How long nothing may be shown for the first time; then what is known so far is.
const FIRST_AFTER: Duration = Duration::from_millis(300);
/// What is known so far is worked out in no more than one part of the time out of so many.
const SHARE: u32 = 8;
/// So many rows can be scrolled through.
pub(crate) const ROWS: usize = 10_000;

/// What a view draws.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wants {
    /// Waits, CPU time, switches, wakeups and migrations, by each of these.
    pub(crate) scheds: BTreeSet<GroupBy>,
    /// Further reports, by each of these.
    pub(crate) reports: BTreeMap<GroupBy, BTreeSet<ReportName>>,
    /// What each CPU or thread did, in so many columns.
    pub(crate) timeline: Option<Lined>,
    /// Why somebody was slow.
    pub(crate) explain: Option<Subject>,
    /// When somebody did not run.
    pub(crate) off_cpu: Option<Subject>,
    /// Where each task is: its cgroup, and the CPU that it had last.
    pub(crate) roster: bool,
    /// Events themselves.
    pub(crate) log: Option<Log>,
    /// How long tasks waited in each of so many slices of the window.
    pub(crate) slices: Option<u16>,
}

/// Which events are wanted themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// Those that meet this: an [`EventFilter`].
    pub(crate) filter: String,
    /// Those before this moment.
    pub(crate) until: Option<Nanos>,
    /// The last of them: so many.
    pub(crate) most: usize,
}

/// The events that were wanted.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) of: Log,
    pub(crate) events: Vec<LoggedEvent>,
    pub(crate) total: u64,
}

/// How a timeline is to be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lined {
    pub(crate) lanes: Lanes,
    pub(crate) columns: u16,
    pub(crate) subject: Option<Subject>,
}

impl Wants {
    pub(crate) fn sched(mut self, by: GroupBy) -> Self {
        self.scheds.insert(by);
        self
    }

    pub(crate) fn report(mut self, by: GroupBy, name: ReportName) -> Self {
        self.reports.entry(by).or_default().insert(name);
        self
    }
}

/// Of which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// All that there is.
    All,
    /// The newest part of it, so long.
    Newest(Nanos),
    /// From one moment until before another.
    Between(Nanos, Nanos),
}

impl Range {
    /// The stretch of time that it is, of all that there is.
    pub(crate) fn within(self, extent: Window) -> Window {
        let (from, until) = self.edges(extent);
        Window::new(from.unwrap_or(extent.from_ns), until.unwrap_or(extent.until_ns))
    }

    /// The two edges, where they are not those of all that there is.
    fn edges(self, extent: Window) -> (Option<Nanos>, Option<Nanos>) {
        let within = |at: Nanos| at.clamp(extent.from_ns, extent.until_ns);
        match self {
            Self::All => (None, None),
            Self::Newest(length) => (Some(within(extent.until_ns - length)), Some(extent.until_ns)),
            Self::Between(from, until) => (Some(within(from)), Some(within(until))),
        }
    }
}

/// A question: of which time, and what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    pub(crate) range: Range,
    pub(crate) wants: Wants,
}

/// What was worked out of one window.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    /// Of which time it was asked.
    pub(crate) range: Range,
    /// From when to when there are events at all.
    pub(crate) extent: Window,
    /// The window; if it is partial, as far as it was read.
    pub(crate) window: Window,
    /// The rest of the window is being read: another picture follows.
    pub(crate) is_partial: bool,
    pub(crate) scheds: BTreeMap<GroupBy, Report>,
    pub(crate) reports: BTreeMap<GroupBy, Answered<ReportSet>>,
    pub(crate) timeline: Option<Answered<TimelineReport>>,
    pub(crate) explain: Option<Answered<Explanation>>,
    pub(crate) off_cpu: Option<Answered<OffCpuReport>>,
    pub(crate) roster: Option<Roster>,
    pub(crate) log: Option<Logged>,
    pub(crate) slices: Vec<Slice>,
}

impl Picture {
    /// Of which nothing is known yet.
    fn new(range: Range, extent: Window) -> Self {
        Self {
            range,
            extent,
            window: range.within(extent),
            is_partial: false,
            scheds: BTreeMap::new(),
            reports: BTreeMap::new(),
            timeline: None,
            explain: None,
            off_cpu: None,
            roster: None,
            log: None,
            slices: Vec::new(),
        }
    }

    /// What is missing of its window, where something was asked that knows.
    pub(crate) fn completeness(&self) -> Option<&Completeness> {
        let scheds = self.scheds.values().map(|report| &report.completeness);
        let reports = self.reports.values().map(|report| &report.about);
        let others = [
            self.timeline.as_ref().map(|it| &it.about),
            self.explain.as_ref().map(|it| &it.about),
            self.off_cpu.as_ref().map(|it| &it.about),
        ];
        scheds.chain(reports.chain(others.into_iter().flatten()).map(|about| &about.completeness)).next()
    }

    pub(crate) fn sched(&self, by: GroupBy) -> Option<&Report> {
        self.scheds.get(&by)
    }

    pub(crate) fn report(&self, by: GroupBy) -> Option<&ReportSet> {
        self.reports.get(&by).map(|report| &report.answer)
    }
}

/// An answer, or why there is none.
#[derive(Debug)]
pub(crate) struct Told {
    /// To which question.
    pub(crate) serial: u64,
    pub(crate) answer: Result<Picture>,
}

/// Answers questions about a store, the newest first: those that nobody waits for any more are given up.
#[derive(Debug)]
pub(crate) struct Engine {
    asks: SyncSender<()>,
    newest: Arc<Mutex<Option<(u64, Ask)>>>,
    serial: Arc<AtomicU64>,
    told: Receiver<Told>,
    /// Its thread has ended, and that was told.
    is_over: bool,
    /// Readable when there is an answer.
    bell: PipeReader,
    ring: PipeWriter,
}

impl Engine {
    pub(crate) fn start(store: Store) -> Result<Self> {
        let failed = |error: std::io::Error| Error::Invalid(format!("cannot start a thread: {error}"));
        let (asks, asked) = sync_channel(1);
        let (tell, told) = sync_channel(1);
        let (bell, ring) = std::io::pipe().map_err(failed)?;
        let another = ring.try_clone().map_err(failed)?;
        let (newest, serial) = (Arc::<Mutex<Option<(u64, Ask)>>>::default(), Arc::<AtomicU64>::default());
        let (newest_of, serial_of) = (Arc::clone(&newest), Arc::clone(&serial));
        let worker = Worker { store, newest: newest_of, serial: serial_of, tell, ring, shown: None };
        std::thread::Builder::new().name("st-reports".into()).spawn(move || worker.run(&asked)).map_err(failed)?;
        Ok(Self { asks, newest, serial, told, is_over: false, bell, ring: another })
    }

    /// Asks, in place of whatever was asked before; the number of the question.
    pub(crate) fn ask(&self, ask: Ask) -> u64 {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((serial, ask));
        // It looks at the newest: one knock is as good as two.
        let (Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(()))) = self.asks.try_send(());
        serial
    }

    /// The next answer, if there is one.
    pub(crate) fn told(&mut self) -> Option<Told> {
        match self.told.try_recv() {
            Ok(told) => Some(self.taken(told)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => self.over(),
        }
    }

    /// The next answer, which is waited for.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<Told> {
        match self.told.recv_timeout(patience) {
            Ok(told) => Some(self.taken(told)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => self.over(),
        }
    }

    fn taken(&mut self, told: Told) -> Told {
        let _ = self.bell.read(&mut [0]);
        told
    }

    /// Why there are no answers any more, once.
    fn over(&mut self) -> Option<Told> {
        let why = "nothing is worked out any more: that thread panicked, a bug in schedtrace; start it again";
        let is_news = !std::mem::replace(&mut self.is_over, true);
        let serial = self.serial.load(Ordering::Relaxed);
        is_news.then(|| Told { serial, answer: Err(Error::Invalid(why.to_owned())) })
    }

    pub(crate) fn bell(&self) -> &PipeReader {
        &self.bell
    }

    /// The bell's other end, for whoever else has answers: one byte for each.
    pub(crate) fn ring(&self) -> Result<PipeWriter> {
        self.ring.try_clone().map_err(|error| Error::Invalid(format!("cannot make a pipe: {error}")))
    }

    /// Takes one ring of the bell, for an answer of somebody else.
    pub(crate) fn hush(&mut self) {
        let _ = self.bell.read(&mut [0]);
    }
}

struct Worker {
    store: Store,
    newest: Arc<Mutex<Option<(u64, Ask)>>>,
    serial: Arc<AtomicU64>,
    tell: SyncSender<Told>,
    ring: PipeWriter,
    /// What was answered last.
    shown: Option<Wants>,
}

impl Worker {
    fn run(mut self, asked: &Receiver<()>) {
        while asked.recv().is_ok() {
            let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((serial, ask)) = newest else { continue };
            let answer = self.answer(serial, &ask);
            // Whoever asked something else meanwhile does not want it any more.
            let Some(answer) = answer.transpose().filter(|_| self.serial.load(Ordering::Relaxed) == serial) else {
                continue;
            };
            self.shown = answer.is_ok().then_some(ask.wants);
            if self.tell.send(Told { serial, answer }).is_err() || self.ring.write_all(&[0]).is_err() {
                return;
            }
        }
    }

    /// None if something else was asked meanwhile.
    fn answer(&self, serial: u64, ask: &Ask) -> Result<Option<Picture>> {
        let extent = self.store.extent()?;
        let (from, until) = ask.range.edges(extent);
        let picture = Picture::new(ask.range, extent);
        let mut asked = Asked::new(&ask.wants, from, until, extent)?;
        let mut events = Wanted { events: self.store.read(from, until)?, serial, newest: &self.serial };
        // What goes on is over before one looks; and who sees these figures of another time already can wait.
        let is_new = self.shown.as_ref() != Some(&ask.wants) && !matches!(ask.range, Range::Newest(_));
        asked.so_far = is_new.then(|| SoFar {
            due: Instant::now() + FIRST_AFTER,
            serial,
            picture: picture.clone(),
            tell: self.tell.clone(),
            ring: &self.ring,
        });
        Pipeline::new().sink("reports", OnFull::Block, &mut asked).run(&mut events)?.into_result()?;
        Ok((self.serial.load(Ordering::Relaxed) == serial).then(|| asked.picture(picture)))
    }
}

/// Tells what is known so far, of what takes long.
struct SoFar<'a> {
    due: Instant,
    serial: u64,
    picture: Picture,
    tell: SyncSender<Told>,
    ring: &'a PipeWriter,
}

impl SoFar<'_> {
    /// Tells it, if nothing else is being told.
    fn tell(&mut self, asked: &Asked<'_>, until: Nanos) -> Result<()> {
        let began = Instant::now();
        let window = Window::new(self.picture.window.from_ns, until.max(self.picture.window.from_ns));
        let picture = asked.picture(Picture { window, is_partial: true, ..self.picture.clone() });
        if self.tell.try_send(Told { serial: self.serial, answer: Ok(picture) }).is_ok() {
            let rung = self.ring.write_all(&[0]);
            rung.map_err(|error| Error::Invalid(format!("cannot write to a pipe: {error}")))?;
        }
        self.due = Instant::now() + (began.elapsed() * SHARE).max(FIRST_AFTER);
        Ok(())
    }
}

/// Events, as long as somebody waits for the answer.
struct Wanted<'a> {
    events: Events,
    serial: u64,
    newest: &'a AtomicU64,
}

impl Source for Wanted<'_> {
    fn meta(&self) -> &Meta {
        self.events.meta()
    }

    fn poll(&mut self, deadline: Instant) -> Result<Poll> {
        if self.newest.load(Ordering::Relaxed) != self.serial { Ok(Poll::End) } else { self.events.poll(deadline) }
    }
}

/// All that a view wants, in one pass.
#[derive(Default)]
struct Asked<'a> {
    so_far: Option<SoFar<'a>>,
    scheds: Vec<(GroupBy, Sched)>,
    reports: Vec<(GroupBy, Study<Reports>)>,
    timeline: Option<Study<Timeline>>,
    explain: Option<Study<Explain>>,
    off_cpu: Option<Study<OffCpu>>,
    roster: Option<Roster>,
    log: Option<(Log, EventLog)>,
    slices: Option<Slices>,
}

impl Asked<'_> {
    fn new(wants: &Wants, from: Option<Nanos>, until: Option<Nanos>, extent: Window) -> Result<Self> {
        let options = |by| Options { by, top: ROWS, from, until, ..Options::default() };
        let scheds = wants.scheds.iter().map(|&by| (by, Sched::new(options(by))));
        let reports = wants.reports.iter();
        let reports = reports.map(|(&by, names)| (by, Reports::study(names.iter().copied(), options(by))));
        let window = Window::new(from.unwrap_or(extent.from_ns), until.unwrap_or(extent.until_ns));
        let timeline = wants.timeline.map(|lined| {
            let resolution = Nanos(window.duration_ns.0.div_ceil(u64::from(lined.columns.max(1))).max(1));
            let drawn = TimelineOptions { lanes: lined.lanes, resolution, subject: lined.subject };
            Timeline::study(drawn, options(GroupBy::Task))
        });
        let explain = wants.explain.map(|who| Explain::study(who, options(GroupBy::Task)));
        let off_cpu = wants.off_cpu.map(|who| OffCpu::study(Some(who), Nanos::ZERO, options(GroupBy::Task)));
        let roster = wants.roster.then(|| Roster::new(until));
        let log = match wants.log.clone() {
            Some(log) => Some((log.clone(), read_log(&log, from, until)?)),
            None => None,
        };
        let slices = wants.slices.map(|count| Slices::new(window, count));
        Ok(Self {
            so_far: None,
            scheds: scheds.collect(),
            reports: reports.collect(),
            timeline,
            explain,
            off_cpu,
            roster,
            log,
            slices,
        })
    }

    fn each(&mut self, mut with: impl FnMut(&mut dyn Follows)) {
        self.scheds.iter_mut().for_each(|(_, it)| with(it));
        self.reports.iter_mut().for_each(|(_, it)| with(it));
        self.timeline.iter_mut().for_each(|it| with(it));
        self.explain.iter_mut().for_each(|it| with(it));
        self.off_cpu.iter_mut().for_each(|it| with(it));
        self.slices.iter_mut().for_each(|it| with(it));
    }

    /// What was worked out, in a picture of that time.
    fn picture(&self, of: Picture) -> Picture {
        Picture {
            scheds: self.scheds.iter().map(|(by, it)| (*by, it.report())).collect(),
            reports: self.reports.iter().map(|(by, it)| (*by, it.report())).collect(),
            timeline: self.timeline.as_ref().map(Analysis::report),
            explain: self.explain.as_ref().map(Analysis::report),
            off_cpu: self.off_cpu.as_ref().map(Analysis::report),
            roster: self.roster.clone(),
            log: self.log.as_ref().map(|(of, log)| Logged {
                of: of.clone(),
                events: log.events().collect(),
                total: log.total(),
            }),
            slices: self.slices.as_ref().map(Slices::report).unwrap_or_default(),
            ..of
        }
    }
}

/// What keeps the events that are wanted.
fn read_log(log: &Log, from: Option<Nanos>, until: Option<Nanos>) -> Result<EventLog> {
    let until = until.unwrap_or(Nanos::MAX).min(log.until.unwrap_or(Nanos::MAX));
    let kept = EventLog::new(log.most).between(from.unwrap_or_default(), until);
    if log.filter.trim().is_empty() {
        return Ok(kept);
    }
    let filter: EventFilter = log.filter.parse().map_err(|why| Error::Invalid(format!("{why}")))?;
    Ok(kept.filtered(filter))
}

/// An analysis, whatever it answers.
trait Follows {
    fn begin(&mut self, meta: &Meta);
    fn update(&mut self, batch: &Batch);
    fn finish(&mut self, meta: &Meta);
}

impl<A: Analysis> Follows for A {
    fn begin(&mut self, meta: &Meta) {
        Analysis::begin(self, meta);
    }

    fn update(&mut self, batch: &Batch) {
        Analysis::update(self, batch);
    }

    fn finish(&mut self, meta: &Meta) {
        Analysis::finish(self, meta);
    }
}

impl Follows for Slices {
    fn begin(&mut self, meta: &Meta) {
        Slices::begin(self, meta);
    }

    fn update(&mut self, batch: &Batch) {
        Slices::update(self, batch);
    }

    fn finish(&mut self, meta: &Meta) {
        Slices::finish(self, meta);
    }
}

impl Sink for Asked<'_> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.each(|it| it.begin(meta));
        Ok(())
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.each(|it| it.update(batch));
        self.roster.iter_mut().for_each(|roster| roster.update(batch));
        self.log.iter_mut().try_for_each(|(_, log)| log.batch(batch))?;
        if let Some(mut so_far) = self.so_far.take_if(|so_far| Instant::now() >= so_far.due) {
            so_far.tell(self, batch.until)?;
            self.so_far = Some(so_far);
        }
        Ok(())
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.each(|it| it.finish(meta));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedtrace_core::synthetic::SyntheticHost;

    #[test]
    fn what_is_known_so_far_is_told_before_all_was_read() {
        let mut host = SyntheticHost::new().events(50_000).start();
        let (tell, told) = sync_channel(1);
        let (mut bell, ring) = std::io::pipe().unwrap();
        let started = host.meta().started;
        let extent = Window::new(started, started + Nanos(60_000_000_000));
        let wants = Wants::default().sched(GroupBy::Cpu);
        let mut asked = Asked::new(&wants, None, None, extent).unwrap();
        let picture = Picture::new(Range::All, extent);
        // At once, and never again.
        asked.so_far = Some(SoFar { due: Instant::now(), serial: 7, picture: picture.clone(), tell, ring: &ring });
        Pipeline::new().sink("reports", OnFull::Block, &mut asked).run(&mut host).unwrap().into_result().unwrap();
        let Told { serial: 7, answer: Ok(first) } = told.try_recv().unwrap() else { panic!("another answer") };
        let all = asked.picture(picture);
        assert!(bell.read(&mut [0]).is_ok_and(|rung| rung == 1));
        assert!(first.is_partial && !all.is_partial);
        assert!(
            first.window.until_ns > started && first.window.until_ns < all.sched(GroupBy::Cpu).unwrap().window.until_ns
        );
        let waits = |picture: &Picture| picture.sched(GroupBy::Cpu).unwrap().run_queue.total.wait.count;
        assert!(waits(&first) > 0 && waits(&first) < waits(&all), "{} of {}", waits(&first), waits(&all));
        assert_eq!(waits(&all), host.truth().waits);
    }
}
