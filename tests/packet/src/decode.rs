//! Reads a packet and recounts its checksums, without a line of the datapath's own code: the second opinion.

use std::ops::Range;

use crc::{CRC_32_ISCSI, Crc};
use proxy_common::Ip;

/// What the headers of a packet say, and where things are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    /// End of the packet, by the IP header's length.
    pub end: usize,
    /// 6 or 4.
    pub family: u8,
    /// Transport protocol.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ip,
    /// Destination address.
    pub destination: Ip,
    /// TCP, UDP and SCTP: source and destination port.
    pub ports: Option<(u16, u16)>,
    /// Whether more fragments belong to it.
    pub fragment: bool,
    /// Whether this is not the first fragment.
    pub later_fragment: bool,
    /// Whether nothing stands between the IP header and the transport header.
    pub plain: bool,
    /// The quoted packet, if this is an ICMP error.
    pub inner: Option<Box<Decoded>>,
}

/// Whether a packet's checksums are right; `None` where there is nothing to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sums {
    /// The IPv4 header's.
    pub header: Option<bool>,
    /// That of TCP, UDP, SCTP or ICMP.
    pub transport: Option<bool>,
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Reads a packet; `None` if it is not IP, or is cut off.
pub fn decode(bytes: &[u8], ethernet: bool) -> Option<Decoded> {
    let l3 = if ethernet {
        match short(bytes, 12)? {
            0x0800 | 0x86dd => 14,
            0x8100 | 0x88a8 if matches!(short(bytes, 16)?, 0x0800 | 0x86dd) => 18,
            _ => return None,
        }
    } else {
        0
    };
    decode_ip(bytes, l3, true)
}

fn decode_ip(bytes: &[u8], l3: usize, outermost: bool) -> Option<Decoded> {
    let mut decoded = if byte(bytes, l3)? >> 4 == 4 {
        decode_v4(bytes, l3)?
    } else {
        decode_v6(bytes, l3)?
    };
    let l4 = decoded.l4;
    if decoded.later_fragment {
        return Some(decoded);
    }
    match decoded.protocol {
        6 | 17 | 132 => decoded.ports = Some((short(bytes, l4)?, short(bytes, l4 + 2)?)),
        1 if outermost && decoded.family == 4 && matches!(byte(bytes, l4)?, 3 | 11 | 12) => {
            decoded.inner = decode_ip(bytes, l4 + 8, false).map(Box::new);
        }
        58 if outermost && decoded.family == 6 && matches!(byte(bytes, l4)?, 1..=4) => {
            decoded.inner = decode_ip(bytes, l4 + 8, false).map(Box::new);
        }
        _ => {}
    }
    Some(decoded)
}

fn decode_v4(bytes: &[u8], l3: usize) -> Option<Decoded> {
    let header = usize::from(byte(bytes, l3)? & 15) * 4;
    let pieces = short(bytes, l3 + 6)?;
    let found = Decoded {
        l3,
        l4: l3 + header,
        end: l3 + usize::from(short(bytes, l3 + 2)?),
        family: 4,
        protocol: byte(bytes, l3 + 9)?,
        hop_limit: byte(bytes, l3 + 8)?,
        source: Ip::v4(array(bytes, l3 + 12)?),
        destination: Ip::v4(array(bytes, l3 + 16)?),
        ports: None,
        fragment: pieces & 0x3fff != 0,
        later_fragment: pieces & 0x1fff != 0,
        plain: header == 20,
        inner: None,
    };
    (header >= 20).then_some(found)
}

fn decode_v6(bytes: &[u8], l3: usize) -> Option<Decoded> {
    if byte(bytes, l3)? >> 4 != 6 {
        return None;
    }
    let mut found = Decoded {
        l3,
        l4: l3 + 40,
        end: l3 + 40 + usize::from(short(bytes, l3 + 4)?),
        family: 6,
        protocol: byte(bytes, l3 + 6)?,
        hop_limit: byte(bytes, l3 + 7)?,
        source: Ip::v6(array(bytes, l3 + 8)?),
        destination: Ip::v6(array(bytes, l3 + 24)?),
        ports: None,
        fragment: false,
        later_fragment: false,
        plain: true,
        inner: None,
    };
    while matches!(found.protocol, 0 | 43 | 44 | 60) && !found.later_fragment {
        let units = usize::from(byte(bytes, found.l4 + 1)?);
        let length = if found.protocol == 44 {
            let pieces = short(bytes, found.l4 + 2)?;
            found.fragment = pieces & 0xfff9 != 0;
            found.later_fragment = pieces & 0xfff8 != 0;
            8
        } else {
            (units + 1) * 8
        };
        found.protocol = byte(bytes, found.l4)?;
        found.l4 += length;
        found.plain = false;
    }
    Some(found)
}

/// Sum of big-endian 16-bit words, folded (RFC 1071). The other byte order than the datapath's, on purpose.
pub fn ones_sum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let high = u64::from(pair.first().copied().unwrap_or(0));
            let low = u64::from(pair.get(1).copied().unwrap_or(0));
            sum += high << 8 | low;
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The pseudo-header of a transport checksum.
pub fn pseudo_header(source: &Ip, destination: &Ip, protocol: u8, length: usize) -> Vec<u8> {
    let [.., a, b] = length.to_be_bytes();
    if source.is_v4() {
        [
            &source.v4_bytes()[..],
            &destination.v4_bytes()[..],
            &[0, protocol, a, b],
        ]
        .concat()
    } else {
        [
            &source.bytes[..],
            &destination.bytes[..],
            &[0, 0, a, b, 0, 0, 0, protocol],
        ]
        .concat()
    }
}

/// Recounts the checksums.
pub fn sums(bytes: &[u8], packet: &Decoded) -> Sums {
    let header = (packet.family == 4)
        .then(|| {
            bytes
                .get(packet.l3..packet.l4)
                .map(|header| ones_sum(&[header]) == 0xffff)
        })
        .flatten();
    Sums {
        header,
        transport: transport_sum(bytes, packet),
    }
}

fn transport_sum(bytes: &[u8], packet: &Decoded) -> Option<bool> {
    if packet.fragment {
        return None;
    }
    let body = bytes.get(packet.l4..packet.end)?;
    let pseudo = pseudo_header(&packet.source, &packet.destination, packet.protocol, body.len());
    match packet.protocol {
        17 if body.get(6..8)? == [0, 0] => None,
        6 if body.len() < 20 => None,
        1 => Some(ones_sum(&[body]) == 0xffff),
        6 | 17 | 58 => Some(ones_sum(&[&pseudo, body]) == 0xffff),
        132 => sctp_sum(body),
        _ => None,
    }
}

/// Whether the checksum of an SCTP packet is right; `None` if it is left to somebody else.
fn sctp_sum(body: &[u8]) -> Option<bool> {
    let field: [u8; 4] = array(body, 8)?;
    let mut empty = body.to_vec();
    empty.splice(8..12, [0; 4]);
    (field != [0; 4]).then(|| crc32c(&empty) == u32::from_le_bytes(field))
}

/// CRC32c, by somebody else's code.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    CRC32C.checksum(bytes)
}

/// Where a translation may change the packet: addresses, ports, checksums, and the same in a quoted packet.
pub fn editable(packet: &Decoded) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    if packet.family == 4 {
        ranges.push(packet.l3 + 10..packet.l3 + 20);
    } else {
        ranges.push(packet.l3 + 8..packet.l3 + 40);
    }
    if packet.ports.is_some() {
        ranges.push(packet.l4..packet.l4 + 4);
    }
    if !packet.later_fragment {
        match packet.protocol {
            6 => ranges.push(packet.l4 + 16..packet.l4 + 18),
            17 => ranges.push(packet.l4 + 6..packet.l4 + 8),
            132 => ranges.push(packet.l4 + 8..packet.l4 + 12),
            _ => ranges.push(packet.l4 + 2..packet.l4 + 4),
        }
    }
    if let Some(inner) = &packet.inner {
        let quoted = editable(inner);
        // The checksum of the quoted transport header is not touched.
        ranges.extend(quoted.into_iter().take(2));
    }
    ranges
}
