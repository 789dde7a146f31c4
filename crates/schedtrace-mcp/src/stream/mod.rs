//! What happens, as it happens: events of what is being collected, for clients that subscribed to them.
//!
//! ```text
//!   a collection ── Pipeline ─┬─ "trace" ── the trace
//!                             └─ "stream" ─ Hub ─┬─ Feed  events://stream?comm=nginx
//!                               (DropNewest)     └─ Feed  events://stream?where=dsq_lat_us > 1000
//! ```
//!
//! Each collection has a [`Hub`], and one of them serves the [`Feed`]s: the queues of what somebody subscribed to. Queues are
//! bounded, and whoever reads too slowly is told what was lost; nobody waits for anybody. How many there are is bounded by whoever
//! [joins](Streams::join) them.

mod feed;
mod hub;
mod lines;
mod wanted;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use feed::Feed;
pub(crate) use hub::Hub;
pub(crate) use wanted::{Page, URI, Wanted, takes};

use hub::Serves;
use wanted::Selector;

/// So many events wait in each; and so many of the last are kept for whoever has not subscribed.
const QUEUE: usize = 10_000;

/// All streams, and who serves them.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    registry: Mutex<Registry>,
    /// The number of the last event, whoever saw it.
    seq: AtomicU64,
}

#[derive(Debug, Default)]
struct Registry {
    feeds: Vec<Arc<Feed>>,
    hubs: Vec<Arc<Serves>>,
    /// The hub that serves the feeds.
    serving: Option<u64>,
    next: u64,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Lists are whole at any moment.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of what is wanted, with one more user.
    pub(crate) fn join(&self, wanted: &Wanted) -> Result<Arc<Feed>, String> {
        let mut registry = self.lock();
        if let Some(feed) = registry.feeds.iter().find(|feed| feed.wanted == *wanted) {
            feed.add_user();
            return Ok(Arc::clone(feed));
        }
        let feed = Arc::new(Feed::new(wanted.clone())?);
        registry.feeds.push(Arc::clone(&feed));
        Ok(feed)
    }

    /// Gives a stream back; whether it was the last of all.
    pub(crate) fn leave(&self, feed: &Feed) -> bool {
        let mut registry = self.lock();
        if feed.remove_user() {
            registry.feeds.retain(|other| other.wanted != feed.wanted);
        }
        registry.feeds.is_empty()
    }

    /// The stream of what is wanted, if somebody has subscribed to it.
    pub(crate) fn find(&self, wanted: &Wanted) -> Option<Arc<Feed>> {
        self.lock().feeds.iter().find(|feed| feed.wanted == *wanted).cloned()
    }

    /// What is new in a stream, or, for whoever has not subscribed to it, what was seen last: lines of JSON.
    pub(crate) fn read(&self, wanted: &Wanted, page: Page) -> Result<String, String> {
        match self.find(wanted) {
            Some(feed) => Ok(feed.page(page)),
            None => hub::last(&self.hubs(), wanted, page),
        }
    }

    fn hubs(&self) -> Vec<Arc<Serves>> {
        self.lock().hubs.clone()
    }

    /// A hub for a collection; one that is `first` serves before others.
    fn enter(&self, collection: &str, first: bool) -> Arc<Serves> {
        let mut registry = self.lock();
        registry.next += 1;
        let hub = Arc::new(Serves::new(registry.next, collection, first));
        registry.hubs.push(Arc::clone(&hub));
        hub
    }

    /// A hub sees no more: what it served waits for another.
    fn quit(&self, hub: &Serves) {
        let mut registry = self.lock();
        registry.hubs.retain(|other| other.id != hub.id);
        if registry.serving == Some(hub.id) {
            registry.serving = None;
            registry.feeds.iter().for_each(|feed| feed.end(&hub.collection));
        }
    }

    /// The streams that a hub serves.
    fn served_by(&self, hub: &Serves) -> Vec<Arc<Feed>> {
        let mut registry = self.lock();
        let serving = registry.serving.and_then(|id| registry.hubs.iter().find(|other| other.id == id));
        if serving.is_none_or(|other| hub.first && !other.first) {
            registry.serving = Some(hub.id);
        }
        if registry.serving == Some(hub.id) { registry.feeds.clone() } else { Vec::new() }
    }

    /// Numbers for so many events: the first of them.
    fn number(&self, events: usize) -> u64 {
        self.seq.fetch_add(events as u64, Ordering::Relaxed) + 1
    }
}

#[cfg(test)]
mod tests;
