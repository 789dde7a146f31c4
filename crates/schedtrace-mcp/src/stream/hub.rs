//! What one collection shows: the sink that serves the streams.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schedtrace_core::{Batch, EventKind, Nanos, Result, Sink};
use serde_json::json;

use super::feed::write;
use super::lines::{Held, Known};
use super::{Page, QUEUE, Selector, Streams, Wanted};

/// What others see of a hub.
#[derive(Debug)]
pub(super) struct Serves {
    pub(super) id: u64,
    pub(super) collection: String,
    pub(super) first: bool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    known: Known,
    recent: VecDeque<Held>,
}

impl Serves {
    pub(super) fn new(id: u64, collection: &str, first: bool) -> Self {
        Self { id, collection: collection.to_owned(), first, seen: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Whoever panicked left lists that can be read.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sink of a collection: numbers its events, keeps the last, and gives the streams what they want.
#[derive(Debug)]
pub(crate) struct Hub {
    streams: Arc<Streams>,
    serves: Arc<Serves>,
}

impl Hub {
    /// The hub of the collection of this name; one that is `first` serves before others.
    pub(crate) fn new(streams: &Arc<Streams>, collection: &str, first: bool) -> Self {
        Self { streams: Arc::clone(streams), serves: streams.enter(collection, first) }
    }
}

impl Sink for Hub {
    fn batch(&mut self, batch: &Batch) -> Result<()> {
        let mut seen = self.serves.lock();
        let mut changes = seen.known.learn(batch);
        let all = batch.late.iter().map(|event| (event, true)).chain(batch.events.iter().map(|event| (event, false)));
        // What was there at the beginning is nothing that happened.
        let all = all.filter(|(event, _)| !matches!(event.kind, EventKind::Snapshot(_)));
        let first = self.streams.number(batch.late.len() + batch.events.len());
        let held = (first..).zip(all).map(|(seq, (event, late))| {
            seen.known.change(&mut changes, event.ts);
            seen.known.hold(seq, event, late)
        });
        let held: Vec<Held> = held.collect();
        seen.known.change(&mut changes, Nanos(u64::MAX));
        for feed in self.streams.served_by(&self.serves) {
            feed.take((self.serves.id, &self.serves.collection), &seen.known, batch, &held);
        }
        let kept_from = first.saturating_sub(QUEUE as u64);
        seen.known.forget(&held, kept_from);
        seen.recent.extend(held);
        let over = seen.recent.len().saturating_sub(QUEUE);
        seen.recent.drain(..over);
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.streams.quit(&self.serves);
    }
}

/// What was seen last, for whoever has not subscribed.
pub(super) fn last(hubs: &[Arc<Serves>], wanted: &Wanted, page: Page) -> std::result::Result<String, String> {
    let hint = "subscribe to this address (resources/subscribe or subscriptions/listen) to be told when there is more, and \
        to be given what is new at each reading";
    let Some(hub) = hubs.iter().max_by_key(|hub| (hub.first, hub.id)) else {
        let told = json!({ "event": "page_end", "seq": page.after, "lines": 0, "left": 0, "lost": 0, "subscribed": false,
            "collection": null, "hint": format!("nothing is being collected: {hint}; that starts a collection") });
        return Ok(format!("{told}\n"));
    };
    let mut selector = Selector::new(wanted)?;
    let seen = hub.lock();
    selector.learn(&seen.known.told());
    let mut found: Vec<&Held> = seen.recent.iter().filter(|held| selector.accepts(held)).collect();
    match page.after {
        Some(after) => found.retain(|held| held.seq > after),
        None => drop(found.drain(..found.len().saturating_sub(page.limit))),
    }
    let mut text = String::new();
    let mut shown = write(&mut text, found.iter().copied(), page);
    if page.after.is_none() && shown < found.len() {
        // The newest are those that count.
        found.drain(..found.len() - shown);
        text.clear();
        shown = write(&mut text, found.iter().copied(), page);
    }
    let seq = found.get(shown.wrapping_sub(1)).map(|held| held.seq).or(page.after);
    let left = found.len() - shown;
    let told = json!({ "event": "page_end", "seq": seq, "lines": shown, "left": left, "lost": 0, "subscribed": false,
        "collection": hub.collection, "hint": format!("these are of the last {QUEUE} events: {hint}") });
    text.push_str(&format!("{told}\n"));
    Ok(text)
}
