//! `SERVICES`, `CURSORS` and `SERVICE_NAMES`: a frontend, whose turn it is, and what people call it.

use core::ops::RangeInclusive;

use crate::backend::BackendRange;
use crate::layout::byte_enum;
use crate::net::Ip;

/// Key of `SERVICES`: one row per frontend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ServiceKey {
    /// The virtual address; [`Ip::UNSPECIFIED`] for a node port, which is served on many addresses.
    pub address: Ip,
    /// Port, host order.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`Scope`].
    pub scope: u8,
}

impl ServiceKey {
    /// Every key at an address, for a map that is in order.
    #[must_use]
    pub const fn all_at(address: Ip) -> RangeInclusive<Self> {
        let first = Self {
            address,
            port: 0,
            protocol: 0,
            scope: 0,
        };
        let last = Self {
            address,
            port: u16::MAX,
            protocol: u8::MAX,
            scope: u8::MAX,
        };
        RangeInclusive::new(first, last)
    }
}

byte_enum! {
    /// Which addresses a frontend key stands for.
    pub enum Scope {
        /// The address in the key.
        Address = 0,
        /// IPv4 addresses of the node that serve node ports; the key's address is unspecified.
        NodePortV4 = 4,
        /// IPv6 addresses of the node that serve node ports; the key's address is unspecified.
        NodePortV6 = 6,
    }
}

/// A row of `SERVICES`: who answers for a frontend.
///
/// Replacing this row is the one publish point of a change: a packet sees the old set of backends or the new one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Index into `CURSORS` (× class) and key of `SERVICE_NAMES`; the same for all frontends of a service port.
    pub id: u32,
    /// Counts reuses of `id`.
    pub generation: u32,
    /// Usable backends anywhere in the cluster.
    pub cluster: BackendRange,
    /// Usable backends on this node.
    pub local: BackendRange,
    /// Seconds for which a client sticks to its backend after its last new connection; 0 if it does not.
    pub affinity_timeout: u32,
    /// An [`Algorithm`].
    pub algorithm: u8,
    /// A [`FrontendKind`].
    pub kind: u8,
    /// A [`TrafficPolicy`].
    pub policy: u8,
    /// The sum of its [`FrontendFlag`]s.
    pub flags: u8,
}

impl Service {
    /// Whether the frontend has this flag.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: FrontendFlag) -> bool {
        self.flags & flag.code() != 0
    }
}

byte_enum! {
    /// What is unusual about a frontend. A pod's socket is not given a backend where there is any: it may not have an address
    /// yet, which all of these are about.
    pub enum FrontendFlag {
        /// Only sources in `SOURCE_RANGES` may use it.
        Guarded = 1,
        /// Backends see this node, not the client.
        Masqueraded = 2,
    }
}

byte_enum! {
    /// How a backend is picked for a new flow.
    pub enum Algorithm {
        /// Each backend in turn.
        RoundRobin = 0,
    }
}

byte_enum! {
    /// Where a frontend comes from in the Service object.
    pub enum FrontendKind {
        /// `spec.clusterIPs`: for clients of the cluster only.
        ClusterIp = 1,
        /// `spec.ports[].nodePort`: for everybody.
        NodePort = 2,
        /// `status.loadBalancer.ingress[].ip`: for those whom `loadBalancerSourceRanges` lets in.
        LoadBalancer = 3,
        /// `spec.externalIPs`: for everybody.
        ExternalIp = 4,
    }
}

byte_enum! {
    /// `internalTrafficPolicy` (ClusterIP) or `externalTrafficPolicy` (all other frontends).
    pub enum TrafficPolicy {
        /// All usable backends.
        Cluster = 0,
        /// Only backends on this node; none here means that the packet is dropped (KEP-2086).
        Local = 1,
    }
}

/// A row of `CURSORS`: whose turn it is. One cache line, so that two busy services do not share one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// Flows started so far, plus a random start; backend = `next % count`.
    pub next: u64,
    /// Always zero: the rest of the cache line.
    pub reserved: [u64; 7],
}

/// A row of `SERVICE_NAMES`, keyed by service id: what people call a service port.
///
/// Each text is a DNS label of at most 63 bytes, as the API has them (only the names of container ports are shorter),
/// padded with zeros, of which there is always one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: [u8; 64],
    /// Name of the Service.
    pub name: [u8; 64],
    /// Name of the port; empty if the Service has one unnamed port.
    pub port_name: [u8; 64],
    /// Counts reuses of the id.
    pub generation: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6: the family whose endpoints this service port has.
    pub family: u8,
    /// Always zero.
    pub reserved: u16,
}
