//! What changes in a packet, as data, and the one function that changes it.

use core::hint::cold_path;
use core::mem::offset_of;

use network_types::icmp::Icmpv4Hdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;
use proxy_common::{Be16, Direction, Ip};

use crate::checksum;
use crate::packet::{ChecksumFix, Covers, PacketMut};
use crate::parse::{Content, Parsed, SCTP, TCP, UDP};
use crate::scratch::Scratch;
use crate::sctp;

/// Bytes from an IPv4 header's checksum to the end of the ports behind it.
const HEAD: usize = 14;
/// Bytes of both ports.
const PORTS: usize = 4;

/// The new addresses and ports, and what they do to the checksums.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Edits {
    /// Source address on the outermost header.
    pub source: Ip,
    /// Destination address on the outermost header.
    pub destination: Ip,
    /// ICMP error: source address in the quoted header.
    pub inner_source: Ip,
    /// ICMP error: destination address in the quoted header.
    pub inner_destination: Ip,
    /// Source port (of the quoted header, if this is an ICMP error).
    pub source_port: u16,
    /// Destination port, likewise.
    pub destination_port: u16,
    /// Change of the sum over the outermost addresses.
    pub outer_diff: u32,
    /// Change of the sum over the quoted addresses.
    pub inner_diff: u32,
    /// Change of the sum over the ports.
    pub port_diff: u32,
    /// The new time to live, or hop limit; 0 leaves it as it is, for the stack counts it down.
    pub hop_limit: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

/// Plans the translation of the packet in `s` as `s.flow` has it.
#[inline(always)]
pub fn plan(direction: Direction, s: &mut Scratch) {
    let flow = &s.flow;
    let ((source, source_port), (destination, destination_port)) = match direction {
        Direction::ToService => ((flow.source, flow.source_port), (flow.backend, flow.backend_port)),
        Direction::FromBackend => (
            (flow.frontend, flow.frontend_port),
            (flow.client, flow.client_port),
        ),
    };
    s.edits.hop_limit = 0;
    let key = &s.key;
    // Equal ports make no difference, and cost no checksum helper.
    s.edits.port_diff = if key.source_port == source_port && key.destination_port == destination_port {
        0
    } else {
        checksum::fold32(
            checksum::diff_port(key.source_port, source_port)
                + checksum::diff_port(key.destination_port, destination_port),
        )
    };
    if s.packet.content == Content::IcmpError.code() {
        cold_path();
        plan_error(
            direction,
            (source, source_port),
            (destination, destination_port),
            s,
        );
        return;
    }
    s.edits.source = source;
    s.edits.destination = destination;
    s.edits.source_port = source_port;
    s.edits.destination_port = destination_port;
    s.edits.outer_diff = checksum::fold32(
        checksum::diff_ip(&key.source, &source) + checksum::diff_ip(&key.destination, &destination),
    );
}

/// An ICMP error: the quoted packet went the other way, so its addresses change the other way round. The error's own
/// source changes only where it is the flow's, or where the backend must not see who sent it.
#[inline(always)]
fn plan_error(direction: Direction, source: (Ip, u16), destination: (Ip, u16), s: &mut Scratch) {
    s.edits.inner_source = destination.0;
    s.edits.source_port = destination.1;
    s.edits.inner_destination = source.0;
    s.edits.destination_port = source.1;
    s.edits.inner_diff = checksum::fold32(
        checksum::diff_ip(&s.key.source, &source.0) + checksum::diff_ip(&s.key.destination, &destination.0),
    );
    let masquerade = matches!(direction, Direction::ToService) && s.flow.source != s.flow.client;
    let outer_source = if masquerade || s.outer_source == s.key.source {
        source.0
    } else {
        s.outer_source
    };
    s.edits.source = outer_source;
    s.edits.destination = destination.0;
    s.edits.outer_diff = checksum::fold32(
        checksum::diff_ip(&s.outer_source, &outer_source)
            + checksum::diff_ip(&s.outer_destination, &destination.0),
    );
}

/// Writes the edits in `s` into the packet.
#[inline(always)]
#[must_use = "a packet that could not be rewritten must be dropped"]
pub fn apply(packet: &mut impl PacketMut, s: &Scratch) -> Option<()> {
    let (parsed, edits) = (&s.packet, &s.edits);
    if edits.hop_limit != 0 {
        cold_path();
        hop_limit(packet, (usize::from(parsed.l3), parsed.family), edits.hop_limit)?;
    }
    if parsed.content == Content::Transport.code() && parsed.options == 0 {
        if parsed.protocol != SCTP
            && let Some(covers) = packet.covers()
        {
            return with_checksum(packet, parsed, edits, covers);
        }
        at_once(packet, parsed, edits)?;
        return fix_transport(packet, s);
    }
    cold_path();
    addresses(
        packet,
        (usize::from(parsed.l3), parsed.family),
        (&edits.source, &edits.destination),
        edits.outer_diff,
    )?;
    if parsed.later_fragment != 0 {
        // The checksum that balances IPv6 addresses is in the first fragment.
        if parsed.family == 6 {
            packet.fix_device_sum(edits.outer_diff);
        }
        return Some(());
    }
    if parsed.content == Content::IcmpError.code() {
        return apply_error(packet, parsed, edits);
    }
    ports(packet, usize::from(parsed.l4), edits)?;
    fix_transport(packet, s)
}

/// Addresses and ports in one piece, where nothing stands between them: a store may be a helper call.
#[inline(always)]
fn at_once(packet: &mut impl PacketMut, parsed: &Parsed, edits: &Edits) -> Option<()> {
    let l3 = usize::from(parsed.l3);
    if parsed.family == 6 {
        let mut piece = [0; 36];
        let (source, rest) = piece.split_at_mut(16);
        let (destination, both) = rest.split_at_mut(16);
        source.copy_from_slice(&edits.source.bytes);
        destination.copy_from_slice(&edits.destination.bytes);
        both.copy_from_slice(&both_ports(edits));
        return packet.store(l3 + offset_of!(Ipv6Hdr, src_addr), piece);
    }
    let at = l3 + offset_of!(Ipv4Hdr, check);
    let head = head(packet.load::<2>(at)?, edits);
    packet.store(at, head)
}

/// From the checksum of an IPv4 header without options to the ports behind it.
#[inline(always)]
fn head(check: [u8; 2], edits: &Edits) -> [u8; HEAD] {
    let [c_a, c_b] = checksum::update(check, u64::from(edits.outer_diff));
    let [s_a, s_b, s_c, s_d] = edits.source.v4_bytes();
    let [d_a, d_b, d_c, d_d] = edits.destination.v4_bytes();
    let [p_a, p_b, q_a, q_b] = both_ports(edits);
    [
        c_a, c_b, s_a, s_b, s_c, s_d, d_a, d_b, d_c, d_d, p_a, p_b, q_a, q_b,
    ]
}

/// Addresses, ports and the transport checksum, where it is known what that covers: of IPv4 in one piece.
#[inline(always)]
fn with_checksum(packet: &mut impl PacketMut, parsed: &Parsed, edits: &Edits, covers: Covers) -> Option<()> {
    const TCP_AT: usize = offset_of!(TcpHdr, check);
    const UDP_AT: usize = offset_of!(UdpHdr, check);
    let is_udp = parsed.protocol == UDP;
    let at = usize::from(parsed.l4) + if is_udp { UDP_AT } else { TCP_AT };
    let check = transport_checksum(packet.load::<2>(at)?, edits, covers, is_udp);
    if parsed.family == 6 {
        at_once(packet, parsed, edits)?;
        return packet.store(at, check);
    }
    if is_udp {
        piece::<{ UDP_AT - PORTS }, { HEAD + UDP_AT - PORTS + 2 }>(packet, parsed, edits, check)
    } else {
        piece::<{ TCP_AT - PORTS }, { HEAD + TCP_AT - PORTS + 2 }>(packet, parsed, edits, check)
    }
}

/// What stands between the ports and the checksum is written as it was.
#[inline(always)]
fn piece<const BETWEEN: usize, const ALL: usize>(
    packet: &mut impl PacketMut,
    parsed: &Parsed,
    edits: &Edits,
    check: [u8; 2],
) -> Option<()> {
    let at = usize::from(parsed.l3) + offset_of!(Ipv4Hdr, check);
    let mut piece = [0; ALL];
    let (first, rest) = piece.split_at_mut(HEAD);
    let (between, last) = rest.split_at_mut(BETWEEN);
    first.copy_from_slice(&head(packet.load::<2>(at)?, edits));
    between.copy_from_slice(&packet.load::<BETWEEN>(at + HEAD)?);
    last.copy_from_slice(&check);
    packet.store(at, piece)
}

/// The checksum of TCP or UDP as it will be. Of UDP, zero means "none" and stays, and a computed zero is sent as 0xffff
/// (RFC 768).
#[inline(always)]
fn transport_checksum(old: [u8; 2], edits: &Edits, covers: Covers, is_udp: bool) -> [u8; 2] {
    const NONE: [u8; 2] = [0; 2];
    if is_udp && old == NONE {
        return NONE;
    }
    let new = checksum::update_transport(old, (edits.outer_diff, edits.port_diff), covers);
    if is_udp && new == NONE { [0xff; 2] } else { new }
}

/// The checksum of TCP, UDP or SCTP.
#[inline(always)]
fn fix_transport(packet: &mut impl PacketMut, s: &Scratch) -> Option<()> {
    let (parsed, edits) = (&s.packet, &s.edits);
    let at = if parsed.protocol == TCP {
        offset_of!(TcpHdr, check)
    } else if parsed.protocol == UDP {
        offset_of!(UdpHdr, check)
    } else {
        cold_path();
        return sctp::fix(packet, s);
    };
    packet.fix_checksum(ChecksumFix {
        at: usize::from(parsed.l4) + at,
        pseudo: edits.outer_diff,
        payload: edits.port_diff,
        udp: parsed.protocol == UDP,
        ipv6: parsed.family == 6,
    })
}

/// The quoted header, and the ICMP checksum over it.
///
/// ICMP: the quoted IPv4 header's own checksum balances its addresses, so only the ports are left over. ICMPv6: the
/// quoted addresses count, and the outermost ones by the pseudo-header (RFC 4443, 2.3). The quoted transport
/// checksum stays as it was: the quote is cut off, and nobody can verify it.
#[inline(always)]
fn apply_error(packet: &mut impl PacketMut, parsed: &Parsed, edits: &Edits) -> Option<()> {
    let inner = (usize::from(parsed.inner_l3), parsed.family);
    addresses(
        packet,
        inner,
        (&edits.inner_source, &edits.inner_destination),
        edits.inner_diff,
    )?;
    ports(packet, usize::from(parsed.inner_l4), edits)?;
    let v6 = parsed.family == 6;
    let quoted = if v6 { edits.inner_diff } else { 0 };
    packet.fix_checksum(ChecksumFix {
        at: usize::from(parsed.l4) + offset_of!(Icmpv4Hdr, check),
        pseudo: if v6 { edits.outer_diff } else { 0 },
        payload: checksum::fold32(u64::from(edits.port_diff) + u64::from(quoted)),
        udp: false,
        ipv6: v6,
    })
}

/// The time to live, with the header's checksum; or the hop limit, which only the device's sum covers.
#[inline(always)]
fn hop_limit(packet: &mut impl PacketMut, (at, family): (usize, u8), new: u8) -> Option<()> {
    if family == 6 {
        let at = at + offset_of!(Ipv6Hdr, next_hdr);
        let [next, old] = packet.load::<2>(at)?;
        packet.store(at, [next, new])?;
        packet.fix_device_sum(checksum::fold32(checksum::diff_pair([next, old], [next, new])));
        return Some(());
    }
    let at = at + offset_of!(Ipv4Hdr, ttl);
    let [old, protocol, check @ ..] = packet.load::<4>(at)?;
    let [a, b] = checksum::update(check, checksum::diff_pair([old, protocol], [new, protocol]));
    packet.store(at, [new, protocol, a, b])
}

/// Both addresses of an IP header, and its checksum if it has one.
#[inline(always)]
fn addresses(
    packet: &mut impl PacketMut,
    (at, family): (usize, u8),
    (source, destination): (&Ip, &Ip),
    diff: u32,
) -> Option<()> {
    if family == 6 {
        packet.store(at + offset_of!(Ipv6Hdr, src_addr), source.bytes)?;
        return packet.store(at + offset_of!(Ipv6Hdr, dst_addr), destination.bytes);
    }
    let check = packet.load::<2>(at + offset_of!(Ipv4Hdr, check))?;
    packet.store(
        at + offset_of!(Ipv4Hdr, check),
        checksum::update(check, u64::from(diff)),
    )?;
    packet.store(at + offset_of!(Ipv4Hdr, src_addr), source.v4_bytes())?;
    packet.store(at + offset_of!(Ipv4Hdr, dst_addr), destination.v4_bytes())
}

/// Both ports: at the same place in TCP, UDP and SCTP.
#[inline(always)]
fn ports(packet: &mut impl PacketMut, at: usize, edits: &Edits) -> Option<()> {
    packet.store(at, both_ports(edits))
}

/// As they stand in the header.
#[inline(always)]
const fn both_ports(edits: &Edits) -> [u8; PORTS] {
    let [s_a, s_b] = Be16::from_host(edits.source_port).to_wire();
    let [d_a, d_b] = Be16::from_host(edits.destination_port).to_wire();
    [s_a, s_b, d_a, d_b]
}
