//! Writes the access log, on a thread of its own: only it waits for a disk or for whoever reads a pipe.
//!
//! A file that was renamed or deleted under it is opened anew within a second of the next lines: what rotates logs in a
//! container has no way to send a signal to the one process in another, and needs none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{CHUNKS, Chunk, Destination, Lines};
use crate::clock;

/// Milliseconds between two looks at where a file's name leads.
const LOOK: u64 = 1_000;

/// How long the end of a process waits for the last lines.
const LAST: Duration = Duration::from_secs(2);

/// The thread.
pub(crate) struct Writer {
    thread: JoinHandle<()>,
    over: Receiver<()>,
}

impl Writer {
    /// Begins to write. A file that cannot be opened is an error now, not later.
    pub(crate) fn start(to: Destination, lines: &Arc<Lines>) -> io::Result<(Self, SyncSender<Chunk>)> {
        let mut out = match &to {
            Destination::Stdout => None,
            Destination::File(path) => Some(open(path)?),
        };
        let (sender, chunks) = sync_channel(CHUNKS);
        let (ending, over) = sync_channel(1);
        let lines = Arc::clone(lines);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                let mut looked = 0;
                for chunk in chunks {
                    let written = match &to {
                        Destination::Stdout => put(&mut io::stdout().lock(), &chunk),
                        Destination::File(path) => file(&mut out, path, &mut looked, &chunk),
                    };
                    match written {
                        Ok(()) => drop(lines.written.fetch_add(chunk.lines, Ordering::Relaxed)),
                        Err(error) => lines.lost(chunk.lines, &format!("writing to {to}: {error}")),
                    }
                }
                // Nobody waits for it any more, at the worst.
                let _told = ending.try_send(());
            })?;
        Ok((Self { thread, over }, sender))
    }

    /// Waits for the last lines, once nobody sends any more; not for ever: whoever reads them may never.
    pub(crate) fn join(self) {
        if self.over.recv_timeout(LAST).is_ok() {
            let _ended = self.thread.join();
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn put(out: &mut impl Write, chunk: &Chunk) -> io::Result<()> {
    out.write_all(&chunk.bytes)?;
    out.flush()
}

/// Writes to the file that the path leads to.
fn file(out: &mut Option<File>, path: &Path, looked: &mut u64, chunk: &Chunk) -> io::Result<()> {
    let now = clock::now();
    if now.saturating_sub(*looked) >= LOOK {
        *looked = now;
        if !out.as_ref().is_some_and(|out| is_at(out, path)) {
            *out = None;
        }
    }
    let out = match out {
        Some(out) => out,
        None => out.insert(open(path)?),
    };
    put(out, chunk)
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}
