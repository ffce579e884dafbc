//! This node in our words: its zone and its addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proxy_common::Ip;

use crate::address::{self, Family};
use crate::api::ApiNode;
use crate::node_ports::Prefix;

/// Label that names a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What the Node object says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its zone.
    pub zone: Option<String>,
    /// Where node ports are served: the first `InternalIP` of each family, and of one that has none the first `ExternalIP`. So
    /// does kube-proxy.
    pub addresses: BTreeSet<Ip>,
    /// All of both.
    pub all: BTreeSet<Ip>,
    /// The ranges of its pods; the first of a family counts.
    pub pod_ranges: Vec<Prefix>,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

impl ApiNode {
    /// Its addresses, as the machine has them.
    pub fn ips(&self) -> BTreeSet<IpAddr> {
        Node::read(self).all.into_iter().map(IpAddr::from).collect()
    }
}

impl Node {
    /// What the object says.
    pub fn read(object: &ApiNode) -> Self {
        let mut node = Self {
            zone: object.metadata.label(ZONE).map(str::to_owned),
            ..Self::default()
        };
        for kind in ["InternalIP", "ExternalIP"] {
            node.read_addresses(object, kind);
        }
        node.read_pod_ranges(object);
        node
    }

    fn read_addresses(&mut self, object: &ApiNode, kind: &str) {
        let status = object.status.iter();
        let addresses = status.filter_map(|status| status.addresses.as_ref()).flatten();
        for given in addresses.filter(|address| address.kind.as_deref() == Some(kind)) {
            let text = given.address.as_deref().unwrap_or_default();
            let Some(ip) = address::parse(text) else {
                self.problems
                    .push(format!("{kind} {text:?} is not an address: left out; correct it"));
                continue;
            };
            let known = |other: &Ip| Family::of(*other) == Family::of(ip);
            if !self.addresses.iter().any(known) {
                self.addresses.insert(ip);
            }
            self.all.insert(ip);
        }
    }

    fn read_pod_ranges(&mut self, object: &ApiNode) {
        let Some(spec) = &object.spec else { return };
        let several = spec.pod_cidrs.iter().flatten();
        let words: Vec<&String> = several.chain(&spec.pod_cidr).collect();
        for (index, word) in words.iter().enumerate() {
            match word.parse::<Prefix>() {
                _ if words.iter().take(index).any(|before| before == word) => {}
                Ok(range) => self.pod_ranges.push(range),
                Err(_) => self
                    .problems
                    .push(format!("podCIDR {word:?} is not a range: left out; correct it")),
            }
        }
    }
}

/// What to say if the complete list of Nodes, of which these are the names, is without the own one. A folder without any
/// Node is no mistake: weir works without.
pub fn absence(mut others: Vec<&str>, only_own_is_listed: bool) -> Option<String> {
    const SHOWN: usize = 3;
    let what = "no Node has this name: where no endpoint names it either, none is local, and traffic policy Local drops everything";
    if only_own_is_listed {
        return Some(format!(
            "{what}; correct --node-name, unless the kubelet has yet to register the Node"
        ));
    }
    others.sort_unstable();
    let more = match others.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown: Vec<&str> = others.into_iter().take(SHOWN).collect();
    (!shown.is_empty()).then(|| {
        format!(
            "{what}; there is {}{more}: correct --node-name, or bring the Node back",
            shown.join(", ")
        )
    })
}
