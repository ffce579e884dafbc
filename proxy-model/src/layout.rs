//! Small decisions about slabs, ranges and cursors, as pure functions.

use std::collections::{BTreeMap, HashMap};

use proxy_common::{Backend, BackendRange};

use crate::desired::DesiredPort;
use crate::ports::{PortState, count};
use crate::traffic::{Backends, Place, Usable};

/// Whether two runs share a slot.
pub fn overlap(one: BackendRange, other: BackendRange) -> bool {
    one.base < other.base.saturating_add(other.count) && other.base < one.base.saturating_add(one.count)
}

/// The row of a backend of this service id; the backend's own id is given out.
pub fn row(backend: &Usable, service: u32, ids: &BTreeMap<Place, (u32, u32)>) -> Backend {
    let (address, port) = backend.place;
    let (id, generation) = ids.get(&backend.place).copied().unwrap_or_default();
    Backend {
        address,
        port,
        local: u8::from(backend.local),
        reserved: 0,
        id,
        generation,
        service,
    }
}

/// How many backends take new connections.
fn selected(backends: &Backends) -> usize {
    backends.local_only + backends.both + backends.cluster_only
}

/// How long a new slab must be; `None` if the present one will do.
///
/// The selected backends must be the same in the same order. Draining ones must stand somewhere behind them, so that an
/// agent that starts finds them: nobody refers to their slots, nor to those of others that have left.
pub fn new_slab_length(port: &DesiredPort, state: Option<&PortState>) -> Option<u32> {
    let places = &port.backends.places;
    if places.is_empty() {
        return None;
    }
    let needed = Some(count(places.len()));
    let Some((state, slab)) = state.and_then(|state| Some((state, state.slab.as_ref()?))) else {
        return needed;
    };
    if !places
        .iter()
        .all(|backend| state.backends.contains_key(&backend.place))
    {
        return needed;
    }
    let rows: Vec<Backend> = places
        .iter()
        .map(|backend| row(backend, state.id, &state.backends))
        .collect();
    let (usable, draining) = rows.split_at_checked(selected(&port.backends))?;
    let behind = slab.rows.get(usable.len()..).unwrap_or_default();
    let behind: HashMap<u32, &Backend> = behind.iter().map(|row| (row.id, row)).collect();
    let same = slab.rows.starts_with(usable) && draining.iter().all(|row| behind.get(&row.id) == Some(&row));
    if same { None } else { needed }
}

/// The cluster and the local range; an empty one has no base, so that equal rows look equal.
pub fn ranges(port: &DesiredPort, state: &PortState) -> (BackendRange, BackendRange) {
    let Some(slab) = &state.slab else {
        return Default::default();
    };
    let range = |skip: usize, length: usize| match length {
        0 => BackendRange::default(),
        _ => BackendRange {
            base: slab.base + count(skip),
            count: count(length),
        },
    };
    let backends = &port.backends;
    let cluster = range(backends.local_only, backends.both + backends.cluster_only);
    (cluster, range(0, backends.local_only + backends.both))
}

/// Where a cursor starts: random per node, so that nodes do not herd, and fixed by its inputs (splitmix64).
pub fn cursor_start(seed: u64, index: u32, generation: u32) -> u64 {
    let mixed = seed ^ (u64::from(generation) << 32 | u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // Half of the range: a cursor that counts up from here does not wrap, which would skip backends.
    (mixed ^ (mixed >> 31)) >> 1
}
