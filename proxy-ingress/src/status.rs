//! Where clients connect, which is what the status of our Ingresses says: pure.
//!
//! ```text
//!  Service ──▶ its load balancer, else its external IPs, else its cluster IPs; an ExternalName's name
//!  addresses ─▶ as they are given
//!  nodes ────▶ EndpointSlices of weir-ingress's own Service ─▶ nodes of ready endpoints ─▶ ExternalIP, else InternalIP
//! ```
//!
//! Nodes are found by EndpointSlices because those are followed in any case: pods would be one more kind to list. What is
//! needed beside them is to list and watch Nodes.

use std::collections::{BTreeMap, BTreeSet};

use proxy_model::api::{ApiEndpointSlice, ApiNode, ApiService, Endpoint};
use proxy_model::{Change, IpOrHost, Kind, Object, ObjectName};

/// The label that says whose a slice is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Who says where clients connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StatusFrom {
    /// This Service.
    Service(ObjectName),
    /// Whoever started the process.
    Addresses(Vec<IpOrHost>),
    /// The nodes that ready endpoints of this Service, weir-ingress's own, run on: with host ports.
    Nodes(ObjectName),
}

impl StatusFrom {
    /// The kinds that it is found by. Only objects in the namespace of the Service are looked at.
    pub fn kinds(&self) -> &'static [Kind] {
        match self {
            Self::Service(_) => &[Kind::Service],
            Self::Addresses(_) => &[],
            Self::Nodes(_) => &[Kind::EndpointSlice, Kind::Node],
        }
    }
}

/// Finds them.
#[derive(Clone, Debug)]
pub struct Places {
    from: StatusFrom,
    service: Vec<IpOrHost>,
    /// By slice: the nodes of its ready endpoints.
    slices: BTreeMap<String, BTreeSet<String>>,
    nodes: BTreeMap<String, Vec<IpOrHost>>,
}

impl Places {
    /// Without an object.
    pub fn new(from: StatusFrom) -> Self {
        Self {
            from,
            service: Vec::new(),
            slices: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    /// Looks at what the source tells. Whether that may have moved them.
    pub fn hear(&mut self, change: &Change) -> bool {
        match change {
            Change::Put(object) => self.put(object),
            Change::Delete(kind, name) => self.delete(*kind, name),
            Change::Replace(kind, list) if self.from.kinds().contains(kind) => {
                match kind {
                    Kind::Service => self.service.clear(),
                    Kind::EndpointSlice => self.slices.clear(),
                    _ => self.nodes.clear(),
                }
                for object in list {
                    self.put(object);
                }
                true
            }
            _ => false,
        }
    }

    /// What the status is to say: each once, addresses before names. Empty: nobody knows yet.
    pub fn all(&self) -> Vec<IpOrHost> {
        let all: BTreeSet<IpOrHost> = match &self.from {
            StatusFrom::Service(_) => self.service.iter().cloned().collect(),
            StatusFrom::Addresses(list) => list.iter().cloned().collect(),
            StatusFrom::Nodes(_) => {
                let names: BTreeSet<&String> = self.slices.values().flatten().collect();
                let places = names.into_iter().filter_map(|name| self.nodes.get(name));
                places.flatten().cloned().collect()
            }
        };
        all.into_iter().collect()
    }

    fn put(&mut self, object: &Object) -> bool {
        match (&self.from, object) {
            (StatusFrom::Service(name), Object::Service(service)) if object.name() == *name => {
                self.service = of_service(service);
                true
            }
            (StatusFrom::Nodes(service), Object::EndpointSlice(slice)) => {
                let name = object.name();
                let ours = slice.metadata.label(SERVICE_NAME) == Some(&service.name)
                    && name.namespace == service.namespace;
                if !ours {
                    // Its label may have been another one.
                    return name.namespace == service.namespace && self.slices.remove(&name.name).is_some();
                }
                self.slices.insert(name.name, ready_nodes(slice));
                true
            }
            (StatusFrom::Nodes(_), Object::Node(node)) => {
                let (name, places) = (object.name().name, of_node(node));
                self.nodes.insert(name, places.clone()) != Some(places)
            }
            _ => false,
        }
    }

    fn delete(&mut self, kind: Kind, name: &ObjectName) -> bool {
        match (&self.from, kind) {
            (StatusFrom::Service(service), Kind::Service) if name == service => {
                self.service.clear();
                true
            }
            (StatusFrom::Nodes(service), Kind::EndpointSlice) if name.namespace == service.namespace => {
                self.slices.remove(&name.name).is_some()
            }
            (StatusFrom::Nodes(_), Kind::Node) => self.nodes.remove(&name.name).is_some(),
            _ => false,
        }
    }
}

fn of_service(service: &ApiService) -> Vec<IpOrHost> {
    let spec = service.spec.clone().unwrap_or_default();
    let kind = spec.kind.as_deref().unwrap_or("ClusterIP");
    if kind == "ExternalName" {
        return parsed(&spec.external_name);
    }
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let elements = balancer.and_then(|balancer| balancer.ingress.as_deref());
    let texts = elements.unwrap_or_default().iter();
    let texts = texts.map(|element| element.ip.as_ref().or(element.hostname.as_ref()));
    let places = if kind == "LoadBalancer" {
        parsed(texts.flatten())
    } else {
        Vec::new()
    };
    let external = parsed(spec.external_ips.iter().flatten());
    // A load balancer that is still to come has no other address.
    let own = match (kind, &spec.cluster_ips) {
        ("LoadBalancer", _) => Vec::new(),
        (_, Some(list)) => parsed(list),
        (_, None) => parsed(&spec.cluster_ip),
    };
    let all = [places, external, own];
    all.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
}

/// What makes no sense is left out; `None`, as headless Services have it, too.
fn parsed<'t>(texts: impl IntoIterator<Item = &'t String>) -> Vec<IpOrHost> {
    let texts = texts.into_iter().filter(|text| *text != "None");
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn ready_nodes(slice: &ApiEndpointSlice) -> BTreeSet<String> {
    let ready = |endpoint: &&Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let endpoints = slice.endpoints.iter().flatten().filter(ready);
    endpoints
        .filter_map(|endpoint| endpoint.node_name.clone())
        .collect()
}

fn of_node(node: &ApiNode) -> Vec<IpOrHost> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref());
    let of_kind = |kind: &str| {
        let addresses = addresses.unwrap_or_default().iter();
        let addresses = addresses.filter(|address| address.kind.as_deref() == Some(kind));
        parsed(addresses.filter_map(|address| address.address.as_ref()))
    };
    let outside = of_kind("ExternalIP");
    if outside.is_empty() {
        of_kind("InternalIP")
    } else {
        outside
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn own() -> ObjectName {
        ObjectName::new("edge", "weir-ingress")
    }

    fn object(kind: Kind, name: &str, mut fields: Value) -> Object {
        fields["apiVersion"] = kind.api_version().into();
        fields["kind"] = kind.to_string().into();
        fields["metadata"]["name"] = name.into();
        if kind != Kind::Node {
            fields["metadata"]["namespace"] = "edge".into();
        }
        let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Node];
        Object::read(fields, &kinds).unwrap().unwrap()
    }

    fn said(places: &Places) -> Vec<String> {
        places.all().iter().map(ToString::to_string).collect()
    }

    fn service(fields: Value) -> Change {
        Change::Put(object(Kind::Service, "weir-ingress", fields))
    }

    #[test]
    fn a_service_says_where_clients_connect() {
        let spec = |kind: &str, more: Value| {
            let mut spec =
                json!({"type": kind, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"]});
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            spec
        };
        let external = json!({"externalIPs": ["192.0.2.5", "nonsense!"]});
        let balancer = |list: Value| json!({"loadBalancer": {"ingress": list}});
        let both = balancer(
            json!([{"ip": "192.0.2.2", "ipMode": "Proxy"}, {"hostname": "lb.example.com"}, {"ip": "192.0.2.1"}]),
        );
        let table = [
            (
                spec("LoadBalancer", json!({})),
                both.clone(),
                "192.0.2.1 192.0.2.2 lb.example.com",
            ),
            (
                spec("LoadBalancer", external.clone()),
                both.clone(),
                "192.0.2.1 192.0.2.2 lb.example.com",
            ),
            (
                spec("LoadBalancer", external.clone()),
                balancer(json!([])),
                "192.0.2.5",
            ),
            // Still to come.
            (spec("LoadBalancer", json!({})), json!({}), ""),
            (spec("ClusterIP", json!({})), json!({}), "10.96.0.7 fd00::7"),
            (spec("ClusterIP", external.clone()), json!({}), "192.0.2.5"),
            // What a former type left there.
            (spec("NodePort", json!({})), both, "10.96.0.7 fd00::7"),
            (json!({"clusterIP": "10.96.0.7"}), json!({}), "10.96.0.7"),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None"]}),
                json!({}),
                "",
            ),
            (
                json!({"type": "ExternalName", "externalName": "Edge.example.com."}),
                json!({}),
                "edge.example.com",
            ),
            (
                json!({"type": "ExternalName", "externalName": "192.0.2.3"}),
                json!({}),
                "192.0.2.3",
            ),
        ];
        for (spec, status, expected) in table {
            let mut places = Places::new(StatusFrom::Service(own()));
            assert!(places.hear(&service(json!({"spec": spec, "status": status}))));
            assert_eq!(said(&places).join(" "), expected, "{spec} {status}");
        }
    }

    #[test]
    fn only_the_named_service_is_looked_at() {
        let mut places = Places::new(StatusFrom::Service(own()));
        let fields = json!({"spec": {"clusterIP": "10.96.0.7"}});
        assert!(!places.hear(&Change::Put(object(Kind::Service, "other", fields.clone()))));
        assert_eq!(said(&places), Vec::<String>::new());
        let list = vec![
            object(
                Kind::Service,
                "other",
                json!({"spec": {"clusterIP": "10.96.0.8"}}),
            ),
            object(Kind::Service, "weir-ingress", fields),
        ];
        assert!(places.hear(&Change::Replace(Kind::Service, list)));
        assert!(!places.hear(&Change::Replace(Kind::Ingress, vec![])));
        assert_eq!(said(&places), ["10.96.0.7"]);
        assert!(!places.hear(&Change::Delete(
            Kind::Service,
            ObjectName::new("shop", "weir-ingress")
        )));
        assert!(places.hear(&Change::Delete(Kind::Service, own())));
        assert_eq!(said(&places), Vec::<String>::new());
    }

    #[test]
    fn given_addresses_are_said_as_they_are() {
        let list = ["edge.example.com", "192.0.2.1", "192.0.2.1"];
        let list = list.iter().map(|text| text.parse().unwrap()).collect();
        let places = Places::new(StatusFrom::Addresses(list));
        assert_eq!(said(&places), ["192.0.2.1", "edge.example.com"]);
    }

    fn node(name: &str, addresses: &[(&str, &str)]) -> Change {
        let list: Vec<Value> = addresses
            .iter()
            .map(|(kind, address)| json!({"type": kind, "address": address}))
            .collect();
        Change::Put(object(Kind::Node, name, json!({"status": {"addresses": list}})))
    }

    fn slice(name: &str, service: &str, endpoints: &[(&str, Value)]) -> Change {
        let list: Vec<Value> = endpoints
            .iter()
            .map(|(node, ready)| json!({"addresses": ["10.0.0.1"], "nodeName": node, "conditions": {"ready": ready}}))
            .collect();
        let labels = json!({"kubernetes.io/service-name": service});
        let fields = json!({"metadata": {"labels": labels}, "addressType": "IPv4", "endpoints": list});
        Change::Put(object(Kind::EndpointSlice, name, fields))
    }

    #[test]
    fn nodes_are_those_of_ready_endpoints() {
        let mut places = Places::new(StatusFrom::Nodes(own()));
        for change in [
            node("n1", &[("InternalIP", "10.1.0.1"), ("Hostname", "n1")]),
            node(
                "n2",
                &[
                    ("InternalIP", "10.1.0.2"),
                    ("ExternalIP", "192.0.2.2"),
                    ("ExternalIP", "2001:db8::2"),
                ],
            ),
            node("n3", &[("InternalIP", "10.1.0.3")]),
            node("n4", &[("InternalIP", "10.1.0.4")]),
            slice("s1", "weir-ingress", &[("n1", json!(true)), ("n3", json!(false))]),
            slice(
                "s2",
                "weir-ingress",
                &[("n2", json!(null)), ("unknown", json!(true))],
            ),
            slice("s3", "web", &[("n4", json!(true))]),
        ] {
            places.hear(&change);
        }
        assert_eq!(said(&places), ["10.1.0.1", "192.0.2.2", "2001:db8::2"]);
        // Another slice's label is changed to ours and back.
        assert!(places.hear(&slice("s3", "weir-ingress", &[("n4", json!(true))])));
        assert_eq!(said(&places).len(), 4);
        assert!(places.hear(&slice("s3", "web", &[("n4", json!(true))])));
        assert!(places.hear(&Change::Delete(
            Kind::EndpointSlice,
            ObjectName::new("edge", "s2")
        )));
        assert_eq!(said(&places), ["10.1.0.1"]);
        assert!(places.hear(&Change::Delete(Kind::Node, ObjectName::new("", "n1"))));
        assert_eq!(said(&places), Vec::<String>::new());
        // A heartbeat is no news.
        assert!(!places.hear(&node("n3", &[("InternalIP", "10.1.0.3")])));
    }
}
