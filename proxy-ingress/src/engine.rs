//! The engine: threads, listeners, and the one value that they serve.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, watch};

use crate::listen::{self, Door};
use crate::snapshot::Snapshot;
use crate::worker::{Counters, Shared, Worker};

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
    /// A thread cannot be made.
    #[error("beginning worker {0}")]
    Worker(usize, #[source] io::Error),
}

/// The running ingress.
pub struct Engine {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Begins to serve, with this many threads.
    pub fn start(doors: &[Listen], workers: usize, snapshot: Arc<Snapshot>) -> Result<Self, EngineError> {
        let connections = snapshot.settings.connections.min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::new(snapshot),
            room: Arc::new(Semaphore::new(connections)),
            clients: Mutex::default(),
            requests: AtomicUsize::new(0),
            draining: watch::channel(false).0,
            counters: Counters::default(),
        });
        let mut engine = Self {
            shared,
            addresses: Vec::new(),
            threads: Vec::new(),
        };
        // All of them before any thread: a port that is taken is found before a client is.
        let mut workers_listeners = Vec::new();
        for _ in 0..workers.max(1) {
            workers_listeners.push(engine.listeners(doors)?);
        }
        for (id, listeners) in workers_listeners.into_iter().enumerate() {
            let shared = Arc::clone(&engine.shared);
            let thread = std::thread::Builder::new().name(format!("ingress-{id}"));
            let begun = thread.spawn(move || run(id, shared, listeners));
            engine
                .threads
                .push(begun.map_err(|error| EngineError::Worker(id, error))?);
        }
        Ok(engine)
    }

    /// A listener per door. The first worker's choose the ports.
    fn listeners(&mut self, doors: &[Listen]) -> Result<Vec<(TcpListener, Door)>, EngineError> {
        let first = self.addresses.is_empty();
        let mut listeners = Vec::new();
        for (number, door) in doors.iter().enumerate() {
            let address = self.addresses.get(number).copied().filter(|_| !first);
            let address = address.unwrap_or(door.address);
            let wrong = |error| EngineError::Listen(address, error);
            let listener = bound(address).map_err(wrong)?;
            let local = listener.local_addr().map_err(wrong)?;
            if first {
                self.addresses.push(local);
            }
            listeners.push((listener, Door::new(local, door.tls)));
        }
        Ok(listeners)
    }

    /// Where it listens, in the order of the doors.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What is served from now on. Established connections stay; their next requests see it.
    pub fn serve(&self, snapshot: Arc<Snapshot>) {
        self.shared.snapshot.store(snapshot);
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

    /// Waits until a drain is over.
    pub fn join(self) {
        for thread in self.threads {
            // A worker that panicked has said so; the others are waited for all the same.
            let _ended = thread.join();
        }
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn run(id: usize, shared: Arc<Shared>, listeners: Vec<(TcpListener, Door)>) {
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
    runtime.block_on(async move {
        let worker = std::rc::Rc::new(Worker::new(id, shared));
        for (listener, door) in listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    tokio::task::spawn_local(listen::accept(std::rc::Rc::clone(&worker), listener, door));
                }
                Err(error) => tracing::error!(worker = id, %error, "a listener cannot be watched"),
            }
        }
        worker.tend().await;
    });
}
