//! Which service a frontend belongs to.

use proxy_common::{AddressKind, FlowKey, Ip, NodeConfig, Scope, ServiceKey};

use crate::snat;

/// Writes the key under which `SERVICES` knows a frontend.
#[inline(always)]
pub fn write_key(address: &Ip, port: u16, protocol: u8, kind: AddressKind, key: &mut ServiceKey) {
    key.port = port;
    key.protocol = protocol;
    if matches!(kind, AddressKind::Node) {
        key.address = Ip::UNSPECIFIED;
        key.scope = if address.is_v4() {
            Scope::NodePortV4.code()
        } else {
            Scope::NodePortV6.code()
        };
    } else {
        key.address = *address;
        key.scope = Scope::Address.code();
    }
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
