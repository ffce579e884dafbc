//! What Ingresses ask of TLS connections beside a certificate: that they are passed through unopened, or that clients
//! show a certificate of their own. Both are settled per host, because the name is all that is known when a connection
//! begins.
//!
//! Of several Ingresses the oldest has a host. A host is passed through or terminated, never both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proxy_model::{Kind, ObjectName};

use super::annotations;
use super::hosts::{Conflict, Contested};
use super::tls::Wish;
use crate::route::{Backend, HostMatch, Origin, Policy};

/// A host whose connections are passed through.
#[derive(Clone, PartialEq, Debug)]
pub struct Pass {
    /// Where it stands; decides among equals.
    pub origin: Origin,
    /// The host; never all of them.
    pub host: HostMatch,
    /// Where they go; none: there is no such thing, and they are closed.
    pub backend: Option<Backend>,
    /// The limits of its Ingress.
    pub policy: Arc<Policy>,
}

/// A host whose clients show a certificate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Demand {
    /// Where it stands; decides among equals.
    pub origin: Origin,
    /// The host; never all of them.
    pub host: HostMatch,
    /// The Secret with the authorities; none: it cannot be used, and nobody is let in.
    pub secret: Option<ObjectName>,
    /// Who is let in.
    pub mode: ClientAuthMode,
}

/// Who is let in where clients are asked for a certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum ClientAuthMode {
    /// Who has a good one.
    #[default]
    Require,
    /// Also who has none. A bad one is refused all the same.
    Optional,
}

impl Demand {
    fn is_like(&self, other: &Self) -> bool {
        (&self.secret, self.mode) == (&other.secret, other.mode)
    }
}

/// All hosts that are passed through.
pub type Passes = BTreeMap<HostMatch, Pass>;

/// All hosts whose clients show a certificate.
pub type Demands = BTreeMap<HostMatch, Demand>;

/// The Secrets with authorities that are needed.
pub fn secrets(demands: &Demands) -> BTreeSet<&ObjectName> {
    demands
        .values()
        .filter_map(|demand| demand.secret.as_ref())
        .collect()
}

/// The Secret of an Ingress's annotations: of its own namespace only, as whoever may write Ingresses in one must not come to
/// use what is in another.
pub(super) fn secret(choice: &annotations::ClientAuth, namespace: &str) -> Result<ObjectName, String> {
    let name = format!("{}client-auth-secret", annotations::PREFIX);
    let Some(text) = choice.secret.as_deref() else {
        return Err(format!(
            "annotation {name} is missing: write the Secret that has ca.crt"
        ));
    };
    let secret = match text.split_once('/') {
        Some((other, secret)) if other == namespace => secret,
        Some((other, _)) => {
            return Err(format!(
                "annotation {name} names a Secret of namespace {other:?}: copy it into this one, {namespace:?}"
            ));
        }
        None => text,
    };
    let secret = ObjectName::new(namespace, secret);
    if secret.name.is_empty() || !secret.is_dns(Kind::Secret) {
        return Err(format!(
            "annotation {name} is {text:?}, which is no name: correct it"
        ));
    }
    Ok(secret)
}

/// What a host comes to.
#[derive(Default)]
pub(super) struct Settled {
    /// It is passed through.
    pub(super) pass: Option<Pass>,
    /// Its clients show a certificate.
    pub(super) demand: Option<Demand>,
    /// Who asked in vain.
    pub(super) conflicts: BTreeSet<Conflict>,
}

/// Settles a host, from what counts of what was asked for.
pub(super) fn settle(
    host: &HostMatch,
    wishes: &BTreeSet<Wish>,
    passes: &BTreeMap<Origin, Pass>,
    demands: &BTreeSet<Demand>,
) -> Settled {
    let mut settled = Settled::default();
    let mut conflict = |what, winner: &Origin, loser: &Origin| {
        settled.conflicts.insert(Conflict {
            host: host.clone(),
            what,
            winner: winner.clone(),
            loser: loser.clone(),
        });
    };
    let first = passes.values().next();
    let terminated = wishes.first().map(|wish| &wish.origin);
    if let Some(first) = first {
        if let Some(winner) = terminated.filter(|terminated| **terminated < first.origin) {
            for loser in passes.keys() {
                conflict(Contested::Termination, winner, loser);
            }
        } else {
            settled.pass = Some(first.clone());
            let others = wishes.iter().map(|wish| &wish.origin);
            for loser in passes.keys().skip(1).chain(others) {
                conflict(Contested::Passthrough, &first.origin, loser);
            }
        }
    }
    if let Some(first) = demands.first() {
        for loser in demands.iter().filter(|demand| !demand.is_like(first)) {
            conflict(Contested::ClientAuth, &first.origin, &loser.origin);
        }
        settled.demand = Some(first.clone());
    }
    settled
}

/// Puts what a host comes to in the place of what was there; says whether that is news.
pub(super) fn set<T: PartialEq>(
    table: &mut BTreeMap<HostMatch, T>,
    host: &HostMatch,
    now: Option<T>,
) -> bool {
    if table.get(host) == now.as_ref() {
        return false;
    }
    match now {
        Some(now) => table.insert(host.clone(), now),
        None => table.remove(host),
    };
    true
}
