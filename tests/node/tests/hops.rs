//! How far a packet comes: this node counts as a hop where it sends a packet on by itself.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use serde_json::Value;
use weir_lab::manifest::Endpoint;
use weir_lab::{Host, Node, clock};
use weir_node::services::{Known, REMOTE};
use weir_node::{World, can_run, services_json};

/// How long a client waits. An error that comes while `connect()` still runs is only noted, and the next SYN, a second
/// later, brings it again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a change of the manifests may take until both nodes have it; far above what it takes.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

/// Hops that a packet of the loop may make.
const HOPS: u8 = 64;

/// Two Services whose endpoints are each other's node ports.
const LOOP: [Known; 2] = [
    Known {
        name: "to",
        number: 17,
        target: 30_018,
    },
    Known {
        name: "fro",
        number: 18,
        target: 30_017,
    },
];

/// Connects by packets that may make so many hops.
fn connect_within(host: &Host, target: SocketAddr, hops: u8) -> Result<Result<(), Errno>> {
    let open = || -> io::Result<Result<(), Errno>> {
        let family = if target.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        if target.is_ipv4() {
            sockopt::set_ip_ttl(&socket, hops.into())?;
        } else {
            sockopt::set_ipv6_unicast_hops(&socket, Some(hops))?;
        }
        match connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&patience))? == 0 {
            return Ok(Err(Errno::TIMEDOUT));
        }
        Ok(sockopt::socket_error(&socket)?)
    };
    Ok(host.run(open)??)
}

/// How often these nodes together have counted a reason.
fn counted(nodes: &[&Node], reason: &str) -> Result<u64> {
    nodes.iter().try_fold(0, |sum, node| {
        let status: Value = serde_json::from_str(&node.weir(&["status", "--output", "json"])?)?;
        let count = status.get("counters").and_then(|counters| counters.get(reason));
        let count = count.and_then(Value::as_u64);
        Ok(sum + count.with_context(|| format!("weir status shows no {reason}: {status}"))?)
    })
}

/// Whether a node has the node ports of both Services, in both families, with their endpoints.
fn has_loop(node: &Node) -> Result<bool> {
    let rows = services_json(node)?;
    let served = rows.iter().filter(|row| {
        let text = |key| row.get(key).and_then(Value::as_str).unwrap_or_default();
        LOOP.iter().any(|service| service.name == text("name"))
            && (text("type"), text("portName")) == ("NodePort", "http")
            && row
                .get("endpoints")
                .and_then(Value::as_array)
                .is_some_and(|all| all.len() == 1)
    });
    Ok(served.count() == 4)
}

/// As traceroute sees it: this node, the backend's node, the backend. Each says that it is there.
#[test]
fn p16_a_node_that_sends_packets_on_is_a_hop() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("hops")?;
    for target in world.at_n1(REMOTE.node_tcp()) {
        let mut expired = Vec::new();
        for hops in 1..=3 {
            let before = counted(&[&world.n1], "RejectHopLimit")?;
            let result = connect_within(&world.outside, target, hops)?;
            expired.push(counted(&[&world.n1], "RejectHopLimit")? - before);
            println!("{target} by {hops} hops: {result:?}");
            let wanted = if hops < 3 { Err(Errno::HOSTUNREACH) } else { Ok(()) };
            ensure!(result == wanted, "{target} by {hops} hops: {result:?}");
        }
        ensure!(
            matches!(expired.as_slice(), [own, 0, 0] if *own > 0),
            "node 1 counted {expired:?}"
        );
    }
    Ok(())
}

/// Two Services that are each other's endpoints: a packet goes round until its hops are used up, and no longer.
#[test]
fn p15_services_that_are_each_others_endpoints_send_nothing_round_for_ever() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("hoploop")?;
    let nodes = [&world.n1, &world.n2];
    let [to, fro] = LOOP;
    for (service, node) in [(to, &world.n2), (fro, &world.n1)] {
        let endpoints = node
            .addresses()
            .map(|address| Endpoint::new(address, node.name()));
        service.write_endpoints(&world.manifests, &endpoints)?;
    }
    let settled = || nodes.iter().all(|node| has_loop(node).unwrap_or(false));
    ensure!(
        clock::wait_until(SETTLED_WITHIN, settled),
        "the Services are not there"
    );
    let so_far = || anyhow::Ok((counted(&nodes, "NewFlow")?, counted(&nodes, "RejectHopLimit")?));
    for target in world.at_n1(to.node_tcp()) {
        let (rounds_before, expired_before) = so_far()?;
        let result = connect_within(&world.outside, target, HOPS)?;
        let (rounds, expired) = so_far()?;
        let (rounds, expired) = (rounds - rounds_before, expired - expired_before);
        println!("{target}: {result:?} after {rounds} flows, {expired} expired");
        ensure!(result.is_err(), "{target} is served by nobody");
        ensure!(rounds > 2, "{target} did not go round: is the loop not there?");
        ensure!(expired > 0, "{target}: no packet has expired");
        // A SYN that is sent again takes the same way.
        ensure!(
            rounds <= u64::from(HOPS),
            "{target}: {rounds} flows for one connection"
        );
    }
    ensure!(counted(&nodes, "DropSnatPorts")? == 0, "the source ports ran out");
    Ok(())
}
