//! `FLOWS` and `FRAGMENTS`: what was decided for a connection, so that it is decided once.

use crate::layout::byte_enum;
use crate::limits;
use crate::net::Ip;

/// Key of `FLOWS`: the five-tuple of a packet as it arrives, and at which hook.
///
/// The hook keeps the rule that a flow is translated back where it was translated: a packet that passes other
/// interfaces with the same addresses does not match there.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct FlowKey {
    /// Source address.
    pub source: Ip,
    /// Destination address.
    pub destination: Ip,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// Always zero.
    pub reserved: u16,
}

byte_enum! {
    /// Where a packet is met.
    pub enum Hook {
        /// Entering the node's stack from an interface.
        Ingress = 0,
        /// Leaving the node's stack to an interface.
        Egress = 1,
    }
}

/// A row of `FLOWS`: the whole translation of one connection.
///
/// A connection has two rows with the same four endpoints, one found by packets to the service and one by packets
/// from the backend. Either can rebuild the other, so that an evicted half heals with the next packet.
///
/// ```text
///  client ──▶ frontend   becomes   source ──▶ backend     (direction ToService)
///  client ◀── frontend   becomes   source ◀── backend     (direction FromBackend)
/// ```
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// Who asked.
    pub client: Ip,
    /// What was asked for.
    pub frontend: Ip,
    /// Who the backend sees: the client, unless `nat` says otherwise.
    pub source: Ip,
    /// Who answers.
    pub backend: Ip,
    /// Port of the client, host order.
    pub client_port: u16,
    /// Port of the frontend, host order.
    pub frontend_port: u16,
    /// Port that the backend sees, host order.
    pub source_port: u16,
    /// Port of the backend, host order.
    pub backend_port: u16,
    /// Id of the service port.
    pub service: u32,
    /// Key of `BACKEND_STATE`.
    pub backend_id: u32,
    /// Generation of `backend_id` when the flow was made.
    pub backend_generation: u32,
    /// Interface at which the client's packets come in.
    pub interface: u32,
    /// Monotonic seconds of the last packet that this row saw.
    pub last_seen: u32,
    /// A [`FlowState`].
    pub state: u8,
    /// A [`Direction`]: which packets find this row.
    pub direction: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`Nat`].
    pub nat: u8,
}

byte_enum! {
    /// Which packets find a flow row.
    pub enum Direction {
        /// From the client to the service.
        ToService = 0,
        /// From the backend to the client.
        FromBackend = 1,
    }
}

byte_enum! {
    /// What is rewritten on the way to the backend.
    pub enum Nat {
        /// The destination. Answers are met again at the client's interface, on egress.
        Destination = 0,
        /// The destination, and the source port, because another flow has the tuple already.
        SourcePort = 1,
        /// The destination, and the source address and port: answers come back to this node and are met on ingress.
        Source = 2,
    }
}

byte_enum! {
    /// How far a connection is.
    pub enum FlowState {
        /// TCP: SYN seen, no more. UDP: nothing came back yet.
        New = 0,
        /// Packets went in both directions.
        Established = 1,
        /// TCP: the client sent FIN.
        ClientClosed = 2,
        /// TCP: the backend sent FIN.
        BackendClosed = 3,
        /// TCP: FIN in both directions, or RST: the next SYN is a new connection.
        Closed = 4,
    }
}

/// A row of `INTERFACE_FLOWS`: whether answers at an interface can belong to a flow of the packet path at all.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InterfaceUse {
    /// Monotonic seconds of the last flow that was made or seen here; 0 if there is none.
    pub last_flow: u32,
}

impl InterfaceUse {
    /// The row of all uplinks together: an answer may leave by another uplink than its question came by.
    pub const UPLINKS: u32 = 0;

    /// The row of an interface. Two interfaces may share one, which costs time and nothing else.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a constant that fits")]
    pub const fn row(interface: u32) -> u32 {
        interface % limits::INTERFACES as u32
    }
}

/// Key of `FRAGMENTS`: what all fragments of a datagram have in common (RFC 791, RFC 8200 4.5), and where they pass.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragmentKey {
    /// Source address.
    pub source: Ip,
    /// Destination address.
    pub destination: Ip,
    /// Identification, host order.
    pub id: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// Always zero.
    pub reserved: u16,
}

/// A row of `FRAGMENTS`: the ports, which only the first fragment carries.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// Monotonic seconds of the first fragment.
    pub seen: u32,
}
