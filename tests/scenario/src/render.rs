//! Rows as text: by what they mean, without ids and slots, in a fixed order, with host-order numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proxy_common::{
    AddressKind, Backend, BackendRange, FrontendFlag, FrontendKind, Protocol, Scope, Service, ServiceKey,
    ServiceName, TrafficPolicy,
};
use proxy_model::{Adopted, Prefix};

/// All rows that decide what happens to a packet.
pub fn rows(rows: &Adopted) -> String {
    let mut text = String::new();
    let backends: BTreeMap<u32, Backend> = rows.backends.iter().copied().collect();
    let names: BTreeMap<u32, ServiceName> = rows.names.iter().copied().collect();
    let mut services = rows.services.clone();
    services.sort_unstable_by_key(|(key, _)| (key.scope, *key));
    for (key, row) in &services {
        let _ = writeln!(
            text,
            "{} {}{} {}",
            frontend(key),
            policy(row),
            if row.has(FrontendFlag::Masqueraded) {
                " masqueraded"
            } else {
                ""
            },
            name(names.get(&row.id))
        );
        text.push_str(&targets(row, &backends));
        if row.has(FrontendFlag::Guarded) {
            text.push_str(&sources(row, rows));
        }
    }
    text.push_str(&sticky(rows, &names));
    let mut addresses = rows.addresses.clone();
    addresses.sort_unstable_by_key(|(address, _)| *address);
    for (address, row) in &addresses {
        let kind = AddressKind::from_code(row.kind).map_or("?", AddressKind::name);
        let node_ports = if row.node_ports == 1 {
            " with node ports"
        } else {
            ""
        };
        let vip = if row.vip == 1 {
            " and a load balancer's"
        } else {
            ""
        };
        let _ = writeln!(text, "address {address} {kind}{node_ports}{vip}");
    }
    text.push_str(&ranges(rows));
    let (first, last) = rows.node_ports;
    if first <= last {
        let _ = writeln!(text, "node ports {first} to {last}");
    }
    let serving = rows.states.iter().filter(|(_, state)| state.serving != 0).count();
    if !rows.sources.is_empty() {
        let _ = writeln!(text, "source ranges: {}", rows.sources.len());
    }
    let _ = writeln!(
        text,
        "ids: {} service ports, {serving} backends in service",
        names.len()
    );
    text.truncate(text.trim_end().len());
    text
}

/// The ranges of ClusterIPs and of pods.
fn ranges(rows: &Adopted) -> String {
    let mut text = String::new();
    for cidr in rows.service_cidrs.v4.iter().chain(&rows.service_cidrs.v6) {
        let bits = u128::from_be_bytes(cidr.mask.bytes).count_ones();
        if let Some(range) = Prefix::from_row(cidr.first, bits).filter(|_| bits > 0) {
            let _ = writeln!(text, "ClusterIPs are in {range}");
        }
    }
    for cidr in [rows.local_sources.v4, rows.local_sources.v6] {
        let bits = u128::from_be_bytes(cidr.mask.bytes).count_ones();
        if let Some(range) = Prefix::from_row(cidr.first, bits).filter(|_| bits > 0) {
            let _ = writeln!(text, "pods are in {range}");
        }
    }
    text
}

fn frontend(key: &ServiceKey) -> String {
    let protocol = Protocol::from_number(key.protocol)
        .map_or_else(|| key.protocol.to_string(), |known| known.to_string());
    let (address, port) = (key.address, key.port);
    match Scope::from_code(key.scope) {
        Some(Scope::Address) if address.is_v4() => format!("{address}:{port}/{protocol}"),
        Some(Scope::Address) => format!("[{address}]:{port}/{protocol}"),
        Some(Scope::NodePortV4) => format!("node IPv4:{port}/{protocol}"),
        Some(Scope::NodePortV6) => format!("node IPv6:{port}/{protocol}"),
        None => format!("{key:?}"),
    }
}

fn policy(row: &Service) -> String {
    let kind = FrontendKind::from_code(row.kind).map_or("?", FrontendKind::name);
    let policy = TrafficPolicy::from_code(row.policy).map_or("?", TrafficPolicy::name);
    let affinity = match row.affinity_timeout {
        0 => String::new(),
        seconds => format!(" sticky {seconds} s"),
    };
    format!("{kind} {policy}{affinity}")
}

/// Who is let in.
fn sources(row: &Service, rows: &Adopted) -> String {
    let of_row = |(id, _, generation): &&(u32, Prefix, u32)| (*id, *generation) == (row.id, row.generation);
    let ranges = rows.sources.iter().filter(of_row);
    let mut words: Vec<String> = ranges.map(|(_, range, _)| range.to_string()).collect();
    words.sort();
    if words.is_empty() {
        return "  for nobody\n".to_owned();
    }
    format!("  for {}\n", words.join(" "))
}

fn name(row: Option<&ServiceName>) -> String {
    let Some(row) = row else {
        return "without a name".to_owned();
    };
    let text = |bytes: &[u8]| {
        let bytes: Vec<u8> = bytes.iter().copied().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let port = Some(text(&row.port_name))
        .filter(|port| !port.is_empty())
        .map(|port| format!(" port {port}"));
    format!(
        "{}/{}{}",
        text(&row.namespace),
        text(&row.name),
        port.unwrap_or_default()
    )
}

/// To whom clients may stick.
fn sticky(rows: &Adopted, names: &BTreeMap<u32, ServiceName>) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (_, row) in &rows.affinity_backends {
        let backend = &row.backend;
        let sets = match (row.in_cluster, row.in_local) {
            (1, 1) => "cluster local",
            (1, 0) => "cluster",
            (0, 1) => "local",
            _ => "nobody",
        };
        let of = name(names.get(&backend.service));
        lines.push(format!(
            "sticky {}:{} of {of}: {sets}\n",
            backend.address, backend.port
        ));
    }
    lines.sort_unstable();
    lines.concat()
}

fn targets(row: &Service, backends: &BTreeMap<u32, Backend>) -> String {
    let slots = |range: BackendRange| range.base..range.base + range.count;
    let (cluster, local) = (slots(row.cluster), slots(row.local));
    if cluster.is_empty() && local.is_empty() {
        return "  rejected: no endpoints\n".to_owned();
    }
    let mut lines: Vec<String> = Vec::new();
    let first = if local.is_empty() {
        cluster.start
    } else {
        local.start.min(cluster.start)
    };
    for slot in first..cluster.end.max(local.end) {
        let Some(backend) = backends.get(&slot) else {
            lines.push(format!("  slot {slot} is empty"));
            continue;
        };
        let here = if backend.local == 1 { " here" } else { "" };
        let range = match (cluster.contains(&slot), local.contains(&slot)) {
            (true, true) => " cluster local",
            (true, false) => " cluster",
            (false, true) => " local",
            (false, false) => " not used",
        };
        lines.push(format!("  {}:{}{here}:{range}", backend.address, backend.port));
    }
    if row.policy == TrafficPolicy::Local.code() && local.is_empty() {
        lines.push("  none here: dropped".to_owned());
    }
    lines.join("\n") + "\n"
}
