//! Whose address endpoints see: `--masquerade-all`, `--masquerade-external`, `--detect-local-mode`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, NodeOptions, PodNetwork, Weir, clock};
use weir_node::services::{Known, REMOTE, SOLO};
use weir_node::{By, World, WorldOptions, can_run, figures};

const TRIES: u64 = 100;

/// The world, with only an agent on node 1, which has these flags.
fn world(prefix: &str, pods: PodNetwork) -> Result<World> {
    let node = NodeOptions {
        pods,
        ..NodeOptions::default()
    };
    let options = WorldOptions {
        node,
        no_agents: true,
        ..WorldOptions::default()
    };
    World::with(prefix, options)
}

/// The addresses under which node 1 is seen by pods and by other machines.
fn of_node(world: &World) -> Vec<IpAddr> {
    let (v4, v6) = world.n1.gateway();
    let mut addresses = world.n1.addresses().to_vec();
    addresses.extend([IpAddr::from(v4), v6.into()]);
    addresses
}

/// Frontends, with whether they are UDP.
fn tcp(service: Known) -> Vec<(SocketAddr, bool)> {
    service.tcp().map(|target| (target, false)).to_vec()
}

fn cluster_ips(service: Known) -> Vec<(SocketAddr, bool)> {
    let udp = service.udp().map(|target| (target, true));
    tcp(service).into_iter().chain(udp).collect()
}

fn node_ports(world: &World, service: Known) -> Vec<(SocketAddr, bool)> {
    let tcp = world.at_n1(service.node_tcp()).map(|target| (target, false));
    let udp = world.at_n1(service.node_udp()).map(|target| (target, true));
    tcp.into_iter().chain(udp).collect()
}

/// Connects to each frontend, and asks the endpoints whom they saw.
fn seen(by: By, host: &Host, frontends: &[(SocketAddr, bool)], wanted: &[IpAddr]) -> Result<()> {
    for (target, udp) in frontends {
        for connected in [false, true] {
            if connected && !udp {
                continue;
            }
            let options = ConnectOptions {
                udp: *udp,
                connected,
                ..ConnectOptions::new(*target, TRIES, 20)
            };
            let report = by.connect(host, &options)?;
            figures(
                &format!("{} to {target}, UDP {udp}, {by:?} hook", host.name()),
                &report,
            );
            println!("  the backend saw {:?}", report.seen_as);
            let known = |seen: &String| wanted.iter().any(|address| address.to_string() == *seen);
            ensure!(
                report.is_clean() && report.seen_as.keys().all(known) && !report.seen_as.is_empty(),
                "{report:?} is not seen as {wanted:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn masquerade_all_shows_pods_as_the_node() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    for (prefix, pods) in [
        ("masqall", PodNetwork::PointToPoint),
        ("masqallb", PodNetwork::Bridge),
    ] {
        let world = world(prefix, pods)?;
        let _agent = Weir::start(&world.n1, world.manifests.dir(), &["--masquerade-all"])?;
        let node = of_node(&world);
        for service in [SOLO, REMOTE] {
            for by in By::BOTH {
                seen(by, &world.client, &cluster_ips(service), &node)?;
            }
            seen(By::Socket, &world.n1, &cluster_ips(service), &node)?;
        }
        // An endpoint that asks for itself, and a frontend that the flag is not about.
        let [web_1, ..] = &world.web;
        seen(By::Packet, web_1, &cluster_ips(SOLO), &node)?;
        seen(
            By::Packet,
            &world.outside,
            &node_ports(&world, SOLO),
            &world.outside.addresses(),
        )?;
    }
    Ok(())
}

#[test]
fn masquerade_external_shows_everybody_as_the_node() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = world("masqext", PodNetwork::PointToPoint)?;
    let _agent = Weir::start(&world.n1, world.manifests.dir(), &["--masquerade-external"])?;
    let node = of_node(&world);
    for service in [SOLO, REMOTE] {
        seen(By::Packet, &world.outside, &node_ports(&world, service), &node)?;
        for by in By::BOTH {
            seen(by, &world.client, &node_ports(&world, service), &node)?;
            seen(
                by,
                &world.client,
                &cluster_ips(service),
                &world.client.addresses(),
            )?;
        }
    }
    Ok(())
}

/// Waits until an agent that took over has read the Node: until then each interface keeps what an earlier agent made of it.
fn taken_over(host: &Host, wanted: &[IpAddr]) -> Result<()> {
    let begin = || seen(By::Packet, host, &tcp(SOLO), wanted);
    ensure!(
        clock::wait_until(Duration::from_secs(5), || begin().is_ok()),
        "{:?}",
        begin()
    );
    Ok(())
}

#[test]
fn what_is_no_pod_is_seen_as_the_node() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = world("masqguest", PodNetwork::PointToPoint)?;
    let node = of_node(&world);
    let (pod, guest) = (world.client.host(), world.sandbox.host());
    let [v4, v6] = pod.addresses();
    let ranges = format!("{v4}/32,{v6}/128");
    let name = world.client.host_interface();
    let modes: [&[&str]; 2] = [
        &["--cluster-cidr", &ranges],
        &[
            "--detect-local-mode",
            "InterfaceNamePrefix",
            "--pod-interface-name-prefix",
            name,
        ],
    ];
    for flags in modes {
        let agent = Weir::start(&world.n1, world.manifests.dir(), flags)?;
        taken_over(guest, &node)?;
        for service in [SOLO, REMOTE] {
            seen(By::Packet, guest, &cluster_ips(service), &node)?;
            seen(
                By::Packet,
                guest,
                &node_ports(&world, service),
                &guest.addresses(),
            )?;
            seen(By::Packet, pod, &cluster_ips(service), &pod.addresses())?;
        }
        drop(agent);
    }
    // The next agent knows of no guests, and takes the programs of pods to all of them. (UDP goes on as it began.)
    let _agent = Weir::start(&world.n1, world.manifests.dir(), &[])?;
    taken_over(guest, &guest.addresses())
}

#[test]
fn pods_are_known_by_their_bridge() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = world("masqbr", PodNetwork::Bridge)?;
    let node = of_node(&world);
    let pod = world.client.host();
    for (bridge, wanted) in [("cni0", pod.addresses().to_vec()), ("docker0", node)] {
        let flags = [
            "--detect-local-mode",
            "BridgeInterface",
            "--pod-bridge-interface",
            bridge,
        ];
        let _agent = Weir::start(&world.n1, world.manifests.dir(), &flags)?;
        taken_over(pod, &wanted)?;
        for service in [SOLO, REMOTE] {
            seen(By::Packet, pod, &tcp(service), &wanted)?;
        }
    }
    Ok(())
}
