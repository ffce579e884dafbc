//! Rows of `ADDRESSES`: which addresses this node must look at, and when it may stop.
//!
//! ```text
//!  a frontend there ──▶ ClusterIp, Vip ──last one goes──▶ Retired, RetiredVip ──no flow uses it──▶ (no row)
//!  an interface has it ──▶ Node ──▶ (no row)
//! ```
//!
//! An address's row comes after its frontends and goes after them: in between, an undefined port of a ClusterIP is
//! rejected. An address that is the node's and a load balancer's stays the node's, with a mark.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use proxy_common::{Address, AddressKind, FrontendKind, Ip, Scope, ServiceKey};

use crate::leaving::GRACE;
use crate::mirror::Mirror;
use crate::objects::Objects;
use crate::plan::Step;

/// What a plan will do to `SERVICES`, for the rows that follow from it.
#[derive(Debug, Default)]
pub struct Planned {
    /// Frontends that are there afterwards, each with its kind.
    pub put: HashMap<ServiceKey, u8>,
    /// Frontends that are not.
    pub deleted: HashSet<ServiceKey>,
    /// New and changed frontends by their address.
    addresses: HashMap<Ip, Vec<ServiceKey>>,
}

impl Planned {
    /// Reads it off the steps.
    pub fn of(steps: &[Step]) -> Self {
        let mut planned = Self::default();
        for step in steps {
            match step {
                Step::PutService { key, service } => {
                    planned.deleted.remove(key);
                    planned.put.insert(*key, service.kind);
                    if key.scope == Scope::Address.code() {
                        planned.addresses.entry(key.address).or_default().push(*key);
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
        self.addresses.keys().copied().chain(deleted)
    }

    /// What the frontends that are at an address afterwards make of it; `None` if there are none.
    fn kind_at(&self, address: Ip, mirror: &Mirror) -> Option<AddressKind> {
        let new = self.addresses.get(&address).into_iter().flatten();
        let new = new.filter_map(|key| self.put.get(key).copied());
        let stays = |key: &ServiceKey| !self.deleted.contains(key) && !self.put.contains_key(key);
        let old = mirror.rows_at(address).filter(|(key, _)| stays(key));
        let mut found = None;
        for kind in new.chain(old.map(|(_, row)| row.kind)) {
            if kind == FrontendKind::ClusterIp.code() {
                return Some(AddressKind::ClusterIp);
            }
            found = Some(AddressKind::Vip);
        }
        found
    }
}

/// Since when retired addresses are retired, and which are no longer used.
///
/// A walk over the flows may have passed a place before a flow was made there. So it tells something about an address
/// only if it began when new flows could not be made any more: a grace period after the row said so, because a packet
/// that had read the old row may still have been under way.
#[derive(Debug, Default)]
pub struct Addresses {
    unused: BTreeSet<Ip>,
    /// Those that this agent retired; an earlier agent's were retired before any walk of this one.
    retired: HashMap<Ip, Duration>,
    /// Retired since the last look at the clock.
    undated: Vec<Ip>,
}

impl Addresses {
    /// The kernel has this row now.
    pub fn written(&mut self, address: Ip, row: Address) {
        self.deleted(address);
        if row.is_retired() {
            self.undated.push(address);
        }
    }

    /// The kernel has no row any more.
    pub fn deleted(&mut self, address: Ip) {
        self.unused.remove(&address);
        self.retired.remove(&address);
        self.undated.retain(|other| *other != address);
    }

    /// It is so late now: what the kernel has done was done before.
    pub fn date(&mut self, now: Duration) {
        self.retired
            .extend(self.undated.drain(..).map(|address| (address, now)));
    }

    /// Takes in which frontend addresses live flows use; returns the retired ones that may go.
    pub fn note_walk(&mut self, began: Duration, used: &BTreeSet<Ip>, mirror: &Mirror) -> Vec<Ip> {
        let told = |address: &Ip| {
            let since = self.retired.get(address);
            !self.undated.contains(address) && since.is_none_or(|since| *since + GRACE <= began)
        };
        self.unused = mirror.retired().difference(used).copied().filter(told).collect();
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
        let frontends = planned.kind_at(address, mirror);
        if objects.is_local(address) {
            return Some(Address {
                kind: AddressKind::Node.code(),
                node_ports: match objects.serves_node_ports(address) {
                    Some(serves) => serves.into(),
                    None => present.map_or(0, |row| row.node_ports),
                },
                vip: u8::from(frontends.is_some()),
                reserved: 0,
            });
        }
        if objects.serves_loopback(address) {
            return Some(Address {
                kind: AddressKind::Loopback.code(),
                node_ports: 1,
                ..Address::default()
            });
        }
        if kind == Some(AddressKind::Node) && objects.local().is_none() {
            // Nobody has told yet which addresses the interfaces have.
            return present.copied();
        }
        let wanted = match (frontends, kind) {
            (Some(kind), _) => kind,
            (None, _) if objects.is_elsewhere(address) => AddressKind::Elsewhere,
            (None, Some(AddressKind::ClusterIp)) => AddressKind::Retired,
            (None, Some(AddressKind::Vip)) => AddressKind::RetiredVip,
            (None, Some(kind @ (AddressKind::Retired | AddressKind::RetiredVip)))
                if !self.unused.contains(&address) =>
            {
                kind
            }
            (None, _) => return None,
        };
        Some(Address {
            kind: wanted.code(),
            ..Address::default()
        })
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
    let added = || planned.put.keys().filter(is_node_port).map(|key| key.port);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Adopted;

    const RETIRED: Address = Address {
        kind: AddressKind::Retired.code(),
        node_ports: 0,
        vip: 0,
        reserved: 0,
    };

    /// As the model does it when the kernel has done a step.
    fn apply(addresses: &mut Addresses, mirror: &mut Mirror, kind: AddressKind) {
        let row = Address {
            kind: kind.code(),
            ..RETIRED
        };
        let address = Ip::v4([10, 96, 0, 1]);
        addresses.written(address, row);
        mirror.apply(&Step::PutAddress { address, row });
    }

    fn go(addresses: &mut Addresses, mirror: &Mirror, began: Duration, used: &[Ip]) -> Vec<Ip> {
        addresses.note_walk(began, &used.iter().copied().collect(), mirror)
    }

    #[test]
    fn only_a_walk_that_began_after_the_retirement_frees_an_address() {
        let address = Ip::v4([10, 96, 0, 1]);
        let second = Duration::from_secs;
        let (mut addresses, mut mirror) = (Addresses::default(), Mirror::new(&Adopted::default()));
        apply(&mut addresses, &mut mirror, AddressKind::Retired);
        assert_eq!(
            go(&mut addresses, &mirror, second(99), &[]),
            [],
            "nobody knows since when"
        );
        addresses.date(second(100));
        assert_eq!(go(&mut addresses, &mirror, second(99), &[]), []);
        assert_eq!(
            go(&mut addresses, &mirror, second(100), &[]),
            [],
            "a packet may be under way"
        );
        assert_eq!(
            go(&mut addresses, &mirror, second(100) + GRACE, &[address]),
            [],
            "in use"
        );
        assert_eq!(go(&mut addresses, &mirror, second(100) + GRACE, &[]), [address]);
        assert!(addresses.unused.contains(&address));

        // Before it was deleted it came back, and went again: what the walk saw is of no use any more.
        apply(&mut addresses, &mut mirror, AddressKind::ClusterIp);
        apply(&mut addresses, &mut mirror, AddressKind::Retired);
        assert!(!addresses.unused.contains(&address));
        addresses.date(second(200));
        assert_eq!(go(&mut addresses, &mirror, second(150), &[]), []);
    }

    #[test]
    fn what_an_earlier_agent_retired_was_retired_before_any_walk() {
        let address = Ip::v4([10, 96, 0, 1]);
        let adopted = Adopted {
            addresses: vec![(address, RETIRED)],
            ..Adopted::default()
        };
        let mirror = Mirror::new(&adopted);
        assert_eq!(
            go(&mut Addresses::default(), &mirror, Duration::ZERO, &[]),
            [address]
        );
    }
}
