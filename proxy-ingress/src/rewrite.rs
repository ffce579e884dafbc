//! The request line that a backend sees. Pure.

use http::uri::PathAndQuery;

use crate::refusal::Refusal;
use crate::route::{Filter, PathMatch, Route};

/// Path and query for the backend, if they are not what the client sent.
pub(crate) fn target(
    route: &Route,
    sent: &PathAndQuery,
    canonical: Option<&str>,
) -> Result<Option<PathAndQuery>, Refusal> {
    let rewrite = route.filters.iter().find_map(|filter| match filter {
        Filter::RewritePath(path) => Some(path.to_string()),
        Filter::RewritePrefix(to) => Some(prefixed(&route.path, canonical.unwrap_or(sent.path()), to)),
        Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) | Filter::RewriteHost(_) => None,
    });
    let Some(path) = rewrite.or_else(|| canonical.map(str::to_owned)) else {
        return Ok(None);
    };
    let text = match sent.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    PathAndQuery::try_from(text).map(Some).map_err(|_| Refusal::Path)
}

/// `to` in the place of what matched, with one slash between it and the rest.
fn prefixed(matched: &PathMatch, path: &str, to: &str) -> String {
    let rest = match matched {
        PathMatch::Exact(_) | PathMatch::Rest => "",
        PathMatch::Prefix(prefix) => path
            .strip_prefix(prefix.trim_end_matches('/'))
            .unwrap_or_default(),
    };
    let rest = rest.trim_start_matches('/');
    let to = to.trim_end_matches('/');
    if rest.is_empty() && !to.is_empty() {
        to.to_owned()
    } else {
        format!("{to}/{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matched_is_replaced_and_the_rest_stays() {
        let cases = [
            ("/foo", "/foo/bar", "/xyz", "/xyz/bar"),
            ("/foo/", "/foo/bar", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo", "/foo/", "/xyz", "/xyz"),
            ("/foo", "/foo/bar", "/", "/bar"),
            ("/foo", "/foo", "/", "/"),
            ("/", "/foo/bar", "/xyz", "/xyz/foo/bar"),
        ];
        for (prefix, path, to, expected) in cases {
            assert_eq!(
                prefixed(&PathMatch::Prefix(prefix.into()), path, to),
                expected,
                "{prefix} {path} {to}"
            );
        }
        assert_eq!(prefixed(&PathMatch::Exact("/foo".into()), "/foo", "/xyz"), "/xyz");
    }
}
