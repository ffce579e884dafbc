//! Clients that show a certificate: whom they are vouched for by, which hosts want that, and what backends are told.
//!
//! A host that wants certificates never goes without: if its authorities cannot be used, nobody is let in. Sessions of
//! such connections are not resumed, so that no ticket carries a client past the check.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use pem::{EncodeConfig, LineEnding, Pem};
use proxy_model::{Kind, ObjectName, Problem};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificates::{self, Certificate, provider};
use crate::distinguished;
use crate::model::doors::{ClientAuthMode, Demands};
use crate::route::{HostMatch, Route};

const VERIFY: HeaderName = HeaderName::from_static("ssl-client-verify");
const SUBJECT: HeaderName = HeaderName::from_static("ssl-client-subject-dn");
const ISSUER: HeaderName = HeaderName::from_static("ssl-client-issuer-dn");
const CERTIFICATE: HeaderName = HeaderName::from_static("ssl-client-cert");

/// What is wrong with a Secret, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing in it.
    #[error("Secret {0}: ca.crt has no certificate in PEM; write those of the authorities into it")]
    None(ObjectName),
    /// A certificate that cannot be read.
    #[error("Secret {0}: certificate {1} of ca.crt cannot be read; make it anew")]
    Unreadable(ObjectName, usize),
    /// All have expired, or are not valid yet.
    #[error("Secret {0}: no certificate of ca.crt is valid today; renew them")]
    Expired(ObjectName),
    /// rustls refuses it.
    #[error("Secret {0}: ca.crt cannot be used")]
    Verifier(ObjectName, #[source] VerifierBuilderError),
}

/// Authorities that vouch for clients, ready for use.
pub struct Authority {
    required: Arc<dyn ClientCertVerifier>,
    optional: Arc<dyn ClientCertVerifier>,
}

impl Authority {
    /// From `ca.crt` of a Secret; `now` in seconds since 1970.
    pub fn read(secret: &ObjectName, pem: &[u8], now: i64) -> Result<Self, AuthorityError> {
        let all: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| AuthorityError::None(secret.clone()))?;
        if all.is_empty() {
            return Err(AuthorityError::None(secret.clone()));
        }
        let mut roots = RootCertStore::empty();
        for (number, der) in (1..).zip(all) {
            let unreadable = || AuthorityError::Unreadable(secret.clone(), number);
            let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unreadable())?;
            let validity = certificate.validity();
            // What rustls trusts it trusts for ever. A bundle keeps the old one for a while, and that is no fault.
            if (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now) {
                roots.add(der.clone()).map_err(|_| unreadable())?;
            }
        }
        if roots.is_empty() {
            return Err(AuthorityError::Expired(secret.clone()));
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let wrong = |error| AuthorityError::Verifier(secret.clone(), error);
        Ok(Self {
            optional: builder.clone().allow_unauthenticated().build().map_err(wrong)?,
            required: builder.build().map_err(wrong)?,
        })
    }
}

/// The good authorities of Secrets: a bad new version does not take the last good one away.
#[derive(Default)]
pub struct Store {
    good: HashMap<ObjectName, Arc<Authority>>,
}

impl Store {
    /// `ca.crt` of a Secret as it is now.
    pub fn put(&mut self, secret: &ObjectName, pem: &[u8], now: i64) -> Result<(), AuthorityError> {
        let authority = Authority::read(secret, pem, now)?;
        self.good.insert(secret.clone(), Arc::new(authority));
        Ok(())
    }

    /// The last good authorities of a Secret.
    pub fn get(&self, secret: &ObjectName) -> Option<&Arc<Authority>> {
        self.good.get(secret)
    }

    /// The Secret is gone.
    pub fn remove(&mut self, secret: &ObjectName) {
        self.good.remove(secret);
    }

    /// The hosts that nobody can get into, because their Secret is not there or never was good; by their Ingresses.
    pub fn unmet(&self, demands: &Demands) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (host, demand) in demands {
            if let Some(secret) = &demand.secret
                && self.get(secret).is_none()
            {
                let what = format!(
                    "TLS for host {host} is refused: Secret {secret} has no good ca.crt to authenticate clients by; write it"
                );
                problems.push(Problem::new(Kind::Ingress, &demand.origin.object, &what));
            }
        }
        problems
    }
}

/// What clients of a host have to show.
pub struct Demand {
    secret: Option<ObjectName>,
    mode: ClientAuthMode,
    authority: Option<Arc<Authority>>,
}

impl Demand {
    /// By these authorities; without any, nobody is let in.
    pub fn new(secret: Option<ObjectName>, mode: ClientAuthMode, authority: Option<Arc<Authority>>) -> Self {
        Self {
            secret,
            mode,
            authority,
        }
    }

    /// How TLS is spoken with such clients; none if nobody is let in.
    pub(crate) fn config(
        &self,
        certificate: &Certificate,
    ) -> Option<Result<Arc<ServerConfig>, rustls::Error>> {
        let authority = self.authority.as_ref()?;
        let verifier = match self.mode {
            ClientAuthMode::Require => &authority.required,
            ClientAuthMode::Optional => &authority.optional,
        };
        Some(config(certificate, Arc::clone(verifier)))
    }
}

fn config(
    certificate: &Certificate,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = certificates::builder(provider())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&certificate.config.cert_resolver));
    config.alpn_protocols = certificates::alpn();
    // No ticketer and no storage: nothing is resumed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What clients have to show, by the host that they ask for. A name without a demand of its own has its wildcard's, whatever
/// else it has: what its own rules do not serve, the wildcard's may.
#[derive(Default)]
pub struct ClientAuth {
    exact: HashMap<Box<str>, Arc<Demand>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Arc<Demand>>,
}

impl ClientAuth {
    /// From the model, with the authorities there are.
    pub fn new(demands: &Demands, authorities: &Store) -> Self {
        let mut table = Self::default();
        for demand in demands.values() {
            let secret = demand.secret.as_ref();
            let authority = secret.and_then(|secret| authorities.get(secret)).cloned();
            table.add(&demand.host, Demand::new(secret.cloned(), demand.mode, authority));
        }
        table
    }

    /// Clients of these names have to show this; no demand is for all names.
    pub fn add(&mut self, host: &HostMatch, demand: Demand) {
        let demand = Arc::new(demand);
        match host {
            HostMatch::Exact(name) => drop(self.exact.insert(name.clone(), demand)),
            HostMatch::Wildcard { suffix, .. } => drop(self.wildcard.insert(suffix.clone(), demand)),
            HostMatch::Any => {}
        }
    }

    /// What clients who ask for this name have to show.
    pub fn find(&self, name: &str) -> Option<&Arc<Demand>> {
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard)
    }

    /// Whether a request for this host may come over a connection that was made under that demand.
    pub(crate) fn allows(&self, made_under: Option<&Arc<Demand>>, host: &str) -> bool {
        is_same(made_under, self.find(host))
    }

    /// Whether a route may be taken over a connection that was made under that demand. A request whose own host has nothing for
    /// it may come to a wildcard's routes; and in clear text nobody has shown anything.
    pub(crate) fn opens(&self, made_under: Option<&Arc<Demand>>, route: &Route) -> bool {
        let wanted = match &route.host {
            HostMatch::Exact(name) => self.exact.get(name),
            HostMatch::Wildcard { suffix, .. } => self.wildcard.get(suffix),
            HostMatch::Any => None,
        };
        wanted.is_none() || is_same(made_under, wanted)
    }
}

/// Demands are the same if they name the same Secret, whatever is in it by now: a renewed authority ends no connection.
fn is_same(one: Option<&Arc<Demand>>, other: Option<&Arc<Demand>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.secret == other.secret && one.mode == other.mode,
        _ => false,
    }
}

/// A client that was asked for a certificate, ready to be told about.
pub(crate) struct Client {
    certificate: Option<CertificateDer<'static>>,
    subject: Option<HeaderValue>,
    issuer: Option<HeaderValue>,
    /// In PEM, for whoever wants it.
    pem: OnceCell<Option<HeaderValue>>,
}

impl Client {
    /// With the certificate that was found good, if it showed one.
    pub(crate) fn new(certificate: Option<CertificateDer<'static>>) -> Self {
        let mut client = Self {
            certificate: None,
            subject: None,
            issuer: None,
            pem: OnceCell::new(),
        };
        if let Some(der) = &certificate
            && let Ok((_, parsed)) = X509Certificate::from_der(der)
        {
            client.subject = HeaderValue::try_from(distinguished::text(parsed.subject())).ok();
            client.issuer = HeaderValue::try_from(distinguished::text(parsed.issuer())).ok();
        }
        client.certificate = certificate;
        client
    }

    /// Tells a backend. What the client itself has said of this is gone by now.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, pass_certificate: bool) {
        let verified = if self.certificate.is_some() {
            "SUCCESS"
        } else {
            "NONE"
        };
        headers.insert(VERIFY, HeaderValue::from_static(verified));
        for (name, value) in [(SUBJECT, &self.subject), (ISSUER, &self.issuer)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        if pass_certificate && let Some(pem) = self.pem() {
            headers.insert(CERTIFICATE, pem);
        }
    }

    fn pem(&self) -> Option<HeaderValue> {
        let made = || {
            let pem = Pem::new("CERTIFICATE", self.certificate.as_ref()?.to_vec());
            let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
            HeaderValue::try_from(escaped(&pem::encode_config(&pem, lines))).ok()
        };
        self.pem.get_or_init(made).clone()
    }
}

/// As in a URL: letters, digits and `-._~` stay.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() * 5 / 4);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _written = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
