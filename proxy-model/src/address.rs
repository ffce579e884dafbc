//! Addresses as kube-proxy reads them, and those that nobody may be sent to.
//!
//! Kubernetes keeps the parser that Go had before 1.17 (kubernetes#100895): leading zeros are decimal, so
//! `172.30.0.041` is 172.30.0.41, and groups of an IPv6 address may be longer than four digits if they are zeros.
//! `Ipv4Addr::from_str` refuses such an address, and the Service would vanish. An IPv4-mapped IPv6 address *is* that
//! IPv4 address, there as here.

use std::fmt;

use proxy_common::Ip;

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: Ip) -> Self {
        if ip.is_v4() { Self::V4 } else { Self::V6 }
    }

    /// 4 or 6, as rows have it.
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    /// From a row.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            4 => Some(Self::V4),
            6 => Some(Self::V6),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Reads an address; `None` if it is none.
pub fn parse(text: &str) -> Option<Ip> {
    match text.bytes().find(|byte| matches!(byte, b'.' | b':'))? {
        b'.' => parse_v4(text).map(Ip::v4),
        _ => parse_v6(text).map(Ip::v6),
    }
}

/// Four decimal numbers; leading zeros mean nothing.
fn parse_v4(text: &str) -> Option<[u8; 4]> {
    let mut parts = text.split('.').map(parse_decimal);
    let bytes = [parts.next()??, parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(bytes)
}

fn parse_decimal(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// RFC 4291, 2.2: groups, one `::`, and an IPv4 address at the end.
fn parse_v6(text: &str) -> Option<[u8; 16]> {
    let groups = match text.split_once("::") {
        None => parse_groups(text, true)?,
        Some((_, tail)) if tail.contains("::") => return None,
        Some((head, tail)) => {
            let mut groups = parse_groups(head, false)?;
            let tail = parse_groups(tail, true)?;
            let zeros = 8_usize
                .checked_sub(groups.len() + tail.len())
                .filter(|zeros| *zeros > 0)?;
            groups.extend(std::iter::repeat_n(0, zeros));
            groups.extend(tail);
            groups
        }
    };
    let groups: [u16; 8] = groups.try_into().ok()?;
    Some(std::net::Ipv6Addr::from(groups).octets())
}

fn parse_groups(text: &str, may_end_in_v4: bool) -> Option<Vec<u16>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut groups = Vec::with_capacity(8);
    let mut parts = text.split(':').peekable();
    while let Some(part) = parts.next() {
        if part.contains('.') {
            let [a, b, c, d] = parse_v4(part).filter(|_| may_end_in_v4 && parts.peek().is_none())?;
            groups.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
        } else {
            let hex = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            groups.push(hex.then(|| u16::from_str_radix(part, 16).ok()).flatten()?);
        }
    }
    Some(groups)
}

/// Why nobody may be sent to this address; `None` if it is an ordinary one.
///
/// Endpoints and frontends on such addresses would reach into the node itself (CVE-2021-25737, CVE-2020-8554).
pub fn refusal(ip: Ip) -> Option<&'static str> {
    let address = std::net::IpAddr::from(ip);
    let link_local = match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if link_local {
        Some("a link-local address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if ip == Ip::v4([255; 4]) {
        Some("the broadcast address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n1_addresses_are_read_as_kube_proxy_reads_them() {
        let table = [
            ("10.96.0.1", Some("10.96.0.1")),
            ("172.30.0.041", Some("172.30.0.41")),
            ("010.000.00.0001", Some("10.0.0.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("2001:DB8:0:0:0:0:0:1", Some("2001:db8::1")),
            ("00001::2", Some("1::2")),
            ("::", Some("::")),
            ("1::", Some("1::")),
            ("::ffff:10.0.0.01", Some("10.0.0.1")),
            ("::ffff:a00:1", Some("10.0.0.1")),
            ("64:ff9b::10.0.0.1", Some("64:ff9b::a00:1")),
            ("1:2:3:4:5:6:7.8.9.10", Some("1:2:3:4:5:6:708:90a")),
            ("", None),
            ("10", None),
            ("10.0.0", None),
            ("10.0.0.0.1", None),
            ("10.0.0.256", None),
            ("10.0.0.", None),
            ("10.0.0.+1", None),
            ("10.0.0.0x1", None),
            (" 10.0.0.1", None),
            ("10.0.0.1/32", None),
            ("host.example", None),
            (":", None),
            (":::", None),
            ("1::2::3", None),
            ("1:2:3:4:5:6:7:8::", None),
            ("1:2:3:4:5:6:7", None),
            ("12345::", None),
            ("10.0.0.1::", None),
            ("::10.0.0.1:1", None),
            ("fe80::1%eth0", None),
            ("1:", None),
        ];
        for (text, expected) in table {
            let read = parse(text).map(|ip| ip.to_string());
            assert_eq!(read.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn some_addresses_are_refused() {
        let refused = [
            "0.0.0.0",
            "::",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "169.254.1.1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:127.0.0.1",
        ];
        for text in refused {
            assert!(refusal(parse(text).unwrap()).is_some(), "{text}");
        }
        for text in ["10.0.0.1", "2001:db8::1", "192.168.0.1", "fd00::1", "8.8.8.8"] {
            assert_eq!(refusal(parse(text).unwrap()), None, "{text}");
        }
    }
}
