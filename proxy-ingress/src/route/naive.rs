//! The rules of matching as a list of sentences, for tests: every route is looked at, and those that fit are sorted.
//!
//! Nothing here is shared with the table. Each sentence stands beside the code that is it.

use std::cmp::Reverse;

use super::{Asked, HostMatch, PathMatch, Predicate, Route, ValueMatch, WildcardDepth};

/// The positions of the routes that fit, the one that gets the request first.
pub(super) fn all(routes: &[Route], asked: &Asked<'_>) -> Vec<usize> {
    let mut found: Vec<usize> = (0..routes.len())
        .filter(|position| fits(&routes[*position], asked))
        .collect();
    found.sort_by_key(|position| key(&routes[*position]));
    found
}

/// A request must fit the host, the path and every predicate.
fn fits(route: &Route, asked: &Asked<'_>) -> bool {
    host_fits(&route.host, asked.host)
        && path_fits(&route.path, asked.path)
        && route
            .predicates
            .iter()
            .all(|predicate| predicate_fits(predicate, asked))
}

fn host_fits(rule: &HostMatch, host: Option<&str>) -> bool {
    match (rule, host) {
        // "If no host is specified, the rule applies to all inbound HTTP traffic."
        (HostMatch::Any, _) => true,
        (_, None) => false,
        // "Precise matches require that the HTTP host header matches the host field."
        (HostMatch::Exact(name), Some(host)) => **name == *host,
        (HostMatch::Wildcard { suffix, depth }, Some(host)) => {
            let ending = format!(".{suffix}");
            let star = host.strip_suffix(&ending).unwrap_or_default();
            match depth {
                // "Wildcard matches require the HTTP host header is equal to the suffix of the wildcard rule", and "*"
                // is one label of DNS.
                WildcardDepth::One => !star.is_empty() && !star.contains('.'),
                // Gateway API: "*.example.com" is also for "a.b.example.com", and not for "example.com".
                WildcardDepth::Many => !star.is_empty(),
            }
        }
    }
}

fn path_fits(rule: &PathMatch, path: &str) -> bool {
    match rule {
        // "Matches the URL path exactly and with case sensitivity."
        PathMatch::Exact(wanted) => **wanted == *path,
        // "Matches based on a URL path prefix split by /", element by element; a final slash means nothing.
        PathMatch::Prefix(wanted) => labels(path).starts_with(&labels(wanted)),
        PathMatch::Rest => true,
    }
}

/// "The list of labels in the path split by the / separator."
fn labels(path: &str) -> Vec<&str> {
    let mut labels: Vec<&str> = path.split('/').collect();
    if labels.len() > 1 && labels.last() == Some(&"") {
        labels.pop();
    }
    labels
}

fn predicate_fits(predicate: &Predicate, asked: &Asked<'_>) -> bool {
    let fits = |value: &ValueMatch, found: &[u8]| match value {
        ValueMatch::Exact(wanted) => **wanted == *found,
        ValueMatch::Regex(expression) => expression.is_match(found),
    };
    match predicate {
        Predicate::Method(method) => asked.method.as_str() == method.as_str(),
        Predicate::Header(name, value) => {
            let lines: Vec<_> = asked.headers.get_all(name).into_iter().collect();
            lines.iter().any(|line| fits(value, line.as_bytes()))
        }
        // Generated queries have no escapes.
        Predicate::Query(name, value) => {
            let query = asked.query.unwrap_or_default();
            let pairs: Vec<_> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
            let first = pairs.iter().find(|(other, _)| **name == **other);
            first.is_some_and(|(_, found)| fits(value, found.as_bytes()))
        }
    }
}

/// What comes first is smaller.
fn key(route: &Route) -> impl Ord {
    // A default backend is for what no rule matches.
    let rest = route.path == PathMatch::Rest;
    // Precise before wildcard before no host; of wildcards the longer; one label before many.
    let host = match &route.host {
        HostMatch::Exact(_) => (0, Reverse(0), 0),
        HostMatch::Wildcard { suffix, depth } => {
            (1, Reverse(suffix.len()), u8::from(*depth == WildcardDepth::Many))
        }
        HostMatch::Any => (2, Reverse(0), 0),
    };
    // "Precedence will be given first to the longest matching path", counted in elements; "if two paths are still equally
    // matched, to paths with an exact path type over prefix path type"; of /foo and /foo/ as Prefix to /foo/.
    let path = match &route.path {
        PathMatch::Exact(path) => (Reverse(labels(path).len()), 0, Reverse(path.len())),
        PathMatch::Prefix(path) => (Reverse(labels(path).len()), 1, Reverse(path.len())),
        PathMatch::Rest => (Reverse(0), 2, Reverse(0)),
    };
    // Gateway API: a method, then the most headers, then the most query parameters.
    let count = |wanted: fn(&Predicate) -> bool| route.predicates.iter().filter(|one| wanted(one)).count();
    let asks = (
        Reverse(count(|one| matches!(one, Predicate::Method(_))).min(1)),
        Reverse(count(|one| matches!(one, Predicate::Header(..)))),
        Reverse(count(|one| matches!(one, Predicate::Query(..)))),
    );
    // The oldest; then by "{namespace}/{name}"; then the first in the list.
    let origin = &route.origin;
    let name = (origin.object.namespace.clone(), origin.object.name.clone());
    (
        rest,
        host,
        path,
        asks,
        (origin.created, name, origin.rule, origin.entry),
    )
}
