//! What an ICMP error quotes: the start of the packet that it complains about, which went the other way.

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use proxy_common::Ip;

use crate::packet::Packet;
use crate::parse::{Content, TCP, UDP, short};
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
    let Some(header) = packet.load::<{ Ipv4Hdr::LEN }>(at) else {
        return Content::Malformed;
    };
    let [
        version,
        _,
        _,
        _,
        _,
        _,
        frag_a,
        frag_b,
        _,
        protocol,
        _,
        _,
        addresses @ ..,
    ] = header;
    let [s_a, s_b, s_c, s_d, d_a, d_b, d_c, d_d] = addresses;
    let header_length = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header_length < Ipv4Hdr::LEN {
        return Content::Malformed;
    }
    if u16::from_be_bytes([frag_a & 0x1f, frag_b]) != 0 {
        return Content::Other;
    }
    let source = Ip::v4([s_a, s_b, s_c, s_d]);
    let destination = Ip::v4([d_a, d_b, d_c, d_d]);
    tuple(packet, (at, header_length, protocol), (source, destination), s)
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
    if protocol != TCP && protocol != UDP {
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
