//! Objects that come, change and go in any order: what was told on the way adds up to what a model that starts with the last
//! state of all says at once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::class::{ANNOTATION, CONTROLLER};
use super::doors::{Demands, Passes};
use super::endpoints::BackendState;
use super::hosts::HostOwnership;
use super::{Changed, Model, NEEDED, Options};
use crate::route::{Backend, HostMatch, Origin, Route};
use proxy_model::{Kind, Object, ObjectName, Problem};

const CASES: u32 = 1_000;

/// An object by kind and name, with a number that says what is in it; none: it is gone.
type Step = (Kind, ObjectName, Option<u32>);

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![
        Kind::Ingress,
        Kind::Ingress,
        Kind::Ingress,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::IngressClass,
    ]);
    let place = (
        prop::sample::select(vec!["x", "y"]),
        prop::sample::select(vec!["a", "b"]),
    );
    (kind, place, prop::option::weighted(0.8, 0..10_000_u32)).prop_map(|(kind, (namespace, name), what)| {
        let namespace = if kind == Kind::IngressClass { "" } else { namespace };
        (kind, ObjectName::new(namespace, name), what)
    })
}

/// What a number makes of an object: its digits choose.
fn object(kind: Kind, name: &ObjectName, number: u32) -> Object {
    let digit = |place: u32| number / 10_u32.pow(place) % 10;
    let mut value = match kind {
        Kind::Ingress => ingress(digit(0), digit(1), digit(2), digit(3)),
        Kind::Service => {
            let port = if digit(0) < 7 { 80 } else { 81 };
            let name = if digit(1) < 5 { "http" } else { "web" };
            let sort = if digit(2) == 0 {
                "ExternalName"
            } else {
                "ClusterIP"
            };
            json!({"spec": {"type": sort, "ports": [{"name": name, "port": port}]}})
        }
        Kind::EndpointSlice => {
            let service = if digit(0) < 5 { "a" } else { "b" };
            let address = if digit(1) == 0 {
                "127.0.0.1".to_owned()
            } else {
                format!("10.0.0.{}", digit(1))
            };
            let port = if digit(2) < 5 { "http" } else { "web" };
            json!({"addressType": "IPv4", "metadata": {"labels": {"kubernetes.io/service-name": service}},
                   "ports": [{"name": port, "port": 8080}], "endpoints": [{"addresses": [address]}]})
        }
        _ => {
            let controller = if digit(0) < 8 {
                CONTROLLER
            } else {
                "example.com/other"
            };
            let parameters = (digit(1) == 0).then(|| json!({"kind": "X", "name": "x"}));
            json!({"metadata": {"annotations": {"ingressclass.kubernetes.io/is-default-class": (digit(2) < 3).to_string()}},
                   "spec": {"controller": controller, "parameters": parameters}})
        }
    };
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.to_string().into();
    value["metadata"]["namespace"] = name.namespace.clone().into();
    value["metadata"]["name"] = name.name.clone().into();
    value["metadata"]["creationTimestamp"] = format!("2026-01-0{}T00:00:00Z", 1 + digit(3) % 3).into();
    Object::read(value, &Kind::INGRESS).unwrap().unwrap()
}

fn ingress(host: u32, path: u32, service: u32, class: u32) -> Value {
    let hosts = ["one.example", "two.example", "*.example", "", "10.0.0.1"];
    let paths = ["/", "/a", "/a/", "a", "/b"];
    let host = hosts.get(host as usize / 2).copied().unwrap_or_default();
    let path = paths.get(path as usize / 2).copied().unwrap_or_default();
    let backend = json!({"service": {"name": if service < 5 { "a" } else { "b" }, "port": {"number": 80}}});
    let mut spec = json!({"rules": [{"host": host, "http": {"paths": [
        {"path": path, "pathType": if service.is_multiple_of(2) { "Prefix" } else { "Exact" }, "backend": backend}]}}]});
    if service.is_multiple_of(3) {
        spec["defaultBackend"] = backend;
    }
    if service.is_multiple_of(4) {
        spec["tls"] = json!([{"hosts": [host], "secretName": format!("cert-{service}")}]);
    }
    let mut annotations = json!({});
    match class {
        0 => {}
        1 => annotations[ANNOTATION] = "a".into(),
        2 => spec["ingressClassName"] = "b".into(),
        _ => spec["ingressClassName"] = "a".into(),
    }
    match class {
        4 => annotations["ingress.weir.network/tries"] = "none".into(),
        7 => annotations["ingress.weir.network/health-check-path"] = format!("/{service}").into(),
        5 => annotations["ingress.weir.network/tls-passthrough"] = "true".into(),
        6 => annotations["ingress.weir.network/client-auth-secret"] = format!("ca-{}", service % 2).into(),
        _ => {}
    }
    json!({"spec": spec, "metadata": {"annotations": annotations}})
}

/// What was told, added up.
#[derive(Default, PartialEq, Debug)]
struct View {
    routes: BTreeMap<HostMatch, Vec<Route>>,
    backends: BTreeMap<Backend, BackendState>,
    certificates: BTreeMap<HostMatch, (Option<ObjectName>, Origin)>,
    passes: Passes,
    demands: Demands,
    problems: Vec<Problem>,
    conflicts: Vec<String>,
}

impl View {
    fn take(&mut self, changed: Changed) {
        if let Some(table) = changed.table {
            let routes = table.hosts().map(|host| {
                (
                    host.host().clone(),
                    host.routes().map(|route| Route::clone(route)).collect(),
                )
            });
            self.routes = routes.collect();
        }
        for (backend, state) in changed.backends {
            match state {
                Some(state) => assert_ne!(self.backends.insert(backend, state.clone()), Some(state), "news"),
                None => drop(self.backends.remove(&backend)),
            }
        }
        if let Some(certificates) = changed.certificates {
            let choices = certificates.choices();
            self.certificates = choices
                .map(|choice| {
                    (
                        choice.host.clone(),
                        (choice.secret.clone(), choice.origin.clone()),
                    )
                })
                .collect();
        }
        if let Some(passes) = changed.passes {
            assert_ne!(
                std::mem::replace(&mut self.passes, passes.clone()),
                passes,
                "news"
            );
        }
        if let Some(demands) = changed.demands {
            assert_ne!(
                std::mem::replace(&mut self.demands, demands.clone()),
                demands,
                "news"
            );
        }
        if let Some(problems) = changed.problems {
            self.problems = problems;
        }
        if let Some(conflicts) = changed.conflicts {
            self.conflicts = conflicts.iter().map(|one| format!("{one:?}")).collect();
        }
    }
}

fn play(steps: &[Step], ownership: HostOwnership, pause: usize) -> (View, BTreeMap<(Kind, ObjectName), u32>) {
    let options = Options {
        ownership,
        ..Options::default()
    };
    let mut model = Model::new(options);
    for kind in NEEDED {
        model.replace(kind, &[]);
    }
    let (mut view, mut last) = (View::default(), BTreeMap::new());
    for (place, (kind, name, what)) in (1_usize..).zip(steps) {
        if let Some(number) = what {
            model.put(&object(*kind, name, *number));
            last.insert((*kind, name.clone()), *number);
        } else {
            model.delete(*kind, name);
            last.remove(&(*kind, name.clone()));
        }
        if place.is_multiple_of(pause) {
            view.take(model.changes());
        }
    }
    view.take(model.changes());
    assert!(model.changes().is_empty());
    // What no Ingress asks for leaves nothing behind.
    let ingresses: Vec<_> = last.keys().filter(|(kind, _)| *kind == Kind::Ingress).collect();
    assert_eq!(model.ingresses.len(), ingresses.len());
    assert!(model.hosts.values().all(|host| !host.is_empty()));
    assert_eq!(model.backends.len(), view.backends.len());
    (view, last)
}

#[test]
fn any_order_of_news_comes_to_the_same() {
    let generated = (prop::collection::vec(step(), 1..40), any::<bool>(), 1..6_usize);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(CASES));
    let outcome = runner.run(&generated, |(steps, first_namespace, pause)| {
        let ownership = if first_namespace {
            HostOwnership::FirstNamespace
        } else {
            HostOwnership::AllowMerge
        };
        let (view, last) = play(&steps, ownership, pause);
        let fresh: Vec<Step> = last
            .into_iter()
            .map(|((kind, name), number)| (kind, name, Some(number)))
            .collect();
        let (expected, _) = play(&fresh, ownership, usize::MAX);
        prop_assert_eq!(view, expected);
        Ok(())
    });
    outcome.unwrap();
}
