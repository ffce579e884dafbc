//! The endpoints of a world: sockets in many namespaces, one thread that answers on all of them.
//!
//! An answer is `NAME PORT CLIENT`: who was met, at which port, and whose address it saw.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_lab::Host;

/// Sockets that were made in a namespace, to be answered on.
#[derive(Default)]
pub struct Servers {
    tcp: Vec<(Arc<str>, TcpListener)>,
    udp: Vec<(Arc<str>, UdpSocket)>,
}

impl Servers {
    /// Listens on a machine, at all its addresses or at these.
    pub fn listen(&mut self, name: &str, host: &Host, addresses: &[IpAddr], ports: &[u16]) -> Result<()> {
        let name: Arc<str> = name.into();
        let any = [Ipv6Addr::UNSPECIFIED.into()];
        // A machine with several addresses would answer a datagram from another than was asked.
        let addresses = if addresses.is_empty() { &any } else { addresses };
        host.run(|| -> Result<()> {
            for &address in addresses {
                for &port in ports {
                    let at = SocketAddr::new(address, port);
                    let context = || format!("cannot listen at {at} on {name}");
                    let tcp = TcpListener::bind(at).with_context(context)?;
                    tcp.set_nonblocking(true)?;
                    let udp = UdpSocket::bind(at).with_context(context)?;
                    udp.set_nonblocking(true)?;
                    self.tcp.push((Arc::clone(&name), tcp));
                    self.udp.push((Arc::clone(&name), udp));
                }
            }
            Ok(())
        })?
    }

    /// Answers until the process ends.
    pub fn start(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new().name("servers".to_owned()).spawn(move || {
            runtime.block_on(async {
                for (name, listener) in self.tcp {
                    tokio::spawn(serve_tcp(name, listener));
                }
                for (name, socket) in self.udp {
                    tokio::spawn(serve_udp(name, socket));
                }
                futures::future::pending::<()>().await;
            });
        })?;
        Ok(())
    }
}

async fn serve_tcp(name: Arc<str>, listener: TcpListener) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        // A client that went away between its SYN and this is no reason to end.
        let Ok((mut stream, peer)) = listener.accept().await else {
            continue;
        };
        let answer = answer(&name, port, peer);
        tokio::spawn(async move {
            // It ends the connection; who ends it first remembers it for a minute.
            if stream.write_all(answer.as_bytes()).await.is_ok() {
                let _ = stream.read(&mut [0; 1]).await;
            }
        });
    }
}

async fn serve_udp(name: Arc<str>, socket: UdpSocket) -> io::Result<()> {
    let port = socket.local_addr()?.port();
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let mut buffer = [0; 64];
    loop {
        // An ICMP error about an earlier answer shows up here.
        let Ok((_, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let _ = socket.send_to(answer(&name, port, peer).as_bytes(), peer).await;
    }
}

fn answer(name: &str, port: u16, peer: SocketAddr) -> String {
    format!("{name} {port} {}\n", peer.ip().to_canonical())
}
