//! Nobody there: clients are told at once, not left waiting.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, clock};
use weir_node::services::{EMPTY, UNDEFINED, WEB, family};
use weir_node::{By, World, can_run, figures};

const TRIES: u64 = 20;
/// A refusal takes well under a millisecond; this allows for a busy machine, and is far below any retransmission.
const AT_ONCE: u64 = 500;

/// All tries are refused, and at once.
fn assert_refused(what: &str, by: By, host: &Host, options: &ConnectOptions) -> Result<()> {
    let report = by.connect(host, options)?;
    figures(
        &format!("{what}, {by:?} hook, {}", family(options.target)),
        &report,
    );
    ensure!(
        report.errors.refused == TRIES && report.errors.total() == TRIES,
        "{what}: {report:?}"
    );
    ensure!(
        report.elapsed_ms < AT_ONCE,
        "{what} took {} ms",
        report.elapsed_ms
    );
    Ok(())
}

fn tcp(target: SocketAddr) -> ConnectOptions {
    ConnectOptions::new(target, TRIES, 1)
}

/// Only a connected socket hears of an ICMP error.
fn udp(target: SocketAddr) -> ConnectOptions {
    ConnectOptions {
        udp: true,
        connected: true,
        ..tcp(target)
    }
}

#[test]
fn a_service_without_endpoints_is_refused_at_once() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("rejempty")?;
    let clients = [
        ("pod", By::Socket, world.client.host()),
        ("pod", By::Packet, world.client.host()),
        ("host process", By::Socket, world.n1.host()),
    ];
    for (what, by, host) in clients {
        for (tcp_to, udp_to) in EMPTY.tcp().into_iter().zip(EMPTY.udp()) {
            assert_refused(&format!("{what}, TCP"), by, host, &tcp(tcp_to))?;
            assert_refused(&format!("{what}, UDP"), by, host, &udp(udp_to))?;
        }
        for (tcp_to, udp_to) in world
            .at_n1(EMPTY.node_tcp())
            .into_iter()
            .zip(world.at_n1(EMPTY.node_udp()))
        {
            assert_refused(&format!("{what}, NodePort TCP"), by, host, &tcp(tcp_to))?;
            assert_refused(&format!("{what}, NodePort UDP"), by, host, &udp(udp_to))?;
        }
    }
    for (tcp_to, udp_to) in world
        .at_n1(EMPTY.node_tcp())
        .into_iter()
        .zip(world.at_n1(EMPTY.node_udp()))
    {
        assert_refused("outside, NodePort TCP", By::Packet, &world.outside, &tcp(tcp_to))?;
        assert_refused("outside, NodePort UDP", By::Packet, &world.outside, &udp(udp_to))?;
    }
    // An unconnected socket is told by the socket hook itself.
    for target in EMPTY.udp() {
        let unconnected = ConnectOptions {
            connected: false,
            ..udp(target)
        };
        assert_refused("pod, sendmsg", By::Socket, &world.client, &unconnected)?;
        assert_refused("host process, sendmsg", By::Socket, &world.n1, &unconnected)?;
    }
    Ok(())
}

#[test]
fn p15_a_port_that_the_service_does_not_have_is_refused_at_once() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("rejport")?;
    for ip in WEB.ips() {
        let target = SocketAddr::new(ip, UNDEFINED);
        for by in By::BOTH {
            assert_refused("pod, TCP", by, &world.client, &tcp(target))?;
            assert_refused("pod, UDP", by, &world.client, &udp(target))?;
        }
        assert_refused("host process, TCP", By::Socket, &world.n1, &tcp(target))?;
        assert_refused("host process, UDP", By::Socket, &world.n1, &udp(target))?;
    }
    Ok(())
}

#[test]
fn a_cluster_ip_is_not_served_to_the_outside() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("rejoutside")?;
    let (n1_v4, n1_v6) = (world.n1.v4(), world.n1.v6());
    world.outside.ip(&format!(
        "route add 10.96.0.0/16 via {n1_v4}\nroute add fd00:10:96::/64 via {n1_v6} dev eth0\n"
    ))?;
    for target in WEB.tcp().into_iter().chain(WEB.udp()) {
        let udp = target.port() == weir_node::services::UDP;
        let timeout = Duration::from_millis(500);
        let options = ConnectOptions {
            udp,
            connected: udp,
            timeout,
            ..ConnectOptions::new(target, 4, 4)
        };
        let report = By::Packet.connect(&world.outside, &options)?;
        figures(&format!("outside to ClusterIP {target}"), &report);
        ensure!(report.ok == 0 && report.errors.total() == 4, "{report:?}");
    }
    let drops = world.n1.weir(&["status", "--output", "json"])?;
    println!(
        "{}",
        drops
            .lines()
            .filter(|line| line.contains("ExternalToClusterIp"))
            .collect::<String>()
            .trim()
    );
    Ok(())
}

#[test]
fn a_cluster_ip_that_no_service_has_is_dropped() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("unallocated")?;
    let dropped = || -> Result<u64> {
        let status: Value = serde_json::from_str(&world.n1.weir(&["status", "--output", "json"])?)?;
        let count = status
            .get("counters")
            .and_then(|counters| counters.get("DropUnallocated"));
        Ok(count.and_then(Value::as_u64).unwrap_or(0))
    };
    let targets: [SocketAddr; 2] = ["10.96.200.7:80".parse()?, "[fd00:10:96::200:7]:80".parse()?];
    ensure!(dropped()? == 0, "nothing is dropped without a ServiceCIDR");
    world.manifests.write(
        "cidrs.yaml",
        &[
            "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\n\
           spec: {cidrs: [10.96.0.0/16, \"fd00:10:96::/64\"]}\n",
        ],
    )?;
    let few = |target| ConnectOptions {
        timeout: Duration::from_millis(300),
        ..ConnectOptions::new(target, 4, 4)
    };
    let known = clock::wait_until(Duration::from_secs(5), || {
        let report = By::Socket.connect(&world.client, &few(targets[0]));
        report.is_ok_and(|report| report.errors.unreachable == 4)
    });
    ensure!(known, "the ServiceCIDR was not read");
    for target in targets {
        for (who, by, host) in [
            ("pod", By::Socket, world.client.host()),
            ("pod", By::Packet, world.sandbox.host()),
            ("host process", By::Socket, world.n1.host()),
        ] {
            let before = dropped()?;
            let report = by.connect(host, &few(target))?;
            figures(&format!("{who} to nobody's {target}, {by:?} hook"), &report);
            let silent = report.errors.timeout + report.errors.unreachable;
            ensure!((report.ok, silent) == (0, 4), "{who}: {report:?}");
            ensure!(dropped()? >= before + 4, "{who}: not counted");
        }
    }
    // Services go on.
    for target in WEB.tcp() {
        let report = By::Packet.connect(&world.sandbox, &ConnectOptions::new(target, 30, 5))?;
        ensure!(report.is_clean(), "{report:?}");
    }
    Ok(())
}
