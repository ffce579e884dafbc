//! This node in our words: its zone and its addresses.

use std::collections::BTreeSet;

use proxy_common::Ip;

use crate::address;
use crate::api::ApiNode;

/// Label that names a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What the Node object says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its zone.
    pub zone: Option<String>,
    /// Its `InternalIP`s: where node ports are served.
    pub addresses: BTreeSet<Ip>,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

impl Node {
    /// What the object says.
    pub fn read(object: &ApiNode) -> Self {
        let mut node = Self {
            zone: object.metadata.label(ZONE).map(str::to_owned),
            ..Self::default()
        };
        let addresses = object
            .status
            .iter()
            .filter_map(|status| status.addresses.as_ref())
            .flatten();
        for given in addresses.filter(|address| address.kind.as_deref() == Some("InternalIP")) {
            let text = given.address.as_deref().unwrap_or_default();
            match address::parse(text) {
                Some(ip) => {
                    node.addresses.insert(ip);
                }
                None => node.problems.push(format!(
                    "InternalIP {text:?} is not an address: left out; correct it"
                )),
            }
        }
        node
    }
}
