//! Sends clients elsewhere: what a route asks for, and from clear text to HTTPS.

use http::header::{HOST, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Response, StatusCode};

use crate::body::ResponseBody;
use crate::refusal::Refusal;
use crate::request::is_https;
use crate::route::{Redirect, Route};
use crate::serve::Client;

/// The redirect to HTTPS, if the route wants one and the client is not there yet.
pub(crate) fn to_https(client: &Client, route: &Route, head: &Parts) -> Option<Response<ResponseBody>> {
    let status = route.policy.https_redirect?;
    if is_https(client, head) {
        return None;
    }
    let to = Redirect {
        status,
        scheme: Some(http::uri::Scheme::HTTPS),
        host: None,
        port: Some(client.settings.https_port),
        path: None,
    };
    Some(answer(client, &to, head))
}

/// What a route asks for.
pub(crate) fn answer(client: &Client, to: &Redirect, head: &Parts) -> Response<ResponseBody> {
    let https = is_https(client, head);
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let target = location(
        to,
        https,
        host.unwrap_or_default(),
        head.uri.path_and_query().map_or("/", |uri| uri.as_str()),
    );
    let Ok(target) = HeaderValue::try_from(target) else {
        return Refusal::Path.answer();
    };
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = to.status;
    response.headers_mut().insert(LOCATION, target);
    debug_assert!(
        to.status != StatusCode::OK,
        "a redirect has a status that says so"
    );
    response
}

fn location(to: &Redirect, https: bool, host: &str, uri: &str) -> String {
    let there = if https { "https" } else { "http" };
    let scheme = to.scheme.as_ref().map_or(there, http::uri::Scheme::as_str);
    let (name, port) = split(host);
    // A port belongs to its scheme.
    let port = to.port.or_else(|| (scheme == there).then_some(port).flatten());
    let own = if scheme == "https" { 443 } else { 80 };
    let port = port
        .filter(|port| *port != own)
        .map_or_else(String::new, |port| format!(":{port}"));
    let name = to.host.as_deref().unwrap_or(name);
    let query = uri.split_once('?').map(|(_, query)| query);
    match (&to.path, query) {
        (None, _) => format!("{scheme}://{name}{port}{uri}"),
        (Some(path), Some(query)) => format!("{scheme}://{name}{port}{path}?{query}"),
        (Some(path), None) => format!("{scheme}://{name}{port}{path}"),
    }
}

/// Name and port; the name may be an IPv6 address in brackets.
fn split(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(scheme: Option<&str>, host: Option<&str>, port: Option<u16>, path: Option<&str>) -> Redirect {
        Redirect {
            status: StatusCode::FOUND,
            scheme: scheme.map(|scheme| scheme.parse().unwrap()),
            host: host.map(Into::into),
            port,
            path: path.map(Into::into),
        }
    }

    #[test]
    fn what_is_missing_stays_as_it_was_asked_for() {
        let at = |to: Redirect, host: &str| location(&to, false, host, "/a/b?c=d");
        assert_eq!(
            at(to(Some("https"), None, Some(443), None), "a.example"),
            "https://a.example/a/b?c=d"
        );
        assert_eq!(
            at(to(Some("https"), None, Some(8443), None), "a.example:8080"),
            "https://a.example:8443/a/b?c=d"
        );
        assert_eq!(
            at(to(Some("https"), None, None, None), "a.example:8080"),
            "https://a.example/a/b?c=d"
        );
        assert_eq!(
            at(to(None, Some("b.example"), None, None), "a.example:8080"),
            "http://b.example:8080/a/b?c=d"
        );
        assert_eq!(
            at(to(None, None, None, Some("/x")), "[::1]:8080"),
            "http://[::1]:8080/x?c=d"
        );
        assert_eq!(at(to(None, None, None, None), "[::1]"), "http://[::1]/a/b?c=d");
    }
}
