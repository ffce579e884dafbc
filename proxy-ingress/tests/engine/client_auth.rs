//! Clients that show a certificate, and the boundary that nobody gets across without.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use proxy_ingress::client_auth::{AuthorityError, Demand, Store};
use proxy_ingress::model::doors::ClientAuthMode;
use proxy_ingress::route::{HostMatch, PathMatch, Route, WildcardDepth};
use proxy_model::ObjectName;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};

use crate::common::{Plan, route, wait, with_policy};
use crate::peers::Backing;
use crate::tls::{self, Site};

const NOW: i64 = 1_900_000_000;

/// Who vouches for clients.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn vouches_for(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn demand(&self, secret: &str, mode: ClientAuthMode) -> Demand {
        let secret = ObjectName::new("test", secret);
        let mut store = Store::default();
        store.put(&secret, self.0.pem().as_bytes(), NOW).unwrap();
        let authority = store.get(&secret).cloned();
        Demand::new(Some(secret), mode, authority)
    }
}

fn exact(name: &str) -> HostMatch {
    HostMatch::Exact(name.into())
}

fn wildcard(suffix: &str) -> HostMatch {
    HostMatch::Wildcard {
        suffix: suffix.into(),
        depth: WildcardDepth::One,
    }
}

fn client(
    site: &Site,
    version: &'static rustls::SupportedProtocolVersion,
    shows: &(Certificate, KeyPair),
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(site.roots.clone());
    let key = PrivateKeyDer::Pkcs8(shows.1.serialize_der().into());
    Arc::new(
        builder
            .with_client_auth_cert(vec![shows.0.der().clone()], key)
            .unwrap(),
    )
}

/// The answer, if the client gets in.
fn answer(site: &Site, config: &Arc<ClientConfig>, name: &str, host: &str) -> Option<String> {
    let mut stream = site.open(config, name).ok()?;
    let request =
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nssl-client-verify: SUCCESS\r\n");
    let forged = "ssl-client-cert: forged\r\nssl-client-subject-dn: CN=admin\r\n\r\n";
    // Over TLS 1.3 a client hears of its refusal with the first answer.
    let _sent = stream.write_all(format!("{request}{forged}").as_bytes());
    let mut text = Vec::new();
    let _ended = stream.read_to_end(&mut text);
    (!text.is_empty()).then(|| String::from_utf8(text).unwrap())
}

#[test]
fn only_who_is_vouched_for_gets_in_and_backends_hear_who_it_is() {
    let authority = Authority::new("the authority");
    let site = tls::site_of(|plan| {
        plan.client_auth.add(
            &exact("a.site.test"),
            authority.demand("ca", ClientAuthMode::Require),
        );
        plan.routes = vec![with_policy(|policy| policy.pass_certificate = true)];
    });
    let good = authority.vouches_for("somebody");
    let stranger = Authority::new("the authority").vouches_for("somebody");
    for version in [&TLS12, &TLS13] {
        let said = answer(
            &site,
            &client(&site, version, &good),
            "a.site.test",
            "a.site.test",
        )
        .unwrap();
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        for line in [
            "ssl-client-verify: SUCCESS\r\n",
            "ssl-client-subject-dn: CN=somebody\r\n",
            "ssl-client-issuer-dn: CN=the authority\r\n",
        ] {
            assert_eq!(said.matches(line).count(), 1, "{line}: {said}");
        }
        let escaped = said
            .split("ssl-client-cert: ")
            .nth(1)
            .unwrap()
            .lines()
            .next()
            .unwrap();
        let unescaped = escaped
            .replace("%0A", "\n")
            .replace("%20", " ")
            .replace("%2B", "+")
            .replace("%2F", "/")
            .replace("%3D", "=");
        assert_eq!(unescaped, good.0.pem().replace("\r\n", "\n"));
        for config in [client(&site, version, &stranger), site.config(version)] {
            assert_eq!(answer(&site, &config, "a.site.test", "a.site.test"), None);
        }
        // A name without demands: nothing that a client says of itself comes through.
        let said = answer(
            &site,
            &client(&site, version, &good),
            "b.site.test",
            "b.site.test",
        )
        .unwrap();
        assert!(
            said.starts_with("HTTP/1.1 200 ") && !said.contains("ssl-client-"),
            "{said}"
        );
    }
}

#[test]
fn where_it_is_optional_none_will_do_and_a_bad_one_will_not() {
    let authority = Authority::new("the authority");
    let site = tls::site_of(|plan| {
        plan.client_auth.add(
            &wildcard("site.test"),
            authority.demand("ca", ClientAuthMode::Optional),
        );
    });
    let good = client(&site, &TLS13, &authority.vouches_for("somebody"));
    let bad = client(&site, &TLS13, &Authority::new("other").vouches_for("somebody"));
    let verified = |config: &Arc<ClientConfig>| {
        let said = answer(&site, config, "b.site.test", "b.site.test")?;
        let line = said
            .split("ssl-client-verify: ")
            .nth(1)?
            .lines()
            .next()?
            .to_owned();
        Some((
            line,
            said.contains("ssl-client-cert"),
            said.contains("ssl-client-subject-dn: CN=somebody"),
        ))
    };
    assert_eq!(verified(&good), Some(("SUCCESS".to_owned(), false, true)));
    assert_eq!(
        verified(&site.config(&TLS13)),
        Some(("NONE".to_owned(), false, false))
    );
    assert_eq!(verified(&bad), None);
}

#[test]
fn l9_no_request_crosses_the_boundary_whatever_the_certificate_covers() {
    let authority = Authority::new("the authority");
    let site = tls::site_of(|plan| {
        for (host, secret) in [
            ("x.site.test", "ca"),
            ("y.site.test", "ca"),
            ("z.site.test", "ca-2"),
        ] {
            plan.client_auth
                .add(&exact(host), authority.demand(secret, ClientAuthMode::Require));
        }
    });
    let good = client(&site, &TLS13, &authority.vouches_for("somebody"));
    let status = |name: &str, host: &str| {
        let said = answer(&site, &good, name, host).unwrap();
        said.get(9..12).unwrap().to_owned()
    };
    for (name, host, expected) in [
        ("x.site.test", "x.site.test", "200"),
        ("x.site.test", "y.site.test", "200"),
        ("x.site.test", "z.site.test", "421"),
        ("x.site.test", "b.site.test", "421"),
        ("b.site.test", "x.site.test", "421"),
        ("b.site.test", "c.site.test", "200"),
        ("a.site.test", "x.site.test", "421"),
    ] {
        assert_eq!(status(name, host), expected, "{name}, {host}");
    }
}

#[test]
fn a_demand_that_came_later_counts_for_old_connections_too() {
    let authority = Authority::new("the authority");
    let site = tls::site_of(|_| ());
    let mut stream = site.open(&site.config(&TLS13), "a.site.test").unwrap();
    let mut ask = |expected: &str| {
        write!(stream, "GET / HTTP/1.1\r\nHost: a.site.test\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(expected), "{head}");
        let length = head.to_ascii_lowercase();
        let length = length
            .split("content-length: ")
            .nth(1)
            .unwrap()
            .lines()
            .next()
            .unwrap();
        stream.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
    };
    ask("HTTP/1.1 200 ");
    let mut later = Plan::to(&[]);
    later.client_auth.add(
        &exact("a.site.test"),
        authority.demand("ca", ClientAuthMode::Optional),
    );
    site.front.engine.serve(Arc::clone(&later.start().snapshot));
    ask("HTTP/1.1 421 ");
}

#[test]
fn without_authorities_nobody_gets_in() {
    let authority = Authority::new("the authority");
    let site = tls::site_of(|plan| {
        let secret = ObjectName::new("test", "missing");
        let demand = Demand::new(Some(secret), ClientAuthMode::Optional, None);
        plan.client_auth.add(&exact("a.site.test"), demand);
    });
    let good = authority.vouches_for("somebody");
    for version in [&TLS12, &TLS13] {
        for config in [client(&site, version, &good), site.config(version)] {
            let error = site.open(&config, "a.site.test").err().unwrap();
            assert!(error.to_string().contains("AccessDenied"), "{error}");
            assert!(answer(&site, &config, "b.site.test", "b.site.test").is_some());
        }
    }
    wait("four errors", || {
        let counters = site.front.engine.counters();
        counters.handshake_errors.load(Ordering::Relaxed) == 4
    });
}

#[test]
fn no_ticket_takes_a_session_past_the_check() {
    let authority = Authority::new("the authority");
    let site = tls::site_of(|plan| {
        plan.client_auth.add(
            &exact("a.site.test"),
            authority.demand("ca", ClientAuthMode::Require),
        );
    });
    for version in [&TLS12, &TLS13] {
        let config = client(&site, version, &authority.vouches_for("somebody"));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut stream = site.open(&config, "a.site.test").unwrap();
            kinds.push(stream.conn.handshake_kind().unwrap());
            assert!(tls::ask(&mut stream, "a.site.test").starts_with("HTTP/1.1 200 "));
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Full], "{version:?}");
    }
}

fn at(host: HostMatch, path: &str, of: Route) -> Route {
    Route {
        host,
        path: PathMatch::Prefix(path.into()),
        ..of
    }
}

#[test]
fn clear_text_shows_nothing_so_it_gets_nothing() {
    let authority = Authority::new("the authority");
    let backing = Backing::echo();
    let mut plan = Plan::to(&[backing.address]);
    for host in ["plain.test", "sent.test"] {
        plan.client_auth
            .add(&exact(host), authority.demand("ca", ClientAuthMode::Optional));
    }
    let redirecting = with_policy(|policy| policy.https_redirect = Some(StatusCode::PERMANENT_REDIRECT));
    plan.routes = vec![
        at(exact("plain.test"), "/", route()),
        at(exact("plain.test"), "/.well-known/acme-challenge/x", route()),
        at(exact("sent.test"), "/", redirecting),
        at(exact("open.test"), "/", route()),
    ];
    let front = plan.start();
    for (host, path, expected) in [
        ("plain.test", "/", "421"),
        ("plain.test", "/.well-known/acme-challenge/x", "200"),
        ("sent.test", "/", "308"),
        ("open.test", "/", "200"),
    ] {
        let said = front.says(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ));
        assert_eq!(said.get(9..12), Some(expected), "{host}{path}: {said}");
    }
}

#[test]
fn routes_of_the_wildcard_keep_their_demand_for_names_that_have_their_own() {
    let authority = Authority::new("the authority");
    let site = tls::site_of(|plan| {
        plan.client_auth.add(
            &wildcard("site.test"),
            authority.demand("ca", ClientAuthMode::Require),
        );
        plan.client_auth.add(
            &exact("a.site.test"),
            authority.demand("ca-2", ClientAuthMode::Optional),
        );
        plan.routes = vec![
            at(wildcard("site.test"), "/", route()),
            at(exact("a.site.test"), "/mine", route()),
        ];
    });
    let good = client(&site, &TLS13, &authority.vouches_for("somebody"));
    let said = answer(&site, &good, "a.site.test", "a.site.test").unwrap();
    assert!(said.starts_with("HTTP/1.1 421 "), "{said}");
    let said = answer(&site, &good, "b.site.test", "b.site.test").unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

#[test]
fn a_bad_version_of_a_secret_leaves_the_good_one_and_says_what_is_wrong() {
    let secret = ObjectName::new("test", "ca");
    let mut store = Store::default();
    let good = Authority::new("good").0.pem();
    let mut expired = CertificateParams::new(Vec::new()).unwrap();
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let expired = expired.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    store
        .put(&secret, format!("{expired}{good}").as_bytes(), NOW)
        .unwrap();
    let kept = Arc::clone(store.get(&secret).unwrap());
    let broken = good.replacen("MII", "AAA", 1).replacen("MIIB", "AAAB", 1);
    for (pem, part) in [
        ("", "ca.crt has no certificate in PEM"),
        ("rubbish", "ca.crt has no certificate in PEM"),
        (expired.as_str(), "no certificate of ca.crt is valid today"),
        (broken.as_str(), "certificate 1 of ca.crt cannot be read"),
    ] {
        let error: AuthorityError = store.put(&secret, pem.as_bytes(), NOW).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("Secret test/ca: ") && text.contains(part),
            "{text}"
        );
    }
    assert!(Arc::ptr_eq(store.get(&secret).unwrap(), &kept));
    store.remove(&secret);
    assert!(store.get(&secret).is_none());
}
