//! Which of the node's addresses serve node ports: kube-proxy's `nodePortAddresses`.

use std::fmt;
use std::str::FromStr;

use proxy_common::Ip;

use crate::address::{self, Family};

/// What was configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum NodePortAddresses {
    /// The Node's `InternalIP`s; all addresses if it names none.
    #[default]
    Primary,
    /// Those in one of these ranges; all of a family that no range is of, as with kube-proxy.
    In(Vec<Prefix>),
    /// The Node's `InternalIP`s, and those in one of these ranges.
    PrimaryAnd(Vec<Prefix>),
}

/// The loopback addresses at which node ports can be served.
pub const LOOPBACK: [Ip; 2] = [
    Ip::v4([127, 0, 0, 1]),
    Ip::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
];

/// Neither a range nor a word that stands for some.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodePortAddressesError {
    /// Not a range.
    #[error("{0:?} is not a range such as 192.0.2.0/24, nor one of the words primary, localhost and all")]
    NotPrefix(String),
}

impl NodePortAddresses {
    /// Reads a list; an empty one is the default.
    pub fn parse<S: AsRef<str>>(list: &[S]) -> Result<Self, NodePortAddressesError> {
        let mut ranges = Vec::new();
        let mut primary = list.is_empty();
        for text in list.iter().map(AsRef::as_ref) {
            let words: &[&str] = match text {
                "primary" => {
                    primary = true;
                    continue;
                }
                "localhost" => &["127.0.0.0/8", "::1/128"],
                "all" => &["0.0.0.0/0", "::/0"],
                range => &[range],
            };
            for word in words {
                let wrong = |NotPrefix| NodePortAddressesError::NotPrefix((*word).to_owned());
                ranges.push(word.parse::<Prefix>().map_err(wrong)?);
            }
        }
        Ok(match (primary, ranges.is_empty()) {
            (true, true) => Self::Primary,
            (true, false) => Self::PrimaryAnd(ranges),
            (false, _) => Self::In(ranges),
        })
    }

    /// Whether the ranges have the address; `None` if the Node decides.
    pub fn includes(&self, ip: Ip) -> Option<bool> {
        let prefixes = match self {
            Self::Primary => return None,
            Self::PrimaryAnd(prefixes) => {
                return prefixes.iter().any(|prefix| prefix.contains(ip)).then_some(true);
            }
            Self::In(prefixes) => prefixes,
        };
        let mut same_family = prefixes
            .iter()
            .filter(|prefix| Family::of(prefix.first) == Family::of(ip))
            .peekable();
        Some(same_family.peek().is_none() || same_family.any(|prefix| prefix.contains(ip)))
    }
}

impl NodePortAddresses {
    /// Whether the ranges have every address of a family; `None` if the Node decides.
    pub fn includes_all(&self, family: Family) -> Option<bool> {
        let of_family = |prefix: &&Prefix| Family::of(prefix.first) == family;
        let prefixes = match self {
            Self::Primary => return None,
            Self::PrimaryAnd(prefixes) => {
                let mut same_family = prefixes.iter().filter(of_family);
                return same_family.any(Prefix::is_everything).then_some(true);
            }
            Self::In(prefixes) => prefixes,
        };
        let mut same_family = prefixes.iter().filter(of_family).peekable();
        Some(same_family.peek().is_none() || same_family.any(Prefix::is_everything))
    }
}

/// A range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    first: Ip,
    /// Of 128, also for IPv4.
    mask: u128,
}

/// Not a range of addresses.
#[derive(Debug, PartialEq, Eq)]
pub struct NotPrefix;

impl FromStr for Prefix {
    type Err = NotPrefix;

    /// `ADDRESS/BITS`; bits of the address beyond the prefix mean nothing, as in Kubernetes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ip, bits) = text.split_once('/').ok_or(NotPrefix)?;
        let ip = address::parse(ip).ok_or(NotPrefix)?;
        let bits: u32 = bits.parse().map_err(|_| NotPrefix)?;
        // IPv4 is the last 32 of 128 bits.
        let host_bits = if ip.is_v4() { 32_u32 } else { 128 }
            .checked_sub(bits)
            .ok_or(NotPrefix)?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        let first = u128::from_be_bytes(ip.bytes) & mask;
        Ok(Self {
            first: Ip {
                bytes: first.to_be_bytes(),
            },
            mask,
        })
    }
}

impl Prefix {
    /// From a row: bits of 128, also for IPv4.
    pub fn from_row(address: Ip, bits: u32) -> Option<Self> {
        let mask = u128::MAX.checked_shl(128_u32.checked_sub(bits)?).unwrap_or(0);
        Some(Self { first: address, mask })
    }

    /// First address.
    pub fn first(&self) -> Ip {
        self.first
    }

    /// The bits that its addresses have in common.
    pub fn mask(&self) -> Ip {
        Ip {
            bytes: self.mask.to_be_bytes(),
        }
    }

    /// Bits of 128, also for IPv4.
    pub fn bits(&self) -> u32 {
        self.mask.count_ones()
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// Whether every address of its family is in it.
    pub fn is_everything(&self) -> bool {
        self.bits() == if self.first.is_v4() { 96 } else { 0 }
    }

    /// Whether the address is in it.
    pub fn contains(&self, ip: Ip) -> bool {
        let bits = |ip: Ip| u128::from_be_bytes(ip.bytes) & self.mask;
        Family::of(self.first) == Family::of(ip) && bits(ip) == bits(self.first)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_128 = self.mask.count_ones();
        let bits = if self.first.is_v4() {
            of_128.saturating_sub(96)
        } else {
            of_128
        };
        write!(out, "{}/{bits}", self.first)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{Adopted, Change, Kind, LocalAddress, Model, Object, Options, Step};

    fn ip(text: &str) -> Ip {
        address::parse(text).unwrap()
    }

    #[test]
    fn ranges_hold_what_their_bits_say() {
        let table = [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.77/24", "192.0.2.1", true),
            ("192.0.2.1/32", "192.0.2.1", true),
            ("192.0.2.1/32", "192.0.2.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("::/0", "fd00::1", true),
            ("::/0", "192.0.2.1", false),
            ("fd00::/16", "fd00:1::1", true),
            ("fd00::/16", "fd01::1", false),
            ("fd00::1/128", "fd00::1", true),
        ];
        for (prefix, address, expected) in table {
            let read: Prefix = prefix.parse().unwrap();
            assert_eq!(read.contains(ip(address)), expected, "{prefix} {address}");
        }
        for bad in [
            "192.0.2.0",
            "192.0.2.0/33",
            "::/129",
            "x/8",
            "192.0.2.0/-1",
            "192.0.2.0/",
            "/8",
        ] {
            assert_eq!(bad.parse::<Prefix>(), Err(NotPrefix), "{bad}");
        }
        assert_eq!("10.1.2.3/8".parse::<Prefix>().unwrap().to_string(), "10.0.0.0/8");
    }

    /// The addresses whose rows say that they serve node ports.
    fn serving(options: Options, node_ips: &[&str]) -> Vec<String> {
        let addresses: Vec<_> = node_ips
            .iter()
            .map(|ip| json!({"type": "InternalIP", "address": ip}))
            .collect();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"},
                          "status": {"addresses": addresses}});
        let node = Object::from_value(node).unwrap().unwrap();
        let mut model = Model::new(options, Adopted::default());
        let local = ["192.0.2.1", "198.51.100.1", "fd00::1"].map(|address| LocalAddress {
            ip: ip(address),
            interface: 2,
        });
        model.observe(Change::LocalAddresses(local.to_vec()));
        model.observe(Change::Replace(Kind::Node, vec![node]));
        model.observe(Change::Replace(Kind::Service, Vec::new()));
        model.observe(Change::Replace(Kind::EndpointSlice, Vec::new()));
        let steps = model.plan(Duration::ZERO);
        let serving = steps.iter().filter_map(|step| match step {
            Step::PutAddress { address, row } if row.node_ports == 1 => Some(address.to_string()),
            _ => None,
        });
        let mut serving: Vec<_> = serving.collect();
        serving.sort();
        serving
    }

    #[test]
    fn words_stand_for_ranges() {
        let parse = |words: &[&str]| NodePortAddresses::parse(words).unwrap();
        let localhost = parse(&["localhost"]);
        assert_eq!(localhost.includes(ip("127.0.0.1")), Some(true));
        assert_eq!(localhost.includes(ip("::1")), Some(true));
        assert_eq!(localhost.includes(ip("192.0.2.1")), Some(false));
        assert_eq!(parse(&["all"]).includes(ip("::1")), Some(true));
        let both = parse(&["localhost", "primary"]);
        assert_eq!(both.includes(ip("127.0.0.1")), Some(true));
        assert_eq!(both.includes(ip("192.0.2.1")), None, "the Node decides");
    }

    #[test]
    fn loopback_addresses_have_rows_where_they_are_wanted() {
        let options = |list: &[&str], localhost: bool| Options {
            node_port_addresses: NodePortAddresses::parse(list).unwrap(),
            localhost_node_ports: localhost,
            ..Options::new("node-a", 7)
        };
        let node = ["192.0.2.1"];
        assert_eq!(
            serving(options(&["localhost"], true), &node),
            ["127.0.0.1", "::1"]
        );
        let both = serving(options(&["primary", "localhost"], true), &node);
        assert_eq!(both, ["127.0.0.1", "192.0.2.1", "::1"]);
        // The switch is one of iptables, which has it for IPv4 only.
        assert_eq!(serving(options(&["localhost"], false), &node), ["::1"]);
    }

    #[test]
    fn the_rows_follow_the_configuration() {
        let options = |list: &[&str]| Options {
            node_port_addresses: NodePortAddresses::parse(list).unwrap(),
            ..Options::new("node-a", 7)
        };
        assert_eq!(serving(options(&[]), &["192.0.2.1"]), ["192.0.2.1"]);
        let elsewhere = serving(options(&["198.51.100.0/24"]), &["192.0.2.1"]);
        assert_eq!(elsewhere, ["198.51.100.1", "::1", "fd00::1"]);
        let all = serving(options(&["0.0.0.0/0", "::/0"]), &["192.0.2.1"]);
        assert_eq!(all, ["127.0.0.1", "192.0.2.1", "198.51.100.1", "::1", "fd00::1"]);
    }

    #[test]
    fn a_family_without_a_range_is_served_everywhere() {
        let none: [&str; 0] = [];
        assert_eq!(NodePortAddresses::parse(&none), Ok(NodePortAddresses::Primary));
        assert_eq!(
            NodePortAddresses::parse(&["primary"]),
            Ok(NodePortAddresses::Primary)
        );
        assert_eq!(NodePortAddresses::Primary.includes(ip("192.0.2.1")), None);
        let only_v4 = NodePortAddresses::parse(&["192.0.2.0/24", "198.51.100.0/24"]).unwrap();
        for (address, expected) in [("198.51.100.7", true), ("203.0.113.7", false), ("fd00::1", true)] {
            assert_eq!(only_v4.includes(ip(address)), Some(expected), "{address}");
        }
        assert_eq!(NodePortAddresses::Primary.includes_all(Family::V4), None);
        let whole = NodePortAddresses::parse(&["192.0.2.0/24", "0.0.0.0/0", "fd00::/8"]).unwrap();
        for (ranges, family, expected) in [
            (&only_v4, Family::V4, false),
            (&only_v4, Family::V6, true),
            (&whole, Family::V4, true),
            (&whole, Family::V6, false),
        ] {
            assert_eq!(ranges.includes_all(family), Some(expected), "{ranges:?} {family}");
        }
        let also = NodePortAddresses::parse(&["primary", "::/0"]).unwrap();
        assert_eq!(also.includes_all(Family::V4), None);
        assert_eq!(also.includes_all(Family::V6), Some(true));
        let among = NodePortAddresses::parse(&["primary", "::/0"]).unwrap();
        assert_eq!(among.includes(ip("fd00::1")), Some(true));
        assert_eq!(among.includes(ip("192.0.2.1")), None, "the Node decides");
        let wrong = NodePortAddresses::parse(&["::/0", "eth0"]).unwrap_err();
        assert!(
            wrong.to_string().starts_with("\"eth0\" is not a range"),
            "{wrong}"
        );
    }
}
