//! What an Ingress may choose by annotations: limits and manners of its routes.
//!
//! Read strictly: a value that makes no sense is a problem, and the default holds for it alone.

pub(crate) mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;

use self::values::{
    balance, boolean, bytes, cookie_path, count, duration, hash_on, mode, or_none, or_tcp, protocol,
    statuses, token,
};
use super::doors::ClientAuthMode;
use crate::route::{Balance, Cookie, HashOn, HealthCheck, Policy};

/// What our annotations begin with.
pub const PREFIX: &str = "ingress.weir.network/";

/// Who is asked more often has nothing else to do.
const SHORTEST_CHECK: Duration = Duration::from_millis(100);
/// Without a byte for so long a connection that is passed through ends, unless the Ingress says otherwise: who speaks in it, and
/// how often, is not known here.
const TUNNEL_IDLE: Duration = Duration::from_hours(1);

/// What an Ingress chose.
#[derive(Clone, PartialEq, Debug)]
pub struct Choices {
    /// For its routes; `https_redirect` is that of routes whose host has TLS.
    pub policy: Policy,
    /// Clear text is sent to HTTPS also where the Ingress has no TLS: somebody else terminates it.
    pub always_redirect: bool,
    /// Its connections are passed through unopened.
    pub passthrough: bool,
    /// Its clients show a certificate.
    pub client_auth: Option<ClientAuth>,
}

/// How clients are authenticated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientAuth {
    /// The Secret with the authorities, as it is written.
    pub secret: Option<String>,
    /// Who is let in.
    pub mode: ClientAuthMode,
}

/// Reads the annotations; what is wrong goes to `problems`.
pub fn read(annotations: Option<&BTreeMap<String, String>>, problems: &mut Vec<String>) -> Choices {
    let mut reader = Reader::default();
    for (key, value) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        match reader.set(name, value.trim()) {
            Ok(()) => reader.said.push(name),
            Err("") => problems.push(format!(
                "annotation {key:?} is not known: it does nothing; correct or remove it"
            )),
            Err(wanted) => problems.push(format!(
                "annotation {key} is {value:?}: the default holds; use {wanted}"
            )),
        }
    }
    reader.finish(problems)
}

/// The annotations as far as they are read.
struct Reader<'a> {
    policy: Policy,
    always_redirect: bool,
    balance: Option<Word>,
    hash_on: Option<HashOn>,
    cookie: Cookie,
    check: HealthCheck,
    passthrough: bool,
    client_auth: Option<ClientAuth>,
    /// Names of those that made sense.
    said: Vec<&'a str>,
}

/// The value of `balance`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    RoundRobin,
    LeastRequests,
    PeakEwma,
    Hash,
    Cookie,
}

impl Default for Reader<'_> {
    fn default() -> Self {
        Self {
            policy: Policy {
                https_redirect: Some(StatusCode::PERMANENT_REDIRECT),
                ..Policy::default()
            },
            always_redirect: false,
            balance: None,
            hash_on: None,
            cookie: Cookie {
                name: "weir".into(),
                max_age: None,
                path: "/".into(),
                secure: false,
            },
            check: HealthCheck::default(),
            passthrough: false,
            client_auth: None,
            said: Vec::new(),
        }
    }
}

impl Reader<'_> {
    /// One annotation. The error is what could stand there; empty if there is no such annotation.
    fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        const TIME: &str = "a number of seconds, or one with ms, s, m or h, up to 168h";
        const TIME_OR_NONE: &str = "a number of seconds, or one with ms, s, m or h, up to 168h, or none";
        let policy = &mut self.policy;
        match name {
            "https-redirect" => return self.redirect(value),
            "backend-protocol" => policy.protocol = Some(protocol(value).ok_or("http, h2c or https")?),
            "connect-timeout" => policy.connect_timeout = duration(value).ok_or(TIME)?,
            "idle-timeout" => policy.idle_timeout = duration(value).ok_or(TIME)?,
            "response-timeout" => policy.response_timeout = or_none(value, duration).or(Err(TIME_OR_NONE))?,
            "request-timeout" => policy.request_timeout = or_none(value, duration).or(Err(TIME_OR_NONE))?,
            "body-limit" => {
                policy.body_limit =
                    or_none(value, bytes).or(Err("a number of bytes, or one with k, m or g, or none"))?;
            }
            "tries" => policy.retry.tries = count(value).ok_or("a number from 1 to 10")?,
            "retry-on-timeout" => policy.retry.on_timeout = boolean(value).ok_or("true or false")?,
            "retry-non-idempotent" => policy.retry.non_idempotent = boolean(value).ok_or("true or false")?,
            "balance" => {
                let words = "round-robin, least-requests, peak-ewma, hash or cookie";
                self.balance = Some(balance(value).ok_or(words)?);
            }
            "tls-passthrough" => self.passthrough = boolean(value).ok_or("true or false")?,
            "client-auth-pass-certificate" => {
                policy.pass_certificate = boolean(value).ok_or("true or false")?;
            }
            "client-auth-secret" => self.client_auth().secret = Some(value.to_owned()),
            "client-auth" => self.client_auth().mode = mode(value).ok_or("require or optional")?,
            "hash-on" => self.hash_on = Some(hash_on(value).ok_or("client, uri or header:NAME")?),
            name if name.starts_with("health-check-") => return self.check(name, value),
            cookie => return self.cookie(cookie, value),
        }
        Ok(())
    }

    /// Whatever is said of it, and be it nonsense: somebody means to let in not just anybody.
    fn client_auth(&mut self) -> &mut ClientAuth {
        self.client_auth.get_or_insert_default()
    }

    fn redirect(&mut self, value: &str) -> Result<(), &'static str> {
        let status = match value {
            "true" | "always" => Some(StatusCode::PERMANENT_REDIRECT),
            "false" => None,
            "301" | "302" | "303" | "307" | "308" => value.parse().ok(),
            _ => return Err("true, false, always, 301, 302, 303, 307 or 308"),
        };
        self.policy.https_redirect = status;
        self.always_redirect = value == "always";
        Ok(())
    }

    fn cookie(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let cookie = &mut self.cookie;
        match name {
            "cookie-name" => cookie.name = token(value).ok_or("letters, digits, - and _")?.into(),
            "cookie-path" => cookie.path = cookie_path(value).ok_or("a path that begins with /")?.into(),
            "cookie-max-age" => {
                cookie.max_age = or_none(value, duration)
                    .or(Err("a number of seconds, or one with s, m or h, or none"))?;
            }
            "cookie-secure" => cookie.secure = boolean(value).ok_or("true or false")?,
            _ => return Err(""),
        }
        Ok(())
    }

    fn check(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        const TIME: &str = "a number of seconds, or one with ms, s, m or h, from 100ms to 168h";
        let time = || duration(value).filter(|time| *time >= SHORTEST_CHECK).ok_or(TIME);
        let count = || count(value).ok_or("a number from 1 to 10");
        let check = &mut self.check;
        match name {
            "health-check-path" => {
                check.path = or_tcp(value).or(Err("a path that begins with /, or tcp"))?;
            }
            "health-check-interval" => check.interval = time()?,
            "health-check-timeout" => check.timeout = time()?,
            "health-check-status" => {
                check.status = statuses(value).ok_or("statuses or ranges of them, as 200-299,404")?;
            }
            "health-check-healthy" => check.healthy = count()?,
            "health-check-unhealthy" => check.unhealthy = count()?,
            _ => return Err(""),
        }
        Ok(())
    }

    fn finish(mut self, problems: &mut Vec<String>) -> Choices {
        let said = |prefix: &str| self.said.iter().any(|name| name.starts_with(prefix));
        if said("cookie-") && self.balance != Some(Word::Cookie) {
            problems.push(format!(
                "annotations {PREFIX}cookie-... do nothing without {PREFIX}balance: cookie: write that too, or remove them"
            ));
        }
        if self.hash_on.is_some() && self.balance != Some(Word::Hash) {
            problems.push(format!(
                "annotation {PREFIX}hash-on does nothing without {PREFIX}balance: hash: write that too, or remove it"
            ));
        }
        let wanted = said("health-check-path");
        if said("health-check-") && !wanted {
            problems.push(format!(
                "annotations {PREFIX}health-check-... do nothing without {PREFIX}health-check-path: write that too, or remove them"
            ));
        }
        let idle_said = said("idle-timeout");
        self.policy.check = wanted.then_some(HealthCheck {
            protocol: self.policy.protocol,
            ..self.check
        });
        self.policy.balance = match self.balance {
            None | Some(Word::RoundRobin) => Balance::RoundRobin,
            Some(Word::LeastRequests) => Balance::LeastRequests,
            Some(Word::PeakEwma) => Balance::PeakEwma,
            Some(Word::Hash) => Balance::Hash(self.hash_on.unwrap_or(HashOn::Client)),
            Some(Word::Cookie) => Balance::Cookie(self.cookie),
        };
        let mut choices = Choices {
            policy: self.policy,
            always_redirect: self.always_redirect,
            passthrough: self.passthrough,
            client_auth: self.client_auth,
        };
        if choices.policy.pass_certificate && choices.client_auth.is_none() {
            problems.push(format!(
                "annotation {PREFIX}client-auth-pass-certificate does nothing without {PREFIX}client-auth-secret: write that too, or remove it"
            ));
        }
        if choices.passthrough {
            choices.pass_through(idle_said, problems);
        }
        choices
    }
}

impl Choices {
    /// What can be had where nothing of a connection is seen but a name.
    fn pass_through(&mut self, idle_said: bool, problems: &mut Vec<String>) {
        if !idle_said {
            self.policy.idle_timeout = TUNNEL_IDLE;
        }
        let balance = &mut self.policy.balance;
        if let Balance::Cookie(_) | Balance::Hash(HashOn::Header(_) | HashOn::Uri) = balance {
            *balance = Balance::RoundRobin;
            problems.push(format!(
                "annotation {PREFIX}balance asks for what cannot be seen with {PREFIX}tls-passthrough: round-robin holds; use hash with hash-on: client"
            ));
        }
        if self.client_auth.take().is_some() {
            problems.push(format!(
                "annotations {PREFIX}client-auth... do nothing with {PREFIX}tls-passthrough, where the backend does all of TLS: remove them"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::route::UpstreamProtocol;

    fn read_all(pairs: &[(&str, &str)]) -> (Choices, Vec<String>) {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()));
        let mut problems = Vec::new();
        let choices = read(Some(&pairs.collect()), &mut problems);
        (choices, problems)
    }

    #[test]
    fn without_annotations_the_defaults_hold() {
        let (choices, problems) = read_all(&[]);
        let expected = Policy {
            https_redirect: Some(StatusCode::PERMANENT_REDIRECT),
            ..Policy::default()
        };
        assert_eq!(
            (choices.policy, choices.always_redirect, problems.len()),
            (expected, false, 0)
        );
        let others = BTreeMap::from([(
            "nginx.ingress.kubernetes.io/ssl-redirect".to_owned(),
            "x".to_owned(),
        )]);
        let mut problems = Vec::new();
        read(Some(&others), &mut problems);
        assert!(problems.is_empty());
    }

    #[test]
    fn each_annotation_is_read() {
        let (choices, problems) = read_all(&[
            ("https-redirect", "301"),
            ("backend-protocol", "h2c"),
            ("connect-timeout", "250ms"),
            ("response-timeout", "none"),
            ("idle-timeout", "5m"),
            ("request-timeout", "2h"),
            ("body-limit", "8m"),
            ("tries", "1"),
            ("retry-on-timeout", "false"),
            ("retry-non-idempotent", "true"),
            ("balance", "cookie"),
            ("cookie-name", "shop"),
            ("cookie-max-age", "3600"),
            ("cookie-path", "/shop"),
            ("cookie-secure", "true"),
        ]);
        assert_eq!(problems, Vec::<String>::new());
        let policy = choices.policy;
        assert_eq!(policy.https_redirect, Some(StatusCode::MOVED_PERMANENTLY));
        assert_eq!(policy.protocol, Some(UpstreamProtocol::H2c));
        assert_eq!(policy.connect_timeout, Duration::from_millis(250));
        assert_eq!(policy.response_timeout, None);
        assert_eq!(policy.idle_timeout, Duration::from_mins(5));
        assert_eq!(policy.request_timeout, Some(Duration::from_hours(2)));
        assert_eq!(policy.body_limit, Some(8 << 20));
        let retry = policy.retry;
        assert_eq!(
            (retry.tries, retry.on_timeout, retry.non_idempotent),
            (1, false, true)
        );
        let cookie = Cookie {
            name: "shop".into(),
            max_age: Some(Duration::from_hours(1)),
            path: "/shop".into(),
            secure: true,
        };
        assert_eq!(policy.balance, Balance::Cookie(cookie));
    }

    #[test]
    fn health_checks_are_read() {
        let (choices, problems) = read_all(&[
            ("backend-protocol", "h2c"),
            ("health-check-path", "/healthz?full=1"),
            ("health-check-interval", "500ms"),
            ("health-check-timeout", "1"),
            ("health-check-status", "200-204, 404"),
            ("health-check-healthy", "1"),
            ("health-check-unhealthy", "10"),
        ]);
        assert_eq!(problems, Vec::<String>::new());
        let expected = HealthCheck {
            path: Some("/healthz?full=1".into()),
            protocol: Some(UpstreamProtocol::H2c),
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            status: vec![(200, 204), (404, 404)],
            healthy: 1,
            unhealthy: 10,
        };
        assert_eq!(choices.policy.check, Some(expected));
        let tcp = read_all(&[("health-check-path", "tcp")]).0.policy.check;
        assert_eq!(tcp, Some(HealthCheck::default()));
        let (choices, problems) = read_all(&[("health-check-interval", "5s")]);
        assert_eq!(choices.policy.check, None);
        assert!(problems[0].contains("do nothing without"), "{problems:?}");
    }

    #[test]
    fn what_is_passed_through_is_silent_for_longer() {
        let idle = |pairs: &[(&str, &str)]| {
            let (choices, problems) = read_all(pairs);
            assert_eq!(problems, Vec::<String>::new());
            (choices.passthrough, choices.policy.idle_timeout)
        };
        let hour = Duration::from_hours(1);
        assert_eq!(idle(&[("tls-passthrough", "true")]), (true, hour));
        assert_eq!(
            idle(&[("tls-passthrough", "false")]),
            (false, Duration::from_mins(1))
        );
        let said = [("tls-passthrough", "true"), ("idle-timeout", "5m")];
        assert_eq!(idle(&said), (true, Duration::from_mins(5)));
    }

    #[test]
    fn balance_has_its_words() {
        let header = HashOn::Header(HeaderName::from_static("x-user"));
        let table: [(&[(&str, &str)], Balance); 6] = [
            (&[("balance", "round-robin")], Balance::RoundRobin),
            (&[("balance", "least-requests")], Balance::LeastRequests),
            (&[("balance", "peak-ewma")], Balance::PeakEwma),
            (&[("balance", "hash")], Balance::Hash(HashOn::Client)),
            (
                &[("balance", "hash"), ("hash-on", "uri")],
                Balance::Hash(HashOn::Uri),
            ),
            (
                &[("balance", "hash"), ("hash-on", "header:X-User")],
                Balance::Hash(header),
            ),
        ];
        for (pairs, expected) in table {
            let (choices, problems) = read_all(pairs);
            assert_eq!(
                (choices.policy.balance, problems.len()),
                (expected, 0),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn https_redirect_has_its_words() {
        let table = [
            ("true", Some(308), false),
            ("always", Some(308), true),
            ("false", None, false),
            ("302", Some(302), false),
        ];
        for (word, status, always) in table {
            let (choices, _) = read_all(&[("https-redirect", word)]);
            let found = choices.policy.https_redirect.map(|status| status.as_u16());
            assert_eq!((found, choices.always_redirect), (status, always), "{word}");
        }
    }

    #[test]
    fn a_bad_value_is_a_problem_and_the_default_holds() {
        let (default, _) = read_all(&[]);
        for (name, value) in [
            ("https-redirect", "yes"),
            ("https-redirect", "200"),
            ("backend-protocol", "HTTP"),
            ("connect-timeout", "0"),
            ("connect-timeout", "none"),
            ("connect-timeout", "+5"),
            ("connect-timeout", "169h"),
            ("connect-timeout", "99999999999999999999"),
            ("response-timeout", "-1"),
            ("idle-timeout", "5 s"),
            ("body-limit", "8x"),
            ("body-limit", "18446744073709551615k"),
            ("tries", "0"),
            ("tries", "11"),
            ("retry-on-timeout", "1"),
            ("balance", "random"),
            ("tls-passthrough", "yes"),
            ("client-auth-pass-certificate", "1"),
            ("health-check-path", "healthz"),
            ("health-check-path", "/a b"),
            ("health-check-interval", "50ms"),
            ("health-check-status", "200-"),
            ("health-check-status", "399-200"),
            ("health-check-status", "99"),
            ("health-check-healthy", "0"),
            ("health-check-often", "1"),
            ("no-such", "1"),
        ] {
            let (choices, problems) = read_all(&[(name, value)]);
            assert_eq!(choices, default, "{name}: {value}");
            assert_eq!(problems.len(), 1, "{name}: {value}: {problems:?}");
        }
        let words = read_all(&[("tries", "0")]).1;
        let expected =
            "annotation ingress.weir.network/tries is \"0\": the default holds; use a number from 1 to 10";
        assert_eq!(words, [expected]);
    }

    #[test]
    fn what_does_nothing_is_told() {
        for pairs in [
            [("cookie-name", "a")],
            [("hash-on", "uri")],
            [("cookie-name", "a;b")],
            [("hash-on", "header:ä")],
        ] {
            assert_eq!(read_all(&pairs).1.len(), 1, "{pairs:?}");
        }
    }
}
