//! Collecting from the running kernel, when the server was started for it: into traces of limited size and time, which
//! the other tools read as any other.
//!
//! One *collection* at a time (`enable_collection`, `--daemon`, or the first subscription to `events://stream`), and beside it
//! *recordings* (`record_trace`), each with a handle. Every beginning and every end is in the [audit log](audit).

mod audit;
mod running;
mod teller;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schedtrace_core::system::sched_ext::Scheduler;
use schedtrace_core::{EventGroup, Kind, Kinds, UnknownKind};
use serde_json::json;

pub(crate) use running::{Collection, End};

use crate::call::Client;
use crate::machine::root;
use crate::stream::{Feed, Streams, Wanted};
use crate::{Limits, Probes, Settings};
use audit::{Audit, Entry};
use running::Plan;

/// The name of the one collection, as a trace.
const LIVE: &str = "live";
/// So many recordings that are over can be read; the oldest goes first.
const KEPT: usize = 4;
/// Why nothing begins.
const CLOSED: &str = "the server ends: nothing is collected any more";
/// The smallest trace.
pub(crate) const MIN_BYTES: u64 = 1 << 20;

/// What an agent asks to be collected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) pids: Vec<u32>,
    pub(crate) events: Vec<String>,
    pub(crate) duration_s: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
}

/// What is or was collected.
#[derive(Debug)]
pub(crate) struct Collections {
    inner: Mutex<Inner>,
    /// Programs are loaded by one at a time, while others read what there is.
    loading: Mutex<()>,
    pub(crate) limits: Limits,
    probes: Probes,
    keep: Option<PathBuf>,
    audit: Arc<Audit>,
    pub(crate) streams: Arc<Streams>,
}

#[derive(Debug, Default)]
struct Inner {
    live: Option<Collection>,
    recordings: Vec<Collection>,
    subscriptions: Vec<Subscribed>,
    /// How many recordings and subscriptions there were.
    numbered: u64,
    closed: bool,
}

/// A subscription, as the audit log knows it.
#[derive(Debug)]
struct Subscribed {
    id: u64,
    feed: Arc<Feed>,
    entry: Entry,
}

/// Somebody is told of a stream until this is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    collections: Arc<Collections>,
    id: u64,
    feed: Arc<Feed>,
}

impl Subscription {
    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.collections.unsubscribe(self.id, "unsubscribed");
    }
}

impl Collections {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            inner: Mutex::default(),
            loading: Mutex::default(),
            limits: settings.limits,
            probes: settings.probes.clone(),
            keep: settings.keep.clone(),
            audit: Arc::new(Audit::new(settings.audit_log.clone())),
            streams: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked while it held this left lists that are whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that the audit log can be written.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.audit.check()
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to load programs. What is about to end has ended by then: it takes no room, and nobody joins it.
    fn loading(&self) -> MutexGuard<'_, ()> {
        let turn = self.turn();
        let ending: Vec<_> = {
            let inner = self.lock();
            let all = inner.live.iter().chain(&inner.recordings);
            all.filter(|one| one.is_ending()).map(Collection::control).collect()
        };
        for control in ending {
            // One that does not end counts as before.
            let _ = control.wait(running::END);
        }
        turn
    }

    /// What was asked for, within the limits.
    fn plan(&self, asked: Asked, default_s: u64, by: &'static str, client: Client) -> Result<Plan, String> {
        let most = self.limits.max_duration.as_secs().max(1);
        let seconds = asked.duration_s.unwrap_or(default_s.min(most));
        if !(1..=most).contains(&seconds) {
            return Err(format!("duration_s: {seconds} seconds cannot be had: use 1 to {most}"));
        }
        let (least, limit) = (MIN_BYTES, self.limits.max_bytes.max(MIN_BYTES));
        let max_bytes = asked.max_bytes.unwrap_or(limit);
        if !(least..=limit).contains(&max_bytes) {
            return Err(format!("max_bytes: {max_bytes} bytes cannot be had: use {least} to {limit}"));
        }
        // What cannot be read is no scheduler of sched_ext.
        let scheduler = Scheduler::read(root()).unwrap_or_default();
        let kinds = asked.events.iter().map(|name| name.parse::<Kinds>().map_err(|why| unknown(&why)));
        Ok(Plan {
            id: String::new(),
            what: "collection",
            by,
            client,
            kinds: kinds.collect::<Result<_, _>>()?,
            probes: self.probes.clone().beside(&scheduler),
            pids: asked.pids,
            events: asked.events,
            duration: Some(Duration::from_secs(seconds)),
            max_bytes,
            max_events_per_second: self.limits.max_events_per_second,
            keep: None,
        })
    }

    /// Refuses what would be one too many.
    fn check_room(&self, inner: &Inner) -> Result<(), String> {
        if inner.closed {
            return Err(CLOSED.into());
        }
        let on: Vec<_> = inner.live.iter().chain(&inner.recordings).filter(|one| one.is_on()).collect();
        if on.len() < self.limits.max_at_once {
            return Ok(());
        }
        let on: Vec<_> = on.iter().map(|one| format!("`{}` of {}", one.plan.id, one.plan.by)).collect();
        let how = "end one (disable_collection, or record_trace with action stop), or wait for its end";
        Err(format!("{} at once is the limit, and there are: {}; {how}", self.limits.max_at_once, on.join(", ")))
    }

    /// Begins the collection; the trace that can be read meanwhile, and when it ends.
    pub(crate) fn enable(&self, asked: Asked, client: Client) -> Result<(PathBuf, u64), String> {
        let plan = self.plan(asked, 60, "enable_collection", client)?;
        let seconds = plan.duration.map_or(0, |duration| duration.as_secs());
        let _loading = self.loading();
        self.start_live(plan).map(|trace| (trace, seconds))
    }

    /// Collects until the server ends.
    pub(crate) fn run_daemon(&self) -> Result<(), String> {
        let mut plan = self.plan(Asked::default(), 60, "--daemon", Client::default())?;
        plan.duration = None;
        let _loading = self.loading();
        self.start_live(plan).map(drop)
    }

    /// Starts the collection; whoever calls this holds `loading`.
    fn start_live(&self, mut plan: Plan) -> Result<PathBuf, String> {
        let mut inner = self.lock();
        if let Some(live) = inner.live.as_ref().filter(|live| live.is_on()) {
            let by = live.plan.by;
            return Err(match live.left() {
                Some(left) => format!(
                    "it collects already, for {by} and {} more seconds: ask the other tools, or call disable_collection first",
                    left.as_secs()
                ),
                None => format!("it collects already, for {by}: ask the other tools"),
            });
        }
        self.check_room(&inner)?;
        // What was collected before goes first: it may be large.
        let before = inner.live.take();
        drop(inner);
        drop(before);
        plan.id = LIVE.into();
        let live = Collection::start(plan, &self.audit, &self.streams)?;
        let trace = live.trace().to_owned();
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            drop(live);
            return Err(CLOSED.into());
        }
        inner.live = Some(live);
        Ok(trace)
    }

    /// Ends the collection: its trace, whether it was still on, and what there is.
    pub(crate) fn disable(&self) -> Result<(PathBuf, bool, End), String> {
        let (trace, was_on, control) = {
            let inner = self.lock();
            let Some(live) = &inner.live else {
                return Err("nothing was collected: call enable_collection first".into());
            };
            if live.plan.by == "--daemon" && live.is_on() {
                return Err("this server was started with --daemon: it collects until its client goes away".into());
            }
            (live.trace().to_owned(), live.is_on(), live.control())
        };
        let end = control.stop("disable_collection")?;
        match &end.failed {
            Some(why) => {
                Err(format!("the collection ended early: {why}; what it has until then is in {}", trace.display()))
            }
            None => Ok((trace, was_on, end)),
        }
    }

    /// Begins a recording; its handle.
    pub(crate) fn record(&self, asked: Asked, client: Client) -> Result<String, String> {
        let mut plan = self.plan(asked, 10, "record_trace", client)?;
        plan.what = "recording";
        plan.keep = self.keep.clone();
        let _loading = self.loading();
        {
            let mut inner = self.lock();
            self.check_room(&inner)?;
            inner.numbered += 1;
            plan.id = format!("rec-{}", inner.numbered);
        }
        let id = plan.id.clone();
        let recording = Collection::start(plan, &self.audit, &self.streams)?;
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            drop(recording);
            return Err("the server ends: nothing is recorded any more".into());
        }
        inner.recordings.push(recording);
        let over = inner.recordings.iter().filter(|one| !one.is_on()).count();
        let oldest = inner.recordings.iter().position(|one| !one.is_on());
        let gone = oldest.filter(|_| over > KEPT).map(|at| inner.recordings.remove(at));
        drop(inner);
        drop(gone);
        Ok(id)
    }

    /// Looks at a recording, by its handle; at the newest without one.
    pub(crate) fn look<T>(&self, handle: Option<&str>, look: impl FnOnce(&Collection) -> T) -> Result<T, String> {
        let inner = self.lock();
        let all: Vec<_> = inner.recordings.iter().map(|one| one.plan.id.clone()).collect();
        let found = match handle {
            None => inner.recordings.last(),
            Some(handle) => inner.recordings.iter().find(|one| one.plan.id == handle),
        };
        let known = if all.is_empty() { "there is none: call record_trace first".into() } else { all.join(", ") };
        let handle = crate::answer::cleaned(handle.unwrap_or("one"), 64);
        found.map(look).ok_or_else(|| format!("no recording is called `{handle}`; those there are: {known}"))
    }

    /// Ends a recording and removes what it has recorded.
    pub(crate) fn cancel(&self, handle: &str) -> Result<End, String> {
        let control = self.look(Some(handle), Collection::control)?;
        let end = control.stop("cancelled")?;
        let mut inner = self.lock();
        let at = inner.recordings.iter().position(|one| one.plan.id == handle);
        let gone = at.map(|at| inner.recordings.remove(at));
        drop(inner);
        if let Some(gone) = gone.filter(|gone| gone.plan.keep.is_some()) {
            std::fs::remove_dir_all(gone.trace())
                .map_err(|why| format!("it was cancelled, but {} cannot be removed: {why}", gone.trace().display()))?;
        }
        Ok(end)
    }

    /// The trace of this name, handle or path, if it is one of these; without a name, the collection's, or else that of the
    /// newest recording.
    pub(crate) fn trace(&self, named: Option<&Path>) -> Option<PathBuf> {
        let mut all = self.traces();
        let found = match named {
            None => (!all.is_empty()).then_some(0),
            Some(named) => all.iter().position(|(id, _)| named.as_os_str() == id.as_str()).or_else(|| {
                // A path is what it leads to: its letters may begin with those of a trace and lead out of it.
                let real = named.canonicalize().ok()?;
                all.iter().position(|(_, trace)| trace.canonicalize().is_ok_and(|trace| trace == real))
            }),
        };
        found.map(|at| all.swap_remove(at).1)
    }

    /// Whether anything is collected or recorded now.
    pub(crate) fn is_collecting(&self) -> bool {
        let inner = self.lock();
        inner.live.iter().chain(&inner.recordings).any(Collection::is_on)
    }

    /// The traces that can be read, with their names.
    pub(crate) fn traces(&self) -> Vec<(String, PathBuf)> {
        let inner = self.lock();
        let all = inner.live.iter().chain(inner.recordings.iter().rev());
        all.map(|one| (one.plan.id.clone(), one.trace().to_owned())).collect()
    }

    /// Subscribes somebody to a stream; begins to collect if nothing is collected.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        uri: &str,
        wanted: &Wanted,
        client: Client,
    ) -> Result<Subscription, String> {
        let _loading = self.loading();
        let (running, feed, id) = {
            let mut inner = self.lock();
            let running = Self::check_kinds(&inner, wanted)?;
            // Whoever leaves meanwhile is not the last any more.
            let feed = self.streams.join(wanted)?;
            inner.numbered += 1;
            (running, feed, inner.numbered)
        };
        let asked = json!({ "uri": crate::answer::cleaned(uri, 500) });
        let entry = Entry { what: "subscription", id: format!("sub-{id}"), client: client.clone(), asked };
        if let Err(why) = self.audit.begin(&entry) {
            self.leave(&self.lock(), &feed);
            return Err(why);
        }
        let mut inner = self.lock();
        inner.subscriptions.push(Subscribed { id, feed: Arc::clone(&feed), entry });
        let closed = inner.closed;
        drop(inner);
        // From here on, it is unsubscribed whatever happens.
        let subscription = Subscription { collections: Arc::clone(self), id, feed };
        let begun = match (closed, running) {
            (true, _) => Err(CLOSED.to_owned()),
            (false, true) => Ok(()),
            (false, false) => self.plan_stream(wanted, client).and_then(|plan| self.start_live(plan).map(drop)),
        };
        match begun {
            Ok(()) => Ok(subscription),
            Err(why) => {
                self.unsubscribe(id, &format!("failed: {why}"));
                Err(why)
            }
        }
    }

    /// What is collected for a subscription.
    fn plan_stream(&self, wanted: &Wanted, client: Client) -> Result<Plan, String> {
        let seconds = self.limits.max_duration.as_secs().max(1);
        let mut plan = self.plan(Asked::default(), seconds, "events://stream", client)?;
        // What is wanted beyond what is recorded in any case, as far as the kernel has it.
        if let Some(wanted) = wanted.kinds() {
            let kinds = Kind::selectable().filter(|kind| plan.collects(*kind) || wanted.contains(kind));
            let kinds: Vec<Kind> = kinds.collect();
            plan.events = kinds.iter().map(|kind| kind.name().to_owned()).collect();
            plan.kinds = vec![Kinds { kinds, named: false }];
        }
        Ok(plan)
    }

    /// Whether something is collected, and what is wanted with it.
    fn check_kinds(inner: &Inner, wanted: &Wanted) -> Result<bool, String> {
        if inner.closed {
            return Err(CLOSED.into());
        }
        let live = inner.live.iter().filter(|one| one.is_on());
        let Some(serves) = live.chain(inner.recordings.iter().filter(|one| one.is_on())).next() else {
            return Ok(false);
        };
        match wanted.kinds() {
            Some(kinds) if !kinds.iter().any(|&kind| serves.plan.collects(kind)) => Err(format!(
                "no event that this asks for is in `{}`, which is collected now; end it first (disable_collection), or call \
                 record_trace with these `events`",
                serves.plan.id
            )),
            _ => Ok(true),
        }
    }

    /// Ends a subscription.
    fn unsubscribe(&self, id: u64, why: &str) {
        let mut inner = self.lock();
        let Some(at) = inner.subscriptions.iter().position(|one| one.id == id) else { return };
        let one = inner.subscriptions.remove(at);
        self.leave(&inner, &one.feed);
        drop(inner);
        let tally = one.feed.tally();
        self.audit.end(&one.entry, why, &json!({ "events": tally.events, "lost": tally.lost }));
    }

    /// Gives a stream back; with the last one ends the collection that began for them, which nobody joins any more.
    fn leave(&self, inner: &Inner, feed: &Feed) {
        if self.streams.leave(feed)
            && let Some(live) = inner.live.as_ref().filter(|live| live.plan.by == "events://stream" && live.is_on())
        {
            // Whoever lets go of a subscription does not wait for the kernel.
            live.control().ask("nobody is subscribed any more");
        }
    }

    /// Ends all there is, and lets nothing begin any more.
    pub(crate) fn close(&self, why: &str) {
        let (subscriptions, running) = {
            let mut inner = self.lock();
            inner.closed = true;
            let subscriptions: Vec<_> = inner.subscriptions.iter().map(|one| one.id).collect();
            (subscriptions, inner.live.iter().chain(&inner.recordings).map(Collection::control).collect::<Vec<_>>())
        };
        running.iter().for_each(|control| control.ask(why));
        subscriptions.into_iter().for_each(|id| self.unsubscribe(id, why));
        for control in running {
            // What does not end is unloaded by the kernel when this process is gone.
            let _ = control.stop(why);
        }
        // One that is being loaded ends itself when it is.
        let _loading = self.turn();
        let (live, recordings) = {
            let mut inner = self.lock();
            (inner.live.take(), std::mem::take(&mut inner.recordings))
        };
        drop((live, recordings));
        self.audit.flush();
    }
}

/// What was meant, if that can be told, and what there is.
fn unknown(name: &UnknownKind) -> String {
    let near = name.nearest().map(|near| format!("do you mean `{near}`? ")).unwrap_or_default();
    let groups = EventGroup::ALL.map(|(group, _)| group).join(", ");
    let kinds: Vec<_> = Kind::selectable().map(Kind::name).collect();
    format!(
        "events: {} is none: {near}Groups: default, all, {groups}. Kinds: {}",
        crate::answer::quoted(&name.0),
        kinds.join(", ")
    )
}

#[cfg(test)]
mod tests;
