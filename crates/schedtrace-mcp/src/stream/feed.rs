//! One stream: what waits to be read, and what was lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use schedtrace_core::{Batch, Kind, Loss, LossPlace};
use serde_json::json;
use tokio::sync::watch;

use super::lines::{self, Held, Known};
use super::{Page, QUEUE, Selector, Wanted};
use crate::answer::{BUDGET, ROOMY};

/// Room for the line that ends a page, in bytes.
const LAST_LINE: usize = 600;
/// Kinds of loss that are told apart.
const MAX_LOSSES: usize = 20;

/// The queue of one stream.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(super) wanted: Wanted,
    queue: Mutex<Queue>,
    /// Changes when there is something new to read.
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Queue {
    selector: Selector,
    /// The hub that told the selector who is who.
    taught_by: Option<u64>,
    users: usize,
    /// The last ones: some were read, and can be read again.
    events: VecDeque<Held>,
    /// The number up to which they were read.
    read: u64,
    /// How many were taken in, and how many of them nobody read before they had to go.
    accepted: u64,
    lost: u64,
    /// Losses that were not told yet: of this queue, and on the way to it.
    untold: u64,
    untold_before: BTreeMap<(LossPlace, Option<Kind>), u64>,
    /// The collection that has ended, until another one serves.
    ended: Option<String>,
    serving: Option<String>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Events that were wanted.
    pub(crate) events: u64,
    /// Those of them that were lost, for nobody read them in time.
    pub(crate) lost: u64,
}

impl Feed {
    pub(super) fn new(wanted: Wanted) -> Result<Self, String> {
        let queue = Queue {
            selector: Selector::new(&wanted)?,
            taught_by: None,
            users: 1,
            events: VecDeque::new(),
            read: 0,
            accepted: 0,
            lost: 0,
            untold: 0,
            untold_before: BTreeMap::new(),
            ended: None,
            serving: None,
        };
        Ok(Self { wanted, queue: Mutex::new(queue), news: watch::channel(0).0 })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Whoever panicked left a queue that can be read.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_user(&self) {
        self.lock().users += 1;
    }

    /// Whether it was the last.
    pub(super) fn remove_user(&self) -> bool {
        let mut queue = self.lock();
        queue.users = queue.users.saturating_sub(1);
        queue.users == 0
    }

    /// Tells when there is something new.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    pub(crate) fn tally(&self) -> Tally {
        let queue = self.lock();
        Tally { events: queue.accepted, lost: queue.lost }
    }

    /// Takes the next stretch of what a hub sees: those that are wanted.
    pub(super) fn take(&self, hub: (u64, &str), known: &Known, batch: &Batch, events: &[Held]) {
        let mut queue = self.lock();
        if queue.taught_by != Some(hub.0) {
            // Ids mean something else in another collection.
            if let Ok(selector) = Selector::new(&self.wanted) {
                queue.selector = selector;
            }
            queue.selector.learn(&known.told());
            queue.taught_by = Some(hub.0);
            queue.serving = Some(hub.1.to_owned());
            queue.ended = None;
        } else {
            queue.selector.learn(batch);
        }
        let before = queue.accepted;
        for held in events {
            if queue.selector.accepts(held) {
                queue.push(held.clone());
            }
        }
        let lost = batch.lost.iter().filter(|loss| loss.place != LossPlace::Late && queue.selector.may(loss.kind));
        let lost: Vec<_> = lost.collect();
        lost.iter().for_each(|loss| queue.miss(loss));
        let news = queue.accepted > before || !lost.is_empty();
        drop(queue);
        if news {
            self.publish();
        }
    }

    /// The collection that it saw is over.
    pub(super) fn end(&self, collection: &str) {
        let mut queue = self.lock();
        queue.ended = Some(collection.to_owned());
        queue.serving = None;
        queue.taught_by = None;
        drop(queue);
        self.publish();
    }

    fn publish(&self) {
        self.news.send_modify(|version| *version += 1);
    }

    /// What was not read yet, or comes behind an event: lines of JSON, the last of which says what is left.
    pub(super) fn page(&self, page: Page) -> String {
        let mut queue = self.lock();
        let mut text = String::new();
        for (place, count) in std::mem::take(&mut queue.untold_before) {
            text.push_str(&lines::lost(&place.0.to_string(), place.1, count));
            text.push('\n');
        }
        let told = std::mem::take(&mut queue.untold);
        if told > 0 {
            text.push_str(&lines::lost("stream", None, told));
            text.push('\n');
        }
        // Nobody has read what has not come yet: the next events are told, or counted as lost, whatever was asked for.
        let newest = queue.events.back().map_or(0, |held| held.seq);
        let from = page.after.map_or(queue.read, |after| after.min(newest));
        let at = queue.events.partition_point(|held| held.seq <= from);
        let shown = write(&mut text, queue.events.iter().skip(at), page);
        let left = queue.events.len() - at - shown;
        let seq = queue.events.get((at + shown).wrapping_sub(1)).map_or(from, |held| held.seq).max(from);
        queue.read = queue.read.max(seq);
        let last = json!({
            "event": "page_end",
            "seq": seq,
            "lines": shown,
            "left": left,
            "lost": queue.lost,
            "subscribed": true,
            "collection": queue.serving,
            "ended": queue.ended,
        });
        text.push_str(&last.to_string());
        text.push('\n');
        text
    }
}

/// As many of these as a page takes; how many.
pub(super) fn write<'a>(text: &mut String, events: impl Iterator<Item = &'a Held>, page: Page) -> usize {
    let budget = if page.roomy { ROOMY } else { BUDGET } - LAST_LINE;
    let mut shown = 0;
    for held in events.take(page.limit) {
        let line = lines::line(held);
        if text.len() + line.len() >= budget {
            break;
        }
        text.push_str(&line);
        text.push('\n');
        shown += 1;
    }
    shown
}

impl Queue {
    fn push(&mut self, held: Held) {
        self.accepted += 1;
        if self.events.len() >= QUEUE
            && let Some(oldest) = self.events.pop_front()
            && oldest.seq > self.read
        {
            self.lost += 1;
            self.untold += 1;
        }
        self.events.push_back(held);
    }

    /// Notes what went missing before it came here.
    fn miss(&mut self, loss: &Loss) {
        let full = self.untold_before.len() >= MAX_LOSSES;
        let place = (loss.place.clone(), loss.kind);
        let place = if full && !self.untold_before.contains_key(&place) { (LossPlace::Elsewhere, None) } else { place };
        *self.untold_before.entry(place).or_default() += loss.count;
    }
}
