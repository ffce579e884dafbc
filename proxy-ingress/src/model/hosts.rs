//! The routes of each host, from all Ingresses: who has what, and who asked for it in vain.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use proxy_model::{Kind, Problem};

use super::tls::Wish;
use crate::route::explain::Lost;
use crate::route::{HostMatch, Origin, Route};

/// Who may have paths of a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostOwnership {
    /// All Ingresses of all namespaces: their paths are one list.
    #[default]
    AllowMerge,
    /// The namespace of the oldest Ingress that names it. A rule without host has none.
    FirstNamespace,
}

/// Something that an Ingress asked for and another one has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Conflict {
    /// The host.
    pub host: HostMatch,
    /// What of it.
    pub what: Contested,
    /// Who has it.
    pub winner: Origin,
    /// Who does not.
    pub loser: Origin,
}

/// What two Ingresses want of a host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Contested {
    /// A path, as text.
    Path(String),
    /// All of it: another namespace has it.
    Host,
    /// Its certificate.
    Certificate,
    /// Its connections: they are passed through for another.
    Passthrough,
    /// Its connections: they are terminated for another.
    Termination,
    /// Whom its clients are vouched for by.
    ClientAuth,
}

impl Conflict {
    /// What its loser is told.
    pub fn problem(&self) -> Problem {
        Problem::new(Kind::Ingress, &self.loser.object, self.to_string())
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            what,
            winner,
            loser,
        } = self;
        let winner = &winner.object;
        match what {
            Contested::Path(path) if *winner == loser.object => {
                write!(
                    f,
                    "host {host}, {path} is there twice: the first one is served; remove the other"
                )
            }
            Contested::Path(path) => write!(
                f,
                "host {host}, {path} is Ingress {winner}'s, which comes first: not served"
            ),
            Contested::Host => write!(
                f,
                "host {host} is namespace {}'s, by Ingress {winner}: not served; choose another host",
                winner.namespace
            ),
            Contested::Certificate => {
                write!(
                    f,
                    "the certificate for host {host} is Ingress {winner}'s, which comes first: this one is not used"
                )
            }
            Contested::Passthrough => write!(
                f,
                "TLS for host {host} is passed through by Ingress {winner}, which comes first: only that is done"
            ),
            Contested::Termination => write!(
                f,
                "Ingress {winner} has a certificate for host {host}, and comes first: it is not passed through"
            ),
            Contested::ClientAuth => write!(
                f,
                "how clients of host {host} are authenticated is Ingress {winner}'s to say, which comes first"
            ),
        }
    }
}

/// The routes that a host has, and the conflicts that there were.
pub fn settle<'a>(
    host: &HostMatch,
    routes: impl Iterator<Item = &'a Arc<Route>>,
    ownership: HostOwnership,
) -> (Vec<Arc<Route>>, BTreeSet<Conflict>) {
    let mut routes: Vec<Arc<Route>> = routes.cloned().collect();
    let mut conflicts = BTreeSet::new();
    let mut conflict = |what, winner: &Origin, loser: &Origin| {
        conflicts.insert(Conflict {
            host: host.clone(),
            what,
            winner: winner.clone(),
            loser: loser.clone(),
        });
    };
    let first = routes.iter().map(|route| &route.origin).min().cloned();
    if let Some(first) =
        first.filter(|_| ownership == HostOwnership::FirstNamespace && *host != HostMatch::Any)
    {
        routes.retain(|route| {
            let same = route.origin.object.namespace == first.object.namespace;
            if !same {
                conflict(Contested::Host, &first, &route.origin);
            }
            same
        });
    }
    let mut winners: BTreeMap<_, &Arc<Route>> = BTreeMap::new();
    for route in &routes {
        let known = winners.entry(route.path.clone()).or_insert(route);
        if route.origin < known.origin {
            *known = route;
        }
    }
    for route in &routes {
        let Some(winner) = winners
            .get(&route.path)
            .filter(|winner| winner.origin != route.origin)
        else {
            continue;
        };
        let equal = matches!(
            Lost::to(winner, route),
            Lost::Younger(_) | Lost::Name(_) | Lost::Behind
        );
        if equal {
            conflict(
                Contested::Path(route.path.to_string()),
                &winner.origin,
                &route.origin,
            );
        }
    }
    (routes, conflicts)
}

/// Who asked in vain for a certificate for a host: another Secret than the one that is served.
pub fn settle_certificates(host: &HostMatch, wishes: &BTreeSet<Wish>) -> BTreeSet<Conflict> {
    let Some(winner) = wishes.first() else {
        return BTreeSet::new();
    };
    let others = wishes.iter().filter(|wish| wish.secret != winner.secret);
    others
        .map(|loser| Conflict {
            host: host.clone(),
            what: Contested::Certificate,
            winner: winner.origin.clone(),
            loser: loser.origin.clone(),
        })
        .collect()
}
