//! A socket's life: `connect` and `sendmsg` are given a backend's address, so no packet has to be translated;
//! `recvmsg` and `getpeername` are told the frontend's, so the program does not notice.
//!
//! Connected UDP of pods is left to the packet path: a socket keeps the address that it was given until it is
//! closed, but the packet path can turn to another backend the moment one dies.

use proxy_common::{
    Address, AddressKind, Backend, Direction, Ip, Reason, Service, ServiceKey, Socket, SocketKey,
};

use crate::parse::{TCP, UDP};
use crate::tables::Tables;
use crate::{select, service};

/// What a program asks its socket to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// The kernel's cookie of the socket.
    pub cookie: u64,
    /// Where to.
    pub address: Ip,
    /// Port of `address`, host order.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Whether the socket is in the host's network namespace, not in a pod's.
    pub host: bool,
    /// Whether this is `connect`, not `sendmsg`.
    pub connect: bool,
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
pub fn to_service(tables: &impl Tables, call: &Call) -> Answer {
    let Some(address) = tables.address(&call.address) else {
        return Answer::Leave;
    };
    let Some(kind) = AddressKind::from_code(address.kind) else {
        return Answer::Leave;
    };
    if (call.protocol != TCP && call.protocol != UDP) || (call.connect && call.protocol == UDP && !call.host)
    {
        return Answer::Leave;
    }
    let service = match find(tables, call, &address, kind) {
        Ok(service) => service,
        Err(answer) => return answer,
    };
    if call.protocol == UDP
        && let Some(told) = tables.socket(&key(call, Direction::ToService))
        && told.service == service.id
        && select::still_serving(tables, told.backend_id, told.backend_generation)
    {
        return Answer::Use(told.address, told.port);
    }
    match select::backend(tables, &service, false) {
        Ok(backend) => {
            remember(tables, call, &service, &backend);
            tables.count_chosen(backend.id);
            Answer::Use(backend.address, backend.port)
        }
        Err(reason @ Reason::RejectNoEndpoints) => Answer::Refuse(reason),
        Err(reason) => Answer::Block(reason),
    }
}

/// `recvmsg` and `getpeername`: the frontend that a backend's address stands for on this socket.
#[inline(always)]
pub fn from_backend(tables: &impl Tables, call: &Call) -> Option<(Ip, u16)> {
    let told = tables.socket(&key(call, Direction::FromBackend))?;
    Some((told.address, told.port))
}

/// The service that is asked for, or the answer if there is none.
#[inline(always)]
fn find(tables: &impl Tables, call: &Call, address: &Address, kind: AddressKind) -> Result<Service, Answer> {
    let Some(config) = tables.config() else {
        return Err(Answer::Leave);
    };
    if kind == AddressKind::Node && !(address.node_ports != 0 && service::is_node_port(&config, call.port)) {
        return Err(Answer::Leave);
    }
    let mut wanted = ServiceKey::default();
    service::write_key(&call.address, call.port, call.protocol, kind, &mut wanted);
    match tables.service(&wanted) {
        Some(service) => Ok(service),
        None if kind == AddressKind::Node => Err(Answer::Leave),
        None => Err(Answer::Refuse(Reason::RejectUndefinedPort)),
    }
}

/// Remembers what the socket is told: for answers, and for UDP also for the next datagram to the same frontend.
#[inline(always)]
fn remember(tables: &impl Tables, call: &Call, service: &Service, backend: &Backend) {
    let mut told = Socket {
        address: call.address,
        port: call.port,
        reserved: 0,
        service: service.id,
        backend_id: backend.id,
        backend_generation: backend.generation,
    };
    let mut row = key(call, Direction::FromBackend);
    row.address = backend.address;
    row.port = backend.port;
    tables.put_socket(&row, &told);
    if call.protocol == UDP {
        told.address = backend.address;
        told.port = backend.port;
        tables.put_socket(&key(call, Direction::ToService), &told);
    }
}

#[inline(always)]
const fn key(call: &Call, direction: Direction) -> SocketKey {
    SocketKey {
        cookie: call.cookie,
        address: call.address,
        port: call.port,
        protocol: call.protocol,
        direction: direction.code(),
        reserved: 0,
    }
}
