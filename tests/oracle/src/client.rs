//! A client: asks what it is told on its standard input, all at once, and says what came of it.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures::future::join_all;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::wire::{Ask, Batch, Report, Said};

/// Asks everything of a batch at the same time.
pub async fn ask(batch: &Batch) -> Report {
    let limit = Duration::from_millis(batch.timeout_ms);
    let asks = batch.asks.iter().map(|ask| {
        let connections = ask.from.iter().map(|&from| connection(ask, from, limit));
        join_all(connections.collect::<Vec<_>>())
    });
    join_all(asks.collect::<Vec<_>>()).await
}

async fn connection(ask: &Ask, from: SocketAddr, limit: Duration) -> Said {
    said(timeout(limit, exchange(ask, from)).await)
}

fn said(result: Result<io::Result<String>, tokio::time::error::Elapsed>) -> Said {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    match result {
        Err(_) => Said::Silent,
        Ok(Ok(answer)) => Said::Answer(answer),
        Ok(Err(error)) => match error.kind() {
            ConnectionRefused => Said::Refused,
            HostUnreachable => Said::Unreachable,
            NetworkUnreachable => Said::NoRoute,
            TimedOut => Said::Silent,
            _ => Said::Other(error.to_string()),
        },
    }
}

async fn exchange(ask: &Ask, from: SocketAddr) -> io::Result<String> {
    let mut buffer = [0; 256];
    let length = if ask.udp {
        udp(ask, from, &mut buffer).await?
    } else {
        tcp(ask.target, from, &mut buffer).await?
    };
    let answer = buffer.get(..length).unwrap_or_default();
    Ok(String::from_utf8_lossy(answer).trim_end().to_owned())
}

async fn udp(ask: &Ask, from: SocketAddr, buffer: &mut [u8]) -> io::Result<usize> {
    let socket = UdpSocket::bind(from).await?;
    // Else a missing route is nothing that a datagram's sender is told.
    if from.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    }
    let sent = if ask.connected {
        socket.connect(ask.target).await?;
        socket.send(b"who").await
    } else {
        socket.send_to(b"who", ask.target).await
    };
    match sent {
        // netfilter took the datagram on its way out; whether it says why is to be read.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        sent => drop(sent?),
    }
    let (length, peer) = socket.recv_from(buffer).await?;
    if peer != ask.target {
        return Err(io::Error::other(format!("an answer from {peer}")));
    }
    Ok(length)
}

async fn tcp(target: SocketAddr, from: SocketAddr, buffer: &mut [u8]) -> io::Result<usize> {
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // The connection ends with a RST, and nothing of it stays anywhere.
    socket.set_zero_linger()?;
    socket.bind(from)?;
    if target.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    let mut stream = socket.connect(target).await?;
    if stream.peer_addr().is_err() {
        return Err(queued_error(&stream));
    }
    let mut length = 0;
    while !buffer.get(..length).unwrap_or_default().ends_with(b"\n") {
        let read = stream.read(buffer.get_mut(length..).unwrap_or_default()).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length += read;
    }
    Ok(length)
}

/// The ICMPv6 error that woke a socket which is not connected.
///
/// Here everything is on one machine, so such an error arrives while `connect()` has not yet returned; then the kernel
/// only tells of it with the retransmission of the SYN, a second later (`tcp_v6_err`, Linux 6.18), but for this queue.
fn queued_error(stream: &TcpStream) -> io::Error {
    let mut control = [0; 256];
    let (fd, flags) = (stream.as_raw_fd(), MsgFlags::MSG_ERRQUEUE);
    let message = recvmsg::<()>(fd, &mut [], Some(&mut control), flags);
    let errors = message.and_then(|message| Ok(message.cmsgs()?.collect::<Vec<_>>()));
    let number = errors
        .unwrap_or_default()
        .into_iter()
        .find_map(|message| match message {
            ControlMessageOwned::Ipv6RecvErr(error, _) => i32::try_from(error.ee_errno).ok(),
            _ => None,
        });
    number.map_or_else(|| io::Error::other("not connected"), io::Error::from_raw_os_error)
}

/// Serves batches until the standard input ends.
pub fn serve() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let batch: Batch = serde_json::from_str(&line?)?;
        let mut report = serde_json::to_vec(&runtime.block_on(ask(&batch)))?;
        report.push(b'\n');
        output.write_all(&report)?;
        output.flush()?;
    }
    Ok(())
}
