//! How long look-ups and changes take with many hosts. `cargo test --release -p proxy-ingress --test speed -- --nocapture`
//! prints it; an ordinary run only shows that the answers are right.

#![expect(clippy::disallowed_methods, reason = "a measurement: it needs the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method};
use proxy_ingress::route::{
    Action, Asked, HostMatch, Origin, PathMatch, Policy, Route, Table, WildcardDepth, host, path,
};
use proxy_model::ObjectName;

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
    let times = if cfg!(debug_assertions) { 10_000 } else { 2_000_000 };
    timed("found by its own host", times, |number| {
        assert!(find(at(number), "/api/v1/cart/5"));
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
