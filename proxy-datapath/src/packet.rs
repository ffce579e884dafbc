//! The bytes of a packet: the only bounds check of the whole datapath is behind these traits.

use crate::sctp::{self, Sums};

/// [`Packet::segment`] of a packet whose segments have lengths of their own (`GSO_BY_FRAGS`): only SCTP is sent so.
pub const BY_FRAGMENTS: u32 = 0xffff;

/// Reading.
pub trait Packet {
    /// Copies `N` bytes at `at`, or `None` when the packet ends before.
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Payload bytes of each segment of a GSO packet; 0 if the packet is one segment.
    fn segment(&self) -> u32;
}

/// Writing, as [`crate::rewrite::apply`] needs it.
pub trait PacketMut: Packet {
    /// Overwrites `N` bytes at `at`, or `None` when the packet ends before.
    #[must_use = "a lost store leaves a packet half rewritten"]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()>;

    /// Corrects the sum over the whole packet that the device may have made (`CHECKSUM_COMPLETE`) by a change that no
    /// checksum in the packet balances.
    fn fix_device_sum(&mut self, diff: u32);

    /// [`sctp::sums`], in the kernel as a function of its own.
    #[inline(always)]
    fn sctp_sums(&self, old: [u8; 4], ports: u32, length: u16, others: u32) -> Sums {
        sctp::sums(old, ports, length, others)
    }

    /// Corrects a transport checksum. Nothing may be loaded or stored afterwards: in the kernel this gives up the
    /// pointers into the packet.
    #[must_use = "a lost correction leaves a packet with a wrong checksum"]
    fn fix_checksum(&mut self, fix: ChecksumFix) -> Option<()>;
}

/// A correction of a transport checksum, in ones' complement (RFC 1624).
///
/// The two differences stay apart because an offloaded checksum (`CHECKSUM_PARTIAL`) covers only the
/// pseudo-header when weir sees it: what changed in the payload, ports included, is added by the device later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChecksumFix {
    /// Where the checksum is.
    pub at: usize,
    /// Difference of what the pseudo-header covers: the addresses.
    pub pseudo: u32,
    /// Difference of what the transport header and payload cover: the ports.
    pub payload: u32,
    /// UDP: zero means "no checksum" and stays, and a computed zero is sent as 0xffff (RFC 768).
    pub udp: bool,
    /// The addresses are IPv6, which has no header checksum that would balance their change in `skb->csum`.
    pub ipv6: bool,
}
