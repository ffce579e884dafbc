//! Picks the backend for a new flow.
//!
//! ```text
//! policy ─▶ range of slots ─▶ cursor, one turn ─▶ slot ─▶ backend
//!                  ╰─▶ the backend that the client sticks to (affinity.rs) ╯
//! ```
//!
//! The cursor is shared by all CPUs, all frontends of the service port and both paths (packets and sockets), so the
//! count per backend is exact and not just right on average.

use core::hint::black_box;

use proxy_common::{
    Affinity, AffinityKey, Backend, BackendRange, BackendSet, FrontendKind, Ip, Reason, Service,
    TrafficPolicy,
};

use crate::affinity;
use crate::tables::Tables;

/// A choice: for whom, and whom it falls on.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Pick {
    /// The backend that was picked.
    pub backend: Backend,
    /// The client, as affinity knows it: its address is unspecified for a process of this node.
    pub client: AffinityKey,
    /// Monotonic seconds.
    pub now: u32,
    /// How long a client sticks to its backend.
    pub(crate) timeout: u32,
    /// The slots to choose from.
    pub(crate) range: BackendRange,
    /// The client's row, as it was found.
    pub(crate) seen: Affinity,
    /// The client's row, as it is to be.
    pub(crate) row: Affinity,
}

impl Pick {
    /// For a process of this node.
    #[inline(always)]
    pub fn of_node() -> Self {
        // The compiler is not to know it: what it knows to be zero it has a function fill, byte by byte.
        let zero: u32 = black_box(0);
        let nobody = Ip {
            bytes: u128::from(zero).to_ne_bytes(),
        };
        let row = Affinity {
            backend_id: zero,
            last_seen: zero,
            backend_generation: zero,
        };
        Self {
            backend: Backend {
                address: nobody,
                id: zero,
                generation: zero,
                service: zero,
                ..Backend::default()
            },
            client: AffinityKey {
                client: nobody,
                service: zero,
                set: zero,
            },
            now: zero,
            timeout: zero,
            range: BackendRange {
                base: zero,
                count: zero,
            },
            seen: row,
            row,
        }
    }
}

/// What a service offers, into `pick`; a [`Reason`] says why that is nothing.
///
/// `outside` is a client that is neither a pod of this node nor the node itself: to the others a node port, a load
/// balancer's address or an external IP with `externalTrafficPolicy: Local` offers all backends, as kube-proxy does.
#[inline(always)]
pub fn offer(service: &Service, outside: bool, pick: &mut Pick) -> Result<(), Reason> {
    if service.cluster.count == 0 && service.local.count == 0 {
        return Err(Reason::RejectNoEndpoints);
    }
    let (range, set) = range(service, outside);
    // Zero is a range without backends here, which policy Local makes of a service that has them elsewhere.
    if range.count == 0 {
        return Err(Reason::DropNoLocalEndpoints);
    }
    pick.client.service = service.id;
    pick.client.set = u32::from(set.code());
    pick.range = range;
    pick.timeout = service.affinity_timeout;
    Ok(())
}

/// Picks a backend of those that are offered for [`Pick::client`]; false if there is none, which the agent never lets
/// happen.
#[inline(always)]
pub fn pick(tables: &impl Tables, pick: &mut Pick) -> bool {
    if pick.timeout == 0 {
        turn(tables, pick)
    } else {
        affinity::pick(tables, pick)
    }
}

/// Takes the next turn.
#[inline(always)]
pub(crate) fn turn(tables: &impl Tables, pick: &mut Pick) -> bool {
    let cursor = pick.client.service.wrapping_mul(2).wrapping_add(pick.client.set);
    let Some(turn) = tables.advance(cursor) else {
        return false;
    };
    let Some(index) = turn.checked_rem(u64::from(pick.range.count)) else {
        return false;
    };
    let slot = pick.range.base.wrapping_add((index & 0xffff_ffff) as u32);
    // A slot that nobody wrote is there all the same in an array, and all zero.
    tables.backend(slot, &mut pick.backend) && pick.backend.port != 0
}

/// The slots to choose from, and the set that they are.
#[inline(always)]
const fn range(service: &Service, outside: bool) -> (BackendRange, BackendSet) {
    let short_circuit = service.kind != FrontendKind::ClusterIp.code() && !outside;
    if service.policy == TrafficPolicy::Local.code() && !short_circuit {
        (service.local, BackendSet::Local)
    } else {
        (service.cluster, BackendSet::Cluster)
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
