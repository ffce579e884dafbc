//! `weir-ingress routes`, `certs`, `conflicts`, `endpoints`.

use anyhow::Result;
use proxy_daemon::table::Table;

use super::show;
use crate::admin::socket::ask;
use crate::admin::{CertificateRow, ConflictRow, EndpointRow, Question, RouteRow};
use crate::config::AskFlags;

/// All routes.
pub fn routes(flags: &AskFlags) -> Result<()> {
    let rows: Vec<RouteRow> = ask(&flags.admin_socket, &Question::Routes)?;
    show(flags, &rows, "routes", || {
        let mut table = Table::new(["HOST", "PATH", "TYPE", "INGRESS", "BACKEND"]);
        for row in &rows {
            table.push([&row.host, &row.path, &row.path_type, &row.ingress, &row.action].map(Clone::clone));
        }
        table
    })
}

/// All names with certificates.
pub fn certificates(flags: &AskFlags) -> Result<()> {
    let rows: Vec<CertificateRow> = ask(&flags.admin_socket, &Question::Certificates)?;
    show(flags, &rows, "names with certificates", || {
        let mut table = Table::new(["HOST", "SHOWN", "ASKED", "EXPIRES", "INGRESS", "NAMES"]);
        for row in &rows {
            let shown = match row.shown.as_str() {
                "" => "(default)",
                shown => shown,
            };
            table.push([
                row.host.clone(),
                shown.to_owned(),
                row.asked.clone(),
                row.expires.clone(),
                row.ingress.clone(),
                row.names.join(","),
            ]);
        }
        table
    })
}

/// All that was asked for in vain.
pub fn conflicts(flags: &AskFlags) -> Result<()> {
    let rows: Vec<ConflictRow> = ask(&flags.admin_socket, &Question::Conflicts)?;
    show(flags, &rows, "conflicts", || {
        let mut table = Table::new(["HOST", "INGRESS", "WINNER", "WHAT"]);
        for row in &rows {
            table.push([&row.host, &row.loser, &row.winner, &row.what].map(Clone::clone));
        }
        table
    })
}

/// All endpoints.
pub fn endpoints(flags: &AskFlags) -> Result<()> {
    let rows: Vec<EndpointRow> = ask(&flags.admin_socket, &Question::Endpoints)?;
    show(flags, &rows, "backends", || table(&rows))
}

/// Endpoints, line by line.
pub(super) fn table(rows: &[EndpointRow]) -> Table {
    let mut table = Table::new(["SERVICE", "PORT", "PROTOCOL", "ENDPOINT", "STATE", "REQUESTS"]);
    for row in rows {
        table.push([
            row.service.clone(),
            row.port.clone(),
            row.protocol.clone(),
            row.address.clone(),
            row.state.clone(),
            row.requests.to_string(),
        ]);
    }
    table
}
