//! Who the client is, where a balancer in front says so: the PROXY protocol, versions 1 and 2.
//!
//! Only balancers whose addresses are named are listened to, and those must say it: a header that is missing would make
//! the balancer the client, and one that a stranger sends would make the stranger anybody. The header is taken off the
//! socket to the byte, so that nothing behind it has to know about it: version 2 tells its length, and a line is looked
//! at before it is read.

use std::net::IpAddr;

use bytes::BufMut;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What version 2 begins with.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const TEXT: &[u8] = b"PROXY ";
/// The shortest header of version 2: with its length, and without anything else.
const LEAST_BINARY: usize = 16;
/// The shortest header there is: `PROXY UNKNOWN` and the end of the line.
const LEAST_TEXT: usize = 15;
/// The longest line (2.1 of the specification).
const MOST_TEXT: usize = 107;
/// The longest header of version 2 that is read: what the specification advises to make room for.
const MOST_BINARY: usize = 536;

/// Why a connection is closed before anything else is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// It begins with something else.
    Missing,
    /// No header is that long.
    Long,
    /// It is none, or not whole in itself.
    Malformed,
    /// It ended within the header.
    Cut,
    /// The header did not come in time.
    Slow,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Missing, Self::Long, Self::Malformed, Self::Cut, Self::Slow];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Long => "long",
            Self::Malformed => "malformed",
            Self::Cut => "cut",
            Self::Slow => "slow",
        }
    }
}

/// What is to be read next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// So many bytes: the header is longer than that for certain.
    Bytes(usize),
    /// The rest of a line, of so many bytes at most.
    Line(usize),
    /// Nothing: it is whole.
    Nothing,
}

/// Who a connection is from, by its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// This client.
    Client(IpAddr),
    /// The balancer itself, or nobody that it could name.
    Itself,
    /// Nothing at all was said: it looked whether somebody listens.
    Nothing,
}

/// Reads the header, and nothing behind it. Without a deadline of its own.
pub(crate) async fn read(stream: &mut TcpStream) -> Result<Said, Fault> {
    let mut header = Vec::with_capacity(MOST_TEXT);
    loop {
        let count = match next(&header)? {
            Next::Nothing => return parse(&header),
            Next::Bytes(count) => count,
            Next::Line(most) => line(stream, most).await?,
        };
        let read = stream.read_buf(&mut (&mut header).limit(count)).await;
        match read {
            Ok(1..) => (),
            Ok(0) | Err(_) if header.is_empty() => return Ok(Said::Nothing),
            Ok(0) | Err(_) => return Err(Fault::Cut),
        }
    }
}

/// Looks how much of what has come belongs to the line.
async fn line(stream: &TcpStream, most: usize) -> Result<usize, Fault> {
    let mut there = [0; MOST_TEXT];
    let room = there.get_mut(..most).ok_or(Fault::Long)?;
    let count = stream.peek(room).await.map_err(|_| Fault::Cut)?;
    let end = room.iter().take(count).position(|byte| *byte == b'\n');
    // At the end there is nothing to look at, and reading says so.
    Ok(end.map_or(count.max(1), |end| end + 1))
}

/// What belongs to a header that has begun like this.
fn next(header: &[u8]) -> Result<Next, Fault> {
    let length = header.len();
    if length > 0 && begins(header, BINARY) {
        let Some([high, low]) = header.get(LEAST_BINARY - 2..LEAST_BINARY) else {
            return Ok(Next::Bytes(LEAST_BINARY - length));
        };
        let whole = LEAST_BINARY + usize::from(u16::from_be_bytes([*high, *low]));
        return match whole.checked_sub(length) {
            _ if whole > MOST_BINARY => Err(Fault::Long),
            None | Some(0) => Ok(Next::Nothing),
            Some(rest) => Ok(Next::Bytes(rest)),
        };
    }
    if !begins(header, TEXT) {
        return Err(Fault::Missing);
    }
    match header.iter().position(|byte| *byte == b'\n') {
        Some(end) if end + 1 == length && header.ends_with(b"\r\n") => Ok(Next::Nothing),
        Some(_) => Err(Fault::Malformed),
        None if length < LEAST_TEXT => Ok(Next::Bytes(LEAST_TEXT - length)),
        None if length >= MOST_TEXT => Err(Fault::Long),
        None => Ok(Next::Line(MOST_TEXT - length)),
    }
}

/// As far as there is something of both.
fn begins(header: &[u8], with: &[u8]) -> bool {
    header.iter().zip(with).all(|(there, should)| there == should)
}

/// Reads a header that is whole.
fn parse(header: &[u8]) -> Result<Said, Fault> {
    // LOCAL: whatever else there is does not count (2.2 of the specification).
    if begins(header, BINARY) && header.get(BINARY.len()) == Some(&0x20) {
        return Ok(Said::Itself);
    }
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    let (parsed, length) = ProxyHeader::parse(header, config).map_err(|_| Fault::Malformed)?;
    if length != header.len() {
        return Err(Fault::Malformed);
    }
    let client = parsed
        .proxied_address()
        .filter(|proxied| proxied.protocol == Protocol::Stream);
    Ok(client.map_or(Said::Itself, |proxied| {
        Said::Client(proxied.source.ip().to_canonical())
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as [`read`] does from a connection that hands out pieces of these sizes: what was said, and what is left.
    fn drive<'a>(mut bytes: &'a [u8], pieces: &[usize]) -> (Result<Said, Fault>, &'a [u8]) {
        let mut header = Vec::new();
        let mut pieces = pieces.iter().copied().chain(std::iter::repeat(1));
        loop {
            let most = match next(&header) {
                Err(fault) => return (Err(fault), bytes),
                Ok(Next::Nothing) => return (parse(&header), bytes),
                Ok(Next::Bytes(count)) => count,
                Ok(Next::Line(most)) => {
                    let there = &bytes[..bytes.len().min(most)];
                    let end = there.iter().position(|byte| *byte == b'\n');
                    end.map_or(there.len(), |end| end + 1)
                }
            };
            let count = most.min(pieces.next().unwrap()).min(bytes.len());
            if count == 0 {
                return (Err(Fault::Cut), bytes);
            }
            let (piece, rest) = bytes.split_at(count);
            header.extend_from_slice(piece);
            bytes = rest;
        }
    }

    fn all(bytes: &[u8]) -> Result<Said, Fault> {
        drive(bytes, &[usize::MAX; 8]).0
    }

    /// A header of version 2: command, family, and what follows.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [BINARY, &[command, family], &length, rest].concat()
    }

    fn client(text: &str) -> Said {
        Said::Client(text.parse().unwrap())
    }

    #[test]
    fn both_versions_say_who_it_is() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 200, 1, 1, 187];
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        v6[15] = 9;
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        let tlvs = [v4.as_slice(), &[4, 0, 3, 0, 0, 0], &[0xea, 0, 2, 1, 1]].concat();
        for (bytes, expected) in [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 51201 443\r\n".to_vec(),
                client("192.0.2.7"),
            ),
            (b"PROXY TCP6 2001::9 ::1 1 65535\r\n".to_vec(), client("2001::9")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Said::Itself),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Said::Itself),
            (binary(0x21, 0x11, &v4), client("192.0.2.7")),
            (binary(0x21, 0x11, &tlvs), client("192.0.2.7")),
            (binary(0x21, 0x21, &v6), client("2001::9")),
            (binary(0x21, 0x21, &mapped), client("192.0.2.7")),
            (binary(0x20, 0x00, &[]), Said::Itself),
            (binary(0x20, 0x11, &[1, 2]), Said::Itself),
            (binary(0x21, 0x00, &[]), Said::Itself),
            (binary(0x21, 0x31, &[0; 216]), Said::Itself),
            (binary(0x21, 0x12, &v4), Said::Itself),
        ] {
            assert_eq!(all(&bytes), Ok(expected), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for (bytes, expected) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), Fault::Missing),
            (b"\x16\x03\x01\x02\x00\x01".to_vec(), Fault::Missing),
            (b"PROXX".to_vec(), Fault::Missing),
            (b"\r\n\r\n\0\r\nQUIZ".to_vec(), Fault::Missing),
            (b"PROXY TCP4 192.0.2.7 ".to_vec(), Fault::Cut),
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\nGET".to_vec(),
                Fault::Malformed,
            ),
            (b"PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n".to_vec(), Fault::Malformed),
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n".to_vec(),
                Fault::Malformed,
            ),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), Fault::Malformed),
            (
                b"PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
                Fault::Malformed,
            ),
            (long.into_bytes(), Fault::Long),
            (binary(0x21, 0x11, &[0; 521]), Fault::Long),
            (binary(0x21, 0x11, &[0; 11]), Fault::Malformed),
            (binary(0x31, 0x11, &[0; 12]), Fault::Malformed),
            (binary(0x22, 0x11, &[0; 12]), Fault::Malformed),
            (binary(0x21, 0x44, &[0; 12]), Fault::Malformed),
        ] {
            assert_eq!(all(&bytes), Err(expected), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(
            start in prop::sample::select(vec![b"".as_slice(), TEXT, b"PROXY TCP4 ", b"PROXY UNKNOWN", BINARY]),
            bytes in prop::collection::vec(any::<u8>(), 0..700),
            pieces in prop::collection::vec(1..600_usize, 0..20),
        ) {
            let bytes = [start, &bytes].concat();
            let (_, rest) = drive(&bytes, &pieces);
            prop_assert!(bytes.len() - rest.len() <= MOST_BINARY);
            let _parsed = parse(&bytes);
        }

        #[test]
        fn nothing_behind_a_header_is_touched(
            version in 1..=2,
            source in any::<[u8; 4]>(),
            tlvs in prop::collection::vec(any::<u8>(), 0..500),
            behind in prop::collection::vec(any::<u8>(), 0..300),
            pieces in prop::collection::vec(1..600_usize, 0..20),
        ) {
            let header = if version == 1 {
                let address = std::net::Ipv4Addr::from(source);
                format!("PROXY TCP4 {address} 255.255.255.255 0 1\r\n").into_bytes()
            } else {
                binary(0x21, 0x11, &[&source, [0; 8].as_slice(), &tlvs].concat())
            };
            let bytes = [header.as_slice(), &behind].concat();
            let (said, rest) = drive(&bytes, &pieces);
            prop_assert_eq!(said, Ok(Said::Client(source.into())));
            prop_assert_eq!(rest, behind.as_slice());
        }
    }
}
