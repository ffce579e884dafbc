//! Namespaces, against an API server in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Config;
use prometheus::{Registry, TextEncoder};
use proxy_model::Change;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::fake::{FakeApi, Streams};
use super::super::{Kube, Options};
use super::*;
use crate::{Changes, Source};

/// What a model would know.
struct Consumer {
    changes: mpsc::Receiver<Changes>,
    registry: Registry,
    known: BTreeMap<Kind, BTreeSet<String>>,
}

impl Consumer {
    fn of(api: &FakeApi, follows: Vec<Follow>) -> Self {
        let registry = Registry::new();
        let options = Options {
            kubeconfig: None,
            api_servers: Vec::new(),
            follows,
            secrets: None,
            controller: "weir-ingress",
            node: "p1".to_owned(),
            lease: None,
            serves_cluster_ips: false,
            metrics: Arc::new(Metrics::new(&registry).unwrap()),
        };
        let config = Config::new(format!("http://127.0.0.1:{}/", api.port).parse().unwrap());
        let source = Box::new(Kube::over(config, false, options).unwrap());
        let (tell, changes) = mpsc::channel(64);
        tokio::spawn(source.run(tell));
        Self {
            changes,
            registry,
            known: BTreeMap::new(),
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Replace(kind, list) => {
                let names = list.iter().map(|object| object.name().to_string()).collect();
                assert!(
                    self.known.insert(kind, names).is_none(),
                    "{kind} was replaced twice"
                );
            }
            Change::Put(object) => {
                let known = self.known.get_mut(&object.kind()).expect("a list comes first");
                known.insert(object.name().to_string());
            }
            Change::Delete(kind, name) => {
                self.known.get_mut(&kind).unwrap().remove(&name.to_string());
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits until so much is known of a kind.
    async fn becomes(&mut self, kind: Kind, names: &[&str]) {
        let names: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        let until = Instant::now() + Duration::from_secs(10);
        while self.known.get(&kind) != Some(&names) {
            let Ok(Some(changes)) = timeout_at(until, self.changes.recv()).await else {
                panic!("{:?} instead of {names:?}", self.known.get(&kind))
            };
            for change in changes {
                self.take(change);
            }
        }
    }

    async fn hears(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(Some(changes)) = timeout_at(until, self.changes.recv()).await {
            for change in changes {
                self.take(change);
            }
        }
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

async fn server(streams: Streams) -> FakeApi {
    let api = FakeApi::start().await;
    api.state().streams = streams;
    api.put("ingressclasses", "weir", &json!({"metadata": {}}));
    for namespace in ["a", "b", "c"] {
        api.put("ingresses", &format!("{namespace}/web"), &json!({"spec": {}}));
        api.put("services", &format!("{namespace}/web"), &json!({"spec": {}}));
    }
    api
}

#[tokio::test]
async fn only_what_is_in_the_namespaces_is_followed() {
    for streams in [Streams::Yes, Streams::Refused] {
        let api = server(streams).await;
        let mut consumer = Consumer::of(&api, Follow::of_ingress(&names(&["a", "b", "a"])));
        consumer.becomes(Kind::Ingress, &["a/web", "b/web"]).await;
        consumer.becomes(Kind::Service, &["a/web", "b/web"]).await;
        consumer.becomes(Kind::EndpointSlice, &[]).await;
        consumer.becomes(Kind::IngressClass, &["weir"]).await;
        api.put("ingresses", "b/more", &json!({"spec": {}}));
        api.put("ingresses", "c/more", &json!({"spec": {}}));
        api.delete("ingresses", "a/web");
        consumer.becomes(Kind::Ingress, &["b/more", "b/web"]).await;
        let asked = api.state().asked.clone();
        assert!(asked.iter().all(|one| !one.contains("secrets")), "{asked:?}");
        for one in &asked {
            let expected = ["/namespaces/a/", "/namespaces/b/", "/ingressclasses?"];
            assert!(expected.iter().any(|part| one.contains(part)), "{one}");
            let slices = one.contains("/endpointslices?");
            assert_eq!(
                slices,
                one.contains("labelSelector=kubernetes.io%2Fservice-name"),
                "{one}"
            );
        }
    }
}

#[tokio::test]
async fn a_kind_is_complete_when_all_its_namespaces_are() {
    let api = server(Streams::Yes).await;
    api.state().refuse.insert("b:ingresses".to_owned(), 403);
    let mut consumer = Consumer::of(&api, Follow::of_ingress(&names(&["a", "b"])));
    consumer.becomes(Kind::Service, &["a/web", "b/web"]).await;
    consumer.hears(Duration::from_millis(300)).await;
    assert_eq!(consumer.known.get(&Kind::Ingress), None);
    let metrics = || {
        let families = consumer.registry.gather();
        TextEncoder::new().encode_to_string(&families).unwrap()
    };
    assert!(
        metrics().contains("weir_watch_up{resource=\"ingresses\"} 0\n"),
        "{}",
        metrics()
    );
    assert!(
        metrics().contains("weir_watch_up{resource=\"services\"} 1\n"),
        "{}",
        metrics()
    );
    // What changes meanwhile is not lost.
    api.put("ingresses", "a/more", &json!({"spec": {}}));
    api.delete("ingresses", "a/web");
    consumer.hears(Duration::from_millis(200)).await;
    api.state().refuse.clear();
    consumer.becomes(Kind::Ingress, &["a/more", "b/web"]).await;
    let metrics = TextEncoder::new()
        .encode_to_string(&consumer.registry.gather())
        .unwrap();
    assert!(
        metrics.contains("weir_watch_up{resource=\"ingresses\"} 1\n"),
        "{metrics}"
    );
    let more = timeout(Duration::from_millis(200), consumer.changes.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn one_object_more_may_be_followed_elsewhere() {
    let api = server(Streams::Yes).await;
    api.put("services", "c/other", &json!({"spec": {}}));
    let mut follows = vec![Follow::all(Kind::Service).within(&names(&["a"]))];
    follows.push(Follow::named(Kind::Service, &ObjectName::new("c", "web")));
    follows.push(Follow::named(Kind::Service, &ObjectName::new("a", "web")));
    let mut consumer = Consumer::of(&api, follows);
    consumer.becomes(Kind::Service, &["a/web", "c/web"]).await;
    assert_eq!(api.state().asked.len(), 2, "{:?}", api.state().asked);
}

#[test]
fn what_another_part_has_is_left_out() {
    let said = |follows: &[Follow], kind| {
        let parts = parts(follows, kind).into_iter();
        parts.map(|part| part.scope.to_string()).collect::<Vec<_>>()
    };
    let shop = Follow::all(Kind::Service).within(&names(&["shop", "shop", "blog"]));
    let web = Follow::named(Kind::Service, &ObjectName::new("shop", "web"));
    let own = Follow::named(Kind::Service, &ObjectName::new("edge", "web"));
    let all = Follow::all(Kind::Service).within(&[]);
    let table = [
        (
            vec![shop.clone(), web.clone()],
            vec![" in namespace shop", " in namespace blog"],
        ),
        (
            vec![web, shop.clone()],
            vec![" in namespace shop", " in namespace blog"],
        ),
        (
            vec![shop.clone(), own.clone()],
            vec![
                " in namespace shop",
                " in namespace blog",
                " named web in namespace edge",
            ],
        ),
        (vec![shop, own, all], vec![""]),
    ];
    for (follows, expected) in table {
        assert_eq!(said(&follows, Kind::Service), expected);
    }
    let class = Follow::all(Kind::IngressClass).within(&names(&["shop"]));
    assert_eq!(said(&[class], Kind::IngressClass), [""]);
}
