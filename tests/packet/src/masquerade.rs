//! A node whose operator says whose address backends see.

use proxy_common::{Cidr, FrontendFlag, FrontendKind, Ip, LocalSources, TrafficPolicy};

use crate::node::{Host, Rows};

/// What the operator may say about sources, beyond the default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Masquerade {
    /// `--masquerade-all`.
    All,
    /// `--masquerade-external`.
    External,
    /// `--detect-local-mode ClusterCIDR` with a range of this one address.
    AllBut(Host),
}

impl Rows {
    /// The rows of a node whose operator said so.
    #[must_use]
    pub fn with(mut self, masquerade: Masquerade) -> Self {
        let only = |ip| Cidr {
            first: ip,
            mask: Ip { bytes: [0xff; 16] },
        };
        let services = self.services.iter_mut().map(|(_, row)| row);
        match masquerade {
            Masquerade::All => services
                .filter(|row| row.kind == FrontendKind::ClusterIp.code())
                .for_each(|row| row.flags |= FrontendFlag::Masqueraded.code()),
            Masquerade::External => services
                .filter(|row| row.kind != FrontendKind::ClusterIp.code())
                .filter(|row| row.policy == TrafficPolicy::Cluster.code())
                .for_each(|row| row.flags |= FrontendFlag::Masqueraded.code()),
            Masquerade::AllBut(host) => {
                self.local_sources = LocalSources {
                    v4: only(host.ip(false)),
                    v6: only(host.ip(true)),
                }
            }
        }
        self
    }
}
