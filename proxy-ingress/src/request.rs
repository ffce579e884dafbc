//! A request's life:
//!
//! ```text
//!  room? ─▶ well formed? ─▶ host ─▶ canonical path ─▶ route ─┬─▶ redirect
//!                                                            ├─▶ refuse
//!                                                            └─▶ forward (forward.rs) ─▶ response
//! ```
//!
//! All decisions are made on the same strings: what is matched is what is forwarded.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;

use crate::body::ResponseBody;
use crate::forward;
use crate::headers;
use crate::redirect;
use crate::refusal::Refusal;
use crate::route::{Action, Asked, Route, Weighted, host as hosts};
use crate::seen::Seen;
use crate::serve::Client;
use crate::snapshot::Snapshot;
use crate::tend::Work;
use crate::upstream::Upstream;

/// Answers a request.
pub(crate) async fn serve(
    client: Rc<Client>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let seen = Rc::new(Seen::begin(&client, &mut request));
    let mut work = Some(client.tended.begin(client.settings.http2.given_up).telling(&seen));
    let version = request.version();
    // What follows a wish to change protocols was not looked at (head.rs), so nothing may follow unless it is granted.
    let tunnel = request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT;
    let blind = tunnel && version <= Version::HTTP_11;
    let answered = answer(&client, request, (&seen, &mut work)).await;
    let mut response = answered.unwrap_or_else(|refusal| {
        let mut response = refusal.answer();
        seen.refused(refusal);
        if refusal.ends_connection() && version <= Version::HTTP_11 {
            close(response.headers_mut());
        }
        response
    });
    if let Some(mut work) = work {
        seen.answers(response.status(), response.body());
        work.done();
    }
    if blind && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        close(response.headers_mut());
    }
    Ok(response)
}

fn close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// What is known of a request once its route is found.
pub(crate) struct Found {
    pub(crate) route: Arc<Route>,
    /// The path, where its canonical form is another than what was sent.
    pub(crate) path: Option<Box<str>>,
    pub(crate) seen: Rc<Seen>,
}

async fn answer(
    client: &Rc<Client>,
    request: Request<Incoming>,
    (seen, work): (&Rc<Seen>, &mut Option<Work>),
) -> Result<Response<ResponseBody>, Refusal> {
    let admitted = client.worker.admit(&client.settings)?;
    let (mut head, body) = request.into_parts();
    well_formed(client, &head)?;
    let snapshot = client.worker.shared.snapshot.load();
    let found = find(client, &snapshot, &head, seen)?;
    name_host(&mut head)?;
    if let Some(redirect) = redirect::to_https(client, &found.route, &head) {
        return Ok(redirect);
    }
    let made_under = client.shown.as_ref().and_then(|shown| shown.demand.as_ref());
    // Who looks for proof that we have a host's name may do so in clear text.
    let acme = client.shown.is_none() && found.route.path.is_acme();
    if !acme && !snapshot.client_auth.opens(made_under, &found.route) {
        return Err(Refusal::Misdirected);
    }
    match &found.route.action {
        Action::Redirect(to) => Ok(redirect::answer(client, to, &head)),
        Action::Refuse { status, .. } => Err(Refusal::Route(*status)),
        Action::Forward(backends) => {
            let upstream = choose(backends, &snapshot, client.worker.random.next())?;
            drop(snapshot);
            forward::forward(client, (head, body), &found, upstream, (work, admitted)).await
        }
    }
}

/// What hyper lets pass and nobody behind us should have to judge.
fn well_formed(client: &Client, head: &Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        let protocol = head.extensions.get::<Protocol>().map(Protocol::as_str);
        if !protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
            return Err(Refusal::Connect);
        }
    }
    let uri = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if uri > client.settings.uri_bytes {
        return Err(Refusal::LongUri);
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::Framing),
    }
}

fn find(client: &Client, snapshot: &Snapshot, head: &Parts, seen: &Rc<Seen>) -> Result<Found, Refusal> {
    let routes = &snapshot.routes;
    let host = host(head)?;
    if let (Some(shown), Some(host)) = (&client.shown, &host)
        && !shown.allows(host, snapshot)
    {
        return Err(Refusal::Misdirected);
    }
    let path = routes.canonical_path(head.uri.path()).ok_or(Refusal::Path)?;
    let asked = Asked {
        host: host.as_deref(),
        path: &path,
        method: &head.method,
        headers: &head.headers,
        query: head.uri.query(),
    };
    let found = routes.table.find(&asked).route();
    let route = Arc::clone(found.ok_or(Refusal::NoRoute)?);
    seen.routed(&route);
    let path = match path {
        Cow::Borrowed(same) if same == head.uri.path() => None,
        other => Some(other.into_owned().into_boxed_str()),
    };
    let seen = Rc::clone(seen);
    Ok(Found { route, path, seen })
}

/// The name that is asked for, in its canonical form. `Host`, the request line and `:authority` must agree: whoever is
/// behind us may read another of them.
fn host(head: &Parts) -> Result<Option<Cow<'_, str>>, Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::Host);
    }
    let header = header
        .map(|host| host.to_str().map_err(|_| Refusal::Host))
        .transpose()?;
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let text = match (authority, header) {
        (Some(authority), Some(header)) if !authority.eq_ignore_ascii_case(header) => {
            return Err(Refusal::TwoHosts);
        }
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) if head.version < Version::HTTP_11 => return Ok(None),
        (None, None) => return Err(Refusal::Host),
    };
    hosts::of_request(text.as_bytes()).map_err(|_| Refusal::Host)
}

/// From here on the name is in `Host`, wherever it was.
fn name_host(head: &mut Parts) -> Result<(), Refusal> {
    if let Some(authority) = head.uri.authority()
        && !head.headers.contains_key(HOST)
    {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Host)?;
        head.headers.insert(HOST, host);
    }
    Ok(())
}

/// Whether the client speaks HTTPS, to us or to a proxy that we trust.
pub(crate) fn is_https(client: &Client, head: &Parts) -> bool {
    client.shown.is_some() || client.trusted && headers::is_https_before(&head.headers)
}

/// One of a route's backends, as often as its weight says.
fn choose(backends: &[Weighted], snapshot: &Snapshot, random: u64) -> Result<Arc<Upstream>, Refusal> {
    let all: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let mut left = match backends {
        [_] => 0,
        _ => random.checked_rem(all).unwrap_or(0),
    };
    let found = backends
        .iter()
        .filter(|backend| backend.weight > 0)
        .find(|backend| {
            let weight = u64::from(backend.weight);
            let here = left < weight;
            left = left.saturating_sub(weight);
            here
        });
    let upstream = found.and_then(|found| snapshot.backends.get(&found.backend));
    upstream.cloned().ok_or(Refusal::NoEndpoint)
}
