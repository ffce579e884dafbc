//! Clients from raw sockets up, and backends that remember what they saw.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::common::SOON;

/// A client that can send anything.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // Who is refused early may find the connection closed; what counts is what it reads.
        let _sent = self.0.write_all(bytes.as_ref());
    }

    /// What there is until the connection ends, by FIN or by RST.
    pub(crate) fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match self.0.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&bytes)),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What there is up to and with these bytes.
    pub(crate) fn until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        let mut piece = [0; 1];
        while !bytes.ends_with(end.as_bytes()) {
            let count = self.0.read(&mut piece).unwrap_or_else(|error| {
                panic!("{error} after {}", String::from_utf8_lossy(&bytes));
            });
            assert!(
                count > 0,
                "the connection ended after {}",
                String::from_utf8_lossy(&bytes)
            );
            bytes.push(piece[0]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A response with a body of this length.
    pub(crate) fn response(&mut self, body: usize) -> String {
        let mut text = self.until("\r\n\r\n");
        let mut bytes = vec![0; body];
        self.0.read_exact(&mut bytes).unwrap();
        text.push_str(&String::from_utf8_lossy(&bytes));
        text
    }
}

/// A backend of raw sockets: for each connection its own thread, which runs this.
pub(crate) struct Backing {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    /// All that came in, on all connections.
    pub(crate) seen: Arc<Mutex<Vec<u8>>>,
}

impl Backing {
    pub(crate) fn raw(answer: impl Fn(&mut Session) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let (count, all) = (Arc::clone(&connections), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let mut session = Session {
                    stream: stream.unwrap(),
                    all: Arc::clone(&all),
                };
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || answer(&mut session));
            }
        });
        Self {
            address,
            connections,
            seen,
        }
    }

    /// Answers each head with these bytes, and keeps the connection.
    pub(crate) fn always(response: &'static str) -> Self {
        Self::raw(move |session| {
            while session.head().is_some() {
                session.say(response);
            }
        })
    }

    /// Answers with what was asked for.
    pub(crate) fn echo() -> Self {
        Self::raw(|session| {
            while let Some(head) = session.head() {
                let length = head.len();
                session.say(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}"
                ));
            }
        })
    }

    pub(crate) fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// One of its connections.
pub(crate) struct Session {
    pub(crate) stream: TcpStream,
    all: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(1) => {
                self.all.lock().unwrap().push(byte[0]);
                Some(byte[0])
            }
            _ => None,
        }
    }

    /// A head, or nothing if the connection ends.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte()?);
        }
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        (0..count).map(|_| self.byte()).collect()
    }

    pub(crate) fn say(&mut self, text: &str) {
        let _sent = self.stream.write_all(text.as_bytes());
    }
}

pub(crate) type Reply = Response<BoxBody<Bytes, Infallible>>;

pub(crate) fn full(text: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(text.into()).boxed()
}

/// A backend of hyper's, for HTTP/2 without TLS; runs on a runtime of its own.
pub(crate) fn h2c<F>(
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    streams: u32,
) -> Backing
where
    F: Future<Output = Reply> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                let service = hyper::service::service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(streams);
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    Backing {
        address,
        connections,
        seen: Arc::default(),
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
