//! `weir affinity`: to which endpoint a client sticks, and whether its next connection goes there.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::Result;
use proxy_common::{Affinity, AffinityBackend, AffinityKey, BackendSet, Ip};
use proxy_daemon::table::Table;
use serde::Serialize;

use super::flows::limit;
use super::view::{self, Name};
use super::{answer, say_if_empty, short_time, socket, word};
use crate::config::FlowFlags;
use crate::kernel::{self, Maps};

/// A client of a service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    service: String,
    port_name: String,
    /// None for the processes of this node, which are one client.
    client: Option<IpAddr>,
    /// Which of the Service's endpoints the client was offered.
    set: String,
    /// None if nobody may stick to it any more.
    endpoint: Option<String>,
    /// Seconds since the client's last new connection.
    idle: u32,
    /// Seconds after which it is forgotten; 0 if the Service has no affinity any more.
    timeout: u32,
    /// What the client's next connection does.
    next: Next,
    service_id: u32,
    backend_id: u32,
    backend_generation: u32,
}

/// What a client's next connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Next {
    /// It goes to the same endpoint.
    Stays,
    /// It takes a turn: the client stayed away for too long.
    TimedOut,
    /// It takes a turn: the endpoint is not one of its set any more.
    EndpointLeft,
    /// It takes a turn, like everybody's.
    NoAffinity,
}

impl Next {
    const fn text(self) -> &'static str {
        match self {
            Self::Stays => "stays",
            Self::TimedOut => "a turn: timed out",
            Self::EndpointLeft => "a turn: endpoint left",
            Self::NoAffinity => "a turn: no affinity",
        }
    }
}

/// Answers.
pub fn run(flags: &FlowFlags) -> Result<()> {
    let maps = Maps::open(&flags.output.bpffs.pins())?;
    let names = view::names(&maps)?;
    let timeouts: HashMap<u32, u32> = maps
        .services()?
        .iter()
        .map(|(_, row)| (row.id, row.affinity_timeout))
        .collect();
    let now = kernel::monotonic_seconds();
    let mut clients = Vec::new();
    for (key, row) in maps.affinity()? {
        let name = names.get(&key.service).cloned();
        let name = name.unwrap_or_else(|| Name::unknown(key.service));
        let wanted = flags
            .client
            .is_none_or(|client| IpAddr::from(key.client) == client)
            && flags.namespaces.wants(&name.namespace)
            && flags
                .service
                .as_deref()
                .is_none_or(|wanted| wanted == name.service);
        if wanted {
            let timeout = timeouts.get(&key.service).copied().unwrap_or(0);
            let backend = maps.affinity_backend(row.backend_id)?;
            clients.push(Row::new(&key, &row, name, (timeout, backend, now)));
        }
    }
    clients.sort_by_cached_key(|one| {
        let name = (one.namespace.clone(), one.service.clone(), one.port_name.clone());
        (name, one.client, one.set.clone())
    });
    say_if_empty(&flags.output, &clients, "clients that stick to an endpoint");
    let all = clients.len();
    clients.truncate(limit(flags));
    answer(&flags.output, &clients, |wide| table(&clients, wide))?;
    if clients.len() < all {
        eprintln!("{} more; --limit 0 shows all.", all - clients.len());
    }
    Ok(())
}

impl Row {
    fn new(
        key: &AffinityKey,
        row: &Affinity,
        name: Name,
        (timeout, backend, now): (u32, Option<AffinityBackend>, u32),
    ) -> Self {
        let set = u8::try_from(key.set).ok().and_then(BackendSet::from_code);
        let backend = backend.filter(|there| {
            let same = (row.backend_generation, key.service);
            let in_set = if set == Some(BackendSet::Local) {
                there.in_local
            } else {
                there.in_cluster
            };
            (there.backend.generation, there.backend.service) == same && in_set != 0
        });
        let idle = now.saturating_sub(row.last_seen);
        Self {
            namespace: name.namespace,
            service: name.service,
            port_name: name.port,
            client: (key.client != Ip::UNSPECIFIED).then(|| key.client.into()),
            set: word(set.map(BackendSet::name), key.set),
            endpoint: backend.map(|there| socket(there.backend.address, there.backend.port)),
            idle,
            timeout,
            next: match backend {
                _ if timeout == 0 => Next::NoAffinity,
                _ if idle > timeout => Next::TimedOut,
                None => Next::EndpointLeft,
                Some(_) => Next::Stays,
            },
            service_id: key.service,
            backend_id: row.backend_id,
            backend_generation: row.backend_generation,
        }
    }
}

fn table(clients: &[Row], wide: bool) -> Table {
    let header = [
        "NAMESPACE",
        "SERVICE",
        "PORT",
        "CLIENT",
        "SET",
        "ENDPOINT",
        "IDLE",
        "TIMEOUT",
        "NEXT",
    ];
    let more: &[_] = if wide {
        &["SERVICE-ID", "BACKEND-ID", "GENERATION"]
    } else {
        &[]
    };
    let mut table = Table::new(header.into_iter().chain(more.iter().copied()));
    for one in clients {
        let client = one
            .client
            .map_or_else(|| "this node".to_owned(), |ip| ip.to_string());
        let mut row = vec![
            one.namespace.clone(),
            one.service.clone(),
            one.port_name.clone(),
            client,
            one.set.clone(),
            one.endpoint.clone().unwrap_or_default(),
            short_time(one.idle),
            short_time(one.timeout),
            one.next.text().to_owned(),
        ];
        if wide {
            row.extend(
                [one.service_id, one.backend_id, one.backend_generation].map(|number| number.to_string()),
            );
        }
        table.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use proxy_common::Backend;

    use super::*;

    #[test]
    fn a_line_says_where_the_next_connection_goes() {
        let there = AffinityBackend {
            backend: Backend {
                address: Ip::v4([10, 1, 0, 2]),
                port: 8080,
                generation: 3,
                ..Backend::default()
            },
            in_cluster: 1,
            ..AffinityBackend::default()
        };
        let moved = AffinityBackend {
            in_cluster: 0,
            in_local: 1,
            ..there
        };
        let client = |client, last_seen, timeout, there| {
            let key = AffinityKey {
                client,
                ..AffinityKey::default()
            };
            let row = Affinity {
                last_seen,
                backend_generation: 3,
                ..Affinity::default()
            };
            Row::new(&key, &row, Name::unknown(0), (timeout, there, 1000))
        };
        let pod = Ip::v4([10, 1, 0, 9]);
        let clients = [
            client(pod, 940, 10_800, Some(there)),
            client(Ip::UNSPECIFIED, 940, 60, Some(there)),
            client(pod, 939, 60, Some(there)),
            client(pod, 940, 60, Some(moved)),
            client(pod, 940, 60, None),
            client(pod, 940, 0, Some(there)),
        ];
        let lines = table(&clients, false).render(false);
        let lines: Vec<Vec<&str>> = lines.lines().map(|line| line.split("   ").collect()).collect();
        let told: Vec<_> = lines
            .iter()
            .map(|words| (words[3].trim(), words.last().unwrap().trim()))
            .collect();
        assert_eq!(
            told,
            [
                ("10.1.0.9", "stays"),
                ("this node", "stays"),
                ("10.1.0.9", "a turn: timed out"),
                ("10.1.0.9", "a turn: endpoint left"),
                ("10.1.0.9", "a turn: endpoint left"),
                ("10.1.0.9", "a turn: no affinity"),
            ]
        );
    }
}
