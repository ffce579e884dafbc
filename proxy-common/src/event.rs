//! `COUNTERS` and `EVENTS`: why a packet went where it went.

use crate::layout::byte_enum;
use crate::net::Ip;

byte_enum! {
    /// Why a packet was passed, translated, rejected or dropped: index into `COUNTERS`.
    ///
    /// A packet for an address that is none of weir's is not counted: it is not looked at any further.
    pub enum Reason {
        /// A new flow was made.
        NewFlow = 0,
        /// A packet of a known flow, towards the backend.
        Forward = 1,
        /// A packet of a known flow, towards the client.
        Reverse = 2,
        /// An ICMP error about a known flow was translated.
        IcmpError = 3,
        /// A later fragment of a datagram was translated.
        Fragment = 4,
        /// A `connect` or `sendmsg` was given a backend.
        SocketTranslated = 5,

        /// Passed: to an address of this node, but to no frontend.
        PassNotFrontend = 16,
        /// Passed: neither TCP, UDP nor SCTP, to an address of this node; or ICMP to a ClusterIP (echo, for example).
        PassProtocol = 17,
        /// Passed: a header that cannot be read, to no address of weir's.
        PassMalformed = 18,

        /// Rejected: the service has no endpoints.
        RejectNoEndpoints = 32,
        /// Rejected: the ClusterIP has no such port.
        RejectUndefinedPort = 33,
        /// Rejected: a TCP or SCTP packet in mid-stream whose flow is not known, so its backend is not either.
        RejectUnknownFlow = 34,
        /// Answered with "fragmentation needed" or "packet too big": does not fit the way to the backend.
        RejectTooBig = 35,
        /// Answered with "time exceeded": has come too far to be sent on to another node, or from a pod to itself.
        RejectHopLimit = 36,
        /// Rejected: a TCP connection or SCTP association whose backend left its service and does not answer any more.
        RejectGoneBackend = 37,

        /// Dropped: traffic policy Local, and no endpoint on this node.
        DropNoLocalEndpoints = 48,
        /// Dropped: a header to one of weir's addresses cannot be read.
        DropMalformed = 49,
        /// Dropped: a later fragment came before the first, or its first was never seen.
        DropFragment = 50,
        /// Dropped: no source port is free for the flow.
        DropSnatPorts = 51,
        /// Dropped: no route to the backend or back to the client.
        DropNoRoute = 52,
        /// Dropped: the flow table took no row.
        DropFlowTable = 53,
        /// Dropped: the backend's row is missing.
        DropBackendMissing = 54,
        /// Dropped: a RST, an ABORT or HEARTBEAT of SCTP, or an ICMP error of no known flow, which nothing may answer.
        DropUnanswerable = 55,
        /// Dropped: the kernel refused the rewrite.
        DropRewrite = 56,
        /// Dropped: the node has not been configured.
        DropNoConfig = 57,
        /// Dropped: from outside to a ClusterIP, which is for clients of the cluster only.
        DropExternalToClusterIp = 58,
        /// Dropped: to a ClusterIP, by a protocol that weir does not serve.
        DropProtocol = 59,
        /// Dropped: `loadBalancerSourceRanges` does not let this source use a load balancer's address.
        DropSourceRange = 60,
        /// Dropped: to a ClusterIP that no Service has.
        DropUnallocated = 61,
        /// Dropped: nobody can have this source address: a loopback's, a group's, nobody's, or a ClusterIP.
        DropForgedSource = 62,
        /// Dropped: a fragment of an SCTP packet whose ports would have to change, and with them a checksum over all fragments.
        DropSctpFragment = 63,
    }
}

impl Reason {
    /// Rows of `COUNTERS`.
    pub const COUNT: usize = 64;
}

/// A record of `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time: u64,
    /// Who asked.
    pub client: Ip,
    /// What was asked for.
    pub frontend: Ip,
    /// Who answers; unspecified if nobody does.
    pub backend: Ip,
    /// Port of the client, host order.
    pub client_port: u16,
    /// Port of the frontend, host order.
    pub frontend_port: u16,
    /// Port of the backend, host order.
    pub backend_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// An [`EventKind`].
    pub kind: u8,
    /// Id of the service port; `u32::MAX` if none.
    pub service: u32,
    /// Interface; 0 at the socket hook.
    pub interface: u32,
    /// A [`Reason`].
    pub reason: u8,
    /// Always zero.
    pub reserved: [u8; 7],
}

byte_enum! {
    /// What an event tells.
    pub enum EventKind {
        /// A new flow on the packet path.
        Flow = 0,
        /// A socket was given a backend.
        Socket = 1,
        /// A packet or a socket was rejected.
        Reject = 2,
        /// A packet was dropped.
        Drop = 3,
    }
}
