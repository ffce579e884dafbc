//! What a Service should look like in the kernel, without ids and slots: its service ports, each with the frontends
//! that it won and the backends that it may use.

use proxy_common::{FrontendKind, Protocol, Scope, ServiceKey, TrafficPolicy};

use crate::address::Family;
use crate::object::ObjectName;
use crate::objects::{Objects, cluster_ip_key, node_port_key};
use crate::service::{Port, Service};
use crate::traffic::{Backends, Candidates};

/// A service port: what has an id, a cursor and a name in the kernel.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortKey {
    /// The Service.
    pub service: ObjectName,
    /// Name of the port; empty if it has none.
    pub port: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Whose addresses its endpoints have.
    pub family: Family,
}

/// What one service port should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredPort {
    /// Which one.
    pub key: PortKey,
    /// Its frontends; never empty.
    pub frontends: Vec<Frontend>,
    /// Its backends.
    pub backends: Backends,
}

/// One frontend of a service port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frontend {
    /// Its key.
    pub key: ServiceKey,
    /// Where it comes from.
    pub kind: FrontendKind,
    /// Who may answer.
    pub policy: TrafficPolicy,
}

/// What a Service should be; no ports if it is gone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// Its service ports.
    pub ports: Vec<DesiredPort>,
    /// What it asked for and does not get.
    pub problems: Vec<String>,
}

impl Desired {
    /// From the objects as they are now.
    pub fn of(objects: &Objects, name: &ObjectName) -> Self {
        let mut desired = Self::default();
        let Some(service) = objects.service(name) else {
            return desired;
        };
        for (position, port) in service.ports.iter().enumerate() {
            for address in &service.cluster_ips {
                let family = Family::of(*address);
                let wishes = frontends(service, port, family);
                let mut granted = Vec::new();
                for frontend in wishes {
                    match refusal(objects, name, position, &frontend) {
                        None => granted.push(frontend),
                        Some(problem) => desired.problems.push(problem),
                    }
                }
                if granted.is_empty() {
                    continue;
                }
                let key = PortKey {
                    service: name.clone(),
                    port: port.name.clone(),
                    protocol: port.protocol,
                    family,
                };
                let backends = backends(objects, name, port, family);
                desired.ports.push(DesiredPort {
                    key,
                    frontends: granted,
                    backends,
                });
            }
        }
        desired
    }
}

/// Whether a frontend can be served at all, whoever asks for it: a ClusterIP that is an address of this node would
/// take every other port of the node with it.
pub fn is_servable(objects: &Objects, key: &ServiceKey) -> bool {
    key.scope != Scope::Address.code() || !objects.is_local(key.address)
}

/// The frontends that a port asks for in one family.
fn frontends(service: &Service, port: &Port, family: Family) -> Vec<Frontend> {
    let addresses = service
        .cluster_ips
        .iter()
        .filter(|address| Family::of(**address) == family);
    let mut frontends: Vec<Frontend> = addresses
        .map(|address| Frontend {
            key: cluster_ip_key(*address, port.number, port.protocol),
            kind: FrontendKind::ClusterIp,
            policy: service.internal,
        })
        .collect();
    frontends.extend(port.node_port.map(|node_port| Frontend {
        key: node_port_key(family, node_port, port.protocol),
        kind: FrontendKind::NodePort,
        policy: service.external,
    }));
    frontends
}

fn refusal(objects: &Objects, name: &ObjectName, position: usize, frontend: &Frontend) -> Option<String> {
    let key = &frontend.key;
    if !is_servable(objects, key) {
        return Some(format!(
            "clusterIP {} is an address of this node: not served there; choose another",
            key.address
        ));
    }
    let (winner, winning_position) = objects.claims().winner(key)?;
    if (winner, winning_position) == (name, position) {
        return None;
    }
    let what = match frontend.kind {
        FrontendKind::ClusterIp => format!("clusterIP {} port {}", key.address, key.port),
        FrontendKind::NodePort => format!("nodePort {}", key.port),
    };
    Some(if winner == name {
        format!("{what} is asked for by two of its ports: the second is not served; change it")
    } else {
        format!(
            "{what} belongs to Service {winner}, which comes first: not served here until that one gives it up"
        )
    })
}

fn backends(objects: &Objects, service: &ObjectName, port: &Port, family: Family) -> Backends {
    let mut candidates = Candidates::default();
    for slice in objects.slices(service).filter(|slice| slice.family == family) {
        let ports = slice
            .ports
            .iter()
            .filter(|other| other.name == port.name && other.protocol == port.protocol);
        for slice_port in ports {
            for endpoint in &slice.endpoints {
                candidates.add(endpoint, slice_port.port);
            }
        }
    }
    candidates.select(objects.zone())
}
