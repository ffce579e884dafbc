//! A client of HTTP/1.1 that says exactly what happened: for latencies, handshakes and changes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Nobody answers as late as this.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection.
pub(crate) struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Nothing has been answered yet.
    fresh: bool,
}

/// An answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes of its body.
    pub(crate) length: usize,
    /// The connection ends after it.
    pub(crate) last: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A connection that had answered before was closed before a byte of this answer came. It happens wherever connections
    /// are kept: clients send the request again.
    Closed,
    /// All else.
    Broken(io::Error),
}

impl Failure {
    /// As an error of the benchmark itself.
    pub(crate) fn into_error(self) -> io::Error {
        match self {
            Self::Closed => io::ErrorKind::ConnectionReset.into(),
            Self::Broken(error) => error,
        }
    }
}

/// Connects.
pub(crate) fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl<S: Read + Write> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::with_capacity(4096),
            fresh: true,
        }
    }

    /// What it runs over.
    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// Asks, and waits for the whole answer. `close`: it is the last request.
    pub(crate) fn get(&mut self, host: &str, path: &str, close: bool) -> Result<Answer, Failure> {
        let end = if close { "Connection: close\r\n" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{end}\r\n");
        self.buffer.clear();
        let answer = match self.stream.write_all(request.as_bytes()) {
            Ok(()) => self.answer(),
            Err(error) => Err(error),
        };
        let kept = !std::mem::replace(&mut self.fresh, false);
        answer.map_err(|error| {
            if kept && self.buffer.is_empty() && was_closed(&error) {
                Failure::Closed
            } else {
                Failure::Broken(error)
            }
        })
    }

    fn answer(&mut self) -> io::Result<Answer> {
        loop {
            if let Some((answer, head)) = parse(&self.buffer)? {
                while self.buffer.len() < head + answer.length {
                    self.read()?;
                }
                return Ok(answer);
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend(chunk.iter().take(count));
        Ok(())
    }
}

fn was_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// The answer whose head is at the beginning of `bytes`, and the length of that head.
fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut length = None;
    let mut last = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name {
            "content-length" => length = value.trim().parse().ok(),
            "connection" => last = value.trim() == "close",
            _ => {}
        }
    }
    let (Some(status), Some(length)) = (status, length) else {
        let what = format!("an answer without status or length: {head}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    };
    Ok(Some((Answer { status, length, last }, end + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read, and then the end.
    struct Canned(io::Cursor<Vec<u8>>);

    impl Read for Canned {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let few = into.len().min(7);
            self.0.read(into.get_mut(..few).unwrap_or_default())
        }
    }

    impl Write for Canned {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn canned(text: &str) -> Connection<Canned> {
        Connection::new(Canned(io::Cursor::new(text.as_bytes().to_vec())))
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\nhello world";
        let answer = canned(text).get("h", "/", false).unwrap();
        let expected = Answer {
            status: 200,
            length: 11,
            last: true,
        };
        assert_eq!(answer, expected);
    }

    #[test]
    fn only_a_kept_connection_may_be_closed() {
        assert!(matches!(canned("").get("h", "/", false), Err(Failure::Broken(_))));
        let mut kept = canned("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(kept.get("h", "/", false).unwrap().status, 404);
        assert!(matches!(kept.get("h", "/", false), Err(Failure::Closed)));
    }

    #[test]
    fn half_an_answer_is_broken() {
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc";
        assert!(matches!(
            canned(half).get("h", "/", false),
            Err(Failure::Broken(_))
        ));
        let endless = "HTTP/1.1 200 OK\r\n\r\nabc";
        assert!(matches!(
            canned(endless).get("h", "/", false),
            Err(Failure::Broken(_))
        ));
    }
}
