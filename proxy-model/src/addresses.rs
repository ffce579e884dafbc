//! Rows of `ADDRESSES`: which addresses this node must look at, and when it may stop.
//!
//! ```text
//!  a frontend there ──▶ ClusterIp ──last one goes──▶ Retired ──no flow uses it──▶ (no row)
//!  an interface has it ──▶ Node ──▶ (no row)
//! ```
//!
//! A ClusterIP's row comes after its frontends and goes after them: in between, an undefined port is rejected.

use std::collections::{BTreeSet, HashSet};

use proxy_common::{Address, AddressKind, Ip, Scope, ServiceKey};

use crate::mirror::Mirror;
use crate::objects::Objects;
use crate::plan::Step;

/// What a plan will do to `SERVICES`, for the rows that follow from it.
#[derive(Debug, Default)]
pub struct Planned {
    /// Frontends that are there afterwards.
    pub put: HashSet<ServiceKey>,
    /// Frontends that are not.
    pub deleted: HashSet<ServiceKey>,
    /// Addresses with a new or changed frontend.
    addresses: HashSet<Ip>,
}

impl Planned {
    /// Reads it off the steps.
    pub fn of(steps: &[Step]) -> Self {
        let mut planned = Self::default();
        for step in steps {
            match step {
                Step::PutService { key, .. } => {
                    planned.deleted.remove(key);
                    planned.put.insert(*key);
                    if key.scope == Scope::Address.code() {
                        planned.addresses.insert(key.address);
                    }
                }
                Step::DeleteService { key } => {
                    planned.put.remove(key);
                    planned.deleted.insert(*key);
                }
                _ => {}
            }
        }
        planned
    }

    /// Addresses whose row may follow from this plan.
    pub fn addresses(&self) -> impl Iterator<Item = Ip> {
        let deleted = self
            .deleted
            .iter()
            .filter(|key| key.scope == Scope::Address.code())
            .map(|key| key.address);
        self.addresses.iter().copied().chain(deleted)
    }

    fn leaves_rows_at(&self, address: Ip, mirror: &Mirror) -> bool {
        self.addresses.contains(&address)
            || mirror
                .rows_at(address)
                .any(|(key, _)| !self.deleted.contains(key))
    }
}

/// Which retired addresses are no longer used.
#[derive(Debug, Default)]
pub struct Addresses {
    unused: BTreeSet<Ip>,
}

impl Addresses {
    /// Takes in which frontend addresses live flows use; returns the retired ones that may go.
    pub fn note_unused(&mut self, used: &BTreeSet<Ip>, mirror: &Mirror) -> Vec<Ip> {
        self.unused = mirror.retired().difference(used).copied().collect();
        self.unused.iter().copied().collect()
    }

    /// The step that an address needs.
    pub fn step(&self, address: Ip, objects: &Objects, mirror: &Mirror, planned: &Planned) -> Option<Step> {
        let present = mirror.addresses().get(&address);
        match self.wanted(address, objects, mirror, planned) {
            Some(row) => (present != Some(&row)).then_some(Step::PutAddress { address, row }),
            None => present.map(|_| Step::DeleteAddress { address }),
        }
    }

    fn wanted(&self, address: Ip, objects: &Objects, mirror: &Mirror, planned: &Planned) -> Option<Address> {
        let present = mirror.addresses().get(&address);
        let kind = present.and_then(|row| AddressKind::from_code(row.kind));
        if objects.is_local(address) {
            let node_ports = u8::from(objects.serves_node_ports(address));
            return Some(Address {
                kind: AddressKind::Node.code(),
                node_ports,
                reserved: 0,
            });
        }
        if kind == Some(AddressKind::Node) && objects.local().is_none() {
            // Nobody has told yet which addresses the interfaces have.
            return present.copied();
        }
        let cluster_ip = |kind: AddressKind| {
            Some(Address {
                kind: kind.code(),
                node_ports: 0,
                reserved: 0,
            })
        };
        if planned.leaves_rows_at(address, mirror) {
            return cluster_ip(AddressKind::ClusterIp);
        }
        match kind? {
            AddressKind::ClusterIp => cluster_ip(AddressKind::Retired),
            AddressKind::Retired if !self.unused.contains(&address) => cluster_ip(AddressKind::Retired),
            AddressKind::Retired | AddressKind::Node => None,
        }
    }
}

/// The node port range after a plan; (1, 0) if there is none.
pub fn node_ports(mirror: &Mirror, planned: &Planned) -> (u16, u16) {
    let is_node_port = |key: &&ServiceKey| key.scope != Scope::Address.code();
    let going = |port: u16| {
        planned
            .deleted
            .iter()
            .filter(is_node_port)
            .filter(|key| key.port == port)
            .count()
    };
    let stays = |(port, rows): (&u16, &usize)| (*rows > going(*port)).then_some(*port);
    let staying = mirror.node_port_rows();
    let added = || planned.put.iter().filter(is_node_port).map(|key| key.port);
    let first = staying.iter().find_map(stays).into_iter().chain(added()).min();
    let last = staying
        .iter()
        .rev()
        .find_map(stays)
        .into_iter()
        .chain(added())
        .max();
    first.zip(last).unwrap_or(crate::change::NO_NODE_PORTS)
}
