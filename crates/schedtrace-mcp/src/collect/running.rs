//! One collection: programs that are loaded, and a trace that grows.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use schedtrace_core::live::Collector;
use schedtrace_core::{Error, Filtered, Kind, Kinds, OnFull, RateLimit, Recorder, Written};
use serde_json::{Value, json};

use super::audit::{Audit, Entry};
use crate::Probes;
use crate::call::Client;
use crate::stream::{Hub, Streams};

/// How often it is looked whether a collection has ended by itself.
const LOOK: Duration = Duration::from_millis(50);
/// How long the end of one is waited for.
pub(super) const END: Duration = Duration::from_secs(30);

/// What is to be collected.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) id: String,
    /// `collection` or `recording`.
    pub(crate) what: &'static str,
    /// Who asked: a tool, `events://stream` or `--daemon`.
    pub(crate) by: &'static str,
    pub(crate) client: Client,
    pub(crate) pids: Vec<u32>,
    /// Names of kinds and groups; none: those that are recorded by default.
    pub(crate) events: Vec<String>,
    pub(crate) kinds: Vec<Kinds>,
    /// What is collected where no events are named, and which of the events are left out.
    pub(crate) probes: Probes,
    pub(crate) duration: Option<Duration>,
    pub(crate) max_bytes: u64,
    pub(crate) max_events_per_second: Option<u64>,
    /// Where its trace stays; none: in a private folder that goes with the collection.
    pub(crate) keep: Option<PathBuf>,
}

impl Plan {
    /// The kinds that it collects, as far as the kernel has them.
    pub(crate) fn collects(&self, kind: Kind) -> bool {
        if self.kinds.is_empty() {
            self.probes.recorded().any(|recorded| recorded == kind)
        } else {
            self.kinds.iter().any(|kinds| kinds.kinds.contains(&kind))
        }
    }

    fn entry(&self) -> Entry {
        let events = match (&self.events[..], &self.probes.kinds[..]) {
            ([], []) => vec!["default".to_owned()],
            ([], _) => self.probes.recorded().map(|kind| kind.name().to_owned()).collect(),
            (events, _) => events.to_vec(),
        };
        let filters: Vec<_> = self.probes.filters.iter().map(|(kind, text)| format!("{kind}: {text}")).collect();
        let asked = json!({
            "by": self.by,
            "pids": self.pids,
            "events": events,
            "filters": filters,
            "max_duration_s": self.duration.map(|duration| duration.as_secs()),
            "max_bytes": self.max_bytes,
            "max_events_per_second": self.max_events_per_second,
            "kept_in": self.keep,
        });
        Entry { what: self.what, id: self.id.clone(), client: self.client.clone(), asked }
    }
}

/// How a collection ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// Why it was ended.
    pub(crate) why: String,
    /// What went wrong, if something did.
    pub(crate) failed: Option<String>,
    /// What was written into the trace, and what the trace says is missing.
    pub(crate) events: u64,
    pub(crate) lost: u64,
    pub(crate) bytes: u64,
    pub(crate) duration: Duration,
}

/// One collection, running or over. Dropped, it ends, and its trace goes if it is not kept.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) plan: Plan,
    trace: PathBuf,
    begun: Instant,
    ends: Option<Instant>,
    written: Written,
    control: Control,
    /// Goes with what is in it.
    _folder: Option<tempfile::TempDir>,
}

/// By which a collection is ended, and its end waited for.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    asked: SyncSender<String>,
    is_asked: Arc<AtomicBool>,
    ended: Arc<(Mutex<Option<End>>, Condvar)>,
}

impl Control {
    /// Asks it to end, and does not wait for it.
    pub(crate) fn ask(&self, why: &str) {
        self.is_asked.store(true, Ordering::Relaxed);
        // Whoever asked first is obeyed.
        let _ = self.asked.try_send(why.to_owned());
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<End> {
        self.ended.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for its end, for so long at most.
    pub(crate) fn wait(&self, most: Duration) -> Option<End> {
        let (ended, told) = &*self.ended;
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = told.wait_timeout_while(ended, most, |ended| ended.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Ends it; the programs are unloaded when this returns.
    pub(crate) fn stop(&self, why: &str) -> Result<End, String> {
        self.ask(why);
        self.wait(END).ok_or_else(|| "the collection does not end: end the server, which unloads its programs".into())
    }
}

impl Collection {
    /// Writes down that it begins, loads the programs, and collects.
    pub(crate) fn start(plan: Plan, audit: &Arc<Audit>, streams: &Arc<Streams>) -> Result<Self, String> {
        let entry = plan.entry();
        audit.begin(&entry)?;
        let failed = |why: String| {
            audit.end(&entry, &format!("failed: {why}"), &json!({ "events": 0, "bytes": 0, "lost": 0 }));
            why
        };
        let (trace, folder) = place(&plan).map_err(|why| failed(why.to_string()))?;
        let hub = Hub::new(streams, &plan.id, plan.what == "collection");
        let begun = Instant::now();
        let recorder = record(&plan, &trace, hub).map_err(|why| failed(why.to_string()))?;
        let (ends, written) = (recorder.ends(), recorder.written());
        let (asked, asks) = sync_channel(1);
        let control = Control { asked, is_asked: Arc::default(), ended: Arc::default() };
        let watch = Watch { recorder, entry: entry.clone(), audit: Arc::clone(audit), begun };
        let ended = Arc::clone(&control.ended);
        let watcher = std::thread::Builder::new().name("st-collection".into()).spawn(move || {
            let end = watch.until(&asks);
            *ended.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
            ended.1.notify_all();
        });
        watcher.map_err(|why| failed(format!("cannot start a thread: {why}")))?;
        Ok(Self { plan, trace, begun, ends, written, control, _folder: folder })
    }

    /// One that is over, of this trace.
    #[cfg(test)]
    pub(super) fn over(plan: Plan, trace: &Path) -> Self {
        let (asked, _) = sync_channel(1);
        let end = End { why: "a test".into(), failed: None, events: 0, lost: 0, bytes: 0, duration: Duration::ZERO };
        let ended = Arc::new((Mutex::new(Some(end)), Condvar::new()));
        let control = Control { asked, is_asked: Arc::default(), ended };
        let (begun, written) = (Instant::now(), Written::default());
        Self { plan, trace: trace.to_owned(), begun, ends: None, written, control, _folder: None }
    }

    /// What is read while it goes on, and afterwards.
    pub(crate) fn trace(&self) -> &Path {
        &self.trace
    }

    pub(crate) fn is_on(&self) -> bool {
        self.control.ended().is_none()
    }

    /// Whether it is on and about to end: it was asked to, or its time is over. Nobody is to rely on it any more.
    pub(crate) fn is_ending(&self) -> bool {
        let is_over = self.left().is_some_and(|left| left.is_zero());
        (is_over || self.control.is_asked.load(Ordering::Relaxed)) && self.is_on()
    }

    pub(crate) fn control(&self) -> Control {
        self.control.clone()
    }

    /// How much longer it goes on, if that is known.
    pub(crate) fn left(&self) -> Option<Duration> {
        Some(self.ends?.saturating_duration_since(Instant::now()))
    }

    /// How it stands: as it ended or, as far as it is known, by now.
    pub(crate) fn stands(&self) -> End {
        self.control.ended().unwrap_or_else(|| End {
            why: "it goes on".into(),
            failed: None,
            events: self.written.events(),
            lost: self.written.lost(),
            bytes: bytes(&self.trace),
            duration: self.begun.elapsed(),
        })
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        // Nothing may be written into a folder that goes.
        if self.is_on() {
            let _ = self.control.stop("the server ended");
        }
    }
}

/// The place of its trace.
fn place(plan: &Plan) -> schedtrace_core::Result<(PathBuf, Option<tempfile::TempDir>)> {
    if let Some(keep) = &plan.keep {
        std::fs::create_dir_all(keep).map_err(Error::io("cannot create the folder", keep))?;
        let at = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
        return Ok((keep.join(format!("{at}-{}-{}.schedtrace", std::process::id(), plan.id)), None));
    }
    let folder = tempfile::Builder::new().prefix("schedtrace-mcp-").tempdir();
    let folder = folder.map_err(Error::io("cannot create a folder in", std::env::temp_dir()))?;
    Ok((folder.path().join(format!("{}.schedtrace", plan.id)), Some(folder)))
}

fn record(plan: &Plan, trace: &Path, hub: Hub) -> schedtrace_core::Result<Recorder> {
    let chosen = if plan.kinds.is_empty() { plan.probes.collector() } else { Collector::builder() };
    let chosen = plan.kinds.iter().fold(chosen, |builder, kinds| builder.kinds(kinds));
    let mut collector = plan.pids.iter().fold(chosen, |builder, &pid| builder.pid(pid));
    if let Some(duration) = plan.duration {
        collector = collector.duration(duration);
    }
    let (options, filters) = (plan.probes.options(plan.max_bytes), plan.probes.filters.clone());
    let most = plan.max_events_per_second.unwrap_or(u64::MAX);
    Recorder::builder(collector, trace, options)
        .events_per_second(most)
        .only(plan.probes.left_out())
        .sink("stream", OnFull::DropNewest, Filtered::by_kind(filters, RateLimit::new(most, hub)))
        .start()
}

/// Ends a collection when it is asked to or has ended by itself, and writes it down.
struct Watch {
    recorder: Recorder,
    entry: Entry,
    audit: Arc<Audit>,
    begun: Instant,
}

impl Watch {
    fn until(self, asks: &Receiver<String>) -> End {
        let why = loop {
            match asks.recv_timeout(LOOK) {
                Ok(why) => break why,
                Err(RecvTimeoutError::Disconnected) => break "the server ended".to_owned(),
                Err(RecvTimeoutError::Timeout) if self.recorder.is_finished() => break "its time was over".to_owned(),
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        let (trace, written) = (self.recorder.trace().to_owned(), self.recorder.written());
        let failed = self.recorder.stop().err().map(|why| why.to_string());
        let (events, lost) = (written.events(), written.lost());
        let duration = self.begun.elapsed();
        let end = End { why, failed, events, lost, bytes: bytes(&trace), duration };
        let outcome = end.failed.as_ref().map_or_else(|| end.why.clone(), |why| format!("failed: {why}"));
        self.audit.end(&self.entry, &outcome, &end.told());
        end
    }
}

impl End {
    fn told(&self) -> Value {
        let duration_s = self.duration.as_secs_f64();
        json!({ "events": self.events, "bytes": self.bytes, "lost": self.lost, "duration_s": duration_s })
    }
}

/// Bytes of all files of a trace.
fn bytes(trace: &Path) -> u64 {
    let below = std::fs::read_dir(trace).into_iter().flatten().flatten();
    below
        .map(|entry| match entry.file_type() {
            Ok(ty) if ty.is_dir() => bytes(&entry.path()),
            Ok(ty) if ty.is_file() => entry.metadata().map_or(0, |file| file.len()),
            _ => 0,
        })
        .sum()
}
