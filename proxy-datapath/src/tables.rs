//! The only look-ups of the datapath: maps, the routing table, the clock.

use proxy_common::{
    Address, Affinity, AffinityKey, Backend, BackendState, Flow, FlowKey, Fragment, FragmentKey, Ip,
    LocalSources, NodeConfig, Reason, Service, ServiceCidrs, ServiceKey, Socket, SocketKey, SourceKey,
    SourceRange,
};

use crate::begin::Situation;
use crate::flow::Change;
use crate::scratch::Scratch;
use crate::select::{self, Pick};
use crate::snat::{Claim, Reach};
use crate::{begin, half_open, keep, sctp, snat};

/// The rows of the maps, and what the kernel knows. In the kernel these are helper calls; in tests, a few hash maps.
pub trait Tables {
    /// The node's configuration.
    fn config(&self) -> Option<NodeConfig>;
    /// Monotonic seconds.
    fn now(&self) -> u32;

    /// Whether an address can have a row at all: false is certain, and cheap to find out.
    fn may_know(&self, address: &Ip) -> bool;
    /// Whether an address can be one of this node's own: false is certain, and as cheap.
    fn may_be_node(&self, address: &Ip) -> bool;
    /// What an address is to this node.
    fn address(&self, address: &Ip) -> Option<Address>;
    /// The ranges that ClusterIPs are given out of.
    fn service_cidrs(&self) -> Option<&ServiceCidrs>;
    /// The ranges that pods have their addresses of.
    fn local_sources(&self) -> Option<&LocalSources>;
    /// The service of a frontend.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// The longest range of a service port that a source is in.
    fn source_range(&self, source: &SourceKey) -> Option<SourceRange>;
    /// Copies the backend in a slot to `backend`; false if there is no such slot.
    fn backend(&self, slot: u32, backend: &mut Backend) -> bool;
    /// How a backend fares.
    fn backend_state(&self, id: u32) -> Option<BackendState>;
    /// Counts a new flow to a backend.
    fn count_chosen(&self, id: u32);
    /// [`select::pick`], in the kernel as a function of its own.
    #[inline(always)]
    fn pick(&self, pick: &mut Pick) -> bool
    where
        Self: Sized,
    {
        select::pick(self, pick)
    }
    /// [`begin::choose`], in the kernel as a function of its own.
    #[inline(always)]
    fn choose(&self, at: &Situation, s: &mut Scratch) -> Result<(), Reason>
    where
        Self: Sized,
    {
        begin::choose(self, at, s)
    }
    /// Takes the next turn of a cursor: the number of turns taken before.
    fn advance(&self, cursor: u32) -> Option<u64>;

    /// Copies a client's row to `row`; false if it sticks to nobody.
    fn affinity(&self, key: &AffinityKey, row: &mut Affinity) -> bool;
    /// Has a client stick to a backend, if what was `seen` of its row, or that there was none, is still so. If not, false,
    /// and `row` is what another CPU wrote meanwhile.
    fn stick(&self, key: &AffinityKey, seen: Option<&Affinity>, row: &mut Affinity) -> bool;
    /// Copies a backend that clients may stick to to `backend`; false if it is not in this [`proxy_common::BackendSet`].
    fn affinity_backend(&self, id: u32, set: u32, backend: &mut Backend) -> bool;

    /// Copies a flow's row to `flow`; false if there is none.
    fn flow(&self, room: Room, key: &FlowKey, flow: &mut Flow) -> bool;
    /// Writes a new row; leaves one that exists alone.
    fn insert_flow(&self, room: Room, key: &FlowKey, flow: &Flow) -> Inserted;
    /// Writes a row, over another if one exists; false if the table takes none.
    fn put_flow(&self, room: Room, key: &FlowKey, flow: &Flow) -> bool;
    /// Sets when a row last saw a packet, and changes bits of its state, each for itself: what another CPU does to
    /// other bits meanwhile is kept. False if there is no such row.
    fn touch_flow(&self, room: Room, key: &FlowKey, last_seen: u32, change: Change) -> bool;
    /// Removes a row.
    fn remove_flow(&self, room: Room, key: &FlowKey);
    /// [`keep::keep`], in the kernel as a function of its own.
    #[inline(always)]
    fn keep(&self, from_backend: bool, now: u32, s: &mut Scratch) -> Result<(), Reason>
    where
        Self: Sized,
    {
        keep::keep(self, from_backend, now, s)
    }
    /// [`begin::write_rows`], in the kernel as a function of its own.
    #[inline(always)]
    fn write_rows(&self, config: &NodeConfig, now: u32, s: &mut Scratch) -> Result<Reason, Reason>
    where
        Self: Sized,
    {
        begin::write_rows(self, config, now, s)
    }
    /// [`snat::claim`], in the kernel as a function of its own.
    #[inline(always)]
    fn claim(&self, now: u32, reach: Reach, s: &mut Scratch) -> Claim
    where
        Self: Sized,
    {
        snat::claim(self, now, reach, s)
    }
    /// [`half_open::find`], in the kernel as a function of its own.
    #[inline(always)]
    fn find_half_open(&self, s: &mut Scratch) -> bool
    where
        Self: Sized,
    {
        half_open::find(self, s)
    }
    /// [`sctp::flags`], in the kernel as a function of its own.
    #[inline(always)]
    fn sctp_flags(&self, chunk: u8, tag: [u8; 4]) -> u8 {
        sctp::flags(chunk, tag)
    }
    /// [`sctp::abort`], in the kernel as a function of its own.
    #[inline(always)]
    fn abort_sctp(&self, is_known: bool, s: &mut Scratch) -> bool {
        sctp::abort(is_known, s)
    }
    /// Whether an answer from this port can belong to a half-open flow: false is certain, and cheap to find out.
    fn may_be_half_open(&self, port: u16) -> bool;

    /// The ports of a fragmented datagram.
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment>;
    /// Remembers the ports of a fragmented datagram.
    fn put_fragment(&self, key: &FragmentKey, fragment: &Fragment);

    /// What a socket was told.
    fn socket(&self, key: &SocketKey) -> Option<Socket>;
    /// Remembers what a socket is told.
    fn put_socket(&self, key: &SocketKey, socket: &Socket);
    /// Whether a socket can have been given a backend at this port: false is certain, and cheap to find out.
    fn was_given(&self, port: u16) -> bool;
    /// Remembers that one is.
    fn note_given(&self, port: u16);
    /// Whether a socket that sends from this port may talk to a backend past the packet path.
    fn is_shared(&self, port: u16) -> bool;
    /// Remembers that one does.
    fn share(&self, port: u16);

    /// Where a packet would leave this node.
    fn route(&self, query: &RouteQuery, route: &mut Route) -> RouteResult;
}

/// Which table a flow's rows are in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// `FLOWS`.
    Established,
    /// `HALF_OPEN`.
    HalfOpen,
}

/// What became of a row that must not replace another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// It is written.
    Yes,
    /// Another row stands there.
    Exists,
    /// The table takes none.
    Full,
}

/// A question to the routing table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteQuery {
    /// Where the packet came in.
    pub interface: u32,
    /// Where it shall go.
    pub destination: Ip,
    /// Its length from the IP header on, of one segment if it will be cut into several.
    pub length: u16,
}

/// An answer of the routing table.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// Where packets to there leave.
    pub interface: u32,
    /// The link's MTU, if the packet is too big for it.
    pub mtu: u32,
    /// Whom to hand them to: the destination itself, or a gateway.
    pub next_hop: Ip,
    /// The address that this node has on the way.
    pub source: Ip,
}

/// How a question to the routing table ended.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteResult {
    /// There is a route.
    Found,
    /// There is a route, but the packet is too big for it; `mtu` is set.
    TooBig,
    /// There is none.
    None,
}
