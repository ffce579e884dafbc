//! Listening sockets for the next process, so that an upgrade refuses no connection.
//!
//! ```text
//!  old: serves ──────────────── sockets (SCM_RIGHTS) ──▶ new: reads all objects, then takes clients
//!  old: drains, and ends ◀────────────────── "serving" ──┘
//! ```
//!
//! Both have the same sockets in between: a connection that waits in the kernel's queue is taken by whoever comes first, and
//! none is lost when the old one closes its side. It works where both share a network namespace (the host's), and run as the
//! same user. They meet at a path, or, as two pods have no folder in common, at a name that the network namespace has (`@NAME`).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{self as unix, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::private_socket;

/// Sockets in one message; the kernel takes 253.
const AT_ONCE: usize = 64;
/// Sockets at all.
const MOST: usize = 4096;
/// Until the other side says something.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to be there.
const RETRY: Duration = Duration::from_millis(100);
/// So often one may break off.
const TRIES: u32 = 10;
/// What the new process says when it takes clients.
const SERVING: u8 = b'S';

/// A listening socket, and what comes to it.
#[derive(Debug)]
pub struct Handed {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// The socket.
    pub socket: OwnedFd,
}

/// What comes before the sockets.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Letter {
    /// Address and whether TLS is spoken, socket by socket.
    doors: Vec<(SocketAddr, bool)>,
}

/// The way back to the process that handed its sockets over.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// Clients are taken here: it may go.
    pub fn relieve(mut self) -> io::Result<()> {
        self.0.write_all(&[SERVING])
    }
}

/// The sockets of the process that answers at this path; none if nobody does. One that ends in this moment breaks off, and then
/// somebody else answers, or nobody.
pub fn take(path: &Path) -> io::Result<Option<(Vec<Handed>, Predecessor)>> {
    let breaks_off = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
        )
    };
    for _ in 0..TRIES {
        match ask(path) {
            Err(error) if breaks_off(&error) => thread::sleep(RETRY),
            answer => return answer,
        }
    }
    ask(path)
}

fn ask(path: &Path) -> io::Result<Option<(Vec<Handed>, Predecessor)>> {
    let connected = match name(path)? {
        Some(name) => UnixStream::connect_addr(&name),
        None => UnixStream::connect(path),
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // Both share the mode, so it is set back.
    stream.set_nonblocking(true)?;
    trust(&tokio::net::UnixStream::from_std(stream.try_clone()?)?)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let letter = read_letter(&mut stream)?;
    let mut handed = Vec::new();
    let mut doors = letter.doors.into_iter();
    while doors.len() > 0 {
        let sockets = receive(&stream)?;
        if sockets.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let pairs = sockets.into_iter().zip(doors.by_ref());
        handed.extend(pairs.map(|(socket, (address, tls))| Handed { address, tls, socket }));
    }
    Ok(Some((handed, Predecessor(stream))))
}

/// Sockets that are to be had. Dropping it ends that, and closes these copies of them.
#[derive(Debug)]
pub struct Offer(JoinHandle<()>);

impl Drop for Offer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands sockets to whoever asks at this path. Who then says that it serves is told to `relieved`.
pub fn offer(path: &Path, sockets: Vec<Handed>, relieved: mpsc::Sender<()>) -> io::Result<Offer> {
    let bound = match bind(path) {
        // The process before has the name until it knows that it may go.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && name(path)?.is_some() => None,
        bound => Some(bound?),
    };
    let (path, sockets) = (path.to_owned(), Arc::new(sockets));
    Ok(Offer(tokio::spawn(async move {
        let listener = match bound {
            Some(listener) => listener,
            None => bind_later(path).await,
        };
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(RETRY).await;
                continue;
            };
            if let Err(error) = trust(&stream) {
                tracing::warn!(%error, "somebody else asked for the listening sockets");
                continue;
            }
            let Ok(stream) = stream.into_std() else { continue };
            let (sockets, relieved) = (Arc::clone(&sockets), relieved.clone());
            // The other side takes its time to read all objects; nobody waits for this thread at the end.
            thread::spawn(move || serve(stream, &sockets, &relieved));
        }
    })))
}

async fn bind_later(path: PathBuf) -> UnixListener {
    loop {
        sleep(RETRY).await;
        if let Ok(listener) = bind(&path) {
            return listener;
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(name) = name(path)? {
        let listener = unix::UnixListener::bind_addr(&name)?;
        listener.set_nonblocking(true)?;
        return UnixListener::from_std(listener);
    }
    private_socket::bind(path)
}

/// The name in the network namespace, if that is what is meant.
fn name(path: &Path) -> io::Result<Option<unix::SocketAddr>> {
    let name = path.as_os_str().as_bytes().strip_prefix(b"@");
    name.map(unix::SocketAddr::from_abstract_name).transpose()
}

fn serve(stream: UnixStream, sockets: &[Handed], relieved: &mpsc::Sender<()>) {
    match hand(stream, sockets) {
        // Who is told may be ending already.
        Ok(true) => drop(relieved.blocking_send(())),
        Ok(false) => {
            tracing::warn!("a process took the listening sockets, and ended before it served");
        }
        Err(error) => tracing::warn!(%error, "the listening sockets could not be handed over"),
    }
}

/// Hands all over; whether the other side serves.
fn hand(mut stream: UnixStream, sockets: &[Handed]) -> io::Result<bool> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let letter = Letter {
        doors: sockets
            .iter()
            .map(|handed| (handed.address, handed.tls))
            .collect(),
    };
    let text = serde_json::to_vec(&letter)?;
    let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&text)?;
    for some in sockets.chunks(AT_ONCE) {
        send(&stream, some)?;
    }
    tracing::info!(
        "{} listening sockets are handed to the next process",
        sockets.len()
    );
    let mut word = [0];
    // For as long as the other side lives.
    Ok(stream.read(&mut word)? == 1 && word == [SERVING])
}

fn read_letter(stream: &mut UnixStream) -> io::Result<Letter> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MOST * 128 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn send(stream: &UnixStream, handed: &[Handed]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<_> = handed.iter().map(|handed| handed.socket.as_fd()).collect();
    if !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(stream, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut word)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    Ok(rights.flatten().collect())
}

/// Root, and who runs as we do.
///
/// Not by rustix: it refuses credentials without a process number, and that is what a peer in another pod has, where each pod has
/// numbers of its own.
fn trust(stream: &tokio::net::UnixStream) -> io::Result<()> {
    let other = stream.peer_cred()?.uid();
    if other == 0 || other == geteuid().as_raw() {
        return Ok(());
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

#[cfg(test)]
mod tests;
