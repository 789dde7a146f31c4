//! Follows the events for all that a view wants, on as many threads as help.

use std::io::{PipeWriter, Write};
use std::num::NonZero;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schedtrace_core::analysis::{
    Analysis, Explain, GroupBy, OffCpu, Options, Reports, Sched, Study, Timeline, TimelineOptions,
};
use schedtrace_core::{
    Batch, Error, EventFilter, EventLog, Meta, Nanos, OnFull, Pipeline, Result, Sink, Source, Window,
};

use crate::engine::{Log, Logged, Picture, ROWS, Told, Wants};
use crate::roster::Roster;
use crate::slices::Slices;

/// How long nothing may be shown for the first time; then what is known so far is.
const FIRST_AFTER: Duration = Duration::from_millis(300);
/// What is known so far is worked out in no more than one part of the time out of so many.
const SHARE: u32 = 8;
/// So many batches wait for each thread: what is known so far does not lag behind.
const DEPTH: usize = 8;
/// More threads than that are of no use: each follows all events.
const MAX_THREADS: usize = 4;

/// How many threads are of use here.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS)
}

/// All that a view wants, or a part of it, in one pass.
#[derive(Default)]
pub(crate) struct Asked {
    scheds: Vec<(GroupBy, Sched)>,
    reports: Vec<(GroupBy, Study<Reports>)>,
    timeline: Option<Study<Timeline>>,
    explain: Option<Study<Explain>>,
    off_cpu: Option<Study<OffCpu>>,
    roster: Option<Roster>,
    log: Option<(Log, EventLog)>,
    slices: Option<Slices>,
}

impl Asked {
    pub(crate) fn new(wants: &Wants, from: Option<Nanos>, until: Option<Nanos>, extent: Window) -> Result<Self> {
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

    /// In parts of about the same size, no more than so many.
    pub(crate) fn divided(self, most: usize) -> Vec<Self> {
        let Self { scheds, reports, timeline, explain, off_cpu, roster, log, slices } = self;
        let mut parts = Vec::new();
        let mut each = |part| parts.push(part);
        scheds.into_iter().for_each(|it| each(Self { scheds: vec![it], ..Self::default() }));
        reports.into_iter().for_each(|it| each(Self { reports: vec![it], ..Self::default() }));
        timeline.into_iter().for_each(|it| each(Self { timeline: Some(it), ..Self::default() }));
        explain.into_iter().for_each(|it| each(Self { explain: Some(it), ..Self::default() }));
        off_cpu.into_iter().for_each(|it| each(Self { off_cpu: Some(it), ..Self::default() }));
        slices.into_iter().for_each(|it| each(Self { slices: Some(it), ..Self::default() }));
        // These take little.
        if roster.is_some() || log.is_some() || parts.is_empty() {
            parts.push(Self { roster, log, ..Self::default() });
        }
        let rest = parts.split_off(parts.len().min(most.max(1)));
        let count = parts.len();
        rest.into_iter().enumerate().for_each(|(nth, part)| parts[nth % count].add(part));
        parts
    }

    fn add(&mut self, other: Self) {
        self.scheds.extend(other.scheds);
        self.reports.extend(other.reports);
        self.timeline = self.timeline.take().or(other.timeline);
        self.explain = self.explain.take().or(other.explain);
        self.off_cpu = self.off_cpu.take().or(other.off_cpu);
        self.roster = self.roster.take().or(other.roster);
        self.log = self.log.take().or(other.log);
        self.slices = self.slices.take().or(other.slices);
    }

    /// What was worked out, beside what a picture of that time has already.
    pub(crate) fn picture(&self, of: Picture) -> Picture {
        let nothing = Picture::new(of.range, of.extent);
        of.with(Picture {
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
            ..nothing
        })
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

impl Sink for Asked {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.each(|it| it.begin(meta));
        Ok(())
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.each(|it| it.update(batch));
        self.roster.iter_mut().for_each(|roster| roster.update(batch));
        self.log.iter_mut().try_for_each(|(_, log)| log.batch(batch))?;
        Ok(())
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.each(|it| it.finish(meta));
        Ok(())
    }
}

/// All parts of a question follow the events, each on a thread of its own.
pub(crate) fn follow(events: &mut impl Source, asked: Vec<Asked>, so_far: Option<&SoFar<'_>>) -> Result<Vec<Asked>> {
    let mut parts: Vec<_> = asked.into_iter().map(|asked| Part { asked, taken: 0, so_far }).collect();
    let mut pipeline = Pipeline::new().depth(DEPTH);
    for (nth, part) in parts.iter_mut().enumerate() {
        pipeline = pipeline.sink(format!("reports-{nth}"), OnFull::Block, part);
    }
    pipeline.run(events)?.into_result()?;
    Ok(parts.into_iter().map(|part| part.asked).collect())
}

/// Tells what is known so far, of what takes long: all parts say so as of the same batch.
pub(crate) struct SoFar<'a> {
    serial: u64,
    picture: Picture,
    tell: SyncSender<Told>,
    ring: &'a PipeWriter,
    /// How many say what they know.
    parts: usize,
    round: Mutex<Round>,
}

/// Parts say what they know, one after the other.
struct Round {
    /// When the next one begins.
    due: Instant,
    /// After how many batches they are to say it, if it has begun.
    after: Option<u64>,
    /// How many batches the fastest one has taken.
    furthest: u64,
    /// What those have said that came to it.
    said: Vec<Picture>,
    /// How long that took them.
    cost: Duration,
}

impl Round {
    fn due(due: Instant) -> Self {
        Self { due, after: None, furthest: 0, said: Vec::new(), cost: Duration::ZERO }
    }
}

impl<'a> SoFar<'a> {
    /// So many parts are to say what they know in a picture.
    pub(crate) fn new(
        serial: u64,
        picture: Picture,
        parts: usize,
        tell: SyncSender<Told>,
        ring: &'a PipeWriter,
    ) -> Self {
        Self { serial, picture, tell, ring, parts, round: Mutex::new(Round::due(Instant::now() + FIRST_AFTER)) }
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        // A part that panicked ends the question.
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part has taken so many batches; the last one goes so far.
    fn taken(&self, batches: u64, until: Nanos, asked: &Asked) -> Result<()> {
        let mut round = self.round();
        round.furthest = round.furthest.max(batches);
        if round.after.is_none() && Instant::now() >= round.due {
            // No part is beyond that.
            round.after = Some(round.furthest + 1);
        }
        let is_asked = round.after == Some(batches);
        drop(round);
        if !is_asked {
            return Ok(());
        }
        let began = Instant::now();
        let window = Window::new(self.picture.window.from_ns, until.max(self.picture.window.from_ns));
        let said = asked.picture(Picture { window, is_partial: true, ..self.picture.clone() });
        let mut round = self.round();
        round.said.push(said);
        round.cost += began.elapsed();
        if round.said.len() < self.parts {
            return Ok(());
        }
        let due = Instant::now() + (round.cost * SHARE).max(FIRST_AFTER);
        let next = Round { furthest: round.furthest, ..Round::due(due) };
        let said = std::mem::replace(&mut *round, next).said;
        let Some(picture) = said.into_iter().reduce(Picture::with) else { return Ok(()) };
        // Unless something else is being told.
        if self.tell.try_send(Told { serial: self.serial, answer: Ok(picture) }).is_ok() {
            let mut ring = self.ring;
            let rung = ring.write_all(&[0]);
            rung.map_err(|error| Error::Invalid(format!("cannot write to a pipe: {error}")))?;
        }
        Ok(())
    }
}

/// A part of a question on its thread.
struct Part<'a> {
    asked: Asked,
    taken: u64,
    so_far: Option<&'a SoFar<'a>>,
}

impl Sink for Part<'_> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.asked.begin(meta)
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self.asked.batch(batch)?;
        self.taken += 1;
        self.so_far.map_or(Ok(()), |so_far| so_far.taken(self.taken, batch.until, &self.asked))
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        self.asked.finish(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Lined, Range};
    use crate::origin::Store;
    use schedtrace_core::analysis::{Lanes, ReportName, Subject};
    use std::io::Read;
    use std::path::Path;
    use std::sync::mpsc::sync_channel;

    use schedtrace_core::Poll;
    use schedtrace_core::synthetic::SyntheticHost;

    #[test]
    fn what_is_known_so_far_is_told_before_all_was_read() {
        let mut host = SyntheticHost::new().events(50_000).start();
        let (tell, told) = sync_channel(1);
        let (mut bell, ring) = std::io::pipe().unwrap();
        let started = host.meta().started;
        let extent = Window::new(started, started + Nanos(60_000_000_000));
        let wants = Wants::default().sched(GroupBy::Cpu).sched(GroupBy::Task);
        let asked = Asked::new(&wants, None, None, extent).unwrap().divided(2);
        let picture = Picture::new(Range::All, extent);
        // At once, and never again.
        let mut so_far = SoFar::new(7, picture.clone(), asked.len(), tell, &ring);
        so_far.round = Mutex::new(Round::due(Instant::now()));
        let asked = follow(&mut host, asked, Some(&so_far)).unwrap();
        let Told { serial: 7, answer: Ok(first) } = told.try_recv().unwrap() else { panic!("another answer") };
        let all = asked.iter().fold(picture, |picture, asked| asked.picture(picture));
        assert!(bell.read(&mut [0]).is_ok_and(|rung| rung == 1));
        assert!(first.is_partial && !all.is_partial);
        assert!(
            first.window.until_ns > started && first.window.until_ns < all.sched(GroupBy::Cpu).unwrap().window.until_ns
        );
        let waits = |picture: &Picture| picture.sched(GroupBy::Cpu).unwrap().run_queue.total.wait.count;
        assert!(waits(&first) > 0 && waits(&first) < waits(&all), "{} of {}", waits(&first), waits(&all));
        assert_eq!(waits(&all), host.truth().waits);
        let [by_cpu, by_task] = [GroupBy::Cpu, GroupBy::Task].map(|by| first.sched(by).unwrap());
        assert_eq!((by_cpu.window, &by_cpu.events), (by_task.window, &by_task.events), "as of the same batch");
    }

    #[test]
    fn all_parts_say_what_they_know_as_of_one_batch() {
        let mut host = SyntheticHost::new().events(50_000).start();
        let meta = host.meta().clone();
        let (tell, told) = sync_channel(1);
        let (_bell, ring) = std::io::pipe().unwrap();
        let extent = Window::new(meta.started, meta.started + Nanos(60_000_000_000));
        let wants = Wants::default().sched(GroupBy::Cpu).sched(GroupBy::Task);
        let parts = Asked::new(&wants, None, None, extent).unwrap().divided(2);
        let mut so_far = SoFar::new(7, Picture::new(Range::All, extent), parts.len(), tell, &ring);
        so_far.round = Mutex::new(Round::due(Instant::now()));
        let part = |asked| Part { asked, taken: 0, so_far: Some(&so_far) };
        let [mut fast, mut slow]: [Part<'_>; 2] =
            parts.into_iter().map(part).collect::<Vec<_>>().try_into().ok().unwrap();
        fast.begin(&meta).unwrap();
        slow.begin(&meta).unwrap();
        let mut batches = Vec::new();
        while batches.len() < 3 {
            if let Poll::Batch(batch) = host.poll(Instant::now()).unwrap() {
                batches.push(batch);
            }
        }
        batches.iter().for_each(|batch| fast.batch(batch).unwrap());
        slow.batch(&batches[0]).unwrap();
        assert!(told.try_recv().is_err(), "one of them has not come so far");
        slow.batch(&batches[1]).unwrap();
        let Told { answer: Ok(first), .. } = told.try_recv().unwrap() else { panic!("no answer") };
        let [by_cpu, by_task] = [GroupBy::Cpu, GroupBy::Task].map(|by| first.sched(by).unwrap());
        assert_eq!((by_cpu.window, &by_cpu.events), (by_task.window, &by_task.events));
        assert_eq!(first.window.until_ns, batches[1].until);
    }

    /// Everything that can be wanted.
    fn all() -> Wants {
        let wants = GroupBy::ALL.into_iter().fold(Wants::default(), Wants::sched);
        let wants = ReportName::ALL.iter().fold(wants, |wants, &name| wants.report(GroupBy::Task, name));
        Wants {
            timeline: Some(Lined { lanes: Lanes::Cpus, columns: 40, subject: None }),
            explain: Some(Subject::Last),
            off_cpu: Some(Subject::Last),
            roster: true,
            log: Some(Log { most: 100, ..Log::default() }),
            slices: Some(5),
            ..wants.report(GroupBy::Cpu, ReportName::Latency)
        }
    }

    #[test]
    fn parts_say_together_what_one_says() {
        let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schedtrace/tests/every-event/events.schedtrace");
        let store = Store::Trace(trace, None);
        let extent = store.extent().unwrap();
        for eighth in 0..7 {
            let at = |eighth: u64| Some(extent.from_ns + Nanos(extent.duration_ns.0 / 8 * eighth));
            let (from, until) = (at(eighth), at(eighth + 2));
            let told = [1, 2, 3, 100].map(|most| {
                let parts = Asked::new(&all(), from, until, extent).unwrap().divided(most);
                assert!(parts.len() <= most);
                let parts = follow(&mut store.read(from, until).unwrap(), parts, None).unwrap();
                let nothing = Picture::new(Range::All, extent);
                let mut picture = parts.iter().fold(nothing, |picture, part| part.picture(picture));
                assert!(picture.roster.take().is_some(), "it has no order of its own");
                assert!(picture.explain.is_some() && picture.off_cpu.is_some() && picture.slices.len() == 5);
                format!("{picture:?}")
            });
            assert!(told.iter().all(|other| *other == told[0]));
        }
    }
}
