//! TLS with clients. The name in the `ClientHello` is read first, however many pieces it comes in, and decides what becomes
//! of the connection: it is passed through as it is, or the handshake goes on with that name's certificate and demands. There
//! is no weaker configuration to fall back to.

use std::io;
use std::sync::Arc;

use bytes::BufMut;
use rustls::server::{Accepted, Acceptor};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use crate::certificates::Certificate;
use crate::client_auth::{self, Demand};
use crate::passthrough::Target;
use crate::snapshot::Snapshot;
use crate::worker::Shared;

/// The head of a record: its type, a version, and its length.
const RECORD_HEAD: usize = 5;
/// A fatal alert, `access_denied`, as it is sent before there are keys.
const DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// What a client asked for, and was shown.
pub(crate) struct Shown {
    /// The name that it asked for, in lower case.
    name: Option<Box<str>>,
    certificate: Arc<Certificate>,
    /// What it had to show itself.
    pub(crate) demand: Option<Arc<Demand>>,
    /// What it showed; none if it was not asked.
    pub(crate) client: Option<client_auth::Client>,
    /// What was agreed on.
    pub(crate) version: Option<ProtocolVersion>,
}

impl Shown {
    /// The name that it asked for.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether a request for this host may come over such a connection. It may not if the host's connections are passed
    /// through, or if clients of that host have other things to show; that may have changed since the connection was
    /// made, so the name that it was made for is no excuse. The look at certificates is only for those who put several names on
    /// one connection.
    pub(crate) fn allows(&self, host: &str, snapshot: &Snapshot) -> bool {
        snapshot.passthrough.find(host).is_none()
            && snapshot.client_auth.allows(self.demand.as_ref(), host)
            && (self.name.as_deref() == Some(host) || snapshot.certificates.allow(&self.certificate, host))
    }
}

/// What becomes of a connection.
pub(crate) enum Opened<S> {
    /// TLS stands.
    Terminated(Box<TlsStream<S>>, Shown),
    /// It is passed through, with what was read of it.
    Passed(S, Vec<u8>, Arc<Target>),
}

/// The handshake, if it is ours to make. Without a deadline of its own: the caller has one for all of it.
pub(crate) async fn accept<S>(shared: &Shared, mut stream: S) -> io::Result<Opened<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (hello, bytes) = hello(&mut stream).await?;
    let name = hello.client_hello().server_name().map(|name| {
        let name = name.strip_suffix('.').unwrap_or(name);
        name.to_ascii_lowercase().into_boxed_str()
    });
    let (certificate, demand) = {
        let snapshot = shared.snapshot.load();
        let name = name.as_deref();
        if let Some(target) = name.and_then(|name| snapshot.passthrough.find(name)) {
            return Ok(Opened::Passed(stream, bytes, Arc::clone(target)));
        }
        let demand = name.and_then(|name| snapshot.client_auth.find(name));
        (Arc::clone(snapshot.certificates.find(name)), demand.cloned())
    };
    drop(bytes);
    let Some(config) = config(&certificate, demand.as_deref()) else {
        stream.write_all(&DENIED).await?;
        stream.shutdown().await?;
        return Err(io::Error::other(
            "nobody is let in: the authorities for clients are missing",
        ));
    };
    let config = config.map_err(io::Error::other)?;
    let stream = StartHandshake::from_parts(hello, stream)
        .into_stream(config)
        .await?;
    let client = demand.is_some().then(|| {
        let shown = stream.get_ref().1.peer_certificates();
        client_auth::Client::new(shown.and_then(<[_]>::first).cloned())
    });
    let shown = Shown {
        name,
        certificate,
        demand,
        client,
        version: stream.get_ref().1.protocol_version(),
    };
    Ok(Opened::Terminated(Box::new(stream), shown))
}

fn config(
    certificate: &Certificate,
    demand: Option<&Demand>,
) -> Option<Result<Arc<ServerConfig>, rustls::Error>> {
    match demand {
        None => Some(Ok(Arc::clone(&certificate.config))),
        Some(demand) => demand.config(certificate),
    }
}

/// Reads the `ClientHello`, and the bytes that it came in: whole records, so that nothing behind them is taken off the stream.
async fn hello<S>(stream: &mut S) -> io::Result<(Accepted, Vec<u8>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut bytes = Vec::with_capacity(2048);
    let mut next = RECORD_HEAD;
    let mut in_body = false;
    loop {
        let before = bytes.len();
        while let missing @ 1.. = (before + next) - bytes.len() {
            if stream.read_buf(&mut (&mut bytes).limit(missing)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let read = bytes.get(before..).unwrap_or_default();
        if let Some(accepted) = feed(&mut acceptor, read, stream).await? {
            return Ok((accepted, bytes));
        }
        next = match read {
            [_, _, _, high, low] if !in_body => usize::from(u16::from_be_bytes([*high, *low])),
            _ => RECORD_HEAD,
        };
        in_body = !in_body;
    }
}

/// Hands bytes to the acceptor, and its alert to the client if they are nonsense.
async fn feed<S: AsyncWrite + Unpin>(
    acceptor: &mut Acceptor,
    mut bytes: &[u8],
    stream: &mut S,
) -> io::Result<Option<Accepted>> {
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes)?;
        match acceptor.accept() {
            Ok(None) => (),
            Ok(accepted) => return Ok(accepted),
            Err((error, mut alert)) => {
                let mut said = Vec::new();
                alert.write_all(&mut said)?;
                stream.write_all(&said).await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
    Ok(None)
}
