//! Takes connections: as many as there is room for, not too many from one address, and on after errors.

use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::tally::{Held, Limit};
use crate::serve;
use crate::worker::{Counters, Shared, Vital, Worker};

/// When the system is out of file descriptors or memory, asking again at once only makes it worse.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener, as its connections know it.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
    /// The port, ready for a header.
    pub(crate) port: HeaderValue,
}

impl Door {
    pub(crate) fn new(address: SocketAddr, tls: bool) -> Self {
        Self {
            address,
            tls,
            port: HeaderValue::from(address.port()),
        }
    }
}

/// Takes connections until a drain begins.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener, door: Door) {
    let _vital = Vital("a listener");
    let door = Rc::new(door);
    let mut draining = worker.shared.draining.subscribe();
    loop {
        let room = Arc::clone(&worker.shared.room);
        let next = async {
            // First the room, then the client: who cannot be served waits in the kernel's queue.
            if room.available_permits() == 0 {
                worker.tally.limited(Limit::Connections);
            }
            let permit = room.acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            (permit, accepted) = next => {
                let Ok(permit) = permit else { return };
                match accepted {
                    Ok((stream, peer)) => take(&worker, stream, peer, &door, permit),
                    Err(error) => failed(&worker.shared, &error).await,
                }
            }
            _ = draining.wait_for(|draining| *draining) => break,
        }
    }
    // The kernel resets what it has accepted when the socket closes, so that is taken first.
    while let Ok(Ok((stream, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
        let Ok(permit) = Arc::clone(&worker.shared.room).try_acquire_owned() else {
            return;
        };
        take(&worker, stream, peer, &door, permit);
    }
}

async fn failed(shared: &Shared, error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    Counters::count(&shared.counters.accept_errors);
    // One client's trouble is told here as well.
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "no connection can be taken; raise the limit of open files if this stays");
        tokio::time::sleep(PAUSE).await;
    }
}

fn take(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    door: &Rc<Door>,
    permit: OwnedSemaphorePermit,
) {
    let address = peer.ip().to_canonical();
    let settings = Arc::clone(&worker.shared.snapshot.load().settings);
    // A balancer that says who its clients are has as many as they have.
    let most = if settings.is_proxied(address) {
        u32::MAX
    } else {
        settings.connections_of(address)
    };
    let Some(place) = Place::take(&worker.shared, address, most, permit) else {
        worker.tally.limited(Limit::ConnectionsPerClient);
        return;
    };
    let arrival = serve::Arrival {
        worker: Rc::clone(worker),
        settings,
        door: Rc::clone(door),
        address,
        place,
        open: Held::connection(worker, door.tls),
    };
    tokio::task::spawn_local(serve::connection(arrival, stream));
}

/// A connection's place among all, and among those of its address.
pub(crate) struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(shared: &Arc<Shared>, address: IpAddr, most: u32, permit: OwnedSemaphorePermit) -> Option<Self> {
        enter(shared, address, most).then(|| Self {
            shared: Arc::clone(shared),
            address,
            _permit: permit,
        })
    }

    /// It is this address's from now on; whether that has room for it.
    pub(crate) fn pass_on(&mut self, address: IpAddr, most: u32) -> bool {
        if !enter(&self.shared, address, most) {
            return false;
        }
        leave(&self.shared, std::mem::replace(&mut self.address, address));
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        leave(&self.shared, self.address);
    }
}

fn enter(shared: &Shared, address: IpAddr, most: u32) -> bool {
    let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
    let count = clients.entry(address).or_insert(0);
    let room = *count < most;
    if room {
        *count += 1;
    }
    room
}

fn leave(shared: &Shared, address: IpAddr) {
    let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
    if let Entry::Occupied(mut entry) = clients.entry(address) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}
