//! What packets meet after objects: kube-proxy's own tables, as scenario files, in the kernel and in user space.
//!
//! A line of `--- packets` says who asks for what, and what that meets:
//!
//! ```text
//! pod 10.244.1.2 tcp 10.96.0.41:80 = 10.244.1.3:80 10.244.2.4:80 masqueraded
//! outside 203.0.113.9 udp 10.96.0.50:53 = dropped
//! node tcp 192.168.0.10:30001 = 10.244.1.3:80
//! ```
//!
//! `node` is a socket of the node itself: it gets its source address by the route to the backend.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use proxy_common::Ip;
use proxy_datapath::Verdict;
use proxy_datapath::socket::{Answer, Call, to_service};
use proxy_model::{Adopted, parse_address};
use weir_packet::craft::{Craft, Endpoint, INIT, SYN};
use weir_packet::decode::decode;
use weir_packet::kernel::Kernel;
use weir_packet::memory::Memory;
use weir_packet::node::{self, Port};
use weir_packet::objects;
use weir_packet::pair::Pair;
use weir_packet::user::{Arrival, Program, Socket};
use weir_scenario::{Case, Driver, FakeKernel, Kernel as _, Section, files};

/// Connections a line: more than any line has endpoints.
const TRIES: u16 = 12;

/// A line.
struct Line {
    place: Place,
    protocol: Protocol,
    to: Endpoint,
    meets: String,
}

#[derive(Clone, Copy)]
enum Place {
    /// A packet at an interface.
    At(Port, Program, Ip),
    /// A socket of the node.
    Node,
}

#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Line {
    fn parse(text: &str) -> Result<Self> {
        let (asked, meets) = text.split_once(" = ").context("no ` = `")?;
        let words: Vec<&str> = asked.split(' ').collect();
        let (place, protocol, to) = match words.as_slice() {
            ["node", protocol, to] => (Place::Node, protocol, to),
            [place @ ("pod" | "outside"), source, protocol, to] => {
                let source = parse_address(source).context("no source")?;
                let place = match *place {
                    "pod" => Place::At(Port::Pod1, Program::PodIngress, source),
                    _ => Place::At(Port::Uplink, Program::UplinkIngress, source),
                };
                (place, protocol, to)
            }
            _ => bail!("neither `node PROTOCOL TO` nor `pod|outside FROM PROTOCOL TO`"),
        };
        let protocol = match *protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            other => bail!("no protocol {other}"),
        };
        let to: SocketAddr = to.parse()?;
        let address = parse_address(&to.ip().to_string()).context("no destination")?;
        Ok(Self {
            place,
            protocol,
            to: (address, to.port()),
            meets: meets.to_owned(),
        })
    }

    /// What new connections meet, in the words of a line.
    fn ask(&self, pair: &mut Pair, client_port: &mut u16) -> Result<String> {
        let mut backends = BTreeSet::new();
        let mut masqueraded = BTreeSet::new();
        // A socket's turns are not the kernel's here: they are taken on a copy.
        let sockets = pair.memory.clone();
        for _ in 0..TRIES {
            *client_port += 1;
            let (backend, hidden) = match self.place {
                Place::Node => (self.connect(&sockets, u64::from(*client_port)), false),
                Place::At(port, program, source) => send(
                    pair,
                    &Arrival::at(program, port, self.bytes((source, *client_port))),
                )?,
            };
            backends.insert(backend);
            masqueraded.insert(hidden);
        }
        ensure!(
            masqueraded.len() == 1,
            "some are masqueraded, and some are not: {backends:?}"
        );
        let found: Vec<String> = backends.into_iter().collect();
        let end = if masqueraded.contains(&true) {
            " masqueraded"
        } else {
            ""
        };
        Ok(found.join(" ") + end)
    }

    fn bytes(&self, from: Endpoint) -> Vec<u8> {
        match self.protocol {
            Protocol::Tcp => Craft::tcp(from, self.to, SYN),
            Protocol::Udp => Craft::udp(from, self.to),
            Protocol::Sctp => Craft::sctp(from, self.to, INIT),
        }
        .bytes(true)
    }

    fn connect(&self, memory: &Memory, cookie: u64) -> String {
        let socket = Socket { cookie, host: true };
        let call = Call {
            address: self.to.0,
            port: self.to.1,
            protocol: if self.protocol == Protocol::Udp { 17 } else { 6 },
            connect: true,
        };
        match to_service(memory, &socket, &call) {
            Answer::Use(address, port) => named(address, port),
            Answer::Refuse(_) => "rejected".to_owned(),
            Answer::Block(_) => "dropped".to_owned(),
            Answer::Leave => "let through".to_owned(),
        }
    }
}

/// What one packet meets, and whether its source is another one behind that.
fn send(pair: &mut Pair, arrival: &Arrival) -> Result<(String, bool)> {
    let outcome = pair.run(arrival)?;
    let word = match outcome.verdict {
        Verdict::Translate(_) | Verdict::Redirect(_) => {
            let before = decode(&arrival.bytes, true).context("no packet")?;
            let after = decode(&outcome.bytes, true).context("no packet behind it")?;
            let (_, port) = after.ports.context("no ports")?;
            return Ok((named(after.destination, port), before.source != after.source));
        }
        Verdict::Reply(_) => "rejected",
        Verdict::Drop(_) => "dropped",
        Verdict::Ignore | Verdict::Pass(_) => "let through",
    };
    Ok((word.to_owned(), false))
}

fn named(address: Ip, port: u16) -> String {
    if address.is_v4() {
        format!("{address}:{port}")
    } else {
        format!("[{address}]:{port}")
    }
}

/// The lines of a section that meet something else.
fn wrong(pair: &mut Pair, (case, line): (&Case, usize), packets: &str) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut client_port = 40_000;
    for (number, text) in (line + 1..).zip(packets.lines()) {
        let place = || format!("{}: line {number}: {text}", case.path.display());
        let line = Line::parse(text).with_context(place)?;
        let found = line.ask(pair, &mut client_port).with_context(place)?;
        if found != line.meets {
            wrong.push(format!("{}\n    meets {found}", place()));
        }
    }
    Ok(wrong)
}

/// Every section with packets of a case.
fn run(case: &Case, pair: &mut Pair) -> Result<(usize, Vec<String>)> {
    let mut kernel = FakeKernel::new(case.limits);
    let mut driver = Driver::of(case, &mut kernel).map_err(anyhow::Error::msg)?;
    driver.start(&case.objects, &case.local);
    let settle = |driver: &mut Driver, kernel: &mut FakeKernel| -> Result<Adopted> {
        driver.settle(kernel).map_err(anyhow::Error::msg)?;
        kernel.rows().map_err(anyhow::Error::msg)
    };
    let mut written = settle(&mut driver, &mut kernel)?;
    let mut found = (0, Vec::new());
    for (line, section) in &case.sections {
        match section {
            Section::Then(event) => {
                driver.happen(event, &mut kernel).map_err(anyhow::Error::msg)?;
                written = settle(&mut driver, &mut kernel)?;
            }
            Section::Packets(packets) => {
                pair.reset(&objects::rows(written.clone()))?;
                found.0 += packets.lines().count();
                found.1.extend(wrong(pair, (case, *line), packets)?);
            }
            Section::Rows(_) | Section::Problems(_) => {}
        }
    }
    Ok(found)
}

fn every_table(kernel: Option<Kernel>) -> Result<()> {
    let mut pair = Pair::new(kernel, &node::rows(20_000))?;
    let (mut lines, mut wrong) = (0, Vec::new());
    for path in files() {
        let (asked, differ) = run(&Case::read(&path)?, &mut pair)?;
        lines += asked;
        wrong.extend(differ);
    }
    ensure!(lines > 100, "only {lines} lines of packets");
    ensure!(
        wrong.is_empty(),
        "{} of {lines} lines differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{lines} lines");
    Ok(())
}

#[test]
fn packets_meet_what_the_tables_say() -> Result<()> {
    every_table(None)
}

#[test]
fn packets_meet_what_the_tables_say_in_the_kernel() -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    every_table(Some(Kernel::load()?))
}
