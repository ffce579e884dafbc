//! HTTP/2, frame by frame: for who wants to send what no library would.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
#[expect(missing_docs, reason = "names of RFC 9113, section 6")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of HEADERS and DATA.
pub const END_STREAM: u8 = 1;
/// Flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes: Vec<u8> = length.into_iter().skip(1).collect();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Preface and SETTINGS, with these values.
pub fn hello(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    [PREFACE, &frame(kind::SETTINGS, 0, 0, &payload)].concat()
}

/// Literal fields, neither indexed nor compressed; names and values are shorter than 127 bytes.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap_or(126).min(126));
            block.extend(text.bytes().take(126));
        }
    }
    block
}

/// A request's fields.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    fields(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "web.test"),
        (":path", path),
    ])
}

/// The next frame: kind, flags, stream, payload.
pub async fn next(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, stream_id @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c]));
    let mut payload = vec![0; length.map_err(|_| io::Error::from(ErrorKind::InvalidData))?];
    stream.read_exact(&mut payload).await?;
    Ok((kind, flags, u32::from_be_bytes(stream_id), payload))
}
