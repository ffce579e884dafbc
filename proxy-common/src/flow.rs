//! `FLOWS`, `HALF_OPEN` and `FRAGMENTS`: what was decided for a connection, so that it is decided once.

use crate::layout::byte_enum;
use crate::limits;
use crate::net::Ip;

/// Key of `FLOWS` and `HALF_OPEN`: the five-tuple of a packet as it arrives, and at which hook.
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

/// A row of `FLOWS` or `HALF_OPEN`: the whole translation of one connection.
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
    /// The sum of the [`FlowBit`]s that the connection has shown; 0 is a new one.
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

impl Direction {
    /// The way back.
    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::ToService => Self::FromBackend,
            Self::FromBackend => Self::ToService,
        }
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
    /// A bit of a flow's state: what one side has shown.
    ///
    /// What is said of TCP is true of SCTP, by the chunks that mean the same (INIT is a SYN, ABORT a RST).
    ///
    /// Bits, because both sides can show something at once, on two CPUs: each sets its own and neither is lost. And
    /// because what was no end after all can be taken back.
    pub enum FlowBit {
        /// TCP: the client acknowledged the handshake. UDP: the backend answered.
        Established = 1,
        /// TCP: the client sent FIN.
        ClientFin = 2,
        /// TCP: the backend sent FIN.
        BackendFin = 4,
        /// TCP: the client sent RST, and nothing since.
        ClientReset = 8,
        /// TCP: the backend sent RST, and nothing since.
        BackendReset = 16,
        /// TCP: the client sent something to a backend that does not take part in its service any more, and the backend
        /// nothing since. The time of the row for answers is then that of the first such packet.
        Unanswered = 32,
        /// TCP: the backend answered the SYN. Only then can the client acknowledge the handshake.
        Answered = 64,
    }
}

/// How far a connection is: what its [`FlowBit`]s mean together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FlowState {
    /// TCP: SYN seen, no more. UDP: nothing came back yet.
    New,
    /// Packets went in both directions.
    Established,
    /// TCP: the client sent FIN.
    ClientClosed,
    /// TCP: the backend sent FIN.
    BackendClosed,
    /// TCP: FIN in both directions: the next SYN is a new connection.
    Closed,
    /// TCP: RST from either side: the next SYN is a new connection, but the RST may have been nobody's.
    Reset,
}

impl FlowState {
    /// What a row's bits mean.
    #[inline(always)]
    pub const fn of(bits: u8) -> Self {
        const CLIENT: u8 = FlowBit::ClientFin.code();
        const BACKEND: u8 = FlowBit::BackendFin.code();
        const BOTH: u8 = CLIENT | BACKEND;
        match bits & BOTH {
            BOTH => Self::Closed,
            _ if bits & (FlowBit::ClientReset.code() | FlowBit::BackendReset.code()) != 0 => Self::Reset,
            CLIENT => Self::ClientClosed,
            BACKEND => Self::BackendClosed,
            _ if bits & FlowBit::Established.code() != 0 => Self::Established,
            _ => Self::New,
        }
    }

    /// The name as it stands here.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::Established => "Established",
            Self::ClientClosed => "ClientClosed",
            Self::BackendClosed => "BackendClosed",
            Self::Closed => "Closed",
            Self::Reset => "Reset",
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_together_have_a_name() {
        use FlowBit::{BackendFin, BackendReset, ClientFin, ClientReset, Established};
        for (bits, name) in [
            (&[][..], "New"),
            (&[Established], "Established"),
            (&[ClientFin], "ClientClosed"),
            (&[Established, ClientFin], "ClientClosed"),
            (&[Established, BackendFin], "BackendClosed"),
            (&[Established, ClientFin, BackendFin], "Closed"),
            (&[FlowBit::Answered], "New"),
            (
                &[FlowBit::Answered, Established, FlowBit::Unanswered],
                "Established",
            ),
            (&[ClientReset], "Reset"),
            (&[Established, BackendFin, BackendReset], "Reset"),
            (&[ClientFin, BackendFin, ClientReset], "Closed"),
        ] {
            let state = bits.iter().fold(0, |state, bit| state | bit.code());
            assert_eq!(FlowState::of(state).name(), name, "{bits:?}");
        }
    }
}
