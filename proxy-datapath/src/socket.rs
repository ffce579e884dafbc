//! A socket's life: `connect` and `sendmsg` are given a backend's address, so no packet has to be translated;
//! `recvmsg` and `getpeername` are told the frontend's, so the program does not notice.
//!
//! Connected UDP of pods is left to the packet path: a socket keeps the address that it was given until it is
//! closed, but the packet path can turn to another backend the moment one dies.
//!
//! A pod is left to it also where only some sources are let in (`loadBalancerSourceRanges`), and where a service port has
//! session affinity: `connect` comes before the socket has an address, which is what the client is known by, and its packets
//! carry it. All processes of the node are one client. So it is where backends shall see the node's address
//! (`--masquerade-all`, `--masquerade-external`), which its packets are given; a process of the node has it anyway.
//!
//! Answers come by a backend's address, so one backend can stand for one frontend of a socket only. A UDP socket that
//! talks to several frontends gets another backend where there is one. Where there is none, a pod's datagrams to the
//! second frontend are left to the packet path, which gives them another source port. A host process has no packet
//! path: for it the frontend that was used last has the name, which is right as long as it asks one after the other.

use core::hint::cold_path;

use proxy_common::{
    Address, AddressKind, Backend, Direction, FrontendFlag, Ip, NodeConfig, Reason, Service, ServiceKey,
    Socket, SocketKey,
};

use crate::parse::{TCP, UDP};
use crate::select::Pick;
use crate::tables::Tables;
use crate::{select, service};

/// Backends that are tried for a socket that talks to several frontends.
const TRIES: usize = 4;

/// What a program asks its socket to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Where to.
    pub address: Ip,
    /// Port of `address`, host order.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Whether this is `connect`, not `sendmsg`.
    pub connect: bool,
}

/// The socket. Each answer is a call of the kernel, so it is asked only for what is needed.
pub trait Caller {
    /// The kernel's cookie of the socket.
    fn cookie(&self) -> u64;
    /// Whether it is in the host's network namespace, not in a pod's.
    fn is_host(&self) -> bool;
    /// The port that it sends from, host order.
    fn source_port(&self) -> u16;
}

/// What the socket does instead.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing else: the address is none of weir's, or the packet path serves it.
    Leave,
    /// Talk to this address and port.
    Use(Ip, u16),
    /// Fail, as if nobody listened there.
    Refuse(Reason),
    /// Fail, as if the packet were lost: nobody may answer.
    Block(Reason),
}

/// `connect` and `sendmsg`.
#[inline(always)]
pub fn to_service(tables: &impl Tables, caller: &impl Caller, call: &Call) -> Answer {
    // The cheap test: most calls are for an address that weir does not know.
    if call.protocol != TCP && call.protocol != UDP {
        return Answer::Leave;
    }
    let known = tables
        .may_know(&call.address)
        .then(|| tables.address(&call.address));
    let Some(address) = known.flatten() else {
        return if service::is_unallocated(tables, &call.address) {
            Answer::Block(Reason::DropUnallocated)
        } else {
            Answer::Leave
        };
    };
    let Some(kind) = AddressKind::from_code(address.kind) else {
        return Answer::Leave;
    };
    if call.connect && call.protocol == UDP && !caller.is_host() {
        return Answer::Leave;
    }
    // A pod has a loopback address of its own.
    if kind == AddressKind::Loopback && !caller.is_host() {
        return Answer::Leave;
    }
    let service = match find(tables, call, &address, kind) {
        Ok(service) => service,
        Err(answer) => return answer,
    };
    if service.flags != 0
        && let Some(answer) = special(tables, caller, call, &service)
    {
        return answer;
    }
    let asked = Asked {
        call,
        service: &service,
        cookie: caller.cookie(),
    };
    if call.protocol == UDP
        && let Some(answer) = again(tables, &asked)
    {
        return answer;
    }
    choose(tables, caller, &asked)
}

/// `recvmsg` and `getpeername`: the frontend that a backend's address stands for on this socket.
#[inline(always)]
pub fn from_backend(tables: &impl Tables, caller: &impl Caller, call: &Call) -> Option<(Ip, u16)> {
    // `accept` asks too, and whom it accepts is a client, whose port is hardly ever that of a backend.
    if !tables.was_given(call.port) {
        return None;
    }
    let told = tables.socket(&key(caller.cookie(), call, Direction::FromBackend))?;
    Some((told.address, told.port))
}

/// The service that is asked for, or the answer if there is none.
#[inline(always)]
fn find(tables: &impl Tables, call: &Call, address: &Address, kind: AddressKind) -> Result<Service, Answer> {
    if matches!(kind, AddressKind::Node | AddressKind::Loopback) && address.vip == 0 {
        let in_range = |config: NodeConfig| service::is_node_port(&config, call.port);
        if address.node_ports == 0 || !tables.config().is_some_and(in_range) {
            return Err(Answer::Leave);
        }
    }
    let asked = service::Asked {
        address: &call.address,
        port: call.port,
        protocol: call.protocol,
    };
    match service::find(tables, &asked, address, kind, &mut ServiceKey::default()) {
        Some(service) => Ok(service),
        None if tables
            .config()
            .is_some_and(|config| service::rejects_other_ports(&config, kind)) =>
        {
            Err(Answer::Refuse(Reason::RejectUndefinedPort))
        }
        None => Err(Answer::Leave),
    }
}

/// What becomes of a call to a frontend with a [`FrontendFlag`]; `None` if it goes on as any other.
///
/// `connect` comes before the socket has an address, so a pod is left to the packet path, which knows its. A host process has
/// the node's address.
#[inline(always)]
fn special(tables: &impl Tables, caller: &impl Caller, call: &Call, service: &Service) -> Option<Answer> {
    cold_path();
    if !caller.is_host() {
        return Some(leave(tables, caller, call));
    }
    if !service.has(FrontendFlag::Guarded) {
        return None;
    }
    let node = tables
        .config()
        .map(|config| config.fallback_source(call.address.is_v4()));
    match node {
        Some(node) if service::lets_in(tables, service, &node) => None,
        _ => Some(Answer::Block(Reason::DropSourceRange)),
    }
}

/// A question that weir answers.
struct Asked<'a> {
    call: &'a Call,
    service: &'a Service,
    cookie: u64,
}

impl Asked<'_> {
    /// Key of what the next datagram to the same frontend is told.
    #[inline(always)]
    const fn key(&self) -> SocketKey {
        key(self.cookie, self.call, Direction::ToService)
    }

    /// Key of what the answers of a backend are named.
    #[inline(always)]
    const fn answers(&self, backend: &Ip, port: u16) -> SocketKey {
        let mut key = key(self.cookie, self.call, Direction::FromBackend);
        key.address = *backend;
        key.port = port;
        key
    }

    /// Whether answers are named as this frontend.
    #[inline(always)]
    fn is_named(&self, row: &Socket) -> bool {
        row.address == self.call.address && row.port == self.call.port
    }

    /// A row about a backend.
    #[inline(always)]
    const fn row(&self, (id, generation): (u32, u32), (address, port): (Ip, u16)) -> Socket {
        Socket {
            address,
            port,
            reserved: 0,
            service: self.service.id,
            backend_id: id,
            backend_generation: generation,
        }
    }
}

/// What the socket was told of this frontend before, as long as that backend serves.
#[inline(always)]
fn again(tables: &impl Tables, asked: &Asked<'_>) -> Option<Answer> {
    let told = tables.socket(&asked.key())?;
    if told.service != asked.service.id
        || !select::still_serving(tables, told.backend_id, told.backend_generation)
    {
        return None;
    }
    if told.address.is_unspecified() {
        return Some(Answer::Leave);
    }
    let answers = asked.answers(&told.address, told.port);
    // It may have been evicted, or name another frontend since.
    if !tables.socket(&answers).is_some_and(|row| asked.is_named(&row)) {
        name_answers(
            tables,
            asked,
            &answers,
            (told.backend_id, told.backend_generation),
        );
    }
    Some(Answer::Use(told.address, told.port))
}

/// Takes a turn, and another one as long as the answers of the backend are named as another frontend.
#[inline(always)]
fn choose(tables: &impl Tables, caller: &impl Caller, asked: &Asked<'_>) -> Answer {
    let sticks = asked.service.affinity_timeout != 0;
    if sticks && !caller.is_host() {
        return leave(tables, caller, asked.call);
    }
    // A connected socket hears of one backend only, and there is no other for a client that sticks to one.
    let several = asked.call.protocol == UDP && !asked.call.connect && !sticks;
    // All processes of the node are one client. A pod is not asked about here, see above.
    let mut pick = Pick::of_node();
    if sticks {
        pick.now = tables.now();
    }
    match select::offer(asked.service, false, &mut pick) {
        Ok(()) => {}
        Err(reason @ Reason::RejectNoEndpoints) => return Answer::Refuse(reason),
        Err(reason) => return Answer::Block(reason),
    }
    for _ in 0..TRIES {
        if !tables.pick(&mut pick) {
            return Answer::Block(Reason::DropBackendMissing);
        }
        let answers = asked.answers(&pick.backend.address, pick.backend.port);
        if !several || tables.socket(&answers).is_none_or(|row| asked.is_named(&row)) {
            return give(tables, asked, &pick.backend);
        }
    }
    let backend = &pick.backend;
    if caller.is_host() {
        return give(tables, asked, backend);
    }
    tables.share(caller.source_port());
    let left = asked.row((backend.id, backend.generation), (Ip::UNSPECIFIED, 0));
    tables.put_socket(&asked.key(), &left);
    Answer::Leave
}

/// Leaves a pod to the packet path, which knows its address. Its datagrams may meet there a backend that the same socket
/// talks to past that path, so the port is marked: see [`Tables::is_shared`].
#[inline(always)]
fn leave(tables: &impl Tables, caller: &impl Caller, call: &Call) -> Answer {
    if call.protocol == UDP {
        tables.share(caller.source_port());
    }
    Answer::Leave
}

/// Gives the socket a backend, and remembers it: for answers, and for UDP also for the next datagram.
#[inline(always)]
fn give(tables: &impl Tables, asked: &Asked<'_>, backend: &Backend) -> Answer {
    let id = (backend.id, backend.generation);
    name_answers(tables, asked, &asked.answers(&backend.address, backend.port), id);
    if asked.call.protocol == UDP {
        let told = asked.row(id, (backend.address, backend.port));
        tables.put_socket(&asked.key(), &told);
    }
    tables.count_chosen(backend.id);
    Answer::Use(backend.address, backend.port)
}

/// Has a backend's answers named as the frontend.
#[inline(always)]
fn name_answers(tables: &impl Tables, asked: &Asked<'_>, answers: &SocketKey, id: (u32, u32)) {
    let row = asked.row(id, (asked.call.address, asked.call.port));
    tables.note_given(answers.port);
    tables.put_socket(answers, &row);
}

#[inline(always)]
const fn key(cookie: u64, call: &Call, direction: Direction) -> SocketKey {
    SocketKey {
        cookie,
        address: call.address,
        port: call.port,
        protocol: call.protocol,
        direction: direction.code(),
        reserved: 0,
    }
}
