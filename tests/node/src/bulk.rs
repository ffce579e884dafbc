//! Byte-exact transfers: a server that checks what it gets and sends what can be checked.
//!
//! The client sends `U` or `D` and the number of bytes. `U`: the server reads them and answers how many were wrong.
//! `D`: it sends them.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use weir_lab::Host;

const CHUNK: usize = 64 << 10;
/// Without an answer for so long, a transfer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct Bulk {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    host: Host,
    thread: Option<JoinHandle<()>>,
}

impl Bulk {
    /// Listens on a machine, both families.
    pub fn serve(host: &Host, port: u16) -> Result<Self> {
        let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let listener = host
            .run(|| TcpListener::bind(address))?
            .with_context(|| format!("cannot listen on TCP port {port} of {}", host.name()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A broken transfer is the client's to report.
                thread::spawn(move || serve_one(stream));
            }
        });
        Ok(Self {
            stop,
            address: SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
            host: host.clone(),
            thread: Some(thread),
        })
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let address = self.address;
        // Wakes `accept`.
        let _ = self.host.run(|| TcpStream::connect(address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve_one(mut stream: TcpStream) -> io::Result<()> {
    prepare(&stream)?;
    let mut request = [0; 9];
    stream.read_exact(&mut request)?;
    let [kind, length @ ..] = request;
    let length = u64::from_be_bytes(length);
    if kind == b'U' {
        let wrong = receive(&mut stream, length)?;
        stream.write_all(&wrong.to_be_bytes())
    } else {
        send(&mut stream, length)
    }
}

/// Sends `bytes` to a server, or gets them from it; how many arrived wrong.
pub fn transfer(target: SocketAddr, bytes: u64, upload: bool) -> io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    prepare(&stream)?;
    stream.write_all(if upload { b"U" } else { b"D" })?;
    stream.write_all(&bytes.to_be_bytes())?;
    if upload {
        send(&mut stream, bytes)?;
        let mut wrong = [0; 8];
        stream.read_exact(&mut wrong)?;
        Ok(u64::from_be_bytes(wrong))
    } else {
        receive(&mut stream, bytes)
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn send(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let part = pattern(at, CHUNK.min(usize::try_from(bytes - at).unwrap_or(CHUNK)));
        stream.write_all(part)?;
        at += part.len() as u64;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, bytes: u64) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let (mut at, mut wrong) = (0, 0);
    while at < bytes {
        let length = CHUNK.min(usize::try_from(bytes - at).unwrap_or(CHUNK));
        let Some(part) = chunk.get_mut(..length) else {
            break;
        };
        let got = stream.read(part)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (got, wanted) = (part.get(..got).unwrap_or_default(), pattern(at, got));
        if got != wanted {
            wrong += got.iter().zip(wanted).filter(|(a, b)| a != b).count() as u64;
        }
        at += got.len() as u64;
    }
    Ok(wrong)
}

/// The bytes of a transfer from a place on. They repeat after a prime number of bytes, so that nothing that is lost,
/// doubled or swapped by the chunk, segment or page goes unseen.
fn pattern(at: u64, length: usize) -> &'static [u8] {
    const PERIOD: usize = 1_048_573;
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        // Xorshift: no byte tells the next one.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let period: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        })
        .take(PERIOD)
        .collect();
        period
            .iter()
            .chain(&period)
            .copied()
            .take(PERIOD + CHUNK)
            .collect()
    });
    let start = usize::try_from(at % PERIOD as u64).unwrap_or(0);
    bytes.get(start..start + length).unwrap_or_default()
}
