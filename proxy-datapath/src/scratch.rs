//! Working memory of one packet.
//!
//! A kernel program has 512 bytes of stack for its whole call chain: two keys and two flows do not fit beside the
//! rest. So what is large lives here: one row per CPU in the kernel, a local variable in tests.

use proxy_common::{Flow, FlowKey, FragmentKey, Ip, ServiceKey};

use crate::parse::Parsed;
use crate::reply::Reply;
use crate::rewrite::Edits;
use crate::sctp::Header;
use crate::select::Pick;
use crate::tables::Route;

/// Where a packet is met: what is known before its first byte is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Index of the interface.
    pub interface: u32,
    /// Whether the interface leads out of the node's pods: an uplink or an overlay device.
    pub uplink: bool,
    /// Whether what is behind the interface is on this node but no pod, as the operator says it (`--detect-local-mode`).
    pub guest: bool,
    /// Whether packets have an Ethernet header here.
    pub ethernet: bool,
}

/// The working memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Scratch {
    // What every packet of a known flow touches comes first, and together: each line of cache counts.
    /// The packet's five-tuple. For an ICMP error: that of the packet it complains about, turned round, because it
    /// travels like an answer to that packet.
    pub key: FlowKey,
    /// What the headers say.
    pub packet: Parsed,
    /// The flow that is found or made.
    pub flow: Flow,
    /// What is to be changed in the packet.
    pub edits: Edits,
    /// The key of the other row of a flow.
    pub other: FlowKey,
    /// A row that stands where another is wanted.
    pub found: Flow,
    /// The frontend that is asked for.
    pub service_key: ServiceKey,
    /// How the backend of a new flow is picked.
    pub pick: Pick,
    /// 1 if the backend of a new flow shall see this node, wherever it is.
    pub masquerade: u32,
    /// The datagram that a fragment belongs to.
    pub fragment_key: FragmentKey,
    /// Source address on the outermost header.
    pub outer_source: Ip,
    /// Destination address on the outermost header.
    pub outer_destination: Ip,
    /// Where to send the packet, if not on through the stack.
    pub route: Route,
    /// What is sent back instead of the packet.
    pub reply: Reply,
    /// What else is read of an SCTP packet.
    pub sctp: Header,
}
