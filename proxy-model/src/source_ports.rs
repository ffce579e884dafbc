//! Which source ports translated connections get: none that the node's own connections or node ports may have.
//!
//! ```text
//!  1024        10000 ─────────── 29999   30000 ─ 32767   32768 ────────── 60999     65535
//!                the default range        node ports      ip_local_port_range
//! ```
//!
//! A connection of the node itself to an endpoint, under a port that is also given to a translated connection to the
//! same endpoint, would lose its answers. So the ranges must not meet. Ports in `ip_local_reserved_ports` are free: the
//! kernel does not give them to anybody who does not ask for them by number.

use std::fmt;
use std::str::FromStr;

use proxy_common::NodeConfig;

/// A run of ports, never empty and without port 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// What is used unless something stands against it.
pub const DEFAULT: PortRange = PortRange {
    first: 10_000,
    last: 29_999,
};
/// What the API server gives out as node ports, unless `--service-node-port-range` says otherwise.
pub const NODE_PORTS: PortRange = PortRange {
    first: 30_000,
    last: 32_767,
};
/// `net.ipv4.ip_local_port_range` of a kernel that nobody tuned.
pub const LOCAL_DEFAULT: PortRange = PortRange {
    first: 32_768,
    last: 60_999,
};
/// Fewer than these are no use: it is also the number of connections to one endpoint at a time.
pub const FEWEST: u16 = 1024;
/// Below are the ports of well-known servers.
const LOWEST: u16 = 1024;

/// What other connections of the node may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// `net.ipv4.ip_local_port_range`, of IPv6 too.
    pub local: PortRange,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved: Vec<PortRange>,
    /// The node ports.
    pub node_ports: PortRange,
}

impl PortRange {
    /// From the first to the last port; `None` if there is nothing between, or port 0.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (0 < first && first <= last).then_some(Self { first, last })
    }

    /// As it stands in `CONFIG`; `None` if no agent wrote it yet.
    pub fn of_config(config: &NodeConfig) -> Option<Self> {
        let others = config.snat_ports.checked_sub(1)?;
        Self::new(
            config.snat_first_port,
            config.snat_first_port.checked_add(others)?,
        )
    }

    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// How many ports.
    pub const fn count(self) -> u16 {
        self.last - self.first + 1
    }

    const fn has(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl Taken {
    /// Whether nobody else may have any of these ports.
    pub fn leaves(&self, range: PortRange) -> bool {
        range.ports().all(|port| self.leaves_port(port))
    }

    /// The default if it is free, else the longest run of free ports; `None` if that is too short to be of use.
    pub fn choose(&self) -> Option<PortRange> {
        if self.leaves(DEFAULT) {
            return Some(DEFAULT);
        }
        let longest = self.gaps().into_iter().rev().max_by_key(|gap| gap.count());
        longest.filter(|gap| gap.count() >= FEWEST)
    }

    fn leaves_port(&self, port: u16) -> bool {
        let reserved = || self.reserved.iter().any(|range| range.has(port));
        !self.node_ports.has(port) && (!self.local.has(port) || reserved())
    }

    fn gaps(&self) -> Vec<PortRange> {
        let mut gaps: Vec<PortRange> = Vec::new();
        for port in (LOWEST..=u16::MAX).filter(|port| self.leaves_port(*port)) {
            match gaps.last_mut() {
                Some(gap) if gap.last.checked_add(1) == Some(port) => gap.last = port,
                _ => gaps.push(PortRange {
                    first: port,
                    last: port,
                }),
            }
        }
        gaps
    }
}

/// Why a text is no range of ports.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no range of ports: write FIRST-LAST, with numbers from 1 to 65535, such as {DEFAULT}")]
pub struct NotAPortRange(String);

impl NotAPortRange {
    /// About this text.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for PortRange {
    type Err = NotAPortRange;

    fn from_str(text: &str) -> Result<Self, NotAPortRange> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = || Self::new(first.trim().parse().ok()?, last.trim().parse().ok()?);
        range().ok_or_else(|| NotAPortRange::new(text))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(local: &str, reserved: &str) -> Option<String> {
        let taken = Taken {
            local: local.parse().unwrap(),
            reserved: reserved
                .split_terminator(',')
                .map(|range| range.parse().unwrap())
                .collect(),
            node_ports: NODE_PORTS,
        };
        taken.choose().map(|range| range.to_string())
    }

    #[test]
    fn the_default_is_used_where_it_is_free() {
        let default = Some("10000-29999");
        assert_eq!(chosen("32768-60999", "").as_deref(), default);
        assert_eq!(chosen("30000-65535", "").as_deref(), default);
        assert_eq!(chosen("1024-9999", "").as_deref(), default);
        // What the kernel does not give out is free.
        assert_eq!(chosen("1024-65535", "10000-29999").as_deref(), default);
        assert_eq!(
            chosen("1024-65535", "8080,10000-19999,20000-29999").as_deref(),
            default
        );
    }

    #[test]
    fn else_the_longest_gap() {
        assert_eq!(chosen("15000-65535", "").as_deref(), Some("1024-14999"));
        assert_eq!(chosen("9000-20000", "").as_deref(), Some("32768-65535"));
        // One hole in the default is enough to look elsewhere, but the longest gap may be the rest of it.
        assert_eq!(chosen("29999-65535", "").as_deref(), Some("1024-29998"));
        assert_eq!(
            chosen("1024-65535", "40000-49999,8080").as_deref(),
            Some("40000-49999")
        );
        // The first of two that are as long.
        assert_eq!(
            chosen("1024-65535", "40000-41999,5000-6999").as_deref(),
            Some("5000-6999")
        );
        // The top of the port space does not wrap.
        assert_eq!(
            chosen("1024-65535", "60000-65535").as_deref(),
            Some("60000-65535")
        );
    }

    #[test]
    fn too_few_are_none() {
        assert_eq!(chosen("1024-65535", ""), None);
        assert_eq!(chosen("1-65535", "8000-9022"), None);
        assert_eq!(chosen("1-65535", "8000-9023").as_deref(), Some("8000-9023"));
        // Node ports are reserved for somebody else.
        assert_eq!(chosen("1024-65535", "30000-32767"), None);
    }

    #[test]
    fn ranges_are_written_as_two_numbers() {
        let range: PortRange = "1-65535".parse().unwrap();
        assert_eq!((range.first(), range.count()), (1, 65_535));
        let config = NodeConfig {
            snat_first_port: range.first(),
            snat_ports: range.count(),
            ..NodeConfig::default()
        };
        assert_eq!(PortRange::of_config(&config), Some(range));
        assert_eq!(PortRange::of_config(&NodeConfig::default()), None);
        assert_eq!("80".parse::<PortRange>().unwrap().to_string(), "80-80");
        for bad in ["", "0-5", "9-8", "1-65536", "a-b", "1-2-3", "-5"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
