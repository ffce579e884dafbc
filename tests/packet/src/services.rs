//! The services of the node: one for every case that the datapath tells apart.

use proxy_common::TrafficPolicy;

use crate::node::Host;

/// A service port, in both families.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// What it is there for.
    pub name: &'static str,
    /// Last byte of its ClusterIP.
    pub vip: u8,
    /// Its port.
    pub port: u16,
    /// 6, 17 or 132.
    pub protocol: u8,
    /// Its node port; 0 if it has none.
    pub node_port: u16,
    /// Both policies.
    pub policy: TrafficPolicy,
    /// Seconds for which a client sticks to its backend; 0 if it does not.
    pub affinity_timeout: u32,
    /// Whether only endpoints elsewhere are in the cluster's set, as when all of this node terminate.
    pub apart: bool,
    /// Endpoints, local ones first.
    pub backends: &'static [(Host, u16)],
}

const LOCAL: TrafficPolicy = TrafficPolicy::Local;
const CLUSTER: TrafficPolicy = TrafficPolicy::Cluster;

const fn spec(
    (name, protocol): (&'static str, u8),
    (vip, port): (u8, u16),
    node_port: u16,
    policy: TrafficPolicy,
    backends: &'static [(Host, u16)],
) -> Spec {
    Spec {
        name,
        vip,
        port,
        protocol,
        node_port,
        policy,
        affinity_timeout: 0,
        apart: false,
        backends,
    }
}

/// The same with session affinity.
const fn sticky(spec: Spec, affinity_timeout: u32) -> Spec {
    Spec {
        affinity_timeout,
        ..spec
    }
}

/// The same with two sets that have no endpoint in common.
const fn apart(spec: Spec) -> Spec {
    Spec { apart: true, ..spec }
}

const WEB: &[(Host, u16)] = &[(Host::Pod1, 8080), (Host::Pod2, 8080), (Host::Remote(5), 8080)];
const DNS: &[(Host, u16)] = &[(Host::Pod2, 5353), (Host::Remote(5), 5353), (Host::Remote(6), 53)];

/// The service whose load balancer lets only some in.
pub const GUARDED: &str = "guarded";
/// Those.
pub const LET_IN: [Host; 2] = [Host::Outside(7), Host::Pod1];

/// Every service.
pub const SPECS: [Spec; 23] = [
    spec(("web", 6), (10, 80), 30080, CLUSTER, WEB),
    spec(("web-too", 6), (11, 80), 0, CLUSTER, WEB),
    spec(("dns", 17), (53, 53), 30053, CLUSTER, DNS),
    spec(("dns-too", 17), (54, 53), 0, CLUSTER, DNS),
    spec(
        ("near", 6),
        (20, 80),
        30081,
        LOCAL,
        &[(Host::Pod1, 8080), (Host::Remote(5), 8080)],
    ),
    spec(("far", 6), (21, 80), 30084, LOCAL, &[(Host::Remote(5), 8080)]),
    spec(("empty", 6), (30, 80), 30082, CLUSTER, &[]),
    spec(("empty-udp", 17), (31, 53), 30083, CLUSTER, &[]),
    spec(
        ("alone", 6),
        (40, 443),
        30443,
        CLUSTER,
        &[(Host::Remote(6), 8443)],
    ),
    spec(("self", 6), (41, 80), 30085, CLUSTER, &[(Host::Pod1, 9000)]),
    spec(("lost", 6), (42, 80), 30086, CLUSTER, &[(Host::Lost, 8080)]),
    spec(("self-udp", 17), (43, 53), 30087, CLUSTER, &[(Host::Pod1, 9053)]),
    spec(("host", 6), (44, 443), 30444, CLUSTER, &[(Host::Node, 6443)]),
    spec(("same-port", 6), (45, 8080), 0, CLUSTER, &[(Host::Pod2, 8080)]),
    spec((GUARDED, 6), (46, 88), 30088, CLUSTER, &[(Host::Pod2, 8080)]),
    sticky(spec(("sticky", 6), (60, 80), 30190, CLUSTER, WEB), 100),
    sticky(spec(("sticky-udp", 17), (61, 53), 30191, CLUSTER, DNS), 2),
    sticky(spec(("sticky-near", 6), (62, 80), 30192, LOCAL, WEB), 10_800),
    sticky(apart(spec(("sticky-apart", 6), (63, 80), 30193, LOCAL, WEB)), 30),
    spec(("sctp", 132), (70, 80), 30194, CLUSTER, WEB),
    spec(("sctp-same-port", 132), (71, 8080), 0, CLUSTER, WEB),
    spec(
        ("sctp-alone", 132),
        (72, 443),
        30195,
        CLUSTER,
        &[(Host::Remote(6), 8443)],
    ),
    spec(("empty-sctp", 132), (73, 80), 30196, CLUSTER, &[]),
];

/// Last byte of the ClusterIP whose Service is gone.
pub const RETIRED: u8 = 99;
