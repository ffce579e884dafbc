//! Rows of several maps, put together as people think of them: a Service's frontend with its endpoints.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use proxy_common::{
    Algorithm, Backend, BackendRange, BackendState, Direction, FrontendKind, Ip, Scope, Service, ServiceKey,
    ServiceName, TrafficPolicy,
};
use serde::Serialize;

use super::{protocol, socket, word};
use crate::kernel::{MapError, Maps};

/// A frontend and who answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Frontend {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port_name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// Unspecified for a node port, which is served on all addresses of the node.
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) policy: String,
    pub(super) algorithm: String,
    /// Seconds for which a client sticks to its endpoint; 0 if it does not.
    pub(super) affinity_timeout: u32,
    pub(super) id: u32,
    pub(super) generation: u32,
    /// Connections on the packet path; the socket hook's leave no trace after they are made.
    pub(super) flows: usize,
    pub(super) endpoints: Vec<Endpoint>,
}

/// An endpoint of a service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) local: bool,
    pub(super) serving: bool,
    /// How many connections were given to it.
    pub(super) chosen: u64,
    pub(super) id: u32,
    pub(super) generation: u32,
    pub(super) slot: u32,
}

impl Endpoint {
    pub(super) fn socket(&self) -> String {
        socket(self.address, self.port)
    }

    fn new(slot: u32, backend: &Backend, state: &BackendState) -> Self {
        Self {
            address: backend.address.into(),
            port: backend.port,
            local: backend.local == 1,
            serving: state.serving == 1 && state.generation == backend.generation,
            chosen: state.chosen,
            id: backend.id,
            generation: backend.generation,
            slot,
        }
    }
}

impl Frontend {
    /// `10.96.0.10:80/TCP`
    pub(super) fn socket(&self) -> String {
        format!("{}/{}", socket(self.address, self.port), self.protocol)
    }

    fn new(key: &ServiceKey, service: &Service, name: &Name, flows: usize) -> Self {
        Self {
            namespace: name.namespace.clone(),
            name: name.service.clone(),
            port_name: name.port.clone(),
            kind: kind(service.kind),
            address: address(key),
            port: key.port,
            protocol: protocol(key.protocol),
            policy: word(
                TrafficPolicy::from_code(service.policy).map(TrafficPolicy::name),
                service.policy,
            ),
            algorithm: word(
                Algorithm::from_code(service.algorithm).map(Algorithm::name),
                service.algorithm,
            ),
            affinity_timeout: service.affinity_timeout,
            id: service.id,
            generation: service.generation,
            flows,
            endpoints: Vec::new(),
        }
    }
}

/// In the words of the API.
fn kind(code: u8) -> String {
    match FrontendKind::from_code(code) {
        Some(FrontendKind::ClusterIp) => "ClusterIP".to_owned(),
        Some(FrontendKind::ExternalIp) => "ExternalIP".to_owned(),
        known => word(known.map(FrontendKind::name), code),
    }
}

/// A node port has no address of its own: it is shown as the unspecified one of its family, as `ss` does.
fn address(key: &ServiceKey) -> IpAddr {
    if Scope::from_code(key.scope) == Some(Scope::NodePortV4) {
        return IpAddr::from([0; 4]);
    }
    key.address.into()
}

/// What people call a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: String,
}

impl Name {
    pub(super) fn of(row: &ServiceName) -> Self {
        Self {
            namespace: text(&row.namespace),
            service: text(&row.name),
            port: text(&row.port_name),
        }
    }

    /// For an id that has no name row: the maps are being changed, or are damaged.
    pub(super) fn unknown(id: u32) -> Self {
        Self {
            namespace: String::new(),
            service: format!("id-{id}"),
            port: String::new(),
        }
    }

    /// `namespace/name:port`
    pub(super) fn full(&self) -> String {
        let mut full = self.service.clone();
        if !self.namespace.is_empty() {
            full = format!("{}/{full}", self.namespace);
        }
        if !self.port.is_empty() {
            full = format!("{full}:{}", self.port);
        }
        full
    }
}

fn text(padded: &[u8]) -> String {
    let used = padded.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(used).into_owned()
}

/// Every frontend that `wanted` takes, with its endpoints, in the order of their names.
pub(super) fn frontends(maps: &Maps, wanted: impl Fn(&Name) -> bool) -> Result<Vec<Frontend>, MapError> {
    let names = names(maps)?;
    let flows = flows_by_service(maps)?;
    let mut frontends = Vec::new();
    for (key, service) in maps.services()? {
        let name = names
            .get(&service.id)
            .cloned()
            .unwrap_or_else(|| Name::unknown(service.id));
        if !wanted(&name) {
            continue;
        }
        let count = flows
            .get(&(service.id, key.address, key.port))
            .copied()
            .unwrap_or(0);
        let mut frontend = Frontend::new(&key, &service, &name, count);
        frontend.endpoints = endpoints(maps, &service)?;
        frontends.push(frontend);
    }
    frontends.sort_by_cached_key(|one| {
        let name = (one.namespace.clone(), one.name.clone(), one.port_name.clone());
        (
            name,
            one.kind.clone(),
            one.address,
            one.port,
            one.protocol.clone(),
        )
    });
    Ok(frontends)
}

/// The names of all service ids.
pub(super) fn names(maps: &Maps) -> Result<HashMap<u32, Name>, MapError> {
    Ok(maps
        .names()?
        .iter()
        .map(|(id, row)| (*id, Name::of(row)))
        .collect())
}

/// All endpoints of both ranges, each once.
fn endpoints(maps: &Maps, service: &Service) -> Result<Vec<Endpoint>, MapError> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut known = HashSet::new();
    for range in [service.cluster, service.local] {
        if inside(range, service.cluster) && !endpoints.is_empty() {
            continue;
        }
        for (slot, backend) in maps.backends(range)? {
            if known.insert(backend.id) {
                endpoints.push(Endpoint::new(slot, &backend, &maps.state(backend.id)?));
            }
        }
    }
    Ok(endpoints)
}

fn inside(inner: BackendRange, outer: BackendRange) -> bool {
    inner.base >= outer.base
        && inner.base.saturating_add(inner.count) <= outer.base.saturating_add(outer.count)
}

/// Flow rows by service id and frontend. A node port's flows have the address that the client used, so they are
/// counted for its key, which has none.
fn flows_by_service(maps: &Maps) -> Result<HashMap<(u32, Ip, u16), usize>, MapError> {
    let mut counts = HashMap::new();
    for chunk in maps.flows() {
        for (_, flow) in chunk? {
            if flow.direction == Direction::ToService.code() {
                for address in [flow.frontend, Ip::UNSPECIFIED] {
                    *counts
                        .entry((flow.service, address, flow.frontend_port))
                        .or_insert(0) += 1;
                }
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded<const N: usize>(word: &str) -> [u8; N] {
        let mut bytes = [0; N];
        bytes[..word.len()].copy_from_slice(word.as_bytes());
        bytes
    }

    #[test]
    fn names_are_those_of_the_objects() {
        let row = ServiceName {
            namespace: padded("shop"),
            name: padded("web"),
            port_name: padded("http"),
            generation: 3,
            protocol: 6,
            family: 4,
            reserved: 0,
        };
        assert_eq!(Name::of(&row).full(), "shop/web:http");
        assert_eq!(Name::unknown(7).full(), "id-7");
    }

    #[test]
    fn frontends_read_like_addresses() {
        let name = Name::unknown(1);
        let mut key = ServiceKey {
            address: Ip::v4([10, 96, 0, 10]),
            port: 80,
            protocol: 6,
            scope: Scope::Address.code(),
        };
        let service = Service {
            kind: FrontendKind::ClusterIp.code(),
            ..Service::default()
        };
        let shown = |key: &ServiceKey| Frontend::new(key, &service, &name, 0).socket();
        assert_eq!(shown(&key), "10.96.0.10:80/TCP");
        key.address = Ip::UNSPECIFIED;
        key.scope = Scope::NodePortV4.code();
        assert_eq!(shown(&key), "0.0.0.0:80/TCP");
        key.scope = Scope::NodePortV6.code();
        key.protocol = 17;
        assert_eq!(shown(&key), "[::]:80/UDP");
    }

    #[test]
    fn an_endpoint_of_another_generation_does_not_serve() {
        let backend = Backend {
            generation: 2,
            ..Backend::default()
        };
        let mut state = BackendState {
            chosen: 5,
            generation: 2,
            serving: 1,
        };
        assert!(Endpoint::new(0, &backend, &state).serving);
        state.generation = 3;
        assert!(!Endpoint::new(0, &backend, &state).serving);
    }
}
