//! Attacks, and the process that makes them.
//!
//! An attacker is another machine's business: here it is a process that gets the CPU time that nobody else wants
//! (`SCHED_IDLE`), so that what a normal client feels is what the ingress spends on the attack, not what it costs to make.

mod floods;
mod slow;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};
use weir_lab::Process;

use crate::client::Stream;
use crate::{Edge, SOON, until};

/// What is done to the ingress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Attack {
    /// Heads that come line by line, and never end.
    SlowHeads,
    /// Bodies that come byte by byte.
    SlowBodies,
    /// Long answers that are taken byte by byte.
    SlowReaders,
    /// The first half of a TLS hello, and no more.
    HalfHandshakes,
    /// HTTP/2: requests that are reset at once (CVE-2023-44487).
    RapidReset,
    /// HTTP/2: requests that the server is made to reset (CVE-2025-8671).
    MadeYouReset,
    /// HTTP/2: a head that goes on for ever (CERT VU#421644).
    Continuations,
    /// HTTP/2: PING after PING.
    Pings,
    /// HTTP/2: SETTINGS after SETTINGS.
    Settings,
    /// HTTP/2: DATA without data.
    EmptyData,
    /// HTTP/2: a head that is small on the wire and large when it is read.
    HpackBomb,
    /// HTTP/2: long answers, and a window that never opens.
    ClosedWindow,
}

/// Where attackers come from: some addresses, so that a limit on one does not end it.
const SOURCES: u8 = 8;

impl Attack {
    /// Connections at a time.
    pub fn connections(self) -> u32 {
        match self {
            Self::SlowHeads | Self::HalfHandshakes => 4_000,
            Self::SlowBodies => 2_000,
            Self::SlowReaders => 500,
            Self::ClosedWindow => 25,
            _ => 8,
        }
    }

    /// Does it on one connection until that ends; `done` counts what was done.
    async fn once(self, stream: Box<dyn Stream>, done: &AtomicU64) {
        match self {
            Self::SlowHeads => slow::heads(stream, done).await,
            Self::SlowBodies => slow::bodies(stream, done).await,
            Self::SlowReaders => slow::readers(stream, done).await,
            Self::HalfHandshakes => slow::half_handshakes(stream, done).await,
            Self::ClosedWindow => slow::closed_window(stream, done).await,
            flood => floods::flood(flood, stream, done).await,
        }
    }
}

/// What the attacker's process does, until it is killed: a line with what was done so far, ten times a second.
pub async fn attack(kind: Attack, target: SocketAddr) {
    let done = Arc::new(AtomicU64::new(0));
    for number in 0..kind.connections() {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            let last = u8::try_from(number % u32::from(SOURCES)).unwrap_or(0) + 1;
            loop {
                if let Some(stream) = open(Ipv4Addr::new(10, 9, 0, last), target).await {
                    kind.once(Box::new(stream), &done).await;
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
    }
    loop {
        println!("{}", done.load(Ordering::Relaxed));
        sleep(Duration::from_millis(100)).await;
    }
}

async fn open(from: Ipv4Addr, to: SocketAddr) -> Option<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(4096).ok()?;
    socket.bind((from, 0).into()).ok()?;
    timeout(SOON, socket.connect(to)).await.ok()?.ok()
}

/// An attack under way. Dropping it ends it.
pub struct Attacker {
    _process: Process,
    done: Arc<AtomicU64>,
}

impl Attacker {
    /// Begins, with the program of this crate that does it.
    pub fn start(edge: &Edge, program: &Path, kind: Attack, target: SocketAddr) -> Result<Self> {
        let name = kind.to_possible_value().context("an attack without a name")?;
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(program);
        command.args([name.get_name(), &target.to_string()]);
        let mut process = edge.host().spawn_piped(command)?;
        let lines = process.child().stdout.take().context("no pipe")?;
        let done = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&done);
        thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                seen.store(line.parse().unwrap_or(0), Ordering::Relaxed);
            }
        });
        Ok(Self {
            _process: process,
            done,
        })
    }

    /// What was done so far: connections of the slow, frames or heads of the others.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until this much was done.
    pub async fn has_done(&self, much: u64) -> Result<()> {
        until("the attack", async || self.done() >= much).await
    }
}
