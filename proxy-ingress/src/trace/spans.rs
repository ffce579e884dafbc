//! The spans of a request: one for it, and one for each try to get it answered. Names and attributes are those of
//! OpenTelemetry's semantic conventions for HTTP; what may hold a secret (the query) is not among them.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::HeaderMap;
use tokio::time::Instant;

use super::otlp::{ERROR, KeyValue, Kind, Span, Status};
use super::{Part, context, fresh};
use crate::access::line::{Facts, path};
use crate::mix::Random;

/// Methods that are named; another one is whatever a client made up.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// An attempt to get an answer from an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Try {
    span: u64,
    endpoint: SocketAddr,
    /// Since the request's head.
    begun: Duration,
    /// Until the response's head, or until it failed.
    took: Duration,
    /// What came back, if anything did.
    status: Option<u16>,
    /// Why nothing did.
    error: Option<&'static str>,
}

/// A request's part in a trace that is sampled.
pub(crate) struct Trace {
    part: Part,
    /// What others want to be carried along.
    state: String,
    tries: Vec<Try>,
}

impl Trace {
    pub(crate) fn new(part: Part, headers: &HeaderMap) -> Self {
        Self {
            part,
            state: context::state(headers).unwrap_or_default(),
            tries: Vec::new(),
        }
    }

    /// An endpoint is asked.
    pub(crate) fn asks(&mut self, endpoint: SocketAddr, begun: Instant, random: &Random) {
        self.tries.push(Try {
            span: fresh(random),
            endpoint,
            begun: begun.elapsed(),
            took: Duration::ZERO,
            status: None,
            error: None,
        });
    }

    /// For the endpoint, the last try is the parent.
    pub(crate) fn names_parent(&self, headers: &mut HeaderMap) {
        let last = self.tries.last().map_or(self.part.context.span, |last| last.span);
        if let Some(header) = self.part.context.header(last) {
            headers.insert(context::PARENT, header);
        }
    }

    /// The last try has an answer, or none will come.
    pub(crate) fn over(&mut self, at: Duration, result: Result<u16, &'static str>) {
        if let Some(last) = self.tries.last_mut() {
            last.took = at.saturating_sub(last.begun);
            last.status = result.ok();
            last.error = result.err();
        }
    }

    /// All spans of a request that has ended.
    pub(crate) fn spans(&self, facts: &Facts<'_>) -> Vec<Span> {
        let mut spans = Vec::with_capacity(1 + self.tries.len());
        spans.push(server(self.part, &self.state, facts));
        for (number, one) in self.tries.iter().enumerate() {
            spans.push(client(self.part, &self.state, facts, (number, one)));
        }
        spans
    }
}

fn span(part: Part, state: &str, kind: Kind, (from, took): (Duration, Duration)) -> Span {
    Span {
        trace_id: part.context.trace.to_be_bytes().to_vec(),
        trace_state: state.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanos(from),
        end_time_unix_nano: nanos(from + took),
        flags: part.context.flags.into(),
        ..Span::default()
    }
}

fn server(part: Part, state: &str, facts: &Facts<'_>) -> Span {
    let mut span = span(part, state, Kind::Server, (facts.time, facts.took));
    span.span_id = part.context.span.to_be_bytes().to_vec();
    if part.parent != 0 {
        span.parent_span_id = part.parent.to_be_bytes().to_vec();
    }
    let method = method(facts.method);
    let route = facts.route.map(path);
    span.name = match route {
        Some(route) => format!("{} {route}", shown(method)),
        None => shown(method).to_owned(),
    };
    let all = &mut span.attributes;
    all.push(KeyValue::text("http.request.method", method));
    if method == "_OTHER" {
        all.push(KeyValue::text("http.request.method_original", facts.method));
    }
    all.push(KeyValue::text("url.scheme", facts.scheme));
    all.push(KeyValue::text("url.path", facts.path));
    all.push(KeyValue::number("http.response.status_code", facts.status));
    if let Some(route) = route {
        all.push(KeyValue::text("http.route", route));
    }
    if let Some(ingress) = facts.route.map(|route| &route.origin.object) {
        all.push(KeyValue::text("weir.ingress", ingress.to_string()));
    }
    let host = facts.host.map(String::from_utf8_lossy);
    if let Some((name, port)) = host.as_deref().map(parted) {
        all.push(KeyValue::text("server.address", name));
        all.extend(port.map(|port| KeyValue::number("server.port", port)));
    }
    all.extend(
        facts
            .client
            .map(|client| KeyValue::text("client.address", client.to_string())),
    );
    let version = facts.protocol.strip_prefix("HTTP/").unwrap_or(facts.protocol);
    all.push(KeyValue::text("network.protocol.version", version));
    if let Some(agent) = facts.user_agent {
        all.push(KeyValue::text(
            "user_agent.original",
            String::from_utf8_lossy(agent),
        ));
    }
    let code = (facts.status >= 500).then(|| facts.status.to_string());
    let error = facts.refusal.or(facts.aborted).map(str::to_owned).or(code);
    // A client's own mistakes are no error of the server that tells it so.
    if let Some(error) = error.filter(|_| facts.status >= 500 || facts.aborted.is_some()) {
        all.push(KeyValue::text("error.type", error));
        span.status = Some(Status { code: ERROR });
    }
    span
}

fn client(part: Part, state: &str, facts: &Facts<'_>, (number, one): (usize, &Try)) -> Span {
    // Nothing came of it before the request ended.
    let given_up = one.status.is_none() && one.error.is_none();
    let took = if given_up {
        facts.took.saturating_sub(one.begun)
    } else {
        one.took
    };
    let mut span = span(part, state, Kind::Client, (facts.time + one.begun, took));
    span.span_id = one.span.to_be_bytes().to_vec();
    span.parent_span_id = part.context.span.to_be_bytes().to_vec();
    let method = method(facts.method);
    shown(method).clone_into(&mut span.name);
    let all = &mut span.attributes;
    all.push(KeyValue::text("http.request.method", method));
    all.push(KeyValue::text("server.address", one.endpoint.ip().to_string()));
    all.push(KeyValue::number("server.port", one.endpoint.port()));
    if number > 0 {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        all.push(KeyValue::number("http.request.resend_count", number));
    }
    all.extend(
        one.status
            .map(|status| KeyValue::number("http.response.status_code", status)),
    );
    let ended = facts.refusal.or(facts.aborted).filter(|_| given_up);
    let code = one
        .status
        .filter(|status| *status >= 400)
        .map(|status| status.to_string());
    if let Some(error) = one.error.or(ended).map(str::to_owned).or(code) {
        all.push(KeyValue::text("error.type", error));
        span.status = Some(Status { code: ERROR });
    }
    span
}

fn method(method: &str) -> &'static str {
    let known = METHODS.into_iter().find(|known| *known == method);
    known.unwrap_or("_OTHER")
}

/// In a span's name.
fn shown(method: &'static str) -> &'static str {
    if method == "_OTHER" { "HTTP" } else { method }
}

/// Name and port of a host as clients write it.
fn parted(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
