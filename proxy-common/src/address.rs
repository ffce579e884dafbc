//! `ADDRESSES`: the first question asked of every packet.

use crate::layout::byte_enum;

/// A row of `ADDRESSES`: what an address is to this node.
///
/// The map is the cheap first test: a destination without a row is none of weir's business.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Address {
    /// An [`AddressKind`].
    pub kind: u8,
    /// 1 if node ports are served on this address.
    pub node_ports: u8,
    /// Always zero.
    pub reserved: u16,
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
    }
}
