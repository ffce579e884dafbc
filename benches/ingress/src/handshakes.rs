//! New TLS connections with one request each: whole handshakes, or resumed ones.
//!
//! With rustls, because it says of each handshake which it was, and because `openssl s_time` does not resume TLS 1.3.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use weir_lab::clock;

use crate::client::{Connection, connect};
use crate::tools::Answered;

/// Clients at a time.
const CLIENTS: usize = 8;

/// What is shown to clients, and believed by them.
pub(crate) struct Certificate {
    pub(crate) der: CertificateDer<'static>,
    /// Certificate and key, as text.
    pub(crate) pem: (String, String),
}

impl Certificate {
    /// ECDSA P-256, for all names of the benchmark.
    pub(crate) fn make() -> Result<Self> {
        let names = ["*.bench.example".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
        Ok(Self {
            der: made.cert.der().clone(),
            pem: (made.cert.pem(), made.signing_key.serialize_pem()),
        })
    }

    /// A client that resumes, or never does: TLS 1.3 with X25519 and AES-128-GCM, as h2load.
    fn config(&self, resumption: Resumption) -> Result<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = resumption;
        Ok(config)
    }
}

/// As many connections as there is time for.
pub(crate) fn run(
    certificate: &Certificate,
    target: Ipv4Addr,
    (host, path): (&str, &str),
    resumed: bool,
    limit: Duration,
) -> Result<Answered> {
    let until = clock::now() + limit;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                // Tickets are for one use: with a store each, nobody takes another's.
                let resumption = if resumed {
                    Resumption::in_memory_sessions(4)
                } else {
                    Resumption::disabled()
                };
                let config = certificate.config(resumption);
                scope.spawn(move || client(&Arc::new(config?), target, (host, path), resumed, until))
            })
            .collect();
        let mut all = Answered::default();
        for client in clients {
            let one = client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
            all.good += one.good;
            all.failed += one.failed;
        }
        Ok(all)
    })
}

fn client(
    config: &Arc<ClientConfig>,
    target: Ipv4Addr,
    (host, path): (&str, &str),
    resumed: bool,
    until: Instant,
) -> Result<Answered> {
    let mut answered = Answered::default();
    if resumed {
        once(config, target, (host, path)).context("the first handshake")?;
    }
    let expected = if resumed {
        HandshakeKind::Resumed
    } else {
        HandshakeKind::Full
    };
    while clock::now() < until {
        match once(config, target, (host, path)) {
            Ok(kind) => {
                ensure!(
                    kind == Some(expected),
                    "a handshake was {kind:?}, not {expected:?}"
                );
                answered.good += 1;
            }
            Err(error) if answered.failed > 100 => return Err(error),
            Err(_) => answered.failed += 1,
        }
    }
    Ok(answered)
}

/// One connection with one request.
fn once(
    config: &Arc<ClientConfig>,
    target: Ipv4Addr,
    (host, path): (&str, &str),
) -> Result<Option<HandshakeKind>> {
    let name = ServerName::try_from(host.to_owned())?;
    let tls = ClientConnection::new(Arc::clone(config), name)?;
    let stream = StreamOwned::new(tls, connect(SocketAddr::new(target.into(), 443))?);
    let mut connection = Connection::new(stream);
    let answer = connection.get(host, path, true);
    let answer = answer.map_err(crate::client::Failure::into_error)?;
    ensure!(answer.status == 200, "the answer is {}", answer.status);
    Ok(connection.stream().conn.handshake_kind())
}
