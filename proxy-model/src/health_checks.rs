//! Health check node ports: where load balancers ask whether this node has endpoints of a Service, and what they are told.
//!
//! Only Services of type `LoadBalancer` with `externalTrafficPolicy: Local` have one. What counts is the ready endpoints
//! on this node, each address once, whichever ports it has: a terminating one goes on serving, but the load balancer
//! shall send it nobody new (KEP-1669). Each family stands for itself, as kube-proxy has a proxier for each: a Service
//! without an IPv6 address is not asked for by IPv6.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxy_common::Ip;

use crate::address::Family;
use crate::object::{Kind, ObjectName};
use crate::objects::Objects;
use crate::problem::{Problem, Reason};

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HealthChecks {
    /// Where to listen; an unspecified address is all addresses of its family, and of no other.
    pub sockets: BTreeMap<SocketAddr, LocalEndpoints>,
    /// Services whose port another Service has.
    pub problems: Vec<Problem>,
}

/// What is told at one of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalEndpoints {
    /// Whose.
    pub service: ObjectName,
    /// How many of them are ready on this node.
    pub count: usize,
}

impl HealthChecks {
    /// From the objects as they are now.
    pub fn of(objects: &Objects) -> Self {
        let mut asked: Vec<_> = objects
            .services()
            .filter_map(|(name, service)| Some((service.created, name, service.health_check?, service)))
            .collect();
        // The oldest wins a port, as it wins a frontend.
        asked.sort_unstable_by_key(|(created, name, ..)| (*created, *name));
        let places = [Family::V4, Family::V6].map(|family| (family, places(objects, family)));
        let mut winners: BTreeMap<u16, &ObjectName> = BTreeMap::new();
        let mut checks = Self::default();
        for (_, name, port, service) in asked {
            let winner = *winners.entry(port).or_insert(name);
            if winner != name {
                checks.problems.push(taken(name, port, winner));
                continue;
            }
            for (family, places) in &places {
                if !service.cluster_ips.iter().any(|ip| Family::of(*ip) == *family) {
                    continue;
                }
                let told = LocalEndpoints {
                    service: name.clone(),
                    count: count(objects, name, *family),
                };
                let sockets = places.iter().map(|ip| SocketAddr::new(*ip, port));
                checks
                    .sockets
                    .extend(sockets.map(|socket| (socket, told.clone())));
            }
        }
        checks
    }
}

fn taken(name: &ObjectName, port: u16, winner: &ObjectName) -> Problem {
    let what = format!(
        "healthCheckNodePort {port} belongs to Service {winner}, which comes first: not answered for this one until \
         that one gives it up"
    );
    Problem::new(Kind::Service, name, what).because(Reason::FailedToStartServiceHealthcheck)
}

/// The addresses that serve node ports; one that stands for all, where all do.
fn places(objects: &Objects, family: Family) -> Vec<IpAddr> {
    if objects.serves_node_ports_everywhere(family) {
        return vec![match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }];
    }
    let local = objects.local().into_iter().flatten().copied();
    local
        .filter(|ip| Family::of(*ip) == family && objects.serves_node_ports(*ip) == Some(true))
        .map(IpAddr::from)
        .collect()
}

fn count(objects: &Objects, service: &ObjectName, family: Family) -> usize {
    let slices = objects.slices(service);
    let slices = slices.filter(|slice| slice.family == family && !slice.ports.is_empty());
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let here = endpoints.filter(|endpoint| endpoint.ready && endpoint.local);
    here.map(|endpoint| endpoint.address)
        .collect::<BTreeSet<Ip>>()
        .len()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Adopted, Change, LocalAddress, Model, NodePortAddresses, Object, Options};

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap().unwrap()
    }

    /// A Service with the port 30999, unless the fields say otherwise.
    fn service(name: &str, fields: &Value) -> Object {
        let mut spec = json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30999,
            "clusterIP": "10.96.0.1", "ports": [{"port": 80}],
        });
        for (field, value) in fields.as_object().unwrap() {
            spec[field] = value.clone();
        }
        object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}))
    }

    fn slice(name: &str, family: &str, endpoints: &Value, ports: &Value) -> Object {
        object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": endpoints, "ports": ports,
        }))
    }

    fn endpoint(address: &str, node: &str, conditions: &Value) -> Value {
        json!({"addresses": [address], "nodeName": node, "conditions": conditions})
    }

    fn checks(services: Vec<Object>, slices: Vec<Object>) -> HealthChecks {
        checks_at(&["0.0.0.0/0"], services, slices)
    }

    fn checks_at(ranges: &[&str], services: Vec<Object>, slices: Vec<Object>) -> HealthChecks {
        let options = Options {
            node_port_addresses: NodePortAddresses::parse(ranges).unwrap(),
            ..Options::new("n1", 7)
        };
        let mut model = Model::new(options, Adopted::default());
        let local = ["192.0.2.1", "198.51.100.1", "fd00::1"].map(|address| LocalAddress {
            ip: crate::parse_address(address).unwrap(),
            interface: 2,
        });
        model.observe(Change::LocalAddresses(local.to_vec()));
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
                          "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
        model.observe(Change::Replace(Kind::Node, vec![object(node)]));
        model.observe(Change::Replace(Kind::Service, services));
        assert_eq!(model.health_checks(), None, "nobody knows yet of endpoints");
        model.observe(Change::Replace(Kind::EndpointSlice, slices));
        model.health_checks().unwrap()
    }

    /// `socket count` of each.
    fn told(checks: &HealthChecks) -> Vec<String> {
        let sockets = checks.sockets.iter();
        sockets
            .map(|(socket, told)| format!("{socket} {} {}", told.service.name, told.count))
            .collect()
    }

    #[test]
    fn ready_endpoints_here_count_once() {
        let (http, both) = (
            json!([{"port": 80}]),
            json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]),
        );
        let ready = endpoint("10.0.0.1", "n1", &json!({"ready": true}));
        let table = [
            ("none", json!([]), http.clone(), 0),
            ("one", json!([ready]), http.clone(), 1),
            (
                "without conditions",
                json!([endpoint("10.0.0.1", "n1", &json!({}))]),
                http.clone(),
                1,
            ),
            ("at two ports", json!([ready]), both, 1),
            ("twice", json!([ready, ready]), http.clone(), 1),
            ("no port that a Service could name", json!([ready]), json!([]), 0),
            (
                "elsewhere",
                json!([endpoint("10.0.0.1", "n2", &json!({"ready": true}))]),
                http.clone(),
                0,
            ),
            (
                "terminating",
                json!([endpoint(
                    "10.0.0.1",
                    "n1",
                    &json!({"ready": false, "serving": true, "terminating": true})
                )]),
                http.clone(),
                0,
            ),
            (
                "some of each",
                json!([
                    ready,
                    endpoint("10.0.0.2", "n1", &json!({"ready": true})),
                    endpoint("10.0.0.3", "n1", &json!({"ready": false})),
                    endpoint("10.0.0.4", "n2", &json!({"ready": true})),
                ]),
                http,
                2,
            ),
        ];
        for (what, endpoints, ports, expected) in table {
            let slices = vec![slice("web-1", "IPv4", &endpoints, &ports)];
            let checks = checks(vec![service("web", &json!({}))], slices);
            assert_eq!(told(&checks), [format!("0.0.0.0:30999 web {expected}")], "{what}");
        }
        let port = json!([{"port": 80}]);
        let slices = ["web-1", "web-2"].map(|name| slice(name, "IPv4", &json!([ready]), &port));
        let checks = checks(vec![service("web", &json!({}))], slices.to_vec());
        assert_eq!(told(&checks), ["0.0.0.0:30999 web 1"], "in two slices");
    }

    #[test]
    fn each_family_tells_of_its_own() {
        let ready = |address| endpoint(address, "n1", &json!({"ready": true}));
        let port = json!([{"port": 80}]);
        let slices = vec![
            slice("web-4", "IPv4", &json!([ready("10.0.0.1")]), &port),
            slice(
                "web-6",
                "IPv6",
                &json!([ready("fd01::1"), ready("fd01::2")]),
                &port,
            ),
        ];
        let dual = service("web", &json!({"clusterIPs": ["10.96.0.1", "fd96::1"]}));
        let found = told(&checks_at(&["0.0.0.0/0", "::/0"], vec![dual], slices.clone()));
        assert_eq!(found, ["0.0.0.0:30999 web 1", "[::]:30999 web 2"]);
        let only_v6 = service("web", &json!({"clusterIP": "fd96::1"}));
        assert_eq!(told(&checks(vec![only_v6], slices)), ["[::]:30999 web 2"]);
    }

    #[test]
    fn they_are_answered_where_node_ports_are_served() {
        let dual = || vec![service("web", &json!({"clusterIPs": ["10.96.0.1", "fd96::1"]}))];
        let none: [&str; 0] = [];
        for (ranges, expected) in [
            (&none[..], vec!["192.0.2.1:30999 web 0"]),
            (&["primary"], vec!["192.0.2.1:30999 web 0"]),
            (
                &["198.51.100.0/24"],
                vec!["198.51.100.1:30999 web 0", "[::]:30999 web 0"],
            ),
            (&["203.0.113.0/24", "fd00::/8"], vec!["[fd00::1]:30999 web 0"]),
            (
                &["198.51.100.0/24", "0.0.0.0/0", "::/0"],
                vec!["0.0.0.0:30999 web 0", "[::]:30999 web 0"],
            ),
        ] {
            assert_eq!(
                told(&checks_at(ranges, dual(), Vec::new())),
                expected,
                "{ranges:?}"
            );
        }
    }

    #[test]
    fn only_services_that_keep_their_clients_addresses_have_one() {
        for (fields, asked) in [
            (json!({}), true),
            (json!({"externalTrafficPolicy": "Cluster"}), false),
            (json!({"type": "NodePort"}), false),
            (json!({"healthCheckNodePort": 0}), false),
            (json!({"healthCheckNodePort": null}), false),
            (json!({"healthCheckNodePort": 70000}), false),
            (json!({"clusterIP": "None"}), false),
            (json!({"internalTrafficPolicy": "Local"}), true),
        ] {
            let found = checks(vec![service("web", &fields)], Vec::new());
            assert_eq!(!found.sockets.is_empty(), asked, "{fields}");
        }
    }

    #[test]
    fn of_two_services_with_one_port_the_first_has_it() {
        let found = checks(
            vec![service("b", &json!({})), service("a", &json!({}))],
            Vec::new(),
        );
        assert_eq!(told(&found), ["0.0.0.0:30999 a 0"]);
        let [problem] = &found.problems[..] else {
            panic!("{:?}", found.problems)
        };
        assert_eq!(problem.reason.name(), "FailedToStartServiceHealthcheck");
        let line = problem.to_string();
        assert!(
            line.starts_with("Service default/b: healthCheckNodePort 30999 belongs to Service default/a"),
            "{line}"
        );
    }
}
