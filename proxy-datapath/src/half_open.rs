//! Flows that are not established, in a room of their own: a flood of first packets evicts nothing but itself.
//!
//! ```text
//! first packet ─▶ HALF_OPEN, two rows ─▶ the other side speaks, and the client again ─▶ FLOWS, two rows ─▶ none here
//!                 (begin.rs, snat.rs)     (UDP: only the other side)                    (answers first)
//! ```
//!
//! A look-up asks `FLOWS` first, so an established flow never comes by here. Both rows are in `FLOWS` before the first is
//! removed here, and a look-up that finds none here asks `FLOWS` again: whatever another CPU does meanwhile, one of the
//! three looks meets the flow.

use core::hint::cold_path;

use proxy_common::{Direction, Flow, FlowBit, Reason};

use crate::flow::{self, Change};
use crate::scratch::Scratch;
use crate::tables::{Inserted, Room, Tables};

/// Where a flow's rows are, by what it has shown.
#[inline(always)]
pub(crate) const fn is_half_open(flow: &Flow) -> bool {
    flow.state & FlowBit::Established.code() == 0
}

/// Looks for the flow of a packet that `FLOWS` does not know.
#[inline(always)]
pub fn find(tables: &impl Tables, s: &mut Scratch) -> bool {
    tables.flow(Room::HalfOpen, &s.key, &mut s.flow) || tables.flow(Room::Established, &s.key, &mut s.flow)
}

/// Keeps a half-open flow's rows alive, or moves them to `FLOWS` if this packet establishes it.
#[inline(always)]
pub(crate) fn keep(
    tables: &impl Tables,
    direction: Direction,
    change: Change,
    now: u32,
    s: &mut Scratch,
) -> Result<(), Reason> {
    s.flow.state = change.of(s.flow.state);
    s.flow.last_seen = now;
    let twin = direction.other();
    flow::write_key(&s.flow, twin, &mut s.other);
    if !is_half_open(&s.flow) {
        let established = establish(tables, direction, now, s);
        if established != Ok(false) {
            leave(tables, s);
        }
        return established.map(|_| ());
    }
    if !tables.touch_flow(Room::HalfOpen, &s.key, now, change) {
        // Another CPU has established it since this one looked.
        let _gone = tables.touch_flow(Room::Established, &s.key, now, change);
        let _gone = tables.touch_flow(Room::Established, &s.other, now, change);
    } else if !tables.flow(Room::HalfOpen, &s.other, &mut s.found) {
        // Evicted: this half knows everything that the other did.
        s.flow.direction = twin.code();
        let _other = tables.insert_flow(Room::HalfOpen, &s.other, &s.flow);
        s.flow.direction = direction.code();
    } else if flow::same_translation(&s.found, &s.flow) {
        let change = shown(direction, s);
        let _gone = tables.touch_flow(Room::HalfOpen, &s.other, now, change);
    }
    Ok(())
}

/// Writes both rows to `FLOWS`, that for answers first: it is the reservation of the tuple. False if the table takes none.
///
/// Two CPUs may do this at once: each row is written where none stands, and who comes second adds what its packet showed. If
/// another connection has the tuple, which takes that this one's reservation was evicted, the client has to begin anew: its
/// packets would be taken for the other's.
#[inline(always)]
fn establish(tables: &impl Tables, direction: Direction, now: u32, s: &mut Scratch) -> Result<bool, Reason> {
    let client = matches!(direction, Direction::ToService);
    if client && !write_twin(tables, direction, now, s)? {
        return Ok(false);
    }
    match tables.insert_flow(Room::Established, &s.key, &s.flow) {
        Inserted::Yes => {}
        Inserted::Full => return Ok(false),
        Inserted::Exists => {
            if tables.flow(Room::Established, &s.key, &mut s.found) {
                let change = shown(direction, s);
                let _gone = tables.touch_flow(Room::Established, &s.key, now, change);
            }
        }
    }
    if !client {
        // If the client has begun another flow meanwhile, this is a late answer of the one before.
        let _late = write_twin(tables, direction, now, s);
    }
    Ok(true)
}

/// Writes the row of the other half; false if the table takes none.
#[inline(always)]
fn write_twin(tables: &impl Tables, direction: Direction, now: u32, s: &mut Scratch) -> Result<bool, Reason> {
    s.flow.direction = direction.other().code();
    let written = tables.insert_flow(Room::Established, &s.other, &s.flow);
    s.flow.direction = direction.code();
    match written {
        Inserted::Yes => Ok(true),
        Inserted::Full => Ok(false),
        Inserted::Exists => {
            cold_path();
            let ours = tables.flow(Room::Established, &s.other, &mut s.found)
                && flow::same_translation(&s.found, &s.flow);
            if !ours {
                return Err(Reason::RejectUnknownFlow);
            }
            let change = shown(direction, s);
            let _gone = tables.touch_flow(Room::Established, &s.other, now, change);
            Ok(true)
        }
    }
}

/// What a packet changes in the row that was found: two CPUs may have left the halves different.
#[inline(always)]
fn shown(direction: Direction, s: &Scratch) -> Change {
    let from_backend = matches!(direction, Direction::FromBackend);
    flow::change(&s.found, from_backend, s.packet.tcp_flags)
}

/// Removes both rows of a flow from `HALF_OPEN`.
#[inline(always)]
pub(crate) fn leave(tables: &impl Tables, s: &mut Scratch) {
    tables.remove_flow(Room::HalfOpen, &s.key);
    if tables.flow(Room::HalfOpen, &s.other, &mut s.found) && flow::same_translation(&s.found, &s.flow) {
        tables.remove_flow(Room::HalfOpen, &s.other);
    }
}
