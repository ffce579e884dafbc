//! `weir-lab-peer`: the server and the client of a lab, as a program.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use weir_lab::peer::connect::{ConnectOptions, connect};
use weir_lab::peer::serve::{ServeOptions, serve};

#[derive(Parser)]
#[command(about = "Server and client that count who answered")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serves until killed; answers carry the name.
    Serve {
        /// The name that answers carry.
        #[arg(long)]
        name: String,
        /// TCP ports.
        #[arg(long, value_delimiter = ',')]
        tcp: Vec<u16>,
        /// UDP ports.
        #[arg(long, value_delimiter = ',')]
        udp: Vec<u16>,
        /// Address to listen on, all without it.
        #[arg(long)]
        bind: Option<IpAddr>,
    },
    /// Connects, and prints a report as JSON.
    Connect(Connect),
}

#[derive(clap::Args)]
struct Connect {
    /// `ADDRESS:PORT`, for IPv6 `[ADDRESS]:PORT`.
    target: SocketAddr,
    /// Connections; 0 until SIGTERM.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Connections at a time.
    #[arg(long, default_value_t = 1)]
    concurrency: u64,
    /// Connections a second; 0 as fast as possible.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// UDP, one exchange from a new socket each.
    #[arg(long)]
    udp: bool,
    /// With --udp: `connect()` the socket first.
    #[arg(long, requires = "udp")]
    connected: bool,
    /// Keep the connections open this many seconds, exchanging messages.
    #[arg(long, default_value_t = 0.0)]
    hold: f64,
    /// Seconds for connecting and for each answer.
    #[arg(long, default_value_t = 5.0)]
    timeout: f64,
    /// Source address and port; port 0 for any.
    #[arg(long)]
    source: Option<SocketAddr>,
    /// With --source: each connection has the next source port.
    #[arg(long, requires = "source")]
    consecutive: bool,
    /// Milliseconds between snapshots, each a line of JSON; 0 for none.
    #[arg(long, default_value_t = 0)]
    progress: u64,
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Serve { name, tcp, udp, bind } => serve(&ServeOptions { name, tcp, udp, bind }),
        Verb::Connect(arguments) => run(&arguments),
    }
}

fn run(arguments: &Connect) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
    }
    let seconds = |value| Duration::try_from_secs_f64(value).context("not a number of seconds");
    let options = ConnectOptions {
        rate: arguments.rate,
        udp: arguments.udp,
        connected: arguments.connected,
        hold: seconds(arguments.hold)?,
        timeout: seconds(arguments.timeout)?,
        source: arguments.source,
        consecutive: arguments.consecutive,
        progress: Duration::from_millis(arguments.progress),
        ..ConnectOptions::new(arguments.target, arguments.count, arguments.concurrency)
    };
    let report = connect(options, stop)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
