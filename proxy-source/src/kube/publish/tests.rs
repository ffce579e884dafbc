//! Statuses as the API server gets them.

use std::collections::{BTreeMap, BTreeSet};

use kube::Config;
use prometheus::Registry;
use proxy_model::ObjectName;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::fake::FakeApi;
use super::super::{Follow, Kube, LeaseName, Options};
use super::*;
use crate::{Metrics, Source};

const WITHIN: Duration = Duration::from_secs(10);

struct Replica {
    statuses: watch::Sender<Statuses>,
    publishes: JoinHandle<()>,
    _changes: mpsc::Receiver<crate::Changes>,
}

impl Replica {
    fn of(api: &FakeApi, identity: &str) -> Self {
        let options = Options {
            kubeconfig: None,
            api_servers: Vec::new(),
            follows: Follow::of_ingress(&[]),
            secrets: None,
            controller: "weir-ingress",
            node: identity.to_owned(),
            lease: Some(LeaseName {
                namespace: "edge".to_owned(),
                name: "weir-ingress".to_owned(),
                identity: identity.to_owned(),
            }),
            serves_cluster_ips: false,
            metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
        };
        let config = Config::new(format!("http://127.0.0.1:{}/", api.port).parse().unwrap());
        let source = Box::new(Kube::over(config, false, options).unwrap());
        let (statuses, told) = watch::channel(Statuses::default());
        let publishes = tokio::spawn(source.publish(told));
        let (tell, changes) = mpsc::channel(64);
        tokio::spawn(source.run(tell));
        Self {
            statuses,
            publishes,
            _changes: changes,
        }
    }

    fn want(&self, addresses: &[&str], ingresses: &[&str]) {
        let name = |text: &&str| ObjectName::new("shop", *text);
        self.statuses.send_replace(Statuses {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ingresses: ingresses.iter().map(name).collect::<BTreeSet<_>>(),
        });
    }
}

fn ingress(list: &Value) -> Value {
    json!({"metadata": {"namespace": "shop"}, "spec": {}, "status": {"loadBalancer": {"ingress": list}}})
}

/// What the Ingresses say.
fn says(api: &FakeApi) -> BTreeMap<String, Value> {
    let all = api.state().all("ingresses");
    let one = |object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let list = object.pointer("/status/loadBalancer/ingress");
        (name, list.cloned().unwrap_or_default())
    };
    all.iter().map(one).collect()
}

fn patches(api: &FakeApi) -> Vec<String> {
    let written = api.state().written.clone();
    let patches = written.iter().filter(|(_, path, _)| path.contains("/ingresses/"));
    patches
        .map(|(method, path, body)| format!("{method} {path} {body}"))
        .collect()
}

async fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !what() {
        assert!(Instant::now() < deadline, "it does not come");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_ours_says_where_clients_connect() {
    let api = FakeApi::start().await;
    api.put("ingresses", "a", &ingress(&json!(null)));
    api.put("ingresses", "b", &ingress(&json!([{"ip": "192.0.2.9"}])));
    api.put(
        "ingresses",
        "right",
        &ingress(&json!([{"hostname": "edge.example.com"}, {"ip": "192.0.2.1"}])),
    );
    api.put("ingresses", "other", &ingress(&json!([{"ip": "192.0.2.1"}])));
    let replica = Replica::of(&api, "p1");
    replica.want(
        &["192.0.2.1", "edge.example.com"],
        &["a", "b", "right", "missing"],
    );
    let ours = json!([{"ip": "192.0.2.1"}, {"hostname": "edge.example.com"}]);
    until(|| says(&api)["a"] == ours && says(&api)["b"] == ours).await;
    sleep(Duration::from_millis(300)).await;
    let written = patches(&api);
    assert_eq!(
        written.first().map(String::as_str),
        Some(
            "PATCH /apis/networking.k8s.io/v1/namespaces/shop/ingresses/a/status?&fieldManager=weir-ingress \
             {\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"192.0.2.1\"},{\"hostname\":\"edge.example.com\"}]}}}"
        )
    );
    assert_eq!(written.len(), 2, "{written:?}");
    assert_eq!(says(&api)["other"], json!([{"ip": "192.0.2.1"}]));
    // Another class now: it is taken away, if it is ours.
    api.put("ingresses", "b", &ingress(&json!([{"ip": "192.0.2.77"}])));
    replica.want(&["192.0.2.1", "edge.example.com"], &["right"]);
    until(|| says(&api)["a"] == Value::Null).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(says(&api)["b"], json!([{"ip": "192.0.2.77"}]));
}

#[tokio::test]
async fn only_the_leader_writes_and_the_next_goes_on() {
    let api = FakeApi::start().await;
    api.put("ingresses", "a", &ingress(&json!(null)));
    let first = Replica::of(&api, "p1");
    first.want(&["192.0.2.1"], &["a"]);
    until(|| says(&api)["a"] == json!([{"ip": "192.0.2.1"}])).await;
    let second = Replica::of(&api, "p2");
    second.want(&["192.0.2.2"], &["a"]);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(says(&api)["a"], json!([{"ip": "192.0.2.1"}]));
    // A clean end: the status stays, and the other one need not wait for the Lease to grow old.
    drop(first.statuses);
    first.publishes.await.unwrap();
    assert_eq!(says(&api)["a"], json!([{"ip": "192.0.2.1"}]));
    until(|| says(&api)["a"] == json!([{"ip": "192.0.2.2"}])).await;
}

#[tokio::test]
async fn one_that_cannot_be_written_holds_up_no_other() {
    let api = FakeApi::start().await;
    for name in ["a", "b", "c"] {
        api.put("ingresses", name, &ingress(&json!(null)));
    }
    for code in [404, 422] {
        api.state()
            .refuse_once
            .extend([("ingresses/status".to_owned(), code)]);
    }
    let replica = Replica::of(&api, "p1");
    replica.want(&["192.0.2.1"], &["a", "b", "c"]);
    until(|| says(&api)["c"] == json!([{"ip": "192.0.2.1"}])).await;
    // Forbidden, and then allowed.
    api.state().refuse.insert("ingresses/status".to_owned(), 403);
    replica.want(&["192.0.2.2"], &["c"]);
    sleep(Duration::from_millis(300)).await;
    let tried = patches(&api).len();
    assert!(tried <= 4, "{tried}: it waits between tries");
    api.state().refuse.clear();
    until(|| says(&api)["c"] == json!([{"ip": "192.0.2.2"}])).await;
}

#[tokio::test]
async fn a_conflict_is_tried_again() {
    let api = FakeApi::start().await;
    api.put("ingresses", "a", &ingress(&json!(null)));
    api.state()
        .refuse_once
        .extend([("ingresses/status".to_owned(), 409)]);
    let replica = Replica::of(&api, "p1");
    replica.want(&["192.0.2.1"], &["a"]);
    until(|| says(&api)["a"] == json!([{"ip": "192.0.2.1"}])).await;
}

#[tokio::test]
async fn many_are_written_slowly() {
    let api = FakeApi::start().await;
    let names: Vec<String> = (0..40).map(|number| format!("i{number}")).collect();
    for name in &names {
        api.put("ingresses", name, &ingress(&json!(null)));
    }
    let replica = Replica::of(&api, "p1");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    replica.want(&["192.0.2.1"], &names);
    until(|| !patches(&api).is_empty()).await;
    let began = Instant::now();
    until(|| says(&api).values().all(|list| !list.is_null())).await;
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1700), "{took:?}");
    assert_eq!(patches(&api).len(), names.len());
}

#[tokio::test]
async fn without_a_lease_nobody_writes() {
    let api = FakeApi::start().await;
    api.put("ingresses", "a", &ingress(&json!(null)));
    api.state().refuse.insert("leases".to_owned(), 403);
    let replica = Replica::of(&api, "p1");
    replica.want(&["192.0.2.1"], &["a"]);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(patches(&api), Vec::<String>::new());
}
