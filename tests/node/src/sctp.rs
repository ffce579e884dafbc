//! SCTP by raw sockets: the kernel need not have it, and every packet can be looked at.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crc::{CRC_32_ISCSI, Crc};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto, socket_with,
};
use weir_lab::{Host, Pod, clock};

/// Chunk DATA.
pub const DATA: u8 = 0;
/// Chunk INIT.
pub const INIT: u8 = 1;
/// Chunk INIT ACK.
pub const INIT_ACK: u8 = 2;
/// Chunk SACK, with which a [`Server`] echoes data.
pub const SACK: u8 = 3;
/// Chunk ABORT.
pub const ABORT: u8 = 6;
/// Chunk COOKIE ECHO.
pub const COOKIE_ECHO: u8 = 10;
/// Chunk COOKIE ACK.
pub const COOKIE_ACK: u8 = 11;

/// How long a call waits for a packet before it looks whether it is still wanted.
const TURN: Duration = Duration::from_millis(50);
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// A packet with one chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Verification tag.
    pub tag: u32,
    /// Type of the chunk.
    pub chunk: u8,
    /// What is in it; its length is a multiple of four.
    pub data: Vec<u8>,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let length = u16::try_from(4 + self.data.len()).unwrap_or(u16::MAX);
        let mut bytes = [self.source.to_be_bytes(), self.destination.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0, 0, 0, 0, self.chunk, 0]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.data);
        let sum = CRC32C.checksum(&bytes).to_le_bytes();
        bytes.splice(8..12, sum);
        bytes
    }

    /// Reads a packet; `None` if it is not whole or its checksum is wrong.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (head, data) = bytes.split_first_chunk::<16>()?;
        let [s_a, s_b, d_a, d_b, t_a, t_b, t_c, t_d, sum @ .., chunk, _, _, _] = *head;
        let mut empty = bytes.to_vec();
        empty.splice(8..12, [0; 4]);
        (CRC32C.checksum(&empty) == u32::from_le_bytes(sum)).then(|| Self {
            source: u16::from_be_bytes([s_a, s_b]),
            destination: u16::from_be_bytes([d_a, d_b]),
            tag: u32::from_be_bytes([t_a, t_b, t_c, t_d]),
            chunk,
            data: data.to_vec(),
        })
    }
}

/// A raw socket on a machine.
#[derive(Debug)]
pub struct Speaker {
    socket: OwnedFd,
    v6: bool,
}

impl Speaker {
    /// Opens one.
    pub fn new(host: &Host, v6: bool) -> Result<Self> {
        let family = if v6 {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let socket =
            host.run(|| socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::SCTP)))?;
        let socket = socket.with_context(|| format!("{} opens no raw socket", host.name()))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(TURN))?;
        Ok(Self { socket, v6 })
    }

    /// Sends a packet.
    pub fn send(&self, to: IpAddr, packet: &Packet) -> Result<()> {
        let sent = sendto(
            &self.socket,
            &packet.bytes(),
            SendFlags::empty(),
            &SocketAddr::new(to, 0),
        );
        sent.map(|_| ()).with_context(|| format!("cannot send to {to}"))
    }

    /// The next packet for a port and who sent it, if it comes soon.
    ///
    /// # Errors
    ///
    /// If the checksum of one is wrong.
    pub fn receive(&self, port: u16, within: Duration) -> Result<Option<(IpAddr, Packet)>> {
        let begin: Instant = clock::now();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        while begin.elapsed() < within {
            let (bytes, from) = match recvfrom(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok(((bytes, _), _, from)) => (bytes, from),
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            // With IPv4 the header comes along.
            let header = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
            let bytes = bytes.get(if self.v6 { 0 } else { header }..).unwrap_or_default();
            let from = from.context("a packet from nobody")?;
            let from = SocketAddr::try_from(from).map_err(|_| io::Error::other("no IP address"))?;
            let packet =
                Packet::read(bytes).with_context(|| format!("a wrong checksum from {from}: {bytes:02x?}"))?;
            if packet.destination == port {
                return Ok(Some((from.ip(), packet)));
            }
        }
        Ok(None)
    }
}

/// Answers INIT, COOKIE ECHO and DATA at a port of a pod, in both families; dropping it ends it.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<(IpAddr, Packet)>>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Server {
    /// Starts it.
    pub fn start(pod: &Pod, port: u16) -> Result<Self> {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut threads = Vec::new();
        for v6 in [false, true] {
            let speaker = Speaker::new(pod.host(), v6)?;
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            threads.push(thread::spawn(move || serve(&speaker, port, &stop, &seen)));
        }
        Ok(Self { stop, seen, threads })
    }

    /// What came, and from whom, since it was asked last.
    pub fn seen(&self) -> Vec<(IpAddr, Packet)> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends it; an error if it got a packet with a wrong checksum.
    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("the server panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(speaker: &Speaker, port: u16, stop: &AtomicBool, seen: &Mutex<Vec<(IpAddr, Packet)>>) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let Some((from, packet)) = speaker.receive(port, TURN)? else {
            continue;
        };
        let chunk = match packet.chunk {
            INIT => Some(INIT_ACK),
            COOKIE_ECHO => Some(COOKIE_ACK),
            DATA => Some(SACK),
            _ => None,
        };
        let answer = chunk.map(|chunk| Packet {
            source: port,
            destination: packet.source,
            tag: 7,
            chunk,
            data: packet.data.clone(),
        });
        // Noted first: who has the answer may ask what was seen.
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((from, packet));
        if let Some(answer) = answer {
            speaker.send(from, &answer)?;
        }
    }
    Ok(())
}
