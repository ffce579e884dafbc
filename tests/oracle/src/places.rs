//! Who is who in the two worlds, which are alike to the last address.
//!
//! ```text
//!             fabric 172.30.0.1, which has no route for what a node lets pass, and says so
//!        ┌────────────────┬──────────────────┐
//!   n1 172.30.0.11   n2 172.30.0.12    client 172.30.0.100   and fresh addresses of 10.99.0.0/16
//!   │ the proxy      │
//!   ├ a 10.244.1.2   ├ d 10.244.2.2                          a and c have fresh addresses as well
//!   ├ b 10.244.1.3   └ e 10.244.2.3                          IPv6 likewise
//!   └ c 10.244.1.4
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Something that answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A pod of the node; clients too, whose sockets the node's proxy sees.
    A,
    /// A pod of the node.
    B,
    /// A pod of the node; clients too, whose packets are all that the proxy sees.
    C,
    /// A pod of the other node.
    D,
    /// A pod of the other node.
    E,
    /// The node itself.
    N1,
    /// The other node.
    N2,
}

/// Where endpoints can be.
pub const ENDPOINTS: [Place; 7] = [
    Place::A,
    Place::B,
    Place::C,
    Place::D,
    Place::E,
    Place::N1,
    Place::N2,
];

impl Place {
    /// As servers say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::D => "d",
            Self::E => "e",
            Self::N1 => "n1",
            Self::N2 => "n2",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        ENDPOINTS.into_iter().find(|place| place.name() == name)
    }

    /// The number of the node that it is on.
    pub const fn node(self) -> u8 {
        match self {
            Self::A | Self::B | Self::C | Self::N1 => 1,
            Self::D | Self::E | Self::N2 => 2,
        }
    }

    /// Whether it is on the node with the proxy.
    pub const fn is_local(self) -> bool {
        self.node() == 1
    }

    /// Its address.
    pub fn address(self, v6: bool) -> IpAddr {
        let last = match self {
            Self::A | Self::D => 2,
            Self::B | Self::E => 3,
            Self::C => 4,
            Self::N1 => 11,
            Self::N2 => 12,
        };
        let node = self.node();
        match (self, v6) {
            (Self::N1 | Self::N2, false) => Ipv4Addr::new(172, 30, 0, last).into(),
            // The groups have the digits of the IPv4 address.
            (Self::N1, true) => fabric(0x11),
            (Self::N2, true) => fabric(0x12),
            (_, false) => Ipv4Addr::new(10, 244, node, last).into(),
            (_, true) => Ipv6Addr::new(0xfd00, 0x10, 0x244, node.into(), 0, 0, 0, last.into()).into(),
        }
    }
}

fn fabric(last: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, last).into()
}

/// Somebody who asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// Pod `a`, a process in the node's cgroup: weir meets its sockets.
    PodSocket,
    /// Pod `c`, outside of the node's cgroup as a VM is: weir meets its packets.
    PodPacket,
    /// A process of the node.
    Host,
    /// A machine outside.
    Outside,
}

/// All of them.
pub const CLIENTS: [Client; 4] = [
    Client::PodSocket,
    Client::PodPacket,
    Client::Host,
    Client::Outside,
];

impl Client {
    /// The pod that it is, if it is one.
    pub const fn place(self) -> Option<Place> {
        match self {
            Self::PodSocket => Some(Place::A),
            Self::PodPacket => Some(Place::C),
            Self::Host => Some(Place::N1),
            Self::Outside => None,
        }
    }

    /// The address that it has anyway. A process of the node leaves the choice to the kernel.
    pub fn primary(self, v6: bool) -> IpAddr {
        match (self.place(), v6) {
            (Some(Place::N1), false) => Ipv4Addr::UNSPECIFIED.into(),
            (Some(Place::N1), true) => Ipv6Addr::UNSPECIFIED.into(),
            (Some(pod), _) => pod.address(v6),
            (None, false) => Ipv4Addr::new(172, 30, 0, 100).into(),
            (None, true) => fabric(0x100),
        }
    }

    /// The second number of its fresh addresses, `10.N.0.0/16` and `fd00:10:N::/64`.
    pub const fn fresh_network(self) -> Option<u8> {
        match self {
            Self::PodPacket => Some(97),
            Self::PodSocket => Some(98),
            Self::Outside => Some(99),
            Self::Host => None,
        }
    }

    /// One of 32,768 addresses in one half of its network; by halves, `loadBalancerSourceRanges` can tell them apart.
    pub fn fresh(self, v6: bool, upper: bool, number: u16) -> IpAddr {
        let Some(network) = self.fresh_network() else {
            return self.primary(v6);
        };
        let half = u16::from(upper) << 15;
        let number = number & 0x7fff;
        if v6 {
            let group = u16::from_str_radix(&network.to_string(), 16).unwrap_or_default();
            return Ipv6Addr::new(0xfd00, 0x10, group, 0, half, 0, 0, number).into();
        }
        let [high, low] = (half | number).to_be_bytes();
        Ipv4Addr::new(10, network, high, low).into()
    }
}

/// Whether the node has this address: towards machines, and as the pods' gateway.
pub fn is_of_the_node(address: IpAddr) -> bool {
    let gateway4 = Ipv4Addr::new(10, 244, 1, 1);
    let gateway6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 1);
    [
        Place::N1.address(false),
        Place::N1.address(true),
        gateway4.into(),
        gateway6.into(),
    ]
    .contains(&address)
}

/// An address of the node that serves no node ports, as it is not in its Node object.
pub fn gateway(v6: bool) -> IpAddr {
    if v6 {
        return Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 1).into();
    }
    Ipv4Addr::new(10, 244, 1, 1).into()
}

/// A ClusterIP.
pub fn cluster_ip(v6: bool, slot: u8, number: u8) -> IpAddr {
    if v6 {
        let last = u16::from_be_bytes([slot, number]);
        return Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, last).into();
    }
    Ipv4Addr::new(10, 96, slot, number).into()
}

/// A load balancer's address.
pub fn vip(v6: bool, number: u8) -> IpAddr {
    if v6 {
        return Ipv6Addr::new(0xfd00, 0x203, 0x113, 0, 0, 0, 0, number.into()).into();
    }
    Ipv4Addr::new(203, 0, 113, number).into()
}

/// An external IP.
pub fn external_ip(v6: bool, number: u8) -> IpAddr {
    if v6 {
        return Ipv6Addr::new(0xfd00, 0x198, 0x51, 0, 0, 0, 0, number.into()).into();
    }
    Ipv4Addr::new(198, 51, 100, number).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_addresses_have_halves() {
        let text = |v6, upper, number| Client::Outside.fresh(v6, upper, number).to_string();
        assert_eq!(text(false, false, 258), "10.99.1.2");
        assert_eq!(text(false, true, 258), "10.99.129.2");
        assert_eq!(text(true, false, 9), "fd00:10:99::9");
        assert_eq!(text(true, true, 9), "fd00:10:99:0:8000::9");
        assert_eq!(Client::Host.fresh(false, true, 9), Ipv4Addr::UNSPECIFIED);
    }

    #[test]
    fn places_are_found_by_name() {
        for place in ENDPOINTS {
            assert_eq!(Place::named(place.name()), Some(place));
        }
        assert_eq!(Place::named("z"), None);
        assert_eq!(Place::N1.address(true).to_string(), "fd00:172:30::11");
        assert!(is_of_the_node(gateway(true)));
    }
}
