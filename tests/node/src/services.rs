//! The Services of the standard world.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weir_lab::manifest::{Endpoint, Port, Service};
use weir_lab::{Manifests, Pod};

/// The port that every server of the world listens on, TCP and UDP.
pub const TARGET: u16 = 8080;
/// Where [`crate::bulk::Bulk`] listens in the tests that use it.
pub const BULK: u16 = 9000;
/// The Services' TCP port.
pub const TCP: u16 = 80;
/// The Services' UDP port.
pub const UDP: u16 = 53;
/// A port that no Service has.
pub const UNDEFINED: u16 = 81;

/// Name and number of a Service: 10.96.0.(number), `fd00:10:96::(number)`, node ports 30000 + number (TCP) and
/// 31000 + number (UDP).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its name, and that of its file.
    pub name: &'static str,
    /// Its number.
    pub number: u8,
    /// The port of its endpoints.
    pub target: u16,
}

impl Known {
    const fn new(name: &'static str, number: u8, target: u16) -> Self {
        Self { name, number, target }
    }
}

/// Three backends on two nodes.
pub const WEB: Known = Known::new("web", 10, TARGET);
/// No endpoints.
pub const EMPTY: Known = Known::new("empty", 11, TARGET);
/// Only `web-1`, on node 1.
pub const SOLO: Known = Known::new("solo", 12, TARGET);
/// Only `web-3`, on node 2.
pub const REMOTE: Known = Known::new("remote", 13, TARGET);
/// Only `web-3` as well.
pub const TWIN: Known = Known::new("twin", 14, TARGET);

/// Only `web-1`, at the port for transfers.
pub const BULK_HERE: Known = Known::new("bulk-here", 15, BULK);
/// Only `web-3`, at the port for transfers.
pub const BULK_THERE: Known = Known::new("bulk-there", 16, BULK);

impl Known {
    /// The ClusterIPs, IPv4 first.
    pub fn ips(self) -> [IpAddr; 2] {
        let digits = u16::from_str_radix(&self.number.to_string(), 16).unwrap_or(u16::from(self.number));
        [
            Ipv4Addr::new(10, 96, 0, self.number).into(),
            Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, digits).into(),
        ]
    }

    /// The TCP frontends at the ClusterIPs.
    pub fn tcp(self) -> [SocketAddr; 2] {
        self.ips().map(|ip| SocketAddr::new(ip, TCP))
    }

    /// The UDP frontends at the ClusterIPs.
    pub fn udp(self) -> [SocketAddr; 2] {
        self.ips().map(|ip| SocketAddr::new(ip, UDP))
    }

    /// The TCP node port.
    pub fn node_tcp(self) -> u16 {
        30000 + u16::from(self.number)
    }

    /// The UDP node port.
    pub fn node_udp(self) -> u16 {
        31000 + u16::from(self.number)
    }

    /// The object.
    pub fn service(self) -> Service {
        let ports = [
            Port::tcp("http", TCP, self.target).node_port(self.node_tcp()),
            Port::udp("echo", UDP, self.target).node_port(self.node_udp()),
        ];
        Service::new(self.name, &self.ips(), &ports)
    }

    /// Writes the Service and its slices: these pods in both families.
    pub fn write(self, manifests: &Manifests, pods: &[&Pod]) -> anyhow::Result<()> {
        self.write_endpoints(manifests, &endpoints(pods))
    }

    /// Writes the Service and its slices.
    pub fn write_endpoints(self, manifests: &Manifests, endpoints: &[Endpoint]) -> anyhow::Result<()> {
        let service = self.service();
        let mut documents = vec![service.to_yaml()];
        documents.extend(service.slices(endpoints));
        manifests.write(&self.file(), &documents)
    }

    /// The file that `write` writes.
    pub fn file(self) -> String {
        format!("{}.yaml", self.name)
    }
}

/// Ready endpoints: both addresses of each pod.
pub fn endpoints(pods: &[&Pod]) -> Vec<Endpoint> {
    pods.iter()
        .flat_map(|pod| {
            pod.addresses()
                .map(|address| Endpoint::new(address, pod.node().name()))
        })
        .collect()
}

/// `IPv4` or `IPv6`, for figures.
pub fn family(address: SocketAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
