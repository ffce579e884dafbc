//! Rows of `AFFINITY_BACKENDS`: to which backends of a service port clients may stick.
//!
//! A row comes before the service row that offers the backend, and goes after the last one that did: so a client never
//! meets a service row whose backends it cannot stick to, and is never sent away from one that it is still offered.
//! In between a row says that the backend is in the sets of before and after both.

use std::collections::BTreeMap;

use proxy_common::AffinityBackend;

use crate::desired::DesiredPort;
use crate::layout::row;
use crate::mirror::Mirror;
use crate::plan::Step;
use crate::ports::PortState;

/// Seconds, as the API has it, for a Service that asks for affinity and names no time.
pub const DEFAULT_TIMEOUT: u32 = 10_800;
/// The longest time that the API takes.
pub const LONGEST_TIMEOUT: u32 = 86_400;

/// The rows that a service port should have, by backend id.
pub fn rows(port: &DesiredPort, state: &PortState) -> BTreeMap<u32, AffinityBackend> {
    let backends = &port.backends;
    let local_end = backends.local_only + backends.both;
    let cluster = backends.local_only..local_end + backends.cluster_only;
    // Behind them stand those that are draining: nobody is sent there any more.
    let usable = if port.affinity_timeout == 0 {
        0
    } else {
        cluster.end
    };
    let places = backends.places.iter().enumerate().take(usable);
    let row = |(position, backend)| {
        let backend = row(backend, state.id, &state.backends);
        let row = AffinityBackend {
            backend,
            in_cluster: u8::from(cluster.contains(&position)),
            in_local: u8::from(position < local_end),
            reserved: 0,
        };
        (backend.id, row)
    };
    places.map(row).collect()
}

/// Before the service rows: what is new is added to what there is.
pub fn prepare(wanted: &BTreeMap<u32, AffinityBackend>, mirror: &Mirror) -> Vec<Step> {
    let steps = wanted.values().map(|row| joined(row, mirror));
    let missing = steps.filter(|row| mirror.affinity_backend(row.backend.id) != Some(row));
    missing.map(|row| Step::PutAffinityBackend { row }).collect()
}

/// After the service rows: what they do not offer any more is taken away.
pub fn withdraw(wanted: &BTreeMap<u32, AffinityBackend>, state: &PortState, mirror: &Mirror) -> Vec<Step> {
    let there = state.backends.values().map(|(id, _)| *id);
    let there = there.filter(|id| mirror.affinity_backend(*id).is_some());
    let step = |id| match wanted.get(&id) {
        None => Some(Step::DeleteAffinityBackend { id }),
        Some(row) => (joined(row, mirror) != *row).then_some(Step::PutAffinityBackend { row: *row }),
    };
    there.filter_map(step).collect()
}

/// A row that also says what the one in the kernel says, if that is of the same backend.
fn joined(row: &AffinityBackend, mirror: &Mirror) -> AffinityBackend {
    match mirror.affinity_backend(row.backend.id) {
        Some(there) if there.backend == row.backend => AffinityBackend {
            in_cluster: row.in_cluster | there.in_cluster,
            in_local: row.in_local | there.in_local,
            ..*row
        },
        _ => *row,
    }
}
