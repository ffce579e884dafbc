//! `weir flows`: connections that the packet path translates.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use proxy_common::{Flow, FlowState, Ip, Nat};
use proxy_daemon::table::Table;
use serde::Serialize;

use super::view::{self, Name};
use super::{answer, protocol, say_if_empty, short_time, socket, word};
use crate::config::{FlowFlags, Output};
use crate::kernel::{self, Maps};

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    namespace: String,
    service: String,
    port_name: String,
    protocol: String,
    client: IpAddr,
    client_port: u16,
    frontend: IpAddr,
    frontend_port: u16,
    /// Who the backend sees.
    source: IpAddr,
    source_port: u16,
    backend: IpAddr,
    backend_port: u16,
    state: String,
    nat: String,
    /// Seconds since the last packet.
    idle: u32,
    interface: u32,
    service_id: u32,
    backend_id: u32,
    backend_generation: u32,
}

/// Answers.
pub fn run(flags: &FlowFlags) -> Result<()> {
    let maps = Maps::open(&flags.output.bpffs.pins())?;
    let names = view::names(&maps)?;
    let mut flows = Flows::default();
    for chunk in maps.flows() {
        for (_, flow) in chunk? {
            if flags
                .client
                .is_none_or(|client| IpAddr::from(flow.client) == client)
            {
                flows.add(flow);
            }
        }
    }
    let now = kernel::monotonic_seconds();
    let mut connections = flows.connections(now, |id| names.get(&id).cloned());
    connections.retain(|one| {
        flags.namespaces.wants(&one.namespace)
            && flags
                .service
                .as_deref()
                .is_none_or(|wanted| wanted == one.service)
    });
    say_if_empty(&flags.output, &connections, "connections");
    let all = connections.len();
    connections.truncate(limit(flags));
    answer(&flags.output, &connections, |wide| table(&connections, wide))?;
    if connections.len() < all {
        eprintln!("{} more; --limit 0 shows all.", all - connections.len());
    }
    Ok(())
}

/// A person reads some lines, a program all of them: it would not see that some are missing.
pub(super) fn limit(flags: &FlowFlags) -> usize {
    let usual = if flags.output.output == Output::Json {
        0
    } else {
        100
    };
    match flags.limit.unwrap_or(usual) {
        0 => usize::MAX,
        most => most,
    }
}

/// One end of a connection as both of its rows tell it.
type Identity = (Ip, u16, Ip, u16, u8, u32);

/// A connection has two rows, of which either may have been evicted.
#[derive(Default)]
struct Flows {
    rows: BTreeMap<Identity, Flow>,
}

impl Flows {
    fn add(&mut self, flow: Flow) {
        let identity = (
            flow.client,
            flow.client_port,
            flow.frontend,
            flow.frontend_port,
            flow.protocol,
            flow.interface,
        );
        let known = self.rows.entry(identity).or_insert(flow);
        if flow.last_seen >= known.last_seen {
            *known = flow;
        }
    }

    /// In the order of their Services' names, then clients.
    fn connections(&self, now: u32, name: impl Fn(u32) -> Option<Name>) -> Vec<Connection> {
        let connection = |flow: &Flow| {
            let name = name(flow.service).unwrap_or_else(|| Name::unknown(flow.service));
            Connection::new(flow, name, now)
        };
        let mut connections: Vec<_> = self.rows.values().map(connection).collect();
        connections
            .sort_by_cached_key(|one| (one.namespace.clone(), one.service.clone(), one.port_name.clone()));
        connections
    }
}

impl Connection {
    fn new(flow: &Flow, name: Name, now: u32) -> Self {
        Self {
            namespace: name.namespace,
            service: name.service,
            port_name: name.port,
            protocol: protocol(flow.protocol),
            client: flow.client.into(),
            client_port: flow.client_port,
            frontend: flow.frontend.into(),
            frontend_port: flow.frontend_port,
            source: flow.source.into(),
            source_port: flow.source_port,
            backend: flow.backend.into(),
            backend_port: flow.backend_port,
            state: FlowState::of(flow.state).name().to_owned(),
            nat: word(Nat::from_code(flow.nat).map(Nat::name), flow.nat),
            idle: now.saturating_sub(flow.last_seen),
            interface: flow.interface,
            service_id: flow.service,
            backend_id: flow.backend_id,
            backend_generation: flow.backend_generation,
        }
    }
}

fn table(connections: &[Connection], wide: bool) -> Table {
    let header = [
        "NAMESPACE",
        "SERVICE",
        "PROTOCOL",
        "CLIENT",
        "FRONTEND",
        "BACKEND",
        "STATE",
        "IDLE",
    ];
    let more: &[_] = if wide {
        &["SOURCE", "NAT", "INTERFACE", "BACKEND-ID"]
    } else {
        &[]
    };
    let mut table = Table::new(header.into_iter().chain(more.iter().copied()));
    for one in connections {
        let mut row = vec![
            one.namespace.clone(),
            one.service.clone(),
            one.protocol.clone(),
            socket(one.client, one.client_port),
            socket(one.frontend, one.frontend_port),
            socket(one.backend, one.backend_port),
            one.state.clone(),
            short_time(one.idle),
        ];
        if wide {
            row.extend([
                socket(one.source, one.source_port),
                one.nat.clone(),
                one.interface.to_string(),
                one.backend_id.to_string(),
            ]);
        }
        table.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use proxy_common::FlowBit;

    use super::*;
    use crate::config::{Cli, Command};
    use clap::Parser;

    #[test]
    fn programs_get_all_unless_they_ask_for_fewer() {
        let limit_of = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Flows(flags) => limit(&flags),
            other => panic!("{other:?}"),
        };
        assert_eq!(limit_of("weir flows"), 100);
        assert_eq!(limit_of("weir flows -o wide"), 100);
        assert_eq!(limit_of("weir flows -o json"), usize::MAX);
        assert_eq!(limit_of("weir flows -o json --limit 7"), 7);
        assert_eq!(limit_of("weir flows --limit 0"), usize::MAX);
    }

    #[test]
    fn the_two_rows_of_a_connection_are_one_line_with_the_younger_time() {
        let mut flow = Flow {
            client: Ip::v4([10, 1, 0, 9]),
            client_port: 40000,
            frontend: Ip::v4([10, 96, 0, 10]),
            frontend_port: 80,
            source: Ip::v4([10, 1, 0, 9]),
            source_port: 40000,
            backend: Ip::v4([10, 1, 0, 2]),
            backend_port: 8080,
            protocol: 6,
            state: FlowBit::Established.code(),
            last_seen: 100,
            ..Flow::default()
        };
        let mut flows = Flows::default();
        flows.add(flow);
        flow.last_seen = 140;
        flow.direction = 1;
        flows.add(flow);
        let text = table(&flows.connections(200, |_| None), false).render(false);
        assert_eq!(
            text,
            "<none>   id-0   TCP   10.1.0.9:40000   10.96.0.10:80   10.1.0.2:8080   Established   60s\n"
        );
    }
}
