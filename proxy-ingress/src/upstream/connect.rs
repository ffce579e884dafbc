//! Connections to endpoints. Each step of opening one has the same deadline: an endpoint that accepts and then says
//! nothing must not hold up those who wait for it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pool::{Lease, Sender, Shared};
use super::{Endpoint, Upstream};
use crate::certificates::provider;
use crate::local::Local;
use crate::route::UpstreamProtocol;
use crate::settings::Upstreams;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no connection within {0:?}")]
    Slow(Duration),
    #[error("connecting")]
    Tcp(#[source] io::Error),
    #[error("TLS with the endpoint")]
    Tls(#[source] io::Error),
    #[error("the endpoint closed the connection at once")]
    Gone,
    #[error("beginning to speak HTTP")]
    Http(#[source] hyper::Error),
}

/// How TLS is spoken with endpoints.
#[derive(Clone)]
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    /// The name that is asked for and verified; without it the endpoint's address.
    name: Option<ServerName<'static>>,
}

impl UpstreamTls {
    /// With a configuration of its own, verifying this name.
    pub fn new(mut config: ClientConfig, name: Option<ServerName<'static>>) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self {
            config: Arc::new(config),
            name,
        }
    }

    /// Encrypted, and with nobody in particular: pods have certificates that no authority signed. This is what Ingress
    /// controllers do unless they are given an authority.
    pub fn unverified() -> Result<Self, rustls::Error> {
        let provider = provider();
        let nobody = Arc::new(Unverified(Arc::clone(&provider)));
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.dangerous().with_custom_certificate_verifier(nobody);
        Ok(Self::new(config.with_no_client_auth(), None))
    }
}

/// What opening a connection depends on, beside where to.
#[derive(Clone, Copy)]
pub(crate) struct Opening<'a> {
    pub(crate) worker: usize,
    pub(crate) limits: &'a Upstreams,
    pub(crate) timeout: Duration,
    /// Only a new one will do.
    pub(crate) fresh: bool,
    /// Only HTTP/1.1 will do: what is asked for is an upgrade.
    pub(crate) http1: bool,
}

/// A connection for a request: one that is kept, or a new one.
pub(crate) async fn acquire(
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    protocol: UpstreamProtocol,
    opening: Opening<'_>,
) -> Result<Lease, ConnectError> {
    if !opening.fresh
        && let Some(lease) = kept(endpoint, protocol, &opening)
    {
        return Ok(lease);
    }
    let opened = tokio::time::timeout(opening.timeout, open(upstream, endpoint, protocol, &opening));
    let lease = opened.await.unwrap_or(Err(ConnectError::Slow(opening.timeout)))?;
    endpoint.health.connected();
    Ok(lease)
}

fn kept(endpoint: &Arc<Endpoint>, protocol: UpstreamProtocol, opening: &Opening<'_>) -> Option<Lease> {
    let pool = endpoint.pool(protocol);
    let limits = opening.limits;
    if protocol != UpstreamProtocol::Http1
        && !opening.http1
        && let Some(shared) = pool.join(opening.worker, limits.streams)
    {
        let home = (opening.worker, limits.idle);
        return Some(Lease::new(endpoint, protocol, home, Sender::Many(shared), true));
    }
    if protocol == UpstreamProtocol::H2c {
        return None;
    }
    let (sender, home) = pool.take(opening.worker, limits.borrow_above)?;
    Some(Lease::new(
        endpoint,
        protocol,
        (home, limits.idle),
        Sender::One(sender),
        true,
    ))
}

async fn open(
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    protocol: UpstreamProtocol,
    opening: &Opening<'_>,
) -> Result<Lease, ConnectError> {
    let pool = endpoint.pool(protocol);
    let chose_http2 = || pool.chose_http2.load(Ordering::Relaxed) && !opening.http1;
    let likely_http2 = protocol == UpstreamProtocol::H2c || chose_http2();
    // Requests that come together share the connection that the first of them opens.
    let _turn = if likely_http2 {
        let turn = pool.opening(opening.worker).await;
        if !opening.fresh
            && let Some(lease) = kept(endpoint, protocol, opening)
        {
            return Ok(lease);
        }
        turn
    } else {
        None
    };
    let stream = TcpStream::connect(endpoint.address)
        .await
        .map_err(ConnectError::Tcp)?;
    stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let sender = match protocol {
        UpstreamProtocol::Http1 => http1(endpoint, protocol, stream, opening.limits).await?,
        UpstreamProtocol::H2c => http2(endpoint, protocol, stream, opening).await?,
        UpstreamProtocol::Https => {
            let stream = tls(&upstream.tls, endpoint.address, stream, opening.http1).await?;
            let chosen = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            if !opening.http1 {
                pool.chose_http2.store(chosen, Ordering::Relaxed);
            }
            if chosen {
                http2(endpoint, protocol, stream, opening).await?
            } else {
                http1(endpoint, protocol, stream, opening.limits).await?
            }
        }
    };
    let home = (opening.worker, opening.limits.idle);
    Ok(Lease::new(endpoint, protocol, home, sender, false))
}

pub(super) async fn tls(
    tls: &UpstreamTls,
    address: SocketAddr,
    stream: TcpStream,
    http1: bool,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
    let name = tls.name.clone().unwrap_or_else(|| ServerName::from(address.ip()));
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let connected = if http1 {
        connector
            .with_alpn(vec![b"http/1.1".to_vec()])
            .connect(name, stream)
            .await
    } else {
        connector.connect(name, stream).await
    };
    connected.map_err(ConnectError::Tls)
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    endpoint: &Arc<Endpoint>,
    protocol: UpstreamProtocol,
    stream: S,
    limits: &Upstreams,
) -> Result<Sender, ConnectError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(limits.head_bytes.max(8192));
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectError::Http)?;
    let open = Open::new(endpoint, protocol);
    tokio::task::spawn_local(async move {
        let _open = open;
        // How it ends is told to the request on it; an idle one may end as it likes.
        let _ended = connection.with_upgrades().await;
    });
    Ok(Sender::One(sender))
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    endpoint: &Arc<Endpoint>,
    protocol: UpstreamProtocol,
    stream: S,
    opening: &Opening<'_>,
) -> Result<Sender, ConnectError> {
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        // None until the endpoint has said how many it allows: what is sent before may be refused.
        .initial_max_send_streams(0)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024)
        .max_header_list_size(u32::try_from(opening.limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectError::Http)?;
    let mut connection = Box::pin(connection);
    // hyper wakes nobody when the endpoint's settings have come; in a cluster that is long before a millisecond is over.
    let limit = loop {
        let polled = tokio::time::timeout(Duration::from_millis(1), connection.as_mut()).await;
        match (polled, connection.current_max_send_streams()) {
            (Ok(ended), _) => return Err(ended.err().map_or(ConnectError::Gone, ConnectError::Http)),
            (Err(_), 0) => (),
            (Err(_), limit) => break limit,
        }
    };
    let shared = Shared::new(sender, limit);
    endpoint
        .pool(protocol)
        .share(opening.worker, &shared, opening.limits.multiplexed);
    let streams = Arc::clone(&shared.streams);
    let open = Open::new(endpoint, protocol);
    tokio::task::spawn_local(async move {
        let _open = open;
        let _ended = std::future::poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            streams
                .limit
                .store(connection.current_max_send_streams(), Ordering::Relaxed);
            polled
        })
        .await;
    });
    Ok(Sender::Many(shared))
}

/// Counts an open connection.
struct Open(Arc<Endpoint>, UpstreamProtocol);

impl Open {
    fn new(endpoint: &Arc<Endpoint>, protocol: UpstreamProtocol) -> Self {
        endpoint.pool(protocol).open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint), protocol)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.pool(self.1).open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes any certificate, if the other side has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
