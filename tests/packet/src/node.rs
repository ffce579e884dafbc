//! The node that all packets meet: interfaces, addresses, routes, services.
//!
//! ```text
//!   outside ── 192.168.0.1 ── up0 ┐                       ┌ pod1 ── 10.244.1.2
//!                                 ├ 192.168.0.10          │
//!   road warriors 10.8.0.x ─ tun0 ┤ 10.244.1.1 (pods) ────┤
//!                                 │ 10.244.1.0 (overlay)  │
//!   other node's pods 10.244.2.x ─┘ ovl0, MTU 1400        └ pod2 ── 10.244.1.3      the same in fd00::/16
//! ```

use proxy_common::{
    Address, AddressKind, AffinityBackend, Algorithm, Backend, BackendRange, BackendState, Cidr,
    FrontendFlag, FrontendKind, Ip, LocalSources, NodeConfig, Scope, Service, ServiceCidrs, ServiceKey,
    SourceKey, SourceRange,
};

pub use crate::masquerade::Masquerade;
pub use crate::network::{routes, table};
use crate::services::{GUARDED, LET_IN, RETIRED, SPECS, Spec};

/// An interface of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// To the outside, by Ethernet.
    Uplink,
    /// To the first pod.
    Pod1,
    /// To the second pod.
    Pod2,
    /// To the pods of another node.
    Overlay,
    /// To road warriors, by packets without link headers.
    Tunnel,
}

impl Port {
    /// Every interface.
    pub const ALL: [Self; 5] = [Self::Uplink, Self::Pod1, Self::Pod2, Self::Overlay, Self::Tunnel];

    /// Its number, the same in both worlds.
    pub const fn index(self) -> u32 {
        match self {
            Self::Uplink => 11,
            Self::Pod1 => 12,
            Self::Pod2 => 13,
            Self::Overlay => 14,
            Self::Tunnel => 15,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uplink => "up0",
            Self::Pod1 => "pod1",
            Self::Pod2 => "pod2",
            Self::Overlay => "ovl0",
            Self::Tunnel => "tun0",
        }
    }

    /// Its MTU.
    pub const fn mtu(self) -> u32 {
        match self {
            Self::Overlay => 1400,
            Self::Tunnel => 1420,
            _ => 1500,
        }
    }
}

/// Somebody with an address in both families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    /// The node, on its uplink.
    Node,
    /// The node, as pods see it.
    PodGate,
    /// The node, on the overlay.
    OverlayGate,
    /// The node, in the tunnel.
    TunnelGate,
    /// The first pod.
    Pod1,
    /// The second pod.
    Pod2,
    /// A pod of another node.
    Remote(u8),
    /// An endpoint that no route leads to.
    Lost,
    /// The router on the uplink.
    Router,
    /// Somebody outside.
    Outside(u8),
    /// Somebody in the tunnel.
    Warrior(u8),
    /// A ClusterIP.
    Vip(u8),
    /// An address of a load balancer, on no machine.
    Balancer(u8),
}

impl Host {
    /// The address.
    pub const fn ip(self, v6: bool) -> Ip {
        if v6 { self.v6() } else { self.v4() }
    }

    const fn v4(self) -> Ip {
        Ip::v4(match self {
            Self::Node => [192, 168, 0, 10],
            Self::PodGate => [10, 244, 1, 1],
            Self::OverlayGate => [10, 244, 1, 0],
            Self::TunnelGate => [10, 8, 0, 10],
            Self::Pod1 => [10, 244, 1, 2],
            Self::Pod2 => [10, 244, 1, 3],
            Self::Remote(n) => [10, 244, 2, n],
            Self::Lost => [198, 51, 100, 5],
            Self::Router => [192, 168, 0, 1],
            Self::Outside(n) => [203, 0, 113, n],
            Self::Warrior(n) => [10, 8, 0, n],
            Self::Vip(n) => [10, 96, 0, n],
            Self::Balancer(n) => [192, 0, 2, n],
        })
    }

    const fn v6(self) -> Ip {
        let (net, host) = match self {
            Self::Node => ([0x01, 0x68, 0, 0], 0x10),
            Self::PodGate => ([0x02, 0x44, 0, 1], 1),
            Self::OverlayGate => ([0x02, 0x44, 0, 1], 0xff),
            Self::TunnelGate => ([0, 8, 0, 0], 0x10),
            Self::Pod1 => ([0x02, 0x44, 0, 1], 2),
            Self::Pod2 => ([0x02, 0x44, 0, 1], 3),
            Self::Remote(n) => ([0x02, 0x44, 0, 2], n),
            Self::Lost => ([0xde, 0xad, 0, 0], 5),
            Self::Router => ([0x01, 0x68, 0, 0], 1),
            Self::Outside(n) => ([0x01, 0x13, 0, 0], n),
            Self::Warrior(n) => ([0, 8, 0, 0], n),
            Self::Vip(n) => ([0, 0x96, 0, 0], n),
            Self::Balancer(n) => ([0, 0x92, 0, 0], n),
        };
        let [a, b, c, d] = net;
        Ip::v6([0xfd, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, host])
    }
}

/// The address that is the node's and every load balancer's: of two services with one port, the first has it.
pub const BALANCER_ON_NODE: Host = Host::TunnelGate;

/// First source port of SNAT.
pub const SNAT_FIRST: u16 = 10_000;
/// Slots of a service's slab.
const SLAB: u32 = 4;

/// The rows that the agent writes.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// `CONFIG`.
    pub config: NodeConfig,
    /// `ADDRESSES`.
    pub addresses: Vec<(Ip, Address)>,
    /// `SERVICE_CIDRS`.
    pub service_cidrs: ServiceCidrs,
    /// `LOCAL_SOURCES`.
    pub local_sources: LocalSources,
    /// `SOURCE_RANGES`, each with the bits of its key that count.
    pub sources: Vec<(u32, SourceKey, SourceRange)>,
    /// `SERVICES`.
    pub services: Vec<(ServiceKey, Service)>,
    /// `BACKENDS`.
    pub backends: Vec<(u32, Backend)>,
    /// `BACKEND_STATE`.
    pub states: Vec<(u32, BackendState)>,
    /// `AFFINITY_BACKENDS`.
    pub affinity_backends: Vec<AffinityBackend>,
    /// `CURSORS`.
    pub cursors: Vec<(u32, u64)>,
    /// `SHARED_PORTS`.
    pub shared: &'static [u16],
}

/// Id of a service port in one family.
pub fn service_id(index: usize, v6: bool) -> u32 {
    u32::try_from(index * 2).unwrap_or(0) + u32::from(v6)
}

/// First slot of a service port's slab; also the id of its first backend.
pub fn slab(index: usize, v6: bool) -> u32 {
    service_id(index, v6) * SLAB
}

/// Ports from which a socket talks to a backend past the packet path.
pub const SHARED: [u16; 2] = [40_022, 40_023];

/// The rows of the node with so many source ports for SNAT.
pub fn rows(snat_ports: u16) -> Rows {
    let mut rows = Rows {
        shared: &SHARED,
        service_cidrs: service_cidrs(),
        config: NodeConfig {
            fallback_source_v4: Host::Node.ip(false),
            fallback_source_v6: Host::Node.ip(true),
            snat_first_port: SNAT_FIRST,
            snat_ports,
            node_port_first: 30053,
            node_port_last: 30444,
            fib_source: 1,
            checksum_ipv6_flag: 1,
            ..NodeConfig::default()
        },
        ..Rows::default()
    };
    for v6 in [false, true] {
        add_addresses(&mut rows, v6);
        for (index, spec) in SPECS.iter().enumerate() {
            add_service(&mut rows, spec, index, v6);
            if spec.name == GUARDED {
                let source = |host: Host| SourceKey {
                    service: service_id(index, v6),
                    address: host.ip(v6),
                };
                let row = SourceRange { generation: 1 };
                rows.sources
                    .extend(LET_IN.map(|host| (SourceKey::BITS, source(host), row)));
            }
        }
    }
    rows
}

fn add_addresses(rows: &mut Rows, v6: bool) {
    let mut add = |address: Ip, kind: AddressKind, node_ports: u8| {
        let row = Address {
            kind: kind.code(),
            node_ports,
            vip: u8::from(address == BALANCER_ON_NODE.ip(v6)),
            reserved: 0,
        };
        rows.addresses.push((address, row));
    };
    for host in [Host::Node, Host::PodGate, Host::TunnelGate] {
        add(host.ip(v6), AddressKind::Node, 1);
    }
    add(Host::OverlayGate.ip(v6), AddressKind::Node, 0);
    add(loopback(v6), AddressKind::Loopback, 1);
    for spec in &SPECS {
        add(Host::Vip(spec.vip).ip(v6), AddressKind::ClusterIp, 0);
        if spec.node_port != 0 {
            add(Host::Balancer(spec.vip).ip(v6), AddressKind::Vip, 0);
        }
    }
    add(Host::Vip(RETIRED).ip(v6), AddressKind::Retired, 0);
    add(Host::Balancer(RETIRED).ip(v6), AddressKind::RetiredVip, 0);
}

/// The host's loopback address.
pub const fn loopback(v6: bool) -> Ip {
    if v6 {
        Ip::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    } else {
        Ip::v4([127, 0, 0, 1])
    }
}

/// 10.96.0.0/16, and the same of IPv6.
fn service_cidrs() -> ServiceCidrs {
    let mut cidrs = ServiceCidrs::default();
    for (v6, ranges) in [(false, &mut cidrs.v4), (true, &mut cidrs.v6)] {
        let [first, ..] = ranges;
        let mask = u128::MAX << if v6 { 64 } else { 16 };
        *first = Cidr {
            first: Host::Vip(0).ip(v6),
            mask: Ip {
                bytes: mask.to_be_bytes(),
            },
        };
    }
    cidrs
}

fn is_local(host: Host) -> bool {
    matches!(host, Host::Pod1 | Host::Pod2 | Host::Node)
}

/// How many endpoints are wanted.
fn how_many(spec: &Spec, wanted: fn(Host) -> bool) -> u32 {
    u32::try_from(spec.backends.iter().filter(|(host, _)| wanted(*host)).count()).unwrap_or(0)
}

fn add_service(rows: &mut Rows, spec: &Spec, index: usize, v6: bool) {
    let base = slab(index, v6);
    let id = service_id(index, v6);
    for (slot, (host, port)) in (base..).zip(spec.backends) {
        let backend = Backend {
            address: host.ip(v6),
            port: *port,
            local: u8::from(is_local(*host)),
            reserved: 0,
            id: slot,
            generation: 1,
            service: id,
        };
        rows.backends.push((slot, backend));
        if spec.affinity_timeout != 0 {
            rows.affinity_backends.push(AffinityBackend {
                backend,
                in_cluster: u8::from(!(spec.apart && is_local(*host))),
                in_local: u8::from(is_local(*host)),
                reserved: 0,
            });
        }
        rows.states.push((
            slot,
            BackendState {
                chosen: 0,
                generation: 1,
                serving: 1,
            },
        ));
    }
    add_frontends(rows, spec, service(spec, base, id), v6);
    add_cursors(rows, id);
}

/// The ClusterIP; with a node port also that, and the addresses of a load balancer.
fn add_frontends(rows: &mut Rows, spec: &Spec, service: Service, v6: bool) {
    let mut add = |address, port, scope: Scope, kind: FrontendKind| {
        let key = ServiceKey {
            address,
            port,
            protocol: spec.protocol,
            scope: scope.code(),
        };
        if !rows.services.iter().any(|(other, _)| *other == key) {
            let guarded = spec.name == GUARDED && kind == FrontendKind::LoadBalancer;
            let kind = kind.code();
            rows.services.push((
                key,
                Service {
                    kind,
                    flags: if guarded { FrontendFlag::Guarded.code() } else { 0 },
                    ..service
                },
            ));
        }
    };
    let cluster_ip = Host::Vip(spec.vip).ip(v6);
    add(cluster_ip, spec.port, Scope::Address, FrontendKind::ClusterIp);
    if spec.node_port != 0 {
        let scope = if v6 { Scope::NodePortV6 } else { Scope::NodePortV4 };
        add(Ip::UNSPECIFIED, spec.node_port, scope, FrontendKind::NodePort);
        for host in [Host::Balancer(spec.vip), BALANCER_ON_NODE] {
            add(host.ip(v6), spec.port, Scope::Address, FrontendKind::LoadBalancer);
        }
    }
}

/// The row of the ClusterIP.
fn service(spec: &Spec, base: u32, id: u32) -> Service {
    Service {
        id,
        generation: 1,
        cluster: if spec.apart {
            BackendRange {
                base: base + how_many(spec, is_local),
                count: how_many(spec, |host| !is_local(host)),
            }
        } else {
            BackendRange {
                base,
                count: how_many(spec, |_| true),
            }
        },
        local: BackendRange {
            base,
            count: how_many(spec, is_local),
        },
        affinity_timeout: spec.affinity_timeout,
        algorithm: Algorithm::RoundRobin.code(),
        kind: FrontendKind::ClusterIp.code(),
        policy: spec.policy.code(),
        flags: 0,
    }
}

fn add_cursors(rows: &mut Rows, id: u32) {
    // Somewhere, as the agent does it; near the end of the range for one, so that it wraps.
    rows.cursors.push((id * 2, u64::MAX - 1 - u64::from(id)));
    rows.cursors.push((id * 2 + 1, u64::from(id) * 7));
}
