//! A Service with its EndpointSlices, as far as a packet can tell.

use std::collections::BTreeSet;

use crate::places::Place;

/// What a Service is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `type: ClusterIP`
    ClusterIp,
    /// `type: NodePort`
    NodePort,
    /// `type: LoadBalancer`
    LoadBalancer,
    /// `clusterIP: None`
    Headless,
    /// `type: ExternalName`
    ExternalName,
}

/// Its address families, the first one first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// IPv4
    V4,
    /// IPv6
    V6,
    /// Both
    V4V6,
    /// Both, IPv6 first
    V6V4,
}

impl Families {
    /// In their order; `true` is IPv6.
    pub fn list(self) -> Vec<bool> {
        match self {
            Self::V4 => vec![false],
            Self::V6 => vec![true],
            Self::V4V6 => vec![false, true],
            Self::V6V4 => vec![true, false],
        }
    }
}

/// One of its ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Empty if it is the only one.
    pub name: &'static str,
    /// UDP, else TCP.
    pub udp: bool,
    /// At a ClusterIP, a load balancer's address, an external IP.
    pub number: u16,
    /// At the endpoints.
    pub target: u16,
    /// At the node, if the Service has node ports.
    pub node_port: u16,
}

/// An address in `status.loadBalancer.ingress`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ingress {
    /// The last number of the address.
    pub number: u8,
    /// Its family, which need not be one of the Service's.
    pub v6: bool,
    /// `ipMode`: `VIP`, `Proxy`, or missing.
    pub mode: Option<&'static str>,
}

/// An endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Who it is.
    pub place: Place,
    /// `conditions.ready`
    pub ready: Option<bool>,
    /// `conditions.serving`
    pub serving: Option<bool>,
    /// `conditions.terminating`
    pub terminating: Option<bool>,
    /// Whether `nodeName` is there.
    pub node: bool,
    /// `hints.forZones`
    pub zones: Vec<&'static str>,
    /// `hints.forNodes`
    pub nodes: Vec<&'static str>,
    /// A second address, which nobody should ask.
    pub second: Option<Place>,
}

/// An `EndpointSlice`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slice {
    /// `addressType`
    pub v6: bool,
    /// Name, protocol and number of its ports.
    pub ports: Vec<(&'static str, bool, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A Service with its slices.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent fields of a Service"
)]
pub struct Service {
    /// Which of the Services of a state.
    pub slot: u8,
    /// Services of the same slot are deleted and made again.
    pub life: u64,
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether another proxy serves it, by its label.
    pub foreign: bool,
    /// Its families.
    pub families: Families,
    /// Last number of its ClusterIPs.
    pub address: u8,
    /// Its ports.
    pub ports: Vec<Port>,
    /// `internalTrafficPolicy: Local`
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`
    pub external_local: bool,
    /// `sessionAffinity: ClientIP`, with the seconds.
    pub affinity: Option<u32>,
    /// `externalIPs`, by their last numbers; each in both families.
    pub external_ips: BTreeSet<u8>,
    /// `status.loadBalancer.ingress`
    pub ingress: Vec<Ingress>,
    /// `loadBalancerSourceRanges`
    pub source_ranges: Vec<&'static str>,
    /// `allocateLoadBalancerNodePorts`
    pub node_ports: bool,
    /// `publishNotReadyAddresses`, of which a proxy sees only its effect.
    pub publish_not_ready: bool,
    /// `trafficDistribution`, of which a proxy sees only its effect.
    pub distribution: Option<&'static str>,
    /// Its slices.
    pub slices: Vec<Slice>,
}

impl Service {
    /// Whether it has a ClusterIP that this node's proxy should serve.
    pub fn is_proxied(&self) -> bool {
        self.has_cluster_ip() && !self.foreign
    }

    /// Whether it has a ClusterIP.
    pub fn has_cluster_ip(&self) -> bool {
        !matches!(self.kind, Kind::Headless | Kind::ExternalName)
    }

    /// Whether its ports have node ports.
    pub fn has_node_ports(&self) -> bool {
        match self.kind {
            Kind::NodePort => true,
            Kind::LoadBalancer => self.node_ports,
            _ => false,
        }
    }

    /// Whether `externalTrafficPolicy` may be set.
    pub fn is_external(&self) -> bool {
        matches!(self.kind, Kind::NodePort | Kind::LoadBalancer)
            || (self.kind == Kind::ClusterIp && !self.external_ips.is_empty())
    }

    /// Whether it has a `healthCheckNodePort`.
    pub fn has_health_check(&self) -> bool {
        self.kind == Kind::LoadBalancer && self.external_local
    }

    /// Whether `loadBalancerSourceRanges` keep anybody of this family out.
    pub fn is_guarded(&self, v6: bool) -> bool {
        let mut ranges = self
            .source_ranges
            .iter()
            .filter(|range| range.contains(':') == v6)
            .peekable();
        ranges.peek().is_some() && !ranges.any(|range| range.ends_with("/0"))
    }

    /// How many endpoints a client of this family may meet at most.
    pub fn endpoints(&self, v6: bool) -> usize {
        let slices = self.slices.iter().filter(|slice| slice.v6 == v6);
        let places = slices.flat_map(|slice| &slice.endpoints);
        places
            .map(|endpoint| endpoint.place)
            .collect::<BTreeSet<_>>()
            .len()
    }
}
