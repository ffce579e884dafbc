//! What an Ingress may choose by annotations: limits and manners of its routes.
//!
//! Read strictly: a value that makes no sense is a problem, and the default holds for it alone.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::route::{Balance, Cookie, HashOn, Policy, UpstreamProtocol};

/// What our annotations begin with.
pub const PREFIX: &str = "ingress.weir.network/";

/// The most often that a request may be tried.
const MOST_TRIES: u32 = 10;
/// The longest time-out: a week, so that sums of several are far from any limit.
const LONGEST: Duration = Duration::from_hours(168);

/// What an Ingress chose.
#[derive(Clone, PartialEq, Debug)]
pub struct Choices {
    /// For its routes; `https_redirect` is that of routes whose host has TLS.
    pub policy: Policy,
    /// Clear text is sent to HTTPS also where the Ingress has no TLS: somebody else terminates it.
    pub always_redirect: bool,
}

/// Reads the annotations; what is wrong goes to `problems`.
pub fn read(annotations: Option<&BTreeMap<String, String>>, problems: &mut Vec<String>) -> Choices {
    let mut reader = Reader::default();
    for (key, value) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        if let Err(wanted) = reader.set(name, value.trim()) {
            problems.push(if wanted.is_empty() {
                format!("annotation {key:?} is not known: it does nothing; correct or remove it")
            } else {
                format!("annotation {key} is {value:?}: the default holds; use {wanted}")
            });
        }
    }
    reader.finish(problems)
}

/// The annotations as far as they are read.
struct Reader {
    policy: Policy,
    always_redirect: bool,
    balance: Option<Word>,
    hash_on: Option<HashOn>,
    cookie: Cookie,
    /// An annotation of cookies was there.
    cookie_said: bool,
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

impl Default for Reader {
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
            cookie_said: false,
        }
    }
}

impl Reader {
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
            "tries" => policy.retry.tries = tries(value).ok_or("a number from 1 to 10")?,
            "retry-on-timeout" => policy.retry.on_timeout = boolean(value).ok_or("true or false")?,
            "retry-non-idempotent" => policy.retry.non_idempotent = boolean(value).ok_or("true or false")?,
            "balance" => {
                let words = "round-robin, least-requests, peak-ewma, hash or cookie";
                self.balance = Some(balance(value).ok_or(words)?);
            }
            "hash-on" => self.hash_on = Some(hash_on(value).ok_or("client, uri or header:NAME")?),
            cookie => return self.cookie(cookie, value),
        }
        Ok(())
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
        self.cookie_said = true;
        Ok(())
    }

    fn finish(mut self, problems: &mut Vec<String>) -> Choices {
        if self.cookie_said && self.balance != Some(Word::Cookie) {
            problems.push(format!(
                "annotations {PREFIX}cookie-... do nothing without {PREFIX}balance: cookie: write that too, or remove them"
            ));
        }
        if self.hash_on.is_some() && self.balance != Some(Word::Hash) {
            problems.push(format!(
                "annotation {PREFIX}hash-on does nothing without {PREFIX}balance: hash: write that too, or remove it"
            ));
        }
        self.policy.balance = match self.balance {
            None | Some(Word::RoundRobin) => Balance::RoundRobin,
            Some(Word::LeastRequests) => Balance::LeastRequests,
            Some(Word::PeakEwma) => Balance::PeakEwma,
            Some(Word::Hash) => Balance::Hash(self.hash_on.unwrap_or(HashOn::Client)),
            Some(Word::Cookie) => Balance::Cookie(self.cookie),
        };
        Choices {
            policy: self.policy,
            always_redirect: self.always_redirect,
        }
    }
}

fn protocol(word: &str) -> Option<UpstreamProtocol> {
    match word {
        "http" => Some(UpstreamProtocol::Http1),
        "h2c" => Some(UpstreamProtocol::H2c),
        "https" => Some(UpstreamProtocol::Https),
        _ => None,
    }
}

fn balance(word: &str) -> Option<Word> {
    match word {
        "round-robin" => Some(Word::RoundRobin),
        "least-requests" => Some(Word::LeastRequests),
        "peak-ewma" => Some(Word::PeakEwma),
        "hash" => Some(Word::Hash),
        "cookie" => Some(Word::Cookie),
        _ => None,
    }
}

fn hash_on(text: &str) -> Option<HashOn> {
    match text {
        "client" => Some(HashOn::Client),
        "uri" => Some(HashOn::Uri),
        _ => {
            let name = text.strip_prefix("header:")?;
            HeaderName::from_bytes(name.as_bytes()).ok().map(HashOn::Header)
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn tries(text: &str) -> Option<u32> {
    number(text)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|tries| (1..=MOST_TRIES).contains(tries))
}

/// Digits only: no sign, no space.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(digits).unwrap_or((text, ""))
}

/// Longer than nothing.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number(digits)?.checked_mul(milliseconds)?);
    Some(duration).filter(|duration| !duration.is_zero() && *duration <= LONGEST)
}

/// Units of 1024.
fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = split(text);
    let factor = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    number(digits)?.checked_mul(factor)
}

/// A value or the word `none`; an error if it is neither.
fn or_none<T>(text: &str, read: fn(&str) -> Option<T>) -> Result<Option<T>, ()> {
    match text {
        "none" => Ok(None),
        text => read(text).map(Some).ok_or(()),
    }
}

fn token(text: &str) -> Option<&str> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!text.is_empty() && text.len() <= 64 && text.bytes().all(known)).then_some(text)
}

fn cookie_path(text: &str) -> Option<&str> {
    let known = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b';' | b',');
    (text.starts_with('/') && text.bytes().all(known)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
