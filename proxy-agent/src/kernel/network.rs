//! What netlink tells about this network namespace: interfaces, their addresses, and who has a default route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proxy_common::Ip;
use proxy_model::LocalAddress;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::classify::{Class, Facts, Rules, classify};

/// An interface as netlink shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, as the kernel tells them"
)]
struct Link {
    name: String,
    kind: String,
    controller: Option<u32>,
    loopback: bool,
    up: bool,
    ethernet: bool,
    peer_elsewhere: bool,
}

/// Addresses of this node that the way out would choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// IPv4.
    pub v4: Option<Ip>,
    /// IPv6.
    pub v6: Option<Ip>,
}

/// What a message asks for, beyond what it changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing that matters.
    None,
    /// Something is different now.
    Changed,
    /// Default routes may be others now: read them again. (A route that replaces another, or dies with its interface,
    /// is not taken back by a message of its own.)
    Routes,
}

/// The state of this network namespace, kept up to date by messages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Network {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpAddr)>,
    /// Interfaces that a default route leaves by.
    default_routes: BTreeSet<u32>,
}

impl Network {
    /// Takes in a message.
    pub(super) fn observe(&mut self, message: &RouteNetlinkMessage) -> Effect {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.put_link(link),
            RouteNetlinkMessage::DelLink(link) => self.delete_link(link),
            RouteNetlinkMessage::NewAddress(address) => {
                effect(usable_address(address).is_some_and(|address| self.addresses.insert(address)))
            }
            RouteNetlinkMessage::DelAddress(address) => {
                effect(usable_address(address).is_some_and(|address| self.addresses.remove(&address)))
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)
                if is_default(route) =>
            {
                Effect::Routes
            }
            _ => Effect::None,
        }
    }

    /// Takes in a route of a complete list.
    pub(super) fn add_route(&mut self, route: &RouteMessage) {
        if is_default(route) {
            self.default_routes.extend(outputs(route));
        }
    }

    /// Forgets the routes, before a complete list.
    pub(super) fn forget_routes(&mut self) {
        self.default_routes.clear();
    }

    fn put_link(&mut self, message: &LinkMessage) -> Effect {
        // Bridges tell of their ports in messages of their own, which do not have what is wanted here.
        if message.header.interface_family == AddressFamily::Bridge {
            return Effect::None;
        }
        let link = link(message);
        let old = self.links.insert(message.header.index, link.clone());
        match old {
            Some(old) if old == link => Effect::None,
            Some(old) => {
                if old.name != link.name {
                    tracing::info!(
                        index = message.header.index,
                        from = old.name,
                        to = link.name,
                        "interface renamed"
                    );
                }
                if old.up == link.up {
                    Effect::Changed
                } else {
                    Effect::Routes
                }
            }
            None => Effect::Routes,
        }
    }

    fn delete_link(&mut self, message: &LinkMessage) -> Effect {
        // From a bridge it means that the interface is no longer a port.
        if message.header.interface_family == AddressFamily::Bridge {
            return Effect::None;
        }
        let index = message.header.index;
        self.addresses.retain(|(interface, _)| *interface != index);
        self.default_routes.remove(&index);
        effect(self.links.remove(&index).is_some())
    }

    /// The class of every interface, with its name.
    pub(super) fn classes(&self, rules: &Rules, node: &BTreeSet<IpAddr>) -> BTreeMap<u32, (String, Class)> {
        self.links
            .iter()
            .map(|(index, link)| {
                (
                    *index,
                    (
                        link.name.clone(),
                        classify(&self.facts(*index, link, node), rules),
                    ),
                )
            })
            .collect()
    }

    fn facts<'a>(&'a self, index: u32, link: &'a Link, node: &BTreeSet<IpAddr>) -> Facts<'a> {
        let has_node_address = self
            .addresses
            .iter()
            .any(|(interface, address)| *interface == index && node.contains(address));
        Facts {
            name: &link.name,
            kind: &link.kind,
            controller: self.controller(link).map_or("", |controller| &controller.kind),
            controller_name: self.controller(link).map_or("", |controller| &controller.name),
            loopback: link.loopback,
            ethernet: link.ethernet,
            peer_elsewhere: link.peer_elsewhere,
            leads_out: has_node_address || self.default_routes.contains(&index),
        }
    }

    fn controller(&self, link: &Link) -> Option<&Link> {
        self.links.get(&link.controller?)
    }

    /// The node's own address of each family: an `InternalIP` of the Node, or else one of an interface with a default
    /// route.
    pub(super) fn sources(&self, node: &BTreeSet<IpAddr>) -> Sources {
        let best = |v4: bool| {
            let family = || {
                self.addresses
                    .iter()
                    .filter(move |(_, address)| address.is_ipv4() == v4 && is_global(*address))
            };
            let known = family().find(|(_, address)| node.contains(address));
            let leads_out = || family().find(|(index, _)| self.default_routes.contains(index));
            known.or_else(leads_out).map(|(_, address)| Ip::from(*address))
        };
        Sources {
            v4: best(true),
            v6: best(false),
        }
    }

    /// The addresses that others can reach this node by.
    pub(super) fn local_addresses(&self) -> Vec<LocalAddress> {
        let addresses: BTreeSet<LocalAddress> = self
            .addresses
            .iter()
            .map(|(interface, ip)| LocalAddress {
                ip: (*ip).into(),
                interface: *interface,
            })
            .collect();
        addresses.into_iter().collect()
    }
}

const fn effect(changed: bool) -> Effect {
    if changed { Effect::Changed } else { Effect::None }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        kind: String::new(),
        controller: None,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        up: message.header.flags.contains(LinkFlags::Up),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        peer_elsewhere: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            // 0 is how a message says "none any more".
            LinkAttribute::Controller(index) => link.controller = (*index != 0).then_some(*index),
            // Only sent if the other end is in another namespace; negative if it cannot be seen from here.
            LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
            LinkAttribute::LinkInfo(info) => {
                if let Some(kind) = info.iter().find_map(kind) {
                    link.kind = kind;
                }
            }
            _ => {}
        }
    }
    link
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// Address and interface, if packets can come to it from elsewhere: not loopback, not of host scope, and not one of IPv6's
/// link-local ones, of which each link has its own. IPv4's are among them, and those of a link's scope: a route may choose one as
/// the source of what is masqueraded, and then the answers come to it.
fn usable_address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // With a peer, "address" is the peer's; without one, and for IPv6, it is all there is.
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let goes_out = matches!(
        message.header.scope,
        AddressScope::Universe | AddressScope::Site | AddressScope::Link
    );
    let usable = match address {
        IpAddr::V4(address) => !(address.is_loopback() || address.is_unspecified()),
        IpAddr::V6(address) => {
            !(address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified())
        }
    };
    (goes_out && usable).then_some((message.header.index, address))
}

/// Whether it means the same on every link.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(_) => true,
    }
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

/// The interfaces that a route leaves by.
fn outputs(route: &RouteMessage) -> Vec<u32> {
    route
        .attributes
        .iter()
        .flat_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => vec![*index],
            RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
            _ => Vec::new(),
        })
        .collect()
}
