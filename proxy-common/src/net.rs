//! Addresses, wire-order ports and transport protocols.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address: 16 bytes in network order, IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// One type for both families, so that no rule exists twice. Aligned to four bytes, so that kernel programs copy and
/// compare it by words; it stays an array of bytes, so that `bpftool` prints it as one.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Ip {
    /// The address as it stands on the wire.
    pub bytes: [u8; 16],
}

impl Ip {
    /// `::`, the address of no host; node-port frontends use it as their key.
    pub const UNSPECIFIED: Self = Self { bytes: [0; 16] };

    /// An IPv4 address from its four bytes on the wire.
    ///
    /// By way of a number: of an array with ten zeros the compiler makes a call of `memset`, which in a kernel program
    /// is a loop over bytes, for every address of every packet.
    #[inline(always)]
    pub const fn v4(a: [u8; 4]) -> Self {
        let mapped = 0xffff_0000_0000 | u32::from_be_bytes(a) as u128;
        Self {
            bytes: mapped.to_be_bytes(),
        }
    }

    /// An IPv6 address from its sixteen bytes on the wire.
    #[inline(always)]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        // A number for the same reason: it is copied by words, an array by a call of `memcpy`.
        Self {
            bytes: u128::from_ne_bytes(bytes).to_ne_bytes(),
        }
    }

    /// Whether this is `::` or, as an IPv4 address, `0.0.0.0`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let ([a, b, c, d], _) = self.bytes.as_chunks::<4>() else {
            return false;
        };
        let prefix = u32::from_ne_bytes(*c);
        u32::from_ne_bytes(*a) | u32::from_ne_bytes(*b) | u32::from_ne_bytes(*d) == 0
            && (prefix == 0 || prefix == u32::from_ne_bytes([0, 0, 0xff, 0xff]))
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let ([a, b, c, _], _) = self.bytes.as_chunks::<4>() else {
            return false;
        };
        u32::from_ne_bytes(*a) | u32::from_ne_bytes(*b) == 0
            && u32::from_ne_bytes(*c) == u32::from_ne_bytes([0, 0, 0xff, 0xff])
    }

    /// The last four bytes: the address on the wire if this is IPv4.
    #[inline(always)]
    pub const fn v4_bytes(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.bytes;
        [a, b, c, d]
    }
}

impl From<IpAddr> for Ip {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        if ip.is_v4() {
            Self::V4(Ipv4Addr::from(ip.v4_bytes()))
        } else {
            Self::V6(Ipv6Addr::from(ip.bytes))
        }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// A 16-bit number in network order, as it stands in a header.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Be16(u16);

impl Be16 {
    /// From the two bytes on the wire.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// From a number in host order.
    #[inline(always)]
    pub const fn from_host(value: u16) -> Self {
        Self(value.to_be())
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn to_host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The two bytes on the wire.
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }
}

/// A transport protocol by its IANA number, as a byte in the rows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// TCP, 6.
    Tcp,
    /// UDP, 17.
    Udp,
    /// SCTP, 132.
    Sctp,
}

impl Protocol {
    /// The IANA number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this IANA number, if weir serves it.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
