//! Clients that keep a server waiting. `done` counts connections that have begun to: what they ask for has been answered by then as
//! far as it will be, and what a normal client feels is the waiting, not the asking.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::client::Stream;
use crate::frames::{self, END_HEADERS, END_STREAM, frame, kind};

const DRIP: Duration = Duration::from_millis(500);
const STREAMS: u32 = 100;

/// Says this, and then a drop now and then, until the server has enough.
async fn drip(mut stream: Box<dyn Stream>, first: &[u8], drop: &[u8], done: &AtomicU64) {
    if stream.write_all(first).await.is_err() {
        return;
    }
    done.fetch_add(1, Ordering::Relaxed);
    let mut said = [0; 1024];
    loop {
        match timeout(DRIP, stream.read(&mut said)).await {
            Ok(Ok(0) | Err(_)) => return,
            Err(_) if stream.write_all(drop).await.is_err() => return,
            Ok(Ok(_)) | Err(_) => {}
        }
    }
}

pub(super) async fn heads(stream: Box<dyn Stream>, done: &AtomicU64) {
    drip(stream, b"GET / HTTP/1.1\r\nHost: web.test\r\n", b"X: y\r\n", done).await;
}

pub(super) async fn bodies(stream: Box<dyn Stream>, done: &AtomicU64) {
    let head = b"POST /body HTTP/1.1\r\nHost: web.test\r\nContent-Length: 1000000\r\n\r\n";
    drip(stream, head, b"x", done).await;
}

pub(super) async fn half_handshakes(stream: Box<dyn Stream>, done: &AtomicU64) {
    // A record of 512 bytes with a hello of 508: nine are there, and no drop follows.
    let begins = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];
    drip(stream, &begins, b"", done).await;
}

pub(super) async fn readers(mut stream: Box<dyn Stream>, done: &AtomicU64) {
    let ask = b"GET /large HTTP/1.1\r\nHost: web.test\r\n\r\n";
    if stream.write_all(ask).await.is_err() {
        return;
    }
    let mut begun = false;
    while let Ok(1..) = stream.read(&mut [0]).await {
        if !std::mem::replace(&mut begun, true) {
            done.fetch_add(1, Ordering::Relaxed);
        }
        sleep(DRIP).await;
    }
}

/// As many streams as browsers open, none of which may send anything (`SETTINGS_INITIAL_WINDOW_SIZE` 0).
pub(super) async fn closed_window(mut stream: Box<dyn Stream>, done: &AtomicU64) {
    let mut words = frames::hello(&[(4, 0)]);
    for number in 0..STREAMS {
        let block = frames::request("GET", "/large");
        words.extend(frame(
            kind::HEADERS,
            END_STREAM | END_HEADERS,
            2 * number + 1,
            &block,
        ));
    }
    if stream.write_all(&words).await.is_err() {
        return;
    }
    let mut answers = 0;
    while let Ok((kind, ..)) = frames::next(&mut stream).await {
        answers += u32::from(kind == kind::HEADERS);
        if kind == kind::HEADERS && answers == STREAMS {
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}
