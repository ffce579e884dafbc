//! What a scrape shows after this and that has happened.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use proxy_ingress::route::{HostMatch, Route};

use crate::common::{Plan, route, wait};
use crate::peers::Backing;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// The samples of requests over HTTP/1.1 in clear text.
fn class(class: &str) -> String {
    format!("weir_ingress_requests_total{{class=\"{class}\",protocol=\"http1\",scheme=\"http\"}}")
}

#[test]
fn requests_are_counted_once_with_their_bytes_and_times() {
    let backing = Backing::raw(|session| {
        while let Some(head) = session.head() {
            if head.starts_with("POST") {
                session.bytes(5);
            }
            session.say(OK);
        }
    });
    let mut plan = Plan::to(&[backing.address]);
    plan.workers = 2;
    let front = plan.start();
    let mut raw = front.raw();
    for _ in 0..3 {
        raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert!(raw.response(2).ends_with("ok"));
    }
    front.counts(&class("2xx"), 3.0);
    front.counts("weir_ingress_received_bytes_total", 15.0);
    front.counts("weir_ingress_sent_bytes_total", 6.0);
    front.counts("weir_ingress_request_duration_seconds_count", 3.0);
    front.counts("weir_ingress_backend_response_seconds_bucket{le=\"60\"}", 3.0);
    front.counts("weir_ingress_backend_connects_total{result=\"done\"}", 1.0);
    front.counts("weir_ingress_backend_reuses_total", 2.0);
    front.counts("weir_ingress_backend_connections", 1.0);
    front.counts("weir_ingress_connections{listener=\"http\"}", 1.0);
    assert!(front.sample("weir_ingress_request_duration_seconds_sum") > 0.0);
    drop(raw);
    front.counts("weir_ingress_connections{listener=\"http\"}", 0.0);
    front.counts("weir_ingress_connections_total{listener=\"http\"}", 1.0);
    front.counts("weir_ingress_requests_in_flight", 0.0);
}

#[test]
fn what_the_ingress_refuses_has_its_reason() {
    let mut plan = Plan::to(&[]);
    plan.routes = Vec::new();
    let front = plan.start();
    assert!(front.says(LAST).starts_with("HTTP/1.1 404 "));
    front.counts(
        "weir_ingress_refused_total{code=\"404\",reason=\"no_route\"}",
        1.0,
    );
    front.counts(&class("4xx"), 1.0);
    front.counts("weir_ingress_sent_bytes_total", 9.0);
}

#[test]
fn a_client_that_leaves_is_499_and_a_backend_that_breaks_off_is_told_apart() {
    let backing = Backing::raw(|session| {
        while let Some(head) = session.head() {
            if head.contains("/half") {
                session.say("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf");
                return;
            }
        }
    });
    let front = Plan::to(&[backing.address]).start();
    let mut raw = front.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait("the request", || !backing.seen().is_empty());
    front.counts("weir_ingress_requests_in_flight", 1.0);
    drop(raw);
    front.counts(&class("4xx"), 1.0);
    front.counts("weir_ingress_requests_aborted_total{by=\"client\"}", 1.0);
    front.says("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    front.counts("weir_ingress_requests_aborted_total{by=\"backend\"}", 1.0);
    front.counts(&class("2xx"), 1.0);
}

#[test]
fn limits_that_were_met_have_their_names() {
    let backing = Backing::raw(|session| while session.head().is_some() {});
    let front = Plan::to(&[backing.address])
        .settings(|settings| {
            settings.requests = 0;
            settings.connections_per_client = 1;
            settings.header_timeout = Duration::from_millis(100);
        })
        .start();
    let mut raw = front.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.until("\r\n\r\n");
    assert_eq!(front.raw().rest(), "");
    front.counts("weir_ingress_limits_total{limit=\"connections_per_client\"}", 1.0);
    front.counts("weir_ingress_limits_total{limit=\"requests\"}", 1.0);
    raw.send("GET / HT");
    front.counts("weir_ingress_limits_total{limit=\"header_timeout\"}", 1.0);
}

#[test]
fn tunnels_are_counted_while_they_are_open() {
    let backing = Backing::raw(|session| {
        session.head();
        session.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        while let Some(byte) = session.byte() {
            let _sent = session.stream.write_all(&[byte, byte]);
        }
    });
    let front = Plan::to(&[backing.address]).start();
    let mut raw = front.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    raw.until("\r\n\r\n");
    raw.send("abc");
    raw.until("aabbcc");
    front.counts("weir_ingress_tunnels", 1.0);
    front.counts(&class("1xx"), 0.0);
    drop(raw);
    front.counts("weir_ingress_tunnels", 0.0);
    front.counts("weir_ingress_upgrades_total", 1.0);
    front.counts(&class("1xx"), 1.0);
    front.counts("weir_ingress_received_bytes_total", 3.0);
    front.counts("weir_ingress_sent_bytes_total", 6.0);
}

#[test]
fn hosts_are_those_of_rules_and_only_if_asked_for() {
    let backing = Backing::always(OK);
    let named = |name: &str| Route {
        host: HostMatch::Exact(name.into()),
        ..route()
    };
    let start = |hosts| {
        let mut plan = Plan::to(&[backing.address]);
        plan.routes = vec![named("a.test"), named("b.test")];
        plan.telemetry.hosts = hosts;
        plan.start()
    };
    let front = start(true);
    for host in ["a.test", "A.TEST:80", "b.test", "made.up"] {
        front.says(format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ));
    }
    let host = |class: &str, host: &str| {
        format!("weir_ingress_host_requests_total{{class=\"{class}\",host=\"{host}\"}}")
    };
    front.counts(&host("2xx", "a.test"), 2.0);
    front.counts(&host("2xx", "b.test"), 1.0);
    front.counts(&host("4xx", "other"), 1.0);
    assert!(!front.scrape().contains("made.up"));
    let front = start(false);
    front.says("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    front.counts(&class("2xx"), 1.0);
    assert!(!front.scrape().contains("a.test"));
}

#[test]
fn what_is_served_is_counted_at_a_scrape() {
    let front = Plan::to(&[([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()]).start();
    for (name, value) in [
        ("routes", 1.0),
        ("hosts", 1.0),
        ("backends", 1.0),
        ("endpoints", 2.0),
        ("certificates", 0.0),
    ] {
        front.counts(&format!("weir_ingress_{name}"), value);
    }
    assert!(
        !front.scrape().contains("expiry"),
        "there is no certificate that could expire"
    );
    front.metrics.changed(Duration::from_millis(3));
    front.metrics.counted(4, 5);
    front.counts("weir_ingress_change_duration_seconds_count", 1.0);
    front.counts("weir_ingress_problems", 4.0);
    front.counts("weir_ingress_conflicts", 5.0);
    assert!(front.sample("weir_ingress_last_change_timestamp_seconds") > 1.7e9);
}

#[test]
fn the_page_lists_every_metric() {
    let mut plan = Plan::to(&[]);
    plan.certificates = Some(crate::tls::certificates().0);
    plan.telemetry.hosts = true;
    let front = plan.start();
    front.says(LAST);
    front.counts(&class("5xx"), 1.0);
    let text = front.scrape();
    let mut families = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        families.insert(name, kind);
    }
    let mut table = "| name | kind | labels | what |\n|---|---|---|---|\n".to_owned();
    for (name, kind) in families {
        let help = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# HELP {name} ")))
            .unwrap();
        let sample = text.lines().find(|line| line.starts_with(name)).unwrap();
        let labels = sample.split_once('{').map_or("", |(_, labels)| labels);
        let names = labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0));
        let names: Vec<_> = names
            .filter(|name| *name != "le")
            .map(|name| format!("`{name}`"))
            .collect();
        writeln!(table, "| `{name}` | {kind} | {} | {help} |", names.join(", ")).unwrap();
    }
    let page = include_str!("../../../docs/metrics.md");
    assert!(
        page.contains(&table),
        "put this table into docs/metrics.md:\n{table}"
    );
}
