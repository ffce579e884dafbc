//! The client and the server process of an arm, both on the same CPU, and what they say to each other.
//!
//! A connection begins with the byte that names the workload. The server closes first, so that the ports that wait
//! (`TIME_WAIT`) are its own one and not the client's many.

use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use weir_lab::clock;
use weir_measure::machine;

/// What a server prints once it listens.
pub(crate) const LISTENS: &str = "listens";

/// Bytes that a stream writes at a time.
const CHUNK: usize = 64 * 1024;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// One byte there, one byte back, again and again on one connection.
    RequestResponse,
    /// A new connection for one byte there and one byte back.
    Connect,
    /// As many bytes as go through one connection.
    Stream,
}

impl Workload {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 3] = [Self::RequestResponse, Self::Connect, Self::Stream];

    fn byte(self) -> u8 {
        match self {
            Self::RequestResponse => b'r',
            Self::Connect => b'c',
            Self::Stream => b's',
        }
    }
}

/// A block of work.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) workload: Workload,
    pub(crate) millis: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Transactions; bytes of a stream.
    pub(crate) count: u64,
    /// How long it took, all in all.
    pub(crate) nanos: u64,
    /// Median of the transactions; of a stream: 0.
    pub(crate) p50: u64,
    /// 99th percentile.
    pub(crate) p99: u64,
}

#[derive(clap::Args)]
pub(crate) struct ClientFlags {
    target: SocketAddr,
    #[arg(long)]
    cpu: usize,
    /// Move to this cgroup first
    #[arg(long)]
    cgroup: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct ServerFlags {
    listen: SocketAddr,
    #[arg(long)]
    cpu: usize,
}

/// Does jobs until the standard input ends.
pub(crate) fn client(flags: &ClientFlags) -> Result<()> {
    machine::pin(flags.cpu)?;
    if let Some(cgroup) = &flags.cgroup {
        let procs = cgroup.join("cgroup.procs");
        std::fs::write(&procs, "0").with_context(|| format!("cannot move to {}", procs.display()))?;
    }
    for line in std::io::stdin().lock().lines() {
        let job: Job = serde_json::from_str(&line.context("reading a job")?)?;
        let limit = Duration::from_millis(job.millis);
        let outcome = match job.workload {
            Workload::RequestResponse => request_response(flags.target, limit),
            Workload::Connect => connect(flags.target, limit),
            Workload::Stream => stream(flags.target, limit),
        };
        let outcome = outcome.with_context(|| format!("{:?} to {}", job.workload, flags.target))?;
        println!("{}", serde_json::to_string(&outcome)?);
    }
    Ok(())
}

fn open(target: SocketAddr, workload: Workload) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(target)?;
    socket.set_nodelay(true)?;
    socket.write_all(&[workload.byte()])?;
    Ok(socket)
}

fn request_response(target: SocketAddr, limit: Duration) -> Result<Outcome> {
    let mut socket = open(target, Workload::RequestResponse)?;
    let mut byte = [0];
    socket.read_exact(&mut byte)?;
    for _ in 0..100 {
        socket.write_all(&byte)?;
        socket.read_exact(&mut byte)?;
    }
    let mut times = Times::start(limit);
    while !times.over() {
        socket.write_all(&byte)?;
        socket.read_exact(&mut byte)?;
        times.lap();
    }
    Ok(times.outcome())
}

fn connect(target: SocketAddr, limit: Duration) -> Result<Outcome> {
    let mut times = Times::start(limit);
    let mut byte = [0];
    while !times.over() {
        let mut socket = open(target, Workload::Connect)?;
        socket.read_exact(&mut byte)?;
        times.lap();
        // The server's FIN: only then does the client close, so that it is the server's port that waits.
        ensure!(socket.read(&mut byte)? == 0, "the server said more than one byte");
        drop(socket);
        times.pause();
    }
    Ok(times.outcome())
}

fn stream(target: SocketAddr, limit: Duration) -> Result<Outcome> {
    let chunk = vec![b'x'; CHUNK];
    let mut socket = open(target, Workload::Stream)?;
    let start = clock::now();
    let mut sent = 1_u64;
    while start.elapsed() < limit {
        socket.write_all(&chunk)?;
        sent += CHUNK as u64;
    }
    socket.shutdown(Shutdown::Write)?;
    let mut received = [0; 8];
    socket.read_exact(&mut received)?;
    let nanos = nanos(start.elapsed());
    ensure!(
        u64::from_be_bytes(received) == sent,
        "the server got other bytes than were sent"
    );
    Ok(Outcome {
        count: sent,
        nanos,
        p50: 0,
        p99: 0,
    })
}

/// How long each transaction of a block took.
struct Times {
    limit: Duration,
    start: std::time::Instant,
    last: Duration,
    laps: Vec<u64>,
}

impl Times {
    fn start(limit: Duration) -> Self {
        // Room for every transaction of a second, so that no block pays for growing.
        Self {
            limit,
            start: clock::now(),
            last: Duration::ZERO,
            laps: Vec::with_capacity(200_000),
        }
    }

    fn over(&self) -> bool {
        self.last >= self.limit
    }

    /// A transaction ends.
    fn lap(&mut self) {
        let now = self.start.elapsed();
        self.laps.push(nanos(now.saturating_sub(self.last)));
        self.last = now;
    }

    /// What was since the last lap belongs to the block, but to no transaction.
    fn pause(&mut self) {
        self.last = self.start.elapsed();
    }

    fn outcome(mut self) -> Outcome {
        self.laps.sort_unstable();
        let at = |percent: usize| {
            let index = self.laps.len() * percent / 100;
            self.laps.get(index).copied().unwrap_or_default()
        };
        Outcome {
            count: self.laps.len() as u64,
            nanos: nanos(self.last),
            p50: at(50),
            p99: at(99),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Serves one connection after the other, until it is killed.
pub(crate) fn server(flags: &ServerFlags) -> Result<()> {
    machine::pin(flags.cpu)?;
    let listener =
        TcpListener::bind(flags.listen).with_context(|| format!("cannot listen on {}", flags.listen))?;
    println!("{LISTENS}");
    let mut buffer = vec![0; CHUNK];
    for socket in listener.incoming() {
        // A client that was killed in the middle of a block is none of the next one's business.
        let _ended = serve(socket?, &mut buffer);
    }
    Ok(())
}

fn serve(mut socket: TcpStream, buffer: &mut [u8]) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut byte = [0];
    socket.read_exact(&mut byte)?;
    match byte {
        [b'c'] => socket.write_all(&byte)?,
        [b's'] => {
            let mut count = 1_u64;
            loop {
                match socket.read(buffer)? {
                    0 => break,
                    length => count += length as u64,
                }
            }
            socket.write_all(&count.to_be_bytes())?;
        }
        _ => loop {
            socket.write_all(&byte)?;
            if socket.read(&mut byte)? == 0 {
                break;
            }
        },
    }
    Ok(())
}

/// The flags that start this program as a client.
pub(crate) fn client_arguments(target: SocketAddr, cpu: usize) -> [String; 4] {
    [
        "client".into(),
        target.to_string(),
        "--cpu".into(),
        cpu.to_string(),
    ]
}

/// The flags that start this program as a server.
pub(crate) fn server_arguments(address: IpAddr, port: u16, cpu: usize) -> [String; 4] {
    let listen = SocketAddr::new(address, port);
    [
        "server".into(),
        listen.to_string(),
        "--cpu".into(),
        cpu.to_string(),
    ]
}
