//! The endpoints of a backend: where the pods of a Service's port are, and which of them may be used.
//!
//! Readiness is that of Services (`proxy_model::traffic`): those that are ready; if none is, those that serve while they
//! terminate. A pod of a Service with two families is in the slices of both, and is used once: by the family that comes
//! first in the Service, unless only the other one has an endpoint that is ready.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use proxy_common::{Ip, Protocol};
use proxy_model::Family;
use proxy_model::api::ApiEndpointSlice;
use proxy_model::slice::{self, Slice};
use proxy_model::traffic::Candidates;

use super::service::{Service, spoken};
use crate::route::{Endpoint, HealthCheck, UpstreamProtocol};

/// A slice, with the zones that the L4 model has no use for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptSlice {
    slice: Slice,
    zones: BTreeMap<Ip, Box<str>>,
}

/// What is known of a backend.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackendState {
    /// Those that may be used, sorted by address; none: 503.
    pub endpoints: Vec<Endpoint>,
    /// What they speak, by the port's `appProtocol`; it goes before the route's policy.
    pub protocol: Option<UpstreamProtocol>,
    /// How endpoints are asked how they are.
    pub check: Option<HealthCheck>,
}

impl KeptSlice {
    /// What the object says; `None` if it is nobody's, or has no addresses.
    pub fn read(object: &ApiEndpointSlice) -> Option<Self> {
        let slice = Slice::read_any(object, "")?;
        let zones = Slice::zones(object).map(|(ip, zone)| (ip, zone.into())).collect();
        Some(Self { slice, zones })
    }

    /// The Service that it is of, by name.
    pub fn service(&self) -> &str {
        &self.slice.service
    }

    /// What is wrong with it.
    pub fn problems(&self) -> &[String] {
        &self.slice.problems
    }
}

/// The state of one port of a Service.
pub fn backend(service: Option<&Service>, slices: &[&KeptSlice], port: &str) -> BackendState {
    let first = service.map_or(Family::V4, |service| service.family);
    let second = if first == Family::V4 {
        Family::V6
    } else {
        Family::V4
    };
    let of = |family| {
        usable(
            slices
                .iter()
                .copied()
                .filter(move |kept| kept.slice.family == family),
            port,
        )
    };
    let ready = |list: &[Endpoint]| list.iter().any(|endpoint| !endpoint.terminating);
    let mut endpoints = of(first);
    if !ready(&endpoints) {
        let others = of(second);
        if endpoints.is_empty() || ready(&others) {
            endpoints = others;
        }
    }
    let said = || {
        let mut ports = slices
            .iter()
            .flat_map(|kept| &kept.slice.ports)
            .filter(|known| known.name == port);
        ports.find_map(|port| spoken(port.app_protocol.as_deref()?))
    };
    BackendState {
        endpoints,
        protocol: service.and_then(|service| service.protocol(port)).or_else(said),
        check: None,
    }
}

fn usable<'a>(slices: impl Iterator<Item = &'a KeptSlice>, port: &str) -> Vec<Endpoint> {
    let mut candidates = Candidates::default();
    let mut zones = BTreeMap::new();
    let mut any_ready = false;
    for kept in slices {
        zones.extend(&kept.zones);
        let mut ports = kept.slice.ports.iter();
        let number = ports.find(|known| known.name == port && known.protocol == Protocol::Tcp);
        let Some(number) = number.map(|known| known.port) else {
            continue;
        };
        let endpoints: &'a [slice::Endpoint] = &kept.slice.endpoints;
        for endpoint in endpoints {
            any_ready |= endpoint.ready;
            candidates.add(endpoint, number);
        }
    }
    // No node is ours, so hints and local traffic mean nothing; what is left is readiness.
    let selected = candidates.select(None);
    let usable = selected.local_only + selected.both + selected.cluster_only;
    let mut endpoints: Vec<Endpoint> = selected
        .places
        .iter()
        .take(usable)
        .map(|usable| {
            let (ip, port) = usable.place;
            Endpoint {
                address: SocketAddr::new(IpAddr::from(ip), port),
                zone: zones.get(&ip).map(|zone| (*zone).clone()),
                terminating: !any_ready,
            }
        })
        .collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::needless_pass_by_value,
        reason = "what json! makes is handed in as it is"
    )]

    use serde_json::{Value, json};

    use super::*;

    fn slice(family: &str, ports: Value, endpoints: &[(&str, &str)]) -> KeptSlice {
        let endpoint = |(address, words): &(&str, &str)| {
            let has = |word: &str| words.split(' ').any(|other| other == word);
            let zone = words.split(' ').find(|word| word.starts_with("zone-"));
            let terminating = has("terminating");
            let ready = !terminating && !has("unready");
            json!({"addresses": [address], "zone": zone,
                   "conditions": {"ready": ready, "serving": ready || terminating, "terminating": terminating}})
        };
        let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
        let object = json!({"metadata": {"name": "x", "labels": {"kubernetes.io/service-name": "web"}},
                            "addressType": family, "ports": ports, "endpoints": endpoints});
        KeptSlice::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    fn http() -> Value {
        json!([{"name": "http", "port": 8080}])
    }

    fn said(service: Option<&Service>, slices: &[KeptSlice]) -> Vec<String> {
        let state = backend(service, &slices.iter().collect::<Vec<_>>(), "http");
        let endpoints = state.endpoints.iter();
        let one = |endpoint: &Endpoint| {
            let zone = endpoint
                .zone
                .as_deref()
                .map_or(String::new(), |zone| format!(" {zone}"));
            format!(
                "{}{zone}{}",
                endpoint.address,
                if endpoint.terminating { " terminating" } else { "" }
            )
        };
        endpoints.map(one).collect()
    }

    #[test]
    fn ready_endpoints_are_used() {
        let slices = [slice(
            "IPv4",
            http(),
            &[
                ("10.0.0.2", ""),
                ("10.0.0.1", "zone-a"),
                ("10.0.0.3", "unready"),
                ("10.0.0.4", "terminating"),
            ],
        )];
        assert_eq!(said(None, &slices), ["10.0.0.1:8080 zone-a", "10.0.0.2:8080"]);
    }

    #[test]
    fn if_none_is_ready_those_that_serve_while_they_terminate_are_used() {
        let slices = [slice(
            "IPv4",
            http(),
            &[("10.0.0.1", "terminating"), ("10.0.0.3", "unready")],
        )];
        assert_eq!(said(None, &slices), ["10.0.0.1:8080 terminating"]);
        let slices = [slice("IPv4", http(), &[("10.0.0.3", "unready")])];
        assert_eq!(said(None, &slices), Vec::<String>::new());
    }

    #[test]
    fn a_named_port_may_have_another_number_in_each_slice() {
        let other = json!([{"name": "admin", "port": 1}, {"name": "http", "port": 9090}]);
        let slices = [
            slice("IPv4", http(), &[("10.0.0.1", "")]),
            slice("IPv4", other, &[("10.0.0.2", "")]),
            slice("IPv4", json!([{"name": "admin", "port": 1}]), &[("10.0.0.3", "")]),
            slice(
                "IPv4",
                json!([{"name": "http", "port": 2, "protocol": "UDP"}]),
                &[("10.0.0.4", "")],
            ),
        ];
        assert_eq!(said(None, &slices), ["10.0.0.1:8080", "10.0.0.2:9090"]);
    }

    #[test]
    fn a_pod_in_two_slices_is_used_once() {
        let slices = [
            slice("IPv4", http(), &[("10.0.0.1", "unready")]),
            slice("IPv4", http(), &[("10.0.0.1", "zone-a")]),
        ];
        assert_eq!(said(None, &slices), ["10.0.0.1:8080 zone-a"]);
    }

    #[test]
    fn of_two_families_the_first_of_the_service_is_used() {
        let v4 = |words| slice("IPv4", http(), &[("10.0.0.1", words)]);
        let v6 = |words| slice("IPv6", http(), &[("fd00::1", words)]);
        let service = |families: Value| {
            Service::read(&serde_json::from_value(json!({"spec": {"ipFamilies": families}})).unwrap())
        };
        let (four, six) = (service(json!(["IPv4", "IPv6"])), service(json!(["IPv6", "IPv4"])));
        let table = [
            (&four, v4(""), v6(""), "10.0.0.1:8080"),
            (&six, v4(""), v6(""), "[fd00::1]:8080"),
            (&four, v4("unready"), v6(""), "[fd00::1]:8080"),
            (&four, v4("terminating"), v6(""), "[fd00::1]:8080"),
            (
                &four,
                v4("terminating"),
                v6("terminating"),
                "10.0.0.1:8080 terminating",
            ),
            (
                &six,
                v4("terminating"),
                v6("unready"),
                "10.0.0.1:8080 terminating",
            ),
        ];
        for (service, v4, v6, expected) in table {
            assert_eq!(said(Some(service), &[v4, v6]), [expected]);
        }
    }

    #[test]
    fn endpoints_of_a_headless_service_are_used() {
        let labels = json!({"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""});
        let object = json!({"metadata": {"name": "x", "labels": labels}, "addressType": "IPv4", "ports": http(),
                            "endpoints": [{"addresses": ["10.0.0.1"]}]});
        let slice = KeptSlice::read(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(said(None, &[slice]), ["10.0.0.1:8080"]);
    }

    #[test]
    fn addresses_of_the_node_itself_are_left_out() {
        let slices = [slice(
            "IPv4",
            http(),
            &[("127.0.0.1", ""), ("169.254.169.254", ""), ("10.0.0.1", "")],
        )];
        assert_eq!(said(None, &slices), ["10.0.0.1:8080"]);
        assert_eq!(slices[0].problems().len(), 2);
    }

    #[test]
    fn the_port_says_what_is_spoken_and_else_the_slice() {
        let ports = json!([{"name": "http", "port": 8080, "appProtocol": "kubernetes.io/h2c"}]);
        let slices = [slice("IPv4", ports, &[("10.0.0.1", "")])];
        assert_eq!(
            backend(None, &slices.iter().collect::<Vec<_>>(), "http").protocol,
            Some(UpstreamProtocol::H2c)
        );
        let ports = json!([{"name": "http", "port": 80, "appProtocol": "https"}]);
        let service = Service::read(&serde_json::from_value(json!({"spec": {"ports": ports}})).unwrap());
        assert_eq!(
            backend(Some(&service), &slices.iter().collect::<Vec<_>>(), "http").protocol,
            Some(UpstreamProtocol::Https)
        );
    }
}
