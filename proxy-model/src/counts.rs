//! Counts that are more than a length.

use std::collections::{BTreeMap, BTreeSet};

use proxy_common::{FrontendKind, TrafficPolicy};

use crate::address::Family;
use crate::change::TrafficFrom;
use crate::model::Model;

impl Model {
    /// Service ports with a policy `Local`, endpoints, and none of them here: kube-proxy's
    /// `sync_proxy_rules_no_local_endpoints_total`.
    pub(crate) fn without_local(&self) -> BTreeMap<(TrafficFrom, Family), usize> {
        let rows = self.mirror.services().values();
        let local = TrafficPolicy::Local.code();
        let dropped = rows.filter(|row| row.policy == local && row.local.count == 0 && row.cluster.count > 0);
        let ports: BTreeSet<(TrafficFrom, Family, u32)> = dropped
            .filter_map(|row| {
                let from = if row.kind == FrontendKind::ClusterIp.code() {
                    TrafficFrom::Cluster
                } else {
                    TrafficFrom::Outside
                };
                Some((from, self.ports.owner(row.id)?.family, row.id))
            })
            .collect();
        let mut counts = BTreeMap::new();
        for (from, family, _) in ports {
            *counts.entry((from, family)).or_default() += 1;
        }
        counts
    }
}
