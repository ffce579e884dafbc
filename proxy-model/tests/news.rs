//! What is told again is no news, and what only people see is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proxy_common::Ip;
use proxy_model::{Adopted, Change, Kind, LocalAddress, Model, Object, ObjectName, Options};
use serde_json::{Value, json};

fn put(value: Value) -> Change {
    Change::Put(Object::from_value(value).unwrap().unwrap())
}

fn service(ip: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "resourceVersion": version.to_string()},
        "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
    })
}

fn slice(address_type: &str, address: &str, version: u32) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": address_type,
        "metadata": {
            "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}, "resourceVersion": version.to_string(),
        },
        "endpoints": [{"addresses": [address]}], "ports": [{"port": 8080}],
    })
}

fn node(name: &str, zone: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "labels": {"topology.kubernetes.io/zone": zone}, "resourceVersion": version.to_string(),
        },
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "heartbeat": version},
    })
}

fn local(addresses: &[[u8; 4]]) -> Change {
    let address = |bytes: &[u8; 4]| LocalAddress {
        ip: Ip::v4(*bytes),
        interface: 2,
    };
    Change::LocalAddresses(addresses.iter().map(address).collect())
}

#[test]
fn only_what_is_different_is_news() {
    let mut model = Model::new(Options::new("n1".to_owned(), 0), Adopted::default());
    let all = || Kind::ALL.map(|kind| Change::Replace(kind, Vec::new()));
    let name = |name: &str| ObjectName::new("default", name);
    for list in all() {
        assert!(model.observe(list), "the first complete list");
    }
    for list in all() {
        assert!(!model.observe(list), "the same list again");
    }
    let story = [
        (true, local(&[])),
        (false, local(&[])),
        (true, local(&[[192, 0, 2, 1]])),
        (false, local(&[[192, 0, 2, 1]])),
        (true, put(service("10.96.0.1", 1))),
        (false, put(service("10.96.0.1", 2))),
        (true, put(service("10.96.0.2", 3))),
        (true, put(slice("IPv4", "10.0.0.1", 4))),
        (false, put(slice("IPv4", "10.0.0.1", 5))),
        // A slip in an endpoint is a problem to tell, and so is its end.
        (true, put(slice("IPv4", "10.0.0", 6))),
        (true, put(slice("IPv4", "10.0.0.1", 7))),
        (true, put(slice("IPv7", "10.0.0.1", 8))),
        (false, put(slice("IPv7", "10.0.0.1", 9))),
        (true, Change::Delete(Kind::EndpointSlice, name("web-1"))),
        (false, Change::Delete(Kind::EndpointSlice, name("web-1"))),
        // Nobody is served by it, and it is a problem all the same.
        (true, put(slice("IPv7", "10.0.0.1", 10))),
        (true, Change::Delete(Kind::EndpointSlice, name("web-1"))),
        (true, put(node("n1", "a", 10))),
        (false, put(node("n1", "a", 11))),
        (false, put(node("n2", "b", 12))),
        (true, put(node("n1", "b", 13))),
        (true, Change::Delete(Kind::Service, name("web"))),
        (false, Change::Delete(Kind::Service, name("web"))),
    ];
    for (number, (news, change)) in story.into_iter().enumerate() {
        let text = format!("change {number}: {change:?}");
        assert_eq!(model.observe(change), news, "{text}");
    }
}

#[test]
fn what_is_for_the_ingress_is_no_news_for_a_node() {
    let mut model = Model::new(Options::new("n1".to_owned(), 0), Adopted::default());
    for kind in [Kind::Ingress, Kind::IngressClass, Kind::Secret] {
        let value =
            json!({"apiVersion": kind.api_version(), "kind": kind.to_string(), "metadata": {"name": "web"}});
        let object = Object::read(value, &Kind::INGRESS).unwrap().unwrap();
        let name = object.name();
        assert!(
            !model.observe(Change::Replace(kind, vec![object.clone()])),
            "{kind}"
        );
        assert!(!model.observe(Change::Put(object)), "{kind}");
        assert!(!model.observe(Change::Delete(kind, name)), "{kind}");
    }
}
