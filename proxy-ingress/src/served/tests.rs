//! Objects and Secrets in, snapshots out.

use std::net::SocketAddr;

use proxy_model::Object;
use proxy_model::api::ApiSecret;
use serde_json::{Value, json};

use super::*;
use crate::admin::View;
use crate::certificates::Maker;
use crate::model::{self, Model};

const NOW: i64 = 1_790_000_000;

/// A model, and what is served of it.
pub(crate) struct World {
    pub(crate) model: Model,
    served: Served,
    snapshot: Option<Arc<Snapshot>>,
    doors: [(SocketAddr, bool); 2],
}

impl World {
    pub(crate) fn new(default: Option<&str>) -> Self {
        let maker = Maker::new().unwrap();
        let mut model = Model::new(model::Options::default());
        for kind in model::NEEDED {
            model.replace(kind, &[]);
        }
        model.put(&object(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "weir"},
            "spec": {"controller": "weir.network/ingress"},
        })));
        let fixed = Fixed {
            settings: Arc::default(),
            paths: PathOptions::default(),
            tls: UpstreamTls::unverified().unwrap(),
            workers: 1,
            self_signed: Arc::new(maker.self_signed().unwrap()),
            default: default.map(|name| ObjectName::new("shop", name)),
        };
        Self {
            model,
            served: Served::new(fixed, Secrets::new(maker)),
            snapshot: None,
            doors: [(8080, false), (8443, true)].map(|(port, tls)| (([127, 0, 0, 1], port).into(), tls)),
        }
    }

    pub(crate) fn put(&mut self, value: Value) -> Option<Arc<Snapshot>> {
        self.model.put(&object(value));
        self.step()
    }

    pub(crate) fn step(&mut self) -> Option<Arc<Snapshot>> {
        let certificates = self.served.take(&mut self.model.changes());
        if certificates {
            let wanted = self.served.wanted();
            self.served.secrets().keep(&wanted);
        }
        let snapshot = self.served.snapshot();
        self.snapshot = snapshot.clone().or_else(|| self.snapshot.take());
        snapshot
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            model: &self.model,
            served: &self.served,
            snapshot: self.snapshot.as_deref(),
            doors: &self.doors,
            ready: self.snapshot.is_some(),
        }
    }

    pub(crate) fn secret(&mut self, name: &str, host: &str) -> Option<Arc<Snapshot>> {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        self.tell(name, &chain, &key)
    }

    fn tell(&mut self, name: &str, chain: &str, key: &str) -> Option<Arc<Snapshot>> {
        let data = json!({"tls.crt": in_lines(chain), "tls.key": in_lines(key)});
        let secret: ApiSecret = serde_json::from_value(json!({"data": data})).unwrap();
        self.served.secrets().put(shop(name), &secret, NOW);
        self.step()
    }

    /// Names that the certificate for this one covers, of those that the tests use.
    fn shows(&mut self, name: &str) -> Vec<&'static str> {
        let certificate = self.served.certificates.find(Some(name));
        let names = ["a.example", "b.example", "default.example"];
        names
            .into_iter()
            .filter(|name| certificate.covers(name))
            .collect()
    }

    fn problems(&self) -> Vec<String> {
        self.served.problems().iter().map(ToString::to_string).collect()
    }
}

/// Base64 as people paste it.
fn in_lines(text: &str) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(text);
    let lines = text
        .as_bytes()
        .chunks(76)
        .map(|line| String::from_utf8_lossy(line).into_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn object(value: Value) -> Object {
    Object::read(value, &Kind::INGRESS).unwrap().unwrap()
}

fn shop(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

pub(crate) fn ingress(namespace: &str, host: &str, secret: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"namespace": namespace, "name": host, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "ingressClassName": "weir",
            "tls": [{"hosts": [host], "secretName": secret}],
            "rules": [{"host": host, "http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}},
            }]}}],
        },
    })
}

pub(crate) fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

pub(crate) fn slice(addresses: &[&str]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": addresses.iter().map(|address| json!({"addresses": [address], "conditions": {"ready": true}})).collect::<Vec<_>>(),
    })
}

#[test]
fn endpoints_change_inside_of_a_snapshot() {
    let mut world = World::new(None);
    world.put(service());
    let snapshot = world.put(ingress("shop", "a.example", "cert")).unwrap();
    assert_eq!(snapshot.backends.len(), 1);
    assert!(world.put(slice(&["10.0.0.1"])).is_none(), "the backend stays");
    let gone = shop("a.example");
    world.model.delete(Kind::Ingress, &gone);
    let snapshot = world.step().unwrap();
    assert_eq!(snapshot.backends.len(), 0);
    assert!(world.step().is_none(), "nothing is different");
}

#[test]
fn a_secret_that_comes_late_is_shown_when_it_comes() {
    let mut world = World::new(None);
    world.put(ingress("shop", "a.example", "cert"));
    assert_eq!(world.served.wanted(), BTreeSet::from([shop("cert")]));
    assert_eq!(world.served.unanswered(), 1);
    assert_eq!(world.problems(), Vec::<String>::new(), "nobody knows yet");
    world.served.secrets().delete(&shop("cert"));
    world.step();
    assert_eq!(
        (world.served.unanswered(), world.shows("a.example").len()),
        (0, 0)
    );
    let told = world.problems();
    assert!(
        told[0].starts_with(
            "Ingress shop/a.example: spec.tls[0].secretName: Secret shop/cert is not there: the default"
        ),
        "{told:?}"
    );
    assert!(world.secret("cert", "a.example").is_some());
    assert_eq!(world.shows("a.example"), ["a.example"]);
    assert_eq!(world.problems(), Vec::<String>::new());
}

#[test]
fn a_bad_or_deleted_secret_takes_nothing_away() {
    let mut world = World::new(None);
    world.put(ingress("shop", "a.example", "cert"));
    world.secret("cert", "a.example");
    world.tell("cert", "", "");
    assert_eq!(world.shows("a.example"), ["a.example"]);
    let told = world.problems();
    assert!(told[0].starts_with("Secret shop/cert: tls."), "{told:?}");
    assert!(
        told[0].ends_with("its last good certificate is shown until then"),
        "{told:?}"
    );
    world.served.secrets().delete(&shop("cert"));
    world.step();
    assert_eq!(world.shows("a.example"), ["a.example"]);
    let told = world.problems();
    assert!(
        told[0].contains("the last certificate of Secret shop/cert is shown for host a.example"),
        "{told:?}"
    );
}

#[test]
fn a_name_keeps_its_certificate_until_the_next_one_is_there() {
    let mut world = World::new(None);
    world.put(ingress("shop", "a.example", "old"));
    world.secret("old", "a.example");
    world.put(ingress("shop", "a.example", "new"));
    assert_eq!(
        world.shows("a.example"),
        ["a.example"],
        "the new one is not read yet"
    );
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned(), "b.example".to_owned()]).unwrap();
    world.tell("new", &made.cert.pem(), &made.signing_key.serialize_pem());
    assert_eq!(world.shows("a.example"), ["a.example", "b.example"]);
}

#[test]
fn another_namespace_gets_no_certificate_that_is_not_its_own() {
    let mut world = World::new(None);
    world.put(ingress("shop", "a.example", "cert"));
    world.secret("cert", "a.example");
    world.model.delete(Kind::Ingress, &shop("a.example"));
    world.put(ingress("other", "a.example", "cert"));
    assert_eq!(world.shows("a.example").len(), 0);
}

#[test]
fn the_default_certificate_is_for_names_without_one() {
    let mut world = World::new(Some("default"));
    assert!(world.served.wanted().contains(&shop("default")));
    world.served.secrets().delete(&shop("default"));
    world.put(ingress("shop", "a.example", "cert"));
    assert!(
        world.problems()[0].starts_with("Secret shop/default: it is not there"),
        "{:?}",
        world.problems()
    );
    world.secret("default", "default.example");
    assert_eq!(world.shows("a.example"), ["default.example"]);
    assert_eq!(world.shows("other.example"), ["default.example"]);
}

#[test]
fn where_all_are_told_what_is_not_told_is_not_there() {
    let mut world = World::new(None);
    world.put(ingress("shop", "a.example", "cert"));
    world.served.secrets().replace(std::iter::empty(), NOW);
    world.step();
    assert_eq!((world.served.unanswered(), world.problems().len()), (0, 1));
}
