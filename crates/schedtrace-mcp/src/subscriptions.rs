//! Subscriptions to `events://stream`, in both eras of the protocol: `resources/subscribe`, and `subscriptions/listen`.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ErrorData, ResourceUpdatedNotificationParam, SubscriptionFilter};
use rmcp::service::{Peer, SubscriptionContext};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};

use crate::answer::cleaned;
use crate::call::Client;
use crate::collect::Subscription;
use crate::resources;
use crate::state::State;
use crate::stream::{URI, Wanted};

/// A client is told at most so often that a stream has something new.
const INTERVAL: Duration = Duration::from_millis(250);
/// So many subscriptions stand at a time.
const MAX_SUBSCRIPTIONS: usize = 16;

/// What an address of a stream asks for.
fn wanted(state: &State, uri: &str) -> Result<Wanted, ErrorData> {
    let (found, query) = resources::find(state, uri)?;
    if found.name != URI {
        let told = format!("{} does not change by itself: subscribe to {URI}", cleaned(uri, 200));
        return Err(ErrorData::invalid_params(told, None));
    }
    let wrong = |why: String| ErrorData::invalid_params(cleaned(&why, 2_000), None);
    Wanted::read(query).map(|(wanted, _)| wanted).map_err(wrong)
}

/// The addresses in a filter, each once.
fn distinct(filter: &SubscriptionFilter) -> impl Iterator<Item = &String> {
    let mut seen = HashSet::new();
    filter.resource_subscriptions.iter().flatten().filter(move |uri| seen.insert(*uri))
}

/// Of what a client wants to listen to, the part that can be listened to.
pub(crate) fn accepted(state: &State, requested: &SubscriptionFilter) -> SubscriptionFilter {
    let uris = distinct(requested);
    // One too many is refused when they are subscribed to; those behind it are not looked at.
    let uris: Vec<&String> = uris.filter(|uri| wanted(state, uri).is_ok()).take(MAX_SUBSCRIPTIONS + 1).collect();
    if uris.is_empty() {
        SubscriptionFilter::new()
    } else {
        SubscriptionFilter::builder().resource_subscriptions(uris).build()
    }
}

/// Subscribes, as the one that may; loading programs takes a while, in which others are answered.
async fn join(
    state: &Arc<State>,
    client: Client,
    uri: &str,
    one: OwnedMutexGuard<()>,
) -> Result<(Subscription, OwnedMutexGuard<()>), ErrorData> {
    let wanted = wanted(state, uri)?;
    let (state, uri) = (Arc::clone(state), uri.to_owned());
    // The next one waits for this thread, even if nobody waits for what it does any more.
    let joined = tokio::task::spawn_blocking(move || (state.collections.subscribe(&uri, &wanted, client), one)).await;
    let (joined, one) = joined.map_err(|why| ErrorData::internal_error(format!("a bug in schedtrace: {why}"), None))?;
    let subscription = joined.map_err(|why| ErrorData::internal_error(cleaned(&why, 2_000), None))?;
    Ok((subscription, one))
}

/// Tells when there is something new, as long as there is somebody to tell it to.
async fn tell<F: Future<Output = bool>>(subscription: &Subscription, mut notify: impl FnMut() -> F) {
    let mut news = subscription.feed().news();
    // What came between subscribing and now is new as well.
    news.mark_changed();
    if *news.borrow() == 0 {
        news.mark_unchanged();
    }
    while news.changed().await.is_ok() {
        news.mark_unchanged();
        if !notify().await {
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The place of one subscription among those that there can be.
type Slot = Arc<OwnedSemaphorePermit>;

/// All subscriptions that stand.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Those of `resources/subscribe`, which stand until they are ended, by their addresses.
    tellers: Mutex<HashMap<String, Teller>>,
    slots: Arc<Semaphore>,
    /// One is begun at a time: threads that wait for programs to be loaded are few, and others need them.
    joining: Arc<tokio::sync::Mutex<()>>,
}

impl Default for Standing {
    fn default() -> Self {
        let slots = Arc::new(Semaphore::new(MAX_SUBSCRIPTIONS));
        Self { tellers: Mutex::default(), slots, joining: Arc::default() }
    }
}

/// Tells of a stream until it is dropped.
#[derive(Debug)]
struct Teller {
    task: AbortHandle,
    slot: Slot,
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Standing {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Teller>> {
        // Whoever panicked left a table that is whole.
        self.tellers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more.
    fn slot(&self) -> Result<Slot, ErrorData> {
        Arc::clone(&self.slots).try_acquire_owned().map(Arc::new).map_err(|_| {
            let told = format!(
                "{MAX_SUBSCRIPTIONS} subscriptions stand, which are all there can be: end one (resources/unsubscribe, or \
                 cancel its subscriptions/listen), or ask for more with one address, such as {URI}?kind=sched_switch,irq"
            );
            ErrorData::invalid_request(told, None)
        })
    }

    /// Begins what one `subscriptions/listen` asks for, until it is cancelled: the subscriptions end with what is returned.
    pub(crate) async fn begin(
        &self,
        state: &Arc<State>,
        client: Client,
        context: &SubscriptionContext,
    ) -> Result<JoinSet<()>, ErrorData> {
        // What was named twice is accepted twice.
        let uris: Vec<&String> = distinct(context.accepted()).collect();
        let mut slots = uris.iter().map(|_| self.slot()).collect::<Result<Vec<_>, _>>()?;
        let mut tellers = JoinSet::new();
        for uri in uris {
            let joined = async {
                let one = Arc::clone(&self.joining).lock_owned().await;
                join(state, client.clone(), uri, one).await
            };
            let (subscription, _) = tokio::select! {
                joined = joined => joined?,
                () = context.cancelled() => return Ok(tellers),
            };
            let (sink, uri, slot) = (context.sink().clone(), uri.clone(), slots.pop());
            tellers.spawn(async move {
                let _slot = slot;
                tell(&subscription, || {
                    let (sink, uri) = (sink.clone(), uri.clone());
                    async move { sink.notify_resource_updated(uri).await.is_ok() }
                })
                .await;
            });
        }
        Ok(tellers)
    }

    pub(crate) async fn subscribe(
        &self,
        state: &Arc<State>,
        client: Client,
        uri: String,
        peer: Peer<RoleServer>,
    ) -> Result<(), ErrorData> {
        let one = Arc::clone(&self.joining).lock_owned().await;
        let slot = self.lock().get(&uri).map(|teller| Arc::clone(&teller.slot));
        if slot.is_some() && state.collections.is_collecting() {
            return Ok(());
        }
        // Where what was collected for it is over, it begins again. The one before goes when this one stands: what nobody has
        // read yet is in the queue of both.
        let slot = slot.map_or_else(|| self.slot(), Ok)?;
        let (subscription, _one) = join(state, client, &uri, one).await?;
        let of = uri.clone();
        let task = tokio::spawn(async move {
            tell(&subscription, || {
                let (peer, told) = (peer.clone(), ResourceUpdatedNotificationParam::new(of.clone()));
                async move { peer.notify_resource_updated(told).await.is_ok() }
            })
            .await;
        });
        self.lock().insert(uri, Teller { task: task.abort_handle(), slot });
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, uri: &str) -> Result<(), ErrorData> {
        let told = || format!("{} was not subscribed to", cleaned(uri, 200));
        self.lock().remove(uri).map(drop).ok_or_else(|| ErrorData::invalid_params(told(), None))
    }
}

/// Waits until nobody listens any more.
pub(crate) async fn over(state: &State, context: &SubscriptionContext) {
    tokio::select! {
        () = context.cancelled() => {}
        () = state.gone.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn filter(uris: impl IntoIterator<Item = String>) -> SubscriptionFilter {
        SubscriptionFilter::builder().resource_subscriptions(uris).build()
    }

    #[test]
    fn what_is_named_often_is_listened_to_once() {
        let state = State::new(Settings { collect: true, ..Settings::default() });
        let uri = |cpu| format!("{URI}?cpu={cpu}");
        let often = (0..9_000).map(|n| uri(n % 2)).chain(["stats://system/cpu".into(), format!("{URI}?cpu=x")]);
        let told = accepted(&state, &filter(often)).resource_subscriptions;
        assert_eq!(told.unwrap(), [uri(0), uri(1)]);
        let many = accepted(&state, &filter((0..9_000).map(uri))).resource_subscriptions.unwrap();
        assert_eq!(many.len(), MAX_SUBSCRIPTIONS + 1, "enough to be refused");
        let twice = filter([uri(1), uri(1)]);
        assert_eq!(distinct(&twice).count(), 1, "what the library accepts still has both");
    }

    #[test]
    fn so_many_stand_at_a_time() {
        let standing = Standing::default();
        let mut slots: Vec<_> = (0..MAX_SUBSCRIPTIONS).map(|_| standing.slot().unwrap()).collect();
        let told = standing.slot().unwrap_err();
        assert!(told.message.contains("16 subscriptions stand") && told.message.contains("unsubscribe"), "{told:?}");
        slots.pop();
        assert!(standing.slot().is_ok());
    }
}
