//! A change that is none of an endpoint's leaves its flows alone: its backend keeps id and generation, and serves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proxy_model::{Change, Kind, Limits, Object, ObjectName, parse_address};
use serde_json::{Value, json};
use weir_scenario::{Driver, FakeKernel, Kernel};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

/// What the sources say: a node in a zone, a Service, and its slices.
#[derive(Clone)]
struct State {
    zone: &'static str,
    /// `None`: it is deleted.
    service: Option<Value>,
    /// Ports of the slice.
    ports: Value,
    endpoints: Vec<Value>,
    /// A second slice.
    more: Vec<Value>,
}

impl State {
    /// Two endpoints, without hints, behind a port of each protocol.
    fn first() -> Self {
        Self {
            zone: "zone-a",
            service: Some(spec(&["dns"], &json!({}))),
            ports: slice_ports("dns", 5353),
            endpoints: vec![endpoint(1, &json!({})), endpoint(2, &json!({}))],
            more: Vec::new(),
        }
    }

    fn tell(&self, driver: &mut Driver) {
        let zone = json!({"topology.kubernetes.io/zone": self.zone});
        driver.observe(Change::Put(object(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a", "labels": zone},
        }))));
        match &self.service {
            Some(spec) => driver.observe(Change::Put(object(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec,
            })))),
            None => driver.observe(Change::Delete(Kind::Service, ObjectName::new("default", "web"))),
        }
        for (name, endpoints) in [("web-1", &self.endpoints), ("web-2", &self.more)] {
            driver.observe(Change::Put(object(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
                "endpoints": endpoints, "ports": self.ports,
            }))));
        }
    }
}

const PROTOCOLS: [&str; 3] = ["UDP", "TCP", "SCTP"];

/// A Service whose ports 53, 54... have these names, with `more`.
fn spec(names: &[&str], more: &Value) -> Value {
    let ports: Vec<Value> = (53..)
        .zip(names)
        .flat_map(|(port, name)| {
            PROTOCOLS.map(|protocol| {
                json!({"name": format!("{name}-{}", protocol.to_lowercase()), "protocol": protocol,
                       "port": port, "nodePort": 30_000 + port})
            })
        })
        .collect();
    let mut spec = json!({"type": "NodePort", "clusterIP": "10.96.0.1", "ports": ports});
    let members = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(members);
    spec
}

fn slice_ports(name: &str, port: u16) -> Value {
    let port = |protocol: &str| json!({"name": format!("{name}-{}", protocol.to_lowercase()), "protocol": protocol, "port": port});
    PROTOCOLS.map(port).into_iter().collect()
}

/// An endpoint, with further members. Number 1 is here.
fn endpoint(number: u8, more: &Value) -> Value {
    let node = if number == 1 { "node-a" } else { "node-b" };
    let mut endpoint = json!({"addresses": [format!("10.0.0.{number}")], "nodeName": node});
    let members = more.as_object().unwrap().clone();
    endpoint.as_object_mut().unwrap().extend(members);
    endpoint
}

fn hints(zone: &str) -> Value {
    json!({"hints": {"forZones": [{"name": zone}]}})
}

/// An endpoint that is not ready, and `serving` or not.
fn unready(serving: bool, terminating: bool) -> Value {
    json!({"conditions": {"ready": false, "serving": serving, "terminating": terminating}})
}

/// Id and generation of every backend that serves, by protocol, address and port.
fn serving(kernel: &mut FakeKernel) -> BTreeMap<(u8, String), (u32, u32)> {
    let rows = kernel.rows().unwrap();
    let states: BTreeMap<u32, _> = rows.states.iter().copied().collect();
    let names: BTreeMap<u32, _> = rows.names.iter().copied().collect();
    let mut serving = BTreeMap::new();
    for (_, backend) in &rows.backends {
        let state = states.get(&backend.id).copied().unwrap_or_default();
        if state.serving == 1 && state.generation == backend.generation {
            let place = format!("{}:{}", backend.address, backend.port);
            let key = (names.get(&backend.service).unwrap().protocol, place);
            serving.insert(key, (backend.id, backend.generation));
        }
    }
    let count = rows.states.iter().filter(|(_, state)| state.serving == 1).count();
    assert_eq!(serving.len(), count, "each is found by its slot");
    serving
}

/// Who takes new connections at the ClusterIP's UDP port, by the policy for clients of the cluster.
fn taking(kernel: &mut FakeKernel) -> Vec<String> {
    let rows = kernel.rows().unwrap();
    let address = parse_address("10.96.0.1").unwrap();
    let of_udp = |(key, _): &&(proxy_common::ServiceKey, _)| (key.address, key.protocol) == (address, 17);
    let Some((_, row)) = rows.services.iter().find(of_udp) else {
        return Vec::new();
    };
    let slots = row.cluster.base..row.cluster.base + row.cluster.count;
    let backends = rows.backends.iter().filter(|(slot, _)| slots.contains(slot));
    backends.map(|(_, backend)| backend.address.to_string()).collect()
}

/// A change, and the addresses that take new connections after it.
type Row = (&'static str, fn(&mut State), &'static [&'static str]);

const BOTH: &[&str] = &["10.0.0.1", "10.0.0.2"];

/// None of these ends a flow.
const KEPT: [Row; 17] = [
    (
        "hints for the other",
        |state| state.endpoints = vec![endpoint(1, &hints("zone-a")), endpoint(2, &hints("zone-b"))],
        &["10.0.0.1"],
    ),
    ("the node moves", |state| state.zone = "zone-b", &["10.0.0.2"]),
    ("hints for nobody here", |state| state.zone = "zone-c", BOTH),
    ("no hints", |state| *state = State::first(), BOTH),
    (
        "policies",
        |state| {
            state.service = Some(spec(
                &["dns"],
                &json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}),
            ));
        },
        BOTH,
    ),
    (
        "hints and policies",
        |state| state.endpoints = vec![endpoint(1, &hints("zone-b")), endpoint(2, &hints("zone-a"))],
        &["10.0.0.2"],
    ),
    (
        "terminating",
        |state| state.endpoints = vec![endpoint(1, &json!({})), endpoint(2, &unready(true, true))],
        &["10.0.0.1"],
    ),
    (
        "not ready, but serving",
        |state| state.endpoints = vec![endpoint(1, &json!({})), endpoint(2, &unready(true, false))],
        &["10.0.0.1"],
    ),
    (
        "nobody ready, but serving",
        |state| {
            state.endpoints = vec![
                endpoint(1, &unready(true, false)),
                endpoint(2, &unready(true, false)),
            ];
        },
        &[],
    ),
    (
        "a copy that does not serve",
        |state| {
            state.endpoints = vec![endpoint(1, &json!({})), endpoint(2, &unready(false, false))];
            state.more = vec![endpoint(2, &unready(true, true))];
        },
        &["10.0.0.1"],
    ),
    (
        "another slice",
        |state| {
            state.endpoints = vec![endpoint(2, &json!({}))];
            state.more = vec![endpoint(1, &json!({}))];
        },
        BOTH,
    ),
    (
        "another name, first of the port",
        |state| state.service = Some(spec(&["domain"], &json!({}))),
        &[],
    ),
    (
        "and then in the slices",
        |state| state.ports = slice_ports("domain", 5353),
        BOTH,
    ),
    (
        "another number of the port",
        |state| {
            state.service = Some(spec(&["other", "domain"], &json!({})));
        },
        &[],
    ),
    ("the Service is gone", |state| state.service = None, &[]),
    (
        "the Service is there again, at another address",
        |state| {
            state.service = Some(spec(&["domain"], &json!({"clusterIP": "10.96.0.2"})));
        },
        &[],
    ),
    (
        "the Service is there again",
        |state| state.service = Some(spec(&["domain"], &json!({}))),
        BOTH,
    ),
];

/// A change that ends flows.
type Ending = (&'static str, fn(&mut State));

/// Each of these ends the flows of the second endpoint.
const ENDED: [Ending; 6] = [
    ("gone", |state| state.endpoints.truncate(1)),
    ("not serving", |state| {
        state.endpoints = vec![endpoint(1, &json!({})), endpoint(2, &unready(false, false))];
    }),
    ("terminating and not serving", |state| {
        state.endpoints = vec![endpoint(1, &json!({})), endpoint(2, &unready(false, true))];
    }),
    ("another port", |state| state.ports = slice_ports("dns", 5354)),
    ("with the Service", |state| {
        state.service = None;
        state.endpoints.clear();
    }),
    ("after the Service", |state| {
        state.service = None;
        state.endpoints.truncate(1);
    }),
];

/// A node where the first state has settled.
fn begin(kernel: &mut FakeKernel, state: &State) -> Driver {
    let mut driver = Driver::new(&Limits::default(), kernel).unwrap();
    driver.start(&[], &[]);
    state.tell(&mut driver);
    driver.settle(kernel).unwrap();
    driver
}

#[test]
fn flows_stay_while_the_endpoint_serves() {
    for restarts in [false, true] {
        let mut kernel = FakeKernel::new(Limits::default());
        let mut state = State::first();
        let mut driver = begin(&mut kernel, &state);
        let before = serving(&mut kernel);
        assert_eq!(before.len(), 6);
        for (what, change, takes) in KEPT {
            change(&mut state);
            state.tell(&mut driver);
            driver.settle(&mut kernel).unwrap();
            assert_eq!(serving(&mut kernel), before, "{what}");
            assert_eq!(taking(&mut kernel), takes, "{what}");
            driver.check_restart(&mut kernel).unwrap();
            if restarts {
                driver.crash(0, &mut kernel).unwrap();
                driver.settle(&mut kernel).unwrap();
                assert_eq!(serving(&mut kernel), before, "{what}, after a restart");
            }
            assert_eq!((&kernel.broken, &kernel.forbidden), (&vec![], &vec![]), "{what}");
        }
    }
}

#[test]
fn flows_end_with_the_endpoint() {
    for (what, change) in ENDED {
        let mut kernel = FakeKernel::new(Limits::default());
        let mut state = State::first();
        let mut driver = begin(&mut kernel, &state);
        let before = serving(&mut kernel);
        change(&mut state);
        state.tell(&mut driver);
        driver.settle(&mut kernel).unwrap();
        let after = serving(&mut kernel);
        let second = before
            .iter()
            .filter(|((_, place), _)| place.starts_with("10.0.0.2:"));
        for (place, id) in second {
            assert!(
                !after.values().any(|other| other == id),
                "{what}: {place:?} serves"
            );
        }
        driver.check_restart(&mut kernel).unwrap();
    }
}

/// What nobody had a flow with needs no id and no slot.
#[test]
fn endpoints_that_were_never_used_cost_nothing() {
    let mut kernel = FakeKernel::new(Limits::default());
    let mut state = State::first();
    state.endpoints = vec![
        endpoint(1, &hints("zone-a")),
        endpoint(2, &hints("zone-b")),
        endpoint(3, &unready(true, true)),
    ];
    begin(&mut kernel, &state);
    assert_eq!(serving(&mut kernel).len(), 3);
}
