//! One request being answered: what was asked, and whether somebody still waits for it.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rmcp::model::JsonObject;
use schedtrace_core::analysis::{self, Analysis};
use schedtrace_core::{Meta, Nanos, Poll, Result, Source};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::state::State;

/// How far a call is: a part between 0 and 1, in words.
pub(crate) type Progress = Option<(f64, String)>;

/// Not more often is a client told how far a call is.
const APART: Duration = Duration::from_millis(250);

/// Which progress a client is told: each further than the one before, and not too often.
#[derive(Debug)]
pub(crate) struct Pace {
    told: f64,
    next: tokio::time::Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { told: f64::NEG_INFINITY, next: tokio::time::Instant::now() }
    }
}

impl Pace {
    /// Waits for the next that is to be told; forever, if there is none any more.
    pub(crate) async fn next(&mut self, progress: &mut watch::Receiver<Progress>) -> (f64, String) {
        loop {
            tokio::time::sleep_until(self.next).await;
            if progress.changed().await.is_err() {
                std::future::pending().await
            }
            let now = progress.borrow_and_update().clone();
            if let Some((part, message)) = now.filter(|(part, _)| *part > self.told) {
                self.told = part;
                self.next = tokio::time::Instant::now() + APART;
                return (part, message);
            }
        }
    }
}

/// Who asks: what the client says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Default for Client {
    fn default() -> Self {
        Self { name: "unknown".into(), version: String::new() }
    }
}

/// Who asks, whether they still wait, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) client: Client,
    pub(crate) cancelled: CancellationToken,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) turn: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
impl Default for Asker {
    fn default() -> Self {
        let cancelled = CancellationToken::new();
        Self { client: Client::default(), cancelled, progress: watch::channel(None).0, turn: None }
    }
}

/// What was asked, of whom, and how to tell how far it is.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) state: &'a State,
    /// What is called, for errors that say what it takes.
    name: &'static str,
    /// What it takes: the properties of its schema.
    takes: Value,
    arguments: JsonObject,
    #[cfg_attr(not(feature = "live"), allow(dead_code, reason = "for what collects"))]
    client: Client,
    cancelled: CancellationToken,
    progress: watch::Sender<Progress>,
    /// Where what is told now begins and ends in the whole.
    pass: Cell<(f64, f64)>,
    #[cfg_attr(not(feature = "live"), allow(dead_code, reason = "for what collects"))]
    turn: RefCell<Option<OwnedSemaphorePermit>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        state: &'a State,
        (name, takes): (&'static str, Value),
        arguments: JsonObject,
        asker: Asker,
    ) -> Self {
        let Asker { client, cancelled, progress, turn } = asker;
        let (pass, turn) = (Cell::new((0.0, 1.0)), RefCell::new(turn));
        Self { state, name, takes, arguments, client, cancelled, progress, pass, turn }
    }

    /// A call of a tool by somebody who waits for it, and does not want to know how far it is.
    #[cfg(test)]
    pub(crate) fn of_tool(state: &'a State, tool: &crate::tools::Tool, arguments: JsonObject) -> Self {
        Self::new(state, (tool.name, (tool.takes)()), arguments, Asker::default())
    }

    /// The same of a resource.
    #[cfg(test)]
    pub(crate) fn of_resource(state: &'a State, found: crate::resources::Found, arguments: JsonObject) -> Self {
        Self::new(state, (found.name, (found.takes)()), arguments, Asker::default())
    }

    /// A call of nothing in particular.
    #[cfg(test)]
    pub(crate) fn quiet(state: &'a State) -> Self {
        Self::new(state, ("test", Value::Null), JsonObject::new(), Asker::default())
    }

    #[cfg(test)]
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// The arguments, if they are what is taken.
    pub(crate) fn arguments<T: DeserializeOwned>(&self) -> std::result::Result<T, String> {
        serde_json::from_value(Value::Object(self.arguments.clone())).map_err(|why| {
            let takes = self.takes.as_object().into_iter().flatten();
            let takes = takes.map(|(name, schema)| format!("{name} ({})", schema["type"].as_str().unwrap_or("any")));
            let takes: Vec<_> = takes.collect();
            let takes = if takes.is_empty() { "nothing".into() } else { takes.join(", ") };
            format!("the arguments of `{}` are wrong: {why}; it takes {takes}", self.name)
        })
    }

    /// Waits, as long as somebody waits for the answer.
    pub(crate) fn pause(&self, time: Duration) -> std::result::Result<(), String> {
        let until = Instant::now() + time;
        loop {
            if self.is_cancelled() {
                return Err(format!("`{}` was cancelled", self.name));
            }
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => std::thread::sleep(left.min(Duration::from_millis(20))),
            }
        }
    }

    /// A call of something else, for whoever waits for this one.
    pub(crate) fn of_other(&self, (name, takes): (&'static str, Value), arguments: JsonObject) -> Self {
        let asker = Asker {
            client: self.client.clone(),
            cancelled: self.cancelled.clone(),
            progress: self.progress.clone(),
            turn: None,
        };
        Self::new(self.state, (name, takes), arguments, asker)
    }

    /// What was asked, as it came.
    #[cfg(feature = "live")]
    pub(crate) fn asked(&self) -> JsonObject {
        self.arguments.clone()
    }

    /// Who asks.
    #[cfg(feature = "live")]
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Lets another call have its turn: from here on this one only waits.
    #[cfg(feature = "live")]
    pub(crate) fn yield_turn(&self) {
        drop(self.turn.take());
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// The same to be asked elsewhere, for as long as anybody likes.
    #[cfg(feature = "sql")]
    pub(crate) fn cancellation(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// Tells whoever asked how far this is, if they want to know.
    pub(crate) fn tell(&self, part: f64, what: impl Into<String>) {
        let (from, until) = self.pass.get();
        self.progress.send_replace(Some((from + part * (until - from), what.into())));
    }

    /// Begins one of several passes: what is told from here on is between these parts of the whole.
    pub(crate) fn pass(&self, from: f64, until: f64) {
        self.pass.set((from, until));
    }

    /// Analyses a source to its end, tells how far it is, and stops when the call is cancelled.
    ///
    /// `of` is the part of the stream's time that will be read.
    pub(crate) fn run<A: Analysis + Send>(
        &self,
        source: &mut (impl Source + Send),
        of: schedtrace_core::Window,
        analysis: A,
    ) -> std::result::Result<A::Report, String> {
        let mut watched = Watched { source, call: self, of, stopped: AtomicBool::new(false) };
        let report = analysis::run(&mut watched, analysis).map_err(|why| why.to_string())?;
        if watched.stopped.load(Ordering::Relaxed) {
            return Err(format!("`{}` was cancelled", self.name));
        }
        Ok(report)
    }
}

/// A source that ends when the call is cancelled.
struct Watched<'a, 'c, S> {
    source: &'a mut S,
    call: &'a Call<'c>,
    of: schedtrace_core::Window,
    stopped: AtomicBool,
}

impl<S: Source> Source for Watched<'_, '_, S> {
    fn poll(&mut self, deadline: Instant) -> Result<Poll> {
        if self.call.is_cancelled() {
            self.stopped.store(true, Ordering::Relaxed);
            return Ok(Poll::End);
        }
        let poll = self.source.poll(deadline)?;
        if let Poll::Batch(batch) = &poll {
            let whole = self.of.duration_ns.0.max(1);
            let read = batch.until.0.saturating_sub(self.of.from_ns.0).min(whole);
            self.call.tell(read as f64 / whole as f64, format!("read {} of {}", Nanos(read), Nanos(whole)));
        }
        Ok(poll)
    }

    fn meta(&self) -> &Meta {
        self.source.meta()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn progress_goes_on_and_never_back() {
        let (progress, mut told) = watch::channel(None);
        let mut pace = Pace::default();
        let tell = |part| drop(progress.send_replace(Some((part, String::new()))));
        runtime().block_on(async {
            let begun = tokio::time::Instant::now();
            tell(0.5);
            assert_eq!(pace.next(&mut told).await.0, 0.5);
            assert!(pace.next >= begun + APART);
            let later = async {
                tokio::time::sleep(APART).await;
                for part in [0.5, 0.2, f64::NAN, 0.7] {
                    // Each is seen before the next one comes.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    tell(part);
                }
            };
            assert_eq!(tokio::join!(later, pace.next(&mut told)).1.0, 0.7, "neither the same again nor less");
            pace.next += Duration::from_secs(3_600);
            tell(0.8);
            tokio::select! {
                biased;
                told = pace.next(&mut told) => panic!("{told:?} is told before it is time"),
                () = std::future::ready(()) => {}
            }
            pace.next = begun;
            tell(0.9);
            assert_eq!(pace.next(&mut told).await.0, 0.9, "the newest, when it is time");
        });
    }

    #[test]
    fn passes_are_parts_of_the_whole() {
        let state = State::new(Settings::default());
        let asker = Asker::default();
        let told = asker.progress.subscribe();
        let call = Call::new(&state, ("test", Value::Null), JsonObject::new(), asker);
        let tell = |part| {
            call.tell(part, "");
            told.borrow().as_ref().unwrap().0
        };
        assert_eq!((tell(0.0), tell(1.0)), (0.0, 1.0));
        call.pass(0.0, 0.5);
        assert_eq!((tell(0.0), tell(1.0)), (0.0, 0.5));
        call.pass(0.5, 1.0);
        assert_eq!((tell(0.0), tell(0.5), tell(1.0)), (0.5, 0.75, 1.0));
    }
}
