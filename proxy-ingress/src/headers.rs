//! Headers on their way through: what is for this hop is taken off, what only we may say is said by us.

use std::fmt::Write as _;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::mix::Random;
use crate::refusal::Refusal;
use crate::route::HeaderEdits;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Headers that `connection` must not make disappear: backends decide by them who somebody is.
const PROTECTED: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "authorization",
    "cookie",
    "cache-control",
    "origin",
    "range",
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "x-original-forwarded-for",
];

/// Headers that tell a backend what a proxy in front of it knows. From strangers they are lies.
const TOLD_BY_PROXIES: [&str; 9] = [
    "forwarded",
    "x-real-ip",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-original-forwarded-for",
    "x-rewrite-url",
    "x-client-ip",
    "true-client-ip",
];

/// What `connection` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hop {
    /// `connection` names `upgrade`.
    pub(crate) upgrade: bool,
}

/// What is known of a client, ready to be written into headers.
pub(crate) struct Told<'a> {
    /// Its address.
    pub(crate) address: &'a HeaderValue,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The port that it came to.
    pub(crate) port: &'a HeaderValue,
    /// What it says of its own clients is believed.
    pub(crate) trusted: bool,
    /// Requests get an id.
    pub(crate) request_id: bool,
}

/// Takes off what is for this hop only.
pub(crate) fn strip_request(headers: &mut HeaderMap) -> Result<Hop, Refusal> {
    let hop = strip_nominated(headers, true)?;
    let trailers = headers
        .get_all(TE)
        .iter()
        .any(|value| has_token(value, "trailers"));
    strip_hop(headers);
    headers.remove(EXPECT);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(HTTP2_SETTINGS);
    if headers.remove(TE).is_some() && trailers {
        // gRPC servers answer only who can read trailers, and we can.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(hop)
}

/// Takes off what is for the hop to the backend only.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    // A backend that nominates a protected header harms nobody but itself: the header stays.
    let _stripped = strip_nominated(headers, false);
    strip_hop(headers);
}

fn strip_hop(headers: &mut HeaderMap) {
    for name in [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ] {
        headers.remove(name);
    }
}

fn strip_nominated(headers: &mut HeaderMap, refuse: bool) -> Result<Hop, Refusal> {
    let mut hop = Hop::default();
    let mut nominated: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            let is = |name: &[u8]| token.eq_ignore_ascii_case(name);
            if is(b"upgrade") {
                hop.upgrade = true;
            } else if !is(b"keep-alive") && !is(b"close") && !token.is_empty() {
                let name = HeaderName::from_bytes(token).map_err(|_| Refusal::Nomination)?;
                if !is_protected(&name) {
                    nominated.push(name);
                } else if refuse {
                    return Err(Refusal::Nomination);
                }
            }
        }
    }
    for name in nominated {
        // What becomes of `te` is decided for itself.
        if name != TE && name != TRAILER {
            headers.remove(name);
        }
    }
    Ok(hop)
}

fn is_protected(name: &HeaderName) -> bool {
    let name = name.as_str();
    PROTECTED.contains(&name) || is_told_by_proxies(name)
}

fn is_told_by_proxies(name: &str) -> bool {
    name.starts_with("x-forwarded-") || is_told_by_us(name) || TOLD_BY_PROXIES.contains(&name)
}

/// What the client's certificate was like is said by us alone: a balancer that is believed about addresses may still hand on
/// whatever its clients have written.
fn is_told_by_us(name: &str) -> bool {
    name.starts_with("ssl-client-")
}

/// Whether a list in a header has this token.
pub(crate) fn has_token(value: &HeaderValue, token: &str) -> bool {
    let mut tokens = value.as_bytes().split(|byte| *byte == b',');
    tokens.any(|there| there.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Says who the client is. What a stranger said of itself is taken off; what a trusted proxy said is added to.
pub(crate) fn tell(headers: &mut HeaderMap, told: &Told<'_>, random: &Random) {
    let suspicious = |name: &HeaderName| {
        let name = name.as_str();
        // Some servers make `-` and `_` the same, so that what was checked is not what they read.
        memchr::memchr(b'_', name.as_bytes()).is_some()
            || is_told_by_us(name)
            || !told.trusted && is_told_by_proxies(name)
    };
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| suspicious(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    let host = headers.get(HOST).cloned();
    let proto = HeaderValue::from_static(told.scheme);
    if told.trusted {
        let chain = chain(headers, told.address);
        headers.insert(FOR, chain);
        headers.entry(REAL_IP).or_insert_with(|| told.address.clone());
        headers.entry(PROTO).or_insert(proto);
        headers.entry(PORT).or_insert_with(|| told.port.clone());
        if let Some(host) = host {
            headers.entry(FORWARDED_HOST).or_insert(host);
        }
    } else {
        headers.insert(FOR, told.address.clone());
        headers.insert(REAL_IP, told.address.clone());
        headers.insert(PROTO, proto);
        headers.insert(PORT, told.port.clone());
        if let Some(host) = host {
            headers.insert(FORWARDED_HOST, host);
        }
    }
    if told.request_id && !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, request_id(random));
    }
}

/// `X-Forwarded-For` as it came, and the address that it came from.
fn chain(headers: &HeaderMap, address: &HeaderValue) -> HeaderValue {
    let mut chain = Vec::new();
    for value in headers.get_all(FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(address.as_bytes());
    HeaderValue::from_bytes(&chain).unwrap_or_else(|_| address.clone())
}

fn request_id(random: &Random) -> HeaderValue {
    let mut text = String::with_capacity(32);
    // Writing to a String cannot fail.
    let _written = write!(text, "{:016x}{:016x}", random.next(), random.next());
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// A route's own edits.
pub(crate) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name.clone(), value.clone());
    }
}

/// `https`, if that is what the client of a trusted proxy speaks.
pub(crate) fn is_https_before(headers: &HeaderMap) -> bool {
    headers
        .get(PROTO)
        .is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// The length that a message declares.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        map
    }

    fn told(address: &HeaderValue, trusted: bool) -> Told<'_> {
        Told {
            address,
            scheme: "https",
            port: address,
            trusted,
            request_id: true,
        }
    }

    #[test]
    fn what_is_for_one_hop_goes_whatever_its_case() {
        let mut headers = map(&[
            ("connection", "Keep-Alive, X-MINE"),
            ("connection", "close,x-Too , te"),
            ("x-mine", "1"),
            ("x-too", "1"),
            ("keep-alive", "timeout=1"),
            ("proxy-connection", "x"),
            ("te", "gzip, Trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("expect", "100-continue"),
            ("x-stays", "1"),
        ]);
        assert_eq!(strip_request(&mut headers), Ok(Hop { upgrade: false }));
        assert_eq!(headers, map(&[("te", "trailers"), ("x-stays", "1")]));
    }

    #[test]
    fn nobody_makes_our_headers_disappear() {
        for name in [
            "X-Forwarded-For",
            "x-real-ip",
            "Host",
            "Authorization",
            "cookie",
            "x-forwarded-whatever",
        ] {
            let mut headers = map(&[("connection", &format!("close, {name}"))]);
            assert_eq!(strip_request(&mut headers), Err(Refusal::Nomination), "{name}");
        }
        let mut headers = map(&[("connection", "a b")]);
        assert_eq!(strip_request(&mut headers), Err(Refusal::Nomination));
    }

    #[test]
    fn an_upgrade_is_noticed() {
        let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(strip_request(&mut headers), Ok(Hop { upgrade: true }));
        assert_eq!(headers, HeaderMap::new());
    }

    #[test]
    fn a_strangers_word_about_itself_is_overwritten() {
        let mut headers = map(&[
            ("host", "a.example"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x_forwarded_for", "3.3.3.3"),
            ("x-forwarded-prefix", "/admin"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("x-original-url", "/admin"),
            ("ssl-client-verify", "SUCCESS"),
            ("x-request-id", "mine"),
        ]);
        let address = HeaderValue::from_static("10.0.0.9");
        tell(&mut headers, &told(&address, false), &Random::new());
        let expected = map(&[
            ("host", "a.example"),
            ("x-forwarded-for", "10.0.0.9"),
            ("x-real-ip", "10.0.0.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "10.0.0.9"),
            ("x-forwarded-host", "a.example"),
            ("x-request-id", "mine"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn what_a_trusted_proxy_says_is_added_to() {
        let mut headers = map(&[
            ("host", "a.example"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=1.1.1.1"),
            ("ssl-client-verify", "SUCCESS"),
        ]);
        let address = HeaderValue::from_static("10.0.0.9");
        tell(&mut headers, &told(&address, true), &Random::new());
        assert_eq!(headers.get(FOR).unwrap(), "1.1.1.1, 2.2.2.2, 10.0.0.9");
        assert_eq!(headers.get(PROTO).unwrap(), "http");
        assert_eq!(headers.get(FORWARDED_HOST).unwrap(), "a.example");
        assert_eq!(headers.get(REQUEST_ID).unwrap().len(), 32);
        assert!(headers.contains_key("forwarded"));
        assert!(!headers.contains_key("ssl-client-verify"), "not even that one");
    }

    #[test]
    fn a_response_loses_its_hop_and_nothing_else() {
        let mut headers = map(&[
            ("connection", "x-hop, content-length"),
            ("x-hop", "1"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
        ]);
        strip_response(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3")]));
    }
}
