//! `weir backends`: endpoints one by one.

use anyhow::Result;
use proxy_daemon::table::Table;
use serde::Serialize;

use super::view::{self, Endpoint, Frontend};
use super::{answer, say_if_empty, services};
use crate::config::ServiceFlags;
use crate::kernel::Maps;

/// An endpoint, and whose it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    port_name: String,
    protocol: String,
    service_id: u32,
    #[serde(flatten)]
    endpoint: Endpoint,
}

/// Answers.
pub fn run(flags: &ServiceFlags) -> Result<()> {
    let maps = Maps::open(&flags.output.bpffs.pins())?;
    let rows = rows(view::frontends(&maps, |name| services::wants(flags, name))?);
    say_if_empty(&flags.output, &rows, "endpoints");
    answer(&flags.output, &rows, |wide| table(&rows, wide))
}

/// The frontends of a service port share their endpoints: each is shown once.
fn rows(frontends: Vec<Frontend>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for frontend in frontends {
        for endpoint in frontend.endpoints {
            if seen.insert((frontend.id, endpoint.id)) {
                rows.push(Row {
                    namespace: frontend.namespace.clone(),
                    name: frontend.name.clone(),
                    port_name: frontend.port_name.clone(),
                    protocol: frontend.protocol.clone(),
                    service_id: frontend.id,
                    endpoint,
                });
            }
        }
    }
    rows
}

fn table(rows: &[Row], wide: bool) -> Table {
    let header = [
        "NAMESPACE",
        "SERVICE",
        "PORT",
        "ADDRESS",
        "LOCAL",
        "SERVING",
        "CHOSEN",
    ];
    let more: &[_] = if wide {
        &["ID", "GENERATION", "SLOT", "SERVICE-ID"]
    } else {
        &[]
    };
    let mut table = Table::new(header.into_iter().chain(more.iter().copied()));
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    for row in rows {
        let endpoint = &row.endpoint;
        let mut words = vec![
            row.namespace.clone(),
            row.name.clone(),
            row.port_name.clone(),
            format!("{}/{}", endpoint.socket(), row.protocol),
            yes(endpoint.local),
            yes(endpoint.serving),
            endpoint.chosen.to_string(),
        ];
        if wide {
            words.extend(
                [endpoint.id, endpoint.generation, endpoint.slot, row.service_id]
                    .map(|number| number.to_string()),
            );
        }
        table.push(words);
    }
    table
}
