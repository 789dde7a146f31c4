//! What the screen shows is worked out here, on a thread of its own: the screen never waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use schedtrace_core::analysis::{
    Answered, Completeness, Explanation, GroupBy, Lanes, OffCpuReport, Report, ReportName, ReportSet, Subject,
    TimelineReport,
};
use schedtrace_core::{Error, LoggedEvent, Meta, Nanos, Poll, Result, Source, Window};

use crate::asked::{Asked, SoFar, follow, threads};
use crate::origin::{Events, Store};
use crate::roster::Roster;
use crate::slices::Slice;

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

    /// All but this report.
    pub(crate) fn without(mut self, name: ReportName) -> Self {
        self.reports.retain(|_, names| {
            names.remove(&name);
            !names.is_empty()
        });
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
    pub(crate) fn new(range: Range, extent: Window) -> Self {
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

    /// Both, of the same time.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.scheds.extend(other.scheds);
        self.reports.extend(other.reports);
        self.timeline = self.timeline.or(other.timeline);
        self.explain = self.explain.or(other.explain);
        self.off_cpu = self.off_cpu.or(other.off_cpu);
        self.roster = self.roster.or(other.roster);
        self.log = self.log.or(other.log);
        self.slices.extend(other.slices);
        self
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
        let parts = Asked::new(&ask.wants, from, until, extent)?.divided(threads());
        // What goes on is over before one looks; and who sees these figures of another time already can wait.
        let is_new = self.shown.as_ref() != Some(&ask.wants) && !matches!(ask.range, Range::Newest(_));
        let so_far = is_new.then(|| SoFar::new(serial, picture.clone(), parts.len(), self.tell.clone(), &self.ring));
        let mut events = Wanted { events: self.store.read(from, until)?, serial, newest: &self.serial };
        let parts = follow(&mut events, parts, so_far.as_ref())?;
        let is_wanted = self.serial.load(Ordering::Relaxed) == serial;
        Ok(is_wanted.then(|| parts.iter().fold(picture, |picture, part| part.picture(picture))))
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
