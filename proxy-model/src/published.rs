//! Where clients connect, as the status of an Ingress says it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::api::IngressLoadBalancerIngress;
use crate::object::is_dns_name;

/// An address or a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IpOrHost {
    /// An address.
    Ip(IpAddr),
    /// A name; without a final dot, as the API server wants it.
    Host(String),
}

/// Neither an address nor a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is neither an IP address nor a DNS name")]
pub struct NotAnAddress;

impl FromStr for IpOrHost {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        // `10.0.0` and `1.2.3.4.5` are slips, not names.
        let is_name = is_dns_name(&name) && name.len() <= 253 && !name.rsplit('.').next().is_none_or(numeric);
        is_name.then_some(Self::Host(name)).ok_or(NotAnAddress)
    }
}

impl fmt::Display for IpOrHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Host(name) => f.pad(name),
        }
    }
}

impl From<&IpOrHost> for IngressLoadBalancerIngress {
    fn from(place: &IpOrHost) -> Self {
        match place {
            IpOrHost::Ip(ip) => Self {
                ip: Some(ip.to_string()),
                hostname: None,
            },
            IpOrHost::Host(name) => Self {
                ip: None,
                hostname: Some(name.clone()),
            },
        }
    }
}

impl IpOrHost {
    /// All that such a list says. What makes no sense is a name as it stands, which is nobody's.
    pub fn list(elements: &[IngressLoadBalancerIngress]) -> Vec<Self> {
        let texts = elements
            .iter()
            .flat_map(|element| [&element.ip, &element.hostname]);
        let texts = texts.flatten().filter(|text| !text.is_empty());
        texts
            .map(|text| text.parse().unwrap_or_else(|_| Self::Host(text.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart() {
        let table = [
            ("192.0.2.1", Some("ip 192.0.2.1")),
            ("2001:DB8::1", Some("ip 2001:db8::1")),
            ("edge.example.com", Some("host edge.example.com")),
            ("Edge.Example.com.", Some("host edge.example.com")),
            ("localhost", Some("host localhost")),
            ("", None),
            (".", None),
            ("192.0.2", None),
            ("192.0.2.256", None),
            ("192.0.2.1:80", None),
            ("a b", None),
            ("*.example.com", None),
            ("http://example.com", None),
        ];
        for (text, expected) in table {
            let said = text.parse().map(|place: IpOrHost| match place {
                IpOrHost::Ip(_) => format!("ip {place}"),
                IpOrHost::Host(_) => format!("host {place}"),
            });
            assert_eq!(said.as_deref().ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_list_of_a_status_is_read_and_written() {
        let list = ["192.0.2.1".parse().unwrap(), "edge.example.com".parse().unwrap()];
        let written: Vec<_> = list.iter().map(IngressLoadBalancerIngress::from).collect();
        assert_eq!(IpOrHost::list(&written), list);
        assert_eq!(IpOrHost::list(&[IngressLoadBalancerIngress::default()]), []);
    }
}
