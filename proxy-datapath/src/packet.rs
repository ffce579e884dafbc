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

    /// What the transport checksum covers, if that is known. If not, only [`Self::fix_checksum`] may correct it.
    fn covers(&self) -> Option<Covers>;

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

/// What a transport checksum covers when weir sees it, as a mask: all bits set if it is the pseudo-header only (offloaded,
/// `CHECKSUM_PARTIAL`: the device adds the rest, and takes the complement), none if it is everything. A mask, not a choice:
/// each way through a kernel program is verified for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Covers(u32);

impl Covers {
    /// The whole datagram, which no device has to look at; also if none has looked yet.
    pub const ALL: Self = Self(0);
    /// The pseudo-header.
    pub const PSEUDO_HEADER: Self = Self(u32::MAX);

    /// What `skb->ip_summed` says, if that is known; of a packet that the device has summed (`CHECKSUM_COMPLETE`), that sum
    /// would have to be corrected as well.
    #[inline(always)]
    pub const fn of(ip_summed: u32) -> Option<Self> {
        const COMPLETE: u32 = 2;
        if ip_summed & 3 == COMPLETE {
            return None;
        }
        // CHECKSUM_PARTIAL is 3, CHECKSUM_NONE and CHECKSUM_UNNECESSARY 0 and 1.
        Some(Self((ip_summed >> 1 & 1).wrapping_neg()))
    }

    /// The mask.
    #[inline(always)]
    pub const fn mask(self) -> u32 {
        self.0
    }
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
