//! SCTP (RFC 9260): its header, what the first chunk says of the association, and what ends one from outside.
//!
//! An association is a flow like a TCP connection. Its chunks are read as the TCP flags that mean the same, so that the
//! states of a flow (`flow.rs`) need no second table:
//!
//! | chunk | flags | |
//! |---|---|---|
//! | INIT | SYN | begins a flow |
//! | INIT ACK | SYN, ACK | the backend has answered |
//! | SHUTDOWN, SHUTDOWN ACK | FIN, ACK | this side has ended |
//! | ABORT | RST | |
//! | all others | ACK | the client's first establishes the flow |
//!
//! Only the first chunk is looked at. INIT and INIT ACK must be alone; an ABORT or SHUTDOWN behind another chunk goes unnoticed,
//! and the flow then ends by its time-out.

use crate::packet::{Packet, PacketMut};
use crate::parse::{ACK, Content, FIN, Parsed, RST, SYN};
use crate::scratch::Scratch;
use crate::tables::Tables;
use crate::{checksum, crc, reply};

/// Bytes of the header.
pub const HEADER: usize = 12;
/// Bytes of a chunk's header: type, flags, length.
const CHUNK_HEADER: usize = 4;
/// Offset of the checksum.
const CHECKSUM: usize = 8;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const HEARTBEAT: u8 = 4;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// What is read of an SCTP packet, beside its ports.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// The verification tag.
    pub tag: [u8; 4],
    /// The checksum.
    pub checksum: [u8; 4],
    /// Type of the first chunk.
    pub chunk: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

/// What [`sums`] works out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sums {
    /// The new checksum.
    pub checksum: [u8; 4],
    /// What [`PacketMut::fix_device_sum`] takes.
    pub device: u32,
}

/// Reads the header: ports, and the first chunk.
#[inline(always)]
pub(crate) fn read(packet: &impl Packet, tables: &impl Tables, s: &mut Scratch) -> Content {
    let l4 = usize::from(s.packet.l4);
    let Some([s_a, s_b, d_a, d_b, t_a, t_b, t_c, t_d, checksum @ ..]) = packet.load::<HEADER>(l4) else {
        return Content::Malformed;
    };
    s.key.source_port = u16::from_be_bytes([s_a, s_b]);
    s.key.destination_port = u16::from_be_bytes([d_a, d_b]);
    s.sctp.tag = [t_a, t_b, t_c, t_d];
    s.sctp.checksum = checksum;
    let length = usize::from(length(&s.packet));
    if length < HEADER {
        return Content::Malformed;
    }
    // In a GSO packet the chunks are elsewhere. What begins or ends an association is never in one: data, then.
    let [chunk, _] = packet.load::<2>(l4 + HEADER).unwrap_or_default();
    // What ends within a chunk's header has none; a frame may have padding there.
    let is_cut = length < HEADER + CHUNK_HEADER;
    s.sctp.chunk = if is_cut { DATA } else { chunk };
    s.packet.tcp_flags = tables.sctp_flags(s.sctp.chunk, s.sctp.tag);
    Content::Transport
}

/// The flags of a chunk. Only an INIT is sent without a tag (RFC 9260, 8.5.1): what does not keep to that means nothing.
#[inline(always)]
pub fn flags(chunk: u8, tag: [u8; 4]) -> u8 {
    if (chunk == INIT) != (tag == [0; 4]) {
        return 0;
    }
    match chunk {
        INIT => SYN,
        INIT_ACK => SYN | ACK,
        ABORT => RST,
        SHUTDOWN | SHUTDOWN_ACK => FIN | ACK,
        _ => ACK,
    }
}

/// Bytes from the header to the end of the packet, as the IP header says: a frame may have padding behind.
#[inline(always)]
const fn length(parsed: &Parsed) -> u16 {
    parsed.length.saturating_sub(parsed.l4.wrapping_sub(parsed.l3))
}

/// Corrects the checksum after [`crate::rewrite::apply`] has written addresses and ports.
#[inline(always)]
pub(crate) fn fix(packet: &mut impl PacketMut, s: &Scratch) -> Option<()> {
    let ports = crc::ports(
        (s.key.source_port, s.key.destination_port),
        (s.edits.source_port, s.edits.destination_port),
    );
    // IPv4 has a header checksum that balances the addresses.
    let addresses = if s.packet.family == 6 {
        s.edits.outer_diff
    } else {
        0
    };
    let others = u64::from(s.edits.port_diff) + u64::from(addresses);
    let sums = packet.sctp_sums(
        s.sctp.checksum,
        ports,
        length(&s.packet),
        checksum::fold32(others),
    );
    packet.store(usize::from(s.packet.l4) + CHECKSUM, sums.checksum)?;
    packet.fix_device_sum(sums.device);
    Some(())
}

/// The checksum of a packet of some length whose ports change by an XOR, and how far the sum of a device changes, which also
/// covers `others`.
///
/// A checksum of zero is left alone: it stands where the kernel or the device computes one when the packet leaves
/// (`CHECKSUM_PARTIAL`), over the field as it is (`skb_crc32c_csum_help`, Linux 4.12 to 6.18), or where both ends have agreed to
/// do without (RFC 9653). One of 2³² is zero by itself, and then becomes wrong.
#[inline(always)]
pub fn sums(old: [u8; 4], ports: u32, length: u16, others: u32) -> Sums {
    let checksum = if old == [0; 4] {
        old
    } else {
        (u32::from_le_bytes(old) ^ crc::change(ports, length)).to_le_bytes()
    };
    Sums {
        checksum,
        device: checksum::fold32(checksum::diff_word(old, checksum) + u64::from(others)),
    }
}

/// Bytes of an [`abort`].
pub(crate) const ABORT_LENGTH: u16 = 16;

/// Builds what ends an association whose flow is not known or goes nowhere: an ABORT, as whoever has never heard of it sends
/// it (RFC 9260, 8.4), with the packet's own tag, and the T bit that says so. False if nothing may be sent.
#[inline(always)]
pub fn abort(is_known: bool, s: &mut Scratch) -> bool {
    let kind = match s.sctp.chunk {
        ABORT | COOKIE_ACK | SHUTDOWN_COMPLETE => return false,
        // Perhaps of another path of an association that lives with another tuple, and that an ABORT would end.
        HEARTBEAT if !is_known => return false,
        SHUTDOWN_ACK => SHUTDOWN_COMPLETE,
        _ => ABORT,
    };
    if s.sctp.tag == [0; 4] {
        return false;
    }
    let ports = crc::ports((0, 0), (s.key.destination_port, s.key.source_port));
    // Where the client's checksum is left to the device, this one will be, too ([`plan`]).
    let checksum = if s.sctp.checksum == [0; 4] {
        0
    } else {
        let empty = if kind == ABORT {
            EMPTY_ABORT
        } else {
            EMPTY_COMPLETE
        };
        let tag = crc::change(u32::from_le_bytes(s.sctp.tag), ABORT_LENGTH - 4);
        empty ^ crc::change(ports, ABORT_LENGTH) ^ tag
    };
    let words = [
        ports.to_le_bytes(),
        s.sctp.tag,
        checksum.to_le_bytes(),
        [kind, T_BIT, 0, 4],
    ];
    reply::put_sctp(words, s).is_some()
}

/// The tag is that of whom the packet is for.
const T_BIT: u8 = 1;
/// Checksums of [`abort`]'s packets with zeros for ports and tag.
const EMPTY_ABORT: u32 = empty(ABORT);
const EMPTY_COMPLETE: u32 = empty(SHUTDOWN_COMPLETE);

const fn empty(kind: u8) -> u32 {
    crc::whole(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kind, T_BIT, 0, 4])
}
