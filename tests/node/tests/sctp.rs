//! SCTP by its packets: ports that are rewritten, and checksums that are right at both ends.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_lab::manifest::{Port, Service};
use weir_lab::{Host, Pod};
use weir_node::sctp::{ABORT, COOKIE_ACK, COOKIE_ECHO, DATA, INIT, INIT_ACK, Packet, SACK, Server, Speaker};
use weir_node::services::{Known, endpoints};
use weir_node::{World, WorldOptions, can_run};

/// The Services' port, and that of their endpoints.
const PORT: u16 = 3868;
const TARGET: u16 = 13_868;
const HERE: Known = Known {
    name: "sctp-here",
    number: 50,
    target: TARGET,
};
const THERE: Known = Known {
    name: "sctp-there",
    number: 51,
    target: TARGET,
};

const WITHIN: Duration = Duration::from_secs(3);

/// A Service with a port of SCTP, answered for by one pod.
fn write(world: &World, service: Known, pod: &Pod) -> Result<()> {
    let port = Port::sctp("http", PORT, TARGET).node_port(service.node_tcp());
    let object = Service::new(service.name, &service.ips(), &[port]);
    let mut documents = vec![object.to_yaml()];
    documents.extend(object.slices(&endpoints(&[pod])));
    world.manifests.write(&service.file(), &documents)?;
    world.settled(service, &[pod])?;
    Ok(())
}

/// A client's end of an association.
struct Client {
    speaker: Speaker,
    port: u16,
    to: IpAddr,
    at: u16,
}

impl Client {
    fn new(host: &Host, port: u16, (to, at): (IpAddr, u16)) -> Result<Self> {
        let speaker = Speaker::new(host, to.is_ipv6())?;
        Ok(Self {
            speaker,
            port,
            to,
            at,
        })
    }

    /// Sends a chunk; the answer must come from where it was sent to, and be another chunk.
    fn ask(&self, chunk: u8, data: &[u8], wanted: u8) -> Result<Packet> {
        let packet = Packet {
            source: self.port,
            destination: self.at,
            tag: if chunk == INIT { 0 } else { 5 },
            chunk,
            data: data.to_vec(),
        };
        self.speaker.send(self.to, &packet)?;
        let what = || format!("chunk {chunk} to {} port {}", self.to, self.at);
        let (from, answer) = self
            .speaker
            .receive(self.port, WITHIN)
            .with_context(what)?
            .with_context(|| format!("{}: no answer", what()))?;
        ensure!(
            (from, answer.source, answer.chunk) == (self.to, self.at, wanted),
            "{}: {from} answers {answer:?}",
            what()
        );
        Ok(answer)
    }
}

/// An association from its begin to some data: all of it arrives as it was sent, there and back.
fn talk(host: &Host, port: u16, frontend: (IpAddr, u16)) -> Result<()> {
    let client = Client::new(host, port, frontend)?;
    client.ask(INIT, &[1; 16], INIT_ACK)?;
    client.ask(COOKIE_ECHO, &[2; 200], COOKIE_ACK)?;
    for size in [0, 4, 100, 1300] {
        let data: Vec<u8> = (0..size).map(|at: u32| at.to_le_bytes()[0]).collect();
        let answer = client.ask(DATA, &data, SACK)?;
        ensure!(answer.data == data, "other data came back");
    }
    Ok(())
}

fn associations(prefix: &str, no_offloads: bool) -> Result<()> {
    let options = WorldOptions {
        no_offloads,
        ..WorldOptions::default()
    };
    let world = World::with(prefix, options)?;
    let [web_1, _, web_3] = &world.web;
    let servers = [Server::start(web_1, TARGET)?, Server::start(web_3, TARGET)?];
    let [here, there] = &servers;
    write(&world, HERE, web_1)?;
    write(&world, THERE, web_3)?;
    let pod = world.client.host();
    for (service, server, hidden) in [(HERE, here, false), (THERE, there, true)] {
        let inside = service.ips().map(|ip| (pod, (ip, PORT), pod.addresses()));
        let seen = if hidden {
            world.n1.addresses()
        } else {
            world.outside.addresses()
        };
        let outside = world
            .n1
            .addresses()
            .map(|ip| (&world.outside, (ip, service.node_tcp()), seen));
        for (host, frontend, seen) in inside.into_iter().chain(outside) {
            let what = format!("{} to {frontend:?} of {}", host.name(), service.name);
            talk(host, 40_000, frontend).with_context(|| what.clone())?;
            let packets = server.seen();
            println!("{what}: {} packets at the backend, as {seen:?}", packets.len());
            ensure!(packets.len() == 6, "{what}: {} packets", packets.len());
            ensure!(
                packets.iter().all(|(from, _)| seen.contains(from)),
                "{what}: seen as {packets:?}"
            );
        }
    }
    for server in servers {
        server.stop().context("a backend")?;
    }
    Ok(())
}

#[test]
fn an_association_from_a_pod_and_from_outside() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    associations("sctp", false)
}

#[test]
fn an_association_without_offloads() -> Result<()> {
    if !can_run(&["ethtool"]) {
        return Ok(());
    }
    associations("sctpoff", true)
}

#[test]
fn an_unknown_association_is_ended() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("sctpend")?;
    let [web_1, ..] = &world.web;
    write(&world, HERE, web_1)?;
    let inside = HERE.ips().map(|ip| (world.client.host(), (ip, PORT)));
    let outside = world
        .n1
        .addresses()
        .map(|ip| (&world.outside, (ip, HERE.node_tcp())));
    for (host, frontend) in inside.into_iter().chain(outside) {
        let client = Client::new(host, 40_000, frontend)?;
        let end = client.ask(DATA, &[3; 100], ABORT)?;
        ensure!((end.tag, end.data.len()) == (5, 0), "{end:?}");
        println!("{} to {frontend:?}: ABORT with the packet's own tag", host.name());
    }
    Ok(())
}
