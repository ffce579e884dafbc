//! The text is what Prometheus reads, and the page lists what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::*;

/// Everything has been there once.
fn full() -> Metrics {
    let metrics = Metrics::new().unwrap();
    metrics.changed(Kind::Service, 2);
    metrics.changed(Kind::EndpointSlice, 3);
    let second = Duration::from_secs;
    metrics.synced(Round {
        queued: second(1_700_000_000),
        done: second(1_700_000_000) + Duration::from_millis(3),
        steps: 7,
        refused: 1,
    });
    metrics.programmed(Family::V6, second(2));
    let summary = Summary {
        without_local: [((TrafficFrom::Outside, Family::V4), 2)].into(),
        ..Summary::default()
    };
    metrics.counted(&summary, 0, 0, true);
    metrics.sources.watching("services", "services", true);
    metrics.sources.requested(["200", "GET", "192.0.2.1:6443"]);
    metrics.packets.with_label_values(&["no_endpoints"]).inc();
    metrics.rows.with_label_values(&["FLOWS"]).set(1);
    metrics.capacity.with_label_values(&["FLOWS"]).set(2);
    metrics
}

/// The families of a text, each with its kind; panics where Prometheus' text format (0.0.4) is not kept.
fn families(text: &str) -> BTreeMap<String, String> {
    let mut kinds = BTreeMap::new();
    let mut helped = BTreeSet::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()) && !words.is_empty(), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name), "{line}");
            assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "{line}");
        } else {
            sample(line, &kinds);
        }
    }
    kinds
}

fn sample(line: &str, kinds: &BTreeMap<String, String>) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    assert!(value.parse::<f64>().is_ok(), "{line}");
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let word = |text: &str| {
        let legal = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        text.chars().all(legal) && text.starts_with(|letter: char| !letter.is_ascii_digit())
    };
    assert!(word(name), "{line}");
    for pair in labels
        .strip_suffix('}')
        .unwrap()
        .split("\",")
        .filter(|pair| !pair.is_empty())
    {
        let (label, value) = pair.split_once("=\"").unwrap();
        assert!(
            word(label) && !value.trim_end_matches('"').contains(['"', '\n']),
            "{line}"
        );
    }
    let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
        let family = name.strip_suffix(end)?;
        (kinds.get(family)? == "histogram").then_some(family)
    });
    assert!(kinds.contains_key(family.unwrap_or(name)), "{line} has no TYPE");
}

#[test]
fn the_text_is_what_prometheus_reads() {
    let text = full().text().unwrap();
    let kinds = families(&text);
    // kube-proxy's name, and its kind.
    let gauge = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
    for (name, kind) in kinds.iter().filter(|(name, _)| *name != gauge) {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}: {kind}");
    }
    let lines = [
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.004\"} 1\n",
        "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1\n",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 1700000000.003\n",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 3\n",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0\n",
        "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv6\",le=\"300\"} 1\n",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 0\n",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"} 2\n",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 0\n",
        "weir_steps_total{result=\"done\"} 7\n",
    ];
    for line in lines {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn changes_are_pending_until_the_kernel_has_them() {
    let metrics = Metrics::new().unwrap();
    metrics.changed(Kind::Service, 2);
    metrics.changed(Kind::Node, 2);
    let text = metrics.text().unwrap();
    assert!(
        text.contains("kubeproxy_sync_proxy_rules_service_changes_pending 2\n"),
        "{text}"
    );
    assert!(
        text.contains("kubeproxy_sync_proxy_rules_endpoint_changes_pending 0\n"),
        "{text}"
    );
}

#[test]
fn the_buckets_are_those_of_kube_proxy() {
    assert_eq!(sync_buckets().len(), 15);
    assert_eq!(sync_buckets().last(), Some(&16.384));
    let buckets = programming_buckets();
    assert_eq!(buckets.len(), 2 + 59 + 12 + 7);
    assert!(buckets.is_sorted());
    assert_eq!((buckets[0], buckets[61], buckets[79]), (0.25, 60.0, 300.0));
}

#[test]
fn the_page_lists_every_metric() {
    let text = full().text().unwrap();
    let mut table = "| name | kind | labels | what |\n|---|---|---|---|\n".to_owned();
    for (name, kind) in families(&text) {
        let help = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# HELP {name} ")))
            .unwrap();
        let labels = labels(&text, &name);
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    let page = include_str!("../../../docs/metrics.md");
    assert!(
        page.contains(&table),
        "put this table into docs/metrics.md:\n{table}"
    );
}

/// The names of the labels of a family's first sample.
fn labels(text: &str, name: &str) -> String {
    let sample = text.lines().find(|line| line.starts_with(name)).unwrap();
    let labels = sample.split_once('{').map_or("", |(_, labels)| labels);
    let names = labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0));
    let names: Vec<_> = names
        .filter(|name| *name != "le")
        .map(|name| format!("`{name}`"))
        .collect();
    names.join(", ")
}
