//! Fragments: only the first of a datagram carries the ports, so they are remembered for the others.

use core::hint::cold_path;

use proxy_common::Fragment;

use crate::flow;
use crate::scratch::Scratch;
use crate::tables::Tables;

/// Only the first fragment has ports: remember them for the others.
#[inline(always)]
pub(crate) fn remember_ports(tables: &impl Tables, now: u32, s: &mut Scratch) {
    if s.packet.first_fragment == 0 {
        return;
    }
    cold_path();
    write_fragment_key(s);
    let ports = Fragment {
        source_port: s.key.source_port,
        destination_port: s.key.destination_port,
        seen: now,
    };
    tables.put_fragment(&s.fragment_key, &ports);
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
