//! One kind of object, followed for ever: all of it, or what is in one namespace.
//!
//! ```text
//!  watcher ─▶ Watch ─▶ Learn: what an event comes to ─▶ who asked
//!               └──▶ Link: whether the API server answers
//! ```
//!
//! `Known` learns of objects as a whole, with what is in them; of Secrets only names and versions are looked at
//! (`kube/secrets`).

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::Resource;
use kube::api::{Api, ApiResource};
use kube::core::DynamicResourceScope;
use kube::runtime::watcher::{self, Event, watcher};
use proxy_model::{Kind, ObjectName};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

mod known;
mod link;
mod merge;
mod scope;

pub(crate) use known::{Heard, Known};
pub(crate) use link::Link;
pub(crate) use merge::Merge;
pub(crate) use scope::Scope;

/// A server that does not know streaming lists may answer with an ordinary watch that never says "that is all".
const STREAMED_LIST_SILENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 15_000 });
/// A kind that an API server does not have may come with a newer one.
const NEW_KIND: Duration = Duration::from_secs(600);

/// What is made of a stream of events.
pub(crate) trait Learn: Send {
    /// What an event brings.
    type Item: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static;
    /// What is passed on.
    type News: Send;

    /// Whether the end of a list is waited for.
    fn listing(&self) -> bool;

    /// What an event comes to, if anybody needs to know.
    fn learn(&mut self, event: Event<Self::Item>) -> Option<Self::News>;
}

/// The way to follow one kind.
pub(crate) struct Watch<L: Learn> {
    kind: Kind,
    api: Api<L::Item>,
    config: watcher::Config,
    known: L,
    link: Link,
}

/// Why a stream was left.
enum Left {
    /// Nobody listens any more.
    Unheard,
    /// The server does not stream lists.
    NoStreamedLists,
    /// The server has forgotten where we were: only a new list helps.
    Expired,
}

impl<L: Learn> Watch<L> {
    pub(crate) fn new(
        kind: Kind,
        (api, config): (Api<L::Item>, watcher::Config),
        known: L,
        link: Link,
    ) -> Self {
        Self {
            kind,
            api,
            config,
            known,
            link,
        }
    }

    /// Follows the kind until nobody receives the news.
    pub(crate) async fn run(mut self, news: mpsc::Sender<L::News>) {
        let paged = self.config.clone();
        let mut config = self.config.clone().streaming_lists();
        loop {
            match self.follow(config.clone(), &news).await {
                Left::Unheard => return,
                Left::Expired => {}
                Left::NoStreamedLists => {
                    let resource = self.link.what();
                    tracing::debug!(resource, "the API server streams no lists; reading by pages");
                    config = paged.clone();
                }
            }
        }
    }

    async fn follow(&mut self, config: watcher::Config, news: &mpsc::Sender<L::News>) -> Left {
        let streamed = config.initial_list_strategy == watcher::InitialListStrategy::StreamingList;
        let mut events = pin!(watcher(self.api.clone(), config));
        loop {
            let silence = if streamed && self.known.listing() {
                STREAMED_LIST_SILENCE
            } else {
                Duration::MAX
            };
            let event = tokio::select! {
                event = timeout(silence, events.next()) => event,
                () = news.closed() => return Left::Unheard,
            };
            match event {
                Ok(Some(Ok(event))) => {
                    self.link.works(&event);
                    if let Some(found) = self.known.learn(event)
                        && news.send(found).await.is_err()
                    {
                        return Left::Unheard;
                    }
                }
                Ok(Some(Err(error))) if streamed && refuses_streaming(&error) => {
                    return Left::NoStreamedLists;
                }
                Ok(Some(Err(error))) if self.kind == Kind::ServiceCidr && has_no_such_kind(&error) => {
                    tracing::info!(
                        "the API server has no ServiceCIDRs, as before Kubernetes 1.33: what is sent to a ClusterIP that no \
                         Service has is not dropped"
                    );
                    tokio::select! {
                        () = sleep(NEW_KIND) => return Left::Expired,
                        () = news.closed() => return Left::Unheard,
                    }
                }
                Ok(Some(Err(error))) => {
                    sleep(self.link.fails(&error)).await;
                    if expired(&error) {
                        return Left::Expired;
                    }
                }
                Ok(None) | Err(_) => return Left::NoStreamedLists,
            }
        }
    }
}

/// 422 or 400 is the answer of a server that does not know `sendInitialEvents`, or has it switched off (KEP-3157).
fn refuses_streaming(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

fn has_no_such_kind(error: &watcher::Error) -> bool {
    link::status(error).is_some_and(|status| status.code == 404)
}

/// "Gone" as the answer to a watch that was to be resumed. The library lists again when it is told so inside a stream,
/// but would ask for the forgotten version for ever after this answer.
fn expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_)) && link::is_routine(error)
}

/// By which an object is known, if it has a name.
pub(crate) fn name_of<K: Resource>(object: &K, resource: &ApiResource) -> Option<ObjectName> {
    let metadata = object.meta();
    let Some(name) = metadata.name.clone().filter(|name| !name.is_empty()) else {
        tracing::warn!("an object without a name among the {}: left out", resource.plural);
        return None;
    };
    let namespace = metadata.namespace.clone().unwrap_or_default();
    Some(ObjectName { namespace, name })
}
