//! Problems say which object they are about, and for what reason.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proxy_model::{Adopted, Change, Kind, Model, Object, ObjectName, Options, Problem, Reason, Step};
use serde_json::{Value, json};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

fn service(name: &str, uid: &str, cluster_ip: &str, port: i64) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name, "uid": uid},
        "spec": {"clusterIP": cluster_ip, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": port}]},
    }))
}

fn model(services: Vec<Object>) -> Model {
    let mut model = Model::new(Options::new("n1", 7), Adopted::default());
    model.observe(Change::LocalAddresses(Vec::new()));
    model.observe(Change::Replace(Kind::Node, Vec::new()));
    model.observe(Change::Replace(Kind::Service, services));
    model.observe(Change::Replace(Kind::EndpointSlice, Vec::new()));
    model
}

/// `name reason uid` of each.
fn told(problems: &[Problem]) -> Vec<String> {
    let line = |problem: &Problem| {
        let uid = problem.uid.as_deref().unwrap_or("-");
        format!("{} {} {uid}", problem.name, problem.reason.name())
    };
    problems.iter().map(line).collect()
}

#[test]
fn each_sort_of_problem_has_its_reason() {
    let mut model = model(vec![
        service("bad", "1", "10.96.0.1", 0),
        service("first", "2", "10.96.0.2", 81),
        service("second", "3", "10.96.0.2", 82),
    ]);
    let mut refused = None;
    for _ in 0..100 {
        let steps = model.plan(Duration::ZERO);
        let Some(step) = steps.first() else { break };
        if matches!(step, Step::PutService { key, .. } if key.port == 81) {
            model.failed(step, "no room".to_owned());
            refused = Some(step.clone());
        } else {
            model.applied(step);
        }
    }
    assert!(refused.is_some());
    assert_eq!(
        told(&model.problems()),
        [
            "shop/bad NotServed 1",
            "shop/first FailedToProgram 2",
            "shop/second FrontendRefused 3"
        ]
    );
    let other = Problem::new(Kind::Service, &ObjectName::new("shop", "first"), "x")
        .because(Reason::FailedToStartServiceHealthcheck);
    let all = model.problems_with(vec![other]);
    assert!(
        told(&all).contains(&"shop/first FailedToStartServiceHealthcheck 2".to_owned()),
        "{all:?}"
    );
}

#[test]
fn an_object_that_was_made_again_is_another_one() {
    let mut model = model(vec![service("bad", "1", "10.96.0.1", 0)]);
    assert_eq!(told(&model.problems()), ["shop/bad NotServed 1"]);
    let again = service("bad", "2", "10.96.0.1", 0);
    assert!(model.observe(Change::Put(again.clone())), "that is news");
    assert!(!model.observe(Change::Put(again)));
    assert_eq!(told(&model.problems()), ["shop/bad NotServed 2"]);
    model.observe(Change::Replace(Kind::Service, Vec::new()));
    assert_eq!(told(&model.problems()), [""; 0]);
}
