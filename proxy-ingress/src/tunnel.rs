//! A connection that is passed through: what was read of it is sent to an endpoint, and then bytes go both ways.
//!
//! Nothing was sent before an endpoint has taken the connection, so any number of them may be asked.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Method, Uri};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::clock;
use crate::passthrough::Target;
use crate::serve::Arrival;
use crate::tend::{Fate, Tended};
use crate::upgrade::{self, Carried};
use crate::upstream::balance::{self, Choice};
use crate::upstream::connect::ConnectError;
use crate::upstream::retry::Tries;
use crate::upstream::{Busy, Upstream};
use crate::worker::Counters;

/// Why a connection that was to be passed through is closed.
#[derive(Debug, thiserror::Error)]
enum TunnelError {
    /// The backend cannot be, or is not known.
    #[error("there is no such backend")]
    NoBackend,
    /// None, or none that could be reached.
    #[error("no endpoint takes it; the last one tried was {0:?}")]
    NoEndpoint(Option<SocketAddr>),
}

/// Passes a connection through to its end.
pub(crate) async fn pass(arrival: Arrival, mut client: TcpStream, hello: Vec<u8>, target: Arc<Target>) {
    let counters = &arrival.worker.shared.counters;
    let (mut backend, busy) = match open(&arrival, &target, &hello).await {
        Ok(opened) => opened,
        Err(error) => {
            let service = target.backend.as_ref().map(|backend| &backend.service);
            tracing::debug!(client = %arrival.address, ?service, %error, "not passed through");
            return Counters::count(&counters.tunnel_errors);
        }
    };
    drop(hello);
    Counters::count(&counters.tunnels);
    let tended = Rc::new(Tended::default());
    arrival.worker.watch(&tended);
    let over = |waker: &std::task::Waker| tended.fate(waker) == Fate::Close;
    let carried = Carried::default();
    upgrade::carry(
        (&mut client, &mut backend),
        target.policy.idle_timeout,
        over,
        &carried,
    )
    .await;
    drop(busy);
}

/// An endpoint that has taken the connection, and what its client said first.
async fn open(arrival: &Arrival, target: &Target, hello: &[u8]) -> Result<(TcpStream, Busy), TunnelError> {
    let upstream = {
        let snapshot = arrival.worker.shared.snapshot.load();
        let backend = target.backend.as_ref();
        backend.and_then(|backend| snapshot.backends.get(backend).cloned())
    };
    let upstream = upstream.ok_or(TunnelError::NoBackend)?;
    let policy = &target.policy;
    let key = balance::key(
        &policy.balance,
        arrival.address,
        &HeaderMap::new(),
        &Uri::default(),
    );
    let mut tries = Tries::new(&policy.retry, &Method::CONNECT, true);
    let mut last = None;
    loop {
        let choice = Choice {
            balance: &policy.balance,
            key,
            tried: tries.tried(),
            random: arrival.worker.random.next(),
            slow_return: arrival.settings.upstream.slow_return,
        };
        let endpoint = upstream.pick(&choice).ok_or(TunnelError::NoEndpoint(last))?;
        last = Some(endpoint.address);
        let busy = Busy::new(&endpoint);
        let connected = tokio::time::timeout(policy.connect_timeout, connect(endpoint.address, hello)).await;
        match connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                endpoint.health.connected();
                return Ok((stream, busy));
            }
            Err(error) => {
                tell(arrival, &upstream, endpoint.address, &error);
                endpoint.health.failed(clock::now(), &arrival.settings.upstream);
                if !tries.failed(&endpoint) {
                    return Err(TunnelError::NoEndpoint(last));
                }
            }
        }
    }
}

async fn connect(address: SocketAddr, hello: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(hello).await?;
    Ok(stream)
}

fn tell(arrival: &Arrival, upstream: &Upstream, endpoint: SocketAddr, error: &std::io::Error) {
    let service = &upstream.backend.service;
    tracing::debug!(%endpoint, %service, %error, "no connection");
    let error = ConnectError::Tcp(error.kind().into());
    arrival.worker.tally.connected(Some(&error));
}
