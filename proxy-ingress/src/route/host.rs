//! Names of hosts in one form: what a request says, and what a rule says.
//!
//! Lower case, without port and without one final dot. A request's host may also be an address; a rule's may not.
//! Bytes that no name has are refused: whoever logs, compares or forwards a host need not think of them.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{HostMatch, WildcardDepth};

/// Longest name of the DNS, without its final dot (RFC 1035).
const LONGEST_NAME: usize = 253;
/// Longest label of a name (RFC 1035).
const LONGEST_LABEL: usize = 63;

/// Why a request's host is none: status 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HostError {
    /// A byte that names do not have.
    #[error("the host has byte {0:#04x}, which no name has")]
    Byte(u8),
    /// Two dots, or one at the front.
    #[error("the host has an empty label")]
    EmptyLabel,
    /// Too long.
    #[error("the host is longer than a name can be")]
    TooLong,
    /// After the colon is no number.
    #[error("the host's port is no number from 0 to 65535")]
    Port,
    /// In brackets is no address.
    #[error("the host is in brackets, and no IPv6 address")]
    Address,
}

/// The host of a request (`Host`, or the authority of its target) in canonical form. `None`: it has none.
/// Nothing is allocated if it is in that form already.
pub fn of_request(host: &[u8]) -> Result<Option<Cow<'_, str>>, HostError> {
    if let Some(rest) = host.strip_prefix(b"[") {
        return of_literal(rest).map(|literal| Some(Cow::Owned(literal)));
    }
    let (name, port) = match host.iter().position(|byte| *byte == b':') {
        Some(colon) => host.split_at_checked(colon).unwrap_or((host, b"")),
        None => (host, b"".as_slice()),
    };
    check_port(port)?;
    if name.is_empty() {
        return if port.is_empty() {
            Ok(None)
        } else {
            Err(HostError::EmptyLabel)
        };
    }
    let name = name.strip_suffix(b".").unwrap_or(name);
    check_name(name)?;
    let upper = name.iter().any(u8::is_ascii_uppercase);
    // Only ASCII passes the check.
    let text = std::str::from_utf8(name).map_err(|_| HostError::Byte(0x80))?;
    Ok(Some(if upper {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }))
}

/// `::1]:8080`, without its first bracket.
fn of_literal(rest: &[u8]) -> Result<String, HostError> {
    let end = rest
        .iter()
        .position(|byte| *byte == b']')
        .ok_or(HostError::Address)?;
    let (address, port) = rest.split_at_checked(end).ok_or(HostError::Address)?;
    check_port(port.get(1..).unwrap_or_default())?;
    let text = std::str::from_utf8(address).map_err(|_| HostError::Address)?;
    let address: Ipv6Addr = text.parse().map_err(|_| HostError::Address)?;
    Ok(format!("[{address}]"))
}

/// Nothing, or a colon and perhaps a number (RFC 3986, 3.2.3).
fn check_port(port: &[u8]) -> Result<(), HostError> {
    let Some((colon, digits)) = port.split_first() else {
        return Ok(());
    };
    let number = digits.iter().try_fold(0_u32, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(*digit - b'0'))?;
        Some(number * 10 + digit).filter(|number| u16::try_from(*number).is_ok())
    });
    match (colon, number) {
        (b':', Some(_)) => Ok(()),
        _ => Err(HostError::Port),
    }
}

/// A name of labels. Underscores are no host's by RFC 1123, and in use.
fn check_name(name: &[u8]) -> Result<(), HostError> {
    let mut label = 0;
    for byte in name {
        match byte {
            b'.' if label == 0 => return Err(HostError::EmptyLabel),
            b'.' => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            other => return Err(HostError::Byte(*other)),
        }
        if label > LONGEST_LABEL {
            return Err(HostError::TooLong);
        }
    }
    match label {
        0 => Err(HostError::EmptyLabel),
        _ if name.len() > LONGEST_NAME => Err(HostError::TooLong),
        _ => Ok(()),
    }
}

/// Why a rule's host is none; words for whoever wrote it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RuleHostError {
    /// An IP address.
    #[error("host {0:?} is an address, and a rule's host is a name: leave it out to serve all hosts")]
    Address(String),
    /// With a port.
    #[error("host {0:?} has a port, and a rule is for all ports: leave the port out")]
    Port(String),
    /// `*` alone.
    #[error("host \"*\" is no name: leave the host out to serve all hosts")]
    BareStar,
    /// `*` somewhere else, or beside other letters.
    #[error("host {0:?} has a star that is not its whole first label: write it as *.example.com")]
    Star(String),
    /// Not a name.
    #[error("host {host:?} is no name ({why}): correct it")]
    Name {
        /// As it is written.
        host: String,
        /// What is wrong with it.
        why: HostError,
    },
}

/// The host of a rule; empty means all.
pub fn of_rule(host: &str, depth: WildcardDepth) -> Result<HostMatch, RuleHostError> {
    if host.is_empty() {
        return Ok(HostMatch::Any);
    }
    let written = || host.to_owned();
    if host.starts_with('[') || host.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv4Addr>().is_ok() {
        return Err(RuleHostError::Address(written()));
    }
    if host.contains(':') {
        return Err(RuleHostError::Port(written()));
    }
    if host == "*" {
        return Err(RuleHostError::BareStar);
    }
    let (star, name) = match host.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, host),
    };
    if name.contains('*') {
        return Err(RuleHostError::Star(written()));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let longest = if star { LONGEST_NAME - 2 } else { LONGEST_NAME };
    let checked = check_name(name.as_bytes());
    let checked = checked.and(if name.len() > longest {
        Err(HostError::TooLong)
    } else {
        Ok(())
    });
    checked.map_err(|why| RuleHostError::Name { host: written(), why })?;
    let name = name.to_ascii_lowercase().into_boxed_str();
    Ok(if star {
        HostMatch::Wildcard { suffix: name, depth }
    } else {
        HostMatch::Exact(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requests_host_has_one_form() {
        let table = [
            ("shop.example", Some("shop.example")),
            ("Shop.EXAMPLE", Some("shop.example")),
            ("shop.example:8443", Some("shop.example")),
            ("shop.example:", Some("shop.example")),
            ("shop.example.", Some("shop.example")),
            ("Shop.example.:80", Some("shop.example")),
            ("my_app.example", Some("my_app.example")),
            ("localhost", Some("localhost")),
            ("192.0.2.7:80", Some("192.0.2.7")),
            ("[::1]", Some("[::1]")),
            ("[2001:DB8:0:0::1]:443", Some("[2001:db8::1]")),
            ("", None),
        ];
        for (text, expected) in table {
            let host = of_request(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(host.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_host_in_canonical_form_is_not_copied() {
        for text in ["shop.example", "shop.example.", "shop.example:80"] {
            assert!(
                matches!(of_request(text.as_bytes()), Ok(Some(Cow::Borrowed(_)))),
                "{text}"
            );
        }
    }

    #[test]
    fn bytes_that_no_name_has_are_refused() {
        let table: [(&[u8], HostError); 22] = [
            (b"shop example", HostError::Byte(b' ')),
            (b"shop.example\0", HostError::Byte(0)),
            (b"shop.example\r\n", HostError::Byte(b'\r')),
            (b"shop.example/admin", HostError::Byte(b'/')),
            (b"shop.example#x", HostError::Byte(b'#')),
            (b"user@shop.example", HostError::Byte(b'@')),
            (b"*.example", HostError::Byte(b'*')),
            (b"sh%6fp.example", HostError::Byte(b'%')),
            ("käse.example".as_bytes(), HostError::Byte(0xc3)),
            (b"shop..example", HostError::EmptyLabel),
            (b".example", HostError::EmptyLabel),
            (b"shop.example..", HostError::EmptyLabel),
            (b".", HostError::EmptyLabel),
            (b":80", HostError::EmptyLabel),
            (b"shop.example:http", HostError::Port),
            (b"shop.example:80:80", HostError::Port),
            (b"shop.example:65536", HostError::Port),
            (b"shop.example:-1", HostError::Port),
            (b"[::1", HostError::Address),
            (b"[::1]x", HostError::Port),
            (b"[fe80::1%25eth0]", HostError::Address),
            (b"[v1.x]", HostError::Address),
        ];
        for (bytes, expected) in table {
            assert_eq!(
                of_request(bytes),
                Err(expected),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        let label = "a".repeat(64);
        assert_eq!(of_request(label.as_bytes()), Err(HostError::TooLong));
        let name = "a.".repeat(127) + "a";
        assert_eq!(of_request(name.as_bytes()), Err(HostError::TooLong));
    }

    #[test]
    fn a_rules_host_is_a_name_a_wildcard_or_all() {
        let exact = |name: &str| HostMatch::Exact(name.into());
        let wildcard = |suffix: &str| HostMatch::Wildcard {
            suffix: suffix.into(),
            depth: WildcardDepth::One,
        };
        let table = [
            ("", HostMatch::Any),
            ("shop.example", exact("shop.example")),
            ("Shop.Example.", exact("shop.example")),
            ("*.foo.com", wildcard("foo.com")),
            ("*.com", wildcard("com")),
        ];
        for (text, expected) in table {
            assert_eq!(of_rule(text, WildcardDepth::One), Ok(expected), "{text}");
        }
    }

    #[test]
    fn addresses_ports_and_stray_stars_are_no_rules_host() {
        let table = [
            ("192.0.2.1", "is an address"),
            ("::1", "is an address"),
            ("[::1]", "is an address"),
            ("shop.example:80", "leave the port out"),
            ("*", "leave the host out to serve all hosts"),
            ("*.*.foo.com", "*.example.com"),
            ("a.*.com", "*.example.com"),
            ("*foo.com", "*.example.com"),
            ("*.", "empty label"),
            ("shop..example", "empty label"),
            ("shop example", "no name (the host has byte 0x20"),
        ];
        for (text, words) in table {
            let refused = of_rule(text, WildcardDepth::One).unwrap_err().to_string();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
