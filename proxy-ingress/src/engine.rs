//! The engine: threads, listeners, and the one value that they serve.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, watch};

use crate::handover::Handed;
use crate::listen::{Door, accept};
use crate::metrics::hosts::Hosts;
use crate::snapshot::Snapshot;
use crate::telemetry::tellers::{Tellers, Telling, Told};
use crate::telemetry::{Telemetry, TellError};
use crate::upstream::check;
use crate::worker::{Counters, Shared, Vital, Worker};

/// Connections that the kernel keeps until a worker takes them.
const BACKLOG: i32 = 4096;

/// Where clients come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// The address; port 0 for any.
    pub address: SocketAddr,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A listener cannot be made.
    #[error(
        "listening on {0}: free the port, or give weir another one; ports below 1024 need CAP_NET_BIND_SERVICE"
    )]
    Listen(SocketAddr, #[source] io::Error),
    /// What is to be told of requests cannot be.
    #[error(transparent)]
    Tell(#[from] TellError),
    /// A thread cannot be made.
    #[error("beginning worker {0}")]
    Worker(usize, #[source] io::Error),
}

/// Ports that are ours, and at which nobody is answered yet.
pub struct Bound {
    addresses: Vec<SocketAddr>,
    /// By worker.
    sockets: Vec<Vec<(OwnedFd, Door)>>,
}

/// The running ingress.
pub struct Engine {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    tellers: Tellers,
}

/// What is to be seen of an engine, as long as somebody looks.
#[derive(Clone)]
pub struct View(pub(crate) Arc<Shared>);

impl Bound {
    /// With the sockets of the process before, where they are for these doors; others are bound.
    pub fn adopt(doors: &[Listen], workers: usize, handed: Vec<Handed>) -> Result<Self, EngineError> {
        let wanted = |handed: &Handed| {
            doors.contains(&Listen {
                address: handed.address,
                tls: handed.tls,
            })
        };
        let (adopted, unwanted): (Vec<_>, Vec<_>) = handed.into_iter().partition(wanted);
        drop(unwanted);
        let known = |door: &&Listen| {
            adopted
                .iter()
                .any(|handed| handed.address == door.address && handed.tls == door.tls)
        };
        let missing: Vec<Listen> = doors.iter().filter(|door| !known(door)).copied().collect();
        let mut bound = Self::new(&missing, workers)?;
        // All of them need somebody who takes what waits there, however many threads there were before.
        for (number, handed) in adopted.into_iter().enumerate() {
            let door = Door::new(handed.address, handed.tls);
            if !bound.addresses.contains(&handed.address) {
                bound.addresses.push(handed.address);
            }
            let turn = number % bound.sockets.len().max(1);
            if let Some(sockets) = bound.sockets.get_mut(turn) {
                sockets.push((handed.socket, door));
            }
        }
        Ok(bound)
    }

    /// Copies of all sockets, for the next process.
    pub fn copies(&self) -> io::Result<Vec<Handed>> {
        let sockets = self.sockets.iter().flatten();
        let copy = |(socket, door): &(OwnedFd, Door)| {
            Ok(Handed {
                address: door.address,
                tls: door.tls,
                socket: socket.try_clone()?,
            })
        };
        sockets.map(copy).collect()
    }

    /// A socket per door and worker. A port that is taken is found here, before a client is.
    pub fn new(doors: &[Listen], workers: usize) -> Result<Self, EngineError> {
        let mut bound = Self {
            addresses: Vec::new(),
            sockets: Vec::new(),
        };
        for _ in 0..workers.max(1) {
            let sockets = bound.sockets(doors)?;
            bound.sockets.push(sockets);
        }
        Ok(bound)
    }

    /// The first worker's choose the ports.
    fn sockets(&mut self, doors: &[Listen]) -> Result<Vec<(OwnedFd, Door)>, EngineError> {
        let first = self.addresses.is_empty();
        let mut sockets = Vec::new();
        for (number, door) in doors.iter().enumerate() {
            let address = self.addresses.get(number).copied().filter(|_| !first);
            let address = address.unwrap_or(door.address);
            let (socket, local) = bound(address).map_err(|error| EngineError::Listen(address, error))?;
            if first {
                self.addresses.push(local);
            }
            sockets.push((socket, Door::new(local, door.tls)));
        }
        Ok(sockets)
    }

    /// Where clients come to, and whether TLS is spoken there.
    pub fn doors(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        let all: BTreeSet<_> = self
            .sockets
            .iter()
            .flatten()
            .map(|(_, door)| (door.address, door.tls))
            .collect();
        all.into_iter()
    }

    /// The threads that it is bound for.
    pub fn workers(&self) -> usize {
        self.sockets.len()
    }

    /// Begins to listen, and to serve.
    pub fn serve(self, snapshot: Arc<Snapshot>, telemetry: Telemetry) -> Result<Engine, EngineError> {
        let workers = self.sockets.len();
        let connections = snapshot.settings.connections.min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::new(snapshot),
            room: Arc::new(Semaphore::new(connections)),
            clients: Mutex::default(),
            requests: AtomicUsize::new(0),
            short: AtomicBool::new(false),
            draining: watch::channel(false).0,
            counters: Counters::default(),
            tallies: (0..workers).map(|_| Arc::default()).collect(),
            hosts: telemetry.hosts.then(|| Hosts::new(workers)),
            told: Told::default(),
        });
        let mut engine = Engine {
            shared,
            addresses: self.addresses,
            threads: Vec::new(),
            tellers: Tellers::default(),
        };
        // All of them before any thread: two programs may be bound to a port, but only one may listen.
        let listening = self.sockets.into_iter().map(listening);
        let listening = listening.collect::<Result<Vec<_>, _>>()?;
        let (tellers, ways) = Tellers::start(telemetry, &engine.shared.told)?;
        engine.tellers = tellers;
        for (id, listeners) in listening.into_iter().enumerate() {
            let shared = Arc::clone(&engine.shared);
            let telling = ways.telling();
            let thread = std::thread::Builder::new().name(format!("ingress-{id}"));
            let begun = thread.spawn(move || run(id, shared, telling, listeners));
            engine
                .threads
                .push(begun.map_err(|error| EngineError::Worker(id, error))?);
        }
        Ok(engine)
    }
}

fn listening(sockets: Vec<(OwnedFd, Door)>) -> Result<Vec<(TcpListener, Door)>, EngineError> {
    let listening = sockets.into_iter().map(|(socket, door)| {
        listen(&socket, BACKLOG).map_err(|error| EngineError::Listen(door.address, error.into()))?;
        Ok((TcpListener::from(socket), door))
    });
    listening.collect()
}

impl Engine {
    /// Binds, and begins to serve, with this many threads.
    pub fn start(doors: &[Listen], workers: usize, snapshot: Arc<Snapshot>) -> Result<Self, EngineError> {
        Self::start_telling(doors, workers, snapshot, Telemetry::default())
    }

    /// The same, and tells of requests what is asked for.
    pub fn start_telling(
        doors: &[Listen],
        workers: usize,
        snapshot: Arc<Snapshot>,
        telemetry: Telemetry,
    ) -> Result<Self, EngineError> {
        Bound::new(doors, workers)?.serve(snapshot, telemetry)
    }

    /// Where it listens, in the order of the doors.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What is served from now on. Established connections stay; their next requests see it.
    pub fn serve(&self, snapshot: Arc<Snapshot>) {
        self.shared.snapshot.store(snapshot);
    }

    /// What is to be seen of it, for [`crate::metrics::Metrics`].
    pub fn view(&self) -> View {
        View(Arc::clone(&self.shared))
    }

    /// What has happened so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Requests at work.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        let clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients
            .values()
            .map(|count| usize::try_from(*count).unwrap_or(0))
            .sum()
    }

    /// Takes no more connections, and ends those there are: each after its requests, all after
    /// [`crate::settings::Settings::drain`].
    pub fn drain(&self) {
        self.shared.draining.send_replace(true);
    }

    /// The workers, to wait until a drain is over.
    pub fn threads(&mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.threads)
    }

    /// Waits until a drain is over, and what was to be told is told.
    pub fn join(self) {
        for thread in self.threads {
            // A worker that panicked has said so; the others are waited for all the same.
            let _ended = thread.join();
        }
        self.tellers.join();
    }
}

fn bound(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = match socket(family(address)) {
        // The wildcard stands for both families; a kernel without IPv6 has one.
        Err(Errno::AFNOSUPPORT) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            return bound(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()));
        }
        socket => socket?,
    };
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    bind(&socket, &address)?;
    let local = getsockname(&socket)?;
    let local = SocketAddr::try_from(local).map_err(|_| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    Ok((socket, local))
}

fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

fn socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, SocketType::STREAM, flags, None)
}

fn run(id: usize, shared: Arc<Shared>, telling: Telling, listeners: Vec<(TcpListener, Door)>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(worker = id, %error, "no runtime; this worker serves nothing");
            return;
        }
    };
    let _vital = Vital("a worker");
    runtime.block_on(async move {
        let worker = std::rc::Rc::new(Worker::new(id, shared, telling));
        for (listener, door) in listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    tokio::task::spawn_local(accept(std::rc::Rc::clone(&worker), listener, door));
                }
                Err(error) => tracing::error!(worker = id, %error, "a listener cannot be watched"),
            }
        }
        if id == 0 {
            // One of them is enough, and it ends before the worker does.
            let checker = std::rc::Rc::clone(&worker);
            tokio::task::spawn_local(async move { check::run(&checker).await });
        }
        worker.tend().await;
    });
}
