//! The rules of matching by name: the tables of the Ingress API and of `docs/ingress.md`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::explain::Lost;
use super::{
    Action, Asked, Found, HostMatch, ObjectName, Origin, PathMatch, Predicate, Route, Table, ValueMatch,
    WildcardDepth, host,
};

/// A route of Ingress `default/NAME`, as old as its place in the list, for `HOST exact|prefix|rest PATH`.
fn route(created: i64, name: &str, text: &str) -> Route {
    let words: Vec<&str> = text.split(' ').collect();
    let (host, sort, path) = (words[0], words[1], words.get(2).copied().unwrap_or_default());
    Route {
        origin: Origin {
            created,
            object: ObjectName::new("default", name),
            rule: 0,
            entry: 0,
        },
        host: host::of_rule(if host == "-" { "" } else { host }, WildcardDepth::One).unwrap(),
        path: match sort {
            "exact" => PathMatch::Exact(path.into()),
            "prefix" => PathMatch::Prefix(path.into()),
            _ => PathMatch::Rest,
        },
        predicates: Vec::new(),
        filters: Vec::new(),
        action: Action::Forward(Vec::new()),
        policy: Arc::default(),
    }
}

/// Routes whose names are what they say.
fn table(texts: &[&str]) -> Table {
    Table::build(
        (0..)
            .zip(texts)
            .map(|(created, text)| route(created, text, text))
            .collect(),
    )
}

fn asked<'a>(host: Option<&'a str>, path: &'a str, headers: &'a HeaderMap) -> Asked<'a> {
    Asked {
        host,
        path,
        method: &Method::GET,
        headers,
        query: None,
    }
}

/// The name of the route that gets `HOST PATH`; `404` if none does.
fn find(table: &Table, request: &str) -> String {
    let (host, path) = request.split_once(' ').unwrap();
    let headers = HeaderMap::new();
    let found = table.find(&asked(Some(host).filter(|host| *host != "-"), path, &headers));
    found
        .route()
        .map_or("404".to_owned(), |route| route.origin.object.name.clone())
}

fn check(routes: &[&str], requests: &[(&str, &str)]) {
    let table = table(routes);
    for (request, expected) in requests {
        assert_eq!(find(&table, request), *expected, "{request} in {routes:?}");
    }
}

#[test]
fn a_precise_host_is_that_host() {
    check(
        &["foo.bar.com prefix /"],
        &[
            ("foo.bar.com /", "foo.bar.com prefix /"),
            ("bar.com /", "404"),
            ("x.foo.bar.com /", "404"),
            ("- /", "404"),
        ],
    );
}

#[test]
fn a_wildcard_is_one_label() {
    check(
        &["*.foo.com prefix /"],
        &[
            ("bar.foo.com /", "*.foo.com prefix /"),
            ("baz.bar.foo.com /", "404"),
            ("foo.com /", "404"),
            ("barfoo.com /", "404"),
        ],
    );
}

#[test]
fn a_wildcard_of_gateway_api_is_one_label_or_more_and_the_longest_wins() {
    let mut routes = Vec::new();
    for (name, suffix, depth) in [
        ("short", "foo.com", WildcardDepth::Many),
        ("long", "bar.foo.com", WildcardDepth::Many),
        ("one", "foo.com", WildcardDepth::One),
    ] {
        let host = HostMatch::Wildcard {
            suffix: suffix.into(),
            depth,
        };
        routes.push(Route {
            host,
            ..route(0, name, "- prefix /")
        });
    }
    let table = Table::build(routes);
    for (host, expected) in [
        ("foo.com", "404"),
        ("a.foo.com", "one"),
        ("a.b.foo.com", "short"),
        ("bar.foo.com", "one"),
        ("x.bar.foo.com", "long"),
        ("y.x.bar.foo.com", "long"),
    ] {
        assert_eq!(find(&table, &format!("{host} /")), expected, "{host}");
    }
}

#[test]
fn a_rule_without_host_is_for_all_traffic() {
    check(
        &["- prefix /"],
        &[
            ("foo.com /", "- prefix /"),
            ("[::1] /", "- prefix /"),
            ("- /x", "- prefix /"),
        ],
    );
}

#[test]
fn precise_goes_before_wildcard_and_that_before_no_host() {
    let routes = ["- prefix /", "*.foo.com prefix /", "a.foo.com prefix /"];
    check(
        &routes,
        &[
            ("a.foo.com /", routes[2]),
            ("b.foo.com /", routes[1]),
            ("a.b.foo.com /", routes[0]),
        ],
    );
}

#[test]
fn a_host_without_the_path_lets_the_less_specific_be_asked() {
    let routes = ["a.foo.com prefix /a", "*.foo.com prefix /b", "- prefix /c"];
    check(
        &routes,
        &[
            ("a.foo.com /a", routes[0]),
            ("a.foo.com /b", routes[1]),
            ("a.foo.com /c", routes[2]),
            ("b.foo.com /a", "404"),
            ("a.foo.com /d", "404"),
        ],
    );
}

#[test]
fn exact_is_byte_by_byte() {
    check(
        &["- exact /foo", "- exact /bar/"],
        &[
            ("x /foo", "- exact /foo"),
            ("x /foo/", "404"),
            ("x /FOO", "404"),
            ("x /foo/bar", "404"),
            ("x /bar/", "- exact /bar/"),
            ("x /bar", "404"),
            ("x /", "404"),
        ],
    );
    check(&["- exact /"], &[("x /", "- exact /"), ("x /a", "404")]);
}

#[test]
fn prefix_is_element_by_element() {
    // The table of the Ingress API's documentation.
    let rows = [
        ("/", "/", true),
        ("/", "/any/thing", true),
        ("/foo", "/foo", true),
        ("/foo", "/foo/", true),
        ("/foo", "/foo/bar", true),
        ("/foo", "/foobar", false),
        ("/foo", "/FOO", false),
        ("/foo/", "/foo", true),
        ("/foo/", "/foo/", true),
        ("/aaa/bb", "/aaa/bbb", false),
        ("/aaa/bbb", "/aaa/bbb", true),
        ("/aaa/bbb/", "/aaa/bbb", true),
        ("/aaa/bbb", "/aaa/bbb/", true),
        ("/aaa/bbb", "/aaa/bbb/ccc", true),
        ("/aaa/bbb/", "/aaa/bbb/ccc", true),
        ("/aaa/bbb", "/aaa/bbbxyz", false),
        ("/foo", "/", false),
    ];
    for (path, request, expected) in rows {
        let table = table(&[&format!("- prefix {path}")]);
        assert_eq!(
            find(&table, &format!("x {request}")) != "404",
            expected,
            "{path} and {request}"
        );
    }
}

#[test]
fn the_longest_path_wins() {
    let routes = ["- prefix /", "- prefix /aaa", "- prefix /aaa/bbb"];
    check(
        &routes,
        &[
            ("x /aaa/ccc", routes[1]),
            ("x /aaa/bbb", routes[2]),
            ("x /aaa/bbb/ccc", routes[2]),
            ("x /ccc", routes[0]),
        ],
    );
}

#[test]
fn exact_wins_over_prefix() {
    let routes = ["- prefix /foo", "- exact /foo"];
    check(
        &routes,
        &[
            ("x /foo", routes[1]),
            ("x /foo/", routes[0]),
            ("x /foo/bar", routes[0]),
        ],
    );
    // An exact path is as long as a prefix with one slash more: nobody means another with it.
    let routes = ["- prefix /foo/", "- exact /foo"];
    check(&routes, &[("x /foo", routes[1]), ("x /foo/", routes[0])]);
}

#[test]
fn of_two_prefixes_the_one_with_the_final_slash_wins() {
    let routes = ["- prefix /foo", "- prefix /foo/"];
    check(
        &routes,
        &[
            ("x /foo", routes[1]),
            ("x /foo/", routes[1]),
            ("x /foo/bar", routes[1]),
        ],
    );
}

#[test]
fn a_default_backend_is_asked_when_no_host_has_a_rule() {
    let routes = ["a.com rest", "a.com prefix /a", "- prefix /b", "- rest"];
    check(
        &routes,
        &[
            ("a.com /a", routes[1]),
            ("a.com /b", routes[2]),
            ("a.com /c", routes[0]),
            ("b.com /c", routes[3]),
            ("- /c", routes[3]),
        ],
    );
}

#[test]
fn the_oldest_default_backend_wins() {
    let older = route(1, "older", "- rest");
    let younger = route(2, "younger", "- rest");
    let table = Table::build(vec![younger, older]);
    let headers = HeaderMap::new();
    let Found::Default(found) = table.find(&asked(None, "/", &headers)) else {
        panic!("a default backend");
    };
    assert_eq!(found.origin.object.name, "older");
}

#[test]
fn nothing_matches_an_empty_table() {
    check(&[], &[("a.com /", "404"), ("- /", "404")]);
}

#[test]
fn the_oldest_object_wins_then_namespace_and_name_then_the_order() {
    let mut routes = Vec::new();
    for (created, namespace, name, entry) in [
        (5, "a", "a", 0),
        (3, "b", "b", 1),
        (3, "b", "b", 0),
        (3, "b", "c", 0),
        (3, "c", "a", 0),
    ] {
        let origin = Origin {
            created,
            object: ObjectName::new(namespace, name),
            rule: 0,
            entry,
        };
        routes.push(Route {
            origin,
            ..route(0, "", "a.com prefix /")
        });
    }
    let headers = HeaderMap::new();
    let explained = Table::build(routes).explain(&asked(Some("a.com"), "/", &headers));
    let order = explained.candidates.iter();
    let order: Vec<String> = order
        .map(|one| format!("{} {}", one.route.origin.object, one.route.origin.entry))
        .collect();
    assert_eq!(order, ["b/b 0", "b/b 1", "b/c 0", "c/a 0", "a/a 0"]);
    let why: Vec<Option<Lost>> = explained.candidates.iter().map(|one| one.lost.clone()).collect();
    let winner = || ObjectName::new("b", "b");
    assert_eq!(
        why,
        [
            None,
            Some(Lost::Behind),
            Some(Lost::Name(winner())),
            Some(Lost::Name(winner())),
            Some(Lost::Younger(winner())),
        ]
    );
}

#[test]
fn several_ingresses_share_a_host() {
    let routes = ["a.com prefix /one", "a.com prefix /two"];
    check(&routes, &[("a.com /one", routes[0]), ("a.com /two", routes[1])]);
}

#[test]
fn a_predicate_that_fails_lets_the_next_be_asked() {
    let header = |value: &str| {
        Predicate::Header(
            HeaderName::from_static("x-tier"),
            ValueMatch::Exact(value.as_bytes().into()),
        )
    };
    let with = |route: Route, predicates| Route { predicates, ..route };
    let table = Table::build(vec![
        with(route(0, "plain", "a.com prefix /a"), vec![]),
        with(route(9, "gold", "a.com prefix /a"), vec![header("gold")]),
        with(route(9, "silver", "a.com exact /a/b"), vec![header("silver")]),
        with(
            route(9, "post", "a.com prefix /a"),
            vec![Predicate::Method(Method::POST)],
        ),
    ]);
    let mut headers = HeaderMap::new();
    headers.insert("x-tier", HeaderValue::from_static("gold"));
    let explained = table.explain(&asked(Some("a.com"), "/a/b", &headers));
    let told: Vec<String> = explained
        .candidates
        .iter()
        .map(|one| {
            let why = one
                .lost
                .as_ref()
                .map_or("takes it".to_owned(), ToString::to_string);
            format!("{}: {why}", one.route.origin.object.name)
        })
        .collect();
    assert_eq!(
        told,
        [
            "silver: the request has not: header x-tier = \"silver\"",
            "post: the request has not: method POST",
            "gold: takes it",
            "plain: the winner asks for more: method, headers, query",
        ]
    );
}

#[test]
fn explain_tells_hosts_and_why_each_route_lost() {
    let texts = [
        "a.foo.com exact /a",
        "a.foo.com prefix /a/",
        "a.foo.com prefix /",
        "a.foo.com rest",
        "*.foo.com prefix /a",
        "*.com prefix /a",
        "- prefix /b",
        "- rest",
    ];
    let table = table(&texts);
    let headers = HeaderMap::new();
    let explained = table.explain(&asked(Some("a.foo.com"), "/a", &headers));
    let hosts: Vec<(String, bool, usize)> = explained
        .hosts
        .iter()
        .map(|one| (one.host.to_string(), one.rest, one.candidates))
        .collect();
    let host = |name: &str, rest, candidates| (name.to_owned(), rest, candidates);
    assert_eq!(
        hosts,
        [
            host("a.foo.com", false, 3),
            host("*.foo.com", false, 1),
            host("(any)", false, 0),
            host("a.foo.com", true, 1),
            host("(any)", true, 1),
        ]
    );
    let why: Vec<String> = explained
        .candidates
        .iter()
        .filter_map(|one| one.lost.as_ref().map(ToString::to_string))
        .collect();
    assert_eq!(
        why,
        [
            "the same path is there as Exact",
            "path /a (Exact) is longer",
            "host a.foo.com is more specific",
            "a default backend, and a rule matches",
            "a default backend, and a rule matches",
        ]
    );
}

#[test]
fn a_table_with_a_changed_host_shares_the_others() {
    let first = table(&["a.com prefix /", "b.com prefix /", "*.c.com prefix /"]);
    let new = Arc::new(route(9, "new", "a.com prefix /new"));
    let host = |name: &str| host::of_rule(name, WildcardDepth::One).unwrap();
    let second = first.with_hosts_changed([(host("a.com"), vec![new]), (host("*.c.com"), vec![])]);
    assert_eq!(find(&first, "a.com /x"), "a.com prefix /");
    assert_eq!(find(&second, "a.com /x"), "404");
    assert_eq!(find(&second, "a.com /new"), "new");
    assert_eq!(find(&first, "x.c.com /"), "*.c.com prefix /");
    assert_eq!(find(&second, "x.c.com /"), "404");
    assert!(std::ptr::eq(
        first.host(&host("b.com")).unwrap(),
        second.host(&host("b.com")).unwrap()
    ));
    assert_eq!(second.hosts().count(), 2);
}
