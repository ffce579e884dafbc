//! Service ports and their rows in `SERVICE_NAMES`, both ways: ids are found again after a restart by name.

use proxy_common::{Protocol, ServiceName};

use crate::address::Family;
use crate::desired::PortKey;
use crate::object::ObjectName;

/// The row of a service port; its names fit, see [`crate::service`].
pub fn row(key: &PortKey, generation: u32) -> ServiceName {
    ServiceName {
        namespace: padded(&key.service.namespace),
        name: padded(&key.service.name),
        port_name: padded(&key.port),
        generation,
        protocol: key.protocol.number(),
        family: key.family.number(),
        reserved: 0,
    }
}

/// The service port of a row; `None` if the row makes no sense.
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
        for port in ["", "http", &"x".repeat(63)] {
            let port_key = PortKey {
                service: ObjectName::new("default", "w".repeat(63)),
                port: port.to_owned(),
                protocol: Protocol::Udp,
                family: Family::V6,
            };
            assert_eq!(key(&row(&port_key, 3)), Some(port_key));
        }
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
        assert_eq!(key(&ServiceName { protocol: 33, ..good }), None);
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
