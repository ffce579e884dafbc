//! Questions over HTTP, from a host.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_lab::{Host, clock};

/// How long an answer, or a change of it, may take.
const WITHIN: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status.
    pub code: u16,
    /// All lines above the body.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A socket address.
pub fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// The answer to a question from a host.
pub fn ask(from: &Host, to: SocketAddr, path: &str) -> Result<Answer> {
    let text = from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, WITHIN)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    })?;
    let text = text.with_context(|| format!("{} asks {to}{path}", from.name()))?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    let code = head.split(' ').nth(1).context("no status")?;
    Ok(Answer {
        code: code.parse()?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// Waits for a status; returns the body.
pub fn becomes(from: &Host, to: SocketAddr, path: &str, code: u16) -> Result<String> {
    let mut last = None;
    clock::wait_until(WITHIN, || {
        last = ask(from, to, path).ok();
        last.as_ref().is_some_and(|answer| answer.code == code)
    });
    let answer = last.with_context(|| format!("{to}{path} does not answer"))?;
    ensure!(answer.code == code, "{to}{path}: {answer:?}, not {code}");
    Ok(answer.body)
}

/// Waits until nobody listens there.
pub fn falls_silent(from: &Host, to: SocketAddr) -> Result<()> {
    let silent = clock::wait_until(WITHIN, || ask(from, to, "/").is_err());
    ensure!(silent, "{to} still answers: {:?}", ask(from, to, "/"));
    Ok(())
}
