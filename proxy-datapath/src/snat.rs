//! Finds a source port under which answers come back to one flow only.
//!
//! The row for answers is the reservation: it is written only where none stands, so two CPUs cannot take the same.

use proxy_common::{Direction, Flow, Nat, NodeConfig, Reason};

use crate::flow;
use crate::scratch::Scratch;
use crate::tables::{Inserted, Room, Tables};

/// Ports that are tried before a packet is given up.
const PROBES: u32 = 24;
/// Of these, the tries after the first that only ask whether a port is free. To look at whose it is would tell the LRU map that
/// the row is in use: in a flood, ports that are tried in vain would stay taken for that alone, until all are.
const BLIND_PROBES: u32 = 8;
/// Of these, the tries that leave closed connections alone.
///
/// The backend of one may still be waiting for the last ACK: it would challenge the new connection's SYN (RFC 9293,
/// 3.10.7.4), and the client's RST to that would end a flow that has hardly begun.
const PATIENT_PROBES: u32 = 16;
/// Distance between two tries: odd and prime, so that tries of neighbours do not run into each other.
const STRIDE: u32 = 7919;

/// Whether SNAT may have used a port.
#[inline(always)]
pub const fn in_range(config: &NodeConfig, port: u16) -> bool {
    port.wrapping_sub(config.snat_first_port) < config.snat_ports
}

/// Writes the row for answers of [`Scratch::flow`], under the client's own port if that is free and allowed, else
/// under another one.
#[inline(always)]
pub fn reserve(tables: &impl Tables, config: &NodeConfig, now: u32, s: &mut Scratch) -> Result<(), Reason> {
    s.flow.direction = Direction::FromBackend.code();
    if s.flow.nat == Nat::Destination.code() {
        match tables.claim(now, Reach::Expired, s) {
            Claim::Taken => s.flow.nat = Nat::SourcePort.code(),
            Claim::Ours => return Ok(()),
            Claim::Full => return Err(Reason::DropFlowTable),
        }
    }
    let count = u32::from(config.snat_ports);
    let mut at = start(&s.flow);
    for probe in 0..PROBES {
        let Some(offset) = at.checked_rem(count) else {
            break;
        };
        s.flow.source_port = config.snat_first_port.wrapping_add((offset & 0xffff) as u16);
        let reach = match probe {
            1..BLIND_PROBES => Reach::Free,
            PATIENT_PROBES.. => Reach::Closed,
            // The first may be this connection's own, of an earlier life.
            _ => Reach::Expired,
        };
        match tables.claim(now, reach, s) {
            Claim::Ours => return Ok(()),
            Claim::Full => return Err(Reason::DropFlowTable),
            // Others each second: a client that finds none free asks again, and must not ask for the same.
            Claim::Taken if probe == 0 => at = mix(at ^ now),
            Claim::Taken => at = at.wrapping_add(STRIDE),
        }
    }
    Err(Reason::DropSnatPorts)
}

/// How the reach for a tuple ended.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It is this flow's.
    Ours,
    /// Another flow has it.
    Taken,
    /// The table takes no row.
    Full,
}

/// Which tuples are reached for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Such as nobody has.
    Free,
    /// And this connection's own, or of connections whose time is up.
    Expired,
    /// And of closed connections.
    Closed,
}

/// Takes the row for answers if nobody else lives there, as far as is reached.
///
/// The reservation is the row in `HALF_OPEN`. A flow that is established has its rows in `FLOWS` before it loses those in
/// `HALF_OPEN`, so who has got a row there and then finds none in `FLOWS` is alone.
#[inline(always)]
pub fn claim(tables: &impl Tables, now: u32, reach: Reach, s: &mut Scratch) -> Claim {
    flow::write_key(&s.flow, Direction::FromBackend, &mut s.other);
    let claim = match tables.insert_flow(Room::HalfOpen, &s.other, &s.flow) {
        Inserted::Yes => Claim::Ours,
        Inserted::Full => Claim::Full,
        Inserted::Exists if reach == Reach::Free => Claim::Taken,
        Inserted::Exists if !tables.flow(Room::HalfOpen, &s.other, &mut s.found) => Claim::Taken,
        // An earlier life of this connection, or another CPU that begins it as well: the same row either way.
        Inserted::Exists if flow::same_connection(&s.found, &s.flow) => {
            if tables.put_flow(Room::HalfOpen, &s.other, &s.flow) {
                Claim::Ours
            } else {
                Claim::Full
            }
        }
        Inserted::Exists if is_free(now, reach, s) => replace(tables, s),
        Inserted::Exists => Claim::Taken,
    };
    if claim != Claim::Ours || !tables.flow(Room::Established, &s.other, &mut s.found) {
        return claim;
    }
    if flow::same_connection(&s.found, &s.flow) || is_free(now, reach, s) {
        tables.remove_flow(Room::Established, &s.other);
        Claim::Ours
    } else {
        tables.remove_flow(Room::HalfOpen, &s.other);
        Claim::Taken
    }
}

/// Whether the connection whose row was found is over.
#[inline(always)]
fn is_free(now: u32, reach: Reach, s: &Scratch) -> bool {
    flow::expired(&s.found, now) || (reach == Reach::Closed && flow::replaceable(&s.found, now))
}

/// Takes the row of a connection that is over.
///
/// Removed and written again where none stands, not written over: if two CPUs want it, only one can have it. What
/// remains is a rival that removes the row and writes its own between this CPU's look at the old one and its removal.
/// It needs longer for that than this CPU does, unless an interrupt comes in between.
#[inline(always)]
fn replace(tables: &impl Tables, s: &Scratch) -> Claim {
    tables.remove_flow(Room::HalfOpen, &s.other);
    match tables.insert_flow(Room::HalfOpen, &s.other, &s.flow) {
        Inserted::Yes => Claim::Ours,
        Inserted::Exists => Claim::Taken,
        Inserted::Full => Claim::Full,
    }
}

/// Where the search begins: spread by who talks to whom.
#[inline(always)]
fn start(flow: &Flow) -> u32 {
    let [.., a, b, c, d] = flow.client.bytes;
    let client = u32::from_ne_bytes([a, b, c, d]);
    let ports = u32::from(flow.client_port) << 16 | u32::from(flow.frontend_port);
    mix(client ^ mix(ports))
}

/// Makes neighbours strangers (the finalizer of MurmurHash3): clients with one address and ports in a row must not crowd in one
/// part of the range. Nothing secret depends on it.
#[inline(always)]
const fn mix(number: u32) -> u32 {
    let number = (number ^ (number >> 16)).wrapping_mul(0x85eb_ca6b);
    let number = (number ^ (number >> 13)).wrapping_mul(0xc2b2_ae35);
    number ^ (number >> 16)
}
