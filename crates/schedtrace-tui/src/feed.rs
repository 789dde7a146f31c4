//! Where the numbers on the screen come from: a trace, or the running machine. The viewer cannot tell which.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schedtrace_core::analysis::{self, Analysis, GroupBy, Options, Report, Sched, Shared};
use schedtrace_core::system::Topology;
use schedtrace_core::trace::TraceReader;
use schedtrace_core::{Error, Meta, OnFull, Pipeline, Result, Source, Summary};

/// So many tasks can be scrolled through.
const ROWS: usize = 10_000;

/// One window of one machine, as it is put on the screen.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Of what: a host, or a trace.
    pub title: String,
    /// How its CPUs share caches and nodes.
    pub topology: Topology,
    /// Who waited, and behind whom.
    pub by_task: Report,
    /// The same window, CPU by CPU.
    pub by_cpu: Report,
    /// Events that are known to be missing, since the beginning and not only in this window.
    pub lost_total: u64,
    /// More pictures follow.
    pub live: bool,
    /// Why no more pictures follow, though they should.
    pub failed: Option<String>,
}

/// Gives pictures.
pub trait Feed {
    /// The next one, if it is time for it.
    fn next(&mut self) -> Option<Picture>;
    /// How long it may be until there is another one.
    fn patience(&self) -> Duration;
}

type Both = (Sched, Sched);

fn both() -> Both {
    let by = |by| Sched::new(Options { by, top: ROWS, ..Options::default() });
    (by(GroupBy::Task), by(GroupBy::Cpu))
}

/// A trace: one picture of all of it.
#[derive(Debug)]
pub struct Recorded(Option<Picture>);

impl Recorded {
    /// Reads a trace, to its end.
    ///
    /// # Errors
    /// Those of [`TraceReader`].
    pub fn open(trace: &Path) -> Result<Self> {
        let mut reader = TraceReader::open(trace)?;
        let topology = reader.meta().topology.clone();
        let (by_task, by_cpu) = analysis::run(&mut reader, both())?;
        let lost_total = by_task.completeness.lost_total;
        let title = trace.display().to_string();
        Ok(Self(Some(Picture { title, topology, by_task, by_cpu, lost_total, live: false, failed: None })))
    }
}

impl Feed for Recorded {
    fn next(&mut self) -> Option<Picture> {
        self.0.take()
    }

    fn patience(&self) -> Duration {
        Duration::MAX
    }
}

/// A stream that goes on: each picture shows what happened since the one before.
pub struct Live {
    title: String,
    topology: Topology,
    both: Shared<Both>,
    reader: Option<JoinHandle<Result<Summary>>>,
    stop: Option<Box<dyn FnOnce() + Send>>,
    interval: Duration,
    due: Instant,
    lost_total: u64,
    failed: Option<String>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("title", &self.title).field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl Live {
    /// Reads a source on a thread of its own, until it ends; `stop` makes it end. A picture comes every `interval`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start<S: Source + Send + 'static>(
        mut source: S,
        stop: impl FnOnce() + Send + 'static,
        interval: Duration,
    ) -> Result<Self> {
        let both = Shared::new(both());
        let Meta { host, topology, .. } = source.meta().clone();
        let mut sink = both.clone();
        let read = move || Pipeline::new().sink("screen", OnFull::Block, &mut sink).run(&mut source);
        let reader = std::thread::Builder::new().name("st-merge".into()).spawn(read);
        let reader = reader.map_err(|error| Error::Invalid(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            title: format!("{} · Linux {} · {}", host.hostname, host.kernel, topology.shape()),
            topology,
            both,
            reader: Some(reader),
            stop: Some(Box::new(stop)),
            interval,
            due: Instant::now() + interval,
            lost_total: 0,
            failed: None,
        })
    }

    /// Waits for the stream's end; the next picture shows all that is left, and is the last one.
    pub fn finish(&mut self) {
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.due = Instant::now();
    }

    fn picture(&mut self) -> Picture {
        let (by_task, by_cpu) = {
            let mut both = self.both.lock();
            let reports = both.report();
            both.0.next_window();
            both.1.next_window();
            reports
        };
        self.lost_total += by_task.completeness.lost_total;
        Picture {
            title: self.title.clone(),
            topology: self.topology.clone(),
            by_task,
            by_cpu,
            lost_total: self.lost_total,
            live: self.reader.is_some(),
            failed: self.failed.clone(),
        }
    }

    /// Why the stream has ended, if it has.
    fn look_for_the_end(&mut self) {
        if let Some(reader) = self.reader.take_if(|reader| reader.is_finished()) {
            let ended = reader.join().map_err(|_| Error::Invalid("its reader panicked: a bug in schedtrace".into()));
            self.failed = Some(match ended.and_then(|ended| ended).and_then(Summary::into_result) {
                Ok(_) => "the stream has ended".into(),
                Err(error) => error.to_string(),
            });
        }
    }
}

impl Feed for Live {
    fn next(&mut self) -> Option<Picture> {
        let now = Instant::now();
        if self.reader.is_none() || now < self.due {
            return None;
        }
        self.due = now + self.interval;
        self.look_for_the_end();
        Some(self.picture())
    }

    fn patience(&self) -> Duration {
        if self.reader.is_none() { Duration::MAX } else { self.due.saturating_duration_since(Instant::now()) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
        // Its end detaches the programs; nobody wants its result any more.
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedtrace_core::synthetic::SyntheticHost;

    #[test]
    fn a_stream_gives_one_picture_after_the_other_and_says_when_it_ends() {
        let source = SyntheticHost::new().cpus(16).llcs(4).tasks(50).events(50_000).lost_ratio(0.01).start();
        let mut live = Live::start(source, || (), Duration::from_millis(1)).unwrap();
        let mut pictures = Vec::new();
        loop {
            std::thread::sleep(live.patience());
            pictures.extend(live.next());
            if pictures.last().is_some_and(|picture: &Picture| !picture.live) {
                break;
            }
        }
        assert!(live.next().is_none());
        let last = pictures.last().unwrap();
        assert_eq!(last.failed.as_deref(), Some("the stream has ended"));
        assert!(last.title.starts_with("synthetic · Linux"), "{}", last.title);
        // On a busy machine pictures come before the stream has begun: they show no time at all.
        let begun =
            pictures.iter().position(|picture| picture.by_task.window.until_ns > picture.by_task.window.from_ns);
        let (before, begun) = pictures.split_at(begun.expect("the stream has events"));
        assert!(before.iter().all(|picture| picture.by_task.switches.total.switches == 0), "switches at no time");
        for pair in begun.windows(2) {
            let [before, after] = [&pair[0].by_task, &pair[1].by_task].map(|report| report.window);
            assert_eq!(before.until_ns, after.from_ns, "no gap between pictures");
            assert_eq!(pair[1].by_task.window, pair[1].by_cpu.window, "one window");
        }
        let lost: u64 = pictures.iter().map(|picture| picture.by_task.completeness.lost_total).sum();
        assert!(lost > 0 && last.lost_total == lost, "{lost}");
    }

    #[test]
    fn a_feed_that_is_dropped_stops_its_stream() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};
        struct Endless(Meta, Arc<AtomicBool>);
        impl Source for Endless {
            fn meta(&self) -> &Meta {
                &self.0
            }
            fn poll(&mut self, _: Instant) -> Result<schedtrace_core::Poll> {
                std::thread::sleep(Duration::from_millis(1));
                let stopped = self.1.load(Ordering::Relaxed);
                Ok(if stopped { schedtrace_core::Poll::End } else { schedtrace_core::Poll::Idle })
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (told, asked) = (Arc::clone(&stop), Arc::clone(&stop));
        let source = Endless(Meta::default(), stop);
        drop(Live::start(source, move || asked.store(true, Ordering::Relaxed), Duration::from_secs(1)).unwrap());
        assert!(told.load(Ordering::Relaxed));
    }
}
