//! Keeps the rows of a flow: what was seen of it, and when; both halves; and when it is over.
//!
//! Asked once a second for a flow, and when its state changes.

use proxy_common::{Direction, FlowBit, Reason};

use crate::parse::{RST, UDP};
use crate::scratch::Scratch;
use crate::tables::{Inserted, Room, Tables};
use crate::{flow, half_open, select};

/// Keeps a flow's rows alive: its state and its time, in both. A client may be refused, by a [`Reason`].
#[inline(always)]
pub fn keep(tables: &impl Tables, from_backend: bool, now: u32, s: &mut Scratch) -> Result<(), Reason> {
    let direction = if from_backend {
        Direction::FromBackend
    } else {
        Direction::ToService
    };
    let mut change = flow::change(&s.flow, from_backend, s.packet.tcp_flags);
    if half_open::is_half_open(&s.flow) {
        return half_open::keep(tables, direction, change, now, s);
    }
    let twin = direction.other();
    flow::write_key(&s.flow, twin, &mut s.other);
    let there = tables.flow(Room::Established, &s.other, &mut s.found);
    let ours = there && flow::same_translation(&s.found, &s.flow);
    // While a client waits, the row for answers keeps the time since which it does.
    let mut seen = now;
    if !from_backend && s.flow.protocol != UDP && s.packet.tcp_flags & RST == 0 && is_deserted(tables, s) {
        if !ours || s.found.state & FlowBit::Unanswered.code() == 0 {
            change.set |= FlowBit::Unanswered.code();
        } else if now.saturating_sub(s.found.last_seen) <= flow::GONE_AFTER {
            seen = s.found.last_seen;
        } else {
            forget(tables, twin, s);
            return Err(Reason::RejectGoneBackend);
        }
    }
    let _gone = tables.touch_flow(Room::Established, &s.key, now, change);
    s.flow.state = change.of(s.flow.state);
    s.flow.last_seen = now;
    if !there {
        // The other half was evicted: this one knows everything that it knew.
        s.flow.direction = twin.code();
        if tables.insert_flow(Room::Established, &s.other, &s.flow) == Inserted::Exists {
            // Another CPU was faster, and did not know of this packet.
            let _gone = tables.touch_flow(Room::Established, &s.other, now, change);
        }
        s.flow.direction = direction.code();
    } else if ours {
        // Otherwise a later connection took its place, which a late packet of this one must not close.
        // Its own state counts: two CPUs may have left the halves different.
        let mut theirs = flow::change(&s.found, from_backend, s.packet.tcp_flags);
        theirs.set |= change.set & FlowBit::Unanswered.code();
        let _gone = tables.touch_flow(Room::Established, &s.other, seen, theirs);
    }
    Ok(())
}

/// Whether the flow's backend does not take part in its service any more.
#[inline(always)]
pub(crate) fn is_deserted(tables: &impl Tables, s: &Scratch) -> bool {
    !select::still_serving(tables, s.flow.backend_id, s.flow.backend_generation)
}

/// Removes a flow that is over, so that what follows on its tuple is left alone. `twin` is the other half.
#[inline(always)]
pub(crate) fn forget(tables: &impl Tables, twin: Direction, s: &mut Scratch) {
    flow::write_key(&s.flow, twin, &mut s.other);
    if half_open::is_half_open(&s.flow) {
        return half_open::leave(tables, s);
    }
    tables.remove_flow(Room::Established, &s.key);
    if tables.flow(Room::Established, &s.other, &mut s.found) && flow::same_translation(&s.found, &s.flow) {
        tables.remove_flow(Room::Established, &s.other);
    }
}
