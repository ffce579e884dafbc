//! What is sent back to a client that cannot be served: a RST, SCTP's ABORT, or an ICMP error with the start of its packet.
//!
//! The reply takes the place of the packet and leaves by the interface that the packet came in by. It is built whole,
//! from the IP header on, so that the kernel only has to set the length and copy.

use core::hint::{black_box, cold_path};

use proxy_common::{Ip, Reason};

use crate::checksum;
use crate::packet::Packet;
use crate::parse::{ACK, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP};
use crate::scratch::Scratch;
use crate::sctp;
use crate::tables::Tables;

/// Longest reply: IPv6, ICMPv6, quoted IPv6 header and the start of an SCTP packet.
pub const MAX: usize = 108;

/// A packet from the IP header on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The bytes; those from `length` on mean nothing.
    pub bytes: [u8; MAX],
    /// How many count.
    pub length: u32,
    /// TCP: offset of the checksum in `bytes`; 0 for ICMP and SCTP, whose checksum is complete.
    ///
    /// A RST is put where the client's own segment was, and that may have had an offloaded checksum
    /// (`CHECKSUM_PARTIAL`), which the device would finish over whatever stands there. So the field holds the sum of
    /// the pseudo-header, as an offloaded one must, and `checksum_diff` makes it whole where it is not offloaded:
    /// `bpf_l4_csum_replace` without `BPF_F_PSEUDO_HDR` changes only the latter.
    pub checksum_at: u32,
    /// See `checksum_at`.
    pub checksum_diff: u32,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            bytes: [0; MAX],
            length: 0,
            checksum_at: 0,
            checksum_diff: 0,
        }
    }
}

/// Time to live of replies.
const TTL: u8 = 64;
/// Lengths of what a reply consists of.
const TCP_HEADER: u16 = 20;
const ICMP_AND_QUOTE: u16 = 8 + 8;

/// Builds the reply to the packet in `s`; false if it must not or cannot be answered.
#[inline(always)]
pub fn build(packet: &impl Packet, tables: &impl Tables, reason: Reason, s: &mut Scratch) -> bool {
    // With options the client's header cannot be quoted in the room there is.
    if s.packet.options != 0 || s.packet.later_fragment != 0 || !is_one_host(&s.key.source) {
        return false;
    }
    if s.packet.protocol == SCTP && matches!(reason, Reason::RejectUnknownFlow | Reason::RejectGoneBackend) {
        cold_path();
        return tables.abort_sctp(matches!(reason, Reason::RejectGoneBackend), s);
    }
    // About the way and not the service: never a RST.
    let way = matches!(reason, Reason::RejectTooBig | Reason::RejectHopLimit);
    let tcp = s.packet.protocol == TCP && !way;
    match (tcp, s.packet.family) {
        (true, 4) => reset_v4(packet, s),
        (true, _) => reset_v6(packet, s),
        (false, 4) => unreachable_v4(packet, reason, s),
        (false, _) => unreachable_v6(packet, reason, s),
    }
    .is_some()
}

/// Whether an address can be somebody's who wants an answer (RFC 1122, 3.2.2; RFC 4443, 2.4): not a group's, nobody's,
/// or the loopback's.
#[inline(always)]
fn is_one_host(address: &Ip) -> bool {
    if address.is_v4() {
        let [first, ..] = address.v4_bytes();
        return matches!(first, 1..=126 | 128..=223);
    }
    let [first, ..] = address.bytes;
    let [prefix @ .., _] = address.bytes;
    first != 0xff && prefix != [0; 15]
}

/// Sequence and acknowledgement numbers and flags of a RST (RFC 9293, 3.10.7.1).
#[inline(always)]
fn reset(packet: &impl Packet, s: &Scratch) -> Option<[u8; 20]> {
    let [_, _, _, _, seq @ .., ack_a, ack_b, ack_c, ack_d] = packet.load::<12>(usize::from(s.packet.l4))?;
    let flags = s.packet.tcp_flags;
    let header = s
        .packet
        .l4
        .wrapping_sub(s.packet.l3)
        .wrapping_add(u16::from(s.packet.tcp_header));
    let payload = u32::from(s.packet.length.saturating_sub(header));
    let consumed = payload + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let (seq, ack, flags) = if flags & ACK != 0 {
        ([ack_a, ack_b, ack_c, ack_d], [0; 4], RST)
    } else {
        (
            [0; 4],
            u32::from_be_bytes(seq).wrapping_add(consumed).to_be_bytes(),
            RST | ACK,
        )
    };
    let [sp_a, sp_b] = s.key.destination_port.to_be_bytes();
    let [dp_a, dp_b] = s.key.source_port.to_be_bytes();
    let [s0, s1, s2, s3] = seq;
    let [a0, a1, a2, a3] = ack;
    Some([
        sp_a,
        sp_b,
        dp_a,
        dp_b,
        s0,
        s1,
        s2,
        s3,
        a0,
        a1,
        a2,
        a3,
        5 << 4,
        flags,
        0,
        0,
        0,
        0,
        0,
        0,
    ])
}

#[inline(always)]
fn reset_v4(packet: &impl Packet, s: &mut Scratch) -> Option<()> {
    let tcp = reset(packet, s)?;
    header_v4(s, TCP, TCP_HEADER);
    put(&mut s.reply, 20, tcp)?;
    finish_reset(&tcp, 20, s)
}

#[inline(always)]
fn reset_v6(packet: &impl Packet, s: &mut Scratch) -> Option<()> {
    let tcp = reset(packet, s)?;
    header_v6(s, TCP, TCP_HEADER);
    put(&mut s.reply, 40, tcp)?;
    finish_reset(&tcp, 40, s)
}

/// Fills the checksum in as [`Reply::checksum_at`] explains.
#[inline(always)]
fn finish_reset(tcp: &[u8; 20], l4: usize, s: &mut Scratch) -> Option<()> {
    let pseudo = pseudo_header(s, TCP, TCP_HEADER);
    let partial = checksum::fold(pseudo);
    put(&mut s.reply, l4 + 16, partial.to_ne_bytes())?;
    // What takes the field from `partial` to the complement of the whole sum, by RFC 1624's equation.
    let whole = pseudo + checksum::sum_bytes(tcp);
    s.reply.checksum_diff = checksum::fold32(whole + u64::from(partial));
    s.reply.checksum_at = if l4 == 20 { 36 } else { 56 };
    Some(())
}

/// Puts what [`sctp::abort`] sends behind an IP header.
#[inline(always)]
pub(crate) fn put_sctp(words: [[u8; 4]; sctp::ABORT_LENGTH as usize / 4], s: &mut Scratch) -> Option<()> {
    let at = if s.packet.family == 4 { 20 } else { 40 };
    for (index, word) in words.into_iter().enumerate() {
        put(&mut s.reply, at + 4 * index, word)?;
    }
    let s = black_box(s);
    if s.packet.family == 4 {
        header_v4(s, SCTP, sctp::ABORT_LENGTH);
    } else {
        header_v6(s, SCTP, sctp::ABORT_LENGTH);
    }
    Some(())
}

#[inline(always)]
fn unreachable_v4(packet: &impl Packet, reason: Reason, s: &mut Scratch) -> Option<()> {
    let more = quotes_more(s);
    header_v4(s, ICMP, ICMP_AND_QUOTE + 20 + more);
    let mut quoted = quote::<7>(packet, 0, 28, s)?;
    if more != 0 {
        quoted += quote::<3>(packet, 28, 56, s)?;
    }
    let [mtu_a, mtu_b] = ((s.route.mtu & 0xffff) as u16).to_be_bytes();
    // Destination unreachable (RFC 792): port unreachable, or fragmentation needed with the MTU (RFC 1191). Or time
    // exceeded: time to live, in transit.
    let mut icmp = match reason {
        Reason::RejectTooBig => [3, 4, 0, 0, 0, 0, mtu_a, mtu_b],
        Reason::RejectHopLimit => [11, 0, 0, 0, 0, 0, 0, 0],
        _ => [3, 3, 0, 0, 0, 0, 0, 0],
    };
    let sum = checksum::sum_bytes(&icmp) + quoted;
    let [_, _, check_a, check_b, ..] = &mut icmp;
    [*check_a, *check_b] = (!checksum::fold(sum)).to_ne_bytes();
    put(&mut s.reply, 20, icmp)
}

#[inline(always)]
fn unreachable_v6(packet: &impl Packet, reason: Reason, s: &mut Scratch) -> Option<()> {
    let more = quotes_more(s);
    header_v6(s, ICMPV6, ICMP_AND_QUOTE + 40 + more);
    let mut quoted = quote::<12>(packet, 0, 48, s)?;
    if more != 0 {
        quoted += quote::<3>(packet, 48, 96, s)?;
    }
    let [mtu_a, mtu_b] = ((s.route.mtu & 0xffff) as u16).to_be_bytes();
    // Packet too big, time exceeded: hop limit, in transit, or destination unreachable: port unreachable (RFC 4443,
    // 3.1 to 3.3).
    let mut icmp = match reason {
        Reason::RejectTooBig => [2, 0, 0, 0, 0, 0, mtu_a, mtu_b],
        Reason::RejectHopLimit => [3, 0, 0, 0, 0, 0, 0, 0],
        _ => [1, 4, 0, 0, 0, 0, 0, 0],
    };
    let sum = pseudo_header(s, ICMPV6, ICMP_AND_QUOTE + 40 + more) + checksum::sum_bytes(&icmp) + quoted;
    let [_, _, check_a, check_b, ..] = &mut icmp;
    [*check_a, *check_b] = (!checksum::fold(sum)).to_ne_bytes();
    put(&mut s.reply, 40, icmp)
}

/// Bytes that are quoted behind the first eight of the transport header: whose error it is, Linux finds out by the tag that an
/// INIT carries behind its header, as there is none in it (`sctp_err_lookup`).
#[inline(always)]
const fn quotes_more(s: &Scratch) -> u16 {
    if s.packet.protocol == SCTP && s.packet.tcp_flags == SYN {
        12
    } else {
        0
    }
}

/// Copies a part of the packet's IP header and what follows into the reply, `WORDS` of four bytes, and sums them.
///
/// Word by word: all of them at once would be on the stack.
#[inline(always)]
fn quote<const WORDS: usize>(packet: &impl Packet, from: usize, at: usize, s: &mut Scratch) -> Option<u64> {
    let l3 = usize::from(s.packet.l3) + from;
    let mut sum = 0;
    for word in 0..WORDS {
        let bytes = packet.load::<4>(l3 + 4 * word)?;
        put(&mut s.reply, at + 4 * word, bytes)?;
        sum += checksum::sum_bytes(&bytes);
    }
    Some(sum)
}

/// The IPv4 header of a reply: from the packet's destination to its source.
#[inline(always)]
fn header_v4(s: &mut Scratch, protocol: u8, payload: u16) {
    let [l_a, l_b] = (20 + payload).to_be_bytes();
    let [s_a, s_b, s_c, s_d] = s.key.destination.v4_bytes();
    let [d_a, d_b, d_c, d_d] = s.key.source.v4_bytes();
    let mut header = [
        0x45, 0, l_a, l_b, 0, 0, 0x40, 0, TTL, protocol, 0, 0, s_a, s_b, s_c, s_d, d_a, d_b, d_c, d_d,
    ];
    let check = !checksum::fold(checksum::sum_bytes(&header));
    let [_, _, _, _, _, _, _, _, _, _, check_a, check_b, ..] = &mut header;
    [*check_a, *check_b] = check.to_ne_bytes();
    s.reply.length = u32::from(20 + payload);
    s.reply.checksum_at = 0;
    s.reply.checksum_diff = 0;
    let _fits = put(&mut s.reply, 0, header);
}

/// The IPv6 header of a reply: from the packet's destination to its source.
#[inline(always)]
fn header_v6(s: &mut Scratch, protocol: u8, payload: u16) {
    let [l_a, l_b] = payload.to_be_bytes();
    s.reply.length = u32::from(40 + payload);
    s.reply.checksum_at = 0;
    s.reply.checksum_diff = 0;
    let _fits = put(&mut s.reply, 0, [0x60, 0, 0, 0, l_a, l_b, protocol, TTL]);
    let _fits = put(&mut s.reply, 8, s.key.destination.bytes);
    let _fits = put(&mut s.reply, 24, s.key.source.bytes);
}

/// Sum of the pseudo-header. An IPv4 address counts by its last four bytes: the prefix of the mapped form does not.
#[inline(always)]
fn pseudo_header(s: &Scratch, protocol: u8, length: u16) -> u64 {
    let sum = |ip: &Ip| {
        if ip.is_v4() {
            u64::from(u32::from_ne_bytes(ip.v4_bytes()))
        } else {
            checksum::sum_ip(ip)
        }
    };
    sum(&s.key.source)
        + sum(&s.key.destination)
        + u64::from(u16::from(protocol).to_be())
        + u64::from(length.to_be())
}

/// Copies into the reply; `None` if it does not fit, which the constants above rule out.
#[inline(always)]
fn put<const N: usize>(reply: &mut Reply, at: usize, bytes: [u8; N]) -> Option<()> {
    reply.bytes.get_mut(at..at + N)?.copy_from_slice(&bytes);
    Some(())
}
