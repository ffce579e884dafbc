//! Fragments: only the first of a datagram carries the ports, so they are remembered for the others.

use core::hint::cold_path;

use proxy_common::{Fragment, Reason};

use crate::flow;
use crate::parse::SCTP;
use crate::scratch::Scratch;
use crate::tables::Tables;

/// Only the first fragment has ports: remember them for the others. One of SCTP whose ports would have to change cannot be
/// translated: nobody knows yet how long the packet is that its checksum covers. Its others then belong to nobody.
#[inline(always)]
pub(crate) fn remember_ports(tables: &impl Tables, now: u32, s: &mut Scratch) -> Result<(), Reason> {
    if s.packet.first_fragment == 0 {
        return Ok(());
    }
    cold_path();
    if s.packet.protocol == SCTP && changes_ports(s) {
        return Err(Reason::DropSctpFragment);
    }
    write_fragment_key(s);
    let ports = Fragment {
        source_port: s.key.source_port,
        destination_port: s.key.destination_port,
        seen: now,
    };
    tables.put_fragment(&s.fragment_key, &ports);
    Ok(())
}

/// Whether the ports change, as [`crate::rewrite::plan`] has it.
#[inline(always)]
fn changes_ports(s: &Scratch) -> bool {
    (s.key.source_port, s.key.destination_port) != (s.edits.source_port, s.edits.destination_port)
}

/// Gives a later fragment the ports of its first.
#[inline(always)]
pub(crate) fn recall_ports(tables: &impl Tables, s: &mut Scratch) -> bool {
    write_fragment_key(s);
    let Some(ports) = tables.fragment(&s.fragment_key) else {
        return false;
    };
    if tables.now().saturating_sub(ports.seen) > flow::FRAGMENT_TIMEOUT {
        return false;
    }
    s.key.source_port = ports.source_port;
    s.key.destination_port = ports.destination_port;
    true
}

#[inline(always)]
fn write_fragment_key(s: &mut Scratch) {
    s.fragment_key.source = s.key.source;
    s.fragment_key.destination = s.key.destination;
    s.fragment_key.id = s.packet.fragment_id;
    s.fragment_key.protocol = s.key.protocol;
    s.fragment_key.hook = s.key.hook;
}
