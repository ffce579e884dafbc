//! Sockets with what the standard library does not set: a source address, a time-out on everything, a long backlog.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

/// A TCP connection from `source`, if given, with the same time-out for connecting, reading and writing.
pub(crate) fn tcp(target: SocketAddr, source: Option<SocketAddr>, limit: Duration) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family(target), SocketType::STREAM, flags, None)?;
    if let Some(source) = source {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &source)?;
    }
    match net::connect(&socket, &target) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => {
            let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
            let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
            if poll(&mut fds, Some(&timeout))? == 0 {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// A UDP socket from `source`, if given; not connected.
pub(crate) fn udp(target: SocketAddr, source: Option<SocketAddr>, limit: Duration) -> io::Result<UdpSocket> {
    let socket = net::socket_with(family(target), SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if let Some(source) = source {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &source)?;
    }
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(limit))?;
    Ok(socket)
}

/// A listener on both families unless `bind` names an address.
pub(crate) fn listener(bind: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(bind.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port);
    let socket = net::socket_with(family(address), SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if bind.is_none() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    net::bind(&socket, &address)?;
    net::listen(&socket, 4096)?;
    Ok(TcpListener::from(socket))
}

/// A UDP socket on both families unless `bind` names an address.
pub(crate) fn udp_server(bind: Option<IpAddr>, port: u16) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(bind.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port);
    let socket = net::socket_with(family(address), SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if bind.is_none() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // A burst of datagrams must not be lost in the test's own server.
    sockopt::set_socket_recv_buffer_size(&socket, 4 << 20)?;
    net::bind(&socket, &address)?;
    Ok(UdpSocket::from(socket))
}

/// An address as people write it: IPv4 also when it came in through an IPv6 socket.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}
