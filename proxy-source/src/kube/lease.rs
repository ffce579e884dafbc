//! Who of several leads, by a Lease (`coordination.k8s.io/v1`), as client-go's leader election does it.
//!
//! ```text
//!  nobody's, or not renewed for 15 s ──▶ take it ──▶ renew it every 2 s ──▶ given up
//!                                                      └─ not for 10 s: lead no more, before another one may
//! ```
//!
//! Clocks of different machines are never compared: a Lease is old when it has not changed for its duration on the own
//! clock. Two can lead at a time only if one's clock runs half as fast as the other's.

use std::time::Duration;

use hyper::StatusCode;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::events::timestamp;
use crate::clock;
use crate::error::chain;

/// Which Lease, and who wants it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who wants it: the name of the pod.
    pub identity: String,
}

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Others wait for so long, in whole seconds.
    pub(super) duration: Duration,
    /// Who cannot renew for so long leads no more.
    pub(super) deadline: Duration,
    /// Between two tries.
    pub(super) retry: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// One that wants to lead.
pub(super) struct Candidate {
    api: Api<Lease>,
    of: LeaseName,
    times: Times,
    seen: Option<Seen>,
    /// Whether it was said that it cannot be asked for.
    silent: bool,
    jitter: SmallRng,
}

/// The Lease as it was last seen.
struct Seen {
    lease: Lease,
    /// Since when it says so, on the own clock.
    since: Duration,
}

impl Seen {
    fn spec(&self) -> Option<&LeaseSpec> {
        self.lease.spec.as_ref()
    }

    fn holder(&self) -> &str {
        let holder = self.spec().and_then(|spec| spec.holder_identity.as_deref());
        holder.unwrap_or_default()
    }

    /// Whether somebody may not take it yet.
    fn is_held(&self, now: Duration, default: Duration) -> bool {
        let seconds = self.spec().and_then(|spec| spec.lease_duration_seconds);
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(default, Duration::from_secs);
        !self.holder().is_empty() && now < self.since + duration
    }

    /// It was read again.
    fn update(seen: &mut Option<Self>, lease: Lease, now: Duration) {
        let same = seen.as_ref().filter(|seen| seen.lease.spec == lease.spec);
        let since = same.map_or(now, |seen| seen.since);
        *seen = Some(Self { lease, since });
    }
}

impl Candidate {
    pub(super) fn new(client: Client, of: LeaseName, times: Times) -> Self {
        Self {
            api: Api::namespaced(client, &of.namespace),
            of,
            times,
            seen: None,
            silent: false,
            jitter: SmallRng::from_os_rng(),
        }
    }

    /// Tries to lead, for ever, and says whether it does.
    pub(super) async fn run(&mut self, leads: &watch::Sender<bool>) {
        // When the try began by which it leads.
        let mut held: Option<Duration> = None;
        loop {
            let now = clock::monotonic();
            let end = held.map(|held| held + self.times.deadline);
            let patience = self.times.deadline / 2;
            let limit = end.map_or(patience, |end| patience.min(end.saturating_sub(now)));
            match timeout(limit, self.try_once(now)).await {
                Ok(Ok(true)) => held = Some(now),
                Ok(Ok(false)) => held = None,
                Ok(Err(error)) => self.complain(&error),
                Err(_) => tracing::debug!("Lease {}: no answer within {limit:?}", self.of.name),
            }
            let now = clock::monotonic();
            held = held.filter(|held| now < *held + self.times.deadline);
            self.say(leads, held.is_some());
            let pause = match held {
                Some(held) => self
                    .times
                    .retry
                    .min((held + self.times.deadline).saturating_sub(now)),
                // Not all at the same time.
                None => self.times.retry.mul_f64(self.jitter.random_range(1.0..2.2)),
            };
            sleep(pause).await;
        }
    }

    fn say(&mut self, leads: &watch::Sender<bool>, now: bool) {
        if leads.send_replace(now) != now {
            let LeaseName { name, identity, .. } = &self.of;
            let what = if now { "leads now" } else { "leads no more" };
            tracing::info!("{identity} {what}, by Lease {name}");
        }
    }

    /// Whether it leads, as of now.
    async fn try_once(&mut self, now: Duration) -> Result<bool, Error> {
        let own = self
            .seen
            .as_ref()
            .filter(|seen| seen.holder() == self.of.identity && seen.is_held(now, self.times.duration));
        if let Some(seen) = own {
            // Nobody else may have touched it, so it need not be read.
            let renewed = self.renewed(Some(&seen.lease));
            if self.write(&renewed).await.is_ok_and(|written| written) {
                return Ok(true);
            }
        }
        let lease = match self.api.get(&self.of.name).await {
            Ok(lease) => lease,
            Err(Error::Api(status)) if status.code == StatusCode::NOT_FOUND.as_u16() => {
                let new = self.renewed(None);
                let created = self.api.create(&PostParams::default(), &new).await;
                return self.settled(created);
            }
            Err(error) => return Err(error),
        };
        Seen::update(&mut self.seen, lease, clock::monotonic());
        let Some(seen) = &self.seen else {
            return Ok(false);
        };
        if seen.holder() != self.of.identity && seen.is_held(now, self.times.duration) {
            self.works();
            return Ok(false);
        }
        let renewed = self.renewed(Some(&seen.lease));
        self.write(&renewed).await
    }

    async fn write(&mut self, lease: &Lease) -> Result<bool, Error> {
        let name = &self.of.name;
        let written = self.api.replace(name, &PostParams::default(), lease).await;
        self.settled(written)
    }

    /// Another one was faster, or it is ours.
    fn settled(&mut self, written: Result<Lease, Error>) -> Result<bool, Error> {
        match written {
            Ok(lease) => {
                self.works();
                Seen::update(&mut self.seen, lease, clock::monotonic());
                Ok(true)
            }
            Err(Error::Api(status)) if status.code == StatusCode::CONFLICT.as_u16() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The Lease as it is to be, out of what it is.
    fn renewed(&self, lease: Option<&Lease>) -> Lease {
        let now = MicroTime(timestamp());
        let mut lease = lease.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.of.name.clone()),
                namespace: Some(self.of.namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Lease::default()
        });
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.of.identity) {
            // The first holder of a new Lease is no transition.
            let before = spec.lease_transitions;
            let known = spec.renew_time.is_some();
            spec.lease_transitions = Some(before.unwrap_or(0).saturating_add(i32::from(known)));
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(self.of.identity.clone());
        }
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = i32::try_from(self.times.duration.as_secs()).ok();
        lease
    }

    /// So that another one need not wait.
    pub(super) async fn give_up(&mut self) {
        if self
            .seen
            .take()
            .is_none_or(|seen| seen.holder() != self.of.identity)
        {
            return;
        }
        let name = &self.of.name;
        match timeout(self.times.deadline / 2, self.release()).await {
            Ok(Ok(())) => tracing::info!("Lease {name} is given up"),
            Ok(Err(error)) => {
                tracing::warn!("Lease {name} is not given up, and grows old: {}", chain(&error));
            }
            Err(_) => tracing::warn!("Lease {name} is not given up, and grows old: no answer"),
        }
    }

    async fn release(&self) -> Result<(), Error> {
        // A try may have been left before its answer came.
        let mut lease = self.api.get(&self.of.name).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.of.identity) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(timestamp()));
        let params = PostParams::default();
        self.api.replace(&self.of.name, &params, &lease).await.map(drop)
    }

    fn works(&mut self) {
        if std::mem::replace(&mut self.silent, false) {
            tracing::info!("Lease {} can be asked for again", self.of.name);
        }
    }

    fn complain(&mut self, error: &Error) {
        if std::mem::replace(&mut self.silent, true) {
            return;
        }
        let LeaseName { namespace, name, .. } = &self.of;
        let why = match error {
            Error::Api(status) if status.code == StatusCode::FORBIDDEN.as_u16() => format!(
                "{}: weir needs get, create and update on leases.coordination.k8s.io in namespace {namespace}: check its Role",
                status.message
            ),
            error => chain(error),
        };
        tracing::warn!(
            "cannot ask for Lease {namespace}/{name} ({why}); without it nobody writes the status of Ingresses; it tries again"
        );
    }
}

#[cfg(test)]
mod tests;
