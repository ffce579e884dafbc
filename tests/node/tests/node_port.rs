//! Node ports, from everywhere, and what each side gets to see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_lab::Weir;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::peer::serve::ServeOptions;
use weir_node::probe::Probe;
use weir_node::services::{REMOTE, SOLO, WEB, family};
use weir_node::{By, World, WorldOptions, can_run, figures};

#[test]
fn from_outside_to_a_backend_here_and_elsewhere() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("nodeport")?;
    for (service, backend, kept) in [(SOLO, "web-1", true), (REMOTE, "web-3", false)] {
        let ports = [(service.node_tcp(), false), (service.node_udp(), true)];
        for (port, udp) in ports {
            let seen = if kept {
                world.outside.addresses()
            } else {
                world.n1.addresses()
            };
            for (target, seen) in world.at_n1(port).into_iter().zip(seen) {
                let options = ConnectOptions {
                    udp,
                    connected: udp,
                    ..ConnectOptions::new(target, 1000, 50)
                };
                let report = By::Packet.connect(&world.outside, &options)?;
                figures(&format!("outside to {target} on {backend}, UDP {udp}"), &report);
                println!("  the backend saw {:?}", report.seen_as);
                ensure!(report.is_clean() && report.backend(backend) == 1000, "{report:?}");
                ensure!(
                    report.seen_as.get(&seen.to_string()) == Some(&1000),
                    "{:?}",
                    report.seen_as
                );
            }
        }
    }
    Ok(())
}

#[test]
fn many_long_ones_in_parallel() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("npmany")?;
    for target in world.at_n1(WEB.node_tcp()) {
        let options = ConnectOptions {
            hold: Duration::from_secs(2),
            ..ConnectOptions::new(target, 300, 1)
        };
        let report = By::Packet.connect(&world.outside, &options)?;
        figures(&format!("300 long ones to {target}"), &report);
        println!("  {} messages", report.messages);
        ensure!(report.is_clean() && report.counts() == [100; 3], "{report:?}");
        ensure!(report.messages > 300 * 10, "{} messages", report.messages);
    }
    Ok(())
}

#[test]
fn from_pods_and_host_processes_to_any_node() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("nppod")?;
    let own = world.n1.addresses();
    let other = world.n2.addresses();
    for (whose, addresses) in [("own", own), ("other", other)] {
        for address in addresses {
            for (port, udp) in [(WEB.node_tcp(), false), (WEB.node_udp(), true)] {
                let target = SocketAddr::new(address, port);
                let options = ConnectOptions {
                    udp,
                    ..ConnectOptions::new(target, 300, 10)
                };
                for (who, by, host) in [
                    ("pod", By::Socket, world.client.host()),
                    ("pod", By::Packet, world.client.host()),
                    ("host process", By::Socket, world.n1.host()),
                ] {
                    let report = by.connect(host, &options)?;
                    figures(
                        &format!("{who} to its {whose} node's {target}, UDP {udp}, {by:?} hook"),
                        &report,
                    );
                    ensure!(report.is_clean() && report.backends.len() == 3, "{report:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_peer_of_a_socket_is_the_frontend() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("nppeer")?;
    let tcp = WEB
        .tcp()
        .into_iter()
        .chain(world.at_n1(WEB.node_tcp()))
        .map(|target| (target, false));
    let udp = WEB
        .udp()
        .into_iter()
        .chain(world.at_n1(WEB.node_udp()))
        .map(|target| (target, true));
    for (target, udp) in tcp.chain(udp) {
        for (who, by, host) in [
            ("pod", By::Socket, world.client.host()),
            ("pod", By::Packet, world.client.host()),
            ("host process", By::Socket, world.n1.host()),
        ] {
            let finding = by.probe(host, &Probe::PeerName { target, udp })?;
            println!(
                "{who}, {by:?} hook, UDP {udp}: connected to {target}, peer {:?}",
                finding.peer
            );
            ensure!(
                finding.is_clean(1) && finding.peer == Some(target),
                "{who} {by:?} {target}: {finding:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_port_that_is_no_node_port_is_left_alone() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("npother")?;
    // Inside the range of node ports, between two that exist.
    let port = WEB.node_tcp() + 7;
    // Bound to the address that clients ask, for an answer from the nearest one would not be theirs.
    let server = |bind| {
        let name = world.n1.name().to_owned();
        world.n1.serve_with(&ServeOptions {
            name,
            tcp: vec![port],
            udp: vec![port],
            bind: Some(bind),
        })
    };
    let [v4, v6] = world.n1.addresses();
    let _servers = [server(v4)?, server(v6)?];
    let clients: [(&str, By, &weir_lab::Host); 3] = [
        ("outside", By::Packet, &world.outside),
        ("pod", By::Socket, &world.client),
        ("pod", By::Packet, &world.client),
    ];
    for (who, by, host) in clients {
        for (target, own) in world.at_n1(port).into_iter().zip(host.addresses()) {
            for udp in [false, true] {
                let options = ConnectOptions {
                    udp,
                    connected: udp,
                    ..ConnectOptions::new(target, 20, 5)
                };
                let report = by.connect(host, &options)?;
                figures(
                    &format!(
                        "{who} to the node's own server {target}, UDP {udp}, {}",
                        family(target)
                    ),
                    &report,
                );
                ensure!(report.is_clean() && report.backend("n1") == 20, "{report:?}");
                let own: IpAddr = own;
                ensure!(report.seen_as.get(&own.to_string()) == Some(&20), "{report:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn p13_host_processes_reach_node_ports_at_localhost() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let options = WorldOptions {
        no_agents: true,
        ..WorldOptions::default()
    };
    let world = World::with("nplocal", options)?;
    let words = ["--nodeport-addresses", "primary,localhost"];
    let _agents = [
        Weir::start(&world.n1, world.manifests.dir(), &words)?,
        Weir::start(&world.n2, world.manifests.dir(), &[])?,
    ];
    let localhost: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for address in localhost {
        for (port, udp) in [(WEB.node_tcp(), false), (WEB.node_udp(), true)] {
            let options = ConnectOptions {
                udp,
                timeout: Duration::from_secs(1),
                ..ConnectOptions::new(SocketAddr::new(address, port), 60, 5)
            };
            let report = By::Socket.connect(&world.n1, &options)?;
            figures(&format!("host process to {}, UDP {udp}", options.target), &report);
            ensure!(report.is_clean() && report.backends.len() == 3, "{report:?}");
            // A connected socket is told the name that it asked for.
            let probe = Probe::PeerName {
                target: options.target,
                udp,
            };
            let finding = By::Socket.probe(&world.n1, &probe)?;
            ensure!(finding.peer == Some(options.target), "{finding:?}");
            // A pod's loopback address is its own, and the other node was not told to.
            for host in [world.client.host(), world.n2.host()] {
                let few = ConnectOptions {
                    count: 4,
                    connected: udp,
                    timeout: Duration::from_millis(300),
                    ..options.clone()
                };
                let report = By::Socket.connect(host, &few)?;
                ensure!(report.ok == 0 && report.errors.refused == 4, "{report:?}");
            }
        }
        // What is no node port is the host's own.
        let server = world.n1.serve_with(&ServeOptions {
            name: "n1".to_owned(),
            tcp: vec![WEB.node_tcp() + 7],
            udp: Vec::new(),
            bind: Some(address),
        })?;
        let own = SocketAddr::new(address, WEB.node_tcp() + 7);
        let report = By::Socket.connect(&world.n1, &ConnectOptions::new(own, 20, 5))?;
        ensure!(report.is_clean() && report.backend("n1") == 20, "{report:?}");
        drop(server);
    }
    let route_localnet = world.n1.sh("cat /proc/sys/net/ipv4/conf/*/route_localnet")?;
    ensure!(!route_localnet.contains('1'), "{route_localnet}");
    Ok(())
}
