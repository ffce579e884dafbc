//! Certificates, and clients that know them.

use std::sync::Arc;

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// A certificate that vouches for itself, and its key, in PEM.
pub struct Pair {
    /// The certificate.
    pub chain: String,
    /// The key.
    pub key: String,
    /// The certificate as it is shown.
    pub shown: CertificateDer<'static>,
}

impl Pair {
    /// A new one for this name.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let made = CertificateParams::new(vec![name.to_owned()])?.self_signed(&key)?;
        Ok(Self {
            chain: made.pem(),
            key: key.serialize_pem(),
            shown: made.der().clone(),
        })
    }
}

/// A client that takes these certificates and no others, and offers these protocols.
pub fn client(known: &[&Pair], protocols: &[&str]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for pair in known {
        roots.add(pair.shown.clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
