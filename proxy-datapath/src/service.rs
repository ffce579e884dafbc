//! Which service a frontend belongs to.

use proxy_common::{Address, AddressKind, FlowKey, Ip, NodeConfig, Scope, Service, ServiceKey, SourceKey};

use crate::scratch::Place;
use crate::snat;
use crate::tables::Tables;

/// What a client asks for.
pub struct Asked<'a> {
    /// The address.
    pub address: &'a Ip,
    /// Port, host order.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

/// The service of a frontend. `key` is room for the key.
///
/// An address of the node can be a load balancer's at the same time; that frontend is asked for first, as it names the
/// address.
#[inline(always)]
pub fn find(
    tables: &impl Tables,
    asked: &Asked<'_>,
    address: &Address,
    kind: AddressKind,
    key: &mut ServiceKey,
) -> Option<Service> {
    key.port = asked.port;
    key.protocol = asked.protocol;
    let own = matches!(kind, AddressKind::Node | AddressKind::Loopback);
    if !own || address.vip != 0 {
        key.address = *asked.address;
        key.scope = Scope::Address.code();
        let found = tables.service(key);
        if !own || found.is_some() {
            return found;
        }
    }
    if address.node_ports == 0 {
        return None;
    }
    key.address = Ip::UNSPECIFIED;
    key.scope = if asked.address.is_v4() {
        Scope::NodePortV4.code()
    } else {
        Scope::NodePortV6.code()
    };
    tables.service(key)
}

/// Whether a packet to an address of this node can concern weir: by its port, before any map is asked.
#[inline(always)]
pub const fn node_port_or_answer(config: &NodeConfig, key: &FlowKey, node_ports: bool) -> bool {
    (node_ports && is_node_port(config, key.destination_port)) || snat::in_range(config, key.destination_port)
}

/// Whether a port is in the range of the node ports in use.
#[inline(always)]
pub const fn is_node_port(config: &NodeConfig, port: u16) -> bool {
    port >= config.node_port_first && port <= config.node_port_last
}

/// Whether an address is one that only a Service can have, and that has no row: no Service has it, or not yet.
#[inline(always)]
pub fn is_unallocated(tables: &impl Tables, address: &Ip) -> bool {
    tables.service_cidrs().is_some_and(|cidrs| cidrs.have(address))
}

/// Whether a port that is no frontend is rejected: always at a ClusterIP, if wanted at an address that others route here.
#[inline(always)]
pub const fn rejects_other_ports(config: &NodeConfig, kind: AddressKind) -> bool {
    kind.is_cluster_ip() || (matches!(kind, AddressKind::Vip) && config.reject_vip_ports != 0)
}

/// Whether a source may use a frontend that is guarded.
#[inline(always)]
pub fn lets_in(tables: &impl Tables, service: &Service, source: &Ip) -> bool {
    let key = SourceKey {
        service: service.id,
        address: *source,
    };
    tables
        .source_range(&key)
        .is_some_and(|range| range.generation == service.generation)
}

/// Whether a client is a pod of this node: it comes in where pods do, and nothing that the operator said is against it.
#[inline(always)]
pub fn is_pod(tables: &impl Tables, place: Place, source: &Ip) -> bool {
    !place.uplink && !place.guest && tables.local_sources().is_none_or(|pods| pods.have(source))
}
