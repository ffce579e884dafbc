//! A packet's life: the two stories, in and out of the node's stack.
//!
//! What is translated at an interface's ingress is translated back at the same interface's egress, so that everybody
//! between (netfilter, network policies, `rp_filter`) sees client and endpoint only. The exception is source NAT:
//! its answers come to an address of this node and are met at ingress, before the stack.

use core::hint::{black_box, cold_path};

use proxy_common::{Address, AddressKind, Direction, FlowState, Hook, Nat, Reason};

use crate::begin::{self, Situation};
use crate::fragment::{recall_ports, remember_ports};
use crate::packet::Packet;
use crate::parse::{self, ACK, Content, Network, RST, SYN, UDP};
use crate::scratch::{Place, Scratch};
use crate::tables::{Room, RouteQuery, RouteResult, Tables};
use crate::verdict::Verdict;
use crate::{flow, keep, reply, rewrite, service};

/// Makes the compiler read the scratch again instead of carrying addresses along, byte by byte, in registers that a kernel
/// program does not have: they end on its stack, and every path through the program pays for them.
#[inline(always)]
fn forget_registers(s: &mut Scratch) -> &mut Scratch {
    black_box(s)
}

/// Whether a packet that comes in is for an address that weir surely does not know: most are, and this is all that they
/// cost. It is asked before anything else is read or prepared; `false` only means that [`ingress`] has to look closer. That
/// nobody has checked these bytes does no harm, as the filter's no is certain. What is in a range of ClusterIPs is never
/// foreign, although no Service may have the address: then nobody has. The row is asked for with what the parser
/// let pass: else an IPv6 packet could name a row of IPv4.
#[inline(always)]
pub fn is_foreign(packet: &impl Packet, tables: &impl Tables, ethernet: bool) -> bool {
    match parse::destination(packet, ethernet) {
        Some(destination) => !tables.may_know(&destination) && !service::is_unallocated(tables, &destination),
        None => false,
    }
}

/// A packet that enters the node's stack from an interface, and may be for an address of weir's.
#[inline(always)]
pub fn ingress(packet: &impl Packet, tables: &impl Tables, place: Place, s: &mut Scratch) -> Verdict {
    match parse::network(packet, place, s) {
        Network::Ip => {}
        Network::NotIp => return Verdict::Ignore,
        Network::Malformed => return Verdict::Pass(Reason::PassMalformed),
    }
    s.key.hook = Hook::Ingress.code();
    let s = forget_registers(s);
    let content = parse::transport(packet, tables, s);
    let s = forget_registers(s);
    // One place that refuses: it is the longest part of a program.
    match serve(packet, tables, place, content, s) {
        Ok(verdict) => verdict,
        Err(reason) => refuse(packet, tables, reason, s),
    }
}

/// A packet whose headers are read, by its flow or a new one; or why not.
#[inline(always)]
fn serve(
    packet: &impl Packet,
    tables: &impl Tables,
    place: Place,
    content: Content,
    s: &mut Scratch,
) -> Result<Verdict, Reason> {
    // A packet for a ClusterIP is looked for among the flows at once. One for the node itself is mostly not weir's, which
    // its port tells for less.
    let mut located = None;
    if content != Content::Transport || tables.may_be_node(&s.key.destination) {
        let Some((address, kind)) = locate(tables, s) else {
            return Ok(nobodys(tables, s));
        };
        if let Some(verdict) = not_a_connection(tables, kind, content, s) {
            return Ok(verdict);
        }
        if kind == AddressKind::Node && !is_for_weir(tables, address, s) {
            return Ok(Verdict::Pass(Reason::PassNotFrontend));
        }
        located = Some((address, kind));
    }
    let now = tables.now();
    // What can begin a flow was looked up: from outside that are the addresses of the node and of load balancers.
    let may_begin = !place.uplink || located.is_some();
    let (direction, reason) = if is_known(tables, now, may_begin, s) {
        known(tables, now, s)?
    } else {
        cold_path();
        let Some((address, kind)) = located.or_else(|| locate(tables, s)) else {
            return Ok(nobodys(tables, s));
        };
        if content != Content::Transport {
            return Ok(unknown(kind, content));
        }
        let Some(config) = tables.config() else {
            return Err(Reason::DropNoConfig);
        };
        let at = Situation {
            place,
            config,
            address,
            kind,
            now,
        };
        (Direction::ToService, begin::flow(tables, &at, s)?)
    };
    plan(tables, direction, now, s)?;
    if s.flow.nat == Nat::Source.code() {
        cold_path();
        send(packet, tables, place, reason, s)
    } else {
        Ok(Verdict::Translate(reason))
    }
}

/// What the packet's destination is to this node, if it is known.
#[inline(always)]
fn locate(tables: &impl Tables, s: &Scratch) -> Option<(Address, AddressKind)> {
    let address = tables.address(&s.key.destination)?;
    Some((address, AddressKind::from_code(address.kind)?))
}

/// A packet to an address without a row: dropped if only a Service could have it, as it could only wander about.
#[inline(always)]
fn nobodys(tables: &impl Tables, s: &Scratch) -> Verdict {
    cold_path();
    if service::is_unallocated(tables, &s.key.destination) {
        Verdict::Drop(Reason::DropUnallocated)
    } else {
        Verdict::Ignore
    }
}

/// Whether a packet to an address of this node can be weir's at all, by its port.
#[inline(always)]
fn is_for_weir(tables: &impl Tables, address: Address, s: &Scratch) -> bool {
    address.vip != 0
        || tables
            .config()
            .is_some_and(|config| service::node_port_or_answer(&config, &s.key, address.node_ports != 0))
}

/// A packet that leaves the node's stack to an interface: only answers are of interest.
#[inline(always)]
pub fn egress(packet: &impl Packet, tables: &impl Tables, place: Place, s: &mut Scratch) -> Verdict {
    if parse::network(packet, place, s) != Network::Ip {
        return Verdict::Ignore;
    }
    s.key.hook = Hook::Egress.code();
    let s = forget_registers(s);
    match parse::transport(packet, tables, s) {
        Content::Transport | Content::IcmpError => {}
        Content::LaterFragment if recall_ports(tables, s) => {}
        _ => return Verdict::Ignore,
    }
    let s = forget_registers(s);
    if !tables.flow(Room::Established, &s.key, &mut s.flow) && !is_half_open(tables, s) {
        return Verdict::Ignore;
    }
    let now = tables.now();
    if s.packet.content == Content::Transport.code() && flow::is_of_another(&s.flow, s.packet.tcp_flags, now)
    {
        cold_path();
        keep::forget(tables, Direction::ToService, s);
        return Verdict::Ignore;
    }
    // Never past the stack: answers to this node's own address are met at ingress (`flow::write_key`).
    match known(tables, now, s) {
        Ok((direction, reason)) => match plan(tables, direction, now, s) {
            Ok(()) => Verdict::Translate(reason),
            Err(reason) => Verdict::Drop(reason),
        },
        // Only a client is refused.
        Err(_) => Verdict::Ignore,
    }
}

/// Whether an answer that `FLOWS` does not know belongs to a half-open flow. Most belong to none, as their port says.
#[inline(always)]
fn is_half_open(tables: &impl Tables, s: &mut Scratch) -> bool {
    if !tables.may_be_half_open(s.key.source_port) {
        return false;
    }
    cold_path();
    tables.find_half_open(s)
}

/// Packets that cannot begin or continue a connection; `None` for those that can.
#[inline(always)]
fn not_a_connection(
    tables: &impl Tables,
    kind: AddressKind,
    content: Content,
    s: &mut Scratch,
) -> Option<Verdict> {
    if content == Content::Transport {
        return None;
    }
    cold_path();
    match content {
        Content::Transport | Content::IcmpError => None,
        Content::LaterFragment if recall_ports(tables, s) => None,
        Content::LaterFragment => Some(unknown(kind, content)),
        Content::Other => Some(other_protocol(kind)),
        Content::Malformed if kind == AddressKind::Node => Some(Verdict::Pass(Reason::PassMalformed)),
        Content::Malformed => Some(Verdict::Drop(Reason::DropMalformed)),
    }
}

/// Neither TCP, UDP nor SCTP: the host's own business, except on a ClusterIP. That is on no machine: what is sent there and
/// cannot be served, a ping too, could only wander between this node and its router.
#[inline(always)]
fn other_protocol(kind: AddressKind) -> Verdict {
    if kind.is_cluster_ip() {
        Verdict::Drop(Reason::DropProtocol)
    } else {
        Verdict::Pass(Reason::PassProtocol)
    }
}

/// A fragment or an ICMP error that belongs to no flow. Nobody can tell the port, so at the node's own addresses it is the host's
/// business. A ClusterIP is on no machine, and an address that others route here is not on this one: a fragment that weir would
/// have had to translate with its first one would go back to where it came from.
#[inline(always)]
fn unknown(kind: AddressKind, content: Content) -> Verdict {
    match (kind, content) {
        (AddressKind::Vip, Content::LaterFragment) => Verdict::Drop(Reason::DropFragment),
        (kind, _) if !kind.is_cluster_ip() => Verdict::Pass(Reason::PassNotFrontend),
        (_, Content::LaterFragment) => Verdict::Drop(Reason::DropFragment),
        _ => Verdict::Drop(Reason::DropUnanswerable),
    }
}

/// Whether the packet belongs to a flow, which then is in [`Scratch::flow`].
///
/// One that is over is removed at once, not when the next is written: whatever stands there then has been begun by
/// another CPU meanwhile, for another packet of this connection. For that flow to be removed here it would have to be
/// begun and written between the look and the removal, which takes longer than they do.
#[inline(always)]
fn is_known(tables: &impl Tables, now: u32, may_begin: bool, s: &mut Scratch) -> bool {
    if !tables.flow(Room::Established, &s.key, &mut s.flow) {
        cold_path();
        if !tables.find_half_open(s) {
            return false;
        }
    }
    let over = starts_anew(tables, now, s);
    if over && (may_begin || is_for_everybody(tables, s)) {
        // Wherever it is, and what a late answer to an earlier datagram left in the other table.
        tables.remove_flow(Room::Established, &s.key);
        tables.remove_flow(Room::HalfOpen, &s.key);
    }
    !over
}

/// Whether a packet from outside can begin a flow to an address that is none of this node's own.
#[inline(always)]
fn is_for_everybody(tables: &impl Tables, s: &Scratch) -> bool {
    cold_path();
    match locate(tables, s) {
        Some((_, AddressKind::Vip)) => true,
        Some((_, kind)) if kind.is_cluster_ip() => tables
            .config()
            .is_some_and(|config| config.external_cluster_ips != 0),
        _ => false,
    }
}

/// Whether a packet of a known tuple is the first of another connection.
#[inline(always)]
fn starts_anew(tables: &impl Tables, now: u32, s: &Scratch) -> bool {
    if s.packet.content != Content::Transport.code() || s.flow.direction != Direction::ToService.code() {
        return false;
    }
    if s.flow.protocol != UDP {
        let syn = s.packet.tcp_flags & (SYN | ACK | RST) == SYN;
        let established = matches!(FlowState::of(s.flow.state), FlowState::Established);
        return syn && (flow::replaceable(&s.flow, now) || (!established && keep::is_deserted(tables, s)));
    }
    // UDP has no end: a flow ends when it is silent, or when its backend does not serve any more.
    flow::expired(&s.flow, now) || keep::is_deserted(tables, s)
}

/// A packet of a known flow, in either direction.
#[inline(always)]
fn known(tables: &impl Tables, now: u32, s: &mut Scratch) -> Result<(Direction, Reason), Reason> {
    let direction = if s.flow.direction == Direction::ToService.code() {
        Direction::ToService
    } else {
        Direction::FromBackend
    };
    let reason = match (s.packet.content, direction) {
        (content, _) if content == Content::IcmpError.code() => Reason::IcmpError,
        (content, _) if content == Content::LaterFragment.code() => Reason::Fragment,
        (_, Direction::ToService) => Reason::Forward,
        (_, Direction::FromBackend) => Reason::Reverse,
    };
    if s.packet.content == Content::Transport.code() {
        refresh(tables, direction, now, s)?;
    }
    Ok((direction, reason))
}

/// Plans what is to change in a packet of the flow in [`Scratch::flow`], its first or a later one. Not every fragment can be
/// translated.
#[inline(always)]
fn plan(tables: &impl Tables, direction: Direction, now: u32, s: &mut Scratch) -> Result<(), Reason> {
    rewrite::plan(direction, s);
    if s.packet.content == Content::Transport.code() {
        remember_ports(tables, now, s)
    } else {
        Ok(())
    }
}

/// Keeps a flow's rows alive: its state at once, its time once a second. A client may be refused, by a [`Reason`].
#[inline(always)]
fn refresh(tables: &impl Tables, direction: Direction, now: u32, s: &mut Scratch) -> Result<(), Reason> {
    let from_backend = matches!(direction, Direction::FromBackend);
    let change = flow::change(&s.flow, from_backend, s.packet.tcp_flags);
    if change.is_none() && now == s.flow.last_seen {
        return Ok(());
    }
    cold_path();
    tables.keep(from_backend, now, s)
}

/// Sends a packet whose source was or will be an address of this node: past the stack, which would not take it.
#[inline(always)]
fn send(
    packet: &impl Packet,
    tables: &impl Tables,
    place: Place,
    reason: Reason,
    s: &mut Scratch,
) -> Result<Verdict, Reason> {
    // What a router does (RFC 1812, 5.3.1; RFC 8200, 3), as the stack does not see the packet: two node ports that are
    // each other's endpoints would else send it round for ever.
    if s.packet.hop_limit <= 1 {
        return Err(Reason::RejectHopLimit);
    }
    s.edits.hop_limit = s.packet.hop_limit - 1;
    let query = RouteQuery {
        interface: place.interface,
        destination: s.edits.destination,
        length: s.packet.segment_length(packet.segment()),
    };
    match tables.route(&query, &mut s.route) {
        RouteResult::Found => Ok(Verdict::Redirect(reason)),
        RouteResult::TooBig => Err(Reason::RejectTooBig),
        RouteResult::None => Err(Reason::DropNoRoute),
    }
}

/// Turns a reason into what the client gets to feel.
#[inline(always)]
fn refuse(packet: &impl Packet, tables: &impl Tables, reason: Reason, s: &mut Scratch) -> Verdict {
    match reason {
        Reason::RejectNoEndpoints
        | Reason::RejectUndefinedPort
        | Reason::RejectUnknownFlow
        | Reason::RejectTooBig
        | Reason::RejectHopLimit
        | Reason::RejectGoneBackend => {
            let is_reset = s.packet.tcp_flags & RST != 0;
            let is_error = s.packet.content == Content::IcmpError.code();
            if !is_reset && !is_error && reply::build(packet, tables, reason, s) {
                Verdict::Reply(reason)
            } else {
                Verdict::Drop(Reason::DropUnanswerable)
            }
        }
        Reason::PassNotFrontend => Verdict::Pass(reason),
        _ => Verdict::Drop(reason),
    }
}
