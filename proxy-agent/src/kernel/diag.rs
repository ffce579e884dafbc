//! `sock_diag(7)`: the connected UDP sockets of this network namespace, and an end to one of them.

use std::io;

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use proxy_common::{Direction, Protocol, SocketKey};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;
use rtnetlink::sys::{Socket, SocketAddr};

/// The kernel answers in pieces of up to 32 KiB, and in smaller ones if less is asked for.
const PIECE: usize = 32 << 10;

/// A connected UDP socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Connected {
    family: u8,
    id: SocketId,
}

impl Connected {
    /// Key of the row that a socket has if weir named the address that it is connected to.
    pub(super) fn key(&self) -> SocketKey {
        SocketKey {
            cookie: cookie(self.id.cookie),
            address: self.id.destination_address.into(),
            port: self.id.destination_port,
            protocol: Protocol::Udp.number(),
            direction: Direction::FromBackend.code(),
            reserved: 0,
        }
    }

    /// Where it listens, for logs.
    pub(super) const fn local(&self) -> (std::net::IpAddr, u16) {
        (self.id.source_address, self.id.source_port)
    }
}

/// Two words, the low one first, each in the order of the machine (`sock_diag_save_cookie`).
const fn cookie(words: [u8; 8]) -> u64 {
    let cookie = u64::from_ne_bytes(words);
    if cfg!(target_endian = "big") {
        cookie.rotate_left(32)
    } else {
        cookie
    }
}

/// A netlink connection of its own. After an error, what is left in it is nobody's answer: open another one.
pub(super) struct Diag {
    socket: Socket,
}

impl Diag {
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel has answered when `send` returns, so there is nothing to wait for.
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Asks for all connected UDP sockets of IPv4, or of IPv6 (where `::ffff:a.b.c.d` may be the peer).
    pub(super) fn list(&self, ipv6: bool) -> io::Result<List<'_>> {
        let (family, socket_id) = if ipv6 {
            (AF_INET6, SocketId::new_v6())
        } else {
            (AF_INET, SocketId::new_v4())
        };
        let question = SockDiagMessage::InetRequest(request(family, socket_id));
        self.send(question, NLM_F_REQUEST | NLM_F_DUMP)?;
        Ok(List {
            diag: self,
            finished: false,
        })
    }

    /// Ends a socket as if its peer had: whoever uses it is told `ECONNABORTED`, and it is not connected any more. False
    /// if there is no such socket any more. The kernel compares the cookie, so no other one is hit.
    pub(super) fn end(&self, socket: &Connected) -> io::Result<bool> {
        let question = SockDiagMessage::InetRequest(request(socket.family, socket.id.clone()));
        self.send(SockDiagDestroy::new(question), NLM_F_REQUEST | NLM_F_ACK)?;
        for payload in self.receive::<SockDiagDestroy>()? {
            if let NetlinkPayload::Error(answer) = payload {
                return match answer.code {
                    None => Ok(true),
                    Some(code) if code.get() == -libc::ENOENT => Ok(false),
                    Some(_) => Err(answer.to_io()),
                };
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    fn send<M>(&self, message: M, flags: u16) -> io::Result<()>
    where
        M: NetlinkSerializable + Into<NetlinkPayload<M>>,
    {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    fn receive<M: NetlinkDeserializable>(&self) -> io::Result<Vec<NetlinkPayload<M>>> {
        let mut bytes = Vec::with_capacity(PIECE);
        self.socket.recv(&mut bytes, 0)?;
        messages(&bytes)
    }
}

fn request(family: u8, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_UDP,
        extensions: ExtensionFlags::empty(),
        // Of UDP: that it is connected.
        states: StateFlags::ESTABLISHED,
        socket_id,
    }
}

/// The messages of one piece, each of which begins at a multiple of four.
fn messages<M: NetlinkDeserializable>(mut rest: &[u8]) -> io::Result<Vec<NetlinkPayload<M>>> {
    let mut payloads = Vec::new();
    while !rest.is_empty() {
        let length = NetlinkBuffer::new_checked(rest)
            .map_err(io::Error::other)?
            .length();
        payloads.push(
            NetlinkMessage::deserialize(rest)
                .map_err(io::Error::other)?
                .payload,
        );
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let next = length.checked_next_multiple_of(4).unwrap_or(usize::MAX);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(payloads)
}

/// What [`Diag::list`] asked for, piece by piece.
pub(super) struct List<'d> {
    diag: &'d Diag,
    finished: bool,
}

impl Iterator for List<'_> {
    type Item = io::Result<Vec<Connected>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let piece = self.piece();
        self.finished |= piece.is_err();
        Some(piece)
    }
}

impl List<'_> {
    fn piece(&mut self) -> io::Result<Vec<Connected>> {
        let mut sockets = Vec::new();
        for payload in self.diag.receive()? {
            match payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    sockets.push(Connected {
                        family: response.header.family,
                        id: response.header.socket_id,
                    });
                }
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => self.finished = true,
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(sockets)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn all() -> io::Result<Vec<Connected>> {
        let diag = Diag::open()?;
        let mut sockets = Vec::new();
        for ipv6 in [false, true] {
            for piece in diag.list(ipv6)? {
                sockets.extend(piece?);
            }
        }
        Ok(sockets)
    }

    #[test]
    fn a_connected_socket_is_listed_with_its_cookie() {
        if let Err(error) = all() {
            println!("skipped: this kernel does not list sockets: {error}");
            return;
        }
        let peers = [
            ("127.0.0.1:0", "127.0.0.1:9"),
            ("[::1]:0", "[::1]:9"),
            ("[::]:0", "[::ffff:127.0.0.1]:9"),
        ];
        for (local, peer) in peers {
            let Ok(socket) = UdpSocket::bind(local) else {
                println!("skipped: no {local} here");
                continue;
            };
            let own = |sockets: Vec<Connected>| {
                let port = socket.local_addr().unwrap().port();
                let mut own = sockets.into_iter().filter(|socket| socket.local().1 == port);
                own.next()
            };
            assert_eq!(own(all().unwrap()), None, "{peer}: not connected yet");
            socket.connect(peer).unwrap();
            let key = own(all().unwrap()).unwrap().key();
            let wanted: std::net::SocketAddr = peer.parse().unwrap();
            assert_eq!((key.address, key.port), (wanted.ip().into(), wanted.port()));
            assert_eq!(key.cookie, rustix::net::sockopt::socket_cookie(&socket).unwrap());
        }
    }

    #[test]
    fn half_a_message_is_an_error() {
        assert_eq!(messages::<SockDiagMessage>(&[]).unwrap(), []);
        assert!(messages::<SockDiagMessage>(&[20, 0, 0, 0, 3, 0, 0, 0]).is_err());
        // A length below that of its own header would be read for ever.
        assert!(messages::<SockDiagMessage>(&[0; 16]).is_err());
    }
}
