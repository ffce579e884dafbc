//! A packet's life: the two stories, in and out of the node's stack.
//!
//! What is translated at an interface's ingress is translated back at the same interface's egress, so that everybody
//! between (netfilter, network policies, `rp_filter`) sees client and endpoint only. The exception is source NAT:
//! its answers come to an address of this node and are met at ingress, before the stack.

use core::hint::{black_box, cold_path};

use proxy_common::{
    Address, AddressKind, Backend, Direction, FlowState, Hook, Nat, NodeConfig, Reason, Service,
};

use crate::fragment::{recall_ports, remember_ports};
use crate::packet::Packet;
use crate::parse::{self, ACK, Content, ICMP, ICMPV6, Network, RST, SYN, TCP};
use crate::scratch::{Place, Scratch};
use crate::tables::{RouteQuery, RouteResult, Tables};
use crate::verdict::Verdict;
use crate::{flow, reply, rewrite, select, service, snat};

/// Makes the compiler read the scratch again instead of carrying addresses along, byte by byte, in registers that a kernel
/// program does not have: they end on its stack, and every path through the program pays for them.
#[inline(always)]
fn forget_registers(s: &mut Scratch) -> &mut Scratch {
    black_box(s)
}

/// Whether a packet that comes in is for an address that weir surely does not know: most are, and this is all that they
/// cost. It is asked before anything else is read or prepared; `false` only means that [`ingress`] has to look closer.
#[inline(always)]
pub fn is_foreign(packet: &impl Packet, tables: &impl Tables, ethernet: bool) -> bool {
    match parse::destination(packet, ethernet) {
        Some(destination) => !tables.may_know(&destination),
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
    let content = parse::transport(packet, s);
    let s = forget_registers(s);
    // A packet for a ClusterIP is looked for among the flows at once. One for the node itself is mostly not weir's, which
    // its port tells for less.
    let mut located = None;
    if content != Content::Transport || tables.may_be_node(&s.key.destination) {
        let Some((address, kind)) = locate(tables, s) else {
            return Verdict::Ignore;
        };
        if let Some(verdict) = not_a_connection(tables, kind, content, s) {
            return verdict;
        }
        if kind == AddressKind::Node && !is_for_weir(tables, address, s) {
            return Verdict::Pass(Reason::PassNotFrontend);
        }
        located = Some((address, kind));
    }
    let now = tables.now();
    if tables.flow(&s.key, &mut s.flow) && !starts_anew(tables, now, s) {
        return known(packet, tables, place, now, s);
    }
    cold_path();
    let Some((address, kind)) = located.or_else(|| locate(tables, s)) else {
        return Verdict::Ignore;
    };
    if content != Content::Transport {
        return unknown(kind, content);
    }
    let Some(config) = tables.config() else {
        return Verdict::Drop(Reason::DropNoConfig);
    };
    let at = Situation {
        place,
        config,
        address,
        kind,
        now,
    };
    fresh(packet, tables, &at, s)
}

/// What the packet's destination is to this node, if it is known.
#[inline(always)]
fn locate(tables: &impl Tables, s: &Scratch) -> Option<(Address, AddressKind)> {
    let address = tables.address(&s.key.destination)?;
    Some((address, AddressKind::from_code(address.kind)?))
}

/// Whether a packet to an address of this node can be weir's at all, by its port.
#[inline(always)]
fn is_for_weir(tables: &impl Tables, address: Address, s: &Scratch) -> bool {
    tables
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
    match parse::transport(packet, s) {
        Content::Transport | Content::IcmpError => {}
        Content::LaterFragment if recall_ports(tables, s) => {}
        _ => return Verdict::Ignore,
    }
    let s = forget_registers(s);
    if !tables.flow(&s.key, &mut s.flow) {
        return Verdict::Ignore;
    }
    let now = tables.now();
    if s.packet.content == Content::Transport.code() && flow::is_of_another(&s.flow, s.packet.tcp_flags, now)
    {
        cold_path();
        forget(tables, s);
        return Verdict::Ignore;
    }
    known(packet, tables, place, now, s)
}

/// What a new flow is decided by.
struct Situation {
    place: Place,
    config: NodeConfig,
    address: Address,
    kind: AddressKind,
    now: u32,
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
        Content::Other => Some(other_protocol(kind, s.packet.protocol)),
        Content::Malformed if kind == AddressKind::Node => Some(Verdict::Pass(Reason::PassMalformed)),
        Content::Malformed => Some(Verdict::Drop(Reason::DropMalformed)),
    }
}

/// Neither TCP nor UDP: the host's own business on a node's address. A ClusterIP is on no machine: what is sent there
/// and cannot be served could only wander between this node and its router, except ICMP, which kube-proxy leaves alone.
#[inline(always)]
fn other_protocol(kind: AddressKind, protocol: u8) -> Verdict {
    if kind == AddressKind::Node || protocol == ICMP || protocol == ICMPV6 {
        Verdict::Pass(Reason::PassProtocol)
    } else {
        Verdict::Drop(Reason::DropProtocol)
    }
}

/// A fragment or an ICMP error that belongs to no flow: the host's own business on a node's address, nobody's on a
/// ClusterIP.
#[inline(always)]
fn unknown(kind: AddressKind, content: Content) -> Verdict {
    match (kind, content) {
        (AddressKind::Node, _) => Verdict::Pass(Reason::PassNotFrontend),
        (_, Content::LaterFragment) => Verdict::Drop(Reason::DropFragment),
        _ => Verdict::Drop(Reason::DropUnanswerable),
    }
}

/// Whether a packet of a known tuple is the first of another connection.
#[inline(always)]
fn starts_anew(tables: &impl Tables, now: u32, s: &Scratch) -> bool {
    if s.packet.content != Content::Transport.code() || s.flow.direction != Direction::ToService.code() {
        return false;
    }
    if s.flow.protocol == TCP {
        let syn = s.packet.tcp_flags & (SYN | ACK | RST) == SYN;
        let established = matches!(FlowState::of(s.flow.state), FlowState::Established);
        return syn && (flow::replaceable(&s.flow, now) || (!established && is_deserted(tables, s)));
    }
    // UDP has no end: a flow ends when it is silent, or when its backend does not serve any more.
    flow::expired(&s.flow, now) || is_deserted(tables, s)
}

/// Whether the flow's backend does not take part in its service any more.
#[inline(always)]
fn is_deserted(tables: &impl Tables, s: &Scratch) -> bool {
    !select::still_serving(tables, s.flow.backend_id, s.flow.backend_generation)
}

/// Removes a flow that is over, so that what follows on its tuple is left alone.
#[inline(always)]
fn forget(tables: &impl Tables, s: &mut Scratch) {
    tables.remove_flow(&s.key);
    flow::write_key(&s.flow, Direction::ToService, &mut s.other);
    if tables.flow(&s.other, &mut s.found) && flow::same_translation(&s.found, &s.flow) {
        tables.remove_flow(&s.other);
    }
}

/// A packet of a known flow, in either direction.
#[inline(always)]
fn known(packet: &impl Packet, tables: &impl Tables, place: Place, now: u32, s: &mut Scratch) -> Verdict {
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
        refresh(tables, direction, now, s);
        remember_ports(tables, now, s);
    }
    rewrite::plan(direction, s);
    if s.flow.nat == Nat::Source.code() {
        cold_path();
        send(packet, tables, place, reason, s)
    } else {
        Verdict::Translate(reason)
    }
}

/// Keeps a flow's rows alive: its state at once in both, its time once a second in the packet's own.
#[inline(always)]
fn refresh(tables: &impl Tables, direction: Direction, now: u32, s: &mut Scratch) {
    let from_backend = matches!(direction, Direction::FromBackend);
    let change = flow::change(&s.flow, from_backend, s.packet.tcp_flags);
    if change.is_none() && now == s.flow.last_seen {
        return;
    }
    cold_path();
    let twin = if from_backend {
        Direction::ToService
    } else {
        Direction::FromBackend
    };
    let _gone = tables.touch_flow(&s.key, now, change);
    flow::write_key(&s.flow, twin, &mut s.other);
    s.flow.state = change.of(s.flow.state);
    s.flow.last_seen = now;
    if !tables.flow(&s.other, &mut s.found) {
        // The other half was evicted: this one knows everything that it knew.
        let own = s.flow.direction;
        s.flow.direction = twin.code();
        let _healed = tables.insert_flow(&s.other, &s.flow);
        s.flow.direction = own;
    } else if flow::same_translation(&s.found, &s.flow) {
        // Otherwise a later connection took its place, which a late packet of this one must not close.
        let _gone = tables.touch_flow(&s.other, now, change);
    }
}

/// A packet of no known flow, to one of weir's addresses.
#[inline(always)]
fn fresh(packet: &impl Packet, tables: &impl Tables, at: &Situation, s: &mut Scratch) -> Verdict {
    let reason = match choose(tables, at, s) {
        Ok((service, backend)) => match begin(tables, at, (&service, &backend), s) {
            Ok(()) => {
                remember_ports(tables, at.now, s);
                rewrite::plan(Direction::ToService, s);
                if s.flow.nat == Nat::Source.code() {
                    return send(packet, tables, at.place, Reason::NewFlow, s);
                }
                return Verdict::Translate(Reason::NewFlow);
            }
            Err(reason) => reason,
        },
        Err(reason) => reason,
    };
    refuse(packet, reason, s)
}

/// Finds the service and picks a backend.
#[inline(always)]
fn choose(tables: &impl Tables, at: &Situation, s: &mut Scratch) -> Result<(Service, Backend), Reason> {
    if at.kind != AddressKind::Node && at.place.uplink {
        return Err(Reason::DropExternalToClusterIp);
    }
    service::write_key(
        &s.key.destination,
        s.key.destination_port,
        s.key.protocol,
        at.kind,
        &mut s.service_key,
    );
    let node_ports = at.kind != AddressKind::Node || at.address.node_ports != 0;
    let service = if node_ports {
        tables.service(&s.service_key)
    } else {
        None
    };
    let Some(service) = service else {
        return Err(if at.kind == AddressKind::Node {
            Reason::PassNotFrontend
        } else {
            Reason::RejectUndefinedPort
        });
    };
    if s.key.protocol == TCP && s.packet.tcp_flags & (SYN | ACK | RST) != SYN {
        return Err(Reason::RejectUnknownFlow);
    }
    let backend = select::backend(tables, &service, at.place.uplink)?;
    Ok((service, backend))
}

/// Makes the flow's two rows: first the one for answers, which reserves the tuple, then the one for the client.
#[inline(always)]
fn begin(
    tables: &impl Tables,
    at: &Situation,
    (service, backend): (&Service, &Backend),
    s: &mut Scratch,
) -> Result<(), Reason> {
    s.flow.client = s.key.source;
    s.flow.client_port = s.key.source_port;
    s.flow.frontend = s.key.destination;
    s.flow.frontend_port = s.key.destination_port;
    s.flow.source = s.key.source;
    s.flow.source_port = s.key.source_port;
    s.flow.backend = backend.address;
    s.flow.backend_port = backend.port;
    s.flow.service = service.id;
    s.flow.backend_id = backend.id;
    s.flow.backend_generation = backend.generation;
    s.flow.interface = at.place.interface;
    s.flow.last_seen = at.now;
    s.flow.state = 0;
    s.flow.protocol = s.key.protocol;
    s.flow.nat = Nat::Destination.code();
    let hairpin = backend.address == s.key.source;
    if hairpin || (at.place.uplink && backend.local == 0 && !is_this_node(tables, s)) {
        masquerade(tables, at.place, s)?;
    }
    snat::reserve(tables, &at.config, at.now, s)?;
    s.flow.direction = Direction::ToService.code();
    if !tables.put_flow(&s.key, &s.flow) {
        tables.remove_flow(&s.other);
        return Err(Reason::DropFlowTable);
    }
    tables.count_chosen(backend.id);
    Ok(())
}

/// Whether a backend has an address of this node, although nobody said that it is here: a slice that was written by hand
/// need not name the node.
#[inline(always)]
fn is_this_node(tables: &impl Tables, s: &Scratch) -> bool {
    tables
        .address(&s.flow.backend)
        .is_some_and(|address| address.is_node())
}

/// The backend shall see this node: the address that the node has on the way to it.
#[inline(always)]
fn masquerade(tables: &impl Tables, place: Place, s: &mut Scratch) -> Result<(), Reason> {
    // Length 0: only the address is asked for; whether the packet fits is asked when it is sent.
    let query = RouteQuery {
        interface: place.interface,
        destination: s.flow.backend,
        length: 0,
    };
    match tables.route(&query, &mut s.route) {
        RouteResult::Found | RouteResult::TooBig => {}
        RouteResult::None => return Err(Reason::DropNoRoute),
    }
    // Before Linux 6.7 the agent names the source, and a node may have none of the family.
    if s.route.source.is_unspecified() {
        return Err(Reason::DropNoRoute);
    }
    s.flow.source = s.route.source;
    s.flow.nat = Nat::Source.code();
    Ok(())
}

/// Sends a packet whose source was or will be an address of this node: past the stack, which would not take it.
#[inline(always)]
fn send(
    packet: &impl Packet,
    tables: &impl Tables,
    place: Place,
    reason: Reason,
    s: &mut Scratch,
) -> Verdict {
    let query = RouteQuery {
        interface: place.interface,
        destination: s.edits.destination,
        length: s.packet.segment_length(packet.segment()),
    };
    match tables.route(&query, &mut s.route) {
        RouteResult::Found => Verdict::Redirect(reason),
        RouteResult::TooBig => refuse(packet, Reason::RejectTooBig, s),
        RouteResult::None => Verdict::Drop(Reason::DropNoRoute),
    }
}

/// Turns a reason into what the client gets to feel.
#[inline(always)]
fn refuse(packet: &impl Packet, reason: Reason, s: &mut Scratch) -> Verdict {
    match reason {
        Reason::RejectNoEndpoints
        | Reason::RejectUndefinedPort
        | Reason::RejectUnknownFlow
        | Reason::RejectTooBig => {
            let is_reset = s.key.protocol == TCP && s.packet.tcp_flags & RST != 0;
            let is_error = s.packet.content == Content::IcmpError.code();
            if !is_reset && !is_error && reply::build(packet, reason, s) {
                Verdict::Reply(reason)
            } else {
                Verdict::Drop(Reason::DropUnanswerable)
            }
        }
        Reason::PassNotFrontend => Verdict::Pass(reason),
        _ => Verdict::Drop(reason),
    }
}
