//! What is decided by what is known of the own node and of API servers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proxy_common::Ip;
use proxy_model::{
    Adopted, Change, Family, Kind, LocalAddress, Model, Object, ObjectName, Options, TrafficFrom,
};
use serde_json::{Value, json};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

fn node(name: &str, addresses: &Value) -> Object {
    object(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"addresses": addresses}}),
    )
}

fn service(name: &str, spec: &Value) -> Object {
    object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}))
}

const HERE: Ip = Ip::v4([192, 0, 2, 1]);

/// An agent that reads an API server, which lists the own Node only.
fn model(adopted: Adopted, api_servers: &[Ip]) -> Model {
    let options = Options {
        only_own_node: true,
        api_servers: api_servers.iter().copied().collect(),
        ..Options::new("n1", 7)
    };
    let mut model = Model::new(options, adopted);
    model.observe(Change::LocalAddresses(vec![LocalAddress {
        ip: HERE,
        interface: 2,
    }]));
    for kind in Kind::ALL {
        model.observe(Change::Replace(kind, Vec::new()));
    }
    model
}

fn settle(model: &mut Model, rows: &mut Adopted) {
    loop {
        let plan = model.plan(Duration::ZERO);
        if plan.is_empty() {
            return;
        }
        for step in plan {
            if let proxy_model::Step::PutAddress { address, row } = step {
                rows.addresses.retain(|(other, _)| *other != address);
                rows.addresses.push((address, row));
            }
            model.applied(&step);
        }
    }
}

/// Whether node ports are served at the address of this node.
fn serves(rows: &Adopted) -> Option<bool> {
    let row = rows.addresses.iter().find(|(address, _)| *address == HERE);
    row.map(|(_, row)| row.node_ports == 1)
}

#[test]
fn nobody_serves_node_ports_before_the_node_names_an_address() {
    let mut rows = Adopted::default();
    let mut agent = model(Adopted::default(), &[]);
    settle(&mut agent, &mut rows);
    assert_eq!(serves(&rows), Some(false), "no Node");
    agent.observe(Change::Put(node("n1", &json!([]))));
    settle(&mut agent, &mut rows);
    assert_eq!(serves(&rows), Some(false), "a Node without addresses");
    let address = json!([{"type": "InternalIP", "address": "192.0.2.1"}]);
    agent.observe(Change::Put(node("n1", &address)));
    settle(&mut agent, &mut rows);
    assert_eq!(serves(&rows), Some(true));
    agent.observe(Change::Delete(Kind::Node, ObjectName::new("", "n1")));
    settle(&mut agent, &mut rows);
    assert_eq!(serves(&rows), Some(true), "the Node is deleted");
    // Another agent does not know it, and leaves it as it is.
    let mut agent = model(rows.clone(), &[]);
    settle(&mut agent, &mut rows);
    assert_eq!(serves(&rows), Some(true), "after a restart");
}

#[test]
fn an_api_server_that_was_named_is_nobodys_external_ip() {
    let mut agent = model(Adopted::default(), &[Ip::v4([198, 51, 100, 7])]);
    let spec = json!({"clusterIP": "10.96.0.9", "externalIPs": ["198.51.100.7", "198.51.100.8"], "ports": [{"port": 443}]});
    agent.observe(Change::Put(service("thief", &spec)));
    settle(&mut agent, &mut Adopted::default());
    let problems: Vec<String> = agent.problems().iter().map(ToString::to_string).collect();
    let refused = problems.iter().filter(|what| what.contains("198.51.100"));
    assert_eq!(
        refused.collect::<Vec<_>>(),
        [
            "Service default/thief: externalIP 198.51.100.7 is an address of an API server: not served there; choose another"
        ]
    );
}

#[test]
fn what_a_local_policy_drops_is_counted() {
    let mut agent = model(Adopted::default(), &[]);
    let ports =
        json!([{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30081}]);
    let both = json!({"type": "NodePort", "clusterIPs": ["10.96.0.1", "fd00::1"], "ports": ports, "externalTrafficPolicy": "Local"});
    agent.observe(Change::Put(service("out", &both)));
    let local = json!({"clusterIP": "10.96.0.2", "internalTrafficPolicy": "Local", "ports": [{"name": "a", "port": 80}]});
    agent.observe(Change::Put(service("in", &local)));
    agent.observe(Change::Put(service(
        "empty",
        &json!({"clusterIP": "10.96.0.3", "internalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
    )));
    for (name, node) in [("out", "n2"), ("in", "n2")] {
        agent.observe(Change::Put(object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": node}],
            "ports": [{"name": "a", "port": 8080}, {"name": "b", "port": 8081}],
        }))));
    }
    settle(&mut agent, &mut Adopted::default());
    let counts: Vec<_> = agent.describe().without_local.into_iter().collect();
    assert_eq!(
        counts,
        [
            ((TrafficFrom::Cluster, Family::V4), 1),
            ((TrafficFrom::Outside, Family::V4), 2)
        ]
    );
}
