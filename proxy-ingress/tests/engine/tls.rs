//! HTTPS: which certificate is shown, what may be asked over it, and TLS towards backends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proxy_ingress::certificates::{Certificates, Maker};
use proxy_ingress::route::UpstreamProtocol;
use proxy_ingress::settings::Settings;
use proxy_model::ObjectName;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::common::{Front, Plan, SOON, wait};
use crate::peers::{Backing, Raw};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A certificate and its key, in PEM.
pub(crate) fn pair(names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    (
        CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .pem(),
        key.serialize_pem(),
    )
}

pub(crate) struct Site {
    pub(crate) front: Front,
    pub(crate) roots: RootCertStore,
    _backing: Backing,
}

fn site() -> Site {
    site_with(|_| ())
}

pub(crate) fn site_with(settings: impl FnOnce(&mut Settings)) -> Site {
    site_of(|plan| settings(&mut plan.settings))
}

/// "a.site.test" and "*.site.test" have certificates of their own.
pub(crate) fn site_of(change: impl FnOnce(&mut Plan)) -> Site {
    let (certificates, roots) = certificates();
    let backing = Backing::echo();
    let mut plan = Plan::to(&[backing.address]);
    plan.certificates = Some(certificates);
    change(&mut plan);
    Site {
        front: plan.start(),
        roots,
        _backing: backing,
    }
}

/// For "a.site.test" and "*.site.test", and whom a client must trust for them.
pub(crate) fn certificates() -> (Certificates, RootCertStore) {
    let maker = Maker::new().unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    let mut certificates = Certificates::new(Arc::new(maker.self_signed().unwrap()));
    let mut roots = RootCertStore::empty();
    for name in ["a.site.test", "*.site.test"] {
        let (chain, key) = pair(&[name]);
        let secret = ObjectName::new("test", "cert");
        let made = maker
            .certificate(&secret, chain.as_bytes(), key.as_bytes(), now)
            .unwrap();
        certificates.add(name, &Arc::new(made));
        roots
            .add(CertificateDer::from_pem_slice(chain.as_bytes()).unwrap())
            .unwrap();
    }
    (certificates, roots)
}

/// A client that trusts these certificates, in PEM.
pub(crate) fn trusting(chains: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for chain in chains {
        roots
            .add(CertificateDer::from_pem_slice(chain.as_bytes()).unwrap())
            .unwrap();
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Site {
    pub(crate) fn config(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap();
        Arc::new(
            builder
                .with_root_certificates(self.roots.clone())
                .with_no_client_auth(),
        )
    }

    pub(crate) fn open(&self, config: &Arc<ClientConfig>, name: &str) -> Result<Tls, std::io::Error> {
        open_over(config, name, Raw::to(self.front.tls()).0)
    }
}

/// TLS over a connection that stands.
pub(crate) fn open_over(
    config: &Arc<ClientConfig>,
    name: &str,
    socket: TcpStream,
) -> Result<Tls, std::io::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    stream.flush()?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

pub(crate) fn ask(stream: &mut Tls, host: &str) -> String {
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = Vec::new();
    // Some ends are without a closing alert.
    let _ended = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_name_that_is_asked_for_decides_what_is_shown() {
    let site = site();
    for version in [&TLS12, &TLS13] {
        let config = site.config(version);
        for name in ["a.site.test", "b.site.test"] {
            let mut stream = site.open(&config, name).unwrap();
            let answer = ask(&mut stream, name);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.contains("x-forwarded-proto: https\r\n"), "{answer}");
        }
        // The default certificate is for nobody, so nobody takes it for the right one.
        site.open(&config, "stranger.test").unwrap_err();
    }
}

#[test]
fn a_host_that_the_certificate_is_not_for_is_misdirected() {
    let site = site();
    let config = site.config(&TLS13);
    let over = |name: &str, host: &str| ask(&mut site.open(&config, name).unwrap(), host);
    assert!(over("a.site.test", "b.site.test").starts_with("HTTP/1.1 421 "));
    assert!(
        over("b.site.test", "c.site.test").starts_with("HTTP/1.1 200 "),
        "one certificate covers both"
    );
    assert!(
        over("b.site.test", "a.site.test").starts_with("HTTP/1.1 200 "),
        "it covers that too"
    );
    assert!(
        over("a.site.test", "other.test").starts_with("HTTP/1.1 200 "),
        "which has none of its own"
    );
}

#[test]
fn a_second_visit_resumes_the_session() {
    let site = site();
    for version in [&TLS12, &TLS13] {
        let config = site.config(version);
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let mut stream = site.open(&config, "a.site.test").unwrap();
            kinds.push(stream.conn.handshake_kind().unwrap());
            ask(&mut stream, "a.site.test");
        }
        assert_eq!(
            kinds,
            [
                HandshakeKind::Full,
                HandshakeKind::Resumed,
                HandshakeKind::Resumed
            ],
            "{version:?}"
        );
    }
    for version in ["1.2", "1.3"] {
        for (kind, count) in [("full", 1.0), ("resumed", 2.0)] {
            let series = format!("weir_ingress_handshakes_total{{kind=\"{kind}\",version=\"{version}\"}}");
            site.front.counts(&series, count);
        }
    }
    site.front.counts("weir_ingress_certificates", 2.0);
    site.front
        .counts("weir_ingress_connections_total{listener=\"https\"}", 6.0);
}

#[test]
fn http2_is_agreed_on() {
    let site = site();
    let mut config = Arc::unwrap_or_clone(site.config(&TLS13));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = site.open(&Arc::new(config), "a.site.test").unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn l9_a_hello_in_pieces_is_read_to_its_end() {
    let site = site();
    let config = site.config(&TLS13);
    let name = ServerName::try_from("b.site.test").unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    let mut socket = Raw::to(site.front.tls()).0;
    socket.set_nodelay(true).unwrap();
    for byte in hello {
        socket.write_all(&[byte]).unwrap();
    }
    let mut stream = StreamOwned::new(connection, socket);
    assert!(ask(&mut stream, "b.site.test").starts_with("HTTP/1.1 200 "));
}

#[test]
fn who_does_not_finish_the_handshake_is_left() {
    let backing = Backing::always(OK);
    let front = Plan::to(&[backing.address])
        .settings(|settings| settings.handshake_timeout = Duration::from_millis(200))
        .start();
    let mut raw = Raw::to(front.tls());
    raw.send([22, 3, 1]);
    assert_eq!(raw.rest(), "");
    let mut raw = Raw::to(front.tls());
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.rest();
    assert_eq!(backing.seen(), "");
    wait("both errors", || {
        front
            .engine
            .counters()
            .handshake_errors
            .load(std::sync::atomic::Ordering::Relaxed)
            == 2
    });
}

/// A backend that speaks TLS and then says ok to each head.
pub(crate) fn secure() -> Backing {
    secure_as(&pair(&["pod"]))
}

/// With this certificate and key.
pub(crate) fn secure_as((chain, key): &(String, String)) -> Backing {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    Backing::raw(move |session| {
        session.stream.set_read_timeout(Some(SOON)).unwrap();
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, session.stream.try_clone().unwrap());
        let mut head = Vec::new();
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            head.push(byte[0]);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                stream.write_all(OK.as_bytes()).unwrap();
            }
        }
    })
}

#[test]
fn backends_are_spoken_to_over_tls_where_they_want_it() {
    let mut plan = Plan::to(&[secure().address]);
    plan.protocol = Some(UpstreamProtocol::Https);
    let front = plan.start();
    let mut raw = front.raw();
    for _ in 0..3 {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(raw.response(2).ends_with("ok"));
    }
    // A backend without TLS, and one that says nothing at all.
    let clear = Backing::always(OK);
    let mut plan = Plan::to(&[clear.address]).route(crate::common::with_policy(|policy| {
        policy.connect_timeout = Duration::from_millis(200);
    }));
    plan.protocol = Some(UpstreamProtocol::Https);
    let answer = plan
        .start()
        .says("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}
