//! What both sides of weir share: the layout of the pinned maps, and nothing else.
//!
//! Every row is `repr(C)`, has no padding, no `bool`, no `Option` and no enum with data, because two compilers
//! build the two sides. Addresses are 16 bytes in network order (IPv4 is v4-mapped), ports are host-order numbers,
//! so that `bpftool map dump pinned` prints rows that a person can read. `docs/maps.md` lists every map with its
//! writer, readers, life cycle, and what happens when it is full.

#![no_std]

pub mod address;
pub mod affinity;
pub mod backend;
pub mod config;
pub mod event;
pub mod flow;
pub mod layout;
pub mod local_sources;
pub mod net;
pub mod object;
pub mod service;
pub mod service_cidr;
pub mod socket;
pub mod source_range;

pub use address::{Address, AddressKind, FilterBit, FilterWord};
pub use affinity::{Affinity, AffinityBackend, AffinityKey, BackendSet};
pub use backend::{Backend, BackendRange, BackendState};
pub use config::{Clock, Meta, MonitorLease, NodeConfig};
pub use event::{Event, EventKind, Reason};
pub use flow::{
    Direction, Flow, FlowBit, FlowKey, FlowState, Fragment, FragmentKey, Hook, InterfaceUse, Nat,
};
pub use layout::ABI_VERSION;
pub use local_sources::LocalSources;
pub use net::{Be16, Ip, Protocol};
pub use service::{
    Algorithm, Cursor, FrontendFlag, FrontendKind, Scope, Service, ServiceKey, ServiceName, TrafficPolicy,
};
pub use service_cidr::{Cidr, ServiceCidrs};
pub use socket::{PortBit, PortWord, Socket, SocketKey};
pub use source_range::{SourceKey, SourceRange};

/// Names of the pinned maps, one place for both sides.
pub mod maps {
    /// Address → what the address is to this node.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// A bit for each address in `ADDRESSES`: the look-up before the look-up.
    pub const ADDRESS_FILTER: &str = "ADDRESS_FILTER";
    /// Ranges that ClusterIPs are given out of, one row.
    pub const SERVICE_CIDRS: &str = "SERVICE_CIDRS";
    /// Ranges that pods have their addresses of, one row.
    pub const LOCAL_SOURCES: &str = "LOCAL_SOURCES";
    /// Frontend → service and its backend ranges: the publish point of every change.
    pub const SERVICES: &str = "SERVICES";
    /// Slot → backend address; a service's backends are one contiguous slab.
    pub const BACKENDS: &str = "BACKENDS";
    /// Backend id → generation, whether it serves, and how often it was chosen.
    pub const BACKEND_STATE: &str = "BACKEND_STATE";
    /// Service id × class → round-robin cursor.
    pub const CURSORS: &str = "CURSORS";
    /// Service id × range of sources → whether they may use its load balancer's addresses.
    pub const SOURCE_RANGES: &str = "SOURCE_RANGES";
    /// Service id → namespace, name and port name.
    pub const SERVICE_NAMES: &str = "SERVICE_NAMES";
    /// Client × service port → the backend that it sticks to.
    pub const AFFINITY: &str = "AFFINITY";
    /// Backend id → the backend, if clients may stick to it.
    pub const AFFINITY_BACKENDS: &str = "AFFINITY_BACKENDS";
    /// Five-tuple × hook → translation of one connection.
    pub const FLOWS: &str = "FLOWS";
    /// The same for connections that are not established: they have their own room.
    pub const HALF_OPEN: &str = "HALF_OPEN";
    /// Port → whether a backend at such a port was given a connection by packets: the look-up before `HALF_OPEN`.
    pub const HALF_OPEN_PORTS: &str = "HALF_OPEN_PORTS";
    /// Interface → whether flows of the packet path came by it.
    pub const INTERFACE_FLOWS: &str = "INTERFACE_FLOWS";
    /// IP fragment → ports of the datagram it belongs to.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Socket cookie × address → what the socket hook translated.
    pub const SOCKETS: &str = "SOCKETS";
    /// Port → whether a socket was given a backend at such a port: the look-up before `SOCKETS`.
    pub const BACKEND_PORTS: &str = "BACKEND_PORTS";
    /// Source port → whether a socket sends from it to one backend by both paths.
    pub const SHARED_PORTS: &str = "SHARED_PORTS";
    /// The node's configuration, one row.
    pub const CONFIG: &str = "CONFIG";
    /// ABI version and clock source, one row.
    pub const META: &str = "META";
    /// Until when somebody listens to `EVENTS`, one row.
    pub const MONITOR: &str = "MONITOR";
    /// Ring buffer of new flows, drops and rejects, filled while a monitor listens.
    pub const EVENTS: &str = "EVENTS";
    /// Reason → packets, per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// Working memory of the packet programs, per CPU; not pinned.
    pub const SCRATCH: &str = "SCRATCH";
    /// What each CPU was last told about the time; not pinned.
    pub const CLOCK: &str = "CLOCK";

    /// Every map that is pinned by name, in the order in which documents list them.
    pub const PINNED: [&str; 25] = [
        ADDRESSES,
        ADDRESS_FILTER,
        SERVICE_CIDRS,
        LOCAL_SOURCES,
        SERVICES,
        BACKENDS,
        BACKEND_STATE,
        CURSORS,
        SOURCE_RANGES,
        SERVICE_NAMES,
        AFFINITY,
        AFFINITY_BACKENDS,
        FLOWS,
        HALF_OPEN,
        HALF_OPEN_PORTS,
        INTERFACE_FLOWS,
        FRAGMENTS,
        SOCKETS,
        BACKEND_PORTS,
        SHARED_PORTS,
        CONFIG,
        META,
        MONITOR,
        EVENTS,
        COUNTERS,
    ];
}

/// Map sizes, in rows.
pub mod limits {
    /// Addresses that this node must look at: ClusterIPs, VIPs and its own.
    pub const ADDRESSES: usize = 1 << 17;
    /// Words of 64 bits.
    pub const ADDRESS_FILTER: usize = 1 << 10;
    /// Interfaces that are told apart.
    pub const INTERFACES: usize = 1 << 10;
    /// Frontends.
    pub const SERVICES: usize = 1 << 17;
    /// Backend slots over all slabs, old and new ones of a change included.
    pub const BACKENDS: usize = 1 << 18;
    /// Distinct (service port, endpoint) pairs.
    pub const BACKEND_STATE: usize = 1 << 18;
    /// Service ports; ids are below this.
    pub const SERVICE_IDS: usize = 1 << 16;
    /// Cursors: one per service id and class (cluster, local).
    pub const CURSORS: usize = SERVICE_IDS * 2;
    /// Ranges of sources that are let in, of all service ports together.
    pub const SOURCE_RANGES: usize = 1 << 16;
    /// Clients that stick to a backend: one row for each service port that they use.
    pub const AFFINITY: usize = 1 << 17;
    /// Flow rows: two for a connection, one for each direction.
    pub const FLOWS: usize = 1 << 17;
    /// Flow rows of connections that are not established, two each: at 100,000 SYN/s, a client has a sixth of a second
    /// to answer. Fewer than there are source ports for one backend, so that a flood cannot take them all.
    pub const HALF_OPEN: usize = 1 << 15;
    /// Fragmented datagrams in flight.
    pub const FRAGMENTS: usize = 1 << 12;
    /// Rows of translated sockets.
    pub const SOCKETS: usize = 1 << 16;
    /// Words of 64 bits, for all ports.
    pub const PORT_WORDS: usize = 1 << 10;
    /// Bytes of the event ring.
    pub const EVENT_BYTES: usize = 1 << 20;
}
