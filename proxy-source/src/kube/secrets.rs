//! Secrets by reference: only those that somebody names, each asked for by itself.
//!
//! ```text
//!  lists and watches of names and versions ──┐
//!                                            ├──▶ Book ──▶ get, a few at a time ──▶ Put, Delete
//!  which names are wanted ───────────────────┘
//! ```
//!
//! What other Secrets hold never gets into this process. What the wanted ones hold is never logged: answers are decoded
//! here, because the library logs what it cannot decode, and errors tell the field only (docs/decisions/0038).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::api::{ApiResource, GetParams};
use kube::core::Request;
use kube::runtime::watcher::Event;
use kube::{Client, Error};
use proxy_model::{Change, Kind, Object, ObjectName};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use self::book::{Answer, Book, Look, Next};
use super::follow::{self, Part};
use crate::raw::{Named, Raw};
use crate::watch::{Learn, Scope, name_of};
use crate::{Changes, Metrics, clock};

mod book;

/// Questions at a time.
const AT_ONCE: usize = 8;
/// A question that nobody answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// Secrets that cannot be read and are named in the log; after so many it says so.
const MOST_NAMED: usize = 20;

/// The way to follow Secrets.
pub(super) struct Secrets {
    pub(super) client: Client,
    pub(super) parts: Vec<Part>,
    pub(super) wanted: watch::Receiver<BTreeSet<ObjectName>>,
    pub(super) metrics: Arc<Metrics>,
}

impl Secrets {
    /// Until nobody receives the changes.
    pub(super) async fn run(self, changes: mpsc::Sender<Changes>) {
        let (tell, looks) = mpsc::channel(64);
        let scopes: Vec<Scope> = self.parts.iter().map(|part| part.scope.clone()).collect();
        let watches = self.parts.into_iter().enumerate().map(|(place, part)| {
            let versions = Versions::new(place);
            let watch = part.watch(self.client.clone(), versions, Arc::clone(&self.metrics));
            watch.run(tell.clone())
        });
        let reader = Reader {
            asker: Asker::new(self.client.clone()),
            book: Book::new(scopes, SmallRng::from_os_rng().random()),
            complaints: Complaints::default(),
            changes: changes.clone(),
        };
        // Whoever ends first, nobody listens any more.
        tokio::select! {
            _ = futures::future::join_all(watches) => {}
            () = reader.run(looks, self.wanted) => {}
            () = changes.closed() => {}
        }
    }
}

/// Names and versions out of lists and watches.
struct Versions {
    place: usize,
    resource: ApiResource,
    listing: bool,
}

impl Versions {
    fn new(place: usize) -> Self {
        Self {
            place,
            resource: follow::resource(Kind::Secret),
            listing: false,
        }
    }

    fn there(&self, named: &Named) -> Option<Look> {
        use kube::Resource;
        let version = named.meta().resource_version.clone().unwrap_or_default();
        Some(Look::There(name_of(named, &self.resource)?, version))
    }
}

impl Learn for Versions {
    type Item = Named;
    type News = (usize, Look);

    fn listing(&self) -> bool {
        self.listing
    }

    fn learn(&mut self, event: Event<Named>) -> Option<(usize, Look)> {
        let look = match event {
            Event::Init => {
                self.listing = true;
                Some(Look::Begin)
            }
            Event::InitDone => {
                self.listing = false;
                Some(Look::End)
            }
            Event::InitApply(named) | Event::Apply(named) => self.there(&named),
            Event::Delete(named) => name_of(&named, &self.resource).map(Look::Gone),
        };
        Some((self.place, look?))
    }
}

/// Reads those that are wanted.
struct Reader {
    asker: Asker,
    book: Book,
    complaints: Complaints,
    changes: mpsc::Sender<Changes>,
}

/// Nobody receives the changes.
struct Unheard;

impl Reader {
    async fn run(
        mut self,
        mut looks: mpsc::Receiver<(usize, Look)>,
        mut wanted: watch::Receiver<BTreeSet<ObjectName>>,
    ) {
        let mut questions = FuturesUnordered::new();
        let mut more = true;
        wanted.mark_changed();
        loop {
            let mut pause = None;
            while questions.len() < AT_ONCE {
                let now = clock::monotonic();
                match self.book.next(now) {
                    Next::Ask(name, number) => questions.push(self.asker.clone().ask(name, number)),
                    Next::Wait(at) => {
                        pause = Some(at.saturating_sub(now));
                        break;
                    }
                    Next::Idle => break,
                }
            }
            let heard = tokio::select! {
                Some((name, number, reply)) = questions.next() => self.answered(&name, number, reply).await,
                changed = wanted.changed(), if more => {
                    // Whoever named them is gone: the last word holds.
                    more = changed.is_ok();
                    let names = wanted.borrow_and_update().clone();
                    self.want(&names).await
                }
                Some((place, look)) = looks.recv() => {
                    self.book.hear(place, look, clock::monotonic());
                    Ok(())
                }
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => Ok(()),
                else => return,
            };
            if heard.is_err() {
                return;
            }
        }
    }

    async fn want(&mut self, names: &BTreeSet<ObjectName>) -> Result<(), Unheard> {
        self.complaints.keep(names);
        let unknown = self.book.want(names, clock::monotonic());
        for name in &unknown {
            let namespace = &name.namespace;
            tracing::warn!(
                "Secret {name} is not read: Secrets in namespace {namespace} are not followed; add it to the namespaces, or \
                 name another Secret"
            );
        }
        let deletes = unknown.into_iter().map(|name| Change::Delete(Kind::Secret, name));
        self.send(deletes.collect()).await
    }

    async fn answered(
        &mut self,
        name: &ObjectName,
        number: u64,
        reply: Result<Answer, String>,
    ) -> Result<(), Unheard> {
        let answer = match reply {
            Ok(answer) => {
                self.complaints.settled(name);
                answer
            }
            Err(why) => {
                self.complaints.failed(name, &why);
                Answer::Failed
            }
        };
        let change = self.book.answered((name, number), answer, clock::monotonic());
        self.send(change.into_iter().collect()).await
    }

    async fn send(&self, changes: Changes) -> Result<(), Unheard> {
        if changes.is_empty() {
            return Ok(());
        }
        self.changes.send(changes).await.map_err(|_| Unheard)
    }
}

/// Gets one Secret.
#[derive(Clone)]
struct Asker {
    client: Client,
    resource: ApiResource,
}

impl Asker {
    fn new(client: Client) -> Self {
        Self {
            client,
            resource: follow::resource(Kind::Secret),
        }
    }

    async fn ask(self, name: ObjectName, number: u64) -> (ObjectName, u64, Result<Answer, String>) {
        let reply = match timeout(ANSWERS_WITHIN, self.get(&name)).await {
            Ok(reply) => reply,
            Err(_) => Err(format!(
                "no answer within {ANSWERS_WITHIN:?}: check that the API server runs and that this node reaches it"
            )),
        };
        (name, number, reply)
    }

    async fn get(&self, name: &ObjectName) -> Result<Answer, String> {
        let url = format!("/api/v1/namespaces/{}/{}", name.namespace, self.resource.plural);
        let request = Request::new(url)
            .get(&name.name, &GetParams::default())
            .map_err(|error| error.to_string())?;
        match self.client.request_text(request).await {
            Ok(text) => self.decode(name, &text),
            Err(Error::Api(status)) if status.code == 404 => Ok(Answer::Missing),
            Err(error) => Err(why(name, &error)),
        }
    }

    fn decode(&self, name: &ObjectName, text: &str) -> Result<Answer, String> {
        use kube::Resource;
        // What stands there must not get into the log, so the reason does not either.
        let raw: Raw = serde_json::from_str(text).map_err(|_| "the answer is no object".to_owned())?;
        let version = raw.meta().resource_version.clone().unwrap_or_default();
        match Object::read(raw.into_value(&self.resource), &[Kind::Secret]) {
            Ok(Some(Object::Secret(mut secret))) => {
                // They may hold a copy of the whole object, and nobody needs them.
                secret.metadata.annotations = None;
                secret.metadata.labels = None;
                Ok(Answer::Found(Box::new(secret), version))
            }
            Ok(_) => Ok(Answer::Unusable(version)),
            Err(error) => {
                tracing::warn!("Secret {name} cannot be read: {error}; what weir knew of it before stays");
                Ok(Answer::Unusable(version))
            }
        }
    }
}

fn why(name: &ObjectName, error: &Error) -> String {
    match error {
        Error::Api(status) if status.code == 403 => {
            let namespace = &name.namespace;
            let said = &status.message;
            format!(
                "{said}: weir needs get, list and watch on secrets in namespace {namespace}: check its Role or ClusterRole"
            )
        }
        Error::Api(status) => format!("{} {}", status.code, status.message),
        // An answer that is no text, in bytes.
        Error::FromUtf8(_) => "the answer is no text".to_owned(),
        error => crate::error::chain(error),
    }
}

/// Which Secrets cannot be read, each said once.
#[derive(Default)]
struct Complaints {
    open: BTreeSet<ObjectName>,
}

impl Complaints {
    fn failed(&mut self, name: &ObjectName, why: &str) {
        if !self.open.insert(name.clone()) {
            tracing::debug!("Secret {name}: {why}");
            return;
        }
        match self.open.len() {
            ..=MOST_NAMED => {
                tracing::warn!(
                    "Secret {name} cannot be read ({why}); what weir knew of it before stays, and it tries again"
                );
            }
            count if count == MOST_NAMED + 1 => {
                tracing::warn!("more than {MOST_NAMED} Secrets cannot be read: the others are not named");
            }
            _ => {}
        }
    }

    fn settled(&mut self, name: &ObjectName) {
        if self.open.remove(name) && self.open.len() < MOST_NAMED {
            tracing::info!("Secret {name} can be read again");
        }
    }

    fn keep(&mut self, names: &BTreeSet<ObjectName>) {
        self.open.retain(|name| names.contains(name));
    }
}

#[cfg(test)]
mod tests;
