//! TLS with clients. The name in the `ClientHello` is read first, however many pieces it comes in, and decides which
//! certificate and configuration the handshake goes on with; there is no weaker one to fall back to.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::{Certificate, Certificates};
use crate::worker::Shared;

/// What a client asked for, and was shown.
pub(crate) struct Shown {
    /// The name that it asked for, in lower case.
    name: Option<Box<str>>,
    certificate: Arc<Certificate>,
}

impl Shown {
    /// Whether a request for this host may come over such a connection. The second look is only for those who put several
    /// names on one connection.
    pub(crate) fn allows(&self, host: &str, certificates: &Certificates) -> bool {
        self.name.as_deref() == Some(host) || certificates.allow(&self.certificate, host)
    }
}

/// The handshake. Without a deadline of its own: the caller has one for all of it.
pub(crate) async fn accept<S>(shared: &Shared, stream: S) -> io::Result<(TlsStream<S>, Shown)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let name = start.client_hello().server_name().map(|name| {
        let name = name.strip_suffix('.').unwrap_or(name);
        name.to_ascii_lowercase().into_boxed_str()
    });
    let certificate = Arc::clone(shared.snapshot.load().certificates.find(name.as_deref()));
    let stream = start.into_stream(Arc::clone(&certificate.config)).await?;
    Ok((stream, Shown { name, certificate }))
}
