//! Connections that live while others are begun in masses, and connections whose backend goes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, clock};
use weir_node::flood::Flood;
use weir_node::services::{REMOTE, SOLO, WEB};
use weir_node::{By, World, can_run, figures};

/// Longer than any answer takes, also beside a flood on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open connection.
struct Line {
    stream: BufReader<TcpStream>,
    backend: String,
}

impl Line {
    fn open(target: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let mut greeting = String::new();
        stream.read_line(&mut greeting)?;
        let backend = greeting.split_whitespace().next().context("no greeting")?;
        Ok(Self {
            backend: backend.to_owned(),
            stream,
        })
    }

    /// Asks the server that greeted.
    fn ask(&mut self, what: &str) -> Result<()> {
        self.stream.get_mut().write_all(format!("{what}\n").as_bytes())?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        let right = answer.starts_with(&self.backend) && answer.trim_end().ends_with(what);
        ensure!(right, "{} was asked {what} and said {answer:?}", self.backend);
        Ok(())
    }
}

/// Connections from a machine, by packets; idle from then on.
fn lines(host: &Host, target: SocketAddr, count: usize) -> Result<Vec<Line>> {
    host.run(|| (0..count).map(|_| Line::open(target)).collect::<Result<Vec<_>>>())?
        .with_context(|| format!("{} to {target}", host.name()))
}

/// How many still are answered, by the server that greeted.
fn alive(lines: &mut [Line], what: &str) -> usize {
    let mut alive = 0;
    for line in lines {
        match line.ask(what) {
            Ok(()) => alive += 1,
            Err(error) => println!("{what}: {error:#}"),
        }
    }
    alive
}

fn v4(address: SocketAddr) -> Result<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => anyhow::bail!("{address} is not of IPv4"),
    }
}

/// Connections of every kind, idle, through a flood of first packets; connections are opened meanwhile.
fn survive(world: &World, count: usize, rate: u64, done: impl Fn(&Flood)) -> Result<()> {
    let [node_port, _] = world.at_n1(WEB.node_tcp());
    let [cluster_ip, cluster_ip_v6] = WEB.tcp();
    let mut open = Vec::new();
    for (host, target) in [
        (world.sandbox.host(), cluster_ip),
        (world.sandbox.host(), cluster_ip_v6),
        (&world.outside, node_port),
        (&world.outside, world.at_n1(REMOTE.node_tcp())[0]),
    ] {
        open.extend(lines(host, target, count / 4)?);
    }
    ensure!(alive(&mut open, "before") == count, "not all are answered");
    // What closed in the test's beginning is over by then.
    let flood = Flood::start(&world.outside, v4(node_port)?, rate);
    flood.wait_for(20_000);
    let options = ConnectOptions {
        timeout: PATIENCE,
        ..ConnectOptions::new(cluster_ip, 200, 4)
    };
    let report = By::Packet.connect(world.sandbox.host(), &options)?;
    figures("beside the flood, new connections", &report);
    done(&flood);
    let (packets, rate) = flood.stop()?;
    let alive = alive(&mut open, "after");
    println!("{packets} SYNs, {rate} a second: {alive} of {count} connections live");
    ensure!(alive == count, "{alive} of {count} live");
    ensure!(report.ok >= 198, "{report:?}");
    Ok(())
}

/// Twice as many first packets as the table of established connections has rows for.
#[test]
fn p9_established_connections_survive_a_syn_flood() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("p9flood")?;
    survive(&world, 200, 0, |flood| flood.wait_for(300_000))?;
    println!("{}", world.n1.weir(&["status"])?);
    Ok(())
}

/// The figures of the promise: a minute long, so only when asked for (`-- --ignored`).
#[test]
#[ignore = "takes over a minute, and two free CPUs"]
fn p9_a_thousand_connections_survive_a_minute_of_100000_syns_a_second() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("p9long")?;
    // One more in a hundred: the senders take a moment to begin.
    survive(&world, 1000, 101_000, |_| thread::sleep(Duration::from_secs(60)))
}

/// A pod that vanishes without a word, and its endpoint with it: who goes on talking to it is told, within seconds.
#[test]
fn p11_a_connection_to_a_vanished_backend_is_reset() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("p11gone")?;
    let [cluster_ip, _] = SOLO.tcp();
    let [node_port, _] = world.at_n1(SOLO.node_tcp());
    let mut lines = lines(world.sandbox.host(), cluster_ip, 1)?;
    lines.extend(self::lines(&world.outside, node_port, 1)?);
    // It leaves the Service, and lives.
    let [_, web_2, _] = &world.web;
    SOLO.write(&world.manifests, &[web_2])?;
    world.settled(SOLO, &[web_2])?;
    for round in 0..4 {
        ensure!(
            alive(&mut lines, &format!("left {round}")) == 2,
            "a living backend was left"
        );
        thread::sleep(Duration::from_secs(2));
    }
    world.web[0].host().sh("ip link set eth0 down")?;
    let begin = clock::now();
    for line in &mut lines {
        let error = line.ask("are you there").err().context("who answers?")?;
        println!("{error:#} after {:?}", begin.elapsed());
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        ensure!(kind == Some(std::io::ErrorKind::ConnectionReset), "{error:#}");
        ensure!(
            begin.elapsed() < Duration::from_secs(40),
            "after {:?}",
            begin.elapsed()
        );
    }
    let status = world.n1.weir(&["status"])?;
    ensure!(status.contains("RejectGoneBackend"), "{status}");
    Ok(())
}
