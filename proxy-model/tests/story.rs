//! Any story of changes, failures, crashes and restarts: what must hold at every step, and at its end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use proxy_common::Backend;
use proxy_model::{Adopted, Change, Kind, Limits, Object, ObjectName, parse_address};
use serde_json::{Value, json};
use weir_scenario::driver::local_addresses;
use weir_scenario::{Driver, FakeKernel, Kernel, render};

/// One event of a story.
#[expect(clippy::large_enum_variant, reason = "stories are short")]
#[derive(Clone, Debug)]
enum Event {
    Change(Change),
    Settle,
    Rush,
    Crash(usize),
    Restart,
    Wait(u64),
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

fn service() -> impl Strategy<Value = Object> {
    let address = || {
        select(vec![
            "10.96.0.1",
            "10.96.0.2",
            "10.96.0.3",
            "fd00:96::1",
            "None",
            "127.0.0.1",
            "x",
        ])
    };
    let port = (
        select(vec!["", "http", "admin"]),
        select(vec!["TCP", "UDP", "SCTP"]),
        78..82_i64,
        0..3_i64,
    );
    (
        select(vec!["a", "b", "c", "d"]),
        prop::collection::vec(address(), 0..3),
        prop::collection::vec(port, 0..4),
        select(vec!["ClusterIP", "NodePort", "NodePort", "ExternalName"]),
        select(vec!["Cluster", "Local"]),
        select(vec!["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"]),
    )
        .prop_map(|(name, addresses, ports, kind, policy, created)| {
            let ports: Vec<Value> = ports
                .into_iter()
                .map(|(name, protocol, port, node_port)| {
                    let node_port = if node_port == 0 { 0 } else { 30_000 + node_port };
                    json!({"name": name, "protocol": protocol, "port": port - 78, "nodePort": node_port})
                })
                .collect();
            object(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "creationTimestamp": created},
                "spec": {"type": kind, "clusterIPs": addresses, "ports": ports,
                         "externalTrafficPolicy": policy, "internalTrafficPolicy": policy},
            }))
        })
}

fn endpoint() -> impl Strategy<Value = Value> {
    let flag = || select(vec![None, Some(true), Some(true), Some(false)]);
    let hints = select(vec![
        json!(null),
        json!({"forZones": [{"name": "zone-a"}]}),
        json!({"forZones": [{"name": "zone-b"}], "forNodes": [{"name": "node-a"}]}),
    ]);
    (
        1..7_u8,
        any::<bool>(),
        flag(),
        flag(),
        flag(),
        hints,
        any::<bool>(),
    )
        .prop_map(|(host, here, ready, serving, terminating, hints, v6)| {
            let address = if v6 {
                format!("fd00:10::{host}")
            } else {
                format!("10.0.0.{host}")
            };
            json!({
                "addresses": [address], "nodeName": if here { "node-a" } else { "node-b" }, "hints": hints,
                "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            })
        })
}

fn slice() -> impl Strategy<Value = Object> {
    (
        select(vec!["s1", "s2", "s3", "s4", "s5", "s6"]),
        select(vec!["a", "a", "b", "c", "d", "nobody"]),
        prop::collection::vec(endpoint(), 0..7),
        select(vec!["IPv4", "IPv4", "IPv6", "FQDN"]),
        8080..8082_i64,
    )
        .prop_map(|(name, owner, endpoints, family, port)| {
            object(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": owner}},
                "endpoints": endpoints,
                "ports": [{"name": "", "port": port}, {"name": "http", "port": port + 10},
                          {"name": "admin", "port": port, "protocol": "UDP"}],
            }))
        })
}

fn node() -> impl Strategy<Value = Object> {
    (select(vec!["zone-a", "zone-b"]), any::<bool>()).prop_map(|(zone, addresses)| {
        let addresses = if addresses {
            json!([{"type": "InternalIP", "address": "192.0.2.1"}])
        } else {
            json!([])
        };
        object(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "node-a", "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"addresses": addresses},
        }))
    })
}

fn change() -> impl Strategy<Value = Change> {
    let services = prop::collection::vec(service(), 0..4);
    let slices = prop::collection::vec(slice(), 0..6);
    let local = || {
        prop::collection::vec(
            select(vec!["192.0.2.1", "192.0.2.9", "10.96.0.3", "2001:db8::1"]),
            0..4,
        )
    };
    let addresses = |list: Vec<&str>| {
        list.into_iter()
            .map(|text| parse_address(text).unwrap())
            .collect::<Vec<_>>()
    };
    let name = |name: &str| ObjectName::new("default", name);
    prop_oneof![
        6 => service().prop_map(Change::Put),
        8 => slice().prop_map(Change::Put),
        1 => node().prop_map(Change::Put),
        2 => select(vec!["a", "b", "c", "d"]).prop_map(move |which| Change::Delete(Kind::Service, name(which))),
        2 => select(vec!["s1", "s2", "s3"]).prop_map(move |which| Change::Delete(Kind::EndpointSlice, name(which))),
        1 => services.prop_map(|list| Change::Replace(Kind::Service, list)),
        1 => slices.prop_map(|list| Change::Replace(Kind::EndpointSlice, list)),
        1 => local().prop_map(move |list| Change::LocalAddresses(local_addresses(&addresses(list)))),
        1 => select(vec!["10.96.0.1", "10.96.0.2"])
            .prop_flat_map(|used| (Just(used), 0..20_000_u64))
            .prop_map(|(used, began)| Change::FrontendsInUse {
                began: Duration::from_millis(began),
                frontends: [parse_address(used).unwrap()].into(),
            }),
    ]
}

fn story() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => change().prop_map(Event::Change),
        2 => Just(Event::Settle),
        4 => Just(Event::Rush),
        2 => (0..40_usize).prop_map(Event::Crash),
        1 => Just(Event::Restart),
        1 => (0..2000_u64).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 1..40)
}

/// Tells a story and checks the promises of every step; returns what is there when all is quiet.
fn tell(story: &[Event], limits: Limits, one_in: u64) -> (Driver, FakeKernel) {
    let mut kernel = FakeKernel::new(limits);
    kernel.one_in = one_in;
    let mut driver = Driver::new(&limits, &mut kernel).unwrap();
    driver.start(&[], &[]);
    for event in story {
        match event {
            Event::Change(change) => driver.observe(change.clone()),
            Event::Settle => driver.settle(&mut kernel).unwrap(),
            Event::Rush => driver.rush(&mut kernel).unwrap(),
            Event::Crash(steps) => driver.crash(*steps, &mut kernel).unwrap(),
            Event::Restart => driver.crash(0, &mut kernel).unwrap(),
            Event::Wait(milliseconds) => driver.wait(Duration::from_millis(*milliseconds)),
        }
        assert_eq!((&kernel.broken, &kernel.forbidden), (&vec![], &vec![]));
    }
    kernel.one_in = 0;
    // Failures end, retries come round, retired addresses are forgotten.
    for _ in 0..2 {
        driver.wait(Duration::from_secs(60));
        driver.settle(&mut kernel).unwrap();
        driver.walk([].into());
    }
    assert_eq!((&kernel.broken, &kernel.forbidden), (&vec![], &vec![]));
    (driver, kernel)
}

/// What a new node with the final objects has.
fn fresh(driver: &Driver, limits: Limits) -> String {
    let mut kernel = FakeKernel::new(limits);
    let mut other = Driver::new(&limits, &mut kernel).unwrap();
    for change in driver.everything() {
        other.observe(change);
    }
    other.settle(&mut kernel).unwrap();
    render::rows(&kernel.rows().unwrap())
}

/// Without the line that says how many ids there are: backends that serve keep theirs for the flows that they may have, and a
/// new node has none.
fn without_counts(rows: &str) -> &str {
    rows.rsplit_once("ids:").map_or(rows, |(rows, _)| rows)
}

/// Backends in service for which no slice of their Service has an endpoint that is ready or serves.
fn deserted(rows: &Adopted, told: &[Change]) -> Vec<String> {
    let lists = told.iter().map(|change| match change {
        Change::Replace(Kind::EndpointSlice, list) => list.as_slice(),
        _ => &[],
    });
    let mut places = BTreeSet::new();
    for object in lists.flatten() {
        let Object::EndpointSlice(slice) = object else {
            continue;
        };
        let service = slice
            .metadata
            .label("kubernetes.io/service-name")
            .unwrap_or_default();
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let addresses = endpoint.addresses.iter().flatten();
            if conditions.ready != Some(false) || conditions.serving != Some(false) {
                places.extend(addresses.map(|address| (service.to_owned(), parse_address(address))));
            }
        }
    }
    let names: BTreeMap<u32, _> = rows.names.iter().copied().collect();
    let states: BTreeMap<u32, _> = rows.states.iter().copied().collect();
    let serves = |row: &Backend| {
        states
            .get(&row.id)
            .is_some_and(|state| (state.serving, state.generation) == (1, row.generation))
    };
    let mut deserted = Vec::new();
    for (slot, row) in rows.backends.iter().filter(|(_, row)| serves(row)) {
        let name = names
            .get(&row.service)
            .map(|name| &name.name[..])
            .unwrap_or_default();
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        if !places.contains(&(name.clone(), Some(row.address))) {
            deserted.push(format!("{name} {} in slot {slot}", row.address));
        }
    }
    deserted
}

#[test]
fn slots_rest_for_a_while_before_they_are_written_again() {
    let slice = |hosts: std::ops::Range<u8>| {
        let endpoints: Vec<Value> = hosts
            .map(|host| json!({"addresses": [format!("10.0.0.{host}")]}))
            .collect();
        object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": endpoints, "ports": [{"port": 8080}],
        }))
    };
    let service = object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    }));
    let mut kernel = FakeKernel::new(Limits::default());
    let mut driver = Driver::new(&Limits::default(), &mut kernel).unwrap();
    driver.start(&[service], &[]);
    for round in 0..5 {
        driver.observe(Change::Put(slice(round..round + 3)));
        driver.rush(&mut kernel).unwrap();
    }
    let highest = |kernel: &mut FakeKernel| {
        kernel
            .rows()
            .unwrap()
            .backends
            .iter()
            .map(|(slot, _)| *slot)
            .max()
    };
    assert_eq!(highest(&mut kernel), Some(14), "five slabs of three in no time");
    driver.wait(Duration::from_secs(1));
    driver.observe(Change::Put(slice(9..12)));
    driver.rush(&mut kernel).unwrap();
    assert_eq!(highest(&mut kernel), Some(14), "the first ones again");
}

proptest! {
    #[test]
    fn every_story_ends_as_a_fresh_start_with_its_last_objects(story in story(), one_in in select(vec![0, 10, 3])) {
        let limits = Limits::default();
        let (driver, mut kernel) = tell(&story, limits, one_in);
        let rows = kernel.rows().unwrap();
        let (told, fresh) = (render::rows(&rows), fresh(&driver, limits));
        prop_assert_eq!(without_counts(&told), without_counts(&fresh));
        prop_assert_eq!(deserted(&rows, &driver.everything()), Vec::<String>::new());
        driver.check_restart(&mut kernel).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn full_maps_never_break_a_promise(story in story(), size in 2..12_usize) {
        let limits = Limits { addresses: size, services: size, backends: size, backend_states: size, service_ids: size };
        let (driver, mut kernel) = tell(&story, limits, 10);
        let lost = driver.check_restart(&mut kernel);
        prop_assert!(lost.is_ok() || driver.model.describe().problems > 0, "{lost:?}");
    }
}
