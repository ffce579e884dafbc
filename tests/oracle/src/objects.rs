//! A state as the API server is told it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::places::{Place, cluster_ip, external_ip, vip};
use crate::service::{Endpoint, Ingress, Kind, Port, Service, Slice};
use crate::state::State;

/// A kind of object that a state has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Resource {
    /// Node
    Node,
    /// Service
    Service,
    /// `EndpointSlice`
    Slice,
}

/// One of them.
pub type Key = (Resource, String);

/// An object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Objects of one name and different lives cannot become each other: the old one is deleted first.
    pub life: u64,
    /// Without the status.
    pub body: Value,
    /// Its status, which the API server takes apart from the rest.
    pub status: Option<Value>,
}

/// All objects of a state.
pub type Objects = BTreeMap<Key, Object>;

/// Everything but the marker.
pub fn objects(state: &State) -> Objects {
    let mut objects = Objects::new();
    for (number, zone) in [(1, state.zone), (2, "zone-b")] {
        let (name, object) = node(number, zone);
        objects.insert((Resource::Node, name), object);
    }
    for service in &state.services {
        objects.insert((Resource::Service, service.name.clone()), service_object(service));
        for (at, slice) in service.slices.iter().enumerate() {
            let family = if slice.v6 { "v6" } else { "v4" };
            let name = format!("{}-{family}-{at}", service.name);
            let body = slice_object(service, slice, &name);
            let object = Object {
                life: service.life,
                body,
                status: None,
            };
            objects.insert((Resource::Slice, name), object);
        }
    }
    objects
}

fn node(number: u8, zone: &str) -> (String, Object) {
    let place = if number == 1 { Place::N1 } else { Place::N2 };
    let name = place.name();
    let addresses = [false, true].map(|v6| json!({ "type": "InternalIP", "address": place.address(v6) }));
    let networks = [
        format!("10.244.{number}.0/24"),
        format!("fd00:10:244:{number}::/64"),
    ];
    let body = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone },
        },
        "spec": { "podCIDR": networks.first(), "podCIDRs": networks },
    });
    let status = json!({ "addresses": addresses });
    (
        name.to_owned(),
        Object {
            life: 0,
            body,
            status: Some(status),
        },
    )
}

fn labels(service: &Service) -> Fields {
    let mut labels = Map::new();
    if service.foreign {
        labels.insert(
            "service.kubernetes.io/service-proxy-name".to_owned(),
            json!("another"),
        );
    }
    labels
}

fn service_object(service: &Service) -> Object {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": service.name, "namespace": "default", "labels": labels(service) },
        "spec": spec(service),
    });
    let ingress: Vec<_> = service.ingress.iter().map(ingress).collect();
    let status = json!({ "loadBalancer": { "ingress": ingress } });
    let has_status = service.kind == Kind::LoadBalancer;
    Object {
        life: service.life,
        body,
        status: has_status.then_some(status),
    }
}

type Fields = Map<String, Value>;

fn set(fields: &mut Fields, name: &str, value: Value) {
    fields.insert(name.to_owned(), value);
}

fn spec(service: &Service) -> Fields {
    let spec = &mut Fields::new();
    let kind = match service.kind {
        Kind::ClusterIp | Kind::Headless => "ClusterIP",
        Kind::NodePort => "NodePort",
        Kind::LoadBalancer => "LoadBalancer",
        Kind::ExternalName => "ExternalName",
    };
    set(spec, "type", json!(kind));
    let ports = service.ports.iter().map(|port| port_object(service, port));
    set(spec, "ports", ports.collect());
    if !service.external_ips.is_empty() {
        let both = |&ip: &u8| [false, true].map(|v6| external_ip(v6, ip));
        let addresses: Vec<_> = service.external_ips.iter().flat_map(both).collect();
        set(spec, "externalIPs", json!(addresses));
    }
    if service.kind == Kind::ExternalName {
        set(spec, "externalName", json!("example.org"));
    } else {
        addresses(spec, service);
    }
    if service.has_cluster_ip() {
        policies(spec, service);
    }
    std::mem::take(spec)
}

fn addresses(spec: &mut Fields, service: &Service) {
    let families = service.families.list();
    let name = |&v6: &bool| if v6 { "IPv6" } else { "IPv4" };
    let names: Vec<_> = families.iter().map(name).collect();
    let policy = if names.len() > 1 {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    set(spec, "ipFamilyPolicy", json!(policy));
    set(spec, "ipFamilies", json!(names));
    let address = |&v6: &bool| cluster_ip(v6, service.slot, service.address).to_string();
    let addresses = match service.kind {
        Kind::Headless => vec!["None".to_owned()],
        _ => families.iter().map(address).collect(),
    };
    set(spec, "clusterIP", json!(addresses.first()));
    set(spec, "clusterIPs", json!(addresses));
    set(spec, "publishNotReadyAddresses", json!(service.publish_not_ready));
    set(spec, "trafficDistribution", json!(service.distribution));
}

fn policies(spec: &mut Fields, service: &Service) {
    let local = |local| json!(if local { "Local" } else { "Cluster" });
    set(spec, "internalTrafficPolicy", local(service.internal_local));
    if service.is_external() {
        set(spec, "externalTrafficPolicy", local(service.external_local));
    }
    if let Some(seconds) = service.affinity {
        set(spec, "sessionAffinity", json!("ClientIP"));
        let config = json!({ "clientIP": { "timeoutSeconds": seconds } });
        set(spec, "sessionAffinityConfig", config);
    }
    if service.kind == Kind::LoadBalancer {
        set(spec, "allocateLoadBalancerNodePorts", json!(service.node_ports));
        set(spec, "loadBalancerSourceRanges", json!(service.source_ranges));
    }
    if service.has_health_check() {
        let port = 30_090 + 100 * u16::from(service.slot);
        set(spec, "healthCheckNodePort", json!(port));
    }
}

fn port_object(service: &Service, port: &Port) -> Value {
    let protocol = protocol(port.udp);
    let mut object = json!({
        "name": port.name, "protocol": protocol, "port": port.number, "targetPort": port.target,
    });
    if let (true, Some(object)) = (service.has_node_ports(), object.as_object_mut()) {
        object.insert("nodePort".to_owned(), json!(port.node_port));
    }
    object
}

fn protocol(udp: bool) -> &'static str {
    if udp { "UDP" } else { "TCP" }
}

fn ingress(ingress: &Ingress) -> Value {
    let mut object = json!({ "ip": vip(ingress.v6, ingress.number) });
    if let (Some(mode), Some(object)) = (ingress.mode, object.as_object_mut()) {
        object.insert("ipMode".to_owned(), json!(mode));
    }
    object
}

fn slice_object(service: &Service, slice: &Slice, name: &str) -> Value {
    let mut labels = labels(service);
    labels.insert("kubernetes.io/service-name".to_owned(), json!(service.name));
    if service.kind == Kind::Headless {
        labels.insert("service.kubernetes.io/headless".to_owned(), json!(""));
    }
    let ports = slice
        .ports
        .iter()
        .map(|&(name, udp, number)| json!({ "name": name, "protocol": protocol(udp), "port": number }));
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "namespace": "default", "labels": labels },
        "addressType": if slice.v6 { "IPv6" } else { "IPv4" },
        "ports": ports.collect::<Value>(),
        "endpoints": slice.endpoints.iter().map(|endpoint| endpoint_object(endpoint, slice.v6)).collect::<Value>(),
    })
}

fn endpoint_object(endpoint: &Endpoint, v6: bool) -> Value {
    let places = [
        Some(endpoint.place),
        endpoint.second.filter(|second| *second != endpoint.place),
    ];
    let addresses: Vec<IpAddr> = places.iter().flatten().map(|place| place.address(v6)).collect();
    let mut object = json!({
        "addresses": addresses,
        "conditions": {
            "ready": endpoint.ready, "serving": endpoint.serving, "terminating": endpoint.terminating,
        },
    });
    let Some(fields) = object.as_object_mut() else {
        return object;
    };
    if endpoint.node {
        fields.insert(
            "nodeName".to_owned(),
            json!(format!("n{}", endpoint.place.node())),
        );
    }
    let mut hints = Map::new();
    for (field, names) in [("forZones", &endpoint.zones), ("forNodes", &endpoint.nodes)] {
        if !names.is_empty() {
            hints.insert(
                field.to_owned(),
                names.iter().map(|name| json!({ "name": name })).collect(),
            );
        }
    }
    if !hints.is_empty() {
        fields.insert("hints".to_owned(), hints.into());
    }
    object
}

/// The objects of a state, for people and for `kubectl apply`.
pub fn yaml(objects: &Objects) -> String {
    let mut text = String::new();
    for object in objects.values() {
        let mut body = object.body.clone();
        if let (Some(status), Some(fields)) = (&object.status, body.as_object_mut()) {
            fields.insert("status".to_owned(), status.clone());
        }
        text.push_str("---\n");
        // JSON is YAML.
        let plain = || format!("{body}\n");
        text.push_str(&serde_saphyr::to_string(&body).unwrap_or_else(|_| plain()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_objects() {
        let state = State::number(7);
        let objects = objects(&state);
        let count = |wanted| objects.keys().filter(|(resource, _)| *resource == wanted).count();
        assert_eq!(count(Resource::Node), 2);
        assert_eq!(count(Resource::Service), state.services.len());
        let slices: usize = state.services.iter().map(|service| service.slices.len()).sum();
        assert_eq!(count(Resource::Slice), slices);
        let text = yaml(&objects);
        assert_eq!(text.matches("---\n").count(), objects.len());
        assert!(text.contains("kind: EndpointSlice\n"), "{text}");
    }
}
