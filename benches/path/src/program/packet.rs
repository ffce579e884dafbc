//! The packets of the test runs.

use std::net::IpAddr;

use proxy_common::Protocol;

/// A packet with one byte of payload, as the request/response workload sends.
pub(crate) struct Packet {
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
    pub(crate) protocol: Protocol,
    /// TCP: the first packet of a connection.
    pub(crate) syn: bool,
}

impl Packet {
    /// From the Ethernet header on.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let length = u16::try_from(transport.len()).unwrap_or(0);
        let protocol = self.protocol.number();
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match (self.source.0, self.destination.0) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(length.to_be_bytes());
                bytes.extend([protocol, 64]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            (source, destination) => {
                bytes.extend([0x08, 0x00, 0x45, 0]);
                bytes.extend((length + 20).to_be_bytes());
                bytes.extend([0, 1, 0x40, 0, 64, protocol]);
                bytes.extend(CHECKSUM);
                bytes.extend(v4(source));
                bytes.extend(v4(destination));
            }
        }
        bytes.extend(transport);
        bytes
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.1.to_be_bytes());
        bytes.extend(self.destination.1.to_be_bytes());
        match self.protocol {
            Protocol::Tcp => {
                // Sequence and acknowledgement number, header length 5 words, SYN or ACK+PSH, window.
                bytes.extend([
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    1,
                    0x50,
                    if self.syn { 0x02 } else { 0x18 },
                    0xff,
                    0xff,
                ]);
                bytes.extend(CHECKSUM);
                bytes.extend([0, 0]);
            }
            Protocol::Udp => {
                bytes.extend([0, 9]);
                bytes.extend(CHECKSUM);
            }
            // Tag, checksum, and the head of an INIT or of data.
            Protocol::Sctp => {
                bytes.extend(if self.syn { [0; 4] } else { [0, 0, 0, 1] });
                bytes.extend([CHECKSUM, CHECKSUM].concat());
                bytes.extend([u8::from(self.syn), 3, 0, 5]);
            }
        }
        bytes.push(b'x');
        bytes
    }
}

/// A checksum that nobody verifies: programs correct it by differences. Not 0, which for UDP means that there is none.
const CHECKSUM: [u8; 2] = [0x12, 0x34];

fn v4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}
