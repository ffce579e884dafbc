//! Connections to an ingress, and what is asked over them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::CALL;
use crate::serve::POD;

/// Nobody waits longer for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// What requests carry.
pub type Body = Full<Bytes>;

/// A connection, clear or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What is asked, and of whom.
#[derive(Clone)]
pub struct Target {
    /// `https://host/path`
    pub url: Uri,
    tls: Option<Arc<ClientConfig>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
    /// `grpc-status`, if it had trailers.
    pub grpc: Option<String>,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Result<Self> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("the body")?;
        let grpc = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
        let grpc = grpc.and_then(|status| status.to_str().ok()).map(str::to_owned);
        Ok(Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            grpc,
        })
    }

    /// Who gave it; an error if it is not as it should be.
    pub fn pod(&self) -> Result<&str> {
        ensure!(self.status == 200, "status {}: {}", self.status, self.body.trim());
        pod(&self.headers)
    }
}

fn pod(headers: &HeaderMap) -> Result<&str> {
    let name = headers.get(POD).and_then(|name| name.to_str().ok());
    name.context("an answer of nobody's")
}

impl Target {
    /// `authority` is a file with the certificate in PEM that vouches for others; `protocols` are offered.
    pub fn new(url: Uri, authority: Option<&Path>, protocols: &[&str]) -> Result<Self> {
        if url.scheme_str() != Some("https") {
            return Ok(Self { url, tls: None });
        }
        let mut roots = RootCertStore::empty();
        let path = authority.context("https needs --ca")?;
        for certificate in
            CertificateDer::pem_file_iter(path).with_context(|| format!("{}", path.display()))?
        {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        // Each handshake shows a certificate.
        config.resumption = rustls::client::Resumption::disabled();
        let tls = Some(Arc::new(config));
        Ok(Self { url, tls })
    }

    /// The host that is asked for.
    pub fn host(&self) -> &str {
        self.url.authority().map_or("", http::uri::Authority::as_str)
    }

    /// A connection, and the serial number of the certificate that it was shown.
    pub async fn open(&self, to: SocketAddr) -> Result<(Box<dyn Stream>, Option<String>)> {
        let opened = timeout(PATIENCE, self.connect(to)).await;
        opened.with_context(|| format!("no connection to {to} within {PATIENCE:?}"))?
    }

    async fn connect(&self, to: SocketAddr) -> Result<(Box<dyn Stream>, Option<String>)> {
        let stream = TcpStream::connect(to).await;
        let stream = stream.with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else {
            return Ok((Box::new(stream), None));
        };
        let name = ServerName::try_from(self.url.host().unwrap_or_default().to_owned())?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await.context("TLS")?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let serial = shown.and_then(|shown| serial(shown));
        Ok((Box::new(stream), serial))
    }

    /// A request for HTTP/1.1.
    pub fn request1(&self) -> Result<Request<Body>> {
        let path = self
            .url
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Request::get(path)
            .header("host", self.host())
            .body(Full::default())?)
    }

    /// A request for HTTP/2.
    pub fn request2(&self) -> Result<Request<Body>> {
        Ok(Request::get(self.url.clone()).body(Full::default())?)
    }

    /// A call of gRPC.
    pub fn call(&self) -> Result<Request<Body>> {
        let request = Request::post(self.url.clone());
        let request = request
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers");
        Ok(request.body(Full::from(CALL))?)
    }

    /// The handshake of a WebSocket on a connection; who answered.
    pub async fn upgrade(&self, stream: &mut (impl Stream + ?Sized)) -> Result<String> {
        let ask = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.url.path(),
            self.host()
        );
        stream.write_all(ask.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.context("the handshake")?);
        }
        let head = String::from_utf8_lossy(&head);
        ensure!(head.starts_with("HTTP/1.1 101 "), "no WebSocket: {head}");
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let pod = lines.find(|(name, _)| name.eq_ignore_ascii_case(POD));
        pod.map(|(_, pod)| pod.to_owned())
            .context("a WebSocket of nobody's")
    }
}

fn serial(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.raw_serial_as_string())
}

/// A connection for one request after the other.
pub async fn http1(stream: Box<dyn Stream>) -> Result<http1::SendRequest<Body>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A connection for many requests at a time.
pub async fn http2(stream: Box<dyn Stream>) -> Result<http2::SendRequest<Body>> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// What became of a request.
pub enum Sent {
    /// It was answered.
    Answered(Answer),
    /// The server had ended the connection, or said that it would: it was never begun, and is to be made on another one.
    NotBegun,
}

/// Asks on a kept connection. What a server may do at any time to one (RFC 9112, 9.3.1) is no failure of a GET.
pub async fn ask1(sender: &mut http1::SendRequest<Body>, request: Request<Body>, used: bool) -> Result<Sent> {
    match sender.try_send_request(request).await {
        Ok(response) => Ok(Sent::Answered(Answer::read(response).await?)),
        Err(error) if used && (error.message().is_some() || error.error().is_incomplete_message()) => {
            Ok(Sent::NotBegun)
        }
        Err(error) => Err(error.into_error().into()),
    }
}

/// Asks on a connection that others use as well.
pub async fn ask2(sender: &mut http2::SendRequest<Body>, request: Request<Body>) -> Result<Sent> {
    match sender.try_send_request(request).await {
        Ok(response) => Ok(Sent::Answered(Answer::read(response).await?)),
        // Not sent at all: the server had said GOAWAY.
        Err(error) if error.message().is_some() => Ok(Sent::NotBegun),
        Err(error) => Err(error.into_error().into()),
    }
}

/// A message there and back; `false` if the other side has ended the WebSocket before it said any of it.
pub async fn echo(stream: &mut (impl Stream + ?Sized), message: &[u8]) -> Result<bool> {
    if stream.write_all(message).await.is_err() {
        return Ok(false);
    }
    let mut said = vec![0; message.len()];
    let (first, rest) = said.split_at_mut(1);
    match stream.read(first).await {
        Ok(0) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => drop(read.context("a WebSocket was cut off")?),
    }
    stream
        .read_exact(rest)
        .await
        .context("a WebSocket was cut off in a message")?;
    if said != message {
        bail!("{message:?} came back as {said:?}");
    }
    Ok(true)
}

/// One request on a connection of its own, and the serial number of the certificate.
pub async fn get(target: &Target, to: SocketAddr) -> Result<(Answer, Option<String>)> {
    let (stream, serial) = target.open(to).await?;
    let mut sender = http1(stream).await?;
    match ask1(&mut sender, target.request1()?, false).await? {
        Sent::Answered(answer) => Ok((answer, serial)),
        Sent::NotBegun => bail!("{to} hung up"),
    }
}
