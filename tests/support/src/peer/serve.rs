//! The server: says its name on each TCP connection and to each datagram.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::{READY, socket};

/// What to serve.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// The name that answers carry.
    pub name: String,
    /// TCP ports.
    pub tcp: Vec<u16>,
    /// UDP ports.
    pub udp: Vec<u16>,
    /// The address to listen on; all if none.
    pub bind: Option<IpAddr>,
}

/// A thread for each held connection is cheap when its stack is small.
const STACK: usize = 128 << 10;

/// Listens, prints `ready`, and serves until the process is killed.
pub fn serve(options: &ServeOptions) -> Result<()> {
    ensure!(
        !(options.tcp.is_empty() && options.udp.is_empty()),
        "nothing to serve: name a port with --tcp or --udp"
    );
    let name: Arc<str> = options.name.as_str().into();
    let mut threads = Vec::new();
    for &port in &options.tcp {
        let listener = socket::listener(options.bind, port)
            .with_context(|| format!("cannot listen on TCP port {port}"))?;
        let name = Arc::clone(&name);
        threads.push(thread::spawn(move || accept(&listener, &name)));
    }
    for &port in &options.udp {
        let socket = socket::udp_server(options.bind, port)
            .with_context(|| format!("cannot listen on UDP port {port}"))?;
        let name = Arc::clone(&name);
        threads.push(thread::spawn(move || answer_datagrams(&socket, &name)));
    }
    println!("{READY}");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn accept(listener: &TcpListener, name: &Arc<str>) {
    loop {
        // The errors of accept(2) are those of connections that are gone already.
        let Ok((stream, client)) = listener.accept() else {
            continue;
        };
        let name = Arc::clone(name);
        let work = move || {
            // A connection that breaks is the client's to report.
            let _ = converse(&stream, client, &name);
        };
        if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(work) {
            eprintln!("a connection is lost: {error}");
        }
    }
}

fn converse(stream: &TcpStream, client: SocketAddr, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream;
    writer.write_all(format!("{name} {}\n", socket::plain(client)).as_bytes())?;
    let mut reader = BufReader::with_capacity(2048, stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        writer.write_all(format!("{name} {line}").as_bytes())?;
        line.clear();
    }
    Ok(())
}

fn answer_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = vec![0; 65536];
    loop {
        // An error here is an ICMP message about an earlier answer.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let mut answer = format!("{name} {} ", socket::plain(client)).into_bytes();
        answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let _ = socket.send_to(&answer, client);
    }
}
