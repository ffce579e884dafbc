//! The frontends that a Service asks for, whoever gets them.

use proxy_common::{FrontendKind, Ip, Protocol, Scope, ServiceKey, TrafficPolicy};

use crate::address::Family;
use crate::service::{Port, Service};

/// One frontend of a service port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frontend {
    /// Its key.
    pub key: ServiceKey,
    /// Where it comes from.
    pub kind: FrontendKind,
    /// Who may answer.
    pub policy: TrafficPolicy,
    /// Whether only some may ask.
    pub guarded: bool,
}

impl Frontend {
    /// As an operator knows it.
    pub fn words(&self) -> String {
        let at = |field: &str| format!("{field} {} port {}", self.key.address, self.key.port);
        match self.kind {
            FrontendKind::ClusterIp => at("clusterIP"),
            FrontendKind::NodePort => format!("nodePort {}", self.key.port),
            FrontendKind::LoadBalancer => at("load balancer address"),
            FrontendKind::ExternalIp => at("externalIP"),
        }
    }
}

/// The frontends that a port asks for in one family, those that are worth most first: a key that is asked for twice
/// belongs to the first.
pub fn frontends(service: &Service, port: &Port, family: Family) -> Vec<Frontend> {
    let at = |addresses: &[Ip], kind: FrontendKind, policy: TrafficPolicy| -> Vec<Frontend> {
        let of_family = addresses.iter().filter(|address| Family::of(**address) == family);
        of_family
            .map(|address| Frontend {
                key: address_key(*address, port.number, port.protocol),
                kind,
                policy,
                guarded: kind == FrontendKind::LoadBalancer && service.source_ranges.of(family).is_some(),
            })
            .collect()
    };
    let external = service.external;
    let mut frontends = at(&service.cluster_ips, FrontendKind::ClusterIp, service.internal);
    frontends.extend(port.node_port.map(|node_port| Frontend {
        key: node_port_key(family, node_port, port.protocol),
        kind: FrontendKind::NodePort,
        policy: external,
        guarded: false,
    }));
    frontends.extend(at(&service.load_balancer, FrontendKind::LoadBalancer, external));
    frontends.extend(at(&service.external_ips, FrontendKind::ExternalIp, external));
    let mut seen = Vec::new();
    frontends.retain(|frontend| {
        let first = !seen.contains(&frontend.key);
        seen.push(frontend.key);
        first
    });
    frontends
}

/// All frontends that a Service asks for, each with the position of its port. Only in the families of its ClusterIPs, as
/// with kube-proxy.
pub fn wishes(service: &Service) -> Vec<(Frontend, usize)> {
    let families = service.cluster_ips.iter().map(|address| Family::of(*address));
    let in_family = |family| {
        let ports = service.ports.iter().enumerate();
        ports.flat_map(move |(position, port)| {
            let frontends = frontends(service, port, family);
            frontends.into_iter().map(move |frontend| (frontend, position))
        })
    };
    families.flat_map(in_family).collect()
}

/// The key of an address's port.
const fn address_key(address: Ip, port: u16, protocol: Protocol) -> ServiceKey {
    ServiceKey {
        address,
        port,
        protocol: protocol.number(),
        scope: Scope::Address.code(),
    }
}

/// The key of a node port.
const fn node_port_key(family: Family, port: u16, protocol: Protocol) -> ServiceKey {
    let scope = match family {
        Family::V4 => Scope::NodePortV4,
        Family::V6 => Scope::NodePortV6,
    };
    ServiceKey {
        address: Ip::UNSPECIFIED,
        port,
        protocol: protocol.number(),
        scope: scope.code(),
    }
}
