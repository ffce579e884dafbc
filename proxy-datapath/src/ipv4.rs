//! The IPv4 header (RFC 791): of a packet, and of one that an ICMP error quotes.

use network_types::ip::Ipv4Hdr;

use crate::packet::Packet;

/// What the header says.
pub(crate) struct Ipv4 {
    /// Bytes of the header.
    pub(crate) header: usize,
    /// Bytes of the packet.
    pub(crate) length: u16,
    pub(crate) id: u16,
    /// Flags and offset of a fragment.
    fragment: u16,
    pub(crate) hop_limit: u8,
    pub(crate) protocol: u8,
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
}

impl Ipv4 {
    /// Where the fragment begins, in units of eight bytes.
    const OFFSET: u16 = 0x1fff;
    /// Others follow.
    const MORE: u16 = 0x2000;

    /// Reads the header at an offset; `None` if it cannot be read.
    #[inline(always)]
    pub(crate) fn read(packet: &impl Packet, at: usize) -> Option<Self> {
        let bytes = packet.load::<{ Ipv4Hdr::LEN }>(at)?;
        let [
            version,
            _,
            len_a,
            len_b,
            id_a,
            id_b,
            frag_a,
            frag_b,
            hop_limit,
            protocol,
            ..,
        ] = bytes;
        // By words: out of single bytes the compiler would put each address together again.
        let ([_, _, _, source, destination], _) = bytes.as_chunks::<4>() else {
            return None;
        };
        let header = usize::from(version & 0x0f) * 4;
        if version >> 4 != 4 || header < Ipv4Hdr::LEN {
            return None;
        }
        Some(Self {
            header,
            length: u16::from_be_bytes([len_a, len_b]),
            id: u16::from_be_bytes([id_a, id_b]),
            fragment: u16::from_be_bytes([frag_a, frag_b]),
            hop_limit,
            protocol,
            source: *source,
            destination: *destination,
        })
    }

    /// Whether this is a later fragment of a packet.
    #[inline(always)]
    pub(crate) const fn is_later_fragment(&self) -> bool {
        self.fragment & Self::OFFSET != 0
    }

    /// Whether fragments follow this one.
    #[inline(always)]
    pub(crate) const fn more_fragments(&self) -> bool {
        self.fragment & Self::MORE != 0
    }
}
