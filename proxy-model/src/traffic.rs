//! Which endpoints a service port uses: readiness, topology hints and traffic policies.
//!
//! ```text
//!             all endpoints of the port, each once
//!                │
//!      ready and hinted for here?  ──none──▶ serving and terminating      = cluster
//!      ready and on this node?     ──none──▶ serving and terminating here = local
//!                │
//!     ┌──────────┬──────────────┬──────────────┬ ─ ─ ─ ─ ─ ┐
//!     │local only│ local+cluster│ cluster only │ draining      one slab, in this order (draining: staying.rs)
//!     └──────────┴──────────────┴──────────────┴ ─ ─ ─ ─ ─ ┘
//!     └─── local range ─────────┘
//!                └─── cluster range ───────────┘
//! ```
//!
//! The two fallbacks are independent (KEP-1669). Hints count only if every ready endpoint has one and at least one is
//! for here; node hints before zone hints (KEP-2433, KEP-3015).

use std::collections::BTreeMap;

use proxy_common::Ip;

use crate::slice::{Endpoint, NodeHint};

/// Where an endpoint of a service port listens.
pub type Place = (Ip, u16);

/// The backends of one service port in the order of their slab.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Backends {
    /// All of them: local only, local and cluster, cluster only; behind them those that are draining.
    pub places: Vec<Usable>,
    /// How many are for local traffic only.
    pub local_only: usize,
    /// How many are for both.
    pub both: usize,
    /// How many are for cluster traffic only.
    pub cluster_only: usize,
}

/// One backend.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Usable {
    /// Where it listens.
    pub place: Place,
    /// Whether it is on this node.
    pub local: bool,
}

/// The endpoints of a service port, each place once: of two copies the better one counts, and one that is not
/// terminating is better than one that is.
#[derive(Debug, Default)]
pub struct Candidates<'a> {
    by_place: BTreeMap<Place, &'a Endpoint>,
}

impl<'a> Candidates<'a> {
    /// Adds an endpoint.
    pub fn add(&mut self, endpoint: &'a Endpoint, port: u16) {
        let rank = |endpoint: &Endpoint| {
            (
                !endpoint.terminating,
                endpoint.ready,
                endpoint.serving,
                endpoint.local,
            )
        };
        let known = self.by_place.entry((endpoint.address, port)).or_insert(endpoint);
        if rank(endpoint) > rank(known) {
            *known = endpoint;
        }
    }

    /// Sorts those that take new connections into the runs of a slab.
    pub fn select(&self, zone: Option<&str>) -> Backends {
        let topology = Topology::of(self.by_place.values().copied(), zone);
        let endpoints = || self.by_place.values();
        let cluster_ready = endpoints().any(|endpoint| endpoint.ready);
        let local_ready = endpoints().any(|endpoint| endpoint.ready && endpoint.local);
        let usable = |endpoint: &Endpoint, any_ready: bool| {
            if any_ready {
                endpoint.ready
            } else {
                endpoint.serving && endpoint.terminating
            }
        };
        let mut runs: [Vec<Usable>; 3] = Default::default();
        let [local_only, both, cluster_only] = &mut runs;
        for (place, endpoint) in &self.by_place {
            let backend = Usable {
                place: *place,
                local: endpoint.local,
            };
            let cluster =
                usable(endpoint, cluster_ready) && (!cluster_ready || topology.admits(endpoint, zone));
            let local = endpoint.local && usable(endpoint, local_ready);
            match (local, cluster) {
                (true, false) => local_only.push(backend),
                (true, true) => both.push(backend),
                (false, true) => cluster_only.push(backend),
                (false, false) => {}
            }
        }
        let (local_only, both, cluster_only) = (local_only.len(), both.len(), cluster_only.len());
        Backends {
            places: runs.concat(),
            local_only,
            both,
            cluster_only,
        }
    }
}

/// Which hints count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topology {
    Everywhere,
    SameZone,
    SameNode,
}

impl Topology {
    fn of<'a>(endpoints: impl Iterator<Item = &'a Endpoint>, zone: Option<&str>) -> Self {
        let (mut all_nodes, mut this_node, mut all_zones, mut this_zone) = (true, false, true, false);
        for endpoint in endpoints.filter(|endpoint| endpoint.ready) {
            all_nodes &= endpoint.nodes != NodeHint::None;
            this_node |= endpoint.nodes == NodeHint::Here;
            all_zones &= !endpoint.zones.is_empty();
            this_zone |= in_zone(endpoint, zone);
        }
        if all_nodes && this_node {
            Self::SameNode
        } else if all_zones && this_zone {
            Self::SameZone
        } else {
            Self::Everywhere
        }
    }

    fn admits(self, endpoint: &Endpoint, zone: Option<&str>) -> bool {
        match self {
            Self::Everywhere => true,
            Self::SameZone => in_zone(endpoint, zone),
            Self::SameNode => endpoint.nodes == NodeHint::Here,
        }
    }
}

fn in_zone(endpoint: &Endpoint, zone: Option<&str>) -> bool {
    zone.is_some_and(|zone| endpoint.zones.iter().any(|hint| hint == zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `here` or `there`, then what the endpoint is: `ready`, `terminating` (and serving), `gone` (neither ready nor
    /// serving), and its hints: `@node` for this node, `@other-node`, `zone-a`, `zone-b`.
    fn endpoint(host: u8, words: &str) -> Endpoint {
        let has = |word: &str| words.split(' ').any(|other| other == word);
        let zones = ["zone-a", "zone-b"].into_iter().filter(|zone| has(zone));
        Endpoint {
            address: Ip::v4([10, 0, 0, host]),
            local: has("here"),
            ready: has("ready"),
            serving: has("ready") || has("terminating"),
            terminating: has("terminating"),
            nodes: match (has("@node"), has("@other-node")) {
                (true, _) => NodeHint::Here,
                (false, true) => NodeHint::Elsewhere,
                (false, false) => NodeHint::None,
            },
            zones: zones.map(str::to_owned).collect(),
        }
    }

    /// Positions of the endpoints in the local and in the cluster range.
    fn select(endpoints: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let endpoints: Vec<Endpoint> = (0..)
            .zip(endpoints)
            .map(|(host, words)| endpoint(host, words))
            .collect();
        let mut candidates = Candidates::default();
        for endpoint in &endpoints {
            candidates.add(endpoint, 80);
        }
        let selected = candidates.select(Some("zone-a"));
        let hosts: Vec<u8> = selected
            .places
            .iter()
            .map(|backend| backend.place.0.bytes[15])
            .collect();
        let (local, cluster) = (selected.local_only + selected.both, selected.local_only);
        let end = local + selected.cluster_only;
        assert_eq!(end, hosts.len());
        (hosts[..local].to_vec(), hosts[cluster..].to_vec())
    }

    /// Endpoints, then local and cluster ones.
    type Row<'a> = (&'a [&'a str], &'a [u8], &'a [u8]);

    const NONE: &[u8] = &[];

    const TABLE: [Row<'static>; 14] = [
        (&[], NONE, NONE),
        (&["there ready", "here ready"], &[1], &[1, 0]),
        (&["here gone", "there gone"], NONE, NONE),
        // KEP-1669: each set falls back by itself.
        (
            &["here terminating", "there terminating", "there gone"],
            &[0],
            &[0, 1],
        ),
        (&["here terminating", "there ready", "there ready"], &[0], &[1, 2]),
        (
            &["here ready", "here terminating", "there terminating"],
            &[0],
            &[0],
        ),
        // Zone hints: all ready endpoints must have one, one must be for here; the local set does not look.
        (
            &["here ready zone-b", "there ready zone-a", "there ready zone-b"],
            &[0],
            &[1],
        ),
        (&["here ready zone-b", "there ready zone-b"], &[0], &[0, 1]),
        (&["here ready", "there ready zone-a"], &[0], &[0, 1]),
        (
            &["here gone", "there ready zone-a", "there ready zone-b"],
            NONE,
            &[1],
        ),
        // Node hints come first, and give way to zone hints if NONE is for this node.
        (
            &["here ready @node zone-b", "there ready @other-node zone-a"],
            &[0],
            &[0],
        ),
        (
            &["here ready @other-node zone-b", "there ready @other-node zone-a"],
            &[0],
            &[1],
        ),
        (&["here ready @node", "there ready zone-a"], &[0], &[0, 1]),
        // Without a ready endpoint there is nothing that hints could choose from.
        (
            &["here terminating zone-b", "there terminating zone-a"],
            &[0],
            &[0, 1],
        ),
    ];

    #[test]
    fn readiness_hints_and_fallbacks() {
        for (endpoints, local, cluster) in TABLE {
            let (l, c) = select(endpoints);
            assert_eq!((&*l, &*c), (local, cluster), "{endpoints:?}");
        }
    }

    #[test]
    fn the_better_of_two_copies_counts() {
        let copies = [
            endpoint(1, "here terminating"),
            endpoint(1, "there ready"),
            endpoint(1, "there gone"),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut candidates = Candidates::default();
            for position in order {
                candidates.add(&copies[position], 80);
            }
            let selected = candidates.select(None);
            assert_eq!(
                (selected.local_only, selected.both, selected.cluster_only),
                (0, 0, 1)
            );
        }
    }
}
