//! What changes under the packets: time passes, rows are evicted, backends die, services go and come back.

use anyhow::Result;
use proxy_common::{Affinity, BackendState};

use crate::node;
use crate::pair::Pair;
use crate::random::Random;
use crate::services::SPECS;

/// Mostly nothing.
pub(super) fn strike(random: &mut Random, pair: &mut Pair) -> Result<()> {
    match random.below(1000) {
        0..3 => pair.age(*[1, 11, 31, 61, 181].get(random.below(5)).unwrap_or(&1)),
        3..8 => evict(random, pair),
        8..14 => backend(random, pair),
        14..17 => service(random, pair),
        17..22 => affinity(random, pair),
        _ => Ok(()),
    }
}

/// A row falls out of the flow table.
fn evict(random: &mut Random, pair: &mut Pair) -> Result<()> {
    let mut keys: Vec<_> = pair.memory.rows().iter().map(|(_, key, _)| *key).collect();
    keys.sort_unstable();
    match random.pick(&keys) {
        Some(key) => pair.evict(&key),
        None => Ok(()),
    }
}

/// A backend goes, comes back, or its id is given to another.
fn backend(random: &mut Random, pair: &mut Pair) -> Result<()> {
    let id = node::slab(random.below(SPECS.len()), random.percent(50));
    let old = pair.memory.states.borrow().get(&id).copied().unwrap_or_default();
    let new = match random.below(4) {
        0 => BackendState {
            generation: old.generation + 1,
            ..old
        },
        1 => BackendState { serving: 0, ..old },
        _ => BackendState {
            serving: 1,
            generation: 1,
            ..old
        },
    };
    pair.set_state(id, &new)
}

/// A service loses its row, or gets it back.
fn service(random: &mut Random, pair: &mut Pair) -> Result<()> {
    let rows = node::rows(1).services;
    let Some((key, row)) = random.pick(&rows) else {
        return Ok(());
    };
    let there = pair.memory.services.contains_key(&key);
    pair.set_service(&key, (!there).then_some(&row))
}

/// The last backend of a service port with affinity leaves, or comes back; a client is forgotten, or the id of its backend
/// was given out again.
fn affinity(random: &mut Random, pair: &mut Pair) -> Result<()> {
    let Some((key, row)) = random.pick(&pair.affinity_rows()) else {
        return Ok(());
    };
    match random.below(4) {
        0 => pair.set_affinity(&key, None),
        1 => {
            let of_another = Affinity {
                backend_generation: 0,
                last_seen: row.last_seen.saturating_sub(2),
                ..row
            };
            pair.set_affinity(&key, Some(&of_another))
        }
        _ => pair.set_last_backend(key.service, random.percent(60)),
    }
}
