//! `weir services`: what the kernel serves, and how often each endpoint was chosen.

use anyhow::Result;
use proxy_daemon::table::Table;

use super::view::{self, Endpoint, Frontend};
use super::{answer, say_if_empty};
use crate::config::ServiceFlags;
use crate::kernel::Maps;

/// Endpoints that a table shows with their counts, as kubectl does; `weir backends` has a line for each, JSON all.
const SHOWN: usize = 3;

/// Answers.
pub fn run(flags: &ServiceFlags) -> Result<()> {
    let maps = Maps::open(&flags.output.bpffs.pins())?;
    let frontends = view::frontends(&maps, |name| wants(flags, name))?;
    say_if_empty(&flags.output, &frontends, "Services");
    answer(&flags.output, &frontends, |wide| table(&frontends, wide))
}

pub(super) fn wants(flags: &ServiceFlags, name: &view::Name) -> bool {
    flags.namespaces.wants(&name.namespace)
        && flags.name.as_deref().is_none_or(|wanted| wanted == name.service)
}

fn table(frontends: &[Frontend], wide: bool) -> Table {
    let header = [
        "NAMESPACE",
        "NAME",
        "PORT",
        "TYPE",
        "ADDRESS",
        "ENDPOINTS",
        "FLOWS",
    ];
    let more: &[_] = if wide {
        &["ID", "GENERATION", "POLICY", "ALGORITHM", "AFFINITY", "SLOTS"]
    } else {
        &[]
    };
    let last = "CHOSEN (ENDPOINT=TIMES)";
    let mut table = Table::new(header.into_iter().chain(more.iter().copied()).chain([last]));
    for one in frontends {
        let mut row = vec![
            one.namespace.clone(),
            one.name.clone(),
            one.port_name.clone(),
            one.kind.clone(),
            one.socket(),
            endpoints(&one.endpoints),
            one.flows.to_string(),
        ];
        if wide {
            row.extend([
                one.id.to_string(),
                one.generation.to_string(),
                one.policy.clone(),
                one.algorithm.clone(),
                affinity(one.affinity_timeout),
                slots(&one.endpoints),
            ]);
        }
        row.push(chosen(&one.endpoints));
        table.push(row);
    }
    table
}

/// `10800s`, or nothing
fn affinity(timeout: u32) -> String {
    match timeout {
        0 => String::new(),
        seconds => format!("{seconds}s"),
    }
}

/// `3 (1 local)`
fn endpoints(endpoints: &[Endpoint]) -> String {
    let local = endpoints.iter().filter(|one| one.local).count();
    format!("{} ({local} local)", endpoints.len())
}

/// `10.1.0.2:8080=1000,10.1.0.3:8080=1000,10.1.0.4:8080=999 + 4 more...`
fn chosen(endpoints: &[Endpoint]) -> String {
    let shown: Vec<_> = endpoints
        .iter()
        .take(SHOWN)
        .map(|one| format!("{}={}", one.socket(), one.chosen))
        .collect();
    let mut text = shown.join(",");
    if endpoints.len() > shown.len() {
        text = format!("{text} + {} more...", endpoints.len() - shown.len());
    }
    text
}

/// `4-6`
fn slots(endpoints: &[Endpoint]) -> String {
    let first = endpoints.iter().map(|one| one.slot).min();
    let last = endpoints.iter().map(|one| one.slot).max();
    match (first, last) {
        (Some(first), Some(last)) if first == last => first.to_string(),
        (Some(first), Some(last)) => format!("{first}-{last}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8, chosen: u64) -> Endpoint {
        Endpoint {
            address: [10, 1, 0, last].into(),
            port: 8080,
            local: last == 1,
            serving: true,
            chosen,
            id: u32::from(last),
            generation: 1,
            slot: 10 + u32::from(last),
        }
    }

    fn frontend(endpoints: Vec<Endpoint>) -> Frontend {
        Frontend {
            namespace: "shop".into(),
            name: "web".into(),
            port_name: String::new(),
            kind: "ClusterIP".into(),
            address: [10, 96, 0, 10].into(),
            port: 80,
            protocol: "TCP".into(),
            policy: "Cluster".into(),
            algorithm: "RoundRobin".into(),
            affinity_timeout: 10_800,
            id: 7,
            generation: 1,
            flows: 2,
            endpoints,
        }
    }

    #[test]
    fn the_table_shows_how_often_each_endpoint_was_chosen() {
        let frontends = [frontend((1..=4).map(|last| endpoint(last, 1000)).collect())];
        assert_eq!(
            table(&frontends, false).render(true),
            "NAMESPACE   NAME   PORT     TYPE        ADDRESS             ENDPOINTS     FLOWS   CHOSEN (ENDPOINT=TIMES)\n\
             shop        web    <none>   ClusterIP   10.96.0.10:80/TCP   4 (1 local)   2       \
             10.1.0.1:8080=1000,10.1.0.2:8080=1000,10.1.0.3:8080=1000 + 1 more...\n"
        );
        let wide = table(&frontends, true).render(false);
        assert!(
            wide.contains("10.1.0.3:8080=1000 + 1 more...\n")
                && wide.contains("11-14")
                && wide.contains("10800s"),
            "{wide}"
        );
    }

    #[test]
    fn three_thousand_endpoints_are_one_short_line_and_all_in_json() {
        let many = [frontend((0..3000).map(|_| endpoint(1, u64::MAX)).collect())];
        for wide in [false, true] {
            let text = table(&many, wide).render(false);
            assert!(text.ends_with(" + 2997 more...\n") && text.len() < 300, "{text}");
        }
        let json = serde_json::to_value(&many).unwrap();
        assert_eq!(json[0]["endpoints"].as_array().unwrap().len(), 3000);
    }

    #[test]
    fn a_service_without_endpoints_is_shown_too() {
        let text = table(&[frontend(Vec::new())], true).render(false);
        assert!(text.contains("0 (0 local)") && text.contains("<none>"), "{text}");
    }
}
