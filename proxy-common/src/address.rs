//! `ADDRESSES`, and the filter before it: the first question asked of every packet.

use crate::layout::byte_enum;
use crate::limits;
use crate::net::Ip;

/// A row of `ADDRESSES`: what an address is to this node.
///
/// A destination without a row is none of weir's business, unless a connection to it still goes on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Address {
    /// An [`AddressKind`].
    pub kind: u8,
    /// 1 if node ports are served on this address.
    pub node_ports: u8,
    /// 1 if this is an address of the node and of a load balancer: frontends are known by it, too.
    pub vip: u8,
    /// Always zero.
    pub reserved: u8,
}

impl Address {
    /// Whether the address is one of this node's own.
    #[inline(always)]
    pub const fn is_node(&self) -> bool {
        self.kind == AddressKind::Node.code()
    }

    /// Whether only flows keep the row.
    #[inline(always)]
    pub const fn is_retired(&self) -> bool {
        self.kind == AddressKind::Retired.code() || self.kind == AddressKind::RetiredVip.code()
    }
}

/// A row of `ADDRESS_FILTER`: a bit for every address that falls on it.
///
/// Small enough to stay in the cache of every CPU, where `ADDRESSES` does not: a bit that is not set answers for most
/// packets. A set bit answers nothing; several addresses share it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FilterWord {
    /// Bits of all addresses.
    pub bits: u64,
    /// Of these, the bits of this node's own addresses.
    pub nodes: u64,
}

/// Where an address falls in `ADDRESS_FILTER`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FilterBit {
    /// Index of the row.
    pub word: u32,
    /// The bit in it.
    pub mask: u64,
}

impl FilterBit {
    /// The bit of an address.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a constant that fits")]
    pub const fn of(address: &Ip) -> Self {
        let ([a, b, c, d], _) = address.bytes.as_chunks::<4>() else {
            return Self { word: 0, mask: 1 };
        };
        let folded =
            u32::from_ne_bytes(*a) ^ u32::from_ne_bytes(*b) ^ u32::from_ne_bytes(*c) ^ u32::from_ne_bytes(*d);
        // A multiplicative hash (Knuth, 6.4), whose high bits are the good ones.
        let hash = folded.wrapping_mul(0x9e37_79b1) >> 16;
        Self {
            word: (hash >> 6) % limits::ADDRESS_FILTER as u32,
            mask: 1 << (hash & 63),
        }
    }
}

byte_enum! {
    /// What an address is to this node.
    pub enum AddressKind {
        /// A ClusterIP of a Service: every port of it belongs to weir.
        ClusterIp = 1,
        /// An address of one of this node's interfaces.
        Node = 2,
        /// A ClusterIP whose Service is gone but whose flows are not: new connections are rejected, old ones go on.
        Retired = 3,
        /// An address that others route to the nodes (a load balancer's, an external IP): the ports of its frontends belong
        /// to weir, the others are left to the host.
        Vip = 4,
        /// Such an address without frontends, but with flows: new connections are left to the host, old ones go on.
        RetiredVip = 5,
        /// A ClusterIP of a Service that another proxy serves: left to it.
        Elsewhere = 6,
        /// A loopback address of the host where its processes are served node ports, at the socket; packets are left alone.
        Loopback = 7,
    }
}

impl AddressKind {
    /// Whether every port belongs to weir, and clients are pods and nodes only.
    #[inline(always)]
    #[must_use]
    pub const fn is_cluster_ip(self) -> bool {
        matches!(self, Self::ClusterIp | Self::Retired)
    }
}
