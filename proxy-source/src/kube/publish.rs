//! The status of Ingresses, written by the one that leads.
//!
//! ```text
//!  Ingresses as last seen ─┐
//!                          ├──▶ Desk ──▶ patch of `status.loadBalancer`, if a Lease says that it is us
//!  what they are to say ───┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use proxy_model::api::IngressLoadBalancerIngress;
use proxy_model::{Change, IpOrHost, Kind};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use self::desk::{Desk, Outcome, Write};
use super::follow;
use super::lease::Candidate;
use crate::Statuses;
use crate::error::chain;
use crate::raw::Raw;

mod desk;

/// Between two writes: 20 in a second, so that a new address for thousands of Ingresses is no burden for the API server.
const PACE: Duration = Duration::from_millis(50);
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// After a write that no server took; doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What the source sees, for who writes. Nothing is kept before somebody wants to.
#[derive(Default)]
pub(super) struct Board {
    desk: Mutex<Option<Desk>>,
    news: Notify,
}

impl Board {
    /// From now on what is seen is kept.
    pub(super) fn open(&self) {
        self.desk().get_or_insert_default();
    }

    pub(super) fn hear(&self, changes: &[Change]) {
        if let Some(desk) = self.desk().as_mut() {
            desk.hear(changes);
            self.news.notify_one();
        }
    }

    fn want(&self, statuses: &Statuses) {
        if let Some(desk) = self.desk().as_mut() {
            desk.want(statuses);
        }
    }

    fn next(&self) -> Option<Write> {
        self.desk().as_mut()?.next()
    }

    fn written(&self, write: &Write, outcome: Outcome) {
        if let Some(desk) = self.desk().as_mut() {
            desk.written(&write.name, outcome);
        }
    }

    fn desk(&self) -> MutexGuard<'_, Option<Desk>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until nobody can want anything any more, and then lets another one lead.
pub(super) async fn publish(mut candidate: Candidate, writer: Writer, statuses: watch::Receiver<Statuses>) {
    let (say, leads) = watch::channel(false);
    tokio::select! {
        () = candidate.run(&say) => {}
        () = writer.run(leads, statuses) => {}
    }
    candidate.give_up().await;
}

/// Writes statuses.
pub(super) struct Writer {
    client: Client,
    board: Arc<Board>,
    manager: &'static str,
    /// Whether it was said that nothing can be written.
    silent: bool,
    wait: Duration,
}

/// Nobody wants anything any more.
struct Ended;

impl Writer {
    pub(super) fn new(client: Client, board: Arc<Board>, manager: &'static str) -> Self {
        Self {
            client,
            board,
            manager,
            silent: false,
            wait: FIRST_WAIT,
        }
    }

    async fn run(mut self, mut leads: watch::Receiver<bool>, mut statuses: watch::Receiver<Statuses>) {
        statuses.mark_changed();
        let mut pause = None;
        loop {
            if self.listen(&mut leads, &mut statuses, pause).await.is_err() {
                return;
            }
            pause = None;
            if !*leads.borrow() {
                continue;
            }
            if let Some(write) = self.board.next() {
                // Another one may write as soon as we do not lead, so a write that is under way is let go.
                pause = tokio::select! {
                    pause = self.write(&write) => Some(pause),
                    () = no_more(&mut leads) => None,
                };
            }
        }
    }

    /// Waits for news, or for the end of a pause.
    async fn listen(
        &self,
        leads: &mut watch::Receiver<bool>,
        statuses: &mut watch::Receiver<Statuses>,
        pause: Option<Duration>,
    ) -> Result<(), Ended> {
        let mut rest = std::pin::pin!(sleep(pause.unwrap_or_default()));
        loop {
            tokio::select! {
                biased;
                changed = statuses.changed() => {
                    changed.map_err(|_| Ended)?;
                    self.board.want(&statuses.borrow_and_update());
                }
                () = &mut rest, if pause.is_some() => return Ok(()),
                changed = leads.changed() => changed.map_err(|_| Ended)?,
                () = self.board.news.notified() => {}
            }
            if pause.is_none() {
                return Ok(());
            }
        }
    }

    /// Returns how long to wait after it.
    async fn write(&mut self, write: &Write) -> Duration {
        let list: Vec<IngressLoadBalancerIngress> = write.addresses.iter().map(Into::into).collect();
        // Without fields that are null: those would be no list's elements, but changes.
        let list = list.iter().map(|element| match (&element.ip, &element.hostname) {
            (Some(ip), _) => json!({"ip": ip}),
            (None, name) => json!({"hostname": name}),
        });
        let list: Vec<_> = list.collect();
        let list = (!list.is_empty()).then_some(list);
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": list}}}));
        let resource = follow::resource(Kind::Ingress);
        let namespace = &write.name.namespace;
        let ingresses: Api<Raw> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let params = PatchParams {
            field_manager: Some(self.manager.to_owned()),
            ..PatchParams::default()
        };
        let answer = timeout(
            ANSWERS_WITHIN,
            ingresses.patch_status(&write.name.name, &params, &patch),
        );
        match answer.await {
            Ok(Ok(raw)) => {
                self.works();
                self.board.written(write, Outcome::Says(addresses(&raw)));
                PACE
            }
            Ok(Err(error)) => self.judge(write, &error),
            Err(_) => self.fails(&format!("no answer within {ANSWERS_WITHIN:?}")),
        }
    }

    fn judge(&mut self, write: &Write, error: &Error) -> Duration {
        let Error::Api(status) = error else {
            return self.fails(&chain(error));
        };
        let name = &write.name;
        match StatusCode::from_u16(status.code).unwrap_or_default() {
            StatusCode::NOT_FOUND => self.board.written(write, Outcome::Gone),
            // Somebody else was faster: there will be news of it, and until then it is tried again.
            StatusCode::CONFLICT => {
                tracing::debug!("the status of Ingress {name} was just changed by another");
            }
            StatusCode::FORBIDDEN if status.message.contains("being terminated") => {
                self.board.written(write, Outcome::Refused);
            }
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                return self.fails(&format!(
                    "{}: weir needs patch on ingresses.networking.k8s.io/status in namespace {}: check its Role or \
                     ClusterRole",
                    status.message, name.namespace
                ));
            }
            StatusCode::TOO_MANY_REQUESTS => return self.fails(&status.message),
            code if code.is_server_error() => return self.fails(&status.message),
            _ => {
                let why = &status.message;
                tracing::warn!("the status of Ingress {name} cannot be written: {why}; it stays as it is");
                self.board.written(write, Outcome::Refused);
            }
        }
        PACE
    }

    fn works(&mut self) {
        self.wait = FIRST_WAIT;
        if std::mem::replace(&mut self.silent, false) {
            tracing::info!("the status of Ingresses can be written again");
        }
    }

    fn fails(&mut self, why: &str) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        if !std::mem::replace(&mut self.silent, true) {
            tracing::warn!("cannot write the status of Ingresses: {why}; it tries again");
        }
        wait
    }
}

async fn no_more(leads: &mut watch::Receiver<bool>) {
    // Who says it never leaves before us.
    drop(leads.wait_for(|leads| !leads).await);
}

fn addresses(raw: &Raw) -> Vec<IpOrHost> {
    let list = raw.value.pointer("/status/loadBalancer/ingress");
    let list =
        list.and_then(|list| serde_json::from_value::<Vec<IngressLoadBalancerIngress>>(list.clone()).ok());
    IpOrHost::list(&list.unwrap_or_default())
}

#[cfg(test)]
mod tests;
