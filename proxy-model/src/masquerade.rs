//! Which backends see this node and not their client, beyond those that could not answer it otherwise.

use proxy_common::{FrontendKind, TrafficPolicy};

use crate::frontend::Frontend;

/// What was configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Masquerade {
    /// Those behind ClusterIPs: kube-proxy's `masqueradeAll`.
    pub all: bool,
    /// Those behind all other frontends whose policy is `Cluster`, as kube-proxy does.
    pub external: bool,
}

impl Masquerade {
    /// Whether that is so behind a frontend.
    pub fn wants(self, frontend: &Frontend) -> bool {
        if frontend.kind == FrontendKind::ClusterIp {
            self.all
        } else {
            self.external && frontend.policy == TrafficPolicy::Cluster
        }
    }
}
