//! Headers to numbers: Ethernet, one VLAN tag, IPv4, IPv6 with extension headers, TCP, UDP, SCTP, ICMP errors.
//!
//! In two stages, because most packets end after the first: [`network`] reads the addresses, and only a packet for
//! one of weir's addresses goes through [`transport`].

use core::hint::cold_path;
use core::mem::offset_of;

use network_types::eth::{EthHdr, EtherType};
use network_types::icmp::Icmpv4Hdr;
use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::vlan::VlanHdr;
use proxy_common::Ip;

use crate::ipv4::Ipv4;
use crate::packet::BY_FRAGMENTS;
use crate::packet::Packet;
use crate::quote;
use crate::scratch::{Place, Scratch};
use crate::sctp;
use crate::tables::Tables;

/// What the headers say, beside the tuple in [`Scratch::key`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Parsed {
    /// Offset of the IP header.
    pub l3: u16,
    /// Offset of the transport header.
    pub l4: u16,
    /// ICMP error: offset of the IP header inside.
    pub inner_l3: u16,
    /// ICMP error: offset of the transport header inside.
    pub inner_l4: u16,
    /// Bytes from the IP header to the end of the packet, as the header says.
    pub length: u16,
    /// 4 or 6.
    pub family: u8,
    /// Transport protocol of the outermost packet, IANA number.
    pub protocol: u8,
    /// A [`Content`], as a number.
    pub content: u8,
    /// TCP: the flags byte. SCTP: the flags that mean the same as its first chunk (`sctp.rs`).
    pub tcp_flags: u8,
    /// TCP: bytes of the header.
    pub tcp_header: u8,
    /// 1 if there are IPv4 options or IPv6 extension headers.
    pub options: u8,
    /// 1 if this is the first fragment of several.
    pub first_fragment: u8,
    /// 1 if this is a later fragment.
    pub later_fragment: u8,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// Always zero.
    pub reserved: u8,
    /// Identification of the datagram, if it is fragmented.
    pub fragment_id: u32,
}

impl Parsed {
    /// Length of the packet on the wire, from the IP header on: of one segment, if it will be cut into several. 0 if the
    /// segments are cut already, each as its sender wanted it for its way.
    #[inline(always)]
    pub fn segment_length(&self, segment: u32) -> u16 {
        if segment == 0 {
            return self.length;
        }
        if segment == BY_FRAGMENTS {
            return 0;
        }
        let transport = if self.protocol == TCP {
            u32::from(self.tcp_header)
        } else {
            8
        };
        let headers = u32::from(self.l4.wrapping_sub(self.l3)) + transport;
        ((headers + segment) & 0xffff) as u16
    }
}

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// TCP, UDP or SCTP, with ports.
    Transport,
    /// A later fragment of TCP, UDP or SCTP, without ports.
    LaterFragment,
    /// An ICMP error about a TCP, UDP or SCTP packet.
    IcmpError,
    /// Something that weir does not translate.
    Other,
    /// Cut off or contradictory.
    Malformed,
}

impl Content {
    /// As a number in [`Parsed::content`].
    #[inline(always)]
    pub const fn code(self) -> u8 {
        match self {
            Self::Transport => 0,
            Self::LaterFragment => 1,
            Self::IcmpError => 2,
            Self::Other => 3,
            Self::Malformed => 4,
        }
    }
}

/// What the link and network headers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// IPv4 or IPv6; addresses and offsets are in the scratch.
    Ip,
    /// Neither: ARP, for example.
    NotIp,
    /// A header that cannot be read.
    Malformed,
}

/// TCP flag FIN.
pub const FIN: u8 = 0x01;
/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// TCP flag RST.
pub const RST: u8 = 0x04;
/// TCP flag ACK.
pub const ACK: u8 = 0x10;

/// IANA number of TCP.
pub const TCP: u8 = IpProto::Tcp as u8;
/// IANA number of UDP.
pub const UDP: u8 = IpProto::Udp as u8;
/// IANA number of SCTP.
pub const SCTP: u8 = IpProto::Sctp as u8;
/// IANA number of ICMP.
pub const ICMP: u8 = IpProto::Icmp as u8;
/// IANA number of ICMPv6.
pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;

const IPV4: [u8; 2] = (EtherType::Ipv4 as u16).to_ne_bytes();
const IPV6: [u8; 2] = (EtherType::Ipv6 as u16).to_ne_bytes();
const VLAN: [u8; 2] = (EtherType::Ieee8021q as u16).to_ne_bytes();
const VLAN_OUTER: [u8; 2] = (EtherType::Ieee8021ad as u16).to_ne_bytes();

/// Extension headers that are walked through; a packet with more is not translated.
const EXTENSION_HEADERS: usize = 4;
/// Offsets beyond this are not followed: no honest header chain is that long.
const MAX_OFFSET: usize = 448;

/// Reads the link and network headers: addresses, family, offsets.
#[inline(always)]
pub fn network(packet: &impl Packet, place: Place, s: &mut Scratch) -> Network {
    // Whatever is said of a packet without ports must not show those of the packet before.
    s.key.source_port = 0;
    s.key.destination_port = 0;
    let (kind, l3) = if place.ethernet {
        let Some(kind) = packet.load::<2>(offset_of!(EthHdr, ether_type)) else {
            return Network::Malformed;
        };
        if kind == VLAN || kind == VLAN_OUTER {
            cold_path();
            let at = EthHdr::LEN + offset_of!(VlanHdr, ether_type);
            let Some(kind) = packet.load::<2>(at) else {
                return Network::Malformed;
            };
            (kind, EthHdr::LEN + VlanHdr::LEN)
        } else {
            (kind, EthHdr::LEN)
        }
    } else {
        let Some(first) = packet.load::<2>(0) else {
            return Network::Malformed;
        };
        (by_version(first), 0)
    };
    match kind {
        IPV4 => ipv4(packet, l3, s),
        IPV6 => ipv6(packet, l3, s),
        _ => Network::NotIp,
    }
}

/// What a packet of a device without link headers is: the version says it (RFC 791, RFC 8200).
#[inline(always)]
const fn by_version([first, _]: [u8; 2]) -> [u8; 2] {
    if first >> 4 == 6 { IPV6 } else { IPV4 }
}

/// The destination of a packet without VLAN tag, before anything else is read of it; `None` if it takes a longer look.
#[inline(always)]
pub fn destination(packet: &impl Packet, ethernet: bool) -> Option<Ip> {
    let (kind, l3) = if ethernet {
        (packet.load::<2>(offset_of!(EthHdr, ether_type))?, EthHdr::LEN)
    } else {
        (by_version(packet.load::<2>(0)?), 0)
    };
    match kind {
        IPV4 => Some(Ip::v4(packet.load::<4>(l3 + offset_of!(Ipv4Hdr, dst_addr))?)),
        IPV6 => Some(Ip::v6(packet.load::<16>(l3 + offset_of!(Ipv6Hdr, dst_addr))?)),
        _ => None,
    }
}

#[inline(always)]
fn ipv4(packet: &impl Packet, l3: usize, s: &mut Scratch) -> Network {
    let Some(ip) = Ipv4::read(packet, l3) else {
        return Network::Malformed;
    };
    let later = ip.is_later_fragment();
    s.key.source = Ip::v4(ip.source);
    s.key.destination = Ip::v4(ip.destination);
    s.packet = Parsed {
        l3: short(l3),
        l4: short(l3 + ip.header),
        length: ip.length,
        family: 4,
        protocol: ip.protocol,
        options: u8::from(ip.header != Ipv4Hdr::LEN),
        first_fragment: u8::from(ip.more_fragments() && !later),
        later_fragment: u8::from(later),
        hop_limit: ip.hop_limit,
        fragment_id: u32::from(ip.id),
        ..Parsed::default()
    };
    Network::Ip
}

#[inline(always)]
fn ipv6(packet: &impl Packet, l3: usize, s: &mut Scratch) -> Network {
    let Some([version, _, _, _, len_a, len_b, next, hop_limit]) = packet.load::<8>(l3) else {
        return Network::Malformed;
    };
    let Some(source) = packet.load::<16>(l3 + offset_of!(Ipv6Hdr, src_addr)) else {
        return Network::Malformed;
    };
    let Some(destination) = packet.load::<16>(l3 + offset_of!(Ipv6Hdr, dst_addr)) else {
        return Network::Malformed;
    };
    s.key.source = Ip::v6(source);
    s.key.destination = Ip::v6(destination);
    // IPv4-mapped addresses do not belong on the wire; here they would hit the rows of IPv4 (RFC 4291, 2.5.5.2).
    if version >> 4 != 6 || s.key.source.is_v4() || s.key.destination.is_v4() {
        return Network::Malformed;
    }
    s.packet = Parsed {
        l3: short(l3),
        l4: short(l3 + Ipv6Hdr::LEN),
        length: u16::from_be_bytes([len_a, len_b]).saturating_add(40),
        family: 6,
        protocol: next,
        hop_limit,
        ..Parsed::default()
    };
    Network::Ip
}

/// Reads the transport header: ports and flags, or what an ICMP error complains about.
#[inline(always)]
pub fn transport(packet: &impl Packet, tables: &impl Tables, s: &mut Scratch) -> Content {
    // Also of a packet that cannot be read further: not the protocol of the packet before.
    s.key.protocol = s.packet.protocol;
    let content = if s.packet.family == 6 && !extension_headers(packet, s) {
        Content::Malformed
    } else {
        content(packet, tables, s)
    };
    s.packet.content = content.code();
    content
}

#[inline(always)]
fn content(packet: &impl Packet, tables: &impl Tables, s: &mut Scratch) -> Content {
    let protocol = s.packet.protocol;
    s.key.protocol = protocol;
    if protocol == TCP || protocol == UDP {
        if s.packet.later_fragment != 0 {
            return Content::LaterFragment;
        }
        return ports(packet, protocol, s);
    }
    cold_path();
    if protocol == SCTP {
        if s.packet.later_fragment != 0 {
            return Content::LaterFragment;
        }
        return sctp::read(packet, tables, s);
    }
    let icmp = if s.packet.family == 4 { ICMP } else { ICMPV6 };
    if protocol != icmp || s.packet.later_fragment != 0 {
        return Content::Other;
    }
    let l4 = usize::from(s.packet.l4);
    let Some([kind, _]) = packet.load::<2>(l4) else {
        return Content::Malformed;
    };
    if !quote::is_error(s.packet.family, kind) {
        return Content::Other;
    }
    s.outer_source = s.key.source;
    s.outer_destination = s.key.destination;
    let inner = l4 + Icmpv4Hdr::LEN;
    if s.packet.family == 4 {
        quote::ipv4(packet, inner, s)
    } else {
        quote::ipv6(packet, inner, s)
    }
}

#[inline(always)]
fn ports(packet: &impl Packet, protocol: u8, s: &mut Scratch) -> Content {
    let l4 = usize::from(s.packet.l4);
    if protocol == TCP {
        // The whole header, although only this much of it is read: what is cut off behind the flags has no checksum.
        let Some([s_a, s_b, d_a, d_b, _, _, _, _, _, _, _, _, offset, flags, ..]) =
            packet.load::<{ TcpHdr::LEN }>(l4)
        else {
            return Content::Malformed;
        };
        s.key.source_port = u16::from_be_bytes([s_a, s_b]);
        s.key.destination_port = u16::from_be_bytes([d_a, d_b]);
        s.packet.tcp_header = (offset >> 4) * 4;
        s.packet.tcp_flags = flags;
    } else {
        let Some([s_a, s_b, d_a, d_b, _, _, _, _]) = packet.load::<8>(l4) else {
            return Content::Malformed;
        };
        s.key.source_port = u16::from_be_bytes([s_a, s_b]);
        s.key.destination_port = u16::from_be_bytes([d_a, d_b]);
    }
    Content::Transport
}

/// Walks the extension headers (RFC 8200, 4) up to the transport header; false if they cannot be read.
#[inline(always)]
fn extension_headers(packet: &impl Packet, s: &mut Scratch) -> bool {
    let mut next = s.packet.protocol;
    let mut at = usize::from(s.packet.l4);
    for _ in 0..EXTENSION_HEADERS {
        let length = match next {
            0 | 43 | 60 => {
                let Some([following, units]) = packet.load::<2>(at) else {
                    return false;
                };
                next = following;
                (usize::from(units) + 1) * 8
            }
            44 => {
                let Some([following, _, off_a, off_b, i_a, i_b, i_c, i_d]) = packet.load::<8>(at) else {
                    return false;
                };
                next = following;
                let offset = u16::from_be_bytes([off_a, off_b]);
                s.packet.first_fragment = u8::from(offset & 0xfff8 == 0 && offset & 1 != 0);
                s.packet.later_fragment = u8::from(offset & 0xfff8 != 0);
                s.packet.fragment_id = u32::from_be_bytes([i_a, i_b, i_c, i_d]);
                8
            }
            _ => break,
        };
        at += length;
        s.packet.options = 1;
        // What follows in a later fragment is data, whatever it looks like (RFC 8200, 4.5).
        if s.packet.later_fragment != 0 {
            break;
        }
        if at > MAX_OFFSET {
            return false;
        }
    }
    s.packet.protocol = next;
    s.packet.l4 = short(at);
    true
}

/// Offsets are small by construction: at most [`MAX_OFFSET`] and a few headers more.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "masked")]
pub(crate) const fn short(offset: usize) -> u16 {
    (offset & 0xffff) as u16
}
