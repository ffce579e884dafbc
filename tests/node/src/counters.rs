//! The kernel's own counters in a namespace.

use std::fs;

use anyhow::{Context, Result};
use weir_lab::Host;

/// Counters of `/proc/net` that tell of broken or lost packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Packets with a wrong checksum, TCP and UDP, both families, and IPv4 headers.
    pub bad_checksums: u64,
    /// SYNs that were sent again.
    pub syn_retransmits: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
}

impl Counters {
    /// The machine's counters now.
    pub fn of(host: &Host) -> Result<Self> {
        host.run(|| {
            let read = |file: &str| {
                let path = format!("/proc/thread-self/net/{file}");
                fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
            };
            Ok(Self::parse(&read("snmp")?, &read("snmp6")?, &read("netstat")?))
        })?
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            bad_checksums: self.bad_checksums.wrapping_sub(earlier.bad_checksums),
            syn_retransmits: self.syn_retransmits.wrapping_sub(earlier.syn_retransmits),
            retransmits: self.retransmits.wrapping_sub(earlier.retransmits),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            bad_checksums: self.bad_checksums + other.bad_checksums,
            syn_retransmits: self.syn_retransmits + other.syn_retransmits,
            retransmits: self.retransmits + other.retransmits,
        }
    }

    fn parse(snmp: &str, snmp6: &str, netstat: &str) -> Self {
        let bad = [
            field(snmp, "Tcp", "InCsumErrors"),
            field(snmp, "Udp", "InCsumErrors"),
            line(snmp6, "Udp6InCsumErrors"),
            field(netstat, "IpExt", "InCsumErrors"),
        ];
        Self {
            bad_checksums: bad.iter().sum(),
            syn_retransmits: field(netstat, "TcpExt", "TCPSynRetrans"),
            retransmits: field(snmp, "Tcp", "RetransSegs"),
        }
    }
}

/// `Tcp: RtoAlgorithm …` in one line, `Tcp: 1 …` in the next.
fn field(text: &str, group: &str, name: &str) -> u64 {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

/// `Udp6InCsumErrors   0`
fn line(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let snmp = "Tcp: RtoMin RetransSegs InCsumErrors\nTcp: 200 7 3\nUdp: InCsumErrors\nUdp: 4\n";
        let snmp6 = "Ip6InReceives   \t1\nUdp6InCsumErrors                \t5\n";
        let netstat = "TcpExt: A TCPSynRetrans\nTcpExt: 1 2\nIpExt: InCsumErrors\nIpExt: 1\n";
        let counters = Counters::parse(snmp, snmp6, netstat);
        assert_eq!(counters.bad_checksums, 3 + 4 + 5 + 1);
        assert_eq!((counters.syn_retransmits, counters.retransmits), (2, 7));
    }
}
