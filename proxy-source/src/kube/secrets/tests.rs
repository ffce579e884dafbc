//! Secrets against an API server in this process.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use kube::Config;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;

use super::super::fake::{FakeApi, Streams};
use super::super::{Follow, Kube, Options};
use super::*;
use crate::Source;

const WITHIN: Duration = Duration::from_secs(10);

fn secret(text: &str) -> Value {
    json!({"type": "kubernetes.io/tls", "data": {"tls.key": text},
           "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": text}}})
}

fn names(list: &[&str]) -> BTreeSet<ObjectName> {
    list.iter()
        .map(|text| text.split_once('/').unwrap())
        .map(|(namespace, name)| ObjectName::new(namespace, name))
        .collect()
}

/// What a consumer has.
struct Consumer {
    wanted: watch::Sender<BTreeSet<ObjectName>>,
    changes: mpsc::Receiver<Changes>,
    /// By name; empty: not there.
    known: BTreeMap<String, String>,
    /// In the order in which they came.
    came: Vec<String>,
    others: usize,
}

impl Consumer {
    fn of(api: &FakeApi, follows: Vec<Follow>, wanted: &[&str]) -> Self {
        let (sender, wanted) = watch::channel(names(wanted));
        let options = Options {
            kubeconfig: None,
            api_servers: Vec::new(),
            follows,
            secrets: Some(wanted),
            controller: "weir",
            node: "n1".to_owned(),
            lease: None,
            serves_cluster_ips: false,
            metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
        };
        let config = Config::new(format!("http://127.0.0.1:{}/", api.port).parse().unwrap());
        let source = Box::new(Kube::over(config, false, options).unwrap());
        let (tell, changes) = mpsc::channel(64);
        tokio::spawn(source.run(tell));
        Self {
            wanted: sender,
            changes,
            known: BTreeMap::new(),
            came: Vec::new(),
            others: 0,
        }
    }

    fn take(&mut self, change: Change) {
        let (name, what) = match change {
            Change::Put(Object::Secret(secret)) => {
                assert_eq!(secret.metadata.annotations, None);
                let object = Object::Secret(secret.clone());
                (object.name(), secret.data.unwrap()["tls.key"].clone())
            }
            Change::Delete(Kind::Secret, name) => (name, String::new()),
            Change::Replace(Kind::Secret, _) => panic!("a list of Secrets"),
            _ => {
                self.others += 1;
                return;
            }
        };
        self.came.push(format!("{name}={what}"));
        self.known.insert(name.to_string(), what);
    }

    async fn becomes(&mut self, all: &[(&str, &str)]) {
        let all: BTreeMap<String, String> = all
            .iter()
            .map(|(name, what)| (name.to_string(), what.to_string()))
            .collect();
        let until = Instant::now() + WITHIN;
        while self.known != all {
            let more = tokio::time::timeout_at(until, self.changes.recv()).await;
            let Ok(Some(changes)) = more else {
                panic!("{:?} instead of {all:?}", self.known)
            };
            for change in changes {
                self.take(change);
            }
        }
    }

    /// Nothing more comes.
    async fn stays_quiet(&mut self) {
        let more = tokio::time::timeout(Duration::from_millis(300), self.changes.recv()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

async fn server(streams: Streams) -> FakeApi {
    let api = FakeApi::start().await;
    api.state().streams = streams;
    api.put("secrets", "shop/tls", &secret("YQ=="));
    api.put("secrets", "shop/other", &secret("Yg=="));
    api.put("secrets", "blog/tls", &secret("Yw=="));
    let mut release = secret("ZA==");
    release["type"] = "helm.sh/release.v1".into();
    api.put("secrets", "shop/release", &release);
    api
}

/// What was asked of single Secrets.
fn gets(api: &FakeApi) -> Vec<String> {
    let asked = api.state().asked.clone();
    let single = asked.into_iter().filter(|one| one.contains("/secrets/"));
    single.collect()
}

async fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !what() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn only_those_that_are_wanted_are_asked_for() {
    for streams in [Streams::Yes, Streams::Refused, Streams::Ignored] {
        let api = server(streams).await;
        let mut consumer = Consumer::of(&api, vec![], &["shop/tls", "shop/missing"]);
        consumer
            .becomes(&[("shop/tls", "YQ=="), ("shop/missing", "")])
            .await;
        consumer.wanted.send_replace(names(&["shop/tls", "blog/tls"]));
        consumer
            .becomes(&[("shop/tls", "YQ=="), ("shop/missing", ""), ("blog/tls", "Yw==")])
            .await;
        sleep(Duration::from_millis(600)).await;
        let mut asked = gets(&api);
        asked.sort();
        let expected = ["blog/secrets/tls", "shop/secrets/missing", "shop/secrets/tls"];
        assert_eq!(asked, expected.map(|one| format!("/api/v1/namespaces/{one}")));
        for one in api.state().asked.iter().filter(|one| one.contains("/secrets?")) {
            assert!(one.ends_with("(metadata)"), "{one}");
            assert!(
                one.contains("fieldSelector=type%21%3Dhelm.sh%2Frelease.v1%2Ctype%21%3Dkubernetes.io%2Fservice-account-token"),
                "{one}"
            );
        }
        assert_eq!(consumer.came.len(), 3, "{:?}", consumer.came);
    }
}

#[tokio::test]
async fn changes_of_those_that_are_wanted_are_followed() {
    for streams in [Streams::Yes, Streams::Refused] {
        let api = server(streams).await;
        let mut consumer = Consumer::of(&api, vec![], &["shop/tls"]);
        consumer.becomes(&[("shop/tls", "YQ==")]).await;
        api.put("secrets", "shop/tls", &secret("Yg=="));
        consumer.becomes(&[("shop/tls", "Yg==")]).await;
        api.delete("secrets", "shop/tls");
        consumer.becomes(&[("shop/tls", "")]).await;
        api.put("secrets", "shop/tls", &secret("Yw=="));
        consumer.becomes(&[("shop/tls", "Yw==")]).await;
        // While the watch was away.
        api.unseen("secrets", &[("shop/tls", secret("ZA=="))], &[]);
        api.gone();
        consumer.becomes(&[("shop/tls", "ZA==")]).await;
        api.unseen("secrets", &[], &["shop/tls"]);
        api.gone();
        consumer.becomes(&[("shop/tls", "")]).await;
        // Others are no news.
        api.put("secrets", "shop/other", &secret("ZQ=="));
        consumer.stays_quiet().await;
    }
}

#[tokio::test]
async fn an_older_content_does_not_win() {
    let api = server(Streams::Yes).await;
    let mut consumer = Consumer::of(&api, vec![], &["shop/tls"]);
    consumer.becomes(&[("shop/tls", "YQ==")]).await;
    // This answer is under way when the next change is told.
    api.state().hold.insert("shop/tls".to_owned());
    api.put("secrets", "shop/tls", &secret("b2xk"));
    until(|| gets(&api).len() == 2).await;
    api.put("secrets", "shop/tls", &secret("bmV3"));
    sleep(Duration::from_millis(100)).await;
    api.state().hold.clear();
    consumer.becomes(&[("shop/tls", "bmV3")]).await;
    consumer.stays_quiet().await;
    assert_eq!(consumer.came.last().unwrap(), "shop/tls=bmV3");
}

#[tokio::test]
async fn one_that_cannot_be_read_holds_up_nobody() {
    let api = server(Streams::Yes).await;
    api.put(
        "services",
        "web",
        &json!({"metadata": {"namespace": "shop"}, "spec": {}}),
    );
    for (name, code) in [("tls", 403), ("other", 500)] {
        api.state().refuse.insert(format!("secrets/{name}"), code);
    }
    api.put("secrets", "shop/good", &secret("Z29vZA=="));
    let follows = vec![Follow::all(Kind::Service)];
    let mut consumer = Consumer::of(&api, follows, &["shop/tls", "shop/other", "shop/good"]);
    consumer.becomes(&[("shop/good", "Z29vZA==")]).await;
    assert_eq!(consumer.came, ["shop/good=Z29vZA=="]);
    api.state().refuse.clear();
    consumer
        .becomes(&[
            ("shop/tls", "YQ=="),
            ("shop/other", "Yg=="),
            ("shop/good", "Z29vZA=="),
        ])
        .await;
    assert_eq!(consumer.others, 1, "the Services");
}

#[tokio::test]
async fn without_the_right_to_list_they_are_read_all_the_same() {
    let api = server(Streams::Yes).await;
    api.state().refuse.insert("secrets?".to_owned(), 403);
    let mut consumer = Consumer::of(&api, vec![], &["shop/tls"]);
    consumer.becomes(&[("shop/tls", "YQ==")]).await;
}

#[tokio::test]
async fn in_namespaces_only() {
    let api = server(Streams::Yes).await;
    let namespaces = ["shop".to_owned(), "mill".to_owned()];
    let follows = vec![Follow::secrets().within(&namespaces)];
    let mut consumer = Consumer::of(&api, follows, &["shop/tls", "blog/tls"]);
    consumer.becomes(&[("shop/tls", "YQ=="), ("blog/tls", "")]).await;
    api.put("secrets", "shop/tls", &secret("Yg=="));
    consumer.becomes(&[("shop/tls", "Yg=="), ("blog/tls", "")]).await;
    let asked = api.state().asked.clone();
    assert!(asked.iter().all(|one| !one.contains("/blog/")), "{asked:?}");
    for namespace in &namespaces {
        let path = format!("/api/v1/namespaces/{namespace}/secrets?");
        assert_eq!(asked.iter().filter(|one| one.starts_with(&path)).count(), 1);
    }
}

#[tokio::test]
async fn thousands_come_a_few_at_a_time() {
    let api = FakeApi::start().await;
    let all: Vec<String> = (0..5000).map(|number| format!("shop/s{number}")).collect();
    for name in &all {
        api.put("secrets", name, &secret("YQ=="));
    }
    let wanted: Vec<&str> = all.iter().map(String::as_str).collect();
    let began = Instant::now();
    let mut consumer = Consumer::of(&api, vec![], &wanted);
    while consumer.known.len() < all.len() {
        let changes = consumer.changes.recv().await.unwrap();
        for change in changes {
            consumer.take(change);
        }
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let (_, most) = api.state().at_once;
    assert!((2..=8).contains(&most), "{most} at once");
    assert_eq!(gets(&api).len(), all.len(), "each once");
}

/// All that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn what_is_in_them_is_never_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let api = server(Streams::Yes).await;
    api.state().refuse.insert("secrets/other".to_owned(), 403);
    let broken = json!({"type": "kubernetes.io/tls", "data": "R0VIRUlN",
                        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "R0VIRUlN"}}});
    api.put("secrets", "shop/broken", &broken);
    api.put("secrets", "shop/tls", &secret("R0VIRUlN"));
    let mut consumer = Consumer::of(&api, vec![], &["shop/tls", "shop/broken", "shop/other"]);
    consumer
        .becomes(&[("shop/tls", "R0VIRUlN"), ("shop/broken", "")])
        .await;
    api.put("secrets", "shop/tls", &broken);
    sleep(Duration::from_millis(500)).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("R0VIRUlN"), "{text}");
    let said = |words: &str| {
        text.lines()
            .filter(|line| line.contains("WARN") && line.contains(words))
            .count()
    };
    assert_eq!(
        said("Secret shop/broken is left out: data has another type"),
        1,
        "{text}"
    );
    assert_eq!(said("Secret shop/other cannot be read"), 1, "{text}");
    assert_eq!(
        said("weir needs get, list and watch on secrets in namespace shop"),
        1,
        "{text}"
    );
}
