//! Objects of nonsense: whatever stands in one, it costs that object, and never its neighbours.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proxy_model::{Limits, Object};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use weir_scenario::{Driver, FakeKernel, Kernel as _};

const TRIES: u64 = 3_000;

/// Objects with every field that weir reads.
fn rich() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "rich", "namespace": "shop", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
                         "labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:10:96::1"],
                "externalIPs": ["198.51.100.1"], "loadBalancerSourceRanges": ["203.0.113.0/24"],
                "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
                "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"},
                          {"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}, {"hostname": "x"}]}}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "rich-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "rich"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "node-a", "hints": {"forZones": [{"name": "a"}]},
                           "conditions": {"ready": true, "serving": true, "terminating": false}},
                          {"addresses": ["10.0.1.1"], "nodeName": "node-b"}]}),
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "node-a", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "taints": [{"key": "x"}]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": ["10.96.0.0/16"]}}),
    ]
}

/// The neighbour.
fn good() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "good", "namespace": "home"},
            "spec": {"clusterIP": "10.96.0.200", "ports": [{"port": 80}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "good-1", "namespace": "home", "labels": {"kubernetes.io/service-name": "good"}},
            "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.0.0.9"], "nodeName": "node-a"}]}),
    ]
}

fn nonsense(random: &mut SmallRng) -> Value {
    let words = [
        "",
        " ",
        "None",
        "0",
        "-1",
        "65536",
        "TCP",
        "SCTP",
        "tcp",
        "Local",
        "IPv6",
        "FQDN",
        "::",
        "0.0.0.0",
        "::1",
        "127.0.0.1",
        "010.1.1.1",
        "::ffff:10.96.0.1",
        "169.254.169.254",
        "10.96.0.1",
        "192.0.2.1",
        "10.0.0.0/0",
        "10.0.0.0/33",
        "fe80::1%eth0",
        "ä",
        "\u{0}",
        "ExternalName",
        "NodePort",
        "9999-99-99T99:99:99Z",
    ];
    match random.random_range(0..9) {
        0 => Value::Null,
        1 => json!([]),
        2 => json!({}),
        3 => json!(random.random::<bool>()),
        4 => json!([-1, 0, 1, 65_535, 65_536, 86_401].choose(random)),
        5 => json!([i64::MIN, i64::MAX].choose(random)),
        6 => json!(1.5),
        7 => json!("x".repeat(5_000)),
        _ => json!(words.choose(random)),
    }
}

/// Puts nonsense somewhere, or takes something away, or says it twice.
fn damage(value: &mut Value, random: &mut SmallRng) {
    let deeper = random.random_range(0..4) > 0;
    match value {
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let at = random.random_range(0..fields.len());
            damage(fields.values_mut().nth(at).unwrap(), random);
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = random.random_range(0..list.len());
            if random.random_range(0..5) == 0 {
                list.push(list.get(at).unwrap().clone());
            }
            damage(list.get_mut(at).unwrap(), random);
        }
        other => *other = nonsense(random),
    }
}

fn read(values: &[Value]) -> Vec<Object> {
    // What cannot be read is a problem of the source's, which goes on.
    let objects = values.iter().map(|value| Object::from_value(value.clone()));
    objects.filter_map(|read| read.ok().flatten()).collect()
}

#[test]
fn n24_nonsense_costs_its_own_object_only() {
    for seed in 0..TRIES {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut values = rich();
        for _ in 0..random.random_range(1..=4) {
            let at = random.random_range(0..values.len());
            let value = values.get_mut(at).unwrap();
            damage(value, &mut random);
        }
        let mut kernel = FakeKernel::new(Limits::default());
        let mut driver = Driver::new(&Limits::default(), &mut kernel).unwrap();
        let mut objects = read(&good());
        // One time out of two they come later, as a change.
        let late = random.random::<bool>();
        objects.extend(read(if late { &[] } else { &values }));
        driver.start(&objects, &[proxy_model::parse_address("192.0.2.1").unwrap()]);
        driver
            .settle(&mut kernel)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}: {values:?}"));
        for object in read(if late { &values } else { &[] }) {
            driver.observe(proxy_model::Change::Put(object));
        }
        driver
            .settle(&mut kernel)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}: {values:?}"));
        let served = kernel.rows().unwrap().services.into_iter().find(|(key, _)| {
            key.address == proxy_model::parse_address("10.96.0.200").unwrap() && key.port == 80
        });
        let count = served.map(|(_, row)| row.cluster.count);
        // Its ClusterIP may be somebody's address by then; nothing here gives it to anybody.
        assert_eq!(
            count,
            Some(1),
            "seed {seed}: the neighbour is not served: {values:?}"
        );
        assert!(kernel.broken.is_empty(), "seed {seed}: {:?}", kernel.broken);
        let _problems = driver.problems();
    }
}
