//! The client: opens connections at a rate or as fast as it can, and counts who answered.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::report::{Report, Tally};
use super::{hold, socket};
use crate::clock::now;
use crate::lab::lock;

/// What a client does.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Where to.
    pub target: SocketAddr,
    /// Connections; 0: until `SIGTERM`.
    pub count: u64,
    /// Connections at a time.
    pub concurrency: u64,
    /// Connections a second; 0: as fast as possible.
    pub rate: u64,
    /// UDP, one exchange from a new socket each, instead of TCP.
    pub udp: bool,
    /// `connect()` the UDP socket before it sends.
    pub connected: bool,
    /// Keep the connections this long (or until `SIGTERM`), with a message every 10 to 100 ms; 0: close at once.
    pub hold: Duration,
    /// For connecting, and for each answer.
    pub timeout: Duration,
    /// Source address and port.
    pub source: Option<SocketAddr>,
    /// Connection N has the source port of `source` plus N. A kernel's choice of UDP ports comes back to a port soon,
    /// and for a proxy that is the old flow, not a new one.
    pub consecutive: bool,
    /// Print a snapshot as a line of JSON this often; 0: only the end.
    pub progress: Duration,
}

impl ConnectOptions {
    /// `count` TCP connections to `target`, `concurrency` at a time.
    pub fn new(target: SocketAddr, count: u64, concurrency: u64) -> Self {
        Self {
            target,
            count,
            concurrency,
            rate: 0,
            udp: false,
            connected: false,
            hold: Duration::ZERO,
            timeout: Duration::from_secs(5),
            source: None,
            consecutive: false,
            progress: Duration::ZERO,
        }
    }
}

/// A run in progress, shared by its threads.
pub(crate) struct Run {
    pub(crate) options: ConnectOptions,
    pub(crate) start: Instant,
    pub(crate) stop: Arc<AtomicBool>,
    tickets: AtomicU64,
    tally: Mutex<Tally>,
}

/// Runs the client to its end. Setting `stop` ends it early.
pub fn connect(options: ConnectOptions, stop: Arc<AtomicBool>) -> Result<Report> {
    ensure!(options.concurrency > 0, "--concurrency must be at least 1");
    let run = Run {
        start: now(),
        stop,
        tickets: AtomicU64::new(0),
        tally: Mutex::default(),
        options,
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        if !run.options.progress.is_zero() {
            scope.spawn(|| run.print_progress(&done));
        }
        let result = run.run_all();
        done.store(true, Ordering::Relaxed);
        result
    })?;
    let elapsed = run.start.elapsed();
    let tally = run.tally.into_inner().unwrap_or_default();
    Ok(tally.finish(elapsed))
}

impl Run {
    fn run_all(&self) -> Result<()> {
        let options = &self.options;
        let held = !options.hold.is_zero();
        // Held connections are all open at a time.
        let threads = match options.count {
            0 => options.concurrency,
            count if held => count,
            count => options.concurrency.min(count),
        };
        thread::scope(|scope| {
            for _ in 0..threads {
                thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, || {
                        while let Some(number) = self.next() {
                            self.one(number);
                        }
                    })
                    .context("cannot start another thread: lower --concurrency")?;
            }
            Ok(())
        })
    }

    /// Waits for the turn of the next connection; its number, or `None` at the end.
    fn next(&self) -> Option<u64> {
        let number = self.tickets.fetch_add(1, Ordering::Relaxed);
        if self.options.count > 0 && number >= self.options.count {
            return None;
        }
        if let Some(nanos) = (number * 1_000_000_000).checked_div(self.options.rate) {
            let due = Duration::from_nanos(nanos);
            while let Some(left) = due.checked_sub(self.start.elapsed()) {
                if self.stopped() {
                    return None;
                }
                thread::sleep(left.min(Duration::from_millis(50)));
            }
        }
        (!self.stopped()).then_some(number)
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn one(&self, number: u64) {
        lock(&self.tally).report.attempted += 1;
        let begin = now();
        let result = if self.options.udp {
            self.one_udp(number)
        } else {
            self.one_tcp(number)
        };
        if let Err(error) = result {
            // How long a held connection lasted says nothing.
            let after = self.options.hold.is_zero().then(|| begin.elapsed());
            lock(&self.tally).failed(&error, after);
        }
    }

    fn source(&self, number: u64) -> Option<SocketAddr> {
        let source = self.options.source?;
        let step = if self.options.consecutive { number } else { 0 };
        let port = source
            .port()
            .wrapping_add(u16::try_from(step % 65536).unwrap_or(0));
        Some(SocketAddr::new(source.ip(), port))
    }

    fn one_tcp(&self, number: u64) -> io::Result<()> {
        let begin = now();
        let stream = socket::tcp(self.options.target, self.source(number), self.options.timeout)?;
        let mut reader = BufReader::with_capacity(512, &stream);
        let greeting = read_line(&mut reader)?;
        let backend = self.answered(&greeting, begin)?;
        if self.options.hold.is_zero() {
            return Ok(());
        }
        hold::hold(self, number, &backend, |message| {
            let mut writer: &TcpStream = &stream;
            writer.write_all(message.as_bytes())?;
            read_line(&mut reader)
        })
    }

    fn one_udp(&self, number: u64) -> io::Result<()> {
        let begin = now();
        let target = self.options.target;
        let socket = socket::udp(target, self.source(number), self.options.timeout)?;
        if self.options.connected {
            socket.connect(target)?;
        }
        let answer = exchange(&socket, &self.options, &format!("{number}"))?;
        let backend = self.answered(&answer, begin)?;
        if self.options.hold.is_zero() {
            return Ok(());
        }
        hold::hold(self, number, &backend, |message| {
            exchange(&socket, &self.options, message.trim_end())
        })
    }

    /// Counts an answer `NAME ADDRESS …`, and gives the name.
    fn answered(&self, answer: &str, begin: Instant) -> io::Result<String> {
        let mut words = answer.split_whitespace();
        let (Some(backend), Some(address)) = (words.next(), words.next()) else {
            return Err(io::Error::other(format!("not an answer: {answer:?}")));
        };
        let seen_as = address
            .parse::<SocketAddr>()
            .map_or_else(|_| address.to_owned(), |address| address.ip().to_string());
        lock(&self.tally).answered(backend, &seen_as, begin.elapsed());
        Ok(backend.to_owned())
    }

    /// Counts an answer on a held connection.
    pub(crate) fn message(&self, right_backend: bool) {
        let mut tally = lock(&self.tally);
        tally.report.messages += 1;
        tally.report.wrong_backend += u64::from(!right_backend);
    }

    fn print_progress(&self, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            let snapshot = lock(&self.tally).snapshot(self.start.elapsed());
            if let Ok(line) = serde_json::to_string(&snapshot) {
                println!("{line}");
            }
            thread::sleep(self.options.progress);
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    Ok(line)
}

fn exchange(socket: &UdpSocket, options: &ConnectOptions, payload: &str) -> io::Result<String> {
    let mut buffer = vec![0; 65536];
    let length = if options.connected {
        socket.send(payload.as_bytes())?;
        socket.recv(&mut buffer)?
    } else {
        socket.send_to(payload.as_bytes(), options.target)?;
        let (length, from) = socket.recv_from(&mut buffer)?;
        // A client that compares the source (a resolver does) would throw this answer away.
        if socket::plain(from) != socket::plain(options.target) {
            return Err(io::Error::other(format!("an answer from {from}")));
        }
        length
    };
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}
