//! A new flow: finds the service, picks a backend, and writes the two rows.
//!
//! ```text
//! service ─▶ backend ─▶ row for answers ──────────▶ row for the client ─▶ the flow is there
//!            (a turn)   reserves the tuple                │ another CPU's stands there
//!                       (snat.rs)                         ╰─▶ give the reservation back, go on with theirs
//! ```

use proxy_common::{
    Address, AddressKind, Direction, FrontendFlag, FrontendKind, Ip, Nat, NodeConfig, Reason,
};

use crate::parse::{ACK, RST, SYN, UDP};
use crate::scratch::{Place, Scratch};
use crate::tables::{Inserted, Room, RouteQuery, RouteResult, Tables};
use crate::{flow, select, service, snat};

/// What a new flow is decided by.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Where its first packet is met.
    pub place: Place,
    /// The node's configuration.
    pub config: NodeConfig,
    /// What the packet's destination is to this node.
    pub address: Address,
    /// The same, as a kind.
    pub kind: AddressKind,
    /// Monotonic seconds.
    pub now: u32,
}

/// Makes the flow of a packet that has none, and leaves it in [`Scratch::flow`]; says whether it is a new one.
#[inline(always)]
pub(crate) fn flow(tables: &impl Tables, at: &Situation, s: &mut Scratch) -> Result<Reason, Reason> {
    tables.choose(at, s)?;
    begin(tables, at, s)
}

/// Finds the service and picks a backend, into [`Scratch::pick`].
#[inline(always)]
pub fn choose(tables: &impl Tables, at: &Situation, s: &mut Scratch) -> Result<(), Reason> {
    if at.kind.is_cluster_ip() && at.place.uplink && at.config.external_cluster_ips == 0 {
        return Err(Reason::DropExternalToClusterIp);
    }
    if at.kind == AddressKind::Loopback {
        // No packet of the host's own comes by here, and nobody else's is for it (CVE-2020-8558).
        return Err(Reason::PassNotFrontend);
    }
    let asked = service::Asked {
        address: &s.key.destination,
        port: s.key.destination_port,
        protocol: s.key.protocol,
    };
    let Some(service) = service::find(tables, &asked, &at.address, at.kind, &mut s.service_key) else {
        return Err(if service::rejects_other_ports(&at.config, at.kind) {
            Reason::RejectUndefinedPort
        } else {
            Reason::PassNotFrontend
        });
    };
    if service.has(FrontendFlag::Guarded) && !service::lets_in(tables, &service, &s.key.source) {
        return Err(Reason::DropSourceRange);
    }
    if s.key.protocol != UDP && s.packet.tcp_flags & (SYN | ACK | RST) != SYN {
        return Err(Reason::RejectUnknownFlow);
    }
    s.flow.service = service.id;
    s.pick.client.client = s.key.source;
    s.pick.now = at.now;
    if is_forged(tables, &s.key.source) {
        return Err(Reason::DropForgedSource);
    }
    let outside = !service::is_pod(tables, at.place, &s.key.source);
    // Whom the cluster does not know may have no way back from a pod but by this node; so kube-proxy does it.
    let stranger = outside && service.kind == FrontendKind::ClusterIp.code();
    s.masquerade = u32::from(stranger || service.has(FrontendFlag::Masqueraded));
    select::offer(&service, outside, &mut s.pick)?;
    if tables.pick(&mut s.pick) {
        Ok(())
    } else {
        Err(Reason::DropBackendMissing)
    }
}

/// Makes the flow's two rows: first the one for answers, which reserves the tuple, then the one for the client.
#[inline(always)]
fn begin(tables: &impl Tables, at: &Situation, s: &mut Scratch) -> Result<Reason, Reason> {
    let backend = &s.pick.backend;
    s.flow.client = s.key.source;
    s.flow.client_port = s.key.source_port;
    s.flow.frontend = s.key.destination;
    s.flow.frontend_port = s.key.destination_port;
    s.flow.source = s.key.source;
    s.flow.source_port = s.key.source_port;
    s.flow.backend = backend.address;
    s.flow.backend_port = backend.port;
    s.flow.backend_id = backend.id;
    s.flow.backend_generation = backend.generation;
    s.flow.interface = at.place.interface;
    s.flow.last_seen = at.now;
    s.flow.state = 0;
    s.flow.protocol = s.key.protocol;
    s.flow.nat = Nat::Destination.code();
    let hairpin = s.flow.backend == s.key.source;
    let masqueraded = s.masquerade != 0 || (at.place.uplink && s.pick.backend.local == 0);
    if hairpin || (masqueraded && !is_this_node(tables, s)) {
        // To be sent past the stack, and cannot be: no row and no port for it. Only its turn is spent, as nobody knows
        // before whether the backend is elsewhere.
        if s.packet.hop_limit <= 1 {
            return Err(Reason::RejectHopLimit);
        }
        masquerade(tables, at.place, s)?;
    } else if !at.place.uplink && s.key.protocol == UDP && tables.is_shared(s.key.source_port) {
        // The client's own port stands for another frontend, by the socket hook, which no row of `FLOWS` tells.
        s.flow.nat = Nat::SourcePort.code();
    }
    tables.write_rows(&at.config, at.now, s)
}

/// Writes the two rows of [`Scratch::flow`].
#[inline(always)]
pub fn write_rows(
    tables: &impl Tables,
    config: &NodeConfig,
    now: u32,
    s: &mut Scratch,
) -> Result<Reason, Reason> {
    snat::reserve(tables, config, now, s)?;
    s.flow.direction = Direction::ToService.code();
    match tables.insert_flow(Room::HalfOpen, &s.key, &s.flow) {
        Inserted::Yes => {
            tables.count_chosen(s.flow.backend_id);
            Ok(Reason::NewFlow)
        }
        Inserted::Exists if tables.flow(Room::HalfOpen, &s.key, &mut s.found) => {
            // The connection's other packet was faster: one flow, one backend. The turn that was taken here is lost.
            if !flow::same_translation(&s.found, &s.flow) {
                tables.remove_flow(Room::HalfOpen, &s.other);
            }
            s.flow = s.found;
            Ok(Reason::Forward)
        }
        Inserted::Exists | Inserted::Full => {
            tables.remove_flow(Room::HalfOpen, &s.other);
            Err(Reason::DropFlowTable)
        }
    }
}

/// Whether nobody can have a source address. The stack would refuse most of these as well (RFC 1812, 5.3.7), but does not see what
/// goes past it.
#[inline(always)]
fn is_forged(tables: &impl Tables, source: &Ip) -> bool {
    let nobodys = if source.is_v4() {
        let [first, ..] = source.v4_bytes();
        matches!(first, 0 | 127 | 224..=239) || source.v4_bytes() == [255; 4]
    } else {
        let [first, ..] = source.bytes;
        let [prefix @ .., last] = source.bytes;
        first == 0xff || (prefix == [0; 15] && last <= 1)
    };
    let kind = |address: Address| AddressKind::from_code(address.kind);
    nobodys
        || (tables.may_know(source)
            && tables
                .address(source)
                .and_then(kind)
                .is_some_and(AddressKind::is_cluster_ip))
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
