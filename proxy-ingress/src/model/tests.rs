//! The rules of Ingresses by name, from objects to what a request meets.

#![expect(
    clippy::needless_pass_by_value,
    reason = "what json! makes is handed in as it is"
)]

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::*;
use crate::route::{Action, Asked};

/// A model with what most tests need: our class, and Services `web`, `api` and `old` in two namespaces.
struct World(Model);

fn object(value: Value) -> Object {
    Object::read(value, &Kind::INGRESS).unwrap().unwrap()
}

fn service(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

fn slice(service: &str, address: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
           "metadata": {"namespace": "shop", "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
           "ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": [address]}]})
}

/// Ingress `NAMESPACE/NAME` that is `age` days old in a year.
fn ingress(name: &str, age: u32, spec: Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    let created = format!("2026-01-{:02}T00:00:00Z", 31 - age);
    let mut value = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": spec,
        "metadata": {"namespace": namespace, "name": name, "creationTimestamp": created}});
    if value["spec"]["ingressClassName"].is_null() {
        value["spec"]["ingressClassName"] = "weir".into();
    }
    value
}

fn annotated(mut ingress: Value, name: &str, value: &str) -> Value {
    ingress["metadata"]["annotations"][format!("{}{name}", annotations::PREFIX)] = value.into();
    ingress
}

fn to(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"number": 80}}})
}

fn path(sort: &str, path: &str, service: &str) -> Value {
    json!({"path": path, "pathType": sort, "backend": to(service)})
}

fn rule(host: &str, paths: &[Value]) -> Value {
    json!({"host": host, "http": {"paths": paths}})
}

/// An Ingress with one rule for one host, all of it to one Service.
fn simple(name: &str, age: u32, host: &str, service: &str) -> Value {
    ingress(
        name,
        age,
        json!({"rules": [rule(host, &[path("Prefix", "/", service)])]}),
    )
}

impl World {
    fn new(options: Options) -> Self {
        let mut model = Model::new(options);
        let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "weir"},
                           "spec": {"controller": class::CONTROLLER}});
        model.replace(Kind::IngressClass, &[object(class)]);
        let ports = json!({"ports": [{"name": "http", "port": 80}]});
        let mut services = Vec::new();
        for namespace in ["shop", "other"] {
            for name in ["web", "api", "old"] {
                services.push(object(service(namespace, name, ports.clone())));
            }
        }
        model.replace(Kind::Service, &services);
        model.replace(Kind::EndpointSlice, &[]);
        model.replace(Kind::Ingress, &[]);
        assert!(model.changes().is_empty());
        Self(model)
    }

    fn with(objects: &[Value]) -> Self {
        let mut world = Self::new(Options::default());
        for value in objects {
            world.0.put(&object(value.clone()));
        }
        world.0.changes();
        world
    }

    fn put(&mut self, value: Value) -> Changed {
        self.0.put(&object(value));
        self.0.changes()
    }

    /// What `HOST PATH` meets: `SERVICE:PORT`, with ` 308` where clear text is sent to TLS; a status.
    fn serves(&self, request: &str) -> String {
        let (host, path) = request.split_once(' ').unwrap();
        let headers = HeaderMap::new();
        let found = self.0.table.find(&Asked {
            host: Some(host),
            path,
            method: &Method::GET,
            headers: &headers,
            query: None,
        });
        let Some(route) = found.route() else {
            return "404".to_owned();
        };
        let redirect = route
            .policy
            .https_redirect
            .map_or(String::new(), |status| format!(" {}", status.as_u16()));
        match &route.action {
            Action::Forward(to) => format!("{}:{}{redirect}", to[0].backend.service, to[0].backend.port),
            Action::Refuse { status, .. } => status.as_u16().to_string(),
            Action::Redirect(_) => "redirect".to_owned(),
        }
    }

    fn check(&self, requests: &[(&str, &str)]) {
        for (request, expected) in requests {
            assert_eq!(self.serves(request), *expected, "{request}");
        }
    }

    fn said(&self) -> Vec<String> {
        self.0.problems().iter().map(ToString::to_string).collect()
    }

    /// The only problem, which has these words.
    fn says(&self, words: &str) {
        let said = self.said();
        assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:?}");
    }

    fn contested(&self) -> Vec<String> {
        self.0
            .conflicts()
            .iter()
            .map(|one| format!("{}: {one}", one.loser.object))
            .collect()
    }
}

#[test]
fn hosts_and_paths_lead_to_services() {
    let spec = json!({"rules": [
        rule("a.example", &[path("Prefix", "/", "web"), path("Exact", "/api", "api")]),
        rule("*.b.example", &[path("ImplementationSpecific", "", "api")]),
    ]});
    let world = World::with(&[ingress("a", 1, spec)]);
    world.check(&[
        ("a.example /x", "shop/web:http"),
        ("a.example /api", "shop/api:http"),
        ("x.b.example /y", "shop/api:http"),
        ("b.example /", "404"),
    ]);
    assert_eq!(world.said(), Vec::<String>::new());
}

#[test]
fn an_ingress_of_another_class_is_left_alone() {
    let mut theirs = simple("a", 1, "a.example", "missing");
    theirs["spec"]["ingressClassName"] = "nginx".into();
    let mut world = World::with(&[]);
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "nginx"},
                       "spec": {"controller": "k8s.io/ingress-nginx"}});
    world.put(class.clone());
    assert!(world.put(theirs).is_empty());
    assert_eq!(world.0.ours().count(), 0);
    // The class is taken away, as an uninstall does, and comes back as ours.
    world.0.delete(Kind::IngressClass, &ObjectName::new("", "nginx"));
    assert!(world.0.changes().problems.is_some());
    world.says("IngressClass \"nginx\" is not there: not served");
    let mut ours = class;
    ours["spec"]["controller"] = class::CONTROLLER.into();
    assert!(world.put(ours).table.is_some());
    world.says("Service shop/missing is not there");
    world.check(&[("a.example /", "500")]);
    assert_eq!(world.0.ours().count(), 1);
}

#[test]
fn nothing_is_told_before_all_lists_are_complete() {
    let mut model = Model::new(Options::default());
    model.put(&object(simple("a", 1, "a.example", "web")));
    for kind in NEEDED {
        assert!(model.changes().is_empty());
        let list = if kind == Kind::Ingress {
            vec![object(simple("a", 1, "a.example", "web"))]
        } else {
            Vec::new()
        };
        model.replace(kind, &list);
    }
    assert!(model.changes().problems.is_some());
}

#[test]
fn a_bad_path_costs_itself() {
    let paths = [
        (json!({"path": "/a", "backend": to("web")}), "pathType is missing"),
        (path("prefix", "/a", "web"), "pathType \"prefix\" is not known"),
        (path("Prefix", "a", "web"), "does not begin with a slash"),
        (path("Exact", "", "web"), "does not begin with a slash"),
        (path("Prefix", "/a//b", "web"), "\"//\""),
        (path("Prefix", "/a/./b", "web"), "\"/./\""),
        (path("Prefix", "/a/..", "web"), "\"/..\""),
        (path("Exact", "/a%2Fb", "web"), "\"%2f\""),
        (path("ImplementationSpecific", "/a%", "web"), "percent sign"),
        (path("ImplementationSpecific", "/a b", "web"), "byte 0x20"),
    ];
    for (bad, words) in paths {
        let spec = json!({"rules": [rule("a.example", &[bad, path("Prefix", "/good", "web")])]});
        let world = World::with(&[ingress("a", 1, spec)]);
        world.says(words);
        world.check(&[("a.example /good", "shop/web:http"), ("a.example /a", "404")]);
    }
}

#[test]
fn a_path_of_a_rule_has_the_canonical_form() {
    let spec = json!({"rules": [rule("a.example", &[path("Prefix", "/%7Euser/kä", "web")])]});
    World::with(&[ingress("a", 1, spec)]).check(&[("a.example /~user/k%C3%A4/x", "shop/web:http")]);
}

#[test]
fn a_regular_expression_is_told_and_taken_letter_by_letter() {
    let spec = json!({"rules": [rule("a.example", &[path("ImplementationSpecific", "/a(/|$)(.*)", "web")])]});
    let world = World::with(&[ingress("a", 1, spec)]);
    world.says("looks like a regular expression");
    world.check(&[("a.example /a/x", "404")]);
}

#[test]
fn a_bad_host_costs_its_rule() {
    for (host, words) in [
        ("10.0.0.1", "is an address"),
        ("a.example:80", "has a port"),
        ("*", "is no name"),
        ("a.*", "star"),
    ] {
        let good = rule("good.example", &[path("Prefix", "/", "web")]);
        let spec =
            json!({"rules": [rule(host, &[path("Prefix", "/", "api")]), good], "defaultBackend": to("old")});
        let world = World::with(&[ingress("a", 1, spec)]);
        world.says(words);
        world.check(&[
            ("good.example /", "shop/web:http"),
            ("10.0.0.1 /", "404"),
            ("a.example /", "404"),
        ]);
    }
}

#[test]
fn a_backend_that_cannot_be_answers_500_and_takes_its_requests() {
    let backends = [
        (
            json!({"service": {"name": "missing", "port": {"number": 80}}}),
            "Service shop/missing is not there",
        ),
        (
            json!({"service": {"name": "web", "port": {"number": 81}}}),
            "no port 81",
        ),
        (
            json!({"service": {"name": "web", "port": {"name": "x"}}}),
            "no port \"x\"",
        ),
        (json!({"service": {"name": "web"}}), "has no port"),
        (json!({"service": {"port": {"number": 80}}}), "has no name"),
        (
            json!({"service": {"name": "ext", "port": {"number": 80}}}),
            "is an ExternalName",
        ),
        (
            json!({"resource": {"apiGroup": "x.example", "kind": "Bucket", "name": "x"}}),
            "is a resource (\"Bucket\")",
        ),
        (
            json!({"resource": {"kind": "Bucket"}, "service": {"name": "web"}}),
            "a service and a resource",
        ),
        (json!({}), "there is no backend"),
    ];
    let external = service(
        "shop",
        "ext",
        json!({"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 80}]}),
    );
    for (backend, words) in backends {
        let bad = json!({"path": "/bad", "pathType": "Prefix", "backend": backend});
        let spec = json!({"rules": [rule("a.example", &[bad, path("Prefix", "/", "web")])]});
        let world = World::with(&[external.clone(), ingress("a", 1, spec)]);
        world.says(words);
        world.says("is answered with status 500");
        world.check(&[("a.example /bad/x", "500"), ("a.example /", "shop/web:http")]);
    }
}

#[test]
fn a_service_of_another_namespace_is_not_there() {
    let world = World::with(&[
        service("other", "secret", json!({"ports": [{"port": 80}]})),
        simple("a", 1, "a.example", "secret"),
    ]);
    world.check(&[("a.example /", "500")]);
}

#[test]
fn a_service_that_comes_later_is_served() {
    let mut world = World::with(&[simple("a", 1, "a.example", "late")]);
    world.check(&[("a.example /", "500")]);
    let changed = world.put(service(
        "shop",
        "late",
        json!({"ports": [{"name": "x", "port": 80}]}),
    ));
    world.check(&[("a.example /", "shop/late:x")]);
    assert_eq!(changed.problems.map(|problems| problems.len()), Some(0));
    assert_eq!(changed.backends.len(), 1);
    world.0.delete(Kind::Service, &ObjectName::new("shop", "late"));
    assert!(world.0.changes().table.is_some());
    world.check(&[("a.example /", "500")]);
}

#[test]
fn a_service_that_changes_without_effect_builds_no_host() {
    let mut world = World::with(&[simple("a", 1, "a.example", "web")]);
    let ports = json!({"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]});
    let changed = world.put(service("shop", "web", ports));
    assert!(changed.is_empty(), "{changed:?}");
    let ports = json!({"ports": [{"name": "web", "port": 80}]});
    assert!(world.put(service("shop", "web", ports)).table.is_some());
    world.check(&[("a.example /", "shop/web:web")]);
}

#[test]
fn a_default_backend_is_for_the_hosts_that_its_ingress_names() {
    let spec = json!({"defaultBackend": to("old"), "rules": [rule("a.example", &[path("Prefix", "/a", "web")]), {"host": "b.example"}]});
    let world = World::with(&[
        ingress("a", 1, spec),
        ingress("all", 0, json!({"defaultBackend": to("api")})),
    ]);
    world.check(&[
        ("a.example /a", "shop/web:http"),
        ("a.example /x", "shop/old:http"),
        ("b.example /x", "shop/old:http"),
        ("c.example /x", "shop/api:http"),
    ]);
    assert_eq!(world.said(), Vec::<String>::new());
}

#[test]
fn of_two_default_backends_the_older_ingress_has_it() {
    let default = |service| json!({"defaultBackend": to(service)});
    let world = World::with(&[
        ingress("young", 1, default("web")),
        ingress("old", 2, default("old")),
    ]);
    world.check(&[("x.example /", "shop/old:http")]);
    assert_eq!(
        world.contested(),
        ["shop/young: host (any), (default backend) is Ingress shop/old's, which comes first: not served"]
    );
}

#[test]
fn a_default_backend_that_cannot_be_is_500() {
    let world = World::with(&[ingress("a", 1, json!({"defaultBackend": to("missing")}))]);
    world.says("spec.defaultBackend is answered with status 500");
    world.check(&[("a.example /", "500")]);
}

#[test]
fn an_ingress_that_asks_for_nothing_is_told() {
    World::with(&[ingress("a", 1, json!({}))]).says("neither rules nor a defaultBackend");
    let spec = json!({"rules": [{"host": "a.example"}]});
    World::with(&[ingress("a", 1, spec)]).says("rule 0 has no paths, and there is no defaultBackend");
}

#[test]
fn tls_redirects_clear_text_except_acme_challenges() {
    let paths = [
        path("Prefix", "/", "web"),
        path("Exact", "/.well-known/acme-challenge/token", "api"),
    ];
    let spec = json!({"tls": [{"hosts": ["a.example"], "secretName": "cert"}],
                      "rules": [rule("a.example", &paths), rule("b.example", &paths)]});
    let plain = ingress("a", 1, spec);
    let world = World::with(std::slice::from_ref(&plain));
    let challenge = "a.example /.well-known/acme-challenge/token";
    world.check(&[
        ("a.example /", "shop/web:http 308"),
        (challenge, "shop/api:http"),
        ("b.example /", "shop/web:http"),
    ]);
    let world = World::with(&[annotated(plain.clone(), "https-redirect", "false")]);
    world.check(&[("a.example /", "shop/web:http")]);
    let world = World::with(&[annotated(plain, "https-redirect", "always")]);
    world.check(&[("b.example /", "shop/web:http 308"), (challenge, "shop/api:http")]);
}

#[test]
fn annotations_are_for_their_own_ingress() {
    let one = annotated(simple("a", 1, "a.example", "web"), "tries", "7");
    let two = ingress(
        "b",
        1,
        json!({"rules": [rule("a.example", &[path("Prefix", "/b", "web")])]}),
    );
    let world = World::with(&[one, two]);
    let host = HostMatch::Exact("a.example".into());
    let mut tries: Vec<(&str, u32)> = Vec::new();
    for route in world.0.table.host(&host).unwrap().routes() {
        tries.push((route.path.text(), route.policy.retry.tries));
    }
    assert_eq!(tries, [("/", 7), ("/b", 3)]);
    World::with(&[annotated(simple("a", 1, "a.example", "web"), "tries", "x")])
        .says("tries is \"x\": the default holds");
}

#[test]
fn the_oldest_ingress_has_a_path_and_losers_are_listed() {
    let of = |name, age, service| simple(name, age, "a.example", service);
    let world = World::with(&[of("b", 2, "web"), of("a", 2, "old"), of("c", 1, "api")]);
    world.check(&[("a.example /", "shop/old:http")]);
    assert_eq!(
        world.contested(),
        [
            "shop/b: host a.example, / (Prefix) is Ingress shop/a's, which comes first: not served",
            "shop/c: host a.example, / (Prefix) is Ingress shop/a's, which comes first: not served",
        ]
    );
}

#[test]
fn a_loser_takes_over_when_the_winner_goes() {
    let mut world = World::with(&[
        simple("old", 2, "a.example", "old"),
        simple("young", 1, "a.example", "web"),
    ]);
    world.0.delete(Kind::Ingress, &ObjectName::new("shop", "old"));
    let changed = world.0.changes();
    world.check(&[("a.example /", "shop/web:http")]);
    assert_eq!(changed.conflicts.map(|conflicts| conflicts.len()), Some(0));
    assert_eq!(world.0.ingresses.len(), 1);
}

#[test]
fn a_path_that_is_there_twice_is_told() {
    let paths = [
        path("Prefix", "/a", "web"),
        path("Prefix", "/a", "api"),
        path("Exact", "/a", "old"),
        path("Prefix", "/a/", "old"),
    ];
    let world = World::with(&[ingress("a", 1, json!({"rules": [rule("a.example", &paths)]}))]);
    assert_eq!(
        world.contested(),
        ["shop/a: host a.example, /a (Prefix) is there twice: the first one is served; remove the other"]
    );
}

#[test]
fn paths_of_several_ingresses_and_namespaces_are_merged() {
    let more = ingress(
        "other/b",
        1,
        json!({"rules": [rule("a.example", &[path("Prefix", "/b", "web")])]}),
    );
    let world = World::with(&[simple("a", 2, "a.example", "web"), more]);
    world.check(&[
        ("a.example /b", "other/web:http"),
        ("a.example /x", "shop/web:http"),
    ]);
    assert_eq!(world.contested(), Vec::<String>::new());
}

#[test]
fn a_host_can_be_its_first_namespaces() {
    let mut world = World::new(Options {
        ownership: HostOwnership::FirstNamespace,
        ..Options::default()
    });
    let tls = json!([{"hosts": ["a.example"], "secretName": "theirs"}]);
    let more = json!({"rules": [rule("a.example", &[path("Prefix", "/b", "web")]), rule("", &[path("Prefix", "/c", "api")])], "tls": tls});
    world.put(ingress("other/b", 1, more.clone()));
    assert!(world.0.certificates.find(Some("a.example")).is_some());
    world.put(simple("a", 2, "a.example", "web"));
    world.check(&[
        ("a.example /b", "shop/web:http"),
        ("b.example /c", "other/api:http"),
    ]);
    assert!(world.0.certificates.find(Some("a.example")).is_none());
    assert_eq!(
        world.contested(),
        ["other/b: host a.example is namespace shop's, by Ingress shop/a: not served; choose another host"]
    );
}

#[test]
fn certificates_are_planned_and_contested() {
    let with = |name, age, secret| {
        let spec = json!({"tls": [{"hosts": ["a.example"], "secretName": secret}], "rules": [rule("a.example", &[path("Prefix", "/", "web")])]});
        ingress(name, age, spec)
    };
    let mut world = World::with(&[with("young", 1, "young-cert")]);
    let changed = world.put(with("old", 2, "old-cert"));
    let plan = changed.certificates.unwrap();
    let secret = plan.find(Some("a.example")).unwrap().secret.clone();
    assert_eq!(secret, Some(ObjectName::new("shop", "old-cert")));
    assert!(
        world
            .contested()
            .iter()
            .any(|one| one.starts_with("shop/young: the certificate for host a.example"))
    );
    assert!(
        world.put(with("third", 0, "old-cert")).certificates.is_none(),
        "nothing new for clients"
    );
}

#[test]
fn only_what_is_different_is_told() {
    let mut world = World::with(&[
        simple("a", 1, "a.example", "web"),
        simple("b", 1, "b.example", "api"),
    ]);
    assert!(
        world.put(simple("a", 1, "a.example", "web")).is_empty(),
        "the same again"
    );
    let changed = world.put(slice("web", "10.0.0.1"));
    assert!(changed.table.is_none() && changed.certificates.is_none() && changed.problems.is_none());
    let [(backend, Some(state))] = &changed.backends[..] else {
        panic!("{changed:?}");
    };
    assert_eq!((backend.service.name.as_str(), &*backend.port), ("web", "http"));
    assert_eq!(state.endpoints.len(), 1);
    assert!(world.put(slice("web", "10.0.0.1")).is_empty(), "the same again");
    assert!(
        world.put(slice("nobodys", "10.0.0.9")).is_empty(),
        "no route leads there"
    );
    let before = world.0.table.clone();
    let changed = world.put(simple("a", 1, "a.example", "old"));
    let (a, b) = (
        HostMatch::Exact("a.example".into()),
        HostMatch::Exact("b.example".into()),
    );
    let after = changed.table.unwrap();
    assert!(!std::ptr::eq(before.host(&a).unwrap(), after.host(&a).unwrap()));
    assert!(
        std::ptr::eq(before.host(&b).unwrap(), after.host(&b).unwrap()),
        "another host is left as it is"
    );
    let mut told: Vec<(&str, bool)> = Vec::new();
    for (backend, state) in &changed.backends {
        told.push((&backend.service.name, state.is_some()));
    }
    assert_eq!(
        told,
        [("old", true), ("web", false)],
        "a backend that is new, and one that nobody uses any more"
    );
}

#[test]
fn a_slice_that_goes_or_changes_its_service_is_noticed() {
    let mut world = World::with(&[
        simple("a", 1, "a.example", "web"),
        simple("b", 1, "b.example", "api"),
    ]);
    world.put(slice("web", "10.0.0.1"));
    let mut moved = slice("web", "10.0.0.1");
    moved["metadata"]["labels"]["kubernetes.io/service-name"] = "api".into();
    let counts = |changed: &Changed| {
        let backends = changed.backends.iter();
        let count = |(backend, state): &(Backend, Option<BackendState>)| {
            (
                backend.service.name.clone(),
                state.as_ref().unwrap().endpoints.len(),
            )
        };
        backends.map(count).collect::<Vec<_>>()
    };
    assert_eq!(
        counts(&world.put(moved)),
        [("api".to_owned(), 1), ("web".to_owned(), 0)]
    );
    world.0.replace(Kind::EndpointSlice, &[]);
    assert_eq!(counts(&world.0.changes()), [("api".to_owned(), 0)]);
}

#[test]
fn a_bad_endpoint_is_told_where_a_route_leads_there() {
    let mut world = World::with(&[]);
    world.put(slice("web", "127.0.0.1"));
    assert_eq!(world.said(), Vec::<String>::new());
    world.put(simple("a", 1, "a.example", "web"));
    world.says("EndpointSlice shop/web-1: endpoint 127.0.0.1 is");
    world.put(slice("web", "10.0.0.1"));
    assert_eq!(world.said(), Vec::<String>::new());
}

#[test]
fn a_problem_has_the_uid_of_its_object() {
    let mut bad = simple("a", 1, "a.example", "missing");
    bad["metadata"]["uid"] = "u-1".into();
    let world = World::with(&[bad]);
    assert_eq!(world.0.problems()[0].uid.as_deref(), Some("u-1"));
}

mod nonsense {
    use proptest::prelude::*;

    use super::*;

    fn word() -> impl Strategy<Value = Value> {
        let odd = [
            "",
            " ",
            "*",
            "*.",
            ".",
            "/",
            "//",
            "a.example",
            "%",
            "..",
            "-1",
            "0",
            "none",
            "\u{0}",
            "ä",
            "Prefix",
            "Exact",
        ];
        prop_oneof![
            4 => prop::sample::select(odd.to_vec()).prop_map(Value::from),
            2 => any::<String>().prop_map(Value::from),
            1 => Just(Value::Null),
        ]
    }

    fn backend() -> impl Strategy<Value = Value> {
        let number = prop::option::of(prop_oneof![Just(80), any::<i64>()]);
        let name = prop_oneof![Just(Value::from("web")), word()];
        (name, word(), number, any::<bool>()).prop_map(|(name, port, number, resource)| {
            let service = json!({"name": name, "port": {"name": port, "number": number}});
            json!({"service": service, "resource": resource.then(|| json!({"kind": port}))})
        })
    }

    fn spec() -> impl Strategy<Value = Value> {
        let path = (word(), word(), backend());
        let path = path
            .prop_map(|(path, sort, backend)| json!({"path": path, "pathType": sort, "backend": backend}));
        let rule = (word(), prop::option::of(prop::collection::vec(path, 0..3)));
        let rule = rule.prop_map(|(host, paths)| json!({"host": host, "http": {"paths": paths}}));
        let tls = (prop::option::of(prop::collection::vec(word(), 0..3)), word());
        let tls = tls.prop_map(|(hosts, secret)| json!({"hosts": hosts, "secretName": secret}));
        let lists = (
            prop::collection::vec(rule, 0..4),
            prop::collection::vec(tls, 0..3),
        );
        (lists, prop::option::of(backend())).prop_map(|((rules, tls), default)| {
            json!({"rules": rules, "tls": tls, "defaultBackend": default, "ingressClassName": "weir"})
        })
    }

    /// Names and values of annotations that are ours.
    fn annotations() -> impl Strategy<Value = Vec<(&'static str, String)>> {
        let name = prop::sample::select(vec![
            "tries",
            "body-limit",
            "idle-timeout",
            "hash-on",
            "balance",
            "cookie-path",
            "tls-passthrough",
            "client-auth-secret",
            "client-auth",
            "x",
        ]);
        let value = prop_oneof![
            any::<String>(),
            "[0-9]{1,25}[a-z]{0,2}",
            "header:.{0,4}",
            "true|ca|odd/ca"
        ];
        prop::collection::vec((name, value), 0..3)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn an_ingress_of_nonsense_costs_only_itself(spec in spec(), annotations in annotations()) {
            let mut odd = ingress("odd", 0, spec);
            for (name, value) in annotations {
                odd = annotated(odd, name, &value);
            }
            let mut read = Object::read(odd, &Kind::INGRESS);
            // A text where the API has one, or nothing: only a null in a list is another shape.
            let mut world = World::with(&[simple("good", 9, "good.example", "web")]);
            if let Ok(Some(object)) = &mut read {
                world.0.put(object);
                world.0.changes();
            }
            prop_assert_eq!(world.serves("good.example /x"), "shop/web:http");
            let told = world.said();
            prop_assert!(told.iter().all(|line| line.starts_with("Ingress shop/odd: ")), "{:?}", told);
            prop_assert!(told.iter().all(|line| !line.contains(char::is_control)), "{:?}", told);
            world.0.delete(Kind::Ingress, &ObjectName::new("shop", "odd"));
            world.0.changes();
            prop_assert_eq!(world.said(), Vec::<String>::new());
        }
    }
}

#[test]
fn the_oldest_ingress_says_how_a_backend_is_checked() {
    let checked = |name: &str, age, how: &str| {
        annotated(
            simple(name, age, &format!("{name}.example"), "web"),
            "health-check-path",
            how,
        )
    };
    let how = |world: &World| {
        let used = world.0.backends.values().next().unwrap();
        let check = used.state.clone().unwrap().check;
        check.map(|check| check.path.unwrap_or_else(|| "tcp".into()).into_string())
    };
    let mut world = World::with(&[
        simple("plain", 9, "a.example", "web"),
        checked("young", 1, "/young"),
    ]);
    assert_eq!(how(&world).as_deref(), Some("/young"));
    assert_eq!(world.put(checked("old", 5, "tcp")).backends.len(), 1);
    assert_eq!(how(&world).as_deref(), Some("tcp"));
    for (name, expected) in [("old", Some("/young")), ("young", None)] {
        world.0.delete(Kind::Ingress, &ObjectName::new("shop", name));
        world.0.changes();
        assert_eq!(how(&world).as_deref(), expected);
    }
}

/// Hosts that are passed through, with their backends.
fn passed(world: &World) -> Vec<String> {
    let passes = world.0.passes.values();
    passes
        .map(|pass| {
            let backend = pass
                .backend
                .as_ref()
                .map(|to| format!("{}:{}", to.service, to.port));
            format!("{} {}", pass.host, backend.as_deref().unwrap_or("(closed)"))
        })
        .collect()
}

fn passing(ingress: Value) -> Value {
    annotated(ingress, "tls-passthrough", "true")
}

#[test]
fn a_host_is_passed_through_to_what_its_root_leads_to() {
    let several = rule(
        "b.example",
        &[path("Prefix", "/x", "api"), path("Prefix", "/", "web")],
    );
    let spec = json!({"rules": [rule("*.a.example", &[path("ImplementationSpecific", "", "api")]), several]});
    let mut world = World::with(&[passing(ingress("a", 1, spec))]);
    assert_eq!(
        passed(&world),
        ["b.example shop/web:http", "*.a.example shop/api:http"]
    );
    world.says("rule 1 has several paths, which mean nothing where TLS is passed through");
    // In clear text they are sent to HTTPS, and over a connection of ours there is nothing of them.
    world.check(&[("b.example /x", "421"), ("x.a.example /", "421")]);
    let found = world.0.hosts[&HostMatch::Exact("b.example".into())]
        .routes
        .values()
        .next();
    let status = found.unwrap()[0].policy.https_redirect;
    assert_eq!(status, Some(http::StatusCode::PERMANENT_REDIRECT));
    let pass = world.0.passes.values().next().unwrap();
    assert_eq!(pass.policy.idle_timeout, std::time::Duration::from_hours(1));
    // The backends are known though no route leads there, and go with the last Ingress.
    assert_eq!(world.0.backends.len(), 2);
    world.0.delete(Kind::Ingress, &ObjectName::new("shop", "a"));
    let changed = world.0.changes();
    assert_eq!(changed.passes, Some(BTreeMap::new()));
    assert_eq!(changed.backends.len(), 2);
    assert!(world.0.hosts.is_empty() && world.said().is_empty());
}

#[test]
fn what_cannot_be_passed_through_is_told_and_closed() {
    let host = |rules: Value| passing(ingress("a", 1, json!({"rules": rules})));
    for (object, expected, words) in [
        (
            host(json!([rule("", &[path("Prefix", "/", "web")])])),
            "",
            "write a host",
        ),
        (
            host(json!([rule("a.example", &[path("Prefix", "/x", "web")])])),
            "a.example (closed)",
            "connections for host a.example are closed: it has no path /",
        ),
        (
            host(json!([rule("a.example", &[path("Prefix", "/", "missing")])])),
            "a.example (closed)",
            "connections for host a.example are closed: Service shop/missing is not there",
        ),
        (
            passing(ingress(
                "a",
                1,
                json!({"rules": [rule("a.example", &[path("Prefix", "/", "web")])],
                                           "tls": [{"hosts": ["a.example"], "secretName": "s"}]}),
            )),
            "a.example shop/web:http",
            "spec.tls names a Secret",
        ),
        (
            passing(ingress(
                "a",
                1,
                json!({"rules": [rule("a.example", &[path("Prefix", "/", "web")])],
                                           "defaultBackend": to("api")}),
            )),
            "a.example shop/web:http",
            "spec.defaultBackend does nothing",
        ),
        (
            annotated(passing(simple("a", 1, "a.example", "web")), "balance", "cookie"),
            "a.example shop/web:http",
            "round-robin holds",
        ),
        (
            annotated(
                passing(simple("a", 1, "a.example", "web")),
                "client-auth-secret",
                "ca",
            ),
            "a.example shop/web:http",
            "client-auth... do nothing",
        ),
    ] {
        let world = World::with(&[object]);
        assert_eq!(passed(&world).join(", "), expected);
        world.says(words);
        assert!(world.0.certificates.secrets().is_empty() && world.0.demands.is_empty());
    }
}

fn terminating(name: &str, age: u32, host: &str) -> Value {
    let spec = json!({"rules": [rule(host, &[path("Prefix", "/", "api")])],
                      "tls": [{"hosts": [host], "secretName": format!("cert-{name}")}]});
    ingress(name, age, spec)
}

#[test]
fn a_host_is_passed_through_or_terminated_as_the_oldest_says() {
    let pass = |name: &str, age| passing(simple(name, age, "a.example", "web"));
    let world = World::with(&[
        pass("old", 9),
        terminating("young", 1, "a.example"),
        pass("late", 2),
    ]);
    assert_eq!(passed(&world), ["a.example shop/web:http"]);
    assert!(world.0.certificates.find(Some("a.example")).is_none());
    let by_old =
        "TLS for host a.example is passed through by Ingress shop/old, which comes first: only that is done";
    let told = world.contested();
    for loser in ["late", "young"] {
        assert!(told.contains(&format!("shop/{loser}: {by_old}")), "{told:?}");
    }
    let mut world = World::with(&[terminating("old", 9, "a.example"), pass("young", 1)]);
    assert!(passed(&world).is_empty());
    assert!(world.0.certificates.find(Some("a.example")).is_some());
    let told = world.contested();
    assert!(
        told[0].contains("shop/young: host a.example, / (Prefix) is Ingress shop/old's"),
        "{told:?}"
    );
    assert!(
        told[1].contains("Ingress shop/old has a certificate for host a.example"),
        "{told:?}"
    );
    // The younger takes over when the older goes.
    world.0.delete(Kind::Ingress, &ObjectName::new("shop", "old"));
    world.0.changes();
    assert_eq!(passed(&world), ["a.example shop/web:http"]);
    assert!(world.contested().is_empty());
}

#[test]
fn a_stranger_passes_nothing_through_and_asks_nobody_for_certificates_in_a_host_of_others() {
    let options = Options {
        ownership: HostOwnership::FirstNamespace,
        ..Options::default()
    };
    let mut world = World::new(options);
    world.put(simple("shop/own", 9, "a.example", "web"));
    world.put(passing(simple("other/pass", 1, "a.example", "web")));
    world.put(asking(simple("other/ask", 1, "a.example", "web"), "ca"));
    assert!(passed(&world).is_empty() && world.0.demands.is_empty());
}

fn asking(ingress: Value, secret: &str) -> Value {
    annotated(ingress, "client-auth-secret", secret)
}

fn demanded(world: &World) -> Vec<String> {
    let demands = world.0.demands.values();
    demands
        .map(|demand| {
            let secret = demand.secret.as_ref().map(ToString::to_string);
            format!(
                "{} {} {:?}",
                demand.host,
                secret.as_deref().unwrap_or("(nobody)"),
                demand.mode
            )
        })
        .collect()
}

#[test]
fn clients_of_a_host_show_a_certificate() {
    let optional = annotated(
        asking(simple("b", 1, "*.b.example", "web"), "shop/ca-2"),
        "client-auth",
        "optional",
    );
    let mut world = World::with(&[asking(simple("a", 1, "a.example", "web"), "ca"), optional]);
    assert_eq!(
        demanded(&world),
        ["a.example shop/ca Require", "*.b.example shop/ca-2 Optional"]
    );
    assert_eq!(doors::secrets(&world.0.demands).len(), 2);
    assert_eq!(world.said(), Vec::<String>::new());
    // In clear text there is nothing to show, so nobody stays there.
    world.check(&[
        ("a.example /", "shop/web:http 308"),
        ("x.b.example /", "shop/web:http 308"),
    ]);
    assert_eq!(
        world
            .put(simple("a", 1, "a.example", "web"))
            .demands
            .map(|demands| demands.len()),
        Some(1)
    );
}

#[test]
fn a_demand_that_makes_no_sense_lets_nobody_in() {
    for (object, words) in [
        (
            asking(simple("a", 1, "a.example", "web"), "other/ca"),
            "names a Secret of namespace \"other\": copy it",
        ),
        (
            asking(simple("a", 1, "a.example", "web"), "No Name"),
            "which is no name",
        ),
        (
            annotated(simple("a", 1, "a.example", "web"), "client-auth", "optional"),
            "client-auth-secret is missing",
        ),
    ] {
        let world = World::with(&[object]);
        assert!(demanded(&world)[0].starts_with("a.example (nobody) "));
        world.says(&format!(
            "TLS for its hosts is refused: annotation {}client-auth-secret",
            annotations::PREFIX
        ));
        world.says(words);
    }
    let bad = annotated(
        asking(simple("a", 1, "a.example", "web"), "ca"),
        "client-auth",
        "maybe",
    );
    let world = World::with(&[bad]);
    assert_eq!(demanded(&world), ["a.example shop/ca Require"]);
    world.says("the default holds; use require or optional");
    let world = World::with(&[asking(simple("a", 1, "", "web"), "ca")]);
    world.says("rule 0 is not served: clients are authenticated by the host that they ask for");
    world.check(&[("a.example /", "404")]);
    let world = World::with(&[asking(
        ingress("a", 1, json!({"defaultBackend": to("web")})),
        "ca",
    )]);
    world.says("spec.defaultBackend is not served: clients are authenticated");
    world.check(&[("a.example /", "404")]);
    let useless = annotated(
        simple("a", 1, "a.example", "web"),
        "client-auth-pass-certificate",
        "true",
    );
    World::with(&[useless]).says("does nothing without");
}

#[test]
fn of_several_demands_the_oldest_ingress_has_the_host() {
    let plain = simple("plain", 20, "a.example", "old");
    let object = |name: &str, age, secret: &str| asking(simple(name, age, "a.example", "web"), secret);
    let world = World::with(&[
        object("young", 1, "ca-2"),
        object("old", 9, "ca"),
        object("same", 5, "ca"),
        plain,
    ]);
    assert_eq!(demanded(&world), ["a.example shop/ca Require"]);
    let told = world.contested();
    let words = "how clients of host a.example are authenticated is Ingress shop/old's to say";
    let told: Vec<&String> = told.iter().filter(|what| what.contains(words)).collect();
    assert!(told.len() == 1 && told[0].starts_with("shop/young: "), "{told:?}");
}
