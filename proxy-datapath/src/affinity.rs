//! Session affinity: a client's next connection goes where its last one went.
//!
//! ```text
//! client's row ─▶ in time, and its backend in the set? ──yes─────────────────▶ renew the row ─▶ backend
//!                    │ no                                                          ▲
//!                    ├─▶ does it stick to one of these in the other set? ──yes─────┤
//!                    ╰─▶ a turn of the cursor ─────────────────────────────────────╯ another CPU's row stands: theirs
//! ```
//!
//! As in kube-proxy, only a new connection renews: packets of an established one pay nothing, and a client moves at the
//! first connection after its backend left the set, while what it has open goes on.

use proxy_common::Affinity;

use crate::select::{Pick, turn};
use crate::tables::Tables;

/// A row that is as young as this was just written, perhaps by another CPU that has not written its generation yet.
const JUST_NOW: u32 = 1;

/// Picks the backend that the client sticks to, or else the next in turn, and has it stick to that one; false if there is no
/// backend.
#[inline(always)]
pub(crate) fn pick(tables: &impl Tables, pick: &mut Pick) -> bool {
    let found = tables.affinity(&pick.client, &mut pick.seen);
    let seen = pick.seen;
    if found && holds(tables, pick, seen) {
        if pick.seen.last_seen >= pick.now {
            return true;
        }
    } else if !shared(tables, pick) && !turn(tables, pick) {
        return false;
    }
    pick.row = Affinity {
        backend_id: pick.backend.id,
        last_seen: pick.now,
        backend_generation: pick.backend.generation,
    };
    let seen = found.then_some(&pick.seen);
    if tables.stick(&pick.client, seen, &mut pick.row) {
        return true;
    }
    // That of another CPU stands. If it does not hold here, this one connection goes where it was going.
    let (chosen, set, theirs) = (pick.backend.id, pick.client.set, pick.row);
    holds(tables, pick, theirs)
        || tables.affinity_backend(chosen, set, &mut pick.backend)
        || turn(tables, pick)
}

/// Whether the client sticks to a backend of this set by its row for the other set.
#[inline(always)]
fn shared(tables: &impl Tables, pick: &mut Pick) -> bool {
    pick.client.set ^= 1;
    let found = tables.affinity(&pick.client, &mut pick.row);
    pick.client.set ^= 1;
    let row = pick.row;
    found && holds(tables, pick, row)
}

/// Whether a row still holds: the client came back in time, and the backend is one of the set. It is in
/// [`Pick::backend`] then.
#[inline(always)]
fn holds(tables: &impl Tables, pick: &mut Pick, row: Affinity) -> bool {
    // Saturating: another CPU may have seen a later second than this one. Both are rounded down, hence not `>=`: no
    // client is let go before its time.
    let silent = pick.now.saturating_sub(row.last_seen);
    if silent > pick.timeout || !tables.affinity_backend(row.backend_id, pick.client.set, &mut pick.backend) {
        return false;
    }
    // An id that was given out again is not what the client stuck to. One branch: the verifier follows each to the end.
    let another = (pick.backend.service ^ pick.client.service)
        | ((pick.backend.generation ^ row.backend_generation) & mask(silent > JUST_NOW));
    another == 0
}

/// All bits, or none.
#[inline(always)]
const fn mask(all: bool) -> u32 {
    (all as u32).wrapping_neg()
}
