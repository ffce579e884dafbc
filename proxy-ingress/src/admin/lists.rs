//! What is live, row by row.

use super::{CertificateRow, ConflictRow, EndpointRow, RouteRow, View};
use crate::model::Model;
use crate::route::{Action, Backend, PathMatch, Route, UpstreamProtocol};
use crate::settings::Upstreams;
use crate::snapshot::Snapshot;

/// All routes, by host.
pub fn routes(view: &View<'_>) -> Vec<RouteRow> {
    let Some(snapshot) = view.snapshot else {
        return Vec::new();
    };
    let mut rows: Vec<RouteRow> = snapshot
        .routes
        .table
        .hosts()
        .flat_map(|host| host.routes().map(|route| row(route)))
        .collect();
    // Within a host they are in the order in which they are asked.
    rows.sort_by(|a, b| a.host.cmp(&b.host));
    rows
}

/// A route as people read it.
pub(super) fn row(route: &Route) -> RouteRow {
    let path_type = match route.path {
        PathMatch::Exact(_) => "Exact",
        PathMatch::Prefix(_) => "Prefix",
        PathMatch::Rest => "Default",
    };
    RouteRow {
        host: route.host.to_string(),
        path_type: path_type.to_owned(),
        path: route.path.text().to_owned(),
        ingress: route.origin.object.to_string(),
        rule: route.origin.rule,
        entry: route.origin.entry,
        predicates: route.predicates.iter().map(ToString::to_string).collect(),
        action: action(&route.action),
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Forward(backends) => {
            let named = |backend: &Backend| match &*backend.port {
                "" => backend.service.to_string(),
                port => format!("{}:{port}", backend.service),
            };
            let all = backends.iter().map(|weighted| match weighted.weight {
                1 => named(&weighted.backend),
                weight => format!("{} (weight {weight})", named(&weighted.backend)),
            });
            all.collect::<Vec<_>>().join(", ")
        }
        Action::Redirect(to) => format!("redirect with {}", to.status.as_u16()),
        Action::Refuse { status, .. } => format!("refused with {}", status.as_u16()),
    }
}

/// All names with certificates, by name; the default last.
pub fn certificates(view: &View<'_>) -> Vec<CertificateRow> {
    let mut rows = view.served.certificate_rows();
    rows.sort_by(|a, b| a.host.cmp(&b.host));
    rows
}

/// All that was asked for in vain.
pub fn conflicts(model: &Model) -> Vec<ConflictRow> {
    let row = |conflict: crate::model::hosts::Conflict| ConflictRow {
        host: conflict.host.to_string(),
        loser: conflict.loser.object.to_string(),
        winner: conflict.winner.object.to_string(),
        what: conflict.to_string(),
    };
    model.conflicts().into_iter().map(row).collect()
}

/// All endpoints, by Service.
pub fn endpoints(view: &View<'_>) -> Vec<EndpointRow> {
    let Some(snapshot) = view.snapshot else {
        return Vec::new();
    };
    let mut backends: Vec<&Backend> = snapshot.backends.keys().collect();
    backends.sort();
    backends
        .iter()
        .flat_map(|backend| of_backend(snapshot, backend))
        .collect()
}

/// The endpoints of one backend; a row without an address if it has none.
pub(super) fn of_backend(snapshot: &Snapshot, backend: &Backend) -> Vec<EndpointRow> {
    let upstream = snapshot.backends.get(backend);
    let protocol = upstream.and_then(|upstream| upstream.protocol);
    let empty = EndpointRow {
        service: backend.service.to_string(),
        port: backend.port.to_string(),
        protocol: protocol.map_or("", word).to_owned(),
        address: String::new(),
        state: "no endpoint: 503".to_owned(),
        requests: 0,
    };
    let limits: &Upstreams = &snapshot.settings.upstream;
    let found = upstream.map(|upstream| upstream.look(limits)).unwrap_or_default();
    if found.is_empty() {
        return vec![empty];
    }
    let row = |seen: crate::upstream::Seen| EndpointRow {
        address: seen.address.to_string(),
        state: seen.state,
        requests: seen.requests,
        ..empty.clone()
    };
    found.into_iter().map(row).collect()
}

/// As the annotation has it.
pub(super) fn word(protocol: UpstreamProtocol) -> &'static str {
    match protocol {
        UpstreamProtocol::Http1 => "http",
        UpstreamProtocol::H2c => "h2c",
        UpstreamProtocol::Https => "https",
    }
}
