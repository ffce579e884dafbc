//! Certificates: from PEM, with what is wrong with them, and by name.
//!
//! What a Secret holds is tried when it is read, not when a client comes: a key that does not fit, a chain in the wrong
//! order or an expired certificate is an error with the Secret's name, and the last good one stays in use.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use proxy_model::ObjectName;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

/// The cryptography, by name: the workspace also has another one for the API server, and rustls would not know which.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let made = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Arc::clone(PROVIDER.get_or_init(made))
}

/// What is wrong with a Secret, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No certificate in it.
    #[error(
        "Secret {0}: tls.crt has no certificate in PEM; write the certificate, then its intermediates, into it"
    )]
    None(ObjectName),
    /// No key in it.
    #[error("Secret {0}: tls.key has no private key in PEM (PKCS#8, PKCS#1 or SEC1)")]
    NoKey(ObjectName, #[source] rustls::pki_types::pem::Error),
    /// A certificate that cannot be read.
    #[error("Secret {0}: certificate {1} of tls.crt cannot be read; make it anew")]
    Unreadable(ObjectName, usize),
    /// The key is another's, or of a kind that cannot be used.
    #[error("Secret {0}: tls.key does not fit tls.crt; both must come from the same request")]
    Key(ObjectName, #[source] rustls::Error),
    /// A chain in the wrong order.
    #[error(
        "Secret {0}: certificate {1} of tls.crt was not issued by the one behind it; the order is certificate, \
         intermediates"
    )]
    Order(ObjectName, usize),
    /// It has expired.
    #[error("Secret {0}: the certificate expired {1}; renew it")]
    Expired(ObjectName, String),
    /// Its time has not come.
    #[error("Secret {0}: the certificate is not valid before {1}; look at the clocks")]
    Early(ObjectName, String),
    /// It names nobody.
    #[error(
        "Secret {0}: the certificate has no DNS name in its subjectAltName; make one that has the host's"
    )]
    Nameless(ObjectName),
    /// rustls refuses it.
    #[error("Secret {0}: cannot be used for TLS")]
    Config(ObjectName, #[source] rustls::Error),
}

/// What makes certificates usable: the cryptography and the keys of session tickets, shared by all of them.
#[derive(Clone)]
pub struct Maker {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
}

/// A certificate, ready for use.
pub struct Certificate {
    /// The names that it covers, in lower case; `*.` stands for one label.
    names: Vec<Box<str>>,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
    pub(crate) config: Arc<ServerConfig>,
}

/// Which certificate is shown for which name.
pub struct Certificates {
    exact: HashMap<Box<str>, Arc<Certificate>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Arc<Certificate>>,
    default: Arc<Certificate>,
}

impl Maker {
    /// With new ticket keys, which rustls changes every six hours.
    pub fn new() -> Result<Self, rustls::Error> {
        Ok(Self {
            provider: provider(),
            tickets: rustls::crypto::aws_lc_rs::Ticketer::new()?,
        })
    }

    /// From a Secret of type `kubernetes.io/tls`; `now` in seconds since 1970.
    pub fn certificate(
        &self,
        secret: &ObjectName,
        chain: &[u8],
        key: &[u8],
        now: i64,
    ) -> Result<Certificate, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::None(secret.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| CertificateError::NoKey(secret.clone(), error))?;
        let read = read(secret, &chain)?;
        let leaf = read
            .first()
            .ok_or_else(|| CertificateError::None(secret.clone()))?;
        check_time(secret, leaf, now)?;
        check_order(secret, &read)?;
        let names = names(leaf);
        if names.is_empty() {
            return Err(CertificateError::Nameless(secret.clone()));
        }
        let not_after = leaf.validity().not_after.timestamp();
        let config = self.config(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) | rustls::Error::General(_) => {
                CertificateError::Key(secret.clone(), error)
            }
            error => CertificateError::Config(secret.clone(), error),
        })?;
        Ok(Certificate {
            names,
            not_after,
            config,
        })
    }

    /// What is shown where nothing else fits. It covers no name, so nobody takes it for the right one.
    pub fn self_signed(&self) -> Result<Certificate, SelfSignedError> {
        let made = rcgen::generate_simple_self_signed(["weir.invalid".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Ok(Certificate {
            names: Vec::new(),
            not_after: i64::MAX,
            config: self.config(vec![made.cert.der().clone()], key)?,
        })
    }

    fn config(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let certified = CertifiedKey::from_der(chain, key, &self.provider)?;
        let mut config = builder(Arc::clone(&self.provider))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = alpn();
        config.ticketer = Arc::clone(&self.tickets);
        // Tickets are with the clients; ten thousand certificates need no ten thousand caches.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

/// What all configurations have in common.
pub(crate) fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
}

/// What is spoken over TLS, the best first.
pub(crate) fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// Why there is no certificate to begin with.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// It could not be made.
    #[error("making a self-signed certificate")]
    Make(#[from] rcgen::Error),
    /// It could not be used.
    #[error("using a self-signed certificate")]
    Use(#[from] rustls::Error),
}

fn read<'a>(
    secret: &ObjectName,
    chain: &'a [CertificateDer<'static>],
) -> Result<Vec<X509Certificate<'a>>, CertificateError> {
    let one = |(number, der): (usize, &'a CertificateDer<'static>)| match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(CertificateError::Unreadable(secret.clone(), number + 1)),
    };
    chain.iter().enumerate().map(one).collect()
}

fn check_time(secret: &ObjectName, leaf: &X509Certificate<'_>, now: i64) -> Result<(), CertificateError> {
    let validity = leaf.validity();
    if validity.not_after.timestamp() < now {
        return Err(CertificateError::Expired(
            secret.clone(),
            validity.not_after.to_string(),
        ));
    }
    if validity.not_before.timestamp() > now {
        return Err(CertificateError::Early(
            secret.clone(),
            validity.not_before.to_string(),
        ));
    }
    Ok(())
}

fn check_order(secret: &ObjectName, chain: &[X509Certificate<'_>]) -> Result<(), CertificateError> {
    let behind = chain.iter().skip(1);
    let wrong = chain
        .iter()
        .zip(behind)
        .position(|(one, next)| one.issuer() != next.subject());
    wrong.map_or(Ok(()), |at| Err(CertificateError::Order(secret.clone(), at + 1)))
}

fn names(leaf: &X509Certificate<'_>) -> Vec<Box<str>> {
    let Ok(Some(alternative)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    let names = alternative.value.general_names.iter();
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into_boxed_str()),
        _ => None,
    });
    dns.collect()
}

impl Certificate {
    /// The names that it covers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// When it expires, RFC 3339; empty for what was made here.
    pub fn expires(&self) -> String {
        let known = (self.not_after != i64::MAX).then(|| ASN1Time::from_timestamp(self.not_after).ok());
        let time = known.flatten().map(|time| time.to_datetime());
        time.map_or_else(String::new, |time| {
            let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
            let (hour, minute, second) = (time.hour(), time.minute(), time.second());
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
        })
    }

    /// Whether it is for this host (in lower case, without a final dot).
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix),
            None => **name == *host,
        })
    }
}

impl Certificates {
    /// Only what is shown where nothing else fits.
    pub fn new(default: Arc<Certificate>) -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default,
        }
    }

    /// Shows it for `name`, or for `*.name`, unless there is one already: the caller brings the oldest first.
    pub fn add(&mut self, name: &str, certificate: &Arc<Certificate>) {
        let (table, name) = match name.strip_prefix("*.") {
            Some(suffix) => (&mut self.wildcard, suffix),
            None => (&mut self.exact, name),
        };
        table
            .entry(name.into())
            .or_insert_with(|| Arc::clone(certificate));
    }

    /// The one for a name; the default for none, and where none fits.
    pub fn find(&self, name: Option<&str>) -> &Arc<Certificate> {
        let found = name.and_then(|name| {
            let suffix = name.split_once('.').map(|(_, suffix)| suffix);
            self.exact.get(name).or_else(|| self.wildcard.get(suffix?))
        });
        found.unwrap_or(&self.default)
    }

    /// Those that are shown for a name; one for several names comes as often.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.exact.values().chain(self.wildcard.values())
    }

    /// Whether a request for this host may come over a connection with this certificate: it may if the certificate is
    /// for the host, or if the host has none of its own and gets the default anyway.
    pub(crate) fn allow(&self, shown: &Arc<Certificate>, host: &str) -> bool {
        Arc::ptr_eq(self.find(Some(host)), shown)
            || shown.covers(host)
            || Arc::ptr_eq(self.find(Some(host)), &self.default)
    }
}

/// The good certificates of Secrets: a bad new version does not take the last good one away.
#[derive(Default)]
pub struct Store {
    good: HashMap<ObjectName, Arc<Certificate>>,
}

impl Store {
    /// A Secret as it is now.
    pub fn put(
        &mut self,
        maker: &Maker,
        secret: &ObjectName,
        (chain, key): (&[u8], &[u8]),
        now: i64,
    ) -> Result<(), CertificateError> {
        let certificate = maker.certificate(secret, chain, key, now)?;
        self.good.insert(secret.clone(), Arc::new(certificate));
        Ok(())
    }

    /// The last good certificate of a Secret.
    pub fn get(&self, secret: &ObjectName) -> Option<&Arc<Certificate>> {
        self.good.get(secret)
    }

    /// The Secret is gone.
    pub fn remove(&mut self, secret: &ObjectName) {
        self.good.remove(secret);
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

    use super::*;

    const NOW: i64 = 1_900_000_000;

    fn secret() -> ObjectName {
        ObjectName::new("shop", "cert")
    }

    fn params(names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2040, 1, 1);
        params
    }

    fn pair(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (
            params(names).self_signed(&key).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    fn made(chain: &str, key: &str, now: i64) -> Result<Certificate, CertificateError> {
        Maker::new()
            .unwrap()
            .certificate(&secret(), chain.as_bytes(), key.as_bytes(), now)
    }

    fn said(chain: &str, key: &str, now: i64) -> String {
        made(chain, key, now)
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_said_with_its_name() {
        let (chain, key) = pair(&["a.example"]);
        let (_, other) = pair(&["a.example"]);
        let (nameless, nameless_key) = pair(&[]);
        assert!(made(&chain, &key, NOW).is_ok());
        for (text, part) in [
            (said("", &key, NOW), "tls.crt has no certificate"),
            (said("rubbish", &key, NOW), "tls.crt has no certificate"),
            (said(&chain, "", NOW), "tls.key has no private key"),
            (said(&chain, &other, NOW), "tls.key does not fit"),
            (said(&chain, &key, 2_300_000_000), "expired"),
            (said(&chain, &key, 1_500_000_000), "not valid before"),
            (said(&nameless, &nameless_key, NOW), "no DNS name"),
        ] {
            assert!(text.starts_with("Secret shop/cert: "), "{text}");
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_chain_must_be_in_order() {
        let mut authority = params(&[]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority
            .distinguished_name
            .push(rcgen::DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = params(&["a.example"]).signed_by(&key, &authority).unwrap();
        let (stranger, _) = pair(&["b.example"]);
        let good = format!("{}{}", leaf.pem(), authority.pem());
        assert!(made(&good, &key.serialize_pem(), NOW).is_ok());
        let text = said(
            &format!("{}{stranger}{}", leaf.pem(), authority.pem()),
            &key.serialize_pem(),
            NOW,
        );
        assert!(
            text.contains("certificate 1 of tls.crt was not issued by the one behind it"),
            "{text}"
        );
    }

    #[test]
    fn a_bad_version_of_a_secret_leaves_the_good_one() {
        let (maker, mut store) = (Maker::new().unwrap(), Store::default());
        let (chain, key) = pair(&["a.example"]);
        store
            .put(&maker, &secret(), (chain.as_bytes(), key.as_bytes()), NOW)
            .unwrap();
        let good = Arc::clone(store.get(&secret()).unwrap());
        store
            .put(&maker, &secret(), (chain.as_bytes(), b""), NOW)
            .unwrap_err();
        assert!(Arc::ptr_eq(store.get(&secret()).unwrap(), &good));
        store.remove(&secret());
        assert!(store.get(&secret()).is_none());
    }

    #[test]
    fn exact_before_wildcard_before_default_and_the_first_stays() {
        let make = |names: &[&str]| {
            let (chain, key) = pair(names);
            Arc::new(made(&chain, &key, NOW).unwrap())
        };
        let default = Arc::new(Maker::new().unwrap().self_signed().unwrap());
        let (one, two, star) = (make(&["a.example"]), make(&["a.example"]), make(&["*.example"]));
        let mut certificates = Certificates::new(Arc::clone(&default));
        certificates.add("a.example", &one);
        certificates.add("a.example", &two);
        certificates.add("*.example", &star);
        let is = |name: Option<&str>, which: &Arc<Certificate>| Arc::ptr_eq(certificates.find(name), which);
        assert!(is(Some("a.example"), &one) && is(Some("b.example"), &star));
        assert!(is(Some("c.b.example"), &default) && is(Some("example"), &default) && is(None, &default));
        assert!(star.covers("b.example") && !star.covers("c.b.example") && !star.covers("example"));
        assert!(
            certificates.allow(&star, "a.example"),
            "it covers the name, though another is shown for it"
        );
        assert!(!certificates.allow(&one, "b.example"));
        assert!(certificates.allow(&one, "other.test"), "nobody has a better one");
    }
}
