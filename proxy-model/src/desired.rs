//! What a Service should look like in the kernel, without ids and slots: its service ports, each with the frontends
//! that it won and the backends that it may use.

use std::collections::BTreeSet;

use proxy_common::{FrontendKind, Protocol, Scope, ServiceKey};

use crate::address::Family;
use crate::frontend::{Frontend, frontends};
use crate::node_ports::Prefix;
use crate::object::ObjectName;
use crate::objects::Objects;
use crate::service::Port;
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
    /// Who may use the guarded ones of its frontends.
    pub sources: BTreeSet<Prefix>,
    /// Seconds for which a client sticks to its backend; 0 if it does not.
    pub affinity_timeout: u32,
}

/// What a Service should be; no ports if it is gone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// Its service ports.
    pub ports: Vec<DesiredPort>,
    /// What it asked for and does not get.
    pub refusals: Vec<Refusal>,
}

/// A frontend that a Service does not get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why, and what to do.
    pub what: String,
    /// Whether it is so because of this node.
    pub of_node: bool,
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
                let mut granted = Vec::new();
                for frontend in frontends(service, port, family) {
                    match refusal(objects, name, position, &frontend) {
                        None => granted.push(frontend),
                        Some(refusal) => desired.refusals.push(refusal),
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
                let guarded = granted.iter().any(|frontend| frontend.guarded);
                let sources = guarded.then(|| service.source_ranges.of(family)).flatten();
                desired.ports.push(DesiredPort {
                    key,
                    frontends: granted,
                    backends,
                    sources: sources.unwrap_or_default(),
                    affinity_timeout: service.affinity_timeout,
                });
            }
        }
        desired
    }
}

/// Whether a frontend can be served at all, whoever asks for it.
pub fn is_servable(objects: &Objects, key: &ServiceKey) -> bool {
    let kind = objects.claims().best(key).unwrap_or(FrontendKind::ExternalIp);
    taken(objects, key, kind).is_none()
}

/// Who has an address, so that it can be no frontend.
enum Taken {
    ThisNode,
    ApiServer,
}

/// A ClusterIP that is an address of this node would take every other port of the node with it, and an external IP any port
/// of the node that anybody likes, or what the cluster says to its API servers (CVE-2020-8554). A load balancer's address
/// may be either: who announces it often puts it on an interface, and not everybody may write it.
fn taken(objects: &Objects, key: &ServiceKey, kind: FrontendKind) -> Option<Taken> {
    if key.scope != Scope::Address.code() || kind == FrontendKind::LoadBalancer {
        return None;
    }
    if objects.is_local(key.address) {
        return Some(Taken::ThisNode);
    }
    let reached = kind == FrontendKind::ExternalIp && objects.is_api_server(key.address);
    reached.then_some(Taken::ApiServer)
}

fn refusal(objects: &Objects, name: &ObjectName, position: usize, frontend: &Frontend) -> Option<Refusal> {
    let key = &frontend.key;
    if let Some(taken) = taken(objects, key, frontend.kind) {
        let field = if frontend.kind == FrontendKind::ClusterIp {
            "clusterIP"
        } else {
            "externalIP"
        };
        let whose = match taken {
            Taken::ThisNode => "an address of this node",
            Taken::ApiServer => "an address of an API server",
        };
        return Some(Refusal {
            what: format!(
                "{field} {} is {whose}: not served there; choose another",
                key.address
            ),
            of_node: matches!(taken, Taken::ThisNode),
        });
    }
    let (winner, winning_position) = objects.claims().winner(key)?;
    if (winner, winning_position) == (name, position) {
        return None;
    }
    let what = frontend.words();
    let what = if winner == name {
        format!("{what} is asked for by two of its ports: the second is not served; change it")
    } else {
        format!(
            "{what} belongs to Service {winner}, which comes first: not served here until that one gives it up"
        )
    };
    Some(Refusal { what, of_node: false })
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
