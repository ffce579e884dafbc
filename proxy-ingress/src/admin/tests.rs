//! What operators are told, of a small world.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;
use crate::served::tests::{World, ingress, service, slice};

fn request(url: &str) -> Request {
    Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
    }
}

/// A shop with TLS, one endpoint, and a younger Ingress that wants the same path.
fn shop() -> World {
    let mut world = World::new(None);
    world.put(service());
    world.put(slice(&["10.0.0.1"]));
    world.put(ingress("shop", "a.example", "cert"));
    let mut younger = ingress("shop", "a.example", "cert");
    younger["metadata"] =
        json!({"namespace": "shop", "name": "younger", "creationTimestamp": "2026-02-01T00:00:00Z"});
    world.put(younger);
    world.secret("cert", "a.example");
    world
}

fn explained(world: &World, url: &str) -> Explained {
    explain(&world.view(), &request(url))
}

#[test]
fn it_says_where_a_request_goes_and_why() {
    let world = shop();
    let explained = explained(&world, "https://A.example:443/cart/../x?y#z");
    assert_eq!(explained.listeners, ["127.0.0.1:8443"]);
    let certificate = explained.certificate.unwrap();
    assert_eq!(
        (certificate.shown.as_str(), certificate.names),
        ("shop/cert", vec!["a.example".to_owned()])
    );
    assert_eq!(
        (explained.host.as_str(), explained.path.as_str()),
        ("a.example", "/x")
    );
    assert_eq!(explained.hosts[0], "a.example: 2 routes fit");
    assert_eq!(explained.candidates[0].lost, None);
    assert_eq!(explained.answer, "forwarded to shop/web:http, in turn");
    assert_eq!(explained.endpoints[0].address, "10.0.0.1:8080");
    assert_eq!(explained.endpoints[0].state, "ready");
}

#[test]
fn it_says_what_becomes_of_what_goes_nowhere() {
    let world = shop();
    for (url, expected) in [
        ("http://a.example/", "308: sent to HTTPS"),
        ("a.example", "308: sent to HTTPS"),
        ("https://b.example/", "404: no route"),
        ("https://a.example/%00", "400: the path has an escaped NUL"),
        (
            "ftp://a.example/",
            "\"ftp://a.example/\": write http:// or https://",
        ),
    ] {
        assert_eq!(explained(&world, url).answer, expected, "{url}");
    }
    let mut world = shop();
    world.model.delete(
        proxy_model::Kind::EndpointSlice,
        &proxy_model::ObjectName::new("shop", "web-1"),
    );
    world.step();
    assert_eq!(
        explained(&world, "https://a.example/").endpoints[0].state,
        "no endpoint: 503"
    );
}

#[test]
fn lists_have_what_is_live() {
    let world = shop();
    let view = world.view();
    let routes = routes(&view);
    assert_eq!(routes.len(), 2, "who has the path, and who would have it next");
    assert_eq!(
        (routes[0].ingress.as_str(), routes[0].action.as_str()),
        ("shop/a.example", "shop/web:http")
    );
    let certificates = certificates(&view);
    assert_eq!(
        (certificates[0].host.as_str(), certificates[0].asked.as_str()),
        ("a.example", "shop/cert")
    );
    assert!(
        certificates[0].expires.ends_with('Z'),
        "{}",
        certificates[0].expires
    );
    let conflicts = conflicts(view.model);
    assert!(
        conflicts.iter().all(|conflict| conflict.loser == "shop/younger"),
        "{conflicts:?}"
    );
    assert!(!conflicts.is_empty());
    assert_eq!(endpoints(&view).len(), 1);
}

#[tokio::test]
async fn questions_are_answered_at_the_socket() {
    let path = std::env::temp_dir().join(format!("weir-admin-{}", std::process::id()));
    let (sender, mut questions) = tokio::sync::mpsc::channel::<socket::Asked>(1);
    socket::listen(&path, sender).unwrap();
    let there = path.clone();
    let asking = tokio::task::spawn_blocking(move || socket::ask::<Vec<RouteRow>>(&there, &Question::Routes));
    let (question, answer) = questions.recv().await.unwrap();
    assert_eq!(question, Question::Routes);
    answer
        .send(serde_json::to_vec(&routes(&shop().view())).unwrap())
        .unwrap();
    assert_eq!(asking.await.unwrap().unwrap().len(), 2);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    std::fs::remove_file(&path).unwrap();
    let nobody = socket::ask::<Vec<RouteRow>>(&path, &Question::Routes).unwrap_err();
    assert!(nobody.to_string().contains("--admin-socket"), "{nobody}");
}
