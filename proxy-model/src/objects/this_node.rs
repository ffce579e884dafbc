//! What is known of this node: where node ports are served, its zone, and what is wrong with its object.

use std::collections::HashMap;

use proxy_common::Ip;

use super::{Dirty, Objects};
use crate::address::Family;
use crate::node::{self, Node};
use crate::node_ports::{LOOPBACK, NodePortAddresses};
use crate::object::{Kind, ObjectName};
use crate::problem::Problem;
use crate::slice::Slice;

impl Objects {
    /// Whether node ports are served on a local address: as configured, or at the addresses that the Node names, or named as long
    /// as it was there. `None` if nobody can tell: then it stays as it is. Everywhere only where there is nothing to
    /// go by: in a folder without Nodes, or whose Node names no address.
    pub fn serves_node_ports(&self, address: Ip) -> Option<bool> {
        let of_node = || match &self.named {
            Some(named) => Some(named.contains(&address)),
            None => self.names_nothing().then_some(true),
        };
        self.node_port_addresses.includes(address).or_else(of_node)
    }

    /// Whether that is so for all addresses of a family that the node may ever have.
    pub fn serves_node_ports_everywhere(&self, family: Family) -> bool {
        let unnamed = || self.named.is_none() && self.names_nothing();
        self.node_port_addresses
            .includes_all(family)
            .unwrap_or_else(unnamed)
    }

    /// Whether nobody is going to tell the addresses of this node.
    fn names_nothing(&self) -> bool {
        let nodes = self.names.get(&Kind::Node).map_or(0, HashMap::len);
        !self.only_own_node && (self.node.is_some() || nodes == 0)
    }

    /// Whether node ports are served at a loopback address of the host.
    pub fn serves_loopback(&self, address: Ip) -> bool {
        let wanted = self.localhost_node_ports || !address.is_v4();
        LOOPBACK.contains(&address) && wanted && self.node_port_addresses.includes(address) == Some(true)
    }

    pub(super) fn note_other_node(&self, changed: bool, dirty: &mut Dirty) {
        if changed && self.node.is_none() {
            dirty.other = true;
            dirty.addresses.extend(self.local.iter().flatten());
        }
    }

    pub(super) fn put_node(&mut self, node: Option<Node>, dirty: &mut Dirty) {
        let zone_before = self.zone().map(str::to_owned);
        if self.node == node {
            return;
        }
        self.node = node;
        match self.node.as_ref().map(|node| &node.addresses) {
            Some(addresses) if !addresses.is_empty() => self.named = Some(addresses.clone()),
            // Written so by hand. An API server tells them later.
            Some(_) if !self.only_own_node => self.named = None,
            _ => {}
        }
        dirty.other = true;
        dirty.addresses.extend(self.local.iter().flatten());
        if self.zone() != zone_before.as_deref() {
            let hinted = |slice: &Slice| slice.endpoints.iter().any(|endpoint| !endpoint.zones.is_empty());
            let touched = self
                .slices
                .iter()
                .filter(|(_, slices)| slices.values().any(hinted));
            dirty.services.extend(touched.map(|(name, _)| name.clone()));
        }
    }

    pub(super) fn node_problems(&self) -> Vec<Problem> {
        let name = ObjectName::new("", self.node_name.clone());
        let said = self.node.iter().flat_map(|node| node.problems.iter().cloned());
        let mut problems: Vec<Problem> = said.map(|what| Problem::new(Kind::Node, &name, what)).collect();
        problems.extend(self.absence().map(|what| Problem::new(Kind::Node, &name, what)));
        let local = self.local.iter().flatten();
        let elsewhere = self.local.as_ref().is_some_and(|local| !local.is_empty())
            && local
                .copied()
                .all(|address| self.serves_node_ports(address) == Some(false))
            && !LOOPBACK.into_iter().any(|address| self.serves_loopback(address));
        if elsewhere {
            let what = if self.node_port_addresses == NodePortAddresses::Primary {
                "none of its addresses is on an interface here: node ports are not served; correct the Node or \
                 --node-name"
            } else {
                "no address of an interface here is in the ranges of nodePortAddresses: node ports are not served; \
                 correct --nodeport-addresses or the file given with --config"
            };
            problems.push(Problem::new(Kind::Node, &name, what));
        }
        problems
    }

    /// What to say if the complete list of Nodes is without the own one.
    fn absence(&self) -> Option<String> {
        let others = self.names.get(&Kind::Node).into_iter().flat_map(HashMap::keys);
        let others = others.map(|name| name.name.as_str()).collect();
        let missing = self.node.is_none() && self.synced.contains(&Kind::Node);
        missing.then(|| node::absence(others, self.only_own_node))?
    }
}
