//! Picks the backend for a new flow.
//!
//! ```text
//! policy ─▶ range of slots ─▶ cursor, one turn ─▶ slot ─▶ backend
//! ```
//!
//! The cursor is shared by all CPUs, all frontends of the service port and both paths (packets and sockets), so the
//! count per backend is exact and not just right on average.

use proxy_common::{Backend, BackendRange, FrontendKind, Reason, Service, TrafficPolicy};

use crate::tables::Tables;

/// Picks a backend; a [`Reason`] says why there is none.
///
/// `outside` is a client that is neither a pod of this node nor the node itself: to the others a node port, a load
/// balancer's address or an external IP with `externalTrafficPolicy: Local` offers all backends, as kube-proxy does.
#[inline(always)]
pub fn backend(tables: &impl Tables, service: &Service, outside: bool) -> Result<Backend, Reason> {
    if service.cluster.count == 0 && service.local.count == 0 {
        return Err(Reason::RejectNoEndpoints);
    }
    let (range, class) = range(service, outside);
    // Zero is a range without backends here, which policy Local makes of a service that has them elsewhere.
    if range.count == 0 {
        return Err(Reason::DropNoLocalEndpoints);
    }
    let cursor = service.id.wrapping_mul(2).wrapping_add(class);
    let Some(turn) = tables.advance(cursor) else {
        return Err(Reason::DropBackendMissing);
    };
    let Some(index) = turn.checked_rem(u64::from(range.count)) else {
        return Err(Reason::DropBackendMissing);
    };
    let slot = range.base.wrapping_add((index & 0xffff_ffff) as u32);
    // A slot that nobody wrote is there all the same in an array, and all zero.
    tables
        .backend(slot)
        .filter(|backend| backend.port != 0)
        .ok_or(Reason::DropBackendMissing)
}

/// The slots to choose from, and the class of the cursor that goes with them.
#[inline(always)]
const fn range(service: &Service, outside: bool) -> (BackendRange, u32) {
    let short_circuit = service.kind != FrontendKind::ClusterIp.code() && !outside;
    if service.policy == TrafficPolicy::Local.code() && !short_circuit {
        (service.local, 1)
    } else {
        (service.cluster, 0)
    }
}

/// Whether the backend of an earlier choice still takes part in its service.
#[inline(always)]
pub fn still_serving(tables: &impl Tables, id: u32, generation: u32) -> bool {
    match tables.backend_state(id) {
        Some(state) => state.generation == generation && state.serving != 0,
        None => false,
    }
}
