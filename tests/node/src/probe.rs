//! Clients that do one unusual thing, as a thread of the test or as the program `weir-node-probe`.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use serde::{Deserialize, Serialize};
use weir_lab::clock;

use crate::bulk;

/// How long a probe waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Probe {
    /// Call `connect()` of a non-blocking socket twice before the answer is there, `count` sockets one by one.
    ConnectTwice {
        /// Where to.
        target: SocketAddr,
        /// How often.
        count: u64,
    },
    /// Connect, and ask `getpeername()`.
    PeerName {
        /// Where to.
        target: SocketAddr,
        /// A connected UDP socket instead of TCP.
        udp: bool,
    },
    /// Move bytes, and compare each.
    Bulk {
        /// Where to; see [`crate::bulk::Bulk`].
        target: SocketAddr,
        /// How many.
        bytes: u64,
        /// To the server, not from it.
        upload: bool,
    },
    /// Send datagrams that the server echoes, and compare each byte.
    Datagrams {
        /// Where to.
        target: SocketAddr,
        /// Bytes in each.
        size: usize,
        /// How many, one by one.
        count: u64,
        /// `connect()` the socket first.
        connected: bool,
    },
    /// Ask several servers on one unconnected socket; each answer must come from the address that was asked.
    Several {
        /// Where to.
        targets: Vec<SocketAddr>,
        /// How often each is asked.
        rounds: u64,
        /// Ask all before the first answer is read; else one after the other.
        at_once: bool,
    },
    /// Send datagrams on one socket every 5 ms, for a time; the names that answered, and the longest silence.
    Stream {
        /// Where to.
        target: SocketAddr,
        /// `connect()` the socket first.
        connected: bool,
        /// For how long.
        millis: u64,
    },
    /// Ask on one connected UDP socket every 10 ms, for a time, and connect it again when it is told that it no longer is
    /// connected: all that a program has to do.
    Ask {
        /// Where to.
        target: SocketAddr,
        /// For how long.
        millis: u64,
    },
    /// Connect UDP sockets, and close them, without a word.
    Connects {
        /// Where to.
        target: SocketAddr,
        /// How many a second.
        rate: u32,
        /// For how long.
        millis: u64,
    },
}

/// What a probe saw.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Finding {
    /// Successful tries.
    pub ok: u64,
    /// The servers that answered, in order, without repetitions in a row.
    pub names: Vec<String>,
    /// How often each of `names` answered.
    pub counts: Vec<u64>,
    /// What `getpeername()` said.
    pub peer: Option<SocketAddr>,
    /// Bytes that arrived, but not as they were sent.
    pub wrong_bytes: u64,
    /// The longest time between two answers.
    pub longest_silence_ms: u64,
    /// How often the socket was ended under its user.
    pub aborted: u64,
    /// Why it ended early.
    pub error: Option<String>,
}

impl Probe {
    /// Does it, on the calling thread.
    pub fn run(&self) -> Finding {
        let mut finding = Finding::default();
        let result = match *self {
            Self::ConnectTwice { target, count } => connect_twice(target, count, &mut finding),
            Self::PeerName { target, udp } => peer_name(target, udp, &mut finding),
            Self::Bulk {
                target,
                bytes,
                upload,
            } => bulk::transfer(target, bytes, upload).map(|wrong| {
                finding.wrong_bytes = wrong;
                finding.ok = 1;
            }),
            Self::Datagrams {
                target,
                size,
                count,
                connected,
            } => datagrams(target, size, (count, connected), &mut finding),
            Self::Several {
                ref targets,
                rounds,
                at_once,
            } => several(targets, rounds, at_once, &mut finding),
            Self::Stream {
                target,
                connected,
                millis,
            } => stream(target, connected, Duration::from_millis(millis), &mut finding),
            Self::Ask { target, millis } => ask(target, Duration::from_millis(millis), &mut finding),
            Self::Connects { target, rate, millis } => {
                connects(target, rate, Duration::from_millis(millis), &mut finding)
            }
        };
        finding.error = result.err().map(|error| format!("{:?}: {error}", error.kind()));
        finding
    }
}

impl Finding {
    /// Whether all went well, `ok` times.
    pub fn is_clean(&self, ok: u64) -> bool {
        self.error.is_none() && self.wrong_bytes == 0 && self.ok == ok
    }

    /// The count of answers by a server over all its turns.
    pub fn answers_of(&self, name: &str) -> u64 {
        let turns = self.names.iter().zip(&self.counts);
        turns
            .filter(|(known, _)| *known == name)
            .map(|(_, count)| count)
            .sum()
    }

    fn silent_for(&mut self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.longest_silence_ms = self.longest_silence_ms.max(millis);
    }

    fn answered(&mut self, name: &str) {
        self.ok += 1;
        if self.names.last().is_none_or(|last| last != name) {
            self.names.push(name.to_owned());
            self.counts.push(0);
        }
        if let Some(count) = self.counts.last_mut() {
            *count += 1;
        }
    }
}

fn connect_twice(target: SocketAddr, count: u64, finding: &mut Finding) -> io::Result<()> {
    for _ in 0..count {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family(target), SocketType::STREAM, flags, None)?;
        for _ in 0..2 {
            match connect(&socket, &target) {
                // ISCONN: the answer was faster than the second call.
                Ok(()) | Err(Errno::INPROGRESS | Errno::ALREADY | Errno::ISCONN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let timeout = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&timeout))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sockopt::socket_error(&socket)??;
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(false)?;
        let name = greeting(&stream)?;
        finding.answered(&name);
    }
    Ok(())
}

fn peer_name(target: SocketAddr, udp: bool, finding: &mut Finding) -> io::Result<()> {
    if udp {
        let socket = udp_socket(target)?;
        socket.connect(target)?;
        finding.peer = Some(socket.peer_addr()?);
        socket.send(b"x")?;
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer)?;
        finding.answered(first_word(buffer.get(..length).unwrap_or_default()));
        return Ok(());
    }
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    finding.peer = Some(stream.peer_addr()?);
    let name = greeting(&stream)?;
    finding.answered(&name);
    Ok(())
}

fn datagrams(
    target: SocketAddr,
    size: usize,
    (count, connected): (u64, bool),
    finding: &mut Finding,
) -> io::Result<()> {
    let socket = udp_socket(target)?;
    if connected {
        socket.connect(target)?;
    }
    let mut buffer = vec![0; 65536];
    for number in 0..count {
        // The server puts its name and the client's address before the payload, so it may hold no space at its start.
        let payload: Vec<u8> = (0..size)
            .map(|at| b'!' + ((at as u64 + number) % 90) as u8)
            .collect();
        let length = if connected {
            socket.send(&payload)?;
            socket.recv(&mut buffer)?
        } else {
            socket.send_to(&payload, target)?;
            let (length, from) = socket.recv_from(&mut buffer)?;
            if from != target {
                return Err(io::Error::other(format!("an answer from {from}")));
            }
            length
        };
        let answer = buffer.get(..length).unwrap_or_default();
        let echo = answer.get(length.saturating_sub(size)..).unwrap_or_default();
        let wrong = echo.iter().zip(&payload).filter(|(a, b)| a != b).count() + size.abs_diff(echo.len());
        finding.wrong_bytes += wrong as u64;
        finding.answered(first_word(answer));
    }
    Ok(())
}

fn several(targets: &[SocketAddr], rounds: u64, at_once: bool, finding: &mut Finding) -> io::Result<()> {
    let Some(first) = targets.first() else {
        return Ok(());
    };
    let socket = udp_socket(*first)?;
    for _ in 0..rounds {
        let group = if at_once { targets.len() } else { 1 };
        for asked in targets.chunks(group) {
            for target in asked {
                socket.send_to(target.to_string().as_bytes(), target)?;
            }
            for _ in asked {
                let mut buffer = [0; 512];
                let (length, from) = socket.recv_from(&mut buffer)?;
                let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                // The server echoes whom this client believes to ask, behind its own name.
                if !answer.ends_with(&format!(" {from}")) {
                    return Err(io::Error::other(format!("{from} answers {answer:?}")));
                }
                finding.answered(first_word(answer.as_bytes()));
            }
        }
    }
    Ok(())
}

fn stream(target: SocketAddr, connected: bool, limit: Duration, finding: &mut Finding) -> io::Result<()> {
    let socket = udp_socket(target)?;
    if connected {
        socket.connect(target)?;
    }
    // A lost answer is told from a late one by the next question, not by a long wait.
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let (begin, mut buffer) = (clock::now(), [0; 512]);
    let mut last = begin;
    while begin.elapsed() < limit {
        // An ICMP error about an earlier datagram shows up here; the next one may go elsewhere.
        let _ = if connected {
            socket.send(b"x")
        } else {
            socket.send_to(b"x", target)
        };
        if let Ok((length, _)) = socket.recv_from(&mut buffer) {
            finding.silent_for(last.elapsed());
            last = clock::now();
            finding.answered(first_word(buffer.get(..length).unwrap_or_default()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    finding.silent_for(last.elapsed());
    Ok(())
}

fn ask(target: SocketAddr, limit: Duration, finding: &mut Finding) -> io::Result<()> {
    const TURN: Duration = Duration::from_millis(10);
    let socket = udp_socket(target)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(TURN))?;
    let (begin, mut buffer) = (clock::now(), [0; 512]);
    let mut last = begin;
    while begin.elapsed() < limit {
        let turn = clock::now();
        match socket.send(b"x").and_then(|_| socket.recv(&mut buffer)) {
            Ok(length) => {
                finding.silent_for(last.elapsed());
                last = clock::now();
                finding.answered(first_word(buffer.get(..length).unwrap_or_default()));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                finding.aborted += 1;
                // Where nobody answers this fails, and `send` says then that there is no destination.
                let _ = socket.connect(target);
            }
            Err(error) if error.raw_os_error() == Some(Errno::DESTADDRREQ.raw_os_error()) => {
                let _ = socket.connect(target);
            }
            // Late, or an ICMP error.
            Err(_) => {}
        }
        std::thread::sleep(TURN.saturating_sub(turn.elapsed()));
    }
    finding.silent_for(last.elapsed());
    Ok(())
}

fn connects(target: SocketAddr, rate: u32, limit: Duration, finding: &mut Finding) -> io::Result<()> {
    let begin = clock::now();
    let mut count = 0;
    while begin.elapsed() < limit {
        udp_socket(target)?.connect(target)?;
        count += 1;
        let due = Duration::from_secs(1) * count / rate;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    finding.ok = count.into();
    Ok(())
}

fn udp_socket(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = if target.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// The name of the server, which it says first.
fn greeting(stream: &TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(first_word(line.as_bytes()).to_owned())
}

fn first_word(answer: &[u8]) -> &str {
    let word = answer.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    std::str::from_utf8(word).unwrap_or("?")
}

const fn family(target: SocketAddr) -> AddressFamily {
    if target.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}
