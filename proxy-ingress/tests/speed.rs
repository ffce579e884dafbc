//! How long look-ups and changes take with many hosts. `cargo test --release -p proxy-ingress --test speed -- --nocapture`
//! prints it; an ordinary run only shows that the answers are right.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement: it needs the clock"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method};
use proxy_ingress::model::class::CONTROLLER;
use proxy_ingress::model::{Model, Options};
use proxy_ingress::route::{
    Action, Asked, HostMatch, Origin, PathMatch, Policy, Route, Table, WildcardDepth, host, path,
};
use proxy_model::{Kind, Object, ObjectName};
use serde_json::json;

const HOSTS: u32 = 5_000;

fn route(number: u32, host: HostMatch, path: &str) -> Route {
    Route {
        origin: Origin {
            created: 0,
            object: ObjectName::new("shop", format!("ingress-{number}")),
            rule: 0,
            entry: 0,
        },
        host,
        path: PathMatch::Prefix(path.into()),
        predicates: Vec::new(),
        filters: Vec::new(),
        action: Action::Forward(Vec::new()),
        policy: Arc::new(Policy::default()),
    }
}

fn name(number: u32) -> String {
    format!("shop-{number}.apps.example.com")
}

/// Three paths a host, and a wildcard.
fn routes() -> Vec<Route> {
    let wildcard = HostMatch::Wildcard {
        suffix: "apps.example.com".into(),
        depth: WildcardDepth::One,
    };
    let mut routes = vec![route(HOSTS, wildcard, "/")];
    for number in 0..HOSTS {
        for path in ["/", "/api/v1", "/api/v1/cart"] {
            routes.push(route(number, HostMatch::Exact(name(number).into()), path));
        }
    }
    routes
}

fn timed(what: &str, times: u32, mut work: impl FnMut(u32)) {
    let start = Instant::now();
    for number in 0..times {
        work(number);
    }
    println!("{what}: {:?}", start.elapsed() / times);
}

/// An Ingress with its own host and Service.
fn ingress(number: u32, path: &str) -> Object {
    let backend = json!({"service": {"name": format!("web-{number}"), "port": {"number": 80}}});
    let paths = json!([{"path": path, "pathType": "Prefix", "backend": backend}]);
    object(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": format!("ingress-{number}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"ingressClassName": "weir", "rules": [{"host": name(number), "http": {"paths": paths}}],
                 "tls": [{"hosts": [name(number)], "secretName": format!("cert-{number}")}]},
    }))
}

fn service(number: u32) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("web-{number}")},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }))
}

fn slice(number: u32, address: &str) -> Object {
    let name = format!("web-{number}");
    object(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": [address]}, {"addresses": ["10.0.0.2"]}],
    }))
}

fn object(value: serde_json::Value) -> Object {
    Object::read(value, &Kind::INGRESS).unwrap().unwrap()
}

#[test]
fn changes_of_objects_with_many_ingresses() {
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "weir"},
                       "spec": {"controller": CONTROLLER}});
    let mut model = Model::new(Options::default());
    let lists = [
        (Kind::IngressClass, vec![object(class)]),
        (Kind::Service, (0..HOSTS).map(service).collect()),
        (
            Kind::EndpointSlice,
            (0..HOSTS).map(|number| slice(number, "10.0.0.1")).collect(),
        ),
        (
            Kind::Ingress,
            (0..HOSTS).map(|number| ingress(number, "/")).collect::<Vec<_>>(),
        ),
    ];
    timed("5,000 Ingresses with their Services read", 1, |_| {
        for (kind, list) in &lists {
            model.replace(*kind, list);
        }
        assert_eq!(model.changes().backends.len(), usize::try_from(HOSTS).unwrap());
    });
    let times = 1_000;
    let changed: Vec<Object> = (0..times).map(|number| ingress(number, "/new")).collect();
    let moved: Vec<Object> = (0..times).map(|number| slice(number, "10.0.0.9")).collect();
    let at = |number: u32| usize::try_from(number).unwrap();
    timed("one Ingress changed", times, |number| {
        model.put(&changed[at(number)]);
        assert!(model.changes().table.is_some());
    });
    timed("one slice changed", times, |number| {
        model.put(&moved[at(number)]);
        assert_eq!(model.changes().backends.len(), 1);
    });
    timed("one Ingress deleted", times, |number| {
        model.delete(Kind::Ingress, &changed[at(number)].name());
        assert!(model.changes().certificates.is_some());
    });
}

#[test]
fn look_ups_and_changes_with_many_hosts() {
    let routes = routes();
    let mut table = Table::default();
    timed("15,000 routes of 5,000 hosts built", 1, |_| {
        table = Table::build(routes.clone());
    });
    let headers = HeaderMap::new();
    let find = |host: &str, path: &str| {
        let asked = Asked {
            host: Some(host),
            path,
            method: &Method::GET,
            headers: &headers,
            query: None,
        };
        black_box(table.find(&asked)).route().is_some()
    };
    let names: Vec<String> = (0..HOSTS).map(|number| name(number * 7919 % HOSTS)).collect();
    let at = |number: u32| {
        names
            .get(usize::try_from(number % HOSTS).unwrap())
            .unwrap()
            .as_str()
    };
    let times = 100_000;
    timed("one of 5,000 hosts", times, |number| {
        assert!(find(at(number), "/api/v1/cart/5"));
    });
    timed("one of 100 hosts", times, |number| {
        assert!(find(at(number % 100), "/api/v1/cart/5"));
    });
    timed("one host again and again", times, |_| {
        assert!(find(at(1), "/api/v1/cart/5"));
    });
    timed("found by a wildcard", times, |_| {
        assert!(find("other.apps.example.com", "/api"));
    });
    timed("not found", times, |_| {
        assert!(!find("shop.example.org", "/api"));
    });
    timed("canonical host and path", times, |number| {
        let host = host::of_request(black_box(at(number).as_bytes())).unwrap();
        let path = path::canonical(black_box("/api/v1/cart/5"), path::PathOptions::default()).unwrap();
        black_box((host, path));
    });
    timed("a host changed", times / 1000, |number| {
        let host = HostMatch::Exact(at(number).into());
        let routes = vec![Arc::new(route(number, host.clone(), "/new"))];
        table = table.with_hosts_changed([(host, routes)]);
    });
}
