//! Addresses to listen on, as kube-proxy's flags and configuration name them, and the sockets for them.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Where to listen, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindAddress {
    /// Not at all: an empty flag, as with kube-proxy.
    Off,
    /// There; without a port, at that of the default.
    At {
        /// The address; an unspecified one means all addresses of both families.
        ip: IpAddr,
        /// The port.
        port: Option<u16>,
    },
}

/// Not an address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("write ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT")]
pub struct BindAddressError;

impl FromStr for BindAddress {
    type Err = BindAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self::At { ip, port: None });
        }
        let socket: SocketAddr = text.parse().map_err(|_| BindAddressError)?;
        Ok(Self::At {
            ip: socket.ip(),
            port: Some(socket.port()),
        })
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => Ok(()),
            Self::At { ip, port: None } => ip.fmt(out),
            Self::At { ip, port: Some(port) } => SocketAddr::new(*ip, *port).fmt(out),
        }
    }
}

impl BindAddress {
    /// An address of IPv4, as defaults are.
    pub const fn v4(ip: Ipv4Addr, port: u16) -> Self {
        Self::At {
            ip: IpAddr::V4(ip),
            port: Some(port),
        }
    }

    /// The socket address, with `other`'s port where this one has none.
    pub fn socket_or(self, other: Self) -> Option<SocketAddr> {
        let Self::At { ip, port } = self else {
            return None;
        };
        let default = match other {
            Self::At { port, .. } => port,
            Self::Off => None,
        };
        Some(SocketAddr::new(ip, port.or(default).unwrap_or(0)))
    }
}

/// Listens. `0.0.0.0` means both families, as it does in Go: the kubelet of an IPv6 node probes by IPv6.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), at.port());
    if at.ip().is_unspecified() {
        match bind(both, false) {
            // No IPv6 in this kernel, or switched off.
            Err(error) if is_without_ipv6(&error) && at.is_ipv4() => {}
            listener => return listener,
        }
    }
    bind(at, true)
}

/// Listens at an address of one family; an unspecified one leaves the other family alone. The address may be one that
/// the interface has but may not use yet (IPv6 asks its neighbours first).
pub fn listen_only(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(at, true)?;
    if at.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
    } else {
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    start(socket, at)
}

/// Whether it failed because this kernel has no IPv6, or has it switched off.
pub fn is_without_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(
        code,
        Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)
    )
}

fn bind(at: SocketAddr, one_family: bool) -> io::Result<TcpListener> {
    start(socket(at, one_family)?, at)
}

fn socket(at: SocketAddr, one_family: bool) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, one_family)?;
    }
    Ok(socket)
}

fn start(socket: OwnedFd, at: SocketAddr) -> io::Result<TcpListener> {
    net::bind(&socket, &at)?;
    net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHZ: BindAddress = BindAddress::v4(Ipv4Addr::UNSPECIFIED, 10256);

    #[test]
    fn addresses_are_written_as_for_kube_proxy() {
        let table = [
            ("0.0.0.0:10256", "0.0.0.0:10256"),
            ("0.0.0.0", "0.0.0.0:10256"),
            ("::", "[::]:10256"),
            ("[::1]", "[::1]:10256"),
            ("[fd00::1]:99", "[fd00::1]:99"),
            ("127.0.0.1:1", "127.0.0.1:1"),
        ];
        for (text, expected) in table {
            let address: BindAddress = text.parse().unwrap();
            assert_eq!(
                address.socket_or(HEALTHZ),
                Some(expected.parse().unwrap()),
                "{text}"
            );
        }
        let off: BindAddress = "".parse().unwrap();
        assert_eq!(off.socket_or(HEALTHZ), None);
        for bad in ["localhost", "10256", ":10256", "0.0.0.0:99999", "1.2.3"] {
            assert_eq!(bad.parse::<BindAddress>(), Err(BindAddressError), "{bad}");
        }
    }

    #[tokio::test]
    async fn one_family_is_one_family_and_an_address_may_come_later() {
        let v6 = listen_only("[::]:0".parse().unwrap()).unwrap();
        let port = v6.local_addr().unwrap().port();
        let v4 = listen_only(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        assert!(v4.is_ok(), "{v4:?}");
        for later in ["192.0.2.77:0", "[2001:db8::77]:0"] {
            let listener = listen_only(later.parse().unwrap());
            assert!(listener.is_ok(), "{later}: {listener:?}");
        }
    }

    #[tokio::test]
    async fn the_ipv4_wildcard_answers_ipv6_too() {
        let listener = listen("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            let to = SocketAddr::new(host.parse().unwrap(), port);
            assert!(tokio::net::TcpStream::connect(to).await.is_ok(), "{to}");
        }
        let taken = listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
