//! A line of the access log. What strangers wrote comes into it as JSON strings: no byte of theirs ends a line or a string,
//! or moves a terminal's cursor, and what is no UTF-8 is replaced.

use std::cell::RefCell;
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Field;
use crate::route::{PathMatch, Route};

/// Bytes of a stranger's word that are written; more are cut off, and `…` says so.
const LONGEST: usize = 2_048;

/// What is known of a request that has ended.
#[derive(Clone, Copy, Default)]
pub(crate) struct Facts<'a> {
    /// When its head was read, since 1970.
    pub(crate) time: Duration,
    pub(crate) client: Option<IpAddr>,
    pub(crate) method: &'a str,
    pub(crate) scheme: &'static str,
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) protocol: &'static str,
    pub(crate) status: u16,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) took: Duration,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) answered: Option<Duration>,
    pub(crate) upstream_status: Option<u16>,
    pub(crate) route: Option<&'a Route>,
    pub(crate) retries: u32,
    pub(crate) request_id: Option<&'a [u8]>,
    pub(crate) trace: Option<u128>,
    pub(crate) user_agent: Option<&'a [u8]>,
    pub(crate) referer: Option<&'a [u8]>,
    pub(crate) tls: Option<&'static str>,
    pub(crate) sni: Option<&'a str>,
    pub(crate) refusal: Option<&'static str>,
    pub(crate) aborted: Option<&'static str>,
}

impl Facts<'_> {
    /// Whether it is written whatever the sample.
    pub(crate) fn is_error(&self) -> bool {
        self.status >= 500 || self.refusal.is_some() || self.aborted.is_some()
    }
}

/// Writes a line with these fields; what a request does not have is left out.
pub(crate) fn write(line: &mut Vec<u8>, fields: &[Field], facts: &Facts<'_>, clock: &Seconds) {
    line.push(b'{');
    let mut first = true;
    for field in fields {
        let before = line.len();
        if !first {
            line.push(b',');
        }
        line.push(b'"');
        line.extend_from_slice(field.name().as_bytes());
        line.extend_from_slice(b"\":");
        if value(line, *field, facts, clock).is_some() {
            first = false;
        } else {
            line.truncate(before);
        }
    }
    line.extend_from_slice(b"}\n");
}

fn value(line: &mut Vec<u8>, field: Field, facts: &Facts<'_>, clock: &Seconds) -> Option<()> {
    match field {
        Field::Time => clock.write(line, facts.time),
        Field::Client => plain(line, facts.client?),
        Field::Method => text(line, facts.method.as_bytes()),
        Field::Scheme => text(line, facts.scheme.as_bytes()),
        Field::Host => text(line, facts.host?),
        Field::Path => text(line, facts.path.as_bytes()),
        Field::Query => text(line, facts.query?.as_bytes()),
        Field::Protocol => text(line, facts.protocol.as_bytes()),
        Field::Status => number(line, facts.status),
        Field::BytesIn => number(line, facts.received),
        Field::BytesOut => number(line, facts.sent),
        Field::Duration => millis(line, facts.took),
        Field::Upstream => plain(line, facts.endpoint?),
        Field::UpstreamTime => millis(line, facts.answered?),
        Field::UpstreamStatus => number(line, facts.upstream_status?),
        Field::Route => text(line, path(facts.route?).as_bytes()),
        Field::Ingress => plain(line, &facts.route?.origin.object),
        Field::Retries => number(line, facts.retries),
        Field::RequestId => text(line, facts.request_id?),
        Field::TraceId => plain(line, format_args!("{:032x}", facts.trace?)),
        Field::UserAgent => text(line, facts.user_agent?),
        Field::Referer => text(line, without_query(facts.referer?)),
        Field::TlsVersion => text(line, facts.tls?.as_bytes()),
        Field::Sni => text(line, facts.sni?.as_bytes()),
        Field::Refusal => text(line, facts.refusal?.as_bytes()),
        Field::Aborted => text(line, facts.aborted?.as_bytes()),
    }
    Some(())
}

/// The path of a rule; a default backend has none of its own.
pub(crate) fn path(route: &Route) -> &str {
    match &route.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path,
        PathMatch::Rest => "/",
    }
}

/// A page's query holds what its visitor searched for, or a token.
fn without_query(referer: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'?', b'#', referer).unwrap_or(referer.len());
    referer.get(..end).unwrap_or(referer)
}

// Writing to a Vec cannot fail.
fn number(line: &mut Vec<u8>, number: impl Display) {
    let _written = write!(line, "{number}");
}

/// What needs no escapes.
fn plain(line: &mut Vec<u8>, value: impl Display) {
    let _written = write!(line, "\"{value}\"");
}

fn millis(line: &mut Vec<u8>, took: Duration) {
    let _written = write!(line, "{}.{:03}", took.as_millis(), took.subsec_micros() % 1000);
}

/// A string.
fn text(line: &mut Vec<u8>, bytes: &[u8]) {
    line.push(b'"');
    let kept = bytes.get(..LONGEST).unwrap_or(bytes);
    if kept
        .iter()
        .all(|byte| matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != b'\\')
    {
        line.extend_from_slice(kept);
    } else {
        // A character that is cut in two is no UTF-8 any more, and replaced as such.
        for piece in kept.utf8_chunks() {
            for letter in piece.valid().chars() {
                escaped(line, letter);
            }
            if !piece.invalid().is_empty() {
                escaped(line, char::REPLACEMENT_CHARACTER);
            }
        }
    }
    if kept.len() < bytes.len() {
        escaped(line, '…');
    }
    line.push(b'"');
}

/// Also what JSON allows, and some readers take for a line's end or for orders to a terminal.
fn escaped(line: &mut Vec<u8>, letter: char) {
    match letter {
        '"' | '\\' => {
            line.push(b'\\');
            line.extend(u8::try_from(letter));
        }
        '\u{2028}' | '\u{2029}' => number(line, format_args!("\\u{:04x}", u32::from(letter))),
        // Those that turn the direction of text around can make a line look like another one.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            number(line, format_args!("\\u{:04x}", u32::from(letter)));
        }
        _ if letter.is_control() => number(line, format_args!("\\u{:04x}", u32::from(letter))),
        _ => line.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Writes times. The part that is the same for a second is kept.
#[derive(Default)]
pub(crate) struct Seconds(RefCell<(u64, String)>);

impl Seconds {
    fn write(&self, line: &mut Vec<u8>, time: Duration) {
        let mut kept = self.0.borrow_mut();
        if kept.0 != time.as_secs() || kept.1.is_empty() {
            kept.0 = time.as_secs();
            kept.1.clear();
            let second = i64::try_from(time.as_secs()).ok();
            let stamp = second.and_then(|second| jiff::Timestamp::from_second(second).ok());
            let _written = write!(kept.1, "{}", stamp.unwrap_or_default());
        }
        let second = kept.1.trim_end_matches('Z');
        let _written = write!(line, "\"{second}.{:03}Z\"", time.subsec_millis());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(fields: &[Field], facts: &Facts<'_>) -> String {
        let mut line = Vec::new();
        write(&mut line, fields, facts, &Seconds::default());
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_is_json_in_the_order_that_was_asked_for() {
        let facts = Facts {
            time: Duration::from_millis(1_795_302_000_007),
            client: Some([10, 0, 0, 9].into()),
            method: "GET",
            path: "/a",
            query: Some("token=secret"),
            status: 200,
            took: Duration::from_micros(1_234_567),
            referer: Some(b"https://a.example/x?token=secret"),
            trace: Some(0xabc),
            ..Facts::default()
        };
        let fields = [
            Field::Status,
            Field::Time,
            Field::Client,
            Field::Path,
            Field::Sni,
            Field::Duration,
            Field::Referer,
        ];
        assert_eq!(
            written(&fields, &facts),
            "{\"status\":200,\"time\":\"2026-11-21T23:00:00.007Z\",\"client\":\"10.0.0.9\",\"path\":\"/a\",\
             \"duration_ms\":1234.567,\"referer\":\"https://a.example/x\"}\n"
        );
        assert!(!written(super::super::AccessLog::DEFAULT, &facts).contains("secret"));
        assert_eq!(written(&[Field::Sni], &facts), "{}\n");
        let trace = written(&[Field::TraceId], &facts);
        assert_eq!(trace, "{\"trace_id\":\"00000000000000000000000000000abc\"}\n");
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let long = vec![b'x'; LONGEST + 1];
        let facts = Facts {
            user_agent: Some(&long),
            ..Facts::default()
        };
        let line = written(&[Field::UserAgent], &facts);
        assert!(line.ends_with("x…\"}\n") && line.len() < LONGEST + 30);
    }

    proptest! {
        #[test]
        fn no_byte_of_a_stranger_makes_a_second_line_or_field(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            same(&bytes)?;
        }

        #[test]
        fn nor_does_a_character(text in "[\\x00-\\x1f\\x7f-\\x9f\"\\\\a\\u{2028}\\u{2029}\\u{202e}\\u{10ffff}]{0,50}") {
            same(text.as_bytes())?;
        }
    }

    fn same(bytes: &[u8]) -> Result<(), TestCaseError> {
        let facts = Facts {
            user_agent: Some(bytes),
            status: 1,
            ..Facts::default()
        };
        let line = written(&[Field::UserAgent, Field::Status], &facts);
        prop_assert_eq!(line.chars().filter(|letter| letter.is_control()).count(), 1);
        let odd = line.contains(['\u{2028}', '\u{2029}', '\u{202e}']);
        prop_assert!(line.ends_with('\n') && !odd);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = String::from_utf8_lossy(bytes);
        prop_assert_eq!(read, serde_json::json!({"user_agent": expected, "status": 1}));
        Ok(())
    }
}
