//! Who gets a frontend that several Services ask for.
//!
//! For ClusterIPs and node ports the API server prevents it; a restored etcd and a folder of manifests do not. Nobody
//! prevents it for the other addresses. A ClusterIP wins over a load balancer's address, and that over an external IP,
//! which anybody may write (CVE-2020-8554); then the oldest Service wins, then the first by namespace and name. When it
//! goes, the next one takes over.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proxy_common::{FrontendKind, Ip, ServiceKey};

use crate::age::Created;
use crate::frontend::Frontend;
use crate::object::ObjectName;

/// A wish for a frontend. The order is who wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Claim {
    kind: FrontendKind,
    created: Created,
    service: ObjectName,
    port: usize,
}

/// All wishes.
#[derive(Debug, Default)]
pub struct Claims {
    by_key: BTreeMap<ServiceKey, BTreeSet<Claim>>,
    by_service: HashMap<ObjectName, BTreeSet<ServiceKey>>,
}

impl Claims {
    /// Replaces the wishes of a Service: frontend and position of its port. Returns everybody who may be affected.
    pub fn set(
        &mut self,
        service: &ObjectName,
        created: Created,
        wishes: &[(Frontend, usize)],
    ) -> BTreeSet<ObjectName> {
        let mut affected = BTreeSet::new();
        for key in self.by_service.remove(service).unwrap_or_default() {
            if let Some(claims) = self.by_key.get_mut(&key) {
                claims.retain(|claim| claim.service != *service);
                affected.extend(claims.iter().map(|claim| claim.service.clone()));
                if claims.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
        for (frontend, port) in wishes {
            let claims = self.by_key.entry(frontend.key).or_default();
            affected.extend(claims.iter().map(|claim| claim.service.clone()));
            claims.insert(Claim {
                kind: frontend.kind,
                created,
                service: service.clone(),
                port: *port,
            });
        }
        if !wishes.is_empty() {
            self.by_service.insert(
                service.clone(),
                wishes.iter().map(|(frontend, _)| frontend.key).collect(),
            );
        }
        affected
    }

    /// The frontends that a Service asks for.
    pub fn of(&self, service: &ObjectName) -> impl Iterator<Item = ServiceKey> {
        self.by_service.get(service).into_iter().flatten().copied()
    }

    /// Who gets the frontend: the Service and the position of its port.
    pub fn winner(&self, key: &ServiceKey) -> Option<(&ObjectName, usize)> {
        self.by_key
            .get(key)?
            .first()
            .map(|claim| (&claim.service, claim.port))
    }

    /// What the frontend is to the one who gets it.
    pub fn best(&self, key: &ServiceKey) -> Option<FrontendKind> {
        Some(self.by_key.get(key)?.first()?.kind)
    }

    /// Everybody with a wish at this address.
    pub fn at(&self, address: Ip) -> impl Iterator<Item = &ObjectName> {
        let range = self.by_key.range(ServiceKey::all_at(address));
        range.flat_map(|(_, claims)| claims).map(|claim| &claim.service)
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::TrafficPolicy;

    use super::*;

    #[test]
    fn the_oldest_wins_and_hands_over() {
        let key = ServiceKey {
            port: 80,
            ..ServiceKey::default()
        };
        let wish = |kind| Frontend {
            key,
            kind,
            policy: TrafficPolicy::Cluster,
            guarded: false,
        };
        let vip = wish(FrontendKind::LoadBalancer);
        let name = |name: &str| ObjectName::new("default", name);
        let old = Created::read(Some("2024-01-01T00:00:00Z"));
        let new = Created::read(Some("2025-01-01T00:00:00Z"));
        let mut claims = Claims::default();
        assert!(claims.set(&name("b"), new, &[(vip, 0)]).is_empty());
        assert_eq!(claims.winner(&key), Some((&name("b"), 0)));
        assert_eq!(claims.set(&name("c"), old, &[(vip, 3)]), [name("b")].into());
        assert_eq!(claims.winner(&key), Some((&name("c"), 3)));
        claims.set(&name("a"), new, &[(vip, 0)]);
        assert_eq!(claims.winner(&key), Some((&name("c"), 3)));
        assert_eq!(claims.set(&name("c"), old, &[]), [name("a"), name("b")].into());
        assert_eq!(claims.winner(&key), Some((&name("a"), 0)));
        claims.set(&name("d"), old, &[(wish(FrontendKind::ExternalIp), 0)]);
        assert_eq!(
            claims.winner(&key),
            Some((&name("a"), 0)),
            "what anybody may write comes last"
        );
        claims.set(&name("e"), new, &[(wish(FrontendKind::ClusterIp), 0)]);
        assert_eq!(
            claims.winner(&key),
            Some((&name("e"), 0)),
            "a ClusterIP comes first"
        );
        for gone in ["a", "b", "d", "e"] {
            claims.set(&name(gone), new, &[]);
        }
        assert_eq!(claims.winner(&key), None);
    }
}
