//! The table against the naive matcher, over generated routes and requests. Alphabets are small, so that they meet.
//!
//! `WEIR_ROUTE_CASES=1000000 cargo test --release -p proxy-ingress agree` goes further than an ordinary run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{
    Action, Asked, HostMatch, ObjectName, Origin, PathMatch, Policy, Predicate, Route, Table, ValueMatch,
    WildcardDepth, naive,
};

/// Cases of an ordinary run.
const CASES: u32 = 20_000;

fn cases() -> ProptestConfig {
    let asked = std::env::var("WEIR_ROUTE_CASES").ok();
    let cases = asked.map_or(CASES, |text| text.parse().expect("WEIR_ROUTE_CASES is a number"));
    ProptestConfig::with_cases(cases)
}

const HOSTS: [&str; 6] = ["x", "a.x", "b.x", "a.b.x", "b.b.x", "a.a.b.x"];

fn host() -> impl Strategy<Value = HostMatch> {
    let name = prop::sample::select(HOSTS.to_vec());
    (0..8, name).prop_map(|(sort, name)| match sort {
        0..=3 => HostMatch::Exact(name.into()),
        4 | 5 => HostMatch::Wildcard {
            suffix: name.into(),
            depth: WildcardDepth::One,
        },
        6 => HostMatch::Wildcard {
            suffix: name.into(),
            depth: WildcardDepth::Many,
        },
        _ => HostMatch::Any,
    })
}

/// Empty elements are there where slashes are kept.
fn path() -> impl Strategy<Value = String> {
    let element = prop::sample::select(vec!["a", "a", "b", "b", "ab", "A", ""]);
    (prop::collection::vec(element, 0..4), any::<bool>()).prop_map(|(elements, slash)| {
        let path = format!("/{}", elements.join("/"));
        if slash && path != "/" { path + "/" } else { path }
    })
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    (0..7, path()).prop_map(|(sort, path)| match sort {
        0 | 1 => PathMatch::Exact(path.into()),
        2..=5 => PathMatch::Prefix(path.into()),
        _ => PathMatch::Rest,
    })
}

static EXPRESSION: LazyLock<regex::bytes::Regex> =
    LazyLock::new(|| regex::bytes::Regex::new("[12]").unwrap());

fn value() -> impl Strategy<Value = ValueMatch> {
    (0..3).prop_map(|sort| match sort {
        0 => ValueMatch::Exact(b"1".as_slice().into()),
        1 => ValueMatch::Exact(b"2".as_slice().into()),
        _ => ValueMatch::Regex(EXPRESSION.clone()),
    })
}

fn predicate() -> impl Strategy<Value = Predicate> {
    (0..4, value(), any::<bool>()).prop_map(|(sort, value, one)| match sort {
        0 => Predicate::Method(if one { Method::GET } else { Method::POST }),
        1 | 2 => Predicate::Header(HeaderName::from_static(if one { "h" } else { "i" }), value),
        _ => Predicate::Query(if one { "q" } else { "r" }.into(), value),
    })
}

fn predicates() -> impl Strategy<Value = Vec<Predicate>> {
    prop_oneof![Just(Vec::new()), prop::collection::vec(predicate(), 0..4)]
}

fn object() -> impl Strategy<Value = (i64, &'static str, &'static str)> {
    let names = prop::sample::select(vec!["a", "b"]);
    (0..3_i64, names.clone(), names)
}

/// Entries are numbered, so that no two routes are equal.
fn routes() -> impl Strategy<Value = Vec<Route>> {
    let route = (host(), path_match(), predicates(), object());
    prop::collection::vec(route, 0..12).prop_map(|routes| {
        let policy = Arc::new(Policy::default());
        let numbered = (0..).zip(routes);
        let route = |(entry, (host, path, predicates, (created, namespace, name)))| Route {
            origin: Origin {
                created,
                object: ObjectName::new(namespace, name),
                rule: 0,
                entry,
            },
            host,
            path,
            predicates,
            filters: Vec::new(),
            action: Action::Forward(Vec::new()),
            policy: Arc::clone(&policy),
        };
        numbered.map(route).collect()
    })
}

#[derive(Clone, Debug)]
struct Request {
    host: Option<&'static str>,
    path: String,
    method: Method,
    headers: HeaderMap,
    query: Option<String>,
}

impl Request {
    fn asked(&self) -> Asked<'_> {
        Asked {
            host: self.host,
            path: &self.path,
            method: &self.method,
            headers: &self.headers,
            query: self.query.as_deref(),
        }
    }
}

fn request() -> impl Strategy<Value = Request> {
    let host = prop::option::weighted(0.9, prop::sample::select(HOSTS.to_vec()));
    let header = (
        prop::sample::select(vec!["h", "i"]),
        prop::sample::select(vec!["1", "2", "3"]),
    );
    let parameter = prop::sample::select(vec!["q=1", "q=2", "r=1", "r=3"]);
    let query = prop::option::of(prop::collection::vec(parameter, 0..3));
    (
        host,
        path(),
        any::<bool>(),
        prop::collection::vec(header, 0..3),
        query,
    )
        .prop_map(|(host, path, get, lines, query)| Request {
            host,
            path,
            method: if get { Method::GET } else { Method::POST },
            headers: lines
                .into_iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
            query: query.map(|parameters| parameters.join("&")),
        })
}

#[test]
fn table_and_naive_matcher_agree() {
    let generated = (routes(), prop::collection::vec(request(), 1..5));
    let mut runner = TestRunner::new(cases());
    let outcome = runner.run(&generated, |(routes, requests)| {
        let table = Table::build(routes.clone());
        for request in &requests {
            let asked = request.asked();
            let expected: Vec<&Route> = naive::all(&routes, &asked)
                .into_iter()
                .map(|at| &routes[at])
                .collect();
            let found = table.find(&asked).route().map(Arc::as_ref);
            prop_assert_eq!(found, expected.first().copied());
            let explained = table.explain(&asked);
            prop_assert_eq!(explained.winner().map(Arc::as_ref), found);
            let fitting = explained.candidates.iter();
            let fitting = fitting.filter(|one| !matches!(one.lost, Some(super::explain::Lost::Predicate(_))));
            prop_assert_eq!(
                fitting.map(|one| one.route.as_ref()).collect::<Vec<_>>(),
                expected
            );
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_changed_table_is_the_one_built_anew() {
    let cases = (routes(), routes(), prop::collection::vec(request(), 1..5));
    let config = ProptestConfig::with_cases(2_000);
    let outcome = TestRunner::new(config).run(&cases, |(before, after, requests)| {
        let mut changed: BTreeMap<HostMatch, Vec<Arc<Route>>> = before
            .iter()
            .map(|route| (route.host.clone(), Vec::new()))
            .collect();
        for route in &after {
            changed
                .entry(route.host.clone())
                .or_default()
                .push(Arc::new(route.clone()));
        }
        let first = Table::build(before.clone());
        let second = first.with_hosts_changed(changed);
        for request in &requests {
            let asked = request.asked();
            for (table, routes) in [(&first, &before), (&second, &after)] {
                let expected = naive::all(routes, &asked).first().map(|at| &routes[*at]);
                prop_assert_eq!(table.find(&asked).route().map(Arc::as_ref), expected);
            }
        }
        let hosts = after.iter().map(|route| &route.host).collect::<BTreeSet<_>>();
        prop_assert_eq!(second.hosts().count(), hosts.len());
        Ok(())
    });
    outcome.unwrap();
}
