//! What the status of Ingresses is to say.

use std::collections::BTreeSet;

use proxy_model::{IpOrHost, ObjectName};

/// Where clients connect, and which Ingresses are to say so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Statuses {
    /// `status.loadBalancer.ingress` of each of them. While it is empty nothing is written: who reads it, as external-dns,
    /// takes an empty list for the end of the Ingress.
    pub addresses: Vec<IpOrHost>,
    /// Those that are served here.
    pub ingresses: BTreeSet<ObjectName>,
}
