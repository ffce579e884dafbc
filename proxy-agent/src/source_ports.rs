//! Which source ports translated connections get on this node: what was asked for, or what its sysctls leave.

use std::fs;

use proxy_model::source_ports::{DEFAULT, FEWEST, LOCAL_DEFAULT, NODE_PORTS, PortRange, Taken};

/// The range for this network namespace. Says so if it is not free, or not the usual one.
pub fn choose(asked: Option<PortRange>) -> PortRange {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    let reserved = read("ip_local_reserved_ports");
    let taken = taken(&read("ip_local_port_range"), &reserved);
    let (range, remark) = decide(&taken, asked, reserved.trim());
    match remark {
        Remark::None => {}
        Remark::Info(text) => tracing::info!("{text}"),
        Remark::Warning(text) => tracing::warn!("{text}"),
    }
    range
}

#[derive(Debug, PartialEq, Eq)]
enum Remark {
    None,
    Info(String),
    Warning(String),
}

fn decide(taken: &Taken, asked: Option<PortRange>, reserved: &str) -> (PortRange, Remark) {
    let local = taken.local;
    if let Some(range) = asked {
        let remark = if taken.leaves(range) && range.count() < FEWEST {
            Remark::Warning(format!(
                "--snat-ports {range} has {} ports, and so many translated connections to one endpoint at a time are all \
                 that there can be: name {FEWEST} or more",
                range.count()
            ))
        } else if taken.leaves(range) {
            Remark::None
        } else {
            Remark::Warning(format!(
                "--snat-ports {range} has ports that this node gives out itself (net.ipv4.ip_local_port_range is {local}, \
                 node ports are {NODE_PORTS}), so a connection of the node and a translated one can take each other's \
                 answers: choose other ports, or set {}",
                advice(reserved, range)
            ))
        };
        return (range, remark);
    }
    match taken.choose() {
        Some(DEFAULT) => (DEFAULT, Remark::None),
        Some(range) => (
            range,
            Remark::Info(format!(
                "translated connections get the source ports {range}, because net.ipv4.ip_local_port_range ({local}) has \
                 some of {DEFAULT}"
            )),
        ),
        None => (
            DEFAULT,
            Remark::Warning(format!(
                "net.ipv4.ip_local_port_range ({local}) leaves too few ports for translated connections, so one of these \
                 and a connection of the node can take each other's answers: set {}, and start the agent again",
                advice(reserved, DEFAULT)
            )),
        ),
    }
}

/// The sysctl that makes a range free, with what stands in it already.
fn advice(reserved: &str, range: PortRange) -> String {
    let comma = if reserved.is_empty() { "" } else { "," };
    format!("net.ipv4.ip_local_reserved_ports={reserved}{comma}{range}")
}

/// From the texts of the two sysctls. What cannot be read is what a kernel has that nobody tuned.
fn taken(local: &str, reserved: &str) -> Taken {
    let mut bounds = local.split_whitespace().map(str::parse);
    let local = match (bounds.next(), bounds.next()) {
        (Some(Ok(first)), Some(Ok(last))) => PortRange::new(first, last),
        _ => None,
    };
    Taken {
        local: local.unwrap_or(LOCAL_DEFAULT),
        reserved: reserved
            .split(',')
            .filter_map(|range| range.trim().parse().ok())
            .collect(),
        node_ports: NODE_PORTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(local: &str, reserved: &str, asked: Option<&str>) -> (String, Remark) {
        let asked = asked.map(|range| range.parse().unwrap());
        let (range, remark) = decide(&taken(local, reserved), asked, reserved.trim());
        (range.to_string(), remark)
    }

    #[test]
    fn nothing_is_said_about_what_is_usual() {
        let usual = ("10000-29999".to_owned(), Remark::None);
        assert_eq!(told("32768\t60999\n", "\n", None), usual);
        assert_eq!(told("", "", None), usual);
        assert_eq!(told("1024\t65535\n", "8080,10000-29999\n", None), usual);
        let asked = ("5000-6999".to_owned(), Remark::None);
        assert_eq!(told("32768\t60999\n", "\n", Some("5000-6999")), asked);
    }

    #[test]
    fn few_ports_are_taken_with_a_warning() {
        let (range, remark) = told("32768\t60999\n", "\n", Some("1-5"));
        assert_eq!(range, "1-5");
        assert!(
            matches!(&remark, Remark::Warning(text) if text.contains("1-5 has 5 ports")),
            "{remark:?}"
        );
    }

    #[test]
    fn a_smaller_range_is_named() {
        let (range, remark) = told("15000\t65535\n", "\n", None);
        assert_eq!(range, "1024-14999");
        assert!(
            matches!(&remark, Remark::Info(text) if text.contains("1024-14999") && text.contains("15000-65535"))
        );
    }

    #[test]
    fn a_range_that_is_not_free_says_what_to_set() {
        let set = |remark: Remark| match remark {
            Remark::Warning(text) => text.split_once("set net.").unwrap().1.to_owned(),
            other => format!("{other:?}"),
        };
        let (range, remark) = told("1024\t65535\n", "\n", None);
        assert_eq!(range, "10000-29999");
        assert_eq!(
            set(remark),
            "ipv4.ip_local_reserved_ports=10000-29999, and start the agent again"
        );
        let (_, remark) = told("1024\t65535\n", "8080,9000-9010\n", None);
        assert!(set(remark).contains("=8080,9000-9010,10000-29999,"));
        let (range, remark) = told("1024\t65535\n", "\n", Some("5000-5999"));
        assert_eq!(range, "5000-5999");
        assert_eq!(set(remark), "ipv4.ip_local_reserved_ports=5000-5999");
    }
}
