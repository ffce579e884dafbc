//! What an ICMP error quotes: the start of the packet that it complains about, which went the other way.

use core::mem::offset_of;

use network_types::ip::Ipv6Hdr;
use proxy_common::Ip;

use crate::ipv4::Ipv4;
use crate::packet::Packet;
use crate::parse::{Content, SCTP, TCP, UDP, short};
use crate::scratch::Scratch;

/// Errors only: queries and neighbour discovery are none of weir's business (RFC 792, RFC 4443).
#[inline(always)]
pub(crate) const fn is_error(family: u8, kind: u8) -> bool {
    if family == 4 {
        matches!(kind, 3 | 11 | 12)
    } else {
        matches!(kind, 1..=4)
    }
}

/// Reads an IPv4 header that an ICMP error quotes, and the ports behind it.
#[inline(always)]
pub(crate) fn ipv4(packet: &impl Packet, at: usize, s: &mut Scratch) -> Content {
    let Some(ip) = Ipv4::read(packet, at) else {
        return Content::Malformed;
    };
    if ip.is_later_fragment() {
        return Content::Other;
    }
    let ends = (Ip::v4(ip.source), Ip::v4(ip.destination));
    tuple(packet, (at, ip.header, ip.protocol), ends, s)
}

/// Reads an IPv6 header that an ICMPv6 error quotes, and the ports behind it.
#[inline(always)]
pub(crate) fn ipv6(packet: &impl Packet, at: usize, s: &mut Scratch) -> Content {
    let Some([version, _, _, _, _, _, next, _]) = packet.load::<8>(at) else {
        return Content::Malformed;
    };
    let Some(source) = packet.load::<16>(at + offset_of!(Ipv6Hdr, src_addr)) else {
        return Content::Malformed;
    };
    let Some(destination) = packet.load::<16>(at + offset_of!(Ipv6Hdr, dst_addr)) else {
        return Content::Malformed;
    };
    if version >> 4 != 6 {
        return Content::Malformed;
    }
    let content = tuple(
        packet,
        (at, Ipv6Hdr::LEN, next),
        (Ip::v6(source), Ip::v6(destination)),
        s,
    );
    if s.key.source.is_v4() || s.key.destination.is_v4() {
        Content::Malformed
    } else {
        content
    }
}

/// Turns the quoted packet's tuple round: the error travels like an answer to it.
#[inline(always)]
fn tuple(
    packet: &impl Packet,
    (l3, header, protocol): (usize, usize, u8),
    (source, destination): (Ip, Ip),
    s: &mut Scratch,
) -> Content {
    if protocol != TCP && protocol != UDP && protocol != SCTP {
        return Content::Other;
    }
    let l4 = l3 + header;
    let Some([s_a, s_b, d_a, d_b]) = packet.load::<4>(l4) else {
        return Content::Malformed;
    };
    s.key.source = destination;
    s.key.destination = source;
    s.key.source_port = u16::from_be_bytes([d_a, d_b]);
    s.key.destination_port = u16::from_be_bytes([s_a, s_b]);
    s.key.protocol = protocol;
    s.packet.inner_l3 = short(l3);
    s.packet.inner_l4 = short(l4);
    Content::IcmpError
}
