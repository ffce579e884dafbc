//! Steps: what the agent does to the kernel's maps, as data.
//!
//! Each step is idempotent: doing it twice is doing it once, and deleting a missing row is success. So a retry is
//! always safe. The order within a plan is the correctness of a live update:
//!
//! ```text
//! backend states ─▶ slots of a new slab ─▶ name ─▶ cursors ─▶ SERVICES rows ─▶ backends retired ─▶ addresses ─▶ names gone
//!                   and who may be stuck to                     └ publish point   and not stuck to
//! ```
//!
//! Source ranges that are let in come before that point, and those that are not any more go after it.

use proxy_common::{
    Address, AffinityBackend, Backend, Ip, LocalSources, Service, ServiceCidrs, ServiceKey, ServiceName,
};

use crate::node_ports::Prefix;

/// One write to the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// `BACKEND_STATE[id]` = this generation, serving, never chosen. Only for an id given out anew.
    PutBackendState {
        /// Backend id.
        id: u32,
        /// Its generation.
        generation: u32,
    },
    /// `BACKENDS[slot]` = this backend. No published row refers to the slot yet.
    PutBackend {
        /// Slot.
        slot: u32,
        /// Row.
        backend: Backend,
    },
    /// `AFFINITY_BACKENDS[row.backend.id]` = this row. The backend's state is written already.
    PutAffinityBackend {
        /// Row.
        row: AffinityBackend,
    },
    /// `SERVICE_NAMES[id]` = this name.
    PutName {
        /// Service id.
        id: u32,
        /// Row.
        name: ServiceName,
    },
    /// `CURSORS[index].next` = this start. Only for a service id given out anew; a cursor is never reset.
    PutCursor {
        /// Service id × 2 + class (0 cluster, 1 local).
        index: u32,
        /// Where to start.
        next: u64,
    },
    /// `SERVICES[key]` = this row: the publish point.
    PutService {
        /// Frontend.
        key: ServiceKey,
        /// Row.
        service: Service,
    },
    /// `SOURCE_RANGES[id, range]` = this generation: these sources are let in.
    PutSourceRange {
        /// Service id.
        id: u32,
        /// Its generation.
        generation: u32,
        /// The sources.
        range: Prefix,
    },
    /// `ADDRESSES[address]` = this row.
    PutAddress {
        /// Address.
        address: Ip,
        /// Row.
        row: Address,
    },
    /// `CONFIG.node_port_first..=node_port_last`; 1 and 0 if there is none.
    PutNodePorts {
        /// Lowest node port in use.
        first: u16,
        /// Highest node port in use.
        last: u16,
    },
    /// `SERVICE_CIDRS` = this row.
    PutServiceCidrs {
        /// Row.
        row: ServiceCidrs,
    },
    /// `LOCAL_SOURCES` = this row.
    PutLocalSources {
        /// Row.
        row: LocalSources,
    },
    /// The frontend is gone.
    DeleteService {
        /// Frontend.
        key: ServiceKey,
    },
    /// `BACKEND_STATE[id].serving` = 0, everything else as it is.
    RetireBackend {
        /// Backend id.
        id: u32,
    },
    /// No client may stick to the backend any more.
    DeleteAffinityBackend {
        /// Backend id.
        id: u32,
    },
    /// The address is none of weir's any more.
    DeleteAddress {
        /// Address.
        address: Ip,
    },
    /// These sources are not let in any more, or the guarded frontends are gone.
    DeleteSourceRange {
        /// Service id.
        id: u32,
        /// The sources.
        range: Prefix,
    },
    /// The service id is free.
    DeleteName {
        /// Service id.
        id: u32,
    },
}
