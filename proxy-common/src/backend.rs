//! `BACKENDS` and `BACKEND_STATE`: where a connection can go, and how each place fares.

use crate::net::Ip;

/// A row of `BACKENDS`, keyed by slot. The backends of a service port are one contiguous slab, local ones first.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backend {
    /// Address of the endpoint.
    pub address: Ip,
    /// Port, host order.
    pub port: u16,
    /// 1 if the endpoint is on this node.
    pub local: u8,
    /// Always zero.
    pub reserved: u8,
    /// Key of `BACKEND_STATE`; stays with the (service port, endpoint) pair while slots move.
    pub id: u32,
    /// Counts reuses of `id`.
    pub generation: u32,
    /// Id of the service port. Only a starting agent reads it: a slot that nobody refers to may hold a backend that is
    /// leaving, and this says whose.
    pub service: u32,
}

/// A run of slots in `BACKENDS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BackendRange {
    /// First slot.
    pub base: u32,
    /// Number of slots.
    pub count: u32,
}

/// A row of `BACKEND_STATE`, keyed by backend id.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendState {
    /// New flows sent to this backend since the id was given out.
    pub chosen: u64,
    /// Counts reuses of the id: a flow with another generation belongs to a backend that is gone.
    pub generation: u32,
    /// 1 while the endpoint takes part in its service.
    pub serving: u32,
}
