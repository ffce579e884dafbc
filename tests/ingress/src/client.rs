//! Clients: streams with an address of their own, HTTP on them, and raw words.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::SOON;

/// Address of normal clients.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// What requests carry.
pub type Body = Full<Bytes>;

/// A connection, clear or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where a client goes, and how.
#[derive(Clone)]
pub struct Door {
    /// The ingress.
    pub to: SocketAddr,
    /// The client's own address.
    pub from: Ipv4Addr,
    /// Over TLS, with this name.
    pub tls: Option<(Arc<ClientConfig>, &'static str)>,
}

impl Door {
    /// In the clear.
    pub fn clear(to: SocketAddr) -> Self {
        Self {
            to,
            from: CLIENT,
            tls: None,
        }
    }

    /// Over TLS.
    pub fn tls(to: SocketAddr, config: &Arc<ClientConfig>, name: &'static str) -> Self {
        Self {
            to,
            from: CLIENT,
            tls: Some((Arc::clone(config), name)),
        }
    }

    /// A connection.
    pub async fn open(&self) -> Result<Box<dyn Stream>> {
        let opened = async {
            let stream = tcp(self.from, self.to).await?;
            Ok::<Box<dyn Stream>, anyhow::Error>(match &self.tls {
                None => Box::new(stream),
                Some((config, name)) => Box::new(handshake(stream, config, name).await?),
            })
        };
        timeout(SOON, opened).await.context("no connection")?
    }

    /// A connection for one request after the other.
    pub async fn http1(&self) -> Result<http1::SendRequest<Body>> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.open().await?)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A connection for many requests at a time.
    pub async fn http2(&self) -> Result<http2::SendRequest<Body>> {
        let stream = TokioIo::new(self.open().await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A WebSocket, or what the proxy takes for one: bytes in both directions.
    pub async fn websocket(&self, host: &str) -> Result<Box<dyn Stream>> {
        let mut stream = self.open().await?;
        let ask = format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await?;
        let head = head(&mut stream).await?;
        ensure!(head.starts_with("HTTP/1.1 101 "), "no tunnel: {head}");
        Ok(stream)
    }
}

/// A connection from one address to another.
pub async fn tcp(from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    let stream = socket
        .connect(to)
        .await
        .with_context(|| format!("connecting to {to}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TLS on a connection.
pub async fn handshake(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: &str,
) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned())?;
    let connector = TlsConnector::from(Arc::clone(config));
    connector.connect(name, stream).await.context("TLS")
}

/// A head, up to its empty line.
pub async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let byte = timeout(SOON, stream.read_u8()).await;
        let said = || format!("after {:?}", String::from_utf8_lossy(&bytes));
        bytes.push(byte.with_context(said)?.with_context(said)?);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is said until the connection ends, whichever way.
pub async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 4096];
    loop {
        match timeout(SOON, stream.read(&mut piece)).await {
            Ok(Ok(0) | Err(_)) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(Ok(count)) => bytes.extend(piece.iter().take(count)),
            Err(_) => bail!("no end after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
}

/// One request on a connection of its own: status and body.
pub async fn ask(to: SocketAddr, host: &str, path: &str) -> Result<(u16, String)> {
    ask_with(
        to,
        &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    )
    .await
}

/// These words on a connection of their own: status, and all that is said after the head.
pub async fn ask_with(to: SocketAddr, words: &str) -> Result<(u16, String)> {
    let mut stream = timeout(SOON, tcp(CLIENT, to)).await.context("no connection")??;
    stream.write_all(words.as_bytes()).await?;
    let answer = rest(&mut stream).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| anyhow!("no answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((
        status.with_context(|| format!("no status: {head}"))?,
        body.to_owned(),
    ))
}

/// A GET.
pub fn get(uri: &str) -> Result<Request<Body>> {
    let uri: http::Uri = uri.parse()?;
    let mut request = Request::get(uri.clone());
    if let (None, Some(host)) = (uri.scheme(), uri.host()) {
        request = request.header("host", host);
    }
    Ok(request.body(Full::default())?)
}

/// A GET for HTTP/1.1: path and host.
pub fn get1(host: &str, path: &str) -> Result<Request<Body>> {
    Ok(Request::get(path).header("host", host).body(Full::default())?)
}

/// Status and body of an answer.
pub async fn whole(response: Response<Incoming>) -> Result<(u16, String)> {
    let status = response.status().as_u16();
    let body = timeout(Duration::from_secs(30), response.into_body().collect()).await;
    let body = body.context("the body does not end")??.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
