//! The roads around the node: its routing table.

use proxy_common::Ip;

use crate::node::{Host, Port};
use crate::routes::{Entry, Routes, Way};

/// The routing table.
pub fn routes() -> Routes {
    let mut entries = Vec::new();
    for v6 in [false, true] {
        for (network, length, way) in table(v6) {
            let length = if v6 { length } else { length + 96 };
            entries.push(Entry { network, length, way });
        }
    }
    Routes::new(entries)
}

/// Routes of one family, with the length of the network as people write it.
pub fn table(v6: bool) -> Vec<(Ip, u8, Option<Way>)> {
    let way = |port: Port, router: Option<Ip>, source: Host| {
        Some(Way {
            interface: port.index(),
            router,
            source: source.ip(v6),
            mtu: port.mtu(),
        })
    };
    let (host, net) = if v6 { (128, 64) } else { (32, 24) };
    let unspecified = if v6 { Ip::UNSPECIFIED } else { Ip::v4([0; 4]) };
    vec![
        (
            unspecified,
            0,
            way(Port::Uplink, Some(Host::Router.ip(v6)), Host::Node),
        ),
        (
            network(Host::Node.ip(v6), v6),
            net,
            way(Port::Uplink, None, Host::Node),
        ),
        (Host::Pod1.ip(v6), host, way(Port::Pod1, None, Host::PodGate)),
        (Host::Pod2.ip(v6), host, way(Port::Pod2, None, Host::PodGate)),
        (
            Host::Remote(0).ip(v6),
            net,
            way(Port::Overlay, Some(Host::Remote(254).ip(v6)), Host::OverlayGate),
        ),
        (
            Host::Warrior(0).ip(v6),
            net,
            way(Port::Tunnel, None, Host::TunnelGate),
        ),
        (network(Host::Lost.ip(v6), v6), net, None),
        // The node's own addresses: to them the kernel delivers, it does not forward.
        (Host::Node.ip(v6), host, None),
        (Host::PodGate.ip(v6), host, None),
        (Host::OverlayGate.ip(v6), host, None),
        (Host::TunnelGate.ip(v6), host, None),
        (
            if v6 {
                Ip::v6([0; 16])
            } else {
                Ip::v4([127, 0, 0, 0])
            },
            if v6 { 128 } else { 8 },
            None,
        ),
    ]
}

/// The network of an address, as long as its family has them here.
fn network(address: Ip, v6: bool) -> Ip {
    let bits = if v6 { 64 } else { 8 };
    let number = u128::from_be_bytes(address.bytes) >> bits << bits;
    Ip {
        bytes: number.to_be_bytes(),
    }
}
