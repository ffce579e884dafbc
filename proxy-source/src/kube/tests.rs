//! The source against an API server in this process: whatever happens, it ends up with what the server has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Config;
use prometheus::{Registry, TextEncoder};
use proxy_model::{Change, Kind};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::fake::{Another, FakeApi, Streams};
use super::*;

/// What a model would know.
struct Mirror {
    registry: Registry,
    changes: mpsc::Receiver<Changes>,
    /// Cluster address by Service name; other kinds by name only.
    known: BTreeMap<(Kind, String), String>,
    synced: BTreeSet<Kind>,
    deletes: Vec<String>,
}

impl Mirror {
    fn of(api: &FakeApi) -> Self {
        Self::over(&format!("http://127.0.0.1:{}/", api.port), &[])
    }

    /// By a configuration that names the first URL, and flags that name the others.
    fn over(url: &str, named: &[String]) -> Self {
        let registry = Registry::new();
        let options = Options {
            kubeconfig: None,
            api_servers: named.iter().map(|url| url.parse().unwrap()).collect(),
            follows: Follow::of_node("n1"),
            secrets: None,
            controller: "weir",
            node: "n1".to_owned(),
            lease: None,
            serves_cluster_ips: true,
            metrics: Arc::new(Metrics::new(&registry).unwrap()),
        };
        let config = Config::new(url.parse().unwrap());
        let source = Box::new(Kube::over(config, false, options).unwrap());
        let (sender, changes) = mpsc::channel(64);
        tokio::spawn(source.run(sender));
        Self {
            registry,
            changes,
            known: BTreeMap::new(),
            synced: BTreeSet::new(),
            deletes: Vec::new(),
        }
    }

    /// All metrics, as text.
    fn metrics(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Replace(kind, objects) => {
                assert!(self.synced.insert(kind), "{kind} was replaced twice");
                for object in objects {
                    self.take(Change::Put(object));
                }
            }
            Change::Put(object) => {
                let key = (object.kind(), object.name().name);
                self.known.insert(key, address(&object));
            }
            Change::Delete(kind, name) => {
                self.deletes.push(name.to_string());
                self.known.remove(&(kind, name.name));
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the Services are these, and nothing is unsynced.
    async fn becomes(&mut self, services: &[(&str, &str)]) {
        let wanted: Vec<_> = services.iter().map(|(name, ip)| (*name, *ip)).collect();
        let deadline = tokio::time::sleep(Duration::from_secs(10));
        tokio::pin!(deadline);
        loop {
            if self.synced.len() == Kind::ALL.len() && self.services() == wanted {
                return;
            }
            tokio::select! {
                changes = self.changes.recv() => for change in changes.unwrap() { self.take(change) },
                () = &mut deadline => panic!("{:?} instead of {wanted:?}", self.services()),
            }
        }
    }

    fn services(&self) -> Vec<(&str, &str)> {
        let services = self.known.iter().filter(|((kind, _), _)| *kind == Kind::Service);
        services
            .map(|((_, name), ip)| (name.as_str(), ip.as_str()))
            .collect()
    }

    /// Waits for news of a slice.
    async fn hears_of(&mut self, name: &str, there: bool) {
        let key = (Kind::EndpointSlice, name.to_owned());
        loop {
            for change in self.changes.recv().await.unwrap() {
                self.take(change);
            }
            if self.known.contains_key(&key) == there {
                return;
            }
        }
    }

    /// Nothing more comes.
    async fn stays_quiet(&mut self) {
        let more = tokio::time::timeout(Duration::from_millis(300), self.changes.recv()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

/// How often the Services were listed.
fn lists(api: &FakeApi) -> usize {
    let asked = &api.state().asked;
    asked
        .iter()
        .filter(|one| one.contains("/services?") && one.contains("sendInitialEvents"))
        .count()
}

fn address(object: &proxy_model::Object) -> String {
    match object {
        proxy_model::Object::Service(service) => {
            let spec = service.spec.clone().unwrap_or_default();
            spec.cluster_ip.unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn service(ip: &str) -> Value {
    json!({"metadata": {"namespace": "shop"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}})
}

fn nonsense() -> Value {
    json!({"metadata": {"namespace": "shop", "labels": 5}, "spec": "nonsense"})
}

async fn server(streams: Streams) -> FakeApi {
    let api = FakeApi::start().await;
    api.state().streams = streams;
    for (name, ip) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        api.put("services", name, &service(ip));
    }
    api.put("nodes", "n1", &json!({"metadata": {}}));
    api
}

const ALL: [(&str, &str); 3] = [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")];

#[tokio::test]
async fn a_streamed_list_and_its_events() {
    let api = server(Streams::Yes).await;
    let mut mirror = Mirror::of(&api);
    mirror.becomes(&ALL).await;
    api.put("services", "b", &service("10.0.0.22"));
    api.delete("services", "c");
    mirror.becomes(&[("a", "10.0.0.1"), ("b", "10.0.0.22")]).await;
    let asked = api.state().asked.clone();
    assert_eq!(
        asked.len(),
        Kind::ALL.len(),
        "one watch each, and no list: {asked:?}"
    );
    for one in &asked {
        assert!(one.contains("sendInitialEvents=true"), "{one}");
        let selects = if one.contains("/nodes?") {
            "fieldSelector=metadata.name%3Dn1"
        } else if one.contains("/endpointslices?") {
            "labelSelector=%21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name"
        } else {
            assert!(
                !one.contains("Selector"),
                "another proxy's Services count, too: {one}"
            );
            continue;
        };
        assert!(one.contains(selects), "{one}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_streamed_lists_is_read_by_pages() {
    let api = server(Streams::Refused).await;
    api.state().page = 2;
    let mut mirror = Mirror::of(&api);
    mirror.becomes(&ALL).await;
    api.put("services", "d", &service("10.0.0.4"));
    mirror.becomes(&[ALL[0], ALL[1], ALL[2], ("d", "10.0.0.4")]).await;
    assert!(api.state().asked.iter().any(|one| one.contains("continue=2")));
}

#[tokio::test]
async fn a_server_that_ignores_streamed_lists_is_read_by_pages() {
    let api = server(Streams::Ignored).await;
    let mut mirror = Mirror::of(&api);
    mirror.becomes(&ALL).await;
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_costs_itself_only() {
    for streams in [Streams::Yes, Streams::Refused] {
        let api = server(streams).await;
        api.put("services", "b", &nonsense());
        let mut mirror = Mirror::of(&api);
        mirror.becomes(&[ALL[0], ALL[2]]).await;
        // It becomes readable, and unreadable again: what was known stays.
        api.put("services", "b", &service("10.0.0.2"));
        mirror.becomes(&ALL).await;
        api.put("services", "b", &nonsense());
        api.put("services", "d", &service("10.0.0.4"));
        mirror.becomes(&[ALL[0], ALL[1], ALL[2], ("d", "10.0.0.4")]).await;
        // Also through a new list, which has it still.
        api.unseen("services", &[], &["d"]);
        api.gone();
        mirror.becomes(&ALL).await;
        assert_eq!(mirror.deletes, ["shop/d"]);
        // And gone is gone.
        api.delete("services", "b");
        mirror.becomes(&[ALL[0], ALL[2]]).await;
    }
}

#[tokio::test]
async fn after_gone_a_new_list_tells_the_difference() {
    for streams in [Streams::Yes, Streams::Refused] {
        let api = server(streams).await;
        let mut mirror = Mirror::of(&api);
        mirror.becomes(&ALL).await;
        api.unseen(
            "services",
            &[("d", service("10.0.0.4")), ("a", service("10.0.0.11"))],
            &["b"],
        );
        api.gone();
        mirror
            .becomes(&[("a", "10.0.0.11"), ("c", "10.0.0.3"), ("d", "10.0.0.4")])
            .await;
        assert_eq!(mirror.deletes, ["shop/b"]);
    }
}

#[tokio::test]
async fn a_cut_connection_is_resumed_where_it_was() {
    let api = server(Streams::Yes).await;
    let mut mirror = Mirror::of(&api);
    mirror.becomes(&ALL).await;
    for round in 0..3 {
        api.cut();
        api.put("services", "a", &service(&format!("10.0.1.{round}")));
        mirror
            .becomes(&[("a", &format!("10.0.1.{round}")), ALL[1], ALL[2]])
            .await;
    }
    assert_eq!(mirror.deletes.len(), 0);
    assert_eq!(lists(&api), 1, "resumed, not listed again");
}

#[tokio::test]
async fn half_a_list_is_no_list() {
    let api = server(Streams::Refused).await;
    api.state().page = 2;
    api.state().refuse_second_page = Some(500);
    let mut mirror = Mirror::of(&api);
    let until = tokio::time::Instant::now() + Duration::from_millis(700);
    while let Ok(Some(changes)) = tokio::time::timeout_at(until, mirror.changes.recv()).await {
        for change in changes {
            mirror.take(change);
        }
    }
    assert!(!mirror.synced.contains(&Kind::Service));
    assert_eq!(mirror.services().len(), 0);
    api.state().refuse_second_page = None;
    mirror.becomes(&ALL).await;
    mirror.stays_quiet().await;
}

#[tokio::test]
async fn one_kind_that_is_forbidden_does_not_stop_the_others() {
    let api = server(Streams::Yes).await;
    api.state().refuse.insert("nodes".to_owned(), 403);
    let mut mirror = Mirror::of(&api);
    while mirror.synced.len() < 2 {
        let changes = mirror.changes.recv().await.unwrap();
        for change in changes {
            mirror.take(change);
        }
    }
    assert!(!mirror.synced.contains(&Kind::Node));
    api.state().refuse.clear();
    mirror.becomes(&ALL).await;
}

#[tokio::test]
async fn nothing_is_forgotten_while_the_server_is_away() {
    let api = server(Streams::Yes).await;
    let mut mirror = Mirror::of(&api);
    mirror.becomes(&ALL).await;
    for plural in ["services", "endpointslices", "nodes"] {
        api.state().refuse.insert(plural.to_owned(), 500);
    }
    api.cut();
    mirror.stays_quiet().await;
    assert_eq!(mirror.services(), ALL);
    api.unseen("services", &[], &["c"]);
    api.state().refuse.clear();
    mirror.becomes(&[ALL[0], ALL[1]]).await;
}

#[tokio::test]
async fn as_long_as_one_server_answers_nobody_notices() {
    let api = server(Streams::Yes).await;
    let servers = [api.another().await, api.another().await, api.another().await];
    let urls: Vec<_> = servers.iter().map(Another::url).collect();
    // What the configuration names is not asked if others are named.
    let mut mirror = Mirror::over("http://127.0.0.1:1/", &urls);
    mirror.becomes(&ALL).await;
    for (round, server) in servers.iter().take(2).enumerate() {
        server.end();
        api.put("services", "a", &service(&format!("10.0.1.{round}")));
        let began = tokio::time::Instant::now();
        mirror
            .becomes(&[("a", &format!("10.0.1.{round}")), ALL[1], ALL[2]])
            .await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    assert_eq!(mirror.deletes.len(), 0);
    assert_eq!(lists(&api), 1, "resumed, not listed again");
    let text = mirror.metrics();
    assert!(
        text.contains("weir_watch_up{resource=\"services\"} 1\n"),
        "{text}"
    );
    assert!(!text.contains("127.0.0.1:1\""), "{text}");
}

/// What the API servers say about themselves.
fn kubernetes_slice(port: u16) -> Value {
    json!({"metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
           "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
           "ports": [{"name": "https", "port": port}]})
}

#[tokio::test]
async fn addresses_that_the_cluster_tells_are_used_when_the_known_one_fails() {
    let api = server(Streams::Yes).await;
    let [first, second, third] = [api.another().await, api.another().await, api.another().await];
    api.put("endpointslices", "kubernetes", &kubernetes_slice(second.port));
    let mut mirror = Mirror::over(&first.url(), &[]);
    mirror.becomes(&ALL).await;
    first.end();
    api.delete("services", "c");
    mirror.becomes(&[ALL[0], ALL[1]]).await;
    // It moves, and later nobody tells where it is.
    api.put("endpointslices", "kubernetes", &kubernetes_slice(third.port));
    mirror.hears_of("kubernetes", true).await;
    api.delete("endpointslices", "kubernetes");
    mirror.hears_of("kubernetes", false).await;
    second.end();
    api.delete("services", "b");
    mirror.becomes(&[ALL[0]]).await;
    assert_eq!(lists(&api), 1);
}

#[tokio::test]
async fn requests_are_counted_and_a_kind_that_cannot_be_followed_shows() {
    let api = server(Streams::Yes).await;
    api.state().refuse.insert("nodes".to_owned(), 403);
    let mut mirror = Mirror::of(&api);
    while mirror.synced.len() < 3 {
        for change in mirror.changes.recv().await.unwrap() {
            mirror.take(change);
        }
    }
    let text = mirror.metrics();
    let host = format!("127.0.0.1:{}", api.port);
    for line in [
        "weir_watch_up{resource=\"nodes\"} 0\n".to_owned(),
        "weir_watch_up{resource=\"endpointslices\"} 1\n".to_owned(),
        format!("rest_client_requests_total{{code=\"200\",host=\"{host}\",method=\"GET\"}} 3\n"),
        format!("rest_client_requests_total{{code=\"403\",host=\"{host}\",method=\"GET\"}} "),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_clusterip_of_the_api_server_is_known_by_what_the_kubelet_tells() {
    let table = [
        ("10.96.0.1", "tcp://10.96.0.1:443", true),
        ("fd00:96::1", "tcp://[fd00:96::1]:443", true),
        ("192.0.2.7", "tcp://10.96.0.1:443", false),
        ("api.example.org", "tcp://10.96.0.1:443", false),
        ("10.96.0.1", "", false),
        ("", "", false),
        ("", "tcp://:443", false),
    ];
    for (host, told, expected) in table {
        assert_eq!(is_cluster_ip(host, told), expected, "{host} {told}");
    }
}

#[tokio::test]
async fn n22_an_object_of_a_megabyte_arrives() {
    for streams in [Streams::Yes, Streams::Refused] {
        let api = server(streams).await;
        let huge = |ip: &str| {
            let mut object = service(ip);
            object["metadata"]["annotations"] = json!({"example.com/blob": "x".repeat(1 << 20)});
            object
        };
        api.put("services", "b", &huge("10.0.0.2"));
        let mut mirror = Mirror::of(&api);
        mirror.becomes(&ALL).await;
        // And as an event.
        api.put("services", "b", &huge("10.0.0.22"));
        mirror.becomes(&[ALL[0], ("b", "10.0.0.22"), ALL[2]]).await;
    }
}

#[tokio::test]
async fn n23_ten_thousand_services_in_one_page() {
    let api = server(Streams::Refused).await;
    api.state().page = usize::MAX - 1;
    let name = |number: usize| format!("many-{number:05}");
    let ip = |number: usize| format!("10.1.{}.{}", number / 256, number % 256);
    for number in 0..10_000 {
        api.put("services", &name(number), &service(&ip(number)));
    }
    let mut mirror = Mirror::of(&api);
    let many: Vec<_> = (0..10_000).map(|number| (name(number), ip(number))).collect();
    let many = many.iter().map(|(name, ip)| (name.as_str(), ip.as_str()));
    let all: Vec<_> = ALL.into_iter().chain(many).collect();
    mirror.becomes(&all).await;
    assert!(!api.state().asked.iter().any(|one| one.contains("continue=")));
}
