//! Values of annotations: each is read as a whole, or not at all.

use std::time::Duration;

use http::HeaderName;

use super::Word;
use crate::model::doors::ClientAuthMode;
use crate::route::{HashOn, UpstreamProtocol};

/// The most often that a request may be tried, or that a check must be passed.
const MOST: u32 = 10;
/// The longest time-out: a week, so that sums of several are far from any limit.
const LONGEST: Duration = Duration::from_hours(168);

pub(super) fn mode(word: &str) -> Option<ClientAuthMode> {
    match word {
        "require" => Some(ClientAuthMode::Require),
        "optional" => Some(ClientAuthMode::Optional),
        _ => None,
    }
}

pub(super) fn protocol(word: &str) -> Option<UpstreamProtocol> {
    match word {
        "http" => Some(UpstreamProtocol::Http1),
        "h2c" => Some(UpstreamProtocol::H2c),
        "https" => Some(UpstreamProtocol::Https),
        _ => None,
    }
}

pub(super) fn balance(word: &str) -> Option<Word> {
    match word {
        "round-robin" => Some(Word::RoundRobin),
        "least-requests" => Some(Word::LeastRequests),
        "peak-ewma" => Some(Word::PeakEwma),
        "hash" => Some(Word::Hash),
        "cookie" => Some(Word::Cookie),
        _ => None,
    }
}

pub(super) fn hash_on(text: &str) -> Option<HashOn> {
    match text {
        "client" => Some(HashOn::Client),
        "uri" => Some(HashOn::Uri),
        _ => {
            let name = text.strip_prefix("header:")?;
            HeaderName::from_bytes(name.as_bytes()).ok().map(HashOn::Header)
        }
    }
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    text.parse().ok()
}

pub(super) fn count(text: &str) -> Option<u32> {
    number(text)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|count| (1..=MOST).contains(count))
}

/// A path, or none for `tcp`; an error if it is neither.
pub(super) fn or_tcp(text: &str) -> Result<Option<Box<str>>, ()> {
    match http::uri::PathAndQuery::try_from(text) {
        _ if text == "tcp" => Ok(None),
        Ok(path) if text.starts_with('/') => Ok(Some(path.as_str().into())),
        _ => Err(()),
    }
}

pub(super) fn statuses(text: &str) -> Option<Vec<(u16, u16)>> {
    let one = |text: &str| {
        let status = u16::try_from(number(text.trim())?).ok()?;
        (100..=599).contains(&status).then_some(status)
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (one(first)?, one(last)?);
        (first <= last).then_some((first, last))
    };
    text.split(',').map(range).collect()
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
    span(text).filter(|span| !span.is_zero())
}

/// As long as it may be; also nothing.
pub(crate) fn span(text: &str) -> Option<Duration> {
    let (digits, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number(digits)?.checked_mul(milliseconds)?);
    Some(duration).filter(|duration| *duration <= LONGEST)
}

/// Units of 1024.
pub(crate) fn bytes(text: &str) -> Option<u64> {
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
pub(super) fn or_none<T>(text: &str, read: fn(&str) -> Option<T>) -> Result<Option<T>, ()> {
    match text {
        "none" => Ok(None),
        text => read(text).map(Some).ok_or(()),
    }
}

pub(super) fn token(text: &str) -> Option<&str> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!text.is_empty() && text.len() <= 64 && text.bytes().all(known)).then_some(text)
}

pub(super) fn cookie_path(text: &str) -> Option<&str> {
    let known = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b';' | b',');
    (text.starts_with('/') && text.bytes().all(known)).then_some(text)
}
