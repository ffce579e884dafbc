//! Reads along where HTTP/1.1 requests begin and end, and stops what hyper would let pass.
//!
//! hyper's parser takes a bare LF for the end of a line, and drops `content-length` beside `transfer-encoding` without a
//! word. Both are allowed by RFC 9112, and both are how two servers come to disagree about where a request ends. This
//! second reader knows just enough of the framing to find the heads; what it does not like it spoils with a NUL, which
//! hyper refuses with a 400 before anybody has seen the request. It can only refuse: where the two readers disagree, a
//! connection ends.

/// Where we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// In the line of the request, or before it.
    Request,
    /// In a line of its head.
    Header,
    /// So many bytes of a body are to come.
    Body(u64),
    /// In the line with the size of a chunk.
    Size,
    /// So many bytes of a chunk are to come, and the end of its line.
    Chunk(u64),
    /// In the line that ends a chunk.
    ChunkEnd,
    /// In the lines behind the last chunk.
    Trailer,
    /// Nothing that comes is looked at: a tunnel, or the end.
    Blind,
}

/// What a line turned out to be.
struct Refused;

/// A reader of one connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    at: At,
    /// The beginning of a line that a read broke off.
    carry: Vec<u8>,
    /// Lines longer than this are refused.
    longest: usize,
    length: Option<u64>,
    chunked: bool,
    tunnel: bool,
}

impl Scanner {
    pub(crate) fn new(longest: usize) -> Self {
        Self {
            at: At::Request,
            carry: Vec::new(),
            longest,
            length: None,
            chunked: false,
            tunnel: false,
        }
    }

    /// Whether a head has begun and is not whole.
    pub(crate) fn in_head(&self) -> bool {
        match self.at {
            At::Request => !self.carry.is_empty(),
            At::Header => true,
            _ => false,
        }
    }

    /// Looks at what was read, and spoils it where it must not be believed.
    pub(crate) fn look(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match self.at {
                At::Blind => return,
                At::Body(left) => self.skip(left, bytes.len(), At::Body, At::Request),
                At::Chunk(left) => self.skip(left, bytes.len(), At::Chunk, At::ChunkEnd),
                At::Request | At::Header | At::Size | At::ChunkEnd | At::Trailer => self.line(bytes),
            };
            let Some((_, rest)) = bytes.split_at_mut_checked(taken) else {
                return;
            };
            bytes = rest;
        }
    }

    fn skip(&mut self, left: u64, there: usize, same: fn(u64) -> At, next: At) -> usize {
        let there = u64::try_from(there).unwrap_or(u64::MAX);
        let taken = left.min(there);
        self.at = if taken == left { next } else { same(left - taken) };
        usize::try_from(taken).unwrap_or(usize::MAX)
    }

    /// Takes a line, or what there is of it.
    fn line(&mut self, bytes: &mut [u8]) -> usize {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            if self.carry.len() + bytes.len() > self.longest {
                self.spoil(bytes.last_mut());
            } else {
                self.carry.extend_from_slice(bytes);
            }
            return bytes.len();
        };
        let (line, _) = bytes.split_at(end);
        let verdict = if self.carry.is_empty() {
            self.judge(line)
        } else {
            let mut whole = std::mem::take(&mut self.carry);
            whole.extend_from_slice(line);
            let verdict = self.judge(&whole);
            whole.clear();
            self.carry = whole;
            verdict
        };
        if verdict.is_err() {
            self.spoil(bytes.get_mut(end));
        }
        end + 1
    }

    fn spoil(&mut self, byte: Option<&mut u8>) {
        if let Some(byte) = byte {
            *byte = 0;
        }
        self.at = At::Blind;
    }

    /// A line without its LF.
    fn judge(&mut self, line: &[u8]) -> Result<(), Refused> {
        let line = line.strip_suffix(b"\r").ok_or(Refused)?;
        match self.at {
            At::Request => self.request(line),
            At::Header if line.is_empty() => self.body(),
            At::Header => self.header(line),
            At::Size => self.size(line),
            At::ChunkEnd if line.is_empty() => {
                self.at = At::Size;
                Ok(())
            }
            At::ChunkEnd => Err(Refused),
            At::Trailer => {
                if line.is_empty() {
                    self.at = At::Request;
                }
                Ok(())
            }
            At::Body(_) | At::Chunk(_) | At::Blind => Ok(()),
        }
    }

    fn request(&mut self, line: &[u8]) -> Result<(), Refused> {
        // Empty lines in front of a request are skipped (RFC 9112 2.2).
        if line.is_empty() {
            return Ok(());
        }
        // A fragment is the client's own (RFC 9110 4.2.4): whoever sends one hopes that somebody cuts there.
        if memchr::memchr(b'#', line).is_some() {
            return Err(Refused);
        }
        self.at = At::Header;
        self.length = None;
        self.chunked = false;
        self.tunnel = line.starts_with(b"CONNECT ");
        Ok(())
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Refused> {
        let Some(colon) = memchr::memchr(b':', line) else {
            return Err(Refused);
        };
        let (name, value) = line.split_at(colon);
        // Most names are told by their length.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.tunnel = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = number(value.get(1..).unwrap_or_default().trim_ascii(), 10)?;
                if self.length.replace(length).is_some() {
                    return Err(Refused);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let coding = value.get(1..).unwrap_or_default().trim_ascii();
                if self.chunked || !coding.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refused);
                }
                self.chunked = true;
            }
            _ => (),
        }
        Ok(())
    }

    /// The head is whole.
    fn body(&mut self) -> Result<(), Refused> {
        if self.chunked && self.length.is_some() {
            return Err(Refused);
        }
        self.at = match self.length {
            // What follows may be another protocol. If the backend does not want it, the connection ends (request.rs).
            _ if self.tunnel => At::Blind,
            _ if self.chunked => At::Size,
            Some(0) | None => At::Request,
            Some(length) => At::Body(length),
        };
        Ok(())
    }

    fn size(&mut self, line: &[u8]) -> Result<(), Refused> {
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        self.at = match number(digits.trim_ascii_end(), 16)? {
            0 => At::Trailer,
            size => At::Chunk(size),
        };
        Ok(())
    }
}

/// Digits and nothing else: no sign, no space.
fn number(digits: &[u8], radix: u32) -> Result<u64, Refused> {
    if digits.is_empty() || !digits.iter().all(|byte| char::from(*byte).is_digit(radix)) {
        return Err(Refused);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Refused)?;
    u64::from_str_radix(text, radix).map_err(|_| Refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What hyper gets to see, if the bytes come in pieces of this size.
    fn seen(text: &str, piece: usize) -> (Vec<u8>, At) {
        let mut scanner = Scanner::new(1024);
        let mut bytes = text.as_bytes().to_vec();
        for piece in bytes.chunks_mut(piece.max(1)) {
            scanner.look(piece);
        }
        (bytes, scanner.at)
    }

    fn passes(text: &str) -> bool {
        seen(text, 4096).0 == text.as_bytes()
    }

    #[test]
    fn ordinary_requests_pass_and_the_next_one_is_found() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\n\n\n\n\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\n\n\n\n\r\n0\r\nX: y\r\n\r\n",
        ] {
            for piece in 1..60 {
                let (bytes, at) = seen(&format!("{text}GET / HTTP/1.1\r\n\r\n"), piece);
                assert!(!bytes.contains(&0), "{text:?} in pieces of {piece}");
                assert_eq!(at, At::Request, "{text:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_two_servers_could_read_differently_is_spoiled() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\nx",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
            "POST / HTTP/1.1\r\nno colon\r\n\r\n",
        ] {
            for piece in 1..60 {
                let (bytes, at) = seen(text, piece);
                assert!(bytes.contains(&0), "{text:?} in pieces of {piece}");
                assert_eq!(at, At::Blind);
            }
        }
    }

    #[test]
    fn a_line_without_end_is_spoiled() {
        assert!(!passes(&format!("GET /{}", "a".repeat(1025))));
    }

    #[test]
    fn what_follows_an_upgrade_is_not_looked_at() {
        assert!(passes("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\n\n#\n"));
        assert!(passes("CONNECT a:1 HTTP/1.1\r\n\r\n\n\n#\n"));
    }

    proptest! {
        #[test]
        fn nothing_depends_on_how_the_bytes_are_cut(bytes in prop::collection::vec(
            prop::sample::select(b"GT:/ 01af#;x\r\n\n".to_vec()), 0..80), piece in 1_usize..20) {
            let begin = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            let text = format!("{begin}{}", String::from_utf8(bytes).unwrap());
            prop_assert_eq!(seen(&text, piece), seen(&text, 4096));
        }
    }
}
