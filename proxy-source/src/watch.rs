//! One kind of object, followed for ever.
//!
//! ```text
//!  first complete list ──▶ Replace          later lists ──▶ Put for each, Delete for those that are gone
//!                                           events      ──▶ Put, Delete
//! ```
//!
//! Only names are remembered. An object that cannot be decoded counts as there: what was made from an earlier version
//! of it stays (docs/decisions/0012).

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ApiResource};
use kube::runtime::watcher::{self, Event, watcher};
use proxy_model::{Change, Kind, Object, ObjectName};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Changes;
use super::raw::Raw;
use crate::Metrics;
use crate::clock;
use crate::error::chain;

/// A server that does not know streaming lists may answer with an ordinary watch that never says "that is all".
const STREAMED_LIST_SILENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 15_000 });
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A kind that an API server does not have may come with a newer one.
const NEW_KIND: Duration = Duration::from_secs(600);
/// After this long without an error the next one waits shortly again.
const GOOD_TIME: Duration = Duration::from_secs(60);

/// The way to follow one kind.
pub(super) struct Watch {
    resource: ApiResource,
    api: Api<Raw>,
    config: watcher::Config,
    known: Known,
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

impl Watch {
    pub(super) fn new(
        kind: Kind,
        resource: ApiResource,
        api: Api<Raw>,
        config: watcher::Config,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            known: Known::new(kind, resource.clone()),
            link: Link::new(resource.plural.clone(), metrics),
            resource,
            api,
            config,
        }
    }

    /// Follows the kind until nobody receives the changes.
    pub(super) async fn run(mut self, changes: mpsc::Sender<Changes>) {
        let paged = self.config.clone();
        let mut config = self.config.clone().streaming_lists();
        loop {
            match self.follow(config.clone(), &changes).await {
                Left::Unheard => return,
                Left::Expired => {}
                Left::NoStreamedLists => {
                    let resource = &self.resource.plural;
                    tracing::debug!(resource, "the API server streams no lists; reading by pages");
                    config = paged.clone();
                }
            }
        }
    }

    async fn follow(&mut self, config: watcher::Config, changes: &mpsc::Sender<Changes>) -> Left {
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
                () = changes.closed() => return Left::Unheard,
            };
            match event {
                Ok(Some(Ok(event))) => {
                    self.link.works(&event);
                    let found = self.known.learn(event);
                    if !found.is_empty() && changes.send(found).await.is_err() {
                        return Left::Unheard;
                    }
                }
                Ok(Some(Err(error))) if streamed && refuses_streaming(&error) => {
                    return Left::NoStreamedLists;
                }
                Ok(Some(Err(error))) if self.known.kind == Kind::ServiceCidr && has_no_such_kind(&error) => {
                    tracing::info!(
                        "the API server has no ServiceCIDRs, as before Kubernetes 1.33: what is sent to a ClusterIP that no \
                         Service has is not dropped"
                    );
                    tokio::select! {
                        () = sleep(NEW_KIND) => return Left::Expired,
                        () = changes.closed() => return Left::Unheard,
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
    status(error).is_some_and(|status| status.code == 404)
}

/// "Gone" as the answer to a watch that was to be resumed. The library lists again when it is told so inside a stream,
/// but would ask for the forgotten version for ever after this answer.
fn expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_)) && is_routine(error)
}

/// What has been told of one kind.
struct Known {
    kind: Kind,
    resource: ApiResource,
    names: BTreeSet<ObjectName>,
    /// Whether a complete list has been seen.
    complete: bool,
    /// The list that is being read.
    list: Option<List>,
    /// What cannot be decoded, and why.
    undecodable: BTreeMap<ObjectName, String>,
}

#[derive(Default)]
struct List {
    names: BTreeSet<ObjectName>,
    /// Only of the first list: later ones are told object by object.
    objects: Vec<Object>,
}

impl Known {
    fn new(kind: Kind, resource: ApiResource) -> Self {
        Self {
            kind,
            resource,
            names: BTreeSet::new(),
            complete: false,
            list: None,
            undecodable: BTreeMap::new(),
        }
    }

    /// Whether the end of a list is waited for.
    fn listing(&self) -> bool {
        self.list.is_some()
    }

    fn learn(&mut self, event: Event<Raw>) -> Changes {
        match event {
            Event::Init => {
                self.list = Some(List::default());
                Changes::new()
            }
            Event::InitApply(raw) => self.listed(raw),
            Event::InitDone => self.list_done(),
            Event::Apply(raw) => {
                let Some(name) = name_of(&raw, &self.resource) else {
                    return Changes::new();
                };
                self.names.insert(name.clone());
                self.decode(&name, raw).map(Change::Put).into_iter().collect()
            }
            Event::Delete(raw) => {
                let Some(name) = name_of(&raw, &self.resource) else {
                    return Changes::new();
                };
                self.names.remove(&name);
                self.undecodable.remove(&name);
                vec![Change::Delete(self.kind, name)]
            }
        }
    }

    fn listed(&mut self, raw: Raw) -> Changes {
        let Some(name) = name_of(&raw, &self.resource) else {
            return Changes::new();
        };
        let object = self.decode(&name, raw);
        let list = self.list.get_or_insert_default();
        list.names.insert(name);
        if self.complete {
            return object.map(Change::Put).into_iter().collect();
        }
        list.objects.extend(object);
        Changes::new()
    }

    fn list_done(&mut self) -> Changes {
        let list = self.list.take().unwrap_or_default();
        let before = std::mem::replace(&mut self.names, list.names);
        self.undecodable.retain(|name, _| self.names.contains(name));
        if !std::mem::replace(&mut self.complete, true) {
            return vec![Change::Replace(self.kind, list.objects)];
        }
        let gone = before.difference(&self.names);
        gone.map(|name| Change::Delete(self.kind, name.clone())).collect()
    }

    /// `None` if it cannot be used, which is logged once for each reason.
    fn decode(&mut self, name: &ObjectName, raw: Raw) -> Option<Object> {
        let what = match Object::read(raw.into_value(&self.resource), &[self.kind]) {
            Ok(Some(object)) => {
                if self.undecodable.remove(name).is_some() {
                    tracing::info!("{} {name} can be read again", self.kind);
                }
                return Some(object);
            }
            Ok(None) => "is of no kind that weir knows".to_owned(),
            Err(error) => chain(&error),
        };
        if self.undecodable.get(name) != Some(&what) {
            tracing::warn!(
                "{} {name} cannot be read ({what}): correct it; what weir knew of it before stays",
                self.kind
            );
            self.undecodable.insert(name.clone(), what);
        }
        None
    }
}

fn name_of(raw: &Raw, resource: &ApiResource) -> Option<ObjectName> {
    use kube::Resource;
    let metadata = raw.meta();
    let Some(name) = metadata.name.clone().filter(|name| !name.is_empty()) else {
        tracing::warn!("an object without a name among the {}: left out", resource.plural);
        return None;
    };
    let namespace = metadata.namespace.clone().unwrap_or_default();
    Some(ObjectName { namespace, name })
}

/// Whether the API server answers, said once when it changes; and how long to wait before the next try.
struct Link {
    plural: String,
    down: bool,
    wait: Duration,
    last_error: Option<Duration>,
    jitter: SmallRng,
    metrics: Arc<Metrics>,
}

impl Link {
    fn new(plural: String, metrics: Arc<Metrics>) -> Self {
        metrics.watching(&plural, false);
        Self {
            metrics,
            plural,
            down: false,
            wait: FIRST_WAIT,
            last_error: None,
            jitter: SmallRng::from_os_rng(),
        }
    }

    fn works(&mut self, event: &Event<Raw>) {
        // The beginning of a list is said before the server was asked.
        if matches!(event, Event::Init) {
            return;
        }
        self.metrics.watching(&self.plural, true);
        if std::mem::replace(&mut self.down, false) {
            tracing::info!("the API server answers again for {}", self.plural);
        }
    }

    fn fails(&mut self, error: &watcher::Error) -> Duration {
        let now = clock::monotonic();
        let good = self
            .last_error
            .is_none_or(|last| now.saturating_sub(last) > GOOD_TIME);
        self.last_error = Some(now);
        self.wait = if good {
            FIRST_WAIT
        } else {
            (self.wait * 2).min(LONGEST_WAIT)
        };
        if is_routine(error) {
            tracing::debug!("{}: {}; listing again", self.plural, chain(error));
            return self.pause();
        }
        self.metrics.watching(&self.plural, false);
        if !std::mem::replace(&mut self.down, true) {
            tracing::warn!(
                "cannot follow {} at the API server: {}; {}; weir serves what it knows and tries again",
                self.plural,
                chain(error),
                advice(error),
            );
        }
        self.pause()
    }

    /// Jitter, so that the nodes of a cluster do not come back all at once.
    fn pause(&mut self) -> Duration {
        self.wait.mul_f64(self.jitter.random_range(0.5..1.5))
    }
}

/// "Gone" is how an API server asks for a new list; it happens in good times too.
fn is_routine(error: &watcher::Error) -> bool {
    status(error).is_some_and(|status| status.code == 410)
}

fn status(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::WatchError(status)
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

fn advice(error: &watcher::Error) -> &'static str {
    match status(error).map(|status| status.code) {
        Some(401) => "check the token or certificate in the kubeconfig",
        Some(403) => {
            "weir needs list and watch on services, nodes, endpointslices.discovery.k8s.io and servicecidrs.networking.k8s.io: check its ClusterRole"
        }
        _ => "check that it runs and that this node reaches it",
    }
}
