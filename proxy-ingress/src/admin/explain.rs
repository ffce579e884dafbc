//! Where a request would go, and why: the steps of `request.rs`, written down.

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::{CandidateRow, Explained, Request, View, lists};
use crate::route::explain::Explanation;
use crate::route::{Action, Asked, Balance, Filter, HeaderEdits, Route, host, path};
use crate::snapshot::Snapshot;

/// A request, understood.
struct Read {
    method: Method,
    https: bool,
    authority: String,
    uri: Uri,
    headers: HeaderMap,
}

/// What becomes of a request.
pub fn explain(view: &View<'_>, request: &Request) -> Explained {
    let mut explained = Explained::default();
    explained.answer = match (read(request), view.snapshot) {
        (Err(why), _) => why,
        (_, None) => "nobody is answered before all objects have been read".to_owned(),
        (Ok(read), Some(snapshot)) => walk(view, snapshot, &read, &mut explained),
    };
    explained
}

fn read(request: &Request) -> Result<Read, String> {
    let url = if request.url.contains("://") {
        request.url.clone()
    } else {
        format!("http://{}", request.url)
    };
    let bare = url.split_once('#').map_or(url.as_str(), |(bare, _)| bare);
    let uri: Uri = bare
        .parse()
        .map_err(|error| format!("{:?} is no URL: {error}", request.url))?;
    let https = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(format!("{:?}: write http:// or https://", request.url)),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let wrong = || format!("{name}: {value}: this is no header");
        let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
        headers.append(name, HeaderValue::try_from(value.as_str()).map_err(|_| wrong())?);
    }
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = named.or_else(|| uri.authority().map(http::uri::Authority::as_str));
    Ok(Read {
        method: Method::try_from(request.method.as_str())
            .map_err(|_| format!("{:?} is no method", request.method))?,
        https,
        authority: authority.unwrap_or_default().to_owned(),
        uri,
        headers,
    })
}

fn walk(view: &View<'_>, snapshot: &Snapshot, read: &Read, explained: &mut Explained) -> String {
    let doors = view.doors.iter().filter(|(_, tls)| *tls == read.https);
    explained.listeners = doors.map(|(address, _)| address.to_string()).collect();
    if explained.listeners.is_empty() {
        let scheme = if read.https { "HTTPS" } else { "HTTP" };
        return format!("nobody listens for {scheme}");
    }
    let host = match host::of_request(read.authority.as_bytes()) {
        Ok(host) => host,
        Err(why) => return format!("400: {why}"),
    };
    host.as_deref()
        .unwrap_or_default()
        .clone_into(&mut explained.host);
    if read.https {
        // The name in the ClientHello is the one in the URL, whatever the header says.
        let name = read.uri.host().map(str::to_ascii_lowercase);
        explained.certificate = Some(view.served.certificate_row(name.as_deref()));
    }
    let path = match path::canonical(read.uri.path(), snapshot.routes.paths) {
        Ok(path) => path,
        Err(why) => return format!("400: {why}"),
    };
    explained.path = path.to_string();
    let asked = Asked {
        host: host.as_deref(),
        path: &path,
        method: &read.method,
        headers: &read.headers,
        query: read.uri.query(),
    };
    let explanation = snapshot.routes.table.explain(&asked);
    list(&explanation, explained);
    match explanation.winner() {
        None => "404: no route".to_owned(),
        Some(winner) => end(snapshot, winner, read.https, explained),
    }
}

fn list(explanation: &Explanation, explained: &mut Explained) {
    let hosts = explanation.hosts.iter().map(|asked| {
        let what = if asked.rest { "default backends" } else { "routes" };
        format!("{}: {} {what} fit", asked.host, asked.candidates)
    });
    explained.hosts = hosts.collect();
    let candidates = explanation.candidates.iter().map(|candidate| CandidateRow {
        route: lists::row(&candidate.route),
        lost: candidate.lost.as_ref().map(ToString::to_string),
    });
    explained.candidates = candidates.collect();
}

/// What the route does.
fn end(snapshot: &Snapshot, route: &Route, https: bool, explained: &mut Explained) -> String {
    if let (Some(status), false) = (route.policy.https_redirect, https) {
        return format!("{}: sent to HTTPS", status.as_u16());
    }
    match &route.action {
        Action::Redirect(to) => format!("{}: sent elsewhere", to.status.as_u16()),
        Action::Refuse { status, why } => format!("{}: {why}", status.as_u16()),
        Action::Forward(backends) => {
            explained.filters = route.filters.iter().map(filter).collect();
            for weighted in backends {
                explained
                    .endpoints
                    .extend(lists::of_backend(snapshot, &weighted.backend));
            }
            format!(
                "forwarded to {}, {}",
                lists::row(route).action,
                balance(&route.policy.balance)
            )
        }
    }
}

fn filter(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(edits) => format!("request headers: {}", names(edits)),
        Filter::ResponseHeaders(edits) => format!("response headers: {}", names(edits)),
        Filter::RewritePrefix(path) => format!("what matched becomes {path}"),
        Filter::RewritePath(path) => format!("the path becomes {path}"),
        Filter::RewriteHost(host) => format!("the host becomes {host}"),
    }
}

fn names(edits: &HeaderEdits) -> String {
    let removed = edits.remove.iter().map(|name| format!("-{name}"));
    let set = edits.set.iter().map(|(name, _)| format!("{name}="));
    let added = edits.add.iter().map(|(name, _)| format!("+{name}"));
    removed.chain(set).chain(added).collect::<Vec<_>>().join(" ")
}

fn balance(balance: &Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "in turn",
        Balance::LeastRequests => "to the one with fewer requests, of two drawn",
        Balance::PeakEwma => "to the faster one, of two drawn",
        Balance::Hash(_) => "by a hash",
        Balance::Cookie(_) => "by a cookie, in turn without one",
    }
}
