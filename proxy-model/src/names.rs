//! Service ports and their rows in `SERVICE_NAMES`, both ways: ids are found again after a restart by name.

use proxy_common::{Protocol, ServiceName};

use crate::address::Family;
use crate::desired::PortKey;
use crate::object::ObjectName;

/// The row of a service port.
///
/// A port name may have 63 bytes in the API and 15 in the row: a longer one keeps its beginning, and a hash of the
/// whole keeps it apart from its neighbours.
pub fn row(key: &PortKey, generation: u32) -> ServiceName {
    ServiceName {
        namespace: padded(&key.service.namespace),
        name: padded(&key.service.name),
        port_name: padded(&short_port_name(&key.port)),
        generation,
        protocol: key.protocol.number(),
        family: key.family.number(),
        reserved: 0,
    }
}

/// The service port of a row, its port name as short as the row has it; `None` if the row makes no sense.
pub fn key(row: &ServiceName) -> Option<PortKey> {
    Some(PortKey {
        service: ObjectName::new(
            text(&row.namespace)?,
            text(&row.name).filter(|name| !name.is_empty())?,
        ),
        port: text(&row.port_name)?.to_owned(),
        protocol: Protocol::from_number(row.protocol)?,
        family: Family::from_number(row.family)?,
    })
}

/// A port name as it fits the row: itself if it does.
pub fn short_port_name(name: &str) -> String {
    const ROOM: usize = 15;
    if name.len() <= ROOM {
        return name.to_owned();
    }
    let beginning = (0..=8)
        .rev()
        .find_map(|length| name.get(..length))
        .unwrap_or_default();
    format!("{beginning}~{:06x}", fnv1a(name.as_bytes()) & 0x00ff_ffff)
}

/// FNV-1a, 64 bits: the same on every machine and in every version, because its results outlive the agent.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Zero-padded, and always with a zero at the end.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *to = from;
    }
    bytes
}

/// The text before the first zero.
fn text(bytes: &[u8]) -> Option<&str> {
    let (text, _) = bytes.split_at_checked(bytes.iter().position(|byte| *byte == 0)?)?;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_row() {
        for port in [
            "",
            "http",
            "fifteen-letters",
            "sixteen--letters",
            "a-port-name-that-is-as-long-as-the-api-allows",
        ] {
            let port_key = PortKey {
                service: ObjectName::new("default", "web"),
                port: short_port_name(port),
                protocol: Protocol::Udp,
                family: Family::V6,
            };
            assert!(port_key.port.len() <= 15);
            assert_eq!(key(&row(&port_key, 3)), Some(port_key));
        }
        assert_ne!(
            short_port_name("metrics-of-the-first"),
            short_port_name("metrics-of-the-second")
        );
    }

    #[test]
    fn damaged_rows_are_nobody() {
        let good = row(
            &PortKey {
                service: ObjectName::new("default", "web"),
                port: String::new(),
                protocol: Protocol::Tcp,
                family: Family::V4,
            },
            1,
        );
        assert!(key(&good).is_some());
        assert_eq!(key(&ServiceName { family: 5, ..good }), None);
        assert_eq!(
            key(&ServiceName {
                protocol: 132,
                ..good
            }),
            None
        );
        assert_eq!(
            key(&ServiceName {
                name: [0; 64],
                ..good
            }),
            None
        );
        assert_eq!(
            key(&ServiceName {
                name: [b'x'; 64],
                ..good
            }),
            None
        );
        assert_eq!(
            key(&ServiceName {
                namespace: [0xff; 64],
                ..good
            }),
            None
        );
    }
}
