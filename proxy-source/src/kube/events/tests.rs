//! Events as the API server gets them.

use std::sync::Arc;

use kube::Config;
use prometheus::Registry;
use proxy_model::ObjectName;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::fake::FakeApi;
use super::super::{Follow, Kube, Options};
use super::*;
use crate::{Metrics, Source};

const WITHIN: Duration = Duration::from_secs(10);

fn source(urls: &[String], node: &str) -> Kube {
    let options = Options {
        kubeconfig: None,
        api_servers: urls.iter().map(|url| url.parse().unwrap()).collect(),
        follows: Follow::of_node(node),
        secrets: None,
        controller: "weir",
        node: node.to_owned(),
        lease: None,
        serves_cluster_ips: true,
        metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
    };
    Kube::over(
        Config::new("http://127.0.0.1:1/".parse().unwrap()),
        false,
        options,
    )
    .unwrap()
}

/// An agent that is told of problems.
struct Agent {
    problems: watch::Sender<Problems>,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(urls: &[String], node: &str) -> Self {
        let (problems, told) = watch::channel(Problems::new());
        let task = tokio::spawn(source(urls, node).tell(told));
        Self { problems, task }
    }

    fn of(api: &FakeApi, node: &str) -> Self {
        Self::start(&[format!("http://127.0.0.1:{}/", api.port)], node)
    }
}

fn problem(kind: Kind, name: &ObjectName, what: &str) -> Problem {
    Problem {
        uid: Some(format!("uid-of-{}", name.name)),
        ..Problem::new(kind, name, what)
    }
}

fn web(what: &str) -> Problem {
    problem(Kind::Service, &ObjectName::new("shop", "web"), what)
}

/// Waits until so much was asked to be written.
async fn written(api: &FakeApi, count: usize) -> Vec<(String, String, Value)> {
    let deadline = Instant::now() + WITHIN;
    while api.state().written.len() < count {
        assert!(Instant::now() < deadline, "{:?}", api.state().written);
        sleep(Duration::from_millis(10)).await;
    }
    // Nothing more comes.
    sleep(Duration::from_millis(200)).await;
    let written = api.state().written.clone();
    assert_eq!(written.len(), count, "{written:?}");
    written
}

#[tokio::test]
async fn an_event_says_what_is_wrong_with_which_object() {
    let api = FakeApi::start().await;
    let agent = Agent::of(&api, "n1");
    let taken =
        web("healthCheckNodePort 30999 cannot be answered").because(Reason::FailedToStartServiceHealthcheck);
    agent.problems.send_replace(vec![taken]);
    let (method, path, event) = written(&api, 1).await.remove(0);
    assert_eq!(method, "POST");
    assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/shop/events?");
    for (pointer, expected) in [
        ("/type", "Warning"),
        ("/reason", "FailedToStartServiceHealthcheck"),
        ("/action", "Listen"),
        ("/note", "node n1: healthCheckNodePort 30999 cannot be answered"),
        ("/reportingController", "weir"),
        ("/reportingInstance", "weir-n1"),
        ("/metadata/namespace", "shop"),
        ("/regarding/apiVersion", "v1"),
        ("/regarding/kind", "Service"),
        ("/regarding/namespace", "shop"),
        ("/regarding/name", "web"),
        ("/regarding/uid", "uid-of-web"),
    ] {
        assert_eq!(
            event.pointer(pointer).and_then(Value::as_str),
            Some(expected),
            "{pointer} of {event}"
        );
    }
    assert!(event["eventTime"].as_str().unwrap().ends_with('Z'), "{event}");
    assert!(
        event["metadata"]["name"].as_str().unwrap().starts_with("web."),
        "{event}"
    );
}

#[tokio::test]
async fn events_about_other_kinds() {
    let api = FakeApi::start().await;
    let agent = Agent::of(&api, "n1");
    agent.problems.send_replace(vec![
        problem(
            Kind::EndpointSlice,
            &ObjectName::new("shop", "web-1"),
            "endpoint left out",
        ),
        problem(
            Kind::Node,
            &ObjectName::new("", "n1"),
            "node ports are not served",
        ),
    ]);
    let both = written(&api, 2).await;
    let text = |index: usize, pointer: &str| both[index].2.pointer(pointer).and_then(Value::as_str);
    let of = |kind: &str| {
        (0..2)
            .find(|index| text(*index, "/regarding/kind") == Some(kind))
            .unwrap()
    };
    let (slice, node) = (of("EndpointSlice"), of("Node"));
    assert_eq!(text(slice, "/regarding/apiVersion"), Some("discovery.k8s.io/v1"));
    assert_eq!(both[node].1, "/apis/events.k8s.io/v1/namespaces/default/events?");
    assert_eq!(text(node, "/regarding/namespace"), None);
    assert_eq!(
        text(node, "/regarding/uid"),
        Some("n1"),
        "as the kubelet names a Node"
    );
}

#[tokio::test]
async fn an_event_about_a_class_is_where_one_about_a_node_is() {
    let api = FakeApi::start().await;
    let ingress = Agent::of(&api, "p1");
    let class = problem(Kind::IngressClass, &ObjectName::new("", "edge"), "has parameters");
    ingress.problems.send_replace(vec![class]);
    let (_, path, event) = written(&api, 1).await.remove(0);
    assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/default/events?");
    assert_eq!(event["regarding"]["uid"], "uid-of-edge");
}

#[tokio::test]
async fn one_event_whatever_the_resyncs_restarts_and_nodes() {
    let api = FakeApi::start().await;
    for node in ["n1", "n1", "n2"] {
        let agent = Agent::of(&api, node);
        for _ in 0..3 {
            agent
                .problems
                .send_replace(vec![web("sessionAffinity is odd: mend it")]);
        }
        sleep(Duration::from_millis(100)).await;
        agent.task.abort();
    }
    let written = written(&api, 3).await;
    let names: Vec<_> = written
        .iter()
        .map(|(_, _, event)| &event["metadata"]["name"])
        .collect();
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    assert_eq!(api.state().all("events").len(), 1);
}

fn writer(agent: &Kube) -> Writer {
    Writer {
        controller: "weir",
        client: agent.servers.client(),
        instance: "weir-n1".to_owned(),
        silent: false,
    }
}

/// What was seen so often.
fn saying(count: i32) -> Saying {
    Saying {
        name: "web.0123".to_owned(),
        problem: web("is odd"),
        note: "is odd".to_owned(),
        count,
    }
}

#[tokio::test]
async fn a_series_is_counted_in_its_event() {
    let api = FakeApi::start().await;
    let agent = source(&[format!("http://127.0.0.1:{}/", api.port)], "n1");
    let mut writer = writer(&agent);
    let mut saying = saying(2);
    assert_eq!(writer.write(&saying).await, Outcome::Forgotten);
    saying.count = 1;
    assert_eq!(writer.write(&saying).await, Outcome::Settled);
    assert_eq!(
        writer.write(&saying).await,
        Outcome::Settled,
        "it stands there already"
    );
    saying.count = 7;
    assert_eq!(writer.write(&saying).await, Outcome::Settled);
    let event = api.state().all("events").remove(0);
    assert_eq!(event["series"]["count"], 7, "{event}");
    assert!(event["series"]["lastObservedTime"].is_string(), "{event}");
}

#[tokio::test]
async fn a_server_that_refuses_or_fails_is_said_once_and_costs_nothing() {
    let api = FakeApi::start().await;
    let agent = source(&[format!("http://127.0.0.1:{}/", api.port)], "n1");
    let mut writer = writer(&agent);
    let saying = saying(1);
    for (code, expected) in [
        (403, Outcome::Settled),
        (422, Outcome::Settled),
        (429, Outcome::Unheard),
        (500, Outcome::Unheard),
        (503, Outcome::Unheard),
    ] {
        api.state().refuse.insert("events".to_owned(), code);
        assert_eq!(writer.write(&saying).await, expected, "{code}");
        assert!(writer.silent);
    }
    api.state().refuse.clear();
    assert_eq!(writer.write(&saying).await, Outcome::Settled);
    assert!(!writer.silent);
}

#[tokio::test]
async fn another_server_takes_what_one_cannot() {
    let api = FakeApi::start().await;
    let [first, second] = [api.another().await, api.another().await];
    let agent = Agent::start(&[first.url(), second.url()], "n1");
    first.end();
    second.end();
    let third = api.another().await;
    agent.task.abort();
    // The body goes with the request to the next one.
    let agent = Agent::start(&[first.url(), second.url(), third.url()], "n1");
    agent.problems.send_replace(vec![web("is odd")]);
    let (_, _, event) = written(&api, 1).await.remove(0);
    assert_eq!(event["note"], "is odd");
}
